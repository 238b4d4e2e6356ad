//! The screen: the virtual terminal that is in front. Its top rows have the phase in large letters, the others the log.
//!
//! For stage 2 alone. Best effort: whoever has no screen, or one that was stopped, reads the log elsewhere.
//!
//! It is opened anew for whatever is written. /dev/tty0 is the terminal that is in front when it is opened
//! (tty_lookup_driver() in drivers/tty/tty_io.c), and who ends a graphical session comes back to another one; and what
//! is open as a terminal of a process is closed by the kernel when that ends.

use crate::banner::{self, Colour};
use crate::files;
use crate::sink;
use crate::sys::block;
use crate::text::Text;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The node of the terminal in front, which stage 2 makes.
pub const NODE: &str = "/dev/tty0";
/// Its number among the sinks.
const NUMBER: usize = 31;

static IS_THERE: AtomicBool = AtomicBool::new(false);

/// From here on lines and letters are shown. It is cleared, and not blanked any more (console_codes(4): RIS, and the
/// private sequences `ESC [ 9 ; n ]` and `ESC [ 13 ]`). An error where there is no screen.
pub fn begin() -> Result<(), Errno> {
    sink::write(NUMBER, open()?, b"\x1bc\x1b[9;0]\x1b[13]")?;
    IS_THERE.store(true, Relaxed);
    Ok(())
}

/// Back to text, where a graphical session was: it has ended and cannot do so itself any more.
pub fn to_text() {
    if IS_THERE.load(Relaxed)
        && let Ok(screen) = open()
    {
        // One that shows text already is none the worse for it.
        let _ = block::terminal_to_text(&screen);
        let _ = sink::write(NUMBER, &screen, b"\x1b[13]");
    }
}

/// Non-blocking: one that was stopped with Ctrl-S must not stop us.
fn open() -> Result<OwnedFd, Errno> {
    files::open(NODE, OFlags::WRONLY | OFlags::NONBLOCK)
}

/// The screen, its rows and its columns; nothing without one.
fn opened() -> Option<(OwnedFd, usize, usize)> {
    if !IS_THERE.load(Relaxed) {
        return None;
    }
    let screen = open().ok()?;
    let (rows, columns) = block::terminal_size(&screen).unwrap_or_default();
    Some((screen, rows, columns))
}

/// Shows a line of the log below the letters.
pub fn line(text: &str) {
    if let Some((screen, rows, columns)) = opened() {
        let top = banner::height(rows, columns) + 1;
        // Only the rows below the letters scroll; the last one is always the empty one, for us and for the kernel.
        let bytes: Text<680> =
            crate::text!("\x1b[0m\x1b[{};{}r\x1b[{};1H{}\r\n", top, rows, rows, text);
        let _ = sink::write(NUMBER, &screen, bytes.as_bytes());
    }
}

/// Shows a text in large letters.
pub fn show(text: &str, colour: Colour) {
    if let Some((screen, rows, columns)) = opened() {
        banner::draw(text, colour, rows, columns, &mut |row| {
            let _ = sink::write(NUMBER, &screen, row.as_bytes());
        });
    }
}
