//! What the running kernel and the old OS say of themselves.

use rustix::fd::AsRawFd;
use rustix::fs::MemfdFlags;
use takeover::balena::devices::{self, Processor};
use takeover::balena::systems::System;
use takeover::disk::mounts::{self, Mounts};
use takeover::disk::swaps;

/// /proc/self/mountinfo: the table read line by line from a file is the one read as a whole.
pub fn mountinfo(bytes: &[u8]) -> bool {
    let table = Mounts::parse(bytes);
    let mut last = None;
    for mount in table.iter() {
        for field in [mount.root, mount.options, mount.file_system, mount.source] {
            assert!(!field.contains([' ', '\n']));
        }
        if let Ok(point) = mount.point() {
            assert!(mount.is_at(&point));
            last = Some((mount.id, mount.device, point));
        }
    }
    // What the kernel writes ends with the end of a line; a rest of one is not looked at in a file.
    if bytes.ends_with(b"\n") {
        let file = rustix::fs::memfd_create("mountinfo", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, bytes).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let found = mounts::find(&path, &mut |mount| mount.point().is_ok()).unwrap();
        let found = found.map(|found| (found.id, found.device, found.point));
        assert_eq!(found, last);
    }
    last.is_some()
}

/// /proc/swaps.
pub fn swaps(bytes: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return false;
    };
    let is_blank = |character: char| character.is_ascii_whitespace();
    let areas = text
        .lines()
        .filter_map(swaps::parse)
        .inspect(|swap| assert!(!swap.path.contains(is_blank)));
    areas.count() > 0
}

/// /etc/os-release: what is shown of it can be shown.
pub fn os_release(bytes: &[u8]) -> bool {
    let system = System::parse(bytes);
    for text in [&*system.name, &*system.id, &*system.version] {
        super::assert_printable(text);
    }
    assert!(!system.id.is_empty() || !system.is_known() && !system.is_balena_os());
    !system.id.is_empty()
}

/// The strings of the device tree: the model is the first line, `compatible` the rest. A board that is told is one of
/// ours, however its strings end.
pub fn device_tree(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(model) = core::str::from_utf8(&bytes[..end]) else {
        return false;
    };
    let compatible = bytes.get(end + 1..).unwrap_or_default();
    let Some(board) = devices::board(model, compatible, Processor::Arm, false, false) else {
        return false;
    };
    assert!(board.slugs.iter().all(|slug| board.accepts(slug) && devices::is_slug(slug)));
    let ended = [compatible, b"\0"].concat();
    let again = devices::board(&format!("{model}\0"), &ended, Processor::Arm, false, false);
    assert!(again.is_some_and(|again| again.slugs == board.slugs));
    true
}
