//! The roots in which the chains ended that were verified: what stage 2 has to believe, and no more.

use super::der;
use std::sync::{Mutex, PoisonError};

/// Room for some: DER, one behind the other.
static USED: Mutex<heapless::Vec<u8, 8192>> = Mutex::new(heapless::Vec::new());

/// Adds a root, unless it is there. When there is no room, the others go: they are older.
pub fn remember(root: &[u8]) {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    if der::each(&used).any(|known| known == root) {
        return;
    }
    if used.extend_from_slice(root).is_err() {
        used.clear();
        let _ = used.extend_from_slice(root);
    }
}

/// Copies the roots in which the chains ended that this process has verified, as PEM, to `place`; gives how many bytes.
/// What does not fit is left out. What stage 2 will trust.
pub fn used_roots(place: &mut [u8]) -> usize {
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut filled = 0;
    for root in der::each(&used) {
        filled += super::pem::write(root, place.get_mut(filled..).unwrap_or_default());
    }
    filled
}
