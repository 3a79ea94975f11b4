//! `twcheck states`

use clap::{Args, ValueEnum};

use super::{FormatArgs, SourceArgs, values};
use crate::model::Destination;
use crate::refusal::Refusal;
use crate::render::StatesFormat;

/// `twcheck states`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  twcheck states                   the table
  twcheck states --explain         what each state means and what many of them tell
  twcheck states --by flow         toward whom they are
  twcheck states 10.0.0.5:3306     only those toward one destination
  twcheck states --format plain    what netstat -n | awk '/^tcp/ {++S[$NF]} …' prints")]
pub struct StatesArgs {
    /// Only what this machine opened toward this destination: 10.0.0.5:3306, :3306, a name
    #[arg(
        value_name = "HOST:PORT",
        value_parser = values::destination(),
        allow_negative_numbers = true
    )]
    pub destination: Option<Destination>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs<StatesFormat>,
    /// Count by state only, or list the flows that have most sockets too
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub by: By,
    /// How many flows to list, 0 for all
    #[arg(
        long,
        default_value = "10",
        value_parser = values::top(),
        value_name = "N",
        allow_hyphen_values = true
    )]
    pub top: usize,
    /// Explain the 11 states
    #[arg(long)]
    pub explain: bool,
    /// Count listeners too
    #[arg(long)]
    pub all: bool,
}

/// What `states` groups by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// State
    #[default]
    State,
    /// Source address, destination address and destination port
    Flow,
}

impl StatesArgs {
    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        self.source.check()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused};

    #[test]
    fn a_recording_answers_no_netlink() {
        assert_refused(
            "states --source sock_diag --proc-root copy",
            "--source sock_diag asks the running kernel, --proc-root a recorded one",
            "leave one of the two out",
        );
        for line in [
            "states --source sock_diag",
            "states --proc-root copy",
            "states --proc-root copy --source proc",
            "states --proc-root copy --source auto",
        ] {
            assert_fine(line);
        }
    }
}
