//! When a line was written, as it says itself.

use std::fmt;

use memchr::memmem;

/// A moment as a log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970; of local time where the zone is not told.
    pub seconds: i64,
    /// Minutes east of Greenwich; `None` where the log does not tell its zone.
    pub zone: Option<i16>,
}

/// Where in a line a time is looked for, in bytes: prefixes of containers and of syslog come first.
const HEAD: usize = 120;

/// What an object of JSON calls its time.
const NAMES: [&[u8]; 7] = [
    b"\"time\"",
    b"\"ts\"",
    b"\"timestamp\"",
    b"\"@timestamp\"",
    b"\"__REALTIME_TIMESTAMP\"",
    b"\"date\"",
    b"\"epochSecond\"",
];

const DAY: i64 = 86_400;

const MONTHS: [&[u8; 3]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

impl Moment {
    /// The time that `line` begins with, or that an object of JSON holds anywhere. Times without a
    /// year are of the last year before `now`, in seconds since 1970.
    #[must_use]
    pub fn of(line: &[u8], now: i64) -> Option<Self> {
        let head = &line[..line.len().min(HEAD)];
        let is_object = head.trim_ascii_start().starts_with(b"{") || head.contains(&b'{');
        // Where the object names its time, that is it; a message may tell of others.
        let named = NAMES.iter().filter(|_| is_object).find_map(|name| {
            let at = memmem::find(line, name)? + name.len();
            (at..line.len().min(at + 4)).find_map(|at| Self::at(line, at, now))
        });
        if named.is_some() {
            return named;
        }
        let place = if is_object { line } else { head };
        (0..place.len()).find_map(|at| Self::at(line, at, now))
    }

    fn at(line: &[u8], at: usize, now: i64) -> Option<Self> {
        let before = at.checked_sub(1).map(|before| line[before]);
        if before.is_some_and(|before| before.is_ascii_alphanumeric()) {
            // `I1125`, of klog and glog.
            let is_level = at == 1 && matches!(before, Some(b'I' | b'W' | b'E' | b'F'));
            return if is_level { klog(line, now) } else { None };
        }
        match line[at] {
            b'0'..=b'9' => numeric(line, at, before),
            b'A'..=b'Z' | b'a'..=b'z' => syslog(&line[at..], now),
            _ => None,
        }
    }
}

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// A number of `least` to `most` digits, and no digit after it.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let length = digits.count();
        if !(least..=most).contains(&length) {
            return None;
        }
        let (number, rest) = self.0.split_at(length);
        self.0 = rest;
        let add = |sum: i64, digit: &u8| sum * 10 + i64::from(digit - b'0');
        Some(number.iter().fold(0, add))
    }

    fn digits(&mut self, exactly: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(exactly)?;
        number.iter().all(u8::is_ascii_digit).then_some(())?;
        self.0 = rest;
        let add = |sum: i64, digit: &u8| sum * 10 + i64::from(digit - b'0');
        Some(number.iter().fold(0, add))
    }

    fn one_of(&mut self, allowed: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        allowed.contains(first).then_some(())?;
        self.0 = rest;
        Some(*first)
    }

    fn month(&mut self) -> Option<i64> {
        let (name, rest) = self.0.split_at_checked(3)?;
        let is_it = |month: &&&[u8; 3]| month.eq_ignore_ascii_case(name);
        let found = MONTHS.iter().position(|month| is_it(&month))?;
        self.0 = rest;
        Some(i64::try_from(found).ok()? + 1)
    }

    /// `03:12:01`, and what follows the second before a zone.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(1, 2)?;
        self.one_of(b":")?;
        let minute = self.number(2, 2)?;
        self.one_of(b":")?;
        let second = self.number(2, 2)?;
        (hour < 24 && minute < 60 && second < 61).then_some(())?;
        if matches!(self.0, [b'.' | b',', digit, ..] if digit.is_ascii_digit()) {
            let end = self.0[1..].iter().position(|byte| !byte.is_ascii_digit());
            self.0 = &self.0[end.map_or(self.0.len(), |end| end + 1)..];
        }
        Some(hour * 3600 + minute * 60 + second)
    }

    /// The same, perhaps of twelve hours, ` PM`; and whether it is.
    fn clock_of_halves(&mut self) -> Option<(i64, bool)> {
        let clock = self.clock()?;
        let text = self.0.trim_ascii_start();
        // Newer Java puts a narrow space there.
        let text = text.strip_prefix("\u{202f}".as_bytes()).unwrap_or(text);
        let is_half = |half: &[u8; 2]| text.len() >= 2 && text[..2].eq_ignore_ascii_case(half);
        let hours = match (is_half(b"AM"), is_half(b"PM")) {
            (true, _) => 0,
            (_, true) => 12,
            _ => return Some((clock, false)),
        };
        self.0 = &text[2..];
        Some((clock % (12 * 3600) + hours * 3600, true))
    }

    /// `Z`, `+01:00`, ` +0100`, ` UTC`.
    fn zone(&mut self) -> Option<i16> {
        let text = self.0.strip_prefix(b" ").unwrap_or(self.0);
        if text.starts_with(b"Z") || text.starts_with(b"UTC") || text.starts_with(b"GMT") {
            return Some(0);
        }
        let mut fields = Fields(text);
        let sign = fields.one_of(b"+-")?;
        let hours = fields.digits(2)?;
        let _ = fields.one_of(b":");
        let minutes = fields.digits(2)?;
        (hours < 15 && minutes < 60).then_some(())?;
        let minutes = i16::try_from(hours * 60 + minutes).ok()?;
        Some(if sign == b'-' { -minutes } else { minutes })
    }
}

/// Days since 1970 of a date (Howard Hinnant's `days_from_civil`); `None` where there is none such.
fn days([year, month, day]: [i64; 3]) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid =
        (1990..2100).contains(&year) && (1..=12).contains(&month) && (1..=longest).contains(&day);
    valid.then_some(())?;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn moment(date: [i64; 3], clock: i64, zone: Option<i16>) -> Option<Moment> {
    let seconds = days(date)? * DAY + clock - i64::from(zone.unwrap_or(0)) * 60;
    Some(Moment { seconds, zone })
}

/// The latest year in which this moment is not to come; a clock may be ahead by a day.
fn without_year(month: i64, day: i64, clock: i64, now: i64) -> Option<Moment> {
    let [year, ..] = date(now.div_euclid(DAY));
    // February the 29th may be eight years ago.
    let found = (year - 8..=year + 1)
        .rev()
        .filter_map(|year| moment([year, month, day], clock, None));
    found.into_iter().find(|found| found.seconds <= now + DAY)
}

/// What begins with a digit.
fn numeric(line: &[u8], at: usize, before: Option<u8>) -> Option<Moment> {
    let text = &line[at..];
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match digits {
        // 2026-11-25T03:12:01+01:00, 2026/11/25 03:12:01
        4 => {
            let mut fields = Fields(text);
            let year = fields.digits(4)?;
            let between = fields.one_of(b"-/.")?;
            let month = fields.number(1, 2)?;
            fields.one_of(&[between])?;
            let day = fields.number(1, 2)?;
            // [2026-11-25][03:12:01]
            if let Some(rest) = fields.0.strip_prefix(b"][") {
                fields.0 = rest;
            } else {
                fields.one_of(b"T t_")?;
            }
            let clock = fields.clock()?;
            moment([year, month, day], clock, fields.zone())
        }
        1 | 2
            if matches!(
                text.get(digits..),
                Some([b'.' | b'/' | b'-', b'0'..=b'9', ..])
            ) =>
        {
            in_digits(text)
        }
        // 25/Nov/2026:03:12:01 +0000, 25 Nov 2026 03:12:01, 25-Nov-2026 03:12:01
        1 | 2 => {
            let mut fields = Fields(text);
            let day = fields.number(1, 2)?;
            let between = fields.one_of(b"/ -")?;
            let month = fields.month()?;
            fields.one_of(&[between])?;
            let year = fields.number(4, 4)?;
            fields.one_of(b": ")?;
            let clock = fields.clock()?;
            moment([year, month, day], clock, fields.zone())
        }
        // 261125  3:12:01, of MySQL until 5.6; 20261125 03:12:01 and 20261125T031201Z
        6 if at == 0 => {
            let mut fields = Fields(text);
            let date = [
                fields.digits(2)? + 2000,
                fields.digits(2)?,
                fields.digits(2)?,
            ];
            fields.one_of(b" ")?;
            let _ = fields.one_of(b" ");
            moment(date, fields.clock()?, None)
        }
        8 => {
            let mut fields = Fields(text);
            let date = [fields.digits(4)?, fields.digits(2)?, fields.digits(2)?];
            fields.one_of(b" T-")?;
            if let Some(clock) = Fields(fields.0).clock() {
                return moment(date, clock, None);
            }
            let [hour, minute, second] = [fields.digits(2)?, fields.digits(2)?, fields.digits(2)?];
            (hour < 24 && minute < 60 && second < 61).then_some(())?;
            let clock = hour * 3600 + minute * 60 + second;
            moment(date, clock, fields.zone())
        }
        // Seconds, milliseconds, microseconds and nanoseconds since 1970.
        10 | 13 | 16 | 19 if is_epoch(line, at, before) => {
            let seconds = Fields(text).digits(10)?;
            let sound = (631_152_000..4_102_444_800).contains(&seconds);
            sound.then_some(Moment {
                seconds,
                zone: Some(0),
            })
        }
        _ => None,
    }
}

/// 25.11.2026 03:12:01, 25/11/2026 03:12:01, 11/25/2026 3:12:01 AM; none where nobody can tell the day
/// from the month.
fn in_digits(text: &[u8]) -> Option<Moment> {
    let mut fields = Fields(text);
    let one = fields.number(1, 2)?;
    let between = fields.one_of(b"./-")?;
    let other = fields.number(1, 2)?;
    fields.one_of(&[between])?;
    let year = fields.number(4, 4)?;
    let _ = fields.one_of(b",");
    fields.one_of(b" T")?;
    let (clock, has_half) = fields.clock_of_halves()?;
    let is_day_first = between == b'.' || one > 12;
    let is_month_first = (between == b'/' && has_half) || other > 12 || one == other;
    let (month, day) = match (is_day_first, is_month_first) {
        (true, false) => (other, one),
        (false, true) => (one, other),
        _ => return None,
    };
    moment([year, month, day], clock, fields.zone())
}

/// Whether a number stands where a time does: at the beginning, or after a name of one.
fn is_epoch(line: &[u8], at: usize, before: Option<u8>) -> bool {
    if at == 0 || (at == 1 && matches!(before, Some(b'[' | b'('))) {
        return true;
    }
    let names: [&[u8]; 6] = [
        b"ts",
        b"time",
        b"timestamp",
        b"__REALTIME_TIMESTAMP",
        b"\"date",
        b"\"epochSecond",
    ];
    let mut head = line[..at].trim_ascii_end();
    while let Some((b'"' | b'\'' | b':' | b'=' | b' ' | b'\\', rest)) = head.split_last() {
        head = rest;
    }
    head.len() < at && names.iter().any(|name| head.ends_with(name))
}

/// `Nov 25 03:12:01`, `Wed Nov 25 03:12:01 2026`.
fn syslog(text: &[u8], now: i64) -> Option<Moment> {
    let mut fields = Fields(text);
    let month = fields.month()?;
    fields.one_of(b" ")?;
    let _ = fields.one_of(b" ");
    let day = fields.number(1, 2)?;
    // Nov 25, 2026 3:12:01 AM, of Java's own logging.
    if fields.one_of(b",").is_some() {
        fields.one_of(b" ")?;
        let year = fields.number(4, 4)?;
        let _ = fields.one_of(b",");
        fields.one_of(b" ")?;
        let (clock, _) = fields.clock_of_halves()?;
        return moment([year, month, day], clock, fields.zone());
    }
    fields.one_of(b" ")?;
    let mut with_year = Fields(fields.0);
    if let Some(year) = with_year.number(4, 4) {
        with_year.one_of(b" ")?;
        return moment([year, month, day], with_year.clock()?, with_year.zone());
    }
    let clock = fields.clock()?;
    let _ = fields.one_of(b" ");
    // Wed Nov 25 03:12:01 CET 2026
    let letters = fields
        .0
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase())
        .count();
    if (3..=4).contains(&letters) && fields.0.get(letters) == Some(&b' ') {
        let mut behind = Fields(&fields.0[letters + 1..]);
        if let Some(year) = behind
            .number(4, 4)
            .filter(|&year| days([year, month, day]).is_some())
        {
            return moment([year, month, day], clock, fields.zone());
        }
    }
    match fields.number(4, 4) {
        Some(year) if days([year, month, day]).is_some() => moment([year, month, day], clock, None),
        _ => without_year(month, day, clock, now),
    }
}

/// `I1125 03:12:01.123456`.
fn klog(line: &[u8], now: i64) -> Option<Moment> {
    let mut fields = Fields(&line[1..]);
    let (month, day) = (fields.digits(2)?, fields.digits(2)?);
    fields.one_of(b" ")?;
    without_year(month, day, fields.clock()?, now)
}

/// The date of a day since 1970 (`civil_from_days`).
fn date(days: i64) -> [i64; 3] {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    [year + era * 400 + i64::from(month <= 2), month, day]
}

/// As RFC 3339 has it, in the zone of the log; without one where the log tells none.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds + i64::from(self.zone.unwrap_or(0)) * 60;
        let [year, month, day] = date(local.div_euclid(DAY));
        let clock = local.rem_euclid(DAY);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        match self.zone {
            None => Ok(()),
            Some(0) => f.write_str("Z"),
            Some(zone) => {
                let sign = if zone < 0 { '-' } else { '+' };
                let zone = zone.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", zone / 60, zone % 60)
            }
        }
    }
}

impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29T15:00:00Z.
    const NOW: i64 = 1_795_964_400;

    fn told(line: &str) -> Option<String> {
        Moment::of(line.as_bytes(), NOW).map(|moment| moment.to_string())
    }

    #[test]
    fn a_line_tells_its_time_in_the_form_of_its_program() {
        for (line, time) in [
            ("2026-11-25T03:12:01Z x", "2026-11-25T03:12:01Z"),
            (
                "2026-11-25T03:12:01.123456+01:00 x",
                "2026-11-25T03:12:01+01:00",
            ),
            ("2026-11-25 03:12:01,123 ERROR x", "2026-11-25T03:12:01"),
            (
                "2026-11-25 03:12:01.123 UTC [7] FATAL: x",
                "2026-11-25T03:12:01Z",
            ),
            ("[2026-11-25 03:12:01] php.ERROR: x", "2026-11-25T03:12:01"),
            ("web-1  | 2026-11-25 03:12:01 x", "2026-11-25T03:12:01"),
            ("2026/11/25 03:12:01 [error] 1#1: x", "2026-11-25T03:12:01"),
            ("Nov 25 03:12:01 host app[1]: x", "2026-11-25T03:12:01"),
            ("Nov  5 03:12:01 host app[1]: x", "2026-11-05T03:12:01"),
            ("<13>Nov 25 03:12:01 host app: x", "2026-11-25T03:12:01"),
            ("Dec 31 23:59:59 host app[1]: x", "2025-12-31T23:59:59"),
            (
                "[Wed Nov 25 03:12:01.123456 2026] [proxy:error] x",
                "2026-11-25T03:12:01",
            ),
            (
                "10.0.0.1 - - [25/Nov/2026:03:12:01 +0100] \"GET",
                "2026-11-25T03:12:01+01:00",
            ),
            (
                "10.0.0.1:4711 [25/Nov/2026:03:12:01.123] fe be/s",
                "2026-11-25T03:12:01",
            ),
            ("1:M 25 Nov 2026 03:12:01.123 # x", "2026-11-25T03:12:01"),
            ("25-Nov-2026 03:12:01.123 SEVERE x", "2026-11-25T03:12:01"),
            ("261125  3:12:01 [ERROR] x", "2026-11-25T03:12:01"),
            (
                "E1125 03:12:01.123456 7 main.go:1] x",
                "2026-11-25T03:12:01",
            ),
            ("1795576321 x", "2026-11-25T03:12:01Z"),
            ("[1795576321.123] x", "2026-11-25T03:12:01Z"),
            (
                r#"{"level":"error","ts":1795576321.123,"msg":"x"}"#,
                "2026-11-25T03:12:01Z",
            ),
            (
                r#"{"time":1795576321123,"msg":"x"}"#,
                "2026-11-25T03:12:01Z",
            ),
            (
                r#"{"__REALTIME_TIMESTAMP":"1795576321123456"}"#,
                "2026-11-25T03:12:01Z",
            ),
            (
                r#"{"log":"x\n","stream":"stderr","time":"2026-11-25T03:12:01.5Z"}"#,
                "2026-11-25T03:12:01Z",
            ),
            (
                "time=\"2026-11-25T03:12:01Z\" level=error",
                "2026-11-25T03:12:01Z",
            ),
            ("20261125T031201Z x", "2026-11-25T03:12:01Z"),
            ("25.11.2026 03:12:01 x", "2026-11-25T03:12:01"),
            ("05.11.2026 03:12:01 x", "2026-11-05T03:12:01"),
            ("25/11/2026 03:12:01 x", "2026-11-25T03:12:01"),
            ("11/25/2026 1:02:03 PM x", "2026-11-25T13:02:03"),
            ("11/05/2026 12:02:03 AM x", "2026-11-05T00:02:03"),
            ("11/25/2026, 12:02:03 PM x", "2026-11-25T12:02:03"),
            ("Nov 25, 2026 3:12:01 PM com.a.B c", "2026-11-25T15:12:01"),
            ("Nov 25, 2026, 3:12:01\u{202f}AM x", "2026-11-25T03:12:01"),
            ("Wed Nov 25 03:12:01 UTC 2026 x", "2026-11-25T03:12:01Z"),
            ("Wed Nov 25 03:12:01 CET 2026 x", "2026-11-25T03:12:01"),
            (
                "2026-11-25T03:12:01+0100 h app[1]: x",
                "2026-11-25T03:12:01+01:00",
            ),
            ("1795576321.123456 h app[1]: x", "2026-11-25T03:12:01Z"),
            (
                "Wed 2026-11-25 03:12:01 CET h app[1]: x",
                "2026-11-25T03:12:01",
            ),
            ("[2026-11-25][03:12:01][ERROR] x", "2026-11-25T03:12:01"),
            (
                r#"{"date":1795576321.123456,"log":"x"}"#,
                "2026-11-25T03:12:01Z",
            ),
            (
                r#"{"instant":{"epochSecond":1795576321,"nanoOfSecond":1}}"#,
                "2026-11-25T03:12:01Z",
            ),
            ("Feb 29 03:12:01 h app[1]: x", "2024-02-29T03:12:01"),
            ("2024-02-29 00:00:00 leap", "2024-02-29T00:00:00"),
        ] {
            assert_eq!(told(line).as_deref(), Some(time), "{line}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for line in [
            "",
            "dial tcp 10.0.0.5:3306: connect",
            "[12345.678901] TCP: time wait bucket table overflow",
            "2026-13-25 03:12:01",
            "2026-02-29 03:12:01",
            "05/11/2026 03:12:01",
            "10.11.2026.5 03:12:01",
            "2026-11-25 25:12:01",
            "9999-11-25 03:12:01",
            "Can't connect to MySQL server on '127.0.0.1' (99)",
            "order 1795576321 failed",
            "update: 1795576321",
            "Nov",
            "Nov 25",
            "20261125",
        ] {
            assert_eq!(told(line), None, "{line}");
        }
    }

    #[test]
    fn any_bytes_are_no_panic() {
        use proptest::prelude::*;
        proptest!(|(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[0-9TZNov: /.,+-]{0,40}")| {
            let _ = Moment::of(&line, NOW);
            let _ = Moment::of(text.as_bytes(), NOW);
        });
    }
}
