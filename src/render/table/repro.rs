use std::io::{self, Write};

use rasciigraph::{Config, plot};

use super::under_sentence;
use crate::model::Reuse;
use crate::render::Screen;
use crate::repro::{CameBack, Failure, Latency, Moment, Protocol, Report, ServerStatus, StoppedBy};
use crate::words::{count, counted, latency, rate, sparkline};

/// `twcheck repro`.
///
/// # Errors
/// When `out` cannot be written.
pub fn repro(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let ended = match (report.stopped_by, &report.error) {
        (StoppedBy::Duration | StoppedBy::Count, _) if report.shows_exhaustion.is_some() => {
            "Ports did not run out: TIME_WAIT was dropped".into()
        }
        (StoppedBy::Exhausted, Some(error)) => {
            format!("Ports ran out (errno {})", error.errno.unwrap_or_default())
        }
        (StoppedBy::Error, _) | (StoppedBy::Exhausted, None) => "Stopped by an error".into(),
        (StoppedBy::Duration, _) => "Ports did not run out: time was up".into(),
        (StoppedBy::Count, _) => "Ports did not run out: stopped".into(),
        (StoppedBy::Interrupted(_), _) => "Interrupted".into(),
    };
    let done = match report.checkouts {
        Some(checkouts) => format!(
            "{} of {} from the pool",
            counted(checkouts, "checkout"),
            counted(report.connections, "connection")
        ),
        None => counted(report.connections, "connection"),
    };
    let sentence = format!(
        "{ended} after {done} in {:.1} s ({}/s).",
        report.seconds,
        rate(report.rate)
    );
    let painted = screen.paint(report.stopped_by.level(), &ended);
    let sentence = screen.wrap("", "", &sentence).replacen(&ended, &painted, 1);
    under_sentence(&sentence, screen, out, |out| write_run(report, screen, out))
}

fn write_run(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for (name, text) in lines(report) {
        writeln!(
            out,
            "{}",
            screen.wrap(&format!("  {name:<13} "), &" ".repeat(16), &text)
        )?;
    }
    write_timeline(report, screen, out)
}

/// The report, name by name.
fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = vec![("server", server(report))];
    if let Some(error) = &report.error {
        lines.push(("application", error.text.clone()));
        if let Some(text) = mariadbs_words(report, error) {
            lines.push(("or", text));
        }
        lines.push(("that is", error.meaning(report.target.address)));
    }
    lines.push((opening(report), openings(report)));
    if report.login_latency_us.is_some() {
        lines.push(("login", percentiles(report.login_latency_us)));
    }
    if let Some(asked) = report.missed_pace() {
        lines.push((
            "pace",
            format!("{}/s were asked for and could not be kept", rate(asked)),
        ));
    }
    if let Some(seconds) = report
        .unfinished_seconds
        .filter(|seconds| *seconds >= LONG_LOGIN)
    {
        lines.push((
            "unfinished",
            format!(
                "a {} that had been going on for {seconds:.1} s when the time was up",
                if report.checkouts.is_some() {
                    "question"
                } else {
                    "login"
                }
            ),
        ));
    }
    lines.push(("ports", ports(report)));
    lines.push(("TIME_WAIT", time_wait(report)));
    if let Some(text) = reuse(report) {
        lines.push(("reuse", text.into()));
    }
    if report.client.protocol == Protocol::Mysql {
        lines.push(("database", database(report)));
    }
    if let Some(counters) = counters(report) {
        lines.push(("its counters", counters));
    }
    if let Some([first, last]) = report.ports_return_seconds {
        lines.push((
            "ports return",
            format!(
                "the first in {first:.0} s, all in {last:.0} s{}",
                if report.target.embedded {
                    "; the namespace's are gone with it"
                } else {
                    ""
                }
            ),
        ));
    }
    match (&report.error, &report.shows_exhaustion) {
        (Some(error), _) => lines.push(("next", error.next_step().into())),
        (None, Some(command)) => lines.push((
            "next",
            format!(
                "`twcheck advise` has what keeps TIME_WAIT and raises the rate, in one step; to see \
                 ports run out: `{command}`"
            ),
        )),
        (None, None) => {}
    }
    lines
}

/// How long connect() took, or a checkout, in the parts of the run.
fn openings(report: &Report) -> String {
    let parts = report.connect_latency_us;
    match (report.cliff, parts.after_cliff) {
        (Some(cliff), Some(after)) => format!(
            "{} until the fast ports were spent, after {} in {:.1} s; then {}",
            percentiles(parts.before_cliff),
            counted(cliff.connections, "connection"),
            cliff.seconds.as_secs_f64(),
            percentiles(Some(after)),
        ),
        _ if turns(report) <= ALL_TOLD && parts.before_cliff.is_some() => {
            percentiles(parts.before_cliff)
        }
        _ if turns(report) <= WINDOW => percentiles(parts.first_1000),
        _ => format!(
            "the first 1,000: {}; the last 1,000: {}",
            percentiles(parts.first_1000),
            percentiles(parts.last_1000)
        ),
    }
}

/// TIME_WAIT on either side.
fn time_wait(report: &Report) -> String {
    let sides = report.time_wait;
    format!(
        "{} on the client's side{}, {}{}{}",
        sides.client_side.map_or_else(|| "unknown".into(), count),
        before_the_run(sides.client_side_before),
        sides.server_side.map_or_else(
            || "the server's side is another machine".into(),
            |server| format!(
                "{} on the server's{}",
                count(server),
                before_the_run(sides.server_side_before)
            )
        ),
        dropped(report),
        of_a_pool(report)
    )
}

/// What is still to come: the count is of the time while the pool was open.
fn of_a_pool(report: &Report) -> String {
    let Some(size) = report.checkouts.and(report.client.pool) else {
        return String::new();
    };
    let own = size + usize::from(report.watches_apart());
    format!(" while the pool was open, and {own} more now that it is closed")
}

fn before_the_run(number: Option<u64>) -> String {
    match number {
        None | Some(0) => String::new(),
        Some(before) => format!(" ({} before the run)", count(before)),
    }
}

/// How much TIME_WAIT was dropped, and what that means.
fn dropped(report: &Report) -> String {
    let sides = report.time_wait;
    let (Some(limit), Some(_)) = (sides.limit, &report.shows_exhaustion) else {
        return String::new();
    };
    format!(
        "; {} dropped at tcp_max_tw_buckets = {}, each at once (TCPTimeWaitOverflow counts them, no \
         log does): its port is free, and a late packet of the old connection can reach a new one",
        sides.dropped.map_or_else(|| "the rest was".into(), count),
        count(limit)
    )
}

/// What MariaDB's client prints where no port is left: MySQL's calls it 2003. Of other errors it
/// prints other numbers than the system's, as 115 of a connection that is refused.
fn mariadbs_words(report: &Report, error: &Failure) -> Option<String> {
    const EADDRNOTAVAIL: i32 = 99;
    let errno = error
        .errno
        .filter(|errno| *errno == EADDRNOTAVAIL && error.text.starts_with("ERROR 2003"))?;
    let host = &report.target.host;
    Some(format!(
        "ERROR 2002 (HY000): Can't connect to server on '{host}' ({errno})"
    ))
}

/// What the run says about TIME_WAIT reuse, where that is not plain from the settings.
fn reuse(report: &Report) -> Option<&'static str> {
    match report.reuse {
        Reuse::Refuted => Some(
            "is allowed here and does not work toward this server: it has no TCP timestamps, or \
             something between strips them",
        ),
        Reuse::Seen if report.stopped_by == StoppedBy::Exhausted => {
            Some("works toward this server, and was outrun: ports are back after the reuse delay")
        }
        _ => None,
    }
}

fn server(report: &Report) -> String {
    if report.target.embedded {
        format!(
            "embedded, {} in a private network namespace",
            report.target.address
        )
    } else {
        report.target.to_string()
    }
}

fn percentiles(latency: Option<Latency>) -> String {
    latency.map_or_else(
        || "none".into(),
        |known| {
            format!(
                "p50 {}, p99 {}",
                self::latency(known.p50),
                self::latency(known.p99)
            )
        },
    )
}

fn ports(report: &Report) -> String {
    let predicted = report
        .predicted_ports
        .map_or_else(|| "unknown".into(), count);
    let sources = match report.client.sources.len() {
        0 | 1 => String::new(),
        several => format!(" from {several} addresses"),
    };
    let made = counted(report.connections, "connection");
    let watch = if report.watches_apart() {
        ", and one more that watches the server"
    } else {
        ""
    };
    let why = match report.ports_came_back {
        None => "",
        Some(CameBack::Reuse) => ": TIME_WAIT reuse is in force",
        Some(CameBack::BucketsFull) => ": TIME_WAIT that is dropped holds no port",
        Some(CameBack::AnsweredAfterClose) if report.time_wait.server_side.is_some() => {
            ": they were reset on this machine (TCPAbortOnData), because the server answered each \
             close, or by the server itself: no TIME_WAIT, and the port is free"
        }
        Some(CameBack::AnsweredAfterClose) => {
            ": the server answered each close, for which this machine reset the connection \
             (TCPAbortOnData): no TIME_WAIT, and the port is free"
        }
        Some(CameBack::ServerClosedFirst) => {
            ": the server closed first, and its connections hold no port here"
        }
        Some(CameBack::TimeWaitOver) => ": the first TIME_WAIT were over",
        Some(CameBack::OtherSources) => {
            ": the kernel began to take another source address, which has ports of its own"
        }
        Some(CameBack::SettingsChanged) => {
            ": net.ipv4.ip_local_port_range or ip_local_reserved_ports were changed meanwhile"
        }
        Some(CameBack::Unknown) => {
            ": not all of them hold a port here, and why is not known; a server that resets them \
             leaves no trace"
        }
    };
    format!("{predicted} predicted free{sources}, {made} made{watch}{why}")
}

/// So few are all of them among the first or the last 1,000: one line tells them.
const ALL_TOLD: u64 = 2000;

/// So few are the first 1,000.
const WINDOW: u64 = 1000;

/// Connections, or checkouts of a pool.
fn turns(report: &Report) -> u64 {
    report.checkouts.unwrap_or(report.connections)
}

/// Seconds that no login takes where nothing is wrong.
const LONG_LOGIN: f64 = 1.0;

fn database(report: &Report) -> String {
    let server = &report.server;
    if let Some(why) = &server.not_watched_because {
        return format!("was not watched: {why}");
    }
    let seen = match server.threads_connected_max {
        None => "does not tell how many threads are connected".into(),
        Some(most) => format!(
            "at most {} seen connected at a time{}{}",
            counted(most, "thread"),
            if report.target.embedded {
                ""
            } else {
                ", in a look every 0.1 s"
            },
            if report.database_was_idle() {
                ": it was not the bottleneck"
            } else {
                ""
            }
        ),
    };
    match &server.watch_ended_because {
        None => seen,
        Some(why) => format!("{seen}, until the watch ended: {why}"),
    }
}

/// What the server counted before and after.
fn counters(report: &Report) -> Option<String> {
    let server = &report.server;
    let (before, after) = (server.before?, server.after?);
    if after == ServerStatus::default() {
        return None;
    }
    let change = |name: &str, before: Option<u64>, after: Option<u64>| {
        let known = |value: Option<u64>| value.map_or_else(|| "unknown".into(), count);
        if before == after {
            format!("{name} {} as before", known(after))
        } else {
            format!("{name} {}, then {}", known(before), known(after))
        }
    };
    let threads = change(
        "Threads_connected",
        before.threads_connected,
        after.threads_connected,
    );
    Some(
        [
            format!(
                "{threads} ({} of them this run's own)",
                report.own_threads()
            ),
            change(
                "Aborted_clients",
                before.aborted_clients,
                after.aborted_clients,
            ),
            change(
                "Aborted_connects",
                before.aborted_connects,
                after.aborted_connects,
            ),
            change(
                "Max_used_connections",
                before.max_used_connections,
                after.max_used_connections,
            ),
        ]
        .join("; "),
    )
}

/// Fewer moments than this are told by the lines already.
const MOMENTS_WORTH_A_PLOT: usize = 8;

/// connect() and the ports in use against time, on a terminal.
fn write_timeline(report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    const LINES: u32 = 6;
    /// What stands before and behind the curves.
    const BESIDE: usize = 32;
    const WIDEST: usize = 60;
    let width = screen.width.map_or(0, usize::from);
    let moments = &report.timeline;
    let measured = moments
        .iter()
        .any(|moment| moment.connect_latency_us.is_some());
    if moments.len() < MOMENTS_WORTH_A_PLOT || width < 2 * BESIDE || !measured {
        return Ok(());
    }
    let columns = (width - BESIDE).min(WIDEST);
    let shares: Vec<_> = moments.chunks(moments.len().div_ceil(columns)).collect();
    #[expect(clippy::cast_precision_loss)] // Microseconds of a minute at most.
    let milliseconds = |share: &&[Moment]| {
        let medians = share.iter().filter_map(|moment| moment.connect_latency_us);
        let slowest = medians.map(|latency| latency.p50).max();
        slowest.map_or(f64::NAN, |microseconds| microseconds as f64 / 1000.0)
    };
    let medians: Vec<_> = shares.iter().map(milliseconds).collect();
    // The label and the axis are one cell each.
    let graph = plot(medians, Config::default().with_height(LINES).with_offset(2));
    let before_axis = |line: &str| {
        line.chars()
            .take_while(|letter| !"┤┼".contains(*letter))
            .count()
    };
    let axis = graph.lines().map(before_axis).max().unwrap_or(0);
    writeln!(out, "\n  p50 of {}, ms", opening(report))?;
    for line in graph.lines() {
        writeln!(out, "  {}", line.trim_end())?;
    }
    let addresses = u32::try_from(report.client.sources.len())
        .unwrap_or(1)
        .max(1);
    let used = |share: &&[Moment]| {
        let ports = share.iter().filter_map(|moment| moment.ports_in_use).max();
        u16::try_from(ports.unwrap_or(0) / addresses).unwrap_or(u16::MAX)
    };
    let ports: Vec<_> = shares.iter().map(used).collect();
    let most = moments
        .iter()
        .filter_map(|moment| moment.ports_in_use)
        .max();
    let limit = report.usable_ports.unwrap_or(0) / addresses;
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    writeln!(
        out,
        "  {:>axis$} {} up to {} in {:.1} s",
        "ports",
        sparkline(&ports, ports.len(), limit),
        most.map_or_else(|| "unknown".into(), count),
        report.seconds,
    )
}

/// What a turn of the loop takes from the kernel or the pool.
fn opening(report: &Report) -> &'static str {
    if report.checkouts.is_some() {
        "checkout"
    } else {
        "connect()"
    }
}
