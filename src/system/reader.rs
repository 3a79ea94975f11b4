use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits for `time`, less where a signal comes or whoever reads standard output goes away, as
/// `| head -1` does: whether that is so.
#[must_use]
pub fn is_reader_gone_within(time: Duration) -> bool {
    let stdout = io::stdout();
    // Errors and a hang-up are told unasked.
    let mut out = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    let told = poll(&mut out, timeout).is_ok_and(|number| number > 0);
    told && out[0].any().unwrap_or(false)
}
