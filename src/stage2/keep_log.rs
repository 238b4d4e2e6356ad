//! Keeping the log of stage 2 where it survives: on the log device, and on the old root when nothing was written.

use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{LogPlan, names};
use rustix::fs::OFlags;
use rustix::mount::MountFlags;

/// Appends the log, and the result as its last line, to a file on a partition, which is mounted for that.
pub fn keep(log: &LogPlan, result: &str) -> Result<(), Error> {
    let node = crate::path!("/{}/log-partition", names::DEV)?;
    // Left over from the log device when it is the old root's turn.
    let _ = files::remove(&node);
    crate::disk::device::make_node(&node, log.number)?;
    let point = files::below("", names::MOUNT)?;
    let kind = log.file_system.as_str();
    // Whoever could write there, nothing of it is executed, and none of its devices is opened.
    let safe = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let mount = |flags| mounts::mount_at(&node, &point, kind, flags | safe, "");
    // Still there read-only, as unmounting leaves it as a last resort: joined as it is, then made writable.
    let joined = || mount(MountFlags::RDONLY).and_then(|()| mounts::remount(&point, safe, ""));
    mount(MountFlags::empty())
        .or_else(|_| joined())
        .doing("mounting a partition for the log,", kind)?;
    let appended = append_with("", &point, &log.path, result);
    let unmounted = mounts::unmount(&point);
    appended.and(unmounted.doing("unmounting", &point))
}

/// Appends the log of stage 2, in the RAMFS at `base`, to a file on the file system that is mounted at `point`.
pub fn append(base: &str, point: &str, path: &str) -> Result<(), Error> {
    append_with(base, point, path, "")
}

fn append_with(base: &str, point: &str, path: &str, end: &str) -> Result<(), Error> {
    let from = files::below(base, names::LOG)?;
    let source = files::opened(&from, OFlags::RDONLY)?;
    let to = files::below(point, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    // What is there may be anybody's: a link could lead to any file of that system, and of the RAMFS.
    let file = files::open_plain(point, path, flags).doing("making the plain file", &to)?;
    let mut buffer = [0; 4096];
    loop {
        let count = files::read_to_end(&source, &mut buffer).doing("reading", &from)?;
        if count == 0 {
            break;
        }
        files::write_all(&file, buffer.get(..count).unwrap_or_default()).doing("writing", &to)?;
    }
    files::write_all(&file, end.as_bytes()).doing("writing", &to)?;
    rustix::fs::fsync(&file).doing("syncing", &to)
}
