//! Looks up the name of a destination.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::net::if_::if_nametoindex;

use crate::model::{Destination, HostName, Toward};
use crate::refusal::Refusal;
use crate::words::time;

/// How long the resolver may take: one that answers takes milliseconds, and glibc gives a silent
/// name server 5 s before it tries the next (`RES_TIMEOUT` in resolv.h).
const DEADLINE: Duration = Duration::from_secs(5);

/// Finds the addresses of `asked`, once.
///
/// # Errors
/// When its name has no address, the resolver does not answer in time, or there is no such
/// interface.
pub fn resolve(asked: &Destination) -> Result<Toward> {
    let lookup = |name: &str| (name, 0).to_socket_addrs().map(Iterator::collect);
    resolve_by(asked, DEADLINE, lookup)
}

fn resolve_by(
    asked: &Destination,
    deadline: Duration,
    lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Toward> {
    let port = asked.port.unwrap_or(0);
    let addresses = match &asked.host {
        None => Vec::new(),
        Some(HostName::Address(address)) => vec![SocketAddr::new(*address, port)],
        Some(HostName::Scoped(address, interface)) => {
            let index = if_nametoindex(interface.as_str()).map_err(|_| {
                Refusal::new(
                    format!("there is no interface {interface:?} here, and {address} is on one"),
                    "`ip -6 addr` lists them",
                )
            })?;
            vec![SocketAddrV6::new(*address, port, 0, index).into()]
        }
        Some(HostName::Name(name)) => {
            let mut addresses = Vec::new();
            for mut address in look_up(name, deadline, lookup)? {
                address.set_port(port);
                if address.ip() != address.ip().to_canonical() {
                    address.set_ip(address.ip().to_canonical());
                }
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses
        }
    };
    Ok(Toward {
        asked: asked.clone(),
        addresses,
    })
}

/// Looks `name` up on a thread of its own, which is left behind where it is late.
fn look_up(
    name: &str,
    deadline: Duration,
    lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>> {
    let (tell, told) = channel();
    let owned = name.to_owned();
    thread::Builder::new().spawn(move || {
        // Where nobody waits any more there is nobody to tell.
        let _ = tell.send(lookup(&owned));
    })?;
    let hint = "name its address instead, or look into /etc/resolv.conf and /etc/hosts; the flows \
                to a port are found without a name: :3306";
    match told.recv_timeout(deadline) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(Refusal::new(format!("the host name {name:?} has no address"), hint).into()),
        Ok(Err(error)) => Err(Refusal::new(
            format!(
                "the host name {name:?} has no address: {error}. A client that uses it fails before \
                 it needs a port"
            ),
            hint,
        )
        .into()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Refusal::new(
            format!(
                "looking up {name:?} took longer than {}: the name server does not answer. A client \
                 that uses the name waits likewise, before it needs a port",
                time(deadline)
            ),
            hint,
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static) -> String {
        let asked = Destination::parse("db.example:3306").unwrap();
        let error = resolve_by(&asked, Duration::from_millis(50), lookup).unwrap_err();
        assert!(error.downcast_ref::<Refusal>().is_some());
        error.to_string()
    }

    #[test]
    fn a_name_has_all_its_addresses_once_and_in_their_order() {
        let asked = Destination::parse("db.example:3306").unwrap();
        let found = resolve_by(&asked, DEADLINE, |_| {
            let answers = [
                "[2001:db8::5]:0",
                "10.0.0.5:0",
                "[::ffff:10.0.0.5]:0",
                "10.0.0.6:0",
            ];
            Ok(answers.map(|text| text.parse().unwrap()).to_vec())
        });
        let addresses = ["[2001:db8::5]:3306", "10.0.0.5:3306", "10.0.0.6:3306"];
        let addresses = addresses.map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(found.unwrap(), Toward { asked, addresses });
    }

    #[test]
    fn an_address_is_not_looked_up() {
        for (typed, addresses) in [("10.0.0.5", &["10.0.0.5:0"][..]), (":80", &[])] {
            let asked = Destination::parse(typed).unwrap();
            let found = resolve_by(&asked, DEADLINE, |_| unreachable!()).unwrap();
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(found, Toward { asked, addresses });
        }
    }

    #[test]
    fn a_resolver_that_hangs_or_knows_nothing_is_told_and_not_waited_for() {
        let hung = refused(|_| {
            thread::sleep(Duration::from_secs(60));
            Ok(Vec::new())
        });
        assert!(hung.contains("took longer than 50 ms"), "{hung}");
        assert!(refused(|_| Err(io::Error::other("no such name"))).contains("no such name"));
        assert!(refused(|_| Ok(Vec::new())).ends_with("has no address"));
        assert!(refused(|_| panic!("the lookup breaks")).contains("took longer"));
    }

    #[test]
    fn an_interface_that_is_not_here_is_named() {
        let asked = Destination::parse("fe80::1%none0").unwrap();
        let error = resolve(&asked).unwrap_err().to_string();
        assert!(error.contains("no interface \"none0\""), "{error}");
    }
}
