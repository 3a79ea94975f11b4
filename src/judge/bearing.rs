//! What one destination bears under given settings.

use std::fmt;
use std::time::Duration;

use super::Capacity;
use crate::model::{PortSet, Tunables};
use crate::words;

/// The highest rate of connections toward one destination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// A setting that decides it could not be read.
    Unknown,
    /// Ports do not bound it, which is known.
    Unbound,
    /// So many connections per second.
    At(f64),
}

impl Limit {
    /// The number, where there is one.
    #[must_use]
    pub fn per_second(self) -> Option<f64> {
        match self {
            Self::At(limit) => Some(limit),
            Self::Unknown | Self::Unbound => None,
        }
    }

    /// Whether ports bound it; `None` when unknown.
    #[must_use]
    pub fn is_bound(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Unbound => Some(false),
            Self::At(_) => Some(true),
        }
    }
}

/// In a sentence: `at most 470.5 connections/s`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("an unknown number of connections/s"),
            Self::Unbound => f.write_str("any number of connections/s"),
            Self::At(limit) => write!(f, "at most {} connections/s", words::rate(*limit)),
        }
    }
}

/// What one destination bears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bearing {
    /// Ports it can take at most.
    pub ports: u32,
    /// Of these, the ones that connect() finds without a search.
    pub fast_ports: u32,
    /// The highest rate, as the settings have it.
    pub rate: Limit,
    /// The highest rate where the other end has no TCP timestamps, so that nothing is reused.
    pub rate_without_reuse: Limit,
    /// Whether TIME_WAIT is reused as the settings have it; `None` when unknown.
    pub reuse: Option<bool>,
    /// Whether `tcp_max_tw_buckets` is below the ports: TIME_WAIT beyond it is dropped.
    pub drops: bool,
}

impl Bearing {
    /// Under `tunables`, where `held` ports are bound and the `other_end` has TCP timestamps, or has
    /// none, as far as that is known; `None` when the range or its reserved ports
    /// are unknown.
    #[must_use]
    pub fn new(
        tunables: &Tunables,
        held: &PortSet,
        hold_time: Duration,
        loopback: bool,
        other_end: Option<bool>,
    ) -> Option<Self> {
        let capacity = Capacity::new(tunables, held, hold_time)?;
        let reuse = match (tunables.reuse_allowed(loopback), other_end) {
            (Some(true), Some(false)) => Some(false),
            (allowed, _) => allowed,
        };
        // On loopback this machine is the other end too.
        let is_certain = loopback || other_end == Some(true);
        let limit = |reuse| match (tunables.tcp_max_tw_buckets, capacity.max_rate(reuse)) {
            // No port bears no connection, whatever becomes of TIME_WAIT.
            _ if capacity.usable_ports == 0 => Limit::At(0.0),
            (None, _) => Limit::Unknown,
            (Some(_), None) => Limit::Unbound,
            (Some(_), Some(limit)) => Limit::At(limit),
        };
        Some(Self {
            ports: capacity.usable_ports,
            fast_ports: capacity.fast_ports,
            rate: reuse.map_or(Limit::Unknown, limit),
            rate_without_reuse: limit(is_certain && reuse == Some(true)),
            reuse,
            drops: capacity.buckets_bound(),
        })
    }

    /// The rate toward `whom` as a person needs it: with the one that holds where the other end
    /// lacks timestamps, where that makes a difference.
    #[must_use]
    pub fn toward(&self, whom: &str) -> String {
        format!("{} to {whom}{}", self.rate, self.condition())
    }

    /// On what the rate hangs; empty where on nothing.
    #[must_use]
    pub fn condition(&self) -> String {
        match (self.reuse, self.rate, self.rate_without_reuse) {
            (Some(true), Limit::At(with), Limit::At(without)) if with > without => format!(
                " where the other end has TCP timestamps, {} where it has not",
                words::rate(without)
            ),
            _ => String::new(),
        }
    }
}
