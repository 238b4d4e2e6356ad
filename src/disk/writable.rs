//! Whether a disk that was named can be written: a whole disk, not protected, and in nobody's use.

use super::device::{self, Disk, Number};
use super::{holders, loops, stack};
use crate::error::{Doing, Error};
use crate::files;
use crate::text::Text;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The facts about a disk that takes writes.
pub fn facts(number: Number) -> Result<Disk, Error> {
    let disk = device::disk(number)?;
    if disk.read_only {
        return Err(Error::refused("looking at the target", &disk.name, "it is read-only")
            .advice("look for a write-protect switch, or at blockdev --getro"));
    }
    refuse_firmware_areas(&disk)?;
    Ok(disk)
}

/// A disk that was named: there, a block device, not a partition, and nothing that is stacked on disks. A volume of LVM
/// or an opened LUKS container would be written and verified, and no firmware would ever find it. (Multipath is another
/// way to the disk itself.)
pub fn asked_for(path: &str) -> Result<Number, Error> {
    let number = device::number_of(path)?;
    let refuse = |what: &str, disk: Number| {
        let disk = device::name_of(disk)?;
        let why: Text<120> =
            crate::text!("it {}; the image replaces a whole disk (/dev/{})", what, disk);
        Err(Error::refused("looking at the target", path, &why).advice("name the disk"))
    };
    if device::is_partition(number)? {
        return refuse("is a partition", device::whole_disk(number)?);
    }
    if !crate::IS_WHOLE {
        // A rescue system has no daemon of multipath either.
        let is_stacked = device::is_stacked(number)?;
        return if is_stacked { refuse("lies on other disks", number) } else { Ok(number) };
    }
    match stack::disks_below(number)?.first() {
        Some(disk) if *disk != number && !device::is_multipath(number) => {
            refuse("lies on a disk", *disk)
        }
        _ => Ok(number),
    }
}

/// A disk that nobody uses, by the kernel's own answer (see `stage2::Target`): it is claimed for a moment. Read-only:
/// what was opened for writing is looked at anew by udev when it is closed. And nothing lies on it: a loop device does
/// not claim what it is attached to, so that the kernel's answer leaves it out.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn claimable(disk: &Disk) -> Result<(), Error> {
    let path = files::below("/dev", &disk.name)?;
    let is_claimed = match files::open(&path, OFlags::RDONLY | OFlags::EXCL) {
        Err(Errno::BUSY) => true,
        result => {
            result.doing("claiming the disk", &path).map_err(Error::as_refusal)?;
            false
        }
    };
    let is_below = || {
        loops::none_on("/dev", disk.number).is_err()
            // Whatever of the kernel lies on it has claimed it; who looks for the names of that can say it better.
            || crate::IS_WHOLE && stack::none_on(disk.number).is_err()
    };
    if is_claimed || is_below() {
        let why: Text<240> = crate::text!("it is in use: {}", holders::of("/dev", disk.number));
        return Err(Error::refused("claiming the disk", &path, &why).advice("end that first"));
    }
    Ok(())
}

/// Boot partitions of an eMMC hold the firmware's loader, and are no place for an operating system: mmcblk0boot0 and
/// its sisters, and the replay-protected block.
fn refuse_firmware_areas(disk: &Disk) -> Result<(), Error> {
    let area = disk
        .name
        .strip_prefix("mmcblk")
        .map(|rest| rest.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    match area {
        None | Some("") => Ok(()),
        Some(_) => Err(Error::refused(
            "looking at the target",
            &disk.name,
            "it is a boot or replay-protected area of an eMMC",
        )
        .advice("name the disk itself, as /dev/mmcblk0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_areas_of_an_emmc_are_no_disks() {
        let disk = |name: &str| Disk {
            name: Text::from(name),
            number: Number { major: 179, minor: 0 },
            size: 4 << 20,
            logical_block: 512,
            read_only: false,
        };
        for name in ["mmcblk0", "mmcblk12", "sda", "nvme0n1", "vda"] {
            refuse_firmware_areas(&disk(name)).unwrap();
        }
        for name in ["mmcblk0boot0", "mmcblk1boot1", "mmcblk0rpmb", "mmcblk0gp0"] {
            assert!(refuse_firmware_areas(&disk(name)).is_err(), "{name}");
        }
    }
}
