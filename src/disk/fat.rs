//! Reading FAT12, FAT16 and FAT32: the volume label, files of a directory, and how much is free
//! (Microsoft, FAT: General Overview of On-Disk Format, 1.03).
//!
//! Reads only. Writing is the kernel's business.

use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;
use core::ops::ControlFlow;

const SECTOR: u64 = 512;
/// The longest table that is counted through, in bytes: that of a volume of 1 GiB in clusters of 512 bytes.
const MAX_TABLE: u64 = 8 << 20;
/// The most entries that a directory has (2 MiB; FAT specification, section 6, and FAT_MAX_DIR_ENTRIES in
/// fs/fat/fat.h).
const MAX_ENTRIES: u64 = 65_536;
const ENTRY: u64 = 32;
/// The most clusters that a directory has: those of 512 bytes, the smallest.
const MAX_DIRECTORY_CLUSTERS: usize = (MAX_ENTRIES * ENTRY / SECTOR) as usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT file system.
#[derive(Debug)]
pub struct Fat {
    width: Width,
    /// Where the first table, the fixed root directory and the first cluster begin, in bytes from the disk's start.
    table: u64,
    table_length: u64,
    root: u64,
    data: u64,
    /// Bytes per cluster.
    cluster: u64,
    clusters: u64,
    root_entries: u32,
    root_cluster: u32,
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
pub fn open(disk: &mut impl ReadAt, start: u64) -> Result<Option<Fat>, Error> {
    let mut boot = [0; SECTOR as usize];
    disk.read_exact_at(start, &mut boot)?;
    Ok(parse(&boot, start))
}

fn parse(boot: &[u8], start: u64) -> Option<Fat> {
    let sector = little_endian::<2>(boot, 11);
    let per_cluster = little_endian::<1>(boot, 13);
    let reserved = little_endian::<2>(boot, 14);
    let tables = little_endian::<1>(boot, 16);
    let root_entries = little_endian::<2>(boot, 17);
    let short_table = little_endian::<2>(boot, 22);
    let plausible = little_endian::<2>(boot, 510) == 0xaa55
        && matches!(boot.first(), Some(0xeb | 0xe9))
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && reserved > 0
        && (1..=2).contains(&tables)
        && little_endian::<1>(boot, 21) >= 0xf0;
    if !plausible {
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
    let width = match clusters {
        0..4085 => Width::Fat12,
        4085..65_525 => Width::Fat16,
        _ => Width::Fat32,
    };
    // mkfs.fat makes FAT32 of any size when told to; the tables' length field is what drivers go by.
    let width = if short_table == 0 { Width::Fat32 } else { width };
    Some(Fat {
        width,
        table: start + reserved * sector,
        table_length: table_sectors * sector,
        root: start + root_start * sector,
        data: start + data_start * sector,
        cluster: per_cluster * sector,
        clusters,
        root_entries: root_entries as u32,
        root_cluster: little_endian::<4>(boot, 44) as u32,
    })
}

impl Fat {
    /// Looks for files and directories in the root directory, in one go: what is found under `names[i]` is put into
    /// `found[i]`. Case does not matter, only ASCII names are found. Gives the volume label; empty when there is none.
    pub fn find_all(
        &self,
        disk: &mut impl ReadAt,
        names: &[&str],
        found: &mut [Option<File>],
    ) -> Result<Text<16>, Error> {
        self.find_in(disk, None, names, found)
    }

    /// The same in `directory`, or in the root directory.
    pub fn find_in(
        &self,
        disk: &mut impl ReadAt,
        directory: Option<File>,
        names: &[&str],
        found: &mut [Option<File>],
    ) -> Result<Text<16>, Error> {
        let mut label = Text::new();
        self.for_each_entry(disk, directory, &mut |entry, long_name| {
            if entry[11] & 0x18 == 0x08 {
                label = crate::text::printable(entry[..11].trim_ascii_end());
                return;
            }
            let is_directory = entry[11] & 0x10 != 0;
            let short_name = short_name(entry);
            let name = if long_name.is_empty() { &short_name } else { long_name };
            for (wanted, found) in names.iter().zip(found.iter_mut()) {
                if name.eq_ignore_ascii_case(wanted) {
                    let first = little_endian::<2>(entry, 20) << 16 | little_endian::<2>(entry, 26);
                    let length = little_endian::<4>(entry, 28) as u32;
                    *found = Some(File { first: first as u32, length, is_directory });
                }
            }
        })?;
        Ok(label)
    }

    /// Where the first `most` bytes of a file lie. Read from the table, which comes before all files: whoever can
    /// only read forward cheaply, as what is unpacked meanwhile, asks for the places of all files first.
    pub fn locate(&self, disk: &mut impl ReadAt, file: File, most: usize) -> Result<Place, Error> {
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
        disk: &mut impl ReadAt,
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
    pub fn free(&self, disk: &mut impl ReadAt) -> Result<Option<u64>, Error> {
        let bits = match self.width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        let length = ((self.clusters + 2) * bits).div_ceil(8).min(self.table_length);
        if length > MAX_TABLE {
            return Ok(None);
        }
        // Whole entries, and whole pairs of those of one and a half bytes.
        let mut buffer = [0; 3 * 1024];
        let mut entries = 0;
        let mut free = 0;
        let mut at = 0;
        while at < length {
            let wanted = (length - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            disk.read_exact_at(self.table + at, piece)?;
            at += wanted as u64;
            for index in 0..piece.len() * 8 / bits as usize {
                // The first two entries belong to no cluster.
                entries += 1;
                let is_cluster = (3..self.clusters + 3).contains(&entries);
                free += u64::from(is_cluster && self.entry(piece, index) == 0);
            }
        }
        Ok(Some(free * self.cluster))
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
    fn next(&self, disk: &mut impl ReadAt, cluster: u32) -> Result<u32, Error> {
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
        disk: &mut impl ReadAt,
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

    /// Calls `visit` with each entry of a directory, or of the root directory, and its long name.
    fn for_each_entry(
        &self,
        disk: &mut impl ReadAt,
        directory: Option<File>,
        visit: &mut dyn FnMut(&[u8; 32], &str),
    ) -> Result<(), Error> {
        let mut long_name = LongName::default();
        if directory.is_none() && self.width != Width::Fat32 {
            let range = (self.root, u64::from(self.root_entries));
            return self.visit_range(disk, range, &mut long_name, visit).map(|_| ());
        }
        let first = directory.map_or(self.root_cluster.max(2), |directory| directory.first);
        if !self.is_data(first) {
            return Err(broken("a directory lies beyond its end"));
        }
        let range = |cluster| (self.place(cluster), self.cluster / ENTRY);
        let mut visited = 0;
        // Most directories end in their first cluster: the table, which lies before it, is not asked then.
        if directory.is_some() {
            if self.visit_range(disk, range(first), &mut long_name, visit)?.is_break() {
                return Ok(());
            }
            visited = 1;
        }
        for cluster in self.directory_chain(disk, first)?.into_iter().skip(visited) {
            if self.visit_range(disk, range(cluster), &mut long_name, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The same for the entries that begin at a place and are that many. Breaks at the mark of the directory's end.
    fn visit_range(
        &self,
        disk: &mut impl ReadAt,
        (start, count): (u64, u64),
        long_name: &mut LongName,
        visit: &mut dyn FnMut(&[u8; 32], &str),
    ) -> Result<ControlFlow<()>, Error> {
        for index in 0..count {
            let mut entry = [0; ENTRY as usize];
            disk.read_exact_at(start + index * ENTRY, &mut entry)?;
            match (entry[0], entry[11]) {
                (0, _) => return Ok(ControlFlow::Break(())),
                (0xe5, _) => *long_name = LongName::default(),
                (_, 0x0f) => long_name.add(&entry),
                _ => {
                    visit(&entry, long_name.text());
                    *long_name = LongName::default();
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn broken(why: &str) -> Error {
    Error::refused("reading the FAT file system of", "", why).advice("it is damaged")
}

/// The name of a short entry, with its dot.
fn short_name(entry: &[u8; 32]) -> Text<12> {
    let base = crate::text::printable::<8>(entry[..8].trim_ascii_end());
    let extension = crate::text::printable::<3>(entry[8..11].trim_ascii_end());
    match extension.is_empty() {
        true => crate::text!("{}", base),
        false => crate::text!("{}.{}", base, extension),
    }
}

/// A long name, put together from its entries, which come last part first, 13 UTF-16 units each.
#[derive(Default)]
struct LongName {
    units: heapless::Vec<u8, 260>,
    text: Text<260>,
}

impl LongName {
    fn add(&mut self, entry: &[u8; 32]) {
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        let mut part = heapless::Vec::<u8, 13>::new();
        for place in places {
            let unit = little_endian::<2>(entry, place) as u16;
            if unit == 0 || unit == 0xffff {
                break;
            }
            // Only ASCII names are looked for; anything else must merely not look like one.
            let _ = part.push(u8::try_from(unit).unwrap_or(b'?'));
        }
        let mut whole = heapless::Vec::new();
        // Longer than any name may be: cut, and equal to nothing that is looked for.
        let _ = whole.extend_from_slice(&part);
        let _ = whole.extend_from_slice(&self.units);
        self.units = whole;
        self.text = crate::text::printable(&self.units);
    }

    fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A FAT32 volume with this label and these files, each of one cluster, one behind the other.
    pub(crate) fn volume_of(label: &str, files: &[(&str, &str)]) -> Vec<u8> {
        let mut disk = volume(true, &[]);
        disk[512..1536].fill(0);
        disk[5 * 512..].fill(0);
        let entry = |cluster: usize| 512 + 4 * cluster..516 + 4 * cluster;
        disk[entry(2)].copy_from_slice(&[0xff; 4]);
        let mut at = 5 * 512;
        disk[at..at + 11].copy_from_slice(format!("{label:11}").as_bytes());
        disk[at + 11] = 8;
        for ((name, content), cluster) in files.iter().zip(3..) {
            let parts: Vec<_> = name.as_bytes().chunks(13).collect();
            for (order, part) in (1..=parts.len()).rev().zip(parts.iter().rev()) {
                at += 32;
                disk[at..at + 32].fill(0xff);
                disk[at] = order as u8;
                disk[at + 11] = 0x0f;
                let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
                for (place, unit) in places.zip(part.iter().chain([&0])) {
                    disk[at + place..at + place + 2].copy_from_slice(&[*unit, 0]);
                }
            }
            at += 32;
            disk[at..at + 11].copy_from_slice(b"SHORT~1    ");
            if !content.is_empty() {
                disk[at + 26] = cluster as u8;
                disk[at + 28] = content.len() as u8;
                disk[entry(cluster)].copy_from_slice(&[0xff; 4]);
                let start = (5 + cluster - 2) * 512;
                disk[start..start + content.len()].copy_from_slice(content.as_bytes());
            }
        }
        disk
    }

    /// A FAT12 or FAT32 volume with label RESIN-BOOT and device-type.json of `content` in two separate clusters.
    fn volume(wide: bool, content: &[u8]) -> Vec<u8> {
        let mut disk = vec![0u8; 200 * 512];
        disk[0] = 0xeb;
        disk[11..13].copy_from_slice(&512u16.to_le_bytes());
        disk[13] = 1;
        disk[14] = 1;
        disk[16] = 2;
        disk[19] = 200;
        disk[21] = 0xf8;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let root = if wide {
            disk[36] = 2;
            disk[44] = 2;
            5
        } else {
            disk[17] = 16;
            disk[22] = 2;
            5
        };
        let data = if wide { 5 } else { 6 };
        let chain = |disk: &mut Vec<u8>, cluster: usize, next: u32| {
            if wide {
                disk[512 + 4 * cluster..516 + 4 * cluster].copy_from_slice(&next.to_le_bytes());
            } else {
                let at = 512 + cluster * 3 / 2;
                let mut pair = u16::from_le_bytes([disk[at], disk[at + 1]]);
                let next = next as u16 & 0xfff;
                pair |= if cluster & 1 == 1 { next << 4 } else { next };
                disk[at..at + 2].copy_from_slice(&pair.to_le_bytes());
            }
        };
        chain(&mut disk, 2, 0x0fff_ffff);
        chain(&mut disk, 7, 12);
        chain(&mut disk, 12, 0x0fff_ffff);
        let at = root * 512;
        disk[at..at + 11].copy_from_slice(b"RESIN-BOOT ");
        disk[at + 11] = 8;
        let long = |disk: &mut Vec<u8>, at: usize, order: u8, text: &str| {
            disk[at..at + 32].fill(0xff);
            disk[at] = order;
            disk[at + 11] = 0x0f;
            let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
            for (place, unit) in places.zip(text.encode_utf16().chain([0])) {
                disk[at + place..at + place + 2].copy_from_slice(&unit.to_le_bytes());
            }
        };
        long(&mut disk, at + 32, 0x42, "son");
        long(&mut disk, at + 64, 1, "device-type.j");
        disk[at + 96..at + 107].copy_from_slice(b"DEVICE~1JSO");
        disk[at + 107] = 0x20;
        disk[at + 96 + 26] = 7;
        disk[at + 96 + 28..at + 96 + 32].copy_from_slice(&(content.len() as u32).to_le_bytes());
        disk[at + 128..at + 139].copy_from_slice(b"BALENA  IMG");
        disk[at + 139] = 0x20;
        for (piece, cluster) in content.chunks(512).zip([7, 12]) {
            let start = (data + cluster - 2) * 512;
            disk[start..start + piece.len()].copy_from_slice(piece);
        }
        disk
    }

    #[test]
    fn label_and_file_of_both_kinds() {
        let content: Vec<u8> = (0..700u32).map(|i| i as u8).collect();
        for wide in [false, true] {
            let mut disk = volume(wide, &content);
            let fat = open(&mut disk, 0).unwrap().unwrap();
            let mut found = [None; 3];
            let names = ["device-type.json", "balena.img", "device-type"];
            assert_eq!(&*fat.find_all(&mut disk, &names, &mut found).unwrap(), "RESIN-BOOT");
            let mut buffer = [0; 1024];
            let place = fat.locate(&mut disk, found[0].unwrap(), 1024).unwrap();
            let length = fat.read(&mut disk, &place, &mut buffer).unwrap();
            assert!(buffer[..length] == content);
            assert_eq!(place.first(), 7);
            assert!(found[1].is_some() && found[2].is_none());
            let start = fat.locate(&mut disk, found[0].unwrap(), 10).unwrap();
            assert_eq!(fat.read(&mut disk, &start, &mut buffer).unwrap(), 10);
        }
    }

    #[test]
    fn free_clusters_are_counted_and_the_table_may_be_any_kind() {
        // One volume has 195 clusters and the other 194, and three are used.
        for (wide, free) in [(true, 195 - 3), (false, 194 - 3)] {
            let mut disk = volume(wide, &[1; 700]);
            let fat = open(&mut disk, 0).unwrap().unwrap();
            assert_eq!(fat.free(&mut disk).unwrap(), Some(free * 512), "{wide}");
        }
        let mut disk = volume(true, &[]);
        let mut fat = open(&mut disk, 0).unwrap().unwrap();
        // A table that is too short for the volume: what it has no entries for is not free.
        assert_eq!(Fat { table_length: 40, ..fat }.free(&mut disk).unwrap(), Some(6 * 512));
        (fat.clusters, fat.table_length) = (1 << 28, 1 << 30);
        assert_eq!(fat.free(&mut disk).unwrap(), None);
    }

    #[test]
    fn a_table_longer_than_a_piece_is_counted_to_its_end() {
        for (width, bytes) in [(Width::Fat12, 6131), (Width::Fat16, 10_004), (Width::Fat32, 20_008)]
        {
            let clusters = if width == Width::Fat12 { 4085 } else { 5000 };
            let fat = Fat {
                width,
                table: 0,
                table_length: 100_000,
                root: 0,
                data: 0,
                cluster: 1,
                clusters,
                root_entries: 0,
                root_cluster: 0,
            };
            let mut disk = vec![0; bytes];
            assert_eq!(fat.free(&mut disk).unwrap(), Some(clusters), "{width:?}");
            // The last cluster, and one in the middle of the second piece.
            disk[bytes - 1] = 0x07;
            disk[3072 + 601] = 0x11;
            let used = if width == Width::Fat12 { 3 } else { 2 };
            assert_eq!(fat.free(&mut disk).unwrap(), Some(clusters - used), "{width:?}");
        }
    }

    #[test]
    fn what_is_no_fat_is_not_taken_for_one() {
        let mut disk = vec![0u8; 4096];
        assert!(open(&mut disk, 0).unwrap().is_none());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(open(&mut disk, 0).unwrap().is_none());
    }

    /// A disk that counts how often it is read, and how often at a place before the last one: there what is
    /// packed would be unpacked from its beginning.
    pub(crate) struct Counted {
        pub(crate) disk: Vec<u8>,
        pub(crate) last: u64,
        pub(crate) reads: usize,
        pub(crate) backward: usize,
    }

    impl ReadAt for Counted {
        fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
            self.reads += 1;
            self.backward += usize::from(offset < self.last);
            self.last = offset;
            self.disk.read_exact_at(offset, buffer)
        }
    }

    /// A FAT32 volume of 80,000 clusters of `sectors` sectors whose root directory is full of files, and has the
    /// clusters 2, 3, 4 and so on, `count` of them; `last` is what the table has for the last.
    fn long_root(sectors: u8, count: usize, last: u32) -> (Counted, Fat) {
        const TABLE_SECTORS: usize = 640;
        let cluster = 512 * usize::from(sectors);
        let data = (1 + TABLE_SECTORS) * 512;
        let mut disk = vec![0; data + count * cluster];
        disk[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
        disk[11..17].copy_from_slice(&[0, 2, sectors, 1, 0, 1]);
        disk[21] = 0xf8;
        let total = 80_000 * u32::from(sectors) + 1 + TABLE_SECTORS as u32;
        disk[32..36].copy_from_slice(&total.to_le_bytes());
        disk[36..40].copy_from_slice(&(TABLE_SECTORS as u32).to_le_bytes());
        disk[44] = 2;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for index in 2..count + 2 {
            let next = if index == count + 1 { last } else { index as u32 + 1 };
            let at = 512 + 4 * index;
            disk[at..at + 4].copy_from_slice(&next.to_le_bytes());
        }
        for (index, entry) in disk[data..].chunks_mut(32).enumerate() {
            entry[..11].copy_from_slice(format!("{index:08}TXT").as_bytes());
            entry[11] = 0x20;
        }
        let mut disk = Counted { disk, last: 0, reads: 0, backward: 0 };
        let fat = open(&mut disk, 0).unwrap().unwrap();
        assert_eq!((fat.width, fat.clusters), (Width::Fat32, 80_000));
        (disk, fat)
    }

    #[test]
    fn a_root_directory_that_loops_is_found_in_the_table() {
        // A cluster that follows itself, a short and a long loop, and a chain for more entries than a directory has.
        for (sectors, count, last, most) in
            [(1, 1, 2, 4097), (1, 7, 2, 4097), (1, 4000, 1000, 4097), (8, 513, 0x0fff_ffff, 513)]
        {
            let (mut disk, fat) = long_root(sectors, count, last);
            let error = fat.find_all(&mut disk, &[], &mut []).unwrap_err();
            let shown: Text<300> = crate::text!("{}", error);
            assert!(shown.contains("a directory does not end"), "{shown:?}");
            assert!(disk.reads <= most + 1, "{} reads", disk.reads);
            // Once per turn of the loop in the table, and never from the directory to the table.
            assert!(disk.backward <= 4096, "{} steps back", disk.backward);
            assert!(disk.last < fat.data, "the directory was read");
        }
    }

    #[test]
    fn a_loop_takes_no_more_clusters_than_there_are() {
        let mut disk = volume(true, &[]);
        disk[520..524].copy_from_slice(&[2, 0, 0, 0]);
        let mut disk = Counted { disk, last: 0, reads: 0, backward: 0 };
        let fat = open(&mut disk, 0).unwrap().unwrap();
        assert!(fat.find_all(&mut disk, &[], &mut []).is_err());
        assert!(disk.reads <= 195 + 1, "{} reads", disk.reads);
    }

    #[test]
    fn the_longest_root_directory_is_read_without_a_step_back() {
        for (sectors, count) in [(1, 4096), (8, 512)] {
            let (mut disk, fat) = long_root(sectors, count, 0x0fff_ffff);
            let mut found = [None; 2];
            let names = ["00000000.TXT", "00065535.TXT"];
            fat.find_all(&mut disk, &names, &mut found).unwrap();
            assert!(found.iter().all(Option::is_some));
            assert_eq!(disk.reads, 1 + count + 65_536);
            assert_eq!(disk.backward, 0, "the table lies before the directory");
        }
    }

    #[test]
    fn a_directory_that_loops_or_lies_nowhere_is_an_error() {
        // Files in every place of the directory, which is its own next cluster.
        let (mut disk, fat) = long_root(1, 1, 2);
        let directory = |first| File { first, length: 0, is_directory: true };
        for first in [2, 0, 1, 90_000] {
            let found = fat.find_in(&mut disk, Some(directory(first)), &["x"], &mut [None]);
            assert!(found.is_err(), "{first}");
        }
    }

    #[test]
    fn a_root_directory_beyond_the_volume_is_an_error() {
        let mut disk = volume(true, &[]);
        disk[44..48].copy_from_slice(&[0xff; 4]);
        let fat = open(&mut disk, 0).unwrap().unwrap();
        assert!(fat.find_all(&mut disk, &[], &mut []).is_err());
    }

    #[test]
    fn no_flipped_byte_panics_or_hangs() {
        let good = volume(true, &[1; 700]);
        for at in (0..64).chain(512..600).chain(2560..2720) {
            let mut disk = good.clone();
            disk[at] ^= 0xff;
            if let Ok(Some(fat)) = open(&mut disk, 0) {
                let _ = fat.free(&mut disk);
                let mut found = [None];
                let _ = fat.find_all(&mut disk, &["device-type.json"], &mut found);
                if let Some(Ok(place)) = found[0].map(|file| fat.locate(&mut disk, file, 1024)) {
                    let _ = fat.read(&mut disk, &place, &mut [0; 1024]);
                }
            }
        }
    }
}
