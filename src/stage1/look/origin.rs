//! From a mount to the block device it comes from, where the mount table does not say it outright: btrfs with device
//! numbers of its own, overlays, `/dev/root`, and a balenaOS, whose `/` is an overlay inside a container store.
//!
//! Reads only.

use crate::disk::device::{self, Number};
use crate::disk::mounts::{self, Found};
use crate::error::{Doing, Error};
use crate::files;
use crate::text::{PathText, Text};

/// The file that only a balenaOS has at this place.
pub const BALENA_CONFIG: &str = "/mnt/boot/config.json";
/// Where a balenaOS has its data partition.
const BALENA_DATA: &str = "/mnt/data";

/// The device that `/` comes from; none when it lies on no device.
pub fn device_of_root(root: &Found) -> Result<Option<Number>, Error> {
    if files::exists(BALENA_CONFIG)
        && let Some(data) = mounts::at(BALENA_DATA)?
        && let Some(number) = data.lies_on()
    {
        return Ok(Some(number));
    }
    if let Some(number) = root.lies_on() {
        return Ok(Some(number));
    }
    if &*root.file_system == "overlay" {
        return match below_overlay(root)? {
            Some(number) => Ok(Some(number)),
            None => Err(hidden_below_overlay()),
        };
    }
    from_command_line()
}

/// The command line may name the disk all the same, but a mount that no path leads to cannot be unmounted, and the disk
/// would never be free. So it is with the overlay of Raspberry Pi OS before Debian 12: its initramfs keeps /lower.
fn hidden_below_overlay() -> Error {
    let why = "it is an overlay, and what lies below it stayed in the initramfs: it could not be unmounted";
    Error::refused("looking for the disk below", "/", why)
        .advice("turn the overlay off (raspi-config, performance options), restart and try again")
}

/// The device that the first directory below an overlay lies on that is on any: its lower ones, then its upper one.
fn below_overlay(overlay: &Found) -> Result<Option<Number>, Error> {
    let mut places = heapless::Vec::<PathText, 8>::new();
    mounts::find(mounts::OWN, &mut |mount| {
        if mount.id == overlay.id {
            collect_layers(mount.file_system_options, &mut places);
        }
        false
    })?;
    for place in &places {
        let number = match mounts::above(place)? {
            // The overlay itself: the place is hidden behind it.
            Some(mount) if mount.id != overlay.id => mount.lies_on(),
            _ => None,
        };
        if number.is_some() {
            return Ok(number);
        }
    }
    Ok(None)
}

/// The directories that an overlay is made of: `lowerdir=A:B`, or `lowerdir+=A` once for each since Linux 6.8, and
/// `upperdir=C` (Documentation/filesystems/overlayfs.rst).
fn collect_layers(options: &str, places: &mut heapless::Vec<PathText, 8>) {
    for &name in &["lowerdir=", "lowerdir+=", "upperdir="] {
        for value in options.split(',').filter_map(|option| option.strip_prefix(name)) {
            for place in value.split(':').filter(|place| place.starts_with('/')) {
                // The first eight layers are enough to find the disk by.
                if let Ok(place) = mounts::unescape(place) {
                    let _ = places.push(place);
                }
            }
        }
    }
}

/// The device that the kernel was told to take as root.
fn from_command_line() -> Result<Option<Number>, Error> {
    let path = "/proc/cmdline";
    let mut buffer = [0; 4096];
    let text = files::read_text(path, &mut buffer).doing("reading", path)?;
    let Some(root) =
        text.split_ascii_whitespace().filter_map(|word| word.strip_prefix("root=")).next_back()
    else {
        return Ok(None);
    };
    match path_of_root(root) {
        Some(path) if files::exists(&path) => device::number_of(&path).map(Some),
        _ => Ok(None),
    }
}

/// The node for a `root=` of the kernel (Documentation/admin-guide/kernel-parameters.txt) or of an initramfs.
fn path_of_root(root: &str) -> Option<PathText> {
    let root = root.trim_matches('"');
    let links = &[
        ("PARTUUID=", "by-partuuid"),
        ("PARTLABEL=", "by-partlabel"),
        ("UUID=", "by-uuid"),
        ("LABEL=", "by-label"),
    ];
    for &(mark, folder) in links {
        if let Some(value) = root.strip_prefix(mark) {
            let value: Text<128> = Text::from(value.trim_matches('"'));
            return crate::path!("/dev/disk/{}/{}", folder, value).ok();
        }
    }
    root.starts_with("/dev/").then(|| crate::path!("{}", root).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_an_overlay_lower_ones_first() {
        let mut places = heapless::Vec::new();
        collect_layers("rw,lowerdir=/a/b:/c\\040d,upperdir=/u,workdir=/w", &mut places);
        let places: Vec<&str> = places.iter().map(|place| &**place).collect();
        assert_eq!(places, ["/a/b", "/c d", "/u"]);
    }

    #[test]
    fn every_spelling_of_root() {
        for (root, path) in [
            ("/dev/mmcblk0p2", Some("/dev/mmcblk0p2")),
            ("PARTUUID=738a4d67-02", Some("/dev/disk/by-partuuid/738a4d67-02")),
            ("UUID=\"abc\"", Some("/dev/disk/by-uuid/abc")),
            ("LABEL=writable", Some("/dev/disk/by-label/writable")),
            ("ZFS=rpool", None),
        ] {
            assert_eq!(path_of_root(root).as_deref(), path, "{root}");
        }
    }
}
