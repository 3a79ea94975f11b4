//! What watches a fleet: Prometheus and node_exporter, the monitoring plugins, systemd, and what
//! contrib/ has for them.
#![expect(clippy::float_cmp)] // Whole numbers, and what is written in both forms alike.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::servers::{Service, Suite};
use common::{
    INSIDE, alone, command, connect_and_close, exit, in_namespace, json, port_range, run, serve,
    stderr, stdout, text, twcheck,
};
use serde_json::Value;

const HOSTS: [&str; 3] = ["busy-server-6.18", "exhausted-6.18", "recycle-3.10"];

fn on(host: &str, arguments: &[&str]) -> Vec<String> {
    let root = format!("tests/hosts/{host}/proc");
    let mut words = vec!["verdict".to_owned(), "--proc-root".to_owned(), root];
    words.extend(arguments.iter().map(ToString::to_string));
    words
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Samples of the text format, by name and labels as they are written.
fn samples(metrics: &str) -> BTreeMap<String, f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let mut samples = BTreeMap::new();
    for line in lines {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let twice = samples.insert(name.to_owned(), value.parse().unwrap());
        assert_eq!(twice, None, "{name} twice");
    }
    samples
}

/// What promtool, Prometheus' own tool, says of metrics: nothing.
fn assert_clean(metrics: &str) {
    let mut promtool = Suite::Monitoring
        .program("bin/promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    assert_eq!(text(&output), "exit status: 0", "{metrics}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let test = "promtool_finds_nothing_wrong_with_the_metrics";
    if !Suite::Monitoring.is_there(test) {
        return;
    }
    for host in HOSTS {
        let output = twcheck(&words(&on(host, &["--format", "prometheus"])));
        assert_clean(&stdout(&output));
    }
    let live = twcheck(&["verdict", "--format", "prometheus"]);
    assert_clean(&stdout(&live));
    // What it would find: the test is one.
    let mut promtool = Suite::Monitoring.program("bin/promtool");
    let wrong = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut wrong = wrong.stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = wrong.stdin.take().unwrap();
    stdin.write_all(b"# TYPE a counter\na 1\n").unwrap();
    drop(stdin);
    assert!(!wrong.wait().unwrap().success());
}

/// Every format has the figures of the JSON, of a folder and of a tar of it.
#[test]
fn translated_connections_are_told_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("host");
    let copy = ["-r", "tests/hosts/busy-server-6.18", host.to_str().unwrap()];
    run("cp", &copy);
    let rows: String = (0..1200)
        .map(|port| {
            format!(
                "ipv4     2 tcp      6 90 TIME_WAIT src=10.1.0.2 dst=10.2.0.2 sport={0} dport=3306 \
                 src=10.2.0.2 dst=10.2.0.1 sport=3306 dport={0} [ASSURED] mark=0 zone=0 use=2\n",
                50_000 + port
            )
            .replacen("sport=5", "sport=4", 1)
        })
        .collect();
    fs::write(host.join("proc/net/nf_conntrack"), rows).unwrap();
    let tar = folder.path().join("host.tar");
    let [inside, packed] = [folder.path(), &tar].map(|it| it.to_str().unwrap());
    run("tar", &["-C", inside, "-cf", packed, "host"]);
    for path in [&host, &tar] {
        let from = ["verdict", "--nat", "--from", path.to_str().unwrap()];
        let told = |format: &str| stdout(&twcheck(&[&from[..], &["--format", format]].concat()));
        let said = json(&[&from[..], &["--json"]].concat());
        let flow = &said["nat"]["flows"][0];
        assert_eq!(flow["ports_taken"], 1200, "{said}");
        let metrics = told("prometheus");
        let figures = samples(&metrics);
        let labels = "{source=\"10.2.0.1\",destination=\"10.2.0.2\",destination_port=\"3306\",\
                      protocol=\"tcp\",zone=\"0\"}";
        for (name, figure) in [
            (
                "twcheck_nat_translated_connections".into(),
                &said["nat"]["translated"],
            ),
            (
                "twcheck_nat_tracked_connections".into(),
                &said["nat"]["tracked"],
            ),
            (
                format!("twcheck_nat_flow_ports_taken{labels}"),
                &flow["ports_taken"],
            ),
            (
                format!("twcheck_nat_flow_ports_of_closed{labels}"),
                &flow["ports_of_closed"],
            ),
            (
                format!("twcheck_nat_flow_hangs_from_ports{labels}"),
                &flow["hangs_from"]["likely"],
            ),
        ] {
            assert_eq!(
                figures.get(&name).copied(),
                figure.as_f64(),
                "{name}\n{metrics}"
            );
        }
        if Suite::Monitoring.is_there("translated_connections_are_told_in_every_format") {
            assert_clean(&metrics);
        }
        let likely = flow["hangs_from"]["likely"].as_u64().unwrap();
        let line = told("nagios");
        let datum = format!(" nat_translated=1200;;;0 nat_ports_taken=1200;{likely};;0;");
        assert!(line.contains(&datum), "{line}");
        let ticket = told("markdown");
        assert!(
            ticket.contains("| After NAT | Toward | Taken |"),
            "{ticket}"
        );
        assert!(
            ticket.contains("| 10.2.0.1 | 10.2.0.2:3306 | 1,200 | 1,200 |"),
            "{ticket}"
        );
        assert!(
            ticket.contains("- NAT: 1,200 of 1,200 connections translated"),
            "{ticket}"
        );
    }
    // Where nobody asked, nothing is told.
    let metrics = twcheck(&[
        "verdict",
        "--format",
        "prometheus",
        "--from",
        tar.to_str().unwrap(),
    ]);
    assert!(!stdout(&metrics).contains("twcheck_nat"));
}

/// Takes what is said of flows.
fn take_flows(said: &Value, host: &str, take: &mut impl FnMut(&str) -> Option<f64>) {
    for flow in said["flows"].as_array().unwrap() {
        let [source, destination] =
            ["source", "destination"].map(|end| flow[end].as_str().unwrap());
        let labels = format!(
            "source=\"{source}\",destination=\"{destination}\",destination_port=\"{}\"",
            flow["destination_port"]
        );
        let states = flow["by_state"].as_object().unwrap().iter();
        let open = states.filter(|(state, _)| *state != "TIME_WAIT");
        let open: f64 = open.map(|(_, count)| count.as_f64().unwrap()).sum();
        let level = ["ok", "warning", "critical"]
            .into_iter()
            .zip([0.0, 1.0, 2.0])
            .find_map(|(word, level)| (flow["level"] == word).then_some(level));
        for (name, value) in [
            ("level", level),
            ("ports_in_use", flow["ports_in_use"].as_f64()),
            ("ports_open", Some(open)),
            ("ports_free", flow["ports_free"].as_f64()),
            ("usable_ports", said["capacity"]["usable_ports"].as_f64()),
            (
                "max_connections_per_second",
                flow["max_connections_per_second"].as_f64(),
            ),
            ("closed_per_second", flow["rate"]["last_60_s"].as_f64()),
            ("pace_per_second", flow["rate"]["now"].as_f64()),
            (
                "time_to_exhaustion_seconds",
                flow["seconds_to_exhaustion"].as_f64(),
            ),
        ] {
            let name = format!("twcheck_flow_{name}{{{labels}}}");
            assert_eq!(take(&name), value, "{host}: {name}");
        }
    }
}

/// Takes the numbers of sockets by state, and says how many there were.
fn take_states(host: &str, take: &mut impl FnMut(&str) -> Option<f64>) -> u32 {
    let states = json(&[
        "states",
        "--all",
        "--json",
        "--proc-root",
        &on(host, &[])[2],
    ]);
    let mut counted = 0;
    for state in [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
    ] {
        let told = take(&format!("twcheck_sockets{{state=\"{state}\"}}"));
        if let Some(told) = told {
            let known = states["states"][state].as_f64().unwrap_or(0.0);
            assert!((told - known).abs() < 0.5, "{host}: {told} {state}");
            counted += 1;
        }
    }
    counted
}

/// The JSON and the metrics of a recording say the same, and neither knows what the other does not.
#[test]
fn metrics_are_the_figures_of_the_json() {
    for host in HOSTS {
        let output = twcheck(&words(&on(host, &["--format", "prometheus"])));
        let said = json(&words(&on(host, &["--json"])));
        let mut left = samples(&stdout(&output));
        let mut take = |name: &str| left.remove(name);
        assert_eq!(take("twcheck_level"), Some(f64::from(exit(&output))));
        for (name, value) in [
            ("twcheck_usable_ports", &said["capacity"]["usable_ports"]),
            ("twcheck_fast_ports", &said["capacity"]["fast_ports"]),
            (
                "twcheck_max_connections_per_second",
                &said["capacity"]["max_connections_per_second"],
            ),
            (
                "twcheck_fast_connections_per_second",
                &said["capacity"]["fast_connections_per_second"],
            ),
            (
                "twcheck_time_wait_seconds",
                &said["capacity"]["time_wait_seconds"],
            ),
            (
                "twcheck_time_wait_limit_sockets",
                &said["time_wait"]["limit"],
            ),
            (
                "twcheck_time_wait_overflows_total",
                &said["time_wait"]["overflows"],
            ),
            (
                "twcheck_time_wait_sockets{direction=\"outbound\"}",
                &said["time_wait"]["outbound"],
            ),
            (
                "twcheck_time_wait_sockets{direction=\"inbound\"}",
                &said["time_wait"]["inbound"],
            ),
            ("twcheck_flows", &said["flows_total"]),
        ] {
            assert_eq!(take(name), value.as_f64(), "{host}: {name}");
        }
        let gaps = said["gaps"].as_array().unwrap().len();
        assert_eq!(
            take("twcheck_gaps"),
            Some(gaps.to_string().parse().unwrap())
        );
        take_flows(&said, host, &mut take);
        let mut findings = BTreeMap::new();
        for finding in said["findings"].as_array().unwrap() {
            let name = format!(
                "twcheck_findings{{code={},level={}}}",
                finding["code"], finding["level"]
            );
            *findings.entry(name).or_insert(0.0) += 1.0;
        }
        for (name, count) in findings {
            assert_eq!(take(&name), Some(count), "{host}: {name}");
        }
        let counted = take_states(host, &mut take);
        // A table that is damaged tells no number of sockets, not even 0.
        assert_eq!(
            counted,
            if said["time_wait"].is_null() { 0 } else { 11 },
            "{host}"
        );
        let names: Vec<_> = left.keys().map(String::as_str).collect();
        let version = concat!(
            "twcheck_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"}"
        );
        let cost = ["cpu_seconds", "duration_seconds", "memory_bytes"];
        let cost = cost.map(|it| format!("twcheck_look_{it}"));
        assert_eq!(names, [version, &cost[0], &cost[1], &cost[2]], "{host}");
    }
}

#[test]
fn so_many_flows_are_told_as_are_asked_for() {
    let flows = |top: &str| {
        let output = twcheck(&words(&on(
            "exhausted-6.18",
            &["--format", "prometheus", "--top", top],
        )));
        let samples = samples(&stdout(&output));
        let listed = samples
            .keys()
            .filter(|name| name.starts_with("twcheck_flow_level"));
        (listed.count(), samples["twcheck_flows"])
    };
    assert_eq!(
        [flows("1"), flows("10"), flows("0")],
        [(1, 2.0), (2, 2.0), (2, 2.0)]
    );
}

#[test]
fn a_file_is_there_as_a_whole_readable_and_the_exit_status_is_that_of_the_level() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twcheck.prom");
    let name = path.to_str().unwrap();
    for (host, status) in HOSTS.into_iter().zip([0, 2, 1]) {
        let arguments = on(host, &["--format", "prometheus", "--output", name]);
        // As a hardened service has it, and in a locale that has no letters beyond ASCII.
        let line = format!("umask 077; exec \"$0\" {}", arguments.join(" "));
        let output = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_twcheck")])
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        assert_eq!(
            (exit(&output), stdout(&output)),
            (status, String::new()),
            "{host}"
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        let written = samples(&fs::read_to_string(&path).unwrap());
        assert_eq!(written["twcheck_level"], f64::from(status));
    }
    let text = on(
        "exhausted-6.18",
        &["--output", folder.path().join("report").to_str().unwrap()],
    );
    assert_eq!(exit(&twcheck(&words(&text))), 2);
    let report = fs::read_to_string(folder.path().join("report")).unwrap();
    assert!(report.starts_with("CRITICAL: No port is free"), "{report}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_cannot_take_a_report_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    let hint = "name a file in a folder that is there, has room, and that this user may write";
    for (path, said) in [
        (
            here.clone(),
            format!(
                "error: --output {here} is a folder, and a report is a file in one\n\
                 hint: --output {here}/twcheck.prom\n"
            ),
        ),
        (
            format!("{here}/none/twcheck.prom"),
            format!(
                "error: --output {here}/none/twcheck.prom: No such file or directory (os error 2)\n\
                 hint: {hint}\n"
            ),
        ),
        (
            "/dev/full".to_owned(),
            "error: --output /dev/full is no regular file, and cannot be replaced as a whole\n\
             hint: leave --output out, and send standard output there: > /dev/full\n"
                .to_owned(),
        ),
    ] {
        let output = twcheck(&["verdict", "--format", "prometheus", "--output", &path]);
        let notes = stderr(&output);
        let errors: Vec<_> = notes
            .split_inclusive('\n')
            .filter(|it| !it.starts_with("note: "))
            .collect();
        assert_eq!((exit(&output), errors.concat()), (3, said));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// One performance datum, taken apart by the guidelines' grammar:
/// `'label'=value[UOM];[warn];[crit];[min];[max]`.
fn datum(text: &str) -> (String, [Option<f64>; 4], [Option<String>; 2]) {
    let (label, rest) = text.split_once('=').unwrap();
    assert!(
        !label.is_empty() && !label.contains(['\'', ' ', '=']),
        "{text}"
    );
    let mut fields = rest.split(';');
    let value = fields.next().unwrap();
    let unit =
        value.trim_start_matches(|letter: char| letter.is_ascii_digit() || "-.".contains(letter));
    assert!(
        ["", "s", "us", "ms", "%", "B", "KB", "MB", "TB", "c"].contains(&unit),
        "{text}"
    );
    let number = |text: &str| (!text.is_empty()).then(|| text.parse::<f64>().unwrap());
    let range = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let [warn, crit] = [0, 1].map(|_| fields.next().and_then(range));
    let [min, max] = [0, 1].map(|_| fields.next().and_then(number));
    assert_eq!(fields.next(), None, "{text}");
    let value = number(value.strip_suffix(unit).unwrap());
    (label.to_owned(), [value, min, max, None], [warn, crit])
}

/// Whether a range of the guidelines alerts: `10:` below 10.
fn alerts(range: &str, value: f64) -> bool {
    let low: f64 = range.strip_suffix(':').unwrap().parse().unwrap();
    value < low
}

#[test]
fn a_plugin_prints_one_line_by_the_guidelines() {
    for host in HOSTS {
        let output = twcheck(&words(&on(host, &["--format", "nagios"])));
        let said = json(&words(&on(host, &["--json"])));
        let printed = stdout(&output);
        let line = printed.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        let (told, data) = line.split_once(" | ").unwrap();
        assert!(!data.contains('|'), "{line}");
        let word =
            ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(exit(&output)).unwrap()];
        let summary = said["summary"].as_str().unwrap();
        assert_eq!(told, format!("TWCHECK {word} - {summary}"));
        let data: Vec<_> = data.split(' ').map(datum).collect();
        let (label, [free, min, max, _], [warn, crit]) = &data[0];
        assert_eq!((label.as_str(), *min), ("ports_free", Some(0.0)));
        assert_eq!(*max, said["capacity"]["usable_ports"].as_f64());
        let free = free.unwrap();
        assert_eq!(Some(free), said["flows"][0]["ports_free"].as_f64());
        let is_low = host == "exhausted-6.18";
        for range in [warn, crit] {
            assert_eq!(alerts(range.as_ref().unwrap(), free), is_low, "{line}");
        }
        let labels: Vec<_> = data.iter().map(|(label, ..)| label.as_str()).collect();
        let all = [
            "ports_free",
            "time_wait",
            "closed_per_second",
            "time_to_exhaustion",
            "flows",
            "time",
        ];
        let known = |label: &&str| match *label {
            "time_wait" => !said["time_wait"].is_null(),
            "time_to_exhaustion" => is_low,
            _ => true,
        };
        assert_eq!(labels, all.into_iter().filter(known).collect::<Vec<_>>());
    }
}

/// Where the share of ports decides, the thresholds of the data are those of the level.
#[test]
fn thresholds_of_a_plugin_are_those_of_the_level() {
    for (warn, crit, level) in [("16.1", "50", 0), ("16", "50", 1), ("16", "16", 2)] {
        // 8 of 50 ports.
        let arguments = on(
            "exhausted-6.18",
            &[
                "[::1]:5432",
                "--format",
                "nagios",
                "--warn",
                warn,
                "--crit",
                crit,
            ],
        );
        let output = twcheck(&words(&arguments));
        let printed = stdout(&output);
        let (_, data) = printed.trim().split_once(" | ").unwrap();
        let (_, [free, ..], ranges) = datum(data.split(' ').next().unwrap());
        assert_eq!(free, Some(42.0));
        let alerts = ranges.map(|range| alerts(&range.unwrap(), 42.0));
        assert_eq!(alerts, [level > 0, level > 1], "{printed}");
        assert_eq!(exit(&output), level, "{printed}");
    }
}

#[test]
fn negate_of_the_monitoring_plugins_takes_it_for_a_plugin() {
    let test = "negate_of_the_monitoring_plugins_takes_it_for_a_plugin";
    if !Suite::Monitoring.is_there(test) {
        return;
    }
    for (host, states, status, said) in [
        (
            "exhausted-6.18",
            ["-c", "OK"],
            0,
            "TWCHECK OK - No port is free",
        ),
        (
            "busy-server-6.18",
            ["-o", "CRITICAL"],
            2,
            "TWCHECK CRITICAL - Ports are not",
        ),
        (
            "recycle-3.10",
            ["-w", "UNKNOWN"],
            3,
            "TWCHECK UNKNOWN - net.ipv4",
        ),
    ] {
        let output = Suite::Monitoring
            .program("lib/nagios/plugins/negate")
            .arg("--substitute")
            .args(states)
            .arg(env!("CARGO_BIN_EXE_twcheck"))
            .args(on(host, &["--format", "nagios"]))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert_eq!(exit(&output), status, "{}", text(&output));
        assert!(stdout(&output).starts_with(said), "{}", text(&output));
        assert!(
            stdout(&output).contains(" | ports_free="),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn the_alert_rules_are_right_and_their_tests_pass() {
    if !Suite::Monitoring.is_there("the_alert_rules_are_right_and_their_tests_pass") {
        return;
    }
    for arguments in [
        ["check", "rules", "contrib/prometheus/twcheck.rules.yml"],
        ["test", "rules", "contrib/prometheus/twcheck.rules.test.yml"],
    ] {
        let promtool = Suite::Monitoring
            .program("bin/promtool")
            .args(arguments)
            .output();
        let output = promtool.unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("SUCCESS"), "{}", text(&output));
    }
}

#[test]
fn systemd_takes_the_service_and_the_timer_and_finds_the_service_hardened() {
    let test = "systemd_takes_the_service_and_the_timer_and_finds_the_service_hardened";
    if !Suite::Monitoring.is_there(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = |name: &str| {
        let file = fs::read_to_string(format!("contrib/systemd/{name}")).unwrap();
        // It insists that the program is there.
        let file = file.replace("/usr/local/bin/twcheck", env!("CARGO_BIN_EXE_twcheck"));
        let path = folder.path().join(name);
        fs::write(&path, file).unwrap();
        path
    };
    let units = ["twcheck.service", "twcheck.timer"].map(unit);
    let analyze = |arguments: &[&str]| {
        let mut program = Suite::Monitoring.program("bin/systemd-analyze");
        let output = program.args(arguments).args(&units[..1]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let mut verify = Suite::Monitoring.program("bin/systemd-analyze");
    let output = verify
        .args(["verify", "--man=no"])
        .args(&units)
        .output()
        .unwrap();
    assert_eq!(text(&output), "exit status: 0");
    // Of 10; in tenths.
    analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]);
}

/// A file that others read: the words behind `key` in its only line.
fn of_yaml(path: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(key));
    let list = lines.next().unwrap().trim_matches(['[', ']']);
    assert_eq!(lines.next(), None, "{path}: {key}");
    list.split(", ").map(str::to_owned).collect()
}

/// With the capabilities that the DaemonSet has and nowhere to write but its one folder.
#[test]
fn a_daemonset_judges_every_namespace_with_the_rights_that_it_has() {
    alone(
        "a_daemonset_judges_every_namespace_with_the_rights_that_it_has",
        || {
            // What a program is called is anybody's choice.
            let programs = tempfile::tempdir().unwrap();
            let hostile = programs.path().join("a\"b\\c|{d}");
            fs::copy("/bin/sleep", &hostile).unwrap();
            let mut pods = [40000, 41000].map(|low| {
            let setup = format!(
                "ip link set lo up && echo {low} {} > /proc/sys/net/ipv4/ip_local_port_range && \
                 echo && exec \"$0\" 60",
                low + 99
            );
            let mut pod = Command::new("unshare")
                .args(["--net", "--", "sh", "-c", &setup])
                .arg(&hostile)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            pod.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            pod
        });
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("twcheck.prom");
            let capabilities = of_yaml("contrib/kubernetes/daemonset.yaml", "add: ");
            let capabilities = capabilities
                .iter()
                .map(|it| format!("+{}", it.to_lowercase()));
            let capabilities = ["-all".to_owned()].into_iter().chain(capabilities);
            let bounds = format!(
                "--bounding-set={}",
                capabilities.collect::<Vec<_>>().join(",")
            );
            let script = "mount -o bind \"$1\" \"$1\" && mount -o remount,ro,bind / && \
                      ! touch /x 2>/dev/null && shift && exec \"$@\"";
            let looked = Command::new("unshare")
                .args([
                    "--mount",
                    "--propagation=private",
                    "--",
                    "sh",
                    "-c",
                    script,
                    "sh",
                ])
                .arg(folder.path())
                .args(["setpriv", &bounds, "--inh-caps=-all", "--no-new-privs"])
                .args([
                    env!("CARGO_BIN_EXE_twcheck"),
                    "verdict",
                    "--all-netns",
                    "--top",
                    "3",
                ])
                .args(["--format", "prometheus", "--output"])
                .arg(&path)
                .output()
                .unwrap();
            // In the PID namespace of this test not all processes are seen, and that is the one gap.
            assert_eq!(text(&looked), "exit status: 3");
            let metrics = fs::read_to_string(&path).unwrap();
            let samples = samples(&metrics);
            assert_eq!(samples["twcheck_namespaces"], 3.0, "{metrics}");
            assert_eq!(samples["twcheck_namespaces_unknown"], 0.0);
            assert_eq!(samples["twcheck_namespaces_gaps"], 1.0);
            let usable = samples
                .iter()
                .filter(|(name, _)| name.starts_with("twcheck_usable_ports{"));
            let mut usable: Vec<_> = usable.map(|(_, &value)| value).collect();
            usable.sort_by(f64::total_cmp);
            assert_eq!(usable[..2], [100.0, 100.0], "{metrics}");
            assert!(metrics.contains("twcheck_netns_info{netns=\""), "{metrics}");
            assert!(
                metrics.contains(r#"processes="a\"b\\c|{d}"} 1"#),
                "{metrics}"
            );
            if Suite::Monitoring
                .is_there("a_daemonset_judges_every_namespace_with_the_rights_that_it_has")
            {
                assert_clean(&metrics);
            }
            for pod in &mut pods {
                pod.kill().unwrap();
                pod.wait().unwrap();
            }
        },
    );
}

/// Of many namespaces with flows each, the worst flows of all are told, and no more than asked for.
#[test]
fn flows_of_all_namespaces_are_bounded_together() {
    alone("flows_of_all_namespaces_are_bounded_together", || {
        let client = "import socket, sys, time\n\
                      held = []\n\
                      for port in range(3301, 3301 + int(sys.argv[1])):\n\
                      \x20   server = socket.socket(); server.bind(('127.0.0.1', port)); server.listen()\n\
                      \x20   for _ in range(port - 3300):\n\
                      \x20       client = socket.create_connection(('127.0.0.1', port))\n\
                      \x20       held += [server, client, server.accept()[0]]\n\
                      print(flush=True)\n\
                      time.sleep(60)\n";
        let mut pods = [4, 7].map(|flows: u32| {
            let script = "ip link set lo up && exec python3 -c \"$@\"";
            let mut pod = Command::new("unshare")
                .args([
                    "--net",
                    "--",
                    "sh",
                    "-c",
                    script,
                    "sh",
                    client,
                    &flows.to_string(),
                ])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            pod.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            pod
        });
        let told = |top: &str| {
            let output = twcheck(&[
                "verdict",
                "--all-netns",
                "--format",
                "prometheus",
                "--top",
                top,
            ]);
            let samples = samples(&stdout(&output));
            let mut ports: Vec<_> = samples
                .iter()
                .filter(|(name, _)| name.starts_with("twcheck_flow_ports_in_use{netns="))
                .map(|(_, &value)| value)
                .collect();
            ports.sort_by(f64::total_cmp);
            ports
        };
        assert_eq!(told("5"), [4.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(
            told("0"),
            [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 6.0, 7.0]
        );
        let line = stdout(&twcheck(&["verdict", "--all-netns", "--format", "nagios"]));
        assert!(
            line.starts_with("TWCHECK UNKNOWN - None of 3 network namespaces"),
            "{line}"
        );
        assert!(
            line.contains(" | namespaces=3;;;0 namespaces_unknown=0;;;0 ports_free="),
            "{line}"
        );
        let ticket = stdout(&twcheck(&[
            "verdict",
            "--all-netns",
            "--format",
            "markdown",
        ]));
        assert_eq!(
            ticket
                .lines()
                .filter(|line| line.starts_with("| OK | "))
                .count(),
            3,
            "{ticket}"
        );
        for pod in &mut pods {
            pod.kill().unwrap();
            pod.wait().unwrap();
        }
    });
}

/// An answer of an HTTP server here.
fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

const EXPORTER: u16 = 9100;
const PROMETHEUS: u16 = 9090;

/// What Prometheus answers to an expression.
fn query(expression: &str) -> Vec<Value> {
    let encoded = expression
        .bytes()
        .fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
    let body = get(PROMETHEUS, &format!("/api/v1/query?query={encoded}")).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

/// The alerts that are firing, by name and destination port.
fn firing() -> BTreeSet<(String, String)> {
    let body = get(PROMETHEUS, "/api/v1/alerts").unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
    let firing = alerts.filter(|alert| alert["state"] == "firing");
    let told = |alert: &Value| {
        let label = |name: &str| {
            alert["labels"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        (label("alertname"), label("destination_port"))
    };
    firing.map(told).collect()
}

/// Waits until `is_so`, for so many seconds at most, and says how many it took.
fn within(seconds: u64, what: &str, is_so: impl Fn() -> bool) -> f64 {
    let start = Instant::now();
    while !is_so() {
        let passed = start.elapsed().as_secs();
        assert!(
            passed < seconds,
            "{what}: not within {seconds} s: {:?}",
            firing()
        );
        thread::sleep(Duration::from_millis(200));
    }
    start.elapsed().as_secs_f64()
}

/// The rules as they are, but for one that keeps an alert for a minute.
fn start_prometheus(folder: &Path) -> [Service; 2] {
    let name = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let rules = fs::read_to_string("contrib/prometheus/twcheck.rules.yml").unwrap();
    assert!(rules.contains("keep_firing_for: 1m"));
    let rules = rules.replace("keep_firing_for: 1m", "keep_firing_for: 2s");
    fs::write(name("rules.yml"), rules).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml]\n\
         scrape_configs:\n\
         - job_name: node\n\
         \x20 static_configs:\n\
         \x20 - targets: ['127.0.0.1:{EXPORTER}']\n"
    );
    fs::write(name("prometheus.yml"), config).unwrap();
    let mut exporter = Suite::Monitoring.program("bin/prometheus-node-exporter");
    exporter.args([
        &format!("--web.listen-address=127.0.0.1:{EXPORTER}"),
        "--collector.disable-defaults",
        "--collector.textfile",
        &format!("--collector.textfile.directory={}", name("textfile")),
    ]);
    let mut prometheus = Suite::Monitoring.program("bin/prometheus");
    prometheus.args([
        &format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"),
        &format!("--config.file={}", name("prometheus.yml")),
        &format!("--storage.tsdb.path={}", name("tsdb")),
    ]);
    let services = [
        Service::start(exporter, EXPORTER),
        Service::start(prometheus, PROMETHEUS),
    ];
    // It listens before it answers.
    within(30, "a Prometheus that is ready", || {
        get(PROMETHEUS, "/-/ready").is_ok_and(|said| said.contains("Ready"))
    });
    services
}

#[test]
fn an_alert_fires_while_ports_run_out_and_resolves_afterwards() {
    let test = "an_alert_fires_while_ports_run_out_and_resolves_afterwards";
    if env::var_os(INSIDE).is_none() && !Suite::Monitoring.is_there(test) {
        return;
    }
    in_namespace(test, || {
        // 20 s at 50 connections/s.
        port_range(40000, 40999);
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let server = serve("192.0.2.1:3306");
        let folder = tempfile::tempdir().unwrap();
        let textfile = folder.path().join("textfile");
        fs::create_dir(&textfile).unwrap();
        let file = textfile.join("twcheck.prom");
        let _services = start_prometheus(folder.path());

        let (ended, churning) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            // The timer.
            let looks = scope.spawn(|| look_until(&ended, &file));
            let client = scope.spawn(|| churn(server, &churning, &ended));
            let _end = End(&ended);

            within(30, "a first scrape", || !query("twcheck_level").is_empty());
            let level = || {
                query("twcheck_level")[0]["value"][1]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            assert_eq!((level(), firing()), ("0".into(), BTreeSet::new()));
            let exported = get(EXPORTER, "/metrics").unwrap();
            for line in fs::read_to_string(&file).unwrap().lines() {
                // The exporter orders labels, writes 1e+06, and looks a moment later.
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(name == "#" || exported.contains(name), "{line}");
            }
            let counter = "# TYPE twcheck_time_wait_overflows_total counter";
            assert!(exported.contains(counter), "{exported}");
            assert!(
                exported.contains("node_textfile_scrape_error 0"),
                "{exported}"
            );

            churning.store(true, Ordering::Relaxed);
            let start = Instant::now();
            let alert = ("PortsRunOut".to_owned(), "3306".to_owned());
            within(60, "PortsRunOut", || firing().contains(&alert));
            let fired = start.elapsed();
            assert_eq!(firing(), BTreeSet::from([alert]), "no other alert");
            within(60, "no port left", || {
                !query("twcheck_flow_ports_free == 0").is_empty()
            });
            assert_eq!(level(), "2");
            thread::sleep(Duration::from_secs(2));
            assert_eq!(firing().len(), 1, "{:?}", firing());
            try_dashboard();

            churning.store(false, Ordering::Relaxed);
            let (made, refused) = client.join().unwrap();
            let refused = refused.expect("ports ran out");
            let resolved = within(90, "resolved", || firing().is_empty());
            within(90, "OK", || level() == "0");
            println!(
                "MEASURED PortsRunOut fired after {:.1} s, the first errno 99 came after {:.1} s and \
                 {made} connections; it resolved {resolved:.1} s after the client had stopped",
                fired.as_secs_f64(),
                refused.as_secs_f64()
            );
            assert!(
                fired < refused,
                "an alert after the event: {fired:?}, {refused:?}"
            );

            // What the stale and the absent are told by.
            let age = "time() - node_textfile_mtime_seconds{file=~\"(.*/)?twcheck[^/]*[.]prom\"}";
            let age = query(age);
            assert_eq!(age.len(), 1, "{age:?}");
            let seconds: f64 = age[0]["value"][1].as_str().unwrap().parse().unwrap();
            assert!((0.0..30.0).contains(&seconds), "{age:?}");
            ended.store(true, Ordering::Relaxed);
            let statuses = looks.join().unwrap();
            assert!(
                statuses.is_superset(&BTreeSet::from([0, 2])),
                "{statuses:?}"
            );
            assert!(!statuses.contains(&3), "{statuses:?}");
        });
    });
}

/// A timer's looks, twice a second, and their exit statuses.
fn look_until(ended: &AtomicBool, file: &Path) -> BTreeSet<i32> {
    let mut statuses = BTreeSet::new();
    while !ended.load(Ordering::Relaxed) {
        let mut look = command(&["verdict", "--format", "prometheus", "--output"]);
        let output = look.arg(file).output().unwrap();
        assert_eq!(stdout(&output), "");
        statuses.insert(exit(&output));
        thread::sleep(Duration::from_millis(500));
    }
    statuses
}

/// A client of 50 connections/s while it is told so: how many it made, and when the first found no
/// port.
fn churn(server: SocketAddr, churning: &AtomicBool, ended: &AtomicBool) -> (u32, Option<Duration>) {
    let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    while !is_set(churning) && !is_set(ended) {
        thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    let (mut made, mut refused) = (0, None);
    while is_set(churning) && !is_set(ended) {
        match connect_and_close(server) {
            Ok(()) => made += 1,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(99));
                refused.get_or_insert(start.elapsed());
            }
        }
        thread::sleep(Duration::from_millis(19));
    }
    (made, refused)
}

/// Ends the threads of a test that fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every panel of the dashboard asks what Prometheus understands and, now, has an answer to.
fn try_dashboard() {
    let text = fs::read_to_string("contrib/grafana/twcheck.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = 0;
    for target in panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let expression = target["expr"].as_str().unwrap();
        let expression = expression.replace("$job", ".*").replace("$instance", ".*");
        let is_of_all = expression.contains("twcheck_namespaces_unknown");
        assert!(is_of_all || !query(&expression).is_empty(), "{expression}");
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
}
