//! A number over a time of any length, in a bounded place.

/// So many values are kept.
const MOST: usize = 240;

/// Values look by look; once there are too many each stands for twice as many looks, by the highest
/// of them.
#[derive(Debug, Clone)]
pub struct Series {
    values: Vec<u32>,
    /// Looks that each value stands for.
    each: u32,
    /// Looks that the last value stands for so far.
    last: u32,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            each: 1,
            last: 1,
        }
    }
}

impl Series {
    /// Adds the next.
    pub fn push(&mut self, value: u32) {
        if self.last < self.each
            && let Some(last) = self.values.last_mut()
        {
            *last = value.max(*last);
            self.last += 1;
            return;
        }
        if self.values.len() == MOST {
            let highest = |pair: &[u32]| pair.iter().copied().max().unwrap_or(0);
            self.values = self.values.chunks(2).map(highest).collect();
            self.each *= 2;
        }
        self.values.push(value);
        self.last = 1;
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values, the earliest first.
    #[must_use]
    pub fn values(&self) -> &[u32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_of_any_length_is_bounded_and_keeps_its_peaks() {
        let mut series = Series::default();
        for value in 0..1_000_000 {
            series.push(if value == 123_456 { 9 } else { value % 2 });
        }
        assert!(series.values().len() <= MOST, "{}", series.values().len());
        assert!(series.values().len() > MOST / 4);
        assert_eq!(series.values().iter().max(), Some(&9));
        let place = series.values().iter().position(|&it| it == 9).unwrap();
        let share = place * 1_000_000 / series.values().len();
        assert!((110_000..136_000).contains(&share), "{share}");
    }
}
