//! The GUID partition table (UEFI specification 2.10, section 5.3).
//!
//! The primary header must be one that Linux takes (is_gpt_valid() in block/partitions/efi.c): the image is about to be
//! written as it is, and there will be no other, since the one at the end of the disk is cleared.

use super::partition::{Partition, SECTOR, Table, broken};
use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::crc32;
use crate::error::Error;
use crate::text;

/// What a GPT header begins with, the primary one and the one at the end of the disk.
pub const SIGNATURE: &[u8; 8] = b"EFI PART";

/// The type of an EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B, as it is stored (UEFI specification 2.10,
/// table 5.7 and appendix A).
const ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// The only length of an entry that Linux takes, in bytes.
const ENTRY: u64 = 128;

/// Adds the partitions of a GPT with 512-byte sectors.
pub fn read(disk: &mut dyn ReadAt, table: &mut Table) -> Result<(), Error> {
    let mut header = [0; SECTOR as usize];
    disk.read_exact_at(SECTOR, &mut header)?;
    if !header.starts_with(SIGNATURE) {
        return Err(broken("the MBR announces a GPT, but there is none"));
    }
    let length = little_endian::<4>(&header, 12) as usize;
    let promised = little_endian::<4>(&header, 16) as u32;
    header[16..20].fill(0);
    let covered = header.get(..length).filter(|covered| covered.len() >= 92);
    if covered.is_none_or(|covered| crc32::crc32(covered) != promised) {
        return Err(broken("the CRC of the GPT header is wrong"));
    }
    // What another tool has moved or copied from the end of a disk says where it was.
    if little_endian::<8>(&header, 24) != 1 {
        return Err(broken("the GPT header says that it belongs elsewhere"));
    }
    let first_usable = little_endian::<8>(&header, 40);
    let last_usable = little_endian::<8>(&header, 48);
    if last_usable < first_usable {
        return Err(broken("the space that the GPT describes ends before it begins"));
    }
    table.usable_end = last_usable.saturating_add(1).saturating_mul(SECTOR);
    let first = little_endian::<8>(&header, 72);
    let count = little_endian::<4>(&header, 80);
    let promised = little_endian::<4>(&header, 88) as u32;
    if little_endian::<4>(&header, 84) != ENTRY || count > 1024 {
        return Err(broken("the GPT has entries of an odd size or number"));
    }
    let start = first.checked_mul(SECTOR).ok_or_else(|| broken("the GPT lies nowhere"))?;
    let mut crc = 0;
    for index in 0..count {
        let mut entry = [0; ENTRY as usize];
        disk.read_exact_at(start.saturating_add(index * ENTRY), &mut entry)?;
        crc = crc32::extend(crc, &entry);
        if let Some(partition) = partition(index as u32 + 1, &entry)? {
            table.add(partition)?;
        }
    }
    if crc == promised { Ok(()) } else { Err(broken("the CRC of the GPT entries is wrong")) }
}

fn partition(number: u32, entry: &[u8]) -> Result<Option<Partition>, Error> {
    if entry.iter().take(16).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let first = little_endian::<8>(entry, 32);
    let last = little_endian::<8>(entry, 40);
    let sectors = last.checked_sub(first).and_then(|sectors| sectors.checked_add(1));
    let bytes = sectors.and_then(|sectors| sectors.checked_mul(SECTOR));
    let (Some(length), Some(start)) = (bytes, first.checked_mul(SECTOR)) else {
        return Err(broken("a GPT entry ends before it begins"));
    };
    let is_esp = entry.starts_with(&ESP);
    let guid =
        entry.get(16..).and_then(|rest| rest.first_chunk::<16>()).copied().unwrap_or_default();
    // 36 units of UTF-16.
    let name = text::utf16(entry.get(56..ENTRY as usize).unwrap_or_default());
    Ok(Some(Partition { number, start, length, name, guid, is_esp }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::disk::{mbr, table};

    /// A GPT disk of 256 sectors with these partitions (name, first sector, last sector).
    pub fn disk(partitions: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut disk = mbr::tests::disk(&[(PROTECTIVE, 1, 255)], 256);
        for (index, (name, first, last)) in partitions.iter().enumerate() {
            let at = 1024 + 128 * index;
            disk[at..at + 16].fill(7);
            disk[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            disk[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
            for (place, unit) in name.encode_utf16().enumerate() {
                disk[at + 56 + 2 * place..at + 58 + 2 * place].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let crc = crc32::crc32(&disk[1024..1024 + 128 * 128]);
        let header = &mut disk[512..1024];
        header[..8].copy_from_slice(SIGNATURE);
        header[12] = 92;
        header[24] = 1;
        header[40] = 34;
        header[48] = 222;
        header[72] = 2;
        header[80] = 128;
        header[84] = 128;
        header[88..92].copy_from_slice(&crc.to_le_bytes());
        seal(&mut disk);
        disk
    }

    /// Puts the CRCs of the entries and of the header right.
    pub fn seal_entries(disk: &mut [u8]) {
        let crc = crc32::crc32(&disk[1024..1024 + 128 * 128]);
        disk[600..604].copy_from_slice(&crc.to_le_bytes());
        seal(disk);
    }

    /// Puts the CRC of the header right.
    fn seal(disk: &mut [u8]) {
        disk[528..532].fill(0);
        let crc = crc32::crc32(&disk[512..512 + 92]);
        disk[528..532].copy_from_slice(&crc.to_le_bytes());
    }

    const PROTECTIVE: u8 = 0xee;

    #[test]
    fn names_and_places() {
        let mut disk = disk(&[("resin-boot", 40, 47), ("resin-rootA", 48, 63)]);
        let length = disk.len() as u64;
        let table = table::read(&mut disk, length).unwrap();
        assert_eq!(table.kind, table::Kind::Gpt);
        assert_eq!(&*table.partitions[1].name, "resin-rootA");
        assert_eq!(table.partitions[0].start, 40 * 512);
        assert_eq!(table.partitions[0].length, 8 * 512);
        assert_eq!(table.usable_end, 223 * 512);
    }

    #[test]
    fn what_linux_does_not_take_is_refused() {
        let good = disk(&[("a", 40, 47)]);
        let length = good.len() as u64;
        let change = |at: usize, value: u8| {
            let mut disk = good.clone();
            disk[512 + at] = value;
            seal(&mut disk);
            table::read(&mut disk, length)
        };
        assert!(change(24, 1).is_ok());
        assert!(change(24, 255).is_err(), "the header from the end of a disk");
        assert!(change(40, 223).is_err(), "the usable space ends before it begins");
        assert_eq!(change(48, 34).unwrap().usable_end, 35 * 512);
        assert_eq!(change(55, 255).unwrap().usable_end, u64::MAX, "it is checked with the disk");
        // 64 entries of 256 bytes, with the same CRC.
        let mut wide = good.clone();
        wide[512 + 80] = 64;
        wide[512 + 84..512 + 86].copy_from_slice(&[0, 1]);
        seal(&mut wide);
        assert!(table::read(&mut wide, length).is_err(), "wide entries");
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let good = disk(&[("a", 40, 47)]);
        for at in [512, 520, 600, 1024, 1024 + 60] {
            let mut disk = good.clone();
            disk[at] ^= 1;
            let length = disk.len() as u64;
            assert!(table::read(&mut disk, length).is_err(), "byte {at}");
        }
    }
}
