//! Asking name servers: over UDP, and over TCP for what did not fit.
//!
//! A and AAAA are asked for at once, one server after the other, and again. Who says no is followed by the next at
//! once; who says nothing soon, but late answers count: every server that was asked is listened to until the end.

use super::config::{Config, MOST_SERVERS};
use super::message::{self, A, AAAA, Answer, Query};
use crate::address::shown;
use crate::error::{Error, errno_text};
use crate::net::Addresses;
use crate::net::deadline::Deadline;
use crate::net::{poll, socket};
use crate::sys::clock;
use crate::text::Text;
use core::net::SocketAddr;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketType};
use rustix::rand::{GetRandomFlags, getrandom};

/// With addresses of one family, those of the other are waited for no longer: some servers are silent on AAAA.
const PATIENCE: Duration = Duration::from_secs(1);

/// An answer over TCP comes within this time, or not.
const TCP_PATIENCE: Duration = Duration::from_secs(4);

/// Of a longer answer the beginning is read: there is room for a hundred addresses.
const LONGEST_ANSWER: usize = 4096;

/// How asking for a name ended; what is to be told rather comes later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    NoSuchName,
    NoAddress,
    /// Every server said that it cannot or will not.
    Failed,
    /// Some server said nothing in time.
    Silent,
    Found,
}

/// The addresses of a name by the servers of `config`, in the search domains, too, as glibc has it: a name with few
/// dots is looked for there first, one with dots enough only when there is no such name (resolv.conf(5), ndots).
pub fn resolve(host: &str, config: &Config, deadline: Deadline) -> Result<Addresses, Error> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_whole = name.len() < host.len();
    let dots = name.bytes().filter(|byte| *byte == b'.').count();
    // A dot is the root: the name as it is.
    let domains: Text<264> = if is_whole {
        Text::from(".")
    } else if dots >= config.ndots.into() {
        crate::text!(". {}", config.search)
    } else {
        crate::text!("{} .", config.search)
    };
    let mut last = End::NoSuchName;
    let mut why = Text::new();
    for domain in domains.split_ascii_whitespace() {
        let Some(query) = Query::new(name, domain) else {
            // Too long with this domain.
            continue;
        };
        let mut lookup = Lookup::new(config, query);
        let end = lookup.run(deadline);
        if end == End::Found {
            return Ok(lookup.found);
        }
        if end >= last {
            last = end;
            why = lookup.reason(end);
        }
        if end == End::Silent {
            break;
        }
    }
    let error = Error::failed("resolving", host, &why);
    let is_local = name.rsplit('.').next().is_some_and(|top| top.eq_ignore_ascii_case("local"));
    Err(match last {
        _ if is_local => {
            error.advice("multicast DNS is not asked for names in .local: use an address")
        }
        // Whoever asks again is told the same.
        End::NoSuchName | End::NoAddress => error.as_refusal(),
        _ => error.advice("check the name servers in /etc/resolv.conf and the way to them"),
    })
}

/// A question for one kind of address.
struct Question {
    kind: u8,
    id: [u8; 2],
    answer: Option<Answer>,
    /// A bit for each server that cannot or will not answer it.
    failed: u8,
}

/// What a server said last, if it was asked.
#[derive(Clone, Copy)]
enum Said {
    NotAsked,
    Nothing,
    Code(u8),
    Os(Errno),
}

/// Both questions for one name.
struct Lookup<'a> {
    config: &'a Config,
    query: Query,
    questions: [Question; 2],
    /// The servers that were asked: which, and the socket that is connected to it, so that the kernel takes datagrams
    /// from nobody else. Its port is random (`udp_lib_get_port` in net/ipv4/udp.c).
    sockets: heapless::Vec<(usize, OwnedFd), MOST_SERVERS>,
    said: [Said; MOST_SERVERS],
    /// Who answered last.
    teller: usize,
    found: Addresses,
    /// When there are addresses: how long the others are waited for.
    patience: Option<Deadline>,
}

impl<'a> Lookup<'a> {
    fn new(config: &'a Config, query: Query) -> Self {
        let [a, b, c, d] = random();
        let question = |kind, id| Question { kind, id, answer: None, failed: 0 };
        Self {
            config,
            query,
            questions: [question(A, [a, b]), question(AAAA, [c, d])],
            sockets: heapless::Vec::new(),
            said: [Said::NotAsked; MOST_SERVERS],
            teller: 0,
            found: Addresses::new(),
            patience: None,
        }
    }

    /// Asks until both questions are answered, or nobody is left who might, or the time is over. A server is waited for
    /// one second at first, then for two, four, and as long as configured.
    fn run(&mut self, deadline: Deadline) -> End {
        let Config { timeout, attempts, servers, .. } = self.config;
        let after = |seconds| deadline.min(Deadline::after(Duration::from_secs(seconds)));
        let longest = u64::from(*timeout);
        let end = after(longest * u64::from(*attempts) * servers.len() as u64);
        let mut pause = 1;
        let mut is_asking = true;
        while is_asking {
            is_asking = false;
            for (at, address) in servers.iter().enumerate() {
                if !end.is_over() && !self.is_over() && self.is_open_for(at) {
                    is_asking = true;
                    match self.send(at, address, end) {
                        Ok(()) => self.listen(end.min(after(pause)), end),
                        Err(errno) => self.lose(at, errno),
                    }
                }
            }
            pause = longest.min(2 * pause);
        }
        self.end()
    }

    fn is_over(&self) -> bool {
        self.questions.iter().all(|question| question.answer.is_some())
            || self.patience.is_some_and(Deadline::is_over)
    }

    /// Whether this server may still answer something.
    fn is_open_for(&self, at: usize) -> bool {
        self.questions.iter().any(|question| question.is_open_for(at))
    }

    fn end(&self) -> End {
        let [a, aaaa] = &self.questions;
        let all = (1 << self.config.servers.len()) - 1;
        match (a.answer, aaaa.answer) {
            _ if !self.found.is_empty() => End::Found,
            (Some(Answer::NoSuchName), Some(Answer::NoSuchName)) => End::NoSuchName,
            (Some(_), Some(_)) => End::NoAddress,
            _ if [a, aaaa].iter().all(|one| one.answer.is_some() || one.failed == all) => {
                End::Failed
            }
            _ => End::Silent,
        }
    }

    /// Asks a server what is open for it.
    fn send(&mut self, at: usize, address: &SocketAddr, end: Deadline) -> Result<(), Errno> {
        let known = self.sockets.iter().position(|(of, _)| *of == at);
        if known.is_none() {
            let (fd, _) = socket::start(address, SocketType::DGRAM)?;
            // Once a server: there is room.
            let _ = self.sockets.push((at, fd));
            self.note(at, Said::Nothing);
        }
        let socket = known.map_or(self.sockets.last(), |known| self.sockets.get(known));
        let open = self.questions.iter().filter(|question| question.is_open_for(at));
        let Some((_, fd)) = socket else {
            return Ok(());
        };
        for question in open {
            socket::send(fd, self.query.ask(question.kind, question.id), end)?;
        }
        Ok(())
    }

    /// Takes answers until then, or until all is answered, or a server has no more to say, so that the next is asked.
    fn listen(&mut self, until: Deadline, end: Deadline) {
        let mut buffer = [0; LONGEST_ANSWER];
        let mut is_last = false;
        while !is_last && self.questions.iter().any(|question| question.answer.is_none()) {
            let until = self.patience.map_or(until, |patience| patience.min(until));
            // Whoever was kept from running may have an answer that came in time.
            is_last = until.is_over();
            let Some((at, received)) = self.receive(&mut buffer, until) else {
                return;
            };
            let was_open = self.is_open_for(at);
            match received {
                Ok(count) => self.take(at, &mut buffer, count, end),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => self.lose(at, errno),
            }
            is_last |= was_open && !self.is_open_for(at);
        }
    }

    /// What comes next from any server: which, and how many bytes. None when nothing comes until then.
    fn receive(&self, buffer: &mut [u8], until: Deadline) -> Option<(usize, Result<usize, Errno>)> {
        let polled = self.sockets.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN));
        let mut polled: heapless::Vec<PollFd<'_>, MOST_SERVERS> = polled.collect();
        if let Err(errno) = poll::any(&mut polled, until) {
            return self.sockets.first().map(|(at, _)| (*at, Err(errno)));
        }
        let ready = polled.iter().position(|socket| !socket.revents().is_empty())?;
        let (at, fd) = self.sockets.get(ready)?;
        let received = rustix::net::recv(fd, buffer, RecvFlags::empty());
        Some((*at, received.map(|(count, _)| count)))
    }

    /// Takes an answer.
    fn take(&mut self, at: usize, buffer: &mut [u8], count: usize, end: Deadline) {
        for question in self.questions.iter_mut().filter(|question| question.answer.is_none()) {
            let message = buffer.get(..count).unwrap_or_default();
            let query = self.query.ask(question.kind, question.id);
            let mut answer = match message::read(message, query, &mut self.found) {
                Some(answer) => Ok(answer),
                None => continue,
            };
            if answer == Ok(Answer::Truncated)
                && let Some(server) = self.config.servers.get(at)
            {
                let end = end.min(Deadline::after(TCP_PATIENCE));
                answer = ask_over_tcp(server, query, buffer, &mut self.found, end);
            }
            let said = match answer {
                Ok(Answer::Failed(code)) => Said::Code(code),
                // Nothing is longer over TCP.
                Ok(Answer::Truncated) => Said::Code(message::MALFORMED),
                Ok(_) => Said::Nothing,
                Err(errno) => Said::Os(errno),
            };
            if matches!(said, Said::Nothing) {
                question.answer = answer.ok();
                self.teller = at;
            } else {
                question.failed |= 1 << at;
            }
            if let Some(last) = self.said.get_mut(at) {
                *last = said;
            }
        }
        if !self.found.is_empty() && self.patience.is_none() {
            self.patience = Some(Deadline::after(PATIENCE));
        }
    }

    /// Notes that a server is out of reach.
    fn lose(&mut self, at: usize, errno: Errno) {
        self.questions.iter_mut().for_each(|question| question.failed |= 1 << at);
        self.note(at, Said::Os(errno));
    }

    fn note(&mut self, at: usize, said: Said) {
        if let Some(last) = self.said.get_mut(at) {
            *last = said;
        }
    }

    /// Why there are no addresses.
    fn reason(&self, end: End) -> Text<240> {
        let teller = self.config.servers.get(self.teller);
        let teller = teller.map_or(Text::new(), |teller| shown(teller.ip()));
        match end {
            End::NoSuchName => return crate::text!("there is no such name, says {}", teller),
            End::NoAddress => return crate::text!("the name has no address, says {}", teller),
            _ => {}
        }
        let mut text = Text::new();
        for (server, said) in self.config.servers.iter().zip(self.said) {
            let words: Text<64> = match said {
                Said::NotAsked => continue,
                Said::Nothing => Text::from("no answer"),
                Said::Code(code) => code_text(code),
                Said::Os(errno) => errno_text(errno),
            };
            let comma = if text.is_empty() { "" } else { ", " };
            text = crate::text!("{}{}{}: {}", text, comma, shown(server.ip()), words);
        }
        if text.is_empty() {
            text = Text::from("no time to ask for it");
        }
        text
    }
}

impl Question {
    fn is_open_for(&self, at: usize) -> bool {
        self.answer.is_none() && self.failed & 1 << at == 0
    }
}

/// Asks a server over TCP (RFC 7766): a length of two bytes before each message, sent with it at once (section 8).
fn ask_over_tcp(
    server: &SocketAddr,
    query: &[u8],
    buffer: &mut [u8],
    found: &mut Addresses,
    end: Deadline,
) -> Result<Answer, Errno> {
    let (fd, _) = socket::start(server, SocketType::STREAM)?;
    let mut framed = heapless::Vec::<u8, 280>::new();
    // The longest query has 271 bytes.
    let _ = framed.extend_from_slice(&(query.len() as u16).to_be_bytes());
    let _ = framed.extend_from_slice(query);
    socket::send(&fd, &framed, end)?;
    let mut length = [0; 2];
    receive_all(&fd, &mut length, end)?;
    let length = buffer.len().min(u16::from_be_bytes(length).into());
    let message = buffer.get_mut(..length).unwrap_or_default();
    receive_all(&fd, message, end)?;
    message::read(message, query, found).ok_or(Errno::BADMSG)
}

/// Fills a buffer.
fn receive_all(fd: &OwnedFd, mut buffer: &mut [u8], end: Deadline) -> Result<(), Errno> {
    while !buffer.is_empty() {
        let count = socket::receive(fd, buffer, end)?;
        if count == 0 {
            return Err(Errno::CONNRESET);
        }
        buffer = buffer.get_mut(count..).unwrap_or_default();
    }
    Ok(())
}

/// A response code in words (RFC 1035, 4.1.1).
fn code_text(code: u8) -> Text<64> {
    let words = match code {
        message::MALFORMED => "malformed",
        2 => "server failure",
        4 => "not implemented",
        message::REFUSED => "refused",
        _ => return crate::text!("response code {}", code),
    };
    Text::from(words)
}

/// What nobody can guess. Where the kernel has nothing random, the time has to do: who would answer in the name of a
/// server must still guess the port.
fn random() -> [u8; 4] {
    let mut bytes = (clock::since_boot().unwrap_or_default() as u32).to_ne_bytes();
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    bytes
}

#[cfg(test)]
mod tests;
