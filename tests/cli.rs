//! The command line as it is typed: refusals, formats, pipes and terminals.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::{command, exit, has_namespaces, stderr, stdout, text, twcheck};

const BUSY: &str = "tests/hosts/busy-server-6.18/proc";
const RECYCLE: &str = "tests/hosts/recycle-3.10/proc";
const EXHAUSTED: &str = "tests/hosts/exhausted-6.18/proc";

/// The rules about options and the bounds of values have their tables in src/cli; here is one of
/// each kind, with the words as they are printed.
#[test]
fn what_is_mistyped_is_exit_3_and_is_told_what_to_type() {
    let help = "For more information, try '--help'.\n";
    let destination = "a port is a number from 1 to 65535: type 10.0.0.5:3306, :3306, db.example or \
                       [2001:db8::5]:3306";
    for (arguments, said) in [
        (
            &["verdikt"][..],
            &*format!(
                "error: unrecognized subcommand 'verdikt'\n\n  \
                 tip: a similar subcommand exists: 'verdict'\n\n\
                 Usage: twcheck <COMMAND>\n\n{help}"
            ),
        ),
        (
            &["verdict", "--warm"],
            &format!(
                "error: unexpected argument '--warm' found\n\n  \
                 tip: a similar argument exists: '--warn'\n\n\
                 Usage: twcheck verdict --warn <PERCENT> [HOST:PORT]\n\n{help}"
            ),
        ),
        (
            &["repro", "-h", "db.example", "--user", "app"],
            "error: -h is short for --help here; the server has --host\n\
             hint: --host db.example\n",
        ),
        (
            &["repro", "h", "--skip-ssl"],
            "error: TLS is spoken where --tls or an option file asks for it, and not elsewhere\n\
             hint: leave out --skip-ssl\n",
        ),
        (
            &["verdict", "--top", "-1"],
            &format!(
                "error: invalid value '-1' for '--top <N>': it is how many flows to list, 0 for \
                 all, a whole number from 0 to 4294967295: for example 20\n\n{help}"
            ),
        ),
        (
            &["verdict", "--connect", "10.0.0.5:80", "--proc-root", BUSY],
            &format!(
                "error: the argument '--connect' cannot be used with '--proc-root <DIR>'\n\n\
                 Usage: twcheck verdict --connect <HOST:PORT>\n\n{help}"
            ),
        ),
        (
            &["advise", "--flow", "10.0.0.5:0"],
            &format!(
                "error: invalid value '10.0.0.5:0' for '--flow <HOST:PORT>': {destination}\n\n\
                 {help}"
            ),
        ),
        (
            &["states", "--source", "netstat"],
            &format!(
                "error: invalid value 'netstat' for '--source <SOURCE>'\n  \
                 [possible values: auto, sock_diag, proc]\n\n{help}"
            ),
        ),
        (
            &["verdict", "--warn", "90", "--crit", "60"],
            "error: --warn 90 is above --crit 60: nothing would ever be WARNING\n\
             hint: --warn 60 --crit 90\n",
        ),
        (
            &["repro", "mysql://app@db", "--user", "app"],
            "error: --user and a mysql:// URL may say different things\n\
             hint: put it into the URL, or leave the URL out and say --host, too: --user …\n",
        ),
        (
            &["repro", "db", "--password=hunter2"],
            "error: a password on the command line shows in ps to everybody on this machine; -p \
             and --password take nothing behind them here\n\
             hint: put it into MYSQL_PWD, ~/.my.cnf or a --password-file; or type -p at the end, \
             and be asked for it\n",
        ),
        (
            &["repro", "db:3306", "--port", "3307"],
            "error: the server is named with port 3306, and --port is 3307\n\
             hint: leave one of the two out\n",
        ),
        (
            &["repro", "--source", "192.0.2.2,192.0.2.3"],
            "error: --source chooses how the other commands read the socket table; the address \
             that this client connects from is --bind-address\n\
             hint: --bind-address 192.0.2.2,192.0.2.3\n",
        ),
    ] {
        assert_refused(arguments, said);
    }
}

#[test]
fn what_excludes_each_other_is_refused() {
    for arguments in [
        &["verdict", "--json", "--format", "plain"][..],
        &["advise", "--prove", "--proc-root", BUSY],
        &["advise", "10.0.0.5:80", "--flow", "10.0.0.5:80"],
        &["repro", "mysql://app@db", "--host", "db"],
        &["repro", "--ask-password", "--password-file", "file"],
    ] {
        let output = twcheck(arguments);
        assert_eq!((exit(&output), stdout(&output)), (3, String::new()));
        let said = stderr(&output);
        let first = said.lines().next().unwrap();
        assert!(first.starts_with("error: the argument '"), "{said}");
        assert!(first.contains("' cannot be used with"), "{said}");
    }
    for command in ["verdict", "states", "advise", "repro"] {
        let output = twcheck(&[command, "10.0.0.5", "10.0.0.6"]);
        assert_eq!((exit(&output), stdout(&output)), (3, String::new()));
        assert_eq!(
            stderr(&output).lines().next(),
            Some("error: unexpected argument '10.0.0.6' found")
        );
    }
}

#[test]
fn what_this_machine_cannot_do_is_exit_3_and_says_what_to_type() {
    let missing = "No such file or directory (os error 2)";
    let url = "hint: mysql://USER@HOST:3306/DATABASE, special characters percent-encoded, the \
               password in MYSQL_PWD; or --host HOST\n";
    let authority =
        "hint: --tls-ca takes a PEM file with the certificate that signed the server's\n";
    let password = "hint: name a file whose first line is the password, or use --ask-password\n";
    for (arguments, said) in [
        (
            &["states", "--proc-root", "/nonexistent"][..],
            "error: /nonexistent/net/tcp does not exist, so there is no socket table to read\n\
             hint: --proc-root takes a folder that holds net/tcp and sys/net/ipv4, like /proc\n",
        ),
        (
            &["verdict", "fe80::1%none0"],
            "error: there is no interface \"none0\" here, and fe80::1 is on one\n\
             hint: `ip -6 addr` lists them\n",
        ),
        (
            &["advise", "--prove", "localhost"],
            "error: --prove tries what holds toward another machine, and this destination is \
             loopback, where TIME_WAIT reuse has rules of its own\n\
             hint: leave out --prove or the destination\n",
        ),
        (
            &["repro", "--bind-address", "::2"],
            "error: --bind-address ::2 is IPv6, the embedded server 192.0.2.1 is not\n\
             hint: --bind-address 192.0.2.2,192.0.2.3\n",
        ),
        (
            &["repro", "http://h/"],
            &format!(
                "error: the URL given is not a MySQL URL: it does not begin with mysql://\n{url}"
            ),
        ),
        (
            &["repro", "mysql://u@h?nonsense=1"],
            &format!(
                "error: the URL given is not a MySQL URL: it has a parameter that is unknown\n{url}"
            ),
        ),
        (
            &["repro", "mysql://u@h?danger_accept_invalid_certs=true"],
            "error: the URL has parameters about TLS\n\
             hint: leave them out, and say --tls, or --tls-ca FILE where the authority is \
             private\n",
        ),
        (
            &["repro", "--host", "h", "--ask-password"],
            "error: --ask-password needs a terminal to ask on\n\
             hint: put the password into MYSQL_PWD, or into a file for --password-file\n",
        ),
        (
            &["repro", "--host", "h", "--password-file", "/nonexistent"],
            &format!("error: reading the password from /nonexistent: {missing}\n{password}"),
        ),
        (
            &["repro", "--host", "h", "--password-file", "/dev/zero"],
            &format!(
                "error: reading the password from /dev/zero: it is longer than 1 MiB, and no such \
                 file is\n{password}"
            ),
        ),
        (
            &["repro", "--host", "h", "--password-file", "/dev/null"],
            "error: the first line of /dev/null is empty\n\
             hint: put the password there; for an account without one leave out --password-file\n",
        ),
        (
            &["repro", "--defaults-file", "/nonexistent"],
            &format!(
                "error: reading options from /nonexistent: {missing}\n\
                 hint: name a file with a group [client], such as ~/.my.cnf, that this user may \
                 read\n"
            ),
        ),
        (
            &["repro", "--host", "localhost", "--tls-ca", "Cargo.toml"],
            &format!(
                "error: reading the authority from Cargo.toml: it holds no certificate\n{authority}"
            ),
        ),
        (
            &["repro", "--host", "localhost", "--tls-ca", "/dev/zero"],
            &format!(
                "error: reading the authority from /dev/zero: it is longer than 1 MiB, and no such \
                 file is\n{authority}"
            ),
        ),
        (
            &["repro", "--svg", "/nonexistent/run.svg"],
            &format!(
                "error: --svg /nonexistent/run.svg: {missing}\n\
                 hint: name a file in a folder that this user may write\n"
            ),
        ),
    ] {
        assert_refused(arguments, said);
    }
}

/// What the resolver says in between differs from one machine to the next.
#[test]
fn a_host_name_without_an_address_is_told_so() {
    for (arguments, error, hint) in [
        (
            &["repro", "--host", "db.invalid:3306"][..],
            "error: the host name \"db.invalid:3306\" has no address: ",
            "hint: --host db.invalid --port 3306",
        ),
        (
            &["verdict", "nowhere.invalid"],
            "error: the host name \"nowhere.invalid\" has no address: ",
            "hint: name its address instead, or look into /etc/resolv.conf and /etc/hosts; the \
             flows to a port are found without a name: :3306",
        ),
    ] {
        let output = twcheck(arguments);
        assert_eq!((exit(&output), stdout(&output)), (3, String::new()));
        let said = stderr(&output);
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with(error), "{said}");
        assert_eq!(lines[1..], [hint]);
    }
}

/// A refusal is all that is printed.
fn assert_refused(arguments: &[&str], said: &str) {
    let output = twcheck(arguments);
    assert_eq!(
        (exit(&output), stdout(&output), stderr(&output)),
        (3, String::new(), said.to_owned()),
        "{arguments:?}"
    );
}

/// Nothing panics on bytes that are no text, wherever they are typed; a path may have them.
#[test]
fn arguments_that_are_not_utf8_are_exit_3() {
    let not_text = OsStr::from_bytes(b"u:hunter2@\xff\xfe");
    let flag = OsStr::from_bytes(b"--\xff");
    for (arguments, said) in [
        (&[][..], "unrecognized subcommand '…'"),
        (
            &["verdict"],
            "invalid value '…' for '[HOST:PORT]': it is not UTF-8: type a host and a port, as \
             db.example:3306",
        ),
        (
            &["verdict", "--proc-root"],
            "u:hunter2@\u{fffd}\u{fffd}/net/tcp does not exist, so there is no socket table to read",
        ),
        (
            &["verdict", "--top"],
            "invalid value '…' for '--top <N>': it is how many flows to list, 0 for all, a whole \
             number from 0 to 4294967295: for example 20",
        ),
        (
            &["states", "--format"],
            "invalid value '…' for '--format <FORMAT>'",
        ),
        (
            &["advise", "--target-rate"],
            "invalid value '…' for '--target-rate <R>': it is connections per second, 0.001 to \
             1000000: for example 400",
        ),
        (
            &["repro"],
            "invalid value '…' for '[SERVER]': it is not UTF-8",
        ),
        (
            &["repro", "--host"],
            "invalid value '…' for '--host <HOST>': it is not UTF-8",
        ),
        (
            &["repro", "--user"],
            "invalid value '…' for '--user <USER>': it is not UTF-8",
        ),
        (
            &["repro", "--host", "h", "--database"],
            "invalid value '…' for '--database <DATABASE>': it is not UTF-8",
        ),
        (
            &["repro", "--set"],
            "invalid value '…' for '--set <KEY=VALUE>': a setting is KEY=VALUE, for example \
             net.ipv4.tcp_tw_reuse=1",
        ),
        (
            &["repro", "--bind-address"],
            "invalid value '…' for '--bind-address <ADDR,…>': it is an IP address, or several \
             with commas between them: for example 192.0.2.2,192.0.2.3",
        ),
        (
            &["repro", "--source"],
            "--source chooses how the other commands read the socket table; the address that this \
             client connects from is --bind-address",
        ),
        (
            &["repro", "--host", "h", "--password-file"],
            "reading the password from what looks like a URL or a login: No such file or directory \
             (os error 2)",
        ),
        (
            &["repro", "--defaults-file"],
            "reading options from what looks like a URL or a login: No such file or directory (os \
             error 2)",
        ),
    ] {
        for value in [not_text, flag] {
            let output = command(arguments).arg(value).output().unwrap();
            assert_eq!(
                (exit(&output), stdout(&output)),
                (3, String::new()),
                "{arguments:?}: {}",
                text(&output)
            );
            let printed = stderr(&output);
            let first = printed.lines().next().unwrap();
            if value == not_text {
                assert_eq!(first, format!("error: {said}"));
            } else {
                assert!(first.starts_with("error: "), "{printed}");
            }
        }
    }
}

#[test]
fn a_password_that_is_not_utf8_is_refused() {
    let output = command(&["repro", "--host", "127.0.0.1"])
        .env("MYSQL_PWD", OsStr::from_bytes(b"hunter2\xff"))
        .output()
        .unwrap();
    assert_eq!(
        (exit(&output), stdout(&output), stderr(&output)),
        (
            3,
            String::new(),
            "error: MYSQL_PWD is not UTF-8\n\
             hint: put the password into a file for --password-file\n"
                .into()
        )
    );
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
fn help_and_version_are_success_and_on_stdout() {
    let version = concat!("twcheck ", env!("CARGO_PKG_VERSION"), "\n");
    let output = twcheck(&["--version"]);
    assert_eq!(
        (exit(&output), stdout(&output), stderr(&output)),
        (0, version.into(), String::new())
    );
    for (arguments, usage) in [
        (&["--help"][..], "Usage: twcheck <COMMAND>"),
        (
            &["states", "--help"],
            "Usage: twcheck states [OPTIONS] [HOST:PORT]",
        ),
        (
            &["verdict", "--help"],
            "Usage: twcheck verdict [OPTIONS] [HOST:PORT]",
        ),
        (
            &["advise", "-h"],
            "Usage: twcheck advise [OPTIONS] [HOST:PORT]",
        ),
        (
            &["repro", "--help"],
            "Usage: twcheck repro [OPTIONS] [SERVER]",
        ),
    ] {
        let output = twcheck(arguments);
        assert_eq!((exit(&output), stderr(&output)), (0, String::new()));
        let shown = stdout(&output);
        let line = shown.lines().find(|line| line.starts_with("Usage"));
        assert_eq!(line, Some(usage));
    }
    // Whoever types nothing is shown the help, and has asked for nothing.
    let output = twcheck(&[]);
    assert_eq!((exit(&output), stdout(&output)), (3, String::new()));
    let shown = stderr(&output);
    let line = shown.lines().find(|line| line.starts_with("Usage"));
    assert_eq!(line, Some("Usage: twcheck <COMMAND>"));
}

/// The exit status where nobody reads, and what is said on stderr.
fn unread(arguments: &[&str]) -> (i32, String) {
    // The reader is gone before the first byte is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(arguments).stdout(writer).output().unwrap();
    (exit(&output), stderr(&output))
}

/// `twcheck … | head -1`: CRITICAL stays CRITICAL.
#[test]
fn a_closed_pipe_is_no_error_and_changes_no_exit_status() {
    for (host, level) in [(EXHAUSTED, 2), (RECYCLE, 1), (BUSY, 0)] {
        for (command, status, formats) in [
            ("verdict", level, &["table", "plain", "json"][..]),
            ("states", 0, &["table", "plain", "json"]),
            ("advise", 0, &["table", "plain", "json", "sysctl"]),
        ] {
            for format in formats {
                let arguments = [command, "--proc-root", host, "--format", format];
                let read = twcheck(&arguments);
                assert_eq!(exit(&read), status, "{arguments:?}");
                assert_ne!(stdout(&read), "", "{arguments:?}");
                // What is said on stderr is said all the same, and nothing besides.
                assert_eq!(unread(&arguments), (status, stderr(&read)), "{arguments:?}");
            }
        }
    }
    // A row that was cut off.
    let torn = tempfile::tempdir().unwrap();
    std::fs::create_dir(torn.path().join("net")).unwrap();
    std::fs::write(
        torn.path().join("net/tcp"),
        "sl local_address\n0: 0100007F:9C",
    )
    .unwrap();
    let unknown = ["verdict", "--proc-root", torn.path().to_str().unwrap()];
    assert_eq!(exit(&twcheck(&unknown)), 3);
    assert_eq!(unread(&unknown).0, 3);
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
    let output = command(&["verdict", "--proc-root", EXHAUSTED])
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
