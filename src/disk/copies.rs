//! The file with the copies of a packed image that stays on its disk: what it is called, and how one is told from a
//! file of somebody else.

#[cfg(feature = "core")]
use crate::error::Error;
#[cfg(feature = "core")]
use crate::files;
#[cfg(feature = "core")]
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Stat};

/// What it is called, in the folder of the image file.
pub const COPIES: &str = ".takeover-copies";

/// True for a file that a takeover can have made.
pub fn is_copies(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode).is_file()
        && status.st_uid == 0
        && status.st_mode & 0o777 == 0o600
}

/// Opens the copies that an earlier takeover has left at `path`, if they are there; what is no such file is refused.
#[cfg(feature = "core")]
pub fn left(path: &str) -> Result<Option<OwnedFd>, Error> {
    use rustix::fs::OFlags;
    let found = match files::open(path, OFlags::NOFOLLOW | OFlags::NONBLOCK) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        found => found.ok(),
    };
    // With a second name it is somebody's, and removing this one would free nothing.
    let is_ours = |file: &OwnedFd| {
        rustix::fs::fstat(file).is_ok_and(|status| is_copies(&status) && status.st_nlink == 1)
    };
    let refuse = || Error::refused("making", path, "no takeover has made it");
    found.filter(is_ours).map(Some).ok_or_else(|| refuse().advice("move it away"))
}
