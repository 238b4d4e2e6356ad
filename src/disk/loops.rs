//! Loop devices: attached for our own mounts, and those of others that keep the target busy.

pub use super::backing::MAJOR;
use super::backing::backing_of;
use super::device::{self, Number};
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
/// A loop device that goes away with its last user: a mount, or this value.
pub struct Loop {
    /// Its node, in the directory that was named.
    pub path: PathText,
    /// Keeps it attached until it is mounted. Read-only: where the kernel forbids writing to what is mounted
    /// (`bdev_allow_write_mounted=0`, Linux 6.8), it mounts nothing that is open for writing (bdev_may_open() in
    /// block/bdev.c).
    pub descriptor: OwnedFd,
}

/// Attaches a free loop device to `backing`, from `offset`, `limit` bytes long (0: to the end). Its node, and that of
/// the control device, are looked for in `nodes` and made there when missing.
pub fn attach(nodes: &str, backing: impl AsFd, offset: u64, limit: u64) -> Result<Loop, Error> {
    let control =
        open_node(nodes, "loop-control", FileType::CharacterDevice, CONTROL, OFlags::RDWR)?;
    // Another program may take the free device between the two calls: ask again.
    for _ in 0..10 {
        let number = block::loop_get_free(&control).doing("asking for", "a free loop device")?;
        let name: Text<16> = crate::text!("loop{}", number);
        let node = minor_of(&name)?;
        let path = files::below(nodes, &name)?;
        // For writing, or the device would be read-only (loop_configure() in drivers/block/loop.c).
        let writer = open_node(nodes, &name, FileType::BlockDevice, node, OFlags::RDWR)?;
        match block::loop_attach(&writer, &backing, offset, limit) {
            Ok(()) => {
                // Before the writer is closed: the device goes with its last user.
                let descriptor =
                    open_node(nodes, &name, FileType::BlockDevice, node, OFlags::RDONLY)?;
                return Ok(Loop { path, descriptor });
            }
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(Error::os("attaching", &path, errno)),
        }
    }
    Err(Error::failed("attaching", "a loop device", "others keep taking the free one"))
}

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
    let mut note = |name: &str| {
        let why: Text<60> = crate::text!("{} lies on it", name);
        result = Err(Error::failed("claiming", "the disk", &why)
            .advice("something still has that loop device mounted or open"));
    };
    if crate::IS_WHOLE {
        for_each_on(nodes, disk, &mut |name, _| note(name));
    } else {
        for_each_straight_on(disk, &mut note);
    }
    result
}

/// The same for those whose backing file is the disk or a partition of it, for the rescue set: one that lies on a file
/// of a file system there is found by that claim, which the kernel knows of.
fn for_each_straight_on(disk: Number, visit: &mut dyn FnMut(&str)) {
    let mut look = |name: &str| {
        let mut buffer = [0; 256];
        let backing = files::below("/sys/block", name)
            .ok()
            .and_then(|folder| files::text_below(&folder, "loop/backing_file", &mut buffer));
        let number = backing.and_then(|path| device::number_of(path).ok());
        if number.is_some_and(|number| device::whole_disk(number).is_ok_and(|found| found == disk))
        {
            visit(name);
        }
        ControlFlow::Continue(())
    };
    // Without /sys/block there is no loop device either.
    let _ = files::for_each_entry("/sys/block", &mut look);
}

fn is_attached(name: &str) -> bool {
    files::below("/sys/block", name)
        .is_ok_and(|folder| files::is_below(&folder, "loop/backing_file"))
}

/// Calls `visit` with each attached loop device that lies on a disk. Nodes are looked for in `nodes`, and made there
/// when missing.
pub fn for_each_on(nodes: &str, disk: Number, visit: &mut dyn FnMut(&str, &OwnedFd)) {
    let mut look = |name: &str| {
        if name.starts_with("loop") && is_attached(name) {
            match on_disk(nodes, name, disk) {
                Ok(Some(device)) => visit(name, &device),
                Ok(None) => {}
                Err(error) => crate::warn!("{}", error),
            }
        }
        ControlFlow::Continue(())
    };
    // Without /sys/block there is no loop device either.
    let _ = files::for_each_entry("/sys/block", &mut look);
}

/// The loop device, if it lies on the disk and is not the disk itself.
fn on_disk(nodes: &str, name: &str, disk: Number) -> Result<Option<OwnedFd>, Error> {
    let number = minor_of(name)?;
    // Not for writing: while it is mounted, some kernels refuse that (`Loop::descriptor`), and it would be overlooked.
    let device = open_node(nodes, name, FileType::BlockDevice, number, OFlags::RDONLY)?;
    let mut lies_on = false;
    for below in backing_of(&device, name).into_iter().flatten() {
        lies_on |= number != disk && stack::lies_on(below, disk)?;
    }
    Ok(lies_on.then_some(device))
}

/// The device number of `loopN`, as sysfs has it.
fn minor_of(name: &str) -> Result<Number, Error> {
    let number = device::number_named(name).filter(|number| number.major == MAJOR);
    number.ok_or_else(|| Error::failed("looking at", name, "it is not a loop device"))
}

fn open_node(
    nodes: &str,
    name: &str,
    kind: FileType,
    number: Number,
    flags: OFlags,
) -> Result<OwnedFd, Error> {
    let path = device::node(nodes, name, kind, number)?;
    // Opening the control node makes the kernel load the driver (char-major-10-237).
    files::opened(&path, flags)
        .map_err(|error| error.advice("the kernel needs loop devices (CONFIG_BLK_DEV_LOOP)"))
}
