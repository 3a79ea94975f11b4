//! What it takes to carry a rate that somebody wants.

use std::time::Duration;

use serde::Serialize;

use super::advice::Change;
use super::capacity::{rounded_rate, rounded_rate_of};
use crate::words::{at_most, count, counted, rate, time};

/// The rate somebody wants, toward one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Connections per second; above 0.
    pub rate: f64,
    /// How long each connection is used; unknown where it is `None`.
    pub busy: Option<Duration>,
}

/// What it takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Needs {
    /// Connections per second wanted.
    #[serde(serialize_with = "rounded_rate_of")]
    pub rate: f64,
    /// Toward this destination, as it was typed; none in particular, on another machine, where it is
    /// `None`.
    pub destination: Option<String>,
    /// What one destination bears now; `None` where ports do not bound it, or it is unknown.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_now: Option<f64>,
    /// And after all the changes; `None` likewise.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate_after: Option<f64>,
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

/// Compares `goal` with what the machine bears: `now`, and step by step with the `changes`.
#[must_use]
pub fn needs(goal: Goal, now: Option<f64>, is_known: bool, changes: &[Change]) -> Needs {
    // Without a bound any rate is carried, but only where the bound is known not to be there.
    let carries = |limit: Option<f64>| is_known && limit.is_none_or(|limit| goal.rate <= limit);
    let steps: Vec<_> = [now]
        .into_iter()
        .chain(changes.iter().map(|change| change.max_rate_after))
        .collect();
    let after = steps.last().copied().flatten();
    let changes_needed = steps.iter().position(|&limit| carries(limit));
    let addresses = |limit: Option<f64>| match limit {
        Some(limit) if limit > 0.0 => Some(whole(goal.rate / limit)),
        Some(_) => None,
        None => is_known.then_some(1),
    };
    let mut needs = Needs {
        rate: goal.rate,
        destination: None,
        max_rate_now: now,
        max_rate_after: after,
        changes_needed,
        addresses_now: addresses(now),
        addresses_after: addresses(after),
        pool_connections: goal.busy.map(|busy| whole(goal.rate * busy.as_secs_f64())),
        sentences: Vec::new(),
    };
    needs.sentences = if is_known {
        needs.sentences(goal, changes)
    } else {
        vec![
            "What this machine bears is not known: a setting that decides it could not be read."
                .into(),
        ]
    };
    needs
}

/// The next whole number, at least 1.
fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped.
    let whole = number.ceil().clamp(1.0, 1e15) as u64;
    whole
}

impl Needs {
    fn sentences(&self, goal: Goal, changes: &[Change]) -> Vec<String> {
        let settings = match self.changes_needed {
            Some(0) => format!(
                "The settings of now suffice: {}.",
                at_most(self.max_rate_now)
            ),
            Some(number) => {
                let names: Vec<_> = changes[..number]
                    .iter()
                    .map(|change| format!("{} = {}", change.sysctl, change.recommended))
                    .collect();
                format!(
                    "Settings: {} {}: {} instead of {}.",
                    names.join(" and "),
                    if number == 1 { "suffices" } else { "suffice" },
                    at_most(changes[number - 1].max_rate_after),
                    self.max_rate_now.map_or_else(|| "any".into(), rate)
                )
            }
            None => format!(
                "Settings alone do not suffice: {} with all the changes, {} now.",
                at_most(self.max_rate_after),
                self.max_rate_now.map_or_else(|| "any".into(), rate)
            ),
        };
        let each = |number: Option<u64>| {
            number.map_or_else(
                || "no number of them".into(),
                |number| match number {
                    1 => "1 is enough".to_owned(),
                    several => format!("{} of them", count(several)),
                },
            )
        };
        let mut sentences = vec![settings];
        if self.changes_needed != Some(0) {
            sentences.push(format!(
                "Addresses, of this machine or of the server, since each pair has ports of its own: \
                 {} with the settings of now{}.",
                each(self.addresses_now),
                if changes.is_empty() {
                    String::new()
                } else {
                    format!(", {} with all the changes", each(self.addresses_after))
                }
            ));
        }
        sentences.push(match (goal.busy, self.pool_connections) {
            (Some(busy), Some(connections)) => format!(
                "A pool: {}, if each request uses one for {} (rate × time), and no TIME_WAIT.",
                counted(connections, "connection"),
                time(busy)
            ),
            _ => "A pool: rate × time that a request uses a connection; --busy 20ms puts a number \
                  on it."
                .into(),
        });
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::advice::Sysctl;
    use crate::model::Tunables;

    fn change(sysctl: Sysctl, before: f64, after: f64) -> Change {
        Change {
            sysctl,
            current: None,
            recommended: "1".into(),
            max_rate_before: Some(before),
            max_rate_after: Some(after),
            why: String::new(),
            risk: String::new(),
            alone: Tunables::default(),
            together: Tunables::default(),
        }
    }

    fn goal(rate: f64) -> Goal {
        Goal {
            rate,
            busy: Some(Duration::from_millis(20)),
        }
    }

    #[test]
    fn the_first_changes_that_suffice_are_named_and_else_addresses() {
        let changes = [
            change(Sysctl::TcpTwReuse, 470.5, 28_232.0),
            change(Sysctl::IpLocalPortRange, 28_232.0, 55_296.0),
        ];
        for (rate, needed, now, after, pool) in [
            (470.5, Some(0), 1, 1, 10),
            (470.6, Some(1), 2, 1, 10),
            (28_232.0, Some(1), 61, 1, 565),
            (28_233.0, Some(2), 61, 1, 565),
            (60_000.0, None, 128, 2, 1200),
        ] {
            let needs = needs(goal(rate), Some(470.5), true, &changes);
            assert_eq!(
                (
                    needs.changes_needed,
                    needs.addresses_now,
                    needs.addresses_after,
                    needs.pool_connections
                ),
                (needed, Some(now), Some(after), Some(pool)),
                "{rate}"
            );
        }
    }

    #[test]
    fn unbound_carries_anything_and_unknown_promises_nothing() {
        let unbound = needs(goal(1e6), None, true, &[]);
        assert_eq!(
            (unbound.changes_needed, unbound.addresses_now),
            (Some(0), Some(1))
        );
        let unknown = needs(goal(1.0), None, false, &[]);
        assert_eq!(
            (unknown.changes_needed, unknown.addresses_now),
            (None, None)
        );
        let without_ports = needs(goal(1.0), Some(0.0), true, &[]);
        assert_eq!(
            (without_ports.changes_needed, without_ports.addresses_now),
            (None, None)
        );
    }
}
