//! One outbound flow: its ports, its pace, what is wrong with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::Capacity;
use super::capacity::rounded_rate;
use super::finding::{Cause, Finding, Ports};
use super::forecast::{self, Course, Exhaustion, History, Rate, Shortage, exhaustion, safe_rate};
use super::level::{Level, Thresholds};
use super::reuse::reuse;
use super::source::{SourceBound, orders_by_parity};
use crate::model::{
    Flow, FlowUse, Interface, LooseEnd, Owner, PortRange, PortSet, Reuse, Snapshot, StateCounts,
    TcpState, TimeWaitReuse,
};
use crate::words::percent;

/// connect() is called slow once at most this part of a flow's fast ports is free. The search goes
/// port by port at some 0.4 µs each (5.4 ms for 14,116, measured on Linux 6.18), so with one in 200
/// free it takes some 80 µs, four times what a connect() on loopback costs otherwise.
const FAST_PORTS_SPENT: u32 = 200;

/// Through fewer fast ports than these a search takes no longer than connect() itself.
const FAST_PORTS_WORTH_A_SEARCH: u32 = 100;

/// So many CLOSE_WAIT sockets, and most of a flow's, are a leak even while ports are plenty: an
/// application that closes has a handful.
pub(super) const LEAK_FROM: u64 = 100;

/// So many attempts at once that nobody answers, and most of a flow's live sockets, are a server
/// that is down: one answered in time takes a round trip.
pub(super) const PILE_FROM: u64 = 10;

/// So many ports in a row are no accident.
const OWN_RANGE_FROM: u32 = 50;

/// One outbound flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowReport {
    /// Local address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The server's port.
    pub destination_port: u16,
    /// Loopback by address, as the kernel judges it.
    pub loopback: bool,
    /// The interface its sockets are bound to; `None` where they are bound to none, or that is
    /// unknown.
    pub interface: Option<Interface>,
    /// Whether TIME_WAIT is reused.
    pub reuse: Reuse,
    /// The same as yes or no; `None` where it is open.
    pub reuse_applies: Option<bool>,
    /// Ports the flow takes, in any state.
    pub ports_in_use: u32,
    /// Ports it could have at most: the usable ones, or those of its source's pool; `None` when the
    /// range is unknown.
    #[serde(skip)]
    pub ports_usable: Option<u32>,
    /// Ports it can still have, where it is open whether TIME_WAIT is reused: without that; `None`
    /// when the range is unknown.
    pub ports_free: Option<u32>,
    /// Ports it can still have if TIME_WAIT is reused; `None` likewise, and where that is not open.
    pub ports_free_with_reuse: Option<u32>,
    /// Its sockets by state.
    pub by_state: StateCounts,
    /// The highest rate it can keep up, where it is open whether TIME_WAIT is reused: without that;
    /// `None` when unknown, or not bound by ports.
    #[serde(serialize_with = "rounded_rate")]
    pub max_connections_per_second: Option<f64>,
    /// The same if TIME_WAIT is reused; `None` likewise, and where that is not open.
    #[serde(serialize_with = "rounded_rate")]
    pub max_connections_per_second_with_reuse: Option<f64>,
    /// Connections closed in each of the last seconds, the latest first.
    pub closed_per_second: History,
    /// How fast that is.
    pub rate: Rate,
    /// Seconds until no port is free at the recent pace; `None` when that does not happen, or
    /// cannot be told because ports are reused.
    #[serde(serialize_with = "rounded_rate")]
    pub seconds_to_exhaustion: Option<f64>,
    /// The same at the earliest and at the latest that chance allows; the latter `None` where it
    /// need not happen at all.
    pub seconds_to_exhaustion_range: Option<(f64, Option<f64>)>,
    /// Since when TIME_WAIT has taken more of its ports than the warning threshold, and when they
    /// are back; `None` where it does not.
    pub shortage: Option<Shortage>,
    /// How bad it is.
    pub level: Level,
    /// Who holds its live sockets, most first; `None` when nobody looked.
    pub owners: Option<Vec<Owner>>,
}

impl FlowReport {
    /// The flow itself.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow {
            source: self.source,
            destination: self.destination,
            destination_port: self.destination_port,
            interface: self.interface,
        }
    }

    /// The server as `address:port`.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.flow().server()
    }
}

/// What all flows are judged by.
pub(super) struct Bench<'a> {
    pub snapshot: &'a Snapshot,
    pub capacity: Option<&'a Capacity>,
    pub thresholds: Thresholds,
    /// How much longer than the hold time a port is kept at worst.
    pub late: Duration,
    /// TIME_WAIT sockets are being dropped at `tcp_max_tw_buckets`.
    pub overflowing: bool,
    /// The only flow that closes connections just now, if there is but one.
    pub alone: Option<&'a Flow>,
    /// Ports that somebody bound.
    pub held: &'a PortSet,
    /// Sources whose ports are handed out by bind().
    pub bound_sources: &'a [SourceBound],
}

/// One flow before the bench.
pub(super) struct Case<'a> {
    bench: &'a Bench<'a>,
    flow: &'a Flow,
    used: &'a FlowUse,
    reuse: Reuse,
}

impl<'a> Bench<'a> {
    pub(super) fn case(&'a self, flow: &'a Flow, used: &'a FlowUse) -> Case<'a> {
        Case {
            bench: self,
            flow,
            used,
            reuse: reuse(self.snapshot, flow, used, self.alone),
        }
    }

    fn loose_end(&self) -> Option<LooseEnd> {
        self.capacity.and_then(|capacity| capacity.loose_end)
    }

    fn range(&self) -> Option<PortRange> {
        self.snapshot.tunables.ip_local_port_range
    }
}

impl Case<'_> {
    /// Ports of the flow that connect() cannot have; where it is open whether TIME_WAIT is reused,
    /// without that.
    pub(super) fn blocked(&self) -> u32 {
        let counted = self.counted();
        match (self.bench.capacity, self.was_given()) {
            (Some(capacity), Some(false)) => counted.max(capacity.usable_ports),
            // It may have come back since the table was read.
            (Some(capacity), Some(true)) if !self.was_lucky() => {
                counted.min(capacity.usable_ports.saturating_sub(1))
            }
            _ => counted,
        }
    }

    /// Whether the port that the kernel had may be the end of the range that is not to be counted on.
    fn was_lucky(&self) -> bool {
        let range = self.bench.loose_end().and(self.bench.range());
        range.is_some_and(LooseEnd::is_a_matter_of_luck)
    }

    /// The same as the table shows it.
    fn counted(&self) -> u32 {
        self.used
            .ports_blocked(self.reuse.works(), self.bench.loose_end())
    }

    /// Whether the kernel had a port when it was asked for one; `None` where it was not asked.
    fn was_given(&self) -> Option<bool> {
        self.bench.snapshot.trials.get(self.flow)?.has_port
    }

    /// Whether it had none.
    fn is_refused(&self) -> bool {
        self.was_given() == Some(false)
    }

    /// The same if TIME_WAIT is reused where that is open.
    fn blocked_at_best(&self) -> u32 {
        let works = self.reuse.works() || self.reuse.is_open();
        if self.is_refused() {
            return self.blocked();
        }
        self.used.ports_blocked(works, self.bench.loose_end())
    }

    /// How bad it is that so many ports are blocked.
    fn level_of(&self, blocked: u32, capacity: &Capacity) -> Level {
        let share = percent(blocked, capacity.usable_ports);
        if blocked == 0 || share < self.bench.thresholds.warn {
            Level::Ok
        } else if blocked >= capacity.usable_ports || share >= self.bench.thresholds.crit {
            Level::Critical
        } else {
            Level::Warning
        }
    }

    /// `level` where it is certain; where it hangs on TIME_WAIT reuse that is open, no more than a
    /// warning, or what holds either way.
    fn tempered(&self, level: Level, at_best: Level) -> Level {
        // What is hidden is most likely what the kernel begins with: off, or for loopback alone.
        let is_doubtful = match self.reuse {
            Reuse::Allowed => true,
            Reuse::Unknown => {
                let reuse = self.bench.snapshot.tunables.tcp_tw_reuse;
                self.flow.is_loopback() || reuse == Some(TimeWaitReuse::On)
            }
            Reuse::Off | Reuse::Refuted | Reuse::Seen => false,
        };
        if is_doubtful {
            at_best.max(level.min(Level::Warning))
        } else {
            level
        }
    }

    /// What is wrong with it: whether its ports are short, then the one cause, then what is to come.
    pub(super) fn findings(&self) -> Vec<(Level, Finding)> {
        let Some(capacity) = self.bench.capacity else {
            return Vec::new();
        };
        let is_pile = |(_, finding): &(Level, Finding)| matches!(finding, Finding::SynSentPile(_));
        let mut findings = Vec::new();
        // Where no port can be had at all, or bind() hands them out, that is said of all flows.
        let is_judged_alone = capacity.usable_ports > 0 && !self.is_of_pool();
        if is_judged_alone {
            findings.extend(self.shortage(capacity));
        }
        let is_short = !findings.is_empty();
        let exhausted = self.blocked() >= capacity.usable_ports;
        if !is_short && self.leaks() {
            findings.push((Level::Warning, Finding::CloseWaitLeak(self.ports(capacity))));
        } else if self.piles_up() && !findings.iter().any(is_pile) {
            findings.push((Level::Warning, Finding::SynSentPile(self.ports(capacity))));
        }
        if is_judged_alone && !exhausted {
            findings.extend(self.rate_above_limit(capacity));
            findings.extend(self.connect_slow(capacity));
            findings.extend(self.own_range());
        }
        findings
    }

    /// Whether few ports are left or none, and why.
    fn shortage(&self, capacity: &Capacity) -> Vec<(Level, Finding)> {
        let cause = Cause::of(&self.used.blocking(self.reuse.works()));
        let blocked = self.blocked();
        let level = self.tempered(
            self.level_of(blocked, capacity),
            self.level_of(self.blocked_at_best(), capacity),
        );
        let mut findings = Vec::new();
        if blocked > 0 && blocked >= capacity.usable_ports {
            let level = level.max(Level::Warning);
            findings.push((level, Finding::PortsExhausted(self.ports(capacity))));
        } else if level > Level::Ok && (cause != Cause::Churn || !self.is_dropped_first(capacity)) {
            // Under a bucket limit below the ports TIME_WAIT alone cannot take them all.
            findings.push((level, Finding::PortsLow(self.ports(capacity))));
        }
        let named = cause.finding(self.ports(capacity));
        if let (Some((level, _)), Some(named)) = (findings.first(), named) {
            findings.push((*level, named));
        }
        findings
    }

    /// Whether TIME_WAIT is dropped at `tcp_max_tw_buckets` before it takes all the ports that open
    /// connections leave.
    fn is_dropped_first(&self, capacity: &Capacity) -> bool {
        let open = self.used.by_state.without(TcpState::TimeWait).total();
        let left = u64::from(capacity.usable_ports).saturating_sub(open);
        let limit = self.bench.snapshot.tunables.tcp_max_tw_buckets;
        limit.is_some_and(|limit| limit < left)
    }

    /// The source whose pool its ports come from, where bind() hands them out.
    fn bound_source(&self) -> Option<&SourceBound> {
        let mut sources = self.bench.bound_sources.iter();
        sources.find(|source| source.flows.contains(self.flow))
    }

    /// Whether bind() has handed out what it counts as its ports. Where the kernel has told which
    /// ports that are, they do not count.
    fn is_of_pool(&self) -> bool {
        self.bound_source().is_some()
            && (self.used.passed_over == 0 || self.used.countable_in_use() == 0)
    }

    fn churns(&self) -> bool {
        Cause::of(&self.used.blocking(self.reuse.works())) == Cause::Churn
    }

    fn leaks(&self) -> bool {
        let waiting = self.used.by_state.get(TcpState::CloseWait);
        waiting >= LEAK_FROM && waiting * 2 > self.used.by_state.total()
    }

    fn piles_up(&self) -> bool {
        let states = &self.used.by_state;
        let (unanswered, live) = (
            states.get(TcpState::SynSent),
            states.without(TcpState::TimeWait),
        );
        // One that has been repeated has waited for a second: that is no busy moment.
        let repeated = u64::from(self.used.unanswered);
        (repeated >= PILE_FROM && repeated * 2 >= unanswered)
            || (unanswered >= PILE_FROM && unanswered * 2 > live.total())
    }

    /// A part of the range that is full while nothing beside it is taken. An ordinary connect()
    /// takes ports of one parity, and bind() scattered ones.
    fn own_range(&self) -> Option<(Level, Finding)> {
        let (range, part) = (self.bench.range()?, self.used.span()?);
        // Before Linux 4.2 connect() itself went through the ports one by one.
        let is_old = !orders_by_parity(&self.bench.snapshot.tunables);
        if is_old || part.len() < OWN_RANGE_FROM || part.len() * 2 > range.len() {
            return None;
        }
        let (reserved, held) = (&self.bench.snapshot.tally.rule().reserved, &self.bench.held);
        let in_use = self.used.countable_in_use();
        if in_use + reserved.len() + held.len() < part.len() {
            return None; // As nearly all flows: seen without a look at each port.
        }
        let can_be_had = |&port: &u16| !reserved.contains(port) && !held.contains(port);
        let there = part.ports().filter(can_be_had).count();
        (there == in_use as usize).then_some((
            Level::Ok,
            Finding::OwnRange {
                flow: *self.flow,
                span: (part.low, part.high),
            },
        ))
    }

    /// CRITICAL only where the careful end of the forecast runs out too.
    fn rate_above_limit(&self, capacity: &Capacity) -> Option<(Level, Finding)> {
        let when = self.exhaustion(capacity)?;
        let finding = Finding::RateAboveLimit {
            flow: *self.flow,
            when,
            safe: safe_rate(self.forecast_ports(capacity)),
        };
        let level = match when.latest {
            Some(_) => self.tempered(Level::Critical, Level::Ok),
            None => Level::Warning,
        };
        Some((level, finding))
    }

    /// When the flow runs out. Not told where ports are reused or TIME_WAIT is dropped: then it
    /// does not take the ports.
    fn exhaustion(&self, capacity: &Capacity) -> Option<Exhaustion> {
        if self.reuse.works() || self.is_dropped_first(capacity) || self.bound_source().is_some() {
            return None;
        }
        exhaustion(&self.history(), self.forecast_ports(capacity))
    }

    /// Since when TIME_WAIT has kept the ports short, and when they are back.
    fn shortage_of_time_wait(&self, capacity: &Capacity) -> Option<Shortage> {
        let cause = Cause::of(&self.used.blocking(self.reuse.works()));
        if self.reuse.works() || cause != Cause::Churn {
            return None;
        }
        let share = self.bench.thresholds.warn / 100.0;
        let threshold = f64::from(capacity.usable_ports) * share;
        Shortage::of(&self.history(), self.forecast_ports(capacity), threshold)
    }

    fn forecast_ports(&self, capacity: &Capacity) -> forecast::Supply<'_> {
        forecast::Supply {
            usable: capacity.usable_ports,
            free: capacity.usable_ports.saturating_sub(self.blocked()),
            time_wait_left: &self.used.time_wait_left,
            overdue: self.used.overdue,
            hold_time: self.bench.snapshot.hold_time,
            late: self.bench.late,
        }
    }

    fn connect_slow(&self, capacity: &Capacity) -> Option<(Level, Finding)> {
        let blocked = self
            .used
            .fast_blocked(self.reuse.works(), self.bench.loose_end());
        let free = capacity.fast_ports.saturating_sub(blocked);
        let is_search_long = capacity.fast_ports >= FAST_PORTS_WORTH_A_SEARCH;
        (is_search_long && free * FAST_PORTS_SPENT <= capacity.fast_ports).then(|| {
            let finding = Finding::ConnectSlow {
                flow: *self.flow,
                blocked,
                fast: capacity.fast_ports,
                fast_rate: self
                    .churns()
                    .then(|| capacity.fast_rate(self.reuse.works()))
                    .flatten(),
            };
            (Level::Warning, finding)
        })
    }

    fn ports(&self, capacity: &Capacity) -> Ports {
        Ports {
            flow: *self.flow,
            blocked: self.blocked(),
            counted: self.counted(),
            usable: capacity.usable_ports,
            by_state: self.used.blocking(self.reuse.works()),
            reuse: self.reuse,
            max_rate: capacity.max_rate(self.reuse.works()),
            max_rate_with_reuse: capacity.max_rate(true),
        }
    }

    fn history(&self) -> History {
        History::new(&self.used.time_wait_left, self.bench.snapshot.hold_time)
    }

    /// The flow in numbers; `level` is the worst of its findings.
    pub(super) fn report(&self, level: Level) -> FlowReport {
        let history = self.history();
        let capacity = self.bench.capacity;
        let when = capacity.and_then(|all| self.exhaustion(all));
        let pace = when.map_or_else(|| Course::of(&history).pace(), |when| when.pace);
        let free = |blocked| {
            let of_source = self.bound_source();
            // A client that names no address when it bind()s has no port that any address has.
            let taken = || self.bench.snapshot.tally.ports().len();
            let left = of_source.map(|source| source.usable.saturating_sub(taken()));
            left.or_else(|| capacity.map(|all| all.usable_ports.saturating_sub(blocked)))
        };
        let open = self.reuse.is_open();
        FlowReport {
            source: self.flow.source,
            destination: self.flow.destination,
            destination_port: self.flow.destination_port,
            loopback: self.flow.is_loopback(),
            interface: self.flow.interface,
            reuse: self.reuse,
            reuse_applies: self.reuse.applies(),
            ports_in_use: self.used.ports_in_use(),
            ports_usable: self
                .bound_source()
                .map(|source| source.usable)
                .or_else(|| capacity.map(|all| all.usable_ports)),
            ports_free: free(self.blocked()),
            ports_free_with_reuse: free(self.blocked_at_best()).filter(|_| open),
            by_state: self.used.by_state.clone(),
            max_connections_per_second: capacity.and_then(|all| all.max_rate(self.reuse.works())),
            max_connections_per_second_with_reuse: capacity
                .filter(|_| open)
                .and_then(|all| all.max_rate(true)),
            rate: history.rate(
                pace.now,
                self.reuse.works() || open || self.bench.overflowing,
            ),
            closed_per_second: history,
            seconds_to_exhaustion: when.map(|when| when.likely),
            seconds_to_exhaustion_range: when.map(|when| when.range()),
            shortage: capacity.and_then(|all| self.shortage_of_time_wait(all)),
            level,
            owners: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::{each, look, plain, socket};
    use crate::judge::forecast::lateness;
    use crate::model::{Socket, Tunables};
    use Level::{Critical, Ok as Fine, Warning};
    use TcpState::{CloseWait, Established, SynSent, TimeWait};

    const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 3306);

    /// What is wrong with the one flow of these sockets, and its report.
    fn judged(
        tunables: Tunables,
        sockets: impl IntoIterator<Item = Socket>,
    ) -> (Vec<(&'static str, Level)>, FlowReport) {
        let snapshot = look(tunables, [], sockets);
        let (held, capacity) = (snapshot.held(), Capacity::of(&snapshot));
        let bench = Bench {
            snapshot: &snapshot,
            capacity: capacity.as_ref(),
            thresholds: Thresholds {
                warn: 50.0,
                crit: 80.0,
            },
            late: lateness(snapshot.hold_time, snapshot.tick),
            overflowing: false,
            alone: None,
            held: &held,
            bound_sources: &[],
        };
        let mut flows = snapshot.tally.flows.iter();
        let (flow, used) = flows.next().expect("there is a flow");
        assert!(flows.next().is_none(), "there is one");
        let case = bench.case(flow, used);
        let findings = case.findings();
        let worst = findings.iter().map(|(level, _)| *level).max();
        let codes = findings.iter().map(|(level, it)| (it.code(), *level));
        (codes.collect(), case.report(worst.unwrap_or(Fine)))
    }

    /// The ports as connect() takes them: those of the low end's parity first.
    fn searched() -> impl Iterator<Item = u16> {
        let even = (40000..41000).step_by(2);
        even.chain((40001..41000).step_by(2))
    }

    fn found(sockets: &[(TcpState, u16)]) -> Vec<(&'static str, Level)> {
        let row = |(port, state)| socket(state, port, SERVER);
        judged(plain(), searched().zip(each(sockets)).map(row)).0
    }

    #[test]
    fn a_share_of_the_ports_counts_from_its_threshold_on_and_says_what_takes_them() {
        for (open, findings) in [
            (499, &[("CONNECT_SLOW", Warning)][..]),
            (
                500,
                &[
                    ("PORTS_LOW", Warning),
                    ("HELD_OPEN", Warning),
                    ("CONNECT_SLOW", Warning),
                ],
            ),
            (
                800,
                &[
                    ("PORTS_LOW", Critical),
                    ("HELD_OPEN", Critical),
                    ("CONNECT_SLOW", Warning),
                ],
            ),
            // Where there is none, connect() searches and fails: that is said by the first.
            (
                1000,
                &[("PORTS_EXHAUSTED", Critical), ("HELD_OPEN", Critical)],
            ),
        ] {
            assert_eq!(found(&[(Established, open)]), findings, "{open}");
        }
        assert_eq!(found(&[(Established, 400)]), []);
    }

    #[test]
    fn what_an_application_leaves_open_is_a_leak_where_it_is_most_of_a_flow() {
        for (waiting, open, is_leak) in [
            (99, 0, false),
            (100, 0, true),
            (100, 99, true),
            (100, 100, false),
        ] {
            let findings = found(&[(CloseWait, waiting), (Established, open)]);
            let leak = [("CLOSE_WAIT_LEAK", Warning)];
            assert_eq!(findings, &leak[..usize::from(is_leak)], "{waiting}, {open}");
        }
    }

    #[test]
    fn attempts_are_unanswered_where_they_are_most_or_were_made_again() {
        let tried = |attempts: u16, again: u16, open: u16| {
            let sockets = [(SynSent, attempts), (Established, open)];
            let states = (0..).zip(each(&sockets));
            let rows = searched().zip(states).map(|(port, (index, state))| Socket {
                retransmits: u8::from(index < again),
                ..socket(state, port, SERVER)
            });
            judged(plain(), rows).0
        };
        let pile = [("SYN_SENT_PILE", Warning)];
        assert_eq!(tried(9, 9, 0), [], "as few as that are anybody's");
        assert_eq!(tried(10, 0, 9), pile);
        assert_eq!(tried(10, 0, 90), [], "a busy moment");
        assert_eq!(tried(10, 10, 90), pile, "nobody answers for a second");
        assert_eq!(tried(20, 9, 90), []);
    }

    #[test]
    fn a_part_of_the_range_that_is_full_and_alone_is_a_range_of_the_clients_own() {
        let taken = |ports: std::ops::Range<u16>, hole: u16| {
            let ports = ports.filter(move |&port| port != hole);
            ports.map(|port| socket(Established, port, SERVER))
        };
        let own = [("OWN_PORT_RANGE", Fine)];
        assert_eq!(judged(plain(), taken(40100..40200, 0)).0, own);
        assert_eq!(judged(plain(), taken(40100..40200, 40150)).0, []);
        assert_eq!(judged(plain(), taken(40100..40149, 0)).0, [], "49 in a row");
        let reserved = Tunables {
            ip_local_reserved_ports: PortSet::parse("40150"),
            ..plain()
        };
        assert_eq!(judged(reserved, taken(40100..40200, 40150)).0, own);
        // A kernel with tcp_tw_recycle goes through the ports one by one itself.
        let old = Tunables {
            tcp_tw_recycle: Some(0),
            ..plain()
        };
        assert_eq!(judged(old, taken(40100..40200, 0)).0, []);
    }

    #[test]
    fn doubt_about_reuse_is_a_warning_and_both_numbers_are_said() {
        let waiting = |reuse| {
            let tunables = Tunables {
                tcp_tw_reuse: reuse,
                ..plain()
            };
            // The newest is a second old, the oldest eleven.
            let rows = searched()
                .take(900)
                .enumerate()
                .map(|(index, port)| Socket {
                    time_wait_left: Some(Duration::from_millis(59_000 - 11 * index as u64)),
                    ..socket(TimeWait, port, SERVER)
                });
            let (findings, report) = judged(tunables, rows);
            let free = (report.ports_free, report.ports_free_with_reuse);
            (findings[0], free)
        };
        let low = |level| ("PORTS_LOW", level);
        assert_eq!(
            waiting(Some(TimeWaitReuse::Off)),
            (low(Critical), (Some(100), None))
        );
        let (finding, (without, with)) = waiting(Some(TimeWaitReuse::On));
        assert_eq!((finding, without), (low(Warning), Some(100)));
        assert!(with > without, "{with:?}");
    }

    #[test]
    fn a_report_adds_up() {
        let rows = (40000..40010).map(|port| socket(Established, port, SERVER));
        let (findings, report) = judged(plain(), rows);
        assert_eq!((findings, report.level), (Vec::new(), Fine));
        assert_eq!((report.ports_in_use, report.ports_free), (10, Some(990)));
        // 1,000 ports for 60 s each.
        let limit = report.max_connections_per_second.unwrap();
        assert!((limit - 1000.0 / 60.0).abs() < 1e-9, "{limit}");
        assert_eq!(report.server(), SERVER.into());
        assert_eq!(report.owners, None, "nobody looked");
    }
}
