//! Waiting for whoever reads, or types.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits for `time`, less where a signal comes or whoever reads standard output goes away, as
/// `| head -1` does: whether that is so.
#[must_use]
pub fn is_reader_gone_within(time: Duration) -> bool {
    // Errors and a hang-up are told unasked.
    !told(io::stdout().as_fd(), PollFlags::empty(), time).is_empty()
}

/// What became of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing came.
    None,
    /// There is something to be read.
    Some,
    /// The terminal has gone.
    Gone,
}

/// Waits for `time`, less where a signal comes, for something to be typed.
#[must_use]
pub fn input_within(time: Duration) -> Input {
    let told = told(io::stdin().as_fd(), PollFlags::POLLIN, time);
    if told.is_empty() {
        Input::None
    } else if told == PollFlags::POLLIN {
        Input::Some
    } else {
        Input::Gone
    }
}

fn told(stream: BorrowedFd<'_>, what: PollFlags, time: Duration) -> PollFlags {
    let mut streams = [PollFd::new(stream, what)];
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut streams, timeout) {
        Ok(number) if number > 0 => streams[0].revents().unwrap_or(PollFlags::empty()),
        _ => PollFlags::empty(),
    }
}
