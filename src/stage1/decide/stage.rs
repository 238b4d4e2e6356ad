//! Where the packed image waits until it is written: in memory, or on the disk that it is on already.
//!
//! Memory is the better place, since nothing that happens to a disk touches it; but it must be there. On a disk what
//! the new OS will overwrite is copied behind it beforehand, into a file of the old OS, so that nothing of the old OS
//! is lost by that: there must be room.

use super::budget::Budget;
use super::planning;
use crate::cli::{Flag, Options, Staging};
use crate::disk::copies::{self, COPIES};
use crate::disk::device::Disk;
use crate::disk::file::{FileOnDisk, Room, kept_otherwise};
use crate::disk::identity;
use crate::disk::room::{self, Overwritten, Sums};
use crate::disk::stack;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::pieces;
use crate::image::stream::Stream;
use crate::new_os::examination::Examined;
use crate::plan::DiskPlan;
use crate::stage1::look::cgroup;
use crate::stage1::look::transport::{self, Transport};
use crate::text::{PathText, Size, Text, split_last};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// How much more memory than is needed there must be for the image to wait in it, in bytes: services live on.
const AMPLE: u64 = 16 << 20;
/// The file system of the old OS is left of its room one of so many bytes of its size, no less and no more bytes than
/// these, and one of so many that are copied, for its own books. After a power cut journald sets 8 MiB aside anew for
/// its journal, and as many for that of each user; and other logs, leases and packages are written.
const LEFT_SHARE: u64 = 16;
const LEFT_LEAST: u64 = 8 << 20;
const LEFT_MOST: u64 = 64 << 20;
const SHARE: u64 = 64;
/// How many pieces more than were counted there may be: the room for copies is in pieces, too.
const MORE_PIECES: u64 = 8192;

/// Where the packed image waits.
// One of them is there in a run.
#[allow(clippy::large_enum_variant)]
pub enum Stage {
    /// In memory.
    Memory,
    /// On a disk.
    Disk(OnDisk),
    /// On this disk, which the work directory is on; a dry run, which stores nothing, does not know where on it.
    WorkDirectory(Disk),
}

/// An image file that stays where it is, as far as it outlives there.
pub struct OnDisk {
    /// The file.
    pub file: FileOnDisk,
    /// What is written of its disk.
    pub over: Overwritten,
    /// What of the image outlives.
    pub sums: Sums,
}

/// What was decided, and why.
pub struct Decided {
    /// Where.
    pub stage: Stage,
    /// Why there.
    pub why: Text<200>,
    /// What an earlier takeover has copied beside the image, and left.
    pub leftover: Option<PathText>,
}

/// Chooses the place. `budget` is that of an image in memory, `available` the memory that there is, and `file` the
/// image file, if this device has it.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn decide(
    options: &Options,
    file: Option<OwnedFd>,
    target: &Disk,
    image: &Examined<'_>,
    budget: &Budget,
    available: u64,
) -> Result<Decided, Error> {
    let leftover = match &file {
        // A path that is too long for a name beside it has none.
        Some(file) => leftover_beside(file).unwrap_or(None),
        None => None,
    };
    if let Some(path) = leftover.as_ref().filter(|_| options.has(Flag::DryRun)) {
        crate::info!("an earlier takeover has left {}: one that is no dry run removes it", path);
    }
    let find = || match file {
        Some(file) => on_disk(file, target, image.scan.length, image.stream),
        None => check_work_directory(options, target, image.scan.length, image.stream.length),
    };
    Ok(Decided { leftover, ..choose(options.staging, budget, available, &mut Some(find))? })
}

/// The copies beside an image file that an earlier takeover has left. What no takeover has made is in the way only
/// where copies are made.
fn leftover_beside(image: &OwnedFd) -> Result<Option<PathText>, Error> {
    let path = copies_beside(&files::path_of(image)?)?;
    Ok(matches!(copies::left(&path), Ok(Some(_))).then_some(path))
}

/// Refuses an image of `length` packed bytes that is to be fetched, if it could wait nowhere. `available` is the memory
/// that there is once it is fetched.
#[cfg(feature = "http")]
pub fn check_before_download(
    options: &Options,
    target: &Disk,
    length: u64,
    budget: &Budget,
    available: u64,
) -> Result<(), Error> {
    // How long the image is, is not known yet: a part of the disk as long as the packed one is taken, at least.
    let find = || check_work_directory(options, target, length, length);
    match choose(options.staging, budget, available, &mut Some(find))?.stage {
        Stage::Memory => budget.check(available, cgroup::left()),
        _ => Ok(()),
    }
}

fn choose<F: FnOnce() -> Result<Stage, Error>>(
    wanted: Option<Staging>,
    budget: &Budget,
    available: u64,
    find: &mut Option<F>,
) -> Result<Decided, Error> {
    let mut find = || find.take().map_or_else(|| Ok(Stage::Memory), |find| find());
    let decided = |stage, why: &str| Ok(Decided { stage, why: Text::from(why), leftover: None });
    let fits = |available| budget.check(available, cgroup::left()).is_ok();
    match wanted {
        Some(Staging::Ram) => decided(Stage::Memory, "--stage ram"),
        Some(Staging::Disk) => decided(find().map_err(|error| error.as_refusal())?, "--stage disk"),
        None if fits(available.saturating_sub(AMPLE)) => decided(Stage::Memory, "it fits there"),
        None => match find() {
            Ok(stage) => {
                let why = not_ample(budget, available, cgroup::left());
                Ok(Decided { stage, why, leftover: None })
            }
            // The budget is checked by who asks: there it is refused with its figures.
            Err(error) => {
                crate::info!("the image cannot wait on the disk: {}", error);
                let just = if fits(available) { ", and just fits" } else { "" };
                let why = crate::text!("it cannot wait on the disk{}", just);
                Ok(Decided { stage: Stage::Memory, why, leftover: None })
            }
        },
    }
}

/// Why memory is not the place: what the control groups of this process leave it, or what there is at all.
fn not_ample(budget: &Budget, available: u64, left: Option<u64>) -> Text<200> {
    match left.filter(|left| budget.ramfs() > *left) {
        Some(left) => crate::text!(
            "it would take {} of memory, and the control group leaves {}",
            Size(budget.ramfs()),
            Size(left)
        ),
        None => {
            crate::text!("it would take {} of {} of memory", Size(budget.needed()), Size(available))
        }
    }
}

/// The image file as it lies on its disk; refused where it would not outlive, or cannot be made to.
fn on_disk(file: OwnedFd, target: &Disk, written: u64, stream: Stream) -> Result<Stage, Error> {
    // What has no place on the disk yet gets one.
    rustix::fs::fsync(&file).doing("writing to its disk", "the image file")?;
    let file = FileOnDisk::find(file)?;
    let over = overwritten(&file.disk, target, written)?;
    let mut all = file.pieces(stream.offset, stream.offset + stream.length);
    let sums = room::count(&mut all, over)?;
    if sums.overwritten > 0 {
        check_room(&file, &copies_beside(&file.path)?, over, sums.overwritten)?;
    }
    Ok(Stage::Disk(OnDisk { file, over, sums }))
}

/// What is written of the disk that the image file is on: nothing of another one than the target. Such a one must be
/// readable when the old OS has ended.
fn overwritten(disk: &Disk, target: &Disk, written: u64) -> Result<Overwritten, Error> {
    let refuse = |why: &str| Err(Error::refused("reading the image from", &disk.name, why));
    if disk.number == target.number {
        return Ok(Overwritten::of(target.size, written));
    }
    if disk.name.starts_with("loop") || stack::lies_on(disk.number, target.number)? {
        return refuse("it is a loop device, which goes with the old OS");
    }
    let [other, its] = [disk, target].map(|disk| identity::of_number(identity::SYSFS, disk.number));
    if disk.size == target.size && !its.is_empty() && identity::is_same(&its, &other, true) {
        return refuse("it tells that it is the disk that is written, by another way to it");
    }
    match transport::of(&disk.name) {
        Transport::Network(_) => refuse("it is reached over a network, which ends with the old OS"),
        _ => Ok(Overwritten::nothing()),
    }
}

/// There is room for `needed` bytes of copies at `path`, on the file system of an image file or a work directory.
fn check_room(file: &FileOnDisk, path: &str, over: Overwritten, needed: u64) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::refused("making room on the disk for", "the image", why));
    if !file.sets_room_aside() {
        return refuse("a part of it lies where the new OS will be, and FAT sets no room aside");
    }
    if !file.is_writable() {
        return refuse(
            "a part of it lies where the new OS will be, and its file system is read-only",
        );
    }
    let folder = folder_of(path)?;
    let elsewhere = "it would be on another file system than the image";
    let why = if file.is_beside(&folder) { kept_otherwise(&folder) } else { Some(elsewhere) };
    if let Some(why) = why {
        return Err(Error::refused("making", path, why));
    }
    // They go before any of it is copied.
    let leftover = copies::left(path)?;
    let again = leftover.map_or(Ok(0), |leftover| file.outlived_of(&leftover, over))?;
    let free = file.free(over)? + again;
    let wanted = needed + needed / SHARE + left_to_old_os(&file.room()?);
    if free >= wanted {
        return Ok(());
    }
    let why: Text<200> = crate::text!(
        "{} of it lie where the new OS will be; {} are free behind that, and {} are needed",
        Size(needed),
        Size(free),
        Size(wanted)
    );
    refuse(&why)
}

/// What must stay free of a file system, in bytes.
fn left_to_old_os(room: &Room) -> u64 {
    (room.size / LEFT_SHARE).clamp(LEFT_LEAST, LEFT_MOST)
}

/// What is free beyond half of that: services write, too, while the image is copied. Fails when that is nothing.
pub fn spare(file: &FileOnDisk) -> Result<u64, Error> {
    let room = file.room()?;
    let spare = room.free.saturating_sub(left_to_old_os(&room) / 2);
    if spare > 0 {
        return Ok(spare);
    }
    let why: Text<80> = crate::text!("others have filled it: {} are free", Size(room.free));
    Err(Error::failed("copying the image within", "its file system", &why)
        .advice("start it again when there is room"))
}

/// The work directory could hold an image of `packed` bytes, `written` when unpacked, whose part that is overwritten is
/// moved. What becomes of the file is not known: at worst all of it is.
fn check_work_directory(
    options: &Options,
    target: &Disk,
    written: u64,
    packed: u64,
) -> Result<Stage, Error> {
    let path = options.work_dir.as_str();
    let directory = files::opened(path, OFlags::DIRECTORY | OFlags::RDONLY)?;
    let directory = FileOnDisk::find(directory)?;
    let over = overwritten(&directory.disk, target, written)?;
    if over != Overwritten::nothing() {
        check_room(&directory, &files::below(path, COPIES)?, over, packed)?;
    }
    Ok(Stage::WorkDirectory(directory.disk))
}

/// Opens the folder of a path.
pub fn folder_of(path: &str) -> Result<OwnedFd, Error> {
    let folder = split_last(path, b'/').unwrap_or_default().0;
    files::opened(if folder.is_empty() { "/" } else { folder }, OFlags::DIRECTORY)
}

/// Where what is copied goes: into the directory of the image file.
pub fn copies_beside(image: &str) -> Result<PathText, Error> {
    let (folder, _) = split_last(image, b'/').unwrap_or_default();
    crate::path!("{}/{}", folder, COPIES)
}

/// How many pieces more so many bytes may be in, since none is longer than the longest: each is divided at blocks.
fn parts(bytes: u64) -> u64 {
    bytes / (pieces::LONGEST - pieces::ALIGNED)
}

impl OnDisk {
    /// Its disk, as stage 2 knows that again.
    pub fn planned(&self) -> Result<DiskPlan, Error> {
        planning::disk(&self.file.disk)
    }

    /// How many bytes the list of its pieces takes at most.
    pub fn list_length(&self) -> u64 {
        let copied = if self.sums.overwritten > 0 { MORE_PIECES } else { 0 };
        (self.sums.pieces * 2 + copied + parts(self.sums.on_disk)) * pieces::RECORD
    }
}

impl Decided {
    /// What the image takes of the memory there, of `staged` bytes that it would take if it waited in memory, and the
    /// list of its pieces.
    pub fn memory(&self, staged: u64) -> (u64, u64) {
        match &self.stage {
            Stage::Memory => (staged, 0),
            Stage::Disk(place) => (0, place.list_length()),
            Stage::WorkDirectory(_) => (0, (MORE_PIECES + parts(staged)) * pieces::RECORD),
        }
    }

    /// How many packed bytes stage 2 reads from a disk, each time.
    pub fn read(&self, packed: u64) -> u64 {
        match &self.stage {
            Stage::Memory => 0,
            Stage::Disk(place) => place.sums.on_disk,
            Stage::WorkDirectory(_) => packed,
        }
    }

    /// The disk that it reads them from.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.stage {
            Stage::Memory => None,
            Stage::Disk(place) => Some(&place.file.disk),
            Stage::WorkDirectory(disk) => Some(disk),
        }
    }

    /// How many bytes are copied on the disk beforehand.
    pub fn copied(&self) -> u64 {
        match &self.stage {
            Stage::Disk(place) => place.sums.overwritten,
            _ => 0,
        }
    }

    /// `ram` or `disk`, as the option has it.
    pub fn name(&self) -> &'static str {
        match self.stage {
            Stage::Memory => "ram",
            _ => "disk",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::device::Number;

    fn chosen(
        wanted: Option<Staging>,
        available: u64,
        found: Result<Stage, Error>,
    ) -> Result<(&'static str, String), Error> {
        let budget = Budget { image: 100 << 20, rest: 0, small: 0, swapped: 0 };
        let decided = choose(wanted, &budget, budget.needed() + available, &mut Some(|| found))?;
        Ok((decided.name(), decided.why.to_string()))
    }

    #[test]
    fn memory_is_taken_where_it_is_ample_and_the_disk_where_it_is_not() {
        let refusal = || Err(Error::refused("a", "b", "c"));
        let disk = || {
            let (name, number) = (Text::from("sda"), Number { major: 8, minor: 0 });
            Ok(Stage::WorkDirectory(Disk {
                name,
                number,
                size: 0,
                logical_block: 512,
                read_only: false,
            }))
        };
        let name = |wanted, available, found| chosen(wanted, available, found).unwrap().0;
        assert_eq!(name(None, AMPLE, disk()), "ram");
        assert_eq!(name(None, AMPLE - 1, disk()), "disk");
        assert_eq!(name(None, AMPLE - 1, refusal()), "ram");
        assert_eq!(name(Some(Staging::Disk), AMPLE, disk()), "disk");
        assert_eq!(name(Some(Staging::Ram), 0, disk()), "ram");
        let error = chosen(Some(Staging::Disk), AMPLE, refusal()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let (_, why) = chosen(None, 0, disk()).unwrap();
        assert!(why.contains("it would take "), "{why}");
    }

    #[test]
    fn what_leaves_too_little_memory_is_named() {
        let budget = Budget { image: 100 << 20, rest: 0, small: 0, swapped: 0 };
        let why = |left| not_ample(&budget, 110 << 20, left).to_string();
        assert!(why(None).ends_with(" of 110.0 MiB of memory"), "{}", why(None));
        assert_eq!(why(Some(budget.ramfs())), why(None));
        let limited = why(Some(8 << 20));
        assert!(limited.ends_with("and the control group leaves 8.0 MiB"), "{limited}");
    }

    #[test]
    fn the_old_os_is_left_a_part_of_its_file_system() {
        let left = |mib: u64| left_to_old_os(&Room { size: mib << 20, free: 0, for_all: 0 });
        assert_eq!([50, 512, 30_000].map(left), [8 << 20, 32 << 20, 64 << 20]);
    }

    #[test]
    fn the_image_is_said_to_fit_in_memory_only_where_it_does() {
        let why = |budget: Budget, available| {
            let refusal = || Err(Error::refused("a", "b", "c"));
            choose(None, &budget, available, &mut Some(refusal)).unwrap().why.to_string()
        };
        let budget = Budget { image: 100 << 20, rest: 0, small: 0, swapped: 0 };
        assert_eq!(why(budget, budget.needed()), "it cannot wait on the disk, and just fits");
        assert_eq!(why(budget, budget.needed() - 1), "it cannot wait on the disk");
    }

    #[test]
    fn copies_go_beside_the_image() {
        assert_eq!(&*copies_beside("/var/lib/a.gz").unwrap(), "/var/lib/.takeover-copies");
        assert_eq!(&*copies_beside("/a.gz").unwrap(), "/.takeover-copies");
    }
}
