//! What the tests share: private namespaces, real connections, the binary.
#![allow(dead_code)] // Every test file uses a part of it.

pub mod mariadb;
pub mod network;
pub mod servers;

use std::env;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// The binary under test, in an environment that is the same on every machine.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twcheck"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .env("TERM", "xterm")
        .env_remove("COLUMNS")
        .env_remove("LINES")
        .env_remove("NO_COLOR");
    command
}

/// What it writes to pipes.
pub fn twcheck(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

/// The binary's JSON, whatever its exit status.
pub fn json(arguments: &[&str]) -> Value {
    let output = twcheck(arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{arguments:?}: {error}: {}", text(&output));
    })
}

/// Both streams, for messages.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the errors are UTF-8")
}

pub fn exit(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

const UNSHARE: [&str; 5] = ["--user", "--map-root-user", "--net", "--kill-child", "--"];

/// Whether namespaces can be made; where they cannot, the test is skipped aloud.
pub fn has_namespaces(test: &str) -> bool {
    let trial = Command::new("unshare").args(UNSHARE).arg("true").output();
    let refused = match trial {
        Err(error) => error.to_string(),
        Ok(output) if output.status.success() => return true,
        Ok(output) => text(&output),
    };
    skip(test, &format!("no user namespace can be made: {refused}"));
    false
}

/// Set where a test runs inside its own namespace.
pub const INSIDE: &str = "TWCHECK_TEST_IN_NAMESPACE";

/// Runs `body` as root of a network namespace of its own, with `lo` up: the test binary starts
/// itself again inside one, for this test alone. Where that cannot be, the test is skipped aloud,
/// and fails where CI is set.
pub fn in_namespace(test: &str, body: impl FnOnce()) {
    in_namespaces(test, &[], body);
}

/// The same where no other process of this machine is to be seen.
pub fn alone(test: &str, body: impl FnOnce()) {
    in_namespaces(test, &["--pid", "--fork", "--mount-proc"], body);
}

fn in_namespaces(test: &str, more: &[&str], body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        // On loopback about one bare FIN in a thousand crosses its answer, and the RST to the stray
        // ACK ends the TIME_WAIT early (RFC 1337): here the kernel ignores such an RST.
        sysctl("net.ipv4.tcp_rfc1337", "1");
        return body();
    }
    if !has_namespaces(test) {
        return;
    }
    let output = Command::new("unshare")
        .args(more)
        .args(UNSHARE)
        .arg(env::current_exe().expect("the test binary has a path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs");
    // A misspelt name would run nothing and succeed.
    let ran = stdout(&output).contains("test result: ok. 1 passed");
    assert!(
        output.status.success() && ran,
        "inside its namespace: {}",
        text(&output)
    );
    for line in stdout(&output)
        .lines()
        .filter(|line| line.contains("MEASURED"))
    {
        let _ = writeln!(io::stderr(), "{test}: {line}");
    }
}

/// Says which test is skipped and why, past the test runner's capture, and on file for
/// tests/run.sh to repeat on its last lines.
pub fn skip(test: &str, why: &str) {
    assert!(
        env::var_os("CI").is_none(),
        "in CI nothing skips: {test}: {why}"
    );
    skip_for_want_of(test, why);
}

/// The same where it may be so in CI too: what the test needs is not of this machine's own suite.
pub fn skip_for_want_of(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {}", why.trim());
    let _ = writeln!(io::stderr(), "{line}");
    if let Some(path) = env::var_os("TWCHECK_SKIPPED") {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .expect("the list of skipped tests can be written");
        writeln!(file, "{line}").expect("the list of skipped tests can be written");
    }
}

/// Runs a program and insists on success.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output)
    );
    output
}

/// Sets a sysctl of the test's own namespace.
pub fn sysctl(key: &str, value: &str) {
    assert!(
        env::var_os(INSIDE).is_some(),
        "never outside a namespace of the test's own"
    );
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path} = {value:?}: {error}"));
}

/// Sets the port range, with reuse off.
pub fn port_range(low: u16, high: u16) {
    sysctl("net.ipv4.ip_local_port_range", &format!("{low} {high}"));
    sysctl("net.ipv4.tcp_tw_reuse", "0");
}

mod option {
    //! `IP_LOCAL_PORT_RANGE` (include/uapi/linux/in.h).
    use nix::{libc, setsockopt_impl, sockopt_impl};

    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    sockopt_impl!(
        LocalPortRange,
        SetOnly,
        libc::IPPROTO_IP,
        IP_LOCAL_PORT_RANGE,
        u32
    );
}

/// Gives a socket a port range of its own, where the kernel can.
pub fn own_port_range(socket: &Socket, low: u16, high: u16) -> nix::Result<()> {
    let ports = u32::from(high) << 16 | u32::from(low);
    setsockopt(socket, option::LocalPortRange, &ports)
}

/// Whether this kernel can be asked for one port: Linux 6.3 can, and later updates of 6.1.
pub fn grants_single_ports() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    own_port_range(&socket, 40000, 40000).is_ok()
}

/// The version of the running kernel: what it can do is part of what a test expects.
pub fn linux() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether this machine is an emulated one, some hundred times slower than it says: nothing is held
/// against a clock there.
pub fn is_emulated() -> bool {
    env::var_os("TWCHECK_EMULATED").is_some()
}

/// A number from the environment, or `otherwise`.
pub fn env_number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number"))
    })
}

/// A server that closes after its client, on a thread of its own.
pub fn serve(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().filter_map(Result::ok) {
            thread::spawn(move || wait_for_end(client));
        }
    });
    address
}

fn wait_for_end(mut stream: TcpStream) {
    let _ = io::copy(&mut stream, &mut io::sink());
}

/// Connects, closes first, and waits until the other side has closed too: a settled TIME_WAIT.
pub fn connect_and_close(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = [0];
    assert_eq!(stream.read(&mut rest)?, 0);
    Ok(())
}

/// The same through a machine in the middle: whether it is answered before its SYN is sent again.
pub fn connect_and_close_within(server: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&server, Duration::from_millis(700)) else {
        return false;
    };
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read(&mut [0]).unwrap() == 0
}

/// Connects and closes until an error, at most `most` times: how often, and the error's number.
pub fn connect_until_error(server: SocketAddr, most: u32) -> (u32, Option<i32>) {
    for connections in 0..most {
        if let Err(error) = connect_and_close(server) {
            return (connections, error.raw_os_error());
        }
    }
    (most, None)
}

/// What a run that met exhaustion must say.
pub fn assert_exhausted(report: &Value, connections: u32, host: &str) {
    assert_eq!(report["stopped_by"], "exhausted", "{report}");
    assert_eq!(
        (&report["connections"], &report["predicted_ports"]),
        (&json!(connections), &json!(connections)),
        "{report}"
    );
    assert_eq!(
        report["error"],
        json!({
            "errno": 99,
            "mysql_code": null,
            "kind": "ephemeral_ports_exhausted",
            "text": format!(
                "ERROR 2003 (HY000): Can't connect to MySQL server on '{host}:3306' (99)"
            ),
        })
    );
    assert_eq!(
        report["time_wait"],
        json!({
            "client_side": connections,
            "client_side_before": 0,
            "server_side": 0,
            "server_side_before": 0,
            "limit": report["time_wait"]["limit"],
            "dropped": 0,
        }),
    );
    let threads = report["server"]["threads_connected_max"].as_u64().unwrap();
    assert!((1..=15).contains(&threads), "{threads} threads connected");
    let [first, last] = [0, 1].map(|end| report["ports_return_seconds"][end].as_f64().unwrap());
    assert!(
        0.0 < first && first <= last && last <= 60.5,
        "{first} {last}"
    );
}

/// A report must keep to the schema of its command.
pub fn assert_valid(command: &str, report: &Value) {
    let schema = std::fs::read_to_string(format!("tests/schema/{command}.json")).unwrap();
    let schema = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(report)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, Vec::<String>::new(), "{command}: {report:#}");
}
