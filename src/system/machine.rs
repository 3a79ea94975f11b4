use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::netlink::retried;
use super::owners::{netns, own_netns};
use super::proc_tcp::Hand;
use super::{ProcRoot, counters, holders, proc_tcp, sock_diag, sysctl};
use crate::model::{
    Counters, Flow, Gap, Holders, PortRange, Snapshot, Socket, SourceName, TcpState, Timestamps,
    Weight,
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

    /// The network namespace of a process, seen from another one: its tables, not its settings.
    pub(super) fn of_process(pid: i32) -> Self {
        Self {
            proc: ProcRoot::of_process(pid),
            source: SourceChoice::Proc,
        }
    }

    /// A recorded copy of /proc below `root`: its tables are files, for netlink has no recording.
    #[must_use]
    pub fn recorded(root: &Path) -> Self {
        Self {
            proc: ProcRoot::recorded(root),
            source: SourceChoice::Proc,
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
            let _ = proc_tcp::rows(&self.proc.net(name), hand, |socket| {
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
            let _ = proc_tcp::rows(&self.proc.net(name), hand, |socket| {
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
            None if self.is_recorded() => None,
            None => own_netns(),
        }
    }

    /// Whether it is a recorded one, whose processes are gone.
    pub(super) fn is_recorded(&self) -> bool {
        self.proc.is_recorded()
    }

    /// Who holds ports besides the listeners that `snapshot` has seen: for advice on the range.
    /// What cannot be read becomes a gap.
    #[must_use]
    pub fn holders(&self, snapshot: &Snapshot) -> Holders {
        let range = snapshot.tunables.ip_local_port_range;
        let by_netlink = snapshot.source == SourceName::SockDiag;
        let mut holders = Holders::default();
        if by_netlink {
            // What the snapshot has may have been asked for within the range alone.
            let idle = retried(|| sock_diag::bound(range))
                .ok()
                .and_then(Result::ok);
            let known = snapshot.bound.clone().unwrap_or_default();
            holders.bound = idle.map(|idle| idle.union(&known));
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
