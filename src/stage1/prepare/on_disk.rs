//! The packed image stays on its disk: what the new OS will overwrite is copied behind it, and where all of it lies is
//! written down for stage 2.
//!
//! The copies go into a file of the old OS, beside the image, whose blocks the file system gives: so nothing of the old
//! OS is touched, it boots whenever the power goes, and removing that file undoes all. What stage 2 will read is read
//! here once in the same way, past the file system, and proven against the scan.

use super::ramfs::Ramfs;
use super::undo::{Change, Undo, interrupted};
use crate::crc32;
use crate::disk::copies;
use crate::disk::device;
use crate::disk::extents::{Place, Pull};
use crate::disk::file::FileOnDisk;
use crate::disk::room::{self, Step};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::pieces::PieceList;
use crate::image::scan::Scan;
use crate::image::source::Source;
use crate::image::source::raw::{self, RawSource};
use crate::image::stream::Stream;
use crate::plan::{self, FilePlan, PackedPlan, names};
use crate::progress::Rate;
use crate::stage1::decide::stage::{self, OnDisk};
use crate::sys::block;
use crate::text::{PathText, Size};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, FileType, OFlags};
use rustix::io::Errno;

/// The least that is set aside at once, in bytes.
const STEP: u64 = 1 << 20;

/// The most changes that it makes: the file with the copies.
pub const MOST_CHANGES: usize = 1;

/// Removes what a takeover that was killed, or gave up in stage 2, has copied: nobody else would. Whether its room is
/// to be used at once: then it waits for the file system, however long that takes.
pub fn remove_leftover(path: &str, is_room_used: bool) -> Result<(), Error> {
    if !matches!(copies::left(path), Ok(Some(_))) {
        return Ok(());
    }
    if let Err(errno) = files::remove(path) {
        crate::warn!("{}", Error::os("removing what an earlier takeover has left,", path, errno));
        return Ok(());
    }
    crate::info!("removed what an earlier takeover has left: {}", path);
    if !is_room_used {
        return Ok(());
    }
    // ext4 gives its blocks to others, and tells of them, once that is in its journal.
    rustix::fs::syncfs(stage::folder_of(path)?).doing("writing to the disk of", path)
}

/// The image that stays where it is.
pub struct Packed<'a> {
    /// Where it is.
    pub place: &'a OnDisk,
    /// Its bytes, as the file system gives them.
    pub source: &'a dyn Source,
    /// Where in them it is.
    pub stream: Stream,
    /// What the scan found.
    pub scan: &'a Scan,
    /// Nothing will be overwritten, so nothing is copied.
    pub is_pretended: bool,
}

impl Packed<'_> {
    /// Copies what will be overwritten, and leaves the list of the pieces in the RAMFS. `buffer` is
    /// [`crate::image::decode::BUFFER`] long and page-aligned.
    pub fn stage(
        &self,
        ramfs: &Ramfs,
        buffer: &mut [u8],
        undo: &mut Undo,
    ) -> Result<PackedPlan, Error> {
        let disk = &self.place.file.disk;
        let nodes = ramfs.inside(names::DEV)?;
        let node = device::node(&nodes, &disk.name, FileType::BlockDevice, disk.number)?;
        let mut list = PieceList::create(&ramfs.inside(names::PIECES)?)?;
        let end = self.stream.offset + self.stream.length;
        let mut pieces = self.place.file.pieces(self.stream.offset, end);
        let needed = room::count(&mut pieces, self.place.over)?.overwritten;
        let mut copies = None;
        if needed == 0 || self.is_pretended {
            let mut pieces = self.place.file.pieces(self.stream.offset, end);
            while let Some(piece) = pieces.next()? {
                add(&mut list, piece.place, piece.length)?;
            }
        } else {
            let file = Copies::make(self.place, needed, undo)?;
            self.copy(&file, needed, &mut list, buffer)?;
            copies = self.place.file.on_partition(&file.path)?.and_then(|(number, path)| {
                let file_system = plan::bounded("", &self.place.file.file_system).ok()?;
                // One that is too long for the plan is removed by the next takeover.
                Some(FilePlan { number, file_system, path: plan::bounded("", &path).ok()? })
            });
        }
        self.prove(&node, &mut list, buffer)?;
        Ok(PackedPlan {
            disk: self.place.planned()?,
            pieces: list.count(),
            list_crc: list.crc()?,
            copies,
        })
    }

    /// Copies what will be overwritten into the file that was set aside, and lists every piece.
    fn copy(
        &self,
        copies: &Copies,
        needed: u64,
        list: &mut PieceList,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let Stream { offset, length, .. } = self.stream;
        let mut pieces = self.place.file.pieces(offset, offset + length);
        let mut spaces = self.place.file.set_aside(&copies.file, copies.length);
        let mut rate = Rate::start("copy on the disk", needed);
        let mut done = 0;
        room::arrange(&mut pieces, &mut spaces, self.place.over, &mut |step| match step {
            Step::Stays(piece) => add(list, piece.place, piece.length),
            Step::Copied { from, length, to, place } => {
                let mut copied = 0;
                while copied < length {
                    interrupted()?;
                    stage::spare(&self.place.file)?;
                    let wanted = (length - copied).min(buffer.len() as u64) as usize;
                    let piece = buffer.get_mut(..wanted).unwrap_or_default();
                    if self.source.read_at(from + copied, piece)? < wanted {
                        return Err(changed());
                    }
                    copies.write(piece, to + copied)?;
                    copied += wanted as u64;
                    rate.advance(done + copied);
                }
                done += length;
                add(list, Place::Disk(place), length)
            }
        })?;
        rustix::fs::fsync(&copies.file).doing("writing to the disk", &copies.path)?;
        crate::info!("{} of the image are copied behind the new OS: {}", Size(needed), copies.path);
        Ok(())
    }

    /// Reads every piece from the disk itself, notes its CRC, and proves that all together are the image.
    fn prove(&self, node: &str, list: &mut PieceList, buffer: &mut [u8]) -> Result<(), Error> {
        let open = || files::opened(node, OFlags::RDONLY | OFlags::DIRECT);
        let buffer = buffer.get_mut(..raw::BUFFER).unwrap_or_default();
        let mut rate = Rate::start("check on the disk", self.stream.length);
        let (mut crc, mut done) = (0, 0);
        let source = RawSource::new(&open, list, self.place.file.disk.logical_block, buffer)?;
        source.for_each_crc(&mut |index, piece| {
            interrupted()?;
            crc = crc32::combine(crc, piece.crc, piece.length);
            done += piece.length;
            rate.advance(done);
            list.set(index, piece)
        })?;
        if done == self.stream.length && crc == self.scan.packed_crc {
            return Ok(());
        }
        let why = "the disk does not hold it where the file system says, or it was changed";
        Err(Error::failed("reading from the disk", "the image", why)
            .advice("let it wait in memory: --stage ram"))
    }
}

fn add(list: &mut PieceList, place: Place, length: u64) -> Result<(), Error> {
    let place = match place {
        Place::Disk(at) => Some(at),
        Place::Zeros => None,
    };
    list.add(place, length)
}

fn changed() -> Error {
    Error::failed("copying", "the image", "the file changed after it was checked")
}

/// The file of the old OS that takes the copies.
struct Copies {
    file: OwnedFd,
    path: PathText,
    length: u64,
}

impl Copies {
    /// Makes it, with blocks enough that outlive; those that do not are given back.
    fn make(place: &OnDisk, needed: u64, undo: &mut Undo) -> Result<Self, Error> {
        let path = stage::copies_beside(&place.file.path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = files::open(&path, flags).doing("making", &path)?;
        undo.note(Change::MadeFile(path.clone()))?;
        if !place.file.is_beside(&file) {
            let why = "it is on another file system than the image";
            return Err(Error::failed("making", &path, why).advice("move the image"));
        }
        let mut copies = Self { file, path, length: 0 };
        loop {
            interrupted()?;
            let usable = place.file.outlived_of(&copies.file, place.over)?;
            if usable >= needed {
                break;
            }
            let spare = stage::spare(&place.file)?;
            copies.grow((needed - usable).max(STEP).min(spare))?;
        }
        copies.give_back(&place.file, place.over)?;
        Ok(copies)
    }

    /// Adds so many bytes to it, or as many as there are.
    fn grow(&mut self, wanted: u64) -> Result<(), Error> {
        let mut more = wanted;
        loop {
            let flags = FallocateFlags::empty();
            match block::fallocate(&self.file, flags, self.length, more) {
                // It may have got a part of that: ext4 sets blocks aside in turns.
                Err(Errno::NOSPC) if more > 64 * 1024 => {
                    more /= 2;
                    let status = rustix::fs::fstat(&self.file).doing("looking at", &self.path)?;
                    self.length = status.st_size as u64;
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.grow_by_zeros(more),
                result => {
                    result.doing("setting blocks aside for", &self.path)?;
                    self.length += more;
                    return Ok(());
                }
            }
        }
    }

    /// The same where the file system sets no blocks aside (ext2, ext3).
    fn grow_by_zeros(&mut self, more: u64) -> Result<(), Error> {
        let zeros = [0; 16 * 1024];
        let end = self.length + more;
        while self.length < end {
            let wanted = (end - self.length).min(zeros.len() as u64) as usize;
            self.write(zeros.get(..wanted).unwrap_or_default(), self.length)?;
            self.length += wanted as u64;
        }
        rustix::fs::fsync(&self.file).doing("writing to the disk", &self.path)
    }

    /// Gives back the blocks that are of no use.
    fn give_back(&self, beside: &FileOnDisk, over: room::Overwritten) -> Result<(), Error> {
        let mut spaces = beside.set_aside(&self.file, self.length);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        while let Some(space) = spaces.next()? {
            let Place::Disk(at) = space.place else {
                continue;
            };
            if over.outlived(at, space.length) == 0 {
                // What cannot be given back is only kept for a while.
                let _ = block::fallocate(&self.file, flags, space.start, space.length);
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&self.file, rest, at + done as u64) {
                Ok(0) => return Err(Error::failed("writing", &self.path, "it takes no more")),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os("writing", &self.path, errno)),
            }
        }
        Ok(())
    }
}
