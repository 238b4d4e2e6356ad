//! One HTTP exchange, with redirects and retries. (To be built.)

use super::deadline::Deadline;
use super::proxy::Proxies;
use super::trust::Trust;
use super::url::Url;
use crate::error::Error;
use crate::text::Text;
use core::time::Duration;

/// What is asked of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PATCH.
    Patch,
}

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
            end: None,
        }
    }
}

/// What all exchanges have in common.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Which proxies are asked.
    pub proxies: Proxies,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// How long to wait.
    pub patience: Patience,
}

/// A validator of a file: by it a server says whether it is still the same (RFC 9110, 8.8).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Validator {
    /// The strong ETag, quotes included; empty without.
    pub tag: Text<128>,
    /// Last-Modified as the server wrote it; empty without.
    pub modified: Text<40>,
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub url: &'a Url,
    /// The token of `Authorization: Bearer`; goes to no other host than that of the URL, whatever redirects say.
    pub bearer: Option<&'a str>,
    /// From which byte on; 0 asks for ranges, too (`bytes=0-`). None: the header is left out.
    pub from: Option<u64>,
    /// If-Range.
    pub unless_changed: Option<&'a Validator>,
    /// JSON, for POST and PATCH.
    pub body: Option<&'a [u8]>,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status: 2xx, 416, or another 4xx (the others are retried, then an error).
    pub status: u16,
    /// The length of this body, where the server tells it.
    pub length: Option<u64>,
    /// With 206: from which byte on.
    pub start: u64,
    /// The length of the whole file, from Content-Range, or Content-Length of a 200.
    pub whole: Option<u64>,
    /// By what it is known again.
    pub validator: Validator,
}

impl Response {
    /// An error that names the status and what it is about, unless it is 2xx.
    pub fn expect_success(&self, doing: &'static str, url: &Url) -> Result<(), Error> {
        match self.status {
            200..300 => Ok(()),
            status => Err(Error::failed(
                doing,
                &url.shown(),
                &crate::text!("HTTP {}", status) as &Text<40>,
            )),
        }
    }
}

/// A client: buffers, and the connection that is open.
pub struct Client {
    settings: Settings,
}

impl Client {
    /// Maps the buffers.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self { settings })
    }

    /// Sends a request and reads the head of the answer: the last one, after redirects and retries.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Response, Error> {
        let _ = &self.settings;
        Err(Error::failed("asking", &request.url.shown(), "not built yet"))
    }

    /// Reads on in the body, at least one byte; 0 at its end, where its length is what was promised.
    pub fn read(&mut self, _buffer: &mut [u8]) -> Result<usize, Error> {
        Err(Error::failed("reading", "the answer", "not built yet"))
    }

    /// A GET whose whole answer goes to `visit` piece by piece.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
