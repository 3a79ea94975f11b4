use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long something took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them were faster.
    pub p50: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
}

/// Samples of one kind, in bounded memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    pub(super) fn add(&mut self, sample: Duration) {
        /// A minute in microseconds: no attempt takes longer.
        const LONGEST: u64 = 60_000_000;
        /// Three digits: finer than any two runs agree.
        const DIGITS: u8 = 3;
        if self.0.is_none() {
            self.0 = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(u64::try_from(sample.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// The percentiles; `None` of nothing.
    pub(super) fn get(&self) -> Option<Latency> {
        self.0.as_ref().map(|histogram| Latency {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
        })
    }

    fn of(samples: impl IntoIterator<Item = Duration>) -> Self {
        let mut latencies = Self::default();
        for sample in samples {
            latencies.add(sample);
        }
        latencies
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
        Latencies::of(self.first.iter().copied()).get()
    }

    pub(super) fn last(&self) -> Option<Latency> {
        Latencies::of(self.last.iter().copied()).get()
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

    #[test]
    fn a_slow_connect_is_not_cut_to_the_scale() {
        let slow = [3, 5_409, 5_409, 2_000_000].map(Duration::from_micros);
        let Latency { p50, p99 } = Latencies::of(slow).get().unwrap();
        assert!((5_400..5_420).contains(&p50), "{p50}");
        assert!((1_998_000..2_002_000).contains(&p99), "{p99}");
        let hour = Latencies::of([Duration::from_secs(3600)]).get().unwrap();
        assert!((59_900_000..60_100_000).contains(&hour.p50), "{hour:?}");
    }
}
