//! The header of a gzip member (RFC 1952, section 2.3).
//!
//! Read byte by byte: an extra field has up to 65,535 bytes, and neither the RFC nor gzip(1) knows a longest name or
//! comment.

use crate::crc32;
use crate::error::Error;

const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// Gives the next byte of the packed file, and nothing at its end.
pub type Next<'a> = dyn FnMut() -> Result<Option<u8>, Error> + 'a;

/// Reads a member header from its first byte to its last; the deflate stream follows. Refuses what gzip(1) refuses: a
/// method that is not deflate, flags that nobody knows, a wrong CRC of the header, a header that the file ends in.
// Inlined, its closures are there once a byte: 300 bytes.
#[inline(never)]
pub fn read_header(next: &mut Next) -> Result<(), Error> {
    let mut crc = 0;
    let mut byte = || -> Result<u8, Error> {
        let byte = next()?.ok_or_else(cut)?;
        crc = crc32::extend(crc, &[byte]);
        Ok(byte)
    };
    for expected in [0x1f, 0x8b] {
        if byte()? != expected {
            return Err(damaged("it does not begin with 1f 8b"));
        }
    }
    if byte()? != 8 {
        return Err(unknown("its method is not deflate"));
    }
    let flags = byte()?;
    if flags & RESERVED != 0 {
        return Err(unknown("it is encrypted, or has flags that no gzip knows"));
    }
    // The time of the last change, how well it was packed, the system.
    for _ in 0..6 {
        byte()?;
    }
    if flags & FEXTRA != 0 {
        let length = u16::from_le_bytes([byte()?, byte()?]);
        for _ in 0..length {
            byte()?;
        }
    }
    for flag in [FNAME, FCOMMENT] {
        while flags & flag != 0 && byte()? != 0 {}
    }
    if flags & FHCRC != 0 {
        let expected = crc as u16;
        if u16::from_le_bytes([next()?.ok_or_else(cut)?, next()?.ok_or_else(cut)?]) != expected {
            return Err(damaged("the CRC of a gzip header is wrong: the file is damaged"));
        }
    }
    Ok(())
}

/// The file ends in a header.
pub(super) fn cut() -> Error {
    damaged("it ends in the middle of a gzip header: the file is cut short")
}

fn unknown(why: &str) -> Error {
    Error::refused("decoding", "the image", why)
        .advice("unpack it with what made it, and give the raw file")
}

/// Bytes of an image file that are not as they were made.
pub(super) fn damaged(why: &str) -> Error {
    Error::refused("decoding", "the image", why).advice("fetch it again and compare its checksum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    /// How long the header is, or why there is none.
    fn header(bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        let result = read_header(&mut || {
            at += 1;
            Ok(bytes.get(at - 1).copied())
        });
        result.map(|()| at).map_err(|error| {
            let text: Text<400> = crate::text!("{}", error);
            text.to_string()
        })
    }

    fn with_fields(flags: u8, fields: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
        bytes.extend(fields);
        if flags & FHCRC != 0 {
            bytes.extend((crc32::crc32(&bytes) as u16).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn every_optional_field_is_stepped_over() {
        let bytes = with_fields(FEXTRA | FNAME | FCOMMENT | FHCRC | 1, b"\x03\0abcname\0comment\0");
        let length = bytes.len();
        assert_eq!(header(&bytes), Ok(length));
        for cut in 0..length {
            let why = header(&bytes[..cut]).unwrap_err();
            assert!(why.contains("cut short"), "cut at {cut}: {why}");
        }
    }

    #[test]
    fn fields_have_any_length() {
        let extra = [&[0xff, 0xff][..], &[7; 65_535]].concat();
        let name = [&[b'n'; 200_000][..], &[0]].concat();
        for (flag, fields) in [(FEXTRA, extra), (FNAME, name.clone()), (FCOMMENT, name)] {
            let bytes = with_fields(flag | FHCRC, &fields);
            assert_eq!(header(&bytes), Ok(bytes.len()));
            assert_eq!(header(&with_fields(flag, &fields)), Ok(10 + fields.len()));
        }
    }

    #[test]
    fn a_wrong_crc_of_the_header_is_refused() {
        let good = with_fields(FNAME | FHCRC, b"name\0");
        for at in 4..good.len() {
            // The name's end, which makes the name longer.
            if at != 14 {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                let why = header(&bytes).unwrap_err();
                assert!(why.contains("CRC of a gzip header"), "byte {at}: {why}");
            }
        }
    }

    #[test]
    fn what_is_not_gzip_is_refused() {
        assert!(header(b"PK\x03\x04").unwrap_err().contains("begin"));
        assert!(header(b"\0").unwrap_err().contains("begin"));
        for (bytes, why) in [
            (b"\x1f\x8b\x07\0\0\0\0\0\0\0", "method"),
            (b"\x1f\x8b\x08\x20\0\0\0\0\0\0", "flags"),
            (b"\x1f\x8b\x08\x40\0\0\0\0\0\0", "flags"),
            (b"\x1f\x8b\x08\x80\0\0\0\0\0\0", "flags"),
        ] {
            let error = header(bytes).unwrap_err();
            assert!(
                error.contains(why) && error.contains("unpack it with what made it"),
                "{error}"
            );
        }
    }
}
