use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

/// How often the server is asked. Each question costs it some 100 µs.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks the server for `Threads_connected` beside the loop, over a connection opened before it.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Watch {
    /// Starts to watch over `connection`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(connection: Conn) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch(connection, &told))?;
        Ok(Self { stop, thread })
    }

    /// Ends it: the most threads seen connected, or why the server did not tell.
    ///
    /// # Errors
    /// In the server's words.
    pub fn finish(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread
            .join()
            .unwrap_or_else(|_| Err("the watching thread panicked".into()))
    }
}

fn watch(mut connection: Conn, stop: &AtomicBool) -> Result<u64, String> {
    let mut most = 0;
    loop {
        let row: Option<(String, u64)> = connection
            .query_first("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
            .map_err(|error| error.to_string())?;
        let (_, now) = row.ok_or("SHOW GLOBAL STATUS returned no Threads_connected")?;
        most = most.max(now);
        if stop.load(Ordering::Relaxed) {
            super::target::close(connection);
            return Ok(most);
        }
        thread::park_timeout(INTERVAL);
    }
}
