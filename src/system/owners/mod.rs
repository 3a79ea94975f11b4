//! Who holds or wants the connections: inode → process.

mod process;
mod table;
mod watch;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::thread::{CapabilitySet, capabilities};

pub(super) use self::process::{all as processes, command, inhabitant, netns, own_netns, user_of};
use self::process::{describe, user_name};
use self::table::Table;
use self::watch::Seen;
use super::Machine;
use crate::model::{Flow, Gap, Look, Owner, Owners, Placeless, Unplaced, Weight};
use crate::words::{count, counted};

/// Longer looks show nothing more, and a processor is busy all the while.
pub const LONGEST_SAMPLE: Duration = Duration::from_secs(60);

/// How long processes without a port are looked for where no other time is asked for: a client that
/// tries again ten times a second, and fails after the milliseconds that a search through a full
/// range takes, is met a few times.
const HUNT: Duration = Duration::from_millis(400);

/// The part of it after which the first that was found is answer enough.
const HUNTED: Duration = Duration::from_millis(150);

/// Sockets gone before they could be looked for that are worth a word: one or two are anybody's.
const SEVERAL: u32 = 3;

/// How to look for owners.
#[derive(Debug, Clone, Copy, Default)]
pub struct Search {
    /// Look again and again for this time, so that a client whose connections live for
    /// microseconds is caught too; `None` for one look.
    pub sample: Option<Duration>,
    /// Look for processes with sockets that have no port, too.
    pub portless: bool,
    /// Look for who serves this local port, too.
    pub service: Option<u16>,
}

/// Finds who holds the live sockets of `flows` on `machine`: TIME_WAIT has no owner.
#[must_use]
pub fn owners(machine: &Machine, flows: &[Flow], search: Search) -> Owners {
    if let Some(owners) = machine.taken.as_ref().and_then(|it| it.owners(flows)) {
        return owners;
    }
    if machine.is_recorded() {
        return Owners {
            gap: Some(Gap {
                what: "owners of sockets".into(),
                why: "the processes of a recorded host are gone".into(),
                weight: Weight::Minor,
            }),
            ..Owners::default()
        };
    }
    let mut table = Table::new(machine, flows, search.service);
    table.look(false);
    let before = table.wanted_now();
    let mut seen = Seen::new(machine.netns());
    seen.look_through(&table);
    // Where the source skips rows, a socket that is in none of them may well have a port.
    let search = Search {
        portless: search.portless && table.is_complete,
        ..search
    };
    let time = search.sample.or(search.portless.then_some(HUNT));
    let mut look = Look::default();
    if let Some(time) = time {
        let hunted = Instant::now() + HUNTED;
        look = seen.watch(&mut table, search.portless, time, |seen| {
            let found = || !seen.without_a_port().is_empty();
            search.sample.is_none() && Instant::now() >= hunted && found()
        });
    }
    let mut missing: Vec<_> = before
        .into_iter()
        .filter(|inode| !seen.of_socket.contains_key(inode))
        .collect();
    if !missing.is_empty() {
        // Only whoever had one the whole time was there to be seen.
        table.look(false);
        missing.retain(|inode| table.now.contains(inode));
    }

    // The kernel's own threads have nothing open.
    let guarded: Vec<_> = seen.denied.iter().filter_map(|pid| user_of(*pid)).collect();
    let hidden = guarded.len();
    let by_flow = join(&mut seen, &table, flows);
    let unplaced = unplaced(&mut seen, &by_flow, search);
    let service = server(&mut seen, &table);
    Owners {
        gap: (!missing.is_empty()).then(|| unknown(&seen, &table, &missing, guarded).gap()),
        by_flow,
        unplaced,
        service,
        look: Look {
            table: table.time(),
            cycle: look.cycle.max(seen.glances_of_a_cycle()),
            hidden,
            may_trace: may_trace(),
            ..look
        },
    }
}

/// Counts, for each flow, the sockets of each process.
fn join(seen: &mut Seen, table: &Table<'_>, flows: &[Flow]) -> HashMap<Flow, Vec<Owner>> {
    let mut by_flow: HashMap<_, _> = flows.iter().map(|flow| (*flow, Vec::new())).collect();
    let mut counts: HashMap<(Flow, i32), u32> = HashMap::new();
    for (inode, placed) in &table.placed {
        if let Some(pid) = seen.of_socket.get(inode) {
            *counts.entry((placed.flow, *pid)).or_default() += 1;
        }
    }
    for ((flow, pid), sockets) in counts {
        if let Some(owners) = by_flow.get_mut(&flow) {
            let owner = seen.known.entry(pid).or_insert_with(|| describe(pid));
            owners.push(Owner {
                sockets,
                ..owner.clone()
            });
        }
    }
    for owners in by_flow.values_mut() {
        owners.sort_by_key(|owner| (std::cmp::Reverse(owner.sockets), owner.pid));
    }
    by_flow
}

/// Who has most sockets of the service.
fn server(seen: &mut Seen, table: &Table<'_>) -> Option<Owner> {
    let mut counts: HashMap<i32, u32> = HashMap::new();
    for inode in &table.of_service {
        if let Some(pid) = seen.of_socket.get(inode) {
            *counts.entry(*pid).or_default() += 1;
        }
    }
    let (pid, sockets) = counts
        .into_iter()
        .max_by_key(|&(pid, sockets)| (sockets, std::cmp::Reverse(pid)))?;
    let owner = seen.known.entry(pid).or_insert_with(|| describe(pid));
    Some(Owner {
        sockets,
        ..owner.clone()
    })
}

/// Who has TCP sockets that are in no flow, where that may answer the question.
fn unplaced(
    seen: &mut Seen,
    by_flow: &HashMap<Flow, Vec<Owner>>,
    search: Search,
) -> Option<Vec<Unplaced>> {
    let open_question = search.portless || by_flow.values().any(Vec::is_empty);
    if !open_question || (search.sample.is_none() && !search.portless) {
        return None;
    }
    let named: HashSet<_> = by_flow.values().flatten().map(|owner| owner.pid).collect();
    let portless = if search.portless {
        seen.without_a_port()
    } else {
        HashMap::new()
    };
    let fleeting = seen.fleeting.iter().filter(|(pid, sockets)| {
        **sockets >= SEVERAL && !named.contains(*pid) && !portless.contains_key(*pid)
    });
    let all: Vec<_> = portless
        .iter()
        .map(|(pid, sockets)| (Placeless::NoPort, *sockets, *pid))
        .chain(fleeting.map(|(pid, sockets)| (Placeless::ShortLived, *sockets, *pid)))
        .collect();
    let mut unplaced: Vec<_> = all
        .into_iter()
        .map(|(why, sockets, pid)| {
            let owner = seen.known.entry(pid).or_insert_with(|| describe(pid));
            Unplaced {
                owner: Owner {
                    sockets,
                    ..owner.clone()
                },
                why,
            }
        })
        .collect();
    unplaced.sort_by_key(|it| (it.why, std::cmp::Reverse(it.owner.sockets), it.owner.pid));
    Some(unplaced)
}

/// Sockets whose holder was not found though it had them all the time.
#[derive(Debug)]
struct Unknown {
    sockets: usize,
    /// Of so many.
    all: usize,
    /// Whose they are, as the table tells it.
    users: Vec<String>,
    processes: usize,
    /// Processes that may not be read.
    denied: usize,
    /// Whose those are.
    guarded: Vec<String>,
    /// Whether this process may trace any other.
    may_trace: bool,
}

fn unknown(seen: &Seen, table: &Table<'_>, missing: &[u32], guarded: Vec<u32>) -> Unknown {
    let users = missing.iter().filter_map(|inode| table.placed[inode].user);
    Unknown {
        sockets: missing.len(),
        all: table.wanted_now().len(),
        users: names(users),
        processes: seen.processes,
        denied: guarded.len(),
        guarded: names(guarded.into_iter()),
        may_trace: may_trace(),
    }
}

/// Whether this process may trace any other.
pub(super) fn may_trace() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE))
}

/// The names of these users, each once.
fn names(users: impl Iterator<Item = u32>) -> Vec<String> {
    let users: std::collections::BTreeSet<_> = users.collect();
    users.into_iter().map(user_name).collect()
}

impl Unknown {
    /// Says which owners are missing, and the true reason.
    fn gap(&self) -> Gap {
        /// Users named at most.
        const USERS: usize = 3;
        let list = |users: &[String]| match users {
            [] => String::new(),
            [user] => format!(" of user {user}"),
            users if users.len() <= USERS => format!(" of users {}", users.join(", ")),
            users => format!(" of {} users", users.len()),
        };
        let processes = format!(
            "{} of {}{}",
            count(self.denied as u64),
            counted(self.processes as u64, "process"),
            list(&self.guarded)
        );
        let why = match (self.denied, self.may_trace) {
            (0, _) => format!(
                "none of the {} that /proc shows holds them: their holder is in another PID \
                 namespace (the host's, another container's), hidden (hidepid), or the kernel itself \
                 (NFS, iSCSI)",
                counted(self.processes as u64, "process")
            ),
            (_, false) => {
                format!("{processes} cannot be read without CAP_SYS_PTRACE: use sudo")
            }
            (_, true) => format!(
                "{processes} cannot be read, though CAP_SYS_PTRACE is in force: a security policy \
                 or another user namespace guards them"
            ),
        };
        Gap {
            what: format!(
                "owners of {} of {}{}",
                count(self.sockets as u64),
                counted(self.all as u64, "socket"),
                list(&self.users)
            ),
            why,
            weight: Weight::Minor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_owner_has_the_true_reason() {
        let users = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let unknown = |denied, guarded: &[&str], may_trace| Unknown {
            sockets: 3,
            all: 1200,
            users: users(&["mysql"]),
            processes: 84,
            denied,
            guarded: users(guarded),
            may_trace,
        };
        for (unknown, why) in [
            (
                unknown(12, &["root", "mysql"], false),
                "12 of 84 processes of users root, mysql cannot be read without CAP_SYS_PTRACE: \
                 use sudo",
            ),
            (
                unknown(1, &["root"], true),
                "1 of 84 processes of user root cannot be read, though CAP_SYS_PTRACE is in force: \
                 a security policy or another user namespace guards them",
            ),
            (
                unknown(40, &["a", "b", "c", "d"], false),
                "40 of 84 processes of 4 users cannot be read without CAP_SYS_PTRACE: use sudo",
            ),
            (
                unknown(0, &[], false),
                "none of the 84 processes that /proc shows holds them: their holder is in another \
                 PID namespace (the host's, another container's), hidden (hidepid), or the kernel \
                 itself (NFS, iSCSI)",
            ),
        ] {
            assert_eq!(
                unknown.gap(),
                Gap {
                    what: "owners of 3 of 1,200 sockets of user mysql".into(),
                    why: why.into(),
                    weight: Weight::Minor,
                }
            );
        }
    }
}
