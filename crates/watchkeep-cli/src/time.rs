//! Durations as people write them, times as people and programs read them.

use std::time::Duration;

use jiff::civil::date;
use jiff::fmt::temporal::Pieces;
use jiff::{Span, SpanRelativeTo, tz::TimeZone};
use watchkeep::{MAX_DEADLINE_MS, Timestamp};

/// Reads a duration such as `90s`, `5m`, `1h30m`, `7d`.
///
/// # Errors
///
/// What is wrong with it, and how it is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no duration; write it like 500ms, 90s, 5m, 1h30m or 7d");
    let span: Span = text.parse().map_err(|_| bad())?;
    let fixed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("'{text}' has no fixed length; use weeks, days or less"))?;
    let duration = Duration::try_from(fixed).map_err(|_| bad())?;
    if duration < Duration::from_millis(1) {
        return Err(format!("'{text}' is too short; the shortest is 1ms"));
    }
    Ok(duration)
}

/// Reads a time with its offset, in RFC 3339.
///
/// # Errors
///
/// How it is written.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("'{text}' is no time; write it like 2026-11-23T12:00:00.123Z"))?;
    Ok(Timestamp::from_millis(time.as_millisecond()))
}

/// Reads a deadline, a time in RFC 3339. One past all that a store can hold is how others write "never": none.
///
/// # Errors
///
/// How it is written.
pub fn parse_deadline(text: &str) -> Result<Option<Timestamp>, String> {
    match parse_rfc3339(text) {
        Ok(time) => Ok(unless_never(time)),
        Err(_) if is_past_all_time(text) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A deadline, unless it lies past all that a store can hold.
pub fn unless_never(deadline: Timestamp) -> Option<Timestamp> {
    (deadline.as_millis() <= MAX_DEADLINE_MS).then_some(deadline)
}

/// Whether it is a time of the last hours of the year 9999, which some time zone cannot write.
fn is_past_all_time(text: &str) -> bool {
    Pieces::parse(text).is_ok_and(|pieces| {
        let complete = pieces.time().is_some() && pieces.offset().is_some();
        complete && pieces.date() >= date(9999, 12, 30)
    })
}

/// How times are shown to people: in their own time zone, with its offset, without which an hour comes twice when clocks
/// go back.
#[derive(Debug, Clone)]
pub struct Wall(TimeZone);

impl Wall {
    /// The time zone of this machine.
    pub fn here() -> Wall {
        Wall(TimeZone::system())
    }

    /// `12:00:00.123+02:00`
    pub fn clock(&self, time: Timestamp) -> String {
        self.format(time, "%H:%M:%S.%3f%:z")
    }

    /// `2026-11-23 12:00:00.123+02:00`
    pub fn date_and_clock(&self, time: Timestamp) -> String {
        self.format(time, "%Y-%m-%d %H:%M:%S.%3f%:z")
    }

    fn format(&self, time: Timestamp, format: &str) -> String {
        match jiff::Timestamp::from_millisecond(time.as_millis()) {
            Ok(at) => at.to_zoned_datetime(self.0.clone()).strftime(format).to_string(),
            Err(_) => time.as_millis().to_string(),
        }
    }
}

/// A duration for people, in its two largest units: `1d 3h`, `12s 40ms`.
pub fn human(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut rest = millis;
    let mut parts = Vec::new();
    for (size, unit) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let seconds = |text| parse_duration(text).map(|it| it.as_secs_f64());
        assert_eq!(seconds("90s"), Ok(90.0));
        assert_eq!(seconds("5m"), Ok(300.0));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(seconds("7d"), Ok(604_800.0));
        assert_eq!(seconds("2w"), Ok(1_209_600.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("PT5M"), Ok(300.0));
        for bad in ["", "90", "soon", "-5s", "1y", "0s", "1us", "5 s 3"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} parsed");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        let time = Timestamp::from_millis(1_795_435_200_123);
        assert_eq!(parse_rfc3339(&watchkeep::json::timestamp(time)), Ok(time));
        assert_eq!(parse_rfc3339("2026-11-23T13:00:00.123+01:00"), Ok(time));
        assert!(parse_rfc3339("2026-11-23 noon").is_err());
    }

    #[test]
    fn people_see_two_units() {
        assert_eq!(human(Duration::from_millis(0)), "0s");
        assert_eq!(human(Duration::from_millis(12_040)), "12s 40ms");
        assert_eq!(human(Duration::from_secs(86_400 + 3 * 3600 + 59)), "1d 3h");
        assert_eq!(human(Duration::from_secs(3600 + 1)), "1h");
    }
}
