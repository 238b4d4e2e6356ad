//! Lines and words of configuration files, as slices of the file: nothing is copied, whatever the length.
//!
//! A backslash at the end of a line continues it, which here counts as a blank: no file that makes sense breaks a word
//! in two.

/// The lines of a file; a continued one is one. Comments (`#`, `;`) and blank lines are left out.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
}

/// The lines of `bytes`.
pub(super) fn lines(bytes: &[u8]) -> Lines<'_> {
    Lines { rest: bytes }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let is_comment = matches!(self.rest.first()?, b'#' | b';');
            // The end of a comment is the end of its line, backslash or not.
            let end = line_end(self.rest, !is_comment);
            let (line, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest;
            if !is_comment {
                return Some(trimmed(line));
            }
        }
    }
}

/// A line without what is blank at its end, a continuation into an empty line included.
fn trimmed(line: &[u8]) -> &[u8] {
    let mut trimmed = line.trim_ascii_end();
    while let Some(rest) = trimmed.strip_suffix(b"\\") {
        if line.get(trimmed.len()) != Some(&b'\n') {
            break;
        }
        trimmed = rest.trim_ascii_end();
    }
    trimmed
}

/// Where the line ends with which `bytes` begins.
fn line_end(bytes: &[u8], continued: bool) -> usize {
    let mut before = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte == b'\n' && !(continued && before == b'\\') {
            return at;
        }
        before = byte;
    }
    bytes.len()
}

/// The words of a line.
pub(super) struct Words<'a> {
    rest: &'a [u8],
}

/// The words of `line`.
pub(super) fn words(line: &[u8]) -> Words<'_> {
    Words { rest: line }
}

impl<'a> Words<'a> {
    /// What has not been read yet, without blanks around it.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest.trim_ascii()
    }

    /// The next word as text; empty when there is none or when it is not UTF-8.
    pub(super) fn text(&mut self) -> &'a str {
        text(self.next().unwrap_or_default())
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let end = word_end(self.rest);
            let (word, rest) = self.rest.split_at_checked(end)?;
            if !word.is_empty() {
                self.rest = rest;
                return Some(word);
            }
            self.rest = rest.get(1..)?;
        }
    }
}

/// Where the word ends with which `bytes` begins; 0 at a blank.
fn word_end(bytes: &[u8]) -> usize {
    let mut after = bytes.iter().skip(1);
    for (at, byte) in bytes.iter().enumerate() {
        let next = after.next();
        if byte.is_ascii_whitespace() || (*byte == b'\\' && next == Some(&b'\n')) {
            return at;
        }
    }
    bytes.len()
}

/// Name and value of `NAME=VALUE`, without blanks around them.
pub(super) fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|&byte| byte == b'=')?;
    let (name, value) = line.split_at_checked(at)?;
    Some((name.trim_ascii_end(), value.get(1..)?.trim_ascii()))
}

/// A value without a pair of quotation marks around it.
pub(super) fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Bytes as text; empty when they are not UTF-8.
pub(super) fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_one_and_comments_are_none() {
        let file = b"\n # no \\\n a b\\\n  c \\\n\nd\r\n;no\ne\\";
        let all: Vec<Vec<&str>> = lines(file).map(|line| words(line).map(text).collect()).collect();
        assert_eq!(all, [vec!["a", "b", "c"], vec!["d"], vec!["e\\"]]);
    }

    #[test]
    fn what_is_left_of_a_line() {
        let mut words = words(b"key a  b ");
        assert_eq!(words.text(), "key");
        assert_eq!(words.rest(), b"a  b");
        assert_eq!((words.text(), words.text(), words.text()), ("a", "b", ""));
    }
}
