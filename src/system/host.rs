use super::{ProcRoot, sysctl};
use crate::model::Host;
use crate::words::printable;

/// Names the machine and the network namespace. Nothing hangs on it, so what is unreadable is
/// simply unknown.
pub(super) fn read(proc: &ProcRoot, netns: Option<u64>) -> Host {
    let name = |key| Some(printable(&sysctl::read(proc, key).ok()??));
    Host {
        hostname: name("kernel.hostname"),
        kernel: name("kernel.osrelease"),
        netns,
    }
}
