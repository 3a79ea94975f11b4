//! twcheck against what people type today, on tables of real sockets in a private network namespace.
//!
//!     cargo bench --bench compare                 # everything, some ten minutes
//!     cargo bench --bench compare -- 131000       # one table of TIME_WAIT sockets, any size
//!     cargo bench --bench compare -- idle server observer
//!
//! Prints medians, ratios and peak memory as tables. Needs user namespaces, iproute2, net-tools and
//! gawk or mawk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use hdrhistogram::Histogram;
use nix::libc::linger;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{Backlog, listen, setsockopt};

const TWCHECK: &str = env!("CARGO_BIN_EXE_twcheck");
/// Set where the bench runs inside its own namespace.
const INSIDE: &str = "TWCHECK_BENCH_IN_NAMESPACE";
/// Destinations that the TIME_WAIT sockets are spread over.
const DESTINATIONS: u8 = 40;
/// Below the port range, so that no client takes it.
const SERVICE: u16 = 1000;
/// What one process may hold; a usual hard limit is 20,000 descriptors or more.
const CLIENTS_EACH: usize = 10_000;
/// Addresses of the busy server.
const SERVERS: std::ops::RangeInclusive<u8> = 1..=16;

fn main() {
    let arguments: Vec<_> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match arguments.first().map(String::as_str) {
        Some("--peak") => return report_peak(&arguments[1]),
        Some("--clients") => return be_clients(number(&arguments[1])),
        Some("--crowd") => return be_a_crowd(),
        _ => {}
    }
    if env::var_os(INSIDE).is_none() {
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--kill-child", "--"])
            .arg(env::current_exe().expect("the bench has a path"))
            .args(&arguments)
            .env(INSIDE, "1")
            .status()
            .expect("unshare runs");
        assert!(status.success(), "the bench failed inside its namespace");
        return;
    }
    prepare();
    let all = ["idle", "131000", "900000", "server", "crowd", "observer"].map(String::from);
    let scenes = if arguments.is_empty() {
        &all[..]
    } else {
        &arguments
    };
    for scene in scenes {
        match scene.as_str() {
            "idle" => idle(),
            "server" => busy_server(200_000),
            "crowd" => busy_server(500_000),
            "observer" => observer(),
            size => time_wait(number(size)),
        }
    }
}

fn number(word: &str) -> usize {
    let scenes = "a number of sockets, idle, server, crowd or observer";
    word.parse().expect(scenes)
}

fn prepare() {
    run("ip link set lo up");
    for host in 1..=DESTINATIONS {
        run(&format!("ip address add 192.0.2.{host}/32 dev lo"));
    }
    sysctl("ipv4/ip_local_port_range", "1024 65535");
    sysctl("ipv4/tcp_max_tw_buckets", "4000000");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

fn sysctl(key: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
}

fn run(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// The commands that are timed against each other, the first being the measure.
fn contestants() -> Vec<(&'static str, String)> {
    vec![
        ("twcheck states", format!("{TWCHECK} states")),
        ("twcheck verdict", format!("{TWCHECK} verdict; true")),
        ("twcheck verdict --source proc", format!("{TWCHECK} verdict --source proc; true")),
        ("ss -tan | awk (by state)", "ss -tan | awk '{++S[$1]} END {for(a in S) print a, S[a]}'".into()),
        ("ss -Htan | awk (by flow)", "ss -Htan | awk '{sub(/:[0-9]+$/, \"\", $4); ++S[$4\" \"$5]} END {for(a in S) print a, S[a]}'".into()),
        ("netstat -n | awk (by state)", "netstat -n | awk '/^tcp/ {++S[$NF]} END {for(a in S) print a, S[a]}'".into()),
    ]
}

/// Times every contestant in turn, round after round; `refill` restores the table before each.
fn compete(title: &str, contestants: &[(&str, String)], rounds: usize, mut refill: impl FnMut()) {
    let mut times = vec![Vec::new(); contestants.len()];
    let mut peaks = vec![0; contestants.len()];
    let mut rows = Vec::new();
    for _ in 0..rounds {
        refill();
        rows.push(sockets());
        for (index, (_, command)) in contestants.iter().enumerate() {
            let start = Instant::now();
            run(&format!("{{ {command}; }} > /dev/null 2>&1"));
            times[index].push(start.elapsed());
        }
        for (index, (_, command)) in contestants.iter().enumerate() {
            peaks[index] = peaks[index].max(peak(command));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let medians: Vec<_> = times.iter_mut().map(median).collect();
    println!(
        "\n{title}; {} to {} sockets, medians of {rounds}\n",
        rows.iter().min().unwrap(),
        rows.iter().max().unwrap()
    );
    println!("| command | median | × twcheck states | × twcheck verdict | peak memory |");
    println!("|---|--:|--:|--:|--:|");
    for (index, (name, _)) in contestants.iter().enumerate() {
        let times = |other: usize| medians[index].as_secs_f64() / medians[other].as_secs_f64();
        println!(
            "| `{name}` | {:.1} ms | {:.1} | {:.1} | {:.1} MB |",
            medians[index].as_secs_f64() * 1e3,
            times(0),
            times(1),
            f64::from(peaks[index]) / 1024.0
        );
    }
}

/// The most memory any process of `command` held, in KiB: the bench starts itself to measure it,
/// because the kernel tells only the largest child of a process's whole life.
fn peak(command: &str) -> u32 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--peak", &format!("{{ {command}; }} > /dev/null 2>&1")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn report_peak(command: &str) {
    run(command);
    println!(
        "{}",
        getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss()
    );
}

/// Sockets of the namespace: those in use and those in TIME_WAIT.
fn sockets() -> usize {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let value = |name: &str| -> usize {
        let at = words.iter().position(|word| *word == name).unwrap();
        words[at + 1].parse().unwrap()
    };
    value("inuse") + value("tw")
}

fn idle() {
    let mut contestants = contestants();
    contestants.push(("ss -s", "ss -s".into()));
    compete("An idle machine", &contestants, 15, || {});
}

fn time_wait(size: usize) {
    let rounds = if size > 300_000 { 3 } else { 7 };
    compete(
        &format!("{size} outbound TIME_WAIT to {DESTINATIONS} destinations"),
        &contestants(),
        rounds,
        || fill(size),
    );
}

/// Adds TIME_WAIT sockets until there are `size`.
fn fill(size: usize) {
    const BATCH: usize = 2000;
    let threads: Vec<_> = [0, 1]
        .map(|half| {
            thread::spawn(move || {
                let hosts = (1..=DESTINATIONS).filter(|host| host % 2 == half);
                let servers: Vec<_> = hosts
                    .map(|host| {
                        TcpListener::bind((Ipv4Addr::new(192, 0, 2, host), SERVICE)).unwrap()
                    })
                    .collect();
                while sockets() < size {
                    for server in servers.iter().cycle().take(BATCH) {
                        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                        let (accepted, _) = server.accept().unwrap();
                        drop(client);
                        drop(accepted);
                    }
                }
            })
        })
        .into();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A server with many clients in another namespace, itself a client of a database.
fn busy_server(inbound: usize) {
    sysctl("ipv4/ip_local_port_range", "32768 60999");
    // Nobody accepts: a connection in the listener's queue is a row like any other, and takes no
    // descriptor.
    sysctl("core/somaxconn", &(inbound * 2).to_string());
    let mut clients = Command::new("unshare")
        .args(["--net", "--kill-child", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--clients", &inbound.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = |clients: &mut Child| {
        let mut byte = [0];
        clients
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
    };
    told(&mut clients); // It is in its namespace.
    run(&format!(
        "ip link add inside type veth peer name outside netns {}",
        clients.id()
    ));
    for host in SERVERS {
        run(&format!("ip address add 198.51.100.{host}/24 dev inside"));
    }
    run("ip link set inside up");
    let listener = TcpListener::bind("0.0.0.0:443").unwrap();
    listen(&listener, Backlog::MAXALLOWABLE).unwrap();
    clients.stdin.as_mut().unwrap().write_all(b"g").unwrap();
    told(&mut clients); // They are connected.
    // Without the link nobody hears that the clients go: their ends of the connections would be
    // walked over too.
    run("ip link delete inside");
    let _ = clients.kill();
    let _ = clients.wait();
    thread::sleep(Duration::from_secs(5));
    let database = TcpListener::bind(("192.0.2.1", SERVICE)).unwrap();
    let own: Vec<_> = (0..20)
        .map(|_| {
            (
                TcpStream::connect(("192.0.2.1", SERVICE)).unwrap(),
                database.accept().unwrap(),
            )
        })
        .collect();
    let mut contestants = contestants();
    contestants.insert(
        2,
        (
            "a full dump (twcheck states --by flow)",
            format!("{TWCHECK} states --by flow"),
        ),
    );
    compete(
        &format!("A server with {inbound} inbound connections and 20 outbound"),
        &contestants,
        7,
        || {},
    );
    drop((listener, own));
}

/// The other namespace's side of [`busy_server`].
fn be_clients(clients: usize) {
    tell();
    std::io::stdin().read_exact(&mut [0]).unwrap();
    run("ip address add 198.51.100.200/24 dev outside; ip link set outside up");
    sysctl("ipv4/ip_local_port_range", "1024 65535");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let _crowd: Vec<_> = (0..clients / CLIENTS_EACH)
        .map(|_| {
            let mut child = Command::new(env::current_exe().unwrap())
                .arg("--crowd")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        })
        .collect();
    tell();
    thread::park();
}

/// A part of the clients: one process may not have descriptors for all of them.
fn be_a_crowd() {
    // Toward each address of the server less than half of the 64,512 ports: connect() stays cheap.
    let servers: Vec<_> = SERVERS
        .map(|host| SocketAddr::from(([198, 51, 100, host], 443)))
        .collect();
    let connect = |server: &SocketAddr| {
        let stream = TcpStream::connect(server).unwrap();
        // When the process ends nothing shall remain of it, not even an orphan that waits.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, Linger, &at_once).unwrap();
        stream
    };
    let _held: Vec<_> = servers
        .iter()
        .cycle()
        .take(CLIENTS_EACH)
        .map(connect)
        .collect();
    tell();
    // Until the parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Tells the parent process to go on.
fn tell() {
    std::io::stdout().write_all(b"n").unwrap();
    std::io::stdout().flush().unwrap();
}

/// What a client that connects 500 times a second notices while a tool reads 900,000 rows beside it,
/// over and over.
fn observer() {
    println!(
        "\nconnect() of a client at 500/s while a tool reads the table beside it, in a loop\n"
    );
    println!("| beside it | sockets | p50 | p99 | longest |");
    println!("|---|--:|--:|--:|--:|");
    let server = TcpListener::bind((Ipv4Addr::new(192, 0, 2, DESTINATIONS), SERVICE + 1)).unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in server.incoming().map(Result::unwrap) {
            let _ = client.read(&mut [0]);
        }
    });
    let mut beside = vec![("nothing", "sleep 0.1".to_owned())];
    beside.extend(contestants());
    for (name, command) in beside {
        fill(900_000);
        let sockets = sockets();
        let done = AtomicBool::new(false);
        let latencies = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    run(&format!("{{ {command}; }} > /dev/null 2>&1"));
                }
            });
            let latencies = paced(address, 500, Duration::from_secs(6));
            done.store(true, Ordering::Relaxed);
            latencies
        });
        let at = |quantile| latencies.value_at_quantile(quantile);
        println!(
            "| `{name}` | {sockets} | {} µs | {} µs | {} µs |",
            at(0.5),
            at(0.99),
            latencies.max()
        );
    }
}

fn paced(server: SocketAddr, rate: u32, time: Duration) -> Histogram<u64> {
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
    let start = Instant::now();
    for number in 0.. {
        let due = Duration::from_secs(1) / rate * number;
        if due > time {
            break;
        }
        thread::sleep(due.saturating_sub(start.elapsed()));
        let before = Instant::now();
        let stream = TcpStream::connect(server).unwrap();
        latencies
            .record(u64::try_from(before.elapsed().as_micros()).unwrap())
            .unwrap();
        drop(stream);
    }
    latencies
}
