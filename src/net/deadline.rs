//! When to give up: a moment of the clock that runs while the machine sleeps.

use crate::sys::clock;
use core::time::Duration;

/// A moment after which nobody waits any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline {
    /// Milliseconds since the machine was started.
    at: u64,
}

impl Deadline {
    /// So long from now.
    pub fn after(duration: Duration) -> Self {
        // Without a clock nothing ever ends: then all has ended. (Stage 1 refuses such a kernel.)
        let now = clock::since_boot().unwrap_or(u64::MAX);
        Self { at: now.saturating_add(duration.as_millis() as u64) }
    }

    /// What is left until then; nothing when it is over.
    pub fn left(self) -> Duration {
        let now = clock::since_boot().unwrap_or(u64::MAX);
        Duration::from_millis(self.at.saturating_sub(now))
    }

    /// True when nothing is left.
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_becomes_less_and_ends() {
        let soon = Deadline::after(Duration::from_millis(20));
        assert!(!soon.is_over() && soon.left() <= Duration::from_millis(20));
        assert!(soon < Deadline::after(Duration::from_secs(60)));
        clock::sleep(Duration::from_millis(25));
        assert!(soon.is_over() && soon.left().is_zero());
    }
}
