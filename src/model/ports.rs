use std::{fmt, iter};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An ephemeral port range, both ends included (`net.ipv4.ip_local_port_range`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port.
    pub low: u16,
    /// Highest port; never below `low`.
    pub high: u16,
}

impl PortRange {
    /// Number of ports in the range.
    #[must_use]
    pub fn len(self) -> u32 {
        u32::from(self.high - self.low) + 1
    }

    /// Never: a range has at least one port.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
    }

    /// Whether connect() tries `port` in its first, cheap pass: the ports of the low end's parity
    /// (`__inet_hash_connect` in net/ipv4/inet_hashtables.c).
    #[must_use]
    pub fn is_fast(self, port: u16) -> bool {
        self.contains(port) && (port ^ self.low) & 1 == 0
    }

    /// All ports of the range, ascending.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.low..=self.high
    }

    /// Parses the sysctl's text: two numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        match (ends.next(), ends.next(), ends.next()) {
            (Some(Ok(low)), Some(Ok(high)), None) if low <= high => Some(Self { low, high }),
            _ => None,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.low, self.high)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.low, self.high].serialize(serializer)
    }
}

/// The end of a range that is not to be counted on: where both ends are of one parity, a search for
/// a port reaches only one of them. `__inet_hash_connect` (net/ipv4/inet_hashtables.c) makes the
/// number of ports even, and wraps round by that number: a search that begins at the low end leaves
/// the high one out, any other the low one. It begins at a place that changes with each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LooseEnd {
    /// The low one: the search seldom begins there.
    Low,
    /// The high one: there is no other place to begin, or the low end cannot be had anyway.
    High,
    /// One of the two: in a short range the search often begins at the low end.
    Either,
}

impl LooseEnd {
    /// In a range as short as this the search begins at the low end once in 16 times or more.
    const SHORT: u32 = 33;

    /// That of `range`, where `can_be_had` tells which ports are neither reserved nor held; `None`
    /// where every port can be counted on.
    #[must_use]
    pub fn of(range: PortRange, can_be_had: impl Fn(u16) -> bool) -> Option<Self> {
        let (low, high) = (can_be_had(range.low), can_be_had(range.high));
        match range.len() {
            1 => None,
            even if even % 2 == 0 => None,
            3 => high.then_some(Self::High),
            long if long > Self::SHORT => low.then_some(Self::Low),
            _ => match (low, high) {
                (true, true) => Some(Self::Either),
                (true, false) => Some(Self::Low),
                (false, true) => Some(Self::High),
                (false, false) => None,
            },
        }
    }

    /// Whether one of `range` is given now and then all the same: that connect() got it once says
    /// nothing about the next time.
    #[must_use]
    pub fn is_a_matter_of_luck(range: PortRange) -> bool {
        range.len() <= Self::SHORT
    }
}

/// A set of ports: one bit each, 8 KiB whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 1024]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl PortSet {
    /// Adds `port`.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] |= 1 << (port & 63);
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] &= !(1 << (port & 63));
    }

    /// Whether `port` is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] & (1 << (port & 63)) != 0
    }

    /// How many ports are in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// How many of them are even, or odd, as `port` is.
    #[must_use]
    pub fn of_parity(&self, port: u16) -> u32 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let alike = EVEN << (port & 1);
        self.0.iter().map(|word| (word & alike).count_ones()).sum()
    }

    /// Whether no port is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Ports in this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (word, less) in rest.0.iter_mut().zip(other.0.iter()) {
            *word &= !less;
        }
        rest
    }

    /// Ports in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// The ports in the set, ascending.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let words = (0_u16..1024).zip(self.0.iter());
        words.flat_map(|(place, &word)| {
            let mut rest = word;
            iter::from_fn(move || {
                let bit = u16::try_from(rest.trailing_zeros()).ok()?;
                let port = (rest != 0).then_some(place << 6 | bit)?;
                rest &= rest - 1;
                Some(port)
            })
        })
    }

    /// Ports in this set or the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (word, more) in both.0.iter_mut().zip(other.0.iter()) {
            *word |= more;
        }
        both
    }

    /// Parses the kernel's bitmap list, `8080,9000-9100`; empty text is the empty set
    /// (`proc_do_large_bitmap` in kernel/sysctl.c).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for item in text.trim().split(',').filter(|item| !item.is_empty()) {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            if low > high {
                return None;
            }
            for port in low..=high {
                set.insert(port);
            }
        }
        Some(set)
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::default();
        set.extend(ports);
        set
    }
}

impl Extend<u16> for PortSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, ports: I) {
        for port in ports {
            self.insert(port);
        }
    }
}

/// The kernel's own notation: `8080,9000-9100`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports = self.ports().peekable();
        let mut separator = "";
        while let Some(low) = ports.next() {
            let mut high = low;
            while let Some(next) = ports.next_if(|&next| next == high + 1) {
                high = next;
            }
            write!(f, "{separator}{low}")?;
            if high > low {
                write!(f, "-{high}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({self})")
    }
}

impl<'de> Deserialize<'de> for PortSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("no list of ports"))
    }
}

impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_parsed_as_the_kernel_prints_it() {
        assert_eq!(
            PortRange::parse("32768\t60999\n"),
            Some(PortRange {
                low: 32768,
                high: 60999
            })
        );
        for wrong in ["", "1", "2 1", "1 2 3", "1 70000", "a b"] {
            assert_eq!(PortRange::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_widest_and_the_narrowest_range_count_their_ports() {
        let all = PortRange {
            low: 0,
            high: 65535,
        };
        assert_eq!((all.len(), all.ports().count()), (65536, 65536));
        let one = PortRange { low: 7, high: 7 };
        assert_eq!(
            (one.len(), one.is_fast(7), one.is_fast(9)),
            (1, true, false)
        );
    }

    #[test]
    fn reserved_ports_are_parsed_as_the_kernel_prints_them() {
        let set = PortSet::parse("8080,9000-9002,9003\n").unwrap();
        assert_eq!(
            set.ports().collect::<Vec<_>>(),
            [8080, 9000, 9001, 9002, 9003]
        );
        assert_eq!(set.to_string(), "8080,9000-9003");
        assert_eq!(PortSet::parse("\n"), Some(PortSet::default()));
        for wrong in ["x", "5-4", "1-", "70000"] {
            assert_eq!(PortSet::parse(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_set_survives_its_own_notation(ports in proptest::collection::vec(any::<u16>(), 0..200)) {
            let set: PortSet = ports.into_iter().collect();
            prop_assert_eq!(PortSet::parse(&set.to_string()), Some(set));
        }
    }
}
