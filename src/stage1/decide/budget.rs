//! The memory budget: what the RAMFS will hold against what is there, before anything changes.

use crate::error::{Doing, Error};
use crate::files;
use crate::image::patches;
use crate::image::scan::Scan;
use crate::new_os::new_files::NewFiles;
use crate::plan::Plan;
use crate::stage1::look::facts::Facts;
use crate::text::{Size, Text};

/// What must stay free for the live system while the RAMFS fills: init writes its whole state down when it executes
/// itself again.
const RESERVE: u64 = 8 << 20;
/// What the RAMFS takes beyond the content of its larger files: inodes, page tables, the log of stage 2, what the API
/// is told.
const OVERHEAD: u64 = 1 << 20;
/// And of each so many bytes one, for the tree of a file's pages: nodes of 576 bytes for 64 pages (lib/xarray.c).
const TREE: u64 = 400;

/// What stage 2 needs, in bytes.
#[derive(Clone, Copy)]
pub struct Budget {
    /// The staged image.
    pub image: u64,
    /// This program, the chunk map, the patches and the files of the new OS.
    pub rest: u64,
    /// What of the rest comes last: the chunk map, the patches, and the files but for the backup.
    pub small: u64,
    /// What comes back from swap when it is turned off.
    pub swapped: u64,
}

impl Budget {
    /// The budget of a takeover.
    // Not in the large frame of its caller (size-report/README.md).
    #[inline(never)]
    pub fn of(
        facts: &Facts,
        scan: &Scan,
        plan: &Plan,
        new_files: &NewFiles,
    ) -> Result<Self, Error> {
        let program = files::status("/proc/self/exe").doing("looking at", "/proc/self/exe")?;
        let map = u64::from(scan.chunks) * crate::image::map::RECORD;
        let patches = u64::from(plan.image.patches) * patches::RECORD as u64;
        let files = new_files.staged_length(plan.boot.is_some());
        let backup = new_files.backup().map_or(0, |(_, length)| length);
        // A backup that has grown a little since it was counted still finds room.
        let spare = backup / 8;
        Ok(Self {
            image: scan.staged_length,
            rest: program.st_size.max(0) as u64 + map + patches + files + spare,
            small: map + patches + files.saturating_sub(backup),
            swapped: facts.swaps.iter().map(|swap| swap.used).sum(),
        })
    }

    /// What a packed image that is still to be fetched needs at least.
    #[cfg(feature = "http")]
    pub fn of_packed(facts: &Facts, length: u64) -> Self {
        let swapped = facts.swaps.iter().map(|swap| swap.used).sum();
        Self { image: length, rest: 0, small: 0, swapped }
    }

    /// The same with an image of which so many bytes are in memory, and a list of so many bytes of where the others
    /// are.
    pub fn with_image(self, (image, list): (u64, u64)) -> Self {
        Self { image, rest: self.rest + list, ..self }
    }

    /// Like `check`, where `taken` bytes of what there is are as good as taken.
    pub fn check_without(
        &self,
        taken: u64,
        available: u64,
        left: Option<u64>,
    ) -> Result<(), Error> {
        let left = left.map(|left| left.saturating_sub(taken));
        self.check(available.saturating_sub(taken), left)
    }

    /// The size of the RAMFS.
    pub fn ramfs(&self) -> u64 {
        self.image + self.overhead()
    }

    /// All but the image itself.
    fn overhead(&self) -> u64 {
        self.rest + OVERHEAD + self.image / TREE
    }

    /// What of that is still to come when image, program and backup are in it: the rest, and the log of stage 2.
    pub fn still_to_come(&self) -> u64 {
        self.small + OVERHEAD / 2
    }

    /// All that must be available now.
    pub fn needed(&self) -> u64 {
        self.ramfs() + self.swapped + RESERVE
    }

    /// Refuses, with figures, when there is too little memory.
    /// What the control groups of this process leave it must do for the RAMFS; what comes back from swap and what init
    /// takes is not theirs.
    pub fn check(&self, available: u64, left: Option<u64>) -> Result<(), Error> {
        if let Some(left) = left.filter(|left| self.ramfs() > *left) {
            let why: Text<160> = crate::text!(
                "{} are needed in memory, and its control group leaves it {}",
                Size(self.ramfs()),
                Size(left)
            );
            return Err(Error::refused("comparing with the limit of", "this process", &why)
                .advice("start it outside of that group (MemoryMax=, a container)"));
        }
        if self.needed() <= available {
            return Ok(());
        }
        let why: Text<240> = crate::text!(
            "{} are needed ({} for the image, {} for the program and its files, {} from swap, {} reserve) and {} are available",
            Size(self.needed()),
            Size(self.image),
            Size(self.overhead()),
            Size(self.swapped),
            Size(RESERVE),
            Size(available)
        );
        Err(Error::refused("comparing with the memory of", "this device", &why).advice(
            "stop services, or put the image where it can wait: on a stick, or on ext4 or xfs with room for it",
        ))
    }
}

/// How many of `to_be_stored` bytes a work directory will take of the memory: all, where it is a file system in memory.
#[cfg(feature = "http")]
pub fn in_memory(work_dir: &str, to_be_stored: u64) -> Result<u64, Error> {
    let status = rustix::fs::statfs(work_dir).doing("looking at", work_dir)?;
    Ok(if files::is_in_memory(&status) { to_be_stored } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_work_directory_in_memory_will_take_is_as_good_as_taken() {
        #[cfg(feature = "http")]
        assert_eq!(in_memory("/proc", 5).unwrap(), 0, "no memory of ours is behind it");
        #[cfg(feature = "http")]
        assert!(in_memory("/nowhere", 5).is_err());
        let budget = Budget { image: 100 << 20, rest: 2 << 20, small: 1 << 20, swapped: 0 };
        let (needed, ramfs) = (budget.needed(), budget.ramfs());
        budget.check_without(7, needed + 7, Some(ramfs + 7)).unwrap();
        assert!(budget.check_without(7, needed + 6, Some(ramfs + 7)).is_err());
        assert!(
            budget.check_without(7, needed + 7, Some(ramfs + 6)).is_err(),
            "tmpfs is charged, too"
        );
    }

    #[test]
    fn too_little_is_refused_with_figures() {
        let budget = Budget { image: 100 << 20, rest: 2 << 20, small: 1 << 20, swapped: 5 << 20 };
        let enough = (116 << 20) + (100 << 20) / 400;
        budget.check(enough, None).unwrap();
        budget.check(enough, Some(budget.ramfs())).unwrap();
        let text: Text<600> =
            crate::text!("{}", budget.check(enough, Some(budget.ramfs() - 1)).unwrap_err());
        assert!(text.contains("its control group leaves it 103.2 MiB"), "{}", &*text);
        let text: Text<600> = crate::text!("{}", budget.check(enough - 1, None).unwrap_err());
        assert!(text.contains("116.2 MiB are needed (100.0 MiB"), "{}", &*text);
        assert!(text.contains("116.2 MiB are available"), "{}", &*text);
    }
}
