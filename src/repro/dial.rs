use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

use super::cause::{Call, Cause};
use super::failure::{Failure, Flow};
use super::guard;
use super::protocol::Protocol as Dialect;
use crate::judge::destination::Attempt;
use crate::judge::toward::Shortage;
use crate::system::route;

/// How long one attempt may take: a server on another continent answers within half a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// Connects to the first of `servers`, addresses of one destination called `name`, that takes a
/// connection, and closes. `is_full` is asked where it decides: whether the ports toward one are
/// taken. From a MySQL server it takes leave, which would count it otherwise and block this host.
#[must_use]
pub fn knock(
    servers: &[SocketAddr],
    name: &str,
    is_full: impl Fn(SocketAddr) -> bool,
) -> Option<Attempt> {
    /// With four that are silent it takes 8 s.
    const TRIED: usize = 4;
    /// Longer than a server on the same continent takes to greet; others never do.
    const GREETING: Duration = Duration::from_millis(300);
    /// Where MySQL is expected it may first have to look up this host's name.
    const MYSQL: u16 = 3306;
    let mut first = None;
    for &server in servers.iter().take(TRIED) {
        let dialer = Dialer {
            server,
            sources: Vec::new(),
            patience: DEADLINE,
        };
        let start = Instant::now();
        let opened = dialer.dial(0);
        let microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let failure = opened.as_ref().err().map(|cause| {
            let flow = || Flow {
                has_source: route::path(server).errno.is_none(),
                shortage: if is_full(server) {
                    Shortage::Taken
                } else {
                    Shortage::Unknown
                },
            };
            Failure::new(cause, (name, server), Dialect::Tcp, flow).explained(server)
        });
        let attempt = Attempt {
            server,
            microseconds,
            failure,
        };
        if let Ok(tcp) = opened {
            let patience = match server.port() {
                MYSQL => DEADLINE,
                _ => GREETING,
            };
            guard::look(tcp, patience);
            return Some(attempt);
        }
        first.get_or_insert(attempt);
    }
    first
}

/// Opens TCP connections to one server, from its source addresses in turn.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    pub server: SocketAddr,
    /// None lets the kernel choose, by its route.
    pub sources: Vec<IpAddr>,
    /// How long connect() may take.
    pub patience: Duration,
}

impl Dialer {
    /// Opens the connection of this `number`.
    ///
    /// # Errors
    /// Whatever connect() says, or bind() where the source is no address of this machine.
    pub fn dial(&self, number: u64) -> Result<TcpStream, Cause> {
        let socket = self
            .socket()
            .map_err(|error| cause(Call::Connect, &error))?;
        if let Some(source) = self.source(number) {
            // The port is chosen by connect(), per flow, instead of by bind(), per address
            // (ip(7)); so it fails with 99, not with 98.
            setsockopt(&socket, IpBindAddressNoPort, &true)
                .map_err(io::Error::from)
                .and_then(|()| socket.bind(&SocketAddr::new(source, 0).into()))
                .map_err(|error| cause(Call::Bind, &error))?;
        }
        self.connect(&socket)
            .map_err(|error| cause(Call::Connect, &error))?;
        Ok(socket.into())
    }

    /// A process that was stopped and goes on waits for the rest of the time: with a timeout in force
    /// the kernel does not call again by itself (signal(7)).
    fn connect(&self, socket: &Socket) -> io::Result<()> {
        /// The kernel takes a timeout of 0 for none.
        const SHORTEST: Duration = Duration::from_millis(1);
        let begun = Instant::now();
        loop {
            match socket.connect(&self.server.into()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    let left = self.patience.saturating_sub(begun.elapsed());
                    socket.set_write_timeout(Some(left.max(SHORTEST)))?;
                }
                other => return other,
            }
        }
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(self.server);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        // connect() keeps to it: SO_SNDTIMEO in socket(7).
        socket.set_write_timeout(Some(self.patience))?;
        Ok(socket)
    }

    fn source(&self, number: u64) -> Option<IpAddr> {
        let index = number.checked_rem(self.sources.len() as u64)?;
        self.sources.get(usize::try_from(index).ok()?).copied()
    }
}

fn cause(call: Call, error: &io::Error) -> Cause {
    /// What connect() says when its time is up, and a second one on the same socket.
    const IN_PROGRESS: i32 = Errno::EINPROGRESS as i32;
    const ALREADY: i32 = Errno::EALREADY as i32;
    match error.raw_os_error() {
        Some(IN_PROGRESS | ALREADY) => Cause::System {
            call,
            errno: Errno::ETIMEDOUT as i32,
        },
        Some(errno) => Cause::System { call, errno },
        None => Cause::Other(error.to_string()),
    }
}
