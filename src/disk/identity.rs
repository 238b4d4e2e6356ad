//! What a disk is, whatever number it bears: how a disk that went away and came back is told from every other.
//!
//! A number of a block device says where a disk was plugged in first, no more: a USB bridge that resets itself comes
//! back as the next free letter, and another disk may have taken the old one. World wide names and serial numbers stay
//! (Documentation/ABI/stable/sysfs-block and testing/sysfs-bus-usb; the MMC core's `cid`).

use super::device::Number;
use super::table::SECTOR;
use crate::files;
use crate::text::{Text, printable};
use core::ops::ControlFlow;

/// The longest identity, in bytes: a T10 name and the serial number of a USB bridge. More is cut, always at one place.
pub const LONGEST: usize = 160;

/// An identity; empty for a disk that has none.
pub type Identity = Text<LONGEST>;

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";

/// Where a disk tells who it is, below its folder in sysfs: NVMe; SCSI and ATA; virtio; MMC; the controller of NVMe.
const PLACES: [&str; 5] = ["wwid", "device/wwid", "serial", "device/cid", "device/serial"];

/// Above a disk at a USB port are its SCSI target and host, the interface and the device.
const USB_LEVELS: u32 = 6;

/// All that a disk tells of itself, with the slot of a reader that has several: two disks that differ in any of it are
/// two disks. `folder` is the disk's own in sysfs.
fn of(folder: &str) -> Identity {
    let mut all = Identity::new();
    for place in &PLACES {
        add(&mut all, place, &told(folder, place));
    }
    let serial = usb_serial(folder);
    if !serial.is_empty() {
        add(&mut all, "usb", &serial);
        // Without a serial number the slot says nothing.
        add(&mut all, "unit", &unit(folder));
    }
    all
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
    if differs && bytes.len() >= 4 { printable(bytes) } else { Text::new() }
}

fn add(all: &mut Identity, word: &str, value: &str) {
    if !value.is_empty() {
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
    Text::from(link.and_then(|link| link.rsplit_once(':')).map_or("", |(_, unit)| unit))
}

/// The one disk of this identity and size (bytes); none when there are several, or when the identity is empty.
pub fn find(sysfs: &str, identity: &str, size: u64) -> Option<Number> {
    let mut found = None;
    let mut count = 0;
    let folder = files::below(sysfs, "block").ok().filter(|_| !identity.is_empty())?;
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        if let Some((number, _)) = number_and_size(sysfs, name).filter(|(_, found)| *found == size)
            && *of_number(sysfs, number) == *identity
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
        sysfs.plug("vda", "252:0", 64, &[("serial", "disk-1")]);
        sysfs.plug("mmcblk0", "179:0", 64, &[("device/cid", "0353445355313647805ab1")]);
        sysfs.plug("sdb", "8:16", 64, &[("device/wwid", "00000000"), ("serial", "")]);
        sysfs.plug_usb("sdc", "8:32", "DD56419", 1);
        sysfs.plug_usb("sdd", "8:48", "", 0);
        let told = |name: &str| of(&format!("{}/block/{name}", sysfs.path())).to_string();
        assert_eq!(told("nvme0n1"), "wwid=eui.0025385b device/serial=S4EV");
        assert_eq!(told("sda"), "device/wwid=t10.ATA     disk  77?");
        assert_eq!(told("vda"), "serial=disk-1");
        assert_eq!(told("mmcblk0"), "device/cid=0353445355313647805ab1");
        assert_eq!(told("sdc"), "usb=DD56419 unit=1");
        for nameless in ["sdb", "sdd", "sdx"] {
            assert_eq!(told(nameless), "", "{nameless}");
        }
    }

    #[test]
    fn a_disk_is_found_under_its_new_number_and_no_other_is() {
        let sysfs = Sysfs::new("moved");
        sysfs.plug_usb("sda", "8:0", "DD56419", 0);
        sysfs.plug_usb("sdb", "8:16", "DD56419", 1);
        sysfs.plug("sdc", "8:32", 64, &[("serial", "other")]);
        let number = Number { major: 8, minor: 0 };
        let identity = of_number(sysfs.path(), number);
        assert_eq!(&*identity, "usb=DD56419 unit=0");
        assert_eq!(sysfs.find(&identity).unwrap(), "8:0");
        sysfs.unplug("sda");
        assert_eq!(&*of_number(sysfs.path(), number), "");
        assert_eq!(sysfs.find(&identity), None);
        sysfs.plug_usb("sdd", "8:48", "DD56419", 0);
        assert_eq!(sysfs.find(&identity).unwrap(), "8:48");
        assert_eq!(find(sysfs.path(), &identity, 65 << 20), None, "another size");
        // Two that say they are it: neither is.
        sysfs.plug_usb("sde", "8:64", "DD56419", 0);
        assert_eq!(sysfs.find(&identity), None);
        assert_eq!(sysfs.find(""), None, "a disk without an identity is not looked for");
    }
}
