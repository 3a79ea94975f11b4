use std::fmt;
use std::time::Duration;

use mysql::MySqlError;
use nix::errno::Errno;

/// Why an attempt to connect failed, as far as the attempt itself tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The kernel said no to a connection.
    System {
        /// What was asked of it.
        call: Call,
        /// Its answer.
        errno: i32,
    },
    /// The server said no.
    Server(MySqlError),
    /// It did not accept user and password (1045), under TLS.
    DeniedUnderTls(MySqlError),
    /// The connection was cut off.
    Lost {
        /// When.
        stage: Stage,
        /// The system's number; `None` where the server closed its end.
        errno: Option<i32>,
    },
    /// It went on for too long.
    Slow {
        /// What did.
        stage: Stage,
        /// How long it had gone on when it was given up.
        after: Duration,
    },
    /// Not all the connections of a pool could be opened in time.
    PoolNotOpen {
        /// Those that were.
        opened: u64,
        /// Those it was to have.
        size: u64,
        /// How long it took.
        after: Duration,
    },
    /// All the connections of a pool were lent.
    PoolBusy {
        /// How many it has.
        size: u64,
        /// How long one was waited for.
        after: Duration,
    },
    /// Something else than MySQL answered, or MySQL out of all bounds.
    NotMysql,
    /// TLS did not come about: why.
    Tls(TlsTrouble),
    /// The account is proved in a way of this name, which is not spoken here.
    Plugin(String),
    /// The password could not be sent: why.
    Unsendable(String),
    /// Something on this machine: what.
    Other(String),
}

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// bind(), to a source address.
    Bind,
    /// connect(), or socket() before it.
    Connect,
}

/// A part of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until the server has greeted.
    Greeting,
    /// Until both speak TLS.
    Tls,
    /// Until the server has let the client in.
    Login,
    /// A question after that.
    Question,
}

/// Why TLS did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsTrouble {
    /// The server has none.
    NotOffered,
    /// The certificate is for other names.
    WrongName(String),
    /// The certificate is for no name.
    NoName(String),
    /// Nobody who is trusted has signed the certificate.
    UnknownIssuer(String),
    /// The two have no version or cipher in common.
    NothingInCommon(String),
    /// The server does not accept the client's certificate.
    ClientCertificate(String),
    /// Nor know who signed it.
    ClientUnknown(String),
    /// It demands one, and there is none.
    ClientCertificateRequired(String),
    /// Anything else.
    Other(String),
}

impl Cause {
    /// Whether no port was left, or no address: errno 99.
    #[must_use]
    pub fn is_address_not_available(&self) -> bool {
        matches!(self, Self::System { errno, .. } if *errno == Errno::EADDRNOTAVAIL as i32)
    }

    /// Whether the server would let this client in if it had one connection less.
    #[must_use]
    pub fn is_want_of_room(&self) -> bool {
        /// `ER_CON_COUNT_ERROR`, `ER_TOO_MANY_USER_CONNECTIONS`.
        const FULL: [u16; 2] = [1040, 1203];
        /// `ER_USER_LIMIT_REACHED`, of what is counted by the hour too.
        const USER_LIMIT: u16 = 1226;
        match self {
            Self::Server(error) if error.code == USER_LIMIT => {
                error.message.contains("max_user_connections")
            }
            Self::Server(error) => FULL.contains(&error.code),
            _ => false,
        }
    }

    /// Whether it says that a server was there.
    #[must_use]
    pub fn is_from_a_server(&self) -> bool {
        !matches!(self, Self::System { .. } | Self::Other(_))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "its greeting",
            Self::Tls => "the TLS handshake",
            Self::Login => "the login",
            Self::Question => "its answer",
        })
    }
}

impl fmt::Display for TlsTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str("the server does not support it"),
            Self::WrongName(text)
            | Self::NoName(text)
            | Self::UnknownIssuer(text)
            | Self::NothingInCommon(text)
            | Self::ClientCertificate(text)
            | Self::ClientUnknown(text)
            | Self::ClientCertificateRequired(text)
            | Self::Other(text) => f.write_str(text),
        }
    }
}
