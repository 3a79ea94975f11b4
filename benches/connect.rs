//! How fast the loop of `twcheck repro` connects, against what applications are written with: the
//! same server, the same user, in turn in one run, TIME_WAIT reuse on; MariaDB of this machine, and
//! MySQL 9.7 where tests/servers.sh has unpacked it.
//!
//!     cargo bench --bench connect
//!
//! Needs user namespaces, mariadb-server, libmariadb-dev, gcc and python3-mysqldb; names what it
//! lacks before it begins.

#[path = "../tests/common/mod.rs"]
mod common;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use common::mariadb::MariaDb;
use common::servers::{Database, Suite};
use serde_json::Value;

const TWCHECK: &str = env!("CARGO_BIN_EXE_twcheck");
const PASSWORD: &str = "correct horse";
const SERVER: &str = "192.0.2.1";
const SECONDS: u32 = 4;
const ROUNDS: usize = 3;

const PYTHON: &str = "import MySQLdb, sys, time
server, password, seconds = sys.argv[1:]
end, connections = time.monotonic() + float(seconds), 0
while time.monotonic() < end:
    connection = MySQLdb.connect(host=server, user='app', passwd=password)
    connection.cursor().close()
    connection.close()
    connections += 1
print(connections)";

/// Its name, and how often it connects in a second.
type Contestant<'a> = (&'a str, Box<dyn Fn() -> f64 + 'a>);

fn main() -> ExitCode {
    if env::var_os(common::INSIDE).is_none() {
        let missing = missing();
        if !missing.is_empty() {
            eprintln!(
                "this benchmark needs packages that are not here: apt-get install {}",
                missing.join(" ")
            );
            return ExitCode::FAILURE;
        }
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--kill-child", "--"])
            .arg(env::current_exe().expect("the bench has a path"))
            .env(common::INSIDE, "1")
            .status()
            .expect("unshare runs");
        assert!(status.success(), "the bench failed inside its namespace");
        return ExitCode::SUCCESS;
    }
    common::run("ip", &["link", "set", "lo", "up"]);
    common::sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    common::sysctl("net.ipv4.tcp_tw_reuse", "1");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let c_loop = folder.path().join("connect");
    let c_loop = c_loop
        .to_str()
        .expect("a temporary folder has a plain name");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/connect.c");
    let include = "-I/usr/include/mariadb";
    common::run("gcc", &["-O2", include, "-o", c_loop, source, "-lmariadb"]);

    let mariadb = MariaDb::start();
    compete("MariaDB", c_loop);
    drop(mariadb);
    if Suite::Unstable.is_there("MySQL 9.7") {
        let mysql = Database::mysql(&[]);
        mysql.query("CREATE USER app@'%' IDENTIFIED BY 'correct horse'");
        compete("MySQL 9.7", c_loop);
    }
    ExitCode::SUCCESS
}

/// The packages that are not installed.
fn missing() -> Vec<&'static str> {
    let has = |path: &str| Path::new(path).exists();
    let python = Command::new("/usr/bin/python3")
        .args(["-c", "import MySQLdb"])
        .output();
    [
        ("mariadb-server", has("/usr/sbin/mariadbd")),
        ("libmariadb-dev", has("/usr/include/mariadb/mysql.h")),
        ("gcc", has("/usr/bin/gcc")),
        (
            "python3-mysqldb",
            python.is_ok_and(|output| output.status.success()),
        ),
    ]
    .into_iter()
    .filter_map(|(package, there)| (!there).then_some(package))
    .collect()
}

/// Lets all of them connect in turn, and prints how fast they were.
fn compete(server: &str, c_loop: &str) {
    let seconds = SECONDS.to_string();
    let words = [SERVER, PASSWORD, &seconds];
    let contestants: [Contestant; 6] = [
        ("twcheck repro", Box::new(|| twcheck("1"))),
        ("C, libmariadb", Box::new(|| counted(c_loop, &words))),
        (
            "Python, MySQLdb",
            Box::new(|| counted("/usr/bin/python3", &[&["-c", PYTHON], &words[..]].concat())),
        ),
        ("twcheck repro --threads 2", Box::new(|| twcheck("2"))),
        ("twcheck repro --threads 4", Box::new(|| twcheck("4"))),
        ("twcheck repro --threads 8", Box::new(|| twcheck("8"))),
    ];
    let mut rates = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (rates, (_, measure)) in rates.iter_mut().zip(&contestants) {
            rates.push(measure());
        }
    }
    let medians: Vec<f64> = rates
        .into_iter()
        .map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        })
        .collect();
    println!("\n{server}:\n\n| loop | connections/s | twcheck is |");
    println!("|---|--:|--:|");
    for ((name, _), median) in contestants.iter().zip(&medians) {
        println!("| `{name}` | {median:.0} | {:.2} × |", medians[0] / median);
    }
}

/// Connections per second of twcheck.
fn twcheck(threads: &str) -> f64 {
    let duration = format!("{SECONDS}s");
    let output = Command::new(TWCHECK)
        .args(["repro", "--json", "--host", SERVER, "--user", "app"])
        .args(["--duration", &duration, "--threads", threads])
        .env("MYSQL_PWD", PASSWORD)
        .output()
        .expect("twcheck runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("it prints a report");
    assert_eq!(report["stopped_by"], "duration", "{report}");
    report["rate"].as_f64().expect("a report has a rate")
}

/// Connections per second of a program that prints how many it made.
fn counted(program: &str, words: &[&str]) -> f64 {
    let printed = common::stdout(&common::run(program, words));
    let connections: f64 = printed.trim().parse().expect("it prints a number");
    connections / f64::from(SECONDS)
}
