//! What of a look is worth a line.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::CALM;
use crate::judge::level::Level;
use crate::judge::verdict::Verdict;
use crate::model::Flow;
use crate::words::lasting;

/// Something that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// Its finding's code.
    pub code: &'static str,
    /// The flow that has it; `None` where the machine has, or where the flow is not listed.
    pub flow: Option<Flow>,
}

/// What counts of a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// How bad it is.
    pub level: Level,
    /// In a sentence.
    pub summary: String,
    /// What is wrong, each at its worst.
    troubles: BTreeMap<Trouble, Level>,
    /// The flow that the sentence is about; `None` where it is about none, or nothing is wrong.
    worst: Option<Flow>,
}

impl Sight {
    /// Of a look that could not be had.
    #[must_use]
    pub fn unknown(why: String) -> Self {
        Self {
            level: Level::Unknown,
            summary: why,
            troubles: BTreeMap::from([(
                Trouble {
                    code: "COULD_NOT_READ",
                    flow: None,
                },
                Level::Unknown,
            )]),
            worst: None,
        }
    }
}

impl From<&Verdict> for Sight {
    fn from(verdict: &Verdict) -> Self {
        let wrong = || verdict.findings.iter().filter(|it| it.level > Level::Ok);
        let flow = |place: usize| Some(verdict.flows.get(place)?.flow());
        let mut troubles = BTreeMap::new();
        for reported in wrong() {
            let trouble = Trouble {
                code: reported.finding.code(),
                flow: reported.flow.and_then(flow),
            };
            let level = troubles.entry(trouble).or_insert(reported.level);
            *level = reported.level.max(*level);
        }
        let worst = wrong().next().and_then(|reported| reported.flow);
        Self {
            level: verdict.level,
            summary: verdict.summary.clone(),
            troubles,
            worst: worst.and_then(flow),
        }
    }
}

/// A change that is worth a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// How bad it is now.
    pub level: Level,
    /// In a sentence.
    pub summary: String,
    /// What was not wrong before, or less so.
    pub new: Vec<Trouble>,
    /// What is over, and after how long.
    pub over: Vec<(Trouble, Duration)>,
    /// The flows that the sentence is about, and that of the line before: they are not named again.
    named: [Option<Flow>; 2],
}

impl Change {
    /// `PORTS_LOW`, and toward whom where the sentence does not say it.
    fn words(&self, trouble: &Trouble) -> String {
        let other = trouble
            .flow
            .filter(|flow| !self.named.contains(&Some(*flow)));
        other.map_or_else(
            || trouble.code.to_owned(),
            |flow| format!("{} toward {}", trouble.code, flow.server()),
        )
    }
}

/// The first of many.
fn listed(words: &[String]) -> String {
    const MOST: usize = 6;
    let first = words.iter().take(MOST).cloned().collect::<Vec<_>>();
    match words.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// `In 33 s no port … New: RATE_ABOVE_LIMIT. Over: CONNECT_SLOW (after 34 s).`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        if !self.new.is_empty() {
            let new: Vec<_> = self.new.iter().map(|trouble| self.words(trouble)).collect();
            write!(f, " New: {}.", listed(&new))?;
        }
        let over = |(trouble, time): &(Trouble, Duration)| {
            let after = lasting(time.as_secs());
            format!("{} (after {after})", self.words(trouble))
        };
        if !self.over.is_empty() {
            let over: Vec<_> = self.over.iter().map(over).collect();
            write!(f, " Over: {}.", listed(&over))?;
        }
        Ok(())
    }
}

/// A trouble that was told.
#[derive(Debug, Clone, Copy)]
struct Told {
    level: Level,
    since: Duration,
    /// When it was last as bad.
    last: Duration,
}

/// What was told so far. What gets worse is news at once; what gets better, and another flow that is
/// the worst, once that has lasted for [`CALM`].
#[derive(Debug, Clone, Default)]
pub struct News {
    begun: bool,
    told: BTreeMap<Trouble, Told>,
    worst: Option<Flow>,
    /// Another flow that is the worst, and since when.
    rival: Option<(Option<Flow>, Duration)>,
}

impl News {
    /// What is new in a look, `at` the time from the first one on; the first one all is.
    pub fn of(&mut self, at: Duration, sight: &Sight) -> Option<Change> {
        let first = !std::mem::replace(&mut self.begun, true);
        let new = self.worse(at, &sight.troubles);
        let (over, eased) = self.over(at, &sight.troubles);
        let is_other = self.is_another(at, sight.worst);
        if !first && new.is_empty() && over.is_empty() && !eased && !is_other {
            return None;
        }
        let named = [self.worst, sight.worst];
        self.worst = sight.worst;
        self.rival = None;
        Some(Change {
            level: sight.level,
            summary: sight.summary.clone(),
            new: if first { Vec::new() } else { new },
            over,
            named,
        })
    }

    /// What is wrong and was not, or not as much.
    fn worse(&mut self, at: Duration, troubles: &BTreeMap<Trouble, Level>) -> Vec<Trouble> {
        let mut new = Vec::new();
        for (&trouble, &level) in troubles {
            let told = self.told.entry(trouble).or_insert_with(|| {
                new.push(trouble);
                Told {
                    level,
                    since: at,
                    last: at,
                }
            });
            if level > told.level {
                new.push(trouble);
                told.level = level;
            }
            if level == told.level {
                told.last = at;
            }
        }
        new
    }

    /// What has been over for a while, and whether something has been milder for as long.
    fn over(
        &mut self,
        at: Duration,
        troubles: &BTreeMap<Trouble, Level>,
    ) -> (Vec<(Trouble, Duration)>, bool) {
        let (mut over, mut eased) = (Vec::new(), false);
        let unknown = self.told.iter().filter(|(trouble, _)| {
            let level = troubles.get(*trouble);
            level == Some(&Level::Unknown)
        });
        // What is unknown since then may be what it hides.
        let blind_since = unknown.map(|(_, told)| told.since).max();
        self.told.retain(|trouble, told| {
            let is_hidden = blind_since.is_some_and(|since| since > told.last);
            if is_hidden || at.saturating_sub(told.last) < CALM {
                return true;
            }
            if let Some(&level) = troubles.get(trouble) {
                (told.level, told.last) = (level, at);
                eased = true;
                return true;
            }
            over.push((*trouble, told.last.saturating_sub(told.since)));
            false
        });
        (over, eased)
    }

    /// Whether another flow has been the worst for a while.
    fn is_another(&mut self, at: Duration, worst: Option<Flow>) -> bool {
        if worst == self.worst || worst.is_none() {
            self.rival = None;
            return false;
        }
        let since = match self.rival {
            Some((flow, since)) if flow == worst => since,
            _ => at,
        };
        self.rival = Some((worst, since));
        at.saturating_sub(since) >= CALM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::{look, plain, socket};
    use crate::judge::level::Thresholds;
    use crate::judge::verdict::verdict;
    use crate::model::TcpState;

    fn sight(level: Level, troubles: &[(&'static str, Level)], port: u16) -> Sight {
        let flow = Flow::of(&socket(TcpState::Established, 40000, ([10, 0, 0, 2], port)));
        let of_it = |&(code, level): &(&'static str, Level)| {
            let flow = (level != Level::Unknown).then_some(flow);
            (Trouble { code, flow }, level)
        };
        Sight {
            level,
            summary: format!("{}.", level.word()),
            troubles: troubles.iter().map(of_it).collect(),
            worst: (level > Level::Ok).then_some(flow),
        }
    }

    use Level::{Critical, Ok as Fine, Warning};

    /// The lines that these looks bring, one every two seconds.
    fn lines(looks: &[Sight]) -> Vec<(u64, String)> {
        let mut news = News::default();
        let times = (0_u64..).step_by(2);
        times
            .zip(looks)
            .filter_map(|(at, sight)| {
                let change = news.of(Duration::from_secs(at), sight)?;
                Some((at, change.to_string()))
            })
            .collect()
    }

    fn told(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
        let told = |&(at, line): &(u64, &str)| (at, line.to_owned());
        lines.iter().map(told).collect()
    }

    #[test]
    fn the_first_look_is_a_line_and_the_same_again_is_none() {
        let quiet = vec![sight(Fine, &[], 80); 100];
        assert_eq!(lines(&quiet), told(&[(0, "OK.")]));
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_what_gets_better_when_it_has_lasted() {
        let low = sight(Warning, &[("PORTS_LOW", Warning)], 80);
        let worse = sight(
            Critical,
            &[("PORTS_LOW", Critical), ("CONNECT_SLOW", Warning)],
            80,
        );
        let looks = [
            vec![sight(Fine, &[], 80)],
            vec![low.clone(); 2],
            vec![worse; 3],
            vec![low; 10],
            vec![sight(Fine, &[], 80); 10],
        ];
        assert_eq!(
            lines(&looks.concat()),
            told(&[
                (0, "OK."),
                (2, "WARNING. New: PORTS_LOW."),
                (6, "CRITICAL. New: CONNECT_SLOW, PORTS_LOW."),
                (20, "WARNING. Over: CONNECT_SLOW (after 4 s)."),
                (40, "OK. Over: PORTS_LOW (after 28 s)."),
            ])
        );
    }

    #[test]
    fn a_number_that_goes_to_and_fro_over_a_threshold_is_one_line() {
        let low = sight(Warning, &[("PORTS_LOW", Warning)], 80);
        let critical = sight(Critical, &[("PORTS_LOW", Critical)], 80);
        for to_and_fro in [[sight(Fine, &[], 80), low.clone()], [low, critical]] {
            let lines = lines(&vec![to_and_fro; 200].concat());
            assert_eq!(lines.len(), 2, "{lines:?}");
        }
    }

    #[test]
    fn each_flow_that_gets_into_trouble_is_a_line_and_two_in_turn_are_one_each() {
        let [one, other] = [80, 81].map(|port| sight(Warning, &[("PORTS_LOW", Warning)], port));
        let in_turn = vec![[one.clone(), other.clone()]; 100].concat();
        assert_eq!(
            lines(&in_turn),
            told(&[(0, "WARNING."), (2, "WARNING. New: PORTS_LOW.")])
        );
        // Both are in trouble, and the sentence stays with the first.
        let mut both = one.clone();
        both.troubles.extend(other.troubles.clone());
        let looks = [vec![one.clone(); 3], vec![both; 3], vec![one; 10]].concat();
        assert_eq!(
            lines(&looks),
            told(&[
                (0, "WARNING."),
                (6, "WARNING. New: PORTS_LOW toward 10.0.0.2:81."),
                (
                    20,
                    "WARNING. Over: PORTS_LOW toward 10.0.0.2:81 (after 4 s)."
                ),
            ])
        );
    }

    #[test]
    fn a_look_that_fails_is_unknown_and_not_told_twice() {
        let failed = Sight::unknown("no table".into());
        let looks = [vec![sight(Fine, &[], 80)], vec![failed; 10]].concat();
        let unknown = "no table New: COULD_NOT_READ.";
        assert_eq!(lines(&looks), told(&[(0, "OK."), (2, unknown)]));
    }

    #[test]
    fn what_nobody_could_look_at_is_not_over() {
        let exhausted = sight(Critical, &[("PORTS_EXHAUSTED", Critical)], 80);
        let failed = Sight::unknown("no table".into());
        let looks = [
            vec![exhausted; 3],
            vec![failed; 20],
            vec![sight(Fine, &[], 80); 10],
        ];
        assert_eq!(
            lines(&looks.concat()),
            told(&[
                (0, "CRITICAL."),
                (6, "no table New: COULD_NOT_READ."),
                (
                    46,
                    "OK. Over: PORTS_EXHAUSTED toward 10.0.0.2:80 (after 4 s)."
                ),
                (54, "OK. Over: COULD_NOT_READ (after 38 s)."),
            ])
        );
    }

    #[test]
    fn what_is_always_unknown_hides_nothing() {
        let low = [("PORTS_LOW", Warning), ("COULD_NOT_READ", Level::Unknown)];
        let looks = [
            vec![sight(Warning, &low, 80); 3],
            vec![sight(Level::Unknown, &low[1..], 80); 20],
        ];
        assert_eq!(
            lines(&looks.concat()),
            told(&[
                (0, "WARNING."),
                (14, "UNKNOWN. Over: PORTS_LOW (after 4 s).")
            ])
        );
    }

    #[test]
    fn a_verdict_is_seen_by_what_is_wrong_in_it() {
        let sockets =
            (40000..40600).map(|port| socket(TcpState::Established, port, ([10, 0, 0, 2], 3306)));
        let verdict = verdict(&look(plain(), [], sockets), Thresholds::default(), 10);
        let sight = Sight::from(&verdict);
        let codes: Vec<_> = sight.troubles.keys().map(|trouble| trouble.code).collect();
        assert_eq!(codes, ["HELD_OPEN", "PORTS_LOW"]);
        assert_eq!(sight.worst, Some(verdict.flows[0].flow()));
        assert_eq!((sight.level, sight.summary), (Warning, verdict.summary));
    }
}
