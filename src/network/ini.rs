//! Lines of the ini-like files that connman, iwd and NetworkManager keep: groups, `key=value`, comments.
//!
//! The grammar is that of GKeyFile, which connman and NetworkManager use; iwd's differs in nothing that matters here.

use crate::text::Text;
use core::iter::FilterMap;
use core::slice::Split;

/// A line that says something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// The name of the group that begins here.
    Group(&'a str),
    /// A key and its value as it is written, without the blanks before it.
    Entry(&'a str, &'a str),
    /// Neither, nor a comment.
    Bad,
}

impl<'a> Line<'a> {
    /// The value, when it is this key's.
    pub fn value_of(self, wanted: &str) -> Option<&'a str> {
        match self {
            Line::Entry(key, value) if key == wanted => Some(value),
            _ => None,
        }
    }
}

/// Lines that are still to come; a copy costs nothing.
pub type Lines<'a> = FilterMap<Split<'a, u8, fn(&u8) -> bool>, fn(&'a [u8]) -> Option<Line<'a>>>;

/// The lines of a file. Lines that are not UTF-8 are bad ones.
pub fn lines(bytes: &[u8]) -> Lines<'_> {
    let is_end: fn(&u8) -> bool = |byte| *byte == b'\n';
    bytes.split(is_end).filter_map(line)
}

fn line(bytes: &[u8]) -> Option<Line<'_>> {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return Some(Line::Bad);
    };
    let text = text.strip_suffix('\r').unwrap_or(text).trim_start();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    if let Some(group) = text.strip_prefix('[') {
        let group = group.trim_end().strip_suffix(']');
        return Some(group.map_or(Line::Bad, Line::Group));
    }
    Some(match text.split_once('=') {
        Some((key, value)) if !key.trim_end().is_empty() => {
            Line::Entry(key.trim_end(), value.trim_start())
        }
        _ => Line::Bad,
    })
}

/// The text that a value stands for: `\s`, `\t`, `\n`, `\r` and `\\` decoded, any other escape kept as it is. Nothing
/// when it is longer than 128 bytes: values are not cut.
pub fn text(value: &str) -> Option<Text<128>> {
    let mut decoded = heapless::String::<128>::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let next = characters.clone().next();
        let meant = match (character, next) {
            ('\\', Some('s')) => ' ',
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('\\')) => '\\',
            _ => {
                decoded.push(character).ok()?;
                continue;
            }
        };
        characters.next();
        decoded.push(meant).ok()?;
    }
    Some(Text::from(decoded.as_str()))
}

/// A boolean, in any of the spellings that the three programs take.
pub fn is_true(value: &str) -> bool {
    let value = value.trim_end();
    ["true", "yes", "on", "1"].iter().any(|word| word.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_entries_comments_and_the_rest() {
        let file = b" [a] \n# c\n\n k = v = w \r\n=x\n[open\nword\n\xff=1\n\tt=\n";
        let all: Vec<_> = lines(file).collect();
        let wanted = [
            Line::Group("a"),
            Line::Entry("k", "v = w "),
            Line::Bad,
            Line::Bad,
            Line::Bad,
            Line::Bad,
            Line::Entry("t", ""),
        ];
        assert_eq!(all, wanted);
    }

    #[test]
    fn escapes() {
        assert_eq!(&*text("\\sa\\\\s\\t\\n\\r\\;\\").unwrap(), " a\\s\t\n\r\\;\\");
        assert!(text(&"x".repeat(129)).is_none());
        assert_eq!(&*text(&"\\s".repeat(128)).unwrap(), " ".repeat(128));
    }
}
