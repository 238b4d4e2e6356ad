//! What a loop device lies on.
//!
//! For [`super::stack`], which follows whatever lies on a disk, and [`super::loops`], which detaches what it found.

use super::device::{self, Number};
use super::mounts;
use crate::files;
use crate::sys::block;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// The major number of loop devices.
pub const MAJOR: u32 = 7;

/// What a loop device lies on: the device of the file system that its backing file is on, and the backing device if it
/// is one. Nothing when nobody can tell: it has no node, or is not attached.
pub fn of(number: Number) -> [Option<Number>; 2] {
    let Ok(name) = device::name_of(number) else {
        return [None; 2];
    };
    let node = files::below("/dev", &name).ok();
    let device = node.and_then(|node| files::open(&node, OFlags::RDONLY).ok());
    device.map_or([None; 2], |device| backing_of(&device, &name))
}

/// The same of the open loop device `name`.
pub(super) fn backing_of(device: &OwnedFd, name: &str) -> [Option<Number>; 2] {
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
    let mut buffer = [0; 1024];
    let path = crate::format!("/sys/block/{}/loop/backing_file", name);
    let file = files::text_at(path, &mut buffer)?;
    mounts::above(file).ok()??.lies_on()
}
