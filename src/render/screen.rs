use std::borrow::Cow;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use terminal_size::{Height, Width, terminal_size_of};
use textwrap::core::display_width;
use textwrap::{Options, WordSplitter};

use super::letters::ascii;
use crate::judge::level::Level;

/// What an output stream can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns; `None` when nobody tells them: then nothing is wrapped.
    pub width: Option<u16>,
    /// Lines; `None` when nobody tells them.
    pub height: Option<u16>,
    /// Whether colour is welcome.
    pub colour: bool,
    /// Whether letters beyond ASCII would be garbled.
    pub in_ascii: bool,
}

/// Whoever reads what is written. One that has gone, as `| head -1` does, has all it wanted: that
/// is no error, and changes neither what is done nor the exit status.
#[derive(Debug)]
pub struct Reader<W> {
    stream: W,
    in_ascii: bool,
}

impl<W: Write> Write for Reader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.in_ascii && !bytes.is_ascii() {
            // A BufWriter keeps together what is written at once, so no letter comes in pieces.
            let text = String::from_utf8_lossy(bytes);
            let written = self.stream.write_all(ascii(&text).as_bytes());
            written.map(|()| bytes.len())
        } else {
            self.stream.write(bytes)
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stream.flush() {
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
    /// A file, which takes everything as it is.
    pub const FILE: Self = Self {
        width: None,
        height: None,
        colour: false,
        in_ascii: false,
    };

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
        let size = terminal_size_of(stream).map(|(Width(columns), Height(lines))| [columns, lines]);
        Self::new(stream.is_terminal(), size, |name| {
            let value = std::env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        })
    }

    /// A terminal or something else, of so many columns and lines where it tells, in the
    /// environment that `variable` knows.
    fn new(
        is_terminal: bool,
        size: Option<[u16; 2]>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let [columns, lines] = match size {
            Some(told) => told.map(Some),
            None => ["COLUMNS", "LINES"].map(|name| extent(&variable(name)?)),
        };
        let term = variable("TERM");
        let is_dumb = term.as_deref() == Some("dumb");
        let no_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: match columns {
                // watch swallows the empty line after one that is as wide as its screen.
                Some(columns) if !is_terminal => Some(columns - 1),
                None if is_terminal => Some(UNTOLD),
                told => told,
            }
            .map(|columns| columns.max(NARROWEST)),
            height: lines,
            colour: is_terminal && !no_colour && !is_dumb && term.is_some(),
            in_ascii: is_dumb || !is_utf8(&locale(variable)),
        }
    }

    /// A buffered writer to standard output.
    #[must_use]
    pub fn lock(self) -> BufWriter<Reader<StdoutLock<'static>>> {
        self.to(io::stdout().lock())
    }

    /// A buffered writer to `stream`, which is this screen.
    pub fn to<W: Write>(self, stream: W) -> BufWriter<Reader<W>> {
        BufWriter::new(Reader {
            stream,
            in_ascii: self.in_ascii,
        })
    }

    /// `text` in letters that this screen has: what is to be measured has to be spelled before.
    #[must_use]
    pub fn spelled(self, text: &str) -> Cow<'_, str> {
        if self.in_ascii {
            ascii(text)
        } else {
            text.into()
        }
    }

    /// Whether `report` and the prompt after it are more than it shows at once.
    #[must_use]
    pub fn is_overflown_by(self, report: &str) -> bool {
        let width = usize::from(self.width.unwrap_or(u16::MAX));
        let rows = |line| display_width(line).div_ceil(width).max(1);
        self.height
            .is_some_and(|height| report.lines().map(rows).sum::<usize>() >= height.into())
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
    /// printed width is that of `indent`. No word is broken, and no command between backticks that
    /// fits a line: they are there to be copied.
    #[must_use]
    pub fn wrap(self, first: &str, indent: &str, text: &str) -> String {
        let text = self.spelled(text);
        let Some(width) = self.width.map(usize::from) else {
            return format!("{first}{text}");
        };
        let options = Options::new(width)
            .initial_indent(first)
            .subsequent_indent(indent)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation);
        parted(&textwrap::fill(
            &glued(&text, width - indent.len()),
            options,
        ))
    }
}

/// A blank where no line ends.
const GLUE: &str = "\u{a0}";

/// `text` on one line, whatever wraps it.
#[must_use]
pub fn unbroken(text: &str) -> String {
    text.replace(' ', GLUE)
}

/// `text` after it has been wrapped.
#[must_use]
pub fn parted(text: &str) -> String {
    text.replace(GLUE, " ")
}

/// `text` whose commands and quantities stay in one piece where a line has `width` columns for them.
fn glued(text: &str, width: usize) -> String {
    let mut glued = String::with_capacity(text.len());
    for (number, part) in text.split('`').enumerate() {
        let is_command = number % 2 == 1;
        if number > 0 {
            glued.push('`');
        }
        // The backticks and a full stop stand beside it.
        if is_command && display_width(part) + 3 <= width {
            glued.push_str(&unbroken(part));
        } else {
            for word in part.split_inclusive(' ') {
                let unit = word.trim_end_matches([' ', '.', ',', ';', ':', ')']);
                let number = glued.strip_suffix(' ');
                if matches!(unit, "s" | "ms" | "us" | "µs" | "%")
                    && number.is_some_and(|text| text.ends_with(|last: char| last.is_ascii_digit()))
                {
                    glued.pop();
                    glued.push_str(GLUE);
                }
                glued.push_str(word);
            }
        }
    }
    glued
}

/// The columns or lines that a variable tells; what is no size is no answer.
fn extent(text: &str) -> Option<u16> {
    let extent: u64 = text.trim().parse().ok()?;
    (extent > 0).then(|| u16::try_from(extent).unwrap_or(u16::MAX))
}

/// The locale of letters, as setlocale(3) finds it; empty is unset, and without any it is C.
fn locale(variable: impl Fn(&str) -> Option<String>) -> String {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty())
        .unwrap_or_else(|| "C".into())
}

/// `en_US.UTF-8`, `C.utf8`, and the bare `UTF-8` that ssh brings along from macOS.
fn is_utf8(locale: &str) -> bool {
    let before_modifier = locale.split('@').next().unwrap_or_default();
    let codeset = before_modifier.rsplit('.').next().unwrap_or_default();
    codeset.replace('-', "").eq_ignore_ascii_case("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A screen without height and colour.
    fn of_width(width: Option<u16>) -> Screen {
        Screen {
            width,
            height: None,
            colour: false,
            in_ascii: false,
        }
    }

    fn in_environment(
        is_terminal: bool,
        size: Option<[u16; 2]>,
        variables: &[(&str, &str)],
    ) -> Screen {
        Screen::new(is_terminal, size, |name| {
            let known = variables.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_size_is_the_terminals_or_that_of_columns_and_lines() {
        for (is_terminal, size, told, width, height) in [
            (false, None, None, None, None),
            (false, None, Some("100"), Some(99), Some(100)),
            (false, None, Some(" 80 "), Some(79), Some(80)),
            (true, Some([132, 50]), Some("100"), Some(132), Some(50)),
            (true, None, Some("100"), Some(100), Some(100)),
            (true, None, None, Some(80), None),
            (true, Some([10, 5]), None, Some(40), Some(5)),
            (false, None, Some("10"), Some(40), Some(10)),
            (
                false,
                None,
                Some("1000000"),
                Some(u16::MAX - 1),
                Some(u16::MAX),
            ),
            (false, None, Some("0"), None, None),
            (false, None, Some("-1"), None, None),
            (false, None, Some("abc"), None, None),
            (false, None, Some(""), None, None),
            (false, None, Some("99999999999999999999999"), None, None),
            (true, None, Some("0"), Some(80), None),
        ] {
            let variables: Vec<_> = told
                .iter()
                .flat_map(|value| [("COLUMNS", *value), ("LINES", value)])
                .collect();
            let screen = in_environment(is_terminal, size, &variables);
            assert_eq!(
                (screen.width, screen.height),
                (width, height),
                "{is_terminal} {size:?} {told:?}"
            );
        }
    }

    #[test]
    fn letters_beyond_ascii_are_for_utf8_locales_on_terminals_that_are_not_dumb() {
        for (variables, in_ascii) in [
            (&[][..], true),
            (&[("LANG", "C.UTF-8")], false),
            (&[("LANG", "en_US.utf8")], false),
            (&[("LANG", "de_DE.UTF-8@euro")], false),
            (&[("LC_CTYPE", "UTF-8")], false),
            (&[("LANG", "C")], true),
            (&[("LANG", "POSIX")], true),
            (&[("LANG", "de_DE")], true),
            (&[("LANG", "de_DE.ISO-8859-1")], true),
            (&[("LANG", "de_DE@euro")], true),
            (&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], true),
            (&[("LC_ALL", ""), ("LANG", "C.UTF-8")], false),
            (&[("LC_CTYPE", "C"), ("LANG", "C.UTF-8")], true),
            (&[("LC_ALL", "C.UTF-8"), ("LC_CTYPE", "C")], false),
            (&[("LANG", "C.UTF-8"), ("TERM", "dumb")], true),
            (&[("LANG", "C.UTF-8"), ("TERM", "vt100")], false),
        ] {
            let screen = in_environment(false, None, variables);
            assert_eq!(screen.in_ascii, in_ascii, "{variables:?}");
        }
    }

    #[test]
    fn colour_is_for_terminals_that_are_not_dumb_and_where_nobody_forbids_it() {
        for (is_terminal, variables, colour) in [
            (true, &[("TERM", "xterm")][..], true),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "")], true),
            (true, &[("TERM", "xterm"), ("NO_COLOR", "1")], false),
            (true, &[("TERM", "dumb")], false),
            (true, &[], false),
            (false, &[("TERM", "xterm")], false),
        ] {
            let screen = in_environment(is_terminal, None, variables);
            assert_eq!(screen.colour, colour, "{variables:?}");
        }
    }

    #[test]
    fn text_is_wrapped_where_a_width_is_known() {
        let text = "one two three four five six seven eight nine ten eleven";
        assert_eq!(
            of_width(Some(40)).wrap("- ", "  ", text),
            "- one two three four five six seven\n  eight nine ten eleven"
        );
        let pipe = of_width(None);
        assert_eq!(pipe.wrap("- ", "  ", text), format!("- {text}"));
    }

    #[test]
    fn no_word_is_broken_no_command_parted_and_no_number_loses_its_unit() {
        let wrapped = |text| of_width(Some(40)).wrap("", "", text);
        assert_eq!(
            wrapped("toward the host db-client-1.example-of-one.test:3306 it"),
            "toward the host\ndb-client-1.example-of-one.test:3306 it"
        );
        assert_eq!(
            wrapped("until then, as root: `sysctl -w net.ipv4.tcp_tw_reuse=1`."),
            "until then, as root:\n`sysctl -w net.ipv4.tcp_tw_reuse=1`."
        );
        assert_eq!(
            wrapped("one that no line holds: `ss -tnp state close-wait dst 192.0.2.1:3306`"),
            "one that no line holds: `ss -tnp state\nclose-wait dst 192.0.2.1:3306`"
        );
        assert_eq!(
            wrapped("the first in two minutes, all in some 62 s, or 12.5 % of them; p99 1,117 µs."),
            "the first in two minutes, all in some\n62 s, or 12.5 % of them; p99 1,117 µs."
        );
    }

    #[test]
    fn width_counts_columns_as_the_screen_shows_them() {
        let screen = of_width(Some(40));
        assert_eq!(
            screen.wrap("", "", &"名前 ".repeat(9)),
            ["名前"; 8].join(" ") + "\n名前"
        );
        let dots = ["…"; 20].join(" ");
        assert_eq!(screen.wrap("", "", &dots), dots);
        let in_ascii = Screen {
            in_ascii: true,
            ..screen
        };
        assert_eq!(
            in_ascii.wrap("", "", &dots),
            [["..."; 10].join(" "), ["..."; 10].join(" ")].join("\n")
        );
        let painted = format!(
            "{}: ",
            Screen {
                colour: true,
                ..screen
            }
            .paint(Level::Ok, "OK")
        );
        let words = ["nine"; 8].join(" ");
        assert_eq!(
            screen.wrap(&painted, "    ", &words),
            format!("{painted}{}\n    nine", ["nine"; 7].join(" "))
        );
    }

    #[test]
    fn a_screen_is_overflown_by_what_leaves_no_line_for_the_prompt() {
        let screen = |height| Screen {
            height,
            ..of_width(Some(40))
        };
        let long = format!("a\n{}\nb\n", "x".repeat(41));
        assert!(!screen(Some(4)).is_overflown_by("a\n\nb\n"));
        assert!(screen(Some(3)).is_overflown_by("a\n\nb\n"));
        assert!(screen(Some(4)).is_overflown_by(&long));
        assert!(!screen(Some(5)).is_overflown_by(&long));
        assert!(!screen(None).is_overflown_by(&"a\n".repeat(999)));
    }

    #[test]
    fn a_stream_of_ascii_gets_no_other_letter() {
        let written = |in_ascii, text: &[u8]| {
            let screen = Screen {
                in_ascii,
                ..of_width(None)
            };
            let mut written = Vec::new();
            screen.to(&mut written).write_all(text).unwrap();
            written
        };
        assert_eq!(written(true, "17 µs …".as_bytes()), b"17 us ...");
        assert_eq!(written(true, b"a\xffb"), b"a?b");
        assert_eq!(written(false, b"\xe2\x80\xa6\xff"), b"\xe2\x80\xa6\xff");
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
            let mut reader = Reader {
                stream: Fails(error),
                in_ascii: false,
            };
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
            colour,
            ..of_width(None)
        };
        assert_eq!(screen(false).paint(Level::Critical, "x"), "x");
        assert_eq!(
            screen(true).paint(Level::Critical, "x"),
            "\u{1b}[1m\u{1b}[31mx\u{1b}[0m"
        );
    }
}
