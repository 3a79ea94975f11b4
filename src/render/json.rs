//! The JSON contract: one object a run.

use std::io::{self, Write};

use serde::Serialize;

/// Writes `report` as one object.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)?;
    out.flush()
}
