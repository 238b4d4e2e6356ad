//! A file on a server, read by ranges, known again by its validator.

use super::client::{Client, Patience, Request, Response, Validator};
use super::url::Url;
use crate::error::{Doing, Error, Kind};
use crate::sys::map;
use crate::text::Text;

/// Less than this is read and thrown away where only what follows is wanted: sooner done than another request.
const SHORT_WAY: u64 = 256 * 1024;

/// A connection that brought so many bytes before it broke, or stood still, was worth its while: less each time would
/// have no end in a lifetime.
const WORTH_WHILE: u64 = 16 * 1024;

/// A file on a server.
pub struct Remote {
    client: Client,
    url: &'static Url,
    bearer: Option<&'static str>,
    length: Option<u64>,
    takes_ranges: bool,
    start: u64,
    /// Where the answer that is being read is; None: none is.
    position: Option<u64>,
    validator: Validator,
    /// How often it broke since it was worth its while, and what has come since it broke last, in bytes.
    breaks: u32,
    came: u64,
    /// Nobody goes on unless it is shown to be the same file.
    needs_proof: bool,
}

impl Remote {
    /// Asks for the file from byte `from` on, if it is still the one with this validator: else from its beginning, and
    /// `start` says so.
    pub fn open(
        client: Client,
        url: &Url,
        bearer: Option<&'static str>,
        from: u64,
        unless_changed: Option<&Validator>,
    ) -> Result<Self, Error> {
        let place = map::place(Url::new()).doing("mapping memory for", "the network")?;
        place.copy_from(url);
        let url = place;
        let mut remote = Self {
            client,
            url,
            bearer,
            length: None,
            takes_ranges: false,
            start: 0,
            position: None,
            validator: Validator::default(),
            breaks: 0,
            came: 0,
            needs_proof: true,
        };
        let known = unless_changed.filter(|known| from > 0 && !known.is_empty());
        let begun = match known {
            Some(known) => remote.take_up(from, known)?,
            None => false,
        };
        if !begun {
            let mut response = remote.ask(Some(0), None)?;
            // An empty file has no byte to begin with.
            let is_empty = response.status == 416 && response.whole == Some(0);
            let is_open_end = response.status == 206 && response.whole.is_none();
            if response.status == 416 && !is_empty || is_open_end {
                // It has no parts at all, or does not say of how much they are; the file itself may be had.
                response = remote.ask(None, None)?;
            }
            if !is_empty {
                response.expect_success("fetching", remote.url)?;
            }
            remote.begin(0, &response);
        }
        Ok(remote)
    }

    /// Asks for the rest of a file that is known; false when it is not the same any more.
    fn take_up(&mut self, from: u64, known: &Validator) -> Result<bool, Error> {
        let response = self.ask(Some(from), Some(known))?;
        if response.status == 416 {
            // All of it is there already, or more than all of it.
            let is_known = response.validator.is_empty() || response.validator.agrees_with(known);
            let is_whole = response.whole == Some(from) && is_known;
            if is_whole {
                self.begin(from, &response);
                self.validator = known.clone();
            }
            return Ok(is_whole);
        }
        response.expect_success("fetching", self.url)?;
        // A plain 200 is the whole file: another one, or the server has no ranges.
        let is_part = response.status == 206;
        let is_usable =
            !is_part || response.whole.is_some() && response.validator.agrees_with(known);
        if is_usable {
            self.begin(response.start, &response);
        }
        if is_part {
            self.validator = known.clone();
        }
        Ok(is_usable)
    }

    fn ask(
        &mut self,
        from: Option<u64>,
        unless_changed: Option<&Validator>,
    ) -> Result<Response, Error> {
        self.position = None;
        self.client.send(&Request {
            bearer: self.bearer,
            from,
            unless_changed,
            ..Request::get(self.url)
        })
    }

    fn begin(&mut self, start: u64, response: &Response) {
        self.start = start;
        self.position = Some(start);
        self.length = response.whole;
        self.takes_ranges = response.takes_ranges || response.status == 416;
        self.validator = response.validator.clone();
    }

    /// Where it is, for people.
    pub fn shown(&self) -> Text<160> {
        self.url.shown()
    }

    /// From here on an exchange, and a place in the file, is tried as often as this.
    pub fn set_attempts(&mut self, attempts: u32) {
        let patience = Patience { attempts, ..self.client.settings().patience };
        self.client.set_patience(patience);
    }

    /// From here on any server will do, for whoever writes nothing of the file: what cannot be asked for in parts is
    /// read from its beginning again, and what nothing shows to be the same file as if it were.
    pub fn do_without_proof(&mut self) {
        self.needs_proof = false;
    }

    /// The length, found by reading it to its end where the server does not tell it. Behind `most` bytes nobody looks
    /// any further: the length is more than that, then.
    pub fn find_length(&mut self, most: u64) -> Result<u64, Error> {
        let mut piece = [0; 16 * 1024];
        let mut found = 0;
        while self.length.is_none() {
            let count = self.read_at(found, &mut piece)?;
            found += count as u64;
            if count < piece.len() || found > most {
                self.length = self.length.or(Some(found));
            }
        }
        Ok(self.length.unwrap_or(found))
    }

    /// The length of the whole file, where the server tells it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// True when the server answered a range with a range, or says that it would.
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
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(filled as u64);
            if self.left_at(at) == 0 {
                break;
            }
            self.go_to(at)?;
            // A body in chunks may have more than it should.
            let most = rest.len().min(self.left_at(at));
            let rest = rest.get_mut(..most).unwrap_or_default();
            let error = match self.read_some(at, rest) {
                Ok(0) if self.length.is_none() => break,
                // The server may send less than was asked for (RFC 9110, 15.3.7): the rest is asked for, too.
                Ok(0) => Error::failed("reading", &self.url.shown(), "no more bytes came"),
                Ok(count) => {
                    filled += count;
                    self.came += count as u64;
                    continue;
                }
                Err(error) => error,
            };
            self.position = None;
            let is_final = error.kind() == Kind::Refused || !self.can_take_up();
            if is_final || !self.may_go_on() {
                return Err(error);
            }
            crate::info!("{}; going on at byte {}", error, at);
        }
        Ok(filled)
    }

    /// Counts a break, and waits where it is not the first one; false when there were enough.
    fn may_go_on(&mut self) -> bool {
        if self.came >= WORTH_WHILE {
            self.breaks = 0;
        }
        self.came = 0;
        let goes_on = self.breaks == 0 || self.client.pause(self.breaks);
        // Whoever asks once more begins to count anew.
        self.breaks = if goes_on { self.breaks + 1 } else { 0 };
        goes_on
    }

    /// How many bytes the file has from this one on; as many as can be where its length is not known.
    fn left_at(&self, at: u64) -> usize {
        let left = self.length.map_or(u64::MAX, |length| length.saturating_sub(at));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// True when a request for a part would bring a part of the same file.
    pub fn can_take_up(&self) -> bool {
        self.takes_ranges && !self.validator.is_empty()
    }

    /// Reads on at `at`, at least one byte; 0 at the end of the answer.
    fn read_some(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let ahead = at.saturating_sub(self.position.unwrap_or(at));
        if ahead > 0 && !self.skip(ahead)? {
            return Ok(0);
        }
        let count = self.client.read(buffer)?;
        self.position = Some(at + count as u64);
        Ok(count)
    }

    /// Reads so many bytes and throws them away; false where the answer ends before.
    #[inline(never)]
    fn skip(&mut self, mut ahead: u64) -> Result<bool, Error> {
        // What is read at once costs a system call: many a reader wants a few bytes only.
        let mut aside = [0; 4096];
        while ahead > 0 {
            let most = ahead.min(aside.len() as u64) as usize;
            let count = self.client.read(aside.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Ok(false);
            }
            ahead -= count as u64;
        }
        Ok(true)
    }

    /// Asks for the file from this byte on, unless the answer that is being read comes there soon.
    fn go_to(&mut self, at: u64) -> Result<(), Error> {
        let goes_any_way = !self.needs_proof && !self.can_take_up();
        let way = if goes_any_way { u64::MAX } else { SHORT_WAY };
        let ahead = self.position.and_then(|position| at.checked_sub(position));
        if ahead.is_some_and(|ahead| ahead < way) {
            return Ok(());
        }
        // Whoever cannot be asked for a part can be asked for all of it once more.
        let from = if self.can_take_up() { at } else { 0 };
        if !goes_any_way && (from == 0 && at >= SHORT_WAY || self.validator.is_empty()) {
            let why = if self.takes_ranges {
                "the server names neither a strong ETag nor Last-Modified, so nothing shows whether the file is the same"
            } else {
                "the server does not send parts of it (HTTP ranges)"
            };
            return Err(Error::refused("reading", &self.url.shown(), why));
        }
        let known = self.validator.clone();
        let response = self.ask(Some(from), Some(&known))?;
        if !matches!(response.status, 206 | 416) {
            response.expect_success("reading", self.url)?;
        }
        // All of it may be another file, unless the answer says that it is this one.
        let is_whole = from == 0 && response.status == 200 && response.validator == known;
        let is_same = (response.status == 206 || is_whole)
            && response.validator.agrees_with(&known)
            && (response.whole.is_none() || self.length.is_none() || response.whole == self.length);
        if !is_same {
            let why = "the file on the server has changed since it was first asked for";
            return Err(Error::refused("reading", &self.url.shown(), why));
        }
        self.length = self.length.or(response.whole);
        self.position = Some(from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Answer, Server, client, shown};
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// More than any of these files has.
    const ALL: usize = 1 << 30;

    fn contents(length: usize) -> Vec<u8> {
        (0..length as u32).flat_map(|number| (number * 7919).to_le_bytes()).take(length).collect()
    }

    /// What a server with ranges answers, as RFC 9110 has it; `tag` is that of the file now.
    fn answer(request: &str, file: &[u8], tag: &str) -> Answer {
        let field = |name: &str| {
            request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let range =
            field("Range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let from = range.map(|from| from.parse::<usize>().unwrap());
        let is_same = field("If-Range").is_none_or(|known| known == tag || known == DATE);
        let (status, from) = match from.filter(|_| is_same) {
            Some(from) if from >= file.len() => {
                let head = format!(
                    "HTTP/1.1 416 x\r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n\r\n",
                    file.len()
                );
                return (head.into_bytes(), true);
            }
            Some(from) => (206, from),
            None => (200, 0),
        };
        let part = format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
        let part = if status == 206 { &*part } else { "" };
        let tag = if tag.is_empty() { String::new() } else { format!("ETag: {tag}\r\n") };
        let length = file.len() - from;
        let head = format!("HTTP/1.1 {status} x\r\n{part}{tag}Content-Length: {length}\r\n\r\n");
        ([head.as_bytes(), &file[from..]].concat(), true)
    }

    /// A server with ranges that sends no more than `most` bytes of a body, then closes.
    fn cutting(file: Vec<u8>, tag: &'static str, most: usize) -> Server {
        Server::start(move |_, request| {
            let (mut bytes, _) = answer(request, &file, tag);
            let head = bytes.windows(4).position(|here| here == b"\r\n\r\n").unwrap() + 4;
            let is_cut = bytes.len() > head + most;
            bytes.truncate(head + most);
            (bytes, !is_cut)
        })
    }

    fn open(server: &Server, from: u64, known: &str) -> Remote {
        let known = Validator { tag: Text::from(known), ..Validator::default() };
        Remote::open(client(), &server.url("/f"), None, from, Some(&known)).unwrap()
    }

    fn read(remote: &mut Remote, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; length];
        let count = remote.read_at(offset, &mut buffer)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    #[test]
    fn a_file_is_read_in_one_answer_from_front_to_back() {
        let file = contents(100_000);
        let server = cutting(file.clone(), "\"x\"", ALL);
        let mut remote = open(&server, 0, "");
        assert_eq!((remote.length(), remote.takes_ranges()), (Some(100_000), true));
        for (at, piece) in (0..).step_by(7000).zip(file.chunks(7000)) {
            assert_eq!(read(&mut remote, at, 7000).unwrap(), piece);
        }
        assert_eq!(read(&mut remote, 100_000, 10).unwrap(), []);
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn any_place_can_be_read() {
        let file = contents(1_000_000);
        let server = cutting(file.clone(), "\"x\"", ALL);
        let mut remote = open(&server, 0, "");
        for (at, requests) in [(0, 1), (900_000, 2), (5, 3), (999_990, 4), (1000, 5), (200_000, 5)]
        {
            let end = file.len().min(at + 100);
            assert_eq!(read(&mut remote, at as u64, 100).unwrap(), file[at..end], "{at}");
            assert_eq!(server.seen().len(), requests, "{at}");
        }
        assert!(server.seen()[1].contains("\r\nIf-Range: \"x\"\r\n"));
    }

    #[test]
    fn what_breaks_is_taken_up_where_it_broke() {
        let file = contents(400_000);
        for most in [20_000, 99_999, 100_000, 399_999] {
            let server = cutting(file.clone(), "\"x\"", most);
            let mut remote = open(&server, 0, "");
            assert!(read(&mut remote, 0, 500_000).unwrap() == file, "{most}");
            assert_eq!(server.seen().len(), file.len().div_ceil(most));
        }
        // A few breaks after little are nothing.
        let server = cutting(file[..40].to_vec(), "\"x\"", 10);
        assert!(read(&mut open(&server, 0, ""), 0, 40).unwrap() == file[..40]);
    }

    #[test]
    fn a_server_that_sends_a_little_each_time_is_given_up() {
        let server = cutting(contents(1000), "\"x\"", 10);
        let mut remote = open(&server, 0, "");
        // However little is asked for at once.
        let results: Vec<_> = (0..100).map(|at| read(&mut remote, at * 3, 3)).collect();
        let error = results.into_iter().find_map(Result::err).unwrap();
        assert!(shown(&error).contains("after 10 of"), "{}", shown(&error));
    }

    #[test]
    fn a_server_that_sends_nothing_more_is_given_up() {
        let server = cutting(contents(1000), "\"x\"", 0);
        let error = shown(&read(&mut open(&server, 0, ""), 0, 10).unwrap_err());
        assert!(error.contains("after 0 of 1000 bytes"), "{error}");
        // The first answer, and as many attempts as patience has.
        assert_eq!(server.seen().len(), 4);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_an_error() {
        for (tag, length) in [("\"y\"", 1000), ("\"x\"", 1001), ("\"y\"", 10), ("\"x\"", 10)] {
            let server = Server::start(move |number, request| match number {
                0 => answer(request, &contents(1000), "\"x\""),
                _ => answer(request, &contents(length), tag),
            });
            let mut remote = open(&server, 0, "");
            read(&mut remote, 900, 10).unwrap();
            let error = shown(&read(&mut remote, 100, 10).unwrap_err());
            assert!(error.contains("has changed"), "{error}");
        }
    }

    #[test]
    fn without_a_validator_nothing_is_taken_up() {
        let server = cutting(contents(1000), "", 500);
        let mut remote = open(&server, 0, "");
        assert_eq!(read(&mut remote, 0, 500).unwrap().len(), 500);
        let error = shown(&read(&mut remote, 500, 500).unwrap_err());
        assert!(error.contains("after 500 of 1000 bytes"), "{error}");
        let error = shown(&read(&mut remote, 500, 500).unwrap_err());
        assert!(error.contains("neither a strong ETag nor Last-Modified"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn a_server_without_ranges_reads_from_front_to_back_alone() {
        let body = "x".repeat(300_000);
        let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 300000\r\n\r\n";
        let server = Server::of(&[&format!("{head}{body}")]);
        let mut remote = open(&server, 3, "\"x\"");
        assert_eq!((remote.start(), remote.takes_ranges()), (0, false));
        assert_eq!(read(&mut remote, 0, 4).unwrap(), b"xxxx");
        let error = shown(&read(&mut remote, 299_000, 4).unwrap_err());
        assert!(error.contains("HTTP ranges"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn a_server_without_ranges_gives_the_same_file_once_more_and_no_other() {
        let answers = ["\"x\"", "\"x\"", "\"y\"", ""].map(|tag| {
            let tag = if tag.is_empty() { String::new() } else { format!("ETag: {tag}\r\n") };
            format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 5\r\nConnection: close\r\n\r\nhello")
        });
        let server = Server::of(&answers.each_ref().map(|answer| &**answer));
        let mut remote = open(&server, 0, "");
        assert_eq!(read(&mut remote, 0, 5).unwrap(), b"hello");
        assert_eq!(read(&mut remote, 1, 3).unwrap(), b"ell");
        for _ in 0..2 {
            let error = shown(&read(&mut remote, 0, 5).unwrap_err());
            assert!(error.contains("has changed"), "{error}");
        }
    }

    #[test]
    fn a_length_that_nobody_tells_ends_with_the_answer() {
        let server = Server::of(&[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ]);
        let mut remote = open(&server, 0, "");
        assert_eq!((remote.length(), read(&mut remote, 0, 10).unwrap()), (None, b"hello".to_vec()));
    }

    #[test]
    fn a_length_that_is_told_late_is_kept_to() {
        let chunked = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nAccept-Ranges: bytes\r\n\
                       Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nhel";
        let part = "HTTP/1.1 206 x\r\nContent-Range: bytes 3-4/5\r\nETag: \"x\"\r\n\
                    Transfer-Encoding: chunked\r\n\r\n4\r\nlo!!\r\n0\r\n\r\n";
        let server = Server::of(&[chunked, part]);
        let mut remote = open(&server, 0, "");
        assert_eq!((remote.length(), remote.takes_ranges()), (None, true));
        assert_eq!(read(&mut remote, 0, 10).unwrap(), b"hello");
        assert_eq!(remote.length(), Some(5));
    }

    #[test]
    fn a_download_goes_on_where_it_ended_if_the_file_is_the_same() {
        let file = contents(1000);
        let server = cutting(file.clone(), "\"x\"", ALL);
        let mut remote = open(&server, 400, "\"x\"");
        assert_eq!((remote.start(), remote.length()), (400, Some(1000)));
        assert_eq!(read(&mut remote, 400, 1000).unwrap(), file[400..]);
        // Another file, or one of which nothing is known: from the beginning.
        for known in ["\"y\"", ""] {
            let mut remote = open(&server, 400, known);
            assert_eq!((remote.start(), remote.length()), (0, Some(1000)));
            assert_eq!(read(&mut remote, 0, 1000).unwrap(), file);
        }
    }

    #[test]
    fn a_download_that_is_whole_already_is_told() {
        let server = cutting(contents(1000), "\"x\"", ALL);
        let mut remote = open(&server, 1000, "\"x\"");
        assert_eq!((remote.start(), remote.length()), (1000, Some(1000)));
        assert_eq!(&*remote.validator().tag, "\"x\"");
        assert_eq!(read(&mut remote, 1000, 10).unwrap(), []);
        // More than all of it: it is another file.
        let remote = open(&server, 1001, "\"x\"");
        assert_eq!((remote.start(), remote.length()), (0, Some(1000)));
    }

    #[test]
    fn a_server_that_ignores_if_range_is_found_out() {
        let server = Server::start(|_, request| {
            let request = request.replace("If-Range: \"x\"", "If-Range: \"y\"");
            answer(&request, &contents(1000), "\"y\"")
        });
        let remote = open(&server, 400, "\"x\"");
        assert_eq!(remote.start(), 0);
        assert_eq!(server.seen().len(), 2);
    }

    #[test]
    fn an_empty_file_is_empty() {
        let server = cutting(Vec::new(), "\"x\"", ALL);
        let mut remote = open(&server, 0, "");
        assert_eq!((remote.length(), read(&mut remote, 0, 10).unwrap()), (Some(0), Vec::new()));
    }

    #[test]
    fn a_page_that_says_not_found_is_no_file() {
        let server = Server::of(&["HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\npage"]);
        let error = Remote::open(client(), &server.url("/f?secret"), None, 0, None).err().unwrap();
        assert!(shown(&error).contains("/f: HTTP 404 (not found)"), "{}", shown(&error));
    }

    #[test]
    fn packed_files_are_taken_as_they_are() {
        let server = Server::of(&[
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
        ]);
        assert_eq!(read(&mut open(&server, 0, ""), 0, 10).unwrap(), b"hello");
    }
}
