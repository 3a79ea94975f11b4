use serde::{Deserialize, Serialize};

/// Whether a port in TIME_WAIT is given out again for its flow: a fact about the flow, because the
/// settings of this end only allow it, and it happens only where the other end sends TCP timestamps
/// too (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// The settings here forbid it.
    Off,
    /// The settings allow it, yet old TIME_WAIT blocks, or the other end has no timestamps.
    Refuted,
    /// A setting that decides is unknown.
    Unknown,
    /// The settings allow it; nothing tells whether the other end has timestamps.
    Allowed,
    /// It works: the other end has timestamps.
    Seen,
}

impl Reuse {
    /// Whether it can be counted on.
    #[must_use]
    pub fn works(self) -> bool {
        self == Self::Seen
    }

    /// Whether it may work: then two numbers are true, one with it and one without.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Allowed | Self::Unknown)
    }

    /// The answer for those who ask for yes or no; `None` where it is open.
    #[must_use]
    pub fn applies(self) -> Option<bool> {
        match self {
            Self::Off | Self::Refuted => Some(false),
            Self::Seen => Some(true),
            Self::Allowed | Self::Unknown => None,
        }
    }
}

/// Live sockets of a flow by whether the other end agreed to TCP timestamps
/// (`TCPI_OPT_TIMESTAMPS` of `tcpi_options`, include/uapi/linux/tcp.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamps {
    /// With them.
    pub with: u32,
    /// Without.
    pub without: u32,
}

/// What the kernel answered when it was asked for ports of a flow as connect() asks, without a
/// packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Whether it has one for another connection; `None` where that was not told.
    pub has_port: Option<bool>,
    /// Ports in TIME_WAIT for longer than the reuse delay that it gave.
    pub reused: u32,
    /// Such ports that it did not give.
    pub refused: u32,
}
