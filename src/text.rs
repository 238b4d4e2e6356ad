//! Text of fixed capacity: messages that are cut when full, paths that are an error when full.

use crate::error::Error;
use core::convert::Infallible;
use core::ops::Deref;
use ufmt::{Formatter, uDisplay, uWrite};

/// A path with its capacity in bytes; longer ones are refused, never cut.
pub type PathText = heapless::String<256>;

/// A message of at most `N` bytes of UTF-8. What does not fit is left out: a message is better cut than lost.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Text<const N: usize>(heapless::String<N>);

impl<const N: usize> Text<N> {
    /// An empty text.
    pub const fn new() -> Self {
        Self(heapless::String::new())
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        let mut new = Self::new();
        let Ok(()) = new.write_str(text);
        new
    }
}

impl<const N: usize> uWrite for Text<N> {
    type Error = Infallible;
    fn write_str(&mut self, text: &str) -> Result<(), Infallible> {
        for character in text.chars() {
            if self.0.push(character).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl<const N: usize> uDisplay for Text<N> {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        f.write_str(self)
    }
}

/// Bytes from outside (a process name, a path from the kernel) made fit for a log: control characters, quotes' worst
/// friends and whatever is not UTF-8 become `?`.
pub fn printable<const N: usize>(bytes: &[u8]) -> Text<N> {
    let mut text = Text::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let shown = if character.is_control() { '?' } else { character };
            let Ok(()) = text.write_char(shown);
        }
        if !chunk.invalid().is_empty() {
            let Ok(()) = text.write_char('?');
        }
    }
    text
}

/// A text of the named capacity from a ufmt format string, cut when full.
#[macro_export]
macro_rules! text {
    ($($arg:tt)*) => {{
        let mut text = $crate::text::Text::new();
        let Ok(()) = ufmt::uwrite!(text, $($arg)*);
        text
    }};
}

/// A path from a ufmt format string, or an error when it does not fit into [`PathText`].
#[macro_export]
macro_rules! path {
    ($($arg:tt)*) => {{
        let mut path = $crate::text::PathText::new();
        match ufmt::uwrite!(path, $($arg)*) {
            Ok(()) => Ok(path),
            Err(_) => Err($crate::text::path_too_long(&path)),
        }
    }};
}

/// What [`path!`](crate::path) fails with.
pub fn path_too_long(start: &str) -> Error {
    Error::failed("using the path", start, "it is longer than 255 bytes")
        .advice("use shorter directory names")
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

/// Bytes, shown in MiB with one decimal, or in KiB when there are few.
#[derive(Clone, Copy)]
pub struct Size(pub u64);

impl uDisplay for Size {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        if self.0 < 1 << 20 {
            return ufmt::uwrite!(f, "{} KiB", self.0.div_ceil(1024));
        }
        let tenths = self.0.saturating_mul(10) >> 20;
        ufmt::uwrite!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

/// The number that a decimal string without sign begins and ends with.
pub fn decimal(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_text_is_cut_at_a_character() {
        let cut: Text<4> = Text::from("abcé");
        assert_eq!(&*cut, "abc");
    }

    #[test]
    fn a_full_path_is_an_error() {
        let long = "x".repeat(300);
        assert!(path!("/{}", long.as_str()).is_err());
        assert_eq!(path!("/{}", "a").unwrap(), "/a");
    }

    #[test]
    fn units() {
        let shown: Text<32> = text!("{} {} {}", Seconds(61_007), Size(1000), Size(3 << 19));
        assert_eq!(&*shown, "61.007 1 KiB 1.5 MiB");
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let shown: Text<32> = printable(b"a\x1b[2J\n\xffb");
        assert_eq!(&*shown, "a?[2J??b");
    }
}
