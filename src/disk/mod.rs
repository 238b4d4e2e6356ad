//! Block devices and what is on them: partition tables, the file systems' own names, devices as sysfs has them,
//! mounts, swap, loop devices, stacks (LVM, dm-crypt, md).
//!
//! Knows only disks: tables and file systems are read through [`reader::ReadAt`], and whoever has something else behind
//! it says in its errors what that is ([`Error::about`](crate::error::Error::about)).

pub mod device;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod loops;
pub mod mbr;
pub mod mounts;
pub mod reader;
pub mod stack;
pub mod swaps;
pub mod table;

/// The number of `N` bytes, little-endian, at `at`; 0 beyond the end.
pub(crate) fn little_endian<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    field.map_or(0, |field| field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
