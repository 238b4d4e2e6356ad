//! Unsigned integers of DER (X.690, 8.3), in a sequence of two: an RSA key, or a signature of ECDSA.

use super::super::der;

/// The two integers of a sequence, as their bytes, the highest first and not 0; None when anything else is there.
pub fn pair(mut bytes: &[u8]) -> Option<[&[u8]; 2]> {
    let mut contents = der::take_tagged(&mut bytes, der::SEQUENCE)?;
    let pair = [integer(&mut contents)?, integer(&mut contents)?];
    (bytes.is_empty() && contents.is_empty()).then_some(pair)
}

fn integer<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    match der::take_tagged(bytes, 2)? {
        // A zero in front keeps what follows from being negative.
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Some(rest),
        all if all.first().is_some_and(|first| (1..0x80).contains(first)) => Some(all),
        _ => None,
    }
}
