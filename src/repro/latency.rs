use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// How long connections took to open, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of them were faster.
    pub p50: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
}

impl Latency {
    /// The percentiles of `samples`; `None` of nothing.
    pub fn of(samples: impl IntoIterator<Item = Duration>) -> Option<Self> {
        /// Three digits: finer than any two runs agree.
        const DIGITS: u8 = 3;
        let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
        for sample in samples {
            histogram.saturating_record(u64::try_from(sample.as_micros()).unwrap_or(u64::MAX));
        }
        (!histogram.is_empty()).then(|| Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
        })
    }
}

/// How many connections "the first" and "the last" are.
pub(super) const WINDOW: usize = 1000;

/// The first and the last [`WINDOW`] samples of a run, however long it is.
#[derive(Debug, Default)]
pub(super) struct Ends {
    first: Vec<Duration>,
    last: VecDeque<Duration>,
}

impl Ends {
    pub(super) fn add(&mut self, sample: Duration) {
        if self.first.len() < WINDOW {
            self.first.push(sample);
        }
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(sample);
    }

    pub(super) fn first(&self) -> Option<Latency> {
        Latency::of(self.first.iter().copied())
    }

    pub(super) fn last(&self) -> Option<Latency> {
        Latency::of(self.last.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept_apart_and_nothing_has_no_latency() {
        let mut ends = Ends::default();
        assert_eq!((ends.first(), ends.last()), (None, None));
        for microseconds in (0..1000).map(|_| 20).chain((0..1000).map(|_| 500)) {
            ends.add(Duration::from_micros(microseconds));
        }
        assert_eq!(ends.first(), Some(Latency { p50: 20, p99: 20 }));
        assert_eq!(ends.last(), Some(Latency { p50: 500, p99: 500 }));
    }
}
