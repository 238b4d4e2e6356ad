//! What a takeover that was killed has left: its RAMFS, and what is mounted of that elsewhere. The next takeover
//! removes it before anything else (`prepare::instance`).
//!
//! Reads only. Whoever asks holds the lock of a takeover: what is found belongs to nobody then.

use crate::disk::device::Number;
use crate::disk::mounts::{self, Mount};
use crate::error::Error;
use crate::files;
use crate::text::{PathText, Size};

/// Of more RAMFS than these the memory is not counted.
const MOST: usize = 16;

/// True for a RAMFS, mounted whole.
pub fn is_ramfs(mount: &Mount) -> bool {
    let is_named = |point: PathText| is_name_of_ramfs(&point);
    mount.source == mounts::RAMFS
        && mount.file_system == "tmpfs"
        && mount.root == "/"
        && mount.point().is_ok_and(is_named)
}

/// True for a path that ends like those of the directories that a RAMFS is mounted on.
pub fn is_name_of_ramfs(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix("takeover-")
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(is_digit))
}

/// True when this is the device of a RAMFS: the program of a killed takeover lies over init's file, say.
pub fn is_of_ramfs(device: Number) -> Result<bool, Error> {
    let found = mounts::find(mounts::OWN, &mut |mount| mount.device == device && is_ramfs(mount))?;
    Ok(found.is_some())
}

/// The memory that each RAMFS holds, in bytes, and that is available once they are removed.
pub fn memory() -> Result<u64, Error> {
    let mut all = 0;
    // A copy of a RAMFS that is mounted elsewhere holds the same memory.
    let mut counted = heapless::Vec::<Number, MOST>::new();
    mounts::find(mounts::OWN, &mut |mount| {
        if is_ramfs(mount) && !counted.contains(&mount.device) && counted.push(mount.device).is_ok()
        {
            all += mount.point().map_or(0, |point| held(&point));
        }
        false
    })?;
    Ok(all)
}

/// How much a file system holds, in bytes (statvfs(3)).
fn held(point: &str) -> u64 {
    let space = files::space(point);
    space.map_or(0, |space| space.f_blocks.saturating_sub(space.f_bfree) * space.f_frsize)
}

/// Says what the next takeover removes.
pub fn tell() -> Result<(), Error> {
    mounts::find(mounts::OWN, &mut |mount| {
        let point = mount.point().unwrap_or_default();
        if is_ramfs(mount) {
            crate::warn!(
                "a takeover was killed, or left it with --no-cleanup: the next run removes {}, with {} in it",
                point,
                Size(held(&point))
            );
        } else if is_of_ramfs(mount.device).unwrap_or(false) {
            crate::warn!("a takeover was killed: the next run removes what it mounted over {}", point);
        }
        false
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_ramfs_is_known_by_its_name() {
        assert!(is_name_of_ramfs("/run/takeover-b211bae5baf6955f"));
        assert!(is_name_of_ramfs("/takeover-0000000000000000"));
        for path in ["/run/takeover", "/takeover-1", "/run/takeover-B211BAE5BAF6955F", "/x/", ""] {
            assert!(!is_name_of_ramfs(path), "{path}");
        }
    }
}
