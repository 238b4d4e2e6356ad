//! The header of a gzip member (RFC 1952, section 2.3).

/// What the first bytes of a member say.
#[derive(PartialEq, Eq, Debug)]
pub enum Header {
    /// A whole header of this many bytes; the deflate stream follows.
    Length(usize),
    /// More bytes are needed than were given.
    Incomplete,
    /// Not a gzip header.
    Invalid(&'static str),
}

/// The most bytes that a header may take here: real ones are 10 bytes and a file name.
pub const MAX_HEADER: usize = 8192;

const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Reads a member header at the start of `bytes`.
pub fn header(bytes: &[u8]) -> Header {
    parse(bytes).unwrap_or_else(|problem| problem)
}

fn parse(bytes: &[u8]) -> Result<Header, Header> {
    let [magic0, magic1, method, flags, ..] = *bytes else {
        let start = [0x1f, 0x8b, 8];
        let prefix = bytes.get(..bytes.len().min(3)).unwrap_or_default();
        if !start.starts_with(prefix) {
            return Err(Header::Invalid("it does not begin with 1f 8b 08"));
        }
        return Err(Header::Incomplete);
    };
    if [magic0, magic1] != [0x1f, 0x8b] {
        return Err(Header::Invalid("it does not begin with 1f 8b"));
    }
    if method != 8 {
        return Err(Header::Invalid("its method is not deflate"));
    }
    if flags & RESERVED != 0 {
        return Err(Header::Invalid("reserved flags are set"));
    }
    let mut at = 10;
    if flags & FEXTRA != 0 {
        let field = bytes.get(at..at + 2).ok_or(Header::Incomplete)?;
        let length = field.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        at += 2 + length;
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            let text = bytes.get(at..).ok_or(Header::Incomplete)?;
            at += 1 + text.iter().position(|byte| *byte == 0).ok_or(Header::Incomplete)?;
        }
    }
    if flags & FHCRC != 0 {
        at += 2;
    }
    if at > bytes.len() {
        return Err(Header::Incomplete);
    }
    Ok(Header::Length(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_optional_field_is_stepped_over() {
        let mut bytes = vec![0x1f, 0x8b, 8, FEXTRA | FNAME | FCOMMENT | FHCRC, 0, 0, 0, 0, 0, 3];
        bytes.extend(b"\x03\0abcname\0comment\0\x12\x34");
        let length = bytes.len();
        assert_eq!(header(&bytes), Header::Length(length));
        for cut in 0..length {
            assert_eq!(header(&bytes[..cut]), Header::Incomplete, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_gzip_is_invalid() {
        assert!(matches!(header(b"PK\x03\x04"), Header::Invalid(_)));
        assert!(matches!(header(b"\0"), Header::Invalid(_)));
        assert!(matches!(header(b"\x1f\x8b\x07\0\0\0\0\0\0\0"), Header::Invalid(_)));
        assert!(matches!(header(b"\x1f\x8b\x08\x80\0\0\0\0\0\0"), Header::Invalid(_)));
    }
}
