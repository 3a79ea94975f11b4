//! Exit statuses.

use std::process::ExitCode;

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
