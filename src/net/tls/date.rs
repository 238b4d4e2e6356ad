//! Dates for people.

use crate::text::Text;

const DAY: u64 = 24 * 60 * 60;

/// The day of so many seconds since 1970, as 2026-11-26.
pub fn text(seconds: u64) -> Text<12> {
    // Days since 1 March of the year 0, in eras of 400 years; years begin in March, so that February is the last month.
    let days = seconds / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let zero = |number: u64| if number < 10 { "0" } else { "" };
    crate::text!("{}-{}{}-{}{}", year, zero(month), month, zero(day), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_651_199, "2026-11-25"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
        ] {
            assert_eq!(&*text(seconds), day);
        }
    }
}
