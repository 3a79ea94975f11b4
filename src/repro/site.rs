//! The place of a run: this machine, the server, and who watches it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cause::Cause;
use super::client::{Client, Turn, login};
use super::failure::{Flow, in_words};
use super::guard::{self, Greets};
use super::login::{Login, MYSQL_PORT, named_elsewhere};
use super::notice::Notice;
use super::protocol::Protocol;
use super::report::{ClientReport, Facts, Report, ServerReport, TargetReport};
use super::run::{End, Limits, Moment, Outcome, run};
use super::sandbox::{Sandbox, Setting};
use super::server::Server;
use super::session::Close;
use super::stop::Stop;
use super::target::Target;
use super::watch::Watch;
use super::wire::Exchange;
use crate::judge::toward::{PortsToward, Way};
use crate::model::{Path, Snapshot};
use crate::refusal::Refusal;
use crate::system::{Machine, SourceChoice, View, route};

/// How a machine is looked at.
pub type Look = fn(&Machine, View) -> Result<Snapshot>;

/// What is to be done where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where.
    pub place: Place,
    /// How this machine is looked at there.
    pub look: Look,
    /// What the loop does.
    pub client: ClientReport,
    /// How it closes.
    pub close: Close,
    /// Whether it may connect to MySQL without logging in.
    pub force: bool,
    /// How far it goes.
    pub limits: Limits,
    /// Whether the user said how far.
    pub is_limited: bool,
}

/// Where the server is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a private network namespace with these settings.
    Sandbox(Vec<Setting>),
    /// Where the user says.
    Elsewhere(Login),
}

/// The place of a run, as it is before it.
#[derive(Debug)]
pub struct Site {
    plan: Plan,
    machine: Machine,
    target: Arc<Target>,
    path: Path,
    sources: Vec<IpAddr>,
    before: PortsToward,
    peer: Peer,
    /// The loop's first connection.
    first: Option<Turn>,
    client: Result<Arc<Client>, (Cause, u64)>,
}

#[derive(Debug)]
enum Peer {
    /// The embedded server counts its own threads.
    Embedded(Server),
    /// A connection asks.
    Watched(Arc<Watch>),
    /// Nobody does, because.
    Unwatched(String),
}

/// How a first connection to a server went.
struct Knocked {
    peer: Peer,
    first: Option<Turn>,
    client: Result<Client, (Cause, u64)>,
}

impl Site {
    /// Makes the place, and the first connection in it. `tell` hears what the user should know
    /// beforehand.
    ///
    /// # Errors
    /// When there is no such place. Where the server says no, the run is over before it began.
    pub fn open(plan: Plan, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Self> {
        match plan.place.clone() {
            Place::Sandbox(settings) => Self::embedded(plan, &settings, tell),
            Place::Elsewhere(login) => Self::elsewhere(&plan, &login, tell),
        }
    }

    fn embedded(
        plan: Plan,
        settings: &[Setting],
        tell: &mut dyn FnMut(Notice<'_>),
    ) -> Result<Self> {
        let sandbox = Sandbox::enter(MYSQL_PORT, settings, &plan.client.sources)?;
        let server = Server::start(sandbox.address())
            .with_context(|| format!("starting the embedded server on {}", sandbox.address()))?;
        tell(Notice::Embedded);
        if let Some((host, place)) = named_elsewhere() {
            tell(Notice::NotReached(&host, &place));
        }
        let target = Arc::new(Target::embedded(server.address()));
        let around = Around::look(&target, &plan)?;
        let client = plan.client(&target);
        Ok(around.with(
            plan,
            target,
            Knocked {
                peer: Peer::Embedded(server),
                first: None,
                client,
            },
        ))
    }

    /// A name can have several addresses, and `localhost` often has one where nothing listens: the
    /// first that takes a connection is it, or else the first. A server that says no is not asked
    /// again at its next address: it counts failed logins.
    fn elsewhere(plan: &Plan, login: &Login, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Self> {
        /// With several that are silent it is over soon.
        const LONGEST: Duration = Duration::from_secs(10);
        let end = Instant::now() + plan.limits.duration.min(LONGEST);
        let mut refused = None;
        let mut tried = Vec::new();
        for target in Target::resolve(login)? {
            tried.push(target.address());
            let target = Arc::new(target.patient_for(plan.limits.duration));
            tell(Notice::Connecting(
                &TargetReport::new(&target, false).to_string(),
            ));
            let mut around = Around::look(&target, plan)?;
            let knocked = match plan.client.protocol {
                Protocol::Mysql => plan.log_in(&target),
                Protocol::Tcp => {
                    if !plan.force {
                        tell(Notice::WhetherMysql(guard::LONGEST));
                    }
                    let knocked = plan.spare_mysql(&target)?;
                    // The look at its greeting took a port.
                    around = Around::look(&target, plan)?;
                    knocked
                }
            };
            if target.has_shown_a_key() {
                tell(Notice::UnderShownKey);
            }
            // Who watches the server has a connection to it.
            around.snapshot.note_timestamps(around.machine.timestamps());
            let unreached = matches!(&knocked.client, Err((cause, _)) if !cause.is_from_a_server());
            let site = around.with(plan.clone(), target, knocked);
            if !unreached {
                return Ok(site);
            }
            refused.get_or_insert(site);
            if Instant::now() >= end {
                break;
            }
        }
        if tried.len() > 1 {
            tell(Notice::NoneAnswers(&tried));
        }
        refused.context("the host name has no address")
    }

    /// The server.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The ports toward it before the run.
    #[must_use]
    pub fn before(&self) -> &PortsToward {
        &self.before
    }

    /// Whether there is a loop to run, and it takes ports.
    #[must_use]
    pub fn takes_ports(&self) -> bool {
        self.client
            .as_ref()
            .is_ok_and(|client| client.pooled().is_none())
    }

    /// The way to the server as it is now.
    fn path_now(&self) -> Path {
        route::path(self.target.address())
    }

    fn way(&self) -> Way<'_> {
        Way {
            sources: &self.sources,
            server: in_the_table(self.target.address()),
            is_here: matches!(self.peer, Peer::Embedded(_)) || self.path.local == Some(true),
        }
    }

    /// Runs the loop until something ends it; `show` sees its moments.
    pub fn run(&self, stop: &Stop, show: impl FnMut(&Moment)) -> Outcome {
        let client = match &self.client {
            Ok(client) => client,
            Err((cause, opened)) => return Outcome::failed(cause.clone(), *opened),
        };
        let enough = self
            .before
            .until_shown()
            .filter(|_| !self.plan.is_limited && self.takes_ports());
        let limits = Limits {
            connections: self.plan.limits.connections.or(enough),
            fast_ports: self
                .before
                .until_cliff()
                .filter(|_| client.pooled().is_none()),
            ..self.plan.limits
        };
        let ports_in_use = || {
            let snapshot = (self.plan.look)(&self.machine, View::Ports).ok()?;
            Some(PortsToward::new(&snapshot, self.way()).in_use)
        };
        run(client, self.first, limits, stop, ports_in_use, show)
    }

    /// Looks at what the run has left behind.
    #[must_use]
    pub fn close(self, outcome: Outcome) -> Report {
        // The loop's first connection, over which the server is watched, is one of those that hold
        // a port; beside a pool, whose connections stay open, the watch has one of its own.
        let (server, after) = if self.takes_ports() {
            let server = self.peer.finish();
            (server, self.settled())
        } else {
            let after = self.settled();
            (self.peer.finish(), after)
        };
        let again = self.tried_again(&outcome);
        // Addresses and routes may have gone during the run.
        let has_source = !self.plan.client.sources.is_empty() || self.path_now().errno.is_none();
        let flow = |shortage| Flow {
            has_source,
            shortage,
        };
        Report::new(
            TargetReport::new(&self.target, matches!(self.peer, Peer::Embedded(_))),
            self.plan.client.clone(),
            outcome,
            Facts {
                before: &self.before,
                after: after.as_ref(),
                again,
            },
            flow,
            server,
        )
    }

    /// Whether a connection can be made once all TIME_WAIT is older than the reuse delay: tried
    /// where it is open whether the server has timestamps, and the ports are gone.
    fn tried_again(&self, outcome: &Outcome) -> Option<bool> {
        /// TIME_WAIT ages by whole timer ticks, and the last connection has to close first.
        const MARGIN: Duration = Duration::from_millis(200);
        /// A delay that is longer than that is nobody's.
        const LONGEST: Duration = Duration::from_secs(5);
        let is_out_of_ports = match &outcome.end {
            End::Failed(cause) => cause.is_address_not_available(),
            _ => false,
        };
        let client = self.client.as_ref().ok()?;
        let before = &self.before;
        let delay = before.reuse_delay + MARGIN;
        // By then the first ports must not come back by themselves.
        let is_in_time = outcome.elapsed + delay < before.hold_time && delay <= LONGEST;
        let tells = before.reuse.is_open() && outcome.turns > 0 && client.pooled().is_none();
        if !(tells && is_out_of_ports && is_in_time) {
            return None;
        }
        thread::sleep(delay);
        match client.connect_again() {
            Ok(()) => Some(true),
            Err(cause) => cause.is_address_not_available().then_some(false),
        }
    }

    /// The ports once the last connections are in TIME_WAIT, or half a second later; `None` when the
    /// table cannot be read.
    fn settled(&self) -> Option<PortsToward> {
        const LOOKS: usize = 10;
        // The kernel may have begun to choose another address.
        let chosen = self.path_now().source;
        let mut sources = self.sources.clone();
        if self.plan.client.sources.is_empty() && !sources.is_empty() {
            sources.extend(chosen.filter(|chosen| !self.sources.contains(chosen)));
        }
        let way = Way {
            sources: &sources,
            ..self.way()
        };
        let mut ports = None;
        for _ in 0..LOOKS {
            let snapshot = (self.plan.look)(&self.machine, View::Everything).ok()?;
            ports = Some(PortsToward::new(&snapshot, way));
            if ports.as_ref().is_none_or(|ports| !ports.closing) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        ports
    }
}

impl Plan {
    fn client(&self, target: &Arc<Target>) -> Result<Client, (Cause, u64)> {
        let sources = self.client.sources.clone();
        match (self.client.pool, self.client.protocol) {
            (Some(size), _) => Client::pool(target, size, self.limits.duration),
            (None, Protocol::Tcp) => Ok(Client::tcp(target, sources)),
            (None, Protocol::Mysql) => Ok(Client::mysql(Arc::clone(target), sources, self.close)),
        }
    }

    /// Makes the loop's first connection, and watches the server over it. Beside a pool, which has
    /// to have its connections first, the watch needs one more.
    fn log_in(&self, target: &Arc<Target>) -> Knocked {
        let dialer = target.dialer(self.client.sources.clone());
        let log_in = || login(target, &dialer, 0, Exchange::within(target.patience()));
        let unreached = |cause: &Cause| {
            let what = match (self.client.pool, cause.is_from_a_server()) {
                (Some(_), _) => "the pool could not open all of its connections",
                (None, true) => "the loop's own first login failed",
                (None, false) => "the loop's own first connection failed",
            };
            Peer::Unwatched(what.into())
        };
        let watch = |session| match Watch::start(session, self.close, self.limits.duration / 4) {
            Ok(watch) => Peer::Watched(Arc::new(watch)),
            Err(error) => Peer::Unwatched(error.to_string()),
        };
        if self.client.pool.is_some() {
            let client = self.client(target);
            let peer = match &client {
                Err((cause, _)) => unreached(cause),
                Ok(_) => match log_in() {
                    Ok((session, _)) => watch(session),
                    Err(cause) => Peer::Unwatched(in_words(&cause)),
                },
            };
            return Knocked {
                peer,
                first: None,
                client,
            };
        }
        match log_in() {
            Ok((session, turn)) => {
                let peer = watch(session);
                let watch = match &peer {
                    Peer::Watched(watch) => Some(Arc::clone(watch)),
                    _ => None,
                };
                Knocked {
                    peer,
                    first: Some(turn),
                    client: self.client(target).map(|client| client.beside(watch)),
                }
            }
            Err(cause) => Knocked {
                peer: unreached(&cause),
                first: None,
                client: Err((cause, 0)),
            },
        }
    }

    /// Looks who is there. MySQL is spared: it counts connections that do not log in, and blocks
    /// the host. One that says nothing may be MySQL all the same.
    fn spare_mysql(&self, target: &Arc<Target>) -> Result<Knocked> {
        const COST: &str = "blocks a host after some connections that do not log in (error 1129, \
                            max_connect_errors)";
        let greets = if self.force {
            target.lets_in()
        } else {
            target.greets()
        };
        match &greets {
            Ok(Greets::LikeMysql) => {
                return Err(Refusal::new(
                    format!("{} greets like MySQL, which {COST}", target.address()),
                    "leave out --protocol tcp, so that each connection logs in; or add --force",
                )
                .into());
            }
            Ok(Greets::NotYet) => {
                return Err(Refusal::new(
                    format!(
                        "{} has said nothing for {} s: it waits for the client's word, as Redis and \
                         HTTP do, or it is MySQL and still looks up this host's name, which {COST}",
                        target.address(),
                        guard::LONGEST.as_secs()
                    ),
                    "add --force where it is no MySQL",
                )
                .into());
            }
            Ok(Greets::Otherwise) | Err(_) => {}
        }
        let client = match greets {
            // The address that the kernel chooses is none of those asked for.
            Err(cause) if self.client.sources.is_empty() => Err((cause, 0)),
            _ => self.client(target),
        };
        Ok(Knocked {
            peer: Peer::Unwatched("its protocol is not known".into()),
            first: None,
            client,
        })
    }
}

impl Peer {
    fn finish(&self) -> ServerReport {
        match self {
            Self::Embedded(server) => {
                ServerReport::embedded(server.most_threads_connected().into())
            }
            Self::Watched(watch) => ServerReport::new(watch.finish()),
            Self::Unwatched(why) => ServerReport::unwatched(why.clone()),
        }
    }
}

/// What is around a target before a run.
struct Around {
    machine: Machine,
    path: Path,
    sources: Vec<IpAddr>,
    snapshot: Snapshot,
}

impl Around {
    fn look(target: &Target, plan: &Plan) -> Result<Self> {
        let machine = Machine::live(SourceChoice::Auto);
        let path = route::path(target.address());
        let chosen: Vec<_> = path.source.into_iter().collect();
        Ok(Self {
            snapshot: (plan.look)(&machine, View::Everything)?,
            machine,
            sources: if plan.client.sources.is_empty() {
                chosen
            } else {
                plan.client.sources.clone()
            },
            path,
        })
    }

    fn with(self, plan: Plan, target: Arc<Target>, knocked: Knocked) -> Site {
        let way = Way {
            sources: &self.sources,
            server: in_the_table(target.address()),
            is_here: matches!(knocked.peer, Peer::Embedded(_)) || self.path.local == Some(true),
        };
        Site {
            before: PortsToward::new(&self.snapshot, way),
            plan,
            machine: self.machine,
            path: self.path,
            sources: self.sources,
            peer: knocked.peer,
            first: knocked.first,
            client: knocked.client.map(Arc::new),
            target,
        }
    }
}

/// A server as the socket table has it, which tells the interface of a link-local one apart.
fn in_the_table(server: SocketAddr) -> SocketAddr {
    SocketAddr::new(server.ip(), server.port())
}
