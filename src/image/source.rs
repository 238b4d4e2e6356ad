//! Where the bytes of an image file are read from.

use crate::error::{Doing, Error};
use crate::files;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// Bytes that can be read at any place.
pub trait Source {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error>;
    /// The length in bytes.
    fn length(&self) -> u64;
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
