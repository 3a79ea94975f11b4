//! `twcheck repro`

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{FormatArgs, MysqlsOptions, values};
use crate::refusal::Refusal;
use crate::render::ReproFormat;
use crate::repro::{
    ClientReport, Close, Limits, Look, Place, Plan, Protocol, Setting, TlsMode, TlsWish, Wanted,
};
use crate::secret::Secret;

/// `twcheck repro`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a server it brings its own, in a network namespace of its own with this \
machine's settings: it needs no MySQL, no root, and touches nothing. Against a \
server of yours it takes this machine's ports toward that server; they come \
back 60 s after the run.

Exit status: 0 finished without exhaustion, 2 exhaustion met, 3 could not, \
130 after Ctrl-C and 143 after SIGTERM, with the report so far.

The error that applications print for it, errno 99, reads
  ERROR 2003 (HY000): Can't connect to MySQL server on 'HOST:PORT' (99)
  ERROR 2002 (HY000): Can't connect to server on 'HOST' (99)
  OperationalError: (2003, \"Can't connect to MySQL server on 'HOST' (99)\")
in mysql, mariadb and Python.

Examples:
  twcheck repro                                would such a client survive here?
  twcheck repro --set net.ipv4.tcp_tw_reuse=1  and with this one changed?
  twcheck repro --pool 8                       the same work through a pool
  twcheck repro --rate 400 --duration 90s      does this rate last?
  twcheck repro --bind-address 192.0.2.2,192.0.2.3  and from two addresses?
  twcheck repro db.example --user app --ask-password
  MYSQL_PWD=… twcheck repro mysql://app@db.example:3306/shop
  twcheck repro --protocol tcp --force --host cache.example --port 6379")]
pub struct ReproArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs<ReproFormat>,
    /// The server, as a name, HOST:PORT or mysql://USER@HOST:PORT/DATABASE; a password is best left
    /// to the environment
    #[arg(
        value_name = "SERVER",
        value_parser = values::url(),
        allow_negative_numbers = true,
        conflicts_with_all = ["host"],
        help_heading = SERVER
    )]
    server: Option<Secret>,
    /// The server's name or address; always reached by TCP, also localhost
    #[arg(long, value_parser = values::host(), help_heading = SERVER)]
    host: Option<String>,
    /// Its port [default: 3306]
    #[arg(
        long,
        short = 'P',
        value_parser = values::port(),
        allow_hyphen_values = true,
        help_heading = SERVER
    )]
    port: Option<u16>,
    /// The user to log in as [default: your login name]
    #[arg(long, short = 'u', value_parser = values::name(), help_heading = SERVER)]
    user: Option<String>,
    /// The database to open
    #[arg(long, short = 'D', value_parser = values::name(), help_heading = SERVER)]
    database: Option<String>,
    /// A file whose first line is the password
    #[arg(
        long,
        value_parser = values::path(),
        value_name = "FILE",
        conflicts_with = "ask_password",
        help_heading = SERVER
    )]
    password_file: Option<PathBuf>,
    /// Ask for the password, as -p does; it can also be in an option file, or in MYSQL_PWD
    #[arg(long, help_heading = SERVER)]
    ask_password: bool,
    /// What mysql's users type for --ask-password, or with a password behind it
    #[arg(
        long,
        short = 'p',
        hide = true,
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with = "password_file"
    )]
    password: Option<OsString>,
    /// Read the group client of this MySQL option file instead of that of ~/.my.cnf
    #[arg(long, value_parser = values::path(), value_name = "FILE", help_heading = SERVER)]
    defaults_file: Option<PathBuf>,
    /// Read the group client with this behind its name too, as client_prod for _prod
    #[arg(long, value_name = "SUFFIX", help_heading = SERVER)]
    defaults_group_suffix: Option<String>,
    /// Insist on TLS, and on a certificate [default of MODE: verify-full]
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "verify-full",
        help_heading = SERVER
    )]
    tls: Option<TlsMode>,
    /// The authority that signed the server's certificate, a PEM file; without it those that
    /// browsers trust
    #[arg(
        long,
        alias = "ssl-ca",
        value_parser = values::path(),
        value_name = "FILE",
        help_heading = SERVER
    )]
    tls_ca: Option<PathBuf>,
    /// This client's own certificate, a PEM file, for accounts with REQUIRE X509
    #[arg(
        long,
        alias = "ssl-cert",
        value_parser = values::path(),
        value_name = "FILE",
        requires = "tls_key",
        help_heading = SERVER
    )]
    tls_cert: Option<PathBuf>,
    /// Its key, a PEM file
    #[arg(
        long,
        alias = "ssl-key",
        value_parser = values::path(),
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = SERVER
    )]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    mysqls: MysqlsOptions,
    /// What to speak with the server
    #[arg(long, value_enum, ignore_case = true, default_value_t, value_name = "PROTOCOL", help_heading = SERVER)]
    protocol: Protocol,
    /// Let --protocol tcp loose on a server that may be MySQL, which may then block this host
    #[arg(long, help_heading = SERVER)]
    force: bool,
    /// Change a sysctl in the private namespace, as net.ipv4.KEY=VALUE
    #[arg(
        long,
        value_parser = values::setting(),
        value_name = "KEY=VALUE",
        allow_hyphen_values = true
    )]
    set: Vec<Setting>,
    /// Stop after this many connections
    #[arg(long, value_parser = values::connections(), value_name = "N", allow_hyphen_values = true)]
    connections: Option<u64>,
    /// Stop after this time [default: 2min, with --pool 10s]
    #[arg(long, value_parser = values::time(), value_name = "D", allow_hyphen_values = true)]
    duration: Option<Duration>,
    /// Keep this pace, in connections per second, instead of as fast as possible
    #[arg(long, value_parser = values::per_second(), value_name = "R", allow_hyphen_values = true)]
    rate: Option<f64>,
    /// Let this many threads connect
    #[arg(
        long,
        default_value = "1",
        value_parser = values::threads(),
        value_name = "N",
        allow_hyphen_values = true
    )]
    threads: usize,
    /// Take connections from a pool of this size instead of opening one each time
    #[arg(long, value_parser = values::pool(), value_name = "N", allow_hyphen_values = true)]
    pool: Option<usize>,
    /// How to leave a MySQL server; either way the client closes first
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    close: Close,
    /// Connect from these addresses in turn; in the private namespace any will do
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = values::source(),
        value_name = "ADDR,…",
        allow_hyphen_values = true
    )]
    bind_address: Vec<IpAddr>,
    /// What --bind-address was called once; in the other commands it chooses the reader
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_name = "ADDR,…")]
    source: Option<OsString>,
    /// Draw latency and ports in use over time into this file; - is standard output, and the report
    /// then goes to standard error
    #[arg(long, value_parser = values::path(), value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

const SERVER: &str = "A server of yours";

impl ReproArgs {
    /// What is to be done at this `place`, with this `look` at the machine.
    #[must_use]
    pub fn plan(&self, place: Place, look: Look) -> Plan {
        Plan {
            place,
            look,
            client: ClientReport {
                protocol: self.protocol,
                pool: self.pool,
                threads: self.threads,
                rate: self.rate,
                sources: self.bind_address.clone(),
            },
            close: self.close,
            force: self.force,
            limits: Limits {
                connections: self.connections,
                duration: self.duration(),
                rate: self.rate,
                threads: self.threads,
                fast_ports: None,
            },
            is_limited: self.connections.is_some() || self.duration.is_some(),
        }
    }

    /// Whether the loop logs in.
    #[must_use]
    pub fn logs_in(&self) -> bool {
        self.protocol == Protocol::Mysql
    }

    /// The sysctls to change in the private namespace.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        self.set.clone()
    }

    fn names_a_server(&self) -> bool {
        self.server.is_some() || self.host.is_some() || self.defaults_file.is_some()
    }

    /// What is said about a server of the user's, and the login there; `None` where none is named.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        let named = self.tls_ca.is_some() || identity.is_some();
        self.names_a_server().then(|| Wanted {
            server: self.server.clone(),
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            database: self.database.clone(),
            password_file: self.password_file.clone(),
            ask_password: self.ask_password || self.password.is_some(),
            defaults_file: self.defaults_file.clone(),
            group_suffix: self.defaults_group_suffix.clone(),
            tls: (self.tls.is_some() || named).then(|| TlsWish {
                mode: self.tls.unwrap_or_default(),
                authority: self.tls_ca.clone(),
                identity: identity.clone(),
            }),
        })
    }

    fn is_url(&self) -> bool {
        let is_url = |server: &Secret| server.reveal().contains("://");
        self.server.as_ref().is_some_and(is_url)
    }

    /// How long a run may take.
    fn duration(&self) -> Duration {
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

    /// Whether the picture takes standard output.
    #[must_use]
    pub fn draws_on_stdout(&self) -> bool {
        const NAMES: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
        let path = self.svg.as_ref().and_then(|path| path.to_str());
        path.is_some_and(|path| NAMES.contains(&path))
    }

    /// Whether the options go together.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), Refusal> {
        the_address_of_the_client_is_bind_address(self)?;
        a_password_is_not_for_everybody(self)?;
        self.mysqls.check()?;
        a_mode_of_tls_stands_behind_an_equals_sign(self)?;
        an_authority_is_for_a_mode_that_asks_it(self)?;
        a_url_says_it_all(self)?;
        options_of_a_server_need_one(self)?;
        settings_are_for_the_private_namespace(self)?;
        plain_tcp_speaks_no_mysql(self)?;
        force_is_for_plain_tcp(self)?;
        a_pool_takes_no_turns(self)?;
        a_pool_closes_nothing(self)?;
        addresses_are_of_one_family(self)?;
        loopback_is_not_mixed(self)?;
        each_address_is_named_once(self)?;
        standard_output_takes_one_thing(self)
    }
}

fn the_address_of_the_client_is_bind_address(args: &ReproArgs) -> Result<(), Refusal> {
    let Some(typed) = &args.source else {
        return Ok(());
    };
    // It is repeated where it is a list of addresses, and may be anything.
    let addresses = typed.to_str().filter(|typed| {
        let mut parts = typed.split(',');
        parts.all(|part| part.parse::<IpAddr>().is_ok())
    });
    Err(Refusal::new(
        "--source chooses how the other commands read the socket table; the address that this \
         client connects from is --bind-address",
        format!("--bind-address {}", addresses.unwrap_or("192.0.2.2")),
    ))
}

fn a_password_is_not_for_everybody(args: &ReproArgs) -> Result<(), Refusal> {
    match &args.password {
        // It is not repeated.
        Some(typed) if !typed.is_empty() => Err(Refusal::new(
            "a password on the command line shows in ps to everybody on this machine; -p and \
             --password take nothing behind them here",
            "put it into MYSQL_PWD, ~/.my.cnf or a --password-file; or type -p at the end, and be \
             asked for it",
        )),
        _ => Ok(()),
    }
}

fn a_mode_of_tls_stands_behind_an_equals_sign(args: &ReproArgs) -> Result<(), Refusal> {
    let server = args.server.as_ref().map_or("", Secret::reveal);
    let mode = server.to_ascii_lowercase().replace('_', "-");
    let is_mode = TlsMode::from_str(&mode, true).is_ok();
    if args.tls.is_some() && is_mode {
        return Err(Refusal::new(
            format!("{server} is taken for the server's name: the mode of --tls stands behind ="),
            format!("--tls={mode}"),
        ));
    }
    Ok(())
}

fn an_authority_is_for_a_mode_that_asks_it(args: &ReproArgs) -> Result<(), Refusal> {
    if args.tls == Some(TlsMode::Required) && args.tls_ca.is_some() {
        return Err(Refusal::new(
            "--tls=required checks no certificate, so that --tls-ca would have no say",
            "--tls=verify-ca or --tls=verify-full with --tls-ca; or leave out --tls-ca",
        ));
    }
    Ok(())
}

fn a_url_says_it_all(args: &ReproArgs) -> Result<(), Refusal> {
    let given = [
        ("--port", args.port.is_some()),
        ("--user", args.user.is_some()),
        ("--database", args.database.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) if args.is_url() => Err(Refusal::new(
            format!("{option} and a mysql:// URL may say different things"),
            format!("put it into the URL, or leave the URL out and say --host, too: {option} …"),
        )),
        _ => Ok(()),
    }
}

fn options_of_a_server_need_one(args: &ReproArgs) -> Result<(), Refusal> {
    if args.names_a_server() {
        return Ok(());
    }
    let given = [
        ("--port", args.port.is_some()),
        ("--user", args.user.is_some()),
        ("--database", args.database.is_some()),
        ("--password-file", args.password_file.is_some()),
        ("--ask-password", args.ask_password),
        ("-p", args.password.is_some()),
        (
            "--defaults-group-suffix",
            args.defaults_group_suffix.is_some(),
        ),
        ("--tls", args.tls.is_some()),
        ("--tls-ca", args.tls_ca.is_some()),
        ("--tls-cert", args.tls_cert.is_some()),
        ("--force", args.force),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(Refusal::new(
            format!("{option} is about a server of yours, and the command line names none"),
            "add --host HOST, or --defaults-file where a file names it; the embedded server needs \
             no such option",
        )),
    }
}

fn settings_are_for_the_private_namespace(args: &ReproArgs) -> Result<(), Refusal> {
    if args.names_a_server() && !args.set.is_empty() {
        return Err(Refusal::new(
            "--set changes the private namespace, and a server of yours is reached without one",
            "leave the server out, or --set; `twcheck advise` says what to change here",
        ));
    }
    Ok(())
}

fn plain_tcp_speaks_no_mysql(args: &ReproArgs) -> Result<(), Refusal> {
    if args.protocol != Protocol::Tcp {
        return Ok(());
    }
    let closes = args.close != Close::default();
    let given = [
        ("--pool", args.pool.is_some(), "has no pool"),
        ("--tls", args.tls.is_some(), "speaks no TLS"),
        ("--tls-ca", args.tls_ca.is_some(), "speaks no TLS"),
        ("--tls-cert", args.tls_cert.is_some(), "speaks no TLS"),
        ("--close", closes, "never says COM_QUIT"),
        ("--user", args.user.is_some(), "does not log in"),
        ("--database", args.database.is_some(), "does not log in"),
        (
            "--password-file",
            args.password_file.is_some(),
            "does not log in",
        ),
        ("--ask-password", args.ask_password, "does not log in"),
        ("-p", args.password.is_some(), "does not log in"),
        (
            "--defaults-file",
            args.defaults_file.is_some(),
            "takes --host and --port",
        ),
        ("a mysql:// URL", args.is_url(), "takes --host and --port"),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        None => Ok(()),
        Some((option, _, why)) => Err(Refusal::new(
            format!("--protocol tcp only connects: it {why}"),
            format!("leave out --protocol tcp: a loop that logs in goes by TCP too; or {option}"),
        )),
    }
}

fn force_is_for_plain_tcp(args: &ReproArgs) -> Result<(), Refusal> {
    if args.force && args.protocol == Protocol::Mysql {
        return Err(Refusal::new(
            "--force is for --protocol tcp; a loop that logs in does a MySQL server no harm",
            "leave out --force",
        ));
    }
    Ok(())
}

fn a_pool_takes_no_turns(args: &ReproArgs) -> Result<(), Refusal> {
    if args.pool.is_some() && !args.bind_address.is_empty() {
        return Err(Refusal::new(
            "--bind-address takes turns between addresses, and a pool opens its connections once",
            "leave out --pool or --bind-address",
        ));
    }
    Ok(())
}

fn a_pool_closes_nothing(args: &ReproArgs) -> Result<(), Refusal> {
    if args.pool.is_some() && args.close != Close::default() {
        return Err(Refusal::new(
            "--close is about each turn of the loop, and a pool keeps its connections",
            "leave out --pool or --close",
        ));
    }
    Ok(())
}

fn addresses_are_of_one_family(args: &ReproArgs) -> Result<(), Refusal> {
    let there_is = |kind: fn(&IpAddr) -> bool| args.bind_address.iter().any(kind);
    if there_is(IpAddr::is_ipv4) && there_is(IpAddr::is_ipv6) {
        return Err(Refusal::new(
            "--bind-address mixes IPv4 and IPv6, and a run connects to one address of one server",
            "name addresses of one kind",
        ));
    }
    Ok(())
}

fn loopback_is_not_mixed(args: &ReproArgs) -> Result<(), Refusal> {
    let there_is = |kind: fn(&IpAddr) -> bool| args.bind_address.iter().any(kind);
    if there_is(IpAddr::is_loopback) && there_is(|address| !address.is_loopback()) {
        return Err(Refusal::new(
            "--bind-address mixes loopback with other addresses: TIME_WAIT reuse differs between \
             them",
            "name addresses of one kind",
        ));
    }
    Ok(())
}

fn each_address_is_named_once(args: &ReproArgs) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    match args
        .bind_address
        .iter()
        .find(|address| !seen.insert(*address))
    {
        None => Ok(()),
        Some(address) => Err(Refusal::new(
            format!("--bind-address names {address} twice, and it has one set of ports"),
            "name each address once",
        )),
    }
}

fn standard_output_takes_one_thing(args: &ReproArgs) -> Result<(), Refusal> {
    let format = match args.format.get() {
        ReproFormat::Table => return Ok(()),
        ReproFormat::Plain => "--format plain",
        ReproFormat::Json => "--json",
    };
    if args.draws_on_stdout() {
        return Err(Refusal::new(
            format!(
                "{format} is for a program that reads standard output, and the picture goes there"
            ),
            format!("name a file for the picture, or leave out {format}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::{assert_fine, assert_refused};

    #[test]
    fn the_address_of_the_client_is_bind_address() {
        let said = "--source chooses how the other commands read the socket table; the address \
                    that this client connects from is --bind-address";
        for (line, hint) in [
            ("repro --source 192.0.2.2", "--bind-address 192.0.2.2"),
            (
                "repro --source=192.0.2.2,192.0.2.3 --pool 8",
                "--bind-address 192.0.2.2,192.0.2.3",
            ),
            ("repro --host h --source ::1", "--bind-address ::1"),
            ("repro --source", "--bind-address 192.0.2.2"),
            ("repro --source proc", "--bind-address 192.0.2.2"),
            ("repro --source u:hunter2@h", "--bind-address 192.0.2.2"),
        ] {
            assert_refused(line, said, hint);
        }
        for line in [
            "repro --bind-address 192.0.2.2",
            "repro --bind-address=192.0.2.2,192.0.2.3",
            "repro --host h --bind-address ::1",
        ] {
            assert_fine(line);
        }
    }

    #[test]
    fn options_of_a_server_need_one() {
        for option in [
            "--port 3307",
            "--user app",
            "--database shop",
            "--password-file secret",
            "--ask-password",
            "-p",
            "--tls",
            "--tls-ca ca.pem",
            "--tls-cert c.pem --tls-key k.pem",
            "--defaults-group-suffix _prod",
            "--force",
        ] {
            let name = option.split_whitespace().next().unwrap();
            assert_refused(
                &format!("repro {option}"),
                &format!("{name} is about a server of yours, and the command line names none"),
                "add --host HOST, or --defaults-file where a file names it; the embedded server \
                 needs no such option",
            );
            if name != "--force" {
                assert_fine(&format!("repro {option} --host h"));
                assert_fine(&format!("repro {option} --defaults-file my.cnf"));
            }
        }
        assert_fine("repro mysql://app@h --tls --password-file secret");
        assert_fine("repro --protocol tcp --host h --port 6379 --force");
    }

    #[test]
    fn a_password_is_not_for_everybody() {
        for line in [
            "repro --host h --password=hunter2",
            "repro --host h --password hunter2",
            "repro --host h -phunter2",
            "repro -p db.example",
        ] {
            assert_refused(
                line,
                "a password on the command line shows in ps to everybody on this machine; -p and \
                 --password take nothing behind them here",
                "put it into MYSQL_PWD, ~/.my.cnf or a --password-file; or type -p at the end, and \
                 be asked for it",
            );
        }
        assert_fine("repro --host h -p");
        assert_fine("repro db.example -u app -P 3307 -p");
        assert_fine("repro --host h --password");
    }

    #[test]
    fn a_mode_of_tls_stands_behind_an_equals_sign() {
        for mode in ["", "=required", "=verify-ca", "=verify-full"] {
            assert_fine(&format!("repro --host h --tls{mode}"));
        }
        assert_fine("repro --tls db.example");
        assert_fine("repro required");
        for (typed, mode) in [("required", "required"), ("VERIFY_CA", "verify-ca")] {
            assert_refused(
                &format!("repro --tls {typed}"),
                &format!(
                    "{typed} is taken for the server's name: the mode of --tls stands behind ="
                ),
                &format!("--tls={mode}"),
            );
        }
    }

    #[test]
    fn an_authority_is_for_a_mode_that_asks_it() {
        assert_refused(
            "repro --host h --tls=required --tls-ca ca.pem",
            "--tls=required checks no certificate, so that --tls-ca would have no say",
            "--tls=verify-ca or --tls=verify-full with --tls-ca; or leave out --tls-ca",
        );
        assert_fine("repro --host h --tls=verify-ca --tls-ca ca.pem");
        assert_fine("repro db.example --ssl-ca ca.pem --ssl-cert c.pem --ssl-key k.pem");
    }

    #[test]
    fn a_url_says_it_all() {
        for option in ["--port 3307", "--user app", "--database shop"] {
            let name = option.split(' ').next().unwrap();
            assert_refused(
                &format!("repro mysql://h {option}"),
                &format!("{name} and a mysql:// URL may say different things"),
                &format!("put it into the URL, or leave the URL out and say --host, too: {name} …"),
            );
            assert_fine(&format!("repro db.example {option}"));
        }
    }

    #[test]
    fn settings_are_for_the_private_namespace() {
        for server in ["--host h", "mysql://app@h", "--defaults-file my.cnf"] {
            assert_refused(
                &format!("repro --set net.ipv4.tcp_tw_reuse=1 {server}"),
                "--set changes the private namespace, and a server of yours is reached without one",
                "leave the server out, or --set; `twcheck advise` says what to change here",
            );
            assert_fine(&format!("repro {server}"));
        }
        assert_fine("repro --set net.ipv4.tcp_tw_reuse=1 --set net.ipv4.tcp_timestamps=0");
    }

    #[test]
    fn plain_tcp_speaks_no_mysql() {
        for (option, why, named) in [
            ("--pool 8", "has no pool", "--pool"),
            ("--host h --tls", "speaks no TLS", "--tls"),
            ("--host h --tls=required", "speaks no TLS", "--tls"),
            ("--host h -p", "does not log in", "-p"),
            ("--host h --tls-ca ca.pem", "speaks no TLS", "--tls-ca"),
            ("--close abrupt", "never says COM_QUIT", "--close"),
            ("--host h --user app", "does not log in", "--user"),
            ("--host h --database shop", "does not log in", "--database"),
            (
                "--host h --password-file secret",
                "does not log in",
                "--password-file",
            ),
            (
                "--host h --ask-password",
                "does not log in",
                "--ask-password",
            ),
            (
                "--defaults-file my.cnf",
                "takes --host and --port",
                "--defaults-file",
            ),
            ("mysql://h", "takes --host and --port", "a mysql:// URL"),
        ] {
            assert_refused(
                &format!("repro --protocol tcp {option}"),
                &format!("--protocol tcp only connects: it {why}"),
                &format!(
                    "leave out --protocol tcp: a loop that logs in goes by TCP too; or {named}"
                ),
            );
            assert_fine(&format!("repro {option}"));
        }
        assert_fine("repro --protocol tcp");
        assert_fine("repro --protocol tcp --host h --port 6379 --rate 9 --threads 2");
    }

    #[test]
    fn force_is_for_plain_tcp() {
        assert_refused(
            "repro --host h --force",
            "--force is for --protocol tcp; a loop that logs in does a MySQL server no harm",
            "leave out --force",
        );
        assert_fine("repro --host h --force --protocol tcp");
    }

    #[test]
    fn a_pool_takes_no_turns() {
        assert_refused(
            "repro --pool 8 --bind-address 192.0.2.2",
            "--bind-address takes turns between addresses, and a pool opens its connections once",
            "leave out --pool or --bind-address",
        );
        assert_fine("repro --pool 8");
    }

    #[test]
    fn a_pool_closes_nothing() {
        assert_refused(
            "repro --pool 8 --close abrupt",
            "--close is about each turn of the loop, and a pool keeps its connections",
            "leave out --pool or --close",
        );
        assert_fine("repro --close abrupt");
        assert_fine("repro --pool 8 --threads 4");
    }

    #[test]
    fn addresses_are_of_one_family() {
        for addresses in ["192.0.2.2,2001:db8::2", "2001:db8::2,127.0.0.2"] {
            assert_refused(
                &format!("repro --host h --bind-address {addresses}"),
                "--bind-address mixes IPv4 and IPv6, and a run connects to one address of one \
                 server",
                "name addresses of one kind",
            );
        }
        assert_fine("repro --host h --bind-address 2001:db8::2,2001:db8::3");
        assert_fine("repro --host h --bind-address 192.0.2.2,::ffff:192.0.2.3");
    }

    #[test]
    fn loopback_is_not_mixed() {
        for addresses in ["127.0.0.2,192.0.2.2", "192.0.2.2,192.0.2.3,127.0.0.1"] {
            assert_refused(
                &format!("repro --bind-address {addresses}"),
                "--bind-address mixes loopback with other addresses: TIME_WAIT reuse differs \
                 between them",
                "name addresses of one kind",
            );
        }
        assert_fine("repro --bind-address 127.0.0.2,127.0.0.3");
    }

    #[test]
    fn each_address_is_named_once() {
        for (addresses, twice) in [
            ("192.0.2.2,192.0.2.2", "192.0.2.2"),
            ("192.0.2.2,192.0.2.3,::ffff:192.0.2.3", "192.0.2.3"),
        ] {
            assert_refused(
                &format!("repro --bind-address {addresses}"),
                &format!("--bind-address names {twice} twice, and it has one set of ports"),
                "name each address once",
            );
        }
        assert_refused(
            "repro --bind-address 192.0.2.2 --bind-address 192.0.2.2",
            "--bind-address names 192.0.2.2 twice, and it has one set of ports",
            "name each address once",
        );
    }

    #[test]
    fn standard_output_takes_one_thing() {
        for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            for (option, format) in [
                ("--json", "--json"),
                ("--format json", "--json"),
                ("--format plain", "--format plain"),
            ] {
                assert_refused(
                    &format!("repro --svg {name} {option}"),
                    &format!(
                        "{format} is for a program that reads standard output, and the picture goes \
                         there"
                    ),
                    &format!("name a file for the picture, or leave out {format}"),
                );
            }
            assert_fine(&format!("repro --svg {name}"));
        }
        for name in ["./-", "run.svg", "/dev/stderr", "/dev/null"] {
            assert_fine(&format!("repro --svg {name} --json"));
        }
    }
}
