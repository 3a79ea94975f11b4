use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mysql::DriverError;
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};

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
