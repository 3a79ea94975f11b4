//! The command: parse, dispatch, map the outcome to an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as Usage;
use twcheck::cli::{Cli, Command};
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

/// Prints what is wrong with the arguments. It quotes them, so those that may hold a password, a
/// login or a URL, are left out.
fn print_usage(error: &clap::Error) {
    let text = error.to_string();
    let secret = |argument: &String| argument.contains('@') || argument.contains("password=");
    let clean = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .filter(secret)
        .fold(text.clone(), |text, argument| text.replace(&argument, "…"));
    // Nowhere is left to tell about a closed pipe.
    let _ = if clean == text {
        error.print()
    } else {
        write!(io::stderr(), "{clean}")
    };
}

fn report(error: &anyhow::Error) {
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "error: {error:#}");
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let _ = writeln!(stderr, "hint: {}", refusal.hint());
    }
}
