//! Where the bytes of an image file are read from: a file, a server by ranges, or a raw disk.

pub mod raw;

use crate::error::{Doing, Error};
use crate::files;
#[cfg(feature = "http")]
use crate::net::remote::Remote;
#[cfg(feature = "http")]
use core::cell::RefCell;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// Bytes that can be read at any place.
pub trait Source {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error>;
    /// The length in bytes.
    fn length(&self) -> u64;
    /// True for what is not on this device: to read it once more costs the network.
    fn is_remote(&self) -> bool {
        false
    }
    /// The same source for several threads, where nothing is lost by reading at two places at once: in memory.
    #[cfg(feature = "core")]
    fn in_memory(&self) -> Option<&(dyn Source + Sync)> {
        None
    }
    /// How many bytes are still to be fetched to this device, by somebody who says how far that is.
    fn to_come(&self) -> u64 {
        0
    }
    /// The image in it was decoded to its end, and is good: what else the file must be is checked now, and a file that
    /// was fetched meanwhile is kept.
    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
    /// It is no image, or not the one that was wanted: what was fetched is not kept.
    fn reject(&self) {}
}

/// A regular file.
pub struct FileSource {
    file: OwnedFd,
    length: u64,
}

impl FileSource {
    /// Opens a regular file for reading.
    pub fn open(path: &str) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = files::opened(path, flags)?;
        let status = rustix::fs::fstat(&file).doing("reading the status of", path)?;
        if !rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(Error::refused("opening", path, "it is not a regular file"));
        }
        Ok(Self { file, length: status.st_size.max(0) as u64 })
    }

    /// The open file.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.file
    }
}

impl Source for FileSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.file, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::os("reading", "the image file", errno)),
            }
        }
        Ok(filled)
    }

    fn length(&self) -> u64 {
        self.length
    }

    #[cfg(feature = "core")]
    fn in_memory(&self) -> Option<&(dyn Source + Sync)> {
        let status = rustix::fs::fstatfs(&self.file).ok()?;
        files::is_in_memory(&status).then_some(self)
    }
}

/// A file on a server, which is not stored: read by ranges, as often as it takes.
#[cfg(feature = "http")]
pub struct RemoteSource {
    remote: RefCell<Remote>,
    length: u64,
    /// What every look at a file begins with: kept, or to begin again would take another request.
    first: [u8; FIRST],
}

/// How much of a file tells its format, in bytes.
#[cfg(feature = "http")]
const FIRST: usize = 512;

#[cfg(feature = "http")]
impl RemoteSource {
    /// Takes a file that can be read anywhere and known again, and no other: it is read twice at least, and what is
    /// written must be what was scanned.
    pub fn new(remote: Remote) -> Result<Self, Error> {
        let validator = remote.validator();
        let why = if !remote.takes_ranges() {
            "the server gives no ranges of a file"
        } else if validator.tag.is_empty() && validator.modified.is_empty() {
            "the server does not tell when a file changes (ETag, Last-Modified)"
        } else {
            match remote.length() {
                Some(length) => return Self::begin(remote, length),
                None => "the server does not tell the length of the file",
            }
        };
        Err(Error::refused("reading", &remote.shown(), why)
            .advice("fetch it first (takeover -d), and give the file (-i FILE)"))
    }

    /// Takes a file of this length from any server, for whoever writes nothing of it: where there are no ranges it is
    /// read from its beginning for each look, and not on from where a connection broke.
    pub fn for_a_look(mut remote: Remote, length: u64) -> Result<Self, Error> {
        remote.do_without_proof();
        Self::begin(remote, length)
    }

    fn begin(mut remote: Remote, length: u64) -> Result<Self, Error> {
        let mut first = [0; FIRST];
        remote.read_at(0, &mut first)?;
        Ok(Self { remote: RefCell::new(remote), length, first })
    }
}

#[cfg(feature = "http")]
impl Source for RemoteSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let known = usize::try_from(offset).ok().and_then(|offset| self.first.get(offset..));
        let known = known.unwrap_or_default();
        let (front, rest) = buffer.split_at_mut(known.len().min(wanted));
        front.copy_from_slice(known.get(..front.len()).unwrap_or_default());
        // Behind the end a server would refuse the range.
        if rest.is_empty() {
            return Ok(front.len());
        }
        let count = self.remote.borrow_mut().read_at(offset + front.len() as u64, rest)?;
        Ok(front.len() + count)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[cfg(test)]
impl Source for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let start = (offset as usize).min(self.len());
        let count = buffer.len().min(self.len() - start);
        buffer[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }
    fn length(&self) -> u64 {
        self.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused() {
        for path in ["/dev/zero", "/", "/nowhere"] {
            assert!(FileSource::open(path).is_err(), "{path}");
        }
    }
}

#[cfg(all(test, feature = "http"))]
pub(crate) mod remote_tests;
