//! Stage 2: PID 1 and its worker, and the flashing that a rescue image shares with them.
//!
//! Executes nothing and loads nothing: the old root is gone. Between the first and the last destructive byte it
//! allocates nothing: buffers are mapped, faulted in and locked before, and the heap is sealed.

mod exports;
mod faults;
mod flash;
mod furnish;
mod job;
mod keep_log;
mod kill;
pub mod pid1;
mod target;
mod unmount;
mod verify;
mod watchdog;
mod worker;

pub use flash::Buffers;
pub use target::Target;

use crate::crc32;
use crate::disk::loops;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::source::{FileSource, Source};
use crate::plan::{Plan, names};
use crate::progress::{Flashed, Outcome, Phase, Rate, Shared, Totals, result_line};
use crate::{memory, sys};
use core::sync::atomic::Ordering::SeqCst;
use job::Job;

/// Where an image comes from, and what it must be.
pub struct Origin<'a, S> {
    /// The packed bytes.
    pub source: S,
    /// Where the image is in them.
    pub stream: Stream,
    /// What each chunk must be.
    pub map: &'a ChunkMap,
}

/// Writes the image to a disk that is free, reads it back, and places the files of the new OS; `base` is where the
/// RAMFS is mounted. With `--pretend` it ends when the disk is ours. Nothing here may allocate once the first byte is
/// written.
pub fn write_all<S: Source>(
    plan: &Plan,
    base: &str,
    origin: Origin<'_, S>,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), Error> {
    let path = crate::path!("{}/{}/{}", base, names::DEV, plan.target.name.as_str())?;
    if origin.map.crc(plan.image.chunks)? != plan.image.map_crc {
        return Err(Error::failed("checking", "the chunk map", "it changed in memory")
            .advice("the memory of this device is bad"));
    }
    prove_packed(plan, &origin, buffers.scratch(), shared)?;
    let target = Target::open(&path, plan, shared)
        .map_err(|error| target::name_holders(error, &path, plan))?;
    loops::none_on(&crate::path!("{}/{}", base, names::DEV)?, target.number)?;
    if plan.pretend {
        crate::info!("pretended: {} is free, and nothing was written", path.as_str());
        return Ok(());
    }
    if base.is_empty() {
        // Not in a rescue system, which keeps the image and lives on.
        faults::outlive();
    }
    flash_and_verify(plan, &target, origin, buffers, shared)?;
    // The exclusive claim of the whole disk would keep its partitions from being mounted.
    drop(target);
    let watch = shared.enter(Phase::Furnish);
    furnish::furnish(plan, base, &path, shared)?;
    shared.leave(Phase::Furnish, watch);
    crate::info!("furnished ({} s)", watch.shown());
    if let Err(error) = furnish::keep_log(plan, base, &path) {
        // The new OS is complete without it.
        crate::warn!("{}", error);
    }
    Ok(())
}

/// Reads the packed image once, from the memory or the file that it will be flashed from: a bit that has changed since
/// the scan would show in the middle of the flash, and again in every retry.
fn prove_packed<S: Source>(
    plan: &Plan,
    origin: &Origin<'_, S>,
    buffer: &mut [u8],
    shared: &Shared,
) -> Result<(), Error> {
    let Stream { offset, length, .. } = origin.stream;
    let mut rate = Rate::start("check the image", length);
    let (mut crc, mut done) = (0, 0);
    while done < length {
        shared.beat();
        let wanted = (length - done).min(CHUNK as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let count = origin.source.read_at(offset + done, piece)?;
        if count == 0 {
            break;
        }
        crc = crc32::extend(crc, piece.get(..count).unwrap_or_default());
        done += count as u64;
        rate.advance(done);
    }
    match done == length && crc == plan.image.packed_crc {
        true => Ok(()),
        false => Err(Error::failed("checking", "the image", "it is not what was scanned")
            .advice("the memory of this device is bad, or the file was changed")),
    }
}

/// Writes the image to an open target and reads it back, the first chunk last of all. A disk that an earlier worker has
/// verified is only read again, and repaired: what differs is the boot partition that it was file.
pub fn flash_and_verify<S: Source>(
    plan: &Plan,
    target: &Target,
    origin: Origin<'_, S>,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), Error> {
    crc32::prepare();
    let mut decoder = Decoder::new(origin.source, origin.stream);
    let job = Job { plan, target, map: origin.map, shared };
    let all = 0..plan.image.chunks;
    if shared.verified.load(SeqCst) {
        let watch = shared.enter(Phase::Verify);
        job.verify_again(&mut decoder, buffers)?;
        shared.leave(Phase::Verify, watch);
        return Ok(());
    }
    let watch = shared.enter(Phase::Flash);
    job.flash(&mut decoder, buffers)?;
    shared.leave(Phase::Flash, watch);
    crate::info!("flashed ({} s); reading back", watch.shown());
    let watch = shared.enter(Phase::Verify);
    job.verify(&mut decoder, 1..all.end, buffers)?;
    job.write_head(buffers)?;
    job.verify(&mut decoder, 0..1, buffers)?;
    shared.leave(Phase::Verify, watch);
    shared.verified.store(true, SeqCst);
    crate::info!("verified: every chunk is as it was scanned ({} s)", watch.shown());
    Ok(())
}

/// Flashes from a system that goes on running: for rescue images. An error is one before anything was begun.
pub fn flash_here(
    plan: &Plan,
    base: &str,
    source: &FileSource,
    stream: Stream,
    map: &ChunkMap,
) -> Result<Flashed, Error> {
    let shared: &Shared = sys::map::shared().doing("mapping", "the shared page")?;
    let mut buffers = Buffers::map()?;
    shared.attempts.store(1, SeqCst);
    let origin = Origin { source, stream, map };
    let result = write_all(plan, base, origin, &mut buffers, shared);
    let destroyed = shared.destroyed.load(SeqCst);
    let outcome = match (&result, destroyed) {
        (Ok(()), _) if plan.pretend => Outcome::Pretended,
        (Ok(()), _) => Outcome::Done,
        (Err(_), false) => Outcome::Untouched,
        (Err(_), true) => Outcome::Failed,
    };
    shared.worker_heap.store(memory::heap_high_water() as u64, SeqCst);
    let line = result_line(outcome, shared, &totals(plan, base));
    let result = result.map_err(|error| match destroyed {
        true => error.as_incomplete().advice("the disk is incomplete now: flash it again"),
        false => error,
    });
    Ok(Flashed { result, line })
}

/// The figures of the result line that this process knows.
fn totals(plan: &Plan, base: &str) -> Totals {
    let root = if base.is_empty() { "/" } else { base };
    let used = files::space(root).map_or(0, |space| {
        space.f_blocks.saturating_sub(space.f_bfree).saturating_mul(space.f_frsize)
    });
    Totals {
        bytes: plan.image.length,
        chunks: plan.image.chunks,
        zero_chunks: plan.image.zero_chunks,
        ramfs: used,
        own_peak: memory::peak_resident_kib(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::map::Record;
    use crate::text::Text;

    #[test]
    fn a_chunk_map_or_an_image_that_changed_is_found_before_the_disk_is_opened() {
        let mut plan = crate::plan::tests::sample();
        plan.image.chunks = 2;
        plan.image.stream.offset = 0;
        plan.image.stream.length = 10;
        plan.image.packed_crc = crc32::of_zeros(10);
        let map = ChunkMap::create().unwrap();
        for index in 0..2 {
            map.set(index, Record { crc: index, zero: false }).unwrap();
        }
        let shared: &Shared = sys::map::shared().unwrap();
        let mut buffers = Buffers::map().unwrap();
        let mut refusal = |plan: &Plan| {
            let origin = Origin { source: &vec![0; 10], stream: plan.image.stream, map: &map };
            let error = write_all(plan, "/nowhere", origin, &mut buffers, shared).unwrap_err();
            let text: Text<400> = crate::text!("{}", error);
            text
        };
        plan.image.map_crc = map.crc(2).unwrap() ^ 1;
        assert!(refusal(&plan).contains("chunk map"));
        plan.image.map_crc ^= 1;
        assert!(refusal(&plan).contains("claiming the disk"));
        plan.image.packed_crc ^= 1;
        assert!(refusal(&plan).contains("it is not what was scanned"));
        plan.image.packed_crc ^= 1;
        plan.image.stream.length = 11;
        assert!(refusal(&plan).contains("it is not what was scanned"));
    }
}
