//! A text of any length in fixed memory: its first bytes and its last, which say most.
//!
//! Nobody locks anything: what two threads add at once is mixed up, and nothing worse.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// The bytes of the beginning that are kept.
const FIRST: usize = 12 * 1024;
/// And of the end.
const LAST: usize = 20 * 1024;
/// What stands in place of what is between.
const GAP: &[u8] = b"\n[lines are missing here]\n";

/// The beginning and the end of a text of lines.
pub struct Ends {
    bytes: [AtomicU8; FIRST + LAST],
    length: AtomicUsize,
}

impl Ends {
    /// Of an empty text. Memory is taken when it is filled.
    pub const fn new() -> Self {
        Self { bytes: [const { AtomicU8::new(0) }; FIRST + LAST], length: AtomicUsize::new(0) }
    }

    /// Adds to the end.
    pub fn add(&self, bytes: &[u8]) {
        let start = self.length.fetch_add(bytes.len(), Relaxed);
        for (at, byte) in (start..).zip(bytes) {
            if let Some(place) = self.bytes.get(place(at)) {
                place.store(*byte, Relaxed);
            }
        }
    }

    /// Gives all of it byte by byte.
    pub fn for_each(&self, visit: &mut dyn FnMut(u8)) {
        let length = self.length.load(Relaxed);
        for at in 0..length {
            if at >= FIRST && at + LAST < length {
                // The last of those that are missing.
                if at + LAST + 1 == length {
                    GAP.iter().for_each(|byte| visit(*byte));
                }
            } else {
                visit(self.bytes.get(place(at)).map_or(0, |byte| byte.load(Relaxed)));
            }
        }
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the byte at `at` is kept: behind the first ones, each in place of one that is older.
fn place(at: usize) -> usize {
    if at < FIRST { at } else { FIRST + (at - FIRST) % LAST }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ends: &Ends) -> String {
        let mut text = Vec::new();
        ends.for_each(&mut |byte| text.push(byte));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_fits_is_all_there() {
        let ends = Ends::new();
        assert_eq!(text(&ends), "");
        ends.add(b"one\n");
        ends.add(b"two\n");
        assert_eq!(text(&ends), "one\ntwo\n");
        let rest = "x".repeat(FIRST + LAST - 9) + "\n";
        ends.add(rest.as_bytes());
        assert_eq!(text(&ends), format!("one\ntwo\n{rest}"));
    }

    #[test]
    fn of_more_the_first_and_the_last_lines_are_there() {
        let ends = Ends::new();
        let lines: Vec<String> = (0..9000).map(|number| format!("line {number}\n")).collect();
        lines.iter().for_each(|line| ends.add(line.as_bytes()));
        let (kept, gap) = (text(&ends), std::str::from_utf8(GAP).unwrap());
        let (first, last) = kept.split_once(gap).unwrap();
        let all = lines.concat();
        assert_eq!((first, last), (&all[..FIRST], &all[all.len() - LAST..]));
    }
}
