//! `twcheck repro`

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process, thread};

use anyhow::{Context, Result};

use super::closer;
use super::picture::Picture;
use crate::cli::ReproArgs;
use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::render::{self, Progress, ReproFormat, Screen};
use crate::repro::{Failure, Notice, Place, Signal, Site, Stop, StoppedBy};

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
    let stop = Stop::on_signals().context("catching Ctrl-C")?;
    // A private namespace is entered by one thread alone, and has no server that hangs.
    let waiting = matches!(place, Place::Elsewhere(_)).then(|| Waiting::until(&stop));
    let mut tell = |notice: Notice<'_>| {
        if let (Some(waiting), Notice::Connecting(server)) = (&waiting, &notice) {
            waiting.is_for(server);
        }
        render::tell(&notice);
    };
    let site = Site::open(args.plan(place, closer::glance), &mut tell)?;
    if let (Some(waiting), Some(signal)) = (&waiting, stop.asked()) {
        interrupted(&waiting.server, signal);
    }
    drop(waiting);
    let server = site.target().address();
    if site.takes_ports() {
        render::tell(&Notice::Reuse(server, site.before()));
    }
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

/// The first connection, which a signal ends with a word about it: there is nothing to report yet.
struct Waiting {
    server: Arc<Mutex<Option<String>>>,
}

impl Waiting {
    /// Looks whether `stop` is asked for, on a thread of its own, as connect() and a login may take
    /// their time.
    fn until(stop: &Stop) -> Self {
        /// How long Ctrl-C may take.
        const NAP: Duration = Duration::from_millis(50);
        let server = Arc::new(Mutex::new(None));
        let (stop, waited_for) = (stop.clone(), Arc::downgrade(&server));
        let look = move || {
            while let Some(server) = waited_for.upgrade() {
                if let Some(signal) = stop.asked() {
                    interrupted(&server, signal);
                }
                drop(server);
                thread::sleep(NAP);
            }
        };
        // Without it a second signal ends the run.
        let _ = thread::Builder::new().spawn(look);
        Self { server }
    }

    fn is_for(&self, server: &str) {
        *lock(&self.server) = Some(server.to_owned());
    }
}

/// Says so once: who comes second waits for the end.
fn interrupted(server: &Mutex<Option<String>>, signal: Signal) -> ! {
    let server = lock(server);
    let name = server.as_deref().unwrap_or("the server");
    render::note(&format!(
        "interrupted while waiting for the first connection to {name}"
    ));
    process::exit(signal.status().into());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
