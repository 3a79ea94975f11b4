//! The last minute and the next one, from one look at the table.
//!
//! A TIME_WAIT carries the time it has left, so one snapshot tells, per flow, how many connections
//! were closed in each of the last seconds and when each held port comes back.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::words::rounded;

/// Seconds of history shown: TIME_WAIT lasts no longer on any stock kernel.
pub const SECONDS: usize = 60;

/// How many of the latest seconds the forecast looks at.
const RECENT: usize = 10;

/// A pace must have been kept for so many seconds to be one: a burst ends by itself.
pub const STEADY_FOR: usize = 3;

/// Connections closed in each of the last seconds, the latest first. It ends where TIME_WAIT ends:
/// before that nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct History(Vec<u16>);

/// How fast a flow closes connections, per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
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

/// The ports of a flow as the forecast needs them.
#[derive(Debug, Clone, Copy)]
pub struct Ports<'a> {
    /// Ports the flow can still have.
    pub free: u32,
    /// Ports in TIME_WAIT by whole seconds left: when they come back.
    pub time_wait_left: &'a [u16],
    /// Ports whose TIME_WAIT is over already.
    pub overdue: u32,
    /// How long TIME_WAIT keeps a port.
    pub hold_time: Duration,
    /// How much longer than that at worst: see [`lateness`].
    pub late: Duration,
}

/// How late a port comes back at worst after its TIME_WAIT has run out. The kernel's timer wheel
/// keeps a timer of so many ticks to 8^n of them: 60 s are 15,000 ticks at 250 Hz, kept to 512 ticks,
/// 2.05 s (`calc_wheel_index` in kernel/time/timer.c; measured there: 60.1 to 62.0 s). At 1000 Hz it
/// is 4.1 s, at 100 Hz 5.1 s. `tick` is the length of one; without it 250 Hz are assumed.
#[must_use]
pub fn lateness(hold_time: Duration, tick: Option<Duration>) -> Duration {
    /// The ticks of 250 Hz.
    const USUAL: Duration = Duration::from_millis(4);
    let tick = tick.filter(|tick| !tick.is_zero()).unwrap_or(USUAL);
    let ticks = hold_time.as_nanos() / tick.as_nanos();
    // The wheel has 64 slots a level, each level eight times as coarse as the one below.
    let mut granularity = 1;
    while 63 * granularity < ticks && granularity < 8_u32.pow(8).into() {
        granularity *= 8;
    }
    tick * u32::try_from(granularity).unwrap_or(u32::MAX)
}

/// The pace of the latest seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Connections per second, now.
    pub now: f64,
    /// By how much that grows each second; 0 where noise explains the change.
    pub growth: f64,
    /// For how many seconds it has been so.
    pub steady_for: usize,
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

    /// The rates it shows.
    #[must_use]
    pub fn rate(&self, lower_bound: bool) -> Rate {
        Rate {
            last_10_s: mean(&self.0[..self.0.len().min(RECENT)]),
            last_60_s: mean(&self.0),
            peak_1_s: self.0.iter().copied().max().unwrap_or(0),
            lower_bound,
        }
    }

    /// The pace of the latest seconds: as many of the last ten as belong together, so that a client
    /// that started, stopped or changed its speed is judged by what it does now.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let recent = &self.0[..self.0.len().min(RECENT)];
        let mut steady = 1.min(recent.len());
        while steady < recent.len() && belongs(recent[steady], &recent[..steady]) {
            steady += 1;
        }
        Pace::fit(&recent[..steady])
    }
}

/// Whether a second fits those after it: within three standard deviations of random arrivals, or a
/// tenth, whichever is more.
fn belongs(count: u16, later: &[u16]) -> bool {
    let expected = mean(later);
    let tolerance = (3.0 * expected.max(1.0).sqrt()).max(expected / 10.0);
    (f64::from(count) - expected).abs() <= tolerance
}

impl Pace {
    /// A straight line through the seconds, the latest first.
    #[expect(clippy::cast_precision_loss)] // At most ten seconds.
    fn fit(seconds: &[u16]) -> Self {
        let length = seconds.len() as f64;
        let average = mean(seconds);
        let middle = (length - 1.0) / 2.0;
        let spread = length * (length * length - 1.0) / 12.0;
        let slope = if seconds.len() < 4 {
            0.0
        } else {
            seconds
                .iter()
                .enumerate()
                .map(|(age, &count)| (middle - age as f64) * f64::from(count))
                .sum::<f64>()
                / spread
        };
        // The standard error of a slope through random arrivals.
        let noise = (average.max(1.0) / spread.max(1.0)).sqrt();
        let growth = if slope.abs() > 3.0 * noise {
            slope
        } else {
            0.0
        };
        Self {
            // The end of the latest second lies half a second after its middle.
            now: (average + growth * (middle + 0.5)).max(0.0),
            growth,
            steady_for: seconds.len(),
        }
    }

    /// Connections opened within the next `seconds` at this pace.
    fn opened_within(&self, seconds: f64) -> f64 {
        // A falling pace ends at zero, it does not turn around.
        let until = if self.growth < 0.0 {
            seconds.min(-self.now / self.growth)
        } else {
            seconds
        };
        self.now * until + self.growth * until * until / 2.0
    }
}

/// The step of the replay, far below what a forecast is good for.
const STEP: f64 = 0.02;

/// Replays the next minute: ports are taken at `pace`, and each port in TIME_WAIT comes back when
/// its time is over, as late as the kernel lets it. The seconds until none is free; `None` when that
/// does not happen before the last held port is back, from when on as many return as are taken.
#[must_use]
pub fn seconds_to_exhaustion(pace: Pace, ports: Ports) -> Option<f64> {
    let free = f64::from(ports.free);
    let late = ports.late.as_secs_f64();
    let horizon = ports.hold_time.as_secs_f64() + late;
    if pace.opened_within(horizon) < free {
        return None; // Not even if no port came back.
    }
    let mut now = 0.0;
    while now <= horizon {
        let returned = if now < late {
            0.0
        } else {
            f64::from(ports.overdue) + returned_within(ports.time_wait_left, now - late)
        };
        if free + returned - pace.opened_within(now) <= 0.0 {
            return Some(now);
        }
        now += STEP;
    }
    None
}

/// The highest steady rate at which the flow does not run out within the next minute.
#[must_use]
pub fn safe_rate(ports: Ports) -> f64 {
    let steady = |now| Pace {
        now,
        growth: 0.0,
        steady_for: 0,
    };
    let (mut safe, mut unsafe_rate) = (0.0, f64::from(u16::MAX));
    // Each step halves what is left of 65,536: 20 leave less than a tenth.
    for _ in 0..20 {
        let middle = f64::midpoint(safe, unsafe_rate);
        if seconds_to_exhaustion(steady(middle), ports).is_some() {
            unsafe_rate = middle;
        } else {
            safe = middle;
        }
    }
    safe
}

/// Ports in TIME_WAIT that come back within `seconds`, those of one second spread evenly over it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss // Between 0 and the hold time.
)]
fn returned_within(time_wait_left: &[u16], seconds: f64) -> f64 {
    let whole = seconds as usize;
    let full = time_wait_left.iter().take(whole);
    let partial = time_wait_left.get(whole).copied().unwrap_or(0);
    full.map(|&count| f64::from(count)).sum::<f64>() + f64::from(partial) * seconds.fract()
}

#[expect(clippy::cast_precision_loss)] // At most sixty seconds.
fn mean(seconds: &[u16]) -> f64 {
    if seconds.is_empty() {
        return 0.0;
    }
    seconds.iter().map(|&count| f64::from(count)).sum::<f64>() / seconds.len() as f64
}

/// A hold time in whole seconds, rounded up.
fn seconds_of(hold_time: Duration) -> usize {
    usize::try_from(hold_time.as_millis().div_ceil(1000)).unwrap_or(usize::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
fn one_decimal<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*rate))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// TIME_WAIT by seconds left, after `seconds` at each of the rates, the earliest first.
    fn after(phases: &[(usize, u16)]) -> Vec<u16> {
        let mut closed: Vec<u16> = phases
            .iter()
            .flat_map(|&(seconds, rate)| std::iter::repeat_n(rate, seconds))
            .collect();
        closed.drain(..closed.len().saturating_sub(60));
        let missing = 60 - closed.len();
        [vec![0; missing], closed].concat()
    }

    fn pace(phases: &[(usize, u16)]) -> Pace {
        History::new(&after(phases), MINUTE).pace()
    }

    fn ports(left: &[u16], free: u32) -> Ports<'_> {
        Ports {
            free,
            time_wait_left: left,
            overdue: 0,
            hold_time: MINUTE,
            late: Duration::from_secs(2),
        }
    }

    #[expect(clippy::cast_possible_truncation)]
    fn forecast(phases: &[(usize, u16)], usable: u32) -> Option<i64> {
        let left = after(phases);
        let taken: u32 = left.iter().map(|&count| u32::from(count)).sum();
        let pace = History::new(&left, MINUTE).pace();
        seconds_to_exhaustion(pace, ports(&left, usable.saturating_sub(taken)))
            .map(|seconds| (seconds * 10.0).round() as i64)
    }

    #[test]
    fn the_latest_second_comes_first_and_a_shorter_hold_time_tells_less() {
        let left = [1, 2, 3, 4, 5];
        let closed = |hold| History::new(&left, Duration::from_millis(hold)).0;
        assert_eq!(closed(5000), [5, 4, 3, 2, 1]);
        assert_eq!(
            closed(7000),
            [0, 0, 5, 4, 3, 2, 1],
            "nothing closed for two seconds"
        );
        assert_eq!(closed(4500), [5, 4, 3, 2, 1], "half a second counts as one");
        assert_eq!(closed(60_000).len(), 60);
        assert_eq!(
            closed(600_000),
            [0; 60],
            "all closed more than a minute ago"
        );
    }

    #[test]
    fn a_timer_longer_than_the_hold_time_corrects_it() {
        let mut left = vec![0; 70];
        left[69] = 9;
        assert_eq!(History::new(&left, MINUTE).per_second()[..2], [9, 0]);
    }

    #[test]
    fn rates_are_averages_over_what_is_known() {
        let rate = History::new(&after(&[(50, 0), (10, 30)]), MINUTE).rate(false);
        assert_eq!(
            rate,
            Rate {
                last_10_s: 30.0,
                last_60_s: 5.0,
                peak_1_s: 30,
                lower_bound: false
            }
        );
        let empty = History::new(&[], Duration::ZERO).rate(true);
        assert_eq!(
            (empty.last_10_s, empty.last_60_s, empty.peak_1_s),
            (0.0, 0.0, 0)
        );
    }

    #[test]
    fn the_pace_is_that_of_now() {
        let steady = |now, steady_for| Pace {
            now,
            growth: 0.0,
            steady_for,
        };
        assert_eq!(pace(&[(30, 100)]), steady(100.0, 10));
        assert_eq!(pace(&[(30, 100), (4, 300)]), steady(300.0, 4), "it sped up");
        assert_eq!(pace(&[(30, 100), (3, 0)]), steady(0.0, 3), "it stopped");
        assert_eq!(pace(&[(3, 200)]), steady(200.0, 3), "it began");
        assert_eq!(pace(&[]), steady(0.0, 10));
    }

    #[test]
    fn a_rising_pace_is_followed() {
        let rising: Vec<_> = (0..10).map(|second| (1, 1000 + 20 * second)).collect();
        let pace = pace(&rising);
        assert!((pace.growth - 20.0).abs() < 0.01, "{pace:?}");
        assert!((pace.now - 1190.0).abs() < 0.01, "{pace:?}");
    }

    #[test]
    fn a_steady_client_runs_out_when_its_free_ports_are_used_up() {
        // 1,000 ports, 60 a second for 10 s: 400 are left, 6.7 s.
        assert_eq!(forecast(&[(10, 60)], 1000), Some(67));
        assert_eq!(forecast(&[(10, 60)], 601), Some(0));
        assert_eq!(forecast(&[(10, 60)], 600), Some(0));
    }

    #[test]
    fn just_below_the_limit_nothing_runs_out_and_just_above_it_does() {
        // 6,000 ports bear 100 a second.
        assert_eq!(forecast(&[(60, 80)], 6000), None);
        assert_eq!(forecast(&[(30, 80)], 6000), None);
        assert_eq!(forecast(&[(10, 96)], 6000), None);
        // What the timer wheel takes.
        assert_eq!(forecast(&[(10, 99)], 6000), Some(506));
        assert_eq!(forecast(&[(10, 101)], 6000), Some(494));
    }

    #[test]
    fn returning_ports_are_counted_on() {
        // 59 s ago 3,000 ports were taken at once: they return within the second.
        let mut left = vec![0; 60];
        left[0] = 3000;
        for recent in &mut left[50..] {
            *recent = 100;
        }
        let pace = History::new(&left, MINUTE).pace();
        let forecast = seconds_to_exhaustion(pace, ports(&left, 2000)).unwrap();
        assert!((forecast - 50.0).abs() < 0.1, "{forecast}");
        // And those that are overdue come back within the lateness.
        let overdue = Ports {
            overdue: 3000,
            ..ports(&left[1..], 2000)
        };
        let forecast = seconds_to_exhaustion(pace, overdue).unwrap();
        assert!((forecast - 50.0).abs() < 0.1, "{forecast}");
        let soon = Ports {
            overdue: 3000,
            ..ports(&[], 100)
        };
        let forecast = seconds_to_exhaustion(pace, soon).unwrap();
        assert!((forecast - 1.0).abs() < 0.1, "{forecast}");
    }

    #[test]
    fn the_safe_rate_is_what_the_ports_bear_for_a_minute() {
        let empty = safe_rate(ports(&[], 6000));
        assert!((empty - 6000.0 / 62.0).abs() < 0.2, "{empty}");
        // Half of them come back only at the end.
        let mut left = vec![0; 60];
        left[59] = 3000;
        let half = safe_rate(ports(&left, 3000));
        assert!((half - 3000.0 / 61.0).abs() < 1.0, "{half}");
        assert!(safe_rate(ports(&left, 0)) < 0.1);
    }

    #[test]
    fn lateness_is_what_the_timer_wheel_rounds_to() {
        let at = |hertz: u32| lateness(MINUTE, Some(Duration::from_secs(1) / hertz)).as_millis();
        assert_eq!([at(100), at(250), at(1000)], [5120, 2048, 4096]);
        assert_eq!(lateness(MINUTE, None).as_millis(), 2048);
        assert_eq!(
            lateness(Duration::ZERO, Some(Duration::ZERO)).as_millis(),
            4
        );
    }

    #[test]
    fn a_client_that_stopped_runs_out_of_nothing() {
        assert_eq!(forecast(&[(20, 100), (2, 0)], 2001), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_and_no_forecast_lies_beyond_the_hold_time(
            left in proptest::collection::vec(any::<u16>(), 0..100),
            free: u32,
            hold in 0_u64..700,
        ) {
            let hold_time = Duration::from_secs(hold);
            let pace = History::new(&left, hold_time).pace();
            let ports = Ports { hold_time, ..ports(&left, free) };
            if let Some(seconds) = seconds_to_exhaustion(pace, ports) {
                prop_assert!((0.0..=hold_time.as_secs_f64() + 2.0).contains(&seconds));
            }
        }
    }
}
