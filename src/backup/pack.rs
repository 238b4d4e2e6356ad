//! gzip onto an open file: no name, no time, always the same level, so that the same bytes give the same file.

use crate::crc32;
use crate::error::{Doing, Error};
use crate::files;
use crate::text::{Size, Text};
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use rustix::fd::OwnedFd;

/// What gzip itself takes by default.
const LEVEL: i32 = 6;

/// RFC 1952: deflate, no flags, no time, no extra flags, Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

const OUTPUT: usize = 16 * 1024;

/// A gzip stream that is being written. Takes 330 KiB of heap, whatever its length.
pub struct Packer<'a> {
    file: &'a OwnedFd,
    compressor: CompressorOxide,
    buffer: Vec<u8>,
    crc: u32,
    length: u32,
    written: u64,
    limit: u64,
}

impl<'a> Packer<'a> {
    /// Begins a stream of at most `limit` bytes where the file stands.
    pub fn start(file: &'a OwnedFd, limit: u64) -> Result<Self, Error> {
        // Negative: without zlib's header and checksum. Strategy 0: the default one.
        let flags = create_comp_flags_from_zip_params(LEVEL, -15, 0);
        let mut packer = Self {
            file,
            compressor: CompressorOxide::new(flags),
            buffer: vec![0; OUTPUT],
            crc: 0,
            length: 0,
            written: 0,
            limit,
        };
        packer.write(&HEADER)?;
        Ok(packer)
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.crc = crc32::extend(self.crc, bytes);
        // RFC 1952 wants the length modulo 2^32.
        self.length = self.length.wrapping_add(bytes.len() as u32);
        self.deflate(bytes, TDEFLFlush::None)
    }

    /// Adds zero bytes.
    pub fn put_zeros(&mut self, mut count: u64) -> Result<(), Error> {
        let zeros = [0; 4096];
        while count > 0 {
            let piece = count.min(zeros.len() as u64);
            self.put(zeros.get(..piece as usize).unwrap_or_default())?;
            count -= piece;
        }
        Ok(())
    }

    /// Ends the stream and gives its length in bytes.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.deflate(&[], TDEFLFlush::Finish)?;
        self.write(&self.crc.to_le_bytes())?;
        self.write(&self.length.to_le_bytes())?;
        Ok(self.written)
    }

    fn deflate(&mut self, mut bytes: &[u8], flush: TDEFLFlush) -> Result<(), Error> {
        loop {
            let mut buffer = core::mem::take(&mut self.buffer);
            let (status, used, made) = compress(&mut self.compressor, bytes, &mut buffer, flush);
            let result = self.write(buffer.get(..made).unwrap_or_default());
            self.buffer = buffer;
            result?;
            bytes = bytes.get(used..).unwrap_or_default();
            match status {
                TDEFLStatus::Done => return Ok(()),
                TDEFLStatus::Okay if flush == TDEFLFlush::None && bytes.is_empty() => {
                    return Ok(());
                }
                TDEFLStatus::Okay if used > 0 || made > 0 => {}
                _ => return Err(Error::failed("packing", "the backup", "the packer is stuck")),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            let why: Text<120> = crate::text!("it is larger than {}, packed", Size(self.limit));
            return Err(Error::refused("writing", "the backup", &why)
                .advice("back up less: name smaller directories, or use filters"));
        }
        files::write_all(self.file, bytes).doing("writing", "the backup").map_err(|error| {
            error.advice("it has grown since it was counted, or there is too little memory")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn pack(limit: u64, pieces: &[&[u8]]) -> Result<Vec<u8>, Error> {
        let file = files::unnamed(std::env::temp_dir().to_str().unwrap()).unwrap();
        let mut packer = Packer::start(&file, limit)?;
        for piece in pieces {
            packer.put(piece)?;
        }
        let length = packer.finish()?;
        let mut bytes = vec![0; length as usize + 1];
        let count = std::fs::File::from(file).read_at(&mut bytes, 0).unwrap();
        assert_eq!(count as u64, length);
        bytes.truncate(count);
        Ok(bytes)
    }

    #[test]
    fn the_stream_is_gzip_and_its_trailer_is_right() {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let packed = pack(u64::MAX, &[&bytes[..10], &bytes[10..]]).unwrap();
        let (start, end) = (HEADER.len(), packed.len() - 8);
        let plain = miniz_oxide::inflate::decompress_to_vec(&packed[start..end]).unwrap();
        assert!(plain == bytes);
        assert_eq!(packed[end..end + 4], crc32::crc32(&bytes).to_le_bytes());
        assert_eq!(packed[end + 4..], 300_000u32.to_le_bytes());
    }

    #[test]
    fn nothing_is_written_beyond_the_limit() {
        let noise: Vec<u8> = (0..100_000u64).map(|i| ((i * i * i) >> 9) as u8).collect();
        let error = pack(5000, &[&noise]).unwrap_err();
        let shown: Text<400> = crate::text!("{}", error);
        assert!(shown.contains("larger than 5 KiB"), "{}", &*shown);
        assert_eq!(error.kind().exit_code(), 3);
        assert_eq!(pack(20, &[]).unwrap().len(), 20);
    }
}
