//! One line for a monitoring system, by the Monitoring Plugins Development Guidelines.

use std::io::{self, Write};

use crate::judge::level::Level;
use crate::judge::namespaces::Namespaces;
use crate::judge::verdict::Verdict;
use crate::model::Cost;
use crate::words::{printable, rounded};

/// Writes one verdict.
///
/// # Errors
/// When `out` cannot be written.
pub fn verdict(verdict: &Verdict, cost: Cost, out: &mut dyn Write) -> io::Result<()> {
    write_line(verdict.level, &verdict.summary, figures(verdict), cost, out)
}

/// Writes the verdicts of all network namespaces, with the figures of the worst.
///
/// # Errors
/// When `out` cannot be written.
pub fn namespaces(all: &Namespaces<Verdict>, cost: Cost, out: &mut dyn Write) -> io::Result<()> {
    let mut data = vec![
        format!("namespaces={};;;0", all.reports().count()),
        format!("namespaces_unknown={};;;0", all.unjudged().count()),
    ];
    data.extend(all.reports().next().map(figures).unwrap_or_default());
    write_line(all.level, &all.summary, data, cost, out)
}

/// `'label'=value[UOM];[warn];[crit];[min];[max]` of the machine and its fullest flow; what is
/// unknown is left out. Under the same labels whatever flow that is: a label of its own for each
/// would make a file of its own for each.
fn figures(verdict: &Verdict) -> Vec<String> {
    let flow = verdict.flows.first();
    let usable = match flow {
        Some(flow) => flow.ports_usable,
        None => verdict.capacity.map(|capacity| capacity.usable_ports),
    };
    let free = match flow {
        Some(flow) => flow.ports_free,
        None => usable,
    };
    let ports = free.zip(usable).map(|(free, usable)| {
        let [warn, crit] = verdict.thresholds.least_free(usable);
        format!("ports_free={free};{warn}:;{crit}:;0;{usable}")
    });
    let time_wait = verdict.time_wait.map(|time_wait| {
        let limit = time_wait.limit.map(|limit| limit.to_string());
        let (total, limit) = (time_wait.split.total, limit.unwrap_or_default());
        format!("time_wait={total};;;0;{limit}")
    });
    let pace = flow.map(|flow| format!("closed_per_second={};;;0", rounded(flow.rate.now)));
    let left = flow.and_then(|flow| flow.seconds_to_exhaustion);
    let left = left.map(|left| format!("time_to_exhaustion={}s;;;0", rounded(left)));
    let flows = format!("flows={};;;0", verdict.flows_total);
    let nat = verdict.nat.as_ref().map(|nat| {
        let translated = format!("nat_translated={};;;0", nat.translated);
        // The worst of them, whichever it is.
        let taken = nat.flows.first().map(|flow| {
            let (taken, ports) = (flow.ports_taken, flow.ports.len());
            format!(
                "nat_ports_taken={taken};{};;0;{ports}",
                flow.hangs_from.likely
            )
        });
        [Some(translated), taken]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    });
    [ports, time_wait, pace, left, Some(flows), nat]
        .into_iter()
        .flatten()
        .collect()
}

fn write_line(
    level: Level,
    summary: &str,
    mut data: Vec<String>,
    cost: Cost,
    out: &mut dyn Write,
) -> io::Result<()> {
    data.push(format!("time={:.3}s;;;0", cost.elapsed.as_secs_f64()));
    // What follows the first bar is performance data.
    let text = printable(summary).replace('|', "/");
    writeln!(
        out,
        "TWCHECK {} - {text} | {}",
        level.word(),
        data.join(" ")
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_one_line_without_a_bar_whatever_a_process_is_called() {
        let mut line = Vec::new();
        let summary = "a|b\nc (pid 7) holds all; `ss | wc -l`";
        let data = vec!["flows=1;;;0".into()];
        write_line(Level::Warning, summary, data, Cost::default(), &mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "TWCHECK WARNING - a/b?c (pid 7) holds all; `ss / wc -l` | flows=1;;;0 time=0.000s;;;0\n"
        );
    }
}
