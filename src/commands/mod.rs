//! One file per subcommand, named as the user types it: collect → judge → render.

pub mod advise;
mod beside;
mod closer;
mod every;
pub mod explain;
mod output;
mod picture;
mod place;
pub mod record;
pub mod repro;
pub mod states;
pub mod verdict;
pub mod watch;
