//! What kind of file an image is, told by its first bytes.

use super::source::Source;
pub use super::stream::{Format, Stream};
use super::zip;
use crate::error::Error;

/// What is refused by name, with the bytes it begins with.
const PACKED: [(&[u8], &str); 13] = [
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"BZh", "a bzip2 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"LZIP", "an lzip file"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x5d\0\0\x80\0", "an LZMA file"),
    (b"\x3a\xff\x26\xed", "an Android sparse image"),
    // What gzip(1) unpacks, too.
    (b"\x1f\x9d", "a file of compress"),
    (b"\x1f\x9e", "a file of gzip 0.5"),
    (b"\x1f\x1e", "a file of pack"),
    (b"\x1f\xa0", "a file of SCO compress"),
];
/// Disks of virtual machines: no unpacker helps there.
const VIRTUAL: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "a qcow2 disk"),
    (b"KDMV", "a VMDK disk"),
    (b"vhdxfile", "a VHDX disk"),
    (b"conectix", "a VHD disk"),
    (b"<<< ", "a VirtualBox disk"),
];

/// Tells the format of an image file, and refuses what cannot be written.
pub fn detect(source: &dyn Source, name: &str) -> Result<Stream, Error> {
    let mut first = [0; 512];
    let count = source.read_at(0, &mut first)?;
    let first = first.get(..count).unwrap_or_default();
    if first.is_empty() {
        let error = Error::refused("looking at the image", name, "it is empty");
        return Err(if crate::IS_WHOLE { error.advice("fetch or copy it again") } else { error });
    }
    refuse(&PACKED, first, name, "unpack it, and give what was in it or pack that with gzip")?;
    refuse(&VIRTUAL, first, name, "make a raw image of it (qemu-img convert -O raw FILE IMAGE)")?;
    // What has no signature of a disk would be refused as a disk anyway.
    let is_gzip = first.starts_with(&[0x1f, 0x8b]);
    let is_disk = first.ends_with(&[0x55, 0xaa]);
    if !is_disk && first.trim_ascii_start().starts_with(b"<") {
        return Err(Error::refused("looking at the image", name, "it is a web page, or other XML")
            .advice("open that URL in a browser: it may want a login, or be a list of files"));
    }
    if first.starts_with(b"PK") || !is_gzip && !is_disk && zip::has_directory(source) {
        return zip::find_entry(source, name);
    }
    let format = if is_gzip { Format::Gzip } else { Format::Raw };
    Ok(Stream { format, offset: 0, length: source.length(), promised_crc: 0, promised_length: 0 })
}

fn refuse(
    kinds: &[(&[u8], &str)],
    first: &[u8],
    name: &str,
    advice: &'static str,
) -> Result<(), Error> {
    let Some((_, what)) = kinds.iter().find(|(magic, _)| first.starts_with(magic)) else {
        return Ok(());
    };
    let why: crate::text::Text<80> = crate::text!("it is {}, which is not supported", what);
    Err(Error::refused("looking at the image", name, &why).advice(advice))
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
    fn other_formats_are_refused_by_name_with_what_helps() {
        for (magic, what, advice) in PACKED
            .map(|(magic, what)| (magic, what, "unpack it"))
            .into_iter()
            .chain(VIRTUAL.map(|(magic, what)| (magic, what, "qemu-img convert")))
        {
            let error = detect(&magic.to_vec(), "x").unwrap_err();
            let shown: Text<400> = crate::text!("{}", error);
            assert!(shown.contains(what) && shown.contains(advice), "{}", &*shown);
            assert_eq!(error.kind(), crate::error::Kind::Refused);
        }
    }

    #[test]
    fn a_web_page_is_not_taken_for_an_image() {
        for page in ["<!DOCTYPE html>\n<html>", "\n  <HTML><head>", "<?xml version=\"1.0\"?>"] {
            let error = detect(&page.as_bytes().to_vec(), "x").unwrap_err();
            let shown: Text<400> = crate::text!("{}", error);
            assert!(shown.contains("a web page"), "{}", &*shown);
        }
        // A boot sector may begin with anything.
        let mut disk = vec![b'<'; 512];
        disk[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(detect(&disk, "x").unwrap().format, Format::Raw);
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(detect(&Vec::new(), "x").is_err());
    }
}
