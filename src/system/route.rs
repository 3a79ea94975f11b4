//! The way to an address as the kernel's routing tables have it, asked without sending a packet.
//! Trying to bind() the address would lie: under `net.ipv4.ip_nonlocal_bind` any address can be.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::SockProtocol;
use socket2::{Domain, Protocol, Socket, Type};

use super::netlink::{ACKNOWLEDGED, Failure, Netlink, u16_at, u32_at};
use super::{Machine, ProcRoot, sysctl};
use crate::model::{Path, Toward};
use crate::words::printable;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// The ways to the addresses of a destination, in their order; none where `machine` is a recorded
/// one or seen from outside: nobody can ask it for its routes.
#[must_use]
pub fn paths(machine: &Machine, toward: &Toward) -> Vec<Path> {
    /// More than any name has that one machine can be reached by.
    const MOST: usize = 64;
    let addresses = toward.addresses.iter().take(MOST);
    if let Some(taken) = &machine.taken {
        let known = |server: &SocketAddr| {
            let mut routes = taken.answers.routes.iter();
            routes
                .find(|(there, _)| there == server)
                .map(|(_, path)| path.clone())
        };
        // Where one was not asked for, what holds for the others says too little.
        return addresses
            .map(known)
            .collect::<Option<_>>()
            .unwrap_or_default();
    }
    if !machine.is_here() {
        return Vec::new();
    }
    addresses.map(|&address| path(address)).collect()
}

/// The way of a TCP connection of this user to `server`; its port is 0 where any is meant.
#[must_use]
pub fn path(server: SocketAddr) -> Path {
    let (asked, tried) = (ask(server, IPPROTO_TCP), try_source(server));
    let mut path = Path::default();
    let mut routed = false;
    let refused = match asked {
        Answer::Route(route) => {
            path.local = Some(route.kind == Kind::Local);
            path.interface = route.interface;
            path.source = route.source;
            routed = route.routed;
            // TCP has no broadcast (`tcp_v4_connect` in net/ipv4/tcp_ipv4.c).
            (route.kind == Kind::Many).then_some(Errno::ENETUNREACH)
        }
        // Where the kernel says no to UDP as well and still lets it through, it is the question
        // that it refuses.
        Answer::No(errno) => {
            (tried.is_err() || !matches!(ask(server, IPPROTO_UDP), Answer::No(_))).then_some(errno)
        }
        Answer::Unknown => None,
    };
    match tried {
        Ok(source) => {
            path.source = path.source.or(source);
            // Between two of a machine's own addresses the kernel takes one for both ends.
            let own = server.ip().is_loopback() || source == Some(server.ip());
            path.local = path.local.or(refused.is_none().then_some(own));
            path.errno = refused.map(number);
        }
        // Without a source of its family IPv6 says so before it says that there is no route
        // (`ip6_dst_lookup_tail` in net/ipv6/ip6_output.c).
        Err(errno @ (Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)) => {
            path.errno = Some(number(errno));
        }
        Err(errno) => {
            let is_about_the_way = matches!(
                errno,
                Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL
            );
            path.errno = refused.or(is_about_the_way.then_some(errno)).map(number);
        }
    }
    if path.local == Some(false) {
        let can_be_answered = |source: &IpAddr| can_be_answered(server.ip(), *source, routed);
        path.source = path.source.filter(can_be_answered);
    }
    if path.errno.is_some() {
        (path.local, path.source) = (None, None);
        path.switched_off = switched_off(server.ip(), path.interface.as_deref());
        path.interface = None;
    }
    path
}

/// Whether another machine at `address`, beyond a router where the way is `routed`, can answer to
/// `source`: not to loopback, which IPv6 takes where it has nothing else, and no router forwards
/// packets of a link-local one (RFC 4291, 2.5.3 and 2.5.6).
fn can_be_answered(address: IpAddr, source: IpAddr, routed: bool) -> bool {
    match (address, source) {
        (IpAddr::V6(address), IpAddr::V6(source)) => {
            let is_beyond = routed && !address.is_unicast_link_local();
            !(source.is_loopback() || source.is_unicast_link_local() && is_beyond)
        }
        _ => true,
    }
}

fn number(errno: Errno) -> i32 {
    errno as i32
}

/// The source address that a UDP socket gets by its connect(), which sends nothing and looks for
/// its way as TCP's does; `None` where it gets none.
fn try_source(server: SocketAddr) -> Result<Option<IpAddr>, Errno> {
    /// A connect() to port 0 asks the same of the routes, and some kernels take it for an error.
    const ANY_PORT: u16 = 9;
    let mut server = server;
    if server.port() == 0 {
        server.set_port(ANY_PORT);
    }
    let trial = || {
        let socket = Socket::new(
            Domain::for_address(server),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_broadcast(true)?;
        socket.connect(&server.into())?;
        socket.local_addr()
    };
    let own = trial().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let source = own.as_socket().map(|own| own.ip().to_canonical());
    Ok(source.filter(|source| !source.is_unspecified()))
}

/// What netlink says about a way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Route(Route),
    /// The error of connect().
    No(Errno),
    /// Nothing, or nothing that is about the way.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    kind: Kind,
    interface: Option<String>,
    source: Option<IpAddr>,
    /// Whether it leads through a router.
    routed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To this machine itself.
    Local,
    /// To a broadcast or multicast address.
    Many,
    /// To another machine.
    Away,
}

/// Asks for the route of `protocol` to `server` (net/ipv4/route.c, net/ipv6/route.c).
fn ask(server: SocketAddr, protocol: u8) -> Answer {
    const RTM_GETROUTE: u16 = 26;
    let mut answer = Answer::Unknown;
    let asked = Netlink::open(SockProtocol::NetlinkRoute).and_then(|mut netlink| {
        netlink.request(
            RTM_GETROUTE,
            ACKNOWLEDGED,
            &question(server, protocol),
            |message| {
                if let Some((kind, interface, source, routed)) = decode(message) {
                    let interface = interface.and_then(|index| if_indextoname(index).ok());
                    answer = Answer::Route(Route {
                        kind,
                        interface: interface.map(|name| printable(&name.to_string_lossy())),
                        source,
                        routed,
                    });
                }
            },
        )
    });
    match asked {
        Ok(()) => answer,
        Err(Failure::Errno(
            errno @ (Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL),
        )) => Answer::No(errno),
        Err(_) => Answer::Unknown,
    }
}

// Attributes of include/uapi/linux/rtnetlink.h. Kernels before 4.19 pass over the last two.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_IP_PROTO: u16 = 27;
const RTA_DPORT: u16 = 29;

/// `struct rtmsg` and the attributes that tell one connection from others.
fn question(server: SocketAddr, protocol: u8) -> Vec<u8> {
    let (family, address) = match server.ip() {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    let bits = if family == AF_INET { 32 } else { 128 };
    let mut question = vec![family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut attribute = |kind: u16, value: &[u8]| {
        #[expect(clippy::cast_possible_truncation)] // 16 bytes at most.
        let length = 4 + value.len() as u16;
        question.extend(length.to_ne_bytes());
        question.extend(kind.to_ne_bytes());
        question.extend(value);
        question.resize(question.len().next_multiple_of(4), 0);
    };
    attribute(RTA_DST, &address);
    if let SocketAddr::V6(server) = server
        && server.scope_id() != 0
    {
        attribute(RTA_OIF, &server.scope_id().to_ne_bytes());
    }
    attribute(RTA_IP_PROTO, &[protocol]);
    if server.port() != 0 {
        attribute(RTA_DPORT, &server.port().to_be_bytes());
    }
    question
}

/// The kind of a route, the index of its interface, its source, and whether it leads through a
/// router; `None` where the message is cut short.
fn decode(message: &[u8]) -> Option<(Kind, Option<u32>, Option<IpAddr>, bool)> {
    const HEADER: usize = 12;
    const KIND: usize = 7;
    const RTN_LOCAL: u8 = 2;
    const RTN_BROADCAST: u8 = 3;
    const RTN_MULTICAST: u8 = 5;
    let kind = match *message.get(KIND)? {
        RTN_LOCAL => Kind::Local,
        RTN_BROADCAST | RTN_MULTICAST => Kind::Many,
        _ => Kind::Away,
    };
    let (mut interface, mut source, mut routed) = (None, None, false);
    let mut rest = message.get(HEADER..)?;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        match u16_at(rest, 2)? {
            RTA_OIF => interface = u32_at(value, 0),
            RTA_PREFSRC => source = ip(value),
            RTA_GATEWAY => routed = true,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((kind, interface, source, routed))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(octets).to_canonical())
}

/// The setting that takes IPv6 addresses away, where the machine has them off.
fn switched_off(address: IpAddr, interface: Option<&str>) -> Option<String> {
    let proc = ProcRoot::default();
    let lo = address.is_loopback().then_some("lo");
    let interfaces = [Some("all"), lo, interface];
    let keys = interfaces.into_iter().flatten();
    keys.filter(|_| address.is_ipv6())
        .map(|name| format!("net.ipv6.conf.{name}.disable_ipv6"))
        .find(|key| sysctl::read(&proc, key).is_ok_and(|value| value.as_deref() == Some("1")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `ip -details route get 10.6.0.2`, as the kernel answered on Linux 6.18.
    fn answer() -> Vec<u8> {
        let mut message = vec![AF_INET, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        for (kind, value) in [
            (15_u16, 254_u32.to_ne_bytes()), // RTA_TABLE
            (RTA_DST, [10, 6, 0, 2]),
            (RTA_OIF, 7_u32.to_ne_bytes()),
            (RTA_PREFSRC, [10, 6, 0, 1]),
        ] {
            message.extend(8_u16.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(value);
        }
        message
    }

    #[test]
    fn a_route_tells_its_interface_and_its_source() {
        let source = "10.6.0.1".parse().unwrap();
        assert_eq!(
            decode(&answer()),
            Some((Kind::Away, Some(7), Some(source), false))
        );
        let mut local = answer();
        local[7] = 2;
        assert_eq!(decode(&local).unwrap().0, Kind::Local);
    }

    #[test]
    fn a_question_is_about_one_connection() {
        let question = question("[fe80::1%7]:3306".parse().unwrap(), IPPROTO_TCP);
        assert_eq!(question.len(), 12 + 20 + 8 + 8 + 8);
        assert_eq!(question[..2], [AF_INET6, 128]);
        assert_eq!(question[question.len() - 4..], [0x0c, 0xea, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_loop(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            cut in 0_usize..44,
        ) {
            let _ = decode(&bytes);
            let _ = decode(&answer()[..cut]);
        }
    }
}
