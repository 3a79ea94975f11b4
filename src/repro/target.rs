use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::cause::Cause;
use super::dial::Dialer;
use super::guard::{self, Greets};
use super::login::Login;
use super::session::Account;
use super::tls::Tls;
use super::wire::PATIENCE;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// A server at one address, reached by TCP only.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    name: String,
    login: Login,
    tls: Option<Tls>,
    /// How long a login or an answer may take.
    patience: Duration,
    /// How long connect() may take.
    connecting: Duration,
    /// Whether the password has been sent under a key that the server showed.
    under_shown_key: Arc<AtomicBool>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .field("name", &self.name)
            .field("login", &self.login)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// The server that `login` names, once for every address its name has, in the resolver's order.
    ///
    /// # Errors
    /// When the name has no address, or a file that TLS needs cannot be read.
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
        let tls = login
            .tls
            .as_ref()
            .map(|wish| Tls::new(bare, wish))
            .transpose()?;
        Ok(addresses
            .map(reached)
            .map(|address| Self::at(bare, address, login.clone(), tls.clone()))
            .collect())
    }

    /// The embedded server, which welcomes anyone.
    #[must_use]
    pub fn embedded(address: SocketAddr) -> Self {
        let login = Login {
            user: Some(guard::NOBODY.into()),
            ..Login::default()
        };
        Self::at(&address.ip().to_string(), address, login, None)
    }

    fn at(name: &str, address: SocketAddr, login: Login, tls: Option<Tls>) -> Self {
        Self {
            address,
            name: name.to_owned(),
            login,
            tls,
            patience: PATIENCE,
            connecting: PATIENCE,
            under_shown_key: Arc::default(),
        }
    }

    /// The same server for a run of this `time`: connect() is given half of it, so that the silence
    /// of a server is noticed, and a login as much as there is.
    #[must_use]
    pub fn patient_for(self, time: Duration) -> Self {
        const SHORTEST: Duration = Duration::from_millis(100);
        Self {
            patience: time.clamp(SHORTEST, PATIENCE),
            connecting: (time / 2).clamp(SHORTEST, PATIENCE),
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

    pub(super) fn account(&self) -> Account<'_> {
        Account {
            user: self.login.user.as_deref(),
            password: self.login.password.as_ref().map_or("", Secret::reveal),
            database: self.login.database.as_deref(),
            under_shown_key: Some(&self.under_shown_key),
        }
    }

    /// Whether the password has been sent under a key that the server showed.
    pub(super) fn has_shown_a_key(&self) -> bool {
        self.under_shown_key.load(Ordering::Relaxed)
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn dialer(&self, sources: Vec<IpAddr>) -> Dialer {
        Dialer {
            server: self.address,
            sources,
            patience: self.connecting,
        }
    }

    /// How the server greets; MySQL is left as it would be left by a client that is denied.
    ///
    /// # Errors
    /// When it lets no connection in.
    pub(super) fn greets(&self) -> Result<Greets, Cause> {
        let tcp = self.dialer(Vec::new()).dial(0)?;
        Ok(guard::look(tcp, guard::LONGEST))
    }

    /// The same where it does not matter how.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn lets_in(&self) -> Result<Greets, Cause> {
        self.dialer(Vec::new()).dial(0).map(|_| Greets::Otherwise)
    }
}

/// Where a connect() to `address` goes: IPv4 in IPv6's clothes is IPv4, and the unspecified address
/// is loopback (ip(7)). The interface of a link-local address stays with it.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut reached = address;
    reached.set_ip(ip);
    match (&mut reached, address) {
        (SocketAddr::V6(reached), SocketAddr::V6(address)) => {
            reached.set_scope_id(address.scope_id());
            SocketAddr::V6(*reached)
        }
        _ => reached,
    }
}
