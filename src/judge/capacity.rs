//! How many connections a second one flow can carry.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::model::{LooseEnd, PortSet, Snapshot, Tunables};
use crate::words;

/// The ports of this machine, and the rate they bear toward one destination.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Capacity {
    /// Ports in `ip_local_port_range`.
    pub range_ports: u32,
    /// Of these, the ones in `ip_local_reserved_ports`.
    pub reserved_ports: u32,
    /// Of the rest, the ones somebody bound explicitly: listeners and others.
    pub bound_ports: Bound,
    /// Of the rest, the one end of an odd range that no search can be counted on to reach
    /// ([`LooseEnd`]).
    pub unreached_ports: u32,
    /// What remains: the ports one flow can take at most.
    pub usable_ports: u32,
    /// The usable ports that connect() finds without a search.
    pub fast_ports: u32,
    /// How long TIME_WAIT keeps a port.
    pub time_wait_seconds: u64,
    /// The highest rate that a flow to another machine can keep up with the settings of now, where
    /// its TIME_WAIT is not reused; `None` where ports do not bound it
    /// ([`Self::time_wait_dropped`]).
    #[serde(serialize_with = "rounded_rate")]
    pub max_connections_per_second: Option<f64>,
    /// The same where TIME_WAIT is reused, because the other end has timestamps; `None` likewise,
    /// and where the settings here forbid it.
    #[serde(serialize_with = "rounded_rate")]
    pub max_connections_per_second_with_reuse: Option<f64>,
    /// The highest rate at which connect() stays cheap without reuse; `None` where ports do not
    /// bound it.
    #[serde(serialize_with = "rounded_rate")]
    pub fast_connections_per_second: Option<f64>,
    /// Whether `tcp_max_tw_buckets` is below the usable ports: TIME_WAIT beyond it is dropped at
    /// once, so that ports do not bound the rate and TIME_WAIT does not protect. `None` when the
    /// limit is unknown; then the rates are those without it.
    pub time_wait_dropped: Option<bool>,
    /// Which end that is.
    #[serde(skip)]
    pub loose_end: Option<LooseEnd>,
    #[serde(skip)]
    hold_time: Duration,
    #[serde(skip)]
    reuse_delay: Duration,
}

/// A number of bound ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This many.
    Exactly(u32),
    /// This many that listen; the others are unknown.
    AtLeast(u32),
}

impl Bound {
    /// Those that are known.
    #[must_use]
    pub fn known(self) -> u32 {
        match self {
            Self::Exactly(number) | Self::AtLeast(number) => number,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{} bound", words::count(*number)),
            Self::AtLeast(0) => f.write_str("none known to be bound"),
            Self::AtLeast(number) => write!(f, "at least {} bound", words::count(*number)),
        }
    }
}

/// Unknown is null.
impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exactly(number) => serializer.serialize_u32(*number),
            Self::AtLeast(_) => serializer.serialize_none(),
        }
    }
}

impl Capacity {
    /// The capacity of a machine as one look tells it; `None` when the range or its reserved ports
    /// are unknown.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        Self::with(snapshot, &snapshot.skipped())
    }

    /// The same where these ports are `held`.
    #[must_use]
    pub fn with(snapshot: &Snapshot, held: &PortSet) -> Option<Self> {
        let all = Self::new(&snapshot.tunables, held, snapshot.hold_time)?;
        Some(match snapshot.bound.unseen {
            None => all,
            Some(_) => Self {
                bound_ports: Bound::AtLeast(all.bound_ports.known()),
                ..all
            },
        })
    }

    /// The capacity under `tunables` where `held` ports are bound explicitly and TIME_WAIT lasts
    /// `hold_time`; `None` when the range or its reserved ports are unknown.
    #[must_use]
    pub fn new(tunables: &Tunables, held: &PortSet, hold_time: Duration) -> Option<Self> {
        let range = tunables.ip_local_port_range?;
        let reserved = tunables.ip_local_reserved_ports.as_ref()?;
        let unreserved = range.ports().collect::<PortSet>().without(reserved);
        let usable = unreserved.without(held);
        let mut fast_ports = usable.of_parity(range.low);
        let mut usable_ports = usable.len();
        let loose_end = LooseEnd::of(range, |port| usable.contains(port));
        // Both ends are of the low end's parity.
        let unreached_ports = u32::from(loose_end.is_some());
        usable_ports -= unreached_ports;
        fast_ports -= unreached_ports;
        let mut capacity = Self {
            range_ports: range.len(),
            reserved_ports: range.len() - unreserved.len(),
            bound_ports: Bound::Exactly(unreserved.len() - usable.len()),
            unreached_ports,
            usable_ports,
            fast_ports,
            time_wait_seconds: hold_time.as_secs(),
            max_connections_per_second: None,
            max_connections_per_second_with_reuse: None,
            fast_connections_per_second: None,
            time_wait_dropped: tunables
                .tcp_max_tw_buckets
                .map(|limit| limit < u64::from(usable_ports)),
            loose_end,
            hold_time,
            reuse_delay: tunables.reuse_delay(),
        };
        capacity.max_connections_per_second = capacity.max_rate(false);
        capacity.fast_connections_per_second = capacity.fast_rate(false);
        capacity.max_connections_per_second_with_reuse = match tunables.reuse_allowed(false) {
            Some(false) => None,
            Some(true) | None => capacity.max_rate(true),
        };
        Some(capacity)
    }

    /// The highest rate of a flow to another machine that has timestamps; `None` where ports do not
    /// bound it.
    #[must_use]
    pub fn max_rate_at_best(&self) -> Option<f64> {
        self.max_connections_per_second_with_reuse
            .or(self.max_connections_per_second)
    }

    /// The highest rate a flow can keep up; `None` where ports do not bound it.
    #[must_use]
    pub fn max_rate(&self, reuse_works: bool) -> Option<f64> {
        self.per_second(self.usable_ports, reuse_works)
    }

    /// The highest rate at which connect() stays cheap on a flow; `None` likewise.
    #[must_use]
    pub fn fast_rate(&self, reuse_works: bool) -> Option<f64> {
        self.per_second(self.fast_ports, reuse_works)
    }

    /// How often `ports` can be taken in a second, each being held for its time.
    fn per_second(&self, ports: u32, reuse_works: bool) -> Option<f64> {
        let held = if reuse_works {
            self.reuse_delay
        } else {
            self.hold_time
        };
        let bound = !self.buckets_bound() && !held.is_zero();
        bound.then(|| f64::from(ports) / held.as_secs_f64())
    }

    /// Whether it is known that `tcp_max_tw_buckets` is below the usable ports: see
    /// [`Self::time_wait_dropped`].
    #[must_use]
    pub fn buckets_bound(&self) -> bool {
        self.time_wait_dropped == Some(true)
    }
}

#[expect(clippy::ref_option)] // The signature serde asks for.
pub(super) fn rounded_rate<S: Serializer>(
    rate: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    rate.map(words::rounded).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref)] // The signature serde asks for.
pub(super) fn rounded_rate_of<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(words::rounded(*rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortRange, TimeWaitReuse};

    fn stock() -> Tunables {
        Tunables {
            ip_local_port_range: PortRange::parse("32768 60999"),
            ip_local_reserved_ports: PortSet::parse(""),
            tcp_tw_reuse: Some(TimeWaitReuse::LoopbackOnly),
            tcp_timestamps: Some(1),
            tcp_max_tw_buckets: Some(131_072),
            ..Tunables::default()
        }
    }

    fn rounded(rate: Option<f64>) -> Option<f64> {
        rate.map(words::rounded)
    }

    fn capacity(tunables: &Tunables, held: &[u16]) -> Option<Capacity> {
        let held = held.iter().copied().collect();
        Capacity::new(tunables, &held, tunables.told_hold_time())
    }

    #[test]
    fn a_stock_machine_bears_470_a_second_and_235_cheaply() {
        let capacity = capacity(&stock(), &[3306]).unwrap();
        assert_eq!(
            (
                capacity.usable_ports,
                capacity.fast_ports,
                capacity.bound_ports.known()
            ),
            (28232, 14116, 0)
        );
        assert_eq!(rounded(capacity.max_rate(false)), Some(470.5));
        assert_eq!(rounded(capacity.fast_connections_per_second), Some(235.3));
        assert_eq!(capacity.max_rate(true), Some(28232.0));
    }

    #[test]
    fn a_port_both_reserved_and_bound_counts_once() {
        let tunables = Tunables {
            ip_local_port_range: PortRange::parse("40000 40999"),
            ip_local_reserved_ports: PortSet::parse("40000-40099,8080"),
            ..stock()
        };
        let capacity = capacity(&tunables, &[40050, 40101, 40103, 22]).unwrap();
        assert_eq!(
            (
                capacity.range_ports,
                capacity.reserved_ports,
                capacity.bound_ports.known(),
                capacity.usable_ports,
                capacity.fast_ports
            ),
            (1000, 100, 2, 898, 450)
        );
    }

    #[test]
    fn a_small_bucket_limit_unbinds_the_rate_exactly_below_the_usable_ports() {
        let at = |limit| {
            let tunables = Tunables {
                tcp_max_tw_buckets: Some(limit),
                ..stock()
            };
            capacity(&tunables, &[]).unwrap()
        };
        assert_eq!(
            (at(28231).buckets_bound(), at(28231).max_rate(true)),
            (true, None)
        );
        assert!(!at(28232).buckets_bound());
    }

    #[test]
    fn the_vendor_hold_time_and_the_reuse_delay_are_honoured() {
        let tunables = Tunables {
            ip_local_port_range: PortRange::parse("40000 40999"),
            tcp_tw_timeout_s: Some(5),
            tcp_tw_reuse_delay_ms: Some(250),
            ..stock()
        };
        let capacity = capacity(&tunables, &[]).unwrap();
        assert_eq!(capacity.max_rate(false), Some(200.0));
        assert_eq!(capacity.max_rate(true), Some(4000.0));
    }

    #[test]
    fn an_unknown_range_has_no_capacity_and_a_full_reservation_has_none_left() {
        assert_eq!(capacity(&Tunables::default(), &[]), None);
        let unknown = Tunables {
            ip_local_reserved_ports: None,
            ..stock()
        };
        assert_eq!(capacity(&unknown, &[]), None);
        let tunables = Tunables {
            ip_local_reserved_ports: PortSet::parse("32768-60999"),
            ..stock()
        };
        let capacity = capacity(&tunables, &[]).unwrap();
        assert_eq!(
            (capacity.usable_ports, capacity.max_rate(false)),
            (0, Some(0.0))
        );
    }
}
