//! A decoder of LZMA, for the texts and tables of an audited build (`sys/unpack.rs`).
//!
//! It runs before the program has its texts, so it may use no table, no text, and no constant that an instruction
//! cannot hold. LZMA needs none, and packs words a seventh smaller than deflate. The format is as its author describes
//! it (LZMA SDK, lzma-specification), with 3 bits of the byte before as the context of a literal and none of the
//! position, and without a header: `size-report/pack` says the same to the packer.

/// A probability of 0.5, in units of 1/2048.
const EVEN: u16 = 1024;
/// By how much a probability moves: by a 32nd of what is missing.
const PACE: u32 = 5;

// Where the probabilities of each kind begin.
const IS_MATCH: usize = 0;
const IS_OLD: usize = IS_MATCH + 12;
const IS_NOT_LAST: usize = IS_OLD + 12;
const IS_LONG: usize = IS_NOT_LAST + 12;
const IS_NOT_SECOND: usize = IS_LONG + 12;
const IS_FOURTH: usize = IS_NOT_SECOND + 12;
const SLOTS: usize = IS_FOURTH + 12;
const DISTANCES: usize = SLOTS + 4 * 64;
const LOW_BITS: usize = DISTANCES + 115;
const LENGTHS: usize = LOW_BITS + 16;
const OLD_LENGTHS: usize = LENGTHS + LENGTHS_OF_A_KIND;
const LENGTHS_OF_A_KIND: usize = 2 + 8 + 8 + 256;
const LITERALS: usize = OLD_LENGTHS + LENGTHS_OF_A_KIND;
const ALL: usize = LITERALS + 8 * 0x300;

/// Unpacks as many bytes as there is room for; whether there were as many.
pub fn unpack(packed: &[u8], to: &mut [u8]) -> bool {
    Decoder::new(packed).fill(to)
}

/// A range decoder with its probabilities. What is wrong in what is packed gives wrong bytes, or none.
struct Decoder<'a> {
    packed: &'a [u8],
    range: u32,
    code: u32,
    odds: [u16; ALL],
    /// What came last: below 7 a literal, else a match of one kind or another.
    state: usize,
    /// How far back the last four matches were, less one.
    distances: [usize; 4],
}

impl<'a> Decoder<'a> {
    fn new(packed: &'a [u8]) -> Self {
        let mut decoder = Self {
            packed,
            range: u32::MAX,
            code: 0,
            odds: [EVEN; ALL],
            state: 0,
            distances: [0; 4],
        };
        // The first of them is always 0.
        for _ in 0..5 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        let next = match self.packed.split_first() {
            Some((next, rest)) => {
                self.packed = rest;
                *next
            }
            None => 0,
        };
        self.code = self.code << 8 | u32::from(next);
    }

    fn normalise(&mut self) {
        if self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }

    /// One bit, by the probability of this number.
    #[inline(never)]
    fn bit(&mut self, number: usize) -> usize {
        self.normalise();
        let Some(odds) = self.odds.get_mut(number) else { return 0 };
        let bound = (self.range >> 11) * u32::from(*odds);
        if self.code < bound {
            self.range = bound;
            *odds += (2 * EVEN - *odds) >> PACE;
            0
        } else {
            self.range -= bound;
            self.code -= bound;
            *odds -= *odds >> PACE;
            1
        }
    }

    /// So many bits, all as probable as not.
    fn even_bits(&mut self, count: usize) -> usize {
        let mut number = 0;
        for _ in 0..count {
            self.normalise();
            self.range >>= 1;
            let is_one = self.code >= self.range;
            if is_one {
                self.code -= self.range;
            }
            number = number << 1 | usize::from(is_one);
        }
        number
    }

    /// Bits by a tree of probabilities from `base` on, the highest first; with a 1 in front of them.
    fn tree(&mut self, base: usize, count: usize) -> usize {
        let mut number = 1;
        for _ in 0..count {
            number = number << 1 | self.bit(base + number);
        }
        number
    }

    /// The same, the lowest first, and without the 1.
    fn tree_from_below(&mut self, base: usize, count: usize) -> usize {
        let (mut node, mut number) = (1, 0);
        for place in 0..count {
            let bit = self.bit(base + node);
            node = node << 1 | bit;
            number |= bit << place;
        }
        number
    }

    /// How long a match is.
    #[inline(never)]
    fn length(&mut self, base: usize) -> usize {
        if self.bit(base) == 0 {
            self.tree(base + 2, 3) - 8 + 2
        } else if self.bit(base + 1) == 0 {
            self.tree(base + 10, 3) - 8 + 10
        } else {
            self.tree(base + 18, 8) - 256 + 18
        }
    }

    /// How far back a match of this length is, less one.
    fn distance(&mut self, length: usize) -> usize {
        let slot = self.tree(SLOTS + 64 * (length - 2).min(3), 6) - 64;
        if slot < 4 {
            return slot;
        }
        let count = (slot >> 1) - 1;
        let base = (2 | slot & 1) << count;
        if slot < 14 {
            return base + self.tree_from_below(DISTANCES + base - slot, count);
        }
        let high = self.even_bits(count - 4) << 4;
        base.wrapping_add(high).wrapping_add(self.tree_from_below(LOW_BITS, 4))
    }

    /// A byte by itself. Behind a match, `expected` is the byte that does not follow here: it would be in the match.
    fn literal(&mut self, before: u8, expected: Option<u8>) -> u8 {
        let base = LITERALS + 0x300 * usize::from(before >> 5);
        let mut number = 1;
        if let Some(expected) = expected {
            let mut expected = usize::from(expected);
            while number < 0x100 {
                let expects = expected >> 7 & 1;
                expected <<= 1;
                let bit = self.bit(base + ((1 + expects) << 8) + number);
                number = number << 1 | bit;
                if bit != expects {
                    break;
                }
            }
        }
        while number < 0x100 {
            number = number << 1 | self.bit(base + number);
        }
        number as u8
    }

    /// The length of a match; its distance is the first of the distances then.
    fn matched(&mut self) -> usize {
        let state = self.state;
        let was_literal = state < 7;
        let [last, second, third, fourth] = self.distances;
        if self.bit(IS_OLD + state) == 0 {
            self.state = if was_literal { 7 } else { 10 };
            let length = self.length(LENGTHS);
            self.distances = [self.distance(length), last, second, third];
            return length;
        }
        if self.bit(IS_NOT_LAST + state) == 0 {
            if self.bit(IS_LONG + state) == 0 {
                self.state = if was_literal { 9 } else { 11 };
                return 1;
            }
        } else if self.bit(IS_NOT_SECOND + state) == 0 {
            self.distances = [second, last, third, fourth];
        } else if self.bit(IS_FOURTH + state) == 0 {
            self.distances = [third, last, second, fourth];
        } else {
            self.distances = [fourth, last, second, third];
        }
        self.state = if was_literal { 8 } else { 11 };
        self.length(OLD_LENGTHS)
    }

    fn fill(&mut self, to: &mut [u8]) -> bool {
        let mut done = 0;
        while done < to.len() {
            let [last, ..] = self.distances;
            if self.bit(IS_MATCH + self.state) == 0 {
                let expected = if self.state < 7 { None } else { back(to, done, last) };
                let literal = self.literal(back(to, done, 0).unwrap_or(0), expected);
                put(to, &mut done, literal);
                self.state -=
                    if self.state < 4 { self.state } else { 3 + 3 * usize::from(self.state >= 10) };
                continue;
            }
            let length = self.matched();
            for _ in 0..length.min(to.len() - done) {
                let Some(byte) = back(to, done, self.distances[0]) else { return false };
                put(to, &mut done, byte);
            }
        }
        // The packer ends what it packed, so all of it was needed.
        true
    }
}

/// The byte this far back, less one, from where the next one goes.
fn back(bytes: &[u8], next: usize, distance: usize) -> Option<u8> {
    bytes.get(next.checked_sub(distance)?.checked_sub(1)?).copied()
}

fn put(bytes: &mut [u8], next: &mut usize, byte: u8) {
    if let Some(place) = bytes.get_mut(*next) {
        *place = byte;
    }
    *next += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packed by the LZMA of another author, with literals behind matches, runs, old distances and new ones.
    const PACKED: [u8; 131] = *b"\
        \x00\x3a\x1a\xda\x05\x20\x1d\xbe\x5e\x70\xd3\x1b\x73\xe7\x16\x72\x69\x0e\x1d\x62\x46\xa9\xaa\x56\
        \x4b\xec\xaf\xbe\xef\xd4\x59\x0e\xce\x8d\xfa\xc9\xa3\xf1\xa0\xc0\x52\xc1\x9e\xda\xa9\x67\x24\x7e\
        \xc6\x56\xb6\xa1\xae\xc6\xc8\xe6\x94\x8a\x0e\xd0\xdc\x50\x50\x3f\xc0\xb8\xfe\x78\x8a\x70\x6a\x26\
        \x48\xef\x93\x63\xb5\xae\xac\x2e\xd0\xfe\x3e\x50\x00\x58\x34\xbc\x1b\xcc\xde\x7a\xdb\xcc\xe0\x22\
        \x11\xd1\x51\xbf\x4c\x6a\x29\x38\x82\xfa\xd9\xde\xf3\x0a\xe7\x15\xa7\x03\xcb\x6e\x51\xcb\x65\x82\
        \xab\xa2\x63\x11\x50\x52\xff\xe6\x14\x79\x80";

    fn text() -> Vec<u8> {
        let line = "the disk is the disk; the disk was not the disk: nothing was changed, nothing was written\n";
        let mut text = line.repeat(3).into_bytes();
        text.extend(0..64);
        text.extend([0; 300]);
        text.extend(b"the disk was not");
        text
    }

    #[test]
    fn what_was_packed_comes_back() {
        let mut unpacked = [0xff; 650];
        assert!(unpack(&PACKED, &mut unpacked));
        assert_eq!(unpacked, *text());
    }

    #[test]
    fn what_is_broken_ends_without_a_panic() {
        for (place, bit) in (0..PACKED.len()).flat_map(|place| (0..8).map(move |bit| (place, bit)))
        {
            let mut broken = PACKED;
            broken[place] ^= 1 << bit;
            unpack(&broken, &mut [0; 650]);
        }
        for length in 0..PACKED.len() {
            unpack(&PACKED[..length], &mut [0; 2000]);
        }
        // A match in front of everything.
        assert!(!unpack(&[0, 0xff, 0xff, 0xff, 0xff, 0xff], &mut [0; 10]));
    }
}
