//! What UEFI firmware starts: load options, their order, and the variables that hold both.
//!
//! `load_option` and `change` are pure functions over bytes, `variables` reads and writes files below the folder that
//! it is given. Knows neither disks nor images, and decides nothing: which entries go and which one comes is stage 1's
//! affair, and stage 2 carries it out. All of it is of fixed size, and takes whatever bytes a firmware has.

pub mod change;
pub mod load_option;
pub mod variables;
