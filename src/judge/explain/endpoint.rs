//! Toward whom a connection went, in the forms in which programs write it.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::Destination;

/// A longer word is no endpoint.
const LONGEST: usize = 320;

/// The endpoint at the beginning of `text`, as `verdict` takes it: `10.0.0.5:3306`,
/// `[2001:db8::5]:3306`, `db.example`.
#[must_use]
pub fn endpoint(text: &str) -> Option<String> {
    let text = head(text, 2 * LONGEST).trim_start_matches([
        ' ', '"', '\'', '`', '(', '<', '=', '\u{ab}', '\u{bb}', '\u{201c}',
    ]);
    let end = text
        .find(|letter: char| {
            letter.is_whitespace()
                || matches!(
                    letter,
                    '"' | '\''
                        | '`'
                        | ')'
                        | '('
                        | ','
                        | ';'
                        | '<'
                        | '|'
                        | '\u{bb}'
                        | '\u{ab}'
                        | '\u{201d}'
                        | '{'
                        | '}'
                )
        })
        .unwrap_or(text.len());
    // A quote or a bracket may be of a password: only behind it comes the server.
    let goes_on = text[end..]
        .get(1..)
        .is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_alphanumeric()));
    let word = text[..end].trim_end_matches([':', '.', '-', '!', '?']);
    let is_cut =
        goes_on && has_login(word) && text[end..].starts_with(|next: char| !next.is_whitespace());
    (word.len() <= LONGEST && !is_cut)
        .then(|| of_word(word))
        .flatten()
}

/// Whether it may begin with a user and a password.
fn has_login(word: &str) -> bool {
    word.split_once("://")
        .is_some_and(|(_, rest)| rest.contains(':') && !rest.starts_with('['))
}

/// The endpoint at the beginning of `text`, where its port is told behind it: ` port 3306`,
/// `" (::1), port 5432`, `', 80)`, `', port=80`.
#[must_use]
pub fn endpoint_and_port(text: &str) -> Option<String> {
    let host = endpoint(text)?;
    if Destination::parse(&host).is_ok_and(|found| found.port.is_some()) {
        return Some(host);
    }
    let head = head(text, 120);
    // "db.example" (10.0.0.5), port 5432: what was connected to is the address.
    let behind = head.split_once(&host).map_or("", |(_, behind)| behind);
    let inner = behind
        .strip_prefix("\" (")
        .and_then(|rest| rest.split_once(')'))
        .and_then(|(address, _)| address.parse::<IpAddr>().ok());
    let host = inner.map_or(host, |address| address.to_string());
    Some(match port_in(head) {
        Some(port) => joined(&host, port),
        None => host,
    })
}

/// `text` up to `most` bytes, whole letters.
#[must_use]
pub fn head(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The number after the first ` port ` or the like.
fn port_in(text: &str) -> Option<u16> {
    let markers = [
        " port ",
        " Port ",
        " Port: ",
        "port=",
        "port:",
        "\"port\":",
        "`:`",
        "puerto ",
        "port ",
    ];
    let told = markers
        .iter()
        .find_map(|marker| Some(&text[text.find(marker)? + marker.len()..]))
        // ('10.0.0.5', 80)
        .or_else(|| Some(text.trim_start_matches(['\'', '(']).split_once("', ")?.1))?;
    number(told)
}

/// The port at the beginning of `text`.
#[must_use]
pub fn number(text: &str) -> Option<u16> {
    let text = text.trim_start_matches([' ', '"', '\'', ':', '=']);
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    text[..end.unwrap_or(text.len())]
        .parse()
        .ok()
        .filter(|&port| port > 0)
}

/// A host and a port.
#[must_use]
pub fn joined(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

fn of_word(word: &str) -> Option<String> {
    let scheme = word.split_once("://");
    // gRPC's ipv4:10.0.0.5:443
    let word = scheme.map_or(word, |(_, rest)| rest);
    let word = word
        .strip_prefix("ipv4:")
        .or(word.strip_prefix("ipv6:"))
        .unwrap_or(word);
    // Java's localhost/127.0.0.1:3306 and /127.0.0.1:3306
    if let Some((_, address)) = word.split_once('/') {
        let address = address.trim_start_matches("<unresolved>:");
        if scheme.is_none() && looks_like_an_address(address) {
            return of_word(address);
        }
    }
    // A password may hold a slash: where one may stand there, the server is behind its last @.
    let authority = match word.rsplit_once('@') {
        Some((login, server)) if login.split(['/', '?']).next()?.contains(':') => {
            if is_web(scheme) && login.contains('/') {
                return None;
            }
            server
        }
        _ => word,
    };
    let authority = authority.split(['/', '?']).next().unwrap_or(authority);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    // Of Go's 10.0.0.2:4711->10.0.0.5:3306 the second.
    let host = host.rsplit_once("->").map_or(host, |(_, host)| host);
    let host = host.trim_end_matches([':', '.', '…', ']']);
    let closed = if host.starts_with('[') && !host.contains(']') {
        format!("{host}]")
    } else {
        host.to_owned()
    };
    let port = scheme.and_then(|(scheme, _)| default_port(scheme));
    let found = parsed(&closed)?;
    Some(match (Destination::parse(&found).ok()?.port, port) {
        (None, Some(port)) => joined(&found, port),
        _ => found,
    })
}

fn looks_like_an_address(text: &str) -> bool {
    parsed(text).is_some_and(|found| {
        found.starts_with(|first: char| first == '[' || first.is_ascii_digit())
    })
}

/// Whether paths of such URLs may hold an @ as well.
fn is_web(scheme: Option<(&str, &str)>) -> bool {
    scheme.is_some_and(|(scheme, _)| default_port(scheme).is_some())
}

/// The port of a URL that names none.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme
        .rsplit(['"', '\'', '(', '='])
        .next()
        .unwrap_or(scheme)
    {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn parsed(text: &str) -> Option<String> {
    let known = |found: Destination| {
        let name = found.host.as_ref()?;
        let is_number = matches!(name, crate::model::HostName::Name(name) if !name.bytes().any(|byte| byte.is_ascii_alphabetic()));
        (!is_number).then(|| found.to_string())
    };
    if let Ok(found) = Destination::parse(text) {
        return known(found);
    }
    // Node's and Python's ::1:3306.
    let (host, port) = text.rsplit_once(':')?;
    let address: Ipv6Addr = host.trim_matches(['[', ']']).parse().ok()?;
    let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
    known(Destination::parse(&joined(&address.to_string(), port)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_every_form() {
        for (text, found) in [
            ("10.0.0.5:3306: connect: refused", Some("10.0.0.5:3306")),
            ("[2001:db8::5]:3306: connect:", Some("[2001:db8::5]:3306")),
            ("::1:3306 - Local (:::0)", Some("[::1]:3306")),
            ("::1:6379. Connection", Some("[::1]:6379")),
            ("[::ffff:10.0.0.5]:3306", Some("10.0.0.5:3306")),
            ("tcp://127.0.0.1:2300 (Cannot", Some("127.0.0.1:2300")),
            ("\"http://10.0.0.1/x?y\", host", Some("10.0.0.1:80")),
            ("http://[::1]:8080/", Some("[::1]:8080")),
            (
                "mysql://u:p@ss@db.example:3306/shop",
                Some("db.example:3306"),
            ),
            (
                "mysql://u:12/ss@db.example:3306/shop",
                Some("db.example:3306"),
            ),
            ("mysql://u:12\"ss@db.example:3306/shop", None),
            ("http://u:12/ss@db.example/x", None),
            (
                "https://registry.example/@scope/x",
                Some("registry.example:443"),
            ),
            ("http://u:p@db.example/x", Some("db.example:80")),
            ("localhost/127.0.0.1:3306", Some("127.0.0.1:3306")),
            ("/10.0.0.5:8080", Some("10.0.0.5:8080")),
            ("db/<unresolved>:3306", Some("db")),
            ("10.0.0.2:0->10.0.0.5:3306: bind", Some("10.0.0.5:3306")),
            ("'db.example:3306' (99)", Some("db.example:3306")),
            ("'127.0.0.1' (99)", Some("127.0.0.1")),
            ("db-1.prod.example.com. x", Some("db-1.prod.example.com")),
            ("0.0.0.0:80 failed", None),
            ("", None),
            ("(", None),
            ("99", None),
        ] {
            assert_eq!(endpoint(text).as_deref(), found, "{text}");
        }
    }

    #[test]
    fn a_port_may_stand_behind_its_host() {
        for (text, found) in [
            ("10.0.0.5 port 3306: Connection", Some("10.0.0.5:3306")),
            (
                "\"db.example\" (10.0.0.5), port 5432 failed",
                Some("10.0.0.5:5432"),
            ),
            ("\"::1\", port 5432 failed", Some("[::1]:5432")),
            ("\"localhost\" (::1), port 5432 failed", Some("[::1]:5432")),
            ("('127.0.0.1', 5432)", Some("127.0.0.1:5432")),
            ("('::1', 5432, 0, 0)", Some("[::1]:5432")),
            ("'10.0.0.5', port=80): Max", Some("10.0.0.5:80")),
            ("::1: Cannot assign", Some("::1")),
            ("10.0.0.5:80 failed, port 90", Some("10.0.0.5:80")),
        ] {
            assert_eq!(endpoint_and_port(text).as_deref(), found, "{text}");
        }
    }

    #[test]
    fn any_text_is_no_panic() {
        use proptest::prelude::*;
        proptest!(|(text in any::<String>(), other in "[0-9a-f:.@/\\[\\]'\" (),>-]{0,60}")| {
            let _ = (endpoint_and_port(&text), endpoint_and_port(&other));
        });
    }
}
