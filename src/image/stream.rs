//! Where in an image file the image lies, and how it is packed there.

/// A kind of image file that can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The disk's bytes as they are: the file itself, or the stored entry of a zip archive.
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
    /// For what is in a zip archive, the CRC-32 that its directory promises for the image; else 0.
    pub promised_crc: u32,
    /// For what is in a zip archive, the length that its directory promises for the image; else 0.
    pub promised_length: u64,
}
