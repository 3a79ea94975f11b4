//! Machines that were booted in a way of their own: tests/kernels.sh boots them, and runs the module
//! that is named as the boot is. The machine is the test's own, so it may be changed as a whole.

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use common::{connect_and_close, exit, json, stderr, stdout, text, twcheck};
use serde_json::Value;

fn set(key: &str, value: &str) {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
}

fn as_nobody(arguments: &[&str]) -> Output {
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(env!("CARGO_BIN_EXE_twcheck"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The kernel as it comes.
mod plain {
    use super::*;

    /// The timer wheel ends TIME_WAIT late, never early: how late depends on the kernel's HZ.
    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn time_wait_ends_late_and_never_early() {
        const HOLD: Duration = Duration::from_secs(60);
        const EACH: u16 = 40;
        // As common::in_namespace has it, and says why.
        set("net.ipv4.tcp_rfc1337", "1");
        set("net.ipv4.tcp_tw_reuse", "0");
        let server = common::serve("127.0.0.1:3306");
        let mut closed = Vec::new();
        for _ in 0..EACH {
            connect_and_close(server).unwrap();
            closed.push(Instant::now());
            thread::sleep(Duration::from_millis(100));
        }
        let seen = || {
            let rows = std::fs::read_to_string("/proc/net/tcp").unwrap();
            // Toward the server, in TIME_WAIT.
            rows.lines().filter(|row| row.contains(":0CEA 06")).count()
        };
        // A read skips rows when the table changes meanwhile.
        let is_left = |at: usize| (0..3).any(|_| seen() > at);
        let mut late = Vec::new();
        for number in (0..closed.len()).rev() {
            let begun = closed[closed.len() - 1 - number];
            while is_left(number) {
                assert!(begun.elapsed() < HOLD * 2, "it never ends");
                thread::sleep(Duration::from_millis(20));
            }
            late.push(begun.elapsed().as_secs_f64() - HOLD.as_secs_f64());
        }
        late.sort_by(f64::total_cmp);
        let tick = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
        // Past the test runner's capture.
        let _ = writeln!(
            std::io::stderr(),
            "MEASURED TIME_WAIT ended {:.1} to {:.1} s after 60 s, at a tick of {} ms",
            late[0],
            late[late.len() - 1],
            Duration::from(tick).as_millis()
        );
        // Their order is the rows', which may differ by a few.
        assert!(late[0] > -0.5, "{late:?}");
    }

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn the_low_ends_parity_comes_first_and_is_half_of_the_range() {
        for (number, low, high) in [(1, 40000, 40999), (2, 40001, 41000)] {
            set("net.ipv4.ip_local_port_range", &format!("{low} {high}"));
            let server = common::serve(&format!("127.0.0.{number}:3307"));
            let held: Vec<_> = std::iter::from_fn(|| TcpStream::connect(server).ok()).collect();
            let is_fast = |client: &TcpStream| {
                let port = client.local_addr().unwrap().port();
                port.is_multiple_of(2) == (low % 2 == 0)
            };
            let fast = held.iter().take_while(|client| is_fast(client)).count();
            let _ = writeln!(
                std::io::stderr(),
                "MEASURED {low}-{high}: {} connections, the first {fast} of the low end's parity",
                held.len()
            );
            assert_eq!((held.len(), fast), (1000, 500));
        }
    }
}

/// 1 GB of memory: `tcp_max_tw_buckets` follows it, and is below the default range.
mod small {
    use super::*;

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn the_stock_state_is_told_in_plain_words() {
        let said = stdout(&twcheck(&["verdict"]));
        assert!(said.starts_with("OK: "), "{said}");
        for part in [
            "28,232 usable (32768-60999, ",
            "and TIME_WAIT is dropped before it takes them all",
            "at most 4,096 (tcp_max_tw_buckets): beyond it is dropped at once",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let advice = json(&["advise", "--json"]);
        let change = |change: &Value| {
            let field = |name: &str| change[name].as_str().unwrap().to_owned();
            format!(
                "{} {} {}",
                change["step"],
                field("sysctl"),
                field("recommended")
            )
        };
        let changes: Vec<_> = advice["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(change)
            .collect();
        assert_eq!(
            changes,
            [
                "1 net.ipv4.tcp_tw_reuse 1",
                "1 net.ipv4.ip_local_port_range 10240 65535",
                "1 net.ipv4.tcp_max_tw_buckets 131072",
            ]
        );
    }

    /// As many connections as the whole range has ports take minutes under emulation.
    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn a_run_shows_the_drop_and_then_the_disease() {
        let range = ["--set", "net.ipv4.ip_local_port_range=40000 44199"];
        let output = twcheck(&[&["repro"][..], &range].concat());
        let said = stdout(&output);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        let begin = "Ports did not run out: TIME_WAIT was dropped after 4,201 connections in ";
        assert!(said.starts_with(begin), "{said}");
        let command = "`twcheck repro --set net.ipv4.tcp_max_tw_buckets=16384`";
        assert!(said.contains(command), "{said}");
        assert!(stderr(&output).contains(command), "{}", text(&output));
        let cure = ["--set", "net.ipv4.tcp_max_tw_buckets=16384"];
        let range = ["--set", "net.ipv4.ip_local_port_range=40000 40499"];
        let shown = json(&[&["repro", "--json"][..], &range, &cure].concat());
        common::assert_exhausted(&shown, 500, "192.0.2.1");
    }
}

/// Without /sbin/modprobe, as in a container on a minimal host: nothing loads tcp_diag.
mod no_modules {
    use super::*;

    /// How many connections the kernel has in TIME_WAIT, once it has closed all toward the server: a
    /// slow machine takes its time.
    fn settled() -> usize {
        for _ in 0..100 {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let states = table.lines().filter_map(|row| {
                let mut words = row.split_whitespace().skip(2);
                let (remote, state) = (words.next()?, words.next()?);
                remote.ends_with(":0CEA").then(|| state.to_owned())
            });
            let states: Vec<_> = states.collect();
            if states.iter().all(|state| state == "06") {
                return states.len();
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("not all are closed");
    }

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn proc_is_read_instead_and_the_module_is_named() {
        let server = common::serve("127.0.0.1:3306");
        for _ in 0..20 {
            connect_and_close(server).unwrap();
        }
        let module = "the kernel's module tcp_diag, which lists TCP sockets, is not loaded";
        let output = twcheck(&["verdict"]);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        assert!(stderr(&output).contains(module), "{}", text(&output));
        let waiting = settled();
        assert!(
            waiting > 0 && waiting.is_multiple_of(20),
            "{waiting}: 20 each time"
        );
        let states = json(&["states", "--json"]);
        assert_eq!(
            (&states["source"], &states["states"]["TIME_WAIT"]),
            (&"proc".into(), &waiting.into())
        );
        for command in ["verdict", "states", "advise"] {
            let output = twcheck(&[command, "--source", "sock_diag"]);
            let said = stderr(&output);
            assert_eq!((exit(&output), stdout(&output).as_str()), (3, ""), "{said}");
            assert!(
                said.contains(module) && said.contains("`modprobe tcp_diag`"),
                "{said}"
            );
        }
        let shown = json(&[
            "repro",
            "--json",
            "--set",
            "net.ipv4.ip_local_port_range=40000 40499",
        ]);
        common::assert_exhausted(&shown, 500, "192.0.2.1");
    }
}

/// `ipv6.disable=1`: there is no such family at all.
mod no_ipv6 {
    use super::*;

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn a_target_of_ipv6_is_told_what_is_missing() {
        let output = twcheck(&["repro", "--host", "::1"]);
        let said = stderr(&output);
        assert_eq!(exit(&output), 3, "{said}");
        for part in ["(97)", "this kernel has none", "hint: name an IPv4 address"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let verdict = json(&["verdict", "[::1]:3306", "--json"]);
        let finding = &verdict["findings"][0];
        let step = finding["next_step"].as_str().unwrap();
        assert_eq!(finding["level"], "critical", "{verdict}");
        assert!(step.contains("ipv6.disable=1"), "{verdict}");
    }

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn a_name_of_both_families_works() {
        std::fs::write("/etc/hosts", "::1 both\n127.0.0.1 both\n").unwrap();
        set("net.ipv4.ip_local_port_range", "40000 40099");
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                thread::spawn(move || std::io::copy(&mut &client, &mut std::io::sink()));
            }
        });
        let server = [
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "both",
            "--port",
            "8080",
        ];
        let report = json(&[&["repro", "--json", "--connections", "20"][..], &server].concat());
        assert_eq!(report["connections"], 20, "{report}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        assert_eq!(report["target"]["address"], address.to_string());
        let verdict = json(&["verdict", "both:8080", "--connect", "--json"]);
        assert_eq!(verdict["level"], "ok", "{verdict}");
        assert_eq!(verdict["gaps"], json(&["verdict", "--json"])["gaps"]);
    }
}

/// /proc hides the processes of others, and nobody may make a user namespace.
mod hidden {
    use super::*;

    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn an_ordinary_user_is_told_what_forbids_it_and_root_is_not_hindered() {
        let server = common::serve("127.0.0.1:3306");
        for _ in 0..20 {
            connect_and_close(server).unwrap();
        }
        let output = as_nobody(&["verdict", "--json"]);
        assert_eq!(exit(&output), 0, "{}", text(&output));
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        // As many as the kernel has: a slow server may have closed one first.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is_toward = |row: &&str| {
            let remote = row.split_whitespace().nth(2);
            remote.is_some_and(|remote| remote.ends_with(":0CEA"))
        };
        let there = table.lines().filter(is_toward).count();
        assert!(there > 0, "{table}");
        assert_eq!(verdict["flows"][0]["ports_in_use"], there, "{verdict}");
        for (arguments, instead) in [
            (&["repro"][..], "`twcheck repro --host HOST`"),
            (&["advise", "--prove"], "without --prove"),
        ] {
            let output = as_nobody(arguments);
            let said = stderr(&output);
            assert_eq!(exit(&output), 3, "{said}");
            for part in [
                "user.max_user_namespaces is 0",
                "hint: run it as root; ",
                instead,
            ] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
        let range = "net.ipv4.ip_local_port_range=40000 40499";
        let shown = json(&["repro", "--json", "--set", range]);
        common::assert_exhausted(&shown, 500, "192.0.2.1");
    }
}
