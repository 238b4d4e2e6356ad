//! The global allocator's mechanics: the system's allocator, counted, capped and sealable.
//!
//! What the cap is and when the heap is sealed is decided in `memory.rs`. Refusal is a null pointer, as
//! `GlobalAlloc` asks for: fallible callers get an error, infallible ones abort.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::alloc::System;

const OUT_OF_MEMORY: &[u8] =
    b"error: reading what the user gave: it needs more memory than there is, or than the cap of this program; nothing was changed\n";

/// A counting allocator that refuses beyond `cap` bytes, and refuses everything while sealed.
pub struct Heap {
    cap: usize,
    used: AtomicUsize,
    high_water: AtomicUsize,
    sealed: AtomicBool,
    fatal: AtomicBool,
    refused: AtomicUsize,
}

impl Heap {
    /// An empty heap that never hands out more than `cap` bytes at once.
    pub const fn new(cap: usize) -> Self {
        Self {
            cap,
            used: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            sealed: AtomicBool::new(false),
            fatal: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        }
    }

    /// From here on every allocation is refused, or allowed again.
    pub fn set_sealed(&self, sealed: bool) {
        self.sealed.store(sealed, Relaxed);
    }

    /// From here on a refusal ends the process, unless the heap is sealed: then it is a bug, and aborts.
    pub fn set_fatal(&self) {
        self.fatal.store(true, Relaxed);
    }

    /// The null pointer of a refusal, or the end.
    fn refuse(&self) -> *mut u8 {
        self.refused.fetch_add(1, Relaxed);
        if self.fatal.load(Relaxed) && !self.sealed.load(Relaxed) {
            // Nobody to tell if even that fails.
            let _ = rustix::io::write(rustix::stdio::stderr(), OUT_OF_MEMORY);
            super::process::exit(1);
        }
        core::ptr::null_mut()
    }

    /// The most bytes that were ever in use at once.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Relaxed)
    }

    /// How many allocations were refused, sealed or over the cap.
    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }

    fn admit(&self, size: usize) -> bool {
        let before = self.used.fetch_add(size, Relaxed);
        if self.sealed.load(Relaxed) || before.saturating_add(size) > self.cap {
            self.used.fetch_sub(size, Relaxed);
            return false;
        }
        self.high_water.fetch_max(before + size, Relaxed);
        true
    }
}

// SAFETY: every method passes its arguments on to `System` unchanged and returns what it returned, or null, which
// the trait allows as a refusal. The counters never touch the memory itself.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !self.admit(layout.size()) {
            return self.refuse();
        }
        // SAFETY: the caller's promise about `layout` is passed on.
        let pointer = unsafe { System.alloc(layout) };
        if pointer.is_null() {
            self.used.fetch_sub(layout.size(), Relaxed);
            return self.refuse();
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
