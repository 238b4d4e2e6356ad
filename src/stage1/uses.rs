//! What uses the disk that will be written: mounts, stacked devices, swap. Stage 2 ends all of it, and whoever runs
//! this sees it beforehand.
//!
//! Reads only.

use super::facts::Facts;
use super::origin;
use crate::disk::device;
use crate::disk::mounts;
use crate::disk::stack;
use crate::error::Error;
use crate::text::Text;

/// Calls `visit` with each use of the target, as a clause.
pub fn for_each(facts: &Facts, visit: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let disk = facts.target.number;
    mounts::find(mounts::OWN, &mut |mount| {
        let is_ours = || -> Result<bool, Error> {
            let number = origin::device_of_mount(mount)?;
            number.map_or(Ok(false), |number| stack::lies_on(number, disk))
        };
        // A mount that cannot be placed is none of a disk.
        if is_ours().unwrap_or(false) {
            let point = mount.point().unwrap_or_default();
            let clause: Text<300> = crate::text!("mounted at {} ({})", point, mount.file_system);
            visit(&clause);
        }
        false
    })?;
    stack::for_each_on(disk, &mut |name, number| {
        let told = device::mapper_name(number);
        let clause: Text<200> = match told.is_empty() {
            true => crate::text!("below {}", name),
            false => crate::text!("below {} ({})", name, told),
        };
        visit(&clause);
    });
    for swap in &facts.swaps {
        let clause: Text<300> = crate::text!("swap on {}", swap.path);
        visit(&clause);
    }
    Ok(())
}
