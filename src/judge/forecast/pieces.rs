//! The minute told in as few straight pieces as chance allows.

/// What a number costs that a story needs: a piece, its level, its slope. The Bayesian information
/// criterion asks for the logarithm of the number of observations, which are sixty seconds; what a
/// story leaves unexplained costs one a second where chance alone is at work.
pub(super) const PRICE: f64 = 4.1;

/// The least variance of a second: a rate of six and a half shows as six and seven.
const ROUNDING: f64 = 0.25;

/// A slope through fewer seconds is none.
pub(super) const SLOPE_FROM: usize = 4;

/// Seconds of random arrivals that are believed in before any is seen, so that three seconds that
/// happen to be alike do not make a client one of clockwork.
const BELIEVED: f64 = 10.0;

/// The median of a squared normal deviate.
const MEDIAN: f64 = 0.455;

/// How much the seconds scatter, as a multiple of what random arrivals would (whose variance is
/// their mean): near 0 for a client of clockwork, above 1 for one that comes in heaps.
///
/// Of each three seconds in a row the middle one is held against the mean of the others, so that a
/// trend is no scatter, and the median is taken, so that a step is none.
#[expect(clippy::cast_precision_loss)] // At most sixty.
pub(super) fn scatter(seconds: &[u16]) -> f64 {
    let mut deviations: Vec<f64> = seconds
        .windows(3)
        .map(|three| [0, 1, 2].map(|at| f64::from(three[at])))
        .filter(|three| three.iter().sum::<f64>() > 0.0)
        .map(|[later, middle, earlier]| {
            let off = later - 2.0 * middle + earlier;
            off * off / (later + 4.0 * middle + earlier)
        })
        .collect();
    deviations.sort_by(f64::total_cmp);
    let seen = deviations.len() as f64;
    let median = deviations.get(deviations.len() / 2).unwrap_or(&MEDIAN);
    (median / MEDIAN * seen + BELIEVED) / (seen + BELIEVED)
}

/// The variance of a second around `level`.
pub(super) fn variance(level: f64, scatter: f64) -> f64 {
    (level * scatter).max(ROUNDING)
}

/// Seconds through which a straight line goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Piece {
    /// Its latest second, by age.
    pub begin: usize,
    /// How many there are.
    pub length: usize,
    /// Connections per second in its middle.
    pub level: f64,
    /// By how much that grows each second; 0 where chance explains the change.
    pub growth: f64,
    /// The variance of one of its seconds.
    pub variance: f64,
}

/// Sums over the seconds up to some age, from which those over any stretch follow.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    squared: f64,
    by_age: f64,
}

impl Sums {
    /// For no second, and after each.
    #[expect(clippy::cast_precision_loss)] // At most sixty.
    fn over(seconds: &[u16]) -> Vec<Self> {
        let mut sum = Self::default();
        let mut sums = vec![sum];
        for (age, &count) in seconds.iter().enumerate() {
            let count = f64::from(count);
            sum.count += count;
            sum.squared += count * count;
            sum.by_age += count * age as f64;
            sums.push(sum);
        }
        sums
    }
}

impl Piece {
    /// The cheapest line through the seconds from age `begin` up to `end`, and what it costs.
    #[expect(clippy::cast_precision_loss)] // At most sixty.
    fn fit(begin: usize, end: usize, sums: &[Sums], scatter: f64) -> (f64, Self) {
        let (before, until) = (sums[begin], sums[end]);
        let length = (end - begin) as f64;
        let count = until.count - before.count;
        let level = count / length;
        let variance = variance(level, scatter);
        let off = until.squared - before.squared - count * level;
        let middle = begin as f64 + (length - 1.0) / 2.0;
        let rise = middle * count - (until.by_age - before.by_age);
        let slope = rise / spread(length);
        let flat = off / variance + 2.0 * PRICE;
        let sloped = (off - rise * slope) / variance + 3.0 * PRICE;
        let growing = end - begin >= SLOPE_FROM && sloped < flat;
        let piece = Self {
            begin,
            length: end - begin,
            level,
            growth: if growing { slope } else { 0.0 },
            variance,
        };
        (if growing { sloped } else { flat }, piece)
    }
}

/// The sum of the squared distances of `length` seconds from their middle; of one second not 0, so
/// that it can be divided by.
pub(super) fn spread(length: f64) -> f64 {
    (length * (length * length - 1.0) / 12.0).max(0.5)
}

/// The cheapest line through each stretch of the seconds.
///
/// By the stretch's end, then by its beginning.
pub(super) struct Lines(Vec<(f64, Piece)>);

impl Lines {
    pub(super) fn through(seconds: &[u16], scatter: f64) -> Self {
        let sums = Sums::over(seconds);
        let stretches = (1..=seconds.len()).flat_map(|end| (0..end).map(move |begin| (begin, end)));
        let fit = |(begin, end)| Piece::fit(begin, end, &sums, scatter);
        Self(stretches.map(fit).collect())
    }

    fn of(&self, begin: usize, end: usize) -> (f64, Piece) {
        self.0[end * (end - 1) / 2 + begin]
    }

    /// The cheapest story of so many seconds from age `begin` on, by dynamic programming (optimal
    /// partitioning, Jackson et al. 2005): the best story of some seconds is the best one of fewer
    /// and one piece more.
    pub(super) fn story(&self, begin: usize, seconds: usize) -> Story {
        let mut story = Story {
            begin,
            cost: vec![0.0],
            last: vec![None],
        };
        for told in 1..=seconds {
            // A change seldom falls between two seconds: the one that it falls into is neither here
            // nor there, and costs the one number that it is.
            let change = if told > 1 {
                story.cost[told - 1] + PRICE
            } else {
                f64::INFINITY
            };
            let mut best = (change, None);
            for before in 0..told {
                let (cost, piece) = self.of(begin + before, begin + told);
                let cost = story.cost[before] + cost;
                if cost < best.0 {
                    best = (cost, Some(piece));
                }
            }
            story.cost.push(best.0);
            story.last.push(best.1);
        }
        story
    }
}

/// The cheapest story of the seconds from some age on, for each number of them.
pub(super) struct Story {
    begin: usize,
    /// By the number of seconds told.
    cost: Vec<f64>,
    /// The earliest piece of each; `None` for a second in which a change fell.
    last: Vec<Option<Piece>>,
}

impl Story {
    /// What it costs to tell so many seconds.
    pub(super) fn cost(&self, seconds: usize) -> f64 {
        self.cost[seconds]
    }

    /// The pieces, the latest first.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut told = self.last.len() - 1;
        while told > 0 {
            told = match self.last[told] {
                Some(piece) => {
                    pieces.push(piece);
                    piece.begin - self.begin
                }
                None => told - 1,
            };
        }
        pieces.reverse();
        pieces
    }
}
