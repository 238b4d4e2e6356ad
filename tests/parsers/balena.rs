//! config.json and what it is made of.

use takeover::balena::{config, json};

/// JSON: members lie in the document, in order and apart, and each value stands as JSON on its own.
pub fn json(bytes: &[u8]) -> bool {
    let mut before = 0;
    let mut members = 0;
    let result = json::check_object(bytes, |member| {
        // Key and value lie behind the member before them, the quotes of the key around it.
        assert!(before < member.key.start && member.key.start <= member.key.end);
        assert!(member.key.end + 1 < member.value.start && member.value.start < member.value.end);
        assert!(member.value.end <= bytes.len());
        assert_eq!(bytes[member.key.start - 1], b'"');
        assert_eq!(bytes[member.key.end], b'"');
        assert!(!bytes[member.value.start].is_ascii_whitespace());
        assert!(!bytes[member.value.end - 1].is_ascii_whitespace());
        before = member.value.end;
        members += 1;
        if members <= 3 {
            stands_alone(&bytes[member.key], &bytes[member.value]);
        }
    });
    if let Err(problem) = result {
        assert!(problem.line >= 1 && problem.column >= 1);
        assert!(problem.line <= bytes.len() + 1 && problem.column <= bytes.len() + 1);
        super::assert_printable(&problem.text());
    }
    result.is_ok()
}

/// A member that was found is a document when it is taken out.
fn stands_alone(key: &[u8], value: &[u8]) {
    let document = [b"{\"", key, b"\":", value, b"}"].concat();
    let mut found = 0;
    let result = json::check_object(&document, |member| {
        assert_eq!(&document[member.key], key);
        assert_eq!(&document[member.value], value);
        found += 1;
    });
    // The document around it may have an error further on that this one has not, never the other way round, but for
    // a foreign byte, which is looked for in the whole first.
    assert!(result.is_ok() && found == 1, "{result:?}");
}

/// The check of a whole config.json: what passes is JSON, and a refusal shows nothing of the file.
pub fn config(bytes: &[u8]) -> bool {
    let result = config::check(bytes, "c");
    match &result {
        Ok(()) => assert!(json(bytes)),
        Err(error) => {
            let text: takeover::text::Text<500> = takeover::text!("{}", error);
            let (_, why) = text.split_once("reading the configuration c: ").expect("the prefix");
            let (why, _) = why.split_once(';').expect("an advice");
            assert!(is_known(why), "{why}");
        }
    }
    result.is_ok()
}

/// Reasons with a place and a fixed text, or with one of four names: no byte of the file.
fn is_known(why: &str) -> bool {
    let names = ["apiEndpoint", "applicationId", "deviceType", "apiKey"];
    let mut missing = names.iter().map(|name| format!("the key {name} is missing or empty"));
    if missing.any(|text| text == why) {
        return true;
    }
    let Some((place, what)) = why.split_once(": ") else {
        return false;
    };
    let place = place.strip_prefix("line ").and_then(|place| place.split_once(", column "));
    let is_number = |text: &str| text.parse::<usize>().is_ok();
    let is_fixed = |text: &str| text.len() < 48 && text.is_ascii();
    place.is_some_and(|(line, column)| is_number(line) && is_number(column)) && is_fixed(what)
}
