//! Sysctls of the calling thread's network namespace.

use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::ProcRoot;
use crate::model::{Gap, PortRange, PortSet, TimeWaitReuse, Tunables, Weight};

/// Reads one sysctl, without its final newline. `None` when the kernel does not have it.
///
/// # Errors
/// When the file is there and cannot be read; the error names it.
pub fn read(proc: &ProcRoot, key: &str) -> Result<Option<String>> {
    let path = proc.sysctl(key);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes one sysctl. Only ever called inside a private namespace.
///
/// # Errors
/// When the kernel refuses; the error names the file and the value.
pub fn write(proc: &ProcRoot, key: &str, value: &str) -> Result<()> {
    let path = proc.sysctl(key);
    std::fs::write(&path, value)
        .with_context(|| format!("writing {:?} to {}", value.trim_end(), path.display()))
}

/// Reads every tunable; what cannot be read or understood becomes a gap.
#[must_use]
pub fn tunables(proc: &ProcRoot, gaps: &mut Vec<Gap>) -> Tunables {
    let mut reader = Reader { proc, gaps };
    Tunables {
        ip_local_port_range: reader.required("net.ipv4.ip_local_port_range", PortRange::parse),
        ip_local_reserved_ports: reader
            .required("net.ipv4.ip_local_reserved_ports", PortSet::parse),
        ip_unprivileged_port_start: reader.optional("net.ipv4.ip_unprivileged_port_start", number),
        tcp_tw_reuse: reader.required("net.ipv4.tcp_tw_reuse", |text| {
            TimeWaitReuse::from_kernel(number(text)?)
        }),
        tcp_tw_reuse_delay_ms: reader.optional("net.ipv4.tcp_tw_reuse_delay", number),
        tcp_timestamps: reader.required("net.ipv4.tcp_timestamps", number),
        tcp_max_tw_buckets: reader.required("net.ipv4.tcp_max_tw_buckets", number),
        tcp_fin_timeout_s: reader.optional("net.ipv4.tcp_fin_timeout", number),
        tcp_tw_recycle: reader.optional("net.ipv4.tcp_tw_recycle", number),
        tcp_tw_timeout_s: reader.optional("net.ipv4.tcp_tw_timeout", number),
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

struct Reader<'a> {
    proc: &'a ProcRoot,
    gaps: &'a mut Vec<Gap>,
}

impl Reader<'_> {
    /// A sysctl every supported kernel has: absence is a gap.
    fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(key, parse, true)
    }

    /// A sysctl that only some kernels have: absence is an answer.
    fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(key, parse, false)
    }

    fn value<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        required: bool,
    ) -> Option<T> {
        let why = match read(self.proc, key) {
            Ok(None) if !required => return None,
            Ok(None) => "this kernel, or this container, does not have it".into(),
            Ok(Some(text)) => match parse(&text) {
                Some(value) => return Some(value),
                None => format!("holds {text:?}, which is not understood"),
            },
            Err(error) => format!("{error:#}"),
        };
        self.gaps.push(Gap {
            what: key.to_owned(),
            why,
            weight: if required {
                Weight::Decisive
            } else {
                Weight::Minor
            },
        });
        None
    }
}
