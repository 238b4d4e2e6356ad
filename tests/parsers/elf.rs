//! The program file itself: somebody else may have put sections into it, or taken them out.

use takeover::balena::config;
use takeover::elf;
use takeover::image::source::Source;

/// A section that is found lies in the file, and so does what is in it.
pub fn section(bytes: &[u8]) -> bool {
    let file = super::image::File(bytes);
    let Ok(Some(found)) = elf::find_section(&file, ".config_json_section") else {
        return false;
    };
    assert!(found.start < found.end && found.end <= file.length(), "{found:?}");
    let section = &bytes[found.start as usize..found.end as usize];
    let start = &section[..section.len().min(config::SECTION_START)];
    match config::in_section(start, section.len() as u64) {
        Some(inside) => {
            assert!(inside.start < inside.end && inside.end <= section.len() as u64);
            true
        }
        None => false,
    }
}
