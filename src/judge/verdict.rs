//! Whether ports run out, toward which destination, and what to do.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Capacity;
use super::finding::Finding;
use super::flow::{Bench, FlowReport};
use super::forecast::lateness;
use crate::model::{Flow, Gap, Host, Owner, Snapshot, TimeWaitSplit, Tunables, Weight};
use crate::words::{count, percent};

/// How bad it is, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something decisive could not be read.
    Unknown,
    /// Look at it today.
    Warning,
    /// Connections fail, or are about to.
    Critical,
}

impl Level {
    /// The word that monitoring plugins print.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// From which share of the usable ports on a flow is low, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// WARNING from here.
    pub warn: f64,
    /// CRITICAL from here.
    pub crit: f64,
}

/// TW_BUCKET_OVERFLOW is happening now, not in the past, from this share of the limit on. Sockets
/// leave every moment, so a table that overflows is seldom found exactly full.
const BUCKETS_NEARLY_FULL: f64 = 90.0;

/// CONNTRACK_FULL from this share of `nf_conntrack_max` on: connections come in bursts, and beyond
/// the limit packets are dropped at once.
const CONNTRACK_NEARLY_FULL: f64 = 90.0;

/// The share of the usable ports, in percent, below which a flow in no trouble tells nothing.
const WORTH_A_LINE: f64 = 1.0;

/// Everything `verdict` says, in the order of the JSON contract.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verdict {
    /// Version of this structure.
    pub schema: u32,
    /// The worst of the findings.
    pub level: Level,
    /// One sentence for the incident call.
    pub summary: String,
    /// The machine.
    pub host: Host,
    /// Its settings.
    pub tunables: Tunables,
    /// Its ports; `None` when the range is unknown.
    pub capacity: Option<Capacity>,
    /// TIME_WAIT in all.
    pub time_wait: TimeWaitReport,
    /// The worst flows first.
    pub flows: Vec<FlowReport>,
    /// What is wrong, worst first.
    pub findings: Vec<Reported>,
    /// How many outbound flows there are, listed or not.
    pub flows_total: usize,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Verdict {
    /// The listed flows that are worth a line: those in trouble, and those that take a port in a
    /// hundred.
    pub fn worth_a_line(&self) -> impl Iterator<Item = &FlowReport> {
        let usable = self.capacity.map_or(0, |capacity| capacity.usable_ports);
        self.flows.iter().filter(move |flow| {
            flow.level > Level::Ok || percent(flow.ports_in_use, usable) >= WORTH_A_LINE
        })
    }

    /// The listed flows whose owners are worth a look through all processes: those in trouble, or
    /// `all` of them.
    #[must_use]
    pub fn flows_to_own(&self, all: bool) -> Vec<Flow> {
        self.flows
            .iter()
            .filter(|flow| all || flow.level > Level::Ok)
            .map(FlowReport::flow)
            .collect()
    }

    /// Puts names to the flows that `owners` speaks of.
    pub fn name_owners(&mut self, mut owners: HashMap<Flow, Vec<Owner>>, gap: Option<Gap>) {
        for flow in &mut self.flows {
            flow.owners = owners.remove(&flow.flow());
        }
        self.gaps.extend(gap);
    }
}

/// TIME_WAIT in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TimeWaitReport {
    /// By direction.
    #[serde(flatten)]
    pub split: TimeWaitSplit,
    /// `tcp_max_tw_buckets`; `None` when unknown.
    pub limit: Option<u64>,
    /// `TCPTimeWaitOverflow` since the namespace was made; `None` when unknown.
    pub overflows: Option<u64>,
}

impl TimeWaitReport {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            split: snapshot.tally.time_wait,
            limit: snapshot.tunables.tcp_max_tw_buckets,
            overflows: snapshot.counters.time_wait_overflows,
        }
    }
}

/// A finding with its level and its flow's place in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// How bad it is.
    pub level: Level,
    /// Index into [`Verdict::flows`]; `None` when it is about the machine.
    pub flow: Option<usize>,
    /// What.
    pub finding: Finding,
}

impl Serialize for Reported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("code", self.finding.code())?;
        object.serialize_field("level", &self.level)?;
        object.serialize_field("flow", &self.flow)?;
        object.serialize_field("message", &self.finding.to_string())?;
        object.serialize_field("next_step", &self.finding.next_step())?;
        object.end()
    }
}

/// Judges one snapshot; lists at most `top` flows, all for 0.
#[must_use]
pub fn verdict(snapshot: &Snapshot, thresholds: Thresholds, top: usize) -> Verdict {
    let capacity = Capacity::new(&snapshot.tunables, &snapshot.held(), snapshot.hold_time());
    let capacity = capacity.map(|known| match snapshot.bound {
        Some(_) => known,
        None => known.with_unknown_bound(),
    });
    let bench = Bench {
        tunables: &snapshot.tunables,
        capacity: capacity.as_ref(),
        thresholds,
        hold_time: snapshot.hold_time(),
        late: lateness(snapshot.hold_time(), snapshot.tick),
        overflowing: overflowing(snapshot),
    };
    let mut flows: Vec<_> = snapshot
        .tally
        .flows
        .iter()
        .map(|(flow, used)| {
            let case = bench.case(flow, used);
            let findings = case.findings();
            let level = findings.iter().map(|(level, _)| *level).max();
            let severity = (
                level.unwrap_or(Level::Ok),
                case.blocked(),
                used.ports_in_use,
            );
            (Reverse(severity), *flow, case, findings)
        })
        .collect();
    flows.sort_unstable_by_key(|&(severity, flow, ..)| (severity, flow));
    let in_trouble = flows
        .iter()
        .take_while(|(Reverse((level, ..)), ..)| *level > Level::Ok)
        .count();
    let flows_total = flows.len();
    flows.truncate(if top == 0 { flows_total } else { top });

    let mut findings = Vec::new();
    let mut reports = Vec::new();
    for (index, (Reverse((level, ..)), _, case, found)) in flows.into_iter().enumerate() {
        reports.push(case.report(level));
        findings.extend(found.into_iter().map(|(level, finding)| Reported {
            level,
            flow: Some(index),
            finding,
        }));
    }
    findings.extend(machine_findings(snapshot, capacity.as_ref()));
    findings.sort_by_key(|reported| Reverse(reported.level));

    let level = findings
        .iter()
        .map(|reported| reported.level)
        .max()
        .unwrap_or(Level::Ok);
    Verdict {
        schema: 1,
        level,
        summary: summary(&findings, reports.first(), capacity.as_ref(), in_trouble),
        host: snapshot.host.clone(),
        tunables: snapshot.tunables.clone(),
        capacity,
        time_wait: TimeWaitReport::new(snapshot),
        flows: reports,
        findings,
        flows_total,
        gaps: snapshot.all_gaps().collect(),
    }
}

/// Findings about the machine as a whole.
fn machine_findings(snapshot: &Snapshot, capacity: Option<&Capacity>) -> Vec<Reported> {
    let mut findings = Vec::new();
    let mut found = |level, finding| {
        findings.push(Reported {
            level,
            flow: None,
            finding,
        });
    };
    if let Some(capacity) = capacity.filter(|capacity| capacity.usable_ports == 0) {
        let finding = Finding::NoUsablePort {
            range: capacity.range_ports,
            reserved: capacity.reserved_ports,
            bound: capacity.bound_ports.known(),
        };
        found(Level::Critical, finding);
    }
    let overflows = snapshot.counters.time_wait_overflows.unwrap_or(0);
    if let (Some(limit), true) = (snapshot.tunables.tcp_max_tw_buckets, overflows > 0) {
        let now = overflowing(snapshot);
        found(
            if now { Level::Warning } else { Level::Ok },
            Finding::TwBucketOverflow {
                total: snapshot.tally.time_wait.total,
                limit,
                overflows,
                now,
                below_ports: capacity.is_some_and(Capacity::buckets_bound),
            },
        );
    }
    if let Some((tracked, limit)) = snapshot.counters.conntrack
        && percent(tracked, limit) >= CONNTRACK_NEARLY_FULL
    {
        let level = if tracked >= limit {
            Level::Critical
        } else {
            Level::Warning
        };
        found(level, Finding::ConntrackFull { tracked, limit });
    }
    if let Some(value) = snapshot.tunables.tcp_tw_recycle.filter(|&value| value != 0) {
        let sysctl = "net.ipv4.tcp_tw_recycle";
        found(Level::Warning, Finding::DangerousSetting { sysctl, value });
    }
    for gap in snapshot
        .gaps
        .iter()
        .filter(|gap| gap.weight == Weight::Decisive)
    {
        found(Level::Unknown, Finding::CouldNotRead(gap.clone()));
    }
    findings
}

/// Whether TIME_WAIT sockets are being dropped at `tcp_max_tw_buckets`.
pub(super) fn overflowing(snapshot: &Snapshot) -> bool {
    snapshot.counters.time_wait_overflows.unwrap_or(0) > 0
        && snapshot.tunables.tcp_max_tw_buckets.is_some_and(|limit| {
            percent(snapshot.tally.time_wait.total, limit) >= BUCKETS_NEARLY_FULL
        })
}

/// One sentence that a person can read out in an incident call.
fn summary(
    findings: &[Reported],
    fullest: Option<&FlowReport>,
    capacity: Option<&Capacity>,
    in_trouble: usize,
) -> String {
    if let Some(worst) = findings.first().filter(|worst| worst.level > Level::Ok) {
        return match in_trouble - usize::from(worst.flow.is_some()) {
            0 => worst.finding.to_string(),
            1 => format!("{} One more flow is in trouble.", worst.finding),
            more => format!(
                "{} {} more flows are in trouble.",
                worst.finding,
                count(more as u64)
            ),
        };
    }
    match (capacity, fullest) {
        (None, _) => "Nothing can be said about ports without their range.".into(),
        (Some(capacity), Some(flow)) => format!(
            "Ports are not the problem: the fullest flow, {} to {}, can still have {} of {}.",
            flow.source,
            flow.server(),
            count(flow.ports_free.unwrap_or_default()),
            count(capacity.usable_ports)
        ),
        (Some(capacity), None) => format!(
            "Ports are not the problem: no outbound connection takes any of the {}.",
            count(capacity.usable_ports)
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Counters, PortRange, PortRule, PortSet, Socket, SourceName, Tally, TcpState, TimeWaitReuse,
    };

    const SPENT: Option<u64> = Some(30_000);
    const DEFAULT: Thresholds = Thresholds {
        warn: 50.0,
        crit: 80.0,
    };

    /// A host with 1,000 ports and nothing else remarkable.
    fn plain() -> Tunables {
        Tunables {
            ip_local_port_range: PortRange::parse("40000 40999"),
            ip_local_reserved_ports: PortSet::parse(""),
            tcp_tw_reuse: Some(TimeWaitReuse::Off),
            tcp_timestamps: Some(1),
            tcp_max_tw_buckets: Some(131_072),
            ..Tunables::default()
        }
    }

    /// One flow to 10.0.0.2:3306 with sockets in these states, on ascending ports; TIME_WAIT with
    /// `left` milliseconds to go.
    fn host(tunables: Tunables, sockets: &[(TcpState, u16)], left: Option<u64>) -> Snapshot {
        let mut tally = Tally::new(PortRule::new(&tunables), PortSet::default());
        let states = sockets
            .iter()
            .flat_map(|&(state, number)| std::iter::repeat_n(state, number.into()));
        for (port, state) in (40000_u16..).zip(states) {
            let waits = state == TcpState::TimeWait;
            tally.add(&Socket {
                state,
                local: ([10, 0, 0, 1], port).into(),
                remote: ([10, 0, 0, 2], 3306).into(),
                time_wait_left: left.map(Duration::from_millis).filter(|_| waits),
                inode: None,
            });
        }
        Snapshot {
            host: Host::default(),
            tunables,
            bound: Some(PortSet::default()),
            tally,
            counters: Counters::default(),
            tick: Some(Duration::from_millis(4)),
            source: SourceName::SockDiag,
            gaps: Vec::new(),
        }
    }

    fn found(snapshot: &Snapshot) -> Vec<(&'static str, Level)> {
        verdict(snapshot, DEFAULT, 10)
            .findings
            .iter()
            .map(|reported| (reported.finding.code(), reported.level))
            .collect()
    }

    use Level::{Critical, Ok as Fine, Unknown, Warning};
    use TcpState::{CloseWait, Established, FinWait2, SynSent, TimeWait};

    #[test]
    fn each_threshold_holds_on_both_sides() {
        for (sockets, findings) in [
            (&[(Established, 499)][..], &[][..]),
            (
                &[(Established, 500)],
                &[("PORTS_LOW", Warning), ("HELD_OPEN", Warning)],
            ),
            (
                &[(Established, 799)],
                &[("PORTS_LOW", Warning), ("HELD_OPEN", Warning)],
            ),
            (
                &[(Established, 800)],
                &[("PORTS_LOW", Critical), ("HELD_OPEN", Critical)],
            ),
            (
                &[(Established, 999)],
                &[("PORTS_LOW", Critical), ("HELD_OPEN", Critical)],
            ),
            (
                &[(Established, 1000)],
                &[("PORTS_EXHAUSTED", Critical), ("HELD_OPEN", Critical)],
            ),
            (&[(CloseWait, 99)], &[]),
            (&[(CloseWait, 100)], &[("CLOSE_WAIT_LEAK", Warning)]),
            (&[(CloseWait, 100), (Established, 100)], &[]),
            (&[(SynSent, 9)], &[]),
            (&[(SynSent, 10)], &[("SYN_SENT_PILE", Warning)]),
            (&[(SynSent, 10), (Established, 10)], &[]),
            (
                &[(SynSent, 1000)],
                &[("PORTS_EXHAUSTED", Critical), ("SYN_SENT_PILE", Critical)],
            ),
            (
                &[(CloseWait, 1000)],
                &[("PORTS_EXHAUSTED", Critical), ("CLOSE_WAIT_LEAK", Critical)],
            ),
            // Churn: PORTS_EXHAUSTED speaks for itself.
            (
                &[(TimeWait, 501), (Established, 499)],
                &[("PORTS_EXHAUSTED", Critical)],
            ),
            (
                &[(FinWait2, 600), (Established, 400)],
                &[("PORTS_EXHAUSTED", Critical)],
            ),
            // 498 of the 500 fast ports are taken by the first 995.
            (
                &[(TimeWait, 995)],
                &[("PORTS_LOW", Critical), ("CONNECT_SLOW", Warning)],
            ),
            (&[(TimeWait, 993)], &[("PORTS_LOW", Critical)]),
        ] {
            let snapshot = host(plain(), sockets, SPENT);
            assert_eq!(found(&snapshot), findings, "{sockets:?}");
        }
    }

    #[test]
    fn what_reuse_gives_back_blocks_nothing_and_causes_nothing() {
        let tunables = Tunables {
            tcp_tw_reuse: Some(TimeWaitReuse::On),
            ..plain()
        };
        // All 1,000 ports are in use; 600 of them can be had again, 400 are held open.
        let snapshot = host(
            tunables.clone(),
            &[(TimeWait, 600), (Established, 400)],
            SPENT,
        );
        assert_eq!(found(&snapshot), []);
        let snapshot = host(
            tunables.clone(),
            &[(TimeWait, 450), (Established, 550)],
            SPENT,
        );
        assert_eq!(
            found(&snapshot),
            [("PORTS_LOW", Warning), ("HELD_OPEN", Warning)]
        );
        // Younger than the delay they block.
        let snapshot = host(tunables, &[(TimeWait, 1000)], Some(59_500));
        assert_eq!(found(&snapshot), [("PORTS_EXHAUSTED", Critical)]);
    }

    #[test]
    fn findings_about_the_machine() {
        let quiet = |change: fn(&mut Snapshot)| {
            let mut snapshot = host(plain(), &[], None);
            change(&mut snapshot);
            found(&snapshot)
        };
        assert_eq!(quiet(|_| ()), []);
        assert_eq!(
            quiet(|it| it.tunables.ip_local_reserved_ports = PortSet::parse("40000-40999")),
            [("PORTS_EXHAUSTED", Critical)]
        );
        assert_eq!(quiet(|it| it.tunables.tcp_tw_recycle = Some(0)), []);
        assert_eq!(
            quiet(|it| it.tunables.tcp_tw_recycle = Some(1)),
            [("DANGEROUS_SETTING", Warning)]
        );
        assert_eq!(quiet(|it| it.counters.conntrack = Some((899, 1000))), []);
        assert_eq!(
            quiet(|it| it.counters.conntrack = Some((900, 1000))),
            [("CONNTRACK_FULL", Warning)]
        );
        assert_eq!(
            quiet(|it| it.counters.conntrack = Some((1000, 1000))),
            [("CONNTRACK_FULL", Critical)]
        );
        assert_eq!(
            quiet(|it| {
                it.counters.time_wait_overflows = Some(1);
                it.tally.set_time_wait(117_964);
            }),
            [("TW_BUCKET_OVERFLOW", Fine)],
            "in the past"
        );
        assert_eq!(
            quiet(|it| {
                it.counters.time_wait_overflows = Some(1);
                it.tally.set_time_wait(117_965);
            }),
            [("TW_BUCKET_OVERFLOW", Warning)]
        );
        let gap = |weight| Gap {
            what: "x".into(),
            why: "y".into(),
            weight,
        };
        let mut snapshot = host(plain(), &[], None);
        snapshot.gaps = vec![gap(Weight::Minor), gap(Weight::Decisive)];
        assert_eq!(found(&snapshot), [("COULD_NOT_READ", Unknown)]);
    }

    #[test]
    fn an_unknown_range_has_no_numbers() {
        let tunables = Tunables {
            ip_local_port_range: None,
            ..plain()
        };
        let verdict = verdict(&host(tunables, &[(Established, 5)], None), DEFAULT, 10);
        assert_eq!(verdict.capacity, None);
        let flow = &verdict.flows[0];
        assert_eq!(
            (flow.ports_free, flow.max_connections_per_second),
            (None, None)
        );
    }

    #[test]
    fn a_timer_longer_than_the_settings_say_sets_the_hold_time() {
        let snapshot = host(plain(), &[(TimeWait, 10)], Some(119_400));
        assert_eq!(snapshot.hold_time(), Duration::from_secs(120));
        let capacity = verdict(&snapshot, DEFAULT, 10).capacity.unwrap();
        assert_eq!(capacity.time_wait_seconds, 120);
        let rounded = host(plain(), &[(TimeWait, 10)], Some(60_004));
        assert_eq!(rounded.hold_time(), Duration::from_secs(60));
    }
}
