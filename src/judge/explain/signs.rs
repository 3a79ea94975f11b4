//! What one line says: which connections failed, and toward whom.

use std::net::IpAddr;

use super::endpoint::{endpoint, endpoint_and_port, head, joined, number};
use super::lexicon::{ALL, Form, System, Word};
use super::setting::is_setting;
use crate::model::{FAILURES, FailureKind};

/// A failure that a line tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// What failed.
    pub kind: FailureKind,
    /// Toward whom; `None` where the line does not say.
    pub destination: Option<String>,
    /// The system that it comes from, where it is not Linux.
    pub system: Option<System>,
    /// Whether it says that something failed, and not what.
    pub is_vague: bool,
    /// Whether it is errno 99, and the line does not tell whether bind() or connect() met it.
    pub is_either: bool,
    /// Where in the line it stands.
    pub at: usize,
    /// Which of a failure's lines that is, from 0 on.
    pub line: usize,
}

/// What a line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The failures, each once.
    pub signs: Vec<Sign>,
    /// Whether what it says is, or what follows it will be, the same failure once more.
    pub is_chain: bool,
    /// Whether a stack of calls begins.
    pub is_stack: bool,
    /// For how many lines it stands, as syslog says in front of one; `None` for itself.
    pub times: Option<u64>,
    /// How many times more the line before came, as syslog says behind it.
    pub times_more: Option<u64>,
}

impl Said {
    /// The same, so many bytes further on.
    #[must_use]
    pub fn moved(mut self, bytes: usize) -> Self {
        for sign in &mut self.signs {
            sign.at += bytes;
        }
        self
    }
}

/// What was done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Connect,
    Bind,
    BindOfClient,
    Listen,
    EitherBind,
    Elsewhere,
    Lookup,
    Reading,
    Handshake,
}

/// A word around the failures.
struct Around {
    at: usize,
    act: Act,
    destination: Option<String>,
}

/// Failures of one line that are kept.
const MOST_SIGNS: usize = 16;

/// Words before a failure, and after it, that may say what was done.
const NEAR: (usize, usize) = (12, 8);

/// Reads a line.
#[must_use]
pub fn read(text: &str) -> Said {
    let mut said = Said::default();
    let Some(all) = ALL.as_ref() else {
        return said;
    };
    let attempts = attempts(text);
    let (mut words, mut told) = (Vec::new(), Vec::new());
    for (at, end, word) in all.find(text.as_bytes()) {
        words.push((at, end, word, told.len()));
        told.extend(around(text, at, end, word));
    }
    for &(at, end, word, before) in &words {
        match word {
            Word::Chain => said.is_chain = true,
            Word::Stack => said.is_stack = true,
            Word::Repeated => said.times = times(&text[end..]),
            Word::LastRepeated => said.times_more = times(&text[end..]),
            _ => {
                let near = before.saturating_sub(NEAR.0)..told.len().min(before + NEAR.1);
                let near = of_attempt(&told[near], &attempts, at);
                said.signs.extend(sign(text, (at, end), word, near));
            }
        }
        if said.signs.len() > 2 * MOST_SIGNS {
            settle(&mut said.signs);
        }
    }
    if !attempts.is_empty() {
        without_ipv6(&mut said.signs);
    }
    settle(&mut said.signs);
    for sign in &mut said.signs {
        if attempts.is_empty() && sign.destination.is_none() && !is_of_a_listener(sign.kind) {
            sign.destination = fields(text)
                .or_else(|| of_access_log(text, sign.at))
                .or_else(|| of_request(&text[..sign.at]));
        }
    }
    said
}

/// Where each of asyncio's attempts begins, one for each address of a name: what stands in one says
/// nothing of another.
fn attempts(text: &str) -> Vec<usize> {
    const TITLE: &str = "Multiple exceptions: ";
    let Some(begin) = text.find(TITLE) else {
        return Vec::new();
    };
    let inner = head(&text[begin..], 4 << 10);
    inner
        .match_indices("[Errno ")
        .map(|(at, _)| begin + at)
        .collect()
}

/// Of `near` what belongs to the attempt that stands at `at`.
fn of_attempt<'a>(near: &'a [Around], attempts: &[usize], at: usize) -> &'a [Around] {
    let place = attempts.partition_point(|&begin| begin <= at);
    let Some(begin) = place.checked_sub(1).map(|place| attempts[place]) else {
        return near;
    };
    let end = attempts.get(place).copied().unwrap_or(usize::MAX);
    let from = near.partition_point(|word| word.at < begin);
    let to = near.partition_point(|word| word.at < end);
    &near[from..to]
}

/// Where a name stands for loopback in both families and 127.0.0.1 was reached, errno 99 without an
/// address is of `::1`, which is not there.
fn without_ipv6(signs: &mut [Sign]) {
    let is_ipv4_loopback = |sign: &Sign| {
        let destination = sign.destination.as_deref();
        destination.is_some_and(|destination| destination.starts_with("127.0.0.1:"))
    };
    if !signs.iter().any(is_ipv4_loopback) {
        return;
    }
    let is_address = |destination: &str| {
        let host = destination
            .rsplit_once(':')
            .map_or(destination, |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    };
    for sign in signs {
        // The name itself may be told behind all of them.
        let is_untold = !sign.destination.as_deref().is_some_and(is_address);
        if sign.kind == FailureKind::EphemeralPortsExhausted && is_untold {
            sign.kind = FailureKind::AddressNotAvailable;
            sign.destination = None;
            sign.is_either = false;
        }
    }
}

/// `5 times`.
fn times(rest: &str) -> Option<u64> {
    let (number, rest) = rest.split_once(' ')?;
    let number = number.parse().ok().filter(|&times| times > 0)?;
    rest.starts_with("time").then_some(number)
}

/// Whether no destination belongs to it.
#[must_use]
pub fn is_of_a_listener(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::PortInUse | FailureKind::AddressNotAvailable | FailureKind::ConntrackFull
    )
}

fn around(text: &str, at: usize, end: usize, word: Word) -> Option<Around> {
    let rest = &text[end..];
    let (act, destination) = match word {
        Word::Connect(form) => (Act::Connect, behind(rest, form)),
        Word::Failed => (Act::Connect, behind(without_title(rest), Form::Endpoint)),
        Word::Mysql => (Act::Connect, endpoint(rest)),
        Word::MysqlSocket => (Act::Connect, path(rest)),
        Word::Down => {
            let name = text[..at].rsplit(' ').next().unwrap_or_default();
            let is_name = !name.is_empty() && name.len() <= 80;
            (Act::Connect, is_name.then(|| format!("backend {name}")))
        }
        Word::Bind => (Act::Bind, None),
        Word::BindOfClient => (Act::BindOfClient, None),
        Word::Elsewhere => (Act::Elsewhere, None),
        Word::Listen => (Act::Listen, None),
        Word::EitherBind => (Act::EitherBind, None),
        Word::Lookup if text[at..end].ends_with(' ') => {
            let name = endpoint(rest).filter(|name| !matches!(name.as_str(), "failed" | "error"));
            (Act::Lookup, name)
        }
        Word::Lookup => (Act::Lookup, None),
        Word::Reading if text[at..end].ends_with("tcp ") => (Act::Reading, endpoint(rest)),
        Word::Reading => (Act::Reading, None),
        Word::Handshake => (Act::Handshake, None),
        _ => return None,
    };
    Some(Around {
        at,
        act,
        destination,
    })
}

fn behind(rest: &str, form: Form) -> Option<String> {
    match form {
        Form::Nowhere => argument(rest),
        Form::Endpoint => endpoint_and_port(rest).filter(|found| is_named(found, rest)),
        Form::Label => {
            let end = rest.find([':', ' ', '.', ',']).unwrap_or(rest.len());
            let name = head(&rest[..end], 80);
            (!name.is_empty()).then(|| format!("backend {name}"))
        }
        Form::Path => path(rest),
        Form::Device => {
            let (host, port) = rest.split_once('/')?;
            let found = endpoint(host)?;
            Some(number(port).map_or(found.clone(), |port| joined(&found, port)))
        }
    }
}

/// The address that a call was given, as strace and socat print it: `(3, {sa_family=AF_INET,
/// sin_port=htons(3306), sin_addr=inet_addr("10.0.0.5")}, 16)`, `(5, AF=2 10.0.0.5:3306, 16)`.
fn argument(rest: &str) -> Option<String> {
    let arguments = head(rest.strip_prefix('(')?, 200);
    let behind = |name: &str| Some(&arguments[arguments.find(name)? + name.len()..]);
    if let Some(address) = behind("AF=2 ").or_else(|| behind("AF=10 ")) {
        return endpoint(address);
    }
    if let Some(name) = behind("sun_path=").or_else(|| behind("AF=1 ")) {
        return path(name);
    }
    let port = behind("port=htons(").and_then(number)?;
    let address = behind("inet_addr(\"").or_else(|| behind("inet_pton(AF_INET6, \""))?;
    Some(joined(&endpoint(address)?, port))
}

/// Whether it is a name that a program gave, and no word of its sentence.
fn is_named(found: &str, rest: &str) -> bool {
    let is_quoted = rest
        .trim_start_matches([' ', '('])
        .starts_with(['"', '\'', '`', '\u{bb}', '\u{ab}', '\u{201c}']);
    is_quoted
        || found == "localhost"
        || found.contains(|letter: char| ".:_-".contains(letter) || letter.is_ascii_digit())
}

/// `host 10.0.0.5` and its like without what it is called.
fn without_title(rest: &str) -> &str {
    [
        "host ",
        "server ",
        "remote host ",
        "redis at ",
        "address ",
        "address=(host=",
        "`host=",
        "node ",
        "mysql server on host ",
        "mysql server on ",
        "[",
    ]
    .iter()
    .find_map(|title| {
        let head = rest.get(..title.len())?;
        head.eq_ignore_ascii_case(title)
            .then(|| &rest[title.len()..])
    })
    .unwrap_or(rest)
}

/// The path of a unix socket.
fn path(rest: &str) -> Option<String> {
    let rest = rest.trim_start_matches(['\'', '"', ' ']);
    let end = rest.find(|letter: char| letter.is_whitespace() || "'\",)|".contains(letter));
    let path = head(rest[..end.unwrap_or(rest.len())].trim_end_matches(':'), 120);
    let path = path
        .split_once(".sock:")
        .map_or(path, |(name, _)| &path[..name.len() + 5]);
    let rooted = if path.starts_with(['/', '@']) {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    (!path.is_empty()).then(|| format!("unix:{rooted}"))
}

/// A failure as one word tells it.
struct Told {
    kind: FailureKind,
    is_vague: bool,
    system: Option<System>,
}

/// What a word tells, where `act` was done.
fn told(
    text: &str,
    (at, end): (usize, usize),
    word: Word,
    act: Option<Act>,
    around: &[Around],
) -> Option<Told> {
    let rest = &text[end..];
    let mut system = None;
    let mut is_vague = false;
    let kind = match word {
        // Java says what it did behind it on Windows alone.
        Word::Errno(98) if act == Some(Act::EitherBind) && rest.starts_with(": connect") => {
            system = Some(System::Windows);
            FailureKind::EphemeralPortsExhausted
        }
        Word::Errno(errno) => of_errno(errno, act, around, at)?,
        Word::Foreign(System::Windows, 49) => {
            system = Some(System::Windows);
            FailureKind::AddressNotAvailable
        }
        Word::Foreign(of, errno) => {
            system = Some(of);
            of_foreign(of, errno, act, around, at)?
        }
        Word::Number => of_errno(numbered(rest)?, act, around, at)?,
        Word::BindOfClient => of_errno(numbered(rest)?, Some(Act::BindOfClient), around, at)?,
        Word::Taken => {
            is_vague = true;
            is_port(&text[..at]).then_some(FailureKind::PortInUse)?
        }
        Word::Socket => of_errno(numbered(rest)?, Some(Act::Connect), around, at)?,
        Word::Code => {
            is_vague = true;
            of_code(code(text, at, end)?)?
        }
        Word::Kind(kind) => kind,
        Word::Vague(kind) => {
            is_vague = true;
            kind
        }
        Word::Failed => {
            // Without a name it may be anything.
            let here = around.iter().find(|word| word.at == at)?;
            here.destination.as_ref()?;
            is_vague = !text[..at].ends_with("SocketTimeoutException: ");
            if is_vague {
                FailureKind::ReasonUntold
            } else {
                FailureKind::NoAnswer
            }
        }
        Word::Mysql => {
            let (kind, of) = of_mysql(rest);
            (is_vague, system) = (kind == FailureKind::ReasonUntold, of);
            kind
        }
        Word::MysqlSocket => match in_parentheses(rest)? {
            2 => FailureKind::UnixSocketMissing,
            11 => FailureKind::ListenQueueFull,
            1 | 13 => FailureKind::PermissionDenied,
            111 => FailureKind::ConnectionRefused,
            _ => return None,
        },
        Word::Timeout => match act? {
            Act::Connect => FailureKind::NoAnswer,
            Act::Reading => FailureKind::SlowAnswer,
            Act::Lookup => FailureKind::NameServerSilent,
            Act::Handshake => FailureKind::SlowHandshake,
            _ => return None,
        },
        _ => return None,
    };
    Some(Told {
        kind,
        is_vague,
        system,
    })
}

/// What a word says of a failure, by what stands around it.
fn sign(text: &str, (at, end): (usize, usize), word: Word, around: &[Around]) -> Option<Sign> {
    let rest = &text[end..];
    if is_setting(text, at, end, word) {
        return None;
    }
    let is_act = |word: &&Around| word.act != Act::Elsewhere;
    let before = around.iter().filter(is_act).rfind(|word| word.at <= at);
    let after = around.iter().filter(is_act).find(|word| word.at > at);
    let nearest = before.or(after.filter(|word| word.at < end + 100));
    let act = match nearest.map(|word| word.act) {
        Some(Act::EitherBind) if rest.starts_with(" (connect failed)") => Some(Act::Connect),
        act => act,
    };
    let Told {
        kind,
        is_vague,
        system,
    } = told(text, (at, end), word, act, around)?;
    let looked_up = around
        .iter()
        .any(|word| word.at < at && word.act == Act::Lookup && word.destination.is_some());
    let kind = match kind {
        // Go: lookup db.example on 10.0.0.2:53: dial udp 10.0.0.2:53: connect: …
        FailureKind::NoRoute
        | FailureKind::NoAnswer
        | FailureKind::ConnectionRefused
        | FailureKind::SlowAnswer
        | FailureKind::ConnectionLost
        | FailureKind::EphemeralPortsExhausted
        | FailureKind::AddressNotAvailable
            if looked_up =>
        {
            FailureKind::NameServerSilent
        }
        FailureKind::AccessDenied if rest.contains(" to database '") => FailureKind::NoSuchDatabase,
        FailureKind::AuthenticationPlugin if is_vague && !text.contains("lugin '") => return None,
        kind => kind,
    };
    let is_name = matches!(
        kind,
        FailureKind::NameNotFound | FailureKind::NameServerSilent
    );
    Some(Sign {
        kind,
        destination: if kind == FailureKind::UnixSocketMissing && rest.starts_with(['/', '@']) {
            path(rest)
        } else if is_name {
            name(text, at, rest, around)
        } else {
            toward(kind, text, (at, end), before, around)
        },
        system,
        is_vague,
        is_either: matches!(act, None | Some(Act::EitherBind))
            && !is_elsewhere(at, around)
            && system.is_none()
            && matches!(
                kind,
                FailureKind::AddressNotAvailable
                    | FailureKind::EphemeralPortsExhausted
                    | FailureKind::PortInUse
            )
            && !matches!(word, Word::Kind(_) | Word::Taken),
        at,
        line: 0,
    })
}

/// Whether what failed at `at` was of something that takes no port of a flow, as `dial udp` is: a
/// connection whose destination is told since then says otherwise.
fn is_elsewhere(at: usize, around: &[Around]) -> bool {
    let before = around.iter().filter(|word| word.at < at);
    let mut told = before
        .rev()
        .filter(|word| word.act == Act::Elsewhere || word.destination.is_some());
    told.next().is_some_and(|word| word.act == Act::Elsewhere)
}

/// Whether a port stands at the end: `Port 8080 was `, `port 3000 is `.
fn is_port(before: &str) -> bool {
    let mut words = before.split_ascii_whitespace().rev();
    let verb = words.next().unwrap_or_default();
    let number = words.next().unwrap_or_default().trim_start_matches(':');
    let noun = words.next().unwrap_or_default();
    matches!(verb, "is" | "was")
        && number.parse::<u16>().is_ok_and(|port| port > 0)
        && noun.to_ascii_lowercase().ends_with("port")
}

/// What an errno of Linux means after `act`.
fn of_errno(errno: u16, act: Option<Act>, around: &[Around], at: usize) -> Option<FailureKind> {
    let is_connect = act == Some(Act::Connect);
    let path = around
        .iter()
        .filter(|word| word.act == Act::Connect)
        .any(|word| {
            word.destination
                .as_ref()
                .is_some_and(|path| path.starts_with("unix:"))
        });
    // nginx says behind it what it did.
    let later = around
        .iter()
        .find(|word| word.at > at && matches!(word.act, Act::Reading | Act::Handshake));
    Some(match errno {
        99 | 49 if is_elsewhere(at, around) => FailureKind::AddressNotAvailable,
        99 | 49 => match act {
            Some(Act::Bind | Act::BindOfClient | Act::Listen | Act::EitherBind) => {
                FailureKind::AddressNotAvailable
            }
            Some(Act::Lookup) => FailureKind::NameServerSilent,
            _ => FailureKind::EphemeralPortsExhausted,
        },
        98 | 48 => match act {
            Some(Act::Listen | Act::EitherBind) | None => FailureKind::PortInUse,
            Some(Act::Bind) if around.iter().any(|word| word.act == Act::Listen) => {
                FailureKind::PortInUse
            }
            Some(Act::Bind) if !around.iter().any(|word| word.act == Act::Connect) => {
                FailureKind::PortInUse
            }
            _ => FailureKind::SourcePortsExhausted,
        },
        97 => FailureKind::NoIpv6,
        111 | 61 => FailureKind::ConnectionRefused,
        110 | 60 => match (act, later.map(|word| word.act)) {
            (_, Some(Act::Reading)) | (Some(Act::Reading), _) => FailureKind::SlowAnswer,
            (_, Some(_)) | (Some(Act::Handshake), _) => FailureKind::SlowHandshake,
            (Some(Act::Lookup), _) => FailureKind::NameServerSilent,
            _ => FailureKind::NoAnswer,
        },
        113 | 101 | 65 | 51 => FailureKind::NoRoute,
        24 | 23 => FailureKind::TooManyOpenFiles,
        104 | 32 | 54 => FailureKind::ConnectionLost,
        105 => FailureKind::NoBufferSpace,
        2 if is_connect && path => FailureKind::UnixSocketMissing,
        11 if is_connect && path => FailureKind::ListenQueueFull,
        1 | 13 if is_connect => FailureKind::PermissionDenied,
        _ => return None,
    })
}

/// What an errno of another system means, by the number that Linux has for it.
fn of_foreign(
    system: System,
    errno: u16,
    act: Option<Act>,
    around: &[Around],
    at: usize,
) -> Option<FailureKind> {
    let kind = of_errno(errno, act, around, at)?;
    // On Windows a client whose ports are gone is told this one.
    let is_client = system == System::Windows && kind == FailureKind::SourcePortsExhausted;
    Some(if is_client {
        FailureKind::EphemeralPortsExhausted
    } else {
        kind
    })
}

/// The errno that follows a word such as `errno`.
fn numbered(rest: &str) -> Option<u16> {
    let rest = head(rest, 12).trim_start_matches([' ', ':', '=', '-', '"', '\'', '#', '(']);
    // Other small ones are errors of files as well: their sentences are looked at.
    let known = |errno: &u16| {
        matches!(
            errno,
            1 | 13 | 24 | 97 | 98 | 99 | 101 | 104 | 105 | 110 | 111 | 113
        )
    };
    number(rest).filter(known)
}

/// The number of a server's error: `ERROR 1040 (HY000)`, `[HY000] [1040]`, `(08004/1040)`, `(1040,`.
fn code(text: &str, at: usize, end: usize) -> Option<u16> {
    let before = text[..at].trim_end();
    let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
    if digits == 4 {
        return before[before.len() - digits..].parse().ok();
    }
    let rest = head(&text[end..], 24);
    let rest = rest.split_once("] [").map_or(rest, |(_, rest)| rest);
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    (length == 4).then(|| rest[..length].parse().ok())?
}

fn of_code(code: u16) -> Option<FailureKind> {
    match code {
        2002 | 2003 => return Some(FailureKind::ReasonUntold),
        2005 => return Some(FailureKind::NameNotFound),
        2006 | 2013 => return Some(FailureKind::ConnectionLost),
        2026 => return Some(FailureKind::TlsFailed),
        _ => {}
    }
    let found = FAILURES.iter().find(|row| row.codes.contains(&code))?;
    found.in_logs.is_some().then_some(found.kind)
}

/// `'db.example:3306' (99)`: by the number, where there is one.
fn of_mysql(rest: &str) -> (FailureKind, Option<System>) {
    let in_words = (FailureKind::ReasonUntold, None);
    let Some(number) = in_parentheses(rest) else {
        return in_words;
    };
    let windows = Some(System::Windows);
    match number {
        -3 => (FailureKind::NameServerSilent, None),
        -2 | 11001 => (FailureKind::NameNotFound, windows.filter(|_| number > 0)),
        // MariaDB's client says 115, that it goes on, whatever comes of it.
        115 => in_words,
        4 | 11 => (FailureKind::NoAnswer, None),
        10048 | 10055 => (FailureKind::EphemeralPortsExhausted, windows),
        10049 => (FailureKind::AddressNotAvailable, windows),
        10051 | 10065 => (FailureKind::NoRoute, windows),
        10060 => (FailureKind::NoAnswer, windows),
        10061 => (FailureKind::ConnectionRefused, windows),
        _ => {
            let is_bsd = matches!(number, 49 | 51 | 54 | 60 | 61 | 65);
            let errno = u16::try_from(number).ok();
            let kind = errno.and_then(|errno| of_errno(errno, Some(Act::Connect), &[], 0));
            let system = is_bsd.then_some(System::Bsd);
            kind.map_or(in_words, |kind| (kind, system))
        }
    }
}

/// The number in the first parentheses.
fn in_parentheses(rest: &str) -> Option<i32> {
    let (_, inner) = head(rest, 400).split_once(" (")?;
    let end = inner.find(|letter: char| !letter.is_ascii_digit() && letter != '-');
    inner[..end.unwrap_or(inner.len())].parse().ok()
}

/// Toward whom the failure was: where it was connected to, or what stands behind it or before it.
fn toward(
    kind: FailureKind,
    text: &str,
    (at, end): (usize, usize),
    before: Option<&Around>,
    around: &[Around],
) -> Option<String> {
    let connects = |word: &&Around| {
        matches!(word.act, Act::Connect | Act::Reading) && word.destination.is_some()
    };
    let is_before = |word: &Around| before.is_some_and(|before| word.at <= before.at);
    let last = around
        .iter()
        .rfind(|word| connects(word) && is_before(word));
    if let Some(host) = last.and_then(|word| word.destination.as_deref()) {
        // Where the same host is named with its port, that is more.
        let full = around.iter().filter_map(|word| word.destination.as_deref());
        let is_full = |full: &&str| {
            let (name, port) = full.rsplit_once(':').unwrap_or_default();
            name.trim_matches(['[', ']']) == host && number(port).is_some()
        };
        let mut full = full.filter(is_full);
        return Some(full.next().unwrap_or(host).to_owned());
    }
    if !is_of_a_listener(kind) {
        let found = beside(&text[..at], &text[end..]);
        if found.is_some() {
            return found;
        }
    }
    around.iter().find(connects)?.destination.clone()
}

/// `… refused: /10.0.0.5:8080`, `ECONNREFUSED ::1:3306`, `… (localhost:80)`, `… [::1]:5432`; or
/// `10.0.0.5:27017: [Errno 111] …`.
fn beside(before: &str, after: &str) -> Option<String> {
    let is_full = |found: &String| {
        let has_port = found
            .rsplit_once(':')
            .is_some_and(|(_, port)| number(port).is_some());
        has_port || found.parse::<IpAddr>().is_ok()
    };
    let after = after.trim_start_matches([')', ' ']);
    let after = after
        .strip_prefix(": ")
        .unwrap_or(after)
        .trim_start_matches(['(', ' ']);
    if let Some(found) = endpoint(head(after, 200)).filter(is_full) {
        return Some(found);
    }
    // Ecto's (10.0.0.5:3306) connection refused
    if let Some((_, inner)) = before
        .strip_suffix(") ")
        .and_then(|before| before.rsplit_once('('))
    {
        let found = endpoint(head(inner, 200)).filter(is_full);
        if found.is_some() {
            return found;
        }
    }
    let before = before.strip_suffix("[Errno -3] ").unwrap_or(before);
    let before = before.trim_end_matches(['[', '(', ' ']).strip_suffix(':')?;
    let is_edge = |letter: char| letter.is_whitespace() || "'\"(,".contains(letter);
    let word = before.rsplit(is_edge).next().unwrap_or(before);
    endpoint(word).filter(is_full)
}

/// Words that the name stands behind.
const NAMED: [&str; 8] = [
    "unknownhostexception",
    "enotfound",
    "eai_again",
    "could not resolve host",
    "t resolve host",
    "unknown mysql server host",
    "unknown server host",
    "host not found in upstream",
];

/// The name that was looked up.
fn name(text: &str, at: usize, rest: &str, around: &[Around]) -> Option<String> {
    let looked_up = around
        .iter()
        .rfind(|word| word.at <= at && word.act == Act::Lookup && word.destination.is_some());
    if let Some(found) = looked_up {
        return found.destination.clone();
    }
    // nginx: db.example could not be resolved
    if text[at..].starts_with("could not be resolved") {
        return endpoint(text[..at].trim_end().rsplit(' ').next()?);
    }
    let word = text[at..text.len() - rest.len()].to_ascii_lowercase();
    let behind = rest.trim_start_matches([':', ' ', '\'', '"']);
    let found = NAMED
        .contains(&word.as_str())
        .then(|| endpoint(behind))
        .flatten();
    let connected = || {
        let mut known = around.iter().filter_map(|word| word.destination.clone());
        known.next()
    };
    found
        .or_else(connected)
        .or_else(|| beside(&text[..at], rest))
}

/// `"address":"10.0.0.5","port":3306`, as Node has it.
pub fn fields(text: &str) -> Option<String> {
    let value = |name: &str| {
        let at = text.find(name)? + name.len();
        Some(text[at..].trim_start_matches(['"', '\'', ':', ' ', '=']))
    };
    let address = value("\"address\"").or_else(|| value(" address: "))?;
    let host = endpoint(address)?;
    let port = value("\"port\"")
        .or_else(|| value(" port: "))
        .and_then(number);
    let is_alone = host.parse::<IpAddr>().is_ok() || !host.contains(':');
    Some(match port {
        Some(port) if is_alone => joined(&host, port),
        _ => host,
    })
}

/// The host that Envoy's access log names last in quotes, behind why it could not be reached.
fn of_access_log(text: &str, at: usize) -> Option<String> {
    let (reason, rest) = text[at..].split_once('}')?;
    let (before, _) = text.split_at(at + reason.len());
    before.contains("_connect_error:").then_some(())?;
    let words = head(rest, 1_000).split('"').skip(1).step_by(2);
    let full = words.filter_map(endpoint).filter(|found| {
        let address = found
            .rsplit_once(':')
            .map(|(host, _)| host.trim_matches(['[', ']']));
        address.is_some_and(|host| host.parse::<IpAddr>().is_ok())
    });
    full.last()
}

/// The server of Go's `Get "https://api.example/x": …`, the last before a failure.
fn of_request(before: &str) -> Option<String> {
    let (head, url) = before.rsplit_once(" \"http")?;
    let begin = before.len() - url.len() - "http".len();
    ["Get", "Head", "Post", "Put", "Patch", "Delete"]
        .iter()
        .any(|method| head.ends_with(method))
        .then(|| endpoint(&before[begin..]))?
}

/// Leaves each failure once, and of those that say the same the one that says most.
pub fn settle(signs: &mut Vec<Sign>) {
    let is_bound = signs
        .iter()
        .any(|sign| sign.kind == FailureKind::AddressNotAvailable);
    let mut kept: Vec<Sign> = Vec::new();
    let has_strong = signs.iter().any(|sign| !sign.is_vague);
    let told = signs
        .iter()
        .find_map(|sign| sign.destination.clone().filter(|_| sign.is_vague));
    // Java's UnknownHostException may say behind the name that no server answered.
    let is_silent = signs
        .iter()
        .any(|sign| sign.kind == FailureKind::NameServerSilent && sign.destination.is_none());
    for mut sign in signs.drain(..) {
        if sign.kind == FailureKind::NameNotFound && is_silent {
            sign.kind = FailureKind::NameServerSilent;
        }
        if sign.is_vague && has_strong {
            continue;
        }
        if sign.destination.is_none() && !is_of_a_listener(sign.kind) {
            sign.destination.clone_from(&told);
        }
        if is_bound
            && sign.kind == FailureKind::EphemeralPortsExhausted
            && sign.destination.is_none()
        {
            sign.kind = FailureKind::AddressNotAvailable;
        }
        match kept.iter().position(|other| is_alike(other, &sign)) {
            Some(place) => {
                let other = &mut kept[place];
                other.is_either &= sign.is_either;
                if is_more(sign.destination.as_deref(), other.destination.as_deref()) {
                    other.destination = sign.destination;
                }
            }
            None if kept.len() < MOST_SIGNS => kept.push(sign),
            None => {}
        }
    }
    let has = |kind: FailureKind| kept.iter().any(|sign| sign.kind == kind);
    let is_less = |kind: FailureKind| match kind {
        // The number behind it is what the reading of the greeting met.
        FailureKind::ConnectionLost
        | FailureKind::EphemeralPortsExhausted
        | FailureKind::ConnectionRefused
        | FailureKind::NoRoute => has(FailureKind::LostDuringHandshake),
        FailureKind::TlsFailed => {
            has(FailureKind::TlsUnknownIssuer) || has(FailureKind::TlsWrongName)
        }
        FailureKind::NoAnswer => {
            has(FailureKind::LostDuringHandshake)
                || has(FailureKind::SlowHandshake)
                || has(FailureKind::PoolExhausted)
                || has(FailureKind::SlowAnswer)
                || has(FailureKind::NameServerSilent)
        }
        _ => false,
    };
    // What the question that was under way met.
    let is_lost = |sign: &Sign| {
        sign.kind == FailureKind::NoAnswer
            && sign.destination.is_none()
            && has(FailureKind::ConnectionLost)
    };
    let less: Vec<_> = kept
        .iter()
        .map(|sign| is_less(sign.kind) || is_lost(sign))
        .collect();
    let mut less = less.into_iter();
    kept.retain(|_| !less.next().unwrap_or(false));
    *signs = kept;
}

/// Whether two signs may be of one failure.
#[must_use]
pub fn is_alike(one: &Sign, other: &Sign) -> bool {
    one.kind == other.kind
        && match (&one.destination, &other.destination) {
            (Some(one), Some(other)) => one == other || is_same_server(one, other),
            _ => true,
        }
}

/// Whether one of them names the port as well, or the name of the other's address.
fn is_same_server(one: &str, other: &str) -> bool {
    let parts = |destination| match str::rsplit_once(destination, ':') {
        Some((host, port)) if number(port).is_some() => (host, Some(port)),
        _ => (destination, None),
    };
    let is_address = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let ((one, one_port), (other, other_port)) = (parts(one), parts(other));
    match (one_port, other_port) {
        (Some(port), Some(other_port)) => {
            port == other_port && is_address(one) != is_address(other)
        }
        _ => one.trim_matches(['[', ']']) == other.trim_matches(['[', ']']),
    }
}

/// Whether `one` tells more than `other`.
fn is_more(one: Option<&str>, other: Option<&str>) -> bool {
    one.map(str::len) > other.map(str::len)
}
