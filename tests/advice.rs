//! What `advise` promises is what the kernel accepts and what `verdict` then says.

mod common;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{in_namespace, json, port_range, run, serve, stdout, sysctl, text, twcheck};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// A sysctl's text, read in one read: the list of reserved ports answers no second one.
fn sysctl_now(key: &str) -> String {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let mut file = std::fs::File::open(&path).unwrap();
    let mut text = vec![0; 1 << 19];
    let length = std::io::Read::read(&mut file, &mut text).unwrap();
    let words = String::from_utf8(text[..length].to_vec()).unwrap();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts the file that `advise` writes into force, and insists that each line of it is.
fn apply(arguments: &[&str]) {
    let advice = stdout(&twcheck(
        &[&["advise", "--format", "sysctl"], arguments].concat(),
    ));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(advice.as_bytes()).unwrap();
    let output = Command::new("sysctl")
        .arg("-p")
        .arg(file.path())
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{advice}\n{}",
        text(&output)
    );
    for line in advice
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (key, value) = line.split_once(" = ").unwrap();
        assert_eq!(sysctl_now(key), value, "{advice}");
    }
}

/// A client that is slowed down shows less than it wants.
#[test]
fn a_pool_is_sized_by_the_busiest_second() {
    in_namespace("a_pool_is_sized_by_the_busiest_second", || {
        port_range(40000, 40999);
        let server = serve("127.0.0.1:3306");
        for _ in 0..200 {
            common::connect_and_close(server).unwrap();
        }
        std::thread::sleep(Duration::from_secs(2));
        common::connect_and_close(server).unwrap();
        let advice = json(&["advise", "--json"]);
        let mut remarks = advice["application"].as_array().unwrap().iter();
        let pool = remarks.find(|remark| remark["what"] == "use a connection pool");
        let why = pool.unwrap()["why"].as_str().unwrap();
        let closed = why.split(' ').nth(2).unwrap().parse::<u32>().unwrap();
        // The burst may lie across two seconds.
        assert!((100..=201).contains(&closed), "{why}");
    });
}

fn ports_of(list: &str) -> Vec<RangeInclusive<u16>> {
    list.split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            low.parse().unwrap()..=high.parse().unwrap()
        })
        .collect()
}

fn changes(advice: &Value) -> Vec<(u64, &str, &str)> {
    advice["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            (
                change["step"].as_u64().unwrap(),
                change["sysctl"].as_str().unwrap(),
                change["recommended"].as_str().unwrap(),
            )
        })
        .collect()
}

/// A TCP socket that holds a port and neither listens nor connects.
fn bound(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

#[test]
fn every_port_that_anybody_holds_is_spared_by_a_wider_range() {
    in_namespace(
        "every_port_that_anybody_holds_is_spared_by_a_wider_range",
        || {
            port_range(32768, 60999);
            let _udp = [
                UdpSocket::bind("0.0.0.0:11211").unwrap(),
                UdpSocket::bind("[::1]:11212").unwrap(),
                // Inside the range: a client as likely as a service.
                UdpSocket::bind("0.0.0.0:40000").unwrap(),
            ];
            let client = UdpSocket::bind("127.0.0.1:11213").unwrap();
            client.connect("127.0.0.1:53").unwrap();
            let _bound = [bound("0.0.0.0:11300"), bound("[::]:11301")];
            let _listening = [
                TcpListener::bind("0.0.0.0:11400").unwrap(),
                TcpListener::bind("[::1]:11401").unwrap(),
                TcpListener::bind("127.0.0.1:40001").unwrap(),
            ];
            let fixed = bound("127.0.0.1:11500");
            let server = serve("127.0.0.1:3306");
            fixed.connect(&server.into()).unwrap();

            let reserved = |source: &str| {
                let advice = json(&["advise", "--json", "--source", source]);
                let change = advice["changes"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|change| change["sysctl"] == "net.ipv4.ip_local_reserved_ports");
                change.unwrap()["recommended"].clone()
            };
            assert_eq!(
                reserved("sock_diag"),
                "11211-11212,11300-11301,11400-11401,11500,40001"
            );
            // It does not show bound sockets, and `advise` says so.
            assert_eq!(reserved("proc"), "11211-11212,11400-11401,11500,40001");
        },
    );
}

#[test]
fn a_service_inside_the_range_is_reserved_and_then_nothing_takes_its_port() {
    in_namespace(
        "a_service_inside_the_range_is_reserved_and_then_nothing_takes_its_port",
        || {
            sysctl("net.ipv4.ip_local_port_range", "40000 40009");
            sysctl("net.ipv4.tcp_tw_reuse", "1");
            let server = serve("127.0.0.1:3306");
            let service = TcpListener::bind("0.0.0.0:40004").unwrap();
            // The goal is reached as it is: the service alone is to be mended.
            let goal = ["--target-connections", "9"];
            let advice = json(&[&["advise", "--json"], &goal[..]].concat());
            assert_eq!(
                changes(&advice),
                [(1, "net.ipv4.ip_local_reserved_ports", "40004")]
            );
            apply(&goal);
            // The service restarts while clients take whatever they can get.
            drop(service);
            let clients: Vec<_> = (0..20)
                .map_while(|_| TcpStream::connect(server).ok())
                .collect();
            assert_eq!(clients.len(), 9);
            TcpListener::bind("0.0.0.0:40004").unwrap();
        },
    );
}

#[test]
fn a_range_below_the_unprivileged_ports_is_not_recommended() {
    in_namespace(
        "a_range_below_the_unprivileged_ports_is_not_recommended",
        || {
            port_range(32768, 60999);
            sysctl("net.ipv4.ip_unprivileged_port_start", "20001");
            let advice = json(&["advise", "--json"]);
            assert_eq!(
                changes(&advice)[1..],
                [(2, "net.ipv4.ip_local_port_range", "20002 65535")]
            );
            apply(&[]);
        },
    );
}

/// Where TIME_WAIT is dropped no errno 99 comes. It must not come from following the advice either,
/// nor at any line of it on the way.
#[test]
fn raising_the_limit_of_time_wait_as_advised_brings_no_errno_99() {
    in_namespace(
        "raising_the_limit_of_time_wait_as_advised_brings_no_errno_99",
        || {
            port_range(40000, 40499);
            sysctl("net.ipv4.tcp_max_tw_buckets", "100");
            run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
            let server = serve("192.0.2.1:3306");
            let paced = |seconds: u64| {
                let start = Instant::now();
                for number in 0_u32.. {
                    if start.elapsed() > Duration::from_secs(seconds) {
                        return (number, None);
                    }
                    if let Err(error) = common::connect_and_close(server) {
                        return (number, error.raw_os_error());
                    }
                    let due = Duration::from_millis(5) * number;
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                }
                unreachable!()
            };
            // More than there are ports, or nothing was tried.
            let (made, errno) = paced(4);
            assert!(made > 500, "{made}");
            assert_eq!(errno, None, "while they are dropped");
            let verdict = json(&["verdict", "--json"]);
            let finding = verdict["findings"]
                .as_array()
                .unwrap()
                .iter()
                .find(|finding| finding["code"] == "TW_BUCKET_OVERFLOW")
                .unwrap();
            let next_step = finding["next_step"].as_str().unwrap();
            assert!(next_step.contains("only together with"), "{next_step}");

            let advice = json(&["advise", "--json"]);
            assert_eq!(
                changes(&advice),
                [
                    (1, "net.ipv4.tcp_tw_reuse", "1"),
                    (1, "net.ipv4.ip_local_port_range", "10240 65535"),
                    (1, "net.ipv4.tcp_max_tw_buckets", "131072"),
                ]
            );
            apply(&[]);
            let (made, errno) = paced(6);
            assert!(made > 500, "{made}");
            assert_eq!(errno, None, "once they are kept");
            // By itself it would have.
            port_range(40000, 40499);
            let (made, errno) = paced(6);
            assert_eq!(errno, Some(99), "after {made}");
        },
    );
}

#[test]
fn as_many_open_connections_as_the_goal_says_fit_the_range_it_takes() {
    in_namespace(
        "as_many_open_connections_as_the_goal_says_fit_the_range_it_takes",
        || {
            port_range(40000, 40099);
            let service = TcpListener::bind("127.0.0.1:40110").unwrap();
            let server = serve("127.0.0.1:3306");
            let advice = json(&["advise", "--json", "--target-connections", "300"]);
            common::assert_valid("advise", &advice);
            let goal = &advice["goal"];
            assert_eq!(
                (&goal["ports_needed"], &goal["range_needed"]),
                (&json!(300), &json!([40000, 40301])),
                "{goal}"
            );
            assert_eq!(goal["addresses_now"], 3);
            sysctl("net.ipv4.ip_local_port_range", "40000 40301");
            let fits = json(&["advise", "--json", "--target-connections", "300"]);
            assert_eq!(fits["goal"]["changes_needed"], 0);
            let open: Vec<_> = (0..400)
                .map_while(|_| TcpStream::connect(server).ok())
                .collect();
            // One port more than needed, for an even number of them.
            assert_eq!(open.len(), 301);
            drop(service);
        },
    );
}

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `range`.
    fn of(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        low + self.next() % (high - low + 1)
    }

    fn port(&mut self, low: u16) -> u16 {
        u16::try_from(self.of(u64::from(low)..=65535)).unwrap()
    }

    /// Once in `times`.
    fn seldom(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}

/// What holds ports on one machine, by how it must be spared.
#[derive(Default)]
struct Held {
    listeners: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    bound: Vec<Socket>,
    connected: Vec<Socket>,
}

impl Held {
    /// Ports to be reserved in `next`, the present range being `now`.
    fn to_reserve(&self, now: [u16; 2], next: [u16; 2], with_bound: bool) -> Vec<u16> {
        let inside = |[low, high]: [u16; 2], port| (low..=high).contains(&port);
        let listening = self
            .listeners
            .iter()
            .map(|socket| socket.local_addr().unwrap().port());
        let port = |socket: &Socket| {
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            address.port()
        };
        let others = self
            .udp
            .iter()
            .map(|socket| socket.local_addr().unwrap().port())
            .chain(self.connected.iter().map(port))
            .chain(self.bound.iter().filter(|_| with_bound).map(port))
            .filter(|&port| !inside(now, port));
        listening
            .chain(others)
            .filter(|&port| inside(next, port))
            .collect()
    }
}

fn set_up(random: &mut Random) -> ([u16; 2], Held) {
    sysctl("net.ipv4.ip_unprivileged_port_start", "0");
    sysctl("net.ipv4.ip_local_port_range", "32768 60999");
    sysctl("net.ipv4.ip_local_reserved_ports", "\n");
    // Before the settings, so that none of them is in the way.
    let server = TcpListener::bind("127.0.0.1:600").unwrap();
    let server_address = server.local_addr().unwrap();
    let mut held = Held::default();
    let address = |random: &mut Random| -> SocketAddr {
        let port = random.port(1024);
        let hosts = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"];
        let host = hosts[usize::try_from(random.of(0..=3)).unwrap()];
        format!("{host}:{port}").parse().unwrap()
    };
    for _ in 0..random.of(0..=20) {
        held.listeners
            .extend(TcpListener::bind(address(random)).ok());
    }
    for _ in 0..random.of(0..=10) {
        held.udp.extend(UdpSocket::bind(address(random)).ok());
    }
    for _ in 0..random.of(0..=10) {
        let address = address(random);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if socket.bind(&address.into()).is_ok() {
            held.bound.push(socket);
        }
    }
    for _ in 0..random.of(0..=4) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], random.port(1024)));
        if socket.bind(&address.into()).is_ok() && socket.connect(&server_address.into()).is_ok() {
            held.connected.push(socket);
        }
    }
    held.listeners.push(server);

    let low = if random.seldom(4) {
        random.of(1..=2000)
    } else {
        random.of(1024..=65000)
    };
    let widest = if random.seldom(3) { 60000 } else { 2000 };
    let high = (low + random.of(0..=widest)).min(65535);
    sysctl("net.ipv4.ip_local_port_range", &format!("{low} {high}"));
    let start = if random.seldom(2) {
        random.of(0..=low)
    } else {
        low.min(1024)
    };
    sysctl("net.ipv4.ip_unprivileged_port_start", &start.to_string());
    let entries = match random.of(0..=9) {
        0 => 1500,
        1..=3 => 0,
        _ => random.of(0..=200),
    };
    let mut list: Vec<_> = (0..entries)
        .map(|_| {
            let first = random.port(1);
            match random.of(0..=3) {
                0 => format!(
                    "{first}-{}",
                    first.saturating_add(u16::try_from(random.of(0..=300)).unwrap())
                ),
                _ => first.to_string(),
            }
        })
        .collect();
    if random.seldom(8) {
        list.push(format!("{low}-{high}"));
    }
    sysctl(
        "net.ipv4.ip_local_reserved_ports",
        &format!("{}\n", list.join(",")),
    );
    for (key, highest) in [("tcp_tw_reuse", 2), ("tcp_timestamps", 2)] {
        sysctl(
            &format!("net.ipv4.{key}"),
            &random.of(0..=highest).to_string(),
        );
    }
    let buckets = match random.of(0..=2) {
        0 => random.of(1..=5000),
        1 => random.of(5000..=100_000),
        _ => 262_144,
    };
    sysctl("net.ipv4.tcp_max_tw_buckets", &buckets.to_string());
    ([low, high].map(|port| u16::try_from(port).unwrap()), held)
}

/// On a machine made at random.
fn what_was_promised_is_kept(random: &mut Random, what: &str) -> usize {
    let (now, held) = set_up(random);
    let source = if random.seldom(4) {
        "proc"
    } else {
        "sock_diag"
    };
    let arguments = ["--source", source];
    let advice = json(&[&["advise", "--json"], &arguments[..]].concat());
    common::assert_valid("advise", &advice);
    let changes = changes(&advice);
    apply(&arguments);

    let next = sysctl_now("net.ipv4.ip_local_port_range");
    let (low, high) = next.split_once(' ').unwrap();
    let next = [low.parse().unwrap(), high.parse().unwrap()];
    let reserved = ports_of(&sysctl_now("net.ipv4.ip_local_reserved_ports"));
    for port in held.to_reserve(now, next, source == "sock_diag") {
        assert!(
            reserved.iter().any(|range| range.contains(&port)),
            "{what}: {port} is held and not reserved: {advice:#}"
        );
    }
    if let Some(last) = advice["changes"].as_array().unwrap().last() {
        let verdict = json(&[&["verdict", "--json"], &arguments[..]].concat());
        let capacity = &verdict["capacity"];
        let hidden = held.bound.len() as u64;
        if source == "proc" && hidden > 0 {
            // The table does not show bound ports, and the kernel is asked for those of the range
            // alone, and where they matter. One may be the end that is not counted on.
            let found = capacity["usable_ports"].as_u64().unwrap();
            let promised = last["usable_ports_after"].as_u64().unwrap();
            assert!(
                found <= promised + 1 && promised <= found + hidden + 1,
                "{what}: {found}, not {promised}: {advice:#}"
            );
            return changes.len();
        }
        assert_eq!(
            (
                &capacity["usable_ports"],
                [
                    &capacity["max_connections_per_second_with_reuse"],
                    &capacity["max_connections_per_second"]
                ]
                .into_iter()
                .find(|rate| !rate.is_null())
            ),
            (
                &last["usable_ports_after"],
                Some(&last["max_rate_after"]).filter(|rate| !rate.is_null())
            ),
            "{what}: {advice:#}"
        );
    }
    let more = json(&[&["advise", "--json"], &arguments[..]].concat());
    assert_eq!(more["changes"], json!([]), "{what}, after {changes:?}");
    changes.len()
}

#[test]
fn advice_on_random_machines_is_accepted_and_kept_and_enough() {
    /// As many as take seconds.
    const SHORT: u64 = 12;
    in_namespace(
        "advice_on_random_machines_is_accepted_and_kept_and_enough",
        || {
            let from = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
            let machines = from("TWCHECK_MACHINES").unwrap_or(SHORT);
            let seed = from("TWCHECK_SEED").unwrap_or_else(|| {
                let now = std::time::SystemTime::now();
                let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
                since.as_secs()
            });
            println!("MEASURED seed {seed}");
            let mut made = 0;
            for number in 0..machines {
                let what = format!("TWCHECK_SEED={seed}, machine {number}");
                // Each by its own seed, so that one can be repeated.
                let mut random = Random(seed.wrapping_add(number << 32));
                made += what_was_promised_is_kept(&mut random, &what);
            }
            println!("MEASURED {machines} machines, {made} changes, all accepted and as promised");
        },
    );
}
