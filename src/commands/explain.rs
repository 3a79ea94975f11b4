//! `twcheck explain`

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::{closer, place};
use crate::cli::{ExplainArgs, SourceArgs};
use crate::exit::Exit;
use crate::judge::explain::{Explanation, Kinds, Now, Reading};
use crate::judge::level::Thresholds;
use crate::judge::verdict::verdict;
use crate::model::{Destination, Snapshot, Toward};
use crate::refusal::Refusal;
use crate::render::Screen;
use crate::system::{Machine, View, route, text};

/// Destinations that are looked at: a name may take seconds to resolve.
const LOOKED_AT: usize = 3;

/// Says what an error or a log tells, and whether it is so here and now.
///
/// # Errors
/// When the log cannot be read, or standard output not written.
pub fn run(args: &ExplainArgs) -> Result<Exit> {
    args.check()?;
    let screen = Screen::of_stdout();
    let format = args.format.get();
    if args.list {
        format.write_kinds(&Kinds::all(), screen, &mut screen.lock())?;
        return Ok(Exit::Ok);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    let mut reading = Reading::new(now);
    match args.text() {
        Some(text) if text::is_file(&text) => return Err(a_file_is_piped(&text).into()),
        Some(text) => reading.read(text.as_bytes(), 0..text.len()),
        None if text::is_typed() => return Err(nothing_to_read().into()),
        None => text::read_standard_input(|text, fresh| reading.read(text, fresh))?,
    }
    let mut explanation = reading.finish();
    explanation.now = look(&args.source, &explanation, now);
    format.write(&explanation, screen, &mut screen.lock())?;
    Ok(Exit::Ok)
}

fn a_file_is_piped(path: &str) -> Refusal {
    Refusal::new(
        format!(
            "{path:?} is a file, and what is explained is the error itself, or a log on standard input"
        ),
        format!("twcheck explain < {path}"),
    )
}

fn nothing_to_read() -> Refusal {
    Refusal::new(
        "there is nothing to explain: no error was given, and nothing is piped in",
        "twcheck explain \"Can't connect to MySQL server on '10.0.0.5' (99)\", or `journalctl -u app | \
         twcheck explain`; `twcheck explain --list` names what is recognised",
    )
}

/// Whether the flows that are said to have run out are exhausted on this machine at this moment.
fn look(source: &SourceArgs, explanation: &Explanation, time: i64) -> Vec<Now> {
    let mut asked: Vec<Option<Destination>> = Vec::new();
    for cause in explanation.exhaustion() {
        let destination = cause.asked();
        if !asked.contains(&destination) && asked.len() < LOOKED_AT {
            asked.push(destination);
        }
    }
    if asked.is_empty() {
        return Vec::new();
    }
    let unknown = |why: &str| -> Vec<Now> {
        let each = asked.iter().map(Option::as_ref);
        each.map(|asked| Now::unknown(asked, why.to_owned()))
            .collect()
    };
    let looked = place::one_for_each(source, &asked, |machine, found| {
        let snapshot = closer::look(machine, View::Ports)?;
        if let Some(why) = explanation.elsewhere(snapshot.host.hostname.as_deref()) {
            return Ok(unknown(&why));
        }
        let each = asked.iter().zip(found).map(|(asked, found)| {
            let now = look_toward(machine, snapshot.clone(), asked.as_ref(), found);
            now.after(explanation.last_exhausted(asked.as_ref()), time)
        });
        Ok(each.collect())
    });
    looked.unwrap_or_else(|error| unknown(&format!("{error:#}")))
}

/// The same as `verdict` says of one destination, or of the worst flow.
fn look_toward(
    machine: &Machine,
    mut snapshot: Snapshot,
    asked: Option<&Destination>,
    found: Result<Option<Toward>>,
) -> Now {
    let toward = match found {
        Ok(toward) => toward,
        Err(error) => return Now::unknown(asked, format!("{error:#}")),
    };
    if let Some(toward) = toward.clone() {
        snapshot.tally.only_toward(toward);
    }
    let mut verdict = verdict(&snapshot, Thresholds::default(), 1);
    if let Some(toward) = toward {
        verdict.speak_of(route::paths(machine, &toward), None);
    }
    Now::of(asked, &verdict)
}
