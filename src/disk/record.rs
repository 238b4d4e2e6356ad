//! The record of a flash that failed for good: the end of stage 2's log, in the last sectors of the disk, where it is
//! found again when the device lies on a table.
//!
//! Behind the image, and in front of where a backup GPT is. Knows nothing of stages: who writes it, and when, is
//! theirs.

use crate::bytes::little_endian;
use crate::crc32;

/// The most text, in bytes: the end of the log is what matters.
pub const TEXT: usize = 16 * 1024;
/// What is in front of the text, in bytes: as long as the largest logical block, so that the whole can be written past
/// the cache.
pub const HEADER: usize = 4096;
/// All of it, in bytes.
pub const LENGTH: usize = HEADER + TEXT;
/// What a backup GPT may take at the end: 33 blocks of 512 bytes, or 5 of 4096 (UEFI specification, 5.3).
const BACKUP_GPT: u64 = 32 * 1024;
/// The first bytes. Behind them come the length of the text and its CRC-32, 4 bytes each, the lowest first.
const MAGIC: &[u8; 16] = b"takeover record\n";

/// Where the record is on a disk of `disk` bytes; nothing where an image of `image` bytes leaves no room for it.
pub fn offset(disk: u64, image: u64) -> Option<u64> {
    let offset = disk.checked_sub(BACKUP_GPT + LENGTH as u64)? / HEADER as u64 * HEADER as u64;
    Some(offset).filter(|offset| *offset >= image)
}

/// Makes a record around the `length` bytes of text that stand at [`text_of`] in it. `record` has [`LENGTH`] bytes.
pub fn seal(record: &mut [u8], length: usize) {
    let (Some((header, text)), true) = (record.split_at_mut_checked(HEADER), length <= TEXT) else {
        return;
    };
    let text = text.get(..length).unwrap_or_default();
    header.fill(0);
    let fields = MAGIC.iter().copied().chain((length as u32).to_le_bytes());
    for (to, from) in header.iter_mut().zip(fields.chain(crc32::crc32(text).to_le_bytes())) {
        *to = from;
    }
}

/// The place for the text in a record.
pub fn text_of(record: &mut [u8]) -> &mut [u8] {
    record.get_mut(HEADER..).unwrap_or_default()
}

/// True for the first bytes of a record, whatever is behind them.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The text of a record; nothing where these bytes are none, or are damaged.
pub fn read(record: &[u8]) -> Option<&[u8]> {
    let fields = record.strip_prefix(MAGIC)?;
    let length = little_endian::<4>(fields, 0) as usize;
    let text = record.get(HEADER..)?.get(..length)?;
    (u64::from(crc32::crc32(text)) == little_endian::<4>(fields, 4)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_nothing_else() {
        let mut record = vec![0xee; LENGTH];
        assert_eq!(read(&record), None);
        text_of(&mut record)[..5].copy_from_slice(b"lines");
        seal(&mut record, 5);
        assert_eq!(read(&record), Some(&b"lines"[..]));
        for damaged in [0, 16, 20, HEADER, HEADER + 4] {
            let mut record = record.clone();
            record[damaged] ^= 1;
            assert_eq!(read(&record), None, "{damaged}");
        }
        // Behind the text is what lay there.
        record[HEADER + 5] ^= 1;
        assert!(read(&record).is_some());
        // A length beyond the end is nobody's.
        record[16..20].fill(0xff);
        assert_eq!(read(&record), None);
        assert_eq!(read(&record[..100]), None);
        seal(&mut record, TEXT);
        assert_eq!(read(&record).map(<[u8]>::len), Some(TEXT));
    }

    #[test]
    fn it_lies_between_the_image_and_the_backup_gpt() {
        const MIB: u64 = 1 << 20;
        let place = offset(100 * MIB, 99 * MIB).unwrap();
        assert_eq!(place % 4096, 0);
        assert!(place + LENGTH as u64 + 32 * 1024 <= 100 * MIB && place > 99 * MIB);
        assert_eq!(offset(100 * MIB, 0), Some(place));
        assert_eq!(offset(100 * MIB, place), Some(place));
        assert_eq!(offset(100 * MIB, place + 1), None);
        assert_eq!(offset(1000, 0), None);
        // A disk whose length is no multiple of 4096.
        assert_eq!(offset(100 * MIB + 512, 0), Some(place));
    }
}
