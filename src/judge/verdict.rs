//! Whether ports run out, toward which destination, and what to do.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Capacity;
use super::capacity::tenths;
use crate::exit::Exit;
use crate::model::{
    Flow, FlowUse, Gap, Host, Snapshot, StateCounts, TcpState, TimeWaitSplit, Tunables,
};
use crate::words::{count, percent, rate, rate_limit};

/// How bad it is, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something decisive could not be read.
    Unknown,
    /// Look at it today.
    Warning,
    /// Connections fail, or are about to.
    Critical,
}

impl Level {
    /// The word that monitoring plugins print.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl From<Level> for Exit {
    fn from(level: Level) -> Self {
        match level {
            Level::Ok => Self::Ok,
            Level::Unknown => Self::Unknown,
            Level::Warning => Self::Warning,
            Level::Critical => Self::Critical,
        }
    }
}

/// From which share of the usable ports on a flow is low, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// WARNING from here.
    pub warn: f64,
    /// CRITICAL from here.
    pub crit: f64,
}

/// connect() is called slow once at most this part of a flow's fast ports is free. The search goes
/// port by port at some 0.4 µs each (5.4 ms for 14,116, measured on Linux 6.18), so with one in 200
/// free it takes some 80 µs, four times what a connect() on loopback costs otherwise.
const FAST_PORTS_SPENT: u32 = 200;

/// TW_BUCKET_OVERFLOW is happening now, not in the past, from this share of the limit on. Sockets
/// leave every moment, so a table that overflows is seldom found exactly full.
const BUCKETS_NEARLY_FULL: f64 = 90.0;

/// Everything `verdict` says, in the order of the JSON contract.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verdict {
    /// Version of this structure.
    pub schema: u32,
    /// The worst of the findings.
    pub level: Level,
    /// One sentence for the incident call.
    pub summary: String,
    /// The machine.
    pub host: Host,
    /// Its settings.
    pub tunables: Tunables,
    /// Its ports; `None` when the range is unknown.
    pub capacity: Option<Capacity>,
    /// TIME_WAIT in all.
    pub time_wait: TimeWaitReport,
    /// The worst flows first.
    pub flows: Vec<FlowReport>,
    /// What is wrong, worst first.
    pub findings: Vec<Reported>,
    /// How many outbound flows there are, listed or not.
    pub flows_total: usize,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// TIME_WAIT in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TimeWaitReport {
    /// By direction.
    #[serde(flatten)]
    pub split: TimeWaitSplit,
    /// `tcp_max_tw_buckets`; `None` when unknown.
    pub limit: Option<u64>,
    /// `TCPTimeWaitOverflow` since the namespace was made; `None` when unknown.
    pub overflows: Option<u64>,
}

impl TimeWaitReport {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            split: snapshot.tally.time_wait,
            limit: snapshot.tunables.tcp_max_tw_buckets,
            overflows: snapshot.counters.time_wait_overflows,
        }
    }
}

/// One outbound flow.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FlowReport {
    /// Local address.
    pub source: IpAddr,
    /// The server's address.
    pub destination: IpAddr,
    /// The server's port.
    pub destination_port: u16,
    /// Loopback by address, as the kernel judges it.
    pub loopback: bool,
    /// Whether TIME_WAIT reuse applies; `None` when unknown.
    pub reuse_applies: Option<bool>,
    /// Ports the flow takes, in any state.
    pub ports_in_use: u32,
    /// Ports it can still have; `None` when the range is unknown.
    pub ports_free: Option<u32>,
    /// Its sockets by state.
    pub by_state: StateCounts,
    /// The highest rate it can keep up; `None` when unknown or not bound by ports.
    #[serde(serialize_with = "tenths")]
    pub max_connections_per_second: Option<f64>,
    /// How bad it is.
    pub level: Level,
}

/// A finding with its level and its flow's place in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// How bad it is.
    pub level: Level,
    /// Index into [`Verdict::flows`]; `None` when it is about the machine.
    pub flow: Option<usize>,
    /// What.
    pub finding: Finding,
}

impl Serialize for Reported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("code", self.finding.code())?;
        object.serialize_field("level", &self.level)?;
        object.serialize_field("flow", &self.flow)?;
        object.serialize_field("message", &self.finding.to_string())?;
        object.serialize_field("next_step", &self.finding.next_step())?;
        object.end()
    }
}

/// The ports of one flow, as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Ports {
    /// Which.
    pub flow: Flow,
    /// Ports connect() cannot have.
    pub blocked: u32,
    /// Ports there are.
    pub usable: u32,
    /// Sockets of the flow by state.
    pub by_state: StateCounts,
    /// The rate it can keep up.
    pub max_rate: Option<f64>,
    /// The rate it could keep up if TIME_WAIT were reused; `None` where it is already.
    pub max_rate_with_reuse: Option<f64>,
}

/// What can be wrong. The code is stable, the text is the evidence.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A flow has no free port.
    PortsExhausted(Ports),
    /// A flow is above a threshold of its usable ports.
    PortsLow(Ports),
    /// A flow uses its fast ports up: each connect() searches.
    ConnectSlow {
        /// Which.
        flow: Flow,
        /// Fast ports taken.
        blocked: u32,
        /// Fast ports there are.
        fast: u32,
        /// The rate up to which connect() stays cheap.
        fast_rate: Option<f64>,
    },
    /// The ports of a full flow are held by open connections, not by TIME_WAIT.
    HeldOpen(Ports),
    /// TIME_WAIT sockets were dropped at `tcp_max_tw_buckets`.
    TwBucketOverflow {
        /// TIME_WAIT sockets now.
        total: u64,
        /// `tcp_max_tw_buckets`.
        limit: u64,
        /// Dropped since the namespace was made.
        overflows: u64,
        /// Whether it is happening now.
        now: bool,
        /// Whether the limit is below the usable ports.
        below_ports: bool,
    },
    /// A setting that breaks connections.
    DangerousSetting {
        /// The sysctl's name.
        sysctl: &'static str,
        /// Its value.
        value: u64,
    },
    /// Something decisive was not readable.
    CouldNotRead(Gap),
}

impl Finding {
    /// The code a user can cite.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PortsExhausted(_) => "PORTS_EXHAUSTED",
            Self::PortsLow(_) => "PORTS_LOW",
            Self::ConnectSlow { .. } => "CONNECT_SLOW",
            Self::HeldOpen(_) => "HELD_OPEN",
            Self::TwBucketOverflow { .. } => "TW_BUCKET_OVERFLOW",
            Self::DangerousSetting { .. } => "DANGEROUS_SETTING",
            Self::CouldNotRead(_) => "COULD_NOT_READ",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::PortsExhausted(ports) | Self::PortsLow(ports) => {
                if held_open(&ports.by_state) {
                    return "See HELD_OPEN: settings for TIME_WAIT would not help.".into();
                }
                match ports.max_rate_with_reuse {
                    Some(with_reuse) => format!(
                        "Keep connections open (a pool). Until then sysctl -w \
                         net.ipv4.tcp_tw_reuse=1 with net.ipv4.tcp_timestamps=1 on this side \
                         lifts the limit from {} to {} connections/s; `twcheck advise` shows what \
                         else does.",
                        rate_limit(ports.max_rate),
                        rate(with_reuse)
                    ),
                    None => "Keep connections open (a pool): TIME_WAIT reuse is already in force. \
                             `twcheck advise` shows what else raises the limit."
                        .into(),
                }
            }
            Self::ConnectSlow { .. } => {
                "Keep connections open (a pool), or widen net.ipv4.ip_local_port_range: see \
                 `twcheck advise`."
                    .into()
            }
            Self::HeldOpen(ports) => format!(
                "Find who holds them: ss -tnp dst {}. Then close what leaks, or make the pool \
                 smaller than {}.",
                ports.flow.server(),
                count(ports.usable)
            ),
            Self::TwBucketOverflow {
                limit, below_ports, ..
            } => format!(
                "Raise net.ipv4.tcp_max_tw_buckets above {}{}; a TIME_WAIT takes some 250 bytes.",
                count(*limit),
                if *below_ports {
                    " and the number of usable ports"
                } else {
                    ""
                }
            ),
            Self::DangerousSetting { sysctl, .. } => {
                format!("sysctl -w {sysctl}=0, and remove it from /etc/sysctl.d.")
            }
            Self::CouldNotRead(_) => {
                "Until it can be read the verdict may be wrong: try the other --source, another \
                 user, or the host instead of the container."
                    .into()
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortsExhausted(ports) => write!(
                f,
                "No port is free from {} toward {}: {} of {} are taken ({}). New connections there \
                 fail with errno 99.",
                ports.flow.source,
                ports.flow.server(),
                count(ports.blocked),
                count(ports.usable),
                states(&ports.by_state)
            ),
            Self::PortsLow(ports) => write!(
                f,
                "{:.0} % of the ports from {} toward {} are taken: {} of {} ({}).",
                percent(ports.blocked, ports.usable).floor(),
                ports.flow.source,
                ports.flow.server(),
                count(ports.blocked),
                count(ports.usable),
                states(&ports.by_state)
            ),
            Self::ConnectSlow {
                flow,
                blocked,
                fast,
                fast_rate,
            } => write!(
                f,
                "Each connect() from {} toward {} searches for a port: {} of the {} fast ports \
                 are taken. Above {} connections/s they always are.",
                flow.source,
                flow.server(),
                count(*blocked),
                count(*fast),
                rate_limit(*fast_rate)
            ),
            Self::HeldOpen(ports) => write!(
                f,
                "The ports from {} toward {} are held by open connections ({}), not by TIME_WAIT: \
                 a leak, or a pool that is too large.",
                ports.flow.source,
                ports.flow.server(),
                states(&ports.by_state)
            ),
            Self::TwBucketOverflow {
                total,
                limit,
                overflows,
                now,
                below_ports,
            } => {
                if *now {
                    write!(
                        f,
                        "{} TIME_WAIT sockets of at most {}: the kernel drops those beyond \
                         ({} so far), and their protection with them.",
                        count(*total),
                        count(*limit),
                        count(*overflows)
                    )?;
                } else {
                    write!(
                        f,
                        "The kernel has dropped {} TIME_WAIT sockets at tcp_max_tw_buckets = {}, \
                         but does not now ({} held).",
                        count(*overflows),
                        count(*limit),
                        count(*total)
                    )?;
                }
                if *below_ports {
                    f.write_str(
                        " The limit is below the number of usable ports, so ports do not bound the \
                         rate.",
                    )?;
                }
                Ok(())
            }
            Self::DangerousSetting { sysctl, value } => write!(
                f,
                "{sysctl} = {value} drops connections of clients behind NAT; Linux 4.12 removed it."
            ),
            Self::CouldNotRead(gap) => write!(f, "{}: {}.", gap.what, gap.why),
        }
    }
}

/// The three commonest states: `27,990 TIME_WAIT, 10 ESTABLISHED`.
fn states(by_state: &StateCounts) -> String {
    by_state
        .largest_first()
        .into_iter()
        .take(3)
        .map(|(state, number)| format!("{} {}", count(number), state.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether most of a flow's sockets are open connections.
fn held_open(by_state: &StateCounts) -> bool {
    by_state.get(TcpState::Established) * 2 > by_state.total()
}

/// Judges one snapshot; lists at most `top` flows, all for 0.
#[must_use]
pub fn verdict(snapshot: &Snapshot, thresholds: Thresholds, top: usize) -> Verdict {
    let capacity = Capacity::new(&snapshot.tunables, &snapshot.held());
    let judged = Judged {
        tunables: &snapshot.tunables,
        capacity: capacity.as_ref(),
        thresholds,
    };
    let mut flows: Vec<_> = snapshot
        .tally
        .flows
        .iter()
        .map(|(flow, used)| {
            let reuse = judged.tunables.reuse_applies_to(flow);
            (
                judged.level(flow, used),
                used.ports_blocked(reuse),
                flow,
                used,
            )
        })
        .collect();
    flows.sort_unstable_by_key(|&(level, blocked, flow, _)| (Reverse((level, blocked)), *flow));
    let flows_total = flows.len();
    let listed = if top == 0 { flows_total } else { top };

    let mut findings = Vec::new();
    let mut reports = Vec::new();
    for (index, &(level, _, flow, used)) in flows.iter().take(listed).enumerate() {
        findings.extend(
            judged
                .findings(flow, used)
                .into_iter()
                .map(|(level, finding)| Reported {
                    level,
                    flow: Some(index),
                    finding,
                }),
        );
        reports.push(judged.report(flow, used, level));
    }
    findings.extend(machine_findings(snapshot, capacity.as_ref()));
    findings.sort_by_key(|reported| Reverse(reported.level));

    let level = findings
        .iter()
        .map(|reported| reported.level)
        .max()
        .unwrap_or(Level::Ok);
    let in_trouble = flows
        .iter()
        .filter(|&&(level, ..)| level > Level::Ok)
        .count();
    Verdict {
        schema: 1,
        level,
        summary: summary(&findings, reports.first(), capacity.as_ref(), in_trouble),
        host: snapshot.host.clone(),
        tunables: snapshot.tunables.clone(),
        capacity,
        time_wait: TimeWaitReport::new(snapshot),
        flows: reports,
        findings,
        flows_total,
        gaps: snapshot.all_gaps().collect(),
    }
}

/// What every flow is judged by.
struct Judged<'a> {
    tunables: &'a Tunables,
    capacity: Option<&'a Capacity>,
    thresholds: Thresholds,
}

impl Judged<'_> {
    fn level(&self, flow: &Flow, used: &FlowUse) -> Level {
        self.findings(flow, used)
            .into_iter()
            .map(|(level, _)| level)
            .max()
            .unwrap_or(Level::Ok)
    }

    fn findings(&self, flow: &Flow, used: &FlowUse) -> Vec<(Level, Finding)> {
        let Some(capacity) = self.capacity else {
            return Vec::new();
        };
        let reuse = self.tunables.reuse_applies_to(flow);
        let blocked = used.ports_blocked(reuse);
        let share = percent(blocked, capacity.usable_ports);
        let ports = || Ports {
            flow: *flow,
            blocked,
            usable: capacity.usable_ports,
            by_state: used.by_state.clone(),
            max_rate: capacity.max_rate(reuse),
            max_rate_with_reuse: if reuse { None } else { capacity.max_rate(true) },
        };
        let mut findings = Vec::new();
        let exhausted = blocked > 0 && blocked >= capacity.usable_ports;
        let level = if exhausted || share >= self.thresholds.crit {
            Level::Critical
        } else {
            Level::Warning
        };
        if exhausted {
            findings.push((level, Finding::PortsExhausted(ports())));
        } else if share >= self.thresholds.warn
            && blocked > 0
            && (!capacity.buckets_bound() || held_open(&used.by_state))
        {
            // Under a bucket limit below the ports TIME_WAIT alone cannot take them all.
            findings.push((level, Finding::PortsLow(ports())));
        }
        if !findings.is_empty() && held_open(&used.by_state) {
            findings.push((level, Finding::HeldOpen(ports())));
        }
        let fast_blocked = used.fast_blocked(reuse);
        let fast_free = capacity.fast_ports.saturating_sub(fast_blocked);
        if !exhausted && fast_blocked > 0 && fast_free * FAST_PORTS_SPENT <= capacity.fast_ports {
            findings.push((
                Level::Warning,
                Finding::ConnectSlow {
                    flow: *flow,
                    blocked: fast_blocked,
                    fast: capacity.fast_ports,
                    fast_rate: capacity.fast_connections_per_second,
                },
            ));
        }
        findings
    }

    fn report(&self, flow: &Flow, used: &FlowUse, level: Level) -> FlowReport {
        let reuse = self.tunables.reuse_applies_to(flow);
        FlowReport {
            source: flow.source,
            destination: flow.destination,
            destination_port: flow.destination_port,
            loopback: flow.is_loopback(),
            reuse_applies: self.tunables.reuse_applies(flow.is_loopback()),
            ports_in_use: used.ports_in_use,
            ports_free: self.capacity.map(|capacity| {
                capacity
                    .usable_ports
                    .saturating_sub(used.ports_blocked(reuse))
            }),
            by_state: used.by_state.clone(),
            max_connections_per_second: self.capacity.and_then(|capacity| capacity.max_rate(reuse)),
            level,
        }
    }
}

/// Findings about the machine as a whole.
fn machine_findings(snapshot: &Snapshot, capacity: Option<&Capacity>) -> Vec<Reported> {
    let mut findings = Vec::new();
    let mut found = |level, finding| {
        findings.push(Reported {
            level,
            flow: None,
            finding,
        });
    };
    let total = snapshot.tally.time_wait.total;
    let overflows = snapshot.counters.time_wait_overflows.unwrap_or(0);
    if let (Some(limit), true) = (snapshot.tunables.tcp_max_tw_buckets, overflows > 0) {
        let now = percent(total, limit) >= BUCKETS_NEARLY_FULL;
        found(
            if now { Level::Warning } else { Level::Ok },
            Finding::TwBucketOverflow {
                total,
                limit,
                overflows,
                now,
                below_ports: capacity.is_some_and(Capacity::buckets_bound),
            },
        );
    }
    if let Some(value) = snapshot.tunables.tcp_tw_recycle.filter(|&value| value != 0) {
        let sysctl = "net.ipv4.tcp_tw_recycle";
        found(Level::Warning, Finding::DangerousSetting { sysctl, value });
    }
    for gap in snapshot.gaps.iter().filter(|gap| gap.decisive) {
        found(Level::Unknown, Finding::CouldNotRead(gap.clone()));
    }
    findings
}

/// One sentence that a person can read out in an incident call.
fn summary(
    findings: &[Reported],
    fullest: Option<&FlowReport>,
    capacity: Option<&Capacity>,
    in_trouble: usize,
) -> String {
    if let Some(worst) = findings.first().filter(|worst| worst.level > Level::Ok) {
        return match in_trouble - usize::from(worst.flow.is_some()) {
            0 => worst.finding.to_string(),
            1 => format!("{} One more flow is in trouble.", worst.finding),
            more => format!(
                "{} {} more flows are in trouble.",
                worst.finding,
                count(more as u64)
            ),
        };
    }
    match (capacity, fullest) {
        (None, _) => "Nothing can be said about ports without their range.".into(),
        (Some(capacity), Some(flow)) => format!(
            "Ports are not the problem: the fullest flow, {} to {}, takes {} of {}.",
            flow.source,
            SocketAddr::new(flow.destination, flow.destination_port),
            count(flow.ports_in_use),
            count(capacity.usable_ports)
        ),
        (Some(capacity), None) => format!(
            "Ports are not the problem: no outbound connection takes any of the {}.",
            count(capacity.usable_ports)
        ),
    }
}
