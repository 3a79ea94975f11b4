use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::time::{ClockId, clock_getres};

use super::byte_order::{self, ByteOrder};
use super::machine::{Machine, SourceChoice};
use super::netlink::{Failure, retried};
use super::proc_tcp::Hand;
use super::trial::Care;
use super::{counters, host, proc_tcp, sock_diag, sysctl, trial};
use crate::model::{
    BoundPorts, Counters, Disagreement, Gap, Listeners, PortRule, PortSet, Snapshot, SourceName,
    Tally, TcpState, Unseen, Weight,
};
use crate::refusal::Refusal;
use crate::words::{count, counted, errno_words};

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
    Everything,
}

/// What is judged of a table while it is read: reading itself decides none of it.
#[derive(Debug, Clone, Copy)]
pub struct Judgement {
    /// Whether it matters, in a large table, which ports are bound, with so many sockets outside it.
    pub bound_matters: fn(&Tally, Option<u64>) -> bool,
    /// Whether connections in CLOSE_WAIT that were not looked at matter.
    pub inbound_matters: fn(&Tally, &Counters) -> bool,
    /// Of how many ports by chance the kernel is asked whether connect() passes them over.
    pub sample: fn(&Tally) -> u32,
    /// Whether the rows of /proc are other ones than the kernel counts, with so many in the table, on
    /// a recorded host or on this one.
    pub disagreement: fn(&Tally, &Counters, Option<u64>, bool) -> Option<Disagreement>,
}

/// How one look reads.
#[derive(Clone, Copy)]
struct Reading<'a> {
    view: View,
    counters: &'a Counters,
    judgement: Judgement,
}

impl Reading<'_> {
    fn is_about_ports(&self) -> bool {
        !matches!(self.view, View::States { .. })
    }
}

/// The table as one source tells it.
struct Table {
    /// As [`Snapshot::bound`].
    bound: BoundPorts,
    /// As [`Snapshot::passed_over`].
    passed_over: Option<PortSet>,
    tally: Tally,
    malformed: u64,
}

impl Machine {
    /// Looks once, at what `view` asks for and `judgement` finds worth it.
    ///
    /// # Errors
    /// When no socket table can be read at all; anything less becomes a gap.
    pub fn look(&self, view: View, judgement: Judgement) -> Result<Snapshot> {
        let mut gaps = Vec::new();
        gaps.extend(self.not_entered());
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
            View::Ports | View::Everything => PortRule::new(&tunables),
        };
        let reading = Reading {
            view,
            counters: &counters,
            judgement,
        };
        let (source, table) = self.read(&rule, reading, &mut gaps)?;
        if source == SourceName::Proc {
            let in_table = counters::in_table(&self.proc);
            let recorded = self.is_recorded();
            let found = (judgement.disagreement)(&table.tally, &counters, in_table, recorded);
            gaps.extend(found.map(|found| self.gap(found)));
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
            host: host::read(&self.proc, self.netns()),
            addresses: self.addresses(),
            counters,
            bound: table.bound,
            passed_over: table.passed_over,
            tick: self.tick(),
            gaps,
            ..Snapshot::new(tunables, table.tally, source)
        })
    }

    /// Its own addresses; `None` where they are unknown.
    fn addresses(&self) -> Option<Vec<IpAddr>> {
        match &self.taken {
            Some(taken) => taken.answers.addresses.clone(),
            None => self.is_here().then(addresses).flatten(),
        }
    }

    /// Its timer tick; `None` where it is unknown.
    fn tick(&self) -> Option<Duration> {
        match &self.taken {
            Some(taken) => taken.answers.tick_ns.map(Duration::from_nanos),
            None => (!self.is_recorded()).then(tick).flatten(),
        }
    }

    /// What is known only in part because it is looked at from outside.
    fn not_entered(&self) -> Option<Gap> {
        let pid = self.proc.process()?;
        Some(Gap {
            what: format!("the network namespace of process {pid}"),
            why: format!(
                "this user may not enter it, for want of CAP_SYS_ADMIN (use sudo): its tables are \
                 read in /proc/{pid}/net, its settings are unknown"
            ),
            weight: Weight::Minor,
        })
    }

    /// What is unknown where the rows are other ones than the kernel counts.
    fn gap(&self, found: Disagreement) -> Gap {
        Gap {
            what: self.proc.net("tcp").display().to_string(),
            why: format!(
                "{} where {} counts {}: {}",
                counted(found.rows, &format!("{} row", found.kind)),
                self.proc.net(found.file).display(),
                count(found.counted),
                found.meaning
            ),
            weight: found.weight,
        }
    }

    /// Reads the table under `rule`, and once more where it shows that rows are to be folded under
    /// another one.
    fn read(
        &self,
        rule: &PortRule,
        reading: Reading,
        gaps: &mut Vec<Gap>,
    ) -> Result<(SourceName, Table)> {
        let mut told = Vec::new();
        let (source, mut table) = self.read_once(rule, reading, &mut told)?;
        if reading.is_about_ports() && self.is_here() {
            self.try_ports(&mut table, reading.judgement);
        }
        if let Some(taken) = self.taken.as_ref().filter(|_| reading.is_about_ports()) {
            if table.bound.unseen.is_some() {
                table.bound = taken.bound();
            }
            table.passed_over.clone_from(&taken.answers.passed_over);
        }
        let Some(better) = better(rule, &table).filter(|_| reading.is_about_ports()) else {
            gaps.extend(told);
            return Ok((source, table));
        };
        let (source, mut again) = self.read_once(&better, reading, gaps)?;
        again.tally.count_shared();
        if again.bound.unseen.is_some() {
            again.bound = table.bound;
        }
        again.passed_over = table.passed_over;
        Ok((source, again))
    }

    /// Asks the kernel which ports connect() passes over: of those in use, and where the table does
    /// not show bound ones and there may be some that matter, of all.
    fn try_ports(&self, table: &mut Table, judgement: Judgement) {
        let rule = table.tally.rule();
        let Some(range) = rule.range else {
            return;
        };
        let used = &table.tally.ports();
        let sample = Care::Sample((judgement.sample)(&table.tally));
        let Some(passed_over) = trial::passed_over(&table.tally, used, sample) else {
            return;
        };
        if table.bound.unseen.is_some() {
            let outside = counters::outside_the_table(&self.proc);
            let care = if (judgement.bound_matters)(&table.tally, outside) {
                Care::Each // Their number is told.
            } else {
                sample
            };
            let all: PortSet = range.ports().collect();
            let unused = all
                .without(used)
                .without(&rule.reserved)
                .without(table.tally.listening.ports());
            let bound = trial::passed_over(&table.tally, &unused, care);
            // A sample that finds none says nothing about a few.
            let bound = bound.filter(|bound| care == Care::Each || !bound.is_empty());
            if let Some(bound) = bound {
                table.bound = BoundPorts {
                    known: table.bound.known.union(&bound),
                    unseen: None,
                };
            }
        }
        table.passed_over = Some(passed_over);
    }

    fn read_once(
        &self,
        rule: &PortRule,
        reading: Reading,
        gaps: &mut Vec<Gap>,
    ) -> Result<(SourceName, Table)> {
        if let Some(taken) = &self.taken {
            gaps.extend(taken.gaps());
            return Ok((taken.source, self.ask_sock_diag(rule, reading, gaps)?));
        }
        match self.source {
            SourceChoice::Proc => Ok((SourceName::Proc, self.read_proc(rule, gaps)?)),
            SourceChoice::SockDiag => Ok((
                SourceName::SockDiag,
                self.ask_sock_diag(rule, reading, gaps)?,
            )),
            SourceChoice::Auto => match self.ask_sock_diag(rule, reading, gaps) {
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

    fn read_proc(&self, rule: &PortRule, gaps: &mut Vec<Gap>) -> Result<Table> {
        let hand = Hand::of(&self.proc)?;
        let is_told = ByteOrder::of(&self.proc)?.is_some();
        let [tcp, tcp6] = ["tcp", "tcp6"].map(|name| self.proc.net(name));
        // Listeners of one family decide about rows of the other. They come first in each file, so
        // a glance at tcp, then tcp6 as a whole, tells them all before the rest of tcp is read. A
        // recording may hold them in any order.
        let mut listening = Listeners::default();
        let listeners = if self.is_recorded() {
            &[&tcp, &tcp6][..]
        } else {
            &[&tcp]
        };
        for path in listeners {
            // Whatever is wrong with the file is told by the full read below.
            let _ = proc_tcp::rows(self.proc.open(path), hand, |socket| {
                match socket.state {
                    TcpState::Listen => listening.insert(socket.local),
                    // Before Linux 4.4 a listener's half-open connections followed it.
                    TcpState::SynRecv => {}
                    _ if self.is_recorded() => {}
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
        let mut is_reversed = false;
        let mut read = |path: &Path| {
            proc_tcp::rows(self.proc.open(path), hand, |socket| {
                is_reversed |= !is_told && byte_order::is_reversed(socket.local.ip());
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
            Ok(None) if self.is_recorded() => gap(
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
                if self.is_recorded() {
                    "--proc-root takes a folder that holds net/tcp and sys/net/ipv4, like /proc"
                } else {
                    "mount procfs at /proc, or use --source sock_diag"
                },
            )
            .into());
        };
        if is_reversed {
            let file = self.proc.sysctl("kernel.arch");
            return Err(Refusal::new(
                format!(
                    "{} was written by a machine of the other byte order: its addresses are the wrong \
                     way round, 127.0.0.1 is 1.0.0.127",
                    tcp.display()
                ),
                format!(
                    "write what `uname -m` says there into {}, for example s390x",
                    file.display()
                ),
            )
            .into());
        }
        if let Some(why) = damage(rest) {
            gap(&tcp, why, Weight::Decisive);
        }
        Ok(Table {
            bound: BoundPorts {
                known: PortSet::default(),
                unseen: Some(Unseen::InProc),
            },
            passed_over: None,
            tally,
            malformed: 0, // Told already, file by file.
        })
    }

    fn ask_sock_diag(
        &self,
        rule: &PortRule,
        reading: Reading,
        gaps: &mut Vec<Gap>,
    ) -> Result<Table> {
        let sockets = counters::sockets(&self.proc);
        let is_small = sockets.is_none_or(|sockets| sockets <= SMALL);
        // Without the number of TIME_WAIT in all, every row must be counted.
        let counted = reading
            .counters
            .time_wait
            .filter(|_| reading.view == View::Ports && !is_small);
        let ports = counted.and(rule.range);
        let mut bound = if reading.is_about_ports() && is_small {
            self.bound(rule, gaps)
        } else {
            BoundPorts {
                known: PortSet::default(),
                unseen: Some(Unseen::Unasked),
            }
        };
        let rule = PortRule {
            bound: rule.bound.union(&bound.known),
            ..rule.clone()
        };
        let (mut tally, malformed) = retried(|| {
            let mut tally = Tally::new(rule.clone(), Listeners::default());
            let states = sock_diag::ALL_STATES;
            let malformed = self.rows(states, ports, |socket| tally.add(socket))?;
            Ok((tally, malformed))
        })
        .map_err(unanswered)?;
        if let (Some(total), Some(_)) = (counted, ports) {
            tally.set_time_wait(total);
            if (reading.judgement.inbound_matters)(&tally, reading.counters) {
                self.count_inbound(&mut tally);
            }
        }
        let outside = counters::outside_the_table(&self.proc);
        let matters = || (reading.judgement.bound_matters)(&tally, outside);
        if reading.is_about_ports() && !is_small && matters() {
            bound = self.bound(&rule, gaps);
        }
        Ok(Table {
            bound,
            passed_over: None,
            tally,
            malformed,
        })
    }

    /// Counts the CLOSE_WAIT that a look at the ephemeral ports alone has left out.
    fn count_inbound(&self, tally: &mut Tally) {
        let waiting = 1 << TcpState::CloseWait as u32;
        let range = tally.rule().range;
        // Without an answer they are not counted, as they were not before.
        let _ = retried(|| {
            let mut inbound = tally.inbound_close_wait.clone();
            self.rows(waiting, None, |socket| {
                let port = socket.local.port();
                if range.is_some_and(|range| !range.contains(port)) {
                    *inbound.entry(port).or_default() += 1;
                }
            })?;
            Ok(inbound)
        })
        .map(|inbound| tally.inbound_close_wait = inbound);
    }

    /// Ports of the range that somebody bound, besides those that listen.
    fn bound(&self, rule: &PortRule, gaps: &mut Vec<Gap>) -> BoundPorts {
        if let Some(taken) = &self.taken {
            return taken.bound();
        }
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
            return BoundPorts {
                known: chosen,
                unseen: None,
            };
        }
        let idle = retried(|| sock_diag::bound(rule.range)).unwrap_or_else(|error| {
            failed(error);
            Err(Unseen::WithoutAnswer)
        });
        match idle {
            Ok(idle) => BoundPorts {
                known: idle.union(&chosen),
                unseen: None,
            },
            Err(why) => BoundPorts {
                known: chosen,
                unseen: Some(why),
            },
        }
    }
}

/// Why the kernel did not list its TCP sockets. Without a module that can it has no handler: for the
/// request of either family that is `EOPNOTSUPP`, where inet_diag alone is loaded `ENOENT`, and
/// without sock_diag there is no such socket (net/core/sock_diag.c).
fn unanswered(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Errno(
            errno @ (Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EPROTONOSUPPORT),
        ) => Refusal::new(
            format!(
                "the kernel's module tcp_diag, which lists TCP sockets, is not loaded, and nothing here \
                 loads it: {}",
                errno_words(errno as i32)
            ),
            "as root, on the host where this is a container: `modprobe tcp_diag`; without --source \
             sock_diag /proc/net/tcp is read instead",
        )
        .into(),
        other => anyhow::Error::new(other)
            .context("asking the kernel for its TCP sockets by netlink sock_diag"),
    }
}

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
        bound: match table.bound.unseen {
            None => table.bound.known.clone(),
            Some(_) => folded.bound.union(&table.bound.known),
        },
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

/// A jiffy: the resolution of the clocks that only the timer tick moves.
fn tick() -> Option<Duration> {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_tcp_diag_is_told_from_one_that_refuses() {
        for (errno, names_the_module) in [
            (Errno::EOPNOTSUPP, true),
            (Errno::ENOENT, true),
            (Errno::EPROTONOSUPPORT, true),
            (Errno::EPERM, false),
        ] {
            let error = unanswered(Failure::Errno(errno));
            let hint = error.downcast_ref::<Refusal>().map(Refusal::hint);
            let tells = hint.is_some_and(|hint| hint.contains("modprobe tcp_diag"));
            assert_eq!(tells, names_the_module, "{error:#}");
            let text = format!("{error:#}");
            assert!(
                text.contains(&format!("(errno {})", errno as i32)),
                "{text}"
            );
        }
    }
}
