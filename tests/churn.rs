//! Large and restless tables: the dump is not atomic, and memory does not grow with sockets.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{exit, in_namespace, json, port_range, run, text, twcheck};
use serde_json::{Value, json};

/// A client and its server on one thread: some ten thousand connections a second.
fn churn(server: &TcpListener) {
    let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (accepted, _) = server.accept().unwrap();
    drop(client);
    drop(accepted);
}

/// Reads go on while connections come and go as fast as the machine can make them. A port has one
/// place in the table, so no flow can ever show more ports than there are, and none of the sockets
/// that were there all the time may be missing or counted twice.
#[test]
fn repeated_reads_of_a_restless_table_never_fail_and_never_count_twice() {
    in_namespace(
        "repeated_reads_of_a_restless_table_never_fail_and_never_count_twice",
        || {
            port_range(20000, 60999);
            run("sysctl", &["-qw", "net.ipv4.tcp_tw_reuse=1"]);
            run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
            run("ip", &["address", "add", "192.0.2.2/32", "dev", "lo"]);
            let still = TcpListener::bind("192.0.2.2:3306").unwrap();
            let address = still.local_addr().unwrap();
            let held: Vec<_> = (0..500)
                .map(|_| {
                    (
                        TcpStream::connect(address).unwrap(),
                        still.accept().unwrap(),
                    )
                })
                .collect();
            let done = Arc::new(AtomicBool::new(false));
            let made = Arc::new(AtomicU32::new(0));
            let (told, counted) = (Arc::clone(&done), Arc::clone(&made));
            let restless = thread::spawn(move || {
                let server = TcpListener::bind("192.0.2.1:3306").unwrap();
                while !told.load(Ordering::Relaxed) && counted.load(Ordering::Relaxed) < 200_000 {
                    churn(&server);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            let start = Instant::now();
            let mut reads = 0;
            // Ten looks take longer where something else is busy.
            while start.elapsed() < Duration::from_secs(if reads < 10 { 20 } else { 6 }) {
                for source in ["sock_diag", "proc"] {
                    let output = twcheck(&["verdict", "--json", "--source", source]);
                    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
                    let status = match verdict["level"].as_str() {
                        Some("ok") => 0,
                        Some("warning") => 1,
                        Some("critical") => 2,
                        level => panic!("{level:?}: {verdict}"),
                    };
                    assert_eq!(exit(&output), status, "{}", text(&output));
                    let flows = verdict["flows"].as_array().unwrap();
                    // When rows before it go or come, /proc finds its place again by counting, and
                    // repeats or skips that many: netlink does not.
                    let most = if source == "sock_diag" {
                        let mut flows = flows.iter();
                        let still = flows.find(|flow| flow["destination"] == "192.0.2.2");
                        let still = still.expect("it is there all the time");
                        assert_eq!(
                            (&still["ports_in_use"], &still["by_state"]),
                            (&json!(500), &json!({"ESTABLISHED": 500}))
                        );
                        41_000
                    } else {
                        82_000
                    };
                    assert!(!flows.is_empty(), "{verdict}");
                    for flow in flows {
                        let ports = flow["ports_in_use"].as_u64().unwrap();
                        assert!(ports <= most, "{source}: {ports}");
                    }
                    reads += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            restless.join().unwrap();
            let rate = f64::from(made.load(Ordering::Relaxed)) / start.elapsed().as_secs_f64();
            println!("\nMEASURED {reads} reads beside {rate:.0} connections/s");
            assert!(
                reads >= 10 && rate > 1000.0,
                "{reads} reads, {rate} connections/s"
            );
            drop(held);
        },
    );
}

/// A crawler: as many destinations as connections. The worst flow is still named exactly.
#[test]
fn many_flows_are_told_apart_in_bounded_memory() {
    in_namespace("many_flows_are_told_apart_in_bounded_memory", || {
        const FLOWS: u32 = 20_000;
        let idle = peak();
        run(
            "ip",
            &["route", "add", "local", "198.18.0.0/15", "dev", "lo"],
        );
        let server = TcpListener::bind("0.0.0.0:80").unwrap();
        let connect = |address: Ipv4Addr| {
            let client = TcpStream::connect(SocketAddr::from((address, 80))).unwrap();
            let (accepted, _) = server.accept().unwrap();
            drop(client);
            drop(accepted);
        };
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 1));
        for number in 0..FLOWS {
            connect(Ipv4Addr::from(first + number));
        }
        for _ in 0..7 {
            connect(Ipv4Addr::from(first + 12_345));
        }
        let verdict = json(&["verdict", "--json", "--top", "3"]);
        assert_eq!(verdict["flows_total"], FLOWS);
        assert_eq!(verdict["flows"].as_array().unwrap().len(), 3);
        let worst = &verdict["flows"][0];
        assert_eq!(
            (&worst["destination"], &worst["ports_in_use"]),
            (
                &json!(Ipv4Addr::from(first + 12_345).to_string()),
                &json!(8)
            )
        );
        let peak = peak();
        println!("\nMEASURED {FLOWS} flows in {peak} KiB");
        assert!(
            peak < idle + FLOWS,
            "{peak} KiB, {idle} without any: a KiB each"
        );
    });
}

/// The most memory that `verdict` takes, in KiB.
fn peak() -> u32 {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%M", env!("CARGO_BIN_EXE_twcheck"), "verdict"])
        .output()
        .unwrap();
    let said = common::stderr(&output);
    said.lines().last().unwrap().parse().unwrap()
}
