//! Ports asked for as connect() asks for them, and given back before anything is sent: the kernel's
//! own answer, where the socket table does not show why a port is passed over.
//!
//! `TCP_FASTOPEN_CONNECT` puts the SYN off until the first write, once connect() has its port
//! (`tcp_fastopen_defer_connect` in net/ipv4/tcp_fastopen.c, called after `inet_hash_connect`), and
//! `TCP_FASTOPEN_NO_COOKIE` (Linux 4.15) lets it do so toward a server that was never met. A socket
//! closed before that has sent no packet, and counts in no counter. `IP_LOCAL_PORT_RANGE` (Linux
//! 6.3) asks for one port.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use std::{iter, process};

use foldhash::fast::RandomState;

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{IpBindAddressNoPort, TcpFastOpenConnect};
use rustix::net::connect_unspec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Machine;
use crate::model::{Flow, PortSet, Snapshot, Tally, Trial};

mod option {
    //! Options that nix has no name for (include/uapi/linux/tcp.h, include/uapi/linux/in.h).

    use nix::{libc, setsockopt_impl, sockopt_impl};

    const TCP_FASTOPEN_NO_COOKIE: libc::c_int = 34;
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

    sockopt_impl!(
        /// Fast open without a cookie.
        FastOpenNoCookie,
        SetOnly,
        libc::IPPROTO_TCP,
        TCP_FASTOPEN_NO_COOKIE,
        bool
    );
    sockopt_impl!(
        /// The ports to choose from: the high end shifted by 16, and the low one.
        LocalPortRange,
        SetOnly,
        libc::IPPROTO_IP,
        IP_LOCAL_PORT_RANGE,
        u32
    );
}

/// What the kernel says to a connect() that sends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It has a port for it.
    Port,
    /// `EADDRNOTAVAIL`: it has none.
    NoPort,
    /// It says nothing about ports: it cannot put the SYN off or narrow the choice, there is no
    /// route, or something forbids it.
    Nothing,
}

/// A flow of this machine to itself that nobody else has, of an address that connections come from,
/// and what the kernel says to it; `None` where it says nothing. 127.0.0.1 is there wherever lo is up.
///
/// Where it says something, the SYN is put off. It is not after trouble with fast open in this
/// namespace (`tcp_fastopen_active_should_disable`), and where `net.ipv4.tcp_fastopen` forbids it;
/// toward this machine itself that harms nobody.
fn nobody(tally: &Tally) -> Option<(Flow, Answer)> {
    let [.., upper, lower] = process::id().to_be_bytes();
    let loopback = Flow {
        source: Ipv4Addr::LOCALHOST.into(),
        destination: Ipv4Addr::new(127, 254, upper, lower).into(),
        destination_port: DISCARD,
        interface: None,
    };
    let itself = |address| Flow {
        source: address,
        destination: address,
        ..loopback
    };
    let own = tally.sources.iter().map(|source| itself(source.address));
    iter::once(loopback)
        .chain(own)
        .map(|flow| (flow, ask(&flow)))
        .find(|(_, answer)| *answer != Answer::Nothing)
}

/// The port of a service that nobody has any more.
const DISCARD: u16 = 9;

/// Whether connect() has a port for one more connection of each of `flows`. One in TIME_WAIT that
/// it would reuse it gives up. Nothing where the kernel does not tell.
#[must_use]
pub fn ports(machine: &Machine, snapshot: &Snapshot, flows: &[Flow]) -> HashMap<Flow, Trial> {
    if let Some(taken) = &machine.taken {
        let mut told = taken.by_flow(|kept| {
            let has_port = kept.trial?.has_port;
            Some(Trial {
                has_port,
                ..Trial::default()
            })
        });
        told.retain(|flow, _| flows.contains(flow));
        return told;
    }
    if !machine.is_here() || flows.is_empty() || nobody(&snapshot.tally).is_none() {
        return HashMap::new();
    }
    let trial = |flow: &Flow| {
        let has_port = ask(flow).told();
        let trial = Trial {
            has_port,
            ..Trial::default()
        };
        (*flow, trial)
    };
    flows.iter().map(trial).collect()
}

/// Asks for ports of `flows` that are in TIME_WAIT for longer than the reuse delay: how many the
/// kernel gave. It gives them up thereby, as for any connect(). Nothing of a flow that has none, or
/// where the kernel does not tell.
#[must_use]
pub fn reuse(machine: &Machine, snapshot: &Snapshot, flows: &[Flow]) -> HashMap<Flow, Trial> {
    /// So many of a flow, met first in a table that is in no order.
    const TRIED: usize = 8;
    /// The kernel counted whole seconds before the delay became a setting (Linux 6.14).
    const ROUNDING: Duration = Duration::from_secs(1);
    /// Between the end of a connection and the read of its time left.
    const MARGIN: Duration = Duration::from_millis(100);
    if let Some(taken) = &machine.taken {
        let mut told = taken.by_flow(|kept| {
            let trial = kept
                .trial
                .filter(|trial| trial.reused + trial.refused > 0)?;
            Some(Trial {
                has_port: None,
                ..trial
            })
        });
        told.retain(|flow, _| flows.contains(flow));
        return told;
    }
    let mut trials: HashMap<Flow, Trial> = HashMap::new();
    let Some(range) = snapshot.tunables.ip_local_port_range else {
        return trials;
    };
    if !machine.is_here() || flows.is_empty() || nobody(&snapshot.tally).is_none() {
        return trials;
    }
    let delay = match snapshot.tunables.tcp_tw_reuse_delay_ms {
        Some(_) => snapshot.tunables.reuse_delay() + MARGIN,
        None => snapshot.tunables.reuse_delay() + ROUNDING,
    };
    let skipped = snapshot.skipped();
    let mut old: HashMap<Flow, Vec<u16>> = flows.iter().map(|flow| (*flow, Vec::new())).collect();
    machine.time_wait(range, |socket| {
        let left = socket.time_wait_left.unwrap_or(snapshot.hold_time);
        let is_old = snapshot.hold_time.saturating_sub(left) > delay;
        let port = socket.local.port();
        if let Some(ports) = old.get_mut(&Flow::of(socket))
            && is_old
            && ports.len() < TRIED
            && !skipped.contains(port)
        {
            ports.push(port);
        }
    });
    for (flow, ports) in old {
        let Some(client) = Client::of(&flow) else {
            continue;
        };
        for port in ports {
            let trial = trials.entry(flow).or_default();
            match client.ask(port) {
                Answer::Port => trial.reused += 1,
                Answer::NoPort => trial.refused += 1,
                Answer::Nothing => {}
            }
        }
    }
    trials
}

/// How many ports the kernel is asked for, one by one: some 3 µs each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// All of them.
    Each,
    /// Of many so many by chance first, and no more where none of these is passed over.
    Sample(u32),
}

/// Which of the ports in `some`, a part of the range of `tally`, connect() passes over whatever the
/// destination, because somebody bound them: of those too that no socket in the table shows as bound.
/// bind() marks the port, not the socket, and the mark stays while any socket has the port, in
/// TIME_WAIT too (`fastreuse` of `inet_bind_bucket`, read in `__inet_hash_connect`). `None` where the
/// kernel does not tell.
#[must_use]
pub fn passed_over(tally: &Tally, some: &PortSet, care: Care) -> Option<PortSet> {
    /// With so many there is no need for a sample: some 3 µs each.
    const FEW: usize = 512;
    let (nobody, answer) = nobody(tally)?;
    if answer == Answer::NoPort {
        return Some(some.clone());
    }
    let client = Client::of(&nobody)?;
    let among = |ports: &mut dyn Iterator<Item = u16>| {
        let mut found = PortSet::default();
        for port in ports {
            match client.ask(port) {
                Answer::Port => {}
                Answer::NoPort => found.insert(port),
                Answer::Nothing => return None,
            }
        }
        Some(found)
    };
    let all: Vec<_> = some.ports().collect();
    if let Care::Sample(number) = care
        && all.len() > FEW
    {
        // By chance: bind() hands out ports of one parity first.
        let chance = RandomState::default();
        let len = all.len() as u64;
        let place = |draw| usize::try_from(chance.hash_one(draw) % len).unwrap_or(0);
        let mut sample = (0..number).map(|draw| all[place(draw)]);
        if among(&mut sample)?.is_empty() {
            return Some(PortSet::default());
        }
    }
    among(&mut all.into_iter())
}

impl Answer {
    fn told(self) -> Option<bool> {
        match self {
            Self::Port => Some(true),
            Self::NoPort => Some(false),
            Self::Nothing => None,
        }
    }
}

/// Asks once, for whatever port.
fn ask(flow: &Flow) -> Answer {
    Client::of(flow).map_or(Answer::Nothing, |client| client.connect())
}

/// A client that asks again and again: opening and closing a socket takes longer than the question.
struct Client {
    socket: Socket,
    server: SockAddr,
}

impl Client {
    /// One of `flow`; `None` where such a socket cannot be had.
    fn of(flow: &Flow) -> Option<Self> {
        let server = scoped(flow.server(), flow);
        let source = scoped(SocketAddr::new(flow.source, 0), flow);
        let socket = Socket::new(
            Domain::for_address(server),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )
        .ok()?;
        // So that a service that starts at this very moment can have the port all the same.
        socket.set_reuse_address(true).ok()?;
        setsockopt(&socket, TcpFastOpenConnect, &true).ok()?;
        setsockopt(&socket, option::FastOpenNoCookie, &true).ok()?;
        if let Some(interface) = flow.interface {
            let name = interface.to_string();
            socket.bind_device(Some(name.as_bytes())).ok()?;
        }
        setsockopt(&socket, IpBindAddressNoPort, &true).ok()?;
        socket.bind(&source.into()).ok()?;
        let server = server.into();
        Some(Self { socket, server })
    }

    /// Asks for just this port.
    fn ask(&self, port: u16) -> Answer {
        let ports = u32::from(port) << 16 | u32::from(port);
        match setsockopt(&self.socket, option::LocalPortRange, &ports) {
            Ok(()) => self.connect(),
            Err(_) => Answer::Nothing,
        }
    }

    fn connect(&self) -> Answer {
        match self.socket.connect(&self.server) {
            // Given back at once; where that fails, when the socket is closed.
            Ok(()) => connect_unspec(&self.socket).map_or(Answer::Nothing, |()| Answer::Port),
            Err(error) if error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32) => {
                Answer::NoPort
            }
            Err(_) => Answer::Nothing,
        }
    }
}

/// A link-local address means nothing without its interface.
fn scoped(address: SocketAddr, flow: &Flow) -> SocketAddr {
    match (address, flow.interface) {
        (SocketAddr::V6(six), Some(interface)) if six.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*six.ip(), six.port(), 0, interface.index()).into()
        }
        _ => address,
    }
}
