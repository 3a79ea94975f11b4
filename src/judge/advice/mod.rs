//! What to change on this machine, what to leave alone, and what the application should do.

use std::fmt;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::experiment::Proof;
use super::goal::{Goal, Needs, needs};
use crate::model::{Gap, Holders, Snapshot, Tunables};
use crate::words::{self, count, counted};

mod bearing;
mod plan;
mod remarks;
mod reserve;

pub use bearing::{Bearing, Limit};
use plan::Facts;
pub use remarks::Remark;

/// Everything `advise` says, in the order of the JSON contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Version of this structure.
    pub schema: u32,
    /// One sentence or a few: what the machine bears now and after the changes.
    pub summary: String,
    /// What to change, in the order in which to apply it. In the JSON a list of changes, each with
    /// the number of its step and the rates of the step.
    #[serde(rename = "changes", serialize_with = "changes_of")]
    pub steps: Vec<Step>,
    /// What it takes to carry what is wanted; `None` where nothing was named.
    pub goal: Option<Needs>,
    /// What the changes did in a sandbox; `None` where that was not asked for.
    pub proof: Option<Proof>,
    /// What not to change.
    pub not_recommended: Vec<Remark>,
    /// What the application should do.
    pub application: Vec<Remark>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Advice {
    /// All changes, in their order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.steps.iter().flat_map(|step| &step.changes)
    }
}

/// Changes that belong together: part of them can make things worse than none, unless those before
/// in the step are made first. What a destination bears is that of the whole step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// In the order in which to apply them: no line makes anything worse.
    pub changes: Vec<Change>,
    /// Whether it mends something else than the rate.
    pub mends: bool,
    /// What one destination bears before it; `None` when unknown.
    pub before: Option<Bearing>,
    /// And after it.
    pub after: Option<Bearing>,
    /// The settings of now with this step alone.
    pub alone: Tunables,
    /// The settings with this step and those before it.
    pub together: Tunables,
}

impl Step {
    /// What it is for, in a sentence.
    #[must_use]
    pub fn bears(&self) -> String {
        let together = if self.changes.len() > 1 {
            " These changes belong together, in this order."
        } else {
            ""
        };
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return format!("What it changes in numbers is not known.{together}");
        };
        if self.mends {
            return format!("It mends what is wrong at any rate.{together}");
        }
        let ports = if after.ports == before.ports {
            String::new()
        } else {
            format!(
                ", {} instead of {}",
                counted(after.ports, "port"),
                count(before.ports)
            )
        };
        format!(
            "One destination bears {} before it, {} after it{ports}.{together}",
            before.rate,
            after.sentence()
        )
    }
}

/// One recommended sysctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub sysctl: Sysctl,
    /// Its value now.
    pub current: String,
    /// The value to set.
    pub recommended: String,
    /// What it does.
    pub why: String,
    /// What can go wrong.
    pub risk: String,
}

impl Change {
    /// `net.ipv4.tcp_tw_reuse = 1`; a list of ports without the list.
    #[must_use]
    pub fn short(&self) -> String {
        match self.sysctl {
            Sysctl::IpLocalReservedPorts => format!("{} as below", self.sysctl),
            _ => format!("{} = {}", self.sysctl, self.recommended),
        }
    }
}

/// One change in the JSON.
struct InStep<'a>(usize, &'a Step, &'a Change);

impl Serialize for InStep<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(number, step, change) = self;
        let limit = |bearing: Option<Bearing>| bearing.map_or(Limit::Unknown, |it| it.rate);
        let rounded = |limit: Limit| limit.per_second().map(words::rounded);
        let (before, after) = (limit(step.before), limit(step.after));
        let without = step
            .after
            .map_or(Limit::Unknown, |it| it.rate_without_reuse);
        let mut object = serializer.serialize_struct("Change", 11)?;
        object.serialize_field("step", number)?;
        object.serialize_field("sysctl", &change.sysctl)?;
        object.serialize_field("current", &change.current)?;
        object.serialize_field("recommended", &change.recommended)?;
        object.serialize_field("max_rate_before", &rounded(before))?;
        object.serialize_field("ports_bound_rate_before", &before.is_bound())?;
        object.serialize_field("max_rate_after", &rounded(after))?;
        object.serialize_field("ports_bound_rate_after", &after.is_bound())?;
        object.serialize_field("max_rate_after_without_reuse", &rounded(without))?;
        object.serialize_field("usable_ports_after", &step.after.map(|it| it.ports))?;
        object.serialize_field("why", &change.why)?;
        object.serialize_field("risk", &change.risk)?;
        object.end()
    }
}

fn changes_of<S: Serializer>(steps: &[Step], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for (number, step) in (1..).zip(steps) {
        for change in &step.changes {
            list.serialize_element(&InStep(number, step, change))?;
        }
    }
    list.end()
}

/// The sysctls that advice may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sysctl {
    /// `net.ipv4.tcp_tw_recycle`
    TcpTwRecycle,
    /// `net.ipv4.tcp_timestamps`
    TcpTimestamps,
    /// `net.ipv4.tcp_tw_reuse`
    TcpTwReuse,
    /// `net.ipv4.ip_local_reserved_ports`
    IpLocalReservedPorts,
    /// `net.ipv4.ip_local_port_range`
    IpLocalPortRange,
    /// `net.ipv4.tcp_max_tw_buckets`
    TcpMaxTwBuckets,
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcpTwRecycle => "net.ipv4.tcp_tw_recycle",
            Self::TcpTimestamps => "net.ipv4.tcp_timestamps",
            Self::TcpTwReuse => "net.ipv4.tcp_tw_reuse",
            Self::IpLocalReservedPorts => "net.ipv4.ip_local_reserved_ports",
            Self::IpLocalPortRange => "net.ipv4.ip_local_port_range",
            Self::TcpMaxTwBuckets => "net.ipv4.tcp_max_tw_buckets",
        })
    }
}

impl Serialize for Sysctl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Advises on one snapshot, on a machine where `holders` hold ports too, and on `goal` where
/// somebody wants one.
#[must_use]
pub fn advise(snapshot: &Snapshot, holders: &Holders, goal: Option<Goal>) -> Advice {
    let facts = Facts::new(snapshot, holders, goal);
    let mut steps = plan::steps(&facts, true);
    let goal = goal.map(|goal| {
        let mut needs = needs(goal, facts.now(), facts.room(), &steps);
        if let Some(enough) = needs.changes_needed.filter(|_| !facts.drops()) {
            steps = plan::enough(&facts, std::mem::take(&mut steps), enough);
            if enough > 0 {
                needs.changes_needed = Some(steps.iter().map(|step| step.changes.len()).sum());
            }
        }
        needs
    });
    Advice {
        schema: 1,
        summary: summary(&facts, &steps),
        application: remarks::application(&facts, steps.last()),
        goal,
        proof: None,
        not_recommended: remarks::not_recommended(&facts),
        gaps: snapshot
            .all_gaps()
            .chain(holders.gaps.iter().cloned())
            .collect(),
        steps,
    }
}

fn summary(facts: &Facts, steps: &[Step]) -> String {
    let changes = steps.iter().map(|step| step.changes.len()).sum::<usize>() as u64;
    let after = steps.last().and_then(|step| step.after);
    let unknown = facts.unknown();
    let Some(now) = facts.now().filter(|_| unknown.is_empty()) else {
        let ports = match (facts.now(), after) {
            (Some(now), Some(after)) if after.ports != now.ports => format!(
                " With the {} below there are {} to one destination instead of {}.",
                counted(changes, "change"),
                counted(after.ports, "usable port"),
                count(now.ports)
            ),
            _ => String::new(),
        };
        return format!(
            "How many connections/s this machine bears is not known, nor advice given that hangs \
             on it: {} could not be read.{ports}",
            unknown.join(", ")
        );
    };
    let destination = facts
        .goal
        .and_then(|goal| goal.destination)
        .map_or_else(|| "one destination".into(), |server| server.to_string());
    let below = match changes {
        1 => "With the change below".to_owned(),
        number if steps.len() == 1 => format!(
            "With the {} below, which are one step",
            counted(number, "change")
        ),
        number => format!("With the {} below", counted(number, "change")),
    };
    let bears = after.filter(|_| changes > 0);
    if now.ports == 0 {
        let cause = format!(
            "No port of the range is usable, so no connection can be opened: {}.",
            facts.what_takes_all()
        );
        return match bears.filter(|after| after.ports > 0) {
            Some(after) => format!(
                "{cause} {below} there are {}: {} to {destination}.",
                count(after.ports),
                after.sentence()
            ),
            None => format!(
                "{cause} No wider range has any: take ports out of \
                 net.ipv4.ip_local_reserved_ports, or services to other ports."
            ),
        };
    }
    if facts.goal.is_none()
        && let Some((flow, used, _)) = facts.held_open()
    {
        let cause = format!(
            "{} of the {} ports from {} toward {} are taken by {}, which no setting for TIME_WAIT \
             gives back.",
            count(used.ports_in_use),
            count(now.ports),
            flow.source,
            flow.server(),
            remarks::states(used)
        );
        return match bears.filter(|after| after.ports > now.ports) {
            Some(after) => format!(
                "{cause} {below}, {} can be open to one destination at once.",
                counted(after.ports, "connection")
            ),
            None => format!("{cause} No setting gives more ports: more addresses do, or pools."),
        };
    }
    if facts.drops() {
        let limit = facts.snapshot.tunables.tcp_max_tw_buckets.unwrap_or(0);
        let cause = if now.drops {
            format!(
                "TIME_WAIT beyond tcp_max_tw_buckets = {} is dropped, below the {} usable ports: \
                 TIME_WAIT alone never takes them all, and its protection is gone.",
                count(limit),
                count(now.ports)
            )
        } else {
            format!(
                "TIME_WAIT is being dropped at tcp_max_tw_buckets = {}, and its protection with \
                 it.",
                count(limit)
            )
        };
        return match bears.filter(|after| !after.drops) {
            Some(after) => format!(
                "{cause} {below}, it is kept, and this machine bears {} to {destination}.",
                after.sentence()
            ),
            None => cause,
        };
    }
    let bears_now = format!("{} to {destination}", now.sentence());
    match bears {
        None => format!("This machine needs no change: it bears {bears_now}."),
        Some(after)
            if (after.rate, after.rate_without_reuse) == (now.rate, now.rate_without_reuse) =>
        {
            format!(
                "This machine bears {bears_now}. {below} it bears as much, and no service loses its port."
            )
        }
        Some(after) => format!(
            "This machine bears {bears_now}. {below}, {}.",
            after.sentence()
        ),
    }
}
