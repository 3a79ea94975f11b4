//! The byte order of the machine that wrote a socket table: in /proc/net/tcp an address is a number
//! as that machine has it in memory. Netlink has addresses in network order everywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ProcRoot, sysctl};
use crate::refusal::Refusal;

/// Which byte of a number comes first in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// The last, as on `x86_64` and nearly everywhere.
    Little,
    /// The first, as on s390x.
    Big,
}

/// Machines of the latter kind, as `uname -m` has them.
const BIG: [&str; 14] = [
    "s390x",
    "s390",
    "ppc64",
    "ppc",
    "sparc64",
    "sparc",
    "parisc64",
    "parisc",
    "m68k",
    "aarch64_be",
    "armeb",
    "mips64eb",
    "mipseb",
    "sh4eb",
];

/// Machines of either kind that `uname -m` calls the same.
const EITHER: [&str; 2] = ["mips64", "mips"];

impl ByteOrder {
    /// That of the machine that this runs on.
    pub const OWN: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };

    /// That of the machine whose /proc is below `proc`, as it calls itself (`kernel.arch`, since Linux
    /// 6.1, the words of `uname -m`); `None` where a recording does not tell.
    ///
    /// # Errors
    /// Where the name stands for machines of either kind.
    pub fn of(proc: &ProcRoot) -> Result<Option<Self>, Refusal> {
        if !proc.is_recorded() {
            return Ok(Some(Self::OWN));
        }
        let Some(machine) = sysctl::read(proc, "kernel.arch").ok().flatten() else {
            return Ok(None);
        };
        if EITHER.contains(&machine.as_str()) {
            let file = proc.sysctl("kernel.arch");
            return Err(Refusal::new(
                format!(
                    "{} says {machine}, which is of either byte order, and the addresses in net/tcp \
                     are in that of the machine",
                    file.display()
                ),
                format!(
                    "write {machine}eb into it where the machine is big-endian, {machine}el where not"
                ),
            ));
        }
        let is_big = BIG.contains(&machine.as_str());
        Ok(Some(if is_big { Self::Big } else { Self::Little }))
    }

    /// The bytes of `number` as they lay in memory.
    #[must_use]
    pub fn bytes(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

/// Whether `local`, the address of a socket here, is 127.0.0.1 or `::1` the wrong way round: nobody
/// has such an address.
#[must_use]
pub fn is_reversed(local: IpAddr) -> bool {
    match local {
        IpAddr::V4(four) => four == Ipv4Addr::new(1, 0, 0, 127),
        IpAddr::V6(six) => six == Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x100, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_tells_the_order_by_its_machine() {
        let order = |machine: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            if let Some(machine) = machine {
                std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
                std::fs::write(root.path().join("sys/kernel/arch"), format!("{machine}\n"))
                    .unwrap();
            }
            ByteOrder::of(&ProcRoot::recorded(root.path()))
                .map_err(|refusal| refusal.hint().to_owned())
        };
        for (machine, known) in [
            (Some("x86_64"), Some(ByteOrder::Little)),
            (Some("aarch64"), Some(ByteOrder::Little)),
            (Some("ppc64le"), Some(ByteOrder::Little)),
            (Some("ppc64"), Some(ByteOrder::Big)),
            (Some("s390x"), Some(ByteOrder::Big)),
            (Some("mips64el"), Some(ByteOrder::Little)),
            (Some("mips64eb"), Some(ByteOrder::Big)),
            (None, None),
        ] {
            assert_eq!(order(machine), Ok(known), "{machine:?}");
        }
        let hint = "write mips64eb into it where the machine is big-endian, mips64el where not";
        assert_eq!(order(Some("mips64")), Err(hint.into()));
        assert_eq!(
            ByteOrder::of(&ProcRoot::default()),
            Ok(Some(ByteOrder::OWN))
        );
    }

    #[test]
    fn loopback_the_wrong_way_round_is_noticed() {
        let word = |order: ByteOrder, number| u32::from_be_bytes(order.bytes(number));
        for (order, reversed) in [(ByteOrder::Big, false), (ByteOrder::Little, true)] {
            let four = Ipv4Addr::from(word(order, 0x7f00_0001));
            assert_eq!(is_reversed(four.into()), reversed, "{four}");
            let six = Ipv6Addr::from(u128::from(word(order, 1)));
            assert_eq!(is_reversed(six.into()), reversed, "{six}");
        }
    }
}
