use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Screen;
use crate::judge::experiment::{Experiment, Laboratory};
use crate::repro::Moment;
use crate::words::{count, latency, percent, rate};

/// The line that follows a run on a terminal; elsewhere nothing.
pub struct Progress {
    bar: ProgressBar,
    usable: Option<u32>,
    screen: Screen,
}

impl Progress {
    /// A line on stderr; `usable` are the ports there are.
    #[must_use]
    pub fn new(usable: Option<u32>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        dress(&bar, "{spinner} {wide_msg}");
        let screen = Screen::of_stderr();
        bar.set_message(screen.spelled("connecting …").into_owned());
        bar.tick();
        Self {
            bar,
            usable,
            screen,
        }
    }

    /// Shows one moment of the run.
    pub fn show(&self, moment: &Moment) {
        let ports = match (moment.ports_in_use, self.usable) {
            (Some(used), Some(usable)) => format!(
                ", {:.0} % of {} ports",
                percent(used, usable),
                count(usable)
            ),
            _ => String::new(),
        };
        let opening = moment
            .connect_latency_us
            .map_or_else(String::new, |opening| {
                format!(
                    ", p50 {}, p99 {}",
                    latency(opening.p50),
                    latency(opening.p99)
                )
            });
        let line = format!(
            "{:.0} s: {} made, {}/s{ports}{opening}",
            moment.seconds.as_secs_f64(),
            count(moment.connections),
            rate(moment.rate),
        );
        self.bar
            .set_message(self.screen.spelled(&line).into_owned());
        self.bar.tick();
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Gives a line its parts, and a spinner that every terminal can show.
fn dress(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.tick_chars("|/-\\ "));
    }
}

/// The line that follows a series of experiments on a terminal; elsewhere nothing.
pub struct Steps(ProgressBar);

impl Steps {
    /// A line on stderr.
    #[must_use]
    pub fn new(laboratory: &Laboratory) -> Self {
        const TICK: Duration = Duration::from_millis(200);
        let length = laboratory.experiments.len() as u64;
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        dress(&bar, "{spinner} {pos} of {len}: {wide_msg}");
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Shows which one begins.
    pub fn show(&self, experiment: &Experiment) {
        self.0.inc(1);
        let pace = experiment
            .pace
            .map_or_else(|| "as fast as it goes".into(), |pace| format!("{pace}/s"));
        self.0.set_message(format!("{}, {pace}", experiment.name));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
