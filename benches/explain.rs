//! What `twcheck explain` takes for lines made to be slow to read, and for twice as many; and
//! `twcheck explain` against `grep -E -i -c` with the same words, in turn in one run, on logs of
//! which no line, one in a hundred, and every line tells of an error.
//!
//!     cargo bench --bench explain            # some 20 s, 600 MB below the target folder

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use twcheck::judge::explain::signs_for_grep;

const TWCHECK: &str = env!("CARGO_BIN_EXE_twcheck");
const ROUNDS: usize = 5;
const BYTES: u64 = 200 << 20;

fn main() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!("| made to be slow | MB/s | twice as much takes |\n|---|--:|--:|");
    for (name, word) in [
        ("one line of chains", "Caused by: connection refused "),
        ("one line of binds", "bind errno 99 "),
        ("one line of brackets", "[Errno 99] ("),
        ("one line of logins", "mysql://u:p@ "),
        ("one line of asyncio", "Multiple exceptions: [Errno 111] "),
        ("lines of chains", "Caused by: connection refused\n"),
        ("lines of errors without a time", "ECONNREFUSED\n"),
        (
            "lines of passwords",
            "password=\"x\\\" connection refused\n",
        ),
    ] {
        let log = folder.join("log");
        let mut took = [1, 2].map(|times| {
            fs::write(&log, word.repeat(times * (4 << 20) / word.len())).unwrap();
            (0..3)
                .map(|_| time(Command::new(TWCHECK).args(["explain", "--json"]), &log))
                .fold(f64::MAX, f64::min)
        });
        took[1] /= took[0];
        println!("| {name} | {:.0} | {:.1} times |", 4.2 / took[0], took[1]);
        fs::remove_file(&log).unwrap();
    }
    let patterns = folder.join("patterns");
    fs::write(&patterns, signs_for_grep().join("\n") + "\n").unwrap();
    println!("| errors | MB | twcheck explain | grep -E -i -c | ratio |\n|---|--:|--:|--:|--:|");
    for (name, every) in [("none", 0), ("1 line in 100", 100), ("every line", 1)] {
        let log = folder.join("log");
        write(&log, every);
        let (mut explain, mut grep) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            explain.push(time(
                Command::new(TWCHECK).args(["explain", "--json"]),
                &log,
            ));
            let words = ["-E", "-i", "-c", "-f"];
            grep.push(time(Command::new("grep").args(words).arg(&patterns), &log));
        }
        let [explain, grep] = [explain, grep].map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        let megabytes = fs::metadata(&log).unwrap().len() >> 20;
        println!(
            "| {name} | {megabytes} | {explain:.2} s | {grep:.2} s | {:.2} |",
            explain / grep
        );
        fs::remove_file(&log).unwrap();
    }
}

/// Seconds that a command takes for a log.
fn time(command: &mut Command, log: &Path) -> f64 {
    let start = Instant::now();
    // Into /dev/null grep would stop at its first match.
    let output = command.stdin(File::open(log).unwrap()).output().unwrap();
    assert!(output.status.code().is_some());
    start.elapsed().as_secs_f64()
}

/// A log of an application.
fn write(path: &Path, every: u64) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut written = 0;
    for line in 0_u64.. {
        if written >= BYTES {
            break;
        }
        let (minute, second) = (line / 60_000 % 60, line / 1_000 % 60);
        let time = format!("2026-11-25 03:{minute:02}:{second:02},{:03}", line % 1_000);
        let text = if every > 0 && line % every == 0 {
            format!(
                "{time} ERROR [worker-{}] app.db OperationalError: (2003, \"Can't connect to MySQL \
                 server on '10.0.0.{}' (99)\")\n",
                line % 16,
                line % 5
            )
        } else {
            format!(
                "{time} INFO [worker-{}] app.http request id={line:08x} method=GET \
                 path=/api/v1/items/{line} status=200 took={}ms client=10.1.{}.7\n",
                line % 16,
                line % 400,
                line % 256
            )
        };
        out.write_all(text.as_bytes()).unwrap();
        written += text.len() as u64;
    }
    out.flush().unwrap();
}
