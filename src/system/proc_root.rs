use std::path::{Path, PathBuf};

/// Where procfs is mounted, or a recorded copy of it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcRoot {
    path: PathBuf,
    recorded: bool,
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/proc"),
            recorded: false,
        }
    }
}

impl ProcRoot {
    /// A recorded copy below `path`.
    pub fn recorded(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            recorded: true,
        }
    }

    /// What a process sees of its own network namespace.
    pub(super) fn of_process(pid: i32) -> Self {
        Self {
            path: format!("/proc/{pid}").into(),
            recorded: false,
        }
    }

    /// Whether it is a recorded copy.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// What it means that a file is not there: a recording tells nothing about the kernel that it
    /// does not hold.
    #[must_use]
    pub fn absence(&self) -> &'static str {
        if self.recorded {
            "missing from the recording"
        } else {
            "this kernel, or this container, does not show it"
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
        self.path.join("sys").join(key.replace('.', "/"))
    }
}
