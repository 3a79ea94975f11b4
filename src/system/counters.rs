use anyhow::{Context, Result, bail};

use super::{ProcRoot, sysctl};
use crate::model::{Counters, Gap};

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
                decisive: false,
            });
            Counters::default()
        }
    };
    let conntrack = |name: &str| {
        let text = sysctl::read(proc, &format!("net.netfilter.nf_conntrack_{name}"));
        text.ok().flatten()?.parse().ok()
    };
    Counters {
        conntrack: conntrack("count").zip(conntrack("max")),
        ..counted
    }
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
        time_wait_reused: counter("TWRecycled"),
        conntrack: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_and_absent_is_not_zero() {
        let text = "TcpExt: SyncookiesSent TWRecycled\nTcpExt: 0 17\nIpExt: InNoRoutes\nIpExt: 3\n";
        assert_eq!(
            tcp_ext(text).unwrap(),
            Counters {
                time_wait_overflows: None,
                time_wait_reused: Some(17),
                conntrack: None
            }
        );
        assert_eq!(
            tcp_ext("IpExt: A\nIpExt: 1\n").unwrap_err().to_string(),
            "it has no TcpExt lines"
        );
    }
}
