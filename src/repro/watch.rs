use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, Thread};
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Row};
use serde::{Deserialize, Serialize};

use crate::words::printable;

/// How often the server is asked. Each question costs it some 100 µs.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the server counts, at one moment (`SHOW GLOBAL STATUS`); `None` what it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Open connections.
    pub threads_connected: Option<u64>,
    /// Connections that ended without COM_QUIT, since the server's start.
    pub aborted_clients: Option<u64>,
    /// The most connections open at a time, since the server's start.
    pub max_used_connections: Option<u64>,
}

/// What was seen of the server during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The most threads seen connected.
    pub most: u64,
    /// Before the run.
    pub before: ServerStatus,
    /// After it.
    pub after: ServerStatus,
}

/// Asks the server for `Threads_connected` beside the loop, over a connection opened before it.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Thread,
    told: Receiver<Result<Watched, String>>,
}

impl Watch {
    /// Starts to watch over `connection`.
    ///
    /// # Errors
    /// In the server's words, when it does not answer; or when no thread can be started.
    pub fn start(mut connection: Conn) -> Result<Self, String> {
        let before = status(&mut connection).map_err(|error| in_words(&error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                let watched = watch(connection, before, &stopped);
                // Who has stopped waiting does not hear it.
                let _ = tell.send(watched.map_err(|error| in_words(&error)));
            })
            .map_err(|error| error.to_string())?;
        Ok(Self {
            stop,
            thread: thread.thread().clone(),
            told,
        })
    }

    /// Ends it: what was seen, or why the server did not tell.
    ///
    /// # Errors
    /// In the server's words.
    pub fn finish(self) -> Result<Watched, String> {
        /// Longer than an idle server takes for two questions.
        const PATIENCE: Duration = Duration::from_secs(2);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
        self.told
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| Err("the server did not answer the watching connection".into()))
    }
}

/// An error of the watching connection.
#[must_use]
pub fn in_words(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(error) => printable(&format!(
            "ERROR {} ({}): {}",
            error.code, error.state, error.message
        )),
        mysql::Error::DriverError(DriverError::CouldNotConnect(Some((_, why, _)))) => {
            format!("its own connection could not be made: {why}")
        }
        _ => "the server broke off the watching connection".into(),
    }
}

fn watch(
    mut connection: Conn,
    before: ServerStatus,
    stop: &AtomicBool,
) -> Result<Watched, mysql::Error> {
    let mut most = 0;
    loop {
        let row: Option<Row> =
            connection.query_first("SHOW GLOBAL STATUS LIKE 'Threads_connected'")?;
        most = row
            .as_ref()
            .and_then(number)
            .map_or(most, |now| most.max(now));
        if stop.load(Ordering::Relaxed) {
            let after = status(&mut connection)?;
            // A new peak of the server's own is the true one: here only moments are seen.
            let peak = after
                .max_used_connections
                .filter(|_| after.max_used_connections > before.max_used_connections);
            return Ok(Watched {
                most: most.max(peak.unwrap_or(0)),
                before,
                after,
            });
        }
        thread::park_timeout(INTERVAL);
    }
}

/// The value of a row of SHOW STATUS; a proxy may answer otherwise.
fn number(row: &Row) -> Option<u64> {
    row.get_opt(1)?.ok()
}

fn status(connection: &mut Conn) -> Result<ServerStatus, mysql::Error> {
    let rows: Vec<Row> = connection.query(
        "SHOW GLOBAL STATUS WHERE Variable_name IN \
         ('Threads_connected', 'Aborted_clients', 'Max_used_connections')",
    )?;
    let value = |name: &str| {
        let is_named = |row: &&Row| {
            let found = row.get_opt::<String, _>(0);
            found.is_some_and(|found| found.is_ok_and(|found| found == name))
        };
        rows.iter().find(is_named).and_then(number)
    };
    Ok(ServerStatus {
        threads_connected: value("Threads_connected"),
        aborted_clients: value("Aborted_clients"),
        max_used_connections: value("Max_used_connections"),
    })
}
