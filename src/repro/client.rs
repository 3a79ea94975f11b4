use std::fmt;
use std::net::{IpAddr, Shutdown};
use std::time::{Duration, Instant};

use mysql::Pool;
use mysql::prelude::Queryable;

use super::dial::Dialer;
use super::session::{Close, Session, drain};
use super::target::Target;

/// What the loop does again and again.
pub struct Client {
    dialer: Dialer,
    work: Work,
}

enum Work {
    /// Connect, log in, close.
    Mysql(Box<Target>, Close),
    /// Connect, close.
    Tcp,
    /// Take a connection from the pool, ask, give it back.
    Pool(Pool),
}

/// One turn of the loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// How long connect() took, or the pool until its connection had answered.
    pub connect: Duration,
    /// How long greeting and login took after it.
    pub login: Option<Duration>,
    /// The server's number of the pool's connection.
    pub pooled: Option<u32>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("dialer", &self.dialer)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Logs in to `target` from `sources` in turn, and closes as `close` says.
    #[must_use]
    pub fn mysql(target: Target, sources: Vec<IpAddr>, close: Close) -> Self {
        Self {
            dialer: target.dialer(sources),
            work: Work::Mysql(Box::new(target), close),
        }
    }

    /// Connects to `target` from `sources` in turn, and closes.
    #[must_use]
    pub fn tcp(target: &Target, sources: Vec<IpAddr>) -> Self {
        Self {
            dialer: target.dialer(sources),
            work: Work::Tcp,
        }
    }

    /// Works through a pool of `size` connections to `target`.
    ///
    /// # Errors
    /// When they cannot be opened: the pool opens all of them at once.
    pub fn pool(target: &Target, size: usize) -> Result<Self, mysql::Error> {
        Ok(Self {
            dialer: target.dialer(Vec::new()),
            work: Work::Pool(target.pool(size)?),
        })
    }

    /// Whether its connections stay open between turns.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        matches!(self.work, Work::Pool(_))
    }

    /// Makes one more connection, as any turn of the loop makes it.
    ///
    /// # Errors
    /// As any turn.
    pub fn connect_again(&self) -> Result<(), mysql::Error> {
        self.turn(0).map(|_| ())
    }

    pub(super) fn turn(&self, number: u64) -> Result<Turn, mysql::Error> {
        let start = Instant::now();
        if let Work::Pool(pool) = &self.work {
            let mut connection = pool.get_conn()?;
            connection.query_drop("DO 0")?;
            return Ok(Turn {
                connect: start.elapsed(),
                login: None,
                pooled: Some(connection.connection_id()),
            });
        }
        let mut tcp = self.dialer.dial(number)?;
        let connect = start.elapsed();
        let mut login = None;
        match &self.work {
            Work::Mysql(target, close) => {
                let start = Instant::now();
                let session = Session::login(tcp, target.options(), target.tls())?;
                login = Some(start.elapsed());
                session.leave(*close);
            }
            Work::Tcp | Work::Pool(_) => {
                /// A server that does not close its end must not stop the loop.
                const LINGER: Duration = Duration::from_millis(200);
                let _ = tcp.shutdown(Shutdown::Write);
                drain(&mut tcp, LINGER);
            }
        }
        Ok(Turn {
            connect,
            login,
            pooled: None,
        })
    }
}
