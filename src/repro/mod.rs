//! The connect/close loop: the only room, with [`system`](crate::system), that touches the machine.

mod client;
mod dial;
mod failure;
mod latency;
mod option_file;
mod proof;
mod protocol;
mod report;
mod run;
mod sandbox;
pub mod server;
mod session;
mod stop;
mod target;
mod tls;
mod watch;

pub use client::Client;
pub use dial::knock;
pub use failure::{Failure, FailureKind, is_address_not_available};
pub use latency::Latency;
pub use option_file::ClientOptions;
pub use proof::prove;
pub use protocol::Protocol;
pub use report::{
    CameBack, ClientReport, Report, ServerReport, StoppedBy, TargetReport, TimeWaitSides,
};
pub use run::{Cliff, End, Limits, Moment, Outcome, run};
pub use sandbox::{Sandbox, Setting};
pub use session::{Close, greets_like_mysql};
pub use stop::{Signal, Stop};
pub use target::{Login, Target};
pub use watch::{ServerStatus, Watch, Watched, in_words};
