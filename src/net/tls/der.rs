//! As much of DER (X.690) as is needed to say whose certificate it is, who signed it, and what its key may do.
//!
//! Verifies nothing: that is webpki's.

/// The parts of a certificate (RFC 5280, 4.1), each without its tag and length.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Who signed it.
    pub issuer: &'a [u8],
    /// Whose it is.
    pub subject: &'a [u8],
    /// What is left behind the public key: the extensions, and before them, rarely, unique identifiers.
    rest: &'a [u8],
}

/// Takes one element off: its tag, and what is in it.
pub fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, after) = bytes.split_first()?;
    let (length, mut after) = after.split_first()?;
    let mut size = usize::from(*length);
    if size >= 0x80 {
        let count = size - 0x80;
        // A certificate is not larger than two bytes say.
        let digits = after.get(..count).filter(|_| (1..=2).contains(&count))?;
        size = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        // A length has no more bytes than it needs (X.690, 10.1).
        let is_shortest = size >= 0x80 && size >> (8 * (count - 1)) != 0;
        is_shortest.then_some(())?;
        after = after.get(count..)?;
    }
    let contents = after.get(..size)?;
    *bytes = after.get(size..)?;
    Some((*tag, contents))
}

/// The same of this tag; None for another one.
pub fn take_tagged<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(bytes).filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
}

/// The tag of a sequence.
pub const SEQUENCE: u8 = 0x30;

/// The elements that stand one behind the other, each with its tag and length.
pub fn each(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let all = bytes;
        take(&mut bytes)?;
        all.get(..all.len() - bytes.len())
    })
}

/// Takes a certificate apart; None when it is none, or when anything follows it.
pub fn parts(mut certificate: &[u8]) -> Option<Parts<'_>> {
    let mut outer = take_tagged(&mut certificate, SEQUENCE).filter(|_| certificate.is_empty())?;
    let mut rest = take_tagged(&mut outer, SEQUENCE)?;
    // The version, which the first one leaves out, before the serial number.
    if take(&mut rest)?.0 == 0xa0 {
        take(&mut rest)?;
    }
    // The algorithm of the signature.
    take_tagged(&mut rest, SEQUENCE)?;
    let issuer = take_tagged(&mut rest, SEQUENCE)?;
    // How long it is valid.
    take_tagged(&mut rest, SEQUENCE)?;
    let subject = take_tagged(&mut rest, SEQUENCE)?;
    // The public key.
    take_tagged(&mut rest, SEQUENCE)?;
    Some(Parts { issuer, subject, rest })
}

/// How a name is called among people: its commonName, else its organizationName (RFC 5280, appendix A); "?" without,
/// and where it is no text that can be shown.
pub fn common_name(mut name: &[u8]) -> &str {
    let (mut common, mut organization) = (None, None);
    while let Some((_, mut set)) = take(&mut name) {
        let mut attribute = take(&mut set).map_or(&[][..], |(_, attribute)| attribute);
        let kind = take(&mut attribute);
        let value = take(&mut attribute).map(|(_, value)| value);
        match kind {
            Some((6, [0x55, 4, 3])) => common = value,
            Some((6, [0x55, 4, 10])) => organization = value,
            _ => {}
        }
    }
    let text = core::str::from_utf8(common.or(organization).unwrap_or_default());
    text.ok()
        .filter(|text| !text.is_empty() && !text.chars().any(crate::text::is_unfit))
        .unwrap_or("?")
}

impl Parts<'_> {
    /// True when the key may sign certificates: keyUsage (RFC 5280, 4.2.1.3) says so, or is not there.
    pub fn may_sign_certificates(&self) -> bool {
        let mut rest = self.rest;
        while let Some((tag, mut extensions)) = take(&mut rest) {
            if tag != 0xa3 {
                continue;
            }
            let mut list = take_tagged(&mut extensions, SEQUENCE).unwrap_or_default();
            while let Some(mut extension) = take_tagged(&mut list, SEQUENCE) {
                // id-ce-keyUsage, 2.5.29.15.
                if take(&mut extension) == Some((6, &[0x55, 0x1d, 0x0f])) {
                    return signs_certificates(extension);
                }
            }
        }
        true
    }
}

/// The sixth bit of the extension's value, which stands behind a boolean that may be left out.
fn signs_certificates(mut extension: &[u8]) -> bool {
    while let Some((tag, mut value)) = take(&mut extension) {
        if tag == 4 {
            // A string of bits: how many of the last byte are unused, then the bits, the first one on top.
            let bits = take_tagged(&mut value, 3).unwrap_or_default();
            return bits.get(1).is_some_and(|bits| bits & 0x04 != 0);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of DER.
    fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
        let contents = contents.concat();
        let length = contents.len() as u16;
        let head = match length {
            0..128 => vec![tag, length as u8],
            128..256 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, contents].concat()
    }

    #[test]
    fn a_length_is_as_short_as_can_be() {
        for (head, size) in [
            (&[2, 0x81, 0x7f][..], 0x7f),
            (&[2, 0x81, 0], 0),
            (&[2, 0x82, 0, 0x7f], 0x7f),
            (&[2, 0x82, 0, 0x80], 0x80),
            (&[2, 0x82, 0, 0xff], 0xff),
            (&[2, 0x83, 0, 1, 0], 0x100),
            (&[2, 0x80], 0),
            (&[2, 0xff], 0),
        ] {
            assert_eq!(take(&mut &[head, &vec![0; size]].concat()[..]), None, "{head:?}");
        }
        for size in [0, 0x7f, 0x80, 0xff, 0x100, 0xffff] {
            let all = element(2, &[&vec![7; size]]);
            let mut rest = &all[..];
            assert_eq!(take(&mut rest).map(|(tag, found)| (tag, found.len())), Some((2, size)));
            assert!(rest.is_empty());
            for length in 0..all.len().min(300) {
                assert_eq!(take(&mut &all[..length]), None);
            }
        }
    }

    fn name(kind: u8, text: &[u8]) -> Vec<u8> {
        let attribute = element(0x30, &[&element(6, &[&[0x55, 4, kind]]), &element(12, &[text])]);
        element(0x31, &[&attribute])
    }

    fn certificate(version: &[u8], extensions: &[&[u8]]) -> Vec<u8> {
        let list = element(0xa3, &[&element(0x30, extensions)]);
        let signed = element(
            0x30,
            &[
                version,
                &element(2, &[&[1]]),
                &element(0x30, &[]),
                &element(0x30, &[&name(3, b"issuer")]),
                &element(0x30, &[]),
                &element(0x30, &[&name(10, b"subject")]),
                &element(0x30, &[&[0; 300]]),
                if extensions.is_empty() { &[] } else { &list },
            ],
        );
        element(0x30, &[&signed, &element(0x30, &[]), &element(3, &[&[0; 70]])])
    }

    fn usage(bits: &[u8], critical: &[u8]) -> Vec<u8> {
        let value = element(4, &[&element(3, &[bits])]);
        element(0x30, &[&element(6, &[&[0x55, 0x1d, 15]]), critical, &value])
    }

    const VERSION: &[u8] = &[0xa0, 3, 2, 1, 2];

    #[test]
    fn a_certificate_is_taken_apart_and_nothing_else_is() {
        for version in [&[][..], VERSION] {
            let whole = certificate(version, &[&usage(&[1, 6], &[])]);
            let parts = parts(&whole).unwrap();
            assert_eq!(parts.issuer, name(3, b"issuer"));
            assert_eq!(parts.subject, name(10, b"subject"));
            for length in 0..whole.len() {
                assert!(super::parts(&whole[..length]).is_none(), "{length}");
            }
            let mut longer = whole.clone();
            longer.push(0);
            assert!(super::parts(&longer).is_none());
            let two = [&whole[..], &whole[..]].concat();
            assert_eq!(each(&two).collect::<Vec<_>>(), [&whole, &whole]);
        }
    }

    #[test]
    fn who_may_sign_says_so_or_says_nothing() {
        let may = |extensions: &[&[u8]]| {
            parts(&certificate(VERSION, extensions)).unwrap().may_sign_certificates()
        };
        let other = element(0x30, &[&element(6, &[&[0x55, 0x1d, 19]]), &element(4, &[&[0x30, 0]])]);
        assert!(may(&[]) && may(&[&other]));
        let critical = [1, 1, 0xff];
        for critical in [&[][..], &critical] {
            // keyCertSign and cRLSign; keyCertSign alone; digitalSignature; cRLSign; none; nothing at all.
            for (bits, expected) in [
                (&[1, 0x06][..], true),
                (&[2, 0x04], true),
                (&[7, 0x80], false),
                (&[1, 0x02], false),
                (&[0], false),
                (&[], false),
            ] {
                assert_eq!(may(&[&other, &usage(bits, critical)]), expected, "{bits:?}");
            }
        }
    }

    #[test]
    fn a_name_is_its_common_name_and_can_be_shown() {
        let organization = name(10, b"Tests");
        assert_eq!(common_name(&[&organization[..], &name(3, b"A root")].concat()), "A root");
        assert_eq!(common_name(&organization), "Tests");
        for wrong in [&[][..], &name(3, b"a\x1b[2J"), &name(3, b"\xff"), &name(3, b""), &[0x31, 9]]
        {
            assert_eq!(common_name(wrong), "?");
        }
    }
}
