//! config.json: is it one that a device can come up with; its values; and the two changes that are made to it.
//!
//! It is never written anew: a change puts a few bytes in, and every other byte stays (invariant 9).

use super::devices;
use super::json::{self, Member};
#[cfg(feature = "http")]
use crate::base64;
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;
use core::ops::Range;

/// The largest config.json that is taken, in bytes. Real ones are under 20 KiB, CA bundles included.
pub const MAX_LENGTH: usize = 1024 * 1024;

/// How much of a section of the program [`in_section`] looks at, in bytes.
pub const SECTION_START: usize = 6;

/// Where in a section of the program, of so many bytes, config.json lies; nothing where none was put in. `start` are
/// its first bytes, [`SECTION_START`] of them where there are.
///
/// As the original takeover has it (its migrate_info.rs): the length as a little-endian number of 32 bits, that many
/// bytes of text or gzip, and whatever comes behind; a length of 0 for none. The file alone, without the length, is
/// understood, too: the first four characters of a text are a number beyond 150 million. What is neither is given as it
/// is, and is no JSON.
pub fn in_section(start: &[u8], length: u64) -> Option<Range<u64>> {
    let promised = little_endian::<4>(start, 0);
    match length.checked_sub(4) {
        Some(_) if promised == 0 => None,
        Some(most) if promised <= most => Some(4..4 + promised),
        _ => Some(0..length),
    }
}

/// What a value must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A string that is not empty.
    Text,
    /// Digits, in quotes or not.
    Number,
}

/// The keys without which the new OS cannot provision itself, and what stands in for each.
static REQUIRED: [(&[&str], Kind); 4] = [
    (&["apiEndpoint"], Kind::Text),
    (&["applicationId"], Kind::Number),
    (&["deviceType"], Kind::Text),
    (&["apiKey", "deviceApiKey"], Kind::Text),
];

/// How a required key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum State {
    Missing,
    Wrong,
    Good,
}

/// Checks a config.json. Values, some of which are keys, never get into a message.
pub fn check(bytes: &[u8], name: &str) -> Result<(), Error> {
    let refuse = |why: &str| Error::refused("reading the configuration", name, why);
    if bytes.len() > MAX_LENGTH {
        return Err(refuse("it is larger than 1 MiB").advice("check that it is the right file"));
    }
    let mut states = [State::Missing; REQUIRED.len()];
    let checked = json::check_object(bytes, &mut |member| {
        for ((names, kind), state) in REQUIRED.iter().zip(&mut states) {
            if names.iter().any(|name| is_named(bytes, &member, name)) {
                let found = state_of(bytes.get(member.value.clone()).unwrap_or_default(), *kind);
                *state = if found > *state { found } else { *state };
            }
        }
    });
    if let Err(problem) = checked {
        return Err(refuse(&problem.text()).advice("correct the file: it is not valid JSON"));
    }
    let Some(((names, kind), state)) =
        REQUIRED.iter().zip(states).find(|(_, state)| *state != State::Good)
    else {
        return Ok(());
    };
    let what = match (state, kind) {
        (State::Wrong, Kind::Text) => "is no text",
        (State::Wrong, Kind::Number) => "is neither a whole number nor one in quotes",
        _ => "is missing or empty",
    };
    let why: Text<120> =
        crate::text!("the key {} {}", names.first().copied().unwrap_or_default(), what);
    Err(refuse(&why).advice("download it again for this fleet"))
}

fn is_named(bytes: &[u8], member: &Member, name: &str) -> bool {
    json::is_key(bytes.get(member.key.clone()).unwrap_or_default(), name)
}

fn state_of(value: &[u8], kind: Kind) -> State {
    let is_digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let good = |condition| if condition { State::Good } else { State::Wrong };
    match (value, quoted(value), kind) {
        (b"null", ..) | (_, Some(b""), _) => State::Missing,
        (_, Some(_), Kind::Text) => State::Good,
        (_, None, Kind::Text) => State::Wrong,
        (_, Some(text), Kind::Number) => good(is_digits(text)),
        (_, None, Kind::Number) => good(is_digits(value)),
    }
}

/// What is between the quotes of a string; nothing for another value.
fn quoted(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The value of a key of the outermost object: a string without quotes and escapes, or a number as it is spelled.
/// Nothing when the key is not there, is another value, or is longer than `N` bytes: a cut address or key is none.
pub fn text<const N: usize>(bytes: &[u8], key: &str) -> Option<Text<N>> {
    let value = value(bytes, key)?;
    let inside = quoted(value).unwrap_or(value);
    if quoted(value).is_none() && !matches!(value, [b'-' | b'0'..=b'9', ..]) {
        return None;
    }
    json::decoded(inside)
}

/// The bytes of the value of a key of the outermost object, quotes and escapes as they are.
fn value<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut found = None;
    // Checked already; an object that is cut short has the members that were seen.
    let _ = json::check_object(bytes, &mut |member| {
        if is_named(bytes, &member, key) {
            found = bytes.get(member.value);
        }
    });
    found
}

/// The device type; empty when there is none.
pub fn device_type(bytes: &[u8]) -> Text<64> {
    text(bytes, "deviceType").unwrap_or_default()
}

/// The address of the API.
#[cfg(feature = "http")]
pub fn api_endpoint(bytes: &[u8]) -> Result<Text<256>, Error> {
    text(bytes, "apiEndpoint").ok_or_else(|| unusable("apiEndpoint", "is too long"))
}

/// By what the API knows the device: the key of the device, or that of its fleet as long as it has none.
#[cfg(feature = "http")]
pub fn api_key(bytes: &[u8]) -> Result<Text<256>, Error> {
    let keys = ["apiKey", "deviceApiKey"].into_iter().filter_map(|name| text::<256>(bytes, name));
    keys.filter(|key| !key.is_empty())
        .find(|key| key.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| unusable("apiKey", "is too long, or has characters that no key has"))
}

/// The VPN and its port; nothing where none is named.
#[cfg(feature = "http")]
pub fn vpn(bytes: &[u8]) -> Result<Option<(Text<256>, u16)>, Error> {
    let Some(host) = text::<256>(bytes, "vpnEndpoint").filter(|host| !host.is_empty()) else {
        return Ok(None);
    };
    let port = text::<256>(bytes, "vpnPort").unwrap_or_else(|| Text::from("443"));
    match port.parse() {
        Ok(port) if port > 0 => Ok(Some((host, port))),
        _ => Err(unusable("vpnPort", "is no port")),
    }
}

/// By what the API tells the device from others; nothing where it has no name yet.
#[cfg(feature = "http")]
pub fn uuid(bytes: &[u8]) -> Option<Text<64>> {
    text(bytes, "uuid").filter(|uuid| !uuid.is_empty())
}

/// The certificates that the new OS believes beside those it knows, as PEM, in `place`, which is as long as `bytes`;
/// empty where there are none.
#[cfg(feature = "http")]
pub fn root_certificates<'a>(bytes: &[u8], place: &'a mut [u8]) -> Result<&'a [u8], Error> {
    const KEY: &str = "balenaRootCA";
    let found = value(bytes, KEY).unwrap_or_default();
    if matches!(found, b"" | b"null" | b"\"\"") {
        return Ok(&[]);
    }
    let encoded = quoted(found).ok_or_else(|| unusable(KEY, "is no text"))?;
    let mut free = place.iter_mut();
    let length = base64::decode(&mut json::unescaped(encoded), &mut |byte| {
        if let Some(space) = free.next() {
            *space = byte;
        }
    });
    let length = length.ok_or_else(|| unusable(KEY, "is no base64"))?;
    let pem = place.get(..length).unwrap_or_default();
    if is_pem(pem) { Ok(pem) } else { Err(unusable(KEY, "holds no certificates in PEM")) }
}

/// True when there are certificates, each whole and of the outer form of one (RFC 7468, section 5: base64 of DER).
#[cfg(feature = "http")]
fn is_pem(bytes: &[u8]) -> bool {
    let text = core::str::from_utf8(bytes).unwrap_or_default();
    let mut blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1).peekable();
    blocks.peek().is_some()
        && blocks.all(|block| {
            let Some((inside, _)) = block.split_once("-----END CERTIFICATE-----") else {
                return false;
            };
            let mut first = None;
            let length = base64::decode(&mut inside.chars(), &mut |byte| {
                first.get_or_insert(byte);
            });
            // A sequence.
            length.is_some() && first == Some(0x30)
        })
}

#[cfg(feature = "http")]
#[cold]
fn unusable(key: &str, what: &str) -> Error {
    let why: Text<120> = crate::text!("the key {} {}", key, what);
    Error::refused("reading the configuration", "config.json", &why)
        .advice("download it again for this fleet")
}

/// What is to be changed.
#[derive(Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// The host name that the device keeps.
    pub hostname: Option<&'a str>,
    /// The device type that takes the place of the one in the file.
    pub device_type: Option<&'a str>,
    /// The country whose rules for Wi-Fi hold, where the file names none.
    pub country: Option<&'a str>,
    /// The time servers with blanks between, where the file names none.
    pub ntp_servers: Option<&'a str>,
}

/// True for a host name as RFC 1123, section 2.1 has them: letters, digits and hyphens, the hyphens inside, labels with
/// dots between them, 63 bytes at most.
pub fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 63 && text.split('.').all(is_label)
}

/// Whether a configuration says nothing under this key.
pub fn lacks(bytes: &[u8], key: &str) -> bool {
    let mut is_lacking = true;
    // Checked already, as in [`value`]; of two with one name each counts.
    let _ = json::check_object(bytes, &mut |member| {
        let value = bytes.get(member.value.clone()).unwrap_or_default();
        is_lacking &= !is_named(bytes, &member, key) || matches!(value, b"null" | b"\"\"");
    });
    is_lacking
}

/// Writes a checked config.json into `output` with the wishes in it, and gives its length there. Values are replaced
/// where they stand; a key that is not there comes last, set off like the one before it.
///
/// Fails when a wish is no host name or device type, and when `output` is too small.
pub fn edit(bytes: &[u8], wishes: &Wishes, output: &mut [u8]) -> Result<usize, Error> {
    const DOING: &str = "changing";
    const FILE: &str = "config.json";
    if let Some(name) = wishes.hostname.filter(|name| !is_hostname(name)) {
        let why: Text<160> = crate::text!("'{}' is no host name", shown(name));
        return Err(Error::refused(DOING, FILE, &why)
            .advice("rename this device, or let the name go with --no-keep-name"));
    }
    if let Some(slug) = wishes.device_type.filter(|slug| !devices::is_slug(slug)) {
        let why: Text<160> = crate::text!("'{}' is no device type", shown(slug));
        return Err(Error::refused(DOING, FILE, &why));
    }
    let mut wanted = [
        ("hostname", wishes.hostname),
        ("deviceType", wishes.device_type),
        ("country", wishes.country.filter(|_| lacks(bytes, "country"))),
        ("ntpServers", wishes.ntp_servers.filter(|_| lacks(bytes, "ntpServers"))),
    ];
    let mut copy = Copy { bytes, copied: 0, output, length: 0, is_full: false };
    let mut last = None;
    let checked = json::check_object(bytes, &mut |member| {
        for (key, wish) in &mut wanted {
            if is_named(bytes, &member, key)
                && let Some(wish) = wish.take()
            {
                copy.replace(&member, wish);
            }
        }
        last = Some(member);
    });
    if let Err(problem) = checked {
        return Err(Error::refused(DOING, FILE, &problem.text()));
    }
    let Some(last) = last else {
        return Err(Error::refused(DOING, FILE, "it has no keys"));
    };
    for (key, wish) in wanted {
        if let Some(wish) = wish {
            copy.append(&last, key, wish);
        }
    }
    copy.up_to(bytes.len());
    if copy.is_full {
        Err(Error::failed(DOING, FILE, "it does not fit into memory")
            .advice("use a smaller config.json"))
    } else {
        Ok(copy.length)
    }
}

fn shown(text: &str) -> Text<80> {
    crate::text::printable(text.as_bytes())
}

/// Bytes on their way from a config.json into its changed copy.
struct Copy<'a> {
    bytes: &'a [u8],
    /// How far the bytes were copied or left out.
    copied: usize,
    output: &'a mut [u8],
    length: usize,
    is_full: bool,
}

impl Copy<'_> {
    fn put(&mut self, bytes: &[u8]) {
        match self.output.get_mut(self.length..self.length + bytes.len()) {
            Some(space) => space.copy_from_slice(bytes),
            None => self.is_full = true,
        }
        self.length += bytes.len();
    }

    /// Copies what was not copied yet, up to `end`.
    fn up_to(&mut self, end: usize) {
        self.put(self.bytes.get(self.copied..end).unwrap_or_default());
        self.copied = end;
    }

    /// A name in quotes: those that are put in have nothing to escape.
    fn put_quoted(&mut self, name: &str) {
        self.put(b"\"");
        self.put(name.as_bytes());
        self.put(b"\"");
    }

    fn replace(&mut self, member: &Member, value: &str) {
        let old = self.bytes.get(member.value.clone()).and_then(quoted);
        if old.is_some_and(|old| json::is_key(old, value)) {
            return;
        }
        self.up_to(member.value.start);
        self.put_quoted(value);
        self.copied = member.value.end;
    }

    /// Adds a member behind the last one, with the white space that the last one has.
    fn append(&mut self, last: &Member, key: &str, value: &str) {
        let front = self.bytes.get(..last.key.start.saturating_sub(1)).unwrap_or_default();
        let before = front.get(front.trim_ascii_end().len()..).unwrap_or_default();
        let between = self.bytes.get(last.key.end + 1..last.value.start).unwrap_or_default();
        if self.copied < last.value.end {
            self.up_to(last.value.end);
        }
        self.put(b",");
        self.put(before);
        self.put_quoted(key);
        self.put(between);
        self.put_quoted(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    fn refusal(text: &str) -> String {
        let text: Text<500> = crate::text!("{}", check(text.as_bytes(), "c.json").unwrap_err());
        text.to_string()
    }

    /// A file of the fixtures, which have the forms that real ones have, and invented content.
    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/configs/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    fn edited(bytes: &[u8], hostname: Option<&str>, device_type: Option<&str>) -> String {
        let mut output = vec![0; bytes.len() + 1000];
        let wishes = Wishes { hostname, device_type, ..Wishes::default() };
        let length = edit(bytes, &wishes, &mut output).unwrap();
        output.truncate(length);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn country_and_time_servers_are_added_and_never_replaced() {
        let edited = |text: &str| {
            let mut output = vec![0; text.len() + 100];
            let wishes = Wishes {
                country: Some("DE"),
                ntp_servers: Some("10.0.0.1 ntp.plant.example"),
                ..Wishes::default()
            };
            let length = edit(text.as_bytes(), &wishes, &mut output).unwrap();
            output.truncate(length);
            String::from_utf8(output).unwrap()
        };
        let both = "\"country\":\"DE\",\"ntpServers\":\"10.0.0.1 ntp.plant.example\"";
        assert_eq!(edited("{\"a\":1}"), format!("{{\"a\":1,{both}}}"));
        for absent in ["null", "\"\""] {
            let text = format!("{{\"country\":{absent},\"ntpServers\":{absent}}}");
            assert_eq!(edited(&text), format!("{{{both}}}"));
        }
        for kept in [
            "{ \"country\" : \"FR\", \"ntpServers\":[\"x\"] }",
            "{\"ntpServers\":\"x\",\"country\":7}",
        ] {
            assert_eq!(edited(kept), kept);
        }
    }

    #[test]
    fn a_complete_one_passes() {
        for key in ["apiKey", "deviceApiKey"] {
            let text = format!(
                "{{\"apiEndpoint\":\"e\",\"applicationId\":\"7\",\"deviceType\":\"t\",\"{key}\":\"k\"}}"
            );
            check(text.as_bytes(), "c.json").unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_named_and_no_value_is_shown() {
        let text =
            "{\"apiEndpoint\":\"e\",\"applicationId\":7,\"deviceType\":\"t\",\"other\":\"sEcReT\"}";
        assert!(refusal(text).contains("apiKey"));
        assert!(!refusal(text).contains("sEcReT"));
        assert!(refusal("{\"apiKey\":\"sEcReT\" x}").contains("line 1, column 20"));
        assert!(!refusal("{\"apiKey\":\"sEcReT\" x}").contains("sEcReT"));
        let empty =
            "{\"apiEndpoint\":\"\",\"applicationId\":7,\"deviceType\":\"t\",\"apiKey\":\"k\"}";
        assert!(refusal(empty).contains("apiEndpoint"));
    }

    #[test]
    fn configurations_of_every_kind_are_taken() {
        for (name, device_type) in [
            ("cloud.json", "raspberrypi4-64"),
            ("one-line.json", "raspberrypi3"),
            ("provisioned.json", "genericx86-64-ext"),
            ("numbers-in-quotes.json", "beaglebone"),
            ("escapes.json", "raspberrypi3-64"),
            ("crlf-and-tabs.json", "intel-nuc"),
        ] {
            let bytes = fixture(name);
            check(&bytes, name).unwrap();
            assert_eq!(device_type_of(&bytes), device_type, "{name}");
            // No wish, and the wish for what is there, change nothing.
            for wish in [None, Some(device_type)] {
                assert!(edited(&bytes, None, wish).as_bytes() == bytes, "{name}");
            }
        }
    }

    fn device_type_of(bytes: &[u8]) -> String {
        device_type(bytes).to_string()
    }

    #[test]
    fn oddities_are_refused_with_their_place() {
        for (name, why) in [
            ("bom.json", "line 1, column 1: a byte order mark"),
            ("duplicate.json", "line 6, column 3: this key is there for the second time"),
            ("trailing-comma.json", "line 5, column 22: a comma after the last element"),
            ("nul.json", "line 3, column 20: a NUL byte"),
            ("comment.json", "line 2, column 3: expected a key in quotes"),
            ("cut-short.json", "line 4, column 18: a string does not end"),
            ("no-key.json", "the key apiKey is missing or empty"),
            ("page-not-found.html", "line 1, column 1: expected an object"),
            (
                "id-as-name.json",
                "the key applicationId is neither a whole number nor one in quotes",
            ),
            ("type-as-list.json", "the key deviceType is no text"),
        ] {
            let error = check(&fixture(name), name).unwrap_err();
            let text: Text<500> = crate::text!("{}", error);
            assert!(text.contains(why), "{name}: {}", text.as_str());
            assert!(!text.contains("sEcReT"), "{name}");
            assert_eq!(error.kind().exit_code(), 3);
        }
    }

    #[test]
    fn a_megabyte_is_taken_and_no_more() {
        let long = |length| {
            let front = "{\"apiEndpoint\":\"e\",\"applicationId\":7,\"deviceType\":\"t\",\"apiKey\":\"k\",\"x\":\"";
            format!("{front}{}\"}}", "y".repeat(length - front.len() - 2))
        };
        check(long(MAX_LENGTH).as_bytes(), "c.json").unwrap();
        assert!(refusal(&long(MAX_LENGTH + 1)).contains("larger than 1 MiB"));
        assert!(long(MAX_LENGTH).len() <= crate::image::decode::BUFFER, "it is read into that");
        let deep = format!("{{\"a\":{}", "[".repeat(500_000));
        assert!(refusal(&deep).contains("nested deeper than 64 levels"));
    }

    #[test]
    fn a_change_keeps_every_other_byte() {
        for name in ["cloud.json", "one-line.json", "provisioned.json", "escapes.json"] {
            let bytes = fixture(name);
            let text = String::from_utf8(bytes.clone()).unwrap();
            let old = device_type_of(&bytes);
            let changed = edited(&bytes, None, Some("generic-amd64"));
            assert_eq!(
                changed,
                text.replacen(&quoted_spelling(&text, &old), "\"generic-amd64\"", 1),
                "{name}"
            );
            check(changed.as_bytes(), name).unwrap();
            assert_eq!(device_type_of(changed.as_bytes()), "generic-amd64");
        }
    }

    /// The value as the file spells it.
    fn quoted_spelling(text: &str, value: &str) -> String {
        let plain = format!("\"{value}\"");
        if text.contains(&plain) { plain } else { "\"raspberrypi3\\u002d64\"".to_string() }
    }

    #[test]
    fn a_key_that_is_not_there_comes_last_and_looks_like_the_others() {
        for (before, after) in [
            ("{\"a\":1}", "{\"a\":1,\"hostname\":\"pi\",\"deviceType\":\"nuc\"}"),
            (
                "{\"a\": 1, \"b\": {\"hostname\": 2} }\n",
                "{\"a\": 1, \"b\": {\"hostname\": 2}, \"hostname\": \"pi\", \"deviceType\": \"nuc\" }\n",
            ),
            (
                "{\r\n\t\"a\" : 1\r\n}",
                "{\r\n\t\"a\" : 1,\r\n\t\"hostname\" : \"pi\",\r\n\t\"deviceType\" : \"nuc\"\r\n}",
            ),
            // One is there, last or first, and even as another kind of value.
            ("{\"hostname\":\"old\"}", "{\"hostname\":\"pi\",\"deviceType\":\"nuc\"}"),
            (
                "{\"deviceType\":[1],\"host\\u006eame\":null}",
                "{\"deviceType\":\"nuc\",\"host\\u006eame\":\"pi\"}",
            ),
        ] {
            assert_eq!(edited(before.as_bytes(), Some("pi"), Some("nuc")), after);
        }
    }

    #[test]
    fn bad_wishes_and_bad_files_change_nothing() {
        let edit_with = |text: &str, hostname, device_type, room: usize| {
            let wishes = Wishes { hostname, device_type, ..Wishes::default() };
            let error = edit(text.as_bytes(), &wishes, &mut vec![0; room]).unwrap_err();
            let text: Text<500> = crate::text!("{}", error);
            text.to_string()
        };
        assert!(
            edit_with("{\"a\":1}", Some("my_pi"), None, 99).contains("'my_pi' is no host name")
        );
        assert!(edit_with("{\"a\":1}", Some("a\nb"), None, 99).contains("'a?b'"));
        assert!(edit_with("{\"a\":1}", None, Some("x\"y"), 99).contains("no device type"));
        assert!(edit_with("{\"a\":1", Some("pi"), None, 99).contains("ends too early"));
        assert!(edit_with("{}", Some("pi"), None, 99).contains("no keys"));
        let result = "{\"a\":1,\"hostname\":\"pi\"}".len();
        assert!(edit_with("{\"a\":1}", Some("pi"), None, result - 1).contains("does not fit"));
        let wishes = Wishes { hostname: Some("pi"), ..Wishes::default() };
        assert_eq!(edit(b"{\"a\":1}", &wishes, &mut vec![0; result]).unwrap(), result);
    }

    #[test]
    fn a_section_has_a_length_and_a_text_or_the_text_alone() {
        let inside = |bytes: &[u8]| {
            let start = &bytes[..bytes.len().min(SECTION_START)];
            in_section(start, bytes.len() as u64)
        };
        let with_length = |length: u32, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
        assert_eq!(inside(&with_length(7, b"{\"a\":1}")), Some(4..11));
        assert_eq!(inside(&with_length(7, b"{\"a\":1}\0\0\0")), Some(4..11), "filled up");
        // The first byte of such a length looks like a character that a text begins with.
        for first in b" \t\r\n{" {
            let length = 0x0a00 | u32::from(*first);
            let text = vec![b'x'; length as usize];
            assert_eq!(inside(&with_length(length, &text)), Some(4..4 + u64::from(length)));
        }
        for alone in
            [&b"{\"a\":1}"[..], b"\n\t{\"a\":1}", b"\x1f\x8b\x08\0\0\0\0\0\0\x03more", b"{}"]
        {
            assert_eq!(inside(alone), Some(0..alone.len() as u64));
        }
        for none in [&[0; 4][..], &[0; 2048]] {
            assert_eq!(inside(none), None);
        }
        assert_eq!(inside(&with_length(8, b"{\"a\":1}")), Some(0..11), "cut short: no JSON");
    }

    #[test]
    fn host_names() {
        for good in ["pi", "PI-2", "4ever", "a.b.c", "x", &"a".repeat(63)] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "é", &"a".repeat(64)] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    #[test]
    fn values_are_given_unescaped_and_never_cut() {
        let bytes = b"{\"a\":\"x\\u0041\",\"n\":443,\"t\":true,\"z\":null,\"l\":[1],\"e\":\"\"}";
        let get = |key| text::<4>(bytes, key).map(|text| text.to_string());
        assert_eq!(get("a").as_deref(), Some("xA"));
        assert_eq!(get("n").as_deref(), Some("443"));
        assert_eq!(get("e").as_deref(), Some(""));
        for key in ["t", "z", "l", "missing"] {
            assert_eq!(get(key), None, "{key}");
        }
        assert!(text::<4>(b"{\"a\":\"12345\"}", "a").is_none());
        assert_eq!(device_type_of(b"{}"), "");
    }

    #[cfg(feature = "http")]
    mod cloud {
        use super::*;

        fn shown<T>(result: Result<T, Error>) -> String {
            let error = result.err().expect("it is refused");
            let text: Text<500> = crate::text!("{}", error);
            assert!(!text.contains("sEcReT"), "{}", text.as_str());
            assert_eq!(error.kind().exit_code(), 3);
            text.to_string()
        }

        #[test]
        fn what_is_about_the_cloud_is_read() {
            let bytes = fixture("cloud.json");
            assert_eq!(&*api_endpoint(&bytes).unwrap(), "https://api.example.org");
            assert_eq!(&*api_key(&bytes).unwrap(), "sEcReTsEcReTsEcReT");
            let (host, port) = vpn(&bytes).unwrap().unwrap();
            assert_eq!((&*host, port), ("cloudlink.example.org", 443));
            assert_eq!(uuid(&bytes), None);
            let provisioned = fixture("provisioned.json");
            assert!(uuid(&provisioned).is_some());
            assert!(api_key(&provisioned).unwrap().contains("sEcReT"));
        }

        #[test]
        fn the_key_is_that_of_the_fleet_else_that_of_the_device() {
            let key = |members: &str| api_key(format!("{{{members}}}").as_bytes());
            let both = "\"deviceApiKey\":\"dEvIcE\",\"apiKey\":\"fLeEt\"";
            assert_eq!(&*key(both).unwrap(), "fLeEt");
            for none in ["", "null", "\"\"", "[1]"].map(|value| format!("\"apiKey\":{value},")) {
                let members = if none == "\"apiKey\":," { "" } else { &none };
                let members = format!("{members}\"deviceApiKey\":\"dEvIcE\"");
                assert_eq!(&*key(&members).unwrap(), "dEvIcE");
            }
            // Not what would end a line of the request.
            for bad in ["sEcReT\\r\\nx", "sEcReT x", "sEcReTé", &"sEcReT".repeat(50)] {
                let text = shown(key(&format!("\"apiKey\":\"{bad}\"")));
                assert!(text.contains("the key apiKey is too long, or has characters"), "{text}");
            }
        }

        #[test]
        fn the_port_of_the_vpn_is_a_number_or_a_text() {
            let of = |members: &str| vpn(format!("{{{members}}}").as_bytes());
            for (port, wanted) in [
                ("", 443),
                (",\"vpnPort\":\"443\"", 443),
                (",\"vpnPort\":1194", 1194),
                (",\"vpnPort\":null", 443),
            ] {
                let (host, port) = of(&format!("\"vpnEndpoint\":\"v\"{port}")).unwrap().unwrap();
                assert_eq!((&*host, port), ("v", wanted));
            }
            for bad in ["0", "65536", "\"x\"", "-1", "4.5", "\"\""] {
                let text = shown(of(&format!("\"vpnEndpoint\":\"v\",\"vpnPort\":{bad}")));
                assert!(text.contains("the key vpnPort is no port"), "{text}");
            }
            for none in ["", "\"vpnPort\":443", "\"vpnEndpoint\":\"\"", "\"vpnEndpoint\":null"] {
                assert!(of(none).unwrap().is_none(), "{none}");
            }
        }

        fn certificates(value: &str) -> Result<String, Error> {
            let bytes = format!("{{\"balenaRootCA\":{value}}}");
            let mut place = vec![0; bytes.len()];
            let pem = root_certificates(bytes.as_bytes(), &mut place)?;
            Ok(String::from_utf8(pem.to_vec()).unwrap())
        }

        /// `-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n`
        const PEM: &str =
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BTUNBUUU9Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K";

        #[test]
        fn certificates_are_decoded() {
            let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
            assert_eq!(certificates(&format!("\"{PEM}\"")).unwrap(), pem);
            let wrapped = format!("\"{}\\n{}\\r\\n\"", &PEM[..40], &PEM[40..]);
            assert_eq!(certificates(&wrapped).unwrap(), pem);
            assert_eq!(certificates(&format!("\"{PEM}{PEM}\"")).unwrap(), pem.repeat(2));
            for none in ["\"\"", "null"] {
                assert_eq!(certificates(none).unwrap(), "");
            }
            assert_eq!(root_certificates(b"{\"a\":1}", &mut []).unwrap(), b"");
        }

        #[test]
        fn certificates_that_are_none_are_refused() {
            for (value, why) in [
                ("7", "the key balenaRootCA is no text"),
                ("[1]", "the key balenaRootCA is no text"),
                ("{}", "the key balenaRootCA is no text"),
                ("\"?\"", "the key balenaRootCA is no base64"),
                ("\"-----BEGIN CERTIFICATE-----\"", "the key balenaRootCA is no base64"),
                ("\"c0VjUmVU\"", "the key balenaRootCA holds no certificates in PEM"),
                // Cut short; with what is no base64 in it; with what is no sequence.
                (&format!("\"{}\"", &PEM[..60]), "holds no certificates in PEM"),
                (
                    "\"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BTUNBUUU/Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K\"",
                    "holds no certificates in PEM",
                ),
                (
                    "\"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tClpBTUNBUUU9Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K\"",
                    "holds no certificates in PEM",
                ),
            ] {
                let text = shown(certificates(value));
                assert!(text.contains(why), "{value}: {text}");
            }
        }
    }
}
