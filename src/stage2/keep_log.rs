//! What is left on partitions that survive: the log of stage 2, on the log device, and on the old root when nothing was
//! written; and then nothing of what stage 1 has copied there.

use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{FilePlan, names};
use rustix::fs::OFlags;
use rustix::mount::MountFlags;

/// Appends the log, and the result as its last line, to a file on a partition.
pub fn keep(log: &FilePlan, result: &str) -> Result<(), Error> {
    with_mounted(log, &|point| append_with("", point, &log.path, result))
}

/// Removes a file of the old OS that stage 1 has made, when that lives on.
pub fn remove(file: &FilePlan) -> Result<(), Error> {
    with_mounted(file, &|point| {
        let path = files::below(point, &file.path)?;
        files::remove(&path).doing("removing", &path)?;
        crate::info!("removed what was copied of the image: {}", file.path.as_str());
        Ok(())
    })
}

/// Mounts the partition of a file for what is to be done there.
fn with_mounted(file: &FilePlan, work: &dyn Fn(&str) -> Result<(), Error>) -> Result<(), Error> {
    let node = crate::path!("/{}/log-partition", names::DEV)?;
    // Left over from the one before.
    let _ = files::remove(&node);
    crate::disk::device::make_node(&node, file.number)?;
    let point = files::below("", names::MOUNT)?;
    let kind = file.file_system.as_str();
    // Whoever could write there, nothing of it is executed, and none of its devices is opened.
    let safe = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let mount = |flags| mounts::mount_at(&node, &point, kind, flags | safe, "");
    // Still there read-only, as unmounting leaves it as a last resort: joined as it is, then made writable.
    let joined = || mount(MountFlags::RDONLY).and_then(|()| mounts::remount(&point, safe, ""));
    mount(MountFlags::empty()).or_else(|_| joined()).doing("mounting a partition,", kind)?;
    let done = work(&point);
    let unmounted = mounts::unmount(&point);
    done.and(unmounted.doing("unmounting", &point))
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
