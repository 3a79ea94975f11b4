//! The flows, a row each.

use std::cmp::Reverse;

use ratatui::text::{Line, Span};
use textwrap::core::display_width;

use super::controls::{Controls, Sort};
use super::pen::Pen;
use super::scene::Scene;
use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::judge::trend::Trend;
use crate::judge::verdict::Verdict;
use crate::model::{Flow, Origin};
use crate::render::evidence::{drops, flow_row};
use crate::words::sparkline;

/// The flows as they are shown: in the order that is asked for, and only those that are.
#[must_use]
pub fn rows(verdict: &Verdict, trend: &Trend, controls: &Controls) -> Vec<Flow> {
    let filter = controls.filter.to_lowercase();
    let mut flows: Vec<_> = verdict
        .flows
        .iter()
        .filter(|flow| filter.is_empty() || words(flow, trend).contains(&filter))
        .collect();
    match controls.sort {
        Sort::Worst => {}
        Sort::Ports => flows.sort_by_key(|flow| Reverse(flow.ports_in_use)),
        Sort::Pace => flows.sort_by(|one, other| other.rate.now.total_cmp(&one.rate.now)),
        Sort::Left => flows.sort_by(|one, other| seconds_left(one).total_cmp(&seconds_left(other))),
        Sort::Toward => flows.sort_by_key(|flow| (flow.server(), flow.source)),
    }
    flows.into_iter().map(FlowReport::flow).collect()
}

/// All that a filter can be a part of.
fn words(flow: &FlowReport, trend: &Trend) -> String {
    let past = trend.past(&flow.flow());
    let owners = past.into_iter().flat_map(|past| &past.owners);
    let owners: Vec<_> = owners.map(ToString::to_string).collect();
    let (origin, server) = (flow.flow(), flow.server());
    format!("{} {server} {}", Origin(&origin), owners.join(" ")).to_lowercase()
}

/// How long it has ports; for ever where it does not run out.
fn seconds_left(flow: &FlowReport) -> f64 {
    if flow.ports_free == Some(0) {
        return 0.0;
    }
    flow.seconds_to_exhaustion.unwrap_or(f64::INFINITY)
}

/// The time left, counted down from the look on.
fn left(flow: &FlowReport, scene: &Scene<'_>) -> String {
    if flow.ports_free == Some(0) {
        return "none".into();
    }
    let Some(seconds) = flow.seconds_to_exhaustion else {
        return "-".into();
    };
    // What was seen then stays so while nobody looks.
    let gone = if scene.controls.is_paused || scene.failed.is_some() {
        0.0
    } else {
        scene.age.as_secs_f64()
    };
    format!("{:.0} s", (seconds - gone).max(0.0))
}

const HEADING: [&str; 7] = ["FROM", "TOWARD", "PORTS", "FREE", "NOW/S", "MAX/S", "LEFT"];
const LAST: &str = "LAST 60 S";

/// What is left out first where there is no room: the limit, where it comes from, what is free.
const SPARED: [usize; 3] = [5, 0, 3];

/// What the sparkline has at least, and at most: a bar a second.
const SPARKLINE: (usize, usize) = (15, 60);

/// An address has no more columns than these in a hundred.
const ADDRESS: usize = 30;

/// The heading and `number` rows, the selected flow among them.
pub fn table(scene: &Scene<'_>, rows: &[Flow], pen: &Pen, number: usize) -> Vec<Line<'static>> {
    let place = scene.controls.place(rows);
    let from = place
        .saturating_sub(number / 2)
        .min(rows.len().saturating_sub(number));
    let shown: Vec<_> = rows
        .iter()
        .skip(from)
        .take(number)
        .filter_map(|row| scene.verdict.flows.iter().find(|flow| flow.flow() == *row))
        .collect();
    let longest = (pen.width() * ADDRESS / 100).max(16);
    let cells: Vec<[String; 7]> = shown
        .iter()
        .map(|flow| {
            let [source, toward, rest @ ..] = flow_row(flow, drops(scene.verdict));
            let [ports, free, now, most] = rest.map(|cell| pen.fitted(&cell, pen.width()));
            let [source, toward] = [source, toward].map(|it| pen.fitted_left(&it, longest));
            [source, toward, ports, free, now, most, left(flow, scene)]
        })
        .collect();
    let widths: Vec<_> = (0..HEADING.len())
        .map(|column| {
            let cells = cells.iter().map(|row| display_width(&row[column]));
            cells.chain([HEADING[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let mut columns: Vec<_> = (0..HEADING.len()).collect();
    let beside = |columns: &[usize]| {
        let taken: usize = columns.iter().map(|&column| widths[column] + 2).sum();
        pen.width().saturating_sub(2 + taken)
    };
    for spared in SPARED {
        if beside(&columns) < SPARKLINE.0 {
            columns.retain(|&column| column != spared);
        }
    }
    let bars = beside(&columns).min(SPARKLINE.1);
    let joined = |cells: &[String]| {
        let cell = |&column: &usize| {
            let (cell, width) = (&cells[column], widths[column]);
            let pad = " ".repeat(width.saturating_sub(display_width(cell)));
            if column < 2 {
                format!("{cell}{pad}  ")
            } else {
                format!("{pad}{cell}  ")
            }
        };
        columns.iter().map(cell).collect::<String>()
    };
    let heading = joined(&HEADING.map(str::to_owned));
    let mut lines = vec![pen.strong(&format!("  {heading}{LAST}"))];
    for ((flow, cells), row) in shown.iter().zip(&cells).zip(from..) {
        let mut seconds = flow.closed_per_second.per_second().to_vec();
        seconds.reverse();
        let arrow = if row == place { '>' } else { ' ' };
        // Where there is no colour either.
        let trouble = if flow.level > Level::Ok { '!' } else { ' ' };
        let mark = format!("{arrow}{trouble}");
        let text = format!(
            "{}{}",
            joined(cells),
            pen.spelled(&sparkline(&seconds, bars, 0))
        );
        lines.push(match flow.level {
            Level::Ok => Line::from(vec![Span::raw(mark), Span::raw(text)]),
            level => Line::from(vec![Span::raw(mark), pen.level(level, &text)]),
        });
    }
    if rows.is_empty() {
        let text = if scene.controls.filter.is_empty() {
            "  No outbound connection takes a port."
        } else {
            "  No flow has that in an address or a process."
        };
        lines.push(pen.plain(text));
    }
    lines
}
