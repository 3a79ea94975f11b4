//! Exit statuses.

use std::process::ExitCode;

use crate::judge::verdict::Level;
use crate::repro::StoppedBy;

/// How a run ends, as its exit status tells it.
///
/// `verdict` follows the monitoring-plugin convention; a usage error is 3 as well, so that a
/// mistyped flag never pages anyone as CRITICAL.
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
            StoppedBy::Exhausted => Self::Critical,
            StoppedBy::Error => Self::Unknown,
            StoppedBy::Duration | StoppedBy::Count | StoppedBy::Interrupted => Self::Ok,
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
}
