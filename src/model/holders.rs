use serde::{Deserialize, Serialize};

use super::{Gap, PortRange, PortSet};

/// Who holds ports of this machine besides TCP listeners: what a wider ephemeral range must spare.
/// The range serves every protocol and both families alike.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    /// Ports bound by TCP sockets that neither listen nor connect; `None` when unknown.
    pub bound: Option<PortSet>,
    /// Local ports outside the present range of live TCP connections: their programs choose them.
    /// Empty while the range is unknown.
    pub chosen: PortSet,
    /// Ports of UDP and UDP-Lite sockets that are connected to nobody, as a service's are; `None`
    /// when unknown.
    pub udp: Option<PortSet>,
    /// Whether Kubernetes hands out ports of this namespace to services.
    pub node_ports: NodePorts,
    /// What could not be read of all this.
    pub gaps: Vec<Gap>,
}

/// Whether the NodePorts of Kubernetes are in use here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodePorts {
    /// They are, as this tells.
    Seen(String),
    /// No sign of kube-proxy.
    #[default]
    Unseen,
    /// No process of that name, and its rules could not be looked for, for this reason.
    Unread(String),
}

impl NodePorts {
    /// Those that an API server hands out unless its --service-node-port-range says otherwise.
    pub const RANGE: PortRange = PortRange {
        low: 30000,
        high: 32767,
    };

    /// The ports, where they are in use.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        match self {
            Self::Seen(_) => Self::RANGE.ports().collect(),
            Self::Unseen | Self::Unread(_) => PortSet::default(),
        }
    }
}
