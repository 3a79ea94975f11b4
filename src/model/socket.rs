use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
}

/// What the kernel hands ports out for: exhaustion is per flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Local address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The server's port.
    pub destination_port: u16,
}

impl Flow {
    /// The flow an outbound row belongs to.
    #[must_use]
    pub fn of(socket: &Socket) -> Self {
        Self {
            source: socket.local.ip(),
            destination: socket.remote.ip(),
            destination_port: socket.remote.port(),
        }
    }

    /// Whether the kernel takes the flow for loopback where `tcp_tw_reuse = 2` asks: by address,
    /// either end (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c). A socket bound to device `lo` counts
    /// there too but cannot be seen in the table.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.source.is_loopback() || self.destination.is_loopback()
    }

    /// The server as `address:port`.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.destination_port)
    }
}
