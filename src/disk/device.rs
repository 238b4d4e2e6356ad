//! Block devices as the kernel shows them in /sys (Documentation/ABI/stable/sysfs-block).

use crate::error::{Doing, Error};
use crate::files;
use crate::text::{PathText, Text};
use core::ops::ControlFlow;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

/// A block device's number.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Number {
    /// The driver.
    pub major: u32,
    /// The device.
    pub minor: u32,
}

impl Number {
    /// From the form that stat(2) has.
    pub fn from_stat(device: u64) -> Self {
        Self {
            major: rustix::fs::major(device as rustix::fs::Dev),
            minor: rustix::fs::minor(device as rustix::fs::Dev),
        }
    }

    /// From `MAJOR:MINOR`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The form that mknod(2) takes.
    pub fn to_dev(self) -> rustix::fs::Dev {
        rustix::fs::makedev(self.major, self.minor)
    }

    /// The device's folder in sysfs.
    fn folder(self) -> Result<PathText, Error> {
        crate::path!("/sys/dev/block/{}:{}", self.major, self.minor)
    }
}

/// A whole disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The kernel's name, as in /dev.
    pub name: Text<32>,
    /// Its number.
    pub number: Number,
    /// Its size in bytes.
    pub size: u64,
    /// The smallest unit of reading and writing, in bytes: 512 or 4096.
    pub logical_block: u32,
    /// The kernel refuses to write to it.
    pub read_only: bool,
}

/// The number of the block device at `path`, symbolic links followed.
pub fn number_of(path: &str) -> Result<Number, Error> {
    let status =
        files::status(path).doing("looking at the device", path).map_err(Error::as_refusal)?;
    if !FileType::from_raw_mode(status.st_mode).is_block_device() {
        return Err(Error::refused("looking at the device", path, "it is not a block device"));
    }
    Ok(Number::from_stat(status.st_rdev))
}

/// The kernel's name of a device.
pub fn name_of(number: Number) -> Result<Text<32>, Error> {
    let folder = number.folder()?;
    let path = files::below(&folder, "uevent")?;
    let mut buffer = [0; 1024];
    let text = files::read_text(&path, &mut buffer).doing("reading", &path)?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(Text::from).ok_or_else(|| Error::failed("reading", &path, "the device has no name"))
}

/// True when the device is a partition.
pub fn is_partition(number: Number) -> Result<bool, Error> {
    let folder = number.folder()?;
    Ok(files::is_below(&folder, "partition"))
}

/// The whole disk that a device is, or is a partition of.
pub fn whole_disk(number: Number) -> Result<Number, Error> {
    if !is_partition(number)? {
        return Ok(number);
    }
    // ".." through the symbolic link that the folder is: the disk's folder.
    let folder = number.folder()?;
    read_number(&files::below(&folder, "../dev")?)
}

/// Where a partition begins on its disk, in bytes.
#[cfg(feature = "core")]
pub fn partition_start(number: Number) -> Result<u64, Error> {
    sectors(number, "start")
}

/// The size of a device of any kind in bytes.
#[cfg(feature = "core")]
pub fn size(number: Number) -> Result<u64, Error> {
    sectors(number, "size")
}

/// A number of sectors that sysfs has of a device, in bytes.
#[cfg(feature = "core")]
fn sectors(number: Number, name: &str) -> Result<u64, Error> {
    let path = files::below(&number.folder()?, name)?;
    let sectors = files::read_number(&path);
    let bytes = sectors.and_then(|sectors| sectors.checked_mul(super::table::SECTOR));
    bytes.ok_or_else(|| Error::failed("reading", &path, "it is not a number of sectors"))
}

/// A number that is another one each time that a disk is plugged in, never given twice (`diskseq`, Linux 5.15); 0 where
/// the kernel has none.
pub fn sequence(number: Number) -> u32 {
    let folder = number.folder().ok();
    folder
        .and_then(|folder| files::number_below(&folder, "diskseq"))
        .map_or(0, |found| found as u32)
}

/// True when a device lies on others.
pub fn is_stacked(number: Number) -> Result<bool, Error> {
    let folder = number.folder()?;
    Ok(files::has_entry(&files::below(&folder, "slaves")?))
}

/// Calls `visit` with each device that a stack (device-mapper, md) names as one it lies on, until it says false.
pub fn for_each_slave(number: Number, visit: &mut dyn FnMut(Number) -> bool) -> Result<(), Error> {
    let folder = number.folder()?;
    let folder = files::below(&folder, "slaves")?;
    let mut result = Ok(());
    // A partition has no such folder, and lies on nothing but its disk.
    let _ = files::for_each_entry(&folder, &mut |name: &str| {
        match crate::path!("{}/{}/dev", folder, name).and_then(|path| read_number(&path)) {
            Ok(slave) if visit(slave) => return ControlFlow::Continue(()),
            Ok(_) => {}
            Err(error) => result = Err(error),
        }
        ControlFlow::Break(())
    });
    result
}

/// The name that device-mapper's user gave a device (LVM's, cryptsetup's); empty for what is none of its devices.
pub fn mapper_name(number: Number) -> Text<128> {
    let mut buffer = [0; 160];
    Text::from(mapper_text(number, "name", &mut buffer))
}

/// True for one of device-mapper's devices that is several ways to the same disk (multipath-tools gives it such a
/// uuid).
pub fn is_multipath(number: Number) -> bool {
    let mut buffer = [0; 160];
    mapper_text(number, "uuid", &mut buffer).starts_with("mpath-")
}

/// What a file of device-mapper says of a device; nothing for what is none of its devices.
fn mapper_text<'a>(number: Number, file: &str, buffer: &'a mut [u8]) -> &'a str {
    let Number { major, minor } = number;
    let path = crate::format!("/sys/dev/block/{}:{}/dm/{}", major, minor, file);
    files::text_at(path, buffer).unwrap_or_default()
}

/// The number of a whole disk or stacked device by its kernel name, if there is such a device.
pub fn number_named(name: &str) -> Option<Number> {
    number_in("/sys/block", name, "dev")
}

/// The number of a device of any kind by its kernel name, if there is such a device.
pub fn number_in_class(name: &str) -> Option<Number> {
    number_in("/sys/class/block", name, "dev")
}

/// The number that a file of sysfs has, if there is one.
pub fn number_in(folder: &str, name: &str, file: &str) -> Option<Number> {
    read_number(&crate::path!("{}/{}/{}", folder, name, file).ok()?).ok()
}

/// The number of a device by the path of its node, as the kernel prints it: only its name counts, so that it is found
/// when /dev lies elsewhere or is gone. A name of device-mapper is looked for among its devices.
pub fn number_of_node(path: &str) -> Option<Number> {
    let (_, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())?;
    if let Some(number) = number_in_class(name) {
        return Some(number);
    }
    let mut found = None;
    // Without /sys/block there is no device.
    let _ = files::for_each_entry("/sys/block", &mut |device: &str| {
        found = number_named(device).filter(|number| *mapper_name(*number) == *name);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

fn read_number(path: &str) -> Result<Number, Error> {
    let mut buffer = [0; 32];
    let text = files::read_text(path, &mut buffer).doing("reading", path)?;
    Number::parse(text).ok_or_else(|| Error::failed("reading", path, "it is not a device number"))
}

/// The facts about a whole disk.
pub fn disk(number: Number) -> Result<Disk, Error> {
    let folder = number.folder()?;
    let name = name_of(number)?;
    let size = files::number_below(&folder, "size");
    let block = files::number_below(&folder, "queue/logical_block_size");
    match (size, block) {
        (Some(sectors), Some(block @ (512 | 1024 | 2048 | 4096))) => Ok(Disk {
            name,
            number,
            size: sectors * super::table::SECTOR,
            logical_block: block as u32,
            read_only: files::number_below(&folder, "ro") == Some(1),
        }),
        _ => Err(Error::failed("reading the size of", &name, "the kernel does not tell it")),
    }
}

/// The path of a device's node in `nodes`, where it is made when it is missing.
pub fn node(nodes: &str, name: &str, kind: FileType, number: Number) -> Result<PathText, Error> {
    let path = files::below(nodes, name)?;
    if !files::exists(&path) {
        files::make_node(&path, kind, number.to_dev()).doing("making the device node", &path)?;
    }
    Ok(path)
}

/// Makes the node of a block device, mode 0600.
pub fn make_node(path: &str, number: Number) -> Result<(), Error> {
    files::make_node(path, FileType::BlockDevice, number.to_dev())
        .doing("making the device node", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_sysfs_writes_them() {
        assert_eq!(Number::parse("259:2"), Some(Number { major: 259, minor: 2 }));
        assert_eq!(Number::parse("259"), None);
        let number = Number { major: 8, minor: 300 };
        assert_eq!(Number::from_stat(number.to_dev()), number);
    }

    #[test]
    fn what_is_no_block_device_is_refused() {
        for path in ["/dev/null", "/nowhere", "/"] {
            let error = number_of(path).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Refused);
        }
    }
}
