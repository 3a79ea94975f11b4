use super::{Gap, PortSet};

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
    /// What could not be read of all this.
    pub gaps: Vec<Gap>,
}
