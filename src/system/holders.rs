//! Ports that protocols other than TCP hold: they share the ephemeral range with it.

use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};

use super::netlink::Failure;
use super::proc_tcp::Hand;
use super::{ProcRoot, proc_tcp, sock_diag};
use crate::model::PortSet;

/// Protocol numbers and the files of /proc/net that list the same sockets.
const PROTOCOLS: [(u8, [&str; 2]); 2] = [(17, ["udp", "udp6"]), (136, ["udplite", "udplite6"])];

/// Local ports of UDP and UDP-Lite sockets that are connected to nobody: a service waits for
/// datagrams from anybody, so those of clients that connect are left out. Not left out are clients
/// that do not: one with a port inside the range cannot be told from a service, so who reserves
/// ports had better look outside it only.
pub(super) fn udp(proc: &ProcRoot, by_netlink: bool, or_proc: bool) -> Result<PortSet> {
    if by_netlink {
        match ask() {
            Ok(ports) => return Ok(ports),
            Err(_) if or_proc => {}
            Err(error) => return Err(error).context("asking sock_diag for UDP sockets"),
        }
    }
    read(proc)
}

fn ask() -> Result<PortSet, Failure> {
    let mut ports = PortSet::default();
    for (protocol, _) in PROTOCOLS {
        match sock_diag::unconnected(protocol) {
            Ok(more) => ports = ports.union(&more),
            // UDP-Lite is gone from the newest kernels, and UDP is asked for first.
            Err(Failure::Errno(_)) if protocol != PROTOCOLS[0].0 => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(ports)
}

fn read(proc: &ProcRoot) -> Result<PortSet> {
    let mut ports = PortSet::default();
    let hand = Hand::of(proc)?;
    for name in PROTOCOLS.iter().flat_map(|(_, names)| names) {
        let path = proc.net(name);
        let rest = proc_tcp::rows(proc.open(&path), hand, |socket| {
            if socket.remote.port() == 0 {
                ports.insert(socket.local.port());
            }
            ControlFlow::Continue(())
        })
        .with_context(|| format!("reading {}", path.display()))?;
        match rest {
            None if *name == PROTOCOLS[0].1[0] => {
                bail!("{} is {}", path.display(), proc.absence());
            }
            Some(rest) if rest.is_empty => bail!("{} is empty", path.display()),
            Some(rest) if rest.malformed > 0 => bail!(
                "{}: line {} is not understood",
                path.display(),
                rest.first_malformed
            ),
            // None: a kernel without IPv6 or UDP-Lite.
            None | Some(_) => {}
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unconnected_sockets_of_either_family_hold_a_port() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("net");
        std::fs::create_dir(&net).unwrap();
        let proc = ProcRoot::recorded(root.path());
        let unknown = read(&proc).unwrap_err().to_string();
        assert!(
            unknown.ends_with("net/udp is missing from the recording"),
            "{unknown}"
        );
        std::fs::write(net.join("udp"), "").unwrap();
        let empty = read(&proc).unwrap_err().to_string();
        assert!(empty.ends_with("net/udp is empty"), "{empty}");
        let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                    uid  timeout inode ref pointer drops            \n";
        let rest =
            "00000000:00000000 00:00000000 00000000     0        0 9041 2 0000000000000000 0";
        let any = "00000000000000000000000000000000";
        std::fs::write(
            net.join("udp"),
            format!(
                "{head}  281: 00000000:2BCB 00000000:0000 07 {rest}         \n  \
                 312: 0100007F:E0B2 0100007F:0035 01 {rest}         \n"
            ),
        )
        .unwrap();
        std::fs::write(
            net.join("udp6"),
            format!("{head}  300: {any}:CA6C {any}:0000 07 {rest}\n"),
        )
        .unwrap();
        assert_eq!(read(&proc).unwrap().to_string(), "11211,51820");
    }
}
