use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::failure::{Failure, FailureKind};
use super::latency::Latency;
use super::run::{End, Moment, Outcome};
use super::target::Target;
use crate::judge::Capacity;
use crate::model::{Snapshot, TcpState};
use crate::words;

/// The ports toward one server, as one look at the table tells them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PortsToward {
    /// Ports one flow can take; `None` when the range is unknown.
    pub usable: Option<u32>,
    /// Ports the flow takes.
    pub in_use: u32,
    /// Of these, the ones that connect() cannot have.
    pub blocked: u32,
    /// Whether TIME_WAIT reuse applies to it.
    pub reuse_applies: bool,
    /// The highest rate it can keep up; `None` when unknown or not bound by ports.
    pub max_rate: Option<f64>,
    /// TIME_WAIT on either side.
    pub time_wait: TimeWaitSides,
    /// Whether some connection is still on its way into TIME_WAIT.
    pub closing: bool,
    /// When the first and the last port in TIME_WAIT can be had again; `None` without any.
    pub returns: Option<(Duration, Duration)>,
}

/// Who keeps TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimeWaitSides {
    /// Here, toward the server: each holds a port; `None` when the table could not be read.
    pub client_side: Option<u64>,
    /// At the server; `None` when it runs on another machine.
    pub server_side: Option<u64>,
}

impl PortsToward {
    /// What `snapshot` says about the flow toward `server` that takes most ports.
    #[must_use]
    pub fn new(snapshot: &Snapshot, server: SocketAddr) -> Self {
        let flow = snapshot.tally.toward(server);
        let loopback = flow
            .as_ref()
            .map_or(server.ip().is_loopback(), |(flow, _)| flow.is_loopback());
        let reuse_applies = snapshot.tunables.reuse_applies(loopback).unwrap_or(false);
        let capacity = Capacity::new(&snapshot.tunables, &snapshot.held(), snapshot.hold_time());
        let used = flow.map(|(_, used)| used);
        let same_machine = flow.is_some_and(|(flow, _)| flow.source == flow.destination);
        Self {
            usable: capacity.map(|capacity| capacity.usable_ports),
            in_use: used.map_or(0, |used| used.ports_in_use),
            blocked: used.map_or(0, |used| used.ports_blocked(reuse_applies)),
            reuse_applies,
            max_rate: capacity.and_then(|capacity| capacity.max_rate(reuse_applies)),
            time_wait: TimeWaitSides {
                client_side: Some(used.map_or(0, |used| used.by_state.get(TcpState::TimeWait))),
                server_side: (same_machine || loopback).then(|| {
                    let by_port = &snapshot.tally.inbound_time_wait;
                    by_port.get(&server.port()).copied().unwrap_or(0)
                }),
            },
            closing: used.is_some_and(|used| {
                let states = [TcpState::FinWait1, TcpState::FinWait2, TcpState::Closing];
                states.iter().any(|&state| used.by_state.get(state) > 0)
            }),
            returns: used.and_then(|used| used.returns).map(|(first, last)| {
                // Where it is reused a port need not wait for the end of its TIME_WAIT.
                let early = if reuse_applies {
                    snapshot
                        .hold_time()
                        .saturating_sub(snapshot.tunables.reuse_delay())
                } else {
                    Duration::ZERO
                };
                (first.saturating_sub(early), last.saturating_sub(early))
            }),
        }
    }

    /// Whether most ports are taken, which is what errno 99 then means; `None` when unknown. Not
    /// all: between the error and the look some may have come back.
    #[must_use]
    pub fn are_full(&self) -> Option<bool> {
        self.usable
            .map(|usable| self.in_use.saturating_mul(2) >= usable)
    }
}

/// Everything `repro` says, in the order of the JSON contract.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this structure.
    pub schema: u32,
    /// The server.
    pub target: TargetReport,
    /// Connections opened, logged in and closed.
    pub connections: u64,
    /// How long that took.
    pub seconds: f64,
    /// Connections per second.
    pub rate: f64,
    /// What ended the run.
    pub stopped_by: StoppedBy,
    /// Why a connection failed; `None` when none did.
    pub error: Option<Failure>,
    /// How long opening a connection took: connect() and login.
    pub connect_latency_us: LatencyEnds,
    /// TIME_WAIT left behind.
    pub time_wait: TimeWaitSides,
    /// Ports that the capacity model said were free toward the server; `None` when unknown.
    pub predicted_ports: Option<u32>,
    /// Whether a port in TIME_WAIT can be reused toward the server.
    pub reuse_applies: bool,
    /// Seconds until the first and until the last port in TIME_WAIT comes back; `None` without any.
    pub ports_return_seconds: Option<[f64; 2]>,
    /// The server's side.
    pub server: ServerReport,
    /// About one a second.
    pub timeline: Vec<Moment>,
}

/// The server of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetReport {
    /// What the user called it.
    pub host: String,
    /// Where connections went.
    pub address: SocketAddr,
    /// Whether it was the embedded one, in a namespace of its own.
    pub embedded: bool,
}

impl TargetReport {
    /// The server as the report names it.
    #[must_use]
    pub fn new(target: &Target, embedded: bool) -> Self {
        Self {
            host: target.name().to_owned(),
            address: target.address(),
            embedded,
        }
    }
}

/// `db.example at 10.0.0.5:3306`; the address alone where it has no other name.
impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host == self.address.ip().to_string() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{} at {}", self.host, self.address)
        }
    }
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// No port was left.
    Exhausted,
    /// The time was up.
    Duration,
    /// All the connections asked for were made.
    Count,
    /// Another error.
    Error,
    /// The user.
    Interrupted,
}

impl StoppedBy {
    /// The word the JSON has for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Duration => "duration",
            Self::Count => "count",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Latency at both ends of a run; `None` where it made no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LatencyEnds {
    /// The first 1,000 connections.
    pub first_1000: Option<Latency>,
    /// The last 1,000.
    pub last_1000: Option<Latency>,
}

/// What was seen of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// The most threads seen connected; `None` when it could not be watched.
    pub threads_connected_max: Option<u64>,
    /// Why it could not be watched.
    pub not_watched_because: Option<String>,
}

impl ServerReport {
    /// From what watching said.
    #[must_use]
    pub fn new(watched: Result<u64, String>) -> Self {
        match watched {
            Ok(most) => Self {
                threads_connected_max: Some(most),
                not_watched_because: None,
            },
            Err(why) => Self {
                threads_connected_max: None,
                not_watched_because: Some(why),
            },
        }
    }
}

impl Report {
    /// The report of a run against `target`: `before` and `after` are the ports toward it.
    #[must_use]
    pub fn new(
        target: &Target,
        embedded: bool,
        outcome: Outcome,
        before: &PortsToward,
        after: Option<&PortsToward>,
        server: ServerReport,
    ) -> Self {
        // Where the ports are unknown, one that could connect before has run out of something.
        let full = || {
            let told = after.and_then(PortsToward::are_full);
            told.unwrap_or(outcome.connections > 0)
        };
        let error = match &outcome.end {
            End::Failed(error) => Some(Failure::new(error, target.name(), full)),
            _ => None,
        };
        let stopped_by = match (&outcome.end, &error) {
            (End::Count, _) => StoppedBy::Count,
            (End::Duration, _) => StoppedBy::Duration,
            (End::Interrupted, _) => StoppedBy::Interrupted,
            (End::Failed(_), Some(failure)) if failure.is_exhaustion() => StoppedBy::Exhausted,
            (End::Failed(_), _) => StoppedBy::Error,
        };
        let seconds = outcome.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss)] // Connections of one run, far below 2^53.
        let rate = outcome.connections as f64 / seconds.max(f64::EPSILON);
        Self {
            schema: 1,
            target: TargetReport::new(target, embedded),
            connections: outcome.connections,
            seconds: (seconds * 1000.0).round() / 1000.0,
            rate: words::rounded(rate),
            stopped_by,
            error,
            connect_latency_us: LatencyEnds {
                first_1000: outcome.first,
                last_1000: outcome.last,
            },
            time_wait: TimeWaitSides {
                client_side: after.and_then(|after| after.time_wait.client_side),
                server_side: after
                    .and_then(|after| after.time_wait.server_side)
                    .or(embedded.then_some(0)),
            },
            predicted_ports: before
                .usable
                .map(|usable| usable.saturating_sub(before.blocked)),
            reuse_applies: before.reuse_applies,
            ports_return_seconds: after
                .and_then(|after| after.returns)
                .map(|(first, last)| [first, last].map(|time| words::rounded(time.as_secs_f64()))),
            server,
            timeline: outcome.timeline,
        }
    }
}

impl Report {
    /// Whether the run shows that the database had nothing to do with its end.
    #[must_use]
    pub fn database_was_idle(&self) -> bool {
        self.stopped_by == StoppedBy::Exhausted && self.server.threads_connected_max.is_some()
    }
}

impl Failure {
    fn is_exhaustion(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::EphemeralPortsExhausted | FailureKind::SourcePortsExhausted
        )
    }
}
