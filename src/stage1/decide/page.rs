//! One page of sections, keys and values, for people or as JSON (RFC 8259) for programs: the same calls make both.
//!
//! Knows nothing of what it shows. What comes from outside is made printable for people and escaped for programs.

use crate::error::{Doing, Error};
use crate::files;
use crate::text::{Size, Text, Writer};
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
    in_list: bool,
    is_first: bool,
}

impl<'a> Page<'a> {
    /// A page on `output`.
    pub fn new(form: Form, output: BorrowedFd<'a>) -> Self {
        let mut page =
            Self { form, output, failed: None, in_section: false, in_list: false, is_first: true };
        if form == Form::Json {
            page.put("{");
        }
        page
    }

    /// Begins a section.
    pub fn section(&mut self, key: &'static str, title: &'static str) {
        self.end_section();
        match self.form {
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

    /// A text.
    pub fn text(&mut self, key: &'static str, label: &'static str, value: &str) {
        self.begin(key, label);
        match self.form {
            Form::People => self.put(&crate::text::printable::<240>(value.as_bytes())),
            Form::Json => self.quoted(value),
        }
        self.end();
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

    /// Begins a list of texts in this section.
    pub fn list(&mut self, key: &'static str) {
        self.end_list();
        if self.form == Form::Json {
            self.separate();
            self.quoted(key);
            self.put(":[");
        }
        self.in_list = true;
        self.is_first = true;
    }

    /// A text of the list.
    pub fn entry(&mut self, value: &str) {
        match self.form {
            Form::People => {
                let value: Text<300> = crate::text::printable(value.as_bytes());
                self.put("  - ");
                self.put(&value);
                self.put("\n");
                self.is_first = false;
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
        self.begin(key, label);
        self.put(value);
        self.end();
    }

    fn begin(&mut self, key: &'static str, label: &'static str) {
        self.end_list();
        match self.form {
            Form::People => {
                let column = "                          ";
                let space = column.get(label.len()..).unwrap_or(" ");
                let start: Text<60> = crate::text!("  {}{}", label, space);
                self.put(&start);
            }
            Form::Json => {
                self.separate();
                self.quoted(key);
                self.put(":");
            }
        }
    }

    fn end(&mut self) {
        if self.form == Form::People {
            self.put("\n");
        }
    }

    fn end_list(&mut self) {
        if core::mem::take(&mut self.in_list) {
            if self.is_first && self.form == Form::People {
                self.put("  - none\n");
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
        let file = files::unnamed(std::env::temp_dir().to_str().unwrap()).unwrap();
        let mut page = Page::new(form, file.as_fd());
        page.section("device", "This device");
        page.text("model", "model", "a \"b\"\n\\");
        page.bytes("memory", "memory", 3 << 20);
        page.section("networks", "Networks");
        page.list("names");
        page.entry("one");
        page.entry("two");
        page.truth("wired", "by cable", true);
        page.list("none");
        page.section("time", "Time");
        page.number("seconds", "expected", 90, " s");
        page.finish().unwrap();
        let mut bytes = vec![0; 4096];
        let length = rustix::io::pread(&file, &mut bytes[..], 0).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn as_json() {
        let wanted = concat!(
            "{\"device\":{\"model\":\"a \\\"b\\\"\\u000a\\\\\",\"memory\":3145728},",
            "\"networks\":{\"names\":[\"one\",\"two\"],\"wired\":true,\"none\":[]},",
            "\"time\":{\"seconds\":90}}\n"
        );
        let shown = page(Form::Json);
        assert_eq!(shown, wanted);
        crate::balena::json::check_object(shown.as_bytes(), &mut |_| {}).unwrap();
    }

    #[test]
    fn for_people() {
        let shown = page(Form::People);
        assert!(shown.contains("This device\n  model                     a \"b\"?\\\n"), "{shown}");
        assert!(shown.contains("  memory                    3.0 MiB\n"), "{shown}");
        assert!(
            shown.contains("  - one\n  - two\n  by cable                  yes\n  - none\nTime\n"),
            "{shown}"
        );
    }

    #[test]
    fn an_output_that_fails_is_an_error() {
        let full = files::open("/dev/full", rustix::fs::OFlags::WRONLY).unwrap();
        let mut page = Page::new(Form::Json, full.as_fd());
        page.section("a", "A");
        assert!(page.finish().is_err());
    }
}
