use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::latency::Latency;
use crate::judge::experiment::{Came, Experiment, Laboratory, Proof, Run};
use crate::refusal::Refusal;

/// What is read of the report of one run.
#[derive(Debug, Deserialize)]
struct Told {
    connections: u64,
    checkouts: Option<u64>,
    seconds: f64,
    stopped_by: String,
    error: Option<ToldError>,
    connect_latency_us: ToldLatency,
    time_wait: ToldTimeWait,
}

#[derive(Debug, Deserialize)]
struct ToldError {
    text: String,
}

#[derive(Debug, Deserialize)]
struct ToldLatency {
    before_cliff: Option<Latency>,
    after_cliff: Option<Latency>,
}

#[derive(Debug, Deserialize)]
struct ToldTimeWait {
    client_side: Option<u64>,
}

/// Runs the experiments of `laboratory`, each a `twcheck repro` in a private namespace of its own;
/// `show` sees each before it begins.
///
/// # Errors
/// When no private namespace can be made, or a run ends otherwise than by its ports or its time.
pub fn prove(laboratory: Laboratory, mut show: impl FnMut(&Experiment)) -> Result<Proof> {
    /// After this time nothing is tried twice.
    const ENOUGH: Duration = Duration::from_secs(60);
    let start = Instant::now();
    let mut runs = Vec::new();
    for experiment in &laboratory.experiments {
        show(experiment);
        let mut run = try_out(experiment)?;
        if !run.agrees && start.elapsed() < ENOUGH {
            // Whatever else the machine was doing may be over.
            run = try_out(experiment)?;
        }
        runs.push(run);
    }
    Ok(Proof {
        ports: laboratory.ports,
        agrees: runs.iter().all(|run| run.agrees),
        runs,
        not_tried: laboratory.not_tried,
    })
}

fn try_out(experiment: &Experiment) -> Result<Run> {
    let arguments = experiment.arguments();
    let quoted: Vec<_> = arguments
        .iter()
        .map(|word| {
            if word.contains(' ') {
                format!("'{word}'")
            } else {
                word.clone()
            }
        })
        .collect();
    let command = format!("twcheck {}", quoted.join(" "));
    // The path holds even where the program has been replaced meanwhile.
    let output = Command::new("/proc/self/exe")
        .args(&arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command}"))?;
    let told: Told = match serde_json::from_slice(&output.stdout) {
        Ok(told) => told,
        Err(_) => return Err(refusal(&String::from_utf8_lossy(&output.stderr), &command)),
    };
    let exhausted = told.stopped_by == "exhausted";
    if !exhausted && told.stopped_by != "duration" {
        let why = told.error.map_or(told.stopped_by, |error| error.text);
        bail!("{command} ended early: {why}");
    }
    let percentiles = |latency: Latency| [latency.p50, latency.p99];
    let latency = told.connect_latency_us;
    let of_a_pool = experiment.pool.is_some();
    Ok(Run {
        name: experiment.name.clone(),
        scale: experiment.scale,
        max_rate: experiment.max_rate,
        scaled_max_rate: experiment.scaled_max_rate,
        pace: experiment.pace,
        predicted_connections: experiment.predicted,
        connections: told.connections,
        checkouts: told.checkouts,
        seconds: told.seconds,
        exhausted,
        before_cliff_us: latency.before_cliff.filter(|_| !of_a_pool).map(percentiles),
        after_cliff_us: latency.after_cliff.map(percentiles),
        time_wait: told.time_wait.client_side,
        agrees: experiment.agrees(&Came {
            connections: told.connections,
            seconds: told.seconds,
            exhausted,
            time_wait: told.time_wait.client_side,
        }),
        command,
    })
}

/// The words of a run that could not begin.
fn refusal(said: &str, command: &str) -> anyhow::Error {
    let said = match said.split_once("\nerror: ") {
        Some((_, error)) => error,
        None => said.strip_prefix("error: ").unwrap_or(said),
    };
    let said = said.trim();
    match said.split_once("\nhint: ") {
        Some((message, hint)) => Refusal::new(message.to_owned(), hint.to_owned()).into(),
        None => anyhow::anyhow!("{command}: {said}"),
    }
}
