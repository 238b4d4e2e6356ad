//! Where an image of a Jetson has the boot blob, its loaders: in a file of its root file system.
//!
//! Pure: the file is found in the bytes of the image, nothing is mounted.

use crate::boot_blob::{Area, BootBlob, Device};
use crate::crc32;
use crate::disk::ext4::lookup::{self, Extent, Inode, Volume};
use crate::disk::reader::ReadAt;
use crate::disk::table::{SECTOR, Table};
use crate::error::Error;
use crate::text::Text;

/// The partition with the root file system that a new image starts from.
const PARTITION: &str = "resin-rootA";
/// Where the file lies in a root file system: BINARY_INSTALL_PATH in tegra-flash-dry.bb of balena-jetson.
const FOLDER: [&str; 2] = ["opt", "tegra-binaries"];
/// Where the root file systems lie on the partition. It is that of a container engine, and has the layers of the host
/// application (mkfs-hostapp-native and hostapp-update in meta-balena): each layer in a directory of this one, and its
/// files in that below it. By the storage driver: overlay2, formerly aufs.
const LAYERS: [(&[&str], &[&str]); 2] =
    [(&["balena", "overlay2"], &["diff"]), (&["balena", "aufs", "diff"], &[])];
/// The length of the QSPI flash of a Xavier NX, and of its blob (takeover 0.10.6 of balena-os, src/stage2.rs).
const NOR_LENGTH: u64 = 0x200_0000;
/// How much is read at once, in bytes.
const PIECE: usize = 4096;

/// The name of the file that has the blob for a device: BOOT0_PREFLASHED in tegra-flash-dry.bb of balena-jetson.
pub const fn file_for(device: Device) -> &'static str {
    match device {
        Device::Emmc => "boot0_mmcblk0boot0.img",
        Device::Nor => "boot0_mtdblock0.img",
    }
}

/// What is being done when something fails.
const DOING: &str = "looking for the boot blob in";

/// Finds the blob for a device in an image with this table. Refuses what cannot be the one.
pub fn find(disk: &mut dyn ReadAt, table: &Table, area: Area) -> Result<BootBlob, Error> {
    let file = file_for(area.device);
    let refuse = |why: &str| {
        Error::refused(DOING, "the image", why)
            .advice("use a newer image of this device type; --no-dt-check goes on without it")
    };
    let partition = table.partitions.iter().find(|partition| &*partition.name == PARTITION);
    let partition = partition.ok_or_else(|| refuse("there is no partition resin-rootA"))?;
    let mut volume = Volume::open(disk, partition.start, partition.length)?;
    let Some(inode) = look_for(&mut volume, file)? else {
        let why: Text<120> = crate::text!("its root has no /opt/tegra-binaries/{}", file);
        return Err(refuse(&why));
    };
    let length = inode.length();
    let fits = match area.device {
        Device::Emmc => length > 0 && length <= area.size && length.is_multiple_of(SECTOR),
        Device::Nor => length == NOR_LENGTH && length <= area.size,
    };
    if !fits || !inode.is_regular() {
        let why: Text<160> = crate::text!(
            "{} has {} bytes, which is not the length of what {} of {} bytes takes",
            file,
            length,
            area.device.name(),
            area.size
        );
        return Err(refuse(&why));
    }
    let extents = volume.extents(&inode)?;
    let crc = crc_of(disk, &extents, length)?;
    if crc == crc32::of_zeros(length) {
        return Err(refuse("it is all zeros"));
    }
    Ok(BootBlob { area, length, crc, extents })
}

/// The file by its name, in whichever layer it lies. Two of them would be two versions.
fn look_for(volume: &mut Volume<'_>, file: &str) -> Result<Option<Inode>, Error> {
    let root = volume.inode(lookup::ROOT)?;
    let path = [FOLDER[0], FOLDER[1], file];
    let mut found = volume.find(root, &path)?;
    for (above, below) in &LAYERS {
        let Some(layers) = volume.find(root, above)? else {
            continue;
        };
        for number in volume.entries(&layers)? {
            let layer = volume.inode(number)?;
            let Some(content) = volume.find(layer, below)? else {
                continue;
            };
            let here = volume.find(content, &path)?;
            if here.is_some() && found.is_some_and(|other| Some(other) != here) {
                let why = "it is there twice";
                return Err(Error::refused(DOING, "the image", why)
                    .advice("use an image as balena has made it"));
            }
            found = here.or(found);
        }
    }
    Ok(found)
}

/// The CRC-32 of a file of so many bytes.
fn crc_of(disk: &mut dyn ReadAt, extents: &[Extent], length: u64) -> Result<u32, Error> {
    let (mut crc, mut left) = (0, length);
    let mut buffer = [0; PIECE];
    for extent in extents {
        let (mut at, end) = (extent.start, extent.start + extent.length.min(left));
        left -= end - at;
        while at < end {
            let count = (end - at).min(PIECE as u64) as usize;
            let piece = buffer.get_mut(..count).unwrap_or_default();
            if extent.start == 0 {
                piece.fill(0);
            } else {
                disk.read_exact_at(at, piece)?;
            }
            crc = crc32::extend(crc, piece);
            at += count as u64;
        }
    }
    Ok(crc)
}
