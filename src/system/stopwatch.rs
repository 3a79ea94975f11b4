use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::model::Cost;

/// Measures what this process takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What was taken until now.
    #[must_use]
    pub fn cost(self) -> Cost {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let memory = |usage: Usage| u64::try_from(usage.max_rss()).ok().map(|it| it * 1024);
        Cost {
            elapsed: self.0.elapsed(),
            cpu: usage.map(|usage| duration(usage.user_time()) + duration(usage.system_time())),
            memory: usage.and_then(memory),
        }
    }
}

fn duration(time: TimeVal) -> Duration {
    let microseconds = time.tv_sec() * 1_000_000 + time.tv_usec();
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
}
