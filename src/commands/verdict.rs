//! `twcheck verdict`

use anyhow::Result;

use super::{closer, place};
use crate::cli::VerdictArgs;
use crate::exit::Exit;
use crate::judge::destination::Attempt;
use crate::judge::verdict::{Verdict, verdict};
use crate::model::{Gap, SourceName, Toward, Weight};
use crate::render::{self, Screen};
use crate::repro::knock;
use crate::system::{Machine, Search, View, other_namespaces, owners, route};

/// Says whether ports run out, toward which destination, by whom, and what to do.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &VerdictArgs) -> Result<Exit> {
    args.check()?;
    let screen = Screen::of_stdout();
    let destination = args.destination.as_ref();
    if args.source.all_netns {
        let all = place::all(&args.source, destination, |machine, toward| {
            judge(args, machine, toward)
        })?;
        let format = args.format.get();
        format.write_all(&all, args.top, screen, &mut screen.lock())?;
        return Ok(all.level.into());
    }
    let (mut verdict, namespace) = place::one(&args.source, destination, |machine, toward| {
        let mut verdict = judge(args, machine, toward)?;
        if args.source.wanted().is_none() {
            verdict.other_namespaces = other_namespaces(machine);
        }
        Ok(verdict)
    })?;
    if let Some(namespace) = namespace {
        verdict.settle_in(namespace);
    }
    // What is decisive is a finding.
    let minor = |gap: &&Gap| gap.weight == Weight::Minor;
    let notes: Vec<_> = verdict.gaps.iter().filter(minor).cloned().collect();
    render::note_gaps(&notes);
    args.format
        .get()
        .write(&verdict, screen, &mut screen.lock())?;
    Ok(verdict.level.into())
}

/// Looks and judges.
fn judge(args: &VerdictArgs, machine: &Machine, toward: Option<Toward>) -> Result<Verdict> {
    let mut snapshot = closer::look(machine, View::Ports)?;
    if let Some(toward) = toward.clone() {
        snapshot.tally.only_toward(toward);
    }
    let mut verdict = verdict(&snapshot, args.thresholds(), args.top);
    let nat = args.nat.then(|| machine.nat(toward.as_ref()));
    // Most of many namespaces have nothing to do with a destination, and no way to it either.
    let toward = toward.filter(|_| !args.source.all_netns || verdict.flows_total > 0);
    if let Some(toward) = toward {
        let paths = route::paths(machine, &toward);
        let attempt = args.connect.then(|| attempt(&toward, &verdict));
        verdict.speak_of(paths, attempt.flatten());
    }
    if let Some(nat) = nat {
        verdict.speak_of_nat(nat, &snapshot.counters, args.thresholds(), args.top);
    }
    // /proc/net/tcp takes as long again, and long on a busy machine.
    let cheap = snapshot.source == SourceName::SockDiag;
    let flows = verdict.flows_to_own(args.owners || args.sample.is_some(), cheap);
    let search = Search {
        sample: args.sample,
        portless: verdict.is_exhausted(),
        service: verdict.service_to_own(),
    };
    if !flows.is_empty() || search.portless || search.service.is_some() {
        verdict.name_owners(owners(machine, &flows, search));
    }
    Ok(verdict)
}

/// One connect() to the destination.
fn attempt(toward: &Toward, verdict: &Verdict) -> Option<Attempt> {
    let name = toward.asked.to_string();
    knock(&toward.addresses, &name, |server| verdict.is_full(server))
}
