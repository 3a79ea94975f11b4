//! `twcheck verdict`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{FormatArgs, SourceArgs, values};
use crate::judge::level::Thresholds;
use crate::model::Destination;
use crate::refusal::Refusal;
use crate::render::VerdictFormat;

/// `twcheck verdict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN or misused, as monitoring \
plugins have it; with --every that of the last look, also where Ctrl-C ends it.

Examples:
  twcheck verdict                      this machine, or this container
  twcheck verdict db.example:3306      one destination; its routes are checked too
  twcheck verdict [::1]:3306 --connect  and one connect() is made
  twcheck verdict --warn 60 --crit 90  warn later
  sudo twcheck verdict --sample 2s     who makes all these connections?
  twcheck verdict --every 2s | tee log  a line whenever something changes
  sudo twcheck verdict --nat           do the ports run out that it translates to?
  twcheck verdict --json | jq .summary")]
pub struct VerdictArgs {
    /// Only toward this destination, and whether it can be reached: 10.0.0.5:3306, :3306, a name
    #[arg(
        value_name = "HOST:PORT",
        value_parser = values::destination(),
        allow_negative_numbers = true
    )]
    pub destination: Option<Destination>,
    /// Connect to it once, which takes 2 s at most, and say what comes of it; a MySQL server counts
    /// that as an aborted connection
    #[arg(long, conflicts_with_all = ["proc_root", "from", "all_netns"])]
    pub connect: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs<VerdictFormat>,
    /// Write the report to this file, which is replaced as a whole: for a timer and node_exporter. A
    /// new one everybody may read (0644); one that is there keeps its owner and mode, and a link stays
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A flow is WARNING from this share of its usable ports on
    #[arg(
        long,
        default_value = "50",
        value_parser = values::percent(),
        value_name = "PERCENT",
        allow_hyphen_values = true
    )]
    warn: f64,
    /// A flow is CRITICAL from this share of its usable ports on
    #[arg(
        long,
        default_value = "80",
        value_parser = values::percent(),
        value_name = "PERCENT",
        allow_hyphen_values = true
    )]
    crit: f64,
    /// How many flows to list, worst first, 0 for all
    #[arg(
        long,
        default_value = "10",
        value_parser = values::top(),
        value_name = "N",
        allow_hyphen_values = true
    )]
    pub top: usize,
    /// Judge the connections too that this machine translates for others (NAT, masquerade); needs
    /// CAP_NET_ADMIN
    #[arg(long)]
    pub nat: bool,
    /// Find the processes behind every flow listed, not only behind those in trouble
    #[arg(long)]
    pub owners: bool,
    /// Look for them again and again for this time, to catch connections that live microseconds
    #[arg(
        long,
        value_parser = values::sample(),
        value_name = "D",
        allow_hyphen_values = true,
        conflicts_with = "all_netns"
    )]
    pub sample: Option<Duration>,
    /// Look again and again, and print a line at once and whenever something changes: what gets worse
    /// at once, what gets better when it has lasted for 10 s
    #[arg(
        long,
        value_parser = values::every(),
        value_name = "D",
        allow_hyphen_values = true,
        conflicts_with_all = ["all_netns", "from", "proc_root", "connect", "output"]
    )]
    pub every: Option<Duration>,
    /// End that after this time, with one more look
    #[arg(
        long,
        value_parser = values::time(),
        value_name = "D",
        allow_hyphen_values = true,
        requires = "every"
    )]
    pub until: Option<Duration>,
}

impl VerdictArgs {
    /// The thresholds asked for.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            warn: self.warn,
            crit: self.crit,
        }
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        self.source.check()?;
        a_warning_comes_before_critical(self)?;
        a_connection_goes_to_a_host_and_a_port(self)?;
        lines_have_no_format(self)?;
        metrics_are_in_their_format(self)
    }
}

fn a_warning_comes_before_critical(args: &VerdictArgs) -> Result<(), Refusal> {
    let (warn, crit) = (args.warn, args.crit);
    if warn > crit {
        return Err(Refusal::new(
            format!("--warn {warn} is above --crit {crit}: nothing would ever be WARNING"),
            format!("--warn {crit} --crit {warn}"),
        ));
    }
    Ok(())
}

fn a_connection_goes_to_a_host_and_a_port(args: &VerdictArgs) -> Result<(), Refusal> {
    let is_one = |there: &Destination| there.host.is_some() && there.port.is_some();
    if args.connect && !args.destination.as_ref().is_some_and(is_one) {
        return Err(Refusal::new(
            "--connect needs to know where to: a host and a port",
            "twcheck verdict --connect 10.0.0.5:3306",
        ));
    }
    Ok(())
}

fn lines_have_no_format(args: &VerdictArgs) -> Result<(), Refusal> {
    if args.every.is_some() && args.format.get() != VerdictFormat::Table {
        return Err(Refusal::new(
            "--every prints lines, which have one format: time, level and sentence",
            "leave --format and --json out; or run `twcheck verdict --json` again and again",
        ));
    }
    Ok(())
}

/// node_exporter reads nothing else in a file of that name, and drops it with an error that nobody
/// sees.
fn metrics_are_in_their_format(args: &VerdictArgs) -> Result<(), Refusal> {
    let is_for_exporter = |path: &PathBuf| path.extension().is_some_and(|it| it == "prom");
    let output = args.output.as_ref().filter(|path| is_for_exporter(path));
    match output {
        Some(path) if args.format.get() != VerdictFormat::Prometheus => Err(Refusal::new(
            format!(
                "--output {}: node_exporter reads *.prom, and metrics alone",
                path.display()
            ),
            format!("--format prometheus --output {}", path.display()),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused, usage};

    #[test]
    fn a_warning_comes_before_critical() {
        assert_refused(
            "verdict --warn 90 --crit 60",
            "--warn 90 is above --crit 60: nothing would ever be WARNING",
            "--warn 60 --crit 90",
        );
        assert_refused(
            "verdict --crit 49.5%",
            "--warn 50 is above --crit 49.5: nothing would ever be WARNING",
            "--warn 49.5 --crit 50",
        );
        for line in [
            "verdict --warn 60 --crit 60",
            "verdict --warn 0",
            "verdict --crit 100",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn a_connection_goes_to_a_host_and_a_port() {
        for line in [
            "verdict --connect",
            "verdict --connect :3306",
            "verdict --connect 10.0.0.5",
            "verdict db.example --connect",
        ] {
            assert_refused(
                line,
                "--connect needs to know where to: a host and a port",
                "twcheck verdict --connect 10.0.0.5:3306",
            );
        }
        for line in [
            "verdict --connect 10.0.0.5:3306",
            "verdict [::1]:3306 --connect",
            "verdict :3306",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn lines_have_no_format() {
        for line in [
            "verdict --every 2s --json",
            "verdict --every 2s --format nagios",
        ] {
            assert_refused(
                line,
                "--every prints lines, which have one format: time, level and sentence",
                "leave --format and --json out; or run `twcheck verdict --json` again and again",
            );
        }
        for line in [
            "verdict --every 2s",
            "verdict --every 2s --until 60s --pid 1 :3306",
            "verdict --every 2s --nat --sample 1s",
        ] {
            assert_fine(line);
        }
        for line in [
            "verdict --until 60s",
            "verdict --every 2s --all-netns",
            "verdict --every 2s --from host.tar",
            "verdict --every 2s --connect 10.0.0.5:3306",
            "verdict --every 2s --output file",
        ] {
            usage(&line.split(' ').collect::<Vec<_>>());
        }
    }

    #[test]
    fn metrics_are_in_their_format() {
        for line in [
            "verdict --output a.prom",
            "verdict --json --output a.prom",
            "verdict --format nagios --output a.prom",
        ] {
            assert_refused(
                line,
                "--output a.prom: node_exporter reads *.prom, and metrics alone",
                "--format prometheus --output a.prom",
            );
        }
        for line in [
            "verdict --format prometheus --output a.prom",
            "verdict --format prometheus --output metrics",
            "verdict --json --output a.json",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn a_recording_answers_no_netlink() {
        assert_refused(
            "verdict --proc-root copy --source sock_diag",
            "--source sock_diag asks the running kernel, --proc-root a recorded one",
            "leave one of the two out",
        );
    }
}
