//! Which experiments prove a piece of advice, and whether they did.

use std::time::Duration;

use serde::Serialize;

use super::Capacity;
use super::capacity::{rounded_rate, rounded_rate_of};
use super::change::{Change, Step, Sysctl};
use crate::model::{PortRange, PortSet, Tunables};

/// Ports of the experiment that has most: few enough to take seconds, and to be outrun by a client
/// of a thousand connections/s where they are reused: a small or busy machine makes no more.
const MOST: f64 = 800.0;

/// Ports that no experiment goes below by scaling: enough to count by.
const FEWEST: f64 = 100.0;

/// Where the scaled range begins: above the ports that ordinary users may not take.
const LOWEST: u16 = 20000;

/// The pace that finds out where ports are held for a minute: spent in seconds, a time in which a
/// `tcp_fin_timeout` of 1 s would have given them back if it did what is said of it.
const PACE: f64 = 200.0;

/// The share of a maximum rate that must last: below 1, because ports come back a timer tick late
/// and a client does not come as even as a clock.
const SAFE: f64 = 0.8;

/// How long a pace must last to count as one that does: this, and three times as long as a port is
/// held.
const LASTING: Duration = Duration::from_secs(5);

/// What would have to last longer is not tried.
const TOO_LONG: Duration = Duration::from_secs(15);

/// The pace that a client is sure to reach.
const REACHABLE: f64 = 1250.0;

/// How far above the limit a pace must be to find it while no port has come back.
const ABOVE: f64 = 1.3;

/// How far a prediction may be off.
const TOLERANCE: f64 = 0.02;

/// The share of a pace that must have come about, so that a run without errno 99 shows anything.
const KEPT: f64 = 0.9;

/// The pool that does the same work.
const POOL: usize = 8;

/// One run in the sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// What is tried.
    pub name: String,
    /// Ports of the machine per port of the sandbox.
    pub scale: f64,
    /// Usable ports of the sandbox.
    pub ports: u32,
    /// The sysctls of the sandbox and their values.
    pub settings: Vec<(&'static str, String)>,
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
    /// Whether what came agrees with what was predicted; a pace that was not kept, or a pool that
    /// left TIME_WAIT, shows nothing.
    #[must_use]
    pub fn agrees(&self, came: &Came) -> bool {
        #[expect(clippy::cast_precision_loss)] // Connections of a few seconds.
        let made = came.connections as f64;
        match (self.predicted, self.pool, self.pace) {
            (Some(predicted), _, _) => {
                let off = (made - f64::from(predicted)).abs();
                came.exhausted && off <= f64::from(predicted) * TOLERANCE
            }
            _ if came.exhausted => false,
            (None, Some(size), _) => came.connections == size as u64 && came.time_wait == Some(0),
            (None, None, Some(pace)) => made >= pace * came.seconds * KEPT,
            (None, None, None) => true,
        }
    }
}

/// What came of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Came {
    /// Connections made.
    pub connections: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it ended with errno 99.
    pub exhausted: bool,
    /// TIME_WAIT left behind; `None` where the table could not be read.
    pub time_wait: Option<u64>,
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
        steps: &[Step],
    ) -> Option<Self> {
        let ports = Capacity::new(now, held, hold_time)?.usable_ports;
        now.reuse_allowed(false)?;
        if ports == 0 {
            return None;
        }
        let settings = steps
            .iter()
            .flat_map(|step| [&step.alone, &step.together])
            .chain([now]);
        let usable = settings
            .filter_map(|tunables| Capacity::new(tunables, held, hold_time))
            .map(|capacity| capacity.usable_ports);
        let planner = Planner {
            held,
            hold_time,
            scale: f64::from(usable.max().unwrap_or(ports)) / MOST,
        };
        let mut experiments = planner.with("the settings of now".into(), now);
        let raising: Vec<_> = steps.iter().filter(|step| !step.mends).collect();
        for step in &raising {
            experiments.extend(planner.with(name(step), &step.alone));
        }
        if let [_, .., last] = raising[..] {
            experiments.extend(planner.with("all of these together".into(), &last.together));
        }
        experiments.extend(planner.by_itself(now, &raising));
        experiments.extend(planner.without_effect(now));
        experiments.extend(planner.pooled(now));
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
        (!experiments.is_empty()).then(|| Self {
            ports,
            experiments,
            not_tried: vec![not_tried],
        })
    }
}

/// What a step is called where it is tried.
fn name(step: &Step) -> String {
    let listed = |change: &&Change| change.sysctl != Sysctl::IpLocalReservedPorts;
    let names: Vec<_> = step
        .changes
        .iter()
        .filter(listed)
        .map(|change| format!("{} = {}", change.sysctl, change.recommended))
        .collect();
    names.join(", ")
}

/// Plans experiments of one scale.
struct Planner<'a> {
    held: &'a PortSet,
    hold_time: Duration,
    /// The scale of all experiments that have ports enough.
    scale: f64,
}

impl Planner<'_> {
    /// The experiments about `tunables`: below what the ports bear, where that can be seen to last,
    /// and above it, where a client can get there.
    fn with(&self, name: String, tunables: &Tunables) -> Vec<Experiment> {
        let Some(base) = self.experiment(name, tunables) else {
            return Vec::new();
        };
        let Some(limit) = base.scaled_max_rate else {
            // No bound: the pace that finds one elsewhere finds none.
            return vec![base];
        };
        let held = if tunables.reuse_allowed(false) == Some(true) {
            tunables.reuse_delay()
        } else {
            self.hold_time
        };
        let mut experiments = Vec::new();
        if held * 3 <= TOO_LONG {
            experiments.push(Experiment {
                pace: Some((limit * SAFE).min(REACHABLE).round()),
                duration: LASTING.max(held * 3),
                ..base.clone()
            });
        }
        let above = (limit * ABOVE).max(PACE);
        if above <= REACHABLE {
            let ports = base.ports;
            let seconds = (f64::from(ports) / above * 2.0).ceil();
            experiments.push(Experiment {
                // Near what a client can do at all, it had better do what it can.
                pace: (above <= REACHABLE / 3.0).then_some(above.round()),
                duration: LASTING.max(Duration::from_secs_f64(seconds)),
                predicted: Some(ports),
                ..base
            });
        }
        experiments
    }

    /// What makes things worse than they are: a place for every TIME_WAIT where there were too few,
    /// and nothing else changed.
    fn by_itself(&self, now: &Tunables, steps: &[&Step]) -> Option<Experiment> {
        let is_dropping = Capacity::new(now, self.held, self.hold_time)?.buckets_bound();
        let change = steps
            .iter()
            .flat_map(|step| &step.changes)
            .find(|change| is_dropping && change.sysctl == Sysctl::TcpMaxTwBuckets)?;
        let tunables = Tunables {
            tcp_max_tw_buckets: change.recommended.parse().ok(),
            ..now.clone()
        };
        self.with(format!("{} by itself", change.sysctl), &tunables)
            .pop()
    }

    /// What people recommend and does nothing: above what the ports bear now.
    fn without_effect(&self, now: &Tunables) -> Option<Experiment> {
        now.tcp_fin_timeout_s?;
        let mut experiment = self
            .with("net.ipv4.tcp_fin_timeout = 1".into(), now)
            .pop()?;
        let setting = ("net.ipv4.tcp_fin_timeout", "1".into());
        experiment.settings.push(setting);
        Some(experiment)
    }

    fn pooled(&self, now: &Tunables) -> Option<Experiment> {
        let base = self.experiment(format!("a pool of {POOL} connections"), now)?;
        Some(Experiment {
            pace: None,
            pool: Some(POOL),
            max_rate: None,
            scaled_max_rate: None,
            ..base
        })
    }

    /// At the usual pace, for as long as one must last.
    fn experiment(&self, name: String, tunables: &Tunables) -> Option<Experiment> {
        let real = Capacity::new(tunables, self.held, self.hold_time)?;
        let scale = self
            .scale
            .min(f64::from(real.usable_ports) / FEWEST)
            .max(1.0);
        let (scaled, settings) = scaled(tunables, &real, scale)?;
        let capacity = Capacity::new(&scaled, &PortSet::default(), self.hold_time)?;
        let ports = capacity.usable_ports;
        Some(Experiment {
            name,
            scale,
            ports,
            settings,
            pace: Some(PACE),
            pool: None,
            duration: LASTING,
            max_rate: real.max_rate_at_best(),
            scaled_max_rate: capacity.max_rate_at_best(),
            predicted: None,
        })
    }
}

/// `tunables` with as many fewer ports and places for TIME_WAIT, and as settings of a sandbox.
/// The ports that something holds on this machine are reserved there.
fn scaled(
    tunables: &Tunables,
    real: &Capacity,
    scale: f64,
) -> Option<(Tunables, Vec<(&'static str, String)>)> {
    let fewer = |ports: u32| f64::from(ports) / scale;
    // Where nearly all are taken a few of those tell as much.
    let taken = whole(
        fewer(real.reserved_ports + real.bound_ports.known())
            .round()
            .min(MOST),
    )?;
    // An odd number of ports can come out one short.
    let half = f64::midpoint(fewer(real.usable_ports), f64::from(taken));
    let half = whole(half.round().max(1.0))?;
    let high = LOWEST.checked_add(half.checked_mul(2)?.checked_sub(1)?)?;
    let range = PortRange { low: LOWEST, high };
    let reserved: PortSet = range.ports().take(usize::from(taken)).collect();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )] // The sysctl is an int.
    let buckets = tunables
        .tcp_max_tw_buckets
        .map(|limit| (limit as f64 / scale).round().max(1.0) as u64);
    // Where this machine's begins higher, the kernel would refuse the range.
    let start = tunables.ip_unprivileged_port_start;
    let lower = start.filter(|&start| start > u64::from(LOWEST));
    let flags = [
        (
            "net.ipv4.tcp_tw_reuse",
            tunables.tcp_tw_reuse.map(|reuse| reuse as u64),
        ),
        ("net.ipv4.tcp_timestamps", tunables.tcp_timestamps),
        ("net.ipv4.tcp_tw_recycle", tunables.tcp_tw_recycle),
    ];
    let number = |(key, value): (&'static str, Option<u64>)| Some((key, value?.to_string()));
    let lower = lower.map(|_| u64::from(LOWEST));
    let mut settings = Vec::new();
    settings.extend(number(("net.ipv4.ip_unprivileged_port_start", lower)));
    settings.extend([
        ("net.ipv4.ip_local_port_range", range.to_string()),
        ("net.ipv4.ip_local_reserved_ports", reserved.to_string()),
    ]);
    settings.extend(number(("net.ipv4.tcp_max_tw_buckets", buckets)));
    settings.extend(flags.into_iter().filter_map(number));
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
    use crate::judge::fixture::look;
    use crate::model::{Holders, TimeWaitReuse};

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
        let snapshot = look(tunables, [], []);
        let advice = advise(&snapshot, &Holders::default(), None);
        let hold_time = snapshot.hold_time;
        Laboratory::new(
            &snapshot.tunables,
            &PortSet::default(),
            hold_time,
            &advice.steps,
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
                ("the settings of now", Some(200.0), Some(406)),
                ("net.ipv4.tcp_tw_reuse = 1", Some(325.0), None),
                ("net.ipv4.tcp_tw_reuse = 1", None, Some(406)),
                (
                    "net.ipv4.ip_local_port_range = 10240 65535",
                    Some(200.0),
                    Some(800)
                ),
                ("all of these together", Some(640.0), None),
                ("all of these together", None, Some(800)),
                ("net.ipv4.tcp_fin_timeout = 1", Some(200.0), Some(406)),
                ("a pool of 8 connections", None, None),
            ]
        );
        let settings = &laboratory.experiments[1].settings;
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            settings,
            [
                "net.ipv4.ip_local_port_range=20000 20409",
                "net.ipv4.ip_local_reserved_ports=20000-20003",
                "net.ipv4.tcp_max_tw_buckets=1906",
                "net.ipv4.tcp_tw_reuse=1",
                "net.ipv4.tcp_timestamps=1",
            ]
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
                assert!((50..=850).contains(&run), "{range}: {run}");
            }
        }
    }

    #[test]
    fn agreement_is_within_two_percent_and_shows_something() {
        let experiments = laboratory(stock()).unwrap().experiments;
        let came = |connections, exhausted| Came {
            connections,
            seconds: 5.0,
            exhausted,
            time_wait: Some(0),
        };
        for (connections, exhausted, agrees) in [
            // 406 within 8.12.
            (397, true, false),
            (398, true, true),
            (414, true, true),
            (415, true, false),
            (406, false, false),
        ] {
            let came = came(connections, exhausted);
            assert_eq!(experiments[0].agrees(&came), agrees, "{connections}");
        }
        // 325/s for 5 s, of which 90 % must have come about.
        for (connections, exhausted, agrees) in [
            (1625, false, true),
            (1462, false, false),
            (1625, true, false),
        ] {
            let came = came(connections, exhausted);
            assert_eq!(experiments[1].agrees(&came), agrees, "{connections}");
        }
        let pool = experiments.last().unwrap();
        assert!(pool.agrees(&came(8, false)) && !pool.agrees(&came(9, false)));
        let leaving = Came {
            time_wait: Some(1),
            ..came(8, false)
        };
        assert!(!pool.agrees(&leaving));
    }

    #[test]
    fn what_a_client_cannot_reach_or_wait_for_is_not_predicted() {
        let tried = |tunables| {
            let experiments = laboratory(tunables).unwrap().experiments;
            let about = |experiment: &Experiment| {
                (
                    experiment.pace,
                    experiment.duration.as_secs(),
                    experiment.predicted,
                )
            };
            experiments
                .iter()
                .filter(|experiment| experiment.name == "the settings of now")
                .map(about)
                .collect::<Vec<_>>()
        };
        let reuse = |delay| Tunables {
            ip_local_port_range: PortRange::parse("10240 65535"),
            ip_local_reserved_ports: PortSet::parse(""),
            tcp_tw_reuse: Some(TimeWaitReuse::On),
            tcp_tw_reuse_delay_ms: Some(delay),
            ..stock()
        };
        assert_eq!(
            tried(reuse(1000)),
            [(Some(640.0), 5, None), (None, 5, Some(800))]
        );
        assert_eq!(tried(reuse(100)), [(Some(1250.0), 5, None)]);
        assert_eq!(tried(reuse(60_000)), [(Some(200.0), 8, Some(800))]);
        let vendor = Tunables {
            tcp_tw_timeout_s: Some(3),
            tcp_tw_reuse: Some(TimeWaitReuse::Off),
            ..reuse(1000)
        };
        assert_eq!(
            tried(vendor),
            [(Some(213.0), 9, None), (Some(347.0), 5, Some(800))]
        );
    }

    #[test]
    fn a_range_that_is_nearly_all_reserved_is_tried_all_the_same() {
        let laboratory = laboratory(Tunables {
            ip_local_port_range: PortRange::parse("1024 65535"),
            ip_local_reserved_ports: PortSet::parse("1024-64000"),
            ..stock()
        })
        .unwrap();
        assert_eq!(laboratory.experiments[0].predicted, Some(800));
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
