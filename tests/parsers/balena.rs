//! config.json and what it is made of.

use takeover::balena::config::{self, Wishes};
use takeover::balena::json::{self, Member};

/// JSON: members lie in the document, in order and apart, and each value stands as JSON on its own.
pub fn json(bytes: &[u8]) -> bool {
    let mut before = 0;
    let mut members = 0;
    let result = json::check_object(bytes, &mut |member| {
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
    let result = json::check_object(&document, &mut |member| {
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
        Ok(()) => {
            assert!(json(bytes));
            edit(bytes);
        }
        Err(error) => {
            let text: takeover::text::Text<500> = takeover::text!("{}", error);
            let (_, why) = text.split_once("reading the configuration c: ").expect("the prefix");
            let (why, _) = why.split_once(';').expect("an advice");
            assert!(is_known(why), "{why}");
        }
    }
    result.is_ok()
}

/// Host name and device type are changed, country and time servers added where there are none, and no other byte; a
/// second time changes nothing.
fn edit(bytes: &[u8]) {
    const WISHES: [(&str, &str); 4] = [
        ("hostname", "a-new-name"),
        ("deviceType", "a-type"),
        ("country", "DE"),
        ("ntpServers", "10.0.0.1"),
    ];
    let is_wanted =
        |key: &str| !matches!(key, "country" | "ntpServers") || config::lacks(bytes, key);
    let wishes = Wishes {
        hostname: Some("a-new-name"),
        device_type: Some("a-type"),
        country: Some("DE"),
        ntp_servers: Some("10.0.0.1"),
    };
    let mut buffer = [0; 8192];
    let length = config::edit(bytes, &wishes, &mut buffer).expect("a checked one can be changed");
    let edited = &buffer[..length];
    config::check(edited, "c").expect("it is still one");
    for (key, wish) in WISHES.into_iter().filter(|(key, _)| is_wanted(key)) {
        assert_eq!(&*config::text::<64>(edited, key).expect("the wish"), wish);
    }
    let (old, new) = (members(bytes), members(edited));
    let (mut old_end, mut new_end) = (0, 0);
    for (before, after) in old.iter().zip(&new) {
        assert_eq!(bytes[old_end..before.value.start], edited[new_end..after.value.start]);
        let is_wish =
            |(key, _): &(&str, _)| is_wanted(key) && json::is_key(&bytes[before.key.clone()], key);
        if !WISHES.iter().any(is_wish) {
            assert_eq!(bytes[before.value.clone()], edited[after.value.clone()]);
        }
        (old_end, new_end) = (before.value.end, after.value.end);
    }
    // Behind them only wishes that had no place yet, and then the end.
    let last = new.last().expect("a member").value.end;
    assert_eq!(bytes[old_end..], edited[last..]);
    for added in &new[old.len()..] {
        assert!(WISHES.iter().any(|(key, _)| json::is_key(&edited[added.key.clone()], key)));
    }
    let mut again = [0; 8192];
    let length = config::edit(edited, &wishes, &mut again).unwrap();
    assert_eq!(again[..length], *edited);
}

fn members(bytes: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    json::check_object(bytes, &mut |member| members.push(member)).unwrap();
    members
}

/// Reasons with a place and a fixed text, or with one of four names: no byte of the file.
fn is_known(why: &str) -> bool {
    let names = ["apiEndpoint", "applicationId", "deviceType", "apiKey"];
    let whats =
        ["is missing or empty", "is no text", "is neither a whole number nor one in quotes"];
    let key = why.strip_prefix("the key ").and_then(|rest| rest.split_once(' '));
    if key.is_some_and(|(name, what)| names.contains(&name) && whats.contains(&what)) {
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
