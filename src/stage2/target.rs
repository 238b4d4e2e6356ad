//! The disk that is written: opened only when it is free, past the cache, with errors named by sector.

use crate::disk::gpt;
use crate::disk::table::SECTOR;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::is_zero;
use crate::plan::Plan;
use crate::progress::Shared;
use crate::sys::block;
use crate::text::Text;
use core::sync::atomic::Ordering::SeqCst;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The unit in which a failed write is tried again, in bytes: the physical sector of most media.
const PIECE: usize = 4096;
/// How often a piece is tried.
const TRIES: u32 = 3;
/// The backup GPT: a header and 32 sectors of entries at the very end of a disk, and one sector before for tools
/// that place them oddly.
const BACKUP_GPT: u64 = 34 * SECTOR;

/// An open target.
pub struct Target {
    disk: OwnedFd,
    size: u64,
    /// The logical block, in bytes.
    pub block: usize,
}

impl Target {
    /// Opens the disk of the plan if it is free. O_EXCL on a block device is the kernel's own answer to that
    /// question (bd_prepare_to_claim in block/bdev.c); the mount table is not.
    pub fn open(path: &str, plan: &Plan) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::EXCL;
        let disk = files::open(path, flags).doing("claiming the disk", path).map_err(|error| {
            error.advice(
                "something still uses it: a mount, swap, LVM, md, or a program that has claimed it",
            )
        })?;
        let size = block::size(&disk).doing("asking the size of", path)?;
        if size != plan.target.size {
            return Err(Error::failed("looking at the disk", path, "its size has changed")
                .advice("it is not the disk that was checked"));
        }
        Ok(Self::new(disk, size, plan.target.logical_block))
    }

    /// A target of `size` bytes behind an open descriptor.
    pub fn new(disk: OwnedFd, size: u64, logical_block: u32) -> Self {
        Self { disk, size, block: logical_block as usize }
    }

    /// Writes bytes (whole blocks, aligned). What fails is tried again in small pieces, and named.
    pub fn write(&self, offset: u64, bytes: &[u8], shared: &Shared) -> Result<(), Error> {
        shared.destroyed.store(true, SeqCst);
        if write_whole(&self.disk, offset, bytes).is_ok() {
            return Ok(());
        }
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            self.write_piece(offset + (index * PIECE) as u64, piece, shared)?;
        }
        Ok(())
    }

    fn write_piece(&self, offset: u64, piece: &[u8], shared: &Shared) -> Result<(), Error> {
        let mut last = Errno::IO;
        for try_number in 1..=TRIES {
            shared.beat();
            match write_whole(&self.disk, offset, piece) {
                Ok(()) => return Ok(()),
                Err(errno) => last = errno,
            }
            crate::warn!(
                "writing sector {} failed (try {} of {})",
                offset / SECTOR,
                try_number,
                TRIES
            );
        }
        let object: Text<40> = crate::text!("sector {}", offset / SECTOR);
        Err(Error::os("writing", &object, last)
            .advice("the medium is going bad, or its connection is flaky"))
    }

    /// Makes a range zeros by the cheapest means that the kernel guarantees, unless that has proved to be worth
    /// nothing here; `zeros` is a block-aligned piece of
    /// zeros for where there is none.
    pub fn zero(
        &self,
        offset: u64,
        length: u64,
        zeros: &[u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        shared.destroyed.store(true, SeqCst);
        let is_trusted = !shared.zeroing_lied.load(SeqCst);
        if is_trusted && block::zero_out(&self.disk, offset, length).is_ok() {
            return Ok(());
        }
        self.write_zeros(offset, length, zeros, shared)
    }

    /// Writes zeros over a range; for `zeros` see [`Target::zero`].
    pub fn write_zeros(
        &self,
        offset: u64,
        length: u64,
        zeros: &[u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        let mut done = 0;
        while done < length {
            let count = (length - done).min(zeros.len() as u64);
            let piece = zeros.get(..count as usize).unwrap_or_default();
            self.write(offset + done, piece, shared)?;
            shared.beat();
            done += count;
        }
        Ok(())
    }

    /// Makes the first bytes of the disk zeros, as many as `old` and `now` each have, and flushes them: only then may
    /// the rest be written, so that a half-written disk never boots.
    ///
    /// It is also the proof that the disk takes writes. A worn card may refuse them, or accept them and keep nothing,
    /// without the kernel knowing: what was there is whole then, and this was not the point of no return.
    pub fn clear_head(
        &self,
        old: &mut [u8],
        now: &mut [u8],
        zeros: &[u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        let was_destroyed = shared.destroyed.load(SeqCst);
        let known = self.read(0, old);
        // Written, not asked for: drives that promise zeros and do nothing do take writes.
        let length = old.len() as u64;
        let cleared = self.write_zeros(0, length, zeros, shared).and_then(|()| self.flush());
        self.forget_cache();
        let is_same = known.is_ok() && self.read(0, now).is_ok() && now == old;
        // Zeros that were there before, and were written, say nothing.
        if !is_same || (cleared.is_ok() && is_zero(old)) {
            return cleared;
        }
        if let Err(error) = cleared {
            crate::warn!("{}", error);
        }
        let error = Error::failed("clearing", "the first MiB of the disk", "it takes no writes");
        if was_destroyed {
            return Err(error.advice("the medium is worn out, or protected"));
        }
        shared.destroyed.store(false, SeqCst);
        Err(error.advice("nothing was changed; the medium is worn out, or protected"))
    }

    /// Reads bytes past the cache (whole blocks, aligned). A sector that cannot be read is an error: the caller takes
    /// the chunk for changed, and writes it again.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.disk, rest, offset + filled as u64) {
                Ok(0) => {
                    return Err(Error::failed("reading back", "the disk", "it ends too early"));
                }
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let object: Text<60> = crate::text!("from sector {}", offset / SECTOR);
                    return Err(Error::os("reading back", &object, errno));
                }
            }
        }
        Ok(())
    }

    /// Waits until everything is on the medium.
    pub fn flush(&self) -> Result<(), Error> {
        rustix::fs::fdatasync(&self.disk).doing("flushing", "the disk")
    }

    /// Drops what the page cache still holds of the disk from before.
    pub fn forget_cache(&self) {
        // O_DIRECT reads do not use the cache; this is for those who come after us.
        let _ = block::flush_buffers(&self.disk);
    }

    /// Clears a backup GPT that an earlier system left at the end of the disk, behind an image of `length` bytes:
    /// firmware would restore the old table from it. A bad sector there is only warned of. `scratch` has 21 KiB or
    /// more, for what is read and for the zeros that are written.
    pub fn clear_backup_gpt(&self, length: u64, scratch: &mut [u8], shared: &Shared) {
        let block = self.block as u64;
        let table = self.size.saturating_sub(BACKUP_GPT);
        let start = (table - table % block).max(length.next_multiple_of(block));
        if start + block > self.size {
            return;
        }
        let last = scratch.get_mut(..self.block).unwrap_or_default();
        if let Err(error) = self.read(self.size - block, last) {
            // Behind the image, and unreadable for firmware too.
            crate::warn!("{}", error);
            return;
        }
        if !last.starts_with(gpt::SIGNATURE) {
            return;
        }
        let wanted = (self.size - start) as usize;
        let zeros = scratch.get_mut(..wanted).unwrap_or_default();
        zeros.fill(0);
        match self.write(start, zeros, shared) {
            Ok(()) => crate::info!("cleared a stale backup GPT at the end of the disk"),
            // Firmware takes the table at the beginning first, and that will be whole.
            Err(error) => {
                crate::warn!("{}; a stale backup GPT stays at the end of the disk", error)
            }
        }
    }
}

fn write_whole(disk: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(disk, rest, offset + written as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::PathText;

    fn file(name: &str, flags: OFlags) -> OwnedFd {
        let name = format!("takeover-target-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, [7; 16 * 1024]).unwrap();
        let path = PathText::from(path.to_str().unwrap());
        let file = files::open(&path, flags).unwrap();
        files::remove(&path).unwrap();
        file
    }

    #[test]
    fn zeros_are_written_where_the_kernel_makes_none() {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let target = Target::new(file("written", OFlags::RDWR), 16 * 1024, 512);
        assert!(!shared.destroyed.load(SeqCst));
        // A regular file knows no BLKZEROOUT, so they are written, in pieces.
        target.zero(512, 10 * 1024, &[0; 4096], shared).unwrap();
        assert!(shared.destroyed.load(SeqCst));
        let mut found = [1; 16 * 1024];
        target.read(0, &mut found).unwrap();
        assert!(found[512..11 * 1024 - 512].iter().all(|byte| *byte == 0));
        assert!(found[..512].iter().chain(&found[11 * 1024 - 512..]).all(|byte| *byte == 7));
    }

    #[test]
    fn zeros_of_the_kernel_are_a_write_like_others() {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let target = Target::new(file("zeroed", OFlags::RDWR), 16 * 1024, 512);
        // As on a block device, where the kernel does it all: nothing is left to be written otherwise.
        target.zero(0, 0, &[0; 512], shared).unwrap();
        assert!(shared.destroyed.load(SeqCst));
    }

    #[test]
    fn a_sector_that_cannot_be_written_is_named() {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let target = Target::new(file("sealed", OFlags::RDONLY), 16 * 1024, 512);
        let error = target.write(4096, &[0; 8192], shared).unwrap_err();
        let text: Text<300> = crate::text!("{}", error);
        assert!(text.contains("sector 8:"), "{}", &*text);
    }
}
