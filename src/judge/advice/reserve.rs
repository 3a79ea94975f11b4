//! Which ports to reserve, and in how many bytes.

use std::fmt::Write as _;

use crate::model::{Holders, NodePorts, PortRange, PortSet};
use crate::words::{count, counted};

/// The longest list that a setting can have: the kernel takes a page less a byte at a time
/// (`proc_do_large_bitmap` in kernel/sysctl.c), and `sysctl -p` does not go on with the rest nor
/// complain (procps 4.0.2: 682 of 5,000 ports were reserved, exit status 0). The page is 4 KiB at
/// least; the rest is for the newline and to spare.
const ONE_WRITE: usize = 4000;

/// A recommended value of `net.ipv4.ip_local_reserved_ports`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reservation {
    /// All of it, with what is reserved already.
    pub ports: PortSet,
    /// What it is for.
    pub why: String,
}

/// What holds ports here.
pub(super) struct Held<'a> {
    /// Ports that TCP listens on.
    pub listening: &'a PortSet,
    /// The others.
    pub holders: &'a Holders,
}

impl Held<'_> {
    /// What to add to `reserved` before the range becomes `next` from `now`; `None` for nothing.
    ///
    /// Listeners count inside the present range too. Other holders count outside it only: inside,
    /// the kernel may have chosen their port, and a client is no service.
    pub fn reservation(
        &self,
        now: PortRange,
        next: PortRange,
        reserved: &PortSet,
    ) -> Option<Reservation> {
        let missing = |ports: Option<&PortSet>, inside: bool| -> PortSet {
            let wanted = |port: &u16| {
                next.contains(*port) && now.contains(*port) == inside && !reserved.contains(*port)
            };
            ports.map_or_else(PortSet::default, |all| all.ports().filter(wanted).collect())
        };
        let node_ports = self.holders.node_ports.ports();
        let taken_already = missing(Some(self.listening), true);
        let swallowed = [
            ("TCP services", missing(Some(self.listening), false)),
            ("UDP", missing(self.holders.udp.as_ref(), false)),
            (
                "TCP sockets that are bound only",
                missing(self.holders.bound.as_ref(), false),
            ),
            (
                "connections whose program chose the port",
                missing(Some(&self.holders.chosen), false),
            ),
            ("NodePorts of Kubernetes", missing(Some(&node_ports), false)),
        ];
        let none = PortSet::default();
        let mut why = String::new();
        if taken_already != none {
            let _ = write!(
                why,
                "Services listen inside the present range on {}, unreserved: while one restarts, \
                 an outgoing connection can take its port, and it fails to start with errno 98.",
                few(&taken_already)
            );
        }
        let mut grown: Vec<String> = Vec::new();
        let mut wanted = reserved.union(&taken_already);
        for (who, ports) in swallowed.iter().filter(|(_, ports)| *ports != none) {
            grown.push(format!("{} ({who})", few(ports)));
            wanted = wanted.union(ports);
        }
        if !grown.is_empty() {
            let gap = if why.is_empty() { "" } else { " " };
            let _ = write!(
                why,
                "{gap}The wider range takes in ports that are held now: {}. Reserved, they stay \
                 free for who holds them.",
                grown.join(", ")
            );
        }
        if why.is_empty() {
            return None;
        }
        let ports = in_one_write(&wanted);
        let more = ports.ports().count() - wanted.ports().count();
        if more > 0 {
            let _ = write!(
                why,
                " {} between them {} reserved with them, since sysctl -p silently cuts off a list \
                 of more than 4 KB.",
                counted(more as u64, "port"),
                if more == 1 { "is" } else { "are" }
            );
        }
        Some(Reservation { ports, why })
    }

    /// What is to be said of NodePorts where the range becomes `next` from `now`; nothing where it does
    /// not take any in, or all of them are in `reserved`.
    pub fn node_ports(&self, now: PortRange, next: PortRange, reserved: &PortSet) -> String {
        let all = NodePorts::RANGE;
        let taken_in =
            |port: &u16| next.contains(*port) && !now.contains(*port) && !reserved.contains(*port);
        if !all.ports().any(|port| taken_in(&port)) {
            return String::new();
        }
        let PortRange { low, high } = all;
        match &self.holders.node_ports {
            NodePorts::Seen(how) => format!(
                " Kubernetes is in use here ({how}), so its NodePorts ({low}-{high}) are reserved: \
                 another --service-node-port-range is to be reserved instead."
            ),
            NodePorts::Unseen => format!(
                " Kubernetes' NodePorts ({low}-{high}) are not reserved from it: neither kube-proxy nor \
                 its rules are seen here."
            ),
            NodePorts::Unread(why) => format!(
                " Kubernetes' NodePorts ({low}-{high}) are not reserved from it: kube-proxy is not seen \
                 here, and its rules could not be looked for ({why})."
            ),
        }
    }

    /// What can go wrong with a reservation.
    pub fn risk(&self, now: PortRange) -> String {
        let mut risk = String::from(
            "Services that do not run now are not in the list: add their ports. A listener whose port the kernel chose (port 0) is in it too: it \
             needs none.",
        );
        match &self.holders.udp {
            None => risk.push_str(" UDP ports could not be read: add those of services."),
            Some(udp) => {
                let inside = udp.ports().filter(|&port| now.contains(port)).count();
                if inside > 0 {
                    let _ = write!(
                        risk,
                        " {} inside the present range {} left out, since services there cannot be \
                         told from clients: add the services (`ss -uln`).",
                        counted(inside as u64, "UDP port"),
                        if inside == 1 { "is" } else { "are" }
                    );
                }
            }
        }
        if self.holders.bound.is_none() {
            risk.push_str(" Ports bound without listening are not visible here.");
        }
        risk
    }
}

/// The first few ports of a set, in words.
fn few(ports: &PortSet) -> String {
    /// A line of text.
    const SHOWN: usize = 8;
    let text = ports.to_string();
    let items: Vec<_> = text.split(',').collect();
    if items.len() <= SHOWN {
        return items.join(", ");
    }
    let all = ports.ports().count() as u64;
    format!(
        "{} and more, {} in all",
        items[..SHOWN].join(", "),
        count(all)
    )
}

/// `ports`, and the ports of the smallest gaps between them where the list would be too long for
/// one write.
fn in_one_write(ports: &PortSet) -> PortSet {
    let fits = |ports: &PortSet| ports.to_string().len() <= ONE_WRITE;
    if fits(ports) {
        return ports.clone();
    }
    let mut gaps = Vec::new();
    let mut last: Option<u16> = None;
    for port in ports.ports() {
        if let Some(last) = last.replace(port).filter(|last| last + 1 < port) {
            gaps.push(last + 1..port);
        }
    }
    gaps.sort_by_key(ExactSizeIterator::len);
    let filled = |number: &usize| {
        let mut filled = ports.clone();
        filled.extend(gaps[..*number].iter().cloned().flatten());
        filled
    };
    // A list never grows when a gap is filled, so the fewest are found by halves.
    let (mut few, mut enough) = (0, gaps.len());
    while few + 1 < enough {
        let middle = usize::midpoint(few, enough);
        if fits(&filled(&middle)) {
            enough = middle;
        } else {
            few = middle;
        }
    }
    filled(&enough)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(low: u16, high: u16) -> PortRange {
        PortRange { low, high }
    }

    fn set(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    #[test]
    fn whoever_holds_a_port_is_spared_and_clients_inside_the_range_are_not() {
        let (listening, now) = (set("22,3306,11400,40000"), range(32768, 60999));
        let holders = Holders {
            bound: Some(set("11300,40002,65000")),
            chosen: set("12000"),
            udp: Some(set("53,11211,51820")),
            ..Holders::default()
        };
        let held = Held {
            listening: &listening,
            holders: &holders,
        };
        let reserved = |next, already| {
            held.reservation(now, next, &set(already))
                .map(|reservation| reservation.ports.to_string())
        };
        assert_eq!(
            reserved(range(10240, 65535), "50000").as_deref(),
            Some("11211,11300,11400,12000,40000,50000,65000")
        );
        assert_eq!(reserved(now, "").as_deref(), Some("40000"));
        assert_eq!(reserved(now, "40000"), None);
        let risk = held.risk(now);
        assert!(
            risk.contains("1 UDP port inside the present range is left out"),
            "{risk}"
        );
    }

    #[test]
    fn why_names_each_kind_and_unknown_is_said() {
        let (listening, holders) = (set("8080,11400"), Holders::default());
        let held = Held {
            listening: &listening,
            holders: &holders,
        };
        let now = range(8000, 9001);
        let why = held.reservation(now, range(8000, 65535), &set(""));
        assert_eq!(
            why.unwrap().why,
            "Services listen inside the present range on 8080, unreserved: while one restarts, an \
             outgoing connection can take its port, and it fails to start with errno 98. The wider \
             range takes in ports that are held now: 11400 (TCP services). Reserved, they stay \
             free for who holds them."
        );
        let risk = held.risk(now);
        assert!(risk.contains("UDP ports could not be read"), "{risk}");
        assert!(risk.contains("bound without listening"), "{risk}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_list_fits_and_keeps_its_ports(
            ports in proptest::collection::vec(any::<u16>(), 0..3000),
            step in 1_u16..9,
        ) {
            let ports: PortSet = ports.into_iter().map(|port| port / step * step).collect();
            let fitting = in_one_write(&ports);
            prop_assert!(fitting.to_string().len() <= ONE_WRITE);
            prop_assert_eq!(&fitting.union(&ports), &fitting);
            // No gap was filled that could have stayed.
            let gaps = |set: &PortSet| set.to_string().split(',').count();
            if ports.to_string().len() <= ONE_WRITE {
                prop_assert_eq!(fitting, ports);
            } else {
                prop_assert!(fitting.to_string().len() > ONE_WRITE - 24, "{}", gaps(&fitting));
            }
        }
    }
}
