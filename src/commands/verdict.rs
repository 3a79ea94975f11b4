//! `twcheck verdict`

use std::io::{self, Write};

use anyhow::Result;

use super::output::Output;
use super::{closer, place};
use crate::cli::VerdictArgs;
use crate::exit::Exit;
use crate::judge::destination::Attempt;
use crate::judge::verdict::{Verdict, verdict};
use crate::model::{Gap, SourceName, Toward, Weight};
use crate::render::{self, Screen, VerdictFormat};
use crate::repro::knock;
use crate::system::{Machine, Search, Stopwatch, View, other_namespaces, owners, route};

/// Says whether ports run out, toward which destination, by whom, and what to do.
///
/// # Errors
/// When no socket table can be read, or standard output not written.
pub fn run(args: &VerdictArgs) -> Result<Exit> {
    args.check()?;
    let watch = Stopwatch::start();
    let output = args.output.as_deref().map(Output::at).transpose()?;
    let format = args.format.get();
    let destination = args.destination.as_ref();
    if args.source.all_netns {
        let all = place::all(&args.source, destination, |machine, toward| {
            judge(args, machine, toward)
        })?;
        write(output, format, |screen, out| {
            format.write_all(&all, args.top, watch.cost(), screen, out)
        })?;
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
    write(output, format, |screen, out| {
        format.write(&verdict, watch.cost(), screen, out)
    })?;
    Ok(verdict.level.into())
}

/// Writes a report where it goes.
fn write(
    output: Option<Output>,
    format: VerdictFormat,
    report: impl FnOnce(Screen, &mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let Some(output) = output else {
        let screen = match format {
            // A name that is spelled in other letters is another one.
            VerdictFormat::Prometheus => Screen::FILE,
            _ => Screen::of_stdout(),
        };
        return Ok(report(screen, &mut screen.lock())?);
    };
    let mut text = Vec::new();
    report(Screen::FILE, &mut text)?;
    output.write(&text)
}

/// Looks and judges.
fn judge(args: &VerdictArgs, machine: &Machine, toward: Option<Toward>) -> Result<Verdict> {
    // Sockets by state are told as metrics alone, and all of them cost a longer look.
    let view = match args.format.get() {
        VerdictFormat::Prometheus => View::Everything,
        _ => View::Ports,
    };
    let mut snapshot = closer::look(machine, view)?;
    if let Some(toward) = toward.clone() {
        snapshot.tally.only_toward(toward);
    }
    let mut verdict = verdict(&snapshot, args.thresholds(), args.top);
    if view == View::Everything {
        verdict.count_states(&snapshot);
    }
    // Most of many namespaces have nothing to do with a destination, and no way to it either.
    let toward = toward.filter(|_| !args.source.all_netns || verdict.flows_total > 0);
    if let Some(toward) = toward {
        let paths = route::paths(machine, &toward);
        let attempt = args.connect.then(|| attempt(&toward, &verdict));
        verdict.speak_of(paths, attempt.flatten());
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
