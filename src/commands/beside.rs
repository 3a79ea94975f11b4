//! Files that are there as a whole or not at all: written beside their place, then given their name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

/// Puts `content` at `path`, in place of what was there. Who may read it is the business of
/// `prepare`, before it has its name.
pub fn replace(
    path: &Path,
    content: &[u8],
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (mut file, name) = beside(path)?;
    let done = prepare(&file)
        .and_then(|()| file.write_all(content))
        .and_then(|()| fs::rename(&name, path));
    if done.is_err() {
        let _ = fs::remove_file(&name);
    }
    done
}

/// What a folder holds, sorted.
#[cfg(test)]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A new file in the folder of `path`; processes of other containers there may have this one's
/// number. No collector of files by their ending takes it for one.
pub fn beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let name = format!(".twcheck-{}-{}", process::id(), now.as_nanos());
    let name = path.with_file_name(name);
    Ok((File::create_new(&name)?, name))
}
