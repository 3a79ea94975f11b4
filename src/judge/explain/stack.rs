//! What the lines around a failure say of it: the calls of Python's and Java's stacks, the fields of
//! Node's object, and the question of libpq.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use memchr::{memchr_iter, memmem};

use super::text::{body, readable};
use super::{endpoint, signs};
use crate::model::FailureKind;
use signs::Sign;

/// Lines after a failure in which its object tells where it went, and its stack what was called.
const BEHIND: usize = 16;

/// Without one of these what follows a failure says nothing of it.
static TELLING: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new(["at ", "...", "errno:", "code:", "Is the server"]).ok());

/// What follows a line, where it tells something.
#[must_use]
pub fn following(text: &[u8], end: usize) -> Vec<String> {
    const BYTES: usize = 4 << 10;
    let rest = text.get(end + 1..).unwrap_or_default();
    let rest = &rest[..rest.len().min(BYTES)];
    let end = memchr_iter(b'\n', rest).nth(BEHIND - 1);
    let rest = &rest[..end.unwrap_or(rest.len())];
    if !TELLING.as_ref().is_some_and(|words| words.is_match(rest)) {
        return Vec::new();
    }
    let lines = rest.split(|byte| *byte == b'\n');
    lines.map(|line| body(&readable(line)).to_owned()).collect()
}

/// The calls that Python's stack ends in, before a line.
#[must_use]
pub fn preceding(text: &[u8], start: usize) -> String {
    const BYTES: usize = 800;
    const CALL: &str = "  File \"";
    let before = &text[start.saturating_sub(BYTES)..start];
    let before = before.trim_ascii_end();
    if memmem::find(before, b"  File ").is_none() {
        return String::new();
    }
    let lines: Vec<_> = before
        .rsplit(|byte| *byte == b'\n')
        .take(3)
        .map(|line| body(&readable(line)).to_owned())
        .collect();
    if lines.iter().any(|line| line.starts_with(CALL)) {
        lines.join(" ")
    } else {
        String::new()
    }
}

/// What was done, by the words of a call; of several in one line the first of these decides.
const CALLS: [(&[&str], Done); 4] = [
    (
        &[
            "setsockopt",
            "setsocketoption",
            "setintoption",
            "membership",
            "multicast",
            "join_group",
            "joingroup",
            "sendto",
            "sendmsg",
            "datagram",
            "udp",
        ],
        Done::Elsewhere,
    ),
    (&["source_address", "local_addr"], Done::BoundSource),
    (&["connect"], Done::Connected),
    (&["bind", "listen", "create_server"], Done::Bound),
];

#[derive(Clone, Copy)]
enum Done {
    Connected,
    Bound,
    BoundSource,
    Elsewhere,
}

fn done(line: &str) -> Option<Done> {
    let line = line.to_ascii_lowercase();
    // A file's name tells nothing.
    let call = line
        .trim_start()
        .strip_prefix("file \"")
        .and_then(|rest| rest.split_once('"'))
        .map_or(line.as_str(), |(_, call)| call);
    let found = CALLS
        .iter()
        .find(|(words, _)| words.iter().any(|word| call.contains(word)));
    found.map(|(_, done)| *done)
}

/// Completes what a line says by those around it.
pub fn look_around(signs: &mut [Sign], before: &str, behind: &[String]) {
    for sign in signs.iter_mut() {
        if sign.is_either {
            let calls = behind
                .iter()
                .map(|line| line.trim_start())
                .take_while(|line| line.starts_with("at ") || line.starts_with("..."));
            if let Some(done) = calls.chain([before]).find_map(done) {
                sign.kind = met(sign.kind, done);
            }
        }
        if sign.destination.is_some() || signs::is_of_a_listener(sign.kind) {
            continue;
        }
        let is_libpq = behind.first().is_some_and(|line| {
            line.trim_start()
                .starts_with("Is the server running on host")
        });
        if is_libpq {
            let question: Vec<_> = behind.iter().take(2).map(String::as_str).collect();
            let question = question.join(" ");
            let host = question
                .trim_start()
                .trim_start_matches("Is the server running on host");
            sign.destination = endpoint::endpoint_and_port(host);
        } else if let Some(at) = behind.iter().position(|line| {
            ["errno:", "code:"]
                .iter()
                .any(|name| line.trim_start().starts_with(name))
        }) {
            let object: Vec<_> = behind[at..].iter().take(8).map(String::as_str).collect();
            let object = object
                .split(|line| line.trim_start().starts_with('}'))
                .next();
            sign.destination = signs::fields(&format!(" {}", object.unwrap_or_default().join(" ")));
        }
    }
}

/// What an error without a word of what was done is, by the call that met it.
fn met(kind: FailureKind, done: Done) -> FailureKind {
    match (kind, done) {
        (FailureKind::PortInUse, Done::Connected | Done::BoundSource) => {
            FailureKind::SourcePortsExhausted
        }
        (FailureKind::PortInUse, _) => FailureKind::PortInUse,
        (_, Done::Connected) => FailureKind::EphemeralPortsExhausted,
        _ => FailureKind::AddressNotAvailable,
    }
}
