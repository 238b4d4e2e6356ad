//! The master boot record and the chain of extended boot records behind it.
//!
//! Layout: four entries of 16 bytes at byte 446, the signature at 510 (block/partitions/msdos.c in Linux).

use super::little_endian;
use super::table::{Partition, SECTOR, Table, broken};
use crate::error::Error;
use crate::image::reader::ReadAt;
use crate::text::Text;

const PROTECTIVE: u8 = 0xee;

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

    fn partition(&self, number: u32, base: u64) -> Partition {
        Partition {
            number,
            start: (base + self.start) * SECTOR,
            length: self.sectors * SECTOR,
            name: Text::new(),
        }
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

/// True for the MBR that a GPT disk carries for old tools: one entry of type EE.
pub fn is_protective(sector: &[u8]) -> bool {
    entries(sector).iter().any(|entry| entry.kind == PROTECTIVE)
}

/// Adds the primary partitions, then the logical ones.
pub fn read(disk: &mut impl ReadAt, sector: &[u8], table: &mut Table) -> Result<(), Error> {
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
    let mut number = 5;
    for entry in entries.iter().filter(|entry| entry.is_extended() && !entry.is_empty()) {
        read_logical(disk, entry.start, table, &mut number)?;
    }
    Ok(())
}

/// Follows a chain of extended boot records. Each holds a logical partition, relative to itself, and the place of
/// the next record, relative to the whole extended partition.
fn read_logical(
    disk: &mut impl ReadAt,
    extended: u64,
    table: &mut Table,
    number: &mut u32,
) -> Result<(), Error> {
    let mut record = extended;
    // Each round adds a partition or ends, and a table has room for a fixed number: a loop in the chain ends.
    loop {
        let mut sector = [0; SECTOR as usize];
        disk.read_exact_at(record * SECTOR, &mut sector)?;
        if little_endian::<2>(&sector, 510) != 0xaa55 {
            return Err(broken("an extended boot record has no signature"));
        }
        let [logical, next, ..] = entries(&sector);
        if logical.is_empty() {
            return Ok(());
        }
        table.add(logical.partition(*number, record))?;
        *number += 1;
        if next.is_empty() {
            return Ok(());
        }
        record = extended + next.start;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::disk::table;

    fn put(disk: &mut [u8], sector: usize, index: usize, (kind, start, sectors): (u8, u32, u32)) {
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
        assert_eq!(found, [(1, 8, 8), (2, 16, 8), (3, 32, 64), (5, 34, 6), (6, 52, 5)]);
    }

    #[test]
    fn a_chain_that_loops_ends_in_an_error() {
        let mut disk = disk(&[(0x0f, 32, 64)], 128);
        put(&mut disk, 32, 0, (0x83, 2, 6));
        put(&mut disk, 32, 1, (0x05, 0, 16));
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
