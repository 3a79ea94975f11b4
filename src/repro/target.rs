use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use mysql::{
    Conn, DriverError, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, SslOpts, UrlError,
};

use super::dial::Dialer;
use super::tls::Tls;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// How long a server may stay silent before the run ends with that as its error.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Without a value the crate asks the server for it on every connection.
const MAX_ALLOWED_PACKET: usize = 16 * 1024 * 1024;

/// Who logs in where, as the user says it.
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
    /// Whether the server must speak TLS.
    pub tls: bool,
    /// A PEM file with the authority to trust instead of those that browsers trust; `tls` where
    /// there is one.
    pub tls_ca: Option<PathBuf>,
}

impl Login {
    /// What a `mysql://` URL says.
    ///
    /// # Errors
    /// When it is malformed, or speaks of TLS.
    pub fn from_url(url: &Secret) -> Result<Self> {
        let options = Opts::from_url(url.reveal()).map_err(|error| {
            Refusal::new(
                format!("the URL given is not a MySQL URL: {}", reason(&error)),
                "mysql://USER@HOST:3306/DATABASE, special characters percent-encoded, the password \
                 in MYSQL_PWD; or --host HOST",
            )
        })?;
        if options.get_ssl_opts().is_some() {
            return Err(Refusal::new(
                "the URL has parameters about TLS",
                "leave them out, and say --tls, or --tls-ca FILE where the authority is private",
            )
            .into());
        }
        Ok(Self {
            host: options.get_ip_or_hostname().into_owned(),
            port: options.get_tcp_port(),
            user: options.get_user().map(str::to_owned),
            database: options.get_db_name().map(str::to_owned),
            password: options.get_pass().map(|text| text.to_owned().into()),
            tls: false,
            tls_ca: None,
        })
    }
}

/// A server at one address, reached by TCP only.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    name: String,
    patience: Duration,
    options: Opts,
    tls: Option<Tls>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("name", &self.name)
            .field("tls", &self.tls)
            .finish_non_exhaustive() // The options hold the password.
    }
}

impl Target {
    /// The server that `login` names, once for every address its name has, in the resolver's order.
    ///
    /// # Errors
    /// When the name has no address, or its TLS authority cannot be read.
    pub fn resolve(login: &Login) -> Result<Vec<Self>> {
        let bare = login.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, login.port).to_socket_addrs().map_err(|error| {
            // What looks like a login may hold a password.
            let quoted = if bare.contains('@') {
                String::new()
            } else {
                format!(" {bare:?}")
            };
            Refusal::new(
                format!("the host name{quoted} has no address: {error}"),
                match bare.rsplit_once(':') {
                    Some((host, port))
                        if !host.contains([':', '@']) && port.parse::<u16>().is_ok() =>
                    {
                        format!("--host {host} --port {port}")
                    }
                    _ => "give a name or an IP address alone, the port with --port, the user with \
                          --user; check the spelling and /etc/resolv.conf"
                        .into(),
                },
            )
        })?;
        let tls = if login.tls || login.tls_ca.is_some() {
            Some(Tls::new(bare, login.tls_ca.as_deref())?)
        } else {
            None
        };
        // By a name, which TLS needs, the mysql crate reaches its first address only.
        let most = if tls.is_some() { 1 } else { usize::MAX };
        Ok(addresses
            .take(most)
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
            .map(|address| Self::at(bare, address, login, tls.clone()))
            .collect())
    }

    /// The embedded server, which welcomes anyone.
    #[must_use]
    pub fn embedded(address: SocketAddr) -> Self {
        let login = Login {
            user: Some("twcheck".into()),
            ..Login::default()
        };
        Self::at(&address.ip().to_string(), address, &login, None)
    }

    fn at(name: &str, address: SocketAddr, login: &Login, tls: Option<Tls>) -> Self {
        // The mysql crate compares the certificate with what it connects to.
        let host = match tls {
            Some(_) => name.to_owned(),
            None => address.ip().to_string(),
        };
        let ssl = tls
            .as_ref()
            .map(|tls| SslOpts::default().with_root_cert_path(tls.authority.clone()));
        let options = OptsBuilder::new()
            .user(login.user.clone())
            .pass(login.password.as_ref().map(Secret::reveal))
            .db_name(login.database.clone())
            .ip_or_hostname(Some(host))
            .tcp_port(address.port())
            .ssl_opts(ssl)
            .prefer_socket(false)
            .max_allowed_packet(Some(MAX_ALLOWED_PACKET));
        let target = Self {
            address,
            name: name.to_owned(),
            patience: TIMEOUT,
            options: options.into(),
            tls,
        };
        target.patient_for(2 * TIMEOUT)
    }

    /// The same server for a run of this `time`: given half of it to answer, so that its silence is
    /// noticed, or as long as usual where that is less.
    #[must_use]
    pub fn patient_for(self, time: Duration) -> Self {
        /// The kernel takes a timeout of 0 for none.
        const SHORTEST: Duration = Duration::from_millis(100);
        let patience = (time / 2).clamp(SHORTEST, TIMEOUT);
        Self {
            options: OptsBuilder::from_opts(self.options)
                .tcp_connect_timeout(Some(patience))
                .read_timeout(Some(patience))
                .write_timeout(Some(patience))
                .into(),
            patience,
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

    pub(super) fn options(&self) -> &Opts {
        &self.options
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn dialer(&self, sources: Vec<IpAddr>) -> Dialer {
        Dialer {
            server: self.address,
            sources,
            patience: self.patience,
        }
    }

    /// A connection to ask questions over.
    ///
    /// # Errors
    /// Whatever the kernel or the server say.
    pub fn open(&self) -> Result<Conn, mysql::Error> {
        // The crate panics at some keys that a server may send.
        catch_unwind(AssertUnwindSafe(|| Conn::new(self.options.clone())))
            .unwrap_or_else(|_| Err(DriverError::UnexpectedPacket.into()))
    }

    /// A pool of `size` connections, all of them open.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn pool(&self, size: usize) -> Result<Pool, mysql::Error> {
        let pool = PoolConstraints::new(size, size)
            .map(|constraints| PoolOpts::default().with_constraints(constraints));
        let options = OptsBuilder::from_opts(self.options.clone());
        Pool::new(options.pool_opts(pool))
    }

    /// The first bytes that the server says by itself, if it does so at once.
    ///
    /// # Errors
    /// When it lets no connection in.
    pub fn greeting(&self) -> Result<Vec<u8>, mysql::Error> {
        /// Longer than a server a continent away takes.
        const SHORT: Duration = Duration::from_secs(1);
        /// Where one is expected it may first have to look up this host's name.
        const MYSQL: u16 = 3306;
        let mut tcp = self.dialer(Vec::new()).dial(0)?;
        let patience = if self.address.port() == MYSQL {
            self.patience
        } else {
            SHORT.min(self.patience)
        };
        tcp.set_read_timeout(Some(patience))?;
        let mut first = vec![0; 128];
        let length = tcp.read(&mut first).unwrap_or(0);
        first.truncate(length);
        Ok(first)
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
