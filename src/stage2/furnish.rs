//! Furnishing: the files of the new OS, placed on its boot partition and read back.
//!
//! The partition is mounted through its node where the kernel has read the new table, else through a loop device.

use crate::disk::device;
use crate::disk::loops;
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{BootPlan, Plan, names};
use crate::progress::Shared;
use crate::sys::block;
use crate::text::PathText;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// How often furnishing is tried.
const TRIES: u32 = 3;

/// Places every furnishing of the plan; `base` is where the RAMFS is mounted, `disk` the node of the disk.
pub fn furnish(plan: &Plan, base: &str, disk: &str, shared: &Shared) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        shared.beat();
        let fresh = reread_table(disk)?;
        let Some(boot) = plan.boot else {
            return Ok(());
        };
        let boot_partition = BootPartition { plan, base, disk, boot, fresh };
        match boot_partition.place_and_compare(shared) {
            Ok(()) => return Ok(()),
            Err(error) if tries == TRIES => return Err(error),
            Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
        }
        tries += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Makes the kernel see the new partitions; false when it may still show the old ones, because somebody keeps one
/// open. (A kernel without a parser for the table shows none, and that is no error.)
fn reread_table(disk: &str) -> Result<bool, Error> {
    let file = files::open(disk, OFlags::RDWR).doing("opening", disk)?;
    for _ in 0..20 {
        match block::reread_partitions(&file) {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(100)),
            result => return Ok(result.is_ok()),
        }
    }
    crate::warn!("something keeps an old partition of {} open", disk);
    Ok(false)
}

struct BootPartition<'a> {
    plan: &'a Plan,
    base: &'a str,
    disk: &'a str,
    boot: BootPlan,
    /// The kernel's partitions are those of the new table.
    fresh: bool,
}

impl BootPartition<'_> {
    fn place_and_compare(&self, shared: &Shared) -> Result<(), Error> {
        self.mounted(MountFlags::NOATIME, |point| {
            for furnishing in &self.plan.furnishings {
                shared.beat();
                self.place(point, &furnishing.from, &furnishing.to)?;
            }
            Ok(())
        })?;
        // Unmounting has written everything back. Mounted anew, so that what is compared comes from the disk.
        self.mounted(MountFlags::RDONLY, |point| {
            for furnishing in &self.plan.furnishings {
                shared.beat();
                self.compare(point, &furnishing.from, &furnishing.to)?;
                crate::info!("placed and read back /{}", furnishing.to.as_str());
            }
            Ok(())
        })
    }

    /// Mounts the partition, calls `work` with the mount point, and unmounts it, whatever came out.
    fn mounted(
        &self,
        flags: MountFlags,
        work: impl FnOnce(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let point = crate::path!("{}/{}", self.base, names::MOUNT)?;
        let (device, loop_device) = self.device()?;
        let kind = self.boot.file_system.name();
        // What the cache of this node holds may be from before the flash.
        forget_cache(&device)?;
        mounts::mount_at(&device, &point, kind, flags, "")
            .doing("mounting the new boot partition", &device)?;
        drop(loop_device);
        let result = work(&point);
        let unmounted = mounts::unmount_patiently(&point).doing("unmounting", &point);
        result.and(unmounted)
    }

    /// The node to mount, and what keeps it there until it is.
    fn device(&self) -> Result<(PathText, Option<OwnedFd>), Error> {
        let (start, length) = (self.boot.start, self.boot.length);
        let known = device::partition_at(&self.plan.target.name, start, length);
        if let Some(number) = known.filter(|_| self.fresh) {
            let path = crate::path!("{}/{}/boot-partition", self.base, names::DEV)?;
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
    fn place(&self, point: &str, from: &str, to: &str) -> Result<(), Error> {
        let source = self.source(from)?;
        let path = crate::path!("{}/{}", point, to)?;
        let fresh = crate::path!("{}.new", path.as_str())?;
        make_parents(point, to)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = files::open(&fresh, flags).doing("making", &fresh)?;
        let mut buffer = [0; 4096];
        loop {
            let count = files::read_to_end(&source, &mut buffer).doing("reading", from)?;
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).unwrap_or_default();
            files::write_all(&file, piece).doing("writing", &fresh)?;
        }
        rustix::fs::fsync(&file).doing("syncing", &fresh)?;
        files::rename(&fresh, &path).doing("renaming", &fresh)
    }

    fn compare(&self, point: &str, from: &str, to: &str) -> Result<(), Error> {
        let source = self.source(from)?;
        let path = crate::path!("{}/{}", point, to)?;
        let file = files::open(&path, OFlags::RDONLY).doing("opening", &path)?;
        let (mut wanted, mut found) = ([0; 4096], [0; 4096]);
        loop {
            let length = files::read_to_end(&source, &mut wanted).doing("reading", from)?;
            let count = files::read_to_end(&file, &mut found).doing("reading back", to)?;
            if wanted.get(..length) != found.get(..count) {
                return Err(Error::failed("reading back", to, "it differs from what was written"));
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn source(&self, from: &str) -> Result<OwnedFd, Error> {
        let path = crate::path!("{}/{}/{}", self.base, names::FURNISHINGS, from)?;
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
