//! How many errors came when: a number for each minute, or for longer where that would be too many.

use serde::Serialize;
use serde::ser::SerializeStruct;

use super::time::Moment;

/// Spans that are kept; where more would be needed each grows to twice its length.
const SPANS: usize = 64;

/// Counts by time, in constant memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Each span is 2 to the power of this minutes long.
    doubled: u32,
    /// The number of the first span since 1970.
    first: i64,
    counts: [u32; SPANS],
    /// Spans up to the last that has any.
    used: usize,
}

impl Timeline {
    /// That of `count` errors at one time.
    #[must_use]
    pub fn new(moment: Moment, count: u64) -> Self {
        let mut counts = [0; SPANS];
        counts[0] = u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            doubled: 0,
            first: moment.seconds.div_euclid(60),
            counts,
            used: 1,
        }
    }

    /// So many more.
    pub fn add(&mut self, moment: Moment, count: u64) {
        let more = u32::try_from(count).unwrap_or(u32::MAX);
        let minute = moment.seconds.div_euclid(60);
        loop {
            let span = minute >> self.doubled;
            let last = self.first + i64::try_from(self.used).unwrap_or(0) - 1;
            let length = last.max(span) - self.first.min(span) + 1;
            if usize::try_from(length).is_ok_and(|length| length <= SPANS) {
                let before = usize::try_from(self.first - span).unwrap_or(0);
                if before > 0 {
                    self.counts.copy_within(..self.used, before);
                    self.counts[..before].fill(0);
                    self.first = span;
                    self.used += before;
                }
                let at = usize::try_from(span - self.first).unwrap_or(0);
                self.used = self.used.max(at + 1);
                self.counts[at] = self.counts[at].saturating_add(more);
                return;
            }
            self.coarsen();
        }
    }

    /// Makes each span twice as long.
    fn coarsen(&mut self) {
        let mut counts = [0_u32; SPANS];
        let first = self.first >> 1;
        let mut used = 0;
        for (place, count) in self.counts[..self.used].iter().enumerate() {
            let span = (self.first + i64::try_from(place).unwrap_or(0)) >> 1;
            let at = usize::try_from(span - first).unwrap_or(0);
            counts[at] = counts[at].saturating_add(*count);
            used = at + 1;
        }
        (self.first, self.counts, self.used) = (first, counts, used);
        self.doubled += 1;
    }

    /// How many minutes each number stands for.
    #[must_use]
    pub fn minutes_each(&self) -> u64 {
        1 << self.doubled
    }

    /// The numbers, the earliest first.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts[..self.used]
    }
}

impl Timeline {
    /// The numbers as bars are drawn of them.
    #[must_use]
    pub fn bars(&self) -> Vec<u16> {
        let bar = |count: &u32| u16::try_from(*count).unwrap_or(u16::MAX);
        self.counts().iter().map(bar).collect()
    }
}

impl Serialize for Timeline {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Timeline", 2)?;
        object.serialize_field("minutes_each", &self.minutes_each())?;
        object.serialize_field("counts", self.counts())?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(minutes: &[i64]) -> (u64, Vec<u32>) {
        let moment = |minute: &i64| Moment {
            seconds: minute * 60 + 7,
            zone: None,
        };
        let mut line = Timeline::new(moment(&minutes[0]), 1);
        minutes[1..]
            .iter()
            .for_each(|minute| line.add(moment(minute), 1));
        (line.minutes_each(), line.counts().to_vec())
    }

    #[test]
    fn each_minute_has_its_number_and_order_does_not_matter() {
        assert_eq!(of(&[100, 100, 103]), (1, vec![2, 0, 0, 1]));
        assert_eq!(of(&[103, 100, 100]), (1, vec![2, 0, 0, 1]));
        assert_eq!(of(&[0]), (1, vec![1]));
    }

    #[test]
    fn longer_spans_keep_every_error() {
        use proptest::prelude::*;
        proptest!(|(minutes in proptest::collection::vec(-1_000_000_i64..1_000_000_000, 1..80))| {
            let (each, counts) = of(&minutes);
            prop_assert!(counts.len() <= SPANS);
            prop_assert_eq!(counts.iter().sum::<u32>() as usize, minutes.len());
            prop_assert!(counts[0] > 0 && counts[counts.len() - 1] > 0);
            let width = minutes.iter().max().unwrap() - minutes.iter().min().unwrap();
            prop_assert!(each == 1 || width.cast_unsigned() >= each * (SPANS as u64) / 4);
        });
    }
}
