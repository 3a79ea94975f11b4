//! Reads a log from standard input, block by block.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result};
use memchr::memrchr;

/// Read at once.
const BLOCK: usize = 256 << 10;

/// Kept of what was read before: a message may begin there.
const KEPT: usize = 16 << 10;

/// A line that is longer is taken in pieces.
const LONGEST: usize = 1 << 20;

/// Whether standard input is a terminal, where nobody has piped anything.
#[must_use]
pub fn is_typed() -> bool {
    io::stdin().is_terminal()
}

/// Whether `text` is the path of a file.
#[must_use]
pub fn is_file(text: &str) -> bool {
    fs::metadata(Path::new(text)).is_ok_and(|found| found.is_file())
}

/// Hands standard input on in whole lines, some of those before them, and how many bytes these are.
///
/// # Errors
/// When it cannot be read.
pub fn read_standard_input(each: impl FnMut(&[u8], usize)) -> Result<()> {
    read(io::stdin().lock(), each).context("standard input cannot be read")
}

fn read(mut input: impl Read, mut each: impl FnMut(&[u8], usize)) -> io::Result<()> {
    let mut buffer = vec![0; KEPT + LONGEST + BLOCK];
    // What was handed on, and what was read.
    let (mut known, mut filled) = (0, 0);
    loop {
        let length = match input.read(&mut buffer[filled..filled + BLOCK]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if length == 0 {
            if filled > known {
                each(&buffer[..filled], known);
            }
            return Ok(());
        }
        let fresh = filled;
        filled += length;
        let whole = match memrchr(b'\n', &buffer[fresh..filled]) {
            Some(end) => fresh + end + 1,
            None if filled - known >= LONGEST => filled,
            None => continue,
        };
        each(&buffer[..whole], known);
        let start = whole.saturating_sub(KEPT);
        buffer.copy_within(start..filled, 0);
        (known, filled) = (whole - start, filled - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out a text in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn handed_on(text: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut all, mut longest) = (Vec::new(), 0);
        read(Pieces(text, piece), |text, known| {
            let before = &text[..known];
            assert!(all.ends_with(before), "what was known comes before");
            all.extend_from_slice(&text[known..]);
            longest = longest.max(text.len() - known);
        })
        .unwrap();
        (all, longest)
    }

    #[test]
    fn every_byte_is_handed_on_once_in_whole_lines() {
        let text: Vec<u8> = (0..40_000)
            .flat_map(|line| format!("line {line}\n").into_bytes())
            .collect();
        for piece in [1_000, 4_096, BLOCK, usize::MAX] {
            assert_eq!(handed_on(&text, piece).0, text);
        }
        assert_eq!(handed_on(b"no end", 1).0, b"no end");
        assert_eq!(handed_on(b"", 1).0, b"");
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let text = vec![b'x'; 5 * LONGEST];
        let (all, longest) = handed_on(&text, usize::MAX);
        assert_eq!(all.len(), text.len());
        assert!(longest <= LONGEST + BLOCK, "{longest}");
    }
}
