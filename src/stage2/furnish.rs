//! NewFile: the files of the new OS, placed on its boot and data partitions and read back.
//!
//! A partition is mounted through its node where the kernel has read the new table, else through a loop device.

use super::keep_log;
use crate::disk::device;
use crate::disk::loops;
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{NewFile, PartitionPlan, Place, Plan, names};
use crate::progress::Shared;
use crate::sys::block;
use crate::text::PathText;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// How often file is tried.
const TRIES: u32 = 3;

/// How much is copied at once, in bytes.
const PIECE: usize = 4096;
/// How much of a file is written before it is synced, in bytes.
const SYNC_STEP: usize = 4 << 20;

/// Places every file of the plan; `base` is where the RAMFS is mounted, `disk` the node of the disk.
pub fn furnish(plan: &Plan, base: &str, disk: &str, shared: &Shared) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        shared.beat();
        match furnish_once(plan, base, disk, shared) {
            Ok(()) => return Ok(()),
            Err(error) if tries == TRIES => return Err(error),
            Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
        }
        tries += 1;
        crate::sys::clock::sleep(Duration::from_secs(1));
    }
}

fn furnish_once(plan: &Plan, base: &str, disk: &str, shared: &Shared) -> Result<(), Error> {
    let fresh = reread_table(disk)?;
    for (place, partition) in places(plan) {
        let room = Room { plan, base, disk, place, partition, fresh };
        room.place_and_compare(shared)?;
    }
    flush(disk)
}

/// Waits until everything is on the medium: unmounting FAT writes, but leaves it in the drive's own cache. fdatasync of
/// a block device flushes that (blkdev_fsync in block/fops.c).
fn flush(disk: &str) -> Result<(), Error> {
    let file = files::open(disk, OFlags::RDONLY).doing("opening", disk)?;
    rustix::fs::fdatasync(&file).doing("flushing", disk)
}

/// The partitions that get files, the boot partition last: while it lacks config.json, the new OS does not start as if
/// all was there. One that gets a log alone is not among them: a log is not worth a failure.
fn places(plan: &Plan) -> impl Iterator<Item = (Place, PartitionPlan)> {
    let all = [(Place::Data, plan.data), (Place::Boot, plan.boot)];
    all.into_iter().filter_map(|(place, partition)| {
        let has_files = plan.new_files.iter().any(|file| file.place == place);
        partition.filter(|_| has_files).map(|partition| (place, partition))
    })
}

/// Leaves the log on the new data partition (`--fallback-log`), as far as it goes by now.
pub fn keep_log(plan: &Plan, base: &str, disk: &str) -> Result<(), Error> {
    let (Some(path), Some(partition)) = (&plan.fallback_log, plan.data) else {
        return Ok(());
    };
    // Through a loop device: whether the kernel's partitions are the new ones is not worth another look.
    let room = Room { plan, base, disk, place: Place::Data, partition, fresh: false };
    room.mounted(MountFlags::NOATIME, &mut |point| {
        make_parents(point, path)?;
        keep_log::append(base, point, path)
    })?;
    flush(disk)
}

/// Makes the kernel see the new partitions; false when it may still show the old ones, because somebody keeps one
/// open. (A kernel without a parser for the table shows none, and that is no error.)
fn reread_table(disk: &str) -> Result<bool, Error> {
    let file = files::open(disk, OFlags::RDWR).doing("opening", disk)?;
    for _ in 0..20 {
        match block::reread_partitions(&file) {
            Err(Errno::BUSY) => crate::sys::clock::sleep(Duration::from_millis(100)),
            result => return Ok(result.is_ok()),
        }
    }
    crate::warn!("something keeps an old partition of {} open", disk);
    Ok(false)
}

/// A partition of the new OS that files are placed on.
struct Room<'a> {
    plan: &'a Plan,
    base: &'a str,
    disk: &'a str,
    place: Place,
    partition: PartitionPlan,
    /// The kernel's partitions are those of the new table.
    fresh: bool,
}

impl Room<'_> {
    fn place_and_compare(&self, shared: &Shared) -> Result<(), Error> {
        self.mounted(MountFlags::NOATIME, &mut |point| {
            for file in self.new_files() {
                shared.beat();
                self.put(point, file, shared)?;
            }
            Ok(())
        })?;
        // Unmounting has written everything back. Mounted anew, so that what is compared comes from the disk.
        self.mounted(MountFlags::RDONLY, &mut |point| {
            for file in self.new_files() {
                shared.beat();
                self.compare(point, file, shared)?;
                crate::info!("placed and read back /{}", file.to.as_str());
            }
            Ok(())
        })
    }

    fn new_files(&self) -> impl Iterator<Item = &NewFile> {
        self.plan.new_files.iter().filter(|file| file.place == self.place)
    }

    /// Mounts the partition, calls `work` with the mount point, and unmounts it, whatever came out.
    fn mounted(
        &self,
        flags: MountFlags,
        work: &mut dyn FnMut(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let point = crate::path!("{}/{}", self.base, names::MOUNT)?;
        let (device, loop_device) = self.device()?;
        let kind = self.partition.file_system.name();
        // What the cache of this node holds may be from before the flash.
        forget_cache(&device)?;
        mounts::mount_at(&device, &point, kind, flags, "")
            .doing("mounting the new partition", &device)?;
        drop(loop_device);
        let result = work(&point);
        let unmounted = mounts::unmount_patiently(&point).doing("unmounting", &point);
        result.and(unmounted)
    }

    /// The node to mount, and what keeps it there until it is.
    fn device(&self) -> Result<(PathText, Option<OwnedFd>), Error> {
        let (start, length) = (self.partition.start, self.partition.length);
        let known = device::partition_at(&self.plan.target.name, start, length);
        if let Some(number) = known.filter(|_| self.fresh) {
            let path = crate::path!("{}/{}/new-partition", self.base, names::DEV)?;
            // Left over from an earlier try, perhaps with another number.
            let _ = files::remove(&path);
            device::make_node(&path, number)?;
            return Ok((path, None));
        }
        let disk = files::open(self.disk, OFlags::RDWR).doing("opening", self.disk)?;
        let nodes = crate::path!("{}/{}", self.base, names::DEV)?;
        let device = loops::attach(&nodes, &disk, start, length)?;
        crate::debug!("the kernel knows no such partition: using {}", device.path.as_str());
        Ok((device.path, Some(device.descriptor)))
    }

    /// Copies a file beside its place, syncs it, and renames it there: it is whole or not there.
    fn put(&self, point: &str, file: &NewFile, shared: &Shared) -> Result<(), Error> {
        let source = self.source(&file.from)?;
        let path = crate::path!("{}/{}", point, file.to.as_str())?;
        let fresh = crate::path!("{}.new", path.as_str())?;
        make_parents(point, &file.to)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = files::open(&fresh, flags).doing("making", &fresh)?;
        let mut buffer = [0; PIECE];
        let mut unsynced = 0;
        loop {
            shared.beat();
            let count = files::read_to_end(&source, &mut buffer).doing("reading", &path)?;
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).unwrap_or_default();
            files::write_all(&file, piece).doing("writing", &fresh)?;
            unsynced += count;
            // One sync of a large file on a slow card would look like a standstill.
            if unsynced >= SYNC_STEP {
                rustix::fs::fdatasync(&file).doing("syncing", &fresh)?;
                unsynced = 0;
            }
        }
        rustix::fs::fsync(&file).doing("syncing", &fresh)?;
        files::rename(&fresh, &path).doing("renaming", &fresh)
    }

    fn compare(&self, point: &str, file: &NewFile, shared: &Shared) -> Result<(), Error> {
        let source = self.source(&file.from)?;
        let path = crate::path!("{}/{}", point, file.to.as_str())?;
        let file = files::open(&path, OFlags::RDONLY).doing("opening", &path)?;
        let (mut wanted, mut found) = ([0; PIECE], [0; PIECE]);
        loop {
            shared.beat();
            let length = files::read_to_end(&source, &mut wanted).doing("reading for", &path)?;
            let count = files::read_to_end(&file, &mut found).doing("reading back", &path)?;
            if wanted.get(..length) != found.get(..count) {
                let why = "it differs from what was written";
                return Err(Error::failed("reading back", &path, why));
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn source(&self, from: &str) -> Result<OwnedFd, Error> {
        let path = crate::path!("{}/{}/{}", self.base, names::FILES, from)?;
        files::open(&path, OFlags::RDONLY).doing("opening", &path)
    }
}

fn forget_cache(device: &str) -> Result<(), Error> {
    let file = files::open(device, OFlags::RDONLY).doing("opening", device)?;
    block::flush_buffers(&file).doing("dropping the cache of", device)
}

/// Makes the directories above a file.
fn make_parents(point: &str, to: &str) -> Result<(), Error> {
    for (at, _) in to.match_indices('/') {
        let directory = crate::path!("{}/{}", point, to.get(..at).unwrap_or_default())?;
        match files::make_directory(&directory) {
            Err(Errno::EXIST) => {}
            result => result.doing("making", &directory)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::sample;

    #[test]
    fn a_file_that_is_not_what_was_written_is_an_error() {
        let folder = std::env::temp_dir().join(format!("takeover-place-{}", std::process::id()));
        let point = folder.join("new");
        std::fs::create_dir_all(folder.join(names::FILES)).unwrap();
        std::fs::create_dir_all(&point).unwrap();
        let plan = sample();
        let file = NewFile {
            from: heapless::String::try_from("0").unwrap(),
            to: heapless::String::try_from("a/b/file").unwrap(),
            place: Place::Boot,
        };
        let content = vec![b'x'; PIECE + 10];
        std::fs::write(folder.join(names::FILES).join("0"), &content).unwrap();
        let (base, partition) = (folder.to_str().unwrap(), plan.boot.unwrap());
        let (place, fresh) = (Place::Boot, false);
        let room = Room { plan: &plan, base, disk: "", place, partition, fresh };
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let compare = || room.compare(point.to_str().unwrap(), &file, shared);

        // What an earlier try has left is longer.
        std::fs::create_dir_all(point.join("a/b")).unwrap();
        std::fs::write(point.join("a/b/file.new"), vec![b'y'; 3 * PIECE]).unwrap();
        room.put(point.to_str().unwrap(), &file, shared).unwrap();
        compare().unwrap();
        assert!(!point.join("a/b/file.new").exists());
        let mut flipped = content.clone();
        flipped[PIECE + 9] = 0;
        for wrong in [&content[..PIECE], &content[..0], &flipped, &[&content[..], b"x"].concat()] {
            std::fs::write(point.join("a/b/file"), wrong).unwrap();
            assert!(compare().is_err());
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_partition_without_files_is_not_furnished() {
        let places = |plan: &Plan| places(plan).map(|(place, _)| place).collect::<Vec<_>>();
        let mut plan = sample();
        assert_eq!(places(&plan), [Place::Data, Place::Boot]);
        // A fallback log is asked for, and nothing else for the data partition.
        plan.new_files.retain(|file| file.place == Place::Boot);
        assert!(plan.fallback_log.is_some() && plan.data.is_some());
        assert_eq!(places(&plan), [Place::Boot]);
        plan.new_files.clear();
        assert_eq!(places(&plan), []);
    }
}
