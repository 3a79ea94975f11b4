//! The command line as it is typed: refusals, formats, pipes and terminals.

mod common;

use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use common::{exit, has_namespaces, stderr, stdout, text, twcheck};

const BUSY: &str = "tests/hosts/busy-server-6.18/proc";
const EXHAUSTED: &str = "tests/hosts/exhausted-6.18/proc";

#[test]
fn every_refusal_is_exit_3_and_says_what_to_type() {
    for (arguments, said) in [
        (&[][..], "Usage: twcheck"),
        (&["verdikt"], "similar subcommand exists: 'verdict'"),
        (&["verdict", "--warm"], "'--warn'"),
        (
            &["verdict", "--warn", "90", "--crit", "60"],
            "hint: --warn 60 --crit 90",
        ),
        (
            &["verdict", "--warn", "101"],
            "it is a percentage of the usable ports, 0 to 100: for example 80",
        ),
        (&["verdict", "--crit", "NaN"], "for example 80"),
        (&["verdict", "--sample", "400000000000y"], "--sample"),
        (
            &["verdict", "--sample", "5min"],
            "1m at most: for example 5s",
        ),
        (&["verdict", "--top", "-1"], "unexpected argument"),
        (
            &["verdict", "--json", "--format", "plain"],
            "cannot be used with",
        ),
        (
            &["advise", "--busy", "20ms"],
            "hint: twcheck advise --target-rate",
        ),
        (
            &["advise", "--target-connections", "9", "--busy", "20ms"],
            "--busy says more about the rate of --target-rate",
        ),
        (&["advise", "--target-rate", "0"], "--target-rate"),
        (
            &["advise", "--target-connections", "0"],
            "--target-connections",
        ),
        (
            &["advise", "--flow", "10.0.0.5:"],
            "1 to 65535; without one leave the colon out",
        ),
        (
            &["advise", "--target-rate", "9", "--busy", "0s"],
            "at most a day: for example 20ms",
        ),
        (
            &["advise", "--prove", "--format", "sysctl"],
            "hint: first twcheck advise --prove",
        ),
        (
            &["advise", "--prove", "--proc-root", BUSY],
            "cannot be used with",
        ),
        (
            &["states", "--source", "netstat"],
            "possible values: auto, sock_diag, proc",
        ),
        (
            &["states", "--proc-root", "/nonexistent"],
            "hint: --proc-root takes a folder",
        ),
        (
            &["states", "--proc-root", BUSY, "--source", "sock_diag"],
            "hint: leave one of the two out",
        ),
    ] {
        assert_refused(arguments, said);
    }
}

#[test]
fn every_refusal_of_a_destination_is_exit_3_and_says_what_to_type() {
    for command in ["verdict", "states", "advise"] {
        for (typed, said) in [
            ("", "it is empty: type 10.0.0.5:3306"),
            (":0", "a port is a number from 1 to 65535"),
            (":99999", "a port is a number from 1 to 65535"),
            ("a:b:c", "too many colons"),
            ("::1:3306", "Type [::1]:3306"),
            (
                "mysql://db:3306",
                "a host and a port alone, as db.example:3306",
            ),
            ("nowhere.invalid", "hint: name its address instead"),
            ("fe80::1%none0", "there is no interface \"none0\" here"),
        ] {
            assert_refused(&[command, typed], said);
        }
        assert_refused(&[command, "10.0.0.5", "10.0.0.6"], "unexpected argument");
        let typed = std::ffi::OsStr::from_bytes(b"db\xff:3306");
        let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
            .arg(command)
            .arg(typed)
            .output()
            .unwrap();
        assert_eq!(exit(&output), 3, "{}", text(&output));
        let said = "it is not UTF-8: type a host and a port";
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    for (arguments, said) in [
        (
            &["verdict", "--connect"][..],
            "hint: twcheck verdict --connect",
        ),
        (&["verdict", "--connect", ":3306"], "a host and a port"),
        (&["verdict", "--connect", "10.0.0.5"], "a host and a port"),
        (
            &["verdict", "--connect", "10.0.0.5:80", "--proc-root", BUSY],
            "cannot be used with",
        ),
        (
            &["advise", "--prove", "localhost"],
            "hint: leave out --prove or the destination",
        ),
        (
            &["advise", "10.0.0.5:80", "--flow", "10.0.0.5:80"],
            "cannot be used with",
        ),
    ] {
        assert_refused(arguments, said);
    }
}

#[test]
fn every_refusal_of_a_run_is_exit_3_and_says_what_to_type() {
    for (arguments, said) in [
        (
            &["repro", "--set", "vm.swappiness=1"][..],
            "which begin with net.ipv4.",
        ),
        (
            &["repro", "--set", "net.ipv4.tcp_tw_reuse"],
            "a setting is KEY=VALUE",
        ),
        (
            &["repro", "--set", "net.ipv4.tcp_tw_reuse=1", "--host", "h"],
            "hint: leave the server out, or --set",
        ),
        (&["repro", "--user", "app"], "hint: add --host HOST"),
        (&["repro", "--tls"], "hint: add --host HOST"),
        (
            &["repro", "--rate", "0"],
            "above 0 and at most 1000000: for example 400",
        ),
        (&["repro", "--pool", "0"], "from 1 to 1000: for example 8"),
        (
            &["repro", "--threads", "many"],
            "from 1 to 1000: for example 8",
        ),
        (
            &["repro", "--pool", "8", "--source", "192.0.2.2"],
            "hint: leave out --pool or --source",
        ),
        (
            &["repro", "--protocol", "tcp", "--pool", "8"],
            "hint: leave out --pool, or --protocol tcp",
        ),
        (
            &["repro", "--protocol", "tcp", "--close", "abrupt"],
            "hint: leave out --close, or --protocol tcp",
        ),
        (
            &["repro", "--source", "192.0.2.2,192.0.2.2"],
            "hint: name each address once",
        ),
        (&["repro", "--source", "::2"], "hint: --source 192.0.2.2"),
        (
            &["repro", "--source", "0.0.0.0"],
            "no connection comes from such an address",
        ),
        (
            &["repro", "--source", "192.0.2.2/24"],
            "for example 192.0.2.2,192.0.2.3",
        ),
        (&["repro", "--connections", "0"], "--connections"),
        (
            &["repro", "--source", "127.0.0.2,192.0.2.2"],
            "hint: name addresses of one kind",
        ),
        (
            &["repro", "--host", "h", "--force"],
            "hint: leave out --force",
        ),
        (
            &["repro", "--duration", "3"],
            "for example 20ms, 90s or 2min",
        ),
        (
            &["repro", "--host", "db.invalid:3306"],
            "hint: --host db.invalid --port 3306",
        ),
        (
            &["repro", "--host", "h", "--password-file", "/dev/null"],
            "the first line of /dev/null is empty",
        ),
        (
            &["repro", "--host", "h", "--password-file", "/dev/zero"],
            "it is longer than 1 MiB",
        ),
        (
            &["repro", "--host", "localhost", "--tls-ca", "/dev/zero"],
            "it is longer than 1 MiB",
        ),
        (
            &["repro", "--svg", "/nonexistent/run.svg"],
            "hint: name a file in a folder that this user may write",
        ),
        (
            &["repro", "--defaults-file", "/nonexistent"],
            "hint: name a file with a group [client]",
        ),
        (
            &["repro", "--host", "localhost", "--tls-ca", "Cargo.toml"],
            "hint: --tls-ca takes a PEM file",
        ),
        (
            &["repro", "mysql://u@h?danger_accept_invalid_certs=true"],
            "hint: leave them out, and say --tls",
        ),
    ] {
        assert_refused(arguments, said);
    }
}

#[test]
fn every_refusal_about_a_server_is_exit_3_and_says_what_to_type() {
    for (arguments, said) in [
        (&["repro", "--duration", "soon"][..], "--duration"),
        (&["repro", "http://h/"], "hint: mysql://USER@HOST"),
        (
            &["repro", "mysql://u@h?nonsense=1"],
            "it has a parameter that is unknown",
        ),
        (
            &["repro", "--host", "h", "--ask-password"],
            "hint: put the password into MYSQL_PWD",
        ),
        (
            &["repro", "--host", "h", "--password-file", "/nonexistent"],
            "reading the password from /nonexistent",
        ),
    ] {
        assert_refused(arguments, said);
    }
}

fn assert_refused(arguments: &[&str], said: &str) {
    let output = twcheck(arguments);
    assert_eq!(exit(&output), 3, "{arguments:?}: {}", text(&output));
    assert!(
        stderr(&output).contains(said),
        "{arguments:?}: {}",
        stderr(&output)
    );
    assert_eq!(stdout(&output), "", "{arguments:?}");
}

#[test]
fn settings_the_namespace_lacks_or_refuses_are_named() {
    if !has_namespaces("settings_the_namespace_lacks_or_refuses_are_named") {
        return;
    }
    for (set, said) in [
        (
            "net.ipv4.tcp_no_such_thing=1",
            "has no net.ipv4.tcp_no_such_thing",
        ),
        (
            "net.ipv4.ip_local_port_range=5 4",
            "writing \"5 4\" to /proc/sys/net/ipv4/ip_local_port_range",
        ),
    ] {
        let output = twcheck(&["repro", "--set", set]);
        assert_eq!(exit(&output), 3, "{}", text(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    }
}

#[test]
fn a_password_in_a_url_shows_in_no_error() {
    for arguments in [
        &["repro", "mysql://u:hunter2@h:notaport/"][..],
        &["repro", "mysql://u:hunter2@"],
        &["repro", "app:hunter2@db:3306/shop"],
        &["repro", "mysql:/app:hunter2@db"],
        &["repro", "mysql://u:hunter2 x@h:notaport/"],
        &["repro", "mysql://u@h:bad/?password=hunter2"],
        &["repro", "--host", "app:hunter2@db"],
        &["states", "app:hunter2@db"],
        &["repro", "mysql://u:hunter2@h", "--host", "h"],
        &["repro", "mysql://u:hunter2@h", "mysql://u:hunter2@h"],
        &["states", "mysql://u:hunter2@h"],
        &["repro", "mysql://u:hunter2@no-such-host.invalid/"],
    ] {
        let output = twcheck(arguments);
        assert_eq!(exit(&output), 3, "{arguments:?}");
        assert!(
            !text(&output).contains("hunter2"),
            "{arguments:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn help_and_version_are_success() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["states", "--help"],
        &["verdict", "--help"],
        &["advise", "--help"],
        &["repro", "--help"],
    ] {
        let output = twcheck(arguments);
        assert_eq!(exit(&output), 0, "{arguments:?}");
        assert!(stdout(&output).contains("twcheck"), "{arguments:?}");
    }
}

/// The exit status where nobody reads, and what is said on stderr.
fn unread(arguments: &[&str]) -> (i32, String) {
    // The reader is gone before the first byte is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer)
        .output()
        .unwrap();
    (exit(&output), stderr(&output))
}

/// `twcheck … | head -1`: CRITICAL stays CRITICAL.
#[test]
fn a_closed_pipe_is_no_error_and_changes_no_exit_status() {
    for (host, level) in [(EXHAUSTED, 2), (BUSY, 0)] {
        for format in ["table", "plain", "json"] {
            for (command, status) in [("verdict", level), ("states", 0), ("advise", 0)] {
                let arguments = [command, "--proc-root", host, "--format", format];
                assert_eq!(exit(&twcheck(&arguments)), status, "{arguments:?}");
                let (unread, said) = unread(&arguments);
                assert_eq!(unread, status, "{arguments:?}: {said}");
                assert!(!said.contains("error"), "{arguments:?}: {said}");
            }
        }
    }
    assert_eq!(unread(&["states", "--explain", "--top", "0"]).0, 0);
    assert_eq!(unread(&["states", "--help"]), (0, String::new()));
    assert_eq!(unread(&["verdict", "--warm"]).0, 3);
    assert_eq!(
        unread(&["states", "--proc-root", "/nonexistent"]).0,
        3,
        "what could not be done could not be done"
    );
}

#[test]
fn a_run_that_nobody_reads_ends_with_its_own_status() {
    if !has_namespaces("a_run_that_nobody_reads_ends_with_its_own_status") {
        return;
    }
    let picture = tempfile::tempdir().unwrap();
    let path = picture.path().join("run.svg");
    let narrow = "net.ipv4.ip_local_port_range=40000 40099";
    for format in ["table", "plain", "json"] {
        let run = ["repro", "--set", narrow, "--format", format];
        assert_eq!(unread(&[&run[..], &["--connections", "9"]].concat()).0, 0);
        let svg = ["--svg", path.to_str().unwrap()];
        assert_eq!(unread(&[&run[..], &svg].concat()).0, 2, "{format}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("</svg>"));
    }
}

/// A report that is cut off because the disk is full is not a report.
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
        .args(["verdict", "--proc-root", EXHAUSTED])
        .stdout(full.unwrap())
        .output()
        .unwrap();
    assert_eq!(exit(&output), 3);
    assert!(
        stderr(&output).contains("error: No space left"),
        "{}",
        stderr(&output)
    );
}

/// The output of a command on a terminal of 80 columns.
fn on_a_terminal(environment: &str, arguments: &str) -> String {
    let command = format!(
        "stty cols 80 rows 40; {environment} {} {arguments}",
        env!("CARGO_BIN_EXE_twcheck")
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .output()
        .unwrap();
    stdout(&output).replace('\r', "")
}

#[test]
fn a_terminal_of_80_columns_is_enough() {
    if !has_namespaces("a_terminal_of_80_columns_is_enough") {
        return;
    }
    for arguments in [
        "states --explain --by flow",
        &format!("states --by flow --explain --proc-root {EXHAUSTED}"),
        &format!("verdict --proc-root {EXHAUSTED}"),
        &format!("verdict --proc-root {BUSY}"),
        "verdict --proc-root tests/hosts/recycle-3.10/proc",
        "verdict localhost:3306",
        "verdict 2001:db8:1234:5678:9abc:def0:1234:5678",
        &format!("verdict 192.0.2.1:3306 --proc-root {EXHAUSTED}"),
        "states 127.0.0.1",
        "advise --proc-root tests/hosts/recycle-3.10/proc",
        "advise --target-connections 60000 --target-rate 9 --proc-root tests/hosts/recycle-3.10/proc",
        "repro --connections 5",
        "verdict --help",
        "repro --help",
    ] {
        let shown = on_a_terminal("NO_COLOR=1", arguments);
        assert!(shown.lines().count() > 2, "{arguments}: {shown}");
        // What a progress line overwrote is gone.
        for line in shown
            .lines()
            .map(|line| line.rsplit("\u{1b}[2K").next().unwrap_or(line))
        {
            assert!(line.chars().count() <= 80, "{arguments}: {line:?}");
        }
    }
}

#[test]
fn colour_is_on_a_terminal_only_and_never_with_no_color() {
    let verdict = format!("verdict --proc-root {EXHAUSTED}");
    assert!(on_a_terminal("", &verdict).contains("\u{1b}[31mCRITICAL"));
    assert!(!on_a_terminal("NO_COLOR=1", &verdict).contains('\u{1b}'));
    let piped = twcheck(&["verdict", "--proc-root", EXHAUSTED]);
    assert!(!stdout(&piped).contains('\u{1b}'));
}

#[test]
fn a_row_that_is_not_understood_is_told_and_the_rest_is_counted() {
    let output = twcheck(&[
        "states",
        "--proc-root",
        "tests/hosts/recycle-3.10/proc",
        "--format",
        "plain",
    ]);
    assert_eq!(
        (exit(&output), stdout(&output).as_str()),
        (0, "TIME_WAIT 49\n")
    );
    assert_eq!(
        stderr(&output),
        "note: tests/hosts/recycle-3.10/proc/net/tcp6: missing from the recording: connections \
         over IPv6, and those of programs that use IPv6 sockets for IPv4, are not counted\n\
         note: tests/hosts/recycle-3.10/proc/net/tcp: 1 row not understood and left out, the first \
         is line 20\n"
    );
}
