//! TCP connections with deadlines. (To be built.)

use super::deadline::Deadline;
use crate::error::Error;
use core::net::SocketAddr;
use rustix::fd::OwnedFd;

/// A TCP connection.
pub struct Socket {
    /// Non-blocking, closed on exec.
    fd: OwnedFd,
    peer: SocketAddr,
}

impl Socket {
    /// Connects to the first of these addresses that answers: each gets a short head start over the next (RFC 8305).
    /// `name` is what the error calls the host; the error names every address that was tried, and its errno.
    pub fn connect(
        name: &str,
        _addresses: &[SocketAddr],
        _deadline: Deadline,
    ) -> Result<Self, Error> {
        Err(Error::failed("connecting to", name, "not built yet"))
    }

    /// Reads what has come, at least one byte; 0 when the other end has closed.
    pub fn read(&mut self, _buffer: &mut [u8], _deadline: Deadline) -> Result<usize, Error> {
        let _ = &self.fd;
        Err(Error::failed("reading from", "the network", "not built yet"))
    }

    /// Writes all of it.
    pub fn write_all(&mut self, _bytes: &[u8], _deadline: Deadline) -> Result<(), Error> {
        Err(Error::failed("writing to", "the network", "not built yet"))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}
