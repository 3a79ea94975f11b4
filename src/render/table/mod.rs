//! What people read.

use std::io::{self, Write};
use std::net::SocketAddr;

use comfy_table::{CellAlignment, ContentArrangement, Row, Table, presets};

mod advice;
mod repro;

pub use advice::advice;
pub use repro::repro;

use super::Screen;
use crate::judge::Capacity;
use crate::judge::destination::Sought;
use crate::judge::flow::FlowReport;
use crate::judge::states::States;
use crate::judge::verdict::{Level, Verdict};
use crate::model::{Origin, Owner, StateCounts, TcpState};
use crate::words::{at_most, count, counted, percent, rate, rate_limit, sparkline};

/// A table without lines, as wide as it needs, at most as wide as the screen.
fn table(screen: Screen, heading: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(heading);
    if let Some(width) = screen.width {
        table.set_width(width);
    }
    table
}

/// Writes a finished table: numbers to the right, no blank before the first column or after the
/// last.
fn write_table(table: Table, numbers: &[usize], out: &mut dyn Write) -> io::Result<()> {
    for line in lines_of(table, numbers) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The lines of [`write_table`].
fn lines_of(mut table: Table, numbers: &[usize]) -> Vec<String> {
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt().lines().map(str::to_owned).collect()
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
    let mut rows = table(screen, ["STATE", "COUNT", "SHARE", ""]);
    let share = |part: u64| format!("{:.1} %", percent(part, report.total.unwrap_or_default()));
    for (state, number) in report.states.largest_first() {
        rows.add_row([
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
                rows.add_row([
                    format!("  {direction}"),
                    count(number),
                    share(number),
                    cost.into(),
                ]);
            }
        }
    }
    rows.add_row([
        "total".to_owned(),
        report.total.map_or_else(|| "unknown".into(), count),
        String::new(),
        String::new(),
    ]);
    write_table(rows, &[1, 2], out)?;
    write_destination(report.destination.as_ref(), screen, out)?;

    if let Some(flows) = &report.flows {
        writeln!(out)?;
        let mut rows = table(screen, ["FROM", "TOWARD", "SOCKETS", "STATES"]);
        for flow in flows {
            rows.add_row([
                flow.from(),
                SocketAddr::new(flow.destination, flow.destination_port).to_string(),
                count(flow.total),
                state_list(&flow.by_state),
            ]);
        }
        write_table(rows, &[2], out)?;
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
        let mut rows = table(screen, ["STATE", "MEANING"]);
        for state in TcpState::ALL {
            rows.add_row([state.name(), state.meaning()]);
        }
        write_table(rows, &[], out)?;
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
    writeln!(
        out,
        "{}",
        screen.wrap(&format!("{painted}: "), &indent, &verdict.summary)
    )?;

    let flows: Vec<_> = verdict.worth_a_line().collect();
    if !flows.is_empty() {
        writeln!(out)?;
        write_flows(&flows, screen, out)?;
        if verdict.flows_total > verdict.flows.len() {
            let more = verdict.flows_total - verdict.flows.len();
            writeln!(out, "… and {} more (--top 0)", count(more as u64))?;
        }
        writeln!(out)?;
    }
    write_capacity(verdict, screen, out)?;
    write_other_namespaces(verdict, screen, out)?;
    write_shortage(&verdict.flows, screen, out)?;
    if let Some(sought) = &verdict.destination {
        writeln!(
            out,
            "{}",
            screen.wrap("Toward: ", "        ", &sought.to_string())
        )?;
    }
    write_owners(verdict, screen, out)?;
    write_findings(verdict, screen, out)?;
    if let Some(text) = verdict.otherwise() {
        writeln!(out, "{}", screen.wrap("", "", text))?;
    }
    out.flush()
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

/// The findings by code, the worst first; a next step that several share is said once.
fn write_findings(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut rest: Vec<_> = verdict.findings.iter().collect();
    while let Some(first) = rest.first() {
        let (code, level) = (first.finding.code(), first.level);
        let (alike, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|reported| reported.finding.code() == code && reported.level == level);
        rest = others;
        writeln!(out, "\n{} ({})", screen.paint(level, code), level.word())?;
        let mut steps: Vec<String> = Vec::new();
        for reported in alike {
            // Where there is one in trouble the summary has said it.
            if verdict.findings.len() > 1 || level == Level::Ok {
                let message = reported.finding.to_string();
                writeln!(out, "{}", screen.wrap("  ", "  ", &message))?;
            }
            let step = reported.finding.next_step();
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        for step in steps {
            write_with_commands(&step, ("  next: ", "        "), screen, out)?;
        }
    }
    Ok(())
}

/// A text whose first line is wrapped; each further one is a command, whole, to be pasted.
fn write_with_commands(
    text: &str,
    (first, indent): (&str, &str),
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut lines = text.lines();
    let text = lines.next().unwrap_or_default();
    writeln!(out, "{}", screen.wrap(first, indent, text))?;
    lines.try_for_each(|command| writeln!(out, "{indent}{command}"))
}

/// What is left for the sparkline, and what it never exceeds: a bar a second.
const SPARKLINE: std::ops::RangeInclusive<usize> = 10..=60;

fn write_flows(flows: &[&FlowReport], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    const HEADING: [&str; 7] = [
        "FROM",
        "TOWARD",
        "PORTS",
        "FREE",
        "NOW/S",
        "MAX/S",
        "LAST 60 S",
    ];
    let rows: Vec<_> = flows.iter().map(|flow| flow_row(flow)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(HEADING[column].len()) + 2
    };
    let others: usize = (0..6).map(width).sum();
    let left = screen.width.map_or(*SPARKLINE.end(), |all| {
        usize::from(all).saturating_sub(others + 1)
    });
    let history = |flow: &FlowReport| {
        let mut seconds = flow.closed_per_second.per_second().to_vec();
        seconds.reverse();
        sparkline(
            &seconds,
            left.clamp(*SPARKLINE.start(), *SPARKLINE.end()),
            0,
        )
    };
    if left >= *SPARKLINE.start() {
        let mut shown = table(screen, HEADING);
        for (row, flow) in rows.into_iter().zip(flows) {
            shown.add_row(row.into_iter().chain([history(flow)]));
        }
        return write_table(shown, &[2, 3, 4, 5], out);
    }
    // Long addresses get a line of their own.
    let [_, _, numbers @ ..] = HEADING;
    let mut shown = table(screen, numbers);
    for (row, flow) in rows.iter().zip(flows) {
        shown.add_row(row.iter().skip(2).cloned().chain([history(flow)]));
    }
    for (line, row) in (0..).zip(lines_of(shown, &[0, 1, 2, 3])) {
        writeln!(out, "{row}")?;
        if let Some([from, toward, ..]) = usize::checked_sub(line, 1).and_then(|at| rows.get(at)) {
            let flow = format!("from {from} toward {toward}");
            writeln!(out, "{}", screen.wrap("  ", "  ", &flow))?;
        }
    }
    Ok(())
}

fn flow_row(flow: &FlowReport) -> [String; 6] {
    // More may have been closed than the table still shows.
    let at_least = if flow.rate.lower_bound { "≥" } else { "" };
    [
        Origin(&flow.flow()).to_string(),
        flow.server().to_string(),
        count(flow.ports_in_use),
        flow.ports_free.map_or_else(|| "unknown".into(), count),
        format!("{at_least}{}", rate(flow.rate.now)),
        rate_limit(flow.max_connections_per_second),
    ]
}

/// Since when ports are short, and when they are back.
fn write_shortage(flows: &[FlowReport], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for flow in flows {
        let Some(shortage) = flow.shortage else {
            continue;
        };
        let text = format!(
            "{} to {}: short of ports {}; if nobody connects the first is back within \
             {:.0} s, {}all in {:.0} s",
            Origin(&flow.flow()),
            flow.server(),
            match (shortage.since_seconds, shortage.since_at_least) {
                (0, _) => "since just now".into(),
                (seconds, true) => format!("for at least {seconds} s"),
                (seconds, false) => format!("for {seconds} s"),
            },
            shortage.first_port_back_seconds,
            shortage
                .below_threshold_seconds
                .map_or_else(String::new, |seconds| format!("enough in {seconds:.0} s, ")),
            shortage.last_port_back_seconds,
        );
        writeln!(out, "{}", screen.wrap("Since: ", "       ", &text))?;
    }
    Ok(())
}

/// Owners named per flow.
const OWNERS: usize = 3;

fn write_owners(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut say = |text: &str| writeln!(out, "{}", screen.wrap("Owners: ", "        ", text));
    for flow in &verdict.flows {
        let Some(owners) = flow.owners.as_ref().filter(|owners| !owners.is_empty()) else {
            continue;
        };
        let owner = |owner: &Owner| format!("{owner} with {}", counted(owner.sockets, "socket"));
        let mut names: Vec<_> = owners.iter().take(OWNERS).map(owner).collect();
        if owners.len() > OWNERS {
            names.push(format!("{} more", owners.len() - OWNERS));
        }
        say(&format!(
            "{} to {}: {}",
            Origin(&flow.flow()),
            flow.server(),
            names.join("; ")
        ))?;
    }
    verdict.owner_notes.iter().try_for_each(|note| say(note))
}

fn write_capacity(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if let (Some(capacity), Some(range)) = (verdict.capacity, verdict.tunables.ip_local_port_range)
    {
        let ports = format!(
            "{} usable ({}-{}, less {} reserved and {} bound)",
            count(capacity.usable_ports),
            range.low,
            range.high,
            count(capacity.reserved_ports),
            capacity.bound_ports,
        );
        let text = match capacity.usable_ports {
            0 => ports,
            _ => format!("{ports}, {}", rates(verdict, &capacity)),
        };
        writeln!(out, "{}", screen.wrap("Ports: ", "       ", &text))?;
    }
    let split = verdict.time_wait.split;
    let limit = verdict
        .time_wait
        .limit
        .map_or_else(|| "an unknown number".into(), count);
    let text = format!(
        "{} outbound (hold ports), {} inbound (memory only), at most {limit}",
        count(split.outbound),
        count(split.inbound),
    );
    writeln!(out, "{}", screen.wrap("TIME_WAIT: ", "           ", &text))
}

/// That containers have ports of their own, and how to look at them.
fn write_other_namespaces(
    verdict: &Verdict,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(others) = verdict.other_namespaces else {
        return Ok(());
    };
    let text = format!(
        "only this network namespace is judged; {} here with TCP sockets (containers?). The busiest, \
         as root:",
        counted(others.number as u64, "other")
    );
    let indent = "           ";
    writeln!(out, "{}", screen.wrap("Elsewhere: ", indent, &text))?;
    writeln!(out, "{indent}nsenter -t {} -n twcheck verdict", others.pid)
}

/// What the ports bear: MAX/S of the flows is the one or the other, each by its own TIME_WAIT.
fn rates(verdict: &Verdict, capacity: &Capacity) -> String {
    let is_reused = verdict.worth_a_line().any(|flow| flow.reuse.works());
    let reused = capacity
        .max_rate(true)
        .filter(|_| is_reused || capacity.max_connections_per_second_with_reuse.is_some());
    let reused = reused.map(|limit| format!(", {} where TIME_WAIT is reused", rate(limit)));
    let fast = capacity
        .fast_connections_per_second
        .map(|fast| format!(", connect() is cheap up to {}/s", rate(fast)));
    format!(
        "{} to one destination{}{}",
        at_most(capacity.max_connections_per_second),
        reused.unwrap_or_default(),
        fast.unwrap_or_default()
    )
}

fn state_list(by_state: &StateCounts) -> String {
    by_state
        .largest_first()
        .into_iter()
        .map(|(state, number)| format!("{} {}", count(number), state.name()))
        .collect::<Vec<_>>()
        .join(", ")
}
