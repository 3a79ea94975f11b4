//! A process that runs out of open files before it runs out of ports.

use std::fmt;

use super::level::Level;
use crate::model::Owner;
use crate::words::{count, counted, percent};

/// From this share of its limit of open files on a process is near it, in percent: as for ports.
const FILES_NEARLY_SPENT: f64 = 80.0;

/// The open files of a process that is near its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// Which.
    pub owner: Owner,
    /// Files it has open.
    pub open: u64,
    /// Files it may have open.
    pub limit: u64,
    /// Ports that its flow can still have; `None` when unknown.
    pub ports_free: Option<u32>,
}

impl Files {
    /// How bad it is; `None` where the limit is far away.
    pub(super) fn level(&self) -> Option<Level> {
        let level = if self.open >= self.limit {
            Level::Critical
        } else {
            Level::Warning
        };
        (percent(self.open, self.limit) >= FILES_NEARLY_SPENT).then_some(level)
    }

    /// What to do about it.
    pub(super) fn next_step(&self) -> String {
        /// How many times as many are enough for a while.
        const MORE: u64 = 4;
        format!(
            "Mend what keeps so many open. Until then raise the limit: LimitNOFILE= of its unit, \
             `ulimit -n`, or now, as root: `prlimit --pid {} --nofile={}:`.",
            self.owner.pid,
            self.limit.saturating_mul(MORE)
        )
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has {} of {} files open, its sockets among them. At the limit socket() and accept() \
             fail with errno 24 (too many open files)",
            self.owner,
            count(self.open),
            count(self.limit)
        )?;
        let left = self.limit.saturating_sub(self.open);
        match self.ports_free {
            Some(free) if u64::from(free) > left => {
                write!(f, ", before errno 99: {} are free.", counted(free, "port"))
            }
            _ => f.write_str("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::owner;

    fn files(open: u64, ports_free: Option<u32>) -> Files {
        Files {
            owner: owner(),
            open,
            limit: 1024,
            ports_free,
        }
    }

    #[test]
    fn a_limit_of_open_files_is_near_from_four_fifths_on() {
        for (open, level) in [
            (818, None),
            (820, Some(Level::Warning)),
            (1023, Some(Level::Warning)),
            (1024, Some(Level::Critical)),
            // The limit was lowered, or the files were inherited.
            (2000, Some(Level::Critical)),
        ] {
            assert_eq!(files(open, None).level(), level, "{open}");
        }
    }

    #[test]
    fn files_come_before_ports_only_where_fewer_are_left() {
        let said = |ports_free| files(1019, ports_free).to_string();
        let start = "python3 (pid 7, user app) has 1,019 of 1,024 files open, its sockets among \
                     them. At the limit socket() and accept() fail with errno 24 (too many open \
                     files)";
        assert_eq!(
            said(Some(27_213)),
            format!("{start}, before errno 99: 27,213 ports are free.")
        );
        for ports_free in [None, Some(0), Some(5)] {
            assert_eq!(said(ports_free), format!("{start}."));
        }
    }
}
