//! Spans of time as options have them: a number and a unit, such as `90d`.

use std::time::Duration;

pub(super) const MILLISECONDS: (&str, Duration) = ("ms", Duration::from_millis(1));
pub(super) const SECONDS: (&str, Duration) = ("s", Duration::from_secs(1));
pub(super) const MINUTES: (&str, Duration) = ("m", Duration::from_mins(1));
pub(super) const HOURS: (&str, Duration) = ("h", Duration::from_hours(1));
pub(super) const DAYS: (&str, Duration) = ("d", Duration::from_hours(24));

/// Reads digits and one of the units; `None` for anything else, and for more than a `Duration` holds.
pub(super) fn parse(text: &str, units: &[(&str, Duration)]) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = text.strip_prefix(digits)?;
    let (_, length) = units.iter().find(|(name, _)| *name == unit)?;
    // `parse` alone would take a plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    length.checked_mul(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_digits_and_a_unit() {
        let read = |text| parse(text, &[MILLISECONDS, SECONDS, DAYS]);
        assert_eq!(read("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(read("0s"), Some(Duration::ZERO));
        assert_eq!(read("90d"), Some(Duration::from_hours(90 * 24)));
        for bad in ["", "s", "5", "-1s", "+1s", "1m", "1.5s", "5é", "1é"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read("99999999999999999999ms"), None);
    }
}
