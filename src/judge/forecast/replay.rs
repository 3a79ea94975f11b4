//! The next minute, replayed: ports are taken as the course says and come back as the table says.

use std::time::Duration;

use super::course::{Course, Pace, Side};
use super::history::History;
use crate::words::rounded;

/// The ports of a flow as the forecast needs them.
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    /// Ports there are.
    pub usable: u32,
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

/// When a flow runs out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exhaustion {
    /// Seconds from now on the likely course.
    pub likely: f64,
    /// If more connections come than is likely.
    pub earliest: f64,
    /// If fewer come, and ports come back in time; `None` where none runs out then.
    pub latest: Option<f64>,
    /// The pace that leads there.
    pub pace: Pace,
}

impl Exhaustion {
    /// From the earliest to the latest, as the JSON shows it.
    #[must_use]
    pub fn range(&self) -> (f64, Option<f64>) {
        (rounded(self.earliest), self.latest.map(rounded))
    }
}

/// When the ports run out, if what `history` shows goes on; `None` where they do not on the likely
/// course before the last port that is held now is back: from then on as many return as are taken.
#[must_use]
pub fn exhaustion(history: &History, ports: Supply) -> Option<Exhaustion> {
    if ports.are_many_for(history) {
        return None;
    }
    let at_once = ports.refused_at_once(history);
    at_once.or_else(|| on_course(&Course::of(history), ports))
}

fn on_course(course: &Course, ports: Supply) -> Option<Exhaustion> {
    // What is opened adds up: if all of it is fewer than what is free now, nothing runs out.
    let all = course.opened_within(ports.horizon(), Side::Likely);
    if !course.is_known() || all < f64::from(ports.free) {
        return None;
    }
    let late = ports.late.as_secs_f64();
    let opened = |side| move |seconds| course.opened_within(seconds, side);
    let back_late = |late| move |seconds| ports.back_late(seconds, late);
    let by_turns = |seconds| ports.back_by_turns(seconds);
    let likely = ports.run_out(opened(Side::Likely), by_turns)?;
    let earliest = ports.run_out(opened(Side::Hasty), back_late(late));
    let latest = ports.run_out(opened(Side::Careful), back_late(0.0));
    Some(Exhaustion {
        likely,
        earliest: earliest.map_or(likely, |earliest| earliest.min(likely)),
        latest: latest
            .filter(|_| course.is_sure())
            .map(|latest| latest.max(likely)),
        pace: course.pace(),
    })
}

/// The highest steady rate at which the flow does not run out within the next minute: at each
/// moment, what there is until then lasts until then.
#[must_use]
pub fn safe_rate(ports: Supply) -> f64 {
    let late = ports.late.as_secs_f64();
    let there = |now| f64::from(ports.free) + ports.back_late(now, late);
    ports
        .moments()
        .skip(1)
        .map(|now| there(now) / now)
        .fold(f64::from(u16::MAX), f64::min)
}

/// The step of the replay, far below what a forecast is good for.
const STEP: f64 = 0.02;

impl Supply<'_> {
    /// Whether no pace that the history can show spends the free ports: one that does within the
    /// hold time spends in a second as many as these connections, if not more.
    fn are_many_for(&self, history: &History) -> bool {
        let closed: f64 = history.per_second().iter().map(|&it| f64::from(it)).sum();
        closed * self.hold_time.as_secs_f64() < f64::from(self.free)
    }

    /// Where no more ports are free than one turn of the wheel gives back, the client has perhaps
    /// been refused lately: it took what the last turns gave, and its mean is what the kernel can
    /// give, not what it wants. That, its busiest second since shows best.
    fn refused_at_once(self, history: &History) -> Option<Exhaustion> {
        let late = self.late.as_secs_f64();
        let one_turn = f64::from(self.usable) * late / self.hold_time.as_secs_f64();
        if f64::from(self.free) > one_turn {
            return None;
        }
        let turn = history.per_second().iter().take(whole(late.ceil()));
        let pace = Pace {
            now: turn.clone().copied().max()?.into(),
            growth: 0.0,
            steady_for: turn.len(),
            period: None,
        };
        let opened = |seconds| pace.now * seconds;
        let likely = self
            .run_out(opened, |seconds| self.back_by_turns(seconds))
            .filter(|&likely| likely < late)?;
        Some(Exhaustion {
            likely,
            earliest: 0.0,
            latest: self.run_out(opened, |seconds| self.back_late(seconds, 0.0)),
            pace,
        })
    }

    /// The seconds until no port is free, where so many are opened and so many are back within some
    /// seconds.
    fn run_out(
        self,
        opened_within: impl Fn(f64) -> f64,
        back_within: impl Fn(f64) -> f64,
    ) -> Option<f64> {
        let free = f64::from(self.free);
        self.moments()
            .find(|&now| free + back_within(now) - opened_within(now) <= 0.0)
    }

    /// The moments of the replay, until the last port that is held now is back.
    fn moments(self) -> impl Iterator<Item = f64> {
        let horizon = self.horizon();
        (0_u32..)
            .map(|step| f64::from(step) * STEP)
            .take_while(move |&now| now <= horizon)
    }

    fn horizon(self) -> f64 {
        (self.hold_time + self.late).as_secs_f64()
    }

    /// Ports back within `seconds`, each `late` after its time.
    fn back_late(self, seconds: f64, late: f64) -> f64 {
        if seconds < late {
            return 0.0;
        }
        f64::from(self.overdue) + returned_within(self.time_wait_left, seconds - late)
    }

    /// Ports back within `seconds` as the wheel turns: at each turn, all whose time is over. The
    /// overdue ones tell when it turned last: their time ran out since, at the pace at which the
    /// next ones follow.
    fn back_by_turns(self, seconds: f64) -> f64 {
        let period = self.late.as_secs_f64().max(STEP);
        let following = returned_within(self.time_wait_left, period) / period;
        let since = if following > 0.0 {
            (f64::from(self.overdue) / following).min(period)
        } else {
            0.0
        };
        let first = period - since;
        if seconds < first {
            return 0.0;
        }
        let last = first + ((seconds - first) / period).floor() * period;
        f64::from(self.overdue) + returned_within(self.time_wait_left, last)
    }

    /// The seconds until the first and until the last held port is back, at the latest; `None` where
    /// none comes back by itself.
    pub(super) fn returns(self) -> Option<(f64, f64)> {
        let late = self.late.as_secs_f64();
        let mut held = (1_u16..)
            .zip(self.time_wait_left)
            .filter(|(_, count)| **count > 0)
            .map(|(seconds, _)| f64::from(seconds));
        let first = if self.overdue > 0 {
            Some(0.0)
        } else {
            held.next()
        }?;
        let last = held.last().unwrap_or(first);
        Some((first + late, last + late))
    }

    /// The seconds until more than `wanted` ports are back, at the latest.
    pub(super) fn back(self, wanted: f64) -> Option<f64> {
        let late = self.late.as_secs_f64();
        let mut back = f64::from(self.overdue);
        if back > wanted {
            return Some(late);
        }
        for (seconds, &count) in (0_u16..).zip(self.time_wait_left) {
            let missing = wanted - back;
            back += f64::from(count);
            if back > wanted {
                return Some(f64::from(seconds) + missing / f64::from(count) + late);
            }
        }
        None
    }
}

/// Ports in TIME_WAIT that come back within `seconds`, those of one second spread evenly over it.
fn returned_within(time_wait_left: &[u16], seconds: f64) -> f64 {
    let full = time_wait_left.iter().take(whole(seconds));
    let partial = time_wait_left.get(whole(seconds)).copied().unwrap_or(0);
    full.map(|&count| f64::from(count)).sum::<f64>() + f64::from(partial) * seconds.fract()
}

/// The whole seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 0 and the hold time.
fn whole(seconds: f64) -> usize {
    seconds as usize
}
