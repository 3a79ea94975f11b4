//! One destination that somebody asks about: the ports toward it, and what errno 99 means there
//! besides.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Capacity;
use super::finding::Finding;
use super::verdict::{Level, Reported, Verdict};
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
    /// connect() failed.
    Failed(Explained),
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
}

impl Trouble {
    /// What is wrong with the way to `address`, if anything is.
    fn of(address: IpAddr, path: Path) -> Option<Self> {
        const EADDRNOTAVAIL: i32 = 99;
        let way = Way {
            address,
            path,
            instead: None,
        };
        match way.path.errno {
            Some(EADDRNOTAVAIL) => Some(Self::NoAddress(way)),
            Some(_) => Some(Self::NoRoute(way)),
            None if way.path.local == Some(false) && way.path.source.is_none() => {
                Some(Self::NoSource(way))
            }
            None => None,
        }
    }

    /// The same where another address of the same name can be reached.
    fn with_other(mut self, other: Option<IpAddr>) -> Self {
        if let Self::NoAddress(way) | Self::NoRoute(way) | Self::NoSource(way) = &mut self {
            way.instead = other;
        }
        self
    }

    /// The code a user can cite.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "ADDRESS_NOT_AVAILABLE",
            Self::NoRoute(_) | Self::NoSource(_) => "NO_ROUTE",
            Self::Failed(_) => "CONNECT_FAILED",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::NoAddress(way) if way.path.switched_off.is_some() => format!(
                "Let the client use {}, or switch IPv6 on: `sysctl -w {}=0`, in a container when it \
                 is started (`docker run --sysctl`).",
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
                "See which addresses this machine has: ip {}addr.",
                dash(way.address)
            ),
            Self::NoRoute(way) => format!(
                "See ip {}route get {}{}.",
                dash(way.address),
                way.address,
                match way.path.errno {
                    Some(13) => ": a prohibit route or rule, set here, forbids it",
                    Some(22) => ": a blackhole route, set here, swallows it",
                    Some(97) => ": IPv6 is off since the kernel started (ipv6.disable=1)",
                    _ if way.address.is_loopback() => ", and whether lo is up: ip link set lo up",
                    _ => ", and whether its interface is up: ip link",
                }
            ),
            Self::NoSource(way) => format!(
                "Give {} an address: `ip addr add`.",
                way.path.interface.as_deref().unwrap_or("the interface")
            ),
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
            Self::Failed(why) => write!(f, "{}. {}", why.text, why.meaning),
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
                })
                .collect(),
            room: empty.then(|| room(snapshot, toward, capacity.as_ref())),
            flows_elsewhere: snapshot.tally.elsewhere.len(),
            connect: None,
        })
    }

    /// Whether it is said already why connect() to `address` fails at once.
    fn is_explained(&self, address: IpAddr) -> bool {
        let mut ways = self.addresses.iter();
        ways.any(|way| way.address == address && way.errno.is_some())
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
        let mut ways = Vec::new();
        for (address, path) in sought.addresses.iter_mut().zip(paths) {
            address.local = path.local;
            address.interface.clone_from(&path.interface);
            address.source = path.source;
            address.errno = path.errno;
            ways.push((address.address, Trouble::of(address.address, path)));
        }
        sought.connect = attempt;
        let good = ways.iter().find(|(_, trouble)| trouble.is_none());
        let unasked = sought.addresses.get(ways.len());
        let instead = good
            .map(|(address, _)| *address)
            .or(unasked.map(|unasked| unasked.address));
        let mut found = Vec::new();
        for (index, (_, trouble)) in ways.into_iter().enumerate() {
            let level = match instead {
                None => Level::Critical,
                // Some clients try the first address only.
                Some(_) if index == 0 => Level::Warning,
                Some(_) => Level::Ok,
            };
            found.extend(trouble.map(|trouble| (level, trouble.with_other(instead))));
        }
        if let Some(attempt) = &sought.connect
            && let Some(why) = &attempt.failure
            && !sought.is_explained(attempt.server.ip())
        {
            found.push((Level::Critical, Trouble::Failed(why.clone())));
        }
        let worst = found.iter().max_by_key(|(level, _)| *level);
        if let Some((level, trouble)) = worst.filter(|(level, _)| *level > self.level) {
            (self.level, self.summary) = (*level, trouble.to_string());
        } else if self.level == Level::Ok
            && let Some(room) = &sought.room
        {
            self.summary.clone_from(room);
        }
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
             a port range of its own: `strace -f -e bind,setsockopt,connect` tells."
        } else {
            "errno 99 all the same? On the first try it means an address that is not here: ::1 with \
             IPv6 off, a wrong source. `twcheck verdict HOST:PORT` tells."
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
            Some(_) => write!(f, "{} took none ({time})", self.server),
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
                 from 10.0.0.1; 127.0.0.1:3306 took none (90 µs); 1 flow elsewhere left out",
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
