//! What the messages of other programs say: which connections failed, toward whom, how often and
//! when. Text goes in block by block, and what is kept does not grow with it.

mod endpoint;
mod lexicon;
mod report;
mod secrets;
mod setting;
mod signs;
mod stack;
mod text;
mod time;
mod timeline;

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::ops::Range;

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
use text::{body, readable, shown};

/// Different causes that are kept; of more the number alone.
const MOST_CAUSES: usize = 1_000;

/// Lines whose words are remembered: a log says the same again and again.
const MOST_KNOWN: usize = 1_000;

/// What is read at once of a line behind its first sign, in bytes: an object of JSON may hold a stack of
/// calls. A longer line is read in pieces.
const LONGEST_PIECE: usize = 16 << 10;

/// What is read of a line before its first sign, in bytes.
const HEADROOM: usize = 4 << 10;

/// Machines whose names are kept.
const MOST_HOSTS: usize = 16;

/// An example is cut to so many letters.
const LONGEST_EXAMPLE: usize = 300;

/// Lines of one failure that are kept: of a chain, or pieces of a long one.
const MOST_LINES: usize = 32;

/// Lines between a failure and what says it once more, further down its chain.
const LONGEST_CHAIN: u64 = 300;

/// Lines between what a program says twice.
const AGAIN: u64 = 40;

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
    /// Whether the last line that was read has no end yet.
    is_within_line: bool,
    /// How many bytes were read before the text at hand; below zero, wrapped, where it repeats some.
    base: u64,
    /// The last line whose time was looked for, by its place among all that was read, and that time.
    dated: Option<(u64, Option<Moment>)>,
    /// The machines that exhausted failures are of, as syslog names them.
    hosts: BTreeSet<String>,
}

/// One failure, in all the lines that tell of it.
#[derive(Clone)]
struct Event {
    /// How often it came.
    count: u64,
    /// The machine that it is of, as syslog names it.
    host: Option<String>,
    signs: Vec<Sign>,
    time: Option<Moment>,
    /// The lines that told it, and their numbers; the first of them.
    lines: Vec<(u64, String)>,
    /// What the first says, without what was put in front of it.
    body: String,
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
            is_within_line: false,
            base: 0,
            dated: None,
            hosts: BTreeSet::new(),
        }
    }

    /// Reads the lines of `text` that begin in `fresh`, which ends with a line, or within one that goes
    /// on. What stands before was read, and what stands behind will be.
    pub fn read(&mut self, text: &[u8], fresh: Range<usize>) {
        let Some(finder) = SIGNS.as_ref() else {
            return;
        };
        let Range { start, end: stop } = fresh;
        self.base = self.bytes.wrapping_sub(start as u64);
        // Lines are counted up to here.
        let mut counted = start;
        let mut at = start;
        while let Some(found) = finder.first(&text[at..stop]) {
            let place = at + found;
            let from = at.max(place.saturating_sub(HEADROOM));
            let start = memrchr(b'\n', &text[from..place]).map_or(from, |end| from + end + 1);
            let most = stop.min(place + LONGEST_PIECE);
            let end = memchr(b'\n', &text[place..most])
                .map_or_else(|| whole_words(text, place, most, stop), |end| place + end);
            self.lines += memchr_iter(b'\n', &text[counted..start]).count() as u64;
            counted = start;
            self.line(text, start, end);
            at = (end + 1).min(stop);
        }
        self.lines += memchr_iter(b'\n', &text[counted..stop]).count() as u64;
        self.bytes += (stop - start) as u64;
        if start < stop {
            self.is_within_line = text[stop - 1] != b'\n';
        }
    }

    /// Reads a line that may tell of a failure, or a piece of a long one.
    fn line(&mut self, text: &[u8], start: usize, end: usize) {
        let number = self.lines + 1;
        let raw = String::from_utf8_lossy(&text[start..end]);
        let shown = shown(&raw, &[]).text;
        let mut said = self.understood(&shown);
        if let Some(times) = said.times_more {
            self.again(times, number, Moment::of(shown.as_bytes(), self.now));
            return;
        }
        if said.signs.is_empty() {
            self.mark(&said, number);
            return;
        }
        let is_open = |sign: &Sign| sign.is_either || sign.destination.is_none();
        if said.signs.iter().any(is_open) {
            let (before, behind) = (stack::preceding(text, start), stack::following(text, end));
            stack::look_around(&mut said.signs, &before, &behind);
        }
        let body = body(&shown);
        let is_field = is_field(body);
        if self.joins(&said, body, number) {
            if let Some(open) = &mut self.open {
                if is_field || open.lines.len() >= MOST_LINES {
                    // It names the failure, and not what was done.
                    said.signs.clear();
                } else {
                    said.signs
                        .iter_mut()
                        .for_each(|sign| sign.line = open.lines.len());
                    open.lines.push((number, raw.to_string()));
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
        let time = self.time(text, start, &shown);
        self.open = Some(Event {
            count: said.times.unwrap_or(1),
            lines: vec![(number, raw.to_string())],
            host: host(&shown, time),
            body: body.to_owned(),
            signs: said.signs,
            time,
            last_line: number,
            from_stack: self.in_stack,
            goes_on: false,
        });
        self.in_stack = false;
    }

    /// The failure that the line before told came `times` more, as syslog says.
    fn again(&mut self, times: u64, number: u64, time: Option<Moment>) {
        let Some(open) = &self.open else {
            return;
        };
        if open.last_line + 1 != number {
            return;
        }
        let again = Event {
            count: times,
            time: time.or(open.time),
            last_line: number,
            ..open.clone()
        };
        self.close();
        self.open = Some(again);
    }

    /// When the line at `start` was written: as it says, or the entry that it belongs to.
    fn time(&mut self, text: &[u8], start: usize, line: &str) -> Option<Moment> {
        let begins = memrchr(b'\n', &text[..start]).map_or(0, |end| end + 1);
        let own = if begins == start {
            Moment::of(line.as_bytes(), self.now)
        } else {
            let whole = readable(&text[begins..start]);
            Moment::of(whole.as_bytes(), self.now)
        };
        let base = self.base;
        let place = base.wrapping_add(start as u64);
        let time = own.or_else(|| {
            let (lines, bytes) = BEFORE;
            let from = start.saturating_sub(bytes);
            let before = &text[from..start.saturating_sub(1).max(from)];
            let mut end = before.len();
            for line in before.rsplit(|byte| *byte == b'\n').take(lines) {
                // What was found there for the failure before is so for this one.
                if self.dated.is_some_and(|(dated, _)| {
                    base.wrapping_add((from + end - line.len()) as u64) == dated
                }) {
                    return self.dated.and_then(|(_, time)| time);
                }
                let is_entry = !line.first().is_some_and(u8::is_ascii_whitespace);
                if let Some(time) =
                    Moment::of(readable(line).as_bytes(), self.now).filter(|_| is_entry)
                {
                    return Some(time);
                }
                end = end.saturating_sub(line.len() + 1);
            }
            None
        });
        self.dated = Some((place, time));
        time
    }

    /// What a line says: the same words say the same, whenever and by whomever they are said.
    fn understood(&mut self, line: &str) -> Said {
        let Some(first) = ALL.as_ref().and_then(|all| all.first(line.as_bytes())) else {
            return Said::default();
        };
        // A host or a number may stand before the first word.
        let mut before = line.as_bytes()[..first].trim_ascii_end();
        for _ in 0..3 {
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

    /// Whether a line tells once more of the failure that is open; `line` without what was put in front.
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
        // A piece of the same line.
        if distance == 0 {
            return true;
        }
        let says_again = distance <= AGAIN && is_said_again(line, &open.body);
        let is_chained = distance <= LONGEST_CHAIN && (open.goes_on || said.is_chain);
        let is_field = distance <= LONGEST_CHAIN && is_field(line);
        is_field || (is_same && (is_chained || says_again || is_numbered(line)))
    }

    /// Counts the failure that is open.
    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        if open.signs.iter().any(|sign| sign.kind.is_exhaustion()) && self.hosts.len() < MOST_HOSTS
        {
            self.hosts.extend(open.host);
        }
        for sign in open.signs {
            let key = (sign.kind, sign.destination);
            if let Some(tally) = self.causes.get_mut(&key) {
                tally.add(open.time, open.count);
            } else if self.causes.len() < MOST_CAUSES {
                let (line, text) = &open.lines[sign.line.min(open.lines.len() - 1)];
                let mut tally = Tally {
                    count: 0,
                    first: None,
                    last: None,
                    timeline: None,
                    example: example(text, sign.at),
                    line: *line,
                    system: sign.system,
                };
                tally.add(open.time, open.count);
                self.causes.insert(key, tally);
            } else {
                *self.others.entry(sign.kind).or_default() += open.count;
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
        let lines = self.lines + u64::from(self.is_within_line);
        let hosts = self.hosts.into_iter().collect();
        Explanation::new(lines, self.bytes, causes.chain(others).collect(), hosts)
    }
}

impl Tally {
    fn add(&mut self, time: Option<Moment>, count: u64) {
        self.count = self.count.saturating_add(count);
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
            Some(timeline) => timeline.add(time, count),
            None => self.timeline = Some(Timeline::new(time, count)),
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
        || (line.starts_with("FATAL: error ") && example.starts_with("FATAL: unable to connect"))
        || (line.contains("/dev/tcp/") && example.contains(": connect: "))
        || (line.contains(":in `")
            && !line.contains("Failed to open")
            && example.contains("Failed to open TCP"))
}

/// Whether a line is one of the causes that Rust numbers, after the first.
fn is_numbered(line: &str) -> bool {
    let number = line.trim_start();
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    number.len() < line.len() && digits > 0 && number[digits..].starts_with(": ")
}

/// Whether a line is a field of the object that Node prints of an error.
fn is_field(line: &str) -> bool {
    let line = line.trim_start();
    ["errno: -", "code: 'E", "errorno: 'E"]
        .iter()
        .any(|name| line.starts_with(name))
}

/// The machine that a line of syslog or of the journal is of: `Nov 25 03:12:01 shop-1 app[711]: …`.
fn host(line: &str, time: Option<Moment>) -> Option<String> {
    time?;
    let (clock, rest) = line
        .split_once(' ')
        .filter(|(date, _)| date.len() > 3)
        .or_else(|| {
            let (head, rest) = line.split_at_checked(15)?;
            Some((head, rest.strip_prefix(' ')?))
        })?;
    let is_date = clock.as_bytes()[clock.len() - 1].is_ascii_digit() || clock.ends_with('Z');
    let (name, rest) = rest.split_once(' ')?;
    let (program, _) = rest.split_once(':')?;
    let is_process = program.ends_with(']') && program.contains('[') && !program.contains(' ');
    let is_name = name.len() <= 64
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    (is_date && is_name && (is_process || program == "kernel")).then(|| name.to_owned())
}

/// Where a piece of a long line ends: behind a word.
fn whole_words(text: &[u8], place: usize, most: usize, stop: usize) -> usize {
    if most == stop {
        return stop;
    }
    let last = &text[most - HEADROOM..most];
    let blank = memrchr(b' ', last).map(|at| most - HEADROOM + at);
    blank.filter(|&at| at > place).unwrap_or(most)
}

/// A part of `line` around what was found at `at`, as it is shown, without secrets.
fn example(line: &str, at: usize) -> String {
    let hidden = secrets::hidden(line);
    let shown = shown(line, &hidden);
    let text = &shown.text;
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let mut hidden = shown.hidden;
    hidden.extend(secrets::hidden(text));
    // What comes before it matters most: the time, the program, what was done.
    let before = secrets::masked(text, start..at, &hidden);
    let behind = secrets::masked(text, at..end, &hidden);
    let before = before.trim_start();
    let skipped = before
        .chars()
        .count()
        .saturating_sub(LONGEST_EXAMPLE * 2 / 3);
    let head = if skipped > 0 { "… " } else { "" };
    let before: String = before.chars().skip(skipped).collect();
    let room = LONGEST_EXAMPLE - before.chars().count().min(LONGEST_EXAMPLE);
    let behind = behind.trim_end();
    let tail = if behind.chars().count() > room {
        " …"
    } else {
        ""
    };
    let behind: String = behind.chars().take(room).collect();
    printable(&format!(
        "{head}{}{tail}",
        format!("{before}{behind}").trim()
    ))
}
