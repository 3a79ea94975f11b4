//! Who logs in where: as the command line says, or else the option file, or else the environment.

use std::env::{self, VarError};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mysql::{Opts, UrlError};
use nix::unistd::{User, getuid};

use super::notice::Notice;
use super::option_file::{ClientOptions, Place};
use super::tls::{TlsMode, TlsWish};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::system::file;
use crate::words;

/// MySQL's port.
pub(super) const MYSQL_PORT: u16 = 3306;

/// Who logs in where.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// A name or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// MySQL user.
    pub user: Option<String>,
    /// Database to open.
    pub database: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// How to speak TLS; `None` where the server need not.
    pub tls: Option<TlsWish>,
}

/// What the command line says about it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A `mysql://` URL, a name, or a name and a port.
    pub server: Option<Secret>,
    /// A name or an address.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// MySQL user.
    pub user: Option<String>,
    /// Database to open.
    pub database: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Whether to ask for the password.
    pub ask_password: bool,
    /// An option file instead of the user's own.
    pub defaults_file: Option<PathBuf>,
    /// What the second group to read there ends with, behind `client`; `None` leaves it to the
    /// environment.
    pub group_suffix: Option<String>,
    /// How to speak TLS; `None` leaves it to the option file.
    pub tls: Option<TlsWish>,
}

impl Wanted {
    /// The login that is wanted. `tell` hears what the user may not expect.
    ///
    /// # Errors
    /// When something that is named cannot be read or understood.
    pub fn login(&self, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Login> {
        let suffix = self.group_suffix.clone();
        let suffix = suffix.or_else(|| environment("GROUP_SUFFIX", tell));
        let suffix = suffix.unwrap_or_default();
        let file = match &self.defaults_file {
            Some(path) => ClientOptions::read(path, &suffix)?,
            None => own_options(&suffix, tell),
        };
        for note in &file.notes {
            tell(Notice::OptionFile(note));
        }
        let said = match &self.server {
            Some(server) => named(server)?,
            None => Login {
                user: self.user.clone(),
                ..Login::default()
            },
        };
        if said.password.is_some() {
            tell(Notice::PasswordInUrl);
        }
        let (host, port) = self.place(&said)?;
        let host = host.or(file.host).or_else(|| environment("HOST", tell));
        if let (None, Some((named, place))) = (&host, &file.host_elsewhere) {
            return Err(Refusal::new(
                format!("{place} names the server {named} in a group that is not read here"),
                format!("put it into [client], or say --host {named}"),
            )
            .into());
        }
        let password = match self.password(tell)?.or(said.password).or(file.password) {
            Some(password) => Some(password),
            None => environment_password()?,
        };
        let system_user = || {
            let user = User::from_uid(getuid()).ok().flatten();
            user.map(|user| user.name)
        };
        let user = [self.user.clone(), said.user, file.user].into_iter();
        Ok(Login {
            host: host.unwrap_or_else(|| "localhost".into()),
            port: match port.or(file.port) {
                Some(port) => port,
                None => variable("MYSQL_TCP_PORT").map_or(Ok(MYSQL_PORT), |text| port_of(&text))?,
            },
            user: user
                .flatten()
                .find(|user| !user.is_empty())
                .or_else(system_user),
            database: self.database.clone().or(said.database).or(file.database),
            password,
            tls: tls(self.tls.clone(), file.tls, file.verify_ca.as_ref())?,
        })
    }

    /// The place alone, for a loop that does not log in: nothing but the command line counts.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn address(&self) -> Result<Login> {
        let said = self.server.as_ref().map(named).transpose()?;
        let (host, port) = self.place(&said.unwrap_or_default())?;
        Ok(Login {
            host: host.unwrap_or_default(),
            port: port.unwrap_or(MYSQL_PORT),
            ..Login::default()
        })
    }

    /// The host and the port that the command line names, one way or the other.
    fn place(&self, said: &Login) -> Result<(Option<String>, Option<u16>)> {
        let host = Some(said.host.clone()).filter(|host| !host.is_empty());
        let port = Some(said.port).filter(|port| *port != 0);
        match (port, self.port) {
            (Some(named), Some(typed)) if named != typed => Err(Refusal::new(
                format!("the server is named with port {named}, and --port is {typed}"),
                "leave one of the two out",
            )
            .into()),
            _ => Ok((host.or_else(|| self.host.clone()), port.or(self.port))),
        }
    }

    /// The password from a file of its own or from a prompt.
    fn password(&self, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Option<Secret>> {
        if let Some(path) = &self.password_file {
            let password = first_line(path)?;
            let mode = fs::metadata(path).map_or(0, |kind| kind.mode());
            if mode & 0o077 != 0 {
                tell(Notice::PasswordFileIsOpen(path, mode & 0o777));
            }
            return Ok(Some(password));
        }
        if !self.ask_password {
            return Ok(None);
        }
        if !io::stdin().is_terminal() {
            return Err(Refusal::new(
                "--ask-password needs a terminal to ask on",
                "put the password into MYSQL_PWD, or into a file for --password-file",
            )
            .into());
        }
        let password = rpassword::prompt_password("Password: ").context("reading the password")?;
        Ok(Some(password.into()))
    }
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

/// What the environment says of this `name` to mysql, or else to mariadb alone.
fn environment(name: &str, tell: &mut dyn FnMut(Notice<'_>)) -> Option<String> {
    let of = |client: &str| variable(&format!("{client}_{name}"));
    let (mysqls, mariadbs) = (of("MYSQL"), of("MARIADB"));
    if mariadbs.is_some() && mariadbs != mysqls {
        tell(Notice::ForMariadbAlone(name, mysqls.is_some()));
    }
    mysqls.or(mariadbs)
}

/// The server that would be reached if the command line named none, and what names it; `None` where
/// nothing does.
#[must_use]
pub fn named_elsewhere() -> Option<(String, String)> {
    let suffix = variable("MYSQL_GROUP_SUFFIX").or_else(|| variable("MARIADB_GROUP_SUFFIX"));
    let suffix = suffix.unwrap_or_default();
    let host = |file: ClientOptions| file.host;
    let own = ClientOptions::of_home(&suffix)
        .and_then(Result::ok)
        .and_then(host);
    let own = own.map(|host| (host, "~/.my.cnf".to_owned()));
    let by_variable = || {
        let of = |name: &str| variable(name).map(|host| (host, name.to_owned()));
        of("MYSQL_HOST").or_else(|| of("MARIADB_HOST"))
    };
    let of_all = || {
        OF_ALL_USERS.iter().find_map(|path| {
            let file = ClientOptions::read(Path::new(path), &suffix).ok()?;
            Some((file.host?, (*path).to_owned()))
        })
    };
    own.or_else(by_variable).or_else(of_all)
}

/// Option files that the clients read before the user's own, in their order.
const OF_ALL_USERS: [&str; 2] = ["/etc/my.cnf", "/etc/mysql/my.cnf"];

/// The user's own option file; what is wrong with it does not stop the run.
fn own_options(suffix: &str, tell: &mut dyn FnMut(Notice<'_>)) -> ClientOptions {
    for path in OF_ALL_USERS {
        if let Ok(file) = ClientOptions::read(Path::new(path), suffix)
            && (file.host.is_some() || file.user.is_some() || file.tls.is_some())
        {
            tell(Notice::FileOfAllUsers(path));
        }
    }
    let encrypted = env::home_dir().map(|home| home.join(".mylogin.cnf"));
    if encrypted.is_some_and(|file| file.exists()) {
        tell(Notice::LoginPathNotRead);
    }
    match ClientOptions::of_home(suffix) {
        Some(Ok(options)) => options,
        Some(Err(error)) => {
            tell(Notice::OwnFileIgnored(&error));
            ClientOptions::default()
        }
        None => ClientOptions::default(),
    }
}

/// What a user typed for the server: a URL, `db.example`, `db.example:3307`, `[::1]:3306`.
fn named(server: &Secret) -> Result<Login> {
    let text = server.reveal();
    if let Some((host, database)) = text.split_once('/')
        && !text.contains(['@', ':'])
    {
        return Err(Refusal::new(
            format!("{text:?} is no server: a database has an option of its own"),
            format!("--host {host} --database {database}"),
        )
        .into());
    }
    // Whatever has a user in it, or another scheme, is meant for a URL.
    if text.contains("://") || text.contains(['@', '/']) {
        return from_url(text);
    }
    // A link-local one has its interface behind it: fe80::1%eth0.
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    let is_address = address.parse::<std::net::IpAddr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_address && !text.ends_with(']') => {
            let port: Option<u16> = port.parse().ok().filter(|port| *port != 0);
            let port = port.ok_or_else(|| {
                // Who takes it for a login has put a password there.
                let first = text.split(':').next().unwrap_or_default();
                Refusal::new(
                    format!("\"{first}:…\" does not end in a port, 1 to 65535"),
                    format!("{first}:{MYSQL_PORT}"),
                )
            })?;
            (host, port)
        }
        _ => (text, 0),
    };
    if host.trim().is_empty() {
        return Err(Refusal::new(
            format!("{text:?} names no server"),
            "give a name or an address, as db.example or db.example:3306",
        )
        .into());
    }
    Ok(Login {
        host: host.to_owned(),
        port,
        ..Login::default()
    })
}

fn from_url(url: &str) -> Result<Login> {
    let options = Opts::from_url(url).map_err(|error| {
        Refusal::new(
            format!("the URL given is not a MySQL URL: {}", reason(&error)),
            "mysql://USER@HOST:3306/DATABASE, special characters percent-encoded, the password in \
             MYSQL_PWD; or --host HOST",
        )
    })?;
    if options.get_ssl_opts().is_some() {
        return Err(Refusal::new(
            "the URL has parameters about TLS",
            "leave them out, and say --tls, or --tls-ca FILE where the authority is private",
        )
        .into());
    }
    Ok(Login {
        host: options.get_ip_or_hostname().into_owned(),
        port: options.get_tcp_port(),
        user: options.get_user().map(str::to_owned),
        database: options.get_db_name().map(str::to_owned),
        password: options.get_pass().map(|text| text.to_owned().into()),
        tls: None,
    })
}

/// What is wrong with a URL, without a word of it: it may hold a password.
fn reason(error: &UrlError) -> &'static str {
    match error {
        UrlError::ParseError(_) | UrlError::BadUrl => "it cannot be parsed",
        UrlError::UnsupportedScheme(_) => "it does not begin with mysql://",
        UrlError::UnknownParameter(_) => "it has a parameter that is unknown",
        UrlError::InvalidValue(..) => "a parameter of it has a value that is not understood",
        UrlError::FeatureRequired(..) => "a parameter of it asks for what this build does not have",
        UrlError::InvalidPoolConstraints { .. } => "its pool bounds are in the wrong order",
    }
}

/// The wish of the command line, with the files that only the option file names.
fn tls(
    typed: Option<TlsWish>,
    file: Option<TlsWish>,
    verify_ca: Option<&Place>,
) -> Result<Option<TlsWish>> {
    let by_file = verify_ca.filter(|_| typed.is_none());
    let wish = match (typed, file) {
        (None, wish) | (wish, None) => wish,
        (Some(typed), Some(file)) => Some(TlsWish {
            mode: typed.mode,
            authority: typed.authority.or(file.authority),
            identity: typed.identity.or(file.identity),
        }),
    };
    let is_unsigned = |wish: &TlsWish| wish.mode == TlsMode::VerifyCa && wish.authority.is_none();
    if wish.as_ref().is_some_and(is_unsigned) {
        if let Some(place) = by_file {
            return Err(Refusal::new(
                format!("{place}: ssl-mode=VERIFY_CA needs an authority, and ssl-ca names none"),
                "add ssl-ca=FILE with the server's authority, as mysql demands too",
            )
            .into());
        }
        return Err(Refusal::new(
            "--tls=verify-ca leaves the name out, so that any certificate that browsers trust \
             would do",
            "add --tls-ca FILE with the server's authority, or take --tls=verify-full",
        )
        .into());
    }
    Ok(wish)
}

fn first_line(path: &Path) -> Result<Secret> {
    let text = file::named_by_user(path).map_err(|error| {
        Refusal::new(
            format!("reading the password from {}: {error}", words::path(path)),
            "name a file whose first line is the password, or use --ask-password",
        )
    })?;
    let first = text.lines().next().unwrap_or_default();
    if first.is_empty() {
        return Err(Refusal::new(
            format!("the first line of {} is empty", path.display()),
            "put the password there; for an account without one leave out --password-file",
        )
        .into());
    }
    Ok(first.to_owned().into())
}

/// The port that MYSQL_TCP_PORT holds; the clients take the digits it begins with, or nothing.
fn port_of(text: &str) -> Result<u16> {
    let port = text.trim().parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| {
        Refusal::new(
            format!(
                "MYSQL_TCP_PORT={} is no port, 1 to 65535",
                words::shown(text)
            ),
            "unset it, or name the port with --port",
        )
        .into()
    })
}

fn environment_password() -> Result<Option<Secret>> {
    match env::var("MYSQL_PWD") {
        Ok(password) => Ok(Some(password.into())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Refusal::new(
            "MYSQL_PWD is not UTF-8",
            "put the password into a file for --password-file",
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named_as(text: &str) -> Result<(String, u16)> {
        named(&Secret::from(text.to_owned())).map(|login| (login.host, login.port))
    }

    #[test]
    fn a_server_is_named_by_a_host_a_port_or_a_url() {
        for (text, host, port) in [
            ("db.example", "db.example", 0),
            ("db.example:3307", "db.example", 3307),
            ("192.0.2.1", "192.0.2.1", 0),
            ("192.0.2.1:3306", "192.0.2.1", 3306),
            ("2001:db8::1", "2001:db8::1", 0),
            ("[2001:db8::1]", "[2001:db8::1]", 0),
            ("[2001:db8::1]:3306", "[2001:db8::1]", 3306),
            ("fe80::1%eth0", "fe80::1%eth0", 0),
            ("[fe80::1%eth0]:3306", "[fe80::1%eth0]", 3306),
            ("mysql://app@db.example/shop", "db.example", 3306),
            ("mysql://db.example:3307", "db.example", 3307),
        ] {
            assert_eq!(named_as(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for (text, said) in [
            ("db.example:0", "does not end in a port"),
            ("db.example:mysql", "does not end in a port"),
            (":3306", "names no server"),
            ("192.0.2.1/shop", "a database has an option of its own"),
            ("", "names no server"),
            ("app@db.example", "not a MySQL URL"),
            ("app:hunter2@db.example:3306", "not a MySQL URL"),
            ("postgres://app:hunter2@db.example", "not a MySQL URL"),
            ("mysql://app:hunter2@db.example?ssl=1", "not a MySQL URL"),
        ] {
            let error = format!("{:#}", named_as(text).unwrap_err());
            assert!(
                error.contains(said) && !error.contains("hunter2"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn the_command_line_counts_before_the_option_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.cnf");
        std::fs::write(
            &file,
            "[client]\nhost=a\nport=1\nuser=u\npassword=p\ndatabase=d\nssl-mode=REQUIRED\n\
             ssl-ca=/ca.pem\n",
        )
        .unwrap();
        let wanted = Wanted {
            defaults_file: Some(file),
            ..Wanted::default()
        };
        let told = |wanted: &Wanted| {
            let login = wanted.login(&mut |_| {}).unwrap();
            let mode = login.tls.map(|wish| (wish.mode, wish.authority.is_some()));
            (login.host, login.port, login.user, login.database, mode)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            told(&wanted),
            (
                "a".into(),
                1,
                some("u"),
                some("d"),
                Some((TlsMode::Required, true))
            )
        );
        let typed = Wanted {
            server: Some("b:2".to_owned().into()),
            user: some("v"),
            tls: Some(TlsWish::default()),
            ..wanted
        };
        assert_eq!(
            told(&typed),
            (
                "b".into(),
                2,
                some("v"),
                some("d"),
                Some((TlsMode::VerifyFull, true))
            )
        );
    }

    #[test]
    fn an_authority_is_needed_where_the_name_is_left_out() {
        let wish = |authority: Option<&str>| {
            let wish = TlsWish {
                mode: TlsMode::VerifyCa,
                authority: authority.map(PathBuf::from),
                identity: None,
            };
            tls(Some(wish), None, None)
        };
        assert!(wish(Some("ca.pem")).is_ok());
        assert!(
            wish(None)
                .unwrap_err()
                .to_string()
                .contains("--tls=verify-ca")
        );
    }
}
