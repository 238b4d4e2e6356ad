//! One HTTP exchange, with redirects and retries.
//!
//! An error that is a refusal is one that no retry mends: whoever resolves, connects and greets says so by its kind.
//! What merely failed is tried again; a request that would change something once more only where the server has not
//! done it.

use super::connection::{self, Connection, Connector, Received};
use super::http::body::{Body, Framing};
use super::http::head::{Encoding, Facts, Head};
use super::proxy::Proxy;
use super::url::Url;
use crate::error::{Doing, Error, Kind};
use crate::sys::{clock, map};
use crate::text::Text;
use core::time::Duration;

pub use super::http::head::Validator;
pub use super::http::request::{self, Method, Request};
pub use super::settings::{Known, Patience, Settings};

/// More redirects than this are a loop.
const MOST_REDIRECTS: u32 = 10;

/// What is received at once. A record of TLS has 16 KiB.
const BUFFER: usize = 16 * 1024;

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status: 2xx, 416, or another 4xx (the others are retried, then an error).
    pub status: u16,
    /// The length of this body, where the server tells it.
    pub length: Option<u64>,
    /// With 206: from which byte on.
    pub start: u64,
    /// The length of the whole file, from Content-Range, or Content-Length of a 200.
    pub whole: Option<u64>,
    /// True when the server says that it answers ranges with ranges, or did.
    pub takes_ranges: bool,
    /// By what it is known again.
    pub validator: Validator,
    /// The server's clock: seconds since 1970.
    pub date: Option<u64>,
}

impl Response {
    /// An error that names the status and what it is about, unless it is 2xx.
    pub fn expect_success(&self, doing: &'static str, url: &Url) -> Result<(), Error> {
        if (200..300).contains(&self.status) {
            Ok(())
        } else {
            Err(refusal(doing, url, self.status))
        }
    }
}

/// What a status means that is none of success.
fn refusal(doing: &'static str, url: &Url, status: u16) -> Error {
    let meaning = match status {
        400 => " (bad request)",
        401 => " (the key is not accepted)",
        403 => " (forbidden)",
        404 | 410 => " (not found)",
        416 => " (no such range)",
        429 => " (too many requests)",
        500..600 => " (the server has a problem)",
        _ => "",
    };
    let why: Text<60> = crate::text!("HTTP {}{}", status, meaning);
    Error::failed(doing, &url.shown(), &why)
}

/// True where a server says that it has not even begun with what was asked (RFC 9110, 15.5.9; RFC 6585, 4). The 5xx do
/// not say that: whoever sends them may have passed the request on, or broken off in the middle of it.
fn is_undone(status: u16) -> bool {
    matches!(status, 408 | 429)
}

/// Refuses to go on in the clear where it began by TLS.
fn check_redirect(from: &Url, to: &Url) -> Result<(), Error> {
    if from.is_secure() && !to.is_secure() {
        let why = "the server leads from https to http";
        return Err(Error::refused("following a redirect to", &to.shown(), why));
    }
    Ok(())
}

/// What is large of a client.
struct State {
    head: Head,
    /// Where the last request went, after redirects.
    url: Url,
    /// Where a redirect leads to.
    next: Url,
}

/// A client: buffers, and the connection that is open.
pub struct Client {
    settings: Settings,
    state: &'static mut State,
    received: Received,
    connection: Option<Connection>,
    /// The answer leaves the connection open.
    keeps_open: bool,
    body: Body,
    reached: Known,
    /// The server may have got the request, or a part of it.
    was_sent: bool,
    /// A server has answered before: it is there, and what fails now passes.
    has_answered: bool,
    /// Something was sent that would change more when it is sent again: it is not, unless the server has not done it.
    may_have_changed: bool,
}

impl Client {
    /// Maps the buffers, for good: one client is used again and again.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let for_what = ("mapping memory for", "the network");
        let buffer = map::buffer(BUFFER).doing(for_what.0, for_what.1)?;
        let state = map::place(State { head: Head::new(), url: Url::new(), next: Url::new() });
        Ok(Self {
            settings,
            state: state.doing(for_what.0, for_what.1)?,
            received: Received::new(buffer),
            connection: None,
            keeps_open: false,
            body: Body::new(Framing::Nothing),
            reached: Known::default(),
            was_sent: false,
            has_answered: false,
            may_have_changed: false,
        })
    }

    /// Sends a request and reads the head of the answer: the last one, after redirects and retries.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Response, Error> {
        let mut attempts = 0;
        self.may_have_changed = false;
        loop {
            attempts += 1;
            let mut patience = self.settings.patience;
            let (error, asked) = match self.follow(request) {
                Ok(()) if connection::is_passing(self.facts().status) => {
                    let status = self.facts().status;
                    let error = refusal("asking", &self.state.url, status);
                    if self.may_have_changed && !is_undone(status) {
                        self.close();
                        return Err(error);
                    }
                    (error, self.asked_pause())
                }
                Ok(()) => return self.response(request),
                Err(error) => {
                    let is_final = error.kind() == Kind::Refused || self.may_have_changed;
                    self.close();
                    if is_final {
                        return Err(error);
                    }
                    if !self.was_sent && !self.has_answered {
                        patience = patience.before_contact();
                    }
                    (error, 0)
                }
            };
            self.close();
            let Some(pause) = patience.pause_after(attempts, asked) else {
                return Err(self.named(error));
            };
            crate::info!("{}; trying again in {} s", error, pause.as_secs());
            drop(error);
            clock::sleep(pause);
        }
    }

    /// The same failure, with the URL.
    fn named(&self, error: Error) -> Error {
        let why: Text<240> = crate::text!("{}", error);
        let shown = self.state.url.shown();
        if crate::bytes::has_word(&why, &shown) {
            error
        } else {
            Error::failed("asking", &shown, &why)
        }
    }

    /// How many seconds the server wants to be left alone. A date is compared with its own clock.
    fn asked_pause(&self) -> u64 {
        let facts = self.facts();
        let now = facts.date.or_else(|| clock::since_1970().ok()).unwrap_or(u64::MAX);
        let by_date = facts.retry_at.map_or(0, |at| at.saturating_sub(now));
        facts.retry_after.unwrap_or(by_date)
    }

    /// One attempt: the request, and those that redirects lead to.
    fn follow(&mut self, request: &Request<'_>) -> Result<(), Error> {
        self.leave_unless(self.state.url.has_origin_of(request.url));
        self.state.url.copy_from(request.url);
        let mut request = *request;
        for _ in 0..=MOST_REDIRECTS {
            self.exchange(&request)?;
            self.has_answered = true;
            let status = self.facts().status;
            let State { head, url, next } = &mut *self.state;
            if !matches!(status, 301 | 302 | 303 | 307 | 308) || head.location().is_empty() {
                return Ok(());
            }
            next.join(url, head.location())?;
            check_redirect(url, next)?;
            crate::debug!("redirected to {}", next.shown());
            let is_same = next.has_origin_of(url);
            if !is_same {
                request.bearer = None;
            }
            // See other: what was asked is done. The others are asked the same again (RFC 9110, 15.4).
            if status == 303 && !request.method.only_reads() {
                request.method = Method::Get;
                request.body = None;
            }
            url.copy_from(next);
            self.leave_unless(is_same);
        }
        let last = self.state.url.shown();
        Err(Error::refused("following redirects, at last to", &last, "there are more than 10"))
    }

    /// The connection stays only where it leads to the same server and is at rest.
    fn leave_unless(&mut self, is_same: bool) {
        let is_at_rest = self.body.has_ended() && self.received.bytes().is_empty();
        if !(is_same && self.keeps_open && is_at_rest) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.connection = None;
        self.received.clear();
    }

    /// One request and the head of its answer. A server may close a connection at rest at any time: then there is
    /// another one, without a word. Not for what can be done once only: nobody would know whether it was.
    fn exchange(&mut self, request: &Request<'_>) -> Result<(), Error> {
        if !request.method.can_be_repeated() {
            self.close();
        }
        let was_open = self.connection.is_some();
        let result = self.exchange_once(request);
        if was_open && !self.state.head.has_begun() && result.is_err() {
            drop(result);
            self.close();
            return self.exchange_once(request);
        }
        result
    }

    fn exchange_once(&mut self, request: &Request<'_>) -> Result<(), Error> {
        let State { head, url, .. } = &mut *self.state;
        head.clear();
        self.was_sent = false;
        let proxy = self.settings.proxies.choose(url).map(Proxy::parse).transpose()?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let (settings, reached) = (&self.settings, &mut self.reached);
                let mut connector =
                    Connector { settings, reached, head, received: &mut self.received };
                self.connection.insert(connector.open(url, proxy)?)
            }
        };
        // In the clear it answers itself; by TLS it has only made the way.
        let proxy = proxy.filter(|_| !url.is_secure());
        let credentials = proxy.map(|proxy| proxy.credentials);
        let buffer = self.received.clear();
        let length = request::put(request, url, credentials, buffer)
            .map_err(|why| Error::refused("asking", &url.shown(), why))?;
        let deadline = self.settings.patience.until(self.settings.patience.first_byte);
        head.clear();
        self.was_sent = true;
        self.may_have_changed |= !request.method.can_be_repeated();
        connection.write_all(buffer.get(..length).unwrap_or_default(), deadline)?;
        connection::read_head(connection, &mut self.received, head, deadline)?;
        if let Some(proxy) = proxy.filter(|_| head.facts().status == 407) {
            return Err(connection::needs_credentials(&proxy));
        }
        self.body = Body::new(head.framing(request.method == Method::Head));
        self.keeps_open = head.keeps_open() && !self.body.ends_with_connection();
        Ok(())
    }

    fn facts(&self) -> &Facts {
        self.state.head.facts()
    }

    /// What the last head says, where it fits what was asked.
    fn response(&self, request: &Request<'_>) -> Result<Response, Error> {
        let facts = self.facts();
        let refused = |why: &str| Err(Error::refused("asking", &self.state.url.shown(), why));
        let mut response = Response {
            status: facts.status,
            length: facts.length.filter(|_| !facts.is_chunked),
            takes_ranges: facts.takes_ranges,
            validator: facts.validator.clone(),
            date: facts.date,
            ..Response::default()
        };
        match facts.status {
            206 => {
                let part = facts.part.and_then(|part| Some((part.bytes?, part.whole)));
                let Some(((first, last), whole)) = part else {
                    return refused("it sent a part without saying which (HTTP 206)");
                };
                let length = last - first + 1;
                if request.from != Some(first) || response.length.unwrap_or(length) != length {
                    return refused("it sent another part than was asked for (HTTP 206)");
                }
                response.length = Some(length);
                (response.start, response.whole, response.takes_ranges) = (first, whole, true);
            }
            200..300 => response.whole = response.length,
            416 => response.whole = facts.part.and_then(|part| part.whole),
            400..500 => {}
            status => return Err(refusal("asking", &self.state.url, status)),
        }
        // Of a file it is nearly always its own format, and whoever reads the image looks for that itself.
        let is_readable = match facts.encoding {
            Encoding::Identity => true,
            Encoding::Gzip => request.from.is_some(),
            Encoding::Other => false,
        };
        if !is_readable && facts.status < 300 {
            return refused("it sent an encoding that was not asked for (Content-Encoding)");
        }
        Ok(response)
    }

    /// Reads on in the body, at least one byte; 0 at its end, where its length is what was promised.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let result = self.read_some(buffer);
        result.map_err(|error| {
            self.close();
            self.named(error)
        })
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        while !self.body.has_ended() && !buffer.is_empty() {
            let deadline = self.settings.patience.until(self.settings.patience.stall);
            let Some(connection) = &mut self.connection else {
                return Err(self.broken("the connection is not open any more"));
            };
            let ahead = self.body.data_ahead().min(buffer.len());
            if ahead > 0 && self.received.bytes().is_empty() {
                // Nothing but data: to where it belongs.
                let count =
                    connection.read(buffer.get_mut(..ahead).unwrap_or_default(), deadline)?;
                self.body.note_data(count);
                if count > 0 {
                    return Ok(count);
                }
                self.end_with_connection()?;
            } else if self.received.fill(connection, deadline)? {
                let fed = self.body.feed(self.received.bytes(), buffer);
                let refused =
                    |why| Error::refused("reading the answer of", &self.state.url.shown(), why);
                let (taken, given) = fed.map_err(refused)?;
                self.received.take(taken);
                if given > 0 {
                    return Ok(given);
                }
            } else {
                self.end_with_connection()?;
            }
        }
        Ok(0)
    }

    fn end_with_connection(&mut self) -> Result<(), Error> {
        self.body.end().map_err(|why| {
            let given = self.body.given();
            let why: Text<120> = match self.body.length() {
                Some(length) => crate::text!("{}, after {} of {} bytes", why, given, length),
                None => crate::text!("{}, after {} bytes", why, given),
            };
            self.broken(&why)
        })
    }

    fn broken(&self, why: &str) -> Error {
        Error::failed("reading the answer of", &self.state.url.shown(), why)
    }

    /// Reads all that is left of the body; an answer that does not fit is refused.
    pub fn read_all(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        loop {
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            // Where it is full, what is left must be the end.
            let is_full = rest.is_empty();
            let count = if is_full { self.read(&mut [0])? } else { self.read(rest)? };
            match count {
                0 => return Ok(filled),
                _ if is_full => break,
                _ => filled += count,
            }
        }
        self.close();
        let why: Text<60> = crate::text!("it is longer than {} bytes", buffer.len());
        Err(Error::refused("reading the answer of", &self.state.url.shown(), &why))
    }

    /// What all exchanges have in common.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From here on it waits as long as this.
    pub fn set_patience(&mut self, patience: Patience) {
        self.settings.patience = patience;
    }

    /// The host that was connected to last, the proxy's where there is one, and its addresses; empty when it could not
    /// be.
    pub fn reached(&self) -> &Known {
        &self.reached
    }

    /// Waits before another attempt at something that failed so often; false when there is none any more.
    pub fn pause(&self, attempts: u32) -> bool {
        let pause: Option<Duration> = self.settings.patience.pause_after(attempts, 0);
        pause.map(clock::sleep).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Server, client, patience, shown};
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    fn read(client: &mut Client) -> Result<String, Error> {
        let mut buffer = vec![0; 1000];
        let length = client.read_all(&mut buffer)?;
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The answer to a GET, and its body.
    fn get(client: &mut Client, url: &Url) -> Result<(Response, String), Error> {
        let response = client.send(&Request::get(url))?;
        let body = read(client)?;
        Ok((response, body))
    }

    fn body_of(answer: &str) -> Result<String, Error> {
        let server = Server::of(&[answer]);
        get(&mut client(), &server.url("/")).map(|(_, body)| body)
    }

    fn error_of(answers: &[&str]) -> String {
        let server = Server::of(answers);
        shown(&get(&mut client(), &server.url("/a?secret")).unwrap_err())
    }

    #[test]
    fn bodies_of_all_kinds_are_read() {
        for answer in [
            OK,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            // What has no other end ends with the connection.
            let server = Server::start(|_, _| {
                (answer.into(), answer.contains("ength") || answer.contains("Chunked"))
            });
            let (response, body) = get(&mut client(), &server.url("/")).unwrap();
            assert_eq!((response.status, &*body), (200, "hello"), "{answer}");
        }
        assert_eq!(body_of("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), "");
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let server = Server::of(&["HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", OK]);
        let mut client = client();
        let url = server.url("/");
        let response =
            client.send(&Request { method: Method::Head, ..Request::get(&url) }).unwrap();
        assert_eq!((response.length, client.read(&mut [0; 10]).unwrap()), (Some(5000), 0));
        assert_eq!(get(&mut client, &url).unwrap().1, "hello");
        assert!(server.seen()[0].starts_with("HEAD / HTTP/1.1\r\n"));
    }

    #[test]
    fn a_body_that_ends_too_early_is_an_error_that_says_how_much_came() {
        let error =
            error_of(&["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nhello"]);
        assert!(error.contains("ended before the answer did, after 5 of 7 bytes"), "{error}");
        let error = error_of(&[
            "HTTP/1.1 200 OK\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello",
        ]);
        assert!(error.contains("after 5 bytes") && error.contains("/a"), "{error}");
        assert!(!error.contains("secret"));
    }

    #[test]
    fn what_is_too_long_for_whoever_reads_it_is_refused() {
        let server = Server::start(|_, _| {
            ([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 1_000_000]].concat(), true)
        });
        let error = get(&mut client(), &server.url("/")).unwrap_err();
        assert!(shown(&error).contains("longer than 1000 bytes"));
        assert_eq!(
            body_of(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}",
                "x".repeat(1000)
            ))
            .unwrap()
            .len(),
            1000
        );
    }

    #[test]
    fn a_connection_is_used_again_and_made_anew_where_it_was_closed() {
        let mut client = client();
        let server = Server::start(|number, _| (OK.into(), number != 1));
        for _ in 0..4 {
            assert_eq!(get(&mut client, &server.url("/")).unwrap().1, "hello");
        }
        assert_eq!(server.seen().len(), 4);
    }

    #[test]
    fn what_is_left_of_an_answer_is_not_the_next_one() {
        let server = Server::of(&[OK, OK]);
        let mut client = client();
        client.send(&Request::get(&server.url("/"))).unwrap();
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 2);
        assert_eq!(get(&mut client, &server.url("/")).unwrap().1, "hello");
    }

    #[test]
    fn passing_problems_are_tried_again() {
        for status in [408, 429, 500, 502, 503, 504] {
            let busy = format!("HTTP/1.1 {status} x\r\nContent-Length: 1\r\n\r\nx");
            let server = Server::of(&[&busy, "", OK]);
            assert_eq!(get(&mut client(), &server.url("/")).unwrap().1, "hello", "{status}");
            let error = error_of(&[&busy, &busy, &busy]);
            assert!(error.contains(&format!("/a: HTTP {status}")), "{error}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn what_no_retry_mends_is_not_tried_again() {
        for status in [400, 401, 403, 404, 410, 501, 505, 304] {
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\npage");
            let server = Server::of(&[&answer, OK]);
            let url = server.url("/");
            let result = client().send(&Request::get(&url));
            let error = result.and_then(|response| response.expect_success("asking", &url));
            assert!(shown(&error.unwrap_err()).contains(&format!("HTTP {status}")));
            assert_eq!(server.seen().len(), 1, "{status}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (answer, why) in [
            ("SSH-2.0-x close\r\n\r\n", "not HTTP/1.1"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "two different"),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 0\r\n\r\n",
                "Content-Encoding",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
                "Content-Encoding",
            ),
            (
                "HTTP/1.1 206 OK\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello",
                "another part",
            ),
            ("HTTP/1.1 101 Switching\r\n\r\n", "another protocol"),
        ] {
            let error = error_of(&[answer, OK]);
            assert!(error.contains(why), "{error}");
        }
        let error = error_of(&[&"HTTP/1.1 100 x\r\n\r\n".repeat(100)]);
        assert!(error.contains("no end"), "{error}");
        let fields = "X-Long: abcdefghijklmnopqrstuvwxyz\r\n".repeat(300_000);
        let error = error_of(&[&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")]);
        assert!(error.contains("longer than 32 KiB"), "{error}");
    }

    #[test]
    fn redirects_are_followed() {
        for status in [301, 302, 303, 307, 308] {
            let redirect =
                format!("HTTP/1.1 {status} x\r\nLocation: ../c?d\r\nContent-Length: 4\r\n\r\npage");
            let server = Server::of(&[&redirect, OK]);
            assert_eq!(get(&mut client(), &server.url("/a/b")).unwrap().1, "hello");
            assert!(server.seen()[1].starts_with("GET /c?d HTTP/1.1\r\n"));
        }
    }

    #[test]
    fn a_loop_of_redirects_ends_and_names_its_last_url() {
        let server = Server::start(|number, _| {
            (
                format!(
                    "HTTP/1.1 302 x\r\nLocation: /n{number}?secret\r\nContent-Length: 0\r\n\r\n"
                )
                .into(),
                true,
            )
        });
        let error = shown(&get(&mut client(), &server.url("/")).unwrap_err());
        assert!(
            error.contains("/n10: there are more than 10") && !error.contains("secret"),
            "{error}"
        );
        assert_eq!(server.seen().len(), 11);
    }

    #[test]
    fn nobody_is_led_from_https_to_http() {
        let url = |text| Url::parse(text).unwrap();
        let error = check_redirect(&url("https://h/"), &url("http://h/x?secret")).unwrap_err();
        let wanted = "following a redirect to http://h/x: the server leads from https to http";
        assert_eq!(shown(&error), wanted);
        for (from, to) in
            [("https://h/", "https://i/"), ("http://h/", "https://h/"), ("http://h/", "http://i/")]
        {
            assert!(check_redirect(&url(from), &url(to)).is_ok());
        }
    }

    #[test]
    fn a_token_goes_to_its_own_server_alone() {
        let other = Server::of(&[OK, OK]);
        let away = format!(
            "HTTP/1.1 307 x\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            other.url("/x").whole()
        );
        let here = "HTTP/1.1 302 x\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n";
        let server = Server::of(&[here, &away]);
        let url = server.url("/");
        client().send(&Request { bearer: Some("token"), ..Request::get(&url) }).unwrap();
        let has_token = |request: &String| request.contains("\r\nAuthorization: Bearer token\r\n");
        assert!(server.seen().iter().all(has_token) && server.seen().len() == 2);
        assert_eq!(other.seen().len(), 1);
        assert!(!other.seen()[0].contains("token"));
    }

    /// What a server is asked that gives these answers to a POST or PATCH, and the status in the end; 0 for an error.
    fn change(method: Method, answers: &[&str]) -> (Vec<String>, u16) {
        let server = Server::of(answers);
        let url = server.url("/");
        let request = Request { method, body: Some(b"{}"), ..Request::get(&url) };
        let status = client().send(&request).map_or(0, |response| response.status);
        (server.seen(), status)
    }

    #[test]
    fn what_makes_something_new_is_not_sent_twice_unless_the_server_has_not_done_it() {
        for (status, is_repeated) in
            [(408, true), (429, true), (500, false), (502, false), (503, false), (504, false)]
        {
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            let (seen, status) = change(Method::Post, &[&answer, OK]);
            assert_eq!(
                (seen.len(), status),
                if is_repeated { (2, 200) } else { (1, 0) },
                "{answer}"
            );
            assert!(seen.iter().all(|request| request.ends_with("\r\n\r\n{}")));
        }
        // No answer, and half of one: nobody knows whether it was done.
        for answer in ["", "HTTP/1.1 200 close"] {
            assert_eq!(change(Method::Post, &[answer, OK]).0.len(), 1, "{answer}");
        }
        // Nor is it sent over a connection that may be closed by now.
        let server = Server::start(|number, _| (OK.into(), number != 0));
        let url = server.url("/");
        let mut client = client();
        assert_eq!(get(&mut client, &url).unwrap().1, "hello");
        let post = Request { method: Method::Post, body: Some(b"{}"), ..Request::get(&url) };
        assert_eq!(client.send(&post).unwrap().status, 200);
    }

    #[test]
    fn what_sets_something_is_sent_until_it_is_known_to_be_set() {
        for status in [408, 429, 500, 502, 503, 504] {
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            let (seen, status) = change(Method::Patch, &[&answer, OK]);
            assert_eq!((seen.len(), status), (2, 200), "{answer}");
        }
        let (seen, status) = change(Method::Patch, &["", "HTTP/1.1 200 close", OK]);
        assert_eq!((seen.len(), status), (3, 200));
        assert!(seen.iter().all(|request| request.ends_with("\r\n\r\n{}")));
        assert_eq!(change(Method::Patch, &["HTTP/1.1 400 x\r\n\r\n", OK]).0.len(), 1);
    }

    #[test]
    fn what_changes_something_is_asked_elsewhere_as_it_was_or_as_a_get() {
        for (status, method) in
            [(302, "PATCH /n"), (307, "PATCH /n"), (308, "PATCH /n"), (303, "GET /n")]
        {
            let redirect =
                format!("HTTP/1.1 {status} x\r\nLocation: /n\r\nContent-Length: 0\r\n\r\n");
            let (seen, _) = change(Method::Patch, &[&redirect, OK]);
            assert!(seen[1].starts_with(method), "{status}");
            assert_eq!(seen[1].ends_with("{}"), status != 303);
        }
    }

    #[test]
    fn ranges_are_told_apart_from_the_whole() {
        let part = "HTTP/1.1 206 x\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\nETag: \"x\"\r\n\r\nllo";
        let none = "HTTP/1.1 416 x\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n";
        let server = Server::of(&[
            part,
            none,
            OK,
            "HTTP/1.1 206 x\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\n",
        ]);
        let url = server.url("/");
        let mut client = client();
        let mut ask = |from| client.send(&Request { from: Some(from), ..Request::get(&url) });
        let response = ask(2).unwrap();
        assert_eq!(
            (response.status, response.start, response.length, response.whole),
            (206, 2, Some(3), Some(5))
        );
        assert_eq!(&*response.validator.tag, "\"x\"");
        assert_eq!(
            ask(5).map(|response| (response.status, response.whole)).unwrap(),
            (416, Some(5))
        );
        assert_eq!(
            ask(2).map(|response| (response.status, response.start, response.whole)).unwrap(),
            (200, 0, Some(5))
        );
        assert!(shown(&ask(2).unwrap_err()).contains("another part"));
        assert!(server.seen()[0].contains("\r\nRange: bytes=2-\r\n"));
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let server = Server::start(|_, _| (Vec::new(), true));
        let mut client = client();
        let short = Duration::from_millis(50);
        client.set_patience(Patience {
            attempts: 1,
            first_byte: short,
            stall: short,
            ..patience()
        });
        let error = get(&mut client, &server.url("/a")).unwrap_err();
        assert!(
            shown(&error).contains("/a: ") && shown(&error).contains("timed out"),
            "{}",
            shown(&error)
        );
        let server =
            Server::start(|_, _| (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe".into(), true));
        let error = get(&mut client, &server.url("/a")).unwrap_err();
        assert!(shown(&error).contains("timed out"), "{}", shown(&error));
    }

    #[test]
    fn a_server_that_has_answered_is_waited_for_longer_than_one_that_never_has() {
        let pause = Duration::from_millis(20);
        // Bound by nobody once it has answered.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a", listener.local_addr().unwrap());
        let url = Url::parse(&url).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut connection, &mut [0; 1024]);
            let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
            std::io::Write::write_all(&mut connection, answer).unwrap();
        });
        let (mut client, mut other) = (client(), client());
        for each in [&mut client, &mut other] {
            each.set_patience(Patience { attempts: 5, pause, ..patience() });
        }
        get(&mut client, &url).unwrap();
        answering.join().unwrap();
        let pauses = |client: &mut Client| {
            let began = std::time::Instant::now();
            get(client, &url).unwrap_err();
            began.elapsed()
        };
        // Three attempts for the one, five for the other.
        assert!(pauses(&mut other) >= pause * 3);
        assert!(pauses(&mut client) >= pause * 15);
    }

    #[test]
    fn who_cannot_be_reached_is_named() {
        let mut client = client();
        // Bound, so that nobody else takes it, and not listening.
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        let any: core::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&socket, &any).unwrap();
        let port = core::net::SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap())
            .unwrap()
            .port();
        let url = Url::parse(&format!("http://127.0.0.1:{port}/a?secret")).unwrap();
        let error = shown(&client.send(&Request::get(&url)).unwrap_err());
        assert!(
            error.contains("connecting to 127.0.0.1") && error.contains(&port.to_string()),
            "{error}"
        );
        assert!(!error.contains("secret") && client.reached().has_failed);
    }

    #[test]
    fn a_known_host_needs_no_resolver_and_what_was_reached_is_known() {
        let server = Server::of(&[OK]);
        let mut known = Known { host: Text::from("api.invalid"), ..Known::default() };
        known.addresses.push("127.0.0.1".parse().unwrap()).unwrap();
        let settings = Settings { known, patience: patience(), ..Settings::default() };
        let mut client = Client::new(settings).unwrap();
        let url = Url::parse(&format!("http://api.invalid:{}/", server.port)).unwrap();
        assert_eq!(get(&mut client, &url).unwrap().1, "hello");
        assert!(server.seen()[0].contains(&format!("\r\nHost: api.invalid:{}\r\n", server.port)));
        assert_eq!(&*client.reached().host, "api.invalid");
        assert_eq!(client.reached().addresses.len(), 1);
    }

    fn through(server: &Server, user: &str) -> Client {
        let proxy = Some(&*format!("http://{user}127.0.0.1:{}", server.port).leak());
        let proxies = super::super::proxy::Proxies { http: proxy, https: proxy, none_for: None };
        Client::new(Settings { proxies, patience: patience(), ..Settings::default() }).unwrap()
    }

    #[test]
    fn a_proxy_is_asked_for_the_whole_url() {
        let server = Server::of(&[OK]);
        let url = Url::parse("http://far.invalid/a").unwrap();
        assert_eq!(get(&mut through(&server, "me:secret@"), &url).unwrap().1, "hello");
        let seen = &server.seen()[0];
        assert!(seen.starts_with("GET http://far.invalid/a HTTP/1.1\r\nHost: far.invalid\r\n"));
        assert!(seen.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"));
    }

    #[test]
    fn a_proxy_that_wants_a_password_says_so_and_no_password_is_shown() {
        let answer = "HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n";
        for (user, why) in [("", "wants a user"), ("me:secret@", "does not take")] {
            for scheme in ["http", "https"] {
                if scheme == "https" && !cfg!(feature = "tls") {
                    continue;
                }
                let server = Server::of(&[answer, OK]);
                let url = Url::parse(&format!("{scheme}://far.invalid/a")).unwrap();
                let error = shown(&get(&mut through(&server, user), &url).unwrap_err());
                assert!(
                    error.contains(why) && error.contains("407") && !error.contains("secret"),
                    "{error}"
                );
            }
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_way_through_a_proxy_is_asked_for_without_the_token() {
        let url = Url::parse("https://far.invalid/a").unwrap();
        for (answer, why, count) in [
            ("HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n", "HTTP 403 for far.invalid", 1),
            ("HTTP/1.1 503 close\r\n\r\n", "HTTP 503 for far.invalid", 2),
            ("HTTP/1.1 200 OK\r\n\r\nsurprise", "more than was asked for", 1),
        ] {
            let server = Server::of(&[answer, answer, answer]);
            let mut client = through(&server, "");
            let error = client.send(&Request { bearer: Some("token"), ..Request::get(&url) });
            let error = shown(&error.unwrap_err());
            assert!(error.contains(why) && error.contains("the proxy 127.0.0.1"), "{error}");
            assert_eq!(server.seen().len(), count);
            assert!(server.seen()[0].starts_with("CONNECT far.invalid:443 HTTP/1.1\r\n"));
            assert!(!server.seen()[0].contains("token"));
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_says_which_has_it() {
        let url = Url::parse("https://127.0.0.1:1/a").unwrap();
        let error = client().send(&Request::get(&url)).unwrap_err();
        assert!(shown(&error).contains("this build has no TLS; the full one has"));
    }
}
