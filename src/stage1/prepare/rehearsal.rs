//! The rehearsal: stage 2's mounts and PID 1's execution of our copy, made once while the old OS can still help.
//!
//! A tiny ext4 in memory is mounted through a loop device, and the log device as it is. The kernel itself loads what
//! that takes (loop, the file system, its character sets) while modprobe is still there; whether it can is known before
//! anything changes.

use super::ramfs::Ramfs;
use crate::boot_blob::{Area, Device};
use crate::disk::device;
use crate::disk::ext4::Features;
use crate::disk::loops;
use crate::disk::mounts::{self, FileSystem};
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::{FilePlan, Plan, names};
use crate::stage1::look::boot_area;
use crate::sys::process;
use core::time::Duration;
use rustix::fs::{OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Signal, WaitOptions};

/// What ext4 is called by mount(2).
const EXT4: &str = FileSystem::Ext4.name();

/// The length of the tiny file systems.
const LENGTH: usize = 64 * 1024;

/// An ext4 file system of the new OS that stage 2 will mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// The features that it has.
    pub features: Features,
    /// What it takes, and what to do without: for the error when the kernel cannot mount it.
    advice: &'static str,
}

/// What stage 2 will mount of the new OS: the boot partition and the data partition, once where their features are the
/// same. `boot` and `data` are the features that the image's own have.
pub fn needs(plan: &Plan, boot: Features, data: Features) -> heapless::Vec<Need, 2> {
    const BOOT: &str =
        "the kernel must be able to mount the new boot partition: is the module there?";
    const DATA: &str = "the kernel must be able to mount the new data partition: is the module there? \
                        --backup-cfg and --fallback-log need it";
    let mut needs: heapless::Vec<Need, 2> = heapless::Vec::new();
    for (partition, features, advice) in [(plan.boot, boot, BOOT), (plan.data, data, DATA)] {
        if partition.is_some() && !needs.iter().any(|need| need.features == features) {
            // As many places as there are partitions.
            let _ = needs.push(Need { features, advice });
        }
    }
    needs
}

/// Mounts and unmounts a tiny file system with these features.
pub fn rehearse(ramfs: &Ramfs, need: Need, buffer: &mut [u8]) -> Result<(), Error> {
    let image = buffer
        .get_mut(..LENGTH)
        .ok_or_else(|| Error::failed("rehearsing", EXT4, "the buffer is too small"))?;
    image.fill(0);
    format_ext(image, need.features);
    let path = ramfs.inside("rehearsal")?;
    drop(files::create(&path, image)?);
    let result = mount_once(ramfs, &path, need);
    files::remove(&path).doing("removing", &path)?;
    result.map_err(Error::as_refusal)
}

/// Mounts the log device as stage 2 will, and unmounts it. One that is in use needs no proof here: it can be mounted,
/// or will be free when those who use it have ended.
pub fn log_device(ramfs: &Ramfs, log: &FilePlan) -> Result<(), Error> {
    if mounts::find(mounts::OWN, &mut |mount| mount.device == log.number)?.is_some() {
        return Ok(());
    }
    let (node, point) = (ramfs.inside("log-partition")?, ramfs.inside(names::MOUNT)?);
    device::make_node(&node, log.number)?;
    let kind = log.file_system.as_str();
    let safe = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    match mounts::mount_at(&node, &point, kind, safe, "") {
        Ok(()) => mounts::unmount_patiently(&point).doing("unmounting", &point),
        Err(Errno::BUSY) => Ok(()),
        Err(errno) => {
            let error =
                Error::os("mounting the log device, a file system of the type", kind, errno);
            Err(error.advice(remedy(errno, LOG)).as_refusal())
        }
    }
}

/// What to do about a kernel that does not know the log device's file system.
const LOG: &str =
    "the kernel must be able to mount the log device: is the module there? --log-to needs it";

/// The device of the loaders is still as it was found, and lets itself be made writable: that is done, and taken back.
pub fn boot_area(wanted: Area) -> Result<(), Error> {
    let name = wanted.device.name();
    if boot_area::look(boot_area::CLASSES, boot_area::NODES, wanted.device)? != wanted {
        return Err(Error::refused("looking again at", name, "it is not what it was before"));
    }
    if wanted.device == Device::Emmc {
        let switch = crate::path!("{}/block/{}/force_ro", boot_area::CLASSES, name)?;
        let state = crate::path!("{}/block/{}/ro", boot_area::CLASSES, name)?;
        let set = |value: &[u8]| {
            let file = files::opened(&switch, OFlags::WRONLY)?;
            files::write_all(&file, value).doing("writing", &switch)
        };
        let was_open = files::read_number(&switch) == Some(0);
        let opened = set(b"0");
        let is_writable = files::read_number(&state) == Some(0);
        let closed = if was_open { Ok(()) } else { set(b"1") };
        opened.and(closed).map_err(Error::as_refusal)?;
        if !is_writable {
            let why = "it stays read-only when force_ro is 0";
            return Err(Error::refused("making it writable,", name, why)
                .advice("the eMMC is write-protected"));
        }
    }
    crate::info!("rehearsed: {} can be written", name);
    Ok(())
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

fn mount_once(ramfs: &Ramfs, path: &str, need: Need) -> Result<(), Error> {
    let backing = files::open(path, OFlags::RDWR).doing("opening", path)?;
    let device = loops::attach(&ramfs.inside(names::DEV)?, &backing, 0, 0)?;
    let point = ramfs.inside(names::MOUNT)?;
    mounts::mount_at(&device.path, &point, EXT4, MountFlags::NOATIME, "").map_err(|errno| {
        Error::os("mounting a small file system of the type", EXT4, errno)
            .advice(remedy(errno, need.advice))
    })?;
    let space = files::space(&point).doing("looking at the file system", &point);
    mounts::unmount_patiently(&point).doing("unmounting", &point)?;
    if space?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let why = "the kernel mounts one with its features for reading only";
        return Err(Error::failed("mounting a small file system of the type", EXT4, why)
            .advice("use a newer kernel, or an image whose file system has no such feature"));
    }
    Ok(())
}

/// What to do about a mount that failed: `unknown` when the kernel does not know the file system. mount(2).
fn remedy(errno: Errno, unknown: &'static str) -> &'static str {
    match errno {
        Errno::NODEV => unknown,
        Errno::BUSY => {
            "another program has the loop device open for writing, and this kernel mounts no such device \
             (bdev_allow_write_mounted=0): is it udev, or an antivirus program? Try again"
        }
        _ => "the kernel's log tells why: dmesg",
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Those that a tiny volume can have. Left out is what takes structures of its own: a journal, with what is to be
/// recovered from it and its fast commits; a file for orphans; room to grow into; the block of the multiple mount
/// protection; the older checksums of groups. Every ext4 that knows the rest has these, or mounts without.
fn of_tiny(all: Features) -> Features {
    const COMPAT: u32 = 0x4 | 0x10 | 0x400 | 0x1000;
    const INCOMPAT: u32 = 0x4 | 0x100;
    const RO_COMPAT: u32 = 0x10 | 0x1_0000;
    let least = if all.ro_compat & BIGALLOC == 0 { 1024 } else { 2048 };
    Features {
        compat: all.compat & !COMPAT,
        incompat: all.incompat & !INCOMPAT,
        ro_compat: all.ro_compat & !RO_COMPAT,
        // Larger ones than 4 KiB have no room here. With clusters, the superblock must not be in block 1.
        block_size: all.block_size.clamp(least, 4096),
    }
}

/// Features that change what a tiny volume looks like (Documentation/filesystems/ext4/super.rst).
const WITH_64_BITS: u32 = 0x80;
const CASEFOLD: u32 = 0x2_0000;
const BIGALLOC: u32 = 0x200;
const METADATA_CSUM: u32 = 0x400;

/// An ext4 volume with these features, as far as it can have them: 16 inodes of 128 bytes, an empty root directory, no
/// journal (Documentation/filesystems/ext4 in Linux). Its blocks: that of the superblock, the groups, two bitmaps, the
/// inodes, the root directory.
fn format_ext(image: &mut [u8], features: Features) {
    const SUPERBLOCK: usize = 1024;
    let features = of_tiny(features);
    let block = features.block_size as usize;
    let shift = features.block_size.ilog2() - 10;
    // In blocks of 1 KiB the superblock has block 1, else it is in block 0.
    let first = usize::from(block == 1024);
    let count = LENGTH / block;
    let group = (first + 1) * block;
    let root = first + 4 + (16usize * 128).div_ceil(block);
    let used = root + 1 - first;
    let free = (count - root - 1) as u32;
    let per_group = features.block_size * 8;
    let fields = [
        // Inodes, blocks, reserved, free blocks, free inodes, first block, block size, cluster size, per group (3).
        (0, [16, count as u32, 0, free, 5, first as u32]),
        (24, [shift, shift, per_group, per_group, 16, 0]),
        // Revision 1; the first free inode is 11; bytes an inode. The three words.
        (76, [1, 0, 11, 128, features.compat, features.incompat]),
    ];
    for (at, values) in fields {
        for (index, value) in values.into_iter().enumerate() {
            put(image, SUPERBLOCK + at + 4 * index, &word(value));
        }
    }
    put(image, SUPERBLOCK + 54, &[0xff, 0xff, 0x53, 0xef, 1, 0, 1, 0]);
    put(image, SUPERBLOCK + 100, &word(features.ro_compat));
    if features.incompat & WITH_64_BITS != 0 {
        put(image, SUPERBLOCK + 0xfe, &[64]);
    }
    if features.incompat & CASEFOLD != 0 {
        // UTF-8 as of Unicode 12.1, the only encoding there is.
        put(image, SUPERBLOCK + 0x27c, &[1]);
    }
    // The group: its bitmaps and its inode table, free blocks, free inodes, directories.
    for (index, place) in (first + 2..first + 5).enumerate() {
        put(image, group + 4 * index, &word(place as u32));
    }
    put(image, group + 12, &[free as u8, 0, 5, 0, 1, 0]);
    // In use, and what lies behind the end.
    set_bits(image, (first + 2) * block, block, used, count - first);
    set_bits(image, (first + 3) * block, block, 11, 16);
    // Inode 2, the root: a directory of one block, three names for it.
    let inode = (first + 4) * block + 128;
    put(image, inode, &[0xed, 0x41, 0, 0]);
    put(image, inode + 4, &word(features.block_size));
    put(image, inode + 26, &[2, 0, (block / 512) as u8, 0]);
    put(image, inode + 40, &word(root as u32));
    let rest = (block as u16 - 12).to_le_bytes();
    put(image, root * block, &[2, 0, 0, 0, 12, 0, 1, 0, b'.']);
    put(image, root * block + 12, &[2, 0, 0, 0, rest[0], rest[1], 2, 0, b'.', b'.']);
    sign_ext(image, features, first);
}

fn word(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}

/// Sets the first bits of a bitmap, and those from `end` on.
fn set_bits(image: &mut [u8], at: usize, length: usize, first: usize, end: usize) {
    let bitmap = image.get_mut(at..at + length).unwrap_or_default();
    for (index, byte) in bitmap.iter_mut().enumerate() {
        for bit in 0..8 {
            let number = 8 * index + bit;
            if number < first || number >= end {
                *byte |= 1 << bit;
            }
        }
    }
}

/// The checksums that mounting checks: of the superblock, the group, its bitmaps and the root's inode. The identity of
/// the volume, from which they begin, is all zeros.
fn sign_ext(image: &mut [u8], features: Features, first: usize) {
    const SUPERBLOCK: usize = 1024;
    let block = features.block_size as usize;
    let group = (first + 1) * block;
    let size = if features.incompat & WITH_64_BITS != 0 { 64 } else { 32 };
    let of = |image: &[u8], at: usize, length: usize, start: u32| {
        crc32c(start, image.get(at..at + length).unwrap_or_default())
    };
    if features.ro_compat & METADATA_CSUM == 0 {
        return;
    }
    let seed = crc32c(u32::MAX, &[0; 16]);
    put(image, SUPERBLOCK + 0x175, &[1]);
    put(image, SUPERBLOCK + 0x270, &word(seed));
    let blocks = of(image, (first + 2) * block, block, seed);
    let inodes = of(image, (first + 3) * block, 16 / 8, seed);
    for (at, sum) in [(0x18, blocks), (0x1a, inodes)] {
        put(image, group + at, &(sum as u16).to_le_bytes());
        if size == 64 {
            put(image, group + at + 0x20, &((sum >> 16) as u16).to_le_bytes());
        }
    }
    let sum = of(image, group, size, crc32c(seed, &word(0)));
    put(image, group + 30, &(sum as u16).to_le_bytes());
    let inode = (first + 4) * block + 128;
    let sum = of(image, inode, 128, crc32c(crc32c(seed, &word(2)), &word(0)));
    put(image, inode + 124, &(sum as u16).to_le_bytes());
    let sum = of(image, SUPERBLOCK, 0x3fc, u32::MAX);
    put(image, SUPERBLOCK + 0x3fc, &word(sum));
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
    use std::path::Path;
    use std::process::Command;

    /// What a volume of these years has.
    const USUAL: Features =
        Features { compat: 0, incompat: 0, ro_compat: METADATA_CSUM, block_size: 1024 };

    #[test]
    fn the_file_system_of_every_partition_is_rehearsed_once() {
        let advice = |plan: &Plan, data| -> Vec<_> {
            needs(plan, USUAL, data).iter().map(|need| need.advice).collect()
        };
        let plan = crate::plan::tests::sample();
        let [boot] = advice(&plan, USUAL)[..] else { panic!("one is like the other") };
        assert!(boot.contains("boot partition"), "{boot}");
        let other = Features { block_size: 4096, ..USUAL };
        let [_, data] = advice(&plan, other)[..] else { panic!("each has its own features") };
        assert!(data.contains("data partition"), "{data}");
        let plan = Plan { boot: None, ..plan };
        assert_eq!(advice(&plan, USUAL), [data]);
        assert!(needs(&Plan { data: None, ..plan }, USUAL, USUAL).is_empty());
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
    fn crc32c_of_the_specification() {
        // RFC 3720, B.4, before the inversion: 32 bytes of zeros, and the digits.
        assert_eq!(!crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn our_own_reader_knows_the_tiny_ext() {
        let mut image = vec![0; LENGTH];
        format_ext(&mut image, USUAL);
        assert!(crate::disk::ext4::label(&mut image, 0).unwrap().is_some());
    }

    /// What mkfs.ext4 makes with these options, and its features.
    fn mkfs(path: &Path, options: &[&str]) -> Features {
        std::fs::File::create(path).unwrap().set_len(16 << 20).unwrap();
        let mut command = Command::new("mkfs.ext4");
        let done = command.args(["-q", "-F"]).args(options).arg(path).output().unwrap();
        assert!(done.status.success(), "{options:?}: {done:?}");
        let bytes = std::fs::read(path).unwrap();
        let field =
            |at: usize| u32::from_le_bytes(bytes[1024 + at..1024 + at + 4].try_into().unwrap());
        Features {
            compat: field(0x5c),
            incompat: field(0x60),
            ro_compat: field(0x64),
            block_size: 1024 << field(0x18),
        }
    }

    /// Mounts a volume for writing, in a mount namespace of its own; the options of the file system when it could.
    fn mount_for_writing(path: &Path, point: &Path) -> Option<String> {
        // What others of this machine take between the question for a free loop device and its use is asked for again.
        let script = "for try in 1 2 3; do \
            mount -t ext4 -o loop \"$0\" \"$1\" && exec grep \" $1 \" /proc/mounts; sleep 0.1; done; exit 1";
        let done = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .args([path, point])
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        done.status.success().then(|| text.split(' ').nth(3).unwrap().to_string())
    }

    #[test]
    fn the_kernel_mounts_a_tiny_ext_as_it_mounts_one_with_the_same_features() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can mount");
            return;
        }
        let folder = std::env::temp_dir().join(format!("takeover-tiny-{}", std::process::id()));
        let (whole, tiny, point) =
            (folder.join("whole"), folder.join("tiny"), folder.join("point"));
        std::fs::create_dir_all(&point).unwrap();
        let sets: [&[&str]; 18] = [
            &[],
            &["-b", "1024"],
            &["-b", "2048"],
            &["-b", "1024", "-O", "^64bit"],
            &["-O", "^64bit"],
            &["-O", "^metadata_csum"],
            &["-O", "^metadata_csum,uninit_bg"],
            &["-O", "^metadata_csum,^64bit,uninit_bg"],
            &["-O", "metadata_csum_seed"],
            &["-O", "quota"],
            &["-O", "quota,project"],
            &["-O", "casefold"],
            &["-O", "encrypt,verity,stable_inodes"],
            &["-O", "orphan_file"],
            &["-O", "mmp,meta_bg,^resize_inode,large_dir,ea_inode"],
            &["-O", "inline_data"],
            &["-O", "bigalloc"],
            &["-t", "ext2", "-b", "1024"],
        ];
        for options in sets {
            let features = mkfs(&whole, options);
            for unknown in [0, 0x80, 0x1000] {
                // HAS_SNAPSHOT, which no kernel writes to, and READONLY, which all keep from it.
                let features = Features { ro_compat: features.ro_compat | unknown, ..features };
                let mut image = vec![0; LENGTH];
                format_ext(&mut image, features);
                // A file of its own: mount(8) takes the loop device that a file has, as read-only as it was made for
                // the one before, for as long as anybody has that open.
                let _ = std::fs::remove_file(&tiny);
                std::fs::write(&tiny, &image).unwrap();
                let mounted = mount_for_writing(&tiny, &point);
                let is_writable = |found: &Option<String>| {
                    found.as_ref().is_some_and(|options| options.starts_with("rw"))
                };
                let wanted = unknown == 0 && is_writable(&mount_for_writing(&whole, &point));
                assert_eq!(is_writable(&mounted), wanted, "{options:?} {features:x?}: {mounted:?}");
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
