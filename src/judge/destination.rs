//! One destination that somebody asks about: the ports toward it, and what errno 99 means there
//! besides.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Capacity;
use super::finding::Finding;
use super::verdict::{Level, Reported, Verdict, quiet};
use crate::model::{Path, Snapshot, Toward};
use crate::words::{at_most, count, counted, errno_words, latency, rate};

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
    NoAddress(Way),
    /// There is no way there.
    NoRoute(Way),
    /// There is a way, and no address to go from: answers never come back.
    NoSource(Way),
    /// It is link-local, and nobody said on which interface.
    NoZone(Way),
    /// Nothing listens at this address of this machine, while something does at another one of the
    /// same name.
    Unheard(Way),
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
const EADDRNOTAVAIL: i32 = 99;

/// errno of a link-local address without an interface, and of a blackhole route.
const EINVAL: i32 = 22;

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The way to one address, as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// The address.
    pub address: IpAddr,
    /// What the kernel says.
    pub path: Path,
    /// Another address of the same name that can be reached; `None` where there is none.
    pub instead: Option<IpAddr>,
    /// Whether the address is the first of its name: some clients try no other.
    pub is_first: bool,
}

impl Way {
    fn new(address: IpAddr, path: Path) -> Self {
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
    fn of(address: IpAddr, path: Path) -> Option<Self> {
        let way = Way::new(address, path);
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
    fn way(&mut self) -> Option<&mut Way> {
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
                 docker run --sysctl):\nsysctl -w {}=0",
                match way.instead {
                    Some(other) => other.to_string(),
                    None if way.address.is_loopback() => "127.0.0.1".into(),
                    None => "an IPv4 address".into(),
                },
                way.path.switched_off.as_deref().unwrap_or_default()
            ),
            Self::NoAddress(way) if way.address.is_loopback() => {
                "See whether lo is up and has the address:\nip addr show lo".into()
            }
            Self::NoAddress(way) => format!(
                "See which addresses this machine has:\nip {}addr",
                dash(way.address)
            ),
            Self::NoRoute(way) => format!(
                "See what the kernel knows of the way{}:\nip {}route get {}",
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
                    "Give {} an address that the other end can answer to; it has these:\nip {}addr \
                     show{}",
                    interface.unwrap_or("the interface"),
                    dash(way.address),
                    interface.map_or_else(String::new, |name| format!(" dev {name}"))
                )
            }
            Self::NoZone(way) => format!(
                "Name its interface here and in the client, as in [{}%eth0]:3306. Which one it is:\n\
                 ip -6 neigh show {}",
                way.address, way.address
            ),
            Self::Unheard(way) => format!(
                "Let the client use {}, or let the server listen on {} too.",
                way.instead
                    .map_or_else(|| "the other one".into(), |other| other.to_string()),
                way.address
            ),
            Self::NoPort { .. } => {
                "Look for programs that bind() ports and leave them unconnected \
                                    (a recent ss shows them), and give the range more ports: see \
                                    `twcheck advise`.\nss -tanB"
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
        let instead = |f: &mut fmt::Formatter<'_>, way: &Way| match way.instead {
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
}

impl Sought {
    /// Addresses of this machine at which nothing listens while something does at another one of the
    /// same name; listeners that the look has left out are no evidence.
    fn unheard(&self) -> Vec<IpAddr> {
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
        at_most(capacity.max_rate(false))
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
        (Some(_), _) => format!("{none}; TIME_WAIT is not reused there."),
        (None, _) => format!("{none}; whether TIME_WAIT is reused there is unknown."),
    }
}

impl Verdict {
    /// Says about its destination what was found out beside the table: the ways to its addresses in
    /// their order where they were asked for, and what one connect() came to where one was made.
    pub fn speak_of(&mut self, paths: Vec<Path>, attempt: Option<Attempt>) {
        let Some(mut sought) = self.destination.take() else {
            return;
        };
        let mut ways: Vec<(IpAddr, Option<Trouble>)> = Vec::new();
        for (address, path) in sought.addresses.iter_mut().zip(paths) {
            address.local = path.local;
            address.interface.clone_from(&path.interface);
            address.source = path.source;
            address.errno = path.errno;
            ways.push((address.address, Trouble::of(address.address, path)));
        }
        sought.connect = attempt;
        let is_asked = !ways.is_empty();
        let unheard = sought.unheard();
        for (place, (address, trouble)) in ways.iter_mut().enumerate() {
            if trouble.is_none() && unheard.contains(address) {
                let path = Path::default();
                *trouble = Some(Trouble::Unheard(Way::new(*address, path)));
            }
            if let Some(way) = trouble.as_mut().and_then(Trouble::way) {
                way.is_first = place == 0;
            }
        }
        let good = ways.iter().find(|(_, trouble)| trouble.is_none());
        let unasked = sought.addresses.get(ways.len());
        let instead = good
            .map(|(address, _)| *address)
            .or(unasked.map(|unasked| unasked.address));
        let attempted = sought.connect.as_ref().and_then(|attempt| {
            let is_there = |(address, _): &&(IpAddr, _)| *address == attempt.server.ip();
            let explained = ways.iter().find(is_there);
            if explained.is_some_and(|(_, trouble)| trouble.is_some()) {
                return None;
            }
            self.failed(attempt, &sought)
        });
        let mut found = Vec::new();
        for (_, mut trouble) in ways {
            if let Some(way) = trouble.as_mut().and_then(Trouble::way) {
                way.instead = instead;
                let level = match instead {
                    None => Level::Critical,
                    // Some clients try the first address only.
                    Some(_) if way.is_first => Level::Warning,
                    Some(_) => Level::Ok,
                };
                found.extend(trouble.map(|trouble| (level, trouble)));
            }
        }
        found.extend(attempted.map(|trouble| (Level::Critical, trouble)));
        let untried = is_asked && sought.connect.is_none();
        self.summary = self.headline(&sought, &found, untried);
        self.level = found
            .iter()
            .map(|(level, _)| *level)
            .fold(self.level, Level::max);
        self.findings
            .extend(found.into_iter().map(|(level, trouble)| Reported {
                level,
                flow: None,
                finding: Finding::Destination(trouble),
            }));
        self.findings
            .sort_by_key(|reported| Reverse(reported.level));
        self.destination = Some(sought);
    }

    /// What an attempt that failed tells; nothing new where the flow is full.
    fn failed(&self, attempt: &Attempt, sought: &Sought) -> Option<Trouble> {
        let why = attempt.failure.as_ref()?;
        let server = attempt.server;
        let is_out_of_ports = why.errno == Some(EADDRNOTAVAIL);
        if is_out_of_ports && self.is_full(server) {
            return None;
        }
        let source = sought
            .addresses
            .iter()
            .find(|way| way.address == server.ip())
            .and_then(|way| way.source);
        Some(match source {
            Some(source) if is_out_of_ports => Trouble::NoPort { server, source },
            _ => Trouble::Failed(why.clone()),
        })
    }

    /// The sentence about the destination, the worst of what was `found` there or of its flows; what
    /// is wrong with the machine besides comes after it, unless it is why no port can be had.
    fn headline(&self, sought: &Sought, found: &[(Level, Trouble)], untried: bool) -> String {
        let is_about_it = |reported: &&Reported| {
            reported.flow.is_some() || matches!(reported.finding, Finding::NoUsablePort { .. })
        };
        let of_flows = self.findings.iter().find(is_about_it);
        let worst = found.iter().max_by_key(|(level, _)| *level);
        let (level, mut text) = match (of_flows, worst) {
            (Some(reported), worst) if worst.is_none_or(|(level, _)| *level <= reported.level) => {
                let is_told = self.findings.first() == Some(reported);
                let text = if is_told {
                    self.summary.clone()
                } else {
                    reported.finding.to_string()
                };
                (reported.level, text)
            }
            (_, Some((level, trouble))) => (*level, trouble.to_string()),
            _ => (Level::Ok, String::new()),
        };
        if level == Level::Ok {
            text = match &sought.room {
                Some(room) => room.clone(),
                None => quiet(self.flows.first(), self.capacity.as_ref()),
            };
        }
        let besides = self.findings.iter().find(|it| !is_about_it(it));
        if let Some(besides) = besides.filter(|besides| besides.level > level) {
            text = format!("{text} {}", besides.finding);
        } else if level == Level::Ok && untried {
            text.push_str(" Whether it answers was not tried: --connect does that.");
        }
        text
    }

    /// Whether a flow toward `server` has no port left.
    #[must_use]
    pub fn is_full(&self, server: SocketAddr) -> bool {
        self.findings
            .iter()
            .any(|reported| match &reported.finding {
                Finding::PortsExhausted(ports) => ports.flow.server() == server,
                Finding::NoUsablePort { .. } => true,
                _ => false,
            })
    }

    /// What errno 99 means where ports are not the problem, and what tells; `None` where they are.
    #[must_use]
    pub fn otherwise(&self) -> Option<&'static str> {
        let is_asked = |sought: &Sought| {
            let mut addresses = sought.addresses.iter();
            addresses.any(|address| address.local.is_some())
        };
        let text = if self.destination.as_ref().is_some_and(is_asked) {
            "errno 99 all the same? The client may bind() a source address that is not here, or have \
             a port range of its own: strace -f -e bind,setsockopt,connect tells."
        } else {
            "errno 99 all the same? On the first try it means an address that is not here: ::1 with \
             IPv6 off, a wrong source. twcheck verdict HOST:PORT tells."
        };
        (self.level == Level::Ok).then_some(text)
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::judge::verdict::{Thresholds, verdict};
    use crate::model::{
        Counters, Destination, Host, Listeners, PortRange, PortRule, PortSet, Socket, SourceName,
        Tally, TcpState, TimeWaitReuse, Tunables,
    };

    /// A machine with 1,000 ports, and this many connections held open to 10.0.0.5:3306, asked
    /// about one destination.
    fn asked(typed: &str, addresses: &[&str], held: u16) -> Verdict {
        let tunables = Tunables {
            ip_local_port_range: PortRange::parse("40000 40999"),
            ip_local_reserved_ports: PortSet::parse(""),
            tcp_tw_reuse: Some(TimeWaitReuse::LoopbackOnly),
            tcp_timestamps: Some(1),
            tcp_max_tw_buckets: Some(131_072),
            ..Tunables::default()
        };
        let mut tally = Tally::new(PortRule::new(&tunables), Listeners::default());
        for port in 40000..40000 + held {
            tally.add(&Socket {
                state: TcpState::Established,
                local: ([10, 0, 0, 1], port).into(),
                remote: ([10, 0, 0, 5], 3306).into(),
                time_wait_left: None,
                inode: None,
                interface: None,
                retransmits: 0,
            });
        }
        let asked = Destination::parse(typed).unwrap();
        let port = asked.port.unwrap_or(0);
        let addresses = addresses
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), port))
            .collect();
        tally.only_toward(Toward { asked, addresses });
        let snapshot = Snapshot {
            hold_time: tunables.told_hold_time(),
            addresses: None,
            timestamps: HashMap::new(),
            growth: None,
            host: Host::default(),
            tunables,
            bound: Some(PortSet::default()),
            tally,
            counters: Counters::default(),
            tick: Some(Duration::from_millis(4)),
            source: SourceName::SockDiag,
            gaps: Vec::new(),
        };
        let thresholds = Thresholds {
            warn: 50.0,
            crit: 80.0,
        };
        verdict(&snapshot, thresholds, 10)
    }

    fn good() -> Path {
        Path {
            local: Some(false),
            interface: Some("eth0".into()),
            source: Some([10, 0, 0, 1].into()),
            ..Path::default()
        }
    }

    fn bad(errno: i32) -> Path {
        Path {
            errno: Some(errno),
            ..Path::default()
        }
    }

    fn refused(server: &str) -> Attempt {
        Attempt {
            server: server.parse().unwrap(),
            microseconds: 90,
            failure: Some(Explained {
                errno: Some(111),
                text: "connect to db: Connection refused (errno 111)".into(),
                meaning: "Nothing listens there.".into(),
                next_step: "Check that the server runs.".into(),
            }),
        }
    }

    fn found(verdict: &Verdict) -> Vec<(&'static str, Level)> {
        let findings = verdict.findings.iter();
        findings
            .map(|reported| (reported.finding.code(), reported.level))
            .collect()
    }

    use Level::{Critical, Ok as Fine, Warning};

    #[test]
    fn an_address_that_fails_at_once_is_as_bad_as_the_others_let_it_be() {
        let no_source = Path {
            source: None,
            ..good()
        };
        for (addresses, paths, findings) in [
            (&["10.0.0.6"][..], vec![good()], &[][..]),
            (
                &["10.0.0.6"],
                vec![bad(99)],
                &[("ADDRESS_NOT_AVAILABLE", Critical)],
            ),
            (&["10.0.0.6"], vec![bad(101)], &[("NO_ROUTE", Critical)]),
            (&["10.0.0.6"], vec![no_source], &[("NO_ROUTE", Critical)]),
            (
                &["::1", "127.0.0.1"],
                vec![bad(99), good()],
                &[("ADDRESS_NOT_AVAILABLE", Warning)],
            ),
            (
                &["127.0.0.1", "::1"],
                vec![good(), bad(99)],
                &[("ADDRESS_NOT_AVAILABLE", Fine)],
            ),
            (
                &["2001:db8::5", "10.0.0.6"],
                vec![bad(101), bad(113)],
                &[("NO_ROUTE", Critical), ("NO_ROUTE", Critical)],
            ),
            // Nobody asked: a recorded machine.
            (&["10.0.0.6"], vec![], &[]),
        ] {
            let mut verdict = asked("db:3306", addresses, 0);
            verdict.speak_of(paths.clone(), None);
            assert_eq!(found(&verdict), findings, "{addresses:?} {paths:?}");
            let worst = findings.iter().map(|(_, level)| *level).max();
            assert_eq!(
                verdict.level,
                worst.unwrap_or(Fine),
                "{addresses:?} {paths:?}"
            );
            assert_eq!(verdict.otherwise().is_some(), verdict.level == Fine);
        }
    }

    #[test]
    fn the_flows_and_the_way_are_judged_together() {
        let mut full = asked("10.0.0.5:3306", &["10.0.0.5"], 1000);
        assert!(full.is_full("10.0.0.5:3306".parse().unwrap()));
        assert!(!full.is_full("10.0.0.5:3307".parse().unwrap()));
        full.speak_of(vec![good()], Some(refused("10.0.0.5:3306")));
        assert_eq!(
            found(&full),
            [
                ("PORTS_EXHAUSTED", Critical),
                ("HELD_OPEN", Critical),
                ("CONNECT_FAILED", Critical)
            ]
        );
        assert!(
            full.summary.starts_with("No port is free"),
            "{}",
            full.summary
        );

        let mut elsewhere = asked("10.0.0.6:3306", &["10.0.0.6"], 1000);
        elsewhere.speak_of(vec![good()], Some(refused("10.0.0.6:3306")));
        assert_eq!(found(&elsewhere), [("CONNECT_FAILED", Critical)]);
        assert!(
            elsewhere.summary.contains("errno 111"),
            "{}",
            elsewhere.summary
        );
        let sought = elsewhere.destination.as_ref().unwrap();
        assert_eq!((sought.flows_elsewhere, elsewhere.flows_total), (1, 0));

        // What is explained already is not said twice.
        let mut no_way = asked("10.0.0.6:3306", &["10.0.0.6"], 0);
        no_way.speak_of(vec![bad(113)], Some(refused("10.0.0.6:3306")));
        assert_eq!(found(&no_way), [("NO_ROUTE", Critical)]);
    }

    #[test]
    fn a_destination_without_a_flow_has_all_ports_and_the_rate_that_its_kind_has() {
        for (typed, addresses, said) in [
            (
                "10.0.0.6:3306",
                &["10.0.0.6"][..],
                "No connection from here takes a port toward 10.0.0.6:3306: all 1,000 usable ports \
                 can be had, at most 16.7 connections/s; TIME_WAIT is not reused there.",
            ),
            (
                "localhost:3306",
                &["127.0.0.1", "::1"],
                "No connection from here takes a port toward localhost:3306: all 1,000 usable ports \
                 can be had, at most 16.7 connections/s, or 1,000 where TIME_WAIT is reused, as the \
                 settings allow there.",
            ),
            (
                ":3307",
                &[],
                "No connection from here takes a port toward :3307: all 1,000 usable ports can be \
                 had, at most 16.7 connections/s; TIME_WAIT is reused toward loopback only.",
            ),
        ] {
            let mut verdict = asked(typed, addresses, 10);
            verdict.speak_of(Vec::new(), None);
            assert_eq!(
                (verdict.level, verdict.summary.as_str()),
                (Fine, said),
                "{typed}"
            );
        }
        let mut busy = asked("10.0.0.5:3306", &["10.0.0.5"], 10);
        busy.speak_of(vec![good()], None);
        assert_eq!(busy.destination.as_ref().unwrap().room, None);
        assert!(
            busy.summary.contains("can still have 990 of 1,000"),
            "{}",
            busy.summary
        );
    }

    #[test]
    fn a_destination_is_told_in_one_line() {
        for (typed, addresses, paths, attempt, said) in [
            (
                "10.0.0.5:3306",
                &["10.0.0.5"][..],
                vec![good()],
                None,
                "10.0.0.5:3306 by eth0, from 10.0.0.1",
            ),
            (
                "localhost:3306",
                &["::1", "127.0.0.1"],
                vec![bad(99), good()],
                Some(refused("127.0.0.1:3306")),
                "localhost:3306 is ::1: connect() fails at once with errno 99; 127.0.0.1 by eth0, \
                 from 10.0.0.1; 127.0.0.1:3306 took none (errno 111, 90 µs); 1 flow elsewhere left out",
            ),
            (":3306", &[], vec![], None, ":3306 at any address"),
            (
                "db",
                &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"],
                vec![],
                None,
                "db is 10.0.0.1; 10.0.0.2; 10.0.0.3; 10.0.0.4; 1 more",
            ),
        ] {
            let mut verdict = asked(typed, addresses, 10);
            verdict.speak_of(paths, attempt);
            assert_eq!(verdict.destination.unwrap().to_string(), said);
        }
    }
}
