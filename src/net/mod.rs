//! The network: names, sockets, TLS, HTTP/1.1, and reading a remote file by ranges.
//!
//! Knows nothing of balena, of images or of stages, and writes no file. Everything has a deadline, which is an
//! argument; buffers are mapped once and of fixed size; nothing is allocated but by TLS, from an arena of fixed size.
//! Nothing secret (bearer tokens, passwords of proxies, queries of signed URLs) is logged or stands in an error.
//!
//! From the bottom: `deadline` and `poll`, `socket` and `names`, `trust` and `tls`, `url` and `proxy`,
//! `http` (what is on the wire), `settings`, `connection`, `client` (one exchange with redirects and retries), `remote`
//! (a file by ranges).

pub mod client;
pub mod connection;
pub mod deadline;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod http;
pub mod names;
mod poll;
pub mod proxy;
pub mod remote;
pub mod settings;
pub mod socket;
#[cfg(feature = "tls")]
pub mod tls;
pub mod trust;
pub mod url;

use core::net::IpAddr;

/// The addresses of one name, the preferred ones first.
pub type Addresses = heapless::Vec<IpAddr, 16>;
