//! The worker: everything between the hand-over and the restart, as a page of steps.
//!
//! Runs as a child of PID 1, from the RAMFS, and may die at any time: PID 1 starts another, which begins at the top.

use super::flash::Buffers;
use super::{Origin, exports, kill, unmount, write_all};
use crate::error::Error;
use crate::files;
use crate::image::map::ChunkMap;
use crate::image::source::FileSource;
use crate::memory;
use crate::plan::{Plan, names};
use crate::progress::{Phase, Shared};
use core::sync::atomic::Ordering::SeqCst;
use rustix::fs::OFlags;

/// How a worker ended, as its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum End {
    /// Flashed, verified and furnished.
    Done = 0,
    /// The disk is free, and `--pretend` wanted no more.
    Pretended = 10,
    /// It gave up, and has logged why.
    Failed = 20,
}

/// Does the work, and gives the exit code.
pub fn run(plan: &Plan, shared: &Shared) -> i32 {
    // Without it only the chance grows that the kernel picks this process when memory is short.
    let _ = spare_from_oom();
    let end = match steps(plan, shared) {
        Ok(end) => end,
        Err(error) => {
            crate::error!("{}", error);
            End::Failed
        }
    };
    shared.worker_peak.fetch_max(memory::peak_resident_kib(), SeqCst);
    shared.worker_heap.fetch_max(memory::heap_high_water() as u64, SeqCst);
    end as i32
}

fn steps(plan: &Plan, shared: &Shared) -> Result<End, Error> {
    let mut buffers = Buffers::map()?;
    let watch = shared.enter(Phase::Kill);
    let all_ended = kill::everyone(shared);
    shared.leave(Phase::Kill, watch);
    match all_ended {
        true => crate::info!("every process has ended ({} s)", watch.shown()),
        false => crate::warn!("some processes do not end: going on ({} s)", watch.shown()),
    }

    let watch = shared.enter(Phase::Unmount);
    exports::withdraw(shared);
    unmount::old_root(plan, buffers.scratch(), shared)?;
    unmount::prove_free(plan, shared)?;
    shared.leave(Phase::Unmount, watch);
    crate::info!("/dev/{} is free ({} s)", plan.target.name.as_str(), watch.shown());
    if plan.pretend {
        return Ok(End::Pretended);
    }

    let image = crate::path!("/{}", names::IMAGE)?;
    let map = ChunkMap::open(&crate::path!("/{}", names::MAP)?)?;
    let source = FileSource::open(&image)?;
    let origin = Origin { source: &source, stream: plan.image.stream, map: &map };
    write_all(plan, "", origin, &mut buffers, shared)?;
    Ok(End::Done)
}

/// Makes the kernel's out-of-memory killer look elsewhere (proc(5), oom_score_adj).
fn spare_from_oom() -> Result<(), rustix::io::Errno> {
    let flags = OFlags::WRONLY;
    let file = files::open("/proc/self/oom_score_adj", flags)?;
    files::write_all(&file, b"-1000")
}
