use std::io::{self, Write};

use super::grid::Grid;
use super::under_sentence;
use crate::judge::explain::{Cause, Explanation, Kinds, Timeline};
use crate::judge::level::Level;
use crate::render::Screen;
use crate::words::{count, sparkline};

/// Causes listed; all are in the JSON.
const LISTED: usize = 12;

/// `twcheck explain`: a sentence, the causes, what each kind means, and what is so here and now.
///
/// # Errors
/// When `out` cannot be written.
pub fn explanation(
    explanation: &Explanation,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    let sentence = screen.wrap("", "", &explanation.summary);
    under_sentence(&sentence, screen, out, |out| {
        if let Some(advice) = explanation.advice {
            writeln!(out, "{}", screen.wrap("", "", advice))?;
        }
        write_causes(&explanation.causes, screen, out)?;
        for cause in explanation.each_kind() {
            write_cause(cause, screen, out)?;
        }
        write_now(explanation, screen, out)
    })
}

fn write_causes(causes: &[Cause], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if causes.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let has_times = causes.iter().any(|cause| cause.timeline.is_some());
    let headings = ["COUNT", "KIND", "TOWARD", "PER MINUTE"];
    let headings = &headings[..if has_times { 4 } else { 3 }];
    let mut rows = Grid::new(screen, headings, &[0]);
    for cause in causes.iter().take(LISTED) {
        let bars = cause
            .timeline
            .as_ref()
            .map(|line| sparkline(&line.bars(), 16, 0));
        let row = [
            count(cause.count),
            cause.kind.to_string(),
            cause.toward().to_owned(),
            bars.unwrap_or_default(),
        ];
        rows.row(&row[..headings.len()]);
    }
    rows.write(out)?;
    if causes.len() > LISTED {
        writeln!(
            out,
            "… and {} more (--json)",
            count((causes.len() - LISTED) as u64)
        )?;
    }
    Ok(())
}

fn write_cause(cause: &Cause, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let level = if cause.is_exhaustion() {
        Level::Critical
    } else {
        Level::Warning
    };
    writeln!(out, "\n{}", screen.paint(level, &cause.kind.to_string()))?;
    if let (Some(example), Some(line)) = (&cause.example, cause.line) {
        let first = format!("  line {}: ", count(line));
        writeln!(
            out,
            "{}",
            screen.wrap(&first, &" ".repeat(first.len()), example)
        )?;
    }
    if let (Some(first), Some(last)) = (cause.first, cause.last) {
        let each = cause.timeline.as_ref().map_or(1, Timeline::minutes_each);
        let span = match each {
            1 => String::new(),
            each => format!(", {} minutes and more a bar", count(each)),
        };
        let text = if first == last {
            format!("at {first}")
        } else {
            format!("from {first} to {last}{span}")
        };
        writeln!(out, "{}", screen.wrap("  when: ", "        ", &text))?;
    }
    writeln!(out, "{}", screen.wrap("  ", "  ", &cause.meaning))?;
    writeln!(
        out,
        "{}",
        screen.wrap("  next: ", "        ", &cause.next_step)
    )?;
    for note in &cause.notes {
        writeln!(out, "{}", screen.wrap("  note: ", "        ", note))?;
    }
    Ok(())
}

fn write_now(explanation: &Explanation, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    if !explanation.now.is_empty() {
        writeln!(out, "\nHere and now, on this machine:")?;
    }
    for now in &explanation.now {
        let word = match now.is_exhausted {
            Some(true) => screen.paint(Level::Critical, "exhausted"),
            Some(false) => screen.paint(Level::Ok, "not exhausted"),
            None => screen.paint(Level::Unknown, "unknown"),
        };
        let text = format!("toward {}: {}", now.toward(), now.summary);
        writeln!(out, "  {word}")?;
        writeln!(out, "{}", screen.wrap("    ", "    ", &text))?;
    }
    Ok(())
}

/// `twcheck explain --list`.
///
/// # Errors
/// When `out` cannot be written.
pub fn kinds(kinds: &Kinds, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    for (place, kind) in kinds.kinds.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", kind.kind)?;
        writeln!(out, "{}", screen.wrap("  says: ", "        ", kind.words))?;
        writeln!(out, "{}", screen.wrap("  ", "  ", &kind.meaning))?;
        writeln!(
            out,
            "{}",
            screen.wrap("  next: ", "        ", &kind.next_step)
        )?;
    }
    out.flush()
}
