//! A JSON checker that finds the members of an object without changing a byte of it (RFC 8259).
//!
//! config.json is edited in place (invariant 9), so what is needed is where things are, and a good message where they
//! are wrong. Nesting is bounded and nothing is copied.

use crate::text::Text;
use core::ops::Range;

/// The deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: u32 = 64;

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

/// Checks a whole document whose outermost value is an object, and visits its members in order.
pub fn check_object(bytes: &[u8], mut visit: impl FnMut(Member)) -> Result<(), Problem> {
    let mut scanner = Scanner { bytes, at: 0 };
    let result = scanner.document(&mut visit);
    result.map_err(|what| scanner.problem(what))
}

type Checked<T = ()> = Result<T, &'static str>;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
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

    fn document(&mut self, visit: &mut impl FnMut(Member)) -> Checked {
        if core::str::from_utf8(self.bytes).is_err() {
            return Err("the file is not UTF-8");
        }
        if self.after_space() != Some(b'{') {
            return Err("expected an object, that is '{'");
        }
        self.at += 1;
        self.members(0, visit)?;
        match self.after_space() {
            None => Ok(()),
            Some(_) => Err("something follows the end of the object"),
        }
    }

    /// The rest of an object behind its brace.
    fn members(&mut self, depth: u32, visit: &mut impl FnMut(Member)) -> Checked {
        if self.after_space() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.after_space() != Some(b'"') {
                return Err("expected a key in quotes");
            }
            let key = self.string()?;
            if self.after_space() != Some(b':') {
                return Err("expected ':' after the key");
            }
            self.at += 1;
            let value = self.value(depth)?;
            visit(Member { key, value });
            match self.after_space() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err("expected ',' or '}'"),
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
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err("expected ',' or ']'"),
            }
        }
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
        let words: [&[u8]; 3] = [b"true", b"false", b"null"];
        let word = words.into_iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or("expected a value")?.len();
        Ok(())
    }

    fn number(&mut self) -> Checked {
        self.step_over(|byte| byte == b'-');
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
                0..0x20 => return Err("a control character in a string"),
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
        check_object(text.as_bytes(), |member| {
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
            ("{\"a\":1,}", 1, 8),
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

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(keys(&deep(60)).is_ok());
        assert!(keys(&deep(100_000)).is_err());
    }
}
