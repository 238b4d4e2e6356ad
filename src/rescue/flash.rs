//! Flashing in a rescue system, from the first look at the image to the last byte: every check comes before stage 2 is
//! given the disk.

use super::image::Checked;
use super::wishes::Wishes;
use crate::balena::config;
use crate::balena::layout::Layout;
use crate::disk::device::{Disk, Number};
use crate::disk::mounts::FileSystem;
use crate::disk::reader::ReadAt;
use crate::disk::{device, writable};
use crate::error::{Doing, Error};
use crate::image::decode::BUFFER;
use crate::image::patches::Patches;
use crate::log;
use crate::new_os::examination::{Examined, ImageFile, examine};
use crate::new_os::new_files::NewFiles;
use crate::new_os::one_image::{self, OneImage};
use crate::new_os::{configuration, consent, fits, kind};
use crate::plan::{DiskPlan, Plan};
use crate::progress::{Flashed, Shared};
use crate::stage2::{self, Staged};
use crate::sys::{map, process};
use crate::text::Text;
use core::sync::atomic::Ordering::SeqCst;

/// The files and the disk, found.
pub struct Found<'a> {
    /// Where the image file is: a path or a URL.
    pub image: &'a str,
    /// Where the configuration is; empty for none.
    pub config: &'a str,
    /// The disk.
    pub target: Number,
}

/// Writes the image to the disk. `head` is a buffer of [`BUFFER`] bytes that outlives this process. An error is one
/// from before the first write; nothing is given where nothing was to be written.
pub fn flash(
    wishes: &Wishes,
    found: &Found,
    head: &'static mut [u8],
    shared: &Shared,
) -> Result<Option<Flashed>, Error> {
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let config = match found.config {
        "" => None,
        path => Some(configuration::read(path, buffer)?),
    };
    let target = writable::facts(found.target)?;
    writable::claimable(&target)?;
    let sequence = device::sequence(found.target);
    let source = super::image::open(found.image, config)?;
    let source = Checked::new(&source, wishes.sha256);
    let file = ImageFile::open(&source, found.image)?;
    fits::known_length_fits(file.length(), &target)?;
    let (image, patches) = look(wishes, file, config, buffer)?;
    fits::check(&image.scan, &image.table, &target)?;
    let one = OneImage::of(&image, patches, buffer)?;
    let plan = Plan::of(one.planned(&image)?, DiskPlan::of(&target)?);
    if wishes.dry_run {
        crate::info!("dry run: every check passed, nothing was changed");
        return Ok(None);
    }
    ask(wishes, &target)?;
    if device::sequence(found.target) != sequence {
        let why = "it is another one than was checked";
        return Err(Error::failed("looking at the disk", &target.name, why));
    }
    shared.disk_sequence.store(sequence, SeqCst);
    let staged =
        Staged { source: &source, stream: image.stream, patches: one.patches, map: &one.map };
    stage2::flash_free(&plan, staged, head, shared).map(Some)
}

/// Says how it ended, and gives the exit code.
#[inline(never)]
pub fn report(ended: Result<Option<Flashed>, Error>) -> i32 {
    let (result, line) = match ended {
        Ok(None) => return 0,
        Ok(Some(Flashed { result, line })) => (result, line),
        Err(error) => (Err(error), Text::new()),
    };
    let code = result.map_or_else(
        |error| {
            crate::error!("{}", error);
            error.kind().exit_code()
        },
        |()| 0,
    );
    if !line.is_empty() {
        // The last line of all: programs read it.
        log::write_plain(&line);
    }
    code
}

/// Says what an image is, in one line.
#[cfg(not(feature = "core"))]
pub fn scan(wishes: &Wishes) -> Result<(), Error> {
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let source = super::image::open(wishes.image, None)?;
    let source = Checked::new(&source, wishes.sha256);
    let file = ImageFile::open(&source, wishes.image)?;
    examine(file, false, buffer, &mut |_, _, _| Ok(())).map(drop)
}

/// Decodes the image to its end and looks into it, and works out the patches that put config.json onto its boot
/// partition.
fn look<'a>(
    wishes: &Wishes,
    file: ImageFile<'a>,
    config: Option<&[u8]>,
    buffer: &mut [u8],
) -> Result<(Examined<'a>, Patches), Error> {
    let mut new_files = NewFiles::new();
    if let Some(config) = config {
        new_files.add("config.json", "", config)?;
    }
    let mut patches = Patches::none();
    let at_boot = &mut |disk: &mut dyn ReadAt, layout: &Layout, length| {
        check_kind(wishes, layout, config)?;
        patches = one_image::plan(disk, layout, length, &new_files)?;
        Ok(())
    };
    let image = examine(file, false, buffer, at_boot)?;
    Ok((image, patches))
}

/// The image can be written as it is, is for the device that config.json is for, and takes that.
fn check_kind(wishes: &Wishes, layout: &Layout, config: Option<&[u8]>) -> Result<(), Error> {
    let warn = &mut |text: &str| crate::warn!("{}", text);
    kind::is_no_flasher(layout)?;
    let Some(config) = config else {
        return Ok(());
    };
    if layout.file_system != Some(FileSystem::Vfat) {
        return Err(Error::refused(
            "putting config.json onto",
            "the boot partition",
            "it is no FAT",
        )
        .advice("use takeover flash of a program that has the feature core"));
    }
    match kind::mismatch(layout, &config::device_type(config), warn) {
        Some(error) if !wishes.no_dt_check => Err(error.advice(kind::ADVICE)),
        Some(error) => {
            crate::warn!("{}", error);
            Ok(())
        }
        None => Ok(()),
    }
}

/// The question, unless somebody has ended this meanwhile.
fn ask(wishes: &Wishes, target: &Disk) -> Result<(), Error> {
    // It was blocked while the image was read. The init gets none.
    if process::pending_termination().is_some() {
        return Err(Error::refused("starting", "", "it was interrupted"));
    }
    if wishes.no_ack { Ok(()) } else { consent::ask(target) }
}
