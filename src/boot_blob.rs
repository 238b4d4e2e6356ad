//! The boot blob of a Jetson: its loaders, which lie outside of the disk that the image becomes, and which the image
//! has in a file of its root file system. What it is written to, and where it lies.
//!
//! Stage 1 makes it, and leaves it for stage 2 as bytes: that reads the blob from the disk that was flashed, with
//! nothing mounted, and knows by its CRC that it is the one that stage 1 has seen.

use crate::bytes::little_endian;
use crate::disk::ext4::lookup::{self, Extent, Extents};

/// What a blob is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// The first boot area of the eMMC: AGX Xavier.
    Emmc,
    /// The QSPI NOR flash: Xavier NX.
    Nor,
}

/// Each by its number in a record.
const DEVICES: [Device; 2] = [Device::Emmc, Device::Nor];

impl Device {
    /// The kernel's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Device::Emmc => "mmcblk0boot0",
            Device::Nor => "mtd0",
        }
    }

    /// Its class in /sys.
    pub const fn class(self) -> &'static str {
        match self {
            Device::Emmc => "block",
            Device::Nor => "mtd",
        }
    }
}

/// The device that a blob is written to, as stage 1 has found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// Which it is.
    pub device: Device,
    /// Its size in bytes.
    pub size: u64,
    /// What is compared and written at once, in bytes: of a flash, a block that is erased as a whole.
    pub unit: u64,
}

/// A blob, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootBlob {
    /// What it is written to, from the beginning on.
    pub area: Area,
    /// Its length in bytes.
    pub length: u64,
    /// Its CRC-32.
    pub crc: u32,
    /// Where it lies on the disk that the image has become.
    pub extents: Extents,
}

/// The longest record, in bytes.
pub const LONGEST: usize = FIELD * (HEAD + 2 * lookup::MOST_EXTENTS);
/// How many bytes a number of a record has.
const FIELD: usize = 8;
/// How many numbers stand before those of the extents.
const HEAD: usize = 5;

impl BootBlob {
    /// As bytes: device, its size and unit, length and CRC of the blob, then start and length of each extent.
    pub fn to_bytes(&self) -> heapless::Vec<u8, LONGEST> {
        let Area { device, size, unit } = self.area;
        let head = [device as u64, size, unit, self.length, self.crc.into()];
        let extents = self.extents.iter().flat_map(|extent| [extent.start, extent.length]);
        let mut bytes = heapless::Vec::new();
        for number in head.into_iter().chain(extents) {
            // LONGEST is the sum of all that is put here.
            let _ = bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// From those bytes; nothing when they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes.chunks_exact(FIELD).map(|field| little_endian::<FIELD>(field, 0));
        let device = *DEVICES.get(usize::try_from(numbers.next()?).ok()?)?;
        let (size, unit) = (numbers.next()?, numbers.next()?);
        let (length, crc) = (numbers.next()?, u32::try_from(numbers.next()?).ok()?);
        let mut extents = Extents::new();
        let mut end = 0;
        while let Some(start) = numbers.next() {
            let extent = Extent { start, length: numbers.next()? };
            extent.start.checked_add(extent.length)?;
            end = extent.length.checked_add(end)?;
            extents.push(extent).ok()?;
        }
        let is_whole = end >= length && unit > 0 && bytes.len().is_multiple_of(FIELD);
        is_whole.then_some(Self { area: Area { device, size, unit }, length, crc, extents })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A blob of so many bytes with this CRC, in these extents.
    pub fn blob(length: u64, crc: u32, extents: &[(u64, u64)]) -> BootBlob {
        let area = Area { device: Device::Emmc, size: 1 << 22, unit: 1 << 20 };
        let extents =
            extents.iter().map(|(start, length)| Extent { start: *start, length: *length });
        BootBlob { area, length, crc, extents: extents.collect() }
    }

    #[test]
    fn a_blob_comes_back_as_it_was_and_damage_is_found_out() {
        let many: Vec<_> = (1..=lookup::MOST_EXTENTS as u64).map(|n| (n << 40, 4096)).collect();
        let mut nor = blob(4000, u32::MAX, &[(u64::MAX - 4096, 4096)]);
        nor.area = Area { device: Device::Nor, size: 1 << 25, unit: 4096 };
        for blob in [nor, blob(1 << 20, 7, &many), blob(1, 0, &[(0, 1024)])] {
            let bytes = blob.to_bytes();
            assert!(bytes.len() <= LONGEST);
            assert_eq!(BootBlob::from_bytes(&bytes).as_ref(), Some(&blob));
            for length in 0..bytes.len() {
                let is_whole = (blob.extents.len() > 1) && length >= (1 << 20) / 4096 * 16 + 40;
                assert!(is_whole || BootBlob::from_bytes(&bytes[..length]).is_none(), "{length}");
            }
        }
        let bytes = blob(10, 0, &[(0, 1024)]).to_bytes();
        // Another device, a unit of nothing, a blob that is longer than its extents, a CRC of more than 32 bits.
        for (at, value) in [(0, 2), (16, 0), (18, 0), (25, 5), (36, 1)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            let is_same = wrong == bytes;
            assert_eq!(BootBlob::from_bytes(&wrong).is_some(), is_same || at == 16, "{at}");
        }
        assert_eq!(BootBlob::from_bytes(&[0xff; LONGEST + FIELD]), None);
    }

    #[test]
    fn each_device_has_its_number() {
        for (number, device) in DEVICES.iter().enumerate() {
            assert_eq!(*device as usize, number);
        }
    }
}
