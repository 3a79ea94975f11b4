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
            writeln!(
                wrong,
                "{} {}: {message}\n  {told:?}",
                sample["client"], sample["version"]
            )
            .unwrap();
        }
    }
    assert_eq!(wrong, "");
}

/// Clients and proxies that must have both, by how the samples' names of theirs begin.
const CLIENTS: [(&str, &[&str]); 21] = [
    ("MySQLdb", &["MySQLdb"]),
    ("PyMySQL", &["PyMySQL"]),
    ("mysql-connector", &["mysql-connector-python"]),
    ("mysql", &["mysql"]),
    ("mariadb", &["mariadb"]),
    ("Go", &["Go net", "go-sql-driver", "pgx"]),
    ("Java", &["Java", "MariaDB Connector/J"]),
    ("HikariCP", &["HikariCP"]),
    ("Jedis", &["Jedis"]),
    ("Lettuce", &["Lettuce"]),
    ("Node", &["node mysql2", "Node net"]),
    ("PHP", &["PHP"]),
    ("Ruby", &["Ruby", "ActiveRecord"]),
    ("Rust", &["Rust", "sqlx", "reqwest", "tokio-postgres"]),
    (".NET", &[".NET", "MySqlConnector", "Npgsql"]),
    ("nginx", &["nginx"]),
    ("HAProxy", &["HAProxy"]),
    ("Envoy", &["Envoy"]),
    ("Redis", &["redis-cli"]),
    ("PostgreSQL", &["psql"]),
    ("curl", &["curl"]),
];

/// A client of which only one were tried could be told apart by its name alone.
#[test]
fn every_client_is_tried_with_exhaustion_and_with_what_looks_alike() {
    let mut tried = std::collections::HashSet::new();
    for file in ["errors", "lookalikes"] {
        let samples = std::fs::read_to_string(format!("tests/messages/{file}.jsonl")).unwrap();
        for line in samples.lines() {
            let sample: Value = serde_json::from_str(line).unwrap();
            let client = sample["client"].as_str().unwrap().to_owned();
            for cause in sample["causes"].as_array().unwrap() {
                let kind = cause[0].as_str().unwrap();
                tried.insert((client.clone(), kind.ends_with("ports_exhausted")));
            }
        }
    }
    for (client, names) in CLIENTS {
        for is_exhaustion in [true, false] {
            let is_tried = |name: &str| {
                let mut of_kind = tried.iter().filter(|(_, kind)| *kind == is_exhaustion);
                of_kind.any(|(tried, _)| {
                    let (first, _) = tried.split_once(' ').unwrap_or((tried, ""));
                    tried == name || first == name || name.contains(' ') && tried.starts_with(name)
                })
            };
            assert!(
                names.iter().any(|name| is_tried(name)),
                "{client}: exhaustion {is_exhaustion}"
            );
        }
    }
}

/// What it is called, and what it makes of a line.
type Wrapping = (&'static str, fn(&str) -> String);

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
            let wrappings: [Wrapping; 7] = [
                ("CRLF", |line| format!("{line}\r")),
                ("colour", |line| format!("\u{1b}[31m{line}\u{1b}[0m")),
                ("docker", |line| {
                    json!({"log": format!("{line}\n"), "stream": "stderr", "time": "2026-11-25T03:12:01.5Z"}).to_string()
                }),
                ("CRI", |line| {
                    format!("2026-11-25T03:12:01.123456789Z stderr F {line}")
                }),
                ("compose", |line| format!("web-1  | {line}")),
                ("kubectl", |line| format!("[pod/web-1/app] {line}")),
                ("journal", |line| {
                    format!("Nov 25 03:12:01 web-1 app[711]: {line}")
                }),
            ];
            for (name, wrap) in wrappings {
                let wrapped: Vec<_> = message.lines().map(wrap).collect();
                let told = causes(&wrapped.join("\n"));
                if told != expected {
                    writeln!(
                        wrong,
                        "{name}: {}: {message}\n  {told:?}\n  {expected:?}",
                        sample["client"]
                    )
                    .unwrap();
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

/// Where programs put a secret; `{}` is it, as it is, and `{json}` within an object of JSON.
const SHAPES: [&str; 40] = [
    "mysql://app:{}@10.0.0.5:3306/shop: Connection refused",
    "mysql+pymysql://app:{}@db.example/shop: [Errno 99] Cannot assign requested address",
    "redis://:{}@10.0.0.5:6379/0: Connection refused",
    "app:{}@tcp(10.0.0.6:3306)/shop: dial tcp 10.0.0.6:3306: connect: cannot assign requested address",
    "host=10.0.0.5 user=u password={} dbname=x: connection refused",
    "host=10.0.0.5 user=u password='{json}' dbname=x: connection refused",
    "{\"host\":\"10.0.0.5\",\"password\":\"{json}\",\"msg\":\"connection refused\"}",
    "{\"db_pass\": \"{json}\", \"error\": \"ECONNREFUSED\"}",
    "{\"dbPassword\":\"{json}\",\"msg\":\"connection refused\"}",
    "{\"msg\":\"{\\\"password\\\":\\\"{json2}\\\"} connection refused\"}",
    "PGPASSWORD={} psql: connection refused",
    "MYSQL_PWD={} mysql: connection refused",
    "connection refused with password is {}",
    "connection refused, password: {}",
    "connection refused, password {} was wrong",
    "'password' => '{json}', connection refused",
    "Server=10.0.0.5;Pwd={};Database=x connection refused",
    "connection refused Authorization: Bearer {}",
    "connection refused Authorization: {}",
    "connection refused Basic {}",
    "connection refused Cookie: a=b; sid={}",
    "connection refused Set-Cookie: sid={}; Path=/",
    "connection refused X-Api-Key: {}",
    "connection refused ?token={}",
    "connection refused eyJhbGciOiJIUzI1NiJ9.{}",
    "connection refused CREATE USER u IDENTIFIED BY '{json}'",
    "connection refused mysql -u root -p{} -h db",
    "connection refused mysql --password={} -h db",
    "connection refused mariadb-dump --password {} -h db",
    "connection refused redis-cli -h db -a {} ping",
    "connection refused curl -u app:{} http://db/",
    "connection refused AUTH {}",
    "connection refused client_secret={}",
    "connection refused api_key: {}",
    "connection refused credentials={}",
    "#0 a.php(3): PDO->__construct('mysql:host=db', 'u', '{}') Connection refused",
    "PDOException: Connection refused #0 a.php(3): PDO->__construct('mysql:host=db', 'u', '{}')",
    "Connection refused #1 a.php(3): mysqli->real_connect('db', 'u', '{}', 'x')",
    "Connection refused #1 a.php(3): Redis->auth('{}')",
    "Connection refused in MySQLdb.connect(\"db\", \"u\", \"{json}\", \"x\")",
];

/// Each shape with this secret, a line each.
fn with_secret(secret: &str) -> String {
    let within = |text: &str| {
        let quoted = Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let (json, twice) = (within(secret), within(&within(secret)));
    let lines = SHAPES.map(|shape| {
        shape
            .replace("{json2}", &twice)
            .replace("{json}", &json)
            .replace("{}", secret)
    });
    lines.join("\n")
}

/// Whether a part of `secret` that would help anybody is in `shown`.
fn shows(shown: &str, secret: &str) -> bool {
    let letters: Vec<_> = secret.chars().collect();
    let mut parts = letters.windows(6);
    parts.any(|part| shown.contains(&part.iter().collect::<String>()))
}

#[test]
fn a_secret_of_any_letters_shows_in_no_shape() {
    let secrets = "[A-Za-z0-9][A-Za-z0-9!#$%^&*+/=?.,;:_@\"~|<>\\[\\]{}-]{10,24}[A-Za-z0-9]";
    proptest!(ProptestConfig::with_cases(40), |(secret in secrets)| {
        for line in with_secret(&secret).lines() {
            let explanation = read(line);
            prop_assert!(!explanation.causes.is_empty(), "{}", line);
            let shown = explanation.causes.iter().map(|cause| {
                format!("{:?} {:?} {}", cause.example, cause.destination, cause.meaning)
            });
            let shown = shown.collect::<String>() + &explanation.summary;
            prop_assert!(!shows(&shown, &secret), "{}\n{}", line, shown);
        }
    });
    let secret = "Tr0ub4dor&3xyzzy";
    let formats = ["table", "plain", "json", "markdown"].into_iter().cycle();
    for (line, format) in with_secret(secret).lines().zip(formats) {
        let arguments = [&["--format", format], &HOST[..]].concat();
        let output = piped(&arguments, line.as_bytes());
        assert_eq!(exit(&output), 0, "{}", text(&output));
        let said = text(&output).replace(['\n', ' '], "");
        assert!(!shows(&said, secret), "{line}\n{}", text(&output));
    }
}

#[test]
fn what_syslog_says_came_again_counts() {
    let error = "dial tcp 10.0.0.5:3306: connect: cannot assign requested address";
    let log = format!(
        "2026-11-25T03:12:01Z h app[1]: {error}\n2026-11-25T03:14:31Z h last message repeated 12 times\n\
         2026-11-25T03:15:01Z h app[1]: message repeated 5 times: [ {error}]\n"
    );
    let explanation = read(&log);
    let cause = &explanation.causes[0];
    assert_eq!((explanation.errors, cause.count), (18, 18));
    assert_eq!(
        serde_json::to_value(cause.timeline.as_ref()).unwrap(),
        json!({"minutes_each": 1, "counts": [1, 0, 12, 5]})
    );
    assert_eq!(cause.last.unwrap().to_string(), "2026-11-25T03:15:01Z");
}

#[test]
fn a_line_of_any_length_is_one_line_and_tells_all_its_errors() {
    let first = "dial tcp 10.0.0.5:3306: connect: cannot assign requested address";
    let last = "dial tcp 10.0.0.6:6379: connect: connection refused";
    for length in [10_000, 100_000, 3_000_000] {
        let filler = "word ".repeat(length / 5);
        let log = format!("2026-11-25T03:12:01Z {first} {filler}{last} {filler}{first}\nend\n");
        let report = piped_json(&HOST, log.as_bytes());
        assert_eq!(
            (&report["lines"], &report["errors"]),
            (&json!(2), &json!(2)),
            "{length}"
        );
        for (cause, error) in [
            (0, "cannot assign requested address"),
            (1, "connection refused"),
        ] {
            let cause = &report["causes"][cause];
            assert_eq!(cause["count"], json!(1));
            assert!(
                cause["example"].as_str().unwrap().contains(error),
                "{cause}"
            );
        }
        assert_eq!(report["causes"][0]["first"], "2026-11-25T03:12:01Z");
    }
}

#[test]
fn text_of_windows_is_read_and_what_is_packed_refused() {
    let log =
        "2026-11-25 03:12:01 dial tcp 10.0.0.5:3306: connect: cannot assign requested address\r\n"
            .repeat(50);
    for is_big in [false, true] {
        for mark in ["", "\u{feff}"] {
            let units = mark.encode_utf16().chain(log.encode_utf16());
            let bytes: Vec<_> = units
                .flat_map(|unit| {
                    if is_big {
                        unit.to_be_bytes()
                    } else {
                        unit.to_le_bytes()
                    }
                })
                .collect();
            let report = piped_json(&HOST, &bytes);
            assert_eq!(
                (&report["lines"], &report["errors"]),
                (&json!(50), &json!(50))
            );
            assert_eq!(report["causes"][0]["destination"], "10.0.0.5:3306");
        }
    }
    let output = piped(&[], b"\x1f\x8b\x08\0\0\0\0\0");
    assert_eq!(exit(&output), 3);
    assert!(
        stderr(&output).contains("zcat FILE | twcheck explain"),
        "{}",
        text(&output)
    );
}

/// A stack that ends a block, or comes late, is read with what is behind it.
#[test]
fn a_stack_is_read_whole_wherever_the_pipe_cuts_it() {
    let error = "java.net.BindException: Cannot assign requested address\n\tat sun.nio.ch.Net.connect0(Native Method)\n";
    for filler in 0..40 {
        let before = "x".repeat((256 << 10) - 2 * filler) + "\n";
        let report = piped_json(&HOST, format!("{before}{error}").as_bytes());
        assert_eq!(
            report["causes"][0]["kind"], "ephemeral_ports_exhausted",
            "{filler}"
        );
    }
}

#[test]
fn loopback_is_an_address_and_no_beginning_of_a_name() {
    for (host, is_loopback) in [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("[::1]", true),
        ("localhost", true),
        ("127.evil.example", false),
        ("localhost.example.com", false),
        ("10.0.0.5", false),
    ] {
        let line = format!("dial tcp {host}:3306: connect: cannot assign requested address");
        assert_eq!(
            !read(&line).causes[0].notes.is_empty(),
            is_loopback,
            "{host}"
        );
    }
}

/// What is so now is of this machine and of this moment.
#[test]
fn a_log_of_another_machine_or_of_long_ago_is_told_apart() {
    let error = "app[7]: dial tcp 10.0.0.5:3306: connect: cannot assign requested address";
    let now = |line: &str| piped_json(&HOST, line.as_bytes())["now"][0].clone();
    let other = now(&format!("Nov 25 03:12:01 other-9 {error}"));
    assert_eq!(other["is_exhausted"], json!(null));
    let summary = other["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("the log is of other-9, and this machine is "),
        "{summary}"
    );
    let old = now(&format!("2020-11-25T03:12:01Z {error}"));
    let summary = old["summary"].as_str().unwrap();
    assert!(
        summary.contains("the last of these errors was at 2020-11-25T03:12:01Z"),
        "{summary}"
    );
    let untold = now(error);
    assert!(
        !untold["summary"]
            .as_str()
            .unwrap()
            .contains("the last of these"),
        "{untold}"
    );
}

#[test]
fn lines_out_of_order_tell_the_first_and_the_last() {
    let line = |time: &str| format!("{time} dial tcp 10.0.0.5:3306: connect: connection refused\n");
    let log = [
        "2026-11-25T03:15:01Z",
        "2026-11-25 04:12:30+01:00",
        "1795576500 ",
    ]
    .map(line)
    .concat();
    let explanation = read(&log);
    let cause = &explanation.causes[0];
    assert_eq!(
        cause.first.unwrap().to_string(),
        "2026-11-25T04:12:30+01:00"
    );
    assert_eq!(cause.last.unwrap().to_string(), "2026-11-25T03:15:01Z");
    // Over a new year, in a format without one.
    let log = ["Dec 31 23:59:59", "Jan  1 00:00:01"].map(line).concat();
    let told = read(&log).causes.remove(0);
    assert_eq!(told.first.unwrap().to_string(), "2025-12-31T23:59:59");
    assert_eq!(told.last.unwrap().to_string(), "2026-01-01T00:00:01");
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
