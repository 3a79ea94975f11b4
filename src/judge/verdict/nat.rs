//! What a verdict says of the connections that this machine translates for others.

use std::cmp::Reverse;

use super::Verdict;
use crate::judge::finding::{Finding, Reported};
use crate::judge::level::{Level, Thresholds};
use crate::judge::nat::{NatFlowReport, NatReport};
use crate::model::{Counters, Gap, NatTable, Weight};
use crate::words::{count, counted};

impl Verdict {
    /// Says what connection tracking told and counted, or why it could not be read; lists at most
    /// `top` flows, all for 0.
    pub fn speak_of_nat(
        &mut self,
        table: Result<Option<NatTable>, Gap>,
        counters: &Counters,
        thresholds: Thresholds,
        top: usize,
    ) {
        let found = |level, finding| Reported {
            level,
            namespace: None,
            flow: None,
            finding,
        };
        let mut findings = Vec::new();
        let mut quiet = None;
        match table {
            Ok(table) => {
                let mut gaps = table.as_ref().map(gaps).unwrap_or_default();
                let mut report = table.map_or_else(NatReport::none, |table| {
                    let kernel = self.host.kernel.as_deref();
                    NatReport::new(&table, kernel, thresholds, self.is_tracking_failing())
                });
                gaps.extend(doubt(&report));
                self.gaps.extend(gaps.iter().cloned());
                let decisive = gaps
                    .into_iter()
                    .filter(|gap| gap.weight == Weight::Decisive);
                findings
                    .extend(decisive.map(|gap| found(Level::Unknown, Finding::CouldNotRead(gap))));
                let short = report
                    .flows
                    .iter()
                    .filter(|flow| flow.level > Level::Unknown);
                findings.extend(
                    short.map(|flow| found(flow.level, Finding::NatPorts(Box::new(flow.clone())))),
                );
                report.insert_failed = counters.insert_failed;
                report.dropped = counters.dropped;
                quiet = Some(report.quiet());
                report
                    .flows
                    .truncate(if top == 0 { usize::MAX } else { top });
                self.nat = Some(report);
            }
            Err(gap) => {
                self.gaps.push(gap.clone());
                findings.push(found(Level::Unknown, Finding::CouldNotRead(gap)));
            }
        }
        findings.sort_by_key(|reported| Reverse(reported.level));
        let level = findings.first().map_or(Level::Ok, |worst| worst.level);
        match findings.first() {
            Some(worst) if level > self.level => {
                let more = findings
                    .iter()
                    .filter(|it| it.level > Level::Unknown)
                    .count();
                self.summary = match more.saturating_sub(1) {
                    0 => worst.finding.to_string(),
                    1 => format!("{} One more translated flow is in trouble.", worst.finding),
                    more => format!(
                        "{} {} more translated flows are in trouble.",
                        worst.finding,
                        count(more as u64)
                    ),
                };
            }
            Some(worst) if level == self.level => {
                self.summary = format!("{} {}", self.summary, worst.finding);
            }
            _ if self.level == Level::Ok => {
                if let Some(quiet) = quiet {
                    self.summary = format!("{} {quiet}", self.summary);
                }
            }
            _ => {}
        }
        self.level = self.level.max(level);
        self.findings.extend(findings);
        self.findings
            .sort_by_key(|reported| Reverse(reported.level));
    }

    /// Whether connection tracking failed while it was looked at.
    fn is_tracking_failing(&self) -> bool {
        self.findings
            .iter()
            .any(|it| matches!(it.finding, Finding::NatFailed { grown: 1.., .. }))
    }
}

/// Which ports the flows can have that may be in trouble, or not.
fn doubt(report: &NatReport) -> Option<Gap> {
    let mut doubts = report.flows.iter().filter_map(NatFlowReport::doubt);
    let first = doubts.next()?;
    let more = match doubts.count() {
        0 => String::new(),
        1 => " One more flow is like it.".into(),
        more => format!(" {} more flows are like it.", count(more as u64)),
    };
    Some(Gap {
        what: "which ports translated flows can have".into(),
        why: format!("{first}{more}"),
        weight: Weight::Decisive,
    })
}

/// What is not known of the translated connections.
fn gaps(table: &NatTable) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if table.malformed > 0 {
        gaps.push(Gap {
            what: "connection tracking".into(),
            why: format!(
                "{} not understood and left out",
                counted(table.malformed, "row")
            ),
            weight: Weight::Decisive,
        });
    }
    if let Err(why) = &table.rules {
        gaps.push(Gap {
            what: "the rules that translate sources".into(),
            why: format!("{why}; their ports are told by those that they gave"),
            weight: if table.flows.is_empty() {
                Weight::None
            } else {
                Weight::Minor
            },
        });
    }
    gaps
}
