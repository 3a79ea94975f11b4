//! Files of a recording that lie in no folder: in memory, so that nothing is written anywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::system::file;

/// More than the tables of a million sockets take.
const MOST: u64 = 1 << 30;

/// Files by their paths below /proc.
#[derive(Debug, Default)]
pub struct Archive {
    files: BTreeMap<PathBuf, File>,
    size: u64,
}

impl Archive {
    /// Keeps what `from` holds as the file at `path`; how long it is.
    ///
    /// # Errors
    /// Whatever `from` says; and where all files together are longer than any recording.
    pub fn keep(&mut self, path: &Path, from: &mut impl Read) -> io::Result<u64> {
        let file = memfd_create(c"twcheck", MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(file);
        let left = MOST - self.size;
        let length = io::copy(&mut from.take(left + 1), &mut file)?;
        if length > left {
            return Err(io::Error::other(
                "its files are longer than 1 GiB, and those of no machine are",
            ));
        }
        file.flush()?;
        self.size += length;
        self.files.insert(path.to_owned(), file);
        Ok(length)
    }

    /// Opens the file at `path` for another reader; `None` where there is none.
    pub fn open(&self, path: &Path) -> Option<io::Result<File>> {
        let file = self.files.get(path)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Some(file::open(Path::new(&path)))
    }

    /// Whether there is a file at `path`.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
}
