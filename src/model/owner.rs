use serde::Serialize;

/// A process that holds live sockets of a flow. TIME_WAIT has no owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}
