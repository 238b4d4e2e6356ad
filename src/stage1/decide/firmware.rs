//! Whether the firmware starts from the disk that will be written: what it starts from is mounted below /boot.
//!
//! A Raspberry Pi with its root on USB and its boot partition on the SD card would go on starting the old kernel, which
//! looks for a root that is no more. Reads only.

use super::target;
use crate::disk::device::{self, Disk, Number};
use crate::disk::{pools, stack};
use crate::error::Error;
use crate::stage1::look::automount;
use crate::stage1::look::transport::Transport;
use crate::text::Text;

/// Where distributions mount what the firmware reads: the boot partition of a Raspberry Pi (/boot, /boot/firmware), the
/// EFI system partition (/boot/efi, /efi, or /boot itself), the boot partition of a balenaOS.
const PLACES: [&str; 5] = ["/boot", "/boot/firmware", "/boot/efi", "/efi", "/mnt/boot"];

/// Refuses a disk that was found under `/` when the firmware's files lie on another; warns when it was named. `root` is
/// what `/` lies on.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn starts_from(
    target: &Disk,
    named: bool,
    root: Option<Number>,
    warn: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    if let Some(root) = root {
        warn_of_other_halves(target, root, warn)?;
    }
    if target::transport(target)? == Transport::FibreChannel {
        let text: Text<160> = crate::text!(
            "{} is reached by Fibre Channel: the adapter must be set up to start from it",
            target.name
        );
        warn(&text);
    }
    for place in &PLACES {
        let Some(mount) = automount::mount_at(place)? else {
            continue;
        };
        if automount::is_trigger(&mount) {
            let text: Text<160> = crate::text!(
                "{} is an automount that mounts nothing: it cannot be told whether the firmware starts from {}",
                place,
                target.name
            );
            warn(&text);
        }
        let Some(number) = mount.lies_on() else {
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

/// Of a RAID, say: the other disks keep what they have, and each may be one that the firmware starts from.
fn warn_of_other_halves(
    target: &Disk,
    root: Number,
    warn: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    for disk in pools::disks_below(root)? {
        if disk != target.number {
            let name = device::name_of(disk)?;
            let text: Text<200> = crate::text!(
                "/ lies on {}, too, which keeps what it has: the firmware may start from there, and not from {}",
                name,
                target.name
            );
            warn(&text);
        }
    }
    Ok(())
}
