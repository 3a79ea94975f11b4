use std::io::{self, Write};

use super::{table, write_table};
use crate::judge::advice::{Advice, Remark};
use crate::judge::experiment::{Proof, Run};
use crate::judge::goal::Needs;
use crate::render::Screen;
use crate::words::{count, counted, rate, rate_limit};

/// `twcheck advise`.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", screen.wrap("", "", &advice.summary))?;
    if !advice.changes.is_empty() {
        writeln!(out)?;
        let mut rows = table(
            screen,
            ["CHANGE, IN THIS ORDER", "NOW", "TO", "MAX/S", "THEN"],
        );
        for change in &advice.changes {
            rows.add_row([
                change.sysctl.to_string(),
                match change.current.as_deref() {
                    None => "unknown".into(),
                    Some("") => "empty".into(),
                    Some(current) => current.to_owned(),
                },
                change.recommended.clone(),
                rate_limit(change.max_rate_before),
                rate_limit(change.max_rate_after),
            ]);
        }
        write_table(rows, &[3, 4], out)?;
        for change in &advice.changes {
            writeln!(out, "\n{}", change.sysctl)?;
            writeln!(out, "{}", screen.wrap("  why:  ", "        ", &change.why))?;
            writeln!(out, "{}", screen.wrap("  risk: ", "        ", &change.risk))?;
        }
        writeln!(
            out,
            "\nTo apply: twcheck advise --format sysctl (see --help)"
        )?;
    }
    if let Some(goal) = &advice.goal {
        write_goal(goal, screen, out)?;
    }
    if let Some(proof) = &advice.proof {
        write_proof(proof, screen, out)?;
    }
    write_remarks("Leave alone", &advice.not_recommended, screen, out)?;
    write_remarks("In the application", &advice.application, screen, out)?;
    out.flush()
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
    let toward = goal
        .destination
        .map_or_else(|| "one destination".into(), |server| server.to_string());
    writeln!(
        out,
        "\nTo carry {} connections/s to {toward}:",
        rate(goal.rate)
    )?;
    for sentence in &goal.sentences {
        writeln!(out, "{}", screen.wrap("- ", "  ", sentence))?;
    }
    Ok(())
}

fn write_proof(proof: &Proof, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let heading = format!(
        "Tried in private namespaces, where one port stands for SCALE of this machine's {}:",
        count(proof.ports)
    );
    writeln!(out, "\n{}", screen.wrap("", "", &heading))?;
    let mut rows = table(
        screen,
        [
            "TRIED", "MAX/S", "SCALE", "PACE/S", "SAID", "CAME", "FAST", "THEN",
        ],
    );
    for run in &proof.runs {
        let name = run.name.trim_start_matches("net.ipv4.").to_owned();
        rows.add_row([
            name,
            rate_limit(run.max_rate),
            format!("{:.1}", run.scale),
            run.pace.map_or_else(|| "any".into(), rate),
            match run.predicted_connections {
                Some(connections) => format!("99 after {}", count(connections)),
                None => "no 99".into(),
            },
            came(run),
            percentiles(run.before_cliff_us),
            percentiles(run.after_cliff_us),
        ]);
    }
    write_table(rows, &[1, 2, 3], out)?;
    for remedy in &proof.not_tried {
        let text = format!("{}: {}", remedy.name, remedy.why);
        writeln!(out, "{}", screen.wrap("Not tried: ", "           ", &text))?;
    }
    let key = "MAX/S is what one destination bears on this machine, SCALE times what it bears in the \
               experiment. FAST and THEN are p50/p99 of connect() in µs before and after the fast \
               ports are spent. --json tells the command that repeats each line.";
    writeln!(out, "{}", screen.wrap("", "", key))?;
    let verdict = if proof.agrees {
        "Every run came as said, within 2 %.".to_owned()
    } else {
        let wrong = proof.runs.iter().filter(|run| !run.agrees).count();
        format!(
            "{} did not come as said: on a busy machine try again; else the model does not hold \
             on this kernel.",
            counted(wrong as u64, "run")
        )
    };
    writeln!(out, "{}", screen.wrap("", "", &verdict))
}

fn came(run: &Run) -> String {
    match run.checkouts {
        Some(checkouts) => format!(
            "no 99: {} checkouts, {}, {} TIME_WAIT",
            count(checkouts),
            counted(run.connections, "connection"),
            run.time_wait.map_or_else(|| "unknown".into(), count)
        ),
        None if run.exhausted => {
            format!(
                "99 after {} in {:.1} s",
                count(run.connections),
                run.seconds
            )
        }
        None => format!("no 99: {} in {:.1} s", count(run.connections), run.seconds),
    }
}

fn percentiles(latency: Option<[u64; 2]>) -> String {
    latency.map_or_else(|| "-".into(), |[p50, p99]| format!("{p50}/{p99}"))
}
