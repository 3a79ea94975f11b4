use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};

use crate::judge::level::Level;

/// What an output stream can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns; `None` when it is no terminal: then nothing is wrapped.
    pub width: Option<u16>,
    /// Whether colour is welcome.
    pub colour: bool,
}

/// Whoever reads what is written. One that has gone, as `| head -1` does, has all it wanted: that
/// is no error, and changes neither what is done nor the exit status.
#[derive(Debug)]
pub struct Reader<W>(W);

impl<W: Write> Write for Reader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

/// The width below which a table is no table.
const NARROWEST: u16 = 40;

/// The width of a terminal that does not tell its own.
const UNTOLD: u16 = 80;

impl Screen {
    /// Standard output of this process.
    #[must_use]
    pub fn of_stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// Standard error of this process.
    #[must_use]
    pub fn of_stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let terminal = stream.is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            width: terminal.then(|| match terminal_size::terminal_size_of(stream) {
                Some((terminal_size::Width(columns), _)) if columns > 0 => columns.max(NARROWEST),
                _ => UNTOLD,
            }),
            colour: terminal && !no_colour && !dumb,
        }
    }

    /// A buffered writer to standard output.
    #[must_use]
    pub fn lock(self) -> BufWriter<Reader<StdoutLock<'static>>> {
        BufWriter::new(Reader(io::stdout().lock()))
    }

    /// `text` in the colour of `level`, where colour is welcome.
    #[must_use]
    pub fn paint(self, level: Level, text: &str) -> String {
        let colour = match level {
            Level::Ok => AnsiColor::Green,
            Level::Unknown => AnsiColor::Magenta,
            Level::Warning => AnsiColor::Yellow,
            Level::Critical => AnsiColor::Red,
        };
        if !self.colour {
            return text.to_owned();
        }
        let style = Style::new().bold().fg_color(Some(colour.into()));
        format!("{style}{text}{style:#}")
    }

    /// `text` wrapped to the screen, every line after `indent`; the first after `first`, whose
    /// printed width is that of `indent`.
    #[must_use]
    pub fn wrap(self, first: &str, indent: &str, text: &str) -> String {
        let Some(width) = self.width else {
            return format!("{first}{text}");
        };
        let body = textwrap::wrap(
            text,
            textwrap::Options::new(usize::from(width).saturating_sub(indent.len()).max(20)),
        );
        format!("{first}{}", body.join(&format!("\n{indent}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_on_a_terminal_only() {
        let text = "one two three four five six seven eight nine ten eleven";
        let terminal = Screen {
            width: Some(40),
            colour: false,
        };
        assert_eq!(
            terminal.wrap("- ", "  ", text),
            "- one two three four five six seven\n  eight nine ten eleven"
        );
        let pipe = Screen {
            width: None,
            colour: false,
        };
        assert_eq!(pipe.wrap("- ", "  ", text), format!("- {text}"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        struct Fails(ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(self.0.into())
            }
        }
        let write = |error| {
            let mut reader = Reader(Fails(error));
            let written = reader.write(b"abc").map_err(|error| error.kind());
            (written, reader.flush().map_err(|error| error.kind()))
        };
        assert_eq!(write(ErrorKind::BrokenPipe), (Ok(3), Ok(())));
        let full = ErrorKind::StorageFull;
        assert_eq!(write(full), (Err(full), Err(full)));
    }

    #[test]
    fn colour_is_there_only_where_it_is_welcome() {
        let screen = |colour| Screen {
            width: None,
            colour,
        };
        assert_eq!(screen(false).paint(Level::Critical, "x"), "x");
        assert_eq!(
            screen(true).paint(Level::Critical, "x"),
            "\u{1b}[1m\u{1b}[31mx\u{1b}[0m"
        );
    }
}
