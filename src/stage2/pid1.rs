//! PID 1: arrives in the place of the old init, leaves the old root, and outlives everything.
//!
//! It never panics, never allocates, and reaps every child. It starts the worker and judges it by the page they
//! share: a worker that ends badly before the first write means a restart of the old OS, which is whole; after it,
//! the flash is run again from the staged image.

use super::led::{self, Led};
use super::sequence::{self, End};
use super::watchdog::{self, Feeder};
use super::{consoles, keep_log, record, totals};
use crate::banner::Colour;
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::image::decode::BUFFER;
use crate::log::{Line, Stopwatch};
use crate::plan::{FilePlan, OnFailure, Plan, names};
use crate::progress::{Outcome, Shared, Totals, Writeback, result_line};
use crate::sys::{map, process, thread};
use crate::text::PathText;
use crate::{files, log, memory, screen};
use core::cell::Cell;
use core::convert::Infallible;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::system::RebootCommand;

/// The argument by which PID 1 knows that it has left the old root.
pub const ALONE: &core::ffi::CStr = c"--alone";

/// How often a failed flash is run again before `--on-failure` decides.
pub const RETRIES: u32 = 3;
/// The pause before a retry after that, in seconds.
pub const PAUSE: u64 = 30;
/// What the disk is like when flashing has failed.
const INCOMPLETE: &str = "the disk is incomplete";
/// What is so when keeping the log has failed.
const NOT_KEPT: &str = "the log is not kept";
/// How long a killed worker may take to end, in milliseconds.
const DEATH: u64 = 30_000;

/// What a process that is PID 1 finds where its program file lies. Made once, on the stack.
#[allow(clippy::large_enum_variant)]
pub enum Arrival {
    /// No RAMFS: an ordinary program that happens to be PID 1.
    NotOurs,
    /// The plan was taken back: stage 1 has undone everything.
    Revoked,
    /// The plan is claimed; the RAMFS is here.
    Claimed(PathText),
}

/// Looks for the RAMFS that this program was started from, and claims the plan in it. The rename is the proof that
/// stage 1 waits for, and it can succeed on one side only.
pub fn claim() -> Arrival {
    let Ok(Some(ramfs)) = mounts::ramfs_of("/proc/self/exe") else {
        return Arrival::NotOurs;
    };
    match claim_plan(&ramfs.point) {
        Ok(()) => Arrival::Claimed(ramfs.point),
        Err(_) => Arrival::Revoked,
    }
}

fn claim_plan(ramfs: &str) -> Result<(), Error> {
    let plan = files::below(ramfs, names::PLAN)?;
    let claimed = files::below(ramfs, names::CLAIMED)?;
    let file = files::opened(&plan, OFlags::RDONLY)?;
    // The lock is stage 1's: nobody waits for the hand-over if it can be had.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Err(Error::failed("claiming", &plan, "stage 1 has gone"));
    }
    files::rename(&plan, &claimed).doing("claiming", &plan)
}

/// Leaves the old root and starts again from the RAMFS. Returns only when that failed; nothing is harmed then.
pub fn leave_old_root(ramfs: &str) -> Error {
    match leave(ramfs) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn leave(ramfs: &str) -> Result<Infallible, Error> {
    process::close_from(3);
    process::block_all_signals().doing("blocking", "signals")?;
    process::heed_children();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Refused in a PID namespace, where Ctrl-Alt-Del does not reach anyway.
    let _ = process::disable_ctrl_alt_del();
    open_console(ramfs)?;
    mounts::make_private("/", true).doing("making private", "/")?;
    rustix::process::chdir(ramfs).doing("entering", ramfs)?;
    rustix::process::pivot_root(".", names::OLD).doing("pivoting to", ramfs)?;
    rustix::process::chdir("/").doing("entering", "/")?;
    let errno = process::become_own_copy("/takeover", ALONE);
    Err(Error::os("starting again from", "the RAMFS", errno))
}

/// The console as standard input, output and error; where there is none, nothing.
pub fn open_console(base: &str) -> Result<(), Error> {
    // Non-blocking: a console that was stopped with Ctrl-S must not stop us.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::APPEND;
    let open = |name| {
        let path = crate::path!("{}/{}/{}", base, names::DEV, name)?;
        files::opened(&path, flags)
    };
    let console = open("console").or_else(|_| open("null"))?;
    process::become_stdio(console).doing("becoming", "standard input and output")
}

/// The rest of PID 1's life: alone on the RAMFS.
pub fn alone() -> ! {
    open_logs();
    restart_on_panic();
    let plan = match Plan::read(&path_of(names::CLAIMED)) {
        Ok(plan) => plan,
        Err(error) => restart(Some(error), None),
    };
    log::set_level(plan.log_level);
    #[cfg(feature = "http")]
    // Stage 1 has seen that it is one.
    if let Ok(receiver) = plan.log_receiver.parse() {
        send_log_to(&receiver);
    }
    crate::info!("takeover is PID 1, the old root is at /{}", names::OLD);
    let shared: &Shared = match map::shared().doing("mapping", "the shared page") {
        Ok(shared) => shared,
        Err(error) => restart(Some(error), None),
    };
    let head = match map::shared_buffer(BUFFER).doing("mapping", "the old head of the disk") {
        Ok(head) => Cell::new(Some(head)),
        Err(error) => restart(Some(error), None),
    };
    // In a PID namespace they are another machine's.
    let leds = if process::in_first_pid_namespace() { "/sys/class/leds" } else { "" };
    let (feeder, led) = (Feeder::new(plan.watchdog), Led::find(leds));
    let has_given_up = Cell::new(false);
    let supervisor = Supervisor { plan: &plan, shared, head, feeder, led, has_given_up };
    memory::seal();
    supervisor.run()
}

fn path_of(name: &str) -> PathText {
    // Our own short names always fit.
    crate::path!("/{}", name).unwrap_or_default()
}

/// A kernel that panics shall restart, after 30 s: Debian's would stand still for ever. That brings the old OS back
/// while nothing is written, and afterwards nothing is lost by it. Whoever has set something else has seen to it.
/// Documentation/admin-guide/sysctl/kernel.rst, `panic`.
pub fn restart_on_panic() {
    const PATH: &str = "/proc/sys/kernel/panic";
    if files::read_number(PATH) == Some(0) {
        tell_kernel(PATH, b"30");
    }
}

/// Writes to a setting of the kernel, which need not be there. In a PID namespace it is another machine's.
fn tell_kernel(path: &str, bytes: &[u8]) {
    if !process::in_first_pid_namespace() {
        return;
    }
    if let Ok(file) = files::open(path, OFlags::WRONLY) {
        // Each makes things better where it can be had, no more.
        let _ = files::write_all(&file, bytes);
    }
}

/// The log in the RAMFS, the kernel's own, and every console.
pub fn open_logs() {
    // In a PID namespace they are another machine's.
    if process::in_first_pid_namespace() {
        consoles::open();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    if crate::IS_WHOLE
        && let Ok(file) = files::open(&path_of(names::LOG), flags)
    {
        log::to_file(file);
    }
    // Without it the kernel lets only ten lines in five seconds pass.
    tell_kernel("/proc/sys/kernel/printk_devkmsg", b"on");
    if let Ok(kmsg) = files::open("/dev/kmsg", OFlags::WRONLY) {
        log::to_kernel_log(kmsg);
    }
}

/// Over the network as the old OS has set it up: the kernel keeps that.
#[cfg(feature = "http")]
fn send_log_to(receiver: &core::net::SocketAddr) {
    use crate::{address, net::socket};
    match socket::start(receiver, rustix::net::SocketType::DGRAM) {
        Ok((socket, _)) => log::to_network(socket),
        Err(errno) => {
            let to = address::shown_with_port(*receiver);
            crate::warn!("{}", Error::os("sending the log to", &to, errno));
        }
    }
}

struct Supervisor<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    /// The buffer that the workers share: each takes it, in its own copy of this.
    head: Cell<Option<&'static mut [u8]>>,
    /// Feeds the watchdogs, beside all this.
    feeder: Feeder,
    /// Says how it goes.
    led: Led,
    /// The flash has failed for good, and everybody was told.
    has_given_up: Cell<bool>,
}

/// How a child ended.
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not at all: it was killed for a lack of progress, and the kernel does not let it go.
    Stuck,
}

impl Supervisor<'_> {
    fn run(&self) -> ! {
        self.run_beside(&self.feeder.names)
    }

    /// Supervises, with a thread beside it for each of the watchdogs.
    fn run_beside(&self, watchdogs: &[watchdog::Name]) -> ! {
        let Some((name, others)) = watchdogs.split_first() else { self.supervise() };
        let feeder = &self.feeder;
        let go_on = || -> Infallible { self.run_beside(others) };
        let ended = map::stack(watchdog::STACK)
            .and_then(|stack| thread::alongside(stack, &|| feeder.run(name), go_on));
        match ended {
            Ok(never) => match never {},
            Err(errno) => {
                crate::warn!("{}", Error::os("starting a thread to feed", name, errno));
                self.run_beside(others)
            }
        }
    }

    fn supervise(&self) -> ! {
        loop {
            let end = self.run_worker();
            match end {
                Some(End::Done) => self.finish(Outcome::Done),
                Some(End::Pretended) => self.finish(Outcome::Pretended),
                // It was whole before the worker died.
                _ if self.shared.complete.load(SeqCst) => self.finish(Outcome::Done),
                _ if !self.shared.destroyed.load(SeqCst) => self.finish(Outcome::Untouched),
                end => self.after_failure(end),
            }
        }
    }

    /// One run of the worker; nothing when it died.
    fn run_worker(&self) -> Option<End> {
        let attempt = self.shared.attempts.fetch_add(1, SeqCst) + 1;
        if attempt > 1 {
            crate::info!("starting the worker again (run {})", attempt);
        }
        let child = || sequence::work(self.plan, self.shared, self.head.take().unwrap_or_default());
        let id = match process::spawn(child).doing("starting", "the worker") {
            Ok(id) => id,
            Err(error) => {
                crate::error!("{}", error);
                return Some(End::Failed);
            }
        };
        match self.watch(id) {
            Ended::Code(code) => {
                if let Some(end) = End::of(code) {
                    return Some(end);
                }
                crate::error!(
                    "the worker ended with code {} in phase {}",
                    code,
                    self.shared.current()
                )
            }
            Ended::Signal(signal) => {
                crate::error!(
                    "the worker was killed by signal {} in phase {}",
                    signal,
                    self.shared.current()
                );
            }
            Ended::Stuck => {
                crate::error!("the worker hangs in the kernel in phase {}", self.shared.current())
            }
        }
        None
    }

    /// Waits for a child, reaps all others, feeds the watchdog as long as there is progress.
    fn watch(&self, child: Pid) -> Ended {
        let mut seen = self.shared.heartbeat.load(SeqCst);
        let mut since = Stopwatch::start();
        let mut writeback = Writeback::start();
        let mut killed = None;
        loop {
            if let Some(ended) = reap(child) {
                return ended;
            }
            let beat = self.shared.heartbeat.load(SeqCst);
            if beat != seen {
                (seen, since, writeback) = (beat, Stopwatch::start(), Writeback::start());
            }
            // Unmounting writes back all that the old OS left, perhaps gigabytes to a slow card, in one system call.
            if !self.shared.destroyed.load(SeqCst) && writeback.gets_on() {
                since = Stopwatch::start();
            }
            let is_written = self.shared.destroyed.load(SeqCst);
            if may_be_fed(killed.is_some(), is_written) {
                self.feeder.allow(is_written);
            }
            let stall = self.plan.stall;
            match verdict(since.elapsed(), killed.map(Stopwatch::elapsed), stall) {
                Verdict::Wait => {}
                Verdict::Kill => {
                    crate::error!("no progress for {} s: the worker is killed", stall);
                    // It may have ended just now; then it is reaped next time round.
                    let _ = rustix::process::kill_process(child, Signal::KILL);
                    killed = Some(Stopwatch::start());
                }
                Verdict::GiveUp => return Ended::Stuck,
            }
            self.led.turn();
            crate::sys::clock::sleep(Duration::from_millis(20));
        }
    }

    /// After the first write there is no way back: again, and again, and then as `--on-failure` says.
    fn after_failure(&self, end: Option<End>) {
        let attempts = self.shared.attempts.load(SeqCst);
        let may_pass = end != Some(End::Lasting);
        if !self.has_given_up.get() && may_pass && attempts <= RETRIES {
            crate::warn!("{}: it is flashed again", INCOMPLETE);
            self.show("again", Colour::Red, led::BEATS);
            self.pause(pause_before_retry(attempts, end.is_none()));
            return;
        }
        self.show("failed", Colour::Red, led::FLASHES);
        if !may_pass {
            crate::warn!("it would fail again in the same way: no retry at once");
        }
        if !self.has_given_up.replace(true) {
            // For good: whatever comes of further tries, who looks for it later shall find it.
            self.keep_record();
            // And who waits for it shall know. A success is reported, too.
            if self.plan.on_failure != OnFailure::Reboot {
                self.tell(Outcome::Failed);
            }
        }
        match self.plan.on_failure {
            OnFailure::Retry => {
                crate::error!("flashing failed in run {}; next try in {} s", attempts, PAUSE);
                self.pause(PAUSE);
            }
            OnFailure::Reboot => self.finish(Outcome::Failed),
            OnFailure::Halt => {
                crate::error!("flashing failed in run {}; halted. {}", attempts, INCOMPLETE);
                self.report(Outcome::Failed);
                loop {
                    self.pause(PAUSE);
                }
            }
        }
    }

    /// Tells who stands before the device how it goes.
    fn show(&self, word: &str, colour: Colour, pattern: led::Pattern) {
        screen::show(word, colour);
        self.led.follow(pattern);
    }

    fn pause(&self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.feeder.allow(self.shared.destroyed.load(SeqCst));
            self.led.turn();
            crate::sys::clock::sleep(Duration::from_millis(100));
        }
    }

    /// Says how it ended, keeps the log, restarts.
    fn finish(&self, outcome: Outcome) -> ! {
        match outcome {
            Outcome::Done | Outcome::Pretended => self.show("done", Colour::Green, led::STEADY),
            Outcome::Untouched | Outcome::Failed => {
                self.show("failed", Colour::Red, led::FLASHES);
            }
        }
        match outcome {
            Outcome::Done => crate::info!("done: restarting into the new OS"),
            Outcome::Pretended => crate::info!("pretended: restarting into the old OS"),
            Outcome::Untouched => {
                crate::error!("given up before the first write: restarting into the old OS");
            }
            Outcome::Failed => {
                crate::error!("given up; {}: restarting all the same", INCOMPLETE)
            }
        }
        self.tell(outcome);
        self.report(outcome);
        restart(None, Some(&self.feeder))
    }

    /// Tells the API, if stage 1 has prepared that.
    #[cfg(feature = "http")]
    fn tell(&self, outcome: Outcome) {
        if outcome != Outcome::Pretended {
            let is_written = self.shared.destroyed.load(SeqCst);
            let feed = &mut || self.feeder.allow(is_written);
            super::report::send(outcome == Outcome::Done, self.shared, feed);
        }
    }

    #[cfg(not(feature = "http"))]
    fn tell(&self, _: Outcome) {}

    fn report(&self, outcome: Outcome) {
        let line = result_line(outcome, self.shared, &totals(self.plan, ""));
        if let Some(log) = &self.plan.log_device {
            self.keep_log(log, &line);
        }
        let lives_on = matches!(outcome, Outcome::Untouched | Outcome::Pretended);
        let packed = self.plan.packed.as_ref().filter(|_| lives_on);
        if let Some(copies) = packed.and_then(|packed| packed.copies.as_ref()) {
            self.in_child("what was copied of the image stays", &|| keep_log::remove(copies));
        }
        if let (true, Some(log)) = (lives_on, &self.plan.old_log) {
            self.keep_log(log, &line);
        }
        // After all that the keeping has to say: programs read the last line.
        log::write_plain(&line);
    }

    /// In a child, since the disk may hang.
    fn keep_record(&self) {
        let line = result_line(Outcome::Failed, self.shared, &totals(self.plan, ""));
        let result: Line = crate::text!("{}\n", line);
        self.in_child(NOT_KEPT, &|| record::keep(self.plan, "", &result, self.shared));
    }

    /// In a child, since mounting a file system may hang.
    fn keep_log(&self, log: &FilePlan, result: &str) {
        let result: Line = crate::text!("{}\n", result);
        self.in_child(NOT_KEPT, &|| keep_log::keep(log, &result));
    }

    /// Does something in a child, since a disk may hang; `failed` is what is so when it fails.
    fn in_child(&self, failed: &str, work: &dyn Fn() -> Result<(), Error>) {
        let child = || match work() {
            Ok(()) => 0,
            Err(error) => {
                crate::warn!("{}: {}", failed, error);
                1
            }
        };
        if let Ok(id) = process::spawn(child) {
            // Its outcome is in the log, for whoever still reads that.
            let _ = self.watch(id);
        }
    }
}

/// What is done about a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is waited for.
    Wait,
    /// It is killed for a lack of progress.
    Kill,
    /// It is left to the kernel, which does not let it go.
    GiveUp,
}

/// Judges a child that has not got on for `idle` milliseconds, and was killed so many milliseconds ago; it may stand
/// still for `stall` seconds.
pub fn verdict(idle: u64, killed: Option<u64>, stall: u32) -> Verdict {
    match killed {
        None if idle > u64::from(stall) * 1000 => Verdict::Kill,
        Some(time) if time > DEATH => Verdict::GiveUp,
        _ => Verdict::Wait,
    }
}

/// A worker that hangs before the first write may be ended by the watchdogs: that brings the old OS back.
fn may_be_fed(is_killed: bool, is_written: bool) -> bool {
    is_written || !is_killed
}

/// How long to wait before the worker is started again after so many runs, in seconds. What fails at once (no memory
/// for a process, a bus that is being reset) fails again at once, and all retries would be spent within a second. A
/// worker that died in the middle of its work is replaced without delay, the first time.
pub fn pause_before_retry(attempts: u32, died: bool) -> u64 {
    match attempts {
        0 | 1 if died => 0,
        0 | 1 => 5,
        2 => 15,
        _ => PAUSE,
    }
}

/// Takes in every child that has ended; how `child` ended, if it is among them.
pub fn reap(child: Pid) -> Option<Ended> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((id, status))) if id == child => {
                return Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Code(code),
                    (None, signal) => Ended::Signal(signal.unwrap_or(0)),
                });
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // Nobody has ended, or nobody is left; the latter while the worker is waited for cannot be.
            Ok(None) => return None,
            Err(_) => return Some(Ended::Signal(0)),
        }
    }
}

/// How long the file systems that are left may take to write back without getting on, in milliseconds. Ours are synced
/// already; one whose server or disk has gone would never return.
const SYNC: u64 = 20_000;

/// How long reboot(2) may take to stop every device before the machine is reset all the same.
const REBOOT_PATIENCE: Duration = Duration::from_secs(60);

/// Restarts the machine, once the disks have what was unwritten; the watchdogs are quiet until then. In a PID namespace
/// the kernel ends the namespace instead.
pub fn restart(error: Option<Error>, feeder: Option<&Feeder>) -> ! {
    if let Some(error) = error {
        crate::error!("{}", error);
        crate::error!("nothing was written: restarting into the old OS");
        let line = result_line(Outcome::Untouched, &Shared::default(), &Totals::default());
        log::write_plain(&line);
    }
    if crate::IS_WHOLE {
        write_back(feeder);
    } else {
        // Nothing is mounted there but what is read, and what was written is flushed. In a child: somebody may have
        // stopped a console.
        let child = process::spawn(|| {
            log::drain();
            0
        });
        let since = Stopwatch::start();
        while let Ok(child) = child
            && reap(child).is_none()
            && since.elapsed() < SYNC
        {
            crate::sys::clock::sleep(Duration::from_millis(20));
        }
    }
    reset_later();
    if let Some(feeder) = feeder {
        feeder.stop();
    }
    let result = rustix::system::reboot(RebootCommand::Restart).doing("restarting", "the machine");
    if let Err(error) = result {
        crate::error!("{}", error);
    }
    // Nobody feeds the watchdogs any more: now they are of use.
    loop {
        crate::sys::clock::sleep(Duration::from_secs(1));
    }
}

/// Lets the kernel write back what it has, and the console send what was said, in a child: sync(2) waits for every file
/// system and cannot be interrupted, and somebody may have stopped the console.
fn write_back(feeder: Option<&Feeder>) {
    let child = process::spawn(|| {
        // In a PID namespace they are another machine's, which goes on and writes them back; and the namespace would
        // not end while this child waits for one that hangs.
        if process::in_first_pid_namespace() {
            rustix::fs::sync();
        }
        log::drain();
        0
    });
    let mut since = Stopwatch::start();
    let mut writeback = Writeback::start();
    while let Ok(child) = child
        && reap(child).is_none()
        && since.elapsed() < SYNC
    {
        if writeback.gets_on() {
            since = Stopwatch::start();
        }
        if let Some(feeder) = feeder {
            feeder.allow(false);
        }
        crate::sys::clock::sleep(Duration::from_millis(20));
    }
}

/// Resets the machine a while from now, should the driver of some device hold up reboot(2). Root may always write to
/// this file, whatever kernel.sysrq says (Documentation/admin-guide/sysrq.rst).
pub fn reset_later() {
    // Without that child there is nothing else to be done.
    let _ = process::spawn(|| {
        crate::sys::clock::sleep(REBOOT_PATIENCE);
        crate::error!("a driver holds up the restart: the machine is reset");
        // A serial console sends by interrupts what was said, and a reset drops the rest. Not log::drain(), which a
        // stopped one would hold up.
        crate::sys::clock::sleep(Duration::from_secs(1));
        tell_kernel("/proc/sysrq-trigger", b"b");
        0
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_without_progress_is_killed_once_and_then_left() {
        for (idle, killed, wanted) in [
            (0, None, Verdict::Wait),
            (7000, None, Verdict::Wait),
            (7001, None, Verdict::Kill),
            (7001, Some(0), Verdict::Wait),
            (7000 + DEATH, Some(DEATH), Verdict::Wait),
            (7000 + DEATH + 1, Some(DEATH + 1), Verdict::GiveUp),
        ] {
            assert_eq!(verdict(idle, killed, 7), wanted, "{idle} {killed:?}");
        }
    }

    #[test]
    fn the_watchdogs_may_end_what_hangs_until_the_first_write() {
        let fed = |is_written| [false, true].map(|is_killed| may_be_fed(is_killed, is_written));
        assert_eq!(fed(false), [true, false]);
        assert_eq!(fed(true), [true, true]);
    }

    #[test]
    fn retries_are_spread_over_a_minute_unless_the_first_worker_died() {
        let pauses = |died| {
            (1..=RETRIES).map(|attempts| pause_before_retry(attempts, died)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(false), [5, 15, 30]);
        assert_eq!(pauses(true), [0, 15, 30]);
    }
}
