//! The memory of flashing, mapped and faulted in before the first write: there is none to be had afterwards.

use crate::error::{Doing, Error};
use crate::image::decode::BUFFER;
use crate::sys;

/// Buffers in the ring of the two threads: one is decoded into, or checked, while the other is on its way to the disk
/// or from it. A third would wait: the disk is what takes the time, and with two it never does.
pub const SLOTS: usize = 2;

/// All the memory that flashing needs: mapped once, faulted in.
pub struct Buffers {
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
    /// Maps the buffers: twice 1 MiB and 32 KiB; `head` is another one, which the workers share.
    pub fn map(head: &'static mut [u8]) -> Result<Self, Error> {
        let map = || sys::map::buffer(BUFFER).doing("reserving", "the flash buffers");
        let zeros = sys::map::buffer(ZEROS).doing("reserving", "a buffer of zeros")?;
        let stack = sys::map::stack(STACK).doing("reserving", "a stack")?;
        Ok(Self { slots: [map()?, map()?], head, zeros, stack })
    }

    /// A buffer for whoever works alone: [`BUFFER`] bytes, page-aligned.
    pub fn scratch(&mut self) -> &mut [u8] {
        let [first, ..] = &mut self.slots;
        first
    }

    /// Two such buffers, and the zeros.
    pub fn scratches(&mut self) -> ([&mut [u8]; 2], &'static [u8]) {
        let [first, second] = &mut self.slots;
        ([first, second], self.zeros)
    }

    /// Zeros, as many as are written at once. Never written to.
    pub fn zeros(&self) -> &'static [u8] {
        self.zeros
    }
}
