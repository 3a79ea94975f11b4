//! The words in which programs tell that a connection failed, and those around them that decide what
//! it means.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

use crate::model::FailureKind::{
    self, AccessDenied, AccountLocked, AuthenticationPlugin, ConnectionLost, ConntrackFull,
    EphemeralPortsExhausted, HostBlocked, HostNotAllowed, ListenQueueFull, LostDuringHandshake,
    NameNotFound, NameServerSilent, NoAnswer, NoSuchDatabase, OutOfStep, PasswordExpired,
    PoolExhausted, PortInUse, ReasonUntold, ShuttingDown, SlowAnswer, SlowHandshake,
    SourcePortsExhausted, TimeWaitDropped, TlsFailed, TlsRequired, TlsUnknownIssuer, TlsWrongName,
    TooManyConnections, UnixSocketMissing, UserLimit,
};

/// What a word tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// An error of the system by its name or its sentence.
    Errno(u16),
    /// The same of another system, where the number means something else on Linux.
    Foreign(System, u16),
    /// The number of an error of the system follows.
    Number,
    /// The number of a server's error follows.
    Code,
    /// A failure of this kind, whatever stands around it.
    Kind(FailureKind),
    /// The same, unless something says more.
    Vague(FailureKind),
    /// MySQL's own sentence: a server in quotes and a number follow.
    Mysql,
    /// The same about a unix socket.
    MysqlSocket,
    /// A socket could not be made, and the number of an error of the system follows.
    Socket,
    /// It counts only where a connection was spoken of before.
    Timeout,
    /// What was done: a connection opened.
    Connect(Form),
    /// What was done in vain: a connection opened to what follows.
    Failed,
    /// What was done: an address bound.
    Bind,
    /// The same by a program that only ever is a client.
    BindOfClient,
    /// What was done: something that takes no port of a flow.
    Elsewhere,
    /// A proxy's server is down, which is named before it.
    Down,
    /// A service was to take its port, which is told before it.
    Taken,
    /// What was done: listening.
    Listen,
    /// Java's exception of both.
    EitherBind,
    /// Go's method of HTTP: the URL follows.
    Request,
    /// A name was looked up.
    Lookup,
    /// An answer was waited for.
    Reading,
    /// TLS was spoken.
    Handshake,
    /// What follows is the same failure once more, from further down.
    Chain,
    /// A stack of calls begins.
    Stack,
    /// The line stands for as many as the number that follows.
    Repeated,
    /// The line before came as many times more as the number that follows.
    LastRepeated,
}

/// A system that counts its errors in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// macOS and the BSDs.
    Bsd,
    /// Windows.
    Windows,
}

/// How the other end stands behind a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    Nowhere,
    /// `10.0.0.5:3306` and its like, perhaps with the port behind it.
    Endpoint,
    /// A name of the program's own: a backend.
    Label,
    /// The path of a unix socket.
    Path,
    /// `10.0.0.5/3306`, as bash has it.
    Device,
}

use Form::{Device, Endpoint, Label, Nowhere, Path};
use Word::{
    Bind, BindOfClient, Chain, Code, Connect, Down, EitherBind, Elsewhere, Errno, Failed, Foreign,
    Handshake, Kind, LastRepeated, Listen, Lookup, Mysql, MysqlSocket, Number, Reading, Repeated,
    Request, Socket, Stack, Taken, Timeout, Vague,
};

/// Where each counts is written in lower case; letters' case does not matter.
const WORDS: &[(&str, Word)] = &[
    // Errors of the system.
    ("cannot assign requested address", Errno(99)),
    ("cannot_assign_requested_address", Errno(99)),
    ("t assign requested address", Foreign(System::Bsd, 99)),
    ("address not available", Errno(99)),
    ("eaddrnotavail", Errno(99)),
    ("addrnotavailable", Errno(99)),
    (
        "angeforderte adresse kann nicht zugewiesen werden",
        Errno(99),
    ),
    ("adresse demandée", Errno(99)),
    ("no se puede asignar la dirección solicitada", Errno(99)),
    ("não é possível acessar o endereço requisitado", Errno(99)),
    ("要求されたアドレスに割り当てられません", Errno(99)),
    ("无法指定被请求的地址", Errno(99)),
    ("не удаётся назначить запрашиваемый адрес", Errno(99)),
    ("address already in use", Errno(98)),
    ("address in use", Errno(98)),
    ("eaddrinuse", Errno(98)),
    ("addrinuse", Errno(98)),
    ("die adresse wird bereits verwendet", Errno(98)),
    ("connection refused", Errno(111)),
    ("connection_refused", Errno(111)),
    ("refused. check that the hostname", Errno(111)),
    ("econnrefused", Errno(111)),
    ("connectionrefused", Errno(111)),
    ("actively refused it", Errno(111)),
    ("verbindungsaufbau abgelehnt", Errno(111)),
    ("connexion refusée", Errno(111)),
    ("conexión rehusada", Errno(111)),
    ("conexão recusada", Errno(111)),
    ("接続を拒否されました", Errno(111)),
    ("拒绝连接", Errno(111)),
    ("в соединении отказано", Errno(111)),
    ("connection timed out", Errno(110)),
    ("connection_timed_out", Errno(110)),
    ("connect timed out", Errno(110)),
    ("connect timeout", Errno(110)),
    ("connection timeout", Errno(110)),
    ("connection attempt timed out", Errno(110)),
    ("connect error - timeout", Errno(110)),
    ("etimedout", Errno(110)),
    ("connecttimeouterror", Errno(110)),
    ("connecttimeout:", Errno(110)),
    ("connectionerror: timeout", Errno(110)),
    (
        "did not properly respond after a period of time",
        Errno(110),
    ),
    (
        "die wartezeit für die verbindung ist abgelaufen",
        Errno(110),
    ),
    ("connexion terminée par expiration du délai d", Errno(110)),
    ("i/o timeout", Timeout),
    ("operation timed out", Timeout),
    ("deadline exceeded", Timeout),
    ("timeout expired", Timeout),
    ("timeout was reached", Timeout),
    ("timed out", Timeout),
    ("no route to host", Errno(113)),
    ("ehostunreach", Errno(113)),
    ("hostunreachable", Errno(113)),
    ("host is unreachable", Errno(113)),
    ("network is unreachable", Errno(101)),
    ("network unreachable", Errno(101)),
    ("enetunreach", Errno(101)),
    ("networkunreachable", Errno(101)),
    ("address family not supported by protocol", Errno(97)),
    ("eafnosupport", Errno(97)),
    ("too many open files", Errno(24)),
    ("emfile", Errno(24)),
    ("enfile", Errno(24)),
    ("connection reset by peer", Errno(104)),
    ("connection_reset_by_peer", Errno(104)),
    ("econnreset", Errno(104)),
    ("connectionreset", Errno(104)),
    ("exception: connection reset", Errno(104)),
    ("forcibly closed by the remote host", Errno(104)),
    ("broken pipe", Errno(104)),
    ("epipe", Errno(104)),
    ("permission denied", Errno(13)),
    ("eacces", Errno(13)),
    ("operation not permitted", Errno(1)),
    ("eperm", Errno(1)),
    ("no such file or directory", Errno(2)),
    ("enoent", Errno(2)),
    ("resource temporarily unavailable", Errno(11)),
    ("no buffer space available", Errno(105)),
    ("enobufs", Errno(105)),
    (
        "lacked sufficient buffer space",
        Foreign(System::Windows, 99),
    ),
    ("wsaenobufs", Foreign(System::Windows, 99)),
    (
        "only one usage of each socket address",
        Foreign(System::Windows, 98),
    ),
    (
        "requested address is not valid in its context",
        Foreign(System::Windows, 49),
    ),
    ("[errno ", Number),
    ("errno", Number),
    ("(os error ", Number),
    ("socketexception (", Number),
    ("connect error: ", Number),
    ("connect_error:_", Number),
    ("os { code: ", Number),
    ("system error: ", Number),
    // Errors of a client.
    ("t connect to mysql server on ", Mysql),
    ("t connect to server on ", Mysql),
    ("t connect to mysql server through socket ", MysqlSocket),
    (
        "t connect to local mysql server through socket ",
        MysqlSocket,
    ),
    ("t connect to local server through socket ", MysqlSocket),
    ("t create tcp/ip socket (", Socket),
    ("connect enoent ", Kind(UnixSocketMissing)),
    ("connection in use: (", Kind(PortInUse)),
    ("no free ports", Kind(EphemeralPortsExhausted)),
    ("local address already in use", Kind(SourcePortsExhausted)),
    ("t connect to server", Vague(ReasonUntold)),
    ("communications link failure", Vague(ReasonUntold)),
    ("java.net.connectexception", Vague(ReasonUntold)),
    ("t reach database server at ", Failed),
    ("fetch failed", Vague(ReasonUntold)),
    ("upstream connect error", Vague(ReasonUntold)),
    (
        "unable to connect to any of the specified mysql hosts",
        Vague(ReasonUntold),
    ),
    ("failed to establish a new connection", Vague(ReasonUntold)),
    ("server has gone away", Kind(ConnectionLost)),
    (
        "lost connection to mysql server at ",
        Kind(LostDuringHandshake),
    ),
    ("lost connection to server at ", Kind(LostDuringHandshake)),
    (
        "lost connection to mysql server during",
        Kind(ConnectionLost),
    ),
    ("lost connection to server during", Kind(ConnectionLost)),
    (
        "server closed the connection unexpectedly",
        Kind(ConnectionLost),
    ),
    (
        "connection lost: the server closed the connection",
        Kind(ConnectionLost),
    ),
    (
        "no operations allowed after connection closed",
        Vague(ConnectionLost),
    ),
    (
        "longer than the server configured value of 'wait_timeout'",
        Kind(ConnectionLost),
    ),
    ("nohttpresponseexception", Kind(ConnectionLost)),
    ("redisexception: redis server ", Kind(ConnectionLost)),
    ("socketerror: other side closed", Kind(ConnectionLost)),
    (
        "connection closed before message completed",
        Kind(ConnectionLost),
    ),
    ("ssl syscall error: eof detected", Kind(ConnectionLost)),
    ("terminating connection due to idle", Kind(ConnectionLost)),
    (
        "terminating connection due to conflict with recovery",
        Kind(ConnectionLost),
    ),
    ("reset reason: connection termination", Kind(ConnectionLost)),
    ("started{connection_termination}", Kind(ConnectionLost)),
    ("driver: bad connection", Vague(ConnectionLost)),
    ("connection terminated unexpectedly", Kind(ConnectionLost)),
    ("connection closed by server", Kind(ConnectionLost)),
    (
        "upstream prematurely closed connection",
        Kind(ConnectionLost),
    ),
    ("empty reply from server", Kind(ConnectionLost)),
    (
        "remote end closed connection without response",
        Kind(ConnectionLost),
    ),
    ("socket hang up", Kind(ConnectionLost)),
    ("read timed out", Kind(SlowAnswer)),
    ("readtimeouterror", Kind(SlowAnswer)),
    ("readtimeout:", Kind(SlowAnswer)),
    (
        "rediscommandtimeoutexception: command timed out",
        Kind(SlowAnswer),
    ),
    ("httptimeoutexception: request timed out", Kind(SlowAnswer)),
    ("headers timeout error", Kind(SlowAnswer)),
    ("body timeout error", Kind(SlowAnswer)),
    ("timeout during reading attempt", Kind(SlowAnswer)),
    ("read error on connection to ", Kind(SlowAnswer)),
    (
        "timeout waiting for a response from the last query",
        Kind(SlowAnswer),
    ),
    (
        "the command timeout expired before the operation completed",
        Kind(SlowAnswer),
    ),
    ("execution timeout expired", Kind(SlowAnswer)),
    ("operation timed out after ", Kind(SlowAnswer)),
    ("layer7 timeout", Kind(SlowAnswer)),
    ("layer6 timeout", Kind(SlowHandshake)),
    ("handshake inactivity timeout", Kind(SlowHandshake)),
    ("the pre-login handshake", Kind(SlowHandshake)),
    ("tls handshake timeout", Kind(SlowHandshake)),
    ("packets out of order", Kind(OutOfStep)),
    ("proxy header is not accepted", Kind(OutOfStep)),
    ("queuepool limit of size", Kind(PoolExhausted)),
    (
        "connection is not available, request timed out",
        Vague(PoolExhausted),
    ),
    (
        "could not get a resource from the pool",
        Vague(PoolExhausted),
    ),
    (
        "failed getting connection; pool exhausted",
        Kind(PoolExhausted),
    ),
    (
        "prior to obtaining a connection from the pool",
        Kind(PoolExhausted),
    ),
    (
        "pool timed out while waiting for an open connection",
        Vague(PoolExhausted),
    ),
    ("timeout acquiring a connection", Vague(PoolExhausted)),
    ("pool error timeout, waitmillis", Kind(PoolExhausted)),
    (
        "timeout exceeded when trying to connect",
        Kind(PoolExhausted),
    ),
    ("no connection available from the pool", Kind(PoolExhausted)),
    ("t get a connection after", Kind(PoolExhausted)),
    ("connectionacquiretimeouterror", Kind(PoolExhausted)),
    (
        "timed out fetching a new connection from the connection pool",
        Kind(PoolExhausted),
    ),
    (
        "could not obtain a connection from the pool",
        Kind(PoolExhausted),
    ),
    ("pooltimedout", Kind(PoolExhausted)),
    ("pooltimeout", Kind(PoolExhausted)),
    ("all pooled connections are in use", Kind(PoolExhausted)),
    ("redis: connection pool timeout", Kind(PoolExhausted)),
    ("connection pool has been exhausted", Kind(PoolExhausted)),
    (
        "client to checkout a connection has timed out",
        Kind(PoolExhausted),
    ),
    ("timeout waiting for idle object", Kind(PoolExhausted)),
    (
        "pool empty. unable to fetch a connection",
        Kind(PoolExhausted),
    ),
    ("getconnectiontimeoutexception", Vague(PoolExhausted)),
    ("since the pool is exhausted", Kind(PoolExhausted)),
    ("connectionrequesttimeoutexception", Kind(PoolExhausted)),
    ("error: queue limit reached.", Kind(PoolExhausted)),
    ("error: no connections available.", Kind(PoolExhausted)),
    (
        "waiting for a slot to become available",
        Kind(PoolExhausted),
    ),
    ("timed out waiting for connection", Vague(PoolExhausted)),
    (
        "redis.exceptions.connectionerror: too many connections",
        Kind(PoolExhausted),
    ),
    (
        "maxconnectionserror: too many connections",
        Kind(PoolExhausted),
    ),
    ("reset reason: overflow", Kind(PoolExhausted)),
    ("started{overflow}", Kind(PoolExhausted)),
    (
        "timeout waiting for connection from pool",
        Kind(PoolExhausted),
    ),
    ("[2002] no such file or directory", Kind(UnixSocketMissing)),
    (
        "(hy000/2002): no such file or directory",
        Kind(UnixSocketMissing),
    ),
    (
        "failed to connect to any host resolved",
        Vague(ReasonUntold),
    ),
    ("maxretriesperrequesterror", Vague(ReasonUntold)),
    (
        "request canceled while waiting for connection",
        Vague(ReasonUntold),
    ),
    (
        "error occurred while establishing a connection to sql server",
        Vague(ReasonUntold),
    ),
    ("no live upstreams", Vague(ReasonUntold)),
    ("all connection attempts failed", Vague(ReasonUntold)),
    (
        "could not create connection to database server",
        Vague(ReasonUntold),
    ),
    ("serverdisconnectederror", Kind(ConnectionLost)),
    ("layer4 timeout", Kind(NoAnswer)),
    ("timeout connecting to server", Kind(NoAnswer)),
    // Names.
    ("name or service not known", Kind(NameNotFound)),
    ("no such host is known", Kind(NameNotFound)),
    ("no such host", Kind(NameNotFound)),
    ("nodename nor servname provided", Kind(NameNotFound)),
    ("no address associated with hostname", Kind(NameNotFound)),
    ("unknownhostexception", Kind(NameNotFound)),
    ("unresolvedaddressexception", Kind(NameNotFound)),
    ("enotfound", Kind(NameNotFound)),
    ("nxdomain", Kind(NameNotFound)),
    ("could not resolve host", Kind(NameNotFound)),
    ("t resolve host", Kind(NameNotFound)),
    ("host not found in upstream", Kind(NameNotFound)),
    ("unknown mysql server host", Kind(NameNotFound)),
    ("unknown server host", Kind(NameNotFound)),
    ("php_network_getaddresses", Vague(NameNotFound)),
    ("failed to lookup address information", Vague(NameNotFound)),
    (
        "der name oder der dienst ist nicht bekannt",
        Kind(NameNotFound),
    ),
    (
        "temporary failure in name resolution",
        Kind(NameServerSilent),
    ),
    (
        "temporärer fehler bei der namensauflösung",
        Kind(NameServerSilent),
    ),
    ("eai_again", Kind(NameServerSilent)),
    ("server misbehaving", Kind(NameServerSilent)),
    ("could not be resolved (110", Kind(NameServerSilent)),
    ("could not be resolved (2", Kind(NameServerSilent)),
    ("could not be resolved", Kind(NameNotFound)),
    ("resolving timed out", Kind(NameServerSilent)),
    ("could not contact dns servers", Kind(NameServerSilent)),
    ("domain name not found", Kind(NameNotFound)),
    ("misformatted domain name", Kind(NameNotFound)),
    ("could not translate host name ", Lookup),
    ("failed to resolve host ", Lookup),
    ("failed to resolve ", Lookup),
    ("errors resolving ", Lookup),
    ("dns resolution failed for ", Lookup),
    ("could not resolve hostname ", Lookup),
    ("resolving ", Lookup),
    ("getaddrinfo for ", Lookup),
    ("getaddrinfo", Lookup),
    ("lookup ", Lookup),
    // What a server says.
    ("too many connections for role", Kind(UserLimit)),
    ("too many connections", Kind(TooManyConnections)),
    ("too many clients already", Kind(TooManyConnections)),
    (
        "remaining connection slots are reserved",
        Kind(TooManyConnections),
    ),
    ("max number of clients reached", Kind(TooManyConnections)),
    ("er_con_count_error", Kind(TooManyConnections)),
    ("no more connections allowed", Kind(TooManyConnections)),
    ("because of many connection errors", Kind(HostBlocked)),
    ("is not allowed to connect to this m", Kind(HostNotAllowed)),
    ("no pg_hba.conf entry for", Kind(HostNotAllowed)),
    ("access denied for user", Kind(AccessDenied)),
    ("er_access_denied_error", Kind(AccessDenied)),
    ("password authentication failed", Kind(AccessDenied)),
    ("peer authentication failed", Kind(AccessDenied)),
    ("ident authentication failed", Kind(AccessDenied)),
    ("fatal:  role ", Kind(AccessDenied)),
    ("login failed for user '", Kind(AccessDenied)),
    ("wrongpass ", Kind(AccessDenied)),
    ("noauth ", Kind(AccessDenied)),
    ("invalid username-password pair", Kind(AccessDenied)),
    ("unknown database", Kind(NoSuchDatabase)),
    ("er_bad_db_error", Kind(NoSuchDatabase)),
    ("fatal:  database ", Kind(NoSuchDatabase)),
    ("more than 'max_user_connections'", Kind(UserLimit)),
    ("resource (current value: ", Kind(UserLimit)),
    (
        "connections using insecure transport are prohibited",
        Kind(TlsRequired),
    ),
    ("your password has expired", Kind(PasswordExpired)),
    ("account is locked", Kind(AccountLocked)),
    ("cannot be loaded: ", Vague(AuthenticationPlugin)),
    (
        "does not support authentication protocol",
        Kind(AuthenticationPlugin),
    ),
    ("er_not_supported_auth_mode", Kind(AuthenticationPlugin)),
    ("server shutdown in progress", Kind(ShuttingDown)),
    ("the database system is starting up", Kind(ShuttingDown)),
    (
        "the database system is in recovery mode",
        Kind(ShuttingDown),
    ),
    ("the database system is shutting down", Kind(ShuttingDown)),
    (
        "terminating connection due to administrator command",
        Kind(ShuttingDown),
    ),
    ("redis is loading the dataset", Kind(ShuttingDown)),
    ("(hy000)", Code),
    ("(08004)", Code),
    ("(08s01)", Code),
    ("(28000)", Code),
    ("(42000)", Code),
    ("sqlstate[", Code),
    ("(08004/", Code),
    ("(hy000/", Code),
    ("(28000/", Code),
    ("(42000/", Code),
    ("operationalerror: (", Code),
    ("operationalerror) (", Code),
    ("mysql error ", Code),
    // TLS.
    ("ssl connection error", Vague(TlsFailed)),
    ("tls/ssl error", Vague(TlsFailed)),
    ("handshake failure", Kind(TlsFailed)),
    ("wrong version number", Kind(TlsFailed)),
    ("tlsv1 alert", Kind(TlsFailed)),
    ("handshake_failure", Kind(TlsFailed)),
    ("tls: bad certificate", Kind(TlsFailed)),
    ("no appropriate protocol (", Kind(TlsFailed)),
    ("certificate has expired", Kind(TlsFailed)),
    (
        "first record does not look like a tls handshake",
        Kind(TlsFailed),
    ),
    ("server refused tls connection", Kind(TlsFailed)),
    ("ssl is not enabled on the server", Kind(TlsFailed)),
    (
        "the ssl connection could not be established",
        Vague(TlsFailed),
    ),
    ("server does not support ssl", Kind(TlsFailed)),
    ("hostname mismatch", Kind(TlsWrongName)),
    ("certificate is valid for ", Kind(TlsWrongName)),
    (
        "match any of the subject alternative names",
        Kind(TlsWrongName),
    ),
    (
        "alternative certificate subject name matches",
        Kind(TlsWrongName),
    ),
    ("err_tls_cert_altname_invalid", Kind(TlsWrongName)),
    ("signed by unknown authority", Kind(TlsUnknownIssuer)),
    ("self signed certificate", Kind(TlsUnknownIssuer)),
    ("self-signed certificate", Kind(TlsUnknownIssuer)),
    ("local issuer certificate", Kind(TlsUnknownIssuer)),
    (
        "openssl_internal:certificate_verify_failed",
        Kind(TlsUnknownIssuer),
    ),
    ("pkix path building failed", Kind(TlsUnknownIssuer)),
    ("certificate verify failed", Vague(TlsUnknownIssuer)),
    // The kernel's log.
    ("nf_conntrack: table full", Kind(ConntrackFull)),
    ("ip_conntrack: table full", Kind(ConntrackFull)),
    ("time wait bucket table overflow", Kind(TimeWaitDropped)),
    ("possible syn flooding on port", Kind(ListenQueueFull)),
    ("listen queue of a socket overflowed", Kind(ListenQueueFull)),
    // What was done.
    ("dial tcp ", Connect(Endpoint)),
    ("dial tcp4 ", Connect(Endpoint)),
    ("dial tcp6 ", Connect(Endpoint)),
    ("dial unix ", Connect(Path)),
    ("read tcp ", Reading),
    ("write tcp ", Reading),
    ("dial", Connect(Nowhere)),
    ("connect() to unix:", Connect(Path)),
    ("connect to unix://", Connect(Path)),
    ("connect() to ", Connect(Endpoint)),
    ("connect to host ", Connect(Endpoint)),
    ("failed to connect to remote host", Connect(Nowhere)),
    ("connect to address ", Connect(Endpoint)),
    ("connect to redis at ", Connect(Endpoint)),
    ("failed to connect to ", Failed),
    ("unable to connect to ", Failed),
    ("could not connect to ", Failed),
    ("cannot connect to ", Failed),
    ("connect to server: ", Connect(Nowhere)),
    ("connect to ", Connect(Endpoint)),
    ("connect to /", Connect(Path)),
    ("connect to host:", Connect(Endpoint)),
    ("connect to address=(host=", Connect(Endpoint)),
    ("upstream: \"", Connect(Endpoint)),
    ("/dev/tcp/", Connect(Device)),
    ("connecting to server '", Connect(Endpoint)),
    ("connecting to master '", Connect(Endpoint)),
    ("connecting to source '", Connect(Endpoint)),
    ("connecting to redis on ", Connect(Endpoint)),
    ("(connection: mysql, host: ", Connect(Endpoint)),
    ("(connection: mariadb, host: ", Connect(Endpoint)),
    ("(connection: pgsql, host: ", Connect(Endpoint)),
    ("connecting to upstream", Connect(Nowhere)),
    ("connecting to ", Connect(Endpoint)),
    ("connection to server at ", Connect(Endpoint)),
    ("connection to server on socket ", Connect(Path)),
    ("verbindung zum server auf ", Connect(Endpoint)),
    ("redis connection to ", Connect(Endpoint)),
    ("tcp connection to ", Connect(Endpoint)),
    ("connection to ", Connect(Endpoint)),
    ("running on host ", Connect(Endpoint)),
    ("connect fail for ", Connect(Endpoint)),
    ("connect failed: addr: ", Connect(Endpoint)),
    ("connect call failed ", Connect(Endpoint)),
    ("connect(2) for ", Connect(Endpoint)),
    ("mysql_real_connect() on ", Connect(Endpoint)),
    ("connectionpool(host=", Connect(Endpoint)),
    ("connect() failed for backend ", Connect(Label)),
    ("addresses; last error: unknown: ", Connect(Endpoint)),
    ("addresses; last error: unavailable: ", Connect(Endpoint)),
    ("file_get_contents(", Connect(Endpoint)),
    ("fopen(", Connect(Endpoint)),
    ("mysql_real_connect(", Connect(Nowhere)),
    ("connect", Connect(Nowhere)),
    ("get \"http", Request),
    ("head \"http", Request),
    ("post \"http", Request),
    ("put \"http", Request),
    ("patch \"http", Request),
    ("delete \"http", Request),
    ("while reading", Reading),
    ("while sending", Reading),
    ("while ssl handshaking", Handshake),
    ("could not receive data from ", Reading),
    ("could not send data to ", Reading),
    ("recv() failed", Reading),
    ("bind", Bind),
    ("binding", Bind),
    ("bind failed with errno ", BindOfClient),
    ("sioc", Elsewhere),
    ("rtnetlink", Elsewhere),
    ("setsockopt", Elsewhere),
    ("setsocketoption", Elsewhere),
    ("setintoption", Elsewhere),
    ("add_membership", Elsewhere),
    ("join_group", Elsewhere),
    ("multicast", Elsewhere),
    ("sendto", Elsewhere),
    ("sendmsg", Elsewhere),
    ("datagram", Elsewhere),
    ("udp", Elsewhere),
    ("ping: ", Elsewhere),
    ("already in use", Taken),
    ("bindexception", EitherBind),
    ("nohostexception", Connect(Nowhere)),
    ("for url (", Connect(Endpoint)),
    ("libcurl-errors.html) for ", Connect(Endpoint)),
    ("remote address:", Connect(Endpoint)),
    ("\"upstream_host\":", Connect(Endpoint)),
    ("connect to host:address=(host=", Connect(Endpoint)),
    ("unabletoconnect on ", Failed),
    ("tcp connect (", Connect(Endpoint)),
    (" is down, reason: ", Down),
    ("listen", Listen),
    ("listener", Listen),
    ("listening", Listen),
    ("server socket", Listen),
    ("userland proxy", Listen),
    ("serversocket", Listen),
    // What belongs together.
    ("caused by:", Chain),
    ("during handling of the above exception", Chain),
    ("the above exception was the direct cause", Chain),
    ("[cause]:", Chain),
    (" ---> ", Chain),
    ("suppressed:", Chain),
    ("[errors]:", Chain),
    ("debug_error_string", Chain),
    ("traceback (most recent call last)", Stack),
    ("message repeated ", Repeated),
    ("message buffered ", Repeated),
    ("last message repeated ", LastRepeated),
    ("last message buffered ", LastRepeated),
];

impl Word {
    /// Whether it alone makes a line worth reading.
    fn is_sign(self) -> bool {
        match self {
            Self::Errno(errno) => !matches!(errno, 1 | 2 | 11 | 13),
            Self::Kind(_)
            | Self::Vague(_)
            | Self::Foreign(..)
            | Self::Mysql
            | Self::MysqlSocket
            | Self::Number
            | Self::Socket
            | Self::Code
            | Self::Timeout
            | Self::Chain
            | Self::Stack
            | Self::Repeated
            | Self::LastRepeated
            | Self::Taken
            | Self::BindOfClient
            | Self::Failed
            | Self::Connect(Path) => true,
            _ => false,
        }
    }
}

/// Finds words.
pub struct Lexicon {
    finder: AhoCorasick,
    words: Vec<(Word, Edges)>,
}

/// Where a word must not go on as another one.
#[derive(Debug, Clone, Copy)]
struct Edges {
    before: bool,
    after: bool,
}

impl Edges {
    /// A sentence stands for itself; a name such as `EPIPE` may be a part of another one.
    fn of(text: &str, word: Word) -> Self {
        let is_name = text.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_errno = matches!(word, Word::Errno(_)) && text.starts_with('e') && text.len() <= 13;
        // "connected" and "connection" are no connect().
        let is_call = matches!(text, "connect" | "bind" | "listen" | "dial");
        Self {
            before: is_name,
            after: is_name && (is_errno || is_call),
        }
    }
}

impl Lexicon {
    fn of(words: impl Iterator<Item = (&'static str, Word)>, kind: MatchKind) -> Option<Self> {
        let (texts, words): (Vec<_>, Vec<_>) = words
            .map(|(text, word)| (text, (word, Edges::of(text, word))))
            .unzip();
        let finder = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(kind)
            .kind(Some(AhoCorasickKind::DFA))
            .build(texts);
        finder.ok().map(|finder| Self { finder, words })
    }

    /// The words of `text` in their order, the longest where several begin at one place: where each
    /// begins and ends, and what it tells.
    pub fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, usize, Word)> + 'a {
        let goes_on = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        self.finder.find_iter(text).filter_map(move |found| {
            let (word, edges) = self.words[found.pattern().as_usize()];
            let (start, end) = (found.start(), found.end());
            let before = start.checked_sub(1).and_then(|before| text.get(before));
            let is_part =
                (edges.before && goes_on(before)) || (edges.after && goes_on(text.get(end)));
            (!is_part).then_some((start, end, word))
        })
    }

    /// Where the first word in `text` begins.
    #[must_use]
    pub fn first(&self, text: &[u8]) -> Option<usize> {
        self.finder.find(text).map(|found| found.start())
    }
}

/// Every word, for a line that is worth reading.
pub static ALL: LazyLock<Option<Lexicon>> =
    LazyLock::new(|| Lexicon::of(WORDS.iter().copied(), MatchKind::LeftmostLongest));

/// Those that make a line worth reading, for gigabytes.
pub static SIGNS: LazyLock<Option<Lexicon>> = LazyLock::new(|| {
    let signs = WORDS.iter().copied().filter(|(_, word)| word.is_sign());
    Lexicon::of(signs, MatchKind::Standard)
});

/// The words that make a line worth reading, as `grep -E` takes them.
#[must_use]
pub fn signs_for_grep() -> Vec<String> {
    let signs = WORDS.iter().filter(|(_, word)| word.is_sign());
    signs.map(|(text, _)| regex::escape(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_in_lower_case_once_and_can_be_looked_for() {
        let mut seen = std::collections::BTreeSet::new();
        for (text, _) in WORDS {
            assert!(seen.insert(text), "{text} stands there twice");
            assert!(
                !text.bytes().any(|byte| byte.is_ascii_uppercase()),
                "{text}"
            );
        }
        assert!(ALL.is_some() && SIGNS.is_some());
    }

    #[test]
    fn a_name_is_no_part_of_another() {
        let found = |text: &str| {
            let all = ALL.as_ref().unwrap();
            all.find(text.as_bytes())
                .map(|(.., word)| word)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("EMFILE, openFile"), [Word::Errno(24)]);
        assert_eq!(found("somePermission rebind"), []);
        assert_eq!(found("write EPIPE"), [Word::Errno(104)]);
    }
}
