//! Changes of sysctls, in the steps in which they belong together.

use std::fmt;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::bearing::{Bearing, Limit};
use crate::model::Tunables;
use crate::words::{self, count, counted};

/// Changes that belong together: part of them can make things worse than none, unless those before
/// in the step are made first. What a destination bears is that of the whole step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// In the order in which to apply them: no line makes anything worse.
    pub changes: Vec<Change>,
    /// Whether it mends something else than the rate.
    pub mends: bool,
    /// What one destination bears before it; `None` when unknown.
    pub before: Option<Bearing>,
    /// And after it.
    pub after: Option<Bearing>,
    /// The settings of now with this step alone.
    pub alone: Tunables,
    /// The settings with this step and those before it.
    pub together: Tunables,
}

impl Step {
    /// What it is for, in a sentence.
    #[must_use]
    pub fn bears(&self) -> String {
        let together = if self.changes.len() > 1 {
            " These changes belong together, in this order."
        } else {
            ""
        };
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return format!("What it changes in numbers is not known.{together}");
        };
        if self.mends && after == before {
            return format!("The rate stays as it is.{together}");
        }
        let rate = |bearing: Bearing| match bearing.rate {
            Limit::At(limit) => format!("at most {}", words::rate(limit)),
            Limit::Unbound => "not bound by ports".into(),
            Limit::Unknown => "unknown".into(),
        };
        let ports = if after.ports == before.ports {
            String::new()
        } else {
            format!(
                "; {} instead of {}",
                counted(after.ports, "port"),
                count(before.ports)
            )
        };
        format!(
            "Connections/s to one destination: {} before, {} after{}{ports}.{together}",
            rate(before),
            rate(after),
            after.condition()
        )
    }
}

/// One recommended sysctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub sysctl: Sysctl,
    /// Its value now.
    pub current: String,
    /// The value to set.
    pub recommended: String,
    /// What it does.
    pub why: String,
    /// What can go wrong.
    pub risk: String,
}

impl Change {
    /// `net.ipv4.tcp_tw_reuse = 1`; a list of ports without the list.
    #[must_use]
    pub fn short(&self) -> String {
        match self.sysctl {
            Sysctl::IpLocalReservedPorts => format!("{} as below", self.sysctl),
            _ => format!("{} = {}", self.sysctl, self.recommended),
        }
    }
}

/// One change in the JSON.
struct InStep<'a>(usize, &'a Step, &'a Change);

impl Serialize for InStep<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(number, step, change) = self;
        let limit = |bearing: Option<Bearing>| bearing.map_or(Limit::Unknown, |it| it.rate);
        let rounded = |limit: Limit| limit.per_second().map(words::rounded);
        let (before, after) = (limit(step.before), limit(step.after));
        let without = step
            .after
            .map_or(Limit::Unknown, |it| it.rate_without_reuse);
        let mut object = serializer.serialize_struct("Change", 13)?;
        object.serialize_field("step", number)?;
        object.serialize_field("sysctl", &change.sysctl)?;
        object.serialize_field("current", &change.current)?;
        object.serialize_field("recommended", &change.recommended)?;
        object.serialize_field("max_rate_before", &rounded(before))?;
        object.serialize_field("ports_bound_rate_before", &before.is_bound())?;
        object.serialize_field("max_rate_after", &rounded(after))?;
        object.serialize_field("ports_bound_rate_after", &after.is_bound())?;
        object.serialize_field("max_rate_after_without_reuse", &rounded(without))?;
        object.serialize_field("usable_ports_after", &step.after.map(|it| it.ports))?;
        object.serialize_field("why", &change.why)?;
        object.serialize_field("risk", &change.risk)?;
        object.serialize_field("safe_in_pod", &change.sysctl.in_pod())?;
        object.end()
    }
}

/// The JSON of `steps`: a list of changes, each with the number of its step and the rates of the step.
pub(super) fn changes_of<S: Serializer>(steps: &[Step], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for (number, step) in (1..).zip(steps) {
        for change in &step.changes {
            list.serialize_element(&InStep(number, step, change))?;
        }
    }
    list.end()
}

/// The sysctls that advice may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sysctl {
    /// `net.ipv4.tcp_tw_recycle`
    TcpTwRecycle,
    /// `net.ipv4.tcp_timestamps`
    TcpTimestamps,
    /// `net.ipv4.tcp_tw_reuse`
    TcpTwReuse,
    /// `net.ipv4.ip_local_reserved_ports`
    IpLocalReservedPorts,
    /// `net.ipv4.ip_local_port_range`
    IpLocalPortRange,
    /// `net.ipv4.tcp_max_tw_buckets`
    TcpMaxTwBuckets,
}

/// What Kubernetes asks of a pod that sets a sysctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPod {
    /// Nothing, from this version on; from the first that had safe sysctls where none is named.
    Safe {
        /// The version.
        since: Option<&'static str>,
    },
    /// That the kubelet of its node allows it (`--allowed-unsafe-sysctls`).
    Unsafe,
}

/// `true` or `false`, or the version from which on it is true, as `"1.27"`.
impl Serialize for InPod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Safe {
                since: Some(version),
            } => serializer.serialize_str(version),
            other => serializer.serialize_bool(*other != Self::Unsafe),
        }
    }
}

impl Sysctl {
    /// Whether a pod may set it: the list in "Using sysctls in a Kubernetes Cluster"
    /// (kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster), as of Kubernetes 1.32.
    #[must_use]
    pub fn in_pod(self) -> InPod {
        match self {
            Self::IpLocalPortRange => InPod::Safe { since: None },
            Self::IpLocalReservedPorts => InPod::Safe {
                since: Some("1.27"),
            },
            Self::TcpTwRecycle | Self::TcpTimestamps | Self::TcpTwReuse | Self::TcpMaxTwBuckets => {
                InPod::Unsafe
            }
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcpTwRecycle => "net.ipv4.tcp_tw_recycle",
            Self::TcpTimestamps => "net.ipv4.tcp_timestamps",
            Self::TcpTwReuse => "net.ipv4.tcp_tw_reuse",
            Self::IpLocalReservedPorts => "net.ipv4.ip_local_reserved_ports",
            Self::IpLocalPortRange => "net.ipv4.ip_local_port_range",
            Self::TcpMaxTwBuckets => "net.ipv4.tcp_max_tw_buckets",
        })
    }
}

impl Serialize for Sysctl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
