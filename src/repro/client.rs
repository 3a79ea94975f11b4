use std::fmt;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::dial::Dialer;
use super::pool::Pool;
use super::session::{Close, Session};
use super::target::Target;
use super::watch::Watch;
use super::wire::{Exchange, drain, is_closed_by_peer};

/// What the loop does again and again.
pub struct Client {
    dialer: Dialer,
    work: Work,
    /// Who watches the server beside it over a connection that the server may not have room for.
    watch: Option<Arc<Watch>>,
}

enum Work {
    /// Connect, log in, close.
    Mysql(Arc<Target>, Close),
    /// Connect, close.
    Tcp,
    /// Take a connection from the pool, ask, give it back.
    Pool(Pool),
}

/// One turn of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// When it began.
    pub(super) begun: Instant,
    /// How long connect() took, or the pool until its connection had answered.
    pub(super) connect: Duration,
    /// How long greeting and login took after it.
    pub(super) login: Option<Duration>,
    /// Whether the server had closed or reset it before the client closed.
    pub(super) closed_by_server: bool,
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
    pub fn mysql(target: Arc<Target>, sources: Vec<IpAddr>, close: Close) -> Self {
        Self {
            dialer: target.dialer(sources),
            work: Work::Mysql(target, close),
            watch: None,
        }
    }

    /// Connects to `target` from `sources` in turn, and closes.
    #[must_use]
    pub fn tcp(target: &Target, sources: Vec<IpAddr>) -> Self {
        Self {
            dialer: target.dialer(sources),
            work: Work::Tcp,
            watch: None,
        }
    }

    /// Works through a pool of `size` connections to `target`, which may take this `time` to open.
    ///
    /// # Errors
    /// When they cannot all be opened, and how many could: the pool opens them at once.
    pub fn pool(target: &Target, size: usize, time: Duration) -> Result<Self, (Cause, u64)> {
        let dialer = target.dialer(Vec::new());
        let end = Instant::now() + time;
        let exchange = || Exchange::within(target.patience()).until(end);
        let open = || login(target, &dialer, 0, exchange()).map(|(session, _)| session);
        let pool = Pool::open(target, size, end, open)?;
        Ok(Self {
            dialer,
            work: Work::Pool(pool),
            watch: None,
        })
    }

    /// The same beside this `watch`.
    #[must_use]
    pub fn beside(self, watch: Option<Arc<Watch>>) -> Self {
        Self { watch, ..self }
    }

    /// Connections that stay open between turns; `None` where each turn makes its own.
    #[must_use]
    pub fn pooled(&self) -> Option<u64> {
        match &self.work {
            Work::Pool(pool) => Some(pool.size),
            Work::Mysql(..) | Work::Tcp => None,
        }
    }

    /// Makes one more connection, as any turn of the loop makes it.
    ///
    /// # Errors
    /// As any turn.
    pub fn connect_again(&self) -> Result<(), Cause> {
        /// It is the last, and nothing waits for it.
        const PATIENCE: Duration = Duration::from_secs(10);
        self.turn(0, Instant::now() + PATIENCE).map(|_| ())
    }

    /// The turn of this `number`, whose login ends by `end` at the latest.
    pub(super) fn turn(&self, number: u64, end: Instant) -> Result<Turn, Cause> {
        /// Until a server has noticed that a connection is gone.
        const NOTICED: Duration = Duration::from_millis(20);
        const TRIES: u32 = 25;
        let begun = Instant::now();
        let mut turn = self.once(number, end);
        for _ in 0..TRIES {
            match (&turn, &self.watch) {
                (Err(cause), Some(watch))
                    if cause.is_want_of_room() && watch.gives_way(cause, begun) =>
                {
                    thread::sleep(NOTICED);
                    turn = self.once(number, end);
                }
                _ => break,
            }
        }
        turn
    }

    fn once(&self, number: u64, end: Instant) -> Result<Turn, Cause> {
        let begun = Instant::now();
        let turn = |connect| Turn {
            begun,
            connect,
            login: None,
            closed_by_server: false,
        };
        match &self.work {
            Work::Pool(pool) => {
                pool.work()?;
                Ok(turn(begun.elapsed()))
            }
            Work::Mysql(target, close) => {
                let exchange = Exchange::within(target.patience()).until(end);
                let (session, turn) = login(target, &self.dialer, number, exchange)?;
                Ok(Turn {
                    closed_by_server: session.leave(*close),
                    ..turn
                })
            }
            Work::Tcp => {
                /// A server that does not close its end must not stop the loop.
                const LINGER: Duration = Duration::from_millis(200);
                let tcp = self.dialer.dial(number)?;
                let turn = turn(begun.elapsed());
                let was_closed = is_closed_by_peer(&tcp);
                let _ = tcp.shutdown(Shutdown::Write);
                let closed_by_server = drain(&tcp, LINGER) || was_closed;
                Ok(Turn {
                    closed_by_server,
                    ..turn
                })
            }
        }
    }
}

/// The connection of this `number`, logged in, and how long that took.
pub(super) fn login(
    target: &Target,
    dialer: &Dialer,
    number: u64,
    exchange: Exchange,
) -> Result<(Session, Turn), Cause> {
    let begun = Instant::now();
    let tcp = dialer.dial(number)?;
    let connect = begun.elapsed();
    let session = Session::login(tcp, target.account(), target.tls(), exchange)?;
    let turn = Turn {
        begun,
        connect,
        login: Some(begun.elapsed().saturating_sub(connect)),
        closed_by_server: false,
    };
    Ok((session, turn))
}
