//! Block devices and what is on them: partition tables, the file systems' own names, devices as sysfs has them,
//! mounts, swap, loop devices, stacks (LVM, dm-crypt, md).
//!
//! Knows only disks: tables and file systems are read through [`reader::ReadAt`], and whoever has something else behind
//! it says in its errors what that is ([`Error::about`](crate::error::Error::about)).

pub mod backing;
mod content;
#[cfg(any(feature = "core", feature = "backup"))]
pub mod copies;
pub mod detached;
pub mod device;
pub mod ext4;
#[cfg(feature = "core")]
pub mod extents;
pub mod fat;
#[cfg(feature = "core")]
pub mod file;
pub mod gpt;
#[cfg_attr(not(feature = "core"), path = "no_holders.rs")]
pub mod holders;
pub mod identity;
pub mod loops;
pub mod mbr;
pub mod mounts;
pub mod partition;
pub mod pools;
pub mod reader;
pub mod record;
#[cfg(feature = "core")]
pub mod room;
#[cfg(feature = "core")]
pub mod segments;
pub mod stack;
pub mod swaps;
pub mod table;
pub mod writable;
