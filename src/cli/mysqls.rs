//! What mysql's and mariadb's users type, and what to type here instead.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::refusal::Refusal;

/// An option of theirs that is none here.
struct Theirs {
    long: &'static str,
    short: Option<char>,
    /// Why it is none.
    why: &'static str,
    /// What to type instead.
    instead: &'static str,
}

const fn theirs(
    long: &'static str,
    short: Option<char>,
    why: &'static str,
    instead: &'static str,
) -> Theirs {
    Theirs {
        long,
        short,
        why,
        instead,
    }
}

const NO_TLS: &str = "TLS is spoken where --tls or an option file asks for it, and not elsewhere";
const KEY: &str = "the server's RSA key is asked for where a password goes under it";

const THEIRS: [Theirs; 19] = [
    theirs("ssl-mode", None, "--ssl-mode is --tls here", "--tls"),
    theirs(
        "socket",
        Some('S'),
        "--socket: a unix socket takes no port, so that none can run out; this goes by TCP",
        "--host 127.0.0.1",
    ),
    theirs("ssl", None, "--ssl is --tls here", "--tls"),
    theirs("skip-ssl", None, NO_TLS, "leave out --skip-ssl"),
    theirs("disable-ssl", None, NO_TLS, "leave out --disable-ssl"),
    theirs(
        "ssl-verify-server-cert",
        None,
        "--ssl-verify-server-cert is --tls=verify-full here",
        "--tls=verify-full",
    ),
    theirs(
        "skip-ssl-verify-server-cert",
        None,
        "--skip-ssl-verify-server-cert is --tls=required here",
        "--tls=required",
    ),
    theirs(
        "disable-ssl-verify-server-cert",
        None,
        "--disable-ssl-verify-server-cert is --tls=required here",
        "--tls=required",
    ),
    theirs(
        "ssl-capath",
        None,
        "--ssl-capath: one file is read, no folder",
        "--tls-ca FILE",
    ),
    theirs(
        "get-server-public-key",
        None,
        KEY,
        "leave out --get-server-public-key",
    ),
    theirs(
        "server-public-key-path",
        None,
        KEY,
        "leave out --server-public-key-path",
    ),
    theirs(
        "enable-cleartext-plugin",
        None,
        "--enable-cleartext-plugin: mysql_clear_password is not spoken here",
        "log in as a user with caching_sha2_password, mysql_native_password, ed25519 or parsec",
    ),
    theirs(
        "compress",
        Some('C'),
        "--compress: a login has nothing to compress",
        "leave out --compress",
    ),
    theirs(
        "execute",
        Some('e'),
        "--execute: the loop logs in and leaves, and asks nothing",
        "leave out --execute",
    ),
    theirs(
        "no-defaults",
        None,
        "--no-defaults: an option file that says nothing does the same",
        "--defaults-file /dev/null",
    ),
    theirs(
        "defaults-extra-file",
        None,
        "--defaults-extra-file: one option file is read",
        "--defaults-file FILE",
    ),
    theirs(
        "login-path",
        None,
        "--login-path: ~/.mylogin.cnf is not read here",
        "put host, user and password into the [client] of an option file for --defaults-file",
    ),
    theirs(
        "connect-timeout",
        None,
        "--connect-timeout: a connection is given 10 s, or what --duration leaves",
        "--duration 5s",
    ),
    theirs(
        "default-auth",
        None,
        "--default-auth: the server names the plugin",
        "leave out --default-auth",
    ),
];

/// The first of them that was typed, and what stood behind it.
#[derive(Debug, Clone, Default)]
pub struct MysqlsOptions(Option<(usize, OsString)>);

impl Args for MysqlsOptions {
    fn augment_args(command: Command) -> Command {
        THEIRS.iter().fold(command, |command, option| {
            let argument = Arg::new(option.long)
                .long(option.long)
                .num_args(0..=1)
                .default_missing_value("")
                .value_parser(clap::value_parser!(OsString))
                .hide(true);
            command.arg(match option.short {
                Some(short) => argument.short(short),
                None => argument,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MysqlsOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let is_typed =
            |option: &Theirs| matches.value_source(option.long) == Some(ValueSource::CommandLine);
        let first = THEIRS.iter().position(is_typed);
        Ok(Self(first.map(|first| {
            let value = matches.get_one::<OsString>(THEIRS[first].long);
            (first, value.cloned().unwrap_or_default())
        })))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl MysqlsOptions {
    /// Whether none was typed.
    ///
    /// # Errors
    /// What to type instead, where one was.
    pub fn check(&self) -> Result<(), Refusal> {
        let Some((option, value)) = &self.0 else {
            return Ok(());
        };
        let option = &THEIRS[*option];
        let instead = match option.long {
            "ssl-mode" => match value.to_string_lossy().to_ascii_uppercase().as_str() {
                "DISABLED" | "PREFERRED" => "leave it out: TLS is spoken where --tls is given",
                "REQUIRED" => "--tls=required",
                "VERIFY_CA" => "--tls=verify-ca --tls-ca FILE",
                _ => "--tls=verify-full",
            },
            "ssl" if value == "0" => "leave it out: TLS is spoken where --tls is given",
            _ => option.instead,
        };
        Err(Refusal::new(option.why, instead))
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::tests::assert_refused;

    #[test]
    fn each_option_of_the_clients_is_told_by_what_it_is_here() {
        for (mode, hint) in [
            ("=REQUIRED", "--tls=required"),
            (" verify_ca", "--tls=verify-ca --tls-ca FILE"),
            ("=VERIFY_IDENTITY", "--tls=verify-full"),
            (
                "=DISABLED",
                "leave it out: TLS is spoken where --tls is given",
            ),
        ] {
            assert_refused(
                &format!("repro --host h --ssl-mode{mode}"),
                "--ssl-mode is --tls here",
                hint,
            );
        }
        for socket in ["--socket=/run/mysqld/mysqld.sock", "-S /run/s"] {
            assert_refused(
                &format!("repro {socket}"),
                "--socket: a unix socket takes no port, so that none can run out; this goes by TCP",
                "--host 127.0.0.1",
            );
        }
        for (option, hint) in [
            ("--skip-ssl", "leave out --skip-ssl"),
            ("--disable-ssl", "leave out --disable-ssl"),
            ("--ssl", "--tls"),
            (
                "--get-server-public-key",
                "leave out --get-server-public-key",
            ),
            ("--compress", "leave out --compress"),
            ("-C", "leave out --compress"),
            ("-e select", "leave out --execute"),
            ("--no-defaults", "--defaults-file /dev/null"),
        ] {
            let option = super::THEIRS.iter().find(|theirs| {
                let typed = option.split(' ').next().unwrap();
                typed == format!("--{}", theirs.long)
                    || theirs
                        .short
                        .is_some_and(|short| typed == format!("-{short}"))
            });
            let option = option.expect("it is in the table");
            assert_refused(&format!("repro h --{}", option.long), option.why, hint);
        }
    }
}
