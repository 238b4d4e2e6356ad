//! Reading FAT12, FAT16 and FAT32: the volume label, files of the root directory, and how much is free
//! (Microsoft, FAT: General Overview of On-Disk Format, 1.03).
//!
//! Reads only. [`patch`] says which sectors change when files are placed, and leaves the writing to others.

mod entry;
pub mod patch;

use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;
use core::ops::ControlFlow;
use entry::{Entry, Names};

/// What a sector is here, in bytes, whatever the volume takes for one.
const SECTOR: u64 = 512;
/// The longest table that is counted through, in bytes: that of a volume of 1 GiB in clusters of 512 bytes.
const MAX_TABLE: u64 = 8 << 20;
/// The most entries that a directory has (2 MiB; FAT specification, section 6, and FAT_MAX_DIR_ENTRIES in
/// fs/fat/fat.h).
const MAX_ENTRIES: u64 = 65_536;
const ENTRY: u64 = entry::LENGTH as u64;
/// The most clusters that a root directory has: those of 512 bytes, the smallest.
const MAX_DIRECTORY_CLUSTERS: usize = (MAX_ENTRIES * ENTRY / SECTOR) as usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    /// The bits of an entry of the table.
    fn bits(self) -> u32 {
        match self {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        }
    }

    /// Those of them that are a cluster's number: the upper four of FAT32 are reserved.
    fn mask(self) -> u32 {
        match self {
            Width::Fat12 => 0xfff,
            Width::Fat16 => 0xffff,
            Width::Fat32 => 0x0fff_ffff,
        }
    }
}

/// A FAT file system.
#[derive(Debug)]
pub struct Fat {
    width: Width,
    /// Where the volume begins, in bytes from the disk's start as all places here, and its length.
    start: u64,
    length: u64,
    /// Where the first table, the fixed root directory and the first cluster begin.
    table: u64,
    table_length: u64,
    /// How many tables there are, one behind the other.
    tables: u64,
    root: u64,
    data: u64,
    /// Bytes per cluster.
    cluster: u64,
    clusters: u64,
    root_entries: u32,
    root_cluster: u32,
    /// Where FSInfo may be; 0 for nowhere.
    information: u64,
    /// A FAT32 of a version that does not exist yet, or with one table in use that the others are no copies of.
    is_unusual: bool,
}

/// A file, or a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    /// Its first cluster: what lies in front of what.
    pub first: u32,
    /// Its length in bytes; 0 for a directory.
    pub length: u32,
    /// It is a directory.
    pub is_directory: bool,
}

/// Where the beginning of a file lies; the default is that of an empty one.
#[derive(Clone, Default, Debug)]
pub struct Place {
    length: usize,
    chain: heapless::Vec<u32, 128>,
}

impl Place {
    /// The first cluster: what lies in front of what.
    pub fn first(&self) -> u32 {
        self.chain.first().copied().unwrap_or(0)
    }
}

/// Opens the FAT file system that begins at `start`, or nothing when there is none.
pub fn open(disk: &mut dyn ReadAt, start: u64) -> Result<Option<Fat>, Error> {
    let mut boot = [0; SECTOR as usize];
    disk.read_exact_at(start, &mut boot)?;
    Ok(parse(&boot, start))
}

/// What a boot sector of a FAT has, whatever its size.
fn is_plausible(boot: &[u8]) -> bool {
    little_endian::<2>(boot, 510) == 0xaa55
        && matches!(boot.first(), Some(0xeb | 0xe9))
        && matches!(little_endian::<2>(boot, 11), 512 | 1024 | 2048 | 4096)
        && little_endian::<1>(boot, 13).is_power_of_two()
        && little_endian::<2>(boot, 14) > 0
        && (1..=2).contains(&little_endian::<1>(boot, 16))
        && little_endian::<1>(boot, 21) >= 0xf0
}

fn parse(boot: &[u8], start: u64) -> Option<Fat> {
    let sector = little_endian::<2>(boot, 11);
    let per_cluster = little_endian::<1>(boot, 13);
    let reserved = little_endian::<2>(boot, 14);
    let tables = little_endian::<1>(boot, 16);
    let root_entries = little_endian::<2>(boot, 17);
    let short_table = little_endian::<2>(boot, 22);
    if !is_plausible(boot) {
        return None;
    }
    let table_sectors = match short_table {
        0 => little_endian::<4>(boot, 36),
        sectors => sectors,
    };
    let total = match little_endian::<2>(boot, 19) {
        0 => little_endian::<4>(boot, 32),
        sectors => sectors,
    };
    let root_start = reserved + tables * table_sectors;
    let data_start = root_start + (root_entries * 32).div_ceil(sector);
    let clusters = total.checked_sub(data_start)? / per_cluster;
    // mkfs.fat makes FAT32 of any size when told to; the tables' length field is what drivers go by.
    let width = match clusters {
        _ if short_table == 0 => Width::Fat32,
        0..4085 => Width::Fat12,
        _ => Width::Fat16,
    };
    let table_length = table_sectors * sector;
    // What the table has no entries for is not there (calc_fat_clusters in fs/fat/inode.c).
    let entries = table_length * 8 / u64::from(width.bits());
    let clusters = clusters.min(entries.checked_sub(2)?);
    // More cannot be numbered: the kernel mounts none such (MAX_FAT16 and MAX_FAT32 in fs/fat/fat.h).
    if clusters > u64::from(width.mask()) - 11 {
        return None;
    }
    Some(Fat {
        width,
        start,
        length: total * sector,
        table: start + reserved * sector,
        table_length,
        tables,
        root: start + root_start * sector,
        data: start + data_start * sector,
        cluster: per_cluster * sector,
        clusters,
        root_entries: root_entries as u32,
        root_cluster: little_endian::<4>(boot, 44) as u32,
        information: match little_endian::<2>(boot, 48) {
            _ if width != Width::Fat32 => 0,
            // The kernel takes 0 for 1 (fat_read_bpb and fat_fill_super in fs/fat/inode.c).
            number if (1..reserved).contains(&number.max(1)) => start + number.max(1) * sector,
            _ => 0,
        },
        is_unusual: width == Width::Fat32
            && (little_endian::<1>(boot, 40) & 0x80 != 0 || little_endian::<2>(boot, 42) != 0),
    })
}

impl Fat {
    /// The bytes of the volume, from its boot sector to its last cluster: what is longer than its partition, or goes
    /// on behind the end of the disk, must not be written to.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// From the beginning of the volume to the end of its first table: where it begins and how long it is, in bytes. It
    /// is read again and again.
    pub fn first_table(&self) -> (u64, u64) {
        (self.start, self.table + self.table_length - self.start)
    }

    /// Looks for files and directories in the root directory, in one go: what is found under `names[i]`, long or short,
    /// is put into `found[i]`. The case of ASCII letters does not matter. Gives the volume label; empty when there is
    /// none.
    pub fn find_all(
        &self,
        disk: &mut dyn ReadAt,
        names: &[&str],
        found: &mut [Option<File>],
    ) -> Result<Text<16>, Error> {
        self.find_in(disk, None, names, found)
    }

    /// The same in `directory`, or in the root directory.
    pub fn find_in(
        &self,
        disk: &mut dyn ReadAt,
        directory: Option<File>,
        names: &[&str],
        found: &mut [Option<File>],
    ) -> Result<Text<16>, Error> {
        let mut label = Text::new();
        self.for_each_entry(disk, directory, &mut |entry, own| {
            let kind = entry[entry::ATTRIBUTES] & (entry::LABEL | entry::DIRECTORY);
            if kind == entry::LABEL {
                label = crate::text::printable(entry[..11].trim_ascii_end());
                return;
            }
            let is_directory = kind & entry::DIRECTORY != 0;
            for (wanted, found) in names.iter().zip(found.iter_mut()) {
                if own.are(wanted) {
                    let first = self.first_cluster(entry);
                    *found = Some(File { first, length: entry::length(entry), is_directory });
                }
            }
        })?;
        Ok(label)
    }

    /// The first cluster of an entry. Its upper half is something else where clusters have 16 bits.
    fn first_cluster(&self, entry: &Entry) -> u32 {
        let upper = little_endian::<2>(entry, 20) << 16;
        let lower = little_endian::<2>(entry, 26);
        (if self.width == Width::Fat32 { upper | lower } else { lower }) as u32
    }

    /// Where the first `most` bytes of a file lie. Read from the table, which comes before all files: whoever can
    /// only read forward cheaply, as what is unpacked meanwhile, asks for the places of all files first.
    pub fn locate(&self, disk: &mut dyn ReadAt, file: File, most: usize) -> Result<Place, Error> {
        let mut place =
            Place { length: most.min(file.length as usize), chain: heapless::Vec::new() };
        let mut cluster = file.first;
        let mut covered = 0;
        while covered < place.length {
            if !self.is_data(cluster) {
                return Err(broken("a file ends before its length"));
            }
            place.chain.push(cluster).map_err(|_| broken("a file is in too many pieces"))?;
            covered += self.cluster as usize;
            cluster = self.next(disk, cluster)?;
        }
        Ok(place)
    }

    /// Reads what lies at a place, as much as fits into `buffer`, and gives its length.
    pub fn read(
        &self,
        disk: &mut dyn ReadAt,
        place: &Place,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let wanted = buffer.len().min(place.length);
        for (piece, cluster) in buffer
            .get_mut(..wanted)
            .unwrap_or_default()
            .chunks_mut(self.cluster as usize)
            .zip(&place.chain)
        {
            disk.read_exact_at(self.place(*cluster), piece)?;
        }
        Ok(wanted)
    }

    /// The bytes in free clusters, counted in the first table; nothing for a table of more than 8 MiB. What FSInfo says
    /// is a hint that not every writer keeps.
    pub fn free(&self, disk: &mut dyn ReadAt) -> Result<Option<u64>, Error> {
        if self.used_table() > MAX_TABLE {
            return Ok(None);
        }
        let mut free = 0;
        self.for_each_cluster(disk, &mut |_, next| free += u64::from(next == 0))?;
        Ok(Some(free * self.cluster))
    }

    /// The bytes of the table that belong to clusters.
    fn used_table(&self) -> u64 {
        ((self.clusters + 2) * u64::from(self.width.bits())).div_ceil(8).min(self.table_length)
    }

    /// Calls `visit` with each cluster and its entry in the first table, from front to end.
    fn for_each_cluster(
        &self,
        disk: &mut dyn ReadAt,
        visit: &mut dyn FnMut(u32, u32),
    ) -> Result<(), Error> {
        let length = self.used_table();
        // Whole entries, and whole pairs of those of one and a half bytes.
        let mut buffer = [0; 3 * 1024];
        let mut cluster = 0;
        let mut at = 0;
        while at < length {
            let wanted = (length - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            disk.read_exact_at(self.table + at, piece)?;
            at += wanted as u64;
            for index in 0..piece.len() * 8 / self.width.bits() as usize {
                // The first two entries belong to no cluster.
                if self.is_data(cluster) {
                    visit(cluster, self.entry(piece, index));
                }
                cluster += 1;
            }
        }
        Ok(())
    }

    /// Entry `index` of a piece of the table that begins with a whole entry, of an even number.
    fn entry(&self, piece: &[u8], index: usize) -> u32 {
        match self.width {
            Width::Fat32 => little_endian::<4>(piece, index * 4) as u32 & 0x0fff_ffff,
            Width::Fat16 => little_endian::<2>(piece, index * 2) as u32,
            Width::Fat12 => {
                let pair = little_endian::<2>(piece, index * 3 / 2) as u32;
                if index & 1 == 1 { pair >> 4 } else { pair & 0xfff }
            }
        }
    }

    fn is_data(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&u64::from(cluster))
    }

    fn place(&self, cluster: u32) -> u64 {
        self.data + (u64::from(cluster) - 2) * self.cluster
    }

    /// The cluster after `cluster`, as the table has it; what is no data cluster is an end.
    fn next(&self, disk: &mut dyn ReadAt, cluster: u32) -> Result<u32, Error> {
        let cluster = u64::from(cluster);
        let mut entry = [0; 4];
        match self.width {
            Width::Fat32 => {
                disk.read_exact_at(self.table + cluster * 4, &mut entry)?;
                Ok(u32::from_le_bytes(entry) & 0x0fff_ffff)
            }
            Width::Fat16 => {
                disk.read_exact_at(self.table + cluster * 2, &mut entry[..2])?;
                Ok(u32::from_le_bytes(entry))
            }
            Width::Fat12 => {
                disk.read_exact_at(self.table + cluster * 3 / 2, &mut entry[..2])?;
                let pair = u32::from_le_bytes(entry);
                Ok(if cluster & 1 == 1 { pair >> 4 } else { pair & 0xfff })
            }
        }
    }

    /// The clusters of a directory that begins with the cluster `first`. All from the table, before the directory is
    /// read: a chain that loops is known there, as to the kernel when it mounts (fat_calc_dir_size in fs/fat/inode.c),
    /// and nothing steps back once per cluster, which is dear where a disk is unpacked while it is read.
    fn directory_chain(
        &self,
        disk: &mut dyn ReadAt,
        first: u32,
    ) -> Result<heapless::Vec<u32, MAX_DIRECTORY_CLUSTERS>, Error> {
        let most = self.clusters.min(MAX_ENTRIES * ENTRY / self.cluster);
        let mut chain = heapless::Vec::new();
        let mut cluster = first;
        while self.is_data(cluster) {
            if chain.len() as u64 >= most || chain.push(cluster).is_err() {
                return Err(broken("a directory does not end"));
            }
            cluster = self.next(disk, cluster)?;
        }
        Ok(chain)
    }

    /// Calls `visit` with each entry of a directory, or of the root directory, that has a name, and that.
    fn for_each_entry(
        &self,
        disk: &mut dyn ReadAt,
        directory: Option<File>,
        visit: &mut dyn FnMut(&Entry, &Names),
    ) -> Result<(), Error> {
        let mut names = Names::new();
        if directory.is_none() && self.width != Width::Fat32 {
            let range = (self.root, u64::from(self.root_entries));
            return self.visit_range(disk, range, &mut names, visit).map(|_| ());
        }
        let first = directory.map_or(self.root_cluster.max(2), |directory| directory.first);
        if !self.is_data(first) {
            return Err(broken("a directory lies beyond its end"));
        }
        let range = |cluster| (self.place(cluster), self.cluster / ENTRY);
        let mut visited = 0;
        // Most directories end in their first cluster: the table, which lies before it, is not asked then.
        if directory.is_some() {
            if self.visit_range(disk, range(first), &mut names, visit)?.is_break() {
                return Ok(());
            }
            visited = 1;
        }
        for cluster in self.directory_chain(disk, first)?.into_iter().skip(visited) {
            if self.visit_range(disk, range(cluster), &mut names, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The same for the entries that begin at a place and are that many. Breaks at the mark of the directory's end.
    fn visit_range(
        &self,
        disk: &mut dyn ReadAt,
        (start, count): (u64, u64),
        names: &mut Names,
        visit: &mut dyn FnMut(&Entry, &Names),
    ) -> Result<ControlFlow<()>, Error> {
        for index in 0..count {
            let mut entry = [0; entry::LENGTH];
            disk.read_exact_at(start + index * ENTRY, &mut entry)?;
            if entry[0] == 0 {
                return Ok(ControlFlow::Break(()));
            }
            if names.take(&entry) {
                visit(&entry, names);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn broken(why: &str) -> Error {
    Error::refused("reading the FAT file system of", "", why).advice("it is damaged")
}

#[cfg(test)]
pub(crate) mod tests;
