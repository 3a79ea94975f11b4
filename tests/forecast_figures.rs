//! How often the forecast is right: simulated clients, the future of each known to the test alone.
//!
//! No clock and no socket: a client is a rate over time, its connections go through a little model
//! of the kernel's ports, and what the table would show at a moment of its life goes through the
//! real judge. The truth is whether errno 99 comes within the next minute in the model.
//!
//! `TWCHECK_SEED=7 TWCHECK_MOMENTS=20000 cargo test --test forecast_figures -- --nocapture` is a
//! long run by hand.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use twcheck::judge::level::{Level, Thresholds};
use twcheck::judge::verdict::{Verdict, verdict};
use twcheck::model::{
    BoundPorts, Listeners, PortRange, PortRule, PortSet, Snapshot, Socket, SourceName, Tally,
    TcpState, TimeWaitReuse, Tunables,
};

/// Seconds that TIME_WAIT lasts (`TCP_TIMEWAIT_LEN`), and that the truth looks ahead.
const MINUTE: f64 = 60.0;

/// The timer wheel fires a timer of a minute only at every 512th tick of 4 ms.
const WHEEL: f64 = 2.048;

/// The step in which rates are integrated, in seconds.
const STEP: f64 = 0.02;

/// As many make a minute.
const STEPS_AHEAD: u32 = 3000;

/// The table is read in whole seconds: what happened less than one ago shows in none.
const SEEN_AFTER: f64 = 1.0;

/// A slope cannot be told from chance before it has lasted some seconds.
const SLOPE_SEEN_AFTER: f64 = 10.0;

/// Moments further apart than so many seconds are not one and the same.
const SAME_REASON: f64 = 5.0;

/// The lowest port.
const LOW: u32 = 20_000;

/// Moments by default: a few seconds in a debug build.
const MOMENTS: usize = 2000;

/// SplitMix64 (Steele, Lea, Flood 2014): enough for a simulation, and the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In 0..1.
    #[expect(clippy::cast_precision_loss)] // 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// As likely to lie in 1..2 as in 2..4.
    fn log_between(&mut self, low: f64, high: f64) -> f64 {
        (self.between(low.ln(), high.ln())).exp()
    }

    fn yes(&mut self, share: f64) -> bool {
        self.unit() < share
    }
}

/// What a client does, in connections per second over the seconds of its life.
#[derive(Debug, Clone)]
enum Course {
    Steady {
        rate: f64,
    },
    /// Each from its second on.
    Stepping {
        steps: Vec<(f64, f64)>,
    },
    Stopping {
        rate: f64,
        at: f64,
    },
    Ramping {
        rates: (f64, f64),
        from: f64,
        to: f64,
    },
    Waves {
        mean: f64,
        height: f64,
        period: f64,
        phase: f64,
    },
    OnOff {
        rate: f64,
        on: f64,
        off: f64,
    },
    /// Every 30 s.
    Burst {
        base: f64,
        rate: f64,
        length: f64,
        first: f64,
    },
    Spike {
        base: f64,
        rate: f64,
        at: f64,
        length: f64,
    },
    /// Everybody tries again at once, then less and less often.
    StormDies {
        base: f64,
        rate: f64,
        at: f64,
        fades: f64,
    },
    /// Each failure is tried again by more and more, up to a limit.
    StormGrows {
        base: f64,
        rate: f64,
        at: f64,
        doubles: f64,
    },
}

const KINDS: [&str; 9] = [
    "steady",
    "stepping",
    "stopping",
    "ramping",
    "waves",
    "on and off",
    "a burst every 30 s",
    "a deploy's spike",
    "a retry storm",
];

const BURSTS_EVERY: f64 = 30.0;

impl Course {
    /// One of `kind`, of a client whose ports bear `limit` connections/s.
    fn new(kind: usize, limit: f64, life: f64, random: &mut Random) -> Self {
        // Clients in trouble and clients in none, many near the limit.
        let any = |random: &mut Random| limit * random.log_between(0.4, 3.0);
        let calm = |random: &mut Random| limit * random.log_between(0.2, 0.9);
        match kind {
            0 => Self::Steady { rate: any(random) },
            1 => {
                let mut steps = vec![(0.0, any(random))];
                let mut at = 0.0;
                while at < life {
                    at += random.between(8.0, 60.0);
                    steps.push((at, any(random)));
                }
                Self::Stepping { steps }
            }
            2 => Self::Stopping {
                rate: any(random),
                at: random.between(0.2, 0.9) * life,
            },
            3 => {
                let (low, high) = (calm(random), limit * random.log_between(1.0, 4.0));
                let from = random.between(0.0, 0.4) * life;
                Self::Ramping {
                    rates: if random.yes(0.7) {
                        (low, high)
                    } else {
                        (high, low)
                    },
                    from,
                    to: from + random.between(20.0, 120.0),
                }
            }
            4 => Self::Waves {
                mean: any(random),
                height: random.between(0.3, 1.0),
                period: random.between(8.0, 60.0),
                phase: random.unit(),
            },
            5 => {
                let (on, off) = (random.between(3.0, 25.0), random.between(3.0, 25.0));
                Self::OnOff {
                    rate: any(random) * (on + off) / on,
                    on,
                    off,
                }
            }
            6 => {
                let length = random.between(0.3, 4.0);
                let base = limit * random.between(0.0, 0.6);
                // Two of them lie in a minute.
                let share = random.log_between(0.1, 0.8);
                Self::Burst {
                    base,
                    rate: base + share * limit * MINUTE / length,
                    length,
                    first: random.between(0.0, BURSTS_EVERY),
                }
            }
            7 => {
                let base = calm(random);
                Self::Spike {
                    base,
                    rate: base + any(random) * 2.0,
                    at: random.between(0.1, 0.9) * life,
                    length: random.between(4.0, 30.0),
                }
            }
            _ => {
                let base = calm(random);
                let (rate, at) = (
                    base * random.log_between(3.0, 10.0),
                    random.between(0.1, 0.8) * life,
                );
                if random.yes(0.5) {
                    let fades = random.between(5.0, 25.0);
                    Self::StormDies {
                        base,
                        rate,
                        at,
                        fades,
                    }
                } else {
                    let doubles = random.between(5.0, 20.0);
                    Self::StormGrows {
                        base,
                        rate,
                        at,
                        doubles,
                    }
                }
            }
        }
    }

    /// The rate at second `time`.
    fn rate(&self, time: f64) -> f64 {
        match *self {
            Self::Steady { rate } => rate,
            Self::Stepping { ref steps } => {
                let last = steps.iter().rev().find(|(at, _)| *at <= time);
                last.map_or(0.0, |&(_, rate)| rate)
            }
            Self::Stopping { rate, at } => {
                if time < at {
                    rate
                } else {
                    0.0
                }
            }
            Self::Ramping { rates, from, to } => {
                let share = ((time - from) / (to - from)).clamp(0.0, 1.0);
                rates.0 + (rates.1 - rates.0) * share
            }
            Self::Waves {
                mean,
                height,
                period,
                phase,
            } => {
                let turn = std::f64::consts::TAU * (time / period + phase);
                mean * (1.0 + height * turn.sin())
            }
            Self::OnOff { rate, on, off } => {
                if time % (on + off) < on {
                    rate
                } else {
                    0.0
                }
            }
            Self::Burst {
                base,
                rate,
                length,
                first,
            } => {
                if time >= first && (time - first) % BURSTS_EVERY < length {
                    rate
                } else {
                    base
                }
            }
            Self::Spike {
                base,
                rate,
                at,
                length,
            } => {
                if (at..at + length).contains(&time) {
                    rate
                } else {
                    base
                }
            }
            Self::StormDies {
                base,
                rate,
                at,
                fades,
            } => {
                if time < at {
                    base
                } else {
                    base + (rate - base) * (-(time - at) / fades).exp()
                }
            }
            Self::StormGrows {
                base,
                rate,
                at,
                doubles,
            } => (base * ((time - at).max(0.0) / doubles).exp2()).min(rate),
        }
    }

    /// What a reader at second `look` who knows the last minute by heart can expect at `time`: one
    /// course or, where he cannot tell, the pace of now and the slope of now going on. He knows a
    /// change once it shows in a whole second, a slope or a curve once it has lasted ten seconds,
    /// and what comes back once it has come back. Of a change that has not come yet he knows
    /// nothing: until then it goes on as it was.
    fn expected(&self, time: f64, look: f64, guess: Guess) -> f64 {
        let told = (look - SEEN_AFTER).max(0.0);
        let unsure = |from: f64| match guess {
            _ if time < look => self.rate(time),
            Guess::Stays => self.rate(look),
            Guess::GoesOn => {
                let back = from.max(look - SLOPE_SEEN_AFTER / 2.0);
                let slope = (self.rate(look) - self.rate(back)) / (look - back);
                (self.rate(look) + slope * (time - look)).max(0.0)
            }
        };
        match *self {
            Self::Steady { rate } => rate,
            Self::Stepping { .. } | Self::Stopping { .. } | Self::Spike { .. } => {
                self.rate(time.min(told))
            }
            Self::Ramping { rates, from, to } => {
                if told < from || told >= to {
                    return self.rate(time.min(told));
                }
                if look < from + SLOPE_SEEN_AFTER {
                    return unsure(from);
                }
                // On and on.
                let slope = (rates.1 - rates.0) / (to - from);
                (rates.0 + slope * (time - from)).max(0.0)
            }
            Self::Waves { period, .. } => {
                if look.min(MINUTE) >= period * 1.25 {
                    self.rate(time)
                } else {
                    unsure(0.0)
                }
            }
            Self::OnOff { on, off, .. } => self.returning(time, told, on + off, 0.0),
            Self::Burst { first, .. } => self.returning(time, told, BURSTS_EVERY, first),
            Self::StormDies { at, .. } => {
                if told < at {
                    self.rate(told)
                } else if look < at + SLOPE_SEEN_AFTER {
                    unsure(at)
                } else {
                    self.rate(time)
                }
            }
            Self::StormGrows {
                at,
                base,
                doubles,
                rate,
            } => {
                let top = at + doubles * (rate / base).log2();
                if told < at || told >= top {
                    self.rate(time.min(told))
                } else if look < at + SLOPE_SEEN_AFTER {
                    unsure(at)
                } else {
                    base * ((time - at) / doubles).exp2()
                }
            }
        }
    }

    /// What begins every `period` from `first` on comes back for one who has seen it begin twice
    /// within the minute; for anybody else it stays as it is.
    fn returning(&self, time: f64, told: f64, period: f64, first: f64) -> f64 {
        let latest = first + ((told - first) / period).floor() * period;
        if latest - period >= first && latest - period >= told - MINUTE {
            self.rate(time)
        } else {
            self.rate(told)
        }
    }
}

/// How a curve that has just begun may go on.
#[derive(Debug, Clone, Copy)]
enum Guess {
    Stays,
    GoesOn,
}

impl Guess {
    const ALL: [Self; 2] = [Self::Stays, Self::GoesOn];
}

/// A client toward one server.
#[derive(Debug, Clone)]
struct Client {
    kind: usize,
    course: Course,
    ports: u32,
    /// Random arrivals; as even as a clock otherwise.
    random: bool,
    /// Seconds that a connection stays open.
    open: f64,
    /// Seconds of its life.
    life: f64,
}

impl Client {
    fn new(number: usize, random: &mut Random) -> Self {
        let kind = number % KINDS.len();
        // One in twenty has the range that Linux comes with.
        let large = (number / KINDS.len()) % 20 == 9;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Below 3,000.
        let ports = if large {
            28_232
        } else {
            random.log_between(200.0, 1500.0) as u32 * 2
        };
        let life = random.between(20.0, 200.0);
        let limit = f64::from(ports) / (MINUTE + WHEEL);
        Self {
            kind,
            course: Course::new(kind, limit, life, random),
            ports,
            random: random.yes(0.5),
            open: random.log_between(0.001, 0.2),
            life,
        }
    }
}

/// When connections come: a client's rate accumulates to one connection after the other.
#[derive(Clone)]
struct Arrivals {
    step: u32,
    missing: f64,
    even: bool,
    random: Random,
}

impl Arrivals {
    fn new(client: &Client, random: Random) -> Self {
        let mut arrivals = Self {
            step: 0,
            missing: 0.0,
            even: !client.random,
            random,
        };
        arrivals.missing = arrivals.gap();
        arrivals
    }

    fn gap(&mut self) -> f64 {
        if self.even {
            1.0
        } else {
            -(1.0 - self.random.unit()).ln()
        }
    }

    fn now(&self) -> f64 {
        f64::from(self.step) * STEP
    }

    /// Those of the next step, at `rate`.
    fn advance(&mut self, rate: f64, mut came: impl FnMut(f64)) {
        let (begin, whole) = (self.now(), rate * STEP);
        let mut done = 0.0;
        while done + self.missing <= whole {
            done += self.missing;
            came(begin + done / rate);
            self.missing = self.gap();
        }
        self.missing -= whole - done;
        self.step += 1;
    }
}

/// One connection: when it is closed, and when its port comes back.
#[derive(Clone, Copy)]
struct Connection {
    closed: f64,
    back: f64,
}

/// A kernel that knows nothing but ports: the oracle.
#[derive(Clone)]
struct Kernel {
    ports: u32,
    /// When the wheel turns, within its period.
    phase: f64,
    open: f64,
    held: VecDeque<Connection>,
}

impl Kernel {
    /// Whether connect() gets a port at `time`.
    fn connect(&mut self, time: f64) -> bool {
        while self.held.front().is_some_and(|first| first.back <= time) {
            self.held.pop_front();
        }
        if self.held.len() >= self.ports as usize {
            return false;
        }
        let closed = time + self.open;
        let turns = ((closed + MINUTE - self.phase) / WHEEL).floor() + 1.0;
        self.held.push_back(Connection {
            closed,
            back: turns * WHEEL + self.phase,
        });
        true
    }

    /// What the socket table shows at `time`.
    fn look(&self, time: f64) -> Vec<Socket> {
        let held = self.held.iter().filter(|it| it.back > time);
        // The kernel gives the ports of one parity first.
        let fast = (LOW..LOW + self.ports).step_by(2);
        let slow = (LOW + 1..LOW + self.ports).step_by(2);
        held.zip(fast.chain(slow))
            .map(|(connection, port)| {
                let left = connection.closed + MINUTE - time;
                let open = connection.closed > time;
                Socket {
                    state: if open {
                        TcpState::Established
                    } else {
                        TcpState::TimeWait
                    },
                    local: SocketAddr::from(([10, 0, 0, 1], u16::try_from(port).unwrap())),
                    remote: SocketAddr::from(([10, 0, 0, 2], 3306)),
                    time_wait_left: (!open).then(|| Duration::from_secs_f64(left.max(0.0))),
                    inode: None,
                    interface: None,
                    retransmits: 0,
                }
            })
            .collect()
    }
}

/// What the judge says of `sockets`.
fn judge(sockets: &[Socket], ports: u32) -> Verdict {
    let [low, high] = [LOW, LOW + ports - 1].map(|port| u16::try_from(port).unwrap());
    let tunables = Tunables {
        ip_local_port_range: Some(PortRange { low, high }),
        ip_local_reserved_ports: Some(PortSet::default()),
        tcp_tw_reuse: Some(TimeWaitReuse::Off),
        tcp_timestamps: Some(1),
        tcp_max_tw_buckets: Some(262_144),
        ..Tunables::default()
    };
    let mut tally = Tally::new(PortRule::new(&tunables), Listeners::default());
    for socket in sockets {
        tally.add(socket);
    }
    let snapshot = Snapshot {
        bound: BoundPorts::default(),
        tick: Some(Duration::from_millis(4)),
        ..Snapshot::new(tunables, tally, SourceName::SockDiag)
    };
    let thresholds = Thresholds {
        warn: 80.0,
        crit: 95.0,
    };
    verdict(&snapshot, thresholds, 1)
}

/// One look at a client's life, with what came.
struct Moment {
    kind: usize,
    /// Seconds until errno 99; `None` where it does not come within a minute.
    came: Option<f64>,
    /// The same if what a reader could expect comes instead.
    expected: [Option<f64>; 2],
    /// errno 99 came within the minute before.
    failed: bool,
    /// The level of RATE_ABOVE_LIMIT; `None` where it is silent.
    spoke: Option<Level>,
    said: Option<f64>,
    /// The earliest and the latest moment said; the latter `None` where it need not come at all.
    range: Option<(f64, Option<f64>)>,
}

impl Moment {
    /// The honest rule: whether errno 99 comes is not decided by what no reader could know. Where it
    /// comes at quite another moment than expected, it comes for another reason.
    fn counts(&self) -> bool {
        self.expected
            .iter()
            .all(|&expected| match (expected, self.came) {
                (None, None) => true,
                (Some(expected), Some(came)) => (expected - came).abs() < SAME_REASON,
                _ => false,
            })
    }

    /// Whether what came lies within what was said, give or take the tenth that is printed; `None`
    /// where nothing was.
    fn within(&self) -> Option<bool> {
        let (earliest, latest) = self.range.filter(|_| self.spoke.is_some())?;
        Some(match (self.came, latest) {
            (Some(came), Some(latest)) => (earliest - 0.1..=latest + 0.1).contains(&came),
            (Some(came), None) => came >= earliest - 0.1,
            (None, latest) => latest.is_none(),
        })
    }

    /// By how much the moment was missed; `None` where none was to be said, or none could be known
    /// to the second.
    fn error(&self) -> Option<f64> {
        let (came, said) = (self.came?, self.said?);
        let close = |expected: &Option<f64>| expected.is_some_and(|at| (at - came).abs() < 1.0);
        (self.spoke.is_some() && self.expected.iter().all(close)).then(|| (came - said).abs())
    }
}

/// Looks at `client` at random moments of its life.
fn moments(client: &Client, random: &mut Random, found: &mut Vec<Moment>) {
    let mut looks: Vec<f64> = (0..5)
        .map(|look| {
            let last = if look == 0 { 10.0 } else { client.life };
            (random.between(1.0, last) / STEP).round() * STEP
        })
        .collect();
    looks.sort_by(f64::total_cmp);
    let mut kernel = Kernel {
        ports: client.ports,
        phase: random.between(0.0, WHEEL),
        open: client.open,
        held: VecDeque::new(),
    };
    let mut arrivals = Arrivals::new(client, random.clone());
    random.next();
    let mut failed = f64::NEG_INFINITY;
    for look in looks {
        while arrivals.now() < look - STEP / 2.0 {
            let rate = client.course.rate(arrivals.now());
            arrivals.advance(rate, |time| {
                if !kernel.connect(time) {
                    failed = time;
                }
            });
        }
        let sockets = kernel.look(look);
        if sockets.len() >= client.ports as usize {
            continue; // PORTS_EXHAUSTED says so.
        }
        let ahead = |rate: &dyn Fn(f64) -> f64| {
            let (mut kernel, mut arrivals) = (kernel.clone(), arrivals.clone());
            let mut failed = None;
            while failed.is_none() && arrivals.now() < look + MINUTE {
                arrivals.advance(rate(arrivals.now()), |time| {
                    if !kernel.connect(time) && failed.is_none() {
                        failed = Some(time - look);
                    }
                });
            }
            failed
        };
        let came = ahead(&|time| client.course.rate(time));
        let expected = Guess::ALL.map(|guess| {
            // Most courses leave nothing to guess.
            let changed = |step: u32| {
                let time = look + f64::from(step) * STEP;
                let expected = client.course.expected(time, look, guess);
                (expected - client.course.rate(time)).abs() > f64::EPSILON
            };
            if (0..STEPS_AHEAD).any(changed) {
                ahead(&|time| client.course.expected(time, look, guess))
            } else {
                came
            }
        });
        let verdict = judge(&sockets, client.ports);
        let finding = verdict
            .findings
            .iter()
            .find(|it| it.finding.code() == "RATE_ABOVE_LIMIT");
        let flow = verdict.flows.first();
        found.push(Moment {
            kind: client.kind,
            came,
            expected,
            failed: failed >= look - MINUTE,
            spoke: finding.map(|it| it.level),
            said: flow.and_then(|it| it.seconds_to_exhaustion),
            range: flow.and_then(|it| it.seconds_to_exhaustion_range),
        });
    }
}

/// What came of many moments.
#[derive(Default)]
struct Figures {
    counted: usize,
    left_out: usize,
    /// errno 99 came.
    due: usize,
    spoke: usize,
    right: usize,
    critical: usize,
    critical_right: usize,
    within: usize,
    errors: Vec<f64>,
}

impl Figures {
    fn of<'a>(moments: impl Iterator<Item = &'a Moment>) -> Self {
        let mut figures = Self::default();
        for moment in moments {
            if !moment.counts() {
                figures.left_out += 1;
                continue;
            }
            let (came, spoke) = (moment.came.is_some(), moment.spoke.is_some());
            let critical = moment.spoke == Some(Level::Critical);
            figures.counted += 1;
            figures.due += usize::from(came);
            figures.spoke += usize::from(spoke);
            figures.right += usize::from(spoke && came);
            figures.critical += usize::from(critical);
            figures.critical_right += usize::from(critical && came);
            figures.within += usize::from(moment.within() == Some(true));
            figures.errors.extend(moment.error());
        }
        figures.errors.sort_by(f64::total_cmp);
        figures
    }

    fn precision(&self) -> f64 {
        share(self.right, self.spoke)
    }

    fn recall(&self) -> f64 {
        share(self.right, self.due)
    }

    fn median_error(&self) -> f64 {
        let middle = self.errors.len() / 2;
        self.errors.get(middle).copied().unwrap_or(f64::NAN)
    }
}

#[expect(clippy::cast_precision_loss)] // Thousands.
fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6} {:6} {:6} {:6} {:8.1} {:7.1} {:9.1} {:7.1} {:9.2}",
            self.counted,
            self.left_out,
            self.due,
            self.spoke,
            self.precision(),
            self.recall(),
            share(self.critical_right, self.critical),
            share(self.within, self.spoke),
            self.median_error(),
        )
    }
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let set = std::env::var(name).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(default)
}

#[test]
fn a_rate_above_the_limit_is_told_from_one_that_is_none() {
    let seed = setting("TWCHECK_SEED", 99);
    let wanted = setting("TWCHECK_MOMENTS", MOMENTS);
    let mut random = Random(seed);
    let mut found = Vec::new();
    for number in 0.. {
        if found.len() >= wanted {
            break;
        }
        let client = Client::new(number, &mut random);
        moments(&client, &mut random, &mut found);
    }
    println!(
        "\nMEASURED with TWCHECK_SEED={seed}: RATE_ABOVE_LIMIT on {} moments\n{:20} {:>6} {:>6} {:>6} {:>6} {:>8} {:>7} {:>9} {:>7} {:>9}",
        found.len(),
        "",
        "counts",
        "out",
        "due",
        "spoke",
        "right %",
        "found %",
        "critical%",
        "range %",
        "error s"
    );
    for (kind, name) in KINDS.iter().enumerate() {
        let figures = Figures::of(found.iter().filter(|it| it.kind == kind));
        println!("{name:20} {figures}");
    }
    for (name, failed) in [("first time", false), ("after errno 99", true)] {
        let figures = Figures::of(found.iter().filter(|it| it.failed == failed));
        println!("{name:20} {figures}");
    }
    let all = Figures::of(found.iter());
    println!("{:20} {all}", "all");
    assert!(
        all.precision() >= 90.0 && all.recall() >= 80.0 && all.median_error() < 2.0,
        "{all}"
    );
}
