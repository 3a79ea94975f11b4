//! Sysctls of the calling thread's network namespace.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::iter;

use anyhow::{Context, Result};

use super::{ProcRoot, file};
use crate::model::{Gap, PortRange, PortSet, TimeWaitReuse, Tunables, Weight};

/// Reads one sysctl, without its final newline. `None` when it is not there
/// ([`ProcRoot::absence`]).
///
/// # Errors
/// When the file is there and cannot be read; the error names it.
pub fn read(proc: &ProcRoot, key: &str) -> Result<Option<String>> {
    let path = proc.sysctl(key);
    match file::in_one_read(|| proc.open(&path)) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// A write() takes less than a page: of more, `proc_do_large_bitmap` (kernel/sysctl.c) takes the
/// beginning, which until Linux 5.1 could end within a number, without a word.
const LONGEST_WRITE: usize = 4000;

/// Writes one sysctl. Only ever called inside a private namespace. A long list is written in
/// pieces that end with a comma: all but the first write to an open file add to it.
///
/// # Errors
/// When the kernel refuses; the error names the file and the value.
pub fn write(proc: &ProcRoot, key: &str, value: &str) -> Result<()> {
    let path = proc.sysctl(key);
    let all = || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        pieces(value).try_for_each(|piece| file.write_all(piece.as_bytes()))
    };
    all().with_context(|| format!("writing {:?} to {}", shown(value), path.display()))
}

/// `text` in pieces that one write() takes, as far as its commas allow.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= LONGEST_WRITE {
            rest.len()
        } else {
            let comma = rest.as_bytes()[..LONGEST_WRITE]
                .iter()
                .rposition(|&byte| byte == b',');
            comma.map_or(rest.len(), |comma| comma + 1)
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// A value as messages show it: a list may have thousands of ports.
#[must_use]
pub fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    let value = value.trim_end();
    match value.char_indices().nth(LONGEST) {
        None => value.to_owned(),
        Some((end, _)) => format!("{}…", &value[..end]),
    }
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
        tcp_tw_reuse: reader.expected("net.ipv4.tcp_tw_reuse", |text| {
            TimeWaitReuse::from_kernel(number(text)?)
        }),
        tcp_tw_reuse_delay_ms: reader.optional("net.ipv4.tcp_tw_reuse_delay", number),
        tcp_timestamps: reader.expected("net.ipv4.tcp_timestamps", number),
        tcp_max_tw_buckets: reader.expected("net.ipv4.tcp_max_tw_buckets", number),
        tcp_fin_timeout_s: reader.optional("net.ipv4.tcp_fin_timeout", number),
        tcp_tw_recycle: reader.optional("net.ipv4.tcp_tw_recycle", number),
        tcp_tw_timeout_s: reader.optional("net.ipv4.tcp_tw_timeout", |text| {
            // Its bounds on the kernels that have it.
            number(text).filter(|seconds| (1..=600).contains(seconds))
        }),
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
    /// A sysctl without which nothing can be said of ports, though a container may hide it.
    fn required<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(key, parse, Some(Weight::Decisive))
    }

    /// A sysctl that every supported kernel has, though a container may hide it. Where an answer
    /// hangs on it, that is judged: most do not.
    fn expected<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(key, parse, Some(Weight::Minor))
    }

    /// A sysctl that only some kernels have: absence is an answer.
    fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.value(key, parse, None)
    }

    /// What `key` holds; what its absence weighs is `absence`.
    fn value<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
        absence: Option<Weight>,
    ) -> Option<T> {
        let why = match (read(self.proc, key), absence) {
            (Ok(None), None) => return None,
            (Ok(None), _) => self.proc.absence().into(),
            (Ok(Some(text)), _) => match parse(&text) {
                Some(value) => return Some(value),
                None => format!("holds {:?}, which is not understood", shown(&text)),
            },
            (Err(error), _) => format!("{error:#}"),
        };
        self.gaps.push(Gap {
            what: key.to_owned(),
            why,
            weight: absence.unwrap_or(Weight::Minor),
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_that_is_shown_is_short() {
        assert_eq!(shown("40000 40999\n"), "40000 40999");
        let list = "é1,".repeat(1000);
        assert_eq!(shown(&list), format!("{}…", "é1,".repeat(20)));
    }

    proptest! {
        #[test]
        fn pieces_are_short_end_with_a_comma_and_make_up_the_list(
            ports in proptest::collection::vec(any::<u16>(), 0..3000),
        ) {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
            let pieces: Vec<_> = pieces(&list).collect();
            prop_assert_eq!(&pieces.concat(), &list);
            for (index, piece) in pieces.iter().enumerate() {
                prop_assert!(piece.len() <= LONGEST_WRITE);
                prop_assert!(index + 1 == pieces.len() || piece.ends_with(','));
            }
        }
    }
}
