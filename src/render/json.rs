//! The JSON contract: one object a run.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `report` as one object, in the same bytes in every locale.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(InAscii(&mut *out), report)?;
    writeln!(out)?;
    out.flush()
}

/// Writes letters beyond ASCII, which JSON has in strings alone, as the `\uXXXX` that every parser
/// reads as those letters.
struct InAscii<W>(W);

impl<W: Write> Write for InAscii<W> {
    /// serde_json writes what is one string in whole letters.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_ascii() {
            return self.0.write(bytes);
        }
        for letter in String::from_utf8_lossy(bytes).chars() {
            if letter.is_ascii() {
                self.0.write_all(&[letter as u8])?;
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(self.0, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_beyond_ascii_are_escaped_and_read_back_as_they_were() {
        let said = ["17 µs …", "\u{1f980}\n\"\\u00b5\"", "plain"];
        let mut written = Vec::new();
        write(&said, &mut written).unwrap();
        assert!(written.is_ascii());
        let read: Vec<String> = serde_json::from_slice(&written).unwrap();
        assert_eq!(read, said);
    }
}
