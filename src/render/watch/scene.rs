use std::time::Duration;

use super::controls::Controls;
use crate::judge::trend::Trend;
use crate::judge::verdict::Verdict;

/// What is to be shown.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The last look that could be had.
    pub verdict: &'a Verdict,
    /// What all looks have shown.
    pub trend: &'a Trend,
    /// What the user has asked for.
    pub controls: &'a Controls,
    /// What is watched: a destination, a namespace.
    pub about: &'a str,
    /// Why there was no look since; `None` where there was.
    pub failed: Option<&'a str>,
    /// How long ago that look was.
    pub age: Duration,
    /// The time from the first look to it.
    pub running: Duration,
    /// What it took of a processor, drawing included; `None` where that is not told.
    pub cpu: Option<Duration>,
}
