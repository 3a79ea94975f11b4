//! `twcheck states`

use anyhow::Result;

use super::closer::glance;
use crate::cli::{By, StatesArgs};
use crate::exit::Exit;
use crate::judge::states::states;
use crate::render::{self, Screen};
use crate::system::{View, resolve};

/// Counts TCP sockets by state.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &StatesArgs) -> Result<Exit> {
    args.check()?;
    let machine = args.source.machine();
    let toward = args.destination.as_ref().map(resolve).transpose()?;
    let by_flow = args.by == By::Flow;
    let mut snapshot = glance(
        &machine,
        View::States {
            by_flow: by_flow || toward.is_some(),
        },
    )?;
    if let Some(toward) = toward {
        snapshot.tally.only_toward(toward);
    }
    let top = by_flow.then_some(args.top);
    let report = states(&snapshot, args.all, top);
    render::note_gaps(&report.gaps);
    let screen = Screen::of_stdout();
    args.format
        .get()
        .write(&report, args.explain, screen, &mut screen.lock())?;
    Ok(match report.total {
        Some(_) => Exit::Ok,
        None => Exit::Unknown,
    })
}
