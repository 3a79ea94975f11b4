//! Recordings: what is said of one against what was said of the machine, and what ss and netstat
//! printed against what the kernel has.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    assert_valid, connect_and_close, connect_until_error, exit, in_namespace, json, port_range,
    run, serve, stderr, stdout, sysctl, text, twcheck,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// Records into `to`: what was said of that moment.
fn record(to: &Path, options: &[&str]) -> String {
    let output = twcheck(&[&["record", to.to_str().unwrap()][..], options].concat());
    assert_eq!(exit(&output), 0, "{}", text(&output));
    stdout(&output)
}

fn from(command: &str, path: &Path) -> Output {
    twcheck(&[command, "--from", path.to_str().unwrap()])
}

fn json_from(command: &str, path: &Path) -> Value {
    let report = json(&[command, "--json", "--from", path.to_str().unwrap()]);
    assert_valid(command, &report);
    report
}

fn codes(verdict: &Value) -> Vec<&str> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings.map(|it| it["code"].as_str().unwrap()).collect()
}

/// Clients that never stop, while `look` looks.
fn under_load(server: SocketAddr, look: impl FnOnce()) {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    let clients: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(move || {
                while !STOP.load(Ordering::Relaxed) {
                    if connect_and_close(server).is_err() {
                        thread::sleep(Duration::from_millis(5));
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            })
        })
        .collect();
    look();
    STOP.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn a_recording_gives_the_verdict_of_that_moment_to_the_letter() {
    in_namespace(
        "a_recording_gives_the_verdict_of_that_moment_to_the_letter",
        || {
            let folder = tempfile::tempdir().unwrap();
            run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
            port_range(20000, 24999);
            let server = serve("192.0.2.1:3306");
            let mut seen = Vec::new();
            under_load(server, || {
                for (moment, settings) in [
                    ("plain", &[][..]),
                    ("reuse", &[("net.ipv4.tcp_tw_reuse", "1")]),
                    ("narrow", &[("net.ipv4.ip_local_port_range", "20000 20299")]),
                    ("few", &[("net.ipv4.tcp_tw_reuse", "0")]),
                ] {
                    for (key, value) in settings {
                        sysctl(key, value);
                    }
                    thread::sleep(Duration::from_millis(if moment == "plain" {
                        4000
                    } else {
                        700
                    }));
                    for name in [moment.to_owned(), format!("{moment}.tar")] {
                        let path = folder.path().join(name);
                        let said = record(&path, &[]);
                        for _ in 0..2 {
                            assert_eq!(stdout(&from("verdict", &path)), said, "{moment}");
                        }
                        let verdict = json_from("verdict", &path);
                        assert_eq!(
                            verdict["host"]["netns"],
                            json(&["verdict", "--json"])["host"]["netns"]
                        );
                        seen.extend(codes(&verdict).iter().map(ToString::to_string));
                        for command in ["states", "advise"] {
                            json_from(command, &path);
                        }
                    }
                }
            });
            // It was about something.
            for code in ["RATE_ABOVE_LIMIT", "PORTS_EXHAUSTED", "CONNECT_SLOW"] {
                assert!(seen.iter().any(|it| it == code), "{code}: {seen:?}");
            }
        },
    );
}

/// What does not change from one look to the next.
fn lasting(verdict: &Value) -> Value {
    let flows = verdict["flows"].as_array().unwrap().iter();
    let of_flow = |flow: &Value| {
        let mut fields = serde_json::Map::new();
        for field in [
            "source",
            "destination",
            "destination_port",
            "ports_in_use",
            "ports_free",
            "by_state",
            "owners",
            "reuse",
        ] {
            fields.insert(field.into(), flow[field].clone());
        }
        Value::Object(fields)
    };
    json!({
        "level": verdict["level"],
        "codes": codes(verdict),
        "capacity": verdict["capacity"],
        "tunables": verdict["tunables"],
        "time_wait": verdict["time_wait"],
        "host": verdict["host"],
        "flows": flows.map(of_flow).collect::<Vec<_>>(),
        "gaps": verdict["gaps"],
    })
}

#[test]
fn a_recording_says_what_is_said_of_the_machine() {
    in_namespace("a_recording_says_what_is_said_of_the_machine", || {
        let folder = tempfile::tempdir().unwrap();
        port_range(20000, 20999);
        let server = serve("127.0.0.1:3306");
        let mut held = vec![TcpStream::connect(server).unwrap()];
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 1], 20101)).into())
            .unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:15353").unwrap();
        for more in [0, 300, 600, 1200] {
            let (made, _) = connect_until_error(server, more);
            if made == more {
                held.push(TcpStream::connect(server).unwrap());
            }
            let path = folder.path().join(format!("{more}.tar"));
            record(&path, &[]);
            for (options, command) in [
                (&["--owners"][..], "verdict"),
                (&["--top", "0"], "verdict"),
                (&["127.0.0.1:3306"], "verdict"),
                (&["127.0.0.1:3306"], "advise"),
                (&["--target-rate", "500"], "advise"),
                (&[], "advise"),
                (&["--all", "--by", "flow"], "states"),
                (&["127.0.0.1:3306"], "states"),
            ] {
                let words = [&[command, "--json"][..], options].concat();
                let live = json(&words);
                let path = path.to_str().unwrap();
                let recorded = json(&[&words[..], &["--from", path]].concat());
                if command == "verdict" {
                    assert_eq!(lasting(&recorded), lasting(&live), "{more} {options:?}");
                    let [recorded, live] =
                        [&recorded, &live].map(|it| it["destination"]["addresses"].clone());
                    assert_eq!(recorded, live);
                } else {
                    let (mut recorded, mut live) = (recorded, live);
                    for it in [&mut recorded, &mut live] {
                        // It tells how many were closed in which second.
                        it["application"] = json!(null);
                    }
                    assert_eq!(recorded, live, "{command} {more} {options:?}");
                }
            }
        }
        drop((held, bound, udp));
    });
}

/// Of a table of more than 20,000 sockets a look asks for less.
#[test]
fn a_large_table_is_recorded_whole_and_gives_the_same() {
    in_namespace("a_large_table_is_recorded_whole_and_gives_the_same", || {
        let folder = tempfile::tempdir().unwrap();
        port_range(20000, 60999);
        for port in [3306, 3307] {
            let server = serve(&format!("127.0.0.1:{port}"));
            assert_eq!(connect_until_error(server, 12_000), (12_000, None));
        }
        let path = folder.path().join("large.tar");
        let said = record(&path, &[]);
        assert_eq!(stdout(&from("verdict", &path)), said);
        let (recorded, live) = (json_from("verdict", &path), json(&["verdict", "--json"]));
        for field in ["capacity", "tunables", "time_wait", "gaps", "host"] {
            assert_eq!(recorded[field], live[field], "{field}");
        }
        assert_eq!(json_from("states", &path), json(&["states", "--json"]));
    });
}

#[test]
fn another_namespace_is_recorded_from_outside_and_named() {
    in_namespace(
        "another_namespace_is_recorded_from_outside_and_named",
        || {
            let folder = tempfile::tempdir().unwrap();
            let mut pod = Command::new("unshare")
            .args(["--net", "sh", "-c"])
            .arg("echo 23000 23099 > /proc/sys/net/ipv4/ip_local_port_range; echo; exec sleep 60")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
            let _ = pod.stdout.as_mut().unwrap().read(&mut [0]).unwrap();
            let path = folder.path().join("pod.tar");
            let pid = pod.id().to_string();
            let said = record(&path, &["--pid", &pid]);
            pod.kill().unwrap();
            pod.wait().unwrap();
            let again = stdout(&from("verdict", &path));
            assert_eq!(again, said);
            assert!(said.contains("Namespace: "), "{said}");
            assert!(
                said.contains(&format!("`twcheck verdict --pid {pid} HOST:PORT`")),
                "{said}"
            );
            let verdict = json_from("verdict", &path);
            assert_eq!(
                verdict["tunables"]["ip_local_port_range"],
                json!([23000, 23099])
            );
            assert_eq!(verdict["namespace"]["processes"][0]["pid"].to_string(), pid);
        },
    );
}

/// Without what netlink said it is what a copy of /proc is.
#[test]
fn the_files_of_a_recording_are_all_that_is_read_of_proc() {
    in_namespace(
        "the_files_of_a_recording_are_all_that_is_read_of_proc",
        || {
            let folder = tempfile::tempdir().unwrap();
            port_range(20000, 20999);
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 600), (600, None));
            let path = folder.path().join("host");
            record(&path, &[]);
            fs::remove_dir_all(path.join("twcheck")).unwrap();
            let live = json(&["verdict", "--json", "--source", "proc"]);
            let recorded = json_from("verdict", &path);
            for field in ["tunables", "time_wait", "level"] {
                assert_eq!(recorded[field], live[field], "{field}");
            }
            assert_eq!(recorded["flows"][0]["ports_in_use"], 600);
            let gaps = recorded["gaps"].to_string();
            assert!(!gaps.contains("missing"), "{gaps}");
            let as_before = path.join("proc");
            let root = as_before.to_str().unwrap();
            let before = json(&["verdict", "--json", "--proc-root", root]);
            assert_eq!(before, recorded);
            // And so says --source proc of one that has both.
            let both = folder.path().join("both.tar");
            record(&both, &[]);
            let both = both.to_str().unwrap();
            let said = json(&["states", "--json", "--from", both, "--source", "proc"]);
            assert_eq!(
                (&said["source"], &said["states"]["TIME_WAIT"]),
                (&json!("proc"), &json!(600))
            );
        },
    );
}

/// All files of a folder, one after the other.
fn all_bytes(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(all_bytes(&path));
        } else {
            bytes.extend(fs::read(path).unwrap());
        }
    }
    bytes
}

/// Nothing in the files of a scrubbed recording names the machine or its addresses.
fn assert_no_names(scrubbed: &Path) {
    let bytes = String::from_utf8(all_bytes(scrubbed)).unwrap();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hex = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
    for secret in [
        "198.51.100.7",
        "2001:db8:77",
        "203.0.113",
        &hex([198, 51, 100, 7]),
        &hex([203, 0, 113, 200]),
        &hex([0, 0x77, 0, 0]),
        &format!("\n{hostname}"),
        &format!("\"{}", env!("CARGO_PKG_NAME")),
        "from-",
    ] {
        assert!(!bytes.contains(secret), "{secret:?}");
    }
}

/// A real address is in none of its flows, which says nothing about the real flows.
fn assert_real_addresses_are_refused(scrubbed: &Path, made_up: &str) {
    let path = scrubbed.to_str().unwrap();
    for (asked, is_refused) in [
        ("198.51.100.7:3306", true),
        ("10.0.0.5:3306", true),
        ("[2001:db8:77::5]:5432", true),
        (":3306", false),
        ("127.0.0.1:80", false),
        (made_up, false),
    ] {
        for command in ["verdict", "states", "advise"] {
            let output = twcheck(&[command, asked, "--from", path]);
            let told = stderr(&output).contains("its addresses are scrubbed");
            assert_eq!(told, is_refused, "{command} {asked}: {}", text(&output));
            assert_eq!(told, stdout(&output).is_empty());
        }
    }
    let error = "dial tcp 10.0.0.5:3306: connect: cannot assign requested address";
    let output = twcheck(&["explain", error, "--from", path, "--json"]);
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    let now = explained["now"][0].to_string();
    assert!(now.contains("its addresses are scrubbed"), "{now}");
}

/// The files and the answers of a scrubbed recording have the same addresses.
fn assert_tables_agree(scrubbed: &Path, after: &Value) {
    let by_proc = scrubbed.to_str().unwrap();
    let by_proc = json(&[
        "states", "--json", "--by", "flow", "--source", "proc", "--from", by_proc,
    ]);
    let by_netlink = json_from("states", scrubbed);
    assert_eq!(by_proc["states"], by_netlink["states"]);
    let servers = |flows: &Value| {
        let flows = flows.as_array().unwrap().iter();
        let mut servers: Vec<_> = flows.map(|it| it["destination"].to_string()).collect();
        servers.sort();
        servers
    };
    assert_eq!(servers(&by_proc["flows"]), servers(after));
}

#[test]
fn a_scrubbed_recording_has_the_same_flows_and_none_of_the_names() {
    in_namespace(
        "a_scrubbed_recording_has_the_same_flows_and_none_of_the_names",
        || {
            let folder = tempfile::tempdir().unwrap();
            for address in ["198.51.100.7/32", "2001:db8:77::5/128", "203.0.113.200/32"] {
                run("ip", &["address", "add", address, "dev", "lo"]);
            }
            port_range(20000, 20999);
            let mut held = Vec::new();
            for (address, number) in [
                ("198.51.100.7:3306", 600_u32),
                ("[2001:db8:77::5]:5432", 300),
                ("127.0.0.1:80", 20),
                ("[::ffff:203.0.113.200]:81", 9),
            ] {
                let server = serve(address);
                assert_eq!(
                    connect_until_error(server, number),
                    (number, None),
                    "{address}"
                );
                held.push(TcpStream::connect(server).unwrap());
            }
            let (plain, scrubbed) = (folder.path().join("plain"), folder.path().join("scrubbed"));
            record(&plain, &[]);
            let said = record(&scrubbed, &["--scrub"]);
            assert_eq!(stdout(&from("verdict", &scrubbed)), said);
            let flows = |path: &Path| {
                let verdict = json(&[
                    "verdict",
                    "--json",
                    "--owners",
                    "--from",
                    path.to_str().unwrap(),
                ]);
                let flows = verdict["flows"].as_array().unwrap().clone();
                (flows, verdict)
            };
            let ((before, plain_verdict), (after, verdict)) = (flows(&plain), flows(&scrubbed));
            for field in ["level", "capacity", "tunables", "time_wait"] {
                assert_eq!(verdict[field], plain_verdict[field], "{field}");
            }
            assert_eq!(codes(&verdict), codes(&plain_verdict));
            let mut renamed = Vec::new();
            for (old, new) in before.iter().zip(&after) {
                for field in [
                    "ports_in_use",
                    "ports_free",
                    "by_state",
                    "destination_port",
                    "loopback",
                    "reuse",
                ] {
                    assert_eq!(old[field], new[field], "{field}");
                }
                for end in ["source", "destination"] {
                    let [old, new] = [old, new].map(|it| it[end].as_str().unwrap().to_owned());
                    assert_eq!(old.contains(':'), new.contains(':'), "{old} {new}");
                    renamed.push((old, new));
                }
                assert_eq!(old["owners"][0]["pid"], new["owners"][0]["pid"]);
                assert_eq!(new["owners"][0]["command"], "command-1");
            }
            assert_eq!(before.len(), after.len());
            // The same by the same, and loopback stays.
            for (old, new) in &renamed {
                assert_eq!(old == new, old == "127.0.0.1", "{old} {new}");
                let both = renamed.iter().filter(|it| it.0 == *old || it.1 == *new);
                assert!(
                    both.into_iter().all(|it| it.0 == *old && it.1 == *new),
                    "{renamed:?}"
                );
            }
            assert_no_names(&scrubbed);
            let server = after[0]["destination"].as_str().unwrap();
            assert_real_addresses_are_refused(&scrubbed, server);
            // A time that no calendar has.
            let answers = scrubbed.join("twcheck/answers.json");
            let text = fs::read_to_string(&answers).unwrap();
            let taken = text.lines().find(|it| it.contains("\"taken\"")).unwrap();
            fs::write(
                &answers,
                text.replace(taken, "\"taken\": 18446744073709551615,"),
            )
            .unwrap();
            assert_eq!(stdout(&from("verdict", &scrubbed)), said);
            assert_tables_agree(&scrubbed, &json!(after));
        },
    );
}

#[test]
fn what_is_there_is_not_written_over_and_what_cannot_be_written_leaves_nothing() {
    in_namespace(
        "what_is_there_is_not_written_over_and_what_cannot_be_written_leaves_nothing",
        || {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::write(at("file.tar"), "mine").unwrap();
            fs::create_dir(at("full")).unwrap();
            fs::write(at("full/mine"), "mine").unwrap();
            fs::create_dir(at("empty")).unwrap();
            std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
            for name in [
                "file.tar",
                "full",
                "link",
                "nowhere/host.tar",
                "file.tar/host",
            ] {
                let path = at(name);
                let output = twcheck(&["record", path.to_str().unwrap()]);
                assert_eq!(
                    (exit(&output), stdout(&output)),
                    (3, String::new()),
                    "{name}"
                );
                let there = stderr(&output).contains("is there already, and is not written over");
                assert_eq!(there, !name.contains('/'), "{}", text(&output));
            }
            assert_eq!(fs::read_to_string(at("file.tar")).unwrap(), "mine");
            record(&at("empty"), &[]);
            record(&at("new/"), &[]);
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|it| it.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["empty", "file.tar", "full", "link", "new"]);
            assert!(at("empty/proc/net/tcp").is_file());
        },
    );
}

/// The states that the kernel has here, without listeners.
fn states_of_kernel() -> Value {
    json(&["states", "--json"])["states"].clone()
}

fn file_with(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn prefixed(with: &str, text: &str) -> String {
    let lines = text.lines().flat_map(|line| [with, line, "\n"]);
    lines.collect()
}

/// As a terminal's log has it, each word in bold.
fn coloured(text: &str) -> String {
    let bold = |word: &str| match word {
        "" => String::new(),
        word => format!("\x1b[1;31m{word}\x1b[0m"),
    };
    let line = |line: &str| line.split(' ').map(bold).collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

/// As a terminal of this width has it that ends each of its lines.
fn wrapped(text: &str, width: usize) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let letters: Vec<_> = line.chars().collect();
        for piece in letters.chunks(width) {
            all.extend(piece);
            all.push('\n');
        }
    }
    all
}

#[test]
fn what_ss_and_netstat_print_is_read_with_gaps_for_the_rest() {
    in_namespace(
        "what_ss_and_netstat_print_is_read_with_gaps_for_the_rest",
        || {
            let folder = tempfile::tempdir().unwrap();
            run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
            port_range(20000, 20999);
            let server = serve("192.0.2.1:3306");
            assert_eq!(connect_until_error(server, 600), (600, None));
            let six = serve("[::1]:5432");
            assert_eq!(connect_until_error(six, 9), (9, None));
            let mapped = TcpListener::bind("[::]:7000").unwrap();
            let held = TcpStream::connect("127.0.0.1:7000").unwrap();
            let kernel = states_of_kernel();
            let settings = stdout(&run("sysctl", &["-a", "-r", "net.ipv4.(tcp|ip)"]));
            let live = json(&["verdict", "--json"]);
            for (program, options, has_timers) in [
                ("ss", "-tan", false),
                ("ss", "-tanoe", true),
                ("ss", "-tanHo", true),
                ("ss", "-tanoeOim", true),
                ("ss", "-anop", true),
                ("netstat", "-ant", false),
                ("netstat", "-anto", true),
                ("netstat", "-antoe", true),
                ("netstat", "-antopW", true),
            ] {
                let printed = stdout(&run(program, &[options]));
                for (name, text) in [
                    ("plain", printed.clone()),
                    ("coloured", coloured(&printed)),
                    ("quoted", prefixed("> > ", &printed)),
                    ("marked", format!("\u{feff}{printed}")),
                    ("wrapped", wrapped(&printed, 61)),
                    ("widely wrapped", wrapped(&printed, 80)),
                    (
                        "pasted",
                        format!(
                            "root@web:~# {program} {options}\r\n{}root@web:~# \n",
                            printed.replace('\n', "\r\n")
                        ),
                    ),
                ] {
                    // Beside the long rows of other protocols one of TCP is wrapped twice.
                    if options == "-anop" && name.contains("wrapped") {
                        continue;
                    }
                    let path = file_with(&folder, &format!("{name}.txt"), &text);
                    let states = json_from("states", &path);
                    assert_eq!(states["states"], kernel, "{program} {options} {name}");
                    assert_eq!(states["source"], "text");
                    let output = from("verdict", &path);
                    assert_eq!(exit(&output), 3, "{}", crate::text(&output));
                    let verdict = json_from("verdict", &path);
                    assert_eq!(verdict["level"], "unknown");
                    assert_eq!(verdict["capacity"], json!(null));
                    assert_eq!(verdict["flows"][0]["ports_in_use"], 600);
                    let gaps = verdict["gaps"].to_string();
                    assert_eq!(
                        gaps.contains("option -o prints them"),
                        !has_timers,
                        "{program} {options} {name}: {gaps}"
                    );
                    assert!(
                        !gaps.contains("option -a lists them"),
                        "{program} {options} {name}: {gaps}"
                    );
                }
                // With the settings of the machine it is as good as the table.
                let path = file_with(&folder, "with.txt", format!("{settings}\n{printed}"));
                let verdict = json_from("verdict", &path);
                assert_eq!(verdict["tunables"], live["tunables"], "{program} {options}");
                assert_eq!(
                    verdict["capacity"]["usable_ports"],
                    live["capacity"]["usable_ports"]
                );
                assert_eq!(verdict["flows"][0]["ports_free"], 400);
                let (found, level) = if has_timers {
                    (codes(&live), &live["level"])
                } else {
                    // The rest hangs on when they were closed.
                    let mut found = codes(&live);
                    found.push("COULD_NOT_READ");
                    (found, &live["level"])
                };
                assert_eq!(codes(&verdict), found, "{program} {options}");
                assert_eq!(&verdict["level"], level);
                if has_timers {
                    let closed = |verdict: &Value| {
                        let closed = verdict["flows"][0]["closed_per_second"].as_array().unwrap();
                        closed.iter().map(|it| it.as_u64().unwrap()).sum::<u64>()
                    };
                    assert_eq!(closed(&verdict), closed(&live), "{program} {options}");
                }
            }
            let plain = stdout(&run("netstat", &["-tn"]));
            let path = file_with(&folder, "without-listeners.txt", plain);
            let gaps = json_from("states", &path)["gaps"].to_string();
            assert!(gaps.contains("option -a lists them"), "{gaps}");
            drop((mapped, held));
        },
    );
}

/// 400 of 1,000 ports in TIME_WAIT are no trouble, and it takes them all to say so.
#[test]
fn a_listing_that_leaves_sockets_out_is_never_ok() {
    in_namespace("a_listing_that_leaves_sockets_out_is_never_ok", || {
        let folder = tempfile::tempdir().unwrap();
        port_range(20000, 20999);
        let server = serve("127.0.0.1:3306");
        let held = TcpStream::connect(server).unwrap();
        assert_eq!(connect_until_error(server, 400), (400, None));
        let settings = stdout(&run("sysctl", &["-a", "-r", "net.ipv4.(tcp|ip)"]));
        for (command, missing) in [
            ("ss -tanoe", ""),
            ("ss -tanoH", ""),
            ("ss -tano exclude listening", ""),
            ("netstat -tano", ""),
            ("netstat -tno", ""),
            ("ss -tn", "neither LISTEN nor TIME_WAIT"),
            ("ss -tnH", "neither LISTEN nor TIME_WAIT"),
            ("ss -tln", "LISTEN is the only state"),
            ("netstat -tln", "only servers are listed"),
            ("netstat -tlnp", "only servers are listed"),
            ("ss -tan state time-wait", "400 rows without a state"),
            ("ss -tano state time-wait", "TIME_WAIT is the only state"),
            ("ss -tnH state established", "2 rows without a state"),
            ("ss -tno state established", "2 rows without a state"),
            ("ss -tan state bucket", "TIME_WAIT is the only state"),
            ("ss -tano | grep TIME-WAIT", "TIME_WAIT is the only state"),
            (
                "ss -tano | grep -v LISTEN | tail -n +2",
                "neither a heading nor LISTEN",
            ),
            (
                "netstat -tan | grep TIME_WAIT",
                "TIME_WAIT is the only state",
            ),
            ("ss -tan dport = :9", "there is no row"),
            ("ss -tan | head -1", "there is no row"),
            ("netstat -uan", "there is no row"),
            ("ss -uan", "there is no row"),
            ("ss -tano | head -c -30", "the text ends within line"),
            (
                "ss -tano | tail -c +200 | tail -n +1",
                "neither a heading nor LISTEN",
            ),
        ] {
            let printed = stdout(&run("sh", &["-c", command]));
            let path = file_with(&folder, "text", format!("{settings}{printed}"));
            let verdict = json_from("verdict", &path);
            let level = if missing.is_empty() { "ok" } else { "unknown" };
            let gaps = verdict["gaps"].to_string();
            assert_eq!(verdict["level"], level, "{command}: {gaps}");
            assert!(gaps.contains(missing), "{command}: {gaps}");
            // What is there is counted, and nothing that is not.
            let states = json_from("states", &path);
            let rows = states["total"].as_u64();
            assert!(
                rows == Some(402) || !missing.is_empty(),
                "{command}: {states}"
            );
            assert!(rows.is_none_or(|rows| rows > 0), "{command}: {states}");
            assert!(states["gaps"].to_string().contains(missing), "{command}");
            assert_eq!(
                exit(&from("states", &path)),
                if rows.is_none() { 3 } else { 0 }
            );
        }
        for (command, is_part) in [
            ("ss -tanoe", false),
            ("ss -tanoe | cat", false),
            ("ss -tano state all", false),
            ("ss -tano exclude listening", false),
            ("netstat -tano | sort -k6", false),
            ("ss -tano | head -300", true),
            ("/usr/bin/ss -tano | grep -v :2001", true),
            ("ss -tano '( dport = :3306 or sport = :3306 )'", true),
            ("ss -tano dst 127.0.0.1 or src 127.0.0.1", true),
            ("netstat -tano |head -n 300", true),
        ] {
            let printed = stdout(&run("sh", &["-c", command]));
            let text = format!("app@web:~$ {command}\n{printed}app@web:~$ sysctl -a\n{settings}");
            let verdict = json_from("verdict", &file_with(&folder, "text", text));
            let level = if is_part { "unknown" } else { "ok" };
            assert_eq!(verdict["level"], level, "{command}: {}", verdict["gaps"]);
            let is_told = verdict["gaps"].to_string().contains("leaves rows out");
            assert_eq!(is_told, is_part, "{command}");
        }
        drop(held);
    });
}

/// As a sosreport's ss and netstat in one file, or a look after the other.
#[test]
fn a_connection_that_is_listed_twice_counts_once() {
    in_namespace("a_connection_that_is_listed_twice_counts_once", || {
        let folder = tempfile::tempdir().unwrap();
        port_range(20000, 20999);
        let server = serve("127.0.0.1:3306");
        let six = serve("[::1]:3306");
        assert_eq!(connect_until_error(server, 300), (300, None));
        assert_eq!(connect_until_error(six, 300), (300, None));
        let held = TcpStream::connect(server).unwrap();
        let settings = stdout(&run("sysctl", &["-a", "-r", "net.ipv4.(tcp|ip)"]));
        for (command, said) in [
            ("ss -tanoe; ss -tanoe", "1 listing of the same connections"),
            (
                "ss -tanoe; netstat -tano; ss -tanoe",
                "2 listings of the same connections",
            ),
            (
                "netstat -tano; ss -tanoe",
                "1 listing of the same connections",
            ),
            ("ss -tanoH; ss -tanoH", "602 rows there more than once"),
            ("ss -4 -tano; ss -6 -tano", ""),
            ("ss -tlno; ss -tno; ss -tano state time-wait", ""),
        ] {
            let printed = stdout(&run("sh", &["-c", command]));
            let path = file_with(&folder, "text", format!("{settings}{printed}"));
            let verdict = json_from("verdict", &path);
            let gaps = verdict["gaps"].to_string();
            assert_eq!(verdict["level"], "ok", "{command}: {gaps}");
            assert_eq!(json_from("states", &path)["total"], 602, "{command}");
            assert!(gaps.contains(said), "{command}: {gaps}");
        }
        drop(held);
    });
}

#[test]
fn what_netstat_of_another_system_prints_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let heading = "Active Internet connections (including servers)\n\
                   Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)\n";
    for row in [
        "tcp4       0      0  127.0.0.1.54321        127.0.0.1.3306         TIME_WAIT",
        "tcp6       0      0  ::1.54321              ::1.3306               TIME_WAIT",
        "tcp46      0      0  *.3306                 *.*                    LISTEN",
        "tcp4       0      0 192.168.1.7.22          192.168.1.9.50123      ESTABLISHED",
        "127.0.0.1.32803      127.0.0.1.3306       49152      0 49152      0 TIME_WAIT",
        "  TCP    10.0.0.1:50000     10.0.0.2:3306      TIME_WAIT",
    ] {
        for text in [format!("{heading}{row}\n"), format!("{row}\n")] {
            let told = refused(&file_with(&folder, "netstat", text));
            assert!(told.contains("of netstat of another system"), "{told}");
        }
    }
}

#[test]
fn names_and_cut_addresses_in_a_text_are_told_and_make_nothing_ok() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "net.ipv4.ip_local_port_range = 40000\t40999\n\
                    net.ipv4.ip_local_reserved_ports = \n\
                    net.ipv4.tcp_tw_reuse = 0\nnet.ipv4.tcp_timestamps = 1\n";
    let heading =
        "Proto Recv-Q Send-Q Local Address           Foreign Address         State      \n";
    let listen =
        "tcp        0      0 0.0.0.0:22              0.0.0.0:*               LISTEN     \n";
    let good = "tcp        0      0 10.0.0.1:40000          10.0.0.2:3306           ESTABLISHED\n";
    for (row, level, said) in [
        (good, "ok", ""),
        (
            "tcp        0      0 web-1:40000             db.example:mysql        ESTABLISHED\n",
            "unknown",
            "it has names instead of numbers",
        ),
        (
            "tcp6       0      0 2001:db8:1:2:3:4::40000 2001:db8:1:2:3:4::3306  ESTABLISHED\n",
            "unknown",
            "`netstat --wide` prints all of them",
        ),
        (
            "tcp        0      0 10.0.0.1:40000          10.0.0.2:33                        \n",
            "unknown",
            "1 row not understood and left out",
        ),
    ] {
        let path = file_with(
            &folder,
            "netstat.txt",
            format!("{settings}{heading}{listen}{good}{row}"),
        );
        let verdict = json_from("verdict", &path);
        assert_eq!(verdict["level"], level, "{row}{}", verdict["gaps"]);
        assert!(
            verdict["gaps"].to_string().contains(said),
            "{}",
            verdict["gaps"]
        );
    }
}

#[test]
fn a_sosreport_is_read_by_its_tables_or_by_what_was_printed() {
    in_namespace(
        "a_sosreport_is_read_by_its_tables_or_by_what_was_printed",
        || {
            let folder = tempfile::tempdir().unwrap();
            port_range(20000, 20999);
            let server = serve("127.0.0.1:3306");
            assert_eq!(connect_until_error(server, 600), (600, None));
            let report = "sosreport-web-1";
            let put =
                |name: &str, text: &str| file_with(&folder, &format!("{report}/{name}"), text);
            let printed = |program: &str, options: &[&str]| stdout(&run(program, options));
            put("sos_commands/kernel/sysctl_-a", &printed("sysctl", &["-a"]));
            put(
                "sos_commands/networking/ip_-d_address",
                "1: lo: <LOOPBACK> mtu 65536\n",
            );
            put(
                "sos_commands/networking/netstat_-s",
                &printed("netstat", &["-s"]),
            );
            put(
                "sos_commands/networking/netstat_-W_-neopa",
                &printed("netstat", &["-W", "-neopa"]),
            );
            put("proc/sys/kernel/hostname", "web-1\n");
            let path = folder.path().join(report);
            let live = json(&["verdict", "--json"]);
            let check = |source: &str| {
                let verdict = json_from("verdict", &path);
                assert_eq!(verdict["tunables"], live["tunables"]);
                assert_eq!(
                    (codes(&verdict), &verdict["level"]),
                    (codes(&live), &live["level"])
                );
                assert_eq!(verdict["flows"][0]["ports_in_use"], 600);
                assert_eq!(verdict["host"]["hostname"], "web-1");
                assert_eq!(json_from("states", &path)["source"], source);
            };
            check("text");
            put(
                "sos_commands/networking/ss_-peaonmi",
                &printed("ss", &["-peaonmi"]),
            );
            check("text");
            for name in [
                "tcp",
                "tcp6",
                "netstat",
                "snmp",
                "sockstat",
                "sockstat6",
                "udp",
                "udp6",
            ] {
                let table = fs::read_to_string(format!("/proc/self/net/{name}")).unwrap();
                put(&format!("proc/net/{name}"), &table);
            }
            check("proc");
        },
    );
}

/// What is wrong with it: message and exit status, and nothing is written.
fn refused(path: &Path) -> String {
    let folder = path.parent().unwrap();
    let before = fs::read_dir(folder).unwrap().count();
    let mut said = String::new();
    for command in ["verdict", "states", "advise"] {
        let output = Command::new(env!("CARGO_BIN_EXE_twcheck"))
            .args([command, "--from"])
            .arg(path)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(
            (exit(&output), stdout(&output)),
            (3, String::new()),
            "{}",
            text(&output)
        );
        said = stderr(&output);
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), before);
    assert!(
        said.starts_with(&format!("error: --from {}: ", path.display())),
        "{said}"
    );
    assert!(said.contains("\nhint: it takes a folder"), "{said}");
    said
}

const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// An archive with these entries: name, kind, what it links to, and bytes.
fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link, bytes) in entries {
        let mut header = Header::new_gnu();
        // The crate makes no such names itself.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        let field = &mut header.as_old_mut().linkname;
        field[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_archive_that_is_hostile_or_damaged_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let table = ("proc/net/tcp", EntryType::Regular, "", TABLE.as_bytes());
    for (entry, said) in [
        (
            ("../evil", EntryType::Regular, "", &b"x"[..]),
            "its entry ../evil leads out of it",
        ),
        (
            ("/etc/evil", EntryType::Regular, "", b"x"),
            "its entry /etc/evil leads out of it",
        ),
        (
            ("proc/../../evil", EntryType::Regular, "", b"x"),
            "leads out of it",
        ),
        (
            ("proc/net/tcp6", EntryType::Symlink, "/etc/passwd", b""),
            "its entry proc/net/tcp6 is a link",
        ),
        (
            ("proc/net/tcp6", EntryType::Link, "/etc/passwd", b""),
            "its entry proc/net/tcp6 is a link",
        ),
        (
            ("proc/net/tcp6", EntryType::Char, "", b""),
            "its entry proc/net/tcp6 is a device",
        ),
        (
            ("proc/net/tcp6", EntryType::Fifo, "", b""),
            "its entry proc/net/tcp6 is a device",
        ),
        (
            ("proc/net/tcp6", EntryType::GNUSparse, "", b""),
            "it has a file with holes",
        ),
        (
            ("web-2/proc/net/tcp", EntryType::Regular, "", b"x"),
            "it has recordings of several machines",
        ),
        (
            ("twcheck/sockets", EntryType::Regular, "", b""),
            "twcheck/answers.json is missing",
        ),
        (
            ("twcheck/sockets", EntryType::Regular, "", b"TIME_WAIT x\n"),
            "line 1 is cut off, or no socket",
        ),
        (
            ("twcheck/answers.json", EntryType::Regular, "", b"{}"),
            "twcheck/sockets is missing",
        ),
    ] {
        for entries in [[table, entry], [entry, table]] {
            let path = file_with(&folder, "hostile.tar", archive(&entries));
            let told = refused(&path);
            assert!(told.contains(said), "{entry:?}: {told}");
        }
    }
    let good = archive(&[
        ("./proc/", EntryType::Directory, "", b""),
        ("./proc/net/tcp", EntryType::Regular, "", TABLE.as_bytes()),
        (
            "./proc/sys/net/ipv4/ip_local_reserved_ports",
            EntryType::Regular,
            "",
            b"\n",
        ),
        (
            "./proc/sys/net/ipv4/ip_local_port_range",
            EntryType::Regular,
            "",
            b"40000 40999\n",
        ),
        ("./proc/irq/7/smp_affinity", EntryType::Regular, "", b"f\n"),
    ]);
    let path = file_with(&folder, "good.tar", &good);
    let verdict = json_from("verdict", &path);
    assert_eq!(verdict["capacity"]["usable_ports"], 1000);
    // The last entry's padding and the end of the archive are zeros.
    let whole = good.iter().rposition(|&byte| byte != 0).unwrap();
    for cut in (0..whole).step_by(200) {
        let path = file_with(&folder, "cut.tar", &good[..cut]);
        refused(&path);
    }
    for number in 0..good.len() / 64 {
        let mut damaged = good.clone();
        damaged[number * 64] ^= 0x55;
        let path = file_with(&folder, "damaged.tar", &damaged);
        // Whatever it says, it ends.
        let output = from("verdict", &path);
        assert!([0, 3].contains(&exit(&output)), "{}", text(&output));
    }
}

/// A file of which only the beginning takes room on the disk.
fn sparse(path: &Path, header: &Header, content: &[u8], end: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(content).unwrap();
    file.set_len(end).unwrap();
}

#[test]
fn an_archive_that_would_take_the_memory_or_the_time_is_refused_or_passed_over() {
    const LONG: u64 = 6 << 30;
    let folder = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let path = folder.path().join("bomb.tar");
    let header = |name: &str, kind: EntryType, size: u64| {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header
    };
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        sparse(&path, &header("x", kind, LONG), b"a", LONG + (1 << 20));
        let told = refused(&path);
        assert!(told.contains("longer than 64 KiB"), "{told}");
    }
    let record = "21 GNU.sparse.major=1\n";
    let pax = header("x", EntryType::XHeader, record.len() as u64);
    sparse(&path, &pax, record.as_bytes(), 1 << 20);
    assert!(refused(&path).contains("with holes"));
    // A file of no interest is not read.
    let mut file = File::create(&path).unwrap();
    file.write_all(header("core", EntryType::Regular, 1 << 40).as_bytes())
        .unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start((1 << 40) + 512)).unwrap();
    let rest = archive(&[("proc/net/tcp", EntryType::Regular, "", TABLE.as_bytes())]);
    file.write_all(&rest).unwrap();
    assert_eq!(exit(&from("states", &path)), 0);
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

#[test]
fn names_in_a_recording_move_no_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J";
    let ss = "State Recv-Q Send-Q Local Address:Port Peer Address:Port\n\
              ESTAB 0 0 10.0.0.1:40000 10.0.0.2:3306\nTIM 0 0 10.0.0.1:40002 10.0.0.2:3306\n";
    let name = format!("{evil}/sos_commands/networking/ss_{evil}");
    for entries in [
        vec![(&*name, EntryType::Regular, "", ss.as_bytes())],
        vec![
            (
                &*format!("a{evil}/proc/net/tcp"),
                EntryType::Regular,
                "",
                TABLE.as_bytes(),
            ),
            (
                &*format!("b{evil}/proc/net/tcp"),
                EntryType::Regular,
                "",
                TABLE.as_bytes(),
            ),
        ],
        vec![(&*format!("{evil}/../x"), EntryType::Regular, "", b"")],
        vec![
            ("proc/net/tcp", EntryType::Regular, "", TABLE.as_bytes()),
            (
                "proc/sys/kernel/hostname",
                EntryType::Regular,
                "",
                evil.as_bytes(),
            ),
            (
                "proc/sys/net/ipv4/tcp_tw_reuse",
                EntryType::Regular,
                "",
                evil.as_bytes(),
            ),
        ],
    ] {
        let path = file_with(&folder, "evil.tar", archive(&entries));
        for format in ["table", "plain", "nagios", "markdown", "prometheus"] {
            let path = path.to_str().unwrap();
            let output = twcheck(&["verdict", "--format", format, "--from", path]);
            let said = text(&output);
            assert!(!said.contains(['\u{1b}', '\u{7}']), "{format}: {said:?}");
        }
        for command in ["states", "advise"] {
            let said = text(&from(command, &path));
            assert!(!said.contains(['\u{1b}', '\u{7}']), "{command}: {said:?}");
        }
    }
}

#[test]
fn a_running_kernel_is_no_recording() {
    for (path, said) in [
        ("/proc", "it is the /proc of a running kernel"),
        ("/proc/", "it is the /proc of a running kernel"),
        ("/", "it is the /proc of a running kernel"),
        ("/proc/self", "a running process"),
        ("/proc/1", "a running process"),
    ] {
        let output = from("verdict", Path::new(path));
        assert_eq!((exit(&output), stdout(&output).as_str()), (3, ""), "{path}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn a_setting_that_is_told_in_two_ways_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let listing = "State Recv-Q Send-Q Local Address:Port Peer Address:Port\n\
                   LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n\
                   ESTAB 0 0 10.0.0.1:40000 10.0.0.2:3306\n";
    let rest = "net.ipv4.ip_local_reserved_ports = \nnet.ipv4.tcp_tw_reuse = 0\n";
    for (first, second, level) in [
        ("40000\t40999", "40000 40999", "ok"),
        ("40000 40999", "1024 65535", "unknown"),
    ] {
        let key = "net.ipv4.ip_local_port_range";
        let text = format!("{key} = {first}\n{rest}{key} = {second}\n{listing}");
        let verdict = json_from("verdict", &file_with(&folder, "text", text));
        assert_eq!(verdict["level"], level, "{verdict}");
        let is_told = verdict["gaps"].to_string().contains("in different ways");
        assert_eq!(is_told, level == "unknown", "{verdict}");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("nothing")).unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, said) in [
        (folder.path().join("nowhere"), "No such file or directory"),
        (folder.path().join("nothing"), "it is no recording"),
        (pipe, "it is neither a folder nor a regular file"),
        (
            PathBuf::from("/dev/zero"),
            "it is neither a folder nor a regular file",
        ),
        (file_with(&folder, "empty", ""), "it is empty"),
        (
            file_with(&folder, "prose", "Dear all,\nthe database is down again.\n"),
            "it is neither an archive nor a text of ss or netstat",
        ),
        (
            file_with(&folder, "sysctl", "net.ipv4.tcp_tw_reuse = 2\n"),
            "it is neither an archive nor a text of ss or netstat",
        ),
        (
            file_with(&folder, "names", "ESTAB 0 0 web:40000 db.example:mysql\n"),
            "it has names instead of numbers: `ss -n` prints numbers",
        ),
        (
            file_with(&folder, "elf", b"\x7fELF\0\0\0"),
            "line 1 is no line of text",
        ),
        (
            file_with(&folder, "x.tar.gz", b"\x1f\x8b\x08\0"),
            "it is compressed with gzip",
        ),
        (
            file_with(&folder, "x.tar.xz", b"\xfd7zXZ\0"),
            "it is compressed with xz",
        ),
    ] {
        if path.starts_with("/dev") {
            let output = from("verdict", &path);
            assert_eq!(exit(&output), 3);
            continue;
        }
        let told = refused(&path);
        assert!(told.contains(said), "{}: {told}", path.display());
    }
    let long = folder.path().join("long");
    File::create(&long).unwrap().set_len(1 << 40).unwrap();
    refused(&long);
}

/// The very line that the README shows, for a machine without twcheck.
#[test]
fn the_line_of_the_readme_makes_a_recording_by_hand() {
    in_namespace("the_line_of_the_readme_makes_a_recording_by_hand", || {
        let readme = fs::read_to_string("README.md").unwrap();
        let shown = readme
            .lines()
            .find(|line| line.trim_start().starts_with("cd /proc"))
            .expect("the README shows it")
            .trim();
        port_range(20000, 20999);
        sysctl("net.ipv4.ip_local_reserved_ports", "20100-20199,30000");
        let server = serve("127.0.0.1:3306");
        assert_eq!(connect_until_error(server, 600), (600, None));
        let live = json(&["verdict", "--json", "--source", "proc"]);
        for shell in ["sh", "bash"] {
            let folder = tempfile::tempdir().unwrap();
            let here = folder.path().join("host");
            let by_hand = shown.replace("/tmp/host", here.to_str().unwrap());
            let output = Command::new(shell).args(["-c", &by_hand]).output().unwrap();
            let verdict = json_from("verdict", &here);
            assert_eq!(verdict["tunables"], live["tunables"], "{}", text(&output));
            assert_eq!(
                (codes(&verdict), &verdict["level"]),
                (codes(&live), &live["level"])
            );
            assert_eq!(verdict["flows"][0]["ports_in_use"], 600);
            let gaps = verdict["gaps"].to_string();
            assert!(!gaps.contains("missing"), "{gaps}");
            // As it comes over the network.
            let tar = folder.path().join("host.tar");
            run(
                "tar",
                &[
                    "-C",
                    folder.path().to_str().unwrap(),
                    "-cf",
                    tar.to_str().unwrap(),
                    "host",
                ],
            );
            let mut archived = json_from("verdict", &tar);
            let mut unpacked = verdict.clone();
            for it in [&mut archived, &mut unpacked] {
                it["gaps"] = json!(null);
            }
            assert_eq!(archived, unpacked);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_in_a_file_it_is_told_and_not_fallen_over(
        lines in proptest::collection::vec("(ESTAB|TIME-WAIT|tcp|LISTEN)( (0|[0-9.:*]{1,20}|timer:\\([a-z0-9,.]{0,12}\\))){0,7}", 0..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("text")).unwrap();
        file.write_all(lines.join("\n").as_bytes()).unwrap();
        let output = from("verdict", &folder.path().join("text"));
        prop_assert!(exit(&output) <= 3, "{}", text(&output));
        prop_assert!(!stderr(&output).contains("panicked"), "{}", text(&output));
    }
}

/// 460 of 1,000 ports in TIME_WAIT, as one of these prints them.
fn listing(program: &str) -> String {
    let (heading, listen) = match program {
        "ss" => (
            "State     Recv-Q Send-Q Local Address:Port  Peer Address:Port Process\n",
            "LISTEN    0      128          0.0.0.0:22         0.0.0.0:*           \n\
             ESTAB     0      0          10.0.0.1:40998      10.0.0.2:3306        \n",
        ),
        _ => (
            "Active Internet connections (servers and established)\n\
             Proto Recv-Q Send-Q Local Address           Foreign Address         State       Timer\n",
            "tcp        0      0 0.0.0.0:22              0.0.0.0:*               LISTEN      off (0.00/0/0)\n\
             tcp        0      0 10.0.0.1:40998          10.0.0.2:3306           ESTABLISHED off (0.00/0/0)\n",
        ),
    };
    let row = |port: u32| match program {
        "ss" => format!(
            "TIME-WAIT 0      0          10.0.0.1:{port}      10.0.0.2:3306  timer:(timewait,9sec,0)\n"
        ),
        _ => format!(
            "tcp        0      0 10.0.0.1:{port}          10.0.0.2:3306           TIME_WAIT   timewait (9.00/0/0)\n"
        ),
    };
    let rows: String = (0..460).map(|at| row(40_000 + 2 * at)).collect();
    heading.to_owned() + listen + &rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rows that a text has lost visibly are never taken for none.
    #[test]
    fn a_listing_that_was_damaged_is_never_ok(
        program in prop_oneof![Just("ss"), Just("netstat")],
        kind in 0..5,
        at in 0.02_f64..0.99,
        column in 10_usize..60,
        letter in prop_oneof![Just("\u{7f}"), Just("x"), Just(" "), Just("-"), Just("\t")],
    ) {
        let settings = "net.ipv4.ip_local_port_range = 40000 40999\n\
                        net.ipv4.ip_local_reserved_ports = \nnet.ipv4.tcp_tw_reuse = 0\n\
                        net.ipv4.tcp_timestamps = 1\nnet.ipv4.tcp_max_tw_buckets = 131072\n";
        let whole = listing(program);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = (whole.len() as f64 * at) as usize;
        let (heading, rows) = whole.split_once("LISTEN").unwrap();
        let per_row = |damage: &dyn Fn(&str) -> String| {
            rows.lines().map(damage).fold(format!("{heading}LISTEN"), |text, row| text + &row + "\n")
        };
        let damaged = match kind {
            // Cut off within a line.
            0 if whole.as_bytes()[place - 1] != b'\n' => whole[..place].to_owned(),
            // Scrolled out of sight.
            1 if whole.as_bytes()[place - 1] != b'\n' => whole[place..].to_owned(),
            // Columns that were cut off at either side.
            2 => per_row(&|row| row.chars().take(column).collect()),
            3 => per_row(&|row| row.chars().skip(column).collect()),
            // A letter within each address.
            4 => per_row(&|row| row.replace("0.0.1:4", &format!("0.0.1{letter}:4"))),
            _ => return Ok(()),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = file_with(&folder, "text", format!("{settings}{damaged}"));
        let output = from("verdict", &path);
        prop_assert!(!text(&output).contains("fault of its own"), "{}", text(&output));
        prop_assert!(exit(&output) != 0, "{kind} {place} {column}\n{}\n{}", text(&output), &damaged[..600.min(damaged.len())]);
    }

    #[test]
    fn an_archive_with_any_bytes_changed_ends_without_a_fault(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let ss = listing("ss");
        let mut bytes = archive(&[
            ("h/proc/net/tcp", EntryType::Regular, "", TABLE.as_bytes()),
            ("h/proc/sys/net/ipv4/ip_local_port_range", EntryType::Regular, "", b"40000 40999\n"),
            ("h/sos_commands/networking/ss_-peaonmi", EntryType::Regular, "", ss.as_bytes()),
            ("h/sos_commands/kernel/sysctl_-a", EntryType::Regular, "", b"net.ipv4.tcp_tw_reuse = 0\n"),
        ]);
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = file_with(&folder, "any.tar", bytes);
        let output = from("verdict", &path);
        prop_assert!(exit(&output) <= 3, "{}", text(&output));
        prop_assert!(!text(&output).contains("fault of its own"), "{}", text(&output));
    }
}
