//! `twcheck record`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{SourceArgs, values};
use crate::refusal::Refusal;

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
    pub source: SourceArgs,
    /// Look for owners again and again for this time, to catch connections that live microseconds
    #[arg(long, value_parser = values::sample(), value_name = "D", allow_hyphen_values = true)]
    pub sample: Option<Duration>,
    /// Replace addresses, commands, users, units and the host's name by others, the same by the same;
    /// loopback and link-local addresses, ports and process IDs stay
    #[arg(long)]
    pub scrub: bool,
}

impl RecordArgs {
    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        self.source.check()?;
        a_recording_is_of_a_running_machine(self)?;
        a_recording_is_of_one_namespace(self)
    }
}

fn a_recording_is_of_a_running_machine(args: &RecordArgs) -> Result<(), Refusal> {
    if args.source.recorded().is_some() {
        return Err(Refusal::new(
            "record looks at a running machine, and a recorded one is there already",
            "leave out --from and --proc-root",
        ));
    }
    Ok(())
}

fn a_recording_is_of_one_namespace(args: &RecordArgs) -> Result<(), Refusal> {
    if args.source.all_netns {
        return Err(Refusal::new(
            "a recording is of one network namespace, and --all-netns names all",
            "record each with --pid or --netns: `twcheck states --all-netns` lists them",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused};

    #[test]
    fn a_recording_is_of_one_running_namespace() {
        for line in ["record x --from y", "record x --proc-root y"] {
            assert_refused(
                line,
                "record looks at a running machine, and a recorded one is there already",
                "leave out --from and --proc-root",
            );
        }
        assert_refused(
            "record x --all-netns",
            "a recording is of one network namespace, and --all-netns names all",
            "record each with --pid or --netns: `twcheck states --all-netns` lists them",
        );
        for line in ["record x.tar", "record x --pid 7 --scrub --sample 2s"] {
            assert_fine(line);
        }
    }
}
