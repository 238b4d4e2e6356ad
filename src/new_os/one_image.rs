//! One image: that which was scanned, with the files of the new OS in the FAT of its boot partition.
//!
//! What changes are sectors, the patches. They are worked out while the image is looked into, and the chunks that they
//! lie in are decoded once more, for what each must be with them.

use super::new_files::NewFiles;
use crate::balena::layout::Layout;
use crate::disk::fat::patch::{self, Content, Memory, Wanted};
use crate::disk::fat::{self, Fat};
use crate::disk::mounts::FileSystem;
use crate::disk::reader::ReadAt;
use crate::disk::table::SECTOR;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::image::map::{ChunkMap, Record};
use crate::image::patches::Patches;
use crate::new_os::examination::Examined;
use crate::plan::{ImagePlan, MAX_NEW_FILES};
use crate::progress::Rate;
use crate::sys::{clock, map};
use crate::text::{Size, Text};
use std::sync::{Mutex, PoisonError};

/// What working out the patches takes: 80 KiB of zeros, no byte of the program.
static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());

/// The image with the files in it.
pub struct OneImage {
    /// What is replaced.
    pub patches: Patches,
    /// What each chunk must be.
    pub map: ChunkMap,
    /// The CRC-32 of the map.
    pub map_crc: u32,
    /// How many chunks are all zeros.
    pub zero_chunks: u32,
}

/// Works out the patches that put the files onto the boot partition of an image of `length` bytes; none where that is
/// no FAT. Refuses what does not fit there.
pub fn plan(
    mut disk: &mut dyn ReadAt,
    layout: &Layout,
    length: u64,
    new_files: &NewFiles,
) -> Result<Patches, Error> {
    let mut wanted = heapless::Vec::<Wanted, MAX_NEW_FILES>::new();
    for file in new_files.for_boot() {
        let length = u32::try_from(file.length).unwrap_or(u32::MAX);
        // As many places as files.
        let _ = wanted.push(Wanted { path: file.to, length });
    }
    if wanted.is_empty() || layout.file_system != Some(FileSystem::Vfat) {
        return Ok(Patches::none());
    }
    let object: Text<32> = crate::text!("partition {}", layout.boot_number);
    let about = |error: Error| error.about(&object);
    let Some(volume) = fat::open(&mut disk, layout.boot_start)? else {
        return Err(Error::failed("putting files onto", &object, "it is no FAT any more"));
    };
    let (start, length_of_table) = volume.first_table();
    disk.keep(start, length_of_table)?;
    check_bounds(&volume, layout, length).map_err(about)?;
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    patch::plan(disk, &volume, &wanted, stamp(seconds_now()), &mut memory).map_err(about)?;
    collect(&volume, &memory, new_files)
}

/// The file system ends where its partition does, or before, and so does the image.
fn check_bounds(volume: &Fat, layout: &Layout, length: u64) -> Result<(), Error> {
    let end = layout.boot_start.saturating_add(volume.length());
    if volume.length() <= layout.boot_length && end <= length {
        return Ok(());
    }
    let why: Text<160> = crate::text!(
        "its FAT has {}, the partition {}, and the image ends at {}",
        Size(volume.length()),
        Size(layout.boot_length),
        Size(length)
    );
    Err(Error::refused("putting files onto", "", &why)
        .advice("the image is cut short or damaged: fetch it again"))
}

/// The patches that were planned, with their bytes.
fn collect(volume: &Fat, memory: &Memory, new_files: &NewFiles) -> Result<Patches, Error> {
    let mut patches = Patches::create()?;
    patch::for_each(volume, memory, &mut |sector, content| {
        let mut bytes = [0; SECTOR as usize];
        match content {
            Content::Bytes(changed) => bytes = *changed,
            Content::Zeros => {}
            Content::File { index, offset } => {
                new_files.read_for_boot(index.into(), offset.into(), &mut bytes)
            }
        }
        patches.push(sector.into(), &bytes)
    })?;
    if let Some(file) = patches.descriptor()
        && let Err(errno) = map::pin(file, patches.length() as usize)
    {
        // Keys could get into swap that is still on.
        crate::warn!("{}", Error::os("locking", "the patches of the image in memory", errno));
    }
    Ok(patches)
}

impl OneImage {
    /// Decodes the image once more, with the patches in it, up to the last one. `buffer` is
    /// [`crate::image::decode::BUFFER`] long.
    pub fn of(image: &Examined<'_>, patches: Patches, buffer: &mut [u8]) -> Result<Self, Error> {
        let map = image.map.copy(image.scan.chunks)?;
        let end = patches.end();
        let mut decoder = Decoder::new(image.source, image.stream);
        decoder.patch(patches);
        let mut zero_chunks = image.scan.zero_chunks;
        let mut rate = Rate::start("putting files into the image", end);
        for index in 0..end.div_ceil(CHUNK as u64) as u32 {
            let filled = decoder.fill(buffer)?;
            let bare = Record::of(decoder.bare());
            // What has changed since the scan, or is read wrongly now, must not become what the flash expects.
            map.check(index, bare)?;
            let patched = Record::of(filled);
            map.set(index, patched)?;
            zero_chunks = zero_chunks + u32::from(patched.zero) - u32::from(bare.zero);
            rate.advance(u64::from(index + 1) * CHUNK as u64);
        }
        rate.end("the plan");
        let patches = decoder.patch(Patches::none());
        let map_crc = map.crc(image.scan.chunks)?;
        Ok(Self { patches, map, map_crc, zero_chunks })
    }

    /// What stage 2 must know of it.
    #[inline(always)]
    pub fn planned(&self, image: &Examined) -> Result<ImagePlan, Error> {
        Ok(ImagePlan {
            stream: image.stream,
            length: image.scan.length,
            chunks: image.scan.chunks,
            zero_chunks: self.zero_chunks,
            map_crc: self.map_crc,
            packed_crc: image.scan.packed_crc,
            patches: self.patches.count(),
            patches_crc: self.patches.crc()?,
        })
    }
}

/// The first moment that files are dated with, in seconds since 1970: 1 January 2026. A device without a clock of its
/// own may believe in an earlier one.
const EARLIEST: u64 = 1_767_225_600;

fn seconds_now() -> u64 {
    clock::since_1970().unwrap_or(EARLIEST).max(EARLIEST)
}

/// Seconds since 1970 as FAT dates a file, the date in the upper half: years from 1980 in 7 bits, months in 4, days in
/// 5, hours in 5, minutes in 6, pairs of seconds in 5 (FAT specification, section 6).
fn stamp(seconds: u64) -> u32 {
    // The last year that there is.
    let mut left = (seconds / 86_400).min(50_000) as u32;
    let length_of = |year: u32| 365 + u32::from(year.is_multiple_of(4) && year != 2100);
    let mut year = 1970;
    while left >= length_of(year) {
        left -= length_of(year);
        year += 1;
    }
    let february = length_of(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let of_day = (seconds % 86_400) as u32;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    (year - 1980) << 25 | month << 21 | (left + 1) << 16 | hour << 11 | minute << 5 | (second / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image file with a FAT boot partition, examined, with the patches for a config.json.
    fn planned(name: &str, packed: bool) -> (std::path::PathBuf, Examined<'static>, Patches) {
        use crate::disk::{fat, mbr};
        use crate::image::source::FileSource;
        use crate::new_os::examination::{ImageFile, examine};
        let mut image = mbr::tests::disk(&[(0x0c, 2048, 200)], 6144);
        let volume = fat::tests::volume_of("resin-boot", &[]);
        image[CHUNK..CHUNK + volume.len()].copy_from_slice(&volume);
        image[2 * CHUNK..].fill(7);
        let file = if packed {
            crate::image::decode::tests::stored_member(&image, u16::MAX)
        } else {
            image
        };
        let name = format!("takeover-one-{name}-{packed}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file).unwrap();
        let source = FileSource::open(path.to_str().unwrap()).unwrap();
        let source: &FileSource = Box::leak(Box::new(source));
        let mut new_files = NewFiles::new();
        new_files.add("config.json", "", &[b'x'; 700]).unwrap();
        let mut patches = Patches::none();
        let mut buffer = vec![0; crate::image::decode::BUFFER];
        let file = ImageFile::open(source, "x").unwrap();
        let at_boot = &mut |disk: &mut dyn ReadAt, layout: &Layout, length| {
            patches = plan(disk, layout, length, &new_files)?;
            Ok(())
        };
        let image = examine(file, false, &mut buffer, at_boot).unwrap();
        (path, image, patches)
    }

    #[test]
    fn an_image_that_changed_since_the_scan_is_not_taken_for_the_new_one() {
        let mut buffer = vec![0; crate::image::decode::BUFFER];
        for packed in [false, true] {
            let (path, image, patches) = planned("same", packed);
            let (count, end) = (patches.count(), patches.end());
            assert!(count >= 3 && end > CHUNK as u64 && end < 2 * CHUNK as u64);
            let one = OneImage::of(&image, patches, &mut buffer).unwrap();
            assert_eq!(one.patches.count(), count);
            assert_eq!(one.map.get(0).unwrap(), image.map.get(0).unwrap());
            assert_ne!(one.map.get(1).unwrap(), image.map.get(1).unwrap());
            assert_ne!(one.map_crc, image.scan.map_crc);
            std::fs::remove_file(path).unwrap();

            // In the chunk that is patched, and in one before it.
            for place in [CHUNK + 300_000, 300_000] {
                let (path, image, patches) = planned("changed", packed);
                let mut file = std::fs::read(&path).unwrap();
                file[place] ^= 1;
                std::fs::write(&path, &file).unwrap();
                let error = OneImage::of(&image, patches, &mut buffer).err().unwrap();
                let text: Text<300> = crate::text!("{}", error);
                assert!(text.contains("it differs from what was scanned"), "{text:?}");
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    #[test]
    fn files_are_dated_as_fat_does() {
        let date = |stamp: u32| (1980 + (stamp >> 25), stamp >> 21 & 15, stamp >> 16 & 31);
        let time = |stamp: u32| (stamp >> 11 & 31, stamp >> 5 & 63, (stamp & 31) * 2);
        for (seconds, wanted) in [
            (EARLIEST, (2026, 1, 1)),
            (1_709_164_800, (2024, 2, 29)),
            (1_709_251_200, (2024, 3, 1)),
            (1_735_603_200, (2024, 12, 31)),
            (4_107_542_400, (2100, 3, 1)),
        ] {
            assert_eq!(date(stamp(seconds)), wanted);
            assert_eq!(time(stamp(seconds)), (0, 0, 0));
        }
        assert_eq!(time(stamp(EARLIEST + 86_399)), (23, 59, 58));
        assert!(date(stamp(u64::MAX)).0 < 2108);
        assert!(seconds_now() >= EARLIEST);
    }
}
