//! The partition table of a disk, whichever kind it is.

use super::{gpt, little_endian, mbr};
use crate::error::Error;
use crate::image::reader::ReadAt;
use crate::text::Text;

/// The sector that partition tables of images count in, in bytes.
pub const SECTOR: u64 = 512;

/// The most partitions that are looked at. Images of vendors with many have fewer than 50.
pub const MAX_PARTITIONS: usize = 64;

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
    /// Its length in bytes.
    pub length: u64,
    /// Its name in a GPT; empty in an MBR.
    pub name: Text<36>,
}

/// A partition table.
pub struct Table {
    /// MBR or GPT.
    pub kind: Kind,
    /// The partitions, in the order of the table.
    pub partitions: heapless::Vec<Partition, MAX_PARTITIONS>,
    /// Where the space ends that a GPT hands out, in bytes; 0 in an MBR. Linux refuses the table on a disk that ends
    /// before, wherever the partitions are.
    pub usable_end: u64,
    pub(super) chain: mbr::Chain,
}

/// Reads the partition table of a disk of `length` bytes.
pub fn read(disk: &mut impl ReadAt, length: u64) -> Result<Table, Error> {
    let mut sector = [0; SECTOR as usize];
    if length < SECTOR {
        return Err(missing());
    }
    disk.read_exact_at(0, &mut sector)?;
    if little_endian::<2>(&sector, 510) != 0xaa55 {
        return Err(missing());
    }
    let mut table = Table {
        kind: Kind::Mbr,
        partitions: heapless::Vec::new(),
        usable_end: 0,
        chain: mbr::Chain::default(),
    };
    match mbr::is_protective(&sector) {
        true => {
            table.kind = Kind::Gpt;
            gpt::read(disk, &mut table)?;
        }
        false => mbr::read(&sector, &mut table)?,
    }
    while mbr::read_on(disk, &mut table)? {}
    if table.partitions.is_empty() {
        return Err(missing());
    }
    for partition in &table.partitions {
        if partition.start >= length {
            let why: Text<120> = crate::text!(
                "partition {} begins at byte {}, behind the image's end at {}",
                partition.number,
                partition.start,
                length
            );
            return Err(Error::refused("reading the partition table of", "the image", &why)
                .advice("the image is cut short"));
        }
    }
    Ok(table)
}

impl Table {
    /// Adds a partition; more than [`MAX_PARTITIONS`] are refused, not left out.
    pub(super) fn add(&mut self, partition: Partition) -> Result<(), Error> {
        self.partitions.push(partition).map_err(|_| {
            Error::refused("reading the partition table of", "the image", "more than 64 partitions")
        })
    }

    /// Where the last partition ends, in bytes.
    pub fn end(&self) -> u64 {
        let ends = self.partitions.iter().map(|p| p.start.saturating_add(p.length));
        ends.max().unwrap_or(0)
    }
}

fn missing() -> Error {
    Error::refused("reading the partition table of", "the image", "there is none")
        .advice("this is not an image of a whole disk")
}

/// A table that is there but makes no sense.
pub(super) fn broken(why: &str) -> Error {
    Error::refused("reading the partition table of", "the image", why)
        .advice("the image is damaged")
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
    fn a_partition_behind_the_end_is_refused() {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 4)], 16);
        assert_eq!(read(&mut disk, 16 * SECTOR).unwrap().end(), 12 * SECTOR);
        assert!(read(&mut disk, 8 * SECTOR).is_err());
    }
}
