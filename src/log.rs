//! The one logger: a line with the time, to the terminal or to every console, to the screen, to the kernel's log, to
//! files, and over the network.
//!
//! It never fails and never waits long: a log that cannot be written must not stop a flash. It formats with ufmt into
//! a line of fixed length, so it works while the heap is sealed. Secrets never reach it: callers pass names, not
//! values.

use crate::ends::Ends;
use crate::error::{Doing, Error};
use crate::sys::{block, clock, process};
use crate::text::{Format, Seconds, Text, Writer};
use crate::{files, screen, sink};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
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
/// The files that each line is added to.
static FILES: [OnceLock<OwnedFd>; 2] = [const { OnceLock::new() }; 2];
/// The consoles beside standard error.
static CONSOLES: [OnceLock<OwnedFd>; 4] = [const { OnceLock::new() }; 4];
/// Standard error is the screen, which has the lines already.
static IS_ON_SCREEN: AtomicBool = AtomicBool::new(false);
#[cfg(feature = "http")]
static NETWORK: OnceLock<OwnedFd> = OnceLock::new();
/// What was logged until the kernel's log was there.
static EARLY: Ends = Ends::new();

/// Lines less important than `level` are left out from here on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Relaxed);
}

/// Also writes to the kernel's log (/dev/kmsg), at debug priority: it is a copy, and the console already has it.
pub fn to_kernel_log(kmsg: OwnedFd) {
    // Set once; a second descriptor is closed and the first stays.
    let _ = KERNEL_LOG.set(kmsg);
}

/// Also writes to this file, opened for appending; to two at most.
pub fn to_file(mut file: OwnedFd) {
    for place in &FILES {
        match place.set(file) {
            Ok(()) => return,
            Err(back) => file = back,
        }
    }
}

/// Also writes to the consoles whose nodes are at [`console_node`], as many as there are.
pub fn to_consoles() {
    for (index, place) in CONSOLES.iter().enumerate() {
        if let Ok(console) = open_console(index) {
            let _ = place.set(console);
        }
    }
}

/// Standard error gets nothing from here on: it is the screen, and that gets every line.
pub fn leave_to_screen() {
    IS_ON_SCREEN.store(true, Relaxed);
}

/// Where stage 2 has the node of a console beside /dev/console.
pub fn console_node(index: usize) -> Text<20> {
    crate::text!("/dev/console{}", index)
}

/// Non-blocking: one that was stopped with Ctrl-S, or has no modem, must not stop us.
fn open_console(index: usize) -> Result<OwnedFd, Errno> {
    files::open(&console_node(index), OFlags::WRONLY | OFlags::NONBLOCK)
}

/// Also sends each line over a socket of datagrams that is connected and never blocks.
#[cfg(feature = "http")]
pub fn to_network(socket: OwnedFd) {
    // Set once, as above.
    let _ = NETWORK.set(socket);
}

/// One datagram with the priority of a message for information from a user's program, as receivers of syslog want it
/// (RFC 3164, 4.1.1). No time and no host: the device's clock may be wrong, and the receiver knows who sends.
#[cfg(feature = "http")]
fn send(line: &str) {
    if let Some(socket) = NETWORK.get() {
        let datagram: Text<640> = crate::text!("<14>takeover: {}\n", line);
        let send = || rustix::io::write(socket, datagram.as_bytes());
        // An error may be that of the last one, when nobody was there to take it: udp(7).
        let _ = send().or_else(|_| send());
    }
}

/// Writes what this process has logged so far to a file: of very much the beginning and the end.
pub fn copy_to(file: &OwnedFd, path: &str) -> Result<(), Error> {
    let mut result = Ok(());
    let (mut piece, mut length) = ([0; 512], 0);
    let mut write = |piece: &[u8]| {
        if result.is_ok() {
            result = files::write_all(file, piece);
        }
    };
    EARLY.for_each(&mut |byte| {
        if let Some(place) = piece.get_mut(length) {
            *place = byte;
        }
        length += 1;
        if length == piece.len() {
            write(&piece);
            length = 0;
        }
    });
    write(piece.get(..length).unwrap_or_default());
    result.doing("writing", path)
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
    sink::be_patient();
    to_sinks(line);
}

fn to_sinks(line: &str) {
    let whole: Text<640> = crate::text!("{}\n", line);
    let bytes = whole.as_bytes();
    // Nobody to tell of an error: this is the logger.
    if !IS_ON_SCREEN.load(Relaxed) {
        let _ = sink::write(0, rustix::stdio::stderr(), bytes);
    }
    screen::line(line);
    for (index, console) in CONSOLES.iter().enumerate() {
        if let Some(console) = console.get() {
            to_console(index, console, bytes);
        }
    }
    for (index, file) in FILES.iter().enumerate() {
        if crate::IS_WHOLE
            && let Some(file) = file.get()
        {
            let _ = sink::write(16 + index, file, bytes);
        }
    }
    if let Some(kmsg) = KERNEL_LOG.get() {
        let record: Text<640> = crate::text!("<7>takeover: {}\n", line);
        // One write is one record; the kernel may refuse it (rate limit), and the other sinks have it.
        let _ = rustix::io::write(kmsg, record.as_bytes());
    } else if crate::IS_WHOLE {
        EARLY.add(bytes);
    }
    #[cfg(feature = "http")]
    send(line);
}

/// When the process ends whose terminal a console is, the kernel closes that for all who have it open, but for those
/// who have it as /dev/console: __tty_hangup() in drivers/tty/tty_io.c. It can be opened again.
fn to_console(index: usize, console: &OwnedFd, bytes: &[u8]) {
    if sink::write(1 + index, console, bytes) == Err(Errno::IO)
        && let Ok(again) = open_console(index)
    {
        process::replace(console, &again);
        // As above.
        let _ = sink::write(1 + index, console, bytes);
    }
}

/// Waits until the consoles have sent what was written to them, the last bytes in the ports themselves included. A
/// serial line is slow, and the kernel's own messages do not queue behind ours: they would land in the middle of a
/// line. A terminal that was stopped is waited for without an end, so this is for a process that can be left behind.
pub fn drain() {
    // What is no terminal has no queue.
    let _ = block::drain_terminal(rustix::stdio::stderr());
    for console in CONSOLES.iter().filter_map(OnceLock::get) {
        let _ = block::drain_terminal(console);
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
