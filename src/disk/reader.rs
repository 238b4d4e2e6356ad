//! The bytes of a disk, for those who read tables and file systems: whatever is behind them.

use crate::error::Error;

/// Something that has the bytes of a disk.
pub trait ReadAt {
    /// Fills `buffer` from `offset`, or fails when the disk ends before.
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;

    /// A range of the disk that will be read again and again, as the table of a FAT: whoever can read forward only
    /// keeps it, instead of the range that was named before.
    fn keep(&mut self, _start: u64, _length: u64) -> Result<(), Error> {
        Ok(())
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &mut R {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        (**self).read_exact_at(offset, buffer)
    }
    fn keep(&mut self, start: u64, length: u64) -> Result<(), Error> {
        (**self).keep(start, length)
    }
}

#[cfg(test)]
impl ReadAt for Vec<u8> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        match rest.and_then(|rest| rest.get(..buffer.len())) {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => return Err(Error::refused("reading", "the test disk", "too short")),
        }
        Ok(())
    }
}
