//! One destination that somebody asks about: the ports toward it, and what errno 99 means there
//! besides.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Capacity;
use crate::model::{Path, Snapshot, Toward};
use crate::words::{count, counted, errno_words, latency, rate};

/// What is known about a destination, beside its flows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sought {
    /// As it was typed.
    pub asked: String,
    /// Its addresses in the resolver's order; empty where a port alone was named.
    pub addresses: Vec<Address>,
    /// What can be had there, where no flow goes there; `None` where one does.
    pub room: Option<String>,
    /// How many outbound flows go elsewhere and are left out.
    pub flows_elsewhere: usize,
    /// What one connect() came to; `None` where none was asked for.
    pub connect: Option<Attempt>,
}

/// One address of a destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Whether it is one of this machine's; `None` where there is no way, or nobody asked.
    pub local: Option<bool>,
    /// The interface that leads there; `None` likewise.
    pub interface: Option<String>,
    /// The source address that the kernel chooses; `None` where it has none, or nobody asked.
    pub source: Option<IpAddr>,
    /// The error that connect() ends with at once; `None` where there is none, or nobody asked.
    pub errno: Option<i32>,
    /// Whether a listener here takes what comes for it, were it this machine's; `None` where any
    /// port is meant.
    #[serde(skip)]
    heard: Option<bool>,
}

/// What one connect() came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Where to.
    pub server: SocketAddr,
    /// How long it took.
    pub microseconds: u64,
    /// Why it failed; `None` where it did not.
    pub failure: Option<Explained>,
}

/// A failure in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// The system's number; `None` where there is none.
    pub errno: Option<i32>,
    /// What an application prints.
    pub text: String,
    /// What it means.
    pub meaning: String,
    /// What to do about it.
    pub next_step: String,
}

/// What can be wrong with a destination while ports are free.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// errno 99 at once: no address of its family is here to connect from.
    NoAddress(Unreachable),
    /// There is no way there.
    NoRoute(Unreachable),
    /// There is a way, and no address to go from: answers never come back.
    NoSource(Unreachable),
    /// It is link-local, and nobody said on which interface.
    NoZone(Unreachable),
    /// Nothing listens at this address of this machine, while something does at another one of the
    /// same name.
    Unheard(Unreachable),
    /// connect() failed with errno 99 though the address that it comes from exists.
    NoPort {
        /// Where to.
        server: SocketAddr,
        /// Where from.
        source: IpAddr,
    },
    /// connect() failed.
    Failed(Explained),
}

/// errno of an address that is not here, or of ports that are all taken.
pub(super) const EADDRNOTAVAIL: i32 = 99;

/// errno of a link-local address without an interface, and of a blackhole route.
const EINVAL: i32 = 22;

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// An address that connect() does not reach, as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreachable {
    /// The address.
    pub address: IpAddr,
    /// What the kernel says.
    pub path: Path,
    /// Another address of the same name that can be reached; `None` where there is none.
    pub instead: Option<IpAddr>,
    /// Whether the address is the first of its name: some clients try no other.
    pub is_first: bool,
}

impl Unreachable {
    pub(super) fn new(address: IpAddr, path: Path) -> Self {
        Self {
            address,
            path,
            instead: None,
            is_first: false,
        }
    }
}

impl Trouble {
    /// What is wrong with the way to `address`, if anything is.
    pub(super) fn of(address: IpAddr, path: Path) -> Option<Self> {
        let way = Unreachable::new(address, path);
        match way.path.errno {
            Some(EADDRNOTAVAIL) => Some(Self::NoAddress(way)),
            Some(EINVAL) if is_link_local(address) => Some(Self::NoZone(way)),
            Some(_) => Some(Self::NoRoute(way)),
            None if way.path.local == Some(false) && way.path.source.is_none() => {
                Some(Self::NoSource(way))
            }
            None => None,
        }
    }

    /// The way that it is about, where it is about one.
    pub(super) fn way(&mut self) -> Option<&mut Unreachable> {
        match self {
            Self::NoAddress(way)
            | Self::NoRoute(way)
            | Self::NoSource(way)
            | Self::NoZone(way)
            | Self::Unheard(way) => Some(way),
            Self::NoPort { .. } | Self::Failed(_) => None,
        }
    }

    /// The code a user can cite.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "ADDRESS_NOT_AVAILABLE",
            Self::NoRoute(_) | Self::NoSource(_) | Self::NoZone(_) => "NO_ROUTE",
            Self::Unheard(_) => "NOTHING_LISTENS",
            Self::NoPort { .. } | Self::Failed(_) => "CONNECT_FAILED",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::NoAddress(way) if way.path.switched_off.is_some() => format!(
                "Let the client use {}, or switch IPv6 on (in a container when it is started: \
                 `docker run --sysctl`): `sysctl -w {}=0`.",
                match way.instead {
                    Some(other) => other.to_string(),
                    None if way.address.is_loopback() => "127.0.0.1".into(),
                    None => "an IPv4 address".into(),
                },
                way.path.switched_off.as_deref().unwrap_or_default()
            ),
            Self::NoAddress(way) if way.address.is_loopback() => {
                "See whether lo is up and has the address: `ip addr show lo`.".into()
            }
            Self::NoAddress(way) => format!(
                "See which addresses this machine has: `ip {}addr`.",
                dash(way.address)
            ),
            Self::NoRoute(way) => format!(
                "See what the kernel knows of the way{}: `ip {}route get {}`.",
                match way.path.errno {
                    Some(13) => "; a prohibit route or rule, set here, forbids it",
                    Some(EINVAL) => "; a blackhole route, set here, swallows it",
                    Some(97) => "; IPv6 is off since the kernel started (ipv6.disable=1)",
                    _ if way.address.is_loopback() => ", and whether lo is up",
                    _ => ", and whether its interface is up",
                },
                dash(way.address),
                way.address,
            ),
            Self::NoSource(way) => {
                let interface = way.path.interface.as_deref();
                format!(
                    "Give {} an address that the other end can answer to; it has these: \
                     `ip {}addr show{}`.",
                    interface.unwrap_or("the interface"),
                    dash(way.address),
                    interface.map_or_else(String::new, |name| format!(" dev {name}"))
                )
            }
            Self::NoZone(way) => format!(
                "Name its interface here and in the client, as in [{}%eth0]:3306. Which one it is: \
                 `ip -6 neigh show {}`.",
                way.address, way.address
            ),
            Self::Unheard(way) => format!(
                "Let the client use {}, or let the server listen on {} too.",
                way.instead
                    .map_or_else(|| "the other one".into(), |other| other.to_string()),
                way.address
            ),
            Self::NoPort { .. } => {
                "Give the range more ports (see `twcheck advise`), and look for programs that bind() \
                 ports and leave them unconnected; a recent ss shows them: `ss -tanB`."
                    .into()
            }
            Self::Failed(why) => why.next_step.clone(),
        }
    }
}

/// The option of ip(8) for the family of `address`.
fn dash(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6 " } else { "" }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "IPv6" } else { "IPv4" }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instead = |f: &mut fmt::Formatter<'_>, way: &Unreachable| match way.instead {
            Some(other) => write!(f, " {other}, another address of it, can be reached."),
            None => Ok(()),
        };
        match self {
            Self::NoAddress(way) => {
                write!(
                    f,
                    "connect() to {} fails with errno 99 on the first try, however many ports are \
                     free: ",
                    way.address
                )?;
                if let Some(key) = &way.path.switched_off {
                    write!(f, "IPv6 is switched off here ({key} = 1).")?;
                } else if way.address.is_loopback() {
                    f.write_str("that address does not exist here now.")?;
                } else {
                    let family = family(way.address);
                    write!(f, "this machine has no {family} address to come from.")?;
                }
                instead(f, way)
            }
            Self::NoRoute(way) => {
                write!(
                    f,
                    "There is no way to {}: connect() fails at once with {}.",
                    way.address,
                    errno_words(way.path.errno.unwrap_or_default())
                )?;
                instead(f, way)
            }
            Self::NoSource(way) => {
                write!(
                    f,
                    "The way to {} leaves by {}, and this machine has no {} address to be answered \
                     at: connect() hangs and ends with errno 110.",
                    way.address,
                    way.path.interface.as_deref().unwrap_or("an interface"),
                    family(way.address)
                )?;
                instead(f, way)
            }
            Self::NoZone(way) => {
                write!(
                    f,
                    "{} is link-local, so each interface has one of its own: connect() without the \
                     interface fails at once with {}.",
                    way.address,
                    errno_words(EINVAL)
                )?;
                instead(f, way)
            }
            Self::Unheard(way) => {
                write!(
                    f,
                    "Nothing listens at {}, the address that clients try{}: connect() there is \
                     refused (errno 111).",
                    way.address,
                    if way.is_first { " first" } else { " too" }
                )?;
                match way.instead {
                    Some(other) => write!(f, " The server listens at {other}."),
                    None => Ok(()),
                }
            }
            Self::NoPort { server, source } => write!(
                f,
                "connect() to {server} failed with errno 99, and its source address {source} is \
                 here: no port could be had, so more are taken than the table shows."
            ),
            Self::Failed(why) => {
                let words = why.errno.map(errno_words);
                let is_said = |words: &&str| why.meaning.contains(words);
                let short = words
                    .as_deref()
                    .filter(is_said)
                    .and_then(|words| why.text.strip_suffix(words)?.strip_suffix(": "));
                match short {
                    Some(short) => write!(f, "{short} failed. {}", why.meaning),
                    None => write!(f, "{}. {}", why.text, why.meaning),
                }
            }
        }
    }
}

impl Sought {
    /// What one look at the table tells about the destination that it is limited to; nobody has
    /// asked for ways yet.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Option<Self> {
        let toward = snapshot.tally.toward.as_ref()?;
        let capacity = Capacity::of(snapshot);
        let empty = snapshot.tally.flows.is_empty();
        Some(Self {
            asked: toward.asked.to_string(),
            addresses: toward
                .addresses
                .iter()
                .map(|address| Address {
                    address: address.ip(),
                    local: None,
                    interface: None,
                    source: None,
                    errno: None,
                    heard: (address.port() != 0).then(|| snapshot.tally.listening.hear(*address)),
                })
                .collect(),
            room: empty.then(|| room(snapshot, toward, capacity.as_ref())),
            flows_elsewhere: snapshot.tally.elsewhere.len(),
            connect: None,
        })
    }

    /// Addresses of this machine at which nothing listens while something does at another one of the
    /// same name; listeners that the look has left out are no evidence.
    pub(super) fn unheard(&self) -> Vec<IpAddr> {
        let own = |heard| {
            let is = move |way: &&Address| way.local == Some(true) && way.heard == Some(heard);
            self.addresses.iter().filter(is)
        };
        if own(true).next().is_none() {
            return Vec::new();
        }
        own(false).map(|way| way.address).collect()
    }
}

/// What can be had toward a destination that no connection goes to.
fn room(snapshot: &Snapshot, toward: &Toward, capacity: Option<&Capacity>) -> String {
    let asked = &toward.asked;
    let Some(capacity) = capacity else {
        return format!(
            "No connection from here goes to {asked}; how many could is unknown without the range."
        );
    };
    let usable = capacity.usable_ports;
    let none = format!(
        "No connection from here takes a port toward {asked}: all {} can be had, {}",
        counted(usable, "usable port"),
        capacity.max_rate(false).map_or_else(
            || "and TIME_WAIT is dropped before it takes them all".into(),
            |limit| format!("at most {} connections/s", rate(limit))
        )
    );
    let reuse = snapshot.tunables.reuse_allowed(toward.is_loopback());
    let toward_loopback = snapshot.tunables.reuse_allowed(true) == Some(true);
    match (reuse, capacity.max_rate(true)) {
        (Some(true), Some(most)) => format!(
            "{none}, or {} where TIME_WAIT is reused, as the settings allow there.",
            rate(most)
        ),
        (Some(_), _) if toward_loopback && toward.addresses.is_empty() => {
            format!("{none}; TIME_WAIT is reused toward loopback only.")
        }
        (Some(true), None) => format!("{none}."),
        (Some(false), _) => format!("{none}; TIME_WAIT is not reused there."),
        (None, _) => format!("{none}; whether TIME_WAIT is reused there is unknown."),
    }
}

impl Address {
    /// Where it is and how it is reached, as far as was asked: ` by eth0, from 10.0.0.2`.
    fn way(&self) -> String {
        if let Some(errno) = self.errno {
            return format!(": connect() fails at once with errno {errno}");
        }
        let place = match (self.local, &self.interface) {
            (Some(true), _) => " on this machine".to_owned(),
            (Some(false), Some(interface)) => format!(" by {interface}"),
            _ => String::new(),
        };
        match self.source {
            Some(source) => format!("{place}, from {source}"),
            None => place,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = latency(self.microseconds);
        match &self.failure {
            None => write!(f, "{} took a connection in {time}", self.server),
            Some(why) => {
                let errno = why.errno.map(|errno| format!("errno {errno}, "));
                let errno = errno.unwrap_or_default();
                write!(f, "{} took none ({errno}{time})", self.server)
            }
        }
    }
}

/// How many addresses a sentence lists.
const LISTED: usize = 4;

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.asked)?;
        match self.addresses.as_slice() {
            [] => f.write_str(" at any address")?,
            [one] if self.asked.contains(&one.address.to_string()) => f.write_str(&one.way())?,
            several => {
                let listed = several.iter().take(LISTED);
                let mut names: Vec<_> = listed
                    .map(|one| format!("{}{}", one.address, one.way()))
                    .collect();
                if several.len() > LISTED {
                    names.push(format!("{} more", count((several.len() - LISTED) as u64)));
                }
                write!(f, " is {}", names.join("; "))?;
            }
        }
        if let Some(attempt) = &self.connect {
            write!(f, "; {attempt}")?;
        }
        if self.flows_elsewhere > 0 {
            let flows = counted(self.flows_elsewhere as u64, "flow");
            write!(f, "; {flows} elsewhere left out")?;
        }
        Ok(())
    }
}
