//! The rules of nftables that translate sources, by netlink
//! (include/uapi/linux/netfilter/nf_tables.h). iptables-nft keeps its own there too, some of them as
//! the older targets.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::netlink::{DUMP, Failure, Netlink, attribute, attributes};
use crate::model::{NatRule, PortRange, RulePorts};

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
    all(GET_RULES, |rule| {
        translation(attribute(rule, NFTA_RULE_EXPRESSIONS)?)
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
    let found = all(GET_CHAINS, |chain| {
        let [table, name] = [NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME].map(|kind| {
            let name = attribute(chain, kind).unwrap_or_default();
            String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned()
        });
        let is_one = name.starts_with("KUBE-NODE") || table == "kube-proxy";
        is_one.then(|| format!("chain {name} of table {table}"))
    })?;
    Ok(found.into_iter().next())
}

/// What `of` finds in the objects that `request` lists, of every family, each once.
fn all<T: PartialEq>(request: u16, of: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Failure> {
    let mut found = Vec::new();
    Netlink::open(SockProtocol::NetlinkNetFilter)?.request(
        request,
        DUMP,
        &[0; HEADER],
        |message| {
            let object = message.get(HEADER..).unwrap_or_default();
            let wanted = of(object).filter(|it| found.len() < MOST && !found.contains(it));
            found.extend(wanted);
        },
    )?;
    Ok(found)
}

/// What the expressions of one rule translate sources to; `None` where they do not.
fn translation(expressions: &[u8]) -> Option<NatRule> {
    let mut registers: HashMap<u32, &[u8]> = HashMap::new();
    for (_, expression) in attributes(expressions) {
        let name = attribute(expression, NFTA_EXPR_NAME).unwrap_or_default();
        let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
        match name.strip_suffix(b"\0").unwrap_or(name) {
            b"immediate" => {
                const NFTA_IMMEDIATE_DREG: u16 = 1;
                const NFTA_IMMEDIATE_DATA: u16 = 2;
                const NFTA_DATA_VALUE: u16 = 1;
                let value = attribute(data, NFTA_IMMEDIATE_DATA)
                    .and_then(|value| attribute(value, NFTA_DATA_VALUE));
                if let (Some(register), Some(value)) = (be32(data, NFTA_IMMEDIATE_DREG), value) {
                    registers.insert(register, value);
                }
            }
            b"masq" => return Some(masquerade(data, &registers)),
            b"nat" => {
                const NFTA_NAT_TYPE: u16 = 1;
                const NFT_NAT_SNAT: u32 = 0;
                if be32(data, NFTA_NAT_TYPE) == Some(NFT_NAT_SNAT) {
                    return Some(snat(data, &registers));
                }
            }
            b"target" => return target(data),
            _ => {}
        }
    }
    None
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
    Some(NatRule { addresses, ports })
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
