//! What is told as it goes on: the screens of `watch`, whole, and on a real terminal (tmux) under a
//! real load; the lines of `verdict --every`.

mod common;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use common::{
    alone, command, connect_and_close, exit, in_namespace, port_range, serve, skip, stderr, stdout,
};
use twcheck::judge::level::Thresholds;
use twcheck::judge::table::{bound_matters, disagreement, inbound_matters, sample};
use twcheck::judge::trend::Trend;
use twcheck::judge::verdict::{Verdict, verdict};
use twcheck::model::{
    BoundPorts, Counters, Gap, Listeners, Owner, Placeless, PortRange, PortRule, Snapshot, Socket,
    SourceName, Tally, TcpState, Tunables, Unplaced, Weight,
};
use twcheck::render::Screen;
use twcheck::render::watch::{Controls, Page, Scene, Sort, Stage, draw};
use twcheck::system::{Judgement, Machine, View};

// The screens.

/// A look at a recorded host.
fn look(host: &str) -> Snapshot {
    let judgement = Judgement {
        bound_matters,
        inbound_matters,
        sample,
        disagreement,
    };
    let root = format!("tests/hosts/{host}/proc");
    let machine = Machine::recorded(Path::new(&root));
    machine.look(View::Ports, judgement).unwrap()
}

fn judged(snapshot: &Snapshot) -> Verdict {
    verdict(snapshot, Thresholds::default(), 500)
}

/// The settings of a recorded host, with these flows: so many connections in TIME_WAIT each, one
/// closed every `pace` milliseconds.
fn made(flows: &[(&str, u16)], pace: u64) -> Snapshot {
    let tunables = Tunables {
        ip_local_port_range: PortRange::parse("32768 60999"),
        ..look("exhausted-6.18").tunables
    };
    let mut tally = Tally::new(PortRule::new(&tunables), Listeners::default());
    for (server, number) in flows {
        for place in 0..*number {
            let age = pace * u64::from(place);
            tally.add(&Socket {
                state: TcpState::TimeWait,
                local: ([192, 0, 2, 1], 32768 + 2 * place).into(),
                remote: server.parse().unwrap(),
                time_wait_left: Some(Duration::from_millis(60_000 - age)),
                inode: None,
                interface: None,
                retransmits: 0,
            });
        }
    }
    Snapshot {
        bound: BoundPorts::default(),
        counters: Counters {
            time_wait: Some(12),
            established: Some(3),
            time_wait_recycled: Some(0),
            ..Counters::default()
        },
        ..Snapshot::new(tunables, tally, SourceName::SockDiag)
    }
}

/// The screen that a scene makes, of that size; no blanks at the ends of its lines.
fn shown(scene: &Scene<'_>, (width, height): (u16, u16), in_ascii: bool) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let screen = Screen {
        in_ascii,
        ..Screen::FILE
    };
    terminal.draw(|frame| draw(scene, screen, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    if in_ascii {
        let foreign = buffer.content().iter().find(|it| !it.symbol().is_ascii());
        assert_eq!(foreign, None);
    }
    let lines = buffer.content().chunks(width.into()).map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

const SIZES: [(u16, u16); 3] = [(60, 15), (80, 24), (200, 50)];

/// All screens of a scene, each under its size.
fn screens(scene: &Scene<'_>) -> String {
    let mut all = String::new();
    for in_ascii in [false, true] {
        for size in SIZES {
            let (width, height) = size;
            let letters = if in_ascii { "ASCII" } else { "UTF-8" };
            let rule = "=".repeat(usize::from(width));
            let screen = shown(scene, size, in_ascii);
            let lines = [&rule, &screen, &rule, ""].join("\n");
            all.extend([format!("{width}×{height} {letters}\n"), lines]);
        }
    }
    all
}

/// What is watched, two seconds after the first of these looks for each further one.
fn assert_screens(name: &str, looks: &[Verdict], change: impl Fn(&mut Controls, &mut Scene<'_>)) {
    let mut trend = Trend::default();
    let times = (0..).step_by(2).map(Duration::from_secs);
    for (at, look) in times.zip(looks) {
        trend.note(at, look);
    }
    let plain = Controls::new(Duration::from_secs(2));
    let mut controls = plain.clone();
    let mut scene = Scene {
        verdict: looks.last().unwrap(),
        trend: &trend,
        controls: &plain,
        about: "",
        failed: None,
        age: Duration::from_millis(1200),
        running: Duration::from_secs(3723),
        cpu: Some(Duration::from_micros(6210)),
    };
    change(&mut controls, &mut scene);
    scene = Scene {
        controls: &controls,
        ..scene
    };
    insta::assert_snapshot!(format!("watch_{name}"), screens(&scene));
}

#[test]
fn screens_of_a_quiet_machine() {
    let quiet = judged(&made(&[], 0));
    assert_screens("no_flows", &[quiet], |_, _| {});
    let busy = judged(&look("busy-server-6.18"));
    assert_screens("ok", &[busy], |_, scene| scene.about = " --netns web");
}

#[test]
fn screens_of_a_machine_in_trouble() {
    let warning = judged(&made(&[("192.0.2.9:3306", 15_000)], 4));
    let mut critical = judged(&look("exhausted-6.18"));
    critical.flows[0].owners = Some(vec![Owner {
        pid: 48,
        command: "名\u{1b}[31m\u{202e}x".into(),
        user: "app".into(),
        unit: Some("app.service".into()),
        sockets: 7,
        open_files: Some(9),
        open_files_limit: Some(1024),
    }]);
    assert_screens(
        "warning",
        &[judged(&made(&[("192.0.2.9:3306", 9000)], 4)), warning],
        |_, _| {},
    );
    assert_screens("critical", &[critical.clone(), critical.clone()], |_, _| {});
    let owner = critical.flows[0]
        .owners
        .replace(Vec::new())
        .unwrap()
        .remove(0);
    let unplaced = |sockets, why| Unplaced {
        owner: Owner {
            sockets,
            command: "python3".into(),
            ..owner.clone()
        },
        why,
    };
    critical.unplaced = Some(vec![
        unplaced(1, Placeless::NoPort),
        unplaced(12, Placeless::ShortLived),
    ]);
    assert_screens("unplaced", &[critical.clone(), critical], |_, _| {});
}

#[test]
fn screens_of_what_is_unknown() {
    let mut snapshot = made(&[("192.0.2.9:3306", 100)], 4);
    snapshot.gaps.push(Gap {
        what: "/proc/net/tcp6".into(),
        why: "Permission denied (os error 13)".into(),
        weight: Weight::Decisive,
    });
    snapshot.counters = Counters::default();
    assert_screens("gaps", &[judged(&snapshot)], |_, _| {});
    let fine = judged(&made(&[("192.0.2.9:3306", 100)], 4));
    assert_screens("failed", &[fine], |_, scene| {
        scene.failed = Some("--pid 4711: it has ended.");
        scene.age = Duration::from_secs(12);
    });
    let critical = judged(&made(&[("192.0.2.9:3306", 12_000)], 2));
    assert_screens("failed_in_trouble", &[critical], |_, scene| {
        scene.failed = Some("--pid 4711: it has ended.");
        scene.age = Duration::from_secs(12);
    });
    let mut snapshot = made(&[("192.0.2.9:3306", 100)], 4);
    snapshot.tunables.ip_local_port_range = None;
    snapshot.gaps.push(Gap {
        what: "net.ipv4.ip_local_port_range".into(),
        why: "no such file".into(),
        weight: Weight::Decisive,
    });
    assert_screens("no_range", &[judged(&snapshot)], |_, _| {});
}

#[test]
fn screens_of_many_flows_in_the_order_and_of_the_kind_that_are_asked_for() {
    let servers: Vec<_> = (1..=200_u16)
        .map(|place| format!("[2001:db8:1234:5678:9abc:def0:1234:{place:x}]:3306"))
        .collect();
    let flows: Vec<_> = servers
        .iter()
        .zip(1..)
        .map(|(server, place)| (server.as_str(), place * 3 % 200))
        .collect();
    let many = judged(&made(&flows, 100));
    let last = many.flows[150].flow();
    assert_screens("many_flows", from_ref(&many), |controls, _| {
        controls.selected = Some(last);
        controls.sort = Sort::Ports;
    });
    assert_screens("filter", from_ref(&many), |controls, _| {
        controls.filter = ":C7]".into();
        controls.is_typing = true;
    });
    assert_screens("no_match", &[many], |controls, _| {
        controls.filter = "nobody".into();
    });
}

#[test]
fn screens_of_the_other_pages() {
    let critical = judged(&look("exhausted-6.18"));
    let page = |page| move |controls: &mut Controls, _: &mut Scene<'_>| controls.page = page;
    assert_screens("one_flow", from_ref(&critical), page(Page::Flow(0)));
    assert_screens(
        "one_flow_scrolled",
        from_ref(&critical),
        page(Page::Flow(99)),
    );
    assert_screens("help", from_ref(&critical), page(Page::Help));
    assert_screens("paused", &[critical], |controls, _| {
        controls.is_paused = true;
    });
}

#[test]
fn a_screen_of_any_size_is_drawn_and_a_small_one_says_so() {
    let critical = judged(&look("exhausted-6.18"));
    let mut trend = Trend::default();
    trend.note(Duration::ZERO, &critical);
    for page in [Page::Flows, Page::Flow(3), Page::Help] {
        let controls = Controls {
            page,
            ..Controls::new(Duration::from_secs(2))
        };
        let scene = Scene {
            verdict: &critical,
            trend: &trend,
            controls: &controls,
            about: "",
            failed: None,
            age: Duration::ZERO,
            running: Duration::ZERO,
            cpu: None,
        };
        for width in 1..90 {
            for height in 1..30 {
                for in_ascii in [false, true] {
                    let screen = shown(&scene, (width, height), in_ascii);
                    let is_small = width < 60 || height < 15;
                    let says_so = screen.starts_with("CRITICAL\ntwcheck watch needs");
                    if width >= 20 && height > 1 {
                        assert_eq!(is_small, says_so, "{width}×{height}: {screen}");
                    }
                }
            }
        }
    }
}

// On a real terminal.

/// A terminal multiplexer of the test's own, in its namespace; gone when it is dropped.
struct Tmux {
    folder: tempfile::TempDir,
}

impl Tmux {
    /// A shell on a terminal of that size.
    fn new(size: (u16, u16)) -> Self {
        let tmux = Self::with(size, "env PS1='$ ' bash --norc --noprofile");
        tmux.until("$");
        tmux
    }

    /// Nothing but `program` there.
    fn with((width, height): (u16, u16), program: &str) -> Self {
        let tmux = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        tmux.run(
            &[
                &["-f", "/dev/null", "new-session", "-d"],
                &size[..],
                &[program],
            ]
            .concat(),
        );
        tmux
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        stdout(&output)
    }

    /// Types a line, or a key by its name.
    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// What the terminal shows.
    fn shown(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the terminal shows what is asked for.
    fn until_it(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        for _ in 0..200 {
            let shown = self.shown();
            if is_it(&shown) {
                return shown;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{what}: {}", self.shown());
    }

    fn until(&self, word: &str) -> String {
        self.until_it(word, |shown| shown.contains(word))
    }

    /// How the terminal is set, as the shell on it sees that.
    fn settings(&self, name: &str) -> String {
        let file = self.folder.path().join(name);
        let done = format!("set-{name}");
        self.keys(&[
            &format!("stty -a > {}; echo set-'{name}'", file.display()),
            "Enter",
        ]);
        self.until(&done);
        fs::read_to_string(file).unwrap()
    }

    /// The process that runs in the shell.
    fn running(&self) -> i32 {
        let shell = self.run(&["display", "-p", "#{pane_pid}"]);
        let shell = shell.lines().last().unwrap().trim().to_owned();
        for _ in 0..100 {
            let path = format!("/proc/{shell}/task/{shell}/children");
            let children = fs::read_to_string(path).unwrap();
            if let Some(pid) = children.split_whitespace().next() {
                return pid.parse().unwrap();
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("nothing runs: {}", self.shown());
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn has_tmux(test: &str) -> bool {
    let is_there = Command::new("tmux").arg("-V").output().is_ok();
    if !is_there {
        skip(test, "there is no tmux");
    }
    is_there
}

/// Connects and closes so many times a second until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
}

impl Load {
    fn new(server: SocketAddr, pace: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let begin = Instant::now();
            for turn in 1.. {
                let due = begin + Duration::from_secs(1) * turn / pace;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let _ = connect_and_close(server);
            }
        });
        Self { stop }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

const WATCH: &str = concat!(env!("CARGO_BIN_EXE_twcheck"), " watch --every 500ms");

fn alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn signal(signal: &str, pid: i32) {
    common::run("kill", &[signal, &pid.to_string()]);
}

#[test]
fn keys_do_what_the_last_line_says_under_a_real_load() {
    const NAME: &str = "keys_do_what_the_last_line_says_under_a_real_load";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        port_range(40000, 40999);
        let (slow, fast) = (serve("127.0.0.1:7001"), serve("127.0.0.2:7002"));
        let _held: Vec<_> = (0..120)
            .map(|_| TcpStream::connect(slow).unwrap())
            .collect();
        let _load = Load::new(fast, 30);
        for size in [(80, 24), (200, 50)] {
            let tmux = Tmux::new(size);
            tmux.keys(&[WATCH, "Enter"]);
            tmux.until("> 127.0.0.1  127.0.0.2:7002");
            // It runs out, and that is seen to come.
            let shown = tmux.until("RATE_ABOVE_LIMIT");
            assert!(shown.contains("no port is free"), "{shown}");
            assert!(
                shown
                    .lines()
                    .all(|line| line.chars().count() <= size.0.into()),
                "{shown}"
            );
            tmux.until_it("it counts, look by look", |shown| shown.contains(" (+"));
            tmux.keys(&["Down"]);
            let shown = tmux.until("> 127.0.0.1  127.0.0.1:7001");
            assert!(shown.contains("States: ESTABLISHED 120"), "{shown}");
            tmux.until("100 % of ");
            tmux.keys(&["Enter"]);
            let shown = tmux.until("Esc back");
            assert!(
                !shown.contains("127.0.0.2:7002  "),
                "one flow alone: {shown}"
            );
            tmux.keys(&["Escape"]);
            tmux.until("s worst");
            tmux.keys(&["s"]);
            tmux.until("s ports");
            tmux.keys(&["/", "7002", "Enter"]);
            let shown = tmux.until("/7002");
            assert!(!shown.contains("127.0.0.1:7001"), "{shown}");
            tmux.keys(&["Escape"]);
            tmux.until("/ filter");
            tmux.keys(&["+"]);
            tmux.until("every 1 s");
            tmux.keys(&["p"]);
            tmux.until("PAUSED 2 s ago");
            tmux.keys(&["p"]);
            tmux.until("every 1 s");
            tmux.keys(&["?"]);
            tmux.until("PgUp, PgDn");
            tmux.keys(&["?"]);
            tmux.until("CPU a look");
            tmux.run(&["resize-window", "-x", "40", "-y", "10"]);
            tmux.until("twcheck watch needs");
            tmux.run(&["resize-window", "-x", "100", "-y", "30"]);
            tmux.until("CPU a look");
            tmux.keys(&["q"]);
            tmux.until_it("the shell is back", |shown| !shown.contains("CPU a look"));
            tmux.keys(&["echo exit $?", "Enter"]);
            tmux.until("exit 0");
        }
    });
}

/// Ends or stops what runs on the terminal.
type End = fn(&Tmux);

#[test]
fn a_terminal_is_given_back_as_it_was() {
    const NAME: &str = "a_terminal_is_given_back_as_it_was";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        let tmux = Tmux::new((80, 24));
        let watch = || {
            tmux.keys(&["clear; echo what was there", "Enter"]);
            tmux.keys(&[WATCH, "Enter"]);
            tmux.until("CPU a look")
        };
        let before = tmux.settings("before");
        let ends: [(&str, End); 5] = [
            ("q", |tmux| tmux.keys(&["q"])),
            ("ctrl-c", |tmux| tmux.keys(&["C-c"])),
            ("sigint", |tmux| signal("-INT", tmux.running())),
            ("sigterm", |tmux| signal("-TERM", tmux.running())),
            ("sighup", |tmux| signal("-HUP", tmux.running())),
        ];
        for (name, end) in ends {
            let shown = watch();
            assert!(!shown.contains("what was there"));
            end(&tmux);
            tmux.until("what was there");
            tmux.keys(&[&format!("echo {name} $?"), "Enter"]);
            tmux.until(&format!("\n{name} 0"));
            assert_eq!(tmux.settings(name), before, "{name}");
        }
        for (name, stop) in [
            ("ctrl-z", (|tmux| tmux.keys(&["C-z"])) as End),
            ("sigtstp", |tmux| signal("-TSTP", tmux.running())),
            ("sigstop", |tmux| signal("-STOP", tmux.running())),
        ] {
            watch();
            stop(&tmux);
            tmux.until("Stopped");
            // Nobody can do anything about SIGSTOP; a shell sets its terminal anew for itself.
            if name != "sigstop" {
                assert!(tmux.shown().contains("what was there"), "{name}");
                assert_eq!(tmux.settings(name), before, "{name}");
            }
            tmux.keys(&["fg", "Enter"]);
            tmux.until_it("it goes on", |shown| {
                shown.contains("CPU a look") && !shown.contains("Stopped")
            });
            tmux.keys(&["q"]);
            tmux.until("what was there");
            assert_eq!(tmux.settings(&format!("{name}-over")), before, "{name}");
        }
    });
}

#[test]
fn where_nobody_could_let_it_go_on_it_is_not_stopped() {
    const NAME: &str = "where_nobody_could_let_it_go_on_it_is_not_stopped";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        let tmux = Tmux::with((80, 24), &format!("exec {WATCH}"));
        tmux.until("CPU a look");
        tmux.keys(&["C-z"]);
        tmux.keys(&["?"]);
        tmux.until("PgUp, PgDn");
    });
}

/// Set for the process that has a fault while it has the terminal.
const FAULT: &str = "TWCHECK_TEST_FAULT";

/// Nothing, unless the test below starts it.
#[test]
fn have_a_fault_on_the_stage() {
    if env::var_os(FAULT).is_some() {
        let _stage = Stage::enter(Screen::of_stdout()).unwrap();
        thread::sleep(Duration::from_secs(1));
        panic!("the fault");
    }
}

#[test]
fn a_fault_gives_the_terminal_back() {
    const NAME: &str = "a_fault_gives_the_terminal_back";
    if !has_tmux(NAME) {
        return;
    }
    let tmux = Tmux::new((80, 24));
    tmux.keys(&["echo what was there", "Enter"]);
    let before = tmux.settings("before");
    let this = env::current_exe().unwrap();
    let this = this.display();
    let line = format!(
        "{FAULT}=1 {this} have_a_fault_on_the_stage --exact --nocapture --test-threads=1 2>/dev/null"
    );
    tmux.keys(&[&line, "Enter"]);
    tmux.until_it("it has the terminal", |shown| {
        !shown.contains("what was there")
    });
    tmux.until("what was there");
    tmux.until("test result: FAILED");
    assert_eq!(tmux.settings("after"), before);
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    const NAME: &str = "a_terminal_that_goes_away_ends_it";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        // Whoever ignores SIGHUP notices it too.
        for before in ["", "trap '' HUP; "] {
            let tmux = Tmux::new((80, 24));
            tmux.keys(&[&format!("{before}{WATCH}"), "Enter"]);
            tmux.until("CPU a look");
            let pid = tmux.running();
            drop(tmux);
            let begin = Instant::now();
            while alive(pid) {
                assert!(begin.elapsed() < Duration::from_secs(10), "it goes on");
                thread::sleep(Duration::from_millis(50));
            }
        }
    });
}

#[test]
fn a_terminal_that_stops_its_output_is_no_busy_loop_and_two_signals_end_it() {
    const NAME: &str = "a_terminal_that_stops_its_output_is_no_busy_loop_and_two_signals_end_it";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        let tmux = Tmux::new((80, 24));
        tmux.keys(&[WATCH, "Enter"]);
        tmux.until("CPU a look");
        let pid = tmux.running();
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<_> = stat
                .rsplit(')')
                .next()
                .unwrap()
                .split_whitespace()
                .collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        // In raw mode Ctrl-S is a key: what stops the output is a multiplexer that does not read.
        let server = tmux.run(&["display", "-p", "#{pid}"]);
        let server: i32 = server.lines().last().unwrap().trim().parse().unwrap();
        signal("-STOP", server);
        let before = ticks();
        thread::sleep(Duration::from_secs(4));
        let taken = ticks() - before;
        signal("-TERM", pid);
        thread::sleep(Duration::from_millis(500));
        if alive(pid) {
            signal("-TERM", pid);
        }
        signal("-CONT", server);
        assert!(taken < 200, "{taken} hundredths of a second in four");
        tmux.until("$");
    });
}

#[test]
fn without_a_terminal_it_is_refused_and_told_what_to_type() {
    let output = command(&["watch"]).output().unwrap();
    assert_eq!(exit(&output), 3);
    assert_eq!(
        stderr(&output),
        "error: watch needs a terminal, and standard output is none\n\
         hint: for a log or a pipe: `twcheck verdict --every 2s`\n"
    );
}

#[test]
fn without_colour_and_without_utf8_it_is_plain() {
    const NAME: &str = "without_colour_and_without_utf8_it_is_plain";
    if !has_tmux(NAME) {
        return;
    }
    in_namespace(NAME, || {
        port_range(40000, 40099);
        let server = serve("127.0.0.1:7003");
        let _held: Vec<_> = (0..90)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        for (environment, is_coloured, is_ascii) in [
            ("", true, false),
            ("NO_COLOR=1", false, false),
            ("LC_ALL=C", true, true),
        ] {
            let tmux = Tmux::new((80, 24));
            tmux.keys(&[&format!("{environment} {WATCH}"), "Enter"]);
            let shown = tmux.until("CPU a look");
            assert_eq!(shown.is_ascii(), is_ascii, "{shown}");
            assert!(shown.contains("CRITICAL"), "{shown}");
            let styled = tmux.run(&["capture-pane", "-p", "-e"]);
            assert_eq!(styled.contains("\u{1b}["), is_coloured, "{styled}");
        }
    });
}

// Line by line.

/// `verdict --every` and what it printed by its end.
fn lines(arguments: &str) -> (Vec<String>, i32) {
    let arguments: Vec<_> = arguments.split(' ').collect();
    let output = command(&[&["verdict"], &arguments[..]].concat())
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    (lines.lines().map(str::to_owned).collect(), exit(&output))
}

#[test]
fn a_line_a_change_and_the_status_of_the_last_look() {
    alone("a_line_a_change_and_the_status_of_the_last_look", || {
        port_range(40000, 40199);
        let (quiet, status) = lines("--every 200ms --until 2s");
        assert_eq!((quiet.len(), status), (1, 0), "{quiet:?}");
        assert!(
            quiet[0].contains("Z OK: Ports are not the problem"),
            "{quiet:?}"
        );
        let server = serve("127.0.0.1:7004");
        let mut child = command(&["verdict", "--every", "200ms"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || told.next().unwrap().unwrap();
        assert!(next().contains(" OK: "));
        let mut held: Vec<_> = (0..110)
            .map(|_| TcpStream::connect(server).unwrap())
            .collect();
        let line = next();
        assert!(line.contains(" WARNING: "), "{line}");
        assert!(
            line.ends_with(" New: CONNECT_SLOW, HELD_OPEN, PORTS_LOW."),
            "{line}"
        );
        held.extend((0..60).map(|_| TcpStream::connect(server).unwrap()));
        let line = next();
        assert!(line.contains(" CRITICAL: "), "{line}");
        assert!(line.ends_with(" New: HELD_OPEN, PORTS_LOW."), "{line}");
        signal("-INT", child.id().try_into().unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(2));
    });
}

#[test]
fn lines_end_when_nobody_reads_them() {
    alone("lines_end_when_nobody_reads_them", || {
        let mut child = command(&["verdict", "--every", "60s"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains(" OK: "), "{line}");
        drop(out);
        let begin = Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5));
    });
}

/// What a process leaves is an empty namespace that is held open: never OK.
#[test]
fn a_process_that_ends_leaves_what_is_unknown() {
    in_namespace("a_process_that_ends_leaves_what_is_unknown", || {
        let mut other = Command::new("unshare")
            .args(["--net", "sleep", "3"])
            .spawn()
            .unwrap();
        let here = fs::read_link("/proc/self/ns/net").unwrap();
        let there = format!("/proc/{}/ns/net", other.id());
        while fs::read_link(&there).unwrap() == here {
            thread::sleep(Duration::from_millis(10));
        }
        let watched = format!("--every 300ms --until 5s --pid {}", other.id());
        let (told, status) = lines(&watched);
        other.wait().unwrap();
        assert_eq!((told.len(), status), (2, 3), "{told:?}");
        assert!(told[0].contains(" OK: "), "{told:?}");
        let gone = format!(" UNKNOWN: --pid {}: it has ended.", other.id());
        assert!(told[1].contains(&gone), "{told:?}");
    });
}
