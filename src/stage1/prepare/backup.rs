//! The backup, made straight into the RAMFS as one of the last things before the hand-over: what the services have
//! written until then is in it.
//!
//! A child makes it. The crates for YAML and regular expressions need the heap, and an allocation that cannot be had
//! ends a process: this one has changes to undo by now.

use super::ramfs::Ramfs;
use super::undo::interrupted;
use crate::backup;
use crate::error::{Doing, Error};
use crate::files;
use crate::memory;
use crate::plan::names;
use crate::sys::process;
use crate::text::Size;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, WaitOptions};

/// Makes file number `index` of the RAMFS the archive that the description at `path` asks for, of at most `limit`
/// bytes. `counted` is how long it was when it was counted, before the question.
pub fn make(
    ramfs: &Ramfs,
    (index, counted): (usize, u64),
    path: &str,
    limit: u64,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let to = crate::path!("{}/{}/{}", ramfs.path.as_str(), names::FILES, index)?;
    let file = files::create(&to, b"")?;
    let child = process::spawn(|| in_child(path, &file, limit, buffer))
        .doing("starting", "a process that makes the backup")?;
    let failed = || {
        Error::failed("making", "the backup", "the process that makes it has failed")
            .advice("what it said stands above")
    };
    if !has_succeeded(child)? {
        return Err(failed());
    }
    let status = rustix::fs::fstat(&file).doing("looking at", &to)?;
    let length = status.st_size.max(0) as u64;
    if length != counted {
        crate::info!("the backup has changed: it had {} before the question", Size(counted));
    }
    Ok(())
}

fn in_child(path: &str, file: &OwnedFd, limit: u64, buffer: &mut [u8]) -> i32 {
    memory::unseal();
    match backup::make(path, file, limit, buffer) {
        Ok(Some(_)) => 0,
        Ok(None) => {
            crate::error!("the backup description {} asks for nothing any more", path);
            1
        }
        Err(error) => {
            crate::error!("{}", error);
            1
        }
    }
}

/// Waits for the child; a signal that wants this program to end ends the child, too.
fn has_succeeded(child: Pid) -> Result<bool, Error> {
    loop {
        let ended = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        if let Some((_, status)) = ended.doing("waiting for", "the backup")? {
            return Ok(status.exit_status() == Some(0));
        }
        if let Err(error) = interrupted() {
            // It changes nothing but a file of the RAMFS.
            let _ = rustix::process::kill_process(child, Signal::KILL);
            let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
            return Err(error);
        }
        crate::sys::clock::sleep(Duration::from_millis(5));
    }
}
