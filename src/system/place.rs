//! Whose network namespace is looked at, and whether Kubernetes keeps ports in it.

use std::env;
use std::path::Path;

use nix::errno::Errno;

use super::netlink::{Failure, retried};
use super::owners::{command, netns, own_netns, processes};
use super::{Machine, file, host, nft};
use crate::model::{Around, NodePorts, Place};

/// Processes looked at, some microseconds each.
const PROCESSES: usize = 20_000;

/// What a cgroup's path has in it inside a container.
const RUNTIMES: [&str; 6] = [
    "docker",
    "containerd",
    "libpod",
    "crio",
    "lxc",
    "machine.slice",
];

impl Machine {
    /// Whose network namespace is looked at; `None` where a recording does not tell.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let (around, is_machines) = match &self.taken {
            Some(taken) => (taken.answers.around?, taken.answers.is_machines),
            None if self.is_recorded() => return None,
            None => (around(), self.is_machines()),
        };
        Some(Place {
            around,
            is_machines,
            hostname: host::read(&self.proc, None).hostname,
        })
    }

    /// Whether the network namespace is the first of all: some sysctls the kernel shows there alone
    /// (`sysctl_core_init` in net/core/sysctl_net_core.c).
    fn is_machines(&self) -> Option<bool> {
        let is_there = |key| self.proc.sysctl(key).exists();
        is_there("net.core.somaxconn").then(|| is_there("net.core.netdev_max_backlog"))
    }

    /// Whether NodePorts are kept in this namespace.
    pub(super) fn node_ports(&self) -> NodePorts {
        if self.is_recorded() {
            return NodePorts::Unread("a recording does not tell".into());
        }
        if let Some(pid) = kube_proxy() {
            return NodePorts::Seen(format!("kube-proxy, pid {pid}"));
        }
        if around() == Around::Pod && self.is_machines() == Some(true) {
            return NodePorts::Seen("this is a pod in its node's network namespace".into());
        }
        match retried(nft::node_port_chain) {
            Ok(Some(chain)) => NodePorts::Seen(format!("the rules of kube-proxy, {chain}")),
            Ok(None) if self.has_legacy_nat() => {
                NodePorts::Unread("the rules of iptables-legacy are not read".into())
            }
            Ok(None) => NodePorts::Unseen,
            Err(Failure::Errno(Errno::EPERM)) => {
                NodePorts::Unread("that needs CAP_NET_ADMIN".into())
            }
            Err(failure) => NodePorts::Unread(format!("nftables: {failure}")),
        }
    }

    /// Whether the older iptables, whose rules netlink does not show, has translating ones.
    pub(super) fn has_legacy_nat(&self) -> bool {
        let names = ["ip_tables_names", "ip6_tables_names"];
        names.iter().any(|name| {
            let names = self.proc.open(&self.proc.net(name)).and_then(file::text);
            names.is_ok_and(|names| names.lines().any(|name| name == "nat"))
        })
    }
}

fn around() -> Around {
    let cgroup = file::open(Path::new("/proc/self/cgroup"))
        .and_then(file::text)
        .unwrap_or_default();
    let is_pod = env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || cgroup.contains("kubepods")
        || Path::new("/var/run/secrets/kubernetes.io").exists();
    if is_pod {
        return Around::Pod;
    }
    let is_container = env::var_os("container").is_some()
        || ["/.dockerenv", "/run/.containerenv"]
            .iter()
            .any(|file| Path::new(file).exists())
        || RUNTIMES.iter().any(|runtime| cgroup.contains(runtime));
    if is_container {
        Around::Container
    } else {
        Around::Nothing
    }
}

/// A process of that name in this network namespace; to another user each seems to be in it.
fn kube_proxy() -> Option<i32> {
    let here = own_netns();
    processes().take(PROCESSES).find(|&pid| {
        command(pid).is_some_and(|name| name == "kube-proxy")
            && netns(pid).ok().is_none_or(|there| Some(there) == here)
    })
}
