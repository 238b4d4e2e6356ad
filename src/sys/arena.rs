//! Memory that comes and goes: pieces of one mapping of fixed size, found first fit, joined again when they are given
//! back. For TLS, whose records of up to 16 KiB come and go all the time, and for the backup.
//!
//! Mapped when it is first asked for, and a page of it costs memory when it is first used. Free pieces are a list in
//! the order of their addresses, which lies in themselves; what lies above the highest piece was never used, or is as
//! if.

use core::alloc::Layout;
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Every piece begins and ends at a multiple of this: room for what the list needs of a free one.
const GRAIN: usize = 16;

/// What a free piece holds: its length, and the address of the next one, 0 for none.
#[derive(Clone, Copy)]
struct Free {
    length: usize,
    next: usize,
}

/// One mapping, and what is free of it.
pub struct Arena {
    size: usize,
    /// Taken by whoever changes the list.
    taken: AtomicBool,
    /// The thread whose allocations come from here; 0 for none.
    owner: AtomicUsize,
    /// The address of the mapping; 0 before there is one.
    start: AtomicUsize,
    /// The address behind the highest piece.
    top: AtomicUsize,
    /// The address of the lowest free piece; 0 for none.
    first: AtomicUsize,
    used: AtomicUsize,
    high_water: AtomicUsize,
}

unsafe extern "C" {
    /// pthread_self(3): a number that no other thread of the process has, never 0.
    safe fn pthread_self() -> usize;
}

impl Arena {
    /// An arena of `size` bytes, a multiple of the page size.
    pub const fn new(size: usize) -> Self {
        Self {
            size,
            taken: AtomicBool::new(false),
            owner: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            top: AtomicUsize::new(0),
            first: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
        }
    }

    /// From here on the allocations of this thread come from here, or no longer.
    pub fn set_entered(&self, entered: bool) {
        self.owner.store(if entered { pthread_self() } else { 0 }, Relaxed);
    }

    /// True when the allocations of this thread come from here. Of another thread this may be read at any time: it sees
    /// its own number only if it has put it there itself.
    pub fn is_entered(&self) -> bool {
        let owner = self.owner.load(Relaxed);
        owner != 0 && owner == pthread_self()
    }

    /// True when a piece of memory is of this arena.
    pub fn holds(&self, pointer: *mut u8) -> bool {
        let start = self.start.load(Relaxed);
        start != 0 && pointer.addr().wrapping_sub(start) < self.size
    }

    /// How many bytes are in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// The most bytes of the mapping that were ever in use at once, gaps between pieces not counted.
    pub fn high_water(&self) -> usize {
        self.high_water.load(Relaxed)
    }

    /// Memory for `layout`; null when there is none.
    pub fn allocate(&self, layout: Layout) -> *mut u8 {
        let Some(length) = rounded(layout.size()) else { return core::ptr::null_mut() };
        let align = layout.align().max(GRAIN);
        let address = self.alone(&mut || {
            self.take_free(length, align).or_else(|| self.take_top(length, align)).unwrap_or(0)
        });
        if address != 0 {
            let used = self.used.fetch_add(length, Relaxed) + length;
            self.high_water.fetch_max(used, Relaxed);
        }
        core::ptr::with_exposed_provenance_mut(address)
    }

    /// Takes back a piece.
    ///
    /// # Safety
    /// It was handed out by [`allocate`](Self::allocate) for this layout, and nobody uses it any more.
    pub unsafe fn free(&self, pointer: *mut u8, layout: Layout) {
        let Some(length) = rounded(layout.size()) else { return };
        self.alone(&mut || {
            self.give_back(pointer.addr(), length);
            0
        });
        self.used.fetch_sub(length, Relaxed);
    }

    /// Calls `act` while no other thread changes the list.
    fn alone(&self, act: &mut dyn FnMut() -> usize) -> usize {
        while self.taken.swap(true, Acquire) {
            core::hint::spin_loop();
        }
        let result = act();
        self.taken.store(false, Release);
        result
    }

    /// The address of the mapping, which is made now if there is none.
    fn mapped(&self) -> Option<usize> {
        let start = self.start.load(Relaxed);
        if start != 0 {
            return Some(start);
        }
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let start =
            unsafe { mmap_anonymous(core::ptr::null_mut(), self.size, access, flags) }.ok()?;
        let start = start.expose_provenance();
        self.start.store(start, Relaxed);
        self.top.store(start, Relaxed);
        Some(start)
    }

    /// A piece above all others.
    fn take_top(&self, length: usize, align: usize) -> Option<usize> {
        let end = self.mapped()? + self.size;
        let top = self.top.load(Relaxed);
        let address = top.checked_next_multiple_of(align)?;
        let new_top = address.checked_add(length).filter(|new_top| *new_top <= end)?;
        self.top.store(new_top, Relaxed);
        if address > top {
            self.give_back(top, address - top);
        }
        Some(address)
    }

    /// The lowest free piece that is large enough, or the part of it that is needed.
    fn take_free(&self, length: usize, align: usize) -> Option<usize> {
        let (mut before, mut here) = (0, self.first.load(Relaxed));
        while here != 0 {
            let free = self.at(here);
            let address = here.checked_next_multiple_of(align)?;
            let end = here + free.length;
            if address.checked_add(length).is_some_and(|needed| needed <= end) {
                self.link(before, free.next);
                if end > address + length {
                    self.give_back(address + length, end - address - length);
                }
                if address > here {
                    self.give_back(here, address - here);
                }
                return Some(address);
            }
            (before, here) = (here, free.next);
        }
        None
    }

    /// Puts a piece into the list, and joins it with its neighbours.
    fn give_back(&self, address: usize, length: usize) {
        let (mut before, mut next) = (0, self.first.load(Relaxed));
        while next != 0 && next < address {
            (before, next) = (next, self.at(next).next);
        }
        let mut piece = (address, Free { length, next });
        if next != 0 && address + length == next {
            let after = self.at(next);
            piece.1 = Free { length: length + after.length, next: after.next };
        }
        self.put(piece.0, piece.1);
        self.link(before, piece.0);
        let lower = if before == 0 { None } else { Some(self.at(before)) };
        if let Some(lower) = lower.filter(|lower| before + lower.length == address) {
            piece = (before, Free { length: lower.length + piece.1.length, next: piece.1.next });
            self.put(piece.0, piece.1);
        }
        // What ends below the top was above all others: it is as if it had never been used.
        if piece.0 + piece.1.length == self.top.load(Relaxed) {
            self.top.store(piece.0, Relaxed);
            self.unlink_last();
        }
    }

    /// Takes the last one off the list.
    fn unlink_last(&self) {
        let (mut before, mut here) = (0, self.first.load(Relaxed));
        while here != 0 {
            let next = self.at(here).next;
            if next == 0 {
                self.link(before, 0);
            }
            (before, here) = (here, next);
        }
    }

    /// Makes `next` follow the piece `before`, or be the first one.
    fn link(&self, before: usize, next: usize) {
        if before == 0 {
            self.first.store(next, Relaxed);
        } else {
            self.put(before, Free { next, ..self.at(before) });
        }
    }

    /// What a free piece holds.
    fn at(&self, address: usize) -> Free {
        let place = core::ptr::with_exposed_provenance::<Free>(address);
        // SAFETY: `address` is of the list: a free piece within the mapping, aligned and large enough, that `put` wrote
        // and that nobody else uses, since one thread at a time is here.
        unsafe { place.read() }
    }

    fn put(&self, address: usize, free: Free) {
        let place = core::ptr::with_exposed_provenance_mut::<Free>(address);
        // SAFETY: as above; a piece that is given back is used by nobody, as `free` asks for.
        unsafe { place.write(free) }
    }
}

/// The length of the piece for so many bytes.
fn rounded(size: usize) -> Option<usize> {
    size.max(1).checked_next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * 1024;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    struct Piece {
        start: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Piece {
        fn new(arena: &Arena, size: usize, align: usize, mark: u8) -> Option<Self> {
            let layout = layout(size, align);
            let start = arena.allocate(layout);
            if start.is_null() {
                return None;
            }
            assert_eq!(start.addr() % align, 0);
            assert!(arena.holds(start) && arena.holds(start.wrapping_add(size - 1)));
            // SAFETY: the piece was just handed out.
            unsafe { start.write_bytes(mark, size) };
            Some(Self { start, layout, mark })
        }

        /// Fails when somebody else has written there.
        fn give_back(self, arena: &Arena) {
            // SAFETY: the piece was handed out, and is given back once.
            unsafe {
                let bytes = core::slice::from_raw_parts(self.start, self.layout.size());
                assert!(bytes.iter().all(|byte| *byte == self.mark), "two have the same memory");
                arena.free(self.start, self.layout);
            }
        }
    }

    /// All of it can be had at once: nothing is left in pieces.
    fn assert_empty(arena: &Arena) {
        assert_eq!(arena.used(), 0);
        let all = Piece::new(arena, SIZE, 1, 1).expect("the arena is in pieces");
        assert!(Piece::new(arena, 1, 1, 2).is_none());
        all.give_back(arena);
    }

    #[test]
    fn pieces_at_random_are_aligned_and_apart_and_come_together_again() {
        let arena = Arena::new(SIZE);
        let mut pieces: Vec<Piece> = Vec::new();
        let (mut state, mut refused) = (1u64, 0);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..20_000 {
            if pieces.is_empty() || random(2) == 0 {
                let size = 1 + if random(10) == 0 { random(17_000) } else { random(600) };
                match Piece::new(&arena, size, 1 << random(8), round as u8) {
                    Some(piece) => pieces.push(piece),
                    None => {
                        refused += 1;
                        pieces.swap_remove(random(pieces.len())).give_back(&arena);
                    }
                }
            } else {
                pieces.swap_remove(random(pieces.len())).give_back(&arena);
            }
            assert!(arena.used() <= SIZE && arena.used() <= arena.high_water());
        }
        assert!(refused > 10, "{refused}");
        pieces.into_iter().for_each(|piece| piece.give_back(&arena));
        assert_empty(&arena);
    }

    #[test]
    fn what_lies_between_two_free_pieces_joins_both() {
        let arena = Arena::new(SIZE);
        let mut pieces: Vec<_> =
            (0..4).map(|mark| Piece::new(&arena, SIZE / 4, 1, mark)).map(Option::unwrap).collect();
        assert!(Piece::new(&arena, 1, 1, 9).is_none());
        pieces.remove(0).give_back(&arena);
        pieces.remove(1).give_back(&arena);
        assert!(Piece::new(&arena, SIZE / 2, 1, 9).is_none());
        pieces.remove(0).give_back(&arena);
        Piece::new(&arena, SIZE * 3 / 4, 1, 9).unwrap().give_back(&arena);
        pieces.remove(0).give_back(&arena);
        assert_empty(&arena);
    }

    #[test]
    fn more_than_there_is_is_refused_and_changes_nothing() {
        let arena = Arena::new(SIZE);
        assert!(!arena.holds(core::ptr::null_mut()) && !arena.holds(&raw const arena as *mut u8));
        for (size, align) in [(SIZE + 1, 1), (isize::MAX as usize - 15, 1), (1, 1 << 40)] {
            assert!(arena.allocate(layout(size, align)).is_null());
        }
        assert_eq!(arena.high_water(), 0);
        assert_empty(&arena);
    }

    #[test]
    fn it_is_entered_by_one_thread_alone() {
        static ARENA: Arena = Arena::new(SIZE);
        ARENA.set_entered(true);
        assert!(ARENA.is_entered());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!ARENA.is_entered())).join().unwrap();
        });
        ARENA.set_entered(false);
        assert!(!ARENA.is_entered());
    }
}
