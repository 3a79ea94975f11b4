//! What to leave alone, and what the application should do.

use std::time::Duration;

use serde::Serialize;

use super::plan::Facts;
use crate::judge::bearing::Limit;
use crate::judge::change::Step;
use crate::judge::finding::{Cause, dst};
use crate::judge::forecast::History;
use crate::model::{Flow, FlowUse, Snapshot, TcpState};
use crate::words::{count, counted, rate, time};

/// How long a connection is held in the sizing example for a pool.
const EXAMPLE_BUSY: Duration = Duration::from_millis(20);

/// A piece of advice that is no sysctl change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The subject.
    pub what: String,
    /// The reason, with numbers where there are any.
    pub why: String,
}

fn remark(what: impl Into<String>, why: impl Into<String>) -> Remark {
    Remark {
        what: what.into(),
        why: why.into(),
    }
}

/// The commonest states of a flow: `980 ESTABLISHED, 20 TIME_WAIT`.
pub(super) fn states(used: &FlowUse) -> String {
    used.by_state
        .largest_first()
        .into_iter()
        .take(2)
        .map(|(state, number)| format!("{} {}", count(number), state.name()))
        .collect::<Vec<_>>()
        .join(" and ")
}

pub(super) fn not_recommended(facts: &Facts) -> Vec<Remark> {
    let tunables = &facts.snapshot.tunables;
    let mut remarks = Vec::new();
    let tally = &facts.snapshot.tally;
    // Orphans in FIN_WAIT2 hold their ports for that long.
    if tally.orphans <= tally.time_wait.outbound {
        remarks.push(remark(
            "lower net.ipv4.tcp_fin_timeout",
            format!(
                "It limits FIN_WAIT2, not TIME_WAIT, which stays {} s: no effect on errno 99 where \
                 TIME_WAIT is its cause.",
                facts.hold_time.as_secs()
            ),
        ));
    }
    remarks.extend([remark(
        "net.ipv4.tcp_tw_recycle = 1",
        if tunables.tcp_tw_recycle.is_some() {
            "It breaks clients behind NAT. Keep it 0."
        } else {
            "It breaks clients behind NAT; Linux 4.12 removed it."
        },
    )]);
    if let Some(source) = facts.pool_of_bind() {
        remarks.push(remark(
            "net.ipv4.tcp_tw_reuse = 1",
            format!(
                "bind() chooses the ports of {}, and takes none that is in TIME_WAIT.",
                source.address
            ),
        ));
    } else if let Some((flow, used, _)) = facts.held_open().filter(|_| !facts.wants_reuse()) {
        remarks.push(remark(
            "net.ipv4.tcp_tw_reuse = 1",
            format!(
                "It gives back ports in TIME_WAIT, and toward {} there are {}: not the cause.",
                flow.server(),
                states(used)
            ),
        ));
    }
    if facts.unanswered().is_some() {
        remarks.push(remark(
            "a wider net.ipv4.ip_local_port_range",
            "It lets more attempts wait, and none be answered.",
        ));
    }
    if facts.other_end == Some(false) {
        remarks.push(remark(
            "net.ipv4.tcp_tw_reuse = 1",
            "The destination has no TCP timestamps, so nothing is reused toward it: switch them on \
             there (net.ipv4.tcp_timestamps), or in what stands between.",
        ));
    }
    if facts.drops() {
        remarks.push(remark(
            "net.ipv4.tcp_max_tw_buckets raised by itself",
            format!(
                "TIME_WAIT that is dropped takes no port. Kept, it takes one for {} s: errno 99 \
                 comes where there was none, unless what raises the rate comes first{}.",
                facts.hold_time.as_secs(),
                facts
                    .once_kept(tunables)
                    .and_then(|then| then.rate.per_second())
                    .map_or_else(String::new, |limit| format!(
                        ": by itself the limit would be {} connections/s to one destination",
                        rate(limit)
                    ))
            ),
        ));
    }
    remarks.extend([
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
    ]);
    remarks
}

/// `last` is the last step, if there is any.
pub(super) fn application(facts: &Facts, last: Option<&Step>) -> Vec<Remark> {
    let snapshot = facts.snapshot;
    let busiest = snapshot
        .tally
        .flows
        .iter()
        .max_by_key(|(flow, used)| (used.by_state.get(TcpState::TimeWait), **flow));
    let mut remarks = Vec::new();
    if let Some(source) = facts.pool_of_bind() {
        remarks.push(remark(
            "set IP_BIND_ADDRESS_NO_PORT",
            format!(
                "With that socket option before bind(), or without bind(), connect() chooses the \
                 port: each destination has a set of them, where {} has one pool for all now ({} of \
                 {} taken, then errno 98). From then on net.ipv4.tcp_tw_reuse can help too: ask \
                 again.",
                source.address,
                count(source.taken),
                count(source.usable)
            ),
        ));
    }
    if let Some((flow, used, cause)) = facts.held_open() {
        remarks.push(open_connections(flow, used, cause));
    }
    remarks.extend(reservation(facts));
    remarks.extend(timestamps(facts, last));
    remarks.extend([
        pool(facts, busiest),
        remark(
            "keep connections open",
            "Check that the pool really keeps them: an idle limit below the open limit, or a new \
             client object per query, closes each connection after use.",
        ),
        unix_socket(snapshot),
        addresses(facts),
    ]);
    remarks
}

/// What to do about connections that stay open.
fn open_connections(flow: &Flow, used: &FlowUse, cause: Cause) -> Remark {
    let server = flow.server();
    let number = count(used.ports_in_use());
    match cause {
        Cause::CloseWait => remark(
            "close what the other end has closed",
            format!(
                "{number} connections toward {server} hold their ports until the application \
                 closes them. Who holds them, as root: `ss -tnp state close-wait {}`.",
                dst(server)
            ),
        ),
        Cause::SynSent => remark(
            "see whether the server answers",
            format!("{number} attempts toward {server} wait for it. No setting of ports helps."),
        ),
        _ => remark(
            "limit the pools",
            format!(
                "{number} connections toward {server} are open at once: pools that are smaller \
                 together, or a leak to find. For a number that must be, --target-connections says \
                 how wide a range or how many addresses it takes. Who holds them, as root: \
                 `ss -tnp state established {}`.",
                dst(server)
            ),
        ),
    }
}

/// A reservation that takes most of the range is somebody's choice to think over.
fn reservation(facts: &Facts) -> Option<Remark> {
    let tunables = &facts.snapshot.tunables;
    let range = tunables.ip_local_port_range?;
    let reserved = tunables.ip_local_reserved_ports.as_ref()?;
    let taken = range.ports().filter(|&port| reserved.contains(port));
    let taken = u32::try_from(taken.count()).unwrap_or(u32::MAX);
    if taken * 2 <= range.len() {
        return None;
    }
    let listening = facts.snapshot.tally.listening.ports();
    let held = range
        .ports()
        .filter(|&port| reserved.contains(port) && listening.contains(port))
        .count() as u64;
    Some(remark(
        "take ports out of net.ipv4.ip_local_reserved_ports",
        format!(
            "It keeps {} of the {} ports of the range from connect(), and services listen on {} \
             of them now: keep those, and what else you know a service for.",
            count(taken),
            count(range.len()),
            count(held)
        ),
    ))
}

/// What reuse needs of the other end, where it is in force or recommended.
fn timestamps(facts: &Facts, last: Option<&Step>) -> Option<Remark> {
    let bearing = last.map_or_else(|| facts.now, |step| step.after)?;
    if bearing.reuse != Some(true) || facts.loopback {
        return None;
    }
    let numbers = match (bearing.rate, bearing.rate_without_reuse) {
        (Limit::At(with), Limit::At(without)) if with > without => format!(
            " With them one destination bears {} connections/s, without {}.",
            rate(with),
            rate(without)
        ),
        _ => String::new(),
    };
    let toward = facts.snapshot.tally.toward.as_ref();
    let address = toward.and_then(|toward| toward.addresses.first());
    let whom = match address.filter(|address| address.port() != 0) {
        Some(&server) => format!(" {}", dst(server)),
        None => " state established".into(),
    };
    Some(remark(
        "TCP timestamps at the other end",
        format!(
            "tcp_tw_reuse does nothing toward a server that has none, or behind a load balancer \
             that strips them (net.ipv4.tcp_timestamps there; on loopback this machine is both \
             ends).{numbers} Reuse works where TWRecycled grows (`nstat -az TcpExtTWRecycled`); a \
             live connection to a server that has timestamps shows \"ts\": `ss -tie{whom}`."
        ),
    ))
}

fn addresses(facts: &Facts) -> Remark {
    let each = match facts.now {
        None => "Each further source or destination address has a set of ports of its own.".into(),
        Some(now) if now.ports == 0 => {
            return remark(
                "more addresses",
                "They do not help while no port of the range is usable.",
            );
        }
        Some(now) => {
            let ports = counted(now.ports, "port");
            match now.rate {
                Limit::At(limit) => format!(
                    "Each further source or destination address adds {ports}: at most {} \
                     connections/s more with the settings of now.",
                    rate(limit)
                ),
                _ => format!("Each further source or destination address adds {ports}."),
            }
        }
    };
    remark(
        "more addresses",
        format!("{each} A client that bind()s a source address needs IP_BIND_ADDRESS_NO_PORT."),
    )
}

/// Little's law: connections in use = rate × time each is used.
fn pool(facts: &Facts, busiest: Option<(&Flow, &FlowUse)>) -> Remark {
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
    let peak = busiest.map_or(0, |(_, used)| {
        let history = History::new(&used.time_wait_left, facts.hold_time);
        history.per_second().iter().copied().max().unwrap_or(0)
    });
    let why = match busiest {
        Some((flow, _)) if peak > 0 => format!(
            "Toward {}, {} were closed here in the busiest second of the last minute: a client \
             that fails or is slowed down shows less than it wants. A pool serves as many a \
             second with {} if each is used for {example} (rate × time), and leaves no TIME_WAIT.",
            flow.server(),
            counted(peak, "connection"),
            sized(f64::from(peak))
        ),
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
        .map(|(_, used)| u64::from(used.ports_in_use()))
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
