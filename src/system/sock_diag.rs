//! Rows of the socket table by netlink (`net/ipv4/inet_diag.c`, include/uapi/linux/inet_diag.h).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, socket};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::netlink::{DUMP, Failure, Netlink, u16_at, u32_at};
use crate::model::{Flow, Interface, PortRange, PortSet, Socket, TcpState, Timestamps, Unseen};

/// `TCPDIAG_GETSOCK`: the older request, which alone returns both families in one walk of the hash.
const TCPDIAG_GETSOCK: u16 = 18;

/// The newer request, one family at a time, for any protocol.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The states 1 to 11: every socket that has a place in the table.
pub const ALL_STATES: u32 = 0xffe;
/// The states of sockets that a process can hold: all but TIME_WAIT.
const HELD: u32 = ALL_STATES & !(1 << TcpState::TimeWait as u32);
/// Of these the ones that have another end.
const CONNECTED: u32 = HELD & !(1 << TcpState::Listen as u32);
/// Bound to a port, neither listening nor connected (`TCP_BOUND_INACTIVE`, Linux 6.8): older
/// kernels answer with no row. Costs a walk of the bind hash, so it is asked for alone.
const BOUND_INACTIVE: u32 = 1 << 13;

/// Streams every socket in one of `states`, and with a local port in `ports` where there are any,
/// into `row`: listeners first, the others in no order. Returns how many were not understood.
///
/// # Errors
/// When the kernel lacks `sock_diag` for TCP, or the dump is incomplete: then rows were missed.
pub fn rows(
    states: u32,
    ports: Option<PortRange>,
    mut row: impl FnMut(&Socket),
) -> Result<u64, Failure> {
    let interfaces = interfaces();
    let mut malformed = 0;
    dump(&Request::of(states, ports), |message| {
        match decode(message, &interfaces) {
            Some(socket) => row(&socket),
            None => malformed += 1,
        }
    })?;
    Ok(malformed)
}

/// The other ends of live sockets with a local port in `ports`, by whether they have TCP timestamps.
///
/// # Errors
/// As [`rows`].
pub fn timestamps(ports: Option<PortRange>) -> Result<HashMap<Flow, Timestamps>, Failure> {
    /// Until the other end has answered it has agreed to nothing.
    const ANSWERED: u32 =
        CONNECTED & !(1 << TcpState::SynSent as u32) & !(1 << TcpState::SynRecv as u32);
    let interfaces = interfaces();
    let mut ends: HashMap<Flow, Timestamps> = HashMap::new();
    let request = Request {
        with_info: true,
        ..Request::of(ANSWERED, ports)
    };
    dump(&request, |message| {
        let (Some(socket), Some(agreed)) = (decode(message, &interfaces), has_timestamps(message))
        else {
            return;
        };
        let known = ends.entry(Flow::of(&socket)).or_default();
        if agreed {
            known.with += 1;
        } else {
            known.without += 1;
        }
    })?;
    Ok(ends)
}

/// The interfaces of this namespace; those without a name here keep their number.
fn interfaces() -> Vec<Interface> {
    let names = nix::net::if_::if_nameindex();
    names.map_or_else(
        |_| Vec::new(),
        |names| {
            names
                .iter()
                .map(|known| Interface::new(known.index(), &known.name().to_string_lossy()))
                .collect()
        },
    )
}

/// Streams the sockets that a process can hold as inode, user and row: those that are only bound,
/// where `bound` asks for them, have no row.
///
/// # Errors
/// As [`rows`].
pub fn held(bound: bool, mut row: impl FnMut(u32, u32, Option<&Socket>)) -> Result<(), Failure> {
    let states = HELD | if bound { BOUND_INACTIVE } else { 0 };
    let interfaces = interfaces();
    dump(&Request::of(states, None), |message| {
        let (inode, user) = (u32_at(message, INODE), u32_at(message, USER));
        if let (Some(inode @ 1..), Some(user)) = (inode, user) {
            row(inode, user, decode(message, &interfaces).as_ref());
        }
    })
}

/// Ports bound by sockets that neither listen nor connect, or why the kernel does not tell them.
/// `range` is spared by the trial that shows whether it does.
///
/// # Errors
/// As [`rows`].
pub fn bound(range: Option<PortRange>) -> Result<Result<PortSet, Unseen>, Failure> {
    // No row can mean no such socket, or a kernel that cannot say: one that is there tells.
    let trial = bind_outside(range);
    let mut ports = bound_ports()?;
    Ok(match trial {
        Some((_, port)) if ports.contains(port) => {
            ports.remove(port);
            Ok(ports)
        }
        _ if !ports.is_empty() => Ok(ports),
        Some(_) => Err(Unseen::ByKernel),
        None => Err(Unseen::WithoutTrial),
    })
}

/// A socket bound to a port of 127.0.0.1 that no connect() of this machine would take.
fn bind_outside(range: Option<PortRange>) -> Option<(OwnedFd, u16)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let trial = socket(AddressFamily::Inet, SockType::Stream, flags, None).ok()?;
    (1..=u16::MAX)
        .rev()
        .filter(|&port| range.is_none_or(|range| !range.contains(port)))
        .take(TRIALS)
        .find(|&port| bind(trial.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).is_ok())
        .map(|port| (trial, port))
}

/// Ports tried for the trial before giving up.
const TRIALS: usize = 16;

fn bound_ports() -> Result<PortSet, Failure> {
    local_ports(&Request::of(BOUND_INACTIVE, None))
}

/// Ports of `range` that connected sockets were given by bind() instead of choosing them:
/// connect() skips these like those of listeners.
///
/// # Errors
/// As [`rows`].
pub fn chosen(range: Option<PortRange>) -> Result<PortSet, Failure> {
    local_ports(&Request {
        only_chosen: true,
        ..Request::of(CONNECTED, range)
    })
}

fn local_ports(request: &Request) -> Result<PortSet, Failure> {
    let mut ports = PortSet::default();
    dump(request, |message| {
        if let Some(port) = u16_be(message, SOURCE_PORT) {
            ports.insert(port);
        }
    })?;
    Ok(ports)
}

/// Local ports of the sockets of `protocol`, of either family, that are connected to nobody.
///
/// # Errors
/// As [`rows`]: `ENOENT` where the kernel cannot list that protocol.
pub fn unconnected(protocol: u8) -> Result<PortSet, Failure> {
    let mut ports = PortSet::default();
    for family in [AF_INET, AF_INET6] {
        // struct inet_diag_req_v2: everything but these stays zero.
        let mut request = vec![0; 56];
        request[..2].copy_from_slice(&[family, protocol]);
        let states = 1_u32 << TcpState::Close as u32;
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        Netlink::open(SockProtocol::NetlinkSockDiag)?.request(
            SOCK_DIAG_BY_FAMILY,
            DUMP,
            &request,
            |message| ports.extend(u16_be(message, SOURCE_PORT)),
        )?;
    }
    Ok(ports)
}

/// What the kernel is asked for.
#[derive(Debug, Clone, Copy)]
struct Request {
    states: u32,
    /// Only sockets with a local port in here.
    ports: Option<PortRange>,
    /// Only sockets whose port was named in bind().
    only_chosen: bool,
    /// With `struct tcp_info`.
    with_info: bool,
}

impl Request {
    fn of(states: u32, ports: Option<PortRange>) -> Self {
        Self {
            states,
            ports,
            only_chosen: false,
            with_info: false,
        }
    }

    /// `struct inet_diag_req`, and the filter where there is one.
    fn bytes(self) -> Vec<u8> {
        const INET_DIAG_INFO: u16 = 2;
        let mut request = vec![0; 60];
        if self.with_info {
            request[3] = 1 << (INET_DIAG_INFO - 1);
        }
        request[52..56].copy_from_slice(&self.states.to_ne_bytes());
        request.extend(filter(self.ports, self.only_chosen));
        request
    }
}

fn dump(request: &Request, message: impl FnMut(&[u8])) -> Result<(), Failure> {
    let opened = without_net_admin(|| Netlink::open(SockProtocol::NetlinkSockDiag));
    opened?.request(TCPDIAG_GETSOCK, DUMP, &request.bytes(), message)
}

/// Opens a socket as a thread without `CAP_NET_ADMIN`: to one opened with it the kernel tells the
/// mark of every row too, for a tenth of the time (`net_admin` in net/ipv4/inet_diag.c).
fn without_net_admin<T>(open: impl FnOnce() -> T) -> T {
    let Ok(had) = capabilities(None) else {
        return open();
    };
    let lowered = CapabilitySets {
        effective: had.effective - CapabilitySet::NET_ADMIN,
        ..had
    };
    let is_lowered = lowered != had && set_capabilities(None, lowered).is_ok();
    let opened = open();
    if is_lowered {
        // What is permitted can always be raised again.
        let _ = set_capabilities(None, had);
    }
    opened
}

/// The attribute by which the kernel lists only sockets with a local port in `ports`, and only those
/// whose port was named in bind(): instructions of `struct inet_diag_bc_op {code, yes, no}`, followed
/// by the port in a second one's `no` where the code compares. `yes` and `no` are how far to jump: to
/// the end is a match, past it is none. `yes` may not jump past the end, so that a refusal by it
/// takes a jump of its own (`inet_diag_bc_audit` in net/ipv4/inet_diag.c).
fn filter(ports: Option<PortRange>, only_chosen: bool) -> Vec<u8> {
    const INET_DIAG_REQ_BYTECODE: u16 = 1;
    const INET_DIAG_BC_JMP: u8 = 1;
    const INET_DIAG_BC_S_GE: u8 = 2;
    const INET_DIAG_BC_S_LE: u8 = 3;
    const INET_DIAG_BC_AUTO: u8 = 6;
    /// An instruction, and one that compares with a port.
    const ALONE: u8 = 4;
    const WITH_PORT: u8 = 8;
    let mut operations: Vec<(u8, Option<u16>)> = Vec::new();
    if let Some(range) = ports {
        operations.push((INET_DIAG_BC_S_GE, Some(range.low)));
        operations.push((INET_DIAG_BC_S_LE, Some(range.high)));
    }
    if only_chosen {
        operations.push((INET_DIAG_BC_AUTO, None));
        operations.push((INET_DIAG_BC_JMP, None));
    }
    if operations.is_empty() {
        return Vec::new();
    }
    let size = |port: Option<u16>| port.map_or(ALONE, |_| WITH_PORT);
    let mut left: u16 = operations
        .iter()
        .map(|&(_, port)| u16::from(size(port)))
        .sum();
    let mut attribute = Vec::with_capacity(28);
    attribute.extend((4 + left).to_ne_bytes());
    attribute.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    for (code, port) in operations {
        let past_the_end = left + 4;
        let no = match code {
            // A port named in bind() skips the jump that refuses the others.
            INET_DIAG_BC_AUTO => 2 * u16::from(ALONE),
            _ => past_the_end,
        };
        attribute.extend([code, size(port)]);
        attribute.extend(no.to_ne_bytes());
        if let Some(port) = port {
            attribute.extend([0, 0]);
            attribute.extend(port.to_ne_bytes());
        }
        left -= u16::from(size(port));
    }
    attribute
}

// Offsets in struct inet_diag_msg, 72 bytes.
const FAMILY: usize = 0;
const STATE: usize = 1;
const TIMER: usize = 2;
const RETRANSMITS: usize = 3;
const SOURCE_PORT: usize = 4;
const DESTINATION_PORT: usize = 6;
const SOURCE: usize = 8;
const DESTINATION: usize = 24;
const INTERFACE: usize = 40;
const EXPIRES: usize = 52;
const USER: usize = 64;
const INODE: usize = 68;
/// Where the attributes begin.
const ATTRIBUTES: usize = 72;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `idiag_timer` of a TIME_WAIT or an orphaned FIN_WAIT2 (`inet_twsk_diag_fill`).
const TIMER_TIME_WAIT: u8 = 3;

/// One `struct inet_diag_msg`; `None` when it is too short, or of a family or state unknown here.
fn decode(message: &[u8], interfaces: &[Interface]) -> Option<Socket> {
    // Its length is looked at once, not for each field.
    let message = message.first_chunk::<ATTRIBUTES>()?;
    let family = *message.get(FAMILY)?;
    let end = |address, port| {
        let port = u16_be(message, port)?;
        let address: [u8; 16] = *message.get(address..)?.first_chunk()?;
        let address = match family {
            AF_INET => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
            AF_INET6 => Ipv6Addr::from(address).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(address, port))
    };
    let expires = u32_at(message, EXPIRES)?;
    Some(Socket {
        state: TcpState::from_kernel(*message.get(STATE)?)?,
        local: end(SOURCE, SOURCE_PORT)?,
        remote: end(DESTINATION, DESTINATION_PORT)?,
        time_wait_left: (*message.get(TIMER)? == TIMER_TIME_WAIT)
            .then(|| Duration::from_millis(u64::from(expires))),
        inode: u32_at(message, INODE).filter(|&inode| inode != 0),
        interface: u32_at(message, INTERFACE)
            .filter(|&index| index != 0)
            .map(|index| named(index, interfaces)),
        retransmits: *message.get(RETRANSMITS)?,
    })
}

fn named(index: u32, interfaces: &[Interface]) -> Interface {
    let known = interfaces.iter().find(|known| known.index() == index);
    known.copied().unwrap_or_else(|| Interface::new(index, ""))
}

/// Whether `struct tcp_info` of a message has `TCPI_OPT_TIMESTAMPS`; `None` without one.
fn has_timestamps(message: &[u8]) -> Option<bool> {
    const INET_DIAG_INFO: u16 = 2;
    const TCPI_OPTIONS: usize = 5;
    const TCPI_OPT_TIMESTAMPS: u8 = 1;
    let mut rest = message.get(ATTRIBUTES..)?;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        if u16_at(rest, 2)? == INET_DIAG_INFO {
            let options = rest.get(4..length)?.get(TCPI_OPTIONS)?;
            return Some(options & TCPI_OPT_TIMESTAMPS != 0);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn u16_be(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TIME_WAIT of 127.0.0.1:40000 → 127.0.0.1:3306 with 59,280 ms left, as Linux 6.18 sends it.
    fn time_wait() -> [u8; 72] {
        let mut message = [0; 72];
        message[..4].copy_from_slice(&[AF_INET, 6, 3, 0]);
        message[4..6].copy_from_slice(&40000_u16.to_be_bytes());
        message[6..8].copy_from_slice(&3306_u16.to_be_bytes());
        message[8..12].copy_from_slice(&[127, 0, 0, 1]);
        message[24..28].copy_from_slice(&[127, 0, 0, 1]);
        message[52..56].copy_from_slice(&59_280_u32.to_ne_bytes());
        message
    }

    #[test]
    fn a_time_wait_row_keeps_its_milliseconds() {
        assert_eq!(
            decode(&time_wait(), &[]),
            Some(Socket {
                state: TcpState::TimeWait,
                local: "127.0.0.1:40000".parse().unwrap(),
                remote: "127.0.0.1:3306".parse().unwrap(),
                time_wait_left: Some(Duration::from_millis(59_280)),
                inode: None,
                interface: None,
                retransmits: 0,
            })
        );
    }

    #[test]
    fn a_mapped_address_folds_into_ipv4() {
        let mut message = time_wait();
        message[0] = AF_INET6;
        for start in [8, 24] {
            message[start..start + 16]
                .copy_from_slice(&"::ffff:10.0.0.7".parse::<Ipv6Addr>().unwrap().octets());
        }
        let socket = decode(&message, &[]).unwrap();
        assert_eq!(socket.local, "10.0.0.7:40000".parse().unwrap());
    }

    #[test]
    fn a_message_cut_before_its_timer_ends_is_no_row() {
        for length in 0..EXPIRES + 4 {
            assert_eq!(decode(&time_wait()[..length], &[]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, &[]);
        }
    }
}
