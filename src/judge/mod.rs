//! Facts in, findings out: no clock, no files, nothing but plain values.

pub mod advice;
pub mod bearing;
pub mod capacity;
pub mod change;
pub mod destination;
pub mod experiment;
pub mod explain;
pub mod files;
pub mod finding;
#[cfg(test)]
pub(crate) mod fixture;
pub mod flow;
pub mod forecast;
pub mod goal;
pub mod level;
mod machine;
pub mod namespaces;
pub mod nat;
pub mod reuse;
pub mod source;
pub mod states;
pub mod table;
pub mod toward;
pub mod trend;
pub mod verdict;

pub use capacity::Capacity;
