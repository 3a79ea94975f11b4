//! The binary on recorded hosts: every format, word for word, and the JSON against its schema.

mod common;

use serde_json::Value;

use common::{assert_valid, exit, has_namespaces, stdout, text, twcheck};

const HOSTS: [&str; 3] = ["busy-server-6.18", "exhausted-6.18", "recycle-3.10"];

/// Beside these, one recording of each kernel that tests/kernels.sh boots, and hosts of kernels that it
/// cannot boot: what they must get is told below instead of word for word.
const KERNELS: [Told; 10] = [
    Told {
        host: "debian-11-5.10",
        verdict: "critical PORTS_EXHAUSTED",
        advice: "tcp_tw_reuse=1, tcp_max_tw_buckets=131072, ip_local_port_range=10240 65535",
    },
    Told {
        host: "debian-12-6.1-small",
        verdict: "warning TW_BUCKET_OVERFLOW",
        // In one step, with what brings errno 99 last.
        advice: "tcp_tw_reuse=1, ip_local_port_range=10240 65535, tcp_max_tw_buckets=131072",
    },
    Told {
        host: "debian-13-6.12",
        verdict: "warning PORTS_LOW, warning CONNECT_SLOW",
        advice: "tcp_tw_reuse=1, tcp_max_tw_buckets=131072, ip_local_port_range=10240 65535",
    },
    Told {
        host: "debian-13-6.16",
        verdict: "critical PORTS_LOW, critical HELD_OPEN, warning CONNECT_SLOW",
        // Nothing about TIME_WAIT but what the range takes along.
        advice: "tcp_max_tw_buckets=131072, ip_local_port_range=10240 65535",
    },
    Told {
        host: "debian-13-6.18",
        verdict: "warning CLOSE_WAIT_LEAK",
        advice: "tcp_tw_reuse=1, ip_local_port_range=10240 65535, tcp_max_tw_buckets=131072",
    },
    Told {
        host: "debian-13-7.3",
        verdict: "ok",
        advice: "tcp_tw_reuse=1, ip_local_port_range=10240 65535, tcp_max_tw_buckets=131072",
    },
    Told {
        host: "debian-6.1-s390x",
        verdict: "ok",
        advice: "tcp_tw_reuse=1, tcp_max_tw_buckets=131072, ip_local_port_range=10240 65535",
    },
    Told {
        host: "made-amazon-4.14",
        verdict: "critical PORTS_EXHAUSTED",
        advice: "tcp_tw_reuse=1, tcp_max_tw_buckets=131072, ip_local_port_range=10240 65535",
    },
    Told {
        host: "made-rhel-8-4.18",
        verdict: "warning PORTS_LOW, warning CONNECT_SLOW",
        advice: "tcp_tw_reuse=1, ip_local_port_range=10240 65535",
    },
    Told {
        host: "made-alibaba-5.10",
        verdict: "ok",
        advice: "tcp_tw_reuse=1, ip_local_port_range=10240 65535",
    },
];

struct Told {
    host: &'static str,
    /// The level of each finding and its code, or `ok` where there is none.
    verdict: &'static str,
    /// Each change.
    advice: &'static str,
}

fn on(host: &str, arguments: &[&str]) -> (i32, String) {
    let root = format!("tests/hosts/{host}/proc");
    let output = twcheck(&[arguments, &["--proc-root", &root]].concat());
    (exit(&output), stdout(&output))
}

/// The name of a file without blanks.
fn snapshot(host: &str, arguments: &str) -> String {
    let words = arguments.replace("--", "").replace(':', "-");
    format!("{host}_{}", words.replace(' ', "_"))
}

#[test]
fn tables_and_lines_are_as_reviewed() {
    for host in HOSTS {
        for arguments in [
            &["verdict"][..],
            &["verdict", "--format", "plain"],
            &["verdict", "--format", "markdown"],
            &["verdict", "192.0.2.1:3306"],
            &["states", "192.0.2.1"],
            &["states", "--all", "--by", "flow"],
            &["states", "--format", "plain"],
            &["advise"],
            &["advise", "--target-rate", "2000", "--busy", "20ms"],
            &["advise", "--format", "plain"],
            &["advise", "--format", "sysctl"],
        ] {
            let (status, shown) = on(host, arguments);
            let name = snapshot(host, &arguments.join(" "));
            insta::assert_snapshot!(name, format!("{shown}exit {status}\n"));
        }
    }
}

#[test]
fn hosts_of_other_kernels_get_the_verdict_and_the_advice_that_they_must() {
    let report = |host: &str, command: &str| -> Value {
        let (_, shown) = on(host, &[command, "--json"]);
        let report = serde_json::from_str(&shown).unwrap();
        assert_valid(command, &report);
        report
    };
    let list = |report: &Value, key: &str, [first, between, second]: [&str; 3]| {
        let entries = report[key].as_array().unwrap().iter();
        let told = entries.map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            format!("{}{between}{}", text(first), text(second))
        });
        told.collect::<Vec<_>>().join(", ")
    };
    for Told {
        host,
        verdict,
        advice,
    } in KERNELS
    {
        let said = report(host, "verdict");
        let found = list(&said, "findings", ["level", " ", "code"]);
        let found = if found.is_empty() { "ok" } else { &found };
        assert_eq!(found, verdict, "{host}");
        let changes = report(host, "advise");
        let changes = list(&changes, "changes", ["sysctl", "=", "recommended"]);
        assert_eq!(changes.replace("net.ipv4.", ""), advice, "{host}");
        // As many as there are rows, but for listeners.
        let rows = ["tcp", "tcp6"].map(|name| {
            let path = format!("tests/hosts/{host}/proc/net/{name}");
            let table = std::fs::read_to_string(path).unwrap();
            let states = table
                .lines()
                .filter_map(|row| row.split_whitespace().nth(3));
            states.skip(1).filter(|state| *state != "0A").count()
        });
        let total = rows.iter().sum::<usize>();
        assert_eq!(report(host, "states")["total"], total, "{host}");
    }
    // 5 s instead of 60: 1,000 ports bear 200 connections/s.
    let alibaba = report("made-alibaba-5.10", "verdict");
    assert_eq!(alibaba["capacity"]["max_connections_per_second"], 200.0);
    // What dropped TIME_WAIT does to a bound is told as such.
    let small = report("debian-12-6.1-small", "verdict");
    assert_eq!(
        (
            &small["capacity"]["time_wait_dropped"],
            &small["flows"][0]["max_connections_per_second"]
        ),
        (&Value::Bool(true), &Value::Null)
    );
}

#[test]
fn json_is_as_reviewed() {
    for host in HOSTS {
        for command in ["verdict", "states", "advise"] {
            let (_, shown) = on(host, &[command, "--json"]);
            insta::assert_snapshot!(snapshot(host, &format!("{command} json")), shown);
        }
    }
}

#[test]
fn no_name_of_a_snapshot_has_a_blank() {
    let files = std::fs::read_dir("tests/snapshots").unwrap();
    let names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty());
    let blank: Vec<_> = names
        .iter()
        .filter(|name| name.contains(char::is_whitespace))
        .collect();
    assert_eq!(blank, Vec::<&String>::new());
}

#[test]
fn json_keeps_its_contract() {
    for command in ["verdict", "states", "advise"] {
        for host in HOSTS {
            let (_, shown) = on(host, &[command, "--json"]);
            assert_valid(command, &serde_json::from_str(&shown).unwrap());
        }
        let live = twcheck(&[command, "--json"]);
        assert_valid(
            command,
            &serde_json::from_slice(&live.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", text(&live))),
        );
    }
}

#[test]
fn the_json_of_a_run_keeps_its_contract() {
    if !has_namespaces("the_json_of_a_run_keeps_its_contract") {
        return;
    }
    let output = twcheck(&["repro", "--json", "--connections", "20"]);
    assert_valid(
        "repro",
        &serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output))),
    );
}
