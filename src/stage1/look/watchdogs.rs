//! The watchdogs of the machine, and which of them run: stage 2 takes those over, and starts none unless it is told to.
//!
//! Reads only: to open a watchdog is to start it.

use crate::files;
use crate::plan::names;
use crate::text::Text;
use core::ops::ControlFlow;

/// The most watchdogs that are looked at.
pub const MOST: usize = 8;

/// One of the machine's watchdogs.
pub struct Watchdog {
    /// Its name in /dev.
    pub name: Text<20>,
    /// It runs, as far as can be told.
    pub runs: bool,
    /// The kernel tells whether it runs, at any time (CONFIG_WATCHDOG_SYSFS); else it is taken to run while a process
    /// has it open.
    pub is_told: bool,
}

/// Every watchdog that has a node in /dev, but for the second name of the first one.
pub fn all() -> heapless::Vec<Watchdog, MOST> {
    let mut all = heapless::Vec::new();
    let has_first =
        files::exists("/dev/watchdog0") && files::exists("/sys/class/watchdog/watchdog0");
    // Without /dev there is none.
    let _ = files::for_each_entry("/dev", &mut |name: &str| {
        let number = name.strip_prefix(names::WATCHDOG);
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            && !(has_first && name == names::WATCHDOG)
        {
            // More than there is room for are left alone.
            let _ = all.push(look_at(name));
        }
        ControlFlow::Continue(())
    });
    all
}

fn look_at(name: &str) -> Watchdog {
    let mut buffer = [0; 16];
    let path = crate::format!("/sys/class/watchdog/{}/state", name);
    let state = files::text_at(path, &mut buffer);
    let runs = state.map_or_else(|| is_held(name), |state| state == "active");
    Watchdog { name: Text::from(name), runs, is_told: state.is_some() }
}

/// True when a process has the watchdog open. The first one has two names.
fn is_held(name: &str) -> bool {
    let mut held = false;
    files::for_each_process(&mut |id: &str| {
        // A process that ends meanwhile holds nothing.
        let _ = files::for_each_open(id, &mut |_, path| {
            let open = path.strip_prefix("/dev/");
            held |= open == Some(name) || (name == "watchdog0" && open == Some(names::WATCHDOG));
            ControlFlow::Continue(())
        });
        if held { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    held
}
