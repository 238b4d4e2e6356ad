//! Flashing: one thread inflates, another writes.
//!
//! A ring of buffers goes round between the two. Chunks of zeros are not written but made zeros by the kernel, in runs.
//! Each chunk is compared with the scan before it is written. The first MiB, with the partition table, is cleared and
//! flushed before anything else is written, and written last, when all else is in its place, its first block last of
//! all: a disk that was left half-written does not boot.

use super::buffers::{Buffers, SLOTS};
use super::job::Job;
use crate::error::{Doing, Error};
use crate::image::CHUNK;
use crate::image::decode::{Decoder, WINDOW};
use crate::progress::Rate;
use crate::sys;
use core::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The longest run of zeros that is given to the kernel at once: a slow card must still show a heartbeat.
const ZERO_RUN: u64 = 16 << 20;

/// The other thread has failed, and left its error in the ring.
struct Stopped;

/// How decoding ended early.
enum Ended {
    /// The writing thread has failed.
    Stopped,
    /// Decoding has.
    Failed(Error),
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Ended::Stopped
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Failed(error)
    }
}

/// Something for the writing thread to do.
enum Work {
    Write { slot: usize, offset: u64, length: usize },
    Zero(Range<u64>),
}

#[derive(Default)]
struct State {
    queue: heapless::Deque<Work, 8>,
    free: heapless::Vec<usize, SLOTS>,
    error: Option<Error>,
    closed: bool,
    started: bool,
}

/// The ring between the two threads. Only who took a slot locks it, so no lock is waited for but that of the state.
struct Ring<'a> {
    slots: [Mutex<&'a mut [u8]>; SLOTS],
    state: Mutex<State>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts, so there is no poison.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Ring<'a> {
    fn new(slots: [&'a mut [u8]; SLOTS]) -> Self {
        let state = State { free: (0..SLOTS).collect(), ..State::default() };
        Self { slots: slots.map(Mutex::new), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for something in the state, for as long as the other side has not failed.
    fn wait_for<T>(&self, mut wanted: impl FnMut(&mut State) -> Option<T>) -> Result<T, Stopped> {
        let mut state = lock(&self.state);
        loop {
            if state.error.is_some() {
                return Err(Stopped);
            }
            if let Some(found) = wanted(&mut state) {
                self.changed.notify_all();
                return Ok(found);
            }
            // futex(2) with 32 bits for the time, even without a time: a 32-bit kernel that has been built without
            // CONFIG_COMPAT_32BIT_TIME does not know it, and then std does not wait but asks again and again. That
            // costs a core, and does no harm otherwise.
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_free(&self) -> Result<usize, Stopped> {
        self.wait_for(|state| state.free.pop())
    }

    fn give_back(&self, slot: usize) {
        // There is a place for every slot.
        let _ = lock(&self.state).free.push(slot);
        self.changed.notify_all();
    }

    fn queue(&self, work: Work) -> Result<(), Stopped> {
        let mut work = Some(work);
        self.wait_for(|state| {
            let item = work.take()?;
            work = state.queue.push_back(item).err();
            work.is_none().then_some(())
        })
    }

    /// The next thing to do; nothing once the ring is closed and empty.
    fn next(&self) -> Result<Option<Work>, Stopped> {
        self.wait_for(|state| match state.queue.pop_front() {
            Some(work) => Some(Some(work)),
            None => state.closed.then_some(None),
        })
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn fail(&self, error: Error) {
        lock(&self.state).error.get_or_insert(error);
        self.changed.notify_all();
    }
}

impl Job<'_> {
    /// Writes the image to the target, all but its first chunk.
    pub fn flash(&self, decoder: &mut Decoder, buffers: &mut Buffers) -> Result<(), Error> {
        let Buffers { slots: [a, b, c], head, zeros, stack } = buffers;
        let ring = Ring::new([a, b, c]);
        decoder.restart();
        let helper = || self.write(&ring, zeros);
        let work = || {
            // Before the first write: what a thread needs to begin with must be had.
            let started = ring.wait_for(|state| state.started.then_some(()));
            lock_memory();
            let result = started.map_err(Ended::from).and_then(|()| {
                self.clear_head(head, &mut lock(&ring.slots[0]), zeros)?;
                self.decode(decoder, &ring, head)
            });
            match result {
                Ok(()) => ring.close(),
                Err(Ended::Failed(error)) => ring.fail(error),
                Err(Ended::Stopped) => {}
            }
        };
        sys::thread::alongside(stack, &helper, work).doing("starting", "the writing thread")?;
        if let Some(error) = lock(&ring.state).error.take() {
            return Err(error);
        }
        let scratch = &mut lock(&ring.slots[0]);
        self.target.clear_backup_gpt(self.plan.image.length, scratch, self.shared);
        self.target.flush()
    }

    /// Clears the first chunk of the disk; `now` is scratch. See [`super::Target::clear_head`].
    fn clear_head(&self, old: &mut [u8], now: &mut [u8], zeros: &[u8]) -> Result<(), Error> {
        let length = self.in_blocks(self.chunk_length(0));
        let old = old.get_mut(..length).unwrap_or_default();
        let now = now.get_mut(..length).unwrap_or_default();
        self.target.clear_head(old, now, zeros, self.shared)
    }

    /// Decodes the whole image, and hands what must be written to the other thread; the first chunk into `head`.
    fn decode(&self, decoder: &mut Decoder, ring: &Ring, head: &mut [u8]) -> Result<(), Ended> {
        let mut rate = Rate::start("flash", self.plan.image.length);
        let mut zeros = 0..0u64;
        for index in 0..self.plan.image.chunks {
            let slot = ring.take_free()?;
            let mut buffer = lock(&ring.slots[slot]);
            let filled = decoder.fill(&mut buffer)?;
            self.compare(index, filled)?;
            let offset = u64::from(index) * CHUNK as u64;
            let length = self.in_blocks(filled.length);
            if index == 0 {
                copy_head(&mut buffer, filled.length, head);
                ring.give_back(slot);
            } else if filled.zero {
                ring.give_back(slot);
                zeros = if zeros.is_empty() {
                    offset..offset + length as u64
                } else {
                    zeros.start..offset + length as u64
                };
            } else {
                self.pad(&mut buffer, filled.length);
                drop(buffer);
                flush_zeros(ring, &mut zeros)?;
                ring.queue(Work::Write { slot, offset, length })?;
            }
            if zeros.end - zeros.start >= ZERO_RUN {
                flush_zeros(ring, &mut zeros)?;
            }
            self.shared.beat();
            rate.advance(offset + length as u64);
        }
        flush_zeros(ring, &mut zeros)?;
        Ok(())
    }

    /// The writing thread: does what is queued until the ring is closed or something fails.
    fn write(&self, ring: &Ring, zeros: &[u8]) {
        let Job { target, shared, .. } = self;
        lock(&ring.state).started = true;
        ring.changed.notify_all();
        loop {
            let result = match ring.next() {
                Ok(None) => return,
                Ok(Some(Work::Write { slot, offset, length })) => {
                    let buffer = lock(&ring.slots[slot]);
                    let result = target.write(offset, self.padded(&buffer, length), shared);
                    drop(buffer);
                    ring.give_back(slot);
                    result
                }
                Ok(Some(Work::Zero(run))) => {
                    target.zero(run.start, run.end - run.start, zeros, shared)
                }
                Err(Stopped) => return,
            };
            if let Err(error) = result {
                ring.fail(error);
                return;
            }
        }
    }
}

fn lock_memory() {
    if let Err(errno) = sys::map::lock_current() {
        let error = Error::os("locking", "memory", errno);
        crate::warn!("{}", error);
    }
}

fn flush_zeros(ring: &Ring, zeros: &mut Range<u64>) -> Result<(), Stopped> {
    match core::mem::replace(zeros, 0..0) {
        none if none.is_empty() => Ok(()),
        run => ring.queue(Work::Zero(run)),
    }
}

fn copy_head(buffer: &mut [u8], length: usize, head: &mut [u8]) {
    let from = buffer.get(WINDOW..WINDOW + length).unwrap_or_default();
    head.fill(0);
    if let Some(to) = head.get_mut(WINDOW..WINDOW + length) {
        to.copy_from_slice(from);
    }
}
