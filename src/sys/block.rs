//! ioctls of block, loop, device-mapper, md, flash, watchdog and terminal devices that rustix does not have, and
//! fallocate.

use linux_raw_sys::{ioctl as request, loop_device as raw};
use rustix::fd::{AsFd, AsRawFd};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

pub(super) fn ioctl(fd: impl AsFd, request: u32, argument: usize) -> Result<usize, Errno> {
    // SAFETY: every caller, here and in its neighbour `extents`, passes an integer, or the address of a live value of
    // the type that the request reads or writes.
    let result = unsafe {
        super::syscall(
            linux_raw_sys::general::__NR_ioctl as _,
            fd.as_fd().as_raw_fd() as usize,
            request as usize,
            argument,
        )
    };
    super::checked(result)
}

/// The size of a block device in bytes.
pub fn size(fd: impl AsFd) -> Result<u64, Errno> {
    let mut bytes = 0u64;
    ioctl(fd, request::BLKGETSIZE64, &raw mut bytes as usize)?;
    Ok(bytes)
}

/// Makes the kernel write zeros over a range (bytes, multiples of the logical block), by whatever means it can
/// guarantee (<linux/fs.h> BLKZEROOUT; blkdev_issue_zeroout() in block/blk-lib.c).
pub fn zero_out(fd: impl AsFd, offset: u64, length: u64) -> Result<(), Errno> {
    let range = [offset, length];
    ioctl(fd, request::BLKZEROOUT, &raw const range as usize).map(drop)
}

/// Tells the device that nobody needs what is in a range (bytes, multiples of the logical block); what it reads as from
/// then on is the device's affair (<linux/fs.h> BLKDISCARD; blkdev_issue_discard() in block/blk-lib.c).
pub fn discard(fd: impl AsFd, offset: u64, length: u64) -> Result<(), Errno> {
    let range = [offset, length];
    ioctl(fd, request::BLKDISCARD, &raw const range as usize).map(drop)
}

/// Sets blocks aside for a range of a file, makes a hole of it, and the like: fallocate(2). By the C library: rustix's
/// own way holds the number of the call and six words in registers, which the Thumb of ARMv6 does not have.
pub fn fallocate(
    fd: impl AsFd,
    flags: FallocateFlags,
    offset: u64,
    length: u64,
) -> Result<(), Errno> {
    let file = fd.as_fd().as_raw_fd();
    // SAFETY: integers alone are given; what they do to a file touches no memory of this process.
    let result = unsafe { libc_fallocate(file, flags.bits() as i32, offset as i64, length as i64) };
    super::checked(result as _).map(drop)
}

unsafe extern "C" {
    /// fallocate(3). musl's off_t has 64 bits everywhere, glibc's has them on x86_64.
    #[link_name = "fallocate"]
    fn libc_fallocate(file: i32, mode: i32, offset: i64, length: i64) -> i32;
}

/// Thaws the file system of an open file or directory; EINVAL when it is not frozen. ioctl_fsfreeze in fs/ioctl.c.
pub fn thaw(fd: impl AsFd) -> Result<(), Errno> {
    ioctl(fd, request::FITHAW, 0).map(drop)
}

/// Writes back and drops what the page cache holds of the device.
pub fn flush_buffers(fd: impl AsFd) -> Result<(), Errno> {
    ioctl(fd, request::BLKFLSBUF, 0).map(drop)
}

/// Sets a watchdog's time in seconds, and gives what the driver made of it: <linux/watchdog.h>, WDIOC_SETTIMEOUT.
pub fn watchdog_set_time(fd: impl AsFd, seconds: u32) -> Result<u32, Errno> {
    let mut time = seconds as i32;
    ioctl(fd, request::WDIOC_SETTIMEOUT, &raw mut time as usize)?;
    Ok(time.max(0) as u32)
}

/// Waits until all that was written to a terminal has left. ioctl_tty(2), TCSBRK with an argument: it sends no break.
pub fn drain_terminal(terminal: impl AsFd) -> Result<(), Errno> {
    ioctl(terminal, request::TCSBRK, 1).map(drop)
}

/// The rows and columns of a terminal, 0 where it does not know. ioctl_tty(2), TIOCGWINSZ.
pub fn terminal_size(terminal: impl AsFd) -> Result<(usize, usize), Errno> {
    // struct winsize: rows, columns, and the size in pixels.
    let mut size = [0u16; 4];
    ioctl(terminal, request::TIOCGWINSZ, &raw mut size as usize)?;
    let [rows, columns, ..] = size;
    Ok((rows.into(), columns.into()))
}

/// Makes a virtual terminal show text, and leaves it to the kernel when another one is switched to: ioctl_vt(2),
/// VT_SETMODE with VT_AUTO, and KDSETMODE with KD_TEXT.
pub fn terminal_to_text(terminal: impl AsFd) -> Result<(), Errno> {
    let terminal = terminal.as_fd();
    // struct vt_mode, 8 bytes: VT_AUTO is 0, and so is what else it has.
    let mode = 0u64;
    let is_automatic = ioctl(terminal, request::VT_SETMODE, &raw const mode as usize);
    ioctl(terminal, request::KDSETMODE, 0).and(is_automatic).map(drop)
}

/// struct dm_ioctl of <linux/dm-ioctl.h>: 312 bytes on every target.
#[repr(C)]
struct MapperRequest {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    identity: [u8; 129],
    data: [u8; 7],
}

impl MapperRequest {
    #[inline(always)]
    fn of(device: u64) -> Self {
        Self {
            // The interface, not the driver: 4.0.0 is understood by every kernel since 2.6.
            version: [4, 0, 0],
            data_size: size_of::<MapperRequest>() as u32,
            data_start: 0,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_number: 0,
            padding: 0,
            device,
            name: [0; 128],
            identity: [0; 129],
            data: [0; 7],
        }
    }
}

/// <linux/raid/md_u.h>: _IO(9, 0x32).
const STOP_ARRAY: u32 = 0x932;

/// Removes a device-mapper device that nobody has open; `control` is /dev/mapper/control, `device` its number as
/// makedev(3) puts it together. dm_ioctl's DM_DEV_REMOVE (drivers/md/dm-ioctl.c), which finds a device by its number
/// when neither name nor uuid is given.
pub fn mapper_remove(control: impl AsFd, device: u64) -> Result<(), Errno> {
    let mut removal = MapperRequest::of(device);
    ioctl(control, request::DM_DEV_REMOVE, &raw mut removal as usize).map(drop)
}

/// A request with room for what is told.
#[cfg(feature = "core")]
#[repr(C)]
struct MapperTable {
    request: MapperRequest,
    data: [u8; MAPPER_TABLE],
}

/// How much of the table of a device-mapper device is taken, in bytes.
#[cfg(feature = "core")]
pub const MAPPER_TABLE: usize = 8192;

/// The table of a device-mapper device, by its number: how many targets it has, and with what each begins, a struct
/// dm_target_spec with its parameters behind it. ENOSPC when it is longer than [`MAPPER_TABLE`]. dm_ioctl's
/// DM_TABLE_STATUS with DM_STATUS_TABLE_FLAG.
#[cfg(feature = "core")]
pub fn mapper_table(
    control: impl AsFd,
    device: u64,
    table: &mut [u8; MAPPER_TABLE],
) -> Result<u32, Errno> {
    const STATUS_TABLE: u32 = 1 << 4;
    const BUFFER_FULL: u32 = 1 << 8;
    let mut asked = MapperTable { request: MapperRequest::of(device), data: [0; MAPPER_TABLE] };
    asked.request.data_size = size_of::<MapperTable>() as u32;
    asked.request.data_start = size_of::<MapperRequest>() as u32;
    asked.request.flags = STATUS_TABLE;
    ioctl(control, request::DM_TABLE_STATUS, &raw mut asked as usize)?;
    *table = asked.data;
    if asked.request.flags & BUFFER_FULL != 0 {
        return Err(Errno::NOSPC);
    }
    Ok(asked.request.target_count)
}

/// Stops a software RAID that nobody else has open: md(4), STOP_ARRAY.
pub fn md_stop(array: impl AsFd) -> Result<(), Errno> {
    ioctl(array, STOP_ARRAY, 0).map(drop)
}

/// struct erase_info_user of <mtd/mtd-abi.h>: a part of a flash, in bytes. And its _IOW('M', 2) and _IOR('M', 23), and
/// _IOR('M', 1) with the struct below: the same numbers on every target.
#[repr(C)]
struct FlashPart {
    start: u32,
    length: u32,
}
const MEMERASE: u32 = 0x4008_4d02;
const MEMISLOCKED: u32 = 0x8008_4d17;
const MEMGETINFO: u32 = 0x8020_4d01;

/// struct mtd_info_user of <mtd/mtd-abi.h>: 32 bytes on every target.
#[repr(C)]
#[derive(Default)]
struct FlashInfo {
    kind: u8,
    flags: u32,
    size: u32,
    erase_size: u32,
    write_size: u32,
    spare_size: u32,
    padding: u64,
}

/// The size of a flash device and of the blocks that it is erased in, in bytes: MEMGETINFO.
pub fn flash_sizes(flash: impl AsFd) -> Result<(u32, u32), Errno> {
    let mut info = FlashInfo::default();
    ioctl(flash, MEMGETINFO, &raw mut info as usize)?;
    Ok((info.size, info.erase_size))
}

/// Erases whole blocks of a flash device, and waits until that is done: MEMERASE.
pub fn flash_erase(flash: impl AsFd, start: u32, length: u32) -> Result<(), Errno> {
    let part = FlashPart { start, length };
    ioctl(flash, MEMERASE, &raw const part as usize).map(drop)
}

/// True when a part of a flash device is locked against erasing and writing: MEMISLOCKED. An error where nothing can be
/// locked.
pub fn flash_is_locked(flash: impl AsFd, start: u32, length: u32) -> Result<bool, Errno> {
    let part = FlashPart { start, length };
    ioctl(flash, MEMISLOCKED, &raw const part as usize).map(|locked| locked != 0)
}

/// The number of a loop device that is free, made if need be; `control` is /dev/loop-control. loop(4).
pub fn loop_get_free(control: impl AsFd) -> Result<u32, Errno> {
    ioctl(control, raw::LOOP_CTL_GET_FREE, 0).map(|number| number as u32)
}

/// Puts `backing` behind a loop device, `offset` and `limit` in bytes (0: to the end), cleared with the last close.
///
/// LOOP_SET_FD and LOOP_SET_STATUS64, not LOOP_CONFIGURE: that one came with Linux 5.8.
pub fn loop_attach(
    device: impl AsFd,
    backing: impl AsFd,
    offset: u64,
    limit: u64,
) -> Result<(), Errno> {
    let device = device.as_fd();
    let backing = backing.as_fd().as_raw_fd() as usize;
    ioctl(device, raw::LOOP_SET_FD, backing)?;
    // SAFETY: loop_info64 is plain integers and byte arrays, for which zeros are valid.
    let mut info: raw::loop_info64 = unsafe { core::mem::zeroed() };
    info.lo_offset = offset;
    info.lo_sizelimit = limit;
    info.lo_flags = raw::LO_FLAGS_AUTOCLEAR as u32;
    let set = ioctl(device, raw::LOOP_SET_STATUS64, &raw const info as usize);
    if set.is_err() {
        // Best effort: the status could not be set, and the caller gets that error.
        let _ = loop_clear(device);
    }
    set.map(drop)
}

/// Takes the backing file from a loop device; while it is in use the kernel waits for the last close.
pub fn loop_clear(device: impl AsFd) -> Result<(), Errno> {
    ioctl(device, raw::LOOP_CLR_FD, 0).map(drop)
}

/// The device number of the file system that a loop device's backing file lies on, or of the backing block device
/// itself.
pub fn loop_backing(device: impl AsFd) -> Result<LoopBacking, Errno> {
    // SAFETY: plain integers and byte arrays, for which zeros are valid.
    let mut info: raw::loop_info64 = unsafe { core::mem::zeroed() };
    ioctl(device, raw::LOOP_GET_STATUS64, &raw mut info as usize)?;
    Ok(LoopBacking { file_system: info.lo_device, block_device: info.lo_rdevice })
}

/// What is behind a loop device, as `stat` encodes device numbers for user space (huge_encode_dev in
/// include/linux/kdev_t.h, the same as makedev(3) for numbers below 4096).
pub struct LoopBacking {
    /// The file system of the backing file.
    pub file_system: u64,
    /// The backing block device, 0 when it is a file.
    pub block_device: u64,
}
