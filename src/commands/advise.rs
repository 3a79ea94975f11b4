//! `twcheck advise`

use anyhow::Result;

use super::{closer, place};
use crate::cli::AdviseArgs;
use crate::exit::Exit;
use crate::judge::advice::{Advice, Whose, advise};
use crate::judge::experiment::{Laboratory, Proof};
use crate::model::{Snapshot, Toward};
use crate::refusal::Refusal;
use crate::render::{self, Screen, Steps};
use crate::repro::prove;
use crate::system::{Machine, View};

/// Recommends sysctl changes, and what not to change.
///
/// # Errors
/// When no socket table can be read, nothing be proved where that is asked for, or standard output
/// not written.
pub fn run(args: &AdviseArgs) -> Result<Exit> {
    args.check()?;
    let screen = Screen::of_stdout();
    if args.source.all_netns {
        let all = place::all(&args.source, args.destination(), |machine, toward| {
            look(args, machine, toward).map(|(_, advice)| advice)
        })?;
        args.format
            .get()
            .write_all(&all, screen, &mut screen.lock())?;
        return Ok(all.level.into());
    }
    let looked = place::one(&args.source, args.destination(), |machine, toward| {
        if args.prove && toward.as_ref().is_some_and(Toward::is_loopback) {
            return Err(Refusal::new(
                "--prove tries what holds toward another machine, and this destination is \
                 loopback, where TIME_WAIT reuse has rules of its own",
                "leave out --prove or the destination",
            )
            .into());
        }
        Ok((look(args, machine, toward)?, machine.place()))
    })?;
    let (((snapshot, mut advice), place), namespace) = looked;
    match namespace {
        Some(namespace) => advice.settle_in(namespace),
        None => advice.place = place.as_ref().and_then(Whose::of),
    }
    if args.prove {
        advice.proof = Some(proof(&snapshot, &advice)?);
    }
    render::note_gaps(&advice.gaps);
    args.format
        .get()
        .write(&advice, screen, &mut screen.lock())?;
    Ok(Exit::Ok)
}

/// Looks and advises.
fn look(
    args: &AdviseArgs,
    machine: &Machine,
    toward: Option<Toward>,
) -> Result<(Snapshot, Advice)> {
    let mut snapshot = closer::look(machine, View::Everything)?;
    let holders = machine.holders(&snapshot);
    if let Some(toward) = toward {
        snapshot.note_timestamps(machine.timestamps());
        snapshot.tally.only_toward(toward);
    }
    let advice = advise(&snapshot, &holders, args.goal());
    Ok((snapshot, advice))
}

/// Tries the advice out in private namespaces.
fn proof(snapshot: &Snapshot, advice: &Advice) -> Result<Proof> {
    let held = snapshot.held();
    let hold_time = snapshot.hold_time;
    let laboratory = Laboratory::new(&snapshot.tunables, &held, hold_time, &advice.steps)
        .ok_or_else(|| {
            Refusal::new(
                "nothing can be proved: a setting that decides is unknown, or no port is usable",
                "`twcheck advise` without --prove says which",
            )
        })?;
    let steps = Steps::new(&laboratory);
    let proof = prove(laboratory, |experiment| steps.show(experiment));
    steps.clear();
    proof
}
