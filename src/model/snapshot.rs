use std::time::Duration;

use serde::Serialize;

use super::{PortSet, Tally, Tunables};

/// Something that could not be read. Unknown, never zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The file or question.
    pub what: String,
    /// Why it has no answer, and the way round it.
    pub why: String,
    /// What hangs on it.
    #[serde(skip)]
    pub weight: Weight,
}

/// What hangs on something unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The verdict may be wrong.
    Decisive,
    /// A detail is missing: worth a note.
    Minor,
    /// Nothing now: for the record only.
    None,
}

/// Which machine, and which view of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// `kernel.hostname`; `None` when unreadable.
    pub hostname: Option<String>,
    /// `kernel.osrelease`; `None` when unreadable.
    pub kernel: Option<String>,
    /// Inode of the network namespace; `None` on a recorded host.
    pub netns: Option<u64>,
}

/// What the kernel counts, unless noted since the namespace was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// `TcpExt.TCPTimeWaitOverflow` of /proc/net/netstat: TIME_WAIT sockets that
    /// `tcp_max_tw_buckets` turned away.
    pub time_wait_overflows: Option<u64>,
    /// `TcpExt.TWRecycled` of /proc/net/netstat: ports in TIME_WAIT that were given out again. Where
    /// it grows, `tcp_tw_reuse` works, for some flow at least.
    pub time_wait_recycled: Option<u64>,
    /// `Tcp.CurrEstab` of /proc/net/snmp, now: sockets in ESTABLISHED or CLOSE_WAIT.
    pub established: Option<u64>,
    /// `tw` of /proc/net/sockstat, now: TIME_WAIT sockets, orphans in FIN_WAIT2 among them. This is
    /// what `tcp_max_tw_buckets` limits.
    pub time_wait: Option<u64>,
    /// Connections tracked now (`net.netfilter.nf_conntrack_count`, formerly
    /// `net.ipv4.netfilter.ip_conntrack_count`) and at most (`…_max`); `None` where connection
    /// tracking is not loaded.
    pub conntrack: Option<(u64, u64)>,
    /// `insert_failed` of /proc/net/stat/nf_conntrack, over all CPUs: connections that could not be
    /// tracked because the same one was tracked already, as where translated ports run out. `None`
    /// where connection tracking is not loaded.
    pub insert_failed: Option<u64>,
    /// `drop` likewise: packets that were dropped because their connection could not be tracked, as
    /// where the table is full.
    pub dropped: Option<u64>,
    /// `early_drop` likewise: tracked connections that were given up to make room for others.
    pub early_dropped: Option<u64>,
}

/// Where the rows came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceName {
    /// Netlink `sock_diag`.
    SockDiag,
    /// `/proc/net/tcp` and `tcp6`.
    Proc,
}

/// Everything one look at the machine tells.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The machine.
    pub host: Host,
    /// Its settings.
    pub tunables: Tunables,
    /// Ports bound explicitly by sockets that neither listen nor connect; `None` when the source
    /// cannot tell.
    pub bound: Option<PortSet>,
    /// The socket table.
    pub tally: Tally,
    /// Counters.
    pub counters: Counters,
    /// The kernel's timer tick (a jiffy); `None` on a recorded host.
    pub tick: Option<Duration>,
    /// Where the rows came from.
    pub source: SourceName,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Snapshot {
    /// How long TIME_WAIT lasts here: what the settings say, or longer where a timer does.
    #[must_use]
    pub fn hold_time(&self) -> Duration {
        /// Timers are read in whole ticks, up to 10 ms.
        const ROUNDING: Duration = Duration::from_millis(10);
        let told = self.tunables.hold_time();
        let seen = self.tally.longest_left;
        if seen <= told + ROUNDING {
            return told;
        }
        Duration::from_secs(u64::try_from(seen.as_millis().div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// Everything that is unknown about the ports: what could not be read, and bound ports where
    /// the source does not show them.
    pub fn all_gaps(&self) -> impl Iterator<Item = Gap> {
        let bound = self.bound.is_none().then(|| Gap {
            what: "ports bound but neither listening nor connected".into(),
            why: match self.source {
                SourceName::Proc => {
                    "/proc/net/tcp does not show them; sock_diag does, from Linux 6.8"
                }
                SourceName::SockDiag => {
                    "not counted: this kernel does not show them (before Linux 6.8), no port outside \
                     the range was left to find that out with, or the table is large and no flow \
                     takes half of its ports, so that they do not matter"
                }
            }
            .into(),
            weight: match self.source {
                SourceName::Proc => Weight::Minor,
                SourceName::SockDiag => Weight::None,
            },
        });
        self.gaps.iter().cloned().chain(bound)
    }

    /// Ports of either kind that connect() skips because somebody bound them.
    #[must_use]
    pub fn held(&self) -> PortSet {
        match &self.bound {
            Some(bound) => self.tally.listening.union(bound),
            None => self.tally.listening.clone(),
        }
    }
}
