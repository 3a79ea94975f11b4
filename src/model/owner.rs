use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Flow, Gap};
use crate::words::printable;

/// A process that holds live sockets of a flow. TIME_WAIT has no owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process ID in the reader's PID namespace.
    pub pid: i32,
    /// Its name, as in /proc/PID/comm.
    pub command: String,
    /// The user it runs as; the number where the name is unknown.
    pub user: String,
    /// Its systemd unit or container, from its cgroup; `None` where that names neither.
    pub unit: Option<String>,
    /// How many different sockets of the flow were seen with it.
    pub sockets: u32,
    /// Files it has open, sockets among them; `None` when unreadable.
    pub open_files: Option<u64>,
    /// Files it may have open (`RLIMIT_NOFILE`, the soft limit): at it socket() fails with errno
    /// 24. `None` when unreadable.
    pub open_files_limit: Option<u64>,
}

/// `python3 (pid 7, user app, app.service)`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, user) = (printable(&self.command), &self.user);
        write!(f, "{command} (pid {}, user {user}", self.pid)?;
        if let Some(unit) = &self.unit {
            write!(f, ", {}", printable(unit))?;
        }
        f.write_str(")")
    }
}

/// A process with TCP sockets that could be placed in no flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// Who; `sockets` is how many of them it had at once.
    #[serde(flatten)]
    pub owner: Owner,
    /// Why they have no place.
    pub why: Placeless,
}

/// Why a socket that a process has is in no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placeless {
    /// It has no port, so it is in no table: connect() has not had one yet, or has failed, or the
    /// connection is over and the process keeps the socket.
    NoPort,
    /// Each was gone before it could be looked for.
    ShortLived,
}

/// How closely owners were looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// For how long descriptors were watched; zero for a single look.
    pub watched: Duration,
    /// The time between two glances at the same descriptor.
    pub cycle: Duration,
    /// The time that a look at the socket table takes.
    pub table: Duration,
    /// Processes that could not be read.
    pub hidden: usize,
    /// Whether this process may trace any other, as root may: then more rights read no more.
    pub may_trace: bool,
}

/// Who holds the live sockets of some flows.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// By flow, the one with most sockets first; a flow whose sockets nobody was found to hold has
    /// an empty list, one where nobody could look is missing.
    pub by_flow: HashMap<Flow, Vec<Owner>>,
    /// Who has TCP sockets that are in no flow; `None` where nobody looked for them.
    pub unplaced: Option<Vec<Unplaced>>,
    /// Who has most sockets of the service that was asked about; `None` where none was, or nobody
    /// was found.
    pub service: Option<Owner>,
    /// Why somebody may be missing.
    pub gap: Option<Gap>,
    /// How closely it was looked.
    pub look: Look,
}
