//! Which partition of an image the new OS boots from, where its data goes, and which device the image says it is for.

use super::{json, systems};
use crate::IS_WHOLE;
use crate::disk::ext4::{self, Superblock};
use crate::disk::fat::{self, Fat, File, Place};
use crate::disk::mbr;
use crate::disk::mounts::FileSystem;
use crate::disk::reader::ReadAt;
use crate::disk::table::{Bios, Partition, SECTOR, Table};
use crate::error::Error;
use crate::text::Text;

/// Names and labels of boot partitions.
const BOOT_NAMES: [&str; 3] = ["resin-boot", "flash-boot", "balena-boot"];
/// What the names and labels of the partitions of a flasher begin with.
const FLASHER_PREFIX: &str = "flash-";
/// Name and label of the data partition.
const DATA_NAME: &str = "resin-data";
/// What is looked for on the boot partition: which device the image is for, which version it is, the mark of an image
/// that writes another one to the disk (balena-image.bb and balena-image-flasher.bb in meta-balena), and the directory
/// that UEFI looks into.
const FILES: [&str; 4] = ["device-type.json", "os-release", "balena-image-flasher", EFI];
/// The directory of an EFI system partition.
const EFI: &str = "EFI";
/// What UEFI starts from a disk for which it has no boot entry, in `EFI/BOOT`: on 64-bit and on 32-bit x86, and on
/// 64-bit ARM (UEFI specification 2.10, section 3.5.1.1).
pub const LOADERS: [&str; 3] = ["BOOTX64.EFI", "BOOTIA32.EFI", "BOOTAA64.EFI"];
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
    /// What a kernel must know to mount it, when it is ext4.
    pub boot_features: ext4::Features,
    /// The device type that the image names, empty when it names none.
    pub device_type: Text<64>,
    /// The version of balenaOS that the image names, empty when it names none.
    pub version: Text<32>,
    /// True when the boot partition is called as balenaOS calls it.
    pub is_named: bool,
    /// True for an image that boots from one medium to write another image to the disk.
    pub is_flasher: bool,
    /// True when a BIOS finds code to start.
    pub has_boot_code: bool,
    /// Which of [`LOADERS`] are there for UEFI to find, on the boot partition or on an EFI system partition; nothing
    /// when neither is FAT.
    pub loaders: Option<[bool; LOADERS.len()]>,
    /// The number of the partition that each of them lies on; 0 for none.
    pub loader_partitions: [u32; LOADERS.len()],
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
    /// What a kernel must know to mount it.
    pub features: ext4::Features,
}

/// Finds the boot partition, and what a firmware starts from the disk. The table may be one that was begun: it is read
/// on only when the primary partitions have no name or label of a boot partition.
pub fn find_boot(disk: &mut dyn ReadAt, table: &mut Table) -> Result<Layout, Error> {
    // First of all: it lies at the front, or at the front of the boot partition.
    let has_boot_code = match table.bios {
        _ if !IS_WHOLE => false,
        Bios::Nothing => false,
        Bios::Code => true,
        Bios::Partition(start) => {
            let mut sector = [0; SECTOR as usize];
            disk.read_exact_at(start, &mut sector)?;
            mbr::has_code(&sector)
        }
    };
    let mut layout = find_boot_partition(disk, table)?;
    layout.has_boot_code = has_boot_code;
    let number = layout.boot_number;
    for esp in table.partitions.iter().filter(|p| IS_WHOLE && p.is_esp && p.number != number) {
        if let Some(fat) = open_fat(disk, esp)? {
            let mut found = [None];
            fat.find_all(disk, &[EFI], &mut found)?;
            let [efi] = found;
            look_for_loaders(disk, &fat, efi, esp.number, &mut layout)?;
        }
    }
    Ok(layout)
}

/// By name or label, else the holder of device-type.json, else the first.
fn find_boot_partition(disk: &mut dyn ReadAt, table: &mut Table) -> Result<Layout, Error> {
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
    disk: &mut dyn ReadAt,
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
            let features = superblock.features();
            return Ok(Some(DataPartition { number, start, length, free, features }));
        }
    }
    Ok(None)
}

/// What a partition holds, and its label.
fn look(disk: &mut dyn ReadAt, partition: &Partition) -> Result<(Layout, Text<16>), Error> {
    let mut layout = Layout {
        boot_start: partition.start,
        boot_length: partition.length,
        boot_number: partition.number,
        file_system: None,
        boot_free: None,
        boot_features: ext4::Features::default(),
        device_type: Text::new(),
        version: Text::new(),
        is_named: is_boot(&partition.name),
        is_flasher: is_of_flasher(&partition.name),
        has_boot_code: false,
        loaders: None,
        loader_partitions: [0; LOADERS.len()],
    };
    let label = match open_fat(disk, partition)? {
        Some(fat) => look_into(disk, &fat, &mut layout)?,
        None if partition.length < SMALLEST || !IS_WHOLE => Text::new(),
        None => match open_ext4(disk, partition)? {
            Some(superblock) => {
                layout.file_system = Some(FileSystem::Ext4);
                layout.boot_free = Some(superblock.free.min(partition.length));
                layout.boot_features = superblock.features();
                superblock.label
            }
            None => Text::new(),
        },
    };
    layout.is_named |= is_boot(&label);
    layout.is_flasher |= is_of_flasher(&label);
    Ok((layout, label))
}

/// In bytes. What is smaller has no superblock: nothing that could be mounted, or an extended partition.
const SMALLEST: u64 = 4096;

/// The FAT file system of a partition, if it has one.
fn open_fat(disk: &mut dyn ReadAt, partition: &Partition) -> Result<Option<Fat>, Error> {
    if partition.length < SMALLEST {
        return Ok(None);
    }
    fat::open(disk, partition.start)
}

/// Called as a boot partition of balenaOS.
fn is_boot(name: &str) -> bool {
    BOOT_NAMES.iter().any(|boot| boot.eq_ignore_ascii_case(name))
}

/// The ext4 file system of a partition. One that is longer than the partition is not mounted by any kernel.
fn open_ext4(disk: &mut dyn ReadAt, partition: &Partition) -> Result<Option<Superblock>, Error> {
    let superblock = ext4::open(disk, partition.start)?;
    Ok(superblock.filter(|superblock| superblock.length <= partition.length))
}

fn is_of_flasher(name: &str) -> bool {
    name.get(..FLASHER_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(FLASHER_PREFIX))
}

/// What a FAT partition holds, and its label. First its table, then the root directory, then the files and the
/// directory EFI in their order: a packed image is read forward, but for one step back to the table.
fn look_into(disk: &mut dyn ReadAt, fat: &Fat, layout: &mut Layout) -> Result<Text<16>, Error> {
    layout.file_system = Some(FileSystem::Vfat);
    let (start, length) = fat.first_table();
    disk.keep(start, length)?;
    layout.boot_free = fat.free(disk)?.map(|free| free.min(layout.boot_length));
    let mut found = [None; FILES.len()];
    let label = fat.find_all(disk, &FILES, &mut found)?;
    let [device_type, os_release, flasher, efi] = found;
    layout.is_flasher |= flasher.is_some();
    let device_type = place(disk, fat, device_type, DEVICE_TYPE_LENGTH)?;
    let os_release = place(disk, fat, os_release, systems::MAX_LENGTH)?;
    let efi_first = efi.map_or(0, |directory| directory.first);
    let mut firsts = [device_type.first(), os_release.first(), efi_first].map(Some);
    // The one that lies in front of the others, then the next.
    while let Some((which, next)) =
        firsts.iter_mut().enumerate().filter(|(_, first)| first.is_some()).min_by_key(|(_, f)| **f)
    {
        *next = None;
        match which {
            0 => layout.device_type = slug(disk, fat, &device_type)?,
            1 if IS_WHOLE => layout.version = version(disk, fat, &os_release)?,
            2 if IS_WHOLE => look_for_loaders(disk, fat, efi, layout.boot_number, layout)?,
            _ => {}
        }
    }
    Ok(label)
}

/// Notes which loaders lie in `EFI/BOOT` of a partition, `efi` being the entry of its root directory. The boot
/// partition is looked at first: what it has is not looked for elsewhere.
fn look_for_loaders(
    disk: &mut dyn ReadAt,
    fat: &Fat,
    efi: Option<File>,
    number: u32,
    layout: &mut Layout,
) -> Result<(), Error> {
    let loaders = layout.loaders.get_or_insert_default();
    let Some(efi) = efi.filter(|efi| efi.is_directory) else {
        return Ok(());
    };
    let mut found = [None];
    fat.find_in(disk, Some(efi), &["BOOT"], &mut found)?;
    let [Some(boot @ File { is_directory: true, .. })] = found else {
        return Ok(());
    };
    let mut found = [None; LOADERS.len()];
    fat.find_in(disk, Some(boot), &LOADERS, &mut found)?;
    let places = loaders.iter_mut().zip(&mut layout.loader_partitions);
    for ((loader, partition), found) in places.zip(found) {
        // An empty file is what a broken copy leaves.
        if !*loader && found.is_some_and(|file| !file.is_directory && file.length > 0) {
            (*loader, *partition) = (true, number);
        }
    }
    Ok(())
}

/// Where the beginning of a file lies; nowhere when there is no such file.
fn place(
    disk: &mut dyn ReadAt,
    fat: &Fat,
    file: Option<File>,
    most: usize,
) -> Result<Place, Error> {
    let file = file.filter(|file| !file.is_directory);
    file.map_or_else(|| Ok(Place::default()), |file| fat.locate(disk, file, most))
}

/// The slug in device-type.json.
fn slug(disk: &mut dyn ReadAt, fat: &Fat, place: &Place) -> Result<Text<64>, Error> {
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
fn version(disk: &mut dyn ReadAt, fat: &Fat, place: &Place) -> Result<Text<32>, Error> {
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

    const ENTRY: usize = 32;

    fn put_entry(directory: &mut [u8], index: usize, name: &str, attributes: u8, cluster: usize) {
        let entry = &mut directory[index * ENTRY..(index + 1) * ENTRY];
        entry.fill(0);
        entry[..11].copy_from_slice(format!("{name:11}").as_bytes());
        (entry[11], entry[26], entry[28]) =
            (attributes, cluster as u8, u8::from(attributes != 0x10));
    }

    /// Puts `EFI/BOOT` on a volume of `fat::tests::volume_of`, each in one of these clusters. With a third cluster,
    /// BOOT is full of other files and has the loaders there.
    pub fn put_loaders(volume: &mut [u8], clusters: [usize; 3], loaders: &[&str]) {
        let place = |cluster: usize| (5 + cluster - 2) * 512;
        let root = place(2);
        let used = |index: &usize| volume[root + index * ENTRY] != 0;
        let last = (0..16).take_while(used).count();
        put_entry(&mut volume[root..], last, "EFI", 0x10, clusters[0]);
        let [efi, boot, more] = clusters;
        let mut chain = |cluster: usize, next: usize| {
            let at = 512 + 4 * cluster;
            volume[at..at + 4].copy_from_slice(&(next as u32).to_le_bytes());
        };
        chain(efi, 0x0fff_ffff);
        chain(boot, if more == 0 { 0x0fff_ffff } else { more });
        if more != 0 {
            chain(more, 0x0fff_ffff);
        }
        for (index, name) in [".", "..", "BOOT"].into_iter().enumerate() {
            put_entry(&mut volume[place(efi)..], index, name, 0x10, boot);
        }
        let others = if more == 0 { 0 } else { 16 };
        for index in 0..others {
            put_entry(&mut volume[place(boot)..], index, &format!("OTHER{index}"), 0x20, 100);
        }
        let with_loaders = if more == 0 { boot } else { more };
        for (index, name) in loaders.iter().enumerate() {
            put_entry(
                &mut volume[place(with_loaders)..],
                index,
                &name.replace('.', " "),
                0x20,
                100,
            );
        }
    }

    const DEVICE_TYPE: (&str, &str) = ("device-type.json", "{\"slug\":\"intel-nuc\"}");

    /// A disk of 256 sectors with a volume at sector 8, in an MBR or in a GPT.
    fn with_volume(mut disk: Vec<u8>, volume: &[u8], at: usize) -> Vec<u8> {
        disk.resize(512 * 512, 0);
        disk[at * 512..at * 512 + volume.len()].copy_from_slice(volume);
        disk
    }

    fn layout_of(disk: &mut Vec<u8>) -> Layout {
        let length = disk.len() as u64;
        let mut table = table::read(disk, length).unwrap();
        find_boot(disk, &mut table).unwrap()
    }

    #[test]
    fn the_loaders_of_uefi_are_found_on_the_boot_partition() {
        for clusters in [[3, 4, 0], [3, 4, 5], [7, 8, 9], [20, 12, 40]] {
            for (names, loaders) in [
                (&["BOOTX64.EFI"][..], [true, false, false]),
                (&["BOOTIA32EFI", "GRUBX64 EFI", "BOOTAA64EFI"], [false, true, true]),
                (&["GRUBX64.EFI"], [false; 3]),
                (&[], [false; 3]),
            ] {
                // The file lies in cluster 3 with EFI behind it, or is not there.
                let files = if clusters[0] == 3 { &[][..] } else { &[DEVICE_TYPE] };
                let mut volume = fat::tests::volume_of("resin-boot", files);
                put_loaders(&mut volume, clusters, names);
                let mut disk = with_volume(mbr::tests::disk(&[(0x0c, 8, 200)], 256), &volume, 8);
                assert_eq!(layout_of(&mut disk).loaders, Some(loaders), "{names:?}");
            }
        }
        assert_eq!(with_files("resin-boot", &[DEVICE_TYPE]).loaders, Some([false; 3]));
        // A file by that name is no directory.
        assert_eq!(with_files("resin-boot", &[("EFI", "x")]).loaders, Some([false; 3]));
        let mut ext = mbr::tests::disk(&[(0x83, 8, 200)], 256);
        ext4(&mut ext, 8 * 512, "resin-boot");
        assert_eq!(layout_of(&mut ext).loaders, None);
    }

    #[test]
    fn a_loader_on_an_efi_system_partition_counts_and_one_elsewhere_does_not() {
        let mut volume = fat::tests::volume_of("EFI", &[]);
        put_loaders(&mut volume, [3, 4, 5], &["BOOTX64.EFI"]);
        let boot = fat::tests::volume_of("resin-boot", &[DEVICE_TYPE]);
        for (kind, found) in [(0xef, true), (0x0c, false)] {
            let table = mbr::tests::disk(&[(0x0c, 8, 200), (kind, 208, 200)], 512);
            let mut disk = with_volume(with_volume(table, &boot, 8), &volume, 208);
            let layout = layout_of(&mut disk);
            assert_eq!((layout.boot_number, layout.loaders), (1, Some([found, false, false])));
        }
        let mut disk = gpt::tests::disk(&[("esp", 40, 239), ("resin-boot", 240, 255)]);
        disk[1024..1040].copy_from_slice(&[
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9,
            0x3b,
        ]);
        gpt::tests::seal_entries(&mut disk);
        let mut disk = with_volume(disk, &volume, 40);
        let layout = layout_of(&mut disk);
        assert_eq!((layout.boot_number, layout.loaders), (2, Some([true, false, false])));
    }

    #[test]
    fn a_look_at_the_loaders_takes_no_step_back() {
        for clusters in [[3, 4, 5], [8, 9, 10]] {
            let files =
                if clusters[0] == 3 { &[][..] } else { &[DEVICE_TYPE, ("os-release", "a")] };
            let mut volume = fat::tests::volume_of("resin-boot", files);
            // All in their first clusters: EFI, and BOOT without the other files.
            put_loaders(&mut volume, clusters, &["BOOTX64.EFI"]);
            let place = |cluster: usize| (5 + cluster - 2) * 512;
            volume.copy_within(place(clusters[2])..place(clusters[2]) + 512, place(clusters[1]));
            let disk = with_volume(mbr::tests::disk(&[(0x0c, 8, 200)], 256), &volume, 8);
            let mut disk = fat::tests::Counted { disk, last: 0, reads: 0, backward: 0 };
            let mut table = table::read(&mut disk, 512 * 512).unwrap();
            assert_eq!(
                find_boot(&mut disk, &mut table).unwrap().loaders,
                Some([true, false, false])
            );
            // The one to the table, from the root directory: for the files, when there are any.
            assert_eq!(disk.backward, usize::from(!files.is_empty()), "{clusters:?}");
        }
    }

    #[test]
    fn code_for_a_bios_is_found_in_the_first_sector_or_where_it_leads() {
        let disk = |code: &[u8], active: u8, boot_sector: &[u8]| {
            let mut disk = mbr::tests::disk(&[(0x0c, 8, 200)], 256);
            disk[..code.len()].copy_from_slice(code);
            disk[446] = active;
            disk[8 * 512..8 * 512 + boot_sector.len()].copy_from_slice(boot_sector);
            layout_of(&mut disk).has_boot_code
        };
        // As parted makes it, and as mkfs.fat makes its boot sectors.
        let parted = [0xfa, 0xb8, 0, 0x10, 0x8e, 0xd0, 0xbc, 0, 0xb0, 0xb8, 0, 0];
        let mut no_system = [0; 200];
        no_system[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        no_system[0x3e..0x3e + 8]
            .copy_from_slice(&[0x0e, 0x1f, 0xbe, 0x5b, 0x7c, 0xac, 0x22, 0xc0]);
        no_system[0x60..0x7c].copy_from_slice(b"This is not a bootable disk.");
        let mut system = no_system;
        system[0x60..0x7c].fill(0xf4);
        assert!(!disk(&[], 0x80, &system));
        assert!(!disk(&[0xeb, 0x63, 0x90, 0x10, 0x8e], 0, &[]), "a jump to nothing");
        let mut grub = [0u8; 200];
        (grub[..3]).copy_from_slice(&[0xeb, 0x63, 0x90]);
        grub[0x65] = 0xfa;
        assert!(disk(&grub, 0, &[]));
        assert!(disk(&parted, 0x80, &system));
        assert!(!disk(&parted, 0x80, &no_system));
        assert!(!disk(&parted, 0x80, &[]));
        assert!(!disk(&parted, 0, &system), "no partition is active");
        // A GPT disk of a tool that leaves the code area alone.
        let mut gpt = gpt::tests::disk(&[("resin-boot", 40, 47)]);
        assert!(!layout_of(&mut gpt).has_boot_code);
        gpt[..parted.len()].copy_from_slice(&parted);
        assert!(!layout_of(&mut gpt).has_boot_code);
        gpt[0] = 0x90;
        assert!(layout_of(&mut gpt).has_boot_code);
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
