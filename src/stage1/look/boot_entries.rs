//! The boot entries that the firmware has, and the room for another. Reads only.

use super::reader::DeviceReader;
use crate::crc32;
use crate::disk::detached::{self, Detached};
use crate::disk::device::Disk;
use crate::disk::table::{self, Kind, Table};
use crate::efi::change::{Gone, MOST};
use crate::efi::load_option::{self, HardDrive, Signature};
use crate::efi::variables::{FOLDER, LOOKED_AT, Variables};
use crate::error::Error;
use crate::files;
use crate::text::{PathText, Text};
use core::ops::ControlFlow;
use rustix::fs::StatVfsMountFlags;

/// Where the variables of the firmware can be read.
pub struct Place {
    /// The folder; only for this process.
    pub path: PathText,
    /// The mount, where nobody else has one.
    _mount: Option<Detached>,
}

impl Place {
    /// Where they are mounted, else mounted out of everybody's sight. Nothing when the kernel shows none: with `noefi`,
    /// as a real-time kernel without `efi=runtime`, or over a firmware that has no such services.
    pub fn find() -> Option<Self> {
        if files::has_entry(FOLDER) {
            return Some(Self { path: PathText::from(FOLDER), _mount: None });
        }
        let mount = detached::mount("efivarfs").ok()?;
        let path = mount.path.clone();
        files::has_entry(&path).then_some(Self { path, _mount: Some(mount) })
    }

    /// True when it is mounted read-only, by somebody or by a kernel that knows that the firmware takes no writes.
    pub fn is_read_only(&self) -> bool {
        // Our own mount says nothing: it is read-only whatever the firmware takes.
        self._mount.is_none()
            && files::space(&self.path)
                .is_ok_and(|space| space.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// The bytes that the kernel lets new variables have; nothing before Linux 6.6, which does not say
    /// (efivarfs_statfs in fs/efivarfs/super.c).
    pub fn room(&self) -> Option<u64> {
        let space = files::space(&self.path).ok().filter(|space| space.f_blocks > 0)?;
        Some(space.f_bavail.saturating_mul(space.f_frsize.max(1)))
    }
}

/// The table that is on the disk now. An error is one of a disk without a table, too.
pub fn table_of(disk: &Disk) -> Result<Table, Error> {
    let path = crate::path!("/dev/{}", disk.name)?;
    table::read(&mut DeviceReader::open(&path)?, disk.size)
}

/// An entry that goes, and its name in the menu of the firmware.
pub struct Found {
    /// The entry.
    pub entry: Gone,
    /// Its name.
    pub name: Text<64>,
}

/// The entries with one of these names, and those that start from a disk with this table. Of more than 16, the first.
/// What cannot be read or makes no sense is left to whoever made it.
pub fn that_go(
    variables: &Variables<'_>,
    labels: &[&str],
    table: Option<&Table>,
) -> Result<heapless::Vec<Found, MOST>, Error> {
    let mut found = heapless::Vec::new();
    variables.for_each_entry(&mut |number| {
        let mut buffer = [0; 4 + LOOKED_AT];
        let bytes = variables.entry(number, &mut buffer).ok().flatten().unwrap_or_default();
        let Some(option) = load_option::parse(bytes) else {
            return ControlFlow::Continue(());
        };
        let is_on_disk = |partition| table.is_some_and(|table| has(table, partition));
        if !labels.contains(&&*option.description) && !option.partition.is_some_and(is_on_disk) {
            return ControlFlow::Continue(());
        }
        let entry = Gone { number, crc: crc32::crc32(bytes) };
        match found.push(Found { entry, name: option.description }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    Ok(found)
}

/// True when the disk with this table has that partition. One without a signature cannot be told from others.
fn has(table: &Table, partition: HardDrive) -> bool {
    let is_it = match partition.signature {
        Signature::Gpt(guid) => table.partitions.iter().any(|other| other.guid == guid),
        Signature::Mbr(signature) => table.kind == Kind::Mbr && table.signature == signature,
    };
    is_it && !partition.signature.is_nothing()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{gpt, mbr};
    use crate::efi::load_option::build;
    use crate::efi::variables::GLOBAL;
    use crate::efi::variables::tests::Folder;

    fn on(signature: Signature) -> HardDrive {
        HardDrive { number: 1, start: 2048, length: 100, signature }
    }

    fn entry(name: &str, signature: Signature) -> Vec<u8> {
        build(name, &on(signature), "\\EFI\\x\\y.efi").unwrap().to_vec()
    }

    fn numbers(folder: &Folder, labels: &[&str], table: Option<&Table>) -> Vec<u16> {
        let variables = Variables { folder: folder.path() };
        let found = that_go(&variables, labels, table).unwrap();
        let mut numbers: Vec<_> = found.iter().map(|found| found.entry.number).collect();
        numbers.sort();
        numbers
    }

    #[test]
    fn entries_of_the_disk_and_of_a_former_balena_os_go_and_no_others() {
        let mut disk = gpt::tests::disk(&[("esp", 40, 47), ("root", 48, 63)]);
        disk[1024 + 16..1024 + 32].copy_from_slice(&[9; 16]);
        disk[1152 + 16..1152 + 32].copy_from_slice(&[7; 16]);
        gpt::tests::seal_entries(&mut disk);
        let gpt = table::read(&mut disk, 256 * 512).unwrap();
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 8)], 64);
        disk[440..444].copy_from_slice(&0x0d15_0001_u32.to_le_bytes());
        let mbr = table::read(&mut disk, 64 * 512).unwrap();
        assert_eq!(mbr.signature, 0x0d15_0001);

        let folder = Folder::new();
        folder.put("Boot0000", &entry("debian", Signature::Gpt([9; 16])));
        // The second partition, with data behind the path.
        let data = [entry("root", Signature::Gpt([7; 16])), vec![1; 5000]].concat();
        folder.put("Boot0001", &data);
        folder.put("Boot0002", &entry("other disk", Signature::Gpt([8; 16])));
        folder.put("Boot0003", &entry("balenaOS", Signature::Gpt([8; 16])));
        folder.put("Boot0004", &entry("resinOS", Signature::Mbr(5)));
        folder.put("Boot0005", &entry("balenaOS 2", Signature::Gpt([8; 16])));
        folder.put("Boot0006", &entry("old PC", Signature::Mbr(0x0d15_0001)));
        folder.put("Boot0007", &entry("nobody's", Signature::Mbr(0)));
        folder.put("Boot0008", &load_option::tests::of_firmware());
        folder.put("Boot0009", b"\x01\x00\x00\x00\xff\xff no entry");
        folder.put("Boot000A", b"");
        std::fs::create_dir(folder.0.join(format!("Boot000B-{GLOBAL}"))).unwrap();

        let labels = ["balenaOS", "resinOS"];
        assert_eq!(numbers(&folder, &labels, Some(&gpt)), [0, 1, 3, 4]);
        assert_eq!(numbers(&folder, &labels, Some(&mbr)), [3, 4, 6]);
        assert_eq!(numbers(&folder, &labels, None), [3, 4]);
        assert_eq!(numbers(&folder, &[], Some(&gpt)), [0, 1]);
        let mut blank = mbr;
        blank.signature = 0;
        assert_eq!(numbers(&folder, &[], Some(&blank)), [] as [u16; 0]);
    }

    #[test]
    fn of_many_entries_as_many_go_as_can_be_noted() {
        let folder = Folder::new();
        for number in 0..=MOST {
            folder.put(&format!("Boot{number:04X}"), &entry("balenaOS", Signature::Mbr(1)));
        }
        assert_eq!(numbers(&folder, &["balenaOS"], None).len(), MOST);
        let nowhere = Variables { folder: "/nowhere" };
        assert!(that_go(&nowhere, &[], None).is_err());
    }
}
