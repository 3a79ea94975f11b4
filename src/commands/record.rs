//! `twcheck record`

use std::time::Duration;

use anyhow::Result;

use super::{closer, place, verdict};
use crate::cli::RecordArgs;
use crate::exit::Exit;
use crate::judge::flow::FlowReport;
use crate::judge::level::Thresholds;
use crate::judge::verdict::verdict as judge;
use crate::model::Cost;
use crate::render::{self, Screen, VerdictFormat};
use crate::system::{
    Machine, Recording, Search, Subject, View, can_be_recorded, open_recording, other_namespaces,
    owners, route, take,
};
use crate::words::counted;

/// Flows whose owners and ways are recorded, the worst first.
const FLOWS: usize = 100;

/// Records this machine, and says what the recording says.
///
/// # Errors
/// When it cannot be written, or no socket table be read.
pub fn run(args: &RecordArgs) -> Result<Exit> {
    can_be_recorded(&args.to)?;
    let is_own = args.place.wanted().is_none();
    let (mut recording, namespace) = place::here(&args.place, None, |machine, _| {
        record(machine, args.sample, is_own)
    })?;
    if let Some(namespace) = namespace {
        recording.settle_in(namespace);
    }
    if args.scrub {
        recording.scrub();
    }
    recording.write(&args.to)?;
    render::note_gaps(&recording.gaps);
    let (files, bytes) = recording.size();
    render::note(&format!(
        "recorded in {}: {} of /proc, {} KiB{}; it is read by `twcheck verdict --from {0}`",
        args.to.display(),
        counted(files as u64, "file"),
        bytes.div_ceil(1024),
        if recording.has_answers() {
            ", and what the kernel answered besides"
        } else {
            ""
        }
    ));
    drop(recording);
    let verdict = verdict::of_recording(open_recording(&args.to)?)?;
    let screen = Screen::of_stdout();
    // A table does not tell what the look took.
    VerdictFormat::Table.write(&verdict, Cost::default(), screen, &mut screen.lock())?;
    Ok(Exit::Ok)
}

/// Looks at all that any command would look at.
fn record(machine: &Machine, sample: Option<Duration>, is_own: bool) -> Result<Recording> {
    let machine = &machine.on_tape();
    let mut snapshot = closer::look(machine, View::Everything)?;
    if snapshot.timestamps.is_empty() {
        snapshot.note_timestamps(machine.timestamps());
    }
    let verdict = judge(&snapshot, Thresholds::default(), FLOWS);
    let flows: Vec<_> = verdict.flows.iter().map(FlowReport::flow).collect();
    let search = Search {
        sample,
        portless: verdict.is_exhausted(),
        service: verdict.service_to_own(),
    };
    let mut servers: Vec<_> = verdict.flows.iter().map(FlowReport::server).collect();
    servers.sort_unstable();
    servers.dedup();
    let subject = Subject {
        snapshot: &snapshot,
        holders: machine.holders(&snapshot),
        owners: owners(machine, &flows, search),
        flows: &flows,
        routes: servers
            .into_iter()
            .map(|server| (server, route::path(server)))
            .collect(),
        others: is_own.then(|| other_namespaces(machine)).flatten(),
    };
    Ok(take(machine, subject))
}
