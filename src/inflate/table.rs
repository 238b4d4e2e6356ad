//! Tables of codes: a root that a code's first bits look up, and behind it tables for the rest of those that are
//! longer.

/// How many bits the root of the table of literals and lengths takes.
pub const LENGTH_BITS: u32 = 10;
/// The same of distances.
pub const DISTANCE_BITS: u32 = 8;
/// The most entries that a table of literals and lengths can have: `enough 288 10 15` of zlib's examples.
pub const LENGTHS: usize = 1334;
/// The same of distances: `enough 32 8 15`.
pub const DISTANCES: usize = 402;
/// The longest code, in bits.
pub const LONGEST: usize = 15;

// An entry: how many bits are used in all (0 to 5), how many of them are the code (8 to 11), a base that the others are
// added to, or a literal, or where a table begins (16 to 30), and what it is.

/// A literal.
pub const LITERAL: u32 = 1 << 31;
/// Neither a literal nor a base: the end of a block, a further table, or no symbol at all.
pub const EXCEPTION: u32 = 1 << 15;
/// The rest of the code is looked up in a further table, by as many bits as 8 to 11 have it.
pub const SUBTABLE: u32 = 1 << 14;
/// The end of the block.
pub const END: u32 = 1 << 13;
/// No symbol has this code. It is known by its longest form.
const NONE: u32 = EXCEPTION | LONGEST as u32;

/// The entry of a literal or length without its code.
pub fn length(symbol: u32) -> u32 {
    match symbol {
        0..=255 => LITERAL | symbol << 16,
        256 => EXCEPTION | END,
        257..=264 => (symbol - 254) << 16,
        265..=284 => {
            let extra = (symbol - 261) / 4;
            (((4 + (symbol - 257) % 4) << extra) + 3) << 16 | extra
        }
        285 => 258 << 16,
        _ => EXCEPTION,
    }
}

/// The entry of a distance without its code.
pub fn distance(symbol: u32) -> u32 {
    match symbol {
        0..=3 => (symbol + 1) << 16,
        4..=29 => {
            let extra = symbol / 2 - 1;
            (((2 + symbol % 2) << extra) + 1) << 16 | extra
        }
        _ => EXCEPTION,
    }
}

/// The entry of a length of a code, which has nothing but its number.
pub fn number(symbol: u32) -> u32 {
    symbol << 16
}

/// Fills a table from how long the code of each symbol is, 0 for none; false when these lengths make no code.
pub fn build(table: &mut [u32], root: u32, lengths: &[u8], entry: fn(u32) -> u32) -> bool {
    let mut counts = [0u16; LONGEST + 1];
    for length in lengths {
        counts[usize::from(*length) & LONGEST] += 1;
    }
    counts[0] = 0;
    let mut left = 1i32;
    let mut starts = [0u16; LONGEST + 2];
    for (length, count) in counts.iter().enumerate().skip(1) {
        left = left * 2 - i32::from(*count);
        if left < 0 {
            return false;
        }
        starts[length + 1] = starts[length] + count;
    }
    let longest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    if left > 0 && longest > 1 {
        return false;
    }
    let mut sorted = [0u16; 288];
    for (symbol, length) in (0..).zip(lengths) {
        if *length > 0 {
            let place = &mut starts[usize::from(*length) & LONGEST];
            sorted[usize::from(*place)] = symbol;
            *place += 1;
        }
    }
    if left > 0 {
        table.fill(NONE);
    }
    fill(table, root, &sorted, &mut counts, longest, entry);
    true
}

fn fill(
    table: &mut [u32],
    root: u32,
    sorted: &[u16; 288],
    counts: &mut [u16; LONGEST + 1],
    longest: usize,
    entry: fn(u32) -> u32,
) {
    let mut symbols = sorted.iter();
    let mut code = 0u16;
    // Where the subtable begins that is being filled, how many bits it takes, what its codes begin with.
    let (mut start, mut bits, mut prefix) = (0, root, usize::MAX);
    let mut next = 1 << root;
    for length in 1..=longest {
        while counts[length] > 0 {
            let value = entry(u32::from(symbols.next().copied().unwrap_or(0)));
            let reversed = usize::from(code.reverse_bits() >> (16 - length));
            let mut used = length as u32;
            let mut index = reversed;
            if used > root {
                used -= root;
                index = reversed >> root;
                let low = reversed & ((1 << root) - 1);
                if low != prefix {
                    prefix = low;
                    start = next;
                    bits = bits_needed(used, root, counts, longest);
                    next += 1 << bits;
                    if let Some(place) = table.get_mut(low) {
                        *place = EXCEPTION | SUBTABLE | (start as u32) << 16 | bits << 8 | root;
                    }
                }
            }
            let value = if value == EXCEPTION { NONE } else { value + used + (used << 8) };
            let end = start + (1 << bits);
            let places = table.get_mut(start + index..end).unwrap_or_default();
            places.iter_mut().step_by(1 << used).for_each(|place| *place = value);
            counts[length] -= 1;
            code += 1;
        }
        code <<= 1;
    }
}

/// How many bits a subtable takes whose first code has `used` bits behind the root: until its codes are complete.
fn bits_needed(used: u32, root: u32, counts: &[u16; LONGEST + 1], longest: usize) -> u32 {
    let mut bits = used;
    let mut left = 1i32 << bits;
    while ((bits + root) as usize) < longest {
        left -= i32::from(counts[(bits + root) as usize]);
        if left <= 0 {
            break;
        }
        bits += 1;
        left <<= 1;
    }
    bits
}
