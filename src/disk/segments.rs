//! Where the bytes of a block device are on the whole disk that it lies on: through partitions, and through the linear
//! tables of device-mapper (LVM's plain volumes).
//!
//! Everything else is refused by what it is: what is striped, mirrored or encrypted is not on the disk as it is read.

use super::device::{self, Number};
use super::table::SECTOR;
use crate::bytes::little_endian;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::block::{self, MAPPER_TABLE};
use rustix::fs::OFlags;

/// The most parts that a device may be in.
const MOST: usize = 64;
/// How many devices may lie on each other.
const LAYERS: u32 = 6;
const CONTROL: &str = "/dev/mapper/control";

/// A part of a device that is in one piece on the disk; all in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it begins on the device.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// Where it begins on the disk.
    pub on_disk: u64,
}

/// A device as parts of one disk.
pub struct Segments {
    /// The whole disk.
    pub disk: Number,
    /// In the order of the device, with nothing between them.
    parts: heapless::Vec<Segment, MOST>,
}

impl Segments {
    /// These parts of a disk, for tests.
    #[cfg(test)]
    pub fn made_of(parts: &[Segment]) -> Self {
        Self {
            disk: Number { major: 8, minor: 0 },
            parts: heapless::Vec::from_slice(parts).unwrap(),
        }
    }

    /// Finds them for the device with this number.
    pub fn of(number: Number) -> Result<Self, Error> {
        Self::within(number, LAYERS)
    }

    fn within(number: Number, layers: u32) -> Result<Self, Error> {
        let name = device::name_of(number)?;
        let refuse = |why: &str| Error::refused(FINDING, &name, why);
        if layers == 0 {
            return Err(refuse("too many devices lie on each other"));
        }
        let size = device::size(number)?;
        let disk = device::whole_disk(number)?;
        if disk != number {
            let below = Self::within(disk, layers - 1)?;
            let start = device::partition_start(number)?;
            let mut parts = heapless::Vec::new();
            below.cut(start, size, 0, &mut parts)?;
            return Ok(Self { disk: below.disk, parts });
        }
        if name.starts_with("dm-") {
            return Self::of_mapper(number, layers);
        }
        if name.starts_with("md") {
            return Err(refuse("it is a software RAID"));
        }
        if device::is_stacked(number)? || !is_plain(&name) {
            return Err(refuse("it is no plain disk"));
        }
        let mut parts = heapless::Vec::new();
        push(&mut parts, Segment { start: 0, length: size, on_disk: 0 })?;
        Ok(Self { disk, parts })
    }

    fn of_mapper(number: Number, layers: u32) -> Result<Self, Error> {
        let control = files::opened(CONTROL, OFlags::RDWR)?;
        let mut table = [0; MAPPER_TABLE];
        let count = block::mapper_table(&control, number.to_dev(), &mut table)
            .doing("reading the table of", &device::mapper_name(number))?;
        let mut all: Option<Self> = None;
        for_each_linear(&table, count, &mut |target| {
            let below = Self::within(target.device, layers - 1)?;
            let whole =
                all.get_or_insert_with(|| Self { disk: below.disk, parts: heapless::Vec::new() });
            if whole.disk != below.disk {
                let name = device::mapper_name(number);
                return Err(Error::refused(FINDING, &name, "it lies on several disks"));
            }
            below.cut(target.offset, target.length, target.start, &mut whole.parts)
        })?;
        let name = device::mapper_name(number);
        all.ok_or_else(|| Error::refused(FINDING, &name, "its table is empty"))
    }

    /// Adds `length` bytes of this device from `start` on as parts of another one, in which they begin at `at`.
    fn cut(
        &self,
        start: u64,
        length: u64,
        at: u64,
        parts: &mut heapless::Vec<Segment, MOST>,
    ) -> Result<(), Error> {
        let mut done = 0;
        while done < length {
            let place = start.checked_add(done).ok_or_else(outside)?;
            let (on_disk, there) = self.place(place).ok_or_else(outside)?;
            let there = there.min(length - done);
            push(parts, Segment { start: at + done, length: there, on_disk })?;
            done += there;
        }
        Ok(())
    }

    /// Where a byte of the device is on the disk, and how many follow it there; nothing for one that it does not have.
    pub fn place(&self, at: u64) -> Option<(u64, u64)> {
        let part = self.parts.iter().find(|part| at >= part.start && at - part.start < part.length);
        part.map(|part| {
            let inside = at - part.start;
            (part.on_disk + inside, part.length - inside)
        })
    }

    /// The parts.
    pub fn parts(&self) -> &[Segment] {
        &self.parts
    }
}

/// What is being done when something fails.
pub const FINDING: &str = "finding on the disk";

fn outside() -> Error {
    Error::refused(FINDING, "the image file", "a device reaches beyond the one that it lies on")
}

fn push(parts: &mut heapless::Vec<Segment, MOST>, part: Segment) -> Result<(), Error> {
    parts.push(part).map_err(|_| {
        Error::refused(FINDING, "the image file", "its device is in more than 64 parts")
    })
}

/// True for the kernel's names of disks whose bytes are where they are read: not for a RAM disk, or one that a process
/// or a network stands behind. A loop device is one only as the disk that is written.
fn is_plain(name: &str) -> bool {
    ["sd", "hd", "vd", "xvd", "mmcblk", "nvme", "loop", "pmem"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// One target of a linear table; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Linear {
    start: u64,
    length: u64,
    device: Number,
    offset: u64,
}

/// Reads a table of `count` targets, as the kernel gives it; one that is not linear is refused by its type.
fn for_each_linear(
    table: &[u8],
    count: u32,
    visit: &mut dyn FnMut(Linear) -> Result<(), Error>,
) -> Result<(), Error> {
    let odd = || Error::refused(FINDING, "the image file", "a table makes no sense");
    let mut at = 0;
    for _ in 0..count {
        // struct dm_target_spec: start and length in sectors, a status, where the next one is, and the type; the
        // parameters behind it end with a NUL.
        let spec = table.get(at..).ok_or_else(odd)?;
        let text = |bytes: &[u8]| -> Option<heapless::String<64>> {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            heapless::String::try_from(core::str::from_utf8(bytes.get(..end)?).ok()?).ok()
        };
        let kind = spec.get(24..40).and_then(text).ok_or_else(odd)?;
        if kind != "linear" {
            return Err(not_linear(&kind));
        }
        let parameters = spec.get(40..).and_then(text).ok_or_else(odd)?;
        let (device, offset) = parameters.split_once(' ').ok_or_else(odd)?;
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(odd);
        visit(Linear {
            start: bytes(little_endian::<8>(spec, 0))?,
            length: bytes(little_endian::<8>(spec, 8))?,
            device: Number::parse(device).ok_or_else(odd)?,
            offset: bytes(crate::text::decimal(offset).ok_or_else(odd)?)?,
        })?;
        let next = little_endian::<4>(spec, 20) as usize;
        if next <= at {
            // Of the last one it says nothing that is used.
            at = table.len();
        } else {
            at = next;
        }
    }
    Ok(())
}

fn not_linear(kind: &str) -> Error {
    let why = match kind {
        "crypt" => "it is encrypted there (dm-crypt)",
        "striped" => "it is striped over disks",
        "multipath" => "there are several ways to its disk",
        _ => "its device is no plain part of a disk",
    };
    Error::refused(FINDING, "the image file", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as the kernel gives it.
    fn table(targets: &[(u64, u64, &str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (start, length, kind, parameters) in targets {
            let begin = bytes.len();
            bytes.extend(start.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend([0; 8]);
            let mut name = kind.as_bytes().to_vec();
            name.resize(16, 0);
            bytes.extend(name);
            bytes.extend(parameters.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let next = bytes.len() as u32;
            bytes[begin + 20..begin + 24].copy_from_slice(&next.to_le_bytes());
        }
        bytes.resize(MAPPER_TABLE, 0);
        bytes
    }

    fn read(bytes: &[u8], count: u32) -> Result<Vec<Linear>, String> {
        let mut found = Vec::new();
        let read = for_each_linear(bytes, count, &mut |target| {
            found.push(target);
            Ok(())
        });
        read.map(|()| found).map_err(|error| {
            let text: crate::text::Text<300> = crate::text!("{}", error);
            text.to_string()
        })
    }

    #[test]
    fn linear_tables_are_read_and_others_refused_by_what_they_are() {
        let bytes = table(&[(0, 100, "linear", "8:2 2048"), (100, 50, "linear", "8:3 0")]);
        let device = |minor| Number { major: 8, minor };
        let wanted = [
            Linear { start: 0, length: 100 << 9, device: device(2), offset: 2048 << 9 },
            Linear { start: 100 << 9, length: 50 << 9, device: device(3), offset: 0 },
        ];
        assert_eq!(read(&bytes, 2).unwrap(), wanted);
        assert!(read(&bytes, 3).is_err(), "there are not so many");
        for (kind, why) in
            [("crypt", "encrypted"), ("striped", "striped"), ("snapshot", "no plain part")]
        {
            let error = read(&table(&[(0, 8, kind, "8:2 0")]), 1).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for parameters in ["", "8:2", "8 0", "8:2 x", "8:2 99999999999999999999"] {
            assert!(read(&table(&[(0, 8, "linear", parameters)]), 1).is_err(), "{parameters}");
        }
    }

    #[test]
    fn a_volume_in_parts_on_a_partition_is_followed_to_the_disk() {
        let partition = Segments::made_of(&[Segment { start: 0, length: 1000, on_disk: 5000 }]);
        let mut parts = heapless::Vec::new();
        partition.cut(600, 100, 0, &mut parts).unwrap();
        partition.cut(0, 50, 100, &mut parts).unwrap();
        assert!(partition.cut(950, 51, 150, &mut parts).is_err(), "beyond the partition");
        let volume = Segments { parts, ..Segments::made_of(&[]) };
        for (at, wanted) in [(0, (5600, 100)), (99, (5699, 1)), (100, (5000, 50)), (149, (5049, 1))]
        {
            assert_eq!(volume.place(at), Some(wanted), "{at}");
        }
        // A part over the gap of the two below it.
        let mut parts = heapless::Vec::new();
        volume.cut(90, 20, 7, &mut parts).unwrap();
        let wanted = [
            Segment { start: 7, length: 10, on_disk: 5690 },
            Segment { start: 17, length: 10, on_disk: 5000 },
        ];
        assert_eq!(parts, wanted);
    }

    #[test]
    fn only_disks_whose_bytes_are_where_they_are_read_are_plain() {
        for (name, wanted) in [
            ("sda", true),
            ("mmcblk0", true),
            ("nvme0n1", true),
            ("vdb", true),
            ("zram0", false),
            ("nbd0", false),
            ("rbd1", false),
            ("ram0", false),
            ("bcache0", false),
            ("drbd0", false),
        ] {
            assert_eq!(is_plain(name), wanted, "{name}");
        }
    }
}
