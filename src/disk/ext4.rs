//! The superblock of ext2, ext3 and ext4: is it one, what is its label, how much is free
//! (Documentation/filesystems/ext4/super.rst in Linux). Where a file of it lies is found by [`lookup`].

pub mod lookup;

use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

const HAS_JOURNAL: u32 = 0x4;
const COMPRESSION: u32 = 0x1;
const JOURNAL_DEV: u32 = 0x8;
const WITH_64_BITS: u32 = 0x80;

/// The feature words of an ext file system, and its blocks: by these a kernel decides whether to mount it, and whether
/// for writing (ext4_feature_set_ok() in fs/ext4/super.c).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Features {
    /// What a kernel need not know.
    pub compat: u32,
    /// Without which a kernel does not mount.
    pub incompat: u32,
    /// Without which a kernel mounts for reading only.
    pub ro_compat: u32,
    /// Bytes a block: a power of two.
    pub block_size: u32,
}

/// What a superblock says.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The volume's label.
    pub label: Text<16>,
    /// The bytes that files can have: what is free without what is reserved.
    pub free: u64,
    /// The bytes that the file system takes: a shorter device is not mounted.
    pub length: u64,
    /// Bytes a block: 1 to 64 KiB.
    pub block_size: u32,
    /// Bytes an inode: 128 to a block.
    pub inode_size: u32,
    /// Bytes a group descriptor: 32, or with the feature 64bit 64 to 1024.
    pub descriptor_size: u32,
    /// How many inodes a group has.
    pub inodes_per_group: u32,
    /// 0, or 1 for one with the feature words.
    pub revision: u32,
    /// Features that a kernel need not know.
    pub compat: u32,
    /// Features without which a kernel does not mount.
    pub incompat: u32,
    /// Features without which a kernel mounts for reading only.
    pub ro_compat: u32,
}

impl Superblock {
    /// What decides whether a kernel mounts it.
    pub fn features(&self) -> Features {
        let Self { compat, incompat, ro_compat, block_size, .. } = *self;
        Features { compat, incompat, ro_compat, block_size }
    }
}

/// The superblock of the ext file system that begins at `start`, or nothing when there is none.
pub fn open(disk: &mut dyn ReadAt, start: u64) -> Result<Option<Superblock>, Error> {
    let mut superblock = [0; 512];
    disk.read_exact_at(start + 1024, &mut superblock)?;
    Ok(parse(&superblock))
}

/// The label of the ext file system that begins at `start`, or nothing when there is none.
pub fn label(disk: &mut dyn ReadAt, start: u64) -> Result<Option<Text<16>>, Error> {
    Ok(open(disk, start)?.map(|superblock| superblock.label))
}

fn parse(bytes: &[u8]) -> Option<Superblock> {
    let word = |at| little_endian::<4>(bytes, at) as u32;
    let block_shift = word(0x18);
    if little_endian::<2>(bytes, 0x38) != 0xef53 || block_shift > 6 {
        return None;
    }
    let block_size = 1024 << block_shift;
    let (revision, incompat) = (word(0x4c), word(0x60));
    let is_wide = incompat & WITH_64_BITS != 0;
    let number = |low, high| {
        let upper = if is_wide { u64::from(word(high)) } else { 0 };
        upper << 32 | u64::from(word(low))
    };
    let blocks = number(0x4, 0x150);
    // For root, and what the kernel keeps back since 3.10: ext4_calculate_resv_clusters() in fs/ext4/super.c.
    let reserved = number(0x8, 0x154).saturating_add((blocks / 50).min(4096));
    let free = number(0xc, 0x158).min(blocks).saturating_sub(reserved);
    let name = bytes.get(0x78..0x88).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let superblock = Superblock {
        label: crate::text::printable(name.get(..end).unwrap_or_default()),
        free: free.saturating_mul(block_size.into()),
        length: blocks.saturating_mul(block_size.into()),
        block_size,
        inode_size: if revision == 0 { 128 } else { little_endian::<2>(bytes, 0x58) as u32 },
        descriptor_size: if is_wide { little_endian::<2>(bytes, 0xfe) as u32 } else { 32 },
        inodes_per_group: word(0x28),
        revision,
        compat: word(0x5c),
        incompat,
        ro_compat: word(0x64),
    };
    can_be_mounted(&superblock, bytes).then_some(superblock)
}

/// False for what no kernel mounts, or not for writing, whatever it was built with (ext4_fill_super() in
/// fs/ext4/super.c of Linux). Whether this kernel knows all features, only a mount can tell.
fn can_be_mounted(superblock: &Superblock, bytes: &[u8]) -> bool {
    let word = |at| little_endian::<4>(bytes, at) as u32;
    let Superblock { block_size, inode_size, descriptor_size, inodes_per_group, .. } = *superblock;
    let (inodes, first_block, per_group) = (word(0x0), word(0x14), word(0x20));
    // A journal of its own is an inode; one on another device would have to be there, too.
    let has_journal = superblock.compat & HAS_JOURNAL == 0 || word(0xe0) != 0;
    superblock.revision <= 1
        && superblock.incompat & (COMPRESSION | JOURNAL_DEV) == 0
        && has_journal
        && inode_size.is_power_of_two()
        && (128..=block_size).contains(&inode_size)
        && descriptor_size.is_power_of_two()
        && (32..=1024).contains(&descriptor_size)
        && (superblock.incompat & WITH_64_BITS == 0 || descriptor_size >= 64)
        && u64::from(first_block) * u64::from(block_size) < superblock.length
        && inodes != 0
        && per_group != 0
        && (1..=8 * block_size).contains(&inodes_per_group)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts the superblock of an ext4 file system of four blocks of 1 KiB at a place, with this label.
    pub fn format(disk: &mut [u8], start: usize, label: &str) {
        let superblock = &mut disk[start + 1024..start + 2048];
        superblock.fill(0);
        for (at, value) in
            [(0x0, 16u32), (0x4, 4), (0x14, 1), (0x20, 8192), (0x28, 16), (0x4c, 1), (0x58, 128)]
        {
            superblock[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        superblock[0x78..0x78 + label.len()].copy_from_slice(label.as_bytes());
    }

    /// The superblock with these words changed.
    fn with(fields: &[(usize, u32)]) -> Option<Superblock> {
        let mut disk = vec![0; 4096];
        format(&mut disk, 0, "");
        for (at, value) in fields {
            disk[1024 + at..1028 + at].copy_from_slice(&value.to_le_bytes());
        }
        open(&mut disk, 0).unwrap()
    }

    #[test]
    fn label_of_a_superblock() {
        let mut disk = vec![0u8; 4096];
        assert_eq!(label(&mut disk, 0).unwrap(), None);
        format(&mut disk, 0, "resin-boot");
        assert_eq!(&*label(&mut disk, 0).unwrap().unwrap(), "resin-boot");
    }

    #[test]
    fn free_space_is_what_files_can_have() {
        let free = |fields: &[(usize, u32)]| with(fields).map(|superblock| superblock.free);
        // 192 MiB in blocks of 4 KiB, 5 % for root.
        let usual = [(0x4, 49_152), (0x8, 2457), (0xc, 10_000), (0x18, 2), (0x158, 7)];
        assert_eq!(free(&usual), Some((10_000 - 2457 - 983) * 4096));
        // The upper halves count only with the feature.
        let wide = [&usual[..], &[(0x60, 0x80), (0x150, 8), (0xfe, 64)]].concat();
        assert_eq!(free(&wide), Some(((7 << 32) + 10_000 - 2457 - 4096) * 4096));
        assert_eq!(free(&[(0x4, 1000), (0xc, 10), (0x8, 900)]), Some(0));
        assert_eq!(free(&[(0x4, 1000), (0xc, u32::MAX)]), Some(980 * 1024));
        assert_eq!(free(&[(0x18, 7)]), None);
    }

    #[test]
    fn what_a_rehearsal_has_to_make_the_same() {
        let found = with(&[
            (0x4, 100),
            (0x18, 2),
            (0x58, 256),
            (0x5c, 0x3c),
            (0x60, 0x2c6),
            (0x64, 0x46b),
            (0xe0, 8),
            (0xfe, 64),
        ])
        .unwrap();
        assert_eq!((found.compat, found.incompat, found.ro_compat), (0x3c, 0x2c6, 0x46b));
        assert_eq!((found.block_size, found.inode_size, found.descriptor_size), (4096, 256, 64));
        assert_eq!((found.length, found.revision), (409_600, 1));
        let old = with(&[(0x4c, 0), (0x58, 0)]).unwrap();
        assert_eq!((old.inode_size, old.descriptor_size, old.revision), (128, 32, 0));
    }

    #[test]
    fn what_no_kernel_mounts_is_no_file_system() {
        let cases: [(&str, &[(usize, u32)]); 16] = [
            ("the journal of another file system", &[(0x60, 0x8)]),
            ("compressed", &[(0x60, 0x1)]),
            ("revision 2", &[(0x4c, 2)]),
            ("no blocks", &[(0x4, 0)]),
            ("no block behind the first", &[(0x4, 1)]),
            ("no inodes", &[(0x0, 0)]),
            ("no blocks in a group", &[(0x20, 0)]),
            ("no inodes in a group", &[(0x28, 0)]),
            ("more inodes in a group than a bitmap has bits", &[(0x28, 8193)]),
            ("inodes of 64 bytes", &[(0x58, 64)]),
            ("inodes of 0 bytes", &[(0x58, 0)]),
            ("inodes of 192 bytes", &[(0x58, 192)]),
            ("inodes of 2 KiB in blocks of 1 KiB", &[(0x58, 2048)]),
            ("wide with descriptors of 32 bytes", &[(0x60, 0x80), (0xfe, 32)]),
            ("wide with descriptors of 96 bytes", &[(0x60, 0x80), (0xfe, 96)]),
            ("a journal on another device", &[(0x5c, 0x4)]),
        ];
        assert!(with(&[]).is_some());
        for (what, fields) in cases {
            assert!(with(fields).is_none(), "{what}");
        }
    }
}
