//! The global allocator's mechanics: memory of the kernel's, counted, capped and sealable.
//!
//! Not the C library's allocator: a command line asks for a few hundred bytes, and that code is 6 KB. What is given
//! back is used again only when it was the last that was handed out; the rest lies idle, within the same few pages.
//! (The backup does ask again and again, and has an arena, as TLS has: that code is there.)
//!
//! What the cap is, when the heap is sealed, and what follows from a refusal is decided in `memory.rs`. Refusal is a
//! null pointer, as `GlobalAlloc` asks for: fallible callers get an error, infallible ones abort.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// A counting allocator that refuses beyond `cap` bytes, and refuses everything while sealed.
pub struct Heap {
    cap: usize,
    /// What the allocations of a thread come from that has entered it, sealed or not.
    #[cfg(feature = "tls")]
    arena: super::arena::Arena,
    /// What allocations come from once the heap was unsealed: the backup is made then.
    #[cfg(feature = "backup")]
    backup: super::arena::Arena,
    #[cfg(feature = "backup")]
    unsealed: AtomicBool,
    on_refusal: fn(),
    used: AtomicUsize,
    high_water: AtomicUsize,
    sealed: AtomicBool,
    refused: AtomicUsize,
}

impl Heap {
    /// An empty heap that never hands out more than `cap` bytes at once. `on_refusal` is called before every refusal,
    /// unless the heap is sealed: then it is a bug, and aborts.
    ///
    /// With TLS it has an arena of `arena` bytes besides.
    pub const fn new(cap: usize, arena: usize, on_refusal: fn()) -> Self {
        #[cfg(not(feature = "tls"))]
        let _ = arena;
        Self {
            cap,
            #[cfg(feature = "tls")]
            arena: super::arena::Arena::new(arena),
            // Twice the cap, for gaps: a page of it counts when it is used.
            #[cfg(feature = "backup")]
            backup: super::arena::Arena::new(2 * cap),
            #[cfg(feature = "backup")]
            unsealed: AtomicBool::new(false),
            on_refusal,
            used: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            sealed: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        }
    }

    /// From here on every allocation is refused, or allowed again.
    pub fn set_sealed(&self, sealed: bool) {
        #[cfg(feature = "backup")]
        self.unsealed.fetch_or(!sealed, Relaxed);
        self.sealed.store(sealed, Relaxed);
    }

    /// True while every allocation is refused.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Relaxed)
    }

    /// The arena.
    #[cfg(feature = "tls")]
    pub fn arena(&self) -> &super::arena::Arena {
        &self.arena
    }

    /// The null pointer of a refusal.
    fn refuse(&self) -> *mut u8 {
        self.refused.fetch_add(1, Relaxed);
        if !self.sealed.load(Relaxed) {
            (self.on_refusal)();
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

    /// Memory for `layout`, whatever is in use.
    fn take(&self, layout: Layout) -> *mut u8 {
        #[cfg(all(feature = "backup", not(test)))]
        if self.unsealed.load(Relaxed) {
            return self.backup.allocate(layout);
        }
        // SAFETY: the layout comes from `alloc`, whose caller promises that it is not of size 0.
        unsafe { BACKING.alloc(layout) }
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

// SAFETY: every method passes its arguments on to `BACKING`, or to an arena, unchanged and returns what it returned, or
// null, which the trait allows as a refusal. What an arena handed out goes back there, by its address. The counters
// never touch the memory itself.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(feature = "tls")]
        if self.arena.is_entered() {
            return self.arena.allocate(layout);
        }
        if !self.admit(layout.size()) {
            return self.refuse();
        }
        let pointer = self.take(layout);
        if pointer.is_null() {
            self.used.fetch_sub(layout.size(), Relaxed);
            return self.refuse();
        }
        pointer
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        #[cfg(feature = "tls")]
        if self.arena.holds(pointer) {
            // SAFETY: the arena handed it out with this `layout`, as the caller promises.
            return unsafe { self.arena.free(pointer, layout) };
        }
        self.used.fetch_sub(layout.size(), Relaxed);
        #[cfg(feature = "backup")]
        if self.backup.holds(pointer) {
            // SAFETY: likewise.
            return unsafe { self.backup.free(pointer, layout) };
        }
        // SAFETY: `pointer` came from `BACKING` with this `layout`, as the caller promises.
        unsafe { BACKING.dealloc(pointer, layout) }
    }
}

/// Unit tests give back and ask again without end, so they have the system's allocator.
#[cfg(test)]
static BACKING: std::alloc::System = std::alloc::System;
#[cfg(not(test))]
static BACKING: Pile = Pile::new();

/// Pieces of memory on top of each other in a mapping; when one does not fit, there is another mapping.
#[cfg_attr(test, allow(dead_code))]
struct Pile {
    taken: AtomicBool,
    /// The addresses of the first free byte, and of the first behind the mapping.
    free: AtomicUsize,
    end: AtomicUsize,
}

/// The least that is mapped at once, in bytes: what is mapped is locked into memory later.
const MAPPING: usize = 8 * 1024;

#[cfg_attr(test, allow(dead_code))]
impl Pile {
    const fn new() -> Self {
        Self { taken: AtomicBool::new(false), free: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    /// Calls `act` while no other thread is here.
    fn alone(&self, act: &mut dyn FnMut()) {
        while self.taken.swap(true, Acquire) {
            core::hint::spin_loop();
        }
        act();
        self.taken.store(false, Release);
    }

    /// Room for `layout`, if the mapping has it.
    fn place(&self, layout: Layout) -> Option<*mut u8> {
        let start = self.free.load(Relaxed).checked_next_multiple_of(layout.align())?;
        let free = start.checked_add(layout.size())?;
        if free > self.end.load(Relaxed) {
            return None;
        }
        self.free.store(free, Relaxed);
        Some(core::ptr::with_exposed_provenance_mut(start))
    }

    /// Maps memory that holds at least `layout`, wherever it begins.
    fn enlarge(&self, layout: Layout) -> Option<()> {
        let length = layout.size().checked_add(layout.align())?.max(MAPPING);
        let mapping = super::map::buffer(length).ok()?.as_mut_ptr_range();
        self.free.store(mapping.start.expose_provenance(), Relaxed);
        self.end.store(mapping.end.expose_provenance(), Relaxed);
        Some(())
    }
}

// SAFETY: `place` hands out memory of a mapping that is never unmapped and that nobody else has: each piece begins
// where the one before ends, aligned and in full within the mapping, and only one thread at a time moves that end.
// It is moved back only over the piece that is given back.
unsafe impl GlobalAlloc for Pile {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut pointer = None;
        self.alone(&mut || {
            pointer = self.place(layout).or_else(|| {
                self.enlarge(layout)?;
                self.place(layout)
            });
        });
        pointer.unwrap_or_default()
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let start = pointer.expose_provenance();
        self.alone(&mut || {
            if start + layout.size() == self.free.load(Relaxed) {
                self.free.store(start, Relaxed);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_the_pile_are_aligned_and_apart_and_the_last_is_used_again() {
        let pile = Pile::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let wanted = [(1, 1), (8, 8), (3, 1), (100, 64), (2 * MAPPING, 4096), (5, 4)];
        let mut before: Vec<core::ops::Range<usize>> = Vec::new();
        for (size, align) in wanted {
            // SAFETY: no size is 0.
            let start = unsafe { pile.alloc(layout(size, align)) };
            let piece = start.addr()..start.addr() + size;
            assert!(start.addr() != 0 && start.addr() % align == 0);
            // SAFETY: the piece was just handed out.
            unsafe { start.write_bytes(0xa5, size) };
            assert!(before.iter().all(|old| old.end <= piece.start || piece.end <= old.start));
            before.push(piece);
        }
        // SAFETY: no size is 0, and what is given back was handed out.
        unsafe {
            let first = pile.alloc(layout(16, 8));
            pile.dealloc(first, layout(16, 8));
            let again = pile.alloc(layout(16, 8));
            assert_eq!(first, again);
            pile.alloc(layout(1, 1));
            pile.dealloc(again, layout(16, 8));
            assert_ne!(again, pile.alloc(layout(16, 8)));
        }
    }
}
