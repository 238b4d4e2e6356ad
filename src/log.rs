//! The one logger: a line with the time, to the terminal or to every console, to the screen, to the kernel's log, to
//! files, and over the network.
//!
//! It never fails and never waits long: a log that cannot be written must not stop a flash. It formats with ufmt into
//! a line of fixed length, so it works while the heap is sealed. Secrets never reach it: callers pass names, not
//! values.

use crate::ends::Ends;
use crate::error::{Doing, Error};
use crate::sys::{block, clock, process};
#[cfg(feature = "core")]
use crate::text::{COLUMNS, fold};
use crate::text::{Format, Seconds, Text, Writer, printable};
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

/// Standard error is a terminal with somebody before it: lines are folded there, and progress is one line.
#[cfg(feature = "core")]
static ON_TERMINAL: AtomicBool = AtomicBool::new(false);
/// Errors and warnings have a colour there.
#[cfg(feature = "core")]
static IN_COLOUR: AtomicBool = AtomicBool::new(false);
/// The line of the terminal is one of progress.
#[cfg(feature = "core")]
static IN_PROGRESS: AtomicBool = AtomicBool::new(false);

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

/// Writes for people from here on if standard error is a terminal that knows its size. Not on a serial console, which
/// knows none: what is at its other end takes lines. So does what moves no cursor, and what would wrap a line that is
/// to be written over.
#[cfg(feature = "core")]
pub fn look_at_terminal() {
    let size = block::terminal_size(rustix::stdio::stderr());
    let is_wide = size.is_ok_and(|(_, columns)| columns >= COLUMNS);
    let is_one = is_wide && process::variable("TERM").is_none_or(|name| name != "dumb");
    ON_TERMINAL.store(is_one, Relaxed);
    // https://no-color.org: there and not empty.
    let is_plain = process::variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    IN_COLOUR.store(is_one && !is_plain, Relaxed);
}

/// True when progress is shown by [`rewrite`].
#[cfg(feature = "core")]
pub fn is_on_terminal() -> bool {
    ON_TERMINAL.load(Relaxed)
}

/// Writes the line of progress over the one before, on the terminal alone. As at a carriage return and ED, ECMA-48.
#[cfg(feature = "core")]
pub fn rewrite(message: &mut dyn Format) {
    if LEVEL.load(Relaxed) < Level::Info as u8 {
        return;
    }
    let line = Line::build(&mut |writer: &mut Writer| {
        ufmt::uwrite!(writer, "\r[{}] ", Seconds(now()))?;
        message.format(writer);
        ufmt::uwrite!(writer, "{}", "\x1b[K")
    });
    IN_PROGRESS.store(true, Relaxed);
    let _ = sink::write(0, rustix::stdio::stderr(), line.as_bytes());
}

/// Writes a line to the terminal, in as many as it takes, each behind the time.
#[cfg(feature = "core")]
#[inline(never)]
fn to_terminal(level: Level, line: &str) {
    let time = line.bytes().position(|byte| byte == b']').map_or(0, |at| at + 2);
    let colour = match level {
        Level::Error if IN_COLOUR.load(Relaxed) => "\x1b[31m",
        Level::Warn if IN_COLOUR.load(Relaxed) => "\x1b[33m",
        _ => "",
    };
    let end = if colour.is_empty() { "" } else { "\x1b[0m" };
    let mut start = if IN_PROGRESS.swap(false, Relaxed) { "\r\x1b[K" } else { "" };
    let blanks = "                    ";
    let mut indent = "";
    let mut rest = line;
    loop {
        let (piece, behind) = fold(rest, COLUMNS - indent.len());
        let piece: Text<640> = crate::text!("{}{}{}{}{}\n", start, colour, indent, piece, end);
        let _ = sink::write(0, rustix::stdio::stderr(), piece.as_bytes());
        if behind.is_empty() {
            return;
        }
        (start, rest, indent) = ("", behind, blanks.get(..time).unwrap_or(blanks));
    }
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
    if crate::IS_WHOLE {
        // Names of networks, files and servers are anybody's.
        let line: Line = printable(line.as_bytes());
        return to_sinks(level, &line);
    }
    to_sinks(level, &line);
}

/// Writes a line as it is, without time or level: for the result that programs read.
pub fn write_plain(line: &str) {
    sink::be_patient();
    to_sinks(Level::Info, line);
}

fn to_sinks(level: Level, line: &str) {
    let whole: Text<640> = crate::text!("{}\n", line);
    let bytes = whole.as_bytes();
    // Nobody to tell of an error: this is the logger.
    #[cfg(feature = "core")]
    let is_written = is_on_terminal();
    #[cfg(feature = "core")]
    if is_written {
        to_terminal(level, line);
    }
    #[cfg(not(feature = "core"))]
    let (is_written, _) = (false, level);
    if !is_written && !IS_ON_SCREEN.load(Relaxed) {
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
