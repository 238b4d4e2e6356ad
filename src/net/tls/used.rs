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

#[cfg(test)]
mod tests {
    use super::*;

    fn root(length: u16, byte: u8) -> Vec<u8> {
        let mut root = vec![byte; usize::from(length) + 4];
        (root[0], root[1], root[2], root[3]) = (0x30, 0x82, (length >> 8) as u8, length as u8);
        root
    }

    #[test]
    fn each_is_kept_once_and_the_old_ones_go_when_there_is_no_room() {
        let blocks = |place: &mut [u8]| {
            let count = used_roots(place);
            std::str::from_utf8(&place[..count]).unwrap().matches("-BEGIN").count()
        };
        let mut place = [0; 16 * 1024];
        for number in [1, 2, 1, 2, 3] {
            remember(&root(2000, number));
        }
        assert_eq!(blocks(&mut place), 3);
        // Each has 2,800 characters.
        assert_eq!(blocks(&mut place[..6000]), 2);
        assert_eq!(blocks(&mut []), 0);
        remember(&root(3000, 4));
        assert_eq!(blocks(&mut place), 1);
        remember(&[]);
        assert_eq!(blocks(&mut place), 1);
    }
}
