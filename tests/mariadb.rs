//! `repro` against a real MariaDB, in a private namespace.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use common::mariadb::{MariaDb, has_mariadb};
use common::{
    assert_exhausted, exit, in_namespace, json, port_range, run, stderr, sysctl, text, twcheck,
};
use serde_json::{Value, json};
use twcheck::repro::server::Server;

#[test]
fn real_clients_connect_to_the_embedded_server_and_leave_without_an_error() {
    let test = "real_clients_connect_to_the_embedded_server_and_leave_without_an_error";
    if !has_mariadb(test) {
        return;
    }
    let server = Server::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = server.address().port().to_string();
    let output = run(
        "mariadb",
        &[
            "--no-defaults",
            "--host=127.0.0.1",
            "--protocol=tcp",
            "--port",
            &port,
            "--user=anyone",
            "--password=any",
            "--execute=do 1",
        ],
    );
    assert_eq!(text(&output), "exit status: 0");
    let python = "import MySQLdb, sys\n\
                  for _ in range(20):\n    \
                  connection = MySQLdb.connect(host='127.0.0.1', port=int(sys.argv[1]), user='anyone', passwd='any')\n    \
                  connection.cursor().close()\n    \
                  connection.close()\n\
                  print('done')";
    let output = run("/usr/bin/python3", &["-c", python, &port]);
    assert_eq!(text(&output), "exit status: 0done\n");
    assert!((1..=21).contains(&server.most_threads_connected()));
}

/// `twcheck repro --json` with the right password in the environment.
fn repro(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twcheck"))
        .args(["repro", "--json"])
        .args(arguments)
        .env("MYSQL_PWD", "correct horse")
        .output()
        .unwrap()
}

/// The report of [`repro`], whatever its exit status.
fn report(arguments: &[&str]) -> Value {
    let output = repro(arguments);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output)))
}

/// Clients that left without COM_QUIT, or broke off their handshake.
const ABORTED: &str = "SHOW GLOBAL STATUS LIKE 'Aborted_c%'";

#[test]
fn mariadb_is_idle_while_its_client_runs_out_of_ports() {
    let test = "mariadb_is_idle_while_its_client_runs_out_of_ports";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        port_range(40000, 41999);
        let aborted = database.query(ABORTED);
        let password = database.password_file();
        let arguments = [
            "repro",
            "--json",
            "--host",
            "192.0.2.1",
            "--user",
            "app",
            "--database",
            "shop",
            "--password-file",
            &password,
        ];
        let output = twcheck(&arguments);
        assert_eq!(exit(&output), 2, "{}", text(&output));
        assert_exhausted(
            &serde_json::from_slice(&output.stdout).unwrap(),
            2000,
            "192.0.2.1",
        );
        assert_eq!(database.query(ABORTED), aborted);

        // The flow is full now: the very first attempt meets 99, and it is exhaustion.
        let output = twcheck(&arguments);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (exit(&output), &report["stopped_by"], &report["connections"]),
            (2, &json!("exhausted"), &json!(0))
        );

        // Localhost by TCP, by URL, password from the environment; loopback with reuse does not end.
        sysctl("net.ipv4.tcp_tw_reuse", "2");
        sysctl("net.ipv4.ip_local_port_range", "20000 60999");
        let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
            .args([
                "repro",
                "--json",
                "--duration",
                "3s",
                "mysql://app@localhost:3306/shop",
            ])
            .env("MYSQL_PWD", "correct horse")
            .output()
            .unwrap();
        assert_eq!(exit(&output), 0, "{}", text(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["stopped_by"], "duration");
        assert!(
            report["time_wait"]["client_side"].as_u64().unwrap() > 500,
            "by TCP: {report}"
        );
        assert!(
            stderr(&output).contains("ports will not run out below"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn errors_that_look_alike_are_told_apart_and_show_no_secret() {
    let test = "errors_that_look_alike_are_told_apart_and_show_no_secret";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let _database = MariaDb::start();
        let secret = "hunter2-the-wrong-one";
        let repro = |arguments: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
                .args(["repro", "--connections", "3"])
                .args(arguments)
                .env("MYSQL_PWD", secret)
                .env_remove("USER")
                .output()
                .unwrap();
            assert!(!text(&output).contains(secret), "{}", text(&output));
            output
        };
        let silent = TcpListener::bind("127.0.0.1:3399").unwrap();
        thread::spawn(move || {
            for stream in silent.incoming() {
                drop(stream);
            }
        });
        let garbage = TcpListener::bind("127.0.0.1:3398").unwrap();
        thread::spawn(move || {
            for stream in garbage.incoming() {
                let _ = std::io::Write::write_all(
                    &mut stream.unwrap(),
                    b"SSH-2.0-OpenSSH_9.6 and a long line\r\n",
                );
            }
        });
        for (arguments, said, hint) in [
            (
                &["--host", "192.0.2.1", "--user", "app"][..],
                "ERROR 1045",
                "--password-file",
            ),
            (
                &["--host", "127.0.0.1", "--port", "3333"],
                "(111)\n127.0.0.1:3333 refuses connections: nothing listens there",
                "bind-address",
            ),
            (
                &["--host", "203.0.113.9"],
                "(101)\nThere is no way to 203.0.113.9",
                "ip route get",
            ),
            (
                &["--host", "no-such-host.invalid"],
                "\"no-such-host.invalid\" has no address",
                "spelling",
            ),
            (
                &["--host", "127.0.0.1", "--port", "3399"],
                "then cut it off",
                "error log",
            ),
            (
                &["--host", "127.0.0.1", "--port", "3398"],
                "not as a MySQL server",
                "host and port",
            ),
        ] {
            let output = repro(arguments);
            assert_eq!(exit(&output), 3, "{arguments:?}: {}", text(&output));
            assert!(
                stderr(&output).contains(said),
                "{arguments:?}: {}",
                stderr(&output)
            );
            assert!(
                stderr(&output).contains("hint: ") && stderr(&output).contains(hint),
                "{arguments:?}: {}",
                stderr(&output)
            );
        }
    });
}

#[test]
fn every_no_of_the_server_has_its_own_name() {
    let test = "every_no_of_the_server_has_its_own_name";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        let said = |arguments: &[&str]| {
            let report =
                report(&[&["--host", "192.0.2.1", "--connections", "300"], arguments].concat());
            let error = &report["error"];
            (error["mysql_code"].clone(), error["kind"].clone())
        };
        for (arguments, code, kind) in [
            (
                &["--user", "app", "--database", "attic"][..],
                1044,
                "no_such_database",
            ),
            // One at a time can connect, beside nobody who watches.
            (&["--user", "single", "--threads", "3"], 1226, "user_limit"),
            (&["--user", "locked"], 4151, "account_locked"),
            (&["--user", "secret"], 1045, "access_denied"),
        ] {
            assert_eq!(said(arguments), (json!(code), json!(kind)), "{arguments:?}");
        }
        database.query("SET GLOBAL disconnect_on_expired_password = 1");
        assert_eq!(
            said(&["--user", "stale"]),
            (json!(1862), json!("password_expired"))
        );
        database.query("SET GLOBAL max_connections = 10");
        let _held: Vec<_> = (0..11)
            .map(|_| TcpStream::connect("127.0.0.1:3306").unwrap())
            .collect();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(
            said(&["--user", "app"]),
            (json!(1040), json!("too_many_connections"))
        );
    });
}

#[test]
fn every_way_to_log_in_lasts() {
    let test = "every_way_to_log_in_lasts";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        port_range(20000, 60999);
        let authority = database.authority();
        let aborted = database.query(ABORTED);
        for arguments in [
            &["--user", "app"][..],
            // One challenge in 256 ends in a zero.
            &["--user", "modern", "--connections", "1500"],
            &["--user", "secret", "--tls-ca", &authority],
            &["--user", "secret", "--tls-ca", &authority, "--threads", "3"],
            &["--user", "app", "--threads", "3", "--rate", "300"],
            &["--user", "modern", "--host", "::1"],
            &[
                "--user",
                "app",
                "--host",
                "localhost",
                "--tls-ca",
                &authority,
            ],
        ] {
            let host: &[&str] = if arguments.contains(&"--host") {
                &[]
            } else {
                &["--host", "192.0.2.1"]
            };
            let start = [host, arguments].concat();
            let connections: &[&str] = if arguments.contains(&"--connections") {
                &[]
            } else {
                &["--connections", "300"]
            };
            let report = report(&[&start, connections].concat());
            assert_eq!(
                (&report["stopped_by"], &report["error"]),
                (&json!("count"), &Value::Null),
                "{arguments:?}"
            );
        }
        assert_eq!(database.query(ABORTED), aborted);
        // The chain is verified, and the name.
        for (arguments, kind, why) in [
            (
                &["--host", "192.0.2.1", "--tls"][..],
                "tls_unknown_issuer",
                "UnknownIssuer",
            ),
            (
                &["--host", "127.0.0.1", "--tls-ca", &authority],
                "tls_wrong_name",
                "the certificate is for localhost, 192.0.2.1, not for 127.0.0.1",
            ),
        ] {
            let report = report(&[&["--user", "secret"], arguments].concat());
            assert_eq!(report["error"]["kind"], kind, "{report}");
            assert!(
                report["error"]["text"].as_str().unwrap().contains(why),
                "{report}"
            );
        }
    });
}

#[test]
fn under_tls_too_the_client_closes_first_and_runs_out_as_predicted() {
    let test = "under_tls_too_the_client_closes_first_and_runs_out_as_predicted";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        port_range(40000, 40999);
        let authority = database.authority();
        let report = report(&[
            "--host",
            "192.0.2.1",
            "--user",
            "secret",
            "--tls-ca",
            &authority,
        ]);
        assert_exhausted(&report, 1000, "192.0.2.1");
    });
}

#[test]
fn an_option_file_says_who_logs_in_where() {
    let test = "an_option_file_says_who_logs_in_where";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        let home = database.folder.path();
        let file = home.join(".my.cnf");
        fs::write(
            &file,
            format!(
                "[client]\nhost=192.0.2.1\nuser = secret\npassword=\"correct horse\" # ours\n\
                 ssl-mode=VERIFY_CA\nssl-ca={}\n[mysqldump]\nuser=other\n",
                database.authority()
            ),
        )
        .unwrap();
        let made = |arguments: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
                .args(["repro", "--json", "--connections", "5"])
                .args(arguments)
                .env("HOME", home)
                .env_remove("MYSQL_PWD")
                .output()
                .unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            (
                report["connections"].clone(),
                report["error"]["text"].clone(),
            )
        };
        let all_made = (json!(5), Value::Null);
        let named = ["--defaults-file", file.to_str().unwrap()];
        assert_eq!(made(&named), all_made, "the file names the server");
        assert_eq!(made(&["--host", "192.0.2.1"]), all_made, "~/.my.cnf");
        let (connections, error) = made(&["--host", "192.0.2.1", "--user", "nobody"]);
        assert_eq!(connections, 0, "the command line counts");
        assert!(
            error.as_str().unwrap().contains("for user 'nobody'"),
            "{error}"
        );
        // Without a server it is the embedded one, whatever the file says.
        let report = json(&["repro", "--json", "--connections", "5"]);
        assert_eq!(report["target"]["embedded"], true);
    });
}

#[test]
fn the_servers_own_counters_tell_how_its_clients_left() {
    let test = "the_servers_own_counters_tell_how_its_clients_left";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let _database = MariaDb::start();
        let aborted = |close: &str| {
            let report = report(&[
                "--host",
                "192.0.2.1",
                "--user",
                "app",
                "--close",
                close,
                "--connections",
                "200",
            ]);
            assert_eq!(report["error"], Value::Null);
            let server = &report["server"];
            assert_eq!(server["before"]["threads_connected"], 1, "{server}");
            assert!(
                server["after"]["max_used_connections"].as_u64().unwrap() >= 2,
                "{server}"
            );
            let count = |when: &str| server[when]["aborted_clients"].as_u64().unwrap();
            count("after") - count("before")
        };
        // The first stays open until the counters are read: over it they are.
        assert_eq!((aborted("quit"), aborted("abrupt")), (0, 199));
    });
}

#[test]
fn a_pool_of_real_connections_leaves_no_time_wait() {
    let test = "a_pool_of_real_connections_leaves_no_time_wait";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let _database = MariaDb::start();
        port_range(40000, 40099);
        let output = repro(&[
            "--host",
            "192.0.2.1",
            "--user",
            "app",
            "--pool",
            "5",
            "--threads",
            "3",
            "--connections",
            "2000",
        ]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(exit(&output), 0, "{report}");
        assert_eq!(
            (
                &report["connections"],
                &report["checkouts"],
                &report["time_wait"]["client_side"]
            ),
            (&json!(5), &json!(2000), &json!(0)),
            "{report}"
        );
    });
}

/// What the refusal spares the user, seen with --force.
#[test]
fn plain_connections_are_kept_from_a_mysql_server_that_would_count_them() {
    let test = "plain_connections_are_kept_from_a_mysql_server_that_would_count_them";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        let plain = [
            "repro",
            "--host",
            "192.0.2.1",
            "--protocol",
            "tcp",
            "--connections",
            "20",
        ];
        let aborted = || -> u32 {
            let row = database.query("SHOW GLOBAL STATUS LIKE 'Aborted_connects'");
            row.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let before = aborted();
        let output = twcheck(&plain);
        assert_eq!(exit(&output), 3);
        assert!(
            stderr(&output).contains("greets like MySQL") && stderr(&output).contains("--force"),
            "{}",
            stderr(&output)
        );
        assert_eq!(aborted(), before + 1, "the look at its greeting");
        let output = twcheck(&[&plain[..], &["--force"]].concat());
        assert_eq!(exit(&output), 0, "{}", text(&output));
        assert_eq!(aborted(), before + 22, "each of the 20, and two looks");
    });
}
