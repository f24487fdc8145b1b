//! The windows in which credits are counted: hours, days and months of the calendar, in UTC.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A calendar window in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// From full hour to full hour.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

impl Window {
    /// All of them, shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// As the configuration and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Its place in [`Window::ALL`].
    pub const fn position(self) -> usize {
        match self {
            Self::Hour => 0,
            Self::Day => 1,
            Self::Month => 2,
        }
    }

    /// Which window of its kind `now` lies in; the next one has the next number.
    pub fn number(self, now: Timestamp) -> i64 {
        match self {
            Self::Hour => now.millis().div_euclid(HOUR),
            Self::Day => now.millis().div_euclid(DAY),
            Self::Month => {
                let date = date(now);
                i64::from(date.year()) * 12 + i64::from(date.month()) - 1
            }
        }
    }

    /// The first instant after the window that `now` lies in.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Hour => Timestamp::from_millis((self.number(now) + 1).saturating_mul(HOUR)),
            Self::Day => Timestamp::from_millis((self.number(now) + 1).saturating_mul(DAY)),
            Self::Month => {
                let next = date(now).last_of_month().tomorrow().ok();
                let midnight = next.and_then(|date| date.to_zoned(TimeZone::UTC).ok());
                midnight.map_or(Timestamp::MAX, |at| Timestamp::from_millis(at.timestamp().as_millisecond()))
            }
        }
    }
}

/// The day that `now` lies in; the first there is for what no calendar has.
fn date(now: Timestamp) -> Date {
    let time = jiff::Timestamp::from_millisecond(now.millis()).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_calendar() {
        let at = |text| Timestamp::parse_rfc3339(text).unwrap();
        for (window, now, ends) in [
            (Window::Hour, "2026-11-26T11:59:59.999Z", "2026-11-26T12:00:00Z"),
            (Window::Hour, "2026-11-26T12:00:00Z", "2026-11-26T13:00:00Z"),
            (Window::Day, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (Window::Month, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Window::Month, "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
        ] {
            let (now, ends) = (at(now), at(ends));
            assert_eq!(window.ends(now), ends, "{window:?}");
            assert_eq!(window.number(ends), window.number(now) + 1, "{window:?}");
            assert_eq!(window.number(Timestamp::from_millis(ends.millis() - 1)), window.number(now));
        }
    }
}
