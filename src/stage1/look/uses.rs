//! What uses the disk that will be written: mounts, stacked devices, swap. Stage 2 ends all of it, and whoever runs
//! this sees it beforehand.
//!
//! Reads only.

use super::facts::Facts;
use crate::disk::device::{self, Number};
use crate::disk::{holders, mounts, pools};
use crate::error::Error;
use crate::files;
use crate::text::Text;
use core::ops::ControlFlow;

/// Calls `visit` with each use of the target, as a clause.
pub fn for_each(facts: &Facts, visit: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let disk = facts.target.number;
    holders::for_each_seen(disk, visit);
    for swap in facts.swaps.iter().filter(|swap| swap.is_on_target) {
        let clause: Text<300> = crate::text!("swap on {}", swap.path);
        visit(&clause);
    }
    for_each_unseen(facts, &mut |name| {
        let clause: Text<200> = crate::text!(
            "{} is held by what cannot be seen from here: another mount namespace, or what stayed in the initramfs",
            name
        );
        visit(&clause);
    });
    Ok(())
}

/// Partitions of the target that the kernel says are claimed, and nothing that can be seen claims them. Ending every
/// process frees them, or else stage 2 restarts the old OS before the first write.
fn for_each_unseen(facts: &Facts, visit: &mut dyn FnMut(&str)) {
    let disk: &str = &facts.target.name;
    let mut look = |name: &str| {
        if name.starts_with(disk)
            && let Ok(node) = files::below("/dev", name)
            && let Ok(number) = device::number_of(&node)
            && pools::is_claimed(&node)
            && !is_explained(facts, name, number)
        {
            visit(name);
        }
        ControlFlow::Continue(())
    };
    // Facts were gathered from there: it can be read.
    let _ =
        files::below("/sys/block", disk).map(|folder| files::for_each_entry(&folder, &mut look));
}

/// Whether a mount, a stacked device, a swap area or another device of a btrfs claims a partition.
fn is_explained(facts: &Facts, name: &str, number: Number) -> bool {
    let mounted = mounts::find(mounts::OWN, &mut |mount| mount.lies_on() == Some(number));
    let has_holder = crate::path!("/sys/class/block/{}/holders", name)
        .is_ok_and(|holders| files::has_entry(&holders));
    let mut is_btrfs = false;
    pools::for_each_btrfs_member(name, &mut |_| is_btrfs = true);
    let is_swap = |path: &str| device::number_of(path).is_ok_and(|swap| swap == number);
    !matches!(mounted, Ok(None))
        || has_holder
        || is_btrfs
        || facts.swaps.iter().any(|swap| is_swap(&swap.path))
}
