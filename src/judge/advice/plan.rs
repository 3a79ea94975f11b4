//! Which settings to change, in steps, each safe at every line.

use std::fmt;
use std::time::Duration;

use super::reserve::{Held, Reservation};
use crate::judge::Capacity;
use crate::judge::bearing::Bearing;
use crate::judge::change::{Change, Step, Sysctl};
use crate::judge::finding::Cause;
use crate::judge::flow::PILE_FROM;
use crate::judge::goal::{Goal, Room, range_for};
use crate::judge::machine::overflowing;
use crate::judge::reuse::destination_has_timestamps;
use crate::judge::source::{SourceBound, bound_sources};
use crate::model::{
    Flow, FlowUse, Holders, PortRange, PortSet, Snapshot, TcpState, TimeWaitReuse, Toward, Tunables,
};
use crate::words::{count, percent, rate, time};

/// The range recommended where the current one is narrower: above the ports that services are
/// commonly given, with ends of different parity, because a range of an odd number of ports can
/// come out one short (`__inet_hash_connect` rounds it down to an even one).
const WIDE_RANGE: PortRange = PortRange {
    low: 10240,
    high: 65535,
};

/// No range is recommended that begins below: ports for which a program needs a capability.
const LOWEST: u16 = 1024;

/// A wider range is worth its risk from this factor on.
const WORTH_WIDENING: f64 = 1.1;

/// A flow that takes this share of the usable ports, in percent, is what the advice is for: half of
/// the share at which `verdict` begins to warn.
const REMARKABLE: f64 = 25.0;

/// What is known before any change.
pub(super) struct Facts<'a> {
    pub snapshot: &'a Snapshot,
    pub holders: &'a Holders,
    pub goal: Option<Goal>,
    /// TCP ports that connect() skips because somebody bound them.
    pub held: PortSet,
    /// Ports that a wider range would not gain: reserved, or held by anybody.
    pub taken: PortSet,
    pub hold_time: Duration,
    /// Whether the destination is loopback.
    pub loopback: bool,
    /// Whether the destination has TCP timestamps; `None` when unknown.
    pub other_end: Option<bool>,
    /// What one destination bears now; `None` when the range or its reserved ports are unknown.
    pub now: Option<Bearing>,
}

impl<'a> Facts<'a> {
    pub fn new(snapshot: &'a Snapshot, holders: &'a Holders, goal: Option<Goal>) -> Self {
        // A pool of bind() is gone once the client is mended, single ports are not.
        let is_pool = |capacity: Capacity| !bound_sources(snapshot, &capacity).is_empty();
        let known = if Capacity::of(snapshot).is_some_and(is_pool) {
            snapshot.held()
        } else {
            snapshot.skipped()
        };
        let held = match &holders.bound {
            Some(bound) => known.union(bound),
            None => known,
        };
        let tunables = &snapshot.tunables;
        let outside = |port: &u16| {
            let range = tunables.ip_local_port_range;
            range.is_none_or(|range| !range.contains(*port))
        };
        let mut taken = held.clone();
        taken.extend(
            tunables
                .ip_local_reserved_ports
                .iter()
                .flat_map(PortSet::ports),
        );
        taken.extend(holders.chosen.ports().filter(outside));
        taken.extend(holders.udp.iter().flat_map(PortSet::ports).filter(outside));
        taken = taken.union(&holders.node_ports.ports());
        let hold_time = snapshot.hold_time;
        let toward = snapshot.tally.toward.as_ref();
        let loopback = toward.is_some_and(Toward::is_loopback);
        let other_end = destination_has_timestamps(snapshot);
        Self {
            snapshot,
            holders,
            goal,
            now: Bearing::new(tunables, &held, hold_time, loopback, other_end),
            held,
            taken,
            hold_time,
            loopback,
            other_end,
        }
    }

    /// The destination that was asked about, as it was typed.
    pub fn destination(&self) -> Option<String> {
        let toward = self.snapshot.tally.toward.as_ref();
        toward.map(|toward| toward.asked.to_string())
    }

    /// What one destination bears under `tunables`.
    pub fn bearing(&self, tunables: &Tunables) -> Option<Bearing> {
        Bearing::new(
            tunables,
            &self.held,
            self.hold_time,
            self.loopback,
            self.other_end,
        )
    }

    /// Where the range may grow; `None` when it is unknown.
    pub fn room(&self) -> Option<Room<'_>> {
        Some(Room {
            wanted: self.wanted(&self.snapshot.tunables),
            range: self.snapshot.tunables.ip_local_port_range?,
            taken: &self.taken,
            lowest: self.lowest()?,
        })
    }

    /// The lowest port to begin a range with: the kernel refuses one below the ports that any user
    /// may bind (`ipv4_local_port_range` in net/ipv4/sysctl_net_ipv4.c). `None` where that leaves
    /// none.
    fn lowest(&self) -> Option<u16> {
        let start = self.snapshot.tunables.ip_unprivileged_port_start;
        Some(u16::try_from(start.unwrap_or(0)).ok()?.max(LOWEST))
    }

    /// What one destination bears under `tunables`, were no TIME_WAIT dropped.
    pub fn once_kept(&self, tunables: &Tunables) -> Option<Bearing> {
        let tunables = Tunables {
            tcp_max_tw_buckets: Some(u64::MAX),
            ..tunables.clone()
        };
        self.bearing(&tunables)
    }

    /// How many ports the goal takes under `tunables`; `None` when unknown, or nothing is wanted.
    pub fn wanted(&self, tunables: &Tunables) -> Option<u64> {
        self.goal?.ports(&self.once_kept(tunables)?)
    }

    /// The settings that decide and could not be read.
    pub fn unknown(&self) -> Vec<&'static str> {
        let tunables = &self.snapshot.tunables;
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

    /// Whether the kernel drops TIME_WAIT, or will before it takes all ports: then raising the
    /// limit alone brings the errno 99 that there is none of now.
    pub fn drops(&self) -> bool {
        overflowing(self.snapshot) || self.now.is_some_and(|now| now.drops)
    }

    /// The fullest flow and what takes its ports, where that is open connections and they are many, or
    /// attempts that nobody answers.
    pub fn held_open(&self) -> Option<(&Flow, &FlowUse, Cause)> {
        let flows = &self.snapshot.tally.flows;
        let (flow, used) = flows
            .iter()
            .max_by_key(|(flow, used)| (used.ports_in_use(), **flow))?;
        let cause = Cause::of(&used.by_state);
        let counts = match cause {
            Cause::Churn | Cause::Mixed => false,
            // As many are a server that is down, whatever share of the ports they take.
            Cause::SynSent => used.by_state.get(TcpState::SynSent) >= PILE_FROM,
            Cause::HeldOpen | Cause::CloseWait => self.is_remarkable(used.ports_in_use()),
        };
        counts.then_some((flow, used, cause))
    }

    /// The same where it is attempts that nobody answers, and nobody asks about anything else: no
    /// setting of this machine helps.
    pub fn unanswered(&self) -> Option<(&Flow, &FlowUse)> {
        let (flow, used, cause) = self.held_open()?;
        (cause == Cause::SynSent && self.goal.is_none()).then_some((flow, used))
    }

    /// Whether TIME_WAIT takes many ports of any flow.
    fn churns(&self) -> bool {
        let flows = &self.snapshot.tally.flows;
        let waiting = |used: &FlowUse| used.by_state.get(TcpState::TimeWait);
        flows
            .values()
            .any(|used| self.is_remarkable(u32::try_from(waiting(used)).unwrap_or(u32::MAX)))
    }

    fn is_remarkable(&self, ports: u32) -> bool {
        let usable = self.now.map_or(0, |now| now.ports);
        percent(ports, usable) >= REMARKABLE
    }

    /// Whether TIME_WAIT reuse is worth a recommendation: not where only open connections count.
    pub fn wants_reuse(&self) -> bool {
        let only_open = match self.goal {
            Some(goal) => goal.rate.is_none(),
            None => self.held_open().is_some(),
        };
        let is_useless = self.other_end == Some(false) || self.pool_of_bind().is_some();
        !is_useless && (!only_open || self.churns() || self.drops())
    }

    /// The source whose ports bind() hands out, where it takes most: no TIME_WAIT setting helps it.
    pub fn pool_of_bind(&self) -> Option<SourceBound> {
        let capacity = Capacity::of(self.snapshot)?;
        bound_sources(self.snapshot, &capacity)
            .into_iter()
            .filter(|source| self.is_remarkable(source.taken))
            .max_by_key(|source| source.taken)
    }

    fn services(&self) -> Held<'_> {
        Held {
            listening: self.snapshot.tally.listening.ports(),
            holders: self.holders,
        }
    }
}

/// The steps: those that mend something whatever the rate, then those that raise what is borne.
/// The range stays as it is unless it `may_grow`.
pub(super) fn steps(facts: &Facts, may_grow: bool) -> Vec<Step> {
    let now = &facts.snapshot.tunables;
    let mut plan = Plan {
        facts,
        together: now.clone(),
        alone: now.clone(),
        changes: Vec::new(),
        steps: Vec::new(),
    };
    plan.recycle();
    let may_grow = may_grow && facts.unanswered().is_none();
    let wider = plan.wider().filter(|_| may_grow);
    if wider.is_none() {
        plan.reserve();
    }
    let drops = facts.drops();
    let open_first = facts.held_open().is_some()
        || facts.goal.is_some_and(|goal| goal.rate.is_none())
        || facts.now.is_some_and(|now| now.ports == 0);
    if !open_first && facts.wants_reuse() {
        plan.reuse();
        plan.close_unless(drops);
    }
    if let Some(wider) = wider {
        plan.widen(&wider);
        plan.close_unless(drops);
    }
    // Where no port is usable there is none to reuse.
    let ports = facts.bearing(&plan.together).map_or(0, |then| then.ports);
    if open_first && facts.wants_reuse() && ports > 0 {
        plan.reuse();
        plan.close_unless(drops);
    }
    if drops {
        plan.buckets_last();
        plan.close(false);
    }
    plan.steps
}

/// Of `steps` those that make up the first `number` changes, and those that mend something.
pub(super) fn enough(facts: &Facts, steps: Vec<Step>, number: usize) -> Vec<Step> {
    let mut reached = 0;
    let needed: Vec<_> = steps
        .iter()
        .filter(|step| {
            reached += step.changes.len();
            !step.mends && reached <= number
        })
        .collect();
    let mut left = needed.len();
    let is_range = |change: &Change| change.sysctl == Sysctl::IpLocalPortRange;
    let widens = needed.iter().flat_map(|step| &step.changes).any(is_range);
    // Where the range stays, what listens inside it is to be reserved all the same.
    let mut kept = if widens {
        steps
    } else {
        self::steps(facts, false)
    };
    kept.retain(|step| {
        let keeps = step.mends || left > 0;
        left -= usize::from(!step.mends && left > 0);
        keeps
    });
    kept
}

/// A wider range, and what to reserve before.
struct Wider {
    range: PortRange,
    reservation: Option<Reservation>,
}

/// The machine as it becomes while steps are added.
struct Plan<'a> {
    facts: &'a Facts<'a>,
    /// With all changes so far.
    together: Tunables,
    /// The settings of now with the changes of the open step.
    alone: Tunables,
    /// The changes of the open step.
    changes: Vec<Change>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn change(
        &mut self,
        sysctl: Sysctl,
        current: impl fmt::Display,
        recommended: impl fmt::Display,
        apply: impl Fn(&mut Tunables),
        why: impl Into<String>,
        risk: impl Into<String>,
    ) {
        apply(&mut self.together);
        apply(&mut self.alone);
        self.changes.push(Change {
            sysctl,
            current: current.to_string(),
            recommended: recommended.to_string(),
            why: why.into(),
            risk: risk.into(),
        });
    }

    /// Ends the open step, if it holds anything.
    fn close(&mut self, mends: bool) {
        let facts = self.facts;
        let now = &facts.snapshot.tunables;
        let alone = std::mem::replace(&mut self.alone, now.clone());
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() {
            return;
        }
        let before = self.steps.last().map_or(now, |step| &step.together);
        self.steps.push(Step {
            changes,
            mends,
            before: facts.bearing(before),
            after: facts.bearing(&self.together),
            alone,
            together: self.together.clone(),
        });
    }

    /// Ends the open step unless everything is one.
    fn close_unless(&mut self, all_in_one: bool) {
        if !all_in_one {
            self.close(false);
        }
    }

    fn recycle(&mut self) {
        if let Some(current) = self.together.tcp_tw_recycle.filter(|&value| value != 0) {
            self.change(
                Sysctl::TcpTwRecycle,
                current,
                0,
                |tunables| tunables.tcp_tw_recycle = Some(0),
                "It drops connections of clients that share an address behind NAT. Linux 4.12 \
                 removed it; this kernel still has it, switched on.",
                "None: tcp_tw_reuse does what it was meant for, safely.",
            );
            self.close(true);
        }
    }

    /// Services inside a range that stays as it is.
    fn reserve(&mut self) {
        let Some((range, reserved)) = self.known_ports() else {
            return;
        };
        let reservation = self.facts.services().reservation(range, range, &reserved);
        if let Some(reservation) = reservation {
            self.reserved(range, &reserved, &reservation);
            self.close(true);
        }
    }

    fn known_ports(&self) -> Option<(PortRange, PortSet)> {
        let tunables = &self.together;
        Some((
            tunables.ip_local_port_range?,
            tunables.ip_local_reserved_ports.clone()?,
        ))
    }

    fn reserved(&mut self, range: PortRange, current: &PortSet, reservation: &Reservation) {
        let risk = self.facts.services().risk(range);
        self.change(
            Sysctl::IpLocalReservedPorts,
            current,
            &reservation.ports,
            |tunables| tunables.ip_local_reserved_ports = Some(reservation.ports.clone()),
            reservation.why.clone(),
            risk,
        );
    }

    fn reuse(&mut self) {
        if self.together.tcp_tw_reuse.is_none() || self.together.tcp_timestamps.is_none() {
            // What is not there cannot be set, and what it needs must be known.
            return;
        }
        if self.together.tcp_timestamps == Some(0) {
            self.change(
                Sysctl::TcpTimestamps,
                0,
                1,
                |tunables| tunables.tcp_timestamps = Some(1),
                "TIME_WAIT reuse tells old packets from new ones by TCP timestamps: without them \
                 it never happens.",
                "12 bytes more per packet. Both ends must have them on.",
            );
        }
        let loopback_is_enough = self.facts.loopback && !self.facts.drops();
        let current = match self.together.tcp_tw_reuse {
            Some(TimeWaitReuse::LoopbackOnly) if !loopback_is_enough => 2,
            Some(TimeWaitReuse::Off) => 0,
            _ => return,
        };
        let hold_time = self.facts.hold_time;
        self.change(
            Sysctl::TcpTwReuse,
            current,
            1,
            |tunables| tunables.tcp_tw_reuse = Some(TimeWaitReuse::On),
            format!(
                "A port in TIME_WAIT can be taken again for the same destination after {} instead \
                 of {} s ({}). It works on the side that connects, and only where the other end \
                 has TCP timestamps too.",
                time(self.together.reuse_delay()),
                hold_time.as_secs(),
                if current == 2 {
                    "now only for loopback"
                } else {
                    "now never"
                }
            ),
            "Small: timestamps guard against stray packets of the old connection. Where the other \
             end, or a middlebox between, has no timestamps, nothing is reused and nothing harmed.",
        );
    }

    /// The settings with reuse, where it is going to be recommended.
    fn with_reuse(&self) -> Tunables {
        let mut tunables = self.together.clone();
        let is_known = tunables.tcp_tw_reuse.is_some() && tunables.tcp_timestamps.is_some();
        if is_known && self.facts.wants_reuse() {
            tunables.tcp_tw_reuse = Some(TimeWaitReuse::On);
            tunables.tcp_timestamps = tunables.tcp_timestamps.max(Some(1));
        }
        tunables
    }

    /// The range to recommend, where it is worth it.
    fn wider(&self) -> Option<Wider> {
        let (now, reserved) = self.known_ports()?;
        let lowest = self.facts.lowest()?;
        let mut range = PortRange {
            low: now.low.min(WIDE_RANGE.low.max(lowest)),
            high: WIDE_RANGE.high,
        };
        let wanted = self.facts.wanted(&self.with_reuse());
        let taken = &self.facts.taken;
        if let Some(wanted) = wanted.filter(|&wanted| wanted > usable(range, taken)) {
            range = range_for(wanted, range, taken, lowest).unwrap_or(range);
        }
        if (range.low ^ range.high) & 1 == 0 && range.low < range.high {
            range.low += 1;
        }
        let reservation = self.facts.services().reservation(now, range, &reserved);
        let mut tunables = self.together.clone();
        tunables.ip_local_port_range = Some(range);
        if let Some(reservation) = &reservation {
            tunables.ip_local_reserved_ports = Some(reservation.ports.clone());
        }
        let after = self.facts.bearing(&tunables)?;
        // Compared with the range of now as it is to become anyway.
        let services = self.facts.services().reservation(now, now, &reserved);
        tunables.ip_local_port_range = Some(now);
        tunables.ip_local_reserved_ports = services.map_or(Some(reserved), |it| Some(it.ports));
        let before = self.facts.bearing(&tunables)?;
        let worth = f64::from(before.ports) * WORTH_WIDENING;
        (after.ports > before.ports && f64::from(after.ports) >= worth)
            .then_some(Wider { range, reservation })
    }

    fn widen(&mut self, wider: &Wider) {
        let Some((now, reserved)) = self.known_ports() else {
            return;
        };
        let before = self.facts.bearing(&self.together);
        let mut tunables = self.together.clone();
        tunables.ip_local_port_range = Some(wider.range);
        if let Some(reservation) = &wider.reservation {
            tunables.ip_local_reserved_ports = Some(reservation.ports.clone());
        }
        let after = self.facts.bearing(&tunables);
        if !self.facts.drops() {
            self.buckets_first(after);
        }
        if let Some(reservation) = &wider.reservation {
            self.reserved(now, &reserved, reservation);
        }
        let ports = |bearing: Option<Bearing>| count(bearing.map_or(0, |it| it.ports));
        let is_empty = before.is_some_and(|before| before.ports == 0);
        self.change(
            Sysctl::IpLocalPortRange,
            now,
            wider.range,
            |tunables| tunables.ip_local_port_range = Some(wider.range),
            if is_empty {
                format!(
                    "No port of the present range can be had: {}. Beyond it there are {}.",
                    self.facts.what_takes_all(),
                    ports(after)
                )
            } else {
                format!(
                    "{} ports toward each destination instead of {}; it helps against ports held \
                     by open connections too.",
                    ports(after),
                    ports(before)
                )
            },
            format!(
                "A service that starts later can find its port taken: reserve it. Firewalls that \
                 allow only the old range must allow the new one.{}",
                self.facts
                    .services()
                    .node_ports(now, wider.range, &reserved)
            ),
        );
    }

    /// Before the range grows beyond the limit: harmless while the limit is not reached.
    fn buckets_first(&mut self, after: Option<Bearing>) {
        let (Some(current), Some(after)) = (self.together.tcp_max_tw_buckets, after) else {
            return;
        };
        if after.drops {
            self.buckets(
                current,
                u64::from(after.ports),
                format!(
                    "The limit is below the {} ports of the wider range: TIME_WAIT beyond it would \
                     be dropped at once, and its protection with it.",
                    count(after.ports)
                ),
                "",
            );
        }
    }

    /// After everything that raises the rate, in the same step: from here on TIME_WAIT takes ports.
    fn buckets_last(&mut self) {
        let (Some(current), Some(then)) = (
            self.together.tcp_max_tw_buckets,
            self.facts.bearing(&self.together),
        ) else {
            return;
        };
        let snapshot = self.facts.snapshot;
        if self.together.reuse_allowed(false) != Some(true) {
            return;
        }
        let overflowing = overflowing(snapshot);
        // Room for twice what one flow can hold, or twice what does not suffice.
        let needed = u64::from(then.ports).max(if overflowing { current } else { 0 });
        let why = if overflowing {
            format!(
                "The kernel has dropped {} TIME_WAIT sockets at this limit; each left its port \
                 open to stray packets of the old connection.",
                count(snapshot.counters.time_wait_overflows.unwrap_or(0))
            )
        } else {
            format!(
                "The limit is below the {} usable ports: TIME_WAIT beyond it is dropped at once, \
                 and its protection with it.",
                count(then.ports)
            )
        };
        let limit = f64::from(then.ports) / self.facts.hold_time.as_secs_f64();
        self.buckets(
            current,
            needed,
            why,
            &format!(
                "Only together with what stands above it, and after it: from here on TIME_WAIT \
                 takes ports, and where the other end has no TCP timestamps errno 99 comes above \
                 {} connections/s to one destination, where none came before. ",
                rate(limit)
            ),
        );
    }

    fn buckets(&mut self, current: u64, needed: u64, why: String, risk: &str) {
        /// The sysctl is an int.
        const HIGHEST: u64 = i32::MAX as u64;
        let recommended = needed
            .saturating_mul(2)
            .checked_next_power_of_two()
            .map_or(HIGHEST, |power| power.min(HIGHEST));
        if recommended <= current {
            return;
        }
        self.change(
            Sysctl::TcpMaxTwBuckets,
            current,
            recommended,
            |tunables| tunables.tcp_max_tw_buckets = Some(recommended),
            why,
            format!(
                "{risk}Memory: some {} MB if it ever fills.",
                count((recommended * 250).div_ceil(1_000_000))
            ),
        );
    }
}

impl Facts<'_> {
    /// What leaves no port of the range, in words.
    pub fn what_takes_all(&self) -> String {
        let tunables = &self.snapshot.tunables;
        let (Some(range), Some(reserved)) = (
            tunables.ip_local_port_range,
            tunables.ip_local_reserved_ports.as_ref(),
        ) else {
            return "the range is unknown".into();
        };
        let reserved = range.ports().filter(|&port| reserved.contains(port));
        let reserved = u32::try_from(reserved.count()).unwrap_or(u32::MAX);
        let bound = range.len() - reserved;
        match (reserved, bound) {
            (all, 0) => format!("all {} are in net.ipv4.ip_local_reserved_ports", count(all)),
            (0, all) => format!("all {} are bound by services", count(all)),
            (reserved, bound) => format!(
                "{} are in net.ipv4.ip_local_reserved_ports and {} bound by services",
                count(reserved),
                count(bound)
            ),
        }
    }
}

/// The ports of `range` that are not `taken`.
fn usable(range: PortRange, taken: &PortSet) -> u64 {
    range.ports().filter(|&port| !taken.contains(port)).count() as u64
}
