//! Looking, read only: what the device, its system, its disks, its memory and the image are.
//!
//! Refuses nothing but what cannot be read, and changes nothing: what follows from the facts is decided in `decide`.

pub mod automount;
pub mod boot_area;
pub mod boot_entries;
pub mod cgroup;
#[cfg(feature = "http")]
pub mod cloud;
pub mod exports;
pub mod facts;
pub mod identity;
pub mod leftovers;
pub mod live;
pub mod logs;
pub mod modules;
pub mod origin;
pub mod reader;
pub mod tracing;
pub mod transport;
pub mod uses;
pub mod watchdogs;
#[cfg(feature = "http")]
pub mod way;
