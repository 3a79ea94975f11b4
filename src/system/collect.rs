use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::time::{ClockId, clock_getres};

use super::netlink::Failure;
use super::{ProcRoot, counters, host, proc_tcp, sock_diag, sysctl};
use crate::model::{
    Counters, Gap, PortRule, PortSet, Snapshot, Socket, SourceName, Tally, TcpState, Weight,
};
use crate::refusal::Refusal;
use crate::words::{counted, percent};

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

    /// A recorded copy of /proc below `root`.
    ///
    /// # Errors
    /// When `source` asks for netlink, which only the live kernel answers.
    pub fn recorded(root: &Path, source: SourceChoice) -> Result<Self> {
        if source == SourceChoice::SockDiag {
            return Err(Refusal::new(
                "--source sock_diag asks the running kernel, --proc-root a recorded one",
                "leave one of the two out",
            )
            .into());
        }
        Ok(Self {
            proc: ProcRoot::recorded(root),
            recorded: true,
            source: SourceChoice::Proc,
        })
    }

    /// Looks once, at what `view` asks for.
    ///
    /// # Errors
    /// When no socket table can be read at all; anything less becomes a gap.
    pub fn look(&self, view: View) -> Result<Snapshot> {
        let mut gaps = Vec::new();
        let tunables = sysctl::tunables(&self.proc, &mut gaps);
        let counters = counters::read(&self.proc, &mut gaps);
        let rule = match view {
            View::States { by_flow } => PortRule {
                by_flow,
                range: None,
                reserved: PortSet::default(),
                ..PortRule::new(&tunables)
            },
            View::Ports | View::Both => PortRule::new(&tunables),
        };
        let (source, mut table) = match self.source {
            SourceChoice::Proc => (SourceName::Proc, self.read_proc(&rule, &mut gaps)?),
            SourceChoice::SockDiag => (
                SourceName::SockDiag,
                self.ask_sock_diag(&rule, view, &counters)?,
            ),
            SourceChoice::Auto => match self.ask_sock_diag(&rule, view, &counters) {
                Ok(table) => (SourceName::SockDiag, table),
                Err(error) => {
                    gaps.push(Gap {
                        what: "sock_diag".into(),
                        why: format!("{error:#}; read /proc/net/tcp instead"),
                        weight: Weight::Minor,
                    });
                    (SourceName::Proc, self.read_proc(&rule, &mut gaps)?)
                }
            },
        };
        if source == SourceName::Proc {
            gaps.extend(restless(&table.tally, &counters));
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
        if let (SourceName::SockDiag, View::Ports, Some(total)) = (source, view, counters.time_wait)
        {
            table.tally.set_time_wait(total);
        }
        Ok(Snapshot {
            host: host::read(&self.proc),
            counters,
            tunables,
            bound: table.bound,
            tally: table.tally,
            tick: (!self.recorded).then(tick).flatten(),
            source,
            gaps,
        })
    }

    /// Streams the live sockets, those a process can hold, as far as they can be read.
    pub(super) fn live_sockets(&self, mut row: impl FnMut(&Socket)) {
        let by_netlink = self.source != SourceChoice::Proc
            && sock_diag::rows(sock_diag::LIVE, None, &mut row).is_ok();
        if by_netlink {
            return;
        }
        for name in ["tcp", "tcp6"] {
            // Whatever is wrong with the file was told when the table was read.
            let _ = proc_tcp::rows(&self.proc.net(name), procfs::ticks_per_second(), |socket| {
                row(socket);
                ControlFlow::Continue(())
            });
        }
    }

    /// Whether it is a recorded one, whose processes are gone.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }

    fn read_proc(&self, rule: &PortRule, gaps: &mut Vec<Gap>) -> Result<Table> {
        let ticks = procfs::ticks_per_second();
        let files = ["tcp", "tcp6"].map(|name| (name, self.proc.net(name)));
        if !files[0].1.exists() {
            return Err(Refusal::new(
                format!(
                    "{} does not exist, so there is no socket table to read",
                    files[0].1.display()
                ),
                if self.recorded {
                    "--proc-root takes a folder that holds net/tcp and sys/net/ipv4, like /proc"
                } else {
                    "mount procfs at /proc, or use --source sock_diag"
                },
            )
            .into());
        }
        // Listeners of one family decide about rows of the other. They come first in each file, so
        // a glance at tcp, then tcp6 as a whole, tells them all before the rest of tcp is read.
        let mut listening = PortSet::default();
        // Whatever is wrong with the file is told by the full read below.
        let _ = proc_tcp::rows(&files[0].1, ticks, |socket| {
            match socket.state {
                TcpState::Listen => listening.insert(socket.local.port()),
                // Before Linux 4.4 a listener's half-open connections followed it.
                TcpState::SynRecv => {}
                _ => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        });
        let mut tally = Tally::new(rule.clone(), listening);
        for (name, path) in files.iter().rev() {
            let why = match proc_tcp::rows(path, ticks, |socket| {
                tally.add(socket);
                ControlFlow::Continue(())
            }) {
                Ok(malformed) if malformed.lines == 0 => continue,
                Ok(malformed) => format!(
                    "{} not understood and left out, the first is line {}",
                    counted(malformed.lines, "row"),
                    malformed.first
                ),
                Err(error) if *name == "tcp" => {
                    return Err(error).with_context(|| format!("reading {}", path.display()));
                }
                Err(error) => format!("{}: {error}", path.display()),
            };
            gaps.push(Gap {
                what: format!("/proc/net/{name}"),
                why,
                weight: Weight::Decisive,
            });
        }
        Ok(Table {
            bound: None,
            tally,
            malformed: 0, // Told already, file by file.
        })
    }

    fn ask_sock_diag(&self, rule: &PortRule, view: View, counters: &Counters) -> Result<Table> {
        // Without the number of TIME_WAIT in all, every row must be counted.
        let ports = match view {
            View::Ports => counters.time_wait.and(rule.range),
            View::States { .. } | View::Both => None,
        };
        let dump = || -> Result<(Tally, u64), Failure> {
            let mut tally = Tally::new(rule.clone(), PortSet::default());
            let states = sock_diag::ALL_STATES;
            let malformed = sock_diag::rows(states, ports, |socket| tally.add(socket))?;
            Ok((tally, malformed))
        };
        let dumped = || {
            let (tally, malformed) = dump()?;
            let bound = match view {
                View::States { .. } => None,
                _ if counters::no_socket_outside_the_table(&self.proc) => Some(PortSet::default()),
                _ if !self.is_bound_worth_asking(&tally, rule) => None,
                _ => sock_diag::bound(rule.range)?,
            };
            Ok(Table {
                bound,
                tally,
                malformed,
            })
        };
        retried(dumped).context("asking the kernel for its TCP sockets by netlink sock_diag")
    }

    /// Whether to look for bound ports: the walk of the bind hash takes as long as the dump, and
    /// they matter only where a flow is near its limit. In a small table it costs nothing.
    fn is_bound_worth_asking(&self, tally: &Tally, rule: &PortRule) -> bool {
        /// Some 2 ms.
        const SMALL: u64 = 20_000;
        let near = |ports: u32| rule.range.is_none_or(|range| ports * 2 >= range.len());
        counters::sockets(&self.proc).is_none_or(|sockets| sockets <= SMALL)
            || tally.flows.values().any(|used| near(used.ports_in_use))
    }
}

/// Whether /proc repeated or skipped rows: where the table changes while it is read, the kernel
/// finds its place again by counting rows (`tcp_seq_start` in net/ipv4/tcp_ipv4.c).
fn restless(tally: &Tally, counters: &Counters) -> Option<Gap> {
    /// A few come and go during any read.
    const TOLERATED: f64 = 5.0;
    const FEW: u64 = 100;
    let (rows, counted) = (tally.time_wait.total, counters.time_wait?);
    let difference = rows.abs_diff(counted);
    (difference > FEW && percent(difference, counted) > TOLERATED).then(|| Gap {
        what: "/proc/net/tcp".into(),
        why: format!(
            "it changed while it was read: {rows} TIME_WAIT rows where the kernel counts {counted}; \
             sock_diag is not disturbed"
        ),
        weight: Weight::Minor,
    })
}

/// A jiffy: the resolution of the clocks that only the timer tick moves.
fn tick() -> Option<Duration> {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .map(Duration::from)
}

/// Tries again where the dump was disturbed, a few times: a table that changes all the while is
/// no reason to hang.
fn retried(dump: impl Fn() -> Result<Table, Failure>) -> Result<Table, Failure> {
    const TRIES: usize = 3;
    let mut last = dump();
    for _ in 1..TRIES {
        match last {
            Err(Failure::Interrupted | Failure::Truncated | Failure::Errno(Errno::ENOBUFS)) => {
                last = dump();
            }
            other => return other,
        }
    }
    last
}
