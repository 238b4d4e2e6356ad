//! Unit tests of the planner, on small volumes made here. Random ones: `tests/test_fat.py`.

use super::super::entry::LABEL;
use super::super::{open, tests::checksum};
use super::*;
use crate::bytes::little_endian;

const STAMP: u32 = 0x5d7a_6000;
const RESERVED: usize = 8;

/// A volume of clusters of one sector with an empty root directory: 32 entries, or cluster 2 of FAT32.
struct Disk {
    bytes: Vec<u8>,
    width: Width,
    /// Sectors of a table.
    length: usize,
}

impl Disk {
    fn new(width: Width, clusters: usize) -> Self {
        let length = ((clusters + 2) * width.bits() as usize).div_ceil(8 * SECTOR);
        let root = if width == Width::Fat32 { 0 } else { 2 };
        let sectors = RESERVED + 2 * length + root + clusters;
        let mut bytes = vec![0; sectors * SECTOR];
        bytes[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
        bytes[11..17].copy_from_slice(&[0, 2, 1, RESERVED as u8, 0, 2]);
        bytes[17] = 16 * root as u8;
        bytes[21] = 0xf8;
        bytes[32..36].copy_from_slice(&(sectors as u32).to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut disk = Self { bytes, width, length };
        if width == Width::Fat32 {
            disk.bytes[36..38].copy_from_slice(&(length as u16).to_le_bytes());
            (disk.bytes[44], disk.bytes[48]) = (2, 1);
            for (at, word) in
                [(0, 0x4161_5252), (484, 0x6141_7272), (488, u32::MAX), (508, 0xaa55_0000)]
            {
                disk.bytes[512 + at..][..4].copy_from_slice(&u32::to_le_bytes(word));
            }
            disk.chain(&[2]);
        } else {
            disk.bytes[22..24].copy_from_slice(&(length as u16).to_le_bytes());
        }
        disk
    }

    /// Every kind.
    fn of_each_kind() -> [Self; 3] {
        [(Width::Fat12, 400), (Width::Fat16, 4100), (Width::Fat32, 400)]
            .map(|(width, clusters)| Self::new(width, clusters))
    }

    fn set(&mut self, cluster: usize, next: u32) {
        for table in [RESERVED, RESERVED + self.length] {
            let bit = cluster * self.width.bits() as usize;
            let at = table * SECTOR + bit / 8;
            let mask = u64::from(self.width.mask()) << (bit % 8);
            let mut old = [0; 8];
            old.copy_from_slice(&self.bytes[at..at + 8]);
            let new = u64::from_le_bytes(old) & !mask | u64::from(next) << (bit % 8) & mask;
            self.bytes[at..at + 8].copy_from_slice(&new.to_le_bytes());
        }
    }

    fn next(&self, cluster: usize) -> u32 {
        let bit = cluster * self.width.bits() as usize;
        let value = little_endian::<4>(&self.bytes, RESERVED * SECTOR + bit / 8) >> (bit % 8);
        value as u32 & self.width.mask()
    }

    fn chain(&mut self, clusters: &[usize]) {
        for (index, cluster) in clusters.iter().enumerate() {
            self.set(*cluster, clusters.get(index + 1).map_or(u32::MAX, |next| *next as u32));
        }
    }

    fn place(&self, cluster: usize) -> usize {
        let root = if self.width == Width::Fat32 { 0 } else { 2 };
        (RESERVED + 2 * self.length + root + cluster - 2) * SECTOR
    }

    fn root(&self) -> usize {
        (RESERVED + 2 * self.length) * SECTOR
    }

    /// Puts an entry with this short name at a place.
    fn add(&mut self, at: usize, name: &[u8; 11], attributes: u8, first: usize, length: u32) {
        let entry = &mut self.bytes[at..at + 32];
        entry[..11].copy_from_slice(name);
        entry[11] = attributes;
        entry[26] = first as u8;
        entry[28..32].copy_from_slice(&length.to_le_bytes());
    }

    /// A directory of the root, at its slot and in this cluster.
    fn add_directory(&mut self, slot: usize, name: &[u8; 11], cluster: usize) {
        self.add(self.root() + 32 * slot, name, DIRECTORY, cluster, 0);
        self.add(self.place(cluster), b".          ", DIRECTORY, cluster, 0);
        self.add(self.place(cluster) + 32, b"..         ", DIRECTORY, 0, 0);
        self.chain(&[cluster]);
    }

    /// Puts a byte at a place of the root directory.
    fn put_byte(&mut self, at: usize, byte: u8) {
        let root = self.root();
        self.bytes[root + at] = byte;
    }

    fn fat(&mut self) -> Fat {
        open(&mut self.bytes, 0).unwrap().unwrap()
    }

    /// Plans files of these lengths, and puts the plan on the disk: each file is full of its index and one.
    fn place_files(&mut self, wanted: &[(&str, u32)]) -> Result<Vec<u32>, String> {
        let fat = self.fat();
        let wanted: Vec<_> =
            wanted.iter().map(|(path, length)| Wanted { path, length: *length }).collect();
        let mut memory = Box::new(Memory::new());
        plan(&mut self.bytes, &fat, &wanted, STAMP, &mut memory).map_err(|error| {
            let text: Text<600> = crate::text!("{}", error);
            text.to_string()
        })?;
        let mut numbers = Vec::new();
        for_each(&fat, &memory, &mut |number, content| {
            let place = &mut self.bytes[number as usize * SECTOR..][..SECTOR];
            match content {
                Content::Bytes(bytes) => place.copy_from_slice(bytes),
                Content::Zeros => place.fill(0),
                Content::File { index, offset } => {
                    let rest = (wanted[usize::from(index)].length - offset) as usize;
                    place.fill(0);
                    place[..rest.min(SECTOR)].fill(index + 1);
                }
            }
            numbers.push(number);
            Ok(())
        })
        .unwrap();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        Ok(numbers)
    }

    fn refusal(&mut self, wanted: &[(&str, u32)]) -> String {
        let before = self.bytes.clone();
        let why = self.place_files(wanted).unwrap_err();
        assert!(before == self.bytes);
        why
    }

    /// The short names of a directory, in order, and the first clusters.
    fn list(&self, at: usize) -> Vec<(String, usize)> {
        let entries = self.bytes[at..].chunks(32).take_while(|entry| entry[0] != 0);
        entries
            .filter(|entry| entry[0] != 0xe5 && entry[11] != 0x0f)
            .map(|entry| {
                let name = std::str::from_utf8(&entry[..11]).unwrap().to_string();
                (name, usize::from(entry[26]) | usize::from(entry[27]) << 8)
            })
            .collect()
    }

    fn names(&self, at: usize) -> Vec<String> {
        self.list(at).into_iter().map(|(name, _)| name).collect()
    }

    /// A chain, and what is in it.
    fn clusters(&self, first: usize) -> Vec<usize> {
        let (mut clusters, mut cluster) = (Vec::new(), first);
        while cluster > 1 && cluster < self.width.mask() as usize - 8 {
            clusters.push(cluster);
            cluster = self.next(cluster) as usize;
        }
        clusters
    }

    fn content(&self, first: usize) -> Vec<u8> {
        let sector = |cluster: &usize| &self.bytes[self.place(*cluster)..][..SECTOR];
        self.clusters(first).iter().flat_map(sector).copied().collect()
    }

    fn assert_tables_are_equal(&self) {
        let table = |index: usize| {
            &self.bytes[(RESERVED + index * self.length) * SECTOR..][..self.length * SECTOR]
        };
        assert!(table(0) == table(1));
    }
}

#[test]
fn short_names() {
    for (name, number, short) in [
        ("config.json", 1, "CONFIG~1.JSO"),
        ("balena-01", 9, "BALENA~9"),
        ("balena-01", 10, "BALEN~10"),
        ("grüße.nm", 1, "GR__E~1.NM"),
        ("接続", 1, "__~1"),
        ("😀", 2, "_~2"),
        ("a.b.c", 1, "AB~1.C"),
        (".hidden", 1, "HIDDEN~1"),
        ("..a.b", 1, "A~1.B"),
        ("x y+z.a b", 1, "XY_Z~1.AB"),
        (" .txt", 3, "~3.TXT"),
        ("~1", 1, "_1~1"),
    ] {
        let mut entry = [0; 32];
        assert_eq!(&*name::alias(name, number, &mut entry), short);
        assert_eq!(entry[11..], [0; 21]);
    }
}

#[test]
fn a_long_name_ends_with_a_zero_where_there_is_room() {
    let units = |part: &Entry| entry::UNITS.map(|at| little_endian::<2>(part, at) as u16);
    let part = name::part("1234567890123", 1, 7);
    assert_eq!((part[0], part[11], part[12], part[13]), (0x41, 0x0f, 0, 7));
    assert_eq!(part[26..28], [0, 0]);
    assert_eq!(String::from_utf16(&units(&part)).unwrap(), "1234567890123");
    let part = name::part("12345678901234", 2, 7);
    assert_eq!(part[0], 0x42);
    assert_eq!(units(&part)[..3], [b'4'.into(), 0, 0xffff]);
    assert_eq!(units(&part)[12], 0xffff);
    // Two units, one in each part.
    let parts = [1, 2].map(|ordinal| units(&name::part("123456789012😀", ordinal, 7)));
    assert_eq!((parts[0][12], parts[1][0], parts[1][1]), (0xd83d, 0xde00, 0));
}

#[test]
fn names_that_fat_cannot_hold_are_refused_by_name() {
    let long = "x".repeat(256);
    for (path, shown, why) in [
        ("", "``", "is empty"),
        ("/a", "``", "is empty"),
        ("a/", "``", "is empty"),
        ("a/b/c", "`b/c`", "one of"),
        ("a?b", "`a?b`", "one of"),
        ("a\tb", "`a?b`", "control"),
        ("d./a", "`d.`", "ends with a dot"),
        ("..", "`..`", "ends with a dot"),
        ("a ", "`a `", "blank"),
        (&long, "`xxx", "longer than 255"),
    ] {
        let why_not = Disk::new(Width::Fat16, 4100).refusal(&[(path, 1)]);
        assert!(why_not.contains(shown) && why_not.contains(why), "{path:?}: {why_not}");
    }
    // 255 units, of 2 bytes of UTF-8 each.
    Disk::new(Width::Fat32, 400).place_files(&[(&"ü".repeat(255), 1)]).unwrap();
}

#[test]
fn files_and_directories_are_made_on_every_kind() {
    for mut disk in Disk::of_each_kind() {
        let free = disk.fat().free(&mut disk.bytes).unwrap().unwrap();
        let start = disk.bytes[..2 * SECTOR].to_vec();
        disk.place_files(&[("config.json", 1300), ("net/über 😀 x", 5), ("net/none", 0)]).unwrap();
        disk.assert_tables_are_equal();
        let root = disk.list(disk.root());
        assert_eq!(root[0].0, "NET~1      ");
        assert_eq!(root[1].0, "CONFIG~1JSO");
        let content = disk.content(root[1].1);
        assert_eq!(content.len(), 3 * SECTOR);
        assert!(content[..1300].iter().all(|byte| *byte == 1));
        assert!(content[1300..].iter().all(|byte| *byte == 0));
        let net = disk.list(disk.place(root[0].1));
        let names: Vec<_> = net.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".          ", "..         ", "_BER_X~1   ", "NONE~1     "]);
        assert_eq!((net[0].1, net[1].1, net[3].1), (root[0].1, 0, 0));
        assert_eq!(disk.content(net[2].1)[..6], [2, 2, 2, 2, 2, 0]);
        // Three clusters, one for the directory, one for its first file.
        let left = disk.fat().free(&mut disk.bytes).unwrap().unwrap();
        assert_eq!(left, free - 5 * 512);
        assert!(start[..SECTOR] == disk.bytes[..SECTOR], "the boot sector");
        if disk.width == Width::Fat32 {
            assert_eq!(little_endian::<4>(&disk.bytes, SECTOR + 488), left / 512);
            assert!(start[SECTOR..][..488] == disk.bytes[SECTOR..][..488]);
        }
        // The reader finds what is there.
        let mut found = [None; 2];
        disk.fat().find_all(&mut disk.bytes, &["CONFIG.json", "config~1.jso"], &mut found).unwrap();
        assert_eq!(found[0].unwrap().length, 1300);
        assert_eq!(found[0], found[1]);
    }
}

#[test]
fn an_entry_has_the_times_and_a_sound_long_name() {
    let mut disk = Disk::new(Width::Fat16, 4100);
    disk.place_files(&[("config.json", 1)]).unwrap();
    let entry = &disk.bytes[disk.root() + 32..][..32];
    assert_eq!(entry[11..14], [0x20, 0, 0]);
    assert_eq!(little_endian::<4>(entry, 14), u64::from(STAMP));
    assert_eq!(little_endian::<2>(entry, 18), u64::from(STAMP >> 16));
    assert_eq!(little_endian::<4>(entry, 22), u64::from(STAMP));
    let mut name = [0; 11];
    name.copy_from_slice(&entry[..11]);
    assert_eq!(disk.bytes[disk.root()..][..14][13], checksum(&name));
}

#[test]
fn an_entry_of_twelve_bits_goes_over_the_end_of_a_sector() {
    let mut disk = Disk::new(Width::Fat12, 400);
    // Entry 341 has half a byte at the end of the first sector, and a byte in the second.
    disk.chain(&(2..341).collect::<Vec<_>>());
    disk.set(342, 0xabc);
    disk.chain(&(344..402).collect::<Vec<_>>());
    disk.place_files(&[("a", 600)]).unwrap();
    assert_eq!((disk.next(340), disk.next(341), disk.next(342)), (0xfff, 343, 0xabc));
    assert_eq!((disk.next(343), disk.next(344)), (0xfff, 345));
    disk.assert_tables_are_equal();
}

#[test]
fn the_reserved_bits_and_the_first_two_entries_stay() {
    let mut disk = Disk::new(Width::Fat32, 400);
    let table = RESERVED * SECTOR;
    // An unclean volume: bit 27 of entry 1 is 0.
    disk.bytes[table..table + 8].copy_from_slice(&[0xf8, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xf7]);
    disk.bytes[65] = 1;
    disk.bytes[table + 3 * 4 + 3] = 0x50;
    let start = disk.bytes[table..table + 8].to_vec();
    disk.place_files(&[("a", 1)]).unwrap();
    assert_eq!(disk.bytes[table + 3 * 4..][..4], [0xff, 0xff, 0xff, 0x5f]);
    assert!(disk.bytes[table..table + 8] == start);
    assert_eq!(disk.bytes[65], 1);
}

/// A volume with OLD.TXT of three clusters, 5, 7 and 6, and one behind it of the same kind in 8.
fn with_old(width: Width) -> Disk {
    let mut disk = Disk::new(width, if width == Width::Fat16 { 4100 } else { 400 });
    let root = disk.root();
    disk.add(root, b"LABEL      ", LABEL, 0, 0);
    disk.add(root + 32, b"OLD     TXT", 0x21, 5, 1100);
    disk.add(root + 64, b"NEXT    TXT", 0x20, 8, 100);
    disk.chain(&[5, 7, 6]);
    disk.chain(&[8]);
    disk
}

#[test]
fn a_file_that_is_there_is_replaced_in_its_place() {
    for width in [Width::Fat12, Width::Fat16, Width::Fat32] {
        for (length, chain, freed) in [
            (1100, vec![5, 7, 6], vec![]),
            (600, vec![5, 7], vec![6]),
            (0, vec![], vec![5, 7, 6]),
            (1600, vec![5, 7, 6, 9], vec![]),
        ] {
            let mut disk = with_old(width);
            // So that the next free one is 9.
            disk.chain(&[2]);
            disk.chain(&[3, 4]);
            let at = disk.root() + 32;
            // On FAT12 and FAT16 this is no part of the cluster's number.
            disk.bytes[at + 20] = if width == Width::Fat32 { 0 } else { 3 };
            let before = disk.bytes.clone();
            disk.place_files(&[("old.txt", length)]).unwrap();
            let entry = &disk.bytes[at..at + 32];
            assert_eq!(&entry[..11], b"OLD     TXT");
            assert_eq!(entry[11], 0x20, "no longer read-only");
            assert_eq!(little_endian::<4>(entry, 28), length.into());
            assert_eq!(little_endian::<4>(entry, 14), 0, "the time of its making stays");
            assert_eq!(disk.clusters(entry[26].into()), chain, "{width:?}");
            assert!(freed.iter().all(|cluster| disk.next(*cluster) == 0));
            assert_eq!(disk.clusters(8), [8], "another file");
            assert!(before[at + 32..at + 64] == disk.bytes[at + 32..at + 64], "its entry");
            if width == Width::Fat32 {
                let free = disk.fat().free(&mut disk.bytes).unwrap().unwrap() / 512;
                assert_eq!(little_endian::<4>(&disk.bytes, SECTOR + 488), free);
            }
        }
    }
}

#[test]
fn a_full_volume_takes_a_file_of_the_same_length_and_no_longer_one() {
    let mut disk = with_old(Width::Fat16);
    for cluster in (2..4102).filter(|cluster| disk.next(*cluster) == 0).collect::<Vec<_>>() {
        disk.set(cluster, 0xfff7);
    }
    disk.place_files(&[("OLD.txt", 1500)]).unwrap();
    let why = disk.refusal(&[("OLD.txt", 1537), ("a", 1), ("d/b", 0)]);
    let figures = "OLD.txt and 2 more need 2 KiB in clusters, 0 KiB are free; give fewer";
    assert!(why.contains(figures), "{why}");
    // Files fit, and then the directory needs one more cluster for their names.
    let mut disk = Disk::new(Width::Fat32, 16);
    let files: Vec<_> = (1..8).map(|index| format!("a-longer-name-{index}")).collect();
    let mut wanted: Vec<_> = files.iter().map(|name| (name.as_str(), 1024)).collect();
    disk.place_files(&wanted[..5]).unwrap();
    wanted.push(("another-name", 512));
    let why = Disk::new(Width::Fat32, 16).refusal(&wanted);
    assert!(why.contains("a directory grows, too"), "{why}");
}

#[test]
fn a_directory_grows_over_clusters_and_a_set_of_entries_may_lie_in_two() {
    for mut disk in Disk::of_each_kind() {
        disk.add_directory(0, b"NET        ", 10);
        // Three entries each, behind the two that are there.
        let names: Vec<_> = (0..20).map(|index| format!("net/a-long-name-{index:02}")).collect();
        let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        disk.place_files(&wanted).unwrap();
        let chain = disk.clusters(10);
        assert_eq!(chain.len(), 4, "62 entries of 16 in a cluster");
        let bytes: Vec<_> = chain
            .iter()
            .flat_map(|cluster| disk.bytes[disk.place(*cluster)..][..SECTOR].to_vec())
            .collect();
        let shorts = bytes.chunks(32).filter(|entry| entry[11] == 0x20);
        let shorts: Vec<_> = shorts.map(|entry| entry[..8].to_vec()).collect();
        assert_eq!(shorts.len(), 20);
        assert_eq!(shorts[8], b"A-LONG~9".map(|byte| if byte == b'-' { b'_' } else { byte }));
        assert_eq!(shorts[19], b"A_LON~20");
        assert!(bytes[62 * 32..].iter().all(|byte| *byte == 0));
        disk.assert_tables_are_equal();
    }
}

#[test]
fn gaps_are_used_when_there_is_no_room_behind() {
    let mut disk = Disk::new(Width::Fat12, 400);
    let root = disk.root();
    for slot in 0..31 {
        let name = format!("FILE{slot:02}  TXT");
        disk.add(root + 32 * slot, name.as_bytes().try_into().unwrap(), 0x20, 0, 0);
    }
    for slot in [3, 9, 10, 20, 21, 22] {
        disk.bytes[root + 32 * slot] = 0xe5;
    }
    // One slot is free at the end, and the first gap of two lies at 9.
    disk.place_files(&[("new", 0)]).unwrap();
    assert_eq!(disk.bytes[root + 32 * 10..][..11], *b"NEW~1      ");
    disk.place_files(&[("a-longer-name.txt", 0)]).unwrap();
    assert_eq!(disk.bytes[root + 32 * 22..][..11], *b"A_LONG~1TXT");
    let why = disk.refusal(&[("x", 0)]);
    let figures =
        "its root directory has room for 32 entries, and no 2 in a row are free for x; take";
    assert!(why.contains(figures), "{why}");
    // The last slot is used with the one before it.
    disk.bytes[root + 32 * 30] = 0xe5;
    disk.place_files(&[("x", 0)]).unwrap();
    assert_eq!(disk.bytes[root + 32 * 31..][..11], *b"X~1        ");
}

#[test]
fn new_entries_lie_behind_all_others_where_there_is_room() {
    let mut disk = with_old(Width::Fat16);
    let root = disk.root();
    disk.bytes[root + 64] = 0xe5;
    disk.bytes[root] = 0xe5;
    disk.chain(&[8]);
    disk.place_files(&[("a", 0)]).unwrap();
    assert_eq!(disk.bytes[root + 32 * 4..][..11], *b"A~1        ");
}

#[test]
fn a_name_is_found_by_its_long_or_its_short_form_and_by_nothing_else() {
    let mut disk = with_old(Width::Fat16);
    let root = disk.root();
    disk.add(root + 3 * 32, b"NAME~1     ", 0x20, 0, 0);
    let sum = checksum(b"NAME~1     ");
    // A part of no file: its checksum is another one's.
    for (sum, wanted) in [(sum, "Name-1"), (sum, "name~1"), (sum ^ 1, "NAME~1")] {
        let mut disk = Disk { bytes: disk.bytes.clone(), ..disk };
        disk.bytes[root + 64..root + 96].copy_from_slice(&name::part("name-1", 1, sum));
        let names = disk.names(root);
        disk.place_files(&[(wanted, 5)]).unwrap();
        assert_eq!(disk.names(root), names, "{wanted}");
    }
    disk.bytes[root + 64..root + 96].copy_from_slice(&name::part("name-1", 1, sum ^ 1));
    // A new file then, and its short name is taken. The label is nobody's name.
    disk.place_files(&[("name-1", 5), ("LABEL", 0)]).unwrap();
    let names = ["LABEL      ", "OLD     TXT", "NAME~1     ", "NAME_1~1   ", "LABEL~1    "];
    assert_eq!(disk.names(root), names);
    disk.place_files(&[("name.x", 5), ("name", 5)]).unwrap();
    assert_eq!(disk.names(root)[5..], ["NAME~1  X  ", "NAME~2     "]);
}

#[test]
fn two_wanted_names_for_one_file_are_refused() {
    for wanted in [
        [("a/x", 1), ("A/X", 1)],
        [("config.json", 1), ("CONFIG~1.JSO", 1)],
        [("system-proxy/a", 1), ("SYSTEM~1/b", 1)],
        [("d/a", 1), ("D", 1)],
    ] {
        let why = Disk::new(Width::Fat16, 4100).refusal(&wanted);
        assert!(why.contains("same to FAT") || why.contains("name of a file: D"), "{why}");
    }
    // Another case of a directory is the same directory.
    let mut disk = Disk::new(Width::Fat16, 4100);
    disk.place_files(&[("a/x", 1), ("A/y", 1)]).unwrap();
    assert_eq!(disk.names(disk.root()), ["A~1        "]);
}

#[test]
fn what_is_in_the_way_is_refused_by_name() {
    let mut disk = with_old(Width::Fat16);
    disk.add_directory(3, b"NET        ", 20);
    let why = disk.refusal(&[("old.txt/a", 1)]);
    assert!(why.contains("a file has the name of a directory: old.txt; give"), "{why}");
    let why = disk.refusal(&[("net", 1)]);
    assert!(why.contains("a directory has the name of a file: net; give"), "{why}");
}

#[test]
fn more_than_the_memory_holds_is_refused() {
    let disk = || Disk::new(Width::Fat16, 6000);
    let why = disk().refusal(&[("a/x", 0), ("b/x", 0), ("c/x", 0), ("d/x", 0)]);
    assert!(why.contains("more than 3 directories; give"), "{why}");
    disk().place_files(&[("a/x", 0), ("b/x", 0), ("c/x", 0), ("x", 0)]).unwrap();
    let names: Vec<_> = (0..129).map(|index| index.to_string()).collect();
    let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let why = disk().refusal(&wanted);
    assert!(why.contains("129 files are more than 128; give"), "{why}");
    let names: Vec<_> = (0..128).map(|index| format!("d/{index:03}{:0200}", 0)).collect();
    let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let why = disk().refusal(&wanted);
    assert!(why.contains("would change in over 128 sectors; give"), "{why}");
    // A directory of 512 clusters, and one more.
    for (last, is_taken) in [(512 + 99, true), (512 + 100, false)] {
        let mut disk = disk();
        disk.add_directory(0, b"D          ", 100);
        disk.chain(&(100..=last).collect::<Vec<_>>());
        let why = disk.place_files(&[("d/a", 1)]);
        assert_eq!(why.is_ok(), is_taken);
        let text = "its directories take more than 512 clusters; take";
        assert!(is_taken || why.as_ref().is_err_and(|why| why.contains(text)), "{why:?}");
    }
    let mut disk = disk();
    (2..6002).step_by(2).for_each(|cluster| disk.set(cluster, 0xfff7));
    disk.place_files(&[("a", 250 * 512)]).unwrap();
    let why = disk.refusal(&[("b", 257 * 512)]);
    assert!(why.contains("in over 256 pieces on it; give"), "{why}");
}

#[test]
fn a_damaged_volume_is_refused() {
    /// What is damaged, and what is said.
    type Case = (fn(&mut Disk), &'static str);
    let cases: [Case; 10] = [
        (|disk| disk.set(6, 5), "two chains lead to the same cluster"),
        (|disk| disk.set(7, 0), "a chain leads to a cluster that is free"),
        (|disk| disk.set(7, 450), "or is not there"),
        (|disk| disk.set(7, 1), "or is not there"),
        (|disk| disk.set(6, 20), "two chains lead to the same cluster"),
        (|disk| disk.put_byte(32 + 26, 1), "a chain leads to a cluster that there is not"),
        (|disk| disk.set(20, 20), "the chain of a directory loops or meets"),
        (|disk| disk.set(20, 2), "the chain of a directory loops or meets"),
        (|disk| disk.put_byte(96 + 26, 0), "a directory has no cluster"),
        (|disk| disk.put_byte(32 * 7, b'X'), "a directory goes on behind its end mark"),
    ];
    for (damage, why) in cases {
        let mut disk = with_old(Width::Fat32);
        disk.add_directory(3, b"NET        ", 20);
        disk.place_files(&[("net/a", 1)]).unwrap();
        damage(&mut disk);
        let said = disk.refusal(&[("old.txt", 2000), ("net/b", 1)]);
        assert!(said.contains(why) && said.contains("it is damaged"), "{said}");
        // Shorter: the rest is given back.
        let said = disk.refusal(&[("old.txt", 1), ("net/b", 1)]);
        assert!(said.contains("it is damaged"), "{said}");
    }
    // An empty slot behind the end mark, deleted or not, is none.
    let mut disk = with_old(Width::Fat32);
    let root = disk.root();
    disk.bytes[root + 32 * 7] = 0xe5;
    disk.place_files(&[("a", 1)]).unwrap();
}

#[test]
fn unusual_volumes_are_refused() {
    type Case = (fn(&mut Disk), &'static str);
    let cases: [Case; 4] = [
        (|disk| disk.bytes[40] = 0x80, "no copies of each other"),
        (|disk| disk.bytes[42] = 1, "later version"),
        (|disk| disk.bytes[17] = 1, "its root directory ends within a sector"),
        (|disk| disk.bytes[44] = 0, "a directory has no cluster"),
    ];
    for (change, why) in cases {
        let mut disk = Disk::new(Width::Fat32, 400);
        change(&mut disk);
        let said = disk.refusal(&[("a", 1)]);
        assert!(said.contains(why), "{said}");
    }
    let mut disk = Disk::new(Width::Fat32, 400);
    let mut fat = disk.fat();
    let mut memory = Box::new(Memory::new());
    let wanted = [Wanted { path: "a", length: 1 }];
    let mut plan_for = |fat: &Fat| {
        let error = plan(&mut disk.bytes, fat, &wanted, STAMP, &mut memory).unwrap_err();
        let text: Text<600> = crate::text!("{}", error);
        text.to_string()
    };
    fat.start = 2 << 40;
    assert!(plan_for(&fat).contains("it ends behind 2 TiB"));
    (fat.start, fat.clusters, fat.table_length) = (0, 1 << 24, 1 << 26);
    assert!(plan_for(&fat).contains("its table is longer than 8.0 MiB"));
}

#[test]
fn information_that_is_none_stays_and_the_hint_is_the_last_that_was_taken() {
    let mut disk = Disk::new(Width::Fat32, 400);
    disk.bytes[SECTOR + 484] ^= 1;
    let before = disk.bytes[SECTOR..2 * SECTOR].to_vec();
    let numbers = disk.place_files(&[("a", 600)]).unwrap();
    assert!(before == disk.bytes[SECTOR..2 * SECTOR] && !numbers.contains(&1));
    // The kernel looks into sector 1 when none is named.
    for number in [1, 0] {
        let mut disk = Disk::new(Width::Fat32, 400);
        disk.bytes[48] = number;
        disk.place_files(&[("a", 600)]).unwrap();
        assert_eq!(little_endian::<4>(&disk.bytes, SECTOR + 488), 400 - 3);
        assert_eq!(little_endian::<4>(&disk.bytes, SECTOR + 492), 4);
    }
}

#[test]
fn one_piece_is_taken_where_there_is_one() {
    let mut disk = Disk::new(Width::Fat16, 4100);
    (2..60).step_by(2).for_each(|cluster| disk.set(cluster, 0xffff));
    disk.place_files(&[("a", 2000)]).unwrap();
    assert_eq!(disk.clusters(disk.list(disk.root())[0].1), [59, 60, 61, 62]);
}

#[test]
fn a_second_table_that_differs_becomes_equal_where_the_first_changes() {
    let mut disk = Disk::new(Width::Fat16, 4100);
    let second = (RESERVED + disk.length) * SECTOR;
    disk.bytes[second + 100] = 7;
    disk.place_files(&[("a", 1)]).unwrap();
    disk.assert_tables_are_equal();
}

/// Counts how often it is read at a place before the last one, tables aside.
struct Counted {
    bytes: Vec<u8>,
    tables: core::ops::Range<u64>,
    last: u64,
    backward: usize,
}

impl ReadAt for Counted {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if !self.tables.contains(&offset) {
            self.backward += usize::from(offset <= self.last);
            self.last = offset;
        }
        self.bytes.read_exact_at(offset, buffer)
    }
}

#[test]
fn everything_but_the_tables_is_read_once_and_forward() {
    for mut disk in Disk::of_each_kind() {
        disk.add_directory(0, b"SECOND     ", 9);
        disk.add_directory(1, b"FIRST      ", 5);
        let fat = disk.fat();
        let tables = fat.table..fat.table + fat.table_length;
        let mut disk = Counted { bytes: disk.bytes, tables, last: 0, backward: 0 };
        let paths = ["second/a", "first/a", "third/a", "a"];
        let wanted = paths.map(|path| Wanted { path, length: 1000 });
        let mut memory = Box::new(Memory::new());
        plan(&mut disk, &fat, &wanted, STAMP, &mut memory).unwrap();
        assert_eq!(disk.backward, 0);
        assert_eq!(disk.last, fat.place(9), "no content is read");
    }
}

#[test]
fn a_memory_is_used_again() {
    let mut disk = Disk::new(Width::Fat16, 4100);
    let (fat, mut memory) = (disk.fat(), Box::new(Memory::new()));
    let mut count = |path| {
        let wanted = [Wanted { path, length: 5000 }];
        plan(&mut disk.bytes, &fat, &wanted, STAMP, &mut memory).unwrap();
        let mut count = 0;
        for_each(&fat, &memory, &mut |_, _| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    };
    // Its sectors, one of the directory, one of each table.
    assert_eq!(count("a"), 10 + 3);
    assert_eq!(count("a"), 10 + 3);
    assert_eq!(count("d/a"), 10 + 4);
}
