//! The loop that nearly all of the time goes into.
//!
//! As in libdeflate: bits are taken a word at a time, up to three literals without looking for more bits, copies in
//! words that may go beyond their end. What makes that safe is room in the input and the output for all that one
//! round can take, asked for once a round.

use super::table::{DISTANCE_BITS, END, EXCEPTION, LENGTH_BITS, LENGTHS, LITERAL, SUBTABLE};
use super::{Inflate, Input, Status};

/// Bits in a word of the processor.
const WORD: u32 = usize::BITS;
/// The part of an entry that says how many bits are used: fewer than a word has, which leaves nothing to check in
/// shifts.
const USED: u32 = WORD - 1;
/// What one round reads at most, in bytes: a word each time that it takes bits.
const INPUT: usize = 4 * size_of::<usize>();
/// What one round writes at most: three literals, the longest copy, and the rest of its last word.
const OUTPUT: usize = 3 + 258 + COPY;
/// The bits of a literal or length: the longest code, and what is added to its base.
const MOST_OF_LENGTH: u32 = 15 + 5;
/// The same of a distance that the root has.
const MOST_OF_DISTANCE: u32 = DISTANCE_BITS + 13;
/// How much is copied at once, in bytes.
const COPY: usize = 8;

/// There is room for a round.
pub fn has_room(input: &Input, output: &[u8], at: usize) -> bool {
    // Bits that were taken one by one are given back first.
    input.bytes.len() - input.position + input.count as usize / 8 > INPUT
        && output.len() - at > OUTPUT
}

/// The bits, in a register, and the bytes behind them.
struct Bits<'a> {
    rest: &'a [u8],
    bits: usize,
    count: u32,
}

impl Bits<'_> {
    /// Takes as many as the word has place for in whole bytes; of the byte that is not whole the bits are there, but
    /// not counted.
    #[inline(always)]
    fn fill(&mut self) {
        let word = self.rest.first_chunk().map_or(0, |word| usize::from_le_bytes(*word));
        self.bits |= word.wrapping_shl(self.count);
        let taken = (!self.count & (WORD - 1)) >> 3;
        self.rest = self.rest.get(taken as usize..).unwrap_or_default();
        self.count |= WORD - 8;
    }

    /// Has at least so many. A word of 64 bits is filled whatever it has: a branch that cannot be foreseen costs more.
    #[inline(always)]
    fn need(&mut self, count: u32) {
        if WORD == 64 || self.count < count {
            self.fill();
        }
    }

    #[inline(always)]
    fn skip(&mut self, entry: u32) {
        self.bits = self.bits.wrapping_shr(entry);
        self.count -= entry & USED;
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
        let extra = self.low(entry & USED).wrapping_shr(entry >> 8 & 15);
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
    let Some((before, after)) = output.split_at_mut_checked(at) else {
        return;
    };
    let from = before.get(at - distance..).unwrap_or_default();
    let (from_words, _) = from.as_chunks::<COPY>();
    let (to_words, _) = after.as_chunks_mut::<COPY>();
    let count = length.div_ceil(COPY);
    if let (Some(from), Some(to)) = (from_words.get(..count), to_words.get_mut(..count)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    } else {
        copy_near(output, at, distance, length);
    }
}

/// The same where the source reaches into what is written.
fn copy_near(output: &mut [u8], at: usize, distance: usize, length: usize) {
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
        let word = [output.get(from).copied().unwrap_or(0); COPY];
        let run = output.get_mut(at..).unwrap_or_default().as_chunks_mut().0;
        let run = run.get_mut(..length.div_ceil(COPY)).unwrap_or_default();
        run.iter_mut().for_each(|place| *place = word);
        return;
    }
    // As much of each word is right as the two are apart.
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
        let rest = input.bytes.get(input.position..).unwrap_or_default();
        if rest.len() <= INPUT {
            return Ok(());
        }
        let mut bits = Bits { rest, bits: input.bits as usize, count: input.count };
        let mut to = *place;
        let mut result = Ok(());
        let full = output.len().saturating_sub(OUTPUT);
        // The next entry is looked up before a copy: the processor does both at once.
        let mut next = bits.next_entry(&self.lengths);
        while bits.rest.len() > INPUT && to < full {
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
            if WORD == 32 && entry & LITERAL == 0 {
                bits.need(MOST_OF_LENGTH);
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
            bits.need(MOST_OF_DISTANCE);
            let mut entry = at(&self.distances, bits.low(DISTANCE_BITS));
            if entry & SUBTABLE != 0 {
                bits.skip(DISTANCE_BITS);
                if WORD == 32 {
                    bits.fill();
                }
                entry = at(&self.distances, (entry >> 16) as usize + bits.low(entry >> 8 & 15));
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
        input.position = input.bytes.len() - bits.rest.len();
        input.bits = bits.bits as u64 & ((1 << bits.count) - 1);
        input.count = bits.count;
        result
    }
}
