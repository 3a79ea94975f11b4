use std::collections::HashMap;
use std::io::ErrorKind;

use super::{ProcRoot, file, sysctl};
use crate::model::{Counters, Gap, Weight};

/// Reads what the kernel counts; may be asked again for a second look. What every kernel has and
/// cannot be read becomes a gap. None is decisive: no verdict on ports hangs on them.
pub(super) fn read(proc: &ProcRoot, gaps: &mut Vec<Gap>) -> Counters {
    let tcp_ext = snmp(proc, "netstat", "TcpExt:", gaps);
    let tcp = snmp(proc, "snmp", "Tcp:", &mut Vec::new());
    // A module of its own: where it is not loaded, nobody needs to know.
    let conntrack_stat = conntrack_stat(proc);
    let sum = |column| sum_over_cpus(conntrack_stat.as_deref()?, column);
    Counters {
        time_wait_overflows: tcp_ext.get("TCPTimeWaitOverflow").copied(),
        time_wait_recycled: tcp_ext.get("TWRecycled").copied(),
        aborted_on_data: tcp_ext.get("TCPAbortOnData").copied(),
        established: tcp.get("CurrEstab").copied(),
        time_wait: sockstat(proc, "sockstat").and_then(|counts| counts("TCP:", "tw")),
        outside: outside_the_table(proc),
        conntrack: conntrack(proc),
        insert_failed: sum("insert_failed"),
        resolved_clashes_fail: conntrack_stat
            .as_deref()
            .is_some_and(counts_resolved_clashes),
        dropped: sum("drop"),
    }
}

/// The counters of a file like /proc/net/netstat by name; what cannot be read becomes a gap.
fn snmp(proc: &ProcRoot, name: &str, line: &str, gaps: &mut Vec<Gap>) -> HashMap<String, u64> {
    let path = proc.net(name);
    let why = match proc.open(&path).and_then(file::text) {
        Ok(text) => match named(&text, line) {
            Some(counters) => return counters,
            None => format!("it has no {} lines", line.trim_end_matches(':')),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => proc.absence().into(),
        Err(error) => error.to_string(),
    };
    gaps.push(Gap {
        what: path.display().to_string(),
        why,
        weight: Weight::Minor,
    });
    HashMap::new()
}

/// Parses a line of names and a line of as many values, both beginning with `line` (net/ipv4/proc.c).
fn named(text: &str, line: &str) -> Option<HashMap<String, u64>> {
    let mut lines = text.lines().filter_map(|other| other.strip_prefix(line));
    let (names, values) = (lines.next()?, lines.next()?);
    Some(
        names
            .split_whitespace()
            .zip(values.split_whitespace())
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect(),
    )
}

/// Connections tracked now, and at most; up to Linux 4.9 the older names were kept beside the new
/// ones, on the oldest they are the only ones.
fn conntrack(proc: &ProcRoot) -> Option<(u64, u64)> {
    const COUNT: [&str; 2] = [
        "net.netfilter.nf_conntrack_count",
        "net.ipv4.netfilter.ip_conntrack_count",
    ];
    const MAX: [&str; 3] = [
        "net.netfilter.nf_conntrack_max",
        "net.ipv4.netfilter.ip_conntrack_max",
        "net.ipv4.ip_conntrack_max",
    ];
    let first = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| sysctl::read(proc, key).ok()??.parse().ok())
    };
    Some((first(&COUNT)?, first(&MAX)?))
}

/// What connection tracking counts, by the newer name of its file or the older.
fn conntrack_stat(proc: &ProcRoot) -> Option<String> {
    ["stat/nf_conntrack", "stat/ip_conntrack"]
        .into_iter()
        .find_map(|name| proc.open(&proc.net(name)).and_then(file::text).ok())
}

/// Whether `insert_failed` counts resolved clashes too: these have a column of their own since they
/// are counted apart, in the place of `searched` (commit bc92470413f3, Linux 5.10).
fn counts_resolved_clashes(stat: &str) -> bool {
    let mut columns = stat.lines().next().unwrap_or_default().split_whitespace();
    columns.all(|name| name != "clashres")
}

/// Sums a column over the CPUs: a line of names, then a line of hexadecimal numbers for each CPU
/// (`ct_cpu_seq_show` in net/netfilter/nf_conntrack_standalone.c).
fn sum_over_cpus(text: &str, column: &str) -> Option<u64> {
    let mut lines = text.lines();
    let place = lines
        .next()?
        .split_whitespace()
        .position(|name| name == column)?;
    let mut values = lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(place)?, 16).ok())
        .peekable();
    // Without a CPU nothing was counted; with one that is not understood the sum is unknown.
    values.peek()?;
    values.try_fold(0_u64, |sum, value| sum.checked_add(value?))
}

/// TCP sockets that are in no table of this namespace: those that are bound to a port without
/// listening or being connected, those that are not, and those of other namespaces. `alloc` counts
/// the sockets of all namespaces, `inuse` those of this one's table; neither counts TIME_WAIT
/// (net/ipv4/proc.c). `used` counts all sockets of this namespace, of any kind, from Linux 4.16 on
/// (net/socket.c), so that those of other namespaces are left out as far as it tells. `None` when
/// unknown.
pub(super) fn outside_the_table(proc: &ProcRoot) -> Option<u64> {
    // Whatever comes between the two reads makes the second count larger, never the first.
    let (six, four) = (sockstat(proc, "sockstat6")?, sockstat(proc, "sockstat")?);
    let in_table = four("TCP:", "inuse")? + six("TCP6:", "inuse")?;
    let allocated = four("TCP:", "alloc")?;
    let all = four("sockets:", "used").map_or(allocated, |used| used.min(allocated));
    Some(all.saturating_sub(in_table))
}

/// Sockets of this namespace's table, of either family as far as it is known, without TIME_WAIT;
/// `None` when unknown.
pub(super) fn in_table(proc: &ProcRoot) -> Option<u64> {
    let six = sockstat(proc, "sockstat6").and_then(|counts| counts("TCP6:", "inuse"));
    let four = sockstat(proc, "sockstat")?("TCP:", "inuse")?;
    four.checked_add(six.unwrap_or(0))
}

/// TCP sockets of this namespace, TIME_WAIT among them; `None` when unknown.
pub(super) fn sockets_here(proc: &ProcRoot) -> Option<u64> {
    let waiting = sockstat(proc, "sockstat")?("TCP:", "tw")?;
    in_table(proc)?.checked_add(waiting)
}

/// TCP sockets of this kernel, and TIME_WAIT sockets of this namespace; `None` when unknown.
pub(super) fn sockets(proc: &ProcRoot) -> Option<u64> {
    let counts = sockstat(proc, "sockstat")?;
    Some(counts("TCP:", "alloc")? + counts("TCP:", "tw")?)
}

/// The counts of /proc/net/sockstat or sockstat6, by line and name: `TCP: inuse 5 orphan 0 tw 3 …`.
fn sockstat(proc: &ProcRoot, name: &str) -> Option<impl Fn(&str, &str) -> Option<u64>> {
    let text = proc.open(&proc.net(name)).and_then(file::text).ok()?;
    Some(move |line: &str, name: &str| {
        let mut words = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line))?
            .split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sockets_outside_the_table_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        let proc = ProcRoot::recorded(root.path());
        let write = |file: &str, text: &str| {
            std::fs::write(root.path().join("net").join(file), text).unwrap();
        };
        assert_eq!(outside_the_table(&proc), None, "unknown is not none");
        assert_eq!(in_table(&proc), None);
        write("sockstat6", "TCP6: inuse 2\nUDP6: inuse 9\n");
        for (allocated, outside) in [(6, 0), (7, 0), (8, 1)] {
            let line = format!("TCP: inuse 5 orphan 0 tw 300 alloc {allocated} mem 65\n");
            write(
                "sockstat",
                &format!("sockets: used 9\n{line}UDP: inuse 3 mem 0\n"),
            );
            assert_eq!(outside_the_table(&proc), Some(outside), "{allocated}");
        }
        // Most of them are of other namespaces.
        write(
            "sockstat",
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 300 alloc 5000 mem 65\n",
        );
        assert_eq!(outside_the_table(&proc), Some(2));
        assert_eq!(in_table(&proc), Some(7));
        assert_eq!(read(&proc, &mut Vec::new()).time_wait, Some(300));
    }

    #[test]
    fn counters_are_found_by_name_and_absent_is_not_zero() {
        let text = "TcpExt: SyncookiesSent TWRecycled\nTcpExt: 0 17\nIpExt: A\nIpExt: 3\n";
        let counters = named(text, "TcpExt:").unwrap();
        assert_eq!(counters.get("TWRecycled"), Some(&17));
        assert_eq!(counters.get("TCPTimeWaitOverflow"), None);
        assert_eq!(named(text, "Tcp:"), None);
        // MaxConn may be -1.
        let counters = named("Tcp: MaxConn CurrEstab\nTcp: -1 49\n", "Tcp:").unwrap();
        assert_eq!(counters, HashMap::from([("CurrEstab".into(), 49)]));
    }

    #[test]
    fn failures_of_connection_tracking_are_summed_over_cpus_by_name() {
        // Linux 6.18, and 2.6.32 with its other columns.
        let new = "entries  clashres found new invalid ignore delete chainlength insert \
                   insert_failed drop early_drop icmp_error  expect_new expect_create \
                   expect_delete search_restart\n\
                   00000010  00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
                   00000000 0000000a 00000001 00000000 00000000  00000000 00000000 00000000 \
                   00000000\n\
                   00000010  00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
                   00000000 000000f0 00000002 00000003 00000000  00000000 00000000 00000000 \
                   00000000\n";
        let old = "entries  searched found new invalid ignore delete delete_list insert \
                   insert_failed drop early_drop\n\
                   0  0 0 0 0 0 0 0 0 4 5 6\n";
        let columns = ["insert_failed", "drop", "early_drop", "absent"];
        for (text, sums) in [
            (new, [Some(250), Some(3), Some(3), None]),
            (old, [Some(4), Some(5), Some(6), None]),
            ("insert_failed drop\n", [None; 4]),
            ("insert_failed drop\nx 1\n", [None, Some(1), None, None]),
            ("", [None; 4]),
        ] {
            assert_eq!(columns.map(|column| sum_over_cpus(text, column)), sums);
        }
        assert!(!counts_resolved_clashes(new));
        assert!(counts_resolved_clashes(old));
    }

    #[test]
    fn connection_tracking_is_found_under_its_older_names() {
        let root = tempfile::tempdir().unwrap();
        let proc = ProcRoot::recorded(root.path());
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(read(&proc, &mut Vec::new()), Counters::default());
        write("sys/net/ipv4/netfilter/ip_conntrack_count", "65530\n");
        write("sys/net/ipv4/netfilter/ip_conntrack_max", "65536\n");
        write(
            "net/stat/ip_conntrack",
            "entries insert_failed drop\n9 1f 2\n",
        );
        let old = read(&proc, &mut Vec::new());
        assert_eq!(old.conntrack, Some((65_530, 65_536)));
        assert_eq!((old.insert_failed, old.dropped), (Some(31), Some(2)));
        write("sys/net/netfilter/nf_conntrack_count", "7\n");
        write("sys/net/netfilter/nf_conntrack_max", "262144\n");
        assert_eq!(read(&proc, &mut Vec::new()).conntrack, Some((7, 262_144)));
    }

    #[test]
    fn a_file_that_a_recording_lacks_is_missing_from_it() {
        let root = tempfile::tempdir().unwrap();
        let mut gaps = Vec::new();
        read(&ProcRoot::recorded(root.path()), &mut gaps);
        let path = root.path().join("net/netstat").display().to_string();
        let said: Vec<_> = gaps.into_iter().map(|gap| (gap.what, gap.why)).collect();
        assert_eq!(said, [(path, "missing from the recording".into())]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, column in "[a-z]{0,3}") {
            let _ = sum_over_cpus(&text, &column);
            let _ = named(&text, &column);
        }
    }
}
