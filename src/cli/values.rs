//! What is typed after a flag, and what it has to be. A value that is refused is told the bound, the
//! reason and an example; clap puts the value and its flag before that.

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::model::Destination;
use crate::repro::Setting;
use crate::secret::Secret;
use crate::system::LONGEST_SAMPLE;

/// More than a run makes in its longest time, a day at 10,000 a second, and than any machine has
/// ports for.
const MOST_CONNECTIONS: u64 = 1_000_000_000;
/// So many threads, or connections of a pool, and one machine is busy with these alone.
const MOST_AT_ONCE: u64 = 1000;
/// One in a quarter of an hour: it is shown with three decimals.
const SLOWEST: f64 = 0.001;
/// More than the loopback of one machine carries.
const FASTEST: f64 = 1e6;
/// How long a run, or the use of one connection, may take.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A value that `parse` reads or refuses in words, whatever bytes are typed for it.
fn typed<T, F>(parse: F) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(move |value| match value.to_str() {
        Some(text) => parse(text),
        // What is wrong with the part that can be read says more.
        None => parse(&value.to_string_lossy()).and(Err("it is not UTF-8".into())),
    })
}

/// A whole number `of` something within `bounds`.
fn whole<T>(
    of: &'static str,
    bounds: RangeInclusive<u64>,
    example: &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: TryFrom<u64> + Clone + Send + Sync + 'static,
{
    typed(move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (low, high) = bounds.clone().into_inner();
                format!("it is {of}, a whole number from {low} to {high}: for example {example}")
            })
    })
}

/// How many flows to list.
pub fn top() -> impl TypedValueParser<Value = usize> {
    let most = u64::from(u32::MAX);
    whole("how many flows to list, 0 for all", 0..=most, "20")
}

/// The number of a process: `PID_MAX_LIMIT` (include/linux/threads.h).
pub fn pid() -> impl TypedValueParser<Value = i32> {
    whole("the number of a process", 1..=1 << 22, "4711")
}

/// A network namespace by its name, number or path.
pub fn netns() -> impl TypedValueParser<Value = PathBuf> {
    typed(|text| match text {
        "" => Err("it is a name of `ip netns`, a number of `lsns -t net`, or a path".into()),
        _ => Ok(PathBuf::from(text)),
    })
}

/// A TCP port.
pub fn port() -> impl TypedValueParser<Value = u16> {
    whole("a TCP port", 1..=u64::from(u16::MAX), "3306")
}

/// A number of connections.
pub fn connections() -> impl TypedValueParser<Value = u64> {
    whole("a number of connections", 1..=MOST_CONNECTIONS, "40000")
}

/// A number of threads.
pub fn threads() -> impl TypedValueParser<Value = usize> {
    whole("a number of threads", 1..=MOST_AT_ONCE, "8")
}

/// The size of a pool.
pub fn pool() -> impl TypedValueParser<Value = usize> {
    whole("a number of open connections", 1..=MOST_AT_ONCE, "8")
}

/// A share of the usable ports.
pub fn percent() -> impl TypedValueParser<Value = f64> {
    typed(|text| {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        match number.parse::<f64>() {
            // No share is −0.
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(share.abs()),
            _ => Err("it is a percentage of the usable ports, 0 to 100: for example 80".into()),
        }
    })
}

/// A pace.
pub fn per_second() -> impl TypedValueParser<Value = f64> {
    typed(|text| match text.parse() {
        Ok(rate) if (SLOWEST..=FASTEST).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "it is connections per second, {SLOWEST} to {FASTEST}: for example 400"
        )),
    })
}

/// A time for a run, or for the use of a connection.
pub fn time() -> impl TypedValueParser<Value = Duration> {
    typed(|text| {
        within(text, LONGEST).ok_or_else(|| {
            "it is a number and a unit, more than nothing and at most a day: for example 20ms, 90s \
             or 2min"
                .into()
        })
    })
}

/// A time between two looks.
pub fn every() -> impl TypedValueParser<Value = Duration> {
    const SHORTEST: Duration = Duration::from_millis(100);
    typed(|text| {
        let time = within(text, LONGEST).filter(|time| *time >= SHORTEST);
        time.ok_or_else(|| {
            "it is a number and a unit, from 100ms to a day: for example 2s or 1min".into()
        })
    })
}

/// A time for `--sample`.
pub fn sample() -> impl TypedValueParser<Value = Duration> {
    typed(|text| {
        within(text, LONGEST_SAMPLE).ok_or_else(|| {
            format!(
                "it is a number and a unit, more than nothing and {} at most, for a processor is \
                 busy all the while: for example 5s",
                humantime::format_duration(LONGEST_SAMPLE)
            )
        })
    })
}

fn within(text: &str, longest: Duration) -> Option<Duration> {
    let time = humantime::parse_duration(text).ok()?;
    (!time.is_zero() && time <= longest).then_some(time)
}

/// A destination.
pub fn destination() -> impl TypedValueParser<Value = Destination> {
    OsStringValueParser::new().try_map(|typed| match typed.to_str() {
        Some(text) => Destination::parse(text),
        None => Err("it is not UTF-8: type a host and a port, as db.example:3306".into()),
    })
}

/// One of the addresses that connections can come from.
pub fn source() -> impl TypedValueParser<Value = IpAddr> {
    typed(|text| {
        let example = "for example 192.0.2.2,192.0.2.3";
        let address = IpAddr::from_str(text)
            .map_err(|_| {
                format!("it is an IP address, or several with commas between them: {example}")
            })?
            .to_canonical();
        let is_nobody = address.is_unspecified()
            || address.is_multicast()
            || address == IpAddr::V4(Ipv4Addr::BROADCAST);
        if is_nobody {
            return Err(format!(
                "no connection comes from such an address: {example}"
            ));
        }
        Ok(address)
    })
}

/// A sysctl and its value.
pub fn setting() -> impl TypedValueParser<Value = Setting> {
    typed(Setting::from_str)
}

/// A file; `~/` that a shell has left, as behind `=`, is the user's own folder.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|typed| {
        let path = PathBuf::from(typed);
        let at_home = |rest: &Path| Some(env::home_dir()?.join(rest));
        let in_home = path.strip_prefix("~").ok().and_then(at_home);
        in_home.unwrap_or(path)
    })
}

/// The name or address of a server.
pub fn host() -> impl TypedValueParser<Value = String> {
    typed(|text| match text.trim() {
        "" => Err("it is empty: type a name or an address, as db.example".into()),
        _ => Ok(text.to_owned()),
    })
}

/// The name of a user or a database, which may be empty.
pub fn name() -> impl TypedValueParser<Value = String> {
    typed(|text| Ok(text.to_owned()))
}

/// A URL with, perhaps, a password.
pub fn url() -> impl TypedValueParser<Value = Secret> {
    typed(|text| Ok(Secret::from(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    use clap::Parser;

    use crate::cli::Cli;
    use crate::cli::tests::usage;

    const NUMBERS: [&str; 10] = [
        "-1", "-0.5", "abc", "", " ", "NaN", "inf", "-inf", "1_000", "1e400",
    ];
    const TIMES: [&str; 12] = [
        "-1",
        "-1s",
        "abc",
        "",
        "NaN",
        "inf",
        "5",
        "5 parsecs",
        "0s",
        "2days",
        "400000000000y",
        "99999999999999999999s",
    ];
    const ADDRESSES: [&str; 6] = ["-1", "abc", "", "192.0.2.2/24", "192.0.2.256", "[::1]"];

    /// Each value is refused after the flag of `line`, in these words, as is one that is not UTF-8.
    fn assert_refused(line: &str, shown: &str, values: &[&str], said: &str) {
        let broken = OsStr::from_bytes(b"7\xff");
        let values = values.iter().map(OsStr::new).chain([broken]);
        for value in values {
            let apart = line.split_whitespace().map(OsString::from);
            let apart: Vec<_> = apart.chain([value.to_owned()]).collect();
            let mut joined = OsString::from(line.split_once(' ').unwrap().1);
            joined.push("=");
            joined.push(value);
            let joined = [line.split_once(' ').unwrap().0.into(), joined];
            for arguments in [&apart[..], &joined] {
                assert_eq!(
                    usage(arguments).to_string(),
                    format!(
                        "error: invalid value '{}' for '{shown}': {said}\n\n\
                         For more information, try '--help'.\n",
                        value.to_string_lossy()
                    ),
                    "{arguments:?}"
                );
            }
        }
    }

    fn assert_taken(line: &str, values: &[&str]) {
        for value in values {
            let arguments = ["twcheck"].into_iter().chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(arguments.chain([*value])) {
                panic!("{line} {value}: {error}");
            }
        }
    }

    #[test]
    fn a_number_out_of_bounds_is_told_the_bound() {
        let top = "it is how many flows to list, 0 for all, a whole number from 0 to 4294967295: \
                   for example 20";
        let connections = "it is a number of connections, a whole number from 1 to 1000000000: for \
                           example 40000";
        for (line, shown, beyond, said, fine) in [
            (
                "verdict --top",
                "--top <N>",
                &["1.5", "4294967296"][..],
                top,
                &["0", "1", "4294967295"],
            ),
            (
                "states --top",
                "--top <N>",
                &["0x10", "99999999999999999999999"],
                top,
                &["0", "10", "+7"],
            ),
            (
                "advise --target-connections",
                "--target-connections <N>",
                &["0", "1000000001"],
                connections,
                &["1", "40000", "1000000000"],
            ),
            (
                "repro --connections",
                "--connections <N>",
                &["0", "18446744073709551616"],
                connections,
                &["1", "28232", "1000000000"],
            ),
            (
                "repro --threads",
                "--threads <N>",
                &["0", "1001"],
                "it is a number of threads, a whole number from 1 to 1000: for example 8",
                &["1", "8", "1000"],
            ),
            (
                "repro --pool",
                "--pool <N>",
                &["0", "1001"],
                "it is a number of open connections, a whole number from 1 to 1000: for example 8",
                &["1", "8", "1000"],
            ),
            (
                "repro --port",
                "--port <PORT>",
                &["0", "65536", "3306/tcp", "mysql"],
                "it is a TCP port, a whole number from 1 to 65535: for example 3306",
                &["1", "3306", "65535"],
            ),
        ] {
            assert_refused(line, shown, &[&NUMBERS, beyond].concat(), said);
            assert_taken(line, fine);
        }
    }

    #[test]
    fn a_share_out_of_bounds_is_told_the_bound() {
        let said = "it is a percentage of the usable ports, 0 to 100: for example 80";
        for (line, shown) in [
            ("verdict --warn", "--warn <PERCENT>"),
            ("verdict --crit", "--crit <PERCENT>"),
        ] {
            let beyond = ["100.1", "-5%", "%", "5%%", "80 percent"];
            assert_refused(line, shown, &[&NUMBERS[..], &beyond].concat(), said);
            assert_taken(line, &["0", "-0", "0.5", "80%", "80 %", "100"]);
        }
    }

    #[test]
    fn a_pace_out_of_bounds_is_told_the_bound() {
        let said = "it is connections per second, 0.001 to 1000000: for example 400";
        for (line, shown) in [
            ("advise --target-rate", "--target-rate <R>"),
            ("repro --rate", "--rate <R>"),
        ] {
            let beyond = ["0", "-0", "1e-300", "1000001", "400/s", "10.0.0.5:3306"];
            assert_refused(line, shown, &[&NUMBERS[..], &beyond].concat(), said);
            assert_taken(line, &["0.001", "0.5", "400", "1e3", "1000000"]);
        }
    }

    #[test]
    fn a_time_out_of_bounds_is_told_the_bound() {
        let day = "it is a number and a unit, more than nothing and at most a day: for example \
                   20ms, 90s or 2min";
        for (line, shown) in [
            ("advise --busy", "--busy <D>"),
            ("repro --duration", "--duration <D>"),
        ] {
            assert_refused(line, shown, &TIMES, day);
            assert_taken(line, &["1ns", "20ms", "1m 30s", "24h"]);
        }
        let every = "it is a number and a unit, from 100ms to a day: for example 2s or 1min";
        assert_refused(
            "verdict --every",
            "--every <D>",
            &[&TIMES[..], &["99ms", "25h"]].concat(),
            every,
        );
        assert_taken("verdict --every", &["100ms", "2s", "1min", "24h"]);
        let minute = "it is a number and a unit, more than nothing and 1m at most, for a processor \
                      is busy all the while: for example 5s";
        let beyond = [&TIMES[..], &["61s", "5min"]].concat();
        assert_refused("verdict --sample", "--sample <D>", &beyond, minute);
        assert_taken("verdict --sample", &["1ms", "5s", "1min"]);
    }

    #[test]
    fn an_address_that_nobody_connects_from_is_told_so() {
        let (line, shown) = ("repro --bind-address", "--bind-address <ADDR,…>");
        let kind = "it is an IP address, or several with commas between them: for example \
                    192.0.2.2,192.0.2.3";
        assert_refused(line, shown, &ADDRESSES, kind);
        for nobody in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:0.0.0.0",
        ] {
            let error = usage(&["repro", "--bind-address", nobody]);
            assert_eq!(
                error.to_string().lines().next().unwrap(),
                format!(
                    "error: invalid value '{nobody}' for '{shown}': no connection comes from such \
                     an address: for example 192.0.2.2,192.0.2.3"
                )
            );
        }
        let error = usage(&["repro", "--bind-address", "192.0.2.2,"]);
        assert_eq!(
            error.to_string().lines().next().unwrap(),
            format!("error: invalid value '' for '{shown}': {kind}")
        );
        assert_taken(
            line,
            &["192.0.2.2", "192.0.2.2,192.0.2.3", "::1", "127.0.0.2"],
        );
    }

    #[test]
    fn a_destination_is_a_host_a_port_or_both() {
        let forms = "10.0.0.5:3306, :3306, db.example or [2001:db8::5]:3306";
        let begins = format!("a host name begins with a letter or a digit: type {forms}");
        let not_a_port = format!("a port is a number from 1 to 65535: type {forms}");
        let alone = "it is no URL, path or network: a host and a port alone, as db.example:3306";
        let utf8 = "it is not UTF-8: type a host and a port, as db.example:3306";
        for (typed, said) in [
            (&b""[..], &*format!("it is empty: type {forms}")),
            (b"-1", &begins),
            (
                b"3306",
                &format!("a port alone has a colon before it: type {forms}"),
            ),
            (
                b":",
                "after the colon comes a port, 1 to 65535; without one leave the colon out",
            ),
            (b":0", &not_a_port),
            (b":-1", &not_a_port),
            (b":abc", &not_a_port),
            (b":65536", &not_a_port),
            (b":99999999999999999999999", &not_a_port),
            (b"10.0.0.5:NaN", &not_a_port),
            (b"a:b:c", &format!("it has too many colons: type {forms}")),
            (b"http://db/", alone),
            (b"10.0.0.0/8", alone),
            (b"db\xff:3306", utf8),
            (b"\xff", utf8),
        ] {
            for line in [
                &["verdict"][..],
                &["states"],
                &["advise"],
                &["advise", "--flow"],
            ] {
                let shown = if line.len() > 1 {
                    "--flow <HOST:PORT>"
                } else {
                    "[HOST:PORT]"
                };
                let typed = OsStr::from_bytes(typed);
                let line: Vec<_> = line.iter().map(OsStr::new).chain([typed]).collect();
                assert_eq!(
                    usage(&line).to_string(),
                    format!(
                        "error: invalid value '{}' for '{shown}': {said}\n\n\
                         For more information, try '--help'.\n",
                        typed.to_string_lossy()
                    )
                );
            }
        }
    }

    #[test]
    fn a_setting_is_a_sysctl_and_its_value() {
        let example = "for example net.ipv4.tcp_tw_reuse=1";
        let (line, shown) = ("repro --set", "--set <KEY=VALUE>");
        assert_refused(
            line,
            shown,
            &["-1", "abc", "", "net.ipv4.tcp_tw_reuse"],
            &format!("a setting is KEY=VALUE, {example}"),
        );
        assert_taken(
            line,
            &[
                "net.ipv4.tcp_tw_reuse=1",
                "net.ipv4.ip_local_reserved_ports=",
            ],
        );
    }

    #[test]
    fn a_text_is_taken_as_it_is_if_it_is_utf8() {
        for (line, shown) in [
            ("repro --host", "--host <HOST>"),
            ("repro --user", "--user <USER>"),
            ("repro --database", "--database <DATABASE>"),
        ] {
            assert_refused(line, shown, &[], "it is not UTF-8");
            assert_taken(line, &["db", "größe", " a "]);
        }
        assert_taken("repro --user", &[""]);
        assert_eq!(
            usage(&["repro", "--host", ""])
                .to_string()
                .lines()
                .next()
                .unwrap(),
            "error: invalid value '' for '--host <HOST>': it is empty: type a name or an address, \
             as db.example"
        );
    }

    /// Whatever bytes are typed wherever, it is a refusal, and no panic.
    #[test]
    fn arguments_that_are_not_utf8_are_refused() {
        let broken = OsStr::from_bytes(b"\xff");
        let flag = OsStr::from_bytes(b"--\xff");
        let short = OsStr::from_bytes(b"-\xff");
        for (arguments, said) in [
            (vec![broken], "unrecognized subcommand '\u{fffd}'"),
            (vec![flag], "unexpected argument '--\u{fffd}' found"),
            (
                vec![OsStr::new("states"), flag],
                "unexpected argument '--\u{fffd}' found",
            ),
            (
                vec![OsStr::new("states"), short],
                "unexpected argument '-\u{fffd}' found",
            ),
            (
                vec![OsStr::new("states"), OsStr::new("--format"), broken],
                "invalid value '\u{fffd}' for '--format <FORMAT>'",
            ),
            (
                vec![OsStr::new("states"), OsStr::new("--source"), broken],
                "invalid value '\u{fffd}' for '--source <SOURCE>'",
            ),
            (
                vec![OsStr::new("repro"), broken],
                "invalid value '\u{fffd}' for '[SERVER]': it is not UTF-8",
            ),
        ] {
            let error = usage(&arguments).to_string();
            assert_eq!(error.lines().next().unwrap(), format!("error: {said}"));
        }
    }
}
