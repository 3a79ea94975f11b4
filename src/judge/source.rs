//! Clients whose ports are handed out by bind(): one pool for all destinations, and errno 98.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Capacity;
use crate::model::{FlowUse, Interface, PortRange, SourceUse, Tally, TcpState};

/// A source address whose clients bind() it and leave the port to bind().
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceBound {
    /// The address.
    pub address: IpAddr,
    /// The interface that the sockets are bound to, if any.
    pub interface: Option<Interface>,
    /// Ports taken, over all destinations.
    pub taken: u32,
    /// Ports there are.
    pub usable: u32,
    /// Destinations they are taken toward.
    pub destinations: u32,
}

/// Fewer ports than these on the side that connect() leaves for last tell nothing.
const FEWEST: u32 = 32;

/// How unlikely it must be that flows of connect() share no port.
const UNLIKELY: f64 = 0.01;

/// A flow with fewer ports is no witness of who shares with whom.
const WITNESS: u32 = 8;

/// The sources of which the table shows that bind() hands out their ports.
///
/// connect() looks at the ports of the low end's parity first, and takes another only where none of
/// these is left to the flow; two flows know nothing of each other. bind() looks at the other parity
/// first (`inet_csk_find_open_port` in net/ipv4/inet_connection_sock.c: "we do the opposite to not
/// pollute connect() users"), and never gives a port of one address twice.
#[must_use]
pub fn bound_sources(tally: &Tally, capacity: &Capacity) -> Vec<SourceBound> {
    let Some(range) = tally.rule().range else {
        return Vec::new();
    };
    let mut flows: HashMap<_, Vec<&FlowUse>> = HashMap::new();
    for (flow, used) in &tally.flows {
        let key = (flow.source, flow.interface);
        flows.entry(key).or_default().push(used);
    }
    tally
        .sources
        .iter()
        .filter_map(|source| {
            let flows = flows.get(&(source.address, source.interface))?;
            shows_bind(source, flows, capacity, range).then(|| SourceBound {
                address: source.address,
                interface: source.interface,
                taken: source.ports.len(),
                usable: capacity.usable_ports,
                destinations: u32::try_from(flows.len()).unwrap_or(u32::MAX),
            })
        })
        .collect()
}

fn shows_bind(
    source: &SourceUse,
    flows: &[&FlowUse],
    capacity: &Capacity,
    range: PortRange,
) -> bool {
    let slow = |used: &FlowUse| used.countable_in_use() - used.fast_in_use;
    let sockets: u32 = flows.iter().map(|used| used.countable_in_use()).sum();
    let seen_slow: u32 = flows.iter().map(|used| slow(used)).sum();
    // What connect() would have taken of them: what a flow has beyond the fast ports.
    let explained: u32 = flows
        .iter()
        .map(|used| slow(used).min(used.countable_in_use().saturating_sub(capacity.fast_ports)))
        .sum();
    if seen_slow < FEWEST || explained * 10 > seen_slow || source.ports.len() < sockets {
        return false;
    }
    if is_one_block(source, range) {
        return false; // A range of the client's own, from which connect() takes one after the other.
    }
    let slow_ports = capacity.usable_ports - capacity.fast_ports;
    let expected = sockets.min(slow_ports);
    if seen_slow * 20 >= expected * 19 && !is_a_lone_pool(flows) {
        return true;
    }
    // Without the order of parities there is still that no port is shared.
    seen_slow * 40 >= sockets * 19
        && chance_of_no_shared_port(flows, capacity.usable_ports) < UNLIKELY
}

/// Whether it is one flow of open connections: they may be older than the range of now, whose low
/// end decides which ports come first.
fn is_a_lone_pool(flows: &[&FlowUse]) -> bool {
    let waiting: u64 = flows
        .iter()
        .map(|used| used.by_state.get(TcpState::TimeWait))
        .sum();
    let all: u64 = flows.iter().map(|used| used.by_state.total()).sum();
    flows.len() < 2 && waiting * 2 < all
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
