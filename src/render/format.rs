//! Which formats each report has, and who writes it: a new format is a variant and its arm here, and
//! a file beside this one.

use std::io::{self, Write};

use clap::ValueEnum;

use super::{Screen, json, plain, sysctl, table};
use crate::judge::advice::Advice;
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::repro::Report;

/// The formats of one report. All have `table`, which is for people.
pub trait Format: ValueEnum + Copy + Send + Sync + 'static {
    /// What `--json` is short for.
    const JSON: Self;
}

/// The formats of `twcheck verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerdictFormat {
    /// For people
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
}

impl Format for VerdictFormat {
    const JSON: Self = Self::Json;
}

impl VerdictFormat {
    /// Writes `verdict` in this format.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(self, verdict: &Verdict, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table => table::verdict(verdict, screen, out),
            Self::Plain => plain::verdict(verdict, out),
            Self::Json => json::write(verdict, out),
        }
    }
}

/// The formats of `twcheck states`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatesFormat {
    /// For people
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
}

impl Format for StatesFormat {
    const JSON: Self = Self::Json;
}

impl StatesFormat {
    /// Writes `states` in this format; a table can explain each state.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(
        self,
        states: &States,
        explain: bool,
        screen: Screen,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Self::Table => table::states(states, explain, screen, out),
            Self::Plain => plain::states(states, out),
            Self::Json => json::write(states, out),
        }
    }
}

/// The formats of `twcheck advise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdviseFormat {
    /// For people
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
    /// A file for /etc/sysctl.d
    Sysctl,
}

impl Format for AdviseFormat {
    const JSON: Self = Self::Json;
}

impl AdviseFormat {
    /// Writes `advice` in this format.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(self, advice: &Advice, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table => table::advice(advice, screen, out),
            Self::Plain => plain::advice(advice, out),
            Self::Json => json::write(advice, out),
            Self::Sysctl => sysctl::advice(advice, out),
        }
    }
}

/// The formats of `twcheck repro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReproFormat {
    /// For people
    Table,
    /// Lines for grep and awk
    Plain,
    /// One object, for programs
    Json,
}

impl Format for ReproFormat {
    const JSON: Self = Self::Json;
}

impl ReproFormat {
    /// Writes the `report` of a run in this format.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(self, report: &Report, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table => table::repro(report, screen, out),
            Self::Plain => plain::repro(report, out),
            Self::Json => json::write(report, out),
        }
    }
}
