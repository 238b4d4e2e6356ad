//! One page of sections, keys and values, for people or as JSON (RFC 8259) for programs: the same calls make both.
//!
//! Knows nothing of what it shows. What comes from outside is made printable for people and escaped for programs.

use crate::error::{Doing, Error};
use crate::files;
use crate::text::{COLUMNS, Size, Text, Writer, fold};
use core::convert::Infallible;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use ufmt::uWrite;

/// The form that a page has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Titles, labels and values in columns.
    People,
    /// One JSON object, of one object for each section.
    Json,
}

/// A page that is being written.
pub struct Page<'a> {
    form: Form,
    output: BorrowedFd<'a>,
    /// The first thing that went wrong with the output.
    failed: Option<Errno>,
    in_section: bool,
    /// The label of the list that was begun, and what is said of an empty one.
    list: Option<(&'static str, &'static str)>,
    is_first: bool,
}

impl<'a> Page<'a> {
    /// A page on `output`.
    pub fn new(form: Form, output: BorrowedFd<'a>) -> Self {
        let mut page =
            Self { form, output, failed: None, in_section: false, list: None, is_first: true };
        if form == Form::Json {
            page.put("{");
        }
        page
    }

    /// Begins a section. Without a title people see no other one begin.
    pub fn section(&mut self, key: &'static str, title: &'static str) {
        self.end_section();
        match self.form {
            Form::People if title.is_empty() => {}
            Form::People => {
                self.put(title);
                self.put("\n");
            }
            Form::Json => {
                self.separate();
                self.quoted(key);
                self.put(":{");
            }
        }
        self.in_section = true;
        self.is_first = true;
    }

    /// A text; an empty one is none. Here and below: what has no label is for programs alone.
    pub fn text(&mut self, key: &'static str, label: &'static str, value: &str) {
        match self.form {
            Form::Json if value.is_empty() => self.plain(key, label, "null"),
            Form::Json => {
                self.begin(key);
                self.quoted(value);
            }
            Form::People if value.is_empty() => self.plain(key, label, "none"),
            Form::People => {
                self.plain(key, label, &crate::text::printable::<240>(value.as_bytes()));
            }
        }
    }

    /// A number of bytes.
    pub fn bytes(&mut self, key: &'static str, label: &'static str, value: u64) {
        let shown: Text<40> = match self.form {
            Form::People => crate::text!("{}", Size(value)),
            Form::Json => crate::text!("{}", value),
        };
        self.plain(key, label, &shown);
    }

    /// A number; `unit` is for people.
    pub fn number(&mut self, key: &'static str, label: &'static str, value: u64, unit: &str) {
        let unit = if self.form == Form::People { unit } else { "" };
        let shown: Text<60> = crate::text!("{}{}", value, unit);
        self.plain(key, label, &shown);
    }

    /// A time in seconds; people see minutes of a long one.
    pub fn seconds(&mut self, key: &'static str, label: &'static str, value: u64) {
        if self.form == Form::People && value >= 120 {
            self.number(key, label, value.div_ceil(60), " min");
        } else {
            self.number(key, label, value, " s");
        }
    }

    /// Yes or no.
    pub fn truth(&mut self, key: &'static str, label: &'static str, value: bool) {
        let shown = match (self.form, value) {
            (Form::People, true) => "yes",
            (Form::People, false) => "no",
            (Form::Json, true) => "true",
            (Form::Json, false) => "false",
        };
        self.plain(key, label, shown);
    }

    /// Begins a list of texts in this section. People see the label at its first text, or before `none` when there is
    /// no text; with the label `-` one at each.
    pub fn list(&mut self, key: &'static str, label: &'static str, none: &'static str) {
        self.end_list();
        if self.form == Form::Json {
            self.separate();
            self.quoted(key);
            self.put(":[");
        }
        self.list = Some((label, none));
        self.is_first = true;
    }

    /// A text of the list.
    pub fn entry(&mut self, value: &str) {
        match self.form {
            Form::People => {
                let (label, _) = self.list.unwrap_or_default();
                let is_first = core::mem::take(&mut self.is_first);
                let value: Text<300> = crate::text::printable(value.as_bytes());
                self.row(if is_first || label == "-" { label } else { " " }, &value);
            }
            Form::Json => {
                self.separate();
                self.quoted(value);
            }
        }
    }

    /// Ends the page. Fails when it could not be written as a whole.
    pub fn finish(mut self) -> Result<(), Error> {
        self.end_section();
        if self.form == Form::Json {
            self.put("}\n");
        }
        self.failed.map_or(Ok(()), Err).doing("writing the preview to", "standard output")
    }

    fn plain(&mut self, key: &'static str, label: &'static str, value: &str) {
        match self.form {
            Form::People => self.row(label, value),
            Form::Json => {
                self.begin(key);
                self.put(value);
            }
        }
    }

    fn begin(&mut self, key: &'static str) {
        self.end_list();
        self.separate();
        self.quoted(key);
        self.put(":");
    }

    /// A label and a value for people, the latter in a column of its own, in as many lines as it takes.
    fn row(&mut self, label: &str, value: &str) {
        if self.list.is_some_and(|(of_list, _)| label != of_list && label != " ") {
            self.end_list();
        }
        if label.is_empty() {
            return;
        }
        const BLANKS: &str = "                  ";
        let column = if label == "-" { 4 } else { BLANKS.len() };
        let (mut label, mut rest) = (label, value);
        loop {
            let (line, behind) = fold(rest, COLUMNS - column);
            let space = BLANKS.get(2 + label.len()..column).unwrap_or(" ");
            let line: Text<320> = crate::text!("  {}{}{}\n", label, space, line);
            self.put(&line);
            if behind.is_empty() {
                return;
            }
            (label, rest) = ("", behind);
        }
    }

    fn end_list(&mut self) {
        if let Some((label, none)) = self.list.take() {
            if self.is_first && self.form == Form::People {
                self.row(label, none);
            }
            self.close("]");
        }
    }

    fn end_section(&mut self) {
        self.end_list();
        if core::mem::take(&mut self.in_section) {
            self.close("}");
        }
    }

    /// Ends a list or object: what comes next is not the first in what encloses it.
    fn close(&mut self, bracket: &str) {
        if self.form == Form::Json {
            self.put(bracket);
        }
        self.is_first = false;
    }

    /// A comma before every part but the first.
    fn separate(&mut self) {
        if !core::mem::take(&mut self.is_first) {
            self.put(",");
        }
    }

    fn quoted(&mut self, value: &str) {
        let text: Text<1200> = Text::build(&mut |writer: &mut Writer| write_quoted(writer, value));
        self.put(&text);
    }

    fn put(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = files::write_all(self.output, text.as_bytes()).err();
        }
    }
}

fn write_quoted(writer: &mut Writer, value: &str) -> Result<(), Infallible> {
    writer.write_str("\"")?;
    // Cut, so that the closing quote fits even when every character needs six.
    let end = value.floor_char_boundary(190);
    for character in value.get(..end).unwrap_or_default().chars() {
        match character {
            '"' => writer.write_str("\\\"")?,
            '\\' => writer.write_str("\\\\")?,
            '\0'..' ' => {
                let digit = |value: u32| char::from_digit(value, 16).unwrap_or('0');
                let (high, low) = (digit(character as u32 >> 4), digit(character as u32 & 15));
                writer.write_str("\\u00")?;
                writer.write_str(high.encode_utf8(&mut [0; 4]))?;
                writer.write_str(low.encode_utf8(&mut [0; 4]))?;
            }
            other => writer.write_str(other.encode_utf8(&mut [0; 4]))?,
        }
    }
    writer.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn page(form: Form) -> String {
        // Its name is the millisecond's: another thread's test may have it.
        let folder = std::env::temp_dir();
        let mut unnamed = std::iter::repeat_with(|| files::unnamed(folder.to_str().unwrap()));
        let file = unnamed.find_map(Result::ok).unwrap();
        let mut page = Page::new(form, file.as_fd());
        page.section("device", "This device");
        page.text("model", "model", "a \"b\"\n\\");
        page.bytes("memory", "memory", 3 << 20);
        page.section("networks", "Networks");
        page.list("names", "names", "none");
        page.entry("one");
        page.entry("two");
        page.truth("wired", "by cable", true);
        page.list("none", "others", "none");
        page.list("hidden", "", "none");
        page.entry("x");
        page.text("empty", "nothing", "");
        page.section("more", "");
        page.list("texts", "-", "none");
        page.entry("word ".repeat(20).trim_end());
        page.entry("z");
        page.section("time", "Time");
        page.seconds("seconds", "expected", 120);
        page.finish().unwrap();
        let mut bytes = vec![0; 4096];
        let length = rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn as_json() {
        let wanted = concat!(
            "{\"device\":{\"model\":\"a \\\"b\\\"\\u000a\\\\\",\"memory\":3145728},",
            "\"networks\":{\"names\":[\"one\",\"two\"],\"wired\":true,\"none\":[],",
            "\"hidden\":[\"x\"],\"empty\":null},\"more\":{\"texts\":[\"WORDS\",\"z\"]},",
            "\"time\":{\"seconds\":120}}\n"
        );
        let shown = page(Form::Json);
        assert_eq!(shown, wanted.replace("WORDS", "word ".repeat(20).trim_end()));
        crate::balena::json::check_object(shown.as_bytes(), &mut |_| {}).unwrap();
    }

    #[test]
    fn for_people() {
        let shown = page(Form::People);
        let wanted = "\
This device
  model           a \"b\"?\\
  memory          3.0 MiB
Networks
  names           one
                  two
  by cable        yes
  others          none
  nothing         none
  - WORDS
    word word word word word
  - z
Time
  expected        2 min
";
        assert_eq!(shown, wanted.replace("WORDS", "word ".repeat(15).trim_end()));
        assert!(shown.lines().all(|line| line.len() <= COLUMNS));
    }

    #[test]
    fn an_output_that_fails_is_an_error() {
        let full = files::open("/dev/full", rustix::fs::OFlags::WRONLY).unwrap();
        let mut page = Page::new(Form::Json, full.as_fd());
        page.section("a", "A");
        assert!(page.finish().is_err());
    }
}
