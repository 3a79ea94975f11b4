use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Flow;

/// A destination as somebody types it: `10.0.0.5:3306`, `:3306`, `db.example`, `[2001:db8::5]:3306`.
/// A host, a port, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The server's address or name; `None` for any.
    pub host: Option<HostName>,
    /// Its port; `None` for any, never 0.
    pub port: Option<u16>,
}

/// How a host is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// By an address; IPv4-mapped IPv6 is folded into IPv4.
    Address(IpAddr),
    /// By a link-local IPv6 address on this interface (RFC 4007).
    Scoped(Ipv6Addr, String),
    /// By a name that a resolver knows.
    Name(String),
}

/// What can be typed for a destination.
const FORMS: &str = "10.0.0.5:3306, :3306, db.example or [2001:db8::5]:3306";

/// The longest name that DNS can hold (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;

impl Destination {
    /// Reads what was typed.
    ///
    /// # Errors
    /// In words: what is wrong, and what to type.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(format!("it is empty: type {FORMS}"));
        }
        if text.contains("://") || text.contains('/') {
            return Err(
                "it is no URL, path or network: a host and a port alone, as db.example:3306".into(),
            );
        }
        let (host, port) = split(text)?;
        let port = port.map(port_number).transpose()?;
        if host.is_empty() {
            return match port {
                Some(_) => Ok(Self { host: None, port }),
                None => Err(format!("it names neither host nor port: type {FORMS}")),
            };
        }
        let host = host_name(host, port)?;
        Ok(Self {
            host: Some(host),
            port,
        })
    }
}

/// Takes host and port apart; IPv6 addresses have colons of their own.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err("its bracket is not closed: [2001:db8::5]:3306".into());
        };
        if !is_ipv6(host) {
            return Err("brackets hold an IPv6 address: [2001:db8::5]:3306".into());
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("after the bracket comes a colon and the port: [2001:db8::5]:3306".into()),
        };
    }
    if is_ipv6(text) {
        let tail = text.rsplit_once(':');
        return match tail {
            // `::1:3306` is an address whose last part is 3306, and seldom meant as one.
            Some((head, port)) if is_ipv6(head) && port.len() > 1 && is_number(port) => {
                Err(format!(
                    "an address or a port at its end? Type [{head}]:{port}, or [{text}] for the address"
                ))
            }
            _ => Ok((text, None)),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) if is_ipv6(host) => Err(format!(
            "an IPv6 address with a port has brackets: [{host}]:{port}"
        )),
        Some((host, _)) if host.contains(':') => {
            Err(format!("it has too many colons: type {FORMS}"))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|letter| letter.is_ascii_digit())
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 && is_number(text) => Ok(port),
        _ if text.is_empty() => {
            Err("after the colon comes a port, 1 to 65535; without one leave the colon out".into())
        }
        _ => Err(format!("a port is a number from 1 to 65535: type {FORMS}")),
    }
}

fn host_name(text: &str, port: Option<u16>) -> Result<HostName, String> {
    let with_port =
        |host: &str| port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    if let Some((address, interface)) = text.split_once('%') {
        /// Longer than any interface's name (IFNAMSIZ in include/uapi/linux/if.h).
        const TOO_LONG: usize = 16;
        return match address.parse::<Ipv6Addr>() {
            Ok(address) if address.is_unicast_link_local() => {
                let plain = |letter: char| letter.is_ascii_graphic();
                if interface.is_empty()
                    || interface.len() >= TOO_LONG
                    || !interface.chars().all(plain)
                {
                    return Err("after % comes an interface, as in [fe80::1%eth0]:3306".into());
                }
                Ok(HostName::Scoped(address, interface.into()))
            }
            _ => {
                Err("only a link-local IPv6 address names an interface: [fe80::1%eth0]:3306".into())
            }
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_unspecified() {
            return Err(format!(
                "servers listen on {address}, nobody connects to it; clients that name it reach \
                 this machine: type {}",
                with_port(if address.is_ipv4() {
                    "127.0.0.1"
                } else {
                    "[::1]"
                })
            ));
        }
        if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(format!(
                "TCP connects to one host, and {address} is many: type {FORMS}"
            ));
        }
        return Ok(HostName::Address(address));
    }
    if is_number(text) && port.is_none() {
        return Err(format!("a port alone has a colon before it: type {FORMS}"));
    }
    if text
        .bytes()
        .all(|letter| letter.is_ascii_digit() || letter == b'.')
    {
        return Err("an IPv4 address is four numbers from 0 to 255: 10.0.0.5".into());
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if let Some(stranger) = text.chars().find(|&letter| !allowed(letter)) {
        return Err(format!(
            "a host name has no {stranger:?}, only letters, digits, dots and hyphens: type {FORMS}"
        ));
    }
    if text.starts_with(['.', '-']) {
        return Err(format!(
            "a host name begins with a letter or a digit: type {FORMS}"
        ));
    }
    if text.len() > LONGEST_NAME || text.contains("..") {
        return Err(format!(
            "a host name has at most {LONGEST_NAME} characters, in parts with one dot between them: \
             type {FORMS}"
        ));
    }
    Ok(HostName::Name(text.to_owned()))
}

/// As it is typed.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |f: &mut fmt::Formatter<'_>, host: fmt::Arguments<'_>| match self.port {
            Some(_) => write!(f, "[{host}]"),
            None => f.write_fmt(host),
        };
        match &self.host {
            None => {}
            Some(HostName::Address(IpAddr::V6(address))) => {
                bracketed(f, format_args!("{address}"))?;
            }
            Some(HostName::Address(address)) => write!(f, "{address}")?,
            Some(HostName::Scoped(address, interface)) => {
                bracketed(f, format_args!("{address}%{interface}"))?;
            }
            Some(HostName::Name(name)) => f.write_str(name)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A destination with the addresses that its name has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toward {
    /// What was typed.
    pub asked: Destination,
    /// Its addresses in the resolver's order, each once, with its interface's number where it has
    /// one, and with port 0 where any port is meant; empty where any address is.
    pub addresses: Vec<SocketAddr>,
}

impl Toward {
    /// Whether `flow` goes there.
    #[must_use]
    pub fn includes(&self, flow: &Flow) -> bool {
        let there = |address: &SocketAddr| address.ip() == flow.destination;
        let on_interface = match (&self.asked.host, flow.interface) {
            // A link-local address is another one on each interface.
            (Some(HostName::Scoped(_, name)), Some(interface)) => interface.to_string() == *name,
            _ => true,
        };
        (self.asked.host.is_none() || self.addresses.iter().any(there))
            && on_interface
            && self
                .asked
                .port
                .is_none_or(|port| port == flow.destination_port)
    }

    /// Whether it is loopback by every one of its addresses, where TIME_WAIT reuse has rules of its
    /// own.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let mut addresses = self.addresses.iter();
        !self.addresses.is_empty() && addresses.all(|address| address.ip().is_loopback())
    }
}

/// The way to one address as the kernel knows it, before any packet is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Whether the address is one of this machine's; `None` where there is no way, or nobody says.
    pub local: Option<bool>,
    /// The interface that leads there; `None` likewise.
    pub interface: Option<String>,
    /// The source address that the kernel chooses for a socket that is not bound to one; `None`
    /// where it has none to choose that the other end could answer to.
    pub source: Option<IpAddr>,
    /// The number of the error that connect() ends with at once, before a port is looked for.
    pub errno: Option<i32>,
    /// The sysctl that switches IPv6 off, where one does and there is no way.
    pub switched_off: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> HostName {
        HostName::Address(text.parse().unwrap())
    }

    fn name(text: &str) -> HostName {
        HostName::Name(text.into())
    }

    #[test]
    fn a_destination_is_a_host_a_port_or_both() {
        for (typed, host, port, shown) in [
            (
                "10.0.0.5:3306",
                Some(address("10.0.0.5")),
                Some(3306),
                "10.0.0.5:3306",
            ),
            ("10.0.0.5", Some(address("10.0.0.5")), None, "10.0.0.5"),
            (":3306", None, Some(3306), ":3306"),
            (":65535", None, Some(65535), ":65535"),
            (
                "[2001:db8::5]:1",
                Some(address("2001:db8::5")),
                Some(1),
                "[2001:db8::5]:1",
            ),
            (
                "[2001:db8::5]",
                Some(address("2001:db8::5")),
                None,
                "2001:db8::5",
            ),
            (
                "2001:db8::5",
                Some(address("2001:db8::5")),
                None,
                "2001:db8::5",
            ),
            ("::1", Some(address("::1")), None, "::1"),
            (
                "2001:db8:1:2:3:4:5:3306",
                Some(address("2001:db8:1:2:3:4:5:3306")),
                None,
                "2001:db8:1:2:3:4:5:3306",
            ),
            ("[::1:3306]", Some(address("::1:3306")), None, "::1:3306"),
            (
                "[::ffff:10.0.0.5]:3306",
                Some(address("10.0.0.5")),
                Some(3306),
                "10.0.0.5:3306",
            ),
            (
                "db.example:3306",
                Some(name("db.example")),
                Some(3306),
                "db.example:3306",
            ),
            ("my_db-1", Some(name("my_db-1")), None, "my_db-1"),
            (
                "db.example.",
                Some(name("db.example.")),
                None,
                "db.example.",
            ),
        ] {
            let parsed = Destination::parse(typed);
            assert_eq!(parsed, Ok(Destination { host, port }), "{typed}");
            assert_eq!(parsed.unwrap().to_string(), shown, "{typed}");
        }
        let scoped = Destination::parse("[fe80::1%eth0]:3306").unwrap();
        let host = HostName::Scoped("fe80::1".parse().unwrap(), "eth0".into());
        assert_eq!(
            (scoped.host.as_ref(), scoped.port),
            (Some(&host), Some(3306))
        );
        assert_eq!(scoped.to_string(), "[fe80::1%eth0]:3306");
    }

    #[test]
    fn a_refusal_names_the_bound_and_what_to_type() {
        for (typed, said) in [
            ("", "it is empty: type 10.0.0.5:3306, :3306"),
            ("  ", "it is empty"),
            (":", "1 to 65535"),
            ("10.0.0.5:", "1 to 65535; without one leave the colon out"),
            (":0", "from 1 to 65535"),
            (":99999", "from 1 to 65535"),
            (":+80", "from 1 to 65535"),
            ("10.0.0.5:-1", "from 1 to 65535"),
            ("10.0.0.5:mysql", "from 1 to 65535"),
            ("10.0.0.5: 3306", "from 1 to 65535"),
            ("a:b:c", "too many colons"),
            ("a:3306:", "too many colons"),
            ("3306", "a port alone has a colon before it"),
            ("10.0.0", "four numbers from 0 to 255"),
            ("10.0.0.256:3306", "four numbers from 0 to 255"),
            ("10.0.0.5.6", "four numbers from 0 to 255"),
            ("0.0.0.0:3306", "type 127.0.0.1:3306"),
            ("[::]:3306", "type [::1]:3306"),
            ("224.0.0.1:3306", "connects to one host"),
            ("255.255.255.255", "connects to one host"),
            ("[ff02::1]:80", "connects to one host"),
            ("::1:3306", "Type [::1]:3306, or [::1:3306] for the address"),
            ("2001:db8::5:3306", "Type [2001:db8::5]:3306"),
            ("2001:db8:1:2:3:4:5:6:3306", "[2001:db8:1:2:3:4:5:6]:3306"),
            ("[::1", "bracket is not closed"),
            ("[::1]3306", "comes a colon and the port"),
            ("[10.0.0.5]:3306", "brackets hold an IPv6 address"),
            ("[db]:3306", "brackets hold an IPv6 address"),
            ("fe80::1%", "after % comes an interface"),
            ("2001:db8::1%eth0", "only a link-local IPv6 address"),
            ("db%eth0", "only a link-local IPv6 address"),
            ("mysql://app@db:3306/shop", "it is no URL"),
            ("10.0.0.0/8", "it is no URL, path or network"),
            ("app@db:3306", "a host name has no '@'"),
            ("db example", "a host name has no ' '"),
            (" db", "a host name has no ' '"),
            ("db\n", "a host name has no '\\n'"),
            ("m\u{fc}ller.example", "a host name has no 'ü'"),
            ("db,10.0.0.6", "a host name has no ','"),
            ("-db", "begins with a letter or a digit"),
            (".db", "begins with a letter or a digit"),
            ("db..example", "in parts with one dot between them"),
            (&"a".repeat(254), "at most 253 characters"),
        ] {
            let refused = Destination::parse(typed).unwrap_err();
            assert!(refused.contains(said), "{typed:?}: {refused}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_can_be_typed_and_no_text_makes_it_panic(text in "[-:.%\\[\\]0-9a-f ]{0,24}|\\PC{0,12}") {
            if let Ok(parsed) = Destination::parse(&text) {
                let shown = parsed.to_string();
                // An address alone may need brackets that it was typed with.
                let again = Destination::parse(&shown).or_else(|_| Destination::parse(&format!("[{shown}]")));
                proptest::prop_assert_eq!(again, Ok(parsed));
            }
        }
    }

    #[test]
    fn a_flow_is_included_by_address_by_port_or_by_both() {
        let flow = Flow {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.5".parse().unwrap(),
            destination_port: 3306,
            interface: None,
        };
        let toward = |typed, addresses: &[&str]| {
            let asked = Destination::parse(typed).unwrap();
            let port = asked.port.unwrap_or(0);
            let addresses = addresses
                .iter()
                .map(|address| SocketAddr::new(address.parse().unwrap(), port))
                .collect();
            Toward { asked, addresses }
        };
        for (typed, addresses, included) in [
            ("10.0.0.5:3306", &["10.0.0.5"][..], true),
            ("10.0.0.5:3307", &["10.0.0.5"], false),
            ("10.0.0.6:3306", &["10.0.0.6"], false),
            ("10.0.0.5", &["10.0.0.5"], true),
            (":3306", &[], true),
            (":3307", &[], false),
            ("db:3306", &["2001:db8::5", "10.0.0.5"], true),
            ("db", &[], false),
        ] {
            assert_eq!(
                toward(typed, addresses).includes(&flow),
                included,
                "{typed}"
            );
        }
        for (typed, addresses, loopback) in [
            ("localhost", &["::1", "127.0.0.1"][..], true),
            ("db", &["127.0.0.1", "10.0.0.5"], false),
            (":3306", &[], false),
        ] {
            assert_eq!(toward(typed, addresses).is_loopback(), loopback, "{typed}");
        }
    }
}
