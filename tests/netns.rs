//! Other network namespaces: what is said of each from outside against what is said, and what the
//! kernel does, inside.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    alone, assert_valid, command, exit, in_namespace, json, run, skip_for_want_of, stderr, stdout,
    text, twcheck,
};
use serde_json::{Value, json};

/// A client that makes as many connections to its own namespace's server as it is told, leaves them
/// in TIME_WAIT but for one, and waits.
const CLIENT: &str = "
import socket, sys, time
server = socket.socket()
server.bind(('127.0.0.1', 3306))
server.listen(100)
def connect():
    client = socket.socket()
    client.connect(('127.0.0.1', 3306))
    return client, server.accept()[0]
for _ in range(int(sys.argv[1])):
    client, served = connect()
    client.shutdown(socket.SHUT_WR)
    served.recv(1)
    served.close()
    client.recv(1)
    client.close()
held = connect()
print('ready', flush=True)
time.sleep(300)
";

/// A process in a network namespace of its own with 1,000 ports from `low` on, of which it takes
/// one more than `connections`; gone when it is dropped.
struct Pod(Child);

impl Pod {
    fn new(low: u16, connections: u16) -> Self {
        let setup = format!(
            "ip link set lo up && echo {low} {} > /proc/sys/net/ipv4/ip_local_port_range && \
             echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse && \
             echo 1 > /proc/sys/net/ipv4/tcp_rfc1337 && exec python3 -c \"$0\" {connections}",
            low + 999
        );
        Self::start(&["--net"], &setup, &[CLIENT])
    }

    /// What `script` leaves running once it has printed a line.
    fn start(namespaces: &[&str], script: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new("unshare")
            .args(namespaces)
            .args(["--", "sh", "-c", script])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{script}");
        Self(process)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn netns(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let path = format!("/proc/{}/ns/net", self.pid());
        fs::metadata(path).unwrap().ino()
    }

    /// The binary's JSON from inside.
    fn inside(&self, arguments: &[&str]) -> Value {
        let output = Command::new("nsenter")
            .args(["-t", &self.pid(), "-n", env!("CARGO_BIN_EXE_twcheck")])
            .args(arguments)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What does not change from one look to the next.
fn lasting(verdict: &Value) -> Value {
    let flow = &verdict["flows"][0];
    json!({
        "level": verdict["level"],
        "tunables": verdict["tunables"],
        "capacity": verdict["capacity"],
        "netns": verdict["host"]["netns"],
        "in_use": flow["ports_in_use"],
        "states": flow["by_state"],
        "owners": flow["owners"],
        "codes": codes(verdict),
    })
}

fn codes(verdict: &Value) -> Vec<&str> {
    let findings = verdict["findings"].as_array().unwrap().iter();
    findings.map(|it| it["code"].as_str().unwrap()).collect()
}

#[test]
fn a_namespace_is_judged_from_outside_as_from_inside() {
    in_namespace("a_namespace_is_judged_from_outside_as_from_inside", || {
        for connections in [0, 600, 900] {
            let pod = Pod::new(40000, connections);
            let path = format!("/proc/{}/ns/net", pod.pid());
            let number = pod.netns().to_string();
            let as_lsns_has_it = format!("net:[{number}]");
            let inside = lasting(&pod.inside(&["verdict", "--json", "--owners"]));
            assert_eq!(inside["in_use"], connections + 1);
            for place in [
                ["--pid", &pod.pid()],
                ["--netns", &path],
                ["--netns", &number],
                ["--netns", &as_lsns_has_it],
            ] {
                let arguments = [&["verdict", "--json", "--owners"][..], &place].concat();
                let said = json(&arguments);
                assert_valid("verdict", &said);
                assert_eq!(lasting(&said), inside, "{place:?}");
                assert_eq!(said["flows"][0]["owners"][0]["pid"], pod.0.id());
                assert_eq!(said["namespace"]["netns"], pod.netns());
                for command in ["states", "advise"] {
                    let said = json(&[&[command, "--json"][..], &place].concat());
                    assert_valid(command, &said);
                    let mut inside = pod.inside(&[command, "--json"]);
                    inside["namespace"] = said["namespace"].clone();
                    let mut said = said;
                    for it in [&mut said, &mut inside] {
                        // Its commands are to be run elsewhere.
                        it["application"] = json!(null);
                        // What this program runs in is not what runs there.
                        it.as_object_mut().unwrap().remove("place");
                    }
                    assert_eq!(said, inside, "{command} {place:?}");
                }
            }
        }
    });
}

#[test]
fn commands_that_are_shown_reach_the_namespace_and_nothing_else() {
    in_namespace(
        "commands_that_are_shown_reach_the_namespace_and_nothing_else",
        || {
            let pod = Pod::new(40000, 900);
            let said = stdout(&twcheck(&["verdict", "--pid", &pod.pid()]));
            let commands: Vec<_> = said.split('`').skip(1).step_by(2).collect();
            let set = commands.iter().find(|it| it.contains("sysctl -w")).unwrap();
            run("sh", &["-c", set]);
            let key = "/proc/sys/net/ipv4/tcp_tw_reuse";
            assert_eq!(fs::read_to_string(key).unwrap(), "2\n");
            let now = pod.inside(&["verdict", "--json"]);
            assert_eq!(now["tunables"]["tcp_tw_reuse"], 1);
            for ours in commands.iter().filter(|it| it.starts_with("twcheck")) {
                let words: Vec<_> = ours.split(' ').skip(1).collect();
                let shown = stdout(&twcheck(&words));
                let namespace = format!("Namespace: {}", pod.netns());
                assert!(shown.contains(&namespace), "{ours}: {shown}");
            }
            let file = stdout(&twcheck(&[
                "advise",
                "--pid",
                &pod.pid(),
                "--format",
                "sysctl",
            ]));
            let file = file.replace("\n# ", " ");
            let enter = format!("`nsenter -t {} -n sysctl -p FILE`", pod.pid());
            assert!(file.contains(&enter), "{file}");
        },
    );
}

#[test]
fn all_namespaces_are_judged_once_each_the_worst_first() {
    alone(
        "all_namespaces_are_judged_once_each_the_worst_first",
        || {
            let pods = [(40000, 100), (20000, 900), (50000, 600), (30000, 999)];
            let pods =
                pods.map(|(low, connections)| (Pod::new(low, connections), low, connections));
            let output = twcheck(&["verdict", "--all-netns", "--json"]);
            let all: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_valid("namespaces", &all);
            assert_eq!((exit(&output), &all["level"]), (2, &json!("critical")));
            let listed = all["namespaces"].as_array().unwrap();
            let mut seen: Vec<_> = listed.iter().map(|it| &it["namespace"]["netns"]).collect();
            for it in listed {
                assert_valid("verdict", &it["report"]);
                assert_eq!(it["report"]["host"]["netns"], it["namespace"]["netns"]);
            }
            seen.dedup();
            assert_eq!(seen.len(), listed.len());
            let place = |netns: u64| {
                let found = listed
                    .iter()
                    .position(|it| it["namespace"]["netns"] == netns);
                found.expect("each namespace is listed")
            };
            for (pod, low, connections) in &pods {
                let it = &listed[place(pod.netns())];
                assert_eq!(
                    it["report"]["tunables"]["ip_local_port_range"],
                    json!([low, low + 999])
                );
                assert_eq!(it["report"]["flows"][0]["ports_in_use"], connections + 1);
                assert_eq!(it["namespace"]["processes"][0]["command"], "python3");
                assert_eq!(it["namespace"]["processes"][0]["pid"], pod.0.id());
            }
            let order = [3, 1, 2, 0].map(|index| place(pods[index].0.netns()));
            assert!(order.is_sorted(), "{order:?}");
            let is_own = |it: &&Value| it["namespace"]["is_own"] == true;
            assert_eq!(listed.iter().filter(is_own).count(), 1);

            let shown = stdout(&twcheck(&["verdict", "--all-netns", "--top", "1"]));
            let worst = format!("\n== {}", pods[3].0.netns());
            assert!(shown.contains(&worst), "{shown}");
            assert!(
                shown.contains("2 more namespaces that are not well"),
                "{shown}"
            );
            let plain = stdout(&twcheck(&["verdict", "--all-netns", "--format", "plain"]));
            let line = format!("{} CRITICAL PORTS_EXHAUSTED ", pods[3].0.netns());
            assert!(plain.lines().any(|it| it.starts_with(&line)), "{plain}");
            for command in ["states", "advise"] {
                let all = json(&[command, "--all-netns", "--json"]);
                assert_valid("namespaces", &all);
                for it in all["namespaces"].as_array().unwrap() {
                    assert_valid(command, &it["report"]);
                }
                let first = &all["namespaces"][0]["namespace"]["netns"];
                assert_eq!(first, pods[3].0.netns(), "{command}");
                let shown = stdout(&twcheck(&[command, "--all-netns"]));
                for (pod, ..) in &pods {
                    assert!(shown.contains(&pod.netns().to_string()), "{shown}");
                }
            }
        },
    );
}

/// A namespace that ends after it was found and before it is opened is told, and is no error.
#[test]
fn a_namespace_that_ends_meanwhile_is_told_and_is_no_error() {
    alone(
        "a_namespace_that_ends_meanwhile_is_told_and_is_no_error",
        || {
            const TRIES: u64 = 60;
            let mut gone = 0;
            for attempt in 0..TRIES {
                let pods: Vec<_> = (0..6)
                    .map(|_| Pod::start(&["--net"], "echo ready; exec sleep 300", &[]))
                    .collect();
                let mut look = command(&["verdict", "--all-netns", "--json"])
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                thread::sleep(Duration::from_millis(attempt));
                drop(pods);
                let mut all = String::new();
                std::io::Read::read_to_string(look.stdout.as_mut().unwrap(), &mut all).unwrap();
                // In this PID namespace not all is seen.
                assert_eq!(look.wait().unwrap().code(), Some(3), "{all}");
                let all: Value = serde_json::from_str(&all).unwrap();
                assert_valid("namespaces", &all);
                let namespaces = all["namespaces"].as_array().unwrap();
                let ended = namespaces.iter().filter(|it| it["is_gone"] == true).count();
                if ended > 0 {
                    let summary = all["summary"].as_str().unwrap();
                    assert!(
                        summary.contains(&format!(" {ended} ended meanwhile. There may be more")),
                        "{summary}"
                    );
                    gone += 1;
                }
                if gone == 3 {
                    return;
                }
            }
            assert!(gone > 0, "in {TRIES} tries none ended in time");
        },
    );
}

/// As `ip netns` keeps them: nobody is in it, and a mount alone holds it.
#[test]
fn a_namespace_that_only_a_mount_holds_is_found_by_its_name() {
    alone(
        "a_namespace_that_only_a_mount_holds_is_found_by_its_name",
        || {
            let twcheck = env!("CARGO_BIN_EXE_twcheck");
            let script = |line: &str| {
                let script = format!(
                    "mount -t tmpfs none /run && ip netns add web && \
                 ip netns exec web sysctl -qw net.ipv4.ip_local_port_range='23000 23099' && {line}"
                );
                Command::new("unshare")
                    .args(["--mount", "sh", "-c", &script])
                    .output()
                    .unwrap()
            };
            for line in [
                format!("{twcheck} verdict --netns web --json"),
                format!("{twcheck} verdict --netns /run/netns/web --json"),
            ] {
                let output = script(&line);
                let said: Value = serde_json::from_slice(&output.stdout)
                    .unwrap_or_else(|_| panic!("{}", text(&output)));
                assert_eq!(
                    said["tunables"]["ip_local_port_range"],
                    json!([23000, 23099])
                );
                assert_eq!(exit(&output), 0);
            }
            let output = script(&format!("{twcheck} states --all-netns --json"));
            let all: Value = serde_json::from_slice(&output.stdout).unwrap();
            let names: Vec<_> = all["namespaces"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|it| it["namespace"]["name"].as_str())
                .collect();
            assert!(names.contains(&"web"), "{all}");
        },
    );
}

/// The user of the tests that is not root.
const NOBODY: &str = "65534";

/// The binary, run by an ordinary user.
fn as_nobody(arguments: &[&str]) -> std::process::Output {
    Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"])
        .arg(env!("CARGO_BIN_EXE_twcheck"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whether this test is run by root, who alone can become somebody else.
fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::getuid().is_root();
    if !is_root {
        skip_for_want_of(test, "only root can become another user");
    }
    is_root && Path::new("/usr/bin/setpriv").exists()
}

/// What the same user is told of the namespace that this test is in.
fn json_of_own() -> Value {
    let output = as_nobody(&["verdict", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn without_the_right_to_enter_the_tables_are_read_and_the_rest_is_a_gap() {
    let test = "without_the_right_to_enter_the_tables_are_read_and_the_rest_is_a_gap";
    if !is_root(test) {
        return;
    }
    // Python of a user's home is not for others.
    let become_nobody = format!(
        "ip link set lo up && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
         /usr/bin/python3 -c \"$0\" 50"
    );
    for (own, pod) in [
        (true, Pod::start(&["--net"], &become_nobody, &[CLIENT])),
        (false, Pod::new(40000, 50)),
    ] {
        let states = as_nobody(&["states", "--pid", &pod.pid(), "--json"]);
        let said: Value =
            serde_json::from_slice(&states.stdout).unwrap_or_else(|_| panic!("{}", text(&states)));
        assert_eq!(said["states"]["TIME_WAIT"], 50, "{said}");
        assert_eq!(exit(&states), 0);
        assert!(
            stderr(&states).contains("CAP_SYS_ADMIN"),
            "{}",
            text(&states)
        );
        let verdict = as_nobody(&["verdict", "--pid", &pod.pid(), "--json", "--owners"]);
        let said: Value = serde_json::from_slice(&verdict.stdout).unwrap();
        assert_eq!((exit(&verdict), &said["level"]), (3, &json!("unknown")));
        assert_eq!(said["tunables"]["ip_local_port_range"], json!(null));
        assert_eq!(said["flows"][0]["ports_in_use"], 51);
        let owner = &said["flows"][0]["owners"][0]["pid"];
        assert_eq!(*owner == pod.0.id(), own, "{said}");
        let asked = as_nobody(&["verdict", "--pid", &pod.pid(), "--source", "sock_diag"]);
        assert_eq!(exit(&asked), 3);
        assert!(stderr(&asked).contains("CAP_SYS_ADMIN"), "{}", text(&asked));

        let all = as_nobody(&["verdict", "--all-netns", "--json"]);
        let said: Value = serde_json::from_slice(&all.stdout).unwrap();
        assert_valid("namespaces", &said);
        // Whoever may not look at all processes does not know that all is well.
        assert_eq!(exit(&all), 3, "{}", said["summary"]);
        let found = said["namespaces"].as_array().unwrap();
        let own_one = found.iter().find(|it| it["namespace"]["is_own"] == true);
        let own_one = &own_one.unwrap()["report"];
        assert_eq!(
            own_one["level"],
            json_of_own()["level"],
            "it needs no right"
        );
        let found = found
            .iter()
            .find(|it| it["namespace"]["netns"] == pod.netns());
        assert_eq!(found.is_some(), own);
        if let Some(found) = found {
            assert_eq!(found["report"]["level"], "unknown");
        }
    }
}

/// As in a rootless container.
#[test]
fn a_namespace_of_the_users_own_user_namespace_is_entered() {
    let test = "a_namespace_of_the_users_own_user_namespace_is_entered";
    if !is_root(test) {
        return;
    }
    let script = format!(
        "exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups unshare --user --net \
         --map-root-user sh -c 'ip link set lo up && \
         echo 40000 40999 > /proc/sys/net/ipv4/ip_local_port_range && \
         echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse && exec /usr/bin/python3 -c \"$0\" 600' \"$0\""
    );
    let pod = Pod::start(&[], &script, &[CLIENT]);
    let output = as_nobody(&["verdict", "--pid", &pod.pid(), "--json"]);
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(
        said["tunables"]["ip_local_port_range"],
        json!([40000, 40999])
    );
    assert_eq!(
        (exit(&output), &said["level"]),
        (1, &json!("warning")),
        "{said}"
    );
    assert_eq!(said["flows"][0]["owners"][0]["pid"], pod.0.id());
}

/// A container has its own /etc/hosts.
#[test]
fn a_name_is_looked_up_as_the_processes_there_do() {
    in_namespace("a_name_is_looked_up_as_the_processes_there_do", || {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "192.0.2.77 db.of-the-pod\n").unwrap();
        let script = format!(
            "mount --bind {} /etc/hosts && ip link set lo up && echo ready && exec sleep 300",
            hosts.display()
        );
        let pod = Pod::start(&["--net", "--mount"], &script, &[]);
        let said = json(&[
            "verdict",
            "db.of-the-pod:3306",
            "--pid",
            &pod.pid(),
            "--json",
        ]);
        let address = &said["destination"]["addresses"][0];
        assert_eq!(address["address"], "192.0.2.77");
        assert_eq!(address["errno"], 101, "its own routes are asked");
        assert_eq!(codes(&said)[0], "NO_ROUTE");
        let here = twcheck(&["verdict", "db.of-the-pod:3306"]);
        assert_eq!(exit(&here), 3);
    });
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    let lists = "hint: `ip netns` lists names, `lsns -t net` numbers; a path is one such as \
                 /run/docker/netns/ID\n";
    let own = std::process::id();
    let uts = format!("/proc/{own}/ns/uts");
    for (arguments, message, hint) in [
        (
            &["--netns", "nowhere"][..],
            "--netns nowhere: there is no such network namespace",
            lists,
        ),
        (
            &["--netns", "/nowhere/net"],
            "--netns /nowhere/net: there is no such network namespace",
            lists,
        ),
        (
            &["--netns", "/etc/passwd"],
            "--netns /etc/passwd: it is no network namespace",
            lists,
        ),
        (
            &["--netns", "/proc"],
            "--netns /proc: it is no network namespace",
            lists,
        ),
        (
            &["--netns", &uts],
            &format!("--netns {uts}: it is no network namespace"),
            lists,
        ),
        (
            &["--pid", "4194304"],
            "--pid 4194304: there is no such process, or it is hidden from this user",
            "hint: `ps -e` lists processes, `lsns -t net` one of each network namespace\n",
        ),
        (
            &["--proc-root", &format!("/proc/{own}")],
            &format!(
                "--proc-root reads a recorded copy of /proc, and /proc/{own} is a running process, \
                 whose folder has no settings"
            ),
            &format!("hint: --pid {own}\n"),
        ),
        (
            &["--proc-root", "/proc/self/"],
            "--proc-root reads a recorded copy of /proc, and /proc/self is a running process, \
             whose folder has no settings",
            "hint: leave --proc-root out: this process is the default\n",
        ),
    ] {
        for command in ["verdict", "states", "advise"] {
            let output = twcheck(&[&[command][..], arguments].concat());
            assert_eq!(exit(&output), 3);
            assert_eq!(stdout(&output), "");
            let said = stderr(&output);
            assert_eq!(said, format!("error: {message}\n{hint}"), "{arguments:?}");
        }
    }
}

#[test]
fn a_zombie_has_no_namespace_any_more() {
    let mut child = Command::new("true").spawn().unwrap();
    thread::sleep(Duration::from_millis(200));
    let output = twcheck(&["verdict", "--pid", &child.id().to_string()]);
    child.wait().unwrap();
    assert_eq!(exit(&output), 3);
    assert!(
        stderr(&output).contains("it has ended"),
        "{}",
        text(&output)
    );
}

/// Whoever does not see all processes does not know that all is well.
#[test]
fn processes_that_are_hidden_leave_it_unknown() {
    let test = "processes_that_are_hidden_leave_it_unknown";
    if !is_root(test) || !common::has_namespaces(test) || common::linux() < (5, 8) {
        return;
    }
    let look = |namespaces: &[&str], mount: &str, who: &str| {
        let twcheck = env!("CARGO_BIN_EXE_twcheck");
        let script = format!("{mount}; exec {who} {twcheck} states --all-netns --json");
        let output = Command::new("unshare")
            .args(namespaces)
            .args(["sh", "-c", &script])
            .output()
            .unwrap();
        let said: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        assert_valid("namespaces", &said);
        (exit(&output), said["summary"].as_str().unwrap().to_owned())
    };
    let nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --");
    for option in ["hidepid=1", "hidepid=2", "hidepid=4"] {
        let mount = format!("mount -t proc -o {option} proc /proc");
        let (status, summary) = look(&["--mount"], &mount, &nobody);
        assert_eq!(status, 3, "{option}: {summary}");
        assert!(
            summary.contains("/proc is mounted with hidepid="),
            "{summary}"
        );
        let (_, summary) = look(&["--mount"], &mount, "");
        assert!(!summary.contains("hidepid"), "root sees them: {summary}");
    }
    let (status, summary) = look(&["--pid", "--fork", "--mount-proc"], ":", "");
    assert_eq!(status, 3, "{summary}");
    assert!(summary.contains("a PID namespace of its own"), "{summary}");
}

/// A mount whose name is no text, and one in a mount namespace that is somebody else's.
#[test]
fn a_namespace_that_is_mounted_out_of_sight_is_found() {
    alone("a_namespace_that_is_mounted_out_of_sight_is_found", || {
        let hold = |folder: &str, name: &str| {
            let script = format!(
                "mount -t tmpfs none {folder} && f={folder}/$(printf '{name}') && touch \"$f\" && \
                 unshare --net=\"$f\" sh -c 'echo 21000 21099 > \
                 /proc/sys/net/ipv4/ip_local_port_range' && echo ready && exec sleep 300"
            );
            Pod::start(&["--mount"], &script, &[])
        };
        let elsewhere = hold("/mnt", "a b\\377");
        let all = json(&["advise", "--all-netns", "--json"]);
        assert_valid("namespaces", &all);
        let listed = all["namespaces"].as_array().unwrap();
        let found = listed
            .iter()
            .filter(|it| it["namespace"]["processes_total"] == 0 && it["report"] != json!(null));
        assert_eq!(found.count(), 1, "{all:#}");
        drop(elsewhere);
    });
}

/// Each row is what is said inside, of any mix of loads.
#[test]
fn any_mix_of_namespaces_is_told_as_from_inside() {
    alone("any_mix_of_namespaces_is_told_as_from_inside", || {
        let mut seed = common::env_number("TWCHECK_SEED", u64::from(std::process::id()));
        println!("TWCHECK_SEED={seed}");
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let pods: Vec<_> = (0..8)
            .map(|_| {
                let low = 10_000 + u16::try_from(random(50)).unwrap() * 1000;
                Pod::new(low, u16::try_from(random(1000)).unwrap())
            })
            .collect();
        let all = json(&["verdict", "--all-netns", "--owners", "--json"]);
        let listed = all["namespaces"].as_array().unwrap();
        for pod in &pods {
            let its = |it: &&Value| it["namespace"]["netns"] == pod.netns();
            let told = &listed.iter().find(its).expect("each is listed")["report"];
            let inside = pod.inside(&["verdict", "--owners", "--json"]);
            assert_eq!(lasting(told), lasting(&inside));
        }
    });
}

/// What a node with many pods costs.
#[test]
fn two_hundred_namespaces_in_one_call() {
    alone("two_hundred_namespaces_in_one_call", || {
        const PODS: usize = 200;
        let busy = [Pod::new(40000, 900), Pod::new(20000, 600)];
        let idle: Vec<_> = (busy.len()..PODS)
            .map(|_| {
                Pod::start(
                    &["--net"],
                    "ip link set lo up; echo ready; exec sleep 300",
                    &[],
                )
            })
            .collect();
        for command in ["verdict", "states", "advise"] {
            let start = Instant::now();
            let output = Command::new("/usr/bin/env")
                .args(["python3", "-c"])
                .arg(
                    "import resource, subprocess, sys\n\
                     done = subprocess.run(sys.argv[1:])\n\
                     used = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                     print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr)\n\
                     sys.exit(done.returncode)",
                )
                .arg(env!("CARGO_BIN_EXE_twcheck"))
                .args([command, "--all-netns", "--json"])
                .output()
                .unwrap();
            let took = start.elapsed();
            let all: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_valid("namespaces", &all);
            let listed = all["namespaces"].as_array().unwrap();
            let reports = listed.iter().filter(|it| it["report"] != json!(null));
            assert!(reports.count() > PODS, "{}", all["summary"]);
            let said = stderr(&output);
            let mut used = said.lines().last().unwrap().split(' ');
            let memory: u64 = used.next().unwrap().parse().unwrap();
            println!(
                "MEASURED {command}: {} namespaces in {:.2} s, {} s of CPU, {} MB",
                listed.len(),
                took.as_secs_f64(),
                used.next().unwrap(),
                memory / 1024
            );
            if command == "verdict" {
                assert_eq!(listed[0]["namespace"]["netns"], busy[0].netns());
                assert_eq!(listed[1]["namespace"]["netns"], busy[1].netns());
            }
            assert!(memory < 100 * 1024, "{memory} KiB");
            assert!(took < Duration::from_secs(60), "{took:?}");
        }
        drop(idle);
    });
}
