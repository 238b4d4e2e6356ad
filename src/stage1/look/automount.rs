//! Places that are mounted when somebody looks into them (autofs; systemd's automount units for /boot and /efi).
//!
//! Looking is a read that everybody does all the time: what is mounted by it is what the place is for, and systemd
//! unmounts it again as it always does. /etc/fstab would not do: the units are also made from the partition table alone
//! (systemd-gpt-auto-generator), and only PID 1 knows them all.

use crate::disk::mounts::{self, Found};
use crate::error::Error;
use crate::files;
use crate::log::Stopwatch;
use crate::sys::process;
use core::time::Duration;
use rustix::fs::OFlags;
use rustix::process::{Signal, WaitOptions};

/// How long a mount may take, in milliseconds: a file system check comes before it.
const PATIENCE: u64 = 20_000;

/// The mount that is seen at `place`, after a look into it where that is an automount. An automount that mounts nothing
/// is what is seen then.
pub fn mount_at(place: &str) -> Result<Option<Found>, Error> {
    let mount = mounts::at(place)?;
    if !mount.as_ref().is_some_and(is_trigger) {
        return Ok(mount);
    }
    look_into(place);
    mounts::at(place)
}

/// True for an automount that nothing is mounted on.
pub fn is_trigger(mount: &Found) -> bool {
    &*mount.file_system == "autofs"
}

/// In a child: whoever mounts it may never answer.
fn look_into(place: &str) {
    let child = process::spawn(|| {
        // It must hold neither the lock of a takeover nor anybody's terminal.
        process::close_from(0);
        // Whether it could be opened is seen in the mount table.
        let _ = files::open(place, OFlags::RDONLY | OFlags::DIRECTORY);
        0
    });
    let Ok(child) = child else { return };
    let watch = Stopwatch::start();
    while watch.elapsed() < PATIENCE {
        // An error: there is no such child any more.
        if !matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(None)) {
            return;
        }
        crate::sys::clock::sleep(Duration::from_millis(5));
    }
    // One that waits for an automount listens to it (autofs_wait in fs/autofs/waitq.c).
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
}
