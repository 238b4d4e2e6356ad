//! A JSON checker that finds the members of an object without changing a byte of it (RFC 8259).
//!
//! config.json is edited in place (invariant 9), so what is needed is where things are, and a good message where they
//! are wrong. Nesting is bounded and nothing is copied.

use crate::text::{Text, Writer};
use core::ops::Range;
use ufmt::uWrite;

/// The deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: u32 = 64;
/// The most members that the outermost object may have: each is compared with all before it. Real ones have 60.
pub const MAX_MEMBERS: usize = 256;

/// What is wrong, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong.
    pub what: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
}

impl Problem {
    /// As a clause for an error message.
    pub fn text(&self) -> Text<120> {
        crate::text!("line {}, column {}: {}", self.line, self.column, self.what)
    }
}

/// One member of the outermost object: where its key (without quotes) and its value are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The key's bytes, escapes as they are.
    pub key: Range<usize>,
    /// The value's bytes, quotes included.
    pub value: Range<usize>,
}

/// Checks a whole document whose outermost value is an object, and visits its members in order. No two of them may have
/// the same key, however it is spelled.
pub fn check_object(bytes: &[u8], visit: &mut dyn FnMut(Member)) -> Result<(), Problem> {
    let mut scanner = Scanner { bytes, at: 0, keys: heapless::Vec::new() };
    let result = scanner.document(visit);
    result.map_err(|what| scanner.problem(what))
}

/// The characters of a checked string, from what is between its quotes. Half of a surrogate pair is U+FFFD.
pub fn unescaped(bytes: &[u8]) -> impl Iterator<Item = char> {
    Unescaped { rest: core::str::from_utf8(bytes).unwrap_or_default().chars() }
}

/// True when what is between the quotes of a key spells this name.
pub fn is_key(bytes: &[u8], name: &str) -> bool {
    unescaped(bytes).eq(name.chars())
}

/// What is between the quotes of a checked string, escapes read; nothing where that has more than `N` bytes.
pub fn decoded<const N: usize>(bytes: &[u8]) -> Option<Text<N>> {
    let (text, is_cut) = Text::build_whole(&mut |writer: &mut Writer<'_>| {
        unescaped(bytes).try_for_each(|c| writer.write_str(c.encode_utf8(&mut [0; 4])))
    });
    (!is_cut).then_some(text)
}

/// True for a whole number, another one, `true`, `false` and `null`.
#[cfg(feature = "http")]
pub fn is_word(bytes: &[u8]) -> bool {
    let mut scanner = Scanner { bytes, at: 0, keys: heapless::Vec::new() };
    let is_number = matches!(bytes, [b'-' | b'0'..=b'9', ..]);
    let result = if is_number { scanner.number() } else { scanner.word() };
    result.is_ok() && scanner.at == bytes.len()
}

struct Unescaped<'a> {
    rest: core::str::Chars<'a>,
}

impl Unescaped<'_> {
    /// The number behind `\u`.
    fn unit(&mut self) -> u32 {
        (0..4)
            .fold(0, |sum, _| sum << 4 | self.rest.next().and_then(|c| c.to_digit(16)).unwrap_or(0))
    }

    /// What `\u` and its number stand for, with the second half of a pair.
    fn unicode(&mut self) -> char {
        let first = self.unit();
        let mut ahead = Unescaped { rest: self.rest.clone() };
        if (0xd800..0xdc00).contains(&first)
            && (ahead.rest.next(), ahead.rest.next()) == (Some('\\'), Some('u'))
        {
            let second = ahead.unit();
            if (0xdc00..0xe000).contains(&second) {
                self.rest = ahead.rest;
                let pair = 0x10000 + ((first & 0x3ff) << 10 | second & 0x3ff);
                return char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
        }
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self.rest.next()? {
            '\\' => {}
            plain => return Some(plain),
        }
        Some(match self.rest.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode(),
            same => same,
        })
    }
}

type Checked<T = ()> = Result<T, &'static str>;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The keys of the outermost object so far.
    keys: heapless::Vec<Range<usize>, MAX_MEMBERS>,
}

impl Scanner<'_> {
    fn problem(&self, what: &'static str) -> Problem {
        let before = self.bytes.get(..self.at).unwrap_or(self.bytes);
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Problem {
            what,
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    }

    fn document(&mut self, visit: &mut dyn FnMut(Member)) -> Checked {
        match self.bytes {
            [0xef, 0xbb, 0xbf, ..] => return Err("a byte order mark, which JSON must not have"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err("the file is UTF-16, not UTF-8"),
            _ => {}
        }
        if let Err(error) = core::str::from_utf8(self.bytes) {
            self.at = error.valid_up_to();
            return Err("the file is not UTF-8");
        }
        if self.after_space() != Some(b'{') {
            return Err(self.unexpected("expected an object, that is '{'"));
        }
        self.at += 1;
        self.members(0, visit)?;
        match self.after_space() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("something follows the end of the object")),
        }
    }

    /// What to say about what stands here: a NUL byte is one, wherever it stands.
    fn unexpected(&self, what: &'static str) -> &'static str {
        match self.peek() {
            Some(0) => "a NUL byte",
            None => "the file ends too early",
            _ => what,
        }
    }

    /// Notes a key of the outermost object, and refuses one that was there before.
    fn note(&mut self, key: &Range<usize>) -> Checked {
        let text =
            |range: &Range<usize>| unescaped(self.bytes.get(range.clone()).unwrap_or_default());
        let is_double = self.keys.iter().any(|before| text(before).eq(text(key)));
        let is_full = self.keys.push(key.clone()).is_err();
        if is_double || is_full {
            self.at = key.start - 1;
        }
        match (is_double, is_full) {
            (true, _) => Err("this key is there for the second time"),
            (_, true) => Err("more than 256 keys"),
            _ => Ok(()),
        }
    }

    /// The rest of an object behind its brace.
    fn members(&mut self, depth: u32, visit: &mut dyn FnMut(Member)) -> Checked {
        if self.after_space() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.after_space() != Some(b'"') {
                return Err(self.unexpected("expected a key in quotes"));
            }
            let key = self.string()?;
            if depth == 0 {
                self.note(&key)?;
            }
            if self.after_space() != Some(b':') {
                return Err(self.unexpected("expected ':' after the key"));
            }
            self.at += 1;
            let value = self.value(depth)?;
            visit(Member { key, value });
            match self.after_space() {
                Some(b',') => self.step_over_comma(b'}')?,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("expected ',' or '}'")),
            }
        }
    }

    /// The rest of an array behind its bracket.
    fn elements(&mut self, depth: u32) -> Checked {
        if self.after_space() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            match self.after_space() {
                Some(b',') => self.step_over_comma(b']')?,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("expected ',' or ']'")),
            }
        }
    }

    /// A comma, after which the object or array may not end.
    fn step_over_comma(&mut self, end: u8) -> Checked {
        let comma = self.at;
        self.at += 1;
        if self.after_space() == Some(end) {
            self.at = comma;
            return Err("a comma after the last element");
        }
        Ok(())
    }

    fn value(&mut self, depth: u32) -> Checked<Range<usize>> {
        if depth >= MAX_DEPTH {
            return Err("nested deeper than 64 levels");
        }
        let first = self.after_space();
        let start = self.at;
        match first {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{') => {
                self.at += 1;
                self.members(depth + 1, &mut |_| {})?;
            }
            Some(b'[') => {
                self.at += 1;
                self.elements(depth + 1)?;
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        }
        Ok(start..self.at)
    }

    fn word(&mut self) -> Checked {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let words: &[&[u8]] = &[b"true", b"false", b"null"];
        let word = words.iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or_else(|| self.unexpected("expected a value"))?.len();
        Ok(())
    }

    fn number(&mut self) -> Checked {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.step_over(|byte| byte.is_ascii_digit());
        if digits == 0 || leading_zero && digits > 1 {
            return Err("not a number");
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.step_over(|byte| byte.is_ascii_digit()) == 0 {
                return Err("not a number");
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.step_over(|byte| byte.is_ascii_digit()) == 0 {
                return Err("not a number");
            }
        }
        Ok(())
    }

    /// A string from its opening quote on; gives what is between the quotes.
    fn string(&mut self) -> Checked<Range<usize>> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek().ok_or("a string does not end")? {
                b'"' => {
                    self.at += 1;
                    return Ok(start..self.at - 1);
                }
                b'\\' => self.escape()?,
                0..0x20 => return Err(self.unexpected("a control character in a string")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Checked {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err("\\u without four hexadecimal digits");
                }
                self.at += 4;
            }
            _ => return Err("an unknown escape in a string"),
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn after_space(&mut self) -> Option<u8> {
        self.step_over(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.peek()
    }

    fn step_over(&mut self, is_wanted: impl Fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&is_wanted) {
            self.at += 1;
        }
        self.at - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<(String, String)>, Problem> {
        let mut found = Vec::new();
        check_object(text.as_bytes(), &mut |member| {
            found.push((text[member.key].to_string(), text[member.value].to_string()));
        })?;
        Ok(found)
    }

    #[test]
    fn members_are_found_where_they_are() {
        let text = " {\"a\" : 1.5e-3, \"b\":\"x\\\"\\u00e9\", \"c\":[1,{\"d\":null}], \"e\":{}}\n";
        let found = keys(text).unwrap();
        let values: Vec<_> = found.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1.5e-3", "\"x\\\"\\u00e9\"", "[1,{\"d\":null}]", "{}"]);
    }

    #[test]
    fn problems_are_placed() {
        for (text, line, column) in [
            ("", 1, 1),
            ("[]", 1, 1),
            ("{\"a\":1,}", 1, 7),
            ("{\"a\":[1, 2 ,\n ]}", 1, 12),
            ("{\"a\":--1}", 1, 7),
            ("{\n\"a\": 01}", 2, 8),
            ("{\n \"a\": tru}", 2, 7),
            ("{\"a\":1} x", 1, 9),
            ("{\"a\":\"\0\"}", 1, 7),
            ("{\"a\":1", 1, 7),
            ("{\"a\" 1}", 1, 6),
            ("{a:1}", 1, 2),
            ("{\"a\":\"\\x\"}", 1, 8),
        ] {
            let problem = keys(text).unwrap_err();
            assert_eq!((problem.line, problem.column), (line, column), "{text} {problem:?}");
        }
    }

    fn problem(bytes: &[u8]) -> String {
        check_object(bytes, &mut |_| {}).unwrap_err().text().to_string()
    }

    #[test]
    fn what_editors_and_other_systems_do_to_a_file_is_named() {
        for (bytes, text) in [
            (
                &b"\xef\xbb\xbf{}"[..],
                "line 1, column 1: a byte order mark, which JSON must not have",
            ),
            (b"\xff\xfe{\0}\0", "line 1, column 1: the file is UTF-16, not UTF-8"),
            (b"{\n\"a\": \"\xe9\"}", "line 2, column 7: the file is not UTF-8"),
            (b"{\"a\":1}\n\0\0\0", "line 2, column 1: a NUL byte"),
            (b"{\"a\":\0}", "line 1, column 6: a NUL byte"),
            (b"{\"a\0\":1}", "line 1, column 4: a NUL byte"),
            (b"\0", "line 1, column 1: a NUL byte"),
            (b"", "line 1, column 1: the file ends too early"),
            (b"{\"a\":1,\r\n", "line 2, column 1: the file ends too early"),
            (b"{\"a\":1,,}", "line 1, column 8: expected a key in quotes"),
            (b"{'a':1}", "line 1, column 2: expected a key in quotes"),
            (b"{\"a\":1 // x\n}", "line 1, column 8: expected ',' or '}'"),
        ] {
            assert_eq!(problem(bytes), text);
        }
    }

    #[test]
    fn a_key_that_comes_again_is_refused_however_it_is_spelled() {
        let text = "{\"apiKey\":1,\n \"api\\u004bey\":2}";
        assert_eq!(
            problem(text.as_bytes()),
            "line 2, column 2: this key is there for the second time"
        );
        assert!(keys("{\"a\":{\"b\":1},\"b\":{\"b\":1,\"b\":2}}").is_ok(), "only the outermost");
        let many = |count| {
            let members: Vec<_> = (0..count).map(|n| format!("\"k{n}\":0")).collect();
            keys(&format!("{{{}}}", members.join(",")))
        };
        assert_eq!(many(MAX_MEMBERS).unwrap().len(), MAX_MEMBERS);
        assert_eq!(many(MAX_MEMBERS + 1).unwrap_err().what, "more than 256 keys");
    }

    #[test]
    fn escapes_are_read() {
        for (text, value) in [
            ("a\\\"\\\\\\/b", "a\"\\/b"),
            ("\\b\\f\\n\\r\\t", "\u{8}\u{c}\n\r\t"),
            ("\\u004B\\u00e9é", "Kéé"),
            ("\\ud83d\\ude00!", "😀!"),
            ("\\ud83dx", "\u{fffd}x"),
            ("\\ud83d\\u0041", "\u{fffd}A"),
            ("\\ude00", "\u{fffd}"),
            ("\\u12", "\u{1200}"),
            ("\\", ""),
        ] {
            assert_eq!(unescaped(text.as_bytes()).collect::<String>(), value, "{text}");
        }
        assert!(is_key(b"api\\u004bey", "apiKey") && !is_key(b"apiKey2", "apiKey"));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        let good = b"{\"a\": [1, -2.5e+7, {\"b\\u00e9\": null}], \"c\": \"\\ud83d\\ude00\"}";
        for end in 0..good.len() {
            assert!(check_object(&good[..end], &mut |_| {}).is_err());
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bytes = good.to_vec();
                bytes[end] ^= flip;
                let _ = check_object(&bytes, &mut |member| {
                    let _ = unescaped(&bytes[member.key]).count();
                });
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(keys(&deep(60)).is_ok());
        assert!(keys(&deep(64)).is_ok());
        assert_eq!(
            problem(deep(1_000_000).as_bytes()),
            "line 1, column 70: nested deeper than 64 levels"
        );
    }
}
