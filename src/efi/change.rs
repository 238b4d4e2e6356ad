//! What is changed of the boot entries of a firmware: which go, and which comes, first of all.
//!
//! Stage 1 makes it, and leaves it for stage 2 as bytes. An entry that goes is known again by its CRC: what has changed
//! meanwhile is another entry.

use super::load_option::{self, Bytes};
use crate::bytes::little_endian;
use crate::text::{Text, Writer};
use ufmt::uwrite;

/// The most entries that are removed.
pub const MOST: usize = 16;
/// The longest BootOrder that is read and written, in bytes: 512 entries.
pub const LONGEST_ORDER: usize = 1024;
/// The length of a change as bytes, at most.
pub const LONGEST: usize = RECORD * (1 + MOST) + load_option::LONGEST;

const RECORD: usize = 8;

/// An entry that goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// The number of its variable.
    pub number: u16,
    /// The CRC-32 of what [`super::variables::Variables::entry`] gives of it.
    pub crc: u32,
}

/// What is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The entries that go.
    pub gone: heapless::Vec<Gone, MOST>,
    /// The load option of the one that comes.
    pub option: Bytes,
}

impl Change {
    /// As bytes: how many go, each of them, and the load option.
    pub fn to_bytes(&self) -> heapless::Vec<u8, LONGEST> {
        let mut bytes = heapless::Vec::new();
        let count = self.gone.len() as u64;
        let records =
            self.gone.iter().map(|gone| u64::from(gone.number) << 32 | u64::from(gone.crc));
        for record in core::iter::once(count).chain(records) {
            // LONGEST is the sum of all that is put here.
            let _ = bytes.extend_from_slice(&record.to_le_bytes());
        }
        let _ = bytes.extend_from_slice(&self.option);
        bytes
    }

    /// From those bytes; nothing when they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let count = usize::try_from(little_endian::<RECORD>(bytes, 0)).ok()?;
        let records = bytes.get(RECORD..)?;
        let (records, option) = records.split_at_checked(count.checked_mul(RECORD)?)?;
        let mut gone = heapless::Vec::new();
        for record in records.chunks_exact(RECORD) {
            let (crc, number) = (little_endian::<4>(record, 0), little_endian::<4>(record, 4));
            gone.push(Gone { number: u16::try_from(number).ok()?, crc: crc as u32 }).ok()?;
        }
        load_option::parse(option)?;
        Some(Self { gone, option: Bytes::from_slice(option).ok()? })
    }
}

/// BootOrder with `first` before all others and without those that `is_gone` tells of; what it had twice, it has twice.
/// Nothing when it gets longer than [`LONGEST_ORDER`].
pub fn order(
    old: &[u8],
    first: u16,
    is_gone: &dyn Fn(u16) -> bool,
) -> Option<heapless::Vec<u8, LONGEST_ORDER>> {
    let mut new = heapless::Vec::new();
    new.extend_from_slice(&first.to_le_bytes()).ok()?;
    for number in old.chunks_exact(2) {
        let value = little_endian::<2>(number, 0) as u16;
        if value != first && !is_gone(value) {
            new.extend_from_slice(number).ok()?;
        }
    }
    Some(new)
}

/// The name of an entry's variable: `Boot` and four hexadecimal digits, A to F in capitals (section 3.3).
pub fn name_of(number: u16) -> Text<8> {
    Text::build(&mut |writer: &mut Writer| uwrite!(writer, "Boot{:04X}", number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_back_as_it_was() {
        let option = Bytes::from_slice(&load_option::tests::debian()).unwrap();
        let mut change = Change { gone: heapless::Vec::new(), option };
        for index in 0..=MOST as u32 {
            let bytes = change.to_bytes();
            assert_eq!(Change::from_bytes(&bytes).as_ref(), Some(&change));
            for length in 0..bytes.len() {
                assert_eq!(Change::from_bytes(&bytes[..length]), None);
            }
            let gone = Gone { number: u16::MAX - index as u16, crc: u32::MAX - index };
            let fits = change.gone.push(gone).is_ok();
            assert_eq!(fits, index < MOST as u32);
        }
        let mut bytes = change.to_bytes();
        bytes[0] = MOST as u8 + 1;
        assert_eq!(Change::from_bytes(&bytes), None);
        bytes[..8].fill(0xff);
        assert_eq!(Change::from_bytes(&bytes), None);
    }

    #[test]
    fn the_new_entry_is_first_and_what_is_gone_is_in_no_order() {
        let is_gone = |number| number == 1 || number == 0x1234;
        let order = |old: &[u8]| order(old, 0x0102, &is_gone).map(|order| order.to_vec());
        assert_eq!(order(&[]).unwrap(), [2, 1]);
        let old = [3, 0, 1, 0, 0x34, 0x12, 2, 1, 4, 0, 3, 0];
        assert_eq!(order(&old).unwrap(), [2, 1, 3, 0, 4, 0, 3, 0]);
        assert_eq!(order(&[3, 0, 9]).unwrap(), [2, 1, 3, 0], "half a number is none");
        assert_eq!(order(&[7; LONGEST_ORDER]), None);
        assert_eq!(order(&[7; LONGEST_ORDER - 2]).unwrap().len(), LONGEST_ORDER);
    }

    #[test]
    fn the_digits_of_a_name_are_capitals() {
        assert_eq!(&*name_of(0x0afe), "Boot0AFE");
        assert_eq!(&*name_of(0), "Boot0000");
    }
}
