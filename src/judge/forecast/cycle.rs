//! What comes back: a wave, an hourly job on a small scale, a client that is on and off.

use super::history::Lived;
use super::mean;
use super::pieces::{Lines, PRICE, Piece, SLOPE_FROM, Story, variance};

/// The shortest period that whole seconds can show.
const SHORTEST: usize = 3;

/// What a period itself costs to tell: a high and a low, each with its level and its place.
const SHAPE: f64 = 4.0 * PRICE;

/// A period that tells the minute in fewer words than the `story` without one: one period told in
/// pieces, wherever that is cheapest, and of every other second only that it is as one period away.
/// A quarter of the period must have come back, and a change with it.
pub(super) fn period(lived: &Lived, lines: &Lines, story: &Story, scatter: f64) -> Option<usize> {
    let told = lived.seconds.len();
    let pieces = story.pieces();
    let mut best = (story.cost(told), None);
    for period in SHORTEST..=told * 4 / 5 {
        let again: f64 = (period..told)
            .map(|age| surprise(lived.seconds, age, age - period, scatter))
            .sum();
        let others = again + PRICE;
        if others + SHAPE >= best.0 || !a_change_came_back(&pieces, period, lived) {
            continue;
        }
        let once = (0..=told - period).map(|begin| lines.story(begin, period).cost(period));
        let cost = others + once.fold(f64::INFINITY, f64::min).max(SHAPE);
        if cost < best.0 {
            best = (cost, Some(period));
        }
    }
    best.1
}

/// Whether what lies a period or more back is more than one flat piece, or the client's beginning
/// there has its like a period later.
fn a_change_came_back(pieces: &[Piece], period: usize, lived: &Lived) -> bool {
    let told = lived.seconds.len();
    let begun_again = pieces.windows(2).any(|pair| {
        let end = pair[0].begin + pair[0].length;
        (end + period).abs_diff(told) <= 1 && pair[1].level == 0.0
    });
    let came_back = pieces.iter().any(|piece| {
        let end = piece.begin + piece.length;
        (period < end && end < told) || (piece.growth != 0.0 && period + SLOPE_FROM <= end)
    });
    came_back || lived.begun && begun_again
}

/// How little the second of age `earlier` is like the one of age `later`, one where chance alone
/// makes the difference. A period is no whole number of seconds: what the edge of a burst loses or
/// gains by half a second at most is no surprise (a shift that is uniform over one second has a
/// variance of a twelfth).
fn surprise(seconds: &[u16], earlier: usize, later: usize, scatter: f64) -> f64 {
    let at = |age: usize| f64::from(seconds[age.min(seconds.len() - 1)]);
    let off = at(earlier) - at(later);
    let edge = at(later.saturating_sub(1)) - at(later + 1);
    let level = f64::midpoint(at(earlier), at(later));
    off * off / (2.0 * variance(level, scatter) + edge * edge / 12.0)
}

/// One period as it will come, from now on: each second the mean of those it has been.
pub(super) fn profile(seconds: &[u16], period: usize) -> Vec<f64> {
    (0..period)
        .map(|ahead| {
            let same: Vec<u16> = seconds
                .iter()
                .skip(period - 1 - ahead)
                .step_by(period)
                .copied()
                .collect();
            mean(&same)
        })
        .collect()
}
