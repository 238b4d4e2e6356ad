//! Stage 2: PID 1 and its worker, and the flashing that a rescue image shares with them.
//!
//! Executes nothing and loads nothing: the old root is gone. Between the first and the last destructive byte it
//! allocates nothing: buffers are mapped, faulted in and locked before, and the heap is sealed. `sequence` is the page
//! to begin with.

mod boot_blob;
mod boot_entry;
mod buffers;
mod child;
mod consoles;
mod data;
mod exports;
mod faults;
mod flash;
mod head;
mod job;
mod keep_log;
mod kill;
mod led;
mod packed;
pub mod pid1;
mod record;
#[cfg(feature = "http")]
mod report;
mod ring;
mod sequence;
mod staged;
mod stuck;
mod target;
mod unmount;
mod verify;
mod watchdog;

pub use boot_blob::BootArea;
pub use buffers::Buffers;
pub use sequence::{only_head_is_gone, restore_head, write_to};
pub use staged::Staged;
pub use target::Target;

use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::BUFFER;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::patches::Patches;
use crate::image::source::Source;
use crate::log::Line;
use crate::plan::{Plan, names};
use crate::progress::{Flashed, Outcome, Shared, Totals, result_line, saturated};
use crate::{memory, sys};
use core::sync::atomic::Ordering::SeqCst;
use sequence::End;

/// Flashes from a system that goes on running: for rescue images. `base` is where the RAMFS is mounted. An error is one
/// before anything was begun.
pub fn flash_here(
    plan: &Plan,
    base: &str,
    source: &dyn Source,
    stream: Stream,
    map: &ChunkMap,
) -> Result<Flashed, Error> {
    let shared: &Shared = sys::map::shared().doing("mapping", "the shared page")?;
    let head = sys::map::buffer(BUFFER).doing("reserving", "the flash buffers")?;
    let mut buffers = Buffers::map(head)?;
    shared.attempts.store(1, SeqCst);
    let path = files::below(base, names::PATCHES)?;
    let patches = Patches::open(&path, plan.image.patches)?;
    let staged = Staged { source, stream, patches, map };
    let result = sequence::write(plan, base, staged, &mut buffers, shared);
    let destroyed = shared.destroyed.load(SeqCst);
    if let Err(error) = &result
        && destroyed
    {
        let line = result_line(Outcome::Failed, shared, &totals(plan, base));
        let why: Line = crate::text!("{}\n{}\n", error, line);
        if let Err(error) = record::keep(plan, base, &why, shared) {
            crate::warn!("{}", error);
        }
    }
    Ok(ended(plan, base, result, shared))
}

/// Flashes a disk in a rescue system, where its node is in /dev and nothing is placed by a mount. `head` is a buffer of
/// [`BUFFER`] bytes. An error is one before anything was begun.
pub fn flash_free(
    plan: &Plan,
    staged: Staged<'_>,
    head: &'static mut [u8],
    shared: &Shared,
) -> Result<Flashed, Error> {
    let mut buffers = Buffers::map(head)?;
    let result = sequence::write_free(plan, staged, &mut buffers, shared);
    Ok(ended(plan, "", result.map(|()| End::Done), shared))
}

/// How it ended, for people and for programs.
fn ended(plan: &Plan, base: &str, result: Result<End, Error>, shared: &Shared) -> Flashed {
    let destroyed = shared.destroyed.load(SeqCst);
    let outcome = match &result {
        Ok(End::Pretended) => Outcome::Pretended,
        Ok(_) => Outcome::Done,
        Err(_) if destroyed => Outcome::Failed,
        Err(_) => Outcome::Untouched,
    };
    shared.worker_heap.store(saturated(memory::heap_high_water() as u64), SeqCst);
    let line = result_line(outcome, shared, &totals(plan, base));
    let result = result.map(drop).map_err(|error| {
        if destroyed {
            error.as_incomplete().advice("the disk is incomplete now: flash it again")
        } else {
            error
        }
    });
    Flashed { result, line }
}

/// The figures of the result line that this process knows.
fn totals(plan: &Plan, base: &str) -> Totals {
    let (bytes, chunks, zero_chunks) =
        (plan.image.length, plan.image.chunks, plan.image.zero_chunks);
    if !crate::IS_WHOLE {
        return Totals { bytes, chunks, zero_chunks, ..Totals::default() };
    }
    let root = if base.is_empty() { "/" } else { base };
    let used = files::space(root).map_or(0, |space| {
        space.f_blocks.saturating_sub(space.f_bfree).saturating_mul(space.f_frsize)
    });
    Totals { bytes, chunks, zero_chunks, ramfs: used, own_peak: memory::resident().peak }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc32;
    use crate::image::map::Record;
    use crate::text::Text;

    #[test]
    fn what_changed_in_memory_is_found_before_the_first_write() {
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
        let mut buffers = Buffers::map(sys::map::buffer(BUFFER).unwrap()).unwrap();
        let patches = || {
            let mut patches = Patches::create().unwrap();
            patches.push(7, &[1; 512]).unwrap();
            patches
        };
        let mut refusal = |plan: &Plan| {
            let (source, stream) = (&vec![0; 10], plan.image.stream);
            let staged = Staged { source, stream, patches: patches(), map: &map };
            let result = staged.prove(plan, &mut buffers, shared);
            result.map_or_else(|error| crate::text!("{}", error), |()| Text::<400>::new())
        };
        plan.image.map_crc = map.crc(2).unwrap() ^ 1;
        assert!(refusal(&plan).contains("chunk map"));
        plan.image.map_crc ^= 1;
        plan.image.patches = 1;
        assert!(refusal(&plan).contains("the patches of the image"));
        plan.image.patches_crc = patches().crc().unwrap();
        assert!(refusal(&plan).is_empty());
        plan.image.patches = 2;
        assert!(refusal(&plan).contains("the patches of the image"));
        plan.image.patches = 1;
        plan.image.packed_crc ^= 1;
        assert!(refusal(&plan).contains("it is not what was scanned"));
        plan.image.packed_crc ^= 1;
        plan.image.stream.length = 11;
        assert!(refusal(&plan).contains("it is not what was scanned"));
    }

    /// An image on a server: what of it was read, and how many bytes the server still has.
    struct Remote(core::cell::RefCell<Vec<(u64, usize)>>, usize);

    impl Source for Remote {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
            self.0.borrow_mut().push((offset, buffer.len()));
            Ok(buffer.len().min(self.1.saturating_sub(offset as usize)))
        }
        fn length(&self) -> u64 {
            self.1 as u64
        }
        fn is_remote(&self) -> bool {
            true
        }
    }

    #[test]
    fn an_image_on_a_server_is_asked_for_again_before_the_first_write_but_not_read_again() {
        use crate::image::CHUNK;
        let mut plan = crate::plan::tests::sample();
        plan.image.chunks = 1;
        (plan.image.patches, plan.image.patches_crc) = (0, 0);
        (plan.image.stream.offset, plan.image.stream.length) = (100, 5 * CHUNK as u64);
        let map = ChunkMap::create().unwrap();
        map.set(0, Record { crc: 7, zero: false }).unwrap();
        plan.image.map_crc = map.crc(1).unwrap();
        let shared: &Shared = sys::map::shared().unwrap();
        let mut buffers = Buffers::map(sys::map::buffer(BUFFER).unwrap()).unwrap();
        let mut refusal = |has: usize| {
            let source = Remote(Default::default(), has);
            let (stream, patches) = (plan.image.stream, Patches::none());
            let staged = Staged { source: &source, stream, patches, map: &map };
            let result = staged.prove(&plan, &mut buffers, shared);
            let text =
                result.map_or_else(|error| crate::text!("{}", error), |()| Text::<400>::new());
            (text, source.0.into_inner())
        };
        let (why, read) = refusal(100 + 5 * CHUNK);
        assert!(why.is_empty(), "{why:?}");
        assert_eq!(read, [(100 + 4 * CHUNK as u64, CHUNK), (100, CHUNK)]);
        let (why, _) = refusal(100 + 5 * CHUNK - 1);
        assert!(why.contains("it is not what was scanned"), "{why:?}");
    }
}
