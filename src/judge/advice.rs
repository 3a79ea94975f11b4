//! What to change on this machine, what to leave alone, and what the application should do.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Capacity;
use super::capacity::rounded_rate;
use super::destination::Sought;
use super::experiment::Proof;
use super::goal::{Goal, Needs, needs};
use super::verdict::overflowing;
use crate::model::{
    Flow, FlowUse, Gap, PortRange, PortSet, Snapshot, TcpState, TimeWaitReuse, Toward, Tunables,
};
use crate::words::{at_most, count, counted, rate, time};

/// The range recommended where the current one is narrower: above the ports that services are
/// commonly given, with ends of different parity, because a range of an odd number of ports can
/// come out one short (`__inet_hash_connect` rounds it down to an even one).
const WIDE_RANGE: PortRange = PortRange {
    low: 10240,
    high: 65535,
};

/// A wider range is worth its risk from this factor on.
const WORTH_WIDENING: f64 = 1.1;

/// How long a connection is held in the sizing example for a pool.
const EXAMPLE_BUSY: Duration = Duration::from_millis(20);

/// Everything `advise` says, in the order of the JSON contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Version of this structure.
    pub schema: u32,
    /// One sentence: what the machine bears now and after the changes.
    pub summary: String,
    /// The destination that it is about; `None`, and left out of the JSON, where it is about any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Sought>,
    /// What to change, in the order in which to apply it; each rate is the one reached with the
    /// changes before it.
    pub changes: Vec<Change>,
    /// What it takes to carry the rate wanted; `None` where none was named.
    pub goal: Option<Needs>,
    /// What the changes did in a sandbox; `None` where that was not asked for.
    pub proof: Option<Proof>,
    /// What not to change.
    pub not_recommended: Vec<Remark>,
    /// What the application should do.
    pub application: Vec<Remark>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// One recommended sysctl.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its name.
    pub sysctl: Sysctl,
    /// Its value now; `None` when unknown.
    pub current: Option<String>,
    /// The value to set.
    pub recommended: String,
    /// The highest rate toward one destination before; `None` where ports do not bound it.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_before: Option<f64>,
    /// The highest rate after.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_after: Option<f64>,
    /// What it does.
    pub why: String,
    /// What can go wrong.
    pub risk: String,
    /// The settings of now with this change alone.
    #[serde(skip)]
    pub alone: Tunables,
    /// The settings with this change and those before it.
    #[serde(skip)]
    pub together: Tunables,
}

/// A piece of advice that is no sysctl change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The subject.
    pub what: String,
    /// The reason, with numbers where there are any.
    pub why: String,
}

/// The sysctls that advice may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sysctl {
    /// `net.ipv4.tcp_tw_recycle`
    TcpTwRecycle,
    /// `net.ipv4.tcp_timestamps`
    TcpTimestamps,
    /// `net.ipv4.tcp_tw_reuse`
    TcpTwReuse,
    /// `net.ipv4.ip_local_reserved_ports`
    IpLocalReservedPorts,
    /// `net.ipv4.ip_local_port_range`
    IpLocalPortRange,
    /// `net.ipv4.tcp_max_tw_buckets`
    TcpMaxTwBuckets,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcpTwRecycle => "net.ipv4.tcp_tw_recycle",
            Self::TcpTimestamps => "net.ipv4.tcp_timestamps",
            Self::TcpTwReuse => "net.ipv4.tcp_tw_reuse",
            Self::IpLocalReservedPorts => "net.ipv4.ip_local_reserved_ports",
            Self::IpLocalPortRange => "net.ipv4.ip_local_port_range",
            Self::TcpMaxTwBuckets => "net.ipv4.tcp_max_tw_buckets",
        })
    }
}

impl Serialize for Sysctl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Advises on one snapshot, and on `goal` where somebody wants a rate.
#[must_use]
pub fn advise(snapshot: &Snapshot, goal: Option<Goal>) -> Advice {
    let held = snapshot.held();
    let hold_time = snapshot.hold_time;
    let toward = snapshot.tally.toward.as_ref();
    let now = Capacity::new(&snapshot.tunables, &held, hold_time);
    let mut plan = Plan {
        tunables: snapshot.tunables.clone(),
        held: &held,
        listening: snapshot.tally.listening.ports(),
        hold_time,
        loopback: toward.is_some_and(Toward::is_loopback),
        now: &snapshot.tunables,
        changes: Vec::new(),
    };
    let before = plan.max_rate();
    recycle(&mut plan);
    reuse(&mut plan);
    range(&mut plan);
    buckets(&mut plan, snapshot);
    let goal = goal.map(|goal| {
        let needs = Needs {
            destination: toward.map(|toward| toward.asked.to_string()),
            ..needs(goal, before, plan.unknown().is_empty(), &plan.changes)
        };
        if let Some(enough) = needs.changes_needed {
            plan.keep(enough);
        }
        needs
    });
    Advice {
        schema: 1,
        summary: summary(&plan, before, toward),
        destination: Sought::new(snapshot),
        application: application(snapshot, now.as_ref(), before),
        goal,
        proof: None,
        not_recommended: not_recommended(&snapshot.tunables),
        gaps: snapshot.all_gaps().collect(),
        changes: plan.changes,
    }
}

/// The machine as it becomes while changes are added.
struct Plan<'a> {
    tunables: Tunables,
    held: &'a PortSet,
    listening: &'a PortSet,
    hold_time: Duration,
    /// Whether the destination is loopback.
    loopback: bool,
    /// The machine as it is.
    now: &'a Tunables,
    changes: Vec<Change>,
}

impl Plan<'_> {
    /// The rate toward one destination.
    fn max_rate(&self) -> Option<f64> {
        let reuse = self.tunables.reuse_allowed(self.loopback)?;
        self.capacity()?.max_rate(reuse)
    }

    fn capacity(&self) -> Option<Capacity> {
        Capacity::new(&self.tunables, self.held, self.hold_time)
    }

    /// The settings that decide and could not be read.
    fn unknown(&self) -> Vec<&'static str> {
        let tunables = &self.tunables;
        [
            (
                "net.ipv4.ip_local_port_range",
                tunables.ip_local_port_range.is_none(),
            ),
            (
                "net.ipv4.ip_local_reserved_ports",
                tunables.ip_local_reserved_ports.is_none(),
            ),
            ("net.ipv4.tcp_tw_reuse", tunables.tcp_tw_reuse.is_none()),
            ("net.ipv4.tcp_timestamps", tunables.tcp_timestamps.is_none()),
            (
                "net.ipv4.tcp_max_tw_buckets",
                tunables.tcp_max_tw_buckets.is_none(),
            ),
        ]
        .into_iter()
        .filter_map(|(name, unknown)| unknown.then_some(name))
        .collect()
    }

    /// Leaves out the changes after the first `enough`, but for the one that mends what is broken.
    fn keep(&mut self, enough: usize) {
        let mut index = 0;
        self.changes.retain(|change| {
            index += 1;
            index <= enough || change.sysctl == Sysctl::TcpTwRecycle
        });
    }

    /// Applies a change and records it with the rate it buys.
    fn change(
        &mut self,
        sysctl: Sysctl,
        current: Option<String>,
        recommended: impl fmt::Display,
        apply: impl Fn(&mut Tunables),
        why: impl Into<String>,
        risk: impl Into<String>,
    ) {
        let max_rate_before = self.max_rate();
        apply(&mut self.tunables);
        let mut alone = self.now.clone();
        apply(&mut alone);
        self.changes.push(Change {
            sysctl,
            current,
            recommended: recommended.to_string(),
            max_rate_before,
            max_rate_after: self.max_rate(),
            why: why.into(),
            risk: risk.into(),
            alone,
            together: self.tunables.clone(),
        });
    }
}

fn text(value: Option<impl fmt::Display>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn recycle(plan: &mut Plan) {
    if let Some(current) = plan.tunables.tcp_tw_recycle.filter(|&value| value != 0) {
        plan.change(
            Sysctl::TcpTwRecycle,
            Some(current.to_string()),
            0,
            |tunables| tunables.tcp_tw_recycle = Some(0),
            "It drops connections of clients that share an address behind NAT. Linux 4.12 removed \
             it; this kernel still has it, switched on.",
            "None: tcp_tw_reuse does what it was meant for, safely.",
        );
    }
}

fn reuse(plan: &mut Plan) {
    if plan.tunables.tcp_timestamps == Some(0) {
        plan.change(
            Sysctl::TcpTimestamps,
            Some("0".into()),
            1,
            |tunables| tunables.tcp_timestamps = Some(1),
            "TIME_WAIT reuse tells old packets from new ones by TCP timestamps: without them it \
             never happens.",
            "12 bytes more per packet. Both ends must have them on.",
        );
    }
    let current = plan.tunables.tcp_tw_reuse;
    let enough = |reuse| {
        reuse == TimeWaitReuse::On || (plan.loopback && reuse == TimeWaitReuse::LoopbackOnly)
    };
    if current.is_some_and(|current| !enough(current)) {
        let now = if current == Some(TimeWaitReuse::LoopbackOnly) {
            "now only for loopback"
        } else {
            "now never"
        };
        let delay = plan.tunables.reuse_delay();
        plan.change(
            Sysctl::TcpTwReuse,
            text(current.map(|current| current as u8)),
            1,
            |tunables| tunables.tcp_tw_reuse = Some(TimeWaitReuse::On),
            format!(
                "A port in TIME_WAIT can be taken again for the same destination after {} instead \
                 of {} s ({now}). It works on the side that connects.",
                time(delay),
                plan.tunables.told_hold_time().as_secs()
            ),
            "Small: timestamps guard against stray packets of the old connection. Middleboxes \
             that strip timestamps make it useless, not harmful.",
        );
    }
}

fn range(plan: &mut Plan) {
    let (Some(range), Some(reserved)) = (
        plan.tunables.ip_local_port_range,
        plan.tunables.ip_local_reserved_ports.clone(),
    ) else {
        return;
    };
    let mut wide = PortRange {
        low: range.low.min(WIDE_RANGE.low),
        high: WIDE_RANGE.high,
    };
    if (wide.low ^ wide.high) & 1 == 0 {
        wide.low += 1;
    }
    if f64::from(wide.len()) < f64::from(range.len()) * WORTH_WIDENING {
        return;
    }
    let swallowed = |port: &u16| wide.contains(*port) && !range.contains(*port);
    let added: PortSet = plan
        .listening
        .ports()
        .filter(swallowed)
        .filter(|&port| !reserved.contains(port))
        .collect();
    let both = reserved.union(&added);
    if both != reserved {
        plan.change(
            Sysctl::IpLocalReservedPorts,
            Some(reserved.to_string()),
            both.to_string(),
            |tunables| tunables.ip_local_reserved_ports = Some(both.clone()),
            format!(
                "Services hold {added} inside the wider range. Reserved, no outgoing connection \
                 takes such a port while its service restarts."
            ),
            "Services that do not run now are not in the list: add their ports (NodePorts, for \
             one: 30000-32767).",
        );
    }
    plan.change(
        Sysctl::IpLocalPortRange,
        Some(range.to_string()),
        wide,
        |tunables| tunables.ip_local_port_range = Some(wide),
        format!(
            "{} ports toward each destination instead of {}; it helps against ports held by open \
             connections too.",
            count(wide.len()),
            count(range.len())
        ),
        "A service that starts later can find its port taken: reserve it. Firewalls that allow \
         only the old range must allow the new one.",
    );
}

fn buckets(plan: &mut Plan, snapshot: &Snapshot) {
    /// The sysctl is an int.
    const HIGHEST: u64 = i32::MAX as u64;
    let (Some(current), Some(capacity)) = (plan.tunables.tcp_max_tw_buckets, plan.capacity())
    else {
        return;
    };
    let usable = capacity.usable_ports;
    let overflowing = overflowing(snapshot);
    // Room for twice what one flow can hold, or twice what does not suffice.
    let needed = u64::from(usable).max(if overflowing { current } else { 0 });
    let recommended = needed
        .saturating_mul(2)
        .checked_next_power_of_two()
        .map_or(HIGHEST, |power| power.min(HIGHEST));
    if (current >= u64::from(usable) && !overflowing) || recommended <= current {
        return;
    }
    let overflows = snapshot.counters.time_wait_overflows.unwrap_or(0);
    plan.change(
        Sysctl::TcpMaxTwBuckets,
        Some(current.to_string()),
        recommended,
        |tunables| tunables.tcp_max_tw_buckets = Some(recommended),
        if overflowing {
            format!(
                "The kernel has dropped {} TIME_WAIT sockets at this limit; each left its port \
                 open to stray packets of the old connection.",
                count(overflows)
            )
        } else {
            format!(
                "The limit is below the {} usable ports: TIME_WAIT beyond it is dropped at once, \
                 and its protection with it.",
                count(usable)
            )
        },
        format!(
            "Memory: some {} MB if it ever fills.",
            count((recommended * 250).div_ceil(1_000_000))
        ),
    );
}

fn summary(plan: &Plan, before: Option<f64>, toward: Option<&Toward>) -> String {
    let unknown = plan.unknown();
    if !unknown.is_empty() {
        return format!(
            "Not known here, so nothing is said about it: {}.",
            unknown.join(", ")
        );
    }
    let destination = toward.map_or_else(
        || "one destination".into(),
        |toward| toward.asked.to_string(),
    );
    let now = format!("{} to {destination}", at_most(before));
    let last = plan.changes.last();
    let after = last.map_or(before, |change| change.max_rate_after);
    match plan.changes.len() {
        0 => format!("This machine needs no change: it bears {now}."),
        changes => format!(
            "This machine bears {now}; with the {} below, {}.",
            counted(changes as u64, "change"),
            after.map_or_else(|| "no other rate".into(), rate)
        ),
    }
}

fn remark(what: impl Into<String>, why: impl Into<String>) -> Remark {
    Remark {
        what: what.into(),
        why: why.into(),
    }
}

fn not_recommended(tunables: &Tunables) -> Vec<Remark> {
    vec![
        remark(
            "lower net.ipv4.tcp_fin_timeout",
            format!(
                "It limits FIN_WAIT2, not TIME_WAIT, which stays {} s: no effect on errno 99.",
                tunables.told_hold_time().as_secs()
            ),
        ),
        remark(
            "net.ipv4.tcp_tw_recycle = 1",
            if tunables.tcp_tw_recycle.is_some() {
                "It breaks clients behind NAT. Keep it 0."
            } else {
                "It broke clients behind NAT and is gone since Linux 4.12: this kernel does not \
                 have it."
            },
        ),
        remark(
            "lower net.ipv4.tcp_max_tw_buckets",
            "It frees ports by dropping TIME_WAIT early, so a late packet of an old connection \
             can reach a new one; nothing in the log tells.",
        ),
        remark(
            "SO_LINGER 0",
            "close() then sends RST: no TIME_WAIT, but data on the way is lost, and MySQL counts \
             an aborted client each time.",
        ),
    ]
}

fn application(
    snapshot: &Snapshot,
    capacity: Option<&Capacity>,
    max_rate: Option<f64>,
) -> Vec<Remark> {
    let busiest = snapshot
        .tally
        .flows
        .iter()
        .max_by_key(|(flow, used)| (used.by_state.get(TcpState::TimeWait), **flow));
    vec![
        pool(&snapshot.tunables, busiest),
        remark(
            "keep connections open",
            "Check that the pool really keeps them: an idle limit below the open limit, or a new \
             client object per query, closes each connection after use.",
        ),
        unix_socket(snapshot),
        remark(
            "more addresses",
            capacity.map_or_else(
                || {
                    "Each further source or destination address has a set of ports of its own."
                        .into()
                },
                |capacity| {
                    format!(
                        "Each further source or destination address adds {}: {} more with the \
                         settings of now. A client that bind()s a source address needs \
                         IP_BIND_ADDRESS_NO_PORT.",
                        counted(capacity.usable_ports, "port"),
                        at_most(max_rate)
                    )
                },
            ),
        ),
    ]
}

/// Little's law: connections in use = rate × time each is used.
fn pool(tunables: &Tunables, busiest: Option<(&Flow, &FlowUse)>) -> Remark {
    let busy = EXAMPLE_BUSY.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // At least 1, at most some thousands.
    let sized = |per_second: f64| {
        counted(
            (per_second * busy).ceil().max(1.0) as u64,
            "pooled connection",
        )
    };
    let example = time(EXAMPLE_BUSY);
    let hold = tunables.told_hold_time().as_secs_f64();
    let why = match busiest {
        Some((flow, used)) if used.by_state.get(TcpState::TimeWait) > 0 => {
            #[expect(clippy::cast_precision_loss)] // At most the number of ports.
            let per_second = used.by_state.get(TcpState::TimeWait) as f64 / hold;
            format!(
                "Toward {}, {} connections/s were closed here in the last {hold} s. A pool serves \
                 that many with {} if each is used for {example} (rate × time), and \
                 leaves no TIME_WAIT.",
                flow.server(),
                rate(per_second),
                sized(per_second)
            )
        }
        _ => format!(
            "1,000 requests/s of {example} each need {} (rate × time), and \
             leave no TIME_WAIT.",
            sized(1000.0)
        ),
    };
    remark("use a connection pool", why)
}

fn unix_socket(snapshot: &Snapshot) -> Remark {
    let local: u64 = snapshot
        .tally
        .flows
        .iter()
        .filter(|(flow, _)| flow.is_loopback() || flow.source == flow.destination)
        .map(|(_, used)| u64::from(used.ports_in_use))
        .sum();
    remark(
        "unix socket on the same machine",
        if local > 0 {
            format!(
                "{} ports are taken toward this machine itself. A unix socket takes none (MySQL \
                 clients: host localhost).",
                count(local)
            )
        } else {
            "It takes no port (MySQL clients: host localhost). No connection to this machine \
             itself takes one now."
                .into()
        },
    )
}
