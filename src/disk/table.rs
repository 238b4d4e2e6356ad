//! The partition table of a disk, whichever kind it is.

use super::reader::ReadAt;
use super::{gpt, mbr};
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

/// The sector that partition tables are taken to count in, in bytes.
pub const SECTOR: u64 = 512;

/// The most partitions that are looked at. Images of vendors with many have fewer than 50.
pub const MAX_PARTITIONS: usize = 64;

/// What is being done when something fails: of what, the caller says.
const READING: &str = "reading the partition table of";

/// What kind of table it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The PC's master boot record, with extended partitions.
    Mbr,
    /// The GUID partition table (UEFI specification, chapter 5).
    Gpt,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number as the kernel counts: from 1, logical ones of an MBR from 5.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes. Of an extended partition that of its first record only.
    pub length: u64,
    /// Its name in a GPT; empty in an MBR.
    pub name: Text<36>,
    /// Its type is that of an EFI system partition.
    pub is_esp: bool,
}

/// A partition table.
pub struct Table {
    /// MBR or GPT.
    pub kind: Kind,
    /// The partitions that were read so far, in the order of the table.
    pub partitions: heapless::Vec<Partition, MAX_PARTITIONS>,
    /// Where the space ends that a GPT hands out, in bytes; 0 in an MBR. Linux refuses the table on a disk that ends
    /// before, wherever the partitions are.
    pub usable_end: u64,
    /// What a BIOS starts.
    pub bios: mbr::Bios,
    pub(super) chain: mbr::Chain,
}

/// Reads the partition table of a disk of `length` bytes.
pub fn read(disk: &mut impl ReadAt, length: u64) -> Result<Table, Error> {
    let mut table = begin(disk, length)?;
    table.finish(disk, length)?;
    Ok(table)
}

/// Reads what lies at the front of a disk of `length` bytes: a GPT, or the primary partitions. The logical ones are
/// read as [`Table::nth`] comes to them, and the last ones by [`Table::finish`]: each record lies before its partition,
/// and a packed image should be read forward once.
pub fn begin(disk: &mut impl ReadAt, length: u64) -> Result<Table, Error> {
    let mut sector = [0; SECTOR as usize];
    if length < SECTOR {
        return Err(missing());
    }
    disk.read_exact_at(0, &mut sector)?;
    if little_endian::<2>(&sector, 510) != 0xaa55 {
        return Err(missing());
    }
    let mut table = Table::empty();
    table.bios = mbr::bios(&sector);
    match mbr::is_protective(&sector) {
        true => {
            table.kind = Kind::Gpt;
            gpt::read(disk, &mut table)?;
        }
        false => mbr::read(&sector, &mut table)?,
    }
    if table.partitions.is_empty() {
        return Err(missing());
    }
    table.lies_within(length)?;
    Ok(table)
}

impl Table {
    /// An MBR without partitions.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Mbr,
            partitions: heapless::Vec::new(),
            usable_end: 0,
            bios: mbr::Bios::Nothing,
            chain: mbr::Chain::default(),
        }
    }

    /// The partition at `index`, counted from 0 in the order of the table; nothing behind the last.
    pub fn nth(
        &mut self,
        disk: &mut impl ReadAt,
        index: usize,
    ) -> Result<Option<Partition>, Error> {
        while self.partitions.len() <= index && mbr::read_on(disk, self)? {}
        Ok(self.partitions.get(index).cloned())
    }

    /// Reads what is left of the table of a disk of `length` bytes, and checks that all partitions lie on it.
    pub fn finish(&mut self, disk: &mut impl ReadAt, length: u64) -> Result<(), Error> {
        while mbr::read_on(disk, self)? {}
        self.lies_within(length)
    }

    /// Adds a partition; more than [`MAX_PARTITIONS`] are refused, not left out.
    pub(super) fn add(&mut self, partition: Partition) -> Result<(), Error> {
        self.partitions
            .push(partition)
            .map_err(|_| Error::refused(READING, "", "more than 64 partitions"))
    }

    /// Where the last partition ends, in bytes.
    pub fn end(&self) -> u64 {
        self.partitions.iter().map(Partition::end).max().unwrap_or(0)
    }

    /// Of `length` bytes there are, every partition ends among them: what a broken copy of a disk has lost would be
    /// missing where it is written, too.
    fn lies_within(&self, length: u64) -> Result<(), Error> {
        let last = self.partitions.iter().max_by_key(|partition| partition.end());
        let Some(last) = last.filter(|last| last.end() > length) else {
            return Ok(());
        };
        let why: Text<200> = crate::text!(
            "it is cut short: partition {} begins at byte {} and ends at {}, of {}",
            last.number,
            last.start,
            last.end(),
            length
        );
        Err(Error::refused(READING, "", &why).advice(
            "copy or download it again; one that was trimmed on purpose is whole again after `truncate -s BYTES FILE`, \
             with that end, before it is packed",
        ))
    }
}

impl Partition {
    /// Where it ends, in bytes; all ones when that is beyond all numbers.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

fn missing() -> Error {
    Error::refused(READING, "", "there is none").advice("it is not a whole disk")
}

/// A table that is there but makes no sense.
pub(super) fn broken(why: &str) -> Error {
    Error::refused(READING, "", why).advice("it is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_is_refused() {
        let mut disk = vec![0u8; 4096];
        assert!(read(&mut disk, 4096).is_err());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(read(&mut disk, 4096).is_err(), "a signature without a partition");
        assert!(read(&mut Vec::new(), 0).is_err());
    }

    #[test]
    fn a_partition_that_the_image_does_not_hold_to_its_end_is_refused() {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 4)], 16);
        for whole in [16 * SECTOR, 12 * SECTOR] {
            assert_eq!(read(&mut disk, whole).unwrap().end(), 12 * SECTOR);
        }
        for cut in [12 * SECTOR - 1, 9 * SECTOR, 8 * SECTOR, 2 * SECTOR] {
            let text: Text<600> = crate::text!("{}", read(&mut disk, cut).err().unwrap());
            assert!(text.contains("cut short: partition 1") && text.contains("6144"), "{}", &*text);
        }
        let mut disk = gpt::tests::disk(&[("a", 40, 47), ("b", 48, 199)]);
        assert!(read(&mut disk, 200 * SECTOR).is_ok(), "the table at the end is not needed");
        assert!(read(&mut disk, 200 * SECTOR - 1).is_err());
        let mut disk = gpt::tests::disk(&[("a", 40, (1 << 55) - 1)]);
        assert!(read(&mut disk, 256 * SECTOR).is_err(), "an end beyond all numbers");
    }

    #[test]
    fn an_extended_partition_may_end_where_it_likes() {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 4), (0x0f, 16, 1 << 30)], 32);
        disk[16 * 512 + 510..17 * 512].copy_from_slice(&[0x55, 0xaa]);
        let table = read(&mut disk, 32 * SECTOR).unwrap();
        assert_eq!(table.end(), 18 * SECTOR);
        assert!(read(&mut disk, 17 * SECTOR).is_err(), "it is not there at all");
    }
}
