//! Private network namespaces.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;
use nix::unistd::{geteuid, getgid, getuid};

use super::netlink::{ACKNOWLEDGED, CREATE, Netlink};
use super::{ProcRoot, sysctl};
use crate::refusal::Refusal;

/// Moves the process into a network namespace of its own, with loopback up: by privilege where it
/// has any, else inside a user namespace of its own. The namespace ends with the process.
///
/// Must run before the process has a second thread: the kernel refuses a new user namespace to a
/// process with threads (`EINVAL`).
///
/// # Errors
/// Where the system forbids it; the error names the setting that does and the way round it.
pub fn enter_private() -> Result<()> {
    let is_root = geteuid().is_root();
    let refused = |step, errno| Err(refusal(&ProcRoot::default(), step, errno, is_root).into());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            let (uid, gid) = (getuid(), getgid());
            if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
                return refused(Step::Unshare, errno);
            }
            // setgroups must be given up before an ordinary user may map a group
            // (user_namespaces(7)).
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("0 {uid} 1")),
                ("gid_map", format!("0 {gid} 1")),
            ] {
                if let Err(error) = std::fs::write(format!("/proc/self/{file}"), text) {
                    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                    return refused(Step::MapUser, errno);
                }
            }
        }
        Err(errno) => return refused(Step::Unshare, errno),
    }
    match link_up(LOOPBACK) {
        Err(super::netlink::Failure::Errno(errno)) => refused(Step::LoopbackUp, errno),
        other => other.context("bringing up lo in the private network namespace"),
    }
}

/// `lo` has index 1 in every network namespace.
const LOOPBACK: u32 = 1;

fn link_up(index: u32) -> Result<(), super::netlink::Failure> {
    const RTM_NEWLINK: u16 = 16;
    const IFF_UP: u32 = 1;
    let mut link = [0; 16]; // struct ifinfomsg: family, type, index, flags, mask of flags to change.
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    link[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    link[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    Netlink::open(SockProtocol::NetlinkRoute)?.request(RTM_NEWLINK, ACKNOWLEDGED, &link, |_| {})
}

/// Gives `lo` one more address.
///
/// # Errors
/// When the kernel refuses: no `CAP_NET_ADMIN` over the namespace, or the address is there already.
pub fn add_loopback_address(address: Ipv4Addr) -> Result<()> {
    const RTM_NEWADDR: u16 = 20;
    const AF_INET: u8 = 2;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut request = vec![AF_INET, 32, 0, 0]; // struct ifaddrmsg: family, prefix, flags, scope.
    request.extend(LOOPBACK.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        request.extend(8_u16.to_ne_bytes());
        request.extend(attribute.to_ne_bytes());
        request.extend(address.octets());
    }
    Netlink::open(SockProtocol::NetlinkRoute)?
        .request(RTM_NEWADDR, CREATE, &request, |_| {})
        .with_context(|| format!("adding {address} to lo in the private network namespace"))
}

/// What was being done when the system said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unshare,
    MapUser,
    LoopbackUp,
}

/// What a run can do without a private namespace.
pub const INSTEAD: &str = "a server of yours needs no namespace: `twcheck repro --host HOST`";

/// Names the setting that forbids a private namespace, as far as the system lets it be known.
fn refusal(proc: &ProcRoot, step: Step, errno: Errno, is_root: bool) -> Refusal {
    let holds = |key: &str, value: &str| {
        sysctl::read(proc, key).is_ok_and(|text| text.as_deref() == Some(value))
    };
    let doing = match step {
        Step::Unshare => "making a private network namespace",
        Step::MapUser => "mapping this user into a private user namespace",
        Step::LoopbackUp => "bringing up lo in the private network namespace",
    };
    // A limit of namespaces holds for root too, but for that of user namespaces: root needs none.
    let raise = |key: &str| format!("raise it, as root: `sysctl -w user.{key}=1024`; ");
    let privilege = if is_root {
        "run it where root has CAP_SYS_ADMIN, outside of this container; "
    } else {
        "run it as root; "
    };
    let (cause, way_out) = if errno == Errno::ENOSPC && holds("user.max_user_namespaces", "0") {
        let way_out = if is_root {
            raise("max_user_namespaces")
        } else {
            privilege.to_owned()
        };
        ("user.max_user_namespaces is 0", way_out)
    } else if errno == Errno::ENOSPC && holds("user.max_net_namespaces", "0") {
        ("user.max_net_namespaces is 0", raise("max_net_namespaces"))
    } else if errno == Errno::ENOSPC {
        (
            "the quota of user.max_user_namespaces or user.max_net_namespaces is used up, here or in a \
             user namespace around this one",
            "raise it there, as root; ".to_owned(),
        )
    } else if holds("kernel.unprivileged_userns_clone", "0") {
        (
            "kernel.unprivileged_userns_clone is 0",
            privilege.to_owned(),
        )
    } else if holds("kernel.apparmor_restrict_unprivileged_userns", "1") {
        (
            "AppArmor restricts it: kernel.apparmor_restrict_unprivileged_userns is 1, as on Ubuntu \
             since 23.10",
            privilege.to_owned(),
        )
    } else if errno == Errno::EPERM {
        (
            "a security policy (seccomp, as in a container; SELinux; AppArmor) forbids it",
            privilege.to_owned(),
        )
    } else {
        (
            "this kernel may be built without user or network namespaces",
            String::new(),
        )
    };
    Refusal::new(
        format!(
            "{doing} was refused, {} (errno {}): {cause}",
            errno.desc(),
            errno as i32
        ),
        format!("{way_out}{INSTEAD}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_namespaces_is_named() {
        for (key, value, step, errno, named) in [
            (
                "user/max_user_namespaces",
                "0",
                Step::Unshare,
                Errno::ENOSPC,
                "user.max_user_namespaces is 0",
            ),
            (
                "user/max_net_namespaces",
                "0",
                Step::Unshare,
                Errno::ENOSPC,
                "user.max_net_namespaces is 0",
            ),
            (
                "user/max_user_namespaces",
                "9",
                Step::Unshare,
                Errno::ENOSPC,
                "is used up",
            ),
            (
                "kernel/unprivileged_userns_clone",
                "0",
                Step::Unshare,
                Errno::EPERM,
                "kernel.unprivileged_userns_clone is 0",
            ),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                Step::MapUser,
                Errno::EACCES,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
            ),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                Step::LoopbackUp,
                Errno::EPERM,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
            ),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "0",
                Step::Unshare,
                Errno::EPERM,
                "security policy",
            ),
            (
                "kernel/other",
                "0",
                Step::Unshare,
                Errno::EINVAL,
                "built without",
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            let file = root.path().join("sys").join(key);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{value}\n")).unwrap();
            for is_root in [false, true] {
                let refusal = refusal(&ProcRoot::recorded(root.path()), step, errno, is_root);
                let (text, hint) = (refusal.to_string(), refusal.hint());
                assert!(text.contains(named), "{key}={value}: {text}");
                assert!(hint.ends_with(INSTEAD), "{hint}");
                let says_root = hint.starts_with("run it as root");
                let helps = !is_root
                    && !["max_net", "used up", "built"]
                        .iter()
                        .any(|it| text.contains(it));
                assert_eq!(says_root, helps, "{text}, as root {is_root}: {hint}");
            }
        }
    }
}
