//! Lines and words of configuration files, as slices of the file: nothing is copied, whatever the length. And which
//! names a pattern means, and which files were read behind each other.
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

/// What stands before each file, with its path in the rest of that line, where several are read behind each other.
pub(super) const FILE: u8 = 0;
/// The same before files of another program.
pub(super) const FOREIGN: u8 = 1;

/// Files that were read behind each other, each behind this mark: their paths and what is in them.
pub(super) fn files(bytes: &[u8], mark: u8) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    let is_mark = move |byte: &u8| *byte == mark;
    bytes.split(is_mark).skip(1).filter_map(|file| {
        let end = file.iter().position(|byte| *byte == b'\n')?;
        Some((text(file.get(..end)?), file.get(end..)?))
    })
}

/// Whether the whole name is like the pattern (fnmatch(3)): `*` is any bytes, `?` any byte, `[a-z]` and `[!a-z]` one
/// of some.
pub(super) fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut rest, mut seen) = (pattern, 0);
    // What follows the last star, and how much of the name stands before what it is taken for.
    let mut star: Option<(&[u8], usize)> = None;
    while let Some(&byte) = name.get(seen) {
        if let Some(behind) = rest.strip_prefix(b"*") {
            star = Some((behind, seen));
            rest = behind;
            continue;
        }
        match (behind_one(rest, byte), star) {
            (Some(behind), _) => {
                rest = behind;
                seen += 1;
            }
            (None, Some((behind, before))) => {
                star = Some((behind, before + 1));
                rest = behind;
                seen = before + 1;
            }
            (None, None) => return false,
        }
    }
    rest.iter().all(|byte| *byte == b'*')
}

/// What is left of a pattern behind the place that takes this byte.
fn behind_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => behind_set(rest, byte),
        b'\\' => rest.strip_prefix(&[byte]),
        _ => (first == byte).then_some(rest),
    }
}

/// The same for a set, without the bracket in front.
fn behind_set(set: &[u8], byte: u8) -> Option<&[u8]> {
    let others = set.strip_prefix(b"!").or(set.strip_prefix(b"^"));
    let set = others.unwrap_or(set);
    // A bracket that comes first is one of the set.
    let end = 1 + set.iter().skip(1).position(|byte| *byte == b']')?;
    let (mut members, rest) = set.split_at_checked(end)?;
    let mut is_in = false;
    while let Some((&low, behind)) = members.split_first() {
        let (high, behind) = match behind {
            [b'-', high, behind @ ..] => (*high, behind),
            _ => (low, behind),
        };
        is_in |= (low..=high).contains(&byte);
        members = behind;
    }
    rest.get(1..).filter(|_| is_in != others.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_shell() {
        for (pattern, name, fits) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("e*", "eth0", true),
            ("e*0", "eth10", true),
            ("e*1", "eth10", false),
            ("*", "", true),
            ("?", "", false),
            ("eth[0-3]", "eth2", true),
            ("eth[0-3]", "eth4", false),
            ("eth[!0-3]", "eth4", true),
            ("eth[^0]", "eth0", false),
            ("eth[]a]", "eth]", true),
            ("eth[0", "eth0", false),
            ("e*[02]", "eth12", true),
            ("e\\*", "e*", true),
            ("e\\*", "eth0", false),
            ("[a-]", "-", true),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
        let pattern = b"*a".repeat(30_000);
        assert!(!is_like(&pattern, &b"a".repeat(255)));
        assert!(is_like(&b"*a".repeat(100), &b"a".repeat(255)));
    }

    #[test]
    fn files_behind_each_other_are_told_apart() {
        let all: Vec<_> = files(b"main\n\0/a\nx\ny\n\0/b\n\0/cut", FILE).collect();
        assert_eq!(all, [("/a", &b"\nx\ny\n"[..]), ("/b", b"\n")]);
    }

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
