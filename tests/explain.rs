//! `twcheck explain` on what programs really say: messages with their client and version, logs in
//! every form of time, and a flow that is exhausted here and now.

mod common;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::{
    assert_valid, command, connect_until_error, exit, in_namespace, port_range, run, serve, stderr,
    stdout, text, twcheck,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use twcheck::judge::explain::{Explanation, Kinds, Reading};

/// 2026-11-29T15:00:00Z.
const NOW: i64 = 1_795_964_400;

const HOST: [&str; 2] = ["--proc-root", "tests/hosts/exhausted-6.18/proc"];

fn read(text: &str) -> Explanation {
    let mut reading = Reading::new(NOW);
    reading.read(text.as_bytes(), 0..text.len());
    reading.finish()
}

/// Kind, number and destination of each cause, sorted.
fn causes(text: &str) -> Vec<Value> {
    let explanation = read(text);
    let cause = |cause| {
        let cause: &twcheck::judge::explain::Cause = cause;
        json!([cause.kind, cause.count, cause.destination])
    };
    sorted(explanation.causes.iter().map(cause).collect())
}

fn sorted(mut causes: Vec<Value>) -> Vec<Value> {
    causes.sort_by_key(Value::to_string);
    causes
}

fn assert_causes(text: &str, expected: &[(&str, u64, Option<&str>)]) {
    let expected = expected.iter().map(|cause| json!(cause)).collect();
    assert_eq!(causes(text), sorted(expected), "{text}");
}

/// What `explain` says of a log that is piped in.
fn piped(arguments: &[&str], log: &[u8]) -> Output {
    let mut child = command(&[&["explain"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(log).unwrap();
    child.wait_with_output().unwrap()
}

fn piped_json(arguments: &[&str], log: &[u8]) -> Value {
    let output = piped(&[&["--json"], arguments].concat(), log);
    assert_eq!(exit(&output), 0, "{}", text(&output));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid("explain", &report);
    report
}

/// Each was provoked in a namespace, which decides what it is, or stands in a thread that found its
/// cause.
#[test]
fn messages_of_real_clients_are_of_their_kinds() {
    let samples = std::fs::read_to_string("tests/messages/errors.jsonl").unwrap();
    let mut clients = std::collections::BTreeSet::new();
    for line in samples.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        let message = sample["text"].as_str().unwrap();
        let expected = sample["causes"].as_array().unwrap().clone();
        assert_eq!(
            causes(message),
            sorted(expected),
            "{} {}: {message}",
            sample["client"],
            sample["version"]
        );
        clients.insert(sample["client"].to_string());
        // The same in a log's line of JSON.
        let entry = json!({"time": "2026-11-25T03:12:01Z", "msg": message}).to_string();
        let one = read(&entry);
        assert!(!one.causes.is_empty(), "{entry}");
        let first = one.causes[0].first.map(|time| time.to_string());
        assert_eq!(first.as_deref(), Some("2026-11-25T03:12:01Z"));
    }
    assert!(clients.len() >= 50, "{}", clients.len());
}

/// The same clients with other hosts, ports and addresses, as their sources format them.
#[test]
fn a_pattern_is_of_the_kind_and_not_of_the_sample() {
    let forms = std::fs::read_to_string("tests/messages/forms.jsonl").unwrap();
    for line in forms.lines() {
        let form: Value = serde_json::from_str(line).unwrap();
        let message = form["text"].as_str().unwrap();
        let expected = json!([form["kind"], 1, form["destination"]]);
        assert_eq!(causes(message), [expected], "{message}");
    }
}

/// What the same words are elsewhere: of calls that take no port, of listeners, in the wrappings of
/// frameworks, in settings and counters. As the clients' sources format them, with the cause that the
/// call has.
#[test]
fn what_looks_alike_is_told_apart() {
    let samples = std::fs::read_to_string("tests/messages/lookalikes.jsonl").unwrap();
    let mut wrong = String::new();
    for line in samples.lines() {
        let sample: Value = serde_json::from_str(line).unwrap();
        let message = sample["text"].as_str().unwrap();
        let expected = sorted(sample["causes"].as_array().unwrap().clone());
        let told = causes(message);
        if told != expected {
            writeln!(wrong, "{} {}: {message}\n  {told:?}", sample["client"], sample["version"]).unwrap();
        }
    }
    assert_eq!(wrong, "");
}

/// Containers, syslog and terminals put something around each line.
#[test]
fn a_wrapping_changes_nothing() {
    let mut wrong = String::new();
    for file in ["errors", "lookalikes"] {
        let samples = std::fs::read_to_string(format!("tests/messages/{file}.jsonl")).unwrap();
        for line in samples.lines() {
            let sample: Value = serde_json::from_str(line).unwrap();
            let message = sample["text"].as_str().unwrap();
            // These are of syslog itself.
            if message.contains(" repeated ") {
                continue;
            }
            let expected = causes(message);
            let wrappings: [(&str, fn(&str) -> String); 7] = [
                ("CRLF", |line| format!("{line}\r")),
                ("colour", |line| format!("\u{1b}[31m{line}\u{1b}[0m")),
                ("docker", |line| {
                    json!({"log": format!("{line}\n"), "stream": "stderr", "time": "2026-11-25T03:12:01.5Z"}).to_string()
                }),
                ("CRI", |line| format!("2026-11-25T03:12:01.123456789Z stderr F {line}")),
                ("compose", |line| format!("web-1  | {line}")),
                ("kubectl", |line| format!("[pod/web-1/app] {line}")),
                ("journal", |line| format!("Nov 25 03:12:01 web-1 app[711]: {line}")),
            ];
            for (name, wrap) in wrappings {
                let wrapped: Vec<_> = message.lines().map(wrap).collect();
                let told = causes(&wrapped.join("\n"));
                if told != expected {
                    writeln!(wrong, "{name}: {}: {message}\n  {told:?}\n  {expected:?}", sample["client"]).unwrap();
                }
            }
        }
    }
    assert_eq!(wrong, "");
}

/// What looks like errno 99, and is none.
#[test]
fn a_number_is_no_error_by_itself() {
    for line in [
        "10.1.1.1 - - [25/Nov/2026:03:12:01 +0000] \"GET /99 HTTP/1.1\" 499 0 \"-\" \"curl/8\"",
        "thread 'worker' (99) finished",
        "process exited with exit code 99",
        "[99] job done",
        "worker[99]: client connected from 10.0.0.1:51234",
        "took (99) ms",
        "error 99 of 100 fixed",
        "open() \"/var/www/x\" failed (2: No such file or directory), client: 10.0.0.1",
        "PermissionError: [Errno 13] Permission denied: '/etc/shadow'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'x'",
        "GET /errno HTTP/1.1",
        "bind variables: 99",
        "listening on 0.0.0.0:3306",
        "connected to 10.0.0.5:3306 in 99 ms",
        "connection pool: the query timed out",
        "socketTimeoutMS: 20000, connectTimeoutMS: 20000",
        "",
    ] {
        assert_causes(line, &[]);
    }
}

#[test]
fn one_failure_in_many_lines_counts_once() {
    const PORTS: &str = "ephemeral_ports_exhausted";
    let java = "2026-11-25 03:12:01.123 ERROR [main] c.e.App - cannot query\n\
        com.mysql.cj.jdbc.exceptions.CommunicationsException: Communications link failure\n\n\
        The last packet sent successfully to the server was 0 milliseconds ago.\n\
        \tat com.mysql.cj.jdbc.ConnectionImpl.createNewIO(ConnectionImpl.java:836)\n\
        Caused by: com.mysql.cj.exceptions.CJCommunicationsException: Communications link failure\n\
        \tat com.mysql.cj.NativeSession.connect(NativeSession.java:144)\n\
        \t... 9 more\n\
        Caused by: java.net.BindException: Cannot assign requested address\n\
        \tat java.base/sun.nio.ch.Net.connect0(Native Method)\n";
    assert_causes(java, &[(PORTS, 1, None)]);
    assert_causes(&java.repeat(3), &[(PORTS, 3, None)]);
    let python = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    sock.connect(a)\n\
        OSError: [Errno 99] Cannot assign requested address\n\n\
        During handling of the above exception, another exception occurred:\n\n\
        Traceback (most recent call last):\n  File \"b.py\", line 2, in g\n\
        pymysql.err.OperationalError: (2003, \"Can't connect to MySQL server on '10.0.0.5' ([Errno 99] Cannot assign requested address)\")\n";
    assert_causes(python, &[(PORTS, 1, Some("10.0.0.5"))]);
    assert_causes(&python.repeat(4), &[(PORTS, 4, Some("10.0.0.5"))]);
    let logged = "2026-11-25 03:12:01 ERROR failed: [Errno 99] Cannot assign requested address\n\
        Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    sock.connect(a)\n\
        OSError: [Errno 99] Cannot assign requested address\n";
    assert_causes(&logged.repeat(2), &[(PORTS, 2, None)]);
    // Lines that only stand together are failures of their own.
    let line = "dial tcp 10.0.0.5:3306: connect: cannot assign requested address\n";
    assert_causes(&line.repeat(5), &[(PORTS, 5, Some("10.0.0.5:3306"))]);
}

#[test]
fn a_log_tells_when_and_how_often_a_minute() {
    let mut log = String::new();
    for (minute, errors) in [(12, 3), (13, 1), (15, 2)] {
        for second in 0..errors {
            writeln!(log, "Nov 25 03:{minute}:{second:02} web-1 app[7]: dial tcp 10.0.0.5:3306: connect: cannot assign requested address").unwrap();
            writeln!(
                log,
                "Nov 25 03:{minute}:{second:02} web-1 app[7]: a line that says nothing"
            )
            .unwrap();
        }
    }
    let report = piped_json(&HOST, log.as_bytes());
    assert_eq!(
        (&report["lines"], &report["errors"]),
        (&json!(12), &json!(6))
    );
    let cause = &report["causes"][0];
    let year = cause["first"].as_str().unwrap()[..4].to_owned();
    assert_eq!(cause["first"], json!(format!("{year}-11-25T03:12:00")));
    assert_eq!(cause["last"], json!(format!("{year}-11-25T03:15:01")));
    assert_eq!(
        cause["per_minute"],
        json!({"minutes_each": 1, "counts": [3, 1, 0, 2]})
    );
    // A line without a time is of the entry before it.
    let entry = "2026-11-25T03:12:01Z ERROR cannot query\nOSError: [Errno 99] Cannot assign requested address\n";
    let first = read(entry).causes[0].first.unwrap().to_string();
    assert_eq!(first, "2026-11-25T03:12:01Z");
}

#[test]
fn passwords_show_in_no_format() {
    let log = "mysql://app:hunter2@10.0.0.5:3306/shop password=hunter2: Cannot assign requested address\n\
        {\"dsn\":\"app:hunter2@tcp(10.0.0.6:3306)/shop\",\"msg\":\"connection refused\",\"password\":\"hunter2\"}\n";
    for format in ["table", "plain", "json", "markdown"] {
        let output = piped(&[&["--format", format], &HOST[..]].concat(), log.as_bytes());
        assert_eq!(exit(&output), 0, "{}", text(&output));
        assert!(!text(&output).contains("hunter2"), "{}", text(&output));
        assert!(stdout(&output).contains("ephemeral_ports_exhausted"));
    }
}

#[test]
fn what_is_not_recognised_is_said_with_how_much_was_read() {
    let output = piped(&[], b"one\ntwo\nthree");
    assert_eq!(exit(&output), 0);
    assert!(
        stdout(&output).starts_with("Nothing was recognised in 3 lines:"),
        "{}",
        text(&output)
    );
    let report = piped_json(&[], b"");
    assert_eq!(
        (&report["lines"], &report["causes"]),
        (&json!(0), &json!([]))
    );
    assert!(report["advice"].is_string());
}

#[test]
fn bytes_of_any_kind_and_lines_without_an_end_are_read_in_constant_memory() {
    let mut log = vec![0xff; 40 << 20];
    log.extend_from_slice(
        b"\ndial tcp 10.0.0.5:3306: connect: cannot assign requested address \xff\xfe\n",
    );
    let report = piped_json(&HOST, &log);
    assert_eq!(report["causes"][0]["destination"], "10.0.0.5:3306");
    assert_eq!(report["bytes"], json!(log.len()));
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..400),
                words in proptest::collection::vec(prop::sample::select(vec![
                    "cannot assign requested address", "dial tcp ", "[::1", "]:", "99", "bind", "\\u00", "\\",
                    "Caused by:", "errno", " (", "'", "\"address\":", "é", "\n", "lookup ", " on '", "connect to ",
                    "t connect to MySQL server on ", "upstream: \"", "SQLSTATE[", "] [", "unix:", "(HY000)",
                ]), 0..12))| {
        let mut reading = Reading::new(NOW);
        reading.read(&bytes, 0..bytes.len());
        let words = words.concat();
        reading.read(words.as_bytes(), 0..words.len());
        let _ = reading.finish();
    });
}

#[test]
fn of_very_many_destinations_the_rest_is_counted() {
    let mut log = String::new();
    for host in 0..3_000 {
        let (high, low) = (host / 250, host % 250);
        writeln!(
            log,
            "dial tcp 10.7.{high}.{low}:3306: connect: connection refused"
        )
        .unwrap();
    }
    let explanation = read(&log);
    assert_eq!(explanation.errors, 3_000);
    assert_eq!(explanation.causes.len(), 1_001);
    let rest: Vec<_> = explanation
        .causes
        .iter()
        .filter(|cause| cause.is_rest)
        .collect();
    assert_eq!((rest.len(), rest[0].count), (1, 2_000));
}

#[test]
fn misuse_says_what_to_type() {
    let output = twcheck(&["explain", "Cargo.toml"]);
    assert_eq!(exit(&output), 3);
    assert!(
        stderr(&output).contains("twcheck explain < Cargo.toml"),
        "{}",
        text(&output)
    );
    let output = twcheck(&["explain", "--list"]);
    assert_eq!(exit(&output), 0);
    for words in [
        "Can't connect to MySQL server on '…' (99)",
        "ECONNREFUSED",
        "no free ports",
        "EAI_AGAIN",
    ] {
        assert!(
            stdout(&output).replace("\n        ", " ").contains(words),
            "{words}"
        );
    }
    for format in ["plain", "json", "markdown"] {
        let output = twcheck(&["explain", "--list", "--format", format]);
        assert_eq!(exit(&output), 0);
        assert!(stdout(&output).contains("port_in_use"), "{}", text(&output));
    }
    let named: Vec<_> = Kinds::all()
        .kinds
        .iter()
        .map(|kind| kind.kind.to_string())
        .collect();
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string("tests/schema/explain.json").unwrap())
            .unwrap();
    let allowed = &schema["properties"]["causes"]["items"]["properties"]["kind"]["enum"];
    let allowed: Vec<_> = allowed
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind.as_str().unwrap().to_owned())
        .collect();
    let sorted = |mut kinds: Vec<String>| {
        kinds.sort();
        kinds
    };
    assert_eq!(sorted(named), sorted(allowed));
}

/// The kernel decides: the same flow before its ports are gone, and after.
#[test]
fn it_says_whether_the_flow_is_exhausted_here_and_now() {
    in_namespace("it_says_whether_the_flow_is_exhausted_here_and_now", || {
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        port_range(40000, 40099);
        let server = serve("192.0.2.1:3306");
        let log = b"dial tcp 192.0.2.1:3306: connect: cannot assign requested address\n";
        let now = |log: &[u8]| piped_json(&[], log)["now"][0].clone();
        assert_eq!(now(log)["is_exhausted"], json!(false));
        let (made, errno) = connect_until_error(server, 1_000);
        assert_eq!((made, errno), (100, Some(99)));
        let told = now(log);
        assert_eq!(
            (&told["is_exhausted"], &told["level"]),
            (&json!(true), &json!("critical")),
            "{told}"
        );
        assert_eq!(told["destination"], "192.0.2.1:3306");
        // Another destination has ports; where none is named the worst flow speaks.
        assert_eq!(
            now(b"dial tcp 192.0.2.1:3307: connect: cannot assign requested address")["is_exhausted"],
            json!(false)
        );
        let worst = now(b"OSError: [Errno 99] Cannot assign requested address");
        assert_eq!(
            (&worst["is_exhausted"], &worst["destination"]),
            (&json!(true), &json!(null))
        );
        // A listener's error asks nothing.
        let listener = TcpListener::bind("192.0.2.1:3308").unwrap();
        let report = piped_json(
            &[],
            b"listen tcp 192.0.2.7:80: bind: cannot assign requested address",
        );
        assert_eq!(report["now"], json!([]));
        drop(listener);
        // A name that nobody resolves keeps nobody waiting for long.
        let start = Instant::now();
        let unknown =
            now(b"dial tcp db.example.invalid:3306: connect: cannot assign requested address");
        assert_eq!(
            (&unknown["is_exhausted"], &unknown["level"]),
            (&json!(null), &json!(null)),
            "{unknown}"
        );
        assert!(start.elapsed() < Duration::from_secs(8));
    });
}

/// An unreadable table is no OK.
#[test]
fn what_cannot_be_read_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let log = b"dial tcp 10.0.0.5:3306: connect: cannot assign requested address";
    let report = piped_json(&["--proc-root", root], log);
    assert_eq!(report["now"][0]["is_exhausted"], json!(null), "{report}");
    let table = piped(&["--proc-root", root], log);
    assert!(stdout(&table).contains("unknown"), "{}", text(&table));
}
