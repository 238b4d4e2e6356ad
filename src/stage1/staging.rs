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
    match process::pending_termination() {
        None => Ok(()),
        Some(signal) => Err(ended_by(signal)),
    }
}

fn ended_by(signal: u32) -> Error {
    let fail = |why| Error::failed("taking over", "this device", why);
    match signal {
        1 => fail("SIGHUP: the session has ended").advice("start it below tmux, screen or nohup"),
        2 => fail("SIGINT: interrupted (Ctrl-C)"),
        3 => fail("SIGQUIT: interrupted (Ctrl-\\)"),
        _ => fail("SIGTERM: it was asked to end").advice("is the device shutting down?"),
    }
}
