//! `twcheck record`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{PlaceArgs, values};

/// `twcheck record`.
#[derive(Debug, Args)]
#[command(after_help = "\
It prints the verdict of this moment, which the recording gives again:
  twcheck verdict --from host.tar      also states, advise

Examples:
  sudo twcheck record host.tar         root sees who owns the sockets of others
  twcheck record folder --sample 2s    who makes connections that live microseconds?
  sudo twcheck record pod.tar --pid 4711
  twcheck record host.tar --scrub      to be shown to others")]
pub struct RecordArgs {
    /// Where to put it: a folder, or an archive where the name ends with .tar; nothing that is there
    /// is written over
    #[arg(value_name = "DIR|FILE.tar")]
    pub to: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// Look for owners again and again for this time, to catch connections that live microseconds
    #[arg(long, value_parser = values::sample(), value_name = "D", allow_hyphen_values = true)]
    pub sample: Option<Duration>,
    /// Replace addresses, commands, users, units and the host's name by others, the same by the same
    /// (240.0.0.1, 2001:db8::1, …); loopback addresses, ports and process IDs stay
    #[arg(long)]
    pub scrub: bool,
}
