//! The command: parse, dispatch, map the outcome to an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as Usage;
use twcheck::cli::{self, Cli, Command};
use twcheck::commands::{advise, repro, states, verdict};
use twcheck::exit::Exit;
use twcheck::refusal::Refusal;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion);
            print_usage(&error);
            return if asked { Exit::Ok } else { Exit::Unknown }.into();
        }
    };
    let outcome = match &cli.command {
        Command::States(args) => states::run(args),
        Command::Verdict(args) => verdict::run(args),
        Command::Repro(args) => repro::run(args),
        Command::Advise(args) => advise::run(args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            report(&error);
            Exit::Unknown.into()
        }
    }
}

/// Prints the help that is asked for, or what is wrong with the arguments.
fn print_usage(error: &clap::Error) {
    // Nowhere is left to tell about a closed pipe.
    let _ = match cli::without_secrets(error) {
        None => error.print(),
        Some(text) => write!(io::stderr(), "{text}"),
    };
}

fn report(error: &anyhow::Error) {
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "error: {error:#}");
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let _ = writeln!(stderr, "hint: {}", refusal.hint());
    }
}
