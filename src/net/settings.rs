//! What all exchanges of a client have in common.

use super::Addresses;
use super::deadline::Deadline;
use super::proxy::Proxies;
use super::trust::Trust;
use crate::text::Text;
use core::time::Duration;

/// How long each part of an exchange may take, and how often it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Resolving, connecting and TLS.
    pub connect: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two bytes of the answer.
    pub stall: Duration,
    /// How often an exchange is tried, 1 at least.
    pub attempts: u32,
    /// Between the first attempt and the second one; each pause is twice the one before, up to 30 times this.
    pub pause: Duration,
    /// The end of it all, retries and pauses included.
    pub end: Option<Deadline>,
}

impl Default for Patience {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            connect: Duration::from_secs(30),
            first_byte: minute,
            stall: minute,
            attempts: 6,
            pause: Duration::from_secs(1),
            end: None,
        }
    }
}

impl Patience {
    /// When something ends that may take so long: not later than all of it.
    pub fn until(&self, duration: Duration) -> Deadline {
        let own = Deadline::after(duration);
        self.end.map_or(own, |end| end.min(own))
    }

    /// How long to wait before the attempt that follows this many, when the server asked for so many seconds. None: no
    /// more attempts, or no time for another one; longer than two minutes nobody waits for a server that is busy. (One
    /// that must be reached whatever it takes is asked again after two minutes.)
    pub fn pause_after(&self, attempts: u32, asked: u64) -> Option<Duration> {
        const LONGEST: u64 = 120;
        if asked > LONGEST && !self.is_unusual() {
            return None;
        }
        let own = self.pause.saturating_mul((1 << attempts.saturating_sub(1).min(5)).min(30));
        let pause = own.max(Duration::from_secs(asked.min(LONGEST)));
        let has_time = self.end.is_none_or(|end| end.left() > pause);
        (attempts < self.attempts && has_time).then_some(pause)
    }

    /// The same for a server that nothing could be asked: half as many attempts, as its name or port may be wrong. (One
    /// that must be reached whatever it takes gets more than the usual number, and all of them.)
    pub fn before_contact(self) -> Self {
        let attempts = if self.is_unusual() { self.attempts } else { self.attempts.div_ceil(2) };
        Self { attempts, ..self }
    }

    /// More attempts than usual: what is begun must come to its end.
    fn is_unusual(&self) -> bool {
        self.attempts > Self::default().attempts
    }
}

/// A host whose addresses are known.
#[derive(Clone, Default)]
pub struct Known {
    /// Its name; empty: none is known.
    pub host: Text<128>,
    /// Its addresses.
    pub addresses: Addresses,
    /// None of them could be reached the last time: others are asked for.
    pub has_failed: bool,
}

/// What all exchanges have in common.
#[derive(Clone, Default)]
pub struct Settings {
    /// Which proxies are asked.
    pub proxies: Proxies,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// How long to wait.
    pub patience: Patience,
    /// For this host no resolver is asked.
    pub known: Known,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_capped_and_a_server_may_ask_for_two_minutes() {
        let usual = Patience::default();
        let patience = Patience { attempts: 100, ..usual };
        let seconds = |attempts, asked| patience.pause_after(attempts, asked).unwrap().as_secs();
        assert_eq!([1, 2, 3, 6, 7, 99].map(|count| seconds(count, 0)), [1, 2, 4, 30, 30, 30]);
        assert_eq!([3, 4, 5, 120].map(|asked| seconds(3, asked)), [4, 4, 5, 120]);
        assert!([121, u64::MAX].iter().all(|asked| usual.pause_after(3, *asked).is_none()));
        // A disk that is half written is not left for it.
        assert_eq!([121, u64::MAX].map(|asked| seconds(3, asked)), [120, 120]);
    }

    #[test]
    fn a_server_that_cannot_be_reached_at_all_is_tried_half_as_often() {
        let attempts =
            |attempts| Patience { attempts, ..Patience::default() }.before_contact().attempts;
        assert_eq!([1, 2, 6, 7, 36].map(attempts), [1, 1, 3, 7, 36]);
    }

    #[test]
    fn there_is_no_pause_before_what_is_not_tried_any_more() {
        let patience = Patience { attempts: 2, ..Patience::default() };
        assert!(patience.pause_after(1, 0).is_some() && patience.pause_after(2, 0).is_none());
        let soon = Patience { end: Some(Deadline::after(Duration::from_secs(60))), ..patience };
        assert!(soon.pause_after(1, 0).is_some() && soon.pause_after(1, 61).is_none());
    }
}
