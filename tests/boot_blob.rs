//! Finds boot blobs in images and writes them, for `tests/test_boot_blob.py` and its guest: many images in one process,
//! with every check of a debug build.
//!
//! Takes lines of words. `find IMAGE emmc|nor SIZE`, for a device of that size, is answered with `found LENGTH CRC`,
//! then start and length of each extent, or with `refused WHY`. `write IMAGE emmc|nor DEVICE` writes it, and is
//! answered with `written` or `failed WHY`.

use std::fs::{File, OpenOptions};
use std::io::BufRead;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use takeover::balena::boot_blob;
use takeover::boot_blob::{Area, BootBlob, Device};
use takeover::disk::reader::ReadAt;
use takeover::disk::table;
use takeover::error::{Doing, Error};
use takeover::image::decode::BUFFER;
use takeover::stage2::{BootArea, Buffers, Target};
use takeover::sys::{block, map};
use takeover::text::Text;

/// More than any image of the tests needs: a walk that does not end is found, not waited for.
const MOST_READS: usize = 100_000;

struct Image {
    file: File,
    length: u64,
    reads: usize,
}

impl Image {
    fn open(path: &str) -> Self {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        Self { file, length, reads: 0 }
    }
}

impl ReadAt for Image {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.reads += 1;
        assert!(self.reads < MOST_READS, "it reads for ever");
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|_| Error::refused("reading", "the image", "too short"))
    }
}

fn find(image: &str, area: Area) -> Result<BootBlob, Error> {
    let mut image = Image::open(image);
    let length = image.length;
    let table = table::read(&mut image, length)?;
    boot_blob::find(&mut image, &table, area)
}

fn write(image: &str, device: Device, path: &str) -> Result<(), Error> {
    // O_DIRECT, and for what must be ours alone O_EXCL.
    let flags = linux_raw_sys::general::O_DIRECT as i32;
    let own = match device {
        Device::Emmc => flags | linux_raw_sys::general::O_EXCL as i32,
        Device::Nor => 0,
    };
    let file = OpenOptions::new().read(true).write(true).custom_flags(own).open(path).unwrap();
    let (size, unit) = match device {
        Device::Emmc => (block::size(&file).doing("asking", path)?, 1 << 20),
        Device::Nor => {
            let (size, unit) = block::flash_sizes(&file).doing("asking", path)?;
            (size.into(), unit.into())
        }
    };
    let blob = find(image, Area { device, size, unit })?;
    // As it comes to stage 2.
    let blob = BootBlob::from_bytes(&blob.to_bytes()).expect("what was left is no blob");
    let disk = OpenOptions::new().read(true).custom_flags(flags).open(image).unwrap();
    let disk = Target::new(disk.into(), Image::open(image).length, 512);
    let shared = map::shared().unwrap();
    let mut buffers = Buffers::map(map::buffer(BUFFER).unwrap()).unwrap();
    BootArea::new(blob, file.into())?.write(&disk, &mut buffers, shared)
}

fn answer(words: &[&str]) -> Result<String, Error> {
    let [what, image, device, argument] = words else { panic!("not four words") };
    let device = if *device == "nor" { Device::Nor } else { Device::Emmc };
    if *what == "write" {
        return write(image, device, argument).map(|()| "written".into());
    }
    let area = Area { device, size: argument.parse().unwrap(), unit: 65_536 };
    let blob = find(image, area)?;
    let extents: String =
        blob.extents.iter().map(|extent| format!(" {} {}", extent.start, extent.length)).collect();
    Ok(format!("found {} {}{extents}", blob.length, blob.crc))
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        match answer(&words) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                let text: Text<600> = takeover::text!("{}", error);
                let word = if words[0] == "write" { "failed" } else { "refused" };
                println!("{word} {}", text.as_str());
            }
        }
    }
}
