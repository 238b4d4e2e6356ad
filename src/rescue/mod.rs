//! The rescue system: `takeover flash` and `takeover scan` where nothing else is, and the init of an initramfs that is
//! made of the kernel and this program.
//!
//! Nothing is taken over here: the disk is free, or it is refused. The flashing itself is stage 2's; what is decided
//! before it is here, in `flash`, the page to begin with. Does not know stage 1.

#[cfg(not(feature = "core"))]
pub mod command;
mod devices;
mod flash;
mod image;
pub mod init;
mod modules;
mod wishes;
