//! The image as it waits to be written: packed bytes, patches and chunk map, and the proof that all of it is still what
//! stage 1 has left.

use crate::crc32;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::patches::Patches;
use crate::image::source::Source;
use crate::plan::Plan;
use crate::progress::{Rate, Shared};

/// An image that is ready to be written.
pub struct Staged<'a> {
    /// The packed bytes.
    pub source: &'a dyn Source,
    /// Where the image is in them.
    pub stream: Stream,
    /// The sectors that are replaced.
    pub patches: Patches,
    /// What each chunk must be.
    pub map: &'a ChunkMap,
}

impl Staged<'_> {
    /// Everything is what stage 1 has left: a bit that has changed since the scan would show in the middle of the
    /// flash, and again in every retry.
    pub fn prove(&self, plan: &Plan, buffer: &mut [u8], shared: &Shared) -> Result<(), Error> {
        let changed = |what| {
            Error::failed("checking", what, "it changed in memory")
                .lasting()
                .advice("the memory of this device is bad")
        };
        if self.map.crc(plan.image.chunks)? != plan.image.map_crc {
            return Err(changed("the chunk map"));
        }
        if self.patches.count() != plan.image.patches
            || self.patches.crc()? != plan.image.patches_crc
        {
            return Err(changed("the patches of the image"));
        }
        if crate::CAN_BE_REMOTE && self.source.is_remote() {
            return self.prove_remote(buffer);
        }
        self.prove_packed(plan.image.packed_crc, buffer, shared)
    }

    /// Reads the last bytes and the first ones anew: the server still answers, and the file is the one that was
    /// scanned, by its validator, with which each range is asked for. All of it is not read a third time: the proof is
    /// there to find bytes that changed in the memory of this device, and these are in none. What a server gives under
    /// a validator that stayed is compared with the scan chunk by chunk, before it is written.
    fn prove_remote(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let Stream { offset, length, .. } = self.stream;
        let wanted = length.min(CHUNK as u64);
        for at in [offset + length - wanted, offset] {
            let piece = buffer.get_mut(..wanted as usize).unwrap_or_default();
            if self.source.read_at(at, piece)? < piece.len() {
                return Err(Error::failed("checking", "the image", "it is not what was scanned"));
            }
        }
        Ok(())
    }

    /// Reads the packed image once, from the memory or the file that it will be flashed from.
    fn prove_packed(
        &self,
        packed_crc: u32,
        buffer: &mut [u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        let Stream { offset, length, .. } = self.stream;
        let mut rate = Rate::start("check", length);
        let (mut crc, mut done) = (0, 0);
        while done < length {
            shared.beat();
            let wanted = (length - done).min(CHUNK as u64) as usize;
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            let count = self.source.read_at(offset + done, piece)?;
            if count == 0 {
                break;
            }
            crc = crc32::extend(crc, piece.get(..count).unwrap_or_default());
            done += count as u64;
            rate.advance(done);
        }
        if done == length && crc == packed_crc {
            rate.end("writing it to the disk");
            return Ok(());
        }
        Err(Error::failed("checking", "the image", "it is not what was scanned")
            .lasting()
            .advice("the memory of this device is bad, or the file was changed"))
    }
}
