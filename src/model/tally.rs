use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;

use serde::Serialize;

use super::{
    Flow, LooseEnd, PortRange, PortSet, Socket, Sources, StateCounts, TcpState, Toward, Tunables,
};

/// What a tally must know beforehand to tell outbound rows from inbound ones and a port that is
/// taken from one that can be had.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PortRule {
    /// Whether outbound rows are folded by flow.
    pub by_flow: bool,
    /// The ephemeral range: a flow's sockets outside it take no port and are left out; `None` when
    /// unknown or of no interest, then they all count.
    pub range: Option<PortRange>,
    /// Ports of the range that connect() never takes (`ip_local_reserved_ports`), though a bind()
    /// may have.
    pub reserved: PortSet,
    /// Ports that connect() skips because somebody bound them, besides those that listen.
    pub bound: PortSet,
    /// Further ports in use that it skips, as those that bind() has handed out.
    pub passed_over: PortSet,
    /// The range again, by which the direction of a row whose listener is gone is told: it was
    /// accepted here where only its remote port is one that connect() takes.
    pub connecting: Option<PortRange>,
    /// How long TIME_WAIT lasts.
    pub hold_time: Duration,
    /// The age from which TIME_WAIT can be reused, where reuse applies.
    pub reuse_delay: Duration,
    /// Flows bound to no interface beside which there are some that are: the ports of these are
    /// told one by one.
    pub shared: HashSet<Flow>,
}

impl PortRule {
    /// The rule that follows from this machine's settings.
    #[must_use]
    pub fn new(tunables: &Tunables) -> Self {
        Self {
            by_flow: true,
            range: tunables.ip_local_port_range,
            reserved: tunables.ip_local_reserved_ports.clone().unwrap_or_default(),
            bound: PortSet::default(),
            passed_over: PortSet::default(),
            connecting: tunables.ip_local_port_range,
            hold_time: tunables.told_hold_time(),
            reuse_delay: tunables.reuse_delay(),
            shared: HashSet::new(),
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

/// Where this machine listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    ports: PortSet,
    /// Ports that listen on every address.
    everywhere: PortSet,
    /// Listeners as they are, the unspecified address of each family among them.
    at: HashSet<SocketAddr>,
}

impl Listeners {
    /// Adds one; the unspecified address of either family is every address.
    pub fn insert(&mut self, local: SocketAddr) {
        self.ports.insert(local.port());
        self.at.insert(local);
        if local.ip().is_unspecified() {
            self.everywhere.insert(local.port());
        }
    }

    /// Whether a listener that is known takes what comes for `local`: one on it, or on every address
    /// of its family. Those on every IPv6 address are taken to hear IPv4 too, as they do unless they
    /// ask not to.
    #[must_use]
    pub fn hear(&self, local: SocketAddr) -> bool {
        let on = |ip: IpAddr| self.at.contains(&SocketAddr::new(ip, local.port()));
        on(local.ip())
            || on(Ipv6Addr::UNSPECIFIED.into())
            || (local.is_ipv4() && on(Ipv4Addr::UNSPECIFIED.into()))
    }

    /// Ports that listen on any address: connect() skips them all.
    #[must_use]
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// Whether a connection to `local` is accepted here. A listener on another address of the same
    /// port has nothing to do with it.
    #[must_use]
    pub fn accept(&self, local: SocketAddr) -> bool {
        self.ports.contains(local.port())
            && (self.everywhere.contains(local.port())
                || self.at.contains(&SocketAddr::new(local.ip(), local.port())))
    }
}

/// The last second told apart by [`FlowUse::time_wait_left`]: the most that `tcp_tw_timeout` can be
/// set to, so that a malformed timer takes no memory.
const LONGEST: u32 = 600;

/// The least and the greatest of some numbers; of none at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    least: u32,
    greatest: u32,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            least: u32::MAX,
            greatest: 0,
        }
    }
}

impl Extent {
    /// Nearly every number lies between those that came before.
    fn add(&mut self, number: u32) {
        if number < self.least {
            self.least = number;
        }
        if number > self.greatest {
            self.greatest = number;
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
        }
    }

    /// Both ends; `None` without any number.
    fn ends(self) -> Option<(u32, u32)> {
        (self.least <= self.greatest).then_some((self.least, self.greatest))
    }

    /// Both ends of an extent of milliseconds.
    fn times(self) -> Option<(Duration, Duration)> {
        let time = |milliseconds: u32| Duration::from_millis(milliseconds.into());
        self.ends()
            .map(|(least, greatest)| (time(least), time(greatest)))
    }
}

/// What connect() makes of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortKind {
    /// It would not take it anyway: reserved, or held by somebody else.
    Excluded,
    /// It tries it first.
    Fast,
    /// It comes to it after the fast ones.
    Slow,
}

/// A port that a socket takes.
#[derive(Debug, Clone, Copy)]
struct Port {
    number: u16,
    kind: PortKind,
    /// Whether the socket is in TIME_WAIT for longer than the reuse delay.
    is_reusable: bool,
}

/// Ports of one kind that a flow takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KindUse {
    in_use: u32,
    /// Of these, those in TIME_WAIT for longer than the reuse delay.
    reusable: u32,
    /// Milliseconds left of those in TIME_WAIT.
    left: Extent,
}

/// What one outbound flow takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowUse {
    /// Its sockets by state.
    pub by_state: StateCounts,
    /// Its ports by [`PortKind`]: each row goes to one, by its number, without a branch.
    kinds: [KindUse; 3],
    /// Excluded ports in use that connect() passes over though no socket shows why
    /// ([`PortRule::passed_over`]).
    pub passed_over: u32,
    /// The lowest excluded port that is reserved, or that somebody listens on, and whether it is
    /// reserved; `None` without any.
    pub service_port: Option<(u16, bool)>,
    /// Whether it takes the low and the high end of the range.
    ends_in_use: [bool; 2],
    /// Whether these are free again where reuse works.
    ends_reusable: [bool; 2],
    /// Its ports.
    span: Extent,
    /// Further ports that it cannot have, though another flow takes them: the one between the same
    /// addresses that is bound to no interface.
    pub taken_by_unbound: Beside,
    /// Of these, the ones that are free where reuse works.
    pub reusable_by_unbound: Beside,
    /// Attempts that have been repeated without an answer.
    pub unanswered: u32,
    /// Milliseconds left of orphans in FIN_WAIT2.
    orphans_left: Extent,
    /// Ports whose TIME_WAIT is over, but not yet noticed: the kernel's timers run late.
    pub overdue: u32,
    /// Of the ports in use, those in TIME_WAIT by whole seconds left: entry `k` counts the ones
    /// that end in more than `k` and at most `k + 1` seconds. As long as the longest.
    pub time_wait_left: Vec<u16>,
    /// The place of its source in [`Tally::sources`].
    source: Option<u8>,
}

impl FlowUse {
    /// Adds a socket.
    fn add(&mut self, socket: &Socket, port: Port, rule: &PortRule) {
        self.by_state.add(socket.state);
        self.span.add(port.number.into());
        let used = &mut self.kinds[port.kind as usize];
        used.in_use += 1;
        used.reusable += u32::from(port.is_reusable);
        if let Some(left) = socket.time_wait_left {
            let milliseconds = milliseconds(left);
            // An orphan in FIN_WAIT2 has the same timer, but is never reused (net/ipv4/tcp_ipv4.c),
            // and its timer starts anew when the peer closes at last: it tells nothing about the
            // rate.
            if socket.state == TcpState::TimeWait {
                used.left.add(milliseconds);
                self.add_time_wait(milliseconds);
            } else {
                self.orphans_left.add(milliseconds);
            }
        } else if socket.state == TcpState::SynSent && socket.retransmits > 0 {
            self.unanswered += 1;
        }
        if port.kind == PortKind::Excluded {
            self.add_excluded(port.number, rule);
        } else if let Some(range) = rule.range {
            for (end, number) in [range.low, range.high].into_iter().enumerate() {
                if port.number == number {
                    self.ends_in_use[end] = true;
                    self.ends_reusable[end] |= port.is_reusable;
                }
            }
        }
    }

    fn add_time_wait(&mut self, left_milliseconds: u32) {
        let Some(more) = left_milliseconds.checked_sub(1) else {
            self.overdue += 1;
            return;
        };
        let second = (more / 1000).min(LONGEST) as usize;
        if self.time_wait_left.len() <= second {
            self.time_wait_left.resize(second + 1, 0);
        }
        self.time_wait_left[second] = self.time_wait_left[second].saturating_add(1);
    }

    #[cold]
    fn add_excluded(&mut self, port: u16, rule: &PortRule) {
        let reserved = rule.reserved.contains(port);
        let passed_over = rule.passed_over.contains(port);
        self.passed_over += u32::from(passed_over);
        // A port that its own client has chosen is no service's.
        if reserved || !(passed_over || rule.bound.contains(port)) {
            let known = self.service_port.unwrap_or((port, reserved));
            self.service_port = Some(known.min((port, reserved)));
        }
    }

    fn kind(&self, kind: PortKind) -> &KindUse {
        &self.kinds[kind as usize]
    }

    /// The ports it takes: one a socket.
    #[must_use]
    pub fn ports_in_use(&self) -> u32 {
        self.countable_in_use() + self.kind(PortKind::Excluded).in_use
    }

    /// Of the countable ports in use, those in TIME_WAIT for longer than the reuse delay: free where
    /// reuse works.
    #[must_use]
    pub fn ports_reusable(&self) -> u32 {
        self.kind(PortKind::Fast).reusable + self.kind(PortKind::Slow).reusable
    }

    /// Of the countable ports in use, the fast ones.
    #[must_use]
    pub fn fast_in_use(&self) -> u32 {
        self.kind(PortKind::Fast).in_use
    }

    /// The shortest time left of a fast port in TIME_WAIT; `None` without any.
    #[must_use]
    pub fn fast_left_least(&self) -> Option<Duration> {
        let times = self.kind(PortKind::Fast).left.times();
        times.map(|(least, _)| least)
    }

    /// The longest time left of a slow port in TIME_WAIT; `None` without any.
    #[must_use]
    pub fn slow_left_most(&self) -> Option<Duration> {
        let times = self.kind(PortKind::Slow).left.times();
        times.map(|(_, most)| most)
    }

    /// The shortest and the longest time until a held port of the flow comes back by itself; `None`
    /// where none does.
    #[must_use]
    pub fn returns(&self) -> Option<(Duration, Duration)> {
        let of_kinds = self.kinds.iter().map(|used| used.left);
        of_kinds.fold(self.orphans_left, Extent::with).times()
    }

    /// The lowest and the highest port it takes; `None` without any.
    #[must_use]
    pub fn span(&self) -> Option<PortRange> {
        let (low, high) = self.span.ends()?;
        Some(PortRange {
            low: u16::try_from(low).ok()?,
            high: u16::try_from(high).ok()?,
        })
    }

    /// Ports in use that connect() could have otherwise.
    #[must_use]
    pub fn countable_in_use(&self) -> u32 {
        self.kind(PortKind::Fast).in_use + self.kind(PortKind::Slow).in_use
    }

    /// Ports that connect() cannot have, for this flow: in use by it or by the one bound to no
    /// interface, less what reuse gives back where it works, and less the end of the range that
    /// nobody counts on.
    #[must_use]
    pub fn ports_blocked(&self, reuse_works: bool, loose: Option<LooseEnd>) -> u32 {
        let blocked = self.countable_in_use() + self.taken_by_unbound.all
            - given_back(
                reuse_works,
                self.ports_reusable() + self.reusable_by_unbound.all,
            );
        blocked.saturating_sub(u32::from(self.takes(loose, reuse_works)))
    }

    /// The fast ports among [`Self::ports_blocked`].
    #[must_use]
    pub fn fast_blocked(&self, reuse_works: bool, loose: Option<LooseEnd>) -> u32 {
        let fast = self.kind(PortKind::Fast);
        let blocked = fast.in_use + self.taken_by_unbound.fast
            - given_back(reuse_works, fast.reusable + self.reusable_by_unbound.fast);
        blocked.saturating_sub(u32::from(self.takes(loose, reuse_works)))
    }

    /// Whether it has the end of the range that is left out of the count, and reuse does not give it
    /// back.
    fn takes(&self, loose: Option<LooseEnd>, reuse_works: bool) -> bool {
        let has = |end: usize| self.ends_in_use[end] && !(reuse_works && self.ends_reusable[end]);
        let (low, high) = (has(0), has(1));
        match loose {
            None => false,
            Some(LooseEnd::Low) => low,
            Some(LooseEnd::High) => high,
            Some(LooseEnd::Either) => low && high,
        }
    }

    /// Its sockets by state, less those that reuse gives back where it works: what blocks it.
    #[must_use]
    pub fn blocking(&self, reuse_works: bool) -> StateCounts {
        let reusable = given_back(reuse_works, self.ports_reusable());
        self.by_state.less(TcpState::TimeWait, reusable)
    }
}

/// Whole milliseconds, as the kernel tells timers (`idiag_expires`).
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000)?.checked_add(time.subsec_millis()))
        .unwrap_or(u32::MAX)
}

fn given_back(reuse_works: bool, reusable: u32) -> u32 {
    if reuse_works { reusable } else { 0 }
}

/// Ports that a flow cannot have because of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// All of them.
    pub all: u32,
    /// The fast ones among them.
    pub fast: u32,
}

impl Beside {
    fn count(ports: &PortSet, range: Option<PortRange>) -> Self {
        let is_fast = |port: &u16| range.is_some_and(|range| range.is_fast(*port));
        let fast = ports.ports().filter(is_fast).count();
        Self {
            all: ports.len(),
            fast: u32::try_from(fast).unwrap_or(u32::MAX),
        }
    }
}

/// Ports told one by one.
#[derive(Debug, Clone, Default)]
struct OneByOne {
    taken: PortSet,
    reusable: PortSet,
}

/// The socket table folded while it streams by: memory grows with the number of outbound flows,
/// never with the number of sockets.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    rule: PortRule,
    /// Who listens: the rows of their connections are inbound. Listeners must come first, or be
    /// told beforehand.
    pub listening: Listeners,
    /// Sockets by state.
    pub states: StateCounts,
    /// TIME_WAIT by direction.
    pub time_wait: TimeWaitSplit,
    /// Orphans in FIN_WAIT2: the kernel counts them among its TIME_WAIT.
    pub orphans: u64,
    /// Inbound TIME_WAIT by the end that was connected to.
    pub inbound_time_wait: HashMap<SocketAddr, u64, RandomState>,
    /// Outbound TIME_WAIT on ports beyond the range, as after a change of it; of so many flows at
    /// most that it takes little.
    pub time_wait_beyond: HashMap<Flow, u64, RandomState>,
    /// Inbound CLOSE_WAIT by the listening port.
    pub inbound_close_wait: HashMap<u16, u64, RandomState>,
    /// The longest time left of any TIME_WAIT: longer than the hold time where that is not what the
    /// kernel says it is.
    pub longest_left: Duration,
    /// The outbound flows.
    pub flows: HashMap<Flow, FlowUse, RandomState>,
    /// Their source addresses.
    pub sources: Sources,
    /// Ports of the flows that [`PortRule::shared`] names, and of those bound to an interface
    /// beside them.
    shared_ports: HashMap<Flow, OneByOne, RandomState>,
    /// Ports that connect() would not have anyway, for whatever reason: one set to ask for each row.
    excluded: PortSet,
    /// TIME_WAIT with less time left than this is older than the reuse delay.
    reusable_below: Duration,
    /// The destination that the flows are limited to; `None` where they are all there.
    pub toward: Option<Toward>,
    /// The flows that this leaves out: what is true of the machine is told by both together.
    pub elsewhere: HashMap<Flow, FlowUse, RandomState>,
}

impl Tally {
    /// An empty tally under `rule`, on a machine where these listen.
    #[must_use]
    pub fn new(rule: PortRule, listening: Listeners) -> Self {
        let bound = rule.bound.union(&rule.passed_over);
        Self {
            excluded: rule.reserved.union(&bound).union(listening.ports()),
            reusable_below: rule.hold_time.saturating_sub(rule.reuse_delay),
            rule,
            listening,
            ..Self::default()
        }
    }

    /// The rule it was folded under.
    #[must_use]
    pub fn rule(&self) -> &PortRule {
        &self.rule
    }

    /// Ports of the range that outbound sockets take, besides those that are reserved or held.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        self.sources.ports()
    }

    /// Folds one row in.
    pub fn add(&mut self, socket: &Socket) {
        self.states.add(socket.state);
        let port = socket.local.port();
        if socket.state == TcpState::Listen {
            self.listening.insert(socket.local);
            self.excluded.insert(port);
        }
        let excluded = self.excluded.contains(port);
        let outbound = self.is_outbound(socket, excluded);
        match socket.state {
            TcpState::TimeWait => self.add_time_wait(socket, outbound),
            TcpState::FinWait2 if socket.time_wait_left.is_some() => self.orphans += 1,
            TcpState::CloseWait if !outbound => {
                *self.inbound_close_wait.entry(port).or_default() += 1;
            }
            _ => {}
        }
        if !(outbound && self.rule.by_flow) {
            return;
        }
        if self.rule.range.is_none_or(|range| range.contains(port)) {
            self.add_outbound(socket, excluded);
        } else if socket.state == TcpState::TimeWait {
            self.add_beyond(Flow::of(socket));
        }
    }

    fn add_time_wait(&mut self, socket: &Socket, outbound: bool) {
        self.time_wait.total += 1;
        if let Some(left) = socket.time_wait_left
            && left > self.longest_left
        {
            self.longest_left = left;
        }
        if outbound {
            self.time_wait.outbound += 1;
        } else {
            self.time_wait.inbound += 1;
            *self.inbound_time_wait.entry(socket.local).or_default() += 1;
        }
    }

    fn add_beyond(&mut self, flow: Flow) {
        const MOST: usize = 1000;
        let beyond = &mut self.time_wait_beyond;
        if beyond.len() < MOST || beyond.contains_key(&flow) {
            *beyond.entry(flow).or_default() += 1;
        }
    }

    fn add_outbound(&mut self, socket: &Socket, excluded: bool) {
        let flow = Flow::of(socket);
        let number = socket.local.port();
        let is_old = |left| left < self.reusable_below;
        let port = Port {
            number,
            kind: match self.rule.range {
                _ if excluded => PortKind::Excluded,
                Some(range) if range.is_fast(number) => PortKind::Fast,
                _ => PortKind::Slow,
            },
            is_reusable: socket.state == TcpState::TimeWait
                && socket.time_wait_left.is_some_and(is_old),
        };
        let sources = &mut self.sources;
        let used = self.flows.entry(flow).or_insert_with(|| FlowUse {
            source: sources.place(flow.source, flow.interface),
            ..FlowUse::default()
        });
        used.add(socket, port, &self.rule);
        let source = used.source;
        if excluded && self.is_held(number) {
            return;
        }
        self.sources.take(source, number);
        // Empty nearly always, and asked for each row.
        let is_shared =
            !self.rule.shared.is_empty() && self.rule.shared.contains(&flow.without_interface());
        if is_shared && !excluded {
            let ports = self.shared_ports.entry(flow).or_default();
            ports.taken.insert(number);
            if port.is_reusable {
                ports.reusable.insert(number);
            }
        }
    }

    /// Whether connect() never takes `port` because it is reserved, or somebody bound it.
    fn is_held(&self, port: u16) -> bool {
        self.rule.reserved.contains(port)
            || self.rule.bound.contains(port)
            || self.listening.ports().contains(port)
    }

    /// Whether this machine opened the connection: nobody accepts at its local end, nor is that
    /// one that connect() never takes while the remote one is.
    fn is_outbound(&self, socket: &Socket, excluded: bool) -> bool {
        let (local, remote) = (socket.local.port(), socket.remote.port());
        let accepted = |range: PortRange| !range.contains(local) && range.contains(remote);
        remote != 0
            && !(excluded && self.listening.accept(socket.local))
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

    /// The flows bound to no interface beside which there are some that are, at most so many that
    /// their ports can be told one by one.
    #[must_use]
    pub fn flows_to_share(&self) -> HashSet<Flow> {
        /// 8 KiB each, and as much for each flow beside it.
        const MOST: usize = 256;
        self.flows
            .keys()
            .filter(|flow| flow.interface.is_some())
            .map(Flow::without_interface)
            .filter(|flow| self.flows.contains_key(flow))
            .take(MOST)
            .collect()
    }

    /// The flows of the whole machine, whatever destination was asked about.
    pub fn all_flows(&self) -> impl Iterator<Item = (&Flow, &FlowUse)> {
        self.flows.iter().chain(&self.elsewhere)
    }

    /// Counts, for each flow bound to an interface, the ports that the one bound to none takes from
    /// it.
    pub fn count_shared(&mut self) {
        for (flow, used) in &mut self.flows {
            let beside = self.shared_ports.get(&flow.without_interface());
            let (Some(own), Some(beside), true) = (
                self.shared_ports.get(flow),
                beside,
                flow.interface.is_some(),
            ) else {
                continue;
            };
            let taken = beside.taken.without(&own.taken);
            let reusable = beside.reusable.without(&own.taken);
            used.taken_by_unbound = Beside::count(&taken, self.rule.range);
            used.reusable_by_unbound = Beside::count(&reusable, self.rule.range);
        }
    }

    /// Keeps only the flows toward one destination.
    pub fn only_toward(&mut self, toward: Toward) {
        let leaves = |flow: &Flow, _: &mut FlowUse| !toward.includes(flow);
        self.elsewhere.extend(self.flows.extract_if(leaves));
        self.toward = Some(toward);
    }

    /// The flows toward `server`, from whatever source address.
    pub fn toward(&self, server: SocketAddr) -> impl Iterator<Item = (Flow, &FlowUse)> {
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
            bound: PortSet::default(),
            passed_over: PortSet::default(),
            connecting: Some(PortRange {
                low: 40000,
                high: 40009,
            }),
            hold_time: Duration::from_secs(60),
            reuse_delay: Duration::from_secs(1),
            shared: HashSet::new(),
        }
    }

    fn row(state: TcpState, local: &str, remote: &str, left_ms: Option<u64>) -> Socket {
        Socket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            time_wait_left: left_ms.map(Duration::from_millis),
            inode: None,
            interface: None,
            retransmits: 0,
        }
    }

    #[test]
    fn rows_are_split_by_direction_and_only_ports_of_the_range_are_taken() {
        use TcpState::{Established, FinWait2, Listen, TimeWait};
        let mut tally = Tally::new(rule(), Listeners::default());
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
            used.by_state,
            [(TimeWait, 4), (FinWait2, 1), (Established, 2)]
                .into_iter()
                .collect()
        );
        assert_eq!((used.ports_in_use(), used.countable_in_use()), (7, 6));
        assert_eq!(used.service_port, Some((40008, true)));
        // The one overdue, and the one older than the delay: 60 − 58 s.
        assert_eq!(used.ports_reusable(), 2);
        assert_eq!(used.fast_in_use(), 4);
        assert_eq!(used.kind(PortKind::Fast).reusable, 1);
        assert_eq!(used.ends_in_use, [true, false]);
        assert_eq!(used.ends_reusable, [true, false]);
        assert_eq!(used.source, Some(0));
        assert_eq!(
            used.span(),
            Some(PortRange {
                low: 40000,
                high: 40008
            })
        );
        assert_eq!(used.fast_left_least(), Some(Duration::from_secs(58)));
        assert_eq!(used.slow_left_most(), Some(Duration::from_secs(59)));
        let last = Duration::from_millis(59_500);
        assert_eq!(used.returns(), Some((Duration::ZERO, last)));
        assert_eq!(used.overdue, 1);
        assert_eq!(used.time_wait_left, [vec![0; 57], vec![1, 1, 1]].concat());
        assert_eq!(
            (
                used.ports_blocked(false, None),
                used.ports_blocked(true, None)
            ),
            (6, 4)
        );
        assert_eq!(
            (
                used.fast_blocked(false, None),
                used.fast_blocked(true, None)
            ),
            (4, 3)
        );
        assert_eq!(tally.flows.len(), 1);
        assert_eq!(
            tally
                .inbound_time_wait
                .get(&"10.0.0.1:3306".parse().unwrap()),
            Some(&1)
        );
    }
}
