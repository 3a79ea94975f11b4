//! A second look, where one does not tell enough.

use std::time::Duration;

use anyhow::Result;

use crate::judge::Capacity;
use crate::judge::reuse::{is_open, is_trouble_counted};
use crate::model::Snapshot;
use crate::system::{Machine, View};

/// Looks again so often, after a pause each time: a quarter of a second in all, in which a client
/// of four connections/s shows what it does.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at the ports of `machine`, and closer where it is open whether TIME_WAIT is reused, or
/// whether what the kernel counted still goes on.
///
/// # Errors
/// When no socket table can be read.
pub fn look(machine: &Machine, view: View) -> Result<Snapshot> {
    let mut snapshot = machine.look(view)?;
    let Some(capacity) = Capacity::of(&snapshot) else {
        return Ok(snapshot);
    };
    let is_counted = is_trouble_counted(&snapshot);
    for _ in 0..LOOKS {
        if is_open(&snapshot, capacity.usable_ports) {
            snapshot.note_timestamps(machine.timestamps());
        }
        if !is_counted && !is_open(&snapshot, capacity.usable_ports) {
            break;
        }
        snapshot.growth = machine.growth(&snapshot.counters, PAUSE);
        if snapshot.growth.is_none() {
            break; // A recorded host does not change.
        }
    }
    Ok(snapshot)
}
