//! File systems of the kernel that nobody has mounted, looked into without anybody seeing it.
//!
//! Since Linux 5.2 a mount can be made that is in no mount table and goes away with its descriptor (fsopen(2),
//! fsmount(2)). Before, it is mounted on a new directory and taken out of sight at once; the descriptor keeps it.

use super::mounts;
use crate::files;
use crate::text::PathText;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};

/// A mount that is in no mount table, until it is dropped.
pub struct Detached {
    /// Its root directory; only for this process.
    pub path: PathText,
    _root: OwnedFd,
}

/// Mounts a file system of this kind read-only; the kernel loads its module when it has one.
pub fn mount(kind: &str) -> Result<Detached, Errno> {
    let root = match without_a_place(kind) {
        Err(Errno::NOSYS) => on_a_directory(kind),
        result => result,
    }?;
    let path =
        crate::path!("/proc/self/fd/{}", root.as_raw_fd()).map_err(|_| Errno::NAMETOOLONG)?;
    Ok(Detached { path, _root: root })
}

fn without_a_place(kind: &str) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn on_a_directory(kind: &str) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::NOENT);
    for place in &["/run", "/tmp"] {
        let path = crate::path!("{}/takeover-look-{}", place, std::process::id());
        let path = path.map_err(|_| Errno::NAMETOOLONG)?;
        if files::make_directory(&path).is_ok() {
            result = mounts::mount_at(kind, &path, kind, MountFlags::RDONLY, "").and_then(|()| {
                let root = files::open(&path, OFlags::RDONLY | OFlags::DIRECTORY);
                mounts::detach(&path)?;
                root
            });
            // Empty, and nobody's: what stays of it when that fails is a name.
            let _ = files::remove_directory(&path);
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_mount_is_seen_by_nobody_and_can_be_looked_into() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let table = || std::fs::read_to_string(mounts::OWN).unwrap();
        let before = table();
        let here =
            Detached { path: PathText::from("/proc/self"), _root: on_a_directory("proc").unwrap() };
        for root in [without_a_place("proc").unwrap(), here._root] {
            let version = format!("/proc/self/fd/{}/version", root.as_raw_fd());
            let text = std::fs::read_to_string(version).unwrap();
            assert_eq!(text, std::fs::read_to_string("/proc/version").unwrap());
            let create = format!("/proc/self/fd/{}/sys/kernel/hostname", root.as_raw_fd());
            assert!(std::fs::write(create, "x").is_err(), "it is read-only");
        }
        assert_eq!(table(), before);
        assert!(!mount("proc").unwrap().path.is_empty());
        assert!(mount("no-such-file-system").is_err());
    }
}
