//! Which boot entry the new OS gets, and which go with the old one.
//!
//! The firmware tries its entries in their order. Those of the old OS lead to partitions that are no more, and another
//! disk may come before the target where there is no entry at all. So the new OS gets one of its own, for the file that
//! the firmware would find by itself, too: without an entry `EFI/BOOT` is what is left, and whether the image has that
//! is checked in `compatible`.

use super::report::Report;
use crate::balena::devices::Processor;
use crate::balena::layout::LOADERS;
use crate::cli::{Flag, Options};
use crate::disk::device::Disk;
use crate::disk::table::{Kind, SECTOR, Table};
use crate::efi::change::{self, Change, MOST};
use crate::efi::load_option::{self, HardDrive, Signature};
use crate::efi::variables::Variables;
use crate::error::Error;
use crate::new_os::examination::Examined;
use crate::stage1::look::boot_entries::{self, Place};
use crate::stage1::look::identity::Identity;
use crate::text::Text;

/// What other tools call the entry of a balenaOS, now and formerly: ours is called by the first.
const BALENA_OS: [&str; 2] = ["balenaOS", "resinOS"];
/// What the entry of any other image is called. No entry goes for this name: it may be of another disk.
const OTHER: &str = "takeover";
/// What an entry takes of the store beyond its own bytes: the heads of two variables, their names, and BootOrder.
const OVERHEAD: u64 = 512;

/// What becomes of the boot entries.
pub struct BootEntry {
    /// In words, for the page.
    pub text: Text<80>,
    /// What stage 2 changes, if anything.
    pub change: Option<Change>,
    /// The entries that go, by their names.
    pub gone: heapless::Vec<Text<80>, MOST>,
}

/// Decides it. What the firmware may refuse is a warning: it can be done without.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn decide(
    options: &Options,
    identity: &Identity,
    target: &Disk,
    image: &Examined<'_>,
    has_blob: bool,
    report: &mut Report,
) -> BootEntry {
    if let Some(why) = reason_for_none(options, identity, has_blob) {
        return none(why);
    }
    let layout = &image.layout;
    let (label, labels): (_, &[&str]) =
        if layout.is_balena_os() { (BALENA_OS[0], &BALENA_OS) } else { (OTHER, &[]) };
    let loader = loader_for(identity.processor, identity.efi_bits);
    let number = loader.and_then(|loader| layout.loader_partitions.get(loader)).copied();
    let partition = number.and_then(|number| hard_drive(&image.table, number));
    if partition.is_some_and(|found| found.signature.is_nothing()) {
        return none("none: the image's partition table has no signature to be found by");
    }
    let name = loader.and_then(|loader| LOADERS.get(loader)).copied().unwrap_or_default();
    let file: Text<32> = crate::text!("\\EFI\\BOOT\\{}", name);
    let Some(option) = partition.and_then(|found| load_option::build(label, &found, &file)) else {
        return none("none: which file the firmware would start is not known");
    };
    let Some(place) = Place::find() else {
        report.warn(
            "no boot entry can be made: the kernel shows no variables of the firmware (noefi, a real-time kernel, \
             a firmware without them); it must find EFI/BOOT by itself",
        );
        return none("none: there are no EFI variables");
    };
    warn_of_store(&place, option.len() as u64 + OVERHEAD, report);
    let mut unknown = |error: Error| {
        let text: Text<240> =
            crate::text!("which boot entries the old OS has cannot be told: {}", error);
        report.warn(&text);
    };
    let table = boot_entries::table_of(target).map_err(&mut unknown).ok();
    let variables = Variables { folder: &place.path };
    let found = boot_entries::that_go(&variables, labels, table.as_ref()).map_err(&mut unknown);
    let text = crate::text!("{}, the first in the boot order", label);
    let mut change = Change { gone: heapless::Vec::new(), option };
    let mut gone = heapless::Vec::new();
    for found in found.unwrap_or_default() {
        // Both have room for as many as were found.
        let _ = change.gone.push(found.entry);
        let _ = gone.push(crate::text!("{} ({})", change::name_of(found.entry.number), found.name));
    }
    BootEntry { text, change: Some(change), gone }
}

fn none(why: &str) -> BootEntry {
    BootEntry { text: Text::from(why), change: None, gone: heapless::Vec::new() }
}

/// Why no entry is made, where that does not depend on the image.
fn reason_for_none(options: &Options, identity: &Identity, has_blob: bool) -> Option<&'static str> {
    if has_blob {
        // Its variables are part of what is replaced, and a firmware that still runs would write them over that.
        Some("none: the firmware is replaced, and finds the new OS by itself")
    } else if !identity.efi {
        Some("none: this device was not started by EFI")
    } else if options.has(Flag::NoEfiSetup) {
        Some("none: --no-efi-setup")
    } else if options.has(Flag::InNamespace) {
        Some("none: the firmware is not this container's")
    } else if cfg!(target_arch = "arm") {
        Some("none: the program for 32-bit ARM makes none")
    } else {
        None
    }
}

/// Which of [`LOADERS`] a firmware of so many bits starts; nothing when nobody can tell.
fn loader_for(processor: Processor, efi_bits: Option<u64>) -> Option<usize> {
    match (processor, efi_bits) {
        (Processor::X86, Some(64)) => Some(0),
        (Processor::X86, Some(32)) => Some(1),
        (Processor::Arm, Some(64) | None) => Some(2),
        _ => None,
    }
}

/// The partition of the image with this number, as the firmware will know it. Nothing for 0, which is none.
fn hard_drive(table: &Table, number: u32) -> Option<HardDrive> {
    let partition = table.partitions.iter().find(|partition| partition.number == number)?;
    let signature = match table.kind {
        Kind::Gpt => Signature::Gpt(partition.guid),
        Kind::Mbr => Signature::Mbr(table.signature),
    };
    // The target has blocks of 512 bytes, as the table counts: see `new_os::fits`.
    let (start, length) = (partition.start / SECTOR, partition.length / SECTOR);
    Some(HardDrive { number, start, length, signature })
}

/// Says what can be known by now of writes that will fail.
fn warn_of_store(place: &Place, needed: u64, report: &mut Report) {
    const THEN: &str =
        "without its boot entry the new OS starts if the firmware finds EFI/BOOT by itself";
    if place.is_read_only() {
        let text: Text<240> =
            crate::text!("the variables of the firmware are mounted read-only: {}", THEN);
        report.warn(&text);
    }
    if let Some(room) = place.room().filter(|room| *room < needed) {
        let text: Text<240> = crate::text!(
            "the firmware has {} bytes left for variables, and up to {} are needed: {}",
            room,
            needed,
            THEN
        );
        report.warn(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{gpt, mbr, table};
    use crate::stage1::look::identity::tests::device;
    use std::ffi::OsString;

    fn options(line: &str) -> Options {
        crate::cli::parse(line.split_whitespace().map(OsString::from)).unwrap()
    }

    #[test]
    fn no_entry_where_there_is_no_efi_where_it_was_not_wanted_and_in_a_container() {
        let uefi = device("pc-uefi", "x86_64");
        let why =
            |line, identity| reason_for_none(&options(line), identity, false).unwrap_or_default();
        assert_eq!(why("-i a", &uefi), "");
        assert_eq!(why("-i a --no-efi-setup", &uefi), "none: --no-efi-setup");
        assert!(why("-i a --in-namespace", &uefi).contains("container"));
        let bios = device("pc-32-bit-kernel", "i686");
        assert!(!bios.efi && why("-i a", &bios).contains("not started by EFI"));
        let replaced = reason_for_none(&options("-i a"), &uefi, true).unwrap_or_default();
        assert!(replaced.contains("the firmware is replaced"), "{replaced}");
        // Leaving out the check of the device type leaves out nothing else.
        assert_eq!(why("-i a --no-dt-check", &uefi), "");
    }

    #[test]
    fn the_file_is_that_of_the_firmware() {
        for (name, machine, loader) in [
            ("pc-uefi", "x86_64", Some(0)),
            ("pc-32-bit-uefi", "x86_64", Some(1)),
            ("pc-old-kernel-uefi", "x86_64", None),
            ("virt-arm64-uefi", "aarch64", Some(2)),
        ] {
            let identity = device(name, machine);
            assert_eq!(loader_for(identity.processor, identity.efi_bits), loader, "{name}");
        }
        assert_eq!(loader_for(Processor::Arm, Some(32)), None);
        assert_eq!(loader_for(Processor::Other, Some(64)), None);
    }

    #[test]
    fn the_partition_is_named_as_the_firmware_knows_it() {
        let mut disk = gpt::tests::disk(&[("vendor", 40, 47), ("resin-boot", 48, 63)]);
        disk[1024 + 128 + 16..1024 + 128 + 32].copy_from_slice(&[9; 16]);
        gpt::tests::seal_entries(&mut disk);
        let of_gpt = table::read(&mut disk, 256 * 512).unwrap();
        let signature = Signature::Gpt([9; 16]);
        let wanted = HardDrive { number: 2, start: 48, length: 16, signature };
        assert_eq!(hard_drive(&of_gpt, 2), Some(wanted));
        assert_eq!((hard_drive(&of_gpt, 0), hard_drive(&of_gpt, 3)), (None, None));
        let mut disk = mbr::tests::disk(&[(0x0c, 8, 8)], 64);
        disk[440..444].copy_from_slice(&[5, 10, 30, 0xba]);
        let of_mbr = table::read(&mut disk, 64 * 512).unwrap();
        let signature = Signature::Mbr(0xba1e_0a05);
        let wanted = HardDrive { number: 1, start: 8, length: 8, signature };
        assert_eq!(hard_drive(&of_mbr, 1), Some(wanted));
    }
}
