use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::cause::{Cause, Stage};
use super::session::{Close, Session};
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
    /// A pool of `size` connections to `target`. `open` opens each.
    ///
    /// # Errors
    /// Why one could not be opened, and how many were before.
    pub fn open(
        target: &Target,
        size: usize,
        open: impl Fn() -> Result<Session, Cause>,
    ) -> Result<Self, (Cause, u64)> {
        let size = size as u64;
        let pool = Self {
            size,
            idle: Mutex::default(),
            given_back: Condvar::new(),
            patience: target.patience(),
        };
        for opened in 0..size {
            match open() {
                Ok(session) => pool.give_back(session),
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
            return Err(Cause::Slow {
                stage: Stage::Question,
                after: self.patience,
            });
        };
        drop(idle);
        session.ask("DO 0", Exchange::within(self.patience))?;
        self.give_back(session);
        Ok(())
    }

    /// Takes leave over those that are not lent: the server counts clients that do not.
    pub fn close(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for session in idle.drain(..) {
            session.leave(Close::Quit);
        }
    }

    fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(session);
        self.given_back.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}
