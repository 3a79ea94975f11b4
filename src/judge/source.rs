//! Clients whose ports are handed out by bind(): one pool for all destinations, and errno 98.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Capacity;
use crate::model::{
    Flow, FlowUse, Interface, PortRange, PortRule, PortSet, Snapshot, SourceUse, TcpState, Tunables,
};
use crate::words::percent;

/// A source address whose clients bind() it and leave the port to bind().
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceBound {
    /// The address.
    pub address: IpAddr,
    /// The interface that the sockets are bound to, if any.
    pub interface: Option<Interface>,
    /// Ports taken, over all destinations: bind() gives none of them to this address.
    pub taken: u32,
    /// Of these, the ones that bind() has handed out: connect() skips them.
    pub ports: PortSet,
    /// Ports there are.
    pub usable: u32,
    /// Its flows whose ports bind() hands out.
    pub flows: HashSet<Flow>,
}

/// Ports that bind() holds, of all sources, and what that leaves to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Ports there are, for bind() and connect() together.
    pub usable: u32,
    /// Of these, the ones that bind() holds: connect() passes over them whatever the destination.
    pub held: u32,
    /// Ports taken from any address, by connect() too: a bind() that names no address, or an
    /// interface where others name none, gets none of them.
    pub taken: u32,
    /// Whose they are, the fullest first.
    pub sources: Vec<SourceBound>,
}

impl Pool {
    /// What `sources` make up together; `None` where there are none.
    #[must_use]
    pub fn of(snapshot: &Snapshot, mut sources: Vec<SourceBound>) -> Option<Self> {
        let usable = sources.first()?.usable;
        let ports = sources
            .iter()
            .fold(PortSet::default(), |all, source| all.union(&source.ports));
        let held = snapshot.passed_over.as_ref().unwrap_or(&ports).len();
        sources.sort_by_key(|source| (Reverse(source.taken), source.address));
        Some(Self {
            usable,
            held,
            taken: snapshot.tally.ports().len(),
            sources,
        })
    }

    /// Ports that connect() has toward a destination of which it has none.
    #[must_use]
    pub fn left_to_connect(&self) -> u32 {
        self.usable.saturating_sub(self.held)
    }

    /// Ports that a bind() has left which names no address: fewer or as many as one that does.
    #[must_use]
    pub fn left_to_all(&self) -> u32 {
        self.usable.saturating_sub(self.taken)
    }

    /// The largest share of the ports that is gone, in percent: for connect(), or for clients that
    /// bind() the fullest of its addresses. Where few of an address's ports are of bind(), it may be
    /// programs that name them.
    #[must_use]
    pub fn share(&self) -> f64 {
        let is_of_bind = |source: &&SourceBound| {
            let of_bind = source.ports.len();
            of_bind >= FEWEST || of_bind * 2 >= source.taken
        };
        let sources = self.sources.iter().filter(is_of_bind);
        let fullest = sources.map(|source| source.taken).max().unwrap_or(0);
        percent(self.held.max(fullest), self.usable)
    }
}

impl SourceBound {
    /// Ports that a client has left which bind()s this address.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.usable.saturating_sub(self.taken)
    }
}

/// Fewer ports than these on the side that connect() leaves for last tell nothing.
const FEWEST: u32 = 32;

/// How unlikely it must be that flows of connect() share no port.
const UNLIKELY: f64 = 0.01;

/// A flow with fewer ports is no witness of who shares with whom.
const WITNESS: u32 = 8;

/// The sources whose ports bind() hands out: as the kernel tells, or where it was not asked, as the
/// table shows.
#[must_use]
pub fn bound_sources(snapshot: &Snapshot, capacity: &Capacity) -> Vec<SourceBound> {
    match &snapshot.passed_over {
        Some(passed_over) => told(snapshot, passed_over, capacity),
        None => shown(snapshot, capacity),
    }
}

/// Fewer ports than these may be named by programs that need just these.
const FEWEST_TOLD: u32 = 8;

/// The sources that have ports of `passed_over`, at least half of their own or some that no other has:
/// a port of two may be the other's that bind() has handed out.
fn told(snapshot: &Snapshot, passed_over: &PortSet, capacity: &Capacity) -> Vec<SourceBound> {
    if passed_over.len() < FEWEST_TOLD {
        return Vec::new();
    }
    let sources: Vec<_> = snapshot.tally.sources.iter().collect();
    let is_of = |source: &SourceUse, flow: &Flow, used: &FlowUse| {
        (flow.source, flow.interface) == (source.address, source.interface)
            && used.passed_over * 2 > used.ports_in_use()
    };
    sources
        .iter()
        .filter_map(|source| {
            let ports = passed_over.common(&source.ports);
            let others = sources.iter().filter(|other| *other != source);
            let own = others.fold(ports.clone(), |own, other| own.without(&other.ports));
            (own.len() >= FEWEST_TOLD || ports.len() * 2 >= source.ports.len()).then(|| {
                SourceBound {
                    address: source.address,
                    interface: source.interface,
                    taken: source.ports.len(),
                    // bind() has the ports too that connect() passes over.
                    usable: capacity.usable_ports + passed_over.len(),
                    ports,
                    flows: snapshot
                        .tally
                        .all_flows()
                        .filter(|(flow, used)| is_of(source, flow, used))
                        .map(|(flow, _)| *flow)
                        .collect(),
                }
            })
        })
        .collect()
}

/// The sources of which the table shows that bind() hands out their ports.
///
/// connect() looks at the ports of the low end's parity first, and takes another only where none of
/// these is left to the flow; two flows know nothing of each other. bind() looks at the other parity
/// first (`inet_csk_find_open_port` in net/ipv4/inet_connection_sock.c: "we do the opposite to not
/// pollute connect() users"), and never gives a port of one address twice.
fn shown(snapshot: &Snapshot, capacity: &Capacity) -> Vec<SourceBound> {
    let tally = &snapshot.tally;
    let parity_tells = orders_by_parity(&snapshot.tunables);
    let mut flows: HashMap<_, Vec<(&Flow, &FlowUse)>> = HashMap::new();
    for (flow, used) in tally.all_flows() {
        let key = (flow.source, flow.interface);
        flows.entry(key).or_default().push((flow, used));
    }
    tally
        .sources
        .iter()
        .filter_map(|source| {
            let flows = flows.get(&(source.address, source.interface))?;
            let sides = Sides::of(source, flows, capacity);
            let rule = tally.rule();
            if !shows_bind(source, &sides, capacity, rule, parity_tells) {
                return None;
            }
            Some(SourceBound {
                address: source.address,
                interface: source.interface,
                taken: source.ports.len(),
                ports: handed_out(source, &sides, rule.range),
                usable: capacity.usable_ports,
                flows: sides.names.into_iter().copied().collect(),
            })
        })
        .collect()
}

/// Whether connect() and bind() look at ports of one parity first. Before Linux 4.2 they went through
/// all of them alike; a kernel that has `tcp_tw_recycle` is older than 4.12: too old to tell.
#[must_use]
pub fn orders_by_parity(tunables: &Tunables) -> bool {
    tunables.tcp_tw_recycle.is_none()
}

/// The flows of a source by whether their ports can have come from bind(): too many of them are on
/// the side that connect() leaves for last.
struct Sides<'a> {
    bind: Vec<&'a FlowUse>,
    /// Which they are.
    names: Vec<&'a Flow>,
    /// How many others there are.
    connect: usize,
}

impl<'a> Sides<'a> {
    fn of(source: &SourceUse, flows: &[(&'a Flow, &'a FlowUse)], capacity: &Capacity) -> Self {
        let is_bind = |used: &FlowUse| {
            slow(used) * 40 >= used.countable_in_use() * 19
                && slow(used) > explained(used, capacity)
        };
        let others = flows.iter().filter(|(_, used)| !is_bind(used)).count();
        let sockets: u32 = flows.iter().map(|(_, used)| used.countable_in_use()).sum();
        let shares_ports = source.ports.len() < sockets;
        // Once that side is spent, bind() hands out the other one too. Only flows of connect() share
        // a port.
        let connect = if shares_ports && (2..flows.len()).contains(&others) {
            others
        } else {
            0
        };
        let bind = flows
            .iter()
            .filter(|(_, used)| connect == 0 || is_bind(used));
        Self {
            bind: bind.clone().map(|&(_, used)| used).collect(),
            names: bind.map(|&(flow, _)| flow).collect(),
            connect,
        }
    }
}

/// Ports on the side that connect() leaves for last.
fn slow(used: &FlowUse) -> u32 {
    used.countable_in_use() - used.fast_in_use()
}

/// Of these, the ones that connect() would have taken: what a flow has beyond the fast ports.
fn explained(used: &FlowUse, capacity: &Capacity) -> u32 {
    let beyond = used.countable_in_use().saturating_sub(capacity.fast_ports);
    slow(used).min(beyond)
}

fn shows_bind(
    source: &SourceUse,
    sides: &Sides<'_>,
    capacity: &Capacity,
    rule: &PortRule,
    parity_tells: bool,
) -> bool {
    let flows = &sides.bind;
    let sockets: u32 = flows.iter().map(|used| used.countable_in_use()).sum();
    let seen_slow: u32 = flows.iter().map(|used| slow(used)).sum();
    let explained: u32 = flows.iter().map(|used| explained(used, capacity)).sum();
    // Flows of connect() beside them may share ports with each other.
    let shares_ports = sides.connect == 0 && source.ports.len() < sockets;
    if seen_slow < explained + FEWEST
        || shares_ports
        || rule.range.is_none_or(|range| is_one_block(source, range))
    {
        return false;
    }
    let slow_ports = capacity.usable_ports - capacity.fast_ports;
    if parity_tells
        && seen_slow * 20 >= least_slow(sockets, slow_ports) * 19
        && was_just_so(flows, rule)
    {
        return true;
    }
    // Without the order of parities there is still that no port is shared.
    sides.connect == 0
        && seen_slow * 40 >= sockets * 19
        && chance_of_no_shared_port(flows, capacity.usable_ports) < UNLIKELY
}

/// The ports that bind() has handed out: all that the source has, or where flows of connect() have
/// some too, those of the side that is theirs last.
fn handed_out(source: &SourceUse, sides: &Sides<'_>, range: Option<PortRange>) -> PortSet {
    let is_fast = |port: u16| range.is_some_and(|range| range.is_fast(port));
    source
        .ports
        .ports()
        .filter(|&port| sides.connect == 0 || !is_fast(port))
        .collect()
}

/// How many of `sockets` ports bind() takes on the side of `slow_ports` at least. With SO_REUSEADDR
/// it goes through the lower half of the range first, that side of it and then the other
/// (`attempt_half`); without it takes all of that side before any other.
fn least_slow(sockets: u32, slow_ports: u32) -> u32 {
    let of_half = slow_ports / 2;
    let lower_half = of_half * 2;
    if sockets <= lower_half {
        sockets.min(of_half)
    } else {
        (sockets - of_half).min(slow_ports)
    }
}

/// Whether the ports show what the clients do now. TIME_WAIT keeps a slow port for a minute, and
/// the fast ones that were taken before it, when it was their turn, are back before it is: so the
/// latest must be new. Of open connections it is not known when they began; flows to several
/// destinations agree hardly by chance.
fn was_just_so(flows: &[&FlowUse], rule: &PortRule) -> bool {
    /// The lateness of timers, within which fast ports may just have come back.
    const NEW: Duration = Duration::from_secs(3);
    let waiting: u64 = flows
        .iter()
        .map(|used| used.by_state.get(TcpState::TimeWait))
        .sum();
    let all: u64 = flows.iter().map(|used| used.by_state.total()).sum();
    if waiting * 2 < all {
        return flows.len() > 1;
    }
    let newest = flows.iter().filter_map(|used| used.slow_left_most()).max();
    newest.is_some_and(|left| left + NEW >= rule.hold_time)
}

/// Whether the ports of `source` are all those between the lowest and the highest.
fn is_one_block(source: &SourceUse, range: PortRange) -> bool {
    let mut ports = source.ports.ports();
    let lowest = ports.next();
    let highest = ports.last().or(lowest);
    lowest.zip(highest).is_some_and(|(low, high)| {
        let between = u32::from(high - low) + 1;
        between == source.ports.len() && between * 2 < range.len()
    })
}

/// How likely flows of connect() would share no port. Each takes a run of ports that begins anywhere
/// in the range; the chance that runs on a circle do not meet is (1 − the part they cover) to the
/// power of their number less one. Ports that do not make a run meet more often.
fn chance_of_no_shared_port(flows: &[&FlowUse], usable: u32) -> f64 {
    let witnesses = flows
        .iter()
        .map(|used| used.countable_in_use())
        .filter(|&ports| ports >= WITNESS);
    let covered = f64::from(witnesses.clone().sum::<u32>()) / f64::from(usable.max(1));
    let others = i32::try_from(witnesses.count().saturating_sub(1)).unwrap_or(i32::MAX);
    (1.0 - covered).max(0.0).powi(others)
}
