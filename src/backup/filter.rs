//! The filter of a backup item: a regular expression that is searched for in the full path of each file.
//!
//! What matches is taken, as in the original takeover, where `filter` was handed to `is_match` of the regex crate. The
//! expressions here are those of regex-lite: the same syntax without Unicode classes (`\p{…}`), and `\d`, `\s`, `\w`
//! mean their ASCII characters.

use crate::text::Text;
use regex_lite::{Regex, RegexBuilder};

/// The longest expression, in bytes.
pub const LONGEST: usize = 1024;

/// What all compiled filters of a description may take together, in bytes.
pub const BUDGET: usize = 32 * 1024;

/// A matcher keeps two tables of all states times all groups.
const MOST_GROUPS: usize = 8;

/// A compiled filter.
pub struct Filter(Regex);

impl Filter {
    /// Compiles an expression and takes what it needs from the budget; the error says what is wrong with it.
    pub fn compile(pattern: &str, budget: &mut usize) -> Result<Self, Text<112>> {
        if pattern.len() > LONGEST {
            return Err(crate::text!("the filter is longer than {} bytes", LONGEST));
        }
        // The crate says whether an expression fits, not what it takes: that is found by doubling.
        let mut size = 1024;
        loop {
            let size_now = size.min(*budget);
            match RegexBuilder::new(pattern).size_limit(size_now).build() {
                Ok(regex) if regex.captures_len() > MOST_GROUPS + 1 => {
                    return Err(crate::text!(
                        "the filter has more than {} groups; (?:…) groups without counting",
                        MOST_GROUPS
                    ));
                }
                Ok(regex) => {
                    *budget -= size_now;
                    return Ok(Self(regex));
                }
                Err(error) if size >= *budget => {
                    // This crate's errors are fixed words, which it shows in this way only.
                    let words = error.to_string();
                    return Err(crate::text!("the filter is wrong: {}", words.as_str()));
                }
                Err(_) => size *= 2,
            }
        }
    }

    /// True when the expression is found in `path`; what is not UTF-8 in there is seen as U+FFFD. `text` is scratch.
    pub fn matches(&self, path: &[u8], text: &mut String) -> bool {
        if let Ok(path) = core::str::from_utf8(path) {
            return self.0.is_match(path);
        }
        text.clear();
        for chunk in path.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.0.is_match(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: &str) -> Result<Filter, Text<112>> {
        Filter::compile(pattern, &mut BUDGET.clone())
    }

    fn is_match(pattern: &str, path: &[u8]) -> bool {
        compile(pattern).ok().unwrap().matches(path, &mut String::new())
    }

    #[test]
    fn the_expression_is_searched_in_the_whole_path() {
        assert!(is_match("balena-.*", b"/home/pi/balena-data/x"));
        assert!(!is_match("^balena", b"/home/pi/balena-data/x"));
        assert!(is_match(r"^/home/(?:pi|me)/.*\.ya?ml$", b"/home/me/a.yml"));
        assert!(is_match(r"(?i)\.DB$", b"/var/a.db"));
        assert!(is_match("b$", b"/a\xff/b"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(compile("a(b").err().unwrap().contains("wrong: "));
        assert!(compile(&"a".repeat(1025)).err().unwrap().contains("longer than 1024"));
        assert!(compile(&"(a)".repeat(9)).err().unwrap().contains("more than 8 groups"));
        assert!(compile("(?:a{1000}){1000}").is_err());
        assert!(compile(&"(".repeat(1000)).is_err());
    }

    #[test]
    fn many_filters_share_one_budget() {
        let mut budget = BUDGET;
        let fitting =
            (0..1000).take_while(|_| Filter::compile(r"\.(db|json)$", &mut budget).is_ok()).count();
        assert!((16..100).contains(&fitting), "{fitting}");
    }
}
