use std::io::{self, Write};

use super::advice::write_changes;
use super::grid::Grid;
use super::write_evidence;
use crate::judge::advice::Advice;
use crate::judge::namespaces::{Judged, Looked, Namespaces};
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::model::TcpState;
use crate::render::Screen;
use crate::render::evidence::{drops, limit_in_column};
use crate::words::{count, counted, rate};

/// `twcheck verdict --all-netns`: a sentence, a line for each namespace, and in full those that are
/// not well, at most `top` of them.
///
/// # Errors
/// When `out` cannot be written.
pub fn all_verdicts(
    all: &Namespaces<Verdict>,
    top: usize,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_sentence(all, screen, out)?;
    let headings = [
        "LEVEL",
        "NAMESPACE",
        "PROCESSES",
        "PORTS",
        "FREE",
        "NOW/S",
        "MAX/S",
    ];
    let mut rows = Grid::new(screen, &headings, &[3, 4, 5, 6]);
    for looked in &all.namespaces {
        let verdict = looked.report.as_ref();
        let capacity = verdict.and_then(|verdict| verdict.capacity);
        let fullest = verdict.and_then(|verdict| verdict.flows.first());
        let [level, namespace, processes] = heads(looked);
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let free = match fullest {
            Some(flow) => flow.ports_free,
            None => capacity.map(|capacity| capacity.usable_ports),
        };
        rows.row([
            level,
            namespace,
            processes,
            known(verdict.map(|_| count(fullest.map_or(0, |flow| flow.ports_in_use)))),
            known(free.map(count)),
            known(fullest.map(|flow| rate(flow.rate.now))),
            known(verdict.map(|verdict| {
                let limit = match fullest {
                    Some(flow) => flow.max_connections_per_second,
                    None => capacity.and_then(|it| it.max_connections_per_second),
                };
                limit_in_column(limit, drops(verdict))
            })),
        ]);
    }
    rows.write(out)?;
    write_missing(all, screen, out)?;
    let (troubled, more) = all.troubled(top);
    for (looked, verdict) in troubled {
        writeln!(out, "\n== {}", looked.namespace.title())?;
        let word = verdict.level.word();
        let painted = screen.paint(verdict.level, word);
        let indent = " ".repeat(word.len() + 2);
        let sentence = screen.wrap(&format!("{painted}: "), &indent, &verdict.summary);
        writeln!(out, "{sentence}")?;
        write_evidence(verdict, screen, out)?;
    }
    if more > 0 {
        let more = counted(more as u64, "more namespace");
        writeln!(out, "\n… and {more} that are not well (--top 0)")?;
    }
    out.flush()
}

/// `twcheck states --all-netns`: a line for each namespace.
///
/// # Errors
/// When `out` cannot be written.
pub fn all_states(all: &Namespaces<States>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    const SHOWN: [TcpState; 3] = [
        TcpState::TimeWait,
        TcpState::Established,
        TcpState::CloseWait,
    ];
    let mut headings = vec!["NAMESPACE", "PROCESSES", "TOTAL"];
    headings.extend(SHOWN.map(TcpState::name));
    headings.push("OTHERS");
    let mut rows = Grid::new(screen, &headings, &[2, 3, 4, 5, 6]);
    for looked in &all.namespaces {
        let [_, namespace, processes] = heads(looked);
        let counted = looked.report.as_ref().filter(|it| it.total.is_some());
        let known = |number: Option<u64>| number.map_or_else(|| "-".into(), count);
        let total = counted.and_then(|report| report.total);
        let shown = SHOWN.map(|state| counted.map(|report| report.states.get(state)));
        let named = shown.iter().flatten().sum::<u64>();
        let mut row = vec![namespace, processes, known(total)];
        row.extend(shown.map(known));
        row.push(known(total.map(|total| total - named)));
        rows.row(row);
    }
    rows.write(out)?;
    write_missing(all, screen, out)?;
    for gap in &all.gaps {
        let text = format!("There may be more: {}.", gap.why);
        writeln!(out, "{}", screen.wrap("", "", &text))?;
    }
    out.flush()
}

/// `twcheck advise --all-netns`: what is said of each namespace; of several that are told the same,
/// once.
///
/// # Errors
/// When `out` cannot be written.
pub fn all_advice(all: &Namespaces<Advice>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut rest: Vec<_> = all
        .namespaces
        .iter()
        .filter_map(|it| Some((it, it.report.as_ref()?)))
        .collect();
    let mut is_first = true;
    while let Some((_, advice)) = rest.first().copied() {
        let same = |it: &(&Looked<Advice>, &Advice)| {
            (&it.1.summary, &it.1.steps) == (&advice.summary, &advice.steps)
        };
        let (alike, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(same);
        rest = others;
        if !is_first {
            writeln!(out)?;
        }
        is_first = false;
        let titles: Vec<_> = alike.iter().map(|(it, _)| it.namespace.title()).collect();
        let titles = titles.join(", ");
        writeln!(out, "{}", screen.wrap("== ", "   ", &titles))?;
        writeln!(out, "{}", screen.wrap("", "", &advice.summary))?;
        write_changes(advice, screen, out)?;
    }
    write_missing(all, screen, out)?;
    for gap in &all.gaps {
        let text = format!("There may be more: {}.", gap.why);
        writeln!(out, "\n{}", screen.wrap("", "", &text))?;
    }
    out.flush()
}

fn write_sentence<R>(all: &Namespaces<R>, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let word = all.level.word();
    let painted = screen.paint(all.level, word);
    let indent = " ".repeat(word.len() + 2);
    let sentence = screen.wrap(&format!("{painted}: "), &indent, &all.summary);
    writeln!(out, "{sentence}\n")
}

/// The level, the number and the processes of a namespace as cells.
fn heads<R: Judged>(looked: &Looked<R>) -> [String; 3] {
    let level = if looked.is_gone {
        "ended"
    } else {
        looked.level().word()
    };
    let inhabitants = looked.namespace.inhabitants();
    let inhabitants = if inhabitants.is_empty() {
        "-".into()
    } else {
        inhabitants
    };
    [level.into(), looked.namespace.title(), inhabitants]
}

/// Why some have no report.
fn write_missing<R: Judged>(
    all: &Namespaces<R>,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    for looked in &all.namespaces {
        if let Some(why) = &looked.why {
            let text = format!("{}: {why}", looked.namespace.title());
            writeln!(out, "{}", screen.wrap("", "  ", &text))?;
        }
    }
    Ok(())
}
