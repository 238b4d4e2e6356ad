//! takeover replaces the operating system of a running device with a disk image, in place.
//!
//! Principles:
//! - Every check comes before the first destructive byte; nothing is called success that was not read back.
//! - Simple and clear ways over fast and clever ones, but for the inflate-and-write loop.
//! - Memory is fixed. Stage 2 executes nothing, loads nothing and allocates nothing.
//! - Pure functions over slices inside a thin shell of system calls: nearly everything is tested without root.
//!
//! The way of a device, from left to right:
//!
//! ```text
//! options ─▶ looked at ─▶ decided ─▶ prepared ─▶ handed over ─▶ alone ─▶ flashed ─▶ verified ─▶ data ─▶ head ─▶
//! boot entry ─▶ restart
//!            read only    plan and   RAMFS, image, PID 1 is     old root  all but    read back   ext4    first MiB
//!                         patches    backup        this program gone      the head               only    last of all
//!            └────── any failure: undone, the old OS goes on ─────────┘   └─ from here: retry and repair ─┘
//! ```
//!
//! What is flashed is the image with the files of the new OS in it already: the `image` room lays patches over what it
//! inflates, and everything after that knows one image.
//!
//! Read `main.rs` for who is who, then `stage1` and `stage2::sequence`, each a page of steps. A rescue system, where
//! nothing is taken over, comes in at `rescue::flash`, with the same image and the same stage 2:
//!
//! ```text
//! kernel's command line ─▶ rescue::init ─▶ disks, image ─▶ rescue::flash ─▶ stage2: flashed, verified, head ─▶ restart
//!                                              looked at and checked: new_os, disk
//! ```

#![forbid(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(any(feature = "core", feature = "rescue")))]
compile_error!("a program needs one of the features core and rescue: see Cargo.toml");

pub mod address;
#[cfg(feature = "backup")]
pub mod backup;
pub mod balena;
pub mod banner;
#[cfg(feature = "http")]
pub mod base64;
pub mod boot_blob;
pub mod bytes;
#[cfg(feature = "core")]
pub mod cli;
pub mod crc32;
pub mod disk;
pub mod efi;
pub mod elf;
pub mod ends;
pub mod error;
pub mod files;
pub mod image;
pub mod log;
pub mod memory;
#[cfg(feature = "http")]
pub mod net;
#[cfg(feature = "core")]
pub mod network;
pub mod new_os;
#[cfg(feature = "http")]
pub mod notice;
pub mod packed;
pub mod path;
pub mod plan;
pub mod progress;
#[cfg(feature = "rescue")]
pub mod rescue;
pub mod screen;
pub mod sink;
#[cfg(feature = "core")]
pub mod stage1;
pub mod stage2;
#[allow(unsafe_code)]
pub mod sys;
pub mod text;

/// False in the set `rescue`, which does without what only a takeover needs: what a firmware would start, files on
/// ext4, names of those that use a disk, disks that come back under another name. What asks for this is left out of the
/// program, with all that nothing else uses. Unit tests are of the whole in every set.
pub(crate) const IS_WHOLE: bool = cfg!(any(test, feature = "core"));

/// False where no image can be on a server, likewise.
pub(crate) const CAN_BE_REMOTE: bool = cfg!(any(test, feature = "http"));
