//! Reports on the screens that people have: narrow and wide, without UTF-8, too short; and where
//! the picture of a run goes.

mod common;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{
    command, exit, has_namespaces, in_namespace, json, serve, stderr, stdout, text, twcheck,
};

const EXHAUSTED: &str = "tests/hosts/exhausted-6.18/proc";
const BUSY: &str = "tests/hosts/busy-server-6.18/proc";
const RECYCLE: &str = "tests/hosts/recycle-3.10/proc";

/// Every recorded host.
fn hosts() -> Vec<String> {
    let folders = fs::read_dir("tests/hosts").unwrap();
    let mut hosts: Vec<_> = folders
        .map(|folder| format!("{}/proc", folder.unwrap().path().display()))
        .collect();
    hosts.sort();
    assert!(hosts.len() >= 3, "{hosts:?}");
    hosts
}

/// What is for people to read of a recorded host.
const REPORTS: [&[&str]; 9] = [
    &["verdict"],
    &["verdict", "192.0.2.1:3306"],
    &["verdict", "2001:db8:1234:5678:9abc:def0:1234:5678"],
    &["states"],
    &["states", "--all", "--by", "flow", "--explain"],
    &["states", "192.0.2.1"],
    &["advise"],
    &["advise", "192.0.2.1:3306"],
    &[
        "advise",
        "--target-rate",
        "2000",
        "--target-connections",
        "60000",
    ],
];

fn on(host: &str, report: &[&str], environment: &[(&str, &str)]) -> Output {
    command(&[report, &["--proc-root", host]].concat())
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// `text` without the differences that wrapping makes.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The lines of `text` that are wider than `width`, unless a word is so long that no line has it
/// beside what stands before.
fn too_wide(text: &str, width: usize) -> Vec<&str> {
    const BEFORE: usize = 16;
    let is_broken = |line: &&str| {
        let mut words = line.split_whitespace();
        let is_long = |word: &str| word.chars().count() + BEFORE > width;
        line.chars().count() > width && !words.any(is_long)
    };
    text.lines().filter(is_broken).collect()
}

#[test]
fn a_width_in_columns_is_kept_on_a_pipe_and_no_word_is_broken() {
    for host in hosts() {
        for report in REPORTS {
            let unwrapped = on(&host, report, &[]);
            for width in [41, 60, 80, 200] {
                let wrapped = on(&host, report, &[("COLUMNS", &width.to_string())]);
                assert_eq!(exit(&wrapped), exit(&unwrapped));
                let shown = format!("{}{}", stdout(&wrapped), stderr(&wrapped));
                // watch swallows the empty line after one that fills its screen.
                let wide = too_wide(&shown, width - 1);
                assert_eq!(wide, Vec::<&str>::new(), "{report:?} {width}: {shown}");
                // The oracle: whatever is one word on an endless line is one here.
                let all = format!("{}{}", stdout(&unwrapped), stderr(&unwrapped));
                for word in all.split_whitespace() {
                    // A sparkline is as long as there is room for it.
                    // Addresses beneath a row have no heading, and are said to be "from" and "toward".
                    let is_there = shown
                        .split_whitespace()
                        .any(|shown| shown.eq_ignore_ascii_case(word));
                    let is_sparkline = word.contains('\u{2581}');
                    assert!(
                        is_there || is_sparkline,
                        "{report:?} {width}: {word} {shown}"
                    );
                }
            }
        }
    }
}

/// Whoever copies a command gets all of it. The oracle is the report that nobody wraps.
#[test]
fn a_command_stands_on_one_line_of_80_columns() {
    let mut seen = 0;
    for host in hosts() {
        for report in REPORTS {
            let wrapped = stdout(&on(&host, report, &[("COLUMNS", "80")]));
            let whole = stdout(&on(&host, report, &[]));
            for line in whole.lines() {
                for command in line.split('`').skip(1).step_by(2) {
                    seen += 1;
                    let quoted = format!("`{command}`");
                    assert!(wrapped.contains(&quoted), "{report:?} {command}: {wrapped}");
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

/// The oracle is the JSON, which nobody wraps.
#[test]
fn every_sentence_of_a_verdict_is_whole_in_every_width() {
    for host in hosts() {
        let report = json(&["verdict", "--json", "--proc-root", &host]);
        for width in ["40", "60", "80", "200"] {
            let shown = words(&stdout(&on(&host, &["verdict"], &[("COLUMNS", width)])));
            let summary = report["summary"].as_str().unwrap();
            assert!(shown.contains(&words(summary)), "{summary}: {shown}");
            for finding in report["findings"].as_array().unwrap() {
                let step = finding["next_step"].as_str().unwrap();
                assert!(shown.contains(&words(step)), "{step}: {shown}");
            }
        }
    }
}

#[test]
fn columns_that_are_no_width_are_ignored_on_a_pipe() {
    let verdict = |columns| {
        let environment = [("COLUMNS", columns)];
        stdout(&on(EXHAUSTED, &["verdict"], &environment))
    };
    let endless = stdout(&on(EXHAUSTED, &["verdict"], &[]));
    for columns in ["0", "-1", "abc", "", "80x24", "1e3"] {
        assert_eq!(verdict(columns), endless, "{columns:?}");
    }
    assert_eq!(verdict("1"), verdict("40"), "the narrowest");
    assert_eq!(verdict("1000000"), verdict("65535"), "the widest");
    let help = |columns| {
        let help = command(&["repro", "--help"])
            .env("COLUMNS", columns)
            .output()
            .unwrap();
        stdout(&help)
    };
    for columns in ["0", "-1", "abc", "1000000"] {
        assert_eq!(help(columns), help("101"), "{columns}");
    }
    assert_eq!(help("1"), help("40"));
}

/// Whatever asks for letters that a screen may not have gets ASCII.
const IN_ASCII: [&[(&str, &str)]; 6] = [
    &[("LC_ALL", "C")],
    &[("LC_ALL", "POSIX")],
    &[("LC_ALL", "de_DE.ISO-8859-1")],
    &[("LC_ALL", ""), ("LC_CTYPE", "C"), ("LANG", "en_US.UTF-8")],
    &[("LC_ALL", ""), ("LC_CTYPE", ""), ("LANG", "")],
    &[("LC_ALL", "C.UTF-8"), ("TERM", "dumb")],
];

fn assert_ascii(output: &Output, what: &str) {
    for stream in [&output.stdout, &output.stderr] {
        assert!(stream.is_ascii(), "{what}: {}", text(output));
    }
}

#[test]
fn without_utf8_every_report_is_in_ascii_and_says_the_same() {
    for host in hosts() {
        for report in REPORTS {
            for format in ["table", "plain", "sysctl"] {
                if format == "sysctl" && report[0] != "advise" {
                    continue;
                }
                let report = [report, &["--format", format]].concat();
                let in_utf8 = on(&host, &report, &[]);
                for environment in IN_ASCII {
                    let in_ascii = on(&host, &report, environment);
                    let what = format!("{host} {report:?} {environment:?}");
                    assert_ascii(&in_ascii, &what);
                    assert_eq!(exit(&in_ascii), exit(&in_utf8), "{what}");
                    assert!(!stdout(&in_ascii).contains('?') || stdout(&in_utf8).contains('?'));
                    // Only what has no ASCII is spelled in another way.
                    let known = stdout(&in_ascii);
                    for line in stdout(&in_utf8).lines().filter(|line| line.is_ascii()) {
                        let is_there = known.lines().any(|known| words(known) == words(line));
                        assert!(is_there, "{what}: {line}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_utf8_help_and_refusals_are_in_ascii() {
    for arguments in [
        &["--help"][..],
        &["verdict", "--help"],
        &["watch", "--help"],
        &["states", "--help"],
        &["advise", "--help"],
        &["repro", "--help"],
        &["repro", "-h"],
        &["states", "h\u{f6}st:80"],
        &["repro", "--set", "net.ipv4.\u{e9}=1"],
        &["repro", "--bind-address", "\u{e9}"],
        &["repro", "mysql://u:hunter2@h", "mysql://u:hunter2@h"],
        &["states", "--proc-root", "/nowhere/\u{e9}"],
        &["verdict", "--\u{e9}"],
    ] {
        let in_utf8 = twcheck(arguments);
        for environment in IN_ASCII {
            let environment = environment.iter().copied();
            let output = command(arguments).envs(environment).output().unwrap();
            assert_ascii(&output, &format!("{arguments:?}"));
            assert_eq!(exit(&output), exit(&in_utf8));
            let lines = |output: &Output| text(output).lines().count();
            assert_eq!(lines(&output), lines(&in_utf8), "{arguments:?}");
        }
    }
}

#[test]
fn json_is_the_same_in_every_locale() {
    for host in hosts() {
        for report in ["verdict", "states", "advise"] {
            let in_utf8 = on(&host, &[report, "--json"], &[]);
            for environment in IN_ASCII {
                let other = on(&host, &[report, "--json"], environment);
                assert_eq!(stdout(&other), stdout(&in_utf8), "{environment:?}");
            }
        }
    }
    let advice = stdout(&on(EXHAUSTED, &["advise", "--json"], &[]));
    assert!(
        advice.is_ascii() && advice.contains("\\u00d7"),
        "rate × time"
    );
}

#[test]
fn columns_stay_straight_in_ascii() {
    for environment in [
        &[("COLUMNS", "80"), ("LC_ALL", "C.UTF-8")],
        &[("COLUMNS", "80"), ("LC_ALL", "C")],
    ] {
        let shown = stdout(&on(EXHAUSTED, &["verdict"], environment));
        let rows: Vec<_> = shown
            .lines()
            .skip_while(|line| !line.starts_with("FROM"))
            .take_while(|line| !line.is_empty())
            .collect();
        assert_eq!(rows.len(), 3, "{shown}");
        let end = |row: &str, word: &str| {
            let start = row.find(word).unwrap_or_else(|| panic!("{word}: {row}"));
            row[..start + word.len()].chars().count()
        };
        let pace = rows[2].split_whitespace().nth(4).unwrap();
        let at_least = if environment[1].1 == "C" { ">=" } else { "≥" };
        assert!(pace.starts_with(at_least), "{shown}");
        assert_eq!(end(rows[0], "NOW/S"), end(rows[2], pace), "{shown}");
        let bars = |row: &str| row.split_whitespace().last().unwrap().chars().count();
        assert_eq!(bars(rows[1]), bars(rows[2]), "{shown}");
        assert!(rows.iter().all(|row| row.chars().count() <= 80), "{shown}");
    }
}

/// A name is anybody's choice: it cannot command a terminal, and in ASCII it is question marks.
#[test]
fn names_of_processes_are_shown_as_the_screen_can() {
    in_namespace("names_of_processes_are_shown_as_the_screen_can", || {
        fs::write(
            format!("/proc/{}/comm", std::process::id()),
            "名\u{1b}[31m\u{202e}x",
        )
        .unwrap();
        let server = serve("127.0.0.1:7101");
        let held: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        let owners = |environment: &[(&str, &str)]| {
            let output = command(&["verdict", "--owners", ":7101"])
                .envs(environment.iter().copied())
                .output()
                .unwrap();
            let shown = stdout(&output);
            let line = shown.lines().find(|line| line.starts_with("Owners: "));
            line.unwrap_or_else(|| panic!("{}", text(&output)))
                .to_owned()
        };
        assert!(owners(&[]).contains(": 名?[31m?x (pid "), "{}", owners(&[]));
        let in_ascii = owners(&[("LC_ALL", "C")]);
        assert!(in_ascii.contains(": ??[31m?x (pid "), "{in_ascii}");
        assert!(in_ascii.is_ascii());
        drop(held);
    });
}

/// The output of a command on a terminal of that size.
fn on_a_terminal((columns, lines): (u16, u16), environment: &str, arguments: &str) -> String {
    let command = format!(
        "stty cols {columns} rows {lines}; {environment} {} {arguments}",
        env!("CARGO_BIN_EXE_twcheck")
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    stdout(&output).replace('\r', "")
}

/// What stays on the terminal: what a progress line overwrote is gone.
fn what_stays(shown: &str) -> String {
    let lines = shown
        .lines()
        .map(|line| line.rsplit("\u{1b}[2K").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_terminal_is_never_too_narrow() {
    if !has_namespaces("a_terminal_is_never_too_narrow") {
        return;
    }
    for arguments in [
        "states --explain --by flow",
        &format!("states --by flow --explain --proc-root {EXHAUSTED}"),
        &format!("verdict --proc-root {EXHAUSTED}"),
        &format!("verdict --proc-root {BUSY}"),
        &format!("verdict --proc-root {RECYCLE}"),
        "verdict localhost:3306",
        "verdict 2001:db8:1234:5678:9abc:def0:1234:5678",
        &format!("verdict 192.0.2.1:3306 --proc-root {EXHAUSTED}"),
        "states 127.0.0.1",
        &format!("advise --proc-root {RECYCLE}"),
        &format!("advise --target-connections 60000 --target-rate 9 --proc-root {RECYCLE}"),
        "repro --connections 5",
        "repro --duration 1500ms --rate 200",
        "verdict --help",
        "watch --help",
        "repro --help",
    ] {
        for width in [40, 60, 80] {
            // The examples of --help are as long as what is typed.
            if arguments.ends_with("--help") && width < 80 {
                continue;
            }
            let shown = what_stays(&on_a_terminal((width, 90), "NO_COLOR=1", arguments));
            assert!(shown.lines().count() > 2, "{arguments}: {shown}");
            let wide = too_wide(&shown, width.into());
            assert_eq!(wide, Vec::<&str>::new(), "{arguments} {width}");
        }
    }
}

#[test]
fn a_terminal_that_tells_no_width_has_that_of_columns_or_80() {
    let verdict = format!("verdict --proc-root {EXHAUSTED}");
    let widest = |size, environment| {
        let shown = on_a_terminal(size, environment, &verdict);
        shown.lines().map(|line| line.chars().count()).max()
    };
    assert_eq!(widest((0, 0), ""), widest((80, 90), ""));
    assert_eq!(widest((0, 0), "COLUMNS=60"), widest((60, 90), ""));
    assert_eq!(widest((80, 90), "COLUMNS=60"), widest((80, 90), ""));
    assert_ne!(widest((60, 90), ""), widest((80, 90), ""));
}

#[test]
fn a_sentence_that_scrolled_away_stands_at_the_end_once_more() {
    for (arguments, sentence) in [
        (
            format!("verdict --proc-root {EXHAUSTED}"),
            "CRITICAL: No port is free from 192.0.2.1 toward",
        ),
        (
            format!("advise --proc-root {RECYCLE}"),
            "This machine bears at most 470.5 connections/s",
        ),
    ] {
        let times = |size, environment| {
            let shown = on_a_terminal(size, environment, &arguments);
            let at: Vec<_> = shown
                .lines()
                .enumerate()
                .filter(|(_, line)| line.starts_with(sentence))
                .map(|(number, _)| shown.lines().count() - number)
                .collect();
            at
        };
        let [_, last] = times((80, 12), "NO_COLOR=1")[..] else {
            panic!("{arguments}");
        };
        assert!(last <= 3, "it is on the last lines");
        assert_eq!(times((80, 200), "NO_COLOR=1").len(), 1, "{arguments}");
        assert_eq!(times((80, 0), "NO_COLOR=1").len(), 1, "{arguments}");
        let on_a_pipe = |lines| {
            let piped = command(&arguments.split(' ').collect::<Vec<_>>())
                .envs([("COLUMNS", "80"), ("LINES", lines)])
                .output()
                .unwrap();
            stdout(&piped).matches(sentence).count()
        };
        let told = ["12", "200", "", "0", "abc"].map(on_a_pipe);
        assert_eq!(told, [2, 1, 1, 1, 1], "{arguments}");
    }
}

/// To the line: a report that leaves no line for the prompt is too long.
#[test]
fn a_report_that_just_fits_is_not_repeated() {
    let verdict = format!("verdict --format table --proc-root {EXHAUSTED} 2>/dev/null");
    let lines = |height| {
        let shown = on_a_terminal((80, height), "NO_COLOR=1", &verdict);
        shown.lines().count()
    };
    let whole = lines(200);
    let height = u16::try_from(whole).unwrap();
    assert_eq!(lines(height + 1), whole);
    assert_eq!(
        lines(height),
        whole + 3,
        "a blank line and two of the sentence"
    );
}

#[test]
fn the_outcome_of_a_run_that_scrolled_away_stands_at_the_end_once_more() {
    if !has_namespaces("the_outcome_of_a_run_that_scrolled_away_stands_at_the_end_once_more") {
        return;
    }
    let shown = what_stays(&on_a_terminal((80, 8), "", "repro --connections 5"));
    let sentence = "Ports did not run out: stopped";
    assert_eq!(shown.matches(sentence).count(), 2, "{shown}");
    assert!(shown.lines().last().unwrap().contains(sentence), "{shown}");
}

#[test]
fn colour_is_on_a_terminal_only_and_never_with_no_color() {
    let verdict = format!("verdict --proc-root {EXHAUSTED}");
    let on_a_terminal = |environment| on_a_terminal((80, 90), environment, &verdict);
    assert!(on_a_terminal("").contains("\u{1b}[31mCRITICAL"));
    assert!(on_a_terminal("LC_ALL=C").contains("\u{1b}[31mCRITICAL"));
    assert!(!on_a_terminal("NO_COLOR=1").contains('\u{1b}'));
    assert!(!on_a_terminal("TERM=dumb").contains('\u{1b}'));
    let piped = twcheck(&["verdict", "--proc-root", EXHAUSTED]);
    assert!(!stdout(&piped).contains('\u{1b}'));
}

#[test]
fn a_progress_line_is_there_in_ascii_and_never_on_a_dumb_terminal() {
    if !has_namespaces("a_progress_line_is_there_in_ascii_and_never_on_a_dumb_terminal") {
        return;
    }
    let run = "repro --duration 1500ms --rate 200";
    for environment in ["", "LC_ALL=C"] {
        let shown = on_a_terminal((60, 90), environment, run);
        assert!(shown.contains(" made, "), "{shown:?}");
        let is_ascii = environment == "LC_ALL=C";
        assert_eq!(shown.is_ascii(), is_ascii, "{shown:?}");
    }
    let dumb = on_a_terminal((60, 90), "TERM=dumb", run);
    assert!(dumb.is_ascii() && !dumb.contains('\u{1b}'), "{dumb:?}");
    assert!(!dumb.contains(" made, "), "{dumb:?}");
}

/// A run that ends at once, and its picture at `path`.
const RUN: [&str; 4] = ["repro", "--connections", "9", "--svg"];

fn draw(path: &str, more: &[&str]) -> Output {
    twcheck(&[&RUN[..], &[path], more].concat())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn assert_picture(text: &str) {
    let text = text.trim();
    assert!(
        text.starts_with("<svg") && text.ends_with("</svg>"),
        "{text}"
    );
    assert_eq!(text.matches("<svg").count(), 1);
}

#[test]
fn a_picture_on_standard_output_is_alone_there() {
    if !has_namespaces("a_picture_on_standard_output_is_alone_there") {
        return;
    }
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = draw(name, &[]);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        assert_picture(&stdout(&output));
        let report = stderr(&output);
        assert!(report.contains("stopped after 9 connections"), "{report}");
        assert!(!Path::new("-").exists());
        for format in ["--json", "--format=plain"] {
            let refused = draw(name, &[format]);
            assert_eq!((exit(&refused), stdout(&refused)), (3, String::new()));
            let hint = "hint: name a file for the picture";
            assert!(stderr(&refused).contains(hint), "{}", text(&refused));
        }
    }
    // What a file held before is not written over.
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(&log, "before\n").unwrap();
    let file = fs::File::options().append(true).open(&log).unwrap();
    let status = command(&[&RUN[..], &["/dev/stdout"]].concat())
        .stdout(file)
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    let held = fs::read_to_string(&log).unwrap();
    assert_picture(held.strip_prefix("before\n").unwrap());
}

#[test]
fn no_picture_is_left_of_a_run_that_did_not_begin_or_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    let old = folder.path().join("old.svg");
    fs::write(&old, "the last one").unwrap();
    for file in [&path, &old] {
        for more in [
            &["--set", "net.ipv4.no_such_setting=1"][..],
            &["--host", "nowhere.invalid"],
            &["--host", "127.0.0.1", "--port", "1"],
            &["--host", "127.0.0.1", "--port", "1", "--json"],
        ] {
            let output = draw(file.to_str().unwrap(), more);
            assert_eq!(exit(&output), 3, "{}", text(&output));
            assert_eq!(names(folder.path()), ["old.svg"], "{more:?}");
            assert_eq!(fs::read_to_string(&old).unwrap(), "the last one");
        }
    }
}

#[test]
fn a_picture_takes_the_place_of_the_last_one_when_it_is_whole() {
    if !has_namespaces("a_picture_takes_the_place_of_the_last_one_when_it_is_whole") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    for _ in 0..2 {
        let output = draw(path.to_str().unwrap(), &[]);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        assert_picture(&fs::read_to_string(&path).unwrap());
        assert_eq!(names(folder.path()), ["run.svg"]);
    }
    assert_eq!(exit(&draw("/dev/null", &[])), 0);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert_eq!(exit(&draw("/dev/full", &[])), 3);
}
