//! JSON that comes in pieces (RFC 8259), read in fixed memory: whatever its size, and whatever is in it that nobody
//! asked for.
//!
//! Of strings and keys only as much is kept as anybody wants to know; the rest is checked and skipped.

use super::json;
use crate::text::Text;

/// The longest way of keys that can be told from others, in bytes: what is further down is skipped.
const PATH: usize = 96;
/// The longest value that is kept, in bytes, escapes as they are.
const VALUE: usize = 96;

const DEPTH: usize = json::MAX_DEPTH as usize;

/// What can come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The outermost value.
    Start,
    Value,
    /// A value or the end of the array.
    FirstElement,
    Key,
    /// A key or the end of the object.
    FirstKey,
    Colon,
    /// A comma or an end.
    Comma,
    InString,
    Escape,
    /// So many digits of `\u`.
    Unicode(u8),
    InWord,
    /// Nothing but white space.
    End,
    Broken,
}

/// What kind of value was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The beginning of an object or array.
    Container,
    /// A string.
    Text,
    /// A number, `true`, `false` or `null`.
    Word,
}

/// A value and the way to it.
pub struct Found<'a> {
    path: &'a [u8],
    /// What kind of value.
    pub kind: Kind,
    /// As it is spelled, quotes left out; empty where it is too long.
    raw: &'a [u8],
}

impl Found<'_> {
    /// True when these keys, with slashes between them, lead to it; those of elements of arrays are empty.
    pub fn is(&self, path: &str) -> bool {
        self.below(path).is_some_and(|rest| rest == 0)
    }

    /// True when it is that, or something in it.
    pub fn is_in(&self, path: &str) -> bool {
        self.below(path).is_some()
    }

    /// How many more keys there are.
    fn below(&self, path: &str) -> Option<usize> {
        // A NUL cannot stand in a checked key.
        let mut keys = self.path.split(|byte| *byte == 0).skip(1);
        for name in path.split('/') {
            keys.next().filter(|key| json::is_key(key, name))?;
        }
        Some(keys.count())
    }

    /// A string; nothing where it is none or has more than `N` bytes.
    pub fn text<const N: usize>(&self) -> Option<Text<N>> {
        if self.kind == Kind::Text { json::decoded(self.raw) } else { None }
    }

    /// True when it is `null`.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Word && self.raw == b"null"
    }

    /// A whole number that is not negative.
    pub fn number(&self) -> Option<u64> {
        if self.kind != Kind::Word {
            return None;
        }
        core::str::from_utf8(self.raw).ok()?.parse().ok()
    }
}

/// Reads a document piece by piece.
pub struct Reader {
    state: State,
    /// The way to the value that is read: a NUL before each key, escapes as they are.
    path: Kept<PATH>,
    value: Kept<VALUE>,
    /// The string that is read is a key.
    is_key: bool,
    depth: usize,
    /// Of every object and array around: how long the way to it is, and whether it is an array.
    around: [(usize, bool); DEPTH],
}

/// The first bytes of something, and its length.
struct Kept<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Kept<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// All of it; nothing where there was more.
    fn whole(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

type Checked = Result<(), &'static str>;

const BROKEN: &str = "it is not valid JSON";

impl Reader {
    /// Before the first byte.
    pub const fn new() -> Self {
        Self {
            state: State::Start,
            path: Kept::new(),
            value: Kept::new(),
            is_key: false,
            depth: 0,
            around: [(0, false); DEPTH],
        }
    }

    /// Takes the next piece, and shows what ends or begins in it to `visit`. An error says what is wrong with the
    /// document, as a clause.
    pub fn push(&mut self, piece: &[u8], visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        let result = piece.iter().try_for_each(|byte| self.take(*byte, visit));
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    /// There is no more: an error where there should be.
    pub fn finish(&self) -> Checked {
        match self.state {
            State::End => Ok(()),
            State::Start => Err("it is empty"),
            State::Broken => Err(BROKEN),
            _ => Err("it ends too early"),
        }
    }

    fn take(&mut self, byte: u8, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        match self.state {
            State::InString | State::Escape | State::Unicode(_) => self.take_of_string(byte, visit),
            State::InWord if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte) => {
                self.keep(byte);
                Ok(())
            }
            State::InWord => {
                self.end_word(visit)?;
                self.take_between(byte, visit)
            }
            _ => self.take_between(byte, visit),
        }
    }

    fn take_of_string(&mut self, byte: u8, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        self.state = match (self.state, byte) {
            (State::InString, b'"') => return self.end_string(visit),
            (State::InString, b'\\') => State::Escape,
            (State::InString, 0..0x20) => return Err("a control character is in a string"),
            (State::Escape, b'u') => State::Unicode(4),
            (State::Unicode(left), _) if left > 1 && byte.is_ascii_hexdigit() => {
                State::Unicode(left - 1)
            }
            (State::Unicode(_), _) if byte.is_ascii_hexdigit() => State::InString,
            (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                State::InString
            }
            (State::InString, _) => State::InString,
            _ => return Err("an unknown escape is in a string"),
        };
        self.keep(byte);
        Ok(())
    }

    /// What stands between keys and values, or begins one.
    fn take_between(&mut self, byte: u8, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        use State::{Colon, Comma, FirstElement, FirstKey, Key, Start, Value};
        let (_, in_array) = self.innermost();
        match (self.state, byte) {
            (State::Broken, _) => return Err(BROKEN),
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (Start | Value | FirstElement, b'{' | b'[') => return self.open(byte == b'[', visit),
            (Start, _) => return Err("it is no JSON"),
            (State::End, _) => return Err("something follows its end"),
            (FirstElement, b']') | (FirstKey, b'}') => self.close(),
            (Comma, b']') if in_array => self.close(),
            (Comma, b'}') if !in_array => self.close(),
            (Comma, b',') if in_array => self.begin_element(Value),
            (Comma, b',') => self.state = Key,
            (Colon, b':') => self.state = Value,
            (Key | FirstKey, b'"') => {
                self.begin_element(State::InString);
                self.is_key = true;
            }
            (Value | FirstElement, b'"') => self.begin_value(State::InString),
            (Value | FirstElement, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                self.begin_value(State::InWord);
                self.keep(byte);
            }
            _ => return Err(BROKEN),
        }
        Ok(())
    }

    /// The innermost object or array: how long the way to it is, and whether it is an array.
    fn innermost(&self) -> (usize, bool) {
        let index = self.depth.wrapping_sub(1);
        self.around.get(index).copied().unwrap_or_default()
    }

    fn keep(&mut self, byte: u8) {
        if self.is_key { self.path.push(byte) } else { self.value.push(byte) }
    }

    fn begin_value(&mut self, state: State) {
        self.value.length = 0;
        self.is_key = false;
        self.state = state;
    }

    /// The way goes on from the innermost object or array, to a key that is still to come, or to an element, which has
    /// none.
    fn begin_element(&mut self, state: State) {
        (self.path.length, _) = self.innermost();
        self.path.push(0);
        self.state = state;
    }

    fn open(&mut self, is_array: bool, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        self.value.length = 0;
        self.found(Kind::Container, visit);
        let around = self.around.get_mut(self.depth).ok_or("it is nested deeper than 64 levels")?;
        *around = (self.path.length, is_array);
        self.depth += 1;
        if is_array {
            self.begin_element(State::FirstElement);
        } else {
            self.state = State::FirstKey;
        }
        Ok(())
    }

    fn close(&mut self) {
        (self.path.length, _) = self.innermost();
        self.depth = self.depth.saturating_sub(1);
        self.state = if self.depth > 0 { State::Comma } else { State::End };
    }

    fn end_string(&mut self, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        if self.is_key {
            self.state = State::Colon;
            return Ok(());
        }
        if self.value.whole().is_some_and(|bytes| core::str::from_utf8(bytes).is_err()) {
            return Err("it is not UTF-8");
        }
        self.found(Kind::Text, visit);
        self.state = State::Comma;
        Ok(())
    }

    fn end_word(&mut self, visit: &mut dyn FnMut(&Found<'_>)) -> Checked {
        // There may be a limit for numbers (RFC 8259, section 9).
        let word = self.value.whole().ok_or("a number in it has more than 96 digits")?;
        if !json::is_word(word) {
            return Err(BROKEN);
        }
        self.found(Kind::Word, visit);
        self.state = State::Comma;
        Ok(())
    }

    fn found(&self, kind: Kind, visit: &mut dyn FnMut(&Found<'_>)) {
        if let Some(path) = self.path.whole() {
            visit(&Found { path, kind, raw: self.value.whole().unwrap_or_default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is found, one line each, where the document comes in pieces of these lengths.
    fn read(document: &[u8], lengths: &mut dyn FnMut() -> usize) -> Result<String, String> {
        let mut reader = Reader::new();
        let mut lines = String::new();
        let mut visit = |found: &Found<'_>| {
            let path = String::from_utf8_lossy(found.path).replace('\0', "/");
            let raw = String::from_utf8_lossy(found.raw);
            lines += &format!("{path}:{:?}:{raw}\n", found.kind);
        };
        let mut rest = document;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let (piece, after) = rest.split_at(lengths().clamp(1, rest.len()));
            result = reader.push(piece, &mut visit);
            rest = after;
        }
        result.and_then(|()| reader.finish()).map_err(String::from).map(|()| lines)
    }

    fn whole(document: &[u8]) -> Result<String, String> {
        read(document, &mut || document.len())
    }

    fn refusal(document: &str) -> String {
        whole(document.as_bytes()).unwrap_err()
    }

    const DOCUMENT: &str = "\r\n\t {\"d\":[ {\"raw_version\" : \"5.1.20+rev1\"},{\"raw\\u005fversion\":\"\\u0035\\ud83d\\ude00ü\\\"\"}\
                            ,{}, [] ,null,-1.5e+3],\"\":{\"a\":{\"b\":true , \"c\":0}} , \"e\":\"\"} \n";

    #[test]
    fn values_are_found_with_the_way_to_them() {
        let lines = "\
:Container:
/d:Container:
/d/:Container:
/d//raw_version:Text:5.1.20+rev1
/d/:Container:
/d//raw\\u005fversion:Text:\\u0035\\ud83d\\ude00ü\\\"
/d/:Container:
/d/:Container:
/d/:Word:null
/d/:Word:-1.5e+3
/:Container:
//a:Container:
//a/b:Word:true
//a/c:Word:0
/e:Text:
";
        assert_eq!(whole(DOCUMENT.as_bytes()).unwrap(), lines);
        // Cut anywhere, in the middle of a character, too; and in three.
        let bytes = DOCUMENT.as_bytes();
        for first in 1..bytes.len() {
            for second in [1, 2, 7, bytes.len()] {
                let mut lengths = [first, second, bytes.len()].into_iter().cycle();
                assert_eq!(read(bytes, &mut || lengths.next().unwrap()).unwrap(), lines);
            }
        }
        assert_eq!(read(bytes, &mut || 1).unwrap(), lines);
        let mut random = 1u32;
        for _ in 0..300 {
            let mut lengths = || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                1 + (random >> 24) as usize % 20
            };
            assert_eq!(read(bytes, &mut lengths).unwrap(), lines);
        }
    }

    #[test]
    fn what_was_found_is_told_by_its_keys_however_they_are_spelled() {
        let mut found = [false; 4];
        let mut reader = Reader::new();
        let document =
            "{\"d\":[{\"raw\\u005fversion\":\"\\u0035\\ud83d\\ude00ü\\\"\",\"d/x\":7,\"n\":null}]}";
        let mut visit = |value: &Found<'_>| {
            if value.is("d//raw_version") {
                assert_eq!(value.text::<16>().as_deref(), Some("5😀ü\""));
                assert!(value.text::<7>().is_none() && value.number().is_none(), "never cut");
                assert!(value.is_in("d/") && value.is_in("d") && !value.is("d/"));
                found[0] = true;
            }
            found[1] |= value.is("d//d/x") || value.is("d//d") || value.is("raw_version");
            found[2] |= value.number() == Some(7) && value.text::<16>().is_none();
            found[3] |= value.is_null() && value.is("d//n");
        };
        reader.push(document.as_bytes(), &mut visit).unwrap();
        assert_eq!(found, [true, false, true, true]);
    }

    #[test]
    fn whatever_is_larger_than_any_buffer_is_skipped() {
        let long = "x\\n\\u00e9é".repeat(100_000);
        let digits = "9".repeat(30);
        let document = format!(
            "{{\"{long}\":{{\"a\":1}},\"deep\":{}1{},\"long\":\"{long}\",\"number\":-{digits}.{digits}e{digits},\
             \"list\":[{}],\"size\":42}}",
            "[".repeat(63),
            "]".repeat(63),
            "{\"a\":[1,\"b\",null]},".repeat(20_000) + "0"
        );
        let mut size = None;
        let mut texts = 0;
        let mut reader = Reader::new();
        for piece in document.as_bytes().chunks(1000) {
            let mut visit = |found: &Found<'_>| {
                if found.is("size") {
                    size = found.number();
                }
                if found.is("long") {
                    assert_eq!(found.text::<1000>().as_deref(), Some(""));
                    texts += 1;
                }
            };
            reader.push(piece, &mut visit).unwrap();
        }
        reader.finish().unwrap();
        assert_eq!((size, texts), (Some(42), 1));
        assert!(size_of::<Reader>() < 2048);
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (document, why) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("<!DOCTYPE html><html>", "it is no JSON"),
            ("\u{feff}{}", "it is no JSON"),
            ("OK", "it is no JSON"),
            ("\"a\"", "it is no JSON"),
            ("7", "it is no JSON"),
            ("{} x", "something follows its end"),
            ("{}{}", "something follows its end"),
            ("{\"a\":1", "it ends too early"),
            ("{\"a\":tr", "it ends too early"),
            ("{\"a\":\"", "it ends too early"),
            ("[", "it ends too early"),
            ("{\"a\":1,}", BROKEN),
            ("[1,]", BROKEN),
            ("[,1]", BROKEN),
            ("[1 2]", BROKEN),
            ("[1}", BROKEN),
            ("{\"a\":1]", BROKEN),
            ("{\"a\" 1}", BROKEN),
            ("{a:1}", BROKEN),
            ("{1:1}", BROKEN),
            ("[tru]", BROKEN),
            ("[nulll]", BROKEN),
            ("[01]", BROKEN),
            ("[1.]", BROKEN),
            ("[-]", BROKEN),
            ("[1+1]", BROKEN),
            ("[\0]", BROKEN),
            (&format!("[{}]", "9".repeat(97)), "a number in it has more than 96 digits"),
            (&format!("[{}]", "k".repeat(97)), "a number in it has more than 96 digits"),
            ("[\"\n\"]", "a control character is in a string"),
            ("{\"\0\":1}", "a control character is in a string"),
            ("[\"\\x\"]", "an unknown escape is in a string"),
            ("[\"\\u12g4\"]", "an unknown escape is in a string"),
        ] {
            assert_eq!(refusal(document), why, "{document}");
            let bytes = document.as_bytes();
            assert_eq!(read(bytes, &mut || 1).unwrap_err(), why, "{document}, byte by byte");
        }
        assert_eq!(whole(b"[\"\xff\"]").unwrap_err(), "it is not UTF-8");
        assert!(whole("[".repeat(64).as_bytes()).unwrap_err().contains("too early"));
        assert!(refusal(&"[".repeat(65)).contains("deeper than 64 levels"));
        assert!(refusal(&"{\"a\":".repeat(100_000)).contains("deeper than 64 levels"));
        // Once broken it stays so.
        let mut reader = Reader::new();
        assert!(reader.push(b"{]", &mut |_| {}).is_err());
        assert!(reader.push(b"}", &mut |_| {}).is_err() && reader.finish().is_err());
    }

    #[test]
    fn no_cut_is_taken_for_the_whole() {
        for end in 0..DOCUMENT.trim_ascii_end().len() {
            assert!(whole(&DOCUMENT.as_bytes()[..end]).is_err(), "{end}");
        }
    }
}
