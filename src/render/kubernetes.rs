//! The part of a pod's spec that sets its sysctls.

use std::io::{self, Write};

use super::sysctl::comment;
use crate::judge::advice::Advice;
use crate::judge::change::{InPod, Sysctl};

/// Writes the changes as `securityContext` of a pod's spec, in YAML: each under its reason, and what
/// Kubernetes asks for it.
///
/// # Errors
/// When `out` cannot be written.
pub fn advice(advice: &Advice, out: &mut dyn Write) -> io::Result<()> {
    comment(out, "", &advice.summary)?;
    if let Some(place) = &advice.place {
        comment(out, "", &format!("Here {}", place.meaning))?;
    } else {
        comment(
            out,
            "",
            "Judged was no pod's network namespace: run it inside the pod, whose settings are its own.",
        )?;
    }
    comment(
        out,
        "",
        "Written by twcheck advise; it goes below `spec:` of the pod, or of a template.",
    )?;
    let unsafe_ones: Vec<_> = advice
        .changes()
        .filter(|change| change.sysctl.in_pod() == InPod::Unsafe)
        .map(|change| change.sysctl.to_string())
        .collect();
    if !unsafe_ones.is_empty() {
        comment(
            out,
            "",
            "Those marked unsafe need the kubelet's leave on each node that runs the pod; without it \
             the pod fails there (SysctlForbidden):",
        )?;
        writeln!(
            out,
            "#   kubelet --allowed-unsafe-sysctls={}",
            unsafe_ones.join(",")
        )?;
    }
    writeln!(out, "securityContext:")?;
    if advice.changes().next().is_none() {
        writeln!(out, "  sysctls: []")?;
        return out.flush();
    }
    writeln!(out, "  sysctls:")?;
    let number_of_steps = advice.steps.len();
    for (number, step) in (1..).zip(&advice.steps) {
        comment(
            out,
            INDENT,
            &format!("Step {number} of {number_of_steps}. {}", step.bears()),
        )?;
        for change in &step.changes {
            comment(
                out,
                INDENT,
                &format!("{} Risk: {}", change.why, change.risk),
            )?;
            comment(out, INDENT, &leave(change.sysctl))?;
            // Names, numbers and blanks alone: nothing to escape.
            writeln!(out, "{INDENT}- name: {}", change.sysctl)?;
            writeln!(out, "{INDENT}  value: \"{}\"", change.recommended)?;
        }
    }
    out.flush()
}

const INDENT: &str = "    ";

/// What Kubernetes asks for a sysctl.
fn leave(sysctl: Sysctl) -> String {
    match sysctl.in_pod() {
        InPod::Safe { since: None } => "Safe: any pod may set it.".into(),
        InPod::Safe {
            since: Some(version),
        } => format!(
            "Safe since Kubernetes {version}: any pod may set it; before, it needs the kubelet's \
             --allowed-unsafe-sysctls too."
        ),
        InPod::Unsafe => "Unsafe: needs the kubelet's --allowed-unsafe-sysctls.".into(),
    }
}
