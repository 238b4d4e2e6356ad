//! What is flashed to where: the four things that flashing and reading back both go by, and what both do with a chunk.

use super::target::Target;
use crate::error::Error;
use crate::image::chunk_length;
use crate::image::decode::{Filled, WINDOW};
use crate::image::map::{ChunkMap, Record};
use crate::plan::Plan;
use crate::progress::Shared;

/// One flash.
pub struct Job<'a> {
    /// What stage 1 decided.
    pub plan: &'a Plan,
    /// The open disk.
    pub target: &'a Target,
    /// What each chunk must be.
    pub map: &'a ChunkMap,
    /// What PID 1 sees of it.
    pub shared: &'a Shared,
}

impl Job<'_> {
    /// How many bytes chunk `index` has.
    pub fn chunk_length(&self, index: u32) -> usize {
        chunk_length(index, self.plan.image.length)
    }

    /// `length` bytes in whole blocks of the disk.
    pub fn in_blocks(&self, length: usize) -> usize {
        length.next_multiple_of(self.target.block)
    }

    /// A chunk must be what the scan saw; if not, the memory it came from is bad, or the file at its server is another
    /// one, and it must not reach the disk.
    pub fn compare(&self, index: u32, found: Filled) -> Result<(), Error> {
        let record = Record::of(found);
        if self.map.get(index)? == record && found.length == self.chunk_length(index) {
            return Ok(());
        }
        let object: crate::text::Text<40> = crate::text!("chunk {}", index);
        Err(Error::failed("decoding", &object, "it differs from what was scanned")
            .advice("the memory of this device is bad, or the image was changed"))
    }

    /// Makes the rest of the last block zeros: the end of it is not part of the image, but it is written with it.
    pub fn pad(&self, buffer: &mut [u8], length: usize) {
        let end = WINDOW + self.in_blocks(length);
        if let Some(rest) = buffer.get_mut(WINDOW + length..end) {
            rest.fill(0);
        }
    }

    /// The chunk of `length` bytes in a decoder's buffer, up to the end of its last block.
    pub fn padded<'b>(&self, buffer: &'b [u8], length: usize) -> &'b [u8] {
        buffer.get(WINDOW..WINDOW + self.in_blocks(length)).unwrap_or_default()
    }
}
