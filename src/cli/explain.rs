//! `twcheck explain`

use clap::Args;

use super::{FormatArgs, SourceArgs};
use crate::refusal::Refusal;
use crate::render::ExplainFormat;

/// `twcheck explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 done, whether something was recognised or not, 3 could not or misused.

Examples:
  twcheck explain \"Can't connect to MySQL server on '10.0.0.5' (99)\"
  journalctl -u app --since -1h | twcheck explain
  twcheck explain < /var/log/nginx/error.log
  zcat app.log.*.gz | twcheck explain --json | jq '.causes[].kind'
  twcheck explain --list               what is recognised, in the words of the programs")]
pub struct ExplainArgs {
    /// The error; without it a log is read from standard input
    #[arg(value_name = "TEXT", conflicts_with = "list")]
    text: Vec<String>,
    /// List what is recognised, in the words of the programs
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs<ExplainFormat>,
}

impl ExplainArgs {
    /// The error itself; `None` where a log is to be read.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        (!self.text.is_empty()).then(|| self.text.join(" "))
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.source.all_netns {
            return Err(Refusal::new(
                "--all-netns judges every network namespace, and an error comes out of one",
                "name it: twcheck explain --pid PID",
            ));
        }
        self.source.check()
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused, usage};

    #[test]
    fn an_error_or_a_log_is_explained() {
        for line in ["explain", "explain --list", "explain --json EADDRNOTAVAIL"] {
            assert_fine(line);
        }
        assert_refused(
            "explain --all-netns EADDRNOTAVAIL",
            "--all-netns judges every network namespace, and an error comes out of one",
            "name it: twcheck explain --pid PID",
        );
        assert_refused(
            "explain --source sock_diag --proc-root copy",
            "--source sock_diag asks the running kernel, --proc-root a recorded one",
            "leave one of the two out",
        );
    }

    #[test]
    fn a_list_needs_no_error() {
        let said = usage(&["explain", "--list", "EADDRNOTAVAIL"]).to_string();
        assert!(said.contains("cannot be used with"), "{said}");
    }
}
