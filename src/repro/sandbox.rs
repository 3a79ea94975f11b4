use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::model::PortSet;
use crate::refusal::Refusal;
use crate::system::{ProcRoot, netns, sysctl};

/// TEST-NET-1 (RFC 5737): an address the kernel does not take for loopback, so that
/// `tcp_tw_reuse = 2` does not apply to it, as it does not toward a database elsewhere.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The sysctls of this machine that decide how such a client fares. The lowest unprivileged port
/// comes first: the port range must not reach below it.
const COPIED: [&str; 9] = [
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_tw_timeout",
];

/// A sysctl to change inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: String,
    value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "for example net.ipv4.tcp_tw_reuse=1";
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("a setting is KEY=VALUE, {example}"))?;
        let (key, value) = (key.trim(), value.trim());
        let plain = key.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte)
        });
        if !key.starts_with("net.ipv4.") || !plain || key.contains("..") {
            return Err(format!(
                "{key:?} is not one of the namespace's own sysctls, which begin with net.ipv4. and \
                 touch nothing outside it; {example}"
            ));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A private network namespace with this machine's settings. It ends with the process.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
}

impl Sandbox {
    /// Moves the process into it, and gives it `sources` as further addresses. Must run before the process has a second thread.
    ///
    /// # Errors
    /// When the system forbids namespaces or a setting; the error says which and what to do.
    pub fn enter(port: u16, settings: &[Setting], sources: &[IpAddr]) -> Result<Self> {
        let proc = ProcRoot::default();
        let mut copied = Vec::new();
        for key in COPIED {
            if let Some(value) = sysctl::read(&proc, key)? {
                copied.push((key, value));
            }
        }
        netns::enter_private()?;
        netns::add_loopback_address(ADDRESS)?;
        for source in sources {
            match source {
                IpAddr::V4(source) if source.is_loopback() || *source == ADDRESS => {}
                IpAddr::V4(source) => netns::add_loopback_address(*source)?,
                IpAddr::V6(source) => {
                    return Err(Refusal::new(
                        format!(
                            "--bind-address {source} is IPv6, the embedded server {ADDRESS} is not"
                        ),
                        "--bind-address 192.0.2.2,192.0.2.3",
                    )
                    .into());
                }
            }
        }
        for (key, value) in copied {
            // A setting that is the whole machine's is in force here as it is.
            if sysctl::read(&proc, key)?.is_some() {
                set(&proc, key, &value).with_context(|| {
                    format!("giving the private namespace this machine's {key}")
                })?;
            }
        }
        for Setting { key, value } in settings {
            set(&proc, key, value)?;
        }
        Ok(Self {
            address: SocketAddr::from((ADDRESS, port)),
        })
    }

    /// Where its server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Writes a setting where the namespace does not have it already: in a container /proc/sys may be
/// read-only, and then only a difference matters.
fn set(proc: &ProcRoot, key: &str, value: &str) -> Result<()> {
    let Some(current) = sysctl::read(proc, key)? else {
        return Err(Refusal::new(
            format!("a network namespace of this kernel has no {key}"),
            "ls /proc/sys/net/ipv4 lists what there is; some settings belong to the whole machine",
        )
        .into());
    };
    if same(&current, value) {
        return Ok(());
    }
    let hint = format!(
        "it holds {:?} now; the kernel's Documentation/networking/ip-sysctl.rst says what it takes",
        sysctl::shown(&words(&current).join(" "))
    );
    // The newline makes an empty value a value: the empty list of reserved ports.
    if let Err(error) = sysctl::write(proc, key, &format!("{value}\n")) {
        let hint = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
                "in a container whose /proc/sys is read-only, run it on the host".to_owned()
            }
            _ => hint,
        };
        return Err(Refusal::new(format!("{error:#}"), hint).into());
    }
    let kept = sysctl::read(proc, key)?.unwrap_or_default();
    if !same(&kept, value) {
        let (kept, value) = (sysctl::shown(&kept), sysctl::shown(value));
        let message = format!("the kernel made {kept:?} of {key} = {value:?}");
        return Err(Refusal::new(message, hint).into());
    }
    Ok(())
}

/// Whether two texts say the same: the kernel writes the list `8081,8080` as `8080-8081`.
fn same(one: &str, other: &str) -> bool {
    let ports = PortSet::parse(one).zip(PortSet::parse(other));
    words(one) == words(other) || ports.is_some_and(|(one, other)| one == other)
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_sysctl_of_the_namespace() {
        assert_eq!(
            "net.ipv4.ip_local_port_range=40000 40999".parse(),
            Ok(Setting {
                key: "net.ipv4.ip_local_port_range".into(),
                value: "40000 40999".into()
            })
        );
        for outside in [
            "kernel.hostname=x",
            "vm.swappiness=1",
            "net.ipv4/../../kernel/hostname=x",
            "net.ipv4...kernel.hostname=x",
            "net.core.somaxconn=1",
            "net.ipv4.tcp_tw_reuse",
        ] {
            assert!(outside.parse::<Setting>().is_err(), "{outside}");
        }
    }
}
