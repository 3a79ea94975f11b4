//! `twcheck repro`

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::closer;
use super::picture::Picture;
use crate::cli::ReproArgs;
use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::render::{self, Progress, ReproFormat, Screen};
use crate::repro::{Failure, Notice, Place, Site, Stop, StoppedBy};

/// Connects and closes until errno 99, or until a limit or an error ends it.
///
/// # Errors
/// When the run cannot begin. A run that began ends with a report, whatever ended it.
pub fn run(args: &ReproArgs) -> Result<Exit> {
    args.check()?;
    // Before the run, so that nothing is lost after it.
    let picture = match &args.svg {
        None => None,
        Some(_) if args.draws_on_stdout() => Some(Picture::Stdout),
        Some(path) => Some(Picture::at(path)?),
    };
    let mut tell = |notice: Notice<'_>| render::tell(&notice);
    let place = match args.wanted() {
        None => Place::Sandbox(args.settings()),
        Some(wanted) if args.logs_in() => Place::Elsewhere(wanted.login(&mut tell)?),
        Some(wanted) => Place::Elsewhere(wanted.address()?),
    };
    let site = Site::open(args.plan(place, closer::glance), &mut tell)?;
    let server = site.target().address();
    if site.takes_ports() {
        tell(Notice::Reuse(server, site.before()));
    }
    let stop = Stop::on_signals().context("catching Ctrl-C")?;
    let progress = Progress::new(site.before().usable);
    let outcome = site.run(&stop, |moment| progress.show(moment));
    progress.clear();
    let report = site.close(outcome);
    let format = args.format.get();
    let is_nothing = report.connections == 0 && report.stopped_by == StoppedBy::Error;
    // People are told what to do about it; a program finds that in the report.
    if is_nothing && format != ReproFormat::Json {
        return Err(refusal(report.error.as_ref(), server));
    }
    if args.draws_on_stdout() {
        let screen = Screen::of_stderr();
        format.write(&report, screen, &mut screen.to(io::stderr()))?;
    } else {
        let screen = Screen::of_stdout();
        format.write(&report, screen, &mut screen.lock())?;
    }
    if let Some(picture) = picture.filter(|_| !is_nothing) {
        picture.draw(&report)?;
    }
    Ok(report.stopped_by.into())
}

fn refusal(failure: Option<&Failure>, server: SocketAddr) -> anyhow::Error {
    let Some(failure) = failure else {
        return anyhow::anyhow!("no connection could be made to {server}");
    };
    Refusal::new(
        format!("{failure}\n{}", failure.meaning(server)),
        failure.next_step(),
    )
    .into()
}
