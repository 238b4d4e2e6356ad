//! The head of the disk, its first chunk, which is written last: its first block, with the partition table, when all
//! that lies behind that was read back.

use super::buffers::Buffers;
use super::job::Job;
use super::target::FIRST_BLOCK;
use super::verify::{KEEPS_NOTHING, PATIENCE};
use crate::error::Error;
use crate::image::decode::Decoder;

impl Job<'_> {
    /// Writes the first chunk, which `buffers` have kept, and reads it back: from here on the disk boots. After an
    /// error it has no partition table, as far as it still takes writes: whatever restarts the device then finds none.
    pub fn write_head(&self, decoder: &mut Decoder, buffers: &mut Buffers) -> Result<(), Error> {
        let Buffers { slots: [chunk, now], head, zeros, .. } = buffers;
        let length = self.in_blocks(self.chunk_length(0));
        let (chunk, zeros) = (chunk.get_mut(..length).unwrap_or_default(), *zeros);
        chunk.fill(0);
        if let Some(start) = chunk.get_mut(..head.len()) {
            start.copy_from_slice(head);
        }
        let written = self.write_first_chunk(chunk, now, zeros);
        written.and_then(|()| self.verify(decoder, 0..1, buffers)).inspect_err(|_| {
            self.target.clear_first_block(zeros, self.shared);
        })
    }

    /// Writes the first chunk so that a power cut leaves no partition table over what is wrong: its first block is
    /// cleared, and written only when all that lies behind it was read back. `now` is scratch.
    pub fn write_first_chunk(
        &self,
        chunk: &[u8],
        now: &mut [u8],
        zeros: &[u8],
    ) -> Result<(), Error> {
        let Job { target, shared, .. } = self;
        let (first, rest) = chunk.split_at(FIRST_BLOCK.min(chunk.len()));
        let now = now.get_mut(..rest.len()).unwrap_or_default();
        target.write_zeros(0, first.len() as u64, zeros, shared)?;
        for _ in 0..PATIENCE {
            target.write(FIRST_BLOCK as u64, rest, shared)?;
            target.flush()?;
            target.forget_cache();
            if target.read(FIRST_BLOCK as u64, now).is_ok() && now == rest {
                target.write(0, first, shared)?;
                return target.flush();
            }
            crate::warn!("the first chunk was read back wrong behind its first block");
        }
        Err(Error::failed("reading back", "chunk 0", "still wrong when written again")
            .advice(KEEPS_NOTHING))
    }
}
