use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::failure::{Failure, Flow};
use super::latency::Latency;
use super::protocol::Protocol;
use super::run::{Cliff, End, Moment, Outcome};
use super::stop::Signal;
use super::target::Target;
use super::watch::{ServerStatus, Watched};
use crate::judge::level::Level;
use crate::judge::toward::{PortsToward, Shortage};
use crate::model::Reuse;
use crate::words;

/// Who keeps TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWaitSides {
    /// Here, toward the server: each holds a port; `None` when the table could not be read.
    pub client_side: Option<u64>,
    /// Likewise, before the run.
    pub client_side_before: Option<u64>,
    /// At the server; `None` when it runs on another machine.
    pub server_side: Option<u64>,
    /// Likewise, before the run.
    pub server_side_before: Option<u64>,
    /// `tcp_max_tw_buckets`; `None` when unknown.
    pub limit: Option<u64>,
    /// Dropped at that limit during the run, on this whole machine; `None` when unknown.
    pub dropped: Option<u64>,
}

/// Everything `repro` says, in the order of the JSON contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// The command that shows ports run out where this run could not, because TIME_WAIT was dropped;
    /// `None` elsewhere.
    pub shows_exhaustion: Option<String>,
    /// Seconds until the first and until the last port in TIME_WAIT comes back; `None` without any.
    pub ports_return_seconds: Option<[f64; 2]>,
    /// The server's side.
    pub server: ServerReport,
    /// About four a second.
    pub timeline: Vec<Moment>,
}

/// What the loop did, as it was asked to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CameBack {
    /// TIME_WAIT reuse is in force.
    Reuse,
    /// The kernel dropped TIME_WAIT at `tcp_max_tw_buckets` (`TCPTimeWaitOverflow`).
    BucketsFull,
    /// The server answered the client's close, and this machine reset the connection for that: no
    /// TIME_WAIT (`TCPAbortOnData`). A server on this machine that resets counts there too.
    AnsweredAfterClose,
    /// The server closed or reset connections first, so their ports were not held here.
    ServerClosedFirst,
    /// The run was longer than TIME_WAIT.
    TimeWaitOver,
    /// The kernel began to take another source address.
    OtherSources,
    /// The range or the reserved ports were changed.
    SettingsChanged,
    /// Nothing that was seen says why.
    Unknown,
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoppedBy {
    /// No port was left.
    Exhausted,
    /// The time was up.
    Duration,
    /// All the connections asked for were made, or as many as show that ports do not run out.
    Count,
    /// Another error.
    Error,
    /// The user, or whoever sent the signal.
    Interrupted(Signal),
}

impl StoppedBy {
    /// How bad that is.
    #[must_use]
    pub fn level(self) -> Level {
        match self {
            Self::Exhausted => Level::Critical,
            Self::Error => Level::Unknown,
            Self::Duration | Self::Count | Self::Interrupted(_) => Level::Ok,
        }
    }

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

impl<'de> Deserialize<'de> for StoppedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let all = [
            Self::Exhausted,
            Self::Duration,
            Self::Count,
            Self::Error,
            // Which signal it was is told by the exit status alone.
            Self::Interrupted(Signal::Interrupt),
        ];
        let meant = all.into_iter().find(|one| one.word() == word);
        meant.ok_or_else(|| serde::de::Error::custom(format!("a run is not stopped by {word}")))
    }
}

/// Latency in the parts of a run; `None` where it made no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Report {
    /// The report of a run against `target`. `flow` tells, by why it has no port, what else is known
    /// of the flow.
    #[must_use]
    pub fn new(
        target: TargetReport,
        client: ClientReport,
        outcome: Outcome,
        facts: Facts<'_>,
        flow: impl FnOnce(Shortage) -> Flow,
        server: ServerReport,
    ) -> Self {
        let Facts {
            before,
            after,
            again,
            ..
        } = facts;
        let flow = || flow(shortage(&outcome, before, after));
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
        let cliff = outcome
            .cliff
            .filter(|cliff| is_seen(cliff, &outcome, before));
        let around_cliff = outcome.around_cliff;
        // Of a cliff that was none there is neither side.
        let is_split = outcome.cliff.is_none() || cliff.is_some();
        let [before_cliff, after_cliff] = around_cliff.map(|part| part.filter(|_| is_split));
        let reuse = shown(&outcome, before, after, again);
        let ports_came_back = (!pooled)
            .then(|| came_back(&outcome, facts, reuse))
            .flatten();
        let overflows = after.and_then(|after| after.overflows);
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
                server_side_before: before.server_side,
                limit: before.limit,
                dropped: overflows.and_then(|after| Some(after.saturating_sub(before.overflows?))),
            },
            usable_ports: before.usable,
            predicted_ports: before.free,
            reuse,
            reuse_applies: reuse.applies(),
            ports_came_back,
            shows_exhaustion: before
                .cure()
                .filter(|_| ports_came_back == Some(CameBack::BucketsFull)),
            ports_return_seconds: after.and_then(|after| {
                let (first, last) = after.returns?;
                // The look after the run did not know yet what the run has shown.
                let early = if reuse.works() && !after.reuse.works() {
                    after.hold_time.saturating_sub(after.reuse_delay)
                } else {
                    Duration::ZERO
                };
                Some(
                    [first, last]
                        .map(|time| words::rounded(time.saturating_sub(early).as_secs_f64())),
                )
            }),
            server,
            timeline: outcome.timeline,
        }
    }
}

/// Why no port was left at the end of a run, where none was.
fn shortage(outcome: &Outcome, before: &PortsToward, after: Option<&PortsToward>) -> Shortage {
    /// The ports may come back as fast as a server answers a close.
    const JUST: Duration = Duration::from_secs(1);
    match after {
        Some(after) if after.shortage != Shortage::Unknown => return after.shortage,
        Some(after) if after.usable.is_some() => {}
        // Where the ports are unknown, one that could connect before has run out of something.
        _ if outcome.turns > 0 => return Shortage::Taken,
        _ => return Shortage::Unknown,
    }
    // They may all be back when the run is over.
    let since = outcome.elapsed.saturating_sub(JUST);
    let last = outcome.timeline.iter();
    let last = last.filter(|moment| moment.seconds >= since);
    let most = last.filter_map(|moment| moment.ports_in_use).max();
    match most.zip(before.usable) {
        Some((most, usable)) if most * 2 >= usable => Shortage::Taken,
        _ => Shortage::Unknown,
    }
}

/// Whether TIME_WAIT is reused, as the run has shown it where the settings leave it open.
fn shown(
    outcome: &Outcome,
    before: &PortsToward,
    after: Option<&PortsToward>,
    again: Option<bool>,
) -> Reuse {
    if !before.reuse.is_open() {
        return before.reuse;
    }
    let recycled = grown(before.recycled, after.and_then(|after| after.recycled));
    // Where it is unknown nobody has had one twice.
    let free = u64::from(before.free.unwrap_or(u32::MAX));
    // The counter is the whole machine's: only ports that this loop has had twice while TIME_WAIT
    // held them are its own.
    let recent = recent(outcome, before.hold_time);
    let twice = recent.saturating_sub(free + outcome.closed_by_server);
    let are_held = after.is_some_and(|after| after.time_wait.saturating_mul(2) >= free);
    match again {
        Some(true) => Reuse::Seen,
        Some(false) => Reuse::Refuted,
        None if are_held && twice > free / STRAY && recycled >= Some(twice) => Reuse::Seen,
        None => after.map_or(before.reuse, |after| after.reuse),
    }
}

/// Whether the fast ports were taken when as many connections had been made: the server's side may
/// hold them, they may come back, and another client may take some.
fn is_seen(cliff: &Cliff, outcome: &Outcome, before: &PortsToward) -> bool {
    /// One part in so many may be on its way.
    const LOOSE: u64 = 10;
    let mut moments = outcome.timeline.iter();
    let Some(moment) = moments.find(|moment| moment.seconds >= cliff.seconds) else {
        return true;
    };
    moment.ports_in_use.is_none_or(|in_use| {
        let taken = u64::from(in_use.saturating_sub(before.in_use));
        taken.abs_diff(moment.connections) <= moment.connections / LOOSE
    })
}

/// A bare FIN can cross the server's and leave no TIME_WAIT (RFC 1337): one in so many does.
const STRAY: u64 = 100;

fn grown(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

/// Why the turns were more than the ports free before, or than hold one after. What accounts
/// for half of that counts: the kernel's counters are the whole machine's.
fn came_back(outcome: &Outcome, facts: Facts<'_>, reuse: Reuse) -> Option<CameBack> {
    let Facts { before, after, .. } = facts;
    let Outcome { turns, elapsed, .. } = *outcome;
    let free = u64::from(before.free?);
    let kept = after.map(|after| after.time_wait.max(after.in_use.into()));
    let growth = |part: fn(&PortsToward) -> Option<u64>| grown(part(before), part(after?));
    let explains = |part: Option<u64>, whole: u64| {
        whole > 0 && part.is_some_and(|part| part.saturating_mul(2) >= whole)
    };
    let closed = Some(outcome.closed_by_server);
    let dropped = growth(|ports| ports.overflows);
    // TIME_WAIT of others hides some that are missing, and never makes any up.
    let missing = turns.saturating_sub(kept.unwrap_or(turns));
    let over = turns.saturating_sub(free);
    let more = over.max(missing);
    if over <= free / STRAY && missing <= 1 + turns / STRAY {
        return None;
    }
    let can_be_reused = reuse.works() || after.is_some_and(|after| after.reuse.works());
    let recycled = growth(|ports| ports.recycled);
    let is_reused = can_be_reused && (recycled.is_none() || explains(recycled, more));
    // Of those that were closed within the hold time TIME_WAIT is there.
    let is_over = elapsed >= before.hold_time && explains(kept, recent(outcome, before.hold_time));
    Some(if explains(closed, more) {
        CameBack::ServerClosedFirst
    } else if explains(dropped, more) {
        CameBack::BucketsFull
    } else if is_reused {
        CameBack::Reuse
    } else if explains(growth(|ports| ports.reset), more) {
        CameBack::AnsweredAfterClose
    } else if after.is_some_and(|after| after.addresses > before.addresses) {
        CameBack::OtherSources
    } else if after.is_some_and(|after| after.range != before.range) {
        CameBack::SettingsChanged
    } else if is_over {
        CameBack::TimeWaitOver
    } else if explains(growth(|ports| ports.server_side), more) {
        CameBack::ServerClosedFirst
    } else {
        CameBack::Unknown
    })
}

/// The turns within the last `time` of a run.
fn recent(outcome: &Outcome, time: Duration) -> u64 {
    let since = outcome.elapsed.saturating_sub(time);
    let earlier = outcome.timeline.iter().rev();
    let earlier = { earlier }.find(|moment| moment.seconds <= since);
    outcome.turns - earlier.map_or(0, |moment| moment.connections)
}

impl Report {
    /// The pace that was asked for, where it could not be kept.
    #[must_use]
    pub fn missed_pace(&self) -> Option<f64> {
        /// The share of a pace that counts as kept.
        const KEPT: f64 = 0.95;
        let asked = self.client.rate;
        asked.filter(|asked| self.rate < asked * KEPT)
    }

    /// Whether the run shows that the database had nothing to do with its end.
    #[must_use]
    pub fn database_was_idle(&self) -> bool {
        /// Seconds in which it was looked at ten times; the embedded server counts by itself.
        const LOOKED_AT: f64 = 1.0;
        self.stopped_by == StoppedBy::Exhausted
            && self.server.threads_connected_max.is_some()
            && (self.target.embedded || self.seconds >= LOOKED_AT)
    }

    /// Connections of the run itself among those that the server counts before and after it: the
    /// pool's, and that which watches.
    #[must_use]
    pub fn own_threads(&self) -> u64 {
        let pool = self.client.pool.map_or(0, |size| size as u64);
        pool + u64::from(self.server.before.is_some())
    }

    /// Whether the server was watched over a connection that is none of the loop's.
    #[must_use]
    pub fn watches_apart(&self) -> bool {
        self.client.pool.is_some() && self.server.before.is_some()
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortRange;
    use crate::repro::cause::Cause;

    const ALL: [StoppedBy; 5] = [
        StoppedBy::Exhausted,
        StoppedBy::Duration,
        StoppedBy::Count,
        StoppedBy::Error,
        StoppedBy::Interrupted(Signal::Interrupt),
    ];

    #[test]
    fn what_stopped_a_run_is_read_back_and_a_stranger_is_refused() {
        for stopped_by in ALL {
            let text = serde_json::to_string(&stopped_by).unwrap();
            assert_eq!(text, format!("\"{}\"", stopped_by.word()));
            let read: StoppedBy = serde_json::from_str(&text).unwrap();
            assert_eq!(read, stopped_by);
        }
        assert!(serde_json::from_str::<StoppedBy>("\"bored\"").is_err());
    }

    #[test]
    fn only_exhaustion_is_bad_and_only_an_error_leaves_it_unknown() {
        let levels = [
            Level::Critical,
            Level::Ok,
            Level::Ok,
            Level::Unknown,
            Level::Ok,
        ];
        assert_eq!(ALL.map(StoppedBy::level), levels);
    }

    /// 1,000 ports that are free, and as much TIME_WAIT as connections were made.
    fn ports() -> PortsToward {
        PortsToward {
            usable: Some(1000),
            free: Some(1000),
            full: Some(false),
            shortage: Shortage::Unknown,
            range: PortRange::parse("40000 40999").zip(Some(0)),
            addresses: 1,
            fast_free: Some(500),
            in_use: 0,
            reuse: Reuse::Off,
            recycled: Some(7),
            reset: Some(3),
            limit: Some(131_072),
            buckets_bound: false,
            overflows: Some(5),
            max_rate: None,
            reuse_delay: Duration::from_secs(1),
            time_wait: 0,
            server_side: None,
            hold_time: Duration::from_secs(60),
            closing: false,
            returns: None,
        }
    }

    fn facts<'a>(before: &'a PortsToward, after: &'a PortsToward) -> Facts<'a> {
        Facts {
            before,
            after: Some(after),
            again: None,
        }
    }

    /// A run of so many turns.
    fn ran(turns: u64, seconds: u64) -> Outcome {
        Outcome {
            turns,
            elapsed: Duration::from_secs(seconds),
            ..Outcome::failed(Cause::NotMysql, 0)
        }
    }

    #[test]
    fn more_connections_than_ports_have_a_reason_only_where_one_was_seen() {
        let left = |time_wait| PortsToward {
            time_wait,
            ..ports()
        };
        let reused = PortsToward {
            recycled: Some(1007),
            reuse: Reuse::Seen,
            ..left(1000)
        };
        let answered = |resets: u64| PortsToward {
            reset: Some(resets + 3),
            ..left(1000)
        };
        let dropped = |number: u64, time_wait| PortsToward {
            overflows: Some(number + 5),
            ..left(time_wait)
        };
        let elsewhere = PortsToward {
            addresses: 2,
            ..left(1000)
        };
        let changed = PortsToward {
            range: PortRange::parse("50000 50999").zip(Some(0)),
            ..left(1000)
        };
        let server = PortsToward {
            server_side: Some(900),
            ..left(1000)
        };
        let short = ran(2000, 9);
        let closed = |closed_by_server| Outcome {
            closed_by_server,
            ..ran(2000, 9)
        };
        for (outcome, after, reason) in [
            (ran(1000, 9), left(1000), None),
            // A stray FIN frees a port in a thousand.
            (ran(1001, 9), left(1000), None),
            (ran(2000, 9), left(1000), Some(CameBack::Unknown)),
            (closed(1000), left(1000), Some(CameBack::ServerClosedFirst)),
            (closed(499), left(1000), Some(CameBack::Unknown)),
            // Whatever else the machine does, that was seen of these very connections.
            (
                closed(1000),
                answered(5000),
                Some(CameBack::ServerClosedFirst),
            ),
            (ran(2000, 60), left(1000), Some(CameBack::TimeWaitOver)),
            (ran(2000, 60), left(20), Some(CameBack::Unknown)),
            (ran(2000, 9), reused, Some(CameBack::Reuse)),
            (
                ran(2000, 9),
                answered(500),
                Some(CameBack::AnsweredAfterClose),
            ),
            (ran(2000, 9), answered(499), Some(CameBack::Unknown)),
            (ran(2000, 9), elsewhere, Some(CameBack::OtherSources)),
            (ran(2000, 9), changed, Some(CameBack::SettingsChanged)),
            (
                ran(2000, 9),
                dropped(1600, 400),
                Some(CameBack::BucketsFull),
            ),
            // Dropped ones are missing even before the ports are through.
            (ran(900, 9), dropped(500, 400), Some(CameBack::BucketsFull)),
            (ran(900, 9), dropped(0, 400), Some(CameBack::Unknown)),
            (ran(900, 9), dropped(0, 895), None),
            (ran(1, 9), left(0), None),
            (ran(20, 9), left(25), None),
            (ran(900, 60), left(600), Some(CameBack::TimeWaitOver)),
        ] {
            let said = came_back(&outcome, facts(&ports(), &after), Reuse::Off);
            assert_eq!(said, reason, "{outcome:?} {after:?}");
        }
        let here = PortsToward {
            server_side: Some(0),
            ..ports()
        };
        let said = came_back(&short, facts(&here, &server), Reuse::Off);
        assert_eq!(said, Some(CameBack::ServerClosedFirst));
        let unknown = PortsToward {
            free: None,
            ..ports()
        };
        let said = came_back(&short, facts(&unknown, &left(0)), Reuse::Off);
        assert_eq!(said, None);
    }

    #[test]
    fn a_run_tells_whether_reuse_works_where_the_settings_leave_it_open() {
        let with = |reuse, recycled| PortsToward {
            reuse,
            recycled,
            time_wait: 800,
            ..ports()
        };
        let open = with(Reuse::Allowed, Some(7));
        let again = |again| shown(&ran(12, 9), &open, None, again);
        assert_eq!(again(Some(true)), Reuse::Seen);
        assert_eq!(again(Some(false)), Reuse::Refuted);
        assert_eq!(again(None), Reuse::Allowed);
        // What others do on this machine is no sign of it.
        for (turns, recycled, reuse) in [
            (1500, Some(506), Reuse::Allowed),
            (1500, Some(507), Reuse::Seen),
            (12, Some(9000), Reuse::Allowed),
            (1500, None, Reuse::Allowed),
        ] {
            let after = with(Reuse::Allowed, recycled);
            let said = shown(&ran(turns, 9), &open, Some(&after), None);
            assert_eq!(said, reuse, "{turns} {recycled:?}");
        }
        let elsewhere = PortsToward {
            time_wait: 30,
            ..with(Reuse::Allowed, Some(9000))
        };
        let said = shown(&ran(1500, 9), &open, Some(&elsewhere), None);
        assert_eq!(said, Reuse::Allowed, "no TIME_WAIT that could be reused");
        let off = with(Reuse::Off, Some(7));
        assert_eq!(
            shown(&ran(12, 9), &off, None, Some(true)),
            Reuse::Off,
            "it was no question"
        );
    }

    #[test]
    fn ports_that_were_gone_when_the_run_ended_are_known_by_its_last_moments() {
        let in_use = |ports_in_use| Outcome {
            timeline: vec![Moment {
                seconds: Duration::ZERO,
                connections: 400,
                rate: 0.0,
                ports_in_use: Some(ports_in_use),
                connect_latency_us: None,
            }],
            ..ran(400, 1)
        };
        let after = ports();
        for (used, said) in [(500, Shortage::Taken), (499, Shortage::Unknown)] {
            assert_eq!(shortage(&in_use(used), &ports(), Some(&after)), said);
        }
        let reserved = PortsToward {
            shortage: Shortage::Reserved,
            ..ports()
        };
        let said = shortage(&in_use(500), &ports(), Some(&reserved));
        assert_eq!(said, Shortage::Reserved);
    }

    #[test]
    fn a_server_that_was_not_watched_has_no_numbers_but_a_reason() {
        let because = |ended: Option<&str>| Watched {
            most: None,
            before: None,
            after: None,
            ended: ended.map(Into::into),
        };
        let unwatched = ServerReport::new(because(Some("it fell silent")));
        assert_eq!(unwatched, ServerReport::unwatched("it fell silent".into()));
        let watched = ServerReport::new(Watched {
            most: Some(3),
            before: Some(ServerStatus::default()),
            ..because(Some("it fell silent"))
        });
        assert_eq!(
            (watched.threads_connected_max, watched.not_watched_because),
            (Some(3), None)
        );
        assert_eq!(
            watched.watch_ended_because.as_deref(),
            Some("it fell silent")
        );
    }
}
