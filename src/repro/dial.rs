use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mysql::DriverError;
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

use super::failure::Failure;
use super::protocol::Protocol as Dialect;
use crate::judge::destination::Attempt;

/// How long one attempt may take: a server on another continent answers within half a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// Connects to the first of `servers`, addresses of one destination called `name`, that takes a
/// connection, and closes. `is_full` is asked where it decides: whether the ports toward one are
/// taken.
#[must_use]
pub fn knock(
    servers: &[SocketAddr],
    name: &str,
    is_full: impl Fn(SocketAddr) -> bool,
) -> Option<Attempt> {
    /// With four that are silent it takes 8 s.
    const TRIED: usize = 4;
    let mut first = None;
    for &server in servers.iter().take(TRIED) {
        let dialer = Dialer {
            server,
            sources: Vec::new(),
            patience: DEADLINE,
        };
        let start = Instant::now();
        let failure = dialer.dial(0).err().map(|error| {
            Failure::new(&error, name, Dialect::Tcp, || is_full(server)).explained(server)
        });
        let attempt = Attempt {
            server,
            microseconds: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            failure,
        };
        if attempt.failure.is_none() {
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
    /// How long the server may stay silent.
    pub patience: Duration,
}

impl Dialer {
    /// Opens the connection of this `number`.
    ///
    /// # Errors
    /// Whatever connect() says, or bind() where the source is no address of this machine; as the
    /// mysql crate puts it.
    pub fn dial(&self, number: u64) -> Result<TcpStream, mysql::Error> {
        self.open(number).map_err(|error| {
            let told = (self.server.to_string(), error.to_string(), error.kind());
            DriverError::CouldNotConnect(Some(told)).into()
        })
    }

    fn open(&self, number: u64) -> io::Result<TcpStream> {
        let domain = Domain::for_address(self.server);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(self.patience))?;
        // connect() keeps to it too: SO_SNDTIMEO in socket(7).
        socket.set_write_timeout(Some(self.patience))?;
        if let Some(source) = self.source(number) {
            // The port is chosen by connect(), per flow, instead of by bind(), per address
            // (ip(7)); so it fails with 99, not with 98.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&self.server.into()).map_err(|error| {
            if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) {
                Errno::ETIMEDOUT.into()
            } else {
                error
            }
        })?;
        Ok(socket.into())
    }

    fn source(&self, number: u64) -> Option<IpAddr> {
        let index = number.checked_rem(self.sources.len() as u64)?;
        self.sources.get(usize::try_from(index).ok()?).copied()
    }
}
