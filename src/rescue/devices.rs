//! Files on disks of which nothing is mounted: `DEVICE:/PATH`, where DEVICE is `/dev/…`, `LABEL=…` or `UUID=…`. The
//! device is waited for, and mounted read-only with whatever file system the kernel knows. What has no such beginning
//! is a path in the initramfs itself.

use crate::disk::device::{self, Number};
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::sys::clock;
use crate::text::{PathText, Text, Writer};
use core::ops::ControlFlow;
use core::time::Duration;
use rustix::mount::MountFlags;
use ufmt::uWrite;

/// The device and the path of a place; nothing for a path in the initramfs.
pub fn parts(place: &str) -> Option<(&str, &str)> {
    if !["/dev/", "LABEL=", "UUID="].iter().any(|start| place.starts_with(start)) {
        return None;
    }
    // A label may have colons in it.
    let at = place.as_bytes().windows(2).position(|pair| pair == b":/")?;
    Some((place.get(..at)?, place.get(at + 1..)?))
}

/// Waits until something `is_there`, for so many seconds, and says what it waits for.
#[inline(never)]
pub fn wait_for(
    what: &str,
    seconds: u64,
    is_there: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let watch = Stopwatch::start();
    let mut is_said = false;
    while let Err(error) = is_there() {
        if watch.elapsed() >= seconds * 1000 {
            return Err(error.as_failure());
        }
        if !is_said {
            is_said = true;
            crate::info!("waiting for {}, {} s at most", what, seconds);
        }
        clock::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The file at a place, whose device must not be part of the disk `target`: it is going to be written. The device is
/// mounted on `point`, in place of what an earlier try has mounted there.
#[inline(never)]
pub fn file_at(place: &str, point: &str, target: Number, seconds: u64) -> Result<PathText, Error> {
    let Some((device, path)) = parts(place) else {
        return crate::path!("{}", place);
    };
    let (mut node, mut number) = (PathText::new(), target);
    wait_for(device, seconds, &mut || {
        node = node_of(device)?;
        number = device::number_of(&node)?;
        Ok(())
    })?;
    if device::whole_disk(number)? == target {
        let why: Text<120> = crate::text!("{} is part of the disk that would be written", node);
        return Err(Error::refused("looking for", place, &why)
            .advice("put the image onto another disk or a USB stick"));
    }
    mount(&node, point)?;
    crate::path!("{}{}", point, path)
}

/// The node of a device that is named by its path, its label or its UUID.
fn node_of(device: &str) -> Result<PathText, Error> {
    let (is_label, wanted) = match device.split_once('=') {
        Some((kind, wanted)) if !device.starts_with('/') => (kind == "LABEL", wanted),
        _ => return crate::path!("{}", device),
    };
    let mut found = None;
    let mut count = 0;
    let listed = files::for_each_entry("/sys/class/block", &mut |name: &str| {
        if let Ok(path) = files::below("/dev", name) {
            let [label, uuid] = names_of(&path);
            if if is_label { *label == *wanted } else { uuid.eq_ignore_ascii_case(wanted) } {
                (found, count) = (Some(path), count + 1);
            }
        }
        ControlFlow::Continue(())
    });
    listed.doing("listing", "/sys/class/block")?;
    let why = if count > 1 { "several disks have it" } else { "no disk has it" };
    found.filter(|_| count == 1).ok_or_else(|| Error::failed("looking for", device, why))
}

/// The label and the UUID of what is on a device: of a FAT what its boot sector says, of an ext2, ext3 or ext4 what its
/// superblock does.
fn names_of(node: &str) -> [Text<40>; 2] {
    let mut start = [0; 2048];
    names_in(files::read_start(node, &mut start).unwrap_or_default())
}

/// Where in the first 2 KiB the label and the UUID are, and what tells that they are there: ext4 (struct
/// ext4_super_block in fs/ext4/ext4.h), FAT32 and FAT16 (struct fat_boot_sector in
/// include/uapi/linux/msdos_fs.h).
const FORMATS: [Form; 3] = [
    ((1080, b"\x53\xef"), (1144, 16), (1128, 16)),
    ((82, b"FAT32"), (71, 11), (67, 4)),
    ((54, b"FAT1"), (43, 11), (39, 4)),
];

/// Place and bytes of the mark, place and length of the label and of the UUID.
type Form = ((usize, &'static [u8]), (usize, usize), (usize, usize));

fn names_in(start: &[u8]) -> [Text<40>; 2] {
    let piece = |at: usize, length| start.get(at..at + length).unwrap_or_default();
    for ((at, mark), label, uuid) in FORMATS {
        if piece(at, mark.len()) == mark {
            let label = piece(label.0, label.1).split(|byte| *byte == 0).next();
            let label = crate::text::printable(label.unwrap_or_default().trim_ascii_end());
            return [label, uuid_of(piece(uuid.0, uuid.1))];
        }
    }
    [Text::new(), Text::new()]
}

/// As people write it: that of a FAT from its last byte on, in two groups.
fn uuid_of(bytes: &[u8]) -> Text<40> {
    Text::build(&mut |writer: &mut Writer| {
        let is_fat = bytes.len() == 4;
        for index in 0..bytes.len() {
            if matches!((is_fat, index), (true, 2) | (false, 4 | 6 | 8 | 10)) {
                writer.write_str("-")?;
            }
            let byte = bytes.get(if is_fat { 3 - index } else { index }).copied().unwrap_or(0);
            for digit in [byte >> 4, byte & 15] {
                writer.write_char(char::from_digit(digit.into(), 16).unwrap_or('0'))?;
            }
        }
        Ok(())
    })
}

/// Mounts a device read-only, with the first file system of the kernel that takes it.
fn mount(node: &str, point: &str) -> Result<(), Error> {
    // An earlier try may have been ended with it mounted.
    let _ = mounts::detach(point);
    let _ = files::make_directory(point);
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // First of all the one that takes ext2 and ext3, too.
    let mut result = mounts::mount_at(node, point, "ext4", flags, "");
    let listed = files::for_each_line("/proc/filesystems", &mut |line: &[u8]| {
        if let (true, Some(kind)) = (result.is_err(), line.strip_prefix(b"\t")) {
            result = mounts::mount_at(node, point, files::as_text(kind), flags, "");
        }
    });
    listed.doing("reading", "/proc/filesystems")?;
    match result {
        Ok(()) => Ok(()),
        Err(errno) => Err(Error::os("mounting", node, errno).advice(
            "the kernel must know its file system: a module belongs into /modules of the initramfs",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_paths() {
        for (place, wanted) in [
            ("/dev/sda1:/a/b.img.gz", Some(("/dev/sda1", "/a/b.img.gz"))),
            ("LABEL=my:stick:/x", Some(("LABEL=my:stick", "/x"))),
            ("UUID=1A2B-3C4D:/x y", Some(("UUID=1A2B-3C4D", "/x y"))),
            ("/image.gz", None),
            ("/dev/sda1", None),
            ("/dev/sda1:x", None),
            ("http://host/x", None),
            ("NAME=x:/y", None),
        ] {
            assert_eq!(parts(place), wanted, "{place}");
        }
    }

    #[test]
    fn labels_and_uuids_are_read_where_they_are() {
        let names = |pieces: &[(usize, &[u8])]| {
            let mut start = [0; 2048];
            for (at, bytes) in pieces {
                start[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
            names_in(&start).map(|text| text.to_string())
        };
        let serial = [0xef, 0xcd, 0x34, 0x12];
        let fat32 = names(&[(82, b"FAT32   "), (71, b"STICK      "), (67, &serial)]);
        assert_eq!(fat32, ["STICK", "1234-cdef"]);
        let fat16 = names(&[(54, b"FAT16   "), (43, b"MY STICK   "), (39, &serial)]);
        assert_eq!(fat16, ["MY STICK", "1234-cdef"]);
        let uuid: Vec<u8> = (0x10..0x20).collect();
        let ext4 = names(&[(1080, &[0x53, 0xef]), (1144, b"images"), (1128, &uuid)]);
        assert_eq!(ext4, ["images", "10111213-1415-1617-1819-1a1b1c1d1e1f"]);
        assert_eq!(names(&[]), ["", ""]);
        assert_eq!(names_in(b"short").map(|text| text.to_string()), ["", ""]);
    }
}
