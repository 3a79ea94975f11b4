//! The command: parse, dispatch, map the outcome to an exit status.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::{env, panic};

use anyhow::anyhow;
use clap::error::ErrorKind;

use twcheck::cli::{self, Command};
use twcheck::commands::{advise, explain, record, repro, states, verdict, watch};
use twcheck::exit::Exit;
use twcheck::render::{self, Screen};

/// Where the first fault was.
static PLACE: OnceLock<String> = OnceLock::new();

fn main() -> ExitCode {
    // Its words are no user's, whichever thread it is on, and may hold a secret.
    panic::set_hook(Box::new(|fault| {
        let _ = PLACE.set(
            fault
                .location()
                .map_or_else(String::new, |at| format!(" ({at})")),
        );
    }));
    panic::catch_unwind(run).unwrap_or_else(|_| {
        let place = PLACE.get().map_or("", String::as_str);
        render::complain(&anyhow!(
            "twcheck met a fault of its own{place}, and cannot go on"
        ));
        Exit::Unknown.into()
    })
}

fn run() -> ExitCode {
    let (stdout, stderr) = (Screen::of_stdout(), Screen::of_stderr());
    // A pager is as wide as the terminal that the errors go to.
    let cli = match cli::read(stdout.width.or(stderr.width)) {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = error.kind() == ErrorKind::DisplayHelp;
            let meant = cli::host_behind_h(env::args_os()).filter(|_| is_help);
            if let Some(refusal) = meant {
                render::complain(&refusal.into());
                return Exit::Unknown.into();
            }
            return print_usage(&error, stdout, stderr).into();
        }
    };
    let outcome = match &cli.command {
        Command::Watch(args) => watch::run(args),
        Command::States(args) => states::run(args),
        Command::Verdict(args) => verdict::run(args),
        Command::Repro(args) => repro::run(args),
        Command::Advise(args) => advise::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Record(args) => record::run(args),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            render::complain(&error);
            Exit::Unknown.into()
        }
    }
}

/// Prints the help that is asked for, or what is wrong with the arguments.
fn print_usage(error: &clap::Error, stdout: Screen, stderr: Screen) -> Exit {
    let is_wrong = error.use_stderr();
    let screen = if is_wrong { stderr } else { stdout };
    let text = cli::without_secrets(error).unwrap_or_else(|| {
        let text = error.render();
        if screen.colour {
            text.ansi().to_string()
        } else {
            text.to_string()
        }
    });
    // Nowhere is left to tell about a closed pipe.
    if is_wrong {
        // clap wraps its help alone.
        let lines = text.split('\n').map(|line| screen.wrap("", "  ", line));
        let text = lines.collect::<Vec<_>>().join("\n");
        let _ = write!(screen.to(io::stderr()), "{text}");
        Exit::Unknown
    } else {
        let _ = write!(screen.lock(), "{text}");
        Exit::Ok
    }
}
