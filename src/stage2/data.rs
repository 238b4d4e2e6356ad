//! Files on the partitions of the new OS that are ext4: the backup, the fallback log, and those of a boot partition
//! that is no FAT.
//!
//! Mounted through a loop device, before the head of the disk is written. The new OS starts without its backup or its
//! log rather than not at all; without config.json it would be nobody's, so that is an error.

use super::keep_log;
use crate::disk::loops;
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::{NewFile, PartitionPlan, Place, Plan, names};
use crate::progress::{Kept, Shared};
use crate::sys::block;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// How often placing files is tried.
const TRIES: u32 = 3;
/// How many workers may die while they place what can be done without.
const RUNS: u32 = 2;

/// How much is copied at once, in bytes.
const PIECE: usize = 4096;
/// How much of a file is written before it is synced, in bytes.
const SYNC_STEP: usize = 4 << 20;

/// Places every file of the plan; `base` is where the RAMFS is mounted, `disk` the node of the disk.
pub fn place(plan: &Plan, base: &str, disk: &str, shared: &Shared) -> Result<(), Error> {
    let volume = |place, partition| Volume { plan, base, disk, place, partition };
    if let Some(partition) = plan.boot {
        volume(Place::Boot, partition).place_patiently(shared)?;
    }
    let Some(data) = plan.data.map(|partition| volume(Place::Data, partition)) else {
        return Ok(());
    };
    // Whatever it is that ends a worker here, the kernel's ext4 or the disk, would end the next one.
    let is_hopeless = shared.data_runs.fetch_add(1, SeqCst) >= RUNS;
    let spare = |kept: &AtomicU32, what: &str, work: &dyn Fn() -> Result<(), Error>| {
        let result = if is_hopeless {
            Err(Error::failed("placing", what, "two workers ended in it"))
        } else {
            work()
        };
        let state = if result.is_ok() { Kept::Yes } else { Kept::Failed };
        kept.store(state as u32, SeqCst);
        if let Err(error) = result {
            crate::error!("{}; the new OS starts without it", error);
        }
    };
    if data.files().next().is_some() {
        spare(&shared.backup, "the backup", &|| data.place_patiently(shared));
    }
    if let Some(path) = &plan.fallback_log {
        spare(&shared.log, "the log", &|| data.keep_log(path));
    }
    Ok(())
}

/// A partition of the new OS that files are placed on.
struct Volume<'a> {
    plan: &'a Plan,
    base: &'a str,
    disk: &'a str,
    place: Place,
    partition: PartitionPlan,
}

impl Volume<'_> {
    fn place_patiently(&self, shared: &Shared) -> Result<(), Error> {
        let watch = Stopwatch::start();
        let mut tries = 1;
        loop {
            shared.beat();
            match self.place_and_compare(shared) {
                Ok(()) => break,
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
            }
            tries += 1;
            crate::sys::clock::sleep(Duration::from_secs(1));
        }
        crate::info!("placed the files of a partition ({} s)", watch.shown());
        Ok(())
    }

    fn place_and_compare(&self, shared: &Shared) -> Result<(), Error> {
        self.mounted(MountFlags::NOATIME, &mut |point| {
            self.files().try_for_each(|file| self.put(point, file, shared))
        })?;
        // Unmounting has written everything back. Mounted anew, so that what is compared comes from the disk.
        self.mounted(MountFlags::RDONLY, &mut |point| {
            self.files().try_for_each(|file| {
                self.compare(point, file, shared)?;
                crate::info!("placed and read back /{}", file.to.as_str());
                Ok(())
            })
        })
    }

    fn files(&self) -> impl Iterator<Item = &NewFile> {
        self.plan.new_files.iter().filter(|file| file.place == self.place)
    }

    /// Leaves the log there, as far as it goes by now.
    fn keep_log(&self, path: &str) -> Result<(), Error> {
        self.mounted(MountFlags::NOATIME, &mut |point| {
            make_parents(point, path)?;
            keep_log::append(self.base, point, path)
        })
    }

    /// Mounts the partition, calls `work` with the mount point, and unmounts it, whatever came out. What was written is
    /// on the medium then.
    fn mounted(
        &self,
        flags: MountFlags,
        work: &mut dyn FnMut(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let point = files::below(self.base, names::MOUNT)?;
        let disk = files::opened(self.disk, OFlags::RDWR)?;
        // What the cache of the disk holds may be from before the flash, and what is compared shall be on the medium.
        block::flush_buffers(&disk).doing("dropping the cache of", self.disk)?;
        let nodes = files::below(self.base, names::DEV)?;
        let PartitionPlan { start, length } = self.partition;
        let device = loops::attach(&nodes, &disk, start, length)?;
        mounts::mount_at(&device.path, &point, "ext4", flags, "")
            .doing("mounting a partition of the new OS,", &device.path)?;
        drop(device);
        let result = work(&point);
        let unmounted = mounts::unmount_patiently(&point).doing("unmounting", &point);
        // Unmounting leaves it in the cache of the disk and in the drive's own. fdatasync of a block device flushes
        // both (blkdev_fsync in block/fops.c).
        let flushed = rustix::fs::fdatasync(&disk).doing("flushing", self.disk);
        result.and(unmounted).and(flushed)
    }

    /// Copies a file beside its place, syncs it, and renames it there: it is whole or not there.
    fn put(&self, point: &str, new: &NewFile, shared: &Shared) -> Result<(), Error> {
        let source = self.source(&new.from)?;
        let path = files::below(point, &new.to)?;
        let fresh = crate::path!("{}.new", path.as_str())?;
        make_parents(point, &new.to)?;
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

    fn compare(&self, point: &str, new: &NewFile, shared: &Shared) -> Result<(), Error> {
        let source = self.source(&new.from)?;
        let path = files::below(point, &new.to)?;
        let file = files::opened(&path, OFlags::RDONLY)?;
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
        files::opened(&path, OFlags::RDONLY)
    }
}

/// Makes the directories above a file.
fn make_parents(point: &str, to: &str) -> Result<(), Error> {
    for (at, _) in to.match_indices('/') {
        let directory = files::below(point, to.get(..at).unwrap_or_default())?;
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
        let place = Place::Boot;
        let volume = Volume { plan: &plan, base, disk: "", place, partition };
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let compare = || volume.compare(point.to_str().unwrap(), &file, shared);

        // What an earlier try has left is longer.
        std::fs::create_dir_all(point.join("a/b")).unwrap();
        std::fs::write(point.join("a/b/file.new"), vec![b'y'; 3 * PIECE]).unwrap();
        volume.put(point.to_str().unwrap(), &file, shared).unwrap();
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
    fn what_can_be_done_without_is_left_out_and_said() {
        let mut plan = sample();
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let states = || (shared.backup.load(SeqCst), shared.log.load(SeqCst));
        // There is no such disk: config.json would go there, and that is an error.
        assert!(place(&plan, "/nowhere", "/nowhere/disk", shared).is_err());
        assert_eq!(states(), (Kept::Not as u32, Kept::Not as u32));
        plan.boot = None;
        for run in 1..=RUNS {
            assert_eq!(shared.data_runs.load(SeqCst), run - 1);
            place(&plan, "/nowhere", "/nowhere/disk", shared).unwrap();
            assert_eq!(states(), (Kept::Failed as u32, Kept::Failed as u32));
        }
        // Not tried again: that would take a second or two.
        let watch = Stopwatch::start();
        place(&plan, "/nowhere", "/nowhere/disk", shared).unwrap();
        assert!(watch.elapsed() < 900 && shared.data_runs.load(SeqCst) == RUNS + 1);
        shared.backup.store(0, SeqCst);
        plan.new_files.retain(|file| file.place == Place::Boot);
        plan.fallback_log = None;
        place(&plan, "/nowhere", "/nowhere/disk", shared).unwrap();
        assert_eq!(states().0, Kept::Not as u32);
    }
}
