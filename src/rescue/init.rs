//! The init of an initramfs of the kernel and this program: takes what is wanted from the kernel's command line,
//! supervises a worker that flashes, and restarts the machine or stops with the reason.
//!
//! It never ends, since the kernel would panic, and it reaps every child. A worker that fails, dies or hangs is started
//! again, a few times; then it is as `takeover.on-failure` says. What a check refuses is not tried again.

use super::flash::{self, Found};
use super::wishes::Wishes;
use super::{devices, modules};
use crate::banner::Colour;
use crate::disk::device::{self, Number};
use crate::disk::{mounts, writable};
use crate::error::{Doing, Error, Kind};
use crate::image::decode::BUFFER;
use crate::log::Stopwatch;
use crate::plan::{OnFailure, STALL};
use crate::progress::{Flashed, Shared};
use crate::stage2::pid1::{self, Ended, PAUSE, RETRIES, Verdict};
use crate::sys::{clock, map, process};
use crate::{files, screen};
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal};

/// Where the device with the image is mounted, and that with config.json.
const MOUNTED: [&str; 2] = ["/image", "/config"];
/// How long the reason can be read before the machine restarts, in seconds.
const TO_READ: u64 = 10;
/// The most bytes that the kernel's command line may have: those of any architecture have 4096 at most.
const LINE: usize = 8192;

/// Lives the life of PID 1, when this is the machine's own and something is asked of this program; else it returns.
/// With `always`, because this program has no other role there, also when nothing is.
pub fn live(always: bool) {
    let _ = files::make_directory("/proc");
    if !files::exists("/proc/cmdline") {
        // Without it nothing is asked.
        let _ = mounts::mount_at("proc", "/proc", "proc", MountFlags::empty(), "");
    }
    if !process::in_first_pid_namespace() {
        return;
    }
    let line = read_line();
    if !always && !Wishes::are_in(line) {
        return;
    }
    prepare();
    let mut wishes = Wishes { no_ack: true, ..Wishes::new() };
    let asked = wishes.take_kernel_line(line).and_then(|()| wishes.check());
    match asked.and_then(|()| Init::new(&wishes)) {
        Ok(init) => init.supervise(),
        Err(error) => {
            crate::error!("{}", error);
            end(wishes.on_failure)
        }
    }
}

fn read_line() -> &'static str {
    let line =
        map::buffer(LINE).ok().and_then(|buffer| files::read_text("/proc/cmdline", buffer).ok());
    line.unwrap_or_default()
}

/// What the kernel leaves to its init: the file systems of the kernel, the console, the drivers that are modules.
fn prepare() {
    let flags = MountFlags::empty();
    for (kind, point) in [("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = files::make_directory(point);
        // The kernel may have mounted it already; what is missing is missed later.
        let _ = mounts::mount_at(kind, point, kind, flags, "");
    }
    let _ = pid1::open_console("");
    pid1::open_logs();
    pid1::restart_on_panic();
    // Names are asked of the servers that ip= has brought (Documentation/admin-guide/nfs/nfsroot.rst).
    #[cfg(feature = "http")]
    {
        let _ = files::make_directory("/etc");
        let _ = rustix::fs::symlink("/proc/net/pnp", "/etc/resolv.conf");
    }
    // Neither can fail here, and both make things better, no more.
    let _ = process::block_all_signals();
    let _ = process::disable_ctrl_alt_del();
    crate::info!("takeover is the init of a rescue system");
    modules::load();
}

struct Init<'a> {
    wishes: &'a Wishes,
    shared: &'static Shared,
    /// The old head of the disk, for the worker after one that has died.
    head: core::cell::Cell<Option<&'static mut [u8]>>,
}

impl<'a> Init<'a> {
    fn new(wishes: &'a Wishes) -> Result<Self, Error> {
        Ok(Self {
            wishes,
            shared: map::shared().doing("mapping", "the shared page")?,
            head: Some(map::shared_buffer(BUFFER).doing("reserving", "memory")?).into(),
        })
    }

    fn supervise(&self) -> ! {
        loop {
            let attempt = self.shared.attempts.fetch_add(1, SeqCst) + 1;
            if attempt > 1 {
                crate::info!("starting again (run {})", attempt);
            }
            let code = self.run_worker();
            if self.wishes.dry_run && code == Some(0) {
                crate::info!("stopped: nothing was to be written (takeover.dry-run)");
                stop();
            }
            if self.shared.complete.load(SeqCst) || code == Some(0) {
                screen::show("done", Colour::Green);
                crate::info!("done: restarting");
                pid1::restart(None, None);
            }
            // Once something was written, what is refused may be the disk as an earlier run has left it.
            let is_final = !self.shared.destroyed.load(SeqCst)
                && [Kind::Usage, Kind::Refused].map(Kind::exit_code).map(Some).contains(&code);
            if is_final || attempt > RETRIES && self.wishes.on_failure != OnFailure::Retry {
                end(self.wishes.on_failure);
            }
            let pause = pid1::pause_before_retry(attempt, code.is_none());
            crate::warn!("next try in {} s", pause);
            clock::sleep(Duration::from_secs(pause));
        }
    }

    /// One run of the worker: its exit code, nothing when it died.
    fn run_worker(&self) -> Option<i32> {
        match process::spawn(|| self.work()).doing("starting", "the worker") {
            Ok(id) => self.watch(id),
            Err(error) => {
                crate::error!("{}", error);
                Some(Kind::Failed.exit_code())
            }
        }
    }

    /// Waits for the worker, and reaps all others. One that does not get on while it writes is killed.
    fn watch(&self, worker: Pid) -> Option<i32> {
        let mut seen = self.shared.heartbeat.load(SeqCst);
        let mut since = Stopwatch::start();
        let mut killed: Option<Stopwatch> = None;
        loop {
            match pid1::reap(worker) {
                Some(Ended::Code(code)) => return Some(code),
                Some(_) => {
                    crate::error!("the worker died");
                    return None;
                }
                None => {}
            }
            let beat = self.shared.heartbeat.load(SeqCst);
            // What comes before the first beat waits for disks, and has limits of its own.
            if beat != seen || beat == 0 {
                (seen, since) = (beat, Stopwatch::start());
            }
            match pid1::verdict(since.elapsed(), killed.map(Stopwatch::elapsed), STALL) {
                Verdict::Wait => {}
                Verdict::Kill => {
                    crate::error!("no progress: the worker is killed");
                    // It may have ended just now; then it is reaped next time round.
                    let _ = rustix::process::kill_process(worker, Signal::KILL);
                    killed = Some(Stopwatch::start());
                }
                Verdict::GiveUp => {
                    crate::error!("the worker hangs in the kernel");
                    return None;
                }
            }
            clock::sleep(Duration::from_millis(20));
        }
    }

    /// What the worker does, in a process of its own; its exit code.
    fn work(&self) -> i32 {
        self.shared.heartbeat.store(0, SeqCst);
        flash::report(self.flash())
    }

    fn flash(&self) -> Result<Option<Flashed>, Error> {
        let wishes = self.wishes;
        let head = self.head.take().unwrap_or_default();
        let mut target = Number { major: 0, minor: 0 };
        devices::wait_for(wishes.to, wishes.wait, &mut || {
            target = disk(wishes.to, self.shared)?;
            Ok(())
        })?;
        let find = |place, point| devices::file_at(place, point, target, wishes.wait);
        let [of_image, of_config] = MOUNTED;
        let (image, config) = (find(wishes.image, of_image)?, find(wishes.config, of_config)?);
        let found = Found { image: &image, config: &config, target };
        flash::flash(wishes, &found, head, self.shared)
    }
}

/// The disk of this name. When an earlier try has begun with one, it must not have been plugged in anew: another one
/// may have its name by now.
fn disk(path: &str, shared: &Shared) -> Result<Number, Error> {
    let number = writable::asked_for(path)?;
    let begun = shared.disk_sequence.load(SeqCst);
    if begun == 0 || device::sequence(number) == begun {
        return Ok(number);
    }
    Err(Error::failed(
        "looking at the disk",
        path,
        "it was plugged in anew since it was begun with",
    )
    .advice("restart the machine"))
}

/// What comes when all has failed, or was refused.
fn end(on_failure: OnFailure) -> ! {
    screen::show("failed", Colour::Red);
    if on_failure == OnFailure::Reboot {
        crate::error!("given up: restarting in {} s", TO_READ);
        clock::sleep(Duration::from_secs(TO_READ));
        pid1::restart(None, None);
    }
    crate::error!(
        "given up: stopped. The reason is above; takeover.on-failure=reboot would restart"
    );
    stop();
}

/// PID 1 must not end.
fn stop() -> ! {
    loop {
        clock::sleep(Duration::from_secs(PAUSE));
    }
}
