//! `twcheck watch`

use std::io::{self, IsTerminal};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP};
use signal_hook::flag::register;
use signal_hook::low_level::emulate_default_handler;

use super::place::Post;
use super::verdict::{Asked, look_from};
use crate::cli::WatchArgs;
use crate::exit::Exit;
use crate::judge::trend::Trend;
use crate::judge::verdict::Verdict;
use crate::refusal::Refusal;
use crate::render::Screen;
use crate::render::watch::{Controls, Deed, Scene, Stage, rows};
use crate::repro::Stop;
use crate::system::{Input, Stopwatch, can_be_stopped, input_within};

/// Flows listed at most: more than anybody goes through.
const FLOWS: usize = 500;

/// The longest wait while something is looked at, whose end wakes nobody.
const WATCHFUL: Duration = Duration::from_millis(50);

/// The time left is counted down in these steps.
const SECOND: Duration = Duration::from_secs(1);

/// Whoever has live sockets for microseconds alone, or tries where no port is left, is looked for in
/// one look of so many: that is the costly part of one.
const SEARCH_EACH: u64 = 10;

/// How long: a client of 40 connections/s has a dozen in that time.
const SEARCH: Duration = Duration::from_millis(300);

/// Shows the verdict live until a key or a signal ends it.
///
/// # Errors
/// Without a terminal, or when the first look fails.
pub fn run(args: &WatchArgs) -> Result<Exit> {
    check_terminal()?;
    let stopwatch = Stopwatch::start();
    // A namespace is found, and perhaps entered, before there is another thread.
    let post = Post::take(&args.place, args.destination.as_ref())?;
    let about = about(args, &post);
    let signals = Signals::catch()?;
    let first = look_from(&post, &Asked::live(FLOWS, None, true))?;
    let watch = Watch::new(first, stopwatch, args.every);
    let looker = Looker::start(post)?;
    let stage = Stage::enter(Screen::of_stdout()).context("taking the terminal")?;
    watch.go_on(stage, looker, &signals, &about)?;
    Ok(Exit::Ok)
}

/// One that cannot be drawn on, or has no keys, is none.
fn check_terminal() -> Result<(), Refusal> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    let missing = if !io::stdout().is_terminal() {
        "standard output is none"
    } else if !io::stdin().is_terminal() {
        "standard input, where the keys come from, is none"
    } else if is_dumb {
        "this one cannot be drawn on (TERM)"
    } else {
        return Ok(());
    };
    Err(Refusal::new(
        format!("watch needs a terminal, and {missing}"),
        "for a log or a pipe: `twcheck verdict --every 2s`",
    ))
}

/// What is watched, for the first line.
fn about(args: &WatchArgs, post: &Post) -> String {
    let toward = args.destination.as_ref().map(|asked| format!(" {asked}"));
    let namespace = post.namespace().map(|it| format!(" {}", it.option));
    toward.into_iter().chain(namespace).collect()
}

/// Signals that came.
struct Signals {
    stop: Stop,
    /// The terminal has gone.
    hung_up: Arc<AtomicBool>,
    /// To be stopped, as by Ctrl-Z.
    to_stop: Arc<AtomicBool>,
    /// It was stopped and goes on.
    goes_on: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let flag = |signal| {
            let flag = Arc::new(AtomicBool::new(false));
            register(signal, Arc::clone(&flag)).map(|_| flag)
        };
        Ok(Self {
            stop: Stop::on_signals()?,
            hung_up: flag(SIGHUP)?,
            to_stop: flag(SIGTSTP)?,
            goes_on: flag(SIGCONT)?,
        })
    }

    fn end(&self) -> bool {
        self.stop.asked().is_some() || self.hung_up.load(Ordering::Relaxed)
    }
}

/// Looks on a thread of its own, one look whenever it is asked: keys do not wait for it.
struct Looker {
    ask: Sender<Asked>,
    seen: Receiver<Result<Verdict>>,
    thread: JoinHandle<()>,
}

impl Looker {
    fn start(post: Post) -> io::Result<Self> {
        let ((ask, asked), (tell, seen)) = (mpsc::channel(), mpsc::channel());
        let thread = thread::Builder::new().name("look".into()).spawn(move || {
            for asked in asked {
                // Who has ended does not hear it.
                let _ = tell.send(look_from(&post, &asked));
            }
        })?;
        Ok(Self { ask, seen, thread })
    }
}

/// What is known, and what is asked for.
struct Watch {
    verdict: Verdict,
    /// When that was seen.
    seen: Instant,
    /// Why nothing was seen since.
    failed: Option<String>,
    trend: Trend,
    controls: Controls,
    stopwatch: Stopwatch,
    begin: Instant,
    /// When the last look was over, whatever came of it.
    looked: Instant,
    /// What the process had taken by then of a processor.
    taken: Option<Duration>,
    /// What it took of that since the look before.
    cpu: Option<Duration>,
}

impl Watch {
    fn new(first: Verdict, stopwatch: Stopwatch, every: Duration) -> Self {
        let now = Instant::now();
        let mut trend = Trend::default();
        trend.note(Duration::ZERO, &first);
        let taken = stopwatch.cost().cpu;
        Self {
            verdict: first,
            seen: now,
            failed: None,
            trend,
            controls: Controls::new(every),
            stopwatch,
            begin: now,
            looked: now,
            taken,
            cpu: taken,
        }
    }

    fn go_on(
        mut self,
        mut stage: Stage,
        looker: Looker,
        signals: &Signals,
        about: &str,
    ) -> Result<()> {
        let (mut is_looking, mut has_changed) = (false, true);
        let mut drawn = Instant::now();
        while !signals.end() {
            if signals.to_stop.swap(false, Ordering::Relaxed) {
                suspend(&mut stage, signals)?;
                has_changed = true;
            } else if signals.goes_on.swap(false, Ordering::Relaxed) {
                stage.renew()?;
                has_changed = true;
            }
            if has_changed || drawn.elapsed() >= SECOND {
                drawn = Instant::now();
                stage.show(&self.scene(about))?;
            }
            if !is_looking && self.until_look().is_some_and(|wait| wait.is_zero()) {
                // Where nobody hears it, its answers say so.
                is_looking = looker.ask.send(self.asked()).is_ok();
            }
            let wait = if is_looking {
                WATCHFUL
            } else {
                let next_second = SECOND.saturating_sub(drawn.elapsed());
                self.until_look()
                    .map_or(next_second, |wait| wait.min(next_second))
            };
            if input_within(wait) == Input::Gone {
                break;
            }
            has_changed = false;
            // Another size of the terminal comes without any input.
            while event::poll(Duration::ZERO)? {
                match self.take(&event::read()?) {
                    Some(Deed::Quit) => return Ok(()),
                    Some(Deed::Suspend) => suspend(&mut stage, signals)?,
                    Some(Deed::Redraw) => stage.renew()?,
                    Some(Deed::Draw) | None => {}
                }
                has_changed = true;
            }
            match looker.seen.try_recv() {
                Ok(seen) => {
                    (is_looking, has_changed) = (false, true);
                    self.note(seen);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    drop(stage);
                    let fault = looker.thread.join();
                    panic::resume_unwind(fault.expect_err("only a fault ends it"));
                }
            }
        }
        Ok(())
    }

    /// What the next look is to tell.
    fn asked(&self) -> Asked {
        let is_time = self.trend.looks % SEARCH_EACH == 1;
        let is_unknown = is_time && !self.trend.knows_who(&self.verdict);
        let hunts = is_time || !self.verdict.is_exhausted();
        Asked::live(FLOWS, is_unknown.then_some(SEARCH), hunts)
    }

    /// What is to be done about an event, if anything.
    fn take(&mut self, event: &Event) -> Option<Deed> {
        let key = event.as_key_press_event()?;
        let rows = |controls: &Controls| rows(&self.verdict, &self.trend, controls);
        Some(self.controls.update(key, rows))
    }

    fn note(&mut self, seen: Result<Verdict>) {
        self.looked = Instant::now();
        match seen {
            Ok(verdict) => {
                (self.seen, self.failed) = (self.looked, None);
                self.trend.note(self.begin.elapsed(), &verdict);
                self.verdict = verdict;
            }
            Err(why) => self.failed = Some(format!("{why:#}.")),
        }
        let taken = self.stopwatch.cost().cpu;
        let both = taken.zip(self.taken);
        self.cpu = both.map(|(now, before)| now.saturating_sub(before));
        self.taken = taken;
    }

    /// The time until the next look; `None` while there is to be none.
    fn until_look(&self) -> Option<Duration> {
        let pace = (!self.controls.is_paused).then_some(self.controls.every)?;
        Some(pace.saturating_sub(self.looked.elapsed()))
    }

    fn scene<'a>(&'a self, about: &'a str) -> Scene<'a> {
        Scene {
            verdict: &self.verdict,
            trend: &self.trend,
            controls: &self.controls,
            about,
            failed: self.failed.as_deref(),
            age: self.seen.elapsed(),
            running: self.begin.elapsed(),
            cpu: self.cpu,
        }
    }
}

/// Stops as any program does, with the terminal given back until it goes on; not where nobody could
/// let it.
fn suspend(stage: &mut Stage, signals: &Signals) -> io::Result<()> {
    if !can_be_stopped() {
        return Ok(());
    }
    stage.leave_for(|| emulate_default_handler(SIGTSTP))?;
    signals.goes_on.store(false, Ordering::Relaxed);
    Ok(())
}
