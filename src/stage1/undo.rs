//! What stage 1 has changed on the live system, and how to take it back.
//!
//! Each change is written down as it is made and taken back in reverse order. Nothing is ever deleted recursively:
//! files of ours live on our own memory file system and go with its mount; directories are removed only when empty,
//! so a mount that stayed protects what is behind it.

use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::process;
use crate::text::{PathText, Text};
use rustix::io::Errno;

/// One change, by what takes it back.
pub enum Change {
    /// Something was mounted here.
    Mounted(PathText),
    /// A directory was made.
    MadeDirectory(PathText),
    /// A swap area was taken out of use; it had this priority.
    SwappedOff(PathText, i32),
    /// A tmpfs was made larger; its mount data and flags were these.
    Resized(PathText, rustix::mount::MountFlags, u64),
}

/// The changes so far.
pub struct Undo {
    changes: heapless::Vec<Change, 32>,
}

impl Undo {
    /// Nothing was changed yet.
    pub const fn new() -> Self {
        Self { changes: heapless::Vec::new() }
    }

    /// Writes a change down. Call it right after the change.
    pub fn note(&mut self, change: Change) -> Result<(), Error> {
        let Err(change) = self.changes.push(change) else {
            return Ok(());
        };
        take_back(change);
        Err(Error::failed("preparing", "the system", "more changes than can be undone"))
    }

    /// Takes everything back, last change first. What cannot be taken back is named in the log.
    pub fn run(&mut self) {
        while let Some(change) = self.changes.pop() {
            take_back(change);
        }
        crate::info!("everything is undone");
    }

    /// Leaves everything as it is: it belongs to stage 2 now, or to whoever wants to look at it.
    pub fn forget(&mut self) {
        self.changes.clear();
    }
}

fn take_back(change: Change) {
    let result = match &change {
        Change::Mounted(path) => unmount(path),
        Change::MadeDirectory(path) => {
            files::remove_directory(path).doing("removing the directory", path)
        }
        Change::SwappedOff(path, priority) => {
            process::swap_on(path, *priority).doing("swapping on", path)
        }
        Change::Resized(path, flags, size) => resize(path, *flags, *size),
    };
    if let Err(error) = result {
        crate::error!("undoing: {}", error);
    }
}

fn unmount(path: &str) -> Result<(), Error> {
    match mounts::unmount_patiently(path) {
        // Only memory of ours and a bind mount of it: letting the last user go first is harmless.
        Err(Errno::BUSY) => mounts::detach(path).doing("detaching", path),
        result => result.doing("unmounting", path),
    }
}

/// An error when Ctrl-C was pressed or the session ended: everything is undone then.
pub fn interrupted() -> Result<(), Error> {
    match process::termination_pending() {
        false => Ok(()),
        true => Err(Error::failed("taking over", "this device", "it was interrupted by a signal")),
    }
}

/// Gives a tmpfs another size limit, in bytes; everything else about it stays.
pub fn resize(path: &str, flags: rustix::mount::MountFlags, size: u64) -> Result<(), Error> {
    let data: Text<40> = crate::text!("size={}", size);
    mounts::remount(path, flags, &data).doing("resizing", path)
}
