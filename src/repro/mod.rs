//! The connect/close loop: the only room, with [`system`](crate::system), that touches the machine.

mod failure;
mod latency;
mod report;
mod run;
mod sandbox;
pub mod server;
mod target;
mod watch;

pub use failure::{Failure, FailureKind};
pub use latency::Latency;
pub use report::{PortsToward, Report, ServerReport, StoppedBy, TargetReport, TimeWaitSides};
pub use run::{End, Limits, Moment, Outcome, run};
pub use sandbox::{Sandbox, Setting};
pub use target::{Login, Target};
pub use watch::Watch;
