//! Every way in which a connection fails: one row for each, for those who meet it and for those who
//! read of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What made a connection fail: each has another cure, and a row of [`FAILURES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// errno 98 of a listener: somebody has its port.
    PortInUse,
    /// The name has no address.
    NameNotFound,
    /// No name server has answered.
    NameServerSilent,
    /// Connected, then cut off in the middle of its work.
    ConnectionLost,
    /// Connected, and the answer took too long.
    SlowAnswer,
    /// The application's own pool has no connection left to give.
    PoolExhausted,
    /// The listener's queue is full.
    ListenQueueFull,
    /// The unix socket is not there.
    UnixSocketMissing,
    /// Connection tracking is full.
    ConntrackFull,
    /// TIME_WAIT is dropped.
    TimeWaitDropped,
    /// errno 105: the kernel has no memory for it.
    NoBufferSpace,
    /// It failed, and the text does not say why.
    ReasonUntold,
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
    /// How the messages of other programs tell it; `None` where they tell it as another kind.
    pub in_logs: Option<InLogs>,
}

/// A kind of failure as the messages of other programs tell it.
#[derive(Debug, Clone, Copy)]
pub struct InLogs {
    /// What they say, in the words that people search for.
    pub words: &'static str,
    /// What it means. `{server}` is where the connection went to.
    pub meaning: &'static str,
    /// Which command to run next, or what to look at. `{asked}` is the server as an argument, with a
    /// blank before it; empty where it is not told.
    pub next_step: &'static str,
}

const fn told(words: &'static str, meaning: &'static str, next_step: &'static str) -> InLogs {
    InLogs {
        words,
        meaning,
        next_step,
    }
}

/// A kind that the messages of other programs tell, and no run of twcheck meets.
const fn of_others(
    kind: FailureKind,
    words: &'static str,
    meaning: &'static str,
    next_step: &'static str,
) -> Row {
    Row {
        kind,
        errnos: &[],
        codes: &[],
        meaning,
        next_step,
        in_logs: Some(told(words, meaning, next_step)),
    }
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
        in_logs: Some(told(
            "Can't connect to MySQL server on '…' (99); Can't connect to server on '…' (99); \
             Cannot assign requested address; [Errno 99]; os error 99; EADDRNOTAVAIL; no free \
             ports",
            "connect() found no local port toward {server}. As far as the text goes every one \
             is taken, most often by TIME_WAIT of connections that are opened and closed too \
             fast.",
            "`twcheck verdict{asked}` on the machine that said so, while it lasts: only a full \
             flow proves it. Where it came on the first try, or ports are free, the address is \
             what is missing (::1 without IPv6, a source address that is not there)",
        )),
    },
    Row {
        kind: FailureKind::PortsHeldByBind,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, and the flow toward {server} is not full: the ports that it does not \
                  take are held by bind(), which connect() skips toward every destination.",
        next_step: "find who binds its source address (`twcheck verdict`: SOURCE_BOUND) and let it \
                    set IP_BIND_ADDRESS_NO_PORT before bind()",
        in_logs: None,
    },
    Row {
        kind: FailureKind::PortsReserved,
        errnos: &[99],
        codes: &[],
        meaning: "{error}: every port of net.ipv4.ip_local_port_range is in \
                  net.ipv4.ip_local_reserved_ports, which connect() never takes.",
        next_step: "shorten net.ipv4.ip_local_reserved_ports, or widen net.ipv4.ip_local_port_range \
                    beyond it (`sysctl net.ipv4.ip_local_reserved_ports`)",
        in_logs: None,
    },
    Row {
        kind: FailureKind::NoPortUnexplained,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, and why is not known: just after that neither did the flow toward {server} \
                  take its ports, nor were any seen that bind() holds. They may have come back at \
                  once, or somebody may have changed the ports or the addresses meanwhile.",
        next_step: "run it again; `twcheck verdict --connect` asks the kernel for a port",
        in_logs: None,
    },
    Row {
        kind: FailureKind::SourcePortsExhausted,
        errnos: &[98],
        codes: &[],
        meaning: "Address already in use: the socket was bound to a source address first, and every \
                  port of that address is taken.",
        next_step: "do not bind the source address, or set IP_BIND_ADDRESS_NO_PORT before bind()",
        in_logs: Some(told(
            "connect: Address already in use; dial tcp …: bind: address already in use; bind(…) \
             failed (98) while connecting; local address already in use",
            "The client bound its source address before connect(), and every port of that \
             address is taken, whatever the destination.",
            "`twcheck verdict` on that machine (SOURCE_BOUND); let the client not bind its \
             address, or set IP_BIND_ADDRESS_NO_PORT before bind()",
        )),
    },
    Row {
        kind: FailureKind::AddressNotAvailable,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, but ports are free: this is not exhaustion. This machine has no address to \
                  reach {address} from.",
        next_step: "check `ip route get ADDRESS`; ::1 exists only where IPv6 is on: try 127.0.0.1",
        in_logs: Some(told(
            "bind: cannot assign requested address; bind() to … failed (99); Failed to create \
             TCP listener; error while attempting to bind on address",
            "bind() was asked for an address that this machine does not have. Ports have \
             nothing to do with it.",
            "`ip addr` on that machine, beside the address in the configuration: a public \
             address behind NAT, ::1 without IPv6, or one that is not up yet \
             (net.ipv4.ip_nonlocal_bind)",
        )),
    },
    Row {
        kind: FailureKind::SourceNotHere,
        errnos: &[99],
        codes: &[],
        meaning: "{error}, of bind(): this is not exhaustion. The source address is none of this \
                  machine's.",
        next_step: "--bind-address with an address of this machine (`ip addr`)",
        in_logs: None,
    },
    Row {
        kind: FailureKind::NoIpv6,
        errnos: &[97],
        codes: &[],
        meaning: "{address} is an address of IPv6, and this kernel has none: {error}. It was started \
                  with ipv6.disable=1, or built without.",
        next_step: "name an IPv4 address of the server, or a name that has one: 127.0.0.1, localhost",
        in_logs: Some(told(
            "Address family not supported by protocol; (97); [Errno 97]; EAFNOSUPPORT",
            "{server} has an address of IPv6, and the kernel of the client none: it was started with \
             ipv6.disable=1, or built without.",
            "`cat /proc/net/if_inet6` on that machine: it is missing; let the client use an IPv4 address",
        )),
    },
    Row {
        kind: FailureKind::ConnectionRefused,
        errnos: &[111],
        codes: &[],
        meaning: "{server} refuses connections: nothing listens there, or a firewall rejects them.",
        next_step: "check that the server runs, its port and its bind-address; and the firewalls on \
                    both machines (`nft list ruleset`) for a REJECT",
        in_logs: Some(told(
            "Connection refused; (111); [Errno 111]; ECONNREFUSED; actively refused it",
            "Nothing listens on {server}, or a firewall rejects it.",
            "on the server `ss -ltn`: whether it runs, on that port, and at that address; from \
             here `twcheck verdict{asked} --connect`",
        )),
    },
    Row {
        kind: FailureKind::NoRoute,
        // 22 comes of a blackhole route, whose packets vanish (net/ipv4/fib_semantics.c).
        errnos: &[101, 113, 22],
        codes: &[],
        meaning: "There is no way to {address}: {error}.",
        next_step: "check `ip route get ADDRESS`, the firewall, and whether a --bind-address is one \
                    of this machine (`ip addr`)",
        in_logs: Some(told(
            "No route to host; Network is unreachable; (113); (101); EHOSTUNREACH; ENETUNREACH",
            "There is no way to {server}, or a firewall says so.",
            "`ip route get ADDRESS`, and `twcheck verdict{asked}`, which asks the same",
        )),
    },
    Row {
        kind: FailureKind::NoAnswer,
        errnos: &[110],
        codes: &[],
        meaning: "{server} does not answer. That is not about ports.",
        next_step: "look for a firewall that drops packets, a full conntrack or SNAT table, or a \
                    full listen queue on the server",
        in_logs: Some(told(
            "Connection timed out; connect timed out; (110); ETIMEDOUT; i/o timeout; Operation \
             timed out",
            "{server} does not answer. Ports of this machine are not the reason.",
            "look for a firewall that drops packets, a full listen queue on the server, and a \
             full conntrack or SNAT table between: `twcheck verdict{asked}` tells of \
             SYN_SENT_PILE, CONNTRACK_FULL and NAT_FAILED here",
        )),
    },
    Row {
        kind: FailureKind::TooManyOpenFiles,
        errnos: &[24, 23],
        codes: &[],
        meaning: "No file descriptor is left for another socket.",
        next_step: "raise `ulimit -n`, or find who leaks descriptors",
        in_logs: Some(told(
            "Too many open files; [Errno 24]; EMFILE; ENFILE",
            "The process has no file descriptor left for another socket.",
            "`ls /proc/PID/fd | wc -l` beside `grep files /proc/PID/limits`: find the leak, or \
             raise LimitNOFILE; `twcheck verdict` tells of FILES_LOW and CLOSE_WAIT_LEAK",
        )),
    },
    Row {
        kind: FailureKind::PermissionDenied,
        errnos: &[1, 13],
        codes: &[],
        meaning: "This machine forbids connections to {server}: {error}.",
        next_step: "look for a prohibit route (`ip route get ADDRESS`), a local firewall rule, or a \
                    policy of the container or of SELinux",
        in_logs: Some(told(
            "connect: Permission denied; Operation not permitted; Can't create TCP/IP socket \
             (13)",
            "The machine forbids the connection to {server}: a firewall rule, a prohibit route, \
             SELinux or the container's policy; of a unix socket, its owner and mode.",
            "`ip route get ADDRESS`, `iptables -S OUTPUT`, `ausearch -m avc`; of a unix socket \
             `ls -l` of it",
        )),
    },
    Row {
        kind: FailureKind::LostDuringHandshake,
        errnos: &[104],
        codes: &[],
        meaning: "{server} took the connection, then cut it off.",
        next_step: "look into the server's error log, and for a proxy between here and there: one \
                    that cannot reach its server closes like this, perhaps because its own ports \
                    are gone (`twcheck verdict` there)",
        in_logs: Some(told(
            "Lost connection to MySQL server at 'reading initial communication packet'; at \
             'reading authorization packet'",
            "{server} took the connection, then cut it off before the login had ended.",
            "the server's error log, and a proxy between here and there: one that cannot reach \
             its server closes like this, perhaps because its own ports are gone (`twcheck \
             verdict` there)",
        )),
    },
    Row {
        kind: FailureKind::SlowHandshake,
        errnos: &[],
        codes: &[],
        meaning: "{server} greeted, then was slow or fell silent. A login is given 10 s.",
        next_step: "look why it is slow: load, a plugin that asks another machine (PAM, LDAP), or a \
                    proxy between here and there",
        in_logs: Some(told(
            "while SSL handshaking to upstream; TLS handshake timeout; Timeout was reached in \
             the handshake",
            "{server} took the connection, then was slow or fell silent before the login or TLS \
             had ended.",
            "look why it is slow: load, names that it looks up (skip_name_resolve), a proxy \
             between here and there",
        )),
    },
    Row {
        kind: FailureKind::NoGreeting,
        errnos: &[],
        codes: &[],
        meaning: "{server} took the connection, and did not greet as MySQL does. It is given 10 s.",
        next_step: "a server that waits for the client to speak first (HTTP, Redis, PostgreSQL, a \
                    proxy with accept-proxy) is not MySQL: `--protocol tcp --force`; where it is MySQL, look \
                    why it is slow: names that it looks up (skip_name_resolve), load, or a proxy",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TooLittleTime,
        errnos: &[],
        codes: &[],
        meaning: "{server} took the connection, and --duration was over before it had let the client \
                  in.",
        next_step: "give it more time (--duration 1min); a server that waits for the client to speak \
                    first (HTTP, Redis, PostgreSQL, a proxy with accept-proxy) is not MySQL: \
                    `--protocol tcp --force`",
        in_logs: None,
    },
    Row {
        kind: FailureKind::PoolTooSmall,
        errnos: &[],
        codes: &[],
        meaning: "The pool is too small for so many threads, or the answers of {server} are slow. \
                  That is not about ports.",
        next_step: "give it more connections (--pool), or fewer threads (--threads); `SHOW \
                    PROCESSLIST` shows what the server is slow at",
        in_logs: None,
    },
    Row {
        kind: FailureKind::NotMysql,
        errnos: &[],
        codes: &[],
        meaning: "{server} answers, but not as a MySQL server.",
        next_step: "check host and port, and that nothing in between puts its own words first (PROXY \
                    protocol); --protocol tcp connects to any server",
        in_logs: Some(told(
            "Packets out of order; Malformed packet; Protocol mismatch; Bad handshake",
            "{server} answers, but not as a MySQL server.",
            "check host and port, and that nothing in between puts its own words first (PROXY \
             protocol)",
        )),
    },
    Row {
        kind: FailureKind::TooManyConnections,
        errnos: &[],
        codes: &[1040],
        meaning: "The server is at its max_connections.",
        next_step: "raise max_connections, or find who holds them: `SHOW PROCESSLIST`",
        in_logs: Some(told(
            "Too many connections; ERROR 1040; sorry, too many clients already; remaining \
             connection slots are reserved; max number of clients reached",
            "The server answered: it has no room for another client (max_connections). Ports \
             have nothing to do with it.",
            "`SHOW PROCESSLIST`, `SELECT * FROM pg_stat_activity` or `CLIENT LIST` on the \
             server tells who holds them; pools that are too large in sum, or leak",
        )),
    },
    Row {
        kind: FailureKind::HostBlocked,
        errnos: &[],
        codes: &[1129],
        meaning: "The server has blocked this host: too many connections from it broke off before \
                  the login (max_connect_errors).",
        next_step: "find what breaks off handshakes here (a TCP health check?), then on the server: \
                    `TRUNCATE performance_schema.host_cache`, or `FLUSH HOSTS` on MariaDB",
        in_logs: Some(told(
            "Host '…' is blocked because of many connection errors; ERROR 1129",
            "The server has blocked the client's host: too many connections from it broke off \
             before the login (max_connect_errors).",
            "find what breaks off handshakes (a TCP health check?), then on the server: \
             `TRUNCATE performance_schema.host_cache`, or `FLUSH HOSTS` on MariaDB",
        )),
    },
    Row {
        kind: FailureKind::HostNotAllowed,
        errnos: &[],
        codes: &[1130],
        meaning: "No user of the server may come from this host.",
        next_step: "look at the host part of the accounts: `SELECT user, host FROM mysql.user`",
        in_logs: Some(told(
            "Host '…' is not allowed to connect to this MySQL server; ERROR 1130; no \
             pg_hba.conf entry for host",
            "The server takes nobody from that host.",
            "look at the host part of the accounts: `SELECT user, host FROM mysql.user`; on \
             PostgreSQL at pg_hba.conf",
        )),
    },
    Row {
        kind: FailureKind::AccessDenied,
        errnos: &[],
        codes: &[1045],
        meaning: "The server does not accept this user and password.",
        next_step: "check --user; the password goes in MYSQL_PWD, ~/.my.cnf, --password-file or \
                    --ask-password; an account with REQUIRE SSL says the same: try --tls; with \
                    REQUIRE X509: --tls-cert and --tls-key",
        in_logs: Some(told(
            "Access denied for user; ERROR 1045; password authentication failed for user; \
             WRONGPASS; NOAUTH",
            "The server answered: it does not accept this user and password.",
            "check user and password, and the host part of the account; one with REQUIRE SSL \
             says the same without TLS",
        )),
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
        in_logs: None,
    },
    Row {
        kind: FailureKind::SocketAccount,
        errnos: &[],
        codes: &[1698],
        meaning: "This account logs in by the unix socket only, as the system's user of its name \
                  (unix_socket, auth_socket), or there is no password that it accepts.",
        next_step: "log in as a user with a password: `CREATE USER … IDENTIFIED BY …`",
        in_logs: None,
    },
    Row {
        kind: FailureKind::NoSuchDatabase,
        errnos: &[],
        codes: &[1044, 1049],
        meaning: "The database does not exist, or this user may not use it.",
        next_step: "check --database, or leave it out: the loop needs none",
        in_logs: Some(told(
            "Unknown database; ERROR 1049; ERROR 1044; database \"…\" does not exist",
            "The database does not exist, or this user may not use it.",
            "check its name, and `SHOW GRANTS FOR` the user",
        )),
    },
    Row {
        kind: FailureKind::UserLimit,
        errnos: &[],
        codes: &[1203, 1226],
        meaning: "This user has as many connections as it may have.",
        next_step: "look at max_user_connections and the limits of `SHOW CREATE USER`; at a limit of \
                    one or few a login can come before the server has ended the session before: \
                    --rate 10 waits for it",
        in_logs: Some(told(
            "User … already has more than 'max_user_connections' active connections; ERROR \
             1203; ERROR 1226; too many connections for role",
            "This user is at its own limit on the server.",
            "look at max_user_connections and the limits of `SHOW CREATE USER`; on PostgreSQL \
             at CONNECTION LIMIT",
        )),
    },
    Row {
        kind: FailureKind::HourlyLimit,
        errnos: &[],
        codes: &[],
        meaning: "This user has used up what it may do in an hour.",
        next_step: "look at the limits of `SHOW CREATE USER`; `FLUSH USER_RESOURCES` sets what is \
                    counted back",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsRequired,
        errnos: &[],
        codes: &[3159],
        meaning: "The server takes no connection without TLS.",
        next_step: "add --tls, with --tls-ca FILE where the server's authority is private, or \
                    --tls=required where its certificate is one it made itself",
        in_logs: Some(told(
            "Connections using insecure transport are prohibited; ERROR 3159",
            "The server takes no connection without TLS.",
            "let the client use TLS",
        )),
    },
    Row {
        kind: FailureKind::TlsNotOffered,
        errnos: &[],
        codes: &[],
        meaning: "{server} has no TLS.",
        next_step: "`SHOW VARIABLES LIKE '%ssl%'` tells whether it is switched off or lacks a \
                    certificate; to go on without: leave --tls out, or ssl-mode=DISABLED in the \
                    option file",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsFailed,
        errnos: &[],
        codes: &[],
        meaning: "TLS with {server} did not come about. Servers count each such attempt \
                  (max_connect_errors).",
        next_step: "look into the server's error log; --tls=required checks no certificate",
        in_logs: Some(told(
            "SSL connection error; ERROR 2026; handshake failure; wrong version number",
            "TLS with {server} did not come about.",
            "`openssl s_client -connect HOST:PORT` shows what it speaks (MySQL: with `-starttls \
             mysql`)",
        )),
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
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsClientCertificate,
        errnos: &[],
        codes: &[],
        meaning: "{server} does not accept this client's certificate. Servers count each such \
                  attempt (max_connect_errors).",
        next_step: "look at the certificate of --tls-cert, whether it has expired and what it is for: \
                    `openssl x509 -in FILE -noout -text`",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsClientUnknown,
        errnos: &[],
        codes: &[],
        meaning: "{server} does not know who signed this client's certificate. Servers count each \
                  such attempt (max_connect_errors).",
        next_step: "--tls-cert and --tls-key of a certificate that the server's own ssl_ca has \
                    signed; accounts without REQUIRE X509 need none",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsClientCertificateRequired,
        errnos: &[],
        codes: &[],
        meaning: "{server} demands a certificate of the client.",
        next_step: "--tls-cert and --tls-key",
        in_logs: None,
    },
    Row {
        kind: FailureKind::TlsWrongName,
        errnos: &[],
        codes: &[],
        meaning: "The certificate of {server} is for another name. Servers count each such attempt \
                  (max_connect_errors).",
        next_step: "--host with a name of the certificate; or --tls=verify-ca with --tls-ca FILE, \
                    where who signed it is enough",
        in_logs: Some(told(
            "Hostname mismatch; certificate is valid for …, not …; does not match any of the \
             subject alternative names",
            "The certificate of {server} is for another name.",
            "connect by a name of the certificate, or let it be renewed with this one",
        )),
    },
    Row {
        kind: FailureKind::TlsNoName,
        errnos: &[],
        codes: &[],
        meaning: "The certificate of {server} has no name of a host (subjectAltName), as one that \
                  MySQL made itself. Servers count each such attempt (max_connect_errors).",
        next_step: "--tls=verify-ca with --tls-ca FILE, where who signed it is enough",
        in_logs: None,
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
        in_logs: Some(told(
            "certificate signed by unknown authority; self-signed certificate; unable to get \
             local issuer certificate; PKIX path building failed",
            "Nobody whom the client trusts has signed the certificate of {server}.",
            "give the client the server's authority; an expired intermediate looks the same",
        )),
    },
    Row {
        kind: FailureKind::PasswordExpired,
        errnos: &[],
        codes: &[1820, 1862],
        meaning: "The password is right, but has expired.",
        next_step: "set a new one: `ALTER USER … IDENTIFIED BY …`",
        in_logs: Some(told(
            "Your password has expired; ERROR 1862; ERROR 1820",
            "The password is right, but has expired.",
            "set a new one: `ALTER USER … IDENTIFIED BY …`",
        )),
    },
    Row {
        kind: FailureKind::PasswordNotSent,
        errnos: &[],
        codes: &[],
        meaning: "Without TLS the password goes under the server's RSA key, and could not.",
        next_step: "--tls, under which it needs no such key",
        in_logs: None,
    },
    Row {
        kind: FailureKind::AccountLocked,
        errnos: &[],
        codes: &[3118, 3955, 4150, 4151],
        meaning: "The account is locked, by ACCOUNT LOCK or after too many failed logins.",
        next_step: "`ALTER USER … ACCOUNT UNLOCK`; on MariaDB, after failed logins, `FLUSH PRIVILEGES`",
        in_logs: Some(told(
            "Account is locked; ERROR 3118; ERROR 4151",
            "The account is locked, by ACCOUNT LOCK or after too many failed logins.",
            "`ALTER USER … ACCOUNT UNLOCK`; on MariaDB, after failed logins, `FLUSH PRIVILEGES`",
        )),
    },
    Row {
        kind: FailureKind::AuthenticationPlugin,
        errnos: &[],
        codes: &[1251, 1275, 2059],
        meaning: "The account proves who it is in a way that this client does not know. Or there is \
                  no such account: names that a server does not know get the plugin of another.",
        next_step: "check --user; use an account with caching_sha2_password, sha256_password, \
                    mysql_native_password, ed25519 or parsec",
        in_logs: Some(told(
            "Authentication plugin '…' cannot be loaded; Client does not support authentication \
             protocol; ERROR 2059; ERROR 1251",
            "The account proves who it is in a way that the client does not know.",
            "a newer client, or an account with a plugin that it has: `SELECT user, host, \
             plugin FROM mysql.user`",
        )),
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
        in_logs: Some(told(
            "Plugin '…' is not loaded; ERROR 1524",
            "The server itself does not have the plugin of this account loaded.",
            "on the server: `ALTER USER … IDENTIFIED WITH caching_sha2_password BY …`; MySQL 9 \
             has no mysql_native_password any more",
        )),
    },
    Row {
        kind: FailureKind::ProxyCannotConnect,
        errnos: &[],
        codes: &[2002, 2003, 2005, 2013],
        meaning: "{server} is a proxy, and it is the proxy that cannot reach its server. Where it \
                  could before, its own ports are gone: errno 99 on that machine, not on this one.",
        next_step: "on the proxy's machine: `twcheck verdict`, then `twcheck advise`; where its \
                    ports are free, look whether the server behind it runs",
        in_logs: None,
    },
    Row {
        kind: FailureKind::ProxyOutOfPorts,
        errnos: &[],
        codes: &[],
        meaning: "{server} is a proxy, and errno 99 came on its machine: every local port from \
                  there toward the server behind it is taken.",
        next_step: "on the proxy's machine: `twcheck verdict`, then `twcheck advise`; its pool, \
                    addresses and settings count, not this machine's",
        in_logs: None,
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
        in_logs: Some(told(
            "Proxy header is not accepted; Got packets out of order; ERROR 1156",
            "The server did not understand the beginning of the login: something between may \
             put its own words before it, as HAProxy's send-proxy does.",
            "on the proxy leave out send-proxy, or let the server expect it: \
             proxy_protocol_networks on MariaDB",
        )),
    },
    Row {
        kind: FailureKind::ShuttingDown,
        errnos: &[],
        codes: &[1053, 3032],
        meaning: "The server is going down, or is closed to users.",
        next_step: "wait until it is back; `SHOW VARIABLES LIKE 'offline_mode'`",
        in_logs: Some(told(
            "Server shutdown in progress; ERROR 1053; the database system is starting up; the \
             database system is shutting down; LOADING Redis is loading",
            "The server goes down, comes up, or is closed to users.",
            "wait until it is there, and look into its log if it stays so",
        )),
    },
    Row {
        kind: FailureKind::ServerError,
        errnos: &[],
        codes: &[],
        meaning: "The server said no.",
        next_step: "the text above is the server's own",
        in_logs: None,
    },
    Row {
        kind: FailureKind::Other,
        errnos: &[],
        codes: &[],
        meaning: "The attempt failed on this machine.",
        next_step: "the text above says where",
        in_logs: None,
    },
    of_others(
        FailureKind::PortInUse,
        "bind: address already in use; Address already in use; (98); [Errno 98]; \
         EADDRINUSE; Only one usage of each socket address",
        "A service could not take its port: somebody has it already. That is a listener's \
         error, not a client's.",
        "`ss -tanp sport = :PORT` tells who: another listener, or an outgoing connection \
         where the port lies in ip_local_port_range; `twcheck verdict` tells of \
         SERVICE_PORT_TAKEN, `twcheck advise` reserves ports",
    ),
    of_others(
        FailureKind::NameNotFound,
        "Name or service not known; no such host; UnknownHostException; ENOTFOUND; Could \
         not resolve host; Unknown MySQL server host",
        "The name {server} has no address: the client failed before it needed a port.",
        "`getent hosts NAME` on that machine, or in that container; its /etc/resolv.conf \
         and search list",
    ),
    of_others(
        FailureKind::NameServerSilent,
        "Temporary failure in name resolution; EAI_AGAIN; server misbehaving",
        "No name server answered for {server}: the client failed before it needed a port.",
        "`getent hosts NAME` again and again; the name server, the way to it, and a full \
         conntrack table (UDP): `twcheck verdict` tells of CONNTRACK_FULL",
    ),
    of_others(
        FailureKind::ConnectionLost,
        "Connection reset by peer; ECONNRESET; MySQL server has gone away; Lost connection \
         to MySQL server during query; server closed the connection unexpectedly; Broken \
         pipe",
        "A connection that stood was cut off by {server} or by something between. Ports \
         have nothing to do with it.",
        "idle limits that are shorter than the pool's (wait_timeout, a firewall, a load \
         balancer), a restart of the server, or max_allowed_packet",
    ),
    of_others(
        FailureKind::SlowAnswer,
        "Read timed out; while reading response header from upstream; read tcp … i/o \
         timeout; ReadTimeout",
        "The connection stood, and the answer of {server} took too long.",
        "look at the server's load and slow queries: the connection itself is no problem",
    ),
    of_others(
        FailureKind::PoolExhausted,
        "QueuePool limit of size … overflow … reached; HikariPool Connection is not \
         available, request timed out; Could not get a resource from the pool; The connection \
         pool has been exhausted",
        "The application's own pool had no connection to give. The network was not even \
         asked.",
        "look for connections that are not given back, slow queries, or a pool that is too \
         small; `twcheck states --by flow` tells how many it has open",
    ),
    of_others(
        FailureKind::ListenQueueFull,
        "failed (11: Resource temporarily unavailable) while connecting to unix:; Possible \
         SYN flooding on port; times the listen queue of a socket overflowed",
        "The listen queue of {server} is full: it accepts too slowly.",
        "`ss -ltn` on it: Recv-Q at Send-Q is full; more workers, a larger backlog and \
         net.core.somaxconn",
    ),
    of_others(
        FailureKind::UnixSocketMissing,
        "Can't connect to local MySQL server through socket '…' (2); connection to server \
         on socket \"…\" failed: No such file or directory",
        "The unix socket is not there. No port was asked for.",
        "check that the server runs here, and where it has its socket; in a container use \
         TCP: 127.0.0.1 or the server's address instead of localhost",
    ),
    of_others(
        FailureKind::ConntrackFull,
        "nf_conntrack: table full, dropping packet",
        "Connection tracking is full: the kernel drops new connections, and clients see \
         timeouts (errno 110).",
        "`twcheck verdict` (CONNTRACK_FULL); raise net.netfilter.nf_conntrack_max, or lower \
         its timeouts",
    ),
    of_others(
        FailureKind::TimeWaitDropped,
        "TCP: time wait bucket table overflow",
        "TIME_WAIT is dropped at tcp_max_tw_buckets: no port runs out by that, but late \
         packets may meet a new connection.",
        "`twcheck verdict` (TW_BUCKET_OVERFLOW), `twcheck advise`",
    ),
    of_others(
        FailureKind::NoBufferSpace,
        "No buffer space available; (105); ENOBUFS",
        "The kernel has no memory or no queue left for it.",
        "`dmesg`, `cat /proc/net/sockstat`; net.ipv4.tcp_mem, the neighbour table \
         (net.ipv4.neigh.default.gc_thresh3)",
    ),
    of_others(
        FailureKind::ReasonUntold,
        "Couldn't connect to server; Communications link failure; fetch failed; upstream \
         connect error",
        "A connection to {server} failed, and the text does not say why: it may be errno \
         99, 110 or 111.",
        "`twcheck verdict{asked} --connect` on that machine; `curl -v`, or the cause that \
         the program logs beside it (`Caused by:`)",
    ),
];

impl fmt::Display for FailureKind {
    /// As the JSON has it: `ephemeral_ports_exhausted`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FailureKind {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        let found = FAILURES.iter().find(|row| row.kind == self);
        found.unwrap_or(&FAILURES[FAILURES.len() - 1])
    }

    /// Whether it means that ports ran out, of whatever kind.
    #[must_use]
    pub fn is_exhaustion(self) -> bool {
        matches!(
            self,
            Self::EphemeralPortsExhausted
                | Self::PortsHeldByBind
                | Self::PortsReserved
                | Self::SourcePortsExhausted
        )
    }
}
