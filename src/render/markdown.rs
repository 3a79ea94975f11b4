//! For a ticket or an incident report.

use std::io::{self, Write};

use crate::judge::explain::{Explanation, Kinds};
use crate::words::{count, sparkline};

/// A heading, a table of the causes, and what each means.
///
/// # Errors
/// When `out` cannot be written.
pub fn explanation(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "**{}**", cell(&explanation.summary))?;
    if let Some(advice) = explanation.advice {
        writeln!(out, "\n{advice}")?;
    }
    if !explanation.causes.is_empty() {
        writeln!(
            out,
            "\n| count | kind | toward | first | last | per minute |"
        )?;
        writeln!(out, "|--:|---|---|---|---|---|")?;
    }
    for cause in &explanation.causes {
        let time = |moment: Option<_>| {
            moment.map_or_else(String::new, |moment: crate::judge::explain::Moment| {
                moment.to_string()
            })
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            count(cause.count),
            cause.kind,
            cell(cause.toward()),
            time(cause.first),
            time(cause.last),
            cause
                .timeline
                .as_ref()
                .map_or_else(String::new, |line| sparkline(&line.bars(), 20, 0))
        )?;
    }
    for cause in explanation.each_kind() {
        writeln!(out, "\n### {}\n", cause.kind)?;
        if let (Some(example), Some(line)) = (&cause.example, cause.line) {
            let fence = if example.contains("```") {
                "````"
            } else {
                "```"
            };
            writeln!(out, "Line {line}:\n\n{fence}\n{example}\n{fence}\n")?;
        }
        writeln!(out, "{}\n\nNext: {}", cause.meaning, cause.next_step)?;
        for note in &cause.notes {
            writeln!(out, "\nNote: {note}.")?;
        }
    }
    if !explanation.now.is_empty() {
        writeln!(out, "\n### Here and now\n")?;
    }
    for now in &explanation.now {
        writeln!(out, "- {}", cell(&now.sentence()))?;
    }
    out.flush()
}

/// A table of what is recognised.
///
/// # Errors
/// When `out` cannot be written.
pub fn kinds(kinds: &Kinds, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "| kind | what programs say | what it means |\n|---|---|---|"
    )?;
    for kind in &kinds.kinds {
        let (words, meaning) = (cell(kind.words), cell(&kind.meaning));
        writeln!(out, "| {} | {words} | {meaning} |", kind.kind)?;
    }
    out.flush()
}

/// `text` in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}
