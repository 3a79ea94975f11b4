//! The reports of several network namespaces, the worst first.

use std::cmp::Reverse;

use serde::Serialize;

use super::advice::Advice;
use super::flow::FlowReport;
use super::level::Level;
use super::states::States;
use super::verdict::Verdict;
use crate::model::{Gap, Namespace, Weight};
use crate::words::counted;

/// What the namespaces of one machine are told apart by.
pub trait Judged {
    /// How bad it is.
    fn level(&self) -> Level;
    /// What comes first among those that are as bad: the sockets or ports in use.
    fn size(&self) -> u64;
    /// The sentence that says it.
    fn sentence(&self) -> String;
    /// Notes that it is about this namespace.
    fn settle_in(&mut self, namespace: Namespace);
}

/// The reports of all network namespaces of a machine, in the order of the JSON contract.
#[derive(Debug, Clone, Serialize)]
pub struct Namespaces<R> {
    /// Version of this structure.
    pub schema: u32,
    /// That of the worst.
    pub level: Level,
    /// One sentence about the worst, or about all.
    pub summary: String,
    /// The worst first.
    pub namespaces: Vec<Looked<R>>,
    /// Why some namespaces may be missing.
    pub gaps: Vec<Gap>,
}

/// What came of looking at one.
#[derive(Debug, Clone, Serialize)]
pub struct Looked<R> {
    /// Which.
    pub namespace: Namespace,
    /// What is said of it, as of the only one; `None` where nothing can be.
    pub report: Option<R>,
    /// Why there is no report; `None` where there is one.
    pub why: Option<String>,
    /// Whether it ended while this was looked at, so that it concerns nobody any more.
    pub is_gone: bool,
}

impl<R: Judged> Looked<R> {
    /// How bad it is: unknown where nothing can be said.
    #[must_use]
    pub fn level(&self) -> Level {
        match &self.report {
            Some(report) => report.level(),
            None if self.is_gone => Level::Ok,
            None => Level::Unknown,
        }
    }

    fn rank(&self) -> impl Ord + use<R> {
        let size = self.report.as_ref().map_or(0, Judged::size);
        let inode = self.namespace.netns;
        (Reverse(self.level()), self.is_gone, Reverse(size), inode)
    }
}

impl<R> Namespaces<R> {
    /// What was judged.
    pub fn reports(&self) -> impl Iterator<Item = &R> {
        self.namespaces.iter().filter_map(|it| it.report.as_ref())
    }

    /// Those that are there and could not be judged.
    pub fn unjudged(&self) -> impl Iterator<Item = &Namespace> {
        let unjudged = |it: &&Looked<R>| it.report.is_none() && !it.is_gone;
        self.namespaces
            .iter()
            .filter(unjudged)
            .map(|it| &it.namespace)
    }
}

impl Namespaces<Verdict> {
    /// What was judged, each with those of its flows that are among the worst of all: at most `top`,
    /// all for 0.
    #[must_use]
    pub fn with_worst_flows(&self, top: usize) -> Vec<(&Verdict, Vec<&FlowReport>)> {
        let mut worst: Vec<_> = self
            .reports()
            .enumerate()
            .flat_map(|(of, verdict)| verdict.flows.iter().map(move |flow| (of, flow)))
            .collect();
        worst.sort_by_key(|(_, flow)| Reverse((flow.level, flow.ports_in_use)));
        worst.truncate(if top == 0 { worst.len() } else { top });
        let with_its = |(place, verdict)| {
            let its = worst.iter().filter(|(of, _)| *of == place);
            (verdict, its.map(|(_, flow)| *flow).collect())
        };
        self.reports().enumerate().map(with_its).collect()
    }
}

/// Sets the reports of several namespaces in order; `gaps` say why there may be more.
#[must_use]
pub fn namespaces<R: Judged>(mut looked: Vec<Looked<R>>, gaps: Vec<Gap>) -> Namespaces<R> {
    looked.sort_by_cached_key(Looked::rank);
    let hidden = gaps.iter().any(|gap| gap.weight == Weight::Decisive);
    let unseen = if hidden { Level::Unknown } else { Level::Ok };
    let worst = looked.iter().map(Looked::level).max().unwrap_or(Level::Ok);
    Namespaces {
        schema: 1,
        level: worst.max(unseen),
        summary: summary(&looked, &gaps),
        namespaces: looked,
        gaps,
    }
}

fn summary<R: Judged>(looked: &[Looked<R>], gaps: &[Gap]) -> String {
    let all = counted(looked.len() as u64, "network namespace");
    let bad = looked
        .iter()
        .filter(|it| it.level() > Level::Unknown)
        .count();
    let unknown = looked.iter().filter(|it| it.level() == Level::Unknown);
    let (unknown, gone) = (
        unknown.count(),
        looked.iter().filter(|it| it.is_gone).count(),
    );
    let mut text = match looked.first() {
        Some(worst) if bad > 0 => format!(
            "{bad} of {all} {} {}. {}",
            if bad == 1 {
                "is in trouble:"
            } else {
                "are in trouble, worst of all"
            },
            worst.namespace,
            worst
                .report
                .as_ref()
                .map_or_else(String::new, Judged::sentence)
        ),
        _ if unknown > 0 => format!("{unknown} of {all} could not be judged."),
        _ => format!("None of {all} is in trouble."),
    };
    if bad > 0 && unknown > 0 {
        text = format!("{text} {unknown} could not be judged.");
    }
    if gone > 0 {
        text = format!("{text} {gone} ended meanwhile.");
    }
    for gap in gaps {
        text = format!("{text} There may be more: {}.", gap.why);
    }
    text
}

impl Namespaces<Verdict> {
    /// Those that are not well, at most `top` of them, all for 0, and how many there are besides.
    #[must_use]
    pub fn troubled(&self, top: usize) -> (Vec<(&Looked<Verdict>, &Verdict)>, usize) {
        let troubled = self.namespaces.iter().filter(|it| it.level() > Level::Ok);
        let mut told: Vec<_> = troubled
            .filter_map(|it| Some((it, it.report.as_ref()?)))
            .collect();
        let all = told.len();
        told.truncate(if top == 0 { all } else { top });
        let more = all - told.len();
        (told, more)
    }
}

impl Judged for Verdict {
    fn level(&self) -> Level {
        self.level
    }

    fn size(&self) -> u64 {
        let flows = self.flows.iter().map(|flow| flow.ports_in_use);
        flows.max().unwrap_or(0).into()
    }

    fn sentence(&self) -> String {
        self.summary.clone()
    }

    fn settle_in(&mut self, namespace: Namespace) {
        self.settle_in(namespace);
    }
}

impl Judged for States {
    fn level(&self) -> Level {
        self.total.map_or(Level::Unknown, |_| Level::Ok)
    }

    fn size(&self) -> u64 {
        self.total.unwrap_or(0)
    }

    fn sentence(&self) -> String {
        String::new()
    }

    fn settle_in(&mut self, namespace: Namespace) {
        self.namespace = Some(namespace);
    }
}

impl Judged for Advice {
    fn level(&self) -> Level {
        Level::Ok
    }

    fn size(&self) -> u64 {
        self.ports_in_use.into()
    }

    fn sentence(&self) -> String {
        self.summary.clone()
    }

    fn settle_in(&mut self, namespace: Namespace) {
        self.settle_in(namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of which nothing but its level and its size is known.
    struct Plain(Level, u64);

    impl Judged for Plain {
        fn level(&self) -> Level {
            self.0
        }

        fn size(&self) -> u64 {
            self.1
        }

        fn sentence(&self) -> String {
            "It is full.".into()
        }

        fn settle_in(&mut self, _: Namespace) {}
    }

    fn looked(netns: u64, report: Option<(Level, u64)>, is_gone: bool) -> Looked<Plain> {
        Looked {
            namespace: Namespace {
                netns: Some(netns),
                ..Namespace::default()
            },
            why: report.is_none().then(|| "for some reason".into()),
            report: report.map(|(level, size)| Plain(level, size)),
            is_gone,
        }
    }

    fn hidden(weight: Weight) -> Gap {
        Gap {
            what: "network namespaces".into(),
            why: "some are hidden".into(),
            weight,
        }
    }

    #[test]
    fn the_worst_comes_first_and_gives_its_level_to_all() {
        use Level::{Critical, Ok, Unknown, Warning};
        let fine = |netns, size| looked(netns, Some((Ok, size)), false);
        let gone = |netns| looked(netns, None, true);
        let shut = |netns| looked(netns, None, false);
        let bad = |netns, level| looked(netns, Some((level, 7)), false);
        for (all, gaps, order, level, summary) in [
            (
                vec![],
                vec![],
                &[][..],
                Ok,
                "None of 0 network namespaces is in trouble.",
            ),
            (
                vec![fine(1, 5), fine(2, 9), gone(3)],
                vec![],
                &[2, 1, 3],
                Ok,
                "None of 3 network namespaces is in trouble. 1 ended meanwhile.",
            ),
            (
                vec![fine(1, 5), shut(2)],
                vec![],
                &[2, 1],
                Unknown,
                "1 of 2 network namespaces could not be judged.",
            ),
            (
                vec![fine(1, 5), shut(2), bad(3, Warning), bad(4, Critical)],
                vec![],
                &[4, 3, 2, 1],
                Critical,
                "2 of 4 network namespaces are in trouble, worst of all 4, in which no process is \
                 seen. It is full. 1 could not be judged.",
            ),
            (
                vec![fine(1, 5), bad(2, Warning)],
                vec![hidden(Weight::Decisive)],
                &[2, 1],
                Warning,
                "1 of 2 network namespaces is in trouble: 2, in which no process is seen. It is full. \
                 There may be more: some are hidden.",
            ),
            // Who has not seen all does not know that all is well.
            (
                vec![fine(1, 5)],
                vec![hidden(Weight::Decisive)],
                &[1],
                Unknown,
                "None of 1 network namespace is in trouble. There may be more: some are hidden.",
            ),
        ] {
            let said = namespaces(all, gaps);
            let listed = said.namespaces.iter().filter_map(|it| it.namespace.netns);
            assert_eq!(listed.collect::<Vec<_>>(), order, "{summary}");
            assert_eq!((said.level, said.summary.as_str()), (level, summary));
        }
    }
}
