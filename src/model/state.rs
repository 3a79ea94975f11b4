use serde::ser::{Serialize, SerializeMap, Serializer};

/// A TCP state, numbered as the kernel numbers it (`include/net/tcp_states.h`).
///
/// `TCP_NEW_SYN_RECV` (12), which the kernel reports as `SYN_RECV`, never reaches user space;
/// `TCP_BOUND_INACTIVE` (13) exists only as a question to `sock_diag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the kernel's; `meaning` explains each.
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

impl TcpState {
    /// All 11 states in the kernel's order.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The state with this kernel number; `None` for a number this tool does not know.
    #[must_use]
    pub fn from_kernel(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }

    /// The kernel's name without its `TCP_` prefix, which is also how netstat spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }

    /// What the state means, and what many sockets in it tell.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Established => {
                "Open and usable. Many: real load, a pool that is too large, or a leak."
            }
            Self::SynSent => {
                "connect() waits for the server's answer. Many: the server or a firewall drops \
                 packets; ends in errno 110, not 99."
            }
            Self::SynRecv => {
                "A client asked, its last handshake packet is missing. Many: lossy clients or a \
                 SYN flood."
            }
            Self::FinWait1 => {
                "Closed here, the peer has not acknowledged. Many: the peer or the path is gone."
            }
            Self::FinWait2 => {
                "Closed here and acknowledged, the peer has not closed. Many: the peer's \
                 application does not close; tcp_fin_timeout limits this state only."
            }
            Self::TimeWait => {
                "This side closed first and keeps the port pair for 60 s. Many outbound toward one \
                 destination: ports run out (errno 99). Many inbound: memory only."
            }
            Self::Close => "Not in use, about to be freed. Many: unusual.",
            Self::CloseWait => {
                "The peer closed, the application here has not. Many: a bug in the application; it \
                 leaks sockets until it closes them."
            }
            Self::LastAck => {
                "Closed after the peer, waiting for its last acknowledgement. Many: the peer is gone."
            }
            Self::Listen => "Waiting for clients. One per service and address.",
            Self::Closing => "Both sides closed at the same moment. Many: unusual.",
        }
    }
}

/// How many sockets are in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateCounts([u32; 12]);

impl StateCounts {
    /// Counts one socket.
    pub fn add(&mut self, state: TcpState) {
        self.0[state as usize] += 1;
    }

    /// Counts the sockets of `other` too.
    pub fn merge(&mut self, other: &Self) {
        for (all, more) in self.0.iter_mut().zip(&other.0) {
            *all += more;
        }
    }

    /// The number of sockets in `state`.
    #[must_use]
    pub fn get(&self, state: TcpState) -> u64 {
        self.0[state as usize].into()
    }

    /// The number of sockets in any state.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The same counts, `state` lowered by `number`.
    #[must_use]
    pub fn less(&self, state: TcpState, number: u32) -> Self {
        let mut rest = self.clone();
        rest.0[state as usize] = rest.0[state as usize].saturating_sub(number);
        rest
    }

    /// The same counts without `state`.
    #[must_use]
    pub fn without(&self, state: TcpState) -> Self {
        let mut rest = self.clone();
        rest.0[state as usize] = 0;
        rest
    }

    /// The states that occur with their counts, most frequent first, equal counts in the kernel's
    /// order.
    #[must_use]
    pub fn largest_first(&self) -> Vec<(TcpState, u64)> {
        let mut rows: Vec<_> = TcpState::ALL
            .into_iter()
            .map(|state| (state, self.get(state)))
            .filter(|&(_, count)| count > 0)
            .collect();
        rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        rows
    }
}

impl FromIterator<(TcpState, u32)> for StateCounts {
    fn from_iter<I: IntoIterator<Item = (TcpState, u32)>>(counts: I) -> Self {
        let mut all = Self::default();
        for (state, count) in counts {
            all.0[state as usize] += count;
        }
        all
    }
}

impl Serialize for StateCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.largest_first();
        let mut map = serializer.serialize_map(Some(rows.len()))?;
        for (state, count) in rows {
            map.serialize_entry(state.name(), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_numbers_round_trip_and_strangers_are_refused() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_kernel(state as u8), Some(state));
        }
        for stranger in [0, 12, 13, 255] {
            assert_eq!(TcpState::from_kernel(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn counts_come_largest_first_and_only_where_there_are_any() {
        let counts: StateCounts = [
            (TcpState::Established, 2),
            (TcpState::TimeWait, 5),
            (TcpState::SynSent, 2),
        ]
        .into_iter()
        .collect();
        assert_eq!(counts.total(), 9);
        assert_eq!(
            counts.largest_first(),
            [
                (TcpState::TimeWait, 5),
                (TcpState::Established, 2),
                (TcpState::SynSent, 2)
            ]
        );
    }
}
