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
use crate::progress::Rate;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;

/// How often a chunk that is bad again after its repair is forgiven.
const PATIENCE: u32 = 3;
/// How many bad chunks are handled at a time; more are found in the next round.
const MAX_BAD: usize = 256;

type Bad = heapless::Vec<u32, MAX_BAD>;

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
        let mut bad = self.read_back(chunks.clone(), buffer)?;
        let mut failures = 0;
        while let Some(&first) = bad.first() {
            self.repair(decoder, &bad, buffer)?;
            // Before the first bad one all were good; behind the last one that was noted there may be more.
            let still = self.read_back(first..chunks.end, buffer)?;
            failures += u32::from(still.iter().any(|index| bad.contains(index)));
            if failures >= PATIENCE {
                return Err(still_bad(&still));
            }
            bad = still;
        }
        Ok(())
    }

    /// The chunks that are not as they were scanned, the first [`MAX_BAD`] of them.
    fn read_back(&self, chunks: Range<u32>, buffer: &mut [u8]) -> Result<Bad, Error> {
        let mut bad = Bad::new();
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
            if !good {
                crate::warn!(
                    "chunk {} (sectors {} to {}) was read back wrong",
                    index,
                    offset / SECTOR,
                    (offset + blocks as u64) / SECTOR - 1
                );
                if bad.push(index).is_err() {
                    break;
                }
            }
            self.shared.beat();
            rate.advance(offset + length as u64);
        }
        Ok(bad)
    }

    /// Decodes the image again and writes the bad chunks.
    fn repair<S: Source>(
        &self,
        decoder: &mut Decoder<S>,
        bad: &Bad,
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
            self.shared.repaired.fetch_add(1, SeqCst);
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
