//! How the kernel looks for a port to translate to, and from how many taken ones on it finds none
//! (net/netfilter/nf_nat_core.c).

use std::fmt;

use serde::Serialize;

use crate::model::{PortRange, PortSet};
use crate::words::count;

/// The kernel looks at no more ports in a row (`NF_NAT_MAX_ATTEMPTS`, Linux 5.0); then it begins
/// elsewhere with half as many, down to [`FEWEST`].
const ATTEMPTS: u32 = 128;
/// It gives up after a round of so many or fewer.
const FEWEST: u32 = 8;

/// With how many ports taken the first connection finds none: it hangs on chance, since the kernel
/// looks at a part of the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HangsFrom {
    /// Earlier only once in 20 times.
    pub earliest: u32,
    /// As likely earlier as later.
    pub likely: u32,
    /// Later only once in 20 times.
    pub latest: u32,
}

impl fmt::Display for HangsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.earliest == self.latest {
            return f.write_str(&count(self.likely));
        }
        let [earliest, latest] = [self.earliest, self.latest].map(count);
        write!(f, "some {} ({earliest} to {latest})", count(self.likely))
    }
}

/// How the kernel looks for a port among `taken` ones: in rounds of so many in a row, each from a
/// place by chance. How often a round finds none follows from how many places have nothing free
/// behind them.
pub struct Search {
    taken: Vec<bool>,
    /// At both ends of a run of taken ports its length.
    run: Vec<u32>,
    number: u32,
    /// For each round its length, and the places that it finds nothing from.
    rounds: Vec<(u32, u32)>,
}

impl Search {
    fn new(size: u32) -> Self {
        let mut rounds = vec![(size.min(ATTEMPTS), 0)];
        while let Some(&(last, _)) = rounds
            .last()
            .filter(|(last, _)| size > ATTEMPTS && *last > FEWEST)
        {
            rounds.push((last / 2, 0));
        }
        Self {
            taken: vec![false; size as usize],
            run: vec![0; size as usize],
            number: 0,
            rounds,
        }
    }

    pub fn with(range: PortRange, taken: &PortSet) -> Self {
        let mut search = Self::new(range.len());
        for port in taken.ports().filter(|&port| range.contains(port)) {
            search.take(u32::from(port - range.low));
        }
        search
    }

    fn size(&self) -> u32 {
        u32::try_from(self.taken.len()).unwrap_or(u32::MAX)
    }

    fn is_taken(&self, place: u32) -> bool {
        self.taken[place as usize]
    }

    /// Takes a port that is free.
    fn take(&mut self, place: u32) {
        let size = self.size();
        let run_at = |place: u32| {
            if self.is_taken(place) {
                self.run[place as usize]
            } else {
                0
            }
        };
        let (left, right) = (
            run_at((place + size - 1) % size),
            run_at((place + 1) % size),
        );
        self.taken[place as usize] = true;
        self.number += 1;
        if self.number == size {
            for (_, full) in &mut self.rounds {
                *full = size;
            }
            return;
        }
        let whole = left + 1 + right;
        let start = (place + size - left) % size;
        self.run[start as usize] = whole;
        self.run[((place + right) % size) as usize] = whole;
        for (length, full) in &mut self.rounds {
            let places = |run: u32| (run + 1).saturating_sub(*length);
            *full += places(whole) - places(left) - places(right);
        }
    }

    /// The share of new connections that find no port.
    pub fn none_found(&self) -> f64 {
        let size = f64::from(self.size());
        let round = |(_, full): &(u32, u32)| f64::from(*full) / size;
        self.rounds.iter().map(round).product()
    }

    /// Takes the port that a new connection finds; whether it does.
    fn connect(&mut self, mut chance: impl FnMut() -> u32) -> bool {
        let size = self.size();
        for round in 0..self.rounds.len() {
            let start = chance() % size;
            let mut places = (0..self.rounds[round].0).map(|step| (start + step) % size);
            if let Some(free) = places.find(|&place| !self.is_taken(place)) {
                self.take(free);
                return true;
            }
        }
        false
    }
}

/// The share of new connections that find no port where closed ones are given up: in the last
/// `HARDER` places of each round, and of those every other one, namely where the sequence numbers of
/// the new connection are ahead of the old one's (`nf_nat_used_tuple_harder` there).
pub fn none_found_beside_closed(range: PortRange, taken: &PortSet, closed: &PortSet) -> f64 {
    /// `NF_NAT_HARDER_THRESH`.
    const HARDER: usize = 32;
    let size = range.len();
    let places = size as usize;
    // Twice round, so that no window wraps.
    let counts = |is_one: &dyn Fn(u16) -> bool| -> Vec<i32> {
        let ports = range.ports().chain(range.ports());
        let sums = ports.scan(0, |sum, port| {
            *sum += i32::from(is_one(port));
            Some(*sum)
        });
        std::iter::once(0).chain(sums).collect()
    };
    let free = counts(&|port| !taken.contains(port));
    let given = counts(&|port| taken.contains(port) && closed.contains(port));
    let round = |&(length, _): &(u32, u32)| -> f64 {
        let length = length as usize;
        let last = length.min(HARDER);
        let fails = |start: usize| {
            let end = start + length;
            if free[end] > free[start] {
                return 0.0;
            }
            0.5_f64.powi(given[end] - given[end - last])
        };
        (0..places).map(fails).sum::<f64>() / f64::from(size)
    };
    Search::new(size).rounds.iter().map(round).product()
}

/// With how many of `size` ports taken the first client hangs: by filling them as the kernel does, a
/// few times over, from the same chances each time.
pub fn hangs_from(size: u32) -> HangsFrom {
    /// Ports filled in all; and times, at most.
    const WORK: u32 = 65_536;
    const RUNS: u32 = 32;
    let runs = (WORK / size).clamp(1, RUNS);
    let mut seed = 0_u64;
    // SplitMix64 (Steele, Lea and Flood, 2014).
    let mut chance = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default()
    };
    // The share of runs in which nobody has hung with so many taken, the next one included.
    let mut calm = vec![0.0; size as usize + 1];
    for _ in 0..runs {
        let mut search = Search::new(size);
        let mut still = 1.0;
        for calm in &mut calm {
            still *= 1.0 - search.none_found();
            *calm += still / f64::from(runs);
            if still < 0.001 {
                break;
            }
            // Who hangs tries again.
            (0..1000).any(|_| search.connect(&mut chance));
        }
    }
    let at = |share: f64| {
        let place = calm.iter().position(|calm| *calm <= 1.0 - share);
        u32::try_from(place.unwrap_or(size as usize)).unwrap_or(size)
    };
    HangsFrom {
        earliest: at(0.05),
        likely: at(0.5),
        latest: at(0.95),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a plain walk over every place says.
    fn counted(search: &Search) -> f64 {
        let size = search.size();
        let full = |length: u32| {
            let is_full =
                |start: &u32| (0..length).all(|step| search.is_taken((start + step) % size));
            f64::from(u32::try_from((0..size).filter(is_full).count()).unwrap()) / f64::from(size)
        };
        search
            .rounds
            .iter()
            .map(|&(length, _)| full(length))
            .product()
    }

    proptest! {
        #[test]
        fn runs_tell_what_a_walk_over_all_places_tells(
            size in 1_u32..400,
            places in proptest::collection::vec(any::<u32>(), 0..500),
            full: bool,
        ) {
            let mut search = Search::new(size);
            let places = places.into_iter().map(|place| place % size);
            for place in places.chain((0..size).filter(|_| full)) {
                if !search.is_taken(place) {
                    search.take(place);
                }
            }
            prop_assert!((search.none_found() - counted(&search)).abs() < 1e-9);
        }
    }

    #[test]
    fn closed_ones_are_found_by_the_last_attempts_only() {
        let range = PortRange {
            low: 50000,
            high: 50999,
        };
        let all: PortSet = range.ports().collect();
        let share = |closed: &PortSet| none_found_beside_closed(range, &all, closed);
        assert!((share(&PortSet::default()) - 1.0).abs() < 1e-9);
        assert!(share(&all) < 1e-30);
        let few = |number: u16| (0..number).map(|at| 50000 + at * (1000 / number)).collect();
        let (forty, fifteen) = (share(&few(40)), share(&few(15)));
        assert!(
            0.0 < forty && forty < fifteen && fifteen < 1.0,
            "{forty} {fifteen}"
        );
        // Without a closed one it is what the runs tell.
        let some: PortSet = range.ports().filter(|port| port % 40 > 1).collect();
        let plain = Search::with(range, &some).none_found();
        assert!((none_found_beside_closed(range, &some, &PortSet::default()) - plain).abs() < 1e-9);
    }

    /// Against as many runs of a plain simulation, in another language, of what the kernel's text
    /// says: 5 %, half and 95 % of 200 runs (50 of the last).
    #[test]
    fn clients_hang_before_the_last_port_is_taken_where_there_are_more_than_128() {
        for size in [1, 10, 127, 128] {
            let from = hangs_from(size);
            assert_eq!(
                (from.earliest, from.likely, from.latest),
                (size, size, size)
            );
        }
        for (size, simulated) in [
            (500, [461, 484, 497]),
            (1000, [903, 950, 981]),
            (2000, [1798, 1870, 1933]),
            (5000, [4448, 4597, 4699]),
        ] {
            let from = hangs_from(size);
            for (said, simulated) in [from.earliest, from.likely, from.latest]
                .iter()
                .zip(simulated)
            {
                let off = said.abs_diff(simulated);
                assert!(off * 100 <= size * 2, "{size}: {from:?} {simulated}");
            }
        }
    }
}
