//! Where the picture of a run goes: it is there as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::beside::{beside, replace};
use crate::refusal::Refusal;
use crate::render::{self, Screen};
use crate::repro::Report;

/// Where the picture of a run goes.
#[derive(Debug)]
pub enum Picture {
    /// To standard output.
    Stdout,
    /// Into a pipe or a device, which take what comes. Open since before the run, so that the reader
    /// of a pipe waits for it.
    Stream(PathBuf, File),
    /// Into a file: written beside it, then given its name.
    Beside(PathBuf),
}

impl Picture {
    /// Finds out, before the run, whether a picture can be written to `path`; nothing is left there.
    ///
    /// # Errors
    /// When it cannot.
    pub fn at(path: &Path) -> Result<Self> {
        Self::find(path).map_err(|error| {
            Refusal::new(
                format!("--svg {}: {error}", path.display()),
                "name a file in a folder that this user may write",
            )
            .into()
        })
    }

    fn find(path: &Path) -> io::Result<Self> {
        let mut name = path.to_owned();
        if let Ok(old) = fs::metadata(path) {
            // What another descriptor of this process writes to has more than the picture in it.
            let is_shared = ["/dev/stderr", "/dev/fd", "/proc"]
                .iter()
                .any(|root| path.starts_with(root));
            // Whoever may not write a file may not replace it either.
            let stream = File::options().append(true).open(path)?;
            if is_shared || !old.is_file() {
                return Ok(Self::Stream(name, stream));
            }
            // A link stays one.
            name = fs::canonicalize(path)?;
        } else if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (_, trial) = beside(&name)?;
        fs::remove_file(trial)?;
        Ok(Self::Beside(name))
    }

    /// Draws `report`.
    ///
    /// # Errors
    /// When it cannot be drawn or written.
    pub fn draw(self, report: &Report) -> Result<()> {
        let mut picture = Vec::new();
        render::svg::repro(report, &mut picture)?;
        let (name, written) = match self {
            Self::Stdout => {
                let mut out = Screen::of_stdout().lock();
                let written = out.write_all(&picture).and_then(|()| out.flush());
                ("standard output".into(), written)
            }
            Self::Stream(name, mut stream) => {
                let written = match stream.write_all(&picture) {
                    // A reader that has gone has all it wanted.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    written => written,
                };
                (name, written)
            }
            Self::Beside(name) => {
                let written = replace(&name, &picture, |_| Ok(()));
                (name, written)
            }
        };
        written.map_err(|error| {
            Refusal::new(
                format!("writing {}: {error}", name.display()),
                "the report above is complete; name a file on a disk that has room",
            )
            .into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::commands::beside::names;

    #[test]
    fn nothing_is_left_where_a_picture_could_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.svg");
        assert!(matches!(Picture::find(&path), Ok(Picture::Beside(name)) if name == path));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_folder_and_what_is_in_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Picture::find(path).unwrap_err().kind();
        for path in [
            folder.path().to_owned(),
            folder.path().join("new/"),
            "..".into(),
        ] {
            assert_eq!(refused(&path), io::ErrorKind::IsADirectory, "{path:?}");
        }
        let nowhere = folder.path().join("nowhere/run.svg");
        assert_eq!(refused(&nowhere), io::ErrorKind::NotFound);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(refused(&file.join("run.svg")), io::ErrorKind::NotADirectory);
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_file_that_a_link_names_is_replaced_and_the_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        let Picture::Beside(name) = Picture::find(&link).unwrap() else {
            panic!("it is a file");
        };
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        replace(&name, b"new", |_| Ok(())).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(folder.path()), ["file", "link"]);
    }

    #[test]
    fn what_cannot_take_its_name_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"new", |_| Ok(())).is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn pipes_devices_and_shared_descriptors_take_what_comes() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut read = String::new();
                File::open(pipe).unwrap().read_to_string(&mut read).unwrap();
                read
            }
        });
        let Picture::Stream(_, mut stream) = Picture::find(&pipe).unwrap() else {
            panic!("it is a pipe");
        };
        stream.write_all(b"new").unwrap();
        drop(stream);
        assert_eq!(reader.join().unwrap(), "new");
        assert_eq!(names(folder.path()), ["pipe"]);
        for device in ["/dev/null", "/dev/stderr"] {
            let found = Picture::find(Path::new(device));
            assert!(matches!(found, Ok(Picture::Stream(..))), "{device}");
        }
    }
}
