//! `repro` on the real kernel, against its own server and against a real MariaDB.

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{
    assert_exhausted, exit, has_namespaces, in_namespace, json, port_range, run, serve, stderr,
    sysctl, text, twcheck,
};
use serde_json::{Value, json};
use twcheck::repro::server::Server;

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

/// `advise --prove` reads the report of each run by the type that wrote it.
#[test]
fn a_report_is_read_back_as_it_was_written() {
    in_namespace("a_report_is_read_back_as_it_was_written", || {
        sysctl("net.ipv4.ip_local_port_range", "40000 40999");
        for arguments in [
            &["repro", "--json"][..],
            &["repro", "--json", "--pool", "2", "--duration", "1s"],
            &["repro", "--json", "--connections", "9", "--rate", "90"],
        ] {
            let written = json(arguments);
            let report: twcheck::repro::Report = serde_json::from_value(written.clone()).unwrap();
            let again = serde_json::to_value(&report).unwrap();
            assert_eq!(again, written, "{arguments:?}");
        }
    });
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

            for (signal, status) in [("INT", 130), ("TERM", 143)] {
                let child = begun(&mut common::command(&RUN));
                thread::sleep(Duration::from_millis(300));
                run("kill", &["-s", signal, &child.id().to_string()]);
                let output = child.wait_with_output().unwrap();
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(
                    (exit(&output), &report["stopped_by"]),
                    (status, &json!("interrupted"))
                );
                assert!(report["connections"].as_u64().unwrap() > 0, "{report}");
            }
        },
    );
}

const RUN: [&str; 4] = ["repro", "--json", "--duration", "20s"];

/// Starts `command`, and waits until the run in it has said on stderr that it begins.
fn begun(command: &mut Command) -> Child {
    let pipes = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert!(said.starts_with("note: connecting"), "{said}");
    child
}

/// Ctrl-C reaches all of a terminal's foreground: `repro && echo survived`.
#[test]
fn what_a_shell_was_to_do_after_an_interrupted_run_is_not_done() {
    let test = "what_a_shell_was_to_do_after_an_interrupted_run_is_not_done";
    in_namespace(test, || {
        for (signal, status) in [("INT", "130"), ("TERM", "143")] {
            // The run's own process: to the shell a signal of the terminal would be as deadly.
            let line = format!(
                "{} {} & wait -n $! && echo survived || echo status $?",
                env!("CARGO_BIN_EXE_twcheck"),
                RUN.join(" ")
            );
            let shell = begun(Command::new("bash").args(["-c", &line]));
            thread::sleep(Duration::from_millis(300));
            let children = run("pgrep", &["-P", &shell.id().to_string()]);
            let child = common::stdout(&children);
            run("kill", &["-s", signal, child.trim()]);
            let said = common::stdout(&shell.wait_with_output().unwrap());
            assert!(said.contains("\"stopped_by\": \"interrupted\""), "{said}");
            assert!(said.ends_with(&format!("}}\nstatus {status}\n")), "{said}");
        }
    });
}

/// Whoever does not want to wait for the report sends another.
#[test]
fn a_second_signal_ends_a_run_at_once() {
    in_namespace("a_second_signal_ends_a_run_at_once", || {
        use nix::sys::socket::{Backlog, listen};
        for (first, second, status) in [("INT", "INT", 130), ("INT", "TERM", 143)] {
            // A connect() that nobody answers goes on for the half second of grace.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let words = format!("--protocol tcp --force --host 127.0.0.1 --port {port}");
            let child = begun(common::command(&RUN).args(words.split(' ')));
            // The queue is full by then.
            thread::sleep(Duration::from_secs(1));
            let id = child.id().to_string();
            run("kill", &["-s", first, &id]);
            thread::sleep(Duration::from_millis(100));
            run("kill", &["-s", second, &id]);
            let output = child.wait_with_output().unwrap();
            assert_eq!(
                (exit(&output), common::stdout(&output).as_str()),
                (status, "")
            );
        }
    });
}

/// `user.max_user_namespaces` belongs to the user namespace, so the test can use it up.
#[test]
fn a_host_without_namespaces_is_told_which_setting_forbids_them() {
    in_namespace(
        "a_host_without_namespaces_is_told_which_setting_forbids_them",
        || {
            sysctl("user.max_net_namespaces", "0");
            for (arguments, instead, not) in [
                (&["repro"][..], "twcheck repro --host HOST", "--prove"),
                (&["advise", "--prove"], "without --prove", "--host HOST"),
            ] {
                let output = twcheck(arguments);
                assert_eq!(exit(&output), 3);
                let said = stderr(&output);
                let (error, hint) = said.split_once("\nhint: ").unwrap();
                assert!(error.contains("user.max_net_namespaces is 0"), "{said}");
                // The test is root of its namespace, and root is not exempt.
                assert!(
                    hint.starts_with(
                        "raise it, as root: `sysctl -w user.max_net_namespaces=1024`; "
                    ),
                    "{said}"
                );
                assert!(hint.contains(instead) && !said.contains(not), "{said}");
            }
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
        assert!(
            said.contains("hint: check `ip route get ADDRESS`; ::1 exists only where IPv6 is on"),
            "{said}"
        );
        // An address that is not this machine's.
        let output = twcheck(&["repro", "127.0.0.1", "--bind-address", "198.51.100.7"]);
        let said = stderr(&output);
        assert!(
            said.contains("(99)\n") && said.contains("The source address is none of this"),
            "{said}"
        );
        assert!(!said.contains("::1"), "{said}");
    });
}

/// A client of another destination that binds its source address first takes its ports from all.
#[test]
fn errno_99_that_comes_of_ports_held_by_bind_is_exhaustion() {
    in_namespace(
        "errno_99_that_comes_of_ports_held_by_bind_is_exhaustion",
        || {
            port_range(40000, 40099);
            for address in ["192.0.2.1/32", "192.0.2.9/32"] {
                run("ip", &["address", "add", address, "dev", "lo"]);
            }
            serve("192.0.2.1:3306");
            let elsewhere = serve("192.0.2.9:80");
            // Closed at once: TIME_WAIT holds them as well.
            for _ in 0..100 {
                let socket = socket2::Socket::new(
                    socket2::Domain::IPV4,
                    socket2::Type::STREAM,
                    Some(socket2::Protocol::TCP),
                )
                .unwrap();
                let source: std::net::SocketAddr = "192.0.2.9:0".parse().unwrap();
                socket.bind(&source.into()).unwrap();
                socket.connect(&elsewhere.into()).unwrap();
                socket.shutdown(std::net::Shutdown::Both).unwrap();
            }
            let tcp = [
                "--protocol",
                "tcp",
                "--force",
                "--host",
                "192.0.2.1",
                "--port",
                "3306",
            ];
            let report = json(&[&["repro", "--json"], &tcp[..]].concat());
            assert_eq!(
                (&report["stopped_by"], &report["error"]["kind"]),
                (&json!("exhausted"), &json!("ports_held_by_bind")),
                "{report}"
            );
            let output = twcheck(&["verdict", "--connect", "192.0.2.1:3306"]);
            let said = common::stdout(&output).replace('\n', " ");
            assert!(
                said.starts_with("CRITICAL: connect() has no port: bind() holds 100 of 100")
                    && !said.contains("than the table shows")
                    && !said.contains("not exhaustion"),
                "{said}"
            );
        },
    );
}

/// A server in front of the embedded one that waits so long before it lets a connection through,
/// from the connection of this number on.
fn slow_server(address: &str, from: usize, wait: Duration) {
    let behind = Server::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.unwrap();
            let server = std::net::TcpStream::connect(behind.address()).unwrap();
            thread::spawn(move || {
                if number >= from {
                    thread::sleep(wait);
                }
                let (mut one, mut other) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut one, &mut other);
                    let _ = other.shutdown(std::net::Shutdown::Write);
                });
                let _ = std::io::copy(&mut { server }, &mut { client });
            });
        }
    });
}

#[test]
fn time_that_is_up_during_a_login_is_not_the_servers_fault() {
    let test = "time_that_is_up_during_a_login_is_not_the_servers_fault";
    in_namespace(test, || {
        let wait = Duration::from_secs(8);
        slow_server("127.0.0.1:3306", 3, wait);
        slow_server("127.0.0.1:3307", 0, wait);
        let host = ["repro", "--json", "--host", "127.0.0.1", "--duration", "2s"];
        let begun = std::time::Instant::now();
        let report = json(&host);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        common::assert_valid("repro", &report);
        assert_eq!(
            (
                &report["stopped_by"],
                &report["error"],
                &report["connections"]
            ),
            (&json!("duration"), &Value::Null, &json!(3)),
            "{report}"
        );
        assert!(
            report["unfinished_seconds"].as_f64().unwrap() > 1.0,
            "{report}"
        );
        // Where there is no login at all, that is what there is to tell.
        let begun = std::time::Instant::now();
        let output = twcheck(&[&host[..1], &host[2..], &["--port", "3307"]].concat());
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(exit(&output), 3);
        let said = stderr(&output);
        assert!(
            said.contains("had not finished its greeting after 2.0 s")
                && said.contains("--duration"),
            "{said}"
        );
    });
}

#[test]
fn a_server_that_tells_nothing_is_no_idle_server() {
    in_namespace("a_server_that_tells_nothing_is_no_idle_server", || {
        port_range(40000, 40099);
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let _server = Server::start("192.0.2.1:3306".parse().unwrap()).unwrap();
        let output = twcheck(&["repro", "192.0.2.1"]);
        assert_eq!(exit(&output), 2, "{}", text(&output));
        let said = common::stdout(&output);
        assert!(
            said.contains("100 predicted free, 100 connections made")
                && said.contains("does not tell how many threads are connected")
                && !said.contains("bottleneck")
                && !said.contains("its counters"),
            "{said}"
        );
        assert!(
            said.contains(
                "ERROR 2003 (HY000): Can't connect to MySQL server on '192.0.2.1:3306' (99)"
            ) && said.contains("ERROR 2002 (HY000): Can't connect to server on '192.0.2.1' (99)"),
            "{said}"
        );
    });
}

#[test]
fn a_server_that_stands_elsewhere_is_pointed_out() {
    in_namespace("a_server_that_stands_elsewhere_is_pointed_out", || {
        let home = tempfile::tempdir().unwrap();
        let said = |server: Option<&str>| {
            let mut command = common::command(&["repro", "--connections", "3"]);
            command.env("HOME", home.path()).env_remove("MYSQL_HOST");
            if let Some(server) = server {
                command.env("MYSQL_HOST", server);
            }
            let output = command.output().unwrap();
            assert_eq!(exit(&output), 0, "{}", text(&output));
            stderr(&output).replace("\n      ", " ")
        };
        let hint = |place: &str, host: &str| {
            format!(
                "{place} names the server {host}, and this run brings its own; to reach that one: \
                 `twcheck repro --host {host}`"
            )
        };
        assert!(!said(None).contains("names the server"));
        assert!(said(Some("db.b")).contains(&hint("MYSQL_HOST", "db.b")));
        std::fs::write(home.path().join(".my.cnf"), "[client]\nhost=db.a\n").unwrap();
        assert!(said(Some("db.b")).contains(&hint("~/.my.cnf", "db.a")));
        // And one that says more than is read.
        std::fs::write(home.path().join(".mylogin.cnf"), "").unwrap();
        let output = common::command(&["repro", "127.0.0.1:1"])
            .env("HOME", home.path())
            .output()
            .unwrap();
        assert!(
            stderr(&output).contains("~/.mylogin.cnf is not read"),
            "{}",
            text(&output)
        );
    });
}

/// A run in a sandbox of 1,000 ports.
fn sandbox(arguments: &[&str]) -> Value {
    let range = "net.ipv4.ip_local_port_range=40000 40999";
    json(&[&["repro", "--json", "--set", range], arguments].concat())
}

#[test]
fn source_addresses_multiply_the_ports() {
    in_namespace("source_addresses_multiply_the_ports", || {
        let two = sandbox(&["--bind-address", "192.0.2.2,192.0.2.3"]);
        assert_exhausted(&two, 2000, "192.0.2.1");
        assert_eq!(two["cliff"]["connections"], 1000);
        let three = sandbox(&[
            "--bind-address",
            "192.0.2.2,192.0.2.3,192.0.2.1",
            "--threads",
            "3",
        ]);
        assert_exhausted(&three, 3000, "192.0.2.1");
    });
}

#[test]
fn a_pool_does_the_same_work_and_leaves_no_time_wait() {
    in_namespace("a_pool_does_the_same_work_and_leaves_no_time_wait", || {
        let report = sandbox(&["--pool", "4", "--threads", "4", "--connections", "5000"]);
        assert_eq!(
            (
                &report["stopped_by"],
                &report["checkouts"],
                &report["connections"],
                &report["time_wait"]
            ),
            (
                &json!("count"),
                &json!(5000),
                &json!(4),
                &json!({
                    "client_side": 0,
                    "client_side_before": 0,
                    "server_side": 0,
                    "server_side_before": 0,
                    "limit": report["time_wait"]["limit"],
                    "dropped": 0,
                })
            ),
            "{report}"
        );
    });
}

/// With reuse 1,000 ports bear 1,000 connections/s.
#[test]
fn a_pace_is_kept_and_confirms_a_limit_from_below_and_above() {
    in_namespace(
        "a_pace_is_kept_and_confirms_a_limit_from_below_and_above",
        || {
            let at = |rate: &str| {
                let reuse = "net.ipv4.tcp_tw_reuse=1";
                let report = sandbox(&["--set", reuse, "--duration", "4s", "--rate", rate]);
                let ended = report["stopped_by"].as_str().unwrap().to_owned();
                (ended, report["connections"].as_u64().unwrap())
            };
            // A machine that is busy for a moment lags behind, and gives ports the time to come back.
            let below = [at("600"), at("600")];
            let is_kept =
                |(ended, made): &(String, u64)| ended == "duration" && (2280..=2448).contains(made);
            assert!(below.iter().any(is_kept), "600/s for 4 s: {below:?}");
            let above = [at("1500"), at("1500")];
            let as_said =
                |(ended, made): &(String, u64)| ended == "exhausted" && (980..=1020).contains(made);
            assert!(above.iter().any(as_said), "1,000 within 2 %: {above:?}");
        },
    );
}

#[test]
fn each_remedy_does_what_is_said_of_it() {
    in_namespace("each_remedy_does_what_is_said_of_it", || {
        // No effect: TIME_WAIT would be over long before the ports are.
        let paced = ["--rate", "400", "--set", "net.ipv4.tcp_fin_timeout=1"];
        assert_exhausted(&sandbox(&paced), 1000, "192.0.2.1");
        let reserved = sandbox(&["--set", "net.ipv4.ip_local_reserved_ports=40000-40099"]);
        assert_exhausted(&reserved, 900, "192.0.2.1");
        let wider = sandbox(&["--set", "net.ipv4.ip_local_port_range=39000 40999"]);
        assert_exhausted(&wider, 2000, "192.0.2.1");
        let unprotected = sandbox(&[
            "--set",
            "net.ipv4.tcp_max_tw_buckets=500",
            "--connections",
            "3000",
        ]);
        assert_eq!(unprotected["stopped_by"], "count", "{unprotected}");
        let unstamped = sandbox(&[
            "--set",
            "net.ipv4.tcp_tw_reuse=1",
            "--set",
            "net.ipv4.tcp_timestamps=0",
        ]);
        assert_exhausted(&unstamped, 1000, "192.0.2.1");
    });
}

#[test]
fn any_tcp_server_can_be_connected_to() {
    in_namespace("any_tcp_server_can_be_connected_to", || {
        port_range(40000, 40999);
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let server = serve("192.0.2.1:6379");
        let port = server.port().to_string();
        let plain = [
            "repro",
            "--json",
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "192.0.2.1",
        ];
        let report = json(&[&plain[..], &["--port", &port]].concat());
        // The look whether it lets in takes one.
        assert_eq!(
            (
                &report["stopped_by"],
                &report["connections"],
                &report["predicted_ports"]
            ),
            (&json!("exhausted"), &json!(999), &json!(999)),
            "{report}"
        );
        assert_eq!(report["login_latency_us"], Value::Null);
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let port = nobody.port().to_string();
        let output = twcheck(&[
            "repro",
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
        ]);
        assert_eq!(exit(&output), 3);
        assert!(
            stderr(&output).contains("refuses connections"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn the_cliff_is_named_and_drawn() {
    in_namespace("the_cliff_is_named_and_drawn", || {
        let folder = tempfile::tempdir().unwrap();
        let picture = folder.path().join("run.svg");
        let report = json(&[
            "repro",
            "--json",
            "--set",
            "net.ipv4.ip_local_port_range=40000 45999",
            "--svg",
            picture.to_str().unwrap(),
        ]);
        assert_exhausted(&report, 6000, "192.0.2.1");
        assert_eq!(report["cliff"]["connections"], 3000);
        let p50 = |part: &str| report["connect_latency_us"][part]["p50"].as_u64().unwrap();
        let (before, after) = (p50("before_cliff"), p50("after_cliff"));
        assert!(after > 3 * before, "{before} µs, then {after} µs");
        let timeline = report["timeline"].as_array().unwrap();
        let ports: Vec<_> = timeline
            .iter()
            .map(|moment| moment["ports_in_use"].as_u64().unwrap())
            .collect();
        assert!(
            ports.is_sorted() && ports.last() == Some(&6000),
            "{ports:?}"
        );
        let svg = std::fs::read_to_string(picture).unwrap();
        for part in [
            "<svg",
            "prefers-color-scheme: dark",
            "fast ports spent after 3,000",
            "limit: 6,000 ports",
            "errno 99",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    });
}

/// The stock state of machines with up to 4 GB of memory, scaled down.
#[test]
fn where_time_wait_is_dropped_a_run_shows_that_and_what_shows_the_disease() {
    let test = "where_time_wait_is_dropped_a_run_shows_that_and_what_shows_the_disease";
    in_namespace(test, || {
        port_range(40000, 40999);
        sysctl("net.ipv4.tcp_max_tw_buckets", "300");
        let output = twcheck(&["repro"]);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        let command = "`twcheck repro --set net.ipv4.tcp_max_tw_buckets=2048`";
        let (said, beforehand) = (common::stdout(&output), stderr(&output));
        // One more than there are ports, and TIME_WAIT that is dropped takes none.
        let first = "Ports did not run out: TIME_WAIT was dropped after 1,001 connections in ";
        assert!(said.starts_with(first), "{said}");
        for part in [
            "701 dropped at tcp_max_tw_buckets = 300, each at once",
            "300 on the client's side",
            &format!("to see ports run out: {command}"),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let note =
            format!("this run shows that, and not errno 99. To see ports run out: {command}");
        assert!(beforehand.contains(&note), "{beforehand}");

        let report = json(&["repro", "--json"]);
        common::assert_valid("repro", &report);
        let time_wait = &report["time_wait"];
        assert_eq!(
            (&time_wait["limit"], &time_wait["dropped"]),
            (&json!(300), &json!(701)),
            "{report}"
        );
        let command = report["shows_exhaustion"].as_str().unwrap();
        assert_eq!(
            format!("`{command}`"),
            &note[note.len() - command.len() - 2..]
        );
        let words: Vec<_> = command.split(' ').skip(1).collect();
        let shown = json(&[&words[..], &["--json"]].concat());
        assert_exhausted(&shown, 1000, "192.0.2.1");
        // Reuse of TIME_WAIT would keep it away as well.
        sysctl("net.ipv4.tcp_tw_reuse", "1");
        let report = json(&["repro", "--json", "--connections", "400"]);
        assert_eq!(report["connections"], 400, "who says how far is obeyed");
        let said = text(&twcheck(&["repro", "--connections", "400"]));
        assert!(
            said.contains("tcp_max_tw_buckets=2048 --set net.ipv4.tcp_tw_reuse=0`"),
            "{said}"
        );
    });
}

#[test]
fn why_more_connections_were_made_than_ports_is_told() {
    in_namespace("why_more_connections_were_made_than_ports_is_told", || {
        let more = ["--connections", "1500"];
        let told = |arguments: &[&str]| {
            let report = sandbox(&[&more[..], arguments].concat());
            assert_eq!(report["stopped_by"], "count", "{report}");
            assert_eq!(report["cliff"], Value::Null, "{report}");
            report["ports_came_back"].clone()
        };
        let buckets = ["--set", "net.ipv4.tcp_max_tw_buckets=300"];
        assert_eq!(told(&buckets), "buckets_full");
        let loopback = ["--set", "net.ipv4.tcp_tw_reuse=2", "--rate", "700"];
        assert_eq!(
            told(&[&loopback[..], &["--bind-address", "127.0.0.2"]].concat()),
            "reuse"
        );

        port_range(40000, 40999);
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        thread::spawn(move || {
            // It resets each connection, whoever closes first.
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            for client in listener.incoming().filter_map(Result::ok) {
                // After connect() has returned.
                thread::sleep(Duration::from_micros(300));
                nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &at_once)
                    .unwrap();
            }
        });
        let report = json(
            &[
                &[
                    "repro",
                    "--json",
                    "--protocol",
                    "tcp",
                    "--force",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    "8080",
                ],
                &more[..],
            ]
            .concat(),
        );
        assert_eq!(report["ports_came_back"], "server_closed_first", "{report}");
    });
}

/// A full listen queue: the kernel drops what comes, and connect() waits.
#[test]
fn a_server_that_stops_answering_holds_up_neither_ctrl_c_nor_the_report() {
    let test = "a_server_that_stops_answering_holds_up_neither_ctrl_c_nor_the_report";
    in_namespace(test, || {
        use nix::sys::socket::{Backlog, listen};
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let words = "repro --json --protocol tcp --force --host 127.0.0.1 --port 8080 --threads 4";
        let child = common::command(&words.split(' ').collect::<Vec<_>>())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs(3));
        run("kill", &["-INT", &child.id().to_string()]);
        let since = std::time::Instant::now();
        let output = child.wait_with_output().unwrap();
        let took = since.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["stopped_by"], "interrupted", "{report}");
        assert_eq!(exit(&output), 130);
    });
}

#[test]
fn silence_in_the_middle_of_a_short_run_is_an_error() {
    in_namespace("silence_in_the_middle_of_a_short_run_is_an_error", || {
        use nix::sys::socket::{Backlog, listen};
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let plain = [
            "repro",
            "--json",
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "127.0.0.1",
        ];
        let more = ["--port", "8080", "--duration", "4s"];
        let report = json(&[&plain[..], &more[..]].concat());
        assert_eq!(
            (&report["stopped_by"], &report["error"]["kind"]),
            (&json!("error"), &json!("no_answer")),
            "{report}"
        );
    });
}

/// Every change that `advise` recommends, and the one it does not, on this kernel.
#[test]
fn advice_is_proved_on_the_kernel_it_is_for() {
    in_namespace("advice_is_proved_on_the_kernel_it_is_for", || {
        sysctl("net.ipv4.ip_local_port_range", "32768 40767");
        sysctl("net.ipv4.ip_local_reserved_ports", "33000-33799");
        sysctl("net.ipv4.tcp_max_tw_buckets", "4000");
        let advice = json(&["advise", "--prove", "--json"]);
        common::assert_valid("advise", &advice);
        let proof = &advice["proof"];
        let runs = proof["runs"].as_array().unwrap();
        let step = "net.ipv4.tcp_tw_reuse = 1, net.ipv4.ip_local_port_range = 10240 65535, \
                    net.ipv4.tcp_max_tw_buckets = 131072";
        let tried: Vec<_> = runs
            .iter()
            .map(|run| {
                (
                    run["name"].as_str().unwrap(),
                    run["exhausted"].as_bool().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            tried,
            [
                // 4,000 places for TIME_WAIT are fewer than 7,200 ports: nothing bounds the rate.
                ("the settings of now", false),
                (step, false),
                (step, true),
                ("net.ipv4.tcp_max_tw_buckets by itself", true),
                ("net.ipv4.tcp_fin_timeout = 1", false),
                ("a pool of 8 connections", false),
            ],
            "{proof}"
        );
        for run in runs {
            assert_eq!(run["agrees"], true, "{run}");
        }
        assert_eq!(proof["ports"], 7200);
        let pool = &runs[runs.len() - 1];
        assert_eq!(
            (&pool["connections"], &pool["time_wait"]),
            (&json!(8), &json!(0))
        );
    });
}

/// Servers that wait for the client to speak, and those that think long.
#[test]
fn a_server_that_does_not_greet_is_told_by_what_ended_the_wait() {
    let test = "a_server_that_does_not_greet_is_told_by_what_ended_the_wait";
    in_namespace(test, || {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        for (time, kind, hint) in [
            (
                "1s",
                "too_little_time",
                "give it more time (--duration 1min)",
            ),
            (
                "2min",
                "no_greeting",
                "is not MySQL: `--protocol tcp --force`",
            ),
        ] {
            let words = format!("repro 127.0.0.1:8080 --user app --duration {time}");
            let words: Vec<_> = words.split(' ').collect();
            let report = json(&[&words[..], &["--json"]].concat());
            assert_eq!(report["error"]["kind"], kind, "{report}");
            let said = stderr(&twcheck(&words)).replace("\n      ", " ");
            assert!(said.contains(hint), "{said}");
            assert!(
                said.contains("(HTTP, Redis, PostgreSQL, a proxy with accept-proxy)"),
                "{said}"
            );
            assert_eq!(said.contains("--duration 1min"), time == "1s", "{said}");
        }
        drop(listener);
    });
}

#[test]
fn a_signal_before_the_first_login_says_what_was_waited_for() {
    let test = "a_signal_before_the_first_login_says_what_was_waited_for";
    in_namespace(test, || {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        for (signal, status, more) in [
            ("INT", 130, &["--user", "app"][..]),
            ("TERM", 143, &["--user", "app", "--pool", "3"]),
            ("INT", 130, &["--protocol", "tcp"]),
        ] {
            let child = common::command(&["repro", "--host", "127.0.0.1", "--port", "8080"])
                .args(more)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(500));
            run("kill", &["-s", signal, &child.id().to_string()]);
            let output = child.wait_with_output().unwrap();
            assert_eq!(exit(&output), status, "{}", text(&output));
            let said = stderr(&output).replace("\n      ", " ");
            let waited = "interrupted while waiting for the first connection to 127.0.0.1:8080";
            assert_eq!(said.matches(waited).count(), 1, "{said}");
        }
        drop(listener);
    });
}

/// What the run went to and as whom, as far as it says that of a server that is not there.
#[test]
fn files_and_variables_of_the_clients_name_the_server() {
    let test = "files_and_variables_of_the_clients_name_the_server";
    in_namespace(test, || {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let lines = "[client]\nhost=127.0.0.1\nport=1\nuser=a\n[client_prod]\nhost=127.0.0.2\n";
        std::fs::write(home.path().join(".my.cnf"), lines).unwrap();
        std::fs::write(
            home.path().join("mysql.cnf"),
            "[mysql]\nhost=127.0.0.3\nuser=a\n",
        )
        .unwrap();
        let secret = home.path().join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = |variables: &[(&str, &str)], words: &[&str]| {
            let mut command = common::command(&["repro"]);
            for name in ["HOST", "GROUP_SUFFIX"] {
                command.env_remove(format!("MYSQL_{name}"));
                command.env_remove(format!("MARIADB_{name}"));
            }
            let output = command
                .args(words)
                .env("HOME", home.path())
                .envs(variables.iter().copied())
                .output()
                .unwrap();
            assert_eq!(exit(&output), 3, "{}", common::text(&output));
            stderr(&output).replace("\n      ", " ")
        };
        let file = "--defaults-file=~/.my.cnf";
        for (variables, words, expected) in [
            (&[][..], &[file][..], "connecting to 127.0.0.1:1"),
            (
                &[],
                &["--defaults-file", "~/.my.cnf"],
                "connecting to 127.0.0.1:1",
            ),
            (
                &[("MYSQL_GROUP_SUFFIX", "_prod")],
                &[file],
                "connecting to 127.0.0.2:1",
            ),
            (
                &[("MARIADB_GROUP_SUFFIX", "_prod")],
                &[file],
                "MARIADB_GROUP_SUFFIX counts, as for mariadb",
            ),
            (
                &[("MYSQL_GROUP_SUFFIX", "_test")],
                &[file, "--defaults-group-suffix", "_prod"],
                "connecting to 127.0.0.2:1",
            ),
            (
                &[("MARIADB_HOST", "127.0.0.4")],
                &["--defaults-file=/dev/null", "--port", "1"],
                "connecting to 127.0.0.4:1",
            ),
            (
                &[("MARIADB_HOST", "127.0.0.4"), ("MYSQL_HOST", "127.0.0.5")],
                &["--defaults-file=/dev/null", "--port", "1"],
                "connecting to 127.0.0.5:1",
            ),
            (
                &[],
                &["--defaults-file=~/mysql.cnf"],
                "line 2 names the server 127.0.0.3 in a group that is not read here",
            ),
            (
                &[],
                &["127.0.0.1:1", "--password-file=~/secret"],
                "others on this machine may read the password",
            ),
            (
                &[],
                &["--tls-ca=~/ca.pem", "--defaults-file=~/.my.cnf"],
                "ca.pem: No such file",
            ),
        ] {
            let said = said(variables, words);
            assert!(said.contains(expected), "{words:?}: {said}");
            assert!(
                !said.contains("hunter2") && !said.contains("~/ca"),
                "{said}"
            );
        }
        // Both of its addresses are tried, and both are named.
        let said = said(&[], &["localhost:1"]);
        assert!(
            !said.contains("[::1]:1") || said.contains("none of its addresses takes a connection"),
            "{said}"
        );
    });
}

/// With reuse the ports are back after its delay, not after TIME_WAIT.
#[test]
fn ports_that_are_reused_return_after_the_delay() {
    in_namespace("ports_that_are_reused_return_after_the_delay", || {
        let report = sandbox(&["--set", "net.ipv4.tcp_tw_reuse=1"]);
        assert_eq!(
            (&report["stopped_by"], &report["reuse"]),
            (&json!("exhausted"), &json!("seen")),
            "{report}"
        );
        let last = report["ports_return_seconds"][1].as_f64().unwrap();
        assert!(last <= 1.1, "{report}");
    });
}

/// Where nobody could watch it is said why, and not that a login failed where none was tried.
#[test]
fn a_first_connection_that_failed_is_no_failed_login() {
    in_namespace("a_first_connection_that_failed_is_no_failed_login", || {
        for (more, why) in [
            (&[][..], "the loop's own first connection failed"),
            (
                &["--pool", "4"],
                "the pool could not open all of its connections",
            ),
        ] {
            let words = [&["repro", "--json", "127.0.0.1:1", "--user", "app"], more].concat();
            let report = json(&words);
            assert_eq!(report["server"]["not_watched_because"], why, "{report}");
            assert_eq!(report["error"]["kind"], "connection_refused");
            // mariadb prints another number than the system's.
            let said = twcheck(
                &words
                    .iter()
                    .copied()
                    .filter(|word| *word != "--json")
                    .collect::<Vec<_>>(),
            );
            assert!(!text(&said).contains("ERROR 2002"), "{}", text(&said));
        }
    });
}

/// The clients read it before the user's own.
#[test]
fn an_option_file_of_all_users_that_is_about_the_login_is_pointed_out() {
    let test = "an_option_file_of_all_users_that_is_about_the_login_is_pointed_out";
    in_namespace(test, || {
        for (lines, is_told) in [
            ("[client]\nhost=db.example\n", true),
            ("[client]\nuser=app\n", true),
            ("[client]\nsocket=/run/s\n[mysqld]\nuser=mysql\n", false),
        ] {
            let script = "mount -t tmpfs none /etc && printf \"$0\" > /etc/my.cnf && exec \"$@\"";
            let output = Command::new("unshare")
                .args(["--mount", "--", "sh", "-c", script, lines])
                .args([env!("CARGO_BIN_EXE_twcheck"), "repro", "127.0.0.1:1"])
                .env("HOME", "/nonexistent")
                .output()
                .unwrap();
            let said = stderr(&output).replace("\n      ", " ");
            assert!(said.contains("ERROR 2003"), "{said}");
            assert_eq!(said.contains("/etc/my.cnf is not read"), is_told, "{said}");
        }
    });
}
