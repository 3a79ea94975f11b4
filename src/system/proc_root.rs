use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file;
use super::recording::Archive;

/// Where procfs is mounted, or a recorded copy of it lies.
#[derive(Debug, Clone)]
pub struct ProcRoot {
    path: PathBuf,
    kind: Kind,
    /// Files that lie in no folder, by their paths below `path`.
    archive: Option<Arc<Archive>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The calling thread's view.
    Own,
    /// A process's view of its network namespace, seen from another one.
    OfProcess(i32),
    /// A copy, in a folder.
    Recorded,
    /// A copy of which nothing but the archive is left.
    Archived,
    /// What ss or netstat printed, which is no copy.
    Text,
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/proc"),
            kind: Kind::Own,
            archive: None,
        }
    }
}

impl ProcRoot {
    /// A recorded copy below `path`.
    pub fn recorded(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            kind: Kind::Recorded,
            archive: None,
        }
    }

    /// A copy below `path` of which further files are in `archive`, or all of them.
    pub(super) fn archived(path: PathBuf, archive: Archive, is_all: bool) -> Self {
        Self {
            path,
            kind: if is_all {
                Kind::Archived
            } else {
                Kind::Recorded
            },
            archive: Some(Arc::new(archive)),
        }
    }

    /// What was printed into the file at `path`, and settings beside it.
    pub(super) fn printed(path: PathBuf, settings: Archive) -> Self {
        Self {
            path,
            kind: Kind::Text,
            archive: Some(Arc::new(settings)),
        }
    }

    /// Whether it may hold socket tables: what ss or netstat printed is none.
    pub(super) fn has_tables(&self) -> bool {
        self.kind != Kind::Text
    }

    /// Opens a file below the root.
    ///
    /// # Errors
    /// As [`file::open`].
    pub fn open(&self, path: &Path) -> io::Result<File> {
        if let Some(archive) = &self.archive
            && let Ok(path) = path.strip_prefix(&self.path)
            && let Some(file) = archive.open(path)
        {
            return file;
        }
        if matches!(self.kind, Kind::Archived | Kind::Text) {
            return Err(io::ErrorKind::NotFound.into());
        }
        file::open(path)
    }

    /// What a process sees of its own network namespace: its tables, not its settings.
    pub(super) fn of_process(pid: i32) -> Self {
        Self {
            path: format!("/proc/{pid}").into(),
            kind: Kind::OfProcess(pid),
            archive: None,
        }
    }

    /// Whether it is a recorded copy.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        !matches!(self.kind, Kind::Own | Kind::OfProcess(_))
    }

    /// Whether it is the calling thread's own network namespace, so that the kernel can be asked
    /// about it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.kind == Kind::Own
    }

    /// The process whose network namespace is looked at from another one.
    #[must_use]
    pub fn process(&self) -> Option<i32> {
        match self.kind {
            Kind::OfProcess(pid) => Some(pid),
            _ => None,
        }
    }

    /// What it means that a file is not there: a recording tells nothing about the kernel that it
    /// does not hold.
    #[must_use]
    pub fn absence(&self) -> &'static str {
        match self.kind {
            Kind::Recorded | Kind::Archived => "missing from the recording",
            Kind::Text => {
                "not told by ss or netstat; lines of `sysctl -a` in the same file tell settings"
            }
            Kind::OfProcess(_) => "told only to who enters the namespace (CAP_SYS_ADMIN)",
            Kind::Own => "this kernel, or this container, does not show it",
        }
    }

    /// A file below the root.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// A file of `net/`, in the calling thread's network namespace: `/proc/net` is the main
    /// thread's, whatever namespace a worker has entered. A recorded copy has `net/` only.
    #[must_use]
    pub fn net(&self, name: &str) -> PathBuf {
        let of_thread = self.path.join("thread-self/net");
        if of_thread.is_dir() {
            of_thread.join(name)
        } else {
            self.path.join("net").join(name)
        }
    }

    /// The file of a sysctl named with dots.
    #[must_use]
    pub fn sysctl(&self, key: &str) -> PathBuf {
        let path = Path::new("sys").join(key.replace('.', "/"));
        // A process has no such folder of its own, and only those of net are its namespace's.
        if self.process().is_some() && !key.starts_with("net.") {
            return Path::new("/proc").join(path);
        }
        self.path.join(path)
    }
}
