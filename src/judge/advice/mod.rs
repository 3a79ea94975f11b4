//! What to change on this machine, what to leave alone, and what the application should do.

use serde::Serialize;

use super::change::{Change, Step, changes_of};
use super::destination::Sought;
use super::experiment::Proof;
use super::goal::{Goal, Needs, needs};
use crate::model::{FlowUse, Gap, Holders, Namespace, Snapshot};

mod place;
mod plan;
mod remarks;
mod reserve;
mod summary;

pub use place::Whose;
use plan::Facts;
pub use remarks::Remark;

/// Everything `advise` says, in the order of the JSON contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Version of this structure.
    pub schema: u32,
    /// The network namespace that was asked for; `None`, and left out of the JSON, where it is the
    /// reader's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// One sentence or a few: what the machine bears now and after the changes.
    pub summary: String,
    /// What to change, in the order in which to apply it. In the JSON a list of changes, each with
    /// the number of its step and the rates of the step.
    #[serde(rename = "changes", serialize_with = "changes_of")]
    pub steps: Vec<Step>,
    /// Whose network namespace this process has, where it is about that one; `None`, and left out of
    /// the JSON, where that is plainly the machine's, or a recorded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Whose>,
    /// What it takes to carry what is wanted; `None` where nothing was named.
    pub goal: Option<Needs>,
    /// The destination that it is about; `None`, and left out of the JSON, where it is about any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Sought>,
    /// What the changes did in a sandbox; `None` where that was not asked for.
    pub proof: Option<Proof>,
    /// What not to change.
    pub not_recommended: Vec<Remark>,
    /// What the application should do.
    pub application: Vec<Remark>,
    /// Whether the first of these comes before any change here.
    #[serde(skip)]
    pub client_first: bool,
    /// The ports that the fullest flow takes.
    #[serde(skip)]
    pub ports_in_use: u32,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Advice {
    /// Notes that all this is about `namespace`, where its commands are to be run too.
    pub fn settle_in(&mut self, namespace: Namespace) {
        let remarks = self.not_recommended.iter_mut().chain(&mut self.application);
        let changes = self.steps.iter_mut().flat_map(|step| &mut step.changes);
        let texts = remarks
            .map(|remark| &mut remark.why)
            .chain(changes.flat_map(|change| [&mut change.why, &mut change.risk]))
            .chain(self.gaps.iter_mut().map(|gap| &mut gap.why));
        for text in texts {
            *text = namespace.commands(text);
        }
        self.namespace = Some(namespace);
    }

    /// All changes, in their order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }
}

/// Advises on one snapshot, on a machine where `holders` hold ports too, and on `goal` where
/// somebody wants one.
#[must_use]
pub fn advise(snapshot: &Snapshot, holders: &Holders, goal: Option<Goal>) -> Advice {
    let facts = Facts::new(snapshot, holders, goal);
    let mut steps = plan::steps(&facts, true);
    let goal = goal.map(|goal| {
        let mut needs = Needs {
            destination: facts.destination(),
            ..needs(goal, facts.now, facts.room(), &steps)
        };
        if facts.pool_of_bind().is_some() {
            let condition = "All this once the client sets IP_BIND_ADDRESS_NO_PORT: until then its \
                             destinations share one pool of ports.";
            needs.sentences.insert(0, condition.into());
        }
        if let Some(enough) = needs.changes_needed.filter(|_| !facts.drops()) {
            steps = plan::enough(&facts, std::mem::take(&mut steps), enough);
            if enough > 0 {
                needs.changes_needed = Some(steps.iter().map(|step| step.changes.len()).sum());
            }
        }
        needs
    });
    Advice {
        schema: 1,
        namespace: None,
        ports_in_use: fullest(snapshot),
        summary: summary::of(&facts, &steps),
        application: remarks::application(&facts, steps.last()),
        client_first: facts.pool_of_bind().is_some(),
        place: None,
        goal,
        destination: Sought::new(snapshot),
        proof: None,
        not_recommended: remarks::not_recommended(&facts),
        gaps: snapshot
            .all_gaps()
            .chain(holders.gaps.iter().cloned())
            .collect(),
        steps,
    }
}

/// The ports that the fullest flow takes.
fn fullest(snapshot: &Snapshot) -> u32 {
    let flows = snapshot.tally.flows.values().map(FlowUse::ports_in_use);
    flows.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::bearing::{Bearing, Limit};
    use crate::judge::change::Sysctl;
    use crate::judge::fixture::{each, look, plain, socket};
    use crate::model::{PortRange, PortSet, TcpState, TimeWaitReuse, Tunables};

    /// With as many sockets toward 10.0.0.2:3306 in these states, and these listeners.
    fn host(tunables: Tunables, sockets: &[(TcpState, u16)], listening: &str) -> Snapshot {
        let listening = PortSet::parse(listening).unwrap();
        let listening = listening.ports().map(|port| ([0, 0, 0, 0], port).into());
        let row = |(port, state)| socket(state, port, ([10, 0, 0, 2], 3306));
        look(tunables, listening, (40000..).zip(each(sockets)).map(row))
    }

    fn nobody() -> Holders {
        Holders {
            bound: Some(PortSet::default()),
            udp: Some(PortSet::default()),
            ..Holders::default()
        }
    }

    /// The steps in short, and the summary.
    fn advised(snapshot: &Snapshot, goal: Option<Goal>) -> (Vec<String>, String) {
        let advice = advise(snapshot, &nobody(), goal);
        let short = |step: &Step| {
            let changes: Vec<_> = step
                .changes
                .iter()
                .map(|change| {
                    let name = change.sysctl.to_string().replace("net.ipv4.", "");
                    format!("{name}={}", change.recommended)
                })
                .collect();
            changes.join(" + ")
        };
        (advice.steps.iter().map(short).collect(), advice.summary)
    }

    const WIDE: &str = "ip_local_port_range=10240 65535";
    const REUSE: &str = "tcp_tw_reuse=1";

    #[test]
    fn without_a_cause_reuse_comes_first_and_the_range_second() {
        let (steps, summary) = advised(&host(plain(), &[], ""), None);
        assert_eq!(steps, [REUSE, WIDE]);
        assert_eq!(
            summary,
            "This machine bears at most 16.7 connections/s to one destination. With the 2 changes \
             below, at most 55,296 connections/s where the other end has TCP timestamps, 921.6 \
             where it has not."
        );
    }

    #[test]
    fn what_depends_on_one_another_is_one_step_with_the_limit_of_time_wait_last() {
        let tunables = Tunables {
            tcp_timestamps: Some(0),
            tcp_max_tw_buckets: Some(998),
            ..plain()
        };
        let (steps, summary) = advised(&host(tunables.clone(), &[], "40001,12345"), None);
        assert_eq!(
            steps,
            [format!(
                "tcp_timestamps=1 + {REUSE} + ip_local_reserved_ports=12345,40001 + {WIDE} + \
                 tcp_max_tw_buckets=131072"
            )]
        );
        assert_eq!(
            summary,
            "TIME_WAIT beyond tcp_max_tw_buckets = 998 is dropped, below the 999 usable ports: \
             TIME_WAIT alone never takes them all, and its protection is gone. With the 5 changes \
             below, which are one step, it is kept, and this machine bears at most 55,294 \
             connections/s to one destination where the other end has TCP timestamps, 921.6 where \
             it has not."
        );
        // At the limit nothing is dropped: it has to grow with the range only.
        let enough = Tunables {
            tcp_max_tw_buckets: Some(1000),
            ..tunables
        };
        let (steps, _) = advised(&host(enough, &[], ""), None);
        assert_eq!(
            steps,
            [
                format!("tcp_timestamps=1 + {REUSE}"),
                format!("tcp_max_tw_buckets=131072 + {WIDE}")
            ]
        );
    }

    #[test]
    fn the_limit_of_time_wait_is_not_raised_where_reuse_is_unknown() {
        let tunables = Tunables {
            tcp_max_tw_buckets: Some(500),
            tcp_tw_reuse: None,
            ..plain()
        };
        let (steps, summary) = advised(&host(tunables, &[], ""), None);
        assert_eq!(steps, [WIDE]);
        assert_eq!(
            summary,
            "How many connections/s this machine bears is not known, nor advice given that hangs \
             on it: net.ipv4.tcp_tw_reuse could not be read. With the change below there are \
             55,296 usable ports to one destination instead of 1,000."
        );
    }

    #[test]
    fn no_sysctl_that_is_absent_is_set() {
        let unknown = Tunables {
            tcp_tw_reuse: None,
            tcp_timestamps: None,
            tcp_max_tw_buckets: None,
            ..plain()
        };
        assert_eq!(advised(&host(unknown, &[], ""), None).0, [WIDE]);
        assert_eq!(
            advised(&host(Tunables::default(), &[], "80"), None),
            (
                vec![],
                "How many connections/s this machine bears is not known, nor advice given that \
                 hangs on it: net.ipv4.ip_local_port_range, net.ipv4.ip_local_reserved_ports, \
                 net.ipv4.tcp_tw_reuse, net.ipv4.tcp_timestamps, net.ipv4.tcp_max_tw_buckets could \
                 not be read."
                    .to_owned()
            )
        );
    }

    #[test]
    fn advice_follows_what_takes_the_ports() {
        use TcpState::{CloseWait, Established, TimeWait};
        for (sockets, steps) in [
            (&[(Established, 249)][..], &[REUSE, WIDE][..]),
            (&[(Established, 250)], &[WIDE]),
            (&[(CloseWait, 600)], &[WIDE]),
            (&[(Established, 600), (TimeWait, 249)], &[WIDE]),
            (&[(Established, 600), (TimeWait, 250)], &[WIDE, REUSE]),
            (&[(TimeWait, 600), (Established, 200)], &[REUSE, WIDE]),
        ] {
            let snapshot = host(plain(), sockets, "");
            assert_eq!(advised(&snapshot, None).0, steps, "{sockets:?}");
        }
        let (_, summary) = advised(&host(plain(), &[(Established, 600)], ""), None);
        assert_eq!(
            summary,
            "600 of the 1,000 ports from 10.0.0.1 toward 10.0.0.2:3306 are taken by 600 \
             ESTABLISHED, which no setting for TIME_WAIT gives back. With the change below, 55,296 \
             connections can be open to one destination at once."
        );
    }

    #[test]
    fn a_range_that_is_all_reserved_is_about_the_reservation() {
        let all = |range, reserved| Tunables {
            ip_local_port_range: PortRange::parse(range),
            ip_local_reserved_ports: PortSet::parse(reserved),
            ..plain()
        };
        let (steps, summary) = advised(&host(all("40000 40011", "40000-40011"), &[], ""), None);
        assert_eq!(steps, [WIDE, REUSE]);
        assert!(
            summary.starts_with(
                "No port of the range is usable, so no connection can be opened: all 12 are in \
                 net.ipv4.ip_local_reserved_ports. With the 2 changes below there are 55,284:"
            ),
            "{summary}"
        );
        let (steps, summary) = advised(&host(all("1024 65535", "1-65535"), &[], ""), None);
        assert_eq!(steps, [""; 0]);
        assert!(
            summary.ends_with(
                "No wider range has any: take ports out of net.ipv4.ip_local_reserved_ports, or \
                 services to other ports."
            ),
            "{summary}"
        );
    }

    #[test]
    fn services_inside_the_range_are_reserved_whatever_the_rate() {
        let wide = Tunables {
            ip_local_port_range: PortRange::parse("1024 65535"),
            tcp_tw_reuse: Some(TimeWaitReuse::On),
            ..plain()
        };
        let goal = |rate, connections| Goal {
            rate,
            connections,
            busy: None,
        };
        let mends = "ip_local_reserved_ports=3306,8080";
        let snapshot = host(wide, &[], "80,3306,8080");
        for wanted in [
            None,
            Some(goal(Some(10.0), None)),
            Some(goal(None, Some(5))),
            Some(goal(Some(1e6), None)),
        ] {
            assert_eq!(advised(&snapshot, wanted).0, [mends], "{wanted:?}");
        }
        // And where the range would have to grow only for more than is wanted.
        let snapshot = host(plain(), &[], "40001,12345");
        let reserve = "ip_local_reserved_ports=40001";
        for (wanted, steps) in [
            (goal(Some(10.0), None), &[reserve][..]),
            (goal(Some(900.0), None), &[reserve, REUSE]),
            (goal(None, Some(999)), &[reserve]),
            (
                goal(None, Some(1000)),
                &["ip_local_reserved_ports=12345,40001 + ip_local_port_range=10240 65535"],
            ),
            (
                goal(None, Some(60_000)),
                &["ip_local_reserved_ports=12345,40001 + ip_local_port_range=5534 65535"],
            ),
            (
                goal(Some(100.0), Some(60_000)),
                &[
                    REUSE,
                    "ip_local_reserved_ports=12345,40001 + ip_local_port_range=5434 65535",
                ],
            ),
        ] {
            assert_eq!(advised(&snapshot, Some(wanted)).0, steps, "{wanted:?}");
        }
    }

    #[test]
    fn the_range_begins_above_the_ports_that_users_may_not_bind() {
        let start = |port| {
            let tunables = Tunables {
                ip_unprivileged_port_start: port,
                ..plain()
            };
            advised(&host(tunables, &[], ""), None).0.pop().unwrap()
        };
        for (port, range) in [
            (None, "10240 65535"),
            (Some(0), "10240 65535"),
            (Some(20000), "20000 65535"),
            (Some(20001), "20002 65535"),
            (Some(40000), "40000 65535"),
        ] {
            assert_eq!(start(port), format!("ip_local_port_range={range}"));
        }
    }

    #[test]
    fn advice_on_the_limit_of_time_wait_is_for_now_and_fits_an_int() {
        let buckets = |limit, overflows, total| {
            let mut snapshot = host(plain(), &[], "");
            snapshot.tunables.tcp_max_tw_buckets = Some(limit);
            snapshot.counters.time_wait_overflows = Some(overflows);
            snapshot.tally.set_time_wait(total);
            let advice = advise(&snapshot, &nobody(), None);
            let change = advice
                .changes()
                .find(|change| change.sysctl == Sysctl::TcpMaxTwBuckets);
            change.map(|change| change.recommended.clone())
        };
        assert_eq!(buckets(131_072, 0, 0), None);
        assert_eq!(buckets(131_072, 9, 0), None, "it was long ago");
        assert_eq!(buckets(131_072, 9, 131_072).as_deref(), Some("262144"));
        assert_eq!(
            buckets(1000, 0, 0).as_deref(),
            Some("131072"),
            "of 55,296 ports"
        );
        assert_eq!(
            buckets(2_000_000_000, 9, 2_000_000_000).as_deref(),
            Some("2147483647")
        );
        assert_eq!(buckets(2_147_483_647, 9, 2_147_483_647), None);
    }

    fn machine() -> impl Strategy<Value = Snapshot> {
        let range = (1024_u16..65000, 1_u16..30000);
        let reserved = proptest::collection::vec((1024_u16..65000, 0_u16..500), 0..40);
        let listening = proptest::collection::vec(1024_u16..65535, 0..40);
        (
            (range, reserved, listening, 0_u8..3, 0_u64..2),
            (
                prop_oneof![1_u64..100_000, Just(262_144)],
                proptest::bool::ANY,
                0_u16..600,
                0_u16..600,
            ),
        )
            .prop_map(|((range, reserved, listening, reuse, timestamps), rest)| {
                let (buckets, overflowing, open, waiting) = rest;
                let mut set = PortSet::default();
                for (low, length) in reserved {
                    set.extend(low..low.saturating_add(length));
                }
                let tunables = Tunables {
                    ip_local_port_range: Some(PortRange {
                        low: range.0,
                        high: range.0.saturating_add(range.1),
                    }),
                    ip_local_reserved_ports: Some(set),
                    tcp_tw_reuse: TimeWaitReuse::from_kernel(reuse.into()),
                    tcp_timestamps: Some(timestamps),
                    tcp_max_tw_buckets: Some(buckets),
                    ..plain()
                };
                let listening: PortSet = listening.into_iter().collect();
                let sockets = [(TcpState::Established, open), (TcpState::TimeWait, waiting)];
                let mut snapshot = host(tunables, &sockets, &listening.to_string());
                if overflowing {
                    snapshot.counters.time_wait_overflows = Some(1);
                    snapshot.tally.set_time_wait(buckets);
                }
                snapshot
            })
    }

    /// What `sysctl -p` has done after each line of the file.
    fn line_by_line(snapshot: &Snapshot, advice: &Advice) -> Vec<Tunables> {
        let mut tunables = snapshot.tunables.clone();
        let mut lines = Vec::new();
        for change in advice.changes() {
            let value = &change.recommended;
            match change.sysctl {
                Sysctl::TcpTwRecycle => tunables.tcp_tw_recycle = value.parse().ok(),
                Sysctl::TcpTimestamps => tunables.tcp_timestamps = value.parse().ok(),
                Sysctl::TcpTwReuse => {
                    tunables.tcp_tw_reuse = TimeWaitReuse::from_kernel(value.parse().unwrap());
                }
                Sysctl::IpLocalReservedPorts => {
                    tunables.ip_local_reserved_ports = PortSet::parse(value);
                }
                Sysctl::IpLocalPortRange => {
                    tunables.ip_local_port_range = PortRange::parse(value);
                }
                Sysctl::TcpMaxTwBuckets => tunables.tcp_max_tw_buckets = value.parse().ok(),
            }
            lines.push(tunables.clone());
        }
        lines
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_line_but_the_last_of_its_step_makes_anything_worse(snapshot in machine()) {
            let advice = advise(&snapshot, &nobody(), None);
            let held = snapshot.held();
            let hold_time = snapshot.hold_time;
            let rate = |tunables: &Tunables| {
                let bearing = Bearing::new(tunables, &held, hold_time, false, None).unwrap();
                match bearing.rate {
                    Limit::Unbound => f64::INFINITY,
                    limit => limit.per_second().unwrap(),
                }
            };
            let lines = line_by_line(&snapshot, &advice);
            let ends: Vec<_> = advice
                .steps
                .iter()
                .scan(0, |lines, step| {
                    *lines += step.changes.len();
                    Some(*lines)
                })
                .collect();
            // With the ports that the reservation alone costs, while the range is the old one.
            let mut before = rate(&snapshot.tunables);
            for (index, tunables) in lines.iter().enumerate() {
                let now = rate(tunables);
                let is_end = ends.contains(&(index + 1));
                let reserves = index + 1 < lines.len()
                    && lines[index + 1].ip_local_port_range != tunables.ip_local_port_range;
                prop_assert!(now >= before || is_end || reserves, "line {index}: {before} {now}");
                before = now;
            }
            for (step, &end) in advice.steps.iter().zip(&ends) {
                prop_assert_eq!(&lines[end - 1], &step.together);
            }
        }

        #[test]
        fn advice_that_was_followed_has_nothing_left_to_say(snapshot in machine()) {
            let advice = advise(&snapshot, &nobody(), None);
            let mut after = snapshot.clone();
            if let Some(last) = advice.steps.last() {
                after.tunables = last.together.clone();
            }
            after.counters.time_wait_overflows = None;
            let more = advise(&after, &nobody(), None);
            prop_assert!(
                more.steps.iter().all(|step| step.changes.iter().all(|change| {
                    // Ports that were full are not any more.
                    change.sysctl == Sysctl::TcpTwReuse || change.sysctl == Sysctl::TcpTimestamps
                })),
                "{:?}",
                more.steps
            );
        }
    }
}
