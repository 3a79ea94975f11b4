//! The live view: what a look shows and what the looks before have shown, as a screen.

mod controls;
mod detail;
mod flows;
mod pen;
mod scene;
mod stage;

use ratatui::Frame;
use ratatui::text::{Line, Text};

pub use controls::{Controls, Deed, Page, Sort};
pub use flows::rows;
use pen::Pen;
pub use scene::Scene;
pub use stage::Stage;

use super::Screen;
use crate::judge::level::Level;
use crate::judge::verdict::Verdict;
use crate::words::{count, counted, percent, time};

/// The least that all of it fits in.
pub const LEAST: (u16, u16) = (60, 15);

/// Draws all of it.
pub fn draw(scene: &Scene<'_>, screen: Screen, frame: &mut Frame<'_>) {
    let area = frame.area();
    let pen = Pen::new(screen, area.width);
    let height = usize::from(area.height);
    let lines = if area.width < LEAST.0 || area.height < LEAST.1 {
        too_small(scene, &pen, (area.width, area.height))
    } else {
        match scene.controls.page {
            Page::Flows => all_flows(scene, &pen, height),
            Page::Flow(from) => one_flow(scene, &pen, height, from),
            Page::Help => help(scene, &pen, height),
        }
    };
    frame.render_widget(Text::from(lines), area);
}

fn too_small(scene: &Scene<'_>, pen: &Pen, (width, height): (u16, u16)) -> Vec<Line<'static>> {
    let (least_width, least_height) = LEAST;
    let text = format!(
        "twcheck watch needs {least_width}×{least_height}, and this terminal has {width}×{height}."
    );
    let level = Line::from(pen.level(level(scene), level(scene).word()));
    [level].into_iter().chain(pen.wrapped("", &text)).collect()
}

/// What could not be looked at is unknown, whatever was seen before.
fn level(scene: &Scene<'_>) -> Level {
    match scene.failed {
        Some(_) => Level::Unknown,
        None => scene.verdict.level,
    }
}

fn all_flows(scene: &Scene<'_>, pen: &Pen, height: usize) -> Vec<Line<'static>> {
    let mut lines = top(scene, pen, height);
    let rows = rows(scene.verdict, scene.trend, scene.controls);
    let detail = detail::selected(scene, &rows, pen);
    // The heading of the table, and the keys.
    let left = height.saturating_sub(lines.len() + 2);
    let most = left.saturating_sub(detail.len()).max(left / 2);
    let number = rows.len().clamp(1, most.max(1));
    lines.extend(flows::table(scene, &rows, pen, number));
    lines.extend(pen.cut(detail, height.saturating_sub(lines.len() + 1)));
    with_keys(lines, scene, pen, height)
}

fn one_flow(scene: &Scene<'_>, pen: &Pen, height: usize, from: usize) -> Vec<Line<'static>> {
    let mut lines = top(scene, pen, height);
    let rows = rows(scene.verdict, scene.trend, scene.controls);
    lines.extend(flows::table(scene, &rows, pen, 1));
    let detail = detail::selected(scene, &rows, pen);
    let room = height.saturating_sub(lines.len() + 1);
    // The last lines stay on the screen however far it is scrolled.
    let from = from.min(detail.len().saturating_sub(room));
    let rest = detail.into_iter().skip(from).collect();
    lines.extend(pen.cut(rest, room));
    with_keys(lines, scene, pen, height)
}

fn help(scene: &Scene<'_>, pen: &Pen, height: usize) -> Vec<Line<'static>> {
    let keys = [
        ("up, down, j, k", "select; PgUp, PgDn, Home, End go further"),
        ("Enter", "all about it, and back"),
        ("s", "sort: worst, ports, pace, time left, server"),
        ("/", "flows with this in an address or process"),
        ("p, space", "pause, and go on"),
        ("+, -", "look less often, more often"),
        ("Ctrl-L", "draw the screen anew"),
        ("Esc", "back; takes the filter away"),
        ("q, Ctrl-C", "end"),
    ];
    let mut lines = vec![header(scene, pen), Line::default()];
    lines.extend(keys.map(|(key, deed)| pen.plain(&format!("  {key:<15}{deed}"))));
    let text = "LAST 60 S are the connections closed in each second, from the timers of \
                TIME_WAIT; LEFT is the time until no port is free at that pace; ! is trouble.";
    lines.extend(pen.wrapped("  ", text));
    with_keys(lines, scene, pen, height)
}

/// The header, the sentence and the gauge.
fn top(scene: &Scene<'_>, pen: &Pen, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![header(scene, pen)];
    let most = if height < 20 { 3 } else { 5 };
    let sentence = match scene.failed {
        Some(why) => format!("{why} What follows was seen {} s ago.", scene.age.as_secs()),
        None => scene.verdict.summary.clone(),
    };
    lines.extend(pen.sentence(level(scene), &sentence, most));
    lines.push(gauge(scene.verdict, pen));
    lines
}

fn header(scene: &Scene<'_>, pen: &Pen) -> Line<'static> {
    let controls = scene.controls;
    let pace = if controls.is_paused {
        format!("PAUSED {} s ago", scene.age.as_secs())
    } else {
        format!("every {}", time(controls.every))
    };
    let running = scene.running.as_secs();
    let cost = scene.cpu.map_or_else(String::new, |cpu| {
        format!("  {:.1} ms CPU a look", cpu.as_secs_f64() * 1e3)
    });
    let time = format!(
        "{}:{:02}:{:02}",
        running / 3600,
        running / 60 % 60,
        running % 60
    );
    let right = format!("{pace}  {time}{cost}");
    pen.both_ends(&format!("twcheck watch{}", scene.about), &right)
}

/// How much of its ports the worst flow takes, and where the fast ones end.
fn gauge(verdict: &Verdict, pen: &Pen) -> Line<'static> {
    let usable = verdict.capacity.map(|capacity| capacity.usable_ports);
    let worst = verdict.flows.first();
    let (taken, usable) = match (worst, usable) {
        (Some(flow), _) => (
            flow.ports_usable
                .zip(flow.ports_free)
                .map(|(usable, free)| usable.saturating_sub(free)),
            flow.ports_usable,
        ),
        (None, usable) => (usable.map(|_| 0), usable),
    };
    let (Some(taken), Some(usable)) = (taken, usable) else {
        return pen.plain("Ports: how many there are is unknown.");
    };
    let text = format!(
        " {} of {} ports, {:.1} %",
        count(taken),
        count(usable),
        percent(taken, usable)
    );
    let fast = verdict.capacity.map(|capacity| capacity.fast_ports);
    let mark = fast.filter(|&fast| 0 < fast && fast < usable);
    let room = pen.width().saturating_sub(text.len());
    let level = worst.map_or(Level::Ok, |flow| flow.level);
    let mut line = pen.gauge((taken, usable), mark, room, level);
    line.push_span(pen.span(&text));
    line
}

/// The keys, or what is typed, on the last line.
fn with_keys(
    mut lines: Vec<Line<'static>>,
    scene: &Scene<'_>,
    pen: &Pen,
    height: usize,
) -> Vec<Line<'static>> {
    let controls = scene.controls;
    lines.truncate(height - 1);
    lines.resize(height - 1, Line::default());
    lines.push(if controls.is_typing {
        pen.plain(&format!(
            "/{}_  Enter keeps it, Esc takes it away",
            controls.filter
        ))
    } else if controls.page == Page::Flows {
        let filter = match controls.filter.as_str() {
            "" => "/ filter".to_owned(),
            filter => format!("/{filter}"),
        };
        let listed = scene.verdict.flows.len();
        let all = scene.verdict.flows_total;
        let flows = if listed < all {
            format!(
                "{} of {}",
                count(listed as u64),
                counted(all as u64, "flow")
            )
        } else {
            counted(all as u64, "flow")
        };
        let sort = controls.sort.name();
        let keys = if pen.width() < 80 {
            format!("? help  q quit  s {sort}  {filter}  p pause")
        } else {
            format!("? help  q quit  Enter more  s {sort}  {filter}  p pause  +/- pace")
        };
        pen.both_ends(&keys, &flows)
    } else {
        pen.plain("Esc back  q quit")
    });
    lines
}
