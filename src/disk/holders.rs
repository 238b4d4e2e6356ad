//! Who keeps a disk busy, in words: for the error that says that it cannot be claimed.
//!
//! Looks at what the kernel shows of mounts, stacked devices, loop devices, swap and open files. Reads only, allocates
//! nothing, and takes a while where there are many processes: it is for when the claim has failed.

use super::device::Number;
use super::{device, loops, mounts, stack, swaps};
use crate::files;
use crate::text::{PathText, Text, printable};
use core::ops::ControlFlow;
use rustix::fs::FileType;

/// As much as an error has room for.
pub type Holders = Text<220>;

/// Who keeps a disk busy, as clauses with commas between; as many as there is room for. Nodes of loop devices are looked
/// for in `nodes`.
pub fn of(nodes: &str, disk: Number) -> Holders {
    let mut all = Holders::new();
    let mut note = |clause: &str| {
        let longer: Text<300> = match all.is_empty() {
            true => Text::from(clause),
            false => crate::text!("{}, {}", all, clause),
        };
        // A clause that does not fit in whole is left out.
        if longer.len() <= 200 {
            all = Text::from(longer.as_str());
        }
    };
    for_each_mount(mounts::OWN, disk, &mut |point, kind| {
        let clause: Text<200> = crate::text!("it is mounted at {} ({})", point, kind);
        note(&clause);
    });
    stack::for_each_on(disk, &mut |name, number| {
        let told = device::mapper_name(number);
        let clause: Text<200> = match told.is_empty() {
            true => crate::text!("{} lies on it", name),
            false => crate::text!("{} ({}) lies on it", name, told),
        };
        note(&clause);
    });
    loops::for_each_on(nodes, disk, &mut |name, _| {
        let clause: Text<60> = crate::text!("{} lies on it", name);
        note(&clause);
    });
    for_each_swap(disk, &mut |path| {
        let clause: Text<200> = crate::text!("it has swap ({})", path);
        note(&clause);
    });
    for_each_process(disk, &mut |clause| note(clause));
    if all.is_empty() {
        all = Text::from("what holds it cannot be seen from here: the kernel itself, perhaps");
    }
    all
}

/// Calls `visit` with the place and the file system of each mount of a table that lies on a disk.
fn for_each_mount(table: &str, disk: Number, visit: &mut dyn FnMut(&str, &str)) {
    // A table that cannot be read shows nothing; neither does a mount that cannot be placed.
    let _ = mounts::find(table, &mut |mount| {
        let number = mount.lies_on();
        if number.is_some_and(|number| stack::lies_on(number, disk).unwrap_or(false)) {
            visit(&mount.point().unwrap_or_default(), mount.file_system);
        }
        false
    });
}

fn for_each_swap(disk: Number, visit: &mut dyn FnMut(&str)) {
    let mut buffer = [0; 4096];
    let text = files::read_text("/proc/swaps", &mut buffer).unwrap_or_default();
    for swap in swaps::parse(text) {
        let Ok(path) = mounts::unescape(swap.path) else {
            continue;
        };
        if number_below(&path).is_some_and(|number| stack::lies_on(number, disk).unwrap_or(false)) {
            visit(&path);
        }
    }
}

/// The device that a path is, or lies on.
fn number_below(path: &str) -> Option<Number> {
    let status = files::status(path).ok()?;
    match FileType::from_raw_mode(status.st_mode).is_block_device() {
        true => Some(Number::from_stat(status.st_rdev)),
        false => mounts::above(path).ok()??.lies_on(),
    }
}

/// Calls `visit` with a clause for each process that has the disk or a part of it open, or mounted where only it and
/// its like see that.
fn for_each_process(disk: Number, visit: &mut dyn FnMut(&str)) {
    let mut seen = heapless::Vec::<Text<40>, 32>::new();
    // Of more namespaces than there is room for some are looked at twice.
    let _ = seen.push(namespace_of("self"));
    // A process that ends meanwhile holds nothing.
    let _ = files::for_each_entry("/proc", &mut |id| {
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return ControlFlow::Continue(());
        }
        if let Some(path) = open_part(id, disk) {
            let clause: Text<200> = crate::text!("{} ({}) has {} open", name_of(id), id, path);
            visit(&clause);
        }
        let namespace = namespace_of(id);
        if !seen.contains(&namespace)
            && let Ok(table) = crate::path!("/proc/{}/mountinfo", id)
        {
            let _ = seen.push(namespace);
            for_each_mount(&table, disk, &mut |point, _| {
                let clause: Text<200> =
                    crate::text!("{} ({}) has it mounted at {}", name_of(id), id, point);
                visit(&clause);
            });
        }
        ControlFlow::Continue(())
    });
}

/// The path of the part of a disk that a process has open.
fn open_part(id: &str, disk: Number) -> Option<PathText> {
    let folder = crate::path!("/proc/{}/fd", id).ok()?;
    let mut found = None;
    let visited = files::for_each_entry(&folder, &mut |number| {
        let mut buffer = [0; 256];
        let Ok(link) = crate::path!("{}/{}", folder, number) else {
            return ControlFlow::Continue(());
        };
        // Only what is called like a device is looked at: a file whose server has gone would hold up the look.
        let path = files::read_link(&link, &mut buffer).unwrap_or_default();
        if path.contains("dev/") && is_part(&link, disk) {
            found = crate::path!("{}", path).ok();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    visited.ok().and(found)
}

fn is_part(path: &str, disk: Number) -> bool {
    device::number_of(path)
        .is_ok_and(|number| device::whole_disk(number).is_ok_and(|of| of == disk))
}

/// Which mount namespace a process is in, as the link says.
fn namespace_of(id: &str) -> Text<40> {
    let mut buffer = [0; 256];
    let link = crate::path!("/proc/{}/ns/mnt", id).ok();
    let text = link.and_then(|link| files::read_link(&link, &mut buffer).ok());
    Text::from(text.unwrap_or_default())
}

fn name_of(id: &str) -> Text<16> {
    let mut buffer = [0; 32];
    let path = crate::path!("/proc/{}/comm", id).ok();
    let name = path.and_then(|path| files::read(&path, &mut buffer).ok()).unwrap_or_default();
    printable(name.trim_ascii())
}
