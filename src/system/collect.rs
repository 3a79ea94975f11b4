use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Result};

use super::{ProcRoot, counters, host, proc_tcp, sock_diag, sysctl};
use crate::model::{Gap, PortRule, PortSet, Snapshot, Socket, SourceName, Tally, TcpState};
use crate::refusal::Refusal;

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

/// The table and who listens, as one source tells it.
struct Table {
    listening: PortSet,
    bound: Option<PortSet>,
    tally: Tally,
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

    /// Looks once.
    ///
    /// # Errors
    /// When no socket table can be read at all; anything less becomes a gap.
    pub fn look(&self) -> Result<Snapshot> {
        let mut gaps = Vec::new();
        let tunables = sysctl::tunables(&self.proc, &mut gaps);
        let rule = |listening: PortSet| PortRule::new(&tunables, listening);
        let (source, table) = match self.source {
            SourceChoice::Proc => (SourceName::Proc, self.read_proc(rule, &mut gaps)?),
            SourceChoice::SockDiag => (SourceName::SockDiag, ask_sock_diag(rule)?),
            SourceChoice::Auto => match ask_sock_diag(rule) {
                Ok(table) => (SourceName::SockDiag, table),
                Err(error) => {
                    gaps.push(Gap {
                        what: "sock_diag".into(),
                        why: format!("{error:#}; read /proc/net/tcp instead"),
                        decisive: false,
                    });
                    (SourceName::Proc, self.read_proc(rule, &mut gaps)?)
                }
            },
        };
        Ok(Snapshot {
            host: host::read(&self.proc),
            counters: counters::read(&self.proc, &mut gaps),
            tunables,
            listening: table.listening,
            bound: table.bound,
            tally: table.tally,
            source,
            gaps,
        })
    }

    /// Streams the live sockets, those a process can hold, as far as they can be read.
    pub(super) fn live_sockets(&self, mut row: impl FnMut(&Socket)) {
        let by_netlink =
            self.source != SourceChoice::Proc && sock_diag::rows(sock_diag::LIVE, &mut row).is_ok();
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

    fn read_proc(&self, rule: impl Fn(PortSet) -> PortRule, gaps: &mut Vec<Gap>) -> Result<Table> {
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
        // Listeners come first in each file, and those of tcp6 decide about rows of tcp too.
        let mut listening = PortSet::default();
        for (_, path) in &files {
            // Whatever is wrong with the file is told by the full read below.
            let _ = proc_tcp::rows(path, ticks, |socket| {
                if socket.state == TcpState::Listen {
                    listening.insert(socket.local.port());
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        }
        let mut tally = Tally::new(rule(listening.clone()));
        for (name, path) in &files {
            let why = match proc_tcp::rows(path, ticks, |socket| {
                tally.add(socket);
                ControlFlow::Continue(())
            }) {
                Ok(malformed) if malformed.lines == 0 => continue,
                Ok(malformed) => format!(
                    "{} {} not understood and left out, the first is line {}",
                    malformed.lines,
                    if malformed.lines == 1 {
                        "row was"
                    } else {
                        "rows were"
                    },
                    malformed.first
                ),
                Err(error) => format!("{}: {error}", path.display()),
            };
            gaps.push(Gap {
                what: format!("/proc/net/{name}"),
                why,
                decisive: true,
            });
        }
        Ok(Table {
            listening,
            bound: None,
            tally,
        })
    }
}

fn ask_sock_diag(rule: impl Fn(PortSet) -> PortRule) -> Result<Table> {
    let dumped = || -> Result<Table, super::netlink::Failure> {
        let listening = sock_diag::listening()?;
        let bound = Some(sock_diag::bound()?);
        let mut tally = Tally::new(rule(listening.clone()));
        sock_diag::rows(sock_diag::ALL_STATES, |socket| tally.add(socket))?;
        Ok(Table {
            listening,
            bound,
            tally,
        })
    };
    dumped().context("asking the kernel for its TCP sockets by netlink sock_diag")
}
