//! Every flag of every subcommand.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::judge::goal::Goal;
use crate::judge::verdict::Thresholds;
use crate::model::Destination;
use crate::refusal::Refusal;
use crate::repro::{Close, Protocol, Setting};
use crate::secret::Secret;
use crate::system::{LONGEST_SAMPLE, Machine, SourceChoice};

/// Can this machine still open connections to that server, and if not, why, and what fixes it?
///
/// For "Can't connect to MySQL server on '…' (99)", "Cannot assign requested address", and too many
/// TIME_WAIT.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Start with `twcheck verdict`. None of the commands needs root or changes anything."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, in the order of an incident.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether ports run out, toward which destination, and what to do
    Verdict(VerdictArgs),
    /// Count TCP sockets by state
    States(StatesArgs),
    /// Recommend sysctl changes, and what not to change, with the rate each one buys
    Advise(AdviseArgs),
    /// Connect and close until errno 99, in a private namespace or against a server of yours
    Repro(Box<ReproArgs>),
}

/// Where the socket table is read.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Where to read the socket table
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    source: SourceChoice,
    /// Read a recorded copy of /proc instead of this machine
    #[arg(long, value_name = "DIR")]
    proc_root: Option<PathBuf>,
}

impl SourceArgs {
    /// The machine to look at.
    ///
    /// # Errors
    /// When the options exclude each other.
    pub fn machine(&self) -> Result<Machine> {
        match &self.proc_root {
            Some(root) => Machine::recorded(root, self.source),
            None => Ok(Machine::live(self.source)),
        }
    }
}

/// The output format.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArgs {
    /// The format asked for.
    #[must_use]
    pub fn get(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// The formats every subcommand has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
}

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
    #[arg(value_name = "HOST:PORT", value_parser = destination())]
    pub destination: Option<Destination>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs,
    /// Count by state only, or list the flows that have most sockets too
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub by: By,
    /// How many flows to list, 0 for all
    #[arg(long, default_value_t = 10, value_name = "N")]
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

/// `twcheck verdict`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN or misused, as monitoring
plugins have it.

Examples:
  twcheck verdict                      this machine, or this container
  twcheck verdict db.example:3306      one destination; its routes are checked too
  twcheck verdict [::1]:3306 --connect  and one connect() is made
  twcheck verdict --warn 60 --crit 90  warn later
  sudo twcheck verdict --sample 2s     who makes all these connections?
  twcheck verdict --json | jq .summary")]
pub struct VerdictArgs {
    /// Only toward this destination, and whether it can be reached: 10.0.0.5:3306, :3306, a name
    #[arg(value_name = "HOST:PORT", value_parser = destination())]
    pub destination: Option<Destination>,
    /// Connect to it once, which takes 2 s at most, and say what comes of it; a MySQL server counts
    /// that as an aborted connection
    #[arg(long, conflicts_with = "proc_root")]
    pub connect: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs,
    /// A flow is WARNING from this share of its usable ports on
    #[arg(long, default_value = "50", value_name = "PERCENT")]
    warn: Percent,
    /// A flow is CRITICAL from this share of its usable ports on
    #[arg(long, default_value = "80", value_name = "PERCENT")]
    crit: Percent,
    /// How many flows to list, worst first, 0 for all
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub top: usize,
    /// Find the processes behind every flow listed, not only behind those in trouble
    #[arg(long)]
    pub owners: bool,
    /// Look for them again and again for this time, to catch connections that live microseconds
    #[arg(long, value_parser = sample, value_name = "D")]
    pub sample: Option<Duration>,
}

impl VerdictArgs {
    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<()> {
        let named = |there: &Destination| there.host.is_some() && there.port.is_some();
        if self.connect && !self.destination.as_ref().is_some_and(named) {
            return Err(Refusal::new(
                "--connect needs to know where to: a host and a port",
                "twcheck verdict --connect 10.0.0.5:3306",
            )
            .into());
        }
        Ok(())
    }

    /// The thresholds asked for.
    ///
    /// # Errors
    /// When they are in the wrong order.
    pub fn thresholds(&self) -> Result<Thresholds> {
        let (Percent(warn), Percent(crit)) = (self.warn, self.crit);
        if warn > crit {
            return Err(Refusal::new(
                format!("--warn {warn} is above --crit {crit}: nothing would ever be WARNING"),
                format!("--warn {crit} --crit {warn}"),
            )
            .into());
        }
        Ok(Thresholds { warn, crit })
    }
}

/// A share of the usable ports.
#[derive(Debug, Clone, Copy)]
struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim_end_matches('%').trim().parse() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(Self(share)),
            _ => Err("it is a percentage of the usable ports, 0 to 100: for example 80".into()),
        }
    }
}

/// A time for `--sample`.
fn sample(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST_SAMPLE {
        return Err(format!(
            "a processor is busy all the while, so it is {} at most: for example 5s",
            humantime::format_duration(LONGEST_SAMPLE)
        ));
    }
    Ok(time)
}

/// `twcheck advise`.
#[derive(Debug, Args)]
#[command(after_help = "\
It never writes anything itself. To apply what it says:
  twcheck advise --format sysctl | sudo tee /etc/sysctl.d/90-ports.conf
  sudo sysctl -p /etc/sysctl.d/90-ports.conf

In a container these settings belong to the container: the host's change
nothing in it.

Examples:
  twcheck advise --prove                         half a minute of experiments
  twcheck advise --target-rate 2000 --busy 20ms  what does it take?
  twcheck advise --target-rate 2000 10.0.0.5:3306
  twcheck advise --target-connections 40000      websockets, MQTT, a proxy")]
pub struct AdviseArgs {
    /// Only about this destination, as 10.0.0.5:3306, :3306 or a name; loopback has rules of its own
    #[arg(value_name = "HOST:PORT", value_parser = destination())]
    destination: Option<Destination>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: AdviseFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Try every change in a private namespace, scaled down, and compare with what was said
    #[arg(long, conflicts_with = "proc_root")]
    pub prove: bool,
    /// Say what it takes to carry this many connections/s to one destination
    #[arg(long, value_parser = per_second, value_name = "R")]
    target_rate: Option<f64>,
    /// Say what it takes to keep this many connections open to one destination at once
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    target_connections: Option<u64>,
    /// The same as HOST:PORT
    #[arg(long, value_parser = destination(), value_name = "HOST:PORT", conflicts_with = "destination")]
    flow: Option<Destination>,
    /// With --target-rate: how long a request uses its connection, to size a pool by
    #[arg(long, value_parser = some_time, value_name = "D")]
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
    pub fn check(&self) -> Result<()> {
        if self.target_rate.is_none() && self.busy.is_some() {
            return Err(Refusal::new(
                "--busy says more about the rate of --target-rate, and there is none",
                "twcheck advise --target-rate 2000 --busy 20ms",
            )
            .into());
        }
        if self.prove && self.format() == AdviseFormat::Sysctl {
            return Err(Refusal::new(
                "--format sysctl prints a file of settings, and --prove no setting",
                "first twcheck advise --prove, then twcheck advise --format sysctl",
            )
            .into());
        }
        Ok(())
    }

    /// The format asked for.
    #[must_use]
    pub fn format(&self) -> AdviseFormat {
        if self.json {
            AdviseFormat::Json
        } else {
            self.format
        }
    }
}

/// The formats of `advise`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AdviseFormat {
    /// For people
    #[default]
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
    /// A file for /etc/sysctl.d
    Sysctl,
}

/// `twcheck repro`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a server it brings its own, in a network namespace of its own with this
machine's settings: it needs no MySQL, no root, and touches nothing. Against a
server of yours it takes this machine's ports toward that server; they come
back 60 s after the run.

Exit status: 0 finished without exhaustion, 2 exhaustion met, 3 could not,
130 after Ctrl-C and 143 after SIGTERM, with the report so far.

Examples:
  twcheck repro                                would such a client survive here?
  twcheck repro --set net.ipv4.tcp_tw_reuse=1  and with this one changed?
  twcheck repro --pool 8                       the same work through a pool
  twcheck repro --rate 400 --duration 90s      does this rate last?
  twcheck repro --source 192.0.2.2,192.0.2.3   and from two addresses?
  twcheck repro --host db.example --user app --ask-password
  MYSQL_PWD=… twcheck repro mysql://app@db.example:3306/shop
  twcheck repro --protocol tcp --host cache.example --port 6379")]
pub struct ReproArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs,
    /// The server, as mysql://USER@HOST:PORT/DATABASE; the password is best left to the environment
    #[arg(value_name = "URL", conflicts_with_all = ["host", "port", "user", "database"], help_heading = SERVER)]
    pub url: Option<Secret>,
    /// The server's name or address; always reached by TCP, also localhost
    #[arg(long, help_heading = SERVER)]
    pub host: Option<String>,
    /// Its port [default: 3306]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), help_heading = SERVER)]
    pub port: Option<u16>,
    /// The user to log in as [default: your login name]
    #[arg(long, help_heading = SERVER)]
    pub user: Option<String>,
    /// The database to open
    #[arg(long, help_heading = SERVER)]
    pub database: Option<String>,
    /// A file whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "ask_password", help_heading = SERVER)]
    pub password_file: Option<PathBuf>,
    /// Ask for the password; it can also be in an option file, or in MYSQL_PWD
    #[arg(long, help_heading = SERVER)]
    pub ask_password: bool,
    /// Read [client] of this MySQL option file instead of ~/.my.cnf
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub defaults_file: Option<PathBuf>,
    /// Insist on TLS, and on a certificate that browsers trust
    #[arg(long, help_heading = SERVER)]
    pub tls: bool,
    /// Insist on TLS, and on a certificate signed by the one in this PEM file
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub tls_ca: Option<PathBuf>,
    /// What to speak with the server
    #[arg(long, value_enum, default_value_t, value_name = "PROTOCOL", help_heading = SERVER)]
    pub protocol: Protocol,
    /// Let --protocol tcp loose on a MySQL server, which may then block this host
    #[arg(long, help_heading = SERVER)]
    pub force: bool,
    /// Change a sysctl in the private namespace, as net.ipv4.KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Stop after this many connections
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub connections: Option<u64>,
    /// Stop after this time [default: 2min, with --pool 10s]
    #[arg(long, value_parser = some_time, value_name = "D")]
    duration: Option<Duration>,
    /// Keep this pace, in connections per second, instead of as fast as possible
    #[arg(long, value_parser = per_second, value_name = "R")]
    pub rate: Option<f64>,
    /// Let this many threads connect
    #[arg(long, default_value_t = 1, value_parser = few, value_name = "N")]
    pub threads: usize,
    /// Take connections from a pool of this size instead of opening one each time
    #[arg(long, value_parser = few, value_name = "N")]
    pub pool: Option<usize>,
    /// How to leave a MySQL server; either way the client closes first
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub close: Close,
    /// Connect from these addresses in turn; in the private namespace any will do
    #[arg(long, value_delimiter = ',', value_parser = source, value_name = "ADDR,…")]
    pub source: Vec<IpAddr>,
    /// Draw latency and ports in use over time into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

const SERVER: &str = "A server of yours";

impl ReproArgs {
    /// Whether to connect to a server of the user's.
    #[must_use]
    pub fn names_a_server(&self) -> bool {
        self.url.is_some() || self.host.is_some() || self.defaults_file.is_some()
    }

    /// How long a run may take.
    #[must_use]
    pub fn duration(&self) -> Duration {
        /// Enough for 28,232 ports, which take most of a minute.
        const UNTIL_EXHAUSTED: Duration = Duration::from_secs(120);
        /// A pool never comes to an end.
        const OF_A_POOL: Duration = Duration::from_secs(10);
        self.duration.unwrap_or(if self.pool.is_some() {
            OF_A_POOL
        } else {
            UNTIL_EXHAUSTED
        })
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String, hint: &str| Err(Refusal::new(message, hint).into());
        let about_a_server = [
            ("--port", self.port.is_some()),
            ("--user", self.user.is_some()),
            ("--database", self.database.is_some()),
            ("--password-file", self.password_file.is_some()),
            ("--ask-password", self.ask_password),
            ("--tls", self.tls),
            ("--tls-ca", self.tls_ca.is_some()),
            ("--force", self.force),
        ];
        if let (Some((option, _)), false) = (
            about_a_server.iter().find(|(_, given)| *given),
            self.names_a_server(),
        ) {
            return refuse(
                format!("{option} is about a server of yours, and none is named"),
                "add --host HOST; the embedded server needs no such option",
            );
        }
        if self.names_a_server() && !self.set.is_empty() {
            return refuse(
                "--set changes the private namespace, and a server of yours is reached without one"
                    .into(),
                "leave the server out, or --set; `twcheck advise` says what to change here",
            );
        }
        let about_mysql = [
            ("--pool", self.pool.is_some(), "has no pool"),
            ("--tls", self.tls, "speaks no TLS"),
            ("--tls-ca", self.tls_ca.is_some(), "speaks no TLS"),
            (
                "--close",
                self.close != Close::default(),
                "never says COM_QUIT",
            ),
            ("--user", self.user.is_some(), "does not log in"),
            ("--database", self.database.is_some(), "does not log in"),
            (
                "--password-file",
                self.password_file.is_some(),
                "does not log in",
            ),
            ("--ask-password", self.ask_password, "does not log in"),
            (
                "a mysql:// URL",
                self.url.is_some(),
                "takes --host and --port",
            ),
        ];
        if let (Some((option, _, why)), Protocol::Tcp) = (
            about_mysql.iter().find(|(_, given, _)| *given),
            self.protocol,
        ) {
            return refuse(
                format!("--protocol tcp only connects: it {why}"),
                &format!("leave out {option}, or --protocol tcp"),
            );
        }
        if self.force && self.protocol == Protocol::Mysql {
            return refuse(
                "--force is for --protocol tcp; a loop that logs in does a MySQL server no harm"
                    .into(),
                "leave out --force",
            );
        }
        let loopback = self.source.iter().filter(|source| source.is_loopback());
        if !(loopback.clone().count() == 0 || loopback.count() == self.source.len()) {
            return refuse(
                "--source mixes loopback with other addresses: TIME_WAIT reuse differs between them"
                    .into(),
                "name addresses of one kind",
            );
        }
        if self.pool.is_some() && !self.source.is_empty() {
            return refuse(
                "--source takes turns between addresses, and a pool opens its connections once"
                    .into(),
                "leave out --pool or --source",
            );
        }
        if self.pool.is_some() && self.close != Close::default() {
            return refuse(
                "--close is about each turn of the loop, and a pool keeps its connections".into(),
                "leave out --pool or --close",
            );
        }
        for (index, source) in self.source.iter().enumerate() {
            if self.source[..index].contains(source) {
                return refuse(
                    format!("--source names {source} twice, and it has one set of ports"),
                    "name each address once",
                );
            }
        }
        Ok(())
    }
}

/// A pace for `--rate`.
fn per_second(text: &str) -> Result<f64, String> {
    const FASTEST: f64 = 1e6;
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= FASTEST => Ok(rate),
        _ => {
            Err("it is connections per second, above 0 and at most 1000000: for example 400".into())
        }
    }
}

/// A destination, whatever bytes are typed for it.
fn destination() -> impl TypedValueParser<Value = Destination> {
    OsStringValueParser::new().try_map(|typed| match typed.to_str() {
        Some(text) => Destination::parse(text),
        None => Err("it is not UTF-8: type a host and a port, as db.example:3306".into()),
    })
}

/// A time that is more than nothing.
fn some_time(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let example = "for example 20ms, 90s or 2min";
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        Ok(_) => Err(format!(
            "it is more than nothing and at most a day: {example}"
        )),
        Err(_) => Err(format!("it is a number and a unit: {example}")),
    }
}

/// An address that connections can come from.
fn source(text: &str) -> Result<IpAddr, String> {
    let example = "for example 192.0.2.2,192.0.2.3";
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("it is a list of IP addresses: {example}"))?;
    let nobody = address.is_unspecified()
        || address.is_multicast()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if nobody {
        return Err(format!(
            "no connection comes from such an address: {example}"
        ));
    }
    Ok(address.to_canonical())
}

/// A number of threads or pooled connections.
fn few(text: &str) -> Result<usize, String> {
    const MOST: usize = 1000;
    match text.parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("it is a number from 1 to {MOST}: for example 8")),
    }
}
