//! How files are read: with a bound on each, so that none takes the memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// More than any file holds that is read as a whole: the longest list of ports has 32,768 numbers
/// of up to five digits and a comma each, /proc/net/stat/nf_conntrack a line of 160 bytes a CPU.
pub const LONGEST: usize = 1024 * 1024;

/// What nearly every sysctl fits into. The kernel allocates and clears as much as it is asked for:
/// asking for [`LONGEST`] takes nine times as long.
const SHORT: usize = 4096;

/// Opens a file of /proc or of a recorded copy. Only a regular file is one: a pipe in a recording
/// would never answer, a device never end.
///
/// # Errors
/// Whatever open() says; and where it is no regular file, which one names.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        // Else opening a pipe waits for somebody to write into it.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

/// The text of a file of /proc/net or of a recorded copy.
///
/// # Errors
/// Whatever read() says; and where it is longer than [`LONGEST`] or no text.
pub fn text(file: File) -> io::Result<String> {
    as_text(bounded(file)?)
}

/// The text of a file that the user named, which may be a pipe: `--password-file <(pass show db)`.
///
/// # Errors
/// As [`text`].
pub fn named_by_user(path: &Path) -> io::Result<String> {
    as_text(bytes_named_by_user(path)?)
}

/// The same, where it need not be text as a whole.
///
/// # Errors
/// Whatever open() or read() say; and where it is longer than [`LONGEST`].
pub fn bytes_named_by_user(path: &Path) -> io::Result<Vec<u8>> {
    bounded(File::open(path)?)
}

/// The text of a file of /proc/sys, by one read(). Some sysctls answer no second one:
/// `proc_do_large_bitmap` (kernel/sysctl.c) gives as much as was asked for and then nothing, so
/// that whoever begins with a small read is told a part, and nothing tells.
///
/// # Errors
/// As [`text`].
pub fn in_one_read(open: impl Fn() -> io::Result<File>) -> io::Result<String> {
    for size in [SHORT, LONGEST] {
        let mut bytes = vec![0; size];
        let read = one_read(&mut open()?, &mut bytes)?;
        // A value that fills the buffer may go on behind it.
        if read < size {
            bytes.truncate(read);
            return as_text(bytes);
        }
    }
    Err(too_long())
}

/// Reads a line into `line` in place of what it held, of one that is longer than `longest` its
/// beginning; how many bytes, none at the end.
///
/// # Errors
/// Whatever read() says.
pub fn line(reader: &mut impl BufRead, longest: u64, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    reader.by_ref().take(longest).read_until(b'\n', line)
}

fn one_read(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// All that a file holds.
///
/// # Errors
/// Whatever read() says; and where it is longer than [`LONGEST`].
pub fn bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SHORT); // Else it begins with reads of 32 bytes.
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(too_long());
    }
    Ok(bytes)
}

fn as_text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text"))
}

fn too_long() -> io::Error {
    io::Error::other("it is longer than 1 MiB, and no such file is")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    type Reader = fn(&Path) -> io::Result<String>;
    const READERS: [Reader; 3] = [
        |path| text(open(path)?),
        named_by_user,
        |path| in_one_read(|| open(path)),
    ];

    #[test]
    fn what_fits_is_read_whole_and_what_does_not_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (length, fits) in [
            (0, true),
            (SHORT - 1, true),
            (SHORT, true),
            (SHORT + 1, true),
            (LONGEST - 1, true),
            (LONGEST + 1, false),
        ] {
            std::fs::write(&path, "7".repeat(length)).unwrap();
            for read in READERS {
                let read = read(&path).map(|text| text.len());
                assert_eq!(read.ok(), fits.then_some(length), "{length}");
            }
        }
    }

    #[test]
    fn a_sparse_file_of_a_terabyte_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        for read in READERS {
            assert!(read(&path).unwrap_err().to_string().contains("1 MiB"));
        }
    }

    #[test]
    fn a_pipe_in_a_recording_is_refused_at_once_and_so_is_a_device_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let start = Instant::now();
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            for read in [READERS[0], READERS[2]] {
                let error = read(path).unwrap_err().to_string();
                assert_eq!(error, "it is not a regular file", "{}", path.display());
            }
        }
        assert!(start.elapsed().as_secs() < 5);
        assert!(named_by_user(Path::new("/dev/zero")).is_err());
    }
}
