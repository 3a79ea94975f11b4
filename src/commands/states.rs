//! `twcheck states`

use anyhow::Result;

use super::closer::glance;
use super::place;
use crate::cli::{By, StatesArgs};
use crate::exit::Exit;
use crate::judge::states::{States, states};
use crate::model::Toward;
use crate::render::{self, Screen};
use crate::system::{Machine, View};

/// Counts TCP sockets by state.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &StatesArgs) -> Result<Exit> {
    args.check()?;
    let (screen, format) = (Screen::of_stdout(), args.format.get());
    let destination = args.destination.as_ref();
    let look = |machine: &Machine, toward| count(args, machine, toward);
    if args.source.all_netns {
        let all = place::all(&args.source, destination, look)?;
        format.write_all(&all, screen, &mut screen.lock())?;
        return Ok(all.level.into());
    }
    let (mut report, namespace) = place::one(&args.source, destination, look)?;
    report.namespace = namespace;
    render::note_gaps(&report.gaps);
    format.write(&report, args.explain, screen, &mut screen.lock())?;
    Ok(match report.total {
        Some(_) => Exit::Ok,
        None => Exit::Unknown,
    })
}

/// Looks and counts.
fn count(args: &StatesArgs, machine: &Machine, toward: Option<Toward>) -> Result<States> {
    let by_flow = args.by == By::Flow;
    let mut snapshot = glance(
        machine,
        View::States {
            by_flow: by_flow || toward.is_some(),
        },
    )?;
    if let Some(toward) = toward {
        snapshot.tally.only_toward(toward);
    }
    let top = by_flow.then_some(args.top);
    Ok(states(&snapshot, args.all, top))
}
