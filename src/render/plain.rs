//! Lines for grep and awk: no wrapping, no colour, no thousands separators.

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::judge::advice::Advice;
use crate::judge::explain::{Explanation, Kinds};
use crate::judge::namespaces::{Judged, Namespaces};
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::model::Origin;
use crate::model::{Owner, Placeless};
use crate::repro::{Latency, Report};
use crate::words::{printable, rounded};

/// What `netstat -n | awk '/^tcp/ {++S[$NF]} END {for(a in S) print a, S[a]}'` prints, largest
/// first; when flows are asked for, `source destination:port sockets` of them instead.
///
/// # Errors
/// When `out` cannot be written.
pub fn states(report: &States, out: &mut dyn Write) -> io::Result<()> {
    if let Some(flows) = &report.flows {
        for flow in flows {
            let server = SocketAddr::new(flow.destination, flow.destination_port);
            writeln!(out, "{} {server} {}", flow.from(), flow.total)?;
        }
        return out.flush();
    }
    for (state, count) in report.states.largest_first() {
        writeln!(out, "{} {count}", state.name())?;
    }
    out.flush()
}

/// `LEVEL: summary`, then `LEVEL CODE message` of each finding, `OWNER source destination:port pid
/// command user unit sockets open_files open_files_limit` of each owner found, `NAT source
/// destination:port protocol first_port last_port taken of_closed hangs_from address=connections,…` of
/// each flow after translation, and `UNPLACED why pid …` of each process whose sockets are in no flow;
/// what is unknown is `-`.
///
/// # Errors
/// When `out` cannot be written.
pub fn verdict(verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", verdict.level.word(), verdict.summary)?;
    for reported in &verdict.findings {
        let (level, code) = (reported.level.word(), reported.finding.code());
        writeln!(out, "{level} {code} {}", reported.message())?;
    }
    for flow in &verdict.flows {
        for owner in flow.owners.iter().flatten() {
            let (source, server) = (flow.flow(), flow.server());
            let source = Origin(&source);
            writeln!(out, "OWNER {source} {server} {}", fields(owner))?;
        }
    }
    for flow in verdict.nat.iter().flat_map(|nat| &nat.flows) {
        let behind = flow.behind.iter();
        let behind: Vec<_> = behind
            .map(|it| format!("{}={}", it.address, it.connections))
            .collect();
        writeln!(
            out,
            "NAT {} {} {} {} {} {} {} {} {}",
            flow.source,
            flow.server(),
            flow.protocol.name(),
            flow.ports.low,
            flow.ports.high,
            flow.ports_taken,
            flow.ports_of_closed,
            flow.hangs_from.likely,
            behind.join(",")
        )?;
    }
    for unplaced in verdict.unplaced.iter().flatten() {
        let why = match unplaced.why {
            Placeless::NoPort => "no_port",
            Placeless::ShortLived => "short_lived",
        };
        writeln!(out, "UNPLACED {why} {}", fields(&unplaced.owner))?;
    }
    out.flush()
}

/// `LEVEL: summary` of all, then of each network namespace, the worst first, what `one` writes of
/// it, each line behind the namespace's number, which is `-` where it is unknown.
///
/// # Errors
/// When `out` cannot be written.
pub fn namespaces<R: Judged>(
    all: &Namespaces<R>,
    one: impl Fn(&R, &mut dyn Write) -> io::Result<()>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{}: {}", all.level.word(), all.summary)?;
    for looked in &all.namespaces {
        let netns = looked.namespace.netns;
        let netns = netns.map_or_else(|| "-".into(), |netns| netns.to_string());
        let mut lines = Vec::new();
        match (&looked.report, &looked.why) {
            (Some(report), _) => one(report, &mut lines)?,
            (None, why) => {
                let why = why.as_deref().unwrap_or_default();
                writeln!(lines, "{}: {why}", looked.level().word())?;
            }
        }
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(out, "{netns} {line}")?;
        }
    }
    out.flush()
}

fn fields(owner: &Owner) -> String {
    let word = |text: &str| printable(text).replace(' ', "_");
    let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |it| it.to_string());
    format!(
        "{} {} {} {} {} {} {}",
        owner.pid,
        word(&owner.command),
        owner.user,
        owner.unit.as_deref().map_or_else(|| "-".into(), word),
        owner.sockets,
        number(owner.open_files),
        number(owner.open_files_limit)
    )
}

/// `sysctl = recommended`, one a line.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    for change in advice.changes() {
        writeln!(out, "{} = {}", change.sysctl, change.recommended)?;
    }
    for sentence in advice.goal.iter().flat_map(|goal| &goal.sentences) {
        writeln!(out, "GOAL {sentence}")?;
    }
    for run in advice.proof.iter().flat_map(|proof| &proof.runs) {
        let came = if run.agrees { "AGREES" } else { "DIFFERS" };
        writeln!(
            out,
            "{came} {} connections {} seconds {} exhausted {} {}",
            run.name, run.connections, run.seconds, run.exhausted, run.command
        )?;
    }
    out.flush()
}

/// `CAUSE kind count destination first last line example` of each, and `NOW destination
/// exhausted|free|unknown sentence` of what is so on this machine; what is unknown is `-`.
///
/// # Errors
/// When `out` cannot be written.
pub fn explanation(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    fn or_dash(value: Option<&impl ToString>) -> String {
        value.map_or_else(|| "-".into(), |value| value.to_string().replace(' ', "_"))
    }
    writeln!(
        out,
        "LINES {} ERRORS {}",
        explanation.lines, explanation.errors
    )?;
    for cause in &explanation.causes {
        writeln!(
            out,
            "CAUSE {} {} {} {} {} {} {}",
            cause.kind,
            cause.count,
            or_dash(cause.destination.as_ref()),
            or_dash(cause.first.as_ref()),
            or_dash(cause.last.as_ref()),
            or_dash(cause.line.as_ref()),
            cause.example.as_deref().unwrap_or("-")
        )?;
    }
    for now in &explanation.now {
        let state = match now.is_exhausted {
            Some(true) => "exhausted",
            Some(false) => "free",
            None => "unknown",
        };
        let destination = or_dash(now.destination.as_ref());
        writeln!(out, "NOW {destination} {state} {}", now.summary)?;
    }
    out.flush()
}

/// `kind`, a tab, and what programs say, one a line.
///
/// # Errors
/// When `out` cannot be written.
pub fn kinds(kinds: &Kinds, out: &mut dyn Write) -> io::Result<()> {
    for kind in &kinds.kinds {
        writeln!(out, "{}\t{}", kind.kind, kind.words)?;
    }
    out.flush()
}

/// `name value`, one a line; a value that is unknown is `-`.
///
/// # Errors
/// When `out` cannot be written.
pub fn repro(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    fn or_dash(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "-".into(), |value| value.to_string())
    }
    let p50 = |latency: Option<Latency>| or_dash(latency.map(|known| known.p50));
    let p99 = |latency: Option<Latency>| or_dash(latency.map(|known| known.p99));
    let ends = report.connect_latency_us;
    let error = report.error.as_ref();
    for (name, value) in [
        ("server", report.target.address.to_string()),
        ("stopped_by", report.stopped_by.word().to_owned()),
        ("errno", or_dash(error.and_then(|error| error.errno))),
        (
            "mysql_code",
            or_dash(error.and_then(|error| error.mysql_code)),
        ),
        ("error", or_dash(error)),
        ("connections", report.connections.to_string()),
        ("checkouts", or_dash(report.checkouts)),
        ("seconds", report.seconds.to_string()),
        ("rate", rounded(report.rate).to_string()),
        ("predicted_ports", or_dash(report.predicted_ports)),
        ("first_1000_p50_us", p50(ends.first_1000)),
        ("first_1000_p99_us", p99(ends.first_1000)),
        ("last_1000_p50_us", p50(ends.last_1000)),
        ("last_1000_p99_us", p99(ends.last_1000)),
        ("login_p50_us", p50(report.login_latency_us)),
        (
            "cliff_connections",
            or_dash(report.cliff.map(|cliff| cliff.connections)),
        ),
        ("after_cliff_p50_us", p50(ends.after_cliff)),
        (
            "time_wait_client_side",
            or_dash(report.time_wait.client_side),
        ),
        (
            "time_wait_server_side",
            or_dash(report.time_wait.server_side),
        ),
        (
            "threads_connected_max",
            or_dash(report.server.threads_connected_max),
        ),
    ] {
        writeln!(out, "{name} {value}")?;
    }
    out.flush()
}
