//! The boot blob of a Jetson: its loaders, from the root file system of the new OS to the device that the boot ROM
//! reads them from.
//!
//! Before the head: a disk that boots below other loaders does not start. The device is claimed before the first write
//! to the disk, while the old OS could still go on. The blob is read where stage 1 has found it, from the disk that was
//! flashed and verified, and known by its CRC before the device is touched. What the device has already is left as it
//! is. A failure is one of the flash: without the blob there is nothing to start.

use super::buffers::Buffers;
use super::target::Target;
use crate::boot_blob::{self, Area, BootBlob, Device};
use crate::crc32;
use crate::disk::device;
use crate::disk::identity::SYSFS;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::names;
use crate::progress::Shared;
use crate::sys::block;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};

/// How often it is written and read back.
const TRIES: u32 = 3;
/// The logical block of a boot area, in bytes.
const BLOCK: u32 = 512;

/// Fills a buffer from a byte of the blob on.
type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<(), Error>;

/// A blob, and the device that it goes to, ours alone.
pub struct BootArea {
    blob: BootBlob,
    device: Target,
}

/// Claims the device of the blob that stage 1 has left in the RAMFS at `base`, if there is one, and makes it writable.
/// The program for 32-bit ARM leaves none.
pub fn claim(base: &str) -> Result<Option<BootArea>, Error> {
    let path = files::below(base, names::BOOT_BLOB)?;
    if cfg!(target_arch = "arm") || !files::exists(&path) {
        return Ok(None);
    }
    let mut buffer = [0; boot_blob::LONGEST];
    let bytes = files::read(&path, &mut buffer).doing("reading", &path)?;
    let blob = BootBlob::from_bytes(bytes)
        .ok_or_else(|| Error::failed("reading", &path, "it is damaged"))?;
    let nodes = files::below(base, names::DEV)?;
    let device = open(blob.area.device, &nodes)?;
    BootArea::new(blob, device).map(Some)
}

/// Opens the device; its node is made in `nodes`.
fn open(device: Device, nodes: &str) -> Result<OwnedFd, Error> {
    let name = device.name();
    let class = crate::path!("{}/class/{}", SYSFS, device.class())?;
    let Some(number) = device::number_in(&class, name, "dev") else {
        return Err(Error::failed("looking for", name, "it is not there any more"));
    };
    let (kind, flags) = match device {
        Device::Emmc => (FileType::BlockDevice, OFlags::DIRECT | OFlags::EXCL),
        Device::Nor => (FileType::CharacterDevice, OFlags::empty()),
    };
    if device == Device::Emmc {
        // A boot area is read-only until it is asked not to be.
        let path = crate::path!("{}/{}/force_ro", class, name)?;
        let switch = files::opened(&path, OFlags::WRONLY)?;
        files::write_all(&switch, b"0").doing("writing", &path)?;
    }
    let node = device::node(nodes, name, kind, number)?;
    files::open(&node, flags | OFlags::RDWR).doing("claiming", &node)
}

impl BootArea {
    /// The blob, and the open device that it goes to, which is still the one that stage 1 has seen.
    pub fn new(blob: BootBlob, device: OwnedFd) -> Result<Self, Error> {
        let Area { device: kind, size, unit } = blob.area;
        let name = kind.name();
        let found = match kind {
            Device::Emmc => block::size(&device).map(|size| (size, unit)),
            Device::Nor => {
                block::flash_sizes(&device).map(|(size, unit)| (size.into(), unit.into()))
            }
        };
        if found.doing("asking the size of", name)? != (size, unit) {
            let why = "it is not the device that was checked";
            return Err(Error::failed("looking at", name, why));
        }
        Ok(Self::with(blob, device))
    }

    fn with(blob: BootBlob, device: OwnedFd) -> Self {
        let device = Target::new(device, blob.area.size, BLOCK);
        Self { blob, device }
    }

    /// Writes the blob, which lies on `disk`, and reads it back past the cache.
    pub fn write(
        &self,
        disk: &Target,
        buffers: &mut Buffers,
        shared: &Shared,
    ) -> Result<(), Error> {
        let ([blob, now], _) = buffers.scratches();
        let watch = Stopwatch::start();
        let name = self.blob.area.device.name();
        let crc = self.crc_of(&|at, piece| self.read_blob(disk, at, piece), blob, shared)?;
        if crc != self.blob.crc {
            let why = "it is not what stage 1 has found in the image";
            return Err(Error::failed("reading the boot blob from", "the disk", why));
        }
        let mut tries = 1;
        let written = loop {
            match self.write_and_compare(disk, [&mut *blob, &mut *now], shared) {
                Ok(written) => break written,
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
            }
            tries += 1;
        };
        let seconds = watch.shown();
        if written == 0 && tries == 1 {
            crate::info!(
                "/dev/{} has the boot blob already: it stays as it is ({} s)",
                name,
                seconds
            );
        } else {
            crate::info!("the boot blob is on /dev/{}, and read back ({} s)", name, seconds);
        }
        Ok(())
    }

    /// Writes what differs, block by block, and reads all of it back. Gives how many blocks differed.
    fn write_and_compare(
        &self,
        disk: &Target,
        [blob, now]: [&mut [u8]; 2],
        shared: &Shared,
    ) -> Result<u32, Error> {
        let Area { device, unit, .. } = self.blob.area;
        let mut written = 0;
        let mut at = 0;
        while at < self.blob.length {
            let wanted = self.piece(at, blob)?;
            self.read_blob(disk, at, wanted)?;
            let found = self.piece(at, now)?;
            shared.beat();
            if self.device.read(at, found).is_err() || found != wanted {
                written += 1;
                self.replace(at, wanted, shared)?;
            }
            at += unit;
        }
        if device == Device::Emmc {
            self.device.flush()?;
            self.device.forget_cache();
        }
        let crc = self.crc_of(&|at, piece| self.device.read(at, piece), now, shared)?;
        if crc == self.blob.crc {
            return Ok(written);
        }
        let why = "it is not the boot blob that was written";
        Err(Error::failed("reading back", device.name(), why)
            .advice("it does not keep what is written, or is protected"))
    }

    /// Writes one block.
    fn replace(&self, at: u64, bytes: &[u8], shared: &Shared) -> Result<(), Error> {
        const ERASED: u8 = 0xff;
        let device = self.blob.area.device;
        let work = || {
            if device == Device::Nor {
                self.device.erase(at, bytes.len() as u64)?;
                shared.beat();
                if bytes.iter().all(|byte| *byte == ERASED) {
                    return Ok(());
                }
            }
            self.device.write(at, bytes, shared)
        };
        work().map_err(|error| {
            crate::warn!("{}", error);
            let why = "a block of it cannot be written";
            Error::failed("writing the boot blob to", device.name(), why)
        })
    }

    /// The CRC-32 of as many bytes as the blob has, which `read` gives piece by piece.
    fn crc_of(&self, read: Read<'_>, buffer: &mut [u8], shared: &Shared) -> Result<u32, Error> {
        let (mut crc, mut at) = (0, 0);
        while at < self.blob.length {
            let piece = self.piece(at, buffer)?;
            read(at, piece)?;
            crc = crc32::extend(crc, piece);
            shared.beat();
            at += self.blob.area.unit;
        }
        Ok(crc)
    }

    /// The part of a buffer for the block of the blob that begins at byte `at`.
    fn piece<'a>(&self, at: u64, buffer: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
        let length = self.blob.area.unit.min(self.blob.length - at) as usize;
        let piece = buffer.get_mut(..length);
        piece.ok_or_else(|| Error::failed("writing", "the boot blob", "its blocks are too large"))
    }

    /// Reads a part of the blob from the disk.
    fn read_blob(&self, disk: &Target, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let (mut begin, mut done) = (0, 0);
        for extent in &self.blob.extents {
            let end = begin + extent.length;
            let place = at + done as u64;
            if let Some(within) = place.checked_sub(begin).filter(|_| place < end) {
                let count = (end - place).min((bytes.len() - done) as u64) as usize;
                let piece = bytes.get_mut(done..done + count).unwrap_or_default();
                if extent.start == 0 {
                    piece.fill(0);
                } else if !piece.is_empty() {
                    disk.read(extent.start + within, piece)?;
                }
                done += count;
            }
            begin = end;
        }
        if done == bytes.len() {
            return Ok(());
        }
        Err(Error::failed("reading the boot blob from", "the disk", "it ends too early"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_blob::tests::blob;
    use crate::image::decode::BUFFER;
    use crate::sys::map;
    use std::path::{Path, PathBuf};

    /// A folder with a disk and a boot area as files, removed when done.
    struct Case(PathBuf);

    impl Case {
        fn new(disk: &[u8], area: &[u8]) -> Self {
            static NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            let name = format!("takeover-blob-{}-{number}", std::process::id());
            let case = Self(std::env::temp_dir().join(name));
            std::fs::create_dir_all(case.0.join(names::DEV)).unwrap();
            std::fs::write(case.0.join("disk"), disk).unwrap();
            std::fs::write(case.0.join("area"), area).unwrap();
            case
        }

        fn open(&self, path: &Path, flags: OFlags) -> OwnedFd {
            files::open(self.0.join(path).to_str().unwrap(), flags).unwrap()
        }

        /// Writes a blob to what is opened like that; gives the error, or nothing.
        fn write(&self, blob: BootBlob, area: &str, flags: OFlags) -> String {
            let disk = Target::new(self.open(Path::new("disk"), OFlags::RDONLY), 1 << 24, BLOCK);
            let area = BootArea::with(blob, self.open(Path::new(area), flags));
            let shared: &Shared = map::shared().unwrap();
            let mut buffers = Buffers::map(map::buffer(BUFFER).unwrap()).unwrap();
            let written = area.write(&disk, &mut buffers, shared);
            written.err().map_or(String::new(), |error| {
                let text: crate::text::Text<400> = crate::text!("{}", error);
                text.to_string()
            })
        }

        fn area(&self) -> Vec<u8> {
            std::fs::read(self.0.join("area")).unwrap()
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A disk of 4 MiB, and a blob of 2.5 MiB and one block that lies in it out of order and with a hole.
    fn disk_and_blob() -> (Vec<u8>, Vec<u8>, BootBlob) {
        let disk: Vec<u8> =
            (0..1u32 << 22).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let extents = [(3 << 20, 1 << 20), (0, 1 << 19), (1 << 20, (1 << 20) + 4096)];
        let mut bytes = Vec::new();
        for (start, length) in extents.map(|(start, length)| (start as usize, length as usize)) {
            match start {
                0 => bytes.resize(bytes.len() + length, 0),
                start => bytes.extend(&disk[start..start + length]),
            }
        }
        bytes.truncate((5 << 19) + 512);
        let found = blob(bytes.len() as u64, crc32::crc32(&bytes), &extents);
        (disk, bytes, found)
    }

    #[test]
    fn it_is_put_together_from_its_extents_and_what_lies_behind_it_stays() {
        let (disk, bytes, blob) = disk_and_blob();
        let case = Case::new(&disk, &[7; 1 << 22]);
        assert_eq!(case.write(blob.clone(), "area", OFlags::RDWR), "");
        assert!(case.area() == [&bytes[..], &vec![7; (1 << 22) - bytes.len()]].concat());
        // It is there already: nothing is written, which could not be.
        assert_eq!(case.write(blob.clone(), "area", OFlags::RDONLY), "");
        let mut almost = case.area();
        almost[(2 << 20) + 5] ^= 1;
        std::fs::write(case.0.join("area"), &almost).unwrap();
        let error = case.write(blob.clone(), "area", OFlags::RDONLY);
        assert!(error.contains("mmcblk0boot0"), "{error}");
        assert_eq!(case.write(blob, "area", OFlags::RDWR), "");
        assert!(case.area().starts_with(&bytes));
    }

    #[test]
    fn a_blob_that_is_another_one_on_the_disk_is_not_written() {
        let (mut disk, _, blob) = disk_and_blob();
        disk[(1 << 20) + 4000] ^= 1;
        let case = Case::new(&disk, &[7; 1 << 22]);
        let error = case.write(blob.clone(), "area", OFlags::RDWR);
        assert!(error.contains("not what stage 1 has found"), "{error}");
        assert!(case.area() == [7; 1 << 22]);
        std::fs::write(case.0.join("disk"), &disk[..1 << 20]).unwrap();
        assert!(case.write(blob, "area", OFlags::RDWR).contains("it ends too early"));
        assert!(case.area() == [7; 1 << 22]);
    }

    #[test]
    fn a_device_that_keeps_nothing_is_an_error() {
        let (disk, _, blob) = disk_and_blob();
        let case = Case::new(&disk, &[7; 1 << 22]);
        // What is written goes to the end of such a file, whatever the offset (pwrite(2), BUGS).
        let error = case.write(blob, "area", OFlags::RDWR | OFlags::APPEND);
        assert!(
            error.contains("mmcblk0boot0: it is not the boot blob that was written"),
            "{error}"
        );
        assert!(case.area().starts_with(&[7; 1 << 22]) && case.area().len() > 1 << 22);
    }

    #[test]
    fn what_stage_1_has_left_is_claimed_before_anything_is_written() {
        let case = Case::new(&[], &[]);
        let base = case.0.to_str().unwrap();
        assert!(claim(base).unwrap().is_none());
        let why = || {
            let error = claim(base).err().unwrap();
            let text: crate::text::Text<400> = crate::text!("{}", error);
            text.to_string()
        };
        let path = case.0.join(names::BOOT_BLOB);
        std::fs::write(&path, b"no blob").unwrap();
        assert!(why().contains("it is damaged"));
        // No machine that tests run on has a boot area of an eMMC at hand.
        std::fs::write(&path, disk_and_blob().2.to_bytes()).unwrap();
        assert!(why().contains("mmcblk0boot0: it is not there any more"));
        // Not a block device, not a flash: no size can be asked.
        let file = || case.open(Path::new("area"), OFlags::RDWR);
        let mut nor = disk_and_blob().2;
        assert!(BootArea::new(nor.clone(), file()).is_err());
        nor.area.device = Device::Nor;
        assert!(BootArea::new(nor, file()).is_err());
    }
}
