//! What `verdict` says of the last minute and the next one, against what the kernel then does.

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    connect_and_close, exit, in_namespace, json, port_range, run, serve, stdout, text, twcheck,
};
use serde_json::{Value, json};

/// Connects and closes at `rate` for `time` or until an error; the seconds until errno 99.
fn pace(server: SocketAddr, rate: f64, time: Duration) -> Option<f64> {
    let start = Instant::now();
    for number in 1.. {
        if start.elapsed() >= time {
            return None;
        }
        if let Err(error) = connect_and_close(server) {
            assert_eq!(error.raw_os_error(), Some(99));
            return Some(start.elapsed().as_secs_f64());
        }
        let next = Duration::from_secs_f64(f64::from(number) / rate);
        thread::sleep(next.saturating_sub(start.elapsed()));
    }
    unreachable!("counting does not end")
}

fn verdict() -> Value {
    json(&["verdict", "--json"])
}

fn codes(verdict: &Value) -> Vec<String> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| finding["code"].as_str().unwrap().to_owned())
        .collect()
}

/// The forecast taken 10 s in, against the first errno 99.
fn the_kernel_runs_out_when_said(high: u16, rate: f64) {
    port_range(40000, high);
    let server = serve("127.0.0.1:3306");
    let start = Instant::now();
    let client = thread::spawn(move || pace(server, rate, Duration::from_secs(90)));
    thread::sleep(Duration::from_secs(10));
    let at = start.elapsed().as_secs_f64();
    let verdict = verdict();
    let said = verdict["flows"][0]["seconds_to_exhaustion"]
        .as_f64()
        .expect("it runs out");
    assert!(
        codes(&verdict).contains(&"RATE_ABOVE_LIMIT".to_owned()),
        "{verdict}"
    );
    let shown = verdict["flows"][0]["rate"]["now"].as_f64().unwrap();
    let came = client.join().unwrap().expect("it ran out") - at;
    println!(
        "\nMEASURED {} ports at {rate}/s: rate said {shown}; exhaustion said in {said} s, came in {came:.2} s",
        u32::from(high) - 39999
    );
    assert!((said - came).abs() <= 0.5, "said {said}, came {came}");
    let range = &verdict["flows"][0]["seconds_to_exhaustion_range"];
    let (earliest, latest) = (range[0].as_f64().unwrap(), range[1].as_f64());
    assert!(
        earliest <= came + 0.5 && latest.is_none_or(|latest| came <= latest + 0.5),
        "said {range}, came {came}"
    );
    assert!(
        (shown - rate).abs() <= rate * 0.05,
        "said {shown}, was {rate}"
    );
}

#[test]
fn a_forecast_for_1000_ports_at_60_a_second() {
    in_namespace("a_forecast_for_1000_ports_at_60_a_second", || {
        the_kernel_runs_out_when_said(40999, 60.0);
    });
}

#[test]
fn a_forecast_for_3000_ports_at_160_a_second() {
    in_namespace("a_forecast_for_3000_ports_at_160_a_second", || {
        the_kernel_runs_out_when_said(42999, 160.0);
    });
}

#[test]
fn a_forecast_for_800_ports_barely_above_the_limit() {
    in_namespace("a_forecast_for_800_ports_barely_above_the_limit", || {
        the_kernel_runs_out_when_said(40799, 15.0);
    });
}

/// The limit of 1,200 ports is 20 a second; for longer than TIME_WAIT lasts.
#[test]
fn at_80_percent_of_the_limit_it_never_cries_wolf() {
    in_namespace("at_80_percent_of_the_limit_it_never_cries_wolf", || {
        port_range(40000, 41199);
        let server = serve("127.0.0.1:3306");
        let client = thread::spawn(move || pace(server, 16.0, Duration::from_secs(75)));
        let mut looks = 0;
        while !client.is_finished() {
            thread::sleep(Duration::from_secs(2));
            let verdict = json(&["verdict", "--json", "--warn", "95", "--crit", "99"]);
            assert_eq!(
                verdict["flows"][0]["seconds_to_exhaustion"],
                Value::Null,
                "{verdict}"
            );
            // Overdue timers are no part of the history.
            let peak = verdict["flows"][0]["rate"]["peak_1_s"].as_u64().unwrap();
            assert!((16..=18).contains(&peak), "{verdict}");
            assert!(
                !codes(&verdict).contains(&"RATE_ABOVE_LIMIT".to_owned()),
                "{verdict}"
            );
            looks += 1;
        }
        assert_eq!(client.join().unwrap(), None, "and the kernel never ran out");
        assert!(looks >= 30, "{looks}");
    });
}

#[test]
fn a_client_that_speeds_up_or_stops_is_judged_by_what_it_does_now() {
    in_namespace(
        "a_client_that_speeds_up_or_stops_is_judged_by_what_it_does_now",
        || {
            port_range(40000, 41999);
            let server = serve("127.0.0.1:3306");
            let said = || verdict()["flows"][0]["seconds_to_exhaustion"].clone();
            assert_eq!(pace(server, 20.0, Duration::from_secs(10)), None);
            assert_eq!(said(), Value::Null, "20 a second is below the limit of 33");
            assert_eq!(pace(server, 100.0, Duration::from_secs(6)), None);
            // 200 + 600 are taken, 1,200 are left: 12 s at the new rate.
            let faster = said().as_f64().expect("100 a second is above it");
            assert!((faster - 12.0).abs() <= 0.7, "{faster}");
            thread::sleep(Duration::from_millis(2500));
            assert_eq!(said(), Value::Null, "it has stopped");
        },
    );
}

#[test]
fn both_sources_tell_the_same_minute() {
    in_namespace("both_sources_tell_the_same_minute", || {
        port_range(40000, 42999);
        let server = serve("127.0.0.1:3306");
        for (rate, seconds) in [(40.0, 3), (120.0, 2), (10.0, 2)] {
            assert_eq!(pace(server, rate, Duration::from_secs(seconds)), None);
        }
        let history = |source| {
            let verdict = json(&["verdict", "--json", "--source", source]);
            let seconds = verdict["flows"][0]["closed_per_second"]
                .as_array()
                .unwrap()
                .clone();
            assert_eq!(seconds.len(), 60);
            seconds
                .into_iter()
                .map(|count| count.as_i64().unwrap())
                .collect::<Vec<_>>()
        };
        // Time goes by between two looks: what /proc tells, in hundredths of a second, lies between
        // what the kernel tells before and after it.
        let (netlink, proc, later) = (history("sock_diag"), history("proc"), history("sock_diag"));
        let all = |seconds: &[i64]| seconds.iter().sum::<i64>();
        assert_eq!((all(&netlink), all(&later)), (all(&proc), all(&proc)));
        for (second, told) in proc.iter().enumerate() {
            let (one, other) = (netlink[second], later[second]);
            let between = one.min(other) - 4..=one.max(other) + 4;
            assert!(
                between.contains(told),
                "second {second}: {netlink:?} {proc:?} {later:?}"
            );
        }
        assert!(
            (115..=121).contains(&netlink[2]) || (115..=121).contains(&netlink[3]),
            "{netlink:?}"
        );
    });
}

#[test]
fn where_reuse_applies_the_history_is_called_a_lower_bound() {
    in_namespace(
        "where_reuse_applies_the_history_is_called_a_lower_bound",
        || {
            run(
                "sysctl",
                &["-qw", "net.ipv4.ip_local_port_range=40000 40199"],
            );
            let server = serve("127.0.0.1:3306");
            // 100 a second through 200 ports: each port is reused again and again.
            assert_eq!(pace(server, 100.0, Duration::from_secs(6)), None);
            let flow = verdict()["flows"][0].clone();
            assert_eq!(flow["reuse_applies"], json!(true));
            assert_eq!(flow["rate"]["lower_bound"], json!(true));
            assert!(flow["rate"]["last_10_s"].as_f64().unwrap() < 60.0, "{flow}");
            assert_eq!(flow["seconds_to_exhaustion"], Value::Null);
        },
    );
}

#[test]
fn an_application_that_does_not_close_is_told_from_time_wait() {
    in_namespace(
        "an_application_that_does_not_close_is_told_from_time_wait",
        || {
            port_range(40000, 40199);
            let listener = TcpListener::bind("127.0.0.1:3306").unwrap();
            let server = listener.local_addr().unwrap();
            thread::spawn(move || listener.incoming().for_each(drop));
            let leaked: Vec<_> = (0..120)
                .map(|_| TcpStream::connect(server).unwrap())
                .collect();
            thread::sleep(Duration::from_millis(200));
            let verdict = verdict();
            assert_eq!(verdict["flows"][0]["by_state"], json!({"CLOSE_WAIT": 120}));
            assert_eq!(
                codes(&verdict),
                ["PORTS_LOW", "CLOSE_WAIT_LEAK", "CONNECT_SLOW"]
            );
            drop(leaked);
        },
    );
}

#[test]
fn a_server_that_does_not_answer_is_told_from_exhaustion() {
    in_namespace(
        "a_server_that_does_not_answer_is_told_from_exhaustion",
        || {
            run("ip", &["route", "add", "198.51.100.0/24", "dev", "lo"]);
            let nobody: SocketAddr = "198.51.100.1:3306".parse().unwrap();
            for _ in 0..12 {
                thread::spawn(move || TcpStream::connect_timeout(&nobody, Duration::from_secs(20)));
            }
            thread::sleep(Duration::from_millis(300));
            let verdict = verdict();
            assert_eq!(verdict["flows"][0]["by_state"], json!({"SYN_SENT": 12}));
            assert_eq!(codes(&verdict), ["SYN_SENT_PILE"]);
            assert_eq!(verdict["level"], "warning");
        },
    );
}

/// `nf_conntrack_max` is the machine's, the count each namespace's own: datagrams to a quarter of a
/// million different port pairs fill it.
#[test]
fn a_full_conntrack_table_is_told_from_exhaustion() {
    in_namespace("a_full_conntrack_table_is_told_from_exhaustion", || {
        if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() {
            return common::skip(
                "a_full_conntrack_table_is_told_from_exhaustion",
                "no nf_conntrack",
            );
        }
        run(
            "nft",
            &[
                "add table inet t; add chain inet t out { type filter hook output priority 0; }; add rule inet t out ct state new counter",
            ],
        );
        let read = |name: &str| -> u64 {
            let text =
                std::fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
            text.unwrap().trim().parse().unwrap()
        };
        assert_eq!(codes(&verdict()), Vec::<String>::new());
        let wanted = read("max") * 92 / 100;
        'full: for _ in 0..wanted.div_ceil(50_000) {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for port in 1..=60_000_u16 {
                // A closed port answers with an error that the next send reports.
                let _ = socket.send_to(b"x", ("127.0.0.1", port));
                if port % 1000 == 0 && read("count") >= wanted {
                    break 'full;
                }
            }
        }
        let verdict = verdict();
        assert_eq!(
            codes(&verdict),
            ["CONNTRACK_FULL"],
            "{} of {}",
            read("count"),
            read("max")
        );
    });
}

#[test]
fn a_quiet_machine_gets_four_lines() {
    in_namespace("a_quiet_machine_gets_four_lines", || {
        let _server = serve("127.0.0.1:3306");
        let output = twcheck(&["verdict"]);
        assert_eq!(
            (exit(&output), stdout(&output).lines().count()),
            (0, 4),
            "{}",
            text(&output)
        );
    });
}

#[test]
fn the_process_that_holds_connections_is_named_only_where_it_is_worth_it() {
    in_namespace(
        "the_process_that_holds_connections_is_named_only_where_it_is_worth_it",
        || {
            port_range(40000, 40099);
            let server = serve("127.0.0.1:3306");
            let mut held: Vec<_> = (0..30)
                .map(|_| TcpStream::connect(server).unwrap())
                .collect();
            assert_eq!(
                verdict()["flows"][0]["owners"],
                Value::Null,
                "30 % is no trouble"
            );
            let me = |verdict: Value| {
                let owner = verdict["flows"][0]["owners"][0].clone();
                (
                    owner["pid"].as_u64(),
                    owner["sockets"].as_u64(),
                    owner["user"].as_str().map(str::to_owned),
                )
            };
            let pid = Some(u64::from(std::process::id()));
            let user = Some("root".to_owned());
            assert_eq!(
                me(json(&["verdict", "--json", "--owners"])),
                (pid, Some(30), user.clone())
            );
            held.extend((0..30).map(|_| TcpStream::connect(server).unwrap()));
            assert_eq!(me(verdict()), (pid, Some(60), user.clone()), "60 % is");
            assert_eq!(
                me(json(&["verdict", "--json", "--source", "proc"])),
                (pid, Some(60), user)
            );
        },
    );
}

/// Each connection of the loop lives for some 100 µs.
#[test]
fn sampling_catches_a_tight_loop() {
    in_namespace("sampling_catches_a_tight_loop", || {
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let server = serve("192.0.2.1:3306");
        let client = thread::spawn(move || {
            let mut connections = 0_u32;
            while !told.load(Ordering::Relaxed) && connections < 27_000 {
                connect_and_close(server).unwrap();
                connections += 1;
            }
            connections
        });
        thread::sleep(Duration::from_millis(200));
        let verdict = json(&["verdict", "--json", "--sample", "2s"]);
        done.store(true, Ordering::Relaxed);
        let connections = client.join().unwrap();
        let owners = verdict["flows"][0]["owners"].as_array().unwrap();
        println!(
            "\nMEASURED of {connections} connections sampling caught {}",
            verdict["flows"][0]["owners"]
        );
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(owners[0]["pid"], json!(std::process::id()));
        assert!(
            owners[0]["command"]
                .as_str()
                .unwrap()
                .starts_with("forecast"),
            "{owners:?}"
        );
    });
}

#[test]
fn without_the_right_to_read_processes_the_missing_capability_is_named() {
    in_namespace(
        "without_the_right_to_read_processes_the_missing_capability_is_named",
        || {
            port_range(40000, 40099);
            let server = serve("127.0.0.1:3306");
            let held: Vec<_> = (0..60)
                .map(|_| TcpStream::connect(server).unwrap())
                .collect();
            // Of the same user, but without the capability to look into a process that has more.
            let output = Command::new("setpriv")
                .args([
                    "--bounding-set=-all",
                    "--inh-caps=-all",
                    "--no-new-privs",
                    "--",
                ])
                .args([env!("CARGO_BIN_EXE_twcheck"), "verdict", "--json"])
                .output()
                .unwrap();
            let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(verdict["flows"][0]["owners"], json!([]));
            // Before Linux 6.8 there is another, about bound ports.
            let mut gaps = verdict["gaps"].as_array().unwrap().iter();
            let gap = gaps.find(|gap| gap["what"] == "owners of 60 of 60 sockets of user root");
            let gap = gap.unwrap_or_else(|| panic!("{verdict}"));
            assert!(
                gap["why"].as_str().unwrap().contains("CAP_SYS_PTRACE"),
                "{gap}"
            );
            drop(held);
        },
    );
}
