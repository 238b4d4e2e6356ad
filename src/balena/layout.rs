//! Which partition of an image the new OS boots from, and which device the image says it is for.

use crate::disk::ext4;
use crate::disk::fat::{self, Fat};
use crate::disk::table::{Partition, Table};
use crate::error::Error;
use crate::image::reader::ReadAt;
use crate::plan::FileSystem;
use crate::text::Text;

/// Names and labels of boot partitions.
const BOOT_NAMES: [&str; 3] = ["resin-boot", "flash-boot", "balena-boot"];
/// The file on the boot partition that says which device the image is for.
const DEVICE_TYPE: &str = "device-type.json";
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
    /// The device type that the image names, empty when it names none.
    pub device_type: Text<64>,
}

/// Finds the boot partition: by name or label, else as the holder of device-type.json, else the first.
pub fn find_boot(disk: &mut impl ReadAt, table: &Table) -> Result<Layout, Error> {
    let is_boot = |name: &str| BOOT_NAMES.iter().any(|boot| boot.eq_ignore_ascii_case(name));
    if let Some(partition) = table.partitions.iter().find(|p| is_boot(&p.name)) {
        return look(disk, partition).map(|(layout, _)| layout);
    }
    let mut holder = None;
    let mut first = None;
    for partition in &table.partitions {
        let (layout, label) = look(disk, partition)?;
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

/// What a partition holds, and its label.
fn look(disk: &mut impl ReadAt, partition: &Partition) -> Result<(Layout, Text<16>), Error> {
    let mut layout = Layout {
        boot_start: partition.start,
        boot_length: partition.length,
        boot_number: partition.number,
        file_system: None,
        device_type: Text::new(),
    };
    // Too small for a superblock, or an extended partition: nothing that could be mounted.
    if partition.length < 4096 {
        return Ok((layout, Text::new()));
    }
    if let Some(fat) = fat::open(disk, partition.start)? {
        layout.file_system = Some(FileSystem::Vfat);
        layout.device_type = device_type(disk, &fat)?;
        return Ok((layout, fat.label(disk)?));
    }
    let label = ext4::label(disk, partition.start)?;
    layout.file_system = label.is_some().then_some(FileSystem::Ext4);
    Ok((layout, label.unwrap_or_default()))
}

fn device_type(disk: &mut impl ReadAt, fat: &Fat) -> Result<Text<64>, Error> {
    let Some(file) = fat.find(disk, DEVICE_TYPE)? else {
        return Ok(Text::new());
    };
    let mut buffer = [0; DEVICE_TYPE_LENGTH];
    let length = fat.read(disk, file, &mut buffer)?;
    let bytes = buffer.get(..length).unwrap_or_default();
    let mut slug = Text::new();
    let read = super::json::check_object(bytes, &mut |member| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{gpt, mbr, table};

    fn ext4(disk: &mut [u8], start: usize, label: &str) {
        disk[start + 1024 + 56..start + 1024 + 58].copy_from_slice(&[0x53, 0xef]);
        disk[start + 1144..start + 1144 + label.len()].copy_from_slice(label.as_bytes());
    }

    #[test]
    fn by_name_in_a_gpt_wherever_it_stands() {
        let mut disk = gpt::tests::disk(&[("vendor", 40, 47), ("resin-boot", 48, 63)]);
        let length = disk.len() as u64;
        let table = table::read(&mut disk, length).unwrap();
        let layout = find_boot(&mut disk, &table).unwrap();
        assert_eq!((layout.boot_number, layout.boot_start), (2, 48 * 512));
        assert_eq!(layout.file_system, None);
    }

    #[test]
    fn by_label_in_an_mbr_else_the_first() {
        let mut disk = mbr::tests::disk(&[(0x83, 8, 8), (0x83, 16, 8)], 64);
        let length = disk.len() as u64;
        let table = table::read(&mut disk, length).unwrap();
        assert_eq!(find_boot(&mut disk, &table).unwrap().boot_number, 1);
        ext4(&mut disk, 16 * 512, "resin-boot");
        let layout = find_boot(&mut disk, &table).unwrap();
        assert_eq!(layout.boot_number, 2);
        assert_eq!(layout.file_system, Some(FileSystem::Ext4));
    }
}
