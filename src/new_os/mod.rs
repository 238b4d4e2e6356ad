//! The new OS as it will be on the disk: the image, decoded once and looked into, and the files that are laid into it.
//!
//! Shared by stage 1 and by the rescue system. Reads, and keeps in memory; writes to no disk, and knows nothing of the
//! system that runs.

pub mod configuration;
pub mod consent;
pub mod examination;
pub mod fits;
pub mod kind;
pub mod new_files;
pub mod one_image;
