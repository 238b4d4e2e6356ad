//! The API of balenaCloud, and of what speaks like it: what is asked, and what the answers say.
//!
//! Bytes in and out; whoever has a connection sends them.

pub mod replies;
pub mod report;
pub mod requests;
