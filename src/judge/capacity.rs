//! How many connections a second one flow can carry.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::model::{Flow, PortSet, Tunables};
use crate::words;

/// The ports of this machine, and the rate they bear toward one destination.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Capacity {
    /// Ports in `ip_local_port_range`.
    pub range_ports: u32,
    /// Of these, the ones in `ip_local_reserved_ports`.
    pub reserved_ports: u32,
    /// Of the rest, the ones somebody bound explicitly: listeners and others.
    pub bound_ports: u32,
    /// What remains: the ports one flow can take at most.
    pub usable_ports: u32,
    /// The usable ports that connect() finds without a search.
    pub fast_ports: u32,
    /// How long TIME_WAIT keeps a port.
    pub time_wait_seconds: u64,
    /// The highest rate that a flow without TIME_WAIT reuse can keep up; `None` where
    /// `tcp_max_tw_buckets` frees TIME_WAIT earlier, so that ports do not bound the rate.
    #[serde(serialize_with = "tenths")]
    pub max_connections_per_second: Option<f64>,
    /// The highest rate at which connect() stays cheap; `None` likewise.
    #[serde(serialize_with = "tenths")]
    pub fast_connections_per_second: Option<f64>,
    #[serde(skip)]
    reuse_delay: Duration,
    #[serde(skip)]
    buckets_bound: bool,
}

impl Capacity {
    /// The capacity under `tunables` where `held` ports are bound explicitly; `None` when the range
    /// is unknown. Reserved ports that are unknown count as none: that is a gap by then.
    #[must_use]
    pub fn new(tunables: &Tunables, held: &PortSet) -> Option<Self> {
        let range = tunables.ip_local_port_range?;
        let none = PortSet::default();
        let reserved = tunables.ip_local_reserved_ports.as_ref().unwrap_or(&none);
        let (mut reserved_ports, mut bound_ports, mut usable_ports, mut fast_ports) = (0, 0, 0, 0);
        for port in range.ports() {
            if reserved.contains(port) {
                reserved_ports += 1;
            } else if held.contains(port) {
                bound_ports += 1;
            } else {
                usable_ports += 1;
                fast_ports += u32::from(range.is_fast(port));
            }
        }
        let buckets_bound = tunables
            .tcp_max_tw_buckets
            .is_some_and(|limit| limit < u64::from(usable_ports));
        let per_second = |ports: u32| {
            (!buckets_bound).then(|| f64::from(ports) / tunables.hold_time().as_secs_f64())
        };
        Some(Self {
            range_ports: range.len(),
            reserved_ports,
            bound_ports,
            usable_ports,
            fast_ports,
            time_wait_seconds: tunables.hold_time().as_secs(),
            max_connections_per_second: per_second(usable_ports),
            fast_connections_per_second: per_second(fast_ports),
            reuse_delay: tunables.reuse_delay(),
            buckets_bound,
        })
    }

    /// The highest rate a flow can keep up; `None` where ports do not bound it.
    #[must_use]
    pub fn max_rate(&self, reuse_applies: bool) -> Option<f64> {
        if self.buckets_bound || !reuse_applies {
            return self.max_connections_per_second;
        }
        let delay = self.reuse_delay.as_secs_f64();
        (delay > 0.0).then(|| f64::from(self.usable_ports) / delay)
    }

    /// The highest rate `flow` can keep up under `tunables`.
    #[must_use]
    pub fn max_rate_of(&self, flow: &Flow, tunables: &Tunables) -> Option<f64> {
        self.max_rate(tunables.reuse_applies_to(flow))
    }

    /// Whether `tcp_max_tw_buckets` is below the usable ports: TIME_WAIT beyond it is dropped at
    /// once, so ports do not bound the rate and TIME_WAIT does not protect.
    #[must_use]
    pub fn buckets_bound(&self) -> bool {
        self.buckets_bound
    }
}

/// Serialises a rate with one decimal.
///
/// # Errors
/// As the serializer.
#[expect(clippy::ref_option)] // The signature serde asks for.
pub(crate) fn tenths<S: Serializer>(rate: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    rate.map(words::tenths).serialize(serializer)
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
        rate.map(words::tenths)
    }

    #[test]
    fn a_stock_machine_bears_470_a_second_and_235_cheaply() {
        let capacity = Capacity::new(&stock(), &[3306].into_iter().collect()).unwrap();
        assert_eq!(
            (
                capacity.usable_ports,
                capacity.fast_ports,
                capacity.bound_ports
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
        let held = [40050, 40101, 40103, 22].into_iter().collect();
        let capacity = Capacity::new(&tunables, &held).unwrap();
        assert_eq!(
            (
                capacity.range_ports,
                capacity.reserved_ports,
                capacity.bound_ports,
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
            Capacity::new(&tunables, &PortSet::default()).unwrap()
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
        let capacity = Capacity::new(&tunables, &PortSet::default()).unwrap();
        assert_eq!(capacity.max_rate(false), Some(200.0));
        assert_eq!(capacity.max_rate(true), Some(4000.0));
    }

    #[test]
    fn an_unknown_range_has_no_capacity_and_a_full_reservation_has_none_left() {
        assert_eq!(
            Capacity::new(&Tunables::default(), &PortSet::default()),
            None
        );
        let tunables = Tunables {
            ip_local_reserved_ports: PortSet::parse("32768-60999"),
            ..stock()
        };
        let capacity = Capacity::new(&tunables, &PortSet::default()).unwrap();
        assert_eq!(
            (capacity.usable_ports, capacity.max_rate(false)),
            (0, Some(0.0))
        );
    }
}
