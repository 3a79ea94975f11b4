//! Since when ports have been short, and when they are back.

use serde::Serialize;

use super::history::History;
use super::mean;
use super::replay::Supply;
use crate::words::rounded;

/// The oldest seconds of the table: what came back since was closed before them, at about their
/// pace.
const OLDEST: usize = 5;

/// A shortage that TIME_WAIT makes, from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shortage {
    /// For how many seconds more ports have been taken than the threshold.
    pub since_seconds: usize,
    /// Whether it can be more: it is as long as the table reaches back.
    pub since_at_least: bool,
    /// Seconds until the first held port is back, at the latest.
    pub first_port_back_seconds: f64,
    /// Seconds until all of them are, at the latest.
    pub last_port_back_seconds: f64,
    /// Seconds until fewer ports are taken than the threshold, if nobody connects; `None` where
    /// open connections alone take as many.
    pub below_threshold_seconds: Option<f64>,
}

impl Shortage {
    /// Of a flow whose `history` took `ports`, of which a `threshold` may be taken; `None` where no
    /// more are, or none of them is in TIME_WAIT.
    #[must_use]
    pub fn of(history: &History, ports: Supply, threshold: f64) -> Option<Self> {
        let taken = f64::from(ports.usable.saturating_sub(ports.free));
        if taken <= 0.0 || taken < threshold {
            return None;
        }
        let (first, last) = ports.returns()?;
        let known = history.per_second().len();
        let since_seconds = since(history, taken, threshold);
        let below = ports.back(taken - threshold);
        // The first and the last are told at the latest, what lies between as it is likely.
        let below = below.map(|below| below.clamp(first, last));
        Some(Self {
            since_seconds,
            since_at_least: since_seconds == known,
            first_port_back_seconds: rounded(first),
            last_port_back_seconds: rounded(last),
            below_threshold_seconds: below.map(rounded),
        })
    }
}

/// For how many whole seconds `threshold` ports and more have been taken, as far back as is known.
///
/// What was taken some seconds ago is what is taken now, less the connections closed since, and what
/// has come back since. The latter is no longer in the table: it was closed a minute earlier, and is
/// taken to have come at the pace of the oldest seconds.
#[expect(clippy::cast_precision_loss)] // At most sixty.
fn since(history: &History, taken: f64, threshold: f64) -> usize {
    let seconds = history.per_second();
    let came_back = mean(&seconds[seconds.len().saturating_sub(OLDEST)..]);
    let mut closed_since = 0.0;
    for (age, &closed) in seconds.iter().enumerate() {
        closed_since += f64::from(closed);
        let back_since = came_back * (age + 1) as f64;
        if taken - closed_since + back_since < threshold {
            return age;
        }
    }
    seconds.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Of a flow of 1,000 ports that closed `rate` connections in each of the last `seconds`, and
    /// holds `open` ones.
    fn shortage(seconds: usize, rate: u16, open: u32, threshold: f64) -> Option<Shortage> {
        let mut left = vec![0; 60];
        left[60 - seconds..].fill(rate);
        let taken = open + u32::from(rate) * u32::try_from(seconds).unwrap();
        let ports = Supply {
            usable: 1000,
            free: 1000 - taken,
            time_wait_left: &left,
            overdue: 0,
            hold_time: MINUTE,
            late: Duration::from_secs(2),
        };
        Shortage::of(&History::new(&left, MINUTE), ports, threshold)
    }

    #[test]
    fn a_shortage_began_when_the_threshold_was_crossed() {
        // 20 a second for 40 s: 800 are taken, 500 were 15 s ago.
        let now = shortage(40, 20, 0, 500.0).unwrap();
        assert_eq!((now.since_seconds, now.since_at_least), (15, false));
        // What is open was open then.
        let now = shortage(40, 20, 100, 500.0).unwrap();
        assert_eq!((now.since_seconds, now.since_at_least), (20, false));
    }

    #[test]
    fn a_shortage_older_than_the_table_lasts_at_least_as_long() {
        // 15 a second for an hour: 900 are always taken.
        let now = shortage(60, 15, 0, 800.0).unwrap();
        assert_eq!((now.since_seconds, now.since_at_least), (60, true));
    }

    #[test]
    fn ports_are_back_when_their_time_is_over_and_the_wheel_has_turned() {
        // The oldest was closed 39 to 40 s ago.
        let now = shortage(40, 20, 0, 500.0).unwrap();
        assert!((now.first_port_back_seconds - 23.0).abs() < 0.1, "{now:?}");
        assert!((now.last_port_back_seconds - 62.0).abs() < 0.1, "{now:?}");
        // More than 300 are back after 15 s of returns at 20 a second, from 20 s on.
        let below = now.below_threshold_seconds.unwrap();
        assert!((below - 37.0).abs() < 0.2, "{below}");
        assert_eq!(
            shortage(40, 20, 190, 150.0)
                .unwrap()
                .below_threshold_seconds,
            None
        );
    }

    #[test]
    fn ports_come_back_in_their_order() {
        // All at once: enough of them are back with the first, and none of the times is before it.
        for rate in [500, 501, 600, 1000] {
            let now = shortage(1, rate, 0, 500.0).unwrap();
            let below = now.below_threshold_seconds.unwrap();
            assert!(now.first_port_back_seconds <= below, "{now:?}");
            assert!(below <= now.last_port_back_seconds, "{now:?}");
        }
    }

    #[test]
    fn below_the_threshold_there_is_no_shortage() {
        assert_eq!(shortage(40, 20, 0, 801.0), None);
        assert_eq!(shortage(0, 0, 0, 0.0), None);
        assert_eq!(
            shortage(0, 0, 900, 500.0),
            None,
            "nothing comes back by itself"
        );
    }
}
