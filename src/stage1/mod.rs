//! Stage 1: the sequence on the live system, one line a step, and the undoing of each.
//!
//! It has three floors: `look` reads, `decide` checks and plans, `prepare` changes and undoes. Each uses what stands
//! before it, and none knows stage 2: what that needs is in the plan, and `takeover flash` is given stage 2's flashing
//! by whoever starts it.
//!
//! Everything that can fail is made to fail here. Up to the first entry in `undo` nothing is changed, but that what a
//! killed takeover left is removed: it takes the memory that this one needs.

mod decide;
mod images;
mod look;
#[cfg(feature = "migrate")]
mod networks;
mod prepare;
mod record;

#[cfg(feature = "migrate")]
pub use networks::print_networks;
pub use record::print_record;

// What `tests/trace.rs` lets fail.
pub use prepare::trace;

use crate::balena::config;
use crate::balena::layout::Layout;
use crate::boot_blob::Area;
use crate::boot_blob::BootBlob;
use crate::cli::{Flag, Options};
use crate::disk::copies::COPIES;
use crate::disk::device::Disk;
use crate::disk::reader::ReadAt;
use crate::disk::writable;
use crate::efi::change::Change;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::BUFFER;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::patches::Patches;
use crate::image::source::Source;
use crate::log::Stopwatch;
use crate::memory;
use crate::new_os::examination::{Examined, ImageFile, examine};
use crate::new_os::new_files::NewFiles;
use crate::new_os::one_image::{self, OneImage};
use crate::new_os::{consent, fits};
use crate::plan::{FilePlan, PackedPlan, Plan, names};
use crate::progress::{self, Flashed};
use crate::sys::{map, process};
use crate::text::{Size, Text};
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
#[cfg(feature = "http")]
use decide::budget;
use decide::budget::Budget;
use decide::compatible::Wish;
use decide::page::{Form, Page};
use decide::preview::Preview;
use decide::reach::{self, Reach};
use decide::report::Report;
use decide::stage::{Decided, Stage};
use decide::{
    boot_blob, boot_entry, carry, checks, compatible, configuration, estimate, firmware, planning,
    stage, target,
};
#[cfg(feature = "http")]
use decide::{release, reporting};

#[cfg(feature = "http")]
use look::cloud::Download;
use look::facts::{self, Facts};
use look::identity::Identity;
use look::logs::OldLog;
use look::{cgroup, identity, live, logs, watchdogs};
#[cfg(feature = "backup")]
use prepare::backup;
use prepare::image::{ImageSource, is_url};
use prepare::on_disk::{self, Packed};
use prepare::ramfs::Ramfs;
use prepare::undo::{self, Undo};
use prepare::{handover, instance, rehearsal, staging, swap, writeback};
use rustix::fs::OFlags;
use std::os::fd::AsFd;

/// Takes this device over: everything up to the hand-over to PID 1.
pub fn take_over(options: &Options) -> Result<(), Error> {
    with_place(|place| take_over_with(options, place))
}

/// Gives the image a place, and the errors about it the name of its file.
fn with_place<T>(work: impl FnOnce(&images::Place) -> Result<T, Error>) -> Result<T, Error> {
    let place = images::Place::new();
    work(&place).map_err(|error| match place.get() {
        Some(source) => error.of_image(source.name()),
        None => error,
    })
}

fn take_over_with(options: &Options, place: &images::Place) -> Result<(), Error> {
    if options.has(Flag::DownloadOnly) {
        return download(options, place);
    }
    checks::root()?;
    stay_in_memory();
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    checks::privileges(options.has(Flag::InNamespace))?;
    checks::static_program()?;
    checks::no_selinux()?;
    checks::can_be_answered(options)?;
    check_work_dir(options)?;
    // Held until the end of this process.
    let _lock =
        if options.has(Flag::DryRun) { instance::look()? } else { Some(instance::alone()?) };
    if !options.has(Flag::DryRun) && options.image.as_deref().is_none_or(is_url) {
        // An image that is to come has the room.
        on_disk::remove_leftover(&files::below(&options.work_dir, COPIES)?, true)?;
    }
    let mut decision = decide(options, buffer, place)?;
    if options.has(Flag::DryRun) {
        decision.log_rehearsal();
        return Ok(());
    }
    ask(options, &decision.facts.target)?;
    process::hold_termination().doing("holding back", "signals")?;
    let mut undo = Undo::new();
    let Err(error) = decision.prepare(options, buffer, &mut undo) else {
        undo.forget();
        return Ok(());
    };
    if options.has(Flag::NoCleanup) {
        crate::warn!("--no-cleanup: what was prepared is left as it is");
        return Err(error.as_failure());
    }
    if undo.run() {
        crate::info!("everything is undone");
        Err(error)
    } else {
        crate::error!("not everything could be undone: see above");
        Err(error.as_failure())
    }
}

/// Looks at everything, checks everything, and shows what will happen. Changes nothing but the work directory, where an
/// image that is not here yet is fetched to. What is slow comes behind all that is not.
fn decide<'a>(
    options: &Options,
    buffer: &mut [u8],
    place: &'a images::Place,
) -> Result<Decision<'a>, Error> {
    let mut report = Report::new();
    checks::without_effect(options, &mut report);
    let file = image_to_look_into(options, buffer, place)?;
    let config = configuration::for_image(options, file.as_ref(), buffer)?;
    let device_type = config.map(config::device_type).unwrap_or_default();
    let identity = identity::gather("")?;
    identity.log();
    let wish = configuration::wish(options, &device_type);
    compatible::check(&identity, &wish, &mut |text| report.warn(text))?;
    let facts = device(options, &mut report)?;
    let area =
        boot_blob::area(options, &identity, &wish, &facts.target, &mut |text| report.warn(text))?;
    let (old_log, log_device) = places_for_log(options, &facts, &mut report)?;
    checks::mountable(false, is_data_used(options), log_device.as_ref())?;
    fits::known_length_fits(file.as_ref().and_then(ImageFile::length), &facts.target)?;
    let mut new_files = carry::files(options, config, Some(&identity), buffer, &mut report)?;
    let reach = reachable(options, config, &mut new_files, buffer, &mut report)?;
    let is_here = file.is_some();
    let offer = ask_cloud(options, is_here, config, wish.effective(), &facts.target, &mut report)?;

    let looked = Looked {
        options,
        config,
        identity: &identity,
        wish: &wish,
        facts,
        area,
        old_log,
        log_device,
        new_files,
        reach,
        offer,
        report,
    };
    looked.decide(file, buffer, place)
}

/// What was looked at and decided before anything slow.
struct Looked<'b> {
    options: &'b Options,
    config: Option<&'static [u8]>,
    identity: &'b Identity,
    wish: &'b Wish<'b>,
    facts: Facts,
    /// What a boot blob goes to.
    area: Option<Area>,
    old_log: Option<OldLog>,
    log_device: Option<FilePlan>,
    new_files: NewFiles,
    reach: Reach,
    offer: Offer,
    report: Report,
}

impl Looked<'_> {
    /// The slow part: data is packed to know its length, and the image is fetched and decoded. `file`: the image, if it
    /// is known already.
    fn decide<'a>(
        self,
        file: Option<ImageFile<'a>>,
        buffer: &mut [u8],
        place: &'a images::Place,
    ) -> Result<Decision<'a>, Error> {
        let Self { options, config, identity, wish, facts, mut new_files, offer, .. } = self;
        let mut report = self.report;
        carry::count_backup(options, facts.available, buffer, &mut new_files)?;
        let file = choose_image(options, file, config, &offer, &facts, place)?;
        fits::known_length_fits(file.length(), &facts.target)?;
        let (image, patches) = examine_for(file, options, &new_files, buffer, &mut |layout| {
            compatible::check_image(layout, Some(identity), wish, &mut |text| report.warn(text))
        })?;
        fits::check(&image.scan, &image.table, &facts.target)?;
        let one = OneImage::of(&image, patches, buffer)?;
        let plan = planning::plan(options, &facts.target, &image, &one, &new_files)?;
        let old_log = self.old_log.as_ref();
        let file = old_log.map(|log| log.file.clone());
        let plan = Plan { old_log: file, log_device: self.log_device, ..plan };
        checks::mountable(plan.boot.is_some(), plan.data.is_some(), None)?;
        let blob = boot_blob::find(self.area, &image, wish, buffer, &mut |text| report.warn(text))?;
        let boot_entry = boot_entry::decide(
            options,
            identity,
            &facts.target,
            &image,
            blob.is_some(),
            &mut report,
        );
        let budget = Budget::of(&facts, &image.scan, &plan, &new_files)?;
        let stage = choose_stage(options, place, &facts.target, &image, &budget)?;
        let budget = budget.with_image(stage.memory(image.scan.staged_length));
        let available = check_memory(&budget, options, place)?;
        let (seconds_alone, stage_seconds) =
            estimate::seconds_alone(&facts.target, &image, &stage, buffer);
        Preview {
            options,
            facts: &facts,
            identity,
            image: &image,
            image_name: place.get().map_or("", ImageSource::name),
            new_files: &new_files,
            boot_blob: blob.as_ref(),
            reach: &self.reach,
            boot_entry: &boot_entry,
            device_type: wish.effective(),
            hostname: config.and_then(|_| configuration::name_to_keep(options, identity)),
            stage: &stage,
            stage_seconds,
            budget: &budget,
            available,
            old_log: old_log.map(|log| &*log.shown),
            seconds_alone,
            report: &report,
        }
        .print()?;
        Ok(Decision {
            facts,
            image,
            one,
            plan,
            new_files,
            blob,
            boot_entry: boot_entry.change,
            stage,
            budget,
            config,
            notice: offer.notice,
            report,
        })
    }
}

/// This device, and whether it can be taken over, whatever the image.
fn device(options: &Options, report: &mut Report) -> Result<Facts, Error> {
    let root = facts::root_mount()?;
    let facts = Facts::gather(&root, target::choose(options, &root)?)?;
    facts.log();
    checks::init_and_root(&facts.init, &root)?;
    checks::nothing_suspended()?;
    let is_named = options.flash_to.is_some();
    firmware::starts_from(&facts.target, is_named, facts.root.device, &mut |text| {
        report.warn(text)
    })?;
    checks::watchdog(options, &watchdogs::all())?;
    Ok(facts)
}

/// Whether the new OS will be reached as this one is. An image that is no balenaOS has networks of its own, and so has
/// the system outside of a container.
fn reachable(
    options: &Options,
    config: Option<&[u8]>,
    new_files: &mut NewFiles,
    buffer: &mut [u8],
    report: &mut Report,
) -> Result<Reach, Error> {
    if config.is_none() || options.has(Flag::InNamespace) {
        return Ok(Reach::default());
    }
    let live = live::gather(buffer)?;
    let name_servers = carry::name_servers(buffer)?;
    let reach = reach::compare(live, &name_servers, new_files, buffer, report)?;
    reach.check(options)?;
    Ok(reach)
}

/// The image, where what it is decides whether it takes a config.json.
fn image_to_look_into<'a>(
    options: &Options,
    buffer: &mut [u8],
    place: &'a images::Place,
) -> Result<Option<ImageFile<'a>>, Error> {
    if images::can_wait(options) {
        return Ok(None);
    }
    images::named(options, configuration::trusted(options, buffer)?, place)
}

/// What the API has to do with it.
struct Offer {
    /// The image that it offers, where no other was named.
    #[cfg(feature = "http")]
    image: Option<&'static Download>,
    /// What it will be told about the end.
    notice: Option<&'static [u8]>,
}

/// Asks the API whether it is there, for an image where none `is_here` and none was named, and for what it takes to
/// tell it about the end. An image must have a chance to fit.
#[cfg(feature = "http")]
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
fn ask_cloud(
    options: &Options,
    is_here: bool,
    config: Option<&[u8]>,
    device_type: &str,
    target: &Disk,
    report: &mut Report,
) -> Result<Offer, Error> {
    let is_told = reporting::is_wanted(options, config);
    let mut cloud = release::look(options, config, is_told, report)?;
    let notice = reporting::prepare(options, config, cloud.as_mut(), report)?;
    let image = match &mut cloud {
        Some(cloud) if options.image.is_none() && !is_here => {
            let found = release::find(options, cloud, device_type)?;
            fits::known_length_fits(found.size, target)?;
            let place = map::place(found).doing("reserving memory for", "a URL")?;
            Some(&*place)
        }
        _ => None,
    };
    Ok(Offer { image, notice })
}

/// The image, if it was not looked at before: from the URL that was named, or from the API.
#[cfg(feature = "http")]
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
fn choose_image<'a>(
    options: &Options,
    file: Option<ImageFile<'a>>,
    config: Option<&[u8]>,
    offer: &Offer,
    facts: &Facts,
    place: &'a images::Place,
) -> Result<ImageFile<'a>, Error> {
    let file = match (file, offer.image) {
        (Some(file), _) => file,
        (None, Some(found)) => images::offered(found, options, config, place)?,
        (None, None) => images::named(options, config, place)?.ok_or_else(no_image)?,
    };
    let is_to_come = place.get().is_some_and(|source| source.to_be_stored() > 0);
    if let Some(length) = file.packed_length().filter(|_| is_to_come) {
        let least = Budget::of_packed(facts, length);
        let available = facts.available.saturating_sub(taken_by_work_dir(options, place)?);
        stage::check_before_download(options, &facts.target, length, &least, available)?;
    }
    Ok(file)
}

/// What the work directory will still take of the memory, in bytes.
#[cfg(feature = "http")]
fn taken_by_work_dir(options: &Options, place: &images::Place) -> Result<u64, Error> {
    let to_be_stored = place.get().map_or(0, ImageSource::to_be_stored);
    budget::in_memory(&options.work_dir, to_be_stored)
}

/// Nothing is fetched.
#[cfg(not(feature = "http"))]
fn taken_by_work_dir(_: &Options, _: &images::Place) -> Result<u64, Error> {
    Ok(0)
}

/// This build asks nobody.
#[cfg(not(feature = "http"))]
fn ask_cloud(
    _: &Options,
    _: bool,
    _: Option<&[u8]>,
    _: &str,
    _: &Disk,
    _: &mut Report,
) -> Result<Offer, Error> {
    Ok(Offer { notice: None })
}

/// This build knows none but those that were named.
#[cfg(not(feature = "http"))]
fn choose_image<'a>(
    _: &Options,
    file: Option<ImageFile<'a>>,
    _: Option<&[u8]>,
    _: &Offer,
    _: &Facts,
    _: &'a images::Place,
) -> Result<ImageFile<'a>, Error> {
    file.ok_or_else(no_image)
}

#[cold]
fn no_image() -> Error {
    Error::usage("", "no image was given").advice("name one: -i FILE, or a URL")
}

/// Where stage 2 is to keep its log: the old root, when nothing was written, and the log device.
fn places_for_log(
    options: &Options,
    facts: &Facts,
    report: &mut Report,
) -> Result<(Option<OldLog>, Option<FilePlan>), Error> {
    let log_device = logs::device(options, facts.target.number)?;
    let old_log = logs::of_old_os()?;
    if old_log.is_none() && log_device.is_none() {
        report.warn("should it give up before the first write, stage 2 has no place for its log: / is no plain partition, and no other is mounted (--log-to DEV)");
    }
    Ok((old_log, log_device))
}

/// There is the memory that it takes, now and not before the scan: services live on meanwhile. Gives what there is, in
/// bytes, without what the work directory takes of it for an image that a dry run does not store.
fn check_memory(budget: &Budget, options: &Options, place: &images::Place) -> Result<u64, Error> {
    let (available, _) = facts::memory()?;
    let taken = taken_by_work_dir(options, place)?;
    budget.check_without(taken, available, cgroup::left())?;
    let available = available.saturating_sub(taken);
    crate::info!("memory: {} needed, {} available", Size(budget.needed()), Size(available));
    Ok(available)
}

/// Where the image waits until it is written.
fn choose_stage(
    options: &Options,
    place: &images::Place,
    target: &Disk,
    image: &Examined<'_>,
    budget: &Budget,
) -> Result<Decided, Error> {
    let (available, _) = facts::memory()?;
    let available = available.saturating_sub(taken_by_work_dir(options, place)?);
    let file = match place.get() {
        Some(source) => source.opened()?,
        None => None,
    };
    let decided = stage::decide(options, file, target, image, budget, available)?;
    crate::info!("the image waits: {} ({})", decided.name(), decided.why);
    Ok(decided)
}

/// Something will be placed on the data partition of the new OS.
fn is_data_used(options: &Options) -> bool {
    options.backup.is_some() || options.has(Flag::FallbackLog)
}

/// Everything that was decided, ready to be put in place.
struct Decision<'a> {
    facts: Facts,
    image: Examined<'a>,
    one: OneImage,
    plan: Plan,
    new_files: NewFiles,
    /// What stage 2 writes to the device of the loaders.
    blob: Option<BootBlob>,
    /// What stage 2 changes of the firmware's boot entries.
    boot_entry: Option<Change>,
    /// Where the image waits.
    stage: Decided,
    budget: Budget,
    config: Option<&'static [u8]>,
    /// What stage 2 tells the API when it has ended.
    notice: Option<&'static [u8]>,
    report: Report,
}

impl Decision<'_> {
    /// The facts as they are now: the question may have waited for hours, and services live on meanwhile. Swap that
    /// came up is turned off like the rest, if there is the memory.
    fn look_again(&self, options: &Options) -> Result<Facts, Error> {
        let root = facts::root_mount()?;
        let now = Facts::gather(&root, target::choose(options, &root)?)?;
        if !planning::is_same(&self.plan.target, &now.target) {
            let why = "it is another disk than before the question";
            return Err(Error::refused("looking again at the target", &now.target.name, why)
                .advice("start it again: all of it is looked at anew"));
        }
        let swapped = now.swaps.iter().map(|swap| swap.used).sum();
        Budget { swapped, ..self.budget }.check(now.available, cgroup::left())?;
        Ok(now)
    }

    /// The files of the new OS as they are now, for the same reason, and what follows from them: says what has changed,
    /// and refuses what does not fit any more.
    fn gather_again(&mut self, options: &Options, buffer: &mut [u8]) -> Result<(), Error> {
        let identity = identity::gather("")?;
        let mut report = Report::quiet();
        let mut now = carry::files(options, self.config, Some(&identity), buffer, &mut report)?;
        reachable(options, self.config, &mut now, buffer, &mut report)?;
        report.log_new(&self.report);
        let mut has_changed = false;
        now.for_each_unlike(&self.new_files, &mut |path, was_there| {
            has_changed = true;
            let word = if was_there { "changed" } else { "come up" };
            crate::warn!("/{} has {} since the question", path, word);
        });
        self.new_files.for_each_unlike(&now, &mut |path, is_there| {
            has_changed = true;
            if !is_there {
                crate::warn!("/{} has gone since the question", path);
            }
        });
        if !has_changed {
            return Ok(());
        }
        if let Some((_, length)) = self.new_files.backup() {
            now.add_backup(length)?;
        }
        let mut patches = Patches::none();
        self.image.again_at_boot(buffer, &mut |disk, layout, length| {
            patches = one_image::plan(disk, layout, length, &now)?;
            Ok(())
        })?;
        self.one = OneImage::of(&self.image, patches, buffer)?;
        let plan = planning::plan(options, &self.facts.target, &self.image, &self.one, &now)?;
        self.plan = planning::anew(&mut self.plan, plan);
        self.new_files = now;
        Ok(())
    }

    /// Changes the live system step by step, each noted in `undo`, the hand-over last.
    fn prepare(
        &mut self,
        options: &Options,
        buffer: &mut [u8],
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let now = self.look_again(options)?;
        let watch = Stopwatch::start();
        let ramfs = Ramfs::mount(self.budget.ramfs(), undo)?;
        ramfs.make_nodes(&self.facts.target.name, self.facts.target.number, undo)?;
        ramfs.adopt_watchdogs(options.watchdog > 0, undo)?;
        crate::info!(
            "RAMFS of {} at {} ({} s)",
            Size(self.budget.ramfs()),
            ramfs.path.as_str(),
            watch.shown()
        );
        rehearse(&ramfs, &self.plan, &self.image, buffer)?;
        self.prepare_boot_blob(&ramfs)?;
        ramfs.copy_program(buffer)?;
        rehearsal::execute(&ramfs.inside(names::PROGRAM)?, rehearsal::PATIENCE)?;
        swap::off(&now.swaps, undo)?;
        let packed = self.stage_image(options, &ramfs, buffer, undo)?;
        undo::interrupted()?;
        writeback::write_back()?;

        // Now, when nothing slow is left: what the services have written until here is in them.
        self.gather_again(options, buffer)?;
        self.make_backup(options, &ramfs, buffer)?;
        self.check_room(&ramfs)?;
        self.new_files.log();
        staging::stage_map(&ramfs, &self.one.map, &self.plan.image, buffer)?;
        staging::stage_patches(&ramfs, &self.one.patches, buffer)?;
        staging::stage_files(&ramfs, &self.new_files, &self.plan)?;
        if let Some(change) = &self.boot_entry {
            staging::stage_boot_entry(&ramfs, change)?;
        }
        if let Some(notice) = self.notice {
            staging::stage_notice(&ramfs, notice)?;
        }
        staging::stage_log(&ramfs)?;
        self.plan.packed = packed;
        self.plan.write(&ramfs.inside(names::PLAN)?)?;
        let watch = Stopwatch::start();
        let patience = Duration::from_secs(options.hand_over_timeout);
        handover::hand_over(&now.init, &ramfs, patience, undo)?;
        crate::info!("PID 1 is handed over ({} s): the rest is on the console", watch.shown());
        Ok(())
    }

    /// The image in its place, until it is written; gives where that is on a disk.
    fn stage_image(
        &self,
        options: &Options,
        ramfs: &Ramfs,
        buffer: &mut [u8],
        undo: &mut Undo,
    ) -> Result<Option<PackedPlan>, Error> {
        undo::interrupted()?;
        let is_on_disk = matches!(self.stage.stage, Stage::Disk(_));
        for path in [&self.stage.leftover, &Some(files::below(&options.work_dir, COPIES)?)] {
            let Some(path) = path else { continue };
            on_disk::remove_leftover(path, is_on_disk)?;
        }
        let watch = Stopwatch::start();
        let Examined { source, stream, scan, .. } = &self.image;
        let (source, stream) = (*source, *stream);
        let Stage::Disk(place) = &self.stage.stage else {
            staging::stage_image(ramfs, source, stream, scan, buffer)?;
            crate::info!("the image is in memory ({} s)", watch.shown());
            return Ok(None);
        };
        let is_pretended = options.has(Flag::Pretend);
        let packed = Packed { place, source, stream, scan, is_pretended };
        let packed = packed.stage(ramfs, buffer, undo)?;
        crate::info!(
            "the image stays on /dev/{}, in {} pieces ({} s)",
            packed.disk.name.as_str(),
            packed.pieces,
            watch.shown()
        );
        Ok(Some(packed))
    }

    /// Whether it can be written is found out, and where it lies is left for stage 2. (The program for 32-bit ARM has
    /// none.)
    fn prepare_boot_blob(&self, ramfs: &Ramfs) -> Result<(), Error> {
        match &self.blob {
            Some(blob) if !cfg!(target_arch = "arm") => {
                rehearsal::boot_area(blob.area)?;
                staging::stage_boot_blob(ramfs, blob)
            }
            _ => Ok(()),
        }
    }

    /// What has grown since the question must leave stage 2 what it needs, in the RAMFS and in memory.
    fn check_room(&self, ramfs: &Ramfs) -> Result<(), Error> {
        let budget = Budget::of(&self.facts, &self.image.scan, &self.plan, &self.new_files)?;
        let budget = budget.with_image(self.stage.memory(self.image.scan.staged_length));
        let free = ramfs.free()?;
        if free < budget.still_to_come() {
            let why: Text<120> = crate::text!(
                "{} are still needed in memory, and {} are set aside for it",
                Size(budget.still_to_come()),
                Size(free)
            );
            return Err(Error::refused("placing", "what has grown since the question", &why)
                .advice("start it again: it is counted anew"));
        }
        Ok(())
    }

    /// The archive, in the RAMFS, if there is to be one.
    #[cfg(feature = "backup")]
    fn make_backup(
        &self,
        options: &Options,
        ramfs: &Ramfs,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let limit = planning::largest_backup(&self.image);
        match (self.new_files.backup(), options.backup.as_deref()) {
            (Some(counted), Some(path)) => backup::make(ramfs, counted, path, limit, buffer),
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "backup"))]
    fn make_backup(&self, _: &Options, _: &Ramfs, _: &mut [u8]) -> Result<(), Error> {
        Ok(())
    }

    /// What a dry run cannot show: the mounts that a takeover makes once beforehand.
    fn log_rehearsal(&self) {
        let of_new_os = rehearsals(&self.plan, &self.image).map(|_| "ext4");
        let log_device = self.plan.log_device.as_ref().map(|log| log.file_system.as_str());
        for name in of_new_os.chain(log_device) {
            crate::info!("mounting {}: rehearsed before a takeover, not now", name);
        }
        if let Some(blob) = self.blob.as_ref().filter(|_| !cfg!(target_arch = "arm")) {
            let name = blob.area.device.name();
            crate::info!("making {} writable: rehearsed before a takeover, not now", name);
        }
        crate::info!("dry run: every check passed, nothing was changed");
    }
}

/// Stage 2's flashing from a system that goes on running: the plan, where the RAMFS is mounted, the image file, where
/// the image is in it, and what each chunk must be.
pub type Flashing = fn(&Plan, &str, &dyn Source, Stream, &ChunkMap) -> Result<Flashed, Error>;

/// Flashes a disk that is not in use, from a system that runs from RAM: no init is replaced and nothing is killed.
/// Gives the exit code; an error is one that was found before flashing began.
pub fn flash(options: &Options, write: Flashing) -> Result<i32, Error> {
    with_place(|place| flash_with(options, write, place))
}

fn flash_with(options: &Options, write: Flashing, place: &images::Place) -> Result<i32, Error> {
    checks::root()?;
    stay_in_memory();
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    checks::can_be_answered(options)?;
    let _lock = instance::beside_others()?;
    let mut report = Report::new();
    checks::without_effect(options, &mut report);
    let given = configuration::given(options, buffer)?;
    let file = images::named(options, given, place)?.ok_or_else(no_image)?;
    let config = configuration::for_flash(options, given, &file, buffer)?;
    let path = options.flash_to.as_deref().unwrap_or_default();
    let target = target::free_to_be_written(target::named(path)?)?;
    target::warn_of_network(&target, &mut |text| report.warn(text))?;
    writable::claimable(&target)?;
    fits::known_length_fits(file.length(), &target)?;
    let new_files = carry::files(options, config, None, buffer, &mut report)?;
    let (image, patches) = examine_for(file, options, &new_files, buffer, &mut |layout| {
        // Without a config.json the image alone says what the device will be.
        let device_type = config.map_or_else(|| layout.device_type.clone(), config::device_type);
        let wish = configuration::wish(options, &device_type);
        compatible::check_image(layout, None, &wish, &mut |text| report.warn(text))
    })?;
    fits::check(&image.scan, &image.table, &target)?;
    let one = OneImage::of(&image, patches, buffer)?;
    let plan = planning::plan(options, &target, &image, &one, &new_files)?;
    checks::mountable(plan.boot.is_some(), plan.data.is_some(), None)?;
    let is_json = options.has(Flag::Json);
    let is_dry = options.has(Flag::DryRun);
    let name = place.get().map_or("", ImageSource::name);
    if !is_json || is_dry {
        print_image(options, &image, name, "")?;
    }
    if is_dry {
        crate::info!("dry run: every check passed, nothing was changed");
        return Ok(0);
    }
    ask(options, &target)?;
    process::hold_termination().doing("holding back", "signals")?;
    let mut undo = Undo::new();
    let ended = flash_here(&plan, &image, &one, &new_files, write, buffer, &mut undo);
    // The RAMFS, never the disk: while all goes well, a word about undoing would mislead.
    let is_undone = undo.run();
    if !is_undone {
        crate::error!("not everything but the disk is as it was: see above");
    }
    let Flashed { result, line } =
        ended.map_err(|error| if is_undone { error } else { error.as_failure() })?;
    let code = result.map_or_else(
        |error| {
            crate::error!("{}", error);
            error.kind().exit_code()
        },
        |()| {
            tell_end(options, &target, name);
            i32::from(!is_undone)
        },
    );
    if is_json {
        let line: Text<640> = crate::text!("{}\n", line);
        files::write_all(rustix::stdio::stdout(), line.as_bytes())
            .doing("writing to", "standard output")?;
    }
    Ok(code)
}

/// What a person wants to know when a disk was flashed: what is on which disk now, and what to do with it.
fn tell_end(options: &Options, target: &Disk, name: &str) {
    if options.has(Flag::Pretend) {
        crate::info!("pretended: /dev/{} is as it was", target.name);
    } else {
        crate::info!(
            "done: /dev/{} ({}) holds {} now, read back and compared; start a device from it",
            target.name,
            Size(target.size),
            name
        );
    }
}

/// Decodes the image to its end and looks into it, and works out the patches that put the files of the new OS onto its
/// boot partition, when `check` has nothing against that image.
fn examine_for<'a>(
    file: ImageFile<'a>,
    options: &Options,
    new_files: &NewFiles,
    buffer: &mut [u8],
    check: &mut dyn FnMut(&Layout) -> Result<(), Error>,
) -> Result<(Examined<'a>, Patches), Error> {
    let mut patches = Patches::none();
    let at_boot = &mut |disk: &mut dyn ReadAt, layout: &Layout, length| {
        check(layout)?;
        patches = one_image::plan(disk, layout, length, new_files)?;
        Ok(())
    };
    let image = examine(file, is_data_used(options), buffer, at_boot)?;
    Ok((image, patches))
}

fn flash_here(
    plan: &Plan,
    image: &Examined<'_>,
    one: &OneImage,
    new_files: &NewFiles,
    write: Flashing,
    buffer: &mut [u8],
    undo: &mut Undo,
) -> Result<Flashed, Error> {
    instance::remove_abandoned()?;
    let size = new_files.staged_length(plan.boot.is_some()) + one.patches.length() + (2 << 20);
    let ramfs = Ramfs::mount(size, undo)?;
    let mut flashed = || {
        ramfs.make_nodes(&plan.target.name, plan.target.number, undo)?;
        rehearse(&ramfs, plan, image, buffer)?;
        // The target has none: it is not in use.
        swap::off(&facts::swaps_to_turn_off(None)?, undo)?;
        new_files.log();
        staging::stage_patches(&ramfs, &one.patches, buffer)?;
        staging::stage_files(&ramfs, new_files, plan)?;
        undo::interrupted()?;
        progress::IS_WRITING.store(true, Relaxed);
        let ended = write(plan, &ramfs.path, image.source, image.stream, &one.map);
        progress::IS_WRITING.store(false, Relaxed);
        ended
    };
    let ended = flashed();
    ramfs.leave();
    ended
}

/// Says what an image is, on standard output: for people, or with `--json` for programs.
pub fn describe(options: &Options) -> Result<(), Error> {
    with_place(|place| {
        let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
        let given = configuration::given(options, buffer)?;
        let file = images::named(options, given, place)?.ok_or_else(no_image)?;
        let image = examine(file, false, buffer, &mut |_, _, _| Ok(()))?;
        print_image(options, &image, place.get().map_or("", ImageSource::name), "")
    })
}

/// Fetches an image into the work directory, and says what it is and where. Takes no root, and no device of its type.
#[cfg(feature = "http")]
fn download(options: &Options, place: &images::Place) -> Result<(), Error> {
    if options.image.as_deref().is_some_and(|image| !is_url(image)) {
        return Err(Error::usage("--download-only", "the image is a file already")
            .advice("look at it with takeover scan"));
    }
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    check_work_dir(options)?;
    let needs_config = options.config.is_some() || options.image.is_none();
    let config = if needs_config {
        configuration::for_image(options, None, buffer)?
    } else {
        configuration::given(options, buffer)?
    };
    let file = match (images::named(options, config, place)?, config) {
        (Some(file), _) => file,
        (None, Some(bytes)) => {
            let device_type = config::device_type(bytes);
            let device_type = options.device_type.as_deref().unwrap_or(&device_type);
            let cloud = release::look(options, config, false, &mut Report::new())?;
            let found = release::find(options, &mut cloud.ok_or_else(no_image)?, device_type)?;
            images::offered(&found, options, config, place)?
        }
        (None, None) => return Err(no_image()),
    };
    let image = examine(file, false, buffer, &mut |_, _, _| Ok(()))?;
    match place.get().and_then(ImageSource::kept) {
        Some((path, digest)) => print_image(options, &image, &path, &digest),
        None => print_image(options, &image, place.get().map_or("", ImageSource::name), ""),
    }
}

#[cfg(not(feature = "http"))]
fn download(_: &Options, _: &images::Place) -> Result<(), Error> {
    Err(Error::usage("--download-only", "this build downloads nothing")
        .advice("use one of the set no-tls or full"))
}

/// What an image is; `digest` where it is known.
fn print_image(
    options: &Options,
    image: &Examined<'_>,
    name: &str,
    digest: &str,
) -> Result<(), Error> {
    let form = if options.has(Flag::Json) { Form::Json } else { Form::People };
    let output = rustix::stdio::stdout();
    let mut page = Page::new(form, output.as_fd());
    page.section("image", "The image");
    page.text("file", "file", name);
    if !digest.is_empty() {
        page.text("sha256", "SHA-256", digest);
    }
    page.text("format", "format", image.stream.format.name());
    page.bytes("packed_bytes", "packed", image.stream.length);
    page.bytes("bytes", "on the disk", image.scan.length);
    page.bytes("staged_bytes", "in memory", image.scan.staged_length);
    page.number("chunks", "", image.scan.chunks.into(), "");
    page.number("zero_percent", "zeros", image.zero_share(), " %");
    page.text("table", "partition table", image.table_name());
    page.number("partitions", "partitions", image.table.partitions.len() as u64, "");
    page.number("boot_partition", "boot partition", image.layout.boot_number.into(), "");
    page.number("boot_start", "it begins at", image.layout.boot_start, " bytes");
    page.text("device_type", "made for", &image.layout.device_type);
    page.text("version", "version", &image.layout.version);
    page.finish()
}

/// What this process reads has keys in it, long before swap is off.
fn stay_in_memory() {
    if let Err(error) = map::lock_as_used().doing("locking", "memory") {
        crate::warn!("{}; keys that this program reads may be swapped out", error);
    }
    // Without it the chance grows that it is ended when memory is short, no more.
    let _ = memory::spare_from_oom();
}

fn check_work_dir(options: &Options) -> Result<(), Error> {
    let path = options.work_dir.as_str();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    files::open(path, flags)
        .doing("opening the work directory", path)
        .map_err(|error| error.as_refusal().advice("name a folder that is there (-w DIR)"))
        .map(drop)
}

/// The question, after the page that it is about. That there is an input is found out before anything slow:
/// `checks::can_be_answered`.
fn ask(options: &Options, target: &Disk) -> Result<(), Error> {
    if options.has(Flag::NoAck) { Ok(()) } else { consent::ask(target) }
}

fn rehearse(
    ramfs: &Ramfs,
    plan: &Plan,
    image: &Examined<'_>,
    buffer: &mut [u8],
) -> Result<(), Error> {
    for need in rehearsals(plan, image) {
        let watch = Stopwatch::start();
        rehearsal::rehearse(ramfs, need, buffer)?;
        crate::info!("rehearsed: ext4 can be mounted ({} s)", watch.shown());
    }
    if let Some(log) = &plan.log_device {
        rehearsal::log_device(ramfs, log)?;
        crate::info!("rehearsed: the log device, {}, can be mounted", log.file_system.as_str());
    }
    Ok(())
}

/// What stage 2 will mount, with the features that the image's own file systems have.
fn rehearsals(plan: &Plan, image: &Examined) -> impl Iterator<Item = rehearsal::Need> + use<> {
    let data = image.data.map(|data| data.features).unwrap_or_default();
    rehearsal::needs(plan, image.layout.boot_features, data).into_iter()
}
