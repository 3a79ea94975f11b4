//! Whether ports run out, toward which destination, and what to do.

mod destination;
mod nat;
mod owners;

use std::cmp::Reverse;

use super::Capacity;
use super::destination::Sought;
use super::finding::{Finding, Reported};
use super::flow::{Bench, FlowReport};
use super::forecast::lateness;
use super::level::{Level, Thresholds};
use super::machine;
use super::nat::NatReport;
use super::reuse::alone;
use super::source::{Pool, bound_sources};
use crate::model::{
    Counters, Gap, Host, Namespace, Origin, OtherNamespaces, Snapshot, StateCounts, TimeWaitSplit,
    Tunables, Unplaced, Weight,
};
use crate::words::{count, percent};

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
    /// The network namespace that was asked for; `None`, and left out of the JSON, where it is the
    /// reader's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// The machine.
    pub host: Host,
    /// Its settings.
    pub tunables: Tunables,
    /// Its ports; `None` when the range is unknown.
    pub capacity: Option<Capacity>,
    /// From which share of its usable ports on a flow is low.
    #[serde(skip)]
    pub thresholds: Thresholds,
    /// What the kernel counts.
    #[serde(skip)]
    pub counters: Counters,
    /// All sockets by state; `None` where they were not all looked at, or could not be.
    #[serde(skip)]
    pub states: Option<StateCounts>,
    /// TIME_WAIT in all; `None` where the socket table could not be read whole.
    pub time_wait: Option<TimeWaitReport>,
    /// The worst flows first.
    pub flows: Vec<FlowReport>,
    /// What is wrong, worst first.
    pub findings: Vec<Reported>,
    /// How many outbound flows there are, listed or not.
    pub flows_total: usize,
    /// The destination that it is about; `None`, and left out of the JSON, where it is about all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Sought>,
    /// Other network namespaces here, about which nothing is said; `None`, and left out of the JSON,
    /// where none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_namespaces: Option<OtherNamespaces>,
    /// The connections that this machine translates; `None`, and left out of the JSON, where nobody
    /// asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatReport>,
    /// Who has TCP sockets that are in no flow, such as those that have no port; `None` when nobody
    /// looked.
    pub unplaced: Option<Vec<Unplaced>>,
    /// What is to be said about owners, in sentences.
    pub owner_notes: Vec<String>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Verdict {
    /// Notes that all this is about `namespace`, where its commands are to be run too.
    pub fn settle_in(&mut self, namespace: Namespace) {
        for reported in &mut self.findings {
            reported.namespace = Some(namespace.clone());
        }
        let rooms = self
            .destination
            .iter_mut()
            .filter_map(|it| it.room.as_mut());
        let gaps = self.gaps.iter_mut().map(|gap| &mut gap.why);
        let texts = rooms.chain(gaps).chain(&mut self.owner_notes);
        for text in texts.chain([&mut self.summary]) {
            *text = namespace.commands(text);
        }
        self.namespace = Some(namespace);
    }

    /// Tells of all sockets by state, where `snapshot` is a look at every one.
    pub fn count_states(&mut self, snapshot: &Snapshot) {
        self.states = snapshot
            .is_table_whole()
            .then(|| snapshot.tally.states.clone());
    }

    /// What could not be read and is no finding: a note.
    pub fn minor_gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(|gap| gap.weight == Weight::Minor)
    }

    /// The listed flows that are worth a line: those in trouble, and those that take a port in a
    /// hundred.
    pub fn worth_a_line(&self) -> impl Iterator<Item = &FlowReport> {
        self.flows.iter().filter(|flow| {
            let usable = flow.ports_usable.unwrap_or(0);
            flow.level > Level::Ok || percent(flow.ports_in_use, usable) >= WORTH_A_LINE
        })
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

/// Judges one snapshot; lists at most `top` flows, all for 0.
#[must_use]
pub fn verdict(snapshot: &Snapshot, thresholds: Thresholds, top: usize) -> Verdict {
    let bound_sources =
        Capacity::of(snapshot).map_or_else(Vec::new, |capacity| bound_sources(snapshot, &capacity));
    // connect() skips the ports that bind() hands out, like those of listeners.
    let held = bound_sources
        .iter()
        .fold(snapshot.skipped(), |held, source| held.union(&source.ports));
    let capacity = Capacity::with(snapshot, &held);
    let bench = Bench {
        snapshot,
        held: &held,
        capacity: capacity.as_ref(),
        thresholds,
        late: lateness(snapshot.hold_time, snapshot.tick),
        overflowing: machine::overflowing(snapshot),
        alone: alone(snapshot),
        bound_sources: &bound_sources,
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
                used.ports_in_use(),
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

    // Where there is no port to be had, that is the cause of all the rest.
    let mut findings: Vec<_> = Pool::of(snapshot, bound_sources.clone())
        .and_then(|pool| short_pool(pool, thresholds))
        .into_iter()
        .collect();
    if bound_sources.is_empty() {
        findings.extend(capacity.iter().filter_map(no_usable_port));
    }
    let mut reports = Vec::new();
    for (index, (Reverse((level, ..)), _, case, found)) in flows.into_iter().enumerate() {
        reports.push(case.report(level));
        findings.extend(found.into_iter().map(|(level, finding)| Reported {
            namespace: None,
            level,
            flow: Some(index),
            finding,
        }));
    }
    findings.extend(machine::findings(snapshot, capacity.as_ref()));
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
        namespace: None,
        host: snapshot.host.clone(),
        tunables: snapshot.tunables.clone(),
        capacity,
        thresholds,
        counters: snapshot.counters.clone(),
        states: None,
        time_wait: snapshot
            .is_table_whole()
            .then(|| TimeWaitReport::new(snapshot)),
        flows: reports,
        findings,
        flows_total,
        destination: Sought::new(snapshot),
        other_namespaces: None,
        nat: None,
        unplaced: None,
        owner_notes: Vec::new(),
        gaps: snapshot.all_gaps().collect(),
    }
}

/// No flow can have any port: the range is reserved or bound as a whole.
fn no_usable_port(capacity: &Capacity) -> Option<Reported> {
    (capacity.usable_ports == 0).then(|| Reported {
        namespace: None,
        level: Level::Critical,
        flow: None,
        finding: Finding::NoUsablePort {
            range: capacity.range_ports,
            reserved: capacity.reserved_ports,
            bound: capacity.bound_ports.known(),
        },
    })
}

/// The ports that bind() hands out, where it leaves few.
fn short_pool(pool: Pool, thresholds: Thresholds) -> Option<Reported> {
    let share = pool.share();
    let level = if share >= thresholds.crit {
        Level::Critical
    } else {
        Level::Warning
    };
    (share >= thresholds.warn).then_some(Reported {
        namespace: None,
        level,
        flow: None,
        finding: Finding::SourceBound(pool),
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
    quiet(fullest, capacity)
}

/// The same where nothing is wrong.
fn quiet(fullest: Option<&FlowReport>, capacity: Option<&Capacity>) -> String {
    match (capacity, fullest) {
        (None, _) => "Nothing can be said about ports without their range.".into(),
        (Some(_), Some(flow)) => format!(
            "Ports are not the problem: the fullest flow, {} to {}, can still have {} of {}.",
            Origin(&flow.flow()),
            flow.server(),
            count(flow.ports_free.unwrap_or_default()),
            count(flow.ports_usable.unwrap_or_default())
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
    use crate::judge::fixture::{each, look, plain, socket};
    use crate::model::{Growth, PortSet, Reuse, Socket, TcpState, TimeWaitReuse, Timestamps};

    const SPENT: Option<u64> = Some(30_000);
    const DEFAULT: Thresholds = Thresholds {
        warn: 50.0,
        crit: 80.0,
    };

    /// One flow to 10.0.0.2:3306 with sockets in these states, on the ports that connect() takes: the
    /// even ones first; TIME_WAIT with `left` milliseconds to go.
    fn host(tunables: Tunables, sockets: &[(TcpState, u16)], left: Option<u64>) -> Snapshot {
        let ports = (40000_u16..41000)
            .step_by(2)
            .chain((40001..41000).step_by(2));
        let row = |(port, state)| {
            let waits = state == TcpState::TimeWait;
            Socket {
                time_wait_left: left.map(Duration::from_millis).filter(|_| waits),
                ..socket(state, port, ([10, 0, 0, 2], 3306))
            }
        };
        look(tunables, [], ports.zip(each(sockets)).map(row))
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
            (&[(Established, 497)][..], &[][..]),
            (&[(Established, 498)][..], &[("CONNECT_SLOW", Warning)][..]),
            (&[(Established, 499)][..], &[("CONNECT_SLOW", Warning)][..]),
            (
                &[(Established, 500)][..],
                &[
                    ("PORTS_LOW", Warning),
                    ("HELD_OPEN", Warning),
                    ("CONNECT_SLOW", Warning),
                ][..],
            ),
            (
                &[(Established, 799)][..],
                &[
                    ("PORTS_LOW", Warning),
                    ("HELD_OPEN", Warning),
                    ("CONNECT_SLOW", Warning),
                ][..],
            ),
            (
                &[(Established, 800)][..],
                &[
                    ("PORTS_LOW", Critical),
                    ("HELD_OPEN", Critical),
                    ("CONNECT_SLOW", Warning),
                ][..],
            ),
            (
                &[(Established, 999)][..],
                &[
                    ("PORTS_LOW", Critical),
                    ("HELD_OPEN", Critical),
                    ("CONNECT_SLOW", Warning),
                ][..],
            ),
            (
                &[(Established, 1000)][..],
                &[("PORTS_EXHAUSTED", Critical), ("HELD_OPEN", Critical)][..],
            ),
            (&[(CloseWait, 99)][..], &[][..]),
            (&[(CloseWait, 100)][..], &[("CLOSE_WAIT_LEAK", Warning)][..]),
            (&[(CloseWait, 100), (Established, 100)][..], &[][..]),
            (&[(SynSent, 9)][..], &[][..]),
            (&[(SynSent, 10)][..], &[("SYN_SENT_PILE", Warning)][..]),
            (&[(SynSent, 10), (Established, 10)][..], &[][..]),
            (
                &[(SynSent, 1000)][..],
                &[("PORTS_EXHAUSTED", Critical), ("SYN_SENT_PILE", Critical)][..],
            ),
            (
                &[(CloseWait, 1000)][..],
                &[("PORTS_EXHAUSTED", Critical), ("CLOSE_WAIT_LEAK", Critical)][..],
            ),
            // Churn: PORTS_EXHAUSTED speaks for itself.
            (
                &[(TimeWait, 501), (Established, 499)][..],
                &[("PORTS_EXHAUSTED", Critical)][..],
            ),
            (
                &[(FinWait2, 600), (Established, 400)][..],
                &[("PORTS_EXHAUSTED", Critical)][..],
            ),
            (
                &[(TimeWait, 995)][..],
                &[("PORTS_LOW", Critical), ("CONNECT_SLOW", Warning)][..],
            ),
            (&[(TimeWait, 497)][..], &[][..]),
        ] {
            let snapshot = host(plain(), sockets, SPENT);
            assert_eq!(found(&snapshot), findings, "{sockets:?}");
        }
    }

    fn with_reuse() -> Tunables {
        Tunables {
            tcp_tw_reuse: Some(TimeWaitReuse::On),
            ..plain()
        }
    }

    /// The other end of the one flow has timestamps, or has none.
    fn answered(mut snapshot: Snapshot, timestamps: bool) -> Snapshot {
        let flow = *snapshot.tally.flows.keys().next().unwrap();
        let ends = Timestamps {
            with: timestamps.into(),
            without: (!timestamps).into(),
        };
        snapshot.timestamps.insert(flow, ends);
        snapshot
    }

    #[test]
    fn what_reuse_gives_back_blocks_nothing_and_causes_nothing() {
        let found_with_reuse = |sockets: &[_], left| {
            let snapshot = host(with_reuse(), sockets, left);
            found(&answered(snapshot, true))
        };
        // All 1,000 ports are in use; 600 of them can be had again, 400 are held open.
        assert_eq!(
            found_with_reuse(&[(TimeWait, 600), (Established, 400)], SPENT),
            []
        );
        assert_eq!(
            found_with_reuse(&[(TimeWait, 450), (Established, 550)], SPENT),
            [("PORTS_LOW", Warning), ("HELD_OPEN", Warning)]
        );
        // Younger than the delay they block.
        assert_eq!(
            found_with_reuse(&[(TimeWait, 1000)], Some(59_500)),
            [("PORTS_EXHAUSTED", Critical)]
        );
    }

    #[test]
    fn reuse_that_is_only_allowed_is_not_counted_on() {
        let full = || host(with_reuse(), &[(TimeWait, 1000)], SPENT);
        assert_eq!(found(&full()), [("PORTS_EXHAUSTED", Warning)]);
        assert_eq!(found(&answered(full(), true)), []);
        assert_eq!(
            found(&answered(full(), false)),
            [("PORTS_EXHAUSTED", Critical)]
        );
        // Held open: reuse has nothing to do with it.
        let held = host(with_reuse(), &[(Established, 1000)], None);
        assert_eq!(
            found(&held),
            [("PORTS_EXHAUSTED", Critical), ("HELD_OPEN", Critical)]
        );
        let flow = &verdict(&full(), DEFAULT, 10).flows[0];
        assert_eq!(
            (flow.reuse, flow.ports_free, flow.ports_free_with_reuse),
            (Reuse::Allowed, Some(0), Some(1000))
        );
        // What the kernel counts between two looks is this flow's, the only one that is active.
        let mut active = host(with_reuse(), &[(TimeWait, 600)], Some(59_900));
        active.growth = Some(Growth {
            time_wait_recycled: Some(3),
            ..Growth::default()
        });
        assert_eq!(verdict(&active, DEFAULT, 10).flows[0].reuse, Reuse::Seen);
        active.growth = None;
        assert_eq!(verdict(&active, DEFAULT, 10).flows[0].reuse, Reuse::Allowed);
    }

    #[test]
    fn a_hidden_setting_is_careful_and_no_reason_for_unknown_where_nothing_hangs_on_it() {
        let hidden = || Tunables {
            tcp_tw_reuse: None,
            tcp_timestamps: None,
            tcp_max_tw_buckets: None,
            ..plain()
        };
        assert_eq!(found(&host(hidden(), &[(TimeWait, 10)], SPENT)), []);
        let full = host(hidden(), &[(TimeWait, 1000)], SPENT);
        assert_eq!(found(&full), [("PORTS_EXHAUSTED", Critical)]);
        let capacity = verdict(&full, DEFAULT, 10).capacity.unwrap();
        assert_eq!(
            (
                capacity.time_wait_dropped,
                capacity.max_connections_per_second.map(f64::round)
            ),
            (None, Some(17.0))
        );
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

    /// From Linux 4.7 to 5.9 `insert_failed` grows on a healthy machine too.
    #[test]
    fn connection_tracking_fails_where_packets_are_dropped_or_nothing_else_is_counted() {
        let said = |ambiguous, insert_failed, dropped| {
            let mut snapshot = host(plain(), &[], None);
            snapshot.counters.resolved_clashes_fail = ambiguous;
            snapshot.counters.insert_failed = Some(250);
            snapshot.counters.dropped = Some(3);
            snapshot.growth = Some(Growth {
                insert_failed: Some(insert_failed),
                dropped: Some(dropped),
                ..Growth::default()
            });
            let verdict = verdict(&snapshot, DEFAULT, 10);
            let [reported] = verdict.findings.as_slice() else {
                panic!("{:?}", verdict.findings);
            };
            (reported.level, reported.finding.to_string())
        };
        let still = "; whether it still does, one short look does not tell.";
        let took = "Connection tracking could not take 250 connections";
        let but = "at first (before Linux 5.10 those it took after all are among them)";
        let dropped = "and dropped 3 packets since it began";
        for (ambiguous, failed, drops, expected) in [
            (false, 0, 0, (Fine, format!("{took} {dropped}{still}"))),
            (
                false,
                7,
                0,
                (
                    Warning,
                    format!("{took} {dropped}, 7 while this was looked at."),
                ),
            ),
            (true, 7, 0, (Fine, format!("{took} {but} {dropped}{still}"))),
            (
                true,
                7,
                2,
                (
                    Warning,
                    format!("{took} {but} {dropped}, 2 while this was looked at."),
                ),
            ),
        ] {
            assert_eq!(said(ambiguous, failed, drops), expected);
        }
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
}
