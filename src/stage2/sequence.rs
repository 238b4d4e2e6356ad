//! The sequence of stage 2, as a page of steps: everything between the hand-over and the restart.
//!
//! The worker is a child of PID 1, runs from the RAMFS, and may die at any time: PID 1 starts another, which begins at
//! the top. `takeover flash` comes in where the disk is free.

use super::buffers::Buffers;
use super::data;
use super::job::Job;
use super::staged::Staged;
use super::target::Target;
use super::{boot_blob, boot_entry, exports, faults, kill, packed, record, target, unmount};
use crate::error::Error;
use crate::files;
use crate::image::chunk_length;
use crate::image::decode::{BUFFER, Decoder};
use crate::image::map::ChunkMap;
use crate::image::patches::Patches;
use crate::image::source::{FileSource, Source};
use crate::plan::{Plan, names};
use crate::progress::{Kept, Phase, Shared, saturated};
use crate::{memory, screen};
use core::sync::atomic::Ordering::SeqCst;

/// How a worker ended, as its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum End {
    /// The new OS is on the disk, whole.
    Done = 0,
    /// The disk is free, and `--pretend` wanted no more.
    Pretended = 10,
    /// It gave up, and has logged why.
    Failed = 20,
    /// The same, and another worker would give up likewise.
    Lasting = 21,
}

impl End {
    /// By the exit code of a worker.
    pub fn of(code: i32) -> Option<Self> {
        let all = [End::Done, End::Pretended, End::Failed, End::Lasting];
        all.into_iter().find(|end| *end as i32 == code)
    }
}

/// Does the worker's work, and gives the exit code; for `head` see [`Buffers::map`].
pub fn work(plan: &Plan, shared: &Shared, head: &'static mut [u8]) -> i32 {
    // Without it only the chance grows that the kernel picks this process when memory is short.
    let _ = memory::spare_from_oom();
    let end = take_over(plan, shared, head).unwrap_or_else(|error| {
        crate::error!("{}", error);
        if error.lasts() { End::Lasting } else { End::Failed }
    });
    if crate::IS_WHOLE {
        count_memory(shared);
    }
    shared.worker_heap.fetch_max(saturated(memory::heap_high_water() as u64), SeqCst);
    end as i32
}

/// Counts what this process and PID 1 have, each page once; PID 1 can no more once this one has ended.
fn count_memory(shared: &Shared) {
    let (own, parent) = (memory::resident(), memory::resident_of_parent());
    // Of what is shared, all but the program is no file of the RAMFS.
    let no_file = (BUFFER + size_of::<Shared>().next_multiple_of(4096)) as u64 / 1024;
    let mapped = (own.of_memory_files + parent.of_memory_files).saturating_sub(no_file);
    shared.worker_peak.fetch_max(saturated(own.peak.saturating_sub(own.with_others)), SeqCst);
    shared.of_both.store(saturated(parent.with_others), SeqCst);
    shared.mapped.store(saturated(mapped), SeqCst);
}

/// From the hand-over to the new OS.
fn take_over(plan: &Plan, shared: &Shared, head: &'static mut [u8]) -> Result<End, Error> {
    let mut buffers = Buffers::map(head)?;
    let watch = shared.enter(Phase::Kill);
    #[cfg(feature = "http")]
    if super::report::is_wanted() || !plan.log_receiver.is_empty() {
        kill::keepers_of_addresses();
    }
    let all_ended = kill::everyone(shared);
    screen::to_text();
    shared.leave(Phase::Kill, watch);
    if all_ended {
        crate::info!("every process has ended ({} s)", watch.shown());
    } else {
        crate::warn!("some processes do not end: going on ({} s)", watch.shown());
    }

    let watch = shared.enter(Phase::Unmount);
    exports::withdraw(shared);
    let node = crate::path!("/{}/{}", names::DEV, plan.target.name.as_str())?;
    let number = target::number_now(&node, plan, shared);
    unmount::old_root(number, buffers.scratch(), shared)?;
    unmount::prove_free(plan, number, shared)?;
    shared.leave(Phase::Unmount, watch);
    crate::info!("/dev/{} is free ({} s)", plan.target.name.as_str(), watch.shown());
    if only_head_is_gone(shared) {
        let (target, _) = target::claim_disk(plan, "", shared)?;
        restore_head(&target, plan, &mut buffers, shared)?;
    }

    let (file, raw, list, open);
    let source: &dyn Source = match &plan.packed {
        None => {
            file = FileSource::open(&files::below("", names::IMAGE)?)?;
            &file
        }
        Some(packed) => {
            list = packed::list(packed)?;
            open = || packed::open(plan, packed, shared);
            raw = packed::source(packed, &list, &open)?;
            &raw
        }
    };
    let map = ChunkMap::open(&files::below("", names::MAP)?)?;
    let patches = Patches::open(&files::below("", names::PATCHES)?, plan.image.patches)?;
    let staged = Staged { source, stream: plan.image.stream, patches, map: &map };
    let end = write(plan, "", staged, &mut buffers, shared)?;
    if end == End::Done {
        boot_entry::make(shared);
    }
    Ok(end)
}

/// Writes the image, with the files of the new OS in it, to a disk that is free; `base` is where the RAMFS is mounted.
/// With `--pretend` it ends when the disk is ours. Nothing here may allocate once the first byte is written.
pub fn write(
    plan: &Plan,
    base: &str,
    staged: Staged<'_>,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<End, Error> {
    // First ours alone: nothing comes by what is proven afterwards.
    let (target, path) = target::claim_disk(plan, base, shared)?;
    let mut boot_area = boot_blob::claim(base)?;
    staged.prove(plan, buffers, shared)?;
    if plan.pretend {
        crate::info!("pretended: {} is free, and nothing was written", path.as_str());
        return Ok(End::Pretended);
    }
    if base.is_empty() {
        // Not in a rescue system, which keeps the image and lives on.
        faults::outlive();
    }
    let place = &mut |buffers: &mut Buffers| {
        // Taken: a process that is left behind must not keep it from the next worker.
        if let Some(boot_area) = boot_area.take() {
            boot_area.write(&target, buffers, shared)?;
        }
        data::place(plan, base, &path, &target, shared)
    };
    write_to(&target, plan, staged, buffers, shared, place)?;
    record::forget(&target, plan, buffers.scratch(), shared);
    Ok(End::Done)
}

/// Writes the image, as it is, to a disk that is free and has its node in /dev.
pub fn write_free(
    plan: &Plan,
    staged: Staged<'_>,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), Error> {
    let (target, _) = target::claim_disk(plan, "", shared)?;
    if only_head_is_gone(shared) {
        restore_head(&target, plan, buffers, shared)?;
    }
    staged.prove(plan, buffers, shared)?;
    write_to(&target, plan, staged, buffers, shared, &mut |_| Ok(()))
}

/// Whether a worker before this one has cleared the head of the old OS, and has written nothing else.
pub fn only_head_is_gone(shared: &Shared) -> bool {
    shared.destroyed.load(SeqCst) && shared.head_only.load(SeqCst)
}

/// Puts that head back: before anything of the image can be found bad, or not there.
pub fn restore_head(
    target: &Target,
    plan: &Plan,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), Error> {
    let Buffers { slots: [now, old], .. } = buffers;
    let length = chunk_length(0, plan.image.length).next_multiple_of(target.block);
    let [old, now] = [old, now].map(|buffer| buffer.get_mut(..length).unwrap_or_default());
    target.restore_head(old, now, shared)
}

/// Writes the image to an open target and reads it back. The first chunk, without which the disk does not boot, is
/// cleared before anything else and written last of all, after `place` has placed what lies elsewhere: at any moment
/// there is the old OS on the disk, or none, or the whole new one.
pub fn write_to(
    target: &Target,
    plan: &Plan,
    staged: Staged<'_>,
    buffers: &mut Buffers,
    shared: &Shared,
    place: &mut dyn FnMut(&mut Buffers) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut decoder = Decoder::new(staged.source, staged.stream);
    decoder.patch(staged.patches);
    let job = Job { plan, target, map: staged.map, shared };

    if crate::IS_WHOLE {
        // What an earlier worker has placed is overwritten now.
        for kept in [&shared.backup, &shared.log] {
            kept.store(Kept::Not as u32, SeqCst);
        }
    }
    let watch = shared.enter(Phase::Flash);
    job.flash(&mut decoder, buffers)?;
    shared.leave(Phase::Flash, watch);
    crate::info!("flashed ({} s); reading back", watch.shown());

    let watch = shared.enter(Phase::Verify);
    job.verify(&mut decoder, 1..plan.image.chunks, buffers)?;
    shared.leave(Phase::Verify, watch);
    crate::info!("verified: every chunk is as it was scanned ({} s)", watch.shown());

    // A rescue system places nothing.
    if crate::IS_WHOLE {
        let watch = shared.enter(Phase::Data);
        place(buffers)?;
        shared.leave(Phase::Data, watch);
    }

    let watch = shared.enter(Phase::Head);
    job.write_head(&mut decoder, buffers)?;
    shared.leave(Phase::Head, watch);
    shared.complete.store(true, SeqCst);
    crate::info!("the head is written and read back: the disk boots ({} s)", watch.shown());
    Ok(())
}
