//! Ports that connect() passes over without a row that says why, and TIME_WAIT that it takes again
//! or does not: the kernel is asked, and must do what it said.

mod common;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::network::{self, Host};
use common::{
    connect_until_error, grants_single_ports, in_namespace, is_emulated, json, linux,
    own_port_range, port_range, run, serve, sysctl,
};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

fn verdict() -> Value {
    json(&["verdict", "--json", "--top", "0"])
}

fn codes(verdict: &Value) -> Vec<&str> {
    let findings = verdict["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|it| it["code"].as_str().unwrap())
        .collect()
}

fn usable(verdict: &Value) -> u32 {
    let ports = verdict["capacity"]["usable_ports"].as_u64().unwrap();
    u32::try_from(ports).unwrap()
}

/// A client from 127.0.0.`last` whose port bind() chooses.
fn bound(last: u8, server: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket)
}

#[test]
fn be_a_server() {
    network::be_a_server();
}

#[test]
fn a_pool_of_bind_in_time_wait_is_not_given_back_by_reuse() {
    in_namespace(
        "a_pool_of_bind_in_time_wait_is_not_given_back_by_reuse",
        || {
            port_range(40000, 40049);
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            let server = serve("127.0.0.1:3306");
            for _ in 0..50 {
                drop(bound(1, server).unwrap());
            }
            thread::sleep(Duration::from_millis(2200));
            let said = verdict();
            assert_eq!(said["level"], "critical", "{said}");
            if grants_single_ports() {
                assert_eq!(codes(&said), ["SOURCE_BOUND"]);
                assert_eq!(usable(&said), 0);
            }
            for server in [server, serve("127.0.0.5:3306")] {
                assert_eq!(connect_until_error(server, 10), (0, Some(99)));
            }
            assert_eq!(bound(1, server).unwrap_err().raw_os_error(), Some(98));
        },
    );
}

#[test]
fn a_pool_of_bind_is_told_however_it_is_spread_over_destinations() {
    in_namespace(
        "a_pool_of_bind_is_told_however_it_is_spread_over_destinations",
        || {
            port_range(40000, 40999);
            let servers = ["127.0.0.1:3306", "127.0.0.2:3306"].map(serve);
            let mut held = Vec::new();
            for (server, connections) in servers.into_iter().zip([980, 20]) {
                held.extend((0..connections).map(|_| bound(1, server).unwrap()));
            }
            let said = verdict();
            assert_eq!(said["level"], "critical", "{said}");
            if grants_single_ports() {
                assert_eq!(codes(&said), ["SOURCE_BOUND"]);
            }
            let server = serve("127.0.0.5:3306");
            assert_eq!(connect_until_error(server, 10), (0, Some(99)));
        },
    );
}

/// As many as are usable can be had from another address, toward a destination of its own.
fn as_many_as_said(last: u8) -> u32 {
    let said = usable(&verdict());
    let server = serve(&format!("127.0.0.{last}:3307"));
    assert_eq!(connect_until_error(server, 2000), (said, Some(99)));
    said
}

#[test]
fn pools_of_bind_of_several_sources_take_their_ports_from_connect_too() {
    in_namespace(
        "pools_of_bind_of_several_sources_take_their_ports_from_connect_too",
        || {
            if !grants_single_ports() {
                return; // Seen in no row: told by the kernel only once there is no port at all.
            }
            port_range(40000, 40099);
            let server = serve("127.0.0.1:3306");
            let few: Vec<_> = (0..20).map(|_| bound(9, server).unwrap()).collect();
            assert_eq!(as_many_as_said(200), 80);
            drop(few);
            port_range(41000, 41199);
            let mut held = Vec::new();
            for last in [2, 3, 4, 5] {
                held.extend((0..86).map(|_| bound(last, server).unwrap()));
            }
            let left = as_many_as_said(201);
            assert!((1..115).contains(&left), "{left}");
        },
    );
}

#[test]
fn a_bind_that_names_no_address_has_what_no_address_has() {
    in_namespace(
        "a_bind_that_names_no_address_has_what_no_address_has",
        || {
            if !grants_single_ports() {
                return; // As above.
            }
            port_range(40000, 40099);
            run("ip", &["address", "add", "10.9.9.1/32", "dev", "lo"]);
            let servers = ["127.0.0.1:3306", "10.9.9.1:3306"].map(serve);
            let anywhere = |server: SocketAddr| -> std::io::Result<Socket> {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                let unspecified: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
                socket.bind(&unspecified.into())?;
                socket.connect(&server.into())?;
                Ok(socket)
            };
            let mut held = Vec::new();
            for server in servers {
                held.extend((0..48).map(|_| anywhere(server).unwrap()));
            }
            let said = verdict();
            assert_eq!(
                (&said["level"], usable(&said)),
                (&json!("critical"), 4),
                "{said}"
            );
            let message = said["findings"][0]["message"].as_str().unwrap();
            assert!(
                message.contains("one that names no address 4, until errno 98"),
                "{message}"
            );
            for flow in said["flows"].as_array().unwrap() {
                assert_eq!(flow["ports_free"], 4, "{flow}");
            }
            assert_eq!(as_many_as_said(200), 4);
            let errno = (0..10).find_map(|_| match anywhere(servers[0]) {
                Ok(socket) => {
                    held.push(socket);
                    None
                }
                Err(error) => error.raw_os_error(),
            });
            assert_eq!(errno, Some(98));
        },
    );
}

#[test]
fn sources_that_share_their_ports_are_a_pool_too() {
    in_namespace("sources_that_share_their_ports_are_a_pool_too", || {
        if !grants_single_ports() {
            return; // As above.
        }
        port_range(40000, 40099);
        let server = serve("127.0.0.1:3306");
        let mut held = Vec::new();
        for last in [2, 3] {
            held.extend((0..90).map(|_| bound(last, server).unwrap()));
        }
        for source in ["sock_diag", "proc"] {
            let said = json(&["verdict", "--json", "--source", source]);
            assert_eq!(codes(&said), ["SOURCE_BOUND"], "{source}: {said}");
            assert_eq!(said["level"], "critical", "{source}: {said}");
        }
        as_many_as_said(200);
        let left = (0..20).take_while(|_| {
            let client = bound(2, server);
            client.map(|client| held.push(client)).is_ok()
        });
        assert_eq!(left.count(), 10);
    });
}

#[test]
fn connections_that_outlive_their_listener_keep_its_port() {
    in_namespace(
        "connections_that_outlive_their_listener_keep_its_port",
        || {
            if !grants_single_ports() {
                return; // As above.
            }
            port_range(40000, 40019);
            let accepted: Vec<_> = (0..10)
                .map(|number| {
                    let address: SocketAddr = ([127, 0, 0, 1], 40000 + number).into();
                    let listener = TcpListener::bind(address).unwrap();
                    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    let from: SocketAddr = ([127, 0, 0, 1], 20000 + number).into();
                    client.bind(&from.into()).unwrap();
                    client.connect(&address.into()).unwrap();
                    (client, listener.accept().unwrap())
                })
                .collect();
            assert_eq!(as_many_as_said(200), 10);
            drop(accepted);
        },
    );
}

#[test]
fn clients_with_a_part_of_the_range_each_are_no_pool_of_bind() {
    in_namespace(
        "clients_with_a_part_of_the_range_each_are_no_pool_of_bind",
        || {
            if !grants_single_ports() {
                return; // There is no such option.
            }
            port_range(40000, 40199);
            let server = serve("127.0.0.1:3306");
            let mut held = Vec::new();
            for worker in 0..10 {
                let (low, high) = (40000 + worker * 20, 40019 + worker * 20);
                for _ in 0..13 {
                    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    setsockopt(&client, IpBindAddressNoPort, &true).unwrap();
                    own_port_range(&client, low, high).unwrap();
                    let source: SocketAddr = ([127, 0, 0, 1], 0).into();
                    client.bind(&source.into()).unwrap();
                    client.connect(&server.into()).unwrap();
                    held.push(client);
                }
            }
            let said = verdict();
            // Such clients take ports of one parity first, as all others do, before Linux 6.8.
            let slow = ["CONNECT_SLOW"].into_iter().filter(|_| linux() < (6, 8));
            let expected: Vec<_> = ["PORTS_LOW", "HELD_OPEN"].into_iter().chain(slow).collect();
            assert_eq!(codes(&said), expected, "{said}");
            assert_eq!(as_many_as_said(200), 200);
        },
    );
}

fn reuse(verdict: &Value) -> (&Value, &Value) {
    (&verdict["flows"][0]["reuse"], &verdict["level"])
}

#[test]
fn old_time_wait_tells_more_than_a_live_connection() {
    in_namespace("old_time_wait_tells_more_than_a_live_connection", || {
        sysctl("net.ipv4.ip_local_port_range", "40000 40199");
        sysctl("net.ipv4.tcp_tw_reuse", "1");
        let mut host = Host::new("cable", "10.9.0.1/24", "10.9.0.2/24");
        host.run(&["sysctl", "-qw", "net.ipv4.tcp_timestamps=0"]);
        let server = host.serve("10.9.0.2:3306");
        assert_eq!(connect_until_error(server, 170), (170, None));
        host.run(&["sysctl", "-qw", "net.ipv4.tcp_timestamps=1"]);
        let _live = TcpStream::connect(server).unwrap();
        thread::sleep(Duration::from_millis(2200));
        let said = verdict();
        if grants_single_ports() {
            assert_eq!(
                reuse(&said),
                (&json!("refuted"), &json!("critical")),
                "{said}"
            );
        }
        assert_eq!(connect_until_error(server, 100), (29, Some(99)));
        // Within the second after which the latest come back.
        assert!(is_emulated() || verdict()["level"] == "critical");
    });
}

#[test]
fn sockets_of_a_time_without_timestamps_are_not_reused_on_this_machine_either() {
    in_namespace(
        "sockets_of_a_time_without_timestamps_are_not_reused_on_this_machine_either",
        || {
            port_range(40000, 40199);
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            sysctl("net.ipv4.tcp_timestamps", "0");
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 170), (170, None));
            sysctl("net.ipv4.tcp_timestamps", "1");
            thread::sleep(Duration::from_millis(2200));
            let said = verdict();
            if grants_single_ports() {
                assert_eq!(
                    reuse(&said),
                    (&json!("refuted"), &json!("critical")),
                    "{said}"
                );
            }
            assert_eq!(connect_until_error(server, 100), (30, Some(99)));
            assert!(is_emulated() || verdict()["level"] == "critical");
        },
    );
}

#[test]
fn a_flow_filled_within_a_second_is_waited_for() {
    in_namespace("a_flow_filled_within_a_second_is_waited_for", || {
        if !grants_single_ports() {
            return; // It cannot be told there without a live connection.
        }
        sysctl("net.ipv4.ip_local_port_range", "40000 40199");
        sysctl("net.ipv4.tcp_tw_reuse", "1");
        for (number, timestamps, told) in [(1, "0", "refuted"), (2, "1", "seen")] {
            let cable = format!("cable{number}");
            let (here, there) = (format!("10.{number}.0.1/24"), format!("10.{number}.0.2/24"));
            let mut host = Host::new(&cable, &here, &there);
            let setting = format!("net.ipv4.tcp_timestamps={timestamps}");
            host.run(&["sysctl", "-qw", &setting]);
            let server = host.serve(&format!("10.{number}.0.2:3306"));
            assert_eq!(connect_until_error(server, 300), (200, Some(99)));
            let destination = server.to_string();
            let said = json(&["verdict", "--json", &destination]);
            assert_eq!(said["flows"][0]["reuse"], told, "{said}");
            let level = if told == "seen" { "ok" } else { "critical" };
            assert_eq!(said["level"], level, "{said}");
            let works = connect_until_error(server, 10).1.is_none();
            assert_eq!(works, told == "seen");
        }
    });
}

#[test]
fn old_time_wait_bound_to_no_interface_is_free_for_sockets_that_are() {
    in_namespace(
        "old_time_wait_bound_to_no_interface_is_free_for_sockets_that_are",
        || {
            port_range(40000, 40099);
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 90), (90, None));
            thread::sleep(Duration::from_millis(2200));
            let on_lo = || {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.bind_device(Some(b"lo")).unwrap();
                client.connect(&server.into()).map(|()| client)
            };
            let mut held: Vec<_> = (0..5).map(|_| on_lo().unwrap()).collect();
            let said = verdict();
            let flows = said["flows"].as_array().unwrap();
            let flow = flows.iter().find(|flow| flow["interface"] == "lo").unwrap();
            let left = flow["ports_free"].as_u64().unwrap();
            let errno = loop {
                match on_lo() {
                    Ok(client) => held.push(client),
                    Err(error) => break error.raw_os_error(),
                }
            };
            assert_eq!((held.len() as u64 - 5, errno), (left, Some(99)), "{said}");
        },
    );
}

/// `Tcp` of /proc/net/snmp by name.
fn counters() -> HashMap<String, u64> {
    let text = fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let values = values.split(' ').map(|value| value.parse().unwrap_or(0));
    names.split(' ').map(String::from).zip(values).collect()
}

#[test]
fn asking_sends_nothing_and_leaves_nothing() {
    in_namespace("asking_sends_nothing_and_leaves_nothing", || {
        port_range(40000, 40099);
        let server = serve("127.0.0.1:3306");
        assert_eq!(connect_until_error(server, 70), (70, None));
        let before = counters();
        let said = verdict();
        assert_eq!(said["flows"][0]["ports_free"], 30, "{said}");
        let after = counters();
        for name in [
            "ActiveOpens",
            "AttemptFails",
            "OutSegs",
            "InSegs",
            "OutRsts",
        ] {
            assert_eq!(before[name], after[name], "{name}");
        }
        let states = json(&["states", "--json"]);
        assert_eq!(states["states"]["TIME_WAIT"], 70, "{states}");
        assert_eq!(states["states"].get("SYN_SENT"), None, "{states}");
    });
}
