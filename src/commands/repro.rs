//! `twcheck repro`

use std::env::VarError;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{User, getuid};

use crate::cli::{Format, ReproArgs};
use crate::exit::Exit;
use crate::refusal::Refusal;
use crate::render::{self, Progress, Screen};
use crate::repro::server::Server;
use crate::repro::{
    Failure, Limits, Login, Outcome, PortsToward, Report, Sandbox, ServerReport, StoppedBy, Target,
    TargetReport, Watch, run as connect_and_close,
};
use crate::secret::Secret;
use crate::system::{Machine, SourceChoice, View};

/// The port of the embedded server: MySQL's.
const EMBEDDED_PORT: u16 = 3306;

/// Connects and closes until errno 99, or until a limit or an error ends it.
///
/// # Errors
/// When the run cannot begin. A run that began ends with a report, whatever ended it.
pub fn run(args: &ReproArgs) -> Result<Exit> {
    let Site {
        target,
        peer,
        failed,
    } = Site::open(args)?;
    let embedded = matches!(peer, Peer::Embedded(_));
    let machine = Machine::live(SourceChoice::Auto);
    let server = target.address();
    let before = PortsToward::new(&machine.look(View::Ports)?, server);

    let outcome = if let Some(error) = failed {
        Outcome::without_a_connection(error)
    } else {
        render::announce_reuse(server, &before);
        connect(args, &target, &machine, &before)?
    };
    let after = settled(&machine, server);
    let peer = peer.finish();
    let report = Report::new(&target, embedded, outcome, &before, after.as_ref(), peer);

    let screen = Screen::of_stdout();
    let out = &mut screen.lock();
    match args.format.get() {
        Format::Json => render::json::write(&report, out)?,
        _ if report.connections == 0 && report.stopped_by == StoppedBy::Error => {
            return Err(refusal(report.error.as_ref(), server));
        }
        Format::Table => render::table::repro(&report, screen, out)?,
        Format::Plain => render::plain::repro(&report, out)?,
    }
    Ok(report.stopped_by.into())
}

/// The loop, with its progress on a terminal.
fn connect(
    args: &ReproArgs,
    target: &Target,
    machine: &Machine,
    before: &PortsToward,
) -> Result<Outcome> {
    let stop = interrupt_flag()?;
    let progress = Progress::new(before.usable);
    let limits = Limits {
        connections: args.connections,
        duration: args.duration,
    };
    let ports_in_use = || {
        let snapshot = machine.look(View::Ports).ok()?;
        Some(PortsToward::new(&snapshot, target.address()).in_use)
    };
    let outcome = connect_and_close(target, limits, &stop, ports_in_use, |moment| {
        progress.show(moment);
    });
    progress.clear();
    Ok(outcome)
}

/// The ports toward `server` once the last connections are in TIME_WAIT, or half a second later;
/// `None` when the table cannot be read.
fn settled(machine: &Machine, server: SocketAddr) -> Option<PortsToward> {
    const LOOKS: usize = 10;
    let mut ports = None;
    for _ in 0..LOOKS {
        ports = Some(PortsToward::new(&machine.look(View::Both).ok()?, server));
        if ports.as_ref().is_none_or(|ports| !ports.closing) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    ports
}

/// The server of a run, and who watches it.
struct Site {
    target: Target,
    peer: Peer,
    /// Why not even the first connection could be made.
    failed: Option<mysql::Error>,
}

enum Peer {
    /// The embedded server counts its own threads.
    Embedded(Server),
    /// A second connection asks.
    Watched(Watch),
    /// Nobody does, because.
    Unwatched(String),
}

impl Peer {
    fn finish(self) -> ServerReport {
        ServerReport::new(match self {
            Self::Embedded(server) => Ok(server.most_threads_connected().into()),
            Self::Watched(watch) => watch.finish(),
            Self::Unwatched(why) => Err(why),
        })
    }
}

impl Site {
    fn open(args: &ReproArgs) -> Result<Self> {
        let targets = match (&args.url, &args.host) {
            (Some(url), _) => Target::resolve_url(url, password(args)?.as_ref())?,
            (None, Some(host)) => Target::resolve(&login(args, host)?)?,
            (None, None) => return Self::embedded(args),
        };
        Self::first_that_answers(targets, args.duration)
    }

    fn embedded(args: &ReproArgs) -> Result<Self> {
        let sandbox = Sandbox::enter(EMBEDDED_PORT, &args.set)?;
        let server = Server::start(sandbox.address())
            .with_context(|| format!("starting the embedded server on {}", sandbox.address()))?;
        render::announce(None);
        Ok(Self {
            target: Target::embedded(server.address()),
            peer: Peer::Embedded(server),
            failed: None,
        })
    }

    /// A name can have several addresses, and `localhost` often has one where nothing listens: the
    /// first that lets a connection in is taken, or else the first.
    fn first_that_answers(targets: Vec<Target>, patience: Duration) -> Result<Self> {
        let mut refused = None;
        for target in targets {
            let target = target.patient_for(patience);
            render::announce(Some(&TargetReport::new(&target, false).to_string()));
            match target.open() {
                Ok(connection) => {
                    return Ok(Self {
                        target,
                        peer: Peer::Watched(Watch::start(connection)?),
                        failed: None,
                    });
                }
                Err(error) => {
                    refused.get_or_insert(Self {
                        target,
                        peer: Peer::Unwatched("it let no connection in".into()),
                        failed: Some(error),
                    });
                }
            }
        }
        refused.context("the host name has no address")
    }
}

fn login(args: &ReproArgs, host: &str) -> Result<Login> {
    let user = match &args.user {
        Some(user) => Some(user.clone()),
        None => User::from_uid(getuid())
            .ok()
            .flatten()
            .map(|user| user.name),
    };
    Ok(Login {
        host: host.to_owned(),
        port: args.port,
        user,
        database: args.database.clone(),
        password: password(args)?,
    })
}

/// The password: from a file, from a prompt, or from the environment.
fn password(args: &ReproArgs) -> Result<Option<Secret>> {
    if let Some(path) = &args.password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Refusal::new(
                format!("reading the password from {}: {error}", path.display()),
                "name a file whose first line is the password, or use --ask-password",
            )
        })?;
        let first = text.lines().next().unwrap_or_default();
        return Ok(Some(first.to_owned().into()));
    }
    if args.ask_password {
        if !io::stdin().is_terminal() {
            return Err(Refusal::new(
                "--ask-password needs a terminal to ask on",
                "put the password into MYSQL_PWD, or into a file for --password-file",
            )
            .into());
        }
        let password = rpassword::prompt_password("Password: ").context("reading the password")?;
        return Ok(Some(password.into()));
    }
    match std::env::var("MYSQL_PWD") {
        Ok(password) => Ok(Some(password.into())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Refusal::new(
            "MYSQL_PWD is not UTF-8",
            "put the password into a file for --password-file",
        )
        .into()),
    }
}

/// Set by Ctrl-C; a second one ends the process at once.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let status = Exit::Unknown as i32;
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("catching Ctrl-C")?;
    }
    Ok(stop)
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
