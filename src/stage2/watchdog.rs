//! The watchdogs of the machine: those that run are taken over and fed, so that none bites in the middle of the flash.
//!
//! Opening one and feeding it are calls into a driver, which may wait for a slow bus or for ever: each has a thread of
//! its own, so that none waits for another, and PID 1 only says how long they may. The threads take no lock: PID 1
//! forks while they run, and a lock that a thread held would be held in the child for good. So they make no
//! [`Error`](crate::error::Error).

use crate::files;
use crate::log;
use crate::plan::names;
use crate::progress::saturated;
use crate::sys::{block, clock};
use crate::text::Text;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// The most watchdogs that are fed.
const MOST: usize = 8;
/// The stack of a feeding thread, in bytes.
pub const STACK: usize = 32 * 1024;
/// How long one permission lasts before the first write, in seconds: should PID 1 itself hang, the watchdog brings
/// the old OS back.
const PERMISSION: u32 = 10;

/// What the kernel says about a watchdog: Documentation/ABI/testing/sysfs-class-watchdog, `state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Somebody has started it.
    Active,
    /// Nobody has.
    Inactive,
    /// A kernel before 4.5, or one without CONFIG_WATCHDOG_SYSFS. Stage 1 has seen that it is in use, or wants it.
    Unknown,
}

/// What is done with a watchdog that is not ours yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    /// It stays alone.
    Leave,
    /// It is taken over with the time that it has.
    Take,
    /// It is started with the time that was asked for.
    Start,
}

/// Seconds since the start of the machine.
fn seconds() -> u32 {
    saturated(log::now() / 1000)
}

/// The name of a watchdog's node.
pub type Name = Text<20>;

/// Feeds the watchdogs for as long as it may.
pub struct Feeder {
    /// Up to which moment, in seconds since the start of the machine.
    until: AtomicU32,
    /// With which time one is started when none runs, in seconds; 0: none is.
    seconds: u32,
    /// Every watchdog that has a node: stage 1 has made those.
    pub names: heapless::Vec<Name, MOST>,
    /// One is ours, or is being started.
    runs: AtomicBool,
}

impl Feeder {
    /// One that may feed for a while.
    pub fn new(seconds: u32) -> Self {
        let mut names = heapless::Vec::new();
        // Without /dev there is none.
        let _ = files::for_each_entry("/dev", &mut |name: &str| {
            if name.starts_with(names::WATCHDOG) {
                // More than there is room for are left.
                let _ = names.push(Name::from(name));
            }
            ControlFlow::Continue(())
        });
        let (until, runs) = (AtomicU32::new(0), AtomicBool::new(false));
        let feeder = Self { until, seconds, names, runs };
        feeder.allow(false);
        feeder
    }

    /// Lets it feed: for a while, or, when memory holds the only copy, for as long as nobody says otherwise.
    pub fn allow(&self, is_written: bool) {
        let until = if is_written { u32::MAX } else { seconds() + PERMISSION };
        self.until.store(until, SeqCst);
    }

    /// Lets the watchdogs bite: the machine restarts.
    pub fn stop(&self) {
        self.until.store(0, SeqCst);
    }

    fn is_allowed(&self) -> bool {
        seconds() < self.until.load(SeqCst)
    }

    /// Takes a watchdog and feeds it, about once a second, for ever. One that is held by others is tried again: they
    /// end with the rest.
    pub fn run(&self, name: &str) {
        let mut taken = None;
        loop {
            if self.is_allowed() {
                match &taken {
                    Some(file) => feed(file),
                    None => taken = self.take(name),
                }
            }
            clock::sleep(Duration::from_secs(1));
        }
    }

    /// Takes a watchdog that runs; or starts it, when that was asked for and none runs. It is fed at once.
    fn take(&self, name: &str) -> Option<OwnedFd> {
        let is_active = |name: &Name| state("/sys", name) == State::Active;
        let runs = self.runs.load(SeqCst) || self.names.iter().any(is_active);
        let choice = choice(state("/sys", name), self.seconds, runs);
        let starts = choice == Choice::Start;
        // Of several that could be started one is.
        if choice == Choice::Leave || (starts && self.runs.swap(true, SeqCst)) {
            return None;
        }
        let path: Text<40> = crate::text!("/{}/{}", names::DEV, name);
        let Ok(file) = files::open(&path, OFlags::WRONLY) else {
            if starts {
                self.runs.store(false, SeqCst);
            }
            return None;
        };
        feed(&file);
        self.runs.store(true, SeqCst);
        crate::info!("{} is ours", name);
        if starts {
            start(&file, self.seconds);
        }
        Some(file)
    }
}

/// By a write, which every driver takes; some do not know WDIOC_KEEPALIVE (watchdog_write() and watchdog_ioctl() in
/// drivers/watchdog/watchdog_dev.c).
fn feed(watchdog: &OwnedFd) {
    // One that cannot be fed will restart the device; there is nothing else to do about it.
    let _ = rustix::io::write(watchdog, &[0]);
}

/// A watchdog is started by opening it; this sets its time. Its driver rounds that, or has another.
fn start(file: &OwnedFd, seconds: u32) {
    match block::watchdog_set_time(file, seconds) {
        Ok(seconds) => crate::info!("it was started, with {} s", seconds),
        Err(errno) => crate::warn!(
            "it was started, but does not take {} s (errno {}): it has a time of its own",
            seconds,
            errno.raw_os_error()
        ),
    }
}

fn choice(state: State, seconds: u32, runs: bool) -> Choice {
    match state {
        State::Active => Choice::Take,
        State::Inactive if seconds > 0 && !runs => Choice::Start,
        State::Inactive => Choice::Leave,
        State::Unknown if seconds > 0 && !runs => Choice::Start,
        State::Unknown => Choice::Take,
    }
}

fn state(sysfs: &str, name: &str) -> State {
    let path: Text<80> = crate::text!("{}/class/watchdog/{}/state", sysfs, name);
    let mut buffer = [0; 16];
    match files::read_text(&path, &mut buffer) {
        Ok("active") => State::Active,
        Ok(_) => State::Inactive,
        Err(_) => State::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_is_taken_and_one_is_started_when_asked_for() {
        use Choice::{Leave, Start, Take};
        for (state, seconds, runs, wanted) in [
            (State::Active, 0, true, Take),
            (State::Active, 30, true, Take),
            (State::Inactive, 0, false, Leave),
            (State::Inactive, 30, true, Leave),
            (State::Inactive, 30, false, Start),
            // Stage 1 makes no node of one that nobody uses.
            (State::Unknown, 0, false, Take),
            (State::Unknown, 30, true, Take),
            (State::Unknown, 30, false, Start),
        ] {
            assert_eq!(choice(state, seconds, runs), wanted, "{state:?} {seconds} {runs}");
        }
    }

    #[test]
    fn the_state_is_as_sysfs_has_it() {
        let root = std::env::temp_dir().join(format!("takeover-watchdog-{}", std::process::id()));
        for (name, text) in [("watchdog0", "active\n"), ("watchdog1", "inactive\n")] {
            let folder = root.join("class/watchdog").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("state"), text).unwrap();
        }
        let of = |name| state(root.to_str().unwrap(), name);
        assert_eq!(of("watchdog0"), State::Active);
        assert_eq!(of("watchdog1"), State::Inactive);
        assert_eq!(of("watchdog"), State::Unknown);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn it_feeds_for_a_while_only_until_the_first_write() {
        let feeder = Feeder::new(0);
        assert!(feeder.is_allowed());
        feeder.until.store(seconds() - 1, SeqCst);
        assert!(!feeder.is_allowed(), "without progress it goes on");
        feeder.allow(false);
        assert!(feeder.until.load(SeqCst) <= seconds() + PERMISSION);
        feeder.allow(true);
        assert_eq!(feeder.until.load(SeqCst), u32::MAX);
        feeder.stop();
        assert!(!feeder.is_allowed());
    }
}
