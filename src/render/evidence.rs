//! What a verdict rests on, in words: the same in a table and in a ticket.

use std::fmt::Write as _;

use crate::judge::Capacity;
use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::judge::nat::{NatFlowReport, NatReport};
use crate::judge::verdict::Verdict;
use crate::model::{Origin, Owner};
use crate::words::{count, counted, rate};

/// Owners named per flow.
const OWNERS: usize = 3;

/// Findings of one code and level.
pub struct Group {
    pub code: &'static str,
    pub level: Level,
    /// What is wrong; nothing where the summary has said it.
    pub messages: Vec<String>,
    /// What to do, each step once.
    pub steps: Vec<String>,
}

/// The findings by code, the worst first.
pub fn groups(verdict: &Verdict) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for reported in &verdict.findings {
        let (code, level) = (reported.finding.code(), reported.level);
        let place = groups
            .iter()
            .position(|group| (group.code, group.level) == (code, level));
        let place = place.unwrap_or_else(|| {
            groups.push(Group {
                code,
                level,
                messages: Vec::new(),
                steps: Vec::new(),
            });
            groups.len() - 1
        });
        let group = &mut groups[place];
        // Where there is one in trouble the summary has said it.
        if verdict.findings.len() > 1 || level == Level::Ok {
            group.messages.push(reported.message());
        }
        let step = reported.next_step();
        if !group.steps.contains(&step) {
            group.steps.push(step);
        }
    }
    groups
}

/// What else is known, each by what it is about.
pub fn remarks(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let elsewhere = verdict.other_namespaces.map(|others| {
        format!(
            "only this network namespace is judged; {} here with TCP sockets (containers?). As \
             root, the busiest: `twcheck verdict --pid {}`, and all: `twcheck verdict --all-netns`",
            counted(others.number as u64, "other"),
            others.pid
        )
    });
    let one = |about, text: Option<String>| text.map(|text| (about, text)).into_iter();
    one("Ports", ports(verdict))
        .chain(one("TIME_WAIT", time_wait(verdict)))
        .chain(one("Elsewhere", elsewhere))
        .chain(
            verdict
                .flows
                .iter()
                .filter_map(shortage)
                .map(|it| ("Since", it)),
        )
        .chain(one(
            "Toward",
            verdict.destination.as_ref().map(ToString::to_string),
        ))
        .chain(
            verdict
                .flows
                .iter()
                .filter_map(owners)
                .map(|it| ("Owners", it)),
        )
        .chain(verdict.owner_notes.iter().map(|it| ("Owners", it.clone())))
        .collect()
}

/// Whether TIME_WAIT is dropped before it takes all ports, so that these bound no rate.
pub fn drops(verdict: &Verdict) -> bool {
    verdict.capacity.is_some_and(|all| all.buckets_bound())
}

/// A flow: from, toward, ports, free ones, pace and limit.
pub fn flow_row(flow: &FlowReport, drops: bool) -> [String; 6] {
    // More may have been closed than the table still shows.
    let at_least = if flow.rate.lower_bound { "≥" } else { "" };
    [
        Origin(&flow.flow()).to_string(),
        flow.server().to_string(),
        count(flow.ports_in_use),
        flow.ports_free.map_or_else(|| "unknown".into(), count),
        format!("{at_least}{}", rate(flow.rate.now)),
        limit_in_column(flow.max_connections_per_second, drops),
    ]
}

/// What is told of all translated connections.
pub fn translated(nat: &NatReport) -> String {
    let mut text = format!(
        "{} of {} connections translated",
        count(nat.translated),
        count(nat.tracked)
    );
    if let Some(seconds) = nat.time_wait_seconds {
        let _ = write!(text, ", TIME_WAIT is kept {seconds} s");
    }
    if let (Some(failed), Some(dropped)) = (nat.insert_failed, nat.dropped) {
        let _ = write!(text, ", insert_failed {failed}, drop {dropped}");
    }
    if let Some(rules) = nat.rules.as_ref().filter(|rules| !rules.is_empty()) {
        let _ = write!(text, ", by {}", rules.join("; "));
    }
    text
}

/// A flow after translation: from, toward, ports taken, of these by closed connections, of how many,
/// from how many on clients hang, and who is behind it.
pub fn nat_row(flow: &NatFlowReport) -> [String; 7] {
    [
        flow.source.to_string(),
        flow.server().to_string(),
        count(flow.ports_taken),
        count(flow.ports_of_closed),
        count(flow.ports.len()),
        count(flow.hangs_from.likely),
        flow.who(),
    ]
}

/// A limit of rates, where TIME_WAIT may be dropped instead.
pub fn limit_in_column(limit: Option<f64>, drops: bool) -> String {
    match limit {
        Some(limit) => rate(limit),
        None if drops => "any".into(),
        None => "?".into(),
    }
}

fn ports(verdict: &Verdict) -> Option<String> {
    let (capacity, range) = (verdict.capacity?, verdict.tunables.ip_local_port_range?);
    let ports = format!(
        "{} usable ({}-{}, less {} reserved and {})",
        count(capacity.usable_ports),
        range.low,
        range.high,
        count(capacity.reserved_ports),
        capacity.bound_ports,
    );
    Some(match capacity.usable_ports {
        0 => ports,
        _ => format!("{ports}, {}", rates(verdict, &capacity)),
    })
}

/// What the ports bear: MAX/S of the flows is the one or the other, each by its own TIME_WAIT.
fn rates(verdict: &Verdict, capacity: &Capacity) -> String {
    let Some(limit) = capacity.max_connections_per_second else {
        return "and TIME_WAIT is dropped before it takes them all: no errno 99 by it, at any rate"
            .into();
    };
    let is_reused = verdict.worth_a_line().any(|flow| flow.reuse.works());
    let reused = capacity
        .max_rate(true)
        .filter(|_| is_reused || capacity.max_connections_per_second_with_reuse.is_some());
    let reused = reused.map(|limit| format!(", {} where TIME_WAIT is reused", rate(limit)));
    let fast = capacity
        .fast_connections_per_second
        .map(|fast| format!(", connect() is cheap up to {}/s", rate(fast)));
    format!(
        "at most {} connections/s to one destination{}{}",
        rate(limit),
        reused.unwrap_or_default(),
        fast.unwrap_or_default()
    )
}

fn time_wait(verdict: &Verdict) -> Option<String> {
    let time_wait = verdict.time_wait?;
    let split = time_wait.split;
    let limit = time_wait
        .limit
        .map_or_else(|| "an unknown number".into(), count);
    Some(format!(
        "{} outbound (hold ports), {} inbound (memory only), at most {limit}{}",
        count(split.outbound),
        count(split.inbound),
        if drops(verdict) {
            " (tcp_max_tw_buckets): beyond it is dropped at once, and with it the protection from \
             late packets"
        } else {
            ""
        }
    ))
}

/// Since when ports are short, and when they are back.
fn shortage(flow: &FlowReport) -> Option<String> {
    let shortage = flow.shortage?;
    Some(format!(
        "{} to {}: short of ports {}; if nobody connects the first is back within {:.0} s, {}all in \
         {:.0} s",
        Origin(&flow.flow()),
        flow.server(),
        match (shortage.since_seconds, shortage.since_at_least) {
            (0, _) => "since just now".into(),
            (seconds, true) => format!("for at least {seconds} s"),
            (seconds, false) => format!("for {seconds} s"),
        },
        shortage.first_port_back_seconds,
        shortage
            .below_threshold_seconds
            .map_or_else(String::new, |seconds| format!("enough in {seconds:.0} s, ")),
        shortage.last_port_back_seconds,
    ))
}

fn owners(flow: &FlowReport) -> Option<String> {
    let owners = flow.owners.as_ref().filter(|owners| !owners.is_empty())?;
    let owner = |owner: &Owner| format!("{owner} with {}", counted(owner.sockets, "socket"));
    let mut names: Vec<_> = owners.iter().take(OWNERS).map(owner).collect();
    if owners.len() > OWNERS {
        names.push(format!("{} more", owners.len() - OWNERS));
    }
    Some(format!(
        "{} to {}: {}",
        Origin(&flow.flow()),
        flow.server(),
        names.join("; ")
    ))
}
