//! The network namespaces of this machine: each once, whoever keeps it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::namespaces::is_of_kernel;
use super::owners::{inhabitant, may_trace, netns, own_netns, processes, user_of};
use crate::model::{Gap, Namespace, Weight};
use crate::words::{count, counted};

/// Processes looked at: some microseconds each.
const PROCESSES: usize = 200_000;

/// Namespaces told apart: more than any machine has pods.
const NAMESPACES: usize = 4_096;

/// Processes of a namespace by which it can be opened: the first may end meanwhile.
const KEPT: usize = 8;

/// Programs of a namespace that are named.
const NAMED: usize = 3;

/// What is read of the list of mounts: some 100 bytes for each of a node's mounts.
const MOUNTS: u64 = 16 * 1024 * 1024;

/// Where `ip netns` keeps them.
pub(super) const NAMED_ONES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace, not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub namespace: Namespace,
    /// Some of its processes.
    pub(super) pids: Vec<i32>,
    /// Where it is mounted.
    pub(super) paths: Vec<PathBuf>,
}

/// All that were found.
#[derive(Debug, Default)]
pub struct Census {
    /// The own one first, the others by number.
    pub found: Vec<Found>,
    /// Where there may be more.
    pub gaps: Vec<Gap>,
}

#[derive(Debug, Default)]
struct Entry {
    pids: Vec<i32>,
    processes: usize,
    paths: Vec<PathBuf>,
}

/// Finds the network namespaces of all processes, and those that are mounted, as `ip netns` and
/// container engines keep them.
#[must_use]
pub fn census() -> Census {
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let own = own_netns();
    if let Some(own) = own {
        entries.entry(own).or_default();
    }
    let (mut hidden, mut looked_at, mut is_full) = (0_u64, 0, false);
    for pid in processes().take(PROCESSES) {
        looked_at += 1;
        let inode = match netns(pid) {
            Ok(inode) => inode,
            Err(error) => {
                // The kernel's own threads are in none that others are not in.
                let is_denied = error.kind() == ErrorKind::PermissionDenied;
                hidden += u64::from(is_denied && user_of(pid).is_some());
                continue;
            }
        };
        let Some(entry) = room(&mut entries, inode) else {
            is_full = true;
            continue;
        };
        entry.processes += 1;
        if entry.pids.len() < KEPT && !is_of_kernel(pid) {
            entry.pids.push(pid);
        }
    }
    for (inode, path) in mounted() {
        match room(&mut entries, inode) {
            Some(entry) => entry.paths.push(path),
            None => is_full = true,
        }
    }
    let mut found: Vec<_> = entries
        .into_iter()
        .map(|(inode, entry)| entry.found(inode, own))
        .collect();
    found.sort_by_key(|it| !it.namespace.is_own);
    Census {
        found,
        gaps: gaps(hidden, looked_at == PROCESSES, is_full),
    }
}

/// The entry of a namespace, made where there is room for one more.
fn room(entries: &mut BTreeMap<u64, Entry>, inode: u64) -> Option<&mut Entry> {
    if entries.len() >= NAMESPACES && !entries.contains_key(&inode) {
        return None;
    }
    Some(entries.entry(inode).or_default())
}

impl Entry {
    fn found(self, inode: u64, own: Option<u64>) -> Found {
        let mut named = HashSet::new();
        let processes = self.pids.iter().filter_map(|&pid| inhabitant(pid));
        let processes = processes.filter(|it| named.insert(it.command.clone()));
        Found {
            namespace: Namespace {
                netns: Some(inode),
                name: self.paths.first().map(|path| name(path)),
                is_own: Some(inode) == own,
                processes: processes.take(NAMED).collect(),
                processes_total: self.processes,
                option: format!("--netns {inode}"),
            },
            pids: self.pids,
            paths: self.paths,
        }
    }
}

/// The name that `ip netns` has for a mounted one, else its path.
fn name(path: &Path) -> String {
    let of_ip = |folder: &&str| path.parent() == Some(folder.as_ref());
    let file = path.file_name().filter(|_| NAMED_ONES.iter().any(of_ip));
    file.unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn gaps(hidden: u64, is_cut: bool, is_full: bool) -> Vec<Gap> {
    let gap = |why: String| Gap {
        what: "network namespaces of this machine".into(),
        why,
        weight: Weight::Decisive,
    };
    let mut gaps = Vec::new();
    if hidden > 0 {
        gaps.push(gap(format!(
            "{} may not be looked at {}, and may be in further ones",
            counted(hidden, "process"),
            if may_trace() {
                "though CAP_SYS_PTRACE is in force (a security policy guards them)"
            } else {
                "without CAP_SYS_PTRACE (use sudo)"
            }
        )));
    }
    if is_cut {
        gaps.push(gap(format!(
            "only {} processes were looked at",
            count(PROCESSES as u64)
        )));
    }
    if is_full {
        gaps.push(gap(format!("only {} are listed", count(NAMESPACES as u64))));
    }
    gaps
}

/// The network namespaces that are mounted somewhere, by their inodes; none where the list of mounts
/// cannot be read.
pub(super) fn mounted() -> Vec<(u64, PathBuf)> {
    let Ok(file) = File::open("/proc/thread-self/mountinfo") else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(MOUNTS)).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| mount_of_namespace(&line))
        .collect()
}

/// The inode and the place of a mounted network namespace: the fourth and fifth field of its line
/// (proc_pid_mountinfo(5)).
fn mount_of_namespace(line: &str) -> Option<(u64, PathBuf)> {
    let mut fields = line.split(' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    Some((numbered(root)?, unescaped(place)))
}

/// `net:[4026532008]`.
pub(super) fn numbered(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// A path without the octal escapes for blanks, tabs, line ends and backslashes (`mangle_path` in
/// fs/seq_file.c).
fn unescaped(place: &str) -> PathBuf {
    let mut path = place.to_owned();
    for (escape, letter) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        path = path.replace(escape, letter);
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_namespace_is_told_from_other_mounts() {
        for (line, found) in [
            (
                "91 29 0:4 net:[4026532008] /run/netns/web rw shared:53 - nsfs nsfs rw",
                Some((4_026_532_008, "/run/netns/web")),
            ),
            (
                "91 29 0:4 net:[4026532008] /run/netns/a\\040b\\134 rw - nsfs nsfs rw",
                Some((4_026_532_008, "/run/netns/a b\\")),
            ),
            ("91 29 0:4 mnt:[4026532008] /run/x rw - nsfs nsfs rw", None),
            ("29 1 254:0 / / rw,relatime - ext4 /dev/root rw", None),
            ("91 29 0:4 net:[x] /run/x", None),
            ("91 29 0:4", None),
            ("", None),
        ] {
            let found = found.map(|(inode, path)| (inode, PathBuf::from(path)));
            assert_eq!(mount_of_namespace(line), found, "{line}");
        }
        assert_eq!(name(Path::new("/run/netns/web")), "web");
        assert_eq!(
            name(Path::new("/run/docker/netns/1-x")),
            "/run/docker/netns/1-x"
        );
    }
}
