//! The device that has the loaders of a Jetson: the boot area of its eMMC, or its QSPI flash. Reads only.

use crate::boot_blob::{Area, Device};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::CHUNK;
use crate::sys::block;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Where the classes of devices are.
pub const CLASSES: &str = "/sys/class";
/// Where their nodes are.
pub const NODES: &str = "/dev";

const DOING: &str = "looking at what the boot blob goes to,";

/// Looks at the device. Refuses one that is not the right one, that is in use, or that takes no writes, as far as that
/// can be told.
pub fn look(classes: &str, nodes: &str, device: Device) -> Result<Area, Error> {
    let name = device.name();
    let folder = crate::path!("{}/{}/{}", classes, device.class(), name)?;
    let refuse = |why: &str| Error::refused(DOING, name, why);
    let size = files::number_below(&folder, "size").filter(|size| *size > 0);
    let Some(size) = size else {
        return Err(refuse("there is none")
            .advice("is its driver loaded? Without its loaders the new OS would not start"));
    };
    let path = files::below(nodes, name)?;
    match device {
        Device::Emmc => {
            // Documentation/ABI/testing/sysfs-class-mmc and Documentation/driver-api/mmc/mmc-dev-parts.rst in Linux.
            if !files::is_below(&folder, "force_ro") {
                return Err(refuse("it is no boot area of an eMMC: it has no force_ro"));
            }
            if files::number_below(&folder, "ro_lock_until_next_power_on").is_some_and(|n| n != 0) {
                return Err(refuse("the eMMC has locked it")
                    .advice("power it off and on, not only restart it; some are locked for ever"));
            }
            open(&path, OFlags::RDONLY | OFlags::EXCL)?;
            Ok(Area { device, size: size * crate::disk::table::SECTOR, unit: CHUNK as u64 })
        }
        Device::Nor => {
            let mut buffer = [0; 32];
            if files::text_below(&folder, "type", &mut buffer) != Some("nor") {
                return Err(refuse("it is no NOR flash"));
            }
            let unit = files::number_below(&folder, "erasesize").unwrap_or_default();
            if !unit.is_power_of_two() || unit > CHUNK as u64 || !size.is_multiple_of(unit) {
                return Err(refuse("its blocks are of no size that is known here"));
            }
            // One that is read-only is not opened for writing (mtdchar_open() in drivers/mtd/mtdchar.c).
            let flash = open(&path, OFlags::RDWR)?;
            for offset in (0..size).step_by(unit as usize) {
                // Most cannot be locked, and say so.
                if block::flash_is_locked(&flash, offset as u32, unit as u32).unwrap_or(false) {
                    return Err(refuse("it is locked against writing")
                        .advice("unlock it first: flash_unlock /dev/mtd0"));
                }
            }
            Ok(Area { device, size, unit })
        }
    }
}

fn open(path: &str, flags: OFlags) -> Result<rustix::fd::OwnedFd, Error> {
    match files::open(path, flags) {
        Err(Errno::BUSY) => {
            Err(Error::refused(DOING, path, "it is in use").advice("end that first"))
        }
        result => result.doing(DOING, path).map_err(Error::as_refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    /// What is found of a device with these files in its folder, `-` for one that is not there.
    fn found(device: Device, files: &[(&str, &str)]) -> Result<(u64, u64), String> {
        static NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("takeover-area-{}-{number}", std::process::id()));
        let folder = root.join(device.class()).join(device.name());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(root.join(device.name()), "").unwrap();
        for (name, content) in files {
            match *name {
                "node" => std::fs::remove_file(root.join(device.name())).unwrap(),
                name => std::fs::write(folder.join(name), format!("{content}\n")).unwrap(),
            }
        }
        let root_path = root.to_str().unwrap();
        let area = look(root_path, root_path, device);
        std::fs::remove_dir_all(&root).unwrap();
        area.map(|area| (area.size, area.unit)).map_err(|error| {
            assert_eq!(error.kind(), crate::error::Kind::Refused);
            (crate::text!("{}", error) as Text<400>).to_string()
        })
    }

    #[test]
    fn the_boot_area_of_an_emmc() {
        let whole = [("size", "16384"), ("force_ro", "1"), ("ro_lock_until_next_power_on", "0")];
        assert_eq!(found(Device::Emmc, &whole), Ok((8 << 20, 1 << 20)));
        assert_eq!(found(Device::Emmc, &whole[..2]), Ok((8 << 20, 1 << 20)), "of an old kernel");
        let why = |files: &[_]| found(Device::Emmc, files).unwrap_err();
        assert!(why(&[]).contains("mmcblk0boot0: there is none"));
        assert!(why(&whole[..1]).contains("no force_ro"));
        for locked in ["1", "2"] {
            let files = [whole[0], whole[1], ("ro_lock_until_next_power_on", locked)];
            assert!(why(&files).contains("has locked it"));
        }
        assert!(why(&[whole[0], whole[1], ("node", "")]).contains("no such file"));
    }

    #[test]
    fn the_flash_of_a_xavier_nx() {
        let whole = [("size", "33554432"), ("type", "nor"), ("erasesize", "65536")];
        assert_eq!(found(Device::Nor, &whole), Ok((32 << 20, 64 << 10)));
        let why = |files: &[_]| found(Device::Nor, files).unwrap_err();
        assert!(why(&[]).contains("mtd0: there is none"));
        assert!(why(&[whole[0], ("type", "nand"), whole[2]]).contains("no NOR flash"));
        for size in ["0", "3000", "2097152", "x"] {
            assert!(why(&[whole[0], whole[1], ("erasesize", size)]).contains("no size"), "{size}");
        }
        assert!(why(&[("size", "33554433"), whole[1], whole[2]]).contains("no size"));
    }
}
