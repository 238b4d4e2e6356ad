//! The bytes of a block device, for those who read tables and file systems. Reads only.

use crate::disk::reader::ReadAt;
use crate::error::{Doing, Error};
use crate::files;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// An open block device.
pub struct DeviceReader<'a> {
    file: OwnedFd,
    path: &'a str,
}

impl<'a> DeviceReader<'a> {
    /// Opens the device at `path`.
    pub fn open(path: &'a str) -> Result<Self, Error> {
        Ok(Self { file: files::opened(path, OFlags::RDONLY)?, path })
    }
}

impl ReadAt for DeviceReader<'_> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let wanted = buffer.len();
        let count = rustix::io::pread(&self.file, buffer, offset).doing("reading", self.path)?;
        if count == wanted {
            Ok(())
        } else {
            Err(Error::refused("reading", self.path, "it is too small"))
        }
    }
}
