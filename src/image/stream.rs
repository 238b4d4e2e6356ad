//! Where in an image file the image lies, and how it is packed there.

/// A kind of image file that can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The disk's bytes as they are.
    Raw,
    /// One or more gzip members (RFC 1952).
    Gzip,
    /// The one deflated entry of a zip archive.
    Zip,
}

impl Format {
    /// The name that users know.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Gzip => "gzip",
            Format::Zip => "zip",
        }
    }
}

/// An image file's format, and the part of the file that holds the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// How the bytes are packed.
    pub format: Format,
    /// Where the packed bytes begin in the file.
    pub offset: u64,
    /// How many packed bytes there are.
    pub length: u64,
    /// For zip, the CRC-32 that the archive's directory promises for the image.
    pub promised_crc: u32,
    /// For zip, the length that the archive's directory promises for the image.
    pub promised_length: u64,
}
