use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cause::Cause;
use super::client::{Client, Turn};
use super::latency::{Ends, Latencies, Latency};
use super::stop::{Signal, Stop};
use crate::words;

/// How far a run goes, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Turns at most; `None` for no bound.
    pub connections: Option<u64>,
    /// Time at most.
    pub duration: Duration,
    /// Turns per second; `None` for as many as there can be.
    pub rate: Option<f64>,
    /// Threads that take turns.
    pub threads: usize,
    /// After how many connections the fast ports are spent; `None` where they return in time.
    pub fast_ports: Option<u64>,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// A connection could not be opened.
    Failed(Cause),
    /// All the connections asked for were made.
    Count,
    /// The time was up.
    Duration,
    /// The user stopped it.
    Interrupted(Signal),
}

/// One moment of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the start.
    #[serde(serialize_with = "seconds", deserialize_with = "duration")]
    pub seconds: Duration,
    /// Connections made so far, or checkouts of a pool.
    pub connections: u64,
    /// Of them, per second since the moment before.
    #[serde(serialize_with = "rate")]
    pub rate: f64,
    /// Ports taken toward the server; `None` when the table could not be read.
    pub ports_in_use: Option<u32>,
    /// Of the connections since the moment before; `None` without any.
    pub connect_latency_us: Option<Latency>,
}

/// When the fast ports were spent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cliff {
    /// Connections made until then.
    pub connections: u64,
    /// Since the start.
    #[serde(serialize_with = "seconds", deserialize_with = "duration")]
    pub seconds: Duration,
}

/// What a run did.
#[derive(Debug)]
pub struct Outcome {
    /// Turns of the loop: connections opened and closed, or checkouts of a pool.
    pub turns: u64,
    /// Connections that the server had closed or reset before the client closed.
    pub closed_by_server: u64,
    /// Connections that were opened for them, where that is another number: of a pool, or before it
    /// failed.
    pub opened: Option<u64>,
    /// For how long a login had been going on when the time was up, where that was long.
    pub unfinished: Option<Duration>,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub end: End,
    /// connect() of the first 1,000.
    pub first: Option<Latency>,
    /// connect() of the last 1,000.
    pub last: Option<Latency>,
    /// connect() until the fast ports were spent, and after.
    pub around_cliff: [Option<Latency>; 2],
    /// When they were; `None` when they never were.
    pub cliff: Option<Cliff>,
    /// Greeting and login.
    pub login: Option<Latency>,
    /// About four a second.
    pub timeline: Vec<Moment>,
}

impl Outcome {
    /// A run that could not even begin, after so many connections were `opened`.
    #[must_use]
    pub fn failed(cause: Cause, opened: u64) -> Self {
        Self {
            opened: Some(opened),
            ..Samples::default().finish(Duration::ZERO, (End::Failed(cause), None), Vec::new())
        }
    }
}

/// What all threads share.
struct Run {
    client: Arc<Client>,
    limits: Limits,
    start: Instant,
    stop: Stop,
    /// Turns begun.
    begun: AtomicU64,
    over: AtomicBool,
    /// Threads that still take turns.
    working: AtomicUsize,
    end: Mutex<Option<(End, Option<Duration>)>>,
    samples: Mutex<Samples>,
    /// When the last turn was to begin, where there is a pace.
    released: Mutex<Duration>,
    observer: Thread,
}

/// How long a turn may go on after the run is over: a connect() without an answer must not hold up
/// the report. Its thread is left behind.
const GRACE: Duration = Duration::from_millis(500);

/// Lets `client` take turns until something ends the run, after its `first` where there was one.
/// `ports_in_use` looks at the socket table on this thread; `show` sees every moment as it passes.
pub fn run(
    client: &Arc<Client>,
    first: Option<Turn>,
    limits: Limits,
    stop: &Stop,
    mut ports_in_use: impl FnMut() -> Option<u32>,
    mut show: impl FnMut(&Moment),
) -> Outcome {
    let start = first.map_or_else(Instant::now, |first| first.begun);
    let mut samples = Samples::default();
    if let Some(first) = first {
        samples.add(first, limits.fast_ports, start);
    }
    let run = Arc::new(Run {
        client: Arc::clone(client),
        limits,
        start,
        stop: stop.clone(),
        begun: AtomicU64::new(samples.turns),
        over: AtomicBool::new(false),
        working: AtomicUsize::new(0),
        end: Mutex::new(None),
        samples: Mutex::new(samples),
        released: Mutex::default(),
        observer: thread::current(),
    });
    for number in 1..=limits.threads {
        run.working.fetch_add(1, Ordering::Relaxed);
        let worker = Arc::clone(&run);
        let started = thread::Builder::new().spawn(move || worker.work());
        if let Err(error) = started {
            run.working.fetch_sub(1, Ordering::Relaxed);
            let why = format!(
                "starting thread {number} of {}: {error}; take fewer (--threads), or look at `ulimit \
                 -u` and the limits of the container",
                limits.threads
            );
            run.finish(End::Failed(Cause::Other(why)), None);
        }
    }
    let mut timeline = Timeline::new(run.start);
    let mut over_since = None;
    while run.working.load(Ordering::Acquire) > 0 {
        thread::park_timeout(timeline.due().min(GRACE));
        if let Some(end) = run.is_up() {
            run.finish(end, None);
        }
        if run.over.load(Ordering::Relaxed)
            && over_since.get_or_insert_with(Instant::now).elapsed() >= GRACE
        {
            break;
        }
        if timeline.due().is_zero() {
            show(timeline.mark(&run.samples, &mut ports_in_use));
        }
    }
    let elapsed = run.start.elapsed();
    show(timeline.mark(&run.samples, &mut ports_in_use));
    let nobody_said = || (broken("the loop ended by itself"), None);
    let end = lock(&run.end).take().unwrap_or_else(nobody_said);
    let samples = std::mem::take(&mut *lock(&run.samples));
    Outcome {
        opened: client.pooled(),
        ..samples.finish(elapsed, end, timeline.moments)
    }
}

fn broken(how: &str) -> End {
    End::Failed(Cause::Other(how.into()))
}

/// Counters stay right whatever a thread that panicked was doing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    fn work(&self) {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| self.take_turns()));
        let fell_over = || (broken("a turn of the loop fell over"), None);
        if let Some((end, unfinished)) = ended.unwrap_or_else(|_| Some(fell_over())) {
            self.finish(end, unfinished);
        }
        self.working.fetch_sub(1, Ordering::Release);
        self.observer.unpark();
    }

    /// Until something ends the run; says what, where nobody has.
    fn take_turns(&self) -> Option<(End, Option<Duration>)> {
        /// Behind the end of the run a login that is under way may come to its own.
        const IN_FLIGHT: Duration = GRACE.saturating_sub(Duration::from_millis(100));
        let up = self.start + self.limits.duration;
        loop {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            match self.wait_for(number) {
                Wait::Due => {}
                Wait::Over => return None,
                Wait::Ends(end) => return Some((end, None)),
            }
            match self.client.turn(number, up + IN_FLIGHT) {
                Ok(turn) => {
                    let samples = &mut *lock(&self.samples);
                    samples.add(turn, self.limits.fast_ports, self.start);
                }
                // A signal ends connect() early.
                Err(cause) => {
                    return Some(match (self.stop.asked(), cause) {
                        (Some(signal), _) => (End::Interrupted(signal), None),
                        (None, Cause::Slow { after, .. }) if Instant::now() >= up => {
                            (End::Duration, Some(after))
                        }
                        (None, Cause::PoolBusy { .. }) if Instant::now() >= up => {
                            (End::Duration, None)
                        }
                        (None, cause) => (End::Failed(cause), None),
                    });
                }
            }
        }
    }

    /// Ends the run. Who comes first says why, but a failure tells more than a limit. Where the
    /// last turn is taken the others go on until theirs are done.
    fn finish(&self, end: End, unfinished: Option<Duration>) {
        let mut why = lock(&self.end);
        self.over
            .fetch_or(!matches!(end, End::Count), Ordering::Relaxed);
        let tells_more = matches!(*why, Some((End::Count | End::Duration, None)))
            && (matches!(end, End::Failed(_)) || unfinished.is_some());
        if why.is_none() || tells_more {
            *why = Some((end, unfinished));
        }
    }

    /// What ends the run whatever its threads do.
    fn is_up(&self) -> Option<End> {
        if let Some(signal) = self.stop.asked() {
            return Some(End::Interrupted(signal));
        }
        (self.start.elapsed() >= self.limits.duration).then_some(End::Duration)
    }

    /// When a turn may begin that was to begin at `due`: what a stall has taken is made up for at
    /// twice the pace at most, and not by a burst.
    fn released(&self, due: Duration, rate: f64) -> Duration {
        let mut last = lock(&self.released);
        let soonest = last.saturating_add(later(0.5 / rate));
        *last = due.max(soonest).max(self.start.elapsed());
        *last
    }

    /// Waits until the turn of this `number` is due, or the run ends instead.
    fn wait_for(&self, number: u64) -> Wait {
        /// How long Ctrl-C may take.
        const NAP: Duration = Duration::from_millis(50);
        if self.limits.connections.is_some_and(|most| number >= most) {
            return Wait::Ends(End::Count);
        }
        #[expect(clippy::cast_precision_loss)] // Turns of one run, far below 2^53.
        let due = self.limits.rate.map_or(Duration::ZERO, |rate| {
            self.released(later(number as f64 / rate), rate)
        });
        loop {
            let elapsed = self.start.elapsed();
            if let Some(end) = self.is_up() {
                return Wait::Ends(end);
            }
            if self.over.load(Ordering::Relaxed) {
                return Wait::Over;
            }
            if elapsed >= due {
                return Wait::Due;
            }
            let rest = self.limits.duration.saturating_sub(elapsed);
            thread::sleep(due.saturating_sub(elapsed).min(rest).min(NAP));
        }
    }
}

/// What came of waiting for a turn.
enum Wait {
    /// It is due.
    Due,
    /// The run is over; another thread has said why.
    Over,
    /// This ends the run.
    Ends(End),
}

/// `seconds` after the start; never, where that is longer than a duration can say.
fn later(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// What the turns so far have shown.
#[derive(Default)]
struct Samples {
    turns: u64,
    closed_by_server: u64,
    ends: Ends,
    cliff: Option<Cliff>,
    before_cliff: Latencies,
    after_cliff: Latencies,
    login: Latencies,
    /// Since the last moment.
    recent: Latencies,
}

impl Samples {
    fn add(&mut self, turn: Turn, fast_ports: Option<u64>, start: Instant) {
        self.turns += 1;
        self.closed_by_server += u64::from(turn.closed_by_server);
        self.ends.add(turn.connect);
        self.recent.add(turn.connect);
        if let Some(login) = turn.login {
            self.login.add(login);
        }
        if self.cliff.is_some() {
            self.after_cliff.add(turn.connect);
        } else {
            self.before_cliff.add(turn.connect);
            if fast_ports == Some(self.turns) {
                self.cliff = Some(Cliff {
                    connections: self.turns,
                    seconds: start.elapsed(),
                });
            }
        }
    }

    fn finish(
        self,
        elapsed: Duration,
        (end, unfinished): (End, Option<Duration>),
        timeline: Vec<Moment>,
    ) -> Outcome {
        Outcome {
            turns: self.turns,
            closed_by_server: self.closed_by_server,
            opened: None,
            unfinished,
            elapsed,
            end,
            first: self.ends.first(),
            last: self.ends.last(),
            around_cliff: [self.before_cliff.get(), self.after_cliff.get()],
            cliff: self.cliff,
            login: self.login.get(),
            timeline,
        }
    }
}

/// The moments of a run.
struct Timeline {
    start: Instant,
    last: Instant,
    /// How long the last look at the socket table took.
    look: Duration,
    turns: u64,
    moments: Vec<Moment>,
}

/// How often the socket table is looked at: fine enough to draw, seldom enough not to slow the
/// loop (a look at 28,000 sockets takes some 8 ms).
const MOMENT: Duration = Duration::from_millis(250);

/// Where a look takes long, because the machine has many sockets, they are further apart: at most
/// this part of the time is spent looking.
const LOOKING: u32 = 20;

impl Timeline {
    fn new(start: Instant) -> Self {
        Self {
            start,
            last: start,
            look: Duration::ZERO,
            turns: 0,
            moments: Vec::new(),
        }
    }

    /// Time until the next moment.
    fn due(&self) -> Duration {
        MOMENT
            .max(self.look * LOOKING)
            .saturating_sub(self.last.elapsed())
    }

    fn mark(
        &mut self,
        samples: &Mutex<Samples>,
        ports_in_use: &mut impl FnMut() -> Option<u32>,
    ) -> &Moment {
        let now = Instant::now();
        let (turns, recent) = {
            let samples = &mut *lock(samples);
            (samples.turns, std::mem::take(&mut samples.recent))
        };
        let ports_in_use = ports_in_use();
        self.look = now.elapsed();
        #[expect(clippy::cast_precision_loss)] // The connections of one moment.
        let made = (turns - self.turns) as f64;
        self.moments.push(Moment {
            seconds: now - self.start,
            connections: turns,
            rate: made / (now - self.last).as_secs_f64().max(f64::EPSILON),
            ports_in_use,
            connect_latency_us: recent.get(),
        });
        (self.last, self.turns) = (now, turns);
        &self.moments[self.moments.len() - 1]
    }
}

pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// Seconds read back.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
fn rate<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(words::rounded(*rate))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::repro::target::Target;

    /// A client of a server that takes each connection and waits for its end.
    fn client() -> Arc<Client> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Target::embedded(listener.local_addr().unwrap());
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let _ = io::copy(&mut &connection, &mut io::sink());
            }
        });
        Arc::new(Client::tcp(&target, Vec::new()))
    }

    fn limits() -> Limits {
        Limits {
            connections: None,
            duration: Duration::from_secs(20),
            rate: None,
            threads: 1,
            fast_ports: None,
        }
    }

    fn run_of(limits: Limits) -> Outcome {
        run(
            &client(),
            None,
            limits,
            &Stop::default(),
            || Some(5),
            |_| (),
        )
    }

    #[test]
    fn so_many_connections_are_made_as_were_asked_for_whatever_the_threads() {
        for threads in [1, 3] {
            let outcome = run_of(Limits {
                connections: Some(20),
                threads,
                fast_ports: Some(8),
                ..limits()
            });
            assert!(matches!(outcome.end, End::Count), "{:?}", outcome.end);
            assert_eq!(outcome.turns, 20, "{threads} threads");
            assert_eq!(outcome.cliff.map(|cliff| cliff.connections), Some(8));
            let last = outcome.timeline.last().unwrap();
            assert_eq!((last.connections, last.ports_in_use), (20, Some(5)));
        }
    }

    #[test]
    fn a_pace_is_not_outrun_and_the_time_is_kept() {
        let outcome = run_of(Limits {
            duration: Duration::from_secs(1),
            rate: Some(20.0),
            ..limits()
        });
        assert!(matches!(outcome.end, End::Duration), "{:?}", outcome.end);
        // At 0.00, 0.05, … 0.95 s.
        assert!((1..=20).contains(&outcome.turns), "{}", outcome.turns);
        let most = Duration::from_secs(1) + 2 * GRACE;
        assert!(outcome.elapsed <= most, "{:?}", outcome.elapsed);
    }

    #[test]
    fn a_failure_ends_a_run_and_tells_more_than_a_limit() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Target::embedded(nobody.local_addr().unwrap());
        drop(nobody);
        let client = Arc::new(Client::tcp(&target, Vec::new()));
        let limits = Limits {
            connections: Some(2),
            threads: 4,
            ..limits()
        };
        let outcome = run(&client, None, limits, &Stop::default(), || None, |_| ());
        assert_eq!(outcome.turns, 0);
        assert!(matches!(outcome.end, End::Failed(_)), "{:?}", outcome.end);
    }

    #[test]
    fn a_duration_too_long_to_say_is_forever() {
        assert_eq!(later(f64::INFINITY), Duration::MAX);
        assert_eq!(later(1.5), Duration::from_millis(1500));
    }
}
