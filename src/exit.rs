//! Exit statuses.

use std::process::ExitCode;

use crate::judge::level::Level;
use crate::repro::{Signal, StoppedBy};

/// How a run ends, as its exit status tells it.
///
/// `verdict` follows the monitoring-plugin convention; a usage error is 3 as well, so that a
/// mistyped flag never pages anyone as CRITICAL. Nothing else changes a status, a reader that has
/// gone (`| head -1`) least of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; `verdict`: OK.
    Ok = 0,
    /// `verdict`: WARNING.
    Warning = 1,
    /// `verdict`: CRITICAL; `repro`: it met exhaustion.
    Critical = 2,
    /// Could not, or misused; `verdict`: UNKNOWN.
    Unknown = 3,
    /// `repro`: SIGINT ended it, and the report is of what was done until then. As a shell has it,
    /// so that `repro && next` goes no further.
    Interrupted = Signal::Interrupt.status(),
    /// `repro`: likewise SIGTERM.
    Terminated = Signal::Terminate.status(),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Level> for Exit {
    fn from(level: Level) -> Self {
        match level {
            Level::Ok => Self::Ok,
            Level::Unknown => Self::Unknown,
            Level::Warning => Self::Warning,
            Level::Critical => Self::Critical,
        }
    }
}

impl From<StoppedBy> for Exit {
    fn from(stopped_by: StoppedBy) -> Self {
        match stopped_by {
            StoppedBy::Interrupted(Signal::Interrupt) => Self::Interrupted,
            StoppedBy::Interrupted(Signal::Terminate) => Self::Terminated,
            ended => ended.level().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_the_monitoring_plugin_convention() {
        assert_eq!(
            [Exit::Ok, Exit::Warning, Exit::Critical, Exit::Unknown].map(|exit| exit as u8),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn a_run_that_a_signal_ended_exits_as_a_shell_tells_of_it() {
        for (signal, status) in [(Signal::Interrupt, 130), (Signal::Terminate, 143)] {
            assert_eq!(Exit::from(StoppedBy::Interrupted(signal)) as u8, status);
        }
    }
}
