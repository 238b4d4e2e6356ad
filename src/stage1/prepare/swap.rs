//! Turning swap off, so that stage 2 gets its disk, and no key of the RAMFS or of this process gets onto any.

use super::undo::{Change, Undo};
use crate::disk::swaps;
use crate::error::{Doing, Error};
use crate::stage1::look::facts::SwapArea;
use crate::sys::process;

/// Turns these swap areas off, those of the lowest priority first. Undone in reverse order, the areas whose priority is
/// the kernel's choice get theirs again: it gives each a lower one than all before it (swapon(2)).
pub fn off(areas: &[SwapArea], undo: &mut Undo) -> Result<(), Error> {
    let lowest_above = |above: Option<i32>| {
        let priorities = areas.iter().map(|area| area.priority);
        priorities.filter(|priority| above.is_none_or(|above| *priority > above)).min()
    };
    let mut next = lowest_above(None);
    while let Some(priority) = next {
        for area in areas.iter().filter(|area| area.priority == priority) {
            let path = area.path.as_str();
            process::swap_off(path).doing("swapping off", path).map_err(|error| {
                error.advice("stop services until what is swapped out fits into memory")
            })?;
            let flags = swaps::flags(area.priority, area.discard);
            undo.note(Change::SwappedOff(area.path.clone(), flags))?;
            // The kernel does not tell what it discards: `swaps::discard`.
            let unknown =
                "; /etc/fstab does not name it: should this be undone, it will not discard";
            crate::info!(
                "swap on {} is off{}",
                path,
                if area.discard.is_none() { unknown } else { "" }
            );
        }
        next = lowest_above(Some(priority));
    }
    Ok(())
}
