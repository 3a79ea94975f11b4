use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use super::latency::{Ends, Latency};
use super::target::{Target, close};
use crate::words;

/// How far a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at most; `None` for no bound.
    pub connections: Option<u64>,
    /// Time at most.
    pub duration: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// A connection could not be opened.
    Failed(mysql::Error),
    /// All the connections asked for were made.
    Count,
    /// The time was up.
    Duration,
    /// The user stopped it.
    Interrupted,
}

/// One moment of a run, about once a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// Since the start.
    #[serde(serialize_with = "seconds")]
    pub seconds: Duration,
    /// Connections made so far.
    pub connections: u64,
    /// Connections per second since the moment before.
    #[serde(serialize_with = "rate")]
    pub rate: f64,
    /// Ports the flow takes; `None` when the table could not be read.
    pub ports_in_use: Option<u32>,
    /// Of the connections since the moment before; `None` without any.
    pub connect_latency_us: Option<Latency>,
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Connections opened, logged in and closed.
    pub connections: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub end: End,
    /// Latency of the first 1,000.
    pub first: Option<Latency>,
    /// Latency of the last 1,000.
    pub last: Option<Latency>,
    /// About one a second.
    pub timeline: Vec<Moment>,
}

impl Outcome {
    /// A run that could not even begin.
    #[must_use]
    pub fn without_a_connection(error: mysql::Error) -> Self {
        Self {
            connections: 0,
            elapsed: Duration::ZERO,
            end: End::Failed(error),
            first: None,
            last: None,
            timeline: Vec::new(),
        }
    }
}

/// How often the socket table is looked at: often enough to follow, seldom enough not to slow the
/// loop (a look at 28,000 sockets takes some 15 ms).
const MOMENT: Duration = Duration::from_secs(1);

/// Opens a connection and closes it, again and again, on this thread, until something ends it.
/// `ports_in_use` looks at the socket table; `show` sees every moment as it passes.
pub fn run(
    target: &Target,
    limits: Limits,
    stop: &AtomicBool,
    mut ports_in_use: impl FnMut() -> Option<u32>,
    mut show: impl FnMut(&Moment),
) -> Outcome {
    let start = Instant::now();
    let mut ends = Ends::default();
    let mut timeline = Timeline::new(start);
    let mut connections = 0;
    let end = loop {
        if stop.load(Ordering::Relaxed) {
            break End::Interrupted;
        }
        if limits.connections.is_some_and(|limit| connections >= limit) {
            break End::Count;
        }
        let before = Instant::now();
        if before - start >= limits.duration {
            break End::Duration;
        }
        let connection = match target.open() {
            Ok(connection) => connection,
            Err(error) => break End::Failed(error),
        };
        let latency = before.elapsed();
        close(connection);
        connections += 1;
        ends.add(latency);
        timeline.since.push(latency);
        if timeline.is_due() {
            show(timeline.mark(connections, ports_in_use()));
        }
    };
    let elapsed = start.elapsed();
    show(timeline.mark(connections, ports_in_use()));
    Outcome {
        connections,
        elapsed,
        end,
        first: ends.first(),
        last: ends.last(),
        timeline: timeline.moments,
    }
}

/// The moments of a run, and what has happened since the last one.
struct Timeline {
    start: Instant,
    last: Instant,
    since: Vec<Duration>,
    moments: Vec<Moment>,
}

impl Timeline {
    fn new(start: Instant) -> Self {
        Self {
            start,
            last: start,
            since: Vec::new(),
            moments: Vec::new(),
        }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= MOMENT
    }

    fn mark(&mut self, connections: u64, ports_in_use: Option<u32>) -> &Moment {
        let now = Instant::now();
        #[expect(clippy::cast_precision_loss)] // The connections of one second.
        let rate = self.since.len() as f64 / (now - self.last).as_secs_f64().max(f64::EPSILON);
        self.last = now;
        self.moments.push(Moment {
            seconds: now - self.start,
            connections,
            rate,
            ports_in_use,
            connect_latency_us: Latency::of(self.since.drain(..)),
        });
        &self.moments[self.moments.len() - 1]
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[expect(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
fn rate<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(words::rounded(*rate))
}
