//! The partition table of a disk, whichever kind it is.

use super::partition::READING;
pub use super::partition::{Bios, Kind, MAX_PARTITIONS, Partition, SECTOR, Table};
use super::reader::ReadAt;
use super::{content, gpt, mbr};
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

/// Reads the partition table of a disk of `length` bytes.
pub fn read(disk: &mut dyn ReadAt, length: u64) -> Result<Table, Error> {
    let mut table = begin(disk, length)?;
    table.finish(disk, length)?;
    Ok(table)
}

/// Reads what lies at the front of a disk of `length` bytes: a GPT, or the primary partitions. The logical ones are
/// read as [`Table::nth`] comes to them, and the last ones by [`Table::finish`]: each record lies before its partition,
/// and a packed image should be read forward once.
pub fn begin(disk: &mut dyn ReadAt, length: u64) -> Result<Table, Error> {
    let mut sector = [0; SECTOR as usize];
    if length < SECTOR {
        return Err(missing());
    }
    disk.read_exact_at(0, &mut sector)?;
    let table = read_front(disk, &sector);
    // Of a disk, something lies behind its first sector, be there a volume's boot code in it.
    let is_disk = match &table {
        Ok(table) => table.partitions.iter().any(|partition| partition.start > 0),
        Err(_) => mbr::is_protective(&sector),
    };
    if !is_disk && let Some(what) = content::of(disk, length, table.is_ok())? {
        let why: Text<80> = crate::text!("it is {}, not a disk image", what);
        return Err(Error::refused(READING, "", &why)
            .advice("give the image of a whole disk, with its partition table"));
    }
    let table = table?;
    table.lies_within(length)?;
    Ok(table)
}

fn read_front(disk: &mut dyn ReadAt, sector: &[u8]) -> Result<Table, Error> {
    let mut table = Table::empty();
    if little_endian::<2>(sector, 510) != 0xaa55 {
        return Err(missing());
    }
    table.signature = mbr::signature(sector);
    table.bios = mbr::bios(sector);
    if mbr::is_protective(sector) {
        table.kind = Kind::Gpt;
        gpt::read(disk, &mut table)?;
    } else {
        mbr::read(sector, &mut table)?;
    }
    if table.partitions.is_empty() {
        return Err(missing());
    }
    Ok(table)
}

impl Table {
    /// The partition at `index`, counted from 0 in the order of the table; nothing behind the last.
    pub fn nth(&mut self, disk: &mut dyn ReadAt, index: usize) -> Result<Option<Partition>, Error> {
        while self.partitions.len() <= index && mbr::read_on(disk, self)? {}
        Ok(self.partitions.get(index).cloned())
    }

    /// Reads what is left of the table of a disk of `length` bytes, and checks that all partitions lie on it.
    pub fn finish(&mut self, disk: &mut dyn ReadAt, length: u64) -> Result<(), Error> {
        while mbr::read_on(disk, self)? {}
        self.lies_within(length)
    }

    /// Of `length` bytes there are, every partition ends among them: what a broken copy of a disk has lost would be
    /// missing where it is written, too.
    pub fn lies_within(&self, length: u64) -> Result<(), Error> {
        let last = self.partitions.iter().max_by_key(|partition| partition.end());
        let Some(last) = last.filter(|last| last.end() > length) else {
            return Ok(());
        };
        let why: Text<200> = crate::text!(
            "it is cut short: partition {} begins at byte {} and ends at {}, of {}",
            last.number,
            last.start,
            last.end(),
            length
        );
        Err(Error::refused(READING, "", &why).advice(
            "copy or download it again; one that was trimmed on purpose is whole again after `truncate -s BYTES FILE`, \
             with that end, before it is packed",
        ))
    }
}

fn missing() -> Error {
    let advice = if crate::IS_WHOLE {
        "it is not the image of a whole disk: is it packed twice, an archive, a program, or a file system alone?"
    } else {
        "it is not a whole disk"
    };
    Error::refused(READING, "", "there is none").advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{ext4, fat};

    #[test]
    fn no_table_is_refused() {
        let mut disk = vec![0u8; 4096];
        assert!(read(&mut disk, 4096).is_err());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(read(&mut disk, 4096).is_err(), "a signature without a partition");
        assert!(read(&mut Vec::new(), 0).is_err());
    }

    fn refusal(disk: &mut Vec<u8>) -> String {
        let length = disk.len() as u64;
        let text: Text<600> = crate::text!("{}", read(disk, length).err().unwrap());
        text.to_string()
    }

    #[test]
    fn a_file_system_is_no_disk() {
        let mut volume = fat::tests::volume_of("resin-boot", &[]);
        volume[510..512].copy_from_slice(&[0x55, 0xaa]);
        // As mkfs.fat makes it of a whole disk, without a table and with one.
        assert!(refusal(&mut volume).contains("a file system (FAT), not a disk image"));
        mbr::tests::put(&mut volume, 0, 0, (0x01, 0, 100));
        assert!(refusal(&mut volume).contains("a file system (FAT), not a disk image"));
        // A real table, with boot code that looks like that of a volume.
        mbr::tests::put(&mut volume, 0, 1, (0x83, 8, 8));
        let length = volume.len() as u64;
        assert_eq!(read(&mut volume, length).unwrap().partitions.len(), 2);

        let mut ext = vec![0; 8192];
        ext4::tests::format(&mut ext, 0, "");
        assert!(refusal(&mut ext).contains("a file system (ext4), not a disk image"));
        mbr::tests::put(&mut ext, 0, 0, (0x83, 8, 8));
        assert!(read(&mut ext, 8192).is_ok(), "what is left of an older file system");

        for (name, what) in [(b"NTFS    ", "(NTFS)"), (b"EXFAT   ", "(exFAT)")] {
            // Text where the table would be.
            let mut volume = vec![b'x'; 512];
            volume[3..11].copy_from_slice(name);
            volume[510..].copy_from_slice(&[0x55, 0xaa]);
            assert!(refusal(&mut volume).contains(what), "{what}");
        }
    }

    #[test]
    fn what_else_is_no_disk_is_named() {
        for (at, magic, what) in content::OTHERS {
            let mut bytes = vec![0; at as usize + magic.len()];
            bytes[at as usize..].copy_from_slice(magic);
            bytes.resize(bytes.len().max(512), 0);
            let why = refusal(&mut bytes);
            assert!(why.contains(what) && why.contains("not a disk image"), "{why}");
        }
    }

    #[test]
    fn a_hybrid_image_of_a_cd_is_a_disk() {
        let mut disk = mbr::tests::disk(&[(0x17, 0, 100)], 100);
        disk[32_769..32_774].copy_from_slice(b"CD001");
        assert_eq!(read(&mut disk, 100 * SECTOR).unwrap().partitions.len(), 1);
        disk[450] = 0;
        assert!(refusal(&mut disk).contains("ISO 9660"));
    }

    #[test]
    fn a_partition_that_the_image_does_not_hold_to_its_end_is_refused() {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 4)], 16);
        for whole in [16 * SECTOR, 12 * SECTOR] {
            assert_eq!(read(&mut disk, whole).unwrap().end(), 12 * SECTOR);
        }
        for cut in [12 * SECTOR - 1, 9 * SECTOR, 8 * SECTOR, 2 * SECTOR] {
            let text: Text<600> = crate::text!("{}", read(&mut disk, cut).err().unwrap());
            assert!(text.contains("cut short: partition 1") && text.contains("6144"), "{}", &*text);
        }
        let mut disk = gpt::tests::disk(&[("a", 40, 47), ("b", 48, 199)]);
        assert!(read(&mut disk, 200 * SECTOR).is_ok(), "the table at the end is not needed");
        assert!(read(&mut disk, 200 * SECTOR - 1).is_err());
        let mut disk = gpt::tests::disk(&[("a", 40, (1 << 55) - 1)]);
        assert!(read(&mut disk, 256 * SECTOR).is_err(), "an end beyond all numbers");
    }

    #[test]
    fn an_extended_partition_may_end_where_it_likes() {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 4), (0x0f, 16, 1 << 30)], 32);
        disk[16 * 512 + 510..17 * 512].copy_from_slice(&[0x55, 0xaa]);
        let table = read(&mut disk, 32 * SECTOR).unwrap();
        assert_eq!(table.end(), 18 * SECTOR);
        assert!(read(&mut disk, 17 * SECTOR).is_err(), "it is not there at all");
    }
}
