//! One takeover at a time: a lock against a second one, and the removal of what a killed one left.
//!
//! The lock is on a directory of PID 1 in /proc: always there, seen by everything that shares PID 1's namespaces, and
//! without a trace, since the kernel gives it back when its holder ends, however that ends. A takeover holds it alone,
//! `takeover flash` beside others of its kind. So whoever has it alone knows that a RAMFS in the mount table belongs to
//! nobody. Whoever has it beside others asks for the lock of each RAMFS.

use crate::disk::device::Number;
use crate::disk::mounts::{self, Mount};
use crate::error::{Doing, Error};
use crate::files;
use crate::stage1::look::leftovers::{self, is_ramfs};
use crate::text::PathText;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

/// What is locked. A lock takes no more than opening for reading (flock(2)), so it must be what root alone can open:
/// with a lock on /proc itself, any user could forbid every takeover. This directory has mode 0500 (fs/proc/base.c).
/// The kernel may make its inode anew while nobody has it open, but not while somebody holds the lock.
const LOCKED: &str = "/proc/1/fd";
/// More mounts than one takeover makes, by far.
const MOST_MOUNTS: u32 = 64;

/// The lock of a takeover; it lasts as long as the value. What a killed takeover left is removed.
pub fn alone() -> Result<OwnedFd, Error> {
    let lock = lock(FlockOperation::NonBlockingLockExclusive)?;
    remove_left_behind(&mut is_ramfs)?;
    while let Some(found) = mounts::find(mounts::OWN, &mut is_directory_of_one)? {
        remove(&found.point, None)?;
    }
    Ok(lock)
}

/// Removes what killed ones of `takeover flash` left, while others may be running.
pub fn remove_abandoned() -> Result<(), Error> {
    remove_left_behind(&mut |mount| {
        let is_abandoned = |point: PathText| super::ramfs::is_abandoned(&point);
        is_ramfs(mount) && mount.point().is_ok_and(is_abandoned)
    })
}

/// The lock of `takeover flash`.
pub fn beside_others() -> Result<OwnedFd, Error> {
    lock(FlockOperation::NonBlockingLockShared)
}

/// What a dry run may do: it is refused like a takeover, which wants the lock alone, but keeps no lock; and it says
/// what a takeover would remove.
pub fn look() -> Result<Option<OwnedFd>, Error> {
    let _lock = lock(FlockOperation::NonBlockingLockExclusive)?;
    leftovers::tell()?;
    Ok(None)
}

fn lock(operation: FlockOperation) -> Result<OwnedFd, Error> {
    let file = files::open(LOCKED, OFlags::RDONLY | OFlags::DIRECTORY).doing("opening", LOCKED)?;
    match rustix::fs::flock(&file, operation) {
        Err(Errno::AGAIN) => {
            let why = "another takeover is running";
            Err(Error::refused("starting on", "this device", why)
                .advice("wait for it, or end it: pidof takeover"))
        }
        result => result.doing("locking", LOCKED).map(|()| file),
    }
}

/// True for the directory that a RAMFS is mounted on, mounted over itself: `Ramfs::mount`.
fn is_directory_of_one(mount: &Mount) -> bool {
    let name = mount.root.rsplit('/').next().unwrap_or_default();
    let is_itself = |point: PathText| point.ends_with(name);
    leftovers::is_name_of_ramfs(mount.root) && mount.point().is_ok_and(is_itself)
}

/// Removes each RAMFS that `is_dead`, that of a takeover or flash that was killed, with what is mounted in it and its
/// program bound over init's file. Nothing is forced: what somebody uses is refused by name.
fn remove_left_behind(is_dead: &mut dyn FnMut(&Mount) -> bool) -> Result<(), Error> {
    while let Some(found) = mounts::find(mounts::OWN, is_dead)? {
        remove(&found.point, Some(found.device))?;
        crate::warn!(
            "a takeover was killed, or left it with --no-cleanup: {} is removed. Swap that it had turned off is still off (swapon -a)",
            found.point
        );
    }
    Ok(())
}

/// Unmounts everything at and below the place of a RAMFS, there and in copies of the mounts, and whatever else is
/// mounted of its `device`.
fn remove(ramfs: &str, device: Option<Number>) -> Result<(), Error> {
    let name = ramfs.rsplit('/').next().unwrap_or_default();
    let mut is_part = |mount: &Mount| {
        let is_at = |point: PathText| point.split('/').any(|part| part == name);
        Some(mount.device) == device || mount.point().is_ok_and(is_at)
    };
    for _ in 0..MOST_MOUNTS {
        let Some(mount) = mounts::find(mounts::OWN, &mut is_part)? else {
            // Made by the killed one, and empty again; what is not stays.
            let _ = files::remove_directory(ramfs);
            return Ok(());
        };
        mounts::unmount_patiently(&mount.point)
            .doing("unmounting what a killed takeover left,", &mount.point)
            .map_err(|error| {
                error.as_refusal().advice("end what uses it (fuser -m), or restart")
            })?;
    }
    let why = "it has more mounts than a takeover makes";
    Err(Error::refused("removing what a killed takeover left,", ramfs, why)
        .advice("unmount it: umount -R"))
}
