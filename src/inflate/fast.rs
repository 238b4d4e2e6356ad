//! The loop that nearly all of the time goes into.
//!
//! As in libdeflate: bits are taken a word at a time, up to three literals without looking for more bits, copies in
//! words that may go beyond their end. What makes that safe is room in the input and the output for all that one
//! round can take, asked for once a round.

use super::table::{DISTANCE_BITS, END, EXCEPTION, LENGTH_BITS, LENGTHS, LITERAL, SUBTABLE};
use super::{Inflate, Input, Status};

/// Bits in a word of the processor.
const WORD: u32 = usize::BITS;
/// What one round reads at most, in bytes: a word each time that it takes bits.
const INPUT: usize = 4 * size_of::<usize>();
/// What one round writes at most: three literals, the longest copy, and the rest of its last word.
const OUTPUT: usize = 3 + 258 + COPY;
/// How much is copied at once, in bytes.
const COPY: usize = 8;

/// There is room for a round.
pub fn has_room(input: &Input, output: &[u8], at: usize) -> bool {
    // Bits that were taken one by one are given back first.
    input.bytes.len() - input.position + input.count as usize / 8 > INPUT
        && output.len() - at > OUTPUT
}

/// The bits, in a register.
struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    bits: usize,
    count: u32,
}

impl Bits<'_> {
    /// Takes as many as the word has place for in whole bytes; of the byte that is not whole the bits are there, but
    /// not counted.
    #[inline(always)]
    fn fill(&mut self) {
        let word = self.bytes.get(self.position..).and_then(<[u8]>::first_chunk);
        self.bits |= word.map_or(0, |word| usize::from_le_bytes(*word)).wrapping_shl(self.count);
        self.position += ((WORD - 1 - self.count) >> 3) as usize;
        self.count |= WORD - 8;
    }

    #[inline(always)]
    fn skip(&mut self, entry: u32) {
        self.bits = self.bits.wrapping_shr(entry);
        self.count -= entry & 63;
    }

    #[inline(always)]
    fn low(&self, count: u32) -> usize {
        self.bits & ((1 << count) - 1)
    }

    /// The entry of a literal or length that the next bits begin with, after as many as there is place for were taken.
    #[inline(always)]
    fn next_entry(&mut self, lengths: &[u32; LENGTHS]) -> u32 {
        self.fill();
        at(lengths, self.low(LENGTH_BITS))
    }

    /// The base of an entry, and what the bits behind its code add to it; skips them.
    #[inline(always)]
    fn value(&mut self, entry: u32) -> usize {
        let extra = self.low(entry & 63).wrapping_shr(entry >> 8 & 15);
        self.skip(entry);
        (entry >> 16) as usize + extra
    }
}

#[inline(always)]
fn at<const N: usize>(table: &[u32; N], index: usize) -> u32 {
    table.get(index).copied().unwrap_or(EXCEPTION)
}

/// Writes the literal of an entry.
#[inline(always)]
fn put(output: &mut [u8], to: usize, entry: u32) {
    if let Some(place) = output.get_mut(to) {
        *place = (entry >> 16) as u8;
    }
}

/// Copies in words, and beyond the end; there is room for that.
#[inline(always)]
fn copy(output: &mut [u8], at: usize, distance: usize, length: usize) {
    let load = |output: &[u8], from: usize| -> u64 {
        let word = output.get(from..).and_then(<[u8]>::first_chunk);
        word.map_or(0, |word| u64::from_le_bytes(*word))
    };
    let store = |output: &mut [u8], to: usize, word: u64| {
        if let Some(place) = output.get_mut(to..).and_then(<[u8]>::first_chunk_mut) {
            *place = word.to_le_bytes();
        }
    };
    let (mut from, mut to, end) = (at - distance, at, at + length);
    if distance == 1 {
        // A run of one byte.
        let word = u64::from_le_bytes([output.get(from).copied().unwrap_or(0); 8]);
        while to < end {
            store(output, to, word);
            to += COPY;
        }
        return;
    }
    // Where the source reaches into what is being written, as much of each word is right as the two are apart.
    let step = distance.min(COPY);
    while to < end {
        let word = load(output, from);
        store(output, to, word);
        from += step;
        to += step;
    }
}

impl Inflate {
    /// Symbols as long as there is room for a round.
    pub(crate) fn fast_symbols(
        &mut self,
        input: &mut Input,
        output: &mut [u8],
        place: &mut usize,
    ) -> Result<(), Status> {
        input.give_back();
        let Input { bytes, position, bits, count } = *input;
        let mut bits = Bits { bytes, position, bits: bits as usize, count };
        let mut to = *place;
        let mut result = Ok(());
        let end = bytes.len().saturating_sub(INPUT);
        let full = output.len().saturating_sub(OUTPUT);
        if bits.position >= end {
            return Ok(());
        }
        // The next entry is looked up before a copy: the processor does both at once.
        let mut next = bits.next_entry(&self.lengths);
        while bits.position < end && to < full {
            let mut entry = next;
            // As many as a word has bits for, when each takes those of the root.
            let mut literals = if WORD == 64 { 3 } else { 1 };
            while entry & LITERAL != 0 && literals > 0 {
                bits.skip(entry);
                put(output, to, entry);
                to += 1;
                literals -= 1;
                entry = at(&self.lengths, bits.low(LENGTH_BITS));
            }
            if WORD == 32 {
                bits.fill();
            }
            if entry & SUBTABLE != 0 {
                bits.skip(LENGTH_BITS);
                entry = at(&self.lengths, (entry >> 16) as usize + bits.low(entry >> 8 & 15));
            }
            if entry & LITERAL != 0 {
                bits.skip(entry);
                put(output, to, entry);
                to += 1;
                next = bits.next_entry(&self.lengths);
                continue;
            }
            if entry & EXCEPTION != 0 {
                result = if entry & END != 0 { Ok(()) } else { Err(Status::Broken) };
                bits.skip(entry);
                self.end_block();
                break;
            }
            let length = bits.value(entry);
            bits.fill();
            let mut entry = at(&self.distances, bits.low(DISTANCE_BITS));
            if entry & SUBTABLE != 0 {
                bits.skip(DISTANCE_BITS);
                entry = at(&self.distances, (entry >> 16) as usize + bits.low(entry >> 8 & 15));
            }
            if WORD == 32 {
                bits.fill();
            }
            let distance = bits.value(entry);
            if entry & EXCEPTION != 0 || distance > to {
                result = Err(Status::Broken);
                break;
            }
            next = bits.next_entry(&self.lengths);
            copy(output, to, distance, length);
            to += length;
        }
        *place = to;
        input.position = bits.position;
        input.bits = bits.bits as u64 & ((1 << bits.count) - 1);
        input.count = bits.count;
        result
    }
}
