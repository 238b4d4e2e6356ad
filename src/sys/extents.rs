//! ioctls that tell where the blocks of a file and the free blocks of a file system are, and what a device of
//! device-mapper is made of.

use super::block::ioctl;
use linux_raw_sys::ioctl as request;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// How many extents the kernel is asked for at once.
pub const BATCH: usize = 32;

/// struct fiemap_extent of <linux/fiemap.h>: 56 bytes on every target. Places and lengths are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct FileExtent {
    /// Where it is in the file.
    pub logical: u64,
    /// Where it is on the device of the file system.
    pub physical: u64,
    /// Its length.
    pub length: u64,
    reserved: [u64; 2],
    /// What it is: FIEMAP_EXTENT_*.
    pub flags: u32,
    more_reserved: [u32; 3],
}

impl FileExtent {
    /// An extent, for tests.
    #[cfg(test)]
    pub fn of(logical: u64, physical: u64, length: u64, flags: u32) -> Self {
        Self { logical, physical, length, flags, ..Self::default() }
    }
}

/// struct fiemap with its extents.
#[repr(C)]
struct FileMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [FileExtent; BATCH],
}

/// The extents of a file from `start` on, as many as there are up to [`BATCH`], once all of it is on the disk:
/// FS_IOC_FIEMAP with FIEMAP_FLAG_SYNC (Documentation/filesystems/fiemap.rst). Of a file system that tells of single
/// blocks only, as FAT does, those of its clusters.
pub fn of_file(
    file: impl AsFd,
    start: u64,
    extents: &mut [FileExtent; BATCH],
) -> Result<usize, Errno> {
    match of_mapped_file(&file, start, extents) {
        Err(Errno::OPNOTSUPP) => of_clusters(&file, start, extents),
        result => result,
    }
}

/// By FIBMAP, which numbers blocks of the length that FIGETBSZ gives, and calls 0 what has no place. A cluster is what
/// statfs(2) calls a block.
fn of_clusters(
    file: impl AsFd,
    start: u64,
    extents: &mut [FileExtent; BATCH],
) -> Result<usize, Errno> {
    let mut block = 0i32;
    ioctl(&file, request::FIGETBSZ, &raw mut block as usize)?;
    let block = u64::try_from(block).ok().filter(|block| *block > 0).ok_or(Errno::INVAL)?;
    let cluster = (rustix::fs::fstatfs(&file)?.f_bsize as u64).max(block);
    let end = rustix::fs::fstat(&file)?.st_size as u64;
    let (mut at, mut count) = (start / cluster * cluster, 0usize);
    while at < end {
        let mut number = i32::try_from(at / block).map_err(|_| Errno::OVERFLOW)?;
        ioctl(&file, request::FIBMAP, &raw mut number as usize)?;
        let physical = u64::from(number.cast_unsigned()) * block;
        let length = cluster.min(end - at);
        let last = count.checked_sub(1).and_then(|last| extents.get_mut(last));
        match last.filter(|last| last.physical + last.length == physical) {
            _ if number == 0 => return Err(Errno::INVAL),
            Some(last) => last.length += length,
            None => {
                let Some(place) = extents.get_mut(count) else {
                    break;
                };
                *place = FileExtent { logical: at, physical, length, ..FileExtent::default() };
                count += 1;
            }
        }
        at += cluster;
    }
    Ok(count)
}

fn of_mapped_file(
    file: impl AsFd,
    start: u64,
    extents: &mut [FileExtent; BATCH],
) -> Result<usize, Errno> {
    let mut map = FileMap {
        start,
        length: u64::MAX - start,
        flags: request::FIEMAP_FLAG_SYNC,
        mapped: 0,
        count: BATCH as u32,
        reserved: 0,
        extents: [FileExtent::default(); BATCH],
    };
    ioctl(file, request::FS_IOC_FIEMAP, &raw mut map as usize)?;
    *extents = map.extents;
    Ok((map.mapped as usize).min(BATCH))
}

/// struct fsmap of <linux/fsmap.h>: 64 bytes on every target. Places and lengths are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Space {
    /// The device, as the kernel encodes its number for user space (new_encode_dev).
    pub device: u32,
    flags: u32,
    /// Where it is on the device.
    pub physical: u64,
    owner: u64,
    offset: u64,
    /// Its length.
    pub length: u64,
    reserved: [u64; 3],
}

impl Space {
    /// True for a range that belongs to nobody: FMR_OF_SPECIAL_OWNER, and FMR_OWN_FREE, which is 1.
    pub fn is_free(&self) -> bool {
        self.flags & 0x10 != 0 && self.owner == 1
    }

    /// True for the last one: FMR_OF_LAST.
    pub fn is_last(&self) -> bool {
        self.flags & 0x20 != 0
    }
}

/// struct fsmap_head with its records.
#[repr(C)]
struct SpaceMap {
    in_flags: u32,
    out_flags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    keys: [Space; 2],
    records: [Space; BATCH],
}

/// What the space behind `last` on the device of a file system is used for, as many records as there are up to
/// [`BATCH`]; `last` is the last one of the call before, zeros for the first. FS_IOC_GETFSMAP, of ext4 and xfs since
/// Linux 4.12: ioctl_getfsmap(2).
pub fn of_file_system(
    file: impl AsFd,
    last: Space,
    records: &mut [Space; BATCH],
) -> Result<usize, Errno> {
    let end = Space {
        device: u32::MAX,
        flags: u32::MAX,
        physical: u64::MAX,
        owner: u64::MAX,
        offset: u64::MAX,
        length: 0,
        reserved: [0; 3],
    };
    let mut map = SpaceMap {
        in_flags: 0,
        out_flags: 0,
        count: BATCH as u32,
        entries: 0,
        reserved: [0; 6],
        keys: [last, end],
        records: [Space::default(); BATCH],
    };
    ioctl(file, request::FS_IOC_GETFSMAP, &raw mut map as usize)?;
    *records = map.records;
    Ok((map.entries as usize).min(BATCH))
}

/// True for a file of xfs that lies on its realtime device, of which FIEMAP does not speak: FS_IOC_FSGETXATTR with
/// FS_XFLAG_REALTIME in struct fsxattr of <linux/fs.h>.
pub fn is_realtime(file: impl AsFd) -> bool {
    let mut attributes = [0u32; 7];
    let told = ioctl(file, request::FS_IOC_FSGETXATTR, &raw mut attributes as usize);
    told.is_ok() && attributes[0] & 1 != 0
}
