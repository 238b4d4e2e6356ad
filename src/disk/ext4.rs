//! The superblock of ext2, ext3 and ext4: is it one, and what is its label
//! (Documentation/filesystems/ext4/super.rst in Linux).

use super::little_endian;
use crate::error::Error;
use crate::image::reader::ReadAt;
use crate::text::Text;

/// The label of the ext file system that begins at `start`, or nothing when there is none.
pub fn label(disk: &mut impl ReadAt, start: u64) -> Result<Option<Text<16>>, Error> {
    let mut superblock = [0; 256];
    disk.read_exact_at(start + 1024, &mut superblock)?;
    if little_endian::<2>(&superblock, 56) != 0xef53 {
        return Ok(None);
    }
    let name = superblock.get(120..136).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(Some(crate::text::printable(name.get(..end).unwrap_or_default())))
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
}
