//! `twcheck repro`

use std::env::VarError;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{User, getuid};

use super::closer;
use super::picture::Picture;
use crate::cli::ReproArgs;
use crate::exit::Exit;
use crate::judge::toward::{PortsToward, Way};
use crate::refusal::Refusal;
use crate::render::{self, Progress, ReproFormat, Screen};
use crate::repro::server::Server;
use crate::repro::{
    Client, ClientOptions, ClientReport, End, Failure, Limits, Login, Outcome, Protocol, Report,
    Sandbox, ServerReport, Stop, StoppedBy, Target, TargetReport, Watch, greets_like_mysql,
    in_words, is_address_not_available, run as take_turns,
};
use crate::secret::Secret;
use crate::system::{Machine, SourceChoice, View, file, route};

/// The port of the embedded server: MySQL's.
const MYSQL_PORT: u16 = 3306;

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
    let Site {
        target,
        peer,
        failed,
    } = Site::open(args)?;
    let embedded = matches!(peer, Peer::Embedded(_));
    let path = route::path(target.address());
    let chosen: Vec<_> = path.source.into_iter().collect();
    let way = Way {
        sources: if args.bind_address.is_empty() {
            &chosen
        } else {
            &args.bind_address
        },
        server: target.address(),
        is_here: embedded || path.local == Some(true),
    };
    let machine = Machine::live(SourceChoice::Auto);
    let mut snapshot = closer::glance(&machine, View::Ports)?;
    // Who watches the server has a connection to it.
    snapshot.note_timestamps(machine.timestamps());
    let before = PortsToward::new(&snapshot, way);
    let client = match failed {
        Some(error) => Err(error),
        None => client(args, &target),
    };
    let (outcome, still_open) = match client {
        Err(error) => (Outcome::without_a_connection(error), None),
        Ok(client) => {
            let caution = before.caution(way.server);
            if let Some(text) = caution.filter(|_| !client.is_pooled()) {
                render::note(&text);
            }
            let client = Arc::new(client);
            let outcome = connect(args, &client, way, &machine, &before)?;
            (outcome, Some(client))
        }
    };
    let after = settled(&machine, way);
    let again = still_open
        .as_ref()
        .and_then(|client| tried_again(client, &outcome, &before));
    drop(still_open); // A pool keeps its connections until it has been seen what they take.
    let peer = peer.finish();
    let report = Report::new(
        &target,
        embedded,
        asked(args),
        outcome,
        (&before, after.as_ref()),
        again,
        peer,
    );
    let format = args.format.get();
    let is_nothing = report.connections == 0 && report.stopped_by == StoppedBy::Error;
    // People are told what to do about it; a program finds that in the report.
    if is_nothing && format != ReproFormat::Json {
        return Err(refusal(report.error.as_ref(), way.server));
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

fn client(args: &ReproArgs, target: &Target) -> Result<Client, mysql::Error> {
    let sources = args.bind_address.clone();
    match (args.pool, args.protocol) {
        (Some(size), _) => Client::pool(target, size),
        (None, Protocol::Tcp) => Ok(Client::tcp(target, sources)),
        (None, Protocol::Mysql) => Ok(Client::mysql(target.clone(), sources, args.close)),
    }
}

fn asked(args: &ReproArgs) -> ClientReport {
    ClientReport {
        protocol: args.protocol,
        pool: args.pool,
        threads: args.threads,
        rate: args.rate,
        sources: args.bind_address.clone(),
    }
}

/// The loop, with its progress on a terminal.
fn connect(
    args: &ReproArgs,
    client: &Arc<Client>,
    way: Way<'_>,
    machine: &Machine,
    before: &PortsToward,
) -> Result<Outcome> {
    let stop = Stop::on_signals().context("catching Ctrl-C")?;
    let progress = Progress::new(before.usable);
    let limits = Limits {
        connections: args.connections,
        duration: args.duration(),
        rate: args.rate,
        threads: args.threads,
        fast_ports: before.until_cliff().filter(|_| !client.is_pooled()),
    };
    let ports_in_use = || {
        let snapshot = closer::glance(machine, View::Ports).ok()?;
        Some(PortsToward::new(&snapshot, way).in_use)
    };
    let outcome = take_turns(client, limits, &stop, ports_in_use, |moment| {
        progress.show(moment);
    });
    progress.clear();
    Ok(outcome)
}

/// Whether a connection can be made once all TIME_WAIT is older than the reuse delay: tried where it
/// is open whether the server has timestamps, and the ports are gone.
fn tried_again(client: &Client, outcome: &Outcome, before: &PortsToward) -> Option<bool> {
    /// TIME_WAIT ages by whole timer ticks, and the last connection has to close first.
    const MARGIN: Duration = Duration::from_millis(200);
    /// A delay that is longer than that is nobody's.
    const LONGEST: Duration = Duration::from_secs(5);
    let is_out_of_ports = match &outcome.end {
        End::Failed(error) => is_address_not_available(error),
        _ => false,
    };
    let delay = before.reuse_delay + MARGIN;
    // By then the first ports must not come back by themselves.
    let is_in_time = outcome.elapsed + delay < before.hold_time && delay <= LONGEST;
    let tells = before.reuse.is_open() && outcome.turns > 0 && !client.is_pooled();
    if !(tells && is_out_of_ports && is_in_time) {
        return None;
    }
    thread::sleep(delay);
    match client.connect_again() {
        Ok(()) => Some(true),
        Err(error) => is_address_not_available(&error).then_some(false),
    }
}

/// The ports on the `way` once the last connections are in TIME_WAIT, or half a second later;
/// `None` when the table cannot be read.
fn settled(machine: &Machine, way: Way<'_>) -> Option<PortsToward> {
    const LOOKS: usize = 10;
    let mut ports = None;
    for _ in 0..LOOKS {
        ports = Some(PortsToward::new(
            &closer::glance(machine, View::Everything).ok()?,
            way,
        ));
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
        match self {
            Self::Embedded(server) => {
                ServerReport::embedded(server.most_threads_connected().into())
            }
            Self::Watched(watch) => ServerReport::new(watch.finish()),
            Self::Unwatched(why) => ServerReport::new(Err(why)),
        }
    }
}

impl Site {
    fn open(args: &ReproArgs) -> Result<Self> {
        if !args.names_a_server() {
            return Self::embedded(args);
        }
        match args.protocol {
            Protocol::Mysql => {
                let targets = Target::resolve(&login(args)?)?;
                Self::first_that_answers(targets, args, |target| Ok(watched(target)))
            }
            Protocol::Tcp => {
                let only_there = Login {
                    host: args.host.clone().unwrap_or_default(),
                    port: args.port.unwrap_or(MYSQL_PORT),
                    ..Login::default()
                };
                let targets = Target::resolve(&only_there)?;
                let knock = |target: &Target| spare_mysql(target, args.force);
                Self::first_that_answers(targets, args, knock)
            }
        }
    }

    fn embedded(args: &ReproArgs) -> Result<Self> {
        let sandbox = Sandbox::enter(MYSQL_PORT, &args.set, &args.bind_address)?;
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
    /// first that `knock` finds open is taken, or else the first.
    fn first_that_answers(
        targets: Vec<Target>,
        args: &ReproArgs,
        knock: impl Fn(&Target) -> Result<Result<Peer, mysql::Error>>,
    ) -> Result<Self> {
        let mut refused = None;
        for target in targets {
            let target = target.patient_for(args.duration());
            render::announce(Some(&TargetReport::new(&target, false).to_string()));
            match knock(&target)? {
                Ok(peer) => {
                    return Ok(Self {
                        target,
                        peer,
                        failed: None,
                    });
                }
                Err(error) => {
                    refused.get_or_insert(Self {
                        target,
                        peer: Peer::Unwatched(in_words(&error)),
                        // The address that the kernel chooses is none of those asked for.
                        failed: Some(error).filter(|_| args.bind_address.is_empty()),
                    });
                }
            }
        }
        refused.context("the host name has no address")
    }
}

/// Opens the watching connection.
fn watched(target: &Target) -> Result<Peer, mysql::Error> {
    let connection = target.open()?;
    Ok(Watch::start(connection).map_or_else(Peer::Unwatched, Peer::Watched))
}

/// Looks who is there. What greets like MySQL is spared: it counts connections that do not log in,
/// and blocks the host.
fn spare_mysql(target: &Target, force: bool) -> Result<Result<Peer, mysql::Error>> {
    match target.greeting() {
        Ok(first) if greets_like_mysql(&first) && !force => Err(Refusal::new(
            format!(
                "{} greets like MySQL, which blocks a host after some connections that do not log \
                 in (error 1129, max_connect_errors)",
                target.address()
            ),
            "leave out --protocol tcp, so that each connection logs in; or add --force",
        )
        .into()),
        greeted => Ok(greeted.map(|_| Peer::Unwatched("its protocol is not known".into()))),
    }
}

/// Who logs in where: as the command line says, or else the option file, or else the environment.
fn login(args: &ReproArgs) -> Result<Login> {
    let file = match &args.defaults_file {
        Some(path) => ClientOptions::read(path)?,
        None => match ClientOptions::of_home() {
            Some(Ok(options)) => options,
            Some(Err(error)) => {
                render::note_ignored(&error);
                ClientOptions::default()
            }
            None => ClientOptions::default(),
        },
    };
    let said = match &args.url {
        Some(url) => {
            let login = Login::from_url(url)?;
            if login.password.is_some() {
                render::warn_of_password();
            }
            login
        }
        None => Login {
            host: args
                .host
                .clone()
                .or(file.host)
                .unwrap_or_else(|| "localhost".into()),
            port: args.port.or(file.port).unwrap_or(MYSQL_PORT),
            user: args.user.clone(),
            database: args.database.clone().or(file.database),
            ..Login::default()
        },
    };
    let system_user = || {
        let user = User::from_uid(getuid()).ok().flatten();
        user.map(|user| user.name)
    };
    let password = match password(args)?.or(said.password).or(file.password) {
        Some(password) => Some(password),
        None => environment_password()?,
    };
    Ok(Login {
        user: said.user.or(file.user).or_else(system_user),
        password,
        tls: args.tls || file.tls,
        tls_ca: args
            .tls_ca
            .clone()
            .or(file.tls_ca.filter(|_| file.tls || args.tls)),
        ..said
    })
}

/// The password from a file of its own or from a prompt.
fn password(args: &ReproArgs) -> Result<Option<Secret>> {
    if let Some(path) = &args.password_file {
        let text = file::named_by_user(path).map_err(|error| {
            Refusal::new(
                format!("reading the password from {}: {error}", path.display()),
                "name a file whose first line is the password, or use --ask-password",
            )
        })?;
        let first = text.lines().next().unwrap_or_default();
        if first.is_empty() {
            return Err(Refusal::new(
                format!("the first line of {} is empty", path.display()),
                "put the password there; for an account without one leave out --password-file",
            )
            .into());
        }
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
    Ok(None)
}

fn environment_password() -> Result<Option<Secret>> {
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
