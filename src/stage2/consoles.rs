//! Every console: the log of stage 2 is where somebody looks, on serial lines and on the screen.
//!
//! Makes nodes in the RAMFS and opens them; nothing of the old root is held. What cannot be had is left out.

use crate::disk::device::Number;
use crate::{files, log, screen};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

/// The consoles of the kernel, one a line, that of /dev/console first: fs/proc/consoles.c, and console_device() in
/// kernel/printk/printk.c.
const CONSOLES: &str = "/proc/consoles";

/// Lets the log go to every console, and to the screen if there is one. It must be the machine's own PID 1 who asks:
/// they are the machine's.
pub fn open() {
    // Whether or not it is a console: the screen is where somebody looks.
    let has_screen =
        make_node(screen::NODE, Number { major: TERMINALS, minor: 0 }) && screen::begin().is_ok();
    let (mut is_first, mut others) = (true, 0);
    // Without that file there is /dev/console alone.
    let _ = files::for_each_line(CONSOLES, &mut |line: &[u8]| {
        let Some(number) = number_of(files::as_text(line)) else { return };
        if is_first && has_screen && is_screen(number) {
            log::leave_to_screen();
        }
        if !is_first && !is_screen(number) && make_node(&log::console_node(others), number) {
            others += 1;
        }
        is_first = false;
    });
    log::to_consoles();
    if crate::IS_WHOLE
        && let Some(store) = open_store("")
    {
        log::to_file(store);
        crate::info!("the log is kept over a reset: /sys/fs/pstore");
    }
}

/// Lets the log go where it survives a reset, in a kernel that has such a place (fs/pstore/pmsg.c): the next one has it
/// in /sys/fs/pstore. `root` is where /sys and /dev are.
fn open_store(root: &str) -> Option<OwnedFd> {
    let mut buffer = [0; 20];
    let number = files::text_below(root, "sys/class/pmsg/pmsg0/dev", &mut buffer)?;
    let node = files::below(root, "dev/pmsg0").ok()?;
    make_node(&node, Number::parse(number)?);
    files::open(&node, OFlags::WRONLY).ok()
}

/// The major number of virtual terminals, below minor 64, and of serial lines: Documentation/admin-guide/devices.txt.
const TERMINALS: u32 = 4;

fn is_screen(number: Number) -> bool {
    number.major == TERMINALS && number.minor < 64
}

/// The number of the device of a console that is in use: `ttyS0   -W- (EC p  )    4:64`. Some have none.
fn number_of(line: &str) -> Option<Number> {
    /// /dev/console and its like, /dev/ttyprintk among them: what is written there is a message of the kernel, and
    /// comes to every console.
    const ALIASES: u32 = 5;
    let (_, rest) = line.split_once('(')?;
    let (flags, number) = rest.split_once(')')?;
    let number = Number::parse(number.trim_ascii())?;
    (flags.starts_with('E') && number.major != ALIASES).then_some(number)
}

/// True when it is there; in a rescue system the kernel has made some itself.
fn make_node(path: &str, number: Number) -> bool {
    let made = files::make_node(path, FileType::CharacterDevice, number.to_dev());
    matches!(made, Ok(()) | Err(Errno::EXIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_in_use_have_numbers() {
        for (line, wanted) in [
            ("ttyS0                -W- (EC   p  )    4:64", Some((4, 64))),
            ("tty0                 -WU (E    p  )    4:1", Some((4, 1))),
            ("ttyAMA0              -W- (EC p a)  204:64", Some((204, 64))),
            ("hvc0                 -W- (E    p  )  229:0", Some((229, 0))),
            ("netcon0              -W- (E    p  )", None),
            ("pstore-1             -W- (E    p  )", None),
            ("ttyprintk0           -W- (E    p  )    5:3", None),
            ("ttyS1                -W- (     p  )    4:65", None),
            ("", None),
        ] {
            let found = number_of(line).map(|number| (number.major, number.minor));
            assert_eq!(found, wanted, "{line}");
        }
    }

    #[test]
    fn what_survives_a_reset_is_found_by_its_number() {
        let root = std::env::temp_dir().join(format!("takeover-store-{}", std::process::id()));
        let folder = root.join("sys/class/pmsg/pmsg0");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir(root.join("dev")).unwrap();
        let open = || open_store(root.to_str().unwrap());
        assert!(open().is_none());
        // /dev/null.
        std::fs::write(folder.join("dev"), "1:3\n").unwrap();
        let found = open().map(|store| rustix::fs::fstat(store).unwrap().st_rdev);
        assert_eq!(found, Some(rustix::fs::makedev(1, 3)));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn virtual_terminals_are_the_screen_and_serial_lines_are_not() {
        let is_screen = |major, minor| is_screen(Number { major, minor });
        assert!(is_screen(4, 0) && is_screen(4, 63));
        assert!(!is_screen(4, 64) && !is_screen(204, 0));
    }
}
