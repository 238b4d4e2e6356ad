//! Stage 1: the sequence on the live system, one line a step, and the undoing of each.
//!
//! It has three floors: `look` reads, `decide` checks and plans, `prepare` changes and undoes. Each uses what stands
//! before it, and none knows stage 2: what that needs is in the plan, and `takeover flash` is given stage 2's flashing
//! by whoever starts it.
//!
//! Everything that can fail is made to fail here. Up to the first entry in `undo` nothing is changed, but that what a
//! killed takeover left is removed: it takes the memory that this one needs.

mod decide;
mod look;
mod prepare;

use crate::balena::config;
use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::BUFFER;
use crate::image::format::Stream;
use crate::image::map::ChunkMap;
use crate::image::source::FileSource;
use crate::log::{self, Stopwatch};
use crate::plan::{Plan, names};
use crate::progress::Flashed;
use crate::sys::{map, process};
use crate::text::{Size, Text};
use core::time::Duration;
use decide::budget::Budget;
use decide::new_files::NewFiles;
use decide::page::{Form, Page};
use decide::preview::Preview;
use decide::report::Report;
use decide::{carry, checks, compatible, configuration, estimate, firmware, planning, target};
use look::examination::{Examined, examine};
use look::facts::{self, Facts};
use look::{cgroup, identity, logs};
use prepare::ramfs::Ramfs;
use prepare::undo::{self, Undo};
use prepare::{handover, instance, rehearsal, staging, writeback};
use rustix::fs::OFlags;
use std::os::fd::AsFd;

/// Takes this device over: everything up to the hand-over to PID 1.
pub fn take_over(options: &Options) -> Result<(), Error> {
    checks::root()?;
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    checks::privileges(options.has(Flag::InNamespace))?;
    checks::static_program()?;
    checks::no_selinux()?;
    checks::can_be_answered(options)?;
    check_work_dir(options)?;
    // Held until the end of this process.
    let _lock = match options.has(Flag::DryRun) {
        true => instance::look()?,
        false => Some(instance::alone()?),
    };
    let decision = decide(options, buffer)?;
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
    match undo.run() {
        true => {
            crate::info!("everything is undone");
            Err(error)
        }
        false => {
            crate::error!("not everything could be undone: see above");
            Err(error.as_failure())
        }
    }
}

/// Looks at everything, checks everything, and shows what will happen. Changes nothing.
fn decide(options: &Options, buffer: &mut [u8]) -> Result<Decision, Error> {
    let mut report = Report::new();
    checks::without_effect(options, &mut report);
    let config = configuration::read(options, buffer)?;
    let device_type = config::device_type(config);
    let identity = identity::gather("")?;
    identity.log();
    let wish = configuration::wish(options, &device_type);
    compatible::check(&identity, &wish, &mut |text| report.warn(text))?;
    let root = facts::root_mount()?;
    let facts = Facts::gather(&root, target::choose(options, &root)?)?;
    facts.log();
    checks::init_and_root(&facts.init, &root)?;
    let is_named = options.flash_to.is_some();
    firmware::starts_from(&facts.target, is_named, facts.root.device, &mut |text| {
        report.warn(text)
    })?;
    let log_device = logs::device(options, facts.target.number)?;
    let old_log = logs::of_old_os(&facts.root)?;
    if old_log.is_none() && log_device.is_none() {
        report.warn("should it give up before the first write, stage 2 has no place for its log: / is no plain partition, and no other is mounted (--log-to DEV)");
    }

    let mut new_files = NewFiles::new()?;
    let hostname = configuration::kept_hostname(options, &identity, &mut report);
    let new_config = configuration::for_new_os(config, hostname, options, buffer)?;
    new_files.add("config.json", "", new_config)?;
    carry::networks(options, Some(&identity), buffer, &mut new_files, &mut report)?;
    let image = examine(options, buffer)?;
    compatible::check_image(&image.layout, Some(&identity), &wish, &mut |text| report.warn(text))?;
    checks::fits(&image.scan, &image.table, &facts.target)?;
    let free = image.data.map_or(u64::MAX, |data| data.free);
    carry::backup(options, free, buffer, &mut new_files)?;
    let plan = planning::plan(options, &facts.target, &image, &new_files, old_log, log_device)?;

    let budget = Budget::of(&facts, &image.scan, &new_files)?;
    // Now, not before the scan: services live on meanwhile.
    let (available, _) = facts::memory()?;
    budget.check(available, cgroup::left())?;
    crate::info!("memory: {} needed, {} available", Size(budget.needed()), Size(available));
    let preview = Preview {
        options,
        facts: &facts,
        identity: &identity,
        image: &image,
        new_files: &new_files,
        device_type: wish.effective(),
        hostname,
        budget: &budget,
        available,
        seconds_alone: estimate::seconds_alone(&facts.target, &image, buffer),
        report: &report,
    };
    preview.print()?;
    Ok(Decision { facts, image, plan, new_files, budget })
}

/// Everything that was decided, ready to be put in place.
struct Decision {
    facts: Facts,
    image: Examined,
    plan: Plan,
    new_files: NewFiles,
    budget: Budget,
}

impl Decision {
    /// The facts as they are now: the question may have waited for hours, and services live on meanwhile. Swap that
    /// came up is turned off like the rest, if there is the memory.
    fn look_again(&self, options: &Options) -> Result<Facts, Error> {
        let root = facts::root_mount()?;
        let now = Facts::gather(&root, target::choose(options, &root)?)?;
        if now.target.number != self.facts.target.number
            || now.target.size != self.facts.target.size
        {
            let why = "it is another disk than before the question";
            return Err(Error::refused("looking again at the target", &now.target.name, why)
                .advice("name the disk with -f DEV"));
        }
        let swapped = now.swaps.iter().map(|swap| swap.used).sum();
        Budget { swapped, ..self.budget }.check(now.available, cgroup::left())?;
        Ok(now)
    }

    /// Changes the live system step by step, each noted in `undo`, the hand-over last.
    fn prepare(&self, options: &Options, buffer: &mut [u8], undo: &mut Undo) -> Result<(), Error> {
        let image = &self.image;
        let now = self.look_again(options)?;
        let watch = Stopwatch::start();
        let ramfs = Ramfs::mount(self.budget.ramfs(), undo)?;
        ramfs.make_nodes(&self.facts.target.name, self.facts.target.number, undo)?;
        crate::info!(
            "RAMFS of {} at {} ({} s)",
            Size(self.budget.ramfs()),
            ramfs.path.as_str(),
            watch.shown()
        );
        rehearse(&ramfs, &self.plan, buffer)?;
        ramfs.copy_program(buffer)?;
        rehearsal::execute(&ramfs.inside(names::PROGRAM)?, rehearsal::PATIENCE)?;
        swap_off(&now, undo)?;
        let watch = Stopwatch::start();
        staging::stage_image(&ramfs, &image.source, image.stream, &image.scan, buffer)?;
        staging::stage_map(&ramfs, &image.map, &image.scan, buffer)?;
        staging::stage_files(&ramfs, &self.new_files, buffer)?;
        self.plan.write(&ramfs.inside(names::PLAN)?)?;
        crate::info!("the image is in memory ({} s)", watch.shown());
        undo::interrupted()?;
        writeback::write_back()?;
        let watch = Stopwatch::start();
        let patience = Duration::from_secs(options.hand_over_timeout);
        handover::hand_over(&now.init, &ramfs, patience, undo)?;
        crate::info!("PID 1 is handed over ({} s): the rest is on the console", watch.shown());
        Ok(())
    }

    /// What a dry run cannot show: the mounts that a takeover makes once beforehand.
    fn log_rehearsal(&self) {
        for need in rehearsal::needs(&self.plan) {
            let name = need.file_system.name();
            let how = match kernel_knows(name) {
                true => "the kernel has it loaded",
                false => "the kernel will load a module for it",
            };
            crate::info!("mounting {}: {}; rehearsed before a takeover, not now", name, how);
        }
        crate::info!("dry run: every check passed, nothing was changed");
    }
}

/// Stage 2's flashing from a system that goes on running: the plan, where the RAMFS is mounted, the image file, where
/// the image is in it, and what each chunk must be.
pub type Flashing = fn(&Plan, &str, &FileSource, Stream, &ChunkMap) -> Result<Flashed, Error>;

/// Flashes a disk that is not in use, from a system that runs from RAM: no init is replaced and nothing is killed.
/// Gives the exit code; an error is one that was found before flashing began.
pub fn flash(options: &Options, write: Flashing) -> Result<i32, Error> {
    checks::root()?;
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    checks::can_be_answered(options)?;
    let _lock = instance::beside_others()?;
    let mut report = Report::new();
    checks::without_effect(options, &mut report);
    let mut new_files = NewFiles::new()?;
    let mut device_type = Text::new();
    if options.config.is_some() {
        let config = configuration::read(options, buffer)?;
        device_type = config::device_type(config);
        new_files.add(
            "config.json",
            "",
            configuration::for_new_os(config, None, options, buffer)?,
        )?;
    }
    carry::networks(options, None, buffer, &mut new_files, &mut report)?;
    let path = options.flash_to.as_deref().unwrap_or_default();
    let target = target::free_to_be_written(target::asked_for(path)?)?;
    target::warn_of_network(&target, &mut |text| report.warn(text))?;
    let image = examine(options, buffer)?;
    if device_type.is_empty() {
        // Without a config.json the image alone says what the device will be.
        device_type = image.layout.device_type.clone();
    }
    let wish = configuration::wish(options, &device_type);
    compatible::check_image(&image.layout, None, &wish, &mut |text| report.warn(text))?;
    checks::fits(&image.scan, &image.table, &target)?;
    let plan = planning::plan(options, &target, &image, &new_files, None, None)?;
    if options.has(Flag::DryRun) {
        crate::info!("dry run: every check passed, nothing was changed");
        return Ok(0);
    }
    ask(options, &target)?;
    process::hold_termination().doing("holding back", "signals")?;
    let mut undo = Undo::new();
    let ended = flash_here(&plan, &image, &new_files, write, buffer, &mut undo);
    // The RAMFS, never the disk: a word about undoing would mislead. What stays of it is in the log.
    undo.run();
    let Flashed { result, line } = ended?;
    let code = result.map_or_else(
        |error| {
            crate::error!("{}", error);
            error.kind().exit_code()
        },
        |()| 0,
    );
    // The last line of all: programs read it.
    log::write_plain(&line);
    Ok(code)
}

fn flash_here(
    plan: &Plan,
    image: &Examined,
    new_files: &NewFiles,
    write: Flashing,
    buffer: &mut [u8],
    undo: &mut Undo,
) -> Result<Flashed, Error> {
    let ramfs = Ramfs::mount(new_files.staged_length() + (2 << 20), undo)?;
    ramfs.make_nodes(&plan.target.name, plan.target.number, undo)?;
    rehearse(&ramfs, plan, buffer)?;
    staging::stage_files(&ramfs, new_files, buffer)?;
    write(plan, &ramfs.path, &image.source, image.stream, &image.map)
}

/// Says what an image is, on standard output: for people, or with `--json` for programs.
pub fn describe(options: &Options) -> Result<(), Error> {
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let image = examine(options, buffer)?;
    let form = if options.has(Flag::Json) { Form::Json } else { Form::People };
    let output = rustix::stdio::stdout();
    let mut page = Page::new(form, output.as_fd());
    page.section("image", "The image");
    page.text("file", "file", options.image.as_deref().unwrap_or_default());
    page.text("format", "format", image.stream.format.name());
    page.number("packed_bytes", "packed", image.stream.length, " bytes");
    page.number("bytes", "on the disk", image.scan.length, " bytes");
    page.bytes("staged_bytes", "in memory", image.scan.staged_length);
    page.number("chunks", "chunks", image.scan.chunks.into(), "");
    page.number("zero_percent", "zeros", image.zero_share(), " %");
    page.text("table", "partition table", image.table_name());
    page.number("partitions", "partitions", image.table.partitions.len() as u64, "");
    page.number("boot_partition", "boot partition", image.layout.boot_number.into(), "");
    page.number("boot_start", "it begins at", image.layout.boot_start, "");
    page.text("device_type", "made for", &image.layout.device_type);
    page.text("version", "version", &image.layout.version);
    page.finish()
}

fn check_work_dir(options: &Options) -> Result<(), Error> {
    let path = options.work_dir.as_str();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    files::open(path, flags)
        .doing("opening the work directory", path)
        .map_err(Error::as_refusal)
        .map(drop)
}

/// The question, after the page that it is about and before the first change. The end of input means no. That there
/// is an input is found out before anything slow: `checks::can_be_answered`.
fn ask(options: &Options, target: &Disk) -> Result<(), Error> {
    if options.has(Flag::NoAck) {
        return Ok(());
    }
    let question: Text<200> = crate::text!(
        "All data on /dev/{} ({}) will be lost. Type 'yes' to go on: ",
        target.name,
        Size(target.size)
    );
    // A prompt that cannot be written will not be answered either.
    let _ = files::write_all(rustix::stdio::stderr(), question.as_bytes());
    let mut answer = [0; 16];
    let count = rustix::io::read(rustix::stdio::stdin(), &mut answer).unwrap_or(0);
    match answer.get(..count).unwrap_or_default().trim_ascii() {
        b"yes" => Ok(()),
        _ => Err(Error::refused("asking", "for consent", "the answer was not 'yes'")
            .advice("--no-ack asks no question")),
    }
}

fn swap_off(facts: &Facts, undo: &mut Undo) -> Result<(), Error> {
    for swap in &facts.swaps {
        let path = swap.path.as_str();
        process::swap_off(path).doing("swapping off", path).map_err(|error| {
            error.advice("stop services until what is swapped out fits into memory")
        })?;
        undo.note(undo::Change::SwappedOff(swap.path.clone(), swap.priority))?;
        crate::info!("swap on {} is off", path);
    }
    Ok(())
}

fn rehearse(ramfs: &Ramfs, plan: &Plan, buffer: &mut [u8]) -> Result<(), Error> {
    for need in rehearsal::needs(plan) {
        let watch = Stopwatch::start();
        rehearsal::rehearse(ramfs, need, buffer)?;
        crate::info!("rehearsed: {} can be mounted ({} s)", need.file_system.name(), watch.shown());
    }
    Ok(())
}

fn kernel_knows(file_system: &str) -> bool {
    let mut buffer = [0; 4096];
    let list = files::read_text("/proc/filesystems", &mut buffer).unwrap_or_default();
    list.lines().any(|line| line.strip_prefix("nodev").unwrap_or(line).trim_ascii() == file_system)
}
