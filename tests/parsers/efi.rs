//! What a firmware keeps in its variables.

use takeover::efi::change::{self, Change};
use takeover::efi::load_option;

/// A load option: what is read of it fits, and what is made of what was read is read the same.
pub fn load_option(bytes: &[u8]) -> bool {
    let Some(option) = load_option::parse(bytes) else {
        return false;
    };
    super::assert_printable(&option.description);
    // What lies behind the paths is not looked at.
    let more = load_option::parse(&[bytes, b"more"].concat()).expect("the same with data");
    assert_eq!(more.partition, option.partition);
    let Some(partition) = option.partition else {
        return true;
    };
    let made = load_option::build("x", &partition, "\\y").expect("it is short");
    let again = load_option::parse(&made).expect("it is one");
    assert_eq!((again.partition, &*again.description), (Some(partition), "x"));
    true
}

/// What stage 1 leaves for stage 2, and BootOrder, which is the same bytes here.
pub fn boot_entries(bytes: &[u8]) -> bool {
    let is_gone = |number: u16| number.is_multiple_of(3);
    if let Some(order) = change::order(bytes, 7, &is_gone) {
        assert!(order.len().is_multiple_of(2) && order.starts_with(&[7, 0]));
        let numbers = order.chunks(2).skip(1).map(|two| u16::from_le_bytes([two[0], two[1]]));
        assert!(numbers.clone().all(|number| number != 7 && !is_gone(number)));
        let old = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        let kept = old.filter(|number| *number != 7 && !is_gone(*number));
        assert!(kept.eq(numbers));
    } else {
        assert!(bytes.len() >= change::LONGEST_ORDER);
    }
    let Some(change) = Change::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(change.to_bytes(), bytes);
    true
}
