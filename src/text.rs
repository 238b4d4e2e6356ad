//! Text of fixed capacity: messages that are cut when full, paths that are an error when full.
//!
//! All formatting goes through one [`Writer`] over the caller's bytes, behind a call that is not generic: a formatter
//! for every capacity and every caller was two thirds of the program once.

use crate::bytes::little_endian;
use core::convert::Infallible;
use core::ops::Deref;
use ufmt::{Formatter, uDisplay, uWrite};

/// Puts formatted text into bytes of fixed number. What does not fit is left out, and that is noted.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    length: usize,
    cut: bool,
}

impl uWrite for Writer<'_> {
    type Error = Infallible;

    #[inline(never)]
    fn write_str(&mut self, text: &str) -> Result<(), Infallible> {
        let space = self.bytes.len() - self.length;
        let fitting = text.floor_char_boundary(space);
        // Nothing after a cut: a later short piece would look like the next word.
        if self.cut {
            return Ok(());
        }
        self.cut = fitting < text.len();
        for (to, from) in self.bytes.iter_mut().skip(self.length).zip(text.bytes().take(fitting)) {
            *to = from;
        }
        self.length += fitting;
        Ok(())
    }
}

/// What formats a text: made by the macros. Not `dyn FnMut`: each closure would bring a second way to call it into the
/// program, which nobody takes.
pub trait Format {
    /// Writes the text.
    fn format(&mut self, writer: &mut Writer<'_>);
}

impl<F: FnMut(&mut Writer<'_>) -> Result<(), Infallible>> Format for F {
    fn format(&mut self, writer: &mut Writer<'_>) {
        let Ok(()) = self(writer);
    }
}

/// Formats into bytes; gives the length, and whether something was left out.
#[inline(never)]
fn fill(bytes: &mut [u8], format: &mut dyn Format) -> (usize, bool) {
    let mut writer = Writer { bytes, length: 0, cut: false };
    format.format(&mut writer);
    (writer.length, writer.cut)
}

/// A message of at most `N` bytes of UTF-8. What does not fit is left out: a message is better cut than lost.
#[derive(Clone, Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// An empty text.
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self
    }

    /// What `format` writes. Use [`text!`](crate::text).
    pub fn build(format: &mut dyn Format) -> Self {
        Self::build_whole(format).0
    }

    /// The same, and whether something of it was left out.
    pub fn build_whole(format: &mut dyn Format) -> (Self, bool) {
        let mut text = Self::new();
        let cut;
        (text.length, cut) = fill(&mut text.bytes, format);
        (text, cut)
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        as_text(&self.bytes, self.length)
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::build(&mut |writer: &mut Writer| writer.write_str(text))
    }
}

impl<const N: usize> uDisplay for Text<N> {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        f.write_str(self)
    }
}

/// The first bytes of a buffer that a [`Writer`] filled: whole characters of `str`s, so always UTF-8.
fn as_text(bytes: &[u8], length: usize) -> &str {
    core::str::from_utf8(bytes.get(..length).unwrap_or_default()).unwrap_or_default()
}

/// A path of at most 255 bytes; longer ones are refused, never cut.
pub type PathText = Text<255>;

/// Bytes from outside (a process name, a label) made fit for a log: control characters and whatever is not UTF-8
/// become `?`.
pub fn printable<const N: usize>(bytes: &[u8]) -> Text<N> {
    Text::build(&mut |writer: &mut Writer| write_printable(writer, bytes))
}

/// Control characters, and what is not seen itself but changes what is: marks and overrides of the direction of
/// writing, and spaces without width (Unicode, "Default_Ignorable_Code_Point"). Those are for a person at a terminal.
pub fn is_unfit(character: char) -> bool {
    let is_unseen = matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    character.is_control() || crate::IS_WHOLE && is_unseen
}

#[inline(never)]
fn write_printable(writer: &mut Writer, bytes: &[u8]) -> Result<(), Infallible> {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let shown = if is_unfit(character) { '?' } else { character };
            writer.write_str(shown.encode_utf8(&mut [0; 4]))?;
        }
        if !chunk.invalid().is_empty() {
            writer.write_str("?")?;
        }
    }
    Ok(())
}

/// UTF-16 of a firmware or a partition table, little-endian, up to a NUL or the end, made fit for a log likewise.
pub fn utf16<const N: usize>(bytes: &[u8]) -> Text<N> {
    Text::build(&mut |writer: &mut Writer| write_utf16(writer, bytes))
}

#[inline(never)]
fn write_utf16(writer: &mut Writer, bytes: &[u8]) -> Result<(), Infallible> {
    let units = bytes.chunks_exact(2).map(|unit| little_endian::<2>(unit, 0) as u16);
    for character in char::decode_utf16(units.take_while(|unit| *unit != 0)) {
        let character = character.ok().filter(|character| !is_unfit(*character));
        writer.write_str(character.unwrap_or('?').encode_utf8(&mut [0; 4]))?;
    }
    Ok(())
}

/// What can stand in a [`Template`].
pub trait Show {
    /// Writes it.
    fn show(&self, writer: &mut Writer<'_>);
}

impl<T: uDisplay + ?Sized> Show for T {
    fn show(&self, writer: &mut Writer<'_>) {
        let Ok(()) = ufmt::uwrite!(writer, "{}", self);
    }
}

/// A text with places for values: `{}`. A brace is written twice. Use [`format!`](crate::format).
///
/// Gone through when it is written, and not a function of its own for each text, as ufmt makes it: several calls for
/// each of 500 texts are more than the texts.
pub struct Template<'a> {
    /// The text.
    pub text: &'static str,
    /// The values, as many as places.
    pub values: &'a [&'a dyn Show],
}

impl Format for Template<'_> {
    fn format(&mut self, writer: &mut Writer<'_>) {
        let (mut values, mut rest) = (self.values.iter(), self.text);
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'{' | b'}')) {
            let (before, brace) = rest.split_at(at);
            let Ok(()) = writer.write_str(before);
            let (pair, after) = brace.split_at_checked(2).unwrap_or((brace, ""));
            if pair == "{}" {
                if let Some(value) = values.next() {
                    value.show(writer);
                }
            } else {
                let Ok(()) = writer.write_str(pair.get(1..).unwrap_or_default());
            }
            rest = after;
        }
        let Ok(()) = writer.write_str(rest);
    }
}

/// How many places for values a [`Template`] has. Ends the compilation where a brace stands alone.
pub const fn places(text: &str) -> usize {
    let (bytes, mut at, mut count) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        if matches!(bytes[at], b'{' | b'}') {
            assert!(at + 1 < bytes.len(), "a brace stands alone");
            let is_place = bytes[at] == b'{' && bytes[at + 1] == b'}';
            assert!(is_place || bytes[at] == bytes[at + 1], "a brace stands alone");
            count += is_place as usize;
            at += 1;
        }
        at += 1;
    }
    count
}

/// What a function that takes a [`Format`](crate::text::Format) is given: a text with `{}` for each of the values, not
/// yet filled in. The values are what ufmt can display.
#[macro_export]
macro_rules! format {
    ($text:literal $(, $value:expr)* $(,)?) => {
        &mut $crate::text::Template {
            text: const {
                const VALUES: &[&str] = &[$(stringify!($value)),*];
                assert!($crate::text::places($text) == VALUES.len(), "not as many values as places");
                $text
            },
            values: &[$(&$value),*],
        }
    };
}

/// A text of the wanted capacity from a text with places and its values, cut when full.
#[macro_export]
macro_rules! text {
    ($($arg:tt)*) => {
        $crate::text::Text::build($crate::format!($($arg)*))
    };
}

/// Milliseconds, shown as seconds with three decimals.
#[derive(Clone, Copy)]
pub struct Seconds(pub u64);

impl uDisplay for Seconds {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        let zeros = match rest {
            0..10 => "00",
            10..100 => "0",
            _ => "",
        };
        ufmt::uwrite!(f, "{}.{}{}", whole, zeros, rest)
    }
}

/// Bytes, shown in GiB or MiB with one decimal, or in KiB when there are few.
#[derive(Clone, Copy)]
pub struct Size(pub u64);

impl uDisplay for Size {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        if self.0 < 1 << 20 {
            return ufmt::uwrite!(f, "{} KiB", self.0.div_ceil(1024));
        }
        // The set rescue has no bytes for a third unit.
        let is_large = crate::IS_WHOLE && self.0 >= 1 << 30;
        let (bits, unit) = if is_large { (30, "GiB") } else { (20, "MiB") };
        let tenths = self.0.saturating_mul(10) >> bits;
        ufmt::uwrite!(f, "{}.{} {}", tenths / 10, tenths % 10, unit)
    }
}

/// A number of things, with an `s` behind their name unless it is one.
#[derive(Clone, Copy)]
pub struct Count(pub u64, pub &'static str);

impl uDisplay for Count {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        let plural = if self.0 == 1 { "" } else { "s" };
        ufmt::uwrite!(f, "{} {}{}", self.0, self.1, plural)
    }
}

/// The columns that a line for people has at most.
pub const COLUMNS: usize = 80;

/// The start of a text that has at most so many columns, parted at a blank, and what is behind that. A word that is
/// longer stays whole: a path or a URL is to be copied.
#[inline(never)]
pub fn fold(text: &str, columns: usize) -> (&str, &str) {
    let Some((end, _)) = text.char_indices().nth(columns) else {
        return (text, "");
    };
    let blank = |byte: u8| byte == b' ';
    let last = text.bytes().take(end + 1).rposition(blank).filter(|at| *at > 0);
    let Some(at) = last.or_else(|| text.bytes().position(blank)) else {
        return (text, "");
    };
    let (line, rest) = text.split_at(at);
    (line, rest.trim_ascii_start())
}

/// What stands before the last of these bytes, and what behind. (std's search from the end is 300 bytes.)
#[inline(never)]
pub fn split_last(text: &str, mark: u8) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|byte| byte == mark)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The number that a decimal string is, white space around it aside. A plus sign before it is taken, too.
pub fn decimal(text: &str) -> Option<u64> {
    text.trim_ascii().parse().ok()
}

/// The number that these decimal digits are, and nothing but digits.
pub fn digits(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The number behind a word that a line of a file of /proc begins with, in KiB (proc(5)).
pub fn kib_in(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    decimal(line.trim_ascii().strip_suffix("kB")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_its_values_in_their_places() {
        let shown: Text<60> = text!("{}, {{}} and {}{}", "one", 2, Size(2048));
        assert_eq!(&*shown, "one, {} and 22 KiB");
        assert_eq!(&*(text!("") as Text<4>), "");
        assert_eq!(&*(text!("}}{{") as Text<4>), "}{");
        assert_eq!((places("{}a{{b}}{}"), places("{{{}}}")), (2, 1));
    }

    #[test]
    fn a_full_text_is_cut_at_a_character() {
        let cut: Text<4> = Text::from("abcé");
        assert_eq!(&*cut, "abc");
    }

    #[test]
    fn a_text_is_parted_at_the_last_mark() {
        assert_eq!(split_last("a.b.c", b'.'), Some(("a.b", "c")));
        assert_eq!(split_last("é.", b'.'), Some(("é", "")));
        assert_eq!(split_last("abc", b'.'), None);
    }

    #[test]
    fn digits_alone_are_digits() {
        assert_eq!(digits("0012"), Some(12));
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "18446744073709551616"] {
            assert_eq!(digits(text), None);
        }
    }

    #[test]
    fn units() {
        let shown: Text<32> = text!("{} {} {}", Seconds(61_007), Size(1000), Size(3 << 19));
        assert_eq!(&*shown, "61.007 1 KiB 1.5 MiB");
        let shown = |bytes| (text!("{}", Size(bytes)) as Text<32>).to_string();
        assert_eq!(shown((1 << 30) - 1), "1023.9 MiB");
        if crate::IS_WHOLE {
            assert_eq!(shown(1 << 30), "1.0 GiB");
            assert_eq!(shown(31_914_983_424), "29.7 GiB");
        }
    }

    #[test]
    fn one_of_something_has_no_s() {
        let shown: Text<60> =
            text!("{}, {}, {}", Count(0, "file"), Count(1, "file"), Count(2, "file"));
        assert_eq!(&*shown, "0 files, 1 file, 2 files");
    }

    #[test]
    fn a_line_is_folded_at_a_blank() {
        assert_eq!(fold("one two", 7), ("one two", ""));
        assert_eq!(fold("one two", 6), ("one", "two"));
        assert_eq!(fold("one two three", 7), ("one two", "three"));
        assert_eq!(fold("é é é", 3), ("é é", "é"));
        assert_eq!(fold("/a/long/path that", 5), ("/a/long/path", "that"));
        assert_eq!(fold("/a/long/path", 5), ("/a/long/path", ""));
        assert_eq!(fold("", 5), ("", ""));
    }

    #[test]
    fn utf16_ends_at_a_nul_and_shows_what_it_can() {
        let text = |units: &[u16]| {
            let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            utf16::<8>(&bytes).to_string()
        };
        assert_eq!(text(&[0x61, 0xe9, 0, 0x62]), "aé");
        assert_eq!(text(&[0xd83d, 0xde00, 0xd83d, 0x1b]), "😀??");
        assert_eq!(utf16::<8>(b"a\0b").as_str(), "a");
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let shown: Text<32> = printable(b"a\x1b[2J\n\xffb");
        assert_eq!(&*shown, "a?[2J??b");
    }

    #[test]
    #[cfg(feature = "core")]
    fn nothing_unseen_turns_a_name_around() {
        let shown: Text<32> = printable("a\u{202e}gmi\u{200b}.\u{feff}é".as_bytes());
        assert_eq!(&*shown, "a?gmi?.?é");
        assert_eq!(utf16::<8>(&[b'a', 0, 0x2e, 0x20, b'b', 0]).as_str(), "a?b");
    }
}
