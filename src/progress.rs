//! How far things are: the phases, the page that worker and PID 1 share, the progress line, the final result.
//!
//! The shared page is how PID 1 knows what a worker that died had done. It is made of atomics and nothing else.

use crate::banner::{self, Colour};
use crate::error::Error;
use crate::log::{self, Stopwatch};
#[cfg(feature = "core")]
use crate::sys::process;
use crate::text::{Format, Seconds, Size, Text, Writer};
use crate::{files, memory, screen};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use ufmt::{uWrite, uwrite};

/// What the worker does, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Ending every process.
    Kill,
    /// Unmounting the old root, and the proof that the disk is free.
    Unmount,
    /// Writing the image, all but its first chunk.
    Flash,
    /// Reading it back, and repairs.
    Verify,
    /// Placing what lies on ext4: the backup and the fallback log.
    Data,
    /// Writing the first chunk and reading it back: from here on the disk boots.
    Head,
    /// Making the boot entry of the new OS.
    Efi,
}

/// Every phase, in order.
pub const PHASES: [Phase; 7] = [
    Phase::Kill,
    Phase::Unmount,
    Phase::Flash,
    Phase::Verify,
    Phase::Data,
    Phase::Head,
    Phase::Efi,
];

impl Phase {
    /// The name in logs and in the result.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Kill => "kill",
            Phase::Unmount => "unmount",
            Phase::Flash => "flash",
            Phase::Verify => "verify",
            Phase::Data => "data",
            Phase::Head => "head",
            Phase::Efi => "efi",
        }
    }
}

/// The page that PID 1 and its workers share. Counters add up over workers; a new worker resets its own.
#[derive(Default)]
pub struct Shared {
    /// Changes whenever the worker gets on; it may begin at 0 again. (32 bits here and below: ARMv6 has no instructions
    /// for 64 in its Thumb code.)
    pub heartbeat: AtomicU32,
    /// Set before the first destructive byte: the point of no return. Cleared only while nothing but the head of the
    /// disk was written, when that reads back as it was.
    pub destroyed: AtomicBool,
    /// Set when the head of the disk, which is written first, is in the memory that the workers share; cleared before
    /// anything else is written.
    pub head_only: AtomicBool,
    /// Set when blocks of that head could not be read: they are zeros in it.
    pub head_has_gaps: AtomicBool,
    /// Set when the first chunk, which is written last, was read back: the new OS is on the disk, whole.
    pub complete: AtomicBool,
    /// Set when a range that the disk had promised to make zeros was not: it is not asked again.
    pub zeroing_lied: AtomicBool,
    /// What has become of the backup, as the number of a [`Kept`].
    pub backup: AtomicU32,
    /// What has become of the log on the new data partition, likewise.
    pub log: AtomicU32,
    /// What has become of the report to the API, likewise.
    pub report: AtomicU32,
    /// What has become of the boot entry, likewise.
    pub efi: AtomicU32,
    /// Which phase the worker is in, as its number.
    pub phase: AtomicU32,
    /// Milliseconds that each phase took, the last time it ran.
    pub phase_time: [AtomicU32; PHASES.len()],
    /// Chunks that were read back wrong and written again.
    pub repaired: AtomicU32,
    /// How often a worker was started.
    pub attempts: AtomicU32,
    /// What a rescue system has begun to write: see [`crate::disk::device::sequence`]. 0 for none.
    pub disk_sequence: AtomicU32,
    /// The most memory a worker had resident, in KiB, but for PID 1's part of what both have.
    pub worker_peak: AtomicU32,
    /// How much of PID 1's memory counts with the worker, in KiB.
    pub of_both: AtomicU32,
    /// How much of the RAMFS counts with them, since it is mapped: the program.
    pub mapped: AtomicU32,
    /// The most heap a worker had in use, in bytes.
    pub worker_heap: AtomicU32,
}

/// A figure as a counter of [`Shared`] takes it.
pub fn saturated(figure: u64) -> u32 {
    u32::try_from(figure).unwrap_or(u32::MAX)
}

impl Shared {
    /// The worker got on.
    pub fn beat(&self) {
        self.heartbeat.fetch_add(1, SeqCst);
    }

    /// The worker begins a phase.
    pub fn enter(&self, phase: Phase) -> Stopwatch {
        self.beat();
        self.phase.store(phase as u32, SeqCst);
        screen::show(phase.name(), Colour::White);
        Stopwatch::start()
    }

    /// The worker ends a phase.
    pub fn leave(&self, phase: Phase, watch: Stopwatch) {
        self.beat();
        if let Some(time) = self.phase_time.get(phase as usize) {
            time.store(saturated(watch.elapsed()), SeqCst);
        }
    }

    /// The phase the worker is or was in.
    pub fn current(&self) -> &'static str {
        let index = self.phase.load(SeqCst) as usize;
        PHASES.get(index).map_or("start", |phase| phase.name())
    }
}

/// What has become of something that the new OS can do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kept {
    /// Not asked for, or not come to.
    Not,
    /// It is on the new disk, was sent, or is in the firmware.
    Yes,
    /// It is not: the new OS starts without it, or nobody knows.
    Failed,
}

impl Kept {
    /// By its number: see [`Shared::backup`].
    fn name(number: &AtomicU32, yes: &'static str) -> &'static str {
        match number.load(SeqCst) {
            0 => "none",
            1 => yes,
            _ => "failed",
        }
    }
}

/// How a run ended, for programs that read the last line of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Flashed and verified, with the files of the new OS.
    Done,
    /// `--pretend`: all but the writing.
    Pretended,
    /// Given up before the first write: the old OS is as it was.
    Untouched,
    /// Given up after the first write.
    Failed,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Pretended => "pretended",
            Outcome::Untouched => "untouched",
            Outcome::Failed => "failed",
        }
    }
}

/// What the result line says beside the shared page.
#[derive(Default)]
pub struct Totals {
    /// The image's length in bytes.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Those that are all zeros.
    pub zero_chunks: u32,
    /// Bytes in the RAMFS.
    pub ramfs: u64,
    /// The most memory this process had resident, in KiB.
    pub own_peak: u64,
}

/// How flashing from a system that goes on running ended (`takeover flash`).
pub struct Flashed {
    /// Whether the disk is complete; a failure in the middle is one of the kind `Incomplete`.
    pub result: Result<(), Error>,
    /// The last line of the run: see [`result_line`].
    pub line: Text<600>,
}

/// The last line of a run, as JSON: outcome, what was written, seconds per phase, peak memory. Times in seconds, memory
/// in KiB but for the heap, which is in bytes. Of a disk that is as it was, nothing is said to be written.
pub fn result_line(outcome: Outcome, shared: &Shared, totals: &Totals) -> Text<600> {
    let load = |counter: &AtomicU32| counter.load(SeqCst);
    let worker = u64::from(shared.worker_peak.load(SeqCst));
    // What is in two places of these is counted in one.
    let ramfs = totals.ramfs.div_ceil(1024).saturating_sub(load(&shared.mapped).into());
    let own = totals.own_peak.saturating_sub(load(&shared.of_both).into());
    let (bytes, chunks, zero_chunks) = match outcome {
        Outcome::Done | Outcome::Failed => (totals.bytes, totals.chunks, totals.zero_chunks),
        Outcome::Pretended | Outcome::Untouched => (0, 0, 0),
    };
    Text::build(&mut |line: &mut Writer| {
        uwrite!(line, "{{\"outcome\":\"{}\",\"bytes\":{}", outcome.name(), bytes)?;
        uwrite!(line, ",\"chunks\":{},\"zero_chunks\":{}", chunks, zero_chunks)?;
        uwrite!(line, ",\"repaired_chunks\":{}", load(&shared.repaired))?;
        if crate::IS_WHOLE {
            uwrite!(line, ",\"backup\":\"{}\"", Kept::name(&shared.backup, "placed"))?;
            uwrite!(line, ",\"log\":\"{}\"", Kept::name(&shared.log, "placed"))?;
            uwrite!(line, ",\"report\":\"{}\"", Kept::name(&shared.report, "sent"))?;
            uwrite!(line, ",\"efi\":\"{}\"", Kept::name(&shared.efi, "set"))?;
        }
        uwrite!(line, ",\"attempts\":{},\"seconds\":{{", load(&shared.attempts))?;
        for (index, (phase, time)) in PHASES.iter().zip(&shared.phase_time).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            uwrite!(line, "{}\"{}\":{}", comma, phase.name(), Seconds(load(time).into()))?;
        }
        if !crate::IS_WHOLE {
            return line.write_str("}}");
        }
        uwrite!(line, "}},\"peak_kib\":{{\"total\":{}", own + worker + ramfs)?;
        uwrite!(line, ",\"pid1\":{},\"worker\":{}", own, worker)?;
        uwrite!(line, ",\"ramfs\":{}}}", ramfs)?;
        uwrite!(line, ",\"heap_bytes\":{}", shared.worker_heap.load(SeqCst))?;
        uwrite!(line, ",\"heap_sealed\":{}}}", memory::is_sealed())
    })
}

/// The progress line of a long step: the first soon, then one in ten seconds; on a terminal one that is written anew.
pub struct Rate {
    step: &'static str,
    total: u64,
    from: u64,
    watch: Stopwatch,
    /// When it was shown, and when it was written to the log.
    shown: u64,
    logged: u64,
}

/// Milliseconds between two looks at it: what the screen and a terminal show.
const INTERVAL: u64 = 2000;
/// Milliseconds between two lines of the log.
const LOG_INTERVAL: u64 = 10_000;

impl Rate {
    /// A step of `total` bytes begins.
    pub fn start(step: &'static str, total: u64) -> Self {
        Self::start_from(step, total, 0)
    }

    /// The same with `from` bytes done before, which do not count for the rate.
    pub fn start_from(step: &'static str, total: u64, from: u64) -> Self {
        Self { step, total, from, watch: Stopwatch::start(), shown: 0, logged: 0 }
    }

    /// `done` bytes are done. Shows share, rate and time left when it is time to; of a total that nobody knows, 0, what
    /// is done and the rate.
    pub fn advance(&mut self, done: u64) {
        let elapsed = self.watch.elapsed();
        if elapsed < self.shown + INTERVAL {
            return;
        }
        self.shown = elapsed;
        let per_second = done.saturating_sub(self.from).saturating_mul(1000) / elapsed.max(1);
        if self.total == 0 {
            let step = self.step;
            self.say(crate::format!("{}: {}, {}/s", step, Size(done), Size(per_second)));
            return;
        }
        let (step, total) = (self.step, self.total);
        let left = total.saturating_sub(done) / per_second.max(1);
        let percent = done.saturating_mul(100) / self.total.max(1);
        screen::show(&banner::words(self.step, Some((percent, left))), Colour::White);
        self.say(crate::format!(
            "{}: {} % of {}, {}/s, {} s left",
            step,
            percent,
            Size(total),
            Size(per_second),
            left
        ));
        tell_of_interruption(percent);
    }

    /// On a terminal each time, in the log of others when it is time to.
    fn say(&mut self, line: &mut dyn Format) {
        #[cfg(feature = "core")]
        if log::is_on_terminal() {
            return log::rewrite(line);
        }
        // The set rescue has no bytes to tell the log from the screen.
        if crate::IS_WHOLE {
            if self.logged > 0 && self.shown < self.logged + LOG_INTERVAL {
                return;
            }
            self.logged = self.shown;
        }
        log::write(log::Level::Info, line);
    }

    /// The step has ended, with all bytes of a known total: says so where there was a line of it, and what comes next.
    pub fn end(&self, next: &str) {
        if crate::IS_WHOLE && self.shown > 0 {
            let (total, time) = (Size(self.total), self.watch.shown());
            crate::info!("{}: 100 % of {} ({} s); next: {}", self.step, total, time, next);
        }
    }
}

/// What Ctrl-C and its sisters come to while a disk is being written by a command: said once.
#[cfg(feature = "core")]
fn tell_of_interruption(percent: u64) {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    if IS_WRITING.load(SeqCst)
        && process::pending_termination().is_some()
        && !IS_TOLD.swap(true, SeqCst)
    {
        crate::warn!(
            "interrupted, and it goes on: the disk is being written ({} %), and one that is written in part does not start",
            percent
        );
    }
}

#[cfg(not(feature = "core"))]
fn tell_of_interruption(_: u64) {}

/// A command that holds back signals writes a disk now: `takeover flash`.
#[cfg(feature = "core")]
pub static IS_WRITING: AtomicBool = AtomicBool::new(false);

/// Whether the disks get on with what is not written yet, while whoever waits for that cannot say so. All of them: what
/// the old OS has written may be on another one than the target.
///
/// By what they have completed: the kernel's figure of what is unwritten stands still for up to a minute on a slow
/// card and then falls by tens of MiB, since all pages of a large request leave it together.
pub struct Writeback {
    looked: Stopwatch,
    /// What was unwritten at the first look, in KiB, and what the disks had written in their lives.
    first: Option<(u64, u64)>,
    /// What they had written when that counted last.
    counted: u64,
}

impl Writeback {
    /// KiB that must have been written to count.
    const STEP: u64 = 1024;

    /// From now on.
    pub fn start() -> Self {
        Self { looked: Stopwatch::start(), first: None, counted: 0 }
    }

    /// True when more was written. Looks once a second, at most.
    pub fn gets_on(&mut self) -> bool {
        const SECOND: u64 = 1000;
        if self.looked.elapsed() < SECOND {
            return false;
        }
        self.looked = Stopwatch::start();
        self.is_more(memory::unwritten_kib(), written_kib())
    }

    /// What is left of what was unwritten at first, in KiB.
    pub fn left(&self) -> u64 {
        let (unwritten, written) = self.first.unwrap_or_default();
        unwritten.saturating_sub(written_kib().saturating_sub(written))
    }

    /// Only up to twice of what was unwritten at first (a journal may double it): a kernel that writes a little of its
    /// own for ever must not keep alive what hangs for another reason.
    fn is_more(&mut self, unwritten: u64, written: u64) -> bool {
        let Some((at_first, start)) = self.first else {
            (self.first, self.counted) = (Some((unwritten, written)), written);
            return false;
        };
        let is_more = written >= self.counted.saturating_add(Self::STEP)
            && written.saturating_sub(start) <= at_first.saturating_mul(2);
        if is_more {
            self.counted = written;
        }
        is_more
    }
}

/// What all disks have written in their lives, in KiB. The seventh figure is in sectors of 512 bytes
/// (Documentation/block/stat.rst). What is stacked on disks, or in files, has no device of its own, and would be
/// counted twice.
fn written_kib() -> u64 {
    let mut sectors = 0u64;
    let mut add = |disk: &str| {
        if let Ok(folder) = files::below("/sys/block", disk)
            && files::is_below(&folder, "device")
        {
            // 17 figures of up to 20 digits.
            let mut buffer = [0; 512];
            let figures = files::text_below(&folder, "stat", &mut buffer).unwrap_or_default();
            sectors = sectors.saturating_add(sectors_written(figures));
        }
        ControlFlow::Continue(())
    };
    // Without that folder nothing ever gets on.
    let _ = files::for_each_entry("/sys/block", &mut add);
    sectors / 2
}

fn sectors_written(figures: &str) -> u64 {
    figures.split_ascii_whitespace().nth(6).and_then(crate::text::decimal).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_is_json_with_every_figure() {
        let shared = Shared::default();
        shared.repaired.store(2, SeqCst);
        shared.phase_time[Phase::Flash as usize].store(61_250, SeqCst);
        shared.worker_peak.store(6000, SeqCst);
        shared.of_both.store(100, SeqCst);
        shared.mapped.store(1, SeqCst);
        shared.backup.store(Kept::Failed as u32, SeqCst);
        shared.log.store(Kept::Yes as u32, SeqCst);
        shared.report.store(Kept::Yes as u32, SeqCst);
        shared.efi.store(Kept::Yes as u32, SeqCst);
        let totals = Totals { bytes: 10, chunks: 3, zero_chunks: 1, ramfs: 2048, own_peak: 700 };
        let line = result_line(Outcome::Done, &shared, &totals);
        assert_eq!(
            &*line,
            "{\"outcome\":\"done\",\"bytes\":10,\"chunks\":3,\"zero_chunks\":1,\"repaired_chunks\":2,\
             \"backup\":\"failed\",\"log\":\"placed\",\"report\":\"sent\",\"efi\":\"set\",\"attempts\":0,\
             \"seconds\":{\"kill\":0.000,\"unmount\":0.000,\"flash\":61.250,\"verify\":0.000,\"data\":0.000,\"head\":0.000,\"efi\":0.000},\
             \"peak_kib\":{\"total\":6601,\"pid1\":600,\"worker\":6000,\"ramfs\":1},\"heap_bytes\":0,\"heap_sealed\":false}"
        );
    }

    #[test]
    fn a_disk_gets_on_as_long_as_it_writes_what_was_unwritten() {
        let mut writeback = Writeback::start();
        let looks = [70, 70, 1000, 1094, 1500, 9000, 9000, 20_069, 20_071, 90_000];
        let found = looks.map(|written| writeback.is_more(10_000, written));
        // 20,000 KiB at most, in steps of 1024.
        assert_eq!(found, [false, false, false, true, false, true, false, true, false, false]);
        // And not more than one look a second.
        assert!(!writeback.gets_on());
        // Nothing to write: whatever is written is something else.
        let mut writeback = Writeback::start();
        assert_eq!([0, 5000, 10_000].map(|written| writeback.is_more(0, written)), [false; 3]);
    }

    #[test]
    fn the_seventh_figure_of_a_disk_is_what_it_has_written() {
        let figures = "1520 300 98304 410 77 12 4096 90 0 380 500 0 0 0 0 9 0";
        assert_eq!(sectors_written(figures), 4096);
        assert_eq!(sectors_written("1 2 3"), 0);
    }

    #[test]
    fn what_is_untouched_has_no_bytes_written() {
        let totals = Totals { bytes: 10, chunks: 3, zero_chunks: 1, ramfs: 2048, own_peak: 700 };
        let line = |outcome| result_line(outcome, &Shared::default(), &totals).to_string();
        for outcome in [Outcome::Untouched, Outcome::Pretended] {
            assert!(line(outcome).contains("\"bytes\":0,\"chunks\":0,\"zero_chunks\":0,"));
        }
        assert!(line(Outcome::Failed).contains("\"bytes\":10,\"chunks\":3,\"zero_chunks\":1,"));
    }

    #[test]
    fn the_largest_figures_fit_into_the_line() {
        let shared = Shared::default();
        for time in &shared.phase_time {
            time.store(u32::MAX, SeqCst);
        }
        shared.worker_peak.store(u32::MAX, SeqCst);
        shared.worker_heap.store(u32::MAX, SeqCst);
        let totals = Totals {
            bytes: u64::MAX,
            chunks: u32::MAX,
            zero_chunks: u32::MAX,
            ramfs: u64::MAX,
            own_peak: u64::MAX >> 8,
        };
        assert!(result_line(Outcome::Done, &shared, &totals).ends_with("}"));
    }
}
