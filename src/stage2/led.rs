//! The LED of the board: two short beats while at work, quick flashes when it failed, steady light when it is done.
//!
//! PID 1 switches it itself, so it needs none of the kernel's triggers, which may be modules; and should PID 1 hang, it
//! stands still. Best effort: most devices have none, or none that is known (Documentation/leds/leds-class.rst).

use crate::text::PathText;
use crate::{files, log};
use core::cell::Cell;
use core::ops::ControlFlow;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// A bit for each tenth of a second, the lowest first.
pub type Pattern = u16;
/// At work.
pub const BEATS: Pattern = 0b101;
/// It failed.
pub const FLASHES: Pattern = 0b0101_0101_0101_0101;
/// The new OS is on the disk, or the old one is to go on as was asked for.
pub const STEADY: Pattern = Pattern::MAX;

/// What the LED of a board is called, or a part of its name between colons, the best first. Those of keyboards, network
/// ports and disks' bays are other people's.
const NAMES: [&str; 10] =
    ["status", "heartbeat", "ACT", "act", "act-led", "led0", "usr0", "user0", "sys", "mmc0"];

/// A LED, if there is one.
pub struct Led {
    /// Its brightness.
    file: Option<OwnedFd>,
    pattern: Cell<Pattern>,
    is_lit: Cell<Option<bool>>,
}

impl Led {
    /// That of the board, if it has one that is known by its name; `folder` is that of all.
    pub fn find(folder: &str) -> Self {
        let mut best = NAMES.len();
        let mut chosen = PathText::new();
        // Without that folder there is none.
        let _ = files::for_each_entry(folder, &mut |name: &str| {
            let rank =
                name.split(':').filter_map(|part| NAMES.iter().position(|known| *known == part));
            if let (Some(rank), Ok(path)) =
                (rank.min().filter(|rank| *rank < best), files::below(folder, name))
            {
                (best, chosen) = (rank, path);
            }
            ControlFlow::Continue(())
        });
        let file = Self::taken(&chosen);
        Self { file, pattern: Cell::new(BEATS), is_lit: Cell::new(None) }
    }

    /// Takes it from what the old OS had it follow.
    fn taken(folder: &str) -> Option<OwnedFd> {
        let open = |name| files::open(&files::below(folder, name).ok()?, OFlags::WRONLY).ok();
        // One without triggers has no such file.
        if let Some(trigger) = open("trigger") {
            let _ = files::write_all(&trigger, b"none");
        }
        open("brightness")
    }

    /// It follows this from now on.
    pub fn follow(&self, pattern: Pattern) {
        self.pattern.set(pattern);
        self.turn();
    }

    /// Switches it when it is time to: to be called more often than its pattern changes.
    pub fn turn(&self) {
        let tenth = log::now() / 100 % u64::from(Pattern::BITS);
        let is_lit = self.pattern.get() >> tenth & 1 != 0;
        if let Some(file) = &self.file
            && self.is_lit.replace(Some(is_lit)) != Some(is_lit)
        {
            // More than its most is its most (led_set_brightness() in drivers/leds/led-core.c).
            let value: &[u8] = if is_lit { b"255" } else { b"0" };
            let _ = rustix::io::pwrite(file, value, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    /// What becomes of each of these LEDs: its trigger and its brightness.
    fn led(test: &str, names: &[&str]) -> (Led, std::path::PathBuf) {
        let folder =
            std::env::temp_dir().join(format!("takeover-led-{test}-{}", std::process::id()));
        for name in names {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("trigger"), "mmc0").unwrap();
            std::fs::write(folder.join(name).join("brightness"), "007").unwrap();
        }
        (Led::find(folder.to_str().unwrap()), folder)
    }

    #[test]
    fn the_board_has_it_and_no_keyboard_or_port() {
        for (names, wanted) in [
            (&["PWR", "ACT"][..], Some("ACT")),
            (&["led1", "led0"], Some("led0")),
            (
                &["beaglebone:green:usr0", "beaglebone:green:usr3", "beaglebone:green:mmc0"],
                Some("beaglebone:green:usr0"),
            ),
            (&["orangepi:green:pwr", "orangepi:red:status"], Some("orangepi:red:status")),
            (&["mmc0::", "input3::capslock", "blue:heartbeat"], Some("blue:heartbeat")),
            (&["input3::capslock", "phy0-led", "enp1s0-0::lan", "tpacpi::power", "red:disk"], None),
            (&[], None),
        ] {
            let (led, folder) = led("names", names);
            led.follow(STEADY);
            for name in names {
                let read = |file| std::fs::read_to_string(folder.join(name).join(file)).unwrap();
                let is_it = wanted == Some(*name);
                assert_eq!(
                    (read("trigger") == "none", read("brightness") == "255"),
                    (is_it, is_it),
                    "{name}"
                );
            }
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    #[test]
    fn it_follows_its_pattern() {
        let (led, folder) = led("pattern", &["ACT"]);
        let mut seen = Vec::new();
        while seen.len() < 4 {
            led.turn();
            let now = led.is_lit.get().unwrap();
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            crate::sys::clock::sleep(Duration::from_millis(5));
        }
        led.follow(0);
        assert_eq!(led.is_lit.get(), Some(false));
        assert!(std::fs::read_to_string(folder.join("ACT/brightness")).unwrap().starts_with('0'));
        led.follow(STEADY);
        assert_eq!(led.is_lit.get(), Some(true));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
