//! The memory of flashing, mapped and faulted in before the first write: there is none to be had afterwards.

use crate::error::{Doing, Error};
use crate::image::decode::BUFFER;
use crate::{memory, sys};

/// Buffers in the ring of the two threads: one is decoded into, one is written, one waits.
pub const SLOTS: usize = 3;
/// The memory of a device, in bytes, below which none waits: 1 MiB more is left for the image. One that is sold with
/// 128 MB has less than these.
const SHORT: u64 = 128 << 20;

/// All the memory that flashing needs: mapped once, faulted in.
pub struct Buffers {
    /// The last one is empty where memory is short.
    pub(super) slots: [&'static mut [u8]; SLOTS],
    /// The old head of the disk until that is cleared, the new one from then on.
    pub(super) head: &'static mut [u8],
    /// Zeros, for disks that the kernel cannot make zero otherwise. Never written to.
    pub(super) zeros: &'static [u8],
    /// The stack of the writing thread.
    pub(super) stack: &'static mut [u8],
}

/// The writing thread's stack, in bytes; it uses a tenth of that.
const STACK: usize = 64 * 1024;
/// How many zeros are written at once, in bytes.
const ZEROS: usize = 64 * 1024;

impl Buffers {
    /// Maps the buffers: 3 times 1 MiB and 32 KiB, or twice where memory is short; `head` is another one, which the
    /// workers share.
    pub fn map(head: &'static mut [u8]) -> Result<Self, Error> {
        // A rescue system has nothing else in its memory, and no bytes for this.
        Self::map_for(head, if crate::IS_WHOLE { memory::of_device() } else { SHORT })
    }

    /// The same for a device with so many bytes of memory.
    pub fn map_for(head: &'static mut [u8], memory: u64) -> Result<Self, Error> {
        let map = || sys::map::buffer(BUFFER).doing("reserving", "the flash buffers");
        let last = if memory < SHORT { <&mut [u8]>::default() } else { map()? };
        let zeros = sys::map::buffer(ZEROS).doing("reserving", "a buffer of zeros")?;
        let stack = sys::map::stack(STACK).doing("reserving", "a stack")?;
        Ok(Self { slots: [map()?, map()?, last], head, zeros, stack })
    }

    /// A buffer for whoever works alone: [`BUFFER`] bytes, page-aligned.
    pub fn scratch(&mut self) -> &mut [u8] {
        let [first, ..] = &mut self.slots;
        first
    }

    /// Two such buffers, and the zeros.
    pub fn scratches(&mut self) -> ([&mut [u8]; 2], &'static [u8]) {
        let [first, second, _] = &mut self.slots;
        ([first, second], self.zeros)
    }

    /// Zeros, as many as are written at once. Never written to.
    pub fn zeros(&self) -> &'static [u8] {
        self.zeros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_memory_is_short_there_is_one_buffer_less() {
        let sizes = |memory| {
            let head = sys::map::buffer(BUFFER).unwrap();
            Buffers::map_for(head, memory).unwrap().slots.map(|slot| slot.len())
        };
        assert_eq!(sizes(SHORT - 1), [BUFFER, BUFFER, 0]);
        assert_eq!(sizes(SHORT), [BUFFER; SLOTS]);
        // Of the whole device, as /proc/meminfo has it.
        let told = std::fs::read_to_string("/proc/meminfo").unwrap();
        let kib = crate::text::kib_in(&told, "MemTotal:").unwrap();
        assert_eq!(memory::of_device() / 1024, kib);
    }
}
