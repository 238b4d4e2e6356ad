//! Where stage 2's log is kept: on the log device that was asked for, and where the old OS will find it when nothing
//! was written.
//!
//! Reads only.

use super::facts::Root;
use super::reader::DeviceReader;
use crate::cli::Options;
use crate::disk::device::{self, Number};
use crate::disk::mounts;
use crate::disk::{ext4, fat, stack};
use crate::error::Error;
use crate::plan::{self, FilePlan};
use crate::text::{PathText, Text};

/// The log that stage 2 leaves on the old root when it gives up before the first write.
const ON_OLD_ROOT: &str = "var/log/takeover.log";
/// The log on any other partition.
const ELSEWHERE: &str = "takeover.log";

/// Where stage 2 is to keep its log (`--log-to`): a file system that can be mounted, on another disk.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn device(options: &Options, target: Number) -> Result<Option<FilePlan>, Error> {
    let Some(path) = options.log_to.as_deref() else {
        return Ok(None);
    };
    let refuse = |why| Error::refused("looking at the log device", path, why);
    let number = device::number_of(path)?;
    if stack::lies_on(number, target)? {
        return Err(refuse("it lies on the disk that will be overwritten")
            .advice("name a partition of another disk"));
    }
    let mut disk = DeviceReader::open(path)?;
    let file_system = match fat::open(&mut disk, 0)? {
        Some(_) => "vfat",
        None if ext4::label(&mut disk, 0)?.is_some() => "ext4",
        None => return Err(refuse("it has no vfat, ext3 or ext4 file system")),
    };
    plan_for(number, file_system, ELSEWHERE).map(Some)
}

/// Where the log goes when nothing was written. The old root, when it is a plain partition; LVM and dm-crypt are taken
/// down before that can be known, so then another plain partition that is mounted: /boot, as a rule.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn of_old_os(root: &Root) -> Result<Option<FilePlan>, Error> {
    if root.number.major != 0 && device::is_partition(root.number)? {
        return plan_for(root.number, &root.file_system, ON_OLD_ROOT).map(Some);
    }
    let mut chosen: Option<(Number, Text<16>, PathText)> = None;
    mounts::find(mounts::OWN, &mut |mount| {
        let is_whole = mount.root == "/" && !mount.options.starts_with("ro");
        let is_fit = matches!(mount.file_system, "vfat" | "ext2" | "ext3" | "ext4" | "xfs");
        if is_whole && is_fit && device::is_partition(mount.device).unwrap_or(false) {
            let point = mount.point().unwrap_or_default();
            let is_better = chosen.as_ref().is_none_or(|(_, _, other)| point.len() < other.len());
            if is_better {
                chosen = Some((mount.device, Text::from(mount.file_system), point));
            }
        }
        false
    })?;
    let Some((number, file_system, point)) = chosen else {
        return Ok(None);
    };
    crate::debug!("the log of a failure is kept at {}", point);
    plan_for(number, &file_system, ELSEWHERE).map(Some)
}

fn plan_for(number: Number, file_system: &str, path: &str) -> Result<FilePlan, Error> {
    Ok(FilePlan {
        number,
        file_system: plan::bounded("", file_system)?,
        path: plan::bounded("", path)?,
    })
}
