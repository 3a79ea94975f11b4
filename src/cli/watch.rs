//! `twcheck watch`

use std::time::Duration;

use clap::Args;

use super::{PlaceArgs, values};
use crate::model::Destination;

/// `twcheck watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Needs a terminal of 60×15 or more; elsewhere, as for a log: `twcheck verdict --every 2s`.
Keys: q quit, arrows select a flow, Enter all about it, s sort, / filter, p pause, + and - pace, ? help.
Exit status: 0 however it is ended, 3 where it could not look or was misused.

Examples:
  twcheck watch                    this machine, or this container
  twcheck watch db.example:3306    one destination
  sudo twcheck watch --pid 4711    the network namespace of that process")]
pub struct WatchArgs {
    /// Only toward this destination: 10.0.0.5:3306, :3306, a name
    #[arg(
        value_name = "HOST:PORT",
        value_parser = values::destination(),
        allow_negative_numbers = true
    )]
    pub destination: Option<Destination>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// The time between two looks; + and - change it
    #[arg(
        long,
        default_value = "2s",
        value_parser = values::every(),
        value_name = "D",
        allow_hyphen_values = true
    )]
    pub every: Duration,
}
