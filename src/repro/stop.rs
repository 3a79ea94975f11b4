use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

/// A signal that ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: `kill`, `timeout`, a service manager.
    Terminate,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Interrupt, Self::Terminate];

    /// Its number on Linux.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }

    /// The exit status by which a shell tells that a signal ended a process.
    #[must_use]
    pub const fn status(self) -> u8 {
        128 + self.number()
    }
}

/// Whether a signal has asked the run to stop, and which.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Set by SIGINT and SIGTERM from now on. Another one after the first ends the process at once.
    ///
    /// # Errors
    /// When the kernel refuses to have them caught.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let again = Arc::new(AtomicBool::new(false));
        for signal in Signal::ALL {
            let (number, status) = (signal.number().into(), signal.status().into());
            // In this order: the first signal finds the way out still closed.
            register_conditional_shutdown(number, status, Arc::clone(&again))?;
            register(number, Arc::clone(&again))?;
            register_usize(number, Arc::clone(&stop.0), signal.number().into())?;
        }
        Ok(stop)
    }

    /// The signal that asked; `None` when none did.
    #[must_use]
    pub fn asked(&self) -> Option<Signal> {
        let number = self.0.load(Ordering::Relaxed);
        let asks = |signal: &Signal| usize::from(signal.number()) == number;
        Signal::ALL.into_iter().find(asks)
    }
}

const _: () = assert!(
    Signal::Interrupt.number() as i32 == SIGINT && Signal::Terminate.number() as i32 == SIGTERM
);
