//! A verdict for a ticket or a chat: GitHub's Markdown, as GitLab, Jira's editor, Slack's and
//! Mattermost's take it.

use std::io::{self, Write};

use super::evidence::{drops, flow_row, groups, remarks};
use crate::judge::level::Level;
use crate::judge::namespaces::Namespaces;
use crate::judge::verdict::Verdict;
use crate::words::{count, counted, printable};

/// Writes one verdict.
///
/// # Errors
/// When `out` cannot be written.
pub fn verdict(verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    write_verdict(verdict, out)?;
    out.flush()
}

/// Writes the verdicts of all network namespaces: a line for each, and in full those that are not
/// well, at most `top` of them, all for 0.
///
/// # Errors
/// When `out` cannot be written.
pub fn namespaces(all: &Namespaces<Verdict>, top: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "**{}**: {}\n", all.level.word(), text(&all.summary))?;
    let mut rows = Vec::new();
    for looked in &all.namespaces {
        let flow = looked
            .report
            .as_ref()
            .and_then(|verdict| Some(flow_row(verdict.flows.first()?, drops(verdict))));
        let [_, _, ports, free, pace, limit] = flow.unwrap_or_default();
        let why = looked.why.clone().unwrap_or_default();
        let (title, who) = (looked.namespace.title(), looked.namespace.inhabitants());
        let level = if looked.is_gone {
            "-"
        } else {
            looked.level().word()
        };
        rows.push([level.into(), title, who, ports, free, pace, limit, why]);
    }
    let headings = [
        "Level",
        "Namespace",
        "Processes",
        "Ports",
        "Free",
        "Now/s",
        "Max/s",
        "Why not",
    ];
    write_table(headings, 3..7, &rows, out)?;
    let troubled = all.namespaces.iter().filter(|it| it.level() > Level::Ok);
    let troubled: Vec<_> = troubled
        .filter_map(|it| Some((it, it.report.as_ref()?)))
        .collect();
    let shown = if top == 0 { troubled.len() } else { top };
    for (looked, verdict) in troubled.iter().take(shown) {
        writeln!(out, "\n### {}\n", text(&looked.namespace.title()))?;
        write_verdict(verdict, out)?;
    }
    let more = troubled.len().saturating_sub(shown);
    if more > 0 {
        let more = counted(more as u64, "more namespace");
        writeln!(out, "\n{more} that are not well (`--top 0`)")?;
    }
    out.flush()
}

fn write_verdict(verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "**{}**: {}",
        verdict.level.word(),
        text(&verdict.summary)
    )?;
    let flows: Vec<_> = verdict.worth_a_line().collect();
    if !flows.is_empty() {
        writeln!(out)?;
        let rows: Vec<_> = flows
            .iter()
            .map(|flow| flow_row(flow, drops(verdict)))
            .collect();
        let headings = ["From", "Toward", "Ports", "Free", "Now/s", "Max/s"];
        write_table(headings, 2..6, &rows, out)?;
        let more = verdict.flows_total - verdict.flows.len();
        if more > 0 {
            writeln!(out, "\n{} more flows (`--top 0`)", count(more as u64))?;
        }
    }
    writeln!(out)?;
    for group in groups(verdict) {
        let (code, level) = (group.code, group.level.word());
        writeln!(out, "- `{code}` ({level})")?;
        for message in &group.messages {
            writeln!(out, "  - {}", text(message))?;
        }
        for step in &group.steps {
            writeln!(out, "  - next: {}", text(step))?;
        }
    }
    for (about, remark) in remarks(verdict) {
        writeln!(out, "- {about}: {}", text(&remark))?;
    }
    let host = &verdict.host;
    let kernel = host.kernel.as_ref().map(|it| format!("Linux {it}"));
    let netns = host.netns.map(|it| format!("network namespace {it}"));
    let known: Vec<_> = [host.hostname.clone(), kernel, netns]
        .into_iter()
        .flatten()
        .collect();
    if !known.is_empty() {
        writeln!(out, "- Host: {}", text(&known.join(", ")))?;
    }
    Ok(())
}

/// A table whose columns in `numbers` stand to the right.
fn write_table<const N: usize>(
    headings: [&str; N],
    numbers: std::ops::Range<usize>,
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rules = std::array::from_fn::<_, N, _>(|column| {
        if numbers.contains(&column) {
            "--:"
        } else {
            "---"
        }
    });
    writeln!(out, "| {} |\n|{}|", headings.join(" | "), rules.join("|"))?;
    for row in rows {
        let cells = row.each_ref().map(|cell| text(cell));
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// `text` so that it shows as it is. Commands between backticks become code; names of processes and
/// hosts are anybody's choice, and make no link, picture, heading, mention or table.
fn text(text: &str) -> String {
    let text = printable(text);
    // Where one is missing, a name has it.
    let is_paired = text.matches('`').count().is_multiple_of(2);
    let parts: Vec<_> = text.split('`').enumerate().collect();
    let parts = parts.iter().map(|&(place, part)| {
        if is_paired && place % 2 == 1 {
            // Also within code a bar would end the cell of a table.
            part.replace('|', "\\|")
        } else {
            escaped(part)
        }
    });
    parts
        .collect::<Vec<_>>()
        .join(if is_paired { "`" } else { "\\`" })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_within = |next: Option<&char>| {
            before.is_alphanumeric() && next.is_some_and(|next| next.is_alphanumeric())
        };
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            // Chats know no escape for a mention; nothing of no width parts it from its name.
            '@' => escaped.push_str("@\u{200b}"),
            // Within a word it stresses nothing, and TIME_WAIT reads better without.
            '_' if is_within(letters.peek()) => escaped.push('_'),
            '\\' | '*' | '_' | '[' | ']' | '~' | '#' | '|' | '!' | '>' | '$' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter => escaped.push(letter),
        }
        before = letter;
    }
    escaped
}
