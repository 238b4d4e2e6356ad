//! Where image bytes come from, and what they are.
//!
//! Formats are told by content, never by name. Decoding is streaming and uses memory of fixed size; the scan decodes
//! the whole image once and leaves a [`map::ChunkMap`], by which everything that is written is proven later. This
//! room never writes to a disk.

pub mod decode;
pub mod digest;
pub mod format;
pub mod gzip;
pub mod map;
pub mod patches;
pub mod pieces;
pub mod reader;
pub mod scan;
pub mod source;
pub mod stream;
pub mod zip;

/// The unit of writing, verification and repair, in bytes. The first chunk holds every partition table and is
/// written last.
pub const CHUNK: usize = 1 << 20;

/// How many bytes chunk `index` of an image of `length` bytes has.
pub fn chunk_length(index: u32, length: u64) -> usize {
    let start = u64::from(index) * CHUNK as u64;
    length.saturating_sub(start).min(CHUNK as u64) as usize
}

/// True when every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Not `== [0; 64]`: that is a call of memcmp, which goes byte by byte where the program is built for size.
    let (blocks, rest) = bytes.as_chunks::<64>();
    let is_zero = |block: &[u8; 64]| {
        let (words, _) = block.as_chunks();
        words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
    };
    blocks.iter().all(is_zero) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_is_as_long_as_what_is_left() {
        assert_eq!(chunk_length(2, CHUNK as u64 * 2 + 512), 512);
        assert_eq!(chunk_length(1, CHUNK as u64 * 2 + 512), CHUNK);
        assert_eq!(chunk_length(3, CHUNK as u64 * 2 + 512), 0);
    }

    #[test]
    fn one_bit_makes_a_range_not_zero() {
        let mut bytes = vec![0; 1000];
        assert!(is_zero(&bytes));
        for position in [0, 63, 64, 999] {
            bytes[position] = 1;
            assert!(!is_zero(&bytes));
            bytes[position] = 0;
        }
    }
}
