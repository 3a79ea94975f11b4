//! What the socket table tells about sockets that a process can hold.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::Machine;
use crate::model::Flow;

/// A live socket of a wanted flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub flow: Flow,
    /// Whose it is; `None` where the source does not tell.
    pub user: Option<u32>,
}

/// The table, look by look.
pub(super) struct Table<'a> {
    machine: &'a Machine,
    wanted: HashSet<Flow>,
    service: Option<u16>,
    /// Every live socket of the wanted flows seen so far.
    pub placed: HashMap<u32, Placed>,
    /// Every socket of the service seen so far.
    pub of_service: HashSet<u32>,
    /// Every socket of the last look that a process holds, of whatever flow.
    pub now: HashSet<u32>,
    /// Whether the last look missed none.
    pub is_complete: bool,
    looks: u32,
    took: Duration,
}

impl<'a> Table<'a> {
    pub(super) fn new(machine: &'a Machine, flows: &[Flow], service: Option<u16>) -> Self {
        Self {
            machine,
            wanted: flows.iter().copied().collect(),
            service,
            placed: HashMap::new(),
            of_service: HashSet::new(),
            now: HashSet::new(),
            is_complete: false,
            looks: 0,
            took: Duration::ZERO,
        }
    }

    /// Looks again; `bound` sockets, which are expensive to list, where they are asked for.
    pub(super) fn look(&mut self, bound: bool) {
        let start = Instant::now();
        self.now.clear();
        let Self {
            now,
            placed,
            wanted,
            service,
            of_service,
            ..
        } = self;
        self.is_complete = self.machine.held_sockets(bound, |inode, user, socket| {
            now.insert(inode);
            if service.is_some() && socket.map(|socket| socket.local.port()) == *service {
                of_service.insert(inode);
            }
            if let Some(flow) = socket.map(Flow::of)
                && wanted.contains(&flow)
            {
                placed.insert(inode, Placed { flow, user });
            }
        });
        self.looks += 1;
        self.took += start.elapsed();
    }

    /// The wanted sockets of the last look.
    pub(super) fn wanted_now(&self) -> HashSet<u32> {
        let wanted = |inode: &&u32| self.placed.contains_key(inode);
        self.now.iter().filter(wanted).copied().collect()
    }

    /// How long a look takes.
    pub(super) fn time(&self) -> Duration {
        self.took / self.looks.max(1)
    }
}
