//! URLs with http and https (RFC 3986), in the one spelling that is sent.

use crate::error::Error;
use crate::text::{self, Text};
use core::net::Ipv6Addr;

/// The longest URL that is taken, in bytes: those of signed downloads reach 2,000.
pub const MAX: usize = 4096;

/// The longest name that DNS can carry (RFC 1035, 2.3.4, without the root's dot).
const LONGEST_HOST: usize = 253;

const TOO_LONG: &str = "it is longer than 4096 bytes";

/// A URL with http or https.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Url {
    /// `scheme://authority/path?query`: scheme and host in lower case, the scheme's own port left out, without dot
    /// segments and fragment, nothing but graphic ASCII.
    text: heapless::String<MAX>,
}

impl Url {
    /// An empty place for one.
    pub const fn new() -> Self {
        Self { text: heapless::String::new() }
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut url = Self::new();
        url.set(text)?;
        Ok(url)
    }

    /// Becomes another one, in its place.
    fn set(&mut self, text: &str) -> Result<(), Error> {
        let result = self.read(text);
        result.map_err(|why| {
            Error::refused("reading the URL", &text::printable::<160>(harmless(text)), why)
        })
    }

    /// Becomes the same as another one. (`clone` would put 4 KiB on the stack in between.)
    pub fn copy_from(&mut self, other: &Url) {
        self.text.clear();
        // It fits: it was in as much room.
        let _ = self.text.push_str(&other.text);
    }

    fn read(&mut self, text: &str) -> Result<(), &'static str> {
        let (scheme, rest) = crate::bytes::split_at_word(text, "://")
            .ok_or("it does not begin with http:// or https://")?;
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known))
            .ok_or("only http and https are understood")?;
        self.read_behind(scheme, rest)
    }

    /// Reads what follows the scheme and `://`.
    fn read_behind(&mut self, scheme: &str, rest: &str) -> Result<(), &'static str> {
        let rest = without_fragment(rest)?;
        let end = rest.bytes().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or_default();
        if authority.contains('@') {
            return Err("a user or password in a URL is not supported");
        }
        self.text.clear();
        self.push(scheme)?;
        self.push("://")?;
        self.put_authority(authority, scheme)?;
        self.put_target(self.text.len(), target)
    }

    fn put_authority(&mut self, authority: &str, scheme: &str) -> Result<(), &'static str> {
        let (host, port) = host_and_port(authority)?;
        let is_v6 = host.contains(':');
        self.push(if is_v6 { "[" } else { "" })?;
        for byte in host.bytes() {
            self.put(byte.to_ascii_lowercase())?;
        }
        self.push(if is_v6 { "]" } else { "" })?;
        if let Some(port) = port.filter(|port| *port != port_of(scheme)) {
            let port: Text<8> = crate::text!(":{}", port);
            self.push(&port)?;
        }
        Ok(())
    }

    /// Adds a path without its dot segments (RFC 3986, 5.2.4), then a query; all of the path begins at `start`.
    fn put_target(&mut self, start: usize, target: &str) -> Result<(), &'static str> {
        let end = target.bytes().position(|byte| byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at_checked(end).unwrap_or_default();
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "." => {}
                ".." => {
                    let path = self.text.as_bytes().get(start..).unwrap_or_default();
                    let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    self.text.truncate(start + parent);
                }
                _ => {
                    self.push("/")?;
                    self.put_encoded(segment)?;
                    continue;
                }
            }
            if segments.peek().is_none() {
                self.push("/")?;
            }
        }
        self.put_encoded(query)
    }

    /// Bytes beyond ASCII go percent-encoded, the others as they are (RFC 3987, 3.1).
    fn put_encoded(&mut self, text: &str) -> Result<(), &'static str> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
        for byte in text.bytes() {
            if byte.is_ascii() {
                self.put(byte)?;
            } else {
                self.put(b'%')?;
                self.put(digit(byte >> 4))?;
                self.put(digit(byte & 15))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, byte: u8) -> Result<(), &'static str> {
        self.text.push(char::from(byte)).map_err(|_| TOO_LONG)
    }

    fn push(&mut self, text: &str) -> Result<(), &'static str> {
        self.text.push_str(text).map_err(|_| TOO_LONG)
    }

    /// Becomes what a reference means that stands in an answer to `base`: RFC 3986, 5.2.
    pub fn join(&mut self, base: &Url, reference: &str) -> Result<(), Error> {
        let is_end = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
        if reference.bytes().take_while(|byte| !is_end(byte)).any(|byte| byte == b':') {
            return self.set(reference);
        }
        let result = self.read_relative(base, reference);
        result.map_err(|why| Error::refused("following a redirect of", &base.shown(), why))
    }

    fn read_relative(&mut self, base: &Url, reference: &str) -> Result<(), &'static str> {
        if let Some(rest) = reference.strip_prefix("//") {
            return self.read_behind(if base.is_secure() { "https" } else { "http" }, rest);
        }
        let reference = without_fragment(reference)?;
        let start = base.text.len() - base.target().len();
        let path = base.path();
        let kept = match reference.as_bytes() {
            [] => base.target(),
            [b'?', ..] => path,
            [b'/', ..] => "",
            // All but the last name.
            _ => path.get(..path.rfind('/').unwrap_or(0)).unwrap_or_default(),
        };
        self.text.clear();
        self.push(base.text.get(..start + kept.len()).unwrap_or_default())?;
        match reference.as_bytes() {
            [] | [b'?', ..] => self.put_encoded(reference),
            _ => self.put_target(start, reference),
        }
    }

    /// As it is sent to a proxy. Not for a log: its query may be a secret.
    pub fn whole(&self) -> &str {
        &self.text
    }

    /// True with https.
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// Host and port as the Host header has them: an IPv6 address in brackets, the scheme's own port left out.
    pub fn authority(&self) -> &str {
        let (_, rest) = crate::bytes::split_at_word(&self.text, "://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// The host: a name, or an address (IPv6 without its brackets).
    pub fn host(&self) -> &str {
        host_and_port(self.authority()).map_or("", |(host, _)| host)
    }

    /// The port, that of the scheme where none is given.
    pub fn port(&self) -> u16 {
        let given = host_and_port(self.authority()).ok().and_then(|(_, port)| port);
        given.unwrap_or(port_of(if self.is_secure() { "https" } else { "http" }))
    }

    /// What is asked for: path and query, at least `/`.
    pub fn target(&self) -> &str {
        let (_, rest) = crate::bytes::split_at_word(&self.text, "://").unwrap_or_default();
        rest.get(self.authority().len()..).unwrap_or_default()
    }

    /// True when both have scheme, host and port in common (RFC 6454, 4).
    pub fn has_origin_of(&self, other: &Url) -> bool {
        self.is_secure() == other.is_secure() && self.authority() == other.authority()
    }

    fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The last name of the path, for a file to be called by; empty where there is none.
    pub fn file_name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// For people: scheme, host, port and path, without user, password, query and fragment.
    pub fn shown(&self) -> Text<160> {
        Text::from(self.text.split('?').next().unwrap_or_default())
    }
}

/// A URL or reference up to its fragment, which is nothing to a server.
fn without_fragment(text: &str) -> Result<&str, &'static str> {
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("it has spaces or control characters");
    }
    Ok(text.split('#').next().unwrap_or_default())
}

/// The port of a scheme.
fn port_of(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// What of a text that should be a URL can be shown: no query, and nothing that may be a password.
pub(super) fn harmless(text: &str) -> &[u8] {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    // An @ further on: a password may have ? and # in it, and ends nobody knows where.
    if text.bytes().skip(path.len()).any(|byte| byte == b'@') {
        return b"...";
    }
    path.rsplit('@').next().unwrap_or_default().as_bytes()
}

/// Takes `host`, `host:port`, `[IPv6]` and `[IPv6]:port` apart.
pub(super) fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
        host.parse::<Ipv6Addr>().map_err(|_| "this is no IPv6 address")?;
        (host, port)
    } else {
        let end = authority.bytes().position(|byte| byte == b':').unwrap_or(authority.len());
        let (host, port) = authority.split_at_checked(end).unwrap_or_default();
        check_name(host)?;
        (host, port)
    };
    let port = match port {
        "" | ":" => None,
        _ => {
            let number = port.strip_prefix(':').and_then(text::digits);
            let number = number.and_then(|number| u16::try_from(number).ok());
            Some(number.filter(|number| *number > 0).ok_or("its port is none (1 to 65535)")?)
        }
    };
    Ok((host, port))
}

fn check_name(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("it names no host");
    }
    if !host.is_ascii() {
        return Err("names beyond ASCII are not supported: write the host as xn--...");
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.len() > LONGEST_HOST || !host.bytes().all(is_of_name) {
        return Err("its host is no name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn refusal(text: &str) -> String {
        let error = Url::parse(text).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let shown: Text<512> = crate::text!("{}", error);
        shown.to_string()
    }

    #[test]
    fn of_what_is_no_url_nothing_is_shown_that_may_be_a_password() {
        for (text, shown) in [
            ("https://me:topsec#ret@h/a", "..."),
            ("http://me:sec?ret@h", "..."),
            ("http://me:secret@h/a?b", "h/a"),
            ("http://h/a?token=x@y", "..."),
            ("http://h/a?b", "http://h/a"),
        ] {
            assert_eq!(harmless(text), shown.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url = url("HTTPS://API.Example.COM:8443/v7/device?$select=id#top");
        assert!(url.is_secure());
        assert_eq!((url.host(), url.port()), ("api.example.com", 8443));
        assert_eq!(url.authority(), "api.example.com:8443");
        assert_eq!(url.target(), "/v7/device?$select=id");
        assert_eq!(url.file_name(), "device");
        assert_eq!(&*url.shown(), "https://api.example.com:8443/v7/device");
    }

    #[test]
    fn there_is_one_spelling_of_a_url() {
        for (given, wanted) in [
            ("http://h", "http://h/"),
            ("http://h:80", "http://h/"),
            ("https://h:443/x", "https://h/x"),
            ("http://h:443/", "http://h:443/"),
            ("http://h:/", "http://h/"),
            ("http://h?q=/../", "http://h/?q=/../"),
            ("http://h/a/./b/../c", "http://h/a/c"),
            ("http://h/../..", "http://h/"),
            ("http://h/a/..", "http://h/"),
            ("http://h/a/b/.", "http://h/a/b/"),
            ("http://h/a//b", "http://h/a//b"),
            ("http://h/é?ü", "http://h/%C3%A9?%C3%BC"),
            ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080/"),
        ] {
            assert_eq!(url(given).whole(), wanted);
            assert_eq!(url(wanted).whole(), wanted);
        }
    }

    #[test]
    fn an_address_is_a_host() {
        let six = url("http://[::1]/a");
        assert_eq!((six.host(), six.port(), six.authority()), ("::1", 80, "[::1]"));
        let four = url("https://127.0.0.1:1/a");
        assert_eq!((four.host(), four.port()), ("127.0.0.1", 1));
    }

    #[test]
    fn what_is_no_url_is_refused_by_name() {
        for (text, why) in [
            ("", "does not begin with"),
            ("h/a", "does not begin with"),
            ("ftp://h/", "only http and https"),
            ("http://", "names no host"),
            ("http:///a", "names no host"),
            ("http://:80/", "names no host"),
            ("http://h:0/", "port"),
            ("http://h:65536/", "port"),
            ("http://h:+80/", "port"),
            ("http://h:8o/", "port"),
            ("http://[::1/", "ends with ]"),
            ("http://[::g]/", "no IPv6 address"),
            ("http://[fe80::1%eth0]/", "no IPv6 address"),
            ("http://[::1]x/", "port"),
            ("http://bücher.example/", "xn--"),
            ("http://a b/", "spaces"),
            ("http://h/a b", "spaces"),
            ("http://h/a\r\nX: y", "control characters"),
            ("http://h\\evil/", "no name"),
            ("http://a%2eb/", "no name"),
        ] {
            assert!(refusal(text).contains(why), "{text}: {}", refusal(text));
        }
        assert!(refusal(&format!("http://h/{}", "a".repeat(MAX))).contains("longer than 4096"));
        assert!(refusal(&format!("http://{}/", "a".repeat(254))).contains("no name"));
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for text in ["http://me:secret@h/", "http://h x/?key=secret", "ftp://me:secret@h#secret"] {
            assert!(!refusal(text).contains("secret"), "{}", refusal(text));
        }
        assert!(refusal("http://me:secret@h/").contains("user or password"));
    }

    #[test]
    fn references_are_relative_to_the_url() {
        let base = url("https://h:8/a/b/c?q=/x");
        for (reference, wanted) in [
            ("d", "https://h:8/a/b/d"),
            ("../d?r", "https://h:8/a/d?r"),
            ("./", "https://h:8/a/b/"),
            ("/d", "https://h:8/d"),
            ("?r", "https://h:8/a/b/c?r"),
            ("", "https://h:8/a/b/c?q=/x"),
            ("#top", "https://h:8/a/b/c?q=/x"),
            ("//other/d", "https://other/d"),
            ("http://other", "http://other/"),
            ("d?u=http://x", "https://h:8/a/b/d?u=http://x"),
            ("..", "https://h:8/a/"),
            ("../../../..", "https://h:8/"),
        ] {
            let mut joined = Url::new();
            joined.join(&base, reference).unwrap();
            assert_eq!(joined.whole(), wanted, "{reference}");
        }
        let long = "a".repeat(MAX);
        for reference in ["ftp://x/", "mailto:x", "a b", "//me:secret@h/", "//", &long] {
            let error = Url::new().join(&base, reference).unwrap_err();
            let shown: Text<512> = crate::text!("{}", error);
            assert!(!shown.contains("secret") && !shown.contains("/x\""), "{}", &*shown);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| url(a).has_origin_of(&url(b));
        assert!(same("http://h/a", "HTTP://H:80/b"));
        assert!(!same("http://h/", "https://h/"));
        assert!(!same("http://h/", "http://h:81/"));
        assert!(!same("http://h/", "http://hh/"));
    }

    #[test]
    fn a_file_is_called_by_the_last_name() {
        for (text, name) in [
            ("http://h/", ""),
            ("http://h/a/", ""),
            ("http://h/a/x.img.gz?b/c", "x.img.gz"),
            ("http://h/a/..", ""),
        ] {
            assert_eq!(url(text).file_name(), name);
        }
    }
}
