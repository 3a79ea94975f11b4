//! `repro` against the servers that people run today: MySQL 9.7, MySQL Router, MariaDB 11.8,
//! HAProxy, Redis, PostgreSQL and nginx from private roots (tests/servers.sh).

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use common::network::Host;
use common::servers::{Database, Service, Suite};
use common::{exit, in_namespace, port_range, sysctl, text};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse";
/// Both addresses are the machine's own and not loopback.
const FOUR: &str = "192.0.2.1";
const SIX: &str = "2001:db8::1";

/// `twcheck repro` with this password in the environment.
fn repro(password: &str, words: &[&str]) -> Output {
    common::command(&["repro"])
        .args(words)
        .env("MYSQL_PWD", password)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

/// Its report, whatever its exit status; never the text of a panic.
fn report(password: &str, words: &[&str]) -> Value {
    let output = repro(password, &[&["--json"], words].concat());
    let said = text(&output);
    assert!(!said.contains("panicked"), "{words:?}: {said}");
    assert!(
        password.len() < 8 || !said.contains(password),
        "{words:?}: {said}"
    );
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"));
    common::assert_valid("repro", &report);
    report
}

/// Three logins that must succeed.
fn assert_in(password: &str, words: &[&str]) {
    let words = [&["--host", FOUR, "--connections", "3"], words].concat();
    let report = report(password, &words);
    assert_eq!(
        (
            &report["stopped_by"],
            &report["connections"],
            &report["error"]
        ),
        (&json!("count"), &json!(3), &Value::Null),
        "{words:?}: {report}"
    );
}

/// The kind of failure, and the server's number.
fn failure(password: &str, words: &[&str]) -> (Value, Value) {
    let words = [&["--host", FOUR, "--connections", "3"], words].concat();
    let error = report(password, &words)["error"].clone();
    (error["kind"].clone(), error["mysql_code"].clone())
}

/// What a server counts of clients that went wrong.
#[derive(Debug, PartialEq)]
struct Counted {
    aborted_clients: u64,
    aborted_connects: u64,
    /// What would block this host, and how often it has.
    host_cache: String,
}

fn counted(database: &Database) -> Counted {
    Counted {
        aborted_clients: database.count("Aborted_clients"),
        aborted_connects: database.count("Aborted_connects"),
        host_cache: database.query(
            "SELECT COALESCE(SUM(SUM_CONNECT_ERRORS), 0), \
             COALESCE(SUM(COUNT_HOST_BLOCKED_ERRORS), 0) \
             FROM performance_schema.host_cache",
        ),
    }
}

/// A run that must meet errno 99 at the predicted count, and leave the server as it was.
fn assert_runs_out(database: &Database, words: &[&str], connections: u32) {
    let before = counted(database);
    let report = report(PASSWORD, words);
    println!(
        "MEASURED {words:?}: {} predicted, {} made, {}/s",
        report["predicted_ports"], report["connections"], report["rate"]
    );
    assert_eq!(
        (
            &report["stopped_by"],
            &report["error"]["errno"],
            &report["predicted_ports"],
            &report["connections"],
            &report["server"]["watch_ended_because"],
        ),
        (
            &json!("exhausted"),
            &json!(99),
            &json!(connections),
            &json!(connections),
            &Value::Null,
        ),
        "{words:?}: {report}"
    );
    assert_eq!(counted(database), before, "{words:?}");
}

/// One line for each way to run out of ports. Each takes another destination, or its ports would
/// still be in TIME_WAIT.
fn every_flow_runs_out_at_its_count(database: &Database) {
    port_range(40000, 40499);
    for address in ["192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14"] {
        let address = format!("{address}/32");
        common::run("ip", &["address", "add", &address, "dev", "lo"]);
    }
    for (words, connections) in [
        (&["--host", FOUR][..], 500),
        (&["--host", SIX], 500),
        (&["--host", "192.0.2.11", "--threads", "4"], 500),
        (
            &[
                "--host",
                "192.0.2.12",
                "--bind-address",
                "192.0.2.2,192.0.2.3",
            ],
            1000,
        ),
        (&["--host", "192.0.2.13", "--tls=required"], 500),
        (
            &["--host", "192.0.2.14", "--tls=required", "--threads", "4"],
            500,
        ),
    ] {
        for source in ["192.0.2.2/32", "192.0.2.3/32"] {
            common::run("ip", &["address", "replace", source, "dev", "lo"]);
        }
        assert_runs_out(database, &[&["--user", "app"], words].concat(), connections);
    }
    // What is said for the application is what its own client says now.
    let words = ["--host", FOUR, "--user", "app"];
    let said = text(&repro(PASSWORD, &words)).replace("\n                ", " ");
    let host = format!("--host={FOUR}");
    let client = text(&database.client(&[&host, "--user=app", "--protocol=tcp"]));
    let line = client
        .lines()
        .find_map(|line| Some(&line[line.find("ERROR")?..]));
    let line = line.unwrap_or_else(|| panic!("{client}"));
    assert!(
        line.ends_with("(99)") && said.contains(line),
        "{client}\n{said}"
    );
    // In the middle of logins time is up.
    let before = counted(database);
    let host = ["--host", "127.0.0.1", "--user", "app", "--threads", "4"];
    let timed = report(
        PASSWORD,
        &[&host[..], &["--duration", "1s", "--rate", "300"]].concat(),
    );
    assert_eq!(timed["stopped_by"], "duration", "{timed}");
    assert_eq!(counted(database), before, "duration");
    let pool = report(
        PASSWORD,
        &[
            "--host",
            "127.0.0.1",
            "--user",
            "app",
            "--pool",
            "5",
            "--threads",
            "3",
            "--connections",
            "2000",
        ],
    );
    assert_eq!(
        (
            &pool["connections"],
            &pool["checkouts"],
            &pool["time_wait"]["client_side"]
        ),
        (
            &json!(5),
            &json!(2000),
            &pool["time_wait"]["client_side_before"]
        ),
        "{pool}"
    );
    assert_eq!(counted(database), before, "pool");
    sysctl("net.ipv4.ip_local_port_range", "20000 60999");
}

#[test]
fn ports_run_out_at_the_predicted_count_against_mysql_9() {
    let test = "ports_run_out_at_the_predicted_count_against_mysql_9";
    if Suite::Unstable.is_there(test) {
        in_namespace(test, || {
            let database = Database::mysql(&[]);
            database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
            every_flow_runs_out_at_its_count(&database);
        });
    }
}

#[test]
fn ports_run_out_at_the_predicted_count_against_mariadb_11() {
    let test = "ports_run_out_at_the_predicted_count_against_mariadb_11";
    if Suite::Trixie.is_there(test) {
        in_namespace(test, || {
            let database = Database::mariadb(&[]);
            database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
            every_flow_runs_out_at_its_count(&database);
        });
    }
}

/// Passwords that are hard on a client: none, letters of other scripts, 200 of them, and more than
/// fit under a key.
fn passwords() -> [(&'static str, String); 4] {
    [
        ("plain", PASSWORD.into()),
        ("empty", String::new()),
        ("utf8", "пароль→ß".into()),
        ("long", "x".repeat(200)),
    ]
}

#[test]
fn every_plugin_of_mysql_9_is_spoken() {
    let test = "every_plugin_of_mysql_9_is_spoken";
    if !Suite::Unstable.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mysql(&[]);
        for plugin in ["caching_sha2_password", "sha256_password"] {
            for (name, password) in passwords() {
                let user = format!("{name}_{plugin}");
                let user = &user[..user.len().min(32)];
                database.query(&format!(
                    "CREATE USER `{user}`@'%' IDENTIFIED WITH {plugin} BY '{password}'"
                ));
                // Then what the server has cached.
                for _ in 0..2 {
                    assert_in(&password, &["--user", user]);
                }
                assert_in(&password, &["--user", user, "--tls=required"]);
                let wrong = (json!("access_denied"), json!(1045));
                assert_eq!(failure("wrong one", &["--user", user]), wrong);
            }
        }
        database.query(&format!(
            "CREATE USER verbose@'%' IDENTIFIED BY '{}'",
            "y".repeat(240)
        ));
        // 213 fit under a key of 2,048 bits.
        let long = "y".repeat(240);
        assert_eq!(
            failure(&long, &["--user", "verbose"]),
            (json!("password_not_sent"), Value::Null)
        );
        assert_in(&long, &["--user", "verbose", "--tls=required"]);
        // A decoy for each name, of any plugin: it is always the name that is wrong.
        for number in 0..30 {
            let nobody = format!("nobody{number}");
            assert_eq!(
                failure(PASSWORD, &["--user", &nobody]),
                (json!("access_denied"), json!(1045)),
                "{nobody}"
            );
        }
        let blocked = counted(&database).host_cache;
        assert_eq!(blocked.trim(), "0\t0");
    });
}

#[test]
fn every_plugin_of_mariadb_11_is_spoken() {
    let test = "every_plugin_of_mariadb_11_is_spoken";
    if !Suite::Trixie.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mariadb(&[]);
        for plugin in ["mysql_native_password", "ed25519", "parsec"] {
            for (name, password) in passwords() {
                let user = format!("{name}_{plugin}");
                database.query(&format!(
                    "CREATE USER `{user}`@'%' IDENTIFIED VIA {plugin} USING PASSWORD('{password}')"
                ));
                assert_in(&password, &["--user", &user]);
                assert_in(&password, &["--user", &user, "--tls=required"]);
                let wrong = (json!("access_denied"), json!(1045));
                assert_eq!(failure("wrong one", &["--user", &user]), wrong, "{user}");
            }
        }
        for number in 0..10 {
            let nobody = format!("nobody{number}");
            assert_eq!(
                failure(PASSWORD, &["--user", &nobody]),
                (json!("access_denied"), json!(1045)),
                "{nobody}"
            );
        }
        // One method after the other.
        for (user, methods) in [
            (
                "second",
                [
                    "ed25519 USING PASSWORD('other')",
                    "mysql_native_password USING PASSWORD('correct horse')",
                ],
            ),
            (
                "third",
                [
                    "parsec USING PASSWORD('other') OR ed25519 USING PASSWORD('third')",
                    "mysql_native_password USING PASSWORD('correct horse')",
                ],
            ),
            (
                "last",
                [
                    "mysql_native_password USING PASSWORD('other')",
                    "parsec USING PASSWORD('correct horse')",
                ],
            ),
            (
                "socket",
                ["unix_socket", "ed25519 USING PASSWORD('correct horse')"],
            ),
        ] {
            database.query(&format!(
                "CREATE USER {user}@'%' IDENTIFIED VIA {} OR {}",
                methods[0], methods[1]
            ));
            assert_in(PASSWORD, &["--user", user]);
            // Behind a wrong signature of parsec 11.8.9 takes OpenSSL's complaint about it for one
            // about its next read, and closes.
            if user != "third" {
                assert_in(PASSWORD, &["--user", user, "--tls=required"]);
            }
            let wrong = (json!("access_denied"), json!(1045));
            assert_eq!(failure("wrong one", &["--user", user]), wrong, "{user}");
        }
        assert_eq!(counted(&database).host_cache.trim(), "0\t0");
        // What is not spoken is named.
        database.query("INSTALL SONAME 'auth_pam_v1'");
        database.query("CREATE USER pam@'%' IDENTIFIED VIA pam");
        let words = ["--host", FOUR, "--user", "pam"];
        let error = &report(PASSWORD, &words)["error"];
        assert_eq!(error["kind"], "authentication_plugin", "{error}");
        assert!(
            error["text"].as_str().unwrap().contains("'dialog'"),
            "{error}"
        );
    });
}

/// A certificate that no server knows, and its key.
fn stranger(database: &Database) -> [String; 2] {
    let file = |name: &str| {
        database
            .folder
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let [certificate, key] = [file("stranger.pem"), file("stranger.key")];
    let words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=stranger -keyout";
    let words = words
        .split(' ')
        .chain([key.as_str(), "-out", certificate.as_str()]);
    common::run("openssl", &words.collect::<Vec<_>>());
    [certificate, key]
}

/// What is counted of an account, or of all: the loop takes no more of it than a client would.
fn limits_of_mysql_9(database: &Database) {
    let told = |words: &[&str], kind: &str, code: Value| {
        assert_eq!(failure(PASSWORD, words), (json!(kind), code), "{words:?}");
    };
    // One login is one failed login.
    for expected in [json!(1045), json!(1045), json!(3955)] {
        let (_, code) = failure("wrong", &["--user", "careful"]);
        assert_eq!(code, expected, "FAILED_LOGIN_ATTEMPTS 3");
    }
    told(&["--user", "careful"], "account_locked", json!(3955));

    // Who watches gives way, and takes none of what is counted by the hour.
    // At a pace at which the server has noticed that the one before is gone.
    assert_in(PASSWORD, &["--user", "single", "--rate", "5"]);
    let hourly = report(PASSWORD, &["--host", FOUR, "--user", "hourly"]);
    assert_eq!(
        (
            &hourly["connections"],
            &hourly["error"]["kind"],
            &hourly["error"]["mysql_code"],
            &hourly["server"]["watch_ended_because"]
        ),
        (
            &json!(5),
            &json!("hourly_limit"),
            &json!(1226),
            &Value::Null
        ),
        "{hourly}"
    );
    // Of a pool that fails those are told that were opened.
    let pool = report(PASSWORD, &["--host", FOUR, "--user", "few", "--pool", "8"]);
    assert_eq!(
        (&pool["connections"], &pool["error"]["mysql_code"]),
        (&json!(2), &json!(1226)),
        "{pool}"
    );
    assert_eq!(
        pool["server"]["not_watched_because"],
        "the pool could not open all of its connections"
    );
    database.query("SET GLOBAL max_connections = 10");
    let held: Vec<_> = (0..9)
        .map(|_| std::net::TcpStream::connect("127.0.0.1:3306").unwrap())
        .collect();
    thread::sleep(Duration::from_millis(300));
    // One slot is left, or two: root's is one more. As above, not faster than the server notices.
    assert_in(PASSWORD, &["--user", "app", "--rate", "5"]);
    let more: Vec<_> = (0..3)
        .map(|_| std::net::TcpStream::connect("127.0.0.1:3306").unwrap())
        .collect();
    thread::sleep(Duration::from_millis(300));
    told(&["--user", "app"], "too_many_connections", json!(1040));
    drop((held, more));
    thread::sleep(Duration::from_millis(500));
    database.query("SET GLOBAL max_connections = 151");
}

#[test]
fn every_no_of_mysql_9_has_its_own_name() {
    let test = "every_no_of_mysql_9_has_its_own_name";
    if !Suite::Unstable.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mysql(&["--max-connect-errors=5"]);
        database.query(
            "CREATE USER app@'%' IDENTIFIED BY 'correct horse'; CREATE DATABASE attic; \
             GRANT SELECT ON none.* TO app@'%'; \
             CREATE USER locked@'%' IDENTIFIED BY 'correct horse' ACCOUNT LOCK; \
             CREATE USER stale@'%' IDENTIFIED BY 'correct horse' PASSWORD EXPIRE; \
             CREATE USER tls@'%' IDENTIFIED BY 'correct horse' REQUIRE SSL; \
             CREATE USER badge@'%' IDENTIFIED BY 'correct horse' REQUIRE X509; \
             CREATE USER careful@'%' IDENTIFIED BY 'correct horse' FAILED_LOGIN_ATTEMPTS 3 \
             PASSWORD_LOCK_TIME 1; \
             CREATE USER single@'%' IDENTIFIED BY 'correct horse' WITH MAX_USER_CONNECTIONS 1; \
             CREATE USER few@'%' IDENTIFIED BY 'correct horse' WITH MAX_USER_CONNECTIONS 2; \
             CREATE USER hourly@'%' IDENTIFIED BY 'correct horse' WITH MAX_CONNECTIONS_PER_HOUR 5",
        );
        let authority = database.file("ca.pem");
        let (certificate, key) = (
            database.file("client-cert.pem"),
            database.file("client-key.pem"),
        );
        let badge = ["--tls-cert", &certificate, "--tls-key", &key];
        let stranger = stranger(&database);
        let stranger = ["--tls-cert", &stranger[0], "--tls-key", &stranger[1]];
        let told = |words: &[&str], kind: &str, code: Value| {
            assert_eq!(failure(PASSWORD, words), (json!(kind), code), "{words:?}");
        };
        told(
            &["--user", "app", "--database", "none"],
            "no_such_database",
            json!(1049),
        );
        told(
            &["--user", "app", "--database", "attic"],
            "no_such_database",
            json!(1044),
        );
        told(&["--user", "locked"], "account_locked", json!(3118));
        told(&["--user", "stale"], "password_expired", json!(1862));
        told(&["--user", "tls"], "access_denied", json!(1045));
        told(
            &["--user", "badge", "--tls=required"],
            "access_denied_under_tls",
            json!(1045),
        );
        told(
            &["--user", "app", "--tls"],
            "tls_unknown_issuer",
            Value::Null,
        );
        told(
            &["--user", "app", "--tls-ca", &authority],
            "tls_no_name",
            Value::Null,
        );
        assert_in(PASSWORD, &["--user", "tls", "--tls=required"]);
        assert_in(
            PASSWORD,
            &["--user", "tls", "--tls=verify-ca", "--tls-ca", &authority],
        );
        assert_in(
            PASSWORD,
            &[&["--user", "badge", "--tls=required"][..], &badge].concat(),
        );

        told(
            &[&["--user", "badge", "--tls=required"][..], &stranger].concat(),
            "tls_client_unknown",
            Value::Null,
        );
        database.query("TRUNCATE performance_schema.host_cache");

        limits_of_mysql_9(&database);
        database.query("SET GLOBAL require_secure_transport = 1");
        told(&["--user", "app"], "tls_required", json!(3159));
        assert_in(PASSWORD, &["--user", "app", "--tls=required"]);
        database.query("SET GLOBAL require_secure_transport = 0");
        database.query("SET GLOBAL offline_mode = 1");
        told(&["--user", "app"], "shutting_down", json!(3032));
        database.query("SET GLOBAL offline_mode = 0");
        database
            .query("UPDATE mysql.user SET plugin = 'gone' WHERE user = 'app'; FLUSH PRIVILEGES");
        told(&["--user", "app"], "plugin_not_loaded", json!(1524));
        database.query(
            "DROP USER app, locked, stale, tls, badge, careful, single, few, hourly; \
                        FLUSH PRIVILEGES",
        );
        told(&["--user", "app"], "host_not_allowed", json!(1130));
    });
}

/// A guard must do no harm: refusals do not bring the host nearer to being blocked.
fn the_guard_costs_nothing(database: &Database) {
    database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
    for secure in ["0", "1"] {
        database.query(&format!("SET GLOBAL require_secure_transport = {secure}"));
        for _ in 0..8 {
            let output = repro("", &["--protocol", "tcp", "--host", FOUR]);
            assert_eq!(exit(&output), 3, "{}", text(&output));
            assert!(
                text(&output).contains("greets like MySQL"),
                "{}",
                text(&output)
            );
            let server = format!("{FOUR}:3306");
            common::twcheck(&["verdict", "--connect", &server]);
        }
        assert_eq!(counted(database).host_cache.trim(), "0\t0");
    }
    database.query("SET GLOBAL require_secure_transport = 0");
    assert_in(PASSWORD, &["--user", "app"]);
    // What it spares the user: so many of these block the host.
    let force = ["--protocol", "tcp", "--force", "--connections", "8"];
    repro("", &[&["--host", FOUR], &force[..]].concat());
    assert_eq!(
        failure(PASSWORD, &["--user", "app"]),
        (json!("host_blocked"), json!(1129))
    );
}

#[test]
fn looking_whether_a_server_is_mysql_9_does_not_count_against_this_host() {
    let test = "looking_whether_a_server_is_mysql_9_does_not_count_against_this_host";
    if Suite::Unstable.is_there(test) {
        in_namespace(test, || {
            the_guard_costs_nothing(&Database::mysql(&["--max-connect-errors=5"]));
        });
    }
}

#[test]
fn looking_whether_a_server_is_mariadb_11_does_not_count_against_this_host() {
    let test = "looking_whether_a_server_is_mariadb_11_does_not_count_against_this_host";
    if Suite::Trixie.is_there(test) {
        in_namespace(test, || {
            the_guard_costs_nothing(&Database::mariadb(&["--max-connect-errors=5"]));
        });
    }
}

/// MySQL 9 answers the lone FIN, and the kernel resets for that: no TIME_WAIT.
#[test]
fn an_abrupt_close_of_mysql_9_is_told_as_what_it_is() {
    let test = "an_abrupt_close_of_mysql_9_is_told_as_what_it_is";
    if !Suite::Unstable.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mysql(&[]);
        database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
        // Also where the run ends long before the ports.
        let abrupt = ["--host", FOUR, "--user", "app", "--close", "abrupt"];
        let short = report(PASSWORD, &[&abrupt[..], &["--connections", "200"]].concat());
        assert_eq!(
            (&short["stopped_by"], &short["ports_came_back"]),
            (&json!("count"), &json!("answered_after_close")),
            "{short}"
        );
        database.query("SET GLOBAL init_connect = 'nonsense'");
        let words = [
            "--host",
            "127.0.0.1",
            "--user",
            "app",
            "--connections",
            "10",
        ];
        let broken = report(PASSWORD, &words);
        assert_eq!(
            (&broken["connections"], &broken["ports_came_back"]),
            // The error about it comes behind the client's own end.
            (&json!(10), &json!("answered_after_close")),
            "{broken}"
        );
        database.query("SET GLOBAL init_connect = ''");
        port_range(40000, 40499);
        let plain = report(
            PASSWORD,
            &[&abrupt[..], &["--connections", "3000"]].concat(),
        );
        println!(
            "MEASURED abrupt: {} made of {}",
            plain["connections"], plain["predicted_ports"]
        );
        assert_eq!(plain["ports_came_back"], "answered_after_close", "{plain}");
        let abrupt = [
            "--host",
            SIX,
            "--user",
            "app",
            "--close",
            "abrupt",
            "--tls=required",
        ];
        let encrypted = report(PASSWORD, &abrupt);
        assert_eq!(
            (&encrypted["stopped_by"], &encrypted["connections"]),
            (&json!("exhausted"), &json!(500)),
            "{encrypted}"
        );
        let (before, after) = (
            &encrypted["server"]["before"],
            &encrypted["server"]["after"],
        );
        let clients = |status: &Value| status["aborted_clients"].as_u64().unwrap();
        assert_eq!(
            clients(after) - clients(before),
            499,
            "all but the one that counts"
        );
    });
}

#[test]
fn what_was_seen_of_a_server_until_it_stopped_is_told() {
    let test = "what_was_seen_of_a_server_until_it_stopped_is_told";
    if !Suite::Unstable.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mysql(&[]);
        database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
        let run = thread::spawn(|| {
            let pace = [
                "--host",
                FOUR,
                "--user",
                "app",
                "--duration",
                "20s",
                "--rate",
                "50",
            ];
            report(PASSWORD, &pace)
        });
        thread::sleep(Duration::from_secs(2));
        drop(database);
        let report = run.join().unwrap();
        let server = &report["server"];
        assert_eq!(report["stopped_by"], "error", "{report}");
        assert_eq!(server["not_watched_because"], Value::Null, "{report}");
        assert!(server["watch_ended_because"].is_string(), "{report}");
        assert!(
            server["threads_connected_max"].as_u64().unwrap() >= 1,
            "{report}"
        );
        assert_eq!(server["before"]["threads_connected"], 1, "{report}");
    });
}

/// A run through a proxy on another host.
fn proxied(port: &str, words: &[&str]) -> Value {
    let server = ["--host", "10.9.0.2", "--port", port, "--user", "app"];
    let report = report(PASSWORD, &[&server[..], words].concat());
    let error = &report["error"]["text"];
    println!(
        "MEASURED proxy {port}: {} made, {error}",
        report["connections"]
    );
    report
}

#[test]
fn a_proxy_whose_own_ports_are_gone_is_told_from_this_machine() {
    let test = "a_proxy_whose_own_ports_are_gone_is_told_from_this_machine";
    if !Suite::Unstable.is_there(test) || !Suite::Machine.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let host = Host::new("proxy", "10.9.0.1/24", "10.9.0.2/24");
        let database = Database::mysql(&[]);
        database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
        let ports = |range: &str| {
            let range = format!("net.ipv4.ip_local_port_range={range}");
            host.run(&["sysctl", "-qw", &range, "net.ipv4.tcp_tw_reuse=0"]);
        };
        let folder = database.folder.path();
        let config = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };

        ports("40000 40099");
        let router = config(
            "router.conf",
            format!(
                "[DEFAULT]\nlogging_folder=\nplugin_folder={}\n[routing:a]\n\
                 bind_address=0.0.0.0\nbind_port=6446\ndestinations=10.9.0.1:3306\n\
                 routing_strategy=first-available\nprotocol=classic\nmax_connect_errors=100000\n",
                Suite::Unstable.path("lib/mysqlrouter/plugin"),
            ),
        );
        let mut command = Suite::Unstable.program("bin/mysqlrouter");
        command.arg("-c").arg(router);
        let _router = Service::start_at(&host, &command, 6446);
        assert_eq!(
            proxied("6446", &["--connections", "5"])["error"],
            Value::Null
        );
        let out = proxied("6446", &[]);
        assert_eq!(
            (
                &out["error"]["kind"],
                &out["error"]["mysql_code"],
                &out["stopped_by"]
            ),
            (
                &json!("proxy_cannot_connect"),
                &json!(2003),
                &json!("error")
            ),
            "{out}"
        );
        let made = out["connections"].as_u64().unwrap();
        assert!((90..=200).contains(&made), "its 100 ports: {made}");

        let haproxy = config(
            "haproxy.cfg",
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
             timeout client 5s\n  timeout server 5s\n  retries 0\n\
             listen plain\n  bind :3307\n  server a 10.9.0.1:3306\n\
             listen announced\n  bind :3308\n  server a 10.9.0.1:3306 send-proxy\n"
                .into(),
        );
        let mut command = Suite::Machine.program("sbin/haproxy");
        command.arg("-db").arg("-f").arg(haproxy);
        let _haproxy = Service::start_at(&host, &command, 3307);
        // It has nothing to say, and closes.
        let out = repro(
            PASSWORD,
            &["--host", "10.9.0.2", "--port", "3307", "--user", "app"],
        );
        assert!(
            text(&out).contains("reading initial communication packet")
                && text(&out).contains("its own ports are gone"),
            "{}",
            text(&out)
        );
        ports("50000 50999");
        assert_eq!(
            proxied("3307", &["--connections", "50"])["error"],
            Value::Null
        );
        let announced = proxied("3308", &[]);
        assert_eq!(announced["error"]["kind"], "out_of_step", "{announced}");
    });
}

/// A PostgreSQL in this folder. It refuses to be root, and starts programs by itself.
fn postgres(folder: &Path) -> Service {
    let suite = Suite::Machine;
    let versions = fs::read_dir(suite.path("lib/postgresql")).unwrap();
    let version = versions.last().unwrap().unwrap().file_name();
    let version = version.to_str().unwrap();
    let data = folder.join("postgres");
    fs::create_dir(&data).unwrap();
    let program = |name: &str, words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--"]);
        command.arg(suite.path(&format!("lib/postgresql/{version}/bin/{name}")));
        command.args(["-D", data.to_str().unwrap()]).args(words);
        command.env("LD_LIBRARY_PATH", suite.libraries());
        command.env("LC_ALL", "C");
        command
    };
    let share = suite.path(&format!("share/postgresql/{version}"));
    let made = program("initdb", &["-L", &share, "--auth=trust", "--no-sync"]);
    let made = { made }.output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let socket = format!("unix_socket_directories={}", folder.display());
    let server = program("postgres", &["-c", "listen_addresses=*", "-c", &socket]);
    Service::start(server, 5432)
}

/// Servers of other protocols: connect() alone.
#[test]
fn ports_run_out_at_the_predicted_count_against_any_server() {
    let test = "ports_run_out_at_the_predicted_count_against_any_server";
    if !Suite::Machine.is_there(test) {
        return;
    }
    in_namespace(test, || {
        common::run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let suite = Suite::Machine;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut redis = suite.program("bin/redis-server");
        redis.args([
            "--port",
            "6379",
            "--save",
            "",
            "--dir",
            &at(""),
            "--protected-mode",
            "no",
        ]);
        let _redis = Service::start(redis, 6379);
        fs::write(
            at("nginx.conf"),
            format!(
                "user root; daemon off; master_process off; pid {}; error_log stderr; events {{}} \
                 http {{ access_log off; client_body_temp_path {0}b; proxy_temp_path {0}p; \
                 fastcgi_temp_path {0}f; uwsgi_temp_path {0}u; scgi_temp_path {0}s; \
                 server {{ listen 8080; }} }}",
                at("nginx.pid")
            ),
        )
        .unwrap();
        let mut nginx = suite.program("sbin/nginx");
        nginx.args(["-c", &at("nginx.conf"), "-e", "stderr"]);
        let _nginx = Service::start(nginx, 8080);
        let _postgres = postgres(folder.path());
        // They wait for the client to speak.
        let said = repro("", &["--host", FOUR, "--port", "6379", "--user", "app"]);
        let said = text(&said).replace("\n      ", " ");
        assert!(
            said.contains("not greet as MySQL does") && said.contains("`--protocol tcp --force`"),
            "{said}"
        );
        port_range(40000, 40499);
        for port in ["6379", "8080", "5432"] {
            let report = report(
                "",
                &[
                    "--protocol",
                    "tcp",
                    "--force",
                    "--host",
                    FOUR,
                    "--port",
                    port,
                ],
            );
            println!(
                "MEASURED port {port}: {} predicted, {} made",
                report["predicted_ports"], report["connections"]
            );
            // The look for a greeting takes one.
            assert_eq!(
                (
                    &report["stopped_by"],
                    &report["predicted_ports"],
                    &report["connections"]
                ),
                (&json!("exhausted"), &json!(499), &json!(499)),
                "{report}"
            );
        }
    });
}

#[test]
fn every_no_of_mariadb_11_has_its_own_name() {
    let test = "every_no_of_mariadb_11_has_its_own_name";
    if !Suite::Trixie.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let database = Database::mariadb(&["--max-password-errors=3"]);
        database.query(
            "CREATE USER app@'%' IDENTIFIED BY 'correct horse'; CREATE DATABASE attic; \
             CREATE USER locked@'%' IDENTIFIED BY 'correct horse' ACCOUNT LOCK; \
             CREATE USER unix@'%' IDENTIFIED VIA unix_socket; \
             CREATE USER tls@'%' IDENTIFIED BY 'correct horse' REQUIRE SSL; \
             CREATE USER careful@'%' IDENTIFIED BY 'correct horse'; \
             CREATE USER single@'%' IDENTIFIED BY 'correct horse' WITH MAX_USER_CONNECTIONS 1; \
             CREATE USER hourly@'%' IDENTIFIED BY 'correct horse' WITH MAX_CONNECTIONS_PER_HOUR 5",
        );
        let told = |words: &[&str], kind: &str, code: Value| {
            assert_eq!(failure(PASSWORD, words), (json!(kind), code), "{words:?}");
        };
        told(
            &["--user", "app", "--database", "attic"],
            "no_such_database",
            json!(1044),
        );
        told(&["--user", "locked"], "account_locked", json!(4151));
        told(&["--user", "unix"], "socket_account", json!(1698));
        let stranger = stranger(&database);
        let stranger = ["--tls-cert", &stranger[0], "--tls-key", &stranger[1]];
        told(
            &[&["--user", "app", "--tls=required"][..], &stranger].concat(),
            "tls_client_unknown",
            Value::Null,
        );
        told(&["--user", "tls"], "access_denied", json!(1045));
        // A certificate that the server made itself, with no name of this host in it.
        told(
            &["--user", "tls", "--tls"],
            "tls_unknown_issuer",
            Value::Null,
        );
        assert_in(PASSWORD, &["--user", "tls", "--tls=required"]);
        for expected in [1045, 1045, 1045, 4150] {
            let (_, code) = failure("wrong", &["--user", "careful"]);
            assert_eq!(code, expected, "max_password_errors 3");
        }
        // At a pace at which the server has noticed that the one before is gone.
        assert_in(PASSWORD, &["--user", "single", "--rate", "5"]);
        let hourly = report(PASSWORD, &["--host", FOUR, "--user", "hourly"]);
        assert_eq!(
            (&hourly["connections"], &hourly["error"]["mysql_code"]),
            (&json!(5), &json!(1226)),
            "{hourly}"
        );
        database.query("SET GLOBAL require_secure_transport = 1");
        told(&["--user", "app"], "tls_required", json!(3159));
        assert_in(PASSWORD, &["--user", "app", "--tls=required"]);
    });
}

/// A file of `[client]` is read as MySQL's and MariaDB's own `my_print_defaults` read it.
#[test]
fn option_files_are_read_as_the_clients_read_them() {
    let test = "option_files_are_read_as_the_clients_read_them";
    let there = [Suite::Unstable, Suite::Trixie].map(|suite| suite.is_there(test));
    let seed = common::env_number("TWCHECK_SEED", 11);
    let files = common::env_number("TWCHECK_FILES", 60);
    println!("MEASURED TWCHECK_SEED={seed} TWCHECK_FILES={files}");
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(seed);
    for number in 0..files {
        let file = folder.path().join(format!("{number}.cnf"));
        let bytes = dice.file();
        fs::write(&file, &bytes).unwrap();
        let ours = twcheck::repro::OptionFile::read(&file).map(|file| {
            let mut lines = Vec::new();
            for entry in file.entries.iter().filter(|entry| entry.group == "client") {
                lines.extend(b"--");
                lines.extend(&entry.name);
                if let Some(value) = &entry.value {
                    lines.push(b'=');
                    lines.extend(value);
                }
                lines.push(b'\n');
            }
            String::from_utf8_lossy(&lines).into_owned()
        });
        for (suite, there) in [Suite::Unstable, Suite::Trixie].into_iter().zip(there) {
            if !there {
                continue;
            }
            let theirs = suite
                .program("bin/my_print_defaults")
                .arg(format!("--defaults-file={}", file.display()))
                .args(if suite == Suite::Unstable {
                    &["--show", "client"][..]
                } else {
                    &["client"]
                })
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&theirs.stdout).into_owned();
            let what = || {
                format!(
                    "TWCHECK_SEED={seed}, file {number}, {suite:?}: {:?}\n{}",
                    String::from_utf8_lossy(&bytes),
                    text(&theirs)
                )
            };
            match &ours {
                Ok(ours) => assert_eq!(ours, &said, "{}", what()),
                Err(error) => assert!(!theirs.status.success(), "{error:#}: {}", what()),
            }
        }
    }
}

/// Whom a client logs in as by a file, and whether with a password; `None` where it stops at it.
fn logs_in_as(said: &str) -> Option<(String, bool)> {
    let denied = said.split("Access denied for user '").nth(1);
    if let Some(denied) = denied {
        let (user, rest) = denied.split_once('\'')?;
        return Some((user.to_owned(), rest.contains("(using password: YES)")));
    }
    said.contains("it logged in").then(|| ("app".into(), true))
}

/// Files of `[client]`, with `user=app` and its password before the lines: where twcheck goes on, it
/// logs in as this client does, or says that it does not.
fn option_files_lead_where_the_client_goes(database: &Database) {
    database.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
    let before = "[client]\nuser=app\npassword=correct horse\n";
    let folder = database.folder.path();
    for (number, lines) in [
        "",
        "user u1",
        "password secret",
        "u=u1",
        "h=192.0.2.9",
        "user: u1",
        "--user=u1",
        "passwd=secret",
        "pass=secret",
        "Pass=secret",
        "password1=secret",
        "password2=secret",
        "skip-password",
        "disable-password",
        "use=u1",
        "User=u1",
        "username=u1",
        "skip-user",
        "user=",
        "user",
        "P=3307",
        "port=0",
        "port",
        "loose-user=u1",
        "loose-foobar=1",
        "default-character-set=utf8mb4",
        "!include /nonexistent",
        "!include FILE",
        "[mysql]\nuser=u1",
        "[client_prod]\nuser=u1",
        "[CLIENT_prod]\nuser=u1\n[client]\npassword=x",
        "ssl-ca=",
        "ssl-capath=/etc",
        "ssl-fp=AA",
        "ssl-mode=VERIFY_CA",
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.join(format!("{number}.cnf"));
        let path = file.to_str().unwrap();
        fs::write(&file, format!("{before}{}\n", lines.replace("FILE", path))).unwrap();
        let file = format!("--defaults-file={path}");
        let host = format!("--host={FOUR}");
        let client = database
            .bare_client(&[
                &file,
                &host,
                "--protocol=tcp",
                "--port=3306",
                "--execute=SELECT 'it logged in'",
            ])
            .env("MYSQL_GROUP_SUFFIX", "_prod")
            .output()
            .unwrap();
        let theirs = logs_in_as(&text(&client));
        let ours = common::command(&["repro", &file, &host, "--port=3306", "--connections=1"])
            .env("MYSQL_GROUP_SUFFIX", "_prod")
            .env("HOME", "/nonexistent")
            .env_remove("MYSQL_PWD")
            .output()
            .unwrap();
        let said = text(&ours).replace("\n      ", " ");
        let is_in = exit(&ours) == 0;
        let went = logs_in_as(&said).or_else(|| is_in.then(|| ("app".into(), true)));
        let noted = said.contains(&format!("note: {path} "));
        let what = || {
            format!(
                "{lines:?}: {went:?}, the client {theirs:?}\n{said}\n{}",
                text(&client)
            )
        };
        if went.is_some() && went != theirs {
            assert!(noted, "{}", what());
        }
        // No word of the login is passed over.
        assert!(!said.contains("secret"), "{}", what());
        println!(
            "MEASURED {lines:?}: {went:?}, the client {theirs:?}{}",
            if noted { ", noted" } else { "" }
        );
    }
}

#[test]
fn option_files_lead_where_mysql_goes() {
    let test = "option_files_lead_where_mysql_goes";
    if Suite::Unstable.is_there(test) {
        in_namespace(test, || {
            option_files_lead_where_the_client_goes(&Database::mysql(&[]));
        });
    }
}

#[test]
fn option_files_lead_where_mariadb_goes() {
    let test = "option_files_lead_where_mariadb_goes";
    if Suite::Trixie.is_there(test) {
        in_namespace(test, || {
            option_files_lead_where_the_client_goes(&Database::mariadb(&[]));
        });
    }
}

/// Numbers by chance (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((number ^ (number >> 31)) % sides as u64).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a [u8]]) -> &'a [u8] {
        of[self.roll(of.len())]
    }

    /// An option file as nobody would write it, and as people do.
    fn file(&mut self) -> Vec<u8> {
        let mut file = Vec::new();
        if self.roll(12) > 0 {
            file.extend(b"[client]\n");
        }
        for _ in 0..self.roll(12) {
            file.extend(self.one(&[b"", b"", b"", b" ", b"\t ", b"\x0b"]));
            match self.roll(12) {
                0 => {
                    let group: &[&[u8]] = &[
                        b"[client]",
                        b"[CLIENT]",
                        b"[client ]",
                        b"[ client]",
                        b"[client] # c",
                        b"[mysql]",
                        b"[client",
                        b"[client]]",
                        b"[]",
                        b"[client]host=a",
                    ];
                    file.extend(self.one(group));
                }
                1 => {
                    let line: &[&[u8]] = &[
                        b"# c",
                        b"; c",
                        b"",
                        b"#",
                        b"!include /nonexistent",
                        b"!bogus x",
                        b"! x",
                        b"!include",
                        b"\xef\xbb\xbf",
                    ];
                    file.extend(self.one(line));
                }
                _ => {
                    let names: &[&[u8]] = &[
                        b"host",
                        b"Host",
                        b"hos",
                        b"user",
                        b"password",
                        b"port",
                        b"ssl",
                        b"ssl_ca",
                        b"loose-x",
                        b"a b",
                        b"x#y",
                        b"x\"y",
                        b"skip-ssl",
                        b"\xff",
                        b"d\xc3\xa0",
                    ];
                    file.extend(self.one(names));
                    for _ in 0..self.roll(4).min(1) {
                        file.extend(self.one(&[b"=", b" = ", b"\t=", b"= "]));
                    }
                    for _ in 0..self.roll(6) {
                        let parts: &[&[u8]] = &[
                            b"a",
                            b"b c",
                            b"\"",
                            b"'",
                            b"\\",
                            b"\\n",
                            b"\\s",
                            b"\\t",
                            b"\\\\",
                            b"\\q",
                            b"#",
                            b"=",
                            b" ",
                            b"\xff",
                            b"\xc3\xa4",
                            b"\xc3\xa0",
                            b"1",
                            b"\\\"",
                            b"\\'",
                            b";",
                            b"]",
                        ];
                        file.extend(self.one(parts));
                    }
                }
            }
            file.extend(self.one(&[b"\n", b"\n", b"\n", b" \n", b"\r\n", b"\xa0\n"]));
        }
        file
    }
}
