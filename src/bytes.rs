//! Numbers in the bytes of other people's formats.

/// The number of `N` bytes, little-endian, at `at`; 0 beyond the end.
pub fn little_endian<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    field.map_or(0, |field| field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
