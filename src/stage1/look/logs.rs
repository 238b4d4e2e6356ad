//! Where stage 2's log is kept: on the log device that was asked for, and where the old OS will find it when nothing
//! was written.
//!
//! Reads only.

use super::reader::DeviceReader;
use crate::cli::Options;
use crate::disk::device::{self, Number};
use crate::disk::mounts::{self, Mount};
use crate::disk::{ext4, fat, stack};
use crate::error::Error;
use crate::files;
use crate::plan::{self, FilePlan};
use crate::text::PathText;
use rustix::fs::OFlags;

/// Where the old OS has its logs, as a rule.
const LOGS: &str = "/var/log";
/// What the log is called.
const NAME: &str = "takeover.log";

/// Where the log is when nothing was written.
pub struct OldLog {
    /// The file, as stage 2 finds it.
    pub file: FilePlan,
    /// The file, as the old OS finds it.
    pub shown: PathText,
}

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
    plan_for(number, file_system, NAME).map(Some)
}

/// Where the log goes when nothing was written: to the logs of the old OS, when a plain partition has them. Those in
/// memory would lie over it, so then it goes to the root; LVM and dm-crypt are taken down before it can be known that
/// nothing was written, so then to another plain partition that is mounted: /boot, as a rule.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn of_old_os() -> Result<Option<OldLog>, Error> {
    for folder in [LOGS, "/"] {
        if let Some(log) = below(folder)? {
            return Ok(Some(log));
        }
    }
    let mut chosen: Option<PathText> = None;
    mounts::find(mounts::OWN, &mut |mount| {
        if is_fit(mount) && mount.root == "/" && !mount.options.starts_with("ro") {
            let point = mount.point().unwrap_or_default();
            if chosen.as_ref().is_none_or(|other| point.len() < other.len()) {
                chosen = Some(point);
            }
        }
        false
    })?;
    chosen.map_or(Ok(None), |point| below(&point))
}

/// A plain partition, of a type that can be written to.
fn is_fit(mount: &Mount) -> bool {
    matches!(mount.file_system, "vfat" | "ext2" | "ext3" | "ext4" | "xfs" | "f2fs")
        && device::is_partition(mount.device).unwrap_or(false)
}

/// The log in a folder of the old OS, if that lies on a plain partition: the folder that is seen there, whatever links
/// lead to it, since stage 2 follows none. One without a place, or whose path is too long, has none.
fn below(folder: &str) -> Result<Option<OldLog>, Error> {
    let Some(shown) = seen_at(folder).and_then(|folder| files::below(&folder, NAME).ok()) else {
        return Ok(None);
    };
    let id = mounts::id_at(folder);
    let mut file = None;
    mounts::find(mounts::OWN, &mut |mount| {
        if Some(mount.id) == id && is_fit(mount) {
            let point = mount.point().unwrap_or_default();
            let path = on_device(mount.root, &point, &shown);
            file = path.and_then(|path| plan_for(mount.device, mount.file_system, &path).ok());
        }
        false
    })?;
    Ok(file.map(|file| OldLog { file, shown }))
}

/// Where a folder really is, without a slash at its end.
fn seen_at(folder: &str) -> Option<PathText> {
    let folder = files::open(folder, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    let path = files::path_of(&folder).ok()?;
    Some(PathText::from(path.strip_suffix('/').unwrap_or(&path)))
}

/// The path on its file system of what is at `path`; `root` is what of the file system is mounted at `point`, escaped
/// as in the mount table.
fn on_device(root: &str, point: &str, path: &str) -> Option<PathText> {
    let rest = path.strip_prefix(point.strip_suffix('/').unwrap_or(point))?;
    let root = mounts::unescape(root).ok()?;
    let all = crate::path!("{}{}", root.strip_suffix('/').unwrap_or(&root), rest).ok()?;
    Some(PathText::from(all.strip_prefix('/')?))
}

fn plan_for(number: Number, file_system: &str, path: &str) -> Result<FilePlan, Error> {
    Ok(FilePlan {
        number,
        file_system: plan::bounded("", file_system)?,
        path: plan::bounded("", path)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_file_on_its_own_file_system() {
        let at = |root, point| {
            on_device(root, point, "/var/log/takeover.log").map(|path| path.to_string())
        };
        for (root, point, wanted) in [
            ("/", "/", "var/log/takeover.log"),
            ("/", "/var", "log/takeover.log"),
            ("/", "/var/log", "takeover.log"),
            // A directory that is mounted elsewhere, and a root that is one.
            ("/kept/my\\040logs", "/var/log", "kept/my logs/takeover.log"),
            ("/rootfs", "/", "rootfs/var/log/takeover.log"),
        ] {
            assert_eq!(at(root, point).as_deref(), Some(wanted));
        }
        assert_eq!(at("/", "/boot"), None);
    }
}
