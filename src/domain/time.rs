//! A point in time as the databases and the wire hold it.

use std::{fmt, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::ParseError;

/// Microseconds since 1970-01-01T00:00:00Z. Prints as RFC 3339 in UTC with `Z` and six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    #[must_use]
    pub(crate) const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub(crate) const fn micros(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 time with any offset; what is finer than a microsecond is cut off.
    ///
    /// # Errors
    /// [`ParseError::Pattern`] for any other form.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let time = DateTime::parse_from_rfc3339(text).or(Err(ParseError::Pattern))?;
        Ok(Self(time.timestamp_micros()))
    }

    /// Whole seconds since 1970; 0 for a time before.
    #[must_use]
    pub(crate) fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1_000_000).unwrap_or_default()
    }

    /// The instant one microsecond later.
    #[must_use]
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The instant so much later.
    #[must_use]
    pub(crate) fn plus(self, time: Duration) -> Self {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How far two instants are apart, whichever is earlier.
    #[must_use]
    pub(crate) const fn apart(self, other: Self) -> Duration {
        Duration::from_micros(self.0.abs_diff(other.0))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Out of chrono's range (year 262143) only by a hand in the database: the epoch, not a panic.
        let time = DateTime::<Utc>::from_timestamp_micros(self.0).unwrap_or_default();
        f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_microseconds_in_utc() {
        assert_eq!(
            Timestamp::from_micros(0).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
        assert_eq!(
            Timestamp::from_micros(1_776_254_400_000_001).to_string(),
            "2026-04-15T12:00:00.000001Z"
        );
        assert_eq!(Timestamp::from_micros(1).next().micros(), 2);
    }

    #[test]
    fn instants_are_compared() {
        let second = Duration::from_secs(1);
        let (early, late) = (
            Timestamp::from_micros(-400_000),
            Timestamp::from_micros(600_000),
        );
        assert_eq!((early.apart(late), late.apart(early)), (second, second));
    }
}
