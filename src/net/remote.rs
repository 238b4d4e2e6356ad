//! A file on a server, read by ranges, known again by its validator. (To be built.)

use super::client::{Client, Patience, Validator};
use super::url::Url;
use crate::error::Error;

/// A file on a server.
pub struct Remote {
    client: Client,
    url: Url,
    length: Option<u64>,
    takes_ranges: bool,
    start: u64,
    validator: Validator,
}

impl Remote {
    /// Asks for the file from byte `from` on, if it is still the one with this validator: else from its beginning, and
    /// `start` says so.
    pub fn open(
        client: Client,
        url: &Url,
        _bearer: Option<&'static str>,
        from: u64,
        _unless_changed: Option<&Validator>,
    ) -> Result<Self, Error> {
        let validator = Validator::default();
        Ok(Self {
            client,
            url: url.clone(),
            length: None,
            takes_ranges: false,
            start: from,
            validator,
        })
    }

    /// Where it is, for people.
    pub fn shown(&self) -> crate::text::Text<160> {
        self.url.shown()
    }

    /// From here on an exchange, and a place in the file, is tried as often as this.
    pub fn set_attempts(&mut self, attempts: u32) {
        let patience = Patience { attempts, ..self.client.settings().patience };
        self.client.set_patience(patience);
    }

    /// The length of the whole file, where the server tells it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// True when the server answered a range with a range.
    pub fn takes_ranges(&self) -> bool {
        self.takes_ranges
    }

    /// Where the answer to `open` began.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// By what the file is known again.
    pub fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Reads `buffer.len()` bytes at `offset`; fewer only at the end. What follows the last read goes on in the same
    /// answer; anything else is a new request. A broken connection is taken up again where it broke, by If-Range; a
    /// file that has changed meanwhile is an error.
    pub fn read_at(&mut self, _offset: u64, _buffer: &mut [u8]) -> Result<usize, Error> {
        let _ = (&self.client, &self.url);
        Err(Error::failed("reading", &self.url.shown(), "not built yet"))
    }
}
