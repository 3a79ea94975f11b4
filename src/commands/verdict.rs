//! `twcheck verdict`

use anyhow::Result;

use crate::cli::{Format, VerdictArgs};
use crate::exit::Exit;
use crate::judge::verdict::verdict;
use crate::render::{self, Screen};

/// Says whether ports run out, toward which destination, and what to do.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &VerdictArgs) -> Result<Exit> {
    let thresholds = args.thresholds()?;
    let snapshot = args.source.machine()?.look()?;
    let verdict = verdict(&snapshot, thresholds, args.top);
    let screen = Screen::of_stdout();
    let out = &mut screen.lock();
    match args.format.get() {
        Format::Table => render::table::verdict(&verdict, screen, out)?,
        Format::Plain => render::plain::verdict(&verdict, out)?,
        Format::Json => render::json::write(&verdict, out)?,
    }
    Ok(verdict.level.into())
}
