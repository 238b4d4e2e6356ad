//! The boot entry of the new OS: what stage 1 has decided about the variables of the firmware is done.
//!
//! After the head: an entry must not lead to a disk that does not boot. A failure is said, and no more: the firmware
//! looks for EFI/BOOT by itself, and that the image has it is checked in stage 1.

use crate::crc32;
use crate::disk::mounts;
use crate::efi::change::{self, Change, name_of};
use crate::efi::variables::{LOOKED_AT, Variables};
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::names;
use crate::progress::{Kept, Phase, Shared};
use core::sync::atomic::Ordering::SeqCst;
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;

/// Makes the entry, if there is to be one.
pub fn make(shared: &Shared) {
    let change = match read_change("") {
        Ok(Some(change)) => change,
        Ok(None) => return,
        Err(error) => return crate::warn!("{}: {}", error, FALLBACK),
    };
    // Should the firmware keep this worker for ever, or end it, it has failed.
    shared.efi.store(Kept::Failed as u32, SeqCst);
    let watch = shared.enter(Phase::Efi);
    let made = in_variables(&change, shared);
    shared.leave(Phase::Efi, watch);
    match made {
        Ok(number) => {
            shared.efi.store(Kept::Yes as u32, SeqCst);
            let name = name_of(number);
            crate::info!(
                "the firmware starts the new OS by its entry {} ({} s)",
                name,
                watch.shown()
            );
        }
        Err(error) => crate::warn!("{}: {}", error, FALLBACK),
    }
}

/// What happens without an entry.
const FALLBACK: &str = "no boot entry is made, the firmware must find EFI/BOOT by itself";

/// What stage 1 has left in the RAMFS at `base`, if anything. The program for 32-bit ARM leaves nothing, and needs none
/// of this.
fn read_change(base: &str) -> Result<Option<Change>, Error> {
    let path = files::below(base, names::BOOT_ENTRY)?;
    if cfg!(target_arch = "arm") || !files::exists(&path) {
        return Ok(None);
    }
    let mut buffer = [0; change::LONGEST];
    let bytes = files::read(&path, &mut buffer).doing("reading", &path)?;
    match Change::from_bytes(bytes) {
        Some(change) => Ok(Some(change)),
        None => Err(Error::failed("reading", &path, "it is damaged")),
    }
}

/// Mounts efivarfs, which went with the old root, for as long as it takes.
fn in_variables(change: &Change, shared: &Shared) -> Result<u16, Error> {
    let point = files::below("", names::VARIABLES)?;
    match files::make_directory(&point) {
        Err(Errno::EXIST) => {}
        result => result.doing("making", &point)?,
    }
    let kind = "efivarfs";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mounts::mount_at(kind, &point, kind, flags, "").doing("mounting", kind)?;
    let is_read_only =
        files::space(&point).is_ok_and(|space| space.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only {
        // Where it is the firmware that takes no writes, they fail.
        let _ = mounts::remount(&point, flags, "");
    }
    let result = apply(change, &Variables { folder: &point }, shared);
    // It is in memory, and the machine restarts.
    let _ = mounts::unmount(&point);
    result
}

/// Changes the variables; gives the number of the new entry.
///
/// First goes what leads nowhere any more: a store that is full may have room then.
fn apply(change: &Change, variables: &Variables<'_>, shared: &Shared) -> Result<u16, Error> {
    for gone in &change.gone {
        shared.beat();
        if let Err(error) = remove(gone, variables) {
            crate::warn!("{}: it stays in the menu of the firmware", error);
        }
    }
    let is_gone = |number| change.gone.iter().any(|gone| gone.number == number);
    let is_gone = |number| is_gone(number) && is_missing(number, variables);
    let number = variables.free_number()?;
    shared.beat();
    variables.write(&name_of(number), &change.option)?;
    shared.beat();
    if let Err(error) = put_first(number, variables, &is_gone) {
        // In no order it is of no use, and in the way of the next one.
        let _ = variables.remove(&name_of(number));
        return Err(error);
    }
    shared.beat();
    if let Err(error) = drop_next(variables, &|next| next == number || is_gone(next)) {
        crate::warn!("{}: the next start may be another one", error);
    }
    Ok(number)
}

/// Removes an entry, unless it is another one by now.
fn remove(gone: &change::Gone, variables: &Variables<'_>) -> Result<(), Error> {
    let name = name_of(gone.number);
    let mut buffer = [0; 4 + LOOKED_AT];
    let Some(bytes) = variables.entry(gone.number, &mut buffer)? else {
        return Ok(());
    };
    if crc32::crc32(bytes) != gone.crc {
        return Err(Error::failed("removing the boot entry", &name, "it has changed meanwhile"));
    }
    variables.remove(&name)?;
    crate::info!("removed the boot entry {}", name);
    Ok(())
}

fn is_missing(number: u16, variables: &Variables<'_>) -> bool {
    let mut buffer = [0; 4 + LOOKED_AT];
    matches!(variables.entry(number, &mut buffer), Ok(None))
}

/// Puts an entry before all others.
fn put_first(
    number: u16,
    variables: &Variables<'_>,
    is_gone: &dyn Fn(u16) -> bool,
) -> Result<(), Error> {
    const NAME: &str = "BootOrder";
    let mut buffer = [0; 4 + change::LONGEST_ORDER + 1];
    let old = variables.read(NAME, &mut buffer)?.unwrap_or_default();
    let new = change::order(old, number, is_gone)
        .ok_or_else(|| Error::failed("changing", NAME, "it has more than 512 entries"))?;
    variables.write(NAME, &new)
}

/// Takes back the wish for the next start (BootNext), when it is one of these: of an entry that is gone, and whose
/// number the new one may have.
fn drop_next(variables: &Variables<'_>, is_meant: &dyn Fn(u16) -> bool) -> Result<(), Error> {
    const NAME: &str = "BootNext";
    let mut buffer = [0; 8];
    match variables.read(NAME, &mut buffer)? {
        Some([low, high]) if is_meant(u16::from_le_bytes([*low, *high])) => variables.remove(NAME),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::change::Gone;
    use crate::efi::load_option::{self, HardDrive, Signature, build};
    use crate::efi::variables::tests::Folder;
    use std::collections::BTreeMap;

    fn entry(name: &str) -> load_option::Bytes {
        let signature = Signature::Gpt([9; 16]);
        let partition = HardDrive { number: 1, start: 2048, length: 100, signature };
        build(name, &partition, "\\EFI\\BOOT\\BOOTX64.EFI").unwrap()
    }

    fn change(gone: &[(u16, &[u8])]) -> Change {
        let gone = gone.iter().map(|(number, bytes)| {
            let looked_at = bytes.get(..LOOKED_AT).unwrap_or(bytes);
            Gone { number: *number, crc: crc32::crc32(looked_at) }
        });
        Change { gone: gone.collect(), option: entry("balenaOS") }
    }

    fn applied(folder: &Folder, change: &Change) -> Result<u16, String> {
        let shared: &Shared = crate::sys::map::shared().unwrap();
        apply(change, &Variables { folder: folder.path() }, shared).map_err(|error| {
            let text: crate::text::Text<300> = crate::text!("{}", error);
            text.to_string()
        })
    }

    #[test]
    fn the_new_entry_comes_first_the_old_ones_go_and_others_stay_as_they_are() {
        let folder = Folder::new();
        let (debian, long) = (entry("debian"), [&entry("long")[..], &[1; 4000]].concat());
        folder.put("Boot0000", &debian);
        folder.put("Boot0001", b"of another disk");
        folder.put("Boot0002", &long);
        folder.put("Boot0003", &load_option::tests::of_firmware());
        folder.put("BootOrder", &[2, 0, 1, 0, 9, 0, 0, 0, 3, 0]);
        folder.put("BootNext", &[2, 0]);
        folder.put("Timeout", &[5, 0]);
        let before = folder.all();
        let number = applied(&folder, &change(&[(0, &debian), (2, &long), (7, b"never there")]));
        assert_eq!(number, Ok(0));
        let mut wanted = before;
        wanted.insert("Boot0000".into(), entry("balenaOS").to_vec());
        wanted.insert("BootOrder".into(), [0, 0, 1, 0, 9, 0, 3, 0].into());
        wanted.remove("Boot0002");
        wanted.remove("BootNext");
        assert_eq!(folder.all(), wanted);
    }

    #[test]
    fn a_firmware_without_any_entry_gets_one() {
        let folder = Folder::new();
        assert_eq!(applied(&folder, &change(&[])), Ok(0));
        let wanted = [("Boot0000", entry("balenaOS").to_vec()), ("BootOrder", vec![0, 0])];
        let wanted: BTreeMap<_, _> = wanted.map(|(name, bytes)| (name.to_string(), bytes)).into();
        assert_eq!(folder.all(), wanted);
    }

    #[test]
    fn an_entry_that_has_changed_and_a_next_start_of_another_stay() {
        let folder = Folder::new();
        folder.put("Boot0000", b"something else");
        folder.put("BootOrder", &[0, 0, 5, 0]);
        folder.put("BootNext", &[5, 0]);
        assert_eq!(applied(&folder, &change(&[(0, b"what it was")])), Ok(1));
        let all = folder.all();
        assert_eq!(all["Boot0000"], b"something else");
        assert_eq!(all["BootOrder"], [1, 0, 0, 0, 5, 0]);
        assert_eq!(all["BootNext"], [5, 0]);
    }

    #[test]
    fn an_entry_that_gets_into_no_order_is_taken_back() {
        let folder = Folder::new();
        folder.put("BootOrder", &[7; change::LONGEST_ORDER]);
        let before = folder.all();
        let error = applied(&folder, &change(&[])).unwrap_err();
        assert!(error.contains("BootOrder: it has more than 512 entries"), "{error}");
        assert_eq!(folder.all(), before);
        folder.put("BootOrder", &[7; 4000]);
        assert!(applied(&folder, &change(&[])).unwrap_err().contains("file too large"));
        let nowhere = Folder(folder.0.join("nowhere"));
        assert!(applied(&nowhere, &change(&[])).unwrap_err().contains("writing the EFI variable"));
    }

    #[test]
    fn what_stage_1_has_left_is_read_and_damage_is_found_out() {
        let folder = Folder::new();
        assert!(read_change(folder.path()).unwrap().is_none());
        let left = change(&[(7, b"an old one")]);
        let path = folder.0.join(names::BOOT_ENTRY);
        std::fs::write(&path, left.to_bytes()).unwrap();
        assert_eq!(read_change(folder.path()).unwrap(), Some(left));
        std::fs::write(&path, b"no change").unwrap();
        assert!(read_change(folder.path()).is_err());
    }
}
