//! Loop devices: attached for our own mounts, and those of others that keep the target busy.

use super::device::Number;
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

/// Detaches every loop device whose backing file lies on one of the devices for which `is_ours` says true, or is
/// one of them; gives how many. Others are left alone.
pub fn detach_all(nodes: &str, is_ours: impl Fn(Number) -> bool) -> u32 {
    let mut detached = 0;
    let mut visit = |name: &str| {
        let attached = crate::path!("/sys/block/{}/loop/backing_file", name);
        if name.starts_with("loop") && attached.is_ok_and(|path| files::exists(&path)) {
            match detach_one(nodes, name, &is_ours) {
                Ok(true) => detached += 1,
                Ok(false) => {}
                Err(error) => crate::warn!("{}", error),
            }
        }
        ControlFlow::Continue(())
    };
    // Without /sys/block there is no loop device either.
    let _ = files::for_each_entry("/sys/block", &mut visit);
    detached
}

fn detach_one(nodes: &str, name: &str, is_ours: impl Fn(Number) -> bool) -> Result<bool, Error> {
    let device = open_node(nodes, name, FileType::BlockDevice, minor_of(name)?)?;
    let backing = block::loop_backing(&device).doing("looking behind", name)?;
    let ours = [backing.file_system, backing.block_device]
        .into_iter()
        .any(|number| number != 0 && is_ours(Number::from_stat(number)));
    if ours {
        block::loop_clear(&device).doing("detaching", name)?;
        crate::debug!("detached {}", name);
    }
    Ok(ours)
}

/// The device number of `loopN`, as sysfs has it.
fn minor_of(name: &str) -> Result<Number, Error> {
    let path = crate::path!("/sys/block/{}/dev", name)?;
    let mut buffer = [0; 32];
    let text = files::read_text(&path, &mut buffer).doing("reading", &path)?;
    let number = Number::parse(text).filter(|number| number.major == LOOP_MAJOR);
    number.ok_or_else(|| Error::failed("reading", &path, "it is not a loop device"))
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
