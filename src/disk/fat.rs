//! Reading FAT12, FAT16 and FAT32: the volume label and a file of the root directory
//! (Microsoft, FAT: General Overview of On-Disk Format, 1.03).
//!
//! Reads only. Writing is the kernel's business.

use super::little_endian;
use crate::error::Error;
use crate::image::reader::ReadAt;
use crate::text::Text;

const SECTOR: u64 = 512;
/// Directory entries looked at before a directory is called endless.
const MAX_ENTRIES: u32 = 65_536;

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
    root: u64,
    data: u64,
    /// Bytes per cluster.
    cluster: u64,
    clusters: u64,
    root_entries: u32,
    root_cluster: u32,
}

/// A file of the root directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File {
    first: u32,
    /// Its length in bytes.
    pub length: u32,
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
        root: start + root_start * sector,
        data: start + data_start * sector,
        cluster: per_cluster * sector,
        clusters,
        root_entries: root_entries as u32,
        root_cluster: little_endian::<4>(boot, 44) as u32,
    })
}

impl Fat {
    /// The volume label, from the root directory; empty when there is none.
    pub fn label(&self, disk: &mut impl ReadAt) -> Result<Text<16>, Error> {
        let mut label = Text::new();
        self.for_each_entry(disk, |entry, _| {
            if entry[11] & 0x18 != 0x08 {
                return false;
            }
            label = crate::text::printable(entry[..11].trim_ascii_end());
            true
        })?;
        Ok(label)
    }

    /// The file of this name in the root directory; case does not matter, only ASCII names are found.
    pub fn find(&self, disk: &mut impl ReadAt, name: &str) -> Result<Option<File>, Error> {
        let mut found = None;
        self.for_each_entry(disk, |entry, long_name| {
            let matches = match long_name.is_empty() {
                true => short_name(entry).eq_ignore_ascii_case(name),
                false => long_name.eq_ignore_ascii_case(name),
            };
            // Neither a label nor a directory.
            if !matches || entry[11] & 0x18 != 0 {
                return false;
            }
            let first = little_endian::<2>(entry, 20) << 16 | little_endian::<2>(entry, 26);
            found =
                Some(File { first: first as u32, length: little_endian::<4>(entry, 28) as u32 });
            true
        })?;
        Ok(found)
    }

    /// Reads the beginning of a file, as much as fits into `buffer`, and gives its length.
    pub fn read(
        &self,
        disk: &mut impl ReadAt,
        file: File,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let wanted = buffer.len().min(file.length as usize);
        // The chain first and then the data: a packed image is read forward.
        let mut chain = heapless::Vec::<u32, 128>::new();
        let mut cluster = file.first;
        let mut covered = 0;
        while covered < wanted {
            if !self.is_data(cluster) {
                return Err(broken("a file ends before its length"));
            }
            chain.push(cluster).map_err(|_| broken("a file is in too many pieces"))?;
            covered += self.cluster as usize;
            cluster = self.next(disk, cluster)?;
        }
        for (piece, cluster) in buffer
            .get_mut(..wanted)
            .unwrap_or_default()
            .chunks_mut(self.cluster as usize)
            .zip(&chain)
        {
            disk.read_exact_at(self.place(*cluster), piece)?;
        }
        Ok(wanted)
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

    /// Calls `visit` with each entry of the root directory and its long name, until it says true.
    fn for_each_entry(
        &self,
        disk: &mut impl ReadAt,
        mut visit: impl FnMut(&[u8; 32], &str) -> bool,
    ) -> Result<(), Error> {
        let mut long_name = LongName::default();
        let mut cluster = self.root_cluster;
        let mut place = match self.width {
            Width::Fat32 => self.place(cluster.max(2)),
            _ => self.root,
        };
        let mut left = match self.width {
            Width::Fat32 => self.cluster / 32,
            _ => self.root_entries.into(),
        };
        for _ in 0..MAX_ENTRIES {
            if left == 0 {
                if self.width != Width::Fat32 {
                    return Ok(());
                }
                cluster = self.next(disk, cluster)?;
                if !self.is_data(cluster) {
                    return Ok(());
                }
                place = self.place(cluster);
                left = self.cluster / 32;
            }
            let mut entry = [0; 32];
            disk.read_exact_at(place, &mut entry)?;
            match (entry[0], entry[11]) {
                (0, _) => return Ok(()),
                (0xe5, _) => long_name = LongName::default(),
                (_, 0x0f) => long_name.add(&entry),
                _ => {
                    if visit(&entry, long_name.text()) {
                        return Ok(());
                    }
                    long_name = LongName::default();
                }
            }
            place += 32;
            left -= 1;
        }
        Err(broken("its root directory does not end"))
    }
}

fn broken(why: &str) -> Error {
    Error::refused("reading the boot partition of", "the image", why).advice("the image is damaged")
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
mod tests {
    use super::*;

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
            assert_eq!(&*fat.label(&mut disk).unwrap(), "RESIN-BOOT");
            let file = fat.find(&mut disk, "device-type.json").unwrap().unwrap();
            let mut buffer = [0; 1024];
            let length = fat.read(&mut disk, file, &mut buffer).unwrap();
            assert!(buffer[..length] == content);
            assert!(fat.find(&mut disk, "balena.img").unwrap().is_some());
            assert!(fat.find(&mut disk, "device-type").unwrap().is_none());
        }
    }

    #[test]
    fn what_is_no_fat_is_not_taken_for_one() {
        let mut disk = vec![0u8; 4096];
        assert!(open(&mut disk, 0).unwrap().is_none());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(open(&mut disk, 0).unwrap().is_none());
    }

    #[test]
    fn no_flipped_byte_panics_or_hangs() {
        let good = volume(true, &[1; 700]);
        for at in (0..64).chain(512..600).chain(2560..2720) {
            let mut disk = good.clone();
            disk[at] ^= 0xff;
            if let Ok(Some(fat)) = open(&mut disk, 0) {
                let _ = fat.label(&mut disk);
                if let Ok(Some(file)) = fat.find(&mut disk, "device-type.json") {
                    let _ = fat.read(&mut disk, file, &mut [0; 1024]);
                }
            }
        }
    }
}
