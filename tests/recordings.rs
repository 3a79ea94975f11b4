//! Recorded hosts as they come: from other kernels, out of containers, by tar and rsync, through
//! terminals and editors. Each root is written here, and what is true of it stands beside it.

mod common;

use std::fs;
use std::path::Path;
use std::time::Instant;

use common::{assert_valid, exit, stderr, stdout, text, twcheck};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const LISTEN: &str = "   0: 00000000:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9034 1 0000000000000000 100 0 0 10 0\n";
/// Linux 2.6: `tm->when` of a timer that does not run has more than eight digits.
const OLD: &str = "   1: 330200C0:0050 590200C0:CF01 01 00000000:00000000 00:1AD7F29ABCA 00000000    33        0 391 1 ffff88 179 3 9 10 -1\n";
/// 28,232 sockets in TIME_WAIT, 40 others.
const BUSY: &str = "sockets: used 900\nTCP: inuse 40 orphan 0 tw 28232 alloc 50 mem 9\n";

/// One of the 100 ports toward 192.0.2.2:3306, in TIME_WAIT.
fn time_wait(index: u16) -> String {
    format!(
        "{index:4}: 010200C0:{:04X} 020200C0:0CEA 06 00000000:00000000 03:{:08X} 00000000     0        0 0 3 0000000000000000\n",
        40000 + index,
        index * 60
    )
}

fn rows(number: u16) -> String {
    (0..number).map(time_wait).collect()
}

/// A recorded host with 100 ports.
struct Root(TempDir);

impl Root {
    fn new(table: impl AsRef<[u8]>) -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for (key, value) in [
            ("ip_local_port_range", "40000\t40099\n"),
            ("ip_local_reserved_ports", "\n"),
            ("tcp_tw_reuse", "0\n"),
            ("tcp_timestamps", "1\n"),
            ("tcp_max_tw_buckets", "131072\n"),
            ("tcp_fin_timeout", "60\n"),
        ] {
            fs::create_dir_all(root.path().join("sys/net/ipv4")).unwrap();
            fs::write(root.path().join("sys/net/ipv4").join(key), value).unwrap();
        }
        root.with("net/tcp", table)
            .with("net/tcp6", HEADING)
            .with("net/netstat", "TcpExt: TCPTimeWaitOverflow\nTcpExt: 0\n")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn with(self, file: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn without(self, file: &str) -> Self {
        fs::remove_file(self.path().join(file)).unwrap();
        self
    }

    fn run(&self, command: &str) -> (i32, Value) {
        let root = self.path().to_str().unwrap();
        let output = twcheck(&[command, "--json", "--proc-root", root]);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        assert_valid(command, &report);
        (exit(&output), report)
    }

    /// The exit status of `states`, its total and its sockets by state.
    fn states(&self) -> (i32, Value, Value) {
        let (status, report) = self.run("states");
        (status, report["total"].clone(), report["states"].clone())
    }

    /// The exit status of `verdict` and the codes of its findings.
    fn verdict(&self) -> (i32, Vec<String>) {
        let (status, report) = self.run("verdict");
        let findings = report["findings"].as_array().unwrap().iter();
        let code = |finding: &Value| finding["code"].as_str().unwrap().to_owned();
        (status, findings.map(code).collect())
    }

    /// Why, of the one gap about `file`.
    fn gap(&self, command: &str, file: &str) -> String {
        let (_, report) = self.run(command);
        let path = json!(self.path().join(file).to_str().unwrap());
        let mut gaps = report["gaps"].as_array().unwrap().iter();
        gaps.find(|gap| gap["what"] == path)
            .and_then(|gap| gap["why"].as_str())
            .unwrap_or_else(|| panic!("no gap about {path}: {}", report["gaps"]))
            .to_owned()
    }
}

const UNKNOWN: &str = "COULD_NOT_READ";

#[test]
fn a_table_that_tar_or_rsync_copied_as_an_empty_file_is_unknown_and_not_zero() {
    for root in [
        Root::new(""),
        Root::new("").with("net/sockstat", BUSY),
        Root::new("").with("net/tcp6", ""),
    ] {
        assert_eq!(root.states(), (3, json!(null), json!({})));
        let (status, found) = root.verdict();
        assert_eq!(status, 3);
        assert!(found.iter().all(|code| code == UNKNOWN), "{found:?}");
        for command in ["states", "verdict"] {
            assert!(root.gap(command, "net/tcp").contains("it is empty"));
        }
        let path = root.path().to_str().unwrap();
        let shown = twcheck(&["states", "--by", "flow", "--proc-root", path]);
        assert!(stdout(&shown).contains("unknown"), "{}", text(&shown));
        assert!(stderr(&shown).contains(&format!("{path}/net/tcp: it is empty")));
    }
    // One of the two is not enough.
    let half = Root::new(format!("{HEADING}{LISTEN}{}", rows(3))).with("net/tcp6", "");
    assert_eq!(half.verdict(), (3, vec![UNKNOWN.to_owned()]));
    assert!(half.gap("verdict", "net/tcp6").contains("it is empty"));
    assert_eq!(
        half.states(),
        (0, json!(3), json!({"TIME_WAIT": 3})),
        "what could be counted is"
    );
}

#[test]
fn a_full_flow_is_never_fine_because_a_setting_is_missing() {
    let full = format!("{HEADING}{}", rows(100));
    for (missing, status) in [("tcp_timestamps", 1), ("tcp_tw_reuse", 2)] {
        let root = Root::new(&full)
            .with("sys/net/ipv4/tcp_tw_reuse", "1\n")
            .without(&format!("sys/net/ipv4/{missing}"));
        assert_eq!(root.verdict(), (status, vec!["PORTS_EXHAUSTED".to_owned()]));
        let (_, report) = root.run("verdict");
        assert_eq!(report["flows"][0]["reuse"], "unknown");
        let said = report["summary"].as_str().unwrap();
        assert!(
            said.contains("a setting that decides is not known"),
            "{said}"
        );
        let gaps = report["gaps"].to_string();
        assert!(gaps.contains(&format!("net.ipv4.{missing}")), "{gaps}");
    }
}

#[test]
fn a_table_that_was_cut_off_is_told_by_what_sockstat_counts() {
    let five = format!("{HEADING}{}", rows(5));
    let root = Root::new(&five).with("net/sockstat", BUSY);
    assert_eq!(root.verdict(), (3, vec![UNKNOWN.to_owned()]));
    assert!(
        root.gap("verdict", "net/tcp")
            .starts_with("5 TIME_WAIT rows where"),
        "{}",
        root.gap("verdict", "net/tcp")
    );
    // Connections that are open count as well.
    let open = "TCP: inuse 400 orphan 0 tw 5 alloc 401 mem 9\n";
    let root = Root::new(&five).with("net/sockstat", open);
    assert_eq!(root.verdict(), (3, vec![UNKNOWN.to_owned()]));
    assert!(
        root.gap("verdict", "net/tcp")
            .starts_with("0 other rows where")
    );
    let six = "TCP6: inuse 400\n";
    let root = Root::new(&five).with("net/sockstat6", six).with(
        "net/sockstat",
        "TCP: inuse 0 orphan 0 tw 5 alloc 401 mem 9\n",
    );
    assert_eq!(root.verdict(), (3, vec![UNKNOWN.to_owned()]));
    // /proc/net/snmp tells it where sockstat was not copied.
    let root = Root::new(&five).with("net/snmp", "Tcp: MaxConn CurrEstab\nTcp: -1 400\n");
    assert_eq!(root.verdict(), (3, vec![UNKNOWN.to_owned()]));
    assert!(
        root.gap("verdict", "net/tcp")
            .starts_with("0 ESTABLISHED or CLOSE_WAIT rows where")
    );
    // A few that came or went between the two copies are none.
    for tw in [0, 3, 5, 7, 25] {
        let text = format!("TCP: inuse 2 orphan 0 tw {tw} alloc 50 mem 9\n");
        let root = Root::new(&five).with("net/sockstat", text);
        assert_eq!(root.verdict(), (0, vec![]), "{tw}");
    }
}

#[test]
fn a_row_that_was_cut_off_is_damage_and_the_rest_is_counted() {
    let text = format!("{HEADING}{LISTEN}{}", rows(5));
    let root = Root::new(&text[..text.len() - 60]);
    assert_eq!(root.states(), (0, json!(4), json!({"TIME_WAIT": 4})));
    assert_eq!(
        root.gap("states", "net/tcp"),
        "1 row not understood and left out, the first is line 7"
    );
    assert_eq!(root.verdict(), (3, vec![UNKNOWN.to_owned()]));
}

#[test]
fn a_table_is_read_whatever_its_blanks_widths_and_surroundings() {
    let three = rows(3);
    let whole = json!({"TIME_WAIT": 3});
    for (name, table, states) in [
        ("no heading", format!("{LISTEN}{three}"), &whole),
        (
            "blank last line",
            format!("{HEADING}{LISTEN}{three}\n"),
            &whole,
        ),
        (
            "tabs",
            format!("{HEADING}{}", three.replace(' ', "\t")),
            &whole,
        ),
        (
            "one blank",
            format!("{HEADING}{three}").replace("  ", " "),
            &whole,
        ),
        (
            "CRLF",
            format!("{HEADING}{LISTEN}{three}").replace('\n', "\r\n"),
            &whole,
        ),
        (
            "a heading in the middle",
            format!(
                "{HEADING}{}{HEADING}{LISTEN}{}",
                rows(1),
                time_wait(1) + &time_wait(2)
            ),
            &whole,
        ),
        (
            "a prompt",
            format!("root@web1:~# cat /proc/net/tcp\n{HEADING}{LISTEN}{three}root@web1:~# \n"),
            &whole,
        ),
        (
            "an old kernel's timer",
            format!("{HEADING}{LISTEN}{OLD}"),
            &json!({"ESTABLISHED": 1}),
        ),
        ("no socket", HEADING.to_owned(), &json!({})),
    ] {
        let root = Root::new(table);
        let total: u64 = states
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum();
        assert_eq!(root.states(), (0, json!(total), states.clone()), "{name}");
        assert_eq!(root.verdict(), (0, vec![]), "{name}");
        assert_eq!(root.run("verdict").1["gaps"].as_array().unwrap().len(), 1);
    }
}

/// The listeners of a table that was put together by hand may come last.
#[test]
fn a_listener_behind_its_rows_makes_them_inbound_all_the_same() {
    // Both ends are ports that connect() could have taken: only the listener tells.
    let listen = LISTEN.replace("0CEA", "9C62");
    let accepted = "   1: 020200C0:9C62 010200C0:9C41 06 00000000:00000000 03:00000100 00000000     0        0 0 3 0\n";
    for root in [
        Root::new(format!("{HEADING}{listen}{accepted}")),
        Root::new(format!("{HEADING}{accepted}{listen}")),
        Root::new(format!("{HEADING}{accepted}")).with(
            "net/tcp6",
            format!("{HEADING}{}{listen}", accepted.replace("9C41", "9C43")),
        ),
    ] {
        let (_, report) = root.run("verdict");
        assert_eq!(report["time_wait"]["outbound"], 0, "{report}");
    }
}

#[test]
fn what_a_recording_lacks_is_missing_from_it_and_tells_nothing_about_the_kernel() {
    let full = format!("{HEADING}{LISTEN}{}", rows(100));
    let container = Root::new(&full)
        .without("sys/net/ipv4/tcp_tw_reuse")
        .without("sys/net/ipv4/tcp_timestamps")
        .without("sys/net/ipv4/tcp_max_tw_buckets");
    let (status, report) = container.run("verdict");
    assert_eq!(status, 2);
    assert_eq!(report["findings"][0]["code"], "PORTS_EXHAUSTED");
    for gap in report["gaps"].as_array().unwrap() {
        assert_ne!(
            gap["why"],
            "this kernel, or this container, does not show it"
        );
    }
    let missing = |gap: &&Value| gap["why"] == "missing from the recording";
    let missing: Vec<_> = report["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(missing)
        .map(|gap| gap["what"].clone())
        .collect();
    assert_eq!(
        missing,
        [
            "net.ipv4.tcp_tw_reuse",
            "net.ipv4.tcp_timestamps",
            "net.ipv4.tcp_max_tw_buckets"
        ]
    );
    // Such a kernel counts the TIME_WAIT of all containers.
    let idle = "TCP: inuse 1 orphan 0 tw 28232 alloc 50 mem 9\n";
    let container = container.with("net/sockstat", idle);
    let (_, report) = container.run("verdict");
    let table = |gap: &Value| gap["what"].as_str().unwrap().ends_with("net/tcp");
    assert!(
        !report["gaps"].as_array().unwrap().iter().any(table),
        "{report}"
    );
    // Counting sockets hangs on no setting.
    assert_eq!(
        container.states(),
        (0, json!(100), json!({"TIME_WAIT": 100}))
    );

    let four = Root::new(format!("{HEADING}{LISTEN}"))
        .without("net/tcp6")
        .without("net/netstat");
    assert_eq!(four.verdict(), (0, vec![]));
    assert!(
        four.gap("verdict", "net/tcp6")
            .starts_with("missing from the recording: connections over IPv6")
    );
    assert_eq!(
        four.gap("verdict", "net/netstat"),
        "missing from the recording"
    );
}

#[test]
fn connection_tracking_of_old_kernels_is_read_like_that_of_new_ones() {
    for (count, max) in [
        (
            "net/ipv4/netfilter/ip_conntrack_count",
            "net/ipv4/netfilter/ip_conntrack_max",
        ),
        (
            "net/netfilter/nf_conntrack_count",
            "net/netfilter/nf_conntrack_max",
        ),
    ] {
        let root = Root::new(HEADING)
            .with(&format!("sys/{count}"), "65536\n")
            .with(&format!("sys/{max}"), "65536\n");
        assert_eq!(root.verdict(), (2, vec!["CONNTRACK_FULL".to_owned()]));
    }
}

#[test]
fn a_file_that_no_kernel_writes_is_refused_and_neither_hangs_nor_takes_the_memory() {
    let start = Instant::now();
    let pipe = |root: &Root, file: &str| {
        fs::remove_file(root.path().join(file)).unwrap();
        mkfifo(&root.path().join(file), Mode::S_IRWXU).unwrap();
    };
    let terabyte = |root: &Root, file: &str| {
        let file = fs::File::create(root.path().join(file)).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let plain = || Root::new(format!("{HEADING}{LISTEN}"));

    for (file, said) in [
        ("net/tcp6", "larger than"),
        (
            "net/netstat",
            "it is longer than 1 MiB, and no such file is",
        ),
    ] {
        let root = plain();
        pipe(&root, file);
        assert_eq!(root.gap("verdict", file), "it is not a regular file");
        let root = plain();
        terabyte(&root, file);
        let gap = root.gap("verdict", file);
        assert!(gap.contains(said), "{gap}");
    }
    for (file, prepare) in [
        ("net/tcp", &pipe as &dyn Fn(&Root, &str)),
        ("net/tcp", &terabyte),
    ] {
        let root = plain();
        prepare(&root, file);
        let path = root.path().to_str().unwrap();
        for command in ["states", "verdict", "advise"] {
            let output = twcheck(&[command, "--proc-root", path]);
            assert_eq!(exit(&output), 3, "{}", text(&output));
            assert!(stderr(&output).contains(&format!("{path}/net/tcp")));
        }
    }
    for prepare in [&pipe as &dyn Fn(&Root, &str), &terabyte] {
        let root = plain();
        prepare(&root, "sys/net/ipv4/ip_local_reserved_ports");
        let (status, report) = root.run("verdict");
        assert_eq!(
            (status, &report["gaps"][0]["what"]),
            (3, &json!("net.ipv4.ip_local_reserved_ports"))
        );
    }
    let strange = plain().with("sys/net/ipv4/tcp_tw_reuse", "x".repeat(100_000));
    let (status, report) = strange.run("verdict");
    assert_eq!(status, 0, "nothing hangs on it");
    assert!(report["gaps"][0]["why"].as_str().unwrap().len() < 200);
    assert!(start.elapsed().as_secs() < 60);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Rows that were copied whole are counted, and whoever is told nothing is told that.
    #[test]
    fn a_recording_cut_at_any_length_is_counted_as_far_as_it_goes(length in 0_usize..1100) {
        let text = format!("{HEADING}{LISTEN}{}", rows(6));
        let cut = &text[..length.min(text.len())];
        let whole = u64::try_from(cut.matches('\n').count()).unwrap();
        let (status, report) = Root::new(cut).run("states");
        match report["total"].as_u64() {
            // Of the heading and the listener neither is counted.
                None => prop_assert_eq!((status, whole <= 2), (3, true)),
            Some(total) => {
                prop_assert_eq!(status, 0);
                // A row without its last column has all that matters.
                let rows = whole.saturating_sub(2);
                prop_assert!((rows..=rows + 1).contains(&total), "{} of {}", total, rows);
            }
        }
    }

    #[test]
    fn no_bytes_in_any_file_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        file in proptest::sample::select(vec![
            "net/tcp", "net/tcp6", "net/netstat", "net/snmp", "net/sockstat", "net/sockstat6",
            "net/stat/nf_conntrack", "sys/net/ipv4/ip_local_port_range",
            "sys/net/ipv4/ip_local_reserved_ports", "sys/net/ipv4/tcp_tw_reuse",
        ]),
    ) {
        let root = Root::new(format!("{HEADING}{LISTEN}{}", rows(3))).with(file, bytes);
        for command in ["states", "verdict"] {
            let (status, _) = root.run(command);
            prop_assert!((0..=3).contains(&status));
        }
    }
}

/// Rows that a big-endian machine wrote: what it is called says so, or it is written there by hand.
#[test]
fn a_table_of_the_other_byte_order_is_read_where_the_recording_tells_and_refused_where_not() {
    let [tcp, tcp6] = ["tcp", "tcp6"].map(|name| {
        fs::read_to_string(format!("tests/hosts/debian-6.1-s390x/proc/net/{name}")).unwrap()
    });
    let told = |machine: Option<&str>| {
        let root = Root::new(&tcp).with("net/tcp6", &tcp6);
        let root = match machine {
            Some(machine) => root.with("sys/kernel/arch", format!("{machine}\n")),
            None => root,
        };
        let arguments = ["verdict", "--json", "--proc-root"];
        twcheck(&[&arguments[..], &[root.path().to_str().unwrap()]].concat())
    };
    let output = told(Some("s390x"));
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let flow = &verdict["flows"][0];
    assert_eq!(
        (&flow["source"], &flow["destination"], &flow["ports_in_use"]),
        (&json!("192.0.2.1"), &json!("192.0.2.1"), &json!(31)),
        "{verdict}"
    );
    for (machine, why, hint) in [
        (None, "127.0.0.1 is 1.0.0.127", "for example s390x"),
        (
            Some("mips64"),
            "of either byte order",
            "write mips64eb into it",
        ),
    ] {
        let output = told(machine);
        let said = stderr(&output);
        assert_eq!((exit(&output), stdout(&output).as_str()), (3, ""), "{said}");
        assert!(said.contains(why) && said.contains(hint), "{said}");
    }
}
