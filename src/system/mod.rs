//! Reads the machine: the only room, with [`repro`](crate::repro), that touches it.

pub mod byte_order;
mod census;
mod collect;
mod conntrack;
mod counters;
pub mod file;
mod holders;
mod host;
mod machine;
mod names;
mod namespaces;
pub mod netlink;
pub mod netns;
mod nft;
mod owners;
mod place;
mod proc_root;
pub mod proc_tcp;
mod recording;
mod resolve;
pub mod route;
pub mod sock_diag;
mod stopwatch;
pub mod sysctl;
pub mod text;
pub mod trial;
mod visit;
mod wait;

pub use census::{Census, Found, census};
pub use collect::{Judgement, View};
pub use machine::{Machine, SourceChoice};
pub use namespaces::other_namespaces;
pub use owners::{LONGEST_SAMPLE, Search, owners};
pub use proc_root::ProcRoot;
pub use recording::{
    Recorded, Recording, Subject, check as can_be_recorded, is_made_up, open as open_recording,
    take,
};
pub use resolve::resolve;
pub use stopwatch::Stopwatch;
pub use visit::{Door, Wanted};
pub use wait::{Input, can_be_stopped, input_within, is_reader_gone_within};
