//! The image as it waits to be written: packed bytes, patches and chunk map, and the proof that all of it is still what
//! stage 1 has left.

use super::buffers::Buffers;
#[cfg(feature = "core")]
use super::ring::lock;
use crate::crc32;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::patches::Patches;
use crate::image::source::Source;
use crate::plan::Plan;
use crate::progress::{Rate, Shared};
use core::ops::Range;
#[cfg(feature = "core")]
use {
    crate::error::Doing,
    crate::sys,
    core::sync::atomic::{AtomicU32, Ordering::Relaxed},
    std::sync::{Mutex, PoisonError},
};

/// How much of the packed image is read at once, in bytes: it is still in the processor's cache when its CRC is made.
const PIECE: usize = 256 * 1024;

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
    pub fn prove(&self, plan: &Plan, buffers: &mut Buffers, shared: &Shared) -> Result<(), Error> {
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
            return self.prove_remote(buffers.scratch());
        }
        self.prove_packed(plan.image.packed_crc, buffers, shared)
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
        buffers: &mut Buffers,
        shared: &Shared,
    ) -> Result<(), Error> {
        let Stream { offset, length, .. } = self.stream;
        let (mut rate, mut done) = (Rate::start("check", length), 0);
        let mut advance = |count: u64| {
            done += count;
            rate.advance(done);
        };
        let range = offset..offset + length;
        #[cfg(feature = "core")]
        let crc = crc(self.source, range, buffers, shared, &mut advance)?;
        #[cfg(not(feature = "core"))]
        let crc = crc_of(self.source, range, buffers.scratch(), shared, &mut advance)?;
        if crc == packed_crc {
            rate.end("writing it to the disk");
            return Ok(());
        }
        Err(is_another(self.source))
    }
}

/// The CRC-32 of a range of the source; `advance` is told of every piece, how long it is.
fn crc_of(
    source: &dyn Source,
    range: Range<u64>,
    buffer: &mut [u8],
    shared: &Shared,
    advance: &mut (impl FnMut(u64) + ?Sized),
) -> Result<u32, Error> {
    let (mut crc, mut at) = (0, range.start);
    while at < range.end {
        shared.beat();
        let wanted = (range.end - at).min(PIECE as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let count = source.read_at(at, piece)?;
        if count < piece.len() {
            return Err(is_another(source));
        }
        crc = crc32::extend(crc, piece);
        at += count as u64;
        advance(count as u64);
    }
    Ok(crc)
}

/// The same, of what is in memory by two threads, half of it each: the device is alone already, and nothing else has
/// anything to do. It is not begun earlier, beside the ending of processes or the unmounting: what the memory holds
/// when the disk is free is what counts, and those may take minutes.
#[cfg(feature = "core")]
fn crc(
    source: &dyn Source,
    range: Range<u64>,
    buffers: &mut Buffers,
    shared: &Shared,
    advance: &mut dyn FnMut(u64),
) -> Result<u32, Error> {
    let Some(source) = source.in_memory() else {
        return crc_of(source, range, buffers.scratch(), shared, advance);
    };
    let Buffers { slots: [first, second], stack, .. } = buffers;
    let middle = range.start.midpoint(range.end);
    // How much the other thread has done that was not told of yet; and what it has found.
    let untold = AtomicU32::new(0);
    let back = Mutex::new((second, Ok(0)));
    let helper = || {
        let (buffer, result) = &mut *lock(&back);
        let advance: &mut dyn FnMut(u64) = &mut |count| {
            untold.fetch_add(count as u32, Relaxed);
        };
        *result = crc_of(source, middle..range.end, buffer, shared, advance);
    };
    let work = || {
        let advance: &mut dyn FnMut(u64) =
            &mut |count| advance(count + u64::from(untold.swap(0, Relaxed)));
        crc_of(source, range.start..middle, first, shared, advance)
    };
    let front = sys::thread::alongside(stack, &helper, work)
        .doing("starting", "a thread that checks the image")?;
    let (_, back) = back.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(crc32::combine(front?, back?, range.end - middle))
}

/// What memory has lost is lost; a disk may give it when it is read again.
#[cfg_attr(not(feature = "core"), allow(unused_variables))]
fn is_another(source: &dyn Source) -> Error {
    let error = Error::failed("checking", "the image", "it is not what was scanned");
    #[cfg(feature = "core")]
    if source.in_memory().is_none() {
        return error.advice("the file was changed, or the medium is bad");
    }
    error.lasting().advice("the memory of this device is bad, or the image was changed")
}

#[cfg(test)]
mod tests {
    /// Elsewhere there is one thread, and the test of it is in mod.rs.
    #[cfg(feature = "core")]
    mod by_two_threads {
        use super::super::*;
        use crate::files;
        use crate::image::decode::BUFFER;
        use crate::image::source::FileSource;
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::FileExt;
        use std::time::{Duration, Instant};

        const OFFSET: u64 = 100;

        fn buffers() -> Buffers {
            Buffers::map(sys::map::buffer(BUFFER).unwrap()).unwrap()
        }

        fn proved(source: &dyn Source, length: u64, packed_crc: u32) -> Result<(), Error> {
            let stream =
                Stream { offset: OFFSET, length, ..crate::plan::tests::sample().image.stream };
            let map = ChunkMap::create().unwrap();
            let staged = Staged { source, stream, patches: Patches::none(), map: &map };
            staged.prove_packed(packed_crc, &mut buffers(), &Shared::default())
        }

        #[test]
        fn a_bit_that_flipped_anywhere_in_memory_is_found_and_none_elsewhere_counts() {
            let file = std::fs::File::from(files::unnamed("/dev/shm").unwrap());
            for length in [1, 2, CHUNK, 2 * CHUNK + 1, 5 * CHUNK + 777] {
                let bytes: Vec<u8> =
                    (0..length + 200).map(|at| (at * 7 + at / 251 + at / CHUNK) as u8).collect();
                file.set_len(0).unwrap();
                file.write_all_at(&bytes, 0).unwrap();
                let source =
                    FileSource::open(&format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
                assert!(source.in_memory().is_some());
                let (start, end) = (OFFSET as usize, OFFSET as usize + length);
                let crc = crc32::crc32(&bytes[start..end]);
                let proved = || proved(&source, length as u64, crc);
                let flipped = |place: usize| {
                    file.write_all_at(&[bytes[place] ^ 16], place as u64).unwrap();
                    let is_found = proved().is_err_and(|error| error.lasts());
                    file.write_all_at(&bytes[place..=place], place as u64).unwrap();
                    is_found
                };
                for place in [start, start + length / 2, end - 1, start + length / 3] {
                    assert!(flipped(place), "{place} of {length}");
                }
                assert!(!flipped(start - 1) && !flipped(end));
                file.set_len(end as u64 - 1).unwrap();
                assert!(proved().is_err());
            }
        }

        /// What is on a disk: too short, or other bytes than were scanned.
        struct OnDisk(u64);

        impl Source for OnDisk {
            fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Error> {
                let count = self.0.saturating_sub(at).min(buffer.len() as u64) as usize;
                buffer[..count].fill(1);
                Ok(count)
            }
            fn length(&self) -> u64 {
                self.0
            }
        }

        #[test]
        fn what_a_disk_gives_wrong_may_be_right_when_it_is_read_again() {
            for length in [OFFSET + 5000, OFFSET + 4999] {
                let error = proved(&OnDisk(length), 5000, 0).unwrap_err();
                assert!(!error.lasts());
                let text: crate::text::Text<300> = crate::text!("{}", error);
                assert!(text.contains("the medium is bad"), "{}", &*text);
            }
        }

        /// Memory that says when it is read at two places at once.
        struct Twice(AtomicU32);

        impl Source for Twice {
            fn read_at(&self, _: u64, buffer: &mut [u8]) -> Result<usize, Error> {
                self.0.fetch_add(1, Relaxed);
                let begun = Instant::now();
                while self.0.load(Relaxed) < 2 {
                    if begun.elapsed() > Duration::from_secs(10) {
                        return Err(Error::failed("reading", "it", "nobody else does"));
                    }
                    std::hint::spin_loop();
                }
                buffer.fill(0);
                Ok(buffer.len())
            }
            fn length(&self) -> u64 {
                u64::MAX
            }
            fn in_memory(&self) -> Option<&(dyn Source + Sync)> {
                Some(self)
            }
        }

        #[test]
        fn two_threads_check_what_is_in_memory_and_one_what_is_on_a_disk() {
            let length = 2 * CHUNK as u64;
            proved(&Twice(AtomicU32::new(0)), length, crc32::of_zeros(length)).unwrap();
            assert!(FileSource::open("/proc/version").unwrap().in_memory().is_none());
        }
    }
}
