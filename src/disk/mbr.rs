//! The master boot record and the chain of extended boot records behind it.
//!
//! Layout: four entries of 16 bytes at byte 446, the signature at 510 (block/partitions/msdos.c in Linux).

use super::partition::{Area, Bios, Partition, SECTOR, Table, broken};
use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

const PROTECTIVE: u8 = 0xee;
/// An EFI system partition.
const ESP: u8 = 0xef;
/// Where the code of the first sector ends, in bytes: behind it a disk signature, then the entries.
const CODE_LENGTH: usize = 440;

struct Entry {
    active: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_empty(&self) -> bool {
        self.kind == 0 || self.sectors == 0
    }

    /// Of an extended partition only the first two sectors: so does Linux, and its end says nothing. It may have been
    /// drawn to the end of a disk, and grows with the partitions in it.
    fn partition(&self, number: u32, base: u64) -> Partition {
        let sectors = if self.is_extended() { self.sectors.min(2) } else { self.sectors };
        Partition {
            number,
            start: (base + self.start) * SECTOR,
            length: sectors * SECTOR,
            name: Text::new(),
            guid: [0; 16],
            is_esp: self.kind == ESP,
        }
    }

    fn area(&self, base: u64) -> Area {
        Area { start: base + self.start, sectors: self.sectors }
    }

    /// True when it lies in the extended partition and is not longer than the link to its record promises. The third
    /// and the fourth entry are garbage at times.
    fn fits(&self, link: Area, extended: Area) -> bool {
        let place = self.area(link.start);
        self.start + self.sectors <= link.sectors
            && place.start >= extended.start
            && place.end() <= extended.end()
    }
}

fn entries(sector: &[u8]) -> [Entry; 4] {
    core::array::from_fn(|index| {
        let at = 446 + 16 * index;
        Entry {
            active: little_endian::<1>(sector, at) as u8,
            kind: little_endian::<1>(sector, at + 4) as u8,
            start: little_endian::<4>(sector, at + 8),
            sectors: little_endian::<4>(sector, at + 12),
        }
    })
}

/// The signature by which firmware and kernels know a disk: the four bytes at 440.
pub fn signature(sector: &[u8]) -> u32 {
    little_endian::<4>(sector, CODE_LENGTH) as u32
}

/// True for the MBR that a GPT disk carries for old tools: one entry of type EE.
pub fn is_protective(sector: &[u8]) -> bool {
    entries(sector).iter().any(|entry| entry.kind == PROTECTIVE)
}

/// What a BIOS starts from a disk with this first sector.
pub fn bios(sector: &[u8]) -> Bios {
    // What parted puts into every table that it makes (libparted/labels/dos.c): it starts the active partition.
    const OF_PARTED: [u8; 9] = [0xfa, 0xb8, 0x00, 0x10, 0x8e, 0xd0, 0xbc, 0x00, 0xb0];
    if !has_code(sector) {
        return Bios::Nothing;
    }
    if !sector.starts_with(&OF_PARTED) {
        return Bios::Code;
    }
    let active = entries(sector).into_iter().find(|entry| entry.active == 0x80);
    active.map_or(Bios::Nothing, |entry| Bios::Partition(entry.start * SECTOR))
}

/// True when a BIOS finds code in a first sector, that of a disk or of a partition. A jump over the figures of a FAT
/// file system is none, and neither is the text that mkfs.fat puts behind it.
pub fn has_code(sector: &[u8]) -> bool {
    const NO_SYSTEM: &[u8] = b"not a bootable disk";
    let start = match sector {
        [0xeb, jump, ..] => 2 + usize::from(*jump),
        _ => 0,
    };
    let code = sector.get(start..CODE_LENGTH).unwrap_or_default();
    code.iter().any(|byte| *byte != 0)
        && !code.windows(NO_SYSTEM.len()).any(|window| window == NO_SYSTEM)
}

/// Adds the primary partitions, and notes where the logical ones are found.
pub fn read(sector: &[u8], table: &mut Table) -> Result<(), Error> {
    let entries = entries(sector);
    // A file system's boot sector has the same signature, but code or text where the entries would be.
    if entries.iter().any(|entry| entry.active & 0x7f != 0) {
        return Err(broken("the first sector is not a partition table"));
    }
    for (number, entry) in (1..).zip(&entries) {
        if !entry.is_empty() {
            table.add(entry.partition(number, 0))?;
        }
    }
    let extended = entries.iter().filter(|entry| entry.is_extended() && !entry.is_empty());
    for (place, entry) in table.chain.extended.iter_mut().zip(extended) {
        *place = Some(entry.area(0));
    }
    Ok(())
}

/// As many records without a partition Linux follows, too.
const MOST_WITHOUT: u32 = 100;

/// Reads the next extended boot record and adds the logical partitions in it; false when there is no more. As
/// parse_extended() does in block/partitions/msdos.c of Linux: whoever deletes a partition may leave an empty entry,
/// and the link is not in the same slot everywhere.
pub(super) fn read_on(disk: &mut dyn ReadAt, table: &mut Table) -> Result<bool, Error> {
    let chain = &mut table.chain;
    if chain.link.is_none() {
        chain.current = chain.extended.iter_mut().find_map(Option::take);
        chain.link = chain.current;
        chain.without = 0;
    }
    let (Some(extended), Some(link)) = (chain.current, chain.link.take()) else {
        return Ok(false);
    };
    // A loop with partitions in it ends when the table is full.
    if chain.without >= MOST_WITHOUT {
        return Err(broken("the chain of extended boot records does not end"));
    }
    chain.without += 1;
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(link.start * SECTOR, &mut sector)?;
    if little_endian::<2>(&sector, 510) != 0xaa55 {
        return Err(broken("an extended boot record has no signature"));
    }
    let entries = entries(&sector);
    let next = entries.iter().find(|entry| entry.is_extended() && entry.sectors != 0);
    chain.link = next.map(|entry| entry.area(extended.start));
    for (slot, entry) in entries.iter().enumerate() {
        if entry.sectors != 0 && !entry.is_extended() && (slot < 2 || entry.fits(link, extended)) {
            table.chain.found += 1;
            table.chain.without = 0;
            table.add(entry.partition(4 + table.chain.found, link.start))?;
        }
    }
    Ok(true)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::disk::table;

    struct Counted {
        disk: Vec<u8>,
        reads: u32,
    }

    impl ReadAt for Counted {
        fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
            self.reads += 1;
            self.disk.read_exact_at(offset, buffer)
        }
    }

    /// Puts an entry (type, start, sectors) into the table in `sector`.
    pub fn put(
        disk: &mut [u8],
        sector: usize,
        index: usize,
        (kind, start, sectors): (u8, u32, u32),
    ) {
        let at = sector * 512 + 446 + 16 * index;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        disk[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    /// A disk of `sectors` sectors with these primary partitions (type, start, sectors).
    pub fn disk(partitions: &[(u8, u32, u32)], sectors: usize) -> Vec<u8> {
        let mut disk = vec![0; sectors * 512];
        for (index, entry) in partitions.iter().enumerate() {
            put(&mut disk, 0, index, *entry);
        }
        disk
    }

    #[test]
    fn primary_and_logical_partitions() {
        let mut disk = disk(&[(0x0c, 8, 8), (0x83, 16, 8), (0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0x83, 2, 6));
        put(&mut disk, 32, 1, (0x05, 16, 16));
        put(&mut disk, 48, 0, (0x83, 4, 5));
        let table = table::read(&mut disk, 128 * 512).unwrap();
        let found: Vec<_> =
            table.partitions.iter().map(|p| (p.number, p.start / 512, p.length / 512)).collect();
        assert_eq!(found, [(1, 8, 8), (2, 16, 8), (3, 32, 2), (5, 34, 6), (6, 52, 5)]);
    }

    /// Number, first sector and length of each partition.
    fn places(disk: &mut Vec<u8>) -> Vec<(u32, u64, u64)> {
        let length = disk.len() as u64;
        let table = table::read(disk, length).unwrap();
        table.partitions.iter().map(|p| (p.number, p.start / 512, p.length / 512)).collect()
    }

    #[test]
    fn a_deleted_logical_partition_leaves_the_others_as_linux_sees_them() {
        let mut disk = disk(&[(0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0, 0, 0));
        put(&mut disk, 32, 1, (0x05, 16, 16));
        put(&mut disk, 48, 0, (0x83, 4, 5));
        put(&mut disk, 48, 1, (0x05, 32, 16));
        put(&mut disk, 64, 0, (0, 0, 0));
        put(&mut disk, 64, 1, (0x05, 48, 16));
        put(&mut disk, 80, 0, (0x83, 1, 7));
        assert_eq!(places(&mut disk)[1..], [(5, 52, 5), (6, 81, 7)]);
        assert_eq!(places(&mut disk).len(), 3);
    }

    #[test]
    fn the_link_in_any_slot_and_garbage_in_the_last_two() {
        let mut disk = disk(&[(0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0x85, 16, 16));
        put(&mut disk, 32, 1, (0x83, 2, 6));
        put(&mut disk, 32, 2, (0x83, 8, 4));
        put(&mut disk, 32, 3, (0x83, 60, 8));
        put(&mut disk, 48, 0, (0x83, 4, 5));
        put(&mut disk, 48, 2, (0x83, 9, 8));
        put(&mut disk, 48, 3, (0x0f, 32, 16));
        put(&mut disk, 64, 0, (0x83, 1, 7));
        let expected = [(5, 34, 6), (6, 40, 4), (7, 52, 5), (8, 65, 7)];
        assert_eq!(places(&mut disk)[1..], expected);
    }

    #[test]
    fn every_extended_partition_has_its_chain() {
        let mut disk = disk(&[(0x05, 32, 32), (0x83, 8, 8), (0x0f, 64, 32)], 128);
        put(&mut disk, 32, 0, (0x83, 2, 6));
        put(&mut disk, 64, 0, (0x83, 4, 6));
        assert_eq!(places(&mut disk)[3..], [(5, 34, 6), (6, 68, 6)]);
    }

    #[test]
    fn a_chain_that_loops_ends_in_an_error() {
        let mut empty = disk(&[(0x0f, 32, 64)], 128);
        put(&mut empty, 32, 1, (0x05, 16, 16));
        put(&mut empty, 48, 1, (0x05, 0, 16));
        let mut counted = Counted { disk: empty, reads: 0 };
        assert!(table::read(&mut counted, 128 * 512).is_err());
        assert!(counted.reads < 200, "{}", counted.reads);

        let mut disk = disk(&[(0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0x83, 2, 6));
        put(&mut disk, 32, 1, (0x05, 16, 16));
        put(&mut disk, 48, 0, (0x83, 2, 6));
        put(&mut disk, 48, 1, (0x05, 16, 16));
        assert!(table::read(&mut disk, 128 * 512).is_err());
    }

    #[test]
    fn a_boot_sector_of_a_file_system_is_no_table() {
        let mut disk = disk(&[(0x0c, 8, 8)], 16);
        disk[446] = 0x41;
        assert!(table::read(&mut disk, 16 * 512).is_err());
    }

    #[test]
    fn an_extended_boot_record_without_a_signature_is_an_error() {
        let mut disk = disk(&[(0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0x83, 2, 6));
        table::read(&mut disk, 128 * 512).unwrap();
        disk[32 * 512 + 510] = 0;
        assert!(table::read(&mut disk, 128 * 512).is_err());
    }
}
