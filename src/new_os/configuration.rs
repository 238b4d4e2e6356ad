//! A config.json: read from a file or unpacked from a piece of one, checked, and kept.

use crate::balena::config;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::{Decoder, WINDOW};
use crate::image::source::{FileSource, Source};
use crate::image::stream::{Format, Stream};
use crate::sys::map;
use core::ops::Range;

/// Reads and checks a config.json, which may be packed with gzip.
pub fn read(path: &str, buffer: &mut [u8]) -> Result<&'static [u8], Error> {
    let bytes = files::read(path, buffer).doing("reading the configuration", path);
    let bytes = bytes.map_err(Error::as_refusal)?;
    // In the set rescue a packed one is what it is: no JSON.
    if crate::IS_WHOLE && bytes.starts_with(&GZIP) {
        let file = FileSource::open(path).map_err(Error::as_refusal)?;
        let packed = 0..file.length();
        return unpacked(&file, packed, path, buffer);
    }
    checked(bytes, path)
}

/// What a gzip file begins with (RFC 1952, section 2.3.1).
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Unpacks and checks a config.json: one piece, no longer than a chunk, which is what is taken, with its CRC and its
/// length.
// Not in the large frames of its callers (size-report/README.md).
#[inline(never)]
pub fn unpacked(
    file: &FileSource,
    packed: Range<u64>,
    name: &str,
    buffer: &mut [u8],
) -> Result<&'static [u8], Error> {
    const DOING: &str = "unpacking the configuration";
    let length = packed.end - packed.start;
    let (offset, promised_crc, promised_length) = (packed.start, 0, 0);
    let stream = Stream { format: Format::Gzip, offset, length, promised_crc, promised_length };
    let mut decoder = Decoder::new(file, stream);
    let mut unpack = |buffer: &mut [u8]| decoder.fill(buffer).map(|filled| filled.length);
    let broken = |_| {
        Error::refused(DOING, name, "it is cut short or damaged")
            .advice("pack it again, or give it as it is")
    };
    let length = unpack(buffer).map_err(broken)?;
    let bytes = buffer.get(WINDOW..WINDOW + length).unwrap_or_default();
    let kept = checked(bytes, name);
    // What is checked at the end is checked even when that has failed: a damaged one is no JSON, either.
    if unpack(buffer).map_err(broken)? > 0 {
        return Err(Error::refused(DOING, name, "it is larger than 1 MiB")
            .advice("check that it is the right file"));
    }
    kept
}

/// Checks a config.json and keeps it.
pub fn checked(bytes: &[u8], name: &str) -> Result<&'static [u8], Error> {
    config::check(bytes, name)?;
    let kept = map::buffer(bytes.len()).doing("reserving memory for", name)?;
    kept.copy_from_slice(bytes);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode::BUFFER;
    use crate::image::decode::tests::member;
    use crate::text::Text;

    const CONFIG: &[u8] =
        b"{\"apiEndpoint\":\"e\",\"applicationId\":7,\"deviceType\":\"t\",\"apiKey\":\"sEcReT\"}";

    /// Reads it as `-c` does from a file with these bytes.
    fn read_from(name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let path = std::env::temp_dir().join(format!("takeover-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let result = read(path.to_str().unwrap(), &mut vec![0; BUFFER]);
        std::fs::remove_file(&path).unwrap();
        result.map(<[u8]>::to_vec).map_err(|error| {
            assert_eq!(error.kind().exit_code(), 3);
            let text: Text<500> = crate::text!("{}", error);
            assert!(!text.contains("sEcReT"));
            text.to_string()
        })
    }

    #[test]
    fn a_packed_one_is_unpacked_and_proven() {
        assert_eq!(read_from("plain", CONFIG).unwrap(), CONFIG);
        let packed = member(CONFIG);
        assert_eq!(read_from("packed", &packed).unwrap(), CONFIG);
        let two = [member(&CONFIG[..20]), member(&CONFIG[20..])].concat();
        assert_eq!(read_from("members", &two).unwrap(), CONFIG);
        // The CRC, the length, and bytes in the middle.
        for at in [packed.len() - 8, packed.len() - 1, packed.len() / 2] {
            let mut broken = packed.clone();
            broken[at] ^= 1;
            let why = read_from("broken", &broken).unwrap_err();
            assert!(why.contains("it is cut short or damaged"), "byte {at}: {why}");
        }
        for length in [2, 10, packed.len() / 2, packed.len() - 1] {
            let why = read_from("cut", &packed[..length]).unwrap_err();
            assert!(why.contains("it is cut short or damaged"), "{length}: {why}");
        }
        let why = read_from("none", &member(b"{}")).unwrap_err();
        assert!(why.contains("the key apiEndpoint is missing"), "{why}");
    }

    #[test]
    fn a_packed_one_is_no_larger_than_another() {
        let of_length = |length: usize| {
            let mut text = CONFIG.to_vec();
            text.resize(length, b' ');
            text
        };
        let largest = of_length(config::MAX_LENGTH);
        assert!(read_from("largest", &member(&largest)).unwrap() == largest);
        let larger = of_length(config::MAX_LENGTH + 1);
        let why = read_from("larger", &member(&larger)).unwrap_err();
        assert!(why.contains("larger than 1 MiB"), "{why}");
    }
}
