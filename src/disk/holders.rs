//! Who keeps a disk busy, in words: for the page that is shown before a takeover, and for the error that says that the
//! disk cannot be claimed.
//!
//! Looks at what the kernel shows of mounts, stacked devices, loop devices, swap and open files. Reads only, allocates
//! nothing.

use super::device::Number;
use super::{device, loops, mounts, pools, stack, swaps};
use crate::text::{Text, printable};
use crate::{bytes, files};
use core::ops::ControlFlow;
use rustix::fs::FileType;

/// As much as an error has room for.
pub type Holders = Text<200>;

/// Takes a clause of a list.
type Visit<'a> = &'a mut dyn FnMut(&str);

/// Who keeps a disk busy, as clauses with commas between; as many as there is room for. Nodes of loop devices are in
/// `nodes`, or made there. Takes a while where there are many processes.
pub fn of(nodes: &str, disk: Number) -> Holders {
    let mut all = Holders::new();
    let mut note = |clause: &str| {
        let gap = if all.is_empty() { "" } else { ", " };
        // A clause that does not fit in whole is left out.
        if all.len() + gap.len() + clause.len() <= 200 {
            all = crate::text!("{}{}{}", all, gap, clause);
        }
    };
    for_each_seen(disk, &mut note);
    loops::for_each_on(nodes, disk, &mut |name, _| {
        let clause: Text<60> = crate::text!("below {}", name);
        note(&clause);
    });
    for_each_swap(&|number| is_on(number, disk), &mut |path| {
        let clause: Text<300> = crate::text!("swap on {}", path);
        note(&clause);
    });
    for_each_process(disk, &mut note);
    if all.is_empty() {
        all = Text::from("what holds it cannot be seen from here: the kernel itself, perhaps");
    }
    all
}

/// Calls `visit` with each mount and each stacked device on a disk.
pub fn for_each_seen(disk: Number, visit: Visit) {
    for_each_mount(mounts::OWN, disk, visit);
    stack::for_each_on(disk, &mut |name, number| {
        let told = device::mapper_name(number);
        let clause: Text<200> = if told.is_empty() {
            crate::text!("below {}", name)
        } else {
            crate::text!("below {} ({})", name, told)
        };
        visit(&clause);
    });
}

/// Calls `visit` with each mount of a table that lies on a disk.
fn for_each_mount(table: &str, disk: Number, visit: Visit) {
    // The same file system is often mounted hundreds of times, one after the other.
    let mut last = (None, false);
    // A table that cannot be read shows nothing; a mount that cannot be placed is none of a disk.
    let _ = mounts::find(table, &mut |mount| {
        let number = mount.lies_on();
        if number.is_some() && last.0 != number {
            last = (number, number.is_some_and(|number| is_on(number, disk)));
        }
        if number.is_some() && last.1 {
            let point = mount.point().unwrap_or_default();
            let clause: Text<300> = crate::text!("mounted at {} ({})", point, mount.file_system);
            visit(&clause);
        }
        false
    });
}

fn is_on(number: Number, disk: Number) -> bool {
    pools::file_system_lies_on(number, disk).unwrap_or(false)
}

/// Calls `visit` with the path of each swap area that lies on a device that is `wanted`.
pub fn for_each_swap(wanted: &dyn Fn(Number) -> bool, visit: Visit) {
    // A list that cannot be read shows nothing.
    let _ = files::for_each_line("/proc/swaps", &mut |line: &[u8]| {
        let path =
            swaps::parse(files::as_text(line)).and_then(|swap| mounts::unescape(swap.path).ok());
        let path = path.unwrap_or_default();
        if number_below(&path).is_some_and(wanted) {
            visit(&path);
        }
    });
}

/// The device that a path is, or lies on.
fn number_below(path: &str) -> Option<Number> {
    let status = files::status(path).ok()?;
    if FileType::from_raw_mode(status.st_mode).is_block_device() {
        Some(Number::from_stat(status.st_rdev))
    } else {
        mounts::above(path).ok()??.lies_on()
    }
}

/// Calls `visit` with each process that has a part of the disk open, and each mount that only it and its like see.
fn for_each_process(disk: Number, visit: Visit) {
    let mut seen = heapless::Vec::<u64, 32>::new();
    // Of more namespaces than there is room for some are looked at twice.
    let _ = seen.push(namespace_of("self"));
    files::for_each_process(&mut |id: &str| {
        let _ = files::for_each_open(id, &mut |link, path| {
            // Only what is called like a device is looked at: a file whose server has gone would hold up the look.
            if bytes::has_word(path, "dev/") && is_part(link, disk) {
                let clause: Text<200> = crate::text!("{} ({}) has it open", name_of(id), id);
                visit(&clause);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let namespace = namespace_of(id);
        if !seen.contains(&namespace) {
            let _ = seen.push(namespace);
            let _ = crate::path!("/proc/{}/mountinfo", id).map(|table| {
                for_each_mount(&table, disk, &mut |clause| {
                    let clause: Text<300> = crate::text!("{} for {} ({})", clause, name_of(id), id);
                    visit(&clause);
                });
            });
        }
        ControlFlow::Continue(())
    });
}

fn is_part(path: &str, disk: Number) -> bool {
    let whole = device::number_of(path).and_then(device::whole_disk);
    whole.is_ok_and(|whole| whole == disk)
}

/// Which mount namespace a process is in; 0 when it has gone.
fn namespace_of(id: &str) -> u64 {
    let path = crate::path!("/proc/{}/ns/mnt", id).ok();
    let status = path.and_then(|path| files::status(&path).ok());
    status.map_or(0, |status| status.st_ino)
}

fn name_of(id: &str) -> Text<16> {
    let mut buffer = [0; 32];
    let path = crate::path!("/proc/{}/comm", id).ok();
    let name = path.and_then(|path| files::read(&path, &mut buffer).ok()).unwrap_or_default();
    printable(name.trim_ascii())
}
