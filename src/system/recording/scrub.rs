//! Addresses and names replaced by others: the same by the same, so that flows stay flows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::answers::{Answers, KeptFlow, KeptGap, Taken};
use crate::model::{Inhabitant, Interface, Namespace, Owner, Path, Socket};

/// 240.0.0.0/4, of which nobody has any, so that a real address is never taken for a made-up one.
const MADE_UP_FOUR: u32 = 0xf000_0000;

/// 2001:db8::/96, of the addresses for documentation.
const MADE_UP_SIX: u128 = 0x2001_0db8 << 96;

/// Whether `address` may be one of a scrubbed recording: loopback, or put in place of another.
#[must_use]
pub fn is_made_up(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => four.is_loopback() || u32::from(four) & MADE_UP_FOUR == MADE_UP_FOUR,
        IpAddr::V6(six) => six.is_loopback() || u128::from(six) >> 32 == MADE_UP_SIX >> 32,
    }
}

/// What was replaced by what.
#[derive(Debug, Default)]
pub struct Scrubber {
    four: HashMap<Ipv4Addr, Ipv4Addr>,
    six: HashMap<Ipv6Addr, Ipv6Addr>,
    commands: HashMap<String, String>,
    users: HashMap<String, String>,
    units: HashMap<String, String>,
    numbers: HashMap<u32, u32>,
}

/// The one that `known` has for `old`, made where it has none by how many there were.
fn other<K: Hash + Eq + Clone, V: Clone>(
    known: &mut HashMap<K, V>,
    old: &K,
    new: impl FnOnce(u32) -> V,
) -> V {
    let number = u32::try_from(known.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    known
        .entry(old.clone())
        .or_insert_with(|| new(number))
        .clone()
}

impl Scrubber {
    /// Loopback, link-local and unspecified addresses stay what they are, of either family.
    fn address(&mut self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(four) => self.four(four).into(),
            IpAddr::V6(six) => match six.to_ipv4_mapped() {
                Some(four) => self.four(four).to_ipv6_mapped().into(),
                None => self.six(six).into(),
            },
        }
    }

    fn four(&mut self, old: Ipv4Addr) -> Ipv4Addr {
        if old.is_loopback() || old.is_unspecified() {
            return old;
        }
        let network: u32 = if old.is_link_local() {
            0xa9fe_0000
        } else {
            MADE_UP_FOUR
        };
        let host = if old.is_link_local() {
            0xffff
        } else {
            0x0fff_fffe
        };
        other(&mut self.four, &old, |number| {
            (network | number & host).into()
        })
    }

    fn six(&mut self, old: Ipv6Addr) -> Ipv6Addr {
        if old.is_loopback() || old.is_unspecified() {
            return old;
        }
        let network: u128 = if old.is_unicast_link_local() {
            0xfe80 << 112
        } else {
            MADE_UP_SIX
        };
        other(&mut self.six, &old, |number| {
            (network | u128::from(number)).into()
        })
    }

    fn end(&mut self, end: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.address(end.ip()), end.port())
    }

    fn owner(&mut self, owner: &mut Owner) {
        owner.command = other(&mut self.commands, &owner.command, |it| {
            format!("command-{it}")
        });
        if owner.user != "root" {
            owner.user = other(&mut self.users, &owner.user, |it| format!("user-{it}"));
        }
        if let Some(unit) = &mut owner.unit {
            *unit = other(&mut self.units, unit, |it| format!("unit-{it}"));
        }
    }

    /// Replaces those of the sockets and the answers.
    pub fn taken(&mut self, taken: &mut Taken) {
        for socket in &mut taken.rows {
            *socket = Socket {
                local: self.end(socket.local),
                remote: self.end(socket.remote),
                interface: socket.interface.map(|it| scrubbed(it.index(), it.name())),
                ..*socket
            };
        }
        // Whatever is new there is to be looked at here.
        let Answers {
            version: _,
            taken: _,
            namespace,
            option,
            netns: _,
            addresses,
            tick_ns: _,
            bound: _,
            passed_over: _,
            growth: _,
            holders,
            flows,
            routes,
            unplaced,
            service,
            owners_gap,
            look: _,
            around: _,
            is_machines: _,
            other_namespaces: _,
            gaps,
        } = &mut taken.answers;
        for address in addresses.iter_mut().flatten() {
            *address = self.address(*address);
        }
        for flow in flows {
            self.flow(flow);
        }
        for (server, path) in routes {
            *server = self.end(*server);
            self.path(path);
        }
        let unplaced = unplaced.iter_mut().flatten().map(|it| &mut it.owner);
        for owner in unplaced.chain(service) {
            self.owner(owner);
        }
        if let Some(namespace) = namespace {
            self.namespace(namespace, option);
        }
        if let Some(holders) = holders {
            holders.without_names();
        }
        gaps.iter_mut().for_each(KeptGap::without_names);
        if let Some(gap) = owners_gap {
            gap.without_names();
            gap.what = "owners of sockets".into();
            gap.why = "not all processes could be read".into();
        }
    }

    fn flow(&mut self, flow: &mut KeptFlow) {
        flow.source = self.address(flow.source);
        flow.server = self.end(flow.server);
        if let Some((index, name)) = &mut flow.interface {
            scrubbed(*index, name).name().clone_into(name);
        }
        for owner in flow.owners.iter_mut().flatten() {
            self.owner(owner);
        }
    }

    fn path(&mut self, path: &mut Path) {
        let Path {
            local: _,
            interface,
            source,
            errno: _,
            switched_off,
        } = path;
        *source = source.map(|it| self.address(it));
        *interface = interface.take().filter(|name| name == "lo");
        *switched_off = switched_off.take().filter(|key| key.contains(".all."));
    }

    fn namespace(&mut self, namespace: &mut Namespace, option: &mut String) {
        for Inhabitant { command, unit, .. } in &mut namespace.processes {
            *command = other(&mut self.commands, command, |it| format!("command-{it}"));
            if let Some(unit) = unit {
                *unit = other(&mut self.units, unit, |it| format!("unit-{it}"));
            }
        }
        if namespace.name.take().is_some() {
            namespace.name = Some("NAME".into());
        }
        if option.starts_with("--netns") {
            *option = "--netns NAME".into();
        }
    }

    /// Replaces those of a file of /proc, of this machine.
    #[must_use]
    pub fn file(&mut self, name: &str, bytes: &[u8]) -> Vec<u8> {
        match name {
            "sys/kernel/hostname" => b"host-1\n".to_vec(),
            "net/tcp" | "net/tcp6" | "net/udp" | "net/udp6" | "net/udplite" | "net/udplite6" => {
                let text = String::from_utf8_lossy(bytes);
                let lines = text.lines().map(|line| self.row(line) + "\n");
                lines.collect::<String>().into_bytes()
            }
            _ => bytes.to_vec(),
        }
    }

    /// A row of a socket table: the second and the third column are addresses, the eighth is a user.
    fn row(&mut self, line: &str) -> String {
        let mut row = String::with_capacity(line.len());
        let mut rest = line;
        for column in 0.. {
            let start = rest.find(|it: char| it != ' ').unwrap_or(rest.len());
            let (blanks, after) = rest.split_at(start);
            row.push_str(blanks);
            if after.is_empty() {
                break;
            }
            let end = after.find(' ').unwrap_or(after.len());
            let (word, after) = after.split_at(end);
            let replaced = match column {
                1 | 2 => self.hex(word),
                7 => self.user(word),
                _ => None,
            };
            match replaced {
                // Columns stay where they are.
                Some(new) if column == 7 => {
                    let room = blanks.len() + word.len();
                    row.truncate(row.len() - blanks.len());
                    let _ = write!(row, "{new:>room$}");
                }
                Some(new) => row.push_str(&new),
                None => row.push_str(word),
            }
            rest = after;
        }
        row
    }

    fn user(&mut self, word: &str) -> Option<String> {
        let old: u32 = word.parse().ok()?;
        if old == 0 {
            return None;
        }
        let new = other(&mut self.numbers, &old, |number| {
            1000_u32.saturating_add(number)
        });
        Some(new.to_string())
    }

    /// `0100007F:0CEA`: numbers of four bytes as they lie in memory, and a port.
    fn hex(&mut self, word: &str) -> Option<String> {
        let (address, port) = word.split_once(':')?;
        // Network order from this machine's, and back.
        let swapped = u32::to_be;
        let number = |at: usize| {
            let number = u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
            number.map(swapped)
        };
        let new = match address.len() {
            8 => format!("{:08X}", swapped(self.four(number(0)?.into()).into())),
            32 => {
                let mut bits = 0_u128;
                for at in [0, 8, 16, 24] {
                    bits = bits << 32 | u128::from(number(at)?);
                }
                let IpAddr::V6(six) = self.address(IpAddr::V6(bits.into())) else {
                    return None;
                };
                let mut new = String::new();
                for number in six.octets().as_chunks::<4>().0 {
                    let _ = write!(new, "{:08X}", swapped(u32::from_be_bytes(*number)));
                }
                new
            }
            _ => return None,
        };
        Some(format!("{new}:{port}"))
    }
}

/// The same interface without its name, but for `lo`.
fn scrubbed(index: u32, name: &str) -> Interface {
    Interface::new(index, if name == "lo" { name } else { "" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Flow, Gap, Holders, NodePorts, Placeless, SourceName, TcpState, Unplaced, Weight,
    };

    /// Nothing of whatever answers there are names anybody.
    #[test]
    fn no_answer_keeps_an_address_or_a_name() {
        let owner = || Owner {
            pid: 7,
            command: "secret-command".into(),
            user: "secret-user".into(),
            unit: Some("secret-unit.service".into()),
            sockets: 1,
            open_files: None,
            open_files_limit: None,
        };
        let gap = |what: &str| Gap {
            what: format!("{what} secret-file"),
            why: "secret-why of 198.51.100.7".into(),
            weight: Weight::Decisive,
        };
        let (source, server) = ("198.51.100.7".parse().unwrap(), "[2001:db8:77::5]:3306");
        let link = Interface::new(3, "secret0");
        let flow = Flow {
            source,
            destination: "2001:db8:77::5".parse().unwrap(),
            destination_port: 3306,
            interface: Some(link),
        };
        let answers = Answers {
            namespace: Some(Namespace {
                name: Some("/run/secret-path".into()),
                processes: vec![Inhabitant {
                    pid: 7,
                    command: "secret-command".into(),
                    unit: Some("secret-unit.service".into()),
                }],
                ..Namespace::default()
            }),
            option: "--netns /run/secret-path".into(),
            addresses: Some(vec![source, "fe80::abcd:ef".parse().unwrap()]),
            holders: Some(
                Holders {
                    node_ports: NodePorts::Seen("chain secret-chain".into()),
                    gaps: vec![gap("ports held by UDP")],
                    ..Holders::default()
                }
                .into(),
            ),
            flows: vec![KeptFlow {
                owners: Some(vec![owner()]),
                ..KeptFlow::of(&flow)
            }],
            routes: vec![(
                server.parse().unwrap(),
                Path {
                    interface: Some("secret0".into()),
                    source: Some(source),
                    switched_off: Some("net.ipv6.conf.secret0.disable_ipv6".into()),
                    ..Path::default()
                },
            )],
            unplaced: Some(vec![Unplaced {
                owner: owner(),
                why: Placeless::NoPort,
            }]),
            service: Some(owner()),
            owners_gap: Some(gap("owners").into()),
            gaps: vec![gap("sock_diag").into(), gap("another").into()],
            ..Answers::default()
        };
        let row = Socket {
            state: TcpState::TimeWait,
            local: SocketAddr::new(source, 40000),
            remote: server.parse().unwrap(),
            time_wait_left: Some(Duration::from_secs(9)),
            inode: None,
            interface: Some(link),
            retransmits: 0,
        };
        let mut taken = Taken {
            rows: vec![row],
            answers,
            source: SourceName::SockDiag,
        };
        let told = |taken: &Taken| {
            let rows = taken.rows.iter().map(super::super::answers::line);
            rows.collect::<String>() + &serde_json::to_string(&taken.answers).unwrap()
        };
        let secrets = ["secret", "198.51.100", "2001:db8:77", "abcd"];
        assert!(secrets.iter().all(|it| told(&taken).contains(it)));
        Scrubber::default().taken(&mut taken);
        for secret in secrets {
            assert!(!told(&taken).contains(secret), "{secret}: {}", told(&taken));
        }
        // What is decisive stays it, and the table is known not to be whole.
        assert!(taken.gaps().all(|gap| gap.weight == Weight::Decisive));
        assert!(taken.gaps().next().unwrap().what.contains("sock_diag"));
        assert!(is_made_up(taken.rows[0].local.ip()) && is_made_up(taken.rows[0].remote.ip()));
        for real in ["10.0.0.1", "198.51.100.7", "2001:db8:77::5", "fe80::1"] {
            assert!(!is_made_up(real.parse().unwrap()), "{real}");
        }
    }
}
