//! Loop devices: attached for our own mounts, and those of others that keep the target busy.

use super::device::{self, Number};
use super::{mounts, stack};
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::block;
use crate::text::PathText;
use core::ops::ControlFlow;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

/// The character device that hands out loop devices: misc 237 (Documentation/admin-guide/devices.txt).
const CONTROL: Number = Number { major: 10, minor: 237 };
/// The major number of loop devices.
pub const MAJOR: u32 = 7;

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
    let device = open_node(nodes, name, FileType::BlockDevice, number)?;
    let mut lies_on = false;
    for below in backing_of(&device, name).into_iter().flatten() {
        lies_on |= number != disk && stack::lies_on(below, disk)?;
    }
    Ok(lies_on.then_some(device))
}

/// What a loop device lies on: the device of the file system that its backing file is on, and the backing device if it
/// is one. Nothing when nobody can tell: it has no node, or is not attached.
pub fn backing(number: Number) -> [Option<Number>; 2] {
    let Ok(name) = device::name_of(number) else {
        return [None; 2];
    };
    let node = crate::path!("/dev/{}", name).ok();
    let device = node.and_then(|node| files::open(&node, OFlags::RDONLY).ok());
    device.map_or([None; 2], |device| backing_of(&device, &name))
}

fn backing_of(device: &OwnedFd, name: &str) -> [Option<Number>; 2] {
    let Ok(backing) = block::loop_backing(device) else {
        return [None; 2];
    };
    let some = |device| Some(device).filter(|device| *device != 0).map(Number::from_stat);
    let below = some(backing.file_system).filter(|number| number.major != 0);
    [below.or_else(|| device_of_file(name)), some(backing.block_device)]
}

/// The device that a loop device's file lies on, by the mount that it lies on: files of btrfs have device numbers that
/// no mount has. The kernel prints the path as whoever reads it would have to open it.
fn device_of_file(name: &str) -> Option<Number> {
    let mut buffer = [0; 4096];
    let path = crate::path!("/sys/block/{}/loop/backing_file", name).ok()?;
    let file = files::read_text(&path, &mut buffer).ok()?;
    mounts::above(file).ok()??.lies_on()
}

/// The device number of `loopN`, as sysfs has it.
fn minor_of(name: &str) -> Result<Number, Error> {
    let number = device::number_named(name).filter(|number| number.major == MAJOR);
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
