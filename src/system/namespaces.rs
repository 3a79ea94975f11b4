//! Other network namespaces of this machine: their ports, settings and tables are their own.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;

use super::owners::{netns, own_netns, processes};
use super::{Machine, ProcRoot, counters};
use crate::model::OtherNamespaces;

/// Processes looked at: some microseconds each, so that a machine with more of them waits no longer.
const PROCESSES: usize = 2_000;

/// Namespaces looked into: each is two small files.
const NAMESPACES: usize = 64;

/// The namespaces besides the one of this process that have TCP sockets, as far as the processes that
/// this user may look at tell; `None` where there is none. Those that only keep a service from the
/// network (`PrivateNetwork=` of systemd) have no sockets.
#[must_use]
pub fn other_namespaces(machine: &Machine) -> Option<OtherNamespaces> {
    if let Some(taken) = &machine.taken {
        return taken.answers.other_namespaces;
    }
    if !machine.is_here() {
        return None;
    }
    let mut seen = HashSet::from([own_netns()?]);
    let sockets: Vec<_> = processes()
        .take(PROCESSES)
        .filter_map(|pid| Some((pid, netns(pid).ok()?)))
        .filter(|(pid, namespace)| {
            !seen.contains(namespace) && !is_of_kernel(*pid) && seen.insert(*namespace)
        })
        .take(NAMESPACES)
        .filter_map(|(pid, _)| Some((counters::sockets_here(&ProcRoot::of_process(pid))?, pid)))
        .filter(|(sockets, _)| *sockets > 0)
        .collect();
    let (_, pid) = *sockets.iter().max()?;
    Some(OtherNamespaces {
        number: sockets.len(),
        pid,
    })
}

/// Whether it is a thread of the kernel, which runs no program and is nobody's container.
pub(super) fn is_of_kernel(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    program.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
