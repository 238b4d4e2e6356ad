//! What the new OS expects: which partition it boots from, which device an image is for, what config.json holds.
//!
//! Works on bytes it is given; opens no file and no socket.

#[cfg(feature = "http")]
pub mod api;
pub mod boot_blob;
pub mod config;
pub mod devices;
pub mod json;
#[cfg(feature = "core")]
pub mod keyfile;
pub mod layout;
#[cfg(feature = "http")]
pub mod stream;
pub mod systems;
#[cfg(feature = "http")]
pub mod version;
