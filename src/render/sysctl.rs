//! A file for /etc/sysctl.d.

use std::io::{self, Write};

use textwrap::{Options, WordSplitter};

use crate::judge::advice::Advice;

/// How wide a comment gets.
const WIDTH: usize = 90;

/// Writes the changes as `sysctl -p FILE` reads them, each under its reason and its risk.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    comment(out, "", &advice.summary)?;
    comment(
        out,
        "",
        "Written by twcheck advise; the application's part is in its table.",
    )?;
    if let Some(place) = &advice.place {
        comment(out, "", &format!("Here {}", place.meaning))?;
    }
    if let Some(namespace) = &advice.namespace {
        comment(
            out,
            "",
            &format!(
                "For network namespace {namespace}: a sysctl of the machine does not reach it. Until \
                 it ends: `{} sysctl -p FILE`; for good, where the container or service is defined.",
                namespace.entrance()
            ),
        )?;
    }
    let number_of_steps = advice.steps.len();
    for (number, step) in (1..).zip(&advice.steps) {
        writeln!(out)?;
        comment(
            out,
            "",
            &format!("Step {number} of {number_of_steps}. {}", step.bears()),
        )?;
        for change in &step.changes {
            let now = match change.current.as_str() {
                "" => "empty",
                now => now,
            };
            comment(
                out,
                "",
                &format!("{} Risk: {} Now {now}.", change.why, change.risk),
            )?;
            writeln!(out, "{} = {}", change.sysctl, change.recommended)?;
        }
    }
    out.flush()
}

pub(super) fn comment(out: &mut dyn Write, indent: &str, text: &str) -> io::Result<()> {
    let whole_words = Options::new(WIDTH)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    for line in textwrap::wrap(text, whole_words) {
        writeln!(out, "{indent}# {line}")?;
    }
    Ok(())
}
