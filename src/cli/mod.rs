//! Every flag of every subcommand, and what goes together: a file per subcommand, each of its rules
//! a function.

mod advise;
mod explain;
mod mysqls;
mod record;
mod repro;
mod states;
mod values;
mod verdict;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use advise::AdviseArgs;
pub use explain::ExplainArgs;
use mysqls::MysqlsOptions;
pub use record::RecordArgs;
pub use repro::ReproArgs;
pub use states::{By, StatesArgs};
pub use verdict::VerdictArgs;
pub use watch::WatchArgs;

use crate::refusal::Refusal;
use crate::render::Format;
use crate::system::{Machine, Recorded, SourceChoice, Wanted, open_recording};

/// Can this machine still open connections to that server, and if not, why, and what fixes it?
///
/// For "Can't connect to MySQL server on '…' (99)", "Can't connect to server on '…' (99)", "Cannot
/// assign requested address", and too many TIME_WAIT.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Start with `twcheck verdict`, or `twcheck explain` the error. None of the commands needs root or changes anything."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Reads the command line; help is for a screen of `width` columns, and no wider than is legible.
///
/// # Errors
/// When it is wrong, or asks for help or the version.
pub fn read(width: Option<u16>) -> Result<Cli, clap::Error> {
    const LEGIBLE: u16 = 100;
    let width = width.unwrap_or(LEGIBLE).min(LEGIBLE);
    let matches = Cli::command().term_width(width.into()).try_get_matches()?;
    Cli::from_arg_matches(&matches)
}

/// What to type instead, where `arguments` ask for the help of `repro` by an -h that is meant for
/// the host, as mysql has it; `None` where help is meant.
#[must_use]
pub fn host_behind_h(arguments: impl IntoIterator<Item = OsString>) -> Option<Refusal> {
    let mut arguments = arguments
        .into_iter()
        .skip_while(|argument| argument != "repro");
    let attached = |argument: &OsString| {
        let host = argument
            .to_str()?
            .strip_prefix("-h")?
            .trim_start_matches('=');
        Some(host.to_owned())
    };
    let mut host = arguments.find_map(|argument| attached(&argument))?;
    if host.is_empty() {
        host = arguments.next()?.into_string().ok()?;
    }
    let is_word = !host.is_empty() && !host.starts_with('-');
    is_word.then(|| {
        // It may hold a password.
        let shown = if host.contains(['@', '/']) {
            "HOST"
        } else {
            &host
        };
        Refusal::new(
            "-h is short for --help here; the server has --host",
            format!("--host {shown}"),
        )
    })
}

/// The subcommands, in the order of an incident.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether ports run out, toward which destination, and what to do
    Verdict(VerdictArgs),
    /// The same live, with what changes from look to look
    Watch(WatchArgs),
    /// Count TCP sockets by state
    States(StatesArgs),
    /// Recommend sysctl changes, and what not to change, with the rate each one buys
    Advise(AdviseArgs),
    /// Record this machine, to be judged elsewhere or later
    Record(RecordArgs),
    /// Connect and close until errno 99, in a private namespace or against a server of yours
    Repro(Box<ReproArgs>),
    /// Say what an error message or a log means, how often, when and toward whom
    Explain(ExplainArgs),
}

/// In which network namespace of this machine to look, and how the socket table is read there.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Where to read the socket table
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub source: SourceChoice,
    /// Look into the network namespace of this process, as of a container
    #[arg(
        long,
        value_name = "PID",
        value_parser = values::pid(),
        allow_hyphen_values = true,
        conflicts_with = "netns"
    )]
    pid: Option<i32>,
    /// Look into this network namespace: a name of `ip netns`, a number of `lsns`, or a path
    #[arg(long, value_name = "NAME", value_parser = values::netns())]
    netns: Option<PathBuf>,
}

impl PlaceArgs {
    /// The other network namespace that is asked for, if one is.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let of_process = self.pid.map(Wanted::OfProcess);
        of_process.or_else(|| self.netns.clone().map(Wanted::Named))
    }
}

/// Where to look: here, or at a recorded machine.
#[derive(Debug, Args)]
pub struct SourceArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// Look into every network namespace of this machine, the worst first
    #[arg(long, conflicts_with_all = ["pid", "netns", "from", "proc_root"])]
    pub all_netns: bool,
    /// Read a recording instead of this machine: of `twcheck record`, a copy of /proc, a sosreport's
    /// folder, or what ss -tanoe or netstat -anto printed
    #[arg(
        long,
        value_parser = values::path(),
        value_name = "DIR|FILE",
        conflicts_with_all = ["pid", "netns", "proc_root"]
    )]
    from: Option<PathBuf>,
    /// Read a recorded copy of /proc instead of this machine
    #[arg(
        long,
        value_parser = values::path(),
        value_name = "DIR",
        conflicts_with_all = ["pid", "netns"]
    )]
    proc_root: Option<PathBuf>,
}

impl SourceArgs {
    /// The recorded machine that is asked for, if one is.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn recording(&self) -> Result<Option<Recorded>> {
        if let Some(from) = &self.from {
            let recorded = open_recording(from)?;
            return Ok(Some(Recorded {
                machine: recorded.machine.through(self.place.source),
                ..recorded
            }));
        }
        Ok(self.proc_root.as_deref().map(|root| Recorded {
            machine: Machine::recorded(root),
            namespace: None,
            taken: None,
            is_scrubbed: false,
        }))
    }

    /// The option that names a recorded machine, where one is named.
    fn recorded(&self) -> Option<(&'static str, &Path)> {
        let from = self.from.as_deref().map(|path| ("--from", path));
        from.or_else(|| Some(("--proc-root", self.proc_root.as_deref()?)))
    }

    fn check(&self) -> Result<(), Refusal> {
        a_recording_answers_no_netlink(self)?;
        a_process_is_no_recording(self)
    }
}

fn a_recording_answers_no_netlink(args: &SourceArgs) -> Result<(), Refusal> {
    if let Some((option, _)) = args.recorded()
        && args.place.source == SourceChoice::SockDiag
    {
        return Err(Refusal::new(
            format!("--source sock_diag asks the running kernel, {option} a recorded one"),
            "leave one of the two out",
        ));
    }
    Ok(())
}

/// The folder of a process has its tables and no settings: what they mean would be unknown.
fn a_process_is_no_recording(args: &SourceArgs) -> Result<(), Refusal> {
    let Some((option, path)) = args.recorded() else {
        return Ok(());
    };
    let Some(process) = process_of(path) else {
        return Ok(());
    };
    let message = format!(
        "{option} reads a recorded copy of /proc, and /proc/{process} is a running process, whose \
         folder has no settings"
    );
    Err(match process.parse::<i32>() {
        Ok(pid) => Refusal::new(message, format!("--pid {pid}")),
        Err(_) => Refusal::new(
            message,
            format!("leave {option} out: this process is the default"),
        ),
    })
}

/// `4711` of `/proc/4711/…`.
fn process_of(path: &Path) -> Option<&str> {
    let process = path.strip_prefix("/proc").ok()?.iter().next()?.to_str()?;
    let is_one = process.parse::<i32>().is_ok() || ["self", "thread-self"].contains(&process);
    is_one.then_some(process)
}

/// The output format.
#[derive(Debug, Args)]
pub struct FormatArgs<F: Format> {
    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: F,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl<F: Format> FormatArgs<F> {
    /// The format asked for.
    #[must_use]
    pub fn get(&self) -> F {
        if self.json { F::JSON } else { self.format }
    }
}

/// What is wrong with the arguments, where clap's own words would show a secret: it quotes them, and
/// a login or a URL may hold a password.
#[must_use]
pub fn without_secrets(error: &clap::Error) -> Option<String> {
    let is_secret = |text: &&String| {
        let text = text.to_ascii_lowercase();
        text.contains('@') || text.contains("password=") || text.starts_with("mysql:")
    };
    let quoted = |of: fn(ContextKind) -> bool| {
        error
            .context()
            .filter_map(move |(kind, value)| match value {
                ContextValue::String(text) if of(kind) => Some(text),
                _ => None,
            })
    };
    // What stands behind an option about passwords is one.
    let is_behind =
        quoted(|kind| kind == ContextKind::InvalidArg).any(|option| option.contains("password"));
    let behind = quoted(|kind| kind == ContextKind::InvalidValue).filter(|_| is_behind);
    let secrets: Vec<_> = quoted(|_| true).filter(is_secret).chain(behind).collect();
    if secrets.is_empty() {
        return None;
    }
    let text = error.to_string();
    Some(
        secrets
            .iter()
            .fold(text, |text, secret| text.replace(secret.as_str(), "…")),
    )
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use clap::Parser;

    use super::*;
    use crate::render::{AdviseFormat, ReproFormat, StatesFormat, VerdictFormat};

    /// What `check` says of a command line without blanks in its arguments.
    fn check(line: &str) -> Result<(), Refusal> {
        let arguments = ["twcheck"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}"));
        match cli.command {
            Command::Verdict(args) => args.check(),
            Command::States(args) => args.check(),
            Command::Advise(args) => args.check(),
            // Whatever goes together, clap says.
            Command::Record(_) | Command::Watch(_) => Ok(()),
            Command::Repro(args) => args.check(),
            Command::Explain(args) => args.check(),
        }
    }

    pub fn assert_refused(line: &str, message: &str, hint: &str) {
        assert_eq!(check(line), Err(Refusal::new(message, hint)), "{line}");
    }

    pub fn assert_fine(line: &str) {
        assert_eq!(check(line), Ok(()), "{line}");
    }

    /// Why clap does not take these arguments.
    pub fn usage<A: Into<OsString> + Clone>(arguments: &[A]) -> clap::Error {
        let arguments = arguments.iter().cloned().map(Into::into);
        let line = std::iter::once(OsString::from("twcheck")).chain(arguments);
        Cli::try_parse_from(line).expect_err("it is refused")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_h_with_a_word_behind_it_is_meant_for_the_host() {
        for (line, hint) in [
            ("repro -h db.example", Some("--host db.example")),
            ("repro -u app -h db.example -p", Some("--host db.example")),
            ("repro -hdb.example", Some("--host db.example")),
            ("repro -h=db.example", Some("--host db.example")),
            ("repro -h u:hunter2@h", Some("--host HOST")),
            ("repro -h", None),
            ("repro db.example -h", None),
            ("repro -h --user app", None),
            ("repro --help db.example", None),
            ("verdict -h db.example", None),
        ] {
            let refusal = host_behind_h(line.split(' ').map(OsString::from));
            assert_eq!(refusal.as_ref().map(Refusal::hint), hint, "{line}");
        }
    }

    #[test]
    fn json_is_short_for_its_format() {
        fn format<F: Format>(line: &str) -> F {
            #[derive(Parser)]
            struct Line<F: Format> {
                #[command(flatten)]
                format: FormatArgs<F>,
            }
            Line::<F>::parse_from(line.split_whitespace()).format.get()
        }
        assert_eq!(format::<VerdictFormat>("verdict"), VerdictFormat::Table);
        assert_eq!(
            format::<VerdictFormat>("verdict --json"),
            VerdictFormat::Json
        );
        assert_eq!(
            format::<StatesFormat>("states --format plain"),
            StatesFormat::Plain
        );
        assert_eq!(format::<StatesFormat>("states --json"), StatesFormat::Json);
        assert_eq!(
            format::<AdviseFormat>("advise --format sysctl"),
            AdviseFormat::Sysctl
        );
        assert_eq!(format::<AdviseFormat>("advise --json"), AdviseFormat::Json);
        assert_eq!(format::<ReproFormat>("repro"), ReproFormat::Table);
        assert_eq!(format::<ReproFormat>("repro --json"), ReproFormat::Json);
    }

    #[test]
    fn each_command_has_its_own_formats() {
        for (line, formats) in [
            (
                "verdict",
                "table, plain, json, prometheus, nagios, markdown",
            ),
            ("states", "table, plain, json"),
            ("advise", "table, plain, json, sysctl, kubernetes"),
            ("repro", "table, plain, json"),
            ("explain", "table, plain, json, markdown"),
        ] {
            assert_eq!(
                usage(&[line, "--format", "xml"]).to_string(),
                format!(
                    "error: invalid value 'xml' for '--format <FORMAT>'\n  \
                     [possible values: {formats}]\n\n\
                     For more information, try '--help'.\n"
                )
            );
        }
    }

    /// Nobody who looks at the screen, or at a log, reads the password.
    #[test]
    fn what_looks_like_a_login_is_not_quoted() {
        let one_kind = "it is an IP address, or several with commas between them: for example \
                        192.0.2.2,192.0.2.3";
        let alone = "it is no URL, path or network: a host and a port alone, as db.example:3306";
        for (arguments, said) in [
            (
                &[&b"states"[..], b"mysql://u:hunter2@h"][..],
                &*format!("invalid value '…' for '[HOST:PORT]': {alone}"),
            ),
            (
                &[b"states", b"mysql://u:hunter2"],
                &format!("invalid value '…' for '[HOST:PORT]': {alone}"),
            ),
            (
                &[b"advise", b"--flow=mysql://u:hunter2@h"],
                &format!("invalid value '…' for '--flow <HOST:PORT>': {alone}"),
            ),
            (
                &[b"repro", b"--bind-address=192.0.2.2,u:hunter2@h"],
                &format!("invalid value '…' for '--bind-address <ADDR,…>': {one_kind}"),
            ),
            (
                &[b"repro", b"--port=u:hunter2@h"],
                "invalid value '…' for '--port <PORT>': it is a TCP port, a whole number from 1 \
                 to 65535: for example 3306",
            ),
            (
                &[b"repro", b"mysql://u:hunter2@h/\xff"],
                "invalid value '…' for '[SERVER]': it is not UTF-8",
            ),
            (
                &[b"repro", b"mysql://u:hunter2\xff"],
                "invalid value '…' for '[SERVER]': it is not UTF-8",
            ),
            (
                &[b"repro", b"--host", b"u:hunter2@\xff"],
                "invalid value '…' for '--host <HOST>': it is not UTF-8",
            ),
            (&[b"u:hunter2@h"], "unrecognized subcommand '…'"),
            (
                &[b"repro", b"mysql://u@h", b"u:hunter2@h"],
                "unexpected argument '…' found",
            ),
            (
                &[b"states", b"--u:hunter2@h"],
                "unexpected argument '…' found",
            ),
            (
                &[b"verdict", b"--password=hunter2"],
                "unexpected argument '--password' found",
            ),
            (
                &[b"repro", b"--ask-password=hunter2"],
                "unexpected value '…' for '--ask-password' found; no more were expected",
            ),
            (
                &[b"verdict", b"-phunter2"],
                "unexpected argument '-p' found",
            ),
        ] {
            let arguments: Vec<_> = arguments.iter().copied().map(OsStr::from_bytes).collect();
            let error = usage(&arguments);
            let shown = without_secrets(&error).unwrap_or_else(|| error.to_string());
            let (first, rest) = shown.split_once('\n').unwrap();
            assert_eq!(first, format!("error: {said}"));
            assert!(!rest.contains("hunter2"), "{rest}");
        }
    }

    #[test]
    fn what_is_no_secret_is_in_words_of_clap() {
        for line in ["verdict --warm", "states a:b:c", "repro --port 0"] {
            let arguments: Vec<_> = line.split_whitespace().collect();
            assert_eq!(without_secrets(&usage(&arguments)), None, "{line}");
        }
    }
}
