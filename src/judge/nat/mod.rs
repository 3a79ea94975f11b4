//! Ports of connections that this machine translates for others: how many are taken, and from how
//! many on the kernel finds none for a new one.

mod search;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

pub use search::HangsFrom;
use search::{Search, hangs_from, none_found_beside_closed};

use super::level::{Level, Thresholds};
use crate::model::{
    NatFlow, NatTable, NatUse, PortRange, PortSet, Protocol, RulePorts, TrackingSource,
};
use crate::words::{count, percent, rate, rounded};

/// Where a rule names no ports the kernel takes these for a source port from 1024 on
/// (`nf_nat_l4proto_unique_tuple` in net/netfilter/nf_nat_core.c).
const ANY: PortRange = PortRange {
    low: 1024,
    high: 65535,
};

/// And these for one below 512, and for one from 512 to 1023.
const BELOW_512: PortRange = PortRange { low: 1, high: 511 };
/// See [`BELOW_512`].
const BELOW_1024: PortRange = PortRange {
    low: 600,
    high: 1023,
};

/// New connections hang where more than this share of them finds no port.
const HANGS: f64 = 0.01;

/// So many changed ports within less than half of [`ANY`] are no chance: 2 × 20 / 2^19.
const TELLING: u32 = 20;

/// Origins named in a sentence.
const NAMED: usize = 3;

/// Everything `verdict --nat` says of translated connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NatReport {
    /// Where they were read; `None` where connection tracking is not in use.
    pub source: Option<TrackingSource>,
    /// Connections of TCP and UDP that are tracked.
    pub tracked: u64,
    /// Those whose source is translated, toward the destination that was asked about if one was.
    pub translated: u64,
    /// How long a connection is kept in TIME_WAIT; `None` when unknown.
    pub time_wait_seconds: Option<u64>,
    /// The rules that translate sources; `None` where they could not be read.
    pub rules: Option<Vec<String>>,
    /// The worst flows first.
    pub flows: Vec<NatFlowReport>,
    /// How many flows were looked at, listed or not.
    pub flows_examined: usize,
    /// `insert_failed` of /proc/net/stat/nf_conntrack; `None` when unknown.
    pub insert_failed: Option<u64>,
    /// `drop` likewise.
    pub dropped: Option<u64>,
}

/// Where the ports of a flow are known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortsFrom {
    /// A rule was read.
    Rule,
    /// None was, and these are the ports that it gave.
    Seen,
    /// None was, and there are too few to tell: what the kernel takes where a rule names none.
    Default,
}

/// One flow after translation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NatFlowReport {
    /// The address that the server sees.
    pub source: IpAddr,
    /// The server's.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The conntrack zone.
    pub zone: u16,
    /// The ports that it can have.
    pub ports: PortRange,
    /// Where these are known from.
    pub ports_from: PortsFrom,
    /// The rule; `None` where none was read.
    pub rule: Option<String>,
    /// Ports taken.
    pub ports_taken: u32,
    /// Of these by connections that are over (TIME_WAIT, CLOSE).
    pub ports_of_closed: u32,
    /// Whether the kernel gives these up for a new connection; `None` when unknown.
    pub closed_given_up: Option<bool>,
    /// Ports that are not taken.
    pub ports_free: u32,
    /// The share of new connections that find no port now, where closed ones may be kept as if they
    /// were.
    pub hanging_share: f64,
    /// With how many ports taken the first client hangs.
    pub hangs_from: HangsFrom,
    /// The rate at which connections can be opened and closed while TIME_WAIT keeps its port; `None`
    /// where it does not, or where nobody knows for how long.
    pub max_connections_per_second: Option<f64>,
    /// Connections closed in the last 10 s, per second; `None` where how long TIME_WAIT is kept is
    /// unknown.
    pub closed_per_second: Option<f64>,
    /// Connections by state.
    pub by_state: BTreeMap<&'static str, u64>,
    /// Who opened them, most first, and no more than [`NatFlowReport::BEHIND`].
    pub behind: Vec<Behind>,
    /// How many addresses opened them, as far as they were told apart.
    pub behind_total: usize,
    /// How bad it is.
    pub level: Level,
    /// The share that finds no port though what is over is given up.
    #[serde(skip)]
    held_share: f64,
    /// Whether this kernel is known to look at a part of the ports.
    #[serde(skip)]
    looks_at_part: bool,
    #[serde(skip)]
    is_exhausted: bool,
    /// What is said where its ports are other ones, which may be and is worse.
    #[serde(skip)]
    otherwise: Option<String>,
}

/// An address that opened connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// Which.
    pub address: IpAddr,
    /// How many.
    pub connections: u64,
}

impl NatReport {
    /// What is said where connection tracking is not in use.
    #[must_use]
    pub fn none() -> Self {
        Self {
            source: None,
            tracked: 0,
            translated: 0,
            time_wait_seconds: None,
            rules: None,
            flows: Vec::new(),
            flows_examined: 0,
            insert_failed: None,
            dropped: None,
        }
    }

    /// Judges the flows of `table`, on the release `kernel` where it is known; all of them are listed.
    /// `is_failing` tells that connection tracking failed while it was looked at.
    #[must_use]
    pub fn new(
        table: &NatTable,
        kernel: Option<&str>,
        thresholds: Thresholds,
        is_failing: bool,
    ) -> Self {
        let kernel = Kernel::of(kernel);
        let mut known = HashMap::new();
        let mut flows: Vec<_> = table
            .flows
            .iter()
            .map(|(flow, used)| {
                let mut judged = |ports| {
                    let mut report =
                        NatFlowReport::new(*flow, used, ports, table.time_wait, kernel, &mut known);
                    report.judge(thresholds, is_failing);
                    report
                };
                let mut report = |(ports, from, rule): PossiblePorts| {
                    let pools = pools(ports, used).into_iter();
                    worst_of(pools.map(|pool| judged((pool, from, rule.clone()))))
                };
                let all = possible_ports(flow, used, table);
                one_of(all.into_iter().map(&mut report).collect())
            })
            .collect();
        flows.sort_by_key(|flow| {
            let key = (flow.source, flow.server(), flow.protocol, flow.zone);
            (Reverse((flow.level, flow.ports_taken)), key)
        });
        let rules = table.rules.as_ref().ok();
        Self {
            source: Some(table.source),
            tracked: table.tracked,
            translated: table.translated,
            time_wait_seconds: table.time_wait.map(|it| it.as_secs()),
            rules: rules.map(|rules| rules.iter().map(ToString::to_string).collect()),
            flows_examined: flows.len(),
            flows,
            insert_failed: None,
            dropped: None,
        }
    }

    /// What is said where nothing is wrong.
    #[must_use]
    pub fn quiet(&self) -> String {
        match (self.source, self.flows.first()) {
            (None, _) => {
                "Connection tracking is not in use here: nothing is translated (NAT).".into()
            }
            (Some(_), None) => format!(
                "No source is translated here (NAT), of {} tracked connections.",
                count(self.tracked)
            ),
            (Some(_), Some(fullest)) => format!(
                "Translated ports are not the problem either: the fullest flow, {}, holds {} where \
                 clients begin to hang from {} on.",
                fullest.name(),
                count(fullest.blocked()),
                fullest.hangs_from
            ),
        }
    }
}

impl NatFlowReport {
    /// So many origins are listed.
    pub const BEHIND: usize = 10;

    fn new(
        flow: NatFlow,
        used: &NatUse,
        (ports, ports_from, rule): PossiblePorts,
        time_wait: Option<Duration>,
        kernel: Kernel,
        known: &mut HashMap<u32, HangsFrom>,
    ) -> Self {
        let closed_given_up = kernel.gives_up_closed.then_some(true);
        let inside = |set: &PortSet| set.ports().filter(|&port| ports.contains(port)).count();
        let size = ports.len();
        let taken = u32::try_from(inside(&used.taken)).unwrap_or(size);
        let over = u32::try_from(inside(&used.over)).unwrap_or(taken);
        let mut hangs_from = *known.entry(size).or_insert_with(|| hangs_from(size));
        if !kernel.looks_at_part {
            hangs_from.latest = size;
        }
        let by_state = used
            .by_state
            .iter()
            .map(|(state, &connections)| (state.name(), connections))
            .collect();
        let mut behind: Vec<_> = used
            .origins
            .iter()
            .map(|(&address, &connections)| Behind {
                address,
                connections,
            })
            .collect();
        behind.sort_by_key(|it| (Reverse(it.connections), it.address));
        let behind_total = behind.len();
        behind.truncate(Self::BEHIND);
        let time_wait = time_wait.map(|it| it.as_secs_f64().max(1.0));
        let held_share = none_found_beside_closed(ports, &used.taken, &used.over);
        #[expect(clippy::cast_precision_loss)] // Far below 2^52.
        let closed = used.closed_recently as f64;
        Self {
            source: flow.source,
            destination: flow.destination,
            destination_port: flow.destination_port,
            protocol: flow.protocol,
            zone: flow.zone,
            ports,
            ports_from,
            rule,
            ports_taken: taken,
            ports_of_closed: over,
            ports_free: size - taken,
            closed_given_up,
            hanging_share: rounded(if closed_given_up.is_some() {
                held_share
            } else {
                Search::with(ports, &used.taken).none_found()
            }),
            held_share,
            looks_at_part: kernel.looks_at_part,
            hangs_from,
            max_connections_per_second: time_wait
                .filter(|_| closed_given_up.is_none())
                .map(|time_wait| rounded(f64::from(hangs_from.likely) / time_wait)),
            closed_per_second: time_wait.map(|_| rounded(closed / NatUse::RECENT.as_secs_f64())),
            by_state,
            behind,
            behind_total,
            level: Level::Ok,
            is_exhausted: false,
            otherwise: None,
        }
    }

    fn judge(&mut self, thresholds: Thresholds, is_failing: bool) {
        let likely = self.hangs_from.likely;
        let held = percent(self.ports_taken - self.ports_of_closed, likely);
        let hangs = self.hanging_share >= HANGS;
        let none_is_left = self.looks_at_part || self.ports_free == 0;
        self.is_exhausted = self.held_share >= HANGS && none_is_left || hangs && is_failing;
        self.level = if self.is_exhausted || held >= thresholds.crit {
            Level::Critical
        } else if held >= thresholds.warn
            // What is over may be given up, or not.
            || hangs
            || percent(self.blocked(), likely) >= thresholds.crit
        {
            Level::Warning
        } else {
            Level::Ok
        };
    }

    /// Ports that a new connection may not get.
    fn blocked(&self) -> u32 {
        match self.closed_given_up {
            Some(true) => self.ports_taken - self.ports_of_closed,
            _ => self.ports_taken,
        }
    }

    /// Whether new connections hang.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// Where the packets go.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.destination_port)
    }

    /// `from 192.0.2.1 toward 198.51.100.2:443`, and what else tells it from others.
    #[must_use]
    pub fn name(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => " (UDP)",
        };
        let zone = match self.zone {
            0 => String::new(),
            zone => format!(" in zone {zone}"),
        };
        format!(
            "from {} toward {}{protocol}{zone}",
            self.source,
            self.server()
        )
    }

    /// What is not known of it, where that may be worse than what is said: how many of its ports are
    /// taken hangs on which they are.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let otherwise = self.otherwise.as_ref()?;
        (self.level == Level::Unknown).then(|| {
            format!(
                "{} holds {} of the {} {}. {otherwise}",
                self.name(),
                count(self.ports_taken),
                count(self.ports.len()),
                self.whose_ports()
            )
        })
    }

    /// Where its ports are known from: `of "masquerade to :50000-50999"`.
    #[must_use]
    pub fn whose_ports(&self) -> String {
        let PortRange { low, high } = self.ports;
        let is_low = [BELOW_512, BELOW_1024].contains(&self.ports);
        match (&self.rule, self.ports_from) {
            (Some(rule), _) if is_low => {
                format!("from {low} to {high} that \"{rule}\" gives to clients' ports below 1024")
            }
            (Some(rule), _) => format!("of \"{rule}\""),
            (None, PortsFrom::Default) if is_low => format!(
                "from {low} to {high}, which clients' ports below 1024 get if the rule names none"
            ),
            (None, PortsFrom::Seen) => {
                format!("from {low} to {high} that its rule is seen to give")
            }
            (None, _) => format!("from {low} to {high}, if the rule names none"),
        }
    }

    /// Who is behind it: `10.1.0.2 (700), 10.1.0.3 (100)`.
    #[must_use]
    pub fn who(&self) -> String {
        let one = |it: &Behind| format!("{} ({})", it.address, count(it.connections));
        let mut names: Vec<_> = self.behind.iter().take(NAMED).map(one).collect();
        if self.behind_total > NAMED {
            let more = self.behind_total - NAMED;
            names.push(format!("{} more", count(more as u64)));
        }
        names.join(", ")
    }

    /// What to do.
    #[must_use]
    pub fn next_step(&self) -> String {
        let more = match self.ports_from {
            PortsFrom::Rule if self.ports == ANY => {
                "Give the rule more addresses to translate to (snat to FIRST-LAST)"
            }
            _ if [BELOW_512, BELOW_1024].contains(&self.ports) => {
                "Let the clients connect from ports from 1024 on (NFS: option noresvport), or name \
                 ports in the rule (to :1024-65535)"
            }
            _ => "Give the rule more ports, or more addresses to translate to",
        };
        if self.closed_given_up.is_none() && self.ports_of_closed * 2 > self.ports_taken {
            let bears = self
                .max_connections_per_second
                .map(|limit| format!(", which bears {} connections/s", rate(limit)));
            return format!(
                "Keep connections open behind it (a pool): each that is closed keeps its port for \
                 net.netfilter.nf_conntrack_tcp_timeout_time_wait{}. {more}.",
                bears.unwrap_or_default()
            );
        }
        format!(
            "{more}, or find what keeps so many connections open there. Which they are, as root: \
             `conntrack -L --src-nat {} --dport {}`.",
            self.source, self.destination_port
        )
    }
}

impl fmt::Display for NatFlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.ports_of_closed > 0 && self.held_share < HANGS;
        if self.is_exhausted || self.hanging_share >= HANGS {
            write!(
                f,
                "New connections that this machine translates {} hang{}",
                self.name(),
                if self.is_exhausted {
                    ""
                } else if self.held_share >= HANGS {
                    ", unless this kernel looks at every port for them, as those before Linux 5.0 did"
                } else {
                    ", unless this kernel gives up closed ones for them, as later ones do (Linux 6.5)"
                }
            )?;
            write!(
                f,
                ": {:.0} % of them find no port, at",
                (self.hanging_share * 100.0).floor().max(1.0)
            )?;
        } else {
            write!(f, "Translated ports get short {}: at", self.name())?;
        }
        write!(
            f,
            " {} taken of the {} {}",
            count(self.ports_taken),
            count(self.ports.len()),
            self.whose_ports()
        )?;
        if closed {
            write!(f, ", {} by closed ones", count(self.ports_of_closed))?;
        }
        write!(f, "; clients begin to hang from {} on", self.hangs_from)?;
        write!(f, ". Behind them: {}.", self.who())?;
        match &self.otherwise {
            Some(otherwise) => write!(f, " {otherwise}"),
            None => Ok(()),
        }
    }
}

/// What is known of how a kernel looks for a port.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    /// At a part of the ports (commit a504b703bb1d, Linux 5.0). An older one may do that too, as 4.19
    /// and 4.14 since 2022, and does not tell; else it looks at every port.
    looks_at_part: bool,
    /// It gives up closed connections where it finds no free port (commit 458972550287, Linux 6.5).
    /// An older one may have that too, and does not tell.
    gives_up_closed: bool,
}

impl Kernel {
    fn of(release: Option<&str>) -> Self {
        let mut numbers = release
            .unwrap_or_default()
            .split(|letter: char| !letter.is_ascii_digit())
            .map_while(|number| number.parse::<u32>().ok());
        let version = numbers.next().zip(numbers.next());
        Self {
            looks_at_part: version >= Some((5, 0)),
            gives_up_closed: version >= Some((6, 5)),
        }
    }
}

/// Ports that a flow may have, where they are known from, and the rule.
type PossiblePorts = (PortRange, PortsFrom, Option<String>);

/// The ports that `flow` may have, the likeliest first.
fn possible_ports(flow: &NatFlow, used: &NatUse, table: &NatTable) -> Vec<PossiblePorts> {
    let (given, changed) = (span(&used.translated), span(&used.changed));
    let rules = table.rules.iter().flatten();
    let giving: Vec<_> = rules
        .filter(|rule| rule.may_give(flow, used, &table.own))
        .collect();
    let mut all: Vec<PossiblePorts> = Vec::new();
    for rule in &giving {
        let range = match rule.ports {
            RulePorts::Any => ANY,
            RulePorts::Range(range) => range,
            RulePorts::Unknown => continue,
        };
        if all.iter().all(|(known, ..)| *known != range) {
            all.push((range, PortsFrom::Rule, Some(rule.to_string())));
        }
    }
    let holds = |range: &PortRange| {
        *range == ANY
            || given.is_none_or(|given| range.contains(given.low) && range.contains(given.high))
    };
    all.sort_by_key(|(range, ..)| (!holds(range), range.len()));
    if giving.is_empty() || giving.iter().any(|rule| rule.ports == RulePorts::Unknown) {
        let is_telling =
            |span: &PortRange| used.changed.len() >= TELLING && span.len() * 2 < ANY.len();
        match (changed.filter(is_telling), given) {
            (Some(changed), _) => all.push((changed, PortsFrom::Seen, None)),
            (None, given) => {
                all.push((ANY, PortsFrom::Default, None));
                // Whatever the rule gives, it is no less.
                all.extend(given.map(|given| (given, PortsFrom::Seen, None)));
            }
        }
    }
    all
}

/// The ranges that new connections get their ports from, by those that the present ones have: where a
/// rule names none there are three, by the port that the client chose.
fn pools(ports: PortRange, used: &NatUse) -> Vec<PortRange> {
    let seen = |low, high| {
        used.translated
            .ports()
            .any(|port| (low..=high).contains(&port))
    };
    let all = [
        (BELOW_512, seen(1, 511)),
        (BELOW_1024, seen(512, 1023)),
        (ANY, seen(1024, u16::MAX)),
    ];
    let is_used = all.iter().any(|(_, is_used)| *is_used);
    if ports != ANY || !is_used {
        return vec![ports];
    }
    let of_use = all.into_iter().filter(|(_, is_used)| *is_used);
    of_use.map(|(pool, _)| pool).collect()
}

fn span(ports: &PortSet) -> Option<PortRange> {
    ports.ports().fold(None, |span: Option<PortRange>, port| {
        let low = span.map_or(port, |span| span.low);
        Some(PortRange { low, high: port })
    })
}

/// Of what is said of a flow for each of the ports that it may have the mildest, which holds anyhow;
/// with what is worse, and may be so.
fn one_of(said: Vec<NatFlowReport>) -> NatFlowReport {
    let worst = said.iter().max_by_key(|it| it.level).map(|it| {
        let said = format!(
            "If its ports are the {} {}, {} of them are taken.",
            count(it.ports.len()),
            it.whose_ports(),
            count(it.ports_taken)
        );
        (it.level, said)
    });
    // The first of those that are as mild.
    let mildest = said.into_iter().min_by_key(|it| it.level);
    let mut mildest = mildest.expect("a flow has ports, known or not");
    if let Some((_, said)) = worst.filter(|(level, _)| *level > mildest.level) {
        mildest.level = mildest.level.max(Level::Unknown);
        mildest.otherwise = Some(said);
    }
    mildest
}

/// What is said of the pool that is the worst off.
fn worst_of(pools: impl Iterator<Item = NatFlowReport>) -> NatFlowReport {
    let worst = pools.max_by_key(|it| (it.level, it.ports_taken));
    worst.expect("there is one at least")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{LeavesBy, Matches, NatRule, Prefix, Tracked, TrackedState};

    const DEFAULT: Thresholds = Thresholds {
        warn: 50.0,
        crit: 80.0,
    };
    const TIME_WAIT: Duration = Duration::from_secs(120);

    fn used(ports: impl IntoIterator<Item = u16>, state: &str) -> NatUse {
        let mut used = NatUse::default();
        for port in ports {
            let tracked = Tracked {
                flow: flow(),
                port,
                origin: [10, 1, 0, 2].into(),
                origin_port: 40000,
                state: TrackedState::from_name(state).unwrap(),
                left: Some(Duration::from_secs(115)),
            };
            used.add(&tracked, Some(TIME_WAIT));
        }
        used
    }

    fn flow() -> NatFlow {
        NatFlow {
            source: [10, 2, 0, 1].into(),
            destination: [10, 2, 0, 2].into(),
            destination_port: 3306,
            protocol: Protocol::Tcp,
            zone: 0,
        }
    }

    fn rule(ports: RulePorts) -> NatRule {
        NatRule {
            addresses: None,
            ports,
            matches: Matches::default(),
        }
    }

    fn thousand() -> RulePorts {
        RulePorts::Range(PortRange {
            low: 50000,
            high: 50999,
        })
    }

    fn judged(
        used: NatUse,
        rules: Result<Vec<NatRule>, String>,
        is_failing: bool,
    ) -> NatFlowReport {
        judged_on("6.1.0-32-amd64", used, rules, is_failing)
    }

    fn judged_on(
        kernel: &str,
        used: NatUse,
        rules: Result<Vec<NatRule>, String>,
        is_failing: bool,
    ) -> NatFlowReport {
        let table = NatTable {
            source: TrackingSource::Ctnetlink,
            tracked: 1000,
            translated: 1000,
            flows: HashMap::from([(flow(), used)]),
            malformed: 0,
            rules,
            own: vec![("out".into(), [10, 2, 0, 1].into())],
            time_wait: Some(TIME_WAIT),
        };
        NatReport::new(&table, Some(kernel), DEFAULT, is_failing)
            .flows
            .remove(0)
    }

    #[test]
    fn levels_hold_on_both_sides_of_each_threshold() {
        use Level::{Critical, Ok as Fine, Warning};
        let likely = u16::try_from(hangs_from(1000).likely).unwrap();
        // In no order, so that there are no long runs.
        let ports = |number: u16| (0..u32::from(number)).map(|at| 50000 + (at * 389 % 1000) as u16);
        let level = |number, state, is_failing| {
            let report = judged(
                used(ports(number), state),
                Ok(vec![rule(thousand())]),
                is_failing,
            );
            (report.level, report.is_exhausted())
        };
        let (warn, crit) = (likely.div_ceil(2), (likely * 8).div_ceil(10));
        for (number, held, over) in [
            (warn - 1, (Fine, false), (Fine, false)),
            (warn, (Warning, false), (Fine, false)),
            (crit - 1, (Warning, false), (Fine, false)),
            (crit, (Critical, false), (Warning, false)),
            (1000, (Critical, true), (Warning, false)),
        ] {
            assert_eq!(level(number, "ESTABLISHED", false), held, "{number}");
            assert_eq!(level(number, "TIME_WAIT", false), over, "{number}");
        }
        assert_eq!(level(1000, "TIME_WAIT", true), (Critical, true));
    }

    #[test]
    fn closed_ones_count_as_free_where_the_kernel_gives_them_up() {
        for (kernel, level, share, limit) in [
            ("6.1.0", Level::Warning, 1.0, true),
            ("5.14.0-503.el9", Level::Warning, 1.0, true),
            ("6.5.0", Level::Ok, 0.0, false),
            ("6.18.44-fc-v669", Level::Ok, 0.0, false),
            ("7.0", Level::Ok, 0.0, false),
            ("unknown", Level::Warning, 1.0, true),
        ] {
            let closed = used(50000..51000, "TIME_WAIT");
            let report = judged_on(kernel, closed, Ok(vec![rule(thousand())]), false);
            assert_eq!(
                (report.level, report.hanging_share),
                (level, share),
                "{kernel}"
            );
            assert_eq!(
                report.max_connections_per_second.is_some(),
                limit,
                "{kernel}"
            );
            let held = used(50000..51000, "ESTABLISHED");
            let report = judged_on(kernel, held, Ok(vec![rule(thousand())]), false);
            assert_eq!((report.level, report.hanging_share), (Level::Critical, 1.0));
        }
    }

    #[test]
    fn ports_are_those_of_the_rule_or_those_seen_or_the_kernels() {
        let thousand = thousand();
        let all = Some("masquerade to :50000-50999".to_owned());
        let from = |ports: &[u16], rules: Result<Vec<NatRule>, String>| {
            let report = judged(used(ports.iter().copied(), "ESTABLISHED"), rules, false);
            (report.ports.len(), report.ports_from, report.rule)
        };
        let unread = || Err("no".to_owned());
        let few: Vec<u16> = (50000..50019).collect();
        let many: Vec<u16> = (0..20).map(|at| 50000 + at * 10).collect();
        let wide: Vec<u16> = (0..20).map(|at| 1024 + at * 3000).collect();
        let both = || vec![rule(RulePorts::Any), rule(thousand)];
        assert_eq!(from(&few, Ok(both())), (1000, PortsFrom::Rule, all));
        assert_eq!(
            from(&wide, Ok(both())),
            (64512, PortsFrom::Rule, Some("masquerade".into()))
        );
        let elsewhere = NatRule {
            addresses: Some(([192, 0, 2, 1].into(), [192, 0, 2, 9].into())),
            ..rule(thousand)
        };
        assert_eq!(
            from(&few, Ok(vec![elsewhere])),
            (64512, PortsFrom::Default, None)
        );
        assert_eq!(
            from(&few, Ok(vec![rule(RulePorts::Unknown)])),
            (64512, PortsFrom::Default, None)
        );
        assert_eq!(from(&few, unread()), (64512, PortsFrom::Default, None));
        assert_eq!(from(&many, unread()), (191, PortsFrom::Seen, None));
        assert_eq!(from(&wide, unread()), (64512, PortsFrom::Default, None));
    }

    #[test]
    fn of_few_connections_nothing_is_known_without_the_rule() {
        let level = |ports: &[u16], rules| {
            let report = judged(used(ports.iter().copied(), "ESTABLISHED"), rules, false);
            (report.level, report.doubt())
        };
        let unread = || Err("no".to_owned());
        // A rule with these ports has none left.
        let (few, doubt) = level(&[50000, 50001, 50002], unread());
        assert_eq!(
            (few, doubt.as_deref()),
            (
                Level::Unknown,
                Some(
                    "from 10.2.0.1 toward 10.2.0.2:3306 holds 3 of the 64,512 from 1024 to 65535, if \
                     the rule names none. If its ports are the 3 from 50000 to 50002 that its rule is \
                     seen to give, 3 of them are taken."
                )
            )
        );
        assert_eq!(level(&[33000, 50001, 60002], unread()), (Level::Ok, None));
        let any = || Ok(vec![rule(RulePorts::Any)]);
        assert_eq!(level(&[50000, 50001, 50002], any()), (Level::Ok, None));
        let by_map = Ok(vec![rule(RulePorts::Unknown)]);
        assert_eq!(level(&[50000], by_map).0, Level::Unknown);
    }

    #[test]
    fn where_two_rules_may_apply_both_are_said_and_what_rules_one_out_is_heeded() {
        let asking = |ports, matches| NatRule {
            matches,
            ..rule(ports)
        };
        let judged = |matches: Matches| {
            let rules = vec![rule(RulePorts::Any), asking(thousand(), matches)];
            judged(used(50000..50950, "ESTABLISHED"), Ok(rules), false)
        };
        let by = |name: &str, is_prefix| Matches {
            interface: Some(LeavesBy {
                name: name.into(),
                is_prefix,
            }),
            ..Matches::default()
        };
        let prefix = |octets: &[u8]| {
            Some(Prefix {
                octets: octets.into(),
                mask: vec![0xff; octets.len()],
                is_v4: true,
            })
        };
        let origin = |octets: &[u8]| Matches {
            origin: prefix(octets),
            ..Matches::default()
        };
        let destination = |octets: &[u8]| Matches {
            destination: prefix(octets),
            ..Matches::default()
        };
        let other = Matches {
            protocol: Some(17),
            ..Matches::default()
        };
        let https = Matches {
            port: Some(443),
            ..Matches::default()
        };
        for (matches, may_apply) in [
            (Matches::default(), true),
            (by("out", false), true),
            (by("ou", true), true),
            (by("ou", false), false),
            (by("vpn", false), false),
            (origin(&[10, 1, 0]), true),
            (origin(&[10, 3]), false),
            (destination(&[10, 2, 0, 2]), true),
            (destination(&[10, 2, 0, 3]), false),
            (other, false),
            (https, false),
        ] {
            let report = judged(matches.clone());
            let level = if may_apply { Level::Unknown } else { Level::Ok };
            assert_eq!(
                (report.level, report.ports.len()),
                (level, 64512),
                "{matches:?}"
            );
            let both = report.doubt().is_some_and(|doubt| {
                doubt.contains("950 of the 64,512 of \"masquerade\"")
                    && doubt.contains("the 1,000 of \"masquerade to :50000-50999\", 950 of them")
            });
            assert_eq!(both, may_apply, "{:?}", report.doubt());
        }
    }

    #[test]
    fn before_linux_5_clients_may_get_every_port() {
        let at = |number: u16, kernel| {
            let held = used(50000..50000 + number, "ESTABLISHED");
            let report = judged_on(kernel, held, Ok(vec![rule(thousand())]), false);
            (report.is_exhausted(), report.hangs_from.latest == 1000)
        };
        for (kernel, looks_at_all) in [
            ("4.18.0-553.el8", true),
            ("3.10.0", true),
            ("unknown", true),
            ("5.4.0", false),
        ] {
            assert_eq!(at(990, kernel), (!looks_at_all, looks_at_all), "{kernel}");
            assert!(at(1000, kernel).0, "{kernel}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        let report = judged(
            used(50000..51000, "ESTABLISHED"),
            Ok(vec![rule(thousand())]),
            false,
        );
        assert_eq!(
            report.to_string(),
            format!(
                "New connections that this machine translates from 10.2.0.1 toward 10.2.0.2:3306 \
                 hang: 100 % of them find no port, at 1,000 taken of the 1,000 of \"masquerade to \
                 :50000-50999\"; clients begin to hang from {} on. Behind them: 10.1.0.2 (1,000).",
                report.hangs_from
            )
        );
    }
}
