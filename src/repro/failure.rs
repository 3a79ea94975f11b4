use std::fmt;
use std::io;
use std::net::SocketAddr;

use mysql::DriverError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::protocol::Protocol;
use crate::judge::destination::Explained;
use crate::words::{errno_words, printable};

/// What made a connection fail: each has another cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// errno 99, every port of the flow taken.
    EphemeralPortsExhausted,
    /// errno 98 from a socket bound to a source address: the ports of that address are taken.
    SourcePortsExhausted,
    /// errno 99 with ports left: the address does not exist here.
    AddressNotAvailable,
    /// errno 111.
    ConnectionRefused,
    /// errno 101 or 113, or 22 of a blackhole route.
    NoRoute,
    /// errno 110, or no answer within the time limit.
    NoAnswer,
    /// errno 24 or 23.
    TooManyOpenFiles,
    /// errno 1 or 13: this machine forbids it.
    PermissionDenied,
    /// Connected, then cut off or silent before the greeting ended.
    LostDuringHandshake,
    /// Something else than MySQL answered.
    NotMysql,
    /// MySQL 1040.
    TooManyConnections,
    /// MySQL 1129: too many connections broke off before the login.
    HostBlocked,
    /// MySQL 1130: no user may come from here.
    HostNotAllowed,
    /// MySQL 1045 or 1698.
    AccessDenied,
    /// MySQL 1044 or 1049.
    NoSuchDatabase,
    /// MySQL 1203 or 1226.
    UserLimit,
    /// MySQL and MariaDB 3159: the server takes no connection without TLS.
    TlsRequired,
    /// The server cannot speak TLS, or not the way it must.
    TlsFailed,
    /// MySQL 1820 or 1862.
    PasswordExpired,
    /// MySQL 3118, MariaDB 4151: the account is locked.
    AccountLocked,
    /// MySQL 1251, 1275 or 1524, or a plugin that twcheck does not speak.
    AuthenticationPlugin,
    /// MySQL 1053 or 3032: the server goes down, or is closed to users.
    ShuttingDown,
    /// Any other MySQL error.
    ServerError,
    /// Anything else.
    Other,
}

/// Whether `error` is errno 99: no port was left, or no address.
#[must_use]
pub fn is_address_not_available(error: &mysql::Error) -> bool {
    Cause::of(error) == Cause::Errno(Errno::EADDRNOTAVAIL as i32)
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The system's number; `None` where the server or the driver said no.
    pub errno: Option<i32>,
    /// The server's number; `None` where it said nothing.
    pub mysql_code: Option<u16>,
    /// The class.
    pub kind: FailureKind,
    /// As an application prints it.
    pub text: String,
}

/// What a failed attempt says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    Errno(i32),
    Server {
        code: u16,
        state: String,
        message: String,
    },
    Lost(Option<i32>),
    NotMysql,
    Tls(String),
    Plugin(String),
    Other(String),
}

impl Failure {
    /// Classifies `error` of an attempt to reach the server called `name`. `flow_is_full` is asked
    /// only where it decides: whether the ports toward the server are taken.
    pub fn new(
        error: &mysql::Error,
        name: &str,
        protocol: Protocol,
        flow_is_full: impl FnOnce() -> bool,
    ) -> Self {
        let cause = Cause::of(error);
        let kind = cause.kind(flow_is_full);
        let (errno, mysql_code, text) = match cause {
            Cause::Errno(errno) if protocol == Protocol::Tcp => (
                Some(errno),
                None,
                format!("connect to {name}: {}", errno_words(errno)),
            ),
            Cause::Errno(errno) => (
                Some(errno),
                None,
                format!("ERROR 2003 (HY000): Can't connect to MySQL server on '{name}' ({errno})"),
            ),
            Cause::Server {
                code,
                state,
                message,
            } => (
                None,
                Some(code),
                format!("ERROR {code} ({state}): {message}"),
            ),
            Cause::Lost(errno) => (
                errno,
                None,
                format!(
                    "ERROR 2013 (HY000): Lost connection to MySQL server at 'handshake', system \
                     error: {}",
                    errno.unwrap_or(0)
                ),
            ),
            Cause::NotMysql => (
                None,
                None,
                format!("'{name}' does not speak the MySQL protocol"),
            ),
            Cause::Tls(text) => (
                None,
                None,
                format!("ERROR 2026 (HY000): TLS/SSL error: {text}"),
            ),
            Cause::Plugin(name) => (
                None,
                None,
                format!(
                    "ERROR 2059 (HY000): Authentication plugin '{name}' cannot be loaded: twcheck \
                     does not speak it"
                ),
            ),
            Cause::Other(text) => (None, None, text),
        };
        Self {
            errno,
            mysql_code,
            kind,
            text: printable(&text),
        }
    }

    /// In plain words: what it means.
    #[must_use]
    pub fn meaning(&self, server: SocketAddr) -> String {
        use FailureKind as Kind;
        match self.kind {
            Kind::EphemeralPortsExhausted => format!(
                "{}: every local port toward {server} is taken.",
                self.system_words()
            ),
            Kind::SourcePortsExhausted => {
                "Address already in use: the socket was bound to a source \
                                           address first, and every port of that address is taken."
                    .into()
            }
            Kind::AddressNotAvailable => format!(
                "{}, but ports are free: this is not exhaustion. The source address does not exist \
                 on this machine, or {} itself has no address to be reached from.",
                self.system_words(),
                server.ip()
            ),
            Kind::ConnectionRefused => format!("Nothing listens on {server}."),
            Kind::NoRoute => format!(
                "There is no way to {}: {}.",
                server.ip(),
                self.system_words()
            ),
            Kind::NoAnswer => format!("{server} does not answer. That is not about ports."),
            Kind::TooManyOpenFiles => "No file descriptor is left for another socket.".into(),
            Kind::PermissionDenied => format!(
                "This machine forbids connections to {server}: {}.",
                self.system_words()
            ),
            Kind::LostDuringHandshake => {
                format!("{server} took the connection, then cut it off or fell silent.")
            }
            Kind::NotMysql => format!("{server} answers, but not as a MySQL server."),
            Kind::TooManyConnections => "The server is at its max_connections.".into(),
            Kind::HostBlocked => "The server has blocked this host: too many connections from it \
                                  broke off before the login (max_connect_errors)."
                .into(),
            Kind::HostNotAllowed => "No user of the server may come from this host.".into(),
            Kind::AccessDenied => "The server does not accept this user and password.".into(),
            Kind::NoSuchDatabase => {
                "The database does not exist, or this user may not use it.".into()
            }
            Kind::UserLimit => "This user is at its limit on the server.".into(),
            Kind::TlsRequired => "The server takes no connection without TLS.".into(),
            Kind::TlsFailed => format!("TLS with {server} did not come about."),
            Kind::PasswordExpired => "The password is right, but has expired.".into(),
            Kind::AccountLocked => "The account is locked.".into(),
            Kind::AuthenticationPlugin => {
                "The account proves who it is in a way that this client does not know.".into()
            }
            Kind::ShuttingDown => "The server is going down, or is closed to users.".into(),
            Kind::ServerError => "The server said no.".into(),
            Kind::Other => "The driver could not connect.".into(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        use FailureKind as Kind;
        match self.kind {
            Kind::EphemeralPortsExhausted => {
                "keep connections open (a pool); `twcheck advise` shows what else raises the limit"
            }
            Kind::SourcePortsExhausted => {
                "do not bind the source address, or set IP_BIND_ADDRESS_NO_PORT before bind()"
            }
            Kind::AddressNotAvailable => {
                "check that the source address (--bind-address) is one of this machine's (`ip addr`); ::1 \
                 exists only where IPv6 is on: try 127.0.0.1"
            }
            Kind::ConnectionRefused => "check that the server runs, its port and its bind-address",
            Kind::NoRoute => {
                "check `ip route get ADDRESS`, the firewall, and whether a --bind-address is one of \
                 this machine (`ip addr`)"
            }
            Kind::NoAnswer => {
                "look for a firewall that drops packets, a full conntrack or SNAT table, or a full \
                 listen queue on the server"
            }
            Kind::PermissionDenied => {
                "look for a prohibit route (`ip route get ADDRESS`), a local firewall rule, or a \
                 policy of the container or of SELinux"
            }
            Kind::TooManyOpenFiles => "raise `ulimit -n`, or find who leaks descriptors",
            Kind::LostDuringHandshake => {
                "look into the server's error log, and for a proxy between here and there"
            }
            Kind::NotMysql => "check host and port",
            Kind::TooManyConnections => {
                "raise max_connections, or find who holds them: `SHOW PROCESSLIST`"
            }
            Kind::HostBlocked => {
                "find what breaks off handshakes here (a TCP health check?), then on the server: \
                 `mysqladmin flush-hosts`"
            }
            Kind::HostNotAllowed => {
                "look at the host part of the accounts: `SELECT user, host FROM mysql.user`"
            }
            Kind::AccessDenied => {
                "check --user; the password goes in MYSQL_PWD, ~/.my.cnf, --password-file or \
                 --ask-password; an account that requires TLS says the same: try --tls"
            }
            Kind::NoSuchDatabase => "check --database, or leave it out: the loop needs none",
            Kind::UserLimit => "look at max_user_connections and the limits of SHOW GRANTS",
            Kind::TlsRequired => {
                "add --tls, or --tls-ca FILE where the server's authority is private"
            }
            Kind::TlsFailed => {
                "--tls-ca FILE names a private authority, --host must be a name in the certificate; \
                 `SHOW VARIABLES LIKE '%ssl%'` tells whether the server has TLS"
            }
            Kind::PasswordExpired => "set a new one: `ALTER USER … IDENTIFIED BY …`",
            Kind::AccountLocked => "`ALTER USER … ACCOUNT UNLOCK`",
            Kind::AuthenticationPlugin => {
                "use an account with mysql_native_password, caching_sha2_password or ed25519"
            }
            Kind::ShuttingDown => "wait until it is back; `SHOW VARIABLES LIKE 'offline_mode'`",
            Kind::ServerError | Kind::Other => "the text above is the server's or driver's own",
        }
    }

    /// The same as a finding has it, about `server`.
    #[must_use]
    pub fn explained(&self, server: SocketAddr) -> Explained {
        let step = self.next_step();
        let mut letters = step.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        Explained {
            errno: self.errno,
            text: self.text.clone(),
            meaning: self.meaning(server),
            next_step: format!("{}{}.", first.unwrap_or_default(), letters.as_str()),
        }
    }

    fn system_words(&self) -> String {
        errno_words(self.errno.unwrap_or(0))
    }
}

impl Cause {
    fn of(error: &mysql::Error) -> Self {
        use mysql::Error::{CodecError, DriverError as Driver, IoError, MySqlError, TlsError};
        match error {
            MySqlError(server) => Self::Server {
                code: server.code,
                state: server.state.clone(),
                message: server.message.clone(),
            },
            Driver(DriverError::ConnectTimeout) => Self::Errno(Errno::ETIMEDOUT as i32),
            Driver(DriverError::CouldNotConnect(Some((_, text, _)))) => {
                os_error(text).map_or_else(|| Self::Other(text.clone()), Self::Errno)
            }
            Driver(
                DriverError::UnsupportedProtocol(_)
                | DriverError::UnexpectedPacket
                | DriverError::PacketOutOfSync
                | DriverError::CouldNotParseVersion
                | DriverError::Protocol41NotSet,
            ) => Self::NotMysql,
            Driver(DriverError::TlsNotSupported) => {
                Self::Tls("the server does not support it".into())
            }
            Driver(DriverError::UnknownAuthPlugin(name)) => Self::Plugin(name.clone()),
            Driver(DriverError::OldMysqlPasswordDisabled) => {
                Self::Plugin("mysql_old_password".into())
            }
            Driver(other) => Self::Other(other.to_string()),
            TlsError(mysql::error::tls::TlsError::Tls(error)) => Self::Tls(error.to_string()),
            TlsError(error) => Self::Tls(error.to_string()),
            IoError(error) => Self::of_io(error),
            CodecError(codec) => {
                let source = std::error::Error::source(codec);
                match source.and_then(|source| source.downcast_ref::<io::Error>()) {
                    Some(error) => Self::of_io(error),
                    None => Self::NotMysql,
                }
            }
            other => Self::Other(other.to_string()),
        }
    }

    /// An error on a connection that was open already.
    fn of_io(error: &io::Error) -> Self {
        let source = error.get_ref();
        if let Some(tls) = source.and_then(|source| source.downcast_ref::<rustls::Error>()) {
            return Self::Tls(tls.to_string());
        }
        match error.kind() {
            // Garbage where a greeting should be.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::NotMysql,
            _ => Self::Lost(error.raw_os_error()),
        }
    }

    fn kind(&self, flow_is_full: impl FnOnce() -> bool) -> FailureKind {
        use FailureKind as Kind;
        match self {
            Self::Errno(number) => match Errno::from_raw(*number) {
                Errno::EADDRNOTAVAIL if flow_is_full() => Kind::EphemeralPortsExhausted,
                Errno::EADDRNOTAVAIL => Kind::AddressNotAvailable,
                Errno::EADDRINUSE => Kind::SourcePortsExhausted,
                Errno::ECONNRESET => Kind::LostDuringHandshake,
                Errno::ECONNREFUSED => Kind::ConnectionRefused,
                // 22 comes of a blackhole route, whose packets vanish (net/ipv4/fib_semantics.c).
                Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EINVAL => Kind::NoRoute,
                Errno::ETIMEDOUT => Kind::NoAnswer,
                Errno::EMFILE | Errno::ENFILE => Kind::TooManyOpenFiles,
                Errno::EACCES | Errno::EPERM => Kind::PermissionDenied,
                _ => Kind::Other,
            },
            Self::Server { code, .. } => match code {
                1040 => Kind::TooManyConnections,
                1129 => Kind::HostBlocked,
                1130 => Kind::HostNotAllowed,
                1045 | 1698 => Kind::AccessDenied,
                1044 | 1049 => Kind::NoSuchDatabase,
                1203 | 1226 => Kind::UserLimit,
                3159 => Kind::TlsRequired,
                1820 | 1862 => Kind::PasswordExpired,
                3118 | 4151 => Kind::AccountLocked,
                1251 | 1275 | 1524 => Kind::AuthenticationPlugin,
                1053 | 3032 => Kind::ShuttingDown,
                _ => Kind::ServerError,
            },
            Self::Lost(_) => Kind::LostDuringHandshake,
            Self::NotMysql => Kind::NotMysql,
            Self::Tls(_) => Kind::TlsFailed,
            Self::Plugin(_) => Kind::AuthenticationPlugin,
            Self::Other(_) => Kind::Other,
        }
    }
}

/// The number in the text of an [`io::Error`], `… (os error 99)`: the crate passes on nothing else.
fn os_error(text: &str) -> Option<i32> {
    let (_, rest) = text.rsplit_once("(os error ")?;
    rest.split_once(')')?.0.parse().ok()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(errno: i32) -> mysql::Error {
        let error = io::Error::from_raw_os_error(errno);
        mysql::Error::DriverError(DriverError::CouldNotConnect(Some((
            "192.0.2.1:3306".into(),
            error.to_string(),
            error.kind(),
        ))))
    }

    fn server(code: u16) -> mysql::Error {
        mysql::Error::MySqlError(mysql::error::MySqlError {
            state: "08004".into(),
            message: "no".into(),
            code,
        })
    }

    #[test]
    fn every_look_alike_is_told_apart() {
        use FailureKind as Kind;
        for (error, full, kind, errno, code) in [
            (
                connect(99),
                true,
                Kind::EphemeralPortsExhausted,
                Some(99),
                None,
            ),
            (
                connect(99),
                false,
                Kind::AddressNotAvailable,
                Some(99),
                None,
            ),
            (
                connect(98),
                true,
                Kind::SourcePortsExhausted,
                Some(98),
                None,
            ),
            (connect(111), true, Kind::ConnectionRefused, Some(111), None),
            (connect(113), true, Kind::NoRoute, Some(113), None),
            (connect(101), true, Kind::NoRoute, Some(101), None),
            (connect(22), true, Kind::NoRoute, Some(22), None),
            (connect(110), true, Kind::NoAnswer, Some(110), None),
            (
                mysql::Error::DriverError(DriverError::ConnectTimeout),
                true,
                Kind::NoAnswer,
                Some(110),
                None,
            ),
            (connect(24), true, Kind::TooManyOpenFiles, Some(24), None),
            (connect(13), true, Kind::PermissionDenied, Some(13), None),
            (connect(5), true, Kind::Other, Some(5), None),
            (
                connect(104),
                true,
                Kind::LostDuringHandshake,
                Some(104),
                None,
            ),
            (
                server(1040),
                true,
                Kind::TooManyConnections,
                None,
                Some(1040),
            ),
            (server(1129), true, Kind::HostBlocked, None, Some(1129)),
            (server(1045), true, Kind::AccessDenied, None, Some(1045)),
            (server(1203), true, Kind::UserLimit, None, Some(1203)),
            (server(1130), true, Kind::HostNotAllowed, None, Some(1130)),
            (server(1049), true, Kind::NoSuchDatabase, None, Some(1049)),
            (server(3159), true, Kind::TlsRequired, None, Some(3159)),
            (server(1862), true, Kind::PasswordExpired, None, Some(1862)),
            (server(4151), true, Kind::AccountLocked, None, Some(4151)),
            (
                server(1251),
                true,
                Kind::AuthenticationPlugin,
                None,
                Some(1251),
            ),
            (server(1053), true, Kind::ShuttingDown, None, Some(1053)),
            (server(1064), true, Kind::ServerError, None, Some(1064)),
            (
                DriverError::TlsNotSupported.into(),
                true,
                Kind::TlsFailed,
                None,
                None,
            ),
            (
                DriverError::UnknownAuthPlugin("auth_gssapi_client".into()).into(),
                true,
                Kind::AuthenticationPlugin,
                None,
                None,
            ),
        ] {
            let failure = Failure::new(&error, "db", Protocol::Mysql, || full);
            assert_eq!(
                (failure.kind, failure.errno, failure.mysql_code),
                (kind, errno, code),
                "{error}"
            );
        }
    }

    #[test]
    fn exhaustion_is_told_in_the_applications_words() {
        let failure = Failure::new(&connect(99), "db.example", Protocol::Mysql, || true);
        assert_eq!(
            failure.text,
            "ERROR 2003 (HY000): Can't connect to MySQL server on 'db.example' (99)"
        );
        assert_eq!(
            failure.meaning("192.0.2.1:3306".parse().unwrap()),
            "Cannot assign requested address (errno 99): every local port toward 192.0.2.1:3306 is taken."
        );
    }
}
