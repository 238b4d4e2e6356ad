//! TCP connections with deadlines, without threads and without waiting for signals.

use super::deadline::Deadline;
use super::poll;
use crate::address::{shown, shown_with_port};
use crate::error::{Doing, Error, errno_text};
use crate::text::Text;
use core::net::SocketAddr;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The head start of an attempt over the next: RFC 8305, 5, Connection Attempt Delay.
const HEAD_START: Duration = Duration::from_millis(250);

/// As many addresses are tried: those of one name.
const MOST: usize = 16;

/// A TCP connection.
pub struct Socket {
    /// Non-blocking, closed on exec.
    fd: OwnedFd,
    peer: SocketAddr,
}

impl Socket {
    /// Connects to the first of these addresses that answers: each gets a short head start over the next (RFC 8305),
    /// and IPv6 and IPv4 take turns. `name` is what the error calls the host; the error names every address that was
    /// tried, and its errno.
    pub fn connect(
        name: &str,
        addresses: &[SocketAddr],
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let mut race = Race {
            addresses: addresses.get(..MOST).unwrap_or(addresses),
            tried: 0,
            under_way: heapless::Vec::new(),
            failed: heapless::Vec::new(),
        };
        let port = addresses.first().map_or(0, SocketAddr::port);
        let server: Text<160> = crate::text!("{} port {}", name, port);
        match race.run(deadline).doing("connecting to", &server)? {
            Some(socket) => Ok(socket),
            None => Err(Error::failed("connecting to", &server, &race.failures())),
        }
    }

    /// Reads what has come, at least one byte; 0 when the other end has closed.
    pub fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        receive(&self.fd, buffer, deadline).doing("reading from", &shown_with_port(self.peer))
    }

    /// Writes all of it.
    pub fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        send(&self.fd, bytes, deadline).doing("writing to", &shown_with_port(self.peer))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

/// A socket that never blocks, closed on exec, on its way to an address: true when it is there already.
pub fn start(address: &SocketAddr, kind: SocketType) -> Result<(OwnedFd, bool), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match net::connect(&fd, address) {
        Ok(()) => Ok((fd, true)),
        // connect(2): after a signal, it goes on by itself, too.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((fd, false)),
        Err(errno) => Err(errno),
    }
}

/// Receives at least one byte, or a datagram; 0 when the other end has closed.
pub(super) fn receive(fd: &OwnedFd, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Errno> {
    loop {
        match net::recv(fd, &mut *buffer, RecvFlags::empty()) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::AGAIN) => poll::one(fd, PollFlags::IN, deadline)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends all of it, without a signal where nobody reads any more.
pub(super) fn send(fd: &OwnedFd, mut bytes: &[u8], deadline: Deadline) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match net::send(fd, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => poll::one(fd, PollFlags::OUT, deadline)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Several attempts to connect, of which the first that succeeds is taken.
struct Race<'a> {
    addresses: &'a [SocketAddr],
    /// A bit for each address that was tried.
    tried: u16,
    under_way: heapless::Vec<(SocketAddr, OwnedFd), MOST>,
    failed: heapless::Vec<(SocketAddr, Errno), MOST>,
}

impl Race<'_> {
    /// The connection that was there first; none when all have failed, or the time is over.
    fn run(&mut self, deadline: Deadline) -> Result<Option<Socket>, Errno> {
        let mut last = None;
        while !deadline.is_over() {
            let next = self.next(last);
            if let Some((at, peer)) = next {
                last = Some(peer.is_ipv4());
                self.tried |= 1 << at;
                // Each address is pushed once, to one of the two: there is room.
                match start(&peer, SocketType::STREAM) {
                    Ok((fd, true)) => return Ok(Some(Socket { fd, peer })),
                    Ok((fd, false)) => {
                        let _ = self.under_way.push((peer, fd));
                    }
                    Err(errno) => {
                        self.lose(peer, errno);
                        continue;
                    }
                }
            } else if self.under_way.is_empty() {
                break;
            }
            let is_last = self.next(last).is_none();
            let until = if is_last { deadline } else { deadline.min(Deadline::after(HEAD_START)) };
            if let Some(winner) = self.wait(until)? {
                return Ok(Some(winner));
            }
        }
        Ok(None)
    }

    /// The address that is tried next, and its place: the first one that was not yet, of the other family than the last
    /// one if there is one (RFC 8305, 4).
    fn next(&self, last: Option<bool>) -> Option<(u32, SocketAddr)> {
        let addresses = (0..).zip(self.addresses.iter().copied());
        let untried = addresses.filter(|(at, _)| self.tried & 1 << at == 0);
        let is_other = |(_, address): &(u32, SocketAddr)| Some(address.is_ipv4()) != last;
        untried.clone().find(is_other).or(untried.clone().next())
    }

    /// Waits for a connection until then. One that fails ends the waiting, so that the next address is tried.
    fn wait(&mut self, until: Deadline) -> Result<Option<Socket>, Errno> {
        let polled = self.under_way.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::OUT));
        let mut polled: heapless::Vec<PollFd<'_>, MOST> = polled.collect();
        poll::any(&mut polled, until)?;
        let ready = polled.iter().position(|socket| !socket.revents().is_empty());
        drop(polled);
        let Some(at) = ready else {
            return Ok(None);
        };
        let (peer, fd) = self.under_way.swap_remove(at);
        match net::sockopt::socket_error(&fd)? {
            Ok(()) => return Ok(Some(Socket { fd, peer })),
            Err(errno) => self.lose(peer, errno),
        }
        Ok(None)
    }

    fn lose(&mut self, peer: SocketAddr, errno: Errno) {
        crate::debug!("{}: {}", shown_with_port(peer), errno_text(errno));
        let _ = self.failed.push((peer, errno));
    }

    /// Each address that was tried, and what came of it.
    fn failures(&self) -> Text<240> {
        let timed_out = self.under_way.iter().map(|(address, _)| (address, &Errno::TIMEDOUT));
        let failed = self.failed.iter().map(|(address, errno)| (address, errno));
        let mut text = Text::new();
        for (address, errno) in failed.chain(timed_out) {
            let comma = if text.is_empty() { "" } else { ", " };
            text = crate::text!("{}{}{}: {}", text, comma, shown(address.ip()), errno_text(*errno));
        }
        if text.is_empty() {
            text = Text::from("timed out");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(20))
    }

    fn server() -> (TcpListener, SocketAddr) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        (server, address)
    }

    /// A port that is taken, where nobody listens.
    fn closed() -> (OwnedFd, SocketAddr) {
        let kind = SocketType::STREAM;
        let fd = net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
        net::bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = net::getsockname(&fd).unwrap().try_into().unwrap();
        (fd, address)
    }

    fn pair() -> (Socket, TcpStream) {
        let (server, address) = server();
        let socket = Socket::connect("here", &[address], soon()).unwrap();
        assert_eq!(socket.peer(), address);
        (socket, server.accept().unwrap().0)
    }

    fn words(error: &Error) -> String {
        let text: Text<512> = crate::text!("{}", error);
        text.to_string()
    }

    /// Takes no more connections, and refuses none: the kernel drops what comes when the queue is full.
    fn deaf() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let (server, address) = server();
        rustix::net::listen(&server, 0).unwrap();
        let filler = TcpStream::connect(address).unwrap();
        (server, vec![filler], address)
    }

    #[test]
    fn what_is_written_arrives_and_the_end_is_read() {
        let (mut socket, mut other) = pair();
        socket.write_all(b"question", soon()).unwrap();
        let mut buffer = [0; 8];
        other.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"question");
        other.write_all(b"answer").unwrap();
        let count = socket.read(&mut buffer, soon()).unwrap();
        assert_eq!(&buffer[..count], b"answer");
        drop(other);
        assert_eq!(socket.read(&mut buffer, soon()).unwrap(), 0);
    }

    #[test]
    fn more_than_the_kernel_holds_is_written_while_the_other_end_reads() {
        let (mut socket, mut other) = pair();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            other.read_to_end(&mut all).unwrap();
            all.len()
        });
        let many = vec![7; 16 << 20];
        socket.write_all(&many, soon()).unwrap();
        drop(socket);
        assert_eq!(reader.join().unwrap(), many.len());
    }

    #[test]
    fn who_says_nothing_or_reads_nothing_is_not_waited_for_longer_than_told() {
        let (mut socket, _other) = pair();
        let short = || Deadline::after(Duration::from_millis(30));
        let error = socket.read(&mut [0; 8], short()).unwrap_err();
        assert_eq!(words(&error), format!("reading from {}: timed out", socket.peer()));
        let error = socket.write_all(&vec![0; 64 << 20], short()).unwrap_err();
        assert_eq!(words(&error), format!("writing to {}: timed out", socket.peer()));
    }

    #[test]
    fn a_broken_connection_is_an_error_and_no_signal() {
        let (mut socket, other) = pair();
        // Unread bytes at the close: the kernel resets the connection.
        socket.write_all(b"unread", soon()).unwrap();
        let mut wait = [0];
        other.peek(&mut wait).unwrap();
        drop(other);
        let error = socket.read(&mut [0; 8], soon()).unwrap_err();
        assert!(words(&error).ends_with(": connection reset"), "{}", words(&error));
        let error = socket.write_all(b"more", soon()).unwrap_err();
        assert!(words(&error).ends_with(": closed by the other end"), "{}", words(&error));
    }

    #[test]
    fn an_address_that_fails_is_followed_by_the_next() {
        let (_server, good) = server();
        let (_taken, bad) = closed();
        let socket = Socket::connect("here", &[bad, bad, good], soon()).unwrap();
        assert_eq!(socket.peer(), good);
        let error = Socket::connect("here", &[bad], soon()).err().unwrap();
        let port = bad.port();
        let wanted = format!("connecting to here port {port}: 127.0.0.1: connection refused");
        assert_eq!(words(&error), wanted);
    }

    #[test]
    fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        let (_deaf, _fillers, silent) = deaf();
        let (_server, good) = server();
        let socket = Socket::connect("here", &[silent, good], soon()).unwrap();
        assert_eq!(socket.peer(), good);
        let (_taken, bad) = closed();
        let short = Deadline::after(Duration::from_secs(2));
        let error = Socket::connect("here", &[silent, bad], short).err().unwrap();
        let text = words(&error);
        assert!(text.ends_with(": 127.0.0.1: connection refused, 127.0.0.1: timed out"), "{text}");
    }

    #[test]
    fn the_families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        let mut race = Race {
            addresses: &addresses,
            tried: 0,
            under_way: heapless::Vec::new(),
            failed: heapless::Vec::new(),
        };
        let mut order = Vec::new();
        let mut last = None;
        while let Some((at, address)) = race.next(last) {
            race.tried |= 1 << at;
            last = Some(address.is_ipv4());
            order.push(at);
        }
        assert_eq!(order, [0, 3, 1, 4, 2]);
    }

    #[test]
    fn no_time_and_many_addresses_are_no_trouble() {
        let over = Deadline::after(Duration::ZERO);
        let (_taken, bad) = closed();
        let many = [bad; 20];
        let error = Socket::connect("here", &many, over).err().unwrap();
        assert!(words(&error).ends_with(": timed out"));
        let error = Socket::connect("here", &many, soon()).err().unwrap();
        assert!(words(&error).contains("127.0.0.1: connection refused, 127.0.0.1: connection"));
    }
}
