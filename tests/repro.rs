//! `repro` on the real kernel, against its own server and against a real MariaDB.

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    exit, has_namespaces, in_namespace, json, port_range, run, skip, stderr, stdout, sysctl, text,
    twcheck,
};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use twcheck::repro::server::Server;

/// What a run that met exhaustion must say.
fn assert_exhausted(report: &Value, connections: u32, host: &str) {
    assert_eq!(report["stopped_by"], "exhausted", "{report}");
    assert_eq!(
        (&report["connections"], &report["predicted_ports"]),
        (&json!(connections), &json!(connections)),
        "{report}"
    );
    assert_eq!(
        report["error"],
        json!({
            "errno": 99,
            "mysql_code": null,
            "kind": "ephemeral_ports_exhausted",
            "text": format!("ERROR 2003 (HY000): Can't connect to MySQL server on '{host}' (99)"),
        })
    );
    assert_eq!(
        report["time_wait"],
        json!({"client_side": connections, "server_side": 0}),
    );
    let threads = report["server"]["threads_connected_max"].as_u64().unwrap();
    assert!((1..=15).contains(&threads), "{threads} threads connected");
    let [first, last] = [0, 1].map(|end| report["ports_return_seconds"][end].as_f64().unwrap());
    assert!(
        0.0 < first && first <= last && last <= 60.5,
        "{first} {last}"
    );
}

#[test]
fn the_sandbox_runs_out_of_ports_at_exactly_the_predicted_count() {
    in_namespace(
        "the_sandbox_runs_out_of_ports_at_exactly_the_predicted_count",
        || {
            for (range, expected) in [
                ("40000 40999", 1000),
                ("40001 43000", 3000),
                ("3300 3399", 99),
            ] {
                let set = format!("net.ipv4.ip_local_port_range={range}");
                let output = twcheck(&["repro", "--json", "--set", &set]);
                assert_eq!(exit(&output), 2, "{}", text(&output));
                let report = serde_json::from_slice(&output.stdout).unwrap();
                assert_exhausted(&report, expected, "192.0.2.1");
            }
        },
    );
}

#[test]
fn the_sandbox_takes_over_this_machines_settings_and_leaves_them_alone() {
    in_namespace(
        "the_sandbox_takes_over_this_machines_settings_and_leaves_them_alone",
        || {
            sysctl("net.ipv4.ip_local_port_range", "40000 40499");
            sysctl("net.ipv4.ip_local_reserved_ports", "40000-40099");
            let report = json(&["repro", "--json", "--set", "net.ipv4.tcp_fin_timeout=7"]);
            assert_exhausted(&report, 400, "192.0.2.1");
            assert_eq!(
                json(&["states", "--json", "--all"])["total"],
                0,
                "nothing is left here"
            );
            let fin_timeout =
                std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").unwrap();
            assert_eq!(fin_timeout.trim(), "60");
            // With reuse in force such a client survives.
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            sysctl("net.ipv4.ip_local_port_range", "20000 60999");
            let output = twcheck(&["repro", "--json", "--duration", "3s"]);
            assert_eq!(exit(&output), 0, "{}", text(&output));
            assert!(
                stderr(&output).contains("ports will not run out below 40,900 connections/s"),
                "{}",
                stderr(&output)
            );
        },
    );
}

#[test]
fn limits_and_ctrl_c_end_a_run_cleanly_with_its_report() {
    in_namespace(
        "limits_and_ctrl_c_end_a_run_cleanly_with_its_report",
        || {
            let report = json(&["repro", "--json", "--connections", "123"]);
            assert_eq!(
                (&report["stopped_by"], &report["connections"]),
                (&json!("count"), &json!(123))
            );
            assert_eq!(report["error"], Value::Null);

            let output = twcheck(&["repro", "--json", "--duration", "1s"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (exit(&output), &report["stopped_by"]),
                (0, &json!("duration"))
            );
            let seconds = report["seconds"].as_f64().unwrap();
            assert!((1.0..2.0).contains(&seconds), "{seconds}");
            assert!(!report["timeline"].as_array().unwrap().is_empty());

            let mut child = Command::new(env!("CARGO_BIN_EXE_twcheck"))
                .args(["repro", "--json"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // It says on stderr that it has begun.
            let mut said = String::new();
            BufReader::new(child.stderr.take().unwrap())
                .read_line(&mut said)
                .unwrap();
            thread::sleep(Duration::from_millis(300));
            run("kill", &["-INT", &child.id().to_string()]);
            let output = child.wait_with_output().unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (exit(&output), &report["stopped_by"]),
                (0, &json!("interrupted"))
            );
        },
    );
}

/// `user.max_user_namespaces` belongs to the user namespace, so the test can use it up.
#[test]
fn a_host_without_namespaces_is_told_which_setting_forbids_them() {
    in_namespace(
        "a_host_without_namespaces_is_told_which_setting_forbids_them",
        || {
            sysctl("user.max_net_namespaces", "0");
            let output = twcheck(&["repro"]);
            assert_eq!(exit(&output), 3);
            assert!(
                stderr(&output).contains("user.max_net_namespaces is 0"),
                "{}",
                stderr(&output)
            );
            assert!(
                stderr(&output).contains("twcheck repro --host HOST"),
                "{}",
                stderr(&output)
            );
        },
    );
}

/// An ordinary user, outside any namespace of the test's own.
#[test]
fn an_ordinary_user_can_run_the_sandbox() {
    let test = "an_ordinary_user_can_run_the_sandbox";
    if !has_namespaces(test) {
        return;
    }
    let copy = tempfile::tempdir().unwrap();
    let binary = copy.path().join("twcheck");
    std::fs::copy(env!("CARGO_BIN_EXE_twcheck"), &binary).unwrap();
    run("chmod", &["755", copy.path().to_str().unwrap()]);
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new(if root {
        "setpriv"
    } else {
        binary.to_str().unwrap()
    });
    if root {
        command.args(as_nobody).arg(&binary);
    }
    let range = "net.ipv4.ip_local_port_range=40000 40499";
    let output = command
        .args(["repro", "--json", "--set", range])
        .output()
        .unwrap();
    assert_eq!(exit(&output), 2, "{}", text(&output));
    assert_exhausted(
        &serde_json::from_slice(&output.stdout).unwrap(),
        500,
        "192.0.2.1",
    );
}

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

/// A MariaDB on a data directory of its own, reachable at 127.0.0.1, [::1] and 192.0.2.1.
struct MariaDb {
    server: Child,
    folder: tempfile::TempDir,
    _alone: Flock<std::fs::File>,
}

impl MariaDb {
    const PORT: &str = "3306";

    fn start() -> Self {
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        // One at a time: several that install themselves at once run short of asynchronous I/O.
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mariadb.lock");
        let alone = std::fs::File::create(lock).unwrap();
        let alone = Flock::lock(alone, FlockArg::LockExclusive).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let data = format!("--datadir={}", path("data"));
        run(
            "mariadb-install-db",
            &[
                "--no-defaults",
                &data,
                "--user=root",
                "--skip-test-db",
                "--innodb-use-native-aio=0",
                "--auth-root-authentication-method=normal",
            ],
        );
        let socket = path("socket");
        let server = Command::new("mariadbd")
            .args([
                "--no-defaults",
                "--user=root",
                &data,
                "--port",
                Self::PORT,
                "--bind-address=*",
            ])
            .arg(format!("--socket={socket}"))
            .args([
                "--skip-name-resolve",
                "--innodb-buffer-pool-size=16M",
                "--innodb-use-native-aio=0",
                "--max-connections=100",
            ])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("mariadbd starts");
        let mut database = Self {
            server,
            folder,
            _alone: alone,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let log = || std::fs::read_to_string(database.folder.path().join("log")).unwrap();
            assert_eq!(database.server.try_wait().unwrap(), None, "{}", log());
            assert!(Instant::now() < deadline, "{}", log());
            thread::sleep(Duration::from_millis(50));
        }
        database.query(
            "CREATE USER app@'%' IDENTIFIED BY 'correct horse'; CREATE DATABASE shop; \
             GRANT ALL ON shop.* TO app@'%'; \
             CREATE USER single@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1",
        );
        database
    }

    fn query(&self, sql: &str) -> String {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        stdout(&run(
            "mariadb",
            &[
                "--no-defaults",
                &socket,
                "--user=root",
                "--batch",
                "--skip-column-names",
                "--execute",
                sql,
            ],
        ))
    }

    fn password_file(&self) -> String {
        let path = self.folder.path().join("password");
        std::fs::write(&path, "correct horse\n").unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Clients that left without COM_QUIT, or broke off their handshake.
const ABORTED: &str = "SHOW GLOBAL STATUS LIKE 'Aborted_c%'";

/// Whether the package is there; where it is not, the test is skipped aloud.
fn has_mariadb(test: &str) -> bool {
    let there = Path::new("/usr/sbin/mariadbd").exists();
    if !there {
        skip(test, "no mariadbd: apt-get install mariadb-server");
    }
    there
}

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
        // The watching connection takes one of the 2,000 ports.
        assert_exhausted(
            &serde_json::from_slice(&output.stdout).unwrap(),
            1999,
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
                "(111)\nNothing listens on 127.0.0.1:3333",
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
                "then cut it off or fell silent",
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
fn every_no_of_the_server_keeps_its_own_number() {
    let test = "every_no_of_the_server_keeps_its_own_number";
    if !has_mariadb(test) {
        return;
    }
    in_namespace(test, || {
        let database = MariaDb::start();
        let password = database.password_file();
        let report = json(&[
            "repro",
            "--json",
            "--host",
            "192.0.2.1",
            "--user",
            "app",
            "--password-file",
            &password,
            "--database",
            "attic",
        ]);
        assert_eq!(
            (&report["error"]["mysql_code"], &report["error"]["kind"]),
            (&json!(1044), &json!("access_denied"))
        );
        let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
            .args(["repro", "--json", "--host", "192.0.2.1", "--user", "single"])
            .env("MYSQL_PWD", "x")
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (exit(&output), &report["error"]["kind"]),
            (3, &json!("user_limit")),
            "{report}"
        );
        database.query("SET GLOBAL max_connections = 10");
        let _held: Vec<_> = (0..11)
            .map(|_| std::net::TcpStream::connect("127.0.0.1:3306").unwrap())
            .collect();
        thread::sleep(Duration::from_millis(200));
        let report = json(&[
            "repro",
            "--json",
            "--host",
            "192.0.2.1",
            "--user",
            "app",
            "--password-file",
            &password,
        ]);
        assert_eq!(
            (&report["error"]["mysql_code"], &report["error"]["kind"]),
            (&json!(1040), &json!("too_many_connections")),
            "{report}"
        );
    });
}

/// The address exists nowhere: errno 99 on the first attempt, with every port free.
#[test]
fn errno_99_with_free_ports_is_not_called_exhaustion() {
    in_namespace("errno_99_with_free_ports_is_not_called_exhaustion", || {
        sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        let output = twcheck(&["repro", "--host", "::1"]);
        assert_eq!(exit(&output), 3);
        let said = stderr(&output);
        assert!(
            said.contains("(99)\n") && said.contains("but ports are free: this is not exhaustion"),
            "{said}"
        );
        assert!(said.contains("hint: check the address"), "{said}");
    });
}
