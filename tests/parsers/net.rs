//! What servers answer, and URLs and proxies, which may come from them or from files.

use takeover::net::http::body::{Body, Framing};
use takeover::net::http::head::{Facts, Head};
use takeover::net::proxy::{self, Proxy};
use takeover::net::url::Url;

/// The head of an answer: it ends at the same byte and says the same, however it is cut into pieces.
pub fn head(bytes: &[u8]) -> bool {
    let whole = read_head(bytes, bytes.len().max(1));
    assert_eq!(whole, read_head(bytes, 1 + super::hash(bytes) % 7));
    let Ok((taken, head)) = whole else {
        return false;
    };
    let facts = &head.0;
    assert!(taken <= bytes.len() && (100..600).contains(&facts.status));
    for text in [&*facts.validator.tag, &*facts.validator.modified] {
        super::assert_printable(text);
        assert!(text.is_ascii());
    }
    if let Some((first, last)) = facts.part.and_then(|part| part.bytes) {
        assert!(first <= last && last < u64::MAX);
    }
    true
}

type Read = (usize, (Facts, String, Framing));

fn read_head(bytes: &[u8], piece: usize) -> Result<Read, &'static str> {
    let mut head = Box::new(Head::new());
    let mut at = 0;
    for piece in bytes.chunks(piece) {
        let (taken, is_whole) = head.feed(piece)?;
        assert!(taken <= piece.len() && (is_whole || taken == piece.len()));
        at += taken;
        if is_whole {
            let said = (head.facts().clone(), head.location().to_string(), head.framing(false));
            return Ok((at, said));
        }
    }
    Err("unfinished")
}

/// Chunks: the same data, however they are cut into pieces and however much room there is. They give no more than they
/// are.
pub fn chunks(bytes: &[u8]) -> bool {
    let whole = read_chunks(bytes, bytes.len().max(1), bytes.len().max(1));
    let hash = super::hash(bytes);
    assert_eq!(whole, read_chunks(bytes, 1 + hash % 7, 1 + hash % 5));
    whole.is_ok_and(|data| {
        assert!(data.len() < bytes.len());
        true
    })
}

fn read_chunks(bytes: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, &'static str> {
    let mut body = Body::new(Framing::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    let mut output = vec![0; room];
    while at < bytes.len() && !body.has_ended() {
        let end = bytes.len().min(at + piece);
        let (taken, given) = body.feed(&bytes[at..end], &mut output)?;
        assert!(taken > 0 && given <= taken);
        data.extend_from_slice(&output[..given]);
        at += taken;
    }
    body.end()?;
    assert_eq!(body.given(), data.len() as u64);
    Ok(data)
}

/// A URL, and a reference in its second line: what is taken is its own only spelling, and fit for a request.
pub fn url(bytes: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return false;
    };
    let (text, reference) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    check(&url);
    let mut joined = Url::new();
    if joined.join(&url, reference).is_ok() {
        check(&joined);
    }
    true
}

fn check(url: &Url) {
    assert!(url.whole().bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!url.host().is_empty() && url.port() > 0 && url.target().starts_with('/'));
    let scheme = if url.is_secure() { "https" } else { "http" };
    assert_eq!(url.whole(), format!("{scheme}://{}{}", url.authority(), url.target()));
    assert!(!url.file_name().contains('/') && ![".", ".."].contains(&url.file_name()));
    assert!(!url.shown().contains(['?', '@', '#']) || url.target().contains('@'));
    assert_eq!(Url::parse(url.whole()).unwrap().whole(), url.whole());
    let mut joined = Url::new();
    for reference in ["", url.whole(), url.target()] {
        // A target that begins with two slashes is another host's URL as a reference.
        if !reference.starts_with("//") {
            joined.join(url, reference).unwrap();
            assert_eq!(joined.whole(), url.whole());
        }
    }
}

/// A proxy, and a no_proxy in its second line.
pub fn proxy(bytes: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return false;
    };
    let (text, list) = text.split_once('\n').unwrap_or((text, ""));
    for host in ["a.example.org", "10.1.2.3", "fe80::1"] {
        let is_listed = proxy::is_listed(list, host, 8443);
        assert!(is_listed || !list.split(',').any(|item| [host, "*"].contains(&item)));
    }
    Proxy::parse(text).is_ok_and(|proxy| {
        assert!(!proxy.host.is_empty() && proxy.port > 0);
        assert!(!proxy.host.contains(['@', '/', ' ']));
        true
    })
}
