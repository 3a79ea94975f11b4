//! Whether the words of an error tell no failure, but name a setting, a counter, or what a program is
//! prepared for.

use super::endpoint::head;
use super::lexicon::Word;

/// Words before an error that say that it is not so, or what to do if it were.
const DENIED: [&str; 22] = [
    "no",
    "without",
    "zero",
    "never",
    "0",
    "except",
    "grep",
    "egrep",
    "avoid",
    "avoids",
    "prevent",
    "prevents",
    "ignore",
    "ignored",
    "ignores",
    "ignoring",
    "retry_on",
    "retry-on",
    "retryon",
    "retryable",
    "retryable_errors",
    "retryableerrors",
];

/// Whether what stands there tells no failure, but is a name: of a setting, of a counter, or of what a
/// program is prepared for.
#[must_use]
pub fn is_setting(text: &str, at: usize, end: usize, word: Word) -> bool {
    if !matches!(
        word,
        Word::Errno(_) | Word::Foreign(..) | Word::Kind(_) | Word::Vague(_) | Word::Timeout
    ) {
        return false;
    }
    let (before, rest) = (&text[..at], &text[end..]);
    is_denied(before) || is_value(rest, word) || is_pattern(before, rest)
}

/// Whether it is what somebody looks for, or the help text of a counter: `LIKE '%…%'`, `.*….*`, `# HELP …`.
fn is_pattern(before: &str, rest: &str) -> bool {
    (before.ends_with('%') && rest.starts_with('%'))
        || (before.ends_with(".*") && rest.starts_with(".*"))
        || before.contains("# HELP ")
}

/// Whether the words before say that it is not so, or what to do if it were: `no `, `retry on `.
fn is_denied(before: &str) -> bool {
    let start = before.len().saturating_sub(40);
    let start = (start..=before.len()).find(|&place| before.is_char_boundary(place));
    let before = before[start.unwrap_or(before.len())..].to_ascii_lowercase();
    // e.code === 'ECONNREFUSED'
    let is_compared = |sign| {
        before
            .trim_end_matches(['"', '\'', '`', ' '])
            .ends_with(sign)
    };
    if is_compared("==") || is_compared("!=") {
        return true;
    }
    // "ECONNREFUSED,ETIMEDOUT": what is said of the first of a list is said of each.
    let before = before
        .strip_suffix(',')
        .and_then(|items| items.rsplit_once('"'))
        .map_or(before.as_str(), |(before, _)| before);
    let before = before.trim_end_matches(['"', '\'', '`', ' ', '[', ':', '=']);
    let words = before
        .rsplit(|letter: char| letter.is_ascii_whitespace())
        .map(|word| word.rsplit(['"', '\'', '[', '(']).next().unwrap_or(word));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).take(2).collect();
    let is_verb = |word: &str| {
        [
            "retry",
            "retries",
            "retrying",
            "retried",
            "retryable",
            "failover",
        ]
        .contains(&word)
    };
    match words[..] {
        ["any", before] => matches!(before, "without" | "no" | "avoid"),
        ["saw" | "seen", before] => matches!(before, "never" | "not"),
        ["on", before] => is_verb(before),
        [option, "grep" | "egrep"] if option.starts_with('-') => true,
        [last, ..] => DENIED.contains(&last),
        [] => false,
    }
}

/// Whether a value follows, as it follows the name of a setting or of a counter: `count: 0`, ` 5s`,
/// `: enabled`, `_total 12`, `"} 3`.
fn is_value(rest: &str, word: Word) -> bool {
    let rest = head(rest, 60).to_ascii_lowercase();
    let plain = rest.trim_start_matches(['"', '\'', ')', ' ']);
    let noun = [
        "count",
        "(count)",
        "errors",
        "error count",
        "total",
        "_total",
        "_count",
        "failures",
        "retries",
        "(ms)",
        "(s)",
        "(sec)",
        "(seconds)",
    ]
    .into_iter()
    .find_map(|noun| plain.strip_prefix(noun));
    let behind = noun
        .unwrap_or(plain)
        .trim_start_matches(['"', '\'', '}', ' ']);
    let sign = [":", "=", "is set to ", "set to ", "is ", "of "]
        .into_iter()
        .find_map(|sign| behind.strip_prefix(sign));
    let is_metric = rest.starts_with("\"}") || rest.starts_with("\",");
    let may_stand_alone = noun.is_some()
        || rest.starts_with("\"} ")
        || matches!(word, Word::Errno(110) | Word::Timeout) && rest.starts_with(' ');
    if sign.is_none() && !may_stand_alone || is_metric && !rest.starts_with("\"} ") {
        return false;
    }
    if noun.is_some() && behind.starts_with("ignored") {
        return true;
    }
    let value = sign.unwrap_or(behind).trim_start_matches(['"', '\'', ' ']);
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (value, unit) = value.split_at(digits);
    if value.is_empty() {
        let end = unit.find(|letter: char| !letter.is_ascii_alphabetic());
        return sign.is_some()
            && matches!(
                &unit[..end.unwrap_or(unit.len())],
                "enabled"
                    | "disabled"
                    | "true"
                    | "false"
                    | "on"
                    | "off"
                    | "yes"
                    | "no"
                    | "none"
                    | "never"
            );
    }
    // `Connection refused: 111` is the number of the error itself.
    let is_errno =
        matches!(word, Word::Errno(errno) if noun.is_none() && value == errno.to_string());
    let end = unit.find(|letter: char| !letter.is_ascii_alphabetic());
    let (unit, behind) = unit.split_at(end.unwrap_or(unit.len()));
    let is_unit = matches!(
        unit,
        "" | "s" | "ms" | "us" | "ns" | "m" | "h" | "sec" | "secs" | "seconds" | "millis"
    );
    let behind = behind.trim_start();
    let goes_on = [
        "exceeded",
        "expired",
        "elapsed",
        "reached",
        "ms exceeded",
        "s exceeded",
    ]
    .iter()
    .any(|word| behind.starts_with(word));
    let is_end =
        behind.is_empty() || behind.starts_with([',', ';', '}', ')', ']', '"', '\'', '|', '\n']);
    let is_word = behind.starts_with(|letter: char| letter.is_ascii_alphabetic());
    is_unit && !is_errno && !goes_on && (is_end || is_word)
}
