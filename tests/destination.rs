//! `verdict`, `states` and `advise` about one destination, and what is known of the way there: the
//! kernel's own connect() is the judge.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use common::network::{self, Host};
use common::{
    assert_valid, connect_and_close, connect_until_error, exit, in_namespace, json, port_range,
    run, serve, stdout, sysctl, twcheck,
};
use serde_json::{Value, json};
use twcheck::system::route;

#[test]
fn be_a_server() {
    network::be_a_server();
}

/// A link to nowhere that is up, with an address of either family.
fn link() {
    run(
        "ip",
        &["link", "add", "v0", "type", "veth", "peer", "name", "v1"],
    );
    for name in ["v0", "v1"] {
        run("ip", &["link", "set", name, "up"]);
    }
    run("ip", &["addr", "add", "10.9.0.1/24", "dev", "v0"]);
    let address = [
        "-6",
        "addr",
        "add",
        "2001:db8:1::1/64",
        "dev",
        "v0",
        "nodad",
    ];
    run("ip", &address);
}

/// The error with which connect() ends at once, if it does; nobody listens anywhere.
fn connect_fails_with(server: SocketAddr) -> Option<i32> {
    let error = TcpStream::connect_timeout(&server, Duration::from_millis(100)).unwrap_err();
    let answered = [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused];
    if answered.contains(&error.kind()) {
        return None;
    }
    error.raw_os_error()
}

/// What iproute2 reads from the same tables: whether the way is local, and its source.
fn ip_route_get(address: IpAddr) -> (bool, Option<IpAddr>) {
    let text = stdout(&run("ip", &["route", "get", &address.to_string()]));
    let source = text.split_once(" src ").map(|(_, rest)| rest);
    let source = source.and_then(|rest| rest.split_whitespace().next());
    (
        text.starts_with("local "),
        source.map(|text| text.parse().unwrap()),
    )
}

fn the_way_is_as_connect_finds_it(address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let server = SocketAddr::new(address, 3306);
    for asked in [server, SocketAddr::new(address, 0)] {
        let path = route::path(asked);
        assert_eq!(path.errno, connect_fails_with(server), "{asked}: {path:?}");
        if path.errno.is_none() {
            let (local, source) = ip_route_get(address);
            assert_eq!((path.local, path.source), (Some(local), source), "{asked}");
        }
    }
}

#[test]
fn the_way_is_what_connect_finds() {
    in_namespace("the_way_is_what_connect_finds", || {
        link();
        run("ip", &["route", "add", "10.5.0.0/16", "dev", "v1"]);
        run(
            "ip",
            &[
                "route",
                "add",
                "10.6.0.0/16",
                "dev",
                "v0",
                "src",
                "10.9.0.1",
            ],
        );
        for (kind, v4, v6) in [
            ("unreachable", "10.7.0.0/24", "2001:db8:7::/64"),
            ("prohibit", "10.8.0.0/24", "2001:db8:8::/64"),
            ("blackhole", "10.10.0.0/24", "2001:db8:9::/64"),
        ] {
            run("ip", &["route", "add", kind, v4]);
            run("ip", &["-6", "route", "add", kind, v6]);
        }
        let addresses = [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "10.9.0.1",
            "2001:db8:1::1",
            "10.9.0.2",
            "10.9.0.255",
            "127.255.255.255",
            "2001:db8:1::9",
            "10.5.0.1",
            "10.6.0.1",
            "10.7.0.1",
            "10.8.0.1",
            "10.10.0.1",
            "192.0.2.1",
            "2001:db8:7::1",
            "2001:db8:8::1",
            "2001:db8:9::1",
            "2001:db8:a::1",
            "fe80::9",
        ];
        for nonlocal in ["0", "1"] {
            // With it on any address can be bound.
            sysctl("net.ipv4.ip_nonlocal_bind", nonlocal);
            for address in addresses {
                the_way_is_as_connect_finds_it(address);
            }
        }
        sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
        the_way_is_as_connect_finds_it("::1");
        sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        for address in ["::1", "2001:db8:1::9", "2001:db8:a::1", "127.0.0.1"] {
            the_way_is_as_connect_finds_it(address);
        }
        run("ip", &["link", "set", "lo", "down"]);
        the_way_is_as_connect_finds_it("127.0.0.1");
    });
}

/// A rule that is about TCP alone, which a UDP socket does not meet.
#[test]
fn a_rule_about_tcp_or_its_port_counts() {
    in_namespace("a_rule_about_tcp_or_its_port_counts", || {
        link();
        for rule in [
            &["to", "10.9.0.9"][..],
            &["to", "10.9.0.8", "dport", "3306"],
        ] {
            let rule = [&["rule", "add", "ipproto", "tcp"], rule, &["prohibit"]].concat();
            run("ip", &rule);
        }
        for (server, errno) in [
            ("10.9.0.9:3306", Some(13)),
            ("10.9.0.8:3306", Some(13)),
            ("10.9.0.8:3307", None),
        ] {
            let server = server.parse().unwrap();
            assert_eq!(connect_fails_with(server), errno, "{server}");
            assert_eq!(route::path(server).errno, errno, "{server}");
        }
    });
}

fn codes(verdict: &Value) -> Vec<(&str, &str)> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).unwrap();
    findings
        .map(|finding| (text(finding, "code"), text(finding, "level")))
        .map(|(code, level)| (&*code.leak(), &*level.leak()))
        .collect()
}

#[test]
fn errno_99_without_exhaustion_is_explained() {
    in_namespace("errno_99_without_exhaustion_is_explained", || {
        sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        let refused = TcpStream::connect("[::1]:3306").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(99));
        for arguments in [
            &["verdict", "[::1]:3306", "--json"][..],
            &["verdict", "::1", "--json"],
            &["verdict", "[::1]:3306", "--connect", "--json"],
        ] {
            let verdict = json(arguments);
            assert_valid("verdict", &verdict);
            assert_eq!(codes(&verdict), [("ADDRESS_NOT_AVAILABLE", "critical")]);
            let summary = verdict["summary"].as_str().unwrap();
            assert!(summary.contains("disable_ipv6 = 1"), "{summary}");
            assert_eq!(verdict["destination"]["addresses"][0]["errno"], 99);
        }
        // The other one is there.
        assert_eq!(codes(&json(&["verdict", "127.0.0.1:3306", "--json"])), []);

        let shown = stdout(&twcheck(&["verdict"]));
        assert_eq!(shown.lines().count(), 4, "{shown}");
        let last = shown.lines().last().unwrap();
        assert!(last.contains("`twcheck verdict HOST:PORT` tells"), "{last}");
        let piped = stdout(&twcheck(&["verdict", "--format", "plain"]));
        assert_eq!(piped.lines().count(), 1, "{piped}");
    });
}

#[test]
fn a_way_that_is_not_there_is_no_exhaustion() {
    in_namespace("a_way_that_is_not_there_is_no_exhaustion", || {
        link();
        run("ip", &["route", "add", "blackhole", "10.7.0.0/24"]);
        run("ip", &["addr", "del", "10.9.0.1/24", "dev", "v0"]);
        run("ip", &["route", "add", "10.5.0.0/16", "dev", "v0"]);
        for (server, said) in [
            ("192.0.2.1:3306", "Network is unreachable (errno 101)"),
            ("10.7.0.1:3306", "Invalid argument (errno 22)"),
            ("10.5.0.1:3306", "no IPv4 address to be answered at"),
        ] {
            let output = twcheck(&["verdict", server]);
            let shown = stdout(&output);
            assert_eq!(exit(&output), 2, "{shown}");
            assert!(shown.contains("NO_ROUTE (CRITICAL)"), "{shown}");
            assert!(shown.contains(said), "{shown}");
        }
    });
}

/// The kernel takes ::1 for a source where it has nothing else, and a link-local address that no
/// router forwards: nobody can answer to either.
#[test]
fn a_way_without_an_address_to_answer_to_is_none() {
    in_namespace("a_way_without_an_address_to_answer_to_is_none", || {
        // No address by itself.
        sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
        let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
        for address in ["2001:db8:5::2/64", "fe80::2/64", "2001:db8:6::2/128"] {
            host.run(&[
                "ip", "-6", "address", "add", address, "dev", "cableb", "nodad",
            ]);
        }
        let ip = |words: &str| {
            let words: Vec<_> = words.split(' ').collect();
            run("ip", &words)
        };
        ip("-6 route add 2001:db8:5::/64 dev cable");
        host.serve("[::]:3306");
        let judged = |there: &str| {
            let server: SocketAddr = there.parse().unwrap();
            let answered = TcpStream::connect_timeout(&server, Duration::from_millis(500)).is_ok();
            let verdict = json(&["verdict", there, "--json"]);
            assert_eq!(verdict["level"] == "ok", answered, "{there}: {verdict}");
            (answered, verdict["summary"].as_str().unwrap().to_owned())
        };
        let (answered, said) = judged("[2001:db8:5::2]:3306");
        assert!(!answered);
        assert!(said.contains("no IPv6 address to be answered at"), "{said}");
        // A neighbour answers to a link-local address, and who is behind a router does not.
        ip("-6 address add fe80::1/64 dev cable nodad");
        ip("-6 route add 2001:db8:6::/64 via fe80::2 dev cable");
        assert!(!judged("[2001:db8:6::3]:3306").0);
        ip("-6 address add 2001:db8:5::1/64 dev cable nodad");
        host.run(&[
            "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "cableb",
        ]);
        assert!(judged("[2001:db8:5::2]:3306").0);
        assert!(judged("[2001:db8:6::2]:3306").0);
    });
}

#[test]
fn a_link_local_address_needs_its_interface() {
    in_namespace("a_link_local_address_needs_its_interface", || {
        let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
        host.run(&[
            "ip",
            "-6",
            "address",
            "add",
            "fe80::2/64",
            "dev",
            "cableb",
            "nodad",
        ]);
        run(
            "ip",
            &[
                "-6",
                "address",
                "add",
                "fe80::1/64",
                "dev",
                "cable",
                "nodad",
            ],
        );
        host.serve("[::]:3306");
        let refused = TcpStream::connect("[fe80::2]:3306").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(22));
        for arguments in [
            &["verdict", "[fe80::2]:3306", "--json"][..],
            &["verdict", "[fe80::2]:3306", "--connect", "--json"],
        ] {
            let verdict = json(arguments);
            assert_eq!(codes(&verdict), [("NO_ROUTE", "critical")]);
            let step = verdict["findings"][0]["next_step"].as_str().unwrap();
            assert!(step.contains("[fe80::2%eth0]:3306"), "{step}");
        }
        let answered = json(&["verdict", "[fe80::2%cable]:3306", "--connect", "--json"]);
        assert_eq!(codes(&answered), []);
        assert_eq!(answered["destination"]["connect"]["failure"], Value::Null);
    });
}

/// `verdict` about localhost:3306 where /etc/hosts, in a mount namespace of its own, has both
/// addresses.
fn verdict_of_localhost(source: &str) -> Value {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&hosts, "::1 localhost\n127.0.0.1 localhost\n").unwrap();
    let script =
        r#"mount --bind "$1" /etc/hosts && exec "$2" verdict localhost:3306 --json --source "$3""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(hosts.path())
        .args([env!("CARGO_BIN_EXE_twcheck"), source])
        .output()
        .expect("unshare runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_name_whose_first_address_nobody_listens_at_is_told() {
    in_namespace(
        "a_name_whose_first_address_nobody_listens_at_is_told",
        || {
            let (first, second) = ("[::1]:3306", "127.0.0.1:3306");
            for listening in ["127.0.0.1:3306", "0.0.0.0:3306"] {
                let server = TcpListener::bind(listening).unwrap();
                let refused = TcpStream::connect(first).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(111));
                TcpStream::connect(second).unwrap();
                for source in ["sock_diag", "proc"] {
                    let verdict = verdict_of_localhost(source);
                    assert_valid("verdict", &verdict);
                    assert_eq!(
                        codes(&verdict),
                        [("NOTHING_LISTENS", "warning")],
                        "{listening}"
                    );
                    let summary = verdict["summary"].as_str().unwrap();
                    assert!(summary.starts_with("Nothing listens at ::1"), "{summary}");
                }
                drop(server);
            }
            let both = TcpListener::bind("[::]:3306").unwrap();
            TcpStream::connect(first).unwrap();
            TcpStream::connect(second).unwrap();
            assert_eq!(codes(&verdict_of_localhost("auto")), []);
            drop(both);
            // With nobody there at all it is no matter of addresses.
            assert_eq!(codes(&verdict_of_localhost("auto")), []);
            let _server = TcpListener::bind(second).unwrap();
            sysctl("net.ipv6.conf.all.disable_ipv6", "1");
            // The resolver tries each way, and puts the one that is none behind the other.
            let verdict = verdict_of_localhost("auto");
            assert_eq!(codes(&verdict), [("ADDRESS_NOT_AVAILABLE", "ok")]);
            assert_eq!(verdict["destination"]["addresses"][1]["address"], "::1");
        },
    );
}

/// Ports that somebody bound in a way that the table does not tell are found by asking for one, or
/// where that cannot be, by an attempt.
#[test]
fn errno_99_from_an_address_that_is_here_is_a_lack_of_ports() {
    in_namespace(
        "errno_99_from_an_address_that_is_here_is_a_lack_of_ports",
        || {
            port_range(40000, 40009);
            let server = serve("127.0.0.1:3306");
            let _bound: Vec<_> = (40000..40010)
                .map(|port| {
                    let socket =
                        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                            .unwrap();
                    let address = SocketAddr::from(([127, 0, 0, 1], port));
                    socket.bind(&address.into()).unwrap();
                    socket
                })
                .collect();
            assert_eq!(connect_until_error(server, 1), (0, Some(99)));
            let arguments = [
                "verdict",
                "127.0.0.1:3306",
                "--connect",
                "--json",
                "--source",
                "proc",
            ];
            for (fastopen, expected) in [
                ("1", "No connection can be opened to anywhere"),
                ("0", "no port could be had"),
            ] {
                sysctl("net.ipv4.tcp_fastopen", fastopen);
                let verdict = json(&arguments);
                let said = verdict["summary"].as_str().unwrap();
                assert_eq!(verdict["level"], "critical");
                assert!(said.contains(expected), "{said}");
                assert!(!said.contains("not exhaustion"), "{said}");
            }
        },
    );
}

/// Packets that this namespace sent, of whatever protocol.
fn packets_sent() -> Vec<u64> {
    ["snmp", "snmp6"]
        .iter()
        .map(|name| {
            let text = std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap();
            let mut rows = text
                .lines()
                .filter(|row| row.starts_with("Ip: ") || row.contains("Ip6OutRequests"));
            let last = rows.next_back().unwrap();
            let column = if *name == "snmp" { 10 } else { 1 };
            let number = last.split_whitespace().nth(column).unwrap();
            number.parse().unwrap()
        })
        .collect()
}

#[test]
fn no_packet_is_sent_and_no_port_taken_unless_asked_for() {
    in_namespace(
        "no_packet_is_sent_and_no_port_taken_unless_asked_for",
        || {
            link();
            let server = serve("127.0.0.1:3306");
            // Duplicate address detection and its like are over.
            std::thread::sleep(Duration::from_secs(3));
            let looked = || {
                let before = packets_sent();
                for there in [
                    "127.0.0.1:3306",
                    "10.9.0.2:3306",
                    "[2001:db8:1::9]:3306",
                    "[::1]:3306",
                ] {
                    // It did look: nothing is in the way there.
                    let verdict = json(&["verdict", there, "--json"]);
                    let way = &verdict["destination"]["addresses"][0];
                    assert_eq!(
                        (codes(&verdict), &way["errno"], &verdict["flows_total"]),
                        (vec![], &Value::Null, &json!(0)),
                        "{there}"
                    );
                }
                (before, packets_sent())
            };
            // What IPv6 itself sends comes late where the machine is slow; a look would send each time.
            let is_silent = |(before, after): (Vec<u64>, Vec<u64>)| before == after;
            assert!((0..3).any(|_| is_silent(looked())));
            let neighbours = stdout(&run("ip", &["neigh", "show", "10.9.0.2"]));
            assert_eq!(neighbours, "");
            let before = packets_sent();
            connect_and_close(server).unwrap();
            assert_ne!(packets_sent(), before, "the counter counts");
        },
    );
}

#[test]
fn one_destination_is_judged_by_its_own_flows() {
    in_namespace("one_destination_is_judged_by_its_own_flows", || {
        port_range(40000, 40199);
        let (full, free) = (serve("127.0.0.1:3306"), serve("127.0.0.2:3307"));
        assert_eq!(connect_until_error(full, 300), (200, Some(99)));
        for _ in 0..30 {
            connect_and_close(free).unwrap();
        }
        let exhausted = [("PORTS_EXHAUSTED", "critical")];
        assert_eq!(codes(&json(&["verdict", "--json"])), exhausted);
        for (there, status, flows, in_use) in [
            ("127.0.0.1:3306", 2, 1, 200),
            ("127.0.0.1", 2, 1, 200),
            (":3306", 2, 1, 200),
            ("localhost:3306", 2, 1, 200),
            ("127.0.0.2:3307", 0, 1, 30),
            ("127.0.0.2", 0, 1, 30),
            (":3307", 0, 1, 30),
        ] {
            for source in ["sock_diag", "proc"] {
                let output = twcheck(&["verdict", there, "--json", "--source", source]);
                let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(exit(&output), status, "{there}: {verdict}");
                let found = if status == 2 { &exhausted[..] } else { &[] };
                let mut said = codes(&verdict);
                // Of localhost, where /etc/hosts has ::1 for it too.
                said.retain(|&(code, _)| code != "NOTHING_LISTENS");
                assert_eq!(said, found, "{there}");
                assert_eq!(
                    (
                        &verdict["flows_total"],
                        &verdict["flows"][0]["ports_in_use"]
                    ),
                    (&json!(flows), &json!(in_use)),
                    "{there}"
                );
                assert_eq!(verdict["destination"]["flows_elsewhere"], 1, "{there}");
                assert_eq!(verdict["destination"]["room"], Value::Null, "{there}");

                let states = json(&["states", there, "--json", "--source", source]);
                assert_valid("states", &states);
                assert_eq!(
                    (
                        &states["total"],
                        &states["states"],
                        &states["time_wait"]["outbound"]
                    ),
                    (
                        &json!(in_use),
                        &json!({"TIME_WAIT": in_use}),
                        &json!(in_use)
                    ),
                    "{there}"
                );
            }
        }
        // ss counts the same.
        let rows = run(
            "ss",
            &["-tanH", "state", "time-wait", "dst", "127.0.0.2:3307"],
        );
        assert_eq!(stdout(&rows).lines().count(), 30);
    });
}

#[test]
fn where_no_flow_goes_the_kernel_grants_what_was_said() {
    in_namespace("where_no_flow_goes_the_kernel_grants_what_was_said", || {
        port_range(40000, 40199);
        sysctl("net.ipv4.ip_local_reserved_ports", "40000-40049");
        let (busy, idle) = (serve("127.0.0.1:3306"), serve("127.0.0.2:3306"));
        assert_eq!(connect_until_error(busy, 300), (150, Some(99)));
        let verdict = json(&["verdict", "127.0.0.2:3306", "--json"]);
        assert_eq!(verdict["level"], "ok");
        assert_eq!(verdict["flows"], json!([]));
        let said = "No connection from here takes a port toward 127.0.0.2:3306: all 150 usable ports \
                    can be had, at most 2.5 connections/s; TIME_WAIT is not reused there.";
        let untried = " Whether it answers was not tried: --connect does that.";
        assert_eq!(verdict["summary"], format!("{said}{untried}"));
        for command in ["states", "advise"] {
            let report = json(&[command, "127.0.0.2:3306", "--json"]);
            assert_valid(command, &report);
            assert_eq!(report["destination"]["room"], said, "{command}");
        }
        assert_eq!(connect_until_error(idle, 300), (150, Some(99)));
    });
}

#[test]
fn advice_about_loopback_knows_that_reuse_is_on_there() {
    in_namespace("advice_about_loopback_knows_that_reuse_is_on_there", || {
        sysctl("net.ipv4.tcp_tw_reuse", "2");
        let first =
            |there: &str| json(&["advise", there, "--json"])["changes"][0]["sysctl"].clone();
        assert_eq!(first("10.0.0.5:3306"), "net.ipv4.tcp_tw_reuse");
        assert_eq!(first("127.0.0.1:3306"), "net.ipv4.ip_local_port_range");
        let goal = json(&[
            "advise",
            "--flow",
            "10.0.0.5:3306",
            "--target-rate",
            "9",
            "--json",
        ]);
        assert_eq!(goal["goal"]["destination"], "10.0.0.5:3306");
        assert_eq!(goal["goal"]["changes_needed"], 0);
    });
}

#[test]
fn one_connect_is_made_where_it_is_asked_for() {
    in_namespace("one_connect_is_made_where_it_is_asked_for", || {
        port_range(40000, 40009);
        link();
        let verdict = |there: &str| json(&["verdict", there, "--connect", "--json"]);

        let open = serve("127.0.0.1:3306");
        let answered = verdict("127.0.0.1:3306");
        assert_valid("verdict", &answered);
        assert_eq!(
            (codes(&answered), answered["level"].as_str()),
            (vec![], Some("ok"))
        );
        assert_eq!(answered["destination"]["connect"]["failure"], Value::Null);

        // An address that nobody listens at does not hide one that somebody does.
        let named = verdict("localhost:3306");
        assert_eq!(named["destination"]["connect"]["server"], "127.0.0.1:3306");

        let refused = verdict("127.0.0.1:3307");
        assert_eq!(codes(&refused), [("CONNECT_FAILED", "critical")]);
        assert_eq!(refused["destination"]["connect"]["failure"]["errno"], 111);

        let start = Instant::now();
        let silent = verdict("10.9.0.2:3306");
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(codes(&silent), [("CONNECT_FAILED", "critical")]);

        assert_eq!(connect_until_error(open, 30).1, Some(99));
        let full = verdict("127.0.0.1:3306");
        assert_eq!(codes(&full)[0], ("PORTS_EXHAUSTED", "critical"));
        let failure = &full["destination"]["connect"]["failure"];
        assert_eq!(failure["errno"], 99);
        let meaning = failure["meaning"].as_str().unwrap();
        assert!(
            meaning.contains("every local port toward 127.0.0.1:3306 is taken"),
            "{meaning}"
        );
    });
}

#[test]
fn a_run_beside_another_source_address_is_told_by_its_own_flow() {
    in_namespace(
        "a_run_beside_another_source_address_is_told_by_its_own_flow",
        || {
            port_range(40000, 40199);
            let server = serve("0.0.0.0:3390");
            let held: Vec<_> = (0..150).map(|_| from("127.0.0.9", server.port())).collect();
            let arguments = [
                "repro",
                "--protocol",
                "tcp",
                "--force",
                "--host",
                "127.0.0.1",
                "--port",
                "3390",
                "--json",
            ];
            let report = json(&arguments);
            // The first look at the server takes one.
            assert_eq!(
                (
                    &report["stopped_by"],
                    &report["predicted_ports"],
                    &report["connections"]
                ),
                (&json!("exhausted"), &json!(199), &json!(199)),
                "{report}"
            );
            assert_eq!(report["ports_came_back"], Value::Null);
            assert_eq!(report["error"]["kind"], "ephemeral_ports_exhausted");
            drop(held);
        },
    );
}

/// A connection from `source`, whose port is chosen by connect().
fn from(source: &str, port: u16) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let no_port = nix::sys::socket::sockopt::IpBindAddressNoPort;
    nix::sys::socket::setsockopt(&socket, no_port, &true).unwrap();
    let address = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port).into();
    socket.bind(&address(source, 0)).unwrap();
    socket.connect(&address("127.0.0.1", port)).unwrap();
    socket
}

#[test]
fn a_server_elsewhere_is_not_taken_for_one_here() {
    in_namespace("a_server_elsewhere_is_not_taken_for_one_here", || {
        link();
        sysctl("net.ipv4.ip_nonlocal_bind", "1");
        TcpListener::bind("10.9.0.2:0").expect("any address can be bound");
        let away = [
            "repro",
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "10.9.0.2",
            "--duration",
            "1s",
            "--json",
        ];
        assert_eq!(json(&away)["time_wait"]["server_side"], Value::Null);
        let here = serve("10.9.0.1:3390");
        let port = here.port().to_string();
        let here = [
            "repro",
            "--protocol",
            "tcp",
            "--force",
            "--host",
            "10.9.0.1",
            "--port",
            &port,
        ];
        let here = [&here[..], &["--connections", "5", "--json"]].concat();
        assert_eq!(json(&here)["time_wait"]["server_side"], 0);
    });
}
