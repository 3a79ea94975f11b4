use std::iter;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::latency::Latency;
use super::report::{Report, StoppedBy};
use crate::judge::experiment::{Came, Experiment, Laboratory, Proof, Run};
use crate::refusal::Refusal;
use crate::system::netns;

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

/// What repeats `experiment` by hand: `repro` and its options.
fn arguments(experiment: &Experiment) -> Vec<String> {
    let mut arguments = vec!["repro".to_owned()];
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    for (key, value) in &experiment.settings {
        add("--set", format!("{key}={value}"));
    }
    if let Some(pace) = experiment.pace {
        add("--rate", pace.to_string());
    }
    if let Some(pool) = experiment.pool {
        add("--pool", pool.to_string());
    }
    add("--duration", format!("{}s", experiment.duration.as_secs()));
    arguments
}

/// The same as one line for a shell.
fn command_line(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|word| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    let words: Vec<_> = iter::once("twcheck".to_owned()).chain(quoted).collect();
    words.join(" ")
}

fn try_out(experiment: &Experiment) -> Result<Run> {
    let arguments = arguments(experiment);
    let command = command_line(&arguments);
    // The path holds even where the program has been replaced meanwhile.
    let output = Command::new("/proc/self/exe")
        .args(&arguments)
        .arg("--json")
        // What it says is not wrapped.
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command}"))?;
    let Ok(report) = serde_json::from_slice::<Report>(&output.stdout) else {
        return Err(refusal(&command, &String::from_utf8_lossy(&output.stderr)).into());
    };
    let exhausted = report.stopped_by == StoppedBy::Exhausted;
    if !exhausted && report.stopped_by != StoppedBy::Duration {
        let word = report.stopped_by.word().to_owned();
        let why = report.error.map_or(word, |error| error.text);
        bail!("{command} ended early: {why}");
    }
    let percentiles = |latency: Latency| [latency.p50, latency.p99];
    let latency = report.connect_latency_us;
    let of_a_pool = experiment.pool.is_some();
    let came = Came {
        connections: report.connections,
        seconds: report.seconds,
        exhausted,
        time_wait: report.time_wait.client_side,
    };
    Ok(Run {
        name: experiment.name.clone(),
        scale: experiment.scale,
        max_rate: experiment.max_rate,
        scaled_max_rate: experiment.scaled_max_rate,
        pace: experiment.pace,
        predicted_connections: experiment.predicted,
        connections: came.connections,
        checkouts: report.checkouts,
        seconds: came.seconds,
        exhausted,
        before_cliff_us: latency.before_cliff.filter(|_| !of_a_pool).map(percentiles),
        after_cliff_us: latency.after_cliff.map(percentiles),
        time_wait: came.time_wait,
        agrees: experiment.agrees(&came),
        command,
    })
}

/// Why a run of `command` did not begin, by what it `said` on stderr.
fn refusal(command: &str, said: &str) -> Refusal {
    /// What `advise` can do without a private namespace.
    const INSTEAD: &str = "`twcheck advise` without --prove needs no namespace";
    let after = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    Refusal::new(
        format!(
            "{} ({command})",
            after("error: ").unwrap_or(said).trim_end()
        ),
        after("hint: ")
            .unwrap_or(INSTEAD)
            .replace(netns::INSTEAD, INSTEAD),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_is_repeated_by_a_line_for_the_shell() {
        let experiment = Experiment {
            name: "the settings of now".into(),
            scale: 1.0,
            ports: 410,
            settings: vec![
                ("net.ipv4.ip_local_port_range", "20000 20409".into()),
                ("net.ipv4.tcp_tw_reuse", "1".into()),
            ],
            pace: Some(325.0),
            pool: Some(8),
            duration: Duration::from_secs(5),
            max_rate: None,
            scaled_max_rate: None,
            predicted: None,
        };
        assert_eq!(
            command_line(&arguments(&experiment)),
            "twcheck repro --set 'net.ipv4.ip_local_port_range=20000 20409' --set \
             net.ipv4.tcp_tw_reuse=1 --rate 325 --pool 8 --duration 5s"
        );
    }
}
