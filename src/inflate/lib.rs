//! Inflate: deflate streams (RFC 1951) of any length, into buffers of the caller's, in memory of fixed size.
//!
//! Knows nothing of gzip or zip around them, allocates nothing, has no `unsafe`. It reads no further than the stream
//! goes: whoever calls is told to the byte what was used. A symbol, and the header of a block, is taken whole or not
//! at all, so that between two calls there is nothing to keep but a few bits, the tables, and a copy that the output
//! had no room for.
//!
//! What it takes and refuses is what zlib does: a code that is over-subscribed, or incomplete with more than one
//! symbol, is refused where it is defined, symbols without a code and distances before the start where they are used.

#![no_std]
#![forbid(unsafe_code)]

mod fast;
mod header;
mod table;

use table::{DISTANCES, DISTANCE_BITS, END, EXCEPTION, LENGTHS, LENGTH_BITS, LITERAL, SUBTABLE};

/// How a call of [`Inflate::inflate`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The stream has come to its end.
    Done,
    /// Nothing more can be made of the input: show what was not used of it again, with more behind it.
    Input,
    /// The output is full.
    Output,
    /// This is no deflate stream.
    Broken,
}

/// Where in the stream it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the header of a block.
    Header,
    /// In a block that is stored: so many bytes are left of it.
    Stored(usize),
    /// In a block of symbols.
    Symbols,
    /// A copy that the output had no room for.
    Copy { length: usize, distance: usize },
    /// Behind the end.
    End,
}

/// A stream, as far as it has been inflated. About 8 KiB.
pub struct Inflate {
    state: State,
    /// This block is the last one.
    is_last: bool,
    /// Fewer than eight bits of the last byte that was used.
    bits: u64,
    count: u32,
    lengths: [u32; LENGTHS],
    distances: [u32; DISTANCES],
}

/// The input of one call, and the bits that were taken from it and not used.
struct Input<'a> {
    bytes: &'a [u8],
    position: usize,
    bits: u64,
    count: u32,
}

impl Input<'_> {
    /// Takes bytes as long as there is place for their bits: 57 at least, but at the end of the input.
    // Not where time goes; inlined it is there four times.
    #[inline(never)]
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(byte) = self.bytes.get(self.position) else {
                return;
            };
            self.bits |= u64::from(*byte) << self.count;
            self.count += 8;
            self.position += 1;
        }
    }

    /// The next bits, up to 32; nothing when the input has fewer.
    fn take(&mut self, count: u32) -> Option<u32> {
        if self.count < count {
            self.fill();
            if self.count < count {
                return None;
            }
        }
        let taken = self.bits & ((1 << count) - 1);
        self.skip(count);
        Some(taken as u32)
    }

    fn skip(&mut self, count: u32) {
        self.bits >>= count;
        self.count -= count;
    }

    /// Gives back the bytes of which no bit was used.
    fn give_back(&mut self) {
        self.position -= self.count as usize / 8;
        self.count %= 8;
        self.bits &= (1 << self.count) - 1;
    }
}

/// What a code stands for.
struct Symbol {
    entry: u32,
    /// How many bits it has, those behind the code included.
    bits: u32,
    /// Its base and what those bits add.
    value: usize,
}

impl Symbol {
    /// The one that `bits` begin with, looked up in a table with a root of `root` bits.
    fn of(table: &[u32], root: u32, bits: u64) -> Self {
        let low = |bits: u64, count: u32| (bits & ((1 << count) - 1)) as usize;
        let mut entry = table.get(low(bits, root)).copied().unwrap_or(EXCEPTION);
        let mut before = 0;
        if entry & SUBTABLE != 0 {
            before = root;
            let index = (entry >> 16) as usize + low(bits >> root, entry >> 8 & 15);
            entry = table.get(index).copied().unwrap_or(EXCEPTION);
        }
        let extra = low(bits >> before, entry & 63) >> (entry >> 8 & 15);
        let value = (entry >> 16 & 0x7fff) as usize + extra;
        Self { entry, bits: before + (entry & 63), value }
    }
}

impl Default for Inflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflate {
    /// Before the beginning of a stream.
    pub const fn new() -> Self {
        Self {
            state: State::Header,
            is_last: false,
            bits: 0,
            count: 0,
            lengths: [0; LENGTHS],
            distances: [0; DISTANCES],
        }
    }

    /// Goes before the beginning of another stream.
    pub fn restart(&mut self) {
        (self.state, self.is_last, self.bits, self.count) = (State::Header, false, 0, 0);
    }

    /// Inflates into `output` from `start` on. What lies before `start` is what came out before, as far as the stream
    /// may refer to it; what lies behind what is written may be overwritten. Gives how many bytes were read and
    /// written.
    pub fn inflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        start: usize,
    ) -> (Status, usize, usize) {
        let mut input = Input { bytes: input, position: 0, bits: self.bits, count: self.count };
        let mut at = start;
        let status = loop {
            let step = match self.state {
                State::Header => self.read_header(&mut input),
                State::Stored(left) => self.store(left, &mut input, output, &mut at),
                State::Symbols => self.symbols(&mut input, output, &mut at),
                State::Copy { length, distance } => self.copy(length, distance, output, &mut at),
                State::End => Err(Status::Done),
            };
            if let Err(status) = step {
                break status;
            }
        };
        input.give_back();
        (self.bits, self.count) = (input.bits, input.count);
        (status, input.position, at - start)
    }

    fn end_block(&mut self) {
        self.state = if self.is_last { State::End } else { State::Header };
    }

    fn store(
        &mut self,
        left: usize,
        input: &mut Input,
        output: &mut [u8],
        at: &mut usize,
    ) -> Result<(), Status> {
        input.give_back();
        let from = input.bytes.get(input.position..).unwrap_or_default();
        let to = output.get_mut(*at..).unwrap_or_default();
        let count = left.min(from.len()).min(to.len());
        if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
            to.copy_from_slice(from);
        }
        input.position += count;
        *at += count;
        self.state = State::Stored(left - count);
        if count == left {
            self.end_block();
            return Ok(());
        }
        Err(if *at == output.len() { Status::Output } else { Status::Input })
    }

    /// Symbols until the block ends: fast where input and output have room for what can come, then one by one.
    fn symbols(
        &mut self,
        input: &mut Input,
        output: &mut [u8],
        at: &mut usize,
    ) -> Result<(), Status> {
        self.fast_symbols(input, output, at)?;
        // Near the end of the input or the output: these are few.
        while self.state == State::Symbols {
            self.symbol(input, output, at)?;
            if self.state == State::Symbols && fast::has_room(input, output, *at) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn symbol(
        &mut self,
        input: &mut Input,
        output: &mut [u8],
        at: &mut usize,
    ) -> Result<(), Status> {
        input.fill();
        let symbol = Symbol::of(&self.lengths, LENGTH_BITS, input.bits);
        if symbol.bits > input.count {
            return Err(Status::Input);
        }
        if symbol.entry & LITERAL != 0 {
            let place = output.get_mut(*at).ok_or(Status::Output)?;
            *place = symbol.value as u8;
            *at += 1;
            input.skip(symbol.bits);
            return Ok(());
        }
        if symbol.entry & EXCEPTION != 0 {
            if symbol.entry & END == 0 {
                return Err(Status::Broken);
            }
            input.skip(symbol.bits);
            self.end_block();
            return Ok(());
        }
        let distance = Symbol::of(&self.distances, DISTANCE_BITS, input.bits >> symbol.bits);
        if symbol.bits + distance.bits > input.count {
            return Err(Status::Input);
        }
        if distance.entry & EXCEPTION != 0 || distance.value > *at {
            return Err(Status::Broken);
        }
        input.skip(symbol.bits + distance.bits);
        self.state = State::Copy { length: symbol.value, distance: distance.value };
        Ok(())
    }

    /// Byte by byte, as far as there is room.
    fn copy(
        &mut self,
        length: usize,
        distance: usize,
        output: &mut [u8],
        at: &mut usize,
    ) -> Result<(), Status> {
        for done in 0..length {
            let byte = output.get(*at - distance).copied();
            let (Some(byte), Some(place)) = (byte, output.get_mut(*at)) else {
                self.state = State::Copy { length: length - done, distance };
                return Err(Status::Output);
            };
            *place = byte;
            *at += 1;
        }
        self.state = State::Symbols;
        Ok(())
    }
}
