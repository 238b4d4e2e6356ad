//! What a disk is, whatever number it bears: how a disk that went away and came back is told from every other.
//!
//! A number of a block device says where a disk was plugged in first, no more: a USB bridge that resets itself comes
//! back as the next free letter, and another disk may have taken the old one. World wide names and serial numbers stay
//! (Documentation/ABI/stable/sysfs-block and testing/sysfs-bus-usb; the MMC core's `cid`). A disk that has none is
//! known by where it is plugged in, and each time that it is plugged in by `diskseq`, which is never given twice.

use super::device::Number;
use super::table::SECTOR;
use crate::files;
use crate::text::{Text, printable, split_last};
use core::ops::ControlFlow;
use ufmt::uwrite;

/// The longest identity, in bytes: a T10 name, the serial number of a USB bridge and a path. A part that finds no room
/// is left out.
pub const LONGEST: usize = 320;

/// An identity: parts of a word, `=` and a value without spaces, with spaces between. Empty for a disk that tells
/// nothing.
pub type Identity = Text<LONGEST>;

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";

/// Where a disk tells who it is, below its folder in sysfs: NVMe; SCSI and ATA; virtio; MMC; the controller of NVMe.
const PLACES: [&str; 5] = ["wwid", "device/wwid", "serial", "device/cid", "device/serial"];

/// The part that is another one each time that a disk is plugged in (Linux 5.15).
const SEQUENCE: &str = "diskseq";
/// The part that says where a disk is plugged in.
const PLACE: &str = "path";
/// The part that says which one of several behind one plug; no disk is known by it alone.
const UNIT: &str = "unit";

/// Above a disk at a USB port are its SCSI target and host, the interface and the device.
const USB_LEVELS: u32 = 6;

/// All that a disk tells of itself, with the slot of a reader that has several. `folder` is the disk's own in sysfs.
fn of(folder: &str) -> Identity {
    let mut all = Identity::new();
    let sequence = crate::path!("{}/{}", folder, SEQUENCE).ok();
    if let Some(number) = sequence.and_then(|path| files::read_number(&path)) {
        let number: Text<20> = crate::text!("{}", number);
        add(&mut all, SEQUENCE, &number);
    }
    for place in &PLACES {
        add(&mut all, place, &told(folder, place));
    }
    let serial = usb_serial(folder);
    if !serial.is_empty() {
        add(&mut all, "usb", &serial);
        // Without a serial number the slot says nothing.
        add(&mut all, UNIT, &unit(folder));
    }
    let mut buffer = [0; 256];
    add(&mut all, PLACE, place(files::read_link(folder, &mut buffer).unwrap_or_default()));
    all
}

/// Where a disk is plugged in: the path to its folder in sysfs, up to where numbers begin that are given out anew each
/// time. Empty for one that is not plugged in anywhere.
fn place(link: &str) -> &str {
    // By bytes: the search for words of std is a kilobyte.
    let find = |text: &str, marks: &[&str]| {
        let is_at = |at: &usize| {
            marks.iter().any(|mark| {
                text.as_bytes().get(*at..).is_some_and(|rest| rest.starts_with(mark.as_bytes()))
            })
        };
        (0..text.len()).find(is_at)
    };
    const BEFORE: &str = "/devices/";
    let path =
        find(link, &[BEFORE]).and_then(|at| link.get(at + BEFORE.len()..)).unwrap_or_default();
    let end = find(path, &["/host", "/mmc_host/", "/nvme/", "/block/"]).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or_default();
    if path.starts_with("virtual") { "" } else { path }
}

/// True when what was `planned` and what a disk tells `now` are of one disk. No part that both have may differ, and one
/// that belongs to the disk alone must be the same. Once it is written it may have been plugged in again; one that
/// tells nothing else is known by its place then.
pub fn is_same(planned: &str, now: &str, is_written: bool) -> bool {
    let value = |text, word| parts(text).find(|(found, _)| *found == word);
    let (mut is_named, mut is_proven, mut differs, mut is_elsewhere) = (false, false, false, false);
    for part in parts(planned) {
        let (word, found) = (part.0, value(now, part.0));
        let agrees = found == Some(part);
        match word {
            SEQUENCE | PLACE if !is_written => differs |= found.is_some() && !agrees,
            SEQUENCE => {}
            PLACE => is_elsewhere = !agrees,
            _ => {
                differs |= found.is_some() && !agrees;
                is_named |= word != UNIT;
                is_proven |= word != UNIT && agrees;
            }
        }
    }
    !differs && if is_named { is_proven } else { !is_elsewhere }
}

fn parts(identity: &str) -> impl Iterator<Item = (&str, &str)> {
    identity.split(' ').filter_map(|part| part.split_once('='))
}

/// Of an identity that another disk has too, what is left: the part that tells whether it was plugged in again.
pub fn sequence_of(identity: &str) -> &str {
    identity.split(' ').next().filter(|part| part.starts_with(SEQUENCE)).unwrap_or_default()
}

/// What the disk tells that bears this number now; `sysfs` is where that is mounted.
pub fn of_number(sysfs: &str, number: Number) -> Identity {
    let folder = crate::path!("{}/dev/block/{}:{}", sysfs, number.major, number.minor);
    folder.map_or(Identity::new(), |folder| of(&folder))
}

/// What is in a file of a disk, if it can tell one disk from another: a row of the same sign is what makers leave there
/// who have no numbers.
fn told(folder: &str, place: &str) -> Text<100> {
    let mut buffer = [0; 128];
    let bytes =
        files::below(folder, place).ok().and_then(|path| files::read(&path, &mut buffer).ok());
    let bytes = bytes.unwrap_or_default().trim_ascii();
    let differs = bytes.iter().any(|byte| Some(byte) != bytes.first());
    if !differs || bytes.len() < 4 {
        return Text::new();
    }
    let text: Text<100> = printable(bytes);
    let mut gap = "";
    Text::build(&mut |writer: &mut crate::text::Writer| {
        // Spaces part the parts.
        text.split(' ')
            .try_for_each(|word| uwrite!(writer, "{}{}", core::mem::replace(&mut gap, "_"), word))
    })
}

fn add(all: &mut Identity, word: &str, value: &str) {
    if !value.is_empty() && all.len() + word.len() + value.len() + 2 <= LONGEST {
        let gap = if all.is_empty() { "" } else { " " };
        *all = crate::text!("{}{}{}={}", all, gap, word, value);
    }
}

/// The serial number of the USB device that a disk is part of, if it has one. Of the device itself, not of a hub above.
fn usb_serial(folder: &str) -> Text<100> {
    let mut place: Text<40> = Text::from("device");
    for _ in 0..USB_LEVELS {
        let maker: Text<60> = crate::text!("{}/idVendor", place);
        if files::is_below(folder, &maker) {
            let file: Text<60> = crate::text!("{}/serial", place);
            return told(folder, &file);
        }
        place = crate::text!("{}/..", place);
    }
    Text::new()
}

/// The logical unit of a SCSI disk: the last part of its address, as the link to its device ends.
fn unit(folder: &str) -> Text<20> {
    let mut buffer = [0; 256];
    let path = files::below(folder, "device").ok();
    let link = path.and_then(|path| files::read_link(&path, &mut buffer).ok());
    Text::from(link.and_then(|link| split_last(link, b':')).map_or("", |(_, unit)| unit))
}

/// The one disk of this identity and size (bytes), wherever it was plugged in again; none when there are several, or
/// when the identity tells nothing.
pub fn find(sysfs: &str, identity: &str, size: u64) -> Option<Number> {
    let mut found = None;
    let mut count = 0;
    let folder = files::below(sysfs, "block").ok()?;
    // It is as true of a disk that tells nothing.
    if is_same(identity, "", true) {
        return None;
    }
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        if let Some((number, _)) = number_and_size(sysfs, name).filter(|(_, found)| *found == size)
            && is_same(identity, &of_number(sysfs, number), true)
        {
            (found, count) = (Some(number), count + 1);
        }
        ControlFlow::Continue(())
    });
    visited.ok().and(found).filter(|_| count == 1)
}

/// The number and the size in bytes of a whole disk.
fn number_and_size(sysfs: &str, name: &str) -> Option<(Number, u64)> {
    let mut buffer = [0; 32];
    let folder = crate::path!("{}/block/{}", sysfs, name).ok()?;
    let number = Number::parse(files::text_below(&folder, "dev", &mut buffer)?)?;
    let sectors = files::number_below(&folder, "size")?;
    Some((number, sectors * SECTOR))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A sysfs with the disks that are plugged in.
    pub struct Sysfs(PathBuf);

    impl Sysfs {
        pub fn new(name: &str) -> Self {
            let name = format!("takeover-sysfs-{}-{name}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(root.join("block")).unwrap();
            fs::create_dir_all(root.join("dev/block")).unwrap();
            Self(root)
        }

        pub fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }

        /// Plugs in a disk of so many MiB, with these files below its folder.
        pub fn plug(&self, name: &str, number: &str, mib: u64, told: &[(&str, &str)]) {
            let folder = self.0.join("devices").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("dev"), format!("{number}\n")).unwrap();
            fs::write(folder.join("size"), format!("{}\n", mib * 2048)).unwrap();
            for (place, value) in told {
                let file = folder.join(place);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{value}\n")).unwrap();
            }
            symlink(&folder, self.0.join("block").join(name)).unwrap();
            let by_number = self.0.join("dev/block").join(number);
            let _ = fs::remove_file(&by_number);
            symlink(&folder, by_number).unwrap();
        }

        /// Plugs in a disk of 64 MiB behind a USB bridge, in one of its slots.
        pub fn plug_usb(&self, name: &str, number: &str, serial: &str, slot: u32) {
            let bridge = self.0.join("devices").join(format!("usb-of-{name}"));
            let unit = bridge.join(format!("1:0/host6/target6:0:0/6:0:0:{slot}"));
            fs::create_dir_all(&unit).unwrap();
            fs::write(bridge.join("idVendor"), "152d\n").unwrap();
            if !serial.is_empty() {
                fs::write(bridge.join("serial"), format!("{serial}\n")).unwrap();
            }
            self.plug(name, number, 64, &[]);
            symlink(unit, self.0.join("block").join(name).join("device")).unwrap();
        }

        pub fn unplug(&self, name: &str) {
            fs::remove_file(self.0.join("block").join(name)).unwrap();
            fs::remove_dir_all(self.0.join("devices").join(name)).unwrap();
        }

        fn find(&self, identity: &str) -> Option<String> {
            let number = find(self.path(), identity, 64 << 20)?;
            Some(format!("{}:{}", number.major, number.minor))
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_kind_of_disk_tells_who_it_is() {
        let sysfs = Sysfs::new("kinds");
        sysfs.plug("nvme0n1", "259:0", 64, &[("wwid", "eui.0025385b"), ("device/serial", "S4EV")]);
        sysfs.plug("sda", "8:0", 64, &[("device/wwid", "t10.ATA     disk  77\x01")]);
        sysfs.plug("vda", "252:0", 64, &[("serial", "disk-1"), ("diskseq", "12")]);
        sysfs.plug("mmcblk0", "179:0", 64, &[("device/cid", "0353445355313647805ab1")]);
        sysfs.plug("sdb", "8:16", 64, &[("device/wwid", "00000000"), ("serial", "")]);
        sysfs.plug_usb("sdc", "8:32", "DD56419", 1);
        sysfs.plug_usb("sdd", "8:48", "", 0);
        let told = |name: &str| of(&format!("{}/block/{name}", sysfs.path())).to_string();
        assert_eq!(told("nvme0n1"), "wwid=eui.0025385b device/serial=S4EV path=nvme0n1");
        assert_eq!(told("sda"), "device/wwid=t10.ATA_____disk__77? path=sda");
        assert_eq!(told("vda"), "diskseq=12 serial=disk-1 path=vda");
        assert_eq!(told("mmcblk0"), "device/cid=0353445355313647805ab1 path=mmcblk0");
        assert_eq!(told("sdc"), "usb=DD56419 unit=1 path=sdc");
        assert_eq!(told("sdb"), "path=sdb");
        assert_eq!(told("sdd"), "path=sdd");
        assert_eq!(told("sdx"), "");
    }

    #[test]
    fn a_disk_is_found_under_its_new_number_and_no_other_is() {
        let sysfs = Sysfs::new("moved");
        sysfs.plug_usb("sda", "8:0", "DD56419", 0);
        sysfs.plug_usb("sdb", "8:16", "DD56419", 1);
        sysfs.plug("sdc", "8:32", 64, &[("serial", "other")]);
        let number = Number { major: 8, minor: 0 };
        let identity = of_number(sysfs.path(), number);
        assert_eq!(&*identity, "usb=DD56419 unit=0 path=sda");
        assert_eq!(sysfs.find(&identity).unwrap(), "8:0");
        sysfs.unplug("sda");
        assert!(!is_same(&identity, &of_number(sysfs.path(), number), true));
        assert_eq!(sysfs.find(&identity), None);
        sysfs.plug_usb("sdd", "8:48", "DD56419", 0);
        assert_eq!(sysfs.find(&identity).unwrap(), "8:48");
        assert_eq!(find(sysfs.path(), &identity, 65 << 20), None, "another size");
        // Two that say they are it: neither is.
        sysfs.plug_usb("sde", "8:64", "DD56419", 0);
        assert_eq!(sysfs.find(&identity), None);
        assert_eq!(sysfs.find(""), None, "a disk without an identity is not looked for");
        assert_eq!(sysfs.find("diskseq=7 unit=0"), None, "nor is one that tells nothing of itself");
    }

    #[test]
    fn a_disk_is_compared_part_by_part() {
        let nvme = "diskseq=7 wwid=eui.0025 device/serial=S4EV path=a/b";
        let nameless = "diskseq=7 unit=0 path=a/b";
        for (planned, now, before, after) in [
            (nvme, nvme, true, true),
            // Plugged in again, at another place.
            (nvme, "diskseq=9 wwid=eui.0025 device/serial=S4EV path=c", false, true),
            (nvme, "wwid=eui.0025 device/serial=S4EV", true, true),
            // A part that cannot be told now, and one that can.
            (nvme, "diskseq=7 device/serial=S4EV path=a/b", true, true),
            ("wwid=eui.0025", nvme, true, true),
            (nvme, "diskseq=7 wwid=eui.0025 device/serial=other path=a/b", false, false),
            (nvme, "diskseq=7 serial=S4EV path=a/b", false, false),
            (nvme, "", false, false),
            ("usb=DD56419 unit=0", "usb=DD56419 unit=1", false, false),
            ("usb=DD56419 unit=0", "usb=other unit=0", false, false),
            (nameless, nameless, true, true),
            (nameless, "diskseq=9 unit=0 path=a/b", false, true),
            (nameless, "diskseq=7 unit=1 path=a/b", false, false),
            (nameless, "diskseq=7 unit=0 path=c", false, false),
            (nameless, "serial=S4EV", true, false),
            ("diskseq=7", "diskseq=9", false, true),
            ("", nvme, true, true),
        ] {
            let found = [false, true].map(|is_written| is_same(planned, now, is_written));
            assert_eq!(found, [before, after], "{planned} / {now}");
        }
        assert_eq!(sequence_of(nvme), "diskseq=7");
        assert_eq!(sequence_of("wwid=eui.0025"), "");
    }

    #[test]
    fn a_place_is_what_stays_when_a_disk_is_plugged_in_again() {
        for (link, wanted) in [
            (
                "../../devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0/host6/target6:0:0/6:0:0:0/block/sda",
                "pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0",
            ),
            (
                "../../devices/platform/emmc2bus/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0",
                "platform/emmc2bus/fe340000.mmc",
            ),
            ("../../devices/pci0000:00/0000:00:1d.0/nvme/nvme0/nvme0n1", "pci0000:00/0000:00:1d.0"),
            (
                "../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda",
                "pci0000:00/0000:00:04.0/virtio1",
            ),
            ("../../devices/virtual/block/loop0", ""),
            ("", ""),
        ] {
            assert_eq!(place(link), wanted, "{link}");
        }
    }

    #[test]
    fn a_part_that_finds_no_room_is_left_out() {
        let mut all = Identity::new();
        let long = "x".repeat(LONGEST / 2);
        for (word, value) in [("a", &*long), ("b", &long), ("c", "d")] {
            add(&mut all, word, value);
        }
        assert_eq!(&*all, format!("a={long} c=d"));
    }
}
