//! What /proc tells about one process.

use std::ffi::OsStr;
use std::fs::{self, File, ReadDir};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use procfs::process::{LimitValue, Process, Status};
use procfs::{FromBufRead, ProcessCGroups};

use crate::model::{Inhabitant, Owner};
use crate::system::file;

/// The processes there are.
pub(in crate::system) fn all() -> impl Iterator<Item = i32> {
    let numbers = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let folder = fs::read_dir("/proc").into_iter();
    folder.flatten().flatten().filter_map(numbers)
}

/// A socket as a process names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub pid: i32,
    pub descriptor: i32,
    pub inode: u32,
}

impl Held {
    pub(super) fn path(self) -> PathBuf {
        descriptor(self.pid, self.descriptor)
    }

    /// Whether the descriptor still names it.
    pub(super) fn is_there(self) -> bool {
        socket_at(&self.path()) == Some(self.inode)
    }
}

/// The path of a descriptor.
pub(super) fn descriptor(pid: i32, number: i32) -> PathBuf {
    format!("/proc/{pid}/fd/{number}").into()
}

/// What a process has open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Its sockets.
    pub sockets: Vec<Held>,
    /// The descriptor that its next socket will have.
    pub lowest_free: i32,
}

/// Why a process tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silent {
    /// It is not for this user.
    Denied,
    /// It has ended meanwhile, or is about to.
    Gone,
}

impl From<io::Error> for Silent {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Gone,
        }
    }
}

/// What a process has open.
pub(super) fn descriptors(pid: i32) -> Result<Descriptors, Silent> {
    let folder: ReadDir = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let (mut numbers, mut sockets) = (Vec::new(), Vec::new());
    // To a peer of the same user with fewer capabilities each link is refused, not the folder.
    let mut refused = 0;
    for entry in folder {
        let entry = entry?;
        let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        numbers.push(number);
        match fs::read_link(entry.path()) {
            Ok(target) => sockets.extend(socket_inode(target.as_os_str()).map(|inode| Held {
                pid,
                descriptor: number,
                inode,
            })),
            Err(error) => refused += usize::from(Silent::from(error) == Silent::Denied),
        }
    }
    if refused > 0 && refused == numbers.len() {
        return Err(Silent::Denied);
    }
    Ok(Descriptors {
        sockets,
        lowest_free: lowest_free(&mut numbers),
    })
}

fn lowest_free(numbers: &mut [i32]) -> i32 {
    numbers.sort_unstable();
    let free = |(place, number): &(i32, i32)| place != number;
    let mut pairs = (0..).zip(numbers.iter().copied());
    let first = pairs.find(free).map(|(place, _)| place);
    first.unwrap_or_else(|| i32::try_from(numbers.len()).unwrap_or(i32::MAX))
}

/// The socket that a descriptor names; `None` where it names something else or nothing.
pub(super) fn socket_at(descriptor: &Path) -> Option<u32> {
    socket_inode(fs::read_link(descriptor).ok()?.as_os_str())
}

/// `socket:[24128]`.
fn socket_inode(target: &OsStr) -> Option<u32> {
    let target = target.as_bytes().strip_prefix(b"socket:[")?;
    std::str::from_utf8(target.strip_suffix(b"]")?)
        .ok()?
        .parse()
        .ok()
}

/// Whether a descriptor names a TCP socket, wherever it is: each socket tells its protocol's name
/// (`sockfs_xattr_get` in net/socket.c).
pub(super) fn is_tcp(descriptor: &Path) -> bool {
    let mut name = [0; 16];
    rustix::fs::getxattr(descriptor, "system.sockprotoname", &mut name)
        .is_ok_and(|length| matches!(&name[..length], b"TCP\0" | b"TCPv6\0"))
}

/// The inode of its network namespace.
pub(in crate::system) fn netns(pid: i32) -> io::Result<u64> {
    let namespace = fs::metadata(format!("/proc/{pid}/ns/net"))?;
    Ok(namespace.ino())
}

/// The inode of the calling thread's network namespace.
pub(in crate::system) fn own_netns() -> Option<u64> {
    let namespace = fs::metadata("/proc/thread-self/ns/net");
    namespace.ok().map(|namespace| namespace.ino())
}

/// Whom a process that tells nothing belongs to; `None` for one of the kernel's own threads, which
/// have nothing open, and where it has ended.
pub(in crate::system) fn user_of(pid: i32) -> Option<u32> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let process = Process::new(pid).ok()?;
    let flags = process.stat().ok()?.flags;
    (flags & PF_KTHREAD == 0).then(|| status(pid).map(|status| status.euid))?
}

fn read(pid: i32, name: &str) -> Option<Vec<u8>> {
    file::bounded(File::open(format!("/proc/{pid}/{name}")).ok()?).ok()
}

/// What `/proc/PID/status` tells, whose first line is a name in whatever bytes the process chose.
fn status(pid: i32) -> Option<Status> {
    let bytes = read(pid, "status")?;
    Status::from_buf_read(String::from_utf8_lossy(&bytes).as_bytes()).ok()
}

/// What a process is called; what is no UTF-8 in it, as the half of a letter at its end, is `\u{fffd}`.
pub(in crate::system) fn command(pid: i32) -> Option<String> {
    let bytes = read(pid, "comm")?;
    let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Who a process is; what cannot be read any more is `?`.
pub(super) fn describe(pid: i32) -> Owner {
    let process = Process::new(pid).ok();
    let process = process.as_ref();
    let limits = process.and_then(|process| process.limits().ok());
    let open = process.and_then(|process| process.fd_count().ok());
    Owner {
        pid,
        command: command(pid).unwrap_or_else(|| "?".into()),
        user: status(pid).map_or_else(|| "?".into(), |status| user_name(status.euid)),
        unit: process
            .and_then(|process| process.cgroups().ok())
            .and_then(|cgroups| unit(&cgroups)),
        sockets: 0,
        open_files: open.map(|open| open as u64),
        open_files_limit: limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        }),
    }
}

/// What a process is called and where it belongs; `None` where it has ended.
pub(in crate::system) fn inhabitant(pid: i32) -> Option<Inhabitant> {
    let process = Process::new(pid).ok()?;
    Some(Inhabitant {
        pid,
        command: command(pid)?,
        unit: process.cgroups().ok().as_ref().and_then(unit),
    })
}

/// A user's name, or the number where it has none.
pub(super) fn user_name(uid: u32) -> String {
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
    fn the_next_descriptor_is_the_lowest_that_is_free() {
        for (numbers, free) in [
            (&mut [][..], 0),
            (&mut [0, 1, 2], 3),
            (&mut [2, 0, 5, 1], 3),
            (&mut [1, 2], 0),
        ] {
            assert_eq!(lowest_free(numbers), free, "{numbers:?}");
        }
    }

    #[test]
    fn only_a_link_to_a_socket_names_one() {
        for (target, inode) in [
            ("socket:[24128]", Some(24128)),
            ("socket:[4294967296]", None),
            ("socket:[]", None),
            ("socket:[1", None),
            ("pipe:[7]", None),
            ("/srv/socket:[7]", None),
            ("", None),
        ] {
            assert_eq!(socket_inode(OsStr::new(target)), inode, "{target}");
        }
    }

    /// The kernel is the judge.
    #[test]
    fn a_socket_tells_its_protocol_before_it_has_a_port() {
        use nix::sys::socket::{AddressFamily::*, SockFlag, SockType::*, socket};
        use std::os::fd::AsRawFd;
        let own = i32::try_from(std::process::id()).unwrap();
        for (family, kind, tcp) in [
            (Inet, Stream, true),
            (Inet6, Stream, true),
            (Inet, Datagram, false),
            (Unix, Stream, false),
        ] {
            let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let path = descriptor(own, socket.as_raw_fd());
            assert!(socket_at(&path).is_some(), "{family:?} {kind:?}");
            assert_eq!(is_tcp(&path), tcp, "{family:?} {kind:?}");
        }
        assert!(!is_tcp(Path::new("/proc/self/fd/0")));
    }

    #[test]
    fn a_name_that_ends_within_a_letter_hides_nothing() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = fs::read("/proc/self/comm").unwrap();
        fs::write("/proc/self/comm", b"caf\xc3").unwrap();
        let (owner, inhabitant, user) = (describe(own), inhabitant(own), user_of(own));
        fs::write("/proc/self/comm", before.trim_ascii_end()).unwrap();
        assert_eq!(owner.command, "caf\u{fffd}");
        assert_eq!(inhabitant.map(|it| it.command), Some(owner.command));
        assert_eq!(user, Some(nix::unistd::geteuid().as_raw()));
        assert_ne!(owner.user, "?");
    }

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
