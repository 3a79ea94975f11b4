//! `twcheck verdict`

use anyhow::Result;

use crate::cli::{Format, VerdictArgs};
use crate::exit::Exit;
use crate::judge::verdict::verdict;
use crate::model::{Gap, Weight};
use crate::render::{self, Screen};
use crate::system::{Search, View, owners};

/// Says whether ports run out, toward which destination, by whom, and what to do.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &VerdictArgs) -> Result<Exit> {
    let thresholds = args.thresholds()?;
    let machine = args.source.machine()?;
    let snapshot = machine.look(View::Ports)?;
    let mut verdict = verdict(&snapshot, thresholds, args.top);
    let flows = verdict.flows_to_own(args.owners || args.sample.is_some());
    let search = Search {
        sample: args.sample,
        portless: verdict.is_exhausted(),
    };
    if !flows.is_empty() || search.portless {
        verdict.name_owners(owners(&machine, &flows, search));
    }
    // What is decisive is a finding.
    let minor = |gap: &&Gap| gap.weight == Weight::Minor;
    let notes: Vec<_> = verdict.gaps.iter().filter(minor).cloned().collect();
    render::note_gaps(&notes);
    let screen = Screen::of_stdout();
    let out = &mut screen.lock();
    match args.format.get() {
        Format::Table => render::table::verdict(&verdict, screen, out)?,
        Format::Plain => render::plain::verdict(&verdict, out)?,
        Format::Json => render::json::write(&verdict, out)?,
    }
    Ok(verdict.level.into())
}
