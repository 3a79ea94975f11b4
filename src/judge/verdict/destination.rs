//! What a verdict says of one destination, once it is known how to get there.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use super::{Verdict, quiet};
use crate::judge::destination::{Attempt, EADDRNOTAVAIL, Sought, Trouble, Unreachable};
use crate::judge::finding::{Finding, Reported};
use crate::judge::level::Level;
use crate::model::Path;

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
                *trouble = Some(Trouble::Unheard(Unreachable::new(*address, path)));
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
                namespace: None,
                level,
                flow: None,
                finding: Finding::Destination(trouble),
            }));
        self.findings
            .sort_by_key(|reported| Reverse(reported.level));
        self.destination = Some(sought);
    }

    /// What an attempt that failed tells; nothing new where the flow is full, or bind() holds all.
    fn failed(&self, attempt: &Attempt, sought: &Sought) -> Option<Trouble> {
        let why = attempt.failure.as_ref()?;
        let server = attempt.server;
        let is_out_of_ports = why.errno == Some(EADDRNOTAVAIL);
        let source = sought
            .addresses
            .iter()
            .find(|way| way.address == server.ip())
            .and_then(|way| way.source);
        let held = self.findings.iter().any(|it| it.finding.leaves_none());
        if is_out_of_ports && (self.is_full(server) || held && source.is_some()) {
            return None;
        }
        Some(match source {
            Some(source) if is_out_of_ports => Trouble::NoPort { server, source },
            _ => Trouble::Failed(why.clone()),
        })
    }

    /// The sentence about the destination, the worst of what was `found` there or of its flows; what
    /// is wrong with the machine besides comes after it, unless it is why no port can be had.
    fn headline(&self, sought: &Sought, found: &[(Level, Trouble)], untried: bool) -> String {
        let is_about_it = |reported: &&Reported| {
            let is_of_all = matches!(
                reported.finding,
                Finding::NoUsablePort { .. } | Finding::SourceBound(_)
            );
            reported.flow.is_some() || is_of_all
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
                Finding::SourceBound(pool) => pool.left_to_connect() == 0,
                _ => false,
            })
    }

    /// What errno 99 means where ports are not the problem, and what tells; `None` where they are.
    #[must_use]
    pub fn otherwise(&self) -> Option<String> {
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
        let text = match &self.namespace {
            Some(namespace) => namespace.commands(text),
            None => text.into(),
        };
        (self.level == Level::Ok).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::destination::Explained;
    use crate::judge::fixture::{look, plain, socket};
    use crate::judge::level::Thresholds;
    use crate::judge::verdict::verdict;
    use crate::model::{Destination, TcpState, TimeWaitReuse, Toward, Tunables};

    /// A machine with 1,000 ports, and this many connections held open to 10.0.0.5:3306, asked
    /// about one destination.
    fn asked(typed: &str, addresses: &[&str], held: u16) -> Verdict {
        let tunables = Tunables {
            tcp_tw_reuse: Some(TimeWaitReuse::LoopbackOnly),
            ..plain()
        };
        let open = |port| socket(TcpState::Established, port, ([10, 0, 0, 5], 3306));
        let mut snapshot = look(tunables, [], (40000..40000 + held).map(open));
        let asked = Destination::parse(typed).unwrap();
        let port = asked.port.unwrap_or(0);
        let addresses = addresses
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), port))
            .collect();
        snapshot.tally.only_toward(Toward { asked, addresses });
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
