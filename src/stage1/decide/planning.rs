//! From facts and the examined image to the plan that stage 2 follows.

use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::disk::identity;
use crate::disk::mounts::FileSystem;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::format::Stream;
use crate::new_os::examination::Examined;
use crate::new_os::new_files::NewFiles;
use crate::new_os::one_image::OneImage;
use crate::plan::{self, DiskPlan, ImagePlan, PartitionPlan, Place, Plan};
use crate::text::{Size, Text};

/// What a small file or a directory may take of an ext4 file system, in bytes: a block, and its share of the books.
const BLOCK: u64 = 8 * 1024;
/// What a fallback log and the file system's own books may need beside a backup, in bytes.
const ROOM_FOR_LOG: u64 = 1 << 20;

/// Puts the plan together, but for the places of the log. Fails when files are to be placed on a partition that none
/// can be placed on.
pub fn plan(
    options: &Options,
    target: &Disk,
    image: &Examined,
    one: &OneImage,
    new_files: &NewFiles,
) -> Result<Plan, Error> {
    let boot = boot_partition(image, new_files)?;
    let fallback_log = fallback_log(options)?;
    let data = match new_files.count(Place::Data) {
        (0, _) if fallback_log.is_none() => None,
        _ => Some(data_partition(image, new_files)?),
    };
    // Only the packed image itself is staged, so in the copy it begins at 0.
    let stream = Stream { offset: 0, ..image.stream };
    let image = ImagePlan { stream, ..one.planned(image)? };
    let target = disk(target)?;
    Ok(Plan {
        pretend: options.has(Flag::Pretend),
        on_failure: options.on_failure,
        log_level: options.stage2_log_level.unwrap_or(options.log_level),
        watchdog: options.watchdog,
        boot,
        data,
        new_files: new_files.plan(boot.is_some())?,
        fallback_log,
        log_receiver: plan::bounded("", options.log_udp.as_deref().unwrap_or_default())?,
        ..Plan::of(image, target)
    })
}

/// A disk, with what stage 2 knows it again by; not once it was plugged in again, when another disk says the same.
pub fn disk(disk: &Disk) -> Result<DiskPlan, Error> {
    let told = identity::of_number(identity::SYSFS, disk.number);
    let is_alone = identity::find(identity::SYSFS, &told, disk.size) == Some(disk.number);
    let told = if is_alone { &told } else { identity::sequence_of(&told) };
    Ok(DiskPlan { identity: plan::bounded("use another disk", told)?, ..DiskPlan::of(disk)? })
}

/// True when a disk is the one of a plan, and has not been plugged in again since: one in the place of another may have
/// its name, its number and its size.
pub fn is_same(planned: &DiskPlan, now: &Disk) -> bool {
    let told = identity::of_number(identity::SYSFS, now.number);
    planned.number == now.number
        && planned.size == now.size
        && identity::is_same(&planned.identity, &told, false)
}

/// A plan that was made again for files that have changed: the disk stays the one that was asked about, by which stage
/// 2 knows it, whatever is in its place by now, and so do the places of the log.
pub fn anew(was: &mut Plan, plan: Plan) -> Plan {
    let (old_log, log_device) = (was.old_log.take(), was.log_device.take());
    Plan { old_log, log_device, target: was.target.clone(), ..plan }
}

/// The new boot partition, when files are to be placed on it by a mount: it is ext4, and there is room for them. Those
/// on a FAT are part of the image.
fn boot_partition(image: &Examined, new_files: &NewFiles) -> Result<Option<PartitionPlan>, Error> {
    let (count, bytes) = new_files.count(Place::Boot);
    let layout = &image.layout;
    if count == 0 || layout.file_system == Some(FileSystem::Vfat) {
        return Ok(None);
    }
    let object: Text<32> = crate::text!("partition {}", layout.boot_number);
    let refuse = |why: &str| Error::refused("looking at the boot partition,", &object, why);
    if layout.file_system.is_none() {
        return Err(
            refuse("it is neither FAT nor ext4").advice("config.json cannot be placed on it")
        );
    }
    // A block for each file and for each directory, and room for the copy that is renamed over an old file.
    let needed = bytes + (count as u64 + 4) * BLOCK;
    if let Some(free) = layout.boot_free.filter(|free| *free < needed) {
        let why: Text<120> =
            crate::text!("{} are free on it, and {} may be needed", Size(free), Size(needed));
        return Err(refuse(&why).advice("use an image with a larger boot partition"));
    }
    mountable(layout.boot_start, &refuse)?;
    Ok(Some(PartitionPlan { start: layout.boot_start, length: layout.boot_length }))
}

/// A partition that is mounted before the first chunk is written must not begin in that.
fn mountable(start: u64, refuse: &dyn Fn(&str) -> Error) -> Result<(), Error> {
    if start >= CHUNK as u64 {
        return Ok(());
    }
    Err(refuse("it begins in the first MiB, which is written after files are placed on it")
        .advice("use an image whose partitions begin behind the first MiB"))
}

/// What a backup of so many bytes takes on the new data partition.
fn room_for(backup: u64) -> u64 {
    backup + backup / 64 + ROOM_FOR_LOG
}

/// The largest backup that fits on the new data partition, in bytes, when there is one.
#[cfg_attr(not(feature = "backup"), allow(dead_code))]
pub fn largest_backup(image: &Examined) -> u64 {
    let free = image.data.map_or(0, |data| data.free);
    free.saturating_sub(ROOM_FOR_LOG) / 65 * 64
}

/// The new data partition; the backup fits on it.
fn data_partition(image: &Examined, new_files: &NewFiles) -> Result<PartitionPlan, Error> {
    let refuse = |why: &str| Error::refused("looking for the data partition of", "the image", why);
    let Some(data) = image.data else {
        return Err(refuse("there is no resin-data")
            .advice("a backup or a fallback log can only be left on a balenaOS"));
    };
    let (_, bytes) = new_files.count(Place::Data);
    let needed = room_for(bytes);
    if needed > data.free {
        let why: Text<160> = crate::text!(
            "{} are free on it, and the backup needs {}: it grows only after the first boot",
            Size(data.free),
            Size(needed)
        );
        return Err(refuse(&why).advice("keep less: see --backup-cfg"));
    }
    mountable(data.start, &refuse)?;
    Ok(PartitionPlan { start: data.start, length: data.length })
}

fn fallback_log(options: &Options) -> Result<Option<heapless::String<96>>, Error> {
    if !options.has(Flag::FallbackLog) {
        return Ok(None);
    }
    let path: Text<96> = crate::text!(
        "{}/{}",
        options.fallback_log_dir.as_str(),
        options.fallback_log_name.as_str()
    );
    plan::bounded("use shorter names", &path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balena::layout::{DataPartition, Layout};
    use crate::disk::table::Table;
    use crate::image::map::ChunkMap;
    use crate::image::scan::Scan;

    #[test]
    fn a_fallback_log_only_when_it_was_asked_for() {
        let read = |line: &str| {
            let words = line.split_whitespace().map(std::ffi::OsString::from);
            fallback_log(&crate::cli::parse(words).unwrap()).unwrap()
        };
        assert_eq!(read("-i a --fallback-log-dir x"), None);
        assert_eq!(read("-i a --fallback-log").unwrap(), "fallback_log/fallback.log");
        let path = read("-i a --fallback-log --fallback-log-dir b --fallback-log-filename c.txt");
        assert_eq!(path.unwrap(), "b/c.txt");
    }

    #[test]
    fn a_plan_that_is_made_anew_keeps_the_disk_that_was_asked_about_and_the_places_of_the_log() {
        let mut was = crate::plan::tests::sample();
        let mut plan = was.clone();
        plan.target.identity = heapless::String::try_from("diskseq=99 serial=ANOTHER").unwrap();
        (plan.old_log, plan.log_device, plan.watchdog) = (None, None, was.watchdog + 1);
        let (asked, watchdog) = (was.target.identity.clone(), plan.watchdog);
        let anew = anew(&mut was, plan);
        assert_eq!(anew.target.identity, asked);
        assert!(anew.old_log.is_some() && anew.log_device.is_some());
        assert_eq!(anew.watchdog, watchdog, "all else is as it was made anew");
    }

    static NOTHING: Vec<u8> = Vec::new();

    /// An image of a boot partition with so many bytes free, and of a data partition likewise.
    fn image(boot_free: Option<u64>, data_free: u64) -> Examined<'static> {
        Examined {
            source: &NOTHING,
            stream: crate::plan::tests::sample().image.stream,
            scan: Scan {
                length: 0,
                chunks: 0,
                zero_chunks: 0,
                map_crc: 0,
                staged_length: 0,
                packed_crc: 0,
            },
            map: ChunkMap::create().unwrap(),
            table: Table::empty(),
            layout: Layout {
                boot_start: 1 << 20,
                boot_length: 1 << 24,
                boot_number: 1,
                file_system: Some(FileSystem::Vfat),
                boot_free,
                boot_features: Default::default(),
                device_type: Text::new(),
                version: Text::new(),
                is_named: false,
                is_flasher: false,
                has_boot_code: true,
                loaders: None,
                loader_partitions: [0; 3],
            },
            data: Some(DataPartition {
                number: 2,
                start: 1 << 25,
                length: 1 << 25,
                free: data_free,
                features: Default::default(),
            }),
            scan_time: 0,
        }
    }

    #[test]
    fn files_that_do_not_fit_on_the_new_partitions_are_refused() {
        let mut files = NewFiles::new();
        files.add("config.json", "", &[b'x'; 1000]).unwrap();
        let needed = 1000 + 5 * BLOCK;
        let ext4 = |free| {
            let mut image = image(free, 0);
            image.layout.file_system = Some(FileSystem::Ext4);
            image
        };
        assert!(boot_partition(&ext4(Some(needed)), &files).unwrap().is_some());
        assert!(boot_partition(&ext4(None), &files).unwrap().is_some());
        assert!(boot_partition(&ext4(Some(needed - 1)), &files).is_err());
        assert!(boot_partition(&image(Some(0), 0), &files).unwrap().is_none(), "FAT is patched");
        let mut early = ext4(None);
        early.layout.boot_start = CHUNK as u64 - 512;
        assert!(boot_partition(&early, &files).is_err());
        let mut odd = image(None, 0);
        odd.layout.file_system = None;
        assert!(boot_partition(&odd, &files).is_err());

        files.add_backup(64_000).unwrap();
        let needed = 65_000 + ROOM_FOR_LOG;
        data_partition(&image(None, needed), &files).unwrap();
        let most = largest_backup(&image(None, needed));
        assert!((63_900..=64_000).contains(&most) && room_for(most) <= needed, "{most}");
        assert_eq!(largest_backup(&image(None, 5)), 0);
        assert!(data_partition(&image(None, needed - 1), &files).is_err());
        let without = Examined { data: None, ..image(None, 0) };
        assert!(data_partition(&without, &files).is_err());
    }
}
