//! What a recording keeps besides the files of /proc: the answers that only netlink gives, who owned
//! what, and what was tried.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{
    Around, BoundPorts, Flow, Gap, Growth, Holders, Interface, Look, Namespace, NodePorts,
    OtherNamespaces, Owner, Owners, Path, PortSet, Socket, SourceName, TcpState, Timestamps, Trial,
    Unplaced, Unseen, Weight,
};
use crate::system::file;
use crate::words::printable;

/// Version of all this.
pub const VERSION: u32 = 1;

/// No line of the list of sockets is longer than 200 bytes.
const LONGEST_LINE: u64 = 512;

/// More sockets than memory is to be taken for: each takes some 120 bytes, and 60 in a file.
pub const MOST_SOCKETS: usize = 4_000_000;

/// No kernel keeps TIME_WAIT longer: those that can be told to take 600 s at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What was answered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answers {
    /// Version of this structure.
    pub version: u32,
    /// When it was recorded, in seconds since 1970.
    pub taken: u64,
    /// The network namespace that was recorded, where another one than the recorder's was asked for.
    pub namespace: Option<Namespace>,
    /// How `namespace` was asked for.
    pub option: String,
    /// Its inode.
    pub netns: Option<u64>,
    /// The machine's addresses.
    pub addresses: Option<Vec<IpAddr>>,
    /// The timer tick, in nanoseconds.
    pub tick_ns: Option<u64>,
    /// [`Snapshot::bound`](crate::model::Snapshot::bound).
    pub bound: Option<BoundPorts>,
    /// [`Snapshot::passed_over`](crate::model::Snapshot::passed_over).
    pub passed_over: Option<PortSet>,
    /// What was counted between two looks.
    pub growth: Option<Growth>,
    /// Who holds ports besides, as far as it is known.
    pub holders: Option<KeptHolders>,
    /// Facts about flows.
    pub flows: Vec<KeptFlow>,
    /// Ways to addresses.
    pub routes: Vec<(SocketAddr, Path)>,
    /// Who has sockets that are in no flow.
    pub unplaced: Option<Vec<Unplaced>>,
    /// Who serves the port that was asked about.
    pub service: Option<Owner>,
    /// Why owners may be missing.
    pub owners_gap: Option<KeptGap>,
    /// How closely they were looked for; `None` where nobody did.
    pub look: Option<Look>,
    /// What the recorder ran in; `None` where it recorded another network namespace than its own.
    pub around: Option<Around>,
    /// [`Place::is_machines`](crate::model::Place::is_machines).
    pub is_machines: Option<bool>,
    /// Other network namespaces.
    pub other_namespaces: Option<OtherNamespaces>,
    /// What could not be read of the sockets.
    pub gaps: Vec<KeptGap>,
}

/// Facts about a flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptFlow {
    /// Local address.
    pub source: IpAddr,
    /// The server.
    pub server: SocketAddr,
    /// The interface that its sockets are bound to: its number and its name.
    pub interface: Option<(u32, String)>,
    /// Its live sockets by timestamps, where that was asked.
    pub timestamps: Option<Timestamps>,
    /// What the kernel was asked, and answered.
    pub trial: Option<Trial>,
    /// Who holds its live sockets, where that was looked for.
    pub owners: Option<Vec<Owner>>,
}

/// [`Gap`], with its weight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptGap {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    weight: Weight,
}

/// [`Holders`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeptHolders {
    bound: Option<PortSet>,
    chosen: PortSet,
    udp: Option<PortSet>,
    #[serde(default)]
    node_ports: NodePorts,
    gaps: Vec<KeptGap>,
}

impl KeptGap {
    /// Forgets why, which may name files, users and addresses.
    pub fn without_names(&mut self) {
        const KNOWN: [&str; 2] = ["sock_diag", "ports held by UDP"];
        let what = KNOWN.into_iter().find(|it| self.what.starts_with(it));
        self.what = what.unwrap_or("a part of the answers").into();
        self.why = "it could not be read; why is scrubbed".into();
    }
}

impl KeptHolders {
    /// Forgets what may name processes, chains of rules and files.
    pub fn without_names(&mut self) {
        match &mut self.node_ports {
            NodePorts::Seen(how) => *how = "kube-proxy or its rules".into(),
            NodePorts::Unread(why) => *why = "it could not be read; why is scrubbed".into(),
            NodePorts::Unseen => {}
        }
        self.gaps.iter_mut().for_each(KeptGap::without_names);
    }
}

impl From<Gap> for KeptGap {
    fn from(gap: Gap) -> Self {
        Self {
            what: gap.what,
            why: gap.why,
            weight: gap.weight,
        }
    }
}

impl From<KeptGap> for Gap {
    fn from(gap: KeptGap) -> Self {
        Self {
            what: gap.what,
            why: gap.why,
            weight: gap.weight,
        }
    }
}

impl From<Holders> for KeptHolders {
    fn from(holders: Holders) -> Self {
        Self {
            bound: holders.bound,
            chosen: holders.chosen,
            udp: holders.udp,
            node_ports: holders.node_ports,
            gaps: holders.gaps.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<KeptHolders> for Holders {
    fn from(holders: KeptHolders) -> Self {
        Self {
            bound: holders.bound,
            chosen: holders.chosen,
            udp: holders.udp,
            node_ports: holders.node_ports,
            gaps: holders.gaps.into_iter().map(Into::into).collect(),
        }
    }
}

impl KeptFlow {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let interface = flow.interface.map(|it| (it.index(), it.name().to_owned()));
        Self {
            source: flow.source,
            server: flow.server(),
            interface,
            timestamps: None,
            trial: None,
            owners: None,
        }
    }

    /// Which it is.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let interface = self.interface.as_ref();
        Flow {
            source: self.source,
            destination: self.server.ip(),
            destination_port: self.server.port(),
            interface: interface.map(|(index, name)| Interface::new(*index, name)),
        }
    }
}

/// A socket table and the answers that belong to it.
#[derive(Debug)]
pub struct Taken {
    /// The sockets, in the kernel's order.
    pub rows: Vec<Socket>,
    /// The answers.
    pub answers: Answers,
    /// Where the sockets came from.
    pub source: SourceName,
}

impl Taken {
    /// The ports that somebody bound, or why they are not known.
    #[must_use]
    pub fn bound(&self) -> BoundPorts {
        let unknown = match self.source {
            SourceName::Text => Unseen::InText,
            _ => Unseen::WithoutAnswer,
        };
        self.answers.bound.clone().unwrap_or_else(|| BoundPorts {
            unseen: Some(unknown),
            ..BoundPorts::default()
        })
    }

    /// What could not be read of the sockets.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.answers.gaps.iter().cloned().map(Into::into)
    }

    /// What was found out about flows that is `told`.
    pub fn by_flow<T>(&self, told: impl Fn(&KeptFlow) -> Option<T>) -> HashMap<Flow, T> {
        let flows = self.answers.flows.iter();
        flows
            .filter_map(|kept| Some((kept.flow(), told(kept)?)))
            .collect()
    }

    /// The owners of `flows`, as far as they were looked for.
    #[must_use]
    pub fn owners(&self, flows: &[Flow]) -> Option<Owners> {
        let answers = &self.answers;
        let mut by_flow = self.by_flow(|kept| kept.owners.clone());
        by_flow.retain(|flow, _| flows.contains(flow));
        Some(Owners {
            by_flow,
            unplaced: answers.unplaced.clone(),
            service: answers.service.clone(),
            gap: answers.owners_gap.clone().map(Into::into),
            look: answers.look?,
        })
    }
}

/// `TIME_WAIT 192.0.2.1:40000 192.0.2.2:3306 59280 - - 0`: state, ends, milliseconds left, inode,
/// interface as `number:name`, and retransmits; what there is none of is `-`.
#[must_use]
pub fn line(socket: &Socket) -> String {
    fn or_dash(text: Option<String>) -> String {
        text.unwrap_or_else(|| "-".into())
    }
    let left = socket.time_wait_left.map(|left| left.as_micros());
    let interface = socket.interface;
    let mut line = String::new();
    let _ = write!(
        line,
        "{} {} {} {} {} {} {}",
        socket.state.name(),
        socket.local,
        socket.remote,
        or_dash(left.map(|micros| micros.to_string())),
        or_dash(socket.inode.map(|inode| inode.to_string())),
        or_dash(interface.map(|it| format!("{}:{}", it.index(), it.name()))),
        socket.retransmits
    );
    line
}

/// Reads the answers. What stands in them is anybody's choice, and moves no cursor.
///
/// # Errors
/// Where they are none.
pub fn answers(bytes: &[u8]) -> serde_json::Result<Answers> {
    fn shown(value: &mut Value) {
        match value {
            Value::String(text) => *text = printable(text),
            Value::Array(values) => values.iter_mut().for_each(shown),
            Value::Object(fields) => fields.values_mut().for_each(shown),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(bytes)?;
    shown(&mut value);
    serde_json::from_value(value)
}

/// Reads what [`line()`] writes, line by line.
///
/// # Errors
/// Where a line is another one, or there are more than any machine has.
pub fn sockets(from: impl Read) -> io::Result<Vec<Socket>> {
    let mut reader = BufReader::new(from);
    let mut sockets = Vec::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        if file::line(&mut reader, LONGEST_LINE, &mut line)? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).ok();
        let is_whole = line.ends_with(b"\n");
        let socket = text
            .filter(|_| is_whole)
            .and_then(socket)
            .ok_or_else(|| io::Error::other(format!("line {number} is cut off, or no socket")))?;
        if sockets.len() == MOST_SOCKETS {
            return Err(io::Error::other("it has more sockets than any machine"));
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

fn socket(line: &str) -> Option<Socket> {
    /// What a word says, where it says something: `None` where it is not understood.
    fn known<T>(word: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
        match word {
            "-" => Ok(None),
            word => parse(word).map(Some).ok_or(()),
        }
    }
    let mut words = line.split_ascii_whitespace();
    let state = words.next()?;
    let state = TcpState::ALL.into_iter().find(|it| it.name() == state)?;
    let (local, remote) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let left = known(words.next()?, |word| word.parse().ok()).ok()?;
    if left.is_some_and(|left| Duration::from_micros(left) > LONGEST_WAIT) {
        return None;
    }
    let inode = known(words.next()?, |word| word.parse().ok()).ok()?;
    let interface = known(words.next()?, |word| {
        let (index, name) = word.split_once(':')?;
        Some(Interface::new(index.parse().ok()?, &printable(name)))
    })
    .ok()?;
    let retransmits = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Socket {
        state,
        local,
        remote,
        time_wait_left: left.map(Duration::from_micros),
        inode,
        interface,
        retransmits,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_socket_is_read_as_it_was_written() {
        for (left, inode, interface, remote) in [
            (None, Some(7), None, "10.0.0.2:3306"),
            (Some(59_280), None, Some((3, "eth0")), "[2001:db8::5]:3306"),
            (Some(0), None, Some((9, "")), "[fe80::1]:1"),
        ] {
            let socket = Socket {
                state: TcpState::TimeWait,
                local: "192.0.2.1:40000".parse().unwrap(),
                remote: remote.parse().unwrap(),
                time_wait_left: left.map(Duration::from_millis),
                inode,
                interface: interface.map(|(index, name)| Interface::new(index, name)),
                retransmits: 2,
            };
            let text = format!("{}\n", line(&socket));
            assert_eq!(sockets(text.as_bytes()).unwrap(), [socket]);
            for cut in 1..text.len() {
                assert!(sockets(&text.as_bytes()[..cut]).is_err(), "{cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = sockets(bytes.as_slice());
        }
    }
}
