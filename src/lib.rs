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
//! Read `main.rs` for who is who, then `stage1` and `stage2::sequence`, each a page of steps.

#![forbid(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "backup")]
pub mod backup;
pub mod balena;
#[cfg(feature = "http")]
pub mod base64;
pub mod bytes;
pub mod cli;
pub mod crc32;
pub mod disk;
pub mod efi;
pub mod elf;
pub mod error;
pub mod files;
pub mod image;
pub mod log;
pub mod memory;
#[cfg(feature = "http")]
pub mod net;
pub mod network;
#[cfg(feature = "http")]
pub mod notice;
pub mod packed;
pub mod path;
pub mod plan;
pub mod progress;
pub mod stage1;
pub mod stage2;
#[allow(unsafe_code)]
pub mod sys;
pub mod text;
