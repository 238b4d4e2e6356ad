//! The memory of flashing, mapped and faulted in before the first write: there is none to be had afterwards.

use crate::error::{Doing, Error};
use crate::image::decode::{BUFFER, WINDOW};
use crate::sys;

/// Buffers in the ring of the two threads: one is decoded into, or checked, while the other is on its way to the disk
/// or from it. A third would wait: the disk is what takes the time, and with two it never does.
pub const SLOTS: usize = 2;

/// All the memory that flashing needs: mapped once, faulted in.
pub struct Buffers {
    /// The second one, which the workers share, has the old head of the disk until that is cleared.
    pub(super) slots: [&'static mut [u8]; SLOTS],
    /// The first chunk of the image, which is written last, without the zeros at its end: most have nothing but zeros
    /// behind the partition table.
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
    /// Maps the buffers: 1 MiB and 32 KiB; `shared` is another one, which the workers share.
    pub fn map(shared: &'static mut [u8]) -> Result<Self, Error> {
        let first = sys::map::buffer(BUFFER).doing("reserving", "the flash buffers")?;
        let zeros = sys::map::buffer(ZEROS).doing("reserving", "a buffer of zeros")?;
        let stack = sys::map::stack(STACK).doing("reserving", "a stack")?;
        Ok(Self { slots: [first, shared], head: &mut [], zeros, stack })
    }

    /// Keeps the first chunk of the image, of `length` bytes, which is in the first slot behind the window.
    pub fn keep_head(&mut self, length: usize) -> Result<(), Error> {
        let [first, ..] = &self.slots;
        let chunk = first.get(WINDOW..WINDOW + length).unwrap_or_default();
        let end = || chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // The set rescue has no bytes for it, and keeps all of it.
        let used = if crate::IS_WHOLE { end() } else { length };
        // There is no mapping of nothing.
        self.head = sys::map::buffer(used.max(1)).doing("reserving", "the flash buffers")?;
        if let (Some(to), Some(from)) = (self.head.get_mut(..used), chunk.get(..used)) {
            to.copy_from_slice(from);
        }
        Ok(())
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
