//! Files on the partitions of the new OS that are ext4: the backup, the fallback log, and those of a boot partition
//! that is no FAT.
//!
//! Mounted through a loop device, before the head of the disk is written. The new OS starts without its backup or its
//! log rather than not at all; without config.json it would be nobody's, so that is an error.

use super::keep_log;
use super::target::Target;
use crate::disk::loops;
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::{NewFile, PartitionPlan, Place, Plan, names};
use crate::progress::{Kept, Shared};
use crate::sys::{block, process};
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Signal, WaitOptions};

/// How often placing files is tried.
const TRIES: u32 = 3;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// How long one that was killed may take to end, in milliseconds.
const DEATH: u64 = 5000;

/// How much is copied at once, in bytes.
const PIECE: usize = 4096;
/// How much of a file is written before it is synced, in bytes.
const SYNC_STEP: usize = 4 << 20;

/// Places every file of the plan; `base` is where the RAMFS is mounted, `disk` the node of the disk, which `target` has
/// claimed.
///
/// A child does it: should the kernel's ext4 or the disk hold it for ever, or end it, this worker goes on with its
/// claim of the disk, to the head.
pub fn place(
    plan: &Plan,
    base: &str,
    disk: &str,
    target: &Target,
    shared: &Shared,
) -> Result<(), Error> {
    let volume = |place, partition| Volume { plan, base, disk, place, partition };
    // In milliseconds; the worker, which shows nothing of its own meanwhile, is given more by PID 1.
    let patience = u64::from(plan.stall) * 400;
    let in_child = |work: &dyn Fn() -> Result<(), Error>| in_child(target, shared, patience, work);
    if let Some(boot) = plan.boot.map(|partition| volume(Place::Boot, partition)) {
        in_child(&|| boot.place_patiently(shared))?;
    }
    let Some(data) = plan.data.map(|partition| volume(Place::Data, partition)) else {
        return Ok(());
    };
    let spare = |kept: &AtomicU32, what: &str, work: &dyn Fn() -> Result<(), Error>| {
        let result = in_child(work);
        let state = if result.is_ok() { Kept::Yes } else { Kept::Failed };
        kept.store(state as u32, SeqCst);
        if let Err(error) = result {
            crate::error!("{}: the new OS starts without {}", error, what);
        }
    };
    if data.files().next().is_some() {
        spare(&shared.backup, "its backup", &|| data.place_patiently(shared));
    }
    if let Some(path) = &plan.fallback_log {
        spare(&shared.log, "this log", &|| data.keep_log(path, shared));
    }
    Ok(())
}

/// How the child ends when what it could not do may be possible the next time, and when it will not.
const FAILED: i32 = 1;
const LASTING: i32 = 2;
/// What is said of both; the child has said more.
const FAILS: &str = "it could not be done";

/// Does it in a child, which shows by its heartbeat that it gets on within `patience` milliseconds, and says in the log
/// what went wrong.
fn in_child(
    target: &Target,
    shared: &Shared,
    patience: u64,
    work: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let fail = |why| Error::failed("placing files on", "an ext4 partition", why);
    let child = process::spawn(|| {
        // One that is left behind must not keep the disk from the next worker.
        target.let_go();
        match work() {
            Ok(()) => 0,
            Err(error) => {
                crate::error!("{}", error);
                if error.lasts() { LASTING } else { FAILED }
            }
        }
    });
    let child = child.doing("starting", "a process that places files")?;
    let (mut seen, mut since) = (shared.heartbeat.load(SeqCst), Stopwatch::start());
    let mut killed: Option<Stopwatch> = None;
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
            Ok(Some((_, status))) if status.exit_status() == Some(LASTING) => {
                return Err(fail(FAILS).lasting());
            }
            Ok(None) => {}
            _ if killed.is_some() => return Err(fail("it got no further, and was ended")),
            _ => return Err(fail(FAILS)),
        }
        let beat = shared.heartbeat.load(SeqCst);
        if beat != seen {
            (seen, since) = (beat, Stopwatch::start());
        }
        if killed.is_some_and(|watch| watch.elapsed() > DEATH) {
            return Err(fail("it hangs in the kernel"));
        }
        if killed.is_none() && since.elapsed() > patience {
            // It listens as soon as the kernel lets it.
            let _ = rustix::process::kill_process(child, Signal::KILL);
            killed = Some(Stopwatch::start());
        }
        crate::sys::clock::sleep(Duration::from_millis(5));
    }
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
                Err(error) if tries == TRIES || error.lasts() => return Err(error),
                Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
            }
            tries += 1;
            crate::sys::clock::sleep(PAUSE);
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

    /// Leaves the log there, as far as it goes by now, and reads it back.
    fn keep_log(&self, path: &str, shared: &Shared) -> Result<(), Error> {
        let mut length = 0;
        self.mounted(MountFlags::NOATIME, &mut |point| {
            make_parents(point, path)?;
            length = keep_log::append(self.base, point, path)?;
            Ok(())
        })?;
        self.mounted(MountFlags::RDONLY, &mut |point| {
            keep_log::compare(self.base, point, path, length, shared)
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
        if mounts::at(&point)?.is_some() {
            // Twice at once would break it.
            return Err(Error::failed("mounting at", &point, "an earlier mount is still there"));
        }
        let disk = files::opened(self.disk, OFlags::RDWR)?;
        // What the cache of the disk holds may be from before the flash, and what is compared shall be on the medium.
        block::flush_buffers(&disk).doing("dropping the cache of", self.disk)?;
        let nodes = files::below(self.base, names::DEV)?;
        let PartitionPlan { start, length } = self.partition;
        let device = loops::attach(&nodes, &disk, start, length)?;
        // The image may want a panic; what is in memory is the only copy.
        mounts::mount_at(&device.path, &point, "ext4", flags, "errors=remount-ro")
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
        keep_log::compare_with(&source, &file, &path, u64::MAX, shared)
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

    fn target() -> Target {
        let null = files::open("/dev/null", OFlags::RDWR).unwrap();
        Target::new(null, 0, 512)
    }

    #[test]
    fn what_can_be_done_without_is_left_out_and_said() {
        let mut plan = sample();
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let states = || (shared.backup.load(SeqCst), shared.log.load(SeqCst));
        // There is no such disk: config.json would go there, and that is an error.
        assert!(place(&plan, "/nowhere", "/nowhere/disk", &target(), shared).is_err());
        assert_eq!(states(), (Kept::Not as u32, Kept::Not as u32));
        plan.boot = None;
        place(&plan, "/nowhere", "/nowhere/disk", &target(), shared).unwrap();
        assert_eq!(states(), (Kept::Failed as u32, Kept::Failed as u32));
        shared.backup.store(0, SeqCst);
        plan.new_files.retain(|file| file.place == Place::Boot);
        plan.fallback_log = None;
        place(&plan, "/nowhere", "/nowhere/disk", &target(), shared).unwrap();
        assert_eq!(states().0, Kept::Not as u32);
    }

    #[test]
    fn a_child_that_gets_no_further_is_ended_and_its_end_noticed() {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        let run = |patience, work: &dyn Fn() -> Result<(), Error>| {
            let watch = Stopwatch::start();
            let error = in_child(&target(), shared, patience, work).err();
            let text = error.map(|error| {
                let text: crate::text::Text<300> = crate::text!("{} {}", error, error.lasts());
                text.to_string()
            });
            (text.unwrap_or_default(), watch.elapsed())
        };
        let beating = || {
            for _ in 0..30 {
                shared.beat();
                crate::sys::clock::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        assert_eq!(run(200, &beating).0, "");
        let (error, elapsed) = run(200, &|| {
            crate::sys::clock::sleep(Duration::from_secs(60));
            Ok(())
        });
        assert!(error.contains("got no further") && elapsed < 5000, "{error} {elapsed}");
        assert!(run(5000, &|| process::exit(3)).0.contains("could not be done"));
        let fail = |errno| run(5000, &|| Err(Error::os("mounting", "x", errno))).0;
        assert!(fail(Errno::INVAL).ends_with("could not be done true"));
        assert!(fail(Errno::IO).ends_with("could not be done false"));
    }
}
