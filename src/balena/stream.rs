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
        if self.value.whole().is_some_and(|bytes| !json::is_word(bytes)) {
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
