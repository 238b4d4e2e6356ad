//! How much memory this program may use, and that it asks for none when it must not fail.
//!
//! The heap is for the command line (lexopt, std's arguments) and nothing else: it is capped, and sealed as soon as the
//! options are read. So between the first change of the live system and the undoing of it, and between the first and
//! the last destructive byte (invariant 3), there is no allocation that could fail: one would abort the process, and
//! tests would see it. Whatever is large is mapped before it is needed, faulted in and locked, or an error.

use crate::{files, sys};

/// The most heap that may ever be in use, in bytes. The high-water mark of a command line is 2 KiB.
///
/// The backup needs more, before anything is changed: 370 KiB for the packer and its buffers, 230 KiB at most for the names
/// in the directories that are open, 170 KiB at most for filters and what they match with, and the description, of
/// 64 KiB at most. `tests/backup.rs` finds 450 KiB in use for a tree however large, and 820 KiB at worst, its own strings included.
pub const HEAP_CAP: usize = if cfg!(feature = "backup") { 1024 * 1024 } else { 256 * 1024 };

/// Unit tests run beside each other in one process, harness and fixtures included.
#[cfg(test)]
const CAP: usize = 1 << 30;
#[cfg(not(test))]
const CAP: usize = HEAP_CAP;

#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new(CAP);

/// From here on an allocation that cannot be had ends the process with a message and exit code 1, as it should while
/// nothing was changed, instead of aborting it.
pub fn fail_clearly() {
    HEAP.set_fatal();
}

/// Refuses every heap allocation of this process and its children from here on.
pub fn seal() {
    HEAP.set_sealed(true);
}

/// Allows heap allocations again.
pub fn unseal() {
    HEAP.set_sealed(false);
}

/// The most memory this process ever had resident, in KiB: VmHWM in /proc/self/status, or what its page tables hold now,
/// /proc/self/smaps_rollup, if that is more (proc(5)).
///
/// VmHWM is off by up to 64 pages of each thread, which the kernel counts in batches (SPLIT_RSS_COUNTING of its mm code):
/// PID 1 has fewer. Not getrusage's ru_maxrss: that one survives execve, so PID 1 would report the old init's.
pub fn peak_resident_kib() -> u64 {
    kib_in("/proc/self/status", "VmHWM:").max(kib_in("/proc/self/smaps_rollup", "Rss:"))
}

/// The number behind a word of a file of /proc, in KiB; 0 when it is not there.
fn kib_in(path: &str, word: &str) -> u64 {
    let mut buffer = [0; 4096];
    let text = files::read_text(path, &mut buffer).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.and_then(|line| crate::text::decimal(line.trim_ascii().strip_suffix("kB")?)).unwrap_or(0)
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
    #[test]
    fn resident_memory_is_what_the_page_tables_hold_at_least() {
        let before = super::kib_in("/proc/self/smaps_rollup", "Rss:");
        assert!(before > 100, "{before}");
        assert!(super::peak_resident_kib() >= before);
        assert_eq!(super::kib_in("/proc/self/smaps_rollup", "Nothing:"), 0);
        assert_eq!(super::kib_in("/nowhere", "Rss:"), 0);
    }
}
