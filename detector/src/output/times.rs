//! How the times of lines are shown to a person.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::finding::Time;

/// How times are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// The time of day, in UTC.
    #[default]
    Utc,
    /// The time of day in the time zone of this host, or of `TZ`.
    Local,
    /// How much later than this they are. Without it, the first line is shown.
    After(Option<Time>),
}

impl Times {
    /// The time of a line: 12 characters, or fewer if it is shown by how much later it is.
    pub(super) fn of(self, time: Time) -> String {
        match self {
            Self::After(before) => later(time, before.unwrap_or(time)),
            Self::Utc | Self::Local => self.time_of_day(time),
        }
    }

    /// `HH:MM:SS.mmm`: a live view is about now.
    pub(super) fn time_of_day(self, time: Time) -> String {
        time.0.to_zoned(self.zone()).strftime("%H:%M:%S%.3f").to_string()
    }

    /// The day of a line.
    pub(crate) fn day(self, time: Time) -> Date {
        time.0.to_zoned(self.zone()).date()
    }

    /// The name of the time zone at this time.
    pub(crate) fn zone_name(self, time: Time) -> String {
        time.0.to_zoned(self.zone()).strftime("%Z").to_string()
    }

    fn zone(self) -> TimeZone {
        if self == Self::Local { TimeZone::system() } else { TimeZone::UTC }
    }
}

/// How much later one time is than another, in at most 8 characters.
fn later(time: Time, before: Time) -> String {
    // Lines are told in about the order of their times.
    let milliseconds = u64::try_from(time.0.duration_since(before.0).as_millis()).unwrap_or(0);
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("+{seconds}.{:03}s", milliseconds % 1000),
        (0, 0, _) => format!("+{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("+{hours}h{:02}m", minutes % 60),
        (1..=99, ..) => format!("+{days}d{:02}h", hours % 24),
        _ => "+100d".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().expect("it is a time")
    }

    #[test]
    fn a_time_is_a_time_of_day() {
        let time = at("2026-11-28T23:04:05.0678Z");
        assert_eq!(Times::Utc.of(time), "23:04:05.067");
        assert_eq!(Times::Utc.zone_name(time), "UTC");
        assert_eq!(Times::Utc.day(time).to_string(), "2026-11-28");
        // Whatever the time zone of this machine is.
        let local = Times::Local.of(time);
        assert!(local.len() == 12 && local.ends_with(":05.067"), "{local}");
    }

    #[test]
    fn a_time_is_how_much_later_it_is() {
        let before = at("2026-11-28T00:00:00Z");
        for (time, expected) in [
            ("2026-11-28T00:00:00Z", "+0.000s"),
            ("2026-11-27T23:59:59Z", "+0.000s"),
            ("2026-11-28T00:00:59.9999Z", "+59.999s"),
            ("2026-11-28T00:01:00Z", "+1m00s"),
            ("2026-11-28T00:59:59.9Z", "+59m59s"),
            ("2026-11-28T23:59:00Z", "+23h59m"),
            ("2026-11-29T00:00:00Z", "+1d00h"),
            ("2027-03-08T00:00:00Z", "+100d"),
            ("2037-03-08T00:00:00Z", "+100d"),
        ] {
            assert_eq!(Times::After(Some(before)).of(at(time)), expected);
        }
        assert_eq!(Times::After(None).of(before), "+0.000s");
    }
}
