//! The last minute and the next one, from one look at the table.
//!
//! A TIME_WAIT carries the time it has left, so one snapshot tells, per flow, how many connections
//! were closed in each of the last seconds ([`History`]) and when each held port comes back. What
//! the minute shows goes on ([`Course`]): the latest piece of a straight line, a cycle that has come
//! back, or bursts that come at equal distances. The next minute is replayed on that course ([`exhaustion`]), and on the most careful
//! and the most hasty one that chance allows.

mod bursts;
mod course;
mod cycle;
mod history;
mod pieces;
mod replay;
mod shortage;

pub use course::{Course, Pace};
pub use history::{History, Rate, SECONDS};
pub use replay::{Exhaustion, Supply, exhaustion, lateness, safe_rate};
pub use shortage::Shortage;

#[expect(clippy::cast_precision_loss)] // At most sixty seconds.
fn mean(seconds: &[u16]) -> f64 {
    if seconds.is_empty() {
        return 0.0;
    }
    seconds.iter().map(|&count| f64::from(count)).sum::<f64>() / seconds.len() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        Course::of(&History::new(&after(phases), MINUTE)).pace()
    }

    fn ports(left: &[u16], free: u32) -> Supply<'_> {
        Supply {
            usable: free + left.iter().map(|&count| u32::from(count)).sum::<u32>(),
            free,
            time_wait_left: left,
            overdue: 0,
            hold_time: MINUTE,
            late: Duration::from_secs(2),
        }
    }

    fn forecast(phases: &[(usize, u16)], usable: u32) -> Option<Exhaustion> {
        let left = after(phases);
        let taken: u32 = left.iter().map(|&count| u32::from(count)).sum();
        let history = History::new(&left, MINUTE);
        exhaustion(&history, ports(&left, usable.saturating_sub(taken)))
    }

    /// The likely moment in tenths of a second.
    #[expect(clippy::cast_possible_truncation)]
    fn likely(phases: &[(usize, u16)], usable: u32) -> Option<i64> {
        forecast(phases, usable).map(|when| (when.likely * 10.0).round() as i64)
    }

    #[test]
    fn the_latest_second_comes_first_and_a_shorter_hold_time_tells_less() {
        let left = [1, 2, 3, 4, 5];
        let closed = |hold| {
            let history = History::new(&left, Duration::from_millis(hold));
            history.per_second().to_vec()
        };
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
        let rate = History::new(&after(&[(50, 0), (10, 30)]), MINUTE).rate(30.0, false);
        assert_eq!(
            rate,
            Rate {
                now: 30.0,
                last_10_s: 30.0,
                last_60_s: 5.0,
                peak_1_s: 30,
                lower_bound: false
            }
        );
        let empty = History::new(&[], Duration::ZERO).rate(0.0, true);
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
            period: None,
        };
        assert_eq!(pace(&[(60, 100)]), steady(100.0, 60));
        assert_eq!(pace(&[(30, 100), (4, 300)]), steady(300.0, 4), "it sped up");
        assert_eq!(pace(&[(30, 100), (3, 0)]), steady(0.0, 3), "it stopped");
        assert_eq!(pace(&[(1, 70), (3, 200)]), steady(200.0, 3), "it began");
        assert_eq!(pace(&[]), steady(0.0, 0));
    }

    #[test]
    fn who_speeds_up_has_to_show_it_and_who_slows_down_is_believed() {
        assert!((pace(&[(30, 100), (1, 300)]).now - 100.0).abs() < 0.1);
        assert!((pace(&[(30, 100), (1, 10)]).now - 10.0).abs() < 0.1);
    }

    #[test]
    fn a_rising_pace_is_followed() {
        let rising: Vec<_> = (0..10).map(|second| (1, 1000 + 20 * second)).collect();
        let pace = pace(&rising);
        assert!((pace.growth - 20.0).abs() < 0.1, "{pace:?}");
        assert!((pace.now - 1190.0).abs() < 0.1, "{pace:?}");
    }

    #[test]
    fn zeros_before_a_client_began_are_no_slope() {
        // 70 % of what 600 ports bear, for some seconds.
        for seconds in 1..30 {
            let when = forecast(&[(1, 3), (seconds, 7)], 600);
            assert_eq!(when, None, "after {seconds} s");
        }
    }

    #[test]
    fn few_connections_are_no_pace() {
        assert_eq!(forecast(&[(1, 1)], 2), None);
        assert_eq!(forecast(&[(1, 1), (9, 0)], 2), None);
        assert_eq!(forecast(&[(3, 1), (2, 2)], 100), None);
    }

    #[test]
    fn a_burst_that_came_twice_is_expected_again() {
        // Every 30 s 250 connections, and 2 a second: two bursts are there at a time, and the third
        // comes 10 s from now, before the first is back.
        let bursts = [(9, 2), (1, 250), (29, 2), (1, 250), (20, 2)];
        let pace = pace(&bursts);
        assert_eq!(pace.period, Some(30));
        let when = forecast(&bursts, 800).unwrap();
        assert!((9.0..=10.0).contains(&when.likely), "{when:?}");
        assert_eq!(forecast(&bursts, 1000), None, "there is room for three");
    }

    #[test]
    fn a_burst_that_was_cut_short_is_expected_again_without_certainty() {
        // The second one met errno 99.
        let cut = [(20, 3), (2, 120), (28, 3), (1, 70), (1, 0), (1, 20), (7, 3)];
        let when = forecast(&cut, 600).unwrap();
        assert_eq!((when.pace.period, when.latest), (Some(30), None));
        assert!((19.0..=22.0).contains(&when.likely), "{when:?}");
    }

    #[test]
    fn a_burst_that_came_once_is_not() {
        let once = [(20, 2), (1, 250), (39, 2)];
        assert_eq!(pace(&once).period, None);
        assert_eq!(forecast(&once, 500), None);
    }

    #[test]
    fn a_wave_that_turned_around_before_will_again() {
        // 20 s from crest to crest: rising now, but not for long.
        let wave: Vec<_> = [80, 90, 100, 110, 120, 120, 110, 100, 90, 80]
            .into_iter()
            .cycle()
            .take(56)
            .map(|rate| (2, rate))
            .collect();
        assert_eq!(pace(&wave).period, Some(20));
        assert_eq!(forecast(&wave, 6600), None);
        assert!(forecast(&wave, 6100).is_some());
    }

    #[test]
    fn what_chance_leaves_open_is_said() {
        // 96 to 105 a second, of 100 that 6,200 ports bear.
        let even = forecast(&[(30, 110)], 6200).unwrap();
        let random: Vec<_> = [120, 98, 113, 101, 124, 97, 110, 117, 105, 115]
            .into_iter()
            .cycle()
            .take(30)
            .map(|rate| (1, rate))
            .collect();
        let random = forecast(&random, 6200).unwrap();
        let width = |when: Exhaustion| when.latest.map(|latest| latest - when.earliest);
        assert!(width(even).unwrap() < 4.0, "{even:?}");
        assert!(width(random).is_none_or(|width| width > 2.0), "{random:?}");
        // Barely above: perhaps, and perhaps not.
        assert_eq!(forecast(&[(10, 101)], 6000).unwrap().latest, None);
        // Two seconds are likely to go on, and no certainty.
        let begun = forecast(&[(1, 200), (2, 300)], 3000).unwrap();
        assert_eq!(begun.latest, None, "{begun:?}");
    }

    #[test]
    fn a_steady_client_runs_out_when_its_free_ports_are_used_up() {
        // 1,000 ports, 60 a second for 10 s: 400 are left, 6.7 s.
        assert_eq!(likely(&[(1, 30), (10, 60)], 1030), Some(67));
        assert_eq!(likely(&[(10, 60)], 601), Some(0));
        assert_eq!(likely(&[(10, 60)], 600), Some(0));
    }

    #[test]
    fn just_below_the_limit_nothing_runs_out_and_just_above_it_does() {
        // 6,000 ports bear 100 a second.
        assert_eq!(likely(&[(60, 80)], 6000), None);
        assert_eq!(likely(&[(30, 80)], 6000), None);
        assert_eq!(likely(&[(10, 96)], 6000), None);
        // What the timer wheel takes.
        assert_eq!(likely(&[(10, 99)], 6000), Some(506));
        assert_eq!(likely(&[(10, 101)], 6000), Some(494));
    }

    #[test]
    fn where_ports_are_nearly_gone_the_client_wants_what_its_busiest_second_took() {
        // 90 a second want 1,000 ports, which give 16.7: each turn of the wheel they are gone again.
        let refused = [(11, 90), (41, 0), (1, 8), (1, 90), (1, 20)];
        let when = forecast(&refused, 1110).unwrap();
        assert!(when.likely < 1.0, "{when:?}");
        assert!((when.pace.now - 90.0).abs() < 0.1, "{when:?}");
        // The same table, and nobody takes any.
        let gone = [(11, 90), (38, 0), (1, 8), (1, 90), (1, 20), (3, 0)];
        assert_eq!(forecast(&gone, 1110), None);
    }

    #[test]
    fn returning_ports_are_counted_on() {
        // 59 s ago 3,000 ports were taken at once: they return within the second.
        let mut left = vec![0; 60];
        left[0] = 3000;
        for recent in &mut left[50..] {
            *recent = 100;
        }
        let history = History::new(&left, MINUTE);
        let forecast = exhaustion(&history, ports(&left, 2000)).unwrap().likely;
        assert!((forecast - 50.0).abs() < 0.1, "{forecast}");
        // And those that are overdue come back within the lateness.
        let overdue = Supply {
            overdue: 3000,
            ..ports(&left[1..], 2000)
        };
        // The 100 of the bin that is a second nearer now come back at the turn before.
        let forecast = exhaustion(&history, overdue).unwrap().likely;
        assert!((forecast - 51.0).abs() < 0.1, "{forecast}");
        let soon = Supply {
            overdue: 3000,
            ..ports(&[], 100)
        };
        let forecast = exhaustion(&history, soon).unwrap().likely;
        assert!((forecast - 1.0).abs() < 0.1, "{forecast}");
    }

    #[test]
    fn the_wheel_turns_when_those_that_are_overdue_say() {
        // 10 a second come back; 15 are overdue, so it turned 1.5 s ago and turns again in 0.5 s.
        let mut left = vec![0; 60];
        left[..4].fill(10);
        left[50..].fill(30);
        let turning = Supply {
            overdue: 15,
            ..ports(&left, 20)
        };
        let history = History::new(&left, MINUTE);
        // 20 and those 20 that the turn gives last for 1.33 s.
        let when = exhaustion(&history, turning).unwrap();
        assert!((when.likely - 1.33).abs() < 0.1, "{when:?}");
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
        assert_eq!(likely(&[(20, 100), (2, 0)], 2001), None);
    }

    proptest! {
        #[test]
        fn no_table_makes_it_panic_and_no_forecast_lies_beyond_the_hold_time(
            left in proptest::collection::vec(any::<u16>(), 0..100),
            free: u32,
            hold in 0_u64..700,
        ) {
            let hold_time = Duration::from_secs(hold);
            let history = History::new(&left, hold_time);
            let ports = Supply { usable: free, hold_time, ..ports(&left, 0) };
            let ports = Supply { free: free / 2, ..ports };
            let horizon = hold_time.as_secs_f64() + 2.0;
            if let Some(when) = exhaustion(&history, ports) {
                prop_assert!(0.0 <= when.earliest && when.earliest <= when.likely);
                let latest = when.latest.unwrap_or(when.likely);
                prop_assert!(when.likely <= latest && latest <= horizon);
            }
            let _ = Shortage::of(&history, ports, 1.0);
        }
    }
}
