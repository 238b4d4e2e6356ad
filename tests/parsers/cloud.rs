//! Answers of the API, versions, and what config.json says of the cloud.

use takeover::balena::api::replies;
use takeover::balena::stream::{Found, Reader};
use takeover::balena::version::{Choice, Wanted};
use takeover::balena::{config, json};

/// What a streaming reader finds in a document that comes in these pieces: kinds, and what the readers of answers make
/// of it.
fn streamed(pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<usize, &'static str> {
    let mut sum = 0;
    let mut contract = replies::Contract::default();
    let mut reader = Reader::new();
    let mut visit = |found: &Found<'_>| {
        contract.take(found);
        let text = found.text::<64>().unwrap_or_default();
        let number = found.number().or(replies::id(found)).or(replies::size(found));
        let parts = (found.kind as usize, super::hash(text.as_bytes()), number, found.is("d//a"));
        sum = super::hash(format!("{sum} {parts:?} {}", found.is_in("d")).as_bytes());
    };
    for piece in pieces {
        reader.push(piece, &mut visit)?;
    }
    reader.finish()?;
    Ok(sum + usize::from(contract.is_flasher()))
}

/// JSON in pieces: the same wherever it is cut, and what it takes is JSON to the other reader, too.
pub fn json_stream(bytes: &[u8]) -> bool {
    let whole = streamed(&mut [bytes].into_iter());
    if let Err(why) = whole {
        assert!(why.is_ascii() && why.len() < 64);
    }
    assert_eq!(streamed(&mut bytes.chunks(1)), whole);
    for at in 1..bytes.len() {
        assert_eq!(streamed(&mut [&bytes[..at], &bytes[at..]].into_iter()), whole, "cut at {at}");
    }
    let is_object = bytes.trim_ascii_start().first() == Some(&b'{');
    match json::check_object(bytes, &mut |_| {}) {
        Ok(()) => {
            let limits =
                ["it is nested deeper than 64 levels", "a number in it has more than 96 digits"];
            assert!(whole.is_ok() || limits.iter().any(|limit| whole == Err(limit)), "{whole:?}");
        }
        Err(problem) if is_object && whole.is_ok() => {
            // What this one does not look for, in what it skips.
            let known = ["for the second time", "256 keys", "not UTF-8"];
            assert!(known.iter().any(|what| problem.what.contains(what)), "{problem:?}");
        }
        Err(_) => {}
    }
    whole.is_ok()
}

/// Versions, one a line, the first of them what is wanted: what is chosen is one of them, in whatever order they come.
pub fn version(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let Ok(wanted) = Wanted::parse(lines.next().unwrap_or_default()) else {
        return false;
    };
    let names: Vec<_> = lines.take(200).collect();
    let choose = |names: &mut dyn Iterator<Item = &&str>| {
        let mut choice = Choice::new(&wanted);
        names.for_each(|name| choice.consider(name));
        choice.finish("x").map(|name| name.to_string()).map_err(|error| {
            let text: takeover::text::Text<600> = takeover::text!("{}", error);
            super::assert_printable(&text);
        })
    };
    let chosen = choose(&mut names.iter());
    assert_eq!(chosen.is_ok(), choose(&mut names.iter().rev()).is_ok());
    if let Ok(chosen) = &chosen {
        assert!(names.contains(&&**chosen));
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
        assert!(chosen.bytes().all(safe), "it goes into addresses and names of files");
    }
    chosen.is_ok()
}

/// The certificates of a config.json: base64 of PEM, and never more than there was.
pub fn root_certificates(bytes: &[u8]) -> bool {
    let mut place = vec![0; bytes.len()];
    let _ = (config::api_endpoint(bytes), config::api_key(bytes), config::vpn(bytes));
    match config::root_certificates(bytes, &mut place) {
        Ok(pem) => {
            let text = core::str::from_utf8(pem).unwrap();
            assert!(text.is_empty() || text.contains("-----BEGIN CERTIFICATE-----"));
            !text.is_empty()
        }
        Err(_) => false,
    }
}
