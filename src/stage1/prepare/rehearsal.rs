//! The rehearsal: stage 2's mounts and PID 1's execution of our copy, made once while the old OS can still help.
//!
//! A tiny file system in memory is mounted through a loop device. The kernel itself loads what that takes (loop, the
//! file system, its character sets) while modprobe is still there; whether it can is known before anything changes.

use super::ramfs::Ramfs;
use crate::disk::loops;
use crate::disk::mounts::{self, FileSystem};
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::{PartitionPlan, Plan, names};
use crate::sys::process;
use core::time::Duration;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;
use rustix::process::{Signal, WaitOptions};

/// The length of the tiny file systems.
const LENGTH: usize = 64 * 1024;

/// A file system that stage 2 will mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// Its kind.
    pub file_system: FileSystem,
    /// What it takes, and what to do without: for the error when the kernel cannot mount it.
    advice: &'static str,
}

/// The file systems that stage 2 will mount: those of the boot partition, the data partition and the log device, each
/// once, in the order of their weight.
pub fn needs(plan: &Plan) -> heapless::Vec<Need, 3> {
    const BOOT: &str =
        "the kernel must be able to mount the new boot partition: is the module there?";
    const DATA: &str = "the kernel must be able to mount the new data partition: is the module there? \
                        --backup-cfg and --fallback-log need it";
    const LOG: &str =
        "the kernel must be able to mount the log device: is the module there? --log-to needs it";
    let log = plan.log_device.as_ref().map(|log| match log.file_system.as_str() {
        "vfat" => FileSystem::Vfat,
        // ext3, too.
        _ => FileSystem::Ext4,
    });
    let of = |partition: &Option<PartitionPlan>| partition.map(|_| FileSystem::Ext4);
    let mut needs = heapless::Vec::new();
    for (file_system, advice) in [(of(&plan.boot), BOOT), (of(&plan.data), DATA), (log, LOG)] {
        if let Some(file_system) = file_system
            && !needs.iter().any(|need: &Need| need.file_system == file_system)
        {
            // As many places as there are partitions.
            let _ = needs.push(Need { file_system, advice });
        }
    }
    needs
}

/// Mounts and unmounts a tiny file system of this kind.
pub fn rehearse(ramfs: &Ramfs, need: Need, buffer: &mut [u8]) -> Result<(), Error> {
    let kind = need.file_system;
    let image = buffer
        .get_mut(..LENGTH)
        .ok_or_else(|| Error::failed("rehearsing", kind.name(), "the buffer is too small"))?;
    image.fill(0);
    match kind {
        FileSystem::Vfat => format_fat(image),
        FileSystem::Ext4 => format_ext(image),
    }
    let path = ramfs.inside("rehearsal")?;
    drop(files::create(&path, image)?);
    let result = mount_once(ramfs, &path, kind);
    files::remove(&path).doing("removing", &path)?;
    result.map_err(|error| error.as_refusal().advice(need.advice))
}

/// How long a copy of this program may take to tell its version.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Executes the copy of this program, as PID 1 will: should that fail there, nothing could be undone (systemd stops for
/// ever, the kernel panics when sysvinit ends). A child does it, which tells its version to nobody.
pub fn execute(copy: &str, patience: Duration) -> Result<(), Error> {
    let fail = |why: &str| {
        Error::refused("executing the copy of this program,", copy, why)
            .advice("is execution from memory file systems forbidden (noexec, a security module)?")
    };
    let child = process::spawn(|| {
        let null = files::open("/dev/null", OFlags::RDWR).map(process::become_stdio);
        if let Ok(Ok(())) = null {
            process::become_own_copy(copy, c"--tool-version");
        }
        CANNOT_EXECUTE
    });
    let child = child.doing("starting", "a process")?;
    let watch = Stopwatch::start();
    loop {
        let ended = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        match ended.doing("waiting for", copy)? {
            Some((_, status)) if status.exit_status() == Some(0) => return Ok(()),
            Some((_, status)) if status.exit_status() == Some(CANNOT_EXECUTE) => {
                return Err(fail("the kernel does not execute it"));
            }
            Some(_) => return Err(fail("it does not run")),
            None if watch.elapsed() > patience.as_millis() as u64 => break,
            None => crate::sys::clock::sleep(Duration::from_millis(5)),
        }
    }
    // It is taken in as far as it ends at once; else by whoever takes in our own children.
    let _ = rustix::process::kill_process(child, Signal::KILL);
    Err(fail("it does not come to an end"))
}

/// What the child ends with when it is still this program: the shell's code for it.
const CANNOT_EXECUTE: i32 = 126;

fn mount_once(ramfs: &Ramfs, path: &str, kind: FileSystem) -> Result<(), Error> {
    let backing = files::open(path, OFlags::RDWR).doing("opening", path)?;
    let device = loops::attach(&ramfs.inside(names::DEV)?, &backing, 0, 0)?;
    let point = ramfs.inside(names::MOUNT)?;
    let name = kind.name();
    mounts::mount_at(&device.path, &point, name, MountFlags::RDONLY, "")
        .doing("mounting a small file system of the type", name)?;
    mounts::unmount_patiently(&point).doing("unmounting", &point)
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A FAT12 volume: 128 sectors of 512 bytes, one sector a cluster, one table, 16 root entries.
fn format_fat(image: &mut [u8]) {
    put(image, 0, b"\xeb\x3c\x90takeover");
    put(image, 11, &[0, 2, 1, 1, 0, 1, 16, 0, 128, 0, 0xf8, 1, 0, 32, 0, 2, 0]);
    put(image, 38, b"\x29\0\0\0\0REHEARSAL  FAT12   ");
    put(image, 510, &[0x55, 0xaa]);
    put(image, 512, &[0xf8, 0xff, 0xff]);
}

/// An ext4 volume without a journal: 64 blocks of 1 KiB, 16 inodes, an empty root directory
/// (Documentation/filesystems/ext4 in Linux). With checksums of its metadata, as every newer volume has them: they take
/// crc32c, which may be a module of its own.
fn format_ext(image: &mut [u8]) {
    const BLOCK: usize = 1024;
    const GROUP: usize = 2 * BLOCK;
    const ROOT: usize = 5 * BLOCK + 128;
    let word = |value: u32| value.to_le_bytes();
    let superblock = BLOCK;
    // Inodes, blocks, reserved, free blocks, free inodes, first block, block size, cluster size, per group (3).
    for (index, value) in [16, 64, 0, 55, 5, 1, 0, 0, 8192, 8192, 16].into_iter().enumerate() {
        put(image, superblock + 4 * index, &word(value));
    }
    put(image, superblock + 54, &[0xff, 0xff, 0x53, 0xef, 1, 0, 1, 0]);
    // Revision 1: the first free inode is 11, inodes have 128 bytes; metadata_csum by crc32c.
    put(image, superblock + 76, &[1]);
    put(image, superblock + 84, &[11, 0, 0, 0, 128]);
    put(image, superblock + 100, &[0, 4]);
    put(image, superblock + 0x175, &[1]);
    // The group: bitmaps in blocks 3 and 4, the inode table from 5, free blocks, free inodes, directories.
    put(image, GROUP, &word(3));
    put(image, GROUP + 4, &word(4));
    put(image, GROUP + 8, &word(5));
    put(image, GROUP + 12, &[55, 0, 5, 0, 1, 0]);
    // Blocks 1 to 7 are in use, and what lies behind the 63 blocks of the group.
    let bitmap = image.get_mut(3 * BLOCK..4 * BLOCK).unwrap_or_default();
    bitmap.fill(0xff);
    put(image, 3 * BLOCK, &[0x7f, 0, 0, 0, 0, 0, 0, 0x80]);
    let bitmap = image.get_mut(4 * BLOCK..5 * BLOCK).unwrap_or_default();
    bitmap.fill(0xff);
    put(image, 4 * BLOCK, &[0xff, 0x07]);
    // Inode 2, the root: a directory of 1 KiB in block 7, three names for it.
    put(image, ROOT, &[0xed, 0x41, 0, 0, 0, 4]);
    put(image, ROOT + 26, &[2, 0, 2, 0]);
    put(image, ROOT + 40, &word(7));
    put(image, 7 * BLOCK, &[2, 0, 0, 0, 12, 0, 1, 0, b'.']);
    put(image, 7 * BLOCK + 12, &[2, 0, 0, 0, 0xf4, 3, 2, 0, b'.', b'.']);
    // What a read-only mount checks: superblock, group, root inode. The seed is that of the identity, all zeros.
    let seed = crc32c(u32::MAX, &[0; 16]);
    let of = |image: &[u8], at: usize, length: usize, start: u32| {
        crc32c(start, image.get(at..at + length).unwrap_or_default())
    };
    let group = of(image, GROUP, 32, crc32c(seed, &word(0)));
    put(image, GROUP + 30, &(group as u16).to_le_bytes());
    let root = of(image, ROOT, 128, crc32c(crc32c(seed, &word(2)), &word(0)));
    put(image, ROOT + 124, &(root as u16).to_le_bytes());
    let whole = of(image, superblock, 0x3fc, u32::MAX);
    put(image, superblock + 0x3fc, &word(whole));
}

/// CRC-32C as ext4 keeps it, without the inversion at the end.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_system_of_every_partition_is_rehearsed_once() {
        let kinds = |plan: &Plan| -> Vec<_> {
            needs(plan).iter().map(|need| (need.file_system, need.advice)).collect()
        };
        let about = |advice: &str, word| assert!(advice.contains(word), "{advice}");
        let plan = crate::plan::tests::sample();
        let [(FileSystem::Ext4, boot), (FileSystem::Vfat, log)] = kinds(&plan)[..] else {
            panic!("boot and data are ext4, the log is vfat: {:?}", kinds(&plan));
        };
        about(boot, "boot partition");
        about(log, "log device");

        let plan = Plan { boot: None, ..plan };
        let [(FileSystem::Ext4, data), (FileSystem::Vfat, _)] = kinds(&plan)[..] else {
            panic!("{:?}", kinds(&plan));
        };
        about(data, "data partition");
        let mut plan = Plan { data: None, ..plan };
        let [(FileSystem::Vfat, log)] = kinds(&plan)[..] else {
            panic!("{:?}", kinds(&plan));
        };
        about(log, "log device");
        for name in ["ext4", "ext3"] {
            let kept = plan.log_device.as_mut().unwrap();
            kept.file_system = heapless::String::try_from(name).unwrap();
            assert_eq!(kinds(&plan), [(FileSystem::Ext4, log)]);
        }
        plan.log_device = None;
        assert!(needs(&plan).is_empty());
    }

    #[test]
    fn a_copy_that_cannot_be_executed_is_refused() {
        let folder = std::env::temp_dir().join(format!("takeover-execute-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let copy = folder.join("takeover");
        let path = copy.to_str().unwrap();
        let result = |content: &[u8], mode, patience| {
            let _ = std::fs::remove_file(&copy);
            std::fs::write(&copy, content).unwrap();
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
            // Another test may have forked while the file was open for writing: ETXTBSY.
            crate::sys::clock::sleep(Duration::from_millis(50));
            let shown = |error: Error| {
                assert_eq!(error.kind().exit_code(), 3);
                let text: crate::text::Text<400> = crate::text!("{}", error);
                text.to_string()
            };
            execute(path, patience).map_err(shown)
        };
        result(b"#!/bin/sh\n[ \"$*\" = --tool-version ]\n", 0o700, PATIENCE).unwrap();
        let told = |result: Result<(), String>, word| {
            let text = result.unwrap_err();
            assert!(text.contains(word), "{text}");
        };
        told(result(b"\x7fELF cut short", 0o700, PATIENCE), "the kernel does not execute it");
        told(result(b"#!/bin/sh\n", 0o600, PATIENCE), "the kernel does not execute it");
        told(result(b"#!/bin/sh\nexit 1\n", 0o700, PATIENCE), "it does not run");
        told(result(b"#!/bin/sh\nkill -9 $$\n", 0o700, PATIENCE), "it does not run");
        let short = Duration::from_millis(100);
        told(result(b"#!/bin/sh\nsleep 5\n", 0o700, short), "does not come to an end");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn our_own_reader_knows_the_tiny_fat() {
        let mut image = vec![0; LENGTH];
        format_fat(&mut image);
        let fat = crate::disk::fat::open(&mut image, 0).unwrap().unwrap();
        let mut found = [None];
        fat.find_all(&mut image, &["x"], &mut found).unwrap();
        assert_eq!(found, [None]);
    }

    #[test]
    fn crc32c_of_the_specification() {
        // RFC 3720, B.4, before the inversion: 32 bytes of zeros, and the digits.
        assert_eq!(!crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn our_own_reader_knows_the_tiny_ext() {
        let mut image = vec![0; LENGTH];
        format_ext(&mut image);
        assert!(crate::disk::ext4::label(&mut image, 0).unwrap().is_some());
    }
}
