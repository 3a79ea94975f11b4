//! Situations that are easily judged wrongly, each brought about on the real kernel.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::network::{self, Host};
use common::{
    assert_valid, connect_and_close, connect_until_error, grants_single_ports, in_namespace, json,
    linux, port_range, run, serve, sysctl,
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

fn verdict() -> Value {
    json(&["verdict", "--json"])
}

fn codes(verdict: &Value) -> Vec<(String, String)> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    findings
        .map(|finding| (word(&finding["code"]), word(&finding["level"])))
        .collect()
}

fn found(verdict: &Value, code: &str) -> Option<String> {
    let codes = codes(verdict);
    let found = codes.into_iter().find(|(found, _)| found == code);
    found.map(|(_, level)| level)
}

fn message(verdict: &Value, code: &str) -> String {
    let findings = verdict["findings"].as_array().unwrap().iter();
    let mut found = findings.filter(|finding| finding["code"] == code);
    let finding = found.next().unwrap_or_else(|| panic!("{code}: {verdict}"));
    finding["message"].as_str().unwrap().to_owned()
}

#[test]
fn be_a_server() {
    network::be_a_server();
}

/// Connects to `server` from 127.0.0.9, whose port bind() chooses, or connect() with `no_port`.
fn bound_to_source(server: SocketAddr, no_port: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if no_port {
        let option = nix::sys::socket::sockopt::IpBindAddressNoPort;
        nix::sys::socket::setsockopt(&socket, option, &true)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket)
}

fn bound_servers() -> [SocketAddr; 4] {
    [1, 2, 3, 4].map(|last| serve(&format!("127.0.0.{last}:3306")))
}

#[test]
fn ports_that_bind_hands_out_are_one_pool_over_all_destinations() {
    in_namespace(
        "ports_that_bind_hands_out_are_one_pool_over_all_destinations",
        || {
            port_range(40000, 40999);
            let mut held = Vec::new();
            for server in bound_servers() {
                held.extend((0..150).map(|_| bound_to_source(server, false).unwrap()));
            }
            let said = verdict();
            assert_eq!(codes(&said), [("SOURCE_BOUND".into(), "warning".into())]);
            let left = "A bind() that names 127.0.0.9 and no port has 400 left, until errno 98.";
            let message = message(&said, "SOURCE_BOUND");
            assert!(message.contains(left), "{message}");
            // connect() skips ports that bind() handed out, toward whatever destination.
            assert_eq!(said["capacity"]["usable_ports"], 400);
            assert_eq!(
                connect_until_error(serve("127.0.0.5:3306"), 500),
                (400, Some(99))
            );
            // From another address bind() has them all; from this one as many as were left.
            let server = "127.0.0.1:3306".parse().unwrap();
            let errno = loop {
                match bound_to_source(server, false) {
                    Ok(socket) => held.push(socket),
                    Err(error) => break error.raw_os_error(),
                }
            };
            assert_eq!((held.len(), errno), (1000, Some(98)));
            let said = verdict();
            assert_eq!(codes(&said), [("SOURCE_BOUND".into(), "critical".into())]);
            let advice = json(&["advise", "--json"]);
            let summary = advice["summary"].as_str().unwrap();
            assert!(
                summary.contains("First set IP_BIND_ADDRESS_NO_PORT"),
                "{summary}"
            );
            // The one change that is recommended does help bind().
            let changes = advice["changes"].as_array().unwrap();
            assert_eq!(changes.len(), 1, "{advice}");
            let (name, value) = (&changes[0]["sysctl"], &changes[0]["recommended"]);
            assert_eq!(name, "net.ipv4.ip_local_port_range");
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            assert!(bound_to_source(server, false).is_err());
            sysctl(name.as_str().unwrap(), value.as_str().unwrap());
            bound_to_source(server, false).unwrap();
        },
    );
}

#[test]
fn ports_that_connect_hands_out_are_not_taken_for_such_a_pool() {
    in_namespace(
        "ports_that_connect_hands_out_are_not_taken_for_such_a_pool",
        || {
            port_range(40000, 40999);
            let mut held = Vec::new();
            for server in bound_servers() {
                held.extend((0..450).map(|_| bound_to_source(server, true).unwrap()));
                assert_eq!(connect_until_error(server, 450), (450, None));
            }
            assert_eq!(found(&verdict(), "SOURCE_BOUND"), None);
            // Past the fast ports, and from there back to the others alone.
            let server = "127.0.0.1:3306".parse().unwrap();
            held.extend((0..500).map(|_| bound_to_source(server, true).unwrap()));
            assert_eq!(found(&verdict(), "SOURCE_BOUND"), None);
        },
    );
}

#[test]
fn a_pool_of_bind_is_seen_beside_flows_of_connect_from_the_same_source() {
    in_namespace(
        "a_pool_of_bind_is_seen_beside_flows_of_connect_from_the_same_source",
        || {
            port_range(40000, 40999);
            let servers = bound_servers();
            let mut held = Vec::new();
            for _ in 0..200 {
                for (server, no_port) in servers.into_iter().zip([false, false, true, true]) {
                    held.push(bound_to_source(server, no_port).unwrap());
                }
            }
            let said = verdict();
            assert_eq!(
                found(&said, "SOURCE_BOUND"),
                Some("warning".into()),
                "{said}"
            );
            // The 400 that bind() gave are nobody else's.
            let usable = said["capacity"]["usable_ports"].as_u64().unwrap();
            let made = connect_until_error(serve("127.0.0.5:3306"), 1100);
            assert_eq!((u64::from(made.0), made.1), (usable, Some(99)));
        },
    );
}

#[test]
fn sockets_bound_to_an_interface_have_ports_of_their_own() {
    in_namespace(
        "sockets_bound_to_an_interface_have_ports_of_their_own",
        || {
            port_range(40000, 40099);
            let server = serve("127.0.0.1:3306");
            let connect = |on_lo: bool| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                if on_lo {
                    socket.bind_device(Some(b"lo")).unwrap();
                }
                socket.connect(&server.into()).map(|()| socket)
            };
            let until_error = |on_lo| {
                let mut held = Vec::new();
                loop {
                    match connect(on_lo) {
                        Ok(socket) => held.push(socket),
                        Err(error) => break (held, error.raw_os_error()),
                    }
                }
            };
            let free = |interface: Value| {
                let verdict = verdict();
                let flows = verdict["flows"].as_array().unwrap().iter();
                let mut flow = flows.filter(|flow| flow["interface"] == interface);
                flow.next().map(|flow| flow["ports_free"].clone())
            };
            // 30 that are bound to none take their ports from those that are, not the other way round.
            let _unbound: Vec<_> = (0..30).map(|_| connect(false).unwrap()).collect();
            let _bound: Vec<_> = (0..20).map(|_| connect(true).unwrap()).collect();
            assert_eq!(
                (free(json!("lo")), free(json!(null))),
                (Some(json!(50)), Some(json!(70)))
            );
            let (on_lo, errno) = until_error(true);
            assert_eq!((on_lo.len(), errno), (50, Some(99)));
            assert_eq!(
                (free(json!("lo")), free(json!(null))),
                (Some(json!(0)), Some(json!(70)))
            );
            let (others, errno) = until_error(false);
            assert_eq!((others.len(), errno), (70, Some(99)));
            assert_eq!(
                (free(json!("lo")), free(json!(null))),
                (Some(json!(0)), Some(json!(0)))
            );
            // /proc does not tell them apart, and says so.
            let verdict = json(&["verdict", "--json", "--source", "proc"]);
            let gaps = verdict["gaps"].to_string();
            assert!(
                gaps.contains("interfaces that sockets are bound to"),
                "{gaps}"
            );
        },
    );
}

/// Two hosts; the other has TCP timestamps, or has none.
fn across_a_cable(timestamps: bool) -> (Host, SocketAddr) {
    sysctl("net.ipv4.ip_local_port_range", "40000 40199");
    sysctl("net.ipv4.tcp_tw_reuse", "1");
    let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
    if !timestamps {
        host.run(&["sysctl", "-qw", "net.ipv4.tcp_timestamps=0"]);
    }
    let server = host.serve("10.9.0.2:3306");
    (host, server)
}

fn reuse(verdict: &Value) -> &Value {
    &verdict["flows"][0]["reuse"]
}

#[test]
fn reuse_that_the_other_end_does_not_know_is_not_counted_on() {
    in_namespace(
        "reuse_that_the_other_end_does_not_know_is_not_counted_on",
        || {
            let (_host, server) = across_a_cable(false);
            for _ in 0..4 {
                assert_eq!(connect_until_error(server, 45), (45, None));
                thread::sleep(Duration::from_millis(700));
            }
            let said = verdict();
            assert_eq!(said["flows"][0]["ports_free"], 20);
            // The kernel refuses old ones, where it can be asked for just these.
            let level = if grants_single_ports() {
                "critical"
            } else {
                "warning"
            };
            assert_eq!(said["level"], level);
            assert_eq!(connect_until_error(server, 100), (20, Some(99)));
            thread::sleep(Duration::from_millis(1200));
            // Fast ports of three seconds ago were passed over for others.
            let said = verdict();
            assert_eq!(reuse(&said), "refuted", "{said}");
            assert_eq!(found(&said, "PORTS_EXHAUSTED"), Some("critical".into()));
        },
    );
}

/// A connection that is open while `verdict` looks tells what the settings here do not.
fn a_live_connection_tells(timestamps: bool, told: &str, level: &str) {
    let (_host, server) = across_a_cable(timestamps);
    assert_eq!(connect_until_error(server, 99), (99, None));
    // On a busy machine they may be old enough to be tried by now.
    let at_first = verdict();
    assert!(
        [&json!("allowed"), &json!(told)].contains(&reuse(&at_first)),
        "{at_first}"
    );
    let _live = TcpStream::connect(server).unwrap();
    // Older than the reuse delay.
    thread::sleep(Duration::from_millis(1200));
    let said = verdict();
    assert_eq!(
        (reuse(&said), &said["level"]),
        (&json!(told), &json!(level)),
        "{said}"
    );
    // 100 of the 200 ports are taken, 99 of them for as long as TIME_WAIT lasts or is not reused.
    let made = if timestamps {
        (150, None)
    } else {
        (100, Some(99))
    };
    assert_eq!(connect_until_error(server, 150), made);
}

#[test]
fn a_live_connection_tells_that_the_other_end_has_timestamps() {
    in_namespace(
        "a_live_connection_tells_that_the_other_end_has_timestamps",
        || {
            a_live_connection_tells(true, "seen", "ok");
        },
    );
}

#[test]
fn a_live_connection_tells_that_the_other_end_has_none() {
    in_namespace(
        "a_live_connection_tells_that_the_other_end_has_none",
        || {
            a_live_connection_tells(false, "refuted", "warning");
        },
    );
}

#[test]
fn reuse_that_has_just_been_allowed_is_not_refuted_by_what_was_before() {
    in_namespace(
        "reuse_that_has_just_been_allowed_is_not_refuted_by_what_was_before",
        || {
            let (_host, server) = across_a_cable(true);
            sysctl("net.ipv4.tcp_tw_reuse", "0");
            for _ in 0..3 {
                assert_eq!(connect_until_error(server, 50), (50, None));
                thread::sleep(Duration::from_millis(1200));
            }
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            thread::sleep(Duration::from_secs(2));
            assert_eq!(connect_until_error(server, 30), (30, None));
            let said = verdict();
            assert_ne!(reuse(&said), "refuted", "{said}");
            assert_ne!(said["level"], "critical", "{said}");
            assert_eq!(connect_until_error(server, 100), (100, None));
        },
    );
}

#[test]
fn reuse_that_works_is_seen_in_what_the_kernel_counts() {
    in_namespace("reuse_that_works_is_seen_in_what_the_kernel_counts", || {
        let (_host, server) = across_a_cable(true);
        let client = thread::spawn(move || {
            for _ in 0..150 {
                connect_and_close(server).unwrap();
                thread::sleep(Duration::from_millis(25));
            }
        });
        thread::sleep(Duration::from_secs(3));
        let said = verdict();
        assert_eq!(reuse(&said), "seen", "{said}");
        assert_eq!(said["level"], "ok");
        client.join().unwrap();
    });
}

#[test]
fn a_pool_whose_server_has_died_is_no_busy_moment() {
    in_namespace("a_pool_whose_server_has_died_is_no_busy_moment", || {
        let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
        let server = host.serve("10.9.0.2:3306");
        let _pool: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        // It is there, and answers no more.
        host.run(&["ip", "link", "set", "cableb", "down"]);
        host.run(&["ip", "link", "set", "cableb", "up"]);
        host.run(&["ip", "address", "del", "10.9.0.2/24", "dev", "cableb"]);
        run(
            "ip",
            &[
                "neighbour",
                "replace",
                "10.9.0.2",
                "lladdr",
                "02:00:00:00:00:01",
                "dev",
                "cable",
            ],
        );
        let _waiting: Vec<_> = (0..20)
            .map(|_| {
                thread::spawn(move || TcpStream::connect_timeout(&server, Duration::from_secs(9)))
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(codes(&verdict()), [], "it may still answer");
        thread::sleep(Duration::from_millis(1500));
        for source in ["sock_diag", "proc"] {
            let said = json(&["verdict", "--json", "--source", source]);
            assert_eq!(
                found(&said, "SYN_SENT_PILE"),
                Some("warning".into()),
                "{said}"
            );
            // Whether the server is up is not known from here.
            let message = message(&said, "SYN_SENT_PILE");
            assert!(
                message.contains("20 attempts") && message.contains("beside 100 open ones"),
                "{message}"
            );
        }
    });
}

#[test]
fn no_setting_is_recommended_where_nobody_answers() {
    in_namespace("no_setting_is_recommended_where_nobody_answers", || {
        port_range(40000, 40039);
        run(
            "ip",
            &["link", "add", "v0", "type", "veth", "peer", "name", "v1"],
        );
        run("ip", &["address", "add", "10.9.0.1/24", "dev", "v0"]);
        for end in ["v0", "v1"] {
            run("ip", &["link", "set", end, "up"]);
        }
        let mac = ["lladdr", "02:00:00:00:00:01", "dev", "v0"];
        run(
            "ip",
            &[&["neighbour", "replace", "10.9.0.2"], &mac[..]].concat(),
        );
        let server: SocketAddr = "10.9.0.2:3306".parse().unwrap();
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&server.into());
                socket
            })
            .collect();
        let said = verdict();
        assert_eq!(found(&said, "SYN_SENT_PILE"), Some("critical".into()));
        let advice = json(&["advise", "--json"]);
        assert_eq!(advice["changes"], json!([]), "{advice}");
        let summary = advice["summary"].as_str().unwrap();
        assert!(summary.contains("40 attempts"), "{summary}");
        assert!(summary.contains("no setting here helps"), "{summary}");
        // A wider range lets more attempts wait, and none be answered.
        port_range(40000, 41039);
        let one = TcpStream::connect_timeout(&server, Duration::from_millis(300)).unwrap_err();
        assert_eq!(one.kind(), std::io::ErrorKind::TimedOut);
        drop(waiting);
    });
}

#[test]
fn a_service_that_does_not_close_is_named() {
    in_namespace("a_service_that_does_not_close_is_named", || {
        port_range(40000, 40999);
        let service = TcpListener::bind("127.0.0.1:443").unwrap();
        let leaked: Vec<_> = (0..120)
            .map(|_| {
                let client = TcpStream::connect(service.local_addr().unwrap()).unwrap();
                let (accepted, _) = service.accept().unwrap();
                drop(client);
                accepted
            })
            .collect();
        for source in ["sock_diag", "proc"] {
            let said = json(&["verdict", "--json", "--source", source]);
            assert_eq!(codes(&said), [("CLOSE_WAIT_LEAK".into(), "warning".into())]);
            let message = message(&said, "CLOSE_WAIT_LEAK");
            assert!(
                message.contains("120 connections on its port 443"),
                "{message}"
            );
            let step = said["findings"][0]["next_step"].as_str().unwrap();
            let pid = format!("(pid {}, ", std::process::id());
            assert!(step.contains(&pid), "{step}");
        }
        drop(leaked);
    });
}

/// What stands between backticks in a next step is a command as it is to be typed.
#[test]
fn the_command_of_a_next_step_runs_as_it_is() {
    in_namespace("the_command_of_a_next_step_runs_as_it_is", || {
        port_range(40000, 40099);
        for address in ["127.0.0.1:3306", "[::1]:3306"] {
            let server = TcpListener::bind(address).unwrap();
            let opened = || {
                let client = TcpStream::connect(address).unwrap();
                (client, server.accept().unwrap().0)
            };
            for (code, leaks) in [("HELD_OPEN", false), ("CLOSE_WAIT_LEAK", true)] {
                let (clients, accepted): (Vec<_>, Vec<_>) = (0..60).map(|_| opened()).unzip();
                if leaks {
                    drop(accepted);
                }
                let said = verdict();
                let mut findings = said["findings"].as_array().unwrap().iter();
                let finding = findings.find(|finding| finding["code"] == code);
                let step = finding.unwrap_or_else(|| panic!("{said}"))["next_step"].as_str();
                let command = step.unwrap().split('`').nth(1).unwrap();
                let rows = common::stdout(&run("sh", &["-c", command]));
                let pid = format!("pid={},", std::process::id());
                let ours = rows.lines().filter(|row| row.contains(&pid)).count();
                assert_eq!(ours, 60, "{command}: {rows}");
                drop(clients);
                thread::sleep(Duration::from_millis(100));
                // What is left in TIME_WAIT or FIN_WAIT2 is of no other round.
                sysctl("net.ipv4.tcp_max_tw_buckets", "0");
                sysctl(
                    "net.ipv4.ip_local_port_range",
                    if leaks { "40000 40099" } else { "41000 41099" },
                );
            }
        }
    });
}

#[test]
fn other_namespaces_with_sockets_are_pointed_out() {
    in_namespace("other_namespaces_with_sockets_are_pointed_out", || {
        // One that keeps a program from the network is none.
        let _idle = Host::new("idle", "10.8.0.1/24", "10.8.0.2/24");
        assert_eq!(verdict()["other_namespaces"], json!(null));
        let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
        host.serve("10.9.0.2:3306");
        let said = verdict();
        assert_valid("verdict", &said);
        assert_eq!(said["other_namespaces"]["number"], 1);
        assert_eq!(said["level"], "ok");
        let shown = common::stdout(&common::twcheck(&["verdict"]));
        let command = shown.split('`').find(|text| text.contains("--pid"));
        let words: Vec<_> = command.expect("a command").split(' ').collect();
        let ["twcheck", "verdict", "--pid", pid] = words.as_slice() else {
            panic!("{words:?}");
        };
        let inside = run("nsenter", &["-t", pid, "-n", "ss", "-tlnH"]);
        assert!(common::stdout(&inside).contains("10.9.0.2:3306"));
    });
}

/// /proc/net/tcp shows no port that is only bound: the kernel tells them where it is asked, and where
/// it cannot be they are unknown if few may be left.
#[test]
fn bound_ports_that_are_not_shown_are_unknown_where_they_matter() {
    in_namespace(
        "bound_ports_that_are_not_shown_are_unknown_where_they_matter",
        || {
            port_range(40000, 40099);
            let server = serve("127.0.0.1:3306");
            let mut bound = Vec::new();
            let mut bind = |more: usize| {
                let one = |port| {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    socket.bind(&address.into()).is_ok().then_some(socket)
                };
                let wanted = bound.len() + more;
                bound.extend((40000..40100).filter_map(one).take(more));
                assert_eq!(bound.len(), wanted);
            };
            let by_proc = || json(&["verdict", "--json", "--source", "proc"]);
            let levels = || {
                sysctl("net.ipv4.tcp_fastopen", "1");
                let asked = [verdict(), by_proc()];
                sysctl("net.ipv4.tcp_fastopen", "0");
                let unasked = by_proc();
                let [table, trial] = asked.map(|said| said["level"].clone());
                [table, trial, unasked["level"].clone()]
            };
            let mut held: Vec<_> = (0..20)
                .map(|_| TcpStream::connect(server).unwrap())
                .collect();
            bind(20);
            // 20 of 80.
            assert_eq!(levels(), ["ok", "ok", "ok"]);
            bind(45);
            // 20 of 35.
            let by_trial = if grants_single_ports() {
                "warning"
            } else {
                "unknown"
            };
            let by_table = if linux() >= (6, 8) {
                "warning"
            } else {
                by_trial
            };
            assert_eq!(levels(), [by_table, by_trial, "unknown"]);
            let said = by_proc()["summary"].as_str().unwrap().to_owned();
            assert!(said.contains("takes 20 of 100"), "{said}");
            held.extend((0..15).map(|_| TcpStream::connect(server).unwrap()));
            assert!(TcpStream::connect(server).is_err());
            assert_eq!(levels(), ["critical", "critical", "unknown"]);
        },
    );
}

#[test]
fn a_client_with_a_range_of_its_own_is_pointed_out() {
    in_namespace("a_client_with_a_range_of_its_own_is_pointed_out", || {
        port_range(40000, 40999);
        let server = serve("127.0.0.1:3306");
        // As connect() does with IP_LOCAL_PORT_RANGE, and programs that choose their ports in turn.
        let _held: Vec<_> = (40100..40200)
            .map(|port| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket
                    .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
                    .unwrap();
                socket.connect(&server.into()).unwrap();
                socket
            })
            .collect();
        let said = verdict();
        assert_eq!(found(&said, "OWN_PORT_RANGE"), Some("ok".into()), "{said}");
        let message = message(&said, "OWN_PORT_RANGE");
        assert!(message.contains("from 40100 to 40199"), "{message}");
    });
}

#[test]
fn many_open_connections_make_each_connect_search_too() {
    in_namespace("many_open_connections_make_each_connect_search_too", || {
        port_range(40000, 40999);
        let server = serve("127.0.0.1:1883");
        let mut held: Vec<_> = (0..490)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        assert_eq!(found(&verdict(), "CONNECT_SLOW"), None);
        held.extend((0..20).map(|_| TcpStream::connect(server).unwrap()));
        assert_eq!(found(&verdict(), "CONNECT_SLOW"), Some("warning".into()));
    });
}

#[test]
fn where_everything_is_reserved_that_is_the_headline() {
    in_namespace("where_everything_is_reserved_that_is_the_headline", || {
        port_range(40000, 40009);
        let server = serve("127.0.0.1:3306");
        assert_eq!(connect_until_error(server, 8), (8, None));
        sysctl("net.ipv4.ip_local_reserved_ports", "40000-40009");
        let said = verdict();
        let summary = said["summary"].as_str().unwrap();
        assert!(
            summary.starts_with("No connection can be opened to anywhere"),
            "{summary}"
        );
        assert_eq!(connect_until_error(server, 8), (0, Some(99)));
    });
}

#[test]
fn translated_ports_that_run_out_are_a_failure_of_connection_tracking() {
    in_namespace(
        "translated_ports_that_run_out_are_a_failure_of_connection_tracking",
        || {
            let clients = Host::new("in", "10.1.0.1/24", "10.1.0.2/24");
            clients.run(&["ip", "route", "add", "default", "via", "10.1.0.1"]);
            let mut outside = Host::new("out", "10.2.0.1/24", "10.2.0.2/24");
            outside.serve("10.2.0.2:3306");
            sysctl("net.ipv4.ip_forward", "1");
            run(
                "nft",
                &[
                    "add table ip t; add chain ip t post { type nat hook postrouting priority srcnat; }; \
                   add rule ip t post oifname out ip protocol tcp masquerade to :50000-50009",
                ],
            );
            assert_eq!(found(&verdict(), "NAT_FAILED"), None);
            // 10 ports, 15 connections.
            let connect = "for i in $(seq 15); do (timeout 6 bash -c 'exec 3<>/dev/tcp/10.2.0.2/3306; sleep 5') & done; wait";
            let trial = thread::spawn(move || {
                clients.run(&["bash", "-c", &format!("{connect}; true")]);
            });
            thread::sleep(Duration::from_millis(500));
            // The unanswered SYN are sent again after one second.
            let mut said = Vec::new();
            let is_found = |said: &Value| found(said, "NAT_FAILED") == Some("warning".into());
            while !said.iter().any(is_found) && !trial.is_finished() {
                said.push(verdict());
            }
            assert!(
                said.iter().any(is_found),
                "{:?} {}",
                said.iter().map(codes).collect::<Vec<_>>(),
                std::fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap()
            );
            trial.join().unwrap();
            thread::sleep(Duration::from_millis(500));
            assert_eq!(
                found(&verdict(), "NAT_FAILED"),
                Some("ok".into()),
                "history"
            );
        },
    );
}
