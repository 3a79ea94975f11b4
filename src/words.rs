//! How numbers are written for people: the same everywhere.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

/// `28231` as `28,231`.
#[must_use]
pub fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Connections per second: `470.5`, from a thousand on `28,231`, below one `0.017`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if 0.0 < per_second && per_second < 0.95 {
        return format!("{per_second:.3}");
    }
    if per_second < 999.95 {
        return format!("{per_second:.1}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Positive, far below 2^53.
    count(per_second.round() as u64)
}

/// A setting of time as people say it: `1 s`, `250 ms`.
#[must_use]
pub fn time(duration: Duration) -> String {
    match duration.as_millis() {
        whole if whole % 1000 == 0 => format!("{} s", whole / 1000),
        milliseconds => format!("{milliseconds} ms"),
    }
}

/// A time that has passed, as exactly as it matters: `34 s`, `12 min`, `3 h`.
#[must_use]
pub fn lasting(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", count(seconds / 3600)),
    }
}

/// `1 socket`, `2,000 sockets`, `84 processes`.
#[must_use]
pub fn counted(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    let plural = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{plural}", count(number))
}

/// `Network is unreachable (errno 101)`.
#[must_use]
pub fn errno_words(errno: i32) -> String {
    format!("{} (errno {errno})", Errno::from_raw(errno).desc())
}

/// Microseconds as a latency: `17 µs`, `5.4 ms`, `1.2 s`.
#[must_use]
pub fn latency(microseconds: u64) -> String {
    match Duration::from_micros(microseconds) {
        short if microseconds < 1_000 => format!("{} µs", short.as_micros()),
        medium if microseconds < 1_000_000 => format!("{:.1} ms", medium.as_secs_f64() * 1e3),
        long => format!("{:.1} s", long.as_secs_f64()),
    }
}

/// `values` as a line of at most `width` bars, each the highest of its share; a full bar stands for
/// `full`, or for the highest value where that is more.
#[must_use]
pub fn sparkline(values: &[u16], width: usize, full: u16) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().max().unwrap_or(0).max(full).max(1);
    let share = values.len().div_ceil(width.max(1)).max(1);
    values
        .chunks(share)
        .map(|share| share.iter().copied().max().unwrap_or(0))
        .map(|value| BARS[(usize::from(value) * 7).div_ceil(usize::from(highest))])
        .collect()
}

/// `text` without what could move a terminal's cursor or turn its words around: names of processes
/// and the words of a server are anybody's choice.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if is_unseen(letter) { '?' } else { letter })
        .collect()
}

/// The same, cut where it is longer than anybody reads.
#[must_use]
pub fn shown(text: &str) -> String {
    const MOST: usize = 500;
    let mut letters = printable(text);
    if let Some((end, _)) = letters.char_indices().nth(MOST) {
        letters.truncate(end);
        letters.push_str(" …");
    }
    letters
}

/// A path that was named, but for one that looks like a login, which may hold a password.
#[must_use]
pub fn path(path: &Path) -> String {
    let text = path.display().to_string();
    let is_login = text
        .split_once('@')
        .is_some_and(|(before, _)| before.contains(':'));
    if is_login {
        return "what looks like a URL or a login".into();
    }
    printable(&text)
}

/// What acts on the text around it instead of being seen: controls, and of Unicode's format
/// characters (Cf) those that join, hide or change direction.
fn is_unseen(letter: char) -> bool {
    let is_format = matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    letter.is_control() || is_format
}

/// A word as a shell takes it whole; what would act on a terminal is written out.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@%+=,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    if text.chars().any(is_unseen) {
        let mut word = "$'".to_owned();
        for letter in text.chars() {
            if is_unseen(letter) {
                for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(word, "\\x{byte:02x}");
                }
            } else {
                word.push_str(if "'\\".contains(letter) { "\\" } else { "" });
                word.push(letter);
            }
        }
        return word + "'";
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Rounds as the JSON shows rates and times: to one decimal, below 1 to three, so that little is
/// not nothing.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    let scale = if number < 1.0 { 1000.0 } else { 10.0 };
    (number * scale).round() / scale
}

/// `part` of `whole` in percent; 0 of nothing.
#[must_use]
pub fn percent(part: impl Into<u64>, whole: impl Into<u64>) -> f64 {
    let (part, whole) = (part.into(), whole.into());
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss)] // Counts of sockets, far below 2^53.
    {
        part as f64 * 100.0 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_word_as_it_was() {
        for word in [
            "web",
            "/run/netns/web",
            "a b;c",
            "it's",
            "$(id)",
            "",
            "a\u{1b}[2J\\'",
            "ä",
        ] {
            let echo = format!("printf %s {}", shell_word(word));
            let output = std::process::Command::new("bash")
                .args(["-c", &echo])
                .output()
                .expect("bash runs");
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
            assert!(!shell_word(word).contains('\u{1b}'));
        }
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (number, text) in [
            (0_u64, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn rates_keep_a_decimal_only_where_it_tells() {
        for (number, text) in [
            (0.0, "0.0"),
            (470.516, "470.5"),
            (999.94, "999.9"),
            (999.96, "1,000"),
            (28231.4, "28,231"),
        ] {
            assert_eq!(rate(number), text);
        }
        assert_eq!(rate(1.0 / 60.0), "0.017");
        assert_eq!((rounded(1.0 / 60.0), rounded(470.516)), (0.017, 470.5));
    }

    #[test]
    fn one_is_no_plural_and_times_keep_their_unit() {
        assert_eq!(counted(1_u32, "socket"), "1 socket");
        assert_eq!(counted(2000_u32, "socket"), "2,000 sockets");
        assert_eq!(counted(84_u32, "process"), "84 processes");
        assert_eq!(time(Duration::from_secs(1)), "1 s");
        assert_eq!(time(Duration::from_millis(250)), "250 ms");
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
        ] {
            assert_eq!(lasting(seconds), text);
        }
    }

    #[test]
    fn latencies_change_unit_where_a_reader_would() {
        for (microseconds, text) in [
            (17, "17 µs"),
            (999, "999 µs"),
            (5_409, "5.4 ms"),
            (1_200_000, "1.2 s"),
        ] {
            assert_eq!(latency(microseconds), text);
        }
    }

    #[test]
    fn a_sparkline_fits_its_width_and_shows_the_highest_of_each_share() {
        assert_eq!(sparkline(&[0, 1, 7, 3], 4, 0), "▁▂█▄");
        assert_eq!(sparkline(&[0, 1, 7, 3], 2, 0), "▂█");
        assert_eq!(sparkline(&[0, 1, 7, 3], 4, 49), "▁▂▂▂");
        assert_eq!(sparkline(&[0; 60], 20, 0), "▁".repeat(20));
        assert_eq!(sparkline(&[5; 60], 7, 0).chars().count(), 7);
        assert_eq!(sparkline(&[], 7, 0), "");
        assert_eq!(sparkline(&[1], 0, 0), "█");
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a?[31mb?c");
        assert_eq!(printable("gunicorn\u{202e}dp\u{200b}"), "gunicorn?dp?");
        assert_eq!(printable("m\u{fc}ller 名 ≥"), "m\u{fc}ller 名 ≥");
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert!(percent(0_u32, 0_u32).abs() < f64::EPSILON);
        assert!((percent(1_u32, 8_u32) - 12.5).abs() < f64::EPSILON);
    }
}
