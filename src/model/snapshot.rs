use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Flow, FlowUse, PortRange, PortSet, Tally, Timestamps, Trial, Tunables};
use crate::words::{count, counted};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weight {
    /// The verdict may be wrong.
    Decisive,
    /// A detail is missing: worth a note.
    Minor,
    /// Nothing now: for the record only.
    None,
}

/// The rows of a table of /proc are other ones than the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disagreement {
    /// Rows of this kind.
    pub rows: u64,
    /// Which.
    pub kind: &'static str,
    /// How many the kernel counts.
    pub counted: u64,
    /// In this file of `net/`.
    pub file: &'static str,
    /// What it comes from.
    pub meaning: &'static str,
    /// What hangs on it.
    pub weight: Weight,
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

/// Network namespaces beside the one looked at, such as those of containers, that have TCP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherNamespaces {
    /// How many were found.
    pub number: usize,
    /// A process in the one that has most of them.
    pub pid: i32,
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
    /// `TcpExt.TCPAbortOnData` of /proc/net/netstat: connections that were reset, and left no
    /// TIME_WAIT, because data came for them after this side had closed.
    pub aborted_on_data: Option<u64>,
    /// `Tcp.CurrEstab` of /proc/net/snmp, now: sockets in ESTABLISHED or CLOSE_WAIT.
    pub established: Option<u64>,
    /// `tw` of /proc/net/sockstat, now: TIME_WAIT sockets, orphans in FIN_WAIT2 among them. This is
    /// what `tcp_max_tw_buckets` limits.
    pub time_wait: Option<u64>,
    /// TCP sockets in no table, now: those that are bound to a port without a connection, those that
    /// are not, and as far as the kernel does not tell them apart those of other namespaces.
    pub outside: Option<u64>,
    /// Connections tracked now (`net.netfilter.nf_conntrack_count`, formerly
    /// `net.ipv4.netfilter.ip_conntrack_count`) and at most (`…_max`); `None` where connection
    /// tracking is not loaded.
    pub conntrack: Option<(u64, u64)>,
    /// `insert_failed` of /proc/net/stat/nf_conntrack, over all CPUs: connections that could not be
    /// tracked because the same one was tracked already, as where translated ports run out. `None`
    /// where connection tracking is not loaded.
    pub insert_failed: Option<u64>,
    /// Whether `insert_failed` counts clashes too that were resolved without any loss, as from Linux
    /// 4.7 to 5.9; before, there was no resolving, and the counters look the same.
    pub resolved_clashes_fail: bool,
    /// `drop` likewise: packets that were dropped because their connection could not be tracked, as
    /// where the table is full.
    pub dropped: Option<u64>,
}

/// What was counted between two looks; `None` where it could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// TIME_WAIT sockets turned away at `tcp_max_tw_buckets`.
    pub time_wait_overflows: Option<u64>,
    /// Ports in TIME_WAIT that were reused.
    pub time_wait_recycled: Option<u64>,
    /// Connections that could not be tracked.
    pub insert_failed: Option<u64>,
    /// Packets dropped because of that.
    pub dropped: Option<u64>,
}

impl Growth {
    /// From one look to a later one.
    #[must_use]
    pub fn between(before: &Counters, after: &Counters) -> Self {
        let grown = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
        Self {
            time_wait_overflows: grown(before.time_wait_overflows, after.time_wait_overflows),
            time_wait_recycled: grown(before.time_wait_recycled, after.time_wait_recycled),
            insert_failed: grown(before.insert_failed, after.insert_failed),
            dropped: grown(before.dropped, after.dropped),
        }
    }
}

/// Where the rows came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceName {
    /// Netlink `sock_diag`.
    SockDiag,
    /// `/proc/net/tcp` and `tcp6`.
    Proc,
    /// What ss or netstat printed.
    Text,
}

/// Why ports that are bound, and neither listen nor are connected, are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unseen {
    /// `/proc/net/tcp` does not show them.
    InProc,
    /// What ss or netstat prints does not.
    InText,
    /// The kernel does not: one that was bound for a trial was missing from its answer.
    ByKernel,
    /// The kernel showed none, and no port was left for a trial.
    WithoutTrial,
    /// The kernel did not answer.
    WithoutAnswer,
    /// It was not asked, because they do not matter.
    Unasked,
}

/// Ports bound explicitly by sockets that do not listen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPorts {
    /// Those that are known.
    pub known: PortSet,
    /// Why there may be more; `None` where there are not.
    pub unseen: Option<Unseen>,
}

/// Everything one look at the machine tells.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The machine.
    pub host: Host,
    /// Its settings.
    pub tunables: Tunables,
    /// Ports bound explicitly by sockets that do not listen.
    pub bound: BoundPorts,
    /// Further ports in use that connect() passes over whatever the destination, because bind() has
    /// handed them out; `None` where the kernel was not asked, or does not tell.
    pub passed_over: Option<PortSet>,
    /// The socket table.
    pub tally: Tally,
    /// How long TIME_WAIT lasts: what the settings say, or longer where a timer does.
    pub hold_time: Duration,
    /// This machine's own addresses; `None` where they are unknown, as on a recorded host.
    pub addresses: Option<Vec<IpAddr>>,
    /// The other ends of live sockets by whether they have TCP timestamps, where that was asked.
    pub timestamps: HashMap<Flow, Timestamps>,
    /// What the kernel answered for the flows that it was asked about.
    pub trials: HashMap<Flow, Trial>,
    /// Counters.
    pub counters: Counters,
    /// What they counted during a second look; `None` where there was none.
    pub growth: Option<Growth>,
    /// The kernel's timer tick (a jiffy); `None` on a recorded host.
    pub tick: Option<Duration>,
    /// Where the rows came from.
    pub source: SourceName,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Snapshot {
    /// What a look tells that has read settings and sockets, and nothing else.
    #[must_use]
    pub fn new(tunables: Tunables, tally: Tally, source: SourceName) -> Self {
        Self {
            host: Host::default(),
            tunables,
            bound: BoundPorts {
                known: PortSet::default(),
                unseen: Some(match source {
                    SourceName::Proc => Unseen::InProc,
                    SourceName::SockDiag => Unseen::Unasked,
                    SourceName::Text => Unseen::InText,
                }),
            },
            passed_over: None,
            hold_time: tally.rule().hold_time,
            tally,
            addresses: None,
            timestamps: HashMap::new(),
            trials: HashMap::new(),
            counters: Counters::default(),
            growth: None,
            tick: None,
            source,
            gaps: Vec::new(),
        }
    }

    /// Adds what another look tells about timestamps.
    pub fn note_timestamps(&mut self, more: HashMap<Flow, Timestamps>) {
        for (flow, ends) in more {
            let known = self.timestamps.entry(flow).or_default();
            known.with += ends.with;
            known.without += ends.without;
        }
    }

    /// Adds what the kernel answered.
    pub fn note_trials(&mut self, more: HashMap<Flow, Trial>) {
        for (flow, trial) in more {
            let known = self.trials.entry(flow).or_default();
            known.has_port = trial.has_port.or(known.has_port);
            known.reused += trial.reused;
            known.refused += trial.refused;
        }
    }

    /// Whether the socket table was read without a decisive gap: otherwise what it lacks is unknown,
    /// not zero.
    #[must_use]
    pub fn is_table_whole(&self) -> bool {
        const TABLES: [&str; 3] = ["net/tcp", "sock_diag", "rows of "];
        let is_of_table = |gap: &Gap| TABLES.iter().any(|it| gap.what.contains(it));
        let mut decisive = self
            .gaps
            .iter()
            .filter(|gap| gap.weight == Weight::Decisive);
        !decisive.any(is_of_table)
    }

    /// Whether both ends of `flow` are this machine.
    #[must_use]
    pub fn is_own(&self, flow: &Flow) -> bool {
        flow.destination.is_loopback()
            || flow.destination == flow.source
            || self
                .addresses
                .as_ref()
                .is_some_and(|own| own.contains(&flow.destination))
    }

    /// Everything that is unknown about the ports: what could not be read, and bound ports where
    /// the source does not show them.
    pub fn all_gaps(&self) -> impl Iterator<Item = Gap> {
        let bound = self.bound.unseen.map(|why| self.bound_unknown(why));
        self.gaps
            .iter()
            .cloned()
            .chain(bound)
            .chain(self.interfaces_unknown())
    }

    /// That bound ports are not known, and whether it matters.
    fn bound_unknown(&self, unseen: Unseen) -> Gap {
        let why = match unseen {
            Unseen::InText => "what ss or netstat prints does not show them",
            Unseen::InProc => "/proc/net/tcp does not show them; sock_diag does, from Linux 6.8",
            Unseen::ByKernel => "this kernel does not show them; Linux does from 6.8 on",
            Unseen::WithoutTrial => {
                "this kernel shows none, which before Linux 6.8 means nothing, and no port outside \
                 the range could be bound to find that out with"
            }
            Unseen::WithoutAnswer => "the kernel did not answer",
            Unseen::Unasked => {
                "not asked for: the table is large and no flow takes half of its ports, so that they \
                 do not matter"
            }
        };
        if let Some((outside, most, usable)) = self.may_be_bound() {
            return Gap {
                what: "ports bound but neither listening nor connected".into(),
                why: format!(
                    "up to {} here hold one each, and {why}; the fullest flow takes {} of {}, so that \
                     few or none may be left. An attempt tells: `twcheck verdict HOST:PORT --connect`",
                    counted(outside, "TCP socket"),
                    count(most),
                    count(usable)
                ),
                weight: Weight::Decisive,
            };
        }
        Gap {
            what: "ports bound but neither listening nor connected".into(),
            why: why.into(),
            weight: match self.source {
                SourceName::Proc | SourceName::Text => Weight::Minor,
                SourceName::SockDiag => Weight::None,
            },
        }
    }

    /// How many sockets may hold a port that is not shown, how many the fullest flow takes, and how
    /// many there are, where that may turn plenty into few or few into none; `None` where the kernel
    /// was asked for ports.
    fn may_be_bound(&self) -> Option<(u64, u32, u32)> {
        if self.passed_over.is_some() {
            return None;
        }
        let rule = self.tally.rule();
        let can_be_had = |port: &u16| {
            !rule.reserved.contains(*port) && !self.tally.listening.ports().contains(*port)
        };
        let usable = self.tunables.ip_local_port_range?.ports();
        let usable = u32::try_from(usable.filter(can_be_had).count()).ok()?;
        let outside = self.counters.outside.filter(|&outside| outside > 0)?;
        // Of one that the kernel has no port for there is nothing left to know.
        let is_full = |flow: &Flow| {
            let trial = self.trials.get(flow);
            trial.is_some_and(|trial| trial.has_port == Some(false))
        };
        let flows = self.tally.flows.iter().filter(|(flow, _)| !is_full(flow));
        let most = flows.map(|(_, used)| used.countable_in_use()).max();
        let most = most.unwrap_or(0);
        let (taken, all) = (u64::from(most), u64::from(usable));
        let matters = if taken * 2 >= all {
            taken < all && taken + outside >= all
        } else {
            taken * 2 + outside >= all
        };
        matters.then_some((outside, most, usable))
    }

    /// Sockets bound to an interface have ports of their own, which /proc/net/tcp does not tell
    /// apart: it matters where a flow seems to have more ports than there are, or where addresses
    /// are link-local, which are the interface's own.
    fn interfaces_unknown(&self) -> Option<Gap> {
        let ports = self.tunables.ip_local_port_range.map(PortRange::len);
        let is_told_apart = |(flow, used): (&Flow, &FlowUse)| {
            let more = ports.is_some_and(|ports| used.ports_in_use() > ports);
            let link_local = match flow.destination {
                IpAddr::V6(address) => address.is_unicast_link_local(),
                IpAddr::V4(_) => false,
            };
            // Where it decides, the flow of those bound to an interface is another one.
            let many = ports.is_some_and(|ports| used.ports_in_use() * 2 >= ports);
            more || many || link_local
        };
        let matters = self.source == SourceName::Proc && self.tally.flows.iter().any(is_told_apart);
        matters.then(|| Gap {
            what: "interfaces that sockets are bound to".into(),
            why:
                "/proc/net/tcp does not show them, so flows that have ports of their own are taken \
                  for one; sock_diag does"
                    .into(),
            weight: Weight::Minor,
        })
    }

    /// Ports that connect() skips: those that somebody bound, of whatever kind, and those that
    /// bind() has handed out.
    #[must_use]
    pub fn skipped(&self) -> PortSet {
        match &self.passed_over {
            Some(ports) => self.held().union(ports),
            None => self.held(),
        }
    }

    /// Ports that somebody bound, listening or not.
    #[must_use]
    pub fn held(&self) -> PortSet {
        self.tally.listening.ports().union(&self.bound.known)
    }
}
