//! Preparing: each step changes the live system, and is undone when a later one fails.
//!
//! Decides nothing: what is to be done is in the plan and in the facts.

#[cfg(feature = "backup")]
pub mod backup;
#[cfg(feature = "http")]
pub mod download;
pub mod handover;
pub mod image;
pub mod instance;
pub mod on_disk;
pub mod ramfs;
mod registers;
pub mod rehearsal;
pub mod staging;
pub mod swap;
pub mod trace;
pub mod undo;
pub mod writeback;

/// Every change can be undone: there are as many places as there can be changes.
const _: () = assert!(
    ramfs::MOST_CHANGES
        + on_disk::MOST_CHANGES
        + handover::MOST_CHANGES
        + super::look::facts::MAX_SWAPS
        <= undo::MOST_CHANGES
);
