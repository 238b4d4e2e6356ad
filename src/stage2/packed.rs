//! The packed image where stage 1 has left it on a disk: read past the cache, from the disk that is written, behind
//! what is written of it, or from another one.
//!
//! Only once everything is unmounted: until then whoever has the file may change it. What is not as it was left is
//! found when all of it is read, before the first write.

use super::target;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::pieces::PieceList;
use crate::image::source::raw::{BUFFER, Open, RawSource};
use crate::plan::{PackedPlan, Plan, names};
use crate::progress::Shared;
use crate::sys;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// How often another disk is claimed, and the pause between: a file system that is going away needs a moment.
const CLAIMS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The list of its pieces, as stage 1 has left it.
pub fn list(packed: &PackedPlan) -> Result<PieceList, Error> {
    let list = PieceList::open(&files::below("", names::PIECES)?, packed.pieces)?;
    if list.crc()? == packed.list_crc {
        return Ok(list);
    }
    Err(Error::failed("checking", "the list of pieces", "it changed in memory")
        .lasting()
        .advice("the memory of this device is bad"))
}

/// Its bytes; for `open` see [`open`].
pub fn source<'a>(
    packed: &PackedPlan,
    list: &'a PieceList,
    open: Open<'a>,
) -> Result<RawSource<'a>, Error> {
    let buffer = sys::map::buffer(BUFFER).doing("reserving", "a buffer for what is read")?;
    RawSource::new(open, list, packed.disk.logical_block, buffer)
}

/// Opens its disk, wherever that is now. One that is not the target is ours alone, so that nothing else comes by it;
/// where swap or a stack of devices that stage 2 leaves alone is on it, too, the CRCs have to do.
pub fn open(plan: &Plan, packed: &PackedPlan, shared: &Shared) -> Result<OwnedFd, Error> {
    // Also between the tries of one piece: a disk that is going bad takes minutes for each.
    shared.beat();
    let path = crate::path!("/{}/{}", names::DEV, packed.disk.name.as_str())?;
    target::put_in_place(&path, &packed.disk, shared)?;
    let flags = OFlags::RDONLY | OFlags::DIRECT;
    if packed.disk.name != plan.target.name {
        for _ in 0..CLAIMS {
            shared.beat();
            match files::open(&path, flags | OFlags::EXCL) {
                Err(Errno::BUSY) => sys::clock::sleep(PAUSE),
                result => return result.doing("claiming the disk of the image,", &path),
            }
        }
        crate::warn!("{}, on which the image waits, is in use: it is read all the same", path);
    }
    files::opened(&path, flags)
}
