//! Base64 of what a URL holds: the credentials for a proxy (RFC 7617, RFC 4648).

/// Gives `put` the base64 of a percent-encoded text `user:password`. A user alone has an empty password: the colon is
/// there in any case (RFC 7617, section 2).
pub fn encode(text: &str, put: &mut dyn FnMut(u8)) {
    let mut bytes = text.as_bytes();
    let mut end: &[u8] = if text.contains(':') { b"" } else { b":" };
    while !(bytes.is_empty() && end.is_empty()) {
        let (mut group, mut count) = (0u32, 0);
        while count < 3
            && let Some(byte) = next_decoded(&mut bytes).or_else(|| next_decoded(&mut end))
        {
            group |= u32::from(byte) << (16 - 8 * count);
            count += 1;
        }
        for place in 0..4 {
            let value = (group >> (18 - 6 * place) & 63) as u8;
            put(if place <= count { letter(value) } else { b'=' });
        }
    }
}

/// The next byte of a percent-encoded text; a percent sign without two digits stands for itself.
fn next_decoded(bytes: &mut &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (value, rest) = match *bytes {
        [b'%', high, low, rest @ ..]
            if let (Some(high), Some(low)) = (digit(*high), digit(*low)) =>
        {
            (high << 4 | low, rest)
        }
        [first, rest @ ..] => (*first, rest),
        [] => return None,
    };
    *bytes = rest;
    Some(value)
}

fn letter(value: u8) -> u8 {
    match value {
        0..26 => b'A' + value,
        26..52 => b'a' + value - 26,
        52..62 => b'0' + value - 52,
        62 => b'+',
        _ => b'/',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        let mut bytes = Vec::new();
        encode(text, &mut |byte| bytes.push(byte));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn groups_of_three_bytes_become_four_letters() {
        // RFC 4648, section 10.
        for (text, wanted) in [
            (":", "Og=="),
            (":o", "Om8="),
            (":oo", "Om9v"),
            (":oobar", "Om9vYmFy"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            (":%ff%FF%fe", "Ov///g=="),
            // A token has no password, and its colon all the same.
            ("me", "bWU6"),
            ("user", "dXNlcjo="),
        ] {
            assert_eq!(encoded(text), wanted);
        }
    }

    #[test]
    fn what_is_percent_encoded_is_decoded_first() {
        assert_eq!(encoded("a%41:b%40"), encoded("aA:b@"));
        assert_eq!(encoded("%4:"), "JTQ6");
        assert_eq!(encoded("%zz%:"), encoded("%25zz%25:"));
    }
}
