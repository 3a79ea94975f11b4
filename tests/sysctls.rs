//! Sysctls as the kernel gives them: lists of reserved ports, which it answers whole once and a
//! second time not at all, and those that a container hides.

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{
    connect_until_error, exit, has_namespaces, in_namespace, json, port_range, serve, stderr,
    sysctl, text, twcheck,
};
use serde_json::{Value, json};

const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// SplitMix64, so that a run can be repeated: TWCHECK_SEED=N.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = std::env::var("TWCHECK_SEED").ok();
        let seed = seed.map(|seed| seed.parse().expect("TWCHECK_SEED is a number"));
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        });
        println!("MEASURED {test}: TWCHECK_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u16) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((mixed ^ mixed >> 31) % u64::from(bound)).unwrap()
    }

    /// As many different ports from `low` to `high`.
    fn ports(&mut self, number: usize, low: u16, high: u16) -> BTreeSet<u16> {
        let mut ports = BTreeSet::new();
        while ports.len() < number {
            ports.insert(low + self.below(high - low + 1));
        }
        ports
    }
}

fn list(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(",")
}

/// The ports of the kernel's notation.
fn ports(list: &Value) -> BTreeSet<u16> {
    let items = list.as_str().unwrap().split(',');
    let number = |text: &str| text.parse::<u16>().unwrap();
    items
        .filter(|item| !item.is_empty())
        .flat_map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            number(low)..=number(high)
        })
        .collect()
}

/// Reserves `reserved`, with a newline as `sysctl` and `echo` write it.
fn reserve(reserved: &BTreeSet<u16>) {
    sysctl(RESERVED, &format!("{}\n", list(reserved)));
}

/// What `verdict` says is reserved must be what was reserved, to the last port.
fn assert_told(reserved: &BTreeSet<u16>, range: u32) {
    let verdict = json(&["verdict", "--json"]);
    assert_eq!(
        &ports(&verdict["tunables"]["ip_local_reserved_ports"]),
        reserved
    );
    let number = u32::try_from(reserved.len()).unwrap();
    assert_eq!(
        (
            &verdict["capacity"]["reserved_ports"],
            &verdict["capacity"]["usable_ports"]
        ),
        (&json!(number), &json!(range - number))
    );
}

#[test]
fn random_lists_of_reserved_ports_are_told_whole_and_the_kernel_agrees() {
    let test = "random_lists_of_reserved_ports_are_told_whole_and_the_kernel_agrees";
    in_namespace(test, || {
        port_range(40000, 40999);
        let mut random = Random::new(test);
        // None, a list a little longer than a small buffer, a long one, and as chance will have it.
        let mut lengths = vec![0, 21, 200];
        lengths.extend((0..12).map(|_| usize::from(random.below(201))));
        for (round, length) in (1..).zip(lengths) {
            let reserved = random.ports(length, 40000, 40999);
            reserve(&reserved);
            assert_told(&reserved, 1000);
            // Each round has a flow of its own.
            let server = serve(&format!("127.0.0.{round}:3306"));
            let usable = u32::try_from(1000 - length).unwrap();
            assert_eq!(
                connect_until_error(server, 1100),
                (usable, Some(99)),
                "{length} reserved"
            );
        }
    });
}

/// A write() takes less than a page, a list of ports does not.
#[test]
fn lists_of_thousands_of_ports_are_told_whole_and_copied_into_the_sandbox() {
    let test = "lists_of_thousands_of_ports_are_told_whole_and_copied_into_the_sandbox";
    in_namespace(test, || {
        port_range(20000, 65535);
        let mut random = Random::new(test);
        for length in [200, 5000, 20_000] {
            let reserved = random.ports(length, 20000, 65535);
            reserve(&reserved);
            assert_told(&reserved, 45_536);
            let run = json(&["repro", "--connections", "5", "--json"]);
            assert_eq!(run["predicted_ports"], json!(45_536 - length), "{run}");

            reserve(&BTreeSet::new());
            // One argument of a program takes 128 KiB: these are at most 120,000 bytes.
            let setting = format!("{RESERVED}={}", list(&reserved));
            let run = json(&["repro", "--connections", "5", "--json", "--set", &setting]);
            assert_eq!(run["predicted_ports"], json!(45_536 - length), "{run}");
        }
        // Every other port: the longest list there is.
        let reserved: BTreeSet<u16> = (20000..=65534).step_by(2).collect();
        reserve(&reserved);
        assert_told(&reserved, 45_536);
    });
}

#[test]
fn a_list_in_another_notation_than_the_kernels_is_the_same_list() {
    in_namespace(
        "a_list_in_another_notation_than_the_kernels_is_the_same_list",
        || {
            port_range(40000, 40999);
            let setting = format!("{RESERVED}=40003,40002,40001-40002");
            let run = json(&["repro", "--connections", "5", "--json", "--set", &setting]);
            assert_eq!(run["predicted_ports"], 997, "{run}");
            let long = format!("{RESERVED}={}", "4,x".repeat(5000));
            let refused = twcheck(&["repro", "--set", &long]);
            assert_eq!(exit(&refused), 3, "{}", text(&refused));
            assert!(stderr(&refused).len() < 600, "{}", stderr(&refused));
        },
    );
}

/// Runs `verdict` where `hide` has hidden a part of /proc/sys; the gaps by what they are about.
fn gaps_where(hide: &str) -> Vec<(String, String)> {
    let script = format!(
        "{hide} && exec {} verdict --json",
        env!("CARGO_BIN_EXE_twcheck")
    );
    let arguments = ["--user", "--map-root-user", "--net", "--mount", "--"];
    let output = Command::new("unshare")
        .args(arguments)
        .args(["sh", "-c", &script])
        .output()
        .unwrap();
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let text = |gap: &Value, field: &str| gap[field].as_str().unwrap().to_owned();
    let gaps = verdict["gaps"].as_array().unwrap().iter();
    gaps.map(|gap| (text(gap, "what"), text(gap, "why")))
        .collect()
}

#[test]
fn a_sysctl_that_a_container_hides_is_unknown_and_not_what_an_empty_file_would_say() {
    if !has_namespaces(
        "a_sysctl_that_a_container_hides_is_unknown_and_not_what_an_empty_file_would_say",
    ) {
        return;
    }
    let gaps = gaps_where("mount -t tmpfs none /proc/sys/net/ipv4");
    let hidden = "this kernel, or this container, does not show it".to_owned();
    assert!(
        gaps.contains(&("net.ipv4.tcp_tw_reuse".into(), hidden)),
        "{gaps:?}"
    );
    // As container runtimes mask a file.
    let masked = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    let gaps = gaps_where(&format!("mount --bind /dev/null {masked}"));
    let why = format!("reading {masked}: it is not a regular file");
    assert!(gaps.contains(&(RESERVED.into(), why)), "{gaps:?}");
}
