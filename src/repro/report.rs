use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::failure::{Failure, Flow};
use super::latency::Latency;
use super::protocol::Protocol;
use super::run::{Cliff, End, Moment, Outcome};
use super::stop::Signal;
use super::target::Target;
use super::watch::{ServerStatus, Watched};
use crate::judge::Capacity;
use crate::judge::reuse::{alone, reuse};
use crate::model::{Flow as ModelFlow, FlowUse, Reuse, Snapshot, TcpState};
use crate::words;

/// The ports toward one server, as one look at the table tells them: of all the source addresses
/// that a run takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PortsToward {
    /// Ports that can be taken; `None` when the range is unknown.
    pub usable: Option<u32>,
    /// Ports that connect() can have, from addresses that take turns: as many from each as from the
    /// fullest; `None` likewise.
    pub free: Option<u32>,
    /// Whether most ports of some address are taken; `None` likewise. Not all: between an error and
    /// the look some may have come back.
    pub full: Option<bool>,
    /// Of the usable ports those found without a search that are free; `None` likewise.
    pub fast_free: Option<u32>,
    /// Ports taken.
    pub in_use: u32,
    /// Whether TIME_WAIT is reused on it.
    pub reuse: Reuse,
    /// `TWRecycled` of this look; `None` when unknown.
    pub recycled: Option<u64>,
    /// `TCPAbortOnData` of this look; `None` when unknown.
    pub reset: Option<u64>,
    /// Whether TIME_WAIT is dropped at `tcp_max_tw_buckets` before the ports are taken.
    pub buckets_bound: bool,
    /// The highest rate it can keep up; where it is open whether TIME_WAIT is reused, if it is.
    /// `None` when unknown or not bound by ports.
    pub max_rate: Option<f64>,
    /// The age from which TIME_WAIT can be reused.
    pub reuse_delay: Duration,
    /// Of the ports taken, the ones in TIME_WAIT.
    pub time_wait: u64,
    /// TIME_WAIT of the server's side; `None` when it runs on another machine.
    pub server_side: Option<u64>,
    /// How long TIME_WAIT lasts.
    pub hold_time: Duration,
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
    /// Likewise, before the run.
    pub client_side_before: Option<u64>,
    /// At the server; `None` when it runs on another machine.
    pub server_side: Option<u64>,
}

/// Between whom a run connects.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The source addresses, also the one that the kernel chooses; empty where that is unknown.
    pub sources: &'a [IpAddr],
    /// The server.
    pub server: SocketAddr,
    /// Whether it runs on this machine.
    pub is_here: bool,
}

impl PortsToward {
    /// What `snapshot` says about the flows on this `way`, or where its source is unknown, about the
    /// flow that takes most ports.
    #[must_use]
    pub fn new(snapshot: &Snapshot, way: Way<'_>) -> Self {
        let Way {
            sources, server, ..
        } = way;
        let mut flows: Vec<_> = snapshot.tally.toward(server).collect();
        if sources.is_empty() {
            flows.sort_by_key(|(_, used)| std::cmp::Reverse(used.ports_in_use));
            flows.truncate(1);
        } else {
            flows.retain(|(flow, _)| sources.contains(&flow.source));
        }
        // The loop's own sockets are bound to no interface, but for what the address itself says.
        let is_scoped = flows.iter().all(|(flow, _)| flow.interface.is_some());
        flows.retain(|(flow, _)| is_scoped || flow.interface.is_none());
        let addresses = u32::try_from(sources.len()).unwrap_or(u32::MAX).max(1);
        let reuse = reuse_toward(snapshot, way, &flows);
        let reuse_works = reuse.works();
        let capacity = Capacity::of(snapshot);
        let loose = capacity.and_then(|capacity| capacity.loose_end);
        let sum = |part: &dyn Fn(&FlowUse) -> u32| flows.iter().map(|(_, used)| part(used)).sum();
        let fast_blocked: u32 = sum(&|used| used.fast_blocked(reuse_works, loose));
        let fullest = flows
            .iter()
            .map(|(_, used)| used.ports_blocked(reuse_works, loose))
            .max();
        let most_used = flows.iter().map(|(_, used)| used.ports_in_use).max();
        let in_state = |used: &FlowUse, state| used.by_state.get(state);
        let returns = flows
            .iter()
            .filter_map(|(_, used)| used.returns)
            .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        Self {
            usable: capacity.map(|capacity| capacity.usable_ports * addresses),
            free: capacity.map(|capacity| {
                addresses * capacity.usable_ports.saturating_sub(fullest.unwrap_or(0))
            }),
            full: capacity.map(|capacity| most_used.unwrap_or(0) * 2 >= capacity.usable_ports),
            fast_free: capacity
                .map(|capacity| (capacity.fast_ports * addresses).saturating_sub(fast_blocked)),
            in_use: sum(&|used| used.ports_in_use),
            reuse,
            recycled: snapshot.counters.time_wait_recycled,
            reset: snapshot.counters.aborted_on_data,
            reuse_delay: snapshot.tunables.reuse_delay(),
            buckets_bound: capacity.is_some_and(|capacity| capacity.buckets_bound()),
            max_rate: capacity
                .and_then(|capacity| capacity.max_rate(reuse_works || reuse.is_open()))
                .map(|rate| rate * f64::from(addresses)),
            time_wait: flows
                .iter()
                .map(|(_, used)| in_state(used, TcpState::TimeWait))
                .sum(),
            server_side: way.is_here.then(|| {
                let by_port = &snapshot.tally.inbound_time_wait;
                by_port.get(&server.port()).copied().unwrap_or(0)
            }),
            hold_time: snapshot.hold_time,
            closing: flows.iter().any(|(_, used)| {
                let states = [TcpState::FinWait1, TcpState::FinWait2, TcpState::Closing];
                states.iter().any(|&state| in_state(used, state) > 0)
            }),
            returns: returns.map(|(first, last)| {
                // Where it is reused a port need not wait for the end of its TIME_WAIT.
                let early = if reuse_works {
                    snapshot
                        .hold_time
                        .saturating_sub(snapshot.tunables.reuse_delay())
                } else {
                    Duration::ZERO
                };
                (first.saturating_sub(early), last.saturating_sub(early))
            }),
        }
    }

    /// Connections until the fast ports are spent; `None` when unknown, or where they come back
    /// meanwhile.
    #[must_use]
    pub fn until_cliff(&self) -> Option<u64> {
        let free = self.fast_free.filter(|&free| free > 0);
        free.filter(|_| !self.reuse.works() && !self.buckets_bound)
            .map(u64::from)
    }
}

/// Whether TIME_WAIT is reused on the `way`, by its `flows` where there are any yet.
fn reuse_toward(snapshot: &Snapshot, way: Way<'_>, flows: &[(ModelFlow, &FlowUse)]) -> Reuse {
    let alone = alone(snapshot);
    let known = flows
        .iter()
        .map(|(flow, used)| reuse(snapshot, flow, used, alone))
        .min();
    known.unwrap_or_else(|| {
        let nothing = FlowUse::default();
        let to_come = ModelFlow {
            source: way.sources.first().copied().unwrap_or(way.server.ip()),
            destination: way.server.ip(),
            destination_port: way.server.port(),
            interface: None,
        };
        match reuse(snapshot, &to_come, &nothing, None) {
            // Without a source nothing tells that both ends are here.
            Reuse::Seen if way.sources.is_empty() && !way.is_here => Reuse::Allowed,
            known => known,
        }
    })
}

/// Everything `repro` says, in the order of the JSON contract.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this structure.
    pub schema: u32,
    /// The server.
    pub target: TargetReport,
    /// What the loop did.
    pub client: ClientReport,
    /// Connections opened and closed; those that stayed open, of a pool.
    pub connections: u64,
    /// How often the pool lent one of them; `None` without a pool.
    pub checkouts: Option<u64>,
    /// How long that took.
    pub seconds: f64,
    /// Connections per second, or checkouts.
    pub rate: f64,
    /// What ended the run.
    pub stopped_by: StoppedBy,
    /// Why a connection failed; `None` when none did.
    pub error: Option<Failure>,
    /// How long connect() took, or a checkout.
    pub connect_latency_us: LatencyReport,
    /// How long greeting and login took after it; `None` where there was none.
    pub login_latency_us: Option<Latency>,
    /// For how long a login had been going on when the time was up, where that was long; `None`
    /// elsewhere.
    pub unfinished_seconds: Option<f64>,
    /// When the fast ports were spent; `None` when they never were.
    pub cliff: Option<Cliff>,
    /// TIME_WAIT left behind.
    pub time_wait: TimeWaitSides,
    /// Ports that there are toward the server; `None` when unknown.
    pub usable_ports: Option<u32>,
    /// Of these, the ones that the capacity model said were free; `None` likewise.
    pub predicted_ports: Option<u32>,
    /// Whether a port in TIME_WAIT is reused toward the server, as far as the run has shown it.
    pub reuse: Reuse,
    /// The same as yes or no; `None` where it is open.
    pub reuse_applies: Option<bool>,
    /// Why more connections could be made than hold a port; `None` where each holds one.
    pub ports_came_back: Option<CameBack>,
    /// Seconds until the first and until the last port in TIME_WAIT comes back; `None` without any.
    pub ports_return_seconds: Option<[f64; 2]>,
    /// The server's side.
    pub server: ServerReport,
    /// About four a second.
    pub timeline: Vec<Moment>,
}

/// What the loop did, as it was asked to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClientReport {
    /// The protocol it spoke.
    pub protocol: Protocol,
    /// Connections of its pool; `None` without one.
    pub pool: Option<usize>,
    /// Threads that took turns.
    pub threads: usize,
    /// The pace it was to keep; `None` for as fast as possible.
    pub rate: Option<f64>,
    /// Source addresses it took in turn; empty where the kernel chose.
    pub sources: Vec<IpAddr>,
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

/// Why ports came back during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameBack {
    /// TIME_WAIT reuse is in force.
    Reuse,
    /// `tcp_max_tw_buckets` is below the ports: the kernel drops TIME_WAIT.
    BucketsFull,
    /// The server answered the client's close, and this machine reset the connection for that: no
    /// TIME_WAIT (`TCPAbortOnData`).
    AnsweredAfterClose,
    /// The server closed or reset connections first, so their ports were not held here.
    ServerClosedFirst,
    /// The run was longer than TIME_WAIT.
    TimeWaitOver,
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoppedBy {
    /// No port was left.
    Exhausted,
    /// The time was up.
    Duration,
    /// All the connections asked for were made.
    Count,
    /// Another error.
    Error,
    /// The user, or whoever sent the signal.
    Interrupted(Signal),
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
            Self::Interrupted(_) => "interrupted",
        }
    }
}

impl Serialize for StoppedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Latency in the parts of a run; `None` where it made no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LatencyReport {
    /// The first 1,000 connections.
    pub first_1000: Option<Latency>,
    /// The last 1,000.
    pub last_1000: Option<Latency>,
    /// Until the fast ports were spent.
    pub before_cliff: Option<Latency>,
    /// After that.
    pub after_cliff: Option<Latency>,
}

/// What was seen of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// The most threads seen connected; `None` when it could not be watched, or does not tell.
    pub threads_connected_max: Option<u64>,
    /// What it counted before the run; `None` likewise, and of the embedded server.
    pub before: Option<ServerStatus>,
    /// What it counted after the run; `None` also where the watch ended before the run did.
    pub after: Option<ServerStatus>,
    /// Why it could not be watched.
    pub not_watched_because: Option<String>,
    /// Why the watch ended before the run did.
    pub watch_ended_because: Option<String>,
}

impl ServerReport {
    /// The embedded server's own count.
    #[must_use]
    pub fn embedded(most: u64) -> Self {
        Self {
            threads_connected_max: Some(most),
            ..Self::default()
        }
    }

    /// One that nobody watched.
    #[must_use]
    pub fn unwatched(why: String) -> Self {
        Self {
            not_watched_because: Some(why),
            ..Self::default()
        }
    }

    /// From what watching said.
    #[must_use]
    pub fn new(watched: Watched) -> Self {
        // Without a first answer nothing was seen.
        let (never, ended) = match watched.before {
            None => (watched.ended, None),
            Some(_) => (None, watched.ended),
        };
        Self {
            threads_connected_max: watched.most,
            before: watched.before,
            after: watched.after,
            not_watched_because: never,
            watch_ended_because: ended,
        }
    }
}

/// What was seen around a run.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The ports toward the server before it.
    pub before: &'a PortsToward,
    /// After it; `None` when the table could not be read.
    pub after: Option<&'a PortsToward>,
    /// Whether another connection could be made once all TIME_WAIT could be reused; `None` where
    /// that was not tried.
    pub again: Option<bool>,
    /// Whether the loop closes while a server may still have something to say.
    pub leaves_unread: bool,
}

impl Report {
    /// The report of a run against `target`. `flow` tells, by whether most ports are taken, what
    /// else is known of the flow.
    #[must_use]
    pub fn new(
        target: TargetReport,
        client: ClientReport,
        outcome: Outcome,
        facts: Facts<'_>,
        flow: impl FnOnce(bool) -> Flow,
        server: ServerReport,
    ) -> Self {
        let Facts {
            before,
            after,
            again,
            ..
        } = facts;
        // Where the ports are unknown, one that could connect before has run out of something.
        let flow = || {
            let told = after.and_then(|after| after.full);
            flow(told.unwrap_or(outcome.turns > 0))
        };
        let error = match &outcome.end {
            End::Failed(cause) => {
                let server = (target.host.as_str(), target.address);
                Some(Failure::new(cause, server, client.protocol, flow))
            }
            _ => None,
        };
        let stopped_by = match (&outcome.end, &error) {
            (End::Count, _) => StoppedBy::Count,
            (End::Duration, _) => StoppedBy::Duration,
            (End::Interrupted(signal), _) => StoppedBy::Interrupted(*signal),
            (End::Failed(_), Some(failure)) if failure.is_exhaustion() => StoppedBy::Exhausted,
            (End::Failed(_), _) => StoppedBy::Error,
        };
        let seconds = outcome.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss)] // Connections of one run, far below 2^53.
        let rate = outcome.turns as f64 / seconds.max(f64::EPSILON);
        let pooled = client.pool.is_some();
        // Ports that the server's side holds, or that come back, leave the fast ones to the next.
        let most_in_use = outcome
            .timeline
            .iter()
            .filter_map(|moment| moment.ports_in_use)
            .max();
        let cliff = outcome
            .cliff
            .filter(|cliff| most_in_use.is_none_or(|most| u64::from(most) >= cliff.connections));
        let [before_cliff, after_cliff] = outcome.around_cliff;
        let reuse = shown(before, after, again);
        Self {
            schema: 1,
            target,
            connections: outcome.opened.unwrap_or(outcome.turns),
            checkouts: pooled.then_some(outcome.turns),
            client,
            seconds: (seconds * 1000.0).round() / 1000.0,
            rate: words::rounded(rate),
            stopped_by,
            error,
            connect_latency_us: LatencyReport {
                first_1000: outcome.first,
                last_1000: outcome.last,
                before_cliff,
                after_cliff,
            },
            login_latency_us: outcome.login,
            unfinished_seconds: outcome
                .unfinished
                .map(|time| words::rounded(time.as_secs_f64())),
            cliff,
            time_wait: TimeWaitSides {
                client_side: after.map(|after| after.time_wait),
                client_side_before: Some(before.time_wait),
                server_side: after.and_then(|after| after.server_side),
            },
            usable_ports: before.usable,
            predicted_ports: before.free,
            reuse,
            reuse_applies: reuse.applies(),
            ports_came_back: (!pooled)
                .then(|| came_back(outcome.turns, outcome.elapsed, facts, reuse))
                .flatten(),
            ports_return_seconds: after
                .and_then(|after| after.returns)
                .map(|(first, last)| [first, last].map(|time| words::rounded(time.as_secs_f64()))),
            server,
            timeline: outcome.timeline,
        }
    }
}

/// Whether TIME_WAIT is reused, as the run has shown it where the settings leave it open.
fn shown(before: &PortsToward, after: Option<&PortsToward>, again: Option<bool>) -> Reuse {
    if !before.reuse.is_open() {
        return before.reuse;
    }
    let recycled = after.and_then(|after| after.recycled).zip(before.recycled);
    let free = u64::from(before.free.unwrap_or(0));
    match again {
        Some(true) => Reuse::Seen,
        Some(false) => Reuse::Refuted,
        // As often as there are ports: that is no other client's doing.
        None if recycled.is_some_and(|(after, before)| after > before + free) => Reuse::Seen,
        None => after.map_or(before.reuse, |after| after.reuse),
    }
}

/// Why `turns` connections were more than the ports free before, or than still hold one after.
fn came_back(turns: u64, elapsed: Duration, facts: Facts<'_>, reuse: Reuse) -> Option<CameBack> {
    /// A bare FIN can cross the server's and leave no TIME_WAIT (RFC 1337).
    const STRAY: u64 = 100;
    let Facts { before, after, .. } = facts;
    let free = u64::from(before.free?);
    let dropped = after.is_some_and(|after| before.buckets_bound && after.time_wait < turns);
    if dropped && !reuse.works() {
        return Some(CameBack::BucketsFull);
    }
    if turns <= free + free / STRAY {
        return None;
    }
    let reset = after
        .filter(|_| facts.leaves_unread)
        .and_then(|after| Some(after.reset?.saturating_sub(before.reset?)));
    if reuse.works() {
        Some(CameBack::Reuse)
    } else if reset.is_some_and(|reset| reset >= (turns - free) / 2) {
        Some(CameBack::AnsweredAfterClose)
    } else if elapsed >= before.hold_time {
        Some(CameBack::TimeWaitOver)
    } else {
        Some(CameBack::ServerClosedFirst)
    }
}

impl Report {
    /// Whether the run shows that the database had nothing to do with its end.
    #[must_use]
    pub fn database_was_idle(&self) -> bool {
        self.stopped_by == StoppedBy::Exhausted && self.server.threads_connected_max.is_some()
    }
}
