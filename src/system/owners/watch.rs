//! Watching processes open sockets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::process::{
    Held, Silent, all, describe, descriptor, descriptors, is_tcp, netns, socket_at,
};
use super::table::Table;
use crate::model::{Look, Owner};

/// How long descriptors are watched before all processes are looked through again, so that one that
/// came later is found too.
const CLOSELY: Duration = Duration::from_millis(50);

/// Looking through all processes takes at most one part in so many of the time.
const LOOKING: u32 = 4;

/// Descriptors at which new sockets were seen, watched most often: the latest.
const HOT: usize = 64;

/// The others are watched so many at a time between two rounds of the hot ones.
const COLD: usize = 16;

/// What a glance at a descriptor that is free takes: a path walk that finds nothing.
const GLANCE: Duration = Duration::from_micros(2);

/// A descriptor that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    pid: i32,
    number: i32,
    path: PathBuf,
}

impl Slot {
    fn new(pid: i32, number: i32) -> Self {
        Self {
            pid,
            number,
            path: descriptor(pid, number),
        }
    }
}

/// What one look through all processes shows.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The sockets they have.
    sockets: Vec<Held>,
    /// Of them, those not seen before.
    new: Vec<Held>,
    /// Where the next socket of each will be.
    next: Vec<Slot>,
}

/// Which process was seen with which sockets.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The process by the inode of its socket.
    pub of_socket: HashMap<u32, i32>,
    /// What is known of a process, read when it mattered first: it may be gone by the end.
    pub known: HashMap<i32, Owner>,
    /// How many sockets without a port a process had at once.
    pub portless: HashMap<i32, u32>,
    /// How many sockets of a process, just opened, were in no table, and still there after the look.
    pub waiting: HashMap<i32, u32>,
    /// How many sockets of a process were gone before they could be looked for.
    pub fleeting: HashMap<i32, u32>,
    /// Processes in the last look.
    pub processes: usize,
    /// Of them, those that may not be read.
    pub denied: Vec<i32>,
    /// Sockets that are not TCP.
    others: HashSet<u32>,
    /// Whether a process is in the network namespace looked at.
    is_here: HashMap<i32, bool>,
    /// That namespace.
    here: Option<u64>,
    next: usize,
}

impl Seen {
    /// Nothing so far, of the network namespace with this inode.
    pub(super) fn new(here: Option<u64>) -> Self {
        Self {
            here,
            ..Self::default()
        }
    }

    /// Notes the sockets of all processes but this one.
    pub(super) fn look_through(&mut self, table: &Table<'_>) -> Pass {
        let own = std::process::id();
        let mut pass = Pass::default();
        (self.processes, self.denied) = (0, Vec::new());
        for pid in all().filter(|pid| u32::try_from(*pid) != Ok(own)) {
            self.processes += 1;
            let open = match descriptors(pid) {
                Ok(open) => open,
                Err(Silent::Denied) => {
                    self.denied.push(pid);
                    continue;
                }
                Err(Silent::Gone) => {
                    self.processes -= 1;
                    continue;
                }
            };
            for held in &open.sockets {
                if self.of_socket.insert(held.inode, pid).is_none() {
                    pass.new.push(*held);
                }
                if table.placed.contains_key(&held.inode) {
                    self.remember(pid);
                }
            }
            pass.sockets.extend(open.sockets);
            if self.is_here(pid) {
                pass.next.push(Slot::new(pid, open.lowest_free));
            }
        }
        self.next = pass.next.len();
        pass
    }

    /// Watches for `time`, from the first look through all processes on, or until what was seen is
    /// `enough`. A socket that lives for microseconds is seen only by who looks at
    /// its descriptor at that time, and its flow only by who looks at the table right then: so the
    /// descriptor that each process will use next is watched, those at which new sockets were seen
    /// most of all, and the table is looked at whenever there is a new one. All this on one thread:
    /// a client on the same machine needs a processor too.
    pub(super) fn watch(
        &mut self,
        table: &mut Table<'_>,
        portless: bool,
        time: Duration,
        enough: impl Fn(&Self) -> bool,
    ) -> Look {
        let mut hot: VecDeque<Slot> = VecDeque::new();
        let (mut watched, mut cycles) = (Duration::ZERO, 0_u32);
        let mut end = None;
        loop {
            let start = Instant::now();
            let pass = self.look_through(table);
            // On a busy machine the first look alone can take longer.
            let deadline = *end.get_or_insert_with(|| Instant::now() + time);
            if portless {
                table.look(false);
                let absent = |held: &Held| !table.now.contains(&held.inode);
                let absent = pass.sockets.iter().copied().filter(absent).collect();
                self.confirm(table, absent);
            }
            for held in pass.new.iter().filter(|held| self.is_here(held.pid)) {
                heat(&mut hot, Slot::new(held.pid, held.descriptor));
            }
            let closely = CLOSELY.max(start.elapsed() * LOOKING);
            let next = deadline.min(Instant::now() + closely);
            let start = Instant::now();
            'closely: while Instant::now() < next {
                for some in pass.next.chunks(COLD) {
                    let caught: Vec<_> = hot
                        .iter()
                        .chain(some)
                        .filter(|slot| self.glance(slot, table))
                        .cloned()
                        .collect();
                    for slot in caught {
                        heat(&mut hot, slot);
                    }
                    if Instant::now() >= next {
                        break 'closely;
                    }
                }
                cycles += 1;
                if pass.next.is_empty() {
                    break;
                }
            }
            watched += start.elapsed();
            if Instant::now() >= deadline || pass.next.is_empty() || enough(self) {
                break;
            }
        }
        Look {
            watched,
            cycle: watched / cycles.max(1),
            table: table.time(),
            hidden: self.denied.len(),
            ..Look::default()
        }
    }

    /// What a round of glances takes at least.
    pub(super) fn glances_of_a_cycle(&self) -> Duration {
        GLANCE * u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    /// Whether a descriptor names a TCP socket that was not seen before. If so, notes where it is.
    fn glance(&mut self, slot: &Slot, table: &mut Table<'_>) -> bool {
        let Some(inode) = socket_at(&slot.path) else {
            return false;
        };
        let is_new = !self.of_socket.contains_key(&inode);
        if !is_new || !is_tcp(&slot.path) {
            return false;
        }
        table.look(false);
        self.of_socket.insert(inode, slot.pid);
        let held = Held {
            pid: slot.pid,
            descriptor: slot.number,
            inode,
        };
        if table.placed.contains_key(&inode) {
            self.remember(slot.pid);
        } else if table.is_complete && !table.now.contains(&inode) {
            let place = if held.is_there() {
                &mut self.waiting
            } else {
                &mut self.fleeting
            };
            *place.entry(slot.pid).or_default() += 1;
            self.remember(slot.pid);
        }
        true
    }

    /// Of sockets that were in no table a moment ago, notes the TCP sockets that still are in none:
    /// they were there all the time between two looks, so that neither can have missed them while
    /// they were on their way into it or out.
    fn confirm(&mut self, table: &mut Table<'_>, mut absent: Vec<Held>) {
        absent.retain(|held| self.is_here(held.pid) && self.is_tcp(*held));
        if absent.is_empty() || !table.is_complete {
            return;
        }
        // One that is bound has a port.
        table.look(true);
        absent.retain(|held| !table.now.contains(&held.inode) && held.is_there());
        let mut sockets: HashMap<i32, u32> = HashMap::new();
        for held in absent {
            *sockets.entry(held.pid).or_default() += 1;
        }
        for (pid, sockets) in sockets.into_iter().filter(|_| table.is_complete) {
            let most = self.portless.entry(pid).or_default();
            *most = sockets.max(*most);
            self.remember(pid);
        }
    }

    /// The processes with sockets without a port, and how many each had at once. One that was just
    /// opened may be on its way into the table: where the table never
    /// has the next one either it is not by chance.
    pub(super) fn without_a_port(&self) -> HashMap<i32, u32> {
        let gone = |pid| self.fleeting.get(pid).copied().unwrap_or(0);
        let waiting = self
            .waiting
            .iter()
            .filter(|(pid, times)| **times + gone(*pid) > 1);
        let mut all: HashMap<_, _> = waiting.map(|(pid, _)| (*pid, 1)).collect();
        all.extend(&self.portless);
        all
    }

    fn is_tcp(&mut self, held: Held) -> bool {
        if self.others.contains(&held.inode) {
            return false;
        }
        let is_tcp = is_tcp(&held.path());
        if !is_tcp {
            self.others.insert(held.inode);
        }
        is_tcp
    }

    /// Whether a process is in the network namespace looked at: a socket of another one is in no
    /// table here.
    fn is_here(&mut self, pid: i32) -> bool {
        let here = self.here;
        let is_here = self.is_here.entry(pid);
        *is_here.or_insert_with(|| here.is_some() && netns(pid).ok() == here)
    }

    fn remember(&mut self, pid: i32) {
        self.known.entry(pid).or_insert_with(|| describe(pid));
    }
}

/// Watches a descriptor more often, instead of the one that was longest.
fn heat(hot: &mut VecDeque<Slot>, slot: Slot) {
    if hot.contains(&slot) {
        return;
    }
    if hot.len() == HOT {
        hot.pop_front();
    }
    hot.push_back(slot);
}
