use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::TcpState;

/// One row of the kernel's socket table. Never stored: rows are folded into a
/// [`Tally`](super::Tally) while they stream by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// TCP state. A small socket in `FIN_WAIT2` is told from a full one by `time_wait_left`.
    pub state: TcpState,
    /// This end; IPv4-mapped IPv6 is folded into IPv4.
    pub local: SocketAddr,
    /// The other end, folded likewise; port 0 where there is none.
    pub remote: SocketAddr,
    /// Time until the kernel frees a `TIME_WAIT` (or orphaned `FIN_WAIT2`) socket; `None` for every
    /// other row. From `tm->when` (USER_HZ ticks) or `idiag_expires` (ms).
    pub time_wait_left: Option<Duration>,
    /// Inode by which a process's descriptor names it; `None` where no process holds it any more.
    pub inode: Option<u32>,
    /// The interface it is bound to (`SO_BINDTODEVICE`, a VRF, or an IPv6 link-local address);
    /// `None` where it is bound to none, and in /proc/net/tcp, which does not tell.
    pub interface: Option<Interface>,
    /// How often what it sent last has been sent again without an answer (`idiag_retrans`).
    pub retransmits: u8,
}

/// A network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface {
    index: u32,
    name: [u8; Self::LONGEST],
}

impl Interface {
    /// `IFNAMSIZ` (include/uapi/linux/if.h), its final zero included.
    const LONGEST: usize = 16;

    /// The interface with this number. What no interface can be called is cut.
    #[must_use]
    pub fn new(index: u32, name: &str) -> Self {
        let mut bytes = [0; Self::LONGEST];
        for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
            *byte = letter;
        }
        Self { index, name: bytes }
    }

    /// Its number.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Its name; empty where it has none any more.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.name.split(|&byte| byte == 0).next();
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        name.unwrap_or_default()
    }

    /// Whether it is `lo`: `LOOPBACK_IFINDEX` (include/net/net_namespace.h).
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.index == 1
    }
}

/// Its name, or its number where it has none any more.
impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(f, "if{}", self.index),
            name => f.write_str(name),
        }
    }
}

impl Serialize for Interface {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the kernel hands ports out for: exhaustion is per flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Local address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The server's port.
    pub destination_port: u16,
    /// The interface its sockets are bound to: they have ports of their own. `None` where they are
    /// bound to none, or the table does not tell.
    pub interface: Option<Interface>,
}

/// Of whole numbers: hashing field by field took half of the time of folding a row.
impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let interface = self.interface.map_or(0, Interface::index);
        let rest = u64::from(self.destination_port) << 32 | u64::from(interface);
        if let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source, self.destination) {
            let ends = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
            return state.write_u128(u128::from(ends) << 64 | u128::from(rest));
        }
        for end in [self.source, self.destination] {
            match end {
                IpAddr::V4(four) => state.write_u32(four.to_bits()),
                IpAddr::V6(six) => state.write_u128(six.to_bits()),
            }
        }
        state.write_u64(rest);
    }
}

impl Flow {
    /// The flow an outbound row belongs to.
    #[must_use]
    pub fn of(socket: &Socket) -> Self {
        Self {
            source: socket.local.ip(),
            destination: socket.remote.ip(),
            destination_port: socket.remote.port(),
            interface: socket.interface,
        }
    }

    /// The flow between the same addresses whose sockets are bound to no interface: their ports are
    /// taken from those that are bound too, though not the other way round (`inet_bound_dev_eq` in
    /// include/net/inet_sock.h).
    #[must_use]
    pub fn without_interface(&self) -> Self {
        Self {
            interface: None,
            ..*self
        }
    }

    /// Whether the kernel takes the flow for loopback where `tcp_tw_reuse = 2` asks: by address,
    /// either end, or bound to `lo` (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.source.is_loopback()
            || self.destination.is_loopback()
            || self.interface.is_some_and(Interface::is_loopback)
    }

    /// The server as `address:port`.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.destination_port)
    }
}

/// `192.0.2.1`, or `192.0.2.1%eth1` where the flow is bound to an interface, as ss writes it.
pub struct Origin<'a>(pub &'a Flow);

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.source)?;
        self.0
            .interface
            .map_or(Ok(()), |interface| write!(f, "%{interface}"))
    }
}
