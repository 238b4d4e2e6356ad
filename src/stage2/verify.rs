//! Reading back: every chunk of the image, past the cache, against the CRC of the scan.
//!
//! Zeros that the kernel made are read like everything else. A bad chunk is decoded again, written again and read
//! again, a few times; then it is a failure.

use super::flash::{Buffers, compare, pad};
use super::target::Target;
use crate::crc32;
use crate::disk::table::SECTOR;
use crate::error::Error;
use crate::image::decode::{Decoder, WINDOW};
use crate::image::map::{ChunkMap, Record};
use crate::image::source::Source;
use crate::image::{CHUNK, chunk_length};
use crate::plan::Plan;
use crate::progress::{Rate, Shared};
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;

/// How often a chunk that is bad again after its repair is forgiven.
const PATIENCE: u32 = 3;
/// How many bad chunks are handled at a time; more are found in the next round.
const MAX_BAD: usize = 256;

type Bad = heapless::Vec<u32, MAX_BAD>;

/// Reads these chunks back and repairs what is bad, until all are good or some stay bad.
pub fn verify<S: Source>(
    plan: &Plan,
    target: &Target,
    decoder: &mut Decoder<S>,
    map: &ChunkMap,
    chunks: Range<u32>,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), Error> {
    target.forget_cache();
    let buffer = buffers.scratch();
    let mut bad = read_back(plan, target, map, chunks.clone(), buffer, shared)?;
    let mut failures = 0;
    while let Some(&first) = bad.first() {
        repair(plan, target, decoder, map, &bad, buffer, shared)?;
        // Before the first bad one all were good; behind the last one that was noted there may be more.
        let still = read_back(plan, target, map, first..chunks.end, buffer, shared)?;
        failures += u32::from(still.iter().any(|index| bad.contains(index)));
        if failures >= PATIENCE {
            return Err(still_bad(&still));
        }
        bad = still;
    }
    Ok(())
}

/// The chunks that are not as they were scanned, the first [`MAX_BAD`] of them.
fn read_back(
    plan: &Plan,
    target: &Target,
    map: &ChunkMap,
    chunks: Range<u32>,
    buffer: &mut [u8],
    shared: &Shared,
) -> Result<Bad, Error> {
    let mut bad = Bad::new();
    let mut rate = Rate::start("read back", plan.image.length);
    for index in chunks {
        let length = chunk_length(index, plan.image.length);
        let offset = u64::from(index) * CHUNK as u64;
        let blocks = length.next_multiple_of(target.block);
        let chunk = buffer.get_mut(..blocks).unwrap_or_default();
        let good = match target.read(offset, chunk) {
            Ok(()) => crc32::crc32(chunk.get(..length).unwrap_or_default()) == map.get(index)?.crc,
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
        shared.beat();
        rate.advance(offset + length as u64);
    }
    Ok(bad)
}

/// Decodes the image again and writes the bad chunks.
fn repair<S: Source>(
    plan: &Plan,
    target: &Target,
    decoder: &mut Decoder<S>,
    map: &ChunkMap,
    bad: &Bad,
    buffer: &mut [u8],
    shared: &Shared,
) -> Result<(), Error> {
    decoder.restart();
    let last = bad.iter().copied().max().unwrap_or(0);
    for index in 0..=last {
        shared.beat();
        let filled = decoder.fill(buffer)?;
        if !bad.contains(&index) {
            continue;
        }
        let record = Record { crc: filled.crc, zero: filled.zero };
        compare(index, record, filled.length, map, plan)?;
        let blocks = filled.length.next_multiple_of(target.block);
        pad(buffer, filled.length, blocks);
        let chunk = buffer.get(WINDOW..WINDOW + blocks).unwrap_or_default();
        target.write(u64::from(index) * CHUNK as u64, chunk, shared)?;
        shared.repaired.fetch_add(1, SeqCst);
        crate::info!("chunk {} was written again", index);
    }
    target.flush()?;
    target.forget_cache();
    Ok(())
}

fn still_bad(bad: &Bad) -> Error {
    let object: crate::text::Text<60> =
        crate::text!("{} chunk(s), the first is {}", bad.len(), bad.first().copied().unwrap_or(0));
    Error::failed("reading back", &object, "still wrong after three repairs")
        .advice("the medium is bad: it does not keep what is written")
}
