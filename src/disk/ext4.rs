//! The superblock of ext2, ext3 and ext4: is it one, what is its label, how much is free
//! (Documentation/filesystems/ext4/super.rst in Linux).

use super::reader::ReadAt;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

/// What a superblock says.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The volume's label.
    pub label: Text<16>,
    /// The bytes that files can have: what is free without what is reserved.
    pub free: u64,
}

/// The superblock of the ext file system that begins at `start`, or nothing when there is none.
pub fn open(disk: &mut impl ReadAt, start: u64) -> Result<Option<Superblock>, Error> {
    let mut superblock = [0; 512];
    disk.read_exact_at(start + 1024, &mut superblock)?;
    Ok(parse(&superblock))
}

/// The label of the ext file system that begins at `start`, or nothing when there is none.
pub fn label(disk: &mut impl ReadAt, start: u64) -> Result<Option<Text<16>>, Error> {
    Ok(open(disk, start)?.map(|superblock| superblock.label))
}

fn parse(superblock: &[u8]) -> Option<Superblock> {
    const WITH_64_BITS: u64 = 0x80;
    let block_shift = little_endian::<4>(superblock, 0x18);
    // Blocks have 1 to 64 KiB.
    if little_endian::<2>(superblock, 0x38) != 0xef53 || block_shift > 6 {
        return None;
    }
    let wide = little_endian::<4>(superblock, 0x60) & WITH_64_BITS != 0;
    let number = |low, high| {
        let upper = if wide { little_endian::<4>(superblock, high) } else { 0 };
        upper << 32 | little_endian::<4>(superblock, low)
    };
    let blocks = number(0x4, 0x150);
    // For root, and what the kernel keeps back since 3.10: ext4_calculate_resv_clusters() in fs/ext4/super.c.
    let reserved = number(0x8, 0x154).saturating_add((blocks / 50).min(4096));
    let free = number(0xc, 0x158).min(blocks).saturating_sub(reserved);
    let name = superblock.get(0x78..0x88).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(Superblock {
        label: crate::text::printable(name.get(..end).unwrap_or_default()),
        free: free.saturating_mul(1024 << block_shift),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_of_a_superblock() {
        let mut disk = vec![0u8; 4096];
        assert_eq!(label(&mut disk, 0).unwrap(), None);
        disk[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        disk[1024 + 120..1024 + 130].copy_from_slice(b"resin-boot");
        assert_eq!(&*label(&mut disk, 0).unwrap().unwrap(), "resin-boot");
    }

    #[test]
    fn free_space_is_what_files_can_have() {
        let superblock = |fields: &[(usize, u32)]| {
            let mut bytes = vec![0u8; 512];
            bytes[56..58].copy_from_slice(&[0x53, 0xef]);
            for (at, value) in fields {
                bytes[*at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            parse(&bytes).map(|superblock| superblock.free)
        };
        // 192 MiB in blocks of 4 KiB, 5 % for root.
        let usual = [(0x4, 49_152), (0x8, 2457), (0xc, 10_000), (0x18, 2), (0x158, 7)];
        assert_eq!(superblock(&usual), Some((10_000 - 2457 - 983) * 4096));
        // The upper halves count only with the feature.
        let wide = [&usual[..], &[(0x60, 0x80), (0x150, 8)]].concat();
        assert_eq!(superblock(&wide), Some(((7 << 32) + 10_000 - 2457 - 4096) * 4096));
        assert_eq!(superblock(&[(0x4, 1000), (0xc, 10), (0x8, 900)]), Some(0));
        assert_eq!(superblock(&[(0x4, 1000), (0xc, u32::MAX)]), Some(980 * 1024));
        assert_eq!(superblock(&[(0x18, 7)]), None);
    }
}
