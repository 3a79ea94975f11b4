//! How bad something is, and from where on.

use crate::words::percent;

/// How bad it is, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something decisive could not be read.
    Unknown,
    /// Look at it today.
    Warning,
    /// Connections fail, or are about to.
    Critical,
}

impl Level {
    /// The word that monitoring plugins print.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// From which share of the usable ports on a flow is low, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// WARNING from here.
    pub warn: f64,
    /// CRITICAL from here.
    pub crit: f64,
}

/// Those of `verdict` where nobody names others.
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warn: 50.0,
            crit: 80.0,
        }
    }
}

impl Thresholds {
    /// The least number of free ports of `usable` ones with which a flow is not WARNING yet, and not
    /// CRITICAL.
    #[must_use]
    pub fn least_free(self, usable: u32) -> [u32; 2] {
        [self.warn, self.crit].map(|share| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // Of 65,536 at most.
            let nearly = (f64::from(usable) * share / 100.0) as u32;
            // One port in use is none too many, whatever the share.
            let low = (nearly.max(1)..=usable).find(|&taken| percent(taken, usable) >= share);
            low.map_or(0, |taken| usable + 1 - taken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_free_ports_are_one_more_than_those_of_the_share() {
        for (usable, warn, crit, least) in [
            (1000, 50.0, 80.0, [501, 201]),
            (28_231, 50.0, 80.0, [14_116, 5647]),
            (3, 50.0, 100.0, [2, 1]),
            (1000, 0.0, 0.1, [1000, 1000]),
            (0, 50.0, 80.0, [0, 0]),
        ] {
            assert_eq!(
                Thresholds { warn, crit }.least_free(usable),
                least,
                "{usable}"
            );
        }
        for usable in 1..300 {
            for share in 0..=100 {
                let share = f64::from(share);
                let both = Thresholds {
                    warn: share,
                    crit: share,
                };
                let [least, _] = both.least_free(usable);
                for taken in 1..=usable {
                    let is_low = percent(taken, usable) >= share;
                    assert_eq!(
                        usable - taken < least,
                        is_low,
                        "{taken} of {usable}, {share} %"
                    );
                }
            }
        }
    }
}
