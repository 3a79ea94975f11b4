//! Tracked connections: by netlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h), or as
//! /proc/net/nf_conntrack has them (`ct_seq_show` in net/netfilter/nf_conntrack_standalone.c).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockProtocol;

use super::netlink::{DUMP, Failure, Netlink, attribute, retried};
use super::{Machine, ProcRoot, SourceChoice, file, nft, sysctl};
use crate::model::{
    Gap, NatFlow, NatRule, NatTable, NatUse, OwnAddresses, Protocol, Toward, Tracked, TrackedState,
    TrackingSource, Weight,
};

/// Flows counted at a time. Where there are more, each gives up as many connections as the smallest
/// has, and the empty ones are forgotten, so that what is left out is small: no flow with more than
/// one in so many of all connections is missed (Misra and Gries, 1982).
const COUNTED: usize = 65_536;

/// Flows whose ports are looked at: 32 KiB each.
const EXAMINED: usize = 128;

/// No table is longer: a row takes some 200 bytes, and a machine tracks some millions.
const LONGEST_TABLE: u64 = 4 << 30;

/// No row is longer: IPv6 addresses written out, labels and marks.
const LONGEST_LINE: u64 = 4096;

impl Machine {
    /// The connections whose source this machine translates, those `toward` a destination alone where
    /// one is named; `None` where connection tracking is not in use.
    ///
    /// # Errors
    /// What could not be read, and why.
    pub fn nat(&self, toward: Option<&Toward>) -> Result<Option<NatTable>, Gap> {
        let refused = |why| Gap {
            what: "connection tracking".into(),
            why,
            weight: Weight::Decisive,
        };
        let asked = if self.is_recorded() {
            Err("in a recording it is net/nf_conntrack, copied as root on the machine".to_owned())
        } else if self.source == SourceChoice::Proc {
            Err("--source auto asks by netlink too".to_owned())
        } else {
            match self.ask(toward) {
                Ok(table) => return Ok(Some(table)),
                Err(Failure::Errno(Errno::EPERM)) => Err("reading it needs CAP_NET_ADMIN over \
                                                          this network namespace: `sudo twcheck \
                                                          verdict --nat`"
                    .to_owned()),
                Err(failure) if is_absence(failure) && !self.tracks() => return Ok(None),
                Err(other) => Err(format!("ctnetlink: {other}")),
            }
        };
        asked.or_else(|why| match self.read_tracked(toward) {
            Ok(table) => Ok(Some(table)),
            Err(error) => Err(refused(format!("{why} ({error})"))),
        })
    }

    /// Whether this kernel shows any trace of connection tracking.
    fn tracks(&self) -> bool {
        let count = self.proc.sysctl("net.netfilter.nf_conntrack_count");
        let stat = self.proc.net("stat/nf_conntrack");
        [count, stat].iter().any(|path| path.exists())
    }

    /// The rules that translate sources, or why they are not known.
    fn source_rules(&self) -> Result<Vec<NatRule>, String> {
        if self.has_legacy_nat() {
            return Err("those of iptables-legacy are not read".into());
        }
        retried(nft::source_rules).map_err(|failure| failure.to_string())
    }

    fn ask(&self, toward: Option<&Toward>) -> Result<NatTable, Failure> {
        let rules = || (self.source_rules(), own_addresses());
        // What a disturbed dump has told would be counted twice.
        retried(|| self.count(TrackingSource::Ctnetlink, rules, toward, dump))
    }

    fn read_tracked(&self, toward: Option<&Toward>) -> Result<NatTable, String> {
        let path = ["nf_conntrack", "ip_conntrack"]
            .map(|name| self.proc.net(name))
            .into_iter()
            .find(|path| self.proc.open(path).is_ok())
            .unwrap_or_else(|| self.proc.net("nf_conntrack"));
        let all = |row: &mut dyn FnMut(&Tracked)| rows(self.proc.open(&path)?, row);
        let rules = || {
            if self.is_here() {
                return (self.source_rules(), own_addresses());
            }
            let why = "they are told only to who asks inside the namespace, and in no recording";
            (Err(why.into()), Vec::new())
        };
        self.count(TrackingSource::Proc, rules, toward, all)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => format!("{}: {}", path.display(), self.proc.absence()),
                _ => format!("{}: {error}", path.display()),
            })
    }

    /// Counts the translated connections by flow, then looks at the ports of those that have most.
    fn count<E>(
        &self,
        source: TrackingSource,
        rules: impl FnOnce() -> (Result<Vec<NatRule>, String>, OwnAddresses),
        toward: Option<&Toward>,
        all: impl Fn(&mut dyn FnMut(&Tracked)) -> Result<u64, E>,
    ) -> Result<NatTable, E> {
        let (mut tracked, mut translated) = (0, 0);
        let mut counts = HeavyFlows::default();
        let mut malformed = all(&mut |row| {
            tracked += 1;
            let is_meant = toward.is_none_or(|there| there.includes(&row.flow.flow()));
            if is_meant && row.is_translated() {
                translated += 1;
                counts.add(row.flow);
            }
        })?;
        let time_wait = time_wait(&self.proc);
        let mut flows: HashMap<NatFlow, NatUse> = counts
            .largest(EXAMINED)
            .map(|flow| (flow, NatUse::default()))
            .collect();
        if !flows.is_empty() {
            let again = all(&mut |row| {
                if let Some(used) = flows.get_mut(&row.flow) {
                    used.add(row, time_wait);
                }
            })?;
            malformed = malformed.max(again);
        }
        let (rules, own) = rules();
        Ok(NatTable {
            source,
            tracked,
            translated,
            flows,
            malformed,
            rules,
            own,
            time_wait,
        })
    }
}

/// The addresses of the calling thread's network namespace; none where they cannot be read.
fn own_addresses() -> OwnAddresses {
    let all = getifaddrs().into_iter().flatten();
    all.filter_map(|it| {
        let address = it.address?;
        let four = address.as_sockaddr_in().map(|four| four.ip().into());
        let six = || address.as_sockaddr_in6().map(|six| six.ip().into());
        Some((it.interface_name, four.or_else(six)?))
    })
    .collect()
}

/// Whether it is what a kernel says that has no connection tracking: it has no such sockets, or
/// nobody for the request (`nfnetlink_rcv_msg` in net/netfilter/nfnetlink.c).
fn is_absence(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Errno(
            Errno::EPROTONOSUPPORT
                | Errno::EAFNOSUPPORT
                | Errno::EINVAL
                | Errno::EOPNOTSUPP
                | Errno::ENOENT
        )
    )
}

/// How long TIME_WAIT is kept; `None` where that cannot be read.
fn time_wait(proc: &ProcRoot) -> Option<Duration> {
    const KEYS: [&str; 2] = [
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
        "net.ipv4.netfilter.ip_conntrack_tcp_timeout_time_wait",
    ];
    let mut read = KEYS
        .iter()
        .map(|key| sysctl::read(proc, key).ok()??.parse().ok());
    read.find_map(|seconds| seconds).map(Duration::from_secs)
}

/// Connections by flow, of the flows that have many.
#[derive(Default)]
struct HeavyFlows(HashMap<NatFlow, u64>);

impl HeavyFlows {
    fn add(&mut self, flow: NatFlow) {
        *self.0.entry(flow).or_default() += 1;
        if self.0.len() > COUNTED {
            let least = self.0.values().copied().min().unwrap_or(0);
            self.0.retain(|_, count| {
                *count -= least;
                *count > 0
            });
        }
    }

    fn largest(self, number: usize) -> impl Iterator<Item = NatFlow> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_unstable_by_key(|&(flow, count)| (std::cmp::Reverse(count), flow));
        all.into_iter().take(number).map(|(flow, _)| flow)
    }
}

/// Streams every tracked connection of TCP and UDP into `row`; returns how many were not understood.
fn dump(row: &mut dyn FnMut(&Tracked)) -> Result<u64, Failure> {
    /// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
    const GET: u16 = 1 << 8 | 1;
    /// `struct nfgenmsg`.
    const HEADER: usize = 4;
    let mut malformed = 0;
    Netlink::open(SockProtocol::NetlinkNetFilter)?.request(GET, DUMP, &[0; HEADER], |message| {
        let message = message.get(HEADER..).unwrap_or_default();
        match decode(message) {
            Some(Row::Tracked(tracked)) => row(&tracked),
            Some(Row::Other) => {}
            None => malformed += 1,
        }
    })?;
    Ok(malformed)
}

/// One direction of a connection.
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    zone: Option<u16>,
}

/// What a message or a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// A connection.
    Tracked(Tracked),
    /// One of another protocol, or nothing.
    Other,
}

/// A message about one connection; `None` where it is not understood.
fn decode(message: &[u8]) -> Option<Row> {
    const CTA_TUPLE_ORIG: u16 = 1;
    const CTA_TUPLE_REPLY: u16 = 2;
    const CTA_STATUS: u16 = 3;
    const CTA_PROTOINFO: u16 = 4;
    const CTA_TIMEOUT: u16 = 7;
    const CTA_ZONE: u16 = 18;
    const CTA_TUPLE_PROTO: u16 = 2;
    const CTA_PROTO_NUM: u16 = 1;
    const CTA_PROTOINFO_TCP: u16 = 1;
    const CTA_PROTOINFO_TCP_STATE: u16 = 1;
    /// `IPS_OFFLOAD | IPS_HW_OFFLOAD`: of such a connection the kernel tells no state and no time.
    const OFFLOADED: u32 = 1 << 14 | 1 << 15;
    let original = attribute(message, CTA_TUPLE_ORIG)?;
    let number = attribute(attribute(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    let Some(protocol) = Protocol::from_number(*number.first()?) else {
        return Some(Row::Other);
    };
    let original = tuple(original)?;
    let reply = tuple(attribute(message, CTA_TUPLE_REPLY)?)?;
    let state = match protocol {
        Protocol::Udp => TrackedState::STATELESS,
        Protocol::Tcp => {
            let info = attribute(message, CTA_PROTOINFO)
                .and_then(|info| attribute(info, CTA_PROTOINFO_TCP))
                .and_then(|info| attribute(info, CTA_PROTOINFO_TCP_STATE));
            let told = info.and_then(|state| TrackedState::from_number(*state.first()?));
            let status = attribute(message, CTA_STATUS).and_then(<[u8]>::first_chunk);
            let is_offloaded = status.is_some_and(|it| u32::from_be_bytes(*it) & OFFLOADED != 0);
            told.unwrap_or(if is_offloaded {
                TrackedState::ESTABLISHED
            } else {
                TrackedState::UNKNOWN
            })
        }
    };
    let left = attribute(message, CTA_TIMEOUT)
        .and_then(<[u8]>::first_chunk)
        .map(|four| Duration::from_secs(u32::from_be_bytes(*four).into()));
    let zone = attribute(message, CTA_ZONE).and_then(be16);
    Some(Row::Tracked(tracked(
        protocol, &original, &reply, zone, state, left,
    )))
}

fn tracked(
    protocol: Protocol,
    original: &Tuple,
    reply: &Tuple,
    zone: Option<u16>,
    state: TrackedState,
    left: Option<Duration>,
) -> Tracked {
    Tracked {
        flow: NatFlow {
            source: reply.destination,
            destination: reply.source,
            destination_port: reply.source_port,
            protocol,
            zone: reply.zone.or(zone).unwrap_or(0),
        },
        port: reply.destination_port,
        origin: original.source,
        origin_port: original.source_port,
        state,
        left,
    }
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    const CTA_TUPLE_IP: u16 = 1;
    const CTA_TUPLE_PROTO: u16 = 2;
    const CTA_TUPLE_ZONE: u16 = 3;
    const CTA_PROTO_SRC_PORT: u16 = 2;
    const CTA_PROTO_DST_PORT: u16 = 3;
    let ip = attribute(bytes, CTA_TUPLE_IP)?;
    let four = |kind| {
        let octets: [u8; 4] = attribute(ip, kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let six = |kind| {
        let octets: [u8; 16] = attribute(ip, kind)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    // CTA_IP_V4_SRC, CTA_IP_V6_SRC; each has its destination behind it.
    let end = |at: u16| four(1 + at).or_else(|| six(3 + at));
    let protocol = attribute(bytes, CTA_TUPLE_PROTO)?;
    Some(Tuple {
        source: end(0)?,
        destination: end(1)?,
        source_port: be16(attribute(protocol, CTA_PROTO_SRC_PORT)?)?,
        destination_port: be16(attribute(protocol, CTA_PROTO_DST_PORT)?)?,
        zone: attribute(bytes, CTA_TUPLE_ZONE).and_then(be16),
    })
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|two| u16::from_be_bytes(*two))
}

/// Streams the rows of a file like /proc/net/nf_conntrack; returns how many were not understood.
fn rows(table: File, row: &mut dyn FnMut(&Tracked)) -> io::Result<u64> {
    let mut reader = BufReader::new(table.take(LONGEST_TABLE));
    let (mut line, mut malformed) = (Vec::new(), 0);
    while file::line(&mut reader, LONGEST_LINE, &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        match parse(&text) {
            Some(Row::Tracked(tracked)) => row(&tracked),
            Some(Row::Other) => {}
            None => malformed += 1,
        }
    }
    Ok(malformed)
}

/// One row: `ipv4 2 tcp 6 117 TIME_WAIT src=… dst=… sport=… dport=… src=… …`, before Linux 2.6.20
/// without its first two words. As [`decode`].
fn parse(line: &str) -> Option<Row> {
    let words: Vec<_> = line.split_whitespace().collect();
    let Some(first) = words.first() else {
        return Some(Row::Other); // A blank line.
    };
    let at = if first.starts_with("ipv") { 2 } else { 0 };
    let protocol = match *words.get(at)? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return words.get(at + 1)?.parse::<u8>().ok().map(|_| Row::Other),
    };
    // An offloaded connection has no time and no state.
    let left = words.get(at + 2)?.parse().ok().map(Duration::from_secs);
    let state = match protocol {
        Protocol::Udp => TrackedState::STATELESS,
        Protocol::Tcp => {
            let told = words.get(at + 3);
            let is_offloaded = words.iter().any(|word| word.contains("OFFLOAD]"));
            told.and_then(|name| TrackedState::from_name(name))
                .unwrap_or(if is_offloaded {
                    TrackedState::ESTABLISHED
                } else {
                    TrackedState::UNKNOWN
                })
        }
    };
    let values = |key: &'static str| {
        let pairs = words.iter().filter_map(|word| word.split_once('='));
        pairs.filter_map(move |(name, value)| (name == key).then_some(value))
    };
    let tuple = |direction, zone: &'static str| {
        Some(Tuple {
            source: values("src").nth(direction)?.parse().ok()?,
            destination: values("dst").nth(direction)?.parse().ok()?,
            source_port: values("sport").nth(direction)?.parse().ok()?,
            destination_port: values("dport").nth(direction)?.parse().ok()?,
            zone: values(zone).next().and_then(|zone| zone.parse().ok()),
        })
    };
    let (original, reply) = (tuple(0, "zone-orig")?, tuple(1, "zone-reply")?);
    let zone = values("zone").next().and_then(|zone| zone.parse().ok());
    Some(Row::Tracked(tracked(
        protocol, &original, &reply, zone, state, left,
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: &str = "ipv4     2 tcp      6 117 TIME_WAIT src=10.1.0.2 dst=10.9.0.9 sport=41000 \
                       dport=3306 src=10.2.0.2 dst=10.2.0.1 sport=3307 dport=50003 [ASSURED] mark=0 \
                       zone=0 use=2";

    fn connection(line: &str) -> Tracked {
        match parse(line) {
            Some(Row::Tracked(tracked)) => tracked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_is_of_the_flow_that_the_server_sees() {
        let row = connection(ROW);
        assert_eq!(
            row,
            Tracked {
                flow: NatFlow {
                    source: [10, 2, 0, 1].into(),
                    destination: [10, 2, 0, 2].into(),
                    destination_port: 3307,
                    protocol: Protocol::Tcp,
                    zone: 0,
                },
                port: 50003,
                origin: [10, 1, 0, 2].into(),
                origin_port: 41000,
                state: TrackedState::from_name("TIME_WAIT").unwrap(),
                left: Some(Duration::from_secs(117)),
            }
        );
        assert!(row.is_translated());
        // As on Linux 2.6.
        assert_eq!(
            parse(ROW.strip_prefix("ipv4     2 ").unwrap()),
            Some(Row::Tracked(row))
        );
        let zoned = connection(&ROW.replace("zone=0", "zone-reply=7"));
        assert_eq!(zoned.flow.zone, 7);
    }

    #[test]
    fn other_protocols_are_passed_over_and_damaged_rows_counted() {
        for line in [
            "ipv4     2 icmp     1 29 src=10.1.0.2 dst=10.2.0.2 type=8 code=0 id=1 src=10.2.0.2 \
             dst=10.2.0.1 type=0 code=0 id=1 mark=0 use=1",
            "ipv4     2 unknown  2 581 src=0.0.0.0 dst=224.0.0.1 [UNREPLIED] src=224.0.0.1 \
             dst=0.0.0.0 mark=0 use=1",
            "",
        ] {
            assert_eq!(parse(line), Some(Row::Other), "{line}");
        }
        let cut = ROW.find("dport=50003").unwrap();
        assert_eq!(parse(&ROW[..cut]), None);
        assert_eq!(parse("ipv4 2 tcp 6 117 NO_STATE src=1.2.3.4"), None);
    }

    #[test]
    fn udp_and_offloaded_connections_have_no_state_of_their_own() {
        let udp = "ipv6 10 udp 17 29 src=2001:db8::2 dst=2001:db8::9 sport=5353 dport=53 \
                   [UNREPLIED] src=2001:db8::9 dst=2001:db8::1 sport=53 dport=5353 mark=0 use=1";
        let udp = connection(udp);
        assert_eq!(
            (udp.state, udp.is_translated()),
            (TrackedState::STATELESS, true)
        );
        let offloaded = ROW
            .replace("117 TIME_WAIT ", "")
            .replace("[ASSURED]", "[OFFLOAD]");
        let offloaded = connection(&offloaded);
        assert_eq!(
            (offloaded.state.name(), offloaded.left),
            ("ESTABLISHED", None)
        );
    }

    /// By the layout of nfnetlink_conntrack.h; of an offloaded connection the kernel leaves out what
    /// hangs on the packets that it does not see (`ctnetlink_dump_info`).
    #[test]
    fn a_connection_without_a_state_is_counted() {
        let put = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let tuple = |kind, ends: [[u8; 4]; 2], ports: [u16; 2]| {
            let ip = [put(1, &ends[0]), put(2, &ends[1])].concat();
            let [from, to] = ports.map(u16::to_be_bytes);
            let protocol = [put(1, &[6]), put(2, &from), put(3, &to)].concat();
            put(kind, &[put(1, &ip), put(2, &protocol)].concat())
        };
        let message = |status: u32, info: &[u8]| {
            [
                tuple(1, [[10, 1, 0, 2], [10, 2, 0, 2]], [40000, 3306]),
                tuple(2, [[10, 2, 0, 2], [10, 2, 0, 1]], [3306, 50000]),
                put(3, &status.to_be_bytes()),
                info.to_vec(),
            ]
            .concat()
        };
        let closed = put(4, &put(1, &put(1, &[7])));
        for (status, info, state) in [
            (0x18e | 1 << 14, &[][..], "ESTABLISHED"),
            (0x18e | 1 << 15, &[], "ESTABLISHED"),
            (0x18e, &[], "UNKNOWN"),
            (0x18e, &closed, "TIME_WAIT"),
            (0x18e, &put(4, &put(1, &put(1, &[99]))), "UNKNOWN"),
        ] {
            let Some(Row::Tracked(row)) = decode(&message(status, info)) else {
                panic!("{state}");
            };
            assert_eq!((row.state.name(), row.port), (state, 50000));
            assert!(row.is_translated());
        }
        let odd = connection(&ROW.replace("TIME_WAIT", "LATER_STATE"));
        assert_eq!((odd.state.name(), odd.port), ("UNKNOWN", 50003));
    }

    #[test]
    fn rows_that_are_not_understood_are_told_though_nothing_is_translated() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        std::fs::write(
            root.path().join("net/nf_conntrack"),
            "ipv4 2 tcp 6 7 CLOSE\n",
        )
        .unwrap();
        let table = Machine::recorded(root.path()).nat(None).unwrap().unwrap();
        assert_eq!((table.malformed, table.flows.len()), (1, 0));
    }

    #[test]
    fn only_what_says_so_means_that_nothing_is_tracked() {
        for (failure, is_one) in [
            (Failure::Errno(Errno::EINVAL), true),
            (Failure::Errno(Errno::EPROTONOSUPPORT), true),
            (Failure::Errno(Errno::ENOBUFS), false),
            (Failure::Errno(Errno::EINTR), false),
            (Failure::Errno(Errno::EMFILE), false),
            (Failure::Interrupted, false),
            (Failure::Truncated, false),
        ] {
            assert_eq!(is_absence(failure), is_one, "{failure}");
        }
    }

    #[test]
    fn of_more_flows_than_are_counted_the_heavy_ones_stay() {
        let flow = |number: u32| NatFlow {
            source: [10, 2, 0, 1].into(),
            destination: Ipv4Addr::from(number).into(),
            destination_port: 443,
            protocol: Protocol::Tcp,
            zone: 0,
        };
        let mut counts = HeavyFlows::default();
        let light = u32::try_from(COUNTED).unwrap() * 3;
        for number in 0..light {
            counts.add(flow(number + 10));
            if number % 500 == 0 {
                counts.add(flow(1));
            }
        }
        assert!(counts.0.len() <= COUNTED);
        assert_eq!(counts.largest(1).next(), Some(flow(1)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text: String) {
            let _ = decode(&bytes);
            let _ = parse(&text);
        }
    }
}
