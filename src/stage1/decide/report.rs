//! The warnings of a run: logged as they come, and kept for the preview.

use super::page::Page;
use crate::text::Text;

/// The most warnings that are kept; the log has them all.
const KEPT: usize = 32;

/// The warnings so far.
pub struct Report {
    warnings: heapless::Vec<Text<240>, KEPT>,
    more: u32,
    is_quiet: bool,
}

impl Report {
    /// None yet.
    pub const fn new() -> Self {
        Self { warnings: heapless::Vec::new(), more: 0, is_quiet: false }
    }

    /// None yet, and what comes is only kept: for a second look, see [`Report::log_new`].
    pub const fn quiet() -> Self {
        Self { warnings: heapless::Vec::new(), more: 0, is_quiet: true }
    }

    /// Logs the warnings that `before` has not: those of the same things, looked at again.
    pub fn log_new(&self, before: &Self) {
        for text in self.beyond(before) {
            crate::warn!("{}", text);
        }
    }

    fn beyond<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        self.warnings().filter(|text| !before.warnings().any(|old| old == *text))
    }

    /// Logs a warning and keeps it.
    pub fn warn(&mut self, text: &str) {
        if !self.is_quiet {
            crate::warn!("{}", text);
        }
        if self.warnings.push(Text::from(text)).is_err() {
            self.more += 1;
        }
    }

    /// Lists them on a page.
    pub fn show(&self, page: &mut Page) {
        page.section("warnings", "Warnings");
        page.list("texts", "-", "none");
        for text in self.warnings() {
            page.entry(text);
        }
        if self.more > 0 {
            page.number("more", "more, in the log", self.more.into(), "");
        }
    }

    /// The warnings that were kept.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(|text| &**text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_second_look_only_what_is_new_is_left_over() {
        let (mut before, mut now) = (Report::new(), Report::quiet());
        before.warn("a");
        now.warn("a");
        now.warn("b");
        let new: Vec<_> = now.beyond(&before).collect();
        assert_eq!(new, ["b"]);
    }

    #[test]
    fn too_many_are_counted() {
        let mut report = Report::new();
        for _ in 0..KEPT + 3 {
            report.warn("x");
        }
        assert_eq!((report.warnings().count(), report.more), (KEPT, 3));
    }
}
