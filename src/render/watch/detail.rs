//! All about the selected flow, and what concerns none.

use std::fmt::Write as _;

use ratatui::text::Line;

use super::pen::Pen;
use super::scene::Scene;
use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::judge::trend::{Past, Trend};
use crate::model::{Flow, Origin, Owner, Placeless, StateCounts, TcpState};
use crate::words::{count, counted, lasting, percent, rate, sparkline};

/// Owners named.
const OWNERS: usize = 3;

/// What there is to say: about the selected one of `rows`, what is wrong with it, then about the
/// machine.
pub fn selected(scene: &Scene<'_>, rows: &[Flow], pen: &Pen) -> Vec<Line<'static>> {
    let flow = rows.get(scene.controls.place(rows));
    let flows = &scene.verdict.flows;
    let place = flows.iter().position(|it| Some(&it.flow()) == flow);
    let mut lines = Vec::new();
    if let Some(place) = place {
        let flow = &flows[place];
        let past = scene.trend.past(&flow.flow());
        lines.push(pen.strong(&title(flow, past)));
        lines.extend(pen.wrapped("States: ", &states(flow, past)));
        lines.extend(pen.wrapped("Owners: ", &owners(flow, scene, past)));
        lines.extend(past.map(|past| pen.plain(&ports(past, pen))));
        lines.extend(findings(scene, Some(place), pen));
        lines.extend(pen.wrapped("Pace: ", &pace(flow)));
    }
    lines.extend(pen.wrapped("Machine: ", &machine(scene)));
    lines.extend(findings(scene, None, pen));
    lines
}

fn title(flow: &FlowReport, past: Option<&Past>) -> String {
    let word = flow.level.word();
    let troubled = past.filter(|_| flow.level > Level::Ok);
    let trouble = troubled.and_then(Past::in_trouble_for);
    let trouble = trouble.map_or_else(String::new, |(seconds, at_least)| {
        let at_least = if at_least { "≥" } else { "" };
        format!(", in trouble for {at_least}{}", lasting(seconds))
    });
    let origin = flow.flow();
    format!("{} to {}: {word}{trouble}", Origin(&origin), flow.server())
}

/// The flow's sockets by state, and how many more or fewer than at the look before.
fn states(flow: &FlowReport, past: Option<&Past>) -> String {
    let before = past.and_then(|past| past.states_before.as_ref());
    let mut states = flow.by_state.largest_first();
    // What is gone has changed too.
    let gone = before.into_iter().flat_map(StateCounts::largest_first);
    states.extend(
        gone.filter(|(state, _)| flow.by_state.get(*state) == 0)
            .map(|(state, _)| (state, 0)),
    );
    let text = |(state, number): &(TcpState, u64)| {
        let change = before.map_or(0, |before| difference(*number, before.get(*state)));
        format!("{} {}{}", state.name(), count(*number), in_brackets(change))
    };
    let texts: Vec<_> = states.iter().map(text).collect();
    texts.join(", ")
}

fn difference(now: u64, before: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
}

/// ` (+1,043)`; nothing where nothing has changed.
fn in_brackets(change: i64) -> String {
    match change {
        0 => String::new(),
        more @ 1.. => format!(" (+{})", count(more.unsigned_abs())),
        fewer => format!(" (-{})", count(fewer.unsigned_abs())),
    }
}

/// Who was seen with its sockets, in all looks.
fn owners(flow: &FlowReport, scene: &Scene<'_>, past: Option<&Past>) -> String {
    let past = past.filter(|past| past.looks > 0);
    let Some(past) = past else {
        return match flow.level {
            Level::Ok => "not looked for: it is in no trouble, and holds few connections open",
            _ => "not looked for so far",
        }
        .into();
    };
    let looks = counted(past.looks, "look");
    if past.owners.is_empty() {
        let nobody = format!("nobody was seen with a live socket of it in {looks}");
        let others = unplaced(scene.trend);
        return if others.is_empty() {
            // What was said is about the worst.
            let is_worst = scene.verdict.flows.first() == Some(flow);
            let notes = &scene.trend.owner_notes[..];
            let notes = if is_worst { notes } else { &[] };
            format!("{nobody}. {}", notes.join(" "))
        } else {
            format!("{nobody}; {}", others.join("; "))
        };
    }
    let owner = |owner: &Owner| {
        let share = percent(owner.sockets, past.sockets);
        format!("{owner} {share:.0} %")
    };
    let mut named: Vec<_> = past.owners.iter().take(OWNERS).map(owner).collect();
    if past.owners.len() > OWNERS {
        let at_least = if past.forgot_owners { "at least " } else { "" };
        named.push(format!("{at_least}{} more", past.owners.len() - OWNERS));
    }
    let seen = counted(past.sockets, "sighting");
    format!("{} of {seen} in {looks}", named.join("; "))
}

/// Who may be behind a flow with whose sockets nobody was seen.
fn unplaced(trend: &Trend) -> Vec<String> {
    let of = |why| trend.unplaced.iter().filter(move |it| it.why == why);
    let lived = trend.short_lived;
    let trying = of(Placeless::NoPort).map(|it| {
        let sockets = counted(it.owner.sockets, "TCP socket");
        format!(
            "{} had {sockets} without a port, as who tries to connect",
            it.owner
        )
    });
    let short = of(Placeless::ShortLived).map(|it| {
        format!(
            "{} had {:.0} % of {} that were gone before they could be placed",
            it.owner,
            percent(it.owner.sockets, lived),
            counted(lived, "TCP socket")
        )
    });
    trying.chain(short).take(OWNERS).collect()
}

/// The ports in use since the first look that had it.
fn ports(past: &Past, pen: &Pen) -> String {
    let values = past.ports.values();
    let (least, most) = (values.iter().min(), values.iter().max());
    let text = format!(
        " {} to {} in use since first seen",
        count(least.copied().unwrap_or(0)),
        count(most.copied().unwrap_or(0))
    );
    // In steps that a bar can show: the highest is a full one.
    let full = most.copied().unwrap_or(0).max(1);
    let step = |&value: &u32| u16::try_from(u64::from(value) * 1000 / u64::from(full));
    let steps: Vec<_> = values
        .iter()
        .map(|value| step(value).unwrap_or(1000))
        .collect();
    let room = pen.width().saturating_sub(text.len() + "Ports: ".len());
    format!("Ports: {}{text}", sparkline(&steps, room, 1000))
}

fn pace(flow: &FlowReport) -> String {
    let at_least = if flow.rate.lower_bound {
        "at least "
    } else {
        ""
    };
    format!(
        "{at_least}{} connections/s now, {} over 10 s, {} over 60 s, {} in the busiest second",
        rate(flow.rate.now),
        rate(flow.rate.last_10_s),
        rate(flow.rate.last_60_s),
        flow.rate.peak_1_s
    )
}

/// What is counted for the whole machine, or its namespace.
fn machine(scene: &Scene<'_>) -> String {
    let (now, before) = (&scene.verdict.counters, scene.trend.before.as_ref());
    let known = |now: Option<u64>, before: Option<Option<u64>>| {
        now.map_or_else(
            || "unknown".into(),
            |now| {
                let change = before.flatten().map_or(0, |before| difference(now, before));
                format!("{}{}", count(now), in_brackets(change))
            },
        )
    };
    let mut text = format!(
        "ESTABLISHED {}, TIME_WAIT {}",
        known(now.established, before.map(|it| it.established)),
        known(now.time_wait, before.map(|it| it.time_wait))
    );
    for (flows, what) in [(&scene.trend.began, "new"), (&scene.trend.ended, "gone")] {
        if !flows.is_empty() {
            let _ = write!(text, ", {} {what}", counted(flows.len() as u64, "flow"));
        }
    }
    let Some(rates) = scene.trend.rates else {
        return text;
    };
    for (rate_now, what) in [
        (rates.reused, "TIME_WAIT reused"),
        (rates.dropped, "TIME_WAIT dropped"),
        (rates.untracked, "connections not tracked"),
    ] {
        if let Some(per_second) = rate_now.filter(|it| *it > 0.0) {
            let _ = write!(text, ", {}/s {what}", rate(per_second));
        }
    }
    text
}

/// What is wrong with the flow in this place of the list, or with none.
fn findings(scene: &Scene<'_>, flow: Option<usize>, pen: &Pen) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for reported in scene.verdict.findings.iter().filter(|it| it.flow == flow) {
        let (code, level) = (reported.finding.code(), reported.level.word());
        let message = reported.message();
        // What the sentence says already is not said again.
        let text = if scene.verdict.summary.starts_with(&message) {
            format!("{code} ({level})")
        } else {
            format!("{code} ({level}): {message}")
        };
        lines.extend(pen.wrapped("", &text));
        lines.extend(pen.wrapped("  next: ", &reported.next_step()));
    }
    lines
}
