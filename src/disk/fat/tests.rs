//! Unit tests of the reader.

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
        let parts = name.len().div_ceil(13);
        for order in (1..=parts).rev() {
            at += 32;
            let last = if order == parts { 0x40 } else { 0 };
            let start = 13 * (order - 1);
            part(&mut disk, at, order as u8 | last, &name[start..name.len().min(start + 13)]);
            disk[at + 13] = checksum(b"SHORT~1    ");
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

/// Puts a part of a long name there, but for its checksum.
fn part(disk: &mut [u8], at: usize, order: u8, text: &str) {
    disk[at..at + 32].fill(0xff);
    disk[at] = order;
    disk[at + 11] = 0x0f;
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
    for (place, unit) in places.zip(text.encode_utf16().chain([0])) {
        disk[at + place..at + place + 2].copy_from_slice(&unit.to_le_bytes());
    }
}

/// That of a short name, as the specification has it.
pub(crate) fn checksum(name: &[u8; 11]) -> u8 {
    let mut sum: u8 = 0;
    for byte in name {
        sum = (if sum & 1 == 1 { 0x80 } else { 0 } + (sum >> 1)).wrapping_add(*byte);
    }
    sum
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
    part(&mut disk, at + 32, 0x42, "son");
    part(&mut disk, at + 64, 1, "device-type.j");
    disk[at + 45] = checksum(b"DEVICE~1JSO");
    disk[at + 77] = checksum(b"DEVICE~1JSO");
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
    for (width, bytes) in [(Width::Fat12, 6131), (Width::Fat16, 10_004), (Width::Fat32, 20_008)] {
        let clusters = if width == Width::Fat12 { 4085 } else { 5000 };
        let fat = Fat {
            width,
            start: 0,
            length: 0,
            table: 0,
            table_length: 100_000,
            tables: 1,
            root: 0,
            data: 0,
            cluster: 1,
            clusters,
            root_entries: 0,
            root_cluster: 0,
            information: 0,
            is_unusual: false,
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

#[test]
fn a_long_name_is_one_by_its_ordinals_and_its_checksum() {
    let root = 5 * 512;
    // Its parts begin at 32 and 64: ordinals, then checksums.
    for (at, byte) in [(32, 0x43), (32, 2), (64, 2), (64, 0x41), (45, 0), (77, 0), (96, b'X')] {
        let mut disk = volume(true, &[1; 700]);
        disk[root + at] = byte;
        let fat = open(&mut disk, 0).unwrap().unwrap();
        let mut found = [None; 2];
        let short = if at == 96 { "XEVICE~1.JSO" } else { "device~1.jso" };
        fat.find_all(&mut disk, &["device-type.json", short], &mut found).unwrap();
        assert!(found[0].is_none() && found[1].is_some(), "{at}: {found:?}");
    }
    // Another entry between: the parts are those of no file.
    let mut disk = volume(true, &[1; 700]);
    disk.copy_within(root + 64..root + 160, root + 96);
    disk[root + 64] = 0xe5;
    let fat = open(&mut disk, 0).unwrap().unwrap();
    let mut found = [None];
    fat.find_all(&mut disk, &["device-type.json"], &mut found).unwrap();
    assert!(found[0].is_none());
}

#[test]
fn what_is_left_of_a_longer_name_is_no_part_of_the_next() {
    // A name of 26 units has no end mark; the shorter one behind it must not show what is left of it.
    let mut names = Names::new();
    let mut entry = [b' '; 32];
    entry[11] = 0x20;
    let sum = entry::checksum(&entry);
    let mut take = |order, text| {
        let mut bytes = [0; 32];
        part(&mut bytes, 0, order, text);
        bytes[13] = sum;
        assert!(!names.take(&bytes));
        order & 0x3f != 1 || names.take(&entry) && names.are("abcdefghijklm")
    };
    assert!(take(0x42, "nopqrstuvwxyz"));
    assert!(!take(1, "abcdefghijklm"));
    assert!(take(0x41, "abcdefghijklm"));
    // The next entry has none, whatever its checksum is.
    assert!(names.take(&entry) && !names.are("abcdefghijklm"));
}

#[test]
fn letters_that_are_not_ascii_are_compared_as_they_are() {
    let mut names = Names::new();
    let mut entry = [b' '; 32];
    entry[11] = 0x20;
    let mut bytes = [0; 32];
    part(&mut bytes, 0, 0x41, "Grüße😀");
    bytes[13] = entry::checksum(&entry);
    assert!(!names.take(&bytes) && names.take(&entry));
    assert!(names.are("gRüßE😀") && !names.are("GRÜßE😀") && !names.are("gr"));
}

#[test]
fn the_upper_half_of_a_first_cluster_is_none_of_fat12() {
    for wide in [false, true] {
        let mut disk = volume(wide, &[1; 700]);
        disk[5 * 512 + 96 + 20] = 1;
        let fat = open(&mut disk, 0).unwrap().unwrap();
        let mut found = [None];
        fat.find_all(&mut disk, &["device-type.json"], &mut found).unwrap();
        assert_eq!(fat.locate(&mut disk, found[0].unwrap(), 1024).is_ok(), !wide);
    }
}

#[test]
fn a_volume_has_the_clusters_that_its_table_has_entries_for() {
    let mut disk = volume(true, &[]);
    let fat = open(&mut disk, 0).unwrap().unwrap();
    assert_eq!((fat.clusters, fat.length()), (195, 200 * 512));
    // One sector of table: 128 entries.
    disk[36] = 1;
    assert_eq!(open(&mut disk, 0).unwrap().unwrap().clusters, 126);
    disk[36] = 0;
    assert!(open(&mut disk, 0).unwrap().is_none());
    // 70,000 clusters of FAT16: the table has entries, but they cannot be numbered.
    let mut disk = volume(false, &[]);
    disk[19..21].fill(0);
    disk[22..24].copy_from_slice(&300u16.to_le_bytes());
    for (total, is_one) in [(65_524, true), (65_525, false)] {
        let total: u32 = total + 1 + 600 + 1;
        disk[32..36].copy_from_slice(&total.to_le_bytes());
        assert_eq!(open(&mut disk, 0).unwrap().is_some(), is_one, "{total}");
    }
}
