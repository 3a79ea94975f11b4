use std::time::Duration;

use serde::{Serialize, Serializer};

use super::mean;
use crate::words::rounded;

/// Seconds of history shown: TIME_WAIT lasts no longer on any stock kernel.
pub const SECONDS: usize = 60;

/// Connections closed in each of the last seconds, the latest first. It ends where TIME_WAIT ends:
/// before that nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct History(Vec<u16>);

/// How fast a flow closes connections, per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Now: the pace that the forecast goes on with.
    #[serde(serialize_with = "one_decimal")]
    pub now: f64,
    /// Over the last ten seconds.
    #[serde(serialize_with = "one_decimal")]
    pub last_10_s: f64,
    /// Over the last sixty seconds, or as long as TIME_WAIT lasts where that is less.
    #[serde(serialize_with = "one_decimal")]
    pub last_60_s: f64,
    /// The busiest second.
    pub peak_1_s: u16,
    /// Whether the true rates can be higher: a port that was reused, or dropped at
    /// `tcp_max_tw_buckets`, has left the table.
    pub lower_bound: bool,
}

impl History {
    /// From TIME_WAIT by whole seconds left, on a kernel where it lasts `hold_time`. The longest
    /// timer seen tells better where it is longer than that.
    #[must_use]
    pub fn new(time_wait_left: &[u16], hold_time: Duration) -> Self {
        let hold = seconds_of(hold_time).max(time_wait_left.len());
        let closed = (0..hold.min(SECONDS))
            .map(|age| time_wait_left.get(hold - 1 - age).copied().unwrap_or(0))
            .collect();
        Self(closed)
    }

    /// Connections closed per second, the latest second first.
    #[must_use]
    pub fn per_second(&self) -> &[u16] {
        &self.0
    }

    /// The rates it shows, `now` being what the course says.
    #[must_use]
    pub fn rate(&self, now: f64, lower_bound: bool) -> Rate {
        Rate {
            now,
            last_10_s: mean(&self.0[..self.0.len().min(10)]),
            last_60_s: mean(&self.0),
            peak_1_s: self.0.iter().copied().max().unwrap_or(0),
            lower_bound,
        }
    }

    /// The whole seconds in which the client was there. The zeros before it began are no history,
    /// and the second in which it began is not a whole one: it counts only where it is all there is.
    pub(super) fn lived(&self) -> Lived<'_> {
        let first = self.0.iter().rposition(|&count| count > 0);
        let begun = first.is_some_and(|first| first + 1 < self.0.len());
        let whole = match first {
            Some(first) if begun => first.max(1),
            Some(_) => self.0.len(),
            None => 0,
        };
        Lived {
            seconds: &self.0[..whole],
            begun,
        }
    }
}

/// What there is of a client in the minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lived<'a> {
    /// Connections closed per second, the latest second first.
    pub seconds: &'a [u16],
    /// Whether it began within the minute.
    pub begun: bool,
}

/// A hold time in whole seconds, rounded up.
fn seconds_of(hold_time: Duration) -> usize {
    usize::try_from(hold_time.as_millis().div_ceil(1000)).unwrap_or(usize::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
fn one_decimal<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*rate))
}
