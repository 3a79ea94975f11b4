use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use procfs::process::{FDInfo, FDTarget, Process, all_processes};
use procfs::{ProcError, ProcessCGroups};

use super::Machine;
use crate::model::{Flow, Gap, Owner, Weight};

/// Who holds the live sockets of some flows.
#[derive(Debug, Default)]
pub struct Owners {
    /// By flow, the one with most sockets first; a flow whose sockets nobody was found to hold has
    /// an empty list, one where nobody could look is missing.
    pub by_flow: HashMap<Flow, Vec<Owner>>,
    /// Why somebody may be missing.
    pub gap: Option<Gap>,
}

/// How long the busy processes are watched closely before all are looked through again, so that one
/// that comes later, or was between two connections, is found too.
const CLOSELY: Duration = Duration::from_millis(20);

/// Looks at the busy descriptors between two checks that their processes still live.
const ROUNDS: usize = 50;

/// Longer looks show nothing more, and both threads are busy all the while.
pub const LONGEST_SAMPLE: Duration = Duration::from_secs(60);

/// Finds who holds the live sockets of `flows` on `machine`: TIME_WAIT has no owner. One look, or
/// again and again for the time of `sample`, so that a client whose connections live for
/// microseconds is caught too.
#[must_use]
pub fn owners(machine: &Machine, flows: &[Flow], sample: Option<Duration>) -> Owners {
    if machine.is_recorded() {
        return Owners {
            by_flow: HashMap::new(),
            gap: Some(Gap {
                what: "owners of sockets".into(),
                why: "the processes of a recorded host are gone".into(),
                weight: Weight::Minor,
            }),
        };
    }
    let wanted: HashSet<Flow> = flows.iter().copied().collect();
    let mut holders = Holders::default();
    let sockets = match sample {
        None => {
            let sockets = sockets_of(machine, &wanted, None);
            holders.look_through();
            sockets
        }
        Some(time) => {
            let deadline = Instant::now() + time;
            thread::scope(|scope| {
                let sockets = scope.spawn(|| sockets_of(machine, &wanted, Some(deadline)));
                holders.watch(deadline);
                sockets.join().unwrap_or_default()
            })
        }
    };
    Owners {
        gap: holders.gap(&sockets, sample.is_some()),
        by_flow: holders.join(
            &sockets,
            flows.iter().map(|flow| (*flow, Vec::new())).collect(),
        ),
    }
}

/// The live sockets of the wanted flows by inode: one look, or all that are seen until `deadline`.
fn sockets_of(
    machine: &Machine,
    wanted: &HashSet<Flow>,
    deadline: Option<Instant>,
) -> HashMap<u32, Flow> {
    let mut sockets = HashMap::new();
    let ports = machine.port_range();
    loop {
        machine.live_sockets(ports, |socket| {
            let flow = Flow::of(socket);
            if let (Some(inode), true) = (socket.inode, wanted.contains(&flow)) {
                sockets.insert(inode, flow);
            }
        });
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return sockets;
        }
    }
}

/// Which process was seen with which sockets.
#[derive(Default)]
struct Holders {
    /// The process by the inode of its socket.
    of_socket: HashMap<u32, i32>,
    /// What is known of a process, read when it was first seen: it may be gone by the end.
    known: HashMap<i32, Owner>,
    /// Some processes were not to be read.
    denied: bool,
}

impl Holders {
    /// Looks until `deadline`. Sockets that live for microseconds are caught only by looking at the
    /// descriptors that name them some ten thousand times a second: so every descriptor that was
    /// seen to name a new socket since the first pass is looked at over and over, all others only
    /// now and then.
    fn watch(&mut self, deadline: Instant) {
        self.look_through();
        let mut busy: HashMap<i32, (Process, HashSet<i32>)> = HashMap::new();
        while Instant::now() < deadline {
            for (process, descriptors) in self.look_through() {
                let known = busy.entry(process.pid());
                known
                    .or_insert((process, HashSet::new()))
                    .1
                    .extend(descriptors);
            }
            let next = deadline.min(Instant::now() + CLOSELY);
            while Instant::now() < next {
                busy.retain(|_, (process, _)| process.is_alive());
                if busy.is_empty() {
                    break;
                }
                for _ in 0..ROUNDS {
                    for (process, descriptors) in busy.values() {
                        for &number in descriptors {
                            if let Ok(descriptor) = process.fd_from_fd(number) {
                                self.note(process, &descriptor);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Notes the sockets of all processes; returns the descriptors that name new ones.
    fn look_through(&mut self) -> Vec<(Process, Vec<i32>)> {
        all_processes()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|process| {
                let new = self.look_at(&process);
                (!new.is_empty()).then_some((process, new))
            })
            .collect()
    }

    /// Notes the sockets of one process; returns the descriptors that name new ones.
    fn look_at(&mut self, process: &Process) -> Vec<i32> {
        let descriptors = match process.fd() {
            Ok(descriptors) => descriptors,
            Err(error) => {
                self.denied |= matches!(error, ProcError::PermissionDenied(_));
                return Vec::new();
            }
        };
        let (mut read, mut new) = (0, Vec::new());
        for descriptor in descriptors.flatten() {
            read += 1;
            if self.note(process, &descriptor) {
                new.push(descriptor.fd);
            }
        }
        // To a peer of the same user with fewer capabilities each link is refused, not the folder.
        self.denied |= read == 0 && process.fd_count().is_ok_and(|there| there > 0);
        new
    }

    /// Notes what a descriptor names; whether it is a socket not seen before.
    fn note(&mut self, process: &Process, descriptor: &FDInfo) -> bool {
        let FDTarget::Socket(inode) = descriptor.target else {
            return false;
        };
        let Ok(inode) = u32::try_from(inode) else {
            return false;
        };
        let Entry::Vacant(place) = self.of_socket.entry(inode) else {
            return false;
        };
        place.insert(process.pid());
        self.known
            .entry(process.pid())
            .or_insert_with(|| describe(process));
        true
    }

    /// Says why a socket has no known holder, where the reason is one the user can remove.
    fn gap(&self, sockets: &HashMap<u32, Flow>, sampled: bool) -> Option<Gap> {
        let owned = |inode: &u32| self.of_socket.contains_key(inode);
        let mut missing: Vec<_> = sockets.iter().filter(|(inode, _)| !owned(inode)).collect();
        if sampled {
            // Many are gone before anyone can look; one socket is enough to name an owner.
            let flows = sockets.iter().filter(|(inode, _)| owned(inode));
            let named: HashSet<_> = flows.map(|(_, flow)| flow).collect();
            missing.retain(|(_, flow)| !named.contains(flow));
        }
        let missing = missing.len();
        // Where /proc is mounted with hidepid, other users' processes are not even refused.
        let blind = self.denied || !Uid::effective().is_root();
        (blind && missing > 0).then(|| Gap {
            what: format!("owners of {missing} of {} sockets", sockets.len()),
            why: "other users' processes cannot be read without CAP_SYS_PTRACE: use sudo".into(),
            weight: Weight::Minor,
        })
    }

    /// Counts, for each flow, the sockets of each process.
    fn join(
        &self,
        sockets: &HashMap<u32, Flow>,
        mut by_flow: HashMap<Flow, Vec<Owner>>,
    ) -> HashMap<Flow, Vec<Owner>> {
        let mut counts: HashMap<(Flow, i32), u32> = HashMap::new();
        for (inode, flow) in sockets {
            if let Some(pid) = self.of_socket.get(inode) {
                *counts.entry((*flow, *pid)).or_default() += 1;
            }
        }
        for ((flow, pid), sockets) in counts {
            if let (Some(owners), Some(owner)) = (by_flow.get_mut(&flow), self.known.get(&pid)) {
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
}

fn describe(process: &Process) -> Owner {
    let command = process.stat().map_or_else(|_| "?".into(), |stat| stat.comm);
    Owner {
        pid: process.pid(),
        command,
        user: process
            .status()
            .map_or_else(|_| "?".into(), |status| user_name(status.euid)),
        unit: process.cgroups().ok().and_then(|cgroups| unit(&cgroups)),
        sockets: 0,
    }
}

fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// The systemd unit or the container that a cgroup's path names.
fn unit(cgroups: &ProcessCGroups) -> Option<String> {
    cgroups
        .0
        .iter()
        .flat_map(|cgroup| cgroup.pathname.rsplit('/'))
        .find_map(|part| container(part).or_else(|| is_unit(part).then(|| part.to_owned())))
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope"]
        .iter()
        .any(|suffix| part.ends_with(suffix))
}

/// A container's 64-digit ID, alone as Docker names it or inside a name such as
/// `cri-containerd-ID.scope`: shortened as `docker ps` prints it.
fn container(part: &str) -> Option<String> {
    part.split(|letter: char| !letter.is_ascii_hexdigit())
        .find(|word| word.len() == 64)
        .map(|id| format!("container {}", &id[..12]))
}

#[cfg(test)]
mod tests {
    use procfs::ProcessCGroup;

    use super::*;

    #[test]
    fn a_cgroup_names_its_unit_or_container() {
        let id = "0123456789abcdef".repeat(4);
        for (path, named) in [
            ("/system.slice/gunicorn.service", Some("gunicorn.service")),
            (
                "/user.slice/user-0.slice/session-1.scope",
                Some("session-1.scope"),
            ),
            (&format!("/docker/{id}"), Some("container 0123456789ab")),
            (
                &format!("/system.slice/docker-{id}.scope"),
                Some("container 0123456789ab"),
            ),
            (
                &format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                Some("container 0123456789ab"),
            ),
            (
                "/user.slice/user-0.slice/user@0.service/app.slice/vim.scope",
                Some("vim.scope"),
            ),
            ("/", None),
        ] {
            let cgroups = ProcessCGroups(vec![ProcessCGroup {
                hierarchy: 0,
                controllers: Vec::new(),
                pathname: path.into(),
            }]);
            assert_eq!(unit(&cgroups).as_deref(), named, "{path}");
        }
    }
}
