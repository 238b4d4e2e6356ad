//! The tables of a volume as they will be: chains of clusters are followed, made and given back.

use super::super::{Fat, MAX_TABLE};
use super::changes::{Changes, SECTOR, Source};
use super::refusal::{FEWER, damaged, refuse};
use crate::bytes::little_endian;
use crate::disk::reader::ReadAt;
use crate::error::Error;
use crate::text::{Size, Text};

/// What the table has for the last cluster of a chain, masked to the width of an entry.
const END: u32 = u32::MAX;

/// A volume, and what changes on it.
pub struct Volume<'a> {
    pub disk: &'a mut dyn ReadAt,
    pub fat: &'a Fat,
    pub changes: &'a mut Changes,
    /// Where the next free cluster is looked for.
    cursor: u32,
    /// How many clusters are free.
    pub free: u32,
    /// The cluster that was taken last, or 0.
    last: u32,
    /// The sector of FSInfo, or 0.
    information: u32,
}

impl<'a> Volume<'a> {
    /// As it is on the disk: reads FSInfo and the whole first table, and counts free clusters. Where so many are free
    /// in a row as `most` it begins to take them there: what lies in one piece is easy for every boot loader.
    pub fn open(
        disk: &'a mut dyn ReadAt,
        fat: &'a Fat,
        changes: &'a mut Changes,
        most: u32,
    ) -> Result<Self, Error> {
        let mut volume = Self { disk, fat, changes, cursor: 2, free: 0, last: 0, information: 0 };
        volume.find_information()?;
        volume.survey(most)?;
        Ok(volume)
    }

    /// Looks for FSInfo, the FAT32 sector that says how much is free: three signatures tell it (FAT specification,
    /// section 5).
    fn find_information(&mut self) -> Result<(), Error> {
        let number = sector_at(self.fat.information);
        if number == 0 {
            return Ok(());
        }
        let bytes = self.changes.look(self.disk, number)?;
        let is_there = [(0, 0x4161_5252), (484, 0x6141_7272), (508, 0xaa55_0000)]
            .iter()
            .all(|(at, signature)| little_endian::<4>(bytes, *at) == *signature);
        if is_there {
            self.changes.keep(self.disk, number)?;
            self.information = number;
        }
        Ok(())
    }

    fn survey(&mut self, most: u32) -> Result<(), Error> {
        let length = self.fat.used_table();
        if length > MAX_TABLE {
            let why: Text<100> = crate::text!("its table is longer than {}", Size(MAX_TABLE));
            return Err(refuse(&why).advice("use an image with larger clusters there"));
        }
        let (mut free, mut in_a_row, mut found) = (0, 0, 0);
        self.fat.for_each_cluster(self.disk, &mut |cluster, next| {
            if next != 0 {
                in_a_row = 0;
                return;
            }
            free += 1;
            in_a_row += 1;
            if found == 0 && in_a_row == most {
                found = cluster + 1 - most;
            }
        })?;
        self.free = free;
        self.cursor = found.max(2);
        Ok(())
    }

    /// Writes the true count of free clusters into FSInfo, and where to look for more.
    pub fn close(&mut self) -> Result<(), Error> {
        if self.information != 0 {
            let bytes = self.changes.change(self.disk, self.information)?;
            bytes[488..492].copy_from_slice(&self.free.to_le_bytes());
            if self.last != 0 {
                bytes[492..496].copy_from_slice(&self.last.to_le_bytes());
            }
        }
        Ok(())
    }

    /// The clusters that so many bytes take.
    pub fn clusters_for(&self, length: u32) -> u32 {
        u64::from(length).div_ceil(self.fat.cluster) as u32
    }

    /// The bytes in so many clusters.
    pub fn size(&self, clusters: u32) -> Size {
        Size(u64::from(clusters) * self.fat.cluster)
    }

    /// The first sector of a cluster.
    pub fn sector(&self, cluster: u32) -> u32 {
        sector_at(self.fat.place(cluster))
    }

    /// The sectors of a cluster.
    pub fn per_cluster(&self) -> u32 {
        sector_at(self.fat.cluster)
    }

    /// Where the entry of a cluster begins: the byte, and the bit of it.
    fn place_of(&self, cluster: u32) -> (u64, u32) {
        let bit = u64::from(cluster) * u64::from(self.fat.width.bits());
        (self.fat.table + bit / 8, (bit % 8) as u32)
    }

    /// The bytes that an entry lies in. Those of FAT12 share a byte, and may go over the end of a sector.
    fn entry_bytes(&self) -> u64 {
        self.fat.width.bits().div_ceil(8).into()
    }

    /// What the table has for a cluster.
    fn entry(&mut self, cluster: u32) -> Result<u32, Error> {
        let (at, shift) = self.place_of(cluster);
        let mut value = 0;
        for index in 0..self.entry_bytes() {
            let byte = at + index;
            let sector = self.changes.look(self.disk, sector_at(byte))?;
            value |= u32::from(sector[byte as usize % SECTOR]) << (8 * index);
        }
        Ok(value >> shift & self.fat.width.mask())
    }

    /// Puts `next` into the table for a cluster. Bits that belong to others, or to nobody, stay.
    fn link(&mut self, cluster: u32, next: u32) -> Result<(), Error> {
        let (at, shift) = self.place_of(cluster);
        let mask = self.fat.width.mask();
        for index in 0..self.entry_bytes() {
            let part = |value: u32| ((value << shift) >> (8 * index)) as u8;
            let byte = at + index;
            let sector = self.changes.change(self.disk, sector_at(byte))?;
            let place = &mut sector[byte as usize % SECTOR];
            *place = *place & !part(mask) | part(next & mask);
        }
        Ok(())
    }

    /// Ends a chain behind a cluster.
    fn end_at(&mut self, cluster: u32) -> Result<(), Error> {
        self.link(cluster, END)
    }

    /// The cluster that follows one in its chain; 0 at the end. An error for a chain that is broken.
    pub fn following(&mut self, cluster: u32) -> Result<u32, Error> {
        if !self.fat.is_data(cluster) {
            return Err(damaged("a chain leads to a cluster that there is not"));
        }
        let next = self.entry(cluster)?;
        // From the mark of bad clusters on all are ends to the kernel (fs/fat/fatent.c).
        if next >= self.fat.width.mask() - 8 {
            return Ok(0);
        }
        if !self.fat.is_data(next) {
            return Err(damaged("a chain leads to a cluster that is free or is not there"));
        }
        Ok(next)
    }

    /// Takes a free cluster, as the last of a chain: that of `previous`, unless it is 0.
    pub fn take(&mut self, previous: u32) -> Result<u32, Error> {
        for _ in 0..self.fat.clusters {
            let cluster = self.cursor;
            self.cursor = if self.fat.is_data(cluster + 1) { cluster + 1 } else { 2 };
            if self.entry(cluster)? == 0 {
                self.free = self.free.saturating_sub(1);
                self.last = cluster;
                self.link(cluster, END)?;
                if previous != 0 {
                    self.link(previous, cluster)?;
                }
                return Ok(cluster);
            }
        }
        // Files were counted before; that a directory grows was not.
        Err(refuse("it would be full before all is placed, since a directory grows, too")
            .advice(FEWER))
    }

    /// Gives back a chain from a cluster on; none for 0.
    fn release(&mut self, mut cluster: u32) -> Result<(), Error> {
        while cluster != 0 {
            let following = self.following(cluster)?;
            self.check_owner(cluster)?;
            self.link(cluster, 0)?;
            self.free += 1;
            cluster = following;
        }
        Ok(())
    }

    /// Fails for a cluster of a file that is a directory's, too, or that holds something of this plan already.
    fn check_owner(&self, cluster: u32) -> Result<(), Error> {
        if self.changes.is_of_directory(cluster) || self.changes.is_taken(self.sector(cluster)) {
            return Err(damaged("two chains lead to the same cluster"));
        }
        Ok(())
    }

    /// Lays a file over a chain that begins with `first`, or a new one for 0, and gives its first cluster. The chain is
    /// used from its front, so a full volume takes a file again. Then it goes on with new clusters, or ends and the
    /// rest is given back.
    pub fn lay(&mut self, index: u8, length: u32, first: u32) -> Result<u32, Error> {
        let (mut start, mut previous, mut cluster, mut offset) = (0, 0, first, 0);
        while offset < length {
            let mut following = 0;
            if cluster == 0 {
                cluster = self.take(previous)?;
            } else {
                following = self.following(cluster)?;
                self.check_owner(cluster)?;
            }
            if previous == 0 {
                start = cluster;
            }
            let piece = (length - offset).min(self.fat.cluster as u32);
            let sectors = piece.div_ceil(SECTOR as u32);
            let source = Source::File { index, offset };
            self.changes.lay(self.sector(cluster), sectors, source)?;
            offset += piece;
            (previous, cluster) = (cluster, following);
        }
        if cluster != 0 && previous != 0 {
            self.end_at(previous)?;
        }
        self.release(cluster)?;
        Ok(start)
    }
}

/// The sector at a place of the disk in bytes. There is none behind 2^32: [`super::plan`] looks first.
pub fn sector_at(place: u64) -> u32 {
    (place / SECTOR as u64) as u32
}
