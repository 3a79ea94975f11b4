//! Reads a log from standard input, block by block.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use memchr::memrchr;

use crate::refusal::Refusal;

/// Read at once.
const BLOCK: usize = 256 << 10;

/// Kept of what was read before: a message may begin there.
const KEPT: usize = 16 << 10;

/// What must have come behind a line before it is handed on: a message may go on there.
const AHEAD: usize = 8 << 10;

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

/// Hands standard input on piece by piece: `each` takes a text and the part of it that is new and whole
/// lines. What stands before was handed on, and what stands behind will be.
///
/// # Errors
/// When it cannot be read, or is no text.
pub fn read_standard_input(each: impl FnMut(&[u8], Range<usize>)) -> Result<()> {
    let mut input = io::stdin().lock();
    let mut head = [0; 512];
    let length = fill(&mut input, &mut head).context("standard input cannot be read")?;
    let (head, encoding) = Encoding::of(&head[..length])?;
    let input = io::Cursor::new(head).chain(input);
    match encoding {
        Encoding::Bytes => read(input, each),
        Encoding::Utf16 { is_big } => read(Utf16::new(input, is_big), each),
    }
    .context("standard input cannot be read")
}

/// How letters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// In UTF-8 and its relatives.
    Bytes,
    /// In pairs of bytes, as Windows does.
    Utf16 { is_big: bool },
}

impl Encoding {
    /// That of a text with this beginning, and the beginning without its mark.
    fn of(head: &[u8]) -> Result<(&[u8], Self), Refusal> {
        let packed: [(&[u8], &str, &str); 6] = [
            (b"\x1f\x8b", "gzip", "zcat FILE | twcheck explain"),
            (
                b"\x28\xb5\x2f\xfd",
                "zstd",
                "zstdcat FILE | twcheck explain",
            ),
            (b"\xfd7zXZ\0", "xz", "xzcat FILE | twcheck explain"),
            (b"BZh", "bzip2", "bzcat FILE | twcheck explain"),
            (b"PK\x03\x04", "zip", "unzip -p FILE | twcheck explain"),
            (
                b"LPKSHHRH",
                "the journal's own format",
                "journalctl --file FILE | twcheck explain",
            ),
        ];
        if let Some((_, what, instead)) = packed.iter().find(|(magic, ..)| head.starts_with(magic))
        {
            return Err(Refusal::new(
                format!("standard input is {what}, and no text"),
                *instead,
            ));
        }
        if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
            return Err(Refusal::new(
                "standard input is UTF-32, and UTF-8 and UTF-16 are read",
                "iconv -f UTF-32 -t UTF-8 FILE | twcheck explain",
            ));
        }
        for (mark, encoding) in [
            (&b"\xef\xbb\xbf"[..], Self::Bytes),
            (b"\xff\xfe", Self::Utf16 { is_big: false }),
            (b"\xfe\xff", Self::Utf16 { is_big: true }),
        ] {
            if let Some(rest) = head.strip_prefix(mark) {
                return Ok((rest, encoding));
            }
        }
        // Without a mark: every other byte of what is mostly ASCII is zero.
        let zeros = |first: usize| {
            let bytes = head.iter().skip(first).step_by(2);
            head.len() >= 8 && bytes.filter(|byte| **byte == 0).count() * 10 >= head.len() / 2 * 8
        };
        let encoding = match (zeros(0), zeros(1)) {
            (true, false) => Self::Utf16 { is_big: true },
            (false, true) => Self::Utf16 { is_big: false },
            _ => Self::Bytes,
        };
        Ok((head, encoding))
    }
}

/// Reads until `buffer` is full or nothing more comes, and says how much came.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Gives out UTF-16 as UTF-8.
struct Utf16<R> {
    input: R,
    is_big: bool,
    /// What was decoded and not given out yet, and from where on.
    text: String,
    given: usize,
    /// The half of a letter that goes on in the next piece.
    high: Option<u16>,
}

impl<R: Read> Utf16<R> {
    fn new(input: R, is_big: bool) -> Self {
        Self {
            input,
            is_big,
            text: String::new(),
            given: 0,
            high: None,
        }
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.text.len() {
            let mut bytes = [0; 16 << 10];
            let length = fill(&mut self.input, &mut bytes)?;
            if length == 0 && self.high.is_none() {
                return Ok(0);
            }
            let unit = |pair: &[u8]| match (pair, self.is_big) {
                (&[high, low], true) => u16::from_be_bytes([high, low]),
                (&[low, high], false) => u16::from_le_bytes([low, high]),
                _ => 0xfffd,
            };
            let mut units: Vec<_> = self.high.take().into_iter().collect();
            units.extend(bytes[..length].chunks(2).map(unit));
            let is_high = |unit: &u16| (0xd800..0xdc00).contains(unit);
            if length > 0 {
                self.high = units.pop_if(|unit| is_high(unit));
            }
            (self.text, self.given) = (String::from_utf16_lossy(&units), 0);
        }
        let rest = &self.text.as_bytes()[self.given..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

fn read(mut input: impl Read, mut each: impl FnMut(&[u8], Range<usize>)) -> io::Result<()> {
    let mut buffer = vec![0; KEPT + LONGEST + AHEAD + BLOCK];
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
                each(&buffer[..filled], known..filled);
            }
            return Ok(());
        }
        filled += length;
        let most = known.max(filled.saturating_sub(AHEAD));
        let whole = match memrchr(b'\n', &buffer[known..most]) {
            Some(end) => known + end + 1,
            // A long line: behind a word, so that none is cut in two.
            None if filled - known >= LONGEST => {
                let last = &buffer[most - AHEAD..most];
                memrchr(b' ', last).map_or(most, |end| most - AHEAD + end + 1)
            }
            None => continue,
        };
        each(&buffer[..filled], known..whole);
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
        read(Pieces(text, piece), |text, fresh| {
            let before = &text[..fresh.start];
            assert!(all.ends_with(before), "what was known comes before");
            all.extend_from_slice(&text[fresh.clone()]);
            longest = longest.max(fresh.len());
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

    #[test]
    fn what_follows_a_line_is_handed_on_with_it() {
        let text = b"one\n".repeat(100_000);
        let mut at = 0;
        read(Pieces(&text, 1_000), |piece, fresh| {
            at += fresh.len();
            assert!(at == text.len() || piece.len() - fresh.end >= AHEAD);
        })
        .unwrap();
    }

    #[test]
    fn utf_16_is_read_in_both_orders_with_and_without_its_mark() {
        let text = "é \u{1f600} dial tcp 10.0.0.5:3306\r\n".repeat(2_000);
        let units = || text.encode_utf16();
        let little: Vec<_> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<_> = units().flat_map(u16::to_be_bytes).collect();
        for (bytes, is_big) in [(&little, false), (&big, true)] {
            for mark in [&b""[..], if is_big { b"\xfe\xff" } else { b"\xff\xfe" }] {
                let all = [mark, bytes].concat();
                let (head, encoding) = Encoding::of(&all[..512]).unwrap();
                assert_eq!(encoding, Encoding::Utf16 { is_big });
                let input = [head, &all[512..]].concat();
                let mut read = String::new();
                Utf16::new(Pieces(&input, 999), is_big)
                    .read_to_string(&mut read)
                    .unwrap();
                assert_eq!(read, text);
            }
        }
        for head in [&b""[..], b"x", b"one line\n", b"\0\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(Encoding::of(head).unwrap(), (head, Encoding::Bytes));
        }
    }

    #[test]
    fn what_is_packed_is_refused_with_what_unpacks_it() {
        let refused = Encoding::of(b"\x1f\x8b\x08").unwrap_err().to_string();
        assert!(refused.contains("gzip"), "{refused}");
        assert!(Encoding::of(b"\xff\xfe\0\0x\0\0\0").is_err());
    }
}
