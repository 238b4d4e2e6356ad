//! The backup description: YAML, `[{volume, items: [{source, target?, filter?}]}]`.
//!
//! Pure: bytes in, a [`Description`] or a refusal with line and column out. The events of the parser are taken one by
//! one, so nothing nests deeper than the form allows, and there is no tree. Aliases are refused: they are how a small
//! file becomes a large one.

use super::filter::{BUDGET, Filter};
use crate::error::Error;
use crate::text::Text;
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use std::borrow::Cow;

/// The largest description, in bytes.
pub const LARGEST: usize = 64 * 1024;

/// The most items in a description.
pub const MOST_ITEMS: usize = 256;

/// The longest source, in bytes.
pub const LONGEST_SOURCE: usize = 1024;

/// The longest target, in bytes.
pub const LONGEST_TARGET: usize = 512;

/// The longest name of a volume, in bytes: that of a file.
pub const LONGEST_VOLUME: usize = 255;

/// What is to be backed up.
pub struct Description {
    /// The volumes, in the order of the description; no name is there twice.
    pub volumes: Vec<Volume>,
}

/// A volume of the new OS and what goes into it.
pub struct Volume {
    /// The name: one component of a path.
    pub name: String,
    /// What goes into it, in the order of the description.
    pub items: Vec<Item>,
}

/// A file or directory to be backed up.
pub struct Item {
    /// An absolute path without `.`, `..`, doubled or trailing slashes.
    pub source: String,
    /// A relative path of the same kind, below the volume; empty when none was given.
    pub target: String,
    /// Which files of a source that is a directory are taken; all when there is none.
    pub filter: Option<Filter>,
}

const DOING: &str = "reading the backup description";

const ADVICE: &str = "a description is a list of {volume: NAME, items: [{source: PATH, target: PATH, filter: REGEX}]}, target and filter optional";

/// Reads a description.
pub fn parse(bytes: &[u8]) -> Result<Description, Error> {
    if bytes.len() > LARGEST {
        return Err(Error::refused(DOING, "", "it is larger than 64 KiB"));
    }
    let text = core::str::from_utf8(bytes)
        .map_err(|_| Error::refused(DOING, "", "it is not text in UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { parser, line: 1, column: 1, items: 0, filter_budget: BUDGET };
    reader.description()
}

/// An event of the parser, with what a description has no use for left out.
enum Token<'a> {
    Scalar(Cow<'a, str>, ScalarStyle),
    List,
    Map,
    /// The end of a list or map, or anything around the one document.
    Other,
    End,
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Where the last token began, counted from 1.
    line: usize,
    column: usize,
    items: usize,
    filter_budget: usize,
}

impl<'a> Reader<'a> {
    fn description(&mut self) -> Result<Description, Error> {
        let mut token = self.next()?;
        // The starts of the stream and of the document.
        while matches!(token, Token::Other) {
            token = self.next()?;
        }
        if !matches!(token, Token::List) {
            return Err(self.wrong("there is no list of volumes"));
        }
        let mut volumes: Vec<Volume> = Vec::new();
        loop {
            match self.next()? {
                Token::Map => {}
                Token::Other => break,
                _ => return Err(self.wrong("a volume must have the keys volume and items")),
            }
            let volume = self.volume()?;
            if volumes.iter().any(|other| other.name == volume.name) {
                let name = volume.name.as_str();
                let why: Text<200> = crate::text!("the volume '{}' is there twice", name);
                return Err(self.wrong(&why).advice("put all its items into one list"));
            }
            volumes.push(volume);
        }
        loop {
            match self.next()? {
                Token::Other => {}
                Token::End => return Ok(Description { volumes }),
                _ => return Err(self.wrong("there is a second document")),
            }
        }
    }

    fn volume(&mut self) -> Result<Volume, Error> {
        let (line, column) = (self.line, self.column);
        let mut name = None;
        let mut items = None;
        while let Some(key) = self.key()? {
            match &*key {
                "volume" => {
                    let value = self.text("volume")?;
                    let value = self.needed(value, "volume")?;
                    let value = self.volume_name(&value)?;
                    self.once(&mut name, value, "volume")?;
                }
                "items" => {
                    let value = self.items()?;
                    self.once(&mut items, value, "items")?;
                }
                _ => return Err(self.unknown(&key, "volume and items")),
            }
        }
        (self.line, self.column) = (line, column);
        let name = self.needed(name, "volume")?;
        let items = self.needed(items, "items")?;
        Ok(Volume { name, items })
    }

    fn items(&mut self) -> Result<Vec<Item>, Error> {
        if !matches!(self.next()?, Token::List) {
            return Err(self.wrong("items must be a list"));
        }
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Token::Map => {}
                Token::Other => return Ok(items),
                _ => return Err(self.wrong("an item must have the key source")),
            }
            items.push(self.item()?);
            self.items += 1;
            if self.items > MOST_ITEMS {
                let why: Text<80> = crate::text!("there are more than {} items", MOST_ITEMS);
                return Err(self.wrong(&why));
            }
        }
    }

    fn item(&mut self) -> Result<Item, Error> {
        let (line, column) = (self.line, self.column);
        let (mut source, mut target, mut filter) = (None, None, None);
        while let Some(key) = self.key()? {
            let value = match &*key {
                known @ ("source" | "target" | "filter" | "item") => self.text(known)?,
                _ => return Err(self.unknown(&key, "source, target and filter")),
            };
            match (&*key, value) {
                ("source", value) => {
                    let value = self.needed(value, "source")?;
                    let value = self.source(&value)?;
                    self.once(&mut source, value, "source")?;
                }
                ("target", value) => {
                    let value = self.target(&value.unwrap_or_default())?;
                    self.once(&mut target, value, "target")?;
                }
                ("filter", value) => {
                    let value = self.filter(value.as_deref())?;
                    self.once(&mut filter, value, "filter")?;
                }
                // The original's sample begins each item with an empty `item:`.
                (_, None) => {}
                (_, Some(_)) => return Err(self.wrong("the key item must have no value")),
            }
        }
        (self.line, self.column) = (line, column);
        let source = self.needed(source, "source")?;
        Ok(Item { source, target: target.unwrap_or_default(), filter: filter.flatten() })
    }

    /// The next key of a map, or None at its end.
    fn key(&mut self) -> Result<Option<Cow<'a, str>>, Error> {
        match self.next()? {
            Token::Scalar(key, _) => Ok(Some(key)),
            Token::Other => Ok(None),
            _ => Err(self.wrong("a key must be a word")),
        }
    }

    /// A value that must be text; None when it is left out.
    fn text(&mut self, key: &str) -> Result<Option<Cow<'a, str>>, Error> {
        let Token::Scalar(text, style) = self.next()? else {
            let why: Text<80> = crate::text!("the value of '{}' must be text", key);
            return Err(self.wrong(&why));
        };
        if style == ScalarStyle::Plain {
            if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                return Ok(None);
            }
            if is_typed(&text) {
                let why: Text<80> = crate::text!("the value of '{}' is no text", key);
                return Err(self.wrong(&why).advice("put it in quotes"));
            }
        }
        if text.contains('\0') {
            return Err(self.wrong("there is a NUL in the text"));
        }
        Ok(Some(text))
    }

    fn volume_name(&self, name: &str) -> Result<String, Error> {
        let why = match name {
            "" => "the name of the volume is empty",
            "." | ".." => "a volume cannot be called . or ..",
            _ if name.contains('/') => "the name of the volume has a slash in it",
            _ if name.contains(char::is_control) => "the name of the volume has control characters",
            _ if name.len() > LONGEST_VOLUME => "the name of the volume is longer than 255 bytes",
            _ => return Ok(name.to_string()),
        };
        Err(self.wrong(why))
    }

    fn source(&self, path: &str) -> Result<String, Error> {
        if !path.starts_with('/') {
            return Err(self.wrong("the source is not an absolute path"));
        }
        let mut source = String::from("/");
        self.normalise(path, &mut source, LONGEST_SOURCE, "source")?;
        Ok(source)
    }

    fn target(&self, path: &str) -> Result<String, Error> {
        if path.starts_with('/') {
            let error = self.wrong("the target is an absolute path");
            return Err(error.advice("a target lies below its volume"));
        }
        let mut target = String::new();
        self.normalise(path, &mut target, LONGEST_TARGET, "target")?;
        Ok(target)
    }

    /// Appends the components of a path that mean something.
    fn normalise(
        &self,
        path: &str,
        to: &mut String,
        longest: usize,
        key: &str,
    ) -> Result<(), Error> {
        let wrong = |reason: &str| {
            let why: Text<80> = crate::text!("the {} {}", key, reason);
            self.wrong(&why)
        };
        if path.len() > longest {
            return Err(wrong("is too long"));
        }
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                return Err(wrong("has .. in it"));
            }
            if part.len() > super::listing::LONGEST_NAME {
                return Err(wrong("has a name of more than 255 bytes in it"));
            }
            if !to.is_empty() && !to.ends_with('/') {
                to.push('/');
            }
            to.push_str(part);
        }
        Ok(())
    }

    fn filter(&mut self, pattern: Option<&str>) -> Result<Option<Filter>, Error> {
        let Some(pattern) = pattern else { return Ok(None) };
        let filter = Filter::compile(pattern, &mut self.filter_budget);
        filter.map(Some).map_err(|why| self.wrong(&why))
    }

    fn needed<T>(&self, value: Option<T>, key: &str) -> Result<T, Error> {
        value.ok_or_else(|| {
            let why: Text<80> = crate::text!("'{}' is missing", key);
            self.wrong(&why).advice(ADVICE)
        })
    }

    fn once<T>(&self, place: &mut Option<T>, value: T, key: &str) -> Result<(), Error> {
        if place.is_some() {
            let why: Text<80> = crate::text!("the key '{}' is there twice", key);
            return Err(self.wrong(&why));
        }
        *place = Some(value);
        Ok(())
    }

    fn unknown(&self, key: &str, known: &str) -> Error {
        let key: Text<60> = crate::text::printable(key.as_bytes());
        let why: Text<160> = crate::text!("there is no key '{}', only {}", key, known);
        self.wrong(&why).advice(ADVICE)
    }

    #[cold]
    #[inline(never)]
    fn wrong(&self, why: &str) -> Error {
        let place: Text<60> = crate::text!("line {}, column {}", self.line, self.column);
        Error::refused(DOING, &place, why)
    }

    fn next(&mut self) -> Result<Token<'a>, Error> {
        let (event, span) = match self.parser.next_event() {
            Some(Ok(event)) => event,
            None => return Ok(Token::End),
            Some(Err(error)) => {
                (self.line, self.column) = (error.marker().line(), error.marker().col() + 1);
                let why: Text<200> = crate::text!("it is no YAML: {}", error.info());
                return Err(self.wrong(&why));
            }
        };
        (self.line, self.column) = (span.start.line(), span.start.col() + 1);
        let (token, anchor, tagged) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (Token::Scalar(text, style), anchor, tag.is_some())
            }
            Event::SequenceStart(anchor, tag) => (Token::List, anchor, tag.is_some()),
            Event::MappingStart(anchor, tag) => (Token::Map, anchor, tag.is_some()),
            Event::Alias(_) => (Token::Other, 1, false),
            _ => (Token::Other, 0, false),
        };
        match (anchor, tagged) {
            (0, false) => Ok(token),
            (0, true) => Err(self.wrong("there is a tag (!…)").advice("leave it out")),
            _ => Err(self
                .wrong("there is an anchor (&…) or an alias (*…)")
                .advice("write the value out where it is needed")),
        }
    }
}

/// True for an unquoted word that YAML's core schema takes for a truth value or a number (YAML 1.2.2, 10.3.2).
fn is_typed(text: &str) -> bool {
    if matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE") {
        return true;
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let digits = |text: &str, digit: fn(&char) -> bool| {
        !text.is_empty() && text.chars().all(|character| digit(&character))
    };
    if let Some(rest) = unsigned.strip_prefix("0x") {
        return digits(rest, char::is_ascii_hexdigit);
    }
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let exponent =
        unsigned.get(mantissa.len() + 1..).map(|text| text.trim_start_matches(['+', '-']));
    let is_number = mantissa.contains(|character: char| character.is_ascii_digit())
        && mantissa.matches('.').count() <= 1
        && digits(mantissa, |character| character.is_ascii_digit() || *character == '.');
    is_number && exponent.is_none_or(|text| digits(text, char::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Description {
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{}", shown(&error)))
    }

    fn shown(error: &Error) -> String {
        let text: Text<600> = crate::text!("{}", error);
        text.to_string()
    }

    #[track_caller]
    fn refused(text: &str, place: &str, why: &str) {
        let error = parse(text.as_bytes()).err().expect("it was accepted");
        let message = shown(&error);
        assert!(message.contains(why), "{message}");
        assert!(message.contains(place), "{message}");
        assert_eq!(error.kind().exit_code(), 3);
    }

    fn item(line: &str) -> String {
        format!("- volume: data\n  items:\n  - {line}\n")
    }

    #[test]
    fn the_forms_of_the_documentation_are_read() {
        let description = read(include_str!("../../tests/fixtures/backup/good/full.yaml"));
        let names: Vec<_> = description.volumes.iter().map(|volume| &*volume.name).collect();
        assert_eq!(names, ["app-data", "config", "Empty.volume_1"]);
        let [first, second, third] = &description.volumes[0].items[..] else { panic!() };
        assert_eq!((&*first.source, &*first.target), ("/home/pi/app data", ""));
        assert!(first.filter.is_none());
        assert_eq!((&*second.source, &*second.target), ("/var/lib/app", "state/db"));
        assert!(second.filter.as_ref().unwrap().matches(b"/x/a.db", &mut String::new()));
        assert_eq!((&*third.source, &*third.target), ("/etc/app.conf", "etc/app: main.conf"));
        assert_eq!(description.volumes[1].items.len(), 2);
        assert!(description.volumes[2].items.is_empty());
    }

    #[test]
    fn every_good_description_of_the_corpus_is_read_and_every_bad_one_refused() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backup");
        for (folder, good) in [("good", true), ("bad", false)] {
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let result = parse(&std::fs::read(&path).unwrap());
                assert_eq!(result.is_ok(), good, "{}", path.display());
                count += 1;
            }
            assert!(count >= 5, "{folder} has moved");
        }
    }

    #[test]
    fn the_empty_item_of_the_original_is_no_mistake() {
        let description = read(&item("item:\n    source: /a\n    target: ''\n    filter: ~"));
        let item_read = &description.volumes[0].items[0];
        assert_eq!((&*item_read.source, &*item_read.target), ("/a", ""));
        assert!(item_read.filter.is_none());
        refused(&item("item: x\n    source: /a"), "line 3, column 11", "item must have no value");
    }

    #[test]
    fn an_empty_list_is_an_empty_backup() {
        assert!(read("[]").volumes.is_empty());
        assert!(read("\u{feff}---\n[]\n...\n").volumes.is_empty());
    }

    #[test]
    fn what_is_no_list_of_volumes_is_refused() {
        for text in ["", "# nothing\n", "---\n", "text", "{}", "volume: a\nitems: []"] {
            refused(text, "line ", "there is no list of volumes");
        }
        refused("- a\n", "line 1, column 3", "must have the keys volume and items");
        refused("- []\n", "line 1, column 3", "must have the keys volume and items");
        refused("[]\n---\n[]\n", "line 3, column 1", "second document");
        refused("- volume: a\n   items: []\n", "line 2", "it is no YAML: ");
        refused("[", "line ", "it is no YAML: ");
    }

    #[test]
    fn keys_are_known_there_and_there_once() {
        refused("- volume: a\n", "line 1, column 3", "'items' is missing");
        refused("- items: []\n", "line 1, column 3", "'volume' is missing");
        refused(&item("target: a"), "line 3, column 5", "'source' is missing");
        refused(&item("source:"), "line 3", "'source' is missing");
        refused(&item("sorce: /a"), "line 3, column 5", "no key 'sorce', only source, target");
        refused("- volume: a\n  itmes: []\n", "line 2, column 3", "no key 'itmes', only volume");
        refused("- volume: a\n  volume: b\n", "line 2, column 11", "'volume' is there twice");
        refused("- volume: a\n  items: []\n  items: []\n", "line 3", "'items' is there twice");
        refused(&item("{source: /a, source: /b}"), "line 3", "'source' is there twice");
        refused(&item("{source: /a, target: b, target: }"), "line 3", "'target' is there twice");
        refused(&item("{source: /a, filter: b, filter: c}"), "line 3", "'filter' is there twice");
        refused("- ? [a]\n  : b\n", "line 1, column 5", "a key must be a word");
    }

    #[test]
    fn values_are_text() {
        for value in ["7", "-1.5", "1e3", "0x1F", ".5", "true", "False"] {
            let text = format!("- volume: {value}\n  items: []\n");
            refused(
                &text,
                "line 1, column 11",
                "the value of 'volume' is no text; put it in quotes",
            );
            read(&format!("- volume: '{value}'\n  items: []\n"));
        }
        for name in ["2024-01-01", "1.2.3", "e3", "v1", "-a", "data.1"] {
            assert_eq!(read(&format!("- volume: {name}\n  items: []\n")).volumes[0].name, name);
        }
        refused(&item("source: [/a]"), "line 3, column 13", "the value of 'source' must be text");
        refused(&item("source: {a: b}"), "line 3", "the value of 'source' must be text");
        refused("- volume: a\n  items: {}\n", "line 2, column 10", "items must be a list");
        refused("- volume: a\n  items: b\n", "line 2, column 10", "items must be a list");
        refused(&item("/a"), "line 3, column 5", "an item must have the key source");
        refused(&item("source: \"/a\\0b\""), "line 3", "NUL");
    }

    #[test]
    fn the_name_of_a_volume_is_one_name() {
        for (name, why) in [
            ("''", "is empty"),
            ("'.'", "called . or .."),
            ("..", "called . or .."),
            ("a/b", "a slash"),
            ("/", "a slash"),
            ("\"a\\nb\"", "control characters"),
            (&"x".repeat(256), "longer than 255"),
        ] {
            refused(&format!("- volume: {name}\n  items: []\n"), "line 1, column 11", why);
        }
        let twice =
            "- {volume: a, items: []}\n- {volume: b, items: []}\n- {volume: a, items: []}\n";
        refused(twice, "line 3, column 3", "the volume 'a' is there twice");
    }

    #[test]
    fn paths_are_what_they_must_be() {
        refused(&item("source: a"), "line 3, column 13", "the source is not an absolute path");
        refused(&item("source: ''"), "line 3", "the source is not an absolute path");
        refused(&item("source: /a/../b"), "line 3", "the source has .. in it");
        refused(&item("{source: /a, target: /b}"), "line 3, column 26", "an absolute path");
        refused(&item("{source: /a, target: b/..}"), "line 3", "the target has .. in it");
        refused(&item("{source: /a, target: ..}"), "line 3", "the target has .. in it");
        let long = "x".repeat(256);
        refused(&item(&format!("source: /{long}")), "line 3", "more than 255 bytes");
        let long = "/x".repeat(600);
        refused(&item(&format!("source: {long}")), "line 3", "the source is too long");
        let description = read(&item("{source: //a/./b..c//, target: ./d//e/}"));
        let item_read = &description.volumes[0].items[0];
        assert_eq!((&*item_read.source, &*item_read.target), ("/a/b..c", "d/e"));
        assert_eq!(read(&item("source: /")).volumes[0].items[0].source, "/");
    }

    #[test]
    fn a_wrong_filter_is_refused_where_it_stands() {
        refused(&item("{source: /a, filter: 'a('}"), "line 3, column 26", "the filter is wrong: ");
    }

    #[test]
    fn nothing_grows_out_of_a_small_file() {
        refused(&item("source: &a /a"), "line 3", "an anchor");
        refused("- &a [*a]\n", "line 1", "an anchor");
        refused(&item("source: !x /a"), "line 3", "a tag");
        refused("- *a\n", "line 1", "");
        for evil in
            ["[", "{", "- ", "? ", "&a ", "*a", "!a ", "%a\n", "'", "\"\\", "|", ">\n ", "a: "]
        {
            assert!(parse(evil.repeat(LARGEST / evil.len()).as_bytes()).is_err(), "{evil}");
            let text = format!("- volume: {}", evil.repeat(1000));
            // Whatever it is, it ends.
            let _ = parse(text.as_bytes());
        }
        refused(&" ".repeat(LARGEST + 1), "", "larger than 64 KiB");
        let many = "  - source: /a\n".repeat(257);
        refused(&format!("- volume: a\n  items:\n{many}"), "line 259", "more than 256 items");
        let error = parse(b"- volume: \xff\n").err().unwrap();
        assert!(shown(&error).contains("not text in UTF-8"));
    }
}
