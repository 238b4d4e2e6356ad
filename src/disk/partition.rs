//! What a partition table is, whichever kind it is: its partitions, and how far it has been read.
//!
//! [`super::table`] reads one, with [`super::mbr`] and [`super::gpt`].

use crate::error::Error;
use crate::text::Text;

/// The sector that partition tables are taken to count in, in bytes.
pub const SECTOR: u64 = 512;

/// The most partitions that are looked at. Images of vendors with many have fewer than 50.
pub const MAX_PARTITIONS: usize = 64;

/// What is being done when something fails: of what, the caller says.
pub(super) const READING: &str = "reading the partition table of";

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
    /// Its own GUID in a GPT, as it is stored; zeros in an MBR.
    pub guid: [u8; 16],
    /// Its type is that of an EFI system partition.
    pub is_esp: bool,
}

/// What a BIOS starts when it is given a disk: it runs the code of the first sector, whatever that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bios {
    /// Nothing: there is no code.
    Nothing,
    /// The code of the first sector.
    Code,
    /// The first sector of the active partition, which begins at this byte.
    Partition(u64),
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
    /// The disk's own signature in an MBR, also in that before a GPT.
    pub signature: u32,
    /// What a BIOS starts.
    pub bios: Bios,
    pub(super) chain: Chain,
}

impl Table {
    /// An MBR without partitions.
    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Mbr,
            partitions: heapless::Vec::new(),
            usable_end: 0,
            signature: 0,
            bios: Bios::Nothing,
            chain: Chain::default(),
        }
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
}

impl Partition {
    /// Where it ends, in bytes; all ones when that is beyond all numbers.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// How far the extended boot records of a disk have been read.
#[derive(Default)]
pub(super) struct Chain {
    /// The extended partitions that are still to be read, in the order of the table.
    pub(super) extended: [Option<Area>; 4],
    /// The one that is being read.
    pub(super) current: Option<Area>,
    /// The next record in it, with the length that the link to it gives.
    pub(super) link: Option<Area>,
    /// How many logical partitions there were.
    pub(super) found: u32,
    /// How many records came one after the other without a partition.
    pub(super) without: u32,
}

/// A place on a disk, in sectors.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) sectors: u64,
}

impl Area {
    pub(super) fn end(self) -> u64 {
        self.start + self.sectors
    }
}

/// A table that is there but makes no sense.
pub(super) fn broken(why: &str) -> Error {
    Error::refused(READING, "", why).advice("it is damaged")
}
