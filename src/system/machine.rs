use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::netlink::{Failure, retried};
use super::owners::{netns, own_netns};
use super::proc_tcp::Hand;
use super::recording::Taken;
use super::{ProcRoot, counters, holders, proc_tcp, sock_diag, sysctl};
use crate::model::{
    Counters, Flow, Gap, Growth, Holders, PortRange, Snapshot, Socket, SourceName, TcpState,
    Timestamps, Weight,
};

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

/// The machine to look at: the calling thread's network namespace, another one by what its processes
/// show of it, or a recorded one.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub(super) proc: ProcRoot,
    pub(super) source: SourceChoice,
    /// What was asked and answered when it was recorded.
    pub(super) taken: Option<Arc<Taken>>,
    /// Where the sockets of the last look are kept, to be recorded.
    tape: Option<Tape>,
}

/// The sockets of one look.
type Tape = Arc<Mutex<Vec<Socket>>>;

impl Machine {
    /// This machine, through `source`.
    #[must_use]
    pub fn live(source: SourceChoice) -> Self {
        Self {
            source,
            ..Self::default()
        }
    }

    /// The network namespace of a process, seen from another one: its tables, not its settings.
    pub(super) fn of_process(pid: i32) -> Self {
        Self {
            proc: ProcRoot::of_process(pid),
            source: SourceChoice::Proc,
            ..Self::default()
        }
    }

    /// A recorded copy of /proc below `root`: its tables are files, for netlink has no recording.
    #[must_use]
    pub fn recorded(root: &Path) -> Self {
        Self {
            proc: ProcRoot::recorded(root),
            source: SourceChoice::Proc,
            ..Self::default()
        }
    }

    /// A recorded one whose sockets and answers were kept too.
    pub(super) fn taken(proc: ProcRoot, taken: Option<Taken>) -> Self {
        Self {
            proc,
            source: if taken.is_some() {
                SourceChoice::Auto
            } else {
                SourceChoice::Proc
            },
            taken: taken.map(Arc::new),
            tape: None,
        }
    }

    /// The same, read in this way: a recording has no netlink, and may have no other.
    #[must_use]
    pub fn through(mut self, source: SourceChoice) -> Self {
        if source == SourceChoice::Proc && self.proc.has_tables() {
            self.taken = None;
            self.source = source;
        }
        self
    }

    /// The same, whose sockets are kept to be recorded.
    #[must_use]
    pub fn on_tape(&self) -> Self {
        Self {
            tape: Some(Tape::default()),
            ..self.clone()
        }
    }

    /// Where the file called `name` in a recording is.
    pub(super) fn recorded_file(&self, name: &str) -> PathBuf {
        match (name.strip_prefix("net/"), name.strip_prefix("sys/")) {
            (Some(name), _) => self.proc.net(name),
            (_, Some(key)) => self.proc.sysctl(&key.replace('/', ".")),
            _ => self.proc.join(name),
        }
    }

    /// Opens a file of it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.proc.open(path)
    }

    /// The sockets of the last look; none where it did not ask by netlink.
    pub(super) fn taped(&self) -> Vec<Socket> {
        let tape = self.tape.as_ref();
        tape.map_or_else(Vec::new, |tape| {
            std::mem::take(&mut tape.lock().expect("no look panics"))
        })
    }

    /// Streams the sockets in one of `states`, and with a local port in `ports` where there are any:
    /// how many were not understood.
    pub(super) fn rows(
        &self,
        states: u32,
        ports: Option<PortRange>,
        mut row: impl FnMut(&Socket),
    ) -> Result<u64, Failure> {
        let is_wanted = |socket: &Socket| {
            let port = socket.local.port();
            states & (1 << socket.state as u32) != 0 && ports.is_none_or(|it| it.contains(port))
        };
        if let Some(taken) = &self.taken {
            taken.rows.iter().filter(|it| is_wanted(it)).for_each(row);
            return Ok(0);
        }
        let Some(tape) = &self.tape else {
            return sock_diag::rows(states, ports, row);
        };
        let mut kept = tape.lock().expect("no look panics");
        kept.clear();
        sock_diag::rows(sock_diag::ALL_STATES, None, |socket| {
            kept.push(*socket);
            if is_wanted(socket) {
                row(socket);
            }
        })
    }

    /// What the kernel counted between two looks, on a recorded host where that was kept.
    #[must_use]
    pub fn recorded_growth(&self) -> Option<Growth> {
        self.taken.as_ref()?.answers.growth
    }

    /// The other ends of live outbound sockets by whether they have TCP timestamps; nothing where
    /// only netlink would tell.
    #[must_use]
    pub fn timestamps(&self) -> HashMap<Flow, Timestamps> {
        if let Some(taken) = &self.taken {
            return taken.by_flow(|kept| kept.timestamps);
        }
        if self.source == SourceChoice::Proc {
            return HashMap::new();
        }
        let ports = self.port_range();
        retried(|| sock_diag::timestamps(ports)).unwrap_or_default()
    }

    /// What the kernel counts now; `None` on a recorded host.
    #[must_use]
    pub fn counters(&self) -> Option<Counters> {
        // What cannot be read has been told at the first look.
        (!self.is_recorded()).then(|| counters::read(&self.proc, &mut Vec::new()))
    }

    /// Streams the sockets in TIME_WAIT with a local port in `range`.
    pub(super) fn time_wait(&self, range: PortRange, mut row: impl FnMut(&Socket)) {
        let waiting = 1 << TcpState::TimeWait as u32;
        if self.source != SourceChoice::Proc
            && retried(|| sock_diag::rows(waiting, Some(range), &mut row)).is_ok()
        {
            return;
        }
        // What cannot be read has been told at the first look.
        let Ok(hand) = Hand::of(&self.proc) else {
            return;
        };
        for name in ["tcp", "tcp6"] {
            let _ = proc_tcp::rows(self.proc.open(&self.proc.net(name)), hand, |socket| {
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
        let Ok(hand) = Hand::of(&self.proc) else {
            return false;
        };
        for name in ["tcp", "tcp6"] {
            // What cannot be read here has no owner, which the report shows.
            let _ = proc_tcp::rows(self.proc.open(&self.proc.net(name)), hand, |socket| {
                if let Some(inode) = socket.inode {
                    row(inode, None, Some(socket));
                }
                ControlFlow::Continue(())
            });
        }
        // It skips rows when the table changes, and bound sockets always.
        false
    }

    /// Whether the calling thread is in its network namespace, so that the kernel can be asked.
    pub(super) fn is_here(&self) -> bool {
        self.proc.is_own()
    }

    /// The inode of its network namespace; `None` where it is recorded or unreadable.
    pub(super) fn netns(&self) -> Option<u64> {
        match self.proc.process() {
            Some(pid) => netns(pid).ok(),
            None if self.is_recorded() => self.taken.as_ref()?.answers.netns,
            None => own_netns(),
        }
    }

    /// Whether it is a recorded one, whose processes are gone.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.proc.is_recorded()
    }

    /// Who holds ports besides the listeners that `snapshot` has seen: for advice on the range.
    /// What cannot be read becomes a gap.
    #[must_use]
    pub fn holders(&self, snapshot: &Snapshot) -> Holders {
        if let Some(taken) = &self.taken
            && let Some(holders) = taken.answers.holders.clone()
        {
            return holders.into();
        }
        let range = snapshot.tunables.ip_local_port_range;
        let by_netlink = snapshot.source == SourceName::SockDiag;
        let mut holders = Holders::default();
        if by_netlink {
            // What the snapshot has may have been asked for within the range alone.
            let idle = retried(|| sock_diag::bound(range))
                .ok()
                .and_then(Result::ok);
            holders.bound = idle.map(|idle| idle.union(&snapshot.bound.known));
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
        holders.node_ports = self.node_ports();
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
}
