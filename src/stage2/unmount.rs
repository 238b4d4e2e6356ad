//! Unmounting the old root and everything on it.
//!
//! In passes, newest first, until a pass changes nothing: the order in the mount table is no guide, and "busy" passes.
//! Loop devices on the target are detached between the passes, and LVM, dm-crypt, md and zram on it taken down. What
//! remains is made read-only and detached, as a last resort: the mount is out of sight then, but the file system may
//! live on, so the mount table proves nothing. The proof is the exclusive claim of the disk.
//!
//! First of all go the mounts whose server may be out of reach, since the network ended with the processes: no
//! umount2(2), and no path that leads through them, may hold up the rest.

use super::target::{self, Target};
use super::{child, stuck};
use crate::disk::device::Number;
use crate::disk::mounts::{self, Mount};
use crate::disk::{holders, loops, pools, stack};
use crate::error::Error;
use crate::plan::{Plan, names};
use crate::progress::Shared;
use crate::sys::process;
use core::time::Duration;
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// Between two looks at what the kernel tells nobody of: a mount that is busy no more, a disk that is let go of.
const PAUSE: Duration = Duration::from_millis(20);
/// The most passes; a pause after each that changes nothing.
const PASSES: u32 = 500;
/// How many passes in a row may change nothing: for 2 s.
const IDLE_PASSES: u32 = 100;
/// How often the disk is claimed: a file system that is going away needs a moment, of 10 s at most.
const CLAIMS: u32 = 500;
/// After how many of them what is frozen and mounted nowhere any more is thawed: after 1 s.
const STUCK: u32 = 50;

/// How long a file system with a server may take to be let go of, in milliseconds.
const SERVER_PATIENCE: u64 = 2000;

/// Unmounts everything below the old root, which is at `/old`, and what an earlier worker left at `/mnt`. `target` is
/// the number that the disk has now.
pub fn old_root(target: Number, scratch: &mut [u8], shared: &Shared) -> Result<(), Error> {
    abandon_servers(target, scratch, shared)?;
    swap_off(target);
    let mut idle = 0;
    for _ in 0..PASSES {
        shared.beat();
        let (left, gone) = unmount_pass(target, scratch)?;
        let detached = release(target);
        if left == 0 && detached == 0 {
            return Ok(());
        }
        idle = if gone + detached > 0 { 0 } else { idle + 1 };
        if idle > IDLE_PASSES {
            break;
        }
        if gone == 0 {
            crate::sys::clock::sleep(PAUSE);
        }
    }
    last_resort(target, scratch)
}

/// Lets go of each mount that has a server, oldest first: what is mounted below one goes with it. (Of more than fit
/// into `scratch` the older ones come last: the newer ones below them may then take their time, and no more.)
fn abandon_servers(target: Number, scratch: &mut [u8], shared: &Shared) -> Result<(), Error> {
    let wanted = |mount: &Mount| is_abandoned(mount, target);
    mounts::for_each_window(scratch, &wanted, &mut |mounts| {
        for point in mounts.iter().filter_map(|mount| mount.point().ok()) {
            abandon(&point, shared);
        }
    })
}

/// True for a mount whose unmounting may wait for a server, and has no bearing on the target.
fn is_abandoned(mount: &Mount, target: Number) -> bool {
    let is_foreign = mount.point().is_ok_and(|point| is_foreign(&point));
    is_foreign && mount.has_server() && !stack::lies_on(mount.device, target).unwrap_or(false)
}

/// In a child, which may be left behind in the kernel.
fn abandon(point: &str, shared: &Shared) {
    let work = || match mounts::abandon(point) {
        Ok(()) => crate::debug!("let go of {}", point),
        // It went with one above it.
        Err(errno) if errno == Errno::NOENT || errno == Errno::INVAL => {}
        Err(errno) => crate::warn!("{}", Error::os("letting go of", point, errno)),
    };
    if !child::ends(point, SERVER_PATIENCE, shared, &work) {
        crate::warn!("{} waits for its server: left behind", point);
    }
}

/// Turns off swap on the target that came up after stage 1 had turned off what there was, and that in memory, whose
/// node keeps the old /dev busy: nobody is left who has anything in it. Not in a PID namespace, where it is another
/// machine's.
fn swap_off(target: Number) {
    if !process::in_first_pid_namespace() {
        return;
    }
    let is_wanted = |number| {
        stack::is_memory(number) || pools::file_system_lies_on(number, target).unwrap_or(false)
    };
    holders::for_each_swap(&is_wanted, &mut |path| match process::swap_off(path) {
        Ok(()) => crate::debug!("swap on {} is off", path),
        Err(errno) => crate::warn!("{}", Error::os("swapping off", path, errno)),
    });
}

/// Detaches loop devices from the target, and takes down what is stacked on it; gives how many are gone.
fn release(target: Number) -> u32 {
    let detached = loops::detach_all("/dev", target);
    detached + stack::take_down("/dev", target)
}

/// Tries to unmount each foreign mount, newest first. How many stayed, how many are gone.
fn unmount_pass(target: Number, scratch: &mut [u8]) -> Result<(u32, u32), Error> {
    let (mut left, mut gone) = (0, 0);
    let mut unmount = |mount: Mount| {
        let Ok(point) = mount.point() else {
            // Too long for us with the old root's directory before it: it goes with the one it is mounted on.
            left += 1;
            return;
        };
        match mounts::unmount(&point) {
            Ok(()) => {
                crate::debug!("unmounted {}", point);
                gone += 1;
            }
            Err(errno) => {
                let error = Error::os("unmounting", &point, errno);
                crate::trace!("{}", error);
                left += 1;
            }
        }
    };
    let wanted = |mount: &Mount| is_unmounted(mount, target);
    mounts::for_each_window(scratch, &wanted, &mut |mounts| {
        mounts.iter().rev().for_each(&mut unmount);
    })?;
    Ok((left, gone))
}

/// True for a foreign mount, but for one that was abandoned: that one is not asked again, and is detached with what it
/// lies on.
fn is_unmounted(mount: &Mount, target: Number) -> bool {
    mount.point().map_or(true, |point| is_foreign(&point)) && !is_abandoned(mount, target)
}

fn last_resort(target: Number, scratch: &mut [u8]) -> Result<(), Error> {
    let detach = |mount: Mount| {
        let Ok(point) = mount.point() else {
            return;
        };
        crate::warn!("{} stays busy: detached", point);
        // Either may be refused; the claim of the disk tells what that means. Only what lies on the target is made
        // read-only: that is for the whole file system, and /proc and /sys are ours too.
        let lies_on = |number| pools::file_system_lies_on(number, target).unwrap_or(false);
        if mount.lies_on().is_some_and(lies_on) {
            let _ = mounts::remount(&point, MountFlags::RDONLY, "");
        }
        let _ = mounts::detach(&point);
    };
    let wanted = |mount: &Mount| is_unmounted(mount, target);
    mounts::for_each_window(scratch, &wanted, &mut |mounts| mounts.iter().rev().for_each(detach))
}

/// True for the old root, for the place of mounts of our own, and for what is below them.
fn is_foreign(point: &str) -> bool {
    [names::OLD, names::MOUNT].into_iter().any(|name| {
        let rest = point.strip_prefix('/').and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The proof that the disk is free: claiming it succeeds, and no loop device lies on it. (A loop device claims the
/// file system of its backing file, but a backing disk or partition it does not.)
pub fn prove_free(plan: &Plan, number: Number, shared: &Shared) -> Result<(), Error> {
    let path = crate::path!("/{}/{}", names::DEV, plan.target.name.as_str())?;
    for try_number in 0..CLAIMS {
        shared.beat();
        if try_number == STUCK {
            stuck::release(shared);
        }
        match is_free(&path, plan, shared) {
            Ok(()) => return Ok(()),
            Err(error) if error.lasts() => break,
            Err(_) => {}
        }
        crate::sys::clock::sleep(PAUSE);
        // What was detached as a last resort may have let go of it by now.
        release(number);
    }
    is_free(&path, plan, shared).map_err(|error| target::name_holders(error, &path, plan))
}

fn is_free(path: &str, plan: &Plan, shared: &Shared) -> Result<(), Error> {
    let target = Target::open(path, plan, shared)?;
    loops::none_on("/dev", target.number)?;
    stack::none_on(target.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_root_and_our_own_mounts_are_unmounted() {
        for point in ["/old", "/old/", "/old/var/lib", "/mnt", "/mnt/x"] {
            assert!(is_foreign(point), "{point}");
        }
        for point in ["/", "/older", "/dev", "/sys/old", "/mnts", ""] {
            assert!(!is_foreign(point), "{point}");
        }
    }
}
