//! What kind of file an image is, told by its first bytes.

use super::source::Source;
pub use super::stream::{Format, Stream};
use super::zip;
use crate::error::Error;

/// Packed formats that are refused by name, with the bytes they begin with.
const REFUSED: [(&[u8], &str); 10] = [
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"BZh", "a bzip2 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"LZIP", "an lzip file"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"QFI\xfb", "a qcow2 disk"),
    (b"KDMV", "a VMDK disk"),
    (b"\x5d\0\0\x80\0", "an LZMA file"),
];

/// Tells the format of an image file, and refuses what cannot be written.
pub fn detect(source: &impl Source, name: &str) -> Result<Stream, Error> {
    let mut first = [0; 16];
    let count = source.read_at(0, &mut first)?;
    let first = first.get(..count).unwrap_or_default();
    if first.is_empty() {
        return Err(Error::refused("looking at the image", name, "it is empty"));
    }
    for (magic, what) in REFUSED {
        if first.starts_with(magic) {
            let why: crate::text::Text<80> = crate::text!("it is {}, which is not supported", what);
            return Err(Error::refused("looking at the image", name, &why)
                .advice("unpack it first, or pack it with gzip"));
        }
    }
    if first.starts_with(b"PK") {
        return zip::find_entry(source, name);
    }
    let format = match first {
        [0x1f, 0x8b, ..] => Format::Gzip,
        _ => Format::Raw,
    };
    Ok(Stream { format, offset: 0, length: source.length(), promised_crc: 0, promised_length: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    #[test]
    fn formats_are_told_by_content() {
        let format = |bytes: &[u8]| detect(&bytes.to_vec(), "x").unwrap().format;
        assert_eq!(format(b"\x1f\x8b\x08 and more bytes"), Format::Gzip);
        assert_eq!(format(&[0; 512]), Format::Raw);
    }

    #[test]
    fn other_packers_are_refused_by_name() {
        for (magic, what) in REFUSED {
            let error = detect(&magic.to_vec(), "x").unwrap_err();
            let shown: Text<400> = crate::text!("{}", error);
            assert!(shown.contains(what), "{}", &*shown);
            assert_eq!(error.kind(), crate::error::Kind::Refused);
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(detect(&Vec::new(), "x").is_err());
    }
}
