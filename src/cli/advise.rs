//! `twcheck advise`

use std::time::Duration;

use clap::Args;

use super::{FormatArgs, SourceArgs, values};
use crate::judge::goal::Goal;
use crate::model::Destination;
use crate::refusal::Refusal;
use crate::render::AdviseFormat;

/// `twcheck advise`.
#[derive(Debug, Args)]
#[command(after_help = "\
It never writes anything itself. To apply what it says:
  twcheck advise --format sysctl | sudo tee /etc/sysctl.d/90-ports.conf
  sudo sysctl -p /etc/sysctl.d/90-ports.conf

In a container these settings belong to the container: the host's change \
nothing in it. Of a pod they are set in its spec:
  twcheck advise --format kubernetes

Examples:
  twcheck advise --prove                         half a minute of experiments
  twcheck advise --target-rate 2000 --busy 20ms  what does it take?
  twcheck advise --target-rate 2000 10.0.0.5:3306
  twcheck advise --target-connections 40000      websockets, MQTT, a proxy")]
pub struct AdviseArgs {
    /// Only about this destination, as 10.0.0.5:3306, :3306 or a name; loopback has rules of its own
    #[arg(
        value_name = "HOST:PORT",
        value_parser = values::destination(),
        allow_negative_numbers = true
    )]
    destination: Option<Destination>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs<AdviseFormat>,
    /// Try every change in a private namespace, scaled down, and compare with what was said
    #[arg(long, conflicts_with_all = ["proc_root", "from", "all_netns"])]
    pub prove: bool,
    /// Say what it takes to carry this many connections/s to one destination
    #[arg(long, value_parser = values::per_second(), value_name = "R", allow_hyphen_values = true)]
    target_rate: Option<f64>,
    /// Say what it takes to keep this many connections open to one destination at once
    #[arg(long, value_parser = values::connections(), value_name = "N", allow_hyphen_values = true)]
    target_connections: Option<u64>,
    /// The same as HOST:PORT
    #[arg(
        long,
        value_parser = values::destination(),
        value_name = "HOST:PORT",
        allow_hyphen_values = true,
        conflicts_with = "destination"
    )]
    flow: Option<Destination>,
    /// With --target-rate: how long a request uses its connection, to size a pool by
    #[arg(long, value_parser = values::time(), value_name = "D", allow_hyphen_values = true)]
    busy: Option<Duration>,
}

impl AdviseArgs {
    /// The destination that it is about, if any is.
    #[must_use]
    pub fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref().or(self.flow.as_ref())
    }

    /// What is wanted, if anything is.
    #[must_use]
    pub fn goal(&self) -> Option<Goal> {
        let is_wanted = self.target_rate.is_some() || self.target_connections.is_some();
        is_wanted.then_some(Goal {
            rate: self.target_rate,
            connections: self.target_connections,
            busy: self.busy,
        })
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        self.source.check()?;
        busy_is_about_a_rate(self)?;
        a_proof_is_no_file_of_settings(self)?;
        a_file_of_settings_is_for_one_namespace(self)
    }
}

fn busy_is_about_a_rate(args: &AdviseArgs) -> Result<(), Refusal> {
    if args.target_rate.is_none() && args.busy.is_some() {
        return Err(Refusal::new(
            "--busy says more about the rate of --target-rate, and there is none",
            "twcheck advise --target-rate 2000 --busy 20ms",
        ));
    }
    Ok(())
}

/// The format asked for, where it is a file of settings.
fn file_of_settings(args: &AdviseArgs) -> Option<&'static str> {
    match args.format.get() {
        AdviseFormat::Sysctl => Some("sysctl"),
        AdviseFormat::Kubernetes => Some("kubernetes"),
        AdviseFormat::Table | AdviseFormat::Plain | AdviseFormat::Json => None,
    }
}

fn a_proof_is_no_file_of_settings(args: &AdviseArgs) -> Result<(), Refusal> {
    if let Some(format) = file_of_settings(args).filter(|_| args.prove) {
        return Err(Refusal::new(
            format!("--format {format} prints a file of settings, and --prove no setting"),
            format!("first twcheck advise --prove, then twcheck advise --format {format}"),
        ));
    }
    Ok(())
}

fn a_file_of_settings_is_for_one_namespace(args: &AdviseArgs) -> Result<(), Refusal> {
    if let Some(format) = file_of_settings(args).filter(|_| args.source.all_netns) {
        return Err(Refusal::new(
            format!(
                "--format {format} prints a file of settings, and each network namespace has its own"
            ),
            format!("name one: twcheck advise --format {format} --pid PID"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused};

    #[test]
    fn busy_is_about_a_rate() {
        for line in [
            "advise --busy 20ms",
            "advise --target-connections 9 --busy 20ms",
            "advise 10.0.0.5:3306 --busy 20ms --json",
        ] {
            assert_refused(
                line,
                "--busy says more about the rate of --target-rate, and there is none",
                "twcheck advise --target-rate 2000 --busy 20ms",
            );
        }
        for line in [
            "advise --target-rate 2000",
            "advise --target-rate 2000 --busy 20ms",
            "advise --target-rate 2000 --target-connections 9 --busy 1.5s",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn a_proof_is_no_file_of_settings() {
        assert_refused(
            "advise --prove --format sysctl",
            "--format sysctl prints a file of settings, and --prove no setting",
            "first twcheck advise --prove, then twcheck advise --format sysctl",
        );
        assert_refused(
            "advise --prove --format kubernetes",
            "--format kubernetes prints a file of settings, and --prove no setting",
            "first twcheck advise --prove, then twcheck advise --format kubernetes",
        );
        for line in [
            "advise --prove",
            "advise --format sysctl",
            "advise --prove --format plain",
            "advise --prove --json",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn a_recording_answers_no_netlink() {
        assert_refused(
            "advise --proc-root copy --source sock_diag",
            "--source sock_diag asks the running kernel, --proc-root a recorded one",
            "leave one of the two out",
        );
    }
}
