//! The connect/close loop: the only room, with [`system`](crate::system), that touches the machine.

mod auth;
mod cause;
mod client;
mod dial;
mod failure;
mod guard;
mod latency;
mod login;
mod notice;
mod option_file;
mod pool;
mod proof;
mod protocol;
mod report;
mod run;
mod sandbox;
pub mod server;
mod session;
mod site;
mod stop;
mod target;
mod tls;
mod watch;
mod wire;

pub use dial::knock;
pub use failure::Failure;
pub use latency::Latency;
pub use login::{Login, Wanted};
pub use notice::Notice;
pub use option_file::{Entry, OptionFile, Place as OptionPlace};
pub use proof::prove;
pub use protocol::Protocol;
pub use report::{
    CameBack, ClientReport, Report, ServerReport, StoppedBy, TargetReport, TimeWaitSides,
};
pub use run::{Cliff, Limits, Moment};
pub use sandbox::Setting;
pub use session::Close;
pub use site::{Look, Place, Plan, Site};
pub use stop::{Signal, Stop};
pub use tls::{TlsMode, TlsWish};
pub use watch::ServerStatus;
