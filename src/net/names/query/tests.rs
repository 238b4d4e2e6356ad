//! Against servers that are threads of the test: each says what the test wants.

use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A question as a server sees it.
struct Asked<'a> {
    message: &'a [u8],
    name: String,
    kind: u8,
    is_tcp: bool,
}

impl Asked<'_> {
    fn new(message: &[u8], is_tcp: bool) -> Asked<'_> {
        let mut name = String::new();
        let mut rest = &message[12..];
        while let [length @ 1..=63, after @ ..] = rest {
            let (label, after) = after.split_at(usize::from(*length));
            name += std::str::from_utf8(label).unwrap();
            name += ".";
            rest = after;
        }
        let [0, 0, kind, 0, 1] = rest else { panic!("no question: {message:?}") };
        Asked { message, name, kind: *kind, is_tcp }
    }

    /// An answer with these flags and code, and these addresses: those that are of the kind.
    fn answer(&self, flags: u8, code: u8, addresses: &[&str]) -> Vec<u8> {
        let mut message = self.message.to_vec();
        message[2] = 0x81 | flags;
        message[3] = 0x80 | code;
        for address in addresses {
            let (kind, data) = match address.parse().unwrap() {
                core::net::IpAddr::V4(v4) => (A, v4.octets().to_vec()),
                core::net::IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
            };
            if kind == self.kind {
                message[7] += 1;
                message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
                message.extend(data);
            }
        }
        message
    }
}

type Reply = dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync;

/// A server on loopback, over UDP and TCP, until it is dropped.
struct Server {
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
    /// The names that were asked for IPv4 addresses over UDP.
    names: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(reply: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", Arc::new(reply))
    }

    fn start_at(place: &str, reply: Arc<Reply>) -> Self {
        // The port must be free for both.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind(place).unwrap();
                let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
                Some((udp, tcp))
            })
            .unwrap();
        let address = udp.local_addr().unwrap();
        let names = Arc::new(Mutex::new(Vec::new()));
        let (noted, of_tcp) = (names.clone(), reply.clone());
        let over_udp = std::thread::spawn(move || {
            let mut buffer = [0; 600];
            loop {
                let (count, from) = udp.recv_from(&mut buffer).unwrap();
                if count == 0 {
                    return;
                }
                let asked = Asked::new(&buffer[..count], false);
                if asked.kind == A {
                    noted.lock().unwrap().push(asked.name.clone());
                }
                for message in reply(&asked) {
                    udp.send_to(&message, from).unwrap();
                }
            }
        });
        let over_tcp = std::thread::spawn(move || {
            loop {
                let (mut stream, _) = tcp.accept().unwrap();
                let mut length = [0; 2];
                // Nothing is the end.
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut message = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut message).unwrap();
                stream.set_nodelay(true).unwrap();
                for piece in of_tcp(&Asked::new(&message, true)) {
                    // Who asked may have gone.
                    let _ = stream.write_all(&piece);
                }
            }
        });
        Self { address, threads: vec![over_udp, over_tcp], names }
    }

    fn names(&self) -> Vec<String> {
        std::mem::take(&mut self.names.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let socket = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        socket.send_to(&[], self.address).unwrap();
        drop(TcpStream::connect(self.address).unwrap());
        for thread in self.threads.drain(..) {
            // When the test fails for another reason, that one is to be seen.
            let _ = thread.join();
        }
    }
}

fn config(servers: &[SocketAddr]) -> Config {
    let mut config = Config::default();
    config.servers.extend(servers.iter().copied());
    config
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// The addresses, or what the error says.
fn resolved(host: &str, config: &Config, deadline: Deadline) -> Result<Vec<String>, String> {
    match resolve(host, config, deadline) {
        Ok(found) => {
            let mut shown: Vec<_> = found.iter().map(|address| address.to_string()).collect();
            // The two kinds come in any order.
            shown.sort();
            Ok(shown)
        }
        Err(error) => {
            let text: Text<512> = crate::text!("{}", error);
            Err(text.to_string())
        }
    }
}

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn good() -> Server {
    Server::start(|asked| vec![asked.answer(0, 0, &BOTH)])
}

fn failing(code: u8) -> Server {
    Server::start(move |asked| vec![asked.answer(0, code, &[])])
}

fn silent() -> Server {
    Server::start(|_| vec![])
}

/// A port that nobody listens on, as long as the socket lives: it is that of TCP alone.
fn closed() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // Connected elsewhere: what others send to it is refused.
    socket.connect("127.0.0.1:9").unwrap();
    (socket, address)
}

#[test]
fn both_families_are_asked_for_and_found() {
    let server = good();
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
    assert_eq!(server.names(), ["a.example."]);
}

#[test]
fn one_family_will_do() {
    for (address, code) in
        [("192.0.2.1", 0), ("2001:db8::1", 0), ("192.0.2.1", 2), ("192.0.2.1", 3)]
    {
        let server = Server::start(move |asked| {
            let answer = asked.answer(0, 0, &[address]);
            vec![if answer[7] == 0 { asked.answer(0, code, &[]) } else { answer }]
        });
        assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), [address]);
    }
}

#[test]
fn a_server_of_ipv6_is_asked() {
    let reply: Arc<Reply> = Arc::new(|asked: &Asked| vec![asked.answer(0, 0, &BOTH)]);
    let server = Server::start_at("[::1]:0", reply);
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
}

#[test]
fn no_such_name_and_no_address_are_told_apart() {
    let none = failing(3);
    let error = resolved("a.example", &config(&[none.address]), soon()).unwrap_err();
    assert_eq!(error, "resolving a.example: there is no such name, says 127.0.0.1");
    let empty = failing(0);
    let error = resolved("a.example", &config(&[empty.address]), soon()).unwrap_err();
    assert_eq!(error, "resolving a.example: the name has no address, says 127.0.0.1");
    let error = resolved("a.local", &config(&[none.address]), soon()).unwrap_err();
    assert!(error.contains("127.0.0.1; multicast DNS"), "{error}");
}

#[test]
fn who_fails_is_followed_by_the_next_at_once() {
    let (_socket, closed) = closed();
    let (fails, refuses, good) = (failing(2), failing(5), good());
    let all = config(&[closed, fails.address, refuses.address, good.address]);
    assert_eq!(resolved("a.example", &all, soon()).unwrap(), BOTH);
    let bad = config(&[closed, fails.address, refuses.address]);
    let error = resolved("a.example", &bad, soon()).unwrap_err();
    let wanted = "resolving a.example: 127.0.0.1: connection refused, 127.0.0.1: server failure, \
                  127.0.0.1: refused; check the name servers";
    assert!(error.starts_with(wanted), "{error}");
    // An address that no socket connects to.
    let nowhere = "[fe80::1]:53".parse().unwrap();
    assert_eq!(resolved("a.example", &config(&[nowhere, good.address]), soon()).unwrap(), BOTH);
}

#[test]
fn who_says_nothing_is_followed_by_the_next() {
    let (silent, good) = (silent(), good());
    let all = config(&[silent.address, good.address]);
    assert_eq!(resolved("a.example", &all, soon()).unwrap(), BOTH);
    let short = Deadline::after(Duration::from_millis(1300));
    let error = resolved("a.example", &config(&[silent.address]), short).unwrap_err();
    assert!(error.starts_with("resolving a.example: 127.0.0.1: no answer; check"), "{error}");
    // The search ends there.
    assert!(silent.names().len() >= 2);
    let over = Deadline::after(Duration::ZERO);
    assert!(resolved("a.example", &all, over).unwrap_err().contains("no time to ask"));
}

#[test]
fn a_lost_question_is_asked_again() {
    let count = Mutex::new(0);
    let server = Server::start(move |asked| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count <= 2 { vec![] } else { vec![asked.answer(0, 0, &BOTH)] }
    });
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
}

#[test]
fn silence_on_one_kind_does_not_lose_the_other() {
    for kind in [A, AAAA] {
        let server = Server::start(move |asked| {
            if asked.kind == kind { vec![asked.answer(0, 0, &BOTH)] } else { vec![] }
        });
        let found = resolved("a.example", &config(&[server.address]), soon()).unwrap();
        assert_eq!(found, [BOTH[usize::from(kind == AAAA)]]);
    }
}

#[test]
fn what_is_no_answer_to_the_question_is_passed_over() {
    let server = Server::start(|asked| {
        let bad = |at: usize| {
            let mut message = asked.answer(0, 0, &["10.0.0.1", "fe80::1"]);
            message[at] ^= 1;
            message
        };
        let (good, junk) = (asked.answer(0, 0, &BOTH), vec![0xff; 500]);
        vec![bad(0), bad(1), bad(13), asked.message.to_vec(), vec![], junk, good]
    });
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    let server = Server::start(|asked| {
        // Addresses of a cut answer are not all that there are (RFC 2181, 9).
        if !asked.is_tcp {
            return vec![asked.answer(2, 0, &["10.0.0.1", "fe80::1"])];
        }
        let message = asked.answer(0, 0, &BOTH);
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend(message);
        framed.chunks(7).map(<[u8]>::to_vec).collect()
    });
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
}

#[test]
fn a_server_that_fails_over_tcp_has_failed() {
    for (bytes, words) in [
        (&b""[..], "connection reset"),
        (b"\x01", "connection reset"),
        (b"\x01\0short", "connection reset"),
        (b"\0\0", "malformed"),
        (b"\0\x03abc", "malformed"),
    ] {
        let server = Server::start(|asked| {
            if asked.is_tcp { vec![bytes.to_vec()] } else { vec![asked.answer(2, 0, &[])] }
        });
        let good = good();
        let error = resolved("a.example", &config(&[server.address]), soon()).unwrap_err();
        assert!(error.contains(&format!("127.0.0.1: {words}")), "{error}");
        let both = config(&[server.address, good.address]);
        assert_eq!(resolved("a.example", &both, soon()).unwrap(), BOTH);
    }
    // Cut off over TCP, too.
    let server = Server::start(|asked| {
        let mut message = asked.answer(2, 0, &[]);
        if asked.is_tcp {
            message.splice(..0, (message.len() as u16).to_be_bytes());
        }
        vec![message]
    });
    let error = resolved("a.example", &config(&[server.address]), soon()).unwrap_err();
    assert!(error.contains("127.0.0.1: malformed"), "{error}");
}

#[test]
fn of_a_long_answer_the_beginning_is_enough() {
    let server = Server::start(|asked| {
        if !asked.is_tcp {
            return vec![asked.answer(2, 0, &[])];
        }
        let mut message = asked.answer(0, 0, &[BOTH.as_slice(); 250].concat());
        message.splice(..0, (message.len() as u16).to_be_bytes());
        vec![message]
    });
    assert_eq!(resolved("a.example", &config(&[server.address]), soon()).unwrap(), BOTH);
}

#[test]
fn names_are_searched_as_their_dots_say() {
    let server = failing(3);
    let mut config = config(&[server.address]);
    config.search = Text::from("one.example two.example. ");
    let asked = |host: &str, config: &Config| {
        resolved(host, config, soon()).unwrap_err();
        server.names()
    };
    assert_eq!(asked("a", &config), ["a.one.example.", "a.two.example.", "a."]);
    assert_eq!(asked("a.b", &config), ["a.b.", "a.b.one.example.", "a.b.two.example."]);
    assert_eq!(asked("a.b.", &config), ["a.b."]);
    assert_eq!(asked("a.", &config), ["a."]);
    config.ndots = 2;
    assert_eq!(asked("a.b", &config), ["a.b.one.example.", "a.b.two.example.", "a.b."]);
    config.ndots = 0;
    assert_eq!(asked("a", &config), ["a.", "a.one.example.", "a.two.example."]);
}

#[test]
fn the_search_goes_on_where_there_is_no_address_and_tells_of_that() {
    let server = Server::start(|asked| {
        vec![match &*asked.name {
            "a.one.example." | "b.one.example." => asked.answer(0, 0, &[]),
            "a.two.example." => asked.answer(0, 0, &BOTH),
            "c.one.example." => asked.answer(0, 2, &[]),
            _ => asked.answer(0, 3, &[]),
        }]
    });
    let mut config = config(&[server.address]);
    config.search = Text::from("one.example two.example");
    assert_eq!(resolved("a", &config, soon()).unwrap(), BOTH);
    assert!(resolved("b", &config, soon()).unwrap_err().contains("has no address"));
    assert!(resolved("c", &config, soon()).unwrap_err().contains("server failure"));
    assert!(resolved("d", &config, soon()).unwrap_err().contains("no such name"));
}
