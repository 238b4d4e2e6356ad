//! Whether the loaders of a Jetson are written, what they are written to, and what with.
//!
//! They must be those that the image is for: a new OS below other loaders does not start. All that can be known of it
//! is known here: the device, and the file in the image, by its place and its CRC.

use super::compatible::{Wish, refuse_unless};
use crate::balena::boot_blob::{self, file_for};
use crate::balena::devices::Loaders;
use crate::boot_blob::{Area, BootBlob, Device};
use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::error::Error;
use crate::image::CHUNK;
use crate::image::decode::Decoder;
use crate::image::reader::ImageReader;
use crate::new_os::examination::Examined;
use crate::stage1::look::boot_area;
use crate::stage1::look::identity::Identity;
use crate::text::Text;

/// What the boot blob goes to, on a board that needs one; before anything slow. The program for 32-bit ARM writes none,
/// and `compatible` has refused.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn area(
    options: &Options,
    identity: &Identity,
    wish: &Wish,
    target: &Disk,
    warn: &mut dyn FnMut(&str),
) -> Result<Option<Area>, Error> {
    let board = identity.board.filter(|board| board.accepts(wish.effective()));
    let Some(Loaders::Blob(device)) = board.map(|board| board.loaders) else {
        return Ok(None);
    };
    if cfg!(target_arch = "arm") {
        return Ok(None);
    }
    if options.has(Flag::InNamespace) {
        warn("no boot blob is written: the loaders are not this container's");
        return Ok(None);
    }
    if device == Device::Emmc && &*target.name != "mmcblk0" {
        let text: Text<160> = crate::text!(
            "the loaders go to the eMMC and the image to {}: whether they start from there is not known",
            target.name
        );
        warn(&text);
    }
    match boot_area::look(boot_area::CLASSES, boot_area::NODES, device) {
        Ok(area) => Ok(Some(area)),
        Err(error) => refuse_unless(wish.no_dt_check, error, warn).map(|()| None),
    }
}

/// Finds the boot blob in the image. A packed one is decoded for it, once for each step back.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn find(
    area: Option<Area>,
    image: &Examined<'_>,
    wish: &Wish,
    buffer: &mut [u8],
    warn: &mut dyn FnMut(&str),
) -> Result<Option<BootBlob>, Error> {
    let Some(area) = area.filter(|_| !cfg!(target_arch = "arm")) else {
        return Ok(None);
    };
    let mut decoder = Decoder::new(image.source, image.stream);
    let mut reader = ImageReader::new(&mut decoder, buffer, Some(&image.map));
    let found = boot_blob::find(&mut reader, &image.table, area).and_then(|blob| {
        // Stage 2 reads it from the disk before that has its first chunk.
        let mut starts = blob.extents.iter().map(|extent| extent.start);
        if starts.any(|start| start != 0 && start < CHUNK as u64) {
            let why = "it begins in the first MiB, which is written last";
            return Err(Error::refused("looking at the boot blob of", "the image", why));
        }
        Ok(blob)
    });
    match found {
        Ok(blob) => {
            let (file, name) = (file_for(area.device), area.device.name());
            crate::info!("the image has {}, {} bytes for /dev/{}", file, blob.length, name);
            Ok(Some(blob))
        }
        Err(error) => refuse_unless(wish.no_dt_check, error, warn).map(|()| None),
    }
}

/// In words, for the page.
pub fn shown(blob: &BootBlob) -> Text<120> {
    let device = blob.area.device;
    crate::text!("{}, {} bytes, to /dev/{}", file_for(device), blob.length, device.name())
}
