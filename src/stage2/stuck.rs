//! What keeps processes from ending, whatever signal they get: a file system that is frozen (fsfreeze(8), a snapshot
//! that was never finished), and a FUSE file system whose server does not answer. What a process that does not end has
//! open keeps the disk busy.
//!
//! Not in a PID namespace, where they are another machine's.

use super::child;
use super::exports::{self, Order};
use crate::disk::mounts;
use crate::files;
use crate::progress::Shared;
use crate::sys::{block, process};
use rustix::fs::OFlags;

/// How long thawing may take, in milliseconds: what is thawed is written to.
const PATIENCE: u64 = 5000;

/// Documentation/filesystems/fuse.rst: each request that waits for the server fails.
///
/// Documentation/admin-guide/sysrq.rst: thaws what is mounted nowhere any more, and what other mount namespaces have.
/// (Before Linux 4.17 only what device-mapper has frozen.)
const ORDERS: [Order; 2] =
    [("sys/fs/fuse/connections/*/abort", "1\n"), ("proc/sysrq-trigger", "j")];

/// Thaws each file system that is mounted here.
pub fn thaw(shared: &Shared) {
    if process::in_first_pid_namespace()
        && !child::ends("what is frozen", PATIENCE, shared, &thaw_mounts)
    {
        crate::warn!("a disk hangs while its file system is looked at");
    }
}

fn thaw_mounts() {
    // Without a mount table nothing is known to be frozen.
    let _ = mounts::find(mounts::OWN, &mut |mount| {
        if mount.is_on_disk()
            && let Ok(point) = mount.point()
            && thaw_at(&point)
        {
            crate::info!("{} was frozen, and is thawed", point);
        }
        false
    });
}

fn thaw_at(point: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    files::open(point, flags).is_ok_and(|directory| block::thaw(&directory).is_ok())
}

/// Thaws every file system, wherever it is mounted, and ends the waiting for all servers of FUSE file systems.
pub fn release(shared: &Shared) {
    if process::in_first_pid_namespace() {
        // What hangs in the kernel then hung before.
        let _ = child::ends("what is stuck", PATIENCE, shared, &|| exports::give_all(&ORDERS));
    }
}
