//! The packed image where stage 1 has left it on a disk: read past the cache, from the disk that is written, behind
//! what is written of it, or from another one.
//!
//! Only once everything is unmounted: until then whoever has the file may change it. What is not as it was left is
//! found when all of it is read, before the first write.

use crate::error::{Doing, Error};
use crate::files;
use crate::image::pieces::PieceList;
use crate::image::source::raw::{BUFFER, RawSource};
use crate::plan::{PackedPlan, names};
use crate::sys;
use rustix::fs::OFlags;

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

/// Its bytes. A disk that was away has its node anew by now: what proves that it is free makes that.
pub fn source<'a>(packed: &PackedPlan, list: &'a PieceList) -> Result<RawSource<'a>, Error> {
    let path = crate::path!("/{}/{}", names::DEV, packed.name.as_str())?;
    let disk = files::opened(&path, OFlags::RDONLY | OFlags::DIRECT)?;
    let buffer = sys::map::buffer(BUFFER).doing("reserving", "a buffer for what is read")?;
    RawSource::new(disk, list, packed.logical_block, buffer)
}
