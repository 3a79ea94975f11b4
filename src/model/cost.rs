use std::time::Duration;

/// What a look took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// From the start of the command.
    pub elapsed: Duration,
    /// Time of a CPU since the process began, the kernel's work for it included, by
    /// `getrusage(RUSAGE_SELF)`; `None` where that is not told.
    pub cpu: Option<Duration>,
    /// The most memory that the process has had, in bytes; likewise.
    pub memory: Option<u64>,
}
