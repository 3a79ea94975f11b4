//! Waiting for whoever reads, types, or lets this process go on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procfs::process::Process;

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

/// Whether somebody is there who can let this process go on once it has stopped, as a shell can: one
/// who is in its session and not in its group. The kernel asks the same before Ctrl-Z stops anything
/// (`will_become_orphaned_pgrp` in kernel/exit.c).
#[must_use]
pub fn can_be_stopped() -> bool {
    /// sudo and the like stand between a shell and what it runs.
    const MOST: usize = 20;
    let stat = |pid| Process::new(pid).and_then(|process| process.stat());
    let Ok(own) = Process::myself().and_then(|process| process.stat()) else {
        return true;
    };
    let mut parent = own.ppid;
    for _ in 0..MOST {
        match stat(parent) {
            Ok(other) if other.session != own.session => return false,
            Ok(other) if other.pgrp == own.pgrp => parent = other.ppid,
            // One that may not be seen is somebody.
            Ok(_) | Err(_) => return parent > 0,
        }
    }
    false
}
