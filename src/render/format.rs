//! Which formats each report has, and who writes it: a new format is one line here, and a file beside
//! this one.

use std::io::{self, Write};

use clap::ValueEnum;

use super::{Screen, json, kubernetes, markdown, plain, sysctl, table};
use crate::judge::advice::Advice;
use crate::judge::explain::{Explanation, Kinds};
use crate::judge::namespaces::Namespaces;
use crate::judge::states::States;
use crate::judge::verdict::Verdict;
use crate::repro::Report;

/// The formats of one report. All have `table`, which is for people.
pub trait Format: ValueEnum + Copy + Send + Sync + 'static {
    /// What `--json` is short for.
    const JSON: Self;
}

/// The formats of one report, each with its help and what writes it.
macro_rules! formats {
    ($(#[$about:meta])* $name:ident($($argument:ident: $type:ty),+) {
        $(#[doc = $help:literal] $format:ident => $write:expr,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub enum $name {
            $(#[doc = $help] $format,)+
        }

        impl Format for $name {
            const JSON: Self = Self::Json;
        }

        impl $name {
            /// Writes the report in this format.
            ///
            /// # Errors
            /// When `out` cannot be written.
            pub fn write(self, $($argument: $type),+) -> io::Result<()> {
                match self {
                    $(Self::$format => $write,)+
                }
            }
        }
    };
}

formats! {
    /// The formats of `twcheck verdict`.
    VerdictFormat(verdict: &Verdict, screen: Screen, out: &mut dyn Write) {
        /// For people
        Table => table::verdict(verdict, screen, out),
        /// Lines for grep and awk
        Plain => plain::verdict(verdict, out),
        /// One object, for programs
        Json => json::write(verdict, out),
    }
}

formats! {
    /// The formats of `twcheck states`; a table can explain each state.
    StatesFormat(states: &States, explain: bool, screen: Screen, out: &mut dyn Write) {
        /// For people
        Table => table::states(states, explain, screen, out),
        /// Lines for grep and awk
        Plain => plain::states(states, out),
        /// One object, for programs
        Json => json::write(states, out),
    }
}

formats! {
    /// The formats of `twcheck advise`.
    AdviseFormat(advice: &Advice, screen: Screen, out: &mut dyn Write) {
        /// For people
        Table => table::advice(advice, screen, out),
        /// Lines for grep and awk
        Plain => plain::advice(advice, out),
        /// One object, for programs
        Json => json::write(advice, out),
        /// A file for /etc/sysctl.d
        Sysctl => sysctl::advice(advice, out),
        /// The securityContext of a pod, in YAML
        Kubernetes => kubernetes::advice(advice, out),
    }
}

impl VerdictFormat {
    /// Writes the reports of all network namespaces; a table tells of at most `top` in full, of all
    /// for 0.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_all(
        self,
        all: &Namespaces<Verdict>,
        top: usize,
        screen: Screen,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Self::Table => table::all_verdicts(all, top, screen, out),
            Self::Plain => plain::namespaces(all, plain::verdict, out),
            Self::Json => json::write(all, out),
        }
    }
}

impl StatesFormat {
    /// Writes the reports of all network namespaces.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_all(
        self,
        all: &Namespaces<States>,
        screen: Screen,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Self::Table => table::all_states(all, screen, out),
            Self::Plain => plain::namespaces(all, plain::states, out),
            Self::Json => json::write(all, out),
        }
    }
}

impl AdviseFormat {
    /// Writes the reports of all network namespaces; settings as lines, for a file of them is for
    /// one.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_all(
        self,
        all: &Namespaces<Advice>,
        screen: Screen,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Self::Table => table::all_advice(all, screen, out),
            Self::Plain | Self::Sysctl | Self::Kubernetes => {
                plain::namespaces(all, plain::advice, out)
            }
            Self::Json => json::write(all, out),
        }
    }
}

formats! {
    /// The formats of `twcheck repro`.
    ReproFormat(report: &Report, screen: Screen, out: &mut dyn Write) {
        /// For people
        Table => table::repro(report, screen, out),
        /// Lines for grep and awk
        Plain => plain::repro(report, out),
        /// One object, for programs
        Json => json::write(report, out),
    }
}

formats! {
    /// The formats of `twcheck explain`.
    ExplainFormat(explanation: &Explanation, screen: Screen, out: &mut dyn Write) {
        /// For people
        Table => table::explanation(explanation, screen, out),
        /// Lines for grep and awk
        Plain => plain::explanation(explanation, out),
        /// One object, for programs
        Json => json::write(explanation, out),
        /// For a ticket or an incident report
        Markdown => markdown::explanation(explanation, out),
    }
}

impl ExplainFormat {
    /// Writes what `explain` recognises in this format.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_kinds(self, kinds: &Kinds, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table => table::kinds(kinds, screen, out),
            Self::Plain => plain::kinds(kinds, out),
            Self::Json => json::write(kinds, out),
            Self::Markdown => markdown::kinds(kinds, out),
        }
    }
}
