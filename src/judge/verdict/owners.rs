//! What follows from who holds the connections: files that run out, and how likely somebody was
//! missed.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use super::Verdict;
use crate::judge::files::Files;
use crate::judge::finding::{Finding, Reported};
use crate::judge::flow::FlowReport;
use crate::judge::level::Level;
use crate::model::{Flow, Look, Origin, Owners, Placeless, TcpState, Unplaced};
use crate::words::{counted, rate};

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
    /// those with many open connections where one more look at the table is `cheap`, or `all` of
    /// them.
    #[must_use]
    pub fn flows_to_own(&self, all: bool, cheap: bool) -> Vec<Flow> {
        let holds_many = |flow: &FlowReport| {
            let open = [TcpState::Established, TcpState::CloseWait];
            open.map(|state| flow.by_state.get(state))
                .iter()
                .sum::<u64>()
                >= MANY_OPEN
        };
        self.flows
            .iter()
            .filter(|flow| all || flow.level > Level::Ok || (cheap && holds_many(flow)))
            .map(FlowReport::flow)
            .collect()
    }

    /// The port of a service whose process is to be named.
    #[must_use]
    pub fn service_to_own(&self) -> Option<u16> {
        self.findings
            .iter()
            .find_map(|reported| match reported.finding {
                Finding::InboundCloseWait { port, .. } => Some(port),
                _ => None,
            })
    }

    /// Whether connect() fails somewhere for want of a port: whoever tries has none, and is in no
    /// table.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.findings
            .iter()
            .any(|reported| match &reported.finding {
                Finding::PortsExhausted(_) => true,
                other => other.leaves_none(),
            })
    }

    /// Puts names to the flows that `owners` speaks of, and says what follows.
    pub fn name_owners(&mut self, mut owners: Owners) {
        for flow in &mut self.flows {
            flow.owners = owners.by_flow.remove(&flow.flow());
        }
        let unplaced = owners.unplaced.as_deref().unwrap_or_default();
        let suspected = unplaced
            .iter()
            .find_map(|it| Some((it.owner.pid, suspicion(it, &self.flows, owners.look)?)));
        let is_told = suspected.is_some() || unplaced.iter().any(has_no_port);
        if owners.gap.is_none() && !is_told {
            self.owner_notes.extend(missed(&self.flows, owners.look));
        }
        let named = suspected.as_ref().map(|(pid, _)| *pid);
        let others = unplaced.iter().filter(|it| Some(it.owner.pid) != named);
        self.owner_notes
            .extend(suspected.map(|(_, sentence)| sentence));
        self.owner_notes.extend(others.take(NAMED).map(whose));
        if unplaced.len() > NAMED {
            let more = counted((unplaced.len() - NAMED) as u64, "process");
            self.owner_notes.push(format!("{more} more like these."));
        }
        for reported in &mut self.findings {
            if let Finding::InboundCloseWait { owner, .. } = &mut reported.finding {
                owner.clone_from(&owners.service);
            }
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
            let files = Files {
                owner: owner.clone(),
                open: owner.open_files?,
                limit: owner.open_files_limit?,
                ports_free: flow.ports_free,
            };
            files.level().map(|level| Reported {
                namespace: None,
                level,
                flow: Some(index),
                finding: Finding::FilesLow(files),
            })
        })
        .collect()
}

/// How likely a look of this kind misses a client that opens and closes `pace` connections a
/// second, each as short as can be: each is seen where a glance at its descriptor falls into its
/// life, and its flow is known where the look at the table that follows comes by in the rest.
fn chance_of_missing(pace: f64, look: Look) -> f64 {
    let life = SHORTEST.as_secs_f64();
    let within = |rest: f64, time: Duration| (rest / time.as_secs_f64().max(rest)).min(1.0);
    let seen = pace * within(life, look.cycle);
    let caught = within(life / 2.0, look.table);
    // Nobody watches while the table is looked at.
    let looks = look.watched.as_secs_f64() * seen / (1.0 + seen * look.table.as_secs_f64());
    (-looks * caught).exp()
}

/// The shortest time to look for such a client that misses it seldom; `None` where none does.
fn time_to_catch(pace: f64, look: Look) -> Option<u64> {
    const TIMES: [u64; 6] = [1, 2, 5, 10, 30, 60];
    TIMES.into_iter().find(|&seconds| {
        let watched = Duration::from_secs(seconds);
        watched > look.watched && chance_of_missing(pace, Look { watched, ..look }) < UNLIKELY
    })
}

fn has_no_port(unplaced: &Unplaced) -> bool {
    unplaced.why == Placeless::NoPort
}

/// Why nobody was found to hold a socket of the worst flow that somebody was looked for.
fn missed(flows: &[FlowReport], look: Look) -> Option<String> {
    let nobody = |flow: &&FlowReport| flow.owners.as_ref().is_some_and(Vec::is_empty);
    let flow = flows.iter().find(nobody)?;
    let pace = flow.rate.now;
    let seen = format!(
        "Nobody was seen with a live socket from {} toward {}",
        Origin(&flow.flow()),
        flow.server()
    );
    let hidden = hidden_text(look);
    if flow.ports_free == Some(0) {
        let seconds = look.watched.as_secs_f64();
        return Some(format!(
            "{seen}, nor trying to have one in {seconds:.1} s: a client may wait longer between \
             two tries{hidden}."
        ));
    }
    if pace <= 0.0 {
        return Some(format!(
            "{seen}: no connection there has been closed just now, and none is open."
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
    let chance = chance_of_missing(flow.rate.now, look);
    let rest = match longer {
        Some(longer) if chance >= UNLIKELY => format!("; {longer}"),
        _ => format!("; it may have stopped{hidden}"),
    };
    Some(format!(
        "{seen}: {pace} a look of {:.1} s misses a client {}{rest}.",
        look.watched.as_secs_f64(),
        how_often(chance),
    ))
}

/// That somebody may be missing because processes could not be read.
fn hidden_text(look: Look) -> String {
    match look.hidden {
        0 => String::new(),
        hidden => format!(
            ", or be hidden: {} cannot be read here{}",
            counted(hidden as u64, "process"),
            if look.may_trace {
                ""
            } else {
                " (sudo reads them)"
            }
        ),
    }
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

/// The flow whose pace is that of the sockets which a process had and closed before anyone could
/// tell where they went.
fn suspicion(unplaced: &Unplaced, flows: &[FlowReport], look: Look) -> Option<String> {
    /// A watcher misses some, and a flow's pace counts what other clients do too.
    const PART: f64 = 0.5;
    let Unplaced { owner, why } = unplaced;
    let nobody = |flow: &&FlowReport| flow.owners.as_ref().is_some_and(Vec::is_empty);
    let flow = flows.iter().find(nobody)?;
    let (seen, watched) = (f64::from(owner.sockets), look.watched.as_secs_f64());
    let expected = flow.rate.now * watched;
    let fits = *why == Placeless::ShortLived && expected > 0.0;
    (fits && (PART..=1.0 / PART).contains(&(seen / expected))).then(|| {
        format!(
            "most likely {owner}: in {watched:.1} s it had {} that were gone before the table could \
             be looked at, and toward {} {} connections/s are closed.",
            counted(owner.sockets, "TCP socket"),
            flow.server(),
            rate(flow.rate.now)
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::fixture::owner;
    use crate::model::Owner;

    fn look(watched: u64, cycle: u64, table: u64) -> Look {
        Look {
            watched: Duration::from_secs(watched),
            cycle: Duration::from_micros(cycle),
            table: Duration::from_micros(table),
            ..Look::default()
        }
    }

    /// A small generator: the tests must not depend on luck.
    struct Random(u64);

    impl Random {
        /// From 0 to 1.
        #[expect(clippy::cast_precision_loss)] // 32 bits of it.
        fn next(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 32) as f64 / 4_294_967_296.0
        }
    }

    /// Whether a watcher sees a client: its connections come at random, and while the table is
    /// looked at no descriptor is watched.
    fn is_caught(random: &mut Random, pace: f64, look: Look) -> bool {
        let life = SHORTEST.as_secs_f64();
        let [watched, cycle, table] =
            [look.watched, look.cycle, look.table].map(|time| time.as_secs_f64());
        let (mut now, mut watching_from) = (0.0, 0.0);
        while now < watched {
            now += -(1.0 - random.next()).ln() / pace;
            let glance = now.max(watching_from) + random.next() * cycle;
            if glance < now + life {
                watching_from = glance + table;
                if glance + random.next() * table < now + life {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn the_chance_of_missing_a_client_is_that_of_a_simulation_on_the_careful_side() {
        const RUNS: u32 = 2000;
        let mut random = Random(1);
        for (pace, look) in [
            (90.0, look(1, 25, 500)),
            (90.0, look(1, 80, 1500)),
            (30.0, look(1, 25, 500)),
            (10.0, look(10, 200, 500)),
            (1000.0, look(1, 300, 4000)),
            (100.0, look(2, 25, 10_000)),
        ] {
            let missed = (0..RUNS)
                .filter(|_| !is_caught(&mut random, pace, look))
                .count();
            let simulated = f64::from(u32::try_from(missed).unwrap()) / f64::from(RUNS);
            let said = chance_of_missing(pace, look);
            // Of what decides, the mean number of connections caught, it says at least half.
            let careful = simulated.max(f64::EPSILON).sqrt();
            assert!(
                (simulated - 0.03..=careful + 0.03).contains(&said),
                "{pace}/s, {look:?}: {said} said, {simulated} simulated"
            );
        }
    }

    #[test]
    fn who_only_looks_once_misses_a_client_for_sure_and_a_longer_look_misses_it_less() {
        let once = look(0, 25, 500);
        assert!((chance_of_missing(1000.0, once) - 1.0).abs() < f64::EPSILON);
        assert_eq!(time_to_catch(90.0, once), Some(1));
        assert_eq!(time_to_catch(9.0, once), Some(10));
        assert_eq!(time_to_catch(9.0, look(10, 25, 500)), Some(30));
        assert_eq!(time_to_catch(0.1, once), None);
    }

    #[test]
    fn who_may_read_everything_is_not_told_to_use_sudo() {
        for (may_trace, said) in [
            (
                false,
                "be hidden: 2 processes cannot be read here (sudo reads them).",
            ),
            (true, "be hidden: 2 processes cannot be read here."),
        ] {
            let hidden = Look {
                hidden: 2,
                may_trace,
                ..look(1, 25, 500)
            };
            let text = hidden_text(hidden);
            assert!(format!("{text}.").ends_with(said), "{text}");
        }
        assert_eq!(hidden_text(look(1, 25, 500)), "");
    }

    #[test]
    fn chances_are_said_in_whole_numbers() {
        for (chance, said) in [
            (1.0, "nearly always"),
            (0.56, "in 56 of 100 times"),
            (0.01, "in 1 of 100 times"),
            (0.0042, "in 4 of 1,000 times"),
            (0.0, "in less than 1 of 1,000 times"),
        ] {
            assert_eq!(how_often(chance), said);
        }
    }

    #[test]
    fn a_process_without_a_port_is_said_to_be_trying_and_no_more() {
        let unplaced = |why, sockets| Unplaced {
            owner: Owner {
                sockets,
                unit: Some("app.service".into()),
                ..owner()
            },
            why,
        };
        assert_eq!(
            whose(&unplaced(Placeless::NoPort, 1)),
            "python3 (pid 7, user app, app.service) has 1 TCP socket without a port: it is trying \
             to connect, or keeps what is left of a connection; toward where cannot be told."
        );
        assert_eq!(
            whose(&unplaced(Placeless::ShortLived, 12)),
            "python3 (pid 7, user app, app.service) had 12 TCP sockets that were gone before the \
             table could be looked at; toward where cannot be told."
        );
    }
}
