//! `twcheck verdict --every`: a line at once, and whenever something changes.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use crate::exit::Exit;
use crate::judge::trend::{Change, News, Sight};
use crate::judge::verdict::Verdict;
use crate::render::{self, Screen};
use crate::repro::Stop;
use crate::system::is_reader_gone_within;

/// The longest time without a thought for a signal: one may come just before the wait begins.
const WATCHFUL: Duration = Duration::from_millis(500);

/// Looks `every` so often until a signal comes, the reader goes, or `until` is over, and ends as the
/// last look says.
///
/// # Errors
/// When the first look fails, or standard output cannot be written.
pub fn run(
    every: Duration,
    until: Option<Duration>,
    look: impl Fn() -> Result<Verdict>,
) -> Result<Exit> {
    let stop = Stop::on_signals()?;
    let screen = Screen::of_stdout();
    let mut out = screen.lock();
    let mut news = News::default();
    let begin = Instant::now();
    let end = until.map(|until| begin + until);
    let first = look()?;
    render::note_gaps(first.minor_gaps());
    let mut sight = Sight::from(&first);
    let mut next = begin;
    loop {
        if let Some(change) = news.of(begin.elapsed(), &sight) {
            writeln!(out, "{}", line(&change, screen))?;
            out.flush()?;
        }
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            break;
        }
        next = (next + every).max(now);
        next = end.map_or(next, |end| end.min(next));
        if !waits_for(next, &stop) {
            break;
        }
        sight = look().map_or_else(|why| Sight::unknown(format!("{why:#}.")), |it| (&it).into());
    }
    Ok(sight.level.into())
}

/// `2026-11-29T18:30:14Z CRITICAL: In 33.0 s no port …`
fn line(change: &Change, screen: Screen) -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let level = screen.paint(change.level, change.level.word());
    format!("{time} {level}: {change}")
}

/// Waits until then; whether anybody is still there to be told.
fn waits_for(then: Instant, stop: &Stop) -> bool {
    loop {
        if stop.asked().is_some() {
            return false;
        }
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if is_reader_gone_within(left.min(WATCHFUL)) {
            return false;
        }
    }
}
