//! What follows from who holds the connections: files that run out, and how likely somebody was
//! missed.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use super::finding::Finding;
use super::flow::FlowReport;
use super::verdict::{Level, Reported, Verdict};
use crate::model::{Flow, Look, Owner, Owners, Placeless, TcpState, Unplaced};
use crate::words::{count, counted, percent, rate};

/// From this share of its limit of open files on a process is near it, in percent: as for ports.
const FILES_NEARLY_SPENT: f64 = 80.0;

/// So many open connections of one flow are worth a look at their owner's limit of open files: a
/// tenth of 1,024, the limit that most processes have.
const MANY_OPEN: u64 = 100;

/// How long a connection lives that is the hardest to see: connect() and close() on loopback, with
/// nothing in between.
const SHORTEST: Duration = Duration::from_micros(100);

/// Below this chance of missing a client a longer look is not recommended.
const UNLIKELY: f64 = 0.01;

/// Processes named at most.
const NAMED: usize = 3;

impl Verdict {
    /// The listed flows whose owners are worth a look through all processes: those in trouble,
    /// those with many open connections, or `all` of them.
    #[must_use]
    pub fn flows_to_own(&self, all: bool) -> Vec<Flow> {
        let holds_many = |flow: &FlowReport| {
            let open = [TcpState::Established, TcpState::CloseWait];
            open.map(|state| flow.by_state.get(state))
                .iter()
                .sum::<u64>()
                >= MANY_OPEN
        };
        self.flows
            .iter()
            .filter(|flow| all || flow.level > Level::Ok || holds_many(flow))
            .map(FlowReport::flow)
            .collect()
    }

    /// Whether connect() fails somewhere for want of a port: whoever tries has none, and is in no
    /// table.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.findings.iter().any(|reported| {
            matches!(
                reported.finding,
                Finding::PortsExhausted(_) | Finding::NoUsablePort { .. }
            )
        })
    }

    /// Puts names to the flows that `owners` speaks of, and says what follows.
    pub fn name_owners(&mut self, mut owners: Owners) {
        for flow in &mut self.flows {
            flow.owners = owners.by_flow.remove(&flow.flow());
        }
        if owners.gap.is_none() {
            self.owner_notes.extend(missed(&self.flows, owners.look));
        }
        let unplaced = owners.unplaced.as_deref().unwrap_or_default();
        self.owner_notes
            .extend(unplaced.iter().take(NAMED).map(whose));
        if unplaced.len() > NAMED {
            let more = counted((unplaced.len() - NAMED) as u64, "process");
            self.owner_notes.push(format!("{more} more like these."));
        }
        self.unplaced = owners.unplaced;
        self.gaps.extend(owners.gap);
        self.add(files_low(&self.flows));
    }

    /// Adds findings; where they are the worst, they are what the verdict says.
    fn add(&mut self, findings: Vec<Reported>) {
        self.findings.extend(findings);
        self.findings
            .sort_by_key(|reported| Reverse(reported.level));
        let Some(worst) = self
            .findings
            .first()
            .filter(|worst| worst.level > self.level)
        else {
            return;
        };
        self.level = worst.level;
        self.summary = worst.finding.to_string();
    }
}

/// The processes that are near their limit of open files, each once, with the first flow that it
/// holds.
fn files_low(flows: &[FlowReport]) -> Vec<Reported> {
    let mut told = HashSet::new();
    let owned = (0..).zip(flows).flat_map(|(index, flow)| {
        let owners = flow.owners.iter().flatten();
        owners.map(move |owner| (index, flow, owner))
    });
    owned
        .filter(|(.., owner)| told.insert(owner.pid))
        .filter_map(|(index, flow, owner)| {
            let (open, limit) = (owner.open_files?, owner.open_files_limit?);
            (percent(open, limit) >= FILES_NEARLY_SPENT).then(|| Reported {
                level: if open >= limit {
                    Level::Critical
                } else {
                    Level::Warning
                },
                flow: Some(index),
                finding: Finding::FilesLow {
                    owner: owner.clone(),
                    open,
                    limit,
                    ports_free: flow.ports_free,
                },
            })
        })
        .collect()
}

/// How likely a look of this kind misses a client that opens and closes `pace` connections a
/// second, each as short as can be: each is seen where a glance at its descriptor falls into its
/// life, and its flow is known where the look at the table that follows comes by in the rest.
#[must_use]
pub fn chance_of_missing(pace: f64, look: Look) -> f64 {
    let life = SHORTEST.as_secs_f64();
    let within = |rest: f64, time: Duration| (rest / time.as_secs_f64().max(rest)).min(1.0);
    let caught = within(life, look.cycle) * within(life / 2.0, look.table);
    let expected = pace * look.watched.as_secs_f64() * caught;
    (-expected).exp()
}

/// The shortest time to look for such a client that misses it seldom; `None` where none does.
fn time_to_catch(pace: f64, look: Look) -> Option<u64> {
    const TIMES: [u64; 6] = [1, 2, 5, 10, 30, 60];
    TIMES.into_iter().find(|&seconds| {
        let watched = Duration::from_secs(seconds);
        watched > look.watched && chance_of_missing(pace, Look { watched, ..look }) < UNLIKELY
    })
}

/// Why nobody was found to hold a socket of the worst flow that somebody was looked for.
fn missed(flows: &[FlowReport], look: Look) -> Option<String> {
    let nobody = |flow: &&FlowReport| flow.owners.as_ref().is_some_and(Vec::is_empty);
    let flow = flows.iter().find(nobody)?;
    let pace = flow.rate.last_10_s;
    let seen = format!(
        "Nobody was seen with a live socket from {} toward {}",
        flow.source,
        flow.server()
    );
    if pace <= 0.0 {
        return Some(format!(
            "{seen}: no connection there was closed in the last 10 s, and none is open."
        ));
    }
    let longer = time_to_catch(pace, look).map(|seconds| {
        let watched = Duration::from_secs(seconds);
        let chance = chance_of_missing(pace, Look { watched, ..look });
        format!("--sample {seconds}s would miss it {}", how_often(chance))
    });
    let pace = format!("at {} connections/s of 0.1 ms each", rate(pace));
    if look.watched.is_zero() {
        let longer = longer.map(|longer| format!("; {pace} {longer}"));
        return Some(format!(
            "{seen}: one look finds only who keeps a connection open{}.",
            longer.unwrap_or_default()
        ));
    }
    let chance = chance_of_missing(flow.rate.last_10_s, look);
    let rest = match longer {
        Some(longer) if chance >= UNLIKELY => format!("; {longer}"),
        _ => "; it may have stopped, or belong to another user, whom sudo shows".into(),
    };
    Some(format!(
        "{seen}: {pace} a look of {:.1} s misses a client {}{rest}.",
        look.watched.as_secs_f64(),
        how_often(chance),
    ))
}

/// A chance as people say it.
fn how_often(chance: f64) -> String {
    match chance {
        0.95.. => "nearly always".into(),
        0.01.. => format!("in {:.0} of 100 times", chance * 100.0),
        0.001.. => format!("in {:.0} of 1,000 times", chance * 1000.0),
        _ => "in less than 1 of 1,000 times".into(),
    }
}

/// Who has sockets that are in no flow.
fn whose(unplaced: &Unplaced) -> String {
    let Unplaced { owner, why } = unplaced;
    let sockets = counted(owner.sockets, "TCP socket");
    match why {
        Placeless::NoPort => format!(
            "{owner} has {sockets} without a port: it is trying to connect, or keeps what is left \
             of a connection; toward where cannot be told."
        ),
        Placeless::ShortLived => format!(
            "{owner} had {sockets} that were gone before the table could be looked at; toward where \
             cannot be told."
        ),
    }
}

/// `python3 (pid 7, user app) has 1,019 of 1,024 files open …`.
pub(super) fn files(owner: &Owner, open: u64, limit: u64, ports_free: Option<u32>) -> String {
    let left = limit.saturating_sub(open);
    let first = match ports_free {
        Some(free) if u64::from(free) > left => {
            format!(", before errno 99: {} are free", counted(free, "port"))
        }
        _ => String::new(),
    };
    format!(
        "{owner} has {} of {} files open, its sockets among them. At the limit socket() and accept() \
         fail with errno 24 (too many open files){first}.",
        count(open),
        count(limit)
    )
}
