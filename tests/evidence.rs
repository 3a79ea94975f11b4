//! What `repro` says rests on what was seen: scripted servers and real kernels on which a look-alike
//! would be told.

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::network::Host;
use common::{exit, in_namespace, json, port_range, run, stderr, sysctl, text, twcheck};
use serde_json::{Value, json};
use twcheck::repro::server::Server;

/// `Protocol::HandshakeV10` of a server of this version and plugin, with these capabilities besides.
fn greeting(version: &str, plugin: &str, more: u32) -> Vec<u8> {
    const CAPABILITIES: u32 = 0x0001 | 0x0008 | 0x0200 | 0x2000 | 0x8000 | 0x0008_0000;
    let [a, b, c, d] = (CAPABILITIES | more).to_le_bytes();
    let mut packet = vec![10];
    packet.extend(version.as_bytes());
    packet.extend(b"\0\x01\0\0\0abcdefgh\0");
    packet.extend([a, b, 45, 2, 0, c, d, 21]);
    packet.extend([0; 10]);
    packet.extend(b"ijklmnopqrst\0");
    packet.extend(plugin.as_bytes());
    packet.push(0);
    packet
}

fn say(tcp: &mut TcpStream, sequence: u8, payload: &[u8]) -> io::Result<()> {
    let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    tcp.write_all(&[&[a, b, c, sequence], payload].concat())
}

fn hear(tcp: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    tcp.read_exact(&mut header)?;
    let [a, b, c, sequence] = header;
    let mut payload = vec![0; usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16];
    tcp.read_exact(&mut payload)?;
    Ok((sequence, payload))
}

/// Listens on `address`, and lets `talk` have each connection and its number, on a thread of its own.
fn listen<T>(address: &str, talk: T)
where
    T: Fn(&mut TcpStream, usize) -> io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for (number, client) in listener.incoming().filter_map(Result::ok).enumerate() {
            let talk = Arc::clone(&talk);
            thread::spawn(move || {
                let mut client = client;
                client.set_nodelay(true).unwrap();
                let _ = talk(&mut client, number);
            });
        }
    });
}

const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];
const EOF: [u8; 5] = [0xfe, 0, 0, 2, 0];

/// What a client of [`mysql`] has said.
#[derive(PartialEq)]
enum Said {
    Login,
    Question(String),
    Quit,
}

/// A MySQL server: where `otherwise` says false it does as any other, which waits for the client to
/// close.
fn mysql<T>(address: &str, otherwise: T)
where
    T: Fn(&mut TcpStream, usize, &Said) -> io::Result<bool> + Send + Sync + 'static,
{
    listen(address, move |tcp, number| {
        say(tcp, 0, &greeting("8.0.36", "mysql_native_password", 0))?;
        let (sequence, _) = hear(tcp)?;
        if !otherwise(tcp, number, &Said::Login)? {
            say(tcp, sequence + 1, &OK)?;
        }
        loop {
            let (sequence, command) = hear(tcp)?;
            let said = match command[0] {
                1 => Said::Quit,
                _ => Said::Question(String::from_utf8_lossy(&command[1..]).into_owned()),
            };
            if otherwise(tcp, number, &said)? {
                continue;
            }
            match said {
                Said::Question(sql) if sql.starts_with("SHOW") => {
                    status(tcp, sequence, &[("Threads_connected", "3")])?;
                }
                Said::Question(_) => say(tcp, sequence + 1, &OK)?,
                Said::Login | Said::Quit => {
                    io::copy(tcp, &mut io::sink())?;
                    return Ok(());
                }
            }
        }
    });
}

/// The answer to a question for these.
fn status(tcp: &mut TcpStream, sequence: u8, rows: &[(&str, &str)]) -> io::Result<()> {
    const COLUMN: &[u8] = b"\x03def\0\0\0\x01c\0\x0c\x21\0\0\x01\0\0\xfd\0\0\0\0\0";
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let rows = { rows.iter() }.map(|(name, value)| [text(name), text(value)].concat());
    let mut packets = vec![vec![2], COLUMN.to_vec(), COLUMN.to_vec(), EOF.to_vec()];
    packets.extend(rows);
    packets.push(EOF.to_vec());
    for (number, packet) in (sequence + 1..).zip(&packets) {
        say(tcp, number, packet)?;
    }
    Ok(())
}

/// Does something while the run goes on.
fn soon(deed: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(800));
        deed();
    });
}

fn report(arguments: &[&str]) -> Value {
    json(&[&["repro", "--json"], arguments].concat())
}

fn assert_told(report: &Value, stopped_by: &str, kind: &str, came_back: &Value) {
    assert_eq!(
        (
            &report["stopped_by"],
            &report["error"]["kind"],
            &report["ports_came_back"]
        ),
        (&json!(stopped_by), &json!(kind), came_back),
        "{report}"
    );
}

#[test]
fn an_address_that_goes_during_a_run_is_no_exhaustion() {
    in_namespace("an_address_that_goes_during_a_run_is_no_exhaustion", || {
        port_range(40000, 40399);
        Server::start("[::1]:3306".parse().unwrap()).unwrap();
        soon(|| drop(run("ip", &["-6", "address", "del", "::1/128", "dev", "lo"])));
        let report = report(&["--host", "::1", "--rate", "50", "--duration", "4s"]);
        assert_told(&report, "error", "address_not_available", &Value::Null);
    });
}

#[test]
fn the_unspecified_address_is_reached_at_loopback() {
    in_namespace("the_unspecified_address_is_reached_at_loopback", || {
        port_range(40000, 40399);
        for (host, reached) in [("0.0.0.0", "127.0.0.1:3306"), ("::", "[::1]:3306")] {
            Server::start(reached.parse().unwrap()).unwrap();
            let report = report(&["--host", host]);
            assert_told(
                &report,
                "exhausted",
                "ephemeral_ports_exhausted",
                &Value::Null,
            );
            assert_eq!(
                (&report["target"]["address"], &report["connections"]),
                (&json!(reached), &json!(400))
            );
        }
    });
}

#[test]
fn a_source_that_changes_during_a_run_brings_its_own_ports() {
    in_namespace(
        "a_source_that_changes_during_a_run_brings_its_own_ports",
        || {
            port_range(40000, 40199);
            let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
            run("ip", &["address", "add", "10.9.0.5/24", "dev", "cable"]);
            host.serve("10.9.0.2:6379");
            soon(|| {
                let route = ["route", "replace", "10.9.0.2/32", "dev", "cable"];
                run("ip", &[&route[..], &["src", "10.9.0.5"]].concat());
            });
            let plain = ["--protocol", "tcp", "--force", "--host", "10.9.0.2"];
            let more = ["--port", "6379", "--rate", "80", "--duration", "20s"];
            let report = report(&[&plain[..], &more].concat());
            let came_back = json!("other_sources");
            assert_told(
                &report,
                "exhausted",
                "ephemeral_ports_exhausted",
                &came_back,
            );
            let made = report["connections"].as_u64().unwrap();
            assert!(made > 201, "{report}");
            // The look whether it lets in is one of them.
            assert_eq!(report["time_wait"]["client_side"], made + 1);
        },
    );
}

#[test]
fn settings_that_change_during_a_run_are_told_from_servers_that_close() {
    let test = "settings_that_change_during_a_run_are_told_from_servers_that_close";
    in_namespace(test, || {
        Server::start("127.0.0.1:3306".parse().unwrap()).unwrap();
        let local = |arguments: &[&str]| report(&[&["--host", "127.0.0.1"], arguments].concat());
        port_range(40000, 40399);
        soon(|| sysctl("net.ipv4.ip_local_reserved_ports", "40000-40399"));
        let report = local(&["--rate", "50"]);
        assert_told(&report, "exhausted", "ports_reserved", &Value::Null);
        sysctl("net.ipv4.ip_local_reserved_ports", "");

        port_range(41000, 41399);
        soon(|| sysctl("net.ipv4.ip_local_port_range", "42000 42399"));
        let report = local(&["--rate", "300"]);
        let came_back = json!("settings_changed");
        assert_told(
            &report,
            "exhausted",
            "ephemeral_ports_exhausted",
            &came_back,
        );
        // Also on ports that are of no range any more.
        let made = report["connections"].as_u64().unwrap();
        let before = report["time_wait"]["client_side_before"].as_u64().unwrap();
        let left = report["time_wait"]["client_side"].as_u64().unwrap();
        assert!((made + before).abs_diff(left) <= 2, "{report}");

        port_range(43000, 43399);
        soon(|| sysctl("net.ipv4.tcp_tw_reuse", "1"));
        let report = local(&["--rate", "300", "--duration", "4s"]);
        assert_eq!(report["ports_came_back"], "reuse", "{report}");
    });
}

/// TIME_WAIT is missing for many reasons; the limit on it is one only where the kernel counts.
#[test]
fn a_server_that_closes_first_is_told_from_time_wait_that_is_dropped() {
    let test = "a_server_that_closes_first_is_told_from_time_wait_that_is_dropped";
    in_namespace(test, || {
        port_range(40000, 40999);
        sysctl("net.ipv4.tcp_max_tw_buckets", "500");
        mysql("127.0.0.1:3306", |tcp, number, said| {
            let closes = number > 0 && *said == Said::Login;
            if closes {
                say(tcp, 2, &OK)?;
                tcp.shutdown(Shutdown::Both)?;
            }
            Ok(closes)
        });
        let report = report(&["--host", "127.0.0.1", "--connections", "300"]);
        assert_eq!(
            (
                &report["ports_came_back"],
                &report["shows_exhaustion"],
                &report["time_wait"]["dropped"]
            ),
            (&json!("server_closed_first"), &Value::Null, &json!(0)),
            "{report}"
        );
    });
}

#[test]
fn ports_that_were_gone_for_a_moment_were_not_bound() {
    in_namespace("ports_that_were_gone_for_a_moment_were_not_bound", || {
        port_range(40000, 40399);
        listen("127.0.0.1:6379", |tcp, _| {
            io::copy(tcp, &mut io::sink())?;
            thread::sleep(Duration::from_millis(300));
            tcp.write_all(b"bye")
        });
        let plain = ["--protocol", "tcp", "--force", "--host", "127.0.0.1"];
        let more = ["--port", "6379", "--threads", "200"];
        let report = report(&[&plain[..], &more].concat());
        assert_eq!(
            (&report["stopped_by"], &report["error"]["kind"]),
            (&json!("exhausted"), &json!("ephemeral_ports_exhausted")),
            "{report}"
        );
    });
}

#[test]
fn time_wait_of_the_servers_side_is_that_of_its_own_address() {
    in_namespace(
        "time_wait_of_the_servers_side_is_that_of_its_own_address",
        || {
            port_range(40000, 40999);
            Server::start("127.0.0.1:3306".parse().unwrap()).unwrap();
            // One that closes first, and greets before that.
            for address in ["127.0.0.2:3306", "127.0.0.1:3310"] {
                listen(address, |tcp, _| {
                    tcp.shutdown(Shutdown::Write)?;
                    io::copy(tcp, &mut io::sink()).map(|_| ())
                });
                for _ in 0..50 {
                    let mut tcp = TcpStream::connect(address).unwrap();
                    assert_eq!(tcp.read(&mut [0]).unwrap(), 0);
                }
            }
            thread::sleep(Duration::from_millis(200));
            let kept = || {
                let filter = ["sport", "=", ":3306", "and", "src", "127.0.0.2"];
                let command = ["-Htan", "state", "time-wait"];
                let rows = run("ss", &[&command[..], &filter].concat());
                common::stdout(&rows).lines().count() as u64
            };
            assert!((45..=50).contains(&kept()), "{}", kept());
            let report = report(&["--host", "127.0.0.1", "--connections", "10"]);
            assert_eq!(report["time_wait"]["server_side"], 0, "{report}");
            let before = kept();
            let plain = ["--protocol", "tcp", "--force", "--host", "127.0.0.2"];
            let more = ["--connections", "10", "--json"];
            let report = json(&[&["repro"], &plain[..], &more].concat());
            let side = |name: &str| report["time_wait"][name].as_u64().unwrap();
            // The look whether it lets in may be one more.
            assert!(side("server_side_before").abs_diff(before) <= 1, "{report}");
            assert!(side("server_side").abs_diff(kept()) <= 1, "{report}");
        },
    );
}

/// `TWRecycled` is the whole namespace's.
#[test]
fn reuse_of_another_flow_is_not_taken_for_this_servers() {
    in_namespace(
        "reuse_of_another_flow_is_not_taken_for_this_servers",
        || {
            sysctl("net.ipv4.ip_local_port_range", "40000 40199");
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
            host.run(&["sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_timestamps"]);
            host.serve("10.9.0.2:6379");
            let other = common::serve("127.0.0.1:3309");
            thread::spawn(move || {
                loop {
                    let _ = common::connect_and_close(other);
                }
            });
            let plain = ["--protocol", "tcp", "--force", "--host", "10.9.0.2"];
            let more = ["--port", "6379", "--rate", "2", "--duration", "5s"];
            let report = report(&[&plain[..], &more].concat());
            assert_ne!(report["reuse"], "seen", "{report}");
            assert_ne!(report["reuse_applies"], true, "{report}");
        },
    );
}

/// A firewall's REJECT looks like a port where nobody listens.
#[test]
fn a_refusal_after_connections_may_be_a_firewalls() {
    in_namespace("a_refusal_after_connections_may_be_a_firewalls", || {
        port_range(40000, 40199);
        Server::start("127.0.0.1:3306".parse().unwrap()).unwrap();
        soon(|| {
            let rules = "add table t; add chain t c { type filter hook input priority 0; }; \
                         add rule t c tcp dport 3306 ct state new reject with tcp reset";
            run("nft", &[rules]);
        });
        let arguments = ["--host", "127.0.0.1", "--rate", "30", "--duration", "4s"];
        let output = twcheck(&[&["repro"], &arguments[..]].concat());
        let said = text(&output).replace("\n                ", " ");
        assert!(
            said.contains("refuses connections: nothing listens there, or a firewall rejects them"),
            "{said}"
        );
    });
}

/// A run of this text, and how long it took.
fn timed(arguments: &[&str]) -> (String, Duration) {
    let begun = Instant::now();
    let output = twcheck(&[&["repro", "--host", "127.0.0.1"], arguments].concat());
    let said = text(&output);
    let words: Vec<_> = said.split_whitespace().collect();
    (words.join(" "), begun.elapsed())
}

#[test]
fn a_pool_is_open_in_time_and_too_small_or_slow_by_name() {
    in_namespace(
        "a_pool_is_open_in_time_and_too_small_or_slow_by_name",
        || {
            port_range(40000, 40399);
            mysql("127.0.0.1:3306", |_, _, said| {
                if *said == Said::Login {
                    thread::sleep(Duration::from_millis(900));
                }
                Ok(false)
            });
            let (said, took) = timed(&["--pool", "20", "--duration", "2s"]);
            assert!(
                said.contains("only 2 of the pool's 20 connections were open after 2.0 s"),
                "{said}"
            );
            assert!(took < Duration::from_secs(4), "{took:?}");

            mysql("127.0.0.1:3307", |_, _, said| {
                if *said == Said::Question("DO 0".into()) {
                    thread::sleep(Duration::from_millis(500));
                }
                Ok(false)
            });
            let few = ["--port", "3307", "--pool", "1", "--threads", "40"];
            let (said, _) = timed(&[&few[..], &["--duration", "20s"]].concat());
            assert!(
                said.contains("no connection of the pool came free within 10.0 s: all 1 were lent")
                    && said.contains("The pool is too small"),
                "{said}"
            );

            // A question that is never answered is no login.
            mysql("127.0.0.1:3308", |_, _, said| {
                if *said == Said::Question("DO 0".into()) {
                    thread::sleep(Duration::from_secs(60));
                }
                Ok(false)
            });
            let (said, _) = timed(&["--port", "3308", "--pool", "2", "--duration", "3s"]);
            assert!(!said.contains("a login that had been going on"), "{said}");
        },
    );
}

#[test]
fn a_pool_that_takes_long_to_open_is_watched() {
    in_namespace("a_pool_that_takes_long_to_open_is_watched", || {
        port_range(40000, 40399);
        mysql("127.0.0.1:3306", |_, _, said| {
            if *said == Said::Login {
                thread::sleep(Duration::from_millis(400));
            }
            Ok(false)
        });
        let report = report(&["--host", "127.0.0.1", "--pool", "27", "--duration", "11s"]);
        assert_eq!(
            (
                &report["stopped_by"],
                &report["server"]["not_watched_because"]
            ),
            (&json!("duration"), &Value::Null),
            "{report}"
        );
    });
}

#[test]
fn a_server_that_never_closes_holds_up_no_pool() {
    in_namespace("a_server_that_never_closes_holds_up_no_pool", || {
        port_range(40000, 40399);
        mysql("127.0.0.1:3306", |_, _, said| {
            if *said == Said::Quit {
                thread::sleep(Duration::from_secs(60));
            }
            Ok(false)
        });
        let (said, took) = timed(&["--pool", "20", "--duration", "2s"]);
        assert!(said.contains("time was up"), "{said}");
        assert!(took < Duration::from_secs(6), "{took:?}");
    });
}

/// The watch's first question takes no more than a part of the run, and no burst makes up for it.
#[test]
fn a_question_that_is_not_answered_leaves_the_run_its_time() {
    in_namespace(
        "a_question_that_is_not_answered_leaves_the_run_its_time",
        || {
            port_range(40000, 40399);
            mysql("127.0.0.1:3306", |_, _, said| {
                if matches!(said, Said::Question(sql) if sql.starts_with("SHOW")) {
                    thread::sleep(Duration::from_secs(60));
                }
                Ok(false)
            });
            let plain = ["--host", "127.0.0.1", "--rate", "50"];
            let report = report(&[&plain[..], &["--duration", "2s"]].concat());
            let made = report["connections"].as_u64().unwrap();
            assert!((40..=100).contains(&made), "{report}");
            for moment in report["timeline"].as_array().unwrap() {
                let rate = moment["rate"].as_f64().unwrap();
                assert!(rate < 110.0, "{report}");
            }
        },
    );
}

#[test]
fn what_no_server_can_count_is_not_believed_and_the_first_answer_counts() {
    let test = "what_no_server_can_count_is_not_believed_and_the_first_answer_counts";
    in_namespace(test, || {
        port_range(40000, 40999);
        for (port, threads, most) in [
            ("3306", "18446744073709551615", Value::Null),
            ("3307", "0", Value::Null),
            ("3308", "140", json!(140)),
        ] {
            let asked = AtomicUsize::new(0);
            mysql(&format!("127.0.0.1:{port}"), move |tcp, _, said| {
                let asks = matches!(said, Said::Question(sql) if sql.starts_with("SHOW"));
                if asks {
                    if asked.fetch_add(1, Ordering::Relaxed) > 0 {
                        tcp.shutdown(Shutdown::Both)?;
                    }
                    status(tcp, 0, &[("Threads_connected", threads)])?;
                }
                Ok(asks)
            });
            let plain = ["--host", "127.0.0.1", "--connections", "100"];
            let report = report(&[&plain[..], &["--port", port]].concat());
            assert_eq!(report["server"]["threads_connected_max"], most, "{report}");
        }
    });
}

/// A dependency parses the number, and panics at digits that are not ASCII's.
#[test]
fn a_version_that_is_no_number_does_no_harm() {
    in_namespace("a_version_that_is_no_number_does_no_harm", || {
        port_range(40000, 40999);
        listen("127.0.0.1:3306", |tcp, _| {
            say(tcp, 0, &greeting("٩٩.٩.٩", "mysql_native_password", 0))?;
            let (sequence, _) = hear(tcp)?;
            say(tcp, sequence + 1, &OK)?;
            io::copy(tcp, &mut io::sink()).map(|_| ())
        });
        let report = report(&[
            "--host",
            "127.0.0.1",
            "--connections",
            "3",
            "--duration",
            "5s",
        ]);
        assert_eq!(
            (&report["stopped_by"], &report["connections"]),
            (&json!("count"), &json!(3)),
            "{report}"
        );
    });
}

#[test]
fn many_addresses_that_are_silent_do_not_add_up() {
    let test = "many_addresses_that_are_silent_do_not_add_up";
    in_namespace(test, || {
        let file = tempfile::NamedTempFile::new().unwrap();
        for last in 1..=12 {
            writeln!(file.as_file(), "127.0.1.{last} many.test").unwrap();
        }
        let hosts = file.path().to_str().unwrap();
        let rules = "add table t; add chain t c { type filter hook output priority 0; }; \
                     add rule t c tcp dport 3306 drop";
        run("nft", &[rules]);
        let script = format!(
            "mount --bind {hosts} /etc/hosts && exec {} repro --host many.test --duration 4s",
            env!("CARGO_BIN_EXE_twcheck")
        );
        let begun = Instant::now();
        let arguments = ["--mount", "sh", "-c", &script];
        let output = std::process::Command::new("unshare")
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert_eq!(exit(&output), 3, "{}", text(&output));
        assert!(
            stderr(&output).contains("does not answer"),
            "{}",
            text(&output)
        );
        assert!(
            begun.elapsed() < Duration::from_secs(9),
            "{}",
            text(&output)
        );
    });
}

/// Ctrl-Z and `fg`.
#[test]
fn a_run_that_is_stopped_and_goes_on_goes_on() {
    in_namespace("a_run_that_is_stopped_and_goes_on_goes_on", || {
        port_range(40000, 40999);
        Server::start("127.0.0.1:3306".parse().unwrap()).unwrap();
        // Each second SYN is lost, and repeated a second later.
        let rules = "add table t; add chain t c { type filter hook output priority 0; }; \
                     add rule t c tcp dport 3306 tcp flags & (syn|ack) == syn \
                     numgen inc mod 2 == 1 drop";
        run("nft", &[rules]);
        let mut command = common::command(&["repro", "--host", "127.0.0.1", "--duration", "5s"]);
        let pipes = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = pipes.spawn().unwrap();
        thread::sleep(Duration::from_millis(1500));
        let id = child.id().to_string();
        run("kill", &["-s", "STOP", &id]);
        thread::sleep(Duration::from_millis(50));
        run("kill", &["-s", "CONT", &id]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit(&output), 0, "{}", text(&output));
    });
}

/// The fast ports are spent when they are, whoever takes them, and not when as many were made.
#[test]
fn fast_ports_are_spent_when_the_table_shows_it() {
    in_namespace("fast_ports_are_spent_when_the_table_shows_it", || {
        port_range(40000, 40399);
        mysql("127.0.0.1:3306", |tcp, number, said| {
            let closes = (1..=300).contains(&number) && *said == Said::Login;
            if closes {
                say(tcp, 2, &OK)?;
                tcp.shutdown(Shutdown::Write)?;
            }
            Ok(closes)
        });
        let report = report(&["--host", "127.0.0.1", "--rate", "300", "--duration", "2s"]);
        assert_eq!(
            (
                &report["cliff"],
                &report["connect_latency_us"]["after_cliff"]
            ),
            (&Value::Null, &Value::Null),
            "{report}"
        );
    });
}

/// The DER element of this kind.
fn der(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 0x82], &length[..], content].concat()
}

/// A `SubjectPublicKeyInfo` of RSA in PEM.
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> String {
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let numbers = [der(2, &[&[0], modulus].concat()), der(2, exponent)].concat();
    let bits = [&[0], &der(0x30, &numbers)[..]].concat();
    let info = der(0x30, &[&algorithm[..], &der(3, &bits)].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.der");
    std::fs::write(&file, info).unwrap();
    let lines = common::stdout(&run("base64", &[file.to_str().unwrap()]));
    format!("-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n")
}

/// Whoever answers can show a key of its own: a weak one is refused, and any is told of.
#[test]
fn a_password_under_a_key_that_nobody_vouches_for_is_told() {
    in_namespace(
        "a_password_under_a_key_that_nobody_vouches_for_is_told",
        || {
            port_range(40000, 40999);
            for (port, modulus, exponent, is_weak) in [
                ("3306", vec![0xc3; 256], &[1, 0, 1][..], false),
                ("3307", vec![0xc3; 256], &[1], true),
                ("3308", vec![0xc3; 256], &[2], true),
                ("3309", vec![0xc3; 64], &[1, 0, 1], true),
            ] {
                let key = rsa_key(&modulus, exponent);
                let address = format!("127.0.0.1:{port}");
                listen(&address, move |tcp, _| {
                    say(tcp, 0, &greeting("8.0.36", "caching_sha2_password", 0))?;
                    let (sequence, _) = hear(tcp)?;
                    say(tcp, sequence + 1, &[1, 4])?;
                    let (sequence, _) = hear(tcp)?;
                    say(tcp, sequence + 1, &[&[1], key.as_bytes()].concat())?;
                    let (sequence, _) = hear(tcp)?;
                    say(tcp, sequence + 1, &OK)?;
                    io::copy(tcp, &mut io::sink()).map(|_| ())
                });
                let line = [
                    "repro",
                    "--host",
                    "127.0.0.1",
                    "--user",
                    "app",
                    "--port",
                    port,
                ];
                let mut command = common::command(&line);
                command.args(["--connections", "2", "--duration", "5s"]);
                let output = command.env("MYSQL_PWD", "hunter2").output().unwrap();
                let said = text(&output)
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                assert_eq!(exit(&output), if is_weak { 3 } else { 0 }, "{said}");
                assert_eq!(
                    said.contains("server shows for it is weak"),
                    is_weak,
                    "{said}"
                );
                let told = said.contains("was sent under an RSA key that the server showed");
                assert_eq!(told, !is_weak, "{said}");
            }
        },
    );
}

/// A server may say anything, at any length.
#[test]
fn a_servers_words_are_whole_and_short() {
    in_namespace("a_servers_words_are_whole_and_short", || {
        port_range(40000, 40999);
        listen("127.0.0.1:3306", |tcp, _| {
            say(tcp, 0, b"\xff\x6a\x04# starts with a hash")?;
            io::copy(tcp, &mut io::sink()).map(|_| ())
        });
        let (said, _) = timed(&["--connections", "1"]);
        assert!(said.contains(": # starts with a hash"), "{said}");
        listen("127.0.0.1:3307", |tcp, _| {
            say(
                tcp,
                0,
                &[b"\xff\xd2\x04#08004", vec![b'A'; 250_000].as_slice()].concat(),
            )?;
            io::copy(tcp, &mut io::sink()).map(|_| ())
        });
        let (said, _) = timed(&["--connections", "1", "--port", "3307"]);
        assert!(said.contains("ERROR 1234 (08004): AAA"), "{said}");
        assert!(said.len() < 2000, "{}", said.len());
    });
}

#[test]
fn what_may_be_a_password_is_in_no_refusal() {
    for arguments in [
        &["repro", "u:hunter2"][..],
        &["repro", "--ask-password=hunter2"],
        &["repro", "h", "--defaults-file", "mysql://u:hunter2@h"],
        &["repro", "h", "--password-file", "mysql://u:hunter2@h"],
        &["repro", "h", "--tls", "--tls-ca", "mysql://u:hunter2@h"],
    ] {
        let output = twcheck(arguments);
        assert_eq!(exit(&output), 3, "{}", text(&output));
        assert!(!text(&output).contains("hunter2"), "{}", text(&output));
    }
}

#[test]
fn a_port_of_the_environment_is_one_or_is_refused() {
    for port in ["3307x", "abc", "99999", "0"] {
        let mut command = common::command(&["repro", "h", "--defaults-file", "/dev/null"]);
        let output = command.env("MYSQL_TCP_PORT", port).output().unwrap();
        assert_eq!(exit(&output), 3, "{}", text(&output));
        let said = format!("MYSQL_TCP_PORT={port} is no port, 1 to 65535");
        assert!(stderr(&output).contains(&said), "{}", text(&output));
    }
}

/// As `my_print_defaults` does, and a pipe holds nobody up.
#[test]
fn what_is_included_and_is_no_file_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let more = at("more");
    std::fs::create_dir_all(at("more/sub.cnf")).unwrap();
    run("mkfifo", &[&at("pipe.cnf"), &at("more/pipe.cnf")]);
    let text_of_file = format!(
        "[client]\nhost=127.0.0.1\n!include {more}\n!include {}\n!includedir {more}\nport=1\n",
        at("pipe.cnf")
    );
    std::fs::write(at("my.cnf"), text_of_file).unwrap();
    let line = [
        "repro",
        "--defaults-file",
        &at("my.cnf"),
        "--duration",
        "2s",
    ];
    let output = twcheck(&line);
    let said = stderr(&output);
    assert!(said.contains("127.0.0.1:1"), "{said}");
    let words: Vec<_> = said.split_whitespace().collect();
    let passed_over = words
        .join(" ")
        .matches("is not included: it is no file")
        .count();
    assert_eq!(passed_over, 2, "{said}");
}

/// MySQL counts a connection that breaks off before the login, and blocks the host after some.
#[test]
fn a_server_that_is_slow_to_greet_is_not_taken_for_another() {
    in_namespace(
        "a_server_that_is_slow_to_greet_is_not_taken_for_another",
        || {
            port_range(40000, 40999);
            let broken = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&broken);
            listen("127.0.0.1:3307", move |tcp, _| {
                thread::sleep(Duration::from_millis(1500));
                let login = say(tcp, 0, &greeting("8.0.36", "caching_sha2_password", 0))
                    .and_then(|()| hear(tcp));
                if login.is_err() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                say(tcp, 2, b"\xff\x15\x04#28000denied")
            });
            let plain = ["repro", "--protocol", "tcp", "--host", "127.0.0.1"];
            let output = twcheck(&[&plain[..], &["--port", "3307", "--duration", "1s"]].concat());
            assert_eq!(exit(&output), 3, "{}", text(&output));
            assert!(
                stderr(&output).contains("greets like MySQL"),
                "{}",
                text(&output)
            );
            // One that never says a word may be MySQL, too.
            common::serve("127.0.0.1:6379");
            let output = twcheck(&[&plain[..], &["--port", "6379"]].concat());
            assert_eq!(exit(&output), 3, "{}", text(&output));
            let said = stderr(&output).replace('\n', " ");
            assert!(
                said.contains("has said nothing for 11 s") && said.contains("hint: add --force"),
                "{said}"
            );
            thread::sleep(Duration::from_secs(2));
            assert_eq!(broken.load(Ordering::Relaxed), 0);
        },
    );
}

#[test]
fn be_a_server() {
    common::network::be_a_server();
}
