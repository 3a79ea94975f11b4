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
use crate::judge::toward::PortsToward;
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
        let ports_came_back = (!pooled)
            .then(|| came_back(outcome.turns, outcome.elapsed, facts, reuse))
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

/// Why `turns` connections were more than the ports free before, or than are in TIME_WAIT after.
fn came_back(turns: u64, elapsed: Duration, facts: Facts<'_>, reuse: Reuse) -> Option<CameBack> {
    /// A bare FIN can cross the server's and leave no TIME_WAIT (RFC 1337).
    const STRAY: u64 = 100;
    let Facts { before, after, .. } = facts;
    let free = u64::from(before.free?);
    let dropped = after.is_some_and(|after| before.buckets_bound && after.time_wait < turns);
    if dropped && !reuse.works() {
        return Some(CameBack::BucketsFull);
    }
    // TIME_WAIT of others hides some that are missing, and never makes any up.
    let missing = after.map_or(0, |after| turns.saturating_sub(after.time_wait));
    let over = turns.saturating_sub(free);
    let more = over.max(missing);
    if over <= free / STRAY && missing <= 1 + turns / STRAY {
        return None;
    }
    let reset = after
        .filter(|_| facts.leaves_unread)
        .and_then(|after| Some(after.reset?.saturating_sub(before.reset?)));
    if reuse.works() {
        Some(CameBack::Reuse)
    } else if reset.is_some_and(|reset| reset >= more / 2) {
        Some(CameBack::AnsweredAfterClose)
    } else if elapsed >= before.hold_time {
        Some(CameBack::TimeWaitOver)
    } else {
        Some(CameBack::ServerClosedFirst)
    }
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

    fn facts<'a>(before: &'a PortsToward, after: Option<&'a PortsToward>) -> Facts<'a> {
        Facts {
            before,
            after,
            again: None,
            leaves_unread: false,
        }
    }

    #[test]
    fn more_connections_than_ports_have_a_reason() {
        let (short, long) = (Duration::from_secs(9), Duration::from_secs(60));
        let dropping = PortsToward {
            buckets_bound: true,
            ..ports()
        };
        let left = |time_wait| PortsToward {
            time_wait,
            ..ports()
        };
        for (turns, elapsed, before, after, reuse, reason) in [
            (1000, short, ports(), left(1000), Reuse::Off, None),
            // A stray FIN frees a port in a thousand.
            (1001, short, ports(), left(1000), Reuse::Off, None),
            (
                2000,
                short,
                ports(),
                left(1000),
                Reuse::Off,
                Some(CameBack::ServerClosedFirst),
            ),
            (
                2000,
                long,
                ports(),
                left(1000),
                Reuse::Off,
                Some(CameBack::TimeWaitOver),
            ),
            (
                2000,
                short,
                ports(),
                left(1000),
                Reuse::Seen,
                Some(CameBack::Reuse),
            ),
            // Dropped ones are missing even before the ports are through.
            (
                900,
                short,
                dropping,
                left(400),
                Reuse::Off,
                Some(CameBack::BucketsFull),
            ),
            (900, short, dropping, left(900), Reuse::Off, None),
            // A missing one has a reason long before the ports are through.
            (
                10,
                short,
                ports(),
                left(0),
                Reuse::Off,
                Some(CameBack::ServerClosedFirst),
            ),
            (
                900,
                long,
                ports(),
                left(600),
                Reuse::Off,
                Some(CameBack::TimeWaitOver),
            ),
            (900, short, ports(), left(895), Reuse::Off, None),
            (1, short, ports(), left(0), Reuse::Off, None),
            (20, short, ports(), left(25), Reuse::Off, None),
        ] {
            assert_eq!(
                came_back(turns, elapsed, facts(&before, Some(&after)), reuse),
                reason,
                "{turns} in {elapsed:?}, reuse {reuse:?}"
            );
        }
        let unknown = PortsToward {
            free: None,
            ..ports()
        };
        let facts = facts(&unknown, None);
        assert_eq!(came_back(2000, short, facts, Reuse::Off), None);
    }

    #[test]
    fn a_server_that_answers_a_close_is_told_by_the_resets_where_that_can_be() {
        let before = ports();
        for (leaves_unread, resets, reason) in [
            (true, Some(1000), CameBack::AnsweredAfterClose),
            (true, Some(499), CameBack::ServerClosedFirst),
            (true, None, CameBack::ServerClosedFirst),
            (false, Some(1000), CameBack::ServerClosedFirst),
        ] {
            let after = PortsToward {
                reset: resets.map(|resets| resets + 3),
                ..ports()
            };
            let facts = Facts {
                leaves_unread,
                ..facts(&before, Some(&after))
            };
            let came_back = came_back(2000, Duration::from_secs(9), facts, Reuse::Off);
            assert_eq!(came_back, Some(reason), "{resets:?}");
        }
    }

    #[test]
    fn a_run_tells_whether_reuse_works_where_the_settings_leave_it_open() {
        let with = |reuse, recycled| PortsToward {
            reuse,
            recycled,
            ..ports()
        };
        let open = with(Reuse::Allowed, Some(7));
        let again = |again| shown(&open, None, again);
        assert_eq!(again(Some(true)), Reuse::Seen);
        assert_eq!(again(Some(false)), Reuse::Refuted);
        assert_eq!(again(None), Reuse::Allowed);
        // Less than a round through all the ports may be another client's.
        for (recycled, reuse) in [
            (Some(1007), Reuse::Allowed),
            (Some(1008), Reuse::Seen),
            (None, Reuse::Allowed),
        ] {
            let after = with(Reuse::Allowed, recycled);
            assert_eq!(shown(&open, Some(&after), None), reuse, "{recycled:?}");
        }
        let off = with(Reuse::Off, Some(7));
        assert_eq!(
            shown(&off, None, Some(true)),
            Reuse::Off,
            "it was no question"
        );
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
