//! What stands for the letters that a screen of ASCII alone cannot show.

use std::borrow::Cow;

/// `text` in ASCII: what has a common way to be written so is, the rest is `?`.
#[must_use]
pub fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return text.into();
    }
    let mut spelled = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            spelled.push(letter);
        } else {
            spelled.push_str(spelling(letter));
        }
    }
    spelled.into()
}

fn spelling(letter: char) -> &'static str {
    match letter {
        'µ' | 'μ' => "u",
        '…' => "...",
        '≥' => ">=",
        '≤' => "<=",
        '×' => "x",
        '–' | '—' | '─' | '▃' => "-",
        '‘' | '’' | '╰' | '╯' => "'",
        '“' | '”' => "\"",
        '→' => "->",
        '\u{a0}' => " ",
        // The bars of a sparkline, of which one is above: the higher, the darker.
        '▁' | '╭' | '╮' => ".",
        '▂' => ":",
        '▄' => "=",
        '▅' | '┼' => "+",
        '▆' => "*",
        '▇' => "#",
        '█' => "@",
        '│' | '┤' => "|",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::sparkline;

    #[test]
    fn every_letter_of_the_reports_has_a_spelling_and_a_foreign_one_is_a_question_mark() {
        assert_eq!(
            ascii("≥17 µs, rate × time, a,… ‘x’ – é 名"),
            ">=17 us, rate x time, a,... 'x' - ? ?"
        );
        assert_eq!(ascii("┤┼╭╮╰╯│─"), "|+..''|-");
        assert!(matches!(ascii("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn bars_in_ascii_are_as_many_and_grow_darker() {
        let bars = sparkline(&[0, 1, 2, 3, 4, 5, 6, 7], 8, 0);
        assert_eq!(ascii(&bars), ".:-=+*#@");
    }
}
