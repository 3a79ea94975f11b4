//! How bad something is, and from where on.

/// How bad it is, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something decisive could not be read.
    Unknown,
    /// Look at it today.
    Warning,
    /// Connections fail, or are about to.
    Critical,
}

impl Level {
    /// The word that monitoring plugins print.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// From which share of the usable ports on a flow is low, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// WARNING from here.
    pub warn: f64,
    /// CRITICAL from here.
    pub crit: f64,
}

/// Those of `verdict` where nobody names others.
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warn: 50.0,
            crit: 80.0,
        }
    }
}
