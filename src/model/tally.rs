use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use serde::Serialize;

use super::{Flow, PortRange, PortSet, Socket, StateCounts, TcpState, Toward, Tunables};

/// What a tally must know beforehand to tell outbound rows from inbound ones and a port that is
/// taken from one that can be had.
#[derive(Debug, Clone, Default)]
pub struct PortRule {
    /// Whether outbound rows are folded by flow.
    pub by_flow: bool,
    /// The ephemeral range: a flow's sockets outside it take no port and are left out; `None` when
    /// unknown or of no interest, then they all count.
    pub range: Option<PortRange>,
    /// Ports of the range that connect() never takes (`ip_local_reserved_ports`), though a bind()
    /// may have.
    pub reserved: PortSet,
    /// The range again, by which the direction of a row whose listener is gone is told: it was
    /// accepted here where only its remote port is one that connect() takes.
    pub connecting: Option<PortRange>,
    /// How long TIME_WAIT lasts.
    pub hold_time: Duration,
    /// The age from which TIME_WAIT can be reused, where reuse applies.
    pub reuse_delay: Duration,
}

impl PortRule {
    /// The rule that follows from this machine's settings.
    #[must_use]
    pub fn new(tunables: &Tunables) -> Self {
        Self {
            by_flow: true,
            range: tunables.ip_local_port_range,
            reserved: tunables.ip_local_reserved_ports.clone().unwrap_or_default(),
            connecting: tunables.ip_local_port_range,
            hold_time: tunables.hold_time(),
            reuse_delay: tunables.reuse_delay(),
        }
    }
}

/// TIME_WAIT sockets by who opened the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TimeWaitSplit {
    /// All of them.
    pub total: u64,
    /// Opened here: each holds a port toward its destination.
    pub outbound: u64,
    /// Accepted here: memory only.
    pub inbound: u64,
}

/// The last second told apart by [`FlowUse::time_wait_left`]: the most that `tcp_tw_timeout` can be
/// set to, so that a malformed timer takes no memory.
const LONGEST: usize = 600;

/// What one outbound flow takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowUse {
    /// Its sockets by state.
    pub by_state: StateCounts,
    /// The ports it takes: one a socket.
    pub ports_in_use: u32,
    /// Of these, the reserved ones: connect() would not have them anyway.
    pub reserved_in_use: u32,
    /// Of the others, those in TIME_WAIT for longer than the reuse delay: free where reuse applies.
    pub ports_reusable: u32,
    /// Of the ports in use and not reserved, the fast ones.
    pub fast_in_use: u32,
    /// Of the reusable ports, the fast ones.
    pub fast_reusable: u32,
    /// The shortest and the longest time until a held port of the flow comes back by itself; `None`
    /// where none does.
    pub returns: Option<(Duration, Duration)>,
    /// Ports whose TIME_WAIT is over, but not yet noticed: the kernel's timers run late.
    pub overdue: u32,
    /// Of the ports in use, those in TIME_WAIT by whole seconds left: entry `k` counts the ones
    /// that end in more than `k` and at most `k + 1` seconds. As long as the longest.
    pub time_wait_left: Vec<u16>,
}

impl FlowUse {
    fn add(&mut self, socket: &Socket, rule: &PortRule) {
        self.by_state.add(socket.state);
        let port = socket.local.port();
        let reserved = rule.reserved.contains(port);
        let fast = u32::from(!reserved && rule.range.is_some_and(|range| range.is_fast(port)));
        self.ports_in_use += 1;
        self.reserved_in_use += u32::from(reserved);
        self.fast_in_use += fast;
        let Some(left) = socket.time_wait_left else {
            return;
        };
        self.returns = Some(self.returns.map_or((left, left), |(first, last)| {
            (first.min(left), last.max(left))
        }));
        // An orphan in FIN_WAIT2 has the same timer, but is never reused (net/ipv4/tcp_ipv4.c), and
        // its timer starts anew when the peer closes at last: it tells nothing about the rate.
        if socket.state != TcpState::TimeWait {
            return;
        }
        if rule.hold_time.saturating_sub(left) > rule.reuse_delay {
            self.ports_reusable += u32::from(!reserved);
            self.fast_reusable += fast;
        }
        if left.is_zero() {
            self.overdue += 1;
            return;
        }
        let second = left.as_millis().div_ceil(1000).saturating_sub(1);
        let second = usize::try_from(second).map_or(LONGEST, |second| second.min(LONGEST));
        if self.time_wait_left.len() <= second {
            self.time_wait_left.resize(second + 1, 0);
        }
        self.time_wait_left[second] = self.time_wait_left[second].saturating_add(1);
    }

    /// Ports of the flow that connect() cannot have: in use, less what reuse gives back where it
    /// applies.
    #[must_use]
    pub fn ports_blocked(&self, reuse_applies: bool) -> u32 {
        let reusable = if reuse_applies {
            self.ports_reusable
        } else {
            0
        };
        self.ports_in_use - self.reserved_in_use - reusable
    }

    /// Its sockets by state, less those that reuse gives back where it applies: what blocks it.
    #[must_use]
    pub fn blocking(&self, reuse_applies: bool) -> StateCounts {
        let reusable = if reuse_applies {
            self.ports_reusable
        } else {
            0
        };
        self.by_state.less(TcpState::TimeWait, reusable)
    }

    /// The fast ports among [`Self::ports_blocked`].
    #[must_use]
    pub fn fast_blocked(&self, reuse_applies: bool) -> u32 {
        self.fast_in_use - if reuse_applies { self.fast_reusable } else { 0 }
    }
}

/// The socket table folded while it streams by: memory grows with the number of outbound flows,
/// never with the number of sockets.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    rule: PortRule,
    /// Ports that listen on any address: their rows are inbound. Listeners must come first, or be
    /// told beforehand.
    pub listening: PortSet,
    /// Sockets by state.
    pub states: StateCounts,
    /// TIME_WAIT by direction.
    pub time_wait: TimeWaitSplit,
    /// Orphans in FIN_WAIT2: the kernel counts them among its TIME_WAIT.
    pub orphans: u64,
    /// Inbound TIME_WAIT by the listening port.
    pub inbound_time_wait: HashMap<u16, u64, RandomState>,
    /// The longest time left of any TIME_WAIT: longer than the hold time where that is not what the
    /// kernel says it is.
    pub longest_left: Duration,
    /// The outbound flows.
    pub flows: HashMap<Flow, FlowUse, RandomState>,
    /// The destination that the flows are limited to; `None` where they are all there.
    pub toward: Option<Toward>,
    /// The flows that this leaves out: what is true of the machine is told by both together.
    pub elsewhere: HashMap<Flow, FlowUse, RandomState>,
}

impl Tally {
    /// An empty tally under `rule`, on a machine where `listening` ports listen.
    #[must_use]
    pub fn new(rule: PortRule, listening: PortSet) -> Self {
        Self {
            rule,
            listening,
            ..Self::default()
        }
    }

    /// Folds one row in.
    pub fn add(&mut self, socket: &Socket) {
        self.states.add(socket.state);
        if socket.state == TcpState::Listen {
            self.listening.insert(socket.local.port());
        }
        let outbound = self.is_outbound(socket);
        if socket.state == TcpState::FinWait2 && socket.time_wait_left.is_some() {
            self.orphans += 1;
        }
        if socket.state == TcpState::TimeWait {
            self.time_wait.total += 1;
            self.longest_left = self
                .longest_left
                .max(socket.time_wait_left.unwrap_or_default());
            if outbound {
                self.time_wait.outbound += 1;
            } else {
                self.time_wait.inbound += 1;
                *self
                    .inbound_time_wait
                    .entry(socket.local.port())
                    .or_default() += 1;
            }
        }
        let port = socket.local.port();
        if outbound && self.rule.by_flow && self.rule.range.is_none_or(|range| range.contains(port))
        {
            self.flows
                .entry(Flow::of(socket))
                .or_default()
                .add(socket, &self.rule);
        }
    }

    /// Whether this machine opened the connection: its local port is none that listens here, nor
    /// one that connect() never takes while the remote one is.
    fn is_outbound(&self, socket: &Socket) -> bool {
        let (local, remote) = (socket.local.port(), socket.remote.port());
        let accepted = |range: PortRange| !range.contains(local) && range.contains(remote);
        remote != 0
            && !self.listening.contains(local)
            && !self.rule.connecting.is_some_and(accepted)
    }

    /// Completes the split of TIME_WAIT where only outbound rows were folded: `total` is the
    /// kernel's own count.
    pub fn set_time_wait(&mut self, total: u64) {
        let outbound = self.time_wait.outbound;
        let total = total.saturating_sub(self.orphans);
        self.time_wait = TimeWaitSplit {
            total: total.max(outbound),
            outbound,
            inbound: total.saturating_sub(outbound),
        };
    }

    /// Keeps only the flows toward one destination.
    pub fn only_toward(&mut self, toward: Toward) {
        let leaves = |flow: &Flow, _: &mut FlowUse| !toward.includes(flow);
        self.elsewhere.extend(self.flows.extract_if(leaves));
        self.toward = Some(toward);
    }

    /// The flows toward `server`, from whatever source address.
    pub fn toward(&self, server: std::net::SocketAddr) -> impl Iterator<Item = (Flow, &FlowUse)> {
        self.flows
            .iter()
            .filter(move |(flow, _)| flow.server() == server)
            .map(|(flow, used)| (*flow, used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> PortRule {
        PortRule {
            by_flow: true,
            range: Some(PortRange {
                low: 40000,
                high: 40009,
            }),
            reserved: [40008].into_iter().collect(),
            connecting: Some(PortRange {
                low: 40000,
                high: 40009,
            }),
            hold_time: Duration::from_secs(60),
            reuse_delay: Duration::from_secs(1),
        }
    }

    fn row(state: TcpState, local: &str, remote: &str, left_ms: Option<u64>) -> Socket {
        Socket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            time_wait_left: left_ms.map(Duration::from_millis),
            inode: None,
        }
    }

    #[test]
    fn rows_are_split_by_direction_and_only_ports_of_the_range_are_taken() {
        use TcpState::{Established, FinWait2, Listen, TimeWait};
        let mut tally = Tally::new(rule(), PortSet::default());
        for socket in [
            row(Listen, "0.0.0.0:3306", "0.0.0.0:0", None),
            row(TimeWait, "10.0.0.1:3306", "10.0.0.9:40001", Some(1000)),
            row(TimeWait, "10.0.0.1:40000", "10.0.0.2:3306", Some(58_000)),
            row(TimeWait, "10.0.0.1:40001", "10.0.0.2:3306", Some(59_000)),
            row(TimeWait, "10.0.0.1:40002", "10.0.0.2:3306", Some(59_500)),
            row(FinWait2, "10.0.0.1:40004", "10.0.0.2:3306", Some(10)),
            row(Established, "10.0.0.1:40006", "10.0.0.2:3306", None),
            row(Established, "10.0.0.1:40008", "10.0.0.2:3306", None),
            row(TimeWait, "10.0.0.1:40003", "10.0.0.2:3306", Some(0)),
            row(Established, "10.0.0.1:22222", "10.0.0.2:3306", None),
            // Its listener is gone.
            row(TimeWait, "10.0.0.1:8080", "10.0.0.9:40002", Some(1000)),
        ] {
            tally.add(&socket);
        }
        assert_eq!(
            tally.time_wait,
            TimeWaitSplit {
                total: 6,
                outbound: 4,
                inbound: 2
            }
        );
        let (flow, used) = tally
            .toward("10.0.0.2:3306".parse().unwrap())
            .next()
            .unwrap();
        assert_eq!(flow.source, "10.0.0.1".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(
            used,
            &FlowUse {
                by_state: [(TimeWait, 4), (FinWait2, 1), (Established, 2)]
                    .into_iter()
                    .collect(),
                ports_in_use: 7,
                reserved_in_use: 1,
                // The one overdue, and the one older than the delay: 60 − 58 s.
                ports_reusable: 2,
                fast_in_use: 4,
                fast_reusable: 1,
                returns: Some((Duration::ZERO, Duration::from_millis(59_500))),
                overdue: 1,
                time_wait_left: [vec![0; 57], vec![1, 1, 1]].concat(),
            }
        );
        assert_eq!(
            (used.ports_blocked(false), used.ports_blocked(true)),
            (6, 4)
        );
        assert_eq!((used.fast_blocked(false), used.fast_blocked(true)), (4, 3));
        assert_eq!(tally.flows.len(), 1);
        assert_eq!(tally.inbound_time_wait.get(&3306), Some(&1));
    }
}
