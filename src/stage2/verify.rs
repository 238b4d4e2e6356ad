//! Reading back: every chunk of the image, past the cache, against the CRC of the scan.
//!
//! Zeros that the kernel made are read like everything else. A bad chunk is written again and read again, a few times;
//! then it is a failure.

use super::buffers::Buffers;
use super::job::Job;
use super::ring::{Ring, Work, lock};
use crate::crc32;
use crate::disk::table::SECTOR;
use crate::error::{Doing, Error};
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::progress::Rate;
use crate::sys;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;

/// How often a chunk that is bad again after its repair is forgiven.
pub const PATIENCE: u32 = 3;
/// How many bad chunks are handled at a time; more are found in the next round.
const MAX_BAD: usize = 256;
/// What to make of a chunk that stays wrong.
pub const KEEPS_NOTHING: &str = "the medium is bad: it does not keep what is written";

type Bad = heapless::Vec<u32, MAX_BAD>;

impl Job<'_> {
    /// Reads these chunks back and repairs what is bad, until all are good or some stay bad.
    pub fn verify(
        &self,
        decoder: &mut Decoder,
        chunks: Range<u32>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        self.target.forget_cache();
        let mut bad = self.read_back(chunks.clone(), buffers)?;
        let mut failures = 0;
        while let Some(&first) = bad.first() {
            self.repair(decoder, &bad, buffers)?;
            // Before the first bad one all were good; behind the last one that was noted there may be more.
            let still = self.read_back(first..chunks.end, buffers)?;
            failures += u32::from(still.iter().any(|index| bad.contains(index)));
            if failures >= PATIENCE {
                return Err(still_bad(&still));
            }
            bad = still;
        }
        Ok(())
    }

    /// The chunks that are not as they were scanned, the first [`MAX_BAD`] of them. One thread reads, this one
    /// computes.
    fn read_back(&self, chunks: Range<u32>, buffers: &mut Buffers) -> Result<Bad, Error> {
        let Buffers { slots: [a, b], stack, .. } = buffers;
        let ring = Ring::new([a, b]);
        let reader = || self.read_ahead(&ring, chunks.clone());
        let work = || {
            let bad = self.check(&ring);
            ring.stop();
            bad
        };
        sys::thread::alongside(stack, &reader, work).doing("starting", "the reading thread")?
    }

    /// The reading thread: as far ahead as there are buffers.
    fn read_ahead(&self, ring: &Ring, chunks: Range<u32>) {
        for index in chunks {
            let Ok(slot) = ring.take_free() else {
                return;
            };
            let mut buffer = lock(&ring.slots[slot]);
            let blocks = self.in_blocks(self.chunk_length(index));
            let chunk = buffer.get_mut(..blocks).unwrap_or_default();
            let result = self.target.read(u64::from(index) * CHUNK as u64, chunk);
            drop(buffer);
            let is_read = result.is_ok();
            if let Err(error) = result {
                crate::warn!("{}", error);
            }
            if ring.queue(Work::Check { slot, index, is_read }).is_err() {
                return;
            }
        }
        ring.close();
    }

    /// Compares what was read.
    fn check(&self, ring: &Ring) -> Result<Bad, Error> {
        let mut bad = Bad::new();
        let mut rate = Rate::start("verify", self.plan.image.length);
        while let Ok(Some(Work::Check { slot, index, is_read })) = ring.next() {
            let length = self.chunk_length(index);
            let offset = u64::from(index) * CHUNK as u64;
            let found = crc32::crc32(lock(&ring.slots[slot]).get(..length).unwrap_or_default());
            ring.give_back(slot);
            self.shared.beat();
            rate.advance(offset + length as u64);
            if is_read && found == self.map.get(index)?.crc {
                continue;
            }
            if bad.push(index).is_err() {
                break;
            }
            crate::warn!(
                "chunk {} (sectors {} to {}) was read back wrong",
                index,
                offset / SECTOR,
                (offset + self.in_blocks(length) as u64) / SECTOR - 1
            );
        }
        rate.end(match bad.first() {
            None => "the first MiB, by which the disk starts",
            Some(_) => "what was read back wrong is written again",
        });
        Ok(bad)
    }

    /// Writes the bad chunks again: zeros as they are, the others from the image, which is decoded for them.
    fn repair(&self, decoder: &mut Decoder, bad: &Bad, buffers: &mut Buffers) -> Result<(), Error> {
        let mut last = None;
        for index in bad {
            if !self.map.get(*index)?.zero {
                last = last.max(Some(*index));
                continue;
            }
            // Whether the disk had promised these zeros or was given them: promises are not asked for again.
            self.shared.zeroing_lied.store(true, SeqCst);
            let length = self.in_blocks(self.chunk_length(*index)) as u64;
            let offset = u64::from(*index) * CHUNK as u64;
            self.target.write_zeros(offset, length, buffers.zeros(), self.shared)?;
            self.note_repair(*index);
        }
        if let Some(last) = last {
            self.repair_from_image(decoder, bad, last, buffers)?;
        }
        self.target.flush()?;
        self.target.forget_cache();
        Ok(())
    }

    /// The bad chunks that are not zeros, `last` the last of them.
    fn repair_from_image(
        &self,
        decoder: &mut Decoder,
        bad: &Bad,
        last: u32,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        let ([buffer, now], zeros) = buffers.scratches();
        decoder.restart();
        for index in 0..=last {
            self.shared.beat();
            let filled = decoder.fill(buffer)?;
            if !bad.contains(&index) || filled.zero {
                continue;
            }
            self.compare(index, filled)?;
            self.pad(buffer, filled.length);
            let chunk = self.padded(buffer, filled.length);
            if index == 0 {
                self.write_first_chunk(chunk, now, zeros)?;
            } else {
                self.target.write(u64::from(index) * CHUNK as u64, chunk, self.shared)?;
            }
            self.note_repair(index);
        }
        Ok(())
    }

    fn note_repair(&self, index: u32) {
        self.shared.repaired.fetch_add(1, SeqCst);
        crate::info!("chunk {} was written again", index);
    }
}

fn still_bad(bad: &Bad) -> Error {
    let object: crate::text::Text<60> =
        crate::text!("{} chunk(s), the first is {}", bad.len(), bad.first().copied().unwrap_or(0));
    Error::failed("reading back", &object, "still wrong after three repairs").advice(KEEPS_NOTHING)
}
