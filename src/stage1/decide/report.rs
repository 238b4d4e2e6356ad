//! The warnings of a run: logged as they come, and kept for the preview.

use crate::text::Text;

/// The most warnings that are kept; the log has them all.
const KEPT: usize = 32;

/// The warnings so far.
pub struct Report {
    warnings: heapless::Vec<Text<240>, KEPT>,
    more: u32,
}

impl Report {
    /// None yet.
    pub const fn new() -> Self {
        Self { warnings: heapless::Vec::new(), more: 0 }
    }

    /// Logs a warning and keeps it.
    pub fn warn(&mut self, text: &str) {
        crate::warn!("{}", text);
        if self.warnings.push(Text::from(text)).is_err() {
            self.more += 1;
        }
    }

    /// The warnings that were kept.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(|text| &**text)
    }

    /// How many more there were.
    pub fn more(&self) -> u32 {
        self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_counted() {
        let mut report = Report::new();
        for _ in 0..KEPT + 3 {
            report.warn("x");
        }
        assert_eq!((report.warnings().count(), report.more()), (KEPT, 3));
    }
}
