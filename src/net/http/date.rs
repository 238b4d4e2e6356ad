//! Dates as servers write them.

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`: the one form that is still made (RFC 9110, 5.6.7).
pub fn parse(text: &str) -> Option<u64> {
    let number = |at: usize, length: usize| crate::text::digits(text.get(at..at + length)?);
    // The day of the week says nothing, but the text may be sent back as a validator.
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.len() != 29 || text.get(25..) != Some(" GMT") || !is_printable {
        return None;
    }
    let month = text.get(8..11)?;
    let months = b"JanFebMarAprMayJunJulAugSepOctNovDec".chunks(3);
    let month = months.zip(1..).find(|(name, _)| *name == month.as_bytes())?.1;
    let days = days_since_1970(number(12, 4)?, month, number(5, 2)?)?;
    let seconds = (number(17, 2)? * 60 + number(20, 2)?) * 60 + number(23, 2)?;
    Some(days * 86_400 + seconds)
}

/// Days from 1 January 1970 to a day of the calendar. Years are counted from March, so that a leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_early = month < 3;
    let year = year - u64::from(is_early && year > 0);
    let month = if is_early { month + 9 } else { month - 3 };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    // 1 January 1970, counted the same way.
    days.checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Thu, 26 Nov 2026 20:30:34 GMT", 1_795_725_034),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 19é4 08:49:37 GMT",
            "S\u{1}n, 06 Nov 1994 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun, 00 Jan 0000 00:00:00 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
