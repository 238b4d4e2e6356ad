//! How much memory this program may use, and that it asks for none when it must not fail.
//!
//! The heap is for the command line (lexopt, std's arguments): it is capped, and sealed as soon as the options are
//! read. A program that can make backups (feature `backup`, in the default set) unseals it twice more, for the crates
//! for YAML and regular expressions and for the packer, under the same cap: while it counts what the backup takes,
//! before the question, and in a child process that makes the backup when all else is prepared. So in the process that
//! has changes to undo, and between the first and the last destructive byte (invariant 3), there is no allocation that
//! could fail: one would abort the process, and tests would see it. Whatever is large is mapped before it is needed,
//! faulted in and locked, or an error.

use crate::text::{Text, kib_in};
use crate::{files, sys};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The most heap that may ever be in use, in bytes. The high-water mark of a command line is 2 KiB.
///
/// The backup needs more: 370 KiB for the packer and its buffers, 230 KiB at most for the
/// names in the directories that are open, 170 KiB at most for filters and what they match with, and the description,
/// of 64 KiB at most. `tests/backup.rs` finds 450 KiB in use for a tree however large, and 820 KiB at worst, its own
/// strings included.
pub const HEAP_CAP: usize = if cfg!(feature = "backup") { 1024 * 1024 } else { 256 * 1024 };

/// Unit tests run beside each other in one process, harness and fixtures included.
#[cfg(test)]
const CAP: usize = 1 << 30;
#[cfg(not(test))]
const CAP: usize = HEAP_CAP;

#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new(CAP, ARENA, end_if_asked);

/// The most memory that TLS may have at once, in bytes of addresses: a page counts when it is used.
///
/// A session has 40 KiB: its buffers, and a record that is copied. What a hostile server can make rustls keep is
/// bounded by the buffer for what comes, 18 KiB: it makes the most of that with a list of certificates of no bytes, and
/// `tests/test_tls.py` finds 400 KiB in use then.
const ARENA: usize = 1024 * 1024;

/// Runs `work`, whose allocations come from the arena that TLS has, sealed or not; those of other threads do not, and
/// no two threads are in it at once. What was allocated there may be given back anywhere.
///
/// An allocation that the arena refuses ends the process: rustls knows no other answer.
#[cfg(feature = "tls")]
pub fn in_arena(work: &mut dyn FnMut()) {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A panic aborts, so there is no poison.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    HEAP.arena().set_entered(true);
    work();
    HEAP.arena().set_entered(false);
}

/// How much of the arena is left.
#[cfg(feature = "tls")]
pub fn arena_left() -> usize {
    ARENA.saturating_sub(HEAP.arena().used())
}

/// The most bytes that TLS ever had in use in this process.
#[cfg(feature = "tls")]
pub fn arena_high_water() -> usize {
    HEAP.arena().high_water()
}

static FAIL_CLEARLY: AtomicBool = AtomicBool::new(false);
const OUT_OF_MEMORY: &[u8] =
    b"error: reading what the user gave: it needs more memory than there is, \
    or than the cap of this program; no disk was changed\n";

/// From here on an allocation that cannot be had ends the process with a message and exit code 1, instead of aborting
/// it, as it should while this process has nothing to undo.
pub fn fail_clearly() {
    FAIL_CLEARLY.store(true, Relaxed);
}

fn end_if_asked() {
    if FAIL_CLEARLY.load(Relaxed) {
        // Nobody to tell if even that fails.
        let _ = rustix::io::write(rustix::stdio::stderr(), OUT_OF_MEMORY);
        sys::process::exit(1);
    }
}

/// Refuses every heap allocation of this process and its children from here on.
pub fn seal() {
    HEAP.set_sealed(true);
}

/// Allows heap allocations again.
pub fn unseal() {
    HEAP.set_sealed(false);
}

/// True when every heap allocation of this process is refused.
pub fn is_sealed() -> bool {
    HEAP.is_sealed()
}

/// What a process has resident, in KiB.
#[derive(Clone, Copy, Default)]
pub struct Resident {
    /// The most it ever had: VmHWM in /proc/PID/status, or what its page tables hold now, /proc/PID/smaps_rollup, if
    /// that is more (proc(5)).
    ///
    /// VmHWM is off by up to 64 pages of each thread, which the kernel counts in batches (SPLIT_RSS_COUNTING of its mm
    /// code): PID 1 has fewer. Not getrusage's ru_maxrss: that one survives execve, so PID 1 would report the old
    /// init's.
    pub peak: u64,
    /// What counts with the others that have it, too: the difference of Rss and Pss. None before Linux 4.14.
    pub with_others: u64,
    /// Its part of files in memory and of what processes share: Pss_Shmem, of Linux 5.4 and later.
    pub of_memory_files: u64,
}

/// What this process has resident.
pub fn resident() -> Resident {
    resident_of("/proc/self/status", "/proc/self/smaps_rollup")
}

/// What the process has that started this one.
pub fn resident_of_parent() -> Resident {
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    let [status, rollup] = ["status", "smaps_rollup"]
        .map(|name| crate::text!("/proc/{}/{}", parent, name) as Text<40>);
    resident_of(&status, &rollup)
}

fn resident_of(status: &str, rollup: &str) -> Resident {
    let mut buffers = ([0; 4096], [0; 4096]);
    // The figures stand in front of the lists of CPUs, which may be long.
    let status = files::read_start(status, &mut buffers.0).unwrap_or_default();
    let rollup = files::read_start(rollup, &mut buffers.1).unwrap_or_default();
    counted(files::as_text(status), files::as_text(rollup))
}

/// Makes the kernel look elsewhere when it ends a process for its memory (proc(5), oom_score_adj), and likewise those
/// who do so before the kernel must, as earlyoom(1).
pub fn spare_from_oom() -> Result<(), Errno> {
    files::write_all(files::open("/proc/self/oom_score_adj", OFlags::WRONLY)?, b"-1000")
}

/// How much of the page cache is not on its disk yet, in KiB: what waits, and what is being written (proc(5), meminfo).
pub fn unwritten_kib() -> u64 {
    let mut buffer = [0; 4096];
    unwritten(files::read_text("/proc/meminfo", &mut buffer).unwrap_or_default())
}

fn unwritten(meminfo: &str) -> u64 {
    let kib = |word| kib_in(meminfo, word).unwrap_or(0);
    kib("Dirty:").saturating_add(kib("Writeback:"))
}

fn counted(status: &str, rollup: &str) -> Resident {
    let rss = kib_in(rollup, "Rss:");
    let alone = kib_in(rollup, "Pss:").or(rss);
    Resident {
        peak: kib_in(status, "VmHWM:").max(rss).unwrap_or(0),
        with_others: rss.unwrap_or(0).saturating_sub(alone.unwrap_or(0)),
        of_memory_files: kib_in(rollup, "Pss_Shmem:").unwrap_or(0),
    }
}

/// The heap's high-water mark of this process, in bytes.
pub fn heap_high_water() -> usize {
    HEAP.high_water()
}

/// How many allocations were refused in this process.
pub fn heap_refused() -> usize {
    HEAP.refused()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_the_page_tables_hold_at_least() {
        let peak = |status: &str, rollup: &str| counted(status, rollup).peak;
        let status = "Name:\ttakeover\nVmHWM:\t       4 kB\nVmRSS:\t       4 kB\n";
        let rollup = "00010000-bee00000 ---p 00000000 00:00 0 [rollup]\nRss:                 640 kB\nPss: 1 kB\n";
        assert_eq!(peak(status, rollup), 640);
        assert_eq!(peak(&status.replace(" 4 kB", " 900 kB"), rollup), 900);
        assert_eq!(peak("", rollup), 640);
        assert_eq!(peak(status, ""), 4);
        assert_eq!(peak("VmHWM:\tmany\n", ""), 0);
        assert!(resident().peak > 100 && resident_of_parent().peak > 100);
    }

    #[test]
    fn what_several_processes_have_is_known() {
        let others = |rollup: &str| counted("", rollup).with_others;
        let rollup = "Rss:  640 kB\nPss:  400 kB\nPss_Anon: 100 kB\nPss_Shmem:  290 kB\n";
        assert_eq!((others(rollup), counted("", rollup).of_memory_files), (240, 290));
        // Before Linux 5.4, and before 4.14.
        assert_eq!(counted("", "Rss:  640 kB\nPss:  400 kB\n").of_memory_files, 0);
        assert_eq!((others("Rss:  640 kB\n"), others("")), (0, 0));
    }

    #[test]
    fn what_is_unwritten_waits_or_is_being_written() {
        let meminfo =
            "Cached: 7 kB\nDirty:     100 kB\nWriteback:    30 kB\nWritebackTmp:   5 kB\n";
        assert_eq!(unwritten(meminfo), 130);
        assert_eq!(unwritten(""), 0);
    }
}
