use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Result;
use mysql::{Conn, Opts, OptsBuilder, UrlError};
use nix::libc::MSG_MORE;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::refusal::Refusal;
use crate::secret::Secret;

/// How long a server may stay silent before the run ends with that as its error.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Without a value the crate asks the server for it on every connection.
const MAX_ALLOWED_PACKET: usize = 16 * 1024 * 1024;

/// Who logs in where, as the user says it.
#[derive(Debug, Clone)]
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
}

/// A MySQL server at one address, reached by TCP only.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    name: String,
    options: Opts,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive() // The options hold the password.
    }
}

impl Target {
    /// The server that `login` names, once for every address its name has, in the resolver's order.
    ///
    /// # Errors
    /// When the name has no address.
    pub fn resolve(login: &Login) -> Result<Vec<Self>> {
        let options = OptsBuilder::new()
            .user(login.user.clone())
            .pass(login.password.as_ref().map(Secret::reveal))
            .db_name(login.database.clone());
        Self::at_each_address(&login.host, login.port, &options)
    }

    /// The server that a `mysql://` URL names, likewise; `password` counts rather than the URL's.
    ///
    /// # Errors
    /// When the URL is malformed, or the name has no address.
    pub fn resolve_url(url: &Secret, password: Option<&Secret>) -> Result<Vec<Self>> {
        let options = Opts::from_url(url.reveal()).map_err(|error| {
            Refusal::new(
                format!("the URL given is not a MySQL URL: {}", reason(&error)),
                "mysql://USER@HOST:3306/DATABASE, special characters percent-encoded, the password \
                 in MYSQL_PWD; or --host HOST",
            )
        })?;
        if options.get_ssl_opts().is_some() {
            return Err(Refusal::new(
                "the URL asks for TLS, which this build does not speak",
                "leave the TLS parameters out of the URL",
            )
            .into());
        }
        let (host, port) = (
            options.get_ip_or_hostname().into_owned(),
            options.get_tcp_port(),
        );
        let mut builder = OptsBuilder::from_opts(options.clone());
        if let Some(password) = password {
            builder = builder.pass(Some(password.reveal()));
        }
        Self::at_each_address(&host, port, &builder)
    }

    fn at_each_address(host: &str, port: u16, options: &OptsBuilder) -> Result<Vec<Self>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, port).to_socket_addrs().map_err(|error| {
            // What looks like a login may hold a password.
            let quoted = if bare.contains('@') {
                String::new()
            } else {
                format!(" {bare:?}")
            };
            Refusal::new(
                format!("the host name{quoted} has no address: {error}"),
                "give a name or an IP address alone, the port with --port, the user with --user; \
                 check the spelling and /etc/resolv.conf",
            )
        })?;
        Ok(addresses
            .map(|address| Self::at(bare.to_owned(), address, options.clone()))
            .collect())
    }

    /// The embedded server, which welcomes anyone.
    #[must_use]
    pub fn embedded(address: SocketAddr) -> Self {
        Self::at(
            address.ip().to_string(),
            address,
            OptsBuilder::new().user(Some("twcheck")),
        )
    }

    fn at(name: String, address: SocketAddr, options: OptsBuilder) -> Self {
        let options: Opts = options
            .ip_or_hostname(Some(address.ip().to_string()))
            .tcp_port(address.port())
            .prefer_socket(false)
            .socket(None::<String>)
            .compress(None)
            .max_allowed_packet(Some(MAX_ALLOWED_PACKET))
            .into();
        let target = Self {
            address,
            name,
            options,
        };
        target.patient_for(TIMEOUT)
    }

    /// The same server, given this long to answer, or as long as usual where that is less.
    #[must_use]
    pub fn patient_for(self, time: Duration) -> Self {
        /// The kernel takes a timeout of 0 for none.
        const SHORTEST: Duration = Duration::from_millis(100);
        let time = Some(time.clamp(SHORTEST, TIMEOUT));
        Self {
            options: OptsBuilder::from_opts(self.options)
                .tcp_connect_timeout(time)
                .read_timeout(time)
                .write_timeout(time)
                .into(),
            ..self
        }
    }

    /// Where connections go.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the user called the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a connection and logs in: greeting, login, OK, and no query.
    ///
    /// # Errors
    /// Whatever the kernel or the server say.
    pub fn open(&self) -> Result<Conn, mysql::Error> {
        Conn::new(self.options.clone())
    }
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

/// Takes leave of the server and closes first, every time: `COM_QUIT` and FIN leave in one packet,
/// as over a network, where the client's FIN is on its way long before the server could answer.
/// Left to itself the crate's `Drop` races with a server on the same machine.
pub(super) fn close(connection: Conn) {
    const COM_QUIT: [u8; 5] = [1, 0, 0, 0, 1];
    let socket = connection.as_raw_fd();
    // Where the server is gone there is nobody to take leave of.
    let more_follows = MsgFlags::from_bits_retain(MSG_MORE);
    let _ = send(socket, &COM_QUIT, more_follows | MsgFlags::MSG_NOSIGNAL);
    let _ = shutdown(socket, Shutdown::Write);
    drop(connection);
}
