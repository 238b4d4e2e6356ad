//! The backup description and its filters.

use takeover::backup::description::{
    self, LONGEST_SOURCE, LONGEST_TARGET, LONGEST_VOLUME, MOST_ITEMS,
};
use takeover::backup::filter::{BUDGET, Filter};

/// YAML: no path leads out of its place, and everything is within its bounds.
pub fn description(bytes: &[u8]) -> bool {
    let Ok(description) = description::parse(bytes) else {
        return false;
    };
    let is_name = |name: &str| !["", ".", ".."].contains(&name);
    let mut items = 0;
    for volume in &description.volumes {
        assert!(is_name(&volume.name) && !volume.name.contains(['/', '\0']));
        assert!(volume.name.len() <= LONGEST_VOLUME);
        for item in &volume.items {
            items += 1;
            let source = item.source.strip_prefix('/').expect("an absolute path");
            assert!(source.is_empty() || source.split('/').all(is_name), "{source}");
            assert!(item.target.is_empty() || item.target.split('/').all(is_name));
            assert!(!item.source.contains('\0') && !item.target.contains('\0'));
            assert!(item.source.len() <= LONGEST_SOURCE && item.target.len() <= LONGEST_TARGET);
            if let Some(filter) = &item.filter {
                filter.matches(item.source.as_bytes(), &mut String::new());
            }
        }
    }
    assert!(items <= MOST_ITEMS);
    true
}

/// A regular expression, and from the second line on a path: the same answer each time.
pub fn filter(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(pattern) = core::str::from_utf8(&bytes[..end]) else {
        return false;
    };
    let mut budget = BUDGET;
    let filter = Filter::compile(pattern, &mut budget);
    match &filter {
        Ok(filter) => {
            assert!(budget < BUDGET);
            let path = bytes.get(end + 1..).unwrap_or_default();
            let mut scratch = String::new();
            let answer = filter.matches(path, &mut scratch);
            assert_eq!(answer, filter.matches(path, &mut scratch));
        }
        Err(why) => super::assert_printable(why),
    }
    filter.is_ok()
}
