//! Base64 (RFC 4648, section 4), read.

/// Decodes text, white space in it aside, and gives each byte to `sink`. Gives how many there were; nothing where it is
/// no base64. The filling at the end may be missing.
pub fn decode(text: &mut dyn Iterator<Item = char>, sink: &mut dyn FnMut(u8)) -> Option<usize> {
    let (mut bits, mut count) = (0u32, 0);
    let mut length = 0;
    let mut has_ended = false;
    for character in text {
        match character {
            '=' => {
                has_ended = true;
                continue;
            }
            ' ' | '\t' | '\n' | '\r' => continue,
            _ if has_ended => return None,
            _ => bits = bits << 6 | value(u8::try_from(character).ok()?)?,
        }
        count += 6;
        if count >= 8 {
            count -= 8;
            length += 1;
            sink((bits >> count) as u8);
        }
    }
    // A single character makes no byte.
    (count < 6).then_some(length)
}

/// The six bits that a character stands for.
pub fn value(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let length = super::decode(&mut text.chars(), &mut |byte| bytes.push(byte))?;
        assert_eq!(length, bytes.len());
        Some(bytes)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Zm9v\r\nYmFy\n", "foobar"),
            ("Zg", "f"),
        ] {
            assert_eq!(decoded(text).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        for broken in ["Z", "Zg=a", "Zm9-", "Zm9vé", "Zm9vY"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
