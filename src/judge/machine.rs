//! What is wrong with the machine as a whole, whatever its flows are.

use super::Capacity;
use super::finding::{Finding, Reported};
use super::flow::LEAK_FROM;
use super::level::Level;
use crate::model::{Snapshot, TcpState, Weight};
use crate::words::percent;

/// TW_BUCKET_OVERFLOW is happening now, not in the past, from this share of the limit on. Sockets
/// leave every moment, so a table that overflows is seldom found exactly full.
const BUCKETS_NEARLY_FULL: f64 = 90.0;

/// CONNTRACK_FULL from this share of `nf_conntrack_max` on: connections come in bursts, and beyond
/// the limit packets are dropped at once.
const CONNTRACK_NEARLY_FULL: f64 = 90.0;

/// So many inbound connections in CLOSE_WAIT are a leak whatever else there is.
const INBOUND_LEAK_FROM: u64 = 1000;

/// The service that leaves most connections open which its clients have closed, where they are many,
/// or most of all that are open.
fn inbound_leak(snapshot: &Snapshot) -> Option<Finding> {
    let by_port = &snapshot.tally.inbound_close_wait;
    let (&port, &waiting) = by_port
        .iter()
        .max_by_key(|&(port, waiting)| (waiting, port))?;
    let open = snapshot.tally.states.get(TcpState::Established);
    let open = snapshot.counters.established.unwrap_or(0).max(open);
    let most = waiting >= LEAK_FROM && waiting * 2 > open;
    (most || waiting >= INBOUND_LEAK_FROM).then_some(Finding::InboundCloseWait {
        port,
        waiting,
        owner: None,
    })
}

/// Outbound connections on ports that a service may want.
fn service_port_taken(snapshot: &Snapshot) -> Option<Finding> {
    let taken = snapshot
        .tally
        .all_flows()
        .filter_map(|(flow, used)| Some((used.service_port?, flow)));
    let mut taken: Vec<_> = taken.collect();
    taken.sort_unstable();
    let ((port, reserved), flow) = *taken.first()?;
    let others = taken.len() - 1;
    Some(Finding::ServicePortTaken {
        flow: *flow,
        port,
        reserved,
        others,
    })
}

/// What connection tracking has failed at; `None` where it never did.
fn nat_failure(snapshot: &Snapshot) -> Option<(Level, Finding)> {
    let insert_failed = snapshot.counters.insert_failed.unwrap_or(0);
    let dropped = snapshot.counters.dropped.unwrap_or(0);
    let ambiguous = snapshot.counters.resolved_clashes_fail;
    let grown = snapshot.growth.map_or(0, |grown| {
        let failed = grown.insert_failed.filter(|_| !ambiguous);
        failed.max(grown.dropped).unwrap_or(0)
    });
    let level = if grown > 0 { Level::Warning } else { Level::Ok };
    (insert_failed > 0 || dropped > 0).then_some((
        level,
        Finding::NatFailed {
            insert_failed,
            ambiguous,
            dropped,
            grown,
        },
    ))
}

/// Findings about the machine as a whole.
pub(super) fn findings(snapshot: &Snapshot, capacity: Option<&Capacity>) -> Vec<Reported> {
    let mut findings = Vec::new();
    let mut found = |level, finding| {
        findings.push(Reported {
            namespace: None,
            level,
            flow: None,
            finding,
        });
    };
    let overflows = snapshot.counters.time_wait_overflows.unwrap_or(0);
    if let (Some(limit), true) = (snapshot.tunables.tcp_max_tw_buckets, overflows > 0) {
        let now = overflowing(snapshot);
        found(
            if now { Level::Warning } else { Level::Ok },
            Finding::TwBucketOverflow {
                total: snapshot.tally.time_wait.total,
                limit,
                overflows,
                now,
                below_ports: capacity.is_some_and(Capacity::buckets_bound),
            },
        );
    }
    if let Some(finding) = service_port_taken(snapshot) {
        found(Level::Ok, finding);
    }
    if let Some(finding) = inbound_leak(snapshot) {
        found(Level::Warning, finding);
    }
    if let Some((level, finding)) = nat_failure(snapshot) {
        found(level, finding);
    }
    if let Some((tracked, limit)) = snapshot.counters.conntrack
        && percent(tracked, limit) >= CONNTRACK_NEARLY_FULL
    {
        let level = if tracked >= limit {
            Level::Critical
        } else {
            Level::Warning
        };
        found(level, Finding::ConntrackFull { tracked, limit });
    }
    if let Some(value) = snapshot.tunables.tcp_tw_recycle.filter(|&value| value != 0) {
        let sysctl = "net.ipv4.tcp_tw_recycle";
        found(Level::Warning, Finding::DangerousSetting { sysctl, value });
    }
    for gap in snapshot
        .all_gaps()
        .filter(|gap| gap.weight == Weight::Decisive)
    {
        found(Level::Unknown, Finding::CouldNotRead(gap));
    }
    findings
}

/// Whether TIME_WAIT sockets are being dropped at `tcp_max_tw_buckets`.
pub(super) fn overflowing(snapshot: &Snapshot) -> bool {
    let grown = snapshot.growth.and_then(|grown| grown.time_wait_overflows);
    if grown.unwrap_or(0) > 0 {
        return true;
    }
    snapshot.counters.time_wait_overflows.unwrap_or(0) > 0
        && snapshot.tunables.tcp_max_tw_buckets.is_some_and(|limit| {
            percent(snapshot.tally.time_wait.total, limit) >= BUCKETS_NEARLY_FULL
        })
}
