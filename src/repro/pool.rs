use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::session::Session;
use super::target::Target;
use super::wire::Exchange;

/// Connections that are lent and given back, all of them opened at once.
pub(super) struct Pool {
    /// Of them.
    pub size: u64,
    idle: Mutex<Vec<Session>>,
    given_back: Condvar,
    patience: Duration,
}

impl Pool {
    /// A pool of `size` connections to `target`, open by `end`. `open` opens each.
    ///
    /// # Errors
    /// Why one could not be opened, and how many were before.
    pub fn open(
        target: &Target,
        size: usize,
        end: Instant,
        open: impl Fn() -> Result<Session, Cause>,
    ) -> Result<Self, (Cause, u64)> {
        let size = size as u64;
        let begun = Instant::now();
        let pool = Self {
            size,
            idle: Mutex::default(),
            given_back: Condvar::new(),
            patience: target.patience(),
        };
        for opened in 0..size {
            match open() {
                Ok(session) => pool.give_back(session),
                Err(Cause::Slow { .. }) if Instant::now() >= end => {
                    let cause = Cause::PoolNotOpen {
                        opened,
                        size,
                        after: begun.elapsed(),
                    };
                    return Err((cause, opened));
                }
                Err(cause) => return Err((cause, opened)),
            }
        }
        Ok(pool)
    }

    /// Takes a connection, asks the server, and gives it back, unless it broke.
    ///
    /// # Errors
    /// Where none is free in time, or the server does not answer.
    pub fn work(&self) -> Result<(), Cause> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut idle, _) = self
            .given_back
            .wait_timeout_while(idle, self.patience, |idle| idle.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(mut session) = idle.pop() else {
            return Err(Cause::PoolBusy {
                size: self.size,
                after: self.patience,
            });
        };
        drop(idle);
        session.ask("DO 0", Exchange::within(self.patience))?;
        self.give_back(session);
        Ok(())
    }

    fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(session);
        self.given_back.notify_one();
    }
}

impl Drop for Pool {
    /// The server counts clients that do not take leave.
    fn drop(&mut self) {
        /// How long the servers of all of them together may take to close their ends.
        const LINGER: Duration = Duration::from_secs(1);
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        let partings: Vec<_> = idle.drain(..).map(Session::part).collect();
        let end = Instant::now() + LINGER;
        for parting in partings {
            parting.linger(Some(end.saturating_duration_since(Instant::now())));
        }
    }
}
