//! CRC-32 as gzip, zip and GPT have it (ISO 3309, polynomial 0xEDB88320 reflected).
//!
//! By the processor's own instructions where it has them, else by eight tables of 1 KiB, built at first use: they cost
//! .bss and no file. CRCs of neighbouring ranges can be combined,
//! so that one pass over the bytes gives the CRC of each chunk and that of each gzip member.

use crate::sys::crc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Once;

const POLYNOMIAL: u32 = 0xedb8_8320;

type Table = [AtomicU32; 256];

/// Zeros in the file's .bss until they are built; atomics only because a static that changes must be.
static TABLES: [Table; 8] = [const { [const { AtomicU32::new(0) }; 256] }; 8];
static BUILT: Once = Once::new();

fn tables() -> &'static [Table; 8] {
    BUILT.call_once(|| {
        for (byte, entry) in (0..).zip(&TABLES[0]) {
            let mut value: u32 = byte;
            for _ in 0..8 {
                value = (value >> 1) ^ (POLYNOMIAL & (value & 1).wrapping_neg());
            }
            entry.store(value, Relaxed);
        }
        for [before, table] in TABLES.array_windows() {
            for (entry, previous) in table.iter().zip(before) {
                let previous = previous.load(Relaxed);
                entry.store((previous >> 8) ^ at(&TABLES[0], previous), Relaxed);
            }
        }
    });
    &TABLES
}

fn at(table: &Table, value: u32) -> u32 {
    table[(value & 0xff) as usize].load(Relaxed)
}

/// The CRC-32 of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    extend(0, bytes)
}

/// The CRC-32 of a range whose CRC-32 is `crc`, followed by `bytes`.
pub fn extend(crc: u32, bytes: &[u8]) -> u32 {
    let (state, rest) = crc::extend(!crc, bytes);
    !by_tables(state, rest)
}

fn by_tables(mut state: u32, bytes: &[u8]) -> u32 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tables();
    let (words, rest) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in words {
        let low = state ^ u32::from_le_bytes([a, b, c, d]);
        let high = u32::from_le_bytes([e, f, g, h]);
        state = at(t7, low)
            ^ at(t6, low >> 8)
            ^ at(t5, low >> 16)
            ^ at(t4, low >> 24)
            ^ at(t3, high)
            ^ at(t2, high >> 8)
            ^ at(t1, high >> 16)
            ^ at(t0, high >> 24);
    }
    for &byte in rest {
        state = (state >> 8) ^ at(t0, state ^ u32::from(byte));
    }
    state
}

/// The CRC-32 of two neighbouring ranges, from the CRC of each and the length of the second in bytes.
///
/// Appending n zero bytes multiplies the polynomial by x^(8n); the rest is addition.
pub fn combine(first: u32, second: u32, second_length: u64) -> u32 {
    multiply(power_of_x(second_length), first) ^ second
}

/// The CRC-32 of `length` zero bytes.
pub fn of_zeros(length: u64) -> u32 {
    !multiply(power_of_x(length), !0)
}

/// x^(8 · bytes) modulo the polynomial, in reflected form (bit 31 is x^0).
fn power_of_x(bytes: u64) -> u32 {
    let mut result = 1 << 31;
    let mut square = 1 << 23; // x^8
    let mut left = bytes;
    while left != 0 {
        if left & 1 != 0 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        left >>= 1;
    }
    result
}

/// a · b modulo the polynomial, both in reflected form.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn instructions_and_tables_agree_at_any_length_and_place() {
        let mut random = 1u32;
        let bytes = std::iter::repeat_with(|| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        });
        let bytes: Vec<u8> = bytes.take(5000).collect();
        let mut by_instructions = false;
        for start in 0..17 {
            for length in (0..400).chain([1000, 4095, 4096, 4983]) {
                let piece = &bytes[start..start + length];
                let crc = (start * length) as u32;
                assert_eq!(extend(crc, piece), !by_tables(!crc, piece), "{length} at {start}");
                by_instructions |= crc::extend(crc, piece).1.len() < length;
            }
        }
        // Whoever runs this on a processor that has them must have tested them.
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let has = |name: &str| told.split_whitespace().any(|word| word == name);
        assert_eq!(by_instructions, has("crc32") || has("pclmulqdq") && has("sse4_1"));
    }

    #[test]
    fn extending_equals_one_pass() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7 + i / 13) as u8).collect();
        for cut in [0, 1, 7, 8, 9, 1000, 4999, 5000] {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(extend(crc32(first), second), crc32(&bytes));
        }
    }

    #[test]
    fn combining_equals_one_pass() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i * 31 + i / 7) as u8).collect();
        for cut in [0, 1, 8, 4096, 65_536, 70_000] {
            let (first, second) = bytes.split_at(cut);
            let combined = combine(crc32(first), crc32(second), second.len() as u64);
            assert_eq!(combined, crc32(&bytes));
        }
    }

    #[test]
    fn zeros_without_looking_at_them() {
        for length in [0, 1, 512, 1 << 20] {
            assert_eq!(of_zeros(length as u64), crc32(&vec![0; length]));
        }
    }
}
