//! Stage 1: the sequence on the live system, one line a step, and the undoing of each.
//!
//! Everything that can fail is made to fail here. Up to `prepare` nothing is changed at all.

mod budget;
mod checks;
mod facts;
mod handover;
mod ramfs;
mod rehearsal;
mod staging;
mod undo;

use crate::balena::{config, layout};
use crate::cli::Options;
use crate::disk::device::{self, Disk, Number};
use crate::disk::table::{self, Table};
use crate::disk::{ext4, fat};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::{BUFFER, Decoder};
use crate::image::format::{self, Stream};
use crate::image::map::ChunkMap;
use crate::image::reader::{ImageReader, ReadAt};
use crate::image::scan::{self, Scan};
use crate::image::source::FileSource;
use crate::log::Stopwatch;
use crate::plan::{self, BootPlan, Furnishing, ImagePlan, LogPlan, Plan, TargetPlan, names};
use crate::stage2;
use crate::sys::{map, process};
use crate::text::{Size, Text};
use budget::Budget;
use core::time::Duration;
use facts::Facts;
use ramfs::Ramfs;
use rustix::fs::OFlags;
use undo::Undo;

pub use checks::in_first_pid_namespace;

/// The log that stage 2 leaves on the old root when it gives up before the first write.
const OLD_LOG: &str = "var/log/takeover.log";
/// The log on the log device.
const DEVICE_LOG: &str = "takeover.log";

/// An image that was decoded from end to end and looked into.
struct Examined {
    source: FileSource,
    stream: Stream,
    scan: Scan,
    map: ChunkMap,
    table: Table,
    layout: layout::Layout,
}

/// Takes this device over: everything up to the hand-over to PID 1.
pub fn take_over(options: &Options) -> Result<(), Error> {
    checks::root()?;
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    checks::privileges(options.in_namespace)?;
    checks::static_program()?;
    checks::no_selinux()?;
    check_work_dir(options)?;
    let config = read_config(options, buffer)?;
    let facts = Facts::gather(options)?;
    let log_device = log_device(options, facts.target.number)?;
    facts.log();
    ask(options, &facts.target)?;
    let image = examine(options, buffer)?;
    checks::fits(&image.scan, &image.table, &facts.target)?;
    let plan = make_plan(options, &facts.target, &image, Some(&facts), log_device)?;
    let budget = budget(&facts, &image.scan, config.len())?;
    // Now, not before the question and the scan: services live on meanwhile.
    let (available, _) = facts::memory()?;
    budget.check(available)?;
    crate::info!("memory: {} needed, {} available", Size(budget.needed()), Size(available));
    if options.dry_run {
        print_plan(&plan);
        return Ok(());
    }
    process::hold_termination().doing("holding back", "signals")?;
    let mut undo = Undo::new();
    let preparation = Preparation { options, facts: &facts, image: &image, plan: &plan, config };
    let result = preparation.run(&budget, buffer, &mut undo);
    match (&result, options.no_cleanup) {
        (Err(_), false) => undo.run(),
        (Err(_), true) => crate::warn!("--no-cleanup: what was prepared is left as it is"),
        (Ok(()), _) => undo.forget(),
    }
    result
}

/// Everything that was decided, ready to be put in place.
struct Preparation<'a> {
    options: &'a Options,
    facts: &'a Facts,
    image: &'a Examined,
    plan: &'a Plan,
    config: &'a [u8],
}

impl Preparation<'_> {
    /// Changes the live system step by step, each noted in `undo`, the hand-over last.
    fn run(&self, budget: &Budget, buffer: &mut [u8], undo: &mut Undo) -> Result<(), Error> {
        let image = self.image;
        let watch = Stopwatch::start();
        swap_off(self.facts, undo)?;
        let ramfs = Ramfs::mount(budget.ramfs(), undo)?;
        ramfs.make_nodes(&self.facts.target.name, self.facts.target.number, undo)?;
        crate::info!(
            "RAMFS of {} at {} ({} s)",
            Size(budget.ramfs()),
            ramfs.path.as_str(),
            watch.shown()
        );
        rehearse(&ramfs, self.plan, buffer)?;
        let watch = Stopwatch::start();
        ramfs.copy_program()?;
        staging::stage_image(&ramfs, &image.source, image.stream, &image.scan, buffer)?;
        staging::stage_map(&ramfs, &image.map, &image.scan, buffer)?;
        stage_furnishings(&ramfs, self.plan, self.config)?;
        self.plan.write(&ramfs.inside(names::PLAN)?)?;
        crate::info!("the image is in memory ({} s)", watch.shown());
        staging::interrupted()?;
        let watch = Stopwatch::start();
        let patience = Duration::from_secs(self.options.hand_over_timeout);
        handover::hand_over(&self.facts.init, &ramfs, patience, undo)?;
        crate::info!("PID 1 is handed over ({} s): the rest is on the console", watch.shown());
        Ok(())
    }
}

/// Flashes a disk that is not in use, from a system that runs from RAM: no init is replaced and nothing is killed.
pub fn flash(options: &Options) -> Result<(), Error> {
    checks::root()?;
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let config = match &options.config {
        Some(_) => read_config(options, buffer)?,
        None => &[],
    };
    let path = options.flash_to.as_deref().unwrap_or_default();
    let target = facts::free_to_be_written(facts::asked_for(path)?)?;
    ask(options, &target)?;
    let image = examine(options, buffer)?;
    checks::fits(&image.scan, &image.table, &target)?;
    let plan = make_plan(options, &target, &image, None, None)?;
    if options.dry_run {
        print_plan(&plan);
        return Ok(());
    }
    process::hold_termination().doing("holding back", "signals")?;
    let mut undo = Undo::new();
    let result = flash_here(&plan, &image, config, buffer, &mut undo);
    undo.run();
    result
}

fn flash_here(
    plan: &Plan,
    image: &Examined,
    config: &[u8],
    buffer: &mut [u8],
    undo: &mut Undo,
) -> Result<(), Error> {
    let ramfs = Ramfs::mount(config.len() as u64 + (2 << 20), undo)?;
    ramfs.make_nodes(&plan.target.name, plan.target.number, undo)?;
    rehearse(&ramfs, plan, buffer)?;
    stage_furnishings(&ramfs, plan, config)?;
    stage2::flash_here(plan, &ramfs.path, &image.source, image.stream, &image.map)
}

/// Says what an image is.
pub fn describe(options: &Options) -> Result<(), Error> {
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let image = examine(options, buffer)?;
    let memory: Text<200> = crate::text!(
        "packed {} bytes, {} in memory, boot partition {} at byte {}",
        image.stream.length,
        Size(image.scan.staged_length),
        image.layout.boot_number,
        image.layout.boot_start
    );
    crate::info!("{}", memory);
    Ok(())
}

fn examine(options: &Options, buffer: &mut [u8]) -> Result<Examined, Error> {
    let watch = Stopwatch::start();
    let path = options.image.as_deref().unwrap_or_default();
    let source = FileSource::open(path).map_err(Error::as_refusal)?;
    let stream = format::detect(&source, path)?;
    let map = ChunkMap::create()?;
    let mut decoder = Decoder::new(&source, stream);
    let scan = scan::scan(&mut decoder, buffer, &map)?;
    let mut reader = ImageReader::new(&mut decoder, buffer);
    let table = table::read(&mut reader, scan.length)?;
    let layout = layout::find_boot(&mut reader, &table)?;
    log_image(stream, &scan, &table, &layout, watch);
    Ok(Examined { source, stream, scan, map, table, layout })
}

fn log_image(
    stream: Stream,
    scan: &Scan,
    table: &Table,
    layout: &layout::Layout,
    watch: Stopwatch,
) {
    let kind = match table.kind {
        table::Kind::Mbr => "MBR",
        table::Kind::Gpt => "GPT",
    };
    let device_type = match layout.device_type.is_empty() {
        true => "no device",
        false => &layout.device_type,
    };
    crate::info!(
        "the image: {}, {} bytes ({}), {} chunks, {} % zeros, {} with {} partitions, for {} ({} s)",
        stream.format.name(),
        scan.length,
        Size(scan.length),
        scan.chunks,
        u64::from(scan.zero_chunks) * 100 / u64::from(scan.chunks.max(1)),
        kind,
        table.partitions.len(),
        device_type,
        watch.shown()
    );
}

fn check_work_dir(options: &Options) -> Result<(), Error> {
    let path = options.work_dir.as_str();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    files::open(path, flags)
        .doing("opening the work directory", path)
        .map_err(Error::as_refusal)
        .map(drop)
}

/// config.json, read and checked; the one that was named, or that of a balenaOS.
fn read_config(options: &Options, buffer: &mut [u8]) -> Result<&'static [u8], Error> {
    const OF_BALENA_OS: &str = "/mnt/boot/config.json";
    let path = match options.config.as_deref() {
        Some(path) => path,
        None if files::exists(OF_BALENA_OS) => OF_BALENA_OS,
        None => {
            return Err(Error::usage(
                "reading the command line",
                "",
                "no config.json was given (-c FILE)",
            )
            .advice("download one for this fleet"));
        }
    };
    let bytes = files::read(path, buffer)
        .doing("reading the configuration", path)
        .map_err(Error::as_refusal)?;
    if bytes.len() > config::MAX_LENGTH {
        return Err(Error::refused("reading the configuration", path, "it is larger than 128 KiB"));
    }
    config::check(bytes, path)?;
    let kept = map::buffer(bytes.len()).doing("reserving memory for", path)?;
    kept.copy_from_slice(bytes);
    Ok(kept)
}

/// Where stage 2 is to keep its log: a file system that can be mounted, on another disk.
fn log_device(options: &Options, target: Number) -> Result<Option<LogPlan>, Error> {
    let Some(path) = options.log_to.as_deref() else {
        return Ok(None);
    };
    let refuse = |why| Error::refused("looking at the log device", path, why);
    let number = device::number_of(path)?;
    if device::whole_disk(number)? == target {
        return Err(refuse("it lies on the disk that will be overwritten")
            .advice("name a partition of another disk"));
    }
    let flags = OFlags::RDONLY;
    let file = files::open(path, flags).doing("opening", path)?;
    let mut disk = DeviceReader { file, path };
    let file_system = match fat::open(&mut disk, 0)? {
        Some(_) => "vfat",
        None if ext4::label(&mut disk, 0)?.is_some() => "ext4",
        None => return Err(refuse("it has no vfat, ext3 or ext4 file system")),
    };
    Ok(Some(LogPlan {
        number,
        file_system: plan::bounded("", file_system)?,
        path: plan::bounded("", DEVICE_LOG)?,
    }))
}

/// A block device, for those who read file systems.
struct DeviceReader<'a> {
    file: rustix::fd::OwnedFd,
    path: &'a str,
}

impl ReadAt for DeviceReader<'_> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let wanted = buffer.len();
        let count = rustix::io::pread(&self.file, buffer, offset).doing("reading", self.path)?;
        match count == wanted {
            true => Ok(()),
            false => Err(Error::refused("reading", self.path, "it is too small")),
        }
    }
}

/// The question, before anything slow. The end of input means no.
fn ask(options: &Options, target: &Disk) -> Result<(), Error> {
    if options.no_ack || options.dry_run {
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

fn make_plan(
    options: &Options,
    target: &Disk,
    image: &Examined,
    facts: Option<&Facts>,
    log_device: Option<LogPlan>,
) -> Result<Plan, Error> {
    let mut furnishings = heapless::Vec::new();
    let mut boot = None;
    if facts.is_some() || options.config.is_some() {
        boot = Some(boot_plan(image)?);
        let name = "config.json";
        let furnishing =
            Furnishing { from: plan::bounded("", name)?, to: plan::bounded("", name)? };
        // The first of 64 places.
        let _ = furnishings.push(furnishing);
    }
    let old_log = match facts {
        Some(facts) if facts.root.number.major != 0 => Some(LogPlan {
            number: facts.root.number,
            file_system: plan::bounded("", &facts.root.file_system)?,
            path: plan::bounded("", OLD_LOG)?,
        }),
        _ => None,
    };
    Ok(Plan {
        pretend: options.pretend,
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
        furnishings,
        old_log,
        log_device,
    })
}

fn boot_plan(image: &Examined) -> Result<BootPlan, Error> {
    let layout = &image.layout;
    let file_system = layout.file_system.ok_or_else(|| {
        let object: Text<32> = crate::text!("partition {}", layout.boot_number);
        Error::refused("looking at the boot partition,", &object, "it is neither FAT nor ext4")
            .advice("config.json cannot be placed on it")
    })?;
    Ok(BootPlan { start: layout.boot_start, length: layout.boot_length, file_system })
}

fn budget(facts: &Facts, scan: &Scan, furnishings: usize) -> Result<Budget, Error> {
    let program = files::status("/proc/self/exe").doing("looking at", "/proc/self/exe")?;
    let map = u64::from(scan.chunks) * crate::image::map::RECORD;
    Ok(Budget {
        image: scan.staged_length,
        rest: program.st_size.max(0) as u64 + map + furnishings as u64,
        swapped: facts.swaps.iter().map(|swap| swap.used).sum(),
    })
}

fn swap_off(facts: &Facts, undo: &mut Undo) -> Result<(), Error> {
    for swap in &facts.swaps {
        let path = swap.path.as_str();
        process::swap_off(path).doing("swapping off", path)?;
        undo.note(undo::Change::SwappedOff(swap.path.clone(), swap.priority))?;
        crate::info!("swap on {} is off", path);
    }
    Ok(())
}

fn rehearse(ramfs: &Ramfs, plan: &Plan, buffer: &mut [u8]) -> Result<(), Error> {
    let watch = Stopwatch::start();
    if let Some(boot) = plan.boot {
        rehearsal::rehearse(ramfs, boot.file_system, buffer)?;
        crate::info!("rehearsed: {} can be mounted ({} s)", boot.file_system.name(), watch.shown());
    }
    match &plan.log_device {
        Some(log) if log.file_system == "vfat" => {
            rehearsal::rehearse(ramfs, plan::FileSystem::Vfat, buffer)
        }
        Some(_) => rehearsal::rehearse(ramfs, plan::FileSystem::Ext4, buffer),
        None => Ok(()),
    }
}

fn stage_furnishings(ramfs: &Ramfs, plan: &Plan, config: &[u8]) -> Result<(), Error> {
    for furnishing in &plan.furnishings {
        let path = crate::path!(
            "{}/{}/{}",
            ramfs.path.as_str(),
            names::FURNISHINGS,
            furnishing.from.as_str()
        )?;
        drop(files::create(&path, config)?);
    }
    Ok(())
}

fn print_plan(plan: &Plan) {
    crate::info!(
        "the plan: write {} to /dev/{} ({}), {} of {} chunks are zeros",
        Size(plan.image.length),
        plan.target.name.as_str(),
        Size(plan.target.size),
        plan.image.zero_chunks,
        plan.image.chunks
    );
    if let Some(boot) = plan.boot {
        crate::info!(
            "the plan: place {} file(s) on the new boot partition ({} at byte {})",
            plan.furnishings.len(),
            boot.file_system.name(),
            boot.start
        );
        let known = kernel_knows(boot.file_system.name());
        let how =
            if known { "the kernel has it loaded" } else { "the kernel will load a module for it" };
        crate::info!(
            "the plan: mounting {}: {}; rehearsed before a takeover, not now",
            boot.file_system.name(),
            how
        );
    }
    crate::info!("dry run: every check passed, nothing was changed");
}

fn kernel_knows(file_system: &str) -> bool {
    let mut buffer = [0; 4096];
    let list = files::read_text("/proc/filesystems", &mut buffer).unwrap_or_default();
    list.lines().any(|line| line.trim_start_matches("nodev").trim() == file_system)
}
