//! A verdict for a ticket or a chat: GitHub's Markdown, as GitLab, Jira's editor, Slack's and
//! Mattermost's take it.

use std::io::{self, Write};

use super::evidence::{drops, flow_row, groups, nat_row, remarks, translated};
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
    let (troubled, more) = all.troubled(top);
    for (looked, verdict) in troubled {
        writeln!(out, "\n### {}\n", text(&looked.namespace.title()))?;
        write_verdict(verdict, out)?;
    }
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
    if let Some(nat) = verdict.nat.as_ref().filter(|nat| !nat.flows.is_empty()) {
        writeln!(out)?;
        let rows: Vec<_> = nat.flows.iter().map(nat_row).collect();
        let headings = [
            "After NAT",
            "Toward",
            "Taken",
            "Closed",
            "Of",
            "Hangs from",
            "Behind",
        ];
        write_table(headings, 2..6, &rows, out)?;
        let more = nat.flows_examined - nat.flows.len();
        if more > 0 {
            let more = counted(more as u64, "more translated flow");
            writeln!(out, "\n{more} (`--top 0`)")?;
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
    if let Some(nat) = &verdict.nat {
        writeln!(out, "- NAT: {}", text(&translated(nat)))?;
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
        let cells = row.each_ref().map(|it| cell(it));
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// `text` so that it shows as it is. Commands between backticks become code; names of processes and
/// hosts are anybody's choice, and are no picture, mention, tag or emphasis.
fn text(text: &str) -> String {
    spelled(text, str::to_owned)
}

/// The same in a table, whose cells end at a bar even within code.
fn cell(text: &str) -> String {
    spelled(text, |code| code.replace('|', "\\|"))
}

fn spelled(text: &str, code: impl Fn(&str) -> String) -> String {
    let text = printable(text);
    let parts: Vec<_> = text.split('`').collect();
    // Where one is missing or two are side by side, a name has it.
    let (plain, commands): (Vec<_>, Vec<_>) =
        (0..).zip(parts).partition(|(place, _)| place % 2 == 0);
    let is_code = |(_, part): &(u32, &str)| !part.trim().is_empty();
    if plain.len() != commands.len() + 1 || !commands.iter().all(is_code) {
        return escaped(&text);
    }
    let mut commands = commands.iter().map(|(_, part)| format!("`{}`", code(part)));
    plain
        .iter()
        .map(|(_, part)| escaped(part) + &commands.next().unwrap_or_default())
        .collect()
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
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '#' | '|' | '!' | '>' | '$' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter => escaped.push(letter),
        }
        before = letter;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;

    /// What another program reads in it: the text without blanks, and what else there is.
    fn read(markdown: &str) -> (String, Vec<String>) {
        let (mut shown, mut others) = (String::new(), Vec::new());
        let of_github = Options::ENABLE_TABLES
            | Options::ENABLE_STRIKETHROUGH
            | Options::ENABLE_TASKLISTS
            | Options::ENABLE_FOOTNOTES
            | Options::ENABLE_MATH
            | Options::ENABLE_GFM;
        for event in Parser::new_ext(markdown, of_github) {
            match event {
                Event::Text(text) | Event::Code(text) => shown.push_str(&text),
                Event::Start(
                    Tag::Paragraph
                    | Tag::Table(_)
                    | Tag::TableHead
                    | Tag::TableRow
                    | Tag::TableCell,
                )
                | Event::End(_) => {}
                other => others.push(format!("{other:?}")),
            }
        }
        (bare(&shown), others)
    }

    fn bare(text: &str) -> String {
        let is_seen = |letter: &char| !letter.is_whitespace() && *letter != '\u{200b}';
        text.chars().filter(is_seen).collect()
    }

    fn assert_shown(said: &str) {
        let wanted = bare(&printable(said));
        for (markdown, wanted) in [
            (format!("x {}", text(said)), format!("x{wanted}")),
            (
                format!("| a | b |\n|---|---|\n| x{} | y |", cell(said)),
                format!("abx{wanted}y"),
            ),
        ] {
            let (shown, others) = read(&markdown);
            let quoted = |text: &str| text.replace('`', "");
            assert_eq!(quoted(&shown), quoted(&wanted), "{markdown}");
            assert_eq!(others, Vec::<String>::new(), "{markdown}");
        }
    }

    #[test]
    fn what_stands_in_a_name_is_shown_and_not_obeyed() {
        for said in [
            "python3 (pid 7), *bold*, _it_, ~~gone~~, # no heading",
            "![x](http://x/y.png) [x](y) <b>x</b> <!-- x --> &lt; &#42;",
            "a|b|c \\| \\\\| `a|b` `a\\|b`",
            "a ` b",
            "`` a",
            "a `` b `c`",
            "` `",
            "$x$ @here :x: ^a^ ==a== ||a||",
        ] {
            assert_shown(said);
        }
    }

    #[test]
    fn commands_stay_code_and_words_of_the_field_as_they_are() {
        let said = "TIME_WAIT: `ss -tan | wc -l` says [::1]:3306.";
        assert_eq!(
            text(said),
            "TIME_WAIT: `ss -tan | wc -l` says \\[::1\\]:3306."
        );
        assert_eq!(
            cell(said),
            "TIME_WAIT: `ss -tan \\| wc -l` says \\[::1\\]:3306."
        );
    }

    proptest! {
        #[test]
        fn any_text_is_shown_as_it_is(said in "[a-z_*`|\\\\<>&@~#!$^=:. \\[\\]\\(\\)-]{0,24}") {
            assert_shown(&said);
        }
    }
}
