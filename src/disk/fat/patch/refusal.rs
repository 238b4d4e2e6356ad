//! Why nothing is planned.

use crate::error::Error;

/// What to do about a volume that is full.
pub const FEWER: &str =
    "give fewer or shorter files, or take an image with more room on its boot partition";

/// A refusal, without what is to be done about it.
#[cold]
#[inline(never)]
pub fn refuse(why: &str) -> Error {
    Error::refused("placing files on the FAT file system of", "", why)
}

/// The same for one that the kernel would not write to either, or that fsck would find fault with.
pub fn damaged(why: &str) -> Error {
    refuse(why).advice("it is damaged: take another image, or mend it with fsck.fat")
}
