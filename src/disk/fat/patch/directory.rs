//! A directory as it will be: entries are found, changed and added.

use super::super::entry::{self, ATTRIBUTES, DIRECTORY, Entry, LABEL, Names};
use super::changes::{DIRECTORY_CLUSTERS, SECTOR, Source};
use super::name;
use super::refusal::{damaged, refuse};
use super::volume::{Volume, sector_at};
use crate::error::Error;
use crate::text::Text;

const PER_SECTOR: usize = SECTOR / entry::LENGTH;

/// A directory that something is placed in.
pub struct Directory {
    /// None for the fixed root directory of FAT12 and FAT16, and for one that is not there yet.
    clusters: heapless::Vec<u32, DIRECTORY_CLUSTERS>,
    is_fixed: bool,
    /// How many entries lie in front of its end mark.
    used: usize,
    /// How many it has room for.
    room: usize,
}

impl Directory {
    /// One that is not there yet.
    pub const MISSING: Self =
        Self { clusters: heapless::Vec::new(), is_fixed: false, used: 0, room: 0 };

    /// The root directory of FAT12 and FAT16, which lies before the first cluster and does not grow.
    pub fn fixed(entries: u32) -> Self {
        Self { is_fixed: true, room: entries as usize, ..Self::MISSING }
    }

    /// One whose chain begins with this cluster.
    pub fn open(volume: &mut Volume, first: u32) -> Result<Self, Error> {
        if first == 0 {
            return Err(damaged("a directory has no cluster"));
        }
        let mut directory = Self::MISSING;
        let mut cluster = first;
        while cluster != 0 {
            let following = volume.following(cluster)?;
            directory.add_cluster(volume, cluster)?;
            cluster = following;
        }
        Ok(directory)
    }

    fn add_cluster(&mut self, volume: &mut Volume, cluster: u32) -> Result<(), Error> {
        volume.changes.add_to_directory(cluster)?;
        // There is room for as many as all directories may have.
        let _ = self.clusters.push(cluster);
        self.room += volume.per_cluster() as usize * PER_SECTOR;
        Ok(())
    }

    /// Its first cluster: what lies in front of what. 0 for the fixed root directory and for one that is not there.
    pub fn first(&self) -> u32 {
        self.clusters.first().copied().unwrap_or(0)
    }

    /// True when it is not there yet.
    pub fn is_missing(&self) -> bool {
        self.room == 0 && !self.is_fixed
    }

    /// The sector that has entry `at`.
    fn sector_of(&self, volume: &Volume, at: usize) -> u32 {
        let index = (at / PER_SECTOR) as u32;
        let per_cluster = volume.per_cluster();
        match self.clusters.get((index / per_cluster) as usize) {
            Some(cluster) => volume.sector(*cluster) + index % per_cluster,
            None => sector_at(volume.fat.root) + index,
        }
    }

    /// Reads the directory, from its front, and keeps it as far as `wanted` new entries may need it. What is behind is
    /// only looked at: the kernel goes on behind the end mark, others stop there, so nothing may be left.
    pub fn load(&mut self, volume: &mut Volume, wanted: usize) -> Result<(), Error> {
        self.used = self.room;
        let mut kept = self.room;
        for at in (0..self.room).step_by(PER_SECTOR) {
            let number = self.sector_of(volume, at);
            let bytes = if at < kept {
                volume.changes.keep(volume.disk, number)?
            } else {
                volume.changes.look(volume.disk, number)?
            };
            for (at, entry) in (at..self.room).zip(bytes.as_chunks::<{ entry::LENGTH }>().0) {
                if at < self.used && entry[0] == 0 {
                    self.used = at;
                    kept = at + wanted + 1;
                } else if at > self.used && !entry::is_free(entry) {
                    return Err(damaged("a directory goes on behind its end mark"));
                }
            }
        }
        Ok(())
    }

    /// The entry at a place. Like all of a directory that was loaded, it is read from memory.
    fn entry(&self, volume: &mut Volume, at: usize) -> Result<Entry, Error> {
        let number = self.sector_of(volume, at);
        let bytes = volume.changes.keep(volume.disk, number)?;
        Ok(bytes.as_chunks().0[at % PER_SECTOR])
    }

    /// Puts an entry at a place.
    pub fn set(&self, volume: &mut Volume, at: usize, entry: &Entry) -> Result<(), Error> {
        let number = self.sector_of(volume, at);
        let bytes = volume.changes.change(volume.disk, number)?;
        bytes.as_chunks_mut().0[at % PER_SECTOR] = *entry;
        Ok(())
    }

    /// Looks for the file or directory of a name, be it the long or the short one: its place and its entry.
    pub fn find(&self, volume: &mut Volume, name: &str) -> Result<Option<(usize, Entry)>, Error> {
        let mut names = Names::new();
        for at in (0..self.used).step_by(PER_SECTOR) {
            let number = self.sector_of(volume, at);
            let bytes = volume.changes.keep(volume.disk, number)?;
            for (at, entry) in (at..self.used).zip(bytes.as_chunks::<{ entry::LENGTH }>().0) {
                // The label of the volume is nobody's name.
                if names.take(entry) && entry[ATTRIBUTES] & LABEL == 0 && names.are(name) {
                    return Ok(Some((at, *entry)));
                }
            }
        }
        Ok(None)
    }

    /// Adds an entry under a name that is not there, and gives its place: the parts of the long name, then the entry
    /// with a short name that nobody has.
    pub fn insert(
        &mut self,
        volume: &mut Volume,
        name: &str,
        mut entry: Entry,
    ) -> Result<usize, Error> {
        let mut number = 1;
        while self.find(volume, &name::alias(name, number, &mut entry))?.is_some() {
            number += 1;
        }
        let parts = name::parts(name);
        let start = self.gap(volume, name, parts + 1)?;
        let sum = entry::checksum(&entry);
        for (at, ordinal) in (start..).zip((1..=parts).rev()) {
            self.set(volume, at, &name::part(name, ordinal, sum))?;
        }
        let at = start + parts;
        self.set(volume, at, &entry)?;
        self.used = self.used.max(at + 1);
        Ok(at)
    }

    /// Where so many entries fit in a row, for `name`. Behind all others where there is room, so boot loaders that
    /// stumble over long names find their own files before; else in the first gap that deleted ones left, else in
    /// another cluster.
    fn gap(&mut self, volume: &mut Volume, name: &str, count: usize) -> Result<usize, Error> {
        let mut start = if self.used + count <= self.room { self.used } else { 0 };
        let mut at = start;
        while at < start + count {
            if at == self.room {
                if self.is_fixed {
                    return Err(full_root(self.room, name, count));
                }
                self.extend(volume)?;
            }
            let is_used = at < self.used && !entry::is_free(&self.entry(volume, at)?);
            at += 1;
            if is_used {
                start = at;
            }
        }
        Ok(start)
    }

    /// Gives the directory one more cluster, of zeros.
    fn extend(&mut self, volume: &mut Volume) -> Result<u32, Error> {
        let cluster = volume.take(self.clusters.last().copied().unwrap_or(0))?;
        let count = volume.per_cluster();
        volume.changes.lay(volume.sector(cluster), count, Source::Zeros)?;
        self.add_cluster(volume, cluster)?;
        Ok(cluster)
    }

    /// Makes a directory of the root that was missing, and gives its first cluster: `.` and `..` as `entry`, which has
    /// its times. The root is cluster 0 for `..`, on FAT32, too.
    pub fn make(&mut self, volume: &mut Volume, mut entry: Entry) -> Result<u32, Error> {
        let cluster = self.extend(volume)?;
        entry[ATTRIBUTES] = DIRECTORY;
        for (at, name, first) in [(0, b".          ", cluster), (1, b"..         ", 0)] {
            entry[..11].copy_from_slice(name);
            entry::set_first_cluster(&mut entry, first);
            self.set(volume, at, &entry)?;
        }
        self.used = 2;
        Ok(cluster)
    }
}

fn full_root(room: usize, name: &str, count: usize) -> Error {
    let shown: Text<64> = crate::text::printable(name.as_bytes());
    let why: Text<200> = crate::text!(
        "its root directory has room for {} entries, and no {} in a row are free for {}",
        room,
        count,
        shown
    );
    refuse(&why).advice("take an image with fewer files on its boot partition")
}
