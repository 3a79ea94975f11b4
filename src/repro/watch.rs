use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError};
use serde::Serialize;

/// How often the server is asked. Each question costs it some 100 µs.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the server counts, at one moment (`SHOW GLOBAL STATUS`); `None` what it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
    thread: JoinHandle<Result<Watched, String>>,
}

impl Watch {
    /// Starts to watch over `connection`.
    ///
    /// # Errors
    /// In the server's words, when it does not answer; or when no thread can be started.
    pub fn start(mut connection: Conn) -> Result<Self, String> {
        let before = status(&mut connection).map_err(|error| in_words(&error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch(connection, before, &told).map_err(|error| in_words(&error)))
            .map_err(|error| error.to_string())?;
        Ok(Self { stop, thread })
    }

    /// Ends it: what was seen, or why the server did not tell.
    ///
    /// # Errors
    /// In the server's words.
    pub fn finish(self) -> Result<Watched, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread
            .join()
            .unwrap_or_else(|_| Err("the watching thread panicked".into()))
    }
}

/// An error of the watching connection.
#[must_use]
pub fn in_words(error: &mysql::Error) -> String {
    match error {
        mysql::Error::MySqlError(error) => {
            format!("ERROR {} ({}): {}", error.code, error.state, error.message)
        }
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
        let row: Option<(String, u64)> =
            connection.query_first("SHOW GLOBAL STATUS LIKE 'Threads_connected'")?;
        most = row.map_or(most, |(_, now)| most.max(now));
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

fn status(connection: &mut Conn) -> Result<ServerStatus, mysql::Error> {
    let rows: Vec<(String, u64)> = connection.query(
        "SHOW GLOBAL STATUS WHERE Variable_name IN \
         ('Threads_connected', 'Aborted_clients', 'Max_used_connections')",
    )?;
    let value = |name: &str| {
        rows.iter()
            .find(|(row, _)| row == name)
            .map(|(_, value)| *value)
    };
    Ok(ServerStatus {
        threads_connected: value("Threads_connected"),
        aborted_clients: value("Aborted_clients"),
        max_used_connections: value("Max_used_connections"),
    })
}
