//! A file for /etc/sysctl.d.

use std::io::{self, Write};

use crate::judge::advice::Advice;
use crate::words::rate_limit;

/// How wide a comment gets.
const WIDTH: usize = 90;

/// Writes the changes as `sysctl -p FILE` reads them, each under its reason and its risk.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    comment(out, &advice.summary)?;
    comment(
        out,
        "Written by twcheck advise; the application's part is in its table.",
    )?;
    for change in &advice.changes {
        writeln!(out)?;
        comment(out, &change.why)?;
        comment(out, &format!("Risk: {}", change.risk))?;
        comment(
            out,
            &format!(
                "Now {}. At most {} connections/s before, {} after.",
                change
                    .current
                    .as_deref()
                    .filter(|now| !now.is_empty())
                    .unwrap_or("empty"),
                rate_limit(change.max_rate_before),
                rate_limit(change.max_rate_after)
            ),
        )?;
        writeln!(out, "{} = {}", change.sysctl, change.recommended)?;
    }
    out.flush()
}

fn comment(out: &mut dyn Write, text: &str) -> io::Result<()> {
    for line in textwrap::wrap(text, WIDTH) {
        writeln!(out, "# {line}")?;
    }
    Ok(())
}
