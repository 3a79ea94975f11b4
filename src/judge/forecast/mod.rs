//! The last minute and the next one, from one look at the table.
//!
//! A TIME_WAIT carries the time it has left, so one snapshot tells, per flow, how many connections
//! were closed in each of the last seconds ([`History`]) and when each held port comes back. What
//! the minute shows goes on ([`Course`]): the latest piece of a straight line, or a cycle that has
//! come back. The next minute is replayed on that course ([`exhaustion`]), and on the most careful
//! and the most hasty one that chance allows.

mod course;
mod cycle;
mod history;
mod pieces;
mod replay;
mod trouble;

pub use course::{Course, Pace};
pub use history::{History, Rate, SECONDS};
pub use replay::{Exhaustion, Ports, exhaustion, lateness, safe_rate};
pub use trouble::Trouble;

#[expect(clippy::cast_precision_loss)] // At most sixty seconds.
fn mean(seconds: &[u16]) -> f64 {
    if seconds.is_empty() {
        return 0.0;
    }
    seconds.iter().map(|&count| f64::from(count)).sum::<f64>() / seconds.len() as f64
}
