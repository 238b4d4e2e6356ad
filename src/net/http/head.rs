//! The head of an answer: status line and header fields, as they come, in fixed memory.
//!
//! Not httparse: it wants the whole head in one piece, so a head of any length needs a buffer of that length, and a
//! client needs ten of the hundred fields that it lists. Here a line is looked at when it ends, and forgotten.

use super::body::{Framing, Problem};
use super::date;
use crate::net::url;
use crate::text::{self, Text};

/// The longest head that is taken, in bytes. Servers themselves refuse heads of 8 to 48 KiB in requests.
pub const LONGEST: usize = 32 * 1024;

/// The longest line that is looked at: a Location with the longest URL. What is longer and not ours is skipped.
const LONGEST_LINE: usize = url::MAX + 64;

/// A validator of a file: by it a server says whether it is still the same (RFC 9110, 8.8).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Validator {
    /// The strong ETag, quotes included; empty without.
    pub tag: Text<128>,
    /// Last-Modified as the server wrote it; empty without.
    pub modified: Text<40>,
}

impl Validator {
    /// True when there is nothing to know a file by.
    pub fn is_empty(&self) -> bool {
        self.tag.is_empty() && self.modified.is_empty()
    }

    /// What If-Range says: the tag, else the date (RFC 9110, 13.1.5).
    pub fn strongest(&self) -> &str {
        if self.tag.is_empty() { &self.modified } else { &self.tag }
    }

    /// True when what came with a part is of the file that is `known`. A part repeats the tag that the file has (RFC
    /// 9110, 15.3.7); the date need not be sent with it.
    pub fn agrees_with(&self, known: &Validator) -> bool {
        let agree = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        let is_tagged_so = known.tag.is_empty() || self.tag == known.tag;
        is_tagged_so && agree(&self.modified, &known.modified)
    }
}

/// The part of a file that an answer has: Content-Range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The first byte and the last one; None: there is no such part (416).
    pub bytes: Option<(u64, u64)>,
    /// The length of the whole file; None where the server does not know it.
    pub whole: Option<u64>,
}

/// What the body is wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encoding {
    /// Nothing.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// Anything else.
    Other,
}

/// What a head says, as far as it matters here.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    /// The status.
    pub status: u16,
    /// True with HTTP/1.0.
    pub is_old: bool,
    /// Content-Length.
    pub length: Option<u64>,
    /// The last transfer encoding is `chunked`.
    pub is_chunked: bool,
    /// The server ends the connection after this answer.
    pub closes: bool,
    /// Content-Encoding.
    pub encoding: Encoding,
    /// `Accept-Ranges: bytes`.
    pub takes_ranges: bool,
    /// Content-Range.
    pub part: Option<Part>,
    /// Retry-After in seconds.
    pub retry_after: Option<u64>,
    /// Retry-After as a date: seconds since 1970.
    pub retry_at: Option<u64>,
    /// The server's clock: seconds since 1970.
    pub date: Option<u64>,
    /// ETag and Last-Modified.
    pub validator: Validator,
}

/// A head that is being read.
pub struct Head {
    line: [u8; LONGEST_LINE],
    length: usize,
    /// The line was longer than what is kept of it.
    is_cut: bool,
    /// The line has ended; whether the next one is part of it only its first byte tells.
    has_ended: bool,
    /// Bytes of the whole head.
    taken: usize,
    facts: Facts,
    location: heapless::String<{ url::MAX }>,
}

impl Head {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self {
            line: [0; LONGEST_LINE],
            length: 0,
            is_cut: false,
            has_ended: false,
            taken: 0,
            facts: Facts::default(),
            location: heapless::String::new(),
        }
    }

    /// Forgets what was read: the next byte is the first of another head.
    pub fn clear(&mut self) {
        self.start_line();
        self.taken = 0;
        self.facts = Facts::default();
        self.location.clear();
    }

    /// True when a byte of it has come.
    pub fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// What it says. All of it only when the head has ended.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where to look instead; empty without.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// How the body ends (RFC 9112, 6.3). An answer to HEAD has none, whatever it says.
    pub fn framing(&self, is_to_head: bool) -> Framing {
        match self.facts {
            _ if is_to_head => Framing::Nothing,
            Facts { status: 100..200 | 204 | 304, .. } => Framing::Nothing,
            Facts { is_chunked: true, .. } => Framing::Chunked,
            Facts { length: Some(length), .. } => Framing::Length(length),
            _ => Framing::UntilClose,
        }
    }

    /// True when another request may follow on the same connection, after the body. Two lengths that contradict each
    /// other leave doubts about where it ends (RFC 9112, 6.1).
    pub fn keeps_open(&self) -> bool {
        let facts = &self.facts;
        !(facts.is_old || facts.closes || facts.is_chunked && facts.length.is_some())
    }

    /// Takes what belongs to the head: how many bytes that was, and true at its end.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Problem> {
        for (taken, byte) in (1..).zip(bytes) {
            self.taken += 1;
            if self.taken > LONGEST {
                return Err("its header fields are longer than 32 KiB");
            }
            if self.take(*byte)? {
                return Ok((taken, true));
            }
        }
        Ok((bytes.len(), false))
    }

    /// Takes one byte; true at the end of the head. A line feed alone ends a line, too (RFC 9112, 2.2).
    fn take(&mut self, byte: u8) -> Result<bool, Problem> {
        if self.has_ended {
            self.has_ended = false;
            // A folded line goes on in the next one (RFC 9112, 5.2).
            if self.facts.status == 0 || !matches!(byte, b' ' | b'\t') {
                self.look_at_line()?;
                self.start_line();
            }
        }
        if byte != b'\n' {
            match self.line.get_mut(self.length) {
                Some(place) => *place = byte,
                None => self.is_cut = true,
            }
            self.length += usize::from(!self.is_cut);
            return Ok(false);
        }
        if self.length > 0 && self.line.get(self.length - 1) == Some(&b'\r') && !self.is_cut {
            self.length -= 1;
        }
        if self.length > 0 {
            self.has_ended = true;
            return Ok(false);
        }
        if self.facts.status == 0 { Err(NOT_HTTP) } else { Ok(true) }
    }

    fn start_line(&mut self) {
        self.length = 0;
        self.is_cut = false;
        self.has_ended = false;
    }

    fn look_at_line(&mut self) -> Result<(), Problem> {
        let line = self.line.get_mut(..self.length).unwrap_or_default();
        if self.facts.status == 0 {
            (self.facts.status, self.facts.is_old) = status_of(line).ok_or(NOT_HTTP)?;
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, value) = line.split_at_mut_checked(colon).unwrap_or_default();
        // No blank may stand before the colon: others may have read another field there (RFC 9112, 5.1).
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err("a line of its head is no header field");
        }
        name.make_ascii_lowercase();
        let value = value.get(1..).unwrap_or_default();
        // Another encoding than UTF-8 is in nothing that is looked at.
        let value = core::str::from_utf8(value.trim_ascii()).unwrap_or_default();
        let is_location = name == b"location";
        let is_known = is_location || self.facts.look_at(name, value)?;
        let is_cut = self.is_cut && is_known;
        if is_location {
            self.location.clear();
        }
        if is_cut || is_location && self.location.push_str(value).is_err() {
            return Err("a header field is longer than 4 KiB");
        }
        Ok(())
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

const NOT_HTTP: Problem = "this is not HTTP/1.1";

/// Status and age of `HTTP/1.1 200 OK`.
fn status_of(line: &[u8]) -> Option<(u16, bool)> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', status @ ..] = line else {
        return None;
    };
    let (status, rest) = status.split_first_chunk::<3>()?;
    let status = text::digits(core::str::from_utf8(status).ok()?)? as u16;
    let is_whole = rest.is_empty() || rest.starts_with(b" ");
    let is_right = minor.is_ascii_digit() && is_whole && (100..600).contains(&status);
    is_right.then_some((status, *minor == b'0'))
}

impl Facts {
    /// Notes what a field says; false when it is not one of those that matter here.
    fn look_at(&mut self, name: &[u8], value: &str) -> Result<bool, Problem> {
        match name {
            b"content-length" => self.note_length(value)?,
            b"transfer-encoding" => self.note_transfer(value)?,
            b"connection" => self.closes |= lists(value, "close"),
            b"content-encoding" => self.encoding = encoding_of(value),
            b"accept-ranges" => self.takes_ranges |= lists(value, "bytes"),
            b"content-range" => self.part = part_of(value),
            b"date" => self.date = date::parse(value),
            b"retry-after" => {
                self.retry_after = text::digits(value);
                self.retry_at = date::parse(value);
            }
            b"etag" => self.validator.tag = Text::from(strong(value)),
            b"last-modified" if date::parse(value).is_some() => {
                self.validator.modified = Text::from(value);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The same number may stand there more than once (RFC 9110, 8.6).
    fn note_length(&mut self, value: &str) -> Result<(), Problem> {
        for item in value.split(',') {
            let length =
                text::digits(item.trim_ascii()).ok_or("its Content-Length is no number")?;
            if self.length.is_some_and(|other| other != length) {
                return Err("it has two different lengths");
            }
            self.length = Some(length);
        }
        Ok(())
    }

    fn note_transfer(&mut self, value: &str) -> Result<(), Problem> {
        let mut count = 0;
        for item in items(value) {
            count += 1;
            if is(item, "chunked") && !self.is_chunked {
                self.is_chunked = true;
            } else if !is(item, "identity") || self.is_chunked {
                return Err("it has a Transfer-Encoding that was not asked for");
            }
        }
        if count == 0 { Err("its Transfer-Encoding is empty") } else { Ok(()) }
    }
}

/// The items of a list (RFC 9110, 5.6.1).
fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim_ascii).filter(|item| !item.is_empty())
}

fn lists(value: &str, word: &str) -> bool {
    items(value).any(|item| is(item, word))
}

fn is(item: &str, word: &str) -> bool {
    item.eq_ignore_ascii_case(word)
}

fn encoding_of(value: &str) -> Encoding {
    match value {
        "" => Encoding::Identity,
        _ if is(value, "identity") => Encoding::Identity,
        _ if is(value, "gzip") || is(value, "x-gzip") => Encoding::Gzip,
        _ => Encoding::Other,
    }
}

/// The tag when it is a strong one that can be sent back (RFC 9110, 8.8.3), else nothing.
fn strong(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let is_whole = |inner: &str| inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    let is_strong = value.len() <= 128 && inner.is_some_and(is_whole);
    if is_strong { value } else { "" }
}

/// `bytes 0-499/1234`, `bytes 0-499/*` or `bytes */1234` (RFC 9110, 14.4).
fn part_of(value: &str) -> Option<Part> {
    let (unit, rest) = value.split_once(' ')?;
    let (bytes, whole) = rest.split_once('/')?;
    let whole = if whole == "*" { None } else { Some(text::digits(whole)?) };
    let bytes = if bytes == "*" {
        None
    } else {
        let (first, last) = bytes.split_once('-')?;
        let (first, last) = (text::digits(first)?, text::digits(last)?);
        // Neither may be the largest number there is: what follows the last byte is counted, too.
        let is_right = first <= last && last < whole.unwrap_or(u64::MAX);
        Some((first, last)).filter(|_| is_right)?.into()
    };
    is(unit, "bytes").then_some(Part { bytes, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Box<Head>, Problem> {
        let mut head = Box::new(Head::new());
        let text = format!("{text}\r\n\r\n");
        // However it is cut.
        for bytes in text.as_bytes().chunks(3) {
            let (taken, is_whole) = head.feed(bytes)?;
            if is_whole {
                return Ok(head);
            }
            assert_eq!(taken, bytes.len());
        }
        Err("unfinished")
    }

    fn facts(fields: &str) -> Facts {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}")).unwrap().facts().clone()
    }

    fn problem(fields: &str) -> Problem {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}")).err().unwrap_or("none")
    }

    #[test]
    fn a_part_without_the_tag_of_the_file_is_of_another_one() {
        let of = |tag: &str, modified: &str| Validator {
            tag: Text::from(tag),
            modified: Text::from(modified),
        };
        let known = of("\"v1\"", "monday");
        assert!(of("\"v1\"", "").agrees_with(&known) && of("\"v1\"", "monday").agrees_with(&known));
        for other in [of("", ""), of("\"v2\"", "monday"), of("", "monday"), of("\"v1\"", "friday")]
        {
            assert!(!other.agrees_with(&known));
        }
        let dated = of("", "monday");
        assert!(of("", "").agrees_with(&dated) && of("\"v1\"", "monday").agrees_with(&dated));
        assert!(!of("", "friday").agrees_with(&dated));
    }

    #[test]
    fn a_head_says_what_it_says() {
        let facts = facts(
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length:1234\r\nETag: \"a-b\"\r\n\
             Last-Modified:\tSun, 06 Nov 1994 08:49:30 GMT \r\nAccept-Ranges: bytes\r\n\
             Connection: Keep-Alive, Close\r\nX-Other: whatever",
        );
        assert_eq!((facts.status, facts.length, facts.date), (200, Some(1234), Some(784_111_777)));
        assert_eq!(&*facts.validator.tag, "\"a-b\"");
        assert_eq!(&*facts.validator.modified, "Sun, 06 Nov 1994 08:49:30 GMT");
        assert!(facts.takes_ranges && facts.closes && !facts.is_old && !facts.is_chunked);
    }

    #[test]
    fn the_head_ends_where_it_ends() {
        let mut head = Head::new();
        let text = b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\nbody";
        assert_eq!(head.feed(text), Ok((text.len() - 4, true)));
        head.clear();
        assert_eq!(head.feed(b"HTTP/1.1 200\nA: b\n\nbody"), Ok((19, true)));
    }

    #[test]
    fn status_lines() {
        let status = |line: &str| {
            read(line).map(|head| (head.facts().status, head.facts().is_old)).unwrap_or_default()
        };
        assert_eq!(status("HTTP/1.1 404 Not Found"), (404, false));
        assert_eq!(status("HTTP/1.0 200 OK"), (200, true));
        assert_eq!(status("HTTP/1.1 200"), (200, false));
        for line in [
            "HTTP/2 200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 600 x",
            "HTTP/1.1 +20 x",
            "HTTP/1.1  200 OK",
            "http/1.1 200 OK",
            "SSH-2.0-OpenSSH_9.2",
            " HTTP/1.1 200 OK",
            "",
        ] {
            assert_eq!(status(line), (0, false), "{line}");
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        assert_eq!(facts("Content-Length: 5, 5\r\nContent-Length: 5").length, Some(5));
        assert_eq!(
            problem("Content-Length: 5\r\nContent-Length: 6"),
            "it has two different lengths"
        );
        assert_eq!(problem("Content-Length: 5, 6"), "it has two different lengths");
        for value in ["", "-1", "+5", "5x", "0x5", "5 5", "18446744073709551616", "5,"] {
            let problem = problem(&format!("Content-Length: {value}"));
            assert_eq!(problem, "its Content-Length is no number", "{value}");
        }
    }

    #[test]
    fn chunked_has_odd_spellings_and_wins_over_a_length() {
        for value in ["chunked", "Chunked", " \tCHUNKED\t", "identity, chunked", ",chunked,"] {
            assert!(facts(&format!("transfer-ENCODING:{value}")).is_chunked, "{value}");
        }
        let both =
            read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked").unwrap();
        assert_eq!(both.framing(false), Framing::Chunked);
        assert!(!both.keeps_open());
        for value in ["gzip, chunked", "chunked, chunked", "chunked, identity", "gzip", "xchunked"]
        {
            let problem = problem(&format!("Transfer-Encoding: {value}"));
            assert!(problem.contains("not asked for"), "{value}");
        }
        assert!(problem("Transfer-Encoding: \u{b}\r\nX:").contains("not asked for"));
        assert!(problem("Transfer-Encoding:").contains("empty"));
    }

    #[test]
    fn a_folded_line_is_one_line() {
        assert!(facts("Transfer-Encoding:\r\n chunked").is_chunked);
        assert_eq!(facts("X: y\r\n\tContent-Length: 7").length, None);
        // A status line is not folded.
        assert!(problem(" X: y").contains("no header field"));
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for line in ["Content-Length : 5", "no colon", ": x", "a b: c", "\u{1}: x"] {
            assert_eq!(problem(line), "a line of its head is no header field", "{line}");
        }
    }

    #[test]
    fn how_the_body_ends() {
        let framing = |text: &str, is_to_head| read(text).unwrap().framing(is_to_head);
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5";
        assert_eq!(framing(sized, false), Framing::Length(5));
        assert_eq!(framing(sized, true), Framing::Nothing);
        assert_eq!(framing("HTTP/1.0 200 OK", false), Framing::UntilClose);
        for status in [100, 103, 204, 304] {
            let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 5");
            assert_eq!(framing(&text, false), Framing::Nothing);
        }
    }

    #[test]
    fn only_strong_tags_count() {
        let tag = |value: &str| facts(&format!("ETag: {value}")).validator.tag.to_string();
        assert_eq!(tag("\"\""), "\"\"");
        for value in ["W/\"a\"", "a", "\"a", "\"a\"b\"", "\"a b\"", "\"é\"", "\""] {
            assert_eq!(tag(value), "", "{value}");
        }
        assert_eq!(tag(&format!("\"{}\"", "a".repeat(127))), "");
        assert_eq!(facts("Last-Modified: yesterday").validator.modified.as_str(), "");
    }

    #[test]
    fn parts_of_a_file() {
        let part = |value: &str| facts(&format!("Content-Range: {value}")).part;
        let some = |bytes, whole| Some(Part { bytes, whole });
        assert_eq!(part("bytes 0-499/1234"), some(Some((0, 499)), Some(1234)));
        assert_eq!(part("Bytes 5-5/*"), some(Some((5, 5)), None));
        assert_eq!(part("bytes */1234"), some(None, Some(1234)));
        for value in [
            "",
            "bytes",
            "bytes 0-499",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes -5/10",
            "bytes 0-/10",
            "bytes=0-4/10",
            "items 0-4/10",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(part(value), None, "{value}");
        }
    }

    #[test]
    fn when_to_come_again() {
        assert_eq!(facts("Retry-After: 120").retry_after, Some(120));
        let dated = facts("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!((dated.retry_after, dated.retry_at), (None, Some(784_111_777)));
    }

    #[test]
    fn a_head_without_an_end_is_refused_and_a_long_line_is_skipped() {
        let long = "a".repeat(5000);
        let skipped = facts(&format!("Set-Cookie: {long}\r\nContent-Length: 5"));
        assert_eq!(skipped.length, Some(5));
        assert!(problem(&format!("Location: /{long}")).contains("longer than 4 KiB"));
        assert!(problem(&format!("ETag: \"{long}\"")).contains("longer than 4 KiB"));
        let many = "X: y\r\n".repeat(2_000_000);
        assert!(problem(&many).contains("longer than 32 KiB"));
        assert!(problem(&"a".repeat(100_000)).contains("longer than 32 KiB"));
    }
}
