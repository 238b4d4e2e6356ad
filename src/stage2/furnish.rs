//! Furnishing: the files of the new OS, placed on its boot partition and read back.
//!
//! The partition is mounted through its node where the kernel has read the new table, else through a loop device.

use crate::disk::device;
use crate::disk::loops;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{BootPlan, Plan, names};
use crate::progress::Shared;
use crate::sys::block;
use crate::text::PathText;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// How often furnishing is tried.
const TRIES: u32 = 3;

/// Places every furnishing of the plan; `base` is where the RAMFS is mounted, `disk` the node of the disk.
pub fn furnish(plan: &Plan, base: &str, disk: &str, shared: &Shared) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        shared.beat();
        reread_table(disk)?;
        let Some(boot) = plan.boot else {
            return Ok(());
        };
        let boot_partition = BootPartition { plan, base, disk, boot };
        match boot_partition.place_and_compare(shared) {
            Ok(()) => return Ok(()),
            Err(error) if tries == TRIES => return Err(error),
            Err(error) => crate::warn!("{} (try {} of {})", error, tries, TRIES),
        }
        tries += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Makes the kernel see the new partitions. A kernel without a parser for them sees none, and that is no error.
fn reread_table(disk: &str) -> Result<(), Error> {
    let file = rustix::fs::open(disk, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing("opening", disk)?;
    for _ in 0..20 {
        match block::reread_partitions(&file) {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(100)),
            Err(errno) => {
                let error = Error::os("reading the new partition table of", disk, errno);
                crate::debug!("{}", error);
                break;
            }
            Ok(()) => break,
        }
    }
    Ok(())
}

struct BootPartition<'a> {
    plan: &'a Plan,
    base: &'a str,
    disk: &'a str,
    boot: BootPlan,
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
        rustix::fs::sync();
        // Mounted anew, so that what is compared comes from the disk.
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
        rustix::mount::mount(device.as_str(), point.as_str(), kind, flags, None)
            .doing("mounting the new boot partition", &device)?;
        drop(loop_device);
        let result = work(&point);
        let unmounted = unmount(&point);
        if let Ok(file) = rustix::fs::open(device.as_str(), OFlags::RDONLY, Mode::empty()) {
            // Best effort: the next mount reads through the cache of this node.
            let _ = block::flush_buffers(&file);
        }
        result.and(unmounted)
    }

    /// The node to mount, and what keeps it there until it is.
    fn device(&self) -> Result<(PathText, Option<OwnedFd>), Error> {
        if let Some(number) = device::partition_at(&self.plan.target.name, self.boot.start) {
            let path = crate::path!("{}/{}/boot-partition", self.base, names::DEV)?;
            // Left over from an earlier try, perhaps with another number.
            let _ = rustix::fs::unlink(path.as_str());
            device::make_node(&path, FileType::BlockDevice, number.to_dev())?;
            return Ok((path, None));
        }
        let disk = rustix::fs::open(self.disk, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing("opening", self.disk)?;
        let nodes = crate::path!("{}/{}", self.base, names::DEV)?;
        let device = loops::attach(&nodes, &disk, self.boot.start, self.boot.length)?;
        crate::debug!("the kernel knows no such partition: using {}", device.path.as_str());
        Ok((device.path, Some(device.descriptor)))
    }

    /// Copies a file beside its place, syncs it, and renames it there: it is whole or not there.
    fn place(&self, point: &str, from: &str, to: &str) -> Result<(), Error> {
        let source = self.source(from)?;
        let path = crate::path!("{}/{}", point, to)?;
        let fresh = crate::path!("{}.new", path.as_str())?;
        make_parents(point, to)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::open(fresh.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .doing("making", &fresh)?;
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
        rustix::fs::rename(fresh.as_str(), path.as_str()).doing("renaming", &fresh)
    }

    fn compare(&self, point: &str, from: &str, to: &str) -> Result<(), Error> {
        let source = self.source(from)?;
        let path = crate::path!("{}/{}", point, to)?;
        let file = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .doing("opening", &path)?;
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
        rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .doing("opening", &path)
    }
}

/// Makes the directories above a file.
fn make_parents(point: &str, to: &str) -> Result<(), Error> {
    for (at, _) in to.match_indices('/') {
        let directory = crate::path!("{}/{}", point, to.get(..at).unwrap_or_default())?;
        match rustix::fs::mkdir(directory.as_str(), Mode::RWXU) {
            Err(Errno::EXIST) => {}
            result => result.doing("making", &directory)?,
        }
    }
    Ok(())
}

/// Unmounts, giving whoever looks at a new mount (udev on a rescue system) two seconds.
fn unmount(point: &str) -> Result<(), Error> {
    for _ in 0..20 {
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(100)),
            result => return result.doing("unmounting", point),
        }
    }
    Err(Error::os("unmounting", point, Errno::BUSY))
}
