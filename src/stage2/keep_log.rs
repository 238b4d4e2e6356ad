//! What is left on partitions that survive: the log of stage 2, on the log device, and on the old root when nothing was
//! written; and then nothing of what stage 1 has copied there.

use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{FilePlan, names};
use crate::progress::Shared;
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, SeekFrom};
use rustix::mount::MountFlags;

/// Appends the log, and the result as its last line, to a file on a partition.
pub fn keep(log: &FilePlan, result: &str) -> Result<(), Error> {
    with_mounted(log, &|point| append_with("", point, &log.path, result).map(drop))
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
    let write = || {
        mounts::remount(&point, safe, "").inspect_err(|_| {
            // Nothing of it stays: it was for this alone.
            let _ = mounts::unmount(&point);
        })
    };
    let joined = || mount(MountFlags::RDONLY).and_then(|()| write());
    mount(MountFlags::empty()).or_else(|_| joined()).doing("mounting a partition,", kind)?;
    let done = work(&point);
    let unmounted = mounts::unmount(&point);
    done.and(unmounted.doing("unmounting", &point))
}

/// Appends the log of stage 2, in the RAMFS at `base`, to a file on the file system that is mounted at `point`. Gives
/// how much that was, in bytes.
pub fn append(base: &str, point: &str, path: &str) -> Result<u64, Error> {
    append_with(base, point, path, "")
}

/// The file ends in the first `length` bytes of the log.
pub fn compare(
    base: &str,
    point: &str,
    path: &str,
    length: u64,
    shared: &Shared,
) -> Result<(), Error> {
    let (from, to) = (files::below(base, names::LOG)?, files::below(point, path)?);
    let (log, kept) = (files::opened(&from, OFlags::RDONLY)?, files::opened(&to, OFlags::RDONLY)?);
    let whole = rustix::fs::fstat(&kept).doing("looking at", &to)?.st_size as u64;
    // One that is too short is read from its end: nothing is there.
    let start = whole.saturating_sub(length);
    rustix::fs::seek(&kept, SeekFrom::Start(start)).doing("looking at", &to)?;
    compare_with(&log, &kept, &to, length, shared)?;
    crate::info!("placed and read back /{}", path);
    Ok(())
}

/// What comes next in a file is what comes next in its source, up to the end of both or for `length` bytes.
pub fn compare_with(
    source: &OwnedFd,
    file: &OwnedFd,
    path: &str,
    length: u64,
    shared: &Shared,
) -> Result<(), Error> {
    let (mut wanted, mut found) = ([0; 4096], [0; 4096]);
    let mut left = length;
    loop {
        shared.beat();
        let most = left.min(wanted.len() as u64) as usize;
        let wanted = wanted.get_mut(..most).unwrap_or_default();
        let found = found.get_mut(..most).unwrap_or_default();
        let count = files::read_to_end(source, wanted).doing("reading for", path)?;
        let there = files::read_to_end(file, found).doing("reading back", path)?;
        if wanted.get(..count) != found.get(..there) {
            let why = "it differs from what was written";
            return Err(Error::failed("reading back", path, why));
        }
        if count == 0 {
            return Ok(());
        }
        left -= count as u64;
    }
}

fn append_with(base: &str, point: &str, path: &str, end: &str) -> Result<u64, Error> {
    let from = files::below(base, names::LOG)?;
    let source = files::opened(&from, OFlags::RDONLY)?;
    let to = files::below(point, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    // What is there may be anybody's: a link could lead to any file of that system, and of the RAMFS.
    let file = files::open_plain(point, path, flags).doing("making the plain file", &to)?;
    let mut buffer = [0; 4096];
    let mut length = 0;
    loop {
        let count = files::read_to_end(&source, &mut buffer).doing("reading", &from)?;
        if count == 0 {
            break;
        }
        files::write_all(&file, buffer.get(..count).unwrap_or_default()).doing("writing", &to)?;
        length += count as u64;
    }
    files::write_all(&file, end.as_bytes()).doing("writing", &to)?;
    rustix::fs::fsync(&file).doing("syncing", &to)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_back() {
        let folder = std::env::temp_dir().join(format!("takeover-keep-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("point")).unwrap();
        let (base, point) = (folder.to_str().unwrap(), folder.join("point"));
        let (log, kept) = (folder.join(names::LOG), point.join("kept.log"));
        let text = "a line of the log\n".repeat(400);
        std::fs::write(&log, &text).unwrap();
        std::fs::write(&kept, "of a takeover before\n").unwrap();
        let point = point.to_str().unwrap();
        let length = append(base, point, "kept.log").unwrap();
        assert_eq!(length, text.len() as u64);
        // The log has grown meanwhile.
        std::fs::write(&log, format!("{text}and more\n")).unwrap();
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let result = || compare(base, point, "kept.log", length, shared);
        result().unwrap();
        let good = std::fs::read(&kept).unwrap();
        let mut flipped = good.clone();
        flipped[5000] ^= 1;
        for wrong in [&good[..good.len() - 1], &good[..100], b"", &flipped] {
            std::fs::write(&kept, wrong).unwrap();
            assert!(result().is_err(), "{} bytes", wrong.len());
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
