//! The network namespaces of this machine: each once, whoever keeps it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
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

/// Mount namespaces whose lists are read, besides the own: each container has one.
const MOUNT_NAMESPACES: usize = 4_096;

/// The PID namespace in which every process of the machine is seen (`PROC_PID_INIT_INO` in
/// include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The user namespace whose rights hold for every process (`PROC_USER_INIT_INO` there).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

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
/// container engines keep them. What nothing but a thread, an open file or a socket keeps is not
/// found: looking for it takes every descriptor of the machine.
#[must_use]
pub fn census() -> Census {
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let own = own_netns();
    if let Some(own) = own {
        entries.entry(own).or_default();
    }
    let (mut hidden, mut looked_at, mut is_full) = (0_u64, 0, false);
    let mut mount_namespaces: HashSet<_> = mount_namespace("thread-self").into_iter().collect();
    let mut mounts = mounts_of("thread-self");
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
        let process = pid.to_string();
        if mount_namespaces.len() <= MOUNT_NAMESPACES
            && mount_namespace(&process).is_some_and(|it| mount_namespaces.insert(it))
            && let (Ok(mounts), Ok(more)) = (&mut mounts, mounts_of(&process))
        {
            mounts.namespaces.extend(more.namespaces);
        }
        let Some(entry) = room(&mut entries, inode) else {
            is_full = true;
            continue;
        };
        entry.processes += 1;
        if entry.pids.len() < KEPT && !is_of_kernel(pid) {
            entry.pids.push(pid);
        }
    }
    for (inode, path) in mounts.iter().flat_map(|it| &it.namespaces) {
        match room(&mut entries, *inode) {
            // What somebody else has mounted is no better a way in than a process.
            Some(entry) if !entry.pids.is_empty() && path.starts_with("/proc") => {}
            Some(entry) => entry.paths.push(path.clone()),
            None => is_full = true,
        }
    }
    let mut found: Vec<_> = entries
        .into_iter()
        .map(|(inode, entry)| entry.found(inode, own))
        .collect();
    found.sort_by_key(|it| !it.namespace.is_own);
    let mut gaps = gaps(hidden, looked_at == PROCESSES, is_full);
    let unseen = unseen_processes(&mounts).into_iter();
    gaps.extend(unseen.chain(unread_mounts(&mounts)).map(gap));
    Census { found, gaps }
}

/// Why there may be processes that /proc does not show here.
fn unseen_processes(mounts: &io::Result<Mounts>) -> Option<String> {
    let namespace = |kind| fs::metadata(format!("/proc/thread-self/ns/{kind}")).map(|it| it.ino());
    let own = namespace("pid");
    // Whoever may trace in a user namespace of his own may not outside it.
    let may_trace_all = may_trace() && namespace("user").ok() == Some(FIRST_USER_NAMESPACE);
    match (own, mounts.as_ref().ok().and_then(|it| it.hidden.as_ref())) {
        (Err(error), _) => Some(format!("/proc cannot be read: {error}")),
        (Ok(own), _) if own != FIRST_PID_NAMESPACE => Some(
            "this is a PID namespace of its own, as of a container, and processes outside it are \
             not seen (--pid=host, or hostPID of Kubernetes, shows them)"
                .into(),
        ),
        (_, Some(hidden)) if !may_trace_all => Some(format!(
            "/proc is mounted with {hidden} and shows this user its own processes alone (use sudo)"
        )),
        _ => None,
    }
}

fn unread_mounts(mounts: &io::Result<Mounts>) -> Option<String> {
    match mounts {
        Err(error) => Some(format!("/proc/self/mountinfo: {error}")),
        Ok(mounts) if mounts.is_cut => Some("not all mounts were looked at".into()),
        Ok(_) => None,
    }
}

/// The inode of a process's mount namespace.
fn mount_namespace(process: &str) -> Option<u64> {
    let namespace = fs::metadata(format!("/proc/{process}/ns/mnt"));
    namespace.ok().map(|it| it.ino())
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
                name: self.paths.first().and_then(|path| name(path)),
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

/// The name that `ip netns` has for a mounted one, else its path; `None` where it is no text.
fn name(path: &Path) -> Option<String> {
    let of_ip = |folder: &&str| path.parent() == Some(folder.as_ref());
    let file = path.file_name().filter(|_| NAMED_ONES.iter().any(of_ip));
    file.unwrap_or(path.as_os_str()).to_str().map(str::to_owned)
}

fn gap(why: String) -> Gap {
    Gap {
        what: "network namespaces of this machine".into(),
        why,
        weight: Weight::Decisive,
    }
}

fn gaps(hidden: u64, is_cut: bool, is_full: bool) -> Vec<Gap> {
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

/// What a list of mounts tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    /// The network namespaces that are mounted, by their inodes, and where.
    namespaces: Vec<(u64, PathBuf)>,
    /// The option by which /proc hides processes.
    hidden: Option<String>,
    /// Whether it goes on.
    is_cut: bool,
}

/// The network namespaces that are mounted here, by their inodes; none where the list of mounts
/// cannot be read.
pub(super) fn mounted() -> Vec<(u64, PathBuf)> {
    mounts_of("thread-self").unwrap_or_default().namespaces
}

/// What a process has mounted; the paths lead there from here.
fn mounts_of(process: &str) -> io::Result<Mounts> {
    let folder = format!("/proc/{process}");
    let mut reader = BufReader::new(File::open(format!("{folder}/mountinfo"))?.take(MOUNTS));
    let mut mounts = read_mounts(&mut reader)?;
    mounts.is_cut = reader.get_ref().limit() == 0;
    if process != "thread-self" {
        for (_, path) in &mut mounts.namespaces {
            let below = path.strip_prefix("/").unwrap_or(path);
            *path = Path::new(&folder).join("root").join(below);
        }
    }
    Ok(mounts)
}

fn read_mounts(reader: impl BufRead) -> io::Result<Mounts> {
    let mut mounts = Mounts::default();
    for line in reader.split(b'\n') {
        let line = line?;
        mounts.namespaces.extend(mount_of_namespace(&line));
        if let Some(options) = options_of_proc(&line) {
            mounts.hidden = hiding(options);
        }
    }
    Ok(mounts)
}

/// The inode and the place of a mounted network namespace: the fourth and fifth field of its line
/// (proc_pid_mountinfo(5)).
fn mount_of_namespace(line: &[u8]) -> Option<(u64, PathBuf)> {
    let mut fields = line.split(|&byte| byte == b' ').skip(3);
    let (root, place) = (fields.next()?, fields.next()?);
    let root = std::str::from_utf8(root).ok()?;
    Some((numbered(root)?, unescaped(place)))
}

/// The options of the file system, behind the hyphen, in the line of /proc itself.
fn options_of_proc(line: &[u8]) -> Option<&str> {
    let mut fields = line.split(|&byte| byte == b' ').skip(4);
    if fields.next()? != b"/proc" {
        return None;
    }
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, options) = (behind.next()?, behind.nth(1)?);
    (kind == b"proc").then(|| std::str::from_utf8(options).ok())?
}

/// `hidepid=invisible`, before Linux 5.8 `hidepid=2`, where it is in force.
fn hiding(options: &str) -> Option<String> {
    let option = options
        .split(',')
        .find(|option| option.starts_with("hidepid="))?;
    let is_off = ["hidepid=0", "hidepid=off"].contains(&option);
    (!is_off).then(|| option.to_owned())
}

/// `net:[4026532008]`.
pub(super) fn numbered(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// A path without the octal escapes for blanks, tabs, line ends and backslashes (`mangle_path` in
/// fs/seq_file.c).
fn unescaped(place: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(place.len());
    let mut rest = place;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind
            .first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            &behind[3..]
        } else {
            behind
        };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

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
            (
                "91 29 0:4 net:[7] /run/a\\134040b rw - nsfs nsfs rw",
                Some((7, "/run/a\\040b")),
            ),
        ] {
            let found = found.map(|(inode, path)| (inode, PathBuf::from(path)));
            assert_eq!(mount_of_namespace(line.as_bytes()), found, "{line}");
        }
        let named = |path: &[u8]| name(Path::new(OsStr::from_bytes(path)));
        assert_eq!(named(b"/run/netns/web").as_deref(), Some("web"));
        let of_docker = "/run/docker/netns/1-x";
        assert_eq!(named(of_docker.as_bytes()).as_deref(), Some(of_docker));
        assert_eq!(named(b"/run/netns/\xff"), None);
    }

    #[test]
    fn a_mount_that_is_no_text_hides_none_of_the_others() {
        let list = b"91 29 0:4 net:[7] /run/netns/\xff rw - nsfs nsfs rw\n\
                     92 29 0:4 net:[8] /run/netns/web rw - nsfs nsfs rw\n\
                     22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=invisible\n";
        let mounts = read_mounts(&list[..]).unwrap();
        let inodes: Vec<_> = mounts.namespaces.iter().map(|(inode, _)| *inode).collect();
        assert_eq!(inodes, [7, 8]);
        assert_eq!(mounts.hidden.as_deref(), Some("hidepid=invisible"));
    }

    #[test]
    fn what_hides_processes_is_told_by_the_options_of_proc() {
        for (line, hidden) in [
            (
                "22 27 0:21 / /proc rw shared:5 - proc proc rw,gid=7,hidepid=2",
                Some("hidepid=2"),
            ),
            ("22 27 0:21 / /proc rw - proc proc rw,hidepid=off", None),
            ("22 27 0:21 / /proc rw - proc proc rw", None),
            ("22 27 0:21 / /host/proc rw - proc proc rw,hidepid=2", None),
            ("22 27 0:21 / /proc rw - tmpfs none rw,hidepid=2", None),
        ] {
            let said = options_of_proc(line.as_bytes()).and_then(hiding);
            assert_eq!(said.as_deref(), hidden, "{line}");
        }
    }
}
