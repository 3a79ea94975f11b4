//! A line as its program said it: out of an object of JSON, without the colours of a terminal.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr_iter;

/// A line as it is shown.
pub struct Shown<'a> {
    /// Its text.
    pub text: Cow<'a, str>,
    /// Where in it what was hidden in the line is.
    pub hidden: Vec<Range<usize>>,
}

/// A line as its program said it.
#[must_use]
pub fn readable(line: &[u8]) -> String {
    shown(&String::from_utf8_lossy(line), &[]).text.into_owned()
}

/// The same, and where in it the ranges `hidden` of `line` are.
#[must_use]
pub fn shown<'a>(line: &'a str, hidden: &[Range<usize>]) -> Shown<'a> {
    let line = line.trim_end_matches('\r');
    if !line.contains(['\\', '\u{1b}']) {
        return Shown {
            text: line.into(),
            hidden: hidden.to_vec(),
        };
    }
    let mut text = String::with_capacity(line.len());
    // Where in `line` and in `text` what was left as it is goes on.
    let mut places = vec![(0, 0)];
    let mut rest = line;
    while let Some(at) = rest.find(['\\', '\u{1b}']) {
        text.push_str(&rest[..at]);
        let (letter, behind) = if rest[at..].starts_with('\u{1b}') {
            (None, without_colour(&rest[at + 1..]))
        } else {
            let (letter, behind) = escaped(&rest[at + 1..]);
            match letter {
                Some('\u{1b}') => (None, without_colour(behind)),
                letter => (letter, behind),
            }
        };
        text.extend(letter);
        rest = behind;
        places.push((line.len() - rest.len(), text.len()));
    }
    text.push_str(rest);
    let place = |at: usize| {
        let next = places.partition_point(|&(raw, _)| raw <= at);
        let (raw, out) = places[next.max(1) - 1];
        let most = places.get(next).map_or(text.len(), |&(_, out)| out);
        (out + (at - raw)).min(most)
    };
    let hidden = hidden
        .iter()
        .map(|range| place(range.start)..place(range.end))
        .collect();
    Shown {
        text: text.into(),
        hidden,
    }
}

/// The letter that stands behind a backslash, and what follows it.
fn escaped(rest: &str) -> (Option<char>, &str) {
    let mut letters = rest.chars();
    let letter = match letters.next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => return (None, letters.as_str()),
        Some('u') => {
            let digits = letters.as_str().get(..4);
            let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let Some(code) = code else {
                return (Some('\\'), rest);
            };
            let letter = char::from_u32(code).unwrap_or('?');
            return (Some(letter), &letters.as_str()[4..]);
        }
        Some(letter @ ('"' | '\'' | '\\' | '/')) => letter,
        _ => return (Some('\\'), rest),
    };
    (Some(letter), letters.as_str())
}

/// What follows the escape sequence that `rest` goes on with: `[1;31m`, `[K`.
fn without_colour(rest: &str) -> &str {
    let Some(inner) = rest.strip_prefix('[') else {
        return rest;
    };
    let parameters = |letter: char| letter.is_ascii_digit() || ";:?".contains(letter);
    let inner = inner.trim_start_matches(parameters);
    inner
        .strip_prefix(|letter: char| letter.is_ascii_alphabetic())
        .unwrap_or(inner)
}

/// What containers put between the time and the line.
const PREFIXES: [&str; 5] = [
    " stderr F ",
    " stdout F ",
    " stderr P ",
    " stdout P ",
    " | ",
];

/// What a container's or syslog's line says, without what was put in front of it.
#[must_use]
pub fn body(line: &str) -> &str {
    if let Some(body) = line.strip_prefix("{\"log\":\"") {
        return body;
    }
    let head = super::endpoint::head(line, 160);
    let behind = |at: usize, mark: &str| line[at..].strip_prefix(mark);
    let of_container = |at: usize| PREFIXES.iter().find_map(|mark| behind(at, mark));
    if let Some(body) = memchr_iter(b' ', head.as_bytes()).find_map(of_container) {
        return body;
    }
    let mut brackets = memchr_iter(b']', head.as_bytes());
    if line.starts_with("[pod/") {
        return brackets.find_map(|at| behind(at, "] ")).unwrap_or(line);
    }
    // Nov 25 03:12:01 host app[711]: …
    match brackets.find_map(|at| behind(at, "]: ")) {
        Some(body) if head.split(' ').take(5).any(|word| word.ends_with("]:")) => body,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_hidden_stays_hidden() {
        let line = "a\\nb \u{1b}[1;31mse\\\"cret\u{1b}[0m end\r";
        let at = line.find("se").unwrap();
        let shown = shown(line, std::slice::from_ref(&(at..at + 8)));
        assert_eq!(shown.text, "a\nb se\"cret end");
        assert_eq!(&shown.text[shown.hidden[0].clone()], "se\"cret");
    }

    #[test]
    fn a_line_is_what_its_program_said() {
        for (line, said) in [
            (
                "{\"log\":\"\tat a.B.c(D.java:1)\", 1}",
                "\tat a.B.c(D.java:1)\", 1}",
            ),
            ("2026-11-25T03:12:01.123Z stderr F \tat a.B", "\tat a.B"),
            ("web-1  | \tat a.B", "\tat a.B"),
            ("[pod/web-1/app] \tat a.B", "\tat a.B"),
            ("Nov 25 03:12:01 host app[711]: \tat a.B", "\tat a.B"),
            ("\tat a.B", "\tat a.B"),
        ] {
            assert_eq!(body(line), said);
        }
    }
}
