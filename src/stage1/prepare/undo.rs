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
    /// A file was made.
    MadeFile(PathText),
    /// A directory was made.
    MadeDirectory(PathText),
    /// A swap area was taken out of use; these are the flags to put it into use with.
    SwappedOff(PathText, u32),
    /// A tmpfs was made larger; its mount data and flags were these.
    Resized(PathText, rustix::mount::MountFlags, u64),
}

/// How many changes can be written down. That these are enough is proven where all who make changes are known.
pub const MOST_CHANGES: usize = 56;

/// The changes so far.
pub struct Undo {
    changes: heapless::Vec<Change, MOST_CHANGES>,
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
        // Said in the log, and this fails in any case.
        let _ = take_back(change);
        Err(Error::failed("preparing", "the system", "more changes than can be undone"))
    }

    /// Takes everything back, last change first. What cannot be taken back is named in the log; true when that is
    /// nothing.
    pub fn run(&mut self) -> bool {
        let mut all = true;
        while let Some(change) = self.changes.pop() {
            all &= take_back(change);
        }
        all
    }

    /// Leaves everything as it is: it belongs to stage 2 now, or to whoever wants to look at it.
    pub fn forget(&mut self) {
        self.changes.clear();
    }
}

/// False when it could not be taken back, which is in the log then.
fn take_back(change: Change) -> bool {
    let result = match &change {
        Change::Mounted(path) => unmount(path),
        Change::MadeFile(path) => files::remove(path).doing("removing", path),
        Change::MadeDirectory(path) => {
            files::remove_directory(path).doing("removing the directory", path)
        }
        Change::SwappedOff(path, flags) => {
            process::swap_on(path, *flags).doing("swapping on", path).inspect(|()| {
                crate::info!("swap on {} is on again", path);
            })
        }
        Change::Resized(path, flags, size) => resize(path, *flags, *size),
    };
    if let Err(error) = &result {
        crate::error!("undoing: {}", *error);
    }
    result.is_ok()
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
    match process::pending_termination() {
        None => Ok(()),
        Some(signal) => Err(ended_by(signal)),
    }
}

fn ended_by(signal: u32) -> Error {
    let fail = |why| Error::failed("taking over", "this device", why);
    match signal {
        1 => fail("SIGHUP: the session has ended").advice("start it below tmux, screen or nohup"),
        2 => fail("SIGINT: interrupted (Ctrl-C)"),
        3 => fail("SIGQUIT: interrupted (Ctrl-\\)"),
        _ => fail("SIGTERM: it was asked to end").advice("is the device shutting down?"),
    }
}

/// Gives a tmpfs another size limit, in bytes; everything else about it stays.
pub fn resize(path: &str, flags: rustix::mount::MountFlags, size: u64) -> Result<(), Error> {
    let data: Text<40> = crate::text!("size={}", size);
    mounts::remount(path, flags, &data).doing("resizing", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_undone_is_told_and_stops_nothing() {
        let folder = |name: &str| {
            let path = std::env::temp_dir().join(format!("takeover-{name}-{}", std::process::id()));
            PathText::from(path.to_str().unwrap())
        };
        let (made, missing) = (folder("undo"), folder("nowhere"));
        let mut undo = Undo::new();
        files::make_directory(&made).unwrap();
        undo.note(Change::MadeDirectory(made.clone())).unwrap();
        undo.note(Change::MadeDirectory(missing)).unwrap();
        assert!(!undo.run(), "a directory that is not there was removed");
        assert!(!files::exists(&made), "a failure kept the rest from being undone");
        assert!(undo.run(), "nothing is left to be undone");
    }
}
