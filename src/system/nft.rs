//! The rules of nftables that translate sources, by netlink
//! (include/uapi/linux/netfilter/nf_tables.h). iptables-nft keeps its own there too, some of them as
//! the older targets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::netlink::{DUMP, Failure, Netlink, attribute, attributes};
use crate::model::{LeavesBy, Matches, NatRule, PortRange, Prefix, RulePorts};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE`.
const GET_RULES: u16 = 10 << 8 | 7;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAINS: u16 = 10 << 8 | 4;
/// `struct nfgenmsg`: family, version and id, in front of the attributes.
const HEADER: usize = 4;

const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// More than any rule set that a person reads; the rest would only repeat them.
const MOST: usize = 4096;

/// Every rule that translates sources.
///
/// # Errors
/// Without CAP_NET_ADMIN, or where the kernel has no nftables.
pub fn source_rules() -> Result<Vec<NatRule>, Failure> {
    all(GET_RULES, |family, rule| {
        translation(family, attribute(rule, NFTA_RULE_EXPRESSIONS)?)
    })
}

/// The chain in which kube-proxy keeps NodePorts, if there is one: by iptables-nft, in its modes
/// iptables (KUBE-NODEPORTS) and ipvs (KUBE-NODE-PORT), or in its mode nftables any of its table.
///
/// # Errors
/// As [`source_rules`].
pub fn node_port_chain() -> Result<Option<String>, Failure> {
    const NFTA_CHAIN_TABLE: u16 = 1;
    const NFTA_CHAIN_NAME: u16 = 3;
    let found = all(GET_CHAINS, |_, chain| {
        let [table, name] = [NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME].map(|kind| {
            let name = attribute(chain, kind).unwrap_or_default();
            String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned()
        });
        let is_one = name.starts_with("KUBE-NODE") || table == "kube-proxy";
        is_one.then(|| format!("chain {name} of table {table}"))
    })?;
    Ok(found.into_iter().next())
}

/// What `of` finds in the objects that `request` lists, by their family, each once.
fn all<T: PartialEq>(request: u16, of: impl Fn(u8, &[u8]) -> Option<T>) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    Netlink::open(SockProtocol::NetlinkNetFilter)?.request(
        request,
        DUMP,
        &[0; HEADER],
        |message| {
            let object = message.get(HEADER..).unwrap_or_default();
            let family = message.first().copied().unwrap_or_default();
            let wanted = of(family, object).filter(|it| found.len() < MOST && !found.contains(it));
            found.extend(wanted);
        },
    )?;
    Ok(found)
}

/// What the expressions of one rule translate sources to; `None` where they do not.
fn translation(family: u8, expressions: &[u8]) -> Option<NatRule> {
    let mut registers: HashMap<u32, &[u8]> = HashMap::new();
    let mut asked = Asked::new(family);
    for (_, expression) in attributes(expressions) {
        let name = attribute(expression, NFTA_EXPR_NAME).unwrap_or_default();
        let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
        match name.strip_suffix(b"\0").unwrap_or(name) {
            b"immediate" => {
                const NFTA_IMMEDIATE_DREG: u16 = 1;
                const NFTA_IMMEDIATE_DATA: u16 = 2;
                let value = value(data, NFTA_IMMEDIATE_DATA);
                if let (Some(register), Some(value)) = (be32(data, NFTA_IMMEDIATE_DREG), value) {
                    registers.insert(register, value);
                }
            }
            b"masq" => return Some(asked.by(masquerade(data, &registers))),
            b"nat" => {
                const NFTA_NAT_TYPE: u16 = 1;
                const NFT_NAT_SNAT: u32 = 0;
                if be32(data, NFTA_NAT_TYPE) == Some(NFT_NAT_SNAT) {
                    return Some(asked.by(snat(data, &registers)));
                }
            }
            b"target" => return target(data).map(|rule| asked.by(rule)),
            name => asked.read(name, data),
        }
    }
    None
}

/// What the expressions of a rule ask for so far.
struct Asked {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`, where one is known.
    family: Option<u8>,
    /// What of a packet is in each register, and the mask that was laid over it.
    loaded: HashMap<u32, (Part, Option<Vec<u8>>)>,
    matches: Matches,
}

/// A part of a packet.
#[derive(Clone, Copy)]
enum Part {
    Family,
    Protocol,
    Interface,
    Origin,
    Destination,
    Port,
}

impl Asked {
    const IPV4: u8 = 2;
    const IPV6: u8 = 10;

    fn new(family: u8) -> Self {
        Self {
            family: [Self::IPV4, Self::IPV6].contains(&family).then_some(family),
            loaded: HashMap::new(),
            matches: Matches::default(),
        }
    }

    fn by(self, mut rule: NatRule) -> NatRule {
        rule.matches = self.matches;
        rule
    }

    /// One more expression; one that is not understood asks for nothing, and what it leaves in a
    /// register is nothing that is known.
    fn read(&mut self, name: &[u8], data: &[u8]) {
        const NFTA_DREG: u16 = 1; // NFTA_META_DREG and NFTA_PAYLOAD_DREG.
        let part = match name {
            b"meta" => meta(data),
            b"payload" => self.payload(data),
            b"cmp" => {
                self.compare(data);
                return;
            }
            b"bitwise" => {
                self.mask(data);
                return;
            }
            b"counter" => return,
            _ => {
                self.loaded.clear();
                return;
            }
        };
        let register = be32(data, NFTA_DREG).unwrap_or_default();
        self.loaded.remove(&register);
        self.loaded
            .extend(part.map(|part| (register, (part, None))));
    }

    fn payload(&self, data: &[u8]) -> Option<Part> {
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let number = |kind| be32(data, kind);
        let (base, offset) = (number(NFTA_PAYLOAD_BASE)?, number(NFTA_PAYLOAD_OFFSET)?);
        match (base, self.family, offset, number(NFTA_PAYLOAD_LEN)?) {
            (NETWORK, Some(Self::IPV4), 9, 1) | (NETWORK, Some(Self::IPV6), 6, 1) => {
                Some(Part::Protocol)
            }
            (NETWORK, Some(Self::IPV4), 12, 1..=4) | (NETWORK, Some(Self::IPV6), 8, 1..=16) => {
                Some(Part::Origin)
            }
            (NETWORK, Some(Self::IPV4), 16, 1..=4) | (NETWORK, Some(Self::IPV6), 24, 1..=16) => {
                Some(Part::Destination)
            }
            (TRANSPORT, _, 2, 2) => Some(Part::Port),
            _ => None,
        }
    }

    fn mask(&mut self, data: &[u8]) {
        const NFTA_BITWISE_SREG: u16 = 1;
        const NFTA_BITWISE_DREG: u16 = 2;
        const NFTA_BITWISE_MASK: u16 = 4;
        let from = be32(data, NFTA_BITWISE_SREG).unwrap_or_default();
        let to = be32(data, NFTA_BITWISE_DREG).unwrap_or_default();
        let loaded = self.loaded.remove(&from);
        self.loaded.remove(&to);
        let mask = value(data, NFTA_BITWISE_MASK).map(<[u8]>::to_vec);
        if let (Some((part, None)), Some(mask)) = (loaded, mask) {
            self.loaded.insert(to, (part, Some(mask)));
        }
    }

    fn compare(&mut self, data: &[u8]) {
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        const NFT_CMP_EQ: u32 = 0;
        let register = be32(data, NFTA_CMP_SREG).unwrap_or_default();
        let (Some((part, mask)), Some(asked)) =
            (self.loaded.get(&register), value(data, NFTA_CMP_DATA))
        else {
            return;
        };
        if be32(data, NFTA_CMP_OP) != Some(NFT_CMP_EQ) {
            return;
        }
        let prefix = || {
            let mask = mask.clone().unwrap_or_else(|| vec![0xff; asked.len()]);
            Some(Prefix {
                octets: asked.to_vec(),
                mask,
                is_v4: self.family == Some(Self::IPV4),
            })
        };
        match (part, mask) {
            (Part::Origin, _) => self.matches.origin = prefix(),
            (Part::Destination, _) => self.matches.destination = prefix(),
            (_, Some(_)) => {}
            (Part::Family, _) => self.family = asked.first().copied(),
            (Part::Protocol, _) => self.matches.protocol = asked.first().copied(),
            (Part::Port, _) => self.matches.port = be16(asked),
            (Part::Interface, _) => self.matches.interface = interface(asked),
        }
    }
}

fn meta(data: &[u8]) -> Option<Part> {
    const NFTA_META_KEY: u16 = 2;
    const NFT_META_OIFNAME: u32 = 7;
    const NFT_META_NFPROTO: u32 = 15;
    const NFT_META_L4PROTO: u32 = 16;
    match be32(data, NFTA_META_KEY)? {
        NFT_META_OIFNAME => Some(Part::Interface),
        NFT_META_NFPROTO => Some(Part::Family),
        NFT_META_L4PROTO => Some(Part::Protocol),
        _ => None,
    }
}

/// A name as it is compared: to its end, which is a zero, or without one.
fn interface(asked: &[u8]) -> Option<LeavesBy> {
    let end = asked.iter().position(|&byte| byte == 0);
    let name = asked.get(..end.unwrap_or(asked.len()))?;
    Some(LeavesBy {
        name: String::from_utf8(name.to_vec()).ok()?,
        is_prefix: end.is_none(),
    })
}

/// The bytes in an attribute of `kind` (`NFTA_DATA_VALUE`).
fn value(data: &[u8], kind: u16) -> Option<&[u8]> {
    const NFTA_DATA_VALUE: u16 = 1;
    attribute(attribute(data, kind)?, NFTA_DATA_VALUE)
}

fn masquerade(data: &[u8], registers: &HashMap<u32, &[u8]>) -> NatRule {
    const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
    const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;
    NatRule {
        addresses: None,
        ports: ports(
            data,
            registers,
            [NFTA_MASQ_REG_PROTO_MIN, NFTA_MASQ_REG_PROTO_MAX],
        ),
        matches: Matches::default(),
    }
}

fn snat(data: &[u8], registers: &HashMap<u32, &[u8]>) -> NatRule {
    const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
    const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
    const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
    let end = |kind| address(registers.get(&be32(data, kind)?)?);
    let first = end(NFTA_NAT_REG_ADDR_MIN);
    NatRule {
        addresses: first.map(|first| (first, end(NFTA_NAT_REG_ADDR_MAX).unwrap_or(first))),
        ports: ports(
            data,
            registers,
            [NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_REG_PROTO_MAX],
        ),
        matches: Matches::default(),
    }
}

/// The ports in the registers that two attributes name; the second may be left out.
fn ports(data: &[u8], registers: &HashMap<u32, &[u8]>, [low, high]: [u16; 2]) -> RulePorts {
    let Some(register) = be32(data, low) else {
        return RulePorts::Any;
    };
    let port = |register: u32| Some(be16(registers.get(&register)?));
    let last = be32(data, high).unwrap_or(register);
    match (port(register).flatten(), port(last).flatten()) {
        (Some(low), Some(high)) => range(low, high),
        _ => RulePorts::Unknown,
    }
}

/// A target of iptables: `struct nf_nat_ipv4_multi_range_compat`, or `struct nf_nat_range` from
/// revision 1 of SNAT on and for IPv6 (include/uapi/linux/netfilter/nf_nat.h).
fn target(data: &[u8]) -> Option<NatRule> {
    const NFTA_TARGET_NAME: u16 = 1;
    const NFTA_TARGET_INFO: u16 = 3;
    const NF_NAT_RANGE_MAP_IPS: u32 = 1;
    const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
    const MULTI_RANGE: usize = 20;
    let name = attribute(data, NFTA_TARGET_NAME)?;
    if ![&b"MASQUERADE\0"[..], b"SNAT\0"].contains(&name) {
        return None;
    }
    let info = attribute(data, NFTA_TARGET_INFO)?;
    // Both are padded to eight bytes.
    let (flags, addresses, length) = if info.len() < MULTI_RANGE + 8 {
        (4, 8, 4)
    } else {
        (0, 4, 16)
    };
    let flags = super::netlink::u32_at(info, flags)?;
    let bytes = |at: usize, length: usize| info.get(at..at + length);
    let addresses_at = addresses;
    let ports_at = addresses_at + 2 * length;
    let addresses = (flags & NF_NAT_RANGE_MAP_IPS != 0)
        .then(|| {
            let first = address(bytes(addresses_at, length)?)?;
            Some((first, address(bytes(addresses_at + length, length)?)?))
        })
        .flatten()
        .map(|(first, last)| (folded(first), folded(last)));
    let ports = if flags & NF_NAT_RANGE_PROTO_SPECIFIED != 0 {
        range(be16(bytes(ports_at, 2)?)?, be16(bytes(ports_at + 2, 2)?)?)
    } else {
        RulePorts::Any
    };
    Some(NatRule {
        addresses,
        ports,
        matches: Matches::default(),
    })
}

/// The kernel takes the ends in either order.
fn range(one: u16, other: u16) -> RulePorts {
    RulePorts::Range(PortRange {
        low: one.min(other),
        high: one.max(other),
    })
}

/// `union nf_inet_addr` of an IPv4 rule in its longer form: the rest is zero.
fn folded(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) if six.octets()[4..] == [0; 12] && six.octets()[..4] != [0; 4] => {
            let [a, b, c, d, ..] = six.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|four| Ipv4Addr::from(four).into());
    let six = || <[u8; 16]>::try_from(bytes).map(|six| Ipv6Addr::from(six).into());
    four.or_else(|_| six()).ok()
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|two| u16::from_be_bytes(*two))
}

fn be32(bytes: &[u8], kind: u16) -> Option<u32> {
    let value = attribute(bytes, kind)?;
    value.first_chunk().map(|four| u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEADER + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// The expressions of a rule with this one target.
    fn with_target(name: &[u8], info: &[u8]) -> Vec<u8> {
        let data = [put(1, name), put(2, &[0; 4]), put(3, info)].concat();
        let expression = [put(NFTA_EXPR_NAME, b"target\0"), put(NFTA_EXPR_DATA, &data)].concat();
        put(1, &expression)
    }

    /// What iptables-nft hands over, by the layouts of nf_nat.h.
    #[test]
    fn targets_of_iptables_are_understood() {
        let number = |number: u32| number.to_ne_bytes().to_vec();
        let ports = [50000_u16.to_be_bytes(), 50999_u16.to_be_bytes()].concat();
        let (first, last) = ([192, 0, 2, 1], [192, 0, 2, 4]);
        let old = |flags| {
            let info = [
                number(1),
                number(flags),
                first.to_vec(),
                last.to_vec(),
                ports.clone(),
            ];
            [info.concat(), vec![0; 4]].concat()
        };
        let wide = |address: [u8; 4]| [address.to_vec(), vec![0; 12]].concat();
        let new = [
            number(3),
            wide(first),
            wide(last),
            ports.clone(),
            vec![0; 4],
        ]
        .concat();
        for (name, info, said) in [
            (&b"MASQUERADE\0"[..], old(0), Some("masquerade")),
            (b"MASQUERADE\0", old(2), Some("masquerade to :50000-50999")),
            (b"SNAT\0", old(1), Some("snat to 192.0.2.1-192.0.2.4")),
            (
                b"SNAT\0",
                old(3),
                Some("snat to 192.0.2.1-192.0.2.4:50000-50999"),
            ),
            (
                b"SNAT\0",
                new,
                Some("snat to 192.0.2.1-192.0.2.4:50000-50999"),
            ),
            (b"DNAT\0", old(3), None),
            (b"SNAT\0", vec![0; 3], None),
        ] {
            let rule = translation(2, &with_target(name, &info)).map(|rule| rule.to_string());
            assert_eq!(rule.as_deref(), said, "{}", String::from_utf8_lossy(name));
        }
    }
}
