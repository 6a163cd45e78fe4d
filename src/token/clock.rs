//! The wall clock, and how the dialects write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "credentials end by the wall clock"
)]
pub(super) fn unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// `2026-11-22T19:39:39Z` (RFC 3339).
pub(super) fn rfc3339(unix: u64) -> String {
    format!("{}Z", date_and_time(unix))
}

/// `2026-11-22T19:39:39.0000000+00:00`, as .NET writes it.
pub(super) fn dotnet(unix: u64) -> String {
    format!("{}.0000000+00:00", date_and_time(unix))
}

/// `Sun, 22 Nov 2026 19:39:39 +0000` (RFC 2822).
pub(super) fn rfc2822(unix: u64) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix.min(LAST)));
    date.replace("GMT", "+0000")
}

/// Seconds since 1970 of `Sun, 22 Nov 2026 19:39:39 GMT` (RFC 9110 §5.6.7).
pub(super) fn parse_http_date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The end of the year 9999, beyond which no format goes.
const LAST: u64 = 253_402_300_799;

fn date_and_time(unix: u64) -> String {
    let unix = unix.min(LAST);
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day since 1970. Years are counted from March, so that leap days come last, in eras of
/// 400 years, which are all of the same length.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        // date -u -d @N +%FT%TZ
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_376_379, "2026-11-22T19:39:39Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(unix), text);
        }
        assert_eq!(dotnet(1_795_376_379), "2026-11-22T19:39:39.0000000+00:00");
        assert_eq!(rfc2822(1_588_297_377), "Fri, 01 May 2020 01:42:57 +0000");
        assert_eq!(
            parse_http_date("Fri, 01 May 2020 01:42:57 GMT"),
            Some(1_588_297_377)
        );
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
