//! The machine in the middle: three real hosts, clients that are translated, and a rule with few
//! ports.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::network::{self, Host};
use common::{assert_valid, exit, in_namespace, json, linux, run, stdout, sysctl, text, twcheck};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

#[test]
fn be_a_server() {
    network::be_a_server();
}

/// Clients, this machine, and a server with so many addresses from 10.2.0.2 on; `rule` translates.
fn lab(addresses: u8, rule: &str) -> (Host, Host) {
    let clients = Host::new("in", "10.1.0.1/24", "10.1.0.2/24");
    clients.run(&["ip", "route", "add", "default", "via", "10.1.0.1"]);
    let mut server = Host::new("out", "10.2.0.1/24", "10.2.0.2/24");
    for number in 3..2 + addresses {
        let address = format!("10.2.0.{number}/24");
        server.run(&["ip", "address", "add", &address, "dev", "outb"]);
    }
    server.serve("0.0.0.0:3306");
    sysctl("net.ipv4.ip_forward", "1");
    let table =
        "add table ip t; add chain ip t post { type nat hook postrouting priority srcnat; }";
    run(
        "nft",
        &[&format!("{table}; add rule ip t post oifname out {rule}")],
    );
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most).unwrap();
    (clients, server)
}

/// Has nft, or says aloud that the test is skipped.
fn has_nft(test: &str) -> bool {
    let is_there = Command::new("nft").arg("--version").output().is_ok();
    if !is_there {
        common::skip(test, "nft is not installed (apt-get install nftables)");
    }
    is_there
}

/// Connections that were opened through this machine.
struct Opened {
    open: Vec<TcpStream>,
    /// Those that this machine let through, and the server's listen queue had no room for: they hold
    /// a port all the same.
    lost: usize,
    /// Whether this machine dropped the next one.
    hangs: bool,
}

impl Opened {
    fn number(&self) -> usize {
        self.open.len() + self.lost
    }
}

/// `drop` of /proc/net/stat/nf_conntrack, over all CPUs.
fn dropped() -> u64 {
    let text = fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap();
    let mut lines = text.lines().map(str::split_whitespace);
    let place = lines
        .next()
        .unwrap()
        .position(|name| name == "drop")
        .unwrap();
    let value = |mut line: std::str::SplitWhitespace| line.nth(place).map(str::to_owned);
    lines
        .filter_map(value)
        .map(|value| u64::from_str_radix(&value, 16).unwrap())
        .sum()
}

/// Opens connections from the clients' host until one hangs, or `most` are open.
fn connect_from(clients: &Host, server: SocketAddr, most: usize) -> Opened {
    let mut opened = Opened {
        open: Vec::new(),
        lost: 0,
        hangs: false,
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            clients.enter();
            while opened.number() < most && !opened.hangs {
                let before = dropped();
                // An unanswered SYN is sent again after one second.
                match TcpStream::connect_timeout(&server, Duration::from_millis(700)) {
                    Ok(stream) => opened.open.push(stream),
                    Err(_) if dropped() > before => opened.hangs = true,
                    Err(_) => opened.lost += 1,
                }
            }
        });
    });
    opened
}

fn nat(arguments: &[&str]) -> Value {
    let said = json(&[&["verdict", "--nat", "--json"], arguments].concat());
    assert_valid("verdict", &said);
    said
}

fn codes(said: &Value) -> Vec<String> {
    let findings = said["findings"].as_array().unwrap();
    let code = |it: &Value| it["code"].as_str().unwrap().to_owned();
    findings
        .iter()
        .map(code)
        .filter(|it| it != "NAT_FAILED")
        .collect()
}

#[test]
fn clients_hang_at_the_count_that_was_named() {
    let test = "clients_hang_at_the_count_that_was_named";
    if !has_nft(test) {
        return;
    }
    in_namespace(test, || {
        let (clients, _server) = lab(5, "ip protocol tcp masquerade to :50000-50999");
        let mut made = Vec::new();
        let mut named = Value::Null;
        for number in 2..7 {
            let server = SocketAddr::from(([10, 2, 0, number], 3306));
            let some = connect_from(&clients, server, 100);
            assert_eq!((some.number(), some.hangs), (100, false));
            let asked = server.to_string();
            let said = nat(&[&asked]);
            let flow = &said["nat"]["flows"][0];
            assert_eq!(
                (&said["level"], codes(&said)),
                (&json!("ok"), vec![]),
                "{said:#}"
            );
            assert_eq!(
                (
                    &flow["source"],
                    &flow["ports"],
                    &flow["ports_from"],
                    &flow["ports_taken"]
                ),
                (
                    &json!("10.2.0.1"),
                    &json!([50000, 50999]),
                    &json!("rule"),
                    &json!(100)
                )
            );
            assert_eq!(
                flow["behind"],
                json!([{"address": "10.1.0.2", "connections": 100}])
            );
            named = flow["hangs_from"].clone();
            let more = connect_from(&clients, server, 1000);
            let number = some.number() + more.number();
            assert!(more.hangs, "of 1,000 ports {number} are taken");
            made.push(number as u64);
            let said = nat(&[&asked]);
            let flow = &said["nat"]["flows"][0];
            assert_eq!(said["level"], "critical", "{said:#}");
            assert!(codes(&said)[0].starts_with("NAT_PORTS_"), "{said:#}");
            // Whoever hangs may have taken one more port than was answered.
            let taken = flow["ports_taken"].as_u64().unwrap();
            let last = *made.last().unwrap();
            assert!((last..=last + 1).contains(&taken), "{last} {flow:#}");
            drop((some, more));
        }
        println!("MEASURED named {named}, made {made:?}");
        made.sort_unstable();
        let bound = |end: &str| named[end].as_u64().unwrap();
        let median = made[2];
        assert!(
            (bound("earliest")..=bound("latest")).contains(&median),
            "{made:?} {named}"
        );
        let likely = bound("likely");
        assert!(
            made.iter().all(|made| made.abs_diff(likely) < 100),
            "{made:?} {named}"
        );
    });
}

#[test]
fn a_short_range_is_taken_to_its_last_port() {
    let test = "a_short_range_is_taken_to_its_last_port";
    if !has_nft(test) {
        return;
    }
    in_namespace(test, || {
        let (clients, _server) = lab(1, "ip protocol tcp masquerade to :50000-50099");
        let server = SocketAddr::from(([10, 2, 0, 2], 3306));
        let open = connect_from(&clients, server, 99);
        assert_eq!((open.number(), open.hangs), (99, false));
        let said = nat(&[]);
        let flow = &said["nat"]["flows"][0];
        assert_eq!(
            flow["hangs_from"],
            json!({"earliest": 100, "likely": 100, "latest": 100})
        );
        assert_eq!(codes(&said), ["NAT_PORTS_LOW"]);
        // The other way to the same rows.
        let by_proc = nat(&["--source", "proc"]);
        assert_eq!(by_proc["nat"]["source"], "proc");
        assert_eq!(by_proc["nat"]["flows"], said["nat"]["flows"]);
        assert_eq!(
            by_proc["nat"]["rules"],
            json!(["masquerade to :50000-50099"])
        );
        let more = connect_from(&clients, server, 2);
        assert_eq!((more.number(), more.hangs), (1, true));
        let said = nat(&[]);
        assert_eq!(codes(&said), ["NAT_PORTS_EXHAUSTED"], "{said:#}");
        assert_eq!(exit(&twcheck(&["verdict", "--nat"])), 2);
        assert_eq!(codes(&nat(&["10.2.0.9"])), [""; 0], "toward another server");
        let plain = stdout(&twcheck(&["verdict", "--nat", "--format", "plain"]));
        let line = "NAT 10.2.0.1 10.2.0.2:3306 tcp 50000 50099 100 0 100 10.1.0.2=";
        assert!(plain.contains(line), "{plain}");
        recorded(&said);
        drop((open, more));
    });
}

/// Two rules, of which one is for another interface, another server or another port.
#[test]
fn a_rule_for_others_is_not_taken_for_the_flows_own() {
    let test = "a_rule_for_others_is_not_taken_for_the_flows_own";
    if !has_nft(test) {
        return;
    }
    in_namespace(test, || {
        let (clients, _server) = lab(1, "meta l4proto tcp masquerade");
        clients.run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50099"]);
        let server = SocketAddr::from(([10, 2, 0, 2], 3306));
        // The client's ports are free here, so that each is kept.
        let open = connect_from(&clients, server, 95);
        assert_eq!((open.number(), open.hangs), (95, false));
        for (asked, level) in [
            ("oifname in", "ok"),
            ("oifname out", "unknown"),
            ("oifname \"ou*\"", "unknown"),
            ("oifname \"vpn*\"", "ok"),
            ("ip daddr 10.9.0.0/16", "ok"),
            ("ip daddr 10.2.0.0/22", "unknown"),
            ("ip saddr 10.1.0.0/24", "unknown"),
            ("ip saddr 10.1.1.0/25", "ok"),
            ("tcp dport 443", "ok"),
            ("tcp dport 3306", "unknown"),
            ("ip daddr != 10.2.0.2", "unknown"),
        ] {
            let protocol = if asked.starts_with("tcp") {
                ""
            } else {
                "meta l4proto tcp"
            };
            let rule = format!("{asked} {protocol} masquerade to :50000-50099");
            run(
                "nft",
                &[&format!(
                    "add table ip o; add chain ip o post {{ type nat hook postrouting \
                                   priority srcnat + 1; }}; flush chain ip o post; add rule ip o post {rule}"
                )],
            );
            let said = nat(&[]);
            let flow = &said["nat"]["flows"][0];
            assert_eq!(flow["level"], level, "{rule}: {said:#}");
            assert_eq!(
                (&flow["ports_taken"], &said["level"]),
                (&json!(95), &json!(level))
            );
        }
        drop(open);
    });
}

/// A recording with the table says the same, but for the rule, which is told by the ports seen.
fn recorded(live: &Value) {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "net/tcp",
        "net/tcp6",
        "net/nf_conntrack",
        "sys/net/ipv4/ip_local_port_range",
    ] {
        let there = root.path().join(file);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::write(there, fs::read(format!("/proc/{file}")).unwrap()).unwrap();
    }
    let path = root.path().to_str().unwrap();
    let said = nat(&["--proc-root", path]);
    let (flow, live) = (&said["nat"]["flows"][0], &live["nat"]["flows"][0]);
    for field in ["source", "destination", "by_state", "behind"] {
        assert_eq!(flow[field], live[field], "{field}");
    }
    assert_eq!(flow["ports_from"], "seen");
    assert_eq!(flow["ports"], json!([50000, 50099]));
    // How long TIME_WAIT is kept was not copied.
    let unknown = [
        &said["nat"]["time_wait_seconds"],
        &flow["closed_per_second"],
    ];
    assert_eq!(unknown, [&Value::Null; 2]);
    fs::remove_file(root.path().join("net/nf_conntrack")).unwrap();
    let said = nat(&["--proc-root", path]);
    assert!(
        codes(&said).contains(&"COULD_NOT_READ".to_owned()),
        "{said:#}"
    );
    assert_ne!(said["level"], "ok");
}

/// Connects from each of these ports of a client, until one hangs.
fn connect_from_ports(
    clients: &Host,
    client: [u8; 4],
    ports: impl Iterator<Item = u16> + Send,
) -> (Vec<Socket>, bool) {
    let server = SocketAddr::from(([10, 2, 0, 2], 3306)).into();
    let connect = |port| {
        let before = dropped();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket
            .bind(&SocketAddr::from((client, port)).into())
            .unwrap();
        let made = socket.connect_timeout(&server, Duration::from_millis(700));
        (socket, made.is_ok() || dropped() == before)
    };
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            clients.enter();
            let mut open = Vec::new();
            for port in ports {
                let (socket, is_through) = connect(port);
                if !is_through {
                    return (open, true);
                }
                open.push(socket);
            }
            (open, false)
        });
        made.join().unwrap()
    })
}

/// As NFS clients do, which connect from a port below 1024.
#[test]
fn clients_with_a_port_below_1024_have_few_of_them() {
    let test = "clients_with_a_port_below_1024_have_few_of_them";
    if !has_nft(test) {
        return;
    }
    in_namespace(test, || {
        let (clients, _server) = lab(1, "masquerade");
        clients.run(&["ip", "address", "add", "10.1.0.3/24", "dev", "inb"]);
        let first = |said: &Value| said["nat"]["flows"][0].clone();
        let mut kept = Vec::new();
        for (low, high, few) in [(600, 1023, 100), (1, 511, 50)] {
            let some = connect_from_ports(&clients, [10, 1, 0, 2], low..low + few);
            assert_eq!((some.0.len(), some.1), (usize::from(few), false));
            let said = nat(&[]);
            if kept.is_empty() {
                assert_eq!(said["level"], "ok", "{said:#}");
                assert_eq!(first(&said)["ports"], json!([low, high]), "{said:#}");
                assert_eq!(first(&said)["ports_taken"], few);
            }
            let more = connect_from_ports(&clients, [10, 1, 0, 2], low + few..=high);
            assert!(!more.1, "a port that is free is kept");
            let said = nat(&[]);
            let flow = first(&said);
            assert_eq!(
                (&said["level"], &flow["hanging_share"]),
                (&json!("critical"), &json!(1.0))
            );
            assert_eq!(codes(&said), ["NAT_PORTS_EXHAUSTED"], "{said:#}");
            let (none, hangs) = connect_from_ports(&clients, [10, 1, 0, 3], low..=low);
            assert!(hangs && none.is_empty(), "of {low} to {high} none is left");
            // Clients with other ports do not hang.
            let (others, hangs) = connect_from_ports(&clients, [10, 1, 0, 3], 40000..40010);
            assert_eq!((others.len(), hangs), (10, false));
            let said = nat(&[]);
            assert_eq!(first(&said)["ports"], json!([low, high]), "{said:#}");
            kept.extend([some.0, more.0, others]);
        }
    });
}

#[test]
fn closed_connections_keep_their_ports_until_somebody_needs_them() {
    let test = "closed_connections_keep_their_ports_until_somebody_needs_them";
    if !has_nft(test) {
        return;
    }
    in_namespace(test, || {
        let (clients, _server) = lab(1, "ip protocol tcp masquerade to :50000-50999");
        let server = SocketAddr::from(([10, 2, 0, 2], 3306));
        let most = 3000;
        let made = thread::scope(|scope| {
            let there = scope.spawn(|| {
                clients.enter();
                (0..most)
                    .take_while(|_| common::connect_and_close_within(server))
                    .count()
            });
            there.join().unwrap()
        });
        let said = nat(&[]);
        let flow = &said["nat"]["flows"][0];
        println!(
            "MEASURED {made} of {most} connections through 1,000 ports, {} in TIME_WAIT",
            flow["ports_of_closed"]
        );
        if linux() >= (6, 5) {
            assert_eq!((made, &said["level"]), (most, &json!("ok")), "{said:#}");
            assert_eq!(flow["closed_given_up"], true);
            assert_eq!(flow["max_connections_per_second"], Value::Null);
        } else {
            assert_ne!(said["level"], "ok", "{said:#}");
            let limit = flow["max_connections_per_second"].as_f64();
            assert_eq!(limit, Some(7.9), "1,000 ports, 120 s");
        }
    });
}

/// Of this machine itself, which is only read: whoever is root in a namespace may read all there.
#[test]
fn without_the_right_to_read_it_is_unknown_and_never_ok() {
    let folder = tempfile::tempdir().unwrap();
    let everybody = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), everybody(0o755)).unwrap();
    let program = folder.path().join("twcheck");
    fs::copy(env!("CARGO_BIN_EXE_twcheck"), &program).unwrap();
    fs::set_permissions(&program, everybody(0o755)).unwrap();
    let mut command = Command::new(&program);
    if geteuid().is_root() {
        let nobody = 65_534;
        command.uid(nobody).gid(nobody);
    }
    let output = command
        .args(["verdict", "--nat", "--json"])
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_valid("verdict", &said);
    assert_ne!(
        (&said["level"], exit(&output)),
        (&json!("ok"), 0),
        "{}",
        text(&output)
    );
    let findings = said["findings"].as_array().unwrap();
    let unread = findings.iter().find(|it| it["code"] == "COULD_NOT_READ");
    let message = unread.unwrap()["message"].as_str().unwrap();
    assert!(
        message.starts_with("connection tracking: reading it needs CAP_NET_ADMIN"),
        "{message}"
    );
    assert!(
        message.contains("`sudo twcheck verdict --nat`"),
        "{message}"
    );
    assert_eq!(said["nat"], Value::Null);
}

#[test]
fn a_machine_that_translates_nothing_says_so() {
    let test = "a_machine_that_translates_nothing_says_so";
    in_namespace(test, || {
        let server = common::serve("127.0.0.1:0");
        let _open = TcpStream::connect(server).unwrap();
        let said = nat(&[]);
        assert_eq!(
            (&said["level"], codes(&said)),
            (&json!("ok"), vec![]),
            "{said:#}"
        );
        assert_eq!(said["nat"]["flows"], json!([]));
        let summary = said["summary"].as_str().unwrap();
        assert!(summary.contains("translated"), "{summary}");
    });
}
