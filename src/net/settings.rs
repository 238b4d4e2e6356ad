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

    /// How long to wait before the attempt that follows this many, when the server asked for so many seconds: not
    /// longer than five minutes, whatever it asks for. None: no more attempts, or no time for another one.
    pub fn pause_after(&self, attempts: u32, asked: u64) -> Option<Duration> {
        /// Longer than this nobody waits for a server that says how long it is busy.
        const LONGEST: Duration = Duration::from_secs(300);
        let own = self.pause.saturating_mul((1 << attempts.saturating_sub(1).min(5)).min(30));
        let pause = own.max(Duration::from_secs(asked).min(LONGEST));
        let has_time = self.end.is_none_or(|end| end.left() > pause);
        (attempts < self.attempts && has_time).then_some(pause)
    }
}

/// A host whose addresses are known.
#[derive(Clone, Default)]
pub struct Known {
    /// Its name; empty: none is known.
    pub host: Text<128>,
    /// Its addresses.
    pub addresses: Addresses,
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
    fn pauses_double_and_are_capped_and_a_server_may_ask_for_longer_ones() {
        let patience = Patience { attempts: 100, ..Patience::default() };
        let seconds = |attempts, asked| patience.pause_after(attempts, asked).unwrap().as_secs();
        assert_eq!([1, 2, 3, 6, 7, 99].map(|count| seconds(count, 0)), [1, 2, 4, 30, 30, 30]);
        assert_eq!(
            [3, 4, 5, 300, 301, u64::MAX].map(|asked| seconds(3, asked)),
            [4, 4, 5, 300, 300, 300]
        );
    }

    #[test]
    fn there_is_no_pause_before_what_is_not_tried_any_more() {
        let patience = Patience { attempts: 2, ..Patience::default() };
        assert!(patience.pause_after(1, 0).is_some() && patience.pause_after(2, 0).is_none());
        let soon = Patience { end: Some(Deadline::after(Duration::from_secs(60))), ..patience };
        assert!(soon.pause_after(1, 0).is_some() && soon.pause_after(1, 61).is_none());
    }
}
