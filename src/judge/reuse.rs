//! Whether TIME_WAIT is reused on a flow: what the settings allow, and what the table shows.

use std::cmp::Reverse;
use std::time::Duration;

use crate::model::{Flow, FlowUse, Reuse, Snapshot, TcpState};

/// How exactly times in the table can be compared: /proc counts ticks of 10 ms, and the rows of a
/// large table are read one after the other.
const MARGIN: Duration = Duration::from_millis(500);

/// A flow is as good as full where all but one part in ten of the other ports are taken too.
const FEW: u32 = 10;

/// What the evidence says about `flow`. `alone` is the only flow that has closed connections just
/// now, if there is but one: what the kernel counts between two looks is that flow's.
#[must_use]
pub fn reuse(snapshot: &Snapshot, flow: &Flow, used: &FlowUse, alone: Option<&Flow>) -> Reuse {
    match snapshot.tunables.reuse_allowed(flow.is_loopback()) {
        None => return Reuse::Unknown,
        Some(false) => return Reuse::Off,
        Some(true) => {}
    }
    if let Some(works) = tried(snapshot, flow) {
        return works;
    }
    match live_timestamps(snapshot, flow) {
        // One old connection says little where the ports say the opposite: a balancer's other server.
        Some(true) if old_ports_block(snapshot, used) => return Reuse::Allowed,
        Some(true) => return Reuse::Seen,
        Some(false) => return Reuse::Refuted,
        None => {}
    }
    let recycled = snapshot.growth.and_then(|grown| grown.time_wait_recycled);
    if alone == Some(flow) && recycled.unwrap_or(0) > 0 {
        return Reuse::Seen;
    }
    if old_ports_block(snapshot, used) {
        return Reuse::Refuted;
    }
    if snapshot.is_own(flow) {
        // The other end is this machine, whose timestamps are on.
        return Reuse::Seen;
    }
    Reuse::Allowed
}

/// What the kernel did with old TIME_WAIT of `flow` when it was asked for just these ports; `None`
/// where it was not.
fn tried(snapshot: &Snapshot, flow: &Flow) -> Option<Reuse> {
    let trial = snapshot.trials.get(flow)?;
    match (trial.reused, trial.refused) {
        (0, 0) => None,
        (_, 0) => Some(Reuse::Seen),
        (0, _) => Some(Reuse::Refuted),
        // A balancer with servers of either kind.
        (_, _) => Some(Reuse::Allowed),
    }
}

/// What live connections tell of the other end's TCP timestamps.
fn live_timestamps(snapshot: &Snapshot, flow: &Flow) -> Option<bool> {
    let ends = snapshot.timestamps.get(flow)?;
    match (ends.with, ends.without) {
        (1.., 0) => Some(true),
        (0, 1..) => Some(false),
        _ => None,
    }
}

/// Whether the other end of `flow` has TCP timestamps, as far as the table alone tells.
fn has_timestamps(snapshot: &Snapshot, flow: &Flow) -> Option<bool> {
    live_timestamps(snapshot, flow).or_else(|| {
        let own = snapshot.tunables.tcp_timestamps?;
        snapshot.is_own(flow).then_some(own != 0)
    })
}

/// Whether the other ends of the flows toward the destination that was asked about have TCP
/// timestamps: where one has none, they are not to be counted on. Where none was asked about, whether
/// the fullest flow shows that its other end has none. `None` when unknown.
#[must_use]
pub fn destination_has_timestamps(snapshot: &Snapshot) -> Option<bool> {
    let told = |(flow, used): (&Flow, &FlowUse)| match reuse(snapshot, flow, used, None) {
        Reuse::Refuted => Some(false),
        _ => has_timestamps(snapshot, flow),
    };
    let flows = &snapshot.tally.flows;
    if snapshot.tally.toward.is_none() {
        let range = snapshot.tunables.ip_local_port_range?.len();
        let (flow, used) = flows
            .iter()
            .max_by_key(|(flow, used)| (used.countable_in_use(), Reverse(**flow)))
            .filter(|(_, used)| used.countable_in_use() * MATTERS >= range)?;
        return told((flow, used)).filter(|has| !has);
    }
    let known: Vec<_> = flows.iter().map(told).collect();
    match known.as_slice() {
        [] => None,
        known if known.contains(&Some(false)) => Some(false),
        known if known.contains(&None) => None,
        _ => Some(true),
    }
}

/// Whether a port was passed over that reuse would have given. connect() takes another than a fast
/// port only where each fast one is blocked, and one in TIME_WAIT for longer than the delay is not
/// (`__inet_hash_connect`). So where reuse works no fast port is older than a slow one by more.
fn old_ports_block(snapshot: &Snapshot, used: &FlowUse) -> bool {
    let (Some(fast), Some(slow)) = (used.fast_left_least(), used.slow_left_most()) else {
        return false;
    };
    let slow_ports = used.countable_in_use() - used.fast_in_use();
    // Part of them may be of connections that were opened together long before they were closed, or
    // of the time before reuse was allowed; a flow that is full would show it.
    if slow_ports * FEW < used.fast_in_use() * (FEW - 1) {
        return false;
    }
    // A port is taken before its connection is used, and TIME_WAIT begins after that.
    let older = slow.saturating_sub(fast);
    older > snapshot.tunables.reuse_delay() + MARGIN + time_open(used, snapshot.hold_time)
}

/// How long a connection of the flow is open: as many are open at a time as come in that time, so
/// open ones are to TIME_WAIT as that time is to the hold time (Little's law).
fn time_open(used: &FlowUse, hold_time: Duration) -> Duration {
    let waiting = used.by_state.get(TcpState::TimeWait);
    let open = used.by_state.total() - waiting;
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    hold_time * open / u32::try_from(waiting).unwrap_or(u32::MAX).max(1)
}

/// The only flow that has closed a connection within the last second, if there is but one.
#[must_use]
pub fn alone(snapshot: &Snapshot) -> Option<&Flow> {
    /// The second that is not over yet, and the one before.
    const LATEST: usize = 2;
    let hold = usize::try_from(snapshot.hold_time.as_secs()).unwrap_or(usize::MAX);
    let is_active = |used: &FlowUse| {
        let left = used.time_wait_left.iter().skip(hold.saturating_sub(LATEST));
        left.copied().any(|closed| closed > 0)
    };
    let mut active = snapshot
        .tally
        .all_flows()
        .filter(|(_, used)| is_active(used))
        .map(|(flow, _)| flow);
    active.next().filter(|_| active.next().is_none())
}

/// The share of the usable ports from which on it matters whether they come back.
const MATTERS: u32 = 20;

/// The share from which on it is found out even where it is as good as known.
const DECIDES: u32 = 3;

/// Whether it matters for `flow`, and is not known for certain, whether TIME_WAIT is reused.
fn is_unsettled(
    snapshot: &Snapshot,
    (flow, used): (&Flow, &FlowUse),
    alone: Option<&Flow>,
    usable: u32,
) -> bool {
    let takes = |share: u32| used.countable_in_use() * share >= usable;
    if tried(snapshot, flow).is_some() || !takes(MATTERS) {
        return false;
    }
    match reuse(snapshot, flow, used, alone) {
        Reuse::Allowed => true,
        // What the table refutes may have been switched on within the last minute.
        Reuse::Refuted => live_timestamps(snapshot, flow).is_none(),
        // One live connection, or this machine's settings of now, say little about old sockets.
        Reuse::Seen => takes(DECIDES),
        Reuse::Off | Reuse::Unknown => false,
    }
}

/// Whether it matters for some flow, and is not known, whether TIME_WAIT is reused: live sockets and
/// a second look at the kernel's counters may tell.
#[must_use]
pub fn is_open(snapshot: &Snapshot, usable: u32) -> bool {
    let alone = alone(snapshot);
    snapshot.tally.flows.iter().any(|(flow, used)| {
        is_unsettled(snapshot, (flow, used), alone, usable)
            && reuse(snapshot, flow, used, alone) != Reuse::Seen
    })
}

/// The flows of which the kernel is to be asked whether it has a port for them, fullest first: those
/// that take a part of the usable ports that matters, and where it has not told which ports connect()
/// passes over, whatever they take.
#[must_use]
pub fn worth_trying(snapshot: &Snapshot, usable: u32) -> Vec<Flow> {
    /// A search that finds no port takes some 5 ms.
    const MOST: usize = 32;
    let is_worth_it = |used: &FlowUse| {
        snapshot.passed_over.is_none() || used.countable_in_use() * MATTERS >= usable
    };
    let mut flows: Vec<_> = snapshot
        .tally
        .flows
        .iter()
        .filter(|(_, used)| is_worth_it(used))
        .map(|(flow, used)| (Reverse(used.countable_in_use()), *flow))
        .collect();
    flows.sort_unstable();
    flows.truncate(MOST);
    flows.into_iter().map(|(_, flow)| flow).collect()
}

/// Of these flows the ones of which it is to be found out whether old TIME_WAIT is reused.
#[must_use]
pub fn unsettled(snapshot: &Snapshot, flows: &[Flow], usable: u32) -> Vec<Flow> {
    let alone = alone(snapshot);
    let is_open = |flow: &&Flow| {
        let used = snapshot.tally.flows.get(flow);
        used.is_some_and(|used| is_unsettled(snapshot, (flow, used), alone, usable))
    };
    flows.iter().filter(is_open).copied().collect()
}

/// Whether one of them is full, and the kernel, which answers for it, has none of its ports that is old
/// enough to be tried, so that it is worth a wait.
#[must_use]
pub fn is_too_young(snapshot: &Snapshot, flows: &[Flow], usable: u32) -> bool {
    let answers = |flow: &Flow| {
        let trial = snapshot.trials.get(flow);
        trial.is_some_and(|trial| trial.has_port.is_some())
    };
    unsettled(snapshot, flows, usable).iter().any(|flow| {
        let used = snapshot.tally.flows.get(flow);
        used.is_some_and(|used| used.countable_in_use() >= usable) && answers(flow)
    })
}

/// Whether the kernel has counted trouble of which only a second look tells whether it goes on.
#[must_use]
pub fn is_trouble_counted(snapshot: &Snapshot) -> bool {
    let counters = &snapshot.counters;
    let counted = [
        counters.time_wait_overflows,
        counters.insert_failed,
        counters.dropped,
    ];
    counted.into_iter().flatten().any(|number| number > 0)
}
