//! Looks into another network namespace of this machine: a thread enters it and looks from inside, so
//! that tables, settings, routes and trials are its own. Who may not enter it sees what /proc shows
//! of its processes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{panic, thread};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};

use super::census::{Found, NAMED_ONES, census, mounted, numbered};
use super::owners::{inhabitant, netns, own_netns};
use super::{Machine, SourceChoice, names, resolve};
use crate::model::{Destination, HostName, Namespace, Toward};
use crate::refusal::Refusal;
use crate::words::shell_word;

/// Which network namespace is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one of this process.
    OfProcess(i32),
    /// By its name, path or number.
    Named(PathBuf),
}

/// A network namespace, held open where it could be: so it stays while it is looked at.
#[derive(Debug)]
pub struct Door {
    /// What it is.
    pub namespace: Namespace,
    file: Option<File>,
    /// A process that shows its tables.
    pid: Option<i32>,
}

impl Door {
    /// Finds the namespace that is asked for.
    ///
    /// # Errors
    /// Where there is none: the error says what to look for.
    pub fn find(wanted: &Wanted) -> Result<Self> {
        let door = match wanted {
            Wanted::OfProcess(pid) => Self::of_process(*pid),
            Wanted::Named(name) => Self::named(name),
        }?;
        if let (Some(Err(Errno::EPERM)), Some(pid)) =
            (door.on_a_thread(|entered| entered)?, door.pid)
        {
            // Where that fails too, it is looked at from outside.
            let _ = become_root_of(pid);
        }
        Ok(door)
    }

    fn of_process(pid: i32) -> Result<Self> {
        let gone = |why: &str| {
            Refusal::new(
                format!("--pid {pid}: {why}"),
                "`ps -e` lists processes, `lsns -t net` one of each network namespace",
            )
        };
        let path = format!("/proc/{pid}");
        if !Path::new(&path).exists() {
            return Err(gone("there is no such process, or it is hidden from this user").into());
        }
        let file = match open(Path::new(&format!("{path}/ns/net"))) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(_) => return Err(gone("it has ended, and with it its network namespace").into()),
        };
        let inode = file.as_ref().and_then(inode);
        Ok(Self {
            namespace: Namespace {
                netns: inode,
                name: None,
                is_own: inode.is_some() && inode == own_netns(),
                processes: inhabitant(pid).into_iter().collect(),
                processes_total: 1,
                option: format!("--pid {pid}"),
            },
            file,
            pid: Some(pid),
        })
    }

    fn named(name: &Path) -> Result<Self> {
        let text = name.to_string_lossy();
        let is_path = text.contains('/');
        let places: Vec<_> = if is_path {
            vec![name.to_owned()]
        } else {
            NAMED_ONES
                .iter()
                .map(|it| Path::new(it).join(name))
                .collect()
        };
        for place in places {
            match open(&place) {
                Ok(file) => return Self::at(&text, file),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Refusal::new(
                        format!("--netns {text}: opening {}: {error}", place.display()),
                        "its file has to be one that this user may read",
                    )
                    .into());
                }
            }
        }
        let number = numbered(&text).or_else(|| text.parse().ok());
        let all = number.map(|_| census());
        let found = all
            .iter()
            .flat_map(|all| &all.found)
            .find(|found| found.namespace.netns == number);
        if let Some(door) = found.map(Self::open).transpose()?.flatten() {
            return Ok(door);
        }
        let unseen = all.iter().flat_map(|all| &all.gaps).next();
        let unseen = unseen.map_or_else(String::new, |gap| format!(" ({})", gap.why));
        Err(Refusal::new(
            format!("--netns {text}: there is no such network namespace{unseen}"),
            "`ip netns` lists names, `lsns -t net` numbers; a path is one such as \
             /run/docker/netns/ID",
        )
        .into())
    }

    /// The namespace behind a file that was asked for by `name`.
    fn at(name: &str, file: File) -> Result<Self> {
        let inode = inode(&file);
        let found = census().found.into_iter();
        let mut known = found.filter(|found| found.namespace.netns == inode);
        let (namespace, pid) = known.next().map_or_else(
            || (Namespace::default(), None),
            |found| (found.namespace, found.pids.first().copied()),
        );
        let door = Self {
            namespace: Namespace {
                netns: inode,
                name: Some(name.to_owned()),
                option: format!("--netns {}", shell_word(name)),
                ..namespace
            },
            file: Some(file),
            pid,
        };
        // The kernel looks at what it is before it asks who wants it.
        if let Some(Err(Errno::EINVAL)) = door.on_a_thread(|entered| entered)? {
            return Err(Refusal::new(
                format!("--netns {name}: it is no network namespace"),
                "`ip netns` lists names, `lsns -t net` numbers; a path is one such as \
                 /run/docker/netns/ID",
            )
            .into());
        }
        Ok(door)
    }

    /// Opens one that was found; `None` where it has ended meanwhile.
    ///
    /// # Errors
    /// Where it is there and cannot be opened.
    pub fn open(found: &Found) -> Result<Option<Self>> {
        let netns_of = |pid: &i32| netns(*pid).ok();
        let here = |pid: &&i32| netns_of(pid) == found.namespace.netns;
        let pid = found.pids.iter().find(here).copied();
        let own = found.namespace.is_own.then(|| "/proc/thread-self".into());
        let of_process = pid.map(|pid| format!("/proc/{pid}"));
        let mut places: Vec<_> = own
            .into_iter()
            .chain(of_process)
            .map(|process| Path::new(&process).join("ns/net"))
            .collect();
        places.extend(found.paths.iter().cloned());
        // A number or a name may belong to another one by now.
        let is_it = |file: &File| inode(file) == found.namespace.netns;
        let (mut file, mut refused) = (None, None);
        for opened in places.iter().map(|place| open(place)) {
            match opened {
                Ok(it) if file.is_none() && is_it(&it) => file = Some(it),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => refused = Some(error),
            }
        }
        if file.is_none() && pid.is_none() {
            let mounts = mounted();
            let is_mounted = |(inode, _): &(u64, PathBuf)| Some(*inode) == found.namespace.netns;
            if mounts.iter().any(is_mounted) {
                bail!("its mount cannot be opened, or is hidden behind another one");
            }
            if let Some(error) = refused {
                bail!("its mount cannot be opened: {error}");
            }
            return Ok(None);
        }
        Ok(Some(Self {
            namespace: found.namespace.clone(),
            file,
            pid,
        }))
    }

    /// Looks from inside, or from outside where this user may not enter.
    ///
    /// # Errors
    /// Where nothing can be seen of it, or not through `source`: the error names the capability.
    pub fn look<T: Send>(
        &self,
        source: SourceChoice,
        look: impl FnOnce(&Machine) -> T + Send,
    ) -> Result<T> {
        let refused = |why: String| {
            Refusal::new(
                format!("network namespace {}: {why}", self.namespace.title()),
                "use sudo, or a user with CAP_SYS_ADMIN in the user namespaces of both",
            )
        };
        self.on_a_thread(|entered| match (entered, self.pid) {
            (Some(Ok(())), _) => Ok(look(&Machine::live(source))),
            (Some(Err(errno)), _) if errno != Errno::EPERM => Err(refused(format!(
                "entering it (setns): {} (errno {})",
                errno.desc(),
                errno as i32
            ))
            .into()),
            _ if source == SourceChoice::SockDiag => Err(refused(
                "it may not be entered without CAP_SYS_ADMIN, and --source sock_diag asks from \
                 inside"
                    .into(),
            )
            .into()),
            (_, Some(pid)) => Ok(look(&Machine::of_process(pid))),
            (_, None) => Err(refused(
                "it may not be entered without CAP_SYS_ADMIN, and no process shows its tables"
                    .into(),
            )
            .into()),
        })?
    }

    /// Finds the addresses of `asked` as a program of this namespace finds them; from a thread that
    /// looks into it.
    ///
    /// # Errors
    /// As [`resolve()`].
    pub fn resolve(&self, asked: &Destination) -> Result<Toward> {
        let is_name = matches!(asked.host, Some(HostName::Name(_)));
        if !is_name || self.namespace.is_own {
            return resolve(asked);
        }
        in_thread(|| {
            let borrowed = self.lend_names();
            let found = resolve(asked);
            if borrowed {
                found
            } else {
                found.context("looking it up by this machine's own /etc/resolv.conf and /etc/hosts")
            }
        })?
    }

    /// Whether it is there still: one that is not held open ends with its processes.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.file.is_some() || self.is_inhabited()
    }

    /// Whether the process that was asked for is in it still; of one that was asked for otherwise
    /// nothing is known, and it is.
    #[must_use]
    pub fn has_its_process(&self) -> bool {
        let by_process = self.namespace.option.starts_with("--pid");
        !by_process || self.is_inhabited()
    }

    fn is_inhabited(&self) -> bool {
        self.pid
            .is_some_and(|pid| netns(pid).ok() == self.namespace.netns)
    }

    /// Lets the calling thread look names up as its programs do; whether it does.
    fn lend_names(&self) -> bool {
        let of_ip = self
            .namespace
            .name
            .as_ref()
            .map(|name| Path::new("etc/netns").join(name));
        let is_there = |folder: &PathBuf| Path::new("/").join(folder).is_dir();
        let lent = match (of_ip.filter(is_there), self.pid) {
            (Some(folder), _) => names::borrow(Path::new("/"), &folder),
            (None, Some(pid)) => {
                let root = format!("/proc/{pid}/root");
                names::borrow(Path::new(&root), Path::new("etc"))
            }
            (None, None) => return false,
        };
        lent.is_ok()
    }

    /// Runs `work` on a thread that has tried to enter; `None` where there is nothing to enter by.
    /// A thread of its own: before Linux 5.2 one that has read /proc/net goes on to see the tables
    /// of the namespace that it was in then (commit 1fde6f21d90f).
    fn on_a_thread<T: Send>(
        &self,
        work: impl FnOnce(Option<nix::Result<()>>) -> T + Send,
    ) -> Result<T> {
        in_thread(|| {
            // Nobody needs a right to be where he is.
            if self.namespace.is_own {
                return work(Some(Ok(())));
            }
            let file = self.file.as_ref();
            work(file.map(|file| setns(file, CloneFlags::CLONE_NEWNET)))
        })
    }
}

/// Runs `work` on a thread of its own.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .spawn_scoped(scope, work)
            .context("starting a thread that enters a network namespace")?;
        Ok(thread
            .join()
            .unwrap_or_else(|cause| panic::resume_unwind(cause)))
    })
}

/// Moves this process into the user namespace of `pid`, where its user made that one: in it he has
/// all rights, over its network namespaces too, as in a rootless container.
fn become_root_of(pid: i32) -> nix::Result<()> {
    /// A thread that was waited for may still be on its way out, and the kernel moves none that has
    /// company.
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(1);
    let namespace = open(Path::new(&format!("/proc/{pid}/ns/user"))).map_err(|_| Errno::EACCES)?;
    let mut moved = setns(&namespace, CloneFlags::CLONE_NEWUSER);
    for _ in 1..TRIES {
        if moved != Err(Errno::EINVAL) {
            break;
        }
        thread::sleep(PAUSE);
        moved = setns(&namespace, CloneFlags::CLONE_NEWUSER);
    }
    moved
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        // Else opening a pipe waits for somebody to write into it.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|namespace| namespace.ino())
}
