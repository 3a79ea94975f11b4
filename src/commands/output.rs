//! Where a report goes that is no matter for a terminal: `--output FILE`.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::beside;
use crate::refusal::Refusal;

/// Of a new file: whoever collects it is another user, whatever the umask of a timer's service is.
const MODE: u32 = 0o644;

/// A file that takes a report as a whole, in place of the one before.
#[derive(Debug)]
pub struct Output {
    /// As the user named it.
    asked: PathBuf,
    /// What a link there leads to, which is what is replaced.
    path: PathBuf,
    /// What is there already: who may read it, may read what takes its place.
    old: Option<Metadata>,
}

impl Output {
    /// Finds out, before the look, whether `path` can be such a file.
    ///
    /// # Errors
    /// When it is something else.
    pub fn at(path: &Path) -> Result<Self> {
        let name = path.display();
        let ends = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let old = fs::metadata(path).ok();
        if ends || old.as_ref().is_some_and(fs::Metadata::is_dir) {
            let folder = name.to_string();
            let folder = folder.trim_end_matches('/');
            return Err(Refusal::new(
                format!("--output {name} is a folder, and a report is a file in one"),
                format!("--output {folder}/twcheck.prom"),
            )
            .into());
        }
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Err(Refusal::new(
                format!("--output {name} is no regular file, and cannot be replaced as a whole"),
                format!("leave --output out, and send standard output there: > {name}"),
            )
            .into());
        }
        if old.is_none()
            && let Ok(target) = fs::read_link(path)
        {
            return Err(Refusal::new(
                format!(
                    "--output {name} is a link to {}, which is not there",
                    target.display()
                ),
                "name the file itself, or remove the link",
            )
            .into());
        }
        Ok(Self {
            asked: path.to_owned(),
            path: match old {
                Some(_) => fs::canonicalize(path).map_err(|error| refused(path, &error))?,
                None => path.to_owned(),
            },
            old,
        })
    }

    /// Puts `report` there; it is seen as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays, and nothing else is left.
    pub fn write(self, report: &[u8]) -> Result<()> {
        let mode = self.old.as_ref().map_or(MODE, |old| old.mode() & 0o777);
        let prepare = |file: &fs::File| {
            if let Some(old) = &self.old {
                // Only root may give it away; whose it is then, the mode says who may read it.
                let _ = fchown(file, Some(old.uid()), Some(old.gid()));
            }
            file.set_permissions(Permissions::from_mode(mode))
        };
        beside::replace(&self.path, report, prepare)
            .map_err(|error| refused(&self.asked, &error).into())
    }
}

fn refused(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        format!("--output {}: {error}", path.display()),
        "name a file in a folder that is there, has room, and that this user may write",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::commands::beside::names;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_everybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twcheck.prom");
        for report in ["one", "another"] {
            Output::at(&path).unwrap().write(report.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), report);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o644);
        }
        assert_eq!(names(folder.path()), ["twcheck.prom"]);
    }

    #[test]
    fn who_has_the_old_file_open_still_reads_the_old_one() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twcheck.prom");
        fs::write(&path, "old and longer").unwrap();
        let mut open = fs::File::open(&path).unwrap();
        Output::at(&path).unwrap().write(b"new").unwrap();
        let mut read = String::new();
        open.read_to_string(&mut read).unwrap();
        assert_eq!(read, "old and longer");
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        Output::at(&link).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["file", "link"]);
    }

    #[test]
    fn who_may_read_the_old_file_may_read_the_new_one_and_a_link_to_nothing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for mode in [0o600, 0o640, 0o666, 0o444] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Output::at(&path).unwrap().write(b"new").unwrap();
            let new = fs::metadata(&path).unwrap();
            assert_eq!(new.permissions().mode() & 0o7777, mode);
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            fs::remove_file(&path).unwrap();
        }
        let link = folder.path().join("link");
        symlink("nowhere", &link).unwrap();
        let error = Output::at(&link).unwrap_err();
        let said = error.downcast::<Refusal>().unwrap().to_string();
        assert!(
            said.ends_with("is a link to nowhere, which is not there"),
            "{said}"
        );
        assert_eq!(names(folder.path()), ["link"]);
    }

    #[test]
    fn what_is_no_file_is_refused_with_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let hint = |path: &str| {
            let error = Output::at(Path::new(path)).unwrap_err();
            error.downcast::<Refusal>().unwrap().hint().to_owned()
        };
        let name = folder.path().display();
        let inside = format!("--output {name}/twcheck.prom");
        assert_eq!(hint(&name.to_string()), inside);
        assert_eq!(hint(&format!("{name}/")), inside);
        let inside = format!("--output {name}/new/twcheck.prom");
        assert_eq!(hint(&format!("{name}/new/")), inside);
        for path in [pipe.to_str().unwrap(), "/dev/null"] {
            let said = format!("leave --output out, and send standard output there: > {path}");
            assert_eq!(hint(path), said);
        }
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twcheck.prom");
        let output = Output::at(&path).unwrap();
        // Somebody makes a folder of that name meanwhile.
        fs::create_dir(&path).unwrap();
        assert!(output.write(b"new").is_err());
        let nowhere = folder.path().join("nowhere/twcheck.prom");
        assert!(Output::at(&nowhere).unwrap().write(b"new").is_err());
        assert_eq!(names(folder.path()), ["twcheck.prom"]);
    }
}
