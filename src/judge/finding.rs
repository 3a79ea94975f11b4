//! What can be wrong, in words: codes, evidence, next steps.

use std::fmt;
use std::net::SocketAddr;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::destination::Trouble;
use super::files::Files;
use super::forecast::{Exhaustion, Pace};
use super::level::Level;
use super::nat::NatFlowReport;
use super::source::{Pool, SourceBound};
use crate::model::{Flow, Gap, Namespace, Origin, Owner, Reuse, StateCounts, TcpState};
use crate::words::{count, counted, percent, rate};

/// The ports of one flow, as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Ports {
    /// Which.
    pub flow: Flow,
    /// Ports connect() cannot have; where it is open whether TIME_WAIT is reused, without that.
    pub blocked: u32,
    /// The same as the table shows it: fewer where the kernel, asked for one, had none all the same.
    pub counted: u32,
    /// Ports there are.
    pub usable: u32,
    /// Sockets that block them, by state.
    pub by_state: StateCounts,
    /// Whether TIME_WAIT is reused.
    pub reuse: Reuse,
    /// The rate it can keep up; `None` where ports do not bound it.
    pub max_rate: Option<f64>,
    /// The rate it could keep up if TIME_WAIT were reused; `None` likewise.
    pub max_rate_with_reuse: Option<f64>,
}

/// What takes the ports of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Connections opened and closed again: each holds its port for the hold time.
    Churn,
    /// Open connections.
    HeldOpen,
    /// Connections that the peer has closed and the application has not.
    CloseWait,
    /// Attempts that nobody answers.
    SynSent,
    /// None of these by itself: connections half closed, or a mixture.
    Mixed,
}

impl Cause {
    /// The one that takes more than half of the sockets.
    #[must_use]
    pub fn of(by_state: &StateCounts) -> Self {
        let most = |state| by_state.get(state) * 2 > by_state.total();
        if most(TcpState::Established) {
            Self::HeldOpen
        } else if most(TcpState::CloseWait) {
            Self::CloseWait
        } else if most(TcpState::SynSent) {
            Self::SynSent
        } else if most(TcpState::TimeWait) {
            Self::Churn
        } else {
            Self::Mixed
        }
    }

    /// The finding that names it; `None` where PORTS_EXHAUSTED and PORTS_LOW themselves do.
    #[must_use]
    pub fn finding(self, ports: Ports) -> Option<Finding> {
        match self {
            Self::Churn | Self::Mixed => None,
            Self::HeldOpen => Some(Finding::HeldOpen(ports)),
            Self::CloseWait => Some(Finding::CloseWaitLeak(ports)),
            Self::SynSent => Some(Finding::SynSentPile(ports)),
        }
    }
}

/// What can be wrong. The code is stable, the text is the evidence.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A flow has no free port.
    PortsExhausted(Ports),
    /// No flow can have any: the range is reserved or bound as a whole.
    NoUsablePort {
        /// Ports in the range.
        range: u32,
        /// Of these reserved.
        reserved: u32,
        /// Of the rest bound.
        bound: u32,
    },
    /// bind() holds ports, and leaves few to connect() or to itself.
    SourceBound(Pool),
    /// A flow takes all of a part of the range and nothing beside it.
    OwnRange {
        /// Which.
        flow: Flow,
        /// The first and the last port.
        span: (u16, u16),
    },
    /// An outbound connection sits on a port that is reserved, or that a service listens on.
    ServicePortTaken {
        /// Which.
        flow: Flow,
        /// The lowest such port.
        port: u16,
        /// Whether it is reserved; it listens otherwise.
        reserved: bool,
        /// Further flows of which the same is true.
        others: usize,
    },
    /// Clients have closed connections that a service here has not.
    InboundCloseWait {
        /// The service's port.
        port: u16,
        /// How many connections.
        waiting: u64,
        /// Whose it is; `None` where nobody was found.
        owner: Option<Owner>,
    },
    /// Connection tracking failed.
    NatFailed {
        /// Connections that could not be tracked, since the namespace was made.
        insert_failed: u64,
        /// Whether clashes that were resolved are among these.
        ambiguous: bool,
        /// Packets dropped because of that.
        dropped: u64,
        /// How many of them came between two looks.
        grown: u64,
    },
    /// Translated ports are short, or clients hang for want of one.
    NatPorts(Box<NatFlowReport>),
    /// A flow is above a threshold of its usable ports.
    PortsLow(Ports),
    /// At the recent rate a flow runs out.
    RateAboveLimit {
        /// Which.
        flow: Flow,
        /// When no port is free, and the pace that leads there.
        when: Exhaustion,
        /// The rate it could keep up with the ports that open connections leave.
        safe: f64,
    },
    /// A flow uses its fast ports up: each connect() searches.
    ConnectSlow {
        /// Which.
        flow: Flow,
        /// Fast ports taken.
        blocked: u32,
        /// Fast ports there are.
        fast: u32,
        /// The rate up to which connect() stays cheap; `None` where ports do not bound it, or no
        /// rate takes them but open connections.
        fast_rate: Option<f64>,
    },
    /// The ports of a full flow are held by open connections, not by TIME_WAIT.
    HeldOpen(Ports),
    /// The peer has closed, the application has not.
    CloseWaitLeak(Ports),
    /// The server does not answer.
    SynSentPile(Ports),
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
    /// The connection tracking table is nearly full.
    ConntrackFull {
        /// Connections tracked.
        tracked: u64,
        /// `nf_conntrack_max`.
        limit: u64,
    },
    /// A setting that breaks connections.
    DangerousSetting {
        /// The sysctl's name.
        sysctl: &'static str,
        /// Its value.
        value: u64,
    },
    /// The destination that was asked about cannot be reached, whatever ports are free.
    Destination(Trouble),
    /// A process that holds connections is near its limit of open files.
    FilesLow(Files),
    /// Something decisive was not readable.
    CouldNotRead(Gap),
}

impl Finding {
    /// Whether it leaves connect() no port toward any destination.
    #[must_use]
    pub fn leaves_none(&self) -> bool {
        match self {
            Self::NoUsablePort { .. } => true,
            Self::SourceBound(pool) => pool.left_to_connect() == 0,
            _ => false,
        }
    }

    /// The code a user can cite.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PortsExhausted(_) | Self::NoUsablePort { .. } => "PORTS_EXHAUSTED",
            Self::SourceBound(_) => "SOURCE_BOUND",
            Self::OwnRange { .. } => "OWN_PORT_RANGE",
            Self::ServicePortTaken { .. } => "SERVICE_PORT_TAKEN",
            Self::NatFailed { .. } => "NAT_FAILED",
            Self::NatPorts(flow) if flow.is_exhausted() => "NAT_PORTS_EXHAUSTED",
            Self::NatPorts(_) => "NAT_PORTS_LOW",
            Self::PortsLow(_) => "PORTS_LOW",
            Self::RateAboveLimit { .. } => "RATE_ABOVE_LIMIT",
            Self::ConnectSlow { .. } => "CONNECT_SLOW",
            Self::HeldOpen(_) => "HELD_OPEN",
            Self::CloseWaitLeak(_) | Self::InboundCloseWait { .. } => "CLOSE_WAIT_LEAK",
            Self::SynSentPile(_) => "SYN_SENT_PILE",
            Self::TwBucketOverflow { .. } => "TW_BUCKET_OVERFLOW",
            Self::ConntrackFull { .. } => "CONNTRACK_FULL",
            Self::DangerousSetting { .. } => "DANGEROUS_SETTING",
            Self::Destination(trouble) => trouble.code(),
            Self::FilesLow(_) => "FILES_LOW",
            Self::CouldNotRead(_) => "COULD_NOT_READ",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::PortsExhausted(ports) | Self::PortsLow(ports) => ports.next_step(),
            Self::NoUsablePort { reserved: 0, .. } => {
                "Widen net.ipv4.ip_local_port_range (see `twcheck advise`), and look who binds all \
                 these ports, as root: `ss -tlnp` and `ss -tanB`."
                    .into()
            }
            Self::NoUsablePort { .. } => {
                "Widen net.ipv4.ip_local_port_range, or take ports out of \
                 net.ipv4.ip_local_reserved_ports: see `twcheck advise`."
                    .into()
            }
            Self::SourceBound(_) => {
                "Set IP_BIND_ADDRESS_NO_PORT before bind() in the client, or leave the source \
                 address to the kernel: then each destination has all the ports, once the \
                 connections that hold them now are gone. Until then: a pool, more source \
                 addresses, or a wider range. net.ipv4.tcp_tw_reuse does not help bind()."
                    .into()
            }
            Self::OwnRange { .. } => {
                "If the client says errno 99, widen the range it was given (socket option \
                 IP_LOCAL_PORT_RANGE, or its own setting). The ports may also date from before \
                 net.ipv4.ip_local_port_range was widened: then nothing is wrong."
                    .into()
            }
            Self::ServicePortTaken { port, .. } => format!(
                "A service that starts on port {port} meanwhile fails with errno 98; the port is \
                 back when the connection ends: `ss -tanp sport = :{port}`."
            ),
            Self::InboundCloseWait { port, owner, .. } => {
                let mend = "Mend the service: it must close a connection that its client has ended. \
                            Until then restart";
                match owner {
                    Some(owner) => format!("{mend} {owner}."),
                    None => format!("{mend} it. Who it is, as root: `ss -tlnp sport = :{port}`."),
                }
            }
            Self::NatFailed { grown: 0, .. } => {
                "If clients hang (errno 110), see whether insert_failed and drop grow while they do: \
                 `watch -d cat /proc/net/stat/nf_conntrack`."
                    .into()
            }
            Self::NatFailed { .. } => {
                "Connections that this machine translates (NAT) hang and end with errno 110: give \
                 the rule more ports or addresses to translate to, or raise the table's limit where \
                 it is full: `sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max`."
                    .into()
            }
            Self::NatPorts(flow) => flow.next_step(),
            Self::RateAboveLimit { safe, .. } => format!(
                "Keep connections open (a pool), or stay below {} connections/s for the next \
                 minute; `twcheck advise` shows what raises the limit.",
                rate(*safe)
            ),
            Self::ConnectSlow {
                fast_rate: None, ..
            } => "It ends when fewer ports are held; another finding says by what, where they are many. \
                  For connections that must stay open: a wider range, or more addresses \
                  (`twcheck advise --target-connections N`)."
                .into(),
            Self::ConnectSlow { .. } => {
                "Keep connections open (a pool), or widen net.ipv4.ip_local_port_range: see \
                 `twcheck advise`."
                    .into()
            }
            Self::HeldOpen(ports) | Self::CloseWaitLeak(ports) | Self::SynSentPile(ports) => {
                self.cause_step(ports)
            }
            Self::TwBucketOverflow { now: false, .. } => {
                "Nothing now; if it happens again, `twcheck advise` says what to raise with \
                 net.ipv4.tcp_max_tw_buckets, in one step."
                    .into()
            }
            Self::TwBucketOverflow { limit, .. } => format!(
                "Raise net.ipv4.tcp_max_tw_buckets above {} only together with, and after, what \
                 raises the rate that ports bear (net.ipv4.tcp_tw_reuse, a wider range): \
                 `twcheck advise` has them as one step. By itself it brings errno 99 where there \
                 is none now, because TIME_WAIT then keeps its ports.",
                count(*limit)
            ),
            Self::ConntrackFull { limit, .. } => format!(
                "Exempt this traffic (notrack), or raise the limit. Beyond it packets are dropped: \
                 connect() hangs and ends with errno 110, not 99. As root: \
                 `sysctl -w net.netfilter.nf_conntrack_max={}`.",
                limit.saturating_mul(2)
            ),
            Self::DangerousSetting { sysctl, .. } => format!(
                "Switch it off, and remove it from /etc/sysctl.d; as root: `sysctl -w {sysctl}=0`."
            ),
            Self::Destination(trouble) => trouble.next_step(),
            Self::FilesLow(files) => files.next_step(),
            Self::CouldNotRead(_) => {
                "Until it is known the verdict may be wrong: try another user, the host instead of \
                 the container, or for the socket table the other --source."
                    .into()
            }
        }
    }
}

impl Ports {
    fn next_step(&self) -> String {
        match Cause::of(&self.by_state) {
            Cause::HeldOpen => "See HELD_OPEN: no setting for TIME_WAIT helps.".into(),
            Cause::CloseWait => "See CLOSE_WAIT_LEAK: no setting for TIME_WAIT helps.".into(),
            Cause::SynSent => "See SYN_SENT_PILE: no setting for TIME_WAIT helps.".into(),
            Cause::Mixed => format!(
                "Half-closed connections end when the server closes too, and those that the client has \
                 left after net.ipv4.tcp_fin_timeout at the latest. See what keeps them: \
                 `ss -tno {}`.",
                dst(self.flow.server())
            ),
            Cause::Churn => self.spare_ports(),
        }
    }

    /// What helps a flow whose connections are opened and closed again.
    fn spare_ports(&self) -> String {
        let server = self.flow.server();
        match self.reuse {
            Reuse::Seen => "Keep connections open (a pool): TIME_WAIT reuse is in force already. \
                            `twcheck advise` shows what else raises the limit."
                .into(),
            Reuse::Refuted => format!(
                "Keep connections open (a pool). TIME_WAIT reuse is allowed here, and does not work: \
                 {server} has no TCP timestamps, or something between strips them: switch them on \
                 there (net.ipv4.tcp_timestamps=1). Unless it was allowed within the last minute. A \
                 live connection that has them shows ts: `ss -tie {}`.",
                dst(server)
            ),
            Reuse::Unknown => format!(
                "Keep connections open (a pool). Read both on the machine itself; TIME_WAIT is \
                 reused where both are 1 and {server} has TCP timestamps: \
                 `sysctl net.ipv4.tcp_tw_reuse net.ipv4.tcp_timestamps`."
            ),
            Reuse::Allowed => format!(
                "Keep connections open (a pool). TIME_WAIT is reused where the other end has TCP \
                 timestamps: a live connection shows ts then: `ss -tie {}`.",
                dst(server)
            ),
            Reuse::Off => match (self.max_rate, self.max_rate_with_reuse) {
                (Some(now), Some(with_reuse)) => format!(
                    "Keep connections open (a pool). Until then TIME_WAIT reuse, with \
                     net.ipv4.tcp_timestamps=1 on both sides, lifts the limit from {} to {} \
                     connections/s; `twcheck advise` shows what else does. As root: \
                     `sysctl -w net.ipv4.tcp_tw_reuse=1`.",
                    rate(now),
                    rate(with_reuse)
                ),
                _ => {
                    "Keep connections open (a pool); `twcheck advise` shows what else helps.".into()
                }
            },
        }
    }
}

/// A finding with its level and its flow's place in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// How bad it is.
    pub level: Level,
    /// Index into the list of flows; `None` when it is about the machine.
    pub flow: Option<usize>,
    /// What.
    pub finding: Finding,
    /// Where it was found, and where its commands are to be run; `None` for the reader's own network
    /// namespace.
    pub namespace: Option<Namespace>,
}

impl Reported {
    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> String {
        self.there(self.finding.to_string())
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        self.there(self.finding.next_step())
    }

    fn there(&self, text: String) -> String {
        match &self.namespace {
            Some(namespace) => namespace.commands(&text),
            None => text,
        }
    }
}

impl Serialize for Reported {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("code", self.finding.code())?;
        object.serialize_field("level", &self.level)?;
        object.serialize_field("flow", &self.flow)?;
        object.serialize_field("message", &self.message())?;
        object.serialize_field("next_step", &self.next_step())?;
        object.end()
    }
}

/// A server as a shell takes it whole: the brackets of IPv6 are a pattern to it.
fn quoted(server: SocketAddr) -> String {
    match server {
        SocketAddr::V4(_) => server.to_string(),
        SocketAddr::V6(_) => format!("'{server}'"),
    }
}

/// The filter of ss(8) for a server.
pub(super) fn dst(server: SocketAddr) -> String {
    format!("dst {}", quoted(server))
}

/// From whom toward whom.
struct Between<'a>(&'a Flow);

impl fmt::Display for Between<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} toward {}", Origin(self.0), self.0.server())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortsExhausted(ports) => ports.write_exhausted(f),
            Self::PortsLow(ports) => ports.write_low(f),
            Self::HeldOpen(ports) | Self::CloseWaitLeak(ports) | Self::SynSentPile(ports) => {
                self.write_cause(f, ports)
            }
            Self::NoUsablePort {
                range,
                reserved,
                bound,
            } => write!(
                f,
                "No connection can be opened to anywhere: of the {} in the ephemeral range {} are \
                 reserved and {} bound, none is left. connect() fails with errno 99.",
                counted(*range, "port"),
                count(*reserved),
                count(*bound)
            ),
            Self::SourceBound(pool) => write_pool(f, pool),
            Self::OwnRange { flow, span } => write!(
                f,
                "Every port from {} to {} is taken {}, and none beside them: if a client has that \
                 range of its own, it is at its end there and meets errno 99.",
                span.0,
                span.1,
                Between(flow)
            ),
            Self::ServicePortTaken {
                flow,
                port,
                reserved,
                others,
            } => write_service_port(f, flow, (*port, *reserved), *others),
            Self::RateAboveLimit { flow, when, .. } => write!(
                f,
                "{} no port is free {}, at {}.",
                within(when),
                Between(flow),
                at_pace(when.pace)
            ),
            Self::ConnectSlow {
                flow,
                blocked,
                fast,
                fast_rate,
            } => write!(
                f,
                "Each connect() {} searches for a port: {} of the {} fast ports are taken{}.",
                Between(flow),
                count(*blocked),
                count(*fast),
                fast_rate.map_or_else(String::new, |limit| format!(
                    ", as they are at any rate above {} connections/s",
                    rate(limit)
                ))
            ),
            Self::TwBucketOverflow {
                total,
                limit,
                overflows,
                now,
                below_ports,
            } => write_overflow(f, *total, *limit, *overflows, (*now, *below_ports)),
            Self::InboundCloseWait { port, waiting, .. } => write!(
                f,
                "A service here does not close: {} on its port {port} were ended by the client and \
                 are still open.",
                counted(*waiting, "connection")
            ),
            Self::NatFailed {
                insert_failed,
                ambiguous,
                dropped,
                grown,
            } => write_nat_failed(f, (*insert_failed, *ambiguous), *dropped, *grown),
            Self::NatPorts(flow) => flow.fmt(f),
            Self::ConntrackFull { tracked, limit } => write!(
                f,
                "Connection tracking holds {} of at most {} connections ({:.0} %).",
                count(*tracked),
                count(*limit),
                percent(*tracked, *limit).floor()
            ),
            Self::DangerousSetting { sysctl, value } => write!(
                f,
                "{sysctl} = {value} drops connections of clients behind NAT; Linux 4.12 removed it."
            ),
            Self::Destination(trouble) => trouble.fmt(f),
            Self::FilesLow(files) => files.fmt(f),
            Self::CouldNotRead(gap) => write!(f, "{}: {}.", gap.what, gap.why),
        }
    }
}

impl Ports {
    fn hangs_on_reuse(&self) -> bool {
        self.reuse.is_open() && self.by_state.get(TcpState::TimeWait) > 0
    }

    fn write_exhausted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counted < self.usable {
            return write!(
                f,
                "No port is free {}: the kernel, asked for one, has none, though the socket table \
                 shows only {} of {} taken ({}). New connections there fail with errno 99.",
                Between(&self.flow),
                count(self.counted),
                count(self.usable),
                states(&self.by_state),
            );
        }
        write!(
            f,
            "No port is free {}{}: {} of {} are taken ({}). New connections there fail with errno \
             99{}.",
            Between(&self.flow),
            if self.hangs_on_reuse() {
                ", unless TIME_WAIT reuse works there"
            } else {
                ""
            },
            count(self.blocked),
            count(self.usable),
            states(&self.by_state),
            match self.reuse {
                _ if self.by_state.get(TcpState::TimeWait) == 0 => "",
                Reuse::Refuted => ": TIME_WAIT reuse is allowed here but does not work toward it",
                Reuse::Allowed => ", if its end has no TCP timestamps",
                Reuse::Unknown =>
                    ", if this machine does not reuse TIME_WAIT: a setting that decides is not known",
                Reuse::Off | Reuse::Seen => "",
            }
        )
    }

    fn write_low(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} % of the ports {} are taken: {} of {} ({}){}.",
            percent(self.blocked, self.usable).floor(),
            Between(&self.flow),
            count(self.blocked),
            count(self.usable),
            states(&self.by_state),
            if self.hangs_on_reuse() {
                "; they come back early if TIME_WAIT reuse works there"
            } else {
                ""
            }
        )
    }
}

impl Finding {
    /// What to do about what takes the ports, where it is no TIME_WAIT.
    fn cause_step(&self, ports: &Ports) -> String {
        match self {
            Self::HeldOpen(_) => format!(
                "Find what leaks connections, or make the pools smaller than {} together. Who holds \
                 them, as root: `ss -tnp state established {}`.",
                count(ports.usable),
                dst(ports.flow.server())
            ),
            Self::CloseWaitLeak(_) => format!(
                "Mend the application: it must close a connection that the server has ended. \
                 Until then restart it. Who it is, as root: `ss -tnp state close-wait {}`.",
                dst(ports.flow.server())
            ),
            _ if ports.by_state.get(TcpState::Established) > 0 => format!(
                "No setting of ports helps. Where lastrcv of the open ones is small, the server is \
                 up and new ones are lost: to its listen queue (there: somaxconn, its backlog, SYN \
                 cookies), to NAT or connection tracking on the way, or to a firewall: \
                 `ss -tin state established {}`.",
                dst(ports.flow.server())
            ),
            _ => format!(
                "No setting of ports helps: connect() ends with errno 110 there. See whether the \
                 server is up and whether a firewall drops its packets: \
                 `twcheck verdict --connect {}`.",
                quoted(ports.flow.server())
            ),
        }
    }

    /// What takes the ports, where it is no TIME_WAIT.
    fn write_cause(&self, f: &mut fmt::Formatter<'_>, ports: &Ports) -> fmt::Result {
        let between = Between(&ports.flow);
        let number = |state| count(ports.by_state.get(state));
        match self {
            Self::HeldOpen(_) => write!(
                f,
                "The ports {between} are held by open connections ({}), not by TIME_WAIT: a leak, \
                 or a pool that is too large.",
                states(&ports.by_state)
            ),
            Self::CloseWaitLeak(_) => write!(
                f,
                "The application does not close: {} connections {between} were ended by the server \
                 and still hold their ports.",
                number(TcpState::CloseWait)
            ),
            _ if ports.by_state.get(TcpState::Established) > 0 => write!(
                f,
                "New connections are not answered: {} attempts {between} wait, beside {} open ones.",
                number(TcpState::SynSent),
                number(TcpState::Established)
            ),
            _ => write!(
                f,
                "The server does not answer: {} attempts {between} wait for it.",
                number(TcpState::SynSent)
            ),
        }
    }
}

fn write_service_port(
    f: &mut fmt::Formatter<'_>,
    flow: &Flow,
    (port, reserved): (u16, bool),
    others: usize,
) -> fmt::Result {
    write!(
        f,
        "A connection {} sits on port {port}, which {}{}.",
        Between(flow),
        if reserved {
            "is reserved"
        } else {
            "a service listens on"
        },
        match others {
            0 => String::new(),
            1 => "; one more flow has such ports".into(),
            more => format!("; {more} more flows have such ports"),
        }
    )
}

fn write_nat_failed(
    f: &mut fmt::Formatter<'_>,
    (insert_failed, ambiguous): (u64, bool),
    dropped: u64,
    grown: u64,
) -> fmt::Result {
    write!(
        f,
        "Connection tracking could not take {}{} and dropped {} since it began{}.",
        counted(insert_failed, "connection"),
        if ambiguous {
            " at first (before Linux 5.10 those it took after all are among them)"
        } else {
            ""
        },
        counted(dropped, "packet"),
        if grown > 0 {
            format!(", {} while this was looked at", count(grown))
        } else {
            "; whether it still does, one short look does not tell".into()
        }
    )
}

fn write_overflow(
    f: &mut fmt::Formatter<'_>,
    total: u64,
    limit: u64,
    overflows: u64,
    (now, below_ports): (bool, bool),
) -> fmt::Result {
    let (total, limit, overflows) = (count(total), count(limit), count(overflows));
    if now {
        write!(
            f,
            "{total} TIME_WAIT sockets of at most {limit}: the kernel drops those beyond \
             ({overflows} so far), and their protection with them."
        )?;
    } else {
        write!(
            f,
            "The kernel has dropped {overflows} TIME_WAIT sockets at the tcp_max_tw_buckets of then, \
             but does not now ({total} held, {limit} allowed)."
        )?;
    }
    if below_ports {
        f.write_str(
            " The limit is below the number of usable ports, so ports do not bound the rate.",
        )?;
    }
    Ok(())
}

fn write_pool(f: &mut fmt::Formatter<'_>, pool: &Pool) -> fmt::Result {
    let (left, usable) = (pool.left_to_connect(), count(pool.usable));
    write!(
        f,
        "{}: bind() holds {} of {usable}{}, and connect() passes over them toward every destination, \
         {}.",
        if left == 0 {
            "connect() has no port"
        } else {
            "Ports get short"
        },
        count(pool.held),
        whose(&pool.sources),
        if left == 0 {
            "with errno 99".into()
        } else {
            format!("with {} left until errno 99", count(left))
        },
    )?;
    let Some(fullest) = pool.sources.first() else {
        return Ok(());
    };
    write!(
        f,
        " A bind() that names {} and no port has {} left",
        name(fullest),
        count(fullest.left())
    )?;
    if pool.left_to_all() < fullest.left() {
        let all = count(pool.left_to_all());
        write!(f, ", one that names no address {all}")?;
    }
    f.write_str(", until errno 98.")
}

/// The addresses that the ports of a pool are bound to.
fn whose(sources: &[SourceBound]) -> String {
    /// More do not help a reader.
    const NAMED: usize = 3;
    let named: Vec<_> = sources
        .iter()
        .take(NAMED)
        .map(|source| format!("{} from {}", count(source.ports.len()), name(source)))
        .collect();
    match sources.len().saturating_sub(NAMED) {
        0 => format!(" ({})", named.join(", ")),
        more => format!(" ({}, {more} more addresses)", named.join(", ")),
    }
}

fn name(source: &SourceBound) -> String {
    let address = source.address;
    source
        .interface
        .map_or_else(|| address.to_string(), |name| format!("{address}%{name}"))
}

/// When, as exactly as it can be told: `In 12.4 s`, `In 28 to 41 s`.
fn within(when: &Exhaustion) -> String {
    match when.latest {
        Some(latest) if latest - when.earliest < 1.0 => format!("In {:.1} s", when.likely),
        Some(latest) => format!("In {:.0} to {latest:.0} s", when.earliest.floor()),
        None => format!(
            "Perhaps in {:.0} s, in {:.0} s at the earliest,",
            when.likely,
            when.earliest.floor()
        ),
    }
}

/// The pace that the forecast goes on with: `the 15.0 connections/s of the last 10 s`.
fn at_pace(pace: Pace) -> String {
    let now = rate(pace.now);
    let seconds = pace.steady_for;
    match pace.period {
        Some(period) => format!("{now} connections/s on average, coming back every {period} s"),
        None if pace.growth > 0.0 => format!(
            "{now} connections/s now, {} more each second for {seconds} s",
            rate(pace.growth)
        ),
        None if pace.growth < 0.0 => format!(
            "{now} connections/s now, {} fewer each second for {seconds} s",
            rate(-pace.growth)
        ),
        None => format!("the {now} connections/s of the last {seconds} s"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_says_its_pace_and_how_sure_it_is() {
        let flow = Flow {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            destination_port: 3306,
            interface: None,
        };
        let steady = Pace {
            now: 15.0,
            growth: 0.0,
            steady_for: 10,
            period: None,
        };
        let said = |earliest, likely, latest, pace| {
            let when = Exhaustion {
                likely,
                earliest,
                latest,
                pace,
            };
            let safe = 10.0;
            Finding::RateAboveLimit { flow, when, safe }.to_string()
        };
        assert_eq!(
            said(12.0, 12.4, Some(12.9), steady),
            "In 12.4 s no port is free from 10.0.0.1 toward 10.0.0.2:3306, at the 15.0 \
             connections/s of the last 10 s."
        );
        let rising = Pace {
            growth: 0.5,
            ..steady
        };
        assert_eq!(
            said(28.3, 33.0, Some(41.2), rising),
            "In 28 to 41 s no port is free from 10.0.0.1 toward 10.0.0.2:3306, at 15.0 \
             connections/s now, 0.500 more each second for 10 s."
        );
        let bursts = Pace {
            period: Some(30),
            ..steady
        };
        assert_eq!(
            said(28.3, 33.0, None, bursts),
            "Perhaps in 33 s, in 28 s at the earliest, no port is free from 10.0.0.1 toward \
             10.0.0.2:3306, at 15.0 connections/s on average, coming back every 30 s."
        );
    }
}
