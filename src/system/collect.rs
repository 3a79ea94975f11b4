use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::time::{ClockId, clock_getres};

use super::netlink::Failure;
use super::{ProcRoot, counters, holders, host, proc_tcp, sock_diag, sysctl, trial};
use crate::model::{
    Counters, Flow, Gap, Growth, Holders, Listeners, PortRange, PortRule, PortSet, Snapshot,
    Socket, SourceName, Tally, TcpState, Timestamps, Weight,
};
use crate::refusal::Refusal;
use crate::words::{count, counted, percent};

/// Where to read the socket table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SourceChoice {
    /// `sock_diag`, and /proc/net/tcp where that fails
    #[default]
    Auto,
    /// Netlink, the fast way; the only one that shows bound ports
    SockDiag,
    /// /proc/net/tcp and tcp6
    Proc,
}

/// The machine to look at: the calling thread's network namespace, or a recorded one.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    proc: ProcRoot,
    recorded: bool,
    source: SourceChoice,
}

/// What a look is for: nothing else is asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Every socket by state, and by flow when asked for.
    States {
        /// Whether flows are told apart.
        by_flow: bool,
    },
    /// What takes ports: bound ports, and the sockets with a local port in the ephemeral range. The
    /// clients of a busy server stay in the kernel.
    Ports,
    /// What takes ports, and every other socket.
    Both,
}

/// The table as one source tells it.
struct Table {
    bound: Option<PortSet>,
    /// As [`Snapshot::passed_over`].
    passed_over: Option<PortSet>,
    tally: Tally,
    malformed: u64,
}

impl Machine {
    /// This machine, through `source`.
    #[must_use]
    pub fn live(source: SourceChoice) -> Self {
        Self {
            source,
            ..Self::default()
        }
    }

    /// A recorded copy of /proc below `root`: its tables are files, for netlink has no recording.
    #[must_use]
    pub fn recorded(root: &Path) -> Self {
        Self {
            proc: ProcRoot::recorded(root),
            recorded: true,
            source: SourceChoice::Proc,
        }
    }

    /// Looks once, at what `view` asks for.
    ///
    /// # Errors
    /// When no socket table can be read at all; anything less becomes a gap.
    pub fn look(&self, view: View) -> Result<Snapshot> {
        let mut gaps = Vec::new();
        let tunables = sysctl::tunables(&self.proc, &mut gaps);
        if matches!(view, View::States { .. }) {
            // Sockets are counted without any setting.
            for gap in &mut gaps {
                gap.weight = Weight::Minor;
            }
        }
        let mut counters = counters::read(&self.proc, &mut gaps);
        if tunables.tcp_max_tw_buckets.is_none() {
            // Before Linux 4.11 there was one limit and one count for all namespaces, and only the
            // first of them showed the limit.
            counters.time_wait = None;
        }
        let rule = match view {
            View::States { by_flow } => PortRule {
                by_flow,
                range: None,
                reserved: PortSet::default(),
                ..PortRule::new(&tunables)
            },
            View::Ports | View::Both => PortRule::new(&tunables),
        };
        let (source, table) = self.read(&rule, view, &counters, &mut gaps)?;
        if source == SourceName::Proc {
            gaps.extend(disagreement(&self.proc, &table.tally, &counters));
        }
        if table.malformed > 0 {
            gaps.push(Gap {
                what: "sock_diag".into(),
                why: format!(
                    "{} not understood and left out",
                    counted(table.malformed, "row")
                ),
                weight: Weight::Decisive,
            });
        }
        Ok(Snapshot {
            host: host::read(&self.proc),
            hold_time: table.tally.rule().hold_time,
            addresses: (!self.recorded).then(addresses).flatten(),
            timestamps: HashMap::new(),
            counters,
            growth: None,
            tunables,
            bound: table.bound,
            passed_over: table.passed_over,
            tally: table.tally,
            trials: HashMap::new(),
            tick: (!self.recorded).then(tick).flatten(),
            source,
            gaps,
        })
    }

    /// Reads the table under `rule`, and once more where it shows that rows are to be folded under
    /// another one.
    fn read(
        &self,
        rule: &PortRule,
        view: View,
        counters: &Counters,
        gaps: &mut Vec<Gap>,
    ) -> Result<(SourceName, Table)> {
        let mut told = Vec::new();
        let (source, mut table) = self.read_once(rule, view, counters, &mut told)?;
        let is_about_ports = !matches!(view, View::States { .. });
        if is_about_ports && !self.recorded {
            self.try_ports(&mut table);
        }
        let Some(better) = better(rule, &table).filter(|_| is_about_ports) else {
            gaps.extend(told);
            return Ok((source, table));
        };
        let (source, mut again) = self.read_once(&better, view, counters, gaps)?;
        again.tally.count_shared();
        again.bound = again.bound.or(table.bound);
        again.passed_over = table.passed_over;
        Ok((source, again))
    }

    /// Asks the kernel which ports connect() passes over: of those in use, and where the table does
    /// not show bound ones and there may be some that matter, of all.
    fn try_ports(&self, table: &mut Table) {
        let rule = table.tally.rule();
        let Some(range) = rule.range else {
            return;
        };
        let used = &table.tally.ports;
        let outside = counters::outside_the_table(&self.proc);
        let ask_all = table.bound.is_none() && is_bound_worth_asking(&table.tally, outside);
        let taken = rule.reserved.union(table.tally.listening.ports());
        let all: PortSet = range.ports().collect();
        let asked = if ask_all { &all.without(&taken) } else { used };
        let Some(passed_over) = trial::passed_over(range, asked) else {
            return;
        };
        if ask_all {
            table.bound = Some(passed_over.without(used));
        }
        table.passed_over = Some(passed_over.common(used));
    }

    fn read_once(
        &self,
        rule: &PortRule,
        view: View,
        counters: &Counters,
        gaps: &mut Vec<Gap>,
    ) -> Result<(SourceName, Table)> {
        match self.source {
            SourceChoice::Proc => Ok((SourceName::Proc, self.read_proc(rule, gaps)?)),
            SourceChoice::SockDiag => Ok((
                SourceName::SockDiag,
                self.ask_sock_diag(rule, view, counters, gaps)?,
            )),
            SourceChoice::Auto => match self.ask_sock_diag(rule, view, counters, gaps) {
                Ok(table) => Ok((SourceName::SockDiag, table)),
                Err(error) => {
                    gaps.push(Gap {
                        what: "sock_diag".into(),
                        why: format!("{error:#}; read {} instead", self.proc.net("tcp").display()),
                        weight: Weight::Minor,
                    });
                    Ok((SourceName::Proc, self.read_proc(rule, gaps)?))
                }
            },
        }
    }

    /// The other ends of live outbound sockets by whether they have TCP timestamps; nothing where
    /// only netlink would tell.
    #[must_use]
    pub fn timestamps(&self) -> HashMap<Flow, Timestamps> {
        if self.source == SourceChoice::Proc {
            return HashMap::new();
        }
        let ports = self.port_range();
        retried(|| sock_diag::timestamps(ports)).unwrap_or_default()
    }

    /// What the kernel counts during `pause`; `None` on a recorded host.
    #[must_use]
    pub fn growth(&self, pause: Duration) -> Option<Growth> {
        if self.recorded {
            return None;
        }
        // What could not be read has been told at the first look.
        let before = counters::read(&self.proc, &mut Vec::new());
        thread::sleep(pause);
        let after = counters::read(&self.proc, &mut Vec::new());
        Some(Growth::between(&before, &after))
    }

    /// Streams the sockets in TIME_WAIT with a local port in `range`.
    pub(super) fn time_wait(&self, range: PortRange, mut row: impl FnMut(&Socket)) {
        let waiting = 1 << TcpState::TimeWait as u32;
        if self.source != SourceChoice::Proc
            && retried(|| sock_diag::rows(waiting, Some(range), &mut row)).is_ok()
        {
            return;
        }
        for name in ["tcp", "tcp6"] {
            // What cannot be read has been told at the first look.
            let _ = proc_tcp::rows(&self.proc.net(name), procfs::ticks_per_second(), |socket| {
                if socket.state == TcpState::TimeWait && range.contains(socket.local.port()) {
                    row(socket);
                }
                ControlFlow::Continue(())
            });
        }
    }

    /// The ephemeral range; `None` when unknown.
    fn port_range(&self) -> Option<PortRange> {
        sysctl::tunables(&self.proc, &mut Vec::new()).ip_local_port_range
    }

    /// Streams the sockets that a process can hold: inode, user where the source tells it, and the
    /// row; `bound` ones, which have none, where they are asked for. Whether none was missed.
    pub(super) fn held_sockets(
        &self,
        bound: bool,
        mut row: impl FnMut(u32, Option<u32>, Option<&Socket>),
    ) -> bool {
        if self.source != SourceChoice::Proc
            && retried(|| sock_diag::held(bound, |inode, user, it| row(inode, Some(user), it)))
                .is_ok()
        {
            return true;
        }
        for name in ["tcp", "tcp6"] {
            // What cannot be read here has no owner, which the report shows.
            let _ = proc_tcp::rows(&self.proc.net(name), procfs::ticks_per_second(), |socket| {
                if let Some(inode) = socket.inode {
                    row(inode, None, Some(socket));
                }
                ControlFlow::Continue(())
            });
        }
        // It skips rows when the table changes, and bound sockets always.
        false
    }

    /// Whether it is a recorded one, whose processes are gone.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Who holds ports besides the listeners that `snapshot` has seen: for advice on the range.
    /// What cannot be read becomes a gap.
    #[must_use]
    pub fn holders(&self, snapshot: &Snapshot) -> Holders {
        let range = snapshot.tunables.ip_local_port_range;
        let by_netlink = snapshot.source == SourceName::SockDiag;
        let mut holders = Holders {
            bound: snapshot.bound.clone(),
            ..Holders::default()
        };
        if holders.bound.is_none() && by_netlink {
            holders.bound = retried(|| sock_diag::bound(range)).ok().flatten();
        }
        if let Some(range) = range {
            self.held_sockets(false, |_, _, socket| {
                let far = socket.filter(|socket| socket.remote.port() != 0);
                let port = far.map(|socket| socket.local.port());
                holders
                    .chosen
                    .extend(port.filter(|&port| !range.contains(port)));
            });
        }
        match holders::udp(&self.proc, by_netlink, self.source == SourceChoice::Auto) {
            Ok(ports) => holders.udp = Some(ports),
            Err(error) => holders.gaps.push(Gap {
                what: "ports held by UDP".into(),
                why: format!("{error:#}; a wider range may take them from their services"),
                weight: Weight::Minor,
            }),
        }
        holders
    }

    fn read_proc(&self, rule: &PortRule, gaps: &mut Vec<Gap>) -> Result<Table> {
        let ticks = procfs::ticks_per_second();
        let [tcp, tcp6] = ["tcp", "tcp6"].map(|name| self.proc.net(name));
        // Listeners of one family decide about rows of the other. They come first in each file, so
        // a glance at tcp, then tcp6 as a whole, tells them all before the rest of tcp is read. A
        // recording may hold them in any order.
        let mut listening = Listeners::default();
        let listeners = if self.recorded {
            &[&tcp, &tcp6][..]
        } else {
            &[&tcp]
        };
        for path in listeners {
            // Whatever is wrong with the file is told by the full read below.
            let _ = proc_tcp::rows(path, ticks, |socket| {
                match socket.state {
                    TcpState::Listen => listening.insert(socket.local),
                    // Before Linux 4.4 a listener's half-open connections followed it.
                    TcpState::SynRecv => {}
                    _ if self.recorded => {}
                    _ => return ControlFlow::Break(()),
                }
                ControlFlow::Continue(())
            });
        }
        let mut tally = Tally::new(rule.clone(), listening);
        let mut gap = |path: &Path, why: String, weight| {
            let what = path.display().to_string();
            gaps.push(Gap { what, why, weight });
        };
        let mut read = |path: &Path| {
            proc_tcp::rows(path, ticks, |socket| {
                tally.add(socket);
                ControlFlow::Continue(())
            })
        };
        match read(&tcp6) {
            Ok(Some(rest)) => {
                if let Some(why) = damage(rest) {
                    gap(&tcp6, why, Weight::Decisive);
                }
            }
            // A live kernel without IPv6 has no such file.
            Ok(None) if self.recorded => gap(
                &tcp6,
                format!(
                    "{}: connections over IPv6, and those of programs that use IPv6 sockets for \
                     IPv4, are not counted",
                    self.proc.absence()
                ),
                Weight::Minor,
            ),
            Ok(None) => {}
            Err(error) => gap(&tcp6, error.to_string(), Weight::Decisive),
        }
        let rest = read(&tcp).with_context(|| format!("reading {}", tcp.display()))?;
        let Some(rest) = rest else {
            return Err(Refusal::new(
                format!(
                    "{} does not exist, so there is no socket table to read",
                    tcp.display()
                ),
                if self.recorded {
                    "--proc-root takes a folder that holds net/tcp and sys/net/ipv4, like /proc"
                } else {
                    "mount procfs at /proc, or use --source sock_diag"
                },
            )
            .into());
        };
        if let Some(why) = damage(rest) {
            gap(&tcp, why, Weight::Decisive);
        }
        Ok(Table {
            bound: None,
            passed_over: None,
            tally,
            malformed: 0, // Told already, file by file.
        })
    }

    fn ask_sock_diag(
        &self,
        rule: &PortRule,
        view: View,
        counters: &Counters,
        gaps: &mut Vec<Gap>,
    ) -> Result<Table> {
        let sockets = counters::sockets(&self.proc);
        let is_small = sockets.is_none_or(|sockets| sockets <= SMALL);
        // Without the number of TIME_WAIT in all, every row must be counted.
        let counted = counters
            .time_wait
            .filter(|_| view == View::Ports && !is_small);
        let ports = counted.and(rule.range);
        let is_about_ports = !matches!(view, View::States { .. });
        let mut bound = if is_about_ports && is_small {
            self.bound(rule, gaps)
        } else {
            None
        };
        let rule = PortRule {
            bound: bound
                .as_ref()
                .map_or_else(|| rule.bound.clone(), |bound| rule.bound.union(bound)),
            ..rule.clone()
        };
        let (mut tally, malformed) = retried(|| {
            let mut tally = Tally::new(rule.clone(), Listeners::default());
            let states = sock_diag::ALL_STATES;
            let malformed = sock_diag::rows(states, ports, |socket| tally.add(socket))?;
            Ok((tally, malformed))
        })
        .context("asking the kernel for its TCP sockets by netlink sock_diag")?;
        if let (Some(total), Some(_)) = (counted, ports) {
            tally.set_time_wait(total);
            count_inbound(&mut tally, counters);
        }
        let outside = counters::outside_the_table(&self.proc);
        if is_about_ports && !is_small && is_bound_worth_asking(&tally, outside) {
            bound = self.bound(&rule, gaps);
        }
        Ok(Table {
            bound,
            passed_over: None,
            tally,
            malformed,
        })
    }

    /// Ports of the range that somebody bound, besides those that listen; `None` when unknown.
    fn bound(&self, rule: &PortRule, gaps: &mut Vec<Gap>) -> Option<PortSet> {
        let mut failed = |error: Failure| {
            gaps.push(Gap {
                what: "sock_diag".into(),
                why: format!("asking for bound ports: {error}"),
                weight: Weight::Minor,
            });
        };
        let chosen = retried(|| sock_diag::chosen(rule.range)).unwrap_or_else(|error| {
            failed(error);
            PortSet::default()
        });
        if counters::outside_the_table(&self.proc) == Some(0) {
            return Some(chosen);
        }
        let idle = retried(|| sock_diag::bound(rule.range)).unwrap_or_else(|error| {
            failed(error);
            None
        });
        idle.map(|idle| idle.union(&chosen))
    }
}

/// Counts the CLOSE_WAIT that a look at the ephemeral ports alone has left out, where there may
/// be many: the kernel's number of open connections tells.
fn count_inbound(tally: &mut Tally, counters: &Counters) {
    let seen = tally.states.get(TcpState::Established) + tally.states.get(TcpState::CloseWait);
    let unseen = counters.established.unwrap_or(0).saturating_sub(seen);
    if unseen < MANY {
        return;
    }
    let waiting = 1 << TcpState::CloseWait as u32;
    let range = tally.rule().range;
    // Without an answer they are not counted, as they were not before.
    let _ = retried(|| {
        let mut inbound = tally.inbound_close_wait.clone();
        sock_diag::rows(waiting, None, |socket| {
            let port = socket.local.port();
            if range.is_some_and(|range| !range.contains(port)) {
                *inbound.entry(port).or_default() += 1;
            }
        })?;
        Ok(inbound)
    })
    .map(|inbound| tally.inbound_close_wait = inbound);
}

/// As many connections are worth a look of their own.
const MANY: u64 = 100;

/// The rule under which the rows of `table` are to be folded, where that is another than the one
/// they were folded under: TIME_WAIT lasts longer than the settings say, ports turned out to be
/// bound, or flows bound to an interface share ports with one that is not.
fn better(rule: &PortRule, table: &Table) -> Option<PortRule> {
    /// Timers are read in whole ticks, up to 10 ms.
    const ROUNDING: Duration = Duration::from_millis(10);
    let folded = table.tally.rule();
    let longest = table.tally.longest_left;
    let hold_time = if longest <= rule.hold_time + ROUNDING {
        rule.hold_time
    } else {
        Duration::from_secs(u64::try_from(longest.as_millis().div_ceil(1000)).unwrap_or(u64::MAX))
    };
    let better = PortRule {
        hold_time,
        bound: table.bound.clone().unwrap_or_else(|| folded.bound.clone()),
        passed_over: table.passed_over.clone().unwrap_or_default(),
        shared: table.tally.flows_to_share(),
        ..rule.clone()
    };
    (better != *folded).then_some(better)
}

/// This machine's own addresses; `None` when they cannot be read.
fn addresses() -> Option<Vec<IpAddr>> {
    let interfaces = getifaddrs().ok()?;
    let own = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
    });
    Some(own.collect())
}

/// Up to this many sockets a look takes some 5 ms, whatever is asked.
const SMALL: u64 = 20_000;

/// Whether to look for bound ports in a large table, with so many sockets `outside` it: the walk of
/// the bind hash takes as long as the dump, and it matters only where all that may be bound and what
/// the fullest flow takes together are half of what can be had: PORTS_LOW begins there.
fn is_bound_worth_asking(tally: &Tally, outside: Option<u64>) -> bool {
    let rule = tally.rule();
    let Some((range, outside)) = rule.range.zip(outside) else {
        return true;
    };
    let can_be_had = |port: &u16| !rule.reserved.contains(*port);
    let usable = range.ports().filter(can_be_had).count() as u64;
    let most = tally.flows.values().map(|used| used.ports_in_use).max();
    let open: u64 = tally
        .flows
        .values()
        .map(|used| used.by_state.without(TcpState::TimeWait).total())
        .sum();
    let may_be_bound = outside + open;
    may_be_bound > 0 && (u64::from(most.unwrap_or(0)) + may_be_bound) * 2 >= usable
}

/// What is wrong with a socket table of /proc; `None` where nothing is.
fn damage(rest: proc_tcp::Rest) -> Option<String> {
    if rest.is_empty {
        return Some(
            "it is empty, without even its heading, so its sockets are unknown: tar and rsync copy \
             it so; cat and cp copy what it holds"
                .into(),
        );
    }
    if !rest.is_table {
        return Some("it holds no socket table, so its sockets are unknown".into());
    }
    (rest.malformed > 0).then(|| {
        format!(
            "{} not understood and left out, the first is line {}",
            counted(rest.malformed, "row"),
            rest.first_malformed
        )
    })
}

/// Whether the rows of /proc are other ones than the kernel counts. A live table that changes while
/// it is read repeats or skips some: the kernel finds its place again by counting rows
/// (`tcp_seq_start` in net/ipv4/tcp_ipv4.c). A recorded one does not change: where rows are missing
/// it was cut off, and what its flows hold is unknown.
fn disagreement(proc: &ProcRoot, tally: &Tally, counters: &Counters) -> Option<Gap> {
    /// A few come and go during any read.
    const TOLERATED: f64 = 5.0;
    const FEW: u64 = 100;
    /// As many may come between the copy of one file and that of the other.
    const TOLERATED_MISSING: f64 = 10.0;
    const FEW_MISSING: u64 = 20;

    let waiting = tally.time_wait.total + tally.orphans;
    // Half-open connections have rows, but are no sockets yet.
    let open = tally.states.total() - waiting - tally.states.get(TcpState::SynRecv);
    let established = [TcpState::Established, TcpState::CloseWait]
        .map(|state| tally.states.get(state))
        .iter()
        .sum();
    let gap = |rows: u64, kind: &str, (file, counted): (&str, u64), meaning: &str, weight| Gap {
        what: proc.net("tcp").display().to_string(),
        why: format!(
            "{} where {} counts {}: {meaning}",
            self::counted(rows, &format!("{kind} row")),
            proc.net(file).display(),
            count(counted)
        ),
        weight,
    };
    let missing = [
        (waiting, "TIME_WAIT", "sockstat", counters.time_wait),
        (open, "other", "sockstat", counters::in_table(proc)),
        (
            established,
            "ESTABLISHED or CLOSE_WAIT",
            "snmp",
            counters.established,
        ),
    ]
    .into_iter()
    .filter_map(|(rows, kind, file, counted)| Some((rows, kind, file, counted?)))
    .find(|&(rows, _, _, counted)| {
        let missing = counted.saturating_sub(rows);
        missing > FEW_MISSING && percent(missing, counted) > TOLERATED_MISSING
    });
    if let (Some((rows, kind, file, counted)), true) = (missing, proc.is_recorded()) {
        let meaning = "rows are missing, or the files were copied at different times; before Linux \
                       4.11 the TIME_WAIT of all containers are counted";
        return Some(gap(rows, kind, (file, counted), meaning, Weight::Decisive));
    }
    let counted = counters.time_wait?;
    let difference = waiting.abs_diff(counted);
    let differs = difference > FEW && percent(difference, counted) > TOLERATED;
    differs.then(|| {
        let meaning = if proc.is_recorded() {
            "it changed while it was copied"
        } else {
            "it changed while it was read; sock_diag is not disturbed"
        };
        gap(
            waiting,
            "TIME_WAIT",
            ("sockstat", counted),
            meaning,
            Weight::Minor,
        )
    })
}

/// A jiffy: the resolution of the clocks that only the timer tick moves.
fn tick() -> Option<Duration> {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .map(Duration::from)
}

/// Asks again where the answer was disturbed, a few times: a table that changes all the while is no
/// reason to hang.
fn retried<T>(mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    const TRIES: usize = 3;
    let mut last = ask();
    for _ in 1..TRIES {
        match last {
            Err(Failure::Interrupted | Failure::Truncated) => last = ask(),
            Err(Failure::Errno(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR)) => {
                last = ask();
            }
            other => return other,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_answer_is_asked_for_again_and_a_refusal_is_not() {
        let asked = |answers: &[Result<u8, Failure>]| {
            let mut left = answers.iter();
            let last = retried(|| *left.next().expect("three tries at most"));
            (last, answers.len() - left.len())
        };
        let (busy, no) = (Failure::Errno(Errno::ENOBUFS), Failure::Errno(Errno::EPERM));
        assert_eq!(asked(&[Ok(1)]), (Ok(1), 1));
        assert_eq!(asked(&[Err(Failure::Interrupted), Ok(2)]), (Ok(2), 2));
        assert_eq!(
            asked(&[Err(Failure::Truncated), Err(busy), Err(busy)]),
            (Err(busy), 3)
        );
        assert_eq!(asked(&[Err(no)]), (Err(no), 1));
    }

    #[test]
    fn a_live_table_is_restless_and_a_recorded_one_cut_off_and_orphans_are_a_sign_of_neither() {
        let tally = |time_wait: u64, orphans: u64| {
            let mut tally = Tally::default();
            tally.time_wait.total = time_wait;
            tally.orphans = orphans;
            for (state, sockets) in [
                (TcpState::TimeWait, time_wait),
                (TcpState::FinWait2, orphans),
            ] {
                (0..sockets).for_each(|_| tally.states.add(state));
            }
            tally
        };
        let counters = Counters {
            time_wait: Some(3600),
            ..Counters::default()
        };
        let weight = |proc: &ProcRoot, tally: &Tally| {
            disagreement(proc, tally, &counters).map(|gap| gap.weight)
        };
        let live = ProcRoot::default();
        let recorded = ProcRoot::recorded("/nonexistent");
        for (time_wait, orphans, of_live, of_recorded) in [
            (3300, 300, None, None),
            (3300, 0, Some(Weight::Minor), Some(Weight::Minor)),
            (3900, 0, Some(Weight::Minor), Some(Weight::Minor)),
            (3500, 0, None, None),
            (3230, 0, Some(Weight::Minor), Some(Weight::Decisive)),
            (0, 0, Some(Weight::Minor), Some(Weight::Decisive)),
        ] {
            let tally = tally(time_wait, orphans);
            assert_eq!(weight(&live, &tally), of_live, "{time_wait} live");
            assert_eq!(
                weight(&recorded, &tally),
                of_recorded,
                "{time_wait} recorded"
            );
        }
    }
}
