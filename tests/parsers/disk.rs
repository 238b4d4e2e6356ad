//! Partition tables, file systems and the layout of an image, over a disk that is the input.
//!
//! Where a checksum or a signature would stop the fuzzer, the input is tried twice: as it is, and with those put right.

use std::sync::Mutex;
use takeover::balena::layout;
use takeover::boot_blob::BootBlob;
use takeover::crc32;

use takeover::disk::fat::patch::{self, Content, Memory, Wanted};
use takeover::disk::reader::ReadAt;
use takeover::disk::table::{Kind, Partition, Table};
use takeover::disk::{ext4, fat, table};
use takeover::error::Error;

const SECTOR: usize = 512;

/// The input as a disk. Ends the run when a parser reads for ever.
struct Disk<'a> {
    bytes: &'a [u8],
    reads: usize,
}

/// More than a root directory of 65,536 entries with a table entry before each.
const MOST_READS: usize = 200_000;

impl ReadAt for Disk<'_> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.reads += 1;
        assert!(self.reads < MOST_READS, "a parser reads for ever");
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(buffer.len());
        let bytes = self.bytes.get(range).ok_or_else(|| Error::refused("reading", "it", "end"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

fn disk(bytes: &[u8]) -> Disk<'_> {
    Disk { bytes, reads: 0 }
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn put(bytes: &mut [u8], at: usize, content: &[u8]) {
    bytes[at..at + content.len()].copy_from_slice(content);
}

/// Reads the table and checks what holds for both kinds.
fn read_table(bytes: &[u8]) -> Option<Table> {
    let table = table::read(&mut disk(bytes), bytes.len() as u64).ok()?;
    assert!(!table.partitions.is_empty());
    let mut end = 0;
    let mut before = 0;
    for partition in &table.partitions {
        assert!(partition.start.is_multiple_of(512) && partition.length.is_multiple_of(512));
        assert!(partition.length > 0);
        assert!(partition.number > before, "numbers grow");
        before = partition.number;
        end = end.max(u128::from(partition.start) + u128::from(partition.length));
    }
    assert!(end <= bytes.len() as u128, "a partition behind the end");
    assert_eq!(u128::from(table.end()), end);
    Some(table)
}

/// MBR: the primary partitions are those of the first sector, the logical ones are numbered from 5.
pub fn mbr(bytes: &[u8]) -> bool {
    let mut signed = bytes.to_vec();
    for sector in signed.chunks_exact_mut(SECTOR) {
        put(sector, 510, &[0x55, 0xaa]);
    }
    if let Some(sector) = signed.first_chunk_mut::<SECTOR>() {
        (0..4).for_each(|index| sector[446 + 16 * index] &= 0x80);
    }
    let taken = mbr_once(bytes);
    mbr_once(&signed);
    taken
}

fn mbr_once(bytes: &[u8]) -> bool {
    let Some(table) = read_table(bytes).filter(|table| table.kind == Kind::Mbr) else {
        return false;
    };
    let mut partitions = table.partitions.iter();
    for index in 0..4 {
        let at = 446 + 16 * index;
        let (start, sectors) = (number(bytes, at + 8, 4), number(bytes, at + 12, 4));
        if bytes[at + 4] != 0 && sectors != 0 {
            let partition = partitions.next().expect("a primary partition is missing");
            assert_eq!(partition.number as usize, index + 1);
            let is_extended = [0x05, 0x0f, 0x85].contains(&bytes[at + 4]);
            let sectors = if is_extended { sectors.min(2) } else { sectors };
            assert_eq!((partition.start, partition.length), (start * 512, sectors * 512));
        }
    }
    for (number, partition) in (5..).zip(partitions) {
        assert_eq!(partition.number, number);
    }
    true
}

/// GPT: the partitions are the entries with a type, with their places and names.
pub fn gpt(bytes: &[u8]) -> bool {
    let taken = gpt_once(bytes);
    if let Some(mended) = mended_gpt(bytes) {
        gpt_once(&mended);
    }
    taken
}

fn gpt_once(bytes: &[u8]) -> bool {
    let Some(table) = read_table(bytes).filter(|table| table.kind == Kind::Gpt) else {
        return false;
    };
    let first = number(bytes, SECTOR + 72, 8) as usize * SECTOR;
    let (count, size) = (number(bytes, SECTOR + 80, 4), number(bytes, SECTOR + 84, 4));
    // What Linux demands: is_gpt_valid() in block/partitions/efi.c.
    assert_eq!((number(bytes, SECTOR + 24, 8), size), (1, 128));
    let (first_usable, last_usable) =
        (number(bytes, SECTOR + 40, 8), number(bytes, SECTOR + 48, 8));
    assert!(first_usable <= last_usable);
    assert_eq!(table.usable_end, last_usable.saturating_add(1).saturating_mul(512));
    let mut partitions = table.partitions.iter();
    for index in 0..count as usize {
        let entry = &bytes[first + index * size as usize..][..size as usize];
        if entry[..16] != [0; 16] {
            let partition = partitions.next().expect("an entry was left out");
            assert_eq!(partition.number as usize, index + 1);
            is_entry(entry, partition);
        }
    }
    assert!(partitions.next().is_none(), "a partition without an entry");
    true
}

fn is_entry(entry: &[u8], partition: &Partition) {
    let (first, last) = (number(entry, 32, 8), number(entry, 40, 8));
    assert_eq!(partition.start, first * 512);
    assert_eq!(partition.length, (last - first + 1) * 512);
    let units = entry[56..128].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let characters = char::decode_utf16(units.take_while(|unit| *unit != 0));
    // What would move a terminal's cursor is not the name's own.
    let shown =
        characters.map(|character| character.ok().filter(|one| !one.is_control()).unwrap_or('?'));
    let name: String = shown.collect();
    assert_eq!(&*partition.name, &name[..name.floor_char_boundary(36)]);
}

/// A copy with a protective MBR, signatures, right CRCs and what else Linux demands of a header.
fn mended_gpt(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut disk = bytes.to_vec();
    if disk.len() < 3 * SECTOR {
        return None;
    }
    put(&mut disk, 446, &[0, 0, 0, 0, 0xee]);
    put(&mut disk, 510, &[0x55, 0xaa]);
    put(&mut disk, SECTOR, b"EFI PART");
    let length = number(&disk, SECTOR + 12, 4).clamp(92, 512) as usize;
    put(&mut disk, SECTOR + 12, &(length as u32).to_le_bytes());
    put(&mut disk, SECTOR + 24, &1u64.to_le_bytes());
    put(&mut disk, SECTOR + 40, &[0; 8]);
    put(&mut disk, SECTOR + 84, &128u32.to_le_bytes());
    let first = number(&disk, SECTOR + 72, 8).checked_mul(512)? as usize;
    let length_of_entries = number(&disk, SECTOR + 80, 4) * number(&disk, SECTOR + 84, 4);
    let entries = disk.get(first..)?.get(..length_of_entries as usize)?;
    let crc = crc32::crc32(entries).to_le_bytes();
    put(&mut disk, SECTOR + 88, &crc);
    put(&mut disk, SECTOR + 16, &[0; 4]);
    let crc = crc32::crc32(&disk[SECTOR..SECTOR + length]).to_le_bytes();
    put(&mut disk, SECTOR + 16, &crc);
    Some(disk)
}

/// FAT: label and files read the same twice, and never outside the disk.
pub fn fat(bytes: &[u8]) -> bool {
    let taken = fat_once(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= SECTOR {
        mend_boot_sector(&mut mended);
        fat_once(&mended);
    }
    taken
}

/// What every FAT has: a jump, sectors of 512 bytes, a medium, a signature.
fn mend_boot_sector(disk: &mut [u8]) {
    disk[0] = 0xeb;
    put(disk, 11, &[0, 2]);
    disk[21] = 0xf8;
    put(disk, 510, &[0x55, 0xaa]);
}

fn fat_once(bytes: &[u8]) -> bool {
    let disk = &mut disk(bytes);
    let Ok(Some(fat)) = fat::open(disk, 0) else {
        return false;
    };
    let free = fat.free(disk);
    let mut found = [None; 3];
    let names = ["device-type.json", "DEVICE-TYPE.JSON", "absent"];
    let Ok(label) = fat.find_all(disk, &names, &mut found) else {
        return false;
    };
    super::assert_printable(&label);
    assert_eq!(found[0], found[1]);
    let Some(file) = found[0] else {
        return free.is_ok();
    };
    let Ok(place) = fat.locate(disk, file, 4096) else {
        return true;
    };
    let (mut whole, mut part) = ([0; 4096], [0; 100]);
    let Ok(length) = fat.read(disk, &place, &mut whole) else {
        return true;
    };
    assert_eq!(length, whole.len().min(file.length as usize));
    // A shorter part of what could be read can be read, too.
    let place = fat.locate(disk, file, part.len()).unwrap();
    let shorter = fat.read(disk, &place, &mut part).unwrap();
    assert_eq!(part[..shorter], whole[..shorter]);
    true
}

/// Files placed on a FAT: what is planned lies in the volume, in order, and once it is there another plan for the same
/// files changes nothing.
pub fn fat_patch(bytes: &[u8]) -> bool {
    let taken = fat_patch_once(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= SECTOR {
        mend_boot_sector(&mut mended);
        // As long as the input.
        put(&mut mended, 19, &((bytes.len() / SECTOR) as u16).to_le_bytes());
        fat_patch_once(&mended);
    }
    taken
}

fn fat_patch_once(bytes: &[u8]) -> bool {
    let mut once = bytes.to_vec();
    let Some(is_whole) = apply_plan(&mut once) else {
        return false;
    };
    assert_eq!(once[..SECTOR], bytes[..SECTOR], "the boot sector changes");
    if is_whole {
        let mut twice = once.clone();
        assert!(apply_plan(&mut twice).is_some(), "it is refused the second time");
        assert!(once == twice, "the second time something changes");
    }
    true
}

/// All zeros, so none of the heap.
static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());

/// Plans for three files and puts that on the disk. Nothing when it is refused, true when the volume lies in the input.
fn apply_plan(bytes: &mut [u8]) -> Option<bool> {
    let files: [(&str, &[u8]); 3] =
        [("config.json", &[b'{'; 600]), ("grüße/😀 of a long name", &[7; 10]), ("grüße/b", &[])];
    let wanted = files.map(|(path, file)| Wanted { path, length: file.len() as u32 });
    let memory = &mut *MEMORY.lock().unwrap();
    let disk = &mut disk(bytes);
    let fat = fat::open(disk, 0).ok()??;
    patch::plan(disk, &fat, &wanted, 0x0021_0000, memory).ok()?;
    let mut end = SECTOR;
    patch::for_each(&fat, memory, &mut |number, content| {
        let at = number as usize * SECTOR;
        assert!(at >= end && at + SECTOR <= fat.length() as usize, "sector {number}");
        end = at + SECTOR;
        let Some(place) = bytes.get_mut(at..end) else {
            return Ok(());
        };
        place.fill(0);
        match content {
            Content::Bytes(bytes) => place.copy_from_slice(bytes),
            Content::Zeros => {}
            Content::File { index, offset } => {
                let rest = &files[usize::from(index)].1[offset as usize..];
                put(place, 0, &rest[..rest.len().min(SECTOR)]);
            }
        }
        Ok(())
    })
    .unwrap();
    Some(fat.length() <= bytes.len() as u64)
}

/// ext2, ext3, ext4: the label is that of the superblock.
pub fn ext4(bytes: &[u8]) -> bool {
    let taken = ext4_once(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= 1024 + 0x100 {
        put(&mut mended, 1024 + 56, &[0x53, 0xef]);
        // Revision 1, inodes of 128 bytes, none of the features that are never mounted.
        put(&mut mended, 1024 + 0x4c, &[1, 0, 0, 0]);
        put(&mut mended, 1024 + 0x58, &[128, 0]);
        mended[1024 + 0x60] &= !0x89;
        mended[1024 + 0xe0] |= 8;
        ext4_once(&mended);
    }
    taken
}

fn ext4_once(bytes: &[u8]) -> bool {
    let Ok(Some(superblock)) = ext4::open(&mut disk(bytes), 0) else {
        return false;
    };
    assert!(superblock.free <= superblock.length);
    assert!(superblock.inode_size <= superblock.block_size);
    let label = superblock.label;
    super::assert_printable(&label);
    let name = &bytes[1024 + 120..1024 + 136];
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name.iter().all(|byte| byte.is_ascii_graphic()) {
        assert_eq!(label.as_bytes(), name);
    }
    true
}

/// The boot partition of an image: one of its table, with a device type that can be shown.
pub fn layout(bytes: &[u8]) -> bool {
    let taken = layout_once(bytes);
    if let Some(mended) = mended_gpt(bytes) {
        layout_once(&mended);
    }
    let mut mended = bytes.to_vec();
    let Some(sector) = mended.first_chunk_mut::<SECTOR>() else {
        return taken;
    };
    put(sector, 510, &[0x55, 0xaa]);
    (0..4).for_each(|index| sector[446 + 16 * index] &= 0x80);
    // The first partition begins in the second sector and is a FAT.
    put(sector, 446 + 8, &[1, 0, 0, 0]);
    if let Some(boot) = mended.get_mut(SECTOR..2 * SECTOR) {
        mend_boot_sector(boot);
        layout_once(&mended);
    }
    taken
}

fn layout_once(bytes: &[u8]) -> bool {
    let Some(mut table) = read_table(bytes) else {
        return false;
    };
    let Ok(found) = layout::find_boot(&mut disk(bytes), &mut table) else {
        return false;
    };
    let place = (found.boot_number, found.boot_start, found.boot_length);
    assert!(table.partitions.iter().any(|p| (p.number, p.start, p.length) == place));
    super::assert_printable(&found.device_type);
    super::assert_printable(&found.version);
    assert!(found.boot_free.is_none_or(|free| free <= found.boot_length), "{found:?}");
    if let Ok(Some(data)) = layout::find_data(&mut disk(bytes), &mut table, &found) {
        let place = (data.number, data.start, data.length);
        assert!(table.partitions.iter().any(|p| (p.number, p.start, p.length) == place));
        assert!(data.free <= data.length);
    }
    assert!(found.boot_length >= 4096 || found.file_system.is_none());
    // The same with a table that is read on as it is needed.
    let disk = &mut disk(bytes);
    let mut begun = table::begin(disk, bytes.len() as u64).unwrap();
    let again = layout::find_boot(disk, &mut begun).unwrap();
    assert_eq!(again.boot_number, found.boot_number);
    begun.finish(disk, bytes.len() as u64).unwrap();
    assert_eq!(begun.partitions.len(), table.partitions.len());
    true
}

/// The record of a boot blob that stage 1 leaves for stage 2: written down again it is the same.
pub fn boot_blob(bytes: &[u8]) -> bool {
    let Some(blob) = BootBlob::from_bytes(bytes) else { return false };
    assert_eq!(blob.to_bytes(), bytes);
    let mut room = 0_u64;
    for extent in &blob.extents {
        assert!(extent.start.checked_add(extent.length).is_some());
        room = room.checked_add(extent.length).expect("a sum");
    }
    assert!(room >= blob.length && blob.area.unit > 0);
    true
}
