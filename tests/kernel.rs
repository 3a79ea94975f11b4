//! The kernel is the judge: what `verdict` says about ports against what connect() then does.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{
    connect_and_close, connect_until_error, exit, grants_single_ports, in_namespace, json, linux,
    own_port_range, port_range, run, serve, stdout, sysctl, twcheck,
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// The number of usable ports that `verdict` names must be the number of connections that succeed;
/// then it must find the flow exhausted.
fn the_kernel_agrees(expected: u32, server: &str) {
    let server = serve(server);
    let usable = json(&["verdict", "--json"])["capacity"]["usable_ports"].clone();
    assert_eq!(usable, json!(expected), "verdict before");
    let made = connect_until_error(server, expected + 100);
    assert_eq!(made, (expected, Some(99)), "connections made");

    for source in ["sock_diag", "proc"] {
        let output = twcheck(&["verdict", "--json", "--source", source]);
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(exit(&output), 2, "{source}");
        assert_eq!(
            verdict["findings"][0]["code"], "PORTS_EXHAUSTED",
            "{source}"
        );
        let flow = &verdict["flows"][0];
        assert_eq!(
            (
                &flow["ports_in_use"],
                &flow["by_state"],
                &flow["destination_port"]
            ),
            (
                &json!(expected),
                &json!({"TIME_WAIT": expected}),
                &json!(server.port())
            ),
            "{source}"
        );
        if source == "sock_diag" {
            assert_eq!(flow["ports_free"], 0);
        }
    }
}

/// The findings with their levels: another one has the same exit status.
fn findings(verdict: &Value) -> Vec<(&str, &str)> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| ["code", "level"].map(|field| finding[field].as_str().unwrap()))
        .map(|[code, level]| (code, level))
        .collect()
}

/// What `verdict` finds where a flow has no port left, and nothing else is the matter.
const EXHAUSTED: [(&str, &str); 1] = [("PORTS_EXHAUSTED", "critical")];

#[test]
fn every_port_of_a_plain_range() {
    in_namespace("every_port_of_a_plain_range", || {
        port_range(40000, 40999);
        the_kernel_agrees(1000, "127.0.0.1:3306");
    });
}

#[test]
fn a_range_that_begins_odd() {
    in_namespace("a_range_that_begins_odd", || {
        port_range(40001, 41000);
        the_kernel_agrees(1000, "127.0.0.1:3306");
    });
}

#[test]
fn a_narrow_range() {
    in_namespace("a_narrow_range", || {
        port_range(40000, 40009);
        the_kernel_agrees(10, "127.0.0.1:3306");
    });
}

#[test]
fn a_server_on_ipv6() {
    in_namespace("a_server_on_ipv6", || {
        port_range(40000, 40499);
        the_kernel_agrees(500, "[::1]:3306");
    });
}

#[test]
fn reserved_ports() {
    in_namespace("reserved_ports", || {
        port_range(40000, 40999);
        sysctl("net.ipv4.ip_local_reserved_ports", "40100-40199,50000");
        the_kernel_agrees(900, "127.0.0.1:3306");
    });
}

#[test]
fn listeners_on_any_address_of_either_family() {
    in_namespace("listeners_on_any_address_of_either_family", || {
        port_range(40000, 40999);
        let listen = |address| TcpListener::bind(address).unwrap();
        let _held = [
            listen("127.0.0.1:40010"),
            listen("127.0.0.1:40011"),
            listen("127.0.0.9:40500"),
            listen("[::]:40999"),
        ];
        the_kernel_agrees(996, "127.0.0.1:3306");
    });
}

#[test]
fn a_port_both_reserved_and_listening_counts_once() {
    in_namespace("a_port_both_reserved_and_listening_counts_once", || {
        port_range(40000, 40999);
        sysctl("net.ipv4.ip_local_reserved_ports", "40010,40020");
        let _held = TcpListener::bind("127.0.0.1:40010").unwrap();
        the_kernel_agrees(998, "127.0.0.1:3306");
    });
}

#[test]
fn ports_bound_by_sockets_that_neither_listen_nor_connect() {
    in_namespace(
        "ports_bound_by_sockets_that_neither_listen_nor_connect",
        || {
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
            use std::os::fd::AsRawFd;
            port_range(40000, 40999);
            let bound = [40001, 40002].map(|port| {
                let flags = SockFlag::empty();
                let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
                bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 7, port)).unwrap();
                socket
            });
            let server = serve("127.0.0.1:3306");
            let verdict = json(&["verdict", "--json"]);
            let shows_bound = linux() >= (6, 8);
            let told = |source: &str| {
                let verdict = json(&["verdict", "--json", "--source", source]);
                verdict["capacity"]["bound_ports"].as_u64()
            };
            let shown = told("sock_diag");
            // Of a kernel that is asked port by port only some are, by chance.
            let found_by_chance = !shows_bound && grants_single_ports() && shown == Some(2);
            assert!(
                shown == shows_bound.then_some(2) || found_by_chance,
                "{verdict}"
            );
            assert_eq!(connect_until_error(server, 1100), (998, Some(99)));
            // Where the table does not show them, the kernel is asked port by port, or at least
            // whether it has one more.
            let by_port = grants_single_ports();
            assert_eq!(told("sock_diag"), by_port.then_some(2));
            assert_eq!(told("proc"), by_port.then_some(2));
            for source in ["sock_diag", "proc"] {
                let verdict = json(&["verdict", "--json", "--source", source]);
                assert_eq!(findings(&verdict), EXHAUSTED, "{source}: {verdict}");
            }
            drop(bound);
        },
    );
}

/// Both ends of equal parity: the kernel rounds such a range down to an even number of ports, and
/// can come out one short, or find the last one after all.
#[test]
fn a_range_of_an_odd_number_of_ports_comes_out_at_most_one_short() {
    in_namespace(
        "a_range_of_an_odd_number_of_ports_comes_out_at_most_one_short",
        || {
            port_range(40000, 40998);
            assert_eq!(
                json(&["verdict", "--json"])["capacity"]["usable_ports"],
                998
            );
            let (made, errno) = connect_until_error(serve("127.0.0.1:3306"), 1100);
            assert_eq!(errno, Some(99));
            assert!((998..=999).contains(&made), "{made}");
            // Not PORTS_LOW, which is as critical: whichever end was found, nothing is left.
            let verdict = json(&["verdict", "--json"]);
            assert_eq!(findings(&verdict), EXHAUSTED);
            let flow = &verdict["flows"][0];
            assert_eq!(
                (&flow["ports_in_use"], &flow["ports_free"]),
                (&json!(made), &json!(0))
            );
        },
    );
}

#[test]
fn the_end_that_the_kernel_gives_now_and_then_is_never_counted_on() {
    in_namespace(
        "the_end_that_the_kernel_gives_now_and_then_is_never_counted_on",
        || {
            port_range(40000, 40004);
            let server = serve("127.0.0.1:3306");
            let client = |ports: Option<u16>| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_linger(Some(Duration::ZERO)).unwrap();
                if let Some(port) = ports {
                    own_port_range(&client, port, port).unwrap();
                }
                client.connect(&server.into()).map(|()| client)
            };
            if !grants_single_ports() {
                let test = "the_end_that_the_kernel_gives_now_and_then_is_never_counted_on";
                return common::skip_for_want_of(test, "a port cannot be chosen before Linux 6.3");
            }
            let _held = [40001, 40003, 40004].map(|port| client(Some(port)).unwrap());
            let mut rounds = 0;
            for _ in 0..16 {
                // Each one that is given moves the place where the next search begins: after 40002
                // it begins at the low end, and after that at 40002 again, for good.
                let middle = client(None).unwrap();
                if middle.local_addr().unwrap().as_socket().unwrap().port() != 40002 {
                    continue;
                }
                rounds += 1;
                let verdict = json(&["verdict", "--json"]);
                assert_eq!(verdict["flows"][0]["ports_free"], 0, "{verdict}");
                assert_eq!(verdict["level"], "critical");
                let given = (0..8).filter(|_| client(None).is_ok()).count();
                assert!(given < 8, "{given} of 8");
            }
            assert!(rounds >= 3, "{rounds}");
        },
    );
}

#[test]
fn connections_held_open_are_told_from_time_wait() {
    in_namespace("connections_held_open_are_told_from_time_wait", || {
        port_range(40000, 40199);
        let server = serve("127.0.0.1:3306");
        let mut held: Vec<_> = (0..200)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        assert_eq!(
            TcpStream::connect(server).unwrap_err().raw_os_error(),
            Some(99)
        );
        let codes = |verdict: Value| {
            let findings = verdict["findings"].as_array().unwrap().clone();
            findings
                .into_iter()
                .map(|finding| finding["code"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            codes(json(&["verdict", "--json"])),
            ["PORTS_EXHAUSTED", "HELD_OPEN"]
        );
        held.truncate(120);
        thread::sleep(Duration::from_millis(100));
        // 80 are in TIME_WAIT now, and every port is still taken.
        assert_eq!(
            codes(json(&["verdict", "--json"])),
            ["PORTS_EXHAUSTED", "HELD_OPEN"]
        );
        held.truncate(90);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(codes(json(&["verdict", "--json"])), ["PORTS_EXHAUSTED"]);
    });
}

#[test]
fn a_server_that_closes_first_costs_the_client_no_port() {
    in_namespace(
        "a_server_that_closes_first_costs_the_client_no_port",
        || {
            port_range(40000, 40099);
            let listener = TcpListener::bind("127.0.0.1:3306").unwrap();
            let server = listener.local_addr().unwrap();
            thread::spawn(move || listener.incoming().for_each(drop));
            for _ in 0..300 {
                let mut stream = TcpStream::connect(server).unwrap();
                assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
            }
            let verdict = json(&["verdict", "--json"]);
            assert_eq!(verdict["level"], "ok");
            assert_eq!(verdict["time_wait"]["outbound"], 0);
            assert!(verdict["time_wait"]["inbound"].as_u64().unwrap() > 0);
        },
    );
}

#[test]
fn a_bucket_limit_below_the_ports_unbinds_the_rate_and_is_told() {
    in_namespace(
        "a_bucket_limit_below_the_ports_unbinds_the_rate_and_is_told",
        || {
            port_range(40000, 40999);
            sysctl("net.ipv4.tcp_max_tw_buckets", "300");
            let said = common::stdout(&common::twcheck(&["verdict"]));
            assert!(
                said.contains("and TIME_WAIT is dropped before it takes them all"),
                "{said}"
            );
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 3000), (3000, None));
            let verdict = json(&["verdict", "--json"]);
            assert_eq!(verdict["findings"][0]["code"], "TW_BUCKET_OVERFLOW");
            assert_eq!(
                verdict["capacity"]["max_connections_per_second"],
                json!(null)
            );
            assert_eq!(verdict["time_wait"]["limit"], 300);
            assert!(
                verdict["time_wait"]["overflows"].as_u64().unwrap() >= 2000,
                "{verdict}"
            );
        },
    );
}

#[test]
fn reuse_is_judged_per_flow() {
    in_namespace("reuse_is_judged_per_flow", || {
        port_range(40000, 40999);
        sysctl("net.ipv4.tcp_tw_reuse", "2");
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let (loopback, other) = (serve("127.0.0.1:3306"), serve("192.0.2.1:3306"));
        for server in [loopback, other] {
            assert_eq!(connect_until_error(server, 900), (900, None));
        }
        // Older than the reuse delay: free again toward loopback, taken toward the other.
        thread::sleep(Duration::from_millis(1200));
        let verdict = json(&["verdict", "--json"]);
        let flow = |index: usize, key: &str| verdict["flows"][index][key].clone();
        assert_eq!(
            (
                flow(0, "destination"),
                flow(0, "reuse_applies"),
                flow(0, "ports_free")
            ),
            (json!("192.0.2.1"), json!(false), json!(100))
        );
        assert_eq!(
            (
                flow(1, "destination"),
                flow(1, "reuse_applies"),
                flow(1, "ports_free")
            ),
            (json!("127.0.0.1"), json!(true), json!(1000))
        );
        assert_eq!(connect_until_error(other, 200), (100, Some(99)));
        assert_eq!(connect_until_error(loopback, 200), (200, None));
    });
}

#[test]
fn connect_slows_down_when_the_fast_ports_are_spent() {
    in_namespace("connect_slows_down_when_the_fast_ports_are_spent", || {
        port_range(40000, 40999);
        let server = serve("127.0.0.1:3306");
        let slow = || {
            let verdict = json(&["verdict", "--json"]);
            let findings = verdict["findings"].as_array().unwrap().clone();
            findings
                .iter()
                .any(|finding| finding["code"] == "CONNECT_SLOW")
        };
        assert_eq!(connect_until_error(server, 490), (490, None));
        assert!(!slow());
        assert_eq!(connect_until_error(server, 20), (20, None));
        assert!(slow());
    });
}

/// A settled table with most states in it, counted by what people type today.
#[test]
fn states_are_what_netstat_and_awk_count() {
    in_namespace("states_are_what_netstat_and_awk_count", || {
        port_range(40000, 41999);
        run("ip", &["route", "add", "198.51.100.0/24", "dev", "lo"]);
        let (v4, v6) = (serve("127.0.0.1:3306"), serve("[::1]:3307"));
        for server in [v4, v6] {
            assert_eq!(connect_until_error(server, 300), (300, None));
        }
        let open: Vec<_> = (0..7).map(|_| TcpStream::connect(v4).unwrap()).collect();
        // CLOSE_WAIT here, FIN_WAIT2 there.
        let leak = TcpListener::bind("127.0.0.1:3308").unwrap();
        let client = TcpStream::connect(leak.local_addr().unwrap()).unwrap();
        let (leaked, _) = leak.accept().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // SYN_SENT: nobody answers on lo for a foreign address.
        let nobody: SocketAddr = "198.51.100.1:3306".parse().unwrap();
        let unanswered =
            thread::spawn(move || TcpStream::connect_timeout(&nobody, Duration::from_secs(20)));
        thread::sleep(Duration::from_millis(300));

        let sorted = |text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let awk = "awk '/^tcp/ {++S[$NF]} END {for(a in S) print a, S[a]}'";
        for (netstat, all) in [("netstat -n", None), ("netstat -an", Some("--all"))] {
            let theirs = run("sh", &["-c", &format!("{netstat} | {awk}")]);
            let theirs = sorted(stdout(&theirs));
            for source in ["sock_diag", "proc"] {
                let mut arguments = vec!["states", "--format", "plain", "--source", source];
                arguments.extend(all);
                let ours = stdout(&twcheck(&arguments));
                assert_eq!(sorted(ours), theirs, "{netstat} against --source {source}");
            }
            let states: Vec<_> = theirs
                .iter()
                .filter_map(|line| line.split(' ').next())
                .collect();
            for state in [
                "CLOSE_WAIT",
                "ESTABLISHED",
                "FIN_WAIT2",
                "SYN_SENT",
                "TIME_WAIT",
            ] {
                assert!(states.contains(&state), "{state} is missing in {states:?}");
            }
        }
        drop((open, leaked, client, unanswered));
    });
}

#[test]
fn listeners_are_counted_only_when_asked_for() {
    in_namespace("listeners_are_counted_only_when_asked_for", || {
        let _server = serve("127.0.0.1:3306");
        assert_eq!(json(&["states", "--json"])["states"], json!({}));
        assert_eq!(
            json(&["states", "--json", "--all"])["states"],
            json!({"LISTEN": 1})
        );
    });
}

#[test]
fn the_thresholds_hold_on_both_sides() {
    in_namespace("the_thresholds_hold_on_both_sides", || {
        port_range(40000, 40999);
        let server = serve("127.0.0.1:3306");
        for (more, code, level) in [
            (499, "CONNECT_SLOW", "warning"),
            (1, "PORTS_LOW", "warning"),
            (299, "PORTS_LOW", "warning"),
            (1, "PORTS_LOW", "critical"),
            (199, "PORTS_LOW", "critical"),
            (1, "PORTS_EXHAUSTED", "critical"),
        ] {
            for _ in 0..more {
                connect_and_close(server).unwrap();
            }
            let findings = json(&["verdict", "--json"])["findings"].clone();
            let found = findings
                .as_array()
                .unwrap()
                .iter()
                .find(|found| found["code"] == code);
            let found = found.unwrap_or_else(|| panic!("{more} more: {findings}"));
            assert_eq!(found["level"], json!(level), "{more} more");
            let low = findings
                .as_array()
                .unwrap()
                .iter()
                .any(|found| found["code"] == "PORTS_LOW");
            assert_eq!(low, code == "PORTS_LOW", "{more} more: {findings}");
        }
    });
}

/// A listener that is gone leaves its TIME_WAIT rows; they still cost no port.
#[test]
fn time_wait_of_a_server_that_stopped_stays_inbound() {
    in_namespace("time_wait_of_a_server_that_stopped_stays_inbound", || {
        port_range(40000, 40999);
        let listener = TcpListener::bind("127.0.0.1:3306").unwrap();
        for _ in 0..50 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap(), 0);
        }
        drop(listener);
        thread::sleep(Duration::from_millis(100));
        for source in ["sock_diag", "proc"] {
            for command in ["states", "verdict"] {
                let split = json(&[command, "--json", "--source", source])["time_wait"].clone();
                let sides = (&split["outbound"], &split["inbound"]);
                assert_eq!(sides, (&json!(0), &json!(50)), "{command} {source}");
            }
        }
    });
}

#[test]
fn a_range_with_no_usable_port_is_exhausted_before_the_first_connection() {
    in_namespace(
        "a_range_with_no_usable_port_is_exhausted_before_the_first_connection",
        || {
            port_range(40000, 40003);
            sysctl("net.ipv4.ip_local_reserved_ports", "40000-40001");
            let _held = [40002, 40003].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 10), (0, Some(99)));
            let verdict = json(&["verdict", "--json"]);
            assert_eq!(findings(&verdict), EXHAUSTED);
            let message = verdict["findings"][0]["message"].as_str().unwrap();
            assert!(
                message
                    .contains("of the 4 ports in the ephemeral range 2 are reserved and 2 bound"),
                "{message}"
            );
        },
    );
}

/// Connections that were there before their ports were reserved take nothing away from the rest.
#[test]
fn ports_reserved_while_in_use_are_not_counted_twice() {
    in_namespace("ports_reserved_while_in_use_are_not_counted_twice", || {
        port_range(40000, 40049);
        let server = serve("127.0.0.1:3306");
        let _held: Vec<_> = (0..30)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        sysctl("net.ipv4.ip_local_reserved_ports", "40000-40024");
        let free = json(&["verdict", "--json"])["flows"][0]["ports_free"]
            .as_u64()
            .unwrap();
        let (made, errno) = connect_until_error(server, 100);
        assert_eq!((u64::from(made), errno), (free, Some(99)));
    });
}

/// What `advise --format sysctl` prints is accepted as it is, and leaves nothing more to advise.
#[test]
fn the_advice_applies_as_it_is_and_is_enough() {
    in_namespace("the_advice_applies_as_it_is_and_is_enough", || {
        sysctl("net.ipv4.tcp_timestamps", "0");
        sysctl("net.ipv4.tcp_max_tw_buckets", "30000");
        sysctl("net.ipv4.ip_local_reserved_ports", "12345");
        let _service = TcpListener::bind("127.0.0.1:11211").unwrap();
        let advice = json(&["advise", "--json"]);
        let changes: Vec<_> = advice["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| {
                (
                    change["sysctl"].as_str().unwrap(),
                    change["recommended"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            changes,
            [
                ("net.ipv4.tcp_timestamps", "1"),
                ("net.ipv4.tcp_tw_reuse", "1"),
                ("net.ipv4.tcp_max_tw_buckets", "131072"),
                ("net.ipv4.ip_local_reserved_ports", "11211,12345"),
                ("net.ipv4.ip_local_port_range", "10240 65535"),
            ]
        );
        let file = std::env::temp_dir().join(format!("twcheck-{}.conf", std::process::id()));
        std::fs::write(&file, twcheck(&["advise", "--format", "sysctl"]).stdout).unwrap();
        run("sysctl", &["-p", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        let advice = json(&["advise", "--json"]);
        assert_eq!(advice["changes"], json!([]));
        assert!(
            advice["summary"]
                .as_str()
                .unwrap()
                .starts_with("This machine needs no change"),
            "{advice}"
        );
        // And it is so: a listener inside the range, and reuse at work away from loopback.
        sysctl("net.ipv4.ip_local_port_range", "40000 40199");
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let server = serve("192.0.2.1:3306");
        assert_eq!(connect_until_error(server, 300), (200, Some(99)));
        thread::sleep(Duration::from_millis(1200));
        assert_eq!(connect_until_error(server, 100), (100, None));
    });
}

/// An ordinary user sees the same.
#[test]
fn no_command_needs_root() {
    in_namespace("no_command_needs_root", || {
        port_range(40000, 40099);
        assert_eq!(
            connect_until_error(serve("127.0.0.1:3306"), 200),
            (100, Some(99))
        );
        // All capabilities dropped: what is left of root owns no more than anybody.
        let powerless = |command: &str| {
            let output = Command::new("setpriv")
                .args([
                    "--bounding-set=-all",
                    "--inh-caps=-all",
                    "--no-new-privs",
                    "--",
                ])
                .args([env!("CARGO_BIN_EXE_twcheck"), command, "--json"])
                .output()
                .unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            (exit(&output), report)
        };
        let (status, verdict) = powerless("verdict");
        let gaps = verdict["gaps"].as_array().unwrap();
        if linux() < (6, 8) && !grants_single_ports() {
            let [gap] = gaps.as_slice() else {
                panic!("{verdict}");
            };
            let why = "this kernel does not show them; Linux does from 6.8 on";
            assert_eq!(gap["why"], why);
        } else {
            assert_eq!(gaps, &[] as &[Value]);
        }
        assert_eq!(status, 2);
        assert_eq!(verdict["flows"][0]["ports_free"], 0);
        let (status, counted) = powerless("states");
        assert_eq!(
            (status, &counted["states"]),
            (0, &json!({"TIME_WAIT": 100}))
        );
        let (status, advice) = powerless("advise");
        assert_eq!(
            (status, advice["changes"].as_array().unwrap().len()),
            (0, 2)
        );
    });
}

/// Before Linux 6.8 bound ports are not shown, and one that is bound tells: an ordinary user has none
/// for that where the range takes all that are not reserved for root.
#[test]
fn why_bound_ports_are_not_known_is_the_one_reason_that_holds() {
    in_namespace(
        "why_bound_ports_are_not_known_is_the_one_reason_that_holds",
        || {
            sysctl("net.ipv4.ip_local_port_range", "1024 65535");
            // In no table, so that it may hold a port.
            let _unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let powerless = |arguments: &str| {
                let line = format!(
                    "setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- {} {arguments}",
                    env!("CARGO_BIN_EXE_twcheck")
                );
                let output = Command::new("sh").args(["-c", &line]).output().unwrap();
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                let gaps = report["gaps"].as_array().unwrap().iter();
                let mut whys = gaps
                    .filter(|gap| gap["what"] == "ports bound but neither listening nor connected")
                    .map(|gap| gap["why"].as_str().unwrap().to_owned());
                whys.next().unwrap_or_default()
            };
            let without_trial = "this kernel shows none, which before Linux 6.8 means nothing, and no \
                                 port outside the range could be bound to find that out with";
            assert_eq!(powerless("verdict --json"), without_trial);
            sysctl("net.ipv4.ip_unprivileged_port_start", "1000");
            let with_trial = if linux() >= (6, 8) {
                ""
            } else {
                "this kernel does not show them; Linux does from 6.8 on"
            };
            assert_eq!(powerless("verdict --json"), with_trial);
            let by_proc = "/proc/net/tcp does not show them; sock_diag does, from Linux 6.8";
            assert_eq!(powerless("verdict --json --source proc"), by_proc);
        },
    );
}

#[test]
fn a_large_table_is_counted_exactly_by_either_source() {
    in_namespace("a_large_table_is_counted_exactly_by_either_source", || {
        const EACH: u32 = 5500;
        port_range(20000, 60999);
        let inside = TcpListener::bind("127.0.0.9:30000").unwrap();
        for server in ["127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80", "[::1]:80"] {
            assert_eq!(connect_until_error(serve(server), EACH), (EACH, None));
        }
        // Accepted here: by a listener inside the range, and by one that is gone.
        let gone = TcpListener::bind("127.0.0.9:443").unwrap();
        for (listener, connections) in [(&inside, 40), (&gone, 30)] {
            for _ in 0..connections {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                drop(listener.accept().unwrap());
                thread::sleep(Duration::from_millis(1));
                drop(client);
            }
        }
        drop(gone);
        // Open, and a client that is gone though its server has not noticed.
        let open = TcpStream::connect("127.0.0.9:30000").unwrap();
        let left = TcpStream::connect("127.0.0.9:30000").unwrap();
        let _unaware = inside.accept().unwrap();
        drop(left);
        thread::sleep(Duration::from_millis(50));

        let look = |source| {
            let mut report = json(&["states", "--json", "--all", "--source", source]);
            report.as_object_mut().unwrap().remove("source");
            report
        };
        let said = look("sock_diag");
        assert_eq!(said, look("proc"));
        let split = json!({"total": 4 * EACH + 70, "outbound": 4 * EACH, "inbound": 70});
        assert_eq!(said["states"]["TIME_WAIT"], 4 * EACH + 70);
        for part in ["total", "outbound", "inbound"] {
            assert_eq!(said["time_wait"][part], split[part], "{said}");
        }
        assert_eq!(said["states"]["FIN_WAIT2"], 1, "{said}");
        drop(open);
    });
}

#[test]
fn a_servers_orphans_are_not_taken_for_time_wait() {
    in_namespace("a_servers_orphans_are_not_taken_for_time_wait", || {
        port_range(40000, 40999);
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let clients: Vec<_> = (0..200)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                drop(listener.accept().unwrap());
                client
            })
            .collect();
        for source in ["sock_diag", "proc"] {
            let verdict = json(&["verdict", "--json", "--source", source]);
            assert_eq!(verdict["time_wait"]["total"], 0, "{source}: {verdict}");
            let gaps = verdict["gaps"].to_string();
            assert!(!gaps.contains("changed while"), "{source}: {gaps}");
            let states = json(&["states", "--json", "--source", source]);
            assert_eq!(
                states["states"],
                json!({"FIN_WAIT2": 200, "CLOSE_WAIT": 200})
            );
        }
        drop(clients);
    });
}
