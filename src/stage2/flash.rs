//! Flashing: one thread inflates, another writes.
//!
//! A ring of buffers goes round between the two. Chunks of zeros are not written but made zeros by the kernel, in runs.
//! Each chunk is compared with the scan before it is written. The first MiB, with the partition table, is cleared and
//! flushed before anything else is written, and written last, when all else is in its place, its first block last of
//! all: a disk that was left half-written does not boot.

use super::buffers::Buffers;
use super::job::Job;
use super::ring::{Ring, Stopped, Work, lock};
use crate::error::{Doing, Error};
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::progress::Rate;
use crate::sys;
use core::ops::Range;

/// The longest run of zeros that is given to the kernel at once: a slow card must still show a heartbeat.
const ZERO_RUN: u64 = 16 << 20;

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

impl Job<'_> {
    /// Writes the image to the target, all but its first chunk.
    pub fn flash(&self, decoder: &mut Decoder, buffers: &mut Buffers) -> Result<(), Error> {
        // First of all: the buffers that it is to wait in last are needed meanwhile.
        decoder.restart();
        let filled = decoder.fill(buffers.scratch())?;
        self.compare(0, filled)?;
        buffers.keep_head(filled.length)?;
        let Buffers { slots: [a, b], zeros, stack, .. } = buffers;
        let ring = Ring::new([a, b]);
        let helper = || self.write(&ring, zeros);
        let work = || {
            // Before the first write: what a thread needs to begin with must be had.
            let started = ring.wait_for_start();
            lock_memory();
            let result = started.map_err(Ended::from).and_then(|()| {
                let [now, old] = &ring.slots;
                self.clear_head(&mut lock(old), &mut lock(now), zeros)?;
                self.decode(decoder, &ring)
            });
            match result {
                Ok(()) => ring.close(),
                Err(Ended::Failed(error)) => ring.fail(error),
                Err(Ended::Stopped) => {}
            }
        };
        sys::thread::alongside(stack, &helper, work).doing("starting", "the writing thread")?;
        if let Some(error) = ring.take_error() {
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

    /// Decodes the image behind its first chunk, and hands what must be written to the other thread.
    fn decode(&self, decoder: &mut Decoder, ring: &Ring) -> Result<(), Ended> {
        let mut rate = Rate::start("flash", self.plan.image.length);
        let mut zeros = 0..0u64;
        for index in 1..self.plan.image.chunks {
            let slot = ring.take_free()?;
            let mut buffer = lock(&ring.slots[slot]);
            let filled = decoder.fill(&mut buffer)?;
            self.compare(index, filled)?;
            let offset = u64::from(index) * CHUNK as u64;
            let length = self.in_blocks(filled.length);
            if filled.zero {
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
        rate.end("reading all of it back");
        Ok(())
    }

    /// The writing thread: does what is queued until the ring is closed or something fails.
    fn write(&self, ring: &Ring, zeros: &[u8]) {
        let Job { target, shared, .. } = self;
        ring.start();
        loop {
            let result = match ring.next() {
                // Nothing is queued here to be checked.
                Ok(None | Some(Work::Check { .. })) => return,
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
