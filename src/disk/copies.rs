//! The file with the copies of a packed image that stays on its disk: what it is called, and how one is told from a
//! file of somebody else.

use rustix::fs::{FileType, Stat};

/// What it is called, in the folder of the image file.
pub const COPIES: &str = ".takeover-copies";

/// True for a file that a takeover can have made.
pub fn is_copies(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode).is_file()
        && status.st_uid == 0
        && status.st_mode & 0o777 == 0o600
}
