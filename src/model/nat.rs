//! What connection tracking knows of connections that this machine translates for others.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{Flow, PortRange, PortSet};

/// A protocol whose ports are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// By its number in an IP header; `None` for the others.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// `tcp`, as /proc/net/nf_conntrack has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A state of a tracked connection: TCP's by the numbers of `enum tcp_conntrack`
/// (include/uapi/linux/netfilter/nf_conntrack_tcp.h), which are not those of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackedState(u8);

impl TrackedState {
    const NAMES: [&str; 10] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    const TIME_WAIT: u8 = 7;
    const CLOSE: u8 = 8;

    /// That of UDP, which has none.
    pub const STATELESS: Self = Self(u8::MAX);
    /// That of a connection of TCP of which none is told: it may be any.
    pub const UNKNOWN: Self = Self(u8::MAX - 1);
    /// That of one which is open.
    pub const ESTABLISHED: Self = Self(3);

    /// By the kernel's number; `None` for one that is none.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < Self::NAMES.len()).then_some(Self(number))
    }

    /// By its name in /proc/net/nf_conntrack.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let number = Self::NAMES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Self)
    }

    /// Its name; `STATELESS` of UDP, `UNKNOWN` where none is told.
    #[must_use]
    pub fn name(self) -> &'static str {
        match Self::NAMES.get(usize::from(self.0)) {
            Some(name) => name,
            None if self == Self::UNKNOWN => "UNKNOWN",
            None => "STATELESS",
        }
    }

    /// Whether the connection is over, and only its ports are still held: such a one a newer kernel
    /// gives up for a new connection (`nf_nat_may_kill` in net/netfilter/nf_nat_core.c).
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self.0, Self::TIME_WAIT | Self::CLOSE)
    }

    /// Whether it is TIME_WAIT.
    #[must_use]
    pub fn is_time_wait(self) -> bool {
        self.0 == Self::TIME_WAIT
    }
}

impl Serialize for TrackedState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

/// What translated ports are handed out per: of one such flow each port is taken once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatFlow {
    /// The address that the server sees.
    pub source: IpAddr,
    /// The server's, where the packets go in the end.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// Of each protocol there are other ports.
    pub protocol: Protocol,
    /// The conntrack zone of the answers: 0 unless a rule sets one.
    pub zone: u16,
}

impl NatFlow {
    /// The same without protocol and zone.
    #[must_use]
    pub fn flow(&self) -> Flow {
        Flow {
            source: self.source,
            destination: self.destination,
            destination_port: self.destination_port,
            interface: None,
        }
    }
}

/// A tracked connection of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// Its flow after translation.
    pub flow: NatFlow,
    /// Its source port after translation.
    pub port: u16,
    /// Who opened it.
    pub origin: IpAddr,
    /// From which port.
    pub origin_port: u16,
    /// Its state.
    pub state: TrackedState,
    /// How long it is kept if nothing more comes; `None` where that is not told.
    pub left: Option<Duration>,
}

impl Tracked {
    /// Whether its source is translated.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        (self.flow.source, self.port) != (self.origin, self.origin_port)
    }
}

/// What one flow takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatUse {
    /// Translated ports, and those of this machine's own connections there.
    pub taken: PortSet,
    /// Those of connections that are over.
    pub over: PortSet,
    /// Those that differ from the port that the client chose.
    pub changed: PortSet,
    /// Those that a rule gave, or left as the client chose them: not of this machine's own.
    pub translated: PortSet,
    /// Connections by state.
    pub by_state: HashMap<TrackedState, u64>,
    /// Connections by who opened them, as far as [`NatUse::ORIGINS`] goes.
    pub origins: HashMap<IpAddr, u64>,
    /// Connections that entered TIME_WAIT in the last [`NatUse::RECENT`]; 0 where nobody knows how long
    /// it is kept.
    pub closed_recently: u64,
}

impl NatUse {
    /// So many origins are told apart.
    pub const ORIGINS: usize = 4096;
    /// What counts as recent.
    pub const RECENT: Duration = Duration::from_secs(10);

    /// Adds a connection, where TIME_WAIT is kept for `time_wait`, if that is known.
    pub fn add(&mut self, tracked: &Tracked, time_wait: Option<Duration>) {
        self.taken.insert(tracked.port);
        if tracked.state.is_over() {
            self.over.insert(tracked.port);
        }
        if tracked.port != tracked.origin_port {
            self.changed.insert(tracked.port);
        }
        if tracked.is_translated() {
            self.translated.insert(tracked.port);
        }
        *self.by_state.entry(tracked.state).or_default() += 1;
        let age = tracked
            .left
            .filter(|_| tracked.state.is_time_wait())
            .and_then(|left| time_wait?.checked_sub(left));
        self.closed_recently += u64::from(age.is_some_and(|age| age < Self::RECENT));
        let has_room = self.origins.len() < Self::ORIGINS;
        if has_room || self.origins.contains_key(&tracked.origin) {
            *self.origins.entry(tracked.origin).or_default() += 1;
        }
    }
}

/// Which ports a rule translates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulePorts {
    /// It names none: the kernel takes 1024 to 65535 for a source port from 1024 on.
    Any,
    /// These.
    Range(PortRange),
    /// They come out of a map.
    Unknown,
}

/// A rule that translates sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRule {
    /// The first and the last address that it translates to; `None` for masquerade, and where they
    /// come out of a map.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The ports.
    pub ports: RulePorts,
    /// What it asks for, as far as that is understood.
    pub matches: Matches,
}

impl NatRule {
    /// Whether it may be what translates `flow`, which takes `used`, on a machine that has the
    /// addresses `own`: what is not known of either speaks against none.
    #[must_use]
    pub fn may_give(&self, flow: &NatFlow, used: &NatUse, own: &OwnAddresses) -> bool {
        let asked = &self.matches;
        let gives_source = match self.addresses {
            Some((first, last)) => (first..=last).contains(&flow.source),
            // Masquerade takes an address of the interface that the packet leaves by.
            None => asked.interface.as_ref().is_none_or(|asked| {
                let mut there = own.iter().filter(|(_, address)| *address == flow.source);
                let first = there.next();
                first.is_none()
                    || first
                        .into_iter()
                        .chain(there)
                        .any(|(interface, _)| asked.covers(interface))
            }),
        };
        let all_origins_known = used.origins.len() < NatUse::ORIGINS && !used.origins.is_empty();
        let has_origin = |asked: &Prefix| {
            !all_origins_known || used.origins.keys().any(|origin| asked.covers(*origin))
        };
        gives_source
            && asked.protocol.is_none_or(|it| it == flow.protocol.number())
            && asked.port.is_none_or(|it| it == flow.destination_port)
            && asked
                .destination
                .as_ref()
                .is_none_or(|it| it.covers(flow.destination))
            && asked.origin.as_ref().is_none_or(has_origin)
    }
}

/// Addresses of this machine, each with the interface that has it; none where that is not known.
pub type OwnAddresses = Vec<(String, IpAddr)>;

/// What a rule asks for before it translates, where it asks for one thing of a kind; what it asks
/// for otherwise is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    /// The protocol, by its number in an IP header.
    pub protocol: Option<u8>,
    /// The interface that the packet leaves by.
    pub interface: Option<LeavesBy>,
    /// Who sends it.
    pub origin: Option<Prefix>,
    /// Where it goes.
    pub destination: Option<Prefix>,
    /// To which port.
    pub port: Option<u16>,
}

/// An interface, or all whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavesBy {
    /// The name, or its beginning.
    pub name: String,
    /// Whether it is a beginning.
    pub is_prefix: bool,
}

impl LeavesBy {
    fn covers(&self, name: &str) -> bool {
        self.name == name || self.is_prefix && name.starts_with(&self.name)
    }
}

/// Addresses that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The octets that are compared.
    pub octets: Vec<u8>,
    /// Which bits of them count.
    pub mask: Vec<u8>,
    /// Whether it is of IPv4.
    pub is_v4: bool,
}

impl Prefix {
    fn covers(&self, address: IpAddr) -> bool {
        let octets = match address {
            IpAddr::V4(four) => four.octets().to_vec(),
            IpAddr::V6(six) => six.octets().to_vec(),
        };
        let pairs = octets.iter().zip(&self.octets).zip(&self.mask);
        let mut pairs = pairs.map(|((there, asked), mask)| there & mask == asked & mask);
        self.is_v4 == address.is_ipv4() && pairs.all(|is_alike| is_alike)
    }
}

impl fmt::Display for NatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses {
            None => f.write_str("masquerade")?,
            Some((first, last)) if first == last => write!(f, "snat to {first}")?,
            Some((first, last)) => write!(f, "snat to {first}-{last}")?,
        }
        match self.ports {
            RulePorts::Range(PortRange { low, high }) if self.addresses.is_none() => {
                write!(f, " to :{low}-{high}")
            }
            RulePorts::Range(PortRange { low, high }) => write!(f, ":{low}-{high}"),
            RulePorts::Any => Ok(()),
            RulePorts::Unknown => f.write_str(" by a map"),
        }
    }
}

/// Where the connections were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackingSource {
    /// Netlink, `NFNL_SUBSYS_CTNETLINK`.
    Ctnetlink,
    /// `/proc/net/nf_conntrack`.
    Proc,
}

/// The connections that are translated here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatTable {
    /// Where they were read.
    pub source: TrackingSource,
    /// Connections of TCP and UDP that are tracked.
    pub tracked: u64,
    /// Those whose source is translated.
    pub translated: u64,
    /// The flows that take most, in no order.
    pub flows: HashMap<NatFlow, NatUse>,
    /// Rows that were not understood, and left out.
    pub malformed: u64,
    /// The rules; why they are not known otherwise.
    pub rules: Result<Vec<NatRule>, String>,
    /// The addresses that masquerade may give.
    pub own: OwnAddresses,
    /// How long a connection is kept in TIME_WAIT (`nf_conntrack_tcp_timeout_time_wait`); `None` where
    /// that could not be read.
    pub time_wait: Option<Duration>,
}
