//! What something is that was taken for a whole disk and has no partition table, or one that says nothing: a file
//! system, mostly.

use super::reader::ReadAt;
use super::{ext4, fat};
use crate::error::Error;

/// Volumes that begin with a boot sector, by the name in it.
const VOLUMES: [(&[u8; 8], &str); 2] =
    [(b"NTFS    ", "a file system (NTFS)"), (b"EXFAT   ", "a file system (exFAT)")];

/// What else is taken for a disk: where something stands in it, and what. All of it may have an MBR, too, and is a disk
/// then.
#[cfg(feature = "core")]
pub(super) const OTHERS: [(u64, &[u8], &str); 17] = [
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"MZ", "a program for Windows or EFI"),
    (0, b"#!", "a script"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file, packed twice"),
    (0, b"BZh", "a bzip2 file, packed twice"),
    (0, b"!<arch>\n", "an archive of ar, as a package of Debian"),
    (0, b"07070", "an archive of cpio, as an initramfs"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree, or an image of U-Boot"),
    (0, b"\x27\x05\x19\x56", "an image of U-Boot"),
    (0, b"hsqs", "a file system (squashfs)"),
    (0, b"XFSB", "a file system (XFS)"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file again, packed twice"),
    (0, b"PK\x03\x04", "a zip archive, packed twice"),
    (0, b"\xfd7zXZ", "an xz file, packed twice"),
    (0x8001, b"CD001", "the image of a CD (ISO 9660)"),
    (0x10040, b"_BHRfS_M", "a file system (btrfs)"),
];
#[cfg(not(feature = "core"))]
pub(super) const OTHERS: [(u64, &[u8], &str); 8] = [
    (0, b"hsqs", "a file system (squashfs)"),
    (0, b"XFSB", "a file system (XFS)"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file again, packed twice"),
    (0, b"PK\x03\x04", "a zip archive, packed twice"),
    (0, b"\xfd7zXZ", "an xz file, packed twice"),
    (0x8001, b"CD001", "the image of a CD (ISO 9660)"),
    (0x10040, b"_BHRfS_M", "a file system (btrfs)"),
];

/// Names what begins at the first byte of a disk of `length` bytes, if it is known. With `has_table`, only what has its
/// boot sector where the table is.
pub(super) fn of(
    disk: &mut dyn ReadAt,
    length: u64,
    has_table: bool,
) -> Result<Option<&'static str>, Error> {
    if fat::open(disk, 0)?.is_some() {
        return Ok(Some("a file system (FAT)"));
    }
    for &(name, what) in &VOLUMES {
        if begins(disk, length, 3, name)? {
            return Ok(Some(what));
        }
    }
    if crate::IS_WHOLE && length >= 2048 && ext4::open(disk, 0)?.is_some() {
        return Ok(Some("a file system (ext4)"));
    }
    for &(at, magic, what) in &OTHERS {
        if !has_table && begins(disk, length, at, magic)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// True when these bytes stand at a place.
fn begins(disk: &mut dyn ReadAt, length: u64, at: u64, expected: &[u8]) -> Result<bool, Error> {
    let mut buffer = [0; 8];
    let Some(found) = buffer.get_mut(..expected.len()) else {
        return Ok(false);
    };
    if at + expected.len() as u64 > length {
        return Ok(false);
    }
    disk.read_exact_at(at, found)?;
    Ok(*found == *expected)
}
