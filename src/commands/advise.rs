//! `twcheck advise`

use anyhow::Result;

use crate::cli::{AdviseArgs, AdviseFormat};
use crate::exit::Exit;
use crate::judge::advice::advise;
use crate::render::{self, Screen};
use crate::system::View;

/// Recommends sysctl changes, and what not to change.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &AdviseArgs) -> Result<Exit> {
    let snapshot = args.source.machine()?.look(View::Both)?;
    let advice = advise(&snapshot);
    let gaps: Vec<_> = snapshot.all_gaps().collect();
    render::note_gaps(&gaps);
    let screen = Screen::of_stdout();
    let out = &mut screen.lock();
    match args.format() {
        AdviseFormat::Table => render::table::advice(&advice, screen, out)?,
        AdviseFormat::Plain => render::plain::advice(&advice, out)?,
        AdviseFormat::Json => render::json::write(&advice, out)?,
        AdviseFormat::Sysctl => render::sysctl::advice(&advice, out)?,
    }
    Ok(Exit::Ok)
}
