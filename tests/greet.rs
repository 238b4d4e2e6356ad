//! Talks to servers by TLS, for `tests/test_tls.py`: with the program's own session, roots and memory, heap sealed.
//!
//! Arguments: PORT HOST CA MILLISECONDS. Connects to that port of loopback (::1 for a host with colons), shakes hands
//! with a server that has to be HOST and whose root is in the file CA, or the system's where CA is empty, and asks for
//! `/`. Says `body` and the bytes of what it answers, or `error` and what is wrong; then `used` and the roots that
//! chains ended in, and how much of the arena was in use at most, and at the end.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use takeover::error::Error;
use takeover::memory;
use takeover::net::deadline::Deadline;
use takeover::net::socket::Socket;
use takeover::net::tls::{Session, used_roots};
use takeover::net::trust::Trust;

/// Gives how many bytes came, and their sum, which depends on their order.
fn get(address: SocketAddr, host: &str, trust: &Trust, end: Deadline) -> Result<(u64, u32), Error> {
    let socket = Socket::connect(host, &[address], end)?;
    let mut session = Session::start(socket, host, trust, end)?;
    session.write_all(b"GET / HTTP/1.0\r\nHost: ", end)?;
    session.write_all(host.as_bytes(), end)?;
    session.write_all(b"\r\n\r\n", end)?;
    let (mut count, mut crc) = (0, 0);
    // Smaller than a record and larger, so that some are taken in parts.
    let mut buffer = [0; 20_000];
    for size in [1, 100, 20_000, 700].into_iter().cycle() {
        let read = session.read(&mut buffer[..size], end)?;
        if read == 0 {
            break;
        }
        count += read as u64;
        crc = takeover::crc32::extend(crc, &buffer[..read]);
    }
    Ok((count, crc))
}

fn main() {
    // The hook of std would look for a backtrace, and wait for ever when it gets no memory for it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let arguments: Vec<&'static str> =
        std::env::args().skip(1).map(|argument| &*argument.leak()).collect();
    let [port, host, ca, milliseconds] = arguments[..] else { panic!("four arguments") };
    let ip = if host.contains(':') {
        IpAddr::from(Ipv6Addr::LOCALHOST)
    } else {
        IpAddr::from(Ipv4Addr::LOCALHOST)
    };
    let address = SocketAddr::new(ip, port.parse().unwrap());
    let trust = Trust { file: ca, only_these: !ca.is_empty(), ..Trust::default() };
    let end = Deadline::after(Duration::from_millis(milliseconds.parse().unwrap()));
    memory::seal();
    let result = get(address, host, &trust, end);
    let mut roots = [0; 8192];
    let count = used_roots(&mut roots);
    memory::unseal();
    assert_eq!(memory::heap_refused(), 0);
    match result {
        Ok((count, crc)) => println!("body {count} {crc:08x}"),
        Err(error) => {
            let text: takeover::text::Text<600> = takeover::text!("{}", error);
            println!("error {}", &*text);
        }
    }
    println!("arena {} {}", memory::arena_high_water(), memory::arena_left());
    print!("used\n{}", std::str::from_utf8(&roots[..count]).unwrap());
}
