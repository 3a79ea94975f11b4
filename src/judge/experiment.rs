//! Which experiments prove a piece of advice, and whether they did.

use std::time::Duration;

use serde::Serialize;

use super::Capacity;
use super::advice::Change;
use super::capacity::{rounded_rate, rounded_rate_of};
use crate::model::{PortRange, PortSet, Tunables};

/// Ports of the experiment that has most: few enough to take seconds, and to be outrun by a client
/// of a few thousand connections/s where they are reused.
const MOST: f64 = 1600.0;

/// Ports that no experiment goes below by scaling: enough to count by.
const FEWEST: f64 = 100.0;

/// Where the scaled range begins: above the ports that ordinary users may not take.
const LOWEST: u16 = 20000;

/// The pace that finds out where ports are held for a minute: spent in seconds, a time in which a
/// `tcp_fin_timeout` of 1 s would have given them back if it did what is said of it.
const PACE: f64 = 400.0;

/// The share of a maximum rate that must last: below 1, because ports come back a timer tick late
/// and a client does not come as even as a clock.
const SAFE: f64 = 0.8;

/// How long a pace must last to count as one that does: several times the reuse delay.
const LASTING: Duration = Duration::from_secs(5);

/// How far a prediction may be off.
const TOLERANCE: f64 = 0.02;

/// The pool that does the same work.
const POOL: usize = 8;

/// One run in the sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// What is tried.
    pub name: String,
    /// Ports of the machine per port of the sandbox.
    pub scale: f64,
    /// The sysctls of the sandbox, `net.ipv4.KEY=VALUE`.
    pub settings: Vec<String>,
    /// Connections per second; `None` for as fast as possible.
    pub pace: Option<f64>,
    /// Connections of a pool; `None` without one.
    pub pool: Option<usize>,
    /// When to stop.
    pub duration: Duration,
    /// The highest rate that the model says one destination bears on this machine; `None` where
    /// ports do not bound it.
    pub max_rate: Option<f64>,
    /// The same at the scale of the experiment.
    pub scaled_max_rate: Option<f64>,
    /// Connections until errno 99 as the model says; `None` where it says that there will be none.
    pub predicted: Option<u32>,
}

impl Experiment {
    /// What repeats it by hand, `repro` and its options.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["repro".to_owned()];
        for setting in &self.settings {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        if let Some(pace) = self.pace {
            arguments.extend(["--rate".to_owned(), pace.to_string()]);
        }
        if let Some(pool) = self.pool {
            arguments.extend(["--pool".to_owned(), pool.to_string()]);
        }
        let seconds = self.duration.as_secs();
        arguments.extend(["--duration".to_owned(), format!("{seconds}s")]);
        arguments
    }

    /// Whether what came agrees with what was predicted: `connections` were made, `exhausted` or
    /// not.
    #[must_use]
    pub fn agrees(&self, connections: u64, exhausted: bool) -> bool {
        match self.predicted {
            None => !exhausted,
            Some(predicted) => {
                #[expect(clippy::cast_precision_loss)] // At most some 65,536 ports.
                let off = (connections as f64 - f64::from(predicted)).abs();
                exhausted && off <= f64::from(predicted) * TOLERANCE
            }
        }
    }
}

/// The experiments that prove `changes` of `now`, where `held` ports are bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Laboratory {
    /// Usable ports of this machine.
    pub ports: u32,
    /// In the order in which to run them.
    pub experiments: Vec<Experiment>,
    /// Remedies that cannot be tried.
    pub not_tried: Vec<NotTried>,
}

/// A remedy that cannot be tried, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTried {
    /// What people say.
    pub name: &'static str,
    /// Why not.
    pub why: &'static str,
}

impl Laboratory {
    /// Plans them; `None` where the settings that decide are unknown, or no port is usable.
    #[must_use]
    pub fn new(
        now: &Tunables,
        held: &PortSet,
        hold_time: Duration,
        changes: &[Change],
    ) -> Option<Self> {
        let ports = Capacity::new(now, held, hold_time)?.usable_ports;
        now.reuse_applies(false)?;
        if ports == 0 {
            return None;
        }
        let settings = changes
            .iter()
            .flat_map(|change| [&change.alone, &change.together])
            .chain([now]);
        let usable = settings
            .filter_map(|tunables| Capacity::new(tunables, held, hold_time))
            .map(|capacity| capacity.usable_ports);
        let bench = Bench {
            held,
            hold_time,
            scale: f64::from(usable.max().unwrap_or(ports)) / MOST,
        };
        let mut experiments = bench.with("the settings of now".into(), now);
        for change in changes {
            let name = format!("{} = {}", change.sysctl, change.recommended);
            experiments.extend(bench.with(name, &change.alone));
        }
        if let [_, .., last] = changes {
            experiments.extend(bench.with("all of these together".into(), &last.together));
        }
        experiments.extend(bench.without_effect(now));
        experiments.extend(bench.pooled(now));
        let not_tried = match now.tcp_tw_recycle {
            None => NotTried {
                name: "net.ipv4.tcp_tw_recycle = 1",
                why: "this kernel does not have it any more (since Linux 4.12)",
            },
            Some(_) => NotTried {
                name: "net.ipv4.tcp_tw_recycle = 1",
                why: "it breaks clients behind NAT, which no experiment here would show",
            },
        };
        Some(Self {
            ports,
            experiments,
            not_tried: vec![not_tried],
        })
    }
}

struct Bench<'a> {
    held: &'a PortSet,
    hold_time: Duration,
    /// The scale of all experiments that have ports enough.
    scale: f64,
}

impl Bench<'_> {
    /// The experiments about `tunables`: at a pace that must last or find the end of the ports, and
    /// where they are reused, above what the ports bear too.
    fn with(&self, name: String, tunables: &Tunables) -> Vec<Experiment> {
        let Some(base) = self.experiment(name, tunables) else {
            return Vec::new();
        };
        let reuse = tunables.reuse_applies(false) == Some(true);
        match base.scaled_max_rate {
            // No bound: the pace that finds one elsewhere finds none.
            None => vec![Experiment {
                predicted: None,
                ..base
            }],
            Some(limit) if reuse => vec![
                Experiment {
                    pace: Some((limit * SAFE).round()),
                    predicted: None,
                    ..base.clone()
                },
                Experiment { pace: None, ..base },
            ],
            Some(_) => vec![base],
        }
    }

    /// What people recommend and does nothing.
    fn without_effect(&self, now: &Tunables) -> Option<Experiment> {
        now.tcp_fin_timeout_s?;
        let mut experiments = self.with("net.ipv4.tcp_fin_timeout = 1".into(), now);
        let mut experiment = (!experiments.is_empty()).then(|| experiments.swap_remove(0))?;
        experiment
            .settings
            .push("net.ipv4.tcp_fin_timeout=1".into());
        Some(experiment)
    }

    fn pooled(&self, now: &Tunables) -> Option<Experiment> {
        let base = self.experiment(format!("a pool of {POOL} connections"), now)?;
        Some(Experiment {
            pace: None,
            pool: Some(POOL),
            max_rate: None,
            scaled_max_rate: None,
            predicted: None,
            ..base
        })
    }

    /// At the usual pace, until the ports are spent or [`LASTING`] is over.
    fn experiment(&self, name: String, tunables: &Tunables) -> Option<Experiment> {
        let real = Capacity::new(tunables, self.held, self.hold_time)?;
        let scale = self
            .scale
            .min(f64::from(real.usable_ports) / FEWEST)
            .max(1.0);
        let (scaled, settings) = scaled(tunables, &real, scale)?;
        let capacity = Capacity::new(&scaled, &PortSet::default(), self.hold_time)?;
        let ports = capacity.usable_ports;
        let until_spent = f64::from(ports) / PACE * 1.5;
        Some(Experiment {
            name,
            scale,
            settings,
            pace: Some(PACE),
            pool: None,
            duration: LASTING.max(Duration::from_secs_f64(until_spent.ceil())),
            max_rate: real.max_connections_per_second,
            scaled_max_rate: capacity.max_connections_per_second,
            predicted: Some(ports),
        })
    }
}

/// `tunables` with as many fewer ports and places for TIME_WAIT, and as settings of a sandbox.
/// The ports that something holds on this machine are reserved there.
fn scaled(tunables: &Tunables, real: &Capacity, scale: f64) -> Option<(Tunables, Vec<String>)> {
    let fewer = |ports: u32| f64::from(ports) / scale;
    // An odd number of ports can come out one short.
    let half = whole((fewer(real.range_ports) / 2.0).round().max(1.0))?;
    let high = LOWEST.checked_add(half.checked_mul(2)?.checked_sub(1)?)?;
    let range = PortRange { low: LOWEST, high };
    let taken = whole(fewer(real.reserved_ports + real.bound_ports).round())?;
    let reserved: PortSet = range.ports().take(usize::from(taken)).collect();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // The sysctl is an int.
    let buckets = tunables
        .tcp_max_tw_buckets
        .map(|limit| (limit as f64 / scale).round().max(1.0) as u64);
    let mut settings = vec![
        format!("net.ipv4.ip_local_port_range={range}"),
        format!("net.ipv4.ip_local_reserved_ports={reserved}"),
    ];
    settings.extend(buckets.map(|limit| format!("net.ipv4.tcp_max_tw_buckets={limit}")));
    let numbers = [
        (
            "tcp_tw_reuse",
            tunables.tcp_tw_reuse.map(|reuse| reuse as u64),
        ),
        ("tcp_timestamps", tunables.tcp_timestamps),
        ("tcp_tw_recycle", tunables.tcp_tw_recycle),
    ];
    settings.extend(
        numbers
            .into_iter()
            .filter_map(|(key, value)| Some(format!("net.ipv4.{key}={}", value?))),
    );
    let scaled = Tunables {
        ip_local_port_range: Some(range),
        ip_local_reserved_ports: Some(reserved),
        tcp_max_tw_buckets: buckets,
        ..tunables.clone()
    };
    Some((scaled, settings))
}

/// A number of ports.
fn whole(number: f64) -> Option<u16> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Compared before.
    (0.0..=f64::from(u16::MAX))
        .contains(&number)
        .then_some(number as u16)
}

/// What the experiments have shown, in the order of the JSON contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Usable ports of this machine.
    pub ports: u32,
    /// Whether every run agrees with its prediction.
    pub agrees: bool,
    /// The runs.
    pub runs: Vec<Run>,
    /// Remedies that were not tried.
    pub not_tried: Vec<NotTried>,
}

/// One run, predicted and measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// What was tried.
    pub name: String,
    /// Ports of this machine per port of the run.
    #[serde(serialize_with = "rounded_rate_of")]
    pub scale: f64,
    /// The highest rate that the model says one destination bears on this machine; `None` where
    /// ports do not bound it.
    #[serde(serialize_with = "rounded_rate")]
    pub max_rate: Option<f64>,
    /// The same at the scale of the experiment.
    #[serde(serialize_with = "rounded_rate")]
    pub scaled_max_rate: Option<f64>,
    /// Connections per second asked for; `None` for as fast as possible.
    pub pace: Option<f64>,
    /// Connections until errno 99 as the model says; `None` where it says that there will be none.
    pub predicted_connections: Option<u32>,
    /// Connections made.
    pub connections: u64,
    /// How often a pool lent one of them; `None` without a pool.
    pub checkouts: Option<u64>,
    /// How long the run took.
    pub seconds: f64,
    /// Whether it ended with errno 99.
    pub exhausted: bool,
    /// p50 and p99 of connect() before the fast ports were spent; `None` of a pool.
    pub before_cliff_us: Option<[u64; 2]>,
    /// And after; `None` where they never were.
    pub after_cliff_us: Option<[u64; 2]>,
    /// TIME_WAIT left behind; `None` where the table could not be read.
    pub time_wait: Option<u64>,
    /// Whether prediction and measurement agree within 2 %.
    pub agrees: bool,
    /// What repeats it.
    pub command: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::advice::advise;
    use crate::model::{Counters, Host, PortRule, Snapshot, SourceName, Tally, TimeWaitReuse};

    fn stock() -> Tunables {
        Tunables {
            ip_local_port_range: PortRange::parse("32768 60999"),
            ip_local_reserved_ports: PortSet::parse("33000-33281"),
            tcp_tw_reuse: Some(TimeWaitReuse::LoopbackOnly),
            tcp_timestamps: Some(1),
            tcp_max_tw_buckets: Some(131_072),
            tcp_fin_timeout_s: Some(60),
            ..Tunables::default()
        }
    }

    fn laboratory(tunables: Tunables) -> Option<Laboratory> {
        let snapshot = Snapshot {
            host: Host::default(),
            tally: Tally::new(PortRule::new(&tunables), PortSet::default()),
            tunables,
            bound: None,
            counters: Counters::default(),
            tick: None,
            source: SourceName::Proc,
            gaps: Vec::new(),
        };
        let advice = advise(&snapshot, None);
        let hold_time = snapshot.hold_time();
        Laboratory::new(
            &snapshot.tunables,
            &PortSet::default(),
            hold_time,
            &advice.changes,
        )
    }

    #[test]
    fn every_change_is_tried_alone_and_together_at_one_scale() {
        let laboratory = laboratory(stock()).unwrap();
        let tried: Vec<_> = laboratory
            .experiments
            .iter()
            .map(|experiment| {
                (
                    experiment.name.as_str(),
                    experiment.pace,
                    experiment.predicted,
                )
            })
            .collect();
        assert_eq!(
            tried,
            [
                ("the settings of now", Some(400.0), Some(814)),
                ("net.ipv4.tcp_tw_reuse = 1", Some(651.0), None),
                ("net.ipv4.tcp_tw_reuse = 1", None, Some(814)),
                (
                    "net.ipv4.ip_local_port_range = 10240 65535",
                    Some(400.0),
                    Some(1600)
                ),
                ("all of these together", Some(1280.0), None),
                ("all of these together", None, Some(1600)),
                ("net.ipv4.tcp_fin_timeout = 1", Some(400.0), Some(814)),
                ("a pool of 8 connections", None, None),
            ]
        );
        assert_eq!(
            laboratory.experiments[1].arguments().join(" "),
            "repro --set net.ipv4.ip_local_port_range=20000 20821 --set \
             net.ipv4.ip_local_reserved_ports=20000-20007 --set net.ipv4.tcp_max_tw_buckets=3812 \
             --set net.ipv4.tcp_tw_reuse=1 --set net.ipv4.tcp_timestamps=1 --rate 651 --duration 5s"
        );
    }

    #[test]
    fn whatever_the_range_all_of_it_takes_a_minute_and_a_half_at_most() {
        for range in ["32768 60999", "40000 40049", "1024 65535", "30000 39999"] {
            let laboratory = laboratory(Tunables {
                ip_local_port_range: PortRange::parse(range),
                ip_local_reserved_ports: PortSet::parse(""),
                tcp_timestamps: Some(0),
                tcp_max_tw_buckets: Some(5000),
                ..stock()
            })
            .unwrap();
            let runs = &laboratory.experiments;
            let seconds: u64 = runs.iter().map(|run| run.duration.as_secs()).sum();
            assert!(seconds <= 90, "{range}: {seconds} s");
            for run in runs.iter().filter_map(|run| run.predicted) {
                assert!((50..=1650).contains(&run), "{range}: {run}");
            }
        }
    }

    #[test]
    fn agreement_is_within_two_percent_on_both_sides() {
        let mut experiment = laboratory(stock()).unwrap().experiments.swap_remove(0);
        for (connections, exhausted, agrees) in [
            // 814 within 16.28.
            (797, true, false),
            (798, true, true),
            (830, true, true),
            (831, true, false),
            (814, false, false),
        ] {
            assert_eq!(
                experiment.agrees(connections, exhausted),
                agrees,
                "{connections}"
            );
        }
        experiment.predicted = None;
        assert!(experiment.agrees(5, false) && !experiment.agrees(5, true));
    }

    #[test]
    fn what_is_unknown_is_not_tried() {
        assert_eq!(laboratory(Tunables::default()), None);
        let unknown = Tunables {
            tcp_tw_reuse: None,
            ..stock()
        };
        assert_eq!(laboratory(unknown), None);
    }
}
