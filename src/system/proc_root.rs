use std::path::{Path, PathBuf};

/// Where procfs is mounted, or a recorded copy of it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcRoot(PathBuf);

impl Default for ProcRoot {
    fn default() -> Self {
        Self(PathBuf::from("/proc"))
    }
}

impl ProcRoot {
    /// A recorded copy below `path`.
    pub fn recorded(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// A file below the root.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// A file of `net/`, in the calling thread's network namespace: `/proc/net` is the main
    /// thread's, whatever namespace a worker has entered. A recorded copy has `net/` only.
    #[must_use]
    pub fn net(&self, name: &str) -> PathBuf {
        let of_thread = self.0.join("thread-self/net");
        if of_thread.is_dir() {
            of_thread.join(name)
        } else {
            self.0.join("net").join(name)
        }
    }

    /// The file of a sysctl named with dots.
    #[must_use]
    pub fn sysctl(&self, key: &str) -> PathBuf {
        self.0.join("sys").join(key.replace('.', "/"))
    }
}
