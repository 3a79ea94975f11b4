//! Puts finished reports on a screen; decides nothing.

mod evidence;
mod format;
mod json;
mod kubernetes;
mod letters;
mod markdown;
mod nagios;
mod notice;
mod plain;
mod progress;
mod prometheus;
mod screen;
pub mod svg;
mod sysctl;
mod table;
mod ticket;
pub mod watch;

use std::io::{self, Write};

pub use format::{AdviseFormat, ExplainFormat, Format, ReproFormat, StatesFormat, VerdictFormat};
pub use notice::tell;
pub use progress::{Progress, Steps};
pub use screen::Screen;

use crate::model::{Gap, Weight};
use crate::refusal::Refusal;
use crate::words::printable;

/// Says on stderr what could not be read.
pub fn note_gaps<'a>(gaps: impl IntoIterator<Item = &'a Gap>) {
    for gap in gaps.into_iter().filter(|gap| gap.weight != Weight::None) {
        note(&format!("{}: {}", gap.what, gap.why));
    }
}

/// Says on stderr what is wrong, and what to do about it where that is known.
pub fn complain(error: &anyhow::Error) {
    say("error: ", &format!("{error:#}"));
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        say("hint: ", refusal.hint());
    }
}

/// Says `text` on stderr.
pub fn note(text: &str) {
    say("note: ", text);
}

fn say(first: &str, text: &str) {
    let screen = Screen::of_stderr();
    // Whatever is named is anybody's choice.
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    let text = &lines.join("\n");
    let shown = screen.wrap(first, &" ".repeat(first.len()), text);
    // With stderr closed there is nobody to tell.
    let _ = writeln!(screen.to(io::stderr()), "{shown}");
}
