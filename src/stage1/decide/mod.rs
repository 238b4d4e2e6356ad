//! Deciding: every check, the memory that is needed, the files of the new OS, the plan, and the page that shows it.
//!
//! Changes nothing. Whatever can stop a takeover is found here, before anything is prepared.

pub mod boot_blob;
pub mod boot_entry;
pub mod budget;
pub mod carry;
pub mod checks;
pub mod compatible;
pub mod configuration;
pub mod estimate;
pub mod firmware;
#[cfg(feature = "migrate")]
pub mod networks;
pub mod page;
pub mod planning;
pub mod preview;
pub mod reach;
#[cfg(feature = "http")]
pub mod release;
pub mod report;
#[cfg(feature = "http")]
pub mod reporting;
pub mod stage;
pub mod target;
