//! Which partition of an image the new OS boots from, where its data goes, and which device the image says it is for.

use super::{json, systems};
use crate::disk::ext4::{self, Superblock};
use crate::disk::fat::{self, Fat, File, Place};
use crate::disk::mounts::FileSystem;
use crate::disk::reader::ReadAt;
use crate::disk::table::{Partition, Table};
use crate::error::Error;
use crate::text::Text;

/// Names and labels of boot partitions.
const BOOT_NAMES: [&str; 3] = ["resin-boot", "flash-boot", "balena-boot"];
/// What the names and labels of the partitions of a flasher begin with.
const FLASHER_PREFIX: &str = "flash-";
/// Name and label of the data partition.
const DATA_NAME: &str = "resin-data";
/// What is looked for on the boot partition: which device the image is for, which version it is, and the mark of an
/// image that writes another one to the disk (balena-image.bb and balena-image-flasher.bb in meta-balena).
const FILES: [&str; 3] = ["device-type.json", "os-release", "balena-image-flasher"];
/// The largest part of device-type.json that is looked at: the slug is among the first keys.
const DEVICE_TYPE_LENGTH: usize = 16 * 1024;

/// What an image is, beyond its bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where the boot partition begins, in bytes.
    pub boot_start: u64,
    /// Its length in bytes.
    pub boot_length: u64,
    /// Its number in the table.
    pub boot_number: u32,
    /// Its file system, when it is one that files can be placed on.
    pub file_system: Option<FileSystem>,
    /// The bytes that are free on it, when they can be counted.
    pub boot_free: Option<u64>,
    /// The device type that the image names, empty when it names none.
    pub device_type: Text<64>,
    /// The version of balenaOS that the image names, empty when it names none.
    pub version: Text<32>,
    /// True when the boot partition is called as balenaOS calls it.
    pub is_named: bool,
    /// True for an image that boots from one medium to write another image to the disk.
    pub is_flasher: bool,
}

impl Layout {
    /// True for an image of balenaOS: a config.json makes it somebody's.
    pub fn is_balena_os(&self) -> bool {
        self.is_named || self.is_flasher || !self.device_type.is_empty()
    }
}

/// The partition that holds the containers and volumes, and a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataPartition {
    /// Its number in the table.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The bytes that files can have on it, before it grows at the first boot.
    pub free: u64,
}

/// Finds the boot partition: by name or label, else as the holder of device-type.json, else the first. The table may
/// be one that was begun: it is read on only when the primary partitions have no such name or label.
pub fn find_boot(disk: &mut impl ReadAt, table: &mut Table) -> Result<Layout, Error> {
    if let Some(partition) = table.partitions.iter().find(|p| is_boot(&p.name)) {
        return look(disk, partition).map(|(layout, _)| layout);
    }
    let mut holder = None;
    let mut first = None;
    let mut index = 0;
    while let Some(partition) = table.nth(disk, index)? {
        index += 1;
        let (layout, label) = look(disk, &partition)?;
        if is_boot(&label) {
            return Ok(layout);
        }
        if holder.is_none() && !layout.device_type.is_empty() {
            holder = Some(layout);
        } else if first.is_none() {
            first = Some(layout);
        }
    }
    holder.or(first).ok_or_else(|| {
        Error::refused("looking for the boot partition of", "the image", "it has no partitions")
    })
}

/// Finds the data partition, by name or label of an ext4 file system. Looks at the partitions while the table is read,
/// from the one behind the boot partition on: forward, where the image is one of balenaOS.
pub fn find_data(
    disk: &mut impl ReadAt,
    table: &mut Table,
    boot: &Layout,
) -> Result<Option<DataPartition>, Error> {
    let named = |partition: &Partition| partition.name.eq_ignore_ascii_case(DATA_NAME);
    let is_named = table.partitions.iter().any(named);
    let mut index = 0;
    while let Some(partition) = table.nth(disk, index)? {
        index += 1;
        let is_fat =
            partition.number == boot.boot_number && boot.file_system == Some(FileSystem::Vfat);
        // Too small for a superblock, or an extended partition.
        if is_fat || is_named && !named(&partition) || partition.length < 4096 {
            continue;
        }
        let Some(superblock) = open_ext4(disk, &partition)? else {
            continue;
        };
        if is_named || superblock.label.eq_ignore_ascii_case(DATA_NAME) {
            let Partition { number, start, length, .. } = partition;
            let free = superblock.free.min(length);
            return Ok(Some(DataPartition { number, start, length, free }));
        }
    }
    Ok(None)
}

/// What a partition holds, and its label.
fn look(disk: &mut impl ReadAt, partition: &Partition) -> Result<(Layout, Text<16>), Error> {
    let mut layout = Layout {
        boot_start: partition.start,
        boot_length: partition.length,
        boot_number: partition.number,
        file_system: None,
        boot_free: None,
        device_type: Text::new(),
        version: Text::new(),
        is_named: is_boot(&partition.name),
        is_flasher: is_of_flasher(&partition.name),
    };
    // Too small for a superblock, or an extended partition: nothing that could be mounted.
    if partition.length < 4096 {
        return Ok((layout, Text::new()));
    }
    let label = match fat::open(disk, partition.start)? {
        Some(fat) => look_into(disk, &fat, &mut layout)?,
        None => match open_ext4(disk, partition)? {
            Some(superblock) => {
                layout.file_system = Some(FileSystem::Ext4);
                layout.boot_free = Some(superblock.free.min(partition.length));
                superblock.label
            }
            None => Text::new(),
        },
    };
    layout.is_named |= is_boot(&label);
    layout.is_flasher |= is_of_flasher(&label);
    Ok((layout, label))
}

/// Called as a boot partition of balenaOS.
fn is_boot(name: &str) -> bool {
    BOOT_NAMES.iter().any(|boot| boot.eq_ignore_ascii_case(name))
}

/// The ext4 file system of a partition. One that is longer than the partition is not mounted by any kernel.
fn open_ext4(disk: &mut impl ReadAt, partition: &Partition) -> Result<Option<Superblock>, Error> {
    let superblock = ext4::open(disk, partition.start)?;
    Ok(superblock.filter(|superblock| superblock.length <= partition.length))
}

fn is_of_flasher(name: &str) -> bool {
    name.get(..FLASHER_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(FLASHER_PREFIX))
}

/// What a FAT partition holds, and its label. First its table, then the root directory, then the files in their order:
/// a packed image is read forward, but for one step back to the table.
fn look_into(disk: &mut impl ReadAt, fat: &Fat, layout: &mut Layout) -> Result<Text<16>, Error> {
    layout.file_system = Some(FileSystem::Vfat);
    let (start, length) = fat.first_table();
    disk.keep(start, length)?;
    layout.boot_free = fat.free(disk)?.map(|free| free.min(layout.boot_length));
    let mut found = [None; FILES.len()];
    let label = fat.find_all(disk, &FILES, &mut found)?;
    let [device_type, os_release, flasher] = found;
    layout.is_flasher |= flasher.is_some();
    let device_type = place(disk, fat, device_type, DEVICE_TYPE_LENGTH)?;
    let os_release = place(disk, fat, os_release, systems::MAX_LENGTH)?;
    let is_in_order = device_type.first() <= os_release.first();
    if is_in_order {
        layout.device_type = slug(disk, fat, &device_type)?;
    }
    layout.version = version(disk, fat, &os_release)?;
    if !is_in_order {
        layout.device_type = slug(disk, fat, &device_type)?;
    }
    Ok(label)
}

/// Where the beginning of a file lies; nowhere when there is no such file.
fn place(
    disk: &mut impl ReadAt,
    fat: &Fat,
    file: Option<File>,
    most: usize,
) -> Result<Place, Error> {
    file.map_or_else(|| Ok(Place::default()), |file| fat.locate(disk, file, most))
}

/// The slug in device-type.json.
fn slug(disk: &mut impl ReadAt, fat: &Fat, place: &Place) -> Result<Text<64>, Error> {
    let mut buffer = [0; DEVICE_TYPE_LENGTH];
    let length = fat.read(disk, place, &mut buffer)?;
    let bytes = buffer.get(..length).unwrap_or_default();
    let mut slug = Text::new();
    let read = json::check_object(bytes, &mut |member| {
        if bytes.get(member.key) == Some(b"slug") {
            let value = bytes.get(member.value).unwrap_or_default();
            let text = value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
            slug = crate::text::printable(text.unwrap_or_default());
        }
    });
    // Cut off at our buffer or oddly written: the slug was seen or was not, and that is all it is good for.
    let _ = read;
    Ok(slug)
}

/// The version in os-release.
fn version(disk: &mut impl ReadAt, fat: &Fat, place: &Place) -> Result<Text<32>, Error> {
    let mut buffer = [0; systems::MAX_LENGTH];
    let length = fat.read(disk, place, &mut buffer)?;
    Ok(systems::System::parse(buffer.get(..length).unwrap_or_default()).version)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::disk::{gpt, mbr, table};

    // Makes an ext4 file system of what lies at a place, with this label.
    pub use crate::disk::ext4::tests::format as ext4;

    #[test]
    fn by_name_in_a_gpt_wherever_it_stands() {
        let mut disk = gpt::tests::disk(&[("vendor", 40, 47), ("resin-boot", 48, 63)]);
        let length = disk.len() as u64;
        let mut table = table::read(&mut disk, length).unwrap();
        let layout = find_boot(&mut disk, &mut table).unwrap();
        assert_eq!((layout.boot_number, layout.boot_start), (2, 48 * 512));
        assert_eq!(layout.file_system, None);
    }

    #[test]
    fn by_label_in_an_mbr_else_the_first() {
        let mut disk = mbr::tests::disk(&[(0x83, 8, 8), (0x83, 16, 8)], 64);
        let length = disk.len() as u64;
        let mut table = table::read(&mut disk, length).unwrap();
        assert_eq!(find_boot(&mut disk, &mut table).unwrap().boot_number, 1);
        ext4(&mut disk, 16 * 512, "resin-boot");
        let layout = find_boot(&mut disk, &mut table).unwrap();
        assert_eq!(layout.boot_number, 2);
        assert_eq!(layout.file_system, Some(FileSystem::Ext4));
        assert!(!layout.is_flasher);
    }

    /// A disk with one FAT partition that holds these files, and its layout.
    fn with_files(label: &str, files: &[(&str, &str)]) -> Layout {
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 200)], 256);
        disk.truncate(8 * 512);
        disk.extend(fat::tests::volume_of(label, files));
        disk.resize(256 * 512, 0);
        let mut table = table::read(&mut disk, 256 * 512).unwrap();
        find_boot(&mut disk, &mut table).unwrap()
    }

    #[test]
    fn what_the_files_of_the_boot_partition_say() {
        let device_type = ("device-type.json", "{\"slug\":\"raspberrypi3\",\"arch\":\"armv7hf\"}");
        let os_release = ("os-release", "ID=\"balena-os\"\nVERSION_ID=\"6.1.25+rev2\"\n");
        for files in [[device_type, os_release], [os_release, device_type]] {
            let layout = with_files("resin-boot", &files);
            assert_eq!(layout.device_type.as_str(), "raspberrypi3");
            assert_eq!(layout.version.as_str(), "6.1.25+rev2");
            assert!(!layout.is_flasher);
            // 195 clusters; the root directory and two files have one each.
            assert_eq!(layout.boot_free, Some((195 - 3) * 512));
            assert_eq!(layout.file_system, Some(FileSystem::Vfat));
        }
        let bare = with_files("data", &[]);
        assert!(bare.device_type.is_empty() && bare.version.is_empty() && !bare.is_flasher);
    }

    #[test]
    fn a_flasher_is_told_by_its_mark_its_label_and_its_name() {
        assert!(with_files("resin-boot", &[("balena-image-flasher", "")]).is_flasher);
        assert!(with_files("flash-boot", &[]).is_flasher);
        assert!(with_files("FLASH-BOOT", &[]).is_flasher);
        assert!(!with_files("resin-boot", &[("balena-image", "")]).is_flasher);
        let mut disk = gpt::tests::disk(&[("flash-boot", 48, 63)]);
        let length = disk.len() as u64;
        let mut table = table::read(&mut disk, length).unwrap();
        assert!(find_boot(&mut disk, &mut table).unwrap().is_flasher);
    }

    #[test]
    fn the_journal_of_another_file_system_is_none_that_files_can_be_placed_on() {
        let mut disk = mbr::tests::disk(&[(0x83, 8, 16), (0x83, 24, 16)], 64);
        for start in [8, 24] {
            ext4(&mut disk, start * 512, "resin-data");
            disk[start * 512 + 1024 + 0x60] = 8;
        }
        let mut table = table::read(&mut disk, 64 * 512).unwrap();
        let boot = find_boot(&mut disk, &mut table).unwrap();
        assert_eq!((boot.boot_number, boot.file_system, boot.boot_free), (1, None, None));
        assert_eq!(find_data(&mut disk, &mut table, &boot).unwrap(), None);
    }

    #[test]
    fn the_data_partition_by_name_or_label_with_what_is_free() {
        // 75 KiB: a partition of 76 KiB holds them, one of 4 KiB does not.
        let counts = |disk: &mut [u8], start: usize| {
            for (at, value) in [(0x4, 75u32), (0x8, 10), (0xc, 60), (0x18, 0)] {
                disk[start + 1024 + at..start + 1028 + at].copy_from_slice(&value.to_le_bytes());
            }
        };
        let mut disk = gpt::tests::disk(&[("resin-boot", 40, 47), ("resin-data", 48, 199)]);
        disk.resize(200 * 512, 0);
        let mut table = table::read(&mut disk, 200 * 512).unwrap();
        let boot = find_boot(&mut disk, &mut table).unwrap();
        assert_eq!(find_data(&mut disk, &mut table, &boot).unwrap(), None, "no file system on it");
        ext4(&mut disk, 48 * 512, "");
        counts(&mut disk, 48 * 512);
        let data = find_data(&mut disk, &mut table, &boot).unwrap().unwrap();
        assert_eq!((data.number, data.start, data.length), (2, 48 * 512, 152 * 512));
        assert_eq!(data.free, (60 - 10 - 1) * 1024);

        let mut disk = mbr::tests::disk(&[(0x83, 8, 8), (0x83, 16, 8), (0x83, 24, 8)], 64);
        let mut table = table::read(&mut disk, 64 * 512).unwrap();
        ext4(&mut disk, 8 * 512, "resin-state");
        ext4(&mut disk, 16 * 512, "resin-data");
        let boot = find_boot(&mut disk, &mut table).unwrap();
        let data = find_data(&mut disk, &mut table, &boot).unwrap().unwrap();
        assert_eq!((data.number, data.free), (2, 0));
        counts(&mut disk, 16 * 512);
        let data = find_data(&mut disk, &mut table, &boot).unwrap();
        assert_eq!(data, None, "it is longer than its partition");
    }
}
