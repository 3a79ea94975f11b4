//! What it takes to carry a rate, or a number of open connections, that somebody wants.

use std::time::Duration;

use serde::Serialize;

use super::bearing::{Bearing, Limit};
use super::capacity::rounded_rate;
use super::change::{Change, Step};
use crate::model::{PortRange, PortSet};
use crate::words::{count, counted, time};

/// What somebody wants to carry toward one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Connections per second; above 0. `None` where only open ones count.
    pub rate: Option<f64>,
    /// Connections open at the same time, besides; above 0.
    pub connections: Option<u64>,
    /// How long each connection of the rate is used; unknown where it is `None`.
    pub busy: Option<Duration>,
}

impl Goal {
    /// The share of what one destination bears that the goal takes: up to 1 it is carried. `None`
    /// when unknown, infinite where there is no port.
    fn load(&self, bearing: &Bearing, limit: Limit) -> Option<f64> {
        #[expect(clippy::cast_precision_loss)] // Connections, far below 2^53.
        let open = self.connections.unwrap_or(0) as f64;
        if bearing.ports == 0 {
            return Some(f64::INFINITY);
        }
        let churn = match (self.rate, limit) {
            (None, _) | (Some(_), Limit::Unbound) => 0.0,
            (Some(wanted), Limit::At(limit)) => wanted / limit,
            (Some(_), Limit::Unknown) => return None,
        };
        Some(open / f64::from(bearing.ports) + churn)
    }

    /// How many ports it takes with the settings of `bearing`; `None` when unknown.
    #[must_use]
    pub fn ports(&self, bearing: &Bearing) -> Option<u64> {
        let churn = match (self.rate, bearing.rate) {
            (None, _) | (Some(_), Limit::Unbound) => 0,
            // Each port bears its share of the limit.
            (Some(wanted), Limit::At(limit)) if limit > 0.0 => {
                whole(wanted / (limit / f64::from(bearing.ports)))
            }
            _ => return None,
        };
        Some(self.connections.unwrap_or(0).saturating_add(churn))
    }
}

/// The narrowest range of an even number of ports around `range` with `wanted` ports that are not
/// `taken`: it grows upward first, where fewer services are, then down to `lowest`. `None` where
/// none has so many.
#[must_use]
pub fn range_for(wanted: u64, range: PortRange, taken: &PortSet, lowest: u16) -> Option<PortRange> {
    let mut wide = range;
    let mut usable = range.ports().filter(|&port| !taken.contains(port)).count() as u64;
    loop {
        let is_even = (wide.low ^ wide.high) & 1 == 1;
        if is_even && usable >= wanted {
            return Some(wide);
        }
        let added = if let Some(high) = wide.high.checked_add(1) {
            wide.high = high;
            high
        } else if wide.low > lowest {
            wide.low -= 1;
            wide.low
        } else {
            return None;
        };
        usable += u64::from(!taken.contains(added));
    }
}

/// What it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Needs {
    /// Connections per second wanted; `None` where only open connections are.
    #[serde(serialize_with = "rounded_rate")]
    pub rate: Option<f64>,
    /// Open connections wanted; `None` where only a rate is.
    pub connections: Option<u64>,
    /// Toward this destination, as it was typed; none in particular, on another machine, where it is
    /// `None`.
    pub destination: Option<String>,
    /// What one destination bears now; `None` where ports do not bound it, or it is unknown.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_now: Option<f64>,
    /// And after all the changes; `None` likewise.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_after: Option<f64>,
    /// The same where the other end has no TCP timestamps; `None` likewise.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_after_without_reuse: Option<f64>,
    /// Ports of one destination now: so many connections can be open at once. `None` when unknown.
    pub ports_now: Option<u32>,
    /// And after all the changes.
    pub ports_after: Option<u32>,
    /// Of these, the ones that connect() finds without a search: while so many are taken at most, it
    /// stays cheap.
    pub fast_ports_now: Option<u32>,
    /// And after all the changes.
    pub fast_ports_after: Option<u32>,
    /// Ports that the goal takes with the settings of now; `None` when unknown.
    pub ports_needed: Option<u64>,
    /// The narrowest range around the one of now that has as many; `None` when unknown, or none has.
    pub range_needed: Option<PortRange>,
    /// How many of the changes, in their order, suffice; `None` where all of them do not.
    pub changes_needed: Option<usize>,
    /// How many addresses, of the source or of the destination, carry it with the settings of now;
    /// `None` where no number does.
    pub addresses_now: Option<u64>,
    /// And after all the changes; `None` likewise.
    pub addresses_after: Option<u64>,
    /// Connections of a pool that serves as many requests (Little's law); `None` where it is not
    /// known how long each is used.
    pub pool_connections: Option<u64>,
    /// The same in sentences.
    pub sentences: Vec<String>,
}

/// Where a range may grow, and how many ports it has to have.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    /// Ports that the goal takes with the settings of now, were no TIME_WAIT dropped; `None` when
    /// unknown.
    pub wanted: Option<u64>,
    /// The range of now.
    pub range: PortRange,
    /// Ports that cannot be had: reserved, or held by anybody.
    pub taken: &'a PortSet,
    /// The lowest port that a range may begin with.
    pub lowest: u16,
}

/// Compares `goal` with what the machine bears: `now`, and step by step with the `steps`, of which
/// the first of those that do not mend anything else begins to count.
#[must_use]
pub fn needs(goal: Goal, now: Option<Bearing>, room: Option<Room>, steps: &[Step]) -> Needs {
    let load = |bearing: Option<Bearing>| {
        let bearing = bearing?;
        goal.load(&bearing, bearing.rate)
    };
    let carries = |bearing| load(bearing).is_some_and(|load| load <= 1.0);
    let after = steps.last().map_or(now, |step| step.after);
    let mut counted = 0;
    let changes_needed = if carries(now) {
        Some(0)
    } else {
        steps.iter().find_map(|step| {
            counted += step.changes.len();
            (!step.mends && carries(step.after)).then_some(counted)
        })
    };
    let addresses = |bearing| load(bearing).filter(|load| load.is_finite()).map(whole);
    let ports_needed = room.and_then(|room| room.wanted);
    let mut needs = Needs {
        rate: goal.rate,
        connections: goal.connections,
        destination: None,
        max_rate_now: now.and_then(|it| it.rate.per_second()),
        max_rate_after: after.and_then(|it| it.rate.per_second()),
        max_rate_after_without_reuse: after.and_then(|it| it.rate_without_reuse.per_second()),
        ports_now: now.map(|it| it.ports),
        ports_after: after.map(|it| it.ports),
        fast_ports_now: now.map(|it| it.fast_ports),
        fast_ports_after: after.map(|it| it.fast_ports),
        ports_needed,
        range_needed: ports_needed
            .zip(room)
            .and_then(|(wanted, room)| range_for(wanted, room.range, room.taken, room.lowest)),
        changes_needed,
        addresses_now: addresses(now),
        addresses_after: addresses(after),
        pool_connections: goal
            .rate
            .zip(goal.busy)
            .map(|(rate, busy)| whole(rate * busy.as_secs_f64())),
        sentences: Vec::new(),
    };
    needs.sentences = match now {
        Some(now) if load(Some(now)).is_some() => needs.sentences(goal, &now, after, room, steps),
        _ => vec![
            "What this machine bears is not known: a setting that decides it could not be read."
                .into(),
        ],
    };
    needs
}

/// The next whole number, at least 1.
fn whole(number: f64) -> u64 {
    // A sum of shares of exactly 1 may come out a hair above.
    const HAIR: f64 = 1e-9;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped.
    let whole = (number - HAIR).ceil().clamp(1.0, 1e15) as u64;
    whole
}

impl Needs {
    fn sentences(
        &self,
        goal: Goal,
        now: &Bearing,
        after: Option<Bearing>,
        room: Option<Room>,
        steps: &[Step],
    ) -> Vec<String> {
        let mut sentences = vec![self.settings(goal, now, after, steps)];
        if let (Some(_), Some(after)) = (goal.rate, after)
            && after.reuse == Some(true)
            && goal
                .load(&after, after.rate_without_reuse)
                .is_some_and(|load| load > 1.0)
            && self.changes_needed.is_some()
        {
            sentences.push(format!(
                "That is where the other end has TCP timestamps. Where it has not, nothing is \
                 reused: {}, so {} addresses or a pool.",
                after.rate_without_reuse,
                goal.load(&after, after.rate_without_reuse)
                    .filter(|load| load.is_finite())
                    .map_or_else(|| "more".into(), |load| count(whole(load)))
            ));
        }
        if goal.connections.is_some() {
            sentences.extend(self.width());
            sentences.push(cheap(goal, now, room));
        }
        if self.changes_needed != Some(0) {
            sentences.push(self.addresses(steps));
        }
        if goal.rate.is_some() {
            sentences.push(match (goal.busy, self.pool_connections) {
                (Some(busy), Some(connections)) => format!(
                    "A pool: {}, if each request uses one for {} (rate × time), and no TIME_WAIT.",
                    counted(connections, "connection"),
                    time(busy)
                ),
                _ => "A pool: rate × time that a request uses a connection; --busy 20ms puts a \
                      number on it."
                    .into(),
            });
        }
        sentences
    }

    /// What is borne, in the unit that is asked for.
    fn borne(&self, bearing: &Bearing) -> String {
        let open = counted(bearing.ports, "connection");
        match (self.rate, self.connections) {
            (None, _) => format!("{open} at once"),
            (Some(_), None) => bearing.rate.to_string(),
            (Some(_), Some(_)) => format!(
                "{} that bear {} where none is held open",
                counted(bearing.ports, "port"),
                bearing.rate
            ),
        }
    }

    fn settings(
        &self,
        goal: Goal,
        now: &Bearing,
        after: Option<Bearing>,
        steps: &[Step],
    ) -> String {
        match self.changes_needed {
            Some(0) if goal.rate.is_some() && now.drops => format!(
                "The settings of now suffice, but only because TIME_WAIT is dropped at \
                 tcp_max_tw_buckets, and its protection with it{}.",
                match after {
                    Some(after) if !after.drops => {
                        format!(
                            ". With the changes and with it: {}{}",
                            after.rate,
                            after.condition()
                        )
                    }
                    _ => String::new(),
                }
            ),
            Some(0)
                if goal
                    .load(now, now.rate_without_reuse)
                    .is_none_or(|load| load > 1.0) =>
            {
                format!(
                    "The settings of now suffice where the other end has TCP timestamps: {}. Where it \
                 has not: {}.",
                    self.borne(now),
                    now.rate_without_reuse
                )
            }
            Some(0) => format!("The settings of now suffice: {}.", self.borne(now)),
            Some(number) => {
                let names: Vec<_> = steps
                    .iter()
                    .filter(|step| !step.mends)
                    .flat_map(|step| &step.changes)
                    .take(number - mended(steps))
                    .map(Change::short)
                    .collect();
                let mut reached = 0;
                let enough = steps.iter().find(|step| {
                    reached += step.changes.len();
                    reached >= number
                });
                format!(
                    "Settings: {} {}: {} instead of {}.",
                    names.join(" and "),
                    if names.len() == 1 {
                        "suffices"
                    } else {
                        "suffice"
                    },
                    enough
                        .and_then(|step| step.after)
                        .map_or_else(|| "an unknown number".into(), |it| self.borne(&it)),
                    self.borne(now)
                )
            }
            None => format!(
                "Settings alone do not suffice: {} with all the changes, {} now.",
                after.map_or_else(|| "an unknown number".into(), |after| self.borne(&after)),
                self.borne(now)
            ),
        }
    }

    /// How wide a range would do.
    fn width(&self) -> Option<String> {
        let (needed, now) = (self.ports_needed?, self.ports_now?);
        if needed <= u64::from(now) {
            return None;
        }
        let needs = format!(
            "With the settings of now that takes {}, and there are {}",
            counted(needed, "port"),
            count(now)
        );
        Some(match self.range_needed {
            Some(range) => format!(
                "{needs}: the narrowest range with as many is {range} ({} ports).",
                count(range.len())
            ),
            None => format!("{needs}: no range has as many."),
        })
    }

    fn addresses(&self, steps: &[Step]) -> String {
        let each = |number: Option<u64>| {
            number.map_or_else(
                || "no number of them".into(),
                |number| match number {
                    1 => "1 is enough".to_owned(),
                    several => format!("{} of them", count(several)),
                },
            )
        };
        format!(
            "Addresses, of this machine or of the server, since each pair has ports of its own: \
             {} with the settings of now{}.",
            each(self.addresses_now),
            if steps.iter().all(|step| step.mends) {
                String::new()
            } else {
                format!(", {} with all the changes", each(self.addresses_after))
            }
        )
    }
}

/// Up to where connect() stays cheap.
fn cheap(goal: Goal, now: &Bearing, room: Option<Room>) -> String {
    let wanted = goal.connections.unwrap_or(0);
    let text = format!(
        "connect() is cheap while at most {} ports are taken, half of the range; beyond, each \
         one searches",
        count(now.fast_ports)
    );
    if wanted <= u64::from(now.fast_ports) {
        return format!("{text}.");
    }
    let wide = room
        .and_then(|room| range_for(wanted.checked_mul(2)?, room.range, room.taken, room.lowest));
    let each = u64::from(now.fast_ports).max(1);
    format!(
        "{text}, as it would here. {}{} keep it cheap.",
        wide.map_or_else(String::new, |range| format!("A range of {range}, or ")),
        format_args!(
            "{} addresses with the range of now",
            count(wanted.div_ceil(each))
        )
    )
}

/// Changes that mend something else.
fn mended(steps: &[Step]) -> usize {
    steps
        .iter()
        .filter(|step| step.mends)
        .map(|step| step.changes.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::change::Sysctl;
    use crate::model::Tunables;

    fn bears(ports: u32, rate: f64) -> Bearing {
        Bearing {
            ports,
            fast_ports: ports / 2,
            rate: Limit::At(rate),
            rate_without_reuse: Limit::At(f64::from(ports) / 60.0),
            reuse: Some(true),
            drops: false,
        }
    }

    fn step(sysctl: Sysctl, mends: bool, after: Bearing) -> Step {
        Step {
            changes: vec![Change {
                sysctl,
                current: String::new(),
                recommended: "1".into(),
                why: String::new(),
                risk: String::new(),
            }],
            mends,
            before: None,
            after: Some(after),
            alone: Tunables::default(),
            together: Tunables::default(),
        }
    }

    fn goal(rate: impl Into<Option<f64>>, connections: impl Into<Option<u64>>) -> Goal {
        Goal {
            rate: rate.into(),
            connections: connections.into(),
            busy: Some(Duration::from_millis(20)),
        }
    }

    /// 28,232 ports, reuse, then 55,296 ports.
    fn stock() -> (Bearing, [Step; 2]) {
        let now = Bearing {
            reuse: Some(false),
            ..bears(28_232, 470.5)
        };
        let steps = [
            step(Sysctl::TcpTwReuse, false, bears(28_232, 28_232.0)),
            step(Sysctl::IpLocalPortRange, false, bears(55_296, 55_296.0)),
        ];
        (now, steps)
    }

    #[test]
    fn the_first_changes_that_suffice_are_named_and_else_addresses() {
        let (now, steps) = stock();
        for (goal, needed, addresses, after, pool) in [
            (goal(470.5, None), Some(0), 1, 1, Some(10)),
            (goal(470.6, None), Some(1), 2, 1, Some(10)),
            (goal(28_232.0, None), Some(1), 61, 1, Some(565)),
            (goal(28_233.0, None), Some(2), 61, 1, Some(565)),
            (goal(60_000.0, None), None, 128, 2, Some(1200)),
            (goal(None, 28_232), Some(0), 1, 1, None),
            (goal(None, 28_233), Some(2), 2, 1, None),
            (goal(None, 55_297), None, 2, 2, None),
            // Half of the ports and half of the rate; and a little more.
            (goal(235.25, 14_116), Some(0), 1, 1, Some(5)),
            (goal(235.35, 14_116), Some(1), 2, 1, Some(5)),
            (goal(20_000.0, 28_232), Some(2), 44, 1, Some(400)),
        ] {
            let needs = needs(goal, Some(now), None, &steps);
            assert_eq!(
                (
                    needs.changes_needed,
                    needs.addresses_now,
                    needs.addresses_after,
                    needs.pool_connections
                ),
                (needed, Some(addresses), Some(after), pool),
                "{goal:?}"
            );
        }
    }

    #[test]
    fn what_mends_something_else_comes_first_and_is_not_what_suffices() {
        let (now, [reuse, range]) = stock();
        let steps = [step(Sysctl::IpLocalReservedPorts, true, now), reuse, range];
        let needs = needs(goal(1000.0, None), Some(now), None, &steps);
        assert_eq!(needs.changes_needed, Some(2));
        assert_eq!(
            needs.sentences[..2],
            [
                "Settings: net.ipv4.tcp_tw_reuse = 1 suffices: at most 28,232 connections/s \
                 instead of at most 470.5 connections/s.",
                "That is where the other end has TCP timestamps. Where it has not, nothing is \
                 reused: at most 921.6 connections/s, so 2 addresses or a pool."
            ]
        );
    }

    #[test]
    fn open_connections_are_told_how_wide_a_range_they_take() {
        let taken = PortSet::parse("61000-61999").unwrap();
        let room = Room {
            wanted: Some(30_000),
            range: PortRange {
                low: 32768,
                high: 60999,
            },
            taken: &taken,
            lowest: 1024,
        };
        let (now, steps) = stock();
        let needs = needs(goal(None, 30_000), Some(now), Some(room), &steps);
        assert_eq!(
            needs.range_needed,
            Some(PortRange {
                low: 32768,
                high: 63767
            })
        );
        assert_eq!(
            needs.sentences[1..],
            [
                "With the settings of now that takes 30,000 ports, and there are 28,232: the \
                 narrowest range with as many is 32768 63767 (31,000 ports).",
                "connect() is cheap while at most 14,116 ports are taken, half of the range; \
                 beyond, each one searches, as it would here. A range of 4536 65535, or 3 \
                 addresses with the range of now keep it cheap.",
                "Addresses, of this machine or of the server, since each pair has ports of its \
                 own: 2 of them with the settings of now, 1 is enough with all the changes."
            ]
        );
    }

    #[test]
    fn a_range_grows_upward_then_down_and_keeps_an_even_number_of_ports() {
        let none = PortSet::default();
        let around = |low, high, wanted, lowest| {
            let found = range_for(wanted, PortRange { low, high }, &none, lowest);
            found.map(|range| (range.low, range.high))
        };
        assert_eq!(around(40000, 40999, 1000, 1024), Some((40000, 40999)));
        assert_eq!(around(40000, 40999, 1001, 1024), Some((40000, 41001)));
        assert_eq!(around(40000, 65535, 25537, 1024), Some((39998, 65535)));
        assert_eq!(around(40000, 65535, 64512, 1024), Some((1024, 65535)));
        assert_eq!(around(40000, 65535, 64513, 1024), None);
        assert_eq!(around(40000, 65535, 30000, 40000), None);
    }

    #[test]
    fn unbound_carries_anything_and_unknown_promises_nothing() {
        let (now, _) = stock();
        let unbound = Bearing {
            rate: Limit::Unbound,
            drops: true,
            ..now
        };
        let unknown = Bearing {
            rate: Limit::Unknown,
            reuse: None,
            ..now
        };
        let nothing = Bearing {
            ports: 0,
            rate: Limit::At(0.0),
            ..now
        };
        for (bearing, goal, needed, addresses) in [
            (unbound, goal(1e6, None), Some(0), Some(1)),
            (unknown, goal(1.0, None), None, None),
            (unknown, goal(None, 5), Some(0), Some(1)),
            (nothing, goal(1.0, None), None, None),
            (nothing, goal(None, 1), None, None),
        ] {
            let needs = needs(goal, Some(bearing), None, &[]);
            assert_eq!(
                (needs.changes_needed, needs.addresses_now),
                (needed, addresses),
                "{bearing:?}"
            );
        }
        assert_eq!(
            needs(goal(1e6, None), Some(unbound), None, &[]).sentences[0],
            "The settings of now suffice, but only because TIME_WAIT is dropped at \
             tcp_max_tw_buckets, and its protection with it."
        );
    }
}
