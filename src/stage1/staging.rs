//! Copying the image, the chunk map and the furnishings into the RAMFS.
//!
//! The copy of the image is proven against the scan: a file that changed in between is found out here, while the old
//! OS is still whole.

use super::ramfs::Ramfs;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::format::Format;
use crate::image::map::{ChunkMap, RECORD};
use crate::image::scan::Scan;
use crate::image::source::Source;
use crate::image::{CHUNK, crc32, format::Stream, is_zero};
use crate::plan::names;
use crate::progress::Rate;
use crate::sys::process;

/// Copies the image's part of its file to the RAMFS and proves the copy. Pages of zeros of a raw image become holes:
/// they cost no memory.
pub fn stage_image(
    ramfs: &Ramfs,
    source: &impl Source,
    stream: Stream,
    scan: &Scan,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let path = ramfs.inside(names::IMAGE)?;
    let page_size = crate::sys::map::page_size();
    let file = files::create(&path, b"")?;
    rustix::fs::ftruncate(&file, stream.length).doing("sizing", &path)?;
    // In whole chunks, so that pages are aligned whatever their size.
    let buffer = buffer.get_mut(..CHUNK).unwrap_or_default();
    let mut crc = 0;
    let mut done = 0;
    let mut rate = Rate::start("copy to memory", stream.length);
    while done < stream.length {
        interrupted()?;
        let wanted = (stream.length - done).min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let count = source.read_at(stream.offset + done, piece)?;
        let piece = piece.get(..count).filter(|piece| !piece.is_empty()).ok_or_else(changed)?;
        crc = crc32::extend(crc, piece);
        for (index, page) in piece.chunks(page_size).enumerate() {
            if stream.format == Format::Raw && is_zero(page) {
                continue;
            }
            write_at(&file, page, done + (index * page_size) as u64, &path)?;
        }
        done += count as u64;
        rate.advance(done);
    }
    match crc == scan.packed_crc {
        true => Ok(()),
        false => Err(changed()),
    }
}

fn write_at(file: &rustix::fd::OwnedFd, page: &[u8], at: u64, path: &str) -> Result<(), Error> {
    let written = rustix::io::pwrite(file, page, at).doing("copying the image to", path)?;
    match written == page.len() {
        true => Ok(()),
        false => Err(Error::failed("copying the image to", path, "not all of it was written")),
    }
}

fn changed() -> Error {
    Error::failed("copying", "the image", "the file changed after it was checked")
}

/// Copies the chunk map to the RAMFS.
pub fn stage_map(
    ramfs: &Ramfs,
    map: &ChunkMap,
    scan: &Scan,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let path = ramfs.inside(names::MAP)?;
    let file = files::create(&path, b"")?;
    let length = u64::from(scan.chunks) * RECORD;
    let mut done = 0;
    while done < length {
        let count = rustix::io::pread(map.descriptor(), &mut *buffer, done)
            .doing("reading", "the chunk map")?;
        let piece = buffer.get(..count).filter(|piece| !piece.is_empty()).ok_or_else(changed)?;
        files::write_all(&file, piece).doing("writing", &path)?;
        done += count as u64;
    }
    match ChunkMap::open(&path)?.crc(scan.chunks)? == scan.map_crc {
        true => Ok(()),
        false => Err(Error::failed("copying", "the chunk map", "the copy differs")),
    }
}

/// An error when Ctrl-C was pressed or the session ended: everything is undone then.
pub fn interrupted() -> Result<(), Error> {
    match process::termination_pending() {
        false => Ok(()),
        true => Err(Error::failed("taking over", "this device", "it was interrupted by a signal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode::{BUFFER, Decoder};
    use crate::image::{format, scan};
    use crate::text::PathText;

    #[test]
    fn a_copy_that_differs_from_what_was_scanned_is_an_error() {
        let folder = std::env::temp_dir().join(format!("takeover-copy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ramfs = Ramfs { path: PathText::from(folder.to_str().unwrap()) };
        let mut file = vec![0; 3 * CHUNK + 512];
        file[CHUNK + 5] = 1;
        let stream = format::detect(&file, "x").unwrap();
        let map = ChunkMap::create().unwrap();
        let mut buffer = vec![0; BUFFER];
        let mut scan = scan::scan(&mut Decoder::new(&file, stream), &mut buffer, &map).unwrap();

        stage_image(&ramfs, &file, stream, &scan, &mut buffer).unwrap();
        stage_map(&ramfs, &map, &scan, &mut buffer).unwrap();
        let image = folder.join(names::IMAGE);
        assert!(std::fs::read(&image).unwrap() == file);
        let status = std::fs::metadata(&image).unwrap();
        assert!(std::os::linux::fs::MetadataExt::st_blocks(&status) <= 128, "zeros cost nothing");

        std::fs::remove_file(&image).unwrap();
        std::fs::remove_file(folder.join(names::MAP)).unwrap();
        file[2 * CHUNK] = 7;
        assert!(stage_image(&ramfs, &file, stream, &scan, &mut buffer).is_err());
        scan.map_crc ^= 1;
        assert!(stage_map(&ramfs, &map, &scan, &mut buffer).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
