//! A connection to a server, in the clear or by TLS.

use super::deadline::Deadline;
use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::Session;
use crate::error::Error;

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
