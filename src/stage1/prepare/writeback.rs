//! Writing back what the old OS has written and the kernel still holds, while there is somebody to tell about it.
//!
//! Unmounting would do it later, but on a slow card that takes minutes, in one system call, and after the processes
//! have ended. What comes up until then is little. Changes nothing that the kernel would not do by itself.

use super::undo::interrupted;
use crate::disk::device::Number;
use crate::disk::mounts::{self, Mount};
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::progress::Writeback;
use crate::sys::process;
use crate::text::Size;
use core::time::Duration;
use rustix::fs::OFlags;
use rustix::process::{Pid, WaitOptions};

/// How long there may be no progress, in milliseconds. Cards pause for seconds, to tidy up.
const PATIENCE: u64 = 60_000;
/// Milliseconds between two lines of progress.
const INTERVAL: u64 = 2000;

/// Syncs every file system that lies on a disk, while the disks get on. Ends early when a signal wants this program to
/// end. A disk that takes nothing any more is an error: unmounting it would hang, after every process was ended.
pub fn write_back() -> Result<(), Error> {
    let watch = Stopwatch::start();
    // In a child: syncing cannot be interrupted. It may be left behind.
    let child = process::spawn(sync_disks).doing("starting", "a process that syncs the disks")?;
    let mut writeback = Writeback::start();
    let (mut since, mut shown) = (watch, watch);
    while !has_ended(child) {
        interrupted()?;
        if writeback.gets_on() {
            since = Stopwatch::start();
        }
        if since.elapsed() > PATIENCE {
            let why = "a disk has taken nothing of it for a minute";
            return Err(Error::failed("writing to the disks", "what is in memory", why)
                .advice("look for one that hangs (dmesg), and unmount it or pull it out"));
        }
        if shown.elapsed() > INTERVAL {
            shown = Stopwatch::start();
            let left = Size(writeback.left().saturating_mul(1024));
            crate::info!("writing to the disks what the system has in memory: {} left", left);
        }
        crate::sys::clock::sleep(Duration::from_millis(10));
    }
    crate::info!("what the system has written is on its disks ({} s)", watch.shown());
    Ok(())
}

fn has_ended(child: Pid) -> bool {
    // An error: there is no such child any more.
    !matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(None))
}

/// Not sync(2): that one waits for servers out of reach, too.
fn sync_disks() -> i32 {
    // Should it be left behind, it must hold neither the lock of a takeover nor anybody's terminal.
    process::close_from(0);
    let mut seen = heapless::Vec::<Number, 64>::new();
    let mut sync = |mount: &Mount| {
        // A host of containers shows the same file systems hundreds of times.
        if mount.is_on_disk()
            && !seen.contains(&mount.device)
            && let Ok(point) = mount.point()
            && let Ok(directory) = files::open(&point, OFlags::RDONLY | OFlags::NONBLOCK)
        {
            // Of more file systems than there is room for some are synced twice.
            let _ = seen.push(mount.device);
            // What fails here fails when it is unmounted, too, and is seen there.
            let _ = rustix::fs::syncfs(&directory);
        }
        false
    };
    // Without a mount table nothing gets this far.
    let _ = mounts::find(mounts::OWN, &mut sync);
    0
}
