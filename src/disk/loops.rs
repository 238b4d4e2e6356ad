//! Loop devices: attached for our own mounts, and those of others that keep the target busy.

use super::device::Number;
use super::stack;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::block;
use crate::text::{PathText, Text};
use core::ops::ControlFlow;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

/// The character device that hands out loop devices: misc 237 (Documentation/admin-guide/devices.txt).
const CONTROL: Number = Number { major: 10, minor: 237 };
/// The major number of loop devices.
const LOOP_MAJOR: u32 = 7;

/// A loop device that goes away with its last user: a mount, or this value.
pub struct Loop {
    /// Its node, in the directory that was named.
    pub path: PathText,
    /// Keeps it attached until it is mounted.
    pub descriptor: OwnedFd,
}

/// Attaches a free loop device to `backing`, from `offset`, `limit` bytes long (0: to the end). Its node, and that of
/// the control device, are looked for in `nodes` and made there when missing.
pub fn attach(nodes: &str, backing: impl AsFd, offset: u64, limit: u64) -> Result<Loop, Error> {
    let control = open_node(nodes, "loop-control", FileType::CharacterDevice, CONTROL)?;
    // Another program may take the free device between the two calls: ask again.
    for _ in 0..10 {
        let number = block::loop_get_free(&control).doing("asking for", "a free loop device")?;
        let name: crate::text::Text<16> = crate::text!("loop{}", number);
        let node = minor_of(&name)?;
        let path = crate::path!("{}/{}", nodes, name)?;
        let descriptor = open_node(nodes, &name, FileType::BlockDevice, node)?;
        match block::loop_attach(&descriptor, &backing, offset, limit) {
            Ok(()) => return Ok(Loop { path, descriptor }),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(Error::os("attaching", &path, errno)),
        }
    }
    Err(Error::failed("attaching", "a loop device", "others keep taking the free one"))
}

/// How deep loop devices may lie on each other: files on file systems in files.
const DEPTH: u32 = 4;

/// Detaches every loop device that lies on a disk, directly or through other loop devices; gives how many are gone.
/// One in use goes with its last user. Others are left alone.
pub fn detach_all(nodes: &str, disk: Number) -> u32 {
    let mut detached = 0;
    for_each_on(nodes, disk, &mut |name, device| {
        let cleared = block::loop_clear(device).doing("detaching", name);
        if let Err(error) = cleared {
            crate::warn!("{}", error);
        }
        detached += u32::from(!is_attached(name));
    });
    detached
}

/// Fails when a loop device lies on a disk.
pub fn none_on(nodes: &str, disk: Number) -> Result<(), Error> {
    let mut result = Ok(());
    for_each_on(nodes, disk, &mut |name, _| {
        result = Err(Error::failed("claiming", "the disk", "a loop device lies on it")
            .advice("something still has that loop device mounted or open"));
        crate::debug!("{} lies on the disk", name);
    });
    result
}

fn is_attached(name: &str) -> bool {
    crate::path!("/sys/block/{}/loop/backing_file", name).is_ok_and(|path| files::exists(&path))
}

/// Calls `visit` with each attached loop device that lies on a disk.
fn for_each_on(nodes: &str, disk: Number, visit: &mut dyn FnMut(&str, &OwnedFd)) {
    let mut look = |name: &str| {
        if name.starts_with("loop") && is_attached(name) {
            let device = minor_of(name)
                .and_then(|number| open_node(nodes, name, FileType::BlockDevice, number));
            match device {
                Ok(device) if lies_on(nodes, &device, disk, DEPTH) => visit(name, &device),
                Ok(_) => {}
                Err(error) => crate::warn!("{}", error),
            }
        }
        ControlFlow::Continue(())
    };
    // Without /sys/block there is no loop device either.
    let _ = files::for_each_entry("/sys/block", &mut look);
}

/// True when the file system of a loop device's backing file, or the device that backs it, is part of a disk.
fn lies_on(nodes: &str, device: &OwnedFd, disk: Number, depth: u32) -> bool {
    let Ok(backing) = block::loop_backing(device) else {
        return false;
    };
    [backing.file_system, backing.block_device].into_iter().filter(|number| *number != 0).any(
        |number| {
            let number = Number::from_stat(number);
            if stack::lies_on(number, disk).unwrap_or(false) {
                return true;
            }
            let Ok(whole) = super::device::whole_disk(number) else {
                return false;
            };
            let name: Text<16> = crate::text!("loop{}", whole.minor);
            depth > 0
                && whole.major == LOOP_MAJOR
                && open_node(nodes, &name, FileType::BlockDevice, whole)
                    .is_ok_and(|below| lies_on(nodes, &below, disk, depth - 1))
        },
    )
}

/// The device number of `loopN`, as sysfs has it.
fn minor_of(name: &str) -> Result<Number, Error> {
    let number = super::device::number_named(name).filter(|number| number.major == LOOP_MAJOR);
    number.ok_or_else(|| Error::failed("looking at", name, "it is not a loop device"))
}

fn open_node(nodes: &str, name: &str, kind: FileType, number: Number) -> Result<OwnedFd, Error> {
    let path = crate::path!("{}/{}", nodes, name)?;
    if !files::exists(&path) {
        files::make_node(&path, kind, number.to_dev()).doing("making the device node", &path)?;
    }
    let flags = OFlags::RDWR;
    // Opening the control node makes the kernel load the driver (char-major-10-237).
    files::open(&path, flags)
        .doing("opening", &path)
        .map_err(|error| error.advice("the kernel needs loop devices (CONFIG_BLK_DEV_LOOP)"))
}
