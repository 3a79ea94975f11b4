use std::net::IpAddr;

use super::{Interface, PortSet};

/// The ports that the outbound sockets of one source address take, over all destinations: the pool
/// of clients that bind() the address and leave the choice of the port to bind().
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUse {
    /// The address.
    pub address: IpAddr,
    /// The interface that the sockets are bound to, if any.
    pub interface: Option<Interface>,
    /// Ports taken that could be had otherwise: neither reserved nor held.
    pub ports: PortSet,
}

/// The sources of a machine's outbound flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<SourceUse>);

impl Sources {
    /// Sources told apart; further ones are not looked at. Each takes 8 KiB, and a machine has a
    /// handful of addresses.
    const MOST: usize = 64;

    /// The place of a source, made where it has none; `None` where there are too many.
    pub fn place(&mut self, address: IpAddr, interface: Option<Interface>) -> Option<u8> {
        let known = self
            .0
            .iter()
            .position(|source| source.address == address && source.interface == interface);
        let place = known.or_else(|| {
            (self.0.len() < Self::MOST).then(|| {
                self.0.push(SourceUse {
                    address,
                    interface,
                    ports: PortSet::default(),
                });
                self.0.len() - 1
            })
        });
        place.and_then(|place| u8::try_from(place).ok())
    }

    /// Notes that the source at `place` takes `port`.
    pub fn take(&mut self, place: u8, port: u16) {
        if let Some(source) = self.0.get_mut(usize::from(place)) {
            source.ports.insert(port);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &SourceUse> {
        self.0.iter()
    }
}
