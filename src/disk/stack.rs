//! Stacked block devices: device-mapper (LVM, dm-crypt, multipath), md and zram with a backing device, which lie on
//! disks and keep them busy.
//!
//! sysfs names what a stacked device lies on (`slaves`) and what lies on a device (`holders`); both are followed, over
//! any number of layers up to a bound. A loop device has neither, and lies on what its backing file lies on;
//! [`super::loops`] detaches them.

use super::backing;
use super::device::{self, Number};
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::block;
use crate::text::Text;
use core::ops::ControlFlow;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

/// How many layers may lie on each other: a partition below LVM below dm-crypt below md is four, and a file in a file
/// system in a file two more.
const LAYERS: u32 = 12;

/// The most disks that one stack may lie on.
pub const MAX_DISKS: usize = 16;

/// The control device of device-mapper: misc 236 (Documentation/admin-guide/devices.txt).
const MAPPER_CONTROL: Number = Number { major: 10, minor: 236 };

/// What keeps a stacked device alive, and so how it is taken down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// device-mapper: LVM, dm-crypt, multipath and others.
    Mapper,
    /// Software RAID.
    Md,
    /// Compressed memory, which writes what it holds to a disk.
    Zram,
    /// Something that this program cannot take down.
    Unknown,
}

impl Kind {
    fn of(name: &str) -> Self {
        let mut buffer = [0; 64];
        let metadata = crate::format!("/sys/block/{}/md/metadata_version", name);
        Self::from(name, files::text_at(metadata, &mut buffer).unwrap_or_default())
    }

    /// `metadata` is the version of an array's metadata.
    fn from(name: &str, metadata: &str) -> Self {
        match name {
            _ if name.starts_with("dm-") => Kind::Mapper,
            // A process writes down what becomes of it (mdmon(8)): once that has ended, it takes no more writes.
            // Documentation/admin-guide/md.rst, metadata_version.
            _ if metadata.starts_with("external:") => Kind::Unknown,
            _ if name.starts_with("md") => Kind::Md,
            _ if name.starts_with("zram") => Kind::Zram,
            _ => Kind::Unknown,
        }
    }
}

/// A device of device-mapper that is suspended, by its name, if there is one: who writes to it waits, and cannot be
/// ended. Documentation/ABI/testing/sysfs-block-dm.
pub fn suspended() -> Option<Text<128>> {
    let mut found = None;
    // Without /sys/block there is none.
    let _ = files::for_each_entry("/sys/block", &mut |name: &str| {
        let folder = files::below("/sys/block", name).unwrap_or_default();
        if files::number_below(&folder, "dm/suspended") == Some(1) {
            found = device::number_named(name).map(device::mapper_name);
        }
        ControlFlow::Continue(())
    });
    found
}

/// True when a device is a disk, a partition of it, or lies on it, be it through files of its file systems.
pub fn lies_on(number: Number, disk: Number) -> Result<bool, Error> {
    lies_within(number, disk, LAYERS)
}

fn lies_within(number: Number, disk: Number, layers: u32) -> Result<bool, Error> {
    let whole = device::whole_disk(number)?;
    if whole == disk {
        return Ok(true);
    }
    let mut result = Ok(false);
    let mut look = |below| {
        result = match layers {
            0 => Err(too_many_layers()),
            _ => lies_within(below, disk, layers - 1),
        };
        matches!(result, Ok(false))
    };
    match whole.major {
        backing::MAJOR => {
            backing::of(whole).into_iter().flatten().all(look);
        }
        _ => match zram_backing(whole) {
            Some(below) => {
                look(below);
            }
            None => device::for_each_slave(whole, &mut look)?,
        },
    }
    result
}

fn too_many_layers() -> Error {
    Error::refused("looking for the disk under", "a device", "too many layers")
}

/// True when a device is compressed memory that writes to no disk.
pub fn is_memory(number: Number) -> bool {
    let is_zram = device::name_of(number).is_ok_and(|name| Kind::of(&name) == Kind::Zram);
    let mut buffer = [0; 256];
    let writes_to = backing_dev(number, &mut buffer);
    // A kernel whose zram cannot write to a disk has no such file.
    is_zram && writes_to.is_none_or(|path| path == "none")
}

/// What a zram writes to (Documentation/admin-guide/blockdev/zram.rst, "writeback"); none for other devices.
fn zram_backing(number: Number) -> Option<Number> {
    let mut buffer = [0; 4096];
    // A path to its node, seen from the root directory of whoever asks; or "none".
    device::number_of_node(backing_dev(number, &mut buffer)?)
}

fn backing_dev(number: Number, buffer: &mut [u8]) -> Option<&str> {
    let path = crate::format!("/sys/dev/block/{}:{}/backing_dev", number.major, number.minor);
    files::text_at(path, buffer)
}

/// The whole disks that a device is, is a partition of, or lies on; each once. A loop device counts as a disk: what is
/// behind it is not what its user means.
pub fn disks_below(number: Number) -> Result<heapless::Vec<Number, MAX_DISKS>, Error> {
    let mut disks = heapless::Vec::new();
    add_disks_below(number, &mut disks)?;
    Ok(disks)
}

/// Adds the whole disks that a device is, is a partition of, or lies on, to those that were found already.
pub fn add_disks_below(
    number: Number,
    disks: &mut heapless::Vec<Number, MAX_DISKS>,
) -> Result<(), Error> {
    visit_disks(number, LAYERS, &mut |disk| {
        if disks.contains(&disk) {
            return Ok(());
        }
        disks.push(disk).map_err(|_| {
            Error::refused("looking for the disks under", "a device", "there are more than 16")
        })
    })
}

fn visit_disks(
    number: Number,
    layers: u32,
    visit: &mut dyn FnMut(Number) -> Result<(), Error>,
) -> Result<(), Error> {
    let whole = device::whole_disk(number)?;
    let mut lowest = true;
    let mut result = Ok(());
    device::for_each_slave(whole, &mut |slave| {
        lowest = false;
        result = match layers {
            0 => Err(too_many_layers()),
            _ => visit_disks(slave, layers - 1, visit),
        };
        result.is_ok()
    })?;
    result?;
    if lowest { visit(whole) } else { Ok(()) }
}

/// Calls `visit` with the name and number of each stacked device that lies on a disk; loop devices are not.
pub fn for_each_on(disk: Number, visit: &mut dyn FnMut(&str, Number)) {
    let mut look = |name: &str| {
        let number = device::number_named(name);
        // A device that goes away while it is looked at lies on nothing any more.
        if let Some(number) =
            number.filter(|number| *number != disk && number.major != backing::MAJOR)
            && lies_on(number, disk).unwrap_or(false)
        {
            visit(name, number);
        }
        ControlFlow::Continue(())
    };
    // Whole devices only. Without /sys/block there is no disk either.
    let _ = files::for_each_entry("/sys/block", &mut look);
}

/// A stacked device on a disk that cannot be taken down, if there is one.
pub fn unknown_on(disk: Number) -> Option<Text<32>> {
    let mut unknown = None;
    for_each_on(disk, &mut |name, _| {
        if Kind::of(name) == Kind::Unknown {
            unknown = Some(Text::from(name));
        }
    });
    unknown
}

/// Fails when a stacked device lies on a disk.
pub fn none_on(disk: Number) -> Result<(), Error> {
    let mut result = Ok(());
    for_each_on(disk, &mut |name, _| {
        let why: Text<80> = crate::text!("{} lies on it (LVM, dm-crypt, md or zram)", name);
        result = Err(Error::failed("claiming", "the disk", &why)
            .advice("something still has that device open"));
    });
    result
}

/// Takes down the stacked devices on a disk that nothing uses, topmost first; gives how many are gone. Those in use
/// are left: another pass, after more was unmounted, may find them free. Device nodes are made in `nodes`.
pub fn take_down(nodes: &str, disk: Number) -> u32 {
    let mut gone = 0;
    for_each_on(disk, &mut |name, number| {
        if is_held(name) {
            return;
        }
        match take_down_one(nodes, name, number) {
            Ok(()) => {
                crate::debug!("took down {}", name);
                gone += 1;
            }
            Err(error) => crate::trace!("{}", error),
        }
    });
    gone
}

fn take_down_one(nodes: &str, name: &str, number: Number) -> Result<(), Error> {
    let result = match Kind::of(name) {
        Kind::Mapper => {
            let path =
                device::node(nodes, "mapper-control", FileType::CharacterDevice, MAPPER_CONTROL)?;
            let control = files::opened(&path, OFlags::RDWR)?;
            block::mapper_remove(&control, number.to_dev())
        }
        Kind::Md => {
            let path = device::node(nodes, name, FileType::BlockDevice, number)?;
            let array = files::opened(&path, OFlags::RDONLY)?;
            block::md_stop(&array)
        }
        Kind::Zram => {
            let path = crate::path!("/sys/block/{}/reset", name)?;
            let reset = files::opened(&path, OFlags::WRONLY)?;
            files::write_all(&reset, b"1")
        }
        Kind::Unknown => Err(Errno::OPNOTSUPP),
    };
    result.doing("taking down", name)
}

/// True when another device lies on this one, or on a partition of it.
fn is_held(name: &str) -> bool {
    let Ok(folder) = files::below("/sys/block", name) else {
        return true;
    };
    // What has no such folder has no holder.
    let has_holder =
        |place: &str| files::below(place, "holders").is_ok_and(|path| files::has_entry(&path));
    let mut held = has_holder(&folder);
    let listed = files::for_each_entry(&folder, &mut |entry: &str| {
        held |= files::below(&folder, entry).is_ok_and(|place| has_holder(&place));
        if held { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    held || listed.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_the_kernels_names() {
        for (name, metadata, wanted) in [
            ("dm-12", "", Kind::Mapper),
            ("md127", "1.2", Kind::Md),
            ("md0", "none", Kind::Md),
            ("zram1", "", Kind::Zram),
            ("bcache0", "", Kind::Unknown),
            // Intel's, and the array in it.
            ("md127", "external:imsm", Kind::Unknown),
            ("md126", "external:/md127/0", Kind::Unknown),
        ] {
            assert_eq!(Kind::from(name, metadata), wanted, "{name} {metadata}");
        }
    }
}
