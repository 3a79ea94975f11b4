//! One outbound flow: its ports, its pace, what is wrong with it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::Capacity;
use super::capacity::rounded_rate;
use super::finding::{Cause, Finding, Ports};
use super::forecast::{self, Course, Exhaustion, History, Rate, exhaustion, safe_rate};
use super::verdict::{Level, Thresholds};
use crate::model::{Flow, FlowUse, Owner, StateCounts, TcpState, Tunables};
use crate::words::percent;

/// connect() is called slow once at most this part of a flow's fast ports is free. The search goes
/// port by port at some 0.4 µs each (5.4 ms for 14,116, measured on Linux 6.18), so with one in 200
/// free it takes some 80 µs, four times what a connect() on loopback costs otherwise.
const FAST_PORTS_SPENT: u32 = 200;

/// So many CLOSE_WAIT sockets, and most of a flow's, are a leak even while ports are plenty: an
/// application that closes has a handful.
const LEAK_FROM: u64 = 100;

/// So many attempts at once that nobody answers, and most of a flow's live sockets, are a server
/// that is down: one answered in time takes a round trip.
const PILE_FROM: u64 = 10;

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
    /// Whether TIME_WAIT reuse applies; `None` when unknown.
    pub reuse_applies: Option<bool>,
    /// Ports the flow takes, in any state.
    pub ports_in_use: u32,
    /// Ports it can still have; `None` when the range is unknown.
    pub ports_free: Option<u32>,
    /// Its sockets by state.
    pub by_state: StateCounts,
    /// The highest rate it can keep up; `None` when unknown, or not bound by ports.
    #[serde(serialize_with = "rounded_rate")]
    pub max_connections_per_second: Option<f64>,
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
    pub tunables: &'a Tunables,
    pub capacity: Option<&'a Capacity>,
    pub thresholds: Thresholds,
    /// How long TIME_WAIT lasts, and how much longer at worst.
    pub hold_time: Duration,
    pub late: Duration,
    /// TIME_WAIT sockets are being dropped at `tcp_max_tw_buckets`.
    pub overflowing: bool,
}

/// One flow before the bench.
pub(super) struct Case<'a> {
    bench: &'a Bench<'a>,
    flow: &'a Flow,
    used: &'a FlowUse,
    reuse: bool,
}

impl<'a> Bench<'a> {
    pub(super) fn case(&'a self, flow: &'a Flow, used: &'a FlowUse) -> Case<'a> {
        Case {
            bench: self,
            flow,
            used,
            reuse: self.tunables.reuse_applies_to(flow),
        }
    }
}

impl Case<'_> {
    /// Ports of the flow that connect() cannot have.
    pub(super) fn blocked(&self) -> u32 {
        self.used.ports_blocked(self.reuse)
    }

    /// What is wrong with it: whether its ports are short, then the one cause, then what is to come.
    pub(super) fn findings(&self) -> Vec<(Level, Finding)> {
        let Some(capacity) = self.bench.capacity else {
            return Vec::new();
        };
        let cause = Cause::of(&self.used.blocking(self.reuse));
        let blocked = self.blocked();
        let exhausted = blocked > 0 && blocked >= capacity.usable_ports;
        let share = percent(blocked, capacity.usable_ports);
        // Under a bucket limit below the ports TIME_WAIT alone cannot take them all.
        let can_fill = cause != Cause::Churn || !capacity.buckets_bound();
        let low = share >= self.bench.thresholds.warn && blocked > 0 && can_fill;
        let level = if exhausted || share >= self.bench.thresholds.crit {
            Level::Critical
        } else {
            Level::Warning
        };

        let mut findings = Vec::new();
        if exhausted {
            findings.push((level, Finding::PortsExhausted(self.ports(capacity))));
        } else if low {
            findings.push((level, Finding::PortsLow(self.ports(capacity))));
        }
        if exhausted || low {
            findings.extend(
                cause
                    .finding(self.ports(capacity))
                    .map(|found| (level, found)),
            );
        } else if self.leaks() {
            findings.push((Level::Warning, Finding::CloseWaitLeak(self.ports(capacity))));
        } else if self.piles_up() {
            findings.push((Level::Warning, Finding::SynSentPile(self.ports(capacity))));
        }
        if !exhausted {
            findings.extend(self.rate_above_limit(capacity));
            if cause == Cause::Churn {
                findings.extend(self.connect_slow(capacity));
            }
        }
        findings
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
        unanswered >= PILE_FROM && unanswered * 2 > live.total()
    }

    /// CRITICAL only where the careful end of the forecast runs out too.
    fn rate_above_limit(&self, capacity: &Capacity) -> Option<(Level, Finding)> {
        let course = self.course();
        let when = self.exhaustion(&course, capacity)?;
        let finding = Finding::RateAboveLimit {
            flow: *self.flow,
            pace: course.pace(),
            when,
            safe: safe_rate(self.forecast_ports(capacity)),
        };
        let level = if when.latest.is_some() {
            Level::Critical
        } else {
            Level::Warning
        };
        Some((level, finding))
    }

    fn course(&self) -> Course {
        Course::of(&self.history())
    }

    /// When the flow runs out. Not told where ports are reused or TIME_WAIT is dropped: then it
    /// does not take the ports.
    fn exhaustion(&self, course: &Course, capacity: &Capacity) -> Option<Exhaustion> {
        if self.reuse || capacity.buckets_bound() {
            return None;
        }
        exhaustion(course, self.forecast_ports(capacity))
    }

    fn forecast_ports(&self, capacity: &Capacity) -> forecast::Ports<'_> {
        forecast::Ports {
            usable: capacity.usable_ports,
            free: capacity.usable_ports.saturating_sub(self.blocked()),
            time_wait_left: &self.used.time_wait_left,
            overdue: self.used.overdue,
            hold_time: self.bench.hold_time,
            late: self.bench.late,
        }
    }

    fn connect_slow(&self, capacity: &Capacity) -> Option<(Level, Finding)> {
        let blocked = self.used.fast_blocked(self.reuse);
        let free = capacity.fast_ports.saturating_sub(blocked);
        (blocked > 0 && free * FAST_PORTS_SPENT <= capacity.fast_ports).then(|| {
            let finding = Finding::ConnectSlow {
                flow: *self.flow,
                blocked,
                fast: capacity.fast_ports,
                fast_rate: capacity.fast_rate(self.reuse),
            };
            (Level::Warning, finding)
        })
    }

    fn ports(&self, capacity: &Capacity) -> Ports {
        Ports {
            flow: *self.flow,
            blocked: self.blocked(),
            usable: capacity.usable_ports,
            by_state: self.used.blocking(self.reuse),
            reuse: self.reuse,
            max_rate: capacity.max_rate(self.reuse),
            max_rate_with_reuse: capacity.max_rate(true),
        }
    }

    fn history(&self) -> History {
        History::new(&self.used.time_wait_left, self.bench.hold_time)
    }

    /// The flow in numbers; `level` is the worst of its findings.
    pub(super) fn report(&self, level: Level) -> FlowReport {
        let history = self.history();
        let course = Course::of(&history);
        let capacity = self.bench.capacity;
        let when = capacity.and_then(|all| self.exhaustion(&course, all));
        let reuse_applies = self.bench.tunables.reuse_applies(self.flow.is_loopback());
        FlowReport {
            source: self.flow.source,
            destination: self.flow.destination,
            destination_port: self.flow.destination_port,
            loopback: self.flow.is_loopback(),
            reuse_applies,
            ports_in_use: self.used.ports_in_use,
            ports_free: capacity.map(|all| all.usable_ports.saturating_sub(self.blocked())),
            by_state: self.used.by_state.clone(),
            max_connections_per_second: capacity
                .zip(reuse_applies)
                .and_then(|(all, reuse)| all.max_rate(reuse)),
            rate: history.rate(course.pace().now, self.reuse || self.bench.overflowing),
            closed_per_second: history,
            seconds_to_exhaustion: when.map(|when| when.likely),
            seconds_to_exhaustion_range: when.map(|when| (when.earliest, when.latest)),
            level,
            owners: None,
        }
    }
}
