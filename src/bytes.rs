//! Numbers and words in the bytes of other people's formats.

/// The number of `N` bytes, little-endian, at `at`; 0 beyond the end.
pub fn little_endian<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    field.map_or(0, |field| field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// What stands before and behind the first `word` of a text, if it is there. (`str::split_once` of a word brings a
/// search for texts of any length into the program, 1 KB of it.)
pub fn split_at_word<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let at = text.as_bytes().windows(word.len().max(1)).position(|here| here == word.as_bytes())?;
    // A word is whole characters, so both places are between two.
    Some((text.get(..at)?, text.get(at + word.len()..)?))
}

/// True when a word is in a text; it has a byte at least.
#[inline(never)]
pub fn has_word(text: &str, word: &str) -> bool {
    split_at_word(text, word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_anywhere() {
        assert_eq!(split_at_word("File: /a  Size: 3", "  Size: "), Some(("File: /a", "3")));
        assert_eq!(split_at_word("é: ü: x", ": "), Some(("é", "ü: x")));
        assert_eq!(split_at_word("word", "word"), Some(("", "")));
        assert!(has_word("/a/net/b", "/net/") && has_word("abc", "c"));
        assert!(!has_word("/a/ne", "/net/") && !has_word("", "a"));
    }
}
