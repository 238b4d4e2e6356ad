//! The header of a block (RFC 1951, section 3.2.3), with its codes (3.2.6 and 3.2.7).

use super::table::{self, DISTANCE_BITS, LENGTH_BITS};
use super::{Inflate, Input, State, Status, Symbol};

/// In which order the lengths of the code of lengths stand.
const ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// The longest code of a length, in bits.
const CODE_BITS: u32 = 7;
/// The most lengths that a header has: 286 and 30, and room for a last run that is too long.
const MOST: usize = 288 + 32;

impl Inflate {
    /// Reads it whole, or leaves the input where it was.
    pub(crate) fn read_header(&mut self, input: &mut Input) -> Result<(), Status> {
        input.give_back();
        let before = (input.position, input.bits, input.count);
        let result = self.read_whole_header(input);
        if result == Err(Status::Input) {
            (input.position, input.bits, input.count) = before;
        }
        result
    }

    fn read_whole_header(&mut self, input: &mut Input) -> Result<(), Status> {
        let start = input.take(3).ok_or(Status::Input)?;
        self.is_last = start & 1 != 0;
        match start >> 1 {
            0 => {
                input.fill();
                input.skip(input.count % 8);
                let length = input.take(16).ok_or(Status::Input)?;
                if input.take(16).ok_or(Status::Input)? != !length & 0xffff {
                    return Err(Status::Broken);
                }
                self.state = State::Stored(length as usize);
                Ok(())
            }
            1 => {
                let mut lengths = [8; MOST];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                lengths[288..].fill(5);
                self.take_codes(&lengths, 288)
            }
            2 => self.read_codes(input),
            _ => Err(Status::Broken),
        }
    }

    fn read_codes(&mut self, input: &mut Input) -> Result<(), Status> {
        let sizes = input.take(14).ok_or(Status::Input)?;
        let lengths = 257 + (sizes & 31) as usize;
        let distances = 1 + (sizes >> 5 & 31) as usize;
        if lengths > 286 || distances > 30 {
            return Err(Status::Broken);
        }
        let mut code = [0; ORDER.len()];
        for place in ORDER.iter().take(4 + (sizes >> 10) as usize) {
            code[usize::from(*place)] = input.take(3).ok_or(Status::Input)? as u8;
        }
        let mut table = [0; 1 << CODE_BITS];
        // This one has to be complete, even with a single symbol.
        let is_whole = code.iter().map(|length| 128 >> length & 127).sum::<u32>() == 128;
        if !is_whole || !table::build(&mut table, CODE_BITS, &code, table::number) {
            return Err(Status::Broken);
        }
        let mut all = [0; MOST];
        read_lengths(input, &table, all.get_mut(..lengths + distances).unwrap_or_default())?;
        // A block without an end.
        if all[256] == 0 {
            return Err(Status::Broken);
        }
        self.take_codes(all.get(..lengths + distances).unwrap_or_default(), lengths)
    }

    /// Fills the tables; the first `count` lengths are those of literals and lengths, the others of distances.
    fn take_codes(&mut self, all: &[u8], count: usize) -> Result<(), Status> {
        let (lengths, distances) = all.split_at(count);
        let is_good = table::build(&mut self.lengths, LENGTH_BITS, lengths, table::length)
            && table::build(&mut self.distances, DISTANCE_BITS, distances, table::distance);
        self.state = State::Symbols;
        if is_good { Ok(()) } else { Err(Status::Broken) }
    }
}

/// The lengths themselves, in which 16 repeats the one before, and 17 and 18 are runs of zeros.
fn read_lengths(input: &mut Input, table: &[u32], all: &mut [u8]) -> Result<(), Status> {
    let mut done = 0;
    while done < all.len() {
        input.fill();
        let symbol = Symbol::of(table, CODE_BITS, input.bits);
        if symbol.bits > input.count {
            return Err(Status::Input);
        }
        input.skip(symbol.bits);
        let (length, count) = match symbol.value {
            length @ 0..=15 => (length as u8, 1),
            16 => {
                let before = done.checked_sub(1).and_then(|before| all.get(before).copied());
                let length = before.ok_or(Status::Broken)?;
                (length, 3 + input.take(2).ok_or(Status::Input)?)
            }
            17 => (0, 3 + input.take(3).ok_or(Status::Input)?),
            _ => (0, 11 + input.take(7).ok_or(Status::Input)?),
        };
        let end = done + count as usize;
        all.get_mut(done..end).ok_or(Status::Broken)?.fill(length);
        done = end;
    }
    Ok(())
}
