//! What the messages of other programs say: which connections failed, toward whom, how often and
//! when. Text goes in block by block, and what is kept does not grow with it.

mod endpoint;
mod lexicon;
mod report;
mod secrets;
mod signs;
mod time;
mod timeline;

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use memchr::{memchr, memchr_iter, memrchr};

pub use lexicon::signs_for_grep;
pub use report::{Cause, Explanation, KindReport, Kinds, Now};
pub use time::Moment;
pub use timeline::Timeline;

use crate::model::FailureKind;
use crate::words::printable;
use lexicon::{ALL, SIGNS, System};
use signs::{Said, Sign};

/// Different causes that are kept; of more the number alone.
const MOST_CAUSES: usize = 1_000;

/// Lines whose words are remembered: a log says the same again and again.
const MOST_KNOWN: usize = 1_000;

/// What is read of a line at most, in bytes: an object of JSON may hold a stack of calls.
const LONGEST_LINE: usize = 16 << 10;

/// An example is cut to so many letters.
const LONGEST_EXAMPLE: usize = 300;

/// Lines between a failure and what says it once more, further down its chain.
const LONGEST_CHAIN: u64 = 300;

/// Lines between what a program says twice.
const AGAIN: u64 = 40;

/// Lines after a failure in which its object tells where it went, and its stack what was called.
const BEHIND: usize = 16;

/// Lines and bytes before a failure in which the time of its entry stands.
const BEFORE: (usize, usize) = (64, 16 << 10);

/// Reads messages.
pub struct Reading {
    now: i64,
    lines: u64,
    bytes: u64,
    causes: HashMap<(FailureKind, Option<String>), Tally, FixedState>,
    /// Failures of causes that are not kept, by their kinds.
    others: HashMap<FailureKind, u64, FixedState>,
    /// What was understood of the latest lines, by the hash of their words.
    known: HashMap<u64, Said, FixedState>,
    /// The failure that may go on.
    open: Option<Event>,
    /// Whether a stack of calls has begun since the last failure.
    in_stack: bool,
}

/// One failure, in all the lines that tell of it.
struct Event {
    signs: Vec<Sign>,
    time: Option<Moment>,
    /// The line that told it first, and where in it.
    text: String,
    at: usize,
    first_line: u64,
    last_line: u64,
    /// Whether it was the end of a stack of calls.
    from_stack: bool,
    /// Whether what follows is the same once more.
    goes_on: bool,
}

/// What is kept of a cause.
struct Tally {
    count: u64,
    first: Option<Moment>,
    last: Option<Moment>,
    timeline: Option<Timeline>,
    example: String,
    line: u64,
    system: Option<System>,
}

impl Reading {
    /// Nothing is read yet; times without a year are before `now`, in seconds since 1970.
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self {
            now,
            lines: 0,
            bytes: 0,
            causes: HashMap::default(),
            others: HashMap::default(),
            known: HashMap::default(),
            open: None,
            in_stack: false,
        }
    }

    /// Reads whole lines: those of `text` after its first `known` bytes, which were read before.
    pub fn read(&mut self, text: &[u8], known: usize) {
        let Some(finder) = SIGNS.as_ref() else {
            return;
        };
        self.bytes += (text.len() - known) as u64;
        // Lines are counted up to here.
        let mut counted = known;
        let mut at = known;
        while let Some(found) = finder.first(&text[at..]) {
            let place = at + found;
            let start = memrchr(b'\n', &text[..place])
                .map_or(0, |end| end + 1)
                .max(at);
            let end = memchr(b'\n', &text[place..]).map_or(text.len(), |end| place + end);
            self.lines += memchr_iter(b'\n', &text[counted..start]).count() as u64;
            counted = start;
            self.line(text, start, end);
            at = (end + 1).min(text.len());
        }
        self.lines += memchr_iter(b'\n', &text[counted..]).count() as u64;
        if text.len() > counted && text.last() != Some(&b'\n') {
            self.lines += 1;
        }
    }

    /// Reads one line that may tell of a failure.
    fn line(&mut self, text: &[u8], start: usize, end: usize) {
        let number = self.lines + 1;
        let line = &text[start..end.min(start + LONGEST_LINE)];
        let shown = String::from_utf8_lossy(line);
        let shown = unescaped(&shown);
        let mut said = self.understood(&shown);
        if said.signs.is_empty() {
            self.mark(&said, number);
            return;
        }
        let is_open = |sign: &Sign| sign.is_either || sign.destination.is_none();
        if said.signs.iter().any(is_open) {
            let (before, behind) = (preceding(text, start), following(text, end));
            look_around(&mut said.signs, &before, &behind);
        }
        let is_field = is_field(&shown);
        if self.joins(&said, &shown, number) {
            if let Some(open) = &mut self.open {
                if is_field {
                    // It names the failure, and not what was done.
                    said.signs.clear();
                }
                open.signs.append(&mut said.signs);
                signs::settle(&mut open.signs);
                open.last_line = number;
                open.goes_on = false;
            }
            self.in_stack = false;
            return;
        }
        self.close();
        let time = Moment::of(line, self.now).or_else(|| time_before(text, start, self.now));
        let at = said.signs.iter().map(|sign| sign.at).min().unwrap_or(0);
        self.open = Some(Event {
            text: shown.into_owned(),
            at,
            signs: said.signs,
            time,
            first_line: number,
            last_line: number,
            from_stack: self.in_stack,
            goes_on: false,
        });
        self.in_stack = false;
    }

    /// What a line says: the same words say the same, whenever and by whomever they are said.
    fn understood(&mut self, line: &str) -> Said {
        let Some(first) = ALL.as_ref().and_then(|all| all.first(line.as_bytes())) else {
            return Said::default();
        };
        // A host or a number may stand before the first word.
        let mut before = line.as_bytes()[..first].trim_ascii_end();
        for _ in 0..2 {
            let start = before
                .iter()
                .rposition(u8::is_ascii_whitespace)
                .unwrap_or(0);
            before = before[..start].trim_ascii_end();
        }
        let start = before.len();
        let words = &line[start..];
        let key = FixedState::default().hash_one(words);
        if let Some(said) = self.known.get(&key) {
            return said.clone().moved(start);
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let said = signs::read(words);
        self.known.insert(key, said.clone());
        said.moved(start)
    }

    /// Notes what a line without a failure says of those around it.
    fn mark(&mut self, said: &Said, number: u64) {
        let open = self.open.as_mut();
        if said.is_chain {
            if let Some(open) = open {
                open.goes_on |= number - open.last_line <= LONGEST_CHAIN;
            }
        } else if said.is_stack {
            self.in_stack = true;
            if let Some(open) = open.filter(|open| !open.from_stack) {
                open.goes_on |= number - open.last_line <= 2;
            }
        }
    }

    /// Whether a line tells once more of the failure that is open.
    fn joins(&self, said: &Said, line: &str, number: u64) -> bool {
        let Some(open) = &self.open else {
            return false;
        };
        let is_vague = open.signs.iter().all(|sign| sign.is_vague);
        let mut pairs = open
            .signs
            .iter()
            .flat_map(|one| said.signs.iter().map(move |other| (one, other)));
        let is_same =
            is_vague || pairs.any(|(one, other)| other.is_vague || signs::is_alike(one, other));
        let distance = number - open.last_line;
        let says_again = distance <= AGAIN && is_said_again(line, &open.text);
        let is_chained = distance <= LONGEST_CHAIN && (open.goes_on || said.is_chain);
        let is_field = distance <= LONGEST_CHAIN && is_field(line);
        is_field || (is_same && (is_chained || says_again))
    }

    /// Counts the failure that is open.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        for sign in open.signs {
            let key = (sign.kind, sign.destination);
            if let Some(tally) = self.causes.get_mut(&key) {
                tally.add(open.time);
            } else if self.causes.len() < MOST_CAUSES {
                self.causes.insert(
                    key,
                    Tally {
                        count: 1,
                        first: open.time,
                        last: open.time,
                        timeline: open.time.map(Timeline::new),
                        example: example(&open.text, open.at),
                        line: open.first_line,
                        system: sign.system,
                    },
                );
            } else {
                *self.others.entry(sign.kind).or_default() += 1;
            }
        }
    }

    /// What all that was read says.
    #[must_use]
    pub fn finish(mut self) -> Explanation {
        self.close();
        let causes = self.causes.into_iter().map(|((kind, destination), tally)| {
            let mut cause = Cause::new(kind, destination, tally.system);
            cause.count = tally.count;
            cause.first = tally.first;
            cause.last = tally.last;
            cause.timeline = tally.timeline;
            cause.example = Some(tally.example);
            cause.line = Some(tally.line);
            cause
        });
        let others = self.others.into_iter().map(|(kind, count)| {
            let mut cause = Cause::new(kind, None, None);
            cause.count = count;
            cause.is_rest = true;
            cause
        });
        Explanation::new(self.lines, self.bytes, causes.chain(others).collect())
    }
}

impl Tally {
    fn add(&mut self, time: Option<Moment>) {
        self.count += 1;
        let Some(time) = time else {
            return;
        };
        if self.first.is_none_or(|first| time.seconds < first.seconds) {
            self.first = Some(time);
        }
        if self.last.is_none_or(|last| time.seconds >= last.seconds) {
            self.last = Some(time);
        }
        match &mut self.timeline {
            Some(timeline) => timeline.add(time),
            None => self.timeline = Some(Timeline::new(time)),
        }
    }
}

/// Whether `line` is what a program says a second time of a failure that it has told as `example`:
/// curl its last sentence, PHP what became of a lookup, Ruby what the failure came from.
fn is_said_again(line: &str, example: &str) -> bool {
    let of_curl = |text: &str| text.starts_with("* ") || text.starts_with("curl: (");
    let lookup = "php_network_getaddresses";
    let is_outcome = [
        "(HY000/2002): ",
        "Unable to connect",
        "Failed to open stream",
        "SQLSTATE[",
    ]
    .iter()
    .any(|outcome| line.contains(outcome));
    (of_curl(line) && example.starts_with("* "))
        || (line.contains(lookup) && is_outcome && example.contains(lookup))
        || (line.contains("/dev/tcp/") && example.contains(": connect: "))
        || (line.contains(":in `")
            && !line.contains("Failed to open")
            && example.contains("Failed to open TCP"))
}

/// Whether a line is a field of the object that Node prints of an error.
fn is_field(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("errno: -") || line.starts_with("code: 'E")
}

/// What follows a line, whole letters.
fn following(text: &[u8], end: usize) -> Vec<&str> {
    const BYTES: usize = 4 << 10;
    let rest = text.get(end + 1..).unwrap_or_default();
    let rest = &rest[..rest.len().min(BYTES)];
    rest.split(|byte| *byte == b'\n')
        .take(BEHIND)
        .map_while(|line| std::str::from_utf8(line).ok())
        .collect()
}

/// The calls that Python's stack ends in, before a line.
fn preceding(text: &[u8], start: usize) -> String {
    const BYTES: usize = 400;
    let before = &text[start.saturating_sub(BYTES)..start];
    let lines: Vec<_> = before
        .trim_ascii_end()
        .rsplit(|byte| *byte == b'\n')
        .take(3)
        .collect();
    let is_stack = lines.iter().any(|line| line.starts_with(b"  File \""));
    let calls = if is_stack {
        lines.join(&b' ')
    } else {
        Vec::new()
    };
    String::from_utf8_lossy(&calls).into_owned()
}

/// Completes what a line says by those around it: the calls of Python's and Java's stacks, the
/// fields of Node's object, and the question of libpq.
fn look_around(signs: &mut [Sign], before: &str, behind: &[&str]) {
    for sign in signs.iter_mut() {
        if sign.is_either {
            let calls = behind
                .iter()
                .map(|line| line.trim_start())
                .take_while(|line| line.starts_with("at ") || line.starts_with("..."));
            let mut called = calls.chain([before]).filter_map(|line| {
                let line = line.to_ascii_lowercase();
                let known = [
                    ("connect", FailureKind::EphemeralPortsExhausted),
                    ("bind", FailureKind::AddressNotAvailable),
                    ("listen", FailureKind::AddressNotAvailable),
                ];
                let found = known.into_iter().find(|(call, _)| line.contains(call));
                found.map(|(_, kind)| kind)
            });
            if let Some(kind) = called.next() {
                sign.kind = kind;
            }
        }
        let is_libpq = behind.first().is_some_and(|line| {
            line.trim_start()
                .starts_with("Is the server running on host")
        });
        if sign.destination.is_some() || signs::is_of_a_listener(sign.kind) {
            continue;
        }
        if is_libpq {
            let question = behind.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            let host = question
                .trim_start()
                .trim_start_matches("Is the server running on host");
            sign.destination = endpoint::endpoint_and_port(host);
        } else if let Some(at) = behind.iter().position(|line| {
            ["errno:", "code:"]
                .iter()
                .any(|name| line.trim_start().starts_with(name))
        }) {
            let object: Vec<_> = behind[at..].iter().take(8).copied().collect();
            let object = object
                .split(|line| line.trim_start().starts_with('}'))
                .next();
            sign.destination = signs::fields(&format!(" {}", object.unwrap_or_default().join(" ")));
        }
    }
}

/// The time of the entry that a line without one belongs to.
fn time_before(text: &[u8], start: usize, now: i64) -> Option<Moment> {
    let (lines, bytes) = BEFORE;
    let from = start.saturating_sub(bytes);
    let before = &text[from..start.saturating_sub(1).max(from)];
    let mut found = before
        .rsplit(|byte| *byte == b'\n')
        .take(lines)
        .filter(|line| !line.first().is_some_and(u8::is_ascii_whitespace));
    found.find_map(|line| Moment::of(line, now))
}

/// `line` as the program said it, where it is an object of JSON.
fn unescaped(line: &str) -> std::borrow::Cow<'_, str> {
    if !line.contains('\\') {
        return line.into();
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let mut letters = rest[at + 1..].chars();
        match letters.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => {}
            Some('u') => {
                let digits = letters.as_str().get(..4);
                let letter = digits
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .map(|code| char::from_u32(code).unwrap_or('?'));
                match letter {
                    Some(letter) => {
                        text.push(letter);
                        letters = letters.as_str()[4..].chars();
                    }
                    None => text.push_str("\\u"),
                }
            }
            Some(letter @ ('"' | '\'' | '\\' | '/')) => text.push(letter),
            Some(letter) => {
                text.push('\\');
                text.push(letter);
            }
            None => text.push('\\'),
        }
        rest = letters.as_str();
    }
    text.push_str(rest);
    text.into()
}

/// A part of `line` around what was found at `at`, without secrets.
fn example(line: &str, at: usize) -> String {
    let start = line[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = line[at..].find('\n').map_or(line.len(), |end| at + end);
    // What is masked first cannot be cut in two.
    let masked = secrets::masked(&line[start..end]);
    let letters = masked.chars().count();
    let text = masked.trim();
    if letters <= LONGEST_EXAMPLE {
        return printable(text);
    }
    // What comes before it matters most: the time, the program, what was done.
    let found = line[start..at].chars().count();
    let skipped = (found + LONGEST_EXAMPLE / 3).saturating_sub(LONGEST_EXAMPLE);
    let shown: String = text.chars().skip(skipped).take(LONGEST_EXAMPLE).collect();
    let shown = printable(&shown);
    let head = if skipped > 0 { "… " } else { "" };
    format!("{head}{} …", shown.trim())
}
