//! How the next minute goes on.

use super::bursts;
use super::cycle;
use super::history::History;
use super::pieces::{Lines, Piece, scatter, spread, variance};

/// A pace must have been kept for so many whole seconds to be likely to go on: a burst ends by
/// itself.
const KEPT_FOR: usize = 2;

/// And for so many to be sure of it.
const SURE_FROM: usize = 3;

/// Fewer connections are no pace: the mean of ten that come at random is off by a third.
const ENOUGH: f64 = 10.0;

/// How many standard deviations the careful and the hasty course lie off the likely one: one in
/// twenty lies outside.
const SURE: f64 = 2.0;

/// The pace of a flow in words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Connections per second now; over a whole period where it comes and goes.
    pub now: f64,
    /// By how much that grows each second; 0 where chance explains the change.
    pub growth: f64,
    /// For how many seconds it has been so.
    pub steady_for: usize,
    /// After how many seconds it comes back, where it comes and goes.
    pub period: Option<usize>,
}

/// The connections to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    seen: f64,
    scatter: f64,
    /// Whether it has been kept for long enough to be more than a burst.
    kept: bool,
    way: Way,
}

#[derive(Debug, Clone, PartialEq)]
enum Way {
    /// Straight on.
    Straight(Piece),
    /// As before, from now on: one period, second by second.
    Again {
        profile: Vec<f64>,
        /// Whether each time was like the one before.
        alike: bool,
        /// For how many seconds it has been seen.
        seen_for: usize,
    },
}

/// Which of the courses that the minute allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Fewer connections than that are unlikely.
    Careful,
    Likely,
    /// More are.
    Hasty,
}

impl Course {
    /// The course that follows from the last minute.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let lived = history.lived();
        let seconds = lived.seconds;
        let scatter = scatter(seconds);
        let lines = Lines::through(seconds, scatter);
        let story = lines.story(0, seconds.len());
        let pieces = story.pieces();
        let cycle = (pieces.len() > 1)
            .then(|| cycle::period(&lived, &lines, &story, scatter))
            .flatten();
        let again = match cycle {
            Some(period) => Some((cycle::profile(seconds, period), true)),
            None => bursts::period(seconds).map(|period| (bursts::profile(seconds, period), false)),
        };
        if let Some((profile, alike)) = again {
            return Self {
                seen: seconds.iter().map(|&count| f64::from(count)).sum(),
                scatter,
                kept: true,
                way: Way::Again {
                    profile,
                    alike,
                    seen_for: seconds.len(),
                },
            };
        }
        let (piece, kept) = latest(&pieces);
        #[expect(clippy::cast_precision_loss)] // At most sixty.
        let seen = piece.level * piece.length as f64;
        Self {
            seen,
            scatter,
            kept,
            way: Way::Straight(piece),
        }
    }

    /// It in words.
    #[must_use]
    #[expect(clippy::cast_precision_loss)] // At most sixty.
    pub fn pace(&self) -> Pace {
        match &self.way {
            Way::Straight(piece) => Pace {
                now: piece.now(),
                growth: piece.growth,
                steady_for: piece.length,
                period: None,
            },
            Way::Again {
                profile, seen_for, ..
            } => Pace {
                now: profile.iter().sum::<f64>() / profile.len() as f64,
                growth: 0.0,
                steady_for: *seen_for,
                period: Some(profile.len()),
            },
        }
    }

    /// Whether it is more than chance.
    pub(super) fn is_known(&self) -> bool {
        self.kept && self.seen >= ENOUGH
    }

    /// Whether it has been kept for long enough to rely on.
    pub(super) fn is_sure(&self) -> bool {
        match &self.way {
            Way::Straight(piece) => piece.length >= SURE_FROM,
            Way::Again { alike, .. } => *alike,
        }
    }

    /// Connections opened within the next `seconds`.
    pub(super) fn opened_within(&self, seconds: f64, side: Side) -> f64 {
        let likely = match &self.way {
            Way::Straight(piece) => piece.opened_within(seconds),
            Way::Again { profile, .. } => repeated(profile, seconds),
        };
        match side {
            Side::Likely => likely,
            Side::Careful => (likely - SURE * self.deviation(seconds, likely)).max(0.0),
            Side::Hasty => likely + SURE * self.deviation(seconds, likely),
        }
    }

    /// The standard deviation of that number: the chance of what comes, and what the chance of what
    /// was seen has left unknown about the pace.
    fn deviation(&self, seconds: f64, opened: f64) -> f64 {
        let to_come = variance(opened, self.scatter);
        let known = match &self.way {
            Way::Straight(piece) => piece.uncertainty(seconds),
            Way::Again { .. } => opened * opened * self.scatter / self.seen.max(1.0),
        };
        (to_come + known).sqrt()
    }
}

/// The latest piece, and whether it is a pace; where it is too short to be one the slower of the
/// latest two: who speeds up has to show it, who slows down is believed.
fn latest(pieces: &[Piece]) -> (Piece, bool) {
    match *pieces {
        [] => (Piece::default(), false),
        [short, before, ..] if short.length < KEPT_FOR => {
            if before.level < short.level {
                (before, before.length >= KEPT_FOR)
            } else {
                (short, true)
            }
        }
        [latest, ..] => (latest, latest.length >= KEPT_FOR),
    }
}

#[expect(clippy::cast_precision_loss)] // At most sixty.
impl Piece {
    /// From its middle to now.
    fn since_middle(&self) -> f64 {
        self.begin as f64 + self.length as f64 / 2.0
    }

    fn now(&self) -> f64 {
        (self.level + self.growth * self.since_middle()).max(0.0)
    }

    fn opened_within(&self, seconds: f64) -> f64 {
        let until = self.followed_within(seconds);
        let then = (self.now() + self.growth * until).max(0.0);
        self.now() * until + self.growth * until * until / 2.0 + then * (seconds - until)
    }

    /// The variance of what is opened within `seconds` that comes from not knowing level and slope
    /// exactly: those of a fitted line, the one by the other's leverage.
    fn uncertainty(&self, seconds: f64) -> f64 {
        let length = self.length as f64;
        let by_level = self.variance / length.max(1.0) * seconds * seconds;
        if self.growth == 0.0 {
            return by_level;
        }
        let until = self.followed_within(seconds);
        let lever = (self.since_middle() + until) * seconds - until * until / 2.0;
        by_level + self.variance / spread(length) * lever * lever
    }

    /// For how many of `seconds` the trend goes on: a rising one for all, a falling one for as long
    /// as it has been seen and not beyond zero. Who takes fewer and fewer is not trusted to end.
    fn followed_within(&self, seconds: f64) -> f64 {
        if self.growth < 0.0 {
            let to_zero = -self.now() / self.growth;
            seconds.min(self.length as f64).min(to_zero)
        } else {
            seconds
        }
    }
}

/// What `profile` opens within `seconds`, again and again.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss, // Some seconds.
    clippy::cast_precision_loss // At most sixty.
)]
fn repeated(profile: &[f64], seconds: f64) -> f64 {
    let period = profile.len() as f64;
    let rest = seconds % period;
    let whole = rest as usize;
    let begun: f64 = profile.iter().take(whole).sum();
    let part = profile.get(whole).copied().unwrap_or(0.0) * rest.fract();
    (seconds / period).floor() * profile.iter().sum::<f64>() + begun + part
}
