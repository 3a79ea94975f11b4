use anyhow::{Context, Result, bail};

use super::{ProcRoot, sysctl};
use crate::model::{Counters, Gap, Weight};

/// Reads the TIME_WAIT counters of /proc/net/netstat, and how full connection tracking is; what
/// cannot be read becomes a gap. They are not decisive: no verdict on ports hangs on them.
pub(super) fn read(proc: &ProcRoot, gaps: &mut Vec<Gap>) -> Counters {
    let path = proc.net("netstat");
    let parsed = std::fs::read_to_string(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| tcp_ext(&text))
        .with_context(|| format!("reading {}", path.display()));
    let counted = match parsed {
        Ok(counters) => counters,
        Err(error) => {
            gaps.push(Gap {
                what: "/proc/net/netstat".into(),
                why: format!("{error:#}"),
                weight: Weight::Minor,
            });
            Counters::default()
        }
    };
    let conntrack = |name: &str| {
        let text = sysctl::read(proc, &format!("net.netfilter.nf_conntrack_{name}"));
        text.ok().flatten()?.parse().ok()
    };
    Counters {
        time_wait: sockstat(proc, "sockstat").and_then(|counts| counts("TCP:", "tw")),
        conntrack: conntrack("count").zip(conntrack("max")),
        ..counted
    }
}

/// Whether every TCP socket of this kernel is in the table: then none is bound to a port without
/// listening or being connected. `alloc` counts the sockets of all namespaces, `inuse` those of
/// this one's table; neither counts TIME_WAIT (net/ipv4/proc.c).
pub(super) fn no_socket_outside_the_table(proc: &ProcRoot) -> bool {
    // Whatever comes between the two reads makes the second count larger, never the first.
    let (Some(six), Some(four)) = (sockstat(proc, "sockstat6"), sockstat(proc, "sockstat")) else {
        return false;
    };
    let allocated = four("TCP:", "alloc");
    let in_table = four("TCP:", "inuse").zip(six("TCP6:", "inuse"));
    allocated
        .zip(in_table)
        .is_some_and(|(allocated, (four, six))| allocated <= four + six)
}

/// TCP sockets of this kernel, and TIME_WAIT sockets of this namespace; `None` when unknown.
pub(super) fn sockets(proc: &ProcRoot) -> Option<u64> {
    let counts = sockstat(proc, "sockstat")?;
    Some(counts("TCP:", "alloc")? + counts("TCP:", "tw")?)
}

/// The counts of /proc/net/sockstat or sockstat6, by line and name: `TCP: inuse 5 orphan 0 tw 3 …`.
fn sockstat(proc: &ProcRoot, file: &str) -> Option<impl Fn(&str, &str) -> Option<u64>> {
    let text = std::fs::read_to_string(proc.net(file)).ok()?;
    Some(move |line: &str, name: &str| {
        let mut words = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line))?
            .split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    })
}

/// Parses `TcpExt:`: a line of names, then a line of as many values (net/ipv4/proc.c).
fn tcp_ext(text: &str) -> Result<Counters> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        bail!("it has no TcpExt lines");
    };
    let counter = |name: &str| {
        names
            .split_whitespace()
            .zip(values.split_whitespace())
            .find(|(candidate, _)| *candidate == name)
            .and_then(|(_, value)| value.parse().ok())
    };
    Ok(Counters {
        time_wait_overflows: counter("TCPTimeWaitOverflow"),
        time_wait_recycled: counter("TWRecycled"),
        ..Counters::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_outside_the_table_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        let proc = ProcRoot::recorded(root.path());
        let write = |file: &str, text: &str| {
            std::fs::write(root.path().join("net").join(file), text).unwrap();
        };
        assert!(!no_socket_outside_the_table(&proc), "unknown is not none");
        write("sockstat6", "TCP6: inuse 2\nUDP6: inuse 9\n");
        for (allocated, none) in [(6, true), (7, true), (8, false)] {
            let line = format!("TCP: inuse 5 orphan 0 tw 300 alloc {allocated} mem 65\n");
            write(
                "sockstat",
                &format!("sockets: used 9\n{line}UDP: inuse 3 mem 0\n"),
            );
            assert_eq!(no_socket_outside_the_table(&proc), none, "{allocated}");
        }
        assert_eq!(read(&proc, &mut Vec::new()).time_wait, Some(300));
    }

    #[test]
    fn counters_are_found_by_name_and_absent_is_not_zero() {
        let text = "TcpExt: SyncookiesSent TCPTimeWaitOverflow\nTcpExt: 0 17\nIpExt: A\nIpExt: 3\n";
        assert_eq!(
            tcp_ext(text).unwrap(),
            Counters {
                time_wait_overflows: Some(17),
                ..Counters::default()
            }
        );
        let old = tcp_ext("TcpExt: SyncookiesSent\nTcpExt: 0\n").unwrap();
        assert_eq!(old, Counters::default());
        assert_eq!(
            tcp_ext("IpExt: A\nIpExt: 1\n").unwrap_err().to_string(),
            "it has no TcpExt lines"
        );
    }
}
