//! From facts and the examined image to the plan that stage 2 follows.

use super::new_files::NewFiles;
use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::disk::mounts::FileSystem;
use crate::error::Error;
use crate::image::format::Stream;
use crate::plan::{self, ImagePlan, LogPlan, PartitionPlan, Place, Plan, TargetPlan};
use crate::stage1::look::examination::Examined;
use crate::text::{Size, Text};

/// The cluster of a FAT so small that room on it could be short, in bytes; larger volumes have larger ones.
const CLUSTER: u64 = 8 * 1024;
/// What a fallback log and the file system's own books may need beside a backup, in bytes.
const ROOM_FOR_LOG: u64 = 1 << 20;

/// Puts the plan together. Fails when files are to be placed on a partition that none can be placed on.
pub fn plan(
    options: &Options,
    target: &Disk,
    image: &Examined,
    new_files: &NewFiles,
    old_log: Option<LogPlan>,
    log_device: Option<LogPlan>,
) -> Result<Plan, Error> {
    let boot = match new_files.count(Place::Boot) {
        (0, _) => None,
        _ => Some(boot_partition(image, new_files)?),
    };
    let fallback_log = fallback_log(options)?;
    let data = match new_files.count(Place::Data) {
        (0, _) if fallback_log.is_none() => None,
        _ => Some(data_partition(image, new_files)?),
    };
    Ok(Plan {
        pretend: options.has(Flag::Pretend),
        on_failure: options.on_failure,
        log_level: options.stage2_log_level.unwrap_or(options.log_level),
        image: ImagePlan {
            // Only the packed image itself is staged, so in the copy it begins at 0.
            stream: Stream { offset: 0, ..image.stream },
            length: image.scan.length,
            chunks: image.scan.chunks,
            zero_chunks: image.scan.zero_chunks,
            map_crc: image.scan.map_crc,
            packed_crc: image.scan.packed_crc,
        },
        target: TargetPlan {
            name: plan::bounded("use a disk with a shorter name", &target.name)?,
            number: target.number,
            size: target.size,
            logical_block: target.logical_block,
        },
        boot,
        data,
        new_files: new_files.plan()?,
        fallback_log,
        old_log,
        log_device,
    })
}

/// The new boot partition; files can be placed on it, and there is room for them.
fn boot_partition(image: &Examined, new_files: &NewFiles) -> Result<PartitionPlan, Error> {
    let layout = &image.layout;
    let object: Text<32> = crate::text!("partition {}", layout.boot_number);
    let refuse = |why: &str| Error::refused("looking at the boot partition,", &object, why);
    let Some(file_system) = layout.file_system else {
        return Err(
            refuse("it is neither FAT nor ext4").advice("config.json cannot be placed on it")
        );
    };
    // A cluster for each file and for each directory, and room for the copy that is renamed over an old file.
    let (count, bytes) = new_files.count(Place::Boot);
    let needed = bytes + (count as u64 + 4) * CLUSTER;
    if let Some(free) = layout.boot_free.filter(|free| *free < needed) {
        let why: Text<120> =
            crate::text!("{} are free on it, and {} may be needed", Size(free), Size(needed));
        return Err(refuse(&why).advice("use an image with a larger boot partition"));
    }
    Ok(PartitionPlan { start: layout.boot_start, length: layout.boot_length, file_system })
}

/// The new data partition; the backup fits on it.
fn data_partition(image: &Examined, new_files: &NewFiles) -> Result<PartitionPlan, Error> {
    let refuse = |why: &str| Error::refused("looking for the data partition of", "the image", why);
    let Some(data) = image.data else {
        return Err(refuse("there is no resin-data")
            .advice("a backup or a fallback log can only be left on a balenaOS"));
    };
    let (_, bytes) = new_files.count(Place::Data);
    let needed = bytes + bytes / 64 + ROOM_FOR_LOG;
    if needed > data.free {
        let why: Text<160> = crate::text!(
            "{} are free on it, and the backup needs {}: it grows only after the first boot",
            Size(data.free),
            Size(needed)
        );
        return Err(refuse(&why).advice("keep less: see --backup-cfg"));
    }
    Ok(PartitionPlan { start: data.start, length: data.length, file_system: FileSystem::Ext4 })
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
    use crate::image::source::FileSource;

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

    /// An image of a boot partition with so many bytes free, and of a data partition likewise.
    fn image(boot_free: Option<u64>, data_free: u64) -> Examined {
        let place = std::env::temp_dir().join(format!("takeover-rooms-{}", std::process::id()));
        std::fs::write(&place, b"").unwrap();
        let source = FileSource::open(place.to_str().unwrap()).unwrap();
        std::fs::remove_file(place).unwrap();
        Examined {
            source,
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
                device_type: Text::new(),
                version: Text::new(),
                is_flasher: false,
                has_boot_code: true,
                loaders: None,
            },
            data: Some(DataPartition {
                number: 2,
                start: 1 << 25,
                length: 1 << 25,
                free: data_free,
            }),
            scan_time: 0,
        }
    }

    #[test]
    fn files_that_do_not_fit_on_the_new_partitions_are_refused() {
        let mut files = NewFiles::new().unwrap();
        files.add("config.json", "", &[b'x'; 1000]).unwrap();
        let needed = 1000 + 5 * CLUSTER;
        boot_partition(&image(Some(needed), 0), &files).unwrap();
        boot_partition(&image(None, 0), &files).unwrap();
        assert!(boot_partition(&image(Some(needed - 1), 0), &files).is_err());
        let mut odd = image(None, 0);
        odd.layout.file_system = None;
        assert!(boot_partition(&odd, &files).is_err());

        files.add_backup(crate::files::unnamed("/tmp").unwrap(), 64_000).unwrap();
        let needed = 65_000 + ROOM_FOR_LOG;
        data_partition(&image(None, needed), &files).unwrap();
        assert!(data_partition(&image(None, needed - 1), &files).is_err());
        let without = Examined { data: None, ..image(None, 0) };
        assert!(data_partition(&without, &files).is_err());
    }
}
