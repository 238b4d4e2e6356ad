//! What the new OS expects: which partition it boots from, which device an image is for, what config.json holds.
//!
//! Works on bytes it is given; opens no file and no socket.

pub mod config;
pub mod devices;
pub mod json;
pub mod keyfile;
pub mod layout;
pub mod systems;
