use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::cause::{Call, Cause, Stage, TlsTrouble};
use super::protocol::Protocol;
use super::wire::PATIENCE;
use crate::judge::destination::Explained;
use crate::judge::toward::Shortage;
use crate::words::{errno_words, printable};

/// What made a connection fail: each has another cure, and a row of [`FAILURES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// errno 99: every port of the flow is taken.
    EphemeralPortsExhausted,
    /// errno 99: the ports that the flow does not take are held by bind().
    PortsHeldByBind,
    /// errno 99: every port is reserved.
    PortsReserved,
    /// errno 99, and nothing that was seen says why.
    NoPortUnexplained,
    /// errno 98 from a socket bound to a source address: the ports of that address are taken.
    SourcePortsExhausted,
    /// errno 99 without an address to go from.
    AddressNotAvailable,
    /// errno 99 of bind(): the source address is none of this machine's.
    SourceNotHere,
    /// errno 97: this kernel has no IPv6.
    NoIpv6,
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
    /// Connected, then cut off before the login had ended.
    LostDuringHandshake,
    /// Connected, then slow or silent behind the greeting.
    SlowHandshake,
    /// Connected, and not greeted: a slow server, or one that waits for the client to speak.
    NoGreeting,
    /// Connected, and the time of the whole run was over first.
    TooLittleTime,
    /// All the connections of a pool were lent for too long.
    PoolTooSmall,
    /// Something else than MySQL answered.
    NotMysql,
    /// The server is full.
    TooManyConnections,
    /// Too many connections broke off before the login.
    HostBlocked,
    /// No user may come from here.
    HostNotAllowed,
    /// The user or the password is wrong.
    AccessDenied,
    /// Likewise, or the certificate that the account demands is missing.
    AccessDeniedUnderTls,
    /// The account is proved by the unix socket, never over TCP.
    SocketAccount,
    /// The database is not there, or not for this user.
    NoSuchDatabase,
    /// The user has as many connections as it may have.
    UserLimit,
    /// The user has used up what it may do in an hour.
    HourlyLimit,
    /// The server takes no connection without TLS.
    TlsRequired,
    /// The server has no TLS.
    TlsNotOffered,
    /// TLS did not come about for another reason.
    TlsFailed,
    /// The two have no version or cipher of TLS in common.
    TlsNothingInCommon,
    /// The server does not accept this client's certificate.
    TlsClientCertificate,
    /// The server does not know who signed this client's certificate.
    TlsClientUnknown,
    /// The server demands a certificate of the client.
    TlsClientCertificateRequired,
    /// The certificate is for other names.
    TlsWrongName,
    /// The certificate is for no name.
    TlsNoName,
    /// Nobody who is trusted has signed the certificate.
    TlsUnknownIssuer,
    /// The password is too old.
    PasswordExpired,
    /// The password does not go under the key of the server.
    PasswordNotSent,
    /// The account is locked.
    AccountLocked,
    /// A plugin that twcheck does not speak.
    AuthenticationPlugin,
    /// A plugin that the server does not have.
    PluginNotLoaded,
    /// A proxy cannot reach its server.
    ProxyCannotConnect,
    /// A proxy says that it met errno 99.
    ProxyOutOfPorts,
    /// The server did not understand how the login began.
    OutOfStep,
    /// The server goes down, or is closed to users.
    ShuttingDown,
    /// Any other error of a server.
    ServerError,
    /// Anything else.
    Other,
}

/// A kind of failure: how it is recognised, what it means, and what to do about it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its kind.
    pub kind: FailureKind,
    /// Numbers of the system that mean it; where two kinds share one, it depends on more.
    pub errnos: &'static [i32],
    /// Numbers of MySQL or MariaDB that mean it.
    pub codes: &'static [u16],
    /// What it means. `{server}` is where the connection went to, `{address}` that without its port,
    /// `{error}` what the system calls it.
    pub meaning: &'static str,
    /// What to do.
    pub next_step: &'static str,
}

/// Every kind of failure.
pub const FAILURES: &[Row] = &[
    Row {
        kind: FailureKind::EphemeralPortsExhausted,
        errnos: &[99],
        codes: &[],
        meaning: "{error}: every local port toward {server} is taken.",
        next_step: "keep connections open (a pool); `twcheck advise` shows what else raises the \
                    limit",
    },
    Row {
        kind: FailureKind::PortsHeldByBind,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, and the flow toward {server} is not full: the ports that it does not \
                  take are held by bind(), which connect() skips toward every destination.",
        next_step: "find who binds its source address (`twcheck verdict`: SOURCE_BOUND) and let it \
                    set IP_BIND_ADDRESS_NO_PORT before bind()",
    },
    Row {
        kind: FailureKind::PortsReserved,
        errnos: &[99],
        codes: &[],
        meaning: "{error}: every port of net.ipv4.ip_local_port_range is in \
                  net.ipv4.ip_local_reserved_ports, which connect() never takes.",
        next_step: "shorten net.ipv4.ip_local_reserved_ports, or widen net.ipv4.ip_local_port_range \
                    beyond it (`sysctl net.ipv4.ip_local_reserved_ports`)",
    },
    Row {
        kind: FailureKind::NoPortUnexplained,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, and why is not known: just after that neither did the flow toward {server} \
                  take its ports, nor were any seen that bind() holds. They may have come back at \
                  once, or somebody may have changed the ports or the addresses meanwhile.",
        next_step: "run it again; `twcheck verdict --connect` asks the kernel for a port",
    },
    Row {
        kind: FailureKind::SourcePortsExhausted,
        errnos: &[98],
        codes: &[],
        meaning: "Address already in use: the socket was bound to a source address first, and every \
                  port of that address is taken.",
        next_step: "do not bind the source address, or set IP_BIND_ADDRESS_NO_PORT before bind()",
    },
    Row {
        kind: FailureKind::AddressNotAvailable,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, but ports are free: this is not exhaustion. This machine has no address to \
                  reach {address} from.",
        next_step: "check `ip route get ADDRESS`; ::1 exists only where IPv6 is on: try 127.0.0.1",
    },
    Row {
        kind: FailureKind::SourceNotHere,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, of bind(): this is not exhaustion. The source address is none of this \
                  machine's.",
        next_step: "--bind-address with an address of this machine (`ip addr`)",
    },
    Row {
        kind: FailureKind::NoIpv6,
        errnos: &[97],
        codes: &[],
        meaning: "{address} is an address of IPv6, and this kernel has none: {error}. It was started \
                  with ipv6.disable=1, or built without.",
        next_step: "name an IPv4 address of the server, or a name that has one: 127.0.0.1, localhost",
    },
    Row {
        kind: FailureKind::ConnectionRefused,
        errnos: &[111],
        codes: &[],
        meaning: "{server} refuses connections: nothing listens there, or a firewall rejects them.",
        next_step: "check that the server runs, its port and its bind-address; and the firewalls on \
                    both machines (`nft list ruleset`) for a REJECT",
    },
    Row {
        kind: FailureKind::NoRoute,
        // 22 comes of a blackhole route, whose packets vanish (net/ipv4/fib_semantics.c).
        errnos: &[101, 113, 22],
        codes: &[],
        meaning: "There is no way to {address}: {error}.",
        next_step: "check `ip route get ADDRESS`, the firewall, and whether a --bind-address is one \
                    of this machine (`ip addr`)",
    },
    Row {
        kind: FailureKind::NoAnswer,
        errnos: &[110],
        codes: &[],
        meaning: "{server} does not answer. That is not about ports.",
        next_step: "look for a firewall that drops packets, a full conntrack or SNAT table, or a \
                    full listen queue on the server",
    },
    Row {
        kind: FailureKind::TooManyOpenFiles,
        errnos: &[24, 23],
        codes: &[],
        meaning: "No file descriptor is left for another socket.",
        next_step: "raise `ulimit -n`, or find who leaks descriptors",
    },
    Row {
        kind: FailureKind::PermissionDenied,
        errnos: &[1, 13],
        codes: &[],
        meaning: "This machine forbids connections to {server}: {error}.",
        next_step: "look for a prohibit route (`ip route get ADDRESS`), a local firewall rule, or a \
                    policy of the container or of SELinux",
    },
    Row {
        kind: FailureKind::LostDuringHandshake,
        errnos: &[104],
        codes: &[],
        meaning: "{server} took the connection, then cut it off.",
        next_step: "look into the server's error log, and for a proxy between here and there: one \
                    that cannot reach its server closes like this, perhaps because its own ports \
                    are gone (`twcheck verdict` there)",
    },
    Row {
        kind: FailureKind::SlowHandshake,
        errnos: &[],
        codes: &[],
        meaning: "{server} greeted, then was slow or fell silent. A login is given 10 s.",
        next_step: "look why it is slow: load, a plugin that asks another machine (PAM, LDAP), or a \
                    proxy between here and there",
    },
    Row {
        kind: FailureKind::NoGreeting,
        errnos: &[],
        codes: &[],
        meaning: "{server} took the connection, and did not greet as MySQL does. It is given 10 s.",
        next_step: "a server that waits for the client to speak first (HTTP, Redis, PostgreSQL, a \
                    proxy with accept-proxy) is not MySQL: `--protocol tcp`; where it is MySQL, look \
                    why it is slow: names that it looks up (skip_name_resolve), load, or a proxy",
    },
    Row {
        kind: FailureKind::TooLittleTime,
        errnos: &[],
        codes: &[],
        meaning: "{server} took the connection, and --duration was over before it had let the client \
                  in.",
        next_step: "give it more time (--duration 1min); a server that waits for the client to speak \
                    first (HTTP, Redis, PostgreSQL, a proxy with accept-proxy) is not MySQL: \
                    `--protocol tcp`",
    },
    Row {
        kind: FailureKind::PoolTooSmall,
        errnos: &[],
        codes: &[],
        meaning: "The pool is too small for so many threads, or the answers of {server} are slow. \
                  That is not about ports.",
        next_step: "give it more connections (--pool), or fewer threads (--threads); `SHOW \
                    PROCESSLIST` shows what the server is slow at",
    },
    Row {
        kind: FailureKind::NotMysql,
        errnos: &[],
        codes: &[],
        meaning: "{server} answers, but not as a MySQL server.",
        next_step: "check host and port, and that nothing in between puts its own words first (PROXY \
                    protocol); --protocol tcp connects to any server",
    },
    Row {
        kind: FailureKind::TooManyConnections,
        errnos: &[],
        codes: &[1040],
        meaning: "The server is at its max_connections.",
        next_step: "raise max_connections, or find who holds them: `SHOW PROCESSLIST`",
    },
    Row {
        kind: FailureKind::HostBlocked,
        errnos: &[],
        codes: &[1129],
        meaning: "The server has blocked this host: too many connections from it broke off before \
                  the login (max_connect_errors).",
        next_step: "find what breaks off handshakes here (a TCP health check?), then on the server: \
                    `TRUNCATE performance_schema.host_cache`, or `FLUSH HOSTS` on MariaDB",
    },
    Row {
        kind: FailureKind::HostNotAllowed,
        errnos: &[],
        codes: &[1130],
        meaning: "No user of the server may come from this host.",
        next_step: "look at the host part of the accounts: `SELECT user, host FROM mysql.user`",
    },
    Row {
        kind: FailureKind::AccessDenied,
        errnos: &[],
        codes: &[1045],
        meaning: "The server does not accept this user and password.",
        next_step: "check --user; the password goes in MYSQL_PWD, ~/.my.cnf, --password-file or \
                    --ask-password; an account with REQUIRE SSL says the same: try --tls; with \
                    REQUIRE X509: --tls-cert and --tls-key",
    },
    Row {
        kind: FailureKind::AccessDeniedUnderTls,
        errnos: &[],
        codes: &[],
        meaning: "The server does not accept this user and password; or the account demands another \
                  certificate of the client than it showed.",
        next_step: "check --user; the password goes in MYSQL_PWD, ~/.my.cnf, --password-file or \
                    --ask-password; `SHOW CREATE USER` tells which certificate it demands (REQUIRE \
                    X509, SUBJECT, ISSUER, CIPHER) of --tls-cert and --tls-key",
    },
    Row {
        kind: FailureKind::SocketAccount,
        errnos: &[],
        codes: &[1698],
        meaning: "This account logs in by the unix socket only, as the system's user of its name \
                  (unix_socket, auth_socket), or there is no password that it accepts.",
        next_step: "log in as a user with a password: `CREATE USER … IDENTIFIED BY …`",
    },
    Row {
        kind: FailureKind::NoSuchDatabase,
        errnos: &[],
        codes: &[1044, 1049],
        meaning: "The database does not exist, or this user may not use it.",
        next_step: "check --database, or leave it out: the loop needs none",
    },
    Row {
        kind: FailureKind::UserLimit,
        errnos: &[],
        codes: &[1203, 1226],
        meaning: "This user has as many connections as it may have.",
        next_step: "look at max_user_connections and the limits of `SHOW CREATE USER`; at a limit of \
                    one or few a login can come before the server has ended the session before: \
                    --rate 10 waits for it",
    },
    Row {
        kind: FailureKind::HourlyLimit,
        errnos: &[],
        codes: &[],
        meaning: "This user has used up what it may do in an hour.",
        next_step: "look at the limits of `SHOW CREATE USER`; `FLUSH USER_RESOURCES` sets what is \
                    counted back",
    },
    Row {
        kind: FailureKind::TlsRequired,
        errnos: &[],
        codes: &[3159],
        meaning: "The server takes no connection without TLS.",
        next_step: "add --tls, with --tls-ca FILE where the server's authority is private, or \
                    --tls=required where its certificate is one it made itself",
    },
    Row {
        kind: FailureKind::TlsNotOffered,
        errnos: &[],
        codes: &[],
        meaning: "{server} has no TLS.",
        next_step: "`SHOW VARIABLES LIKE '%ssl%'` tells whether it is switched off or lacks a \
                    certificate; to go on without: leave --tls out, or ssl-mode=DISABLED in the \
                    option file",
    },
    Row {
        kind: FailureKind::TlsFailed,
        errnos: &[],
        codes: &[],
        meaning: "TLS with {server} did not come about. Servers count each such attempt \
                  (max_connect_errors).",
        next_step: "look into the server's error log; --tls=required checks no certificate",
    },
    Row {
        kind: FailureKind::TlsNothingInCommon,
        errnos: &[],
        codes: &[],
        meaning: "{server} and this client have no version or cipher of TLS in common: here TLS 1.2 \
                  and 1.3 are spoken, with forward secrecy. Servers count each such attempt \
                  (max_connect_errors).",
        next_step: "on the server: `SHOW VARIABLES WHERE Variable_name IN ('tls_version', \
                    'ssl_cipher', 'tls_ciphersuites')`",
    },
    Row {
        kind: FailureKind::TlsClientCertificate,
        errnos: &[],
        codes: &[],
        meaning: "{server} does not accept this client's certificate. Servers count each such \
                  attempt (max_connect_errors).",
        next_step: "look at the certificate of --tls-cert, whether it has expired and what it is for: \
                    `openssl x509 -in FILE -noout -text`",
    },
    Row {
        kind: FailureKind::TlsClientUnknown,
        errnos: &[],
        codes: &[],
        meaning: "{server} does not know who signed this client's certificate. Servers count each \
                  such attempt (max_connect_errors).",
        next_step: "--tls-cert and --tls-key of a certificate that the server's own ssl_ca has \
                    signed; accounts without REQUIRE X509 need none",
    },
    Row {
        kind: FailureKind::TlsClientCertificateRequired,
        errnos: &[],
        codes: &[],
        meaning: "{server} demands a certificate of the client.",
        next_step: "--tls-cert and --tls-key",
    },
    Row {
        kind: FailureKind::TlsWrongName,
        errnos: &[],
        codes: &[],
        meaning: "The certificate of {server} is for another name. Servers count each such attempt \
                  (max_connect_errors).",
        next_step: "--host with a name of the certificate; or --tls=verify-ca with --tls-ca FILE, \
                    where who signed it is enough",
    },
    Row {
        kind: FailureKind::TlsNoName,
        errnos: &[],
        codes: &[],
        meaning: "The certificate of {server} has no name of a host (subjectAltName), as one that \
                  MySQL made itself. Servers count each such attempt (max_connect_errors).",
        next_step: "--tls=verify-ca with --tls-ca FILE, where who signed it is enough",
    },
    Row {
        kind: FailureKind::TlsUnknownIssuer,
        errnos: &[],
        codes: &[],
        meaning: "Nobody who is trusted here has signed the certificate of {server}. Servers count \
                  each such attempt (max_connect_errors).",
        next_step: "--tls-ca FILE with the server's authority (`SHOW VARIABLES LIKE 'ssl_ca'`), with \
                    --tls=verify-ca where it is MySQL's own; --tls=required where the server signs \
                    for itself, as MariaDB does",
    },
    Row {
        kind: FailureKind::PasswordExpired,
        errnos: &[],
        codes: &[1820, 1862],
        meaning: "The password is right, but has expired.",
        next_step: "set a new one: `ALTER USER … IDENTIFIED BY …`",
    },
    Row {
        kind: FailureKind::PasswordNotSent,
        errnos: &[],
        codes: &[],
        meaning: "Without TLS the password goes under the server's RSA key, and could not.",
        next_step: "--tls, under which it needs no such key",
    },
    Row {
        kind: FailureKind::AccountLocked,
        errnos: &[],
        codes: &[3118, 3955, 4150, 4151],
        meaning: "The account is locked, by ACCOUNT LOCK or after too many failed logins.",
        next_step: "`ALTER USER … ACCOUNT UNLOCK`; on MariaDB, after failed logins, `FLUSH PRIVILEGES`",
    },
    Row {
        kind: FailureKind::AuthenticationPlugin,
        errnos: &[],
        codes: &[1251, 1275, 2059],
        meaning: "The account proves who it is in a way that this client does not know. Or there is \
                  no such account: names that a server does not know get the plugin of another.",
        next_step: "check --user; use an account with caching_sha2_password, sha256_password, \
                    mysql_native_password, ed25519 or parsec",
    },
    Row {
        kind: FailureKind::PluginNotLoaded,
        errnos: &[],
        codes: &[1524],
        meaning: "The server itself does not have the plugin of this account loaded.",
        next_step: "on MariaDB: `INSTALL SONAME 'auth_ed25519'`, as the plugin is called, or `ALTER \
                    USER … IDENTIFIED VIA mysql_native_password USING PASSWORD('…')`; on MySQL: \
                    `INSTALL PLUGIN`, or `ALTER USER … IDENTIFIED WITH caching_sha2_password BY …`; \
                    MySQL 9 has no mysql_native_password any more",
    },
    Row {
        kind: FailureKind::ProxyCannotConnect,
        errnos: &[],
        codes: &[2002, 2003, 2005, 2013],
        meaning: "{server} is a proxy, and it is the proxy that cannot reach its server. Where it \
                  could before, its own ports are gone: errno 99 on that machine, not on this one.",
        next_step: "on the proxy's machine: `twcheck verdict`, then `twcheck advise`; where its \
                    ports are free, look whether the server behind it runs",
    },
    Row {
        kind: FailureKind::ProxyOutOfPorts,
        errnos: &[],
        codes: &[],
        meaning: "{server} is a proxy, and errno 99 came on its machine: every local port from \
                  there toward the server behind it is taken.",
        next_step: "on the proxy's machine: `twcheck verdict`, then `twcheck advise`; its pool, \
                    addresses and settings count, not this machine's",
    },
    Row {
        kind: FailureKind::OutOfStep,
        errnos: &[],
        codes: &[1043, 1156, 1158],
        meaning: "{server} did not understand the beginning of the login. Something between here \
                  and there may put its own words before it, as HAProxy's send-proxy does toward a \
                  server that does not expect it.",
        next_step: "on the proxy leave out send-proxy, or let the server expect it: \
                    proxy_protocol_networks on MariaDB; MySQL knows no PROXY protocol",
    },
    Row {
        kind: FailureKind::ShuttingDown,
        errnos: &[],
        codes: &[1053, 3032],
        meaning: "The server is going down, or is closed to users.",
        next_step: "wait until it is back; `SHOW VARIABLES LIKE 'offline_mode'`",
    },
    Row {
        kind: FailureKind::ServerError,
        errnos: &[],
        codes: &[],
        meaning: "The server said no.",
        next_step: "the text above is the server's own",
    },
    Row {
        kind: FailureKind::Other,
        errnos: &[],
        codes: &[],
        meaning: "The attempt failed on this machine.",
        next_step: "the text above says where",
    },
];

impl FailureKind {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        let found = FAILURES.iter().find(|row| row.kind == self);
        found.unwrap_or(&FAILURES[FAILURES.len() - 1])
    }
}

/// What is known of the flow that a connection could not join.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Whether there is an address of this machine to go from.
    pub has_source: bool,
    /// Why it has no port.
    pub shortage: Shortage,
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The system's number; `None` where the server or this client said no.
    pub errno: Option<i32>,
    /// The server's number; `None` where it said nothing.
    pub mysql_code: Option<u16>,
    /// The class.
    pub kind: FailureKind,
    /// As an application prints it.
    pub text: String,
}

impl Failure {
    /// Classifies the `cause` of a failed attempt to reach the server with this name and address.
    /// `flow` is asked only where it decides.
    pub fn new(
        cause: &Cause,
        (name, server): (&str, SocketAddr),
        protocol: Protocol,
        flow: impl FnOnce() -> Flow,
    ) -> Self {
        let (errno, mysql_code) = match cause {
            Cause::System { errno, .. } => (Some(*errno), None),
            Cause::Lost { errno, .. } => (*errno, None),
            Cause::Server(error) | Cause::DeniedUnderTls(error) => (None, Some(error.code)),
            _ => (None, None),
        };
        Self {
            errno,
            mysql_code,
            kind: kind(cause, flow),
            text: printable(&text(cause, name, server, protocol)),
        }
    }

    /// In plain words: what it means.
    #[must_use]
    pub fn meaning(&self, server: SocketAddr) -> String {
        let meaning = self.kind.row().meaning;
        meaning
            .replace("{server}", &server.to_string())
            .replace("{address}", &server.ip().to_string())
            .replace("{error}", &errno_words(self.errno.unwrap_or(0)))
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        self.kind.row().next_step
    }

    /// Whether ports ran out, of whatever kind.
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::EphemeralPortsExhausted
                | FailureKind::PortsHeldByBind
                | FailureKind::PortsReserved
                | FailureKind::SourcePortsExhausted
        )
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

fn kind(cause: &Cause, flow: impl FnOnce() -> Flow) -> FailureKind {
    use FailureKind as Kind;
    const EADDRNOTAVAIL: i32 = 99;
    match cause {
        Cause::System {
            call: Call::Bind,
            errno: EADDRNOTAVAIL,
        } => Kind::SourceNotHere,
        Cause::System {
            errno: EADDRNOTAVAIL,
            ..
        } => match flow() {
            Flow {
                has_source: false, ..
            } => Kind::AddressNotAvailable,
            Flow { shortage, .. } => match shortage {
                Shortage::Taken => Kind::EphemeralPortsExhausted,
                Shortage::HeldByBind => Kind::PortsHeldByBind,
                Shortage::Reserved => Kind::PortsReserved,
                Shortage::Unknown => Kind::NoPortUnexplained,
            },
        },
        Cause::System { errno, .. } => of(|row| row.errnos.contains(errno)).unwrap_or(Kind::Other),
        // What MySQL Router passes on: "… (99)".
        Cause::Server(error)
            if matches!(error.code, 2002 | 2003) && error.message.contains("(99)") =>
        {
            Kind::ProxyOutOfPorts
        }
        // MariaDB: "Proxy header is not accepted from …".
        Cause::Server(error) if error.code == 1130 && error.message.contains("Proxy header") => {
            Kind::OutOfStep
        }
        Cause::Server(error) if error.code == 1226 && !cause.is_want_of_room() => Kind::HourlyLimit,
        Cause::Server(error) => {
            of(|row| row.codes.contains(&error.code)).unwrap_or(Kind::ServerError)
        }
        Cause::DeniedUnderTls(_) => Kind::AccessDeniedUnderTls,
        Cause::Lost { .. } => Kind::LostDuringHandshake,
        Cause::Slow { after, .. } if *after < PATIENCE => Kind::TooLittleTime,
        Cause::Slow {
            stage: Stage::Greeting,
            ..
        } => Kind::NoGreeting,
        Cause::Slow { .. } => Kind::SlowHandshake,
        Cause::PoolNotOpen { .. } => Kind::SlowHandshake,
        Cause::PoolBusy { .. } => Kind::PoolTooSmall,
        Cause::NotMysql => Kind::NotMysql,
        Cause::Tls(trouble) => match trouble {
            TlsTrouble::WrongName(_) => Kind::TlsWrongName,
            TlsTrouble::NoName(_) => Kind::TlsNoName,
            TlsTrouble::UnknownIssuer(_) => Kind::TlsUnknownIssuer,
            TlsTrouble::NotOffered => Kind::TlsNotOffered,
            TlsTrouble::NothingInCommon(_) => Kind::TlsNothingInCommon,
            TlsTrouble::ClientCertificate(_) => Kind::TlsClientCertificate,
            TlsTrouble::ClientUnknown(_) => Kind::TlsClientUnknown,
            TlsTrouble::ClientCertificateRequired(_) => Kind::TlsClientCertificateRequired,
            TlsTrouble::Other(_) => Kind::TlsFailed,
        },
        Cause::Plugin(_) => Kind::AuthenticationPlugin,
        Cause::Unsendable(_) => Kind::PasswordNotSent,
        Cause::Other(_) => Kind::Other,
    }
}

fn of(is_it: impl Fn(&Row) -> bool) -> Option<FailureKind> {
    FAILURES.iter().find(|row| is_it(row)).map(|row| row.kind)
}

/// What an application prints: in the words of the mysql client where it has some.
fn text(cause: &Cause, name: &str, server: SocketAddr, protocol: Protocol) -> String {
    match cause {
        Cause::System { errno, .. } if protocol == Protocol::Tcp => {
            format!("connect to {name}: {}", errno_words(*errno))
        }
        Cause::System { errno, .. } => format!(
            "ERROR 2003 (HY000): Can't connect to MySQL server on '{name}:{}' ({errno})",
            server.port()
        ),
        Cause::Server(_) | Cause::DeniedUnderTls(_) => in_words(cause),
        Cause::Lost { stage, errno } => {
            let at = match stage {
                Stage::Greeting => "reading initial communication packet",
                Stage::Tls | Stage::Login => "reading authorization packet",
                Stage::Question => {
                    return "ERROR 2013 (HY000): Lost connection to MySQL server during query"
                        .into();
                }
            };
            format!(
                "ERROR 2013 (HY000): Lost connection to MySQL server at '{at}', system error: {}",
                errno.unwrap_or(0)
            )
        }
        Cause::Slow { stage, after } => format!(
            "'{name}' had not finished {stage} after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::PoolNotOpen {
            opened,
            size,
            after,
        } => format!(
            "only {opened} of the pool's {size} connections were open after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::PoolBusy { size, after } => format!(
            "no connection of the pool came free within {:.1} s: all {size} were lent",
            after.as_secs_f64()
        ),
        Cause::NotMysql => format!("'{name}' does not speak the MySQL protocol"),
        Cause::Tls(trouble) => format!("ERROR 2026 (HY000): TLS/SSL error: {trouble}"),
        Cause::Plugin(plugin) => format!(
            "ERROR 2059 (HY000): Authentication plugin '{plugin}' cannot be loaded: twcheck does \
             not speak it"
        ),
        Cause::Unsendable(why) => format!("the password cannot be sent: {why}"),
        Cause::Other(text) => text.clone(),
    }
}

/// Why the watching connection ended.
pub(super) fn in_words(cause: &Cause) -> String {
    printable(&match cause {
        Cause::Server(error) | Cause::DeniedUnderTls(error) => {
            format!("ERROR {} ({}): {}", error.code, error.state, error.message)
        }
        Cause::Slow { stage, after } => format!(
            "the server had not finished {stage} after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::NotMysql => "the server answered as no MySQL server does".into(),
        _ => "the server broke off the watching connection".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mysql::MySqlError;

    use super::*;

    fn system(errno: i32) -> Cause {
        Cause::System {
            call: Call::Connect,
            errno,
        }
    }

    fn server(code: u16, message: &str) -> Cause {
        Cause::Server(MySqlError {
            state: "08004".into(),
            message: message.into(),
            code,
        })
    }

    fn told(cause: &Cause, flow: Flow) -> Failure {
        let address = "192.0.2.1:3306".parse().unwrap();
        Failure::new(cause, ("db", address), Protocol::Mysql, || flow)
    }

    const FULL: Flow = Flow {
        has_source: true,
        shortage: Shortage::Taken,
    };

    #[test]
    fn every_kind_is_one_row_and_no_number_means_two_things_by_itself() {
        let mut codes: Vec<u16> = Vec::new();
        for (place, row) in FAILURES.iter().enumerate() {
            let first = FAILURES.iter().position(|other| other.kind == row.kind);
            assert_eq!(first, Some(place), "{:?}", row.kind);
            codes.extend(row.codes);
            assert!(row.meaning.ends_with('.') && !row.next_step.ends_with('.'));
        }
        let numbers = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), numbers);
    }

    #[test]
    fn every_look_alike_is_told_apart() {
        use FailureKind as Kind;
        let lost = Cause::Lost {
            stage: Stage::Login,
            errno: Some(104),
        };
        let slow = |stage, seconds| Cause::Slow {
            stage,
            after: Duration::from_secs(seconds),
        };
        for (cause, kind) in [
            (system(98), Kind::SourcePortsExhausted),
            (system(97), Kind::NoIpv6),
            (system(111), Kind::ConnectionRefused),
            (system(113), Kind::NoRoute),
            (system(101), Kind::NoRoute),
            (system(22), Kind::NoRoute),
            (system(110), Kind::NoAnswer),
            (system(24), Kind::TooManyOpenFiles),
            (system(13), Kind::PermissionDenied),
            (system(104), Kind::LostDuringHandshake),
            (system(5), Kind::Other),
            (lost, Kind::LostDuringHandshake),
            (slow(Stage::Greeting, 3), Kind::TooLittleTime),
            (slow(Stage::Login, 3), Kind::TooLittleTime),
            (slow(Stage::Greeting, 10), Kind::NoGreeting),
            (slow(Stage::Login, 10), Kind::SlowHandshake),
            (
                server(1226, "has exceeded the 'max_connections_per_hour' resource"),
                Kind::HourlyLimit,
            ),
            (
                server(1226, "has exceeded the 'max_user_connections' resource"),
                Kind::UserLimit,
            ),
            (server(1203, "no"), Kind::UserLimit),
            (server(1698, "no"), Kind::SocketAccount),
            (Cause::NotMysql, Kind::NotMysql),
            (server(1040, "no"), Kind::TooManyConnections),
            (server(1045, "no"), Kind::AccessDenied),
            (server(4150, "no"), Kind::AccountLocked),
            (server(3955, "no"), Kind::AccountLocked),
            (server(1524, "no"), Kind::PluginNotLoaded),
            (
                server(1130, "Host 'a' is not allowed"),
                Kind::HostNotAllowed,
            ),
            (
                server(1130, "Proxy header is not accepted from a"),
                Kind::OutOfStep,
            ),
            (
                server(2003, "Can't connect (111)"),
                Kind::ProxyCannotConnect,
            ),
            (server(2003, "Can't connect (99)"), Kind::ProxyOutOfPorts),
            (server(1064, "no"), Kind::ServerError),
            (Cause::Plugin("dialog".into()), Kind::AuthenticationPlugin),
        ] {
            assert_eq!(told(&cause, FULL).kind, kind, "{cause:?}");
        }
    }

    #[test]
    fn errno_99_is_exhaustion_wherever_there_is_an_address_to_go_from() {
        use FailureKind as Kind;
        let bind = Cause::System {
            call: Call::Bind,
            errno: 99,
        };
        let flow = |has_source, shortage| Flow {
            has_source,
            shortage,
        };
        let has = |shortage| flow(true, shortage);
        for (cause, flow, kind) in [
            (system(99), FULL, Kind::EphemeralPortsExhausted),
            (system(99), has(Shortage::HeldByBind), Kind::PortsHeldByBind),
            (system(99), has(Shortage::Reserved), Kind::PortsReserved),
            (system(99), has(Shortage::Unknown), Kind::NoPortUnexplained),
            (
                system(99),
                flow(false, Shortage::Taken),
                Kind::AddressNotAvailable,
            ),
            (bind, FULL, Kind::SourceNotHere),
        ] {
            let failure = told(&cause, flow);
            assert_eq!(failure.kind, kind, "{cause:?} {flow:?}");
            let is_open = matches!(
                kind,
                Kind::AddressNotAvailable | Kind::SourceNotHere | Kind::NoPortUnexplained
            );
            assert_eq!(failure.is_exhaustion(), !is_open);
        }
    }

    #[test]
    fn exhaustion_is_told_in_the_applications_words() {
        let failure = told(&system(99), FULL);
        assert_eq!(
            failure.text,
            "ERROR 2003 (HY000): Can't connect to MySQL server on 'db:3306' (99)"
        );
        assert_eq!(
            failure.meaning("192.0.2.1:3306".parse().unwrap()),
            "Cannot assign requested address (errno 99): every local port toward 192.0.2.1:3306 is \
             taken."
        );
    }
}
