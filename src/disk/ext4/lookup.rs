//! Where a file of an ext4 file system lies on the disk, found without mounting it: superblock, group descriptors,
//! inodes, directories, extents (Documentation/filesystems/ext4 in Linux).
//!
//! Reads only, follows no links, and takes no metadata of a journal into account. What is on the disk may be damaged:
//! every number is checked, and no walk is longer than the file system.

use super::Superblock;
use crate::bytes::little_endian;
use crate::disk::reader::ReadAt;
use crate::error::Error;
use crate::text::Text;

/// The number of the root directory's inode.
pub const ROOT: u32 = 2;
/// The most extents of a file that are noted, holes among them.
pub const MOST_EXTENTS: usize = 256;
/// The most directories of a directory that are looked into.
const MOST_DIRECTORIES: usize = 64;
/// The largest block that is read: that of all images.
const LARGEST_BLOCK: usize = 4096;
/// The longest directory that is read, in bytes.
const LONGEST_DIRECTORY: u64 = 16 << 20;
/// The most nodes of a tree of extents that are read: 256 extents need fewer.
const MOST_NODES: usize = 256;
/// The deepest tree of extents (EXT4_MAX_EXTENT_DEPTH in fs/ext4/ext4_extents.h).
const DEEPEST: u64 = 5;

/// The journal has changes that the disk has not.
const RECOVER: u32 = 0x4;
/// What can be there while directories and extents are as they are read here: file types in directories, a journal to
/// be written back (which has an error of its own), extents, 64 bits, multiple mount protection, flexible groups,
/// values of attributes in inodes, a seed of the checksums, large directories.
const KNOWN: u32 = 0x2 | RECOVER | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000;

/// Flags of an inode: its content is encrypted; it has extents; it lies in the inode itself.
const ENCRYPTED: u64 = 0x800;
const EXTENTS: u64 = 0x8_0000;
const INLINE: u64 = 0x1000_0000;

const DIRECTORY: u64 = 0x4000;
const REGULAR: u64 = 0x8000;

const DOING: &str = "looking into";
const OBJECT: &str = "the root file system";

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where it begins on the disk, in bytes; 0 for a hole, which reads as zeros.
    pub start: u64,
    /// Its length in bytes: whole blocks.
    pub length: u64,
}

/// The parts of a file, in its order.
pub type Extents = heapless::Vec<Extent, MOST_EXTENTS>;

/// A file or directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    bytes: [u8; 128],
}

impl Inode {
    fn kind(&self) -> u64 {
        little_endian::<2>(&self.bytes, 0) & 0xf000
    }

    /// True for a file with bytes of its own: no directory, link or device.
    pub fn is_regular(&self) -> bool {
        self.kind() == REGULAR
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        little_endian::<4>(&self.bytes, 0x6c) << 32 | little_endian::<4>(&self.bytes, 0x4)
    }
}

/// A file system that begins at a place of a disk.
pub struct Volume<'a> {
    disk: &'a mut dyn ReadAt,
    start: u64,
    superblock: Superblock,
}

/// The extents of a file while they are gathered.
struct Gathered {
    extents: Extents,
    /// The block of the file that comes next.
    next: u64,
    /// Where the file ends, in blocks.
    end: u64,
    /// How many nodes were read.
    nodes: usize,
}

impl<'a> Volume<'a> {
    /// The file system that begins at `start` and takes at most `length` bytes. Refuses what is none, and one with
    /// features that make it look otherwise than is known here.
    pub fn open(disk: &'a mut dyn ReadAt, start: u64, length: u64) -> Result<Self, Error> {
        let superblock = super::open(disk, start)?.filter(|found| found.length <= length);
        let superblock = superblock.ok_or_else(|| refused("it is no ext4"))?;
        if superblock.incompat & RECOVER != 0 {
            return Err(refused("its journal has not been written back")
                .advice("the image was made of a disk that was in use: fetch another one"));
        }
        if superblock.incompat & !KNOWN != 0 || superblock.block_size as usize > LARGEST_BLOCK {
            let why: Text<120> = crate::text!(
                "its features ({}, with blocks of {} bytes) are not known here",
                superblock.incompat,
                superblock.block_size
            );
            return Err(refused(&why));
        }
        Ok(Self { disk, start, superblock })
    }

    /// The inode of this number.
    pub fn inode(&mut self, number: u32) -> Result<Inode, Error> {
        let Superblock { inodes_per_group, descriptor_size, inode_size, .. } = self.superblock;
        let index = number.checked_sub(1).ok_or_else(damaged)?;
        // The descriptors of the groups begin in the block behind that of the superblock, which ends at byte 2048.
        let place = self.block_size().max(2048)
            + u64::from(index / inodes_per_group) * u64::from(descriptor_size);
        let mut descriptor = [0; 64];
        let length = (descriptor_size as usize).min(descriptor.len());
        self.read(place, descriptor.get_mut(..length).unwrap_or_default())?;
        let block =
            little_endian::<4>(&descriptor, 0x28) << 32 | little_endian::<4>(&descriptor, 8);
        let index = u64::from(index % inodes_per_group);
        let mut bytes = [0; 128];
        self.read(self.place_of(block)? + index * u64::from(inode_size), &mut bytes)?;
        Ok(Inode { bytes })
    }

    /// What has this path below a directory; nothing when a part of it is not there, or is no directory.
    pub fn find(&mut self, from: Inode, path: &[&str]) -> Result<Option<Inode>, Error> {
        let mut inode = from;
        for part in path {
            let mut found = None;
            self.for_each_entry(&inode, &mut |name, number| {
                if name == part.as_bytes() {
                    found = Some(number);
                }
            })?;
            let Some(number) = found else {
                return Ok(None);
            };
            inode = self.inode(number)?;
        }
        Ok(Some(inode))
    }

    /// The numbers of what a directory has, but for itself and what it is in. More than 64 are refused, not left out.
    pub fn entries(
        &mut self,
        directory: &Inode,
    ) -> Result<heapless::Vec<u32, MOST_DIRECTORIES>, Error> {
        let mut numbers = heapless::Vec::new();
        let mut is_full = false;
        self.for_each_entry(directory, &mut |name, number| {
            if name != b"." && name != b".." {
                is_full |= numbers.push(number).is_err();
            }
        })?;
        if is_full { Err(refused("a directory of layers has more than 64")) } else { Ok(numbers) }
    }

    /// Calls `visit` with the name and the number of each entry of a directory. Of what is none there are none. Large
    /// ones are read like small ones: the nodes of their trees look like empty blocks (directory.rst, Hash Tree
    /// Directories).
    fn for_each_entry(
        &mut self,
        directory: &Inode,
        visit: &mut dyn FnMut(&[u8], u32),
    ) -> Result<(), Error> {
        if directory.kind() != DIRECTORY {
            return Ok(());
        }
        if directory.length() > LONGEST_DIRECTORY {
            return Err(damaged());
        }
        let mut buffer = [0; LARGEST_BLOCK];
        let block = buffer.get_mut(..self.superblock.block_size as usize).unwrap_or_default();
        for extent in &self.extents(directory)? {
            let mut at = extent.start;
            let end = at + extent.length;
            while extent.start != 0 && at < end {
                self.disk.read_exact_at(at, block)?;
                visit_block(block, visit)?;
                at += block.len() as u64;
            }
        }
        Ok(())
    }

    /// Where a file's bytes lie, up to the end of its last block.
    pub fn extents(&mut self, inode: &Inode) -> Result<Extents, Error> {
        let flags = little_endian::<4>(&inode.bytes, 0x20);
        if flags & (ENCRYPTED | INLINE) != 0 || flags & EXTENTS == 0 {
            return Err(refused("a file in it is encrypted, or has no extents"));
        }
        let end = inode.length().div_ceil(self.block_size());
        let mut gathered = Gathered { extents: Extents::new(), next: 0, end, nodes: 0 };
        let root = inode.bytes.get(0x28..0x64).unwrap_or_default();
        let depth = little_endian::<2>(root, 6);
        if depth > DEEPEST {
            return Err(damaged());
        }
        self.gather(root, depth, &mut gathered)?;
        self.add(&mut gathered, end, 0, 0)?;
        Ok(gathered.extents)
    }

    /// Gathers what is below a node of a tree of extents (ifork.rst, Extent Tree).
    fn gather(&mut self, node: &[u8], depth: u64, gathered: &mut Gathered) -> Result<(), Error> {
        let count = little_endian::<2>(node, 2) as usize;
        gathered.nodes += 1;
        if little_endian::<2>(node, 0) != 0xf30a
            || little_endian::<2>(node, 6) != depth
            || gathered.nodes > MOST_NODES
        {
            return Err(damaged());
        }
        let entries = node.get(12..).and_then(|entries| entries.get(..12 * count));
        for entry in entries.ok_or_else(damaged)?.chunks_exact(12) {
            let word = |at| little_endian::<4>(entry, at);
            if depth > 0 {
                let place = self.place_of(little_endian::<2>(entry, 8) << 32 | word(4))?;
                let mut buffer = [0; LARGEST_BLOCK];
                let size = self.superblock.block_size as usize;
                let below = buffer.get_mut(..size).unwrap_or_default();
                self.read(place, below)?;
                self.gather(below, depth - 1, gathered)?;
                continue;
            }
            // One that was allocated and never written reads as zeros.
            let length = little_endian::<2>(entry, 4);
            let (length, is_written) =
                if length > 0x8000 { (length - 0x8000, false) } else { (length, true) };
            let physical = little_endian::<2>(entry, 6) << 32 | word(8);
            if physical == 0 {
                return Err(damaged());
            }
            self.add(gathered, word(0), if is_written { physical } else { 0 }, length)?;
        }
        Ok(())
    }

    /// Adds so many blocks of a file, from its block `at` on, that lie at a block of the file system; a hole for those
    /// that were left out before.
    fn add(
        &self,
        gathered: &mut Gathered,
        at: u64,
        physical: u64,
        length: u64,
    ) -> Result<(), Error> {
        let at = at.min(gathered.end);
        let hole = at.checked_sub(gathered.next).ok_or_else(damaged)?;
        let length = length.min(gathered.end - at);
        gathered.next = at + length;
        for (physical, blocks) in [(0, hole), (physical, length)] {
            if blocks == 0 {
                continue;
            }
            let bytes = blocks * self.block_size();
            let mut start = 0;
            if physical != 0 {
                // Its last block lies within, too.
                self.place_of(physical + blocks - 1)?;
                start = self.start + self.place_of(physical)?;
            }
            let extent = Extent { start, length: bytes };
            match gathered.extents.last_mut() {
                Some(last) if start == 0 && last.start == 0 => last.length += bytes,
                Some(last) if start != 0 && start == last.start + last.length => {
                    last.length += bytes;
                }
                _ => gathered
                    .extents
                    .push(extent)
                    .map_err(|_| refused("a file in it is in more than 256 pieces"))?,
            }
        }
        Ok(())
    }

    fn block_size(&self) -> u64 {
        self.superblock.block_size.into()
    }

    /// Where a block begins, from the start of the file system; it lies within that.
    fn place_of(&self, block: u64) -> Result<u64, Error> {
        let place = block.checked_mul(self.block_size());
        place.filter(|place| *place < self.superblock.length).ok_or_else(damaged)
    }

    /// Reads bytes at a place of the file system.
    fn read(&mut self, place: u64, bytes: &mut [u8]) -> Result<(), Error> {
        if place + bytes.len() as u64 > self.superblock.length {
            return Err(damaged());
        }
        self.disk.read_exact_at(self.start + place, bytes)
    }
}

/// The entries of one block of a directory (directory.rst, Linear Directories).
fn visit_block(block: &[u8], visit: &mut dyn FnMut(&[u8], u32)) -> Result<(), Error> {
    let mut rest = block;
    while !rest.is_empty() {
        let (number, length) = (little_endian::<4>(rest, 0), little_endian::<2>(rest, 4) as usize);
        let name = rest.get(8..).and_then(|name| name.get(..little_endian::<1>(rest, 6) as usize));
        let (Some(name), Some(behind)) = (name, rest.get(length..).filter(|_| length >= 8)) else {
            return Err(damaged());
        };
        // 0: a free place, or the checksum of the block.
        if number != 0 {
            visit(name, number as u32);
        }
        rest = behind;
    }
    Ok(())
}

fn refused(why: &str) -> Error {
    Error::refused(DOING, OBJECT, why)
}

#[cold]
fn damaged() -> Error {
    refused("it is damaged").advice("fetch the image again")
}
