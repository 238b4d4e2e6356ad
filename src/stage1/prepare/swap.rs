//! Turning swap off, so that stage 2 gets its disk, and no key of the RAMFS or of this process gets onto any.

use super::undo::{Change, Undo};
use crate::disk::swaps;
use crate::error::{Doing, Error};
use crate::stage1::look::facts::SwapAreas;
use crate::sys::process;

/// Turns these swap areas off, in their order: those of the lowest priority first. Undone in reverse order, the areas
/// whose priority is the kernel's choice get theirs again: it gives each a lower one than all before it (swapon(2)).
pub fn off(areas: &SwapAreas, undo: &mut Undo) -> Result<(), Error> {
    // The kernel does not tell what it discards: `swaps::discard`.
    let unknown = "; /etc/fstab does not name it: should this be undone, it will not discard";
    for area in areas {
        let path = area.path.as_str();
        process::swap_off(path).doing("swapping off", path).map_err(|error| {
            error.advice("stop services until what is swapped out fits into memory")
        })?;
        let flags = swaps::flags(area.priority, area.discard);
        undo.note(Change::SwappedOff(area.path.clone(), flags))?;
        let known = if area.discard.is_none() { unknown } else { "" };
        crate::info!("swap on {} is off{}", path, known);
    }
    Ok(())
}
