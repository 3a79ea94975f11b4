//! How many sockets are in which state.

use std::cmp::Reverse;
use std::net::IpAddr;

use serde::Serialize;

use super::destination::Sought;
use super::verdict::TimeWaitReport;
use crate::model::{
    Gap, Interface, Namespace, Snapshot, SourceName, StateCounts, TcpState, TimeWaitSplit, Weight,
};

/// Everything `states` says, in the order of the JSON contract.
#[derive(Debug, Clone, Serialize)]
pub struct States {
    /// Version of this structure.
    pub schema: u32,
    /// The network namespace that was asked for; `None`, and left out of the JSON, where it is the
    /// reader's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Sockets counted; `None` where none could be, though there may be some.
    pub total: Option<u64>,
    /// By state.
    pub states: StateCounts,
    /// TIME_WAIT by direction; `None` likewise.
    pub time_wait: Option<TimeWaitReport>,
    /// The outbound flows with most sockets, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<Vec<FlowStates>>,
    /// How many outbound flows there are, listed or not, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows_total: Option<usize>,
    /// The destination that it is about, outbound sockets only; `None`, and left out of the JSON,
    /// where it is about all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Sought>,
    /// Where the rows came from.
    pub source: SourceName,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// One outbound flow.
#[derive(Debug, Clone, Serialize)]
pub struct FlowStates {
    /// Local address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The server's port.
    pub destination_port: u16,
    /// The interface its sockets are bound to; `None` where they are bound to none, or that is
    /// unknown.
    pub interface: Option<Interface>,
    /// Its sockets.
    pub total: u64,
    /// By state.
    pub by_state: StateCounts,
}

impl FlowStates {
    /// Its source, and the interface where there is one.
    #[must_use]
    pub fn from(&self) -> String {
        match self.interface {
            Some(interface) => format!("{}%{interface}", self.source),
            None => self.source.to_string(),
        }
    }
}

/// Counts one snapshot: listeners only with `all`, flows only with `top` (0 for all of them).
#[must_use]
pub fn states(snapshot: &Snapshot, all: bool, top: Option<usize>) -> States {
    let tally = &snapshot.tally;
    let destination = Sought::new(snapshot);
    let mut time_wait = TimeWaitReport::new(snapshot);
    let states = match destination {
        Some(_) => {
            let mut there = StateCounts::default();
            for used in tally.flows.values() {
                there.merge(&used.by_state);
            }
            let outbound = there.get(TcpState::TimeWait);
            time_wait.split = TimeWaitSplit {
                total: outbound,
                outbound,
                inbound: 0,
            };
            there
        }
        None if all => tally.states.clone(),
        None => tally.states.without(TcpState::Listen),
    };
    // Nothing to tell, and something wrong with the table: unknown, not zero.
    let is_unknown =
        states.total() == 0 && (snapshot.gaps.iter()).any(|gap| gap.weight == Weight::Decisive);
    let top = top.filter(|_| !is_unknown);
    States {
        schema: 1,
        namespace: None,
        total: (!is_unknown).then(|| states.total()),
        states,
        time_wait: (!is_unknown).then_some(time_wait),
        flows: top.map(|top| flows(snapshot, top)),
        flows_total: top.map(|_| tally.flows.len()),
        destination,
        source: snapshot.source,
        gaps: snapshot.gaps.clone(),
    }
}

fn flows(snapshot: &Snapshot, top: usize) -> Vec<FlowStates> {
    let mut flows: Vec<_> = snapshot.tally.flows.iter().collect();
    flows.sort_unstable_by_key(|(flow, used)| (Reverse(used.by_state.total()), **flow));
    flows.truncate(if top == 0 { flows.len() } else { top });
    flows
        .into_iter()
        .map(|(flow, used)| FlowStates {
            source: flow.source,
            destination: flow.destination,
            destination_port: flow.destination_port,
            interface: flow.interface,
            total: used.by_state.total(),
            by_state: used.by_state.clone(),
        })
        .collect()
}
