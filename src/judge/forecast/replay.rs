//! The next minute, replayed: ports are taken as the course says and come back as the table says.

use std::time::Duration;

use super::course::{Course, Side};

/// The ports of a flow as the forecast needs them.
#[derive(Debug, Clone, Copy)]
pub struct Ports<'a> {
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
}

/// When the ports run out on `course`; `None` where they do not on the likely one, within the hold
/// time: by then each port that is held now has come back, and it was a steady state.
#[must_use]
pub fn exhaustion(course: &Course, ports: Ports) -> Option<Exhaustion> {
    let late = ports.late.as_secs_f64();
    let wanted = ports.wanted();
    if !course.is_known() && wanted == 0.0 {
        return None;
    }
    let opened = |side| {
        move |seconds: f64| {
            course
                .opened_within(seconds, side)
                .max(wanted * seconds.min(late))
        }
    };
    let back_late = |late| move |seconds| ports.back_late(seconds, late);
    let back = |seconds| ports.back_by_turns(seconds);
    let likely = runs_out(opened(Side::Likely), back, ports)?;
    let earliest = runs_out(opened(Side::Hasty), back_late(late), ports);
    let latest = runs_out(opened(Side::Careful), back_late(0.0), ports);
    Some(Exhaustion {
        likely,
        earliest: earliest.unwrap_or(likely).min(likely),
        latest: latest.map(|latest| latest.max(likely)),
    })
}

/// The step of the replay, far below what a forecast is good for.
const STEP: f64 = 0.02;

/// The seconds until no port is free, where so many are back within some seconds.
fn runs_out(
    opened_within: impl Fn(f64) -> f64,
    back_within: impl Fn(f64) -> f64,
    ports: Ports,
) -> Option<f64> {
    let free = f64::from(ports.free);
    let horizon = ports.hold_time.as_secs_f64();
    let mut now = 0.0;
    while now <= horizon {
        if free + back_within(now) - opened_within(now) <= 0.0 {
            return Some(now);
        }
        now += STEP;
    }
    None
}

impl Ports<'_> {
    /// The pace that the client would like to have until the wheel has turned, where no more ports
    /// are free than one turn gives back. Then it has perhaps been held back: it took what the last
    /// turns gave, and what it wants its busiest second shows best.
    fn wanted(self) -> f64 {
        let late = self.late.as_secs_f64();
        let one_turn = f64::from(self.usable) * late / self.hold_time.as_secs_f64();
        if f64::from(self.free) > one_turn {
            return 0.0;
        }
        let recent = late.ceil() as usize;
        let latest = self.time_wait_left.iter().rev().take(recent);
        latest.copied().max().unwrap_or(0).into()
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
        let period = self.late.as_secs_f64();
        let follow = returned_within(self.time_wait_left, 2.0) / 2.0;
        let since = if follow > 0.0 {
            (f64::from(self.overdue) / follow).min(period)
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
}

/// The highest steady rate at which the flow does not run out within the next minute.
#[must_use]
pub fn safe_rate(ports: Ports) -> f64 {
    let late = ports.late.as_secs_f64();
    let (mut safe, mut unsafe_rate) = (0.0, f64::from(u16::MAX));
    // Each step halves what is left of 65,536: 20 leave less than a tenth.
    for _ in 0..20 {
        let middle = f64::midpoint(safe, unsafe_rate);
        let back = |seconds| ports.back_by_turns(seconds);
        if runs_out(|seconds| middle * seconds, back, ports).is_some() {
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
