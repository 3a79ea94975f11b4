//! What several looks tell that none of them does: rates of what is only counted, flows that came
//! and went, since when one is in trouble, and who is behind one whose connections live for
//! microseconds. What is kept does not grow with the time.

mod news;
mod series;

use std::collections::HashMap;
use std::time::Duration;

pub use news::{Change, News, Sight, Trouble};
pub use series::Series;

use super::flow::FlowReport;
use super::level::Level;
use super::verdict::Verdict;
use crate::model::{Counters, Flow, Growth, Owner, Placeless, StateCounts, Unplaced};

/// What is better has to stay so for this long before it is believed: a number at a threshold goes
/// to and fro.
pub const CALM: Duration = Duration::from_secs(10);

/// A look tells of the minute before it, by the timers of TIME_WAIT; of a longer time without one,
/// as while the watch is paused or stopped, nobody knows. Looks a minute apart are a bit more.
const BLIND: Duration = Duration::from_secs(70);

/// So many flows are remembered; beyond it, the one that was not seen for longest is forgotten.
const FLOWS: usize = 1000;

/// So many processes are remembered for a flow, those that were seen with most sockets.
const OWNERS: usize = 16;

/// What only counters tell, per second between two looks; `None` where one could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Ports in TIME_WAIT that were reused (`TWRecycled`).
    pub reused: Option<f64>,
    /// TIME_WAIT sockets dropped at `tcp_max_tw_buckets` (`TCPTimeWaitOverflow`).
    pub dropped: Option<f64>,
    /// Connections that could not be tracked (`insert_failed` of conntrack).
    pub untracked: Option<f64>,
}

impl Rates {
    /// Of what grew in `time`; nothing is known of no time.
    #[must_use]
    pub fn new(growth: &Growth, time: Duration) -> Self {
        #[expect(clippy::cast_precision_loss)] // Far below 2^53.
        let rate = |grown: Option<u64>| {
            let known = grown.filter(|_| !time.is_zero())?;
            Some(known as f64 / time.as_secs_f64())
        };
        Self {
            reused: rate(growth.time_wait_recycled),
            dropped: rate(growth.time_wait_overflows),
            untracked: rate(growth.insert_failed),
        }
    }
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// When it was seen last, from the first look on.
    last: Duration,
    /// When its trouble began, in seconds from the first look on, and whether that was earlier.
    trouble: Option<(i64, bool)>,
    /// When it was last in trouble.
    troubled: Duration,
    /// Its ports in use, look by look from the first that had it.
    pub ports: Series,
    /// Its sockets by state at the look before the last; `None` where it was not there.
    pub states_before: Option<StateCounts>,
    states: StateCounts,
    /// Who was seen with its live sockets, most first; `sockets` is how many in all these looks, one
    /// that lasts counted at each.
    pub owners: Vec<Owner>,
    /// Whether others were seen, and forgotten for want of room.
    pub forgot_owners: bool,
    /// How many sockets were seen with somebody, in all looks likewise.
    pub sockets: u64,
    /// In how many looks somebody was looked for.
    pub looks: u32,
}

impl Past {
    /// For how many seconds it has been in trouble by the last look, and whether it may be longer;
    /// `None` where it is in none.
    #[must_use]
    pub fn in_trouble_for(&self) -> Option<(u64, bool)> {
        let (since, at_least) = self.trouble?;
        let now = i64::try_from(self.last.as_secs()).unwrap_or(i64::MAX);
        Some((now.saturating_sub(since).unsigned_abs(), at_least))
    }

    /// Takes in what a look shows of it; `before` is when the look before was.
    fn note(&mut self, at: Duration, flow: &FlowReport, before: Option<Duration>) {
        let was_there = !self.ports.is_empty() && before == Some(self.last);
        let states = std::mem::replace(&mut self.states, flow.by_state.clone());
        self.states_before = was_there.then_some(states);
        let unseen = at.saturating_sub(self.last);
        if unseen > BLIND || (!was_there && unseen >= CALM) {
            self.trouble = None;
        }
        self.last = at;
        self.ports.push(flow.ports_in_use);
        if flow.level > Level::Ok {
            self.troubled = at;
            self.trouble.get_or_insert_with(|| {
                let before = flow.shortage.map_or((0, false), |shortage| {
                    (shortage.since_seconds, shortage.since_at_least)
                });
                let now = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
                (now - i64::try_from(before.0).unwrap_or(0), before.1)
            });
        } else if at.saturating_sub(self.troubled) >= CALM {
            self.trouble = None;
        }
        if let Some(owners) = &flow.owners {
            self.looks += 1;
            self.note_owners(owners);
        }
    }

    fn note_owners(&mut self, owners: &[Owner]) {
        for owner in owners.iter().rev() {
            self.sockets += u64::from(owner.sockets);
            let is_it =
                |known: &&mut Owner| known.pid == owner.pid && known.command == owner.command;
            match self.owners.iter_mut().find(is_it) {
                Some(known) => known.sockets = known.sockets.saturating_add(owner.sockets),
                // Of as many sockets, who was seen last stays.
                None => self.owners.insert(0, owner.clone()),
            }
        }
        self.owners
            .sort_by_key(|owner| std::cmp::Reverse(owner.sockets));
        self.forgot_owners |= self.owners.len() > OWNERS;
        self.owners.truncate(OWNERS);
    }
}

/// What all looks so far have shown.
#[derive(Debug, Clone, Default)]
pub struct Trend {
    /// How many looks there were.
    pub looks: u64,
    /// What grew since the look before; `None` at the first.
    pub rates: Option<Rates>,
    /// What the kernel counted at the look before the last; `None` at the first.
    pub before: Option<Counters>,
    /// Flows that were not there at the look before, as far as both list all there are.
    pub began: Vec<Flow>,
    /// Flows that are gone since, likewise.
    pub ended: Vec<Flow>,
    /// Processes with TCP sockets that were in no flow, most first; `sockets` is how many without a
    /// port at once, or how many short-lived ones in all looks.
    pub unplaced: Vec<Unplaced>,
    /// How many were gone before they could be placed, in all looks, whoever had them.
    pub short_lived: u64,
    /// What was last said about owners.
    pub owner_notes: Vec<String>,
    last: Option<(Duration, Counters)>,
    listed: Option<Vec<Flow>>,
    flows: HashMap<Flow, Past>,
}

impl Trend {
    /// Takes in a look, `at` the time from the first one on.
    pub fn note(&mut self, at: Duration, verdict: &Verdict) {
        self.looks += 1;
        let counters = verdict.counters.clone();
        let before = self.last.as_ref().map(|(before, _)| *before);
        if let Some((before, counted)) = self.last.replace((at, counters)) {
            let growth = Growth::between(&counted, &verdict.counters);
            self.rates = Some(Rates::new(&growth, at.saturating_sub(before)));
            self.before = Some(counted);
        }
        if let Some(unplaced) = &verdict.unplaced {
            self.owner_notes.clone_from(&verdict.owner_notes);
            self.note_unplaced(unplaced);
        }
        self.note_flows(verdict);
        for flow in &verdict.flows {
            let is_new = !self.flows.contains_key(&flow.flow());
            if is_new && self.flows.len() >= FLOWS {
                let oldest = self.flows.iter().min_by_key(|(_, past)| past.last);
                if let Some(flow) = oldest.map(|(flow, _)| *flow) {
                    self.flows.remove(&flow);
                }
            }
            let past = self.flows.entry(flow.flow()).or_default();
            past.note(at, flow, before);
        }
    }

    /// Whether somebody is known for each flow of `verdict` that is in trouble and closes
    /// connections.
    #[must_use]
    pub fn knows_who(&self, verdict: &Verdict) -> bool {
        let is_busy = |flow: &&FlowReport| flow.level > Level::Ok && flow.rate.now > 0.0;
        let is_known = |flow: &FlowReport| {
            let past = self.past(&flow.flow());
            past.is_some_and(|past| !past.owners.is_empty())
        };
        let mut troubled = verdict.flows.iter().filter(is_busy);
        troubled.all(is_known)
    }

    /// What is remembered of `flow`.
    #[must_use]
    pub fn past(&self, flow: &Flow) -> Option<&Past> {
        self.flows.get(flow)
    }

    fn note_unplaced(&mut self, unplaced: &[Unplaced]) {
        for seen in unplaced.iter().rev() {
            if seen.why == Placeless::ShortLived {
                self.short_lived += u64::from(seen.owner.sockets);
            }
            let is_it = |known: &&mut Unplaced| {
                (known.why, known.owner.pid) == (seen.why, seen.owner.pid)
                    && known.owner.command == seen.owner.command
            };
            match self.unplaced.iter_mut().find(is_it) {
                Some(known) => {
                    let (before, now) = (known.owner.sockets, seen.owner.sockets);
                    known.owner.sockets = match seen.why {
                        // It may well be the same as before.
                        Placeless::NoPort => before.max(now),
                        Placeless::ShortLived => before.saturating_add(now),
                    };
                }
                None => self.unplaced.insert(0, seen.clone()),
            }
        }
        self.unplaced
            .sort_by_key(|it| std::cmp::Reverse(it.owner.sockets));
        self.unplaced.truncate(OWNERS);
    }

    fn note_flows(&mut self, verdict: &Verdict) {
        // Of those that are not listed nothing is known.
        let is_whole = verdict.flows_total == verdict.flows.len() && verdict.time_wait.is_some();
        let mut now: Vec<_> = verdict.flows.iter().map(FlowReport::flow).collect();
        now.sort_unstable();
        let now = is_whole.then_some(now);
        let without = |these: &[Flow], others: &[Flow]| {
            let is_missing = |flow: &&Flow| others.binary_search(flow).is_err();
            these.iter().filter(is_missing).copied().collect()
        };
        if let Some(now) = &now {
            for (flow, past) in &mut self.flows {
                if now.binary_search(flow).is_err() {
                    past.ports.push(0);
                }
            }
        }
        (self.began, self.ended) = match (&self.listed, &now) {
            (Some(before), Some(now)) => (without(now, before), without(before, now)),
            _ => (Vec::new(), Vec::new()),
        };
        self.listed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::{look, owner, plain, socket};
    use crate::judge::level::Thresholds;
    use crate::judge::verdict::verdict;
    use crate::model::TcpState;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A look at flows of so many open connections, by the server's port.
    fn at(flows: &[(u16, u16)], top: usize) -> Verdict {
        let sockets = flows.iter().flat_map(|&(port, number)| {
            (0..number).map(move |place| {
                socket(TcpState::Established, 40000 + place, ([10, 0, 0, 2], port))
            })
        });
        verdict(&look(plain(), [], sockets), Thresholds::default(), top)
    }

    fn counted(recycled: Option<u64>) -> Verdict {
        let mut verdict = at(&[], 0);
        verdict.counters.time_wait_recycled = recycled;
        verdict.counters.insert_failed = Some(7);
        verdict
    }

    #[test]
    fn what_is_counted_is_told_per_second_and_what_is_unknown_is_not_zero() {
        let mut trend = Trend::default();
        trend.note(seconds(0), &counted(Some(100)));
        assert_eq!(trend.rates, None);
        trend.note(seconds(4), &counted(Some(300)));
        let rates = trend.rates.unwrap();
        assert_eq!((rates.reused, rates.dropped), (Some(50.0), None));
        assert_eq!(rates.untracked, Some(0.0));
        trend.note(seconds(6), &counted(None));
        assert_eq!(trend.rates.unwrap().reused, None);
        trend.note(seconds(6), &counted(None));
        assert_eq!(trend.rates.unwrap().untracked, None, "in no time");
    }

    #[test]
    fn flows_begin_and_end_where_all_are_listed() {
        let port =
            |flows: &[Flow]| -> Vec<_> { flows.iter().map(|flow| flow.destination_port).collect() };
        let mut trend = Trend::default();
        trend.note(seconds(0), &at(&[(80, 1), (81, 1)], 0));
        assert_eq!((port(&trend.began), port(&trend.ended)), (vec![], vec![]));
        trend.note(seconds(2), &at(&[(81, 1), (82, 1)], 0));
        assert_eq!(
            (port(&trend.began), port(&trend.ended)),
            (vec![82], vec![80])
        );
        trend.note(seconds(4), &at(&[(81, 1), (82, 1), (83, 1)], 1));
        assert_eq!((port(&trend.began), port(&trend.ended)), (vec![], vec![]));
    }

    #[test]
    fn trouble_lasts_until_it_has_been_over_for_a_while() {
        let mut trend = Trend::default();
        let flow = at(&[(80, 1)], 0).flows[0].flow();
        let mut after = |time, ports| {
            trend.note(seconds(time), &at(&[(80, ports)], 0));
            trend.past(&flow).unwrap().in_trouble_for()
        };
        assert_eq!(after(0, 10), None);
        assert_eq!(after(2, 600), Some((0, false)));
        assert_eq!(after(62, 600), Some((60, false)));
        assert_eq!(after(66, 10), Some((64, false)));
        assert_eq!(after(70, 600), Some((68, false)));
        assert_eq!(after(80, 10), None);
        assert_eq!(after(82, 600), Some((0, false)));
    }

    #[test]
    fn of_a_time_without_a_look_or_without_the_flow_nothing_is_claimed() {
        let troubled = at(&[(80, 600)], 0);
        let flow = troubled.flows[0].flow();
        let after = |looks: &[(u64, &Verdict)]| {
            let mut trend = Trend::default();
            for (time, look) in looks {
                trend.note(seconds(*time), look);
            }
            let past = trend.past(&flow).unwrap().clone();
            (past.in_trouble_for().unwrap().0, past)
        };
        // Paused, or the process stopped.
        assert_eq!(after(&[(0, &troubled), (3600, &troubled)]).0, 0);
        assert_eq!(after(&[(0, &troubled), (60, &troubled)]).0, 60);
        let none = at(&[], 0);
        let (time, past) = after(&[(0, &troubled), (2, &none), (20, &none), (22, &troubled)]);
        assert_eq!((time, past.states_before), (0, None));
        assert_eq!(past.ports.values(), [600, 0, 0, 600]);
        let (time, past) = after(&[(0, &troubled), (2, &none), (4, &troubled)]);
        assert_eq!((time, past.states_before), (4, None));
        // Where not all are listed, one that is not may have as many as before.
        let others = at(&[(80, 600), (81, 601)], 1);
        let (_, past) = after(&[(0, &troubled), (2, &others), (4, &troubled)]);
        assert_eq!(past.ports.values(), [600, 600]);
    }

    #[test]
    fn owners_are_gathered_with_their_share_and_their_number_is_bounded() {
        let mut trend = Trend::default();
        let mut look = at(&[(80, 5)], 0);
        let flow = look.flows[0].flow();
        for turn in 0..100 {
            look.flows[0].owners = Some(match turn % 4 {
                0 => vec![],
                1 => vec![Owner {
                    pid: 1000 + turn,
                    sockets: 1,
                    ..owner()
                }],
                _ => vec![Owner {
                    sockets: 2,
                    ..owner()
                }],
            });
            trend.note(seconds(turn.unsigned_abs().into()), &look);
        }
        let past = trend.past(&flow).unwrap();
        assert_eq!((past.looks, past.sockets), (100, 125));
        assert_eq!((past.owners[0].pid, past.owners[0].sockets), (7, 100));
        assert_eq!(past.owners.len(), OWNERS);
        assert!(past.forgot_owners);
    }

    #[test]
    fn who_comes_again_is_gathered_however_many_come_once() {
        let mut trend = Trend::default();
        let mut look = at(&[(80, 5)], 0);
        let flow = look.flows[0].flow();
        for turn in 0..100 {
            // A process for each connection, as of a script, and later one that stays.
            let pid = if turn > 30 && turn % 2 == 0 {
                9999
            } else {
                turn
            };
            let seen = Owner {
                pid,
                sockets: 1,
                ..owner()
            };
            look.flows[0].owners = Some(vec![seen.clone()]);
            look.unplaced = Some(vec![Unplaced {
                owner: seen,
                why: Placeless::ShortLived,
            }]);
            trend.note(seconds(turn.unsigned_abs().into()), &look);
        }
        let first = &trend.past(&flow).unwrap().owners[0];
        assert_eq!((first.pid, first.sockets), (9999, 34));
        let first = &trend.unplaced[0].owner;
        assert_eq!(
            (first.pid, first.sockets, trend.short_lived),
            (9999, 34, 100)
        );
    }

    #[test]
    fn who_has_sockets_in_no_flow_is_gathered_too() {
        let mut trend = Trend::default();
        let mut look = at(&[(80, 5)], 0);
        for sockets in [10, 12] {
            let owner = Owner { sockets, ..owner() };
            look.unplaced = Some(vec![Unplaced {
                owner,
                why: Placeless::ShortLived,
            }]);
            trend.note(seconds(0), &look);
        }
        look.unplaced = None;
        trend.note(seconds(2), &look);
        let [python] = &trend.unplaced[..] else {
            panic!("{:?}", trend.unplaced)
        };
        assert_eq!((python.owner.pid, python.owner.sockets), (7, 22));
    }

    #[test]
    fn states_change_from_look_to_look() {
        let mut trend = Trend::default();
        let flow = at(&[(80, 1)], 0).flows[0].flow();
        trend.note(seconds(0), &at(&[(80, 5)], 0));
        assert_eq!(trend.past(&flow).unwrap().states_before, None);
        trend.note(seconds(2), &at(&[(80, 9)], 0));
        let before = trend.past(&flow).unwrap().states_before.clone().unwrap();
        assert_eq!(before.get(TcpState::Established), 5);
    }

    #[test]
    fn more_flows_than_are_remembered_push_out_the_oldest() {
        let mut trend = Trend::default();
        let flows = |from: u16, to: u16| -> Vec<_> { (from..to).map(|port| (port, 1)).collect() };
        trend.note(seconds(0), &at(&flows(1, 1001), 0));
        trend.note(seconds(2), &at(&flows(2, 1002), 0));
        assert_eq!(trend.flows.len(), FLOWS);
        let gone = at(&[(1, 1)], 0).flows[0].flow();
        assert!(trend.past(&gone).is_none());
    }
}
