//! Other people's parsers of the same formats: both must take and refuse the same inputs.

use serde::de::IgnoredAny;
use takeover::balena::json;

/// Compares with whether ours took the input.
pub type Oracle = fn(&[u8], bool);

/// The oracle for this parser; one that says nothing when there is none.
pub fn of(parser: &str) -> Oracle {
    match parser {
        "json" => is_json,
        _ => |_, _| {},
    }
}

fn is_json(bytes: &[u8], taken: bool) {
    // serde_json looks at neither UTF-8 nor depth nor names in what it ignores.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    let is_text = std::str::from_utf8(bytes).is_ok();
    let theirs = serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    let result = json::check_object(bytes, &mut |member| {
        let string = bytes[member.key.start - 1..=member.key.end].as_ref();
        // Half of a surrogate pair they refuse.
        if let Ok(key) = serde_json::from_slice::<String>(string) {
            assert!(json::is_key(&bytes[member.key], &key), "another key than {key}");
        }
    });
    let is_stricter = result.is_err_and(|problem| {
        ["deeper than 64", "for the second time", "more than 256 keys"]
            .iter()
            .any(|what| problem.what.contains(what))
    });
    assert!(taken == (is_object && is_text && theirs) || is_stricter, "serde_json: {theirs}");
}
