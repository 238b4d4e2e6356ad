//! The SHA-256 of an image file (FIPS 180-4), taken while the file is read for another purpose.
//!
//! Whoever decodes a file reads it forward, but not all of it: neither the directory of an archive nor what lies behind
//! the last member. And it goes back, to read again. What comes in order is hashed as it comes, the rest at the end.

use super::source::Source;
use crate::error::Error;
use crate::text::{Text, Writer};
use sha2::{Digest as _, Sha256};
use ufmt::uWrite;

/// How much of what was left out is read at once, in bytes.
const PIECE: usize = 4096;

/// A digest in hexadecimal digits, in lower case.
pub type Hex = Text<64>;

/// The digest of a file as far as it has come.
#[derive(Default)]
pub struct Digest {
    hash: Sha256,
    done: u64,
}

impl Digest {
    /// Takes in what was read at `offset`, as far as it follows on what has come before.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) {
        let Some(known) = self.done.checked_sub(offset) else {
            return;
        };
        let new = usize::try_from(known).ok().and_then(|known| bytes.get(known..));
        self.hash.update(new.unwrap_or_default());
        self.done += new.map_or(0, <[u8]>::len) as u64;
    }

    /// Reads what is left of `source`, and gives the digest of all of it.
    pub fn finish(&mut self, source: &dyn Source) -> Result<Hex, Error> {
        let mut piece = [0; PIECE];
        while self.done < source.length() {
            let wanted = (source.length() - self.done).min(PIECE as u64) as usize;
            let count = source.read_at(self.done, piece.get_mut(..wanted).unwrap_or_default())?;
            if count == 0 {
                break;
            }
            self.take(self.done, piece.get(..count).unwrap_or_default());
        }
        Ok(hexadecimal(&core::mem::take(self).hash.finalize()))
    }
}

fn hexadecimal(bytes: &[u8]) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Text::build(&mut |writer: &mut Writer| {
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                let digit = DIGITS.get(usize::from(digit)).copied().unwrap_or_default();
                writer.write_str(char::from(digit).encode_utf8(&mut [0; 4]))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// What `sha256sum` says of "abc" (FIPS 180-4, example B.1), and of a million times "a" (B.3).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const MILLION: &str = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

    #[test]
    fn the_digests_of_the_standard() {
        for (bytes, digest) in [(b"abc".to_vec(), ABC), (vec![b'a'; 1_000_000], MILLION)] {
            assert_eq!(&*Digest::default().finish(&bytes).unwrap(), digest);
        }
    }

    /// A file that counts what is read of it.
    struct Counting<'a>(&'a Vec<u8>, Cell<usize>);

    impl Source for Counting<'_> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
            let count = self.0.read_at(offset, buffer)?;
            self.1.set(self.1.get() + count);
            Ok(count)
        }
        fn length(&self) -> u64 {
            self.0.length()
        }
    }

    #[test]
    fn in_whatever_order_a_file_is_read_its_digest_is_that_of_all_of_it() {
        let file: Vec<u8> =
            (0..100_000u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
        let expected = Digest::default().finish(&file).unwrap();
        let mut state = 7u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..50 {
            let mut digest = Digest::default();
            let mut front = 0;
            for _ in 0..random(60) {
                // Anywhere, or close to where the last piece in order ended, before or behind it.
                let offset = match random(3) {
                    0 => random(file.len()),
                    _ => (front + random(200)).saturating_sub(100).min(file.len()),
                };
                let end = (offset + random(5000)).min(file.len());
                digest.take(offset as u64, &file[offset..end]);
                front = end;
            }
            assert_eq!(digest.finish(&file).unwrap(), expected);
        }
    }

    #[test]
    fn what_was_read_in_order_is_not_read_again() {
        let file = vec![5; 50_000];
        let mut digest = Digest::default();
        digest.take(0, &file[..20_000]);
        digest.take(10_000, &file[10_000..30_000]);
        digest.take(40_000, &file[40_000..]);
        let counting = Counting(&file, Cell::new(0));
        let found = digest.finish(&counting).unwrap();
        assert_eq!(counting.1.get(), 20_000);
        assert_eq!(found, Digest::default().finish(&file).unwrap());
    }
}
