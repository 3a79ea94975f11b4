//! Puts finished reports on a screen; decides nothing.

mod format;
mod json;
mod notice;
mod plain;
mod progress;
mod screen;
pub mod svg;
mod sysctl;
mod table;

use std::io::{self, Write};

pub use format::{AdviseFormat, Format, ReproFormat, StatesFormat, VerdictFormat};
pub use notice::tell;
pub use progress::{Progress, Steps};
pub use screen::Screen;

use crate::model::{Gap, Weight};

/// Says on stderr what could not be read.
pub fn note_gaps(gaps: &[Gap]) {
    for gap in gaps.iter().filter(|gap| gap.weight != Weight::None) {
        note(&format!("{}: {}", gap.what, gap.why));
    }
}

fn note(text: &str) {
    // With stderr closed there is nobody to tell.
    let wrapped = Screen::of_stderr().wrap("note: ", "      ", text);
    let _ = writeln!(io::stderr(), "{wrapped}");
}
