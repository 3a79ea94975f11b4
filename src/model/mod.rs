//! The facts: plain data that every other room agrees on.

mod holders;
mod owner;
mod ports;
mod snapshot;
mod socket;
mod state;
mod tally;
mod tunables;

pub use holders::Holders;
pub use owner::Owner;
pub use ports::{PortRange, PortSet};
pub use snapshot::{Counters, Gap, Host, Snapshot, SourceName, Weight};
pub use socket::{Flow, Socket};
pub use state::{StateCounts, TcpState};
pub use tally::{FlowUse, PortRule, Tally, TimeWaitSplit};
pub use tunables::{HOLD_TIME, REUSE_DELAY, TimeWaitReuse, Tunables};
