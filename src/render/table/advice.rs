use std::io::{self, Write};

use super::grid::Grid;
use super::{under_sentence, write_destination, write_namespace};
use crate::judge::advice::{Advice, Remark};
use crate::judge::bearing::{Bearing, Limit};
use crate::judge::change::Step;
use crate::judge::experiment::{Proof, Run};
use crate::judge::goal::Needs;
use crate::render::Screen;
use crate::render::screen::unbroken;
use crate::words::{count, counted, rate};

/// `twcheck advise`.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let sentence = screen.wrap("", "", &advice.summary);
    under_sentence(&sentence, screen, out, |out| {
        write_changes(advice, screen, out)
    })
}

pub(super) fn write_changes(
    advice: &Advice,
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_namespace(advice.namespace.as_ref(), screen, out)?;
    if let Some(place) = &advice.place {
        writeln!(out, "{}", screen.wrap("Whose: ", "       ", &place.meaning))?;
    }
    write_destination(advice.destination.as_ref(), screen, out)?;
    let (first, application) = advice
        .application
        .split_at(usize::from(advice.client_first));
    if !first.is_empty() {
        write_remarks("First, in the client", first, screen, out)?;
    }
    if !advice.steps.is_empty() {
        writeln!(
            out,
            "{}",
            if first.is_empty() {
                ""
            } else {
                "\nThen, here:"
            }
        )?;
        write_steps(&advice.steps, screen, out)?;
        let is_pod = advice.place.as_ref().is_some_and(|place| place.of == "pod");
        let text = if is_pod {
            "`twcheck advise --format kubernetes`; it says what the cluster must allow"
        } else {
            "`twcheck advise --format sysctl` (see --help)"
        };
        let text = match &advice.namespace {
            Some(namespace) => namespace.commands(text),
            None => text.into(),
        };
        writeln!(out, "\n{}", screen.wrap("To apply: ", "          ", &text))?;
    }
    if let Some(goal) = &advice.goal {
        write_goal(goal, screen, out)?;
    }
    if let Some(proof) = &advice.proof {
        write_proof(proof, screen, out)?;
    }
    write_remarks("Leave alone", &advice.not_recommended, screen, out)?;
    write_remarks("In the application", application, screen, out)
}

fn write_steps(steps: &[Step], screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let headings = ["STEP", "CHANGE", "NOW", "TO", "MAX/S", "THEN"];
    let mut rows = Grid::new(screen, &headings, &[4, 5]);
    for (number, step) in (1..).zip(steps) {
        for (index, change) in step.changes.iter().enumerate() {
            let of_step = |text: String| if index == 0 { text } else { String::new() };
            let limit = |bearing: Option<Bearing>| {
                bearing.map_or_else(|| "?".into(), |bearing| in_column(bearing.rate))
            };
            rows.row([
                of_step(number.to_string()),
                change.sysctl.to_string(),
                unbroken(&shortened(&change.current)),
                unbroken(&shortened(&change.recommended)),
                of_step(limit(step.before)),
                of_step(limit(step.after)),
            ]);
        }
    }
    rows.write(out)?;
    for (number, step) in (1..).zip(steps) {
        let heading = format!("Step {number}: {}", step.bears());
        writeln!(out, "\n{}", screen.wrap("", "        ", &heading))?;
        for change in &step.changes {
            writeln!(out, "{}", change.sysctl)?;
            writeln!(out, "{}", screen.wrap("  why:  ", "        ", &change.why))?;
            writeln!(out, "{}", screen.wrap("  risk: ", "        ", &change.risk))?;
        }
    }
    Ok(())
}

/// A limit in a column: `any` where ports do not bound the rate, `?` where it is unknown.
fn in_column(limit: Limit) -> String {
    match limit {
        Limit::Unknown => "?".into(),
        Limit::Unbound => "any".into(),
        Limit::At(limit) => rate(limit),
    }
}

/// A value in a column: a long list of ports by its beginning; the file has it all.
fn shortened(value: &str) -> String {
    /// As much as a row of a narrow screen can bear.
    const SHOWN: usize = 24;
    match value.char_indices().nth(SHOWN) {
        _ if value.is_empty() => "empty".into(),
        None => value.to_owned(),
        Some(_) => {
            let whole = value[..SHOWN].rfind(',').unwrap_or(SHOWN);
            format!("{},…", &value[..whole])
        }
    }
}

fn write_remarks(
    heading: &str,
    remarks: &[Remark],
    screen: Screen,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\n{heading}:")?;
    for remark in remarks {
        let text = format!("{}. {}", remark.what, remark.why);
        writeln!(out, "{}", screen.wrap("- ", "  ", &text))?;
    }
    Ok(())
}

fn write_goal(goal: &Needs, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let toward = goal.destination.as_deref().unwrap_or("one destination");
    let wanted: Vec<_> = [
        goal.connections
            .map(|number| format!("{} at once", counted(number, "open connection"))),
        goal.rate
            .map(|per_second| format!("{} connections/s", rate(per_second))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let heading = format!("To carry {} to {toward}:", wanted.join(" and "));
    writeln!(out, "\n{}", screen.wrap("", "", &heading))?;
    for sentence in &goal.sentences {
        writeln!(out, "{}", screen.wrap("- ", "  ", sentence))?;
    }
    Ok(())
}

fn write_proof(proof: &Proof, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let scale = |run: &Run| format!("{:.1}", run.scale);
    let mut scales: Vec<_> = proof.runs.iter().map(scale).collect();
    scales.dedup();
    let stands_for = match scales.as_slice() {
        [one] => one.as_str(),
        _ => "SCALE",
    };
    let heading = format!(
        "Tried in private namespaces, where one port stands for {stands_for} of this machine's {}, \
         at a pace that tells:",
        count(proof.ports)
    );
    writeln!(out, "\n{}", screen.wrap("", "", &heading))?;
    let headings = [
        "TRIED", "MAX/S", "PACE/S", "MADE", "99", "SAID", "FAST", "THEN", "SCALE",
    ];
    let shown = headings.len() - usize::from(scales.len() == 1);
    let mut rows = Grid::new(screen, &headings[..shown], &[1, 2, 3, 4, 5, 6, 7, 8]);
    for run in &proof.runs {
        let row = [
            run.name.replace("net.ipv4.", ""),
            match run.max_rate {
                Some(limit) => rate(limit),
                None if run.checkouts.is_some() => "-".into(),
                None => in_column(Limit::Unbound),
            },
            run.pace
                .map_or_else(|| "any".into(), |pace| rate(pace).replace(".0", "")),
            count(run.connections),
            if run.exhausted {
                format!("{:.1} s", run.seconds)
            } else {
                "none".into()
            },
            format!(
                "{}{}",
                run.predicted_connections
                    .map_or_else(|| "none".into(), count),
                if run.agrees { "" } else { " !" }
            ),
            percentiles(run.before_cliff_us),
            percentiles(run.after_cliff_us),
            scale(run),
        ];
        rows.row(&row[..shown]);
    }
    rows.write(out)?;
    for remedy in &proof.not_tried {
        let text = format!("{}: {}", remedy.name, remedy.why);
        writeln!(out, "{}", screen.wrap("Not tried: ", "           ", &text))?;
    }
    for (column, meaning) in [
        (
            "MAX/S",
            "what one destination bears on this machine, as said above",
        ),
        ("MADE", "connections made"),
        ("99", "when errno 99 came"),
        ("SAID", "connections until then, as the model has it"),
        (
            "FAST, THEN",
            "p50/p99 of connect() in µs, before and after the fast ports",
        ),
    ] {
        let first = format!("  {column:<11} ");
        writeln!(out, "{}", screen.wrap(&first, &" ".repeat(14), meaning))?;
    }
    let pooled = proof
        .runs
        .iter()
        .find_map(|run| Some((run.checkouts?, run)));
    if let Some((checkouts, run)) = pooled {
        let text = format!(
            "The pool served {} with {}, and left {} TIME_WAIT.",
            counted(checkouts, "checkout"),
            counted(run.connections, "connection"),
            run.time_wait
                .map_or_else(|| "an unknown number of".into(), count)
        );
        writeln!(out, "{}", screen.wrap("", "", &text))?;
    }
    let verdict = if proof.agrees {
        "Every run came as said, within 2 %. --json has the command that repeats each.".to_owned()
    } else {
        let wrong = proof.runs.iter().filter(|run| !run.agrees).count();
        format!(
            "{} did not come as said (!): on a busy machine try again; else the model does not \
             hold on this kernel.",
            counted(wrong as u64, "run")
        )
    };
    writeln!(out, "{}", screen.wrap("", "", &verdict))
}

fn percentiles(latency: Option<[u64; 2]>) -> String {
    latency.map_or_else(|| "-".into(), |[p50, p99]| format!("{p50}/{p99}"))
}
