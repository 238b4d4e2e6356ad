//! A connection to a server, in the clear or by TLS, through a proxy where one is set.

use super::deadline::Deadline;
use super::http::head::Head;
use super::http::request;
#[cfg(feature = "tls")]
use super::http::request::{Method, Request};
use super::names;
use super::proxy::Proxy;
use super::settings::{Known, Settings};
use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::{self, Session};
use super::url::Url;
use crate::error::Error;
use crate::text::Text;
use core::net::SocketAddr;
#[cfg(feature = "tls")]
use core::time::Duration;

/// A connection to a server.
pub enum Connection {
    /// In the clear.
    Plain(Socket),
    /// By TLS.
    #[cfg(feature = "tls")]
    Secure(Session),
}

impl Connection {
    /// Reads what has come, at least one byte; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        match self {
            Connection::Plain(socket) => socket.read(buffer, deadline),
            #[cfg(feature = "tls")]
            Connection::Secure(session) => session.read(buffer, deadline),
        }
    }

    /// Writes all of it.
    pub fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        match self {
            Connection::Plain(socket) => socket.write_all(bytes, deadline),
            #[cfg(feature = "tls")]
            Connection::Secure(session) => session.write_all(bytes, deadline),
        }
    }
}

/// What was received and not looked at yet.
pub struct Received {
    buffer: &'static mut [u8],
    start: usize,
    end: usize,
}

impl Received {
    /// Nothing, with room for more.
    pub fn new(buffer: &'static mut [u8]) -> Self {
        Self { buffer, start: 0, end: 0 }
    }

    /// Forgets it, and lends the buffer to whoever fills it with something else.
    pub fn clear(&mut self) -> &mut [u8] {
        (self.start, self.end) = (0, 0);
        self.buffer
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Notes that so many of them were looked at.
    pub fn take(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Receives more, where all was looked at; false at the end of the connection.
    pub fn fill(&mut self, from: &mut Connection, deadline: Deadline) -> Result<bool, Error> {
        if self.bytes().is_empty() {
            let count = from.read(self.clear(), deadline)?;
            self.end = count;
        }
        Ok(self.start < self.end)
    }
}

/// What making a connection needs.
pub struct Connector<'a> {
    /// Whose names, proxies and certificates count.
    pub settings: &'a Settings,
    /// The host whose addresses were found last.
    pub reached: &'a mut Known,
    /// Room for an answer of a proxy.
    pub head: &'a mut Head,
    /// The same.
    pub received: &'a mut Received,
}

impl Connector<'_> {
    /// Connects to the server of a URL: each of its addresses, or of its proxy's, is tried.
    pub fn open(&mut self, url: &Url, proxy: Option<Proxy<'_>>) -> Result<Connection, Error> {
        if url.is_secure() && !cfg!(feature = "tls") {
            let why = "this build has no TLS; the full one has";
            return Err(Error::refused("connecting to", &url.shown(), why));
        }
        let deadline = self.settings.patience.until(self.settings.patience.connect);
        let (host, port) = proxy.map_or((url.host(), url.port()), |proxy| (proxy.host, proxy.port));
        self.find_addresses(host, deadline)?;
        let places = self.reached.addresses.iter().map(|address| SocketAddr::new(*address, port));
        let places: heapless::Vec<SocketAddr, 16> = places.collect();
        let who: Text<160> =
            crate::text!("{}{}", if proxy.is_some() { "the proxy " } else { "" }, host);
        let connected = Socket::connect(&who, &places, deadline);
        if connected.is_err() {
            // Next time they may be others.
            self.reached.has_failed = true;
        }
        let mut connection = Connection::Plain(connected?);
        if let Some(proxy) = proxy.filter(|_| url.is_secure()) {
            self.pass_through(&mut connection, url, proxy, deadline)?;
        }
        let secured = self.secure(connection, url, deadline);
        #[cfg(feature = "tls")]
        if secured.is_err() && tls::doubts_the_clock() {
            self.name_clock_of(url, proxy);
        }
        secured
    }

    /// The addresses of a host, where they are not known. Those that could not be reached are as good as any when no
    /// others can be had: a network that breaks off takes the name servers with it.
    fn find_addresses(&mut self, host: &str, deadline: Deadline) -> Result<(), Error> {
        let is_same = !host.is_empty() && *self.reached.host == *host;
        if is_same && !self.reached.has_failed {
            return Ok(());
        }
        let known = &self.settings.known;
        let addresses = if *known.host == *host && !host.is_empty() {
            known.addresses.clone()
        } else {
            match names::resolve(host, deadline) {
                Err(error) if is_same => {
                    crate::debug!("{}", error);
                    return Ok(());
                }
                found => found?,
            }
        };
        *self.reached = Known { host: Text::from(host), addresses, has_failed: false };
        Ok(())
    }

    /// Says which day it is for a server whose certificate is out of its time: nothing is proven by that, and nothing
    /// believed for it, but a device without a clock of its own has no other word to tell its user.
    ///
    /// Where there is a proxy it is asked, as the only way out; it may answer for the server.
    #[cfg(feature = "tls")]
    #[inline(never)]
    fn name_clock_of(&mut self, url: &Url, proxy: Option<Proxy<'_>>) {
        if let Some(date) = self.ask_clock_of(url, proxy) {
            let host = proxy.map_or(url.host(), |proxy| proxy.host);
            let who = if proxy.is_some() { "the proxy " } else { "" };
            crate::warn!("{}{} says that today is {} (Date)", who, host, tls::day(date));
        }
        self.head.clear();
        self.received.clear();
    }

    /// `Date` of a server, in seconds since 1970.
    #[cfg(feature = "tls")]
    fn ask_clock_of(&mut self, url: &Url, proxy: Option<Proxy<'_>>) -> Option<u64> {
        let deadline = Deadline::after(Duration::from_secs(5));
        // In the clear; what stands at another port than the usual one mostly says that this is no TLS, and when. Of
        // the URL no more than who is meant: what else is in it is for nobody on the way.
        let whole: Text<300> = crate::text!("http://{}/", url.authority());
        let url = Url::parse(&whole).ok()?;
        let port = proxy.map_or(url.port(), |proxy| proxy.port);
        let places = self.reached.addresses.iter().map(|address| SocketAddr::new(*address, port));
        let places: heapless::Vec<SocketAddr, 16> = places.collect();
        let mut connection = Connection::Plain(Socket::connect("", &places, deadline).ok()?);
        let request = Request { method: Method::Head, ..Request::get(&url) };
        let buffer = self.received.clear();
        let credentials = proxy.map(|proxy| proxy.credentials);
        let length = request::put(&request, &url, credentials, buffer).ok()?;
        connection.write_all(buffer.get(..length)?, deadline).ok()?;
        self.received.clear();
        self.head.clear();
        read_head(&mut connection, self.received, self.head, deadline).ok()?;
        self.head.facts().date
    }

    /// Asks a proxy for a way through to the server of a URL.
    fn pass_through(
        &mut self,
        connection: &mut Connection,
        url: &Url,
        proxy: Proxy<'_>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let buffer = self.received.clear();
        let refused = |why: &str| Error::refused("passing through the proxy", proxy.host, why);
        let length = request::put_connect(url, proxy.credentials, buffer).map_err(refused)?;
        connection.write_all(buffer.get(..length).unwrap_or_default(), deadline)?;
        read_head(connection, self.received, self.head, deadline)?;
        match self.head.facts().status {
            // A server of TLS says nothing before it is greeted.
            200..300 if self.received.bytes().is_empty() => Ok(()),
            200..300 => Err(refused("it sent more than was asked for")),
            407 => Err(needs_credentials(&proxy)),
            status => {
                let why: Text<80> = crate::text!("HTTP {} for {}", status, url.authority());
                let is_passing = is_passing(status);
                let error = Error::failed("passing through the proxy", proxy.host, &why);
                Err(if is_passing { error } else { error.as_refusal() })
            }
        }
    }

    #[cfg(feature = "tls")]
    fn secure(
        &self,
        connection: Connection,
        url: &Url,
        deadline: Deadline,
    ) -> Result<Connection, Error> {
        match connection {
            Connection::Plain(socket) if url.is_secure() => {
                let session = Session::start(socket, url.host(), &self.settings.trust, deadline)?;
                Ok(Connection::Secure(session))
            }
            other => Ok(other),
        }
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, plain: Connection, _: &Url, _: Deadline) -> Result<Connection, Error> {
        Ok(plain)
    }
}

/// What a proxy's 407 means.
pub fn needs_credentials(proxy: &Proxy<'_>) -> Error {
    let why = if proxy.credentials.is_empty() {
        "it wants a user and a password (HTTP 407)"
    } else {
        "it does not take this user and password (HTTP 407)"
    };
    Error::refused("passing through the proxy", proxy.host, why)
        .advice("give them as http://USER:PASSWORD@HOST:PORT in http_proxy or https_proxy")
}

/// True for what may go better a little later: 408, 429, 500, 502, 503 and 504.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Reads the head of an answer; of those that come before the last one (1xx), too.
pub fn read_head(
    connection: &mut Connection,
    received: &mut Received,
    head: &mut Head,
    deadline: Deadline,
) -> Result<(), Error> {
    /// More than this are no help.
    const MOST_INTERIM: u32 = 16;
    let refused = |why| Error::refused("reading", "the answer", why);
    let mut interim = 0;
    head.clear();
    loop {
        if !received.fill(connection, deadline)? {
            return Err(Error::failed("reading", "the answer", "the connection ended before it"));
        }
        let (taken, is_whole) = head.feed(received.bytes()).map_err(refused)?;
        received.take(taken);
        if !is_whole {
            continue;
        }
        match head.facts().status {
            101 => return Err(refused("it wants another protocol (HTTP 101)")),
            100..200 if interim == MOST_INTERIM => return Err(refused("HTTP 100 has no end")),
            100..200 => head.clear(),
            _ => return Ok(()),
        }
        interim += 1;
    }
}
