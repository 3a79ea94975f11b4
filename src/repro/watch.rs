use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::failure::in_words;
use super::session::{Close, Session};
use super::wire::Exchange;

/// How often the server is asked. Each question costs it some 100 µs.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server counts, at one moment (`SHOW GLOBAL STATUS`); `None` what it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Open connections.
    pub threads_connected: Option<u64>,
    /// Connections that ended without COM_QUIT, since the server's start.
    pub aborted_clients: Option<u64>,
    /// Connections that never came to be, since the server's start.
    pub aborted_connects: Option<u64>,
    /// The most connections open at a time, since the server's start.
    pub max_used_connections: Option<u64>,
}

/// What was seen of the server during a run, as long as it could be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// The most threads seen connected; `None` where it does not tell.
    pub most: Option<u64>,
    /// What it counted before the run; `None` where it did not answer then.
    pub before: Option<ServerStatus>,
    /// After it.
    pub after: Option<ServerStatus>,
    /// Why the watch ended before the run did; `None` where it did not.
    pub ended: Option<String>,
}

/// Asks the server for `Threads_connected` beside the loop, over a connection of the loop's own:
/// its first, which stays open. It gives way where the server has no room for it.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Thread,
    /// Hears when it is ready, and nothing more once it is over.
    over: Mutex<Receiver<()>>,
    seen: Arc<Mutex<Watched>>,
    /// When it ended for the loop's sake.
    gave_way: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Starts to watch over `session`, whose first answer may take this `time` of the run's; at its
    /// end it closes as `close` says.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(session: Session, close: Close, time: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Watched::default()));
        let (tell, told) = mpsc::channel();
        let (stopped, written) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            let ready = || {
                // Who has stopped waiting does not hear it.
                let _ = tell.send(());
            };
            watch(session, close, &stopped, &written, ready);
        })?;
        // What the server counted before the run, and not during it.
        let _ = told.recv_timeout(time.min(PATIENCE));
        Ok(Self {
            stop,
            thread: thread.thread().clone(),
            over: Mutex::new(told),
            seen,
            gave_way: Mutex::default(),
        })
    }

    /// Gives its connection up for the loop's, which got `cause` instead of one that it began to
    /// open at this moment. Whether there is room now that was not there then.
    pub(super) fn gives_way(&self, cause: &Cause, begun: Instant) -> bool {
        let mut gave_way = lock(&self.gave_way);
        let at = *gave_way.get_or_insert_with(|| {
            self.end();
            let mut seen = lock(&self.seen);
            seen.after = None;
            seen.ended = Some(format!(
                "it gave its connection to the loop, for which the server had no room: {}",
                in_words(cause)
            ));
            Instant::now()
        });
        at > begun
    }

    /// Ends it: what was seen.
    #[must_use]
    pub fn finish(&self) -> Watched {
        if lock(&self.gave_way).is_none() {
            self.end();
        }
        lock(&self.seen).clone()
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
        let over = lock(&self.over);
        loop {
            match over.recv_timeout(PATIENCE) {
                // It is ready only now.
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let mut seen = lock(&self.seen);
                    if seen.after.is_none() {
                        let fell_over = || "twcheck met a fault of its own there".into();
                        seen.ended.get_or_insert_with(fell_over);
                    }
                    return;
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let silent = || "the server did not answer the watching connection".into();
        lock(&self.seen).ended.get_or_insert_with(silent);
    }
}

fn watch(
    mut session: Session,
    close: Close,
    stop: &AtomicBool,
    seen: &Mutex<Watched>,
    ready: impl FnOnce(),
) {
    let ended = observe(&mut session, seen, stop, ready);
    if let Err(cause) = ended {
        lock(seen).ended = Some(in_words(&cause));
    }
    match close {
        // The next login may need its place.
        Close::Quit => session.leave_for_good(),
        Close::Abrupt => drop(session.leave(close)),
    }
}

fn observe(
    session: &mut Session,
    seen: &Mutex<Watched>,
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<(), Cause> {
    let before = status(session);
    ready();
    let before = before?;
    {
        let mut seen = lock(seen);
        seen.before = Some(before);
        seen.most = before.threads_connected;
    }
    loop {
        let rows = session.ask(
            "SHOW GLOBAL STATUS LIKE 'Threads_connected'",
            Exchange::within(PATIENCE),
        )?;
        let now = connections(&rows, "Threads_connected");
        let most = {
            let mut seen = lock(seen);
            seen.most = seen.most.max(now);
            seen.most
        };
        if stop.load(Ordering::Relaxed) {
            let after = status(session)?;
            // A new peak of the server's own is the true one: here only moments are seen.
            let peak = after
                .max_used_connections
                .filter(|_| after.max_used_connections > before.max_used_connections);
            let mut seen = lock(seen);
            seen.most = most.max(peak);
            seen.after = Some(after);
            return Ok(());
        }
        thread::park_timeout(INTERVAL);
    }
}

/// The value of the variable `name`; a proxy may answer anything.
fn value(rows: &[[String; 2]], name: &str) -> Option<u64> {
    /// No server has counted so far.
    const MOST: u64 = 1 << 48;
    let row = rows.iter().find(|row| row[0].eq_ignore_ascii_case(name));
    row.and_then(|row| row[1].parse().ok())
        .filter(|value| *value < MOST)
}

/// A number of connections, the one that asks among them, and no more than a machine can have.
fn connections(rows: &[[String; 2]], name: &str) -> Option<u64> {
    const MOST: u64 = 1_000_000;
    value(rows, name).filter(|value| (1..=MOST).contains(value))
}

fn status(session: &mut Session) -> Result<ServerStatus, Cause> {
    let rows = session.ask(
        "SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected', 'Aborted_clients', \
         'Aborted_connects', 'Max_used_connections')",
        Exchange::within(PATIENCE),
    )?;
    let value = |name: &str| value(&rows, name);
    Ok(ServerStatus {
        threads_connected: connections(&rows, "Threads_connected"),
        aborted_clients: value("Aborted_clients"),
        aborted_connects: value("Aborted_connects"),
        max_used_connections: connections(&rows, "Max_used_connections"),
    })
}
