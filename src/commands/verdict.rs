//! `twcheck verdict`

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

use super::output::Output;
use super::{closer, every, place};
use crate::cli::VerdictArgs;
use crate::exit::Exit;
use crate::judge::destination::Attempt;
use crate::judge::level::Thresholds;
use crate::judge::verdict::{Verdict, verdict};
use crate::model::{SourceName, Toward};
use crate::render::{self, Screen, VerdictFormat};
use crate::repro::knock;
use crate::system::{Machine, Recorded, Search, Stopwatch, View, other_namespaces, owners, route};

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
    let asked = Asked {
        thresholds: args.thresholds(),
        top: args.top,
        owners: args.owners || args.sample.is_some(),
        sample: args.sample,
        // A line names nobody.
        hunts: args.every.is_none(),
        connect: args.connect,
        only_used: args.source.all_netns,
        nat: args.nat,
        states: format == VerdictFormat::Prometheus,
    };
    if let Some(pause) = args.every {
        let post = place::Post::take(&args.source.place, destination)?;
        return every::run(pause, args.until, || look_from(&post, &asked));
    }
    if args.source.all_netns {
        let all = place::all(&args.source, destination, |machine, toward| {
            look(machine, toward, &asked)
        })?;
        write(output, format, |screen, out| {
            format.write_all(&all, args.top, watch.cost(), screen, out)
        })?;
        return Ok(all.level.into());
    }
    let (mut verdict, namespace) = place::one(&args.source, destination, |machine, toward| {
        let mut verdict = look(machine, toward, &asked)?;
        if args.source.place.wanted().is_none() {
            verdict.other_namespaces = other_namespaces(machine);
        }
        Ok(verdict)
    })?;
    if let Some(namespace) = namespace {
        verdict.settle_in(namespace);
    }
    render::note_gaps(verdict.minor_gaps());
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

/// What a recording says, as it is said without any option.
///
/// # Errors
/// When no socket table can be read.
pub(super) fn of_recording(recorded: Recorded) -> Result<Verdict> {
    let mut verdict = look(&recorded.machine, None, &Asked::default())?;
    verdict.other_namespaces = other_namespaces(&recorded.machine);
    if let Some(namespace) = recorded.namespace {
        verdict.settle_in(namespace);
    }
    Ok(verdict)
}

/// What a look is to tell.
#[expect(clippy::struct_excessive_bools)] // Options of the command line.
pub(super) struct Asked {
    thresholds: Thresholds,
    /// So many flows are told, all for 0.
    top: usize,
    /// The owners of every flow that is told.
    owners: bool,
    sample: Option<Duration>,
    /// Who has no port where there is none is hunted for.
    hunts: bool,
    /// One connection to the destination.
    connect: bool,
    /// Nothing of a destination to which nothing goes.
    only_used: bool,
    /// Translated connections too.
    nat: bool,
    /// Every socket by state.
    states: bool,
}

impl Asked {
    /// One look of many, that tells of `top` flows: owners are looked for during `sample`, and who
    /// has no port is hunted for where it `hunts`.
    pub(super) fn live(top: usize, sample: Option<Duration>, hunts: bool) -> Self {
        Self {
            top,
            sample,
            hunts,
            ..Self::default()
        }
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            top: 10,
            owners: false,
            sample: None,
            hunts: true,
            connect: false,
            only_used: false,
            nat: false,
            states: false,
        }
    }
}

/// Looks and judges, from `post`.
pub(super) fn look_from(post: &place::Post, asked: &Asked) -> Result<Verdict> {
    let mut verdict = post.look(|machine, toward| look(machine, toward, asked))?;
    if let Some(namespace) = post.namespace() {
        verdict.settle_in(namespace.clone());
    }
    Ok(verdict)
}

/// Looks and judges.
fn look(machine: &Machine, toward: Option<Toward>, asked: &Asked) -> Result<Verdict> {
    // All of them cost a longer look.
    let view = if asked.states {
        View::Everything
    } else {
        View::Ports
    };
    let mut snapshot = closer::look(machine, view)?;
    if let Some(toward) = toward.clone() {
        snapshot.tally.only_toward(toward);
    }
    let mut verdict = verdict(&snapshot, asked.thresholds, asked.top);
    if asked.states {
        verdict.count_states(&snapshot);
    }
    let nat = asked.nat.then(|| machine.nat(toward.as_ref()));
    // Most of many namespaces have nothing to do with a destination, and no way to it either.
    let toward = toward.filter(|_| !asked.only_used || verdict.flows_total > 0);
    if let Some(toward) = toward {
        let paths = route::paths(machine, &toward);
        let attempt = asked.connect.then(|| attempt(&toward, &verdict));
        verdict.speak_of(paths, attempt.flatten());
    }
    if let Some(nat) = nat {
        verdict.speak_of_nat(nat, &snapshot.counters, asked.thresholds, asked.top);
    }
    // /proc/net/tcp takes as long again, and long on a busy machine.
    let cheap = snapshot.source == SourceName::SockDiag;
    let flows = verdict.flows_to_own(asked.owners, cheap);
    let search = Search {
        sample: asked.sample,
        portless: asked.hunts && verdict.is_exhausted(),
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
