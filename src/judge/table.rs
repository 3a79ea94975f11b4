//! Whether a socket table that was read is to be trusted, and what is worth asking besides.

use crate::model::{Counters, Disagreement, FlowUse, PortRange, Tally, TcpState, Weight};
use crate::words::percent;

/// Whether to look for bound ports in a large table, with so many sockets `outside` it: the walk of
/// the bind hash takes as long as the dump, and it matters only where all that may be bound and what
/// the fullest flow takes together are half of what can be had: PORTS_LOW begins there.
#[must_use]
pub fn bound_matters(tally: &Tally, outside: Option<u64>) -> bool {
    let rule = tally.rule();
    let Some((range, outside)) = rule.range.zip(outside) else {
        return true;
    };
    let can_be_had = |port: &u16| !rule.reserved.contains(*port);
    let usable = range.ports().filter(can_be_had).count() as u64;
    let most = tally.flows.values().map(FlowUse::ports_in_use).max();
    let open: u64 = tally
        .flows
        .values()
        .map(|used| used.by_state.without(TcpState::TimeWait).total())
        .sum();
    let may_be_bound = outside + open;
    may_be_bound > 0 && (u64::from(most.unwrap_or(0)) + may_be_bound) * 2 >= usable
}

/// Of how many ports by chance the kernel is asked whether connect() passes them over, in a table like
/// this one. Where every flow is far from its limit only a large part of the ports can matter.
#[must_use]
pub fn sample(tally: &Tally) -> u32 {
    /// So many find a part of 1 in 10 28 times in 29.
    const SOME: u32 = 32;
    /// So many find, 11 times in 12, a part of 1 in 100.
    const MANY: u32 = 256;
    /// A flow that takes as much of the range is not far from it.
    const FAR: u32 = 10;
    let range = tally.rule().range.map_or(0, PortRange::len);
    let is_far = |used: &FlowUse| used.ports_in_use() * FAR < range;
    if tally.flows.values().all(is_far) {
        SOME
    } else {
        MANY
    }
}

/// Whether connections in CLOSE_WAIT are worth a look of their own where only the ephemeral ports were
/// looked at: there may be many, as the kernel's number of open connections tells.
#[must_use]
pub fn inbound_matters(tally: &Tally, counters: &Counters) -> bool {
    /// As many are worth it.
    const MANY: u64 = 100;
    let seen = tally.states.get(TcpState::Established) + tally.states.get(TcpState::CloseWait);
    counters.established.unwrap_or(0).saturating_sub(seen) >= MANY
}

/// Whether the rows of /proc are other ones than the kernel counts. A live table that changes while
/// it is read repeats or skips some: the kernel finds its place again by counting rows
/// (`tcp_seq_start` in net/ipv4/tcp_ipv4.c). A recorded one does not change: where rows are missing
/// it was cut off, and what its flows hold is unknown.
#[must_use]
pub fn disagreement(
    tally: &Tally,
    counters: &Counters,
    in_table: Option<u64>,
    is_recorded: bool,
) -> Option<Disagreement> {
    /// A few come and go during any read.
    const TOLERATED: f64 = 5.0;
    const FEW: u64 = 100;
    /// As many may come between the copy of one file and that of the other.
    const TOLERATED_MISSING: f64 = 10.0;
    const FEW_MISSING: u64 = 20;

    let waiting = tally.time_wait.total + tally.orphans;
    // Half-open connections have rows, but are no sockets yet.
    let open = tally.states.total() - waiting - tally.states.get(TcpState::SynRecv);
    let established = [TcpState::Established, TcpState::CloseWait]
        .map(|state| tally.states.get(state))
        .iter()
        .sum();
    let missing = [
        (waiting, "TIME_WAIT", "sockstat", counters.time_wait),
        (open, "other", "sockstat", in_table),
        (
            established,
            "ESTABLISHED or CLOSE_WAIT",
            "snmp",
            counters.established,
        ),
    ]
    .into_iter()
    .filter_map(|(rows, kind, file, counted)| Some((rows, kind, file, counted?)))
    .find(|&(rows, _, _, counted)| {
        let missing = counted.saturating_sub(rows);
        missing > FEW_MISSING && percent(missing, counted) > TOLERATED_MISSING
    });
    if let (Some((rows, kind, file, counted)), true) = (missing, is_recorded) {
        return Some(Disagreement {
            rows,
            kind,
            counted,
            file,
            meaning: "rows are missing, or the files were copied at different times; before Linux \
                      4.11 the TIME_WAIT of all containers are counted",
            weight: Weight::Decisive,
        });
    }
    let counted = counters.time_wait?;
    let difference = waiting.abs_diff(counted);
    let differs = difference > FEW && percent(difference, counted) > TOLERATED;
    differs.then_some(Disagreement {
        rows: waiting,
        kind: "TIME_WAIT",
        counted,
        file: "sockstat",
        meaning: if is_recorded {
            "it changed while it was copied"
        } else {
            "it changed while it was read; sock_diag is not disturbed"
        },
        weight: Weight::Minor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::{look, plain, socket};

    #[test]
    fn a_live_table_is_restless_and_a_recorded_one_cut_off_and_orphans_are_a_sign_of_neither() {
        let tally = |time_wait: u64, orphans: u64| {
            let mut tally = Tally::default();
            tally.time_wait.total = time_wait;
            tally.orphans = orphans;
            for (state, sockets) in [
                (TcpState::TimeWait, time_wait),
                (TcpState::FinWait2, orphans),
            ] {
                (0..sockets).for_each(|_| tally.states.add(state));
            }
            tally
        };
        let counters = Counters {
            time_wait: Some(3600),
            ..Counters::default()
        };
        let weight = |is_recorded, tally: &Tally| {
            disagreement(tally, &counters, None, is_recorded).map(|it| it.weight)
        };
        for (time_wait, orphans, of_live, of_recorded) in [
            (3300, 300, None, None),
            (3300, 0, Some(Weight::Minor), Some(Weight::Minor)),
            (3900, 0, Some(Weight::Minor), Some(Weight::Minor)),
            (3500, 0, None, None),
            (3230, 0, Some(Weight::Minor), Some(Weight::Decisive)),
            (0, 0, Some(Weight::Minor), Some(Weight::Decisive)),
        ] {
            let tally = tally(time_wait, orphans);
            assert_eq!(weight(false, &tally), of_live, "{time_wait} live");
            assert_eq!(weight(true, &tally), of_recorded, "{time_wait} recorded");
        }
    }

    #[test]
    fn bound_ports_matter_where_they_and_the_fullest_flow_may_take_half() {
        let rows = |open: u16| {
            let ports = 40000..40000 + open;
            let row = |port| socket(TcpState::Established, port, ([10, 0, 0, 2], 3306));
            look(plain(), [], ports.map(row)).tally
        };
        // Each open connection takes a port, and its port may be bound too.
        for (open, outside, matters) in [
            (0, 0, false),
            (0, 499, false),
            (0, 500, true),
            (249, 0, false),
            (250, 0, true),
            (200, 99, false),
            (200, 100, true),
        ] {
            let tally = rows(open);
            assert_eq!(
                bound_matters(&tally, Some(outside)),
                matters,
                "{open} open, {outside} outside"
            );
        }
        assert!(bound_matters(&rows(0), None), "unknown is not none");
    }

    #[test]
    fn connections_that_were_not_looked_at_matter_where_they_are_many() {
        let mut tally = Tally::default();
        (0..50).for_each(|_| tally.states.add(TcpState::Established));
        let matters = |established| {
            let counters = Counters {
                established,
                ..Counters::default()
            };
            inbound_matters(&tally, &counters)
        };
        assert_eq!(
            [None, Some(50), Some(149), Some(150)].map(matters),
            [false, false, false, true]
        );
    }
}
