//! Addresses and names replaced by others: the same by the same, so that flows stay flows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::answers::{KeptGap, Taken};
use crate::model::{Interface, Owner, Socket};

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
            0x0a00_0000
        };
        let host = if old.is_link_local() {
            0xffff
        } else {
            0x00ff_ffff
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
            0x2001_0db8 << 96
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
        let answers = &mut taken.answers;
        for address in answers.addresses.iter_mut().flatten() {
            *address = self.address(*address);
        }
        for flow in &mut answers.flows {
            flow.source = self.address(flow.source);
            flow.server = self.end(flow.server);
            if let Some((index, name)) = &mut flow.interface {
                scrubbed(*index, name).name().clone_into(name);
            }
            for owner in flow.owners.iter_mut().flatten() {
                self.owner(owner);
            }
        }
        for (server, path) in &mut answers.routes {
            *server = self.end(*server);
            path.source = path.source.map(|it| self.address(it));
            path.interface = path.interface.take().filter(|name| name == "lo");
            path.switched_off = path.switched_off.take().filter(|key| key.contains(".all."));
        }
        let unplaced = answers
            .unplaced
            .iter_mut()
            .flatten()
            .map(|it| &mut it.owner);
        for owner in unplaced.chain(answers.service.as_mut()) {
            self.owner(owner);
        }
        if let Some(namespace) = &mut answers.namespace {
            for process in &mut namespace.processes {
                process.command = other(&mut self.commands, &process.command, |it| {
                    format!("command-{it}")
                });
                if let Some(unit) = &mut process.unit {
                    *unit = other(&mut self.units, unit, |it| format!("unit-{it}"));
                }
            }
            if namespace.name.take().is_some() {
                answers.option = "--netns NAME".into();
                namespace.name = Some("NAME".into());
            }
        }
        if let Some(KeptGap { what, why, .. }) = &mut answers.owners_gap {
            // It names users.
            *what = "owners of sockets".into();
            *why = "not all processes could be read".into();
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
