//! What people read.

use std::fmt::Write as _;
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
use super::screen::unbroken;
use crate::judge::Capacity;
use crate::judge::destination::Sought;
use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::model::{Namespace, Origin, Owner, StateCounts, TcpState};
use crate::words::{count, counted, percent, rate, sparkline};

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
    write_capacity(verdict, screen, out)?;
    write_other_namespaces(verdict, screen, out)?;
    write_nat(verdict, screen, out)?;
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
                let message = reported.message();
                writeln!(out, "{}", screen.wrap("  ", "  ", &message))?;
            }
            let step = reported.next_step();
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        for step in steps {
            writeln!(out, "{}", screen.wrap("  next: ", "        ", &step))?;
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

/// Whether TIME_WAIT is dropped before it takes all ports, so that these bound no rate.
fn drops(verdict: &Verdict) -> bool {
    verdict.capacity.is_some_and(|all| all.buckets_bound())
}

fn flow_row(flow: &FlowReport, drops: bool) -> [String; 6] {
    // More may have been closed than the table still shows.
    let at_least = if flow.rate.lower_bound { "≥" } else { "" };
    [
        Origin(&flow.flow()).to_string(),
        flow.server().to_string(),
        count(flow.ports_in_use),
        flow.ports_free.map_or_else(|| "unknown".into(), count),
        format!("{at_least}{}", rate(flow.rate.now)),
        limit_in_column(flow.max_connections_per_second, drops),
    ]
}

fn limit_in_column(limit: Option<f64>, drops: bool) -> String {
    match limit {
        Some(limit) => rate(limit),
        None if drops => "any".into(),
        None => "?".into(),
    }
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
            "{} usable ({}-{}, less {} reserved and {})",
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
    let Some(time_wait) = verdict.time_wait else {
        return Ok(());
    };
    let split = time_wait.split;
    let limit = time_wait
        .limit
        .map_or_else(|| "an unknown number".into(), count);
    let text = format!(
        "{} outbound (hold ports), {} inbound (memory only), at most {limit}{}",
        count(split.outbound),
        count(split.inbound),
        if drops(verdict) {
            " (tcp_max_tw_buckets): beyond it is dropped at once, and with it the protection from \
             late packets"
        } else {
            ""
        }
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
        "only this network namespace is judged; {} here with TCP sockets (containers?). As root, the \
         busiest: `twcheck verdict --pid {}`, and all: `twcheck verdict --all-netns`",
        counted(others.number as u64, "other"),
        others.pid
    );
    writeln!(out, "{}", screen.wrap("Elsewhere: ", "           ", &text))
}

/// The flows after translation, with who is behind them.
fn write_nat(verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let Some(nat) = &verdict.nat else {
        return Ok(());
    };
    let mut text = format!(
        "{} of {} connections translated",
        count(nat.translated),
        count(nat.tracked)
    );
    if let Some(seconds) = nat.time_wait_seconds {
        let _ = write!(text, ", TIME_WAIT is kept {seconds} s");
    }
    if let (Some(failed), Some(dropped)) = (nat.insert_failed, nat.dropped) {
        let _ = write!(text, ", insert_failed {failed}, drop {dropped}");
    }
    match &nat.rules {
        Some(rules) if !rules.is_empty() => {
            let _ = write!(text, ", by {}", rules.join("; "));
        }
        _ => {}
    }
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
        rows.row([
            flow.source.to_string(),
            flow.server().to_string(),
            count(flow.ports_taken),
            count(flow.ports_of_closed),
            count(flow.ports.len()),
            count(flow.hangs_from.likely),
            flow.who(),
        ]);
    }
    rows.write(out)?;
    let more = nat.flows_examined - nat.flows.len();
    if more > 0 {
        writeln!(out, "… and {} more (--top 0)", count(more as u64))?;
    }
    Ok(())
}

/// What the ports bear: MAX/S of the flows is the one or the other, each by its own TIME_WAIT.
fn rates(verdict: &Verdict, capacity: &Capacity) -> String {
    let Some(limit) = capacity.max_connections_per_second else {
        return "and TIME_WAIT is dropped before it takes them all: no errno 99 by it, at any rate"
            .into();
    };
    let is_reused = verdict.worth_a_line().any(|flow| flow.reuse.works());
    let reused = capacity
        .max_rate(true)
        .filter(|_| is_reused || capacity.max_connections_per_second_with_reuse.is_some());
    let reused = reused.map(|limit| format!(", {} where TIME_WAIT is reused", rate(limit)));
    let fast = capacity
        .fast_connections_per_second
        .map(|fast| format!(", connect() is cheap up to {}/s", rate(fast)));
    format!(
        "at most {} connections/s to one destination{}{}",
        rate(limit),
        reused.unwrap_or_default(),
        fast.unwrap_or_default()
    )
}

fn state_list(by_state: &StateCounts) -> String {
    by_state
        .largest_first()
        .into_iter()
        .map(|(state, number)| unbroken(&format!("{} {}", count(number), state.name())))
        .collect::<Vec<_>>()
        .join(", ")
}
