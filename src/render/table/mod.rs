//! What people read.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};

use textwrap::core::display_width;

mod advice;
mod explanation;
mod grid;
mod namespaces;
mod repro;

pub use advice::advice;
pub use explanation::{explanation, kinds};
use grid::{GAP, Grid};
pub use namespaces::{all_advice, all_states, all_verdicts};
pub use repro::repro;

use super::Screen;
use super::evidence::{drops, flow_row, groups, nat_row, remarks, translated};
use super::screen::unbroken;
use crate::judge::destination::Sought;
use crate::judge::flow::FlowReport;
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::model::{Namespace, StateCounts, TcpState};
use crate::words::{count, percent, sparkline};

/// Writes `sentence`, what `rest` writes beneath it, and the sentence once more where all that is
/// more than the screen shows at once: it is what the reader came for.
fn under_sentence(
    sentence: &str,
    screen: Screen,
    out: &mut dyn Write,
    rest: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut report = format!("{sentence}\n").into_bytes();
    rest(&mut report)?;
    out.write_all(&report)?;
    if screen.is_overflown_by(&String::from_utf8_lossy(&report)) {
        writeln!(out, "\n{sentence}")?;
    }
    out.flush()
}

/// `twcheck states`.
///
/// # Errors
/// When `out` cannot be written.
pub fn states(
    report: &States,
    explain: bool,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_namespace(report.namespace.as_ref(), screen, out)?;
    let mut rows = Grid::new(screen, &["STATE", "COUNT", "SHARE", ""], &[1, 2]);
    let share = |part: u64| format!("{:.1} %", percent(part, report.total.unwrap_or_default()));
    for (state, number) in report.states.largest_first() {
        rows.row([
            state.name().to_owned(),
            count(number),
            share(number),
            String::new(),
        ]);
        if let (TcpState::TimeWait, Some(time_wait)) = (state, report.time_wait) {
            let split = time_wait.split;
            for (direction, number, cost) in [
                (
                    "outbound",
                    split.outbound,
                    "each holds a port toward its destination",
                ),
                ("inbound", split.inbound, "accepted here: memory, no port"),
            ] {
                rows.row([
                    format!("  {direction}"),
                    count(number),
                    share(number),
                    cost.into(),
                ]);
            }
        }
    }
    rows.row([
        "total".to_owned(),
        report.total.map_or_else(|| "unknown".into(), count),
        String::new(),
        String::new(),
    ]);
    rows.write(out)?;
    write_destination(report.destination.as_ref(), screen, out)?;

    if let Some(flows) = &report.flows {
        writeln!(out)?;
        let mut rows = Grid::new(screen, &["FROM", "TOWARD", "SOCKETS", "STATES"], &[2]);
        for flow in flows {
            rows.row([
                flow.from(),
                SocketAddr::new(flow.destination, flow.destination_port).to_string(),
                count(flow.total),
                state_list(&flow.by_state),
            ]);
        }
        rows.write(out)?;
        let more = report
            .flows_total
            .unwrap_or_default()
            .saturating_sub(flows.len());
        if more > 0 {
            writeln!(out, "… and {} more (--top 0)", count(more as u64))?;
        }
    }
    if explain {
        writeln!(out)?;
        let mut rows = Grid::new(screen, &["STATE", "MEANING"], &[]);
        for state in TcpState::ALL {
            rows.row([state.name(), state.meaning()]);
        }
        rows.write(out)?;
    }
    out.flush()
}

/// `twcheck verdict`: a sentence, the flows that matter, the findings with their next steps.
///
/// # Errors
/// When `out` cannot be written.
pub fn verdict(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let word = verdict.level.word();
    let painted = screen.paint(verdict.level, word);
    let indent = " ".repeat(word.len() + 2);
    let sentence = screen.wrap(&format!("{painted}: "), &indent, &verdict.summary);
    under_sentence(&sentence, screen, out, |out| {
        write_evidence(verdict, screen, out)
    })
}

fn write_evidence(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    write_namespace(verdict.namespace.as_ref(), screen, out)?;
    let flows: Vec<_> = verdict.worth_a_line().collect();
    if !flows.is_empty() {
        writeln!(out)?;
        write_flows(&flows, drops(verdict), screen, out)?;
        if verdict.flows_total > verdict.flows.len() {
            let more = verdict.flows_total - verdict.flows.len();
            writeln!(out, "… and {} more (--top 0)", count(more as u64))?;
        }
        writeln!(out)?;
    }
    for (about, text) in remarks(verdict) {
        let about = format!("{about}: ");
        let indent = " ".repeat(about.len());
        writeln!(out, "{}", screen.wrap(&about, &indent, &text))?;
    }
    write_nat(verdict, screen, out)?;
    write_findings(verdict, screen, out)?;
    if let Some(text) = verdict.otherwise() {
        writeln!(out, "{}", screen.wrap("", "", &text))?;
    }
    Ok(())
}

/// Which network namespace a report is about, where another one than the reader's was asked for.
fn write_namespace(
    namespace: Option<&Namespace>,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(namespace) = namespace else {
        return Ok(());
    };
    let text = namespace.to_string();
    writeln!(out, "{}", screen.wrap("Namespace: ", "           ", &text))
}

/// The destination that a report is limited to, and what can be had there where nothing goes there.
fn write_destination(
    sought: Option<&Sought>,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(sought) = sought else {
        return Ok(());
    };
    writeln!(
        out,
        "{}",
        screen.wrap("Toward: ", "        ", &sought.to_string())
    )?;
    match &sought.room {
        Some(room) => writeln!(out, "{}", screen.wrap("", "", room)),
        None => Ok(()),
    }
}

/// The findings by code, the worst first.
fn write_findings(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for group in groups(verdict) {
        let (code, level) = (screen.paint(group.level, group.code), group.level.word());
        writeln!(out, "\n{code} ({level})")?;
        for message in &group.messages {
            writeln!(out, "{}", screen.wrap("  ", "  ", message))?;
        }
        for step in &group.steps {
            writeln!(out, "{}", screen.wrap("  next: ", "        ", step))?;
        }
    }
    Ok(())
}

/// What is left for the sparkline, and what it never exceeds: a bar a second.
const SPARKLINE: RangeInclusive<usize> = 10..=60;

fn write_flows(
    flows: &[&FlowReport],
    drops: bool,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    const HEADING: [&str; 7] = [
        "FROM",
        "TOWARD",
        "PORTS",
        "FREE",
        "NOW/S",
        "MAX/S",
        "LAST 60 S",
    ];
    let rows: Vec<_> = flows.iter().map(|flow| flow_row(flow, drops)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| screen.spelled(&row[column]));
        let widest = cells.map(|cell| display_width(&cell)).max().unwrap_or(0);
        widest.max(HEADING[column].len()) + usize::from(GAP)
    };
    let beside = |columns: Range<usize>| {
        screen.width.map_or(*SPARKLINE.end(), |all| {
            usize::from(all).saturating_sub(columns.map(width).sum())
        })
    };
    let has_room = beside(0..6) >= *SPARKLINE.start();
    let left = beside(if has_room { 0..6 } else { 2..6 });
    let history = |flow: &FlowReport| {
        let mut seconds = flow.closed_per_second.per_second().to_vec();
        seconds.reverse();
        let width = left.clamp(*SPARKLINE.start(), *SPARKLINE.end());
        sparkline(&seconds, width, 0)
    };
    let mut whole = Grid::new(screen, &HEADING, &[2, 3, 4, 5]);
    let mut rest = Grid::new(screen, &HEADING[2..], &[0, 1, 2, 3]);
    for (row, flow) in rows.iter().zip(flows) {
        let row = [&row[..], &[history(flow)]].concat();
        rest.row(&row[2..]);
        whole.row(row);
    }
    if has_room || !rest.fits() {
        return whole.write(out);
    }
    // Long addresses get a line of their own.
    for (line, row) in (0..).zip(rest.lines()) {
        writeln!(out, "{row}")?;
        if let Some([from, toward, ..]) = usize::checked_sub(line, 1).and_then(|at| rows.get(at)) {
            let flow = format!("from {from} toward {toward}");
            writeln!(out, "{}", screen.wrap("  ", "  ", &flow))?;
        }
    }
    Ok(())
}

/// The flows after translation, with who is behind them.
fn write_nat(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(nat) = &verdict.nat else {
        return Ok(());
    };
    let text = translated(nat);
    writeln!(out, "{}", screen.wrap("NAT: ", "     ", &text))?;
    if nat.flows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut rows = Grid::new(
        screen,
        &[
            "AFTER NAT",
            "TOWARD",
            "TAKEN",
            "CLOSED",
            "OF",
            "HANGS FROM",
            "BEHIND",
        ],
        &[2, 3, 4, 5],
    );
    for flow in &nat.flows {
        rows.row(nat_row(flow));
    }
    rows.write(out)?;
    let more = nat.flows_examined - nat.flows.len();
    if more > 0 {
        writeln!(out, "… and {} more (--top 0)", count(more as u64))?;
    }
    Ok(())
}

fn state_list(by_state: &StateCounts) -> String {
    by_state
        .largest_first()
        .into_iter()
        .map(|(state, number)| unbroken(&format!("{} {}", count(number), state.name())))
        .collect::<Vec<_>>()
        .join(", ")
}
