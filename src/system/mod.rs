//! Reads the machine: the only room, with [`repro`](crate::repro), that touches it.

pub mod byte_order;
mod collect;
mod conntrack;
mod counters;
pub mod file;
mod holders;
mod host;
mod machine;
mod namespaces;
pub mod netlink;
pub mod netns;
mod nft;
mod owners;
mod place;
mod proc_root;
pub mod proc_tcp;
mod resolve;
pub mod route;
pub mod sock_diag;
pub mod sysctl;
pub mod trial;

pub use collect::{Judgement, View};
pub use machine::{Machine, SourceChoice};
pub use namespaces::other_namespaces;
pub use owners::{LONGEST_SAMPLE, Search, owners};
pub use proc_root::ProcRoot;
pub use resolve::resolve;
