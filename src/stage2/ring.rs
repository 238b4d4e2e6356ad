//! The ring of buffers between two threads: one has the disk, the other decodes or checks.
//!
//! It knows neither the disk nor the image.

use super::buffers::SLOTS;
use crate::error::Error;
use core::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The other thread has ended before its time, and left in the ring why.
pub struct Stopped;

/// Something for the thread at the other end to do.
pub enum Work {
    /// What is in the slot goes to this place of the disk.
    Write { slot: usize, offset: u64, length: usize },
    /// This range becomes zeros.
    Zero(Range<u64>),
    /// In the slot is what was read of this chunk, if it could be read.
    Check { slot: usize, index: u32, is_read: bool },
}

#[derive(Default)]
struct State {
    queue: heapless::Deque<Work, 8>,
    free: heapless::Vec<usize, SLOTS>,
    error: Option<Error>,
    stopped: bool,
    closed: bool,
    started: bool,
}

/// The ring between the two threads. Only who took a slot locks it, so no lock is waited for but that of the state.
pub struct Ring<'a> {
    /// What goes round: only who took the number of one locks it.
    pub slots: [Mutex<&'a mut [u8]>; SLOTS],
    state: Mutex<State>,
    changed: Condvar,
}

/// Locks what no thread panics with.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts, so there is no poison.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Ring<'a> {
    /// A ring with these slots, all free.
    pub fn new(slots: [&'a mut [u8]; SLOTS]) -> Self {
        let state = State { free: (0..SLOTS).collect(), ..State::default() };
        Self { slots: slots.map(Mutex::new), state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for something in the state, for as long as the other side has not failed.
    fn wait_for<T>(&self, mut wanted: impl FnMut(&mut State) -> Option<T>) -> Result<T, Stopped> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
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

    /// Waits for a free slot.
    pub fn take_free(&self) -> Result<usize, Stopped> {
        self.wait_for(|state| state.free.pop())
    }

    /// Makes a slot free.
    pub fn give_back(&self, slot: usize) {
        // There is a place for every slot.
        let _ = lock(&self.state).free.push(slot);
        self.changed.notify_all();
    }

    /// Gives the other thread something to do, when there is place for it.
    pub fn queue(&self, work: Work) -> Result<(), Stopped> {
        let mut work = Some(work);
        self.wait_for(|state| {
            let item = work.take()?;
            work = state.queue.push_back(item).err();
            work.is_none().then_some(())
        })
    }

    /// The next thing to do; nothing once the ring is closed and empty.
    pub fn next(&self) -> Result<Option<Work>, Stopped> {
        self.wait_for(|state| match state.queue.pop_front() {
            Some(work) => Some(Some(work)),
            None => state.closed.then_some(None),
        })
    }

    /// Nothing more will be queued.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Ends the work of both threads before it is done.
    pub fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// The same, because something has failed.
    pub fn fail(&self, error: Error) {
        lock(&self.state).error.get_or_insert(error);
        self.stop();
    }

    /// What has failed first.
    pub fn take_error(&self) -> Option<Error> {
        lock(&self.state).error.take()
    }

    /// The other thread runs.
    pub fn start(&self) {
        lock(&self.state).started = true;
        self.changed.notify_all();
    }

    /// Waits until it does.
    pub fn wait_for_start(&self) -> Result<(), Stopped> {
        self.wait_for(|state| state.started.then_some(()))
    }
}
