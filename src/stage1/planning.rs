//! From facts and the examined image to the plan that stage 2 follows.

use super::examination::Examined;
use super::furnishings::Furnishings;
use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::error::Error;
use crate::image::format::Stream;
use crate::plan::{self, ImagePlan, LogPlan, PartitionPlan, Place, Plan, TargetPlan};
use crate::text::Text;

/// Puts the plan together. Fails when files are to be placed on a partition that none can be placed on.
pub fn plan(
    options: &Options,
    target: &Disk,
    image: &Examined,
    furnishings: &Furnishings,
    old_log: Option<LogPlan>,
    log_device: Option<LogPlan>,
) -> Result<Plan, Error> {
    let boot = match furnishings.count(Place::Boot) {
        (0, _) => None,
        _ => Some(boot_partition(image)?),
    };
    Ok(Plan {
        pretend: options.has(Flag::Pretend),
        on_failure: options.on_failure,
        log_level: options.stage2_log_level,
        image: ImagePlan {
            // Only the packed image itself is staged, so in the copy it begins at 0.
            stream: Stream { offset: 0, ..image.stream },
            length: image.scan.length,
            chunks: image.scan.chunks,
            zero_chunks: image.scan.zero_chunks,
            map_crc: image.scan.map_crc,
        },
        target: TargetPlan {
            name: plan::bounded("use a disk with a shorter name", &target.name)?,
            number: target.number,
            size: target.size,
            logical_block: target.logical_block,
        },
        boot,
        data: None,
        furnishings: furnishings.plan()?,
        fallback_log: None,
        old_log,
        log_device,
    })
}

fn boot_partition(image: &Examined) -> Result<PartitionPlan, Error> {
    let layout = &image.layout;
    let file_system = layout.file_system.ok_or_else(|| {
        let object: Text<32> = crate::text!("partition {}", layout.boot_number);
        Error::refused("looking at the boot partition,", &object, "it is neither FAT nor ext4")
            .advice("config.json cannot be placed on it")
    })?;
    Ok(PartitionPlan { start: layout.boot_start, length: layout.boot_length, file_system })
}
