/// What runs around this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// A pod of Kubernetes.
    Pod,
    /// A container of any other kind.
    Container,
    /// Neither.
    Nothing,
}

/// Whose network namespace is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What this process runs in.
    pub around: Around,
    /// Whether the network namespace is the machine's own, the first of all; `None` when unknown.
    pub is_machines: Option<bool>,
    /// `kernel.hostname`: a pod's name; `None` when unreadable.
    pub hostname: Option<String>,
}
