//! The one logger: a line with the time, to the console or terminal, to the kernel's log, and to a file in the RAMFS.
//!
//! It never fails and never waits long: a log that cannot be written must not stop a flash. It formats with ufmt into
//! a line of fixed length, so it works while the heap is sealed. Secrets never reach it: callers pass names, not
//! values.

use crate::sys::clock;
use crate::text::{Format, Seconds, Text, Writer};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use core::time::Duration;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::sync::OnceLock;

/// How important a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// What ends the run, or would without a retry.
    Error,
    /// What the user should know and decide about.
    Warn,
    /// Every step, with its duration.
    Info,
    /// What a step looked at.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Level::Error,
            "warn" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            "trace" => Level::Trace,
            _ => return None,
        })
    }

    const fn label(self) -> &'static str {
        match self {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        }
    }
}

/// The capacity of a line; more is cut.
pub type Line = Text<600>;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static KERNEL_LOG: OnceLock<OwnedFd> = OnceLock::new();
static FILE: OnceLock<OwnedFd> = OnceLock::new();

/// Lines less important than `level` are left out from here on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Relaxed);
}

/// Also writes to the kernel's log (/dev/kmsg), at debug priority: it is a copy, and the console already has it.
pub fn to_kernel_log(kmsg: OwnedFd) {
    // Set once; a second descriptor is closed and the first stays.
    let _ = KERNEL_LOG.set(kmsg);
}

/// Also writes to this file, opened for appending.
pub fn to_file(file: OwnedFd) {
    let _ = FILE.set(file);
}

/// Milliseconds since the machine was started, time asleep included. 0 where the kernel has no clock: stage 1 refuses
/// to go on there.
pub fn now() -> u64 {
    clock::since_boot().unwrap_or(0)
}

/// Writes a line. Use the macros [`info!`](crate::info) and its sisters.
#[inline(never)]
pub fn write(level: Level, message: &mut dyn Format) {
    if level as u8 > LEVEL.load(Relaxed) {
        return;
    }
    let line = Line::build(&mut |writer: &mut Writer| {
        ufmt::uwrite!(writer, "[{}] {}", Seconds(now()), level.label())?;
        message.format(writer);
        Ok(())
    });
    to_sinks(&line);
}

/// Writes a line as it is, without time or level: for the result that programs read.
pub fn write_plain(line: &str) {
    to_sinks(line);
}

fn to_sinks(line: &str) {
    let console: Text<640> = crate::text!("{}\n", line);
    persist(rustix::stdio::stderr(), console.as_bytes());
    if let Some(kmsg) = KERNEL_LOG.get() {
        let record: Text<640> = crate::text!("<7>takeover: {}\n", line);
        // One write is one record; the kernel may refuse it (rate limit), and the other sinks have it.
        let _ = rustix::io::write(kmsg, record.as_bytes());
    }
    if let Some(file) = FILE.get() {
        persist(file, console.as_bytes());
    }
}

/// Waits, 2 s at most, until the console has sent what was written to it. A serial line is slow, and the kernel's own
/// messages do not queue behind ours: they would land in the middle of a line.
pub fn drain() {
    for _ in 0..200 {
        // What is no terminal has no queue.
        match crate::sys::block::output_pending(rustix::stdio::stderr()) {
            Ok(0) | Err(_) => return,
            Ok(_) => clock::sleep(Duration::from_millis(10)),
        }
    }
}

/// Writes all bytes, waiting at most 0.2 s for a sink that is not ready: a console stopped with Ctrl-S must not stop
/// a flash.
fn persist(sink: impl AsFd, mut bytes: &[u8]) {
    let mut patience = 20;
    while !bytes.is_empty() && patience > 0 {
        match rustix::io::write(&sink, bytes) {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                patience -= 1;
                clock::sleep(Duration::from_millis(10));
            }
            // Nobody to tell: this is the logger.
            Err(_) => return,
        }
    }
}

/// Measures one step of a stage.
#[derive(Clone, Copy)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(now())
    }

    /// Milliseconds since the start.
    #[inline(never)]
    pub fn elapsed(self) -> u64 {
        now().saturating_sub(self.0)
    }

    /// The time since the start, to be shown.
    pub fn shown(self) -> Seconds {
        Seconds(self.elapsed())
    }
}

/// Logs what ends the run, or would without a retry.
#[macro_export]
macro_rules! error { ($($arg:tt)*) => { $crate::log_at!(Error, $($arg)*) }; }
/// Logs what the user should know and decide about.
#[macro_export]
macro_rules! warn { ($($arg:tt)*) => { $crate::log_at!(Warn, $($arg)*) }; }
/// Logs a step.
#[macro_export]
macro_rules! info { ($($arg:tt)*) => { $crate::log_at!(Info, $($arg)*) }; }
/// Logs what a step looked at.
#[macro_export]
macro_rules! debug { ($($arg:tt)*) => { $crate::log_at!(Debug, $($arg)*) }; }
/// Logs a detail.
#[macro_export]
macro_rules! trace { ($($arg:tt)*) => { $crate::log_at!(Trace, $($arg)*) }; }

/// Logs at a named level: a text with places, and its values.
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($arg:tt)*) => {
        $crate::log::write($crate::log::Level::$level, $crate::format!($($arg)*))
    };
}
