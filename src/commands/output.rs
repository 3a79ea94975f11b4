//! Where a report goes that is no matter for a terminal: `--output FILE`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::beside;
use crate::refusal::Refusal;

/// For whoever collects it, which is another user, whatever the umask of a timer's service is.
const MODE: u32 = 0o644;

/// A file that takes a report as a whole, in place of the one before.
#[derive(Debug)]
pub struct Output {
    /// As the user named it.
    asked: PathBuf,
    /// What a link there leads to, which is what is replaced.
    path: PathBuf,
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
        Ok(Self {
            asked: path.to_owned(),
            path: match old {
                Some(_) => fs::canonicalize(path).map_err(|error| refused(path, &error))?,
                None => path.to_owned(),
            },
        })
    }

    /// Puts `report` there; it is seen as a whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays, and nothing else is left.
    pub fn write(self, report: &[u8]) -> Result<()> {
        let readable = |file: &fs::File| file.set_permissions(Permissions::from_mode(MODE));
        beside::replace(&self.path, report, readable)
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
