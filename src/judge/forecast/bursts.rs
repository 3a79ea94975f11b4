//! Bursts that come back though they differ: some are larger, some are cut short by errno 99.

/// A second is busy from so many times the usual count on.
const BUSY: u16 = 4;

/// So many quiet seconds end a burst: one that is cut short goes on when the wheel turns.
const QUIET: usize = 3;

/// After how many seconds bursts come back: as many lie between the beginnings of any two of them.
pub(super) fn period(seconds: &[u16]) -> Option<usize> {
    let begun = beginnings(seconds);
    let period = begun.get(1)?.begun - begun[0].begun;
    let is_next_due = begun[0].begun <= period;
    let are_short = begun.iter().all(|burst| burst.lasted * 2 <= period);
    let are_regular = begun
        .windows(2)
        .all(|two| (two[1].begun - two[0].begun).abs_diff(period) <= 1);
    (is_next_due && are_short && are_regular).then_some(period)
}

/// One period as it will come: each second the busiest of those it has been.
pub(super) fn profile(seconds: &[u16], period: usize) -> Vec<f64> {
    let busiest = |ahead: usize| {
        let same = seconds.iter().skip(period - 1 - ahead).step_by(period);
        f64::from(same.copied().max().unwrap_or(0))
    };
    (0..period).map(busiest).collect()
}

struct Burst {
    /// The age of its first second.
    begun: usize,
    /// In seconds.
    lasted: usize,
}

/// The bursts whose beginning is seen, the latest first.
fn beginnings(seconds: &[u16]) -> Vec<Burst> {
    let mut sorted = seconds.to_vec();
    sorted.sort_unstable();
    let usual = sorted.get(seconds.len() / 2).copied().unwrap_or(0).max(1);
    let is_busy = |&age: &usize| seconds[age] / BUSY > usual;
    let mut bursts: Vec<Burst> = Vec::new();
    for age in (0..seconds.len()).filter(is_busy) {
        match bursts.last_mut() {
            Some(burst) if age - burst.begun <= QUIET => {
                burst.lasted += age - burst.begun;
                burst.begun = age;
            }
            _ => bursts.push(Burst {
                begun: age,
                lasted: 1,
            }),
        }
    }
    bursts.retain(|burst| burst.begun + QUIET < seconds.len());
    bursts
}
