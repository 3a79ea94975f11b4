//! The facts: plain data that every other room agrees on.

mod cost;
mod destination;
mod failure;
mod holders;
mod namespace;
mod nat;
mod owner;
mod place;
mod ports;
mod reuse;
mod snapshot;
mod socket;
mod source;
mod state;
mod tally;
mod tunables;

pub use cost::Cost;
pub use destination::{Destination, HostName, Path, Toward};
pub use failure::{FAILURES, FailureKind, InLogs, Row};
pub use holders::{Holders, NodePorts};
pub use namespace::{Inhabitant, Namespace};
pub use nat::{
    LeavesBy, Matches, NatFlow, NatRule, NatTable, NatUse, OwnAddresses, Prefix, Protocol,
    RulePorts, Tracked, TrackedState, TrackingSource,
};
pub use owner::{Look, Owner, Owners, Placeless, Unplaced};
pub use place::{Around, Place};
pub use ports::{LooseEnd, PortRange, PortSet};
pub use reuse::{Reuse, Timestamps, Trial};
pub use snapshot::{
    BoundPorts, Counters, Disagreement, Gap, Growth, Host, OtherNamespaces, Snapshot, SourceName,
    Unseen, Weight,
};
pub use socket::{Flow, Interface, Origin, Socket};
pub use source::{SourceUse, Sources};
pub use state::{StateCounts, TcpState};
pub use tally::{Beside, FlowUse, Listeners, PortRule, Tally, TimeWaitSplit};
pub use tunables::{HOLD_TIME, REUSE_DELAY, TimeWaitReuse, Tunables};
