//! How much memory this program may use, and the buffers it maps once.
//!
//! The heap is small and capped: stage 1 uses it for paths and option values, std for threads. Whatever is large is
//! mapped here before it is needed, faulted in and locked. Between the first and the last destructive byte the heap
//! is sealed (invariant 3): an allocation there aborts the process, and a test sees it.

use crate::{files, sys};

/// The most heap that may ever be in use, in bytes. Measured high-water marks are under 64 KiB.
pub const HEAP_CAP: usize = 256 * 1024;

/// Unit tests run beside each other in one process, harness and fixtures included.
#[cfg(test)]
const CAP: usize = 1 << 30;
#[cfg(not(test))]
const CAP: usize = HEAP_CAP;

#[global_allocator]
static HEAP: sys::heap::Heap = sys::heap::Heap::new(CAP);

/// Refuses every heap allocation of this process from here on.
pub fn seal() {
    HEAP.set_sealed(true);
}

/// Allows heap allocations again.
pub fn unseal() {
    HEAP.set_sealed(false);
}

/// The most memory this process ever had resident, in KiB: VmHWM in /proc/self/status (proc(5)).
///
/// Not getrusage's ru_maxrss: that one survives execve, so PID 1 would report the old init's.
pub fn peak_resident_kib() -> u64 {
    let mut buffer = [0; 4096];
    let text = files::read_text("/proc/self/status", &mut buffer).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| crate::text::decimal(line.trim().strip_suffix("kB")?)).unwrap_or(0)
}

/// The heap's high-water mark of this process, in bytes.
pub fn heap_high_water() -> usize {
    HEAP.high_water()
}

/// How many allocations were refused in this process.
pub fn heap_refused() -> usize {
    HEAP.refused()
}
