//! What is said about the messages that were read.

use std::cmp::Reverse;

use serde::Serialize;

use super::lexicon::System;
use super::time::Moment;
use super::timeline::Timeline;
use crate::judge::level::Level;
use crate::judge::verdict::Verdict;
use crate::model::{Destination, FAILURES, FailureKind, HostName};
use crate::words::{count, counted};

/// After so many seconds a port that was taken by TIME_WAIT is free (TCP_TIMEWAIT_LEN), and another
/// minute for clocks that differ.
const PORTS_COME_BACK: i64 = 120;

/// Seconds between Greenwich and the zone that is farthest from it.
const FARTHEST_ZONE: i64 = 14 * 3600;

/// Everything `explain` says, in the order of the JSON contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Version of this structure.
    pub schema: u32,
    /// One sentence.
    pub summary: String,
    /// Lines read.
    pub lines: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Failures found.
    pub errors: u64,
    /// What they are, exhaustion first, then the most frequent.
    pub causes: Vec<Cause>,
    /// The machines that said so, as syslog and the journal name them; of exhaustion alone, and empty
    /// where the lines name none.
    pub hosts: Vec<String>,
    /// What is so on this machine at this moment, where ports are said to have run out.
    pub now: Vec<Now>,
    /// What to do where nothing was recognised; `None` where something was.
    pub advice: Option<&'static str>,
}

/// Failures of one kind toward one destination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// Their kind, as `repro` names it.
    pub kind: FailureKind,
    /// How many.
    pub count: u64,
    /// Toward whom, as `verdict` takes it, a unix socket or a proxy's backend; `None` where the
    /// text does not say.
    pub destination: Option<String>,
    /// When the first was; `None` where the lines tell no time.
    pub first: Option<Moment>,
    /// When the last was; `None` likewise.
    pub last: Option<Moment>,
    /// How many when; `None` likewise.
    #[serde(rename = "per_minute")]
    pub timeline: Option<Timeline>,
    /// The first, without secrets; `None` for the rest.
    pub example: Option<String>,
    /// The line that it is on, from 1 on; `None` likewise.
    pub line: Option<u64>,
    /// What it means.
    pub meaning: String,
    /// What to do next.
    pub next_step: String,
    /// What else is to be known.
    pub notes: Vec<&'static str>,
    /// Whether these are failures of other destinations than the many that are listed.
    pub is_rest: bool,
}

/// Whether ports are gone on this machine at this moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Now {
    /// Toward whom; `None` where the text did not say: the worst flow of all.
    pub destination: Option<String>,
    /// Whether no port is left; `None` where that could not be found out.
    pub is_exhausted: Option<bool>,
    /// What `twcheck verdict` says; `None` where nothing could be read.
    pub level: Option<Level>,
    /// The same in a sentence, or why nothing could be read.
    pub summary: String,
}

impl Cause {
    pub(super) fn new(
        kind: FailureKind,
        destination: Option<String>,
        system: Option<System>,
    ) -> Self {
        let told = kind.row().in_logs;
        let (meaning, next_step) = told
            .map_or((kind.row().meaning, kind.row().next_step), |told| {
                (told.meaning, told.next_step)
            });
        let server = destination.as_deref().unwrap_or("the server");
        let asked = destination
            .as_deref()
            .filter(|text| Destination::parse(text).is_ok());
        let asked = asked.map_or_else(String::new, |text| format!(" {text}"));
        let loopback = destination.as_deref().is_some_and(is_loopback);
        let mut notes = Vec::new();
        if kind == FailureKind::EphemeralPortsExhausted && loopback {
            notes.push(
                "toward loopback, Linux reuses TIME_WAIT since 4.19 (net.ipv4.tcp_tw_reuse = 2) and seldom \
                 runs out: ::1 without IPv6, or localhost inside a container, gives the same error",
            );
        }
        match system {
            Some(System::Bsd) => notes.push(
                "these words are of macOS or a BSD: the flow is on that machine, where twcheck does not run; \
                 `sysctl net.inet.ip.portrange` and `netstat -an | grep TIME_WAIT` tell there",
            ),
            Some(System::Windows) => notes.push(
                "these words are of Windows: twcheck does not run there; `netsh int ipv4 show dynamicport tcp` \
                 and `netstat -an` tell",
            ),
            None => {}
        }
        Self {
            kind,
            count: 0,
            first: None,
            last: None,
            timeline: None,
            example: None,
            line: None,
            meaning: sentence(&meaning.replace("{server}", server)),
            next_step: sentence(&next_step.replace("{asked}", &asked)),
            notes,
            is_rest: false,
            destination,
        }
    }

    /// Whether ports ran out, as far as the text goes.
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        self.kind.is_exhaustion()
    }

    /// Toward whom, for people.
    #[must_use]
    pub fn toward(&self) -> &str {
        match (&self.destination, self.is_rest) {
            (Some(destination), _) => destination,
            (None, true) => "others",
            (None, false) => "not told",
        }
    }

    /// Where `verdict` can be asked about it; `None` where the text does not say.
    #[must_use]
    pub fn asked(&self) -> Option<Destination> {
        Destination::parse(self.destination.as_deref()?).ok()
    }
}

fn is_loopback(destination: &str) -> bool {
    let Ok(found) = Destination::parse(destination) else {
        return false;
    };
    match &found.host {
        Some(HostName::Address(address)) => address.is_loopback(),
        Some(HostName::Name(name)) => name == "localhost",
        _ => false,
    }
}

/// So many seconds, roughly.
fn ago(seconds: i64) -> String {
    let (unit, length) = match seconds {
        172_800.. => ("days", 86_400),
        7_200.. => ("hours", 3_600),
        _ => ("minutes", 60),
    };
    format!("{} {unit}", seconds / length)
}

/// `text` with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let is_name = text.starts_with("connect()") || text.starts_with("bind()");
    let first = if is_name { text.chars().next() } else { first };
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{}{}{stop}", first.unwrap_or_default(), letters.as_str())
}

impl Explanation {
    pub(super) fn new(lines: u64, bytes: u64, mut causes: Vec<Cause>, hosts: Vec<String>) -> Self {
        causes.sort_by(|one, other| {
            let order = |cause: &Cause| {
                (
                    Reverse(cause.is_exhaustion()),
                    Reverse(cause.count),
                    cause.line,
                )
            };
            order(one).cmp(&order(other))
        });
        let errors = causes.iter().map(|cause| cause.count).sum();
        Self {
            schema: 1,
            summary: summary(lines, errors, &causes),
            lines,
            bytes,
            errors,
            advice: causes.is_empty().then_some(
                "Paste the whole message, with the number or the cause that stands in it (`Caused by:`), and a \
                 few lines around it. `twcheck explain --list` names what is recognised; `twcheck verdict` \
                 looks at this machine without any message.",
            ),
            causes,
            hosts,
            now: Vec::new(),
        }
    }
}

impl Explanation {
    /// Why `hostname`, where this runs, is not the machine that the log is of; `None` where it may be.
    #[must_use]
    pub fn elsewhere(&self, hostname: Option<&str>) -> Option<String> {
        let short = |name: &str| name.split('.').next().unwrap_or(name).to_ascii_lowercase();
        let here = hostname?;
        if self.hosts.is_empty() || self.hosts.iter().any(|host| short(host) == short(here)) {
            return None;
        }
        let hosts: Vec<_> = self.hosts.iter().take(3).map(String::as_str).collect();
        let more = if self.hosts.len() > 3 {
            " and others"
        } else {
            ""
        };
        Some(format!(
            "the log is of {}{more}, and this machine is {here}: the command above tells it there.",
            hosts.join(", ")
        ))
    }

    /// The causes by which ports ran out.
    pub fn exhaustion(&self) -> impl Iterator<Item = &Cause> {
        self.causes.iter().filter(|cause| cause.is_exhaustion())
    }

    /// When the last failure was by which ports ran out toward `asked`, or toward any where it is `None`.
    #[must_use]
    pub fn last_exhausted(&self, asked: Option<&Destination>) -> Option<Moment> {
        let of = self
            .exhaustion()
            .filter(|cause| cause.asked().as_ref() == asked);
        of.filter_map(|cause| cause.last)
            .max_by_key(|last| last.seconds)
    }

    /// The first cause of each kind.
    pub fn each_kind(&self) -> impl Iterator<Item = &Cause> {
        let kinds = self.causes.iter().map(|cause| cause.kind);
        let kinds: Vec<_> = kinds.collect();
        let causes = self.causes.iter().enumerate();
        let first = causes.filter(move |(place, cause)| !kinds[..*place].contains(&cause.kind));
        first.map(|(_, cause)| cause)
    }
}

fn summary(lines: u64, errors: u64, causes: &[Cause]) -> String {
    let read = counted(lines, "line");
    let Some(worst) = causes.first() else {
        return format!(
            "Nothing was recognised in {read}: no error of a connection that twcheck knows."
        );
    };
    let toward = worst
        .destination
        .as_ref()
        .map_or_else(String::new, |server| format!(" toward {server}"));
    let exhausted = causes.iter().filter(|cause| cause.is_exhaustion());
    let (flows, times) = exhausted.fold((0, 0), |(flows, times), cause| {
        (flows + 1, times + cause.count)
    });
    let times_in_words = match times {
        1 => "once".into(),
        _ => format!("{} times", count(times)),
    };
    let others = counted(errors - times, "error");
    match (flows, errors - times) {
        (0, _) => format!(
            "No ports ran out, as far as the text goes: {others} in {read}, {}{}{toward}.",
            if causes.len() > 1 { "most often " } else { "" },
            worst.kind
        ),
        (_, rest) => format!(
            "Ports ran out, as far as the text goes: {times_in_words} in {read}{toward}{}{}.",
            if flows > 1 { " and elsewhere" } else { "" },
            if rest > 0 {
                format!("; {others} of other kinds")
            } else {
                String::new()
            },
        ),
    }
}

impl Now {
    /// What a look at this machine says about `destination`.
    #[must_use]
    pub fn of(destination: Option<&Destination>, verdict: &Verdict) -> Self {
        let is_unknown = verdict.capacity.is_none()
            || verdict.level == Level::Unknown
            || verdict
                .findings
                .iter()
                .any(|reported| reported.finding.code() == "COULD_NOT_READ");
        Self {
            destination: destination.map(ToString::to_string),
            is_exhausted: match verdict.is_exhausted() {
                true => Some(true),
                false if is_unknown => None,
                false => Some(false),
            },
            level: Some(verdict.level),
            // There the option is `verdict`'s own.
            summary: verdict
                .summary
                .replace(": --connect does", ": `twcheck verdict --connect` does"),
        }
    }

    /// The same beside the time of the last of the failures, in a log that ended before `now`.
    #[must_use]
    pub fn after(mut self, last: Option<Moment>, now: i64) -> Self {
        let Some(last) = last else {
            return self;
        };
        // A log without a zone may be of any.
        let unknown = if last.zone.is_some() {
            0
        } else {
            FARTHEST_ZONE
        };
        let age = now - last.seconds - unknown;
        if age > PORTS_COME_BACK {
            let ago = ago(age);
            let told = format!(
                " That is now; the last of these errors was at {last}, {ago} ago, and ports come back within a minute.",
            );
            self.summary.push_str(&told);
        }
        self
    }

    /// Toward whom, for people.
    #[must_use]
    pub fn toward(&self) -> &str {
        self.destination.as_deref().unwrap_or("any destination")
    }

    /// All of it in one.
    #[must_use]
    pub fn sentence(&self) -> String {
        let word = match self.is_exhausted {
            Some(true) => "exhausted",
            Some(false) => "not exhausted",
            None => "unknown",
        };
        format!("Toward {}: {word}. {}", self.toward(), self.summary)
    }

    /// Nothing could be found out: `why`.
    #[must_use]
    pub fn unknown(destination: Option<&Destination>, why: String) -> Self {
        Self {
            destination: destination.map(ToString::to_string),
            is_exhausted: None,
            level: None,
            summary: why,
        }
    }
}

/// Every kind that is recognised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kinds {
    /// Version of this structure.
    pub schema: u32,
    /// The kinds.
    pub kinds: Vec<KindReport>,
}

/// One kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindReport {
    /// Its name.
    pub kind: FailureKind,
    /// What programs say, in the words that people search for.
    pub words: &'static str,
    /// What it means.
    pub meaning: String,
    /// What to do next.
    pub next_step: String,
}

impl Kinds {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        let kinds = FAILURES.iter().filter_map(|row| {
            let told = row.in_logs?;
            let cause = Cause::new(row.kind, None, None);
            Some(KindReport {
                kind: row.kind,
                words: told.words,
                meaning: cause.meaning,
                next_step: cause.next_step,
            })
        });
        Self {
            schema: 1,
            kinds: kinds.collect(),
        }
    }
}
