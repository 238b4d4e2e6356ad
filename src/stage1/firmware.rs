//! Whether the firmware starts from the disk that will be written: what it starts from is mounted below /boot.
//!
//! A Raspberry Pi with its root on USB and its boot partition on the SD card would go on starting the old kernel, which
//! looks for a root that is no more. Reads only.

use super::origin;
use crate::disk::device::{self, Disk};
use crate::disk::{mounts, stack};
use crate::error::Error;
use crate::text::Text;

/// Where distributions mount what the firmware reads: the boot partition of a Raspberry Pi (/boot, /boot/firmware), the
/// EFI system partition (/boot/efi, /efi, or /boot itself), the boot partition of a balenaOS.
const PLACES: [&str; 5] = ["/boot", "/boot/firmware", "/boot/efi", "/efi", "/mnt/boot"];

/// Refuses a disk that was found under `/` when the firmware's files lie on another; warns when it was named.
pub fn starts_from(target: &Disk, named: bool, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    for place in PLACES {
        let Some(mount) = mounts::at(place)? else {
            continue;
        };
        // An automount shows its trigger as long as nobody looks; it is no device.
        let Some(number) = origin::device_of(&mount)? else {
            continue;
        };
        if stack::lies_on(number, target.number)? {
            continue;
        }
        let name = device::name_of(number)?;
        let why: Text<160> = crate::text!(
            "{} is mounted from {}: the firmware seems to start from there, and not from {}",
            place,
            name,
            target.name
        );
        if !named {
            return Err(Error::refused("looking at", "what this device starts from", &why)
                .advice("name the disk that it will start from with -f DEV"));
        }
        warn(&why);
    }
    Ok(())
}
