//! Reading back: every chunk of the image, past the cache, against the CRC of the scan.
//!
//! Zeros that the kernel made are read like everything else. A bad chunk is decoded again, written again and read
//! again, a few times; then it is a failure.

use super::flash::Buffers;
use super::job::Job;
use crate::crc32;
use crate::disk::table::SECTOR;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::image::source::Source;
use crate::plan::PartitionPlan;
use crate::progress::Rate;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;

/// How often a chunk that is bad again after its repair is forgiven.
const PATIENCE: u32 = 3;
/// How many bad chunks are handled at a time; more are found in the next round.
const MAX_BAD: usize = 256;

type Bad = heapless::Vec<u32, MAX_BAD>;

/// Instead of the first unread chunk: an earlier worker has furnished none.
const NOT_FURNISHED: u32 = u32::MAX;

impl Job<'_> {
    /// Reads these chunks back and repairs what is bad, until all are good or some stay bad.
    pub fn verify<S: Source>(
        &self,
        decoder: &mut Decoder<S>,
        chunks: Range<u32>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        self.target.forget_cache();
        let buffer = buffers.scratch();
        let bad = self.read_back(chunks.clone(), NOT_FURNISHED, buffer)?;
        self.repair_all(decoder, bad, chunks.end, NOT_FURNISHED, buffer)
    }

    /// Reads a disk back that an earlier worker has verified and begun to furnish. Where it must be written again, that
    /// begins and ends with the first chunk, as in the first run: the disk never boots half-written.
    pub fn verify_again<S: Source>(
        &self,
        decoder: &mut Decoder<S>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        self.target.forget_cache();
        let all = 0..self.plan.image.chunks;
        let mut bad = self.read_back(all.clone(), 0, buffers.scratch())?;
        if bad.is_empty() {
            return Ok(());
        }
        bad.retain(|index| *index != 0);
        self.take_head(decoder, buffers)?;
        // Should this run end in the middle, the next one flashes from the beginning.
        self.shared.verified.store(false, SeqCst);
        self.clear_head_of_disk(buffers)?;
        self.repair_all(decoder, bad, all.end, 0, buffers.scratch())?;
        self.write_head(buffers)?;
        self.verify(decoder, 0..1, buffers)?;
        self.shared.verified.store(true, SeqCst);
        Ok(())
    }

    /// Repairs these chunks, and then what is bad from the first of them to `end`, until all are good or some stay bad.
    /// From the chunk `unread` on nothing had been read back before `bad` was found.
    fn repair_all<S: Source>(
        &self,
        decoder: &mut Decoder<S>,
        mut bad: Bad,
        end: u32,
        mut unread: u32,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let mut failures = 0;
        while let (Some(&first), Some(&last)) = (bad.first(), bad.last()) {
            self.repair(decoder, &bad, unread, buffer)?;
            unread = unread.max(last.saturating_add(1));
            // Before the first bad one all were good; behind the last one that was noted there may be more.
            let still = self.read_back(first..end, unread, buffer)?;
            failures += u32::from(still.iter().any(|index| bad.contains(index)));
            if failures >= PATIENCE {
                return Err(still_bad(&still));
            }
            bad = still;
        }
        Ok(())
    }

    /// True for a chunk that differs because an earlier worker has placed files there, or has cleared the first one;
    /// from `unread` on none was read back, or written again, by this worker.
    fn is_furnished(&self, index: u32, unread: u32) -> bool {
        let start = u64::from(index) * CHUNK as u64;
        let end = start + CHUNK as u64;
        let mut partitions = [self.plan.boot, self.plan.data].into_iter().flatten();
        let meets = |partition: PartitionPlan| {
            partition.start < end && partition.start.saturating_add(partition.length) > start
        };
        index >= unread && (index == 0 || partitions.any(meets))
    }

    /// The chunks that are not as they were scanned, the first [`MAX_BAD`] of them. For `unread` see
    /// [`Self::is_furnished`].
    fn read_back(&self, chunks: Range<u32>, unread: u32, buffer: &mut [u8]) -> Result<Bad, Error> {
        let mut bad = Bad::new();
        let mut furnished = 0;
        let mut rate = Rate::start("read back", self.plan.image.length);
        for index in chunks {
            let length = self.chunk_length(index);
            let offset = u64::from(index) * CHUNK as u64;
            let blocks = self.in_blocks(length);
            let chunk = buffer.get_mut(..blocks).unwrap_or_default();
            let good = match self.target.read(offset, chunk) {
                Ok(()) => {
                    let found = crc32::crc32(chunk.get(..length).unwrap_or_default());
                    found == self.map.get(index)?.crc
                }
                Err(error) => {
                    crate::warn!("{}", error);
                    false
                }
            };
            self.shared.beat();
            rate.advance(offset + length as u64);
            if good {
                continue;
            }
            if bad.push(index).is_err() {
                break;
            }
            if self.is_furnished(index, unread) {
                furnished += 1;
                continue;
            }
            crate::warn!(
                "chunk {} (sectors {} to {}) was read back wrong",
                index,
                offset / SECTOR,
                (offset + blocks as u64) / SECTOR - 1
            );
        }
        if furnished > 0 {
            crate::info!("{} chunk(s) were furnished by an earlier run", furnished);
        }
        Ok(bad)
    }

    /// Decodes the image again and writes the bad chunks.
    fn repair<S: Source>(
        &self,
        decoder: &mut Decoder<S>,
        bad: &Bad,
        unread: u32,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        decoder.restart();
        let last = bad.iter().copied().max().unwrap_or(0);
        for index in 0..=last {
            self.shared.beat();
            let filled = decoder.fill(buffer)?;
            if !bad.contains(&index) {
                continue;
            }
            self.compare(index, filled)?;
            self.pad(buffer, filled.length);
            let chunk = self.padded(buffer, filled.length);
            self.target.write(u64::from(index) * CHUNK as u64, chunk, self.shared)?;
            if !self.is_furnished(index, unread) {
                self.shared.repaired.fetch_add(1, SeqCst);
            }
            crate::info!("chunk {} was written again", index);
        }
        self.target.flush()?;
        self.target.forget_cache();
        Ok(())
    }
}

fn still_bad(bad: &Bad) -> Error {
    let object: crate::text::Text<60> =
        crate::text!("{} chunk(s), the first is {}", bad.len(), bad.first().copied().unwrap_or(0));
    Error::failed("reading back", &object, "still wrong after three repairs")
        .advice("the medium is bad: it does not keep what is written")
}
