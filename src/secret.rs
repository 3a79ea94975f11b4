//! Text that must never be shown.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A password, or a URL that may hold one. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `text` with the password of every URL in it replaced: for messages that quote what was typed.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str("://");
        let authority = part.find(char::is_whitespace).unwrap_or(part.len());
        match part[..authority].rfind('@') {
            Some(at) => {
                let user = part[..at].split(':').next().unwrap_or_default();
                clean.push_str(user);
                if user.len() < at {
                    clean.push_str(":…");
                }
                clean.push_str(&part[at..]);
            }
            None => clean.push_str(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug() {
        assert_eq!(
            format!("{:?}", Some(Secret::from("hunter2".to_owned()))),
            "Some(Secret(…))"
        );
    }

    #[test]
    fn passwords_in_urls_are_redacted_wherever_they_stand() {
        for (text, clean) in [
            ("no url", "no url"),
            ("mysql://u:p@h/d", "mysql://u:…@h/d"),
            ("mysql://u:p@ss:w@h", "mysql://u:…@h"),
            (
                "a 'mysql://u:p@h' and http://x:y@z b",
                "a 'mysql://u:…@h' and http://x:…@z b",
            ),
            ("mysql://u@h", "mysql://u@h"),
            ("mysql://h/d", "mysql://h/d"),
        ] {
            assert_eq!(redact(text), clean);
        }
    }
}
