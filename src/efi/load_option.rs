//! EFI_LOAD_OPTION: what a `Boot####` variable holds (UEFI specification 2.10, section 3.1.3).
//!
//! Attributes (4 bytes), the length of the device paths (2), a description in UTF-16 that ends in a NUL, the device
//! paths, and data for what is started. A device path is a list of nodes (section 10.2): type, subtype, length (2) with
//! these four bytes counted, then the node's own bytes.

use crate::bytes::little_endian;
use crate::text::{self, Text};

/// The longest load option that is made here, in bytes.
pub const LONGEST: usize = 192;

/// LOAD_OPTION_ACTIVE: the firmware tries it (section 3.1.3).
const ACTIVE: u32 = 1;
/// Types of nodes (sections 10.3.1, 10.3.5), the last in both of its spellings (EFI 1.10 had 0xff, section 10.3.1).
const MEDIA: u8 = 4;
const END: u8 = 0x7f;
/// Subtypes: a partition (10.3.5.1), a file (10.3.5.4), the end of all paths (10.3.1).
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const ENTIRE: u8 = 0xff;
/// The length of a node's head, and of that of a partition, in bytes.
const HEAD: usize = 4;
const HARD_DRIVE_LENGTH: usize = 42;
/// How a partition is told from all others: by the signature of its disk, or by a GUID of its own.
const BY_MBR: u8 = 1;
const BY_GPT: u8 = 2;

/// What tells a partition, or its disk, from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signature {
    /// The signature of a disk with an MBR: the four bytes at 440 of its first sector.
    Mbr(u32),
    /// The GUID of a partition of a GPT, as it is stored.
    Gpt([u8; 16]),
}

impl Signature {
    /// True for zeros, which tell nothing from anything.
    pub fn is_nothing(self) -> bool {
        matches!(self, Signature::Mbr(0)) || self == Signature::Gpt([0; 16])
    }
}

/// A partition, as a device path names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HardDrive {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Where it begins, in logical blocks.
    pub start: u64,
    /// Its length in logical blocks.
    pub length: u64,
    /// What tells it from all others.
    pub signature: Signature,
}

/// What is looked at of a load option.
pub struct LoadOption {
    /// Its name in the menu of the firmware, control characters shown as `?`.
    pub description: Text<64>,
    /// The partition that it starts from, when it names one.
    pub partition: Option<HardDrive>,
}

/// Reads a load option, or the beginning of one that has its device path in it; nothing when it makes no sense.
pub fn parse(bytes: &[u8]) -> Option<LoadOption> {
    let (head, rest) = bytes.split_at_checked(6)?;
    let description = rest.chunks_exact(2).position(|unit| unit == [0, 0])?;
    let (description, rest) = rest.split_at_checked(2 * description)?;
    let paths = rest.get(2..)?.get(..little_endian::<2>(head, 4) as usize)?;
    Some(LoadOption { description: text::utf16(description), partition: partition(paths)? })
}

/// The partition that the first device path names: what follows the first is the firmware's own. Nothing at all when
/// the path does not come to its end.
fn partition(mut path: &[u8]) -> Option<Option<HardDrive>> {
    let mut found = None;
    loop {
        let [kind, subtype, ..] = *path else { return None };
        let length = little_endian::<2>(path, 2) as usize;
        let node = path.get(..length).filter(|node| node.len() >= HEAD)?;
        if kind & END == END {
            return Some(found);
        }
        if (kind, subtype) == (MEDIA, HARD_DRIVE) {
            found = hard_drive(node).or(found);
        }
        path = path.get(length..)?;
    }
}

fn hard_drive(node: &[u8]) -> Option<HardDrive> {
    let (_, signature) = node.get(..HARD_DRIVE_LENGTH)?.split_at_checked(24)?;
    let (guid, kinds) = signature.split_first_chunk::<16>()?;
    let signature = match kinds {
        [_, BY_MBR] => Signature::Mbr(little_endian::<4>(guid, 0) as u32),
        [_, BY_GPT] => Signature::Gpt(*guid),
        _ => return None,
    };
    Some(HardDrive {
        number: little_endian::<4>(node, 4) as u32,
        start: little_endian::<8>(node, 8),
        length: little_endian::<8>(node, 16),
        signature,
    })
}

/// The bytes of a load option.
pub type Bytes = heapless::Vec<u8, LONGEST>;

/// Makes a load option that starts `file` (absolute, with backslashes) of a partition. Nothing when it gets longer than
/// [`LONGEST`].
///
/// The path begins with the partition: the firmware looks for it on all its disks (section 3.1.2), wherever they are
/// plugged in.
pub fn build(description: &str, partition: &HardDrive, file: &str) -> Option<Bytes> {
    let (kind, guid) = match partition.signature {
        Signature::Gpt(guid) => (BY_GPT, guid),
        Signature::Mbr(signature) => {
            let mut guid = [0; 16];
            guid.first_chunk_mut().map(|first| *first = signature.to_le_bytes())?;
            (BY_MBR, guid)
        }
    };
    let file_length = HEAD + 2 * (file.len() + 1);
    let mut bytes = Bytes::new();
    let mut put = |piece: &[u8]| bytes.extend_from_slice(piece).ok();
    put(&ACTIVE.to_le_bytes())?;
    put(&((HARD_DRIVE_LENGTH + file_length + HEAD) as u16).to_le_bytes())?;
    put_utf16(description, &mut put)?;
    put(&[MEDIA, HARD_DRIVE, HARD_DRIVE_LENGTH as u8, 0])?;
    put(&partition.number.to_le_bytes())?;
    put(&partition.start.to_le_bytes())?;
    put(&partition.length.to_le_bytes())?;
    put(&guid)?;
    // The format of the table has the same numbers as the kind of signature.
    put(&[kind, kind])?;
    put(&[MEDIA, FILE_PATH])?;
    put(&(file_length as u16).to_le_bytes())?;
    put_utf16(file, &mut put)?;
    put(&[END, ENTIRE, HEAD as u8, 0])?;
    Some(bytes)
}

/// ASCII as UTF-16 with a NUL at the end.
fn put_utf16(ascii: &str, put: &mut dyn FnMut(&[u8]) -> Option<()>) -> Option<()> {
    ascii.bytes().try_for_each(|byte| put(&[byte, 0]))?;
    put(&[0, 0])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What Debian's installer made under OVMF (edk2 2022.11): `debian`, on a GPT, GRUB's file.
    pub fn debian() -> Vec<u8> {
        let text = "01000000 6200 640065006200690061006e000000 \
            04012a00 01000000 0008000000000000 0000100000000000 f3eb8d5aeb0d7149ae8d3e8cd79bb2a7 0202 \
            04043400 5c004500460049005c00640065006200690061006e005c007300680069006d007800360034002e0065006600690000 00 \
            7fff0400";
        unhex(text)
    }

    /// What OVMF itself makes of a disk without an entry: the device, and a GUID of its own as data.
    pub fn of_firmware() -> Vec<u8> {
        unhex(
            "01000000 2600 55004500460049002000510045004d00550020004e0056004d00650000 00 \
             02010c00d041030a00000000 0101060000 04 03171000010000000000000000000000 7fff0400 \
             4eac0881119f594d850ee21a522c59b2",
        )
    }

    pub fn unhex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn what_other_tools_made_is_read() {
        let option = parse(&debian()).unwrap();
        assert_eq!(&*option.description, "debian");
        let guid = unhex("f3eb8d5aeb0d7149ae8d3e8cd79bb2a7").try_into().unwrap();
        let signature = Signature::Gpt(guid);
        let wanted = HardDrive { number: 1, start: 2048, length: 1 << 20, signature };
        assert_eq!(option.partition, Some(wanted));
        let option = parse(&of_firmware()).unwrap();
        assert_eq!((&*option.description, option.partition), ("UEFI QEMU NVMe", None));
    }

    #[test]
    fn what_is_made_is_what_other_tools_make() {
        let guid = unhex("f3eb8d5aeb0d7149ae8d3e8cd79bb2a7").try_into().unwrap();
        let signature = Signature::Gpt(guid);
        let partition = HardDrive { number: 1, start: 2048, length: 1 << 20, signature };
        let built = build("debian", &partition, "\\EFI\\debian\\shimx64.efi").unwrap();
        assert_eq!(&built[..], &debian()[..]);
    }

    #[test]
    fn what_is_made_comes_back() {
        let guid = core::array::from_fn(|index| index as u8);
        for signature in [Signature::Gpt(guid), Signature::Mbr(0xba1e_0a05)] {
            let partition = HardDrive { number: 5, start: u64::MAX, length: 1 << 40, signature };
            let built = build("balenaOS", &partition, "\\EFI\\BOOT\\BOOTAA64.EFI").unwrap();
            let option = parse(&built).unwrap();
            assert_eq!(&*option.description, "balenaOS");
            assert_eq!(option.partition, Some(partition));
        }
        let partition = HardDrive { number: 1, start: 0, length: 0, signature: Signature::Mbr(1) };
        assert!(build("x", &partition, &"f".repeat(LONGEST)).is_none());
    }

    #[test]
    fn the_partition_is_found_behind_the_controller_and_not_in_a_second_path() {
        let debian = debian();
        let (head, paths) = debian.split_at(20);
        let with = |paths: &[u8]| {
            let mut bytes = head.to_vec();
            bytes[4..6].copy_from_slice(&(paths.len() as u16).to_le_bytes());
            bytes.extend(paths);
            parse(&bytes).map(|option| option.partition.is_some())
        };
        let controller = unhex("02010c00d041030a00000000 01010600 0004");
        let end_of_instance = unhex("7f010400");
        assert_eq!(with(&[&controller, paths].concat()), Some(true));
        assert_eq!(with(&[&controller, &end_of_instance, paths].concat()), Some(false));
        assert_eq!(with(&unhex("ffff0400")), Some(false));
    }

    #[test]
    fn what_is_cut_or_lies_makes_no_sense() {
        let whole = debian();
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_none(), "{length}");
        }
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            parse(&bytes)
        };
        // Whatever a byte is, there is an answer.
        for at in 0..whole.len() {
            for value in [0, 1, 3, 4, 5, 0x7f, 0x80, 0xff] {
                changed(at, value);
            }
        }
        // The length of the paths, of a node: none, less than its head, beyond the end.
        for (at, value) in [(4, 0xff), (4, 0x61), (22, 0), (22, 3), (22, 0xff), (23, 0xff)] {
            assert!(changed(at, value).is_none(), "{at} {value}");
        }
        // A partition's node that is too short, or of a kind that nobody knows, names none.
        assert!(changed(61, 0).is_some_and(|option| option.partition.is_none()));
    }
}
