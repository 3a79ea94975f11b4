use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{PortRange, PortSet};

/// How long TIME_WAIT lasts: `TCP_TIMEWAIT_LEN`, compiled in (include/net/tcp.h). Only a few vendor
/// kernels can change it, by `net.ipv4.tcp_tw_timeout`.
pub const HOLD_TIME: Duration = Duration::from_secs(60);

/// How old a TIME_WAIT must be before it can be reused, on kernels without
/// `net.ipv4.tcp_tw_reuse_delay` (before 6.14): the constant it replaced.
pub const REUSE_DELAY: Duration = Duration::from_secs(1);

/// `net.ipv4.tcp_tw_reuse` (Documentation/networking/ip-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TimeWaitReuse {
    /// 0: a port in TIME_WAIT is never given out again for the same flow.
    Off = 0,
    /// 1: it is, once old enough, where TCP timestamps are on.
    On = 1,
    /// 2, the kernel's default since 4.19: only for loopback flows.
    LoopbackOnly = 2,
}

impl TimeWaitReuse {
    /// The setting with this number; `None` for a number the kernel does not define.
    #[must_use]
    pub fn from_kernel(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Off),
            1 => Some(Self::On),
            2 => Some(Self::LoopbackOnly),
            _ => None,
        }
    }
}

impl Serialize for TimeWaitReuse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// The sysctls that decide how many connections a second a flow can carry. A field is `None` when
/// the kernel does not have the file or it could not be read; the latter is recorded as a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tunables {
    /// `net.ipv4.ip_local_port_range`.
    pub ip_local_port_range: Option<PortRange>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub ip_local_reserved_ports: Option<PortSet>,
    /// `net.ipv4.ip_unprivileged_port_start`: the kernel refuses a range that begins below it; absent
    /// before 4.11. No part of a report: it decides about advice only.
    #[serde(skip)]
    pub ip_unprivileged_port_start: Option<u64>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub tcp_tw_reuse: Option<TimeWaitReuse>,
    /// `net.ipv4.tcp_tw_reuse_delay` in milliseconds; absent before 6.14.
    pub tcp_tw_reuse_delay_ms: Option<u64>,
    /// `net.ipv4.tcp_timestamps`: 0 off, 1 on with random offsets, 2 on without.
    pub tcp_timestamps: Option<u64>,
    /// `net.ipv4.tcp_max_tw_buckets`: TIME_WAIT sockets the namespace keeps at most.
    pub tcp_max_tw_buckets: Option<u64>,
    /// `net.ipv4.tcp_fin_timeout` in seconds: limits FIN_WAIT2, never TIME_WAIT.
    pub tcp_fin_timeout_s: Option<u64>,
    /// `net.ipv4.tcp_tw_recycle`: removed in 4.12, so absent on any current kernel.
    pub tcp_tw_recycle: Option<u64>,
    /// `net.ipv4.tcp_tw_timeout` in seconds: vendor kernels only (Alibaba Cloud Linux).
    pub tcp_tw_timeout_s: Option<u64>,
}

impl Tunables {
    /// How long TIME_WAIT lasts by these settings; where a timer runs longer, that counts instead:
    /// see [`Snapshot::hold_time`](super::Snapshot).
    #[must_use]
    pub fn told_hold_time(&self) -> Duration {
        self.tcp_tw_timeout_s.map_or(HOLD_TIME, Duration::from_secs)
    }

    /// The age from which a TIME_WAIT can be reused, where reuse applies.
    #[must_use]
    pub fn reuse_delay(&self) -> Duration {
        self.tcp_tw_reuse_delay_ms
            .map_or(REUSE_DELAY, Duration::from_millis)
    }

    /// Whether the settings of this end allow TIME_WAIT reuse on flows of this kind; `None` when a
    /// sysctl that decides it is unknown. Whether it works is another matter: the other end must
    /// have timestamps too.
    #[must_use]
    pub fn reuse_allowed(&self, loopback: bool) -> Option<bool> {
        if self.tcp_timestamps == Some(0) {
            return Some(false);
        }
        let allowed = match self.tcp_tw_reuse? {
            TimeWaitReuse::Off => false,
            TimeWaitReuse::On => true,
            TimeWaitReuse::LoopbackOnly => loopback,
        };
        if allowed {
            self.tcp_timestamps.map(|_| true)
        } else {
            Some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TimeWaitReuse::{LoopbackOnly, Off, On};
    use super::*;

    #[test]
    fn reuse_needs_the_setting_and_timestamps_and_asks_for_loopback_only_under_2() {
        let tunables = |reuse, timestamps| Tunables {
            tcp_tw_reuse: reuse,
            tcp_timestamps: timestamps,
            ..Tunables::default()
        };
        for (reuse, timestamps, loopback, applies) in [
            (Some(Off), Some(1), true, Some(false)),
            (Some(On), Some(1), false, Some(true)),
            (Some(On), Some(2), false, Some(true)),
            (Some(On), Some(0), false, Some(false)),
            (Some(LoopbackOnly), Some(1), false, Some(false)),
            (Some(LoopbackOnly), Some(1), true, Some(true)),
            (Some(LoopbackOnly), None, false, Some(false)),
            (Some(On), None, false, None),
            (None, Some(1), true, None),
            (None, Some(0), true, Some(false)),
        ] {
            assert_eq!(
                tunables(reuse, timestamps).reuse_allowed(loopback),
                applies,
                "{reuse:?} {timestamps:?} loopback {loopback}"
            );
        }
    }
}
