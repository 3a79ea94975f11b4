use super::{ProcRoot, sysctl};
use crate::model::Host;

/// Names the machine and the network namespace. Nothing hangs on it, so what is unreadable is
/// simply unknown.
pub(super) fn read(proc: &ProcRoot, netns: Option<u64>) -> Host {
    let name = |key| sysctl::read(proc, key).ok().flatten();
    Host {
        hostname: name("kernel.hostname"),
        kernel: name("kernel.osrelease"),
        netns,
    }
}
