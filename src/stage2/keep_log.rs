//! Keeping the log of stage 2 where it survives: on the log device, and on the old root when nothing was written.

use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{LogPlan, names};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// Appends the log to a file on a partition, which is mounted for that.
pub fn keep(log: &LogPlan) -> Result<(), Error> {
    let node = crate::path!("/{}/log-partition", names::DEV)?;
    // Left over from the log device when it is the old root's turn.
    let _ = rustix::fs::unlink(node.as_str());
    crate::disk::device::make_node(&node, FileType::BlockDevice, log.number.to_dev())?;
    let point = crate::path!("/{}", names::MOUNT)?;
    let kind = log.file_system.as_str();
    rustix::mount::mount(node.as_str(), point.as_str(), kind, MountFlags::empty(), None)
        .doing("mounting a partition for the log,", kind)?;
    let result = append(&point, &log.path);
    let unmounted = rustix::mount::unmount(point.as_str(), UnmountFlags::NOFOLLOW);
    result.and(unmounted.doing("unmounting", &point))
}

fn append(point: &str, path: &str) -> Result<(), Error> {
    let from = crate::path!("/{}", names::LOG)?;
    let source = rustix::fs::open(from.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing("opening", &from)?;
    let to = crate::path!("{}/{}", point, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(to.as_str(), flags, Mode::RUSR | Mode::WUSR).doing("making", &to)?;
    let mut buffer = [0; 4096];
    loop {
        let count = files::read_to_end(&source, &mut buffer).doing("reading", &from)?;
        if count == 0 {
            break;
        }
        files::write_all(&file, buffer.get(..count).unwrap_or_default()).doing("writing", &to)?;
    }
    rustix::fs::fsync(&file).doing("syncing", &to)
}
