//! The text format of Prometheus, for node_exporter's textfile collector: version 0.0.4, of which
//! OpenMetrics, and with it the crate prometheus-client, differs in how a counter is declared; that
//! collector would take its counters for untyped. No timestamps, which the collector refuses, base
//! units, and what is unknown is absent.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::judge::namespaces::Namespaces;
use crate::judge::nat::{NatFlowReport, NatReport};
use crate::judge::verdict::Verdict;
use crate::model::{Cost, Namespace, TcpState};
use crate::words::{printable, rounded};

/// Writes one verdict.
///
/// # Errors
/// When `out` cannot be written.
pub fn verdict(verdict: &Verdict, cost: Cost, out: &mut dyn Write) -> io::Result<()> {
    let flows = verdict.flows.iter().collect();
    write_verdicts(&[(verdict, flows)], &[], out)?;
    write_nat(&[verdict], out)?;
    write_cost(cost, out)
}

/// Writes the verdicts of all network namespaces, and of their flows the worst, at most `top`, all
/// for 0.
///
/// # Errors
/// When `out` cannot be written.
pub fn namespaces(
    all: &Namespaces<Verdict>,
    top: usize,
    cost: Cost,
    out: &mut dyn Write,
) -> io::Result<()> {
    let unjudged: Vec<_> = all.unjudged().collect();
    write_verdicts(&all.with_worst_flows(top), &unjudged, out)?;
    write_nat(&all.reports().collect::<Vec<_>>(), out)?;
    let number = |count: usize| vec![Sample::plain(&count)];
    for (name, help, samples) in [
        (
            "twcheck_namespaces",
            "Network namespaces of this machine that were judged.",
            number(all.reports().count()),
        ),
        (
            "twcheck_namespaces_unknown",
            "Network namespaces of this machine that could not be judged.",
            number(unjudged.len()),
        ),
        (
            "twcheck_namespaces_gaps",
            "Reasons for which there may be more network namespaces than these.",
            number(all.gaps.len()),
        ),
    ] {
        write_family(name, Kind::Gauge, help, samples, out)?;
    }
    write_cost(cost, out)
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// A value under its labels.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: String,
}

impl Sample {
    fn plain(value: &impl ToString) -> Self {
        Self {
            labels: Vec::new(),
            value: value.to_string(),
        }
    }

    fn labelled(name: &'static str, label: &str, value: &impl ToString) -> Self {
        Self {
            labels: vec![(name, label.to_string())],
            value: value.to_string(),
        }
    }

    /// The same, of a namespace.
    fn within(mut self, namespace: Option<&Namespace>) -> Self {
        if let Some(netns) = namespace.and_then(|namespace| namespace.netns) {
            self.labels.insert(0, ("netns", netns.to_string()));
        }
        self
    }
}

/// What is told of each namespace: name, kind, help, and the values of one.
type OfVerdict = (
    &'static str,
    Kind,
    &'static str,
    fn(&Verdict) -> Vec<Sample>,
);

/// What is told of each flow.
type OfFlow = (
    &'static str,
    &'static str,
    fn(&FlowReport) -> Option<String>,
);

/// What is told of translated connections: name, kind, help, and value.
type OfNat = (
    &'static str,
    Kind,
    &'static str,
    fn(&NatReport) -> Option<u64>,
);

/// What is told of each flow of them.
type OfNatFlow = (&'static str, &'static str, fn(&NatFlowReport) -> String);

const LEVEL: &str = "twcheck_level";
const LEVEL_HELP: &str = "The verdict, as the exit status of a monitoring plugin: 0 OK, 1 WARNING, \
                          2 CRITICAL, 3 UNKNOWN.";

const OF_VERDICTS: &[OfVerdict] = &[
    (
        "twcheck_netns_info",
        Kind::Gauge,
        "What a network namespace is called, and who lives in it.",
        |verdict| verdict.namespace.iter().map(info).collect(),
    ),
    (
        "twcheck_findings",
        Kind::Gauge,
        "Findings by code and level; a code without a finding is left out.",
        findings,
    ),
    (
        "twcheck_gaps",
        Kind::Gauge,
        "What could not be read, decisive or not; what is decisive is a finding too.",
        |verdict| vec![Sample::plain(&verdict.gaps.len())],
    ),
    (
        "twcheck_sockets",
        Kind::Gauge,
        "TCP sockets by state, of every direction.",
        |verdict| {
            let states = verdict.states.iter();
            let counts = states.flat_map(|states| {
                TcpState::ALL
                    .map(|state| Sample::labelled("state", state.name(), &states.get(state)))
            });
            counts.collect()
        },
    ),
    (
        "twcheck_time_wait_sockets",
        Kind::Gauge,
        "Sockets in TIME_WAIT: outbound ones hold a port, inbound ones memory only.",
        |verdict| {
            let splits = verdict.time_wait.iter().map(|it| it.split);
            let counts = splits.flat_map(|split| {
                [("outbound", split.outbound), ("inbound", split.inbound)]
                    .map(|(direction, count)| Sample::labelled("direction", direction, &count))
            });
            counts.collect()
        },
    ),
    (
        "twcheck_time_wait_limit_sockets",
        Kind::Gauge,
        "net.ipv4.tcp_max_tw_buckets: sockets beyond it are dropped from TIME_WAIT.",
        |verdict| plain(verdict.time_wait.and_then(|it| it.limit)),
    ),
    (
        "twcheck_time_wait_overflows_total",
        Kind::Counter,
        "Sockets dropped from TIME_WAIT at that limit since the network namespace was made.",
        |verdict| plain(verdict.time_wait.and_then(|it| it.overflows)),
    ),
    (
        "twcheck_time_wait_seconds",
        Kind::Gauge,
        "How long TIME_WAIT keeps a port.",
        |verdict| plain(verdict.capacity.map(|it| it.time_wait_seconds)),
    ),
    (
        "twcheck_usable_ports",
        Kind::Gauge,
        "Ports that one flow can take at most.",
        |verdict| plain(verdict.capacity.map(|it| it.usable_ports)),
    ),
    (
        "twcheck_fast_ports",
        Kind::Gauge,
        "Of the usable ports those that connect() finds without a search.",
        |verdict| plain(verdict.capacity.map(|it| it.fast_ports)),
    ),
    (
        "twcheck_max_connections_per_second",
        Kind::Gauge,
        "The highest rate of one flow without TIME_WAIT reuse; absent where ports do not bound it.",
        |verdict| {
            rate(
                verdict
                    .capacity
                    .and_then(|it| it.max_connections_per_second),
            )
        },
    ),
    (
        "twcheck_fast_connections_per_second",
        Kind::Gauge,
        "The rate of one flow up to which connect() need not search; absent where ports do not bound it.",
        |verdict| {
            rate(
                verdict
                    .capacity
                    .and_then(|it| it.fast_connections_per_second),
            )
        },
    ),
    (
        "twcheck_flows",
        Kind::Gauge,
        "Outbound flows (source, destination, destination port), listed below or not.",
        |verdict| vec![Sample::plain(&verdict.flows_total)],
    ),
];

const OF_FLOWS: &[OfFlow] = &[
    ("twcheck_flow_level", LEVEL_HELP, |flow| {
        Some(status(flow.level).to_string())
    }),
    (
        "twcheck_flow_ports_in_use",
        "Ports that the flow takes, in any state.",
        |flow| Some(flow.ports_in_use.to_string()),
    ),
    (
        "twcheck_flow_ports_open",
        "Of these the ports that are not in TIME_WAIT: they come back when somebody closes.",
        |flow| {
            let open = flow.by_state.without(TcpState::TimeWait);
            Some(open.total().to_string())
        },
    ),
    (
        "twcheck_flow_usable_ports",
        "Ports that the flow can take at most.",
        |flow| flow.ports_usable.map(|ports| ports.to_string()),
    ),
    (
        "twcheck_flow_ports_free",
        "Ports that the flow can still have; where TIME_WAIT reuse is open, without it.",
        |flow| flow.ports_free.map(|ports| ports.to_string()),
    ),
    (
        "twcheck_flow_max_connections_per_second",
        "The highest rate that the flow can keep up; absent where ports do not bound it.",
        |flow| flow.max_connections_per_second.map(decimal),
    ),
    (
        "twcheck_flow_closed_per_second",
        "Connections closed per second, over as long as TIME_WAIT lasts and a minute at most; more \
         where it is reused or dropped.",
        |flow| {
            let is_known = !flow.closed_per_second.per_second().is_empty();
            is_known.then(|| decimal(flow.rate.last_60_s))
        },
    ),
    (
        "twcheck_flow_pace_per_second",
        "Connections closed per second now: the pace that the forecast goes on with.",
        |flow| {
            let is_known = !flow.closed_per_second.per_second().is_empty();
            is_known.then(|| decimal(flow.rate.now))
        },
    ),
    (
        "twcheck_flow_time_to_exhaustion_seconds",
        "Seconds until the flow has no free port, at that pace; absent where that does not happen \
         within the time that TIME_WAIT lasts, or cannot be told.",
        |flow| flow.seconds_to_exhaustion.map(decimal),
    ),
];

/// What is told of all translated connections.
const OF_NAT: &[OfNat] = &[
    (
        "twcheck_nat_tracked_connections",
        Kind::Gauge,
        "Connections of TCP and UDP that are tracked.",
        |nat| Some(nat.tracked),
    ),
    (
        "twcheck_nat_translated_connections",
        Kind::Gauge,
        "Of these the connections whose source is translated.",
        |nat| Some(nat.translated),
    ),
    (
        "twcheck_nat_insert_failed_total",
        Kind::Counter,
        "Connections that could not be tracked, as where translated ports run out.",
        |nat| nat.insert_failed,
    ),
    (
        "twcheck_nat_drop_total",
        Kind::Counter,
        "Packets dropped because their connection could not be tracked.",
        |nat| nat.dropped,
    ),
];

/// What is told of each flow after translation.
const OF_NAT_FLOWS: &[OfNatFlow] = &[
    ("twcheck_nat_flow_level", LEVEL_HELP, |flow| {
        status(flow.level).to_string()
    }),
    (
        "twcheck_nat_flow_ports",
        "Ports that the translated flow can have.",
        |flow| flow.ports.len().to_string(),
    ),
    (
        "twcheck_nat_flow_ports_taken",
        "Of these the ports that are taken.",
        |flow| flow.ports_taken.to_string(),
    ),
    (
        "twcheck_nat_flow_ports_of_closed",
        "Of these the ports of connections that are over.",
        |flow| flow.ports_of_closed.to_string(),
    ),
    (
        "twcheck_nat_flow_hangs_from_ports",
        "With so many ports taken a client is as likely as not to have hung.",
        |flow| flow.hangs_from.likely.to_string(),
    ),
];

fn write_nat(judged: &[&Verdict], out: &mut dyn Write) -> io::Result<()> {
    for &(name, kind, help, value) in OF_NAT {
        let samples = judged.iter().flat_map(|verdict| {
            let value = verdict.nat.as_ref().and_then(value);
            let samples = plain(value).into_iter();
            samples.map(|sample| sample.within(verdict.namespace.as_ref()))
        });
        write_family(name, kind, help, samples.collect(), out)?;
    }
    for &(name, help, value) in OF_NAT_FLOWS {
        let samples = judged.iter().flat_map(|verdict| {
            let flows = verdict.nat.iter().flat_map(|nat| &nat.flows);
            flows.map(|flow| nat_sample(flow, value(flow)).within(verdict.namespace.as_ref()))
        });
        write_family(name, Kind::Gauge, help, samples.collect(), out)?;
    }
    Ok(())
}

fn nat_sample(flow: &NatFlowReport, value: String) -> Sample {
    Sample {
        labels: vec![
            ("source", flow.source.to_string()),
            ("destination", flow.destination.to_string()),
            ("destination_port", flow.destination_port.to_string()),
            ("protocol", flow.protocol.name().to_owned()),
            ("zone", flow.zone.to_string()),
        ],
        value,
    }
}

/// Verdicts, each with those of its flows that are told, and what could not be judged.
fn write_verdicts(
    judged: &[(&Verdict, Vec<&FlowReport>)],
    unjudged: &[&Namespace],
    out: &mut dyn Write,
) -> io::Result<()> {
    // Without its number it cannot be told from another one.
    let unknown = unjudged.iter().filter(|it| it.netns.is_some());
    let unknown = unknown.map(|&it| Sample::plain(&status(Level::Unknown)).within(Some(it)));
    let known = judged.iter().map(|(verdict, _)| {
        Sample::plain(&status(verdict.level)).within(verdict.namespace.as_ref())
    });
    write_family(
        LEVEL,
        Kind::Gauge,
        LEVEL_HELP,
        known.chain(unknown).collect(),
        out,
    )?;
    for &(name, kind, help, values) in OF_VERDICTS {
        let samples = judged.iter().flat_map(|(verdict, _)| {
            let samples = values(verdict).into_iter();
            samples.map(|sample| sample.within(verdict.namespace.as_ref()))
        });
        write_family(name, kind, help, samples.collect(), out)?;
    }
    for &(name, help, value) in OF_FLOWS {
        let samples = judged.iter().flat_map(|(verdict, flows)| {
            let samples = flows.iter().filter_map(|flow| {
                Some(Sample {
                    labels: labels(flow),
                    value: value(flow)?,
                })
            });
            samples.map(|sample| sample.within(verdict.namespace.as_ref()))
        });
        write_family(name, Kind::Gauge, help, samples.collect(), out)?;
    }
    Ok(())
}

fn write_cost(cost: Cost, out: &mut dyn Write) -> io::Result<()> {
    let version = Sample::labelled("version", env!("CARGO_PKG_VERSION"), &1);
    for (name, help, samples) in [
        (
            "twcheck_look_duration_seconds",
            "How long this look took.",
            vec![Sample::plain(&seconds(cost.elapsed))],
        ),
        (
            "twcheck_look_cpu_seconds",
            "CPU time that it took, the kernel's included.",
            plain(cost.cpu.map(seconds)),
        ),
        (
            "twcheck_look_memory_bytes",
            "The most memory that it had.",
            plain(cost.memory),
        ),
        (
            "twcheck_build_info",
            "The twcheck that looked.",
            vec![version],
        ),
    ] {
        write_family(name, Kind::Gauge, help, samples, out)?;
    }
    out.flush()
}

/// Writes the samples of one name together, as the format asks for; nothing where there are none.
fn write_family(
    name: &str,
    kind: Kind,
    help: &str,
    samples: Vec<Sample>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    for Sample { labels, value } in samples {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        if labels.is_empty() {
            writeln!(out, "{name} {value}")?;
        } else {
            writeln!(out, "{name}{{{}}} {value}", labels.join(","))?;
        }
    }
    Ok(())
}

/// A label's value as the format has it.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n").into()
}

fn labels(flow: &FlowReport) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("source", flow.source.to_string()),
        ("destination", flow.destination.to_string()),
        ("destination_port", flow.destination_port.to_string()),
    ];
    labels.extend(flow.interface.map(|it| ("interface", it.to_string())));
    labels
}

fn info(namespace: &Namespace) -> Sample {
    let mut processes = namespace.processes.iter();
    let commands: Vec<_> = processes.clone().map(|it| printable(&it.command)).collect();
    let unit = processes.find_map(|it| it.unit.as_deref());
    let name = namespace.name.as_deref();
    let told = [
        ("name", name.map(printable)),
        ("unit", unit.map(printable)),
        (
            "processes",
            Some(commands.join(",")).filter(|it| !it.is_empty()),
        ),
    ];
    let known = told
        .into_iter()
        .filter_map(|(label, it)| Some((label, it?)));
    Sample {
        labels: known.collect(),
        value: "1".into(),
    }
}

fn findings(verdict: &Verdict) -> Vec<Sample> {
    let mut kinds: Vec<(&str, Level, usize)> = Vec::new();
    for reported in &verdict.findings {
        let kind = (reported.finding.code(), reported.level);
        match kinds.iter_mut().find(|it| (it.0, it.1) == kind) {
            Some((.., number)) => *number += 1,
            None => kinds.push((kind.0, kind.1, 1)),
        }
    }
    let sample = |(code, level, number): (&str, Level, usize)| Sample {
        labels: vec![
            ("code", code.to_owned()),
            ("level", level.word().to_lowercase()),
        ],
        value: number.to_string(),
    };
    kinds.into_iter().map(sample).collect()
}

fn plain(value: Option<impl ToString>) -> Vec<Sample> {
    value.map(|it| Sample::plain(&it)).into_iter().collect()
}

fn rate(per_second: Option<f64>) -> Vec<Sample> {
    plain(per_second.map(decimal))
}

/// As in the JSON.
fn decimal(number: f64) -> String {
    rounded(number).to_string()
}

fn seconds(duration: Duration) -> String {
    format!("{:.6}", duration.as_secs_f64())
}

/// The exit status of a level.
fn status(level: Level) -> u8 {
    match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Critical => 2,
        Level::Unknown => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Inhabitant;

    #[test]
    fn labels_are_escaped_and_what_is_unknown_is_left_out() {
        let namespace = Namespace {
            netns: Some(7),
            name: Some("a\"b\\c\n".into()),
            processes: vec![Inhabitant {
                pid: 1,
                command: "x{y=\"}".into(),
                unit: None,
            }],
            ..Namespace::default()
        };
        let mut written = Vec::new();
        let samples = vec![info(&namespace).within(Some(&namespace))];
        write_family("a", Kind::Gauge, "b", samples, &mut written).unwrap();
        write_family("c", Kind::Counter, "d", plain(None::<u64>), &mut written).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "# HELP a b\n# TYPE a gauge\n\
             a{netns=\"7\",name=\"a\\\"b\\\\c?\",processes=\"x{y=\\\"}\"} 1\n"
        );
    }
}
