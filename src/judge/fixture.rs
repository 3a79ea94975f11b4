//! Machines made up for the tests of this room.

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{
    BoundPorts, Listeners, Owner, PortRange, PortRule, PortSet, Snapshot, Socket, SourceName,
    Tally, TcpState, TimeWaitReuse, Tunables,
};

/// Settings of a machine with 1,000 ports and nothing else remarkable.
pub fn plain() -> Tunables {
    Tunables {
        ip_local_port_range: PortRange::parse("40000 40999"),
        ip_local_reserved_ports: PortSet::parse(""),
        ip_unprivileged_port_start: Some(1024),
        tcp_tw_reuse: Some(TimeWaitReuse::Off),
        tcp_timestamps: Some(1),
        tcp_max_tw_buckets: Some(131_072),
        ..Tunables::default()
    }
}

/// A socket of 10.0.0.1 with this port toward `server`.
pub fn socket(state: TcpState, port: u16, server: ([u8; 4], u16)) -> Socket {
    Socket {
        state,
        local: ([10, 0, 0, 1], port).into(),
        remote: server.into(),
        time_wait_left: None,
        inode: None,
        interface: None,
        retransmits: 0,
    }
}

/// A process that holds connections.
pub fn owner() -> Owner {
    Owner {
        pid: 7,
        command: "python3".into(),
        user: "app".into(),
        unit: None,
        sockets: 900,
        open_files: None,
        open_files_limit: None,
    }
}

/// A look at a machine on which nothing is bound but what listens.
pub fn look(
    tunables: Tunables,
    listening: impl IntoIterator<Item = SocketAddr>,
    sockets: impl IntoIterator<Item = Socket>,
) -> Snapshot {
    let mut listeners = Listeners::default();
    listening
        .into_iter()
        .for_each(|address| listeners.insert(address));
    let mut tally = Tally::new(PortRule::new(&tunables), listeners);
    sockets.into_iter().for_each(|socket| tally.add(&socket));
    Snapshot {
        bound: BoundPorts::default(),
        tick: Some(Duration::from_millis(4)),
        ..Snapshot::new(tunables, tally, SourceName::SockDiag)
    }
}

/// So many sockets in each of these states, one after the other.
pub fn each(sockets: &[(TcpState, u16)]) -> impl Iterator<Item = TcpState> {
    let repeated = |&(state, number): &(TcpState, u16)| std::iter::repeat_n(state, number.into());
    sockets.iter().flat_map(repeated)
}
