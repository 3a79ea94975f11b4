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
pub struct Sources {
    told_apart: Vec<SourceUse>,
    /// Ports of the further ones.
    others: PortSet,
}

impl Sources {
    /// Sources told apart; further ones are not looked at. Each takes 8 KiB, and a machine has a
    /// handful of addresses.
    const MOST: usize = 64;

    /// The place of a source, made where it has none; `None` where there are too many.
    pub fn place(&mut self, address: IpAddr, interface: Option<Interface>) -> Option<u8> {
        let known = self
            .told_apart
            .iter()
            .position(|source| source.address == address && source.interface == interface);
        let place = known.or_else(|| {
            (self.told_apart.len() < Self::MOST).then(|| {
                self.told_apart.push(SourceUse {
                    address,
                    interface,
                    ports: PortSet::default(),
                });
                self.told_apart.len() - 1
            })
        });
        place.and_then(|place| u8::try_from(place).ok())
    }

    /// Notes that the source at `place` takes `port`, or one that has none.
    pub fn take(&mut self, place: Option<u8>, port: u16) {
        let told = place.and_then(|place| self.told_apart.get_mut(usize::from(place)));
        told.map_or(&mut self.others, |source| &mut source.ports)
            .insert(port);
    }

    /// Those that are told apart.
    pub fn iter(&self) -> impl Iterator<Item = &SourceUse> {
        self.told_apart.iter()
    }

    /// The ports that any of them takes.
    #[must_use]
    pub fn ports(&self) -> PortSet {
        self.iter()
            .fold(self.others.clone(), |all, source| all.union(&source.ports))
    }
}
