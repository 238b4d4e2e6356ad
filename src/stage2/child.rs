//! Work that may hang in the kernel, done in a child that is left behind then.

use crate::error::Error;
use crate::log::Stopwatch;
use crate::progress::Shared;
use crate::sys::process;
use core::time::Duration;
use rustix::process::{Pid, Signal, WaitOptions};

/// Does something for `object` in a child; false when that takes longer than so many milliseconds.
pub fn ends(object: &str, patience: u64, shared: &Shared, work: &dyn Fn()) -> bool {
    let child = || {
        work();
        0
    };
    match process::spawn(child) {
        Ok(id) if ends_in_time(id, patience, shared) => true,
        Ok(id) => {
            // It listens as soon as the kernel lets it.
            let _ = rustix::process::kill_process(id, Signal::KILL);
            false
        }
        Err(errno) => {
            crate::warn!("{}", Error::os("starting a process for", object, errno));
            true
        }
    }
}

fn ends_in_time(child: Pid, patience: u64, shared: &Shared) -> bool {
    let watch = Stopwatch::start();
    while watch.elapsed() < patience {
        shared.beat();
        // An error: there is no such child, so nothing to wait for.
        if !matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(None)) {
            return true;
        }
        crate::sys::clock::sleep(Duration::from_millis(5));
    }
    false
}
