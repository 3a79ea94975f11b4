//! `twcheck advise`

use anyhow::Result;

use super::closer;
use crate::cli::AdviseArgs;
use crate::exit::Exit;
use crate::judge::advice::{Advice, Whose, advise};
use crate::judge::experiment::{Laboratory, Proof};
use crate::model::{Snapshot, Toward};
use crate::refusal::Refusal;
use crate::render::{self, Screen, Steps};
use crate::repro::prove;
use crate::system::{View, resolve};

/// Recommends sysctl changes, and what not to change.
///
/// # Errors
/// When no socket table can be read, nothing be proved where that is asked for, or standard output
/// not written.
pub fn run(args: &AdviseArgs) -> Result<Exit> {
    args.check()?;
    let machine = args.source.machine();
    let toward = args.destination().map(resolve).transpose()?;
    if args.prove && toward.as_ref().is_some_and(Toward::is_loopback) {
        return Err(Refusal::new(
            "--prove tries what holds toward another machine, and this destination is loopback, \
             where TIME_WAIT reuse has rules of its own",
            "leave out --prove or the destination",
        )
        .into());
    }
    let mut snapshot = closer::look(&machine, View::Everything)?;
    let holders = machine.holders(&snapshot);
    if let Some(toward) = toward {
        snapshot.note_timestamps(machine.timestamps());
        snapshot.tally.only_toward(toward);
    }
    let mut advice = advise(&snapshot, &holders, args.goal());
    advice.namespace = machine.place().as_ref().and_then(Whose::of);
    if args.prove {
        advice.proof = Some(proof(&snapshot, &advice)?);
    }
    render::note_gaps(&advice.gaps);
    let screen = Screen::of_stdout();
    args.format
        .get()
        .write(&advice, screen, &mut screen.lock())?;
    Ok(Exit::Ok)
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
