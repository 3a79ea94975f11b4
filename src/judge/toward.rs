//! The ports toward one server that somebody is about to take, or has taken.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Capacity;
use super::reuse::{alone, reuse};
use crate::model::{Flow, FlowUse, PortRange, Reuse, Snapshot, TcpState};
use crate::words::{count, rate};

/// Between whom a run connects.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The source addresses, also the one that the kernel chooses; empty where that is unknown.
    pub sources: &'a [IpAddr],
    /// The server.
    pub server: SocketAddr,
    /// Whether it runs on this machine.
    pub is_here: bool,
}

/// Why connect() had no port, as far as the table tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The flow takes them.
    Taken,
    /// Somebody bound them.
    HeldByBind,
    /// All of them are reserved.
    Reserved,
    /// Nothing that was seen says why.
    Unknown,
}

/// The ports toward one server, as one look at the table tells them: of all the source addresses
/// that a run takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PortsToward {
    /// Ports that can be taken; `None` when the range is unknown.
    pub usable: Option<u32>,
    /// Ports that connect() can have, from addresses that take turns: as many from each as from the
    /// fullest; `None` likewise.
    pub free: Option<u32>,
    /// Whether most ports of some address are taken; `None` likewise. Not all: between an error and
    /// the look some may have come back.
    pub full: Option<bool>,
    /// Why connect() has no port, where it has none.
    pub shortage: Shortage,
    /// `ip_local_port_range`, and how many of it are reserved; `None` when unknown.
    pub range: Option<(PortRange, u32)>,
    /// Source addresses that are known.
    pub addresses: u32,
    /// Of the usable ports those found without a search that are free; `None` likewise.
    pub fast_free: Option<u32>,
    /// Ports taken.
    pub in_use: u32,
    /// Whether TIME_WAIT is reused on it.
    pub reuse: Reuse,
    /// `TWRecycled` of this look; `None` when unknown.
    pub recycled: Option<u64>,
    /// `TCPAbortOnData` of this look; `None` when unknown.
    pub reset: Option<u64>,
    /// `tcp_max_tw_buckets`; `None` when unknown.
    pub limit: Option<u64>,
    /// Whether TIME_WAIT is dropped at that limit before the ports are taken.
    pub buckets_bound: bool,
    /// `TCPTimeWaitOverflow` of this look; `None` when unknown.
    pub overflows: Option<u64>,
    /// The highest rate it can keep up; where it is open whether TIME_WAIT is reused, if it is.
    /// `None` when unknown or not bound by ports.
    pub max_rate: Option<f64>,
    /// The age from which TIME_WAIT can be reused.
    pub reuse_delay: Duration,
    /// Sockets in TIME_WAIT, those on ports beyond the range of now among them.
    pub time_wait: u64,
    /// TIME_WAIT of the server's side, of its address and port; `None` when it runs on another
    /// machine.
    pub server_side: Option<u64>,
    /// How long TIME_WAIT lasts.
    pub hold_time: Duration,
    /// Whether some connection is still on its way into TIME_WAIT.
    pub closing: bool,
    /// When the first and the last port in TIME_WAIT can be had again; `None` without any.
    pub returns: Option<(Duration, Duration)>,
}

impl PortsToward {
    /// What `snapshot` says about the flows on this `way`, or where its source is unknown, about the
    /// flow that takes most ports.
    #[must_use]
    pub fn new(snapshot: &Snapshot, way: Way<'_>) -> Self {
        let Way {
            sources, server, ..
        } = way;
        let mut flows: Vec<_> = snapshot.tally.toward(server).collect();
        if sources.is_empty() {
            flows.sort_by_key(|(_, used)| std::cmp::Reverse(used.ports_in_use()));
            flows.truncate(1);
        } else {
            flows.retain(|(flow, _)| sources.contains(&flow.source));
        }
        // The loop's own sockets are bound to no interface, but for what the address itself says.
        let is_scoped = flows.iter().all(|(flow, _)| flow.interface.is_some());
        flows.retain(|(flow, _)| is_scoped || flow.interface.is_none());
        let addresses = u32::try_from(sources.len()).unwrap_or(u32::MAX).max(1);
        let reuse = reuse_toward(snapshot, way, &flows);
        let reuse_works = reuse.works();
        let capacity = Capacity::of(snapshot);
        // Those that bind() has handed out to others do not make a flow full.
        let own = Capacity::with(snapshot, &snapshot.held());
        let loose = capacity.and_then(|capacity| capacity.loose_end);
        let sum = |part: &dyn Fn(&FlowUse) -> u32| flows.iter().map(|(_, used)| part(used)).sum();
        let fast_blocked: u32 = sum(&|used| used.fast_blocked(reuse_works, loose));
        let fullest = flows
            .iter()
            .map(|(_, used)| used.ports_blocked(reuse_works, loose))
            .max();
        let most_used = flows.iter().map(|(_, used)| used.ports_in_use()).max();
        let full = own.map(|own| most_used.unwrap_or(0) * 2 >= own.usable_ports);
        let in_state = |used: &FlowUse, state| used.by_state.get(state);
        let returns = flows
            .iter()
            .filter_map(|(_, used)| used.returns())
            .reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        Self {
            usable: capacity.map(|capacity| capacity.usable_ports * addresses),
            free: capacity.map(|capacity| {
                addresses * capacity.usable_ports.saturating_sub(fullest.unwrap_or(0))
            }),
            full,
            shortage: shortage(capacity, full, most_used.unwrap_or(0)),
            range: capacity.and_then(|capacity| {
                Some((
                    snapshot.tunables.ip_local_port_range?,
                    capacity.reserved_ports,
                ))
            }),
            addresses,
            fast_free: capacity
                .map(|capacity| (capacity.fast_ports * addresses).saturating_sub(fast_blocked)),
            in_use: sum(&|used| used.ports_in_use()),
            reuse,
            recycled: snapshot.counters.time_wait_recycled,
            reset: snapshot.counters.aborted_on_data,
            reuse_delay: snapshot.tunables.reuse_delay(),
            limit: snapshot.tunables.tcp_max_tw_buckets,
            buckets_bound: capacity.is_some_and(|capacity| capacity.buckets_bound()),
            overflows: snapshot.counters.time_wait_overflows,
            max_rate: capacity
                .and_then(|capacity| capacity.max_rate(reuse_works || reuse.is_open()))
                .map(|limit| limit * f64::from(addresses)),
            time_wait: flows
                .iter()
                .map(|(_, used)| in_state(used, TcpState::TimeWait))
                .sum::<u64>()
                + beyond(snapshot, way),
            server_side: way.is_here.then(|| {
                let by_end = &snapshot.tally.inbound_time_wait;
                by_end.get(&server).copied().unwrap_or(0)
            }),
            hold_time: snapshot.hold_time,
            closing: flows.iter().any(|(_, used)| {
                let states = [TcpState::FinWait1, TcpState::FinWait2, TcpState::Closing];
                states.iter().any(|&state| in_state(used, state) > 0)
            }),
            returns: returns.map(|(first, last)| {
                // Where it is reused a port need not wait for the end of its TIME_WAIT.
                let early = if reuse_works {
                    snapshot
                        .hold_time
                        .saturating_sub(snapshot.tunables.reuse_delay())
                } else {
                    Duration::ZERO
                };
                (first.saturating_sub(early), last.saturating_sub(early))
            }),
        }
    }

    /// Connections until the fast ports are spent; `None` when unknown, or where they come back
    /// meanwhile.
    #[must_use]
    pub fn until_cliff(&self) -> Option<u64> {
        let free = self.fast_free.filter(|&free| free > 0);
        free.filter(|_| !self.reuse.works() && !self.buckets_bound)
            .map(u64::from)
    }

    /// How many connections show that ports do not run out, because TIME_WAIT is dropped before it
    /// takes them; `None` where it is not, or the ports are unknown.
    #[must_use]
    pub fn until_shown(&self) -> Option<u64> {
        let free = self.free.filter(|_| self.buckets_bound);
        free.map(|free| u64::from(free) + 1)
    }
}

impl PortsToward {
    /// The run that shows ports run out, where TIME_WAIT is dropped before it takes them.
    #[must_use]
    pub fn cure(&self) -> Option<String> {
        let usable = self.usable.filter(|_| self.buckets_bound)?;
        Some(format!(
            "twcheck repro --set net.ipv4.tcp_max_tw_buckets={}{}",
            u64::from(usable).saturating_mul(2).next_power_of_two(),
            match self.reuse {
                Reuse::Off | Reuse::Refuted => "",
                _ => " --set net.ipv4.tcp_tw_reuse=0",
            }
        ))
    }

    /// What to know before a run to `server` that may not show exhaustion, and what to use instead;
    /// `None` where nothing keeps it from that, or too little is known.
    #[must_use]
    pub fn caution(&self, server: SocketAddr) -> Option<String> {
        if let (Some(limit), Some(usable), Some(command)) = (self.limit, self.usable, self.cure()) {
            return Some(format!(
                "TIME_WAIT is dropped beyond net.ipv4.tcp_max_tw_buckets = {}, below the {} ports, as \
                 a machine with little memory has it by default: this run shows that, and not errno \
                 99. To see ports run out: `{command}`",
                count(limit),
                count(usable)
            ));
        }
        let (max_rate, usable) = (rate(self.max_rate?), self.usable?);
        match self.reuse {
            Reuse::Off | Reuse::Refuted => None,
            Reuse::Allowed | Reuse::Unknown => Some(format!(
                "TIME_WAIT reuse may be in force toward {server}: if it has TCP timestamps, ports do \
                 not run out below {max_rate} connections/s; if it has none, after {} connections. \
                 The run will tell",
                count(self.free.unwrap_or(usable))
            )),
            Reuse::Seen => Some(format!(
                "ports will not run out below {max_rate} connections/s: TIME_WAIT reuse is in force \
                 toward {server}, so each of the {} ports comes back early. {}",
                count(usable),
                if server.ip().is_loopback() {
                    "net.ipv4.tcp_tw_reuse = 2, the default, means loopback; to see them run out, \
                     use `twcheck repro` without a server, or another address of the server's machine"
                } else {
                    "To see them run out: `twcheck repro --set net.ipv4.tcp_tw_reuse=0`"
                }
            )),
        }
    }
}

/// Why connect() has no port, where the fullest flow has `most_used` of them.
fn shortage(capacity: Option<Capacity>, full: Option<bool>, most_used: u32) -> Shortage {
    let Some(capacity) = capacity else {
        return Shortage::Unknown;
    };
    let held = capacity.bound_ports.known();
    if capacity.usable_ports == 0 {
        return if capacity.reserved_ports >= held {
            Shortage::Reserved
        } else {
            Shortage::HeldByBind
        };
    }
    if full == Some(true) {
        return Shortage::Taken;
    }
    // Between an error and the look some may have been let go.
    let others = (held + capacity.usable_ports).saturating_sub(most_used);
    if held > 0 && held * 2 >= others {
        Shortage::HeldByBind
    } else {
        Shortage::Unknown
    }
}

/// TIME_WAIT on this `way` on ports beyond the range.
fn beyond(snapshot: &Snapshot, way: Way<'_>) -> u64 {
    let is_on_it = |flow: &Flow| {
        let is_from_it = way.sources.is_empty() || way.sources.contains(&flow.source);
        flow.server() == way.server && is_from_it
    };
    let flows = snapshot.tally.time_wait_beyond.iter();
    flows
        .filter(|(flow, _)| is_on_it(flow))
        .map(|(_, number)| number)
        .sum()
}

/// Whether TIME_WAIT is reused on the `way`, by its `flows` where there are any yet.
fn reuse_toward(snapshot: &Snapshot, way: Way<'_>, flows: &[(Flow, &FlowUse)]) -> Reuse {
    let alone = alone(snapshot);
    let known = flows
        .iter()
        .map(|(flow, used)| reuse(snapshot, flow, used, alone))
        .min();
    known.unwrap_or_else(|| {
        let nothing = FlowUse::default();
        let to_come = Flow {
            source: way.sources.first().copied().unwrap_or(way.server.ip()),
            destination: way.server.ip(),
            destination_port: way.server.port(),
            interface: None,
        };
        match reuse(snapshot, &to_come, &nothing, None) {
            // Without a source nothing tells that both ends are here.
            Reuse::Seen if way.sources.is_empty() && !way.is_here => Reuse::Allowed,
            known => known,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::{look, plain, socket};
    use crate::model::{Socket, TimeWaitReuse, Tunables};
    use TcpState::{FinWait1, TimeWait};

    const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 3306);

    /// TIME_WAIT sockets of 10.0.0.1 on these ports, with this many seconds to go each.
    fn waiting(
        ports: impl Iterator<Item = u16>,
        left: impl Fn(u16) -> u64,
    ) -> impl Iterator<Item = Socket> {
        ports.map(move |port| Socket {
            time_wait_left: Some(Duration::from_secs(left(port))),
            ..socket(TimeWait, port, SERVER)
        })
    }

    fn toward(snapshot: &Snapshot, sources: &[[u8; 4]]) -> PortsToward {
        let sources: Vec<_> = sources.iter().copied().map(IpAddr::from).collect();
        let way = Way {
            sources: &sources,
            server: SERVER.into(),
            is_here: false,
        };
        PortsToward::new(snapshot, way)
    }

    #[test]
    fn a_run_takes_ports_of_its_own_sources_alone() {
        let neighbour = Socket {
            local: ([10, 0, 0, 7], 40500).into(),
            ..socket(TimeWait, 0, SERVER)
        };
        let own = waiting((40000..40200).step_by(2), |port| u64::from(port % 50));
        let snapshot = look(plain(), [], own.chain([neighbour]));
        let one = toward(&snapshot, &[[10, 0, 0, 1]]);
        assert_eq!(
            (one.usable, one.free, one.in_use, one.time_wait),
            (Some(1000), Some(900), 100, 100)
        );
        // The even ports come first, and 100 of those are gone.
        assert_eq!((one.fast_free, one.until_cliff()), (Some(400), Some(400)));
        assert_eq!(
            one.returns,
            Some((Duration::ZERO, Duration::from_secs(48))),
            "the first and the last"
        );
        // Addresses that take turns come to an end together.
        let both = toward(&snapshot, &[[10, 0, 0, 1], [10, 0, 0, 8]]);
        assert_eq!((both.usable, both.free), (Some(2000), Some(1800)));
        let limits = [one, both].map(|ports| ports.max_rate.unwrap());
        assert!((limits[0] - 1000.0 / 60.0).abs() < 1e-9, "{limits:?}");
        assert!((limits[1] - 2000.0 / 60.0).abs() < 1e-9, "{limits:?}");
        // Where the source is unknown it is the flow that takes most.
        assert_eq!(toward(&snapshot, &[]).in_use, 100);
        assert_eq!(toward(&snapshot, &[[10, 0, 0, 9]]).in_use, 0);
    }

    #[test]
    fn a_flow_is_full_from_half_of_its_ports_on_and_settled_once_nothing_closes() {
        let ports = |taken: u16, closing: bool| {
            let last = closing.then(|| socket(FinWait1, 40999, SERVER));
            let rows = waiting(40000..40000 + taken, |_| 30).chain(last);
            let ports = toward(&look(plain(), [], rows), &[[10, 0, 0, 1]]);
            (ports.full, ports.closing)
        };
        assert_eq!(ports(499, false), (Some(false), false));
        assert_eq!(ports(499, true), (Some(true), true));
        assert_eq!(ports(500, false), (Some(true), false));
    }

    #[test]
    fn what_a_server_here_keeps_is_counted_apart() {
        let inbound = (50000..50005).map(|port| Socket {
            local: SERVER.into(),
            remote: ([10, 0, 0, 1], port).into(),
            ..socket(TimeWait, 0, SERVER)
        });
        let snapshot = look(plain(), [SERVER.into()], inbound);
        let way = |is_here| Way {
            sources: &[],
            server: SERVER.into(),
            is_here,
        };
        let here = PortsToward::new(&snapshot, way(true));
        assert_eq!((here.server_side, here.time_wait), (Some(5), 0));
        let elsewhere = PortsToward::new(&snapshot, way(false));
        assert_eq!(elsewhere.server_side, None);
    }

    #[test]
    fn what_keeps_a_run_from_exhaustion_is_said_beforehand() {
        let caution = |reuse, server: &str| {
            let tunables = Tunables {
                tcp_tw_reuse: reuse,
                ..plain()
            };
            let snapshot = look(tunables, [], []);
            let server: SocketAddr = server.parse().unwrap();
            let way = Way {
                sources: &[server.ip()],
                server,
                is_here: server.ip().is_loopback(),
            };
            PortsToward::new(&snapshot, way).caution(server)
        };
        let off = Some(TimeWaitReuse::Off);
        let loopback = Some(TimeWaitReuse::LoopbackOnly);
        assert_eq!(caution(off, "127.0.0.1:3306"), None);
        assert_eq!(caution(loopback, "10.0.0.2:3306"), None);
        // 1,000 ports, each back after a second.
        let said = caution(loopback, "127.0.0.1:3306").unwrap();
        let begin = "ports will not run out below 1,000 connections/s: ";
        assert!(said.starts_with(begin), "{said}");
        assert!(said.contains("another address"), "{said}");
        let unknown = look(Tunables::default(), [], []);
        assert_eq!(toward(&unknown, &[]).caution(SERVER.into()), None);
    }
}
