//! What `ss -tan`, `ss -tanoe`, `netstat -ant` and `netstat -anto` print, as it was pasted: with or
//! without its heading, with prompts around it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::answers::{LONGEST_WAIT, MOST_SOCKETS};
use crate::model::{Interface, Socket, TcpState};
use crate::system::file;
use crate::words::printable;

/// No line of either is longer; what is longer is no line of theirs.
const LONGEST_LINE: u64 = 16 * 1024;

/// More than they take, with everything that either program tells of each.
const LONGEST: u64 = 4 << 30;

/// Settings kept: `sysctl -a` prints some thousand.
const MOST_SETTINGS: usize = 20_000;

/// Who printed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// ss, of iproute2.
    Ss,
    /// netstat, of net-tools or busybox.
    Netstat,
}

impl Program {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ss => "ss",
            Self::Netstat => "netstat",
        }
    }
}

/// What the heading of netstat says that it lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// `(only servers)`, of option -l.
    Listeners,
    /// `(w/o servers)`, of neither option: TIME_WAIT is among them.
    Connections,
    /// `(servers and established)`, of option -a.
    All,
}

/// What a text holds.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools)] // Facts about one text, in any combination.
pub struct Listing {
    /// Its sockets.
    pub sockets: Vec<Socket>,
    /// Who printed it; `None` where nothing in it is of ss or netstat.
    pub program: Option<Program>,
    /// Settings, as `sysctl -a` prints them.
    pub settings: Vec<(String, String)>,
    /// Rows that were not understood.
    pub malformed: u64,
    /// The line of the first of them.
    pub first_malformed: u64,
    /// Rows that have names instead of numbers.
    pub named: u64,
    /// Rows that do not say in which state they are: ss leaves the column out where one was asked for.
    pub stateless: u64,
    /// Rows that were there before, and count once.
    pub repeated: u64,
    /// Listings that show connections which a later one shows too, and count no more.
    pub superseded: u64,
    /// The last line, where it has no end: what came behind it is unknown, and it is left out.
    pub cut_off: Option<u64>,
    /// Whether it is of BSD, macOS, Solaris or Windows.
    pub is_foreign: bool,
    /// Whether it begins as /proc/net/tcp does.
    pub is_proc_table: bool,
    /// Whether it holds anything.
    pub is_empty: bool,
    /// IPv6 addresses of the width at which netstat cuts them off.
    cut: u64,
    /// Whether there are longer ones, so that it did not.
    is_wide: bool,
    /// What it lists, where a heading says so.
    scope: Option<Scope>,
    has_heading: bool,
    /// Whether the line before was a row or a heading.
    is_within: bool,
    /// The first socket below each heading.
    parts: Vec<usize>,
    /// Whether the last command that it shows leaves rows out.
    is_selected: bool,
    /// The last row, which may go on in the next line.
    open: Option<Open>,
    /// The length of the longest line: one that was wrapped is as long.
    longest: usize,
}

/// A row that the next line may belong to, as a terminal or a mail wraps it, and what was known before.
#[derive(Debug)]
struct Open {
    line: String,
    /// The length of its last piece.
    width: usize,
    sockets: usize,
    malformed: u64,
    first_malformed: u64,
    named: u64,
    cut: u64,
}

impl Listing {
    /// Reads a text.
    ///
    /// # Errors
    /// Whatever read() says; and where it is no text, or longer than any.
    pub fn read(from: impl Read) -> io::Result<Self> {
        let mut listing = Self {
            is_empty: true,
            ..Self::default()
        };
        let mut reader = BufReader::new(from.take(LONGEST + 1));
        let mut bytes = Vec::new();
        let mut length = 0;
        for number in 1_u64.. {
            let read = file::line(&mut reader, LONGEST_LINE, &mut bytes)? as u64;
            if read == 0 {
                break;
            }
            if read == LONGEST_LINE || bytes.contains(&0) {
                return Err(io::Error::other(format!(
                    "line {number} is no line of text"
                )));
            }
            length += read;
            if length > LONGEST || listing.sockets.len() > MOST_SOCKETS {
                return Err(io::Error::other("it has more sockets than any machine"));
            }
            listing.is_empty = false;
            let line = String::from_utf8_lossy(&bytes);
            let line = unadorned(&line);
            if bytes.ends_with(b"\n") {
                listing.take(&line, number);
            } else {
                listing.take_last(&line, number);
            }
        }
        listing.count_once();
        Ok(listing)
    }

    /// IPv6 addresses that may have been cut at netstat's width.
    #[must_use]
    pub fn cut(&self) -> u64 {
        if self.is_wide { 0 } else { self.cut }
    }

    /// TIME_WAIT of which no timer tells how long they last.
    #[must_use]
    pub fn untimed(&self) -> usize {
        let is_untimed = |it: &&Socket| it.time_wait_left.is_none();
        self.in_state(TcpState::TimeWait).filter(is_untimed).count()
    }

    /// Whether there are sockets in `state`.
    #[must_use]
    pub fn has(&self, state: TcpState) -> bool {
        self.in_state(state).next().is_some()
    }

    fn in_state(&self, state: TcpState) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |it| it.state == state)
    }

    /// Why sockets that take ports may be missing from it, whatever it shows; `None` where it is most
    /// likely one of all. Without -a ss prints neither listeners nor TIME_WAIT, with -l listeners
    /// alone, and what grep or head left tells nothing about the rest.
    #[must_use]
    pub fn doubt(&self) -> Option<&'static str> {
        let (listening, waiting) = (self.has(TcpState::Listen), self.has(TcpState::TimeWait));
        let is_other = |it: &Socket| !matches!(it.state, TcpState::Listen | TcpState::TimeWait);
        let others = self.sockets.iter().any(is_other);
        Some(match (listening, waiting, others) {
            (false, false, false) => "there is no row, and a machine that connects has some",
            _ if self.is_selected => {
                "the command above it leaves rows out (grep, head, a filter of ss)"
            }
            _ if self.scope >= Some(Scope::Connections) => return None,
            _ if self.scope == Some(Scope::Listeners) => {
                "only servers are listed, so connections and TIME_WAIT are unknown"
            }
            (true, false, false) => {
                "LISTEN is the only state, as option -l prints it: whether there are connections and \
                 TIME_WAIT is unknown"
            }
            (false, true, false) => {
                "TIME_WAIT is the only state, so what else takes ports is unknown"
            }
            (false, false, true) => {
                "there is neither LISTEN nor TIME_WAIT, which ss leaves out without option -a: \
                 TIME_WAIT is unknown"
            }
            (false, true, true) if !self.has_heading => {
                "there is neither a heading nor LISTEN, so it seems to be a part of a listing"
            }
            _ => return None,
        })
    }

    /// A line without an end may be a part of one, even where it can be read.
    fn take_last(&mut self, line: &str, number: u64) {
        let before = (self.sockets.len(), self.settings.len(), self.malformed);
        let is_foreign = self.is_foreign;
        self.take(line, number);
        let after = (self.sockets.len(), self.settings.len(), self.malformed);
        let first = line.split_whitespace().next().unwrap_or_default();
        let begins = |word: &str| word.starts_with(first);
        let may_be_row = !first.is_empty()
            && (SS_STATES.iter().any(|(word, _)| begins(word)) || begins("tcp6"))
            && self.program.is_some();
        if before != after || may_be_row {
            self.sockets.truncate(before.0);
            self.settings.truncate(before.1);
            self.malformed = before.2;
            self.is_foreign = is_foreign;
            self.cut_off = Some(number);
        }
    }

    fn take(&mut self, line: &str, number: u64) {
        let line = line.trim_end_matches(['\r', '\n']);
        self.longest = self.longest.max(line.chars().count());
        let open = self.open.take();
        if let Some(open) = open.filter(|open| open.width == self.longest)
            && let Some(joined) = joined(&open.line, line)
        {
            self.sockets.truncate(open.sockets);
            self.malformed = open.malformed;
            self.first_malformed = open.first_malformed;
            self.named = open.named;
            self.cut = open.cut;
            self.take_line(&joined, number);
            if let Some(open) = &mut self.open {
                open.width = line.chars().count();
            }
            return;
        }
        self.take_line(line, number);
    }

    fn take_line(&mut self, line: &str, number: u64) {
        let words: Vec<_> = line.split_whitespace().collect();
        let open = Open {
            line: line.to_owned(),
            width: line.chars().count(),
            sockets: self.sockets.len(),
            malformed: self.malformed,
            first_malformed: self.first_malformed,
            named: self.named,
            cut: self.cut,
        };
        if let Some(is_selected) = selects(&words) {
            self.is_selected = is_selected;
        }
        if let Some((key, value)) = setting(line) {
            if self.settings.len() < MOST_SETTINGS {
                self.settings.push((key.to_owned(), value.to_owned()));
            }
            return;
        }
        if line.contains("local_address") && line.contains("rem_address") {
            self.is_proc_table = true;
            return;
        }
        if let Some(program) = heading(line) {
            self.program = self.program.or(Some(program));
            self.scope = self.scope.max(scope(line));
            self.has_heading = true;
            self.is_within = true;
            if self.parts.last() != Some(&self.sockets.len()) {
                self.parts.push(self.sockets.len());
            }
            return;
        }
        let (program, row) = match words.as_slice() {
            words if is_foreign(words) => {
                self.is_foreign = true;
                return;
            }
            [
                "tcp" | "tcp6",
                received,
                sent,
                local,
                remote,
                state,
                more @ ..,
            ] if is_number(received) && is_number(sent) && netstat_state(state).is_some() => {
                self.note_width(words[0] == "tcp6", [local, remote]);
                let row = self.row(netstat_state(state), local, remote, more);
                (Program::Netstat, row)
            }
            ["tcp", state, received, sent, local, remote, more @ ..]
            | [state, received, sent, local, remote, more @ ..]
                if ss_state(state).is_some() && is_number(received) && is_number(sent) =>
            {
                (Program::Ss, self.row(ss_state(state), local, remote, more))
            }
            ["tcp", received, sent, local, remote, more @ ..]
            | [received, sent, local, remote, more @ ..]
                if self.program != Some(Program::Netstat)
                    && is_number(received)
                    && is_number(sent)
                    && [local, remote].iter().all(|end| end.contains(':'))
                    && more
                        .first()
                        .is_none_or(|it| netstat_state(it).is_none() && it.contains(':')) =>
            {
                // Only the timer of TIME_WAIT tells which state was asked for.
                let is_waiting = more.iter().any(|it| it.starts_with("timer:(timewait,"));
                if !is_waiting {
                    self.program = self.program.or(Some(Program::Ss));
                    self.stateless += 1;
                    self.is_within = true;
                    return;
                }
                let row = self.row(Some(TcpState::TimeWait), local, remote, more);
                (Program::Ss, row)
            }
            // Cut off, or damaged.
            ["tcp" | "tcp6", received, ..] if is_number(received) => (Program::Netstat, None),
            [state, received, ..] if ss_state(state).is_some() && is_number(received) => {
                (Program::Ss, None)
            }
            words if self.is_within && is_part_of_row(line, words) => {
                (self.program.unwrap_or(Program::Ss), None)
            }
            words => {
                // What ss tells further of a socket stands below it.
                self.is_within &= !words.is_empty() && line.starts_with(char::is_whitespace);
                return;
            }
        };
        self.program = self.program.or(Some(program));
        self.is_within = true;
        self.open = Some(open);
        if let Some(socket) = row {
            self.sockets.push(socket);
            return;
        }
        self.malformed += 1;
        if self.malformed == 1 {
            self.first_malformed = number;
        }
    }

    /// net-tools cuts off what is longer without --wide.
    fn note_width(&mut self, is_six: bool, ends: [&str; 2]) {
        self.cut += u64::from(is_six && ends.iter().any(|end| end.len() == CUT));
        self.is_wide |= ends.iter().any(|end| end.len() > CUT);
    }

    fn row(
        &mut self,
        state: Option<TcpState>,
        local: &str,
        remote: &str,
        more: &[&str],
    ) -> Option<Socket> {
        let ends = (end(local), end(remote));
        let (Some((local_end, interface)), Some((remote_end, _))) = ends else {
            let is_named = [local, remote].iter().any(|end| !is_numeric(end));
            self.named += u64::from(is_named);
            return None;
        };
        let timer = more.iter().position(|word| is_timer(word));
        let (kind, left, retransmits) = timer
            .and_then(|place| read_timer(&more[place..]))
            .unwrap_or_default();
        let state = state?;
        let is_waiting = state == TcpState::TimeWait && kind == "timewait";
        Some(Socket {
            state,
            local: local_end,
            remote: remote_end,
            time_wait_left: left.filter(|left| is_waiting && *left <= LONGEST_WAIT),
            inode: more
                .iter()
                .find_map(|word| word.strip_prefix("ino:")?.parse().ok())
                .filter(|inode| *inode != 0),
            interface,
            retransmits: if is_waiting { 0 } else { retransmits },
        })
    }

    /// The kernel has each connection once. Of two listings that show the same one the later counts;
    /// others, as of either family, are parts of one.
    fn count_once(&mut self) {
        let mut seen: HashSet<_> = HashSet::with_capacity(self.sockets.len());
        let connection = |it: &Socket| (it.local, it.remote, it.interface);
        let is_one = |it: &&Socket| it.state != TcpState::Listen;
        let mut starts = std::mem::take(&mut self.parts);
        starts.retain(|start| *start > 0);
        starts.insert(0, 0);
        let mut parts = Vec::new();
        for start in starts.into_iter().rev() {
            let mut part = self.sockets.split_off(start);
            let mut connections = part.iter().filter(is_one).map(connection);
            if connections.any(|it| seen.contains(&it)) {
                self.superseded += 1;
                continue;
            }
            let whole = part.len();
            part.retain(|it| it.state == TcpState::Listen || seen.insert(connection(it)));
            self.repeated += (whole - part.len()) as u64;
            parts.push(part);
        }
        self.sockets = parts.into_iter().rev().flatten().collect();
    }
}

/// The row that a line and the one below it were, which begins no row of its own: cut within a word, or
/// between two.
fn joined(line: &str, below: &str) -> Option<String> {
    let words: Vec<_> = below.split_whitespace().collect();
    let first = words.first()?;
    // netstat has a state in its middle, with numbers behind it.
    let begins_row = ["tcp", "tcp6"].contains(first)
        || ss_state(first).is_some()
            && matches!(words[1..], [received, sent, local, ..]
                if is_number(received) && is_number(sent) && !is_timer(local));
    let is_other = OTHERS.contains(first) || selects(&words).is_some();
    if begins_row || is_other || setting(below).is_some() || heading(below).is_some() {
        return None;
    }
    let alone = |line: &str| {
        let mut listing = Listing::default();
        listing.take_line(line, 1);
        listing
    };
    let is_row = |of: &Listing| of.stateless > 0 || !of.sockets.is_empty();
    if is_row(&alone(below)) {
        return None;
    }
    // A wrong one loses what stands at the end.
    let tells = |joined: &String| {
        let socket = alone(joined).sockets.pop()?;
        Some((socket.time_wait_left.is_some(), socket.inode.is_some()))
    };
    let cut = format!("{line}{below}");
    let parted = format!("{line} {below}");
    let best = if tells(&parted) > tells(&cut) {
        parted
    } else {
        cut
    };
    tells(&best).map(|_| best)
}

/// A line without what a terminal, an editor or a mail puts around it: colours, a byte order mark, the
/// sign of a quotation.
fn unadorned(line: &str) -> Cow<'_, str> {
    let mut text = line.trim_start_matches('\u{feff}');
    while let Some(quoted) = text.strip_prefix("> ") {
        text = quoted;
    }
    if !text.contains('\x1b') {
        return text.into();
    }
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|it: char| ('@'..='~').contains(&it));
        plain.push_str(end.map_or("", |end| &piece[end + 1..]));
    }
    plain.into()
}

/// Whether a command leaves rows of ss or netstat out; `None` where a line is none.
fn selects(words: &[&str]) -> Option<bool> {
    const CUTTING: [&str; 7] = ["grep", "egrep", "fgrep", "head", "tail", "awk", "sed"];
    const FILTERS: [&str; 7] = ["state", "exclude", "dst", "src", "dport", "sport", "("];
    let is = |word: &str, names: &[&str]| {
        word.rsplit('/')
            .next()
            .is_some_and(|it| names.contains(&it))
    };
    let at = words.iter().position(|word| is(word, &["ss", "netstat"]))?;
    let behind = &words[at + 1..];
    if !behind.first()?.starts_with('-') {
        return None;
    }
    let pipe = behind.iter().position(|word| word.starts_with('|'));
    let (own, piped) = behind.split_at(pipe.unwrap_or(behind.len()));
    let is_all = own
        .windows(2)
        .any(|two| [["state", "all"], ["exclude", "listening"]].contains(&[two[0], two[1]]));
    let is_filtered = own.iter().any(|word| {
        let word = word.trim_start_matches(['\'', '"']);
        FILTERS.contains(&word) || word.starts_with('(')
    });
    let is_cut = piped
        .iter()
        .any(|word| is(word.trim_start_matches('|'), &CUTTING));
    Some(is_filtered && !is_all || is_cut)
}

/// The width of an address and its port in net-tools, 23 letters.
const CUT: usize = 23;

/// `net.ipv4.tcp_tw_reuse = 2`, of the tree that matters.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    // With a prompt in front of it, it is a command.
    let key = key.trim();
    let is_key = key.starts_with("net.") || key.starts_with("kernel.");
    let is_one = is_key
        && key
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
    is_one.then_some((key, value.trim()))
}

fn heading(line: &str) -> Option<Program> {
    if line.contains("Recv-Q") && line.contains("Send-Q") {
        return Some(if line.contains("Proto") {
            Program::Netstat
        } else {
            Program::Ss
        });
    }
    line.starts_with("Active Internet connections")
        .then_some(Program::Netstat)
}

/// Of netstat of net-tools and of busybox.
fn scope(heading: &str) -> Option<Scope> {
    let (_, words) = heading.trim().split_once("connections (")?;
    match words {
        "servers and established)" => Some(Scope::All),
        "w/o servers)" => Some(Scope::Connections),
        "only servers)" => Some(Scope::Listeners),
        _ => None,
    }
}

/// Rows of other systems: `tcp4 0 0 127.0.0.1.54321 127.0.0.1.3306 TIME_WAIT` of BSD and macOS, the
/// same without the first three words of Solaris, `TCP 10.0.0.1:50000 10.0.0.2:3306 TIME_WAIT` of
/// Windows.
fn is_foreign(words: &[&str]) -> bool {
    let is_dotted = |end: &str| {
        !end.contains(':')
            && end.rsplit_once('.').is_some_and(|(host, port)| {
                (port == "*" || is_number(port))
                    && (host == "*" || host.parse::<Ipv4Addr>().is_ok())
            })
    };
    match words {
        ["tcp4" | "tcp46", received, ..] => is_number(received),
        ["tcp6", received, _, local, ..] => {
            let six = local.rsplit_once('.');
            let is_six = six.is_some_and(|(host, port)| host.contains(':') && is_number(port));
            is_number(received) && (is_dotted(local) || is_six)
        }
        ["TCP", local, remote, ..] => [local, remote].iter().all(|end| end.contains(':')),
        [local, remote, window, ..] => is_dotted(local) && is_dotted(remote) && is_number(window),
        _ => false,
    }
}

/// What ss and netstat call what is not TCP.
const OTHERS: [&str; 23] = [
    "udp", "udp6", "udpl", "udpl6", "udplite", "udplite6", "raw", "raw6", "icmp6", "dccp", "sctp",
    "mptcp", "tipc", "ti_st", "v_str", "v_dgr", "nl", "u_str", "u_dgr", "u_seq", "p_raw", "p_dgr",
    "unix",
];

/// Whether it may be what was left of a row, right below others or their heading, or a row whose state
/// has another name. Those of other protocols have theirs in front, what ss tells further of a socket
/// is set off, and a prompt has none of this.
fn is_part_of_row(line: &str, words: &[&str]) -> bool {
    let Some(first) = words.first() else {
        return false;
    };
    let is_set_off = line.starts_with(char::is_whitespace)
        && first.starts_with(|letter: char| letter.is_ascii_lowercase());
    let is_of_state = |word: &str| {
        let states = SS_STATES
            .iter()
            .flat_map(|(name, state)| [*name, state.name()]);
        word.len() > 1 && states.into_iter().any(|state| state.contains(word))
    };
    let is_prompt = |word: &&str| word.ends_with(['$', '#', '%', '>']);
    let is_of_row = |word: &&str| {
        ["tcp", "tcp6"].contains(word)
            || is_number(word)
            || is_of_state(word)
            || is_timer(word)
            || end(word).is_some()
    };
    !OTHERS.contains(first)
        && !is_set_off
        && !words.iter().any(is_prompt)
        && words.iter().any(is_of_row)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_digit())
}

/// Whether nothing in it is a name of a host or a service.
fn is_numeric(end: &str) -> bool {
    let (host, port) = end.rsplit_once(':').unwrap_or((end, ""));
    let is_port = port == "*" || is_number(port);
    let host = host.split('%').next().unwrap_or_default();
    is_port
        && host
            .chars()
            .all(|it| it.is_ascii_hexdigit() || ".:[]*".contains(it))
}

/// As ss spells them (misc/ss.c).
const SS_STATES: [(&str, TcpState); 11] = [
    ("ESTAB", TcpState::Established),
    ("SYN-SENT", TcpState::SynSent),
    ("SYN-RECV", TcpState::SynRecv),
    ("FIN-WAIT-1", TcpState::FinWait1),
    ("FIN-WAIT-2", TcpState::FinWait2),
    ("TIME-WAIT", TcpState::TimeWait),
    ("UNCONN", TcpState::Close),
    ("CLOSE-WAIT", TcpState::CloseWait),
    ("LAST-ACK", TcpState::LastAck),
    ("LISTEN", TcpState::Listen),
    ("CLOSING", TcpState::Closing),
];

fn ss_state(word: &str) -> Option<TcpState> {
    let mut states = SS_STATES.iter();
    states
        .find(|(name, _)| *name == word)
        .map(|(_, state)| *state)
}

fn netstat_state(word: &str) -> Option<TcpState> {
    TcpState::ALL.into_iter().find(|state| state.name() == word)
}

/// `192.0.2.1:40000`, `[::1]:22`, `:::22`, `*:22`, `0.0.0.0:*`, `[fe80::1]%eth0:22`; the interface
/// without its number, which neither tells.
fn end(text: &str) -> Option<(SocketAddr, Option<Interface>)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = match port {
        "*" => 0,
        port => port.parse().ok()?,
    };
    let (host, interface) = match host.split_once('%') {
        Some((host, interface)) => (host, Some(interface.trim_end_matches(']'))),
        None => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = match host {
        "*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        host => match host.parse::<Ipv4Addr>() {
            Ok(four) => IpAddr::V4(four),
            Err(_) => host.parse::<Ipv6Addr>().ok()?.to_canonical(),
        },
    };
    let interface = interface.map(|name| Interface::new(u32::from(name == "lo"), &printable(name)));
    Some((SocketAddr::new(address, port), interface))
}

fn is_timer(word: &str) -> bool {
    const OF_NETSTAT: [&str; 6] = ["off", "on", "on2", "keepalive", "timewait", "probe"];
    word.starts_with("timer:(") || OF_NETSTAT.contains(&word)
}

/// `timer:(timewait,59sec,0)` of ss, or `timewait (59.04/0/0)` of netstat: its kind, the time left
/// and the retransmits.
fn read_timer(words: &[&str]) -> Option<(String, Option<Duration>, u8)> {
    let first = words.first()?;
    if let Some(inside) = first.strip_prefix("timer:(") {
        let mut parts = inside.trim_end_matches(')').split(',');
        let (kind, left, retransmits) = (parts.next()?, parts.next()?, parts.next()?);
        return Some((kind.into(), ss_time(left), retransmits.parse().ok()?));
    }
    let mut parts = words
        .get(1)?
        .strip_prefix('(')?
        .trim_end_matches(')')
        .split('/');
    let (left, retransmits) = (parts.next()?.parse::<f64>().ok()?, parts.next()?);
    let left = Duration::try_from_secs_f64(left).ok();
    Some((
        (*first).into(),
        left,
        retransmits.parse().unwrap_or(u8::MAX),
    ))
}

/// `59sec`, `1min30sec`, `850ms`, `1.040ms` (a point for thousands) (`print_ms_timer` in misc/ss.c).
fn ss_time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut time = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after
            .find(|it: char| it.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        time = time.checked_add(match unit {
            "min" => Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(60)?),
            "sec" => {
                let (whole, thousandths) = number.split_once('.').unwrap_or((number, ""));
                let millis: u64 = match thousandths {
                    "" => 0,
                    digits => format!("{digits:0<3}").get(..3)?.parse().ok()?,
                };
                Duration::from_secs(whole.parse().ok()?)
                    .checked_add(Duration::from_millis(millis))?
            }
            "ms" => Duration::from_millis(number.replace('.', "").parse().ok()?),
            _ => return None,
        })?;
        rest = after;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Listing {
        Listing::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_time_of_ss_is_read_in_all_its_units() {
        for (text, millis) in [
            ("59sec", Some(59_000)),
            ("1min3sec", Some(63_000)),
            ("850ms", Some(850)),
            ("1.040ms", Some(1_040)),
            ("5.992ms", Some(5_992)),
            ("2min", Some(120_000)),
            ("", Some(0)),
            ("59", None),
            ("x", None),
            ("9lightyears", None),
            ("18446744073709551615sec1sec", None),
            ("18446744073709551615sec.999sec", None),
            ("307445734561825861min", None),
        ] {
            let millis = millis.map(Duration::from_millis);
            assert_eq!(ss_time(text), millis, "{text}");
        }
    }

    #[test]
    fn ends_are_read_as_either_program_writes_them() {
        for (text, address, interface) in [
            ("192.0.2.1:40000", Some("192.0.2.1:40000"), None),
            ("0.0.0.0:*", Some("0.0.0.0:0"), None),
            ("*:22", Some("[::]:22"), None),
            (":::22", Some("[::]:22"), None),
            ("::1:3306", Some("[::1]:3306"), None),
            ("[::1]:3306", Some("[::1]:3306"), None),
            ("[::ffff:10.0.0.7]:80", Some("10.0.0.7:80"), None),
            ("[fe80::1]%eth0:22", Some("[fe80::1]:22"), Some("eth0")),
            ("127.0.0.1%lo:53", Some("127.0.0.1:53"), Some("lo")),
            ("localhost:mysql", None, None),
            ("10.0.0.1:70000", None, None),
        ] {
            let read = end(text);
            let read = read.map(|(end, on)| (end.to_string(), on.map(|it| it.to_string())));
            let expected = address.map(|it| (it.to_owned(), interface.map(str::to_owned)));
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn what_stands_around_the_rows_is_left_out_and_settings_are_kept() {
        let listing = read(
            "root@web:~# sysctl -a | grep ip_local\n\
             net.ipv4.ip_local_port_range = 40000\t40099\n\
             root@web:~# ss -tanoe\n\
             State      Recv-Q Send-Q Local Address:Port   Peer Address:Port Process\n\
             LISTEN     0      128    0.0.0.0:22           0.0.0.0:*  ino:17 sk:1 <->\n\
             TIME-WAIT  0      0      192.0.2.1:40000      192.0.2.2:3306  timer:(timewait,59sec,0) ino:0 sk:2\n\
             ESTAB      0      0      192.0.2.1:40002      192.0.2.2:3306  timer:(keepalive,1min3sec,0) uid:7 ino:90 sk:3 <->\n\
             \t skmem:(r0,rb131072)\n\
             root@web:~# \n",
        );
        let settings = [(
            "net.ipv4.ip_local_port_range".to_owned(),
            "40000\t40099".to_owned(),
        )];
        assert_eq!(listing.settings, settings);
        assert_eq!((listing.sockets.len(), listing.malformed), (3, 0));
        assert_eq!(listing.program, Some(Program::Ss));
        let left = listing.sockets[1].time_wait_left;
        assert_eq!(left, Some(Duration::from_secs(59)));
        assert_eq!(listing.sockets[2].time_wait_left, None);
        assert_eq!(listing.sockets[2].inode, Some(90));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, word in "[a-z0-9.:(),%\\[\\]]{0,40}") {
            let _ = Listing::read(text.as_bytes());
            let _ = (end(&word), ss_time(&word), read_timer(&[&word, &word]), is_numeric(&word));
        }
    }
}
