//! Looks at a machine: one, and a second where that does not tell enough.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::judge::Capacity;
use crate::judge::reuse::{is_open, is_too_young, is_trouble_counted, unsettled, worth_trying};
use crate::judge::table::{bound_matters, disagreement, inbound_matters, sample};
use crate::model::{Flow, Growth, Snapshot};
use crate::system::{Judgement, Machine, View, trial};

/// Looks again so often, after a pause each time: a quarter of a second in all, in which a client
/// of four connections/s shows what it does.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// A wait longer than this for ports to grow old enough to be tried is not worth it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at `machine` once.
///
/// # Errors
/// When no socket table can be read.
pub fn glance(machine: &Machine, view: View) -> Result<Snapshot> {
    let judgement = Judgement {
        bound_matters,
        inbound_matters,
        sample,
        disagreement,
    };
    machine.look(view, judgement)
}

/// Looks at the ports of `machine`, and closer: the kernel is asked whether it has a port for the
/// flows that take most, and where it is open whether TIME_WAIT is reused, for some of these; what
/// it counted is looked at again where that may still go on.
///
/// # Errors
/// When no socket table can be read.
pub fn look(machine: &Machine, view: View) -> Result<Snapshot> {
    let mut snapshot = glance(machine, view)?;
    let Some(capacity) = Capacity::of(&snapshot) else {
        return Ok(snapshot);
    };
    let usable = capacity.usable_ports;
    let flows = try_ports(machine, &mut snapshot, usable);
    let delay = snapshot.tunables.reuse_delay() * 2;
    let can_try = snapshot.passed_over.is_some() && delay <= PATIENCE && !machine.is_recorded();
    if can_try && is_too_young(&snapshot, &flows, usable) {
        thread::sleep(delay);
        // What was true before is not told now.
        snapshot = glance(machine, view)?;
        try_ports(machine, &mut snapshot, usable);
    }
    let is_counted = is_trouble_counted(&snapshot);
    if !is_counted && !is_open(&snapshot, usable) {
        return Ok(snapshot);
    }
    // What was tried has been counted too.
    let before = machine.counters();
    for _ in 0..LOOKS {
        if is_open(&snapshot, usable) {
            snapshot.note_timestamps(machine.timestamps());
        }
        if !is_counted && !is_open(&snapshot, usable) {
            break;
        }
        let Some(before) = &before else {
            // A recorded host does not change.
            snapshot.growth = machine.recorded_growth();
            break;
        };
        thread::sleep(PAUSE);
        let now = machine.counters();
        snapshot.growth = now.map(|now| Growth::between(before, &now));
    }
    Ok(snapshot)
}

/// Asks the kernel about the flows that take most, which it returns.
fn try_ports(machine: &Machine, snapshot: &mut Snapshot, usable: u32) -> Vec<Flow> {
    let flows = worth_trying(snapshot, usable);
    snapshot.note_trials(trial::ports(machine, snapshot, &flows));
    let open = unsettled(snapshot, &flows, usable);
    snapshot.note_trials(trial::reuse(machine, snapshot, &open));
    flows
}
