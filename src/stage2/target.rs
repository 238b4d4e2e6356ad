//! The disk that is written: opened only when it is free and the one that was checked, past the cache, with errors
//! named by sector.
//!
//! A disk that went away after the first write is looked for by what it says of itself, and gets its node anew: its old
//! OS is gone, and what is to replace it waits in memory or on that disk. Before the first write a disk that is not
//! where it was is a failure.

use crate::disk::device::{self, Number};
use crate::disk::table::SECTOR;
use crate::disk::{gpt, holders, identity, loops};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::is_zero;
use crate::plan::{DiskPlan, Plan, names};
use crate::progress::Shared;
use crate::sys::{block, process};
use crate::text::{PathText, Text};
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use ufmt::uwrite;

/// The unit in which a failed write is tried again, in bytes: the physical sector of most media.
const PIECE: usize = 4096;
/// What is written last of all, in bytes: the boot sector with the partition table, or the first header of a GPT. No
/// smaller than a logical block.
pub const FIRST_BLOCK: usize = PIECE;
/// How often a piece is tried.
const TRIES: u32 = 3;
/// The backup GPT: a header and 32 sectors of entries at the very end of a disk, and one sector before for tools
/// that place them oddly.
const BACKUP_GPT: u64 = 34 * SECTOR;

/// The most blocks of the first MiB that may be unreadable before anything is written; with more of them nothing could
/// be put back.
const MAX_UNREAD: usize = 64;

/// What is not worth a discard, in bytes: the smallest erase units of cards are longer.
const LEAST_DISCARD: u64 = 1 << 20;
/// A range that is longer than this, in bytes, has a whole unit of the device's discards around its middle: what is not
/// zeros there is not made zeros. The units of cards are 4 MiB at most.
const LONG_DISCARD: u64 = 8 << 20;
/// What a target knows of the discards of its device: nothing yet; that zeros are read where they were; that they are
/// not.
const UNKNOWN: u8 = 0;
const ZEROS: u8 = 1;
const USELESS: u8 = 2;

/// Where O_DIRECT can read to.
#[repr(C, align(4096))]
struct Block([u8; PIECE]);

/// The places of blocks that cannot be read, in bytes.
type Unread = heapless::Vec<u64, MAX_UNREAD>;

/// The disk, ours alone, and its node.
pub fn claim_disk(plan: &Plan, base: &str, shared: &Shared) -> Result<(Target, PathText), Error> {
    let nodes = files::below(base, names::DEV)?;
    let path = files::below(&nodes, &plan.target.name)?;
    let target =
        Target::open(&path, plan, shared).map_err(|error| name_holders(error, &path, plan))?;
    loops::none_on(&nodes, target.number)?;
    Ok((target, path))
}

/// An open target.
pub struct Target {
    disk: OwnedFd,
    size: u64,
    /// The number that it has now.
    pub number: Number,
    /// The logical block, in bytes.
    pub block: usize,
    discards: AtomicU8,
}

impl Target {
    /// Opens the disk of the plan if it is free. O_EXCL on a block device is the kernel's own answer to that
    /// question (bd_prepare_to_claim in block/bdev.c); the mount table is not.
    pub fn open(path: &str, plan: &Plan, shared: &Shared) -> Result<Self, Error> {
        let number = if crate::IS_WHOLE {
            put_in_place(path, &plan.target, shared)?
        } else {
            // A rescue system has asked for the disk anew before every try, and whether it is the same.
            device::number_of(path)?
        };
        let disk = claim(path).doing("claiming the disk", path)?;
        let size = block::size(&disk).doing("asking the size of", path)?;
        if size != plan.target.size {
            return Err(Error::failed("looking at the disk", path, "its size has changed")
                .advice("it is not the disk that was checked"));
        }
        Ok(Self { number, ..Self::new(disk, size, plan.target.logical_block) })
    }

    /// A target of `size` bytes behind an open descriptor.
    pub fn new(disk: OwnedFd, size: u64, logical_block: u32) -> Self {
        let number = Number { major: 0, minor: 0 };
        let discards = AtomicU8::new(UNKNOWN);
        Self { disk, size, number, block: logical_block as usize, discards }
    }

    /// Gives up the claim in a child of the process that has it.
    pub fn let_go(&self) {
        process::close_inherited(&self.disk);
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

    /// The same, once and no more: for what is not worth waiting for.
    pub fn write_once(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let object: Text<40> = crate::text!("sector {}", offset / SECTOR);
        write_whole(&self.disk, offset, bytes).doing("writing", &object)
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

    /// Makes a range zeros by the cheapest means that there is, unless that has proved to be worth nothing here;
    /// `zeros` is a block-aligned piece of zeros for where there is none. Who reads it back judges.
    ///
    /// A hole is punched where the device makes zeros at once; blkdev_fallocate() in block/fops.c has no slow way for
    /// it. Then come discards, and zeros that the kernel writes.
    pub fn zero(
        &self,
        offset: u64,
        length: u64,
        zeros: &[u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        shared.destroyed.store(true, SeqCst);
        let punch = || {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            block::fallocate(&self.disk, flags, offset, length).is_ok()
        };
        if !shared.zeroing_lied.load(SeqCst)
            && (punch()
                || self.discard(offset, length, shared)
                || block::zero_out(&self.disk, offset, length).is_ok())
        {
            return Ok(());
        }
        self.write_zeros(offset, length, zeros, shared)
    }

    /// Discards a range, where that makes zeros. Of a device whose discards are not known yet a block that was just
    /// made something else must have become so: one that was zeros before proves nothing. What of the range is no whole
    /// unit of the device may stay as it was: that is made zeros otherwise.
    fn discard(&self, offset: u64, length: u64, shared: &Shared) -> bool {
        let known = self.discards.load(SeqCst);
        if known == USELESS || length < LEAST_DISCARD {
            return false;
        }
        let sample = offset + length / 2 / PIECE as u64 * PIECE as u64;
        if known == UNKNOWN && self.write(sample, &Block([0x55; PIECE]).0, shared).is_err() {
            return false;
        }
        let is_done = block::discard(&self.disk, offset, length).is_ok();
        let makes_zeros = is_done && (known == ZEROS || self.is_zero_at(sample));
        if !crate::IS_WHOLE || makes_zeros || !is_done || length >= LONG_DISCARD {
            self.discards.store(if makes_zeros { ZEROS } else { USELESS }, SeqCst);
        }
        // The set rescue has no bytes for it: what is left is repaired by the read-back.
        let (mut at, end) = (offset, offset + length);
        while crate::IS_WHOLE && makes_zeros && at < end {
            let piece = LEAST_DISCARD.min(end - at);
            if !self.is_zero_at(at) && block::zero_out(&self.disk, at, piece).is_err() {
                return false;
            }
            at += piece;
        }
        makes_zeros
    }

    fn is_zero_at(&self, offset: u64) -> bool {
        let mut block = Block([1; PIECE]);
        self.read(offset, &mut block.0).is_ok() && is_zero(&block.0)
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
    /// without the kernel knowing; one bad sector may end it in the middle. As long as nothing else was written, what
    /// was there is put back, and when it reads as before, this was not the point of no return.
    pub fn clear_head(
        &self,
        old: &mut [u8],
        now: &mut [u8],
        zeros: &[u8],
        shared: &Shared,
    ) -> Result<(), Error> {
        let was_destroyed = shared.destroyed.load(SeqCst);
        let known = self.read_blocks(old, shared);
        if known.is_none() && !was_destroyed {
            let why = "more than 64 of its blocks cannot be read";
            return Err(Error::failed("reading", HEAD, why)
                .advice("nothing was changed; the medium or its connection is going bad"));
        }
        if crate::IS_WHOLE {
            let has_gaps = known.as_ref().is_some_and(|unread| !unread.is_empty());
            shared.head_has_gaps.store(has_gaps, SeqCst);
        }
        shared.head_only.store(!was_destroyed, SeqCst);
        // Written, not asked for: drives that promise zeros and do nothing do take writes.
        let length = old.len() as u64;
        let cleared = self.write_zeros(0, length, zeros, shared).and_then(|()| self.flush());
        let is_clear = self.read_blocks(now, shared).is_some_and(|unread| unread.is_empty());
        if cleared.is_ok() && is_clear && is_zero(now) {
            shared.head_only.store(false, SeqCst);
            return Ok(());
        }
        let is_old = |now: &mut [u8]| {
            known.as_ref().is_some_and(|unread| self.reads_as(old, now, unread, shared))
        };
        let has_old = is_old(now);
        let why = if has_old { NO_WRITES } else { "it does not read back as zeros" };
        let mut error = Error::failed("clearing", HEAD, why);
        if let Err(cause) = cleared {
            crate::warn!("{}", cause);
            // Of a disk that takes some writes, what it does not take is said.
            error = if has_old { error } else { cause };
        }
        if was_destroyed {
            return Err(error.advice("the medium is worn out, or protected"));
        }
        if !has_old {
            crate::info!("putting back the first MiB of the disk");
            self.put_back(old, known.as_deref().unwrap_or_default(), shared);
            if !is_old(now) {
                return Err(error);
            }
        }
        shared.destroyed.store(false, SeqCst);
        match known.as_deref() {
            Some([]) | None => Err(error.advice(UNCHANGED)),
            Some(unread) => {
                crate::warn!("{}", error);
                Err(zeroed(unread))
            }
        }
    }

    /// Puts back the head that a worker before this one has left in `old`, and then fails: the old OS is whole. Where
    /// that does not work the new one is all that is left.
    pub fn restore_head(&self, old: &[u8], now: &mut [u8], shared: &Shared) -> Result<(), Error> {
        crate::info!("putting back the first MiB of the disk");
        self.put_back(old, &[], shared);
        if !self.reads_as(old, now, &Unread::new(), shared) {
            shared.head_only.store(false, SeqCst);
            return Ok(());
        }
        shared.destroyed.store(false, SeqCst);
        let why = "the try before this one did not come to its end";
        // The set rescue has no bytes for the other.
        let has_gaps = crate::IS_WHOLE && shared.head_has_gaps.load(SeqCst);
        let advice = if has_gaps { CHANGED_GAPS } else { UNCHANGED };
        Err(Error::failed("clearing", HEAD, why).advice(advice))
    }

    /// Reads the first bytes of the disk, and those block by block that cannot be read together; gives the places of
    /// the blocks that cannot be read at all, which become zeros, or nothing when there are too many.
    fn read_blocks(&self, bytes: &mut [u8], shared: &Shared) -> Option<Unread> {
        let mut unread = Unread::new();
        self.forget_cache();
        if self.read(0, bytes).is_ok() {
            return Some(unread);
        }
        for (index, piece) in bytes.chunks_mut(PIECE).enumerate() {
            let start = (index * PIECE) as u64;
            shared.beat();
            if self.read(start, piece).is_ok() {
                continue;
            }
            for (index, block) in piece.chunks_mut(self.block).enumerate() {
                let place = start + (index * self.block) as u64;
                shared.beat();
                if self.read(place, block).is_err() {
                    block.fill(0);
                    unread.push(place).ok()?;
                }
            }
        }
        Some(unread)
    }

    /// True when the first bytes of the disk read as `old`, but for the blocks that could not be read before: nobody
    /// knows what those held, the old OS neither. `now` is scratch.
    fn reads_as(&self, old: &[u8], now: &mut [u8], unread: &Unread, shared: &Shared) -> bool {
        let Some(unread_now) = self.read_blocks(now, shared) else {
            return false;
        };
        let blocks = old.chunks(self.block).zip(now.chunks(self.block)).enumerate();
        let mut blocks = blocks.map(|(index, pair)| ((index * self.block) as u64, pair));
        blocks.all(|(place, (old, now))| {
            unread.contains(&place) || (old == now && !unread_now.contains(&place))
        })
    }

    /// Writes back what was read, as far as the disk takes it, and flushes it; whether that worked is for whoever reads
    /// it. Blocks that could not be read are left alone.
    fn put_back(&self, old: &[u8], unread: &[u64], shared: &Shared) {
        for (index, piece) in old.chunks(PIECE).enumerate() {
            let start = (index * PIECE) as u64;
            let is_whole =
                !unread.iter().any(|place| (start..start + PIECE as u64).contains(place));
            shared.beat();
            if is_whole && write_whole(&self.disk, start, piece).is_ok() {
                continue;
            }
            for (index, block) in piece.chunks(self.block).enumerate() {
                let place = start + (index * self.block) as u64;
                shared.beat();
                if !unread.contains(&place) {
                    // The block that is bad: it reads as before, or the old OS is lost.
                    let _ = write_whole(&self.disk, place, block);
                }
            }
        }
        if let Err(error) = self.flush() {
            // What is read decides: a disk that cannot be flushed takes no new OS either.
            crate::warn!("{}", error);
        }
    }

    /// Makes the first block zeros, as far as the disk takes it: without a partition table it does not boot.
    pub fn clear_first_block(&self, zeros: &[u8], shared: &Shared) {
        self.put_back(zeros.get(..FIRST_BLOCK).unwrap_or_default(), &[], shared);
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

    /// Erases whole blocks of a flash device.
    pub fn erase(&self, offset: u64, length: u64) -> Result<(), Error> {
        let object: Text<40> = crate::text!("byte {} and behind", offset);
        block::flash_erase(&self.disk, offset as u32, length as u32).doing("erasing", &object)
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

const HEAD: &str = "the first MiB of the disk";
const NO_WRITES: &str = "it takes no writes";
const UNCHANGED: &str = "nothing was changed; the medium is worn out, protected, or going bad";
const CHANGED_GAPS: &str = "what of it could not be read before is zeros now, and nothing else was changed; the \
                            medium is going bad";

/// The error of a disk that is as it was, but for blocks that could not be read. What made it fail is in the log.
fn zeroed(unread: &[u64]) -> Error {
    let why: Text<240> = Text::build(&mut |writer: &mut crate::text::Writer| {
        uwrite!(writer, "what could not be read before may be zeros now, at sector")?;
        unread.iter().try_for_each(|place| uwrite!(writer, " {}", place / SECTOR))
    });
    Error::failed("clearing", HEAD, &why)
        .advice("nothing else was changed; the medium is going bad")
}

fn claim(path: &str) -> Result<OwnedFd, Errno> {
    files::open(path, OFlags::RDWR | OFlags::DIRECT | OFlags::EXCL)
}

/// The error of a disk that is not free, with those that use it. Others are passed on.
pub fn name_holders(error: Error, path: &str, plan: &Plan) -> Error {
    if !crate::IS_WHOLE || !matches!(claim(path), Err(Errno::BUSY)) {
        return error;
    }
    let (nodes, _) = crate::text::split_last(path, b'/').unwrap_or_default();
    let number = device::number_of(path).unwrap_or(plan.target.number);
    let object: Text<40> = crate::text!("/dev/{}", plan.target.name.as_str());
    let why: Text<240> = crate::text!("something still uses it: {}", holders::of(nodes, number));
    Error::failed("claiming", &object, &why).advice("end that first")
}

/// The number that the disk of the plan has now, whose node is at `path`; the one that it had when it is not there.
pub fn number_now(path: &str, plan: &Plan, shared: &Shared) -> Number {
    find(path, &plan.target, shared).map_or(plan.target.number, |(_, number)| number)
}

/// Sees to it that the node of a disk is that of the number that the disk has now, and gives that.
pub fn put_in_place(path: &str, disk: &DiskPlan, shared: &Shared) -> Result<Number, Error> {
    let (node, number) = find(path, disk, shared)?;
    if node != Some(number) {
        put_node(path, number)?;
        let name = disk.name.as_str();
        crate::info!("the disk {} came back as {}:{}", name, number.major, number.minor);
    }
    Ok(number)
}

/// The number that its node has, and the number that a disk has. Once the target is written each can do without a node.
fn find(path: &str, disk: &DiskPlan, shared: &Shared) -> Result<(Option<Number>, Number), Error> {
    let is_written = shared.destroyed.load(SeqCst);
    let node = match files::status(path) {
        Ok(status) => Some(Number::from_stat(status.st_rdev)),
        Err(Errno::NOENT) if is_written => None,
        Err(errno) => return Err(Error::os("looking for the disk", path, errno)),
    };
    let known = node.unwrap_or(disk.number);
    Ok((node, locate(identity::SYSFS, disk, known, is_written)?))
}

/// Makes the node anew: under another name first, so that there is one at any moment.
fn put_node(path: &str, number: Number) -> Result<(), Error> {
    let new = crate::path!("{}.new", path)?;
    // A worker that died may have left it.
    let _ = files::remove(&new);
    device::make_node(&new, number)?;
    files::rename(&new, path).doing("renaming", &new)
}

/// The number of a disk, which was `known` by another one. After the first write it may have a new one.
fn locate(sysfs: &str, disk: &DiskPlan, known: Number, is_written: bool) -> Result<Number, Error> {
    let told = identity::of_number(sysfs, known);
    let is_same = identity::is_same(&disk.identity, &told, is_written);
    if is_same && !(is_written && is_offline(sysfs, known)) {
        return Ok(known);
    }
    if !is_written {
        let why = "its number belongs to no disk any more, or to another one";
        return Err(Error::failed("looking at the disk", &disk.name, why)
            .advice("it is not the disk that was checked"));
    }
    let found = identity::find(sysfs, &disk.identity, disk.size);
    found.or(is_same.then_some(known)).ok_or_else(|| {
        Error::failed("looking for the disk", &disk.identity, "it is not there")
            .advice("connect it again: it is looked for before every try")
    })
}

/// True when the kernel has given a SCSI disk up, and does not let itself be told to use it again:
/// scsi_device_set_state() in drivers/scsi/scsi_lib.c.
fn is_offline(sysfs: &str, number: Number) -> bool {
    let Ok(path) =
        crate::path!("{}/dev/block/{}:{}/device/state", sysfs, number.major, number.minor)
    else {
        return false;
    };
    let mut buffer = [0; 32];
    let mut is_offline =
        || files::read_text(&path, &mut buffer).is_ok_and(|state| state.ends_with("offline"));
    if !is_offline() {
        return false;
    }
    crate::warn!("the kernel has given the disk up: it is told to use it again");
    if let Ok(file) = files::open(&path, OFlags::WRONLY) {
        // What the kernel makes of it is read.
        let _ = files::write_all(&file, b"running\n");
    }
    is_offline()
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
    fn a_head_that_is_put_back_by_the_next_worker_is_as_it_was_or_has_gaps_and_that_is_said() {
        let target = Target::new(file("head", OFlags::RDWR), 16 * 1024, 512);
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let (old, mut now) = ([7; 8192], [0; 8192]);
        for (has_gaps, wanted) in
            [(false, "nothing was changed"), (true, "could not be read before is zeros now")]
        {
            shared.destroyed.store(true, SeqCst);
            shared.head_has_gaps.store(has_gaps, SeqCst);
            let error = target.restore_head(&old, &mut now, shared).unwrap_err();
            let text: Text<300> = crate::text!("{}", error);
            assert!(text.contains(wanted) || !crate::IS_WHOLE, "{text:?}");
            assert!(!shared.destroyed.load(SeqCst), "the old OS is whole");
        }
    }

    #[test]
    fn a_disk_is_looked_for_by_its_identity_after_the_first_write_only() {
        use crate::disk::identity::tests::Sysfs;
        let sysfs = Sysfs::new("target");
        sysfs.plug_usb("sda", "8:0", "DD56419", 0);
        let number = |minor| Number { major: 8, minor };
        let mut target = crate::plan::tests::sample().target;
        target.size = 64 << 20;
        target.identity = heapless::String::try_from("usb=DD56419 unit=0").unwrap();
        let at = |target: &DiskPlan, is_written| {
            let found = locate(sysfs.path(), target, number(0), is_written);
            found.map_err(|error| (crate::text!("{}", error) as Text<300>).to_string())
        };
        assert_eq!(at(&target, false), Ok(number(0)));
        // It comes back as another one, and its number is taken.
        sysfs.unplug("sda");
        assert!(at(&target, true).unwrap_err().contains("it is not there"));
        sysfs.plug("sda", "8:0", 64, &[("serial", "another")]);
        assert!(at(&target, true).unwrap_err().contains("it is not there"));
        sysfs.plug_usb("sdb", "8:16", "DD56419", 0);
        assert_eq!(at(&target, true), Ok(number(16)));
        assert!(at(&target, false).unwrap_err().contains("not the disk that was checked"));
        target.identity.clear();
        assert_eq!(at(&target, true), Ok(number(0)), "one without an identity is not looked for");
        assert_eq!(at(&target, false), Ok(number(0)));
        // One that is known by its place alone.
        target.identity = heapless::String::try_from("diskseq=7 path=port").unwrap();
        sysfs.plug("port", "8:32", 64, &[("diskseq", "9")]);
        assert_eq!(at(&target, true), Ok(number(32)));
    }

    #[test]
    fn a_disk_that_the_kernel_has_given_up_is_used_again_once_it_is_written() {
        use crate::disk::identity::tests::Sysfs;
        let sysfs = Sysfs::new("offline");
        let number = Number { major: 8, minor: 0 };
        let mut target = crate::plan::tests::sample().target;
        target.size = 64 << 20;
        target.identity = heapless::String::try_from("serial=DD56419").unwrap();
        let file = std::path::Path::new(sysfs.path()).join("devices/sda/device/state");
        for (state, is_written, wanted) in [
            ("offline", true, "running"),
            ("transport-offline", true, "running"),
            ("offline", false, "offline"),
            ("live", true, "live"),
        ] {
            let told = [("serial", "DD56419"), ("device/state", state)];
            sysfs.plug("sda", "8:0", 64, &told);
            assert_eq!(locate(sysfs.path(), &target, number, is_written).ok(), Some(number));
            let found = std::fs::read_to_string(&file).unwrap();
            assert!(found.starts_with(wanted), "{state} {is_written}: {found}");
            sysfs.unplug("sda");
        }
    }

    #[test]
    fn a_node_that_is_gone_is_made_again_once_the_disk_is_written() {
        let folder = std::env::temp_dir().join(format!("takeover-node-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = PathText::from(folder.join("sda").to_str().unwrap());
        let mut plan = crate::plan::tests::sample();
        plan.target.identity.clear();
        plan.target.number = Number { major: 1, minor: 250 };
        let shared: &Shared = crate::sys::map::shared().unwrap();
        assert!(
            find(&path, &plan.target, shared).is_err(),
            "before the first write it is a failure"
        );
        shared.destroyed.store(true, SeqCst);
        assert!(find(&path, &plan.target, shared).unwrap() == (None, plan.target.number));
        assert!(number_now(&path, &plan, shared) == plan.target.number);
        // With what a worker left that died; and in place of another node.
        std::fs::write(folder.join("sda.new"), "").unwrap();
        for minor in [250, 251] {
            put_node(&path, Number { major: 1, minor }).unwrap();
            assert_eq!(device::number_of(&path).unwrap(), Number { major: 1, minor });
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn zeros_are_made_by_a_hole_or_written() {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        for has_lied in [false, true] {
            shared.zeroing_lied.store(has_lied, SeqCst);
            let target = Target::new(file("zeroed", OFlags::RDWR), 16 * 1024, 512);
            target.zero(512, 10 * 1024, &[0; 4096], shared).unwrap();
            assert!(shared.destroyed.load(SeqCst));
            let mut found = [1; 16 * 1024];
            target.read(0, &mut found).unwrap();
            assert!(found[512..11 * 1024 - 512].iter().all(|byte| *byte == 0));
            assert!(found[..512].iter().chain(&found[11 * 1024 - 512..]).all(|byte| *byte == 7));
        }
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
